"""Solve every task of a stationary problem without a horizon, each as far as it needs.

Tasks of one root that may use fewer controls are often solved already (`solvers.search.inherit`);
the rest is searched together, on one store of nodes (`solvers.search.best_first`), bounded from
above at each node by what was found there for the task that may do more.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Int

from solvers.checkpoint import States, claim, mark_of
from solvers.checks import check_fields, number, positive, time_limit
from solvers.devices import check_mesh, late
from solvers.points.endless import Shared, shared_states
from solvers.points.passes import BELIEFS, Pace
from solvers.points.turns import Turns
from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.process import Problem
from solvers.progress import Bar, deferred
from solvers.search.arrays import pieces
from solvers.search.best_first import Search
from solvers.search.endless_plan import EndlessPlan, value_plan
from solvers.search.inherit import each_task, excesses, inherit, parents
from solvers.search.kept import Arrays, restore_search, search_state
from solvers.search.rounds import require_fine, to_search, to_write
from solvers.search.timed import with_clock
from solvers.search.unrolled import write_finite
from solvers.search.written import to_attain, to_bound, written_out
from solvers.solution import (
    AbstractSolver,
    Limits,
    Solution,
    Status,
    Unsuited,
    ended,
)
from solvers.stationary import Stationary
from solvers.told.rounded import Sums, asked_for, endless_sums, widened, widened_endless
from solvers.tree.beside import Beside, beside_exact, share_of_exact
from solvers.tree.closed import close_beliefs

_TOGETHER, _MEMORY = 256, 4e9
_LEAST = 1e-14  # of an upper bound: as close as is asked for
_LEAVING = 0.5  # of what is asked for, where others follow whose bounds are wider


class BestFirst(AbstractSolver):
    """Solve by best-first search, an unbounded horizon without cutting it into rounds.

    Every task has a plan of its own, opened only as far as the task needs; from there on one
    control is kept, so that there is a plan whenever the search ends. It is then written out, an
    endless one until one control may be kept (`solvers.search.lasting`), or little is left to come,
    so that what it attains is an exact sum. In a finite horizon the round is in the memory. Of
    controls that tie the lowest is taken as sums come out: where they come to the same in different
    ways, rounding may say which.

    **Arguments**

    - `memory`: bytes that may live at once, default 4e9. `seconds`: of search, and, without a last
      round, of what is written out of the plan found; None for no limit.
    - `exact_after`: once the search has taken this share of the seconds that the whole tree would
      take, roughly, that is solved exactly instead, at once where it is about a second; math.inf:
      never. Single precision, meshes and endless horizons are searched to the end.
    - `points_after`: without a last round, where something is learned: seconds of search after
      which it takes turns with bounds shared between beliefs, as in `PointBased`, and gives way to
      them where they are close enough first; math.inf: never.
    """

    memory: float = eqx.field(static=True, default=_MEMORY)
    seconds: float | None = eqx.field(static=True, default=None)
    exact_after: float = eqx.field(static=True, default=0.1)
    points_after: float = eqx.field(static=True, default=math.inf)

    def __check_init__(self):
        fields = {"memory": positive, "seconds": time_limit, "exact_after": share_of_exact}
        check_fields(self, **fields, points_after=number(0, finite=False))

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
        require_fine(limits, tables, groups)
        exact = max(limits.tolerance, limits.relative) == 0
        moving = any(part.kernel is not None for part in groups)
        if moving or (exact and close_beliefs(structure, tables, groups) is None):
            by_rounds = Stationary(self.memory, seconds=self.seconds)
            return by_rounds.solve(problem, tasks, limits, progress)
        searching, sums = to_search(self.seconds), endless_sums(structure, tables, groups)
        asked = to_attain(limits, self.memory)
        first = dataclasses.replace(to_bound(asked), seconds=searching)
        if structure.symbols == 1 or exact or self.points_after == math.inf:
            found = search_endless(structure, tables, groups, sums, first, progress)
        else:
            half = dataclasses.replace(first, memory=self.memory / 2)
            pace = Pace(self.memory / 2, searching, BELIEFS)
            of_others = shared_states(pace, listed, tasks, half)  # opened when it is their turn
            claim(limits.checkpoint, _states(structure, tables, groups, half), of_others)
            shared = functools.partial(Shared, pace, listed, tasks, sums, half, progress)
            turns = Turns(shared, tasks, self.points_after, half, began)
            found = turns.searched(
                lambda over: search_endless(structure, tables, groups, sums, half, progress, over)
            )
        expired = to_write(limits.mesh, began, self.seconds)
        found = written_out(found, tasks, listed, asked, expired)
        found = dataclasses.replace(found, seconds=time.monotonic() - began)
        return widened_endless(found, sums, single=limits.single)

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
        sums = endless_sums(structure, tables, tasks.groups, lasting=False)
        found = search_endless(structure, tables, tasks.groups, sums, asked, progress)
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
    sums: Sums,
    limits: Limits,
    progress: bool = False,
    over: Callable[[float], bool] | None = None,
) -> Solution:
    """Bound W of every task and plan for it, for ever: no round is the last.

    **Arguments:** `structure`: one table of edges, which serves every round, with a column for
    every symbol; coefficients are constant. `sums`: what values are sums of. `limits`: a tolerance
    of 0 asks for bounds that only rounding separates; they are found where beliefs take finitely
    many directions. `over(began)`: asked between passes whether to end, in place of the seconds of
    `limits`, by when the search began, or would have, had it not been resumed.

    **Returns:** a `Solution` whose plan is an `EndlessPlan` and attains `lower`.
    """
    tasks = TaskList(groups)
    search = Search(structure, tables, limits.mesh)
    flat, parent = each_task(groups), parents(structure, tables, groups)
    excess = excesses(search, flat, parent)
    more = np.array([root @ one[0] for (root, *_), one in zip(flat, excess, strict=True)])
    least, tolerance, relative = sums.least(), limits.tolerance, max(limits.relative, _LEAST)
    memory = _MEMORY if limits.memory is None else limits.memory
    economy = np.full(len(flat), -1, np.int64)
    status = Status.WITHIN_TOLERANCE
    states, added = States(limits.checkpoint, *_states(structure, tables, groups, limits)), []
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
    expired = functools.partial(over or _late_in(limits), began)
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
            due = inherit(search, flat, parent, economy, more, (tolerance, relative, least))
    attained = np.array([value_plan(search, top) for top in search.top])[economy]
    upper = search.pairs["upper"][np.asarray(search.top, np.int64)[economy]]
    followers = np.flatnonzero(parent >= 0)
    beyond = upper[parent[followers]] + more[followers]
    inherited = economy[followers] == economy[parent[followers]]
    upper[followers] = np.where(inherited, beyond, np.minimum(upper[followers], beyond))
    lower, upper = attained, np.maximum(upper, attained)
    rounding = sums.apart(lower, upper)
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


def _states(
    structure: Structure, tables: Tables, groups: Sequence[Tasks], limits: Limits
) -> tuple[str, Callable[[], str]]:
    """Where states of a search are kept, and whose they are."""
    words = "BestFirst", limits.tolerance, limits.relative
    return "best-first", functools.partial(mark_of, (structure, tables, groups), *words)


def _late_in(limits: Limits) -> Callable[[float], bool]:
    return lambda began: late(limits.mesh, began, limits.seconds)


class _Report:
    def __init__(self, bar: Bar):
        self.bar, self.done = bar, 0

    def __call__(self, pairs: int, gap: float) -> None:
        self.bar(pairs - self.done, f"gap {gap:.3g}")
        self.done = pairs
