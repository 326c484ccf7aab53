"""Efficient recommendation policies: W, the marginal economies, and the plan that attains W."""

import os
import time

import jax
import numpy as np
from jaxtyping import Int

from dynmech._types import in_doubles, precision
from dynmech.bounded import Bounded
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.policy.base import EfficientPolicy as EfficientPolicy
from dynmech.policy.base import Figures
from dynmech.policy.outcomes import expected_outcomes
from dynmech.policy.plans import plan_of
from dynmech.policy.walked import TreeEvaluator
from dynmech.problem.compile import compile_remembered
from dynmech.problem.pose import Posed
from dynmech.problem.tasks import Assignment, assign, make_pairs
from dynmech.solve.outcome import Solved, laid_out, told_of, with_table
from dynmech.solve.prepare import (
    check_found,
    check_limits,
    check_money,
    check_solver,
    check_values,
    root_beliefs,
    wanted_profiles,
)
from dynmech.solve.running import our_errors, run_solver
from solvers import (
    AbstractSolver,
    Exact,
    Limits,
    Neural,
    Status,
    TaskList,
    deferred,
    plan_tree,
)

_VERB = "solve_efficient_policy"


def solve_efficient_policy(
    env: RecommendationMDP,
    solver: AbstractSolver | Neural | None = None,
    *,
    initial: Profiles | None = None,
    tolerance: float = 0.0,
    relative: float = 0.0,
    memory: float | None = None,
    seconds: float | None = None,
    checkpoint: str | os.PathLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
    throw: bool = False,
) -> EfficientPolicy:
    """Solve for the policy that maximises expected total surplus (paper C, section 3.2).

        W_t(theta, h, b) = max_r sum_omega b(omega) sum_j (theta_j + u_j(omega)) y_j(h, r, omega)
                           + sum_z E[W_{t+1}(theta', (h, r), b y_q(h, r, .) L(z | (h, r), .))]

    Ties: values that rounding cannot tell apart are tied; the lowest index is taken, none last.
    What can be off is a share of the terms of that value (`solvers.ties`), never of the market's
    largest number, and is in the bounds; where it is more than 1e-9 of the value itself,
    `policy.solver` says "ill conditioned".

    **Arguments**

    - `env`: the market. `solver`: `Exact()`, `BranchAndBound()`, `PointBased()` (where learning
      is the point), `Stationary()` (an infinite horizon), `Neural(certificate=Certificate())` (a
      long horizon: rules are used as they are, bounds from below are simulated), or an
      `AbstractSolver` of one's own; None picks one and says which and why in `policy.solver`:
      exact if it fits, else branch and bound if a tolerance is given.
    - `initial`: the profiles to solve, from `env.sample_profiles` or `Profiles`; every
      advertiser's own alternatives are solved along. All profiles by default.
    - `tolerance`: money, >= 0; `relative`: a share of the upper bound, in [0, 1). Bounds are close
      enough where either holds, at every profile, for W and every marginal economy. The exact
      solver is exact for any; an infinite horizon needs one.
    - `memory`: bytes (4e9 by default), `seconds`: for the solver that None picks; a solver's own
      settings win.
    - `checkpoint`: a folder where finished parts are kept; the same call resumes from it.
    - `mesh`: `jax.sharding.Mesh` over whose first axis the roots are split.
    - `progress`: show a bar when the solve takes more than two seconds.
    - `throw`: raise where the tolerance was missed; else a `DynmechWarning` says so.

    **Returns:** `EfficientPolicy`; exact up to rounding, or with certified bounds.

    What is found out later than at the start never raises: `policy.status` says why the solver
    ended, and the bounds that it reached hold.

    **Raises:** `TooLarge` when it will not fit, before work starts, with what to reduce;
    `NotFinite` for money beyond 1e290 or below 1e-290; `InvalidArgument`; `UnseenPurchase`,
    `InvalidProbability` from the market's rules;
    `ToleranceMissed`, which carries the policy, with `throw`.
    """
    began = time.monotonic()
    if not isinstance(env, RecommendationMDP):
        must = "be a RecommendationMDP"
        raise InvalidArgument(describe(f"{_VERB}(env=...)", must, type(env)))
    check_limits(_VERB, tolerance, relative, memory, seconds)
    check_money(env)
    env = env.with_cuts_found_anew()
    if isinstance(solver, Neural):
        from dynmech.policy.trained import solve_by_network

        if mesh is not None:
            must = "be None with Neural(), which works on one device"
            raise InvalidArgument(describe(f"{_VERB}(mesh=...)", must, mesh))
        return solve_by_network(env, solver, initial, tolerance, checkpoint, progress)
    check_solver(solver)
    single, env = env.gamma.dtype == np.float32, in_doubles(env)
    profiles = wanted_profiles(env, initial)
    check_values(env)
    asked = float(tolerance), float(relative)
    limits = Limits(*asked, memory, seconds, checkpoint, mesh, single)
    # Bounds that are there are not thrown away by an interrupt; solvers say where they let it in.
    with precision(env.gamma), deferred():
        posed = Posed(env)
        pairs = make_pairs(env, profiles)
        root = root_beliefs(env, pairs)
        assignment = assign(env, pairs, root, env.values.support)
        tasks = TaskList(assignment.groups)
        found = run_solver(posed.problem, tasks, solver, limits, progress)
        found = with_table(posed.problem, tasks, found, limits)
        market, solved = laid_out(posed, found, limits)
        spent = time.monotonic() - began
        batch = initial is not None
        policy = finish(market, profiles, pairs, root, assignment, solved, batch, spent)
    return told_of(policy, found, tasks, limits, throw)


