"""Exact audits of direct mechanisms, and the bounds of Lemmas 1 and 2 (paper D).

At a profile xi that can occur, agent i with type xi_i may report any xi'_i of her type space; the
others tell the truth. Her payoff is E[u_i(x(xi'), omega, theta_i) - p_i(xi', data) | S = s] under
her *true* belief. Every pair (xi, xi'_i) is compared, so the largest gain is the least epsilon of
Definition 6.
"""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import arrays, as_doubles, checked
from dynmech.audit.constraints import AbstractAudit, word
from dynmech.audit.witness import Witness
from dynmech.bounded import Bounded
from dynmech.errors import InvalidArgument, describe, import_extra, require_probabilities
from dynmech.static.environment import ENVIRONMENT, StaticEnvironment
from dynmech.static.estimators import DATA, AbstractData, distances_to_states

_TOLERANCE = 1e-9


class StaticAudit(AbstractAudit):
    """Incentives, participation and no subsidy: exact up to rounding.

    - `gain` (n,), `incentive_gain`: largest gain of a misreport at any profile that can occur,
      never below 0; `witness[i]` says where. `profile_gain` (n, E_1, ..., E_n): at each profile;
      NaN where it cannot occur. `deviations`: how many misreports were compared with truth.
    - `participation` (n, E_1, ..., E_n): expected payoff under truth; `no_subsidy`: expected
      payment to the mechanism, both slack, money, conditional on the profile. `worst_state_...`:
      the same at the worst state that is possible there (Definitions 8 and 9).
    - `ex_ante_participation`, `ex_ante_no_subsidy` (n,): means over profiles by `probability`
      (n, E_1, ..., E_n), which agent i forms with her own prior over the state (the same for all
      where the prior is common) and the laws of values and structures given to `audit`.
    - `revenue` (E_1, ..., E_n): what the mechanism expects to be paid, the sum of `no_subsidy`.
    - `tolerance`: money; gains and shortfalls below it are rounding.
    """

    who: ClassVar[str] = "agent"
    name: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    gain: Bounded
    profile_gain: Float[np.ndarray, "n ..."]
    witness: tuple[Witness, ...]
    deviations: int = eqx.field(static=True)
    slack_participation: Bounded
    slack_no_subsidy: Bounded
    worst_state_participation: Float[np.ndarray, "n ..."]
    worst_state_no_subsidy: Float[np.ndarray, "n ..."]
    mean_participation: Bounded
    mean_no_subsidy: Bounded
    probability: Float[np.ndarray, "n ..."]
    revenue: Float[np.ndarray, "..."]
    confidence: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @property
    def epsilon(self) -> float:
        """Return the least epsilon for which truth is an epsilon-posterior equilibrium."""
        return float(self.incentive_gain.max())

    def to_frame(self):
        """Labelled pandas table: one row an agent; money, worst over profiles, and means."""
        pandas = import_extra("pandas", "experiments", "StaticAudit.to_frame")
        states = {
            key: self.worst(getattr(self, key))
            for key in ("worst_state_participation", "worst_state_no_subsidy")
        }
        return pandas.DataFrame(self.columns(mechanism=self.name, **states))

    def summary(self) -> str:
        """A one-screen verdict."""
        proved = "proved" if self.epsilon <= self.tolerance else "refuted"
        lines = [
            f"{self.name}: tolerance {self.tolerance:.1e}, {self.deviations} misreports compared",
            *self.incentives(proved),
            *self.constraint_lines(),
        ]
        for label, table in (
            ("participation", self.worst_state_participation),
            ("no subsidy", self.worst_state_no_subsidy),
        ):
            low = float(np.nanmin(table))
            verdict = word("proved" if low >= -self.tolerance else "refuted", "S")
            lines.append(f"    in any state, {label} {verdict}: worst slack {low:.4g}")
        return "\n".join(lines)


