"""Efficient recommendation policies: W, the marginal economies, and the plan that attains W."""

import os
import time
from typing import cast

import jax
import numpy as np

from dynmech._checks import flag
from dynmech._devices import read_mesh
from dynmech._types import in_doubles, precision
from dynmech.errors import InvalidArgument, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.policy.base import EfficientPolicy as EfficientPolicy
from dynmech.policy.solved import finish
from dynmech.policy.trained import solve_by_learning
from dynmech.problem.pose import Posed
from dynmech.problem.tasks import assign, make_pairs
from dynmech.solve.outcome import laid_out, told_of, with_table
from dynmech.solve.prepare import (
    check_limits,
    check_money,
    check_solver,
    check_values,
    root_beliefs,
    wanted_profiles,
)
from dynmech.solve.running import run_solver
from solvers import AbstractLearner, AbstractSolver, Limits, TaskList
from solvers.progress import deferred

_VERB = "solve_efficient_policy"


def solve_efficient_policy(
    env: RecommendationMDP,
    solver: AbstractSolver | None = None,
    *,
    initial: Profiles | None = None,
    tolerance: float = 0.0,
    relative: float = 0.0,
    memory: float | None = None,
    seconds: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
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

    - `env`: the market. `solver`: `Exact()`, `BranchAndBound()`, `BestFirst()` and `PointBased()`
      (where learning is the point; both also for an infinite horizon), `Stationary()` (an infinite
      horizon, cut), `Neural(certificate=Certificate())` (a
      long horizon: rules are used as they are, bounds from below are simulated), or an
      `AbstractSolver` or `AbstractLearner` of one's own; None picks one and says which and why in
      `policy.solver`: exact if it fits, its last round apart, and by its estimate within `seconds`
      (about a second where a tolerance is given and values do not move), else, with a tolerance or
      `seconds`, `BestFirst()`, a plan of its own for each economy, which gives way to being exact
      after a tenth of the time that this takes, or, where memories are too many to list or values
      move, `BranchAndBound()`. Without a last round `BestFirst()`, which after a second takes turns
      with bounds shared between beliefs, as in `PointBased()`, where users are heard.
    - `initial`: the profiles to solve, from `env.sample_profiles` or `Profiles`; every
      advertiser's own alternatives are solved along. All profiles by default; tables over them
      have axes P = (K,)*n + (Zp, Z1, ..., Zn), or, where these would be over 60 or hold over 2e6
      entries, are (B,) over `policy.profiles`, those of positive probability.
    - `tolerance`: money, >= 0; `relative`: a share of the upper bound, in [0, 1). Bounds are close
      enough where either holds, at every profile, for W and every marginal economy. The exact
      solver is exact for any; an infinite horizon needs one.
    - `memory`: bytes (8e9 by default), `seconds`: for the solver that None picks; a solver's own
      settings win.
    - `checkpoint`: a folder where finished parts are kept, or the state of a search between its
      passes; the same call resumes from it.
    - `mesh`: a `jax.sharding.Mesh` of one axis, over whose devices work is spread, also those of
      other processes (`jax.distributed`), all of which make the same call: roots for `Exact()` and
      `Stationary()`; runs of a pass's nodes or beliefs for searches; cases and profiles for
      `Neural()`. Answers are those of one device.
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
        must, do = (
            "be a RecommendationMDP",
            "make one of arrays: RecommendationMDP(gamma, ...)",
        )
        raise InvalidArgument(describe(f"{_VERB}(env=...)", must, type(env), do))
    check_limits(_VERB, tolerance, relative, memory, seconds)
    flag(f"{_VERB}(progress=...)", progress)
    flag(f"{_VERB}(throw=...)", throw)
    check_money(env)
    env = env.with_cuts_found_anew()
    asked = float(tolerance), float(relative)
    read_mesh(_VERB, mesh, env, None, "roots")
    check_solver(solver)
    if solver is not None and solver.learns:
        limits = Limits(*asked, checkpoint=checkpoint, mesh=mesh)
        learner = cast(AbstractLearner, solver)
        return solve_by_learning(env, learner, initial, limits, progress, throw)
    single, env = env.gamma.dtype == np.float32, in_doubles(env)
    profiles, batch = wanted_profiles(env, initial, memory)
    check_values(env)
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
        market, solved = laid_out(posed, tasks, found, limits)
        spent = time.monotonic() - began
        policy = finish(market, profiles, pairs, root, assignment, solved, batch, spent)
    return told_of(policy, found, tasks, limits, throw)