def solve_remembered(
    env: RecommendationMDP,
    profiles: Profiles,
    batch: bool,
    solver: Exact | None = None,
    cells: int | None = None,
) -> tuple[EfficientPolicy, list[Int[np.ndarray, "_M d"]]]:
    """Solve exactly on a tree that keeps memories apart, so that others can be asked at its nodes.

    **Arguments:** `cells`: profiles with own alternatives times nodes, at most.

    **Returns:** the policy, and the memories of each round by memory class.

    **Raises:** `TooLarge`.
    """
    began, solver = time.monotonic(), solver or Exact()
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
        market, solved = laid_out(posed, found, limits)
    seconds = time.monotonic() - began
    return finish(market, profiles, pairs, root, assignment, solved, batch, seconds), memories


def finish(
    env, profiles, pairs, root, assignment: Assignment, found: Solved, batch, seconds
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
    own = below if found.gap is not None else np.stack([along(attained, x) for x in kinds])
    exact = found.complete and found.status is Status.EXACT
    pair_mass = mass[pairs.root]

    def per_pair(flat: np.ndarray) -> np.ndarray:
        known = pair_mass > 0
        return np.where(known, flat[assignment.pair] / np.where(known, pair_mass, 1), np.nan)

    pair_value = per_pair(attained)
    check_found(env, np.concatenate([pair_value, own.ravel()]))
    # W >= W^{-i} whatever i's own value is: rounding of tied plans may not say otherwise.
    for k in range(pairs.own.shape[2]):
        index = pairs.own[:, :, k]
        own[0] = np.where(index >= 0, np.fmin(own[0], pair_value[index]), own[0])
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
    )
    earned, utility, purchase = (
        Bounded(x.T.reshape(n, *shape))
        for x in (outcomes.earned, outcomes.utility, outcomes.purchase)
    )
    least = per_pair(lower)[pairs.base].reshape(shape)
    figures = Figures(
        value=Bounded(value, least, value + (value - least)) if exact else Bounded(value),
        lower=least,
        upper=per_pair(upper)[pairs.base].reshape(shape),
        marginal=Bounded(at(own[0]), at(below[0]), at(above[0])),
        displayable=Bounded(at(own[1]), at(below[1]), at(above[1])),
        earned=earned,
        utility=utility,
        purchase=purchase,
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
