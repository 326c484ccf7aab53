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

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.checks import check_fields, number, positive, time_limit
from solvers.devices import refuse_mesh
from solvers.problem import Structure, Tables, TaskList, Tasks, cast
from solvers.progress import Bar, deferred
from solvers.search.search import search_process
from solvers.single import make_room, remarks
from solvers.solution import (
    AbstractSolver,
    Limits,
    Solution,
    Status,
    Unsuited,
    close_enough,
)
from solvers.table import Answer, PlanTable, flat, lay_out
from solvers.told.bounds import bound_after, open_columns, told_parameter
from solvers.tree.backward import Swept, likelihood_rows, sweep
from solvers.tree.merging import Guide, Leaders, follow_guides, merging_costs, shares
from solvers.tree.tree import Layer, Tree, build_tree

_CACHE = 64e6
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
    """

    memory: float = eqx.field(static=True, default=4e9)
    seconds: float | None = eqx.field(static=True, default=None)
    merge_within: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        check_fields(self, memory=positive, seconds=time_limit, merge_within=number(0, 2))

    def solve(self, problem, tasks, limits, progress):
        """Bound every task; see `AbstractSolver.solve`. Lists memories where they are few."""
        if problem.horizon == math.inf:
            do = "solve with Stationary() and a tolerance"
            raise Unsuited("horizon", "be finite for BranchAndBound()", problem.horizon, do)
        refuse_parts(self, limits)
        moving = any(part.kernel is not None for part in tasks.groups)
        searchable = not moving and self.merge_within == 0
        try:
            listed = problem.lists(self.memory / 4 if searchable else 2 * self.memory)
        except MemoryError:
            if not searchable:
                raise
            return self._search(problem, tasks, limits, progress)
        structure, numbers, groups, room = listed.structure, listed.tables, tasks.groups, None
        tolerance = limits.tolerance
        if limits.single:
            structure, room = make_room(structure, numbers, groups, tolerance)
            tolerance = max(tolerance - 2 * (room or 0.0), 0.0)
        with fits_a_plan():
            found = solve_branch_and_bound(
                structure,
                numbers,
                groups,
                self,
                tolerance=tolerance,
                relative=limits.relative,
                progress=progress,
                dtype=None if room is None else np.float32,
            )
        return found.solution(tasks, room)

    def _search(self, problem, tasks, limits, progress):
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
            )
        nodes, seconds, gap = found.history[-1]
        table = lay_out(found.rounds, tasks, found.value)
        why = "searched from the rules because the memories are too many"
        note = f"{why}: {found.status.value}; gap {gap:.3g}, {nodes} nodes met"
        note += "; ill conditioned" if found.ill else ""
        return Solution(
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


class Bounded(eqx.Module):
    """The tree grown; per group of tasks the plan's answer and upper bounds (R, Q); why it ended.

    `gap`: per group and round, of the policies kept, (N_t, R, keep): upper minus lower bound at
    the node, over the mass of its belief. `history`: nodes, seconds and largest gap after every
    pass.
    """

    tree: Tree
    answers: list[Answer]
    upper: list[Float[np.ndarray, "_R _Q"]]
    gap: list[tuple[Float[np.ndarray, "_N _R _K"], ...]]
    status: Status = eqx.field(static=True)
    history: tuple[tuple[int, float, float], ...] = eqx.field(static=True)

    def solution(self, tasks: TaskList, room: float | None = None) -> Solution:
        """The same as a `Solution`; `room`: in float32."""
        nodes, seconds, gap = self.history[-1]
        table = PlanTable(self.tree, None, self.answers, self.gap)
        lower = flat([answer.lower for answer in self.answers])
        text = f"{self.status.value}; gap {gap:.3g}, {nodes} nodes"
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
            rounding=_APART * (table.value - lower),
        )


class _Known:
    """Controls followed at the nodes of one round, found again by a key of belief and memory."""

    def __init__(self, controls: int):
        self.keys = np.zeros(0, np.uint64)
        self.follow = np.zeros((0, controls), bool)
        self.place = np.zeros(0, np.int64)

    def find(self, keys: np.ndarray) -> Int[np.ndarray, " N"]:
        """Where each key is, -1 if it is new."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)

    def put(self, keys: np.ndarray, follow: Bool[np.ndarray, "N A"]) -> Bool[np.ndarray, "N A"]:
        """Keep what is followed at these nodes; nodes of one key follow the same."""
        self.keys, self.place = np.unique(keys, return_inverse=True)
        self.follow = np.zeros((len(self.keys), follow.shape[1]), bool)
        np.logical_or.at(self.follow, self.place, follow)
        return self.follow[self.place]


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
) -> Bounded:
    """Grow the tree until upper and lower bounds meet, within `tolerance` per unit of root mass.

    Or within `relative`, a share of the upper bound: either is enough, task by task.

    **Raises:** `MemoryError` if one executable plan for every task does not fit.
    """
    began = time.monotonic()
    told = [told_parameter(structure, tables, part) for part in tasks]
    leaders = Leaders(solver.merge_within, tables, tasks) if solver.merge_within > 0 else None
    if leaders is not None:
        wanted = (tolerance, relative)
        return _solve_merging(structure, tables, tasks, told, leaders, solver, wanted, dtype)
    known = [_Known(structure.controls) for _ in range(structure.horizon)]
    best: Any = None
    passes: list[tuple[int, float, float]] = []
    status: Status | None = None
    with deferred() as interrupts, Bar("bounding", "pass", progress) as bar:
        while status is None:
            try:
                with interrupts.now():
                    tree = _grow(structure, tables, tasks, told, known, solver)
                    swept = [
                        sweep_bounded(tree, tables, part, up, solver, None, dtype)
                        for part, up in zip(tasks, told, strict=True)
                    ]
                    reached, gap = summary(tree, tables, tasks, swept)
                best = reached
                passes.append((tree.nodes, time.monotonic() - began, gap))
                bar(1, f"gap {gap:.3g}, {tree.nodes} nodes")
                allowed = allowances(tasks, reached[2], tolerance, relative)
                status = _ended(excess(reached[3], allowed), began, solver)
                if status is None:
                    with interrupts.now():
                        more = _follow_more(tree, tables, tasks, swept, known, allowed)
                    status = None if more else Status.EXACT
            except (KeyboardInterrupt, MemoryError) as error:
                if best is None:
                    raise
                status = stopped(error)
    tree, answers, upper, gap = best
    return Bounded(tree, answers, upper, kept_gaps(gap, tasks), status, tuple(passes))