class EpsilonBounds(eqx.Module):
    """The least epsilon of a data-driven VCG mechanism with h = 0, and the bounds above it.

    Each is (n,), in money, and no larger than the next: `reports`, the largest gain of a
    misreport (Definition 6); `any_allocation`, of choosing any x (the proof of Lemma 1); `lemma1`,
    2 sup |sum_{j != i} v_j - tbar_i|; `lemma2_posterior`, 2 sum_j L_j sup E[d | s], (22);
    `lemma2_state`, 2 sum_j L_j sup E[d | omega], (23). `lipschitz`: L_j on the points in use.
    """

    reports: Float[np.ndarray, " n"]
    any_allocation: Float[np.ndarray, " n"]
    lemma1: Float[np.ndarray, " n"]
    lemma2_posterior: Float[np.ndarray, " n"]
    lemma2_state: Float[np.ndarray, " n"]
    lipschitz: Float[np.ndarray, " n"]


@checked(env=ENVIRONMENT, data=DATA)
def epsilon_bounds(env: StaticEnvironment, data: AbstractData) -> EpsilonBounds:
    """Compute epsilon of Definition 6 exactly, and the bounds of Lemmas 1 and 2.

    Serves Theorem 2, Propositions 7 and 8 and Corollary 2, one data set at a time. L_j is the
    largest slope of u_j between a state and a point where it is evaluated, over all x and theta_j,
    in the Euclidean metric. A groves term whose expectation moves with the allocation, the pivot's
    included, is not covered: audit such a mechanism itself. With private priors only `reports` and
    `any_allocation` are meaningful. With `BayesianData` the distance is W_1 to the true state
    (Lemma 6).

    **Returns**

    `EpsilonBounds`.
    """
    n, law, distance = env.agents, data.law(env), data.distance(env)
    near = distances_to_states(data.support(env), env)
    # E[credited payoff of j at x | omega] minus u_j(x, omega): shape (..., A, m).
    errors, slopes = [], np.zeros(n)
    for j in range(n):
        credit, truth = data.credit(env, j), env.payoff_by_type(j)
        errors.append(np.einsum("...ar,amr->...am", credit, law) - truth)
        at_points = env.payoff_by_type(j, data.support(env))
        rise = np.abs(at_points[..., :, None] - truth[..., None, :]).max(axis=tuple(range(n + 1)))
        slopes[j] = (rise / np.where(near > 0, near, np.inf)).max()
    found, possible = bound_errors(env, errors), env.possible()
    rest = slopes.sum() - slopes
    seen = np.stack([_expect(distance, env.posterior(i))[possible].max() for i in range(n)])
    return EpsilonBounds(
        reports=found["reports"],
        any_allocation=found["any"],
        lemma1=found["lemma1"],
        lemma2_posterior=2 * rest * seen,
        lemma2_state=2 * rest * distance.max(),
        lipschitz=slopes,
    )


