"""Message-driven and two-stage mechanisms, for comparison (paper D, sections 3.1, 4.3 and B.1).

Message-driven VCG prices the externality with the reported information, and so pays agents to
lie about it (Claims 1 and 2, Examples 4 to 6). Mezzetti's mechanism asks for realised payoffs in
a second stage. `least_message_epsilon` finds the best that *any* message-driven transfers can do.

**References**

Mezzetti, "Mechanism design with interdependent valuations: efficiency", Econometrica 2004;
McLean and Postlewaite, "Implementation with interdependent valuations", Theoretical Economics
2015; Bergemann and Valimaki, "Information acquisition and efficient mechanism design",
Econometrica 2002; Rochet, "A necessary and sufficient condition for rationalizability in a
quasi-linear context", Journal of Mathematical Economics 1987.
"""

from collections.abc import Callable

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import (
    as_doubles,
    checked,
    function,
    optional,
    shaped,
)
from dynmech.errors import InvalidArgument, TooLarge, describe, require_finite, shown
from dynmech.payments.groves import AbstractGroves
from dynmech.static.environment import ENVIRONMENT, StaticEnvironment
from dynmech.static.estimators import IdealData
from dynmech.static.mechanisms import DirectMechanism, charge

_ROWS = 2_000_000


@checked(env=ENVIRONMENT)
def message_vcg(
    env: StaticEnvironment, groves: AbstractGroves | str = "informed"
) -> DirectMechanism:
    """Build the generalised VCG mechanism on messages alone.

    p_i = phi_i - sum_{j != i} v_j(x*(xi), theta_j, s, S), all at the *reported* information.

    **Arguments**

    - `groves`: a term of `dynmech.groves`; "pivot", at what the others reported, phi_i =
      max_x sum_{j != i} v_j(x, theta_j, s_-i, S_-i); or "informed", the same maximum at everybody's
      reports, i's included (the pivot of McLean and Postlewaite, exact where no agent's information
      matters).

    **Returns**

    A `DirectMechanism` whose data have one outcome. Its audit finds the profitable lie.

    **Raises**

    `InvalidArgument`.
    """
    fixed = isinstance(groves, AbstractGroves)
    if not fixed and not (isinstance(groves, str) and groves in ("pivot", "informed")):
        must = "be a Groves term, 'pivot' or 'informed'"
        raise InvalidArgument(describe("message_vcg(groves=...)", must, shown(groves)))
    require_common_prior("message_vcg", env)
    allocation = env.efficient_allocation()
    transfers = []
    for i in range(env.agents):
        rest = [j for j in range(env.agents) if j != i]
        worth = _others(env, rest, None)
        paid = -np.take_along_axis(worth, allocation[..., None], axis=-1)
        if groves == "informed":
            paid = paid + worth.max(axis=-1, keepdims=True)
        elif groves == "pivot":
            paid = paid + _others(env, rest, i).max(axis=-1, keepdims=True)
        transfers.append(paid)
    name = f"message-driven VCG ({type(groves).__name__ if fixed else groves})"
    found = DirectMechanism(env, allocation, transfers, name=name)
    return charge(found, groves, "message_vcg") if fixed else found


class MessageBound(eqx.Module):
    """The best that message-driven transfers can do for the efficient rule.

    `epsilon` (n,): the least epsilon of Definition 6 for each agent; positive iff no
    message-driven mechanism implements the rule for her types. `mechanism` attains it.
    """

    epsilon: Float[np.ndarray, " n"]
    mechanism: DirectMechanism


@checked(env=ENVIRONMENT)
def least_message_epsilon(env: StaticEnvironment) -> MessageBound:
    """Find the message-driven transfers with the least epsilon, by linear programs (HiGHS).

    For each agent and each profile of the others: least e such that some t(xi_i) satisfies
    v_i(xi_i) + t(xi_i) + e >= v_i(xi'_i | xi_i) + t(xi'_i) for all pairs. It is zero iff the rule
    is cyclically monotone there. Claims 1 and 2 say that it is not in their settings. Within the
    tolerance of HiGHS, 1e-7 of the money scale.

    **Returns**

    `MessageBound`.

    **Raises**

    `TooLarge`.
    """
    from scipy.optimize import linprog

    allocation, possible = env.efficient_allocation(), env.possible()
    epsilon, transfers = np.zeros(env.agents), []
    for i in range(env.agents):
        size = env.shape[i]
        if size**2 * (size + 1) > 20 * _ROWS:
            must, do = "be few enough for a dense linear program", "use fewer types"
            call = "least_message_epsilon(env=...)"
            raise TooLarge(describe(call, must, f"{size} types of {env.names[i]}", do))
        value = np.moveaxis(env.expected_payoff(i), i, 0).reshape(size, -1, len(env.allocations))
        chosen = np.moveaxis(allocation, i, 0).reshape(size, -1)
        can = np.moveaxis(possible, i, 0).reshape(size, -1)
        true, told = (index.ravel() for index in np.indices((size, size)))
        rows = np.zeros((size * size, size + 1))
        np.add.at(rows, (np.arange(size * size), told), 1.0)
        np.add.at(rows, (np.arange(size * size), true), -1.0)
        rows[:, -1] = -1.0
        paid = np.zeros(chosen.shape)
        for o in range(chosen.shape[1]):
            at_report = value[:, o][:, chosen[:, o]]
            slack = np.diag(at_report)[:, None] - at_report
            keep = (true != told) & can[true, o]
            if not keep.any():
                continue
            bounds = [(None, None)] * size + [(0, None)]
            cost = np.append(np.zeros(size), 1.0)
            done = linprog(cost, rows[keep], slack[true, told][keep], bounds=bounds, method="highs")
            if not done.success:
                raise RuntimeError(f"HiGHS failed on a feasible program: {done.message}")
            paid[:, o] = done.x[:-1]
            epsilon[i] = max(epsilon[i], done.x[-1])
        others = tuple(e for j, e in enumerate(env.shape) if j != i)
        transfers.append(np.moveaxis(-paid.reshape(size, *others), 0, i)[..., None])
    name = "message-driven, least epsilon"
    return MessageBound(epsilon, DirectMechanism(env, allocation, transfers, name=name))


