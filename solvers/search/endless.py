"""Solve every task of a stationary problem without a horizon, each as far as it needs.

Tasks of one root that may use fewer controls are often solved already. Where the plan found for
one task uses only controls that another may use, with the same yields, and the other may use no
control that the first may not, the first's bounds on W are the other's too, and so is its plan:
leaving out a control that the best plan never takes changes nothing. W and n economies without one
control each then cost W and the few whose control its plan takes. Where the other may earn more
from something, by at most D given the parameter whatever is done,

    W'(b) <= W(b) + <b, D>,    D: what the differences of yields add up to at most, being told,

its bounds are as far apart as those of the first, plus <b, D>: it follows where that is close
enough. The rest is searched together, on one store of nodes (`solvers.search.best_first`), bounded
from above at each node by what was found there for the first.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.checkpoint import States, mark_of
from solvers.checks import check_fields, positive, time_limit
from solvers.devices import check_mesh, late
from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.process import Problem
from solvers.progress import Bar, deferred
from solvers.search.arrays import pieces
from solvers.search.best_first import Search
from solvers.search.endless_plan import EndlessPlan, used_edges, value_plan
from solvers.search.forever import one_for_ever, told_for_ever
from solvers.search.kept import Arrays, restore_search, search_state
from solvers.search.rounds import time_for, why_short
from solvers.search.timed import with_clock
from solvers.search.unrolled import write_finite, write_rounds
from solvers.solution import (
    AbstractSolver,
    Limits,
    Solution,
    Status,
    TooFine,
    Unsuited,
    close_enough,
    ended,
)
from solvers.stationary import Stationary
from solvers.ties import most_gained
from solvers.told.rounded import asked_for, told_gains, widened, widened_endless
from solvers.tree.beside import Beside, beside_exact, share_of_exact
from solvers.tree.closed import close_beliefs

_TOGETHER, _MEMORY = 256, 4e9
_ROUNDING, _LEAST = 1e-13, 1e-14  # of what a value's terms add up to
_SHARE, _REST = 0.6, 0.35
_FINEST = {False: 1e4 * np.finfo(np.float64).eps, True: 50 * np.finfo(np.float32).eps}  # by single
_LEAVING = 0.5  # of what is asked for, where others follow whose bounds are wider


class BestFirst(AbstractSolver):
    """Solve by best-first search, an unbounded horizon without cutting it into rounds.

    Every task has a plan of its own, opened only as far as the task needs; from there on one
    control is kept, so that there is a plan whenever the search ends. It is then written out, an
    endless one until one control may be kept (`solvers.search.lasting`), or little is left to come,
    so that what it attains is an exact sum. In a finite horizon the round is in the memory.

    **Arguments**

    - `memory`: bytes that may live at once, default 4e9. `seconds`: of search, and, without a last
      round, of what is written out of the plan found; None for no limit.
    - `exact_after`: once the search has taken this share of the seconds that the whole tree would
      take, roughly, that is solved exactly instead, at once where it is about a second; math.inf:
      never. Single precision, meshes and endless horizons are searched to the end.
    """

    memory: float = eqx.field(static=True, default=_MEMORY)
    seconds: float | None = eqx.field(static=True, default=None)
    exact_after: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        check_fields(self, memory=positive, seconds=time_limit, exact_after=share_of_exact)

    def solve(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        """Search with most of the tolerance, and leave the rest to the rounds not written out.

        See `AbstractSolver.solve`. In an endless horizon, coefficients that move, and a tolerance
        of 0 where beliefs take no finite number of directions, are left to `Stationary`. The status
        is MEMORY_LIMIT or TIME_LIMIT where more rounds are to be written out than may be.
        """
        began = time.monotonic()
        check_mesh(limits.mesh)
        if problem.horizon < math.inf:
            if any(part.kernel is not None for part in tasks.groups):
                must, do = "be constant for BestFirst()", "solve with Exact() or BranchAndBound()"
                raise Unsuited("values", must, "values that move", do)
            return beside_exact(self, self._finite, problem, tasks, limits, progress)
        listed = problem.lists(2 * self.memory)
        structure, tables, groups = listed.structure, listed.tables, tasks.groups
        least = float(_FINEST[limits.single]) * most_gained(tables, groups)
        if 0 < limits.tolerance < least:
            raise TooFine(least)
        exact = max(limits.tolerance, limits.relative) == 0
        moving = any(part.kernel is not None for part in groups)
        if moving or (exact and close_beliefs(structure, tables, groups) is None):
            return Stationary(self.memory).solve(problem, tasks, limits, progress)
        # In single precision half of it is left to rounding of the data.
        tolerance, relative = (x / (1 + limits.single) for x in (limits.tolerance, limits.relative))
        first = {"tolerance": _SHARE * tolerance, "relative": _SHARE * relative}
        searching, expired = time_for(limits.mesh, began, self.seconds)
        asked = dataclasses.replace(limits, **first, memory=self.memory, seconds=searching)
        found = search_endless(structure, tables, groups, asked, progress)
        close = close_enough(tolerance, relative, tasks.mass, found.upper)
        close, rounded = close * tasks.mass, np.asarray(found.rounding)
        known = found.lower, found.upper, (rest := np.maximum(_REST * close, rounded))
        assert isinstance(found.plan, EndlessPlan)
        table = write_rounds(found.plan, tasks, *known, self.memory, listed, expired)
        value = np.minimum(table.value, found.upper)
        if found.status.met and (found.upper - value > np.maximum(close, rounded)).any():
            if exact and not expired() and (found.lower - value > 10 * rest).any():
                return Stationary(self.memory).solve(problem, tasks, limits, progress)
            found = ended(found, why_short(expired))
        note = f"{found.note}, {len(table.answers[0].actions)} rounds written out"
        spent = time.monotonic() - began
        found = dataclasses.replace(found, value=value, table=table, note=note, seconds=spent)
        return widened_endless(found, structure, tables, tasks, single=limits.single)

    def _finite(
        self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool, beside: Beside
    ):
        """Search with the round as a part of the memory."""
        began = time.monotonic()
        listed = problem.lists(self.memory / 4)
        need = _kept_bytes(listed.structure, tasks)
        if need > self.memory / 2:
            raise MemoryError(f"bounds of {len(tasks)} tasks at every memory: {need / 1e9:.3g} GB")
        asked = asked_for(limits, listed.structure, listed.tables, tasks.groups)
        structure, tables = with_clock(listed.structure, listed.tables)
        asked = dataclasses.replace(asked, memory=self.memory, seconds=beside.seconds)
        found = search_endless(structure, tables, tasks.groups, asked, progress)
        found = ended(found, beside.give_way(found.status))
        assert isinstance(found.plan, EndlessPlan)
        known = found.lower, found.upper
        table = write_finite(found.plan, tasks, *known, listed.structure, self.memory)
        value, spent = np.minimum(table.value, found.upper), time.monotonic() - began
        if (found.lower - value > np.asarray(found.rounding)).any():
            found = dataclasses.replace(ended(found, Status.MEMORY_LIMIT), plan=table)
        found = dataclasses.replace(found, value=value, table=table, seconds=spent)
        return widened(found, listed.structure, listed.tables, tasks, single=limits.single)


def _kept_bytes(structure: Structure, tasks: TaskList) -> float:
    """Bytes of what every control kept, and being told, is worth to every task."""
    classes = sum(len(part) for part in structure.edge)
    points = max((part.root.shape[1] for part in tasks.groups), default=0)
    return 8.0 * classes * points * (structure.controls + 1) * len(tasks)


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
    search = Search(structure, tables, limits.mesh)
    flat = [_parts(group, r, q) for group in groups for r, q in np.ndindex(*_shape(group))]
    parent = np.concatenate([np.zeros(0, np.int64), *_parents(structure, tables, groups)])
    excess = _excess(search, flat, parent)
    more = np.array([root @ one[0] for (root, *_), one in zip(flat, excess, strict=True)])
    size = told_gains(structure, tables, groups)
    least, tolerance, relative = _LEAST * size, limits.tolerance, max(limits.relative, _LEAST)
    memory = _MEMORY if limits.memory is None else limits.memory
    economy = np.full(len(flat), -1, np.int64)
    status = Status.WITHIN_TOLERANCE
    mark = functools.partial(
        mark_of, (structure, tables, groups), "BestFirst", tolerance, limits.relative
    )
    states, added = States(limits.checkpoint, "best-first", mark), []
    due, done, begun, began = search.first_due(flat, parent), 0, (1, np.inf), time.monotonic()

    def add(q: int) -> None:
        above = int(economy[parent[q]]) if parent[q] >= 0 else -1
        root, coefficient, counted, allowed = flat[q]
        economy[q] = search.add(root, coefficient, counted, allowed, above, excess[q])
        added.append(q)

    def state(due: Int[np.ndarray, " k"], done: int, width: int, before: float) -> Arrays:
        return {
            **search_state(search),
            "added": np.array(added), "economy": economy, "due": due, "done": np.array(done),
            "width": np.array(width), "before": np.array(before),
            "seconds": np.array(time.monotonic() - began),
        }  # fmt: skip

    def keep(*at: Any) -> None:
        states.save(functools.partial(state, *at))

    def restore(kept: Arrays) -> None:
        nonlocal due, done, begun, began
        economy[:], due, done = kept["economy"], kept["due"], int(kept["done"])
        for q in kept["added"].tolist():
            add(q)
        restore_search(search, kept)
        begun, began = (int(kept["width"]), float(kept["before"])), began - float(kept["seconds"])

    states.resume(restore, lambda: state(due, done, *begun), mesh=limits.mesh)
    expired = functools.partial(late, limits.mesh, began, limits.seconds)
    with deferred() as interrupts, Bar("bounding", "pair", progress) as bar:
        report = _Report(bar)
        while len(due):
            parts = pieces(due, range(_TOGETHER, len(due), _TOGETHER))
            for k, part in enumerate(parts[done:], done):
                among = np.zeros(len(flat) + 1, bool)  # the last stands for no parent
                among[part] = True
                share = _LEAVING if (more[among[parent]] > 0).any() else 1.0
                for q in part[economy[part] < 0].tolist():
                    add(q)
                if status != Status.WITHIN_TOLERANCE:
                    continue
                try:
                    asked = share * tolerance, max(share * relative, _LEAST), least[part]
                    met = search.run(
                        economy[part], *asked, interrupts.check, memory, expired, report,
                        functools.partial(keep, due, k), begun,
                    )  # fmt: skip
                    begun = 1, np.inf
                    status = status if met else Status.STALLED
                except MemoryError:
                    status = Status.MEMORY_LIMIT
                except TimeoutError:
                    status = Status.TIME_LIMIT
                except KeyboardInterrupt:
                    status = Status.INTERRUPTED
            done = 0
            due = _inherit(search, flat, parent, economy, more, (tolerance, relative, least))
    attained = np.array([value_plan(search, top) for top in search.top])[economy]
    upper = search.pairs["upper"][np.asarray(search.top, np.int64)[economy]]
    followers = np.flatnonzero(parent >= 0)
    beyond = upper[parent[followers]] + more[followers]
    inherited = economy[followers] == economy[parent[followers]]
    upper[followers] = np.where(inherited, beyond, np.minimum(upper[followers], beyond))
    lower, upper = attained, np.maximum(upper, attained)
    rounding = _ROUNDING * np.maximum(size, np.maximum(np.abs(upper), np.abs(lower)))
    if (upper - lower <= rounding).all():
        status = Status.EXACT
    gap = float(((upper - lower) / np.where(tasks.mass > 0, tasks.mass, 1)).max(initial=0.0))
    nodes, opened = search.store.nodes.count, search.opened.count
    allowed = np.array([parts[3] for parts in flat]).reshape(len(flat), structure.controls)
    plan = EndlessPlan(search, economy, allowed)
    note = f"{status.value}; gap {gap:.3g}, {nodes} nodes, {opened} opened"
    held = float(search.bytes)
    return Solution(
        lower, upper, status, plan, lower, note=note, nodes=nodes, bytes=held, rounding=rounding
    )


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
    """For each task one that may do all it may do, and earns hardly less; -1 where there is none.

    Only tasks whose plans are kept are looked at: there are few of them; and they earn no less than
    each other.
    """
    reward, first = np.asarray(tables.reward, float), 0
    edge, after = structure.edge[0], structure.successor[0]
    can = (np.asarray(tables.stop) > 0).any(axis=2) & (structure.outcome >= 0)
    for group in groups:
        roots, width = _shape(group)
        order, head = np.arange(width), np.arange(group.keep)
        for r in range(roots):
            allowed, root = np.asarray(group.allowed[r], bool), np.asarray(group.root[r])
            parts = (np.asarray(x[r], float) for x in (group.coefficient, group.counted))
            live = reward[:, (root > 0) | (root.max() <= 0)]
            (coefficient, counted), ends = parts, (live.min(axis=1), live.max(axis=1))
            sets, of = np.unique(allowed, axis=0, return_inverse=True)
            possible = np.zeros((len(sets), structure.outcomes), bool)
            for mine, one in zip(possible, sets, strict=True):
                used = edge[_classes_within(after, one)][:, one]
                mine[structure.outcome[used][can[used]]] = True
            possible = possible[of.reshape(-1)]
            may = np.zeros((width, group.keep), bool)
            beyond = np.zeros((width, group.keep))
            for p in head.tolist():
                within = ~(allowed & ~allowed[p]).any(axis=1)
                more = counted - counted[p]  # whose most is at an end of the rewards
                over = coefficient - coefficient[p] + np.maximum(more * ends[0], more * ends[1])
                beyond[:, p] = np.where(possible, over, 0.0).max(axis=1, initial=0.0)
                may[:, p] = within & ((beyond[:, p] == 0) | (order >= group.keep))
            # Of two that may do the same and earn the same the first is the parent.
            both = may[: group.keep] & may[: group.keep].T
            may[: group.keep] &= ~both | (head[None] < head[:, None])
            may &= order[:, None] != head[None]
            least = np.where(may, beyond, np.inf)
            near = may & (least <= least.min(axis=1, keepdims=True))
            best = np.where(near, allowed[head].sum(axis=1), -1).argmax(axis=1)
            yield np.where(may.any(axis=1), best + first, -1)
            first += width


def _excess(
    search: Search, flat: list[tuple[np.ndarray, ...]], parent: Int[np.ndarray, " F"]
) -> list[np.ndarray]:
    """D of each task over its parent, from each memory class on, (M, m); see the module."""
    nothing = np.zeros((len(search.structure.edge[0]), search.store.column.shape[1]))
    found = [nothing] * len(flat)
    for q in np.flatnonzero(parent >= 0).tolist():
        own, other = (search.yields(*flat[k][1:3]) for k in (q, parent[q]))
        over = np.where(flat[q][0] > 0, np.maximum(own - other, 0.0), 0.0)
        if over.any():
            kept = one_for_ever(search.structure, over, search.going)
            found[q] = told_for_ever(search.structure, over, search.going, kept, flat[q][3])
    return found


def _classes_within(
    after: Int[np.ndarray, "M A"], allowed: Bool[np.ndarray, " A"]
) -> Bool[np.ndarray, " M"]:
    """Classes that can be reached, from the first one on, with these controls."""
    reached = np.zeros(len(after), bool)
    reached[0] = True
    while not reached.all():
        more = reached.copy()
        more[after[reached][:, allowed]] = True
        if (more == reached).all():
            break
        reached = more
    return reached


def _inherit(
    search: Search,
    flat: list[tuple[np.ndarray, ...]],
    parent: Int[np.ndarray, " F"],
    economy: Int[np.ndarray, " F"],
    more: Float[np.ndarray, " F"],
    asked: tuple[float, float, Float[np.ndarray, " F"]],
) -> Int[np.ndarray, " k"]:
    """Give tasks the economy of their parent where its plan is theirs; which to search next.

    **Arguments:** `more`: what W may be above the parent's; `asked`: tolerance, share of W, and
    what is close enough to each task, unnormalised.
    """
    known: dict[int, tuple[Bool[np.ndarray, " E"], Bool[np.ndarray, " A"]]] = {}
    pairs = search.pairs
    edges = search.structure.edge[0]
    due = np.zeros(len(economy), bool)
    left = np.flatnonzero((economy < 0) & (parent >= 0))
    while len(left):
        for q in left[economy[parent[left]] >= 0].tolist():
            above = int(economy[parent[q]])
            if above not in known:
                used = used_edges(search, search.top[above])
                known[above] = used, np.array([used[of].any() for of in edges.T])
            root, coefficient, counted, allowed = flat[q]
            used, controls = known[above]
            yields = search.yields(coefficient, counted)
            same = (yields == search.economies[above].yields)[used][:, root > 0].all()
            high, low = pairs["upper"][search.top[above]], pairs["lower"][search.top[above]]
            enough = max(asked[0] * root.sum(), asked[1] * abs(high), asked[2][q])
            wide = more[q] > 0 and high + more[q] - low > enough
            due[q] = not same or (controls & ~allowed).any() or wide
            economy[q] = economy[q] if due[q] else above
        before, left = len(left), np.flatnonzero((economy < 0) & (parent >= 0) & ~due)
        if len(left) == before:
            break
    return np.flatnonzero(due)
