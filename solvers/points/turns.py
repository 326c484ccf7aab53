"""A search without a last round, in turns with bounds shared between beliefs (`solvers.points`).

Where few beliefs are met, as when the process ends soon or little is learned, a search that opens
node after node is over within a second; where many are, in no time that anybody has, and bounds
that beliefs share are. Which it is cannot be told before. So the search has a turn first; then the
others have `_TIMES` as many seconds as it had, and so on, turns twice as long each time or more.
The last pass of a turn may take up to `_OVER` as long as the turn, rather than be cut short; the
search's next turn is the longer then. Whichever is close enough first is the answer: the search has
had a share 1 / (1 + `_TIMES`) of the time whenever its turn ends, 1 / (1 + `_TIMES` `_OVER`) at
the least.
"""

import dataclasses
import math
import time
from collections.abc import Callable

from solvers.devices import late
from solvers.points.endless import Shared
from solvers.problem import TaskList
from solvers.search.growing import elapsed
from solvers.solution import Limits, Solution, Status, close_enough, ended

_TIMES, _OVER = 8, 4  # how much longer turns of the others are, and may take with a last pass
_SHORTEST, _LATE = 1e-2, 1e-9  # seconds, of a first turn, and of whoever has none left


class _Met(Exception):
    """Bounds shared between beliefs are close enough."""


class Turns:
    """Who searches when, and whose bounds are taken.

    **Arguments:** `shared()`: the bounds shared between beliefs, when they are first needed; it
    raises `MemoryError` where they do not fit. `after`: seconds of the search's first turn.
    `limits`: the tolerance of both, and the seconds since `began` that both have together.
    """

    def __init__(
        self, shared: Callable[[], Shared], tasks: TaskList, after: float, limits: Limits,
        began: float,
    ):  # fmt: skip
        self.make, self.tasks, self.limits, self.began = shared, tasks, limits, began
        self.turn, self.spent, self.status = max(after, _SHORTEST), 0.0, Status.TIME_LIMIT
        self.shared: Shared | None = None

    def searched(self, search: Callable[[Callable[[float], bool]], Solution]) -> Solution:
        """What `search(over)` finds, or the bounds shared between beliefs where those are closer.

        `over(began)` is asked now and then whether the search is to end, by when it began, or would
        have, had it not been resumed.
        """
        found = None
        try:
            found = search(self._over)
            if found.status in (Status.MEMORY_LIMIT, Status.STALLED) and self.turn < math.inf:
                self._improve(math.inf)  # the search can do no more
        except _Met:
            return self._shared(self.status)
        except KeyboardInterrupt:
            if found is None:
                raise
            found = ended(found, Status.INTERRUPTED)
        if self.shared is None or not self.shared.passes or found.status.met:
            return found
        other = self._shared(found.status)
        return other if self._width(other) < self._width(found) else found

    def _over(self, began: float) -> bool:
        limits, self.began = self.limits, min(self.began, began)
        if late(limits.mesh, self.began, limits.seconds):
            return True
        if not late(limits.mesh, self.began + self.spent, self.turn):
            return False
        self._improve(_TIMES * self.turn)
        self.turn = max(2 * self.turn, self.spent / _TIMES)
        return late(limits.mesh, self.began, limits.seconds)

    def _improve(self, most: float) -> None:
        """Improve bounds until so many seconds were spent on them, or there are no more."""
        began, last = time.monotonic(), _OVER * most
        if self.limits.seconds is not None:
            last = min(last, max(self.limits.seconds - (began - self.began), _LATE) + self.spent)
        try:
            self.shared = self.shared or self.make()
            self.status = self.shared.improve(None if last == math.inf else last, most)
        except MemoryError:
            self.turn = math.inf
        self.spent += time.monotonic() - began
        if self.shared is not None:  # what was resumed knows how long it took
            self.spent = max(self.spent, elapsed(self.shared.passes))
            self.began = min(self.began, time.monotonic() - self.spent)
        if self.status.met:
            raise _Met
        if self.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        if self.status is not Status.TIME_LIMIT:
            self.turn = math.inf

    def _shared(self, status: Status) -> Solution:
        assert self.shared is not None
        found = self.shared.found(status)
        note = f"by bounds shared between beliefs, as PointBased(); {found.note}"
        return dataclasses.replace(found, note=note)

    def _width(self, found: Solution) -> float:
        """The largest gap of any task, as a share of what is close enough."""
        asked = self.limits.tolerance, self.limits.relative
        mass = self.tasks.mass
        close = close_enough(*asked, mass, found.upper) * mass
        gap = found.upper - found.lower
        return float((gap[close > 0] / close[close > 0]).max(initial=0.0))
