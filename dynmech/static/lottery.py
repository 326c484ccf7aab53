"""Lottery mechanisms: eliciting beliefs by bets on the state (paper D, sections 4.3 and B.2).

Given the others' reports, agent i's report of her signal amounts to a posterior pi in a finite set
Pi_i. If no pi is in the convex hull of the others, (11), there are bets phi(pi, .) with mean zero
under pi and negative mean under every other belief; added to VCG transfers on messages at a large
enough scale they make the truth optimal (Proposition 5), and they extract all surplus where
values are known (Proposition 6). Where (11) fails, the convex combination is the proof.

**References**

Cremer and McLean, "Full extraction of the surplus in Bayesian and dominant strategy auctions",
Econometrica 1988; Riordan and Sappington, "Optimal contracts with public ex post information",
Journal of Economic Theory 1988.
"""

from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from dynmech._checks import as_doubles, checked, optional
from dynmech.errors import InvalidArgument, describe, require_probabilities
from dynmech.payments.groves import Zero
from dynmech.static.contingent import message_vcg, require_common_prior
from dynmech.static.environment import ENVIRONMENT, StaticEnvironment
from dynmech.static.estimators import DATA, AbstractData, IdealData
from dynmech.static.mechanisms import DirectMechanism

_SAME = 1e-9
_MARGIN = 1e-7
_SLACK = 1e-6


class Separation(eqx.Module):
    """Which of K beliefs stand outside the convex hull of the others, with proofs.

    - `margin` (K,): the largest delta such that some bet in [-1, 1] has mean zero under the belief
      and at most -delta under each other one; zero iff it is in their hull, infinite if alone.
    - `bet` (K, m): that bet, divided by its margin (zero where the margin is).
    - `combination` (K, K): weights on the other beliefs that give this one; NaN where separated.
    - `error` (K,): largest error of that combination.
    """

    margin: Float[np.ndarray, " K"]
    bet: Float[np.ndarray, "K m"]
    combination: Float[np.ndarray, "K K"]
    error: Float[np.ndarray, " K"]


def separate(beliefs: npt.ArrayLike) -> Separation:
    """Separate each belief from the convex hull of the others, by linear programs (HiGHS).

    A belief counts as separated if its margin exceeds 1e-7, the tolerance of HiGHS.

    **Arguments:** `beliefs`: (K, m), distinct, rows summing to 1.

    **Raises:** `InvalidArgument`, `NotFinite`, `InvalidProbability`.

    ```python
    >>> found = separate([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    >>> found.margin.round(3).tolist(), found.combination[2].round(3).tolist()
    ([0.444, 0.444, 0.0], [0.5, 0.5, 0.0])

    ```
    """
    from scipy.optimize import linprog

    points = as_doubles("separate(beliefs=...)", beliefs)
    if points.ndim != 2 or not points.size:
        raise InvalidArgument(describe("separate(beliefs=...)", "have shape (K, m)", points.shape))
    points = require_probabilities("separate(beliefs=...)", points)
    count, states = points.shape
    margin, error = np.full(count, np.inf), np.full(count, np.nan)
    bet, combination = np.zeros((count, states)), np.full((count, count), np.nan)
    for k in range(count if count > 1 else 0):
        rest = np.delete(np.arange(count), k)
        done = linprog(
            np.append(np.zeros(states), -1.0),
            np.hstack([points[rest], np.ones((len(rest), 1))]),
            np.zeros(len(rest)),
            np.append(points[k], 0.0)[None],
            np.zeros(1),
            bounds=[(-1, 1)] * states + [(0, None)],
            method="highs",
        )
        _require_solved(done)
        margin[k] = done.x[-1]
        if margin[k] > _MARGIN:
            bet[k] = done.x[:-1] / margin[k]
            bet[k] -= bet[k] @ points[k]
            continue
        margin[k] = 0.0
        gap = np.eye(states)
        done = linprog(
            np.append(np.zeros(len(rest)), np.ones(2 * states)),
            A_eq=np.vstack(
                [
                    np.hstack([points[rest].T, gap, -gap]),
                    np.append(np.ones(len(rest)), np.zeros(2 * states)),
                ]
            ),
            b_eq=np.append(points[k], 1.0),
            bounds=(0, None),
            method="highs",
        )
        _require_solved(done)
        combination[k] = 0.0
        combination[k, rest] = done.x[: len(rest)]
        error[k] = np.abs(combination[k] @ points - points[k]).max()
    return Separation(margin, bet, combination, error)