def _solve_merging(
    structure, tables, tasks, told, leaders: Leaders, solver, asked: tuple[float, float], dtype
) -> Bounded:
    """Search with merged beliefs, then follow what was found on a tree of exact ones.

    Where that tree does not fit, what was found bounds the plan of who is told the parameter.
    """
    began = time.monotonic()
    require_plan(structure, tables, tasks, told, solver)
    known = [_Known(structure.controls) for _ in range(structure.horizon)]
    all_kept = [dataclasses.replace(part, keep=part.coefficient.shape[1]) for part in tasks]
    passes: list[tuple[int, float, float]] = []
    found: Any = None
    status: Status | None = None
    with deferred() as interrupts:
        while status is None:
            try:
                with interrupts.now():
                    leaders.begin()
                    tree = _grow(structure, tables, tasks, told, known, solver, near=leaders)
                    swept = [
                        sweep_bounded(
                            tree, tables, part, up, solver, share=shares(tree, tables, part)
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
                passes.append((tree.nodes, time.monotonic() - began, gap + 2 * off))
                wanted = [
                    np.maximum(one - 2 * off, one / 4)
                    for one in allowances(tasks, reached[2], *asked)
                ]
                status = _ended(excess(reached[3], wanted), began, solver)
                if status is None:
                    with interrupts.now():
                        more = _follow_more(tree, tables, tasks, swept, known, wanted)
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
            sweep_bounded(exact, tables, part, up, solver, caps[g], dtype)
            for g, (part, up) in enumerate(zip(tasks, told, strict=True))
        ]
        (tree, answers, upper, gaps), gap = summary(exact, tables, tasks, swept)
        allowed = zip(allowances(tasks, upper, *asked), roundings(tasks, answers), strict=True)
        short = excess(gaps, [most + rounded for most, rounded in allowed]) > 0
        passes.append((tree.nodes, time.monotonic() - began, gap))
    if status in (Status.WITHIN_TOLERANCE, Status.EXACT):
        status = Status.STALLED if short else Status.WITHIN_TOLERANCE
    return Bounded(tree, answers, upper, kept_gaps(gaps, tasks), status, tuple(passes))


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


def excess(gaps, allowed: list[Float[np.ndarray, "_R _Q"]]) -> float:
    """The most that a gap at a root (the first round's) is above what is allowed there."""
    pairs = zip(gaps, allowed, strict=True)
    return max((float((gap[0][0] - most).max(initial=-np.inf)) for gap, most in pairs), default=0.0)


def kept_gaps(gaps, tasks: Sequence[Tasks]) -> list[tuple[Float[np.ndarray, "_N _R _K"], ...]]:
    """Gaps of the plans that are kept."""
    return [tuple(x[:, :, : t.keep] for x in gap) for gap, t in zip(gaps, tasks, strict=True)]


def _ended(over: float, began: float, solver: BranchAndBound) -> Status | None:
    if over <= 0:
        return Status.WITHIN_TOLERANCE
    if solver.seconds is not None and time.monotonic() - began > solver.seconds:
        return Status.TIME_LIMIT
    return None


def _keys(layer: Layer, words: np.ndarray) -> np.ndarray:
    """A number for every node's belief and memory; a collision costs time, never correctness."""
    odd = np.random.default_rng(1).integers(1, 2**62, words.shape[1] + 1) * 2 + 1
    with np.errstate(over="ignore"):
        mixed = words[layer.likelihood] @ odd[1:] + layer.memory * odd[0]
    return mixed.astype(np.uint64)


def _grow(structure, tables, tasks, told, known: list[_Known], solver, near=None) -> Tree:
    """Build the tree of followed controls; new nodes follow what is best when told omega."""
    column = np.concatenate([np.asarray(tables.column), np.ones((1, tables.column.shape[1]))])
    rows: list[np.ndarray] = []
    most = most_nodes(structure, tables, tasks, solver)

    def choose(t: int, layer: Layer, words: np.ndarray) -> Bool[np.ndarray, "N A"]:
        above = rows[-1] if rows else np.ones((1, column.shape[1]))
        here = above[layer.parent] * column[layer.column] if t else above
        rows.append(here)
        keys = _keys(layer, words)
        place = known[t].find(keys)
        follow = np.zeros((layer.nodes, structure.controls), bool)
        old = place >= 0
        if old.any():
            follow[old] = known[t].follow[place[old]]
        fresh = np.flatnonzero(~old)
        for part, up in zip(tasks, told, strict=True):
            _hopeful(structure, tables, part, up, t, layer, here, fresh, follow)
        return known[t].put(keys, follow)

    return build_tree(structure, limit=most, choose=choose, near=near)


@contextlib.contextmanager
def fits_a_plan() -> Iterator[None]:
    """Say of a `MemoryError` that comes here what it was that did not fit."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"one plan for every task does not: {error}") from error


def refuse_parts(solver: AbstractSolver, limits: Limits) -> None:
    """Raise `Unsuited` where a solver that keeps its bounds is asked to keep or to spread."""
    refuse_mesh(type(solver).__name__, limits.mesh)
    if limits.checkpoint is not None:
        must = f"be None with {type(solver).__name__}(), which keeps its bounds when interrupted"
        do = "leave it out, or solve with Exact()"
        raise Unsuited("checkpoint", must, limits.checkpoint, do)


def require_plan(structure, tables, tasks, told, solver) -> Tree:
    """The plan of who is told the parameter next round; raise `MemoryError` unless it fits."""
    known = [_Known(structure.controls) for _ in told[0]]
    return _grow(structure, tables, tasks, told, known, solver)


def caps_at(
    tree: Tree, tables: Tables, tasks, upper: Callable[..., np.ndarray]
) -> list[list[Float[np.ndarray, "_N _R _Q"]]]:
    """Upper bounds at the nodes of a tree, per group and round but the last.

    **Arguments:** `upper(group, t, memory, root, belief)`: (k, Q), at unnormalised beliefs (k, m).
    """
    column = open_columns(np.asarray(tables.column, float))
    column[-1] = 1.0
    rows = [np.asarray(x) for x in likelihood_rows(tree, column, len(tree.layers))]
    caps: list[list[np.ndarray]] = [[] for _ in tasks]
    for g, part in enumerate(tasks):
        for t, layer in enumerate(tree.layers[:-1]):
            cap = np.empty((layer.nodes, *part.coefficient.shape[:2]))
            for memory in np.unique(layer.memory).tolist():
                nodes = np.flatnonzero(layer.memory == memory)
                for r, root in enumerate(np.asarray(part.root, float)):
                    belief = rows[t][layer.likelihood[nodes]] * root
                    cap[nodes, r] = upper(g, t, memory, r, belief)
            caps[g].append(cap)
    return caps


def most_nodes(structure, tables, tasks, solver) -> int:
    """Nodes a round may have so that its beliefs, children and bounds fit."""
    cells = sum(part.coefficient.shape[0] * part.coefficient.shape[1] for part in tasks)
    points = tables.column.shape[1]
    each = 8 * points + 4 * structure.controls * structure.symbols + 40 * cells
    return int(solver.memory / (each * structure.horizon))


def _hopeful(structure, tables, tasks, told, t, layer, rows, fresh, follow) -> None:
    """Follow, at fresh nodes, the control that each task would take if told omega afterwards."""
    if not len(fresh):
        return
    root = np.asarray(tasks.root)
    order = fresh[np.argsort(layer.memory[fresh], kind="stable")]
    starts = np.flatnonzero(np.diff(layer.memory[order], prepend=-1))
    counted, coefficient = np.asarray(tasks.counted), np.asarray(tasks.coefficient)
    reward = np.asarray(tables.reward)
    roots, width = coefficient.shape[:2]
    for start, stop in zip(starts, np.append(starts[1:], len(order)), strict=True):
        members = order[start:stop]
        memory = int(layer.memory[members[0]])
        edge = structure.edge[t][memory]
        worth = bound_after(structure, tables, tasks, told, t, memory)
        worth = np.broadcast_to(worth, (len(edge), roots, width, root.shape[1])).copy()
        for slot in range(structure.outcome.shape[1]):
            j = structure.outcome[edge, slot]
            chance = np.where((j >= 0)[:, None], np.asarray(tables.stop)[edge, slot], 0.0)
            x = np.moveaxis(coefficient[:, :, j], 2, 0)[..., None]
            counts = np.moveaxis(counted[:, :, j], 2, 0)[..., None]
            worth += chance[:, None, None] * (x + counts * reward[j][:, None, None])
        allowed = np.moveaxis(np.asarray(tasks.allowed, bool), 2, 0)
        step = max(1, int(_CACHE // (8 * worth.shape[0] * roots * width)))
        for low in range(0, len(members), step):
            part = members[low : low + step]
            belief = rows[layer.likelihood[part]]
            total = np.stack(
                [
                    belief @ (worth[:, r] * root[r]).reshape(-1, root.shape[1]).T
                    for r in range(roots)
                ]
            ).reshape(roots, len(part), len(edge), width)
            total = np.where(np.moveaxis(allowed, 0, 1)[:, None], total, -np.inf)
            best = total.argmax(axis=2)
            best[(belief @ root.T).T <= 0] = structure.controls - 1
            follow[part[None, :, None], best] = True


def sweep_bounded(
    tree,
    tables,
    tasks: Tasks,
    told,
    solver,
    caps=None,
    dtype: type[np.floating] | None = None,
    share=None,
) -> list[Swept]:
    """Solve a grown tree; `caps`: per round but the last, other upper bounds at its nodes.

    `share`: as in `sweep`, where beliefs are merged that are not in proportion.
    `dtype`: the precision to work in, that of the numbers by default; see `rounding`.
    """
    cells = tree.structure.controls * tasks.coefficient.shape[0] * tasks.coefficient.shape[1]
    block = int(max(8, min(_CACHE, solver.memory / 5) / (16 * cells)))

    def bounds(t: int, memory: int):
        return bound_after(tree.structure, tables, tasks, told, t, memory)

    used = (tables, tasks) if dtype is None else (cast(tables, dtype), cast(tasks, dtype))
    return list(sweep(tree, *used, block=block, bounds=bounds, caps=caps, share=share))[::-1]


def summary(tree: Tree, tables: Tables, tasks, swept):
    """Answers, upper bounds and gaps; and the largest gap at a root, per unit of mass."""
    column = np.concatenate([np.asarray(tables.column), np.ones((1, tables.column.shape[1]))])
    rows = likelihood_rows(tree, column, len(tree.layers))
    answers, upper, gaps, largest = [], [], [], 0.0
    for part, rounds in zip(tasks, swept, strict=True):
        apart = []
        for layer, row, one in zip(tree.layers, rows, rounds, strict=True):
            mass = (row @ np.asarray(part.root).T)[layer.likelihood][:, :, None]
            gap = np.maximum(one.upper - one.lower, 0.0)
            apart.append(np.where(mass > 0, gap / np.where(mass > 0, mass, 1), 0.0))
        largest = max(largest, float(apart[0].max(initial=0.0)))
        first = rounds[0]
        value, actions = np.asarray(first.value[0]), tuple(one.action for one in rounds)
        high = np.maximum(np.asarray(first.upper[0], float), value)
        answers.append(Answer(value, actions, first.lower[0], high, ill=first.ill))
        upper.append(high)
        gaps.append(tuple(apart))
    return (tree, answers, upper, gaps), largest


def _follow_more(tree: Tree, tables, tasks, swept, known: list[_Known], allowed) -> bool:
    """Extend what every group follows; whether there was anything left to follow."""
    groups = zip(tasks, swept, allowed, strict=True)
    more = [_extend(tree, tables, part, one, known, most) for part, one, most in groups]
    return any(more)


def _extend(tree: Tree, tables, tasks: Tasks, swept, known: list[_Known], allowed) -> bool:
    """Follow the controls that attain the upper bound wherever the gap is too large."""
    column = np.concatenate([np.asarray(tables.column), np.ones((1, tables.column.shape[1]))])
    rows = likelihood_rows(tree, column, len(tree.layers))
    root = np.asarray(tasks.root)
    wanted = np.ones((1, *tasks.coefficient.shape[:2]), bool)
    found = False
    law = None if tasks.kernel is None else np.asarray(tasks.kernel)
    for t, layer in enumerate(tree.layers[:-1]):
        value, upper, hopeful = swept[t].value, swept[t].upper, swept[t].hopeful
        rounded = swept[t].error + swept[t].share * abs(upper)
        node, r, q = np.nonzero(wanted)
        mass = rows[t] @ root.T
        allowance = allowed[r, q] * mass[layer.likelihood[node], r] + 2 * rounded[node, r, q]
        open_ = upper[node, r, q] - value[node, r, q] > allowance
        node, r, q = node[open_], r[open_], q[open_]
        control = hopeful[node, r, q].astype(np.int64)
        followed = layer.child[node, control, 0] >= 0
        new = ~followed
        if new.any():
            found = True
            known[t].follow[known[t].place[node[new]], control[new]] = True
        wanted = np.zeros((tree.layers[t + 1].nodes, *wanted.shape[1:]), bool)
        child = layer.child[node[followed], control[followed]].astype(np.int64)
        r, q = r[followed], q[followed]
        if law is None:
            wanted[child, r[:, None], q[:, None]] = True
        else:
            size = law.shape[1]
            for v in range(size):
                live = law[control[followed], q % size, v] > 0
                wanted[child[live], r[live, None], (q - q % size + v)[live, None]] = True
    return found