@checked(env=ENVIRONMENT, second_stage=optional(function(1, "of the payoffs realised")))
def mezzetti(
    env: StaticEnvironment, second_stage: Callable[[np.ndarray], np.ndarray] | None = None
) -> DirectMechanism:
    """Build the first stage of Mezzetti's mechanism, given what is reported in the second.

    p_i = -sum_{j != i} u'_j, (10) with phi = 0, where u'_j is the payoff that j reports once she
    has observed it. Truthful second-stage reports make the first stage incentive compatible and
    the transfers those of data-driven VCG with ideal data (footnote 12).

    **Arguments**

    - `second_stage`: what each *other* agent reports when her payoff is u, vectorised; None:
      the truth. She is indifferent (`second_stage_spread`), so any report is a best reply: an
      audit with another function shows how much the first stage hangs on the choice.

    **Returns**

    A `DirectMechanism` contingent on the state.
    """
    allocation = env.efficient_allocation()
    law = IdealData().law(env)
    transfers = []
    for i in range(env.agents):
        total = np.zeros(1)
        for j in range(env.agents):
            if j == i:
                continue
            table = env.payoff_by_type(j)
            told = table
            if second_stage is not None:
                call = "mezzetti(second_stage=...)"
                told = np.asarray(shaped(*table.shape)(call, second_stage(table)), np.float64)
            whole = np.broadcast_to(told, (*env.shape, *told.shape[-2:]))
            at = np.take_along_axis(whole, allocation[..., None, None], axis=-2)
            total = total - at[..., 0, :]
        transfers.append(np.broadcast_to(total, (*env.shape, env.states.size)))
    return DirectMechanism(env, allocation, transfers, [law] * env.agents, "Mezzetti, first stage")


@checked(groves=optional(function(2, "of an agent and the others' reports")))
def mezzetti_transfers(
    utilities: npt.ArrayLike,
    groves: Callable[[int, np.ndarray], float] | None = None,
) -> Float[np.ndarray, " n"]:
    """Settle the second stage: p_i = phi_i(u'_-i) - sum_{j != i} u'_j, (10).

    **Arguments:** `utilities`: (n,), payoffs reported, money. `groves(i, others)`: phi_i given the
    n-1 reports of the others; None: zero.

    **Returns:** (n,), money paid by each agent; the i-th does not depend on u'_i.

    **Raises:** `InvalidArgument`, `NotFinite`.
    """
    told = as_doubles("mezzetti_transfers(utilities=...)", utilities)
    if told.ndim != 1 or not told.size:
        raise InvalidArgument(
            describe("mezzetti_transfers(utilities=...)", "have shape (n,)", told.shape)
        )
    require_finite("mezzetti_transfers(utilities=...)", told)
    others = [np.delete(told, i) for i in range(told.size)]
    extra = np.zeros(told.size)
    if groves is not None:
        given = [groves(i, rest) for i, rest in enumerate(others)]
        extra = shaped(told.size)("mezzetti_transfers(groves=...)", given)
    return np.asarray(extra) - np.array([rest.sum() for rest in others])


@checked(env=ENVIRONMENT, reports=optional(shaped("L")))
def second_stage_spread(
    env: StaticEnvironment, reports: npt.ArrayLike | None = None
) -> Float[np.ndarray, " n"]:
    """Measure how much an agent's own second-stage report moves her payoff: zero, by (10).

    Tries every report at every state and profile of realised payoffs.

    **Arguments:** `reports`: (L,), payoffs to try, money; None: 9 over the range of payoffs.

    **Returns:** (n,), the largest difference between two reports, money.
    """
    allocation, n = env.efficient_allocation(), env.agents
    realised = []
    for j in range(n):
        table = env.payoff_by_type(j)
        whole = np.broadcast_to(table, (*env.shape, *table.shape[-2:]))
        at = np.take_along_axis(whole, allocation[..., None, None], axis=-2)[..., 0, :]
        realised.append(at.ravel())
    cells = np.unique(np.stack(realised, axis=1), axis=0)
    tried = np.linspace(cells.min(), cells.max(), 9) if reports is None else np.asarray(reports)
    spread = np.zeros(n)
    for cell in cells:
        for i in range(n):
            told = [np.where(np.arange(n) == i, report, cell) for report in tried]
            paid = [mezzetti_transfers(one)[i] for one in told]
            spread[i] = max(spread[i], max(paid) - min(paid))
    return spread


def _others(env: StaticEnvironment, rest: list[int], without: int | None):
    """Sum of the other agents' expected payoffs at every allocation, at reported information."""
    shape = tuple(1 if j == without else size for j, size in enumerate(env.shape))
    total = np.zeros((*shape, len(env.allocations)))
    for j in rest:
        total = total + env.expected_payoff(j, without)
    return total


def require_common_prior(verb: str, env: StaticEnvironment) -> None:
    """Raise unless the prior is common: these mechanisms are stated for that case."""
    if env.priors.shape[1] > 1 or not (env.priors == env.priors[:1]).all():
        must, do = "have one common prior", "leave StaticEnvironment(priors=...) out"
        raise InvalidArgument(describe(f"{verb}(env=...)", must, "private priors", do))
