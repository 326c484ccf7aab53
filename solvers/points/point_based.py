"""Point-based solving: bounds that learn from the beliefs visited, then an executable policy.

Every pass walks forward from the beliefs asked for, along controls that attain the upper bound,
and keeps in every round the batch of beliefs that holds most of the gap (HSVI, Smith and Simmons
2005; SARSOP, Kurniawati, Hsu and Lee 2008, for all roots and tasks at once). Then it backs up
every belief of the walk, the last round first: a better upper bound and a plan (`_points`).

The policy takes, at every node of the tree of what it can meet, the control of the best plan
there. It is evaluated exactly, so that `lower` is its own payoff; at every node the smaller of
one exact step and the interpolated bound is an upper bound on W.

Guarantee: lower <= W <= upper at any time, at every node of the tree; neither ever gets worse at a
visited belief.
"""

import dataclasses
import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from solvers.checkpoint import States, mark_of
from solvers.checks import check_fields, flag, positive, time_limit, whole
from solvers.devices import check_mesh, late
from solvers.points.endless import solve_endless
from solvers.points.passes import BELIEFS, improve_points
from solvers.points.points import PointSets
from solvers.points.starts import loose_nodes, root_beliefs
from solvers.points.visited import Points
from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.process import Problem
from solvers.progress import deferred
from solvers.search.branch_and_bound import BoundedTree, kept_gaps, stopped
from solvers.search.endless import BestFirst
from solvers.search.growing import (
    Passes,
    caps_at,
    elapsed,
    fits_a_plan,
    most_nodes,
    require_plan,
    summary,
    sweep_bounded,
)
from solvers.solution import AbstractSolver, Limits, Status, Unsuited
from solvers.told.bounds import open_columns
from solvers.told.rounded import asked_for, widened
from solvers.tree.beside import Beside, beside_exact, share_of_exact
from solvers.tree.tree import Layer, build_tree

_SMALL = 1e6  # bytes of laws that are not counted
_MADE = (Status.WITHIN_TOLERANCE, Status.EXACT)


