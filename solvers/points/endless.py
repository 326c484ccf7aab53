"""Point-based solving without a last round: plans are finite graphs, known exactly for ever.

A plan made by a backup goes on, after each symbol, with a plan that was there before it, or with
itself; the first keep one control for ever. So all that is left to do, from a plan on, is a finite
graph, and what it yields given the parameter is an exact sum for ever: nothing is cut. It is
followed from its root by which symbols are observed, not by beliefs.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.checkpoint import States, mark_of
from solvers.points.passes import Pace, Walking, improve_points
from solvers.points.points import PointSets
from solvers.points.starts import root_beliefs
from solvers.problem import Structure, TaskList
from solvers.process import Listed, Problem
from solvers.progress import deferred
from solvers.search.economy import Economy
from solvers.search.endless_plan import AbstractEndless
from solvers.search.growing import Passes, elapsed
from solvers.search.rounds import require_fine, to_search, to_write
from solvers.search.store import Indices, digits_of
from solvers.search.written import to_attain, to_bound, written_out
from solvers.solution import Limits, Node, Solution, Status
from solvers.told.rounded import Sums, endless_sums, widened_endless


class Graph(AbstractEndless):
    """Plans of the tasks kept as graphs of states, which are its pairs; number 0 is none.

    - `control`, `memory` (S,): of each state. `after` (S, Z): the state that follows each symbol,
      or -1 - a where control a is kept for ever. `alpha` (S, m): what is attained from a state on.
    - `first` (N,): where each task starts, likewise; `row` (N,): its place among the distinct
      tasks of `sets`.
    """

    sets: PointSets
    economies: tuple[Economy | None, ...]
    control: Int[np.ndarray, " S"]
    memory: Int[np.ndarray, " S"]
    after: Int[np.ndarray, "S Z"]
    alpha: Float[np.ndarray, "S m"]
    first: Int[np.ndarray, " N"]
    row: Int[np.ndarray, " N"]

    @property
    def structure(self) -> Structure:
        return self.sets.structure

    @property
    def columns(self):
        structure, column = self.structure, np.asarray(self.sets.tables.column, float)
        offset = None if structure.digits is None else np.asarray(structure.offset, float)
        return column, digits_of(structure, len(column)), offset

    def economy_of(self, task: int) -> Economy:
        found = self.economies[task]
        assert found is not None
        return found

    def tops(self, tasks: Indices):
        return self._split(self.first[tasks])

    def acts(self, pair: Indices):
        return self.control[pair]

    def keeps(self, pair: Int[np.ndarray, "..."]):
        return self.control[pair]

    def onward(self, pair: Indices, keep: Indices):
        stay = np.broadcast_to(-1 - keep[:, None], (len(keep), self.after.shape[1]))
        return self._split(np.where(pair[:, None] > 0, self.after[pair], stay))

    def _split(self, state: np.ndarray):
        """States as pairs, and the controls kept where there is none."""
        last = self.structure.controls - 1
        return np.maximum(state, 0), np.where(state < 0, -1 - state, last)

    def known(
        self,
        pair: Indices,
        task: int,
        memory: Indices,
        belief: Float[np.ndarray, "k m"],
        size: Float[np.ndarray, " k"] | None,
        sharp: bool,
    ):
        low = (belief * self.alpha[pair]).sum(axis=1)
        told = self.economy_of(task).told
        high = (belief * told[memory]).sum(axis=1)
        for c in np.unique(memory).tolist() if sharp else ():
            mine = np.flatnonzero(memory == c)
            close = self.sets.at(0, c).upper_at(belief[mine])[:, self.row[task]]
            high[mine] = np.minimum(high[mine], close)
        return low, high

    def act(self, node: Node) -> int:
        """The control at a history; off the plan, the one that is best kept for ever there."""
        one, structure = self.economy_of(node.task), self.structure
        state, memory, belief = int(self.first[node.task]), 0, one.root
        for control, symbol in node.history:
            taken = int(self.control[state]) if state > 0 else -1 - state
            edge = structure.edge[0][memory, control]
            belief = belief * self.sets.column[structure.columns[edge, symbol]]
            memory = int(structure.successor[0][memory, control])
            if taken != control:
                state = -1 - one.best_kept(memory, belief, one.allowed)
            elif state > 0:
                state = int(self.after[state, symbol])
        return int(self.control[state]) if state > 0 else -1 - state


class Shared:
    """Bounds of every task, shared between beliefs; they may be improved again and again.

    **Arguments:** `solver`: bytes, and beliefs that a pass adds; `sums`: what values are sums of;
    `limits`: the tolerance of the bounds, where states are kept, devices.
    """

    def __init__(
        self,
        solver: Walking,
        listed: Listed,
        tasks: TaskList,
        sums: Sums,
        limits: Limits,
        progress: bool,
    ):
        began, self.sums = time.monotonic(), sums
        self.solver, self.listed, self.tasks, self.limits = solver, listed, tasks, limits
        structure, tables, groups = listed.structure, listed.tables, tasks.groups
        self.states = States(limits.checkpoint, *shared_states(solver, listed, tasks, limits))
        with jax.enable_x64(True):
            self.sets = PointSets(structure, tables, groups, limits.mesh, endless=True)
            self.starts = root_beliefs(self.sets, groups)
        self.passes: Passes = []
        self.progress, self.calls, self.setup = progress, 0, time.monotonic() - began

    def improve(self, seconds: float | None, turn: float | None = None) -> Status:
        """Pass over beliefs until bounds are close, or so many seconds were spent in all.

        After `turn` of them no other pass begins.
        """
        limits = self.limits
        pace = Pace(self.solver.memory, seconds, self.solver.beliefs)
        given = self.sets, self.starts, pace, limits.tolerance, self.passes
        began = time.monotonic() - max(self.setup, elapsed(self.passes))
        kind, self.calls = f"stage{self.calls}", self.calls + 1
        with jax.enable_x64(True), deferred() as interrupts:
            how = self.progress, interrupts.check, limits.relative, self.states, kind, turn
            return improve_points(*given, began, *how)

    def found(self, status: Status) -> Solution:
        """Bounds at the roots, and the plans of the tasks kept, after a pass at least."""
        with jax.enable_x64(True):
            return _bounds(self.sets, self.tasks, self.sums, status, self.passes)


def shared_states(
    solver: Walking, listed: Listed, tasks: TaskList, limits: Limits
) -> tuple[str, Callable[[], str]]:
    """Where states of bounds shared between beliefs are kept, and whose they are."""
    numbers = listed.structure, listed.tables, tasks.groups
    words = "PointBased, endless, in order", solver.beliefs, limits.tolerance, limits.relative
    return "point-based", functools.partial(mark_of, numbers, *words)


def solve_endless(
    solver: Walking, problem: Problem, tasks: TaskList, limits: Limits, progress: bool
) -> Solution:
    """Bound every task, and write the plans kept out for as many rounds as may be.

    The plans attain `lower`; what is written out of them, whose last round may stand for all that
    follow, attains `value`.
    """
    began = time.monotonic()
    listed = problem.lists(2 * solver.memory)
    structure, tables, groups = listed.structure, listed.tables, tasks.groups
    require_fine(limits, tables, groups)
    asked = to_attain(limits, solver.memory)
    sums = endless_sums(structure, tables, groups)
    shared = Shared(solver, listed, tasks, sums, to_bound(asked), progress)
    found = shared.found(shared.improve(to_search(solver.seconds)))
    expired = to_write(limits.mesh, began, solver.seconds)
    found = written_out(found, tasks, listed, asked, expired)
    found = dataclasses.replace(found, seconds=time.monotonic() - began)
    return widened_endless(found, sums, single=limits.single)


def _bounds(
    sets: PointSets,
    tasks: TaskList,
    sums: Sums,
    status: Status,
    passes: Passes,
) -> Solution:
    """Bounds at the roots, and the plans of the tasks kept."""
    upper, lower, row, plan, roots = [], [], [], [], []
    top = sets.at(0, 0)
    for part, place in zip(tasks.groups, sets.place, strict=True):
        for root, mine in zip(np.asarray(part.root, float), place, strict=True):
            mass = float(root.sum())
            index = top.visit(root[None] / (mass if mass > 0 else 1.0))[0]
            upper.append(mass * top.upper[index, mine])
            lower.append(mass * top.lower[index, mine])
            row.append(mine)
            plan.append(top.best[index, mine])
            roots += [root] * len(mine)
    row, plan = np.concatenate(row), np.concatenate(plan)
    upper, lower = np.concatenate(upper), np.concatenate(lower)
    graph = _graph(sets, row, plan, np.array(roots), np.asarray(tasks.kept, bool))
    rounding = sums.apart(lower, upper)
    if (upper - lower <= rounding).all():
        status = Status.EXACT
    visited, _, gap = passes[-1]
    states = len(graph.control) - 1
    note = f"{status.value}; gap {gap:.3g}, {visited} beliefs, {states} states of plans"
    return Solution(
        lower, np.maximum(upper, lower), status, graph, lower, note=note, nodes=visited,
        bytes=float(sets.bytes()), rounding=rounding,
    )  # fmt: skip


def _graph(
    sets: PointSets,
    row: Int[np.ndarray, " N"],
    plan: Int[np.ndarray, " N"],
    roots: Float[np.ndarray, "N m"],
    kept: Bool[np.ndarray, " N"],
) -> Graph:
    """What the tasks kept come to do, from the plans numbered `plan` of the first class on."""
    structure, keeps = sets.structure, sets.ends.keeps
    states: dict[tuple[int, int, int], int] = {}
    found = [(-1, -1, -1)]  # number 0 is none

    def state(u: int, memory: int, number: int) -> int:
        if number < len(keeps):
            return -1 - int(keeps[number, u])
        key = u, memory, number
        if key not in states:
            states[key] = len(found)
            found.append(key)
        return states[key]

    first = [state(u, 0, p) if k else -1 for u, p, k in zip(row.tolist(), plan.tolist(), kept)]
    control, after = [-1], [[-1] * structure.symbols]
    for u, memory, number in itertools.islice(found, 1, None):  # grows while it is read
        points = sets.at(0, memory)
        taken = int(points.control[number, u])
        heir = int(structure.successor[0][memory, taken])
        control.append(taken)
        after.append([state(u, heir, p) for p in points.after[number, u, :, 0].tolist()])
    shape = len(found), structure.symbols
    graph = np.array(control, np.int64), np.array(after, np.int64).reshape(shape)
    key = np.array(found, np.int64).reshape(-1, 3)
    alpha = _yields(sets, key, *graph)
    economies: list[Economy | None] = []
    for q, (u, root) in enumerate(zip(row.tolist(), roots, strict=True)):
        economies.append(_economy(sets, u, root) if kept[q] else None)
    places = np.array(first, np.int64), row
    return Graph(sets, tuple(economies), graph[0], key[:, 1], graph[1], alpha, *places)


def _yields(
    sets: PointSets,
    key: Int[np.ndarray, "S 3"],
    control: Int[np.ndarray, " S"],
    after: Int[np.ndarray, "S Z"],
) -> Float[np.ndarray, "S m"]:
    """What is attained from each state on, those first that nothing else is needed for."""
    structure, column = sets.structure, sets.column
    task, memory = key[:, 0], key[:, 1]
    alpha, done = np.zeros((len(key), column.shape[1])), np.arange(len(key)) == 0
    own = after == np.arange(len(key))[:, None]
    heir = structure.successor[0][memory, control]
    kept = sets.ends.kept[0]
    while not done.all():
        ready = np.flatnonzero(~done & (done[np.maximum(after, 0)] | (after < 0) | own).all(axis=1))
        assert len(ready), "plans go on with plans that were there before them"
        edge = structure.edge[0][memory[ready], control[ready]]
        for c in np.unique(memory[ready]).tolist():
            mine = ready[memory[ready] == c]
            alpha[mine] = sets.now(0, c)[control[mine], task[mine]]
        again = np.zeros((len(ready), column.shape[1]))
        for z in range(structure.symbols):
            chance, then = column[structure.columns[edge, z]], after[ready, z]
            keep = kept[heir[ready], np.where(then < 0, -1 - then, 0), task[ready]]
            later = np.where((then < 0)[:, None], keep, alpha[np.maximum(then, 0)])
            mine = own[ready, z][:, None]
            alpha[ready] += np.where(mine, 0.0, chance * later)
            again += np.where(mine, chance, 0.0)
        alpha[ready] /= 1.0 - again
        done[ready] = True
    return alpha


def _economy(sets: PointSets, u: int, root: Float[np.ndarray, " m"]) -> Economy:
    """A task as the writer of rounds asks for it."""
    ends, structure = sets.ends, sets.structure
    kept = np.moveaxis(ends.kept[0][:, :, u], 1, 0)
    yields = np.zeros((len(structure.columns), root.shape[0]))
    for c in range(len(structure.edge[0])):
        yields[structure.edge[0][c]] = sets.now(0, c)[:, u]
    allowed = np.asarray(sets.flat.allowed[0, u], bool)
    return Economy(structure, root, yields, kept, ends.told[0][:, u], allowed, -1, None)
