"""Run the solver asked for, or pick one, on a compiled market; say which and why."""

from __future__ import annotations

import os

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech._compile import Compiled, tables
from dynmech._environment import RecommendationMDP
from dynmech._errors import InvalidArgument, TooLarge, describe
from dynmech._prepare import plan_tree, too_large
from dynmech._tasks import Assignment
from solvers import (
    Answer,
    BranchAndBound,
    Estimate,
    Exact,
    PointBased,
    Tables,
    Tree,
    solve_branch_and_bound,
    solve_exact,
    solve_point_based,
)

_VERB = "solve_efficient_policy"


class Solved(eqx.Module):
    """What a solver found: the tree, the plans' answers, upper bounds, and how it went.

    `upper`, `gap` are None when exact; else per group (R, Q), and per group and round the
    certified gap of each kept policy at each node, (N_t, R, keep), per unit of the node's mass.
    `lower` is None where the answers' values are lower bounds themselves; else per group (R, Q).
    """

    tree: Tree
    tables: Tables
    answers: list[Answer]
    upper: list[Float[np.ndarray, "_R _Q"]] | None
    gap: list[tuple[Float[np.ndarray, "_N _R _K"], ...]] | None
    work: Estimate
    note: str = eqx.field(static=True)
    lower: list[Float[np.ndarray, "_R _Q"]] | None = None


def run_solver(
    env: RecommendationMDP,
    compiled: Compiled,
    assignment: Assignment,
    solver: Exact | BranchAndBound | PointBased | None,
    *,
    tolerance: float,
    checkpoint: str | os.PathLike | None,
    mesh: jax.sharding.Mesh | None,
    progress: bool,
) -> Solved:
    """Solve every task; None solves exactly if that fits, else to the tolerance if one is given."""
    numbers = jax.tree.map(np.asarray, tables(env, compiled))
    if isinstance(solver, BranchAndBound | PointBased):
        refuse_options(solver, checkpoint, mesh)
        return _bounded(compiled, numbers, assignment, solver, tolerance, progress, "as asked")
    exact = solver or Exact()
    try:
        work, tree = plan_tree(env, compiled, assignment, exact)
    except TooLarge as error:
        if solver is not None or not tolerance > 0:
            raise
        asked = f"picked because the exact tree does not fit ({error})"
        return _bounded(compiled, numbers, assignment, BranchAndBound(), tolerance, progress, asked)
    try:
        answers = solve_exact(
            tree,
            numbers,
            assignment.groups,
            exact,
            checkpoint=checkpoint,
            mesh=mesh,
            progress=progress,
        )
    except MemoryError as error:
        raise too_large(str(error)) from error
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    why = "as asked" if solver else f"picked because {work.nodes} nodes fit"
    return Solved(tree, numbers, answers, None, None, work, f"Exact, {why}")


def refuse_options(solver: BranchAndBound | PointBased, checkpoint, mesh) -> None:
    """Raise if a solver with bounds is given what it has no use for."""
    for name, given in (("checkpoint", checkpoint), ("mesh", mesh)):
        if given is not None:
            must = (
                f"be None with {type(solver).__name__}(), which keeps its bounds when interrupted"
            )
            raise InvalidArgument(describe(f"{_VERB}({name}=...)", must, given))


def _bounded(compiled, numbers, assignment, solver, tolerance, progress, why) -> Solved:
    name, problem = type(solver).__name__, (compiled.structure, numbers, assignment.groups)
    wanted = {"tolerance": tolerance, "progress": progress}
    try:
        if isinstance(solver, PointBased):
            found = solve_point_based(*problem, solver, **wanted)
        else:
            found = solve_branch_and_bound(*problem, solver, **wanted)
    except MemoryError as error:
        must, do = "fit one plan for every profile", "reduce profiles or rounds, or raise it"
        call = f"{_VERB}(solver={name}(memory=...))"
        raise TooLarge(describe(call, must, str(error), do)) from error
    nodes, seconds, gap = found.history[-1]
    work = Estimate(nodes, 0.0, seconds)
    note = f"{name}, {why}: {found.status.value}; gap {gap:.3g}, {nodes} nodes"
    return Solved(found.tree, numbers, found.answers, found.upper, found.gap, work, note)
