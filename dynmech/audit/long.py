"""The simulated engine: certified bounds, simulated slack, each with its confidence.

At the outset of profile b no strategy of reports of any one advertiser gains more than

    W(b) - V(b) + 2 max |bias of the estimate| + variation of total_i in her own report,

where the last is zero by construction (`dynmech.mechanism.long_groves`), W is bounded from above
for certain and V, the policy's own value, from below with confidence. Other settlements have no
such bound; simulation refutes them where some misreport measurably gains.

Every line of the audit holds with its confidence for all of its entries at once (Bonferroni).
"""

from typing import cast

import jax
import numpy as np
from jaxtyping import Float

from dynmech._checks import whole
from dynmech._devices import Work
from dynmech.audit.gains import measure_gains, witness
from dynmech.audit.inside import bound_inside
from dynmech.audit.record import Audit, Budget, Window
from dynmech.audit.witness import name_structures
from dynmech.bounded import Bounded, simulated, stack
from dynmech.errors import InvalidArgument, describe
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.values import ConstantValues
from dynmech.payments.groves import OwnTables
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.bias import largest_bias
from dynmech.policy.played import PlayEvaluator
from dynmech.policy.player import Played
from dynmech.policy.under import Elsewhere
from solvers import betting_lower, betting_upper
from solvers.certify import hidden

_TOLERANCE = 1e-9
_HERE = Work("audit")


def run_long_audit(
    priced: AbstractPricedPolicy,
    tables: OwnTables,
    total: Float[np.ndarray, "n B"],
    settlement: AbstractSettlement,
    signal: AbstractSettlementSignal,
    groves: str,
    reports: str,
    histories: str,
    interval: bool | None,
    conversations: int,
    nodes: int,
    confidence: float,
    tolerance: float | None,
    key: jax.Array | None = None,
    work: Work = _HERE,
    elsewhere: Elsewhere | None = None,
) -> Audit:
    """Run every check; see `DynamicTeamMechanism.audit`.

    **Arguments:** `tables`: along own alternatives; `elsewhere`: the policy as it is played where
    another market is the truth, `priced` being of that one.
    """
    policy = cast(PlayEvaluator, priced.evaluator)
    declared = _check(policy, histories, interval, conversations)
    searched = declared if interval is None else interval
    env, (n, batch) = policy.env, total.shape
    bias = largest_bias(env, signal)
    own = settlement.own
    stray = bias if own else None
    seed = [] if key is None else [np.asarray(jax.random.key_data(key)).ravel().tolist()]
    given = policy.play, settlement, signal, conversations, confidence, searched, stray, *seed
    gains, truth = measure_gains(*given, work=work)
    bounds = policy.bounds.both
    gap = bounds.upper - bounds.together(batch, confidence).lower + 2 * bias
    bound = np.tile(gap if own else np.full(batch, np.nan), (n, 1))
    short, spent, least, most_left = np.zeros((4, n, batch))
    kept = []
    alpha = (1 - confidence) / (2 * n * batch)
    money = np.zeros((4, batch))
    payments = np.zeros((2, n, batch))
    for b, played in enumerate(truth.played):
        kept.append(_payoff(bounds[b], played, confidence))
        short[:, b], spent[:, b] = _estimate(played.left)
        least[:, b], most_left[:, b] = _between(played.left, played.left_reach, played, alpha)
        paid = played.earned - played.payoff
        payments[:, :, b] = _estimate(paid)
        money[:2, b] = _estimate(paid.sum(axis=1))
        money[2:, b] = _estimate(played.utility.sum(axis=1) - played.costs)
    payments[0] += total
    money[0] += total.sum(axis=0)
    certain = np.full((n, batch), np.nan)
    if own:
        certain = total - policy.displayable.upper - bias
    team = all(played.team for played in truth.played)
    known = np.fmax(total - most_left, certain)
    # Under team transfers all advertisers have the same payoff.
    payoff = stack(kept, 1).together(batch if team else n * batch)
    # The policy is worth no more than the best one.
    most = bounds.upper + bias - total if own else np.inf
    gain, low = (gains.best(x, batch).max(axis=1) for x in (gains.gain.value, gains.gain.lower))
    certified = bound.max(axis=1) if own else np.full(n, np.nan)
    inside = bound_inside(priced, elsewhere, nodes, bias, confidence) if own else ()
    everywhere = certified
    if inside:
        everywhere = np.maximum(certified, max(node.bound for node in inside))
    by_period = np.full((n, int(env.horizon)), np.nan)
    by_period[:, 0] = gain

    def laid(table: np.ndarray) -> np.ndarray:
        return priced.laid_out(table)

    weights = priced.weights[priced.played]
    weights = weights / weights.sum()

    def slack(
        value: np.ndarray, lower: np.ndarray, upper: np.ndarray, error: np.ndarray
    ) -> tuple[Bounded, Bounded]:
        # What is certain of a slack is more than its simulated mean.
        best = np.where(lower <= upper, np.clip(value, lower, upper), value)
        parts = [np.broadcast_to(x, (n, batch)) for x in (best, lower, upper, error)]
        each = Bounded(*map(laid, parts), confidence=confidence)
        return each, Bounded(*(x @ weights for x in parts), confidence=confidence)

    high = np.fmin(payoff.upper - total, most)
    earned, mean_earned = slack(payoff.value - total, payoff.lower - total, high, payoff.error)
    paid_up, mean_paid_up = slack(total - short, known, total - least, spent)
    floor, ceiling = (
        laid(reduce.reduce(table.reshape(*table.shape[:2], -1), axis=2).T)
        for reduce, table in ((np.fmax, tables.contribution), (np.fmin, tables.payoff))
    )
    variance = np.full_like(laid(payments[0]), np.nan)
    paid = laid(payments[0]), laid(money[0]), laid(money[2])
    errors = laid(payments[1]), laid(money[1]), laid(money[3])
    return Audit(
        names=env.names,
        settlement=type(settlement).__name__,
        groves=groves,
        reports=reports,
        histories=histories,
        reported="support and ends of the interval" if searched else "support",
        confidence=confidence,
        runs=conversations,
        gain=Bounded(
            gain, low, np.where(np.isfinite(certified), certified, np.inf), confidence=confidence
        ),
        gain_by_period=by_period,
        witness=tuple(name_structures(env, witness(policy.play, gains, i)) for i in range(n)),
        deviations=len(gains.gain),
        incentive_bound=everywhere,
        profile_bound=laid(bound),
        gap=None,
        inside=inside,
        bias=bias,
        measured=gains,
        slack_participation=earned,
        slack_no_subsidy=paid_up,
        mean_participation=mean_earned,
        mean_no_subsidy=mean_paid_up,
        groves_total=laid(total),
        value=priced.figures.value,
        best=Bounded(priced.upper, priced.lower, priced.upper, confidence=priced.confidence),
        window=Window(floor, ceiling),
        budget=Budget(*paid, variance, *errors),
        tolerance=_TOLERANCE * env.money_scale if tolerance is None else float(tolerance),
    )


