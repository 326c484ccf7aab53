"""What a platform that is told the taste could get: the bound U_t(memory, omega) of one case.

By the rule's own exact bound where it has one; else memories are listed, where they are few; else
by the rule's bound.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.told import AbstractToldBound, ToldTaste
from dynmech.problem.moving import MovingProcess, PlayedProcess
from dynmech.problem.process import MarketProcess
from solvers import AbstractCeiling, Case
from solvers.told.enumerated import enumerate_ceilings
from solvers.told.plans import with_plan
from solvers.told.rounded import Rounded, gaining

_WORK = 1e9  # multiplications to list memories where a bound needs none


class RuleCeiling(AbstractCeiling):
    """The bound of an action rule."""

    bound: AbstractToldBound

    def value(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return self.bound.value(period, memories)

    def plans(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return None

    def gained(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return None


class MovingCeiling(AbstractCeiling):
    """The bound where values move: `ceilings` (V,) of the market's rules at every profile of them.

    `kernel` (C, V, V). Before it is known which profile follows, the mean over those that may.
    """

    ceilings: tuple[AbstractCeiling, ...]
    kernel: Float[np.ndarray, "C V V"]

    def value(self, period: int, memories: Int[np.ndarray, "_U d"]):
        found = self._mean(memories, lambda one, own: one.value(period, own))
        assert found is not None
        return found

    def plans(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return None

    def gained(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return self._mean(memories, lambda one, own: one.gained(period, own))

    def _mean(
        self,
        memories: np.ndarray,
        ask: Callable[[AbstractCeiling, np.ndarray], np.ndarray | None],
    ) -> Float[np.ndarray, "_U m"] | None:
        own, place = np.unique(memories[:, :-2], axis=0, return_inverse=True)
        found = [rows for one in self.ceilings if (rows := ask(one, own)) is not None]
        if not found:
            return None
        laws = np.concatenate([self.kernel, np.eye(len(self.ceilings))[None]])
        law = laws[memories[:, -1], memories[:, -2]]
        return np.einsum("uv,vum->um", law, np.stack(found)[:, place.reshape(-1)])


def make_ceilings(
    env: RecommendationMDP, process: PlayedProcess, cases: list[Case]
) -> list[AbstractCeiling]:
    """Bound every case from above, and from below by a fixed plan. Call it with float64 enabled.

    **Raises:** `TooLarge` for a rule of the user's own that remembers too much to enumerate.
    """
    if isinstance(process, MovingProcess):
        rules, kernel = process.rules, process.kernel
        each = [_above(env, rules, process.by_regime(case), kernel) for case in cases]
        return [MovingCeiling(tuple(ceilings), kernel) for ceilings in each]
    weights = np.asarray(env.tastes.weights, float)
    both = zip(cases, _above(env, process, cases), strict=True)
    return [with_plan(process, case, ceiling, weights) for case, ceiling in both]


def _above(
    env: RecommendationMDP,
    process: MarketProcess,
    cases: list[Case],
    kernel: np.ndarray | None = None,
) -> list[AbstractCeiling]:
    """Bound every case from above; `kernel`: where one follows another, see `MovingCeiling`."""
    above = _told_bounds(env, process, cases, kernel)
    if not process.single:
        return above
    gains = _told_bounds(env, *_gaining(process, cases), kernel)
    return [Rounded(*both) for both in zip(above, gains, strict=True)]


def told_taste(env: RecommendationMDP, process: MarketProcess, cases: list[Case]) -> ToldTaste:
    """What a rule is asked to bound, for every case."""
    costs = np.zeros((process.controls, env.tastes.size))
    if process.toll is not None:
        costs = np.asarray(process.toll.rate) * np.asarray(process.toll.unit)
    return ToldTaste(
        np.asarray(process.utilities),
        np.asarray(process.shown),
        costs,
        process.horizon,
        np.stack([np.asarray(case.worth(process.reward))[: env.products] for case in cases]),
        np.stack([np.asarray(case.allowed, bool) for case in cases]),
    )


def _gaining(process: MarketProcess, cases: list[Case]) -> tuple[MarketProcess, list[Case]]:
    """The same, terms below zero counted as nothing; tolls are."""
    process, cases = gaining(process, cases)
    if process.toll is None:
        return process, cases
    free = dataclasses.replace(process.toll, unit=0.0 * np.asarray(process.toll.unit))
    return dataclasses.replace(process, toll=free), cases


def _told_bounds(
    env: RecommendationMDP,
    process: MarketProcess,
    cases: list[Case],
    kernel: np.ndarray | None,
) -> list[AbstractCeiling]:
    rule = env.action_rule
    bounds = rule.told_bound(told_taste(env, process, cases)) if kernel is None else None
    if bounds is not None and all(bound.exact for bound in bounds):
        return [RuleCeiling(bound) for bound in bounds]
    try:
        work = math.inf if bounds is None else _WORK
        return [*enumerate_ceilings(process, cases, work=work, kernel=kernel)]
    except MemoryError as error:
        if bounds is not None:
            return [RuleCeiling(bound) for bound in bounds]
        must = "remember little, or bound what a platform that is told the taste could get"
        do = f"define {type(rule).__name__}.told_bound(told), or keep values constant"
        call = "solve_efficient_policy(env=RecommendationMDP(action_rule=...))"
        raise TooLarge(describe(call, must, str(error), do)) from error
