"""The whole tree beside a search: solved exactly once the search has had its share of that time.

Where learning is the point, bounds prune little, and a search that opens most of the tree costs
more than going through all of it once. That is not known before; what the whole tree costs is, from
its first rounds: E seconds. A search that gives way after a share s of E is behind the exact solve
by s E at most, and where it ends sooner it takes less than s E. The last round is listed where that
takes no longer than to work it out from the round before (`solvers.tree.ahead`).
"""

import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from solvers.checkpoint import Checkpoint, mark_of
from solvers.checks import number
from solvers.problem import TaskList
from solvers.process import Problem
from solvers.solution import Limits, Solution, Status
from solvers.tree.estimate import foresee
from solvers.tree.exact import Exact

AT_ONCE = 1.0  # seconds of an exact solve, about what the first pass of a search may take
_MOMENT = 1e-9  # seconds
share_of_exact = number(0, finite=False)


@runtime_checkable
class Searching(Protocol):
    """A solver that searches: `exact_after`, of an exact solve's seconds, and it gives way."""

    @property
    def memory(self) -> float: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def exact_after(self) -> float: ...


class _GaveWay(Exception):
    def __init__(self, solution: Solution):
        self.solution = solution
        Exception.__init__(self, "the whole tree is solved")


class _NoWay(Exception):
    """The whole tree does not fit after all."""


@dataclasses.dataclass(frozen=True)
class Beside:
    """What a search asks: `seconds` that it has, None for no limit, and whether to give way then.

    `exact()`: the whole tree, solved; None where that is no way out.
    """

    seconds: float | None
    exact: Callable[[], Solution] | None = None

    def give_way(self, status: Status) -> Status:
        """Called when a search has ended, before plans are written out; why it has.

        Does not return where its time was over: the whole tree is solved instead, or does not fit,
        whatever was foreseen, so that the search is to go on.
        """
        if self.exact is None or status is not Status.TIME_LIMIT:
            return status
        try:
            solution = self.exact()
        except KeyboardInterrupt:
            return Status.INTERRUPTED
        except MemoryError:
            raise _NoWay from None
        raise _GaveWay(solution)


def beside_exact(
    solver: Searching,
    search: Callable[[Problem, TaskList, Limits, bool, Beside], Solution],
    problem: Problem,
    tasks: TaskList,
    limits: Limits,
    progress: bool,
) -> Solution:
    """Search, or solve the whole tree where that takes no longer than `solver.exact_after` says.

    Where it does not fit, whatever was foreseen, the search goes on, to its own limits. A folder in
    which the whole tree of another problem is kept is refused before either begins.
    """
    began = time.monotonic()
    takes, listed = exact_way(solver, problem, tasks, limits)
    given = problem, tasks, limits, progress
    kept = limits.checkpoint if takes < math.inf else None
    folder = None if kept is None else _exact_folder(kept, solver, problem, tasks)

    def exact() -> Solution:
        apart = limits if folder is None else dataclasses.replace(limits, checkpoint=folder())
        found = Exact(solver.memory, listed=listed).solve(problem, tasks, apart, progress)
        note = f"solved exactly, which is quicker than searching on; {found.nodes} nodes"
        between = "" if listed else "; "
        return dataclasses.replace(found, note=note + between + found.note)

    if takes == math.inf:
        return search(*given, Beside(solver.seconds))
    if takes <= AT_ONCE or solver.exact_after == 0:
        with contextlib.suppress(MemoryError):
            return exact()
    else:
        try:
            return search(*given, Beside(solver.exact_after * takes, exact))
        except _GaveWay as way:
            return way.solution
        except _NoWay:
            pass
    left = solver.seconds
    if left is not None and limits.checkpoint is None:  # what is kept knows how long it took
        left = max(left - (time.monotonic() - began), _MOMENT)
    return search(*given, Beside(left))


def _exact_folder(
    kept: str | os.PathLike[str], solver: Searching, problem: Problem, tasks: TaskList
) -> Callable[[], Path]:
    """Look whose parts of a whole tree are kept there; where ours are, which is to be claimed."""
    listed = problem.lists(solver.memory / 4)
    mark = mark_of((listed.structure, listed.tables, tasks.groups), "beside a search")
    claimed = functools.partial(Checkpoint, kept, mark, inside=("exact",))
    claimed(look=True)
    return lambda: claimed().path / "tree"


def exact_way(
    solver: Searching, problem: Problem, tasks: TaskList, limits: Limits
) -> tuple[float, bool]:
    """Seconds that the whole tree takes, roughly, and whether its last round is listed then.

    Infinite where the search is not to give way to it.
    """
    never = solver.exact_after == math.inf or problem.horizon == math.inf
    if never or limits.single or limits.mesh is not None:
        return math.inf, True
    try:
        listed = problem.lists(solver.memory / 4)
    except MemoryError:
        return math.inf, True
    # What the search has found is held while the tree is solved: either may have half.
    room = (solver.memory - listed.size) / 2
    given = listed.structure, listed.tables, tasks.groups, room
    whole, apart = foresee(*given), None
    constant = all(part.kernel is None for part in tasks.groups)
    if constant and problem.horizon > 1 and (whole is None or whole.seconds > AT_ONCE):
        apart = foresee(*given, ahead=True)  # which needs a program, whatever its size
    fits = [(x.seconds, every) for x, every in ((whole, True), (apart, False)) if x is not None]
    takes, every = min(fits, key=lambda way: way[0], default=(math.inf, True))
    both = (1 + solver.exact_after) * takes
    within = solver.seconds is None or both <= solver.seconds
    return (takes if within else math.inf), every
