"""Solve what remains of a conversation that left the plan: one task, on a tree of its own."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import precision
from dynmech.errors import TooLarge
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.values import MarkovValues
from dynmech.policy.plans import plan_of
from dynmech.problem.edges import Compiled
from dynmech.problem.pose import Posed
from dynmech.problem.tasks import Pairs, assign, make_pairs
from dynmech.solve.outcome import laid_out, with_table
from dynmech.solve.prepare import root_beliefs
from dynmech.solve.running import run_solver
from solvers import Limits, Plan, Status, TaskList, deferred

_SHARE = 1e-3  # of the upper bound, where an exact tree does not fit or there is no last round


class Rest(eqx.Module):
    """W of one profile, solved: the market on its tree, the plan, and how far it may be off.

    `value` (P,): surplus of each pair per unit of mass; `gap` as in `AbstractEvaluator`.
    """

    env: RecommendationMDP
    profiles: Profiles
    compiled: Compiled
    pairs: Pairs
    plan: Plan
    value: Float[np.ndarray, " P"]
    gap: tuple[Float[np.ndarray, "P _N"], ...] | None
    complete: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)


def solve_rest(env: RecommendationMDP, theta: Int[np.ndarray, "B n"]) -> Rest:
    """Solve W alone from values of indices `theta`, one row a belief held, exactly where it fits.

    **Raises:** `TooLarge` where not even bounds fit.
    """
    n = env.products
    signals = np.zeros((len(theta), n + 1), np.int64)
    signals[:, 0] = np.arange(len(theta))
    profiles = Profiles(np.asarray(theta), signals)
    endless = env.horizon == math.inf
    with precision(env.gamma), deferred():
        pairs = make_pairs(env, profiles).alone(isinstance(env.values, MarkovValues))
        root = root_beliefs(env, pairs)
        assignment = assign(env, pairs, root, env.values.support)
        posed, tasks = Posed(env), TaskList(assignment.groups)
        for limits in (Limits(), Limits(relative=_SHARE))[1 if endless else 0 :]:
            try:
                found = run_solver(posed.problem, tasks, None, limits, False)
                break
            except TooLarge:
                if limits.relative:
                    raise
        found = with_table(posed.problem, tasks, found, limits)
        market, solved = laid_out(posed, found, limits)
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
        gap=gap,
        complete=solved.complete,
        exact=solved.complete and solved.status is Status.EXACT,
    )
