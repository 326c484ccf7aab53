"""What a platform that is told the taste could get: the bound U_t(memory, omega) of one case.

Three ways, the first that applies. Memories are enumerated where they are few. With perfect
recall and threshold choice only the best product seen so far matters once omega is known. Else
the platform is also given every product it likes in the user's memory at once, which bounds any
recall with logit or threshold choice, and is loose where showing products takes long.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.rules import (
    AbstractQuery,
    ConstantQuery,
    FallingQuery,
    ImperfectRecall,
    Logit,
    PerfectRecall,
    ProductQuery,
    Threshold,
)
from dynmech.market.shown import asks
from dynmech.problem.process import MarketProcess
from solvers import AbstractCeiling, Case, enumerate_ceilings, with_plan

_WORK = 1e9  # multiplications to enumerate memories where a bound needs none
_KNOWN = (ConstantQuery, ProductQuery, FallingQuery)


class BestMatchCeiling(AbstractCeiling):
    """Exact for perfect recall and threshold choice: the best product seen is all that matters.

    `rank` (n, m): of each product by utility, ties to the lowest index. `table` (T+1, n+1, m):
    the value when the best product seen has that rank, n for none.
    """

    rank: np.ndarray
    table: Float[np.ndarray, "T1 n1 m"]

    def value(self, period, memories):
        n = len(self.rank)
        seen = (np.asarray(memories)[:, :, None] == np.arange(n)).any(axis=1)
        best = np.where(seen[:, :, None], self.rank, self.rank.dtype.type(n)).min(axis=1)
        return np.take_along_axis(self.table[period], best.astype(np.int64), axis=0)

    def plans(self, period, memories):
        return None


class FreeRecallCeiling(AbstractCeiling):
    """Bound for any recall: the best set of products comes to mind at once. `table` (T+1, m)."""

    table: Float[np.ndarray, "T1 m"]

    def value(self, period, memories):
        return np.broadcast_to(self.table[period], (len(memories), self.table.shape[1]))

    def plans(self, period, memories):
        return None


def make_ceilings(
    env: RecommendationMDP, process: MarketProcess, cases: list[Case]
) -> list[AbstractCeiling]:
    """Bound every case from above, and from below by a fixed plan. Call it with float64 enabled.

    **Raises:** `TooLarge` for a rule of the user's own that remembers too much to enumerate.
    """
    above = _told_bounds(env, process, cases)
    weights = np.asarray(env.tastes.weights, float)
    both = zip(cases, above, strict=True)
    return [with_plan(process, case, ceiling, weights) for case, ceiling in both]


def _told_bounds(env, process, cases: list[Case]) -> list[AbstractCeiling]:
    rule = env.action_rule
    recalls = rule if isinstance(rule, PerfectRecall | ImperfectRecall) else None
    if recalls is not None and not isinstance(recalls.query, _KNOWN):
        recalls = None
    if isinstance(recalls, PerfectRecall) and isinstance(recalls.choice, Threshold):
        rank = _rank(np.asarray(process.utilities))
        chance = _queries(recalls.query, process.utilities, process.shown)
        return [_best_match(process, case, rank, chance) for case in cases]
    bounded = recalls is not None and isinstance(recalls.choice, Threshold | Logit)
    try:
        return [*enumerate_ceilings(process, cases, work=_WORK if bounded else math.inf)]
    except MemoryError as error:
        if recalls is not None and bounded:
            lowest = _queries(recalls.query, process.utilities, process.shown).min(axis=(0, 1))
            return [_free_recall(process, case, recalls.choice, lowest) for case in cases]
        must = "remember little, or be PerfectRecall or ImperfectRecall with a choice from here"
        call = "solve_efficient_policy(env=RecommendationMDP(action_rule=...))"
        raise TooLarge(describe(call, must, str(error))) from error


def _rank(utilities: np.ndarray) -> np.ndarray:
    order = np.argsort(-utilities, axis=0, kind="stable")
    return np.argsort(order, axis=0, kind="stable").astype(np.uint16)


def _queries(
    query: AbstractQuery, utilities, shown: Int[np.ndarray, "A K"]
) -> Float[np.ndarray, "A n1 m"]:
    """Chance of asking again after each control if this product, or none, is the best known."""
    n = len(utilities)
    one = np.concatenate([np.eye(n, dtype=bool), np.zeros((1, n), bool)])
    each = jax.vmap(lambda r, kept: asks(query, r, jnp.asarray(utilities), kept), (None, 0))
    return np.asarray(jax.vmap(each, (0, None))(jnp.asarray(shown), jnp.asarray(one)))


def _best_match(process, case, rank, chance) -> BestMatchCeiling:
    n, points = rank.shape
    worth = np.asarray(case.worth(process.reward))[:n]
    bought = np.where(np.asarray(process.utilities) >= 0, worth, 0.0)
    costs = 0.0 * chance if process.toll is None else chance * process.toll.rate[:, None]
    costs = costs * (0.0 if process.toll is None else process.toll.unit)
    bought = np.concatenate([bought, np.zeros((1, points))])
    place = np.concatenate([rank.astype(int), np.full((1, points), n)])
    top = place[process.shown].min(axis=1)  # rank of the best product of each display
    best_of = np.take_along_axis(np.argsort(place, axis=0), top, axis=0)
    value, tables = np.zeros((n + 1, points)), []
    for _ in range(process.horizon + 1):
        tables.append(np.zeros((n + 1, points)))
        np.put_along_axis(tables[-1], place, value, axis=0)
        best = np.full((n + 1, points), -np.inf)
        for control in np.flatnonzero(case.allowed):
            asked = chance[control]
            stay = (1 - asked) * bought + asked * value - costs[control]
            fresh = np.take_along_axis(stay, best_of[control][None], axis=0)
            total = np.where(place <= top[control], stay, fresh)
            np.maximum(best, total, out=best)
        value = best
    return BestMatchCeiling(rank, np.stack(tables[::-1]))


def _free_recall(process, case, choice, lowest) -> FreeRecallCeiling:
    """max over weights of the share-weighted worth: a prefix of the products, best worth first."""
    utilities = np.asarray(process.utilities)
    worth = np.asarray(case.worth(process.reward))[: len(utilities)]
    held = process.shown[np.asarray(case.allowed)][:, :, None] == np.arange(len(utilities))
    allowed = held.any(axis=(0, 1))[:, None]
    worth = np.where(allowed, worth, 0.0)
    if isinstance(choice, Threshold):
        most = np.where(utilities >= 0, worth, 0.0).max(axis=0)
    else:
        logits = np.where(allowed, utilities / np.asarray(choice.scale), -np.inf)
        peak = np.maximum(logits.max(axis=0), 0.0)
        order = np.argsort(-worth, axis=0, kind="stable")
        weight = np.take_along_axis(np.exp(logits - peak), order, axis=0)
        yield_ = np.cumsum(weight * np.take_along_axis(worth, order, axis=0), axis=0)
        most = (yield_ / (np.exp(-peak) + np.cumsum(weight, axis=0))).max(axis=0)
    most, tables = np.maximum(most, 0.0), [np.zeros(utilities.shape[1])]
    for _ in range(process.horizon):
        tables.append((1 - lowest) * most + lowest * tables[-1])
    return FreeRecallCeiling(np.stack(tables[::-1]))
