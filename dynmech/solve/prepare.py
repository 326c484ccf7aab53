"""What is settled before a solve starts: solver, profiles, roots, and whether it will fit."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from dynmech.errors import InvalidArgument, TooLarge, describe, is_number
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles, all_profiles, check_profiles, signal_likelihood
from dynmech.market.values import MarkovValues
from dynmech.problem.compile import Compiled
from dynmech.problem.tasks import Assignment, Pairs
from solvers import (
    BranchAndBound,
    Estimate,
    Exact,
    PointBased,
    Stationary,
    build_tree,
    estimate,
)

_VERB = "solve_efficient_policy"
_MOST_PROFILES = 20_000
_MOST_MOVING = 4_096
_MOST_AXES = 60


def check_solver(
    env: RecommendationMDP, solver: Exact | BranchAndBound | PointBased | Stationary | None
) -> None:
    """Raise unless the solver fits the horizon and has memory to work with."""
    if solver is None:
        return
    if not isinstance(solver, Exact | BranchAndBound | PointBased | Stationary):
        must = "be Exact(), BranchAndBound(), PointBased(), Stationary(), Neural() or None"
        raise InvalidArgument(describe(f"{_VERB}(solver=...)", must, solver))
    name = type(solver).__name__
    if env.horizon == math.inf and not isinstance(solver, Stationary):
        must, do = f"be finite for {name}()", "solve with Stationary() and a tolerance in money"
        raise InvalidArgument(describe("RecommendationMDP(horizon=...)", must, env.horizon, do))
    if env.horizon < math.inf and isinstance(solver, Stationary):
        must, do = "be math.inf for Stationary()", "solve with Exact() or BranchAndBound()"
        raise InvalidArgument(describe("RecommendationMDP(horizon=...)", must, env.horizon, do))


def check_tolerance(verb: str, tolerance: Any) -> None:
    """Raise unless a tolerance is a number that bounds can be compared with."""
    if not (is_number(tolerance) and tolerance >= 0):
        must = "be >= 0, a number, in money"
        raise InvalidArgument(describe(f"{verb}(tolerance=...)", must, repr(tolerance)))


def rounded_up(least: float) -> str:
    """Three digits that are no less than this: whoever passes them on is not refused again."""
    text = f"{least:.2e}"
    return text if float(text) >= least else f"{1.01 * least:.2e}"


def wanted_profiles(env: RecommendationMDP, initial: Profiles | None) -> Profiles:
    if initial is not None:
        return check_profiles(env, initial)
    count = math.prod(env.profile_shape)
    if len(env.profile_shape) > _MOST_AXES:
        got = f"{env.products} products"
        do = "pass initial=env.sample_profiles(jax.random.key(0), 16)"
        must = f"name the profiles when P has more than {_MOST_AXES} axes"
        raise TooLarge(describe(f"{_VERB}(initial=...)", must, got, do))
    if count > _MOST_PROFILES:
        got = f"{count} profiles, P = {env.profile_shape}"
        do = "pass initial=env.sample_profiles(jax.random.key(0), 16)"
        must = f"name the profiles when there are more than {_MOST_PROFILES}"
        raise TooLarge(describe(f"{_VERB}(initial=...)", must, got, do))
    return all_profiles(env)


def check_values(env: RecommendationMDP) -> None:
    """Values that move can reach every profile of values: there must be few enough."""
    n, size = env.values.support.shape
    if isinstance(env.values, MarkovValues) and size**n > _MOST_MOVING:
        must = f"have at most {_MOST_MOVING} profiles of values, each of which can follow"
        got = f"{size}**{n} = {size**n:.3g}"
        do = "use fewer values or advertisers, or ConstantValues"
        call = "RecommendationMDP(values=MarkovValues(...))"
        raise TooLarge(describe(call, must, got, do))


def root_beliefs(env: RecommendationMDP, pairs: Pairs) -> Float[np.ndarray, "R m"]:
    likelihood = np.asarray(signal_likelihood(env, pairs.signals))
    return np.asarray(env.tastes.weights) * likelihood


def plan_tree(env, compiled: Compiled, assignment: Assignment, solver: Exact):
    points = env.tastes.size
    bound = estimate(compiled.structure, points, assignment.groups, solver.merge, None)
    most = int(solver.memory / (4 * (env.products + 1) * max(compiled.structure.symbols, 1)))
    if bound.nodes > 50 * most:
        raise too_large(f"up to {bound.nodes:.3g} nodes, {bound.seconds:.3g} s", bound)
    try:
        tree = build_tree(compiled.structure, solver.merge, limit=most)
    except MemoryError as error:
        raise too_large(str(error), bound) from error
    counts = [layer.nodes for layer in tree.layers]
    work = estimate(compiled.structure, points, assignment.groups, solver.merge, counts)
    if 8.0 * points * sum(counts[:-1]) > solver.memory:
        raise too_large(f"beliefs of {sum(counts[:-1])} nodes x {points} tastes", work)
    return work, tree


def too_large(got: str, work: Estimate | None = None) -> TooLarge:
    bound = f" (estimate: {work.nodes:.3g} nodes, {work.memory / 1e9:.3g} GB)" if work else ""
    do = "reduce rounds, symbols, products or profiles, raise Exact(memory=...) in bytes, give a "
    do += "tolerance, or solve with Neural()"
    return TooLarge(describe(f"{_VERB}(solver=Exact(memory=...))", "fit", got + bound, do))
