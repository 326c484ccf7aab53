"""Branch and bound over the merged tree: follow only controls that may still be the best.

The tree is grown, not enumerated. At every node some controls are followed; what is not followed
is bounded by a platform that is told the parameter (`solvers.told.bounds`), which holds at every
belief. One backward sweep gives, for every root and task,

    lower = value of the best plan that keeps to followed controls, an executable plan;
    upper = the same recursion in which a control that is not followed counts at its bound.

Next, walk down from every root whose gap is too large along the controls that attain the upper
bound, and follow those that are not followed yet (AO*, Nilsson 1980; Martelli and Montanari
1973). Followed controls are shared by all roots and tasks, and every node has a followed control
for each of them, so that plans can be executed from any root under any history of others.

Guarantee: lower <= W <= upper at any time, lower never falls, upper never rises, and both are
exact when nothing that is not followed can be better.
"""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from solvers.checkpoint import States, mark_of
from solvers.checks import check_fields, number, positive, time_limit
from solvers.devices import check_mesh, late
from solvers.host import Record
from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.process import Problem
from solvers.progress import Bar, deferred
from solvers.search.growing import (
    Known,
    begin_again,
    caps_at,
    elapsed,
    fits_a_plan,
    follow_more,
    followed,
    grow,
    most_nodes,
    require_plan,
    summary,
    sweep_bounded,
)
from solvers.search.search import search_process
from solvers.single import make_room, near_one, remarks, times
from solvers.solution import AbstractSolver, Limits, Solution, Status, Unsuited, close_enough
from solvers.table import Answer, PlanTable, flat, lay_out
from solvers.told.bounds import told_parameter
from solvers.told.rounded import widened_by_rules
from solvers.tree.beside import Beside, beside_exact, share_of_exact
from solvers.tree.merging import Guide, Leaders, follow_guides, merging_costs, shares
from solvers.tree.tree import Tree

_MOST_PASSES = 200
_APART = 8  # errors of a value, at most, that rounding alone puts its two bounds apart


