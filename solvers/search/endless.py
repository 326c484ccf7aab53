"""Solve every task of a stationary problem without a horizon, each as far as it needs.

Tasks of one root that may use fewer controls are often solved already. Where the plan found for
one task uses only controls that another may use, with the same yields, and the other may use no
control that the first may not, the first's bounds on W are the other's too, and so is its plan:
leaving out a control that the best plan never takes changes nothing. W and n economies without one
control each then cost W and the few whose control its plan takes. The rest is searched together,
on one store of nodes (`solvers.search.best_first`).
"""

import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.progress import Bar, deferred
from solvers.search.best_first import Search
from solvers.search.endless_plan import EndlessPlan, used_controls, value_plan
from solvers.solution import Limits, Solution, Status
from solvers.ties import most_gained

_TOGETHER = 256
_MEMORY = 8e9


def search_endless(
    structure: Structure,
    tables: Tables,
    groups: Sequence[Tasks],
    limits: Limits,
    progress: bool = False,
) -> Solution:
    """Bound W of every task and plan for it, for ever: no round is the last.

    **Arguments:** `structure`: one table of edges, which serves every round, with a column for
    every symbol; coefficients are constant. `limits`: a tolerance of 0 asks for bounds that only
    rounding separates; they are found where beliefs take finitely many directions.

    **Returns:** a `Solution` whose plan is an `EndlessPlan` and attains `lower`.
    """
    tasks = TaskList(groups)
    search = Search(structure, tables)
    flat = [_parts(group, r, q) for group in groups for r, q in np.ndindex(*_shape(group))]
    parent = np.concatenate([np.zeros(0, np.int64), *_parents(structure, tables, groups)])
    scale = most_gained(tables, groups)
    tolerance = max(limits.tolerance, 4e-15 * scale)
    deadline = np.inf if limits.seconds is None else time.monotonic() + limits.seconds
    memory = _MEMORY if limits.memory is None else limits.memory
    economy = np.full(len(flat), -1, np.int64)
    status = Status.WITHIN_TOLERANCE
    with deferred() as interrupts, Bar("bounding", "pair", progress) as bar:
        report = _Report(bar)
        due = np.flatnonzero(parent < 0)
        while len(due):
            for part in np.split(due, np.arange(_TOGETHER, len(due), _TOGETHER)):
                economy[part] = [search.add(*flat[q]) for q in part]
                if status != Status.WITHIN_TOLERANCE:
                    continue
                try:
                    met = search.run(
                        economy[part], tolerance, limits.relative, interrupts.check, memory,
                        deadline, report,
                    )  # fmt: skip
                    status = status if met else Status.STALLED
                except MemoryError:
                    status = Status.MEMORY_LIMIT
                except TimeoutError:
                    status = Status.TIME_LIMIT
                except KeyboardInterrupt:
                    status = Status.INTERRUPTED
            due = _inherit(search, flat, parent, economy)
    attained = np.array([value_plan(search, top) for top in search.top])[economy]
    upper = search.pairs["upper"][np.asarray(search.top, np.int64)[economy]]
    followers = np.flatnonzero(parent >= 0)
    upper[followers] = np.minimum(upper[followers], upper[parent[followers]])
    lower, upper = attained, np.maximum(upper, attained)
    rounding = 1e-13 * scale * np.maximum(tasks.mass, np.finfo(float).tiny)
    if (upper - lower <= rounding).all():
        status = Status.EXACT
    gap = float(((upper - lower) / np.where(tasks.mass > 0, tasks.mass, 1)).max(initial=0.0))
    nodes, opened = search.store.nodes.count, search.opened.count
    note = f"best-first without a horizon: {status.value}; gap {gap:.3g}, {nodes} nodes"
    allowed = np.array([parts[3] for parts in flat]).reshape(len(flat), structure.controls)
    plan = EndlessPlan(search, economy, allowed)
    return Solution(
        lower, upper, status, plan, lower, note=f"{note}, {opened} openings", nodes=nodes,
        bytes=float(search.bytes),
    )  # fmt: skip


class _Report:
    def __init__(self, bar: Bar):
        self.bar, self.done = bar, 0

    def __call__(self, pairs: int, gap: float) -> None:
        self.bar(pairs - self.done, f"gap {gap:.3g}")
        self.done = pairs


def _shape(group: Tasks) -> tuple[int, int]:
    roots, width = group.coefficient.shape[:2]
    return roots, width


def _parts(group: Tasks, root: int, task: int):
    numbers = group.coefficient[root, task], group.counted[root, task]
    allowed = np.asarray(group.allowed[root, task], bool)
    return np.asarray(group.root[root], float), *(np.asarray(x, float) for x in numbers), allowed


def _parents(structure: Structure, tables: Tables, groups: Sequence[Tasks]):
    """For each task one that may do all it may do, with the same yields; -1 where there is none."""
    first = 0
    for group in groups:
        roots, width = _shape(group)
        for r in range(roots):
            allowed = np.asarray(group.allowed[r], bool)
            numbers = np.concatenate([group.coefficient[r], group.counted[r]], axis=1)
            possible = np.stack([outcomes_within(structure, tables, one) for one in allowed])
            within = ~(allowed[:, None] & ~allowed[None]).any(axis=2)
            same = numbers[:, None] == numbers[None]
            same = (same | ~np.tile(possible, 2)[:, None]).all(axis=2)
            size = allowed.sum(axis=1)
            order = np.arange(width)
            before = (size[None] > size[:, None]) | (
                (size[None] == size[:, None]) & (order[None] < order[:, None])
            )
            may = within & same & before
            best = np.where(may, size, -1).argmax(axis=1)
            yield np.where(may.any(axis=1), best + first, -1)
            first += width


def outcomes_within(
    structure: Structure, tables: Tables, allowed: Bool[np.ndarray, " A"]
) -> Bool[np.ndarray, " n"]:
    """Outcomes that can come about, from the first class on, with these controls."""
    edge, successor = structure.edge[0], structure.successor[0]
    reached = np.zeros(len(edge), bool)
    reached[0] = True
    while True:
        more = reached.copy()
        more[successor[reached][:, allowed]] = True
        if (more == reached).all():
            break
        reached = more
    used = np.unique(edge[reached][:, allowed])
    possible = (np.asarray(tables.stop)[used] > 0).any(axis=2) & (structure.outcome[used] >= 0)
    found = np.zeros(structure.outcomes, bool)
    found[structure.outcome[used][possible]] = True
    return found


def _inherit(
    search: Search, flat, parent: Int[np.ndarray, " F"], economy: Int[np.ndarray, " F"]
) -> Int[np.ndarray, " k"]:
    """Give tasks the economy of their parent where its plan is theirs; which to search next."""
    due = []
    used: dict[int, Bool[np.ndarray, " A"]] = {}
    for q in np.flatnonzero((economy < 0) & (parent >= 0)).tolist():
        above = int(economy[parent[q]])
        if above < 0:
            continue
        if above not in used:
            used[above] = used_controls(search, search.top[above])
        if (used[above] & ~flat[q][3]).any():
            due.append(q)
        else:
            economy[q] = above
    more = np.asarray(due, np.int64)
    if not len(more) and (economy < 0).any():
        return _inherit(search, flat, parent, economy)
    return more
