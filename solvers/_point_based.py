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

import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np

from solvers._bounds import open_columns
from solvers._branch_and_bound import Bounded, Status, most_nodes, summary, sweep_bounded
from solvers._points import Points, PointSets
from solvers._problem import Structure, Tables, Tasks
from solvers._progress import Bar
from solvers._tree import Layer, Tree, build_tree

_IGNORED = 0.5


class PointBased(eqx.Module):
    """Solve to a certified gap from bounds at visited beliefs that bound those in between.

    For markets where learning is the point: what is known of one belief bounds its neighbours,
    so that most histories are never looked at. Anytime, as `BranchAndBound`.

    **Arguments**

    - `memory`: bytes that may live at once, default 4e9.
    - `seconds`: stop after the pass in which this time has passed; None for no limit.
    - `beliefs`: the most beliefs of a round and memory class that one pass backs up.
    """

    memory: float = eqx.field(static=True, default=4e9)
    seconds: float | None = eqx.field(static=True, default=None)
    beliefs: int = eqx.field(static=True, default=256)


class _Wanted:
    """Beliefs of one round and memory class to back up, and their weight for every task."""

    def __init__(self, belief: np.ndarray, weight: np.ndarray):
        self.belief, self.weight = belief, weight


def solve_point_based(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: PointBased,
    *,
    tolerance: float = 0.0,
    progress: bool = False,
) -> Bounded:
    """Back up batches of beliefs until bounds meet, within `tolerance` per unit of root mass.

    **Raises:** `MemoryError` if one executable plan for every task does not fit.
    """
    began = time.monotonic()
    sets, passes, status = improve_points(structure, tables, tasks, solver, tolerance, progress)
    tree, caps = _grow(sets, tables, tasks, solver)
    swept = [
        sweep_bounded(tree, tables, part, sets.per_group(g), solver, caps[g])
        for g, part in enumerate(tasks)
    ]
    (tree, answers, upper, gaps), gap = summary(tree, tables, tasks, swept)
    passes.append((tree.nodes, time.monotonic() - began, gap))
    return Bounded(tree, answers, upper, gaps, status, tuple(passes))


def improve_points(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: PointBased,
    tolerance: float = 0.0,
    progress: bool = False,
) -> tuple[PointSets, list[tuple[int, float, float]], Status]:
    """The bounds alone: visited beliefs and plans, history of (beliefs, seconds, gap), status."""
    began = time.monotonic()
    sets = PointSets(structure, tables, tasks)
    passes: list[tuple[int, float, float]] = []
    start = _roots(sets, tasks)
    status: Status | None = None
    previous: Any = None
    with Bar("backing up", "pass", progress) as bar:
        while status is None:
            try:
                fresh = _improve(sets, start, solver, tolerance)
            except KeyboardInterrupt:
                if not passes:
                    raise
                status = Status.interrupted
                break
            root = sets.at(0, 0)
            at = root.visit(start.belief)
            live = start.weight > 0
            gap = float(np.where(live, root.upper[at] - root.lower[at], 0.0).max(initial=0.0))
            count = sum(len(points.belief) for points in sets.sets.values())
            passes.append((count, time.monotonic() - began, gap))
            bar(1, f"gap {gap:.3g}, {count} beliefs")
            bounds = np.stack([root.upper[at], root.lower[at]])
            same = previous is not None and np.abs(bounds - previous).max(
                initial=0.0
            ) <= 1e-13 * float(tables.scale)
            previous = bounds
            if gap <= tolerance:
                status = Status.converged
            elif solver.seconds is not None and time.monotonic() - began > solver.seconds:
                status = Status.seconds
            elif sets.bytes() > solver.memory / 4:
                status = Status.memory
            elif same and not fresh:
                status = Status.exhausted
    return sets, passes, status


def _roots(sets: PointSets, tasks: Sequence[Tasks]) -> _Wanted:
    """Every root, of mass one, with weight one for its tasks."""
    beliefs, weights = [], []
    for part, place in zip(tasks, sets.place, strict=True):
        root = np.asarray(part.root)
        mass = root.sum(axis=1)
        for r in np.flatnonzero(mass > 0):
            weight = np.zeros(sets.flat.coefficient.shape[1])
            weight[place[r]] = 1.0
            beliefs.append(root[r] / mass[r])
            weights.append(weight)
    return _Wanted(np.array(beliefs).reshape(len(beliefs), -1), np.array(weights))