def _check(
    policy: PlayEvaluator, histories: str, interval: bool | None, conversations: int
) -> bool:
    """Raise for what this audit cannot do; whether an interval of reports is declared."""
    if histories != "on-path":
        must = "be 'on-path' where the policy is simulated: after own past lies nothing is bounded"
        do = "audit on-path, or solve with Exact(listed=True)"
        got = f"{histories!r} ({policy.solver})"
        raise InvalidArgument(describe("audit(histories=...)", must, got, do))
    whole(30)("audit(conversations=...)", conversations)
    values = policy.env.values
    declared = isinstance(values, ConstantValues) and values.interval is not None
    if interval and not declared:
        must, do = "declare one", "pass ConstantValues(support, prior, interval=...)"
        raise InvalidArgument(describe("audit(interval=True)", must, "none declared", do))
    return declared


def _payoff(value: Bounded, played: Played, confidence: float) -> Bounded:
    """Expected payoff under truth, without Groves term, (n,).

    Where everyone is paid the surplus it is the policy's `value`, simulated when it was certified,
    and what a biased estimate adds.
    """
    sample, reach = (played.excess, played.stray) if played.team else (played.payoff, played.reach)
    mean, error = _estimate(sample)
    unseen = hidden(sample, reach, played.going)
    if played.team:
        mean, error = value.value + mean, np.hypot(value.error, error)
        unseen = unseen + (0.0 if value.unseen is None else value.unseen)
    return simulated(mean, error, unseen, confidence)


def _between(
    sample: np.ndarray, reach: float, played: Played, alpha: float
) -> tuple[np.ndarray, ...]:
    """Bounds by betting, each with confidence 1 - `alpha`; means where nothing is drawn."""
    if played.going == 0:
        return sample.mean(axis=0), sample.mean(axis=0)
    return betting_lower(sample, -reach, alpha), betting_upper(sample, reach, alpha)


def _estimate(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs, and its standard error."""
    mean, deviation = sample.mean(axis=0), sample.std(axis=0, ddof=1)
    return np.asarray(mean), np.asarray(deviation / len(sample) ** 0.5)