class PointBased(AbstractSolver):
    """Solve to a certified gap from bounds at visited beliefs that bound those in between.

    For markets where learning is the point: what is known of one belief bounds its neighbours,
    so that most histories are never looked at. Anytime, as `BranchAndBound`. Without a last round
    one set of beliefs serves every round (`solvers.points.endless`), whatever the chance of going
    on; values that move, and a tolerance of 0, are then left to `BestFirst`.

    **Arguments**

    - `memory`: bytes that may live at once, default 4e9.
    - `seconds`: stop when this time has passed, a pass that is too long coming back half-way; None
      for no limit. Without a last round they bound the search and what is written out of its plans.
    - `beliefs`: the most beliefs of a round and memory class that one pass adds.
    - `everywhere`: reach the tolerance not only at the start but, for the policies kept, at every
      node that truthful play can visit: what bounds gains inside a conversation.
    - `exact_after`: once the search has taken this share of the seconds that the whole tree would
      take, roughly, that is solved exactly instead, at once where it is about a second; math.inf:
      never. Single precision, meshes and endless horizons are searched to the end.
    """

    memory: float = eqx.field(static=True, default=4e9)
    seconds: float | None = eqx.field(static=True, default=None)
    beliefs: int = eqx.field(static=True, default=BELIEFS)
    everywhere: bool = eqx.field(static=True, default=False)
    exact_after: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        fields = {"memory": positive, "seconds": time_limit, "beliefs": whole(1)}
        check_fields(self, **fields, everywhere=flag, exact_after=share_of_exact)

    def solve(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        """Bound every task; see `AbstractSolver.solve`."""
        check_mesh(limits.mesh)
        if problem.horizon == math.inf:
            return self._endless(problem, tasks, limits, progress)
        return beside_exact(self, self._improve, problem, tasks, limits, progress)

    def _endless(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        if self.everywhere:
            must, do = "be False where horizon is math.inf", "leave it out"
            raise Unsuited("everywhere", must, self.everywhere, do)
        moving = any(part.kernel is not None for part in tasks.groups)
        if moving or max(limits.tolerance, limits.relative) == 0:
            return BestFirst(self.memory, self.seconds).solve(problem, tasks, limits, progress)
        with fits_a_plan():
            return solve_endless(self, problem, tasks, limits, progress)

    def _improve(
        self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool, beside: Beside
    ):
        listed = problem.lists(max(2 * self.memory, _SMALL))
        asked = asked_for(limits, listed.structure, listed.tables, tasks.groups)
        with fits_a_plan():
            found = solve_point_based(
                listed.structure,
                listed.tables,
                tasks.groups,
                dataclasses.replace(self, seconds=beside.seconds),
                tolerance=asked.tolerance,
                relative=asked.relative,
                progress=progress,
                checkpoint=limits.checkpoint,
                mesh=limits.mesh,
                ended=beside.give_way,
            )
        solved = found.solution(tasks)
        if not limits.single:  # else what the sweep counted as rounding was of doubles
            return solved
        return widened(solved, listed.structure, listed.tables, tasks, single=True)


def solve_point_based(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: PointBased,
    *,
    tolerance: float = 0.0,
    relative: float = 0.0,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    ended: Callable[[Status], Status] = lambda status: status,
) -> BoundedTree:
    """Back up batches of beliefs until bounds meet, within `tolerance` per unit of root mass.

    Or within `relative`, a share of the upper bound: either is enough, task by task. `checkpoint`:
    a folder where what is known is kept, pass by pass, and found again. `mesh`: devices over
    which beliefs that are looked at are spread. `ended`: asked of why the passes ended before plans
    are followed; it may raise.

    **Raises:** `MemoryError` if one executable plan for every task does not fit.
    """
    begun, over = time.monotonic(), Status.TIME_LIMIT

    def on_time() -> None:
        """What is known before any pass takes its part of the seconds too."""
        nonlocal over
        if over is Status.TIME_LIMIT and late(mesh, begun, solver.seconds):
            over = ended(over)

    facts = solver.beliefs, solver.everywhere, tolerance, relative
    mark = functools.partial(mark_of, (structure, tables, tasks), "PointBased", *facts)
    states = States(checkpoint, "point-based", mark)
    sets = PointSets(structure, tables, tasks, mesh)
    on_time()
    told = [sets.per_group(g) for g in range(len(tasks))]
    require_plan(structure, tables, tasks, told, solver)
    on_time()
    starts = root_beliefs(sets, tasks)
    passes: Passes = []
    best: Any = None
    status = Status.STALLED
    given = sets, starts, solver, tolerance, passes
    with deferred() as interrupts:
        for stage in itertools.count():
            began = time.monotonic() - elapsed(passes) if passes else begun
            how = progress, interrupts.check, relative, states, f"stage{stage}"
            status = improve_points(*given, began, *how)
            status = ended(status) if over is Status.TIME_LIMIT else over
            began = time.monotonic() - elapsed(passes)
            try:
                with interrupts.now(best is not None):
                    grown = _grow(sets, tables, tasks, solver, told if best is None else None)
                    tree, caps, whole = grown
                    swept = [
                        sweep_bounded(tree, tables, part, told[g], solver, caps[g], mesh=mesh)
                        for g, part in enumerate(tasks)
                    ]
                    reached, gap = summary(tree, tables, tasks, swept)
                best = reached
                passes.append((tree.nodes, time.monotonic() - began, gap))
                status = status if whole else Status.MEMORY_LIMIT
                if not solver.everywhere or status not in _MADE:
                    break
                with interrupts.now():
                    loose = loose_nodes(sets, tree, tasks, swept, best[1], tolerance)
            except (KeyboardInterrupt, MemoryError) as error:
                if best is None:
                    raise
                status = stopped(error)
                break
            if not loose:
                break
            for key, more in loose.items():
                old = starts.get(key)
                starts[key] = more if old is None else jax.tree.map(_join, old, more)
    tree, answers, upper, gaps = best
    size = [
        np.einsum("rm,rqm->rq", np.asarray(part.root, float), known[0][0])
        for part, known in zip(tasks, told, strict=True)
    ]
    kept = kept_gaps(gaps, tasks)
    return BoundedTree(tree, answers, upper, kept, status, tuple(passes), size)


def _join(old: np.ndarray, more: np.ndarray) -> np.ndarray:
    return np.concatenate([old, more])


def _grow(
    sets: PointSets,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: PointBased,
    told: Sequence[list[np.ndarray]] | None = None,
):
    """The tree of what the best plans do, and upper bounds (N, R, Q) at its nodes per group.

    Where it does not fit, with `told`, that of the plan of who is told the parameter: the last
    returned says whether it fits.
    """
    column = open_columns(np.asarray(tables.column))
    column[-1] = 1.0
    rows: list[np.ndarray] = []

    def choose(t: int, layer: Layer, words: np.ndarray) -> np.ndarray:
        here = rows[-1][layer.parent] * column[layer.column] if t else column[-1:]
        rows.append(here)
        follow = np.zeros((layer.nodes, sets.structure.controls), bool)
        for g, part in enumerate(tasks):
            for memory in np.unique(layer.memory).tolist():
                nodes = np.flatnonzero(layer.memory == memory)
                points: Points = sets.at(t, memory)
                for r, root in enumerate(np.asarray(part.root)):
                    belief = here[layer.likelihood[nodes]] * root
                    _, plan = points.lower_at(belief)
                    control = np.take_along_axis(points.control, plan, axis=0)
                    none = np.flatnonzero((plan == points.none).any(axis=1))
                    if len(none):
                        first = sets.quiet(t, memory, belief[none])
                        control[none] = np.where(plan[none] == points.none, first, control[none])
                    control[belief.sum(axis=1) <= 0] = sets.structure.controls - 1
                    follow[nodes[:, None], control[:, sets.place[g][r]]] = True
        return follow

    def upper(g: int, t: int, memory: int, r: int, belief: np.ndarray) -> np.ndarray:
        return sets.at(t, memory).upper_at(belief)[:, sets.place[g][r]]

    most = most_nodes(sets.structure, tables, tasks, solver)
    try:
        tree, whole = build_tree(sets.structure, limit=most, choose=choose), True
    except MemoryError:
        if told is None:
            raise
        tree, whole = require_plan(sets.structure, tables, tasks, told, solver), False
    return tree, caps_at(tree, tables, tasks, upper), whole