def bound_errors(
    env: StaticEnvironment, errors: Sequence[np.ndarray]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Compute the first three of `EpsilonBounds` from the errors of the credited payoffs.

    **Arguments:** `errors`: n tables that broadcast to (E_1, ..., E_n, A, m), E[credited payoff of
    j at x | omega] - u_j(x, omega), at the *true* profile of types.
    """
    n, possible = env.agents, env.possible()
    chosen = env.efficient_allocation()[..., None]
    found = {key: np.zeros(n) for key in ("reports", "any", "lemma1")}
    for i in range(n):
        others, belief = [j for j in range(n) if j != i], env.posterior(i)
        # v_j and errors of j as agent i expects them, under her own belief.
        error = sum((_expect(errors[j], belief) for j in others), np.zeros(1))
        worth = sum((_expect(env.payoff_by_type(j), belief) for j in others), np.zeros(1))
        objective = env.expected_payoff(i) + worth + error
        honest = np.take_along_axis(objective, chosen, axis=-1)[..., 0]
        reached = np.zeros(objective.shape, bool)
        for choice in np.moveaxis(chosen[..., 0], i, 0):
            np.put_along_axis(reached, _spread(choice, i, chosen.shape), True, axis=-1)
        best = np.where(reached, objective, -np.inf).max(axis=-1)
        found["reports"][i] = max(0.0, (best - honest)[possible].max())
        found["any"][i] = max(0.0, (objective.max(axis=-1) - honest)[possible].max())
        found["lemma1"][i] = 2 * np.abs(np.broadcast_to(error, objective.shape)[possible]).max()
    return found


def _expect(table: np.ndarray, belief: np.ndarray) -> np.ndarray:
    """Average (..., A, m) under (..., m): shape (..., A)."""
    return np.matmul(table, belief[..., None])[..., 0]


def _spread(choice: np.ndarray, agent: int, shape: tuple[int, ...]) -> np.ndarray:
    """Lay what one report of the agent leads to along all her types: (E_1, ..., E_n, 1)."""
    return np.broadcast_to(np.expand_dims(choice, agent)[..., None], shape)


def run_static_audit(
    env: StaticEnvironment,
    allocation: np.ndarray,
    transfers: tuple[np.ndarray, ...],
    name: str,
    theta_prior: npt.ArrayLike | None = None,
    structure_prior: Sequence[npt.ArrayLike] | None = None,
) -> StaticAudit:
    """Run every check. `transfers`: n arrays (E_1, ..., E_n, m), paid by each, given the state."""
    n, shape = env.agents, env.shape
    chance = _profile_chances(env, theta_prior, structure_prior)
    possible = env.possible()
    gains, witness, count, amount = np.full((n, *shape), np.nan), [], 0, 0.0
    honest = np.full((n, *shape), np.nan)
    worst = np.full((2, n, *shape), np.nan)
    expected = np.full((n, *shape), np.nan)
    for i in range(n):
        belief = env.posterior(i)
        payoff = np.broadcast_to(
            env.payoff_by_type(i), (*shape, len(env.allocations), belief.shape[-1])
        )
        chosen = np.take_along_axis(payoff, allocation[..., None, None], axis=-2)[..., 0, :]
        net = chosen - transfers[i]
        honest[i] = np.where(possible, (belief * net).sum(axis=-1), np.nan)
        expected[i] = np.where(possible, (belief * transfers[i]).sum(axis=-1), np.nan)
        for k, table in enumerate((net, transfers[i])):
            low = np.where(belief > 0, table, np.inf).min(axis=-1)
            worst[k, i] = np.where(possible, low, np.nan)
        found = _best_lies(belief, payoff, allocation, transfers[i], possible, i)
        gain, report, compared, most = found
        gains[i], count, amount = gain, count + compared, max(amount, most)
        witness.append(_witness(env, allocation, gain, report, i))
    return StaticAudit(
        name=name,
        names=env.names,
        gain=Bounded([w.gain for w in witness]),
        profile_gain=gains,
        witness=tuple(witness),
        deviations=count,
        slack_participation=Bounded(honest),
        slack_no_subsidy=Bounded(expected),
        worst_state_participation=worst[0],
        worst_state_no_subsidy=worst[1],
        mean_participation=Bounded(_average(honest, chance)),
        mean_no_subsidy=Bounded(_average(expected, chance)),
        probability=chance,
        revenue=expected.sum(axis=0),
        confidence=1.0,
        tolerance=_TOLERANCE * max(amount, float(np.finfo(float).tiny)),
    )


def _profile_chances(
    env: StaticEnvironment,
    theta_prior: npt.ArrayLike | None,
    structure_prior: Sequence[npt.ArrayLike] | None,
) -> Float[np.ndarray, "n ..."]:
    """Probability of each type profile, by each agent's own prior over the state."""
    n, values = env.theta.shape[:2]
    if theta_prior is None:
        theta_prior = np.full((n, values), 1 / values)
    worth = as_doubles("audit(theta_prior=...)", theta_prior)
    if worth.shape != (n, values):
        must = f"have shape ({n}, {values}), a law over each agent's values"
        raise InvalidArgument(describe("audit(theta_prior=...)", must, worth.shape))
    worth = require_probabilities("audit(theta_prior=...)", worth)
    sizes = env.signals.table.shape[1 : 1 + n]
    if structure_prior is None:
        structure_prior = [np.full(size, 1 / size) for size in sizes]
    kinds = arrays("audit(structure_prior=...)", structure_prior)
    if [law.shape for law in kinds] != [(size,) for size in sizes]:
        must = f"hold {n} laws, of lengths {tuple(int(size) for size in sizes)}"
        got = [law.shape for law in kinds]
        raise InvalidArgument(describe("audit(structure_prior=...)", must, got))
    for i, law in enumerate(kinds):
        require_probabilities(f"audit(structure_prior[{i}]=...)", law)
    drawn = np.ones(env.shape)
    for j, own in enumerate(env.types):
        place = [-1 if axis == j else 1 for axis in range(n)]
        each = worth[j][own.theta] * kinds[j][own.structure] / env.priors.shape[1]
        drawn = drawn * each.reshape(place)
    return np.stack([drawn * env.likelihood(i).sum(axis=-1) for i in range(n)])


def _average(table: np.ndarray, chance: np.ndarray) -> Float[np.ndarray, " n"]:
    axes = tuple(range(1, table.ndim))
    return np.where(chance > 0, table * chance, 0).sum(axis=axes) / chance.sum(axis=axes)


def _best_lies(
    belief: np.ndarray,
    payoff: np.ndarray,
    allocation: np.ndarray,
    transfer: np.ndarray,
    possible: np.ndarray,
    agent: int,
):
    """Largest gain at each profile and the report that makes it; how many were compared.

    Last the largest sum of sizes of terms behind truth or such a report: what rounding is of.
    """
    front = [np.moveaxis(table, agent, 0) for table in (belief, payoff, allocation, transfer)]
    belief, payoff, allocation, transfer = front
    can = np.moveaxis(possible, agent, 0)
    size, most = len(allocation), 0.0
    gain, report = np.full(can.shape, np.nan), np.zeros(can.shape, np.int64)
    for true in range(size):
        at_report = np.broadcast_to(payoff[true], (size, *payoff.shape[1:]))
        own = np.take_along_axis(at_report, allocation[..., None, None], axis=-2)[..., 0, :]
        total = ((own - transfer) * belief[true]).sum(axis=-1)
        extra = total - total[true]
        report[true] = extra.argmax(axis=0)
        gain[true] = np.where(can[true], extra.max(axis=0), np.nan)
        terms = ((np.abs(own) + np.abs(transfer)) * belief[true]).sum(axis=-1)
        told = np.take_along_axis(terms, report[true][None], axis=0)[0]
        most = max(most, float(np.maximum(terms[true], told)[can[true]].max(initial=0.0)))
    compared = int(can.sum()) * (size - 1)
    return np.moveaxis(gain, 0, agent), np.moveaxis(report, 0, agent), compared, most


def _witness(
    env: StaticEnvironment, allocation: np.ndarray, gain: np.ndarray, report: np.ndarray, agent: int
) -> Witness:
    cell = tuple(int(k) for k in np.unravel_index(np.nanargmax(gain), gain.shape))
    told, own = int(report[cell]), env.types[agent]
    reported = tuple(told if j == agent else e for j, e in enumerate(cell))
    values = [_short(x[t.theta[e]]) for x, t, e in zip(env.theta, env.types, cell, strict=True)]
    both = cell[agent], told
    theirs = [_short(np.asarray(env.theta)[agent][own.theta[e]]) for e in both]
    lies = [] if theirs[0] == theirs[1] else [f"value {theirs[1]} instead of {theirs[0]}"]
    for label, index in (
        ("prior", own.prior),
        ("structure", own.structure),
        ("signal", own.signal),
    ):
        was, said = (int(index[e]) for e in both)
        if was != said:
            lies.append(f"{label} {said} instead of {was}")
    truth, lie = ((x, int(own.signal[e])) for x, e in zip(theirs, both, strict=True))
    return Witness(
        advertiser=env.names[agent],
        period=0,
        gain=max(float(gain[cell]), 0.0),
        theta=tuple(values),
        signals=tuple(int(t.signal[e]) for t, e in zip(env.types, cell, strict=True)),
        history=(),
        truth=truth,
        report=lie,
        honest=env.allocation_names[int(allocation[cell])],
        deviant=env.allocation_names[int(allocation[reported])],
        probability=1.0,
        lies=tuple(lies),
        act="the mechanism chooses",
    )


def _short(value: npt.ArrayLike) -> float | tuple[float, ...]:
    """Keep four digits of a value, or of each of its coordinates."""
    digits = tuple(float(f"{x:.4g}") for x in np.ravel(value))
    return digits[0] if np.ndim(value) == 0 else digits
