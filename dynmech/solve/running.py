"""Run the solver asked for, or pick one, on a compiled market; say which and why."""

from __future__ import annotations

import dataclasses
import os

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.problem.compile import Compiled, tables
from dynmech.problem.tasks import Assignment
from dynmech.solve.prepare import plan_tree, rounded_up, too_large
from solvers import (
    Answer,
    BranchAndBound,
    Estimate,
    Exact,
    PointBased,
    Rounding,
    Tables,
    Tree,
    deferred,
    rounding,
    solve_branch_and_bound,
    solve_exact,
    solve_point_based,
    unrelated,
)

_VERB = "solve_efficient_policy"


class Solved(eqx.Module):
    """What a solver found: the tree, the plans' answers, upper bounds, and how it went.

    `upper`, `gap` are None when exact; else per group (R, Q), and per group and round the
    certified gap of each kept policy at each node, (N_t, R, keep), per unit of the node's mass.
    `lower` is None where the answers' values are lower bounds themselves; else per group (R, Q).
    `exact`: whether only rounding separates the bounds.
    """

    tree: Tree
    tables: Tables
    answers: list[Answer]
    upper: list[Float[np.ndarray, "_R _Q"]] | None
    gap: list[tuple[Float[np.ndarray, "_N _R _K"], ...]] | None
    work: Estimate
    note: str = eqx.field(static=True)
    lower: list[Float[np.ndarray, "_R _Q"]] | None = None
    exact: bool = eqx.field(static=True, default=False)


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
    single: bool = False,
    why: str = "as asked",
) -> Solved:
    """Solve every task; None solves exactly if that fits, else to the tolerance if one is given.

    `why`: the solver given is used, for the note.
    With `single` the sweep runs in float32, and what that can be off by widens every bound.
    """
    numbers = jax.tree.map(np.asarray, tables(env, compiled))
    room = None
    if single and not isinstance(solver, PointBased):
        compiled, room = allow(compiled, numbers, assignment, tolerance)
    if isinstance(solver, BranchAndBound | PointBased):
        refuse_options(solver, checkpoint, mesh)
        options = (tolerance, progress, why, room)
        return _bounded(compiled, numbers, assignment, solver, *options)
    exact = solver or Exact()
    try:
        work, tree = plan_tree(env, compiled, assignment, exact)
    except TooLarge as error:
        if solver is not None or not tolerance > 0:
            raise
        asked = f"picked because the exact tree does not fit ({error})"
        options = (tolerance, progress, asked, room)
        return _bounded(compiled, numbers, assignment, BranchAndBound(), *options)
    try:
        answers = solve_exact(
            tree,
            numbers,
            assignment.groups,
            exact,
            checkpoint=checkpoint,
            mesh=mesh,
            progress=progress,
            dtype=None if room is None else np.float32,
        )
    except MemoryError as error:
        raise too_large(str(error)) from error
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    why = why if solver else f"picked because {work.nodes} nodes fit"
    found = Solved(tree, numbers, answers, None, None, work, f"Exact, {why}", exact=True)
    return found if room is None else _widen(found, assignment, room)


def refuse_options(solver: BranchAndBound | PointBased, checkpoint, mesh) -> None:
    """Raise if a solver with bounds is given what it has no use for."""
    for name, given in (("checkpoint", checkpoint), ("mesh", mesh)):
        if given is not None:
            must = (
                f"be None with {type(solver).__name__}(), which keeps its bounds when interrupted"
            )
            raise InvalidArgument(describe(f"{_VERB}({name}=...)", must, given))


def allow(
    compiled: Compiled, numbers: Tables, assignment: Assignment, tolerance: float
) -> tuple[Compiled, Rounding]:
    """What float32 can be off by, before any work; and the problem as it is solved in it.

    **Raises:** `InvalidArgument` if it cannot certify the tolerance, with the smallest it can.
    """
    groups = assignment.groups
    structure = unrelated(compiled.structure, numbers, groups)
    room = rounding(structure, numbers, groups)
    if not np.isfinite(room.total) or 0 < tolerance < 2 * room.total:
        raise too_fine(tolerance, 2 * room.total)
    return dataclasses.replace(compiled, structure=structure), room


def too_fine(tolerance: float, least: float) -> InvalidArgument:
    """A tolerance that float32 cannot certify, refused with the smallest that it can."""
    must = f"be at least {rounded_up(least)} money, what float32 can certify in this market"
    do = "raise it, or pass gamma in float64"
    if not np.isfinite(least):
        must, do = "be for float64: float32 can certify nothing here", "pass gamma in float64"
    return InvalidArgument(describe(f"{_VERB}(tolerance=...)", must, tolerance, do))


def _widen(found: Solved, assignment: Assignment, room: Rounding) -> Solved:
    """Add what float32 can be off by to the bounds at the roots and at every node."""
    values = [np.asarray(answer.value, float) for answer in found.answers]
    above = values if found.upper is None else found.upper
    groups = assignment.groups
    bounds = [room.widen(*one) for one in zip(groups, values, above, strict=True)]
    losses = [room.losses(*one) for one in zip(groups, found.answers, strict=True)]
    if found.gap is not None:
        pairs = zip(losses, found.gap, strict=True)
        losses = [tuple(a + b for a, b in zip(*both, strict=True)) for both in pairs]
    return dataclasses.replace(
        found,
        lower=[low for low, _ in bounds],
        upper=[high for _, high in bounds],
        gap=losses,
        note=f"{found.note}; float32, rounding at most {room.total:.2g}",
    )


@deferred()
def _bounded(compiled, numbers, assignment, solver, tolerance, progress, why, room) -> Solved:
    name, problem = type(solver).__name__, (compiled.structure, numbers, assignment.groups)
    wanted = {"tolerance": tolerance, "progress": progress}
    try:
        if isinstance(solver, PointBased):
            found = solve_point_based(*problem, solver, **wanted)
        elif room is None:
            found = solve_branch_and_bound(*problem, solver, **wanted)
        else:
            wanted["tolerance"] = max(tolerance - 2 * room.total, 0.0)
            found = solve_branch_and_bound(*problem, solver, **wanted, dtype=np.float32)
    except MemoryError as error:
        must, do = "fit one plan for every profile", "reduce profiles or rounds, or raise it"
        call = f"{_VERB}(solver={name}(memory=...))"
        raise TooLarge(describe(call, must, str(error), do)) from error
    nodes, seconds, gap = found.history[-1]
    work = Estimate(nodes, 0.0, seconds)
    note = f"{name}, {why}: {found.status.value}; gap {gap:.3g}, {nodes} nodes"
    parts = (found.tree, numbers, found.answers, found.upper, found.gap, work, note)
    return Solved(*parts) if room is None else _widen(Solved(*parts), assignment, room)