class Relevance(eqx.Module):
    """Condition (11) for one agent, given what the others reported.

    `agent`; `others`: one profile of types with that information (the agent's own entry -1);
    `beliefs` (K, m): Pi_i, distinct; `index` (E_i,): which belief each of her types holds, -1
    where her report contradicts the others'; `separation`: of what the data reveal of the beliefs.
    """

    agent: int = eqx.field(static=True)
    others: tuple[int, ...] = eqx.field(static=True)
    beliefs: Float[np.ndarray, "K m"]
    index: Int[np.ndarray, " E"]
    separation: Separation

    def failures(self) -> list[str]:
        """Write each belief that is a mixture of the others, with the weights."""
        lines = []
        for k in np.flatnonzero(self.separation.margin == 0):
            weights = self.separation.combination[k]
            parts = [
                f"{weights[j]:.4g} x {_show(self.beliefs[j])}" for j in np.flatnonzero(weights)
            ]
            lines.append(f"agent {self.agent}: {_show(self.beliefs[k])} = {' + '.join(parts)}")
        return lines


@checked(env=ENVIRONMENT, data=optional(DATA))
def check_relevance(
    env: StaticEnvironment, data: AbstractData | None = None
) -> tuple[Relevance, ...]:
    """Check condition (11) for every agent and all information of the others.

    **Arguments:** `data`: what the bets are settled on; default the state itself. With an
    estimator, its noisy analogue: the laws of the outcome that the beliefs imply.

    **Returns:** one `Relevance` for each agent and each distinct information of the others.

    **Raises:** `InvalidArgument` (private priors; data that depend on the allocation).
    """
    require_common_prior("check_relevance", env)
    kernel = _kernel_of(env, IdealData() if data is None else data)
    found = []
    for i in range(env.agents):
        belief = np.moveaxis(env.posterior(i), i, 0)
        size, shape = env.shape[i], belief.shape[1:-1]
        belief = belief.reshape(size, -1, belief.shape[-1])
        seen = {}
        for o, cell in enumerate(np.ndindex(*shape)):
            others = [*cell[:i], -1, *cell[i:]]
            key = tuple(
                (int(env.types[j].structure[e]), int(env.types[j].signal[e]))
                for j, e in enumerate(others)
                if j != i
            )
            if key in seen or not belief[:, o].any():
                continue
            seen[key] = True
            distinct, index = _distinct(belief[:, o])
            told = separate(distinct @ kernel)
            found.append(Relevance(i, tuple(others), distinct, index, told))
    return tuple(found)


class Lottery(eqx.Module):
    """A mechanism with bets on the state: `mechanism`, the bets' `scale` (n,), `relevance`."""

    mechanism: DirectMechanism
    scale: Float[np.ndarray, " n"]
    relevance: tuple[Relevance, ...]


@checked(env=ENVIRONMENT, data=optional(DATA))
def lottery_mechanism(env: StaticEnvironment, data: AbstractData | None = None) -> Lottery:
    """Build the lottery mechanism of Proposition 5.

    p_i = -sum_{j != i} v_j(x*(xi), theta_j, s, S) - lambda_i bet_i(s, S, omega), (24). lambda_i is
    the least that removes every gain, plus 1e-6 of it, given bets of the largest margin. Reports
    that contradict the others' are fined more than any payoff can be worth.

    **Arguments:** `data`: see `check_relevance`; payoffs and VCG terms are as in (24) all the same.

    **Raises:** `InvalidArgument` if (11) fails, with the convex combination.
    """
    return _with_bets(env, message_vcg(env, Zero()), data, "lottery_mechanism", "lottery")


@checked(env=ENVIRONMENT, data=optional(DATA))
def surplus_extraction(env: StaticEnvironment, data: AbstractData | None = None) -> Lottery:
    """Build the mechanism that leaves no rent, Proposition 6.

    p_i = v_i(x*(s, S), theta_i, s, S) - lambda_i bet_i(s, S, omega), (25); net payoffs are zero at
    every profile, (26).

    **Raises:** `InvalidArgument` if (11) fails, or if an agent has more than one value.
    """
    if env.theta.shape[1] > 1:
        must = "have one value for each agent, K = 1"
        call = "surplus_extraction(env=...)"
        raise InvalidArgument(describe(call, must, f"K = {env.theta.shape[1]}"))
    allocation = env.efficient_allocation()
    charged = [
        np.take_along_axis(env.expected_payoff(i), allocation[..., None], axis=-1)
        for i in range(env.agents)
    ]
    base = DirectMechanism(env, allocation, charged)
    return _with_bets(env, base, data, "surplus_extraction", "surplus extraction")


