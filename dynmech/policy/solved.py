"""From what a solver found to a policy."""

import dataclasses
import time

import numpy as np
from jaxtyping import Int

from dynmech._types import precision
from dynmech.bounded import Bounded
from dynmech.errors import NotFinite, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.policy.base import EfficientPolicy as EfficientPolicy
from dynmech.policy.base import Figures
from dynmech.policy.outcomes import expected_outcomes
from dynmech.policy.plans import plan_of
from dynmech.policy.walked import TreeEvaluator
from dynmech.problem.compile import compile_remembered
from dynmech.problem.pose import Posed
from dynmech.problem.tasks import Assignment, Pairs, assign, make_pairs
from dynmech.solve.outcome import Solved, laid_out
from dynmech.solve.prepare import (
    check_found,
    check_money,
    check_values,
    root_beliefs,
)
from dynmech.solve.running import our_errors, run_solver
from solvers import Exact, Limits, Status, TaskList
from solvers.told.rounded import widened
from solvers.tree.planned import plan_tree


def solve_remembered(
    env: RecommendationMDP,
    profiles: Profiles,
    batch: bool,
    solver: Exact | None = None,
    cells: int | None = None,
    single: bool = False,
) -> tuple[EfficientPolicy, list[Int[np.ndarray, "_M d"]]]:
    """Solve exactly on a tree that keeps memories apart, so that others can be asked at its nodes.

    **Arguments:** `cells`: profiles with own alternatives times nodes, at most; `single`: whether
    the market's numbers were rounded to single precision, which the bounds then hold.

    **Returns:** the policy, and the memories of each round by memory class.

    **Raises:** `TooLarge`.
    """
    began, solver = time.monotonic(), dataclasses.replace(solver or Exact(), listed=True)
    check_money(env)
    check_values(env)
    with precision(env.gamma):
        compiled, memories = compile_remembered(env, 2 * solver.memory)
        posed = Posed(env, compiled)
        pairs = make_pairs(env, profiles)
        root = root_beliefs(env, pairs)
        assignment = assign(env, pairs, root, env.values.support)
        tasks, limits = TaskList(assignment.groups), Limits()
        if cells is not None:
            listed = posed.problem.lists(2 * solver.memory)
            with our_errors("Exact", limits):
                work, _ = plan_tree(listed.structure, listed.tables, tasks.groups, solver)
            if work.nodes * len(pairs.root) > cells:
                must, got = f"have at most {cells} cells", work.nodes * len(pairs.root)
                raise TooLarge(describe("Certificate(walk=...)", must, got))
        found = run_solver(posed.problem, tasks, solver, limits, False)
        if single:
            listed = posed.problem.lists(2 * solver.memory)
            found = widened(found, listed.structure, listed.tables, tasks, single=True)
        market, solved = laid_out(posed, tasks, found, limits)
    seconds = time.monotonic() - began
    return finish(market, profiles, pairs, root, assignment, solved, batch, seconds), memories


def finish(
    env: RecommendationMDP,
    profiles: Profiles,
    pairs: Pairs,
    root: np.ndarray,
    assignment: Assignment,
    found: Solved,
    batch: bool,
    seconds: float,
) -> EfficientPolicy:
    """Make the policy of what a solver found; `batch`: whether profiles were asked for."""
    shape = (len(profiles),) if batch else env.profile_shape
    n = env.products
    plan, gap = plan_of(env, pairs, root, assignment, found)
    mass = plan.root.sum(axis=1)
    attained = np.concatenate([answer.value.ravel() for answer in found.answers])
    lower, upper = found.lower, found.upper

    def along(flat: np.ndarray, index: Int[np.ndarray, "B n Z"]) -> np.ndarray:
        total = mass[pairs.root[np.maximum(pairs.own[:, :, 0, :], 0)]]
        known = (index >= 0) & (total > 0)
        return np.where(known, flat[np.maximum(index, 0)] / np.where(known, total, 1), np.nan)

    kinds = assignment.marginal, assignment.displayable
    below, above = (np.stack([along(flat, x) for x in kinds]) for flat in (lower, upper))
    own = np.stack([along(attained, x) for x in kinds])
    exact = found.complete and found.status is Status.EXACT
    pair_mass = mass[pairs.root]

    def per_pair(flat: np.ndarray) -> np.ndarray:
        known = pair_mass > 0
        return np.where(known, flat[assignment.pair] / np.where(known, pair_mass, 1), np.nan)

    pair_value = per_pair(attained)
    check_found(env, np.concatenate([pair_value, own.ravel()]))
    if np.isneginf(per_pair(lower)[pairs.base]).any():
        must = "have so few rounds that chances too small for float64 cannot add up"
        got, do = f"{env.horizon} rounds", "reduce rounds or symbols, or solve with BestFirst()"
        raise NotFinite(describe("solve_efficient_policy(env=...)", must, got, do))
    # W >= W^{-i} whatever i's own value is, and Wd^{-i} >= W^{-i}: rounding of tied plans may not
    # say otherwise.
    for k in range(pairs.own.shape[2]):
        index = pairs.own[:, :, k]
        own[0] = np.where(index >= 0, np.fmin(own[0], pair_value[index]), own[0])
    own[1] = np.fmax(own[1], np.fmin(own[0], above[1]))
    own[0] = np.fmin(own[0], own[1])
    below = np.minimum(below, own)
    value = pair_value[pairs.base].reshape(shape)
    outcomes = expected_outcomes(plan, env.values.support, pairs, pairs.base)
    here = profiles.signals[:, 1:][:, :, None]

    def at(table: np.ndarray) -> np.ndarray:
        return np.take_along_axis(table, here, axis=2)[:, :, 0].T.reshape(n, *shape)

    evaluator = TreeEvaluator(
        env=env,
        profiles=profiles,
        compiled=found.compiled,
        pairs=pairs,
        plan=plan,
        pair_value=pair_value,
        own=Bounded(own, below, above),
        optimal=None,
        gap=gap,
        behind=None,
        complete=found.complete,
        exact=exact,
        beyond=per_pair(found.beyond) if found.endless else None,
    )
    least = per_pair(lower)[pairs.base].reshape(shape)
    off = value - least if exact else per_pair(found.beyond)[pairs.base].reshape(shape)
    figures = Figures(
        value=Bounded(value, value - off, value + (value - least if exact else 0.0)),
        lower=least,
        upper=per_pair(upper)[pairs.base].reshape(shape),
        marginal=Bounded(at(own[0]), at(below[0]), at(above[0])),
        displayable=Bounded(at(own[1]), at(below[1]), at(above[1])),
        **outcomes.tables(np.arange(len(pairs.base)), shape),
    )
    return EfficientPolicy(
        evaluator=evaluator,
        figures=figures,
        profiles=profiles,
        batch=batch,
        exact=exact,
        confidence=1.0,
        solver=found.note,
        work=found.work,
        seconds=seconds,
        status=found.status,
    )
