"""Solve what remains of a conversation that left the plan: one task, on a tree of its own."""

import dataclasses
import math

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Record, precision
from dynmech.errors import TooLarge
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.values import MarkovValues
from dynmech.policy.nodes import recommendations
from dynmech.policy.outcomes import expected_outcomes
from dynmech.policy.plans import plan_of
from dynmech.policy.playable import Playable, money_of
from dynmech.policy.recommender import Numbered
from dynmech.problem.compile import compile_remembered
from dynmech.problem.edges import Compiled
from dynmech.problem.pose import Posed
from dynmech.problem.tasks import Pairs, assign, make_pairs
from dynmech.solve.outcome import laid_out, with_table
from dynmech.solve.prepare import MEMORY, root_beliefs
from dynmech.solve.running import run_solver
from solvers import BestFirst, Exact, Limits, Status, TaskList
from solvers.progress import deferred
from solvers.stationary import cut_after, cut_off, with_later
from solvers.tree.plan import Plan

_LEAST = 1e-9  # of the market's money: a tolerance below is none
_SHARE = 1e-3  # of the upper bound, where an exact tree does not fit or there is no last round
_PATIENCE = 10.0  # seconds in which what is found is the same however quick the machine


class Rest(Record):
    """W of one profile, solved: the market on its tree, the plan, and how far it may be off.

    `value` (P,): surplus of each pair per unit of mass; `beyond` (P,): what later rounds than the
    plan's can cost at most, None where there are none; `gap` as in `AbstractEvaluator`;
    `memories`: of each round, by memory class, where they were kept apart.
    """

    env: RecommendationMDP
    profiles: Profiles
    compiled: Compiled
    pairs: Pairs
    plan: Plan
    value: Float[np.ndarray, " P"]
    beyond: Float[np.ndarray, " P"] | None
    gap: tuple[Float[np.ndarray, "P _N"], ...] | None
    memories: tuple[Int[np.ndarray, "_M d"], ...] | None
    complete: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)


def solve_rest(
    env: RecommendationMDP,
    theta: Int[np.ndarray, "B n"],
    apart: bool = False,
    rounds: int | None = None,
    tolerance: float = 0.0,
) -> Rest:
    """Solve W alone from values of indices `theta`, one row a belief held, exactly where it fits.

    **Arguments:** `apart`: on a tree that keeps memories apart, for others to be asked there.
    `rounds`: how many are written out of a market without end, None: as many as bounds need.
    `tolerance`: bounds this close are close enough where it does not fit, money; or .1%.

    **Raises:** `TooLarge` where not even bounds fit.
    """
    n = env.products
    signals = np.zeros((len(theta), n + 1), np.int64)
    signals[:, 0] = np.arange(len(theta))
    profiles = Profiles(np.asarray(theta), signals)
    endless = env.horizon == math.inf
    tolerance = tolerance if tolerance > _LEAST * env.money_scale else 0.0
    with precision(env.gamma), deferred():
        pairs = make_pairs(env, profiles).alone(isinstance(env.values, MarkovValues))
        root = root_beliefs(env, pairs)
        assignment = assign(env, pairs, root, env.values.support)
        compiled, memories, solver = None, None, Exact(listed=True) if apart else None
        if endless and rounds is None and not apart:  # resumed conversations are told the same
            solver = BestFirst(MEMORY, points_after=_PATIENCE)
        if apart:
            compiled, memories = compile_remembered(env, 2 * Exact().memory)
        posed = Posed(env) if compiled is None else Posed(env, compiled)
        tasks, limits, found = TaskList(assignment.groups), Limits(), None
        problem, cut, listed = posed.problem, None, None
        if rounds is not None:
            listed = problem.lists(2 * Exact().memory)
            cut, problem = cut_after(listed, tasks, rounds), cut_off(problem, listed, rounds)
        for limits in (Limits(), Limits(tolerance, _SHARE))[1 if endless else 0 :]:
            try:
                found = run_solver(problem, tasks, solver, limits, False)
                break
            except TooLarge:
                if limits.relative or apart:
                    raise
        assert found is not None
        found = with_table(problem, tasks, found, limits)
        if cut is not None and listed is not None:
            found = with_later(found, listed, tasks, cut)
        market, solved = laid_out(posed, tasks, found, limits)
    plan, gap = plan_of(market, pairs, root, assignment, solved)
    attained = np.concatenate([answer.value.ravel() for answer in solved.answers])
    mass = plan.root.sum(axis=1)[pairs.root]
    return Rest(
        env=market,
        profiles=profiles,
        compiled=solved.compiled,
        pairs=pairs,
        plan=plan,
        value=attained[assignment.pair] / mass,
        beyond=solved.beyond[assignment.pair] / mass if endless else None,
        gap=gap,
        memories=None if memories is None else tuple(memories),
        complete=solved.complete,
        exact=solved.complete and solved.status is Status.EXACT,
    )


def recommended(rest: Rest, asked: Playable, rounds: int) -> tuple[Plan, np.ndarray]:
    """What somebody recommends in what remains, `rounds` of which are over, and its surplus."""
    env = rest.env

    def ask(theta: np.ndarray, belief: np.ndarray, memory: np.ndarray, period: int):
        return asked.laws_at(money_of(env, theta), belief, memory, period + rounds)

    numbered, memories = Numbered(ask), list(rest.memories or ())
    taken = recommendations(rest.plan, rest.pairs, memories, numbered)
    plan = dataclasses.replace(rest.plan, actions=taken, laws=numbered.table)
    every = np.arange(len(rest.pairs.root))
    return plan, expected_outcomes(plan, env.values.support, rest.pairs, every).surplus
