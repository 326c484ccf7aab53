"""Which certified number each Groves term charges under a long-horizon policy, and what then holds.

No value is known exactly, so that every total is a bound on what the term names:

- `Participation`, `ExAnte`: lower bounds of W^{-i} (a policy without i, simulated). Charging less
  than W^{-i} favours participation; it holds where V - total_i >= 0, which V's interval decides.
- `NoSubsidy`: upper bounds (exact planning for some rounds). With `displayable` no subsidy then
  holds for certain, whatever the policy: D_i <= Wd^{-i} for every play. With W^{-i} it does if
  showing i cannot raise the others' surplus.
- `WindowCeiling`: min over own types of the lower bounds of V, all of them at once: participation
  for every own type, with the stated confidence. `WindowFloor`: max of upper bounds of D_i: no
  subsidy for every own type, with that confidence. `DataDriven`: both of these.

Whatever its number, a total is a function of the others' initial reports and the platform's
signal alone: i's value is absent from W^{-i} and Wd^{-i}, her signals are minimised or maximised
over, and no simulation or search behind it reads her report (see `_long_bounds`). Her gain from
lying is therefore at most W - V and what a biased estimate adds, even though totals are not exact.
This takes the policy as given before reports: lower bounds simulate its network, and a network
trained for the reported profile alone would let a report move them. Upper bounds use none.
"""

import numpy as np
from jaxtyping import Float

from dynmech.errors import InvalidArgument, describe
from dynmech.market.signals import AbstractSettlementSignal
from dynmech.payments.groves import (
    AbstractGroves,
    ExAnte,
    NoSubsidy,
    OwnTables,
    Participation,
    Zero,
)
from dynmech.play.long_play import largest_bias
from dynmech.policy.long_horizon import LongPolicy
from dynmech.solve.certificates import Bounds, margin


def long_tables(
    policy: LongPolicy, groves: AbstractGroves, signal: AbstractSettlementSignal
) -> OwnTables:
    """Tables that a Groves term reduces, with the bound that it should charge.

    **Raises:** `InvalidArgument` where own alternatives are needed and were not solved.
    """
    if policy.own is None:
        return _without_alternatives(policy, groves)
    own, pairs = policy.own, policy.own.pairs
    known = np.isfinite(own.surplus)
    bias = largest_bias(policy.env, signal)
    count = int(known.sum())
    sure = policy.confidence, own.runs
    payoff = own.surplus - margin(own.surplus_error, own.surplus_unseen, *sure, count) - bias
    n = policy.env.products
    step = margin(own.contribution_error, own.contribution_unseen, *sure, count * n)
    contribution = own.contribution + step + bias
    live, at = pairs.own >= 0, np.maximum(pairs.own, 0)
    mine = contribution[at, np.arange(n)[None, :, None, None]]
    upper = isinstance(groves, NoSubsidy)
    marginal, shown = (_charged(x, upper) for x in (own.marginal, own.displayable))
    here = policy.profiles.signals[:, 1:][:, :, None]
    at_own = np.take_along_axis(marginal, here, axis=2)[:, :, 0]
    return OwnTables(
        payoff=np.where(live, payoff[at], np.nan),
        contribution=np.where(live, mine, np.nan),
        marginal=marginal,
        displayable=shown,
        ex_ante=_ex_ante(policy, at_own),
        batch_mean=np.nanmean(at_own, axis=0),
        root=own.root,
        own_root=np.where(live[:, :, 0], pairs.root[at[:, :, 0]], -1),
        own_pair=pairs.own,
        signal=policy.profiles.signals[:, 1:],
    )


def _without_alternatives(policy: LongPolicy, groves: AbstractGroves) -> OwnTables:
    """Only what does not need own alternatives: nobody has signals of her own, or Zero()."""
    env, n, batch = policy.env, policy.env.products, len(policy.profiles)
    size = env.values.support.shape[1]
    quiet = max(env.initial_alphabet[1:]) == 1 and policy.marginal is not None
    fixed = policy.certificate.rounds is not None
    allowed = isinstance(groves, Zero) or (quiet and isinstance(groves, Participation | ExAnte))
    allowed = allowed or (quiet and fixed and isinstance(groves, NoSubsidy))
    if not allowed:
        must = "be Zero() unless each advertiser's own alternatives were solved along"
        do = "pass solve_long_horizon(..., alternatives=True)"
        call = "DynamicTeamMechanism(groves=...)"
        raise InvalidArgument(describe(call, must, f"{type(groves).__name__}()", do))
    blank = np.full((batch, n, 1), np.nan)
    upper, marginal, shown = isinstance(groves, NoSubsidy), blank, blank
    if policy.marginal is not None and policy.displayable is not None:
        bounds = (policy.marginal, policy.displayable)
        marginal, shown = (_charged(x, upper).T[:, :, None] for x in bounds)
    known = policy.marginal is not None
    return OwnTables(
        payoff=np.full((batch, n, size, 1), np.nan),
        contribution=np.full((batch, n, size, 1), np.nan),
        marginal=marginal,
        displayable=shown,
        ex_ante=_ex_ante(policy, marginal[:, :, 0]) if known else None,
        batch_mean=marginal[:, :, 0].mean(axis=0),
        root=policy.root,
        own_root=np.broadcast_to(np.arange(batch)[:, None, None], blank.shape).copy(),
        own_pair=np.full((batch, n, size, 1), -1),
        signal=policy.profiles.signals[:, 1:],
    )


def _charged(bounds: Bounds, upper: bool) -> Float[np.ndarray, "..."]:
    return bounds.upper if upper else bounds.lower


def _ex_ante(policy: LongPolicy, marginal: Float[np.ndarray, "B n"]) -> np.ndarray | None:
    """Expectation over all initial profiles, None if the batch does not hold them all."""
    if not policy.complete:
        return None
    weight = policy.probability()
    return np.nansum(weight[:, None] * marginal, axis=0) / weight.sum()