class BranchAndBound(AbstractSolver):
    """Solve to a certified gap, following only controls that may still be the best.

    Anytime: it stops at the tolerance, or when memory or time is used up, or when interrupted,
    and returns the bounds reached.

    **Arguments**

    - `memory`: bytes that may live at once, default 4e9.
    - `seconds`: stop after the round in which this time has passed; None for no limit.
    - `merge_within`: beliefs closer than this in L1 (each of mass one; at most 2) are taken for
      one while searching; what that can cost is in the bounds (`solvers.tree.merging`). 0: never.
    - `exact_after`: once the search has taken this share of the seconds that the whole tree would
      take, roughly, that is solved exactly instead, at once where it is about a second; math.inf:
      never. Single precision, meshes and endless horizons are searched to the end.
    """

    memory: float = eqx.field(static=True, default=4e9)
    seconds: float | None = eqx.field(static=True, default=None)
    merge_within: float = eqx.field(static=True, default=0.0)
    exact_after: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        fields = {"memory": positive, "seconds": time_limit, "merge_within": number(0, 2)}
        check_fields(self, **fields, exact_after=share_of_exact)

    def solve(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        """Bound every task; see `AbstractSolver.solve`. Lists memories where they are few."""
        if problem.horizon == math.inf:
            do = "solve with BestFirst() or PointBased(), and a tolerance"
            raise Unsuited("horizon", "be finite for BranchAndBound()", problem.horizon, do)
        check_mesh(limits.mesh)
        return beside_exact(self, self._bound, problem, tasks, limits, progress)

    def _bound(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool, at: Beside):
        """Search on lists of memories, from the rules where they are too many."""
        moving = any(part.kernel is not None for part in tasks.groups)
        searchable = not moving and self.merge_within == 0
        try:
            listed = problem.lists(self.memory / 4 if searchable else 2 * self.memory)
        except MemoryError:
            if not searchable:
                raise
            return self._search(problem, tasks, limits, progress)
        structure, numbers, groups, room = listed.structure, listed.tables, tasks.groups, None
        tolerance, powers = limits.tolerance, None
        if limits.single:
            groups, powers = near_one(groups)
            structure, room = make_room(structure, numbers, groups, tolerance)
            tolerance = max(tolerance - 2 * (room or 0.0), 0.0)
        with fits_a_plan():
            found = solve_branch_and_bound(
                structure,
                numbers,
                groups,
                dataclasses.replace(self, seconds=at.seconds),
                tolerance=tolerance,
                relative=limits.relative,
                progress=progress,
                dtype=None if room is None else np.float32,
                checkpoint=limits.checkpoint,
                mesh=limits.mesh,
            )
        found = dataclasses.replace(found, status=at.give_way(found.status))
        if powers is not None:
            answers = list(map(times, found.answers, powers))
            upper = [answer.upper for answer in answers if answer.upper is not None]
            found = dataclasses.replace(found, answers=answers, upper=upper)
        return found.solution(tasks, room)

    def _search(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        """Search from the rules, because the memories are too many to list."""
        with fits_a_plan():
            found = search_process(
                problem.process,
                tasks.groups,
                memory=self.memory,
                seconds=self.seconds,
                tolerance=limits.tolerance,
                relative=limits.relative,
                progress=progress,
                checkpoint=limits.checkpoint,
                mesh=limits.mesh,
            )
        nodes, seconds, gap = found.history[-1]
        table = lay_out(found.rounds, tasks, found.value)
        note = f"searched from the rules because the memories are too many: {found.status.value}; "
        note += f"gap {gap:.3g}, {nodes} nodes met"
        note += "; ill conditioned" if found.ill else ""
        solved = Solution(
            found.lower,
            found.upper,
            found.status,
            table,
            value=found.value,
            note=note,
            nodes=nodes,
            seconds=seconds,
            table=table,
            rounding=_APART * (found.value - found.lower),
        )
        return widened_by_rules(solved, problem.process, tasks) if limits.single else solved


class BoundedTree(Record):
    """The tree grown; per group of tasks the plan's answer and upper bounds (R, Q); why it ended.

    `gap`: per group and round, of the policies kept, (N_t, R, keep): upper minus lower bound at
    the node, over the mass of its belief. `history`: nodes, seconds and largest gap after every
    pass. `size`: per group (R, Q), what the sums behind upper bounds add up to, where a plan's own
    value, which may be 0, does not say.
    """

    tree: Tree
    answers: list[Answer]
    upper: list[Float[np.ndarray, "_R _Q"]]
    gap: list[tuple[Float[np.ndarray, "_N _R _K"], ...]]
    status: Status = eqx.field(static=True)
    history: tuple[tuple[int, float, float], ...] = eqx.field(static=True)
    size: list[Float[np.ndarray, "_R _Q"]] | None = None

    def solution(self, tasks: TaskList, room: float | None = None) -> Solution:
        """The same as a `Solution`; `room`: in float32."""
        nodes, seconds, gap = self.history[-1]
        table = PlanTable(self.tree, None, self.answers, self.gap)
        lower = flat([answer.lower for answer in self.answers])
        text = f"{self.status.value}; gap {gap:.3g}, {nodes} nodes"
        off = table.value - lower
        if self.size is not None:
            off = np.maximum(off, np.finfo(float).eps * flat(self.size))
        return Solution(
            lower,
            flat(self.upper),
            self.status,
            table,
            value=table.value,
            note=text + remarks(self.answers, tasks, room),
            nodes=nodes,
            seconds=seconds,
            table=table,
            rounding=_APART * off,
        )


def solve_branch_and_bound(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: BranchAndBound,
    *,
    tolerance: float = 0.0,
    relative: float = 0.0,
    progress: bool = False,
    dtype: type[np.floating] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> BoundedTree:
    """Grow the tree until upper and lower bounds meet, within `tolerance` per unit of root mass.

    Or within `relative`, a share of the upper bound: either is enough, task by task. `checkpoint`:
    a folder where what is followed is kept, pass by pass, and found again. `mesh`: devices over
    which the nodes of every sweep are spread.

    **Raises:** `MemoryError` if one executable plan for every task does not fit.
    """
    wanted = (tolerance, relative)
    facts = (structure, tables, tasks), "BranchAndBound", solver.merge_within, *wanted, str(dtype)
    states = States(checkpoint, "branch-and-bound", functools.partial(mark_of, *facts))
    told = [told_parameter(structure, tables, part) for part in tasks]
    leaders = Leaders(solver.merge_within, tables, tasks) if solver.merge_within > 0 else None
    if leaders is not None:
        parts = structure, tables, tasks, told
        return _solve_merging(*parts, leaders, solver, wanted, dtype, states, mesh)
    known = [Known(structure.controls) for _ in range(structure.horizon)]
    best: Any = None
    passes = begin_again(states, known, mesh=mesh)
    began = time.monotonic() - elapsed(passes)
    status: Status | None = None
    with deferred() as interrupts, Bar("bounding", "pass", progress) as bar:
        while status is None:
            try:
                states.hold(lambda: followed(known, passes))
                with interrupts.now():
                    tree = grow(structure, tables, tasks, told, known, solver)
                    swept = [
                        sweep_bounded(tree, tables, part, up, solver, None, dtype, mesh=mesh)
                        for part, up in zip(tasks, told, strict=True)
                    ]
                    reached, gap = summary(tree, tables, tasks, swept)
                best = reached
                states.keep()
                passes.append((tree.nodes, time.monotonic() - began, gap))
                bar(1, f"gap {gap:.3g}, {tree.nodes} nodes")
                allowed = allowances(tasks, reached[2], tolerance, relative)
                status = _ended(excess(reached[3], allowed), began, solver, mesh)
                if status is None:
                    with interrupts.now():
                        more = follow_more(tree, tables, tasks, swept, known, allowed)
                    status = None if more else Status.EXACT
            except (KeyboardInterrupt, MemoryError) as error:
                if best is None:
                    raise
                status = stopped(error)
    tree, answers, upper, gap = best
    return BoundedTree(tree, answers, upper, kept_gaps(gap, tasks), status, tuple(passes))


def _solve_merging(
    structure: Structure, tables: Tables, tasks: Sequence[Tasks], told: list[list[np.ndarray]],
    leaders: Leaders, solver: BranchAndBound, asked: tuple[float, float],
    dtype: type[np.floating] | None, states: States, mesh: jax.sharding.Mesh | None,
) -> BoundedTree:  # fmt: skip
    """Search with merged beliefs, then follow what was found on a tree of exact ones.

    Where that tree does not fit, what was found bounds the plan of who is told the parameter.
    """
    require_plan(structure, tables, tasks, told, solver)
    known = [Known(structure.controls) for _ in range(structure.horizon)]
    passes = begin_again(states, known, leaders, mesh)
    began = time.monotonic() - elapsed(passes)
    all_kept = [dataclasses.replace(part, keep=part.coefficient.shape[1]) for part in tasks]
    found: Any = None
    status: Status | None = None
    with deferred() as interrupts:
        while status is None:
            try:
                states.hold(lambda: followed(known, passes, leaders))
                with interrupts.now():
                    leaders.begin()
                    tree = grow(structure, tables, tasks, told, known, solver, near=leaders)
                    swept = [
                        sweep_bounded(
                            tree,
                            tables,
                            part,
                            up,
                            solver,
                            share=shares(tree, tables, part),
                            mesh=mesh,
                        )
                        for part, up in zip(all_kept, told, strict=True)
                    ]
                    reached, gap = summary(tree, tables, tasks, swept)
                    distance = list(leaders.distance)
                    costs = [
                        merging_costs(structure, tables, part, up, distance)
                        for part, up in zip(tasks, told, strict=True)
                    ]
                off = max(float(cost.off[0].max(initial=0.0)) for cost in costs)
                found = tree, swept, costs
                states.keep()
                passes.append((tree.nodes, time.monotonic() - began, gap + 2 * off))
                wanted = [
                    np.maximum(one - 2 * off, one / 4)
                    for one in allowances(tasks, reached[2], *asked)
                ]
                status = _ended(excess(reached[3], wanted), began, solver, mesh)
                if status is None:
                    with interrupts.now():
                        more = follow_more(tree, tables, tasks, swept, known, wanted)
                    status = None if more and len(passes) < _MOST_PASSES else Status.EXACT
            except (KeyboardInterrupt, MemoryError) as error:
                if found is None:
                    raise
                status = stopped(error)
        guides = [
            Guide(found[0], tables, *one) for one in zip(tasks, found[1], found[2], strict=True)
        ]
        try:
            most = most_nodes(structure, tables, tasks, solver)
            exact, caps = follow_guides(structure, tables, tasks, guides, most)
        except MemoryError:
            status = Status.MEMORY_LIMIT
            exact = require_plan(structure, tables, tasks, told, solver)
            caps = caps_at(exact, tables, tasks, lambda g, *where: guides[g].at(*where)[1])
        swept = [
            sweep_bounded(exact, tables, part, up, solver, caps[g], dtype, mesh=mesh)
            for g, (part, up) in enumerate(zip(tasks, told, strict=True))
        ]
        (tree, answers, upper, gaps), gap = summary(exact, tables, tasks, swept)
        allowed = zip(allowances(tasks, upper, *asked), roundings(tasks, answers), strict=True)
        short = excess(gaps, [most + rounded for most, rounded in allowed]) > 0
        passes.append((tree.nodes, time.monotonic() - began, gap))
    if status in (Status.WITHIN_TOLERANCE, Status.EXACT):
        status = Status.STALLED if short else Status.WITHIN_TOLERANCE
    return BoundedTree(tree, answers, upper, kept_gaps(gaps, tasks), status, tuple(passes))


def stopped(error: KeyboardInterrupt | MemoryError) -> Status:
    """Why a solve ends at this error, once it has bounds."""
    return Status.MEMORY_LIMIT if isinstance(error, MemoryError) else Status.INTERRUPTED


def allowances(
    tasks: Sequence[Tasks], upper: list[np.ndarray], tolerance: float, relative: float
) -> list[Float[np.ndarray, "_R _Q"]]:
    """Gap per unit of mass that is close enough, per group (R, Q)."""
    return [
        close_enough(tolerance, relative, np.asarray(part.root, float).sum(axis=1)[:, None], high)
        for part, high in zip(tasks, upper, strict=True)
    ]


def roundings(
    tasks: Sequence[Tasks], answers: Sequence[Answer]
) -> list[Float[np.ndarray, "_R _Q"]]:
    """Gap per unit of mass that rounding alone can leave at the roots, per group (R, Q)."""
    found = []
    for part, answer in zip(tasks, answers, strict=True):
        mass = np.asarray(part.root, float).sum(axis=1)[:, None]
        off = _APART * (np.asarray(answer.value, float) - np.asarray(answer.lower, float))
        found.append(np.where(mass > 0, off / np.where(mass > 0, mass, 1.0), 0.0))
    return found


def excess(gaps: list[tuple[np.ndarray, ...]], allowed: list[Float[np.ndarray, "_R _Q"]]) -> float:
    """The most that a gap at a root (the first round's) is above what is allowed there."""
    pairs = zip(gaps, allowed, strict=True)
    return max((float((gap[0][0] - most).max(initial=-np.inf)) for gap, most in pairs), default=0.0)


def kept_gaps(
    gaps: list[tuple[np.ndarray, ...]], tasks: Sequence[Tasks]
) -> list[tuple[Float[np.ndarray, "_N _R _K"], ...]]:
    """Gaps of the plans that are kept."""
    return [tuple(x[:, :, : t.keep] for x in gap) for gap, t in zip(gaps, tasks, strict=True)]


def _ended(
    over: float, began: float, solver: BranchAndBound, mesh: jax.sharding.Mesh | None
) -> Status | None:
    if over <= 0:
        return Status.WITHIN_TOLERANCE
    return Status.TIME_LIMIT if late(mesh, began, solver.seconds) else None