def _improve(sets: PointSets, start: _Wanted, solver: PointBased, tolerance: float) -> int:
    """One pass forward and back; how many beliefs are new."""
    before = sum(len(points.belief) for points in sets.sets.values())
    ignored = _IGNORED * tolerance / sets.structure.horizon
    walk: list[dict[int, np.ndarray]] = []
    wanted: dict[int, _Wanted] = {0: start}
    for t in range(sets.structure.horizon):
        here, candidates = {}, {}
        for memory, one in wanted.items():
            index = sets.at(t, memory).visit(one.belief)
            unique, inverse = np.unique(index, return_inverse=True)
            weight = np.zeros((len(unique), one.weight.shape[1]))
            np.add.at(weight, inverse.reshape(-1), one.weight)
            here[memory] = unique
            if t < sets.structure.horizon - 1:
                _follow(sets, t, memory, unique, weight, candidates)
        walk.append(here)
        wanted = _largest(candidates, solver.beliefs, ignored)
    for t in reversed(range(sets.structure.horizon)):
        for memory, index in walk[t].items():
            sets.back_up(t, memory, index)
    return sum(len(points.belief) for points in sets.sets.values()) - before


def _follow(sets: PointSets, t, memory, index, weight, candidates) -> None:
    """Add the beliefs after hopeful controls: by class, (belief, weight, share of the gap)."""
    points = sets.at(t, memory)
    found = sets.look(t, memory, index)
    np.minimum.at(points.upper, index, found.upper.max(axis=1))
    hopeful = found.upper.argmax(axis=1)
    edge, heirs = sets.structure.edge[t][memory], sets.structure.successor[t][memory]
    taken = hopeful[:, None] == np.arange(len(edge))[:, None]  # (N, A, U)
    reach = np.where(taken, weight[:, None], 0.0)[:, :, None] * found.mass[..., None]
    reach = sets.onward(reach)
    mass = np.where(found.mass > 0, found.mass, 1.0)[..., None]
    share = (reach * (found.after_upper - found.after_lower) / mass).max(axis=3)
    n, a, z = np.nonzero(share > 0)
    if not len(n):
        return
    belief = points.belief[index[n]] * sets.column[sets.structure.columns[edge[a], z]]
    belief /= belief.sum(axis=1, keepdims=True)
    for heir in np.unique(heirs[a]).tolist():
        here = heirs[a] == heir
        more = (belief[here], reach[n, a, z][here], share[n, a, z][here])
        candidates.setdefault(heir, []).append(more)


def _largest(candidates: dict, most: int, ignored: float) -> dict[int, _Wanted]:
    """The candidates that hold most of the gap, at most `most` of each class."""
    joined = {m: [np.concatenate(x) for x in zip(*c, strict=True)] for m, c in candidates.items()}
    every = np.sort(np.concatenate([share for _, _, share in joined.values()] or [np.zeros(0)]))
    small = np.searchsorted(np.cumsum(every), ignored)
    floor = every[small] if small < len(every) else np.inf
    wanted = {}
    for memory, (belief, weight, share) in joined.items():
        order = np.argsort(-share, kind="stable")[:most]
        order = order[share[order] >= floor]
        if len(order):
            wanted[memory] = _Wanted(belief[order], weight[order])
    return wanted


def _grow(sets: PointSets, tables: Tables, tasks: Sequence[Tasks], solver: PointBased):
    """The tree of what the best plans do, and upper bounds (N, R, Q) at its nodes per group."""
    column = open_columns(np.asarray(tables.column))
    column[-1] = 1.0
    rows: list[np.ndarray] = []
    caps: list[list[np.ndarray]] = [[] for _ in tasks]

    def choose(t: int, layer: Layer, words: np.ndarray) -> np.ndarray:
        here = rows[-1][layer.parent] * column[layer.column] if t else column[-1:]
        rows.append(here)
        follow = np.zeros((layer.nodes, sets.structure.controls), bool)
        for g, part in enumerate(tasks):
            root = np.asarray(part.root)
            cap = np.empty((layer.nodes, *part.coefficient.shape[:2]))
            for memory in np.unique(layer.memory).tolist():
                nodes = np.flatnonzero(layer.memory == memory)
                points: Points = sets.at(t, memory)
                for r in range(len(root)):
                    belief = here[layer.likelihood[nodes]] * root[r]
                    task = sets.place[g][r]
                    _, plan = points.lower_at(belief)
                    control = np.take_along_axis(points.control, plan, axis=0)
                    control[belief.sum(axis=1) <= 0] = sets.structure.controls - 1
                    follow[nodes[:, None], control[:, task]] = True
                    cap[nodes, r] = points.upper_at(belief)[:, task]
            caps[g].append(cap)
        return follow

    tree: Tree = build_tree(
        sets.structure, limit=most_nodes(sets.structure, tables, tasks, solver), choose=choose
    )
    return tree, caps