def _with_bets(
    env: StaticEnvironment, base: DirectMechanism, data: AbstractData | None, verb: str, name: str
) -> Lottery:
    data = IdealData() if data is None else data
    relevance = check_relevance(env, data)
    failures = [line for found in relevance for line in found.failures()]
    if failures:
        must = "satisfy condition (11): no belief in the convex hull of the others"
        do = "use data_driven_vcg, which needs no such condition"
        raise InvalidArgument(describe(f"{verb}(env=...)", must, failures[0], do))
    kernel, law = _kernel_of(env, data), data.law(env)
    possible, allocation = env.possible(), base.allocation
    scale, transfers = np.zeros(env.agents), []
    fine = 4 * (env.money_scale + max(float(np.abs(t).max()) for t in base.transfer))
    for i in range(env.agents):
        bets, held = _bets(env, [r for r in relevance if r.agent == i], i, kernel.shape[1])
        paid = -base.transfer[i][..., 0]  # to her, as bets are
        front = [np.moveaxis(t, i, 0) for t in (env.expected_payoff(i), allocation, paid, possible)]
        value, chosen, money, can = front
        outcome = np.moveaxis(env.posterior(i) @ kernel, i, 0)
        for true in range(env.shape[i]):
            at = np.take_along_axis(
                np.broadcast_to(value[true], (len(chosen), *value[true].shape)),
                chosen[..., None], axis=-1,
            )[..., 0]  # fmt: skip
            gain = at + money - (at[true] + money[true])
            mean = (bets * outcome[true]).sum(axis=-1)
            told = can[true] & can & (held != held[true])
            ratio = gain[told] / -mean[told]
            scale[i] = max(scale[i], ratio.max(initial=0.0))
        scale[i] *= 1 + _SLACK
        total = money[..., None] + scale[i] * bets
        spread = fine + scale[i] * np.abs(bets).max(initial=0.0)
        transfers.append(np.moveaxis(np.where(can[..., None], -total, spread), 0, i))
    mechanism = DirectMechanism(env, allocation, transfers, [law] * env.agents, name)
    return Lottery(mechanism, scale, relevance)


def _bets(env: StaticEnvironment, relevance: list[Relevance], agent: int, outcomes: int):
    """Lay the bets and belief indices of an agent over profiles, her own axis first."""
    shape = (env.shape[agent], *(e for j, e in enumerate(env.shape) if j != agent))
    bets, held = np.zeros((*shape, outcomes)), np.full(shape, -1)
    rest = [own for j, own in enumerate(env.types) if j != agent]
    for found in relevance:
        told = [e for j, e in enumerate(found.others) if j != agent]
        same = [
            (own.structure == own.structure[e]) & (own.signal == own.signal[e])
            for own, e in zip(rest, told, strict=True)
        ]
        cells = np.ix_(np.arange(shape[0]), *(np.flatnonzero(mask) for mask in same))
        size = (shape[0], *(int(mask.sum()) for mask in same))
        spread = found.index.reshape(-1, *(1,) * len(same))
        held[cells] = np.broadcast_to(spread, size)
        bets[cells] = np.broadcast_to(found.separation.bet[spread], (*size, outcomes))
    return bets, held


def _kernel_of(env: StaticEnvironment, data: AbstractData) -> Float[np.ndarray, "m R"]:
    law = data.law(env)
    if (law != law[:1]).any():
        must = "have a law that does not depend on the allocation"
        raise InvalidArgument(describe("check_relevance(data=...)", must, "one that does"))
    return np.asarray(law[0])


def _distinct(rows: np.ndarray):
    """Return the distinct nonzero rows and, for each row, its place among them (-1 if zero)."""
    kept: list[np.ndarray] = []
    index = np.full(len(rows), -1)
    for e, row in enumerate(rows):
        if not row.any():
            continue
        for k, other in enumerate(kept):
            if np.abs(row - other).max() <= _SAME:
                index[e] = k
                break
        else:
            index[e] = len(kept)
            kept.append(row)
    return np.array(kept), index


def _show(belief: np.ndarray) -> str:
    return "(" + ", ".join(f"{p:.4g}" for p in belief) + ")"


def _require_solved(done: Any) -> None:
    if not done.success:
        raise RuntimeError(f"HiGHS failed on a feasible program: {done.message}")
