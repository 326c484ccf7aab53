"""Unbounded horizons: solve as many rounds as are enough, and add what the rest can be worth.

How many those are, and what is lost by stopping there: `solvers.truncation`.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable

import equinox as eqx
import numpy as np

from solvers.checks import check_fields, flag, optional, positive, time_limit, whole
from solvers.devices import from_first, late
from solvers.problem import TaskList
from solvers.process import Listed, Problem
from solvers.search.branch_and_bound import BranchAndBound
from solvers.single import make_room
from solvers.solution import AbstractSolver, Limits, Solution, Status, TooFine, Unsuited, ended
from solvers.table import add_gaps
from solvers.ties import most_gained
from solvers.tree.exact import Exact
from solvers.truncation import Truncation, truncate, truncation_gaps, unroll

_MOST_ROUNDS = 10_000
_CUTS = 4
_RESOLUTION = 1e4
_MOMENT = 1e-9  # seconds, of what is left where none are


class TooSlow(MemoryError):
    """A tolerance that too many rounds would be needed for."""


class Stationary(AbstractSolver):
    """Solve an unbounded horizon by as many rounds as the tolerance needs, with a certificate.

    **Arguments**

    - `memory`: bytes that may live at once, default 4e9.
    - `merge`: False keeps every history apart; the answer is the same, for checking.
    - `rounds`: so many, whatever the tolerance; None: as many as it needs.
    - `seconds`: of work, after which bounds are those reached; None for no limit. Merged histories
      that an exact solve would take longer for, by a rough estimate, are searched as long.
    """

    memory: float = eqx.field(static=True, default=4e9)
    merge: bool = eqx.field(static=True, default=True)
    rounds: int | None = eqx.field(static=True, default=None)
    seconds: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        fields = {"memory": positive, "merge": flag, "rounds": optional(whole(1))}
        check_fields(self, **fields, seconds=time_limit)

    def solve(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        """Choose the rounds, solve the problem cut off after them, add what that can cost.

        See `AbstractSolver.solve`. Exactly where the tree fits, else by branch and bound with half
        of the tolerance for either. The status is TIME_LIMIT where time is over before that, also
        where rounds are too few for it.
        """
        began = time.monotonic()
        if problem.horizon < math.inf:
            do = "solve with Exact() or BranchAndBound()"
            raise Unsuited("horizon", "be math.inf for Stationary()", problem.horizon, do)
        listed = problem.lists(2 * self.memory)
        least = _RESOLUTION * float(np.finfo(np.float64).eps)
        least *= most_gained(listed.tables, tasks.groups)
        if 0 < limits.tolerance < least:
            raise TooFine(least)
        expired = functools.partial(late, limits.mesh, began, self.seconds)
        cuts, fixed = [], self.rounds is not None or not limits.tolerance > 0
        try:
            cut = _cut(listed, tasks, limits.tolerance, self.rounds, limits.relative, expired)
            if limits.single and self.rounds is None:
                cut = _cut_again(listed, tasks, cut, limits.tolerance, expired)
            cuts.append(cut)
            inner = dataclasses.replace(limits, tolerance=0.0, relative=0.0)
            exact = Exact(self.memory, self.merge, self._left(limits, began), listed=True)
            short = cut_off(problem, listed, cut.rounds)
            found = exact.solve(short, tasks, inner, progress)
            how = "Exact, for these rounds"
        except (MemoryError, TimeoutError) as error:
            slow = isinstance(error, TimeoutError)
            if not self.merge or (fixed and not slow):
                raise
            half = limits.tolerance / 2
            if not cuts or not (fixed or expired()):
                cuts.append(_cut(listed, tasks, half, expired=expired))
            cut = min(cuts, key=lambda one: one.error)
            if limits.single and not fixed and (room := _room(listed, tasks, cut)) > half:
                raise TooFine(2 * room) from None
            hurried = self.rounds is None and cut.error > half  # another time there will be more
            kept = None if hurried else limits.checkpoint
            inner = dataclasses.replace(limits, tolerance=half, checkpoint=kept)
            short = cut_off(problem, listed, cut.rounds)
            search = BranchAndBound(self.memory, self._left(limits, began))
            found = search.solve(short, tasks, inner, progress)
            why = "would take too long" if slow else "does not fit"
            how = f"BranchAndBound, for these rounds, because the exact tree {why}"
            if hurried:
                found = ended(found, Status.TIME_LIMIT)
        text = f"{cut.rounds} rounds, cut-off error at most {cut.error:.3g}; {how}"
        joint = ": " if found.note and not found.note.startswith(";") else ""
        found = dataclasses.replace(found, note=f"{text}{joint}{found.note}")
        return with_later(found, listed, tasks, cut)

    def _left(self, limits: Limits, began: float) -> float | None:
        """Seconds left since then, by the clock of a mesh's first process."""
        seconds = math.inf if self.seconds is None else self.seconds
        if seconds == math.inf:
            return None
        return max(seconds - from_first(limits.mesh, lambda: time.monotonic() - began), _MOMENT)


def _cut(
    listed: Listed,
    tasks: TaskList,
    tolerance: float,
    rounds: int | None = None,
    relative: float = 0.0,
    expired: Callable[[], bool] = lambda: False,
) -> Truncation:
    """The fewest rounds that are enough, or so many; `relative`: was asked for besides.

    **Arguments:** `expired`: whether time is over, so that there are to be no more rounds.
    """
    structure = listed.structure
    if rounds is not None:
        return cut_after(listed, tasks, rounds)
    most = _MOST_ROUNDS if tolerance > 0 else max(listed.depth, len(structure.edge[0])) + 1
    cut = truncate(
        structure,
        listed.tables,
        tasks.groups,
        tolerance=tolerance,
        least=max(1, listed.depth),
        most=most,
        expired=expired,
    )
    if cut.error > tolerance and expired():
        return cut
    if cut.error > tolerance and not tolerance > 0:
        must = "be positive, in money: the conversation can last longer than any number of rounds"
        must += ", and how many are enough does not follow from relative" if relative > 0 else ""
        do = f"pass, say, tolerance={1e-6 * most_gained(listed.tables, tasks.groups):.1e}"
        raise Unsuited("tolerance", must, tolerance, do)
    if cut.error > tolerance:
        got = f"{tolerance:.3g}, with an error of {cut.error:.3g} after {cut.rounds} rounds"
        raise TooSlow(f"a tolerance of {got}; it must be reached within {_MOST_ROUNDS} rounds")
    return cut


def _cut_again(
    listed: Listed, tasks: TaskList, cut: Truncation, tolerance: float, expired: Callable[[], bool]
) -> Truncation:
    """Leave room in the tolerance for what float32 can be off by in so many rounds."""
    room = 0.0
    for _ in range(_CUTS):
        room = _room(listed, tasks, cut)
        if tolerance <= 0 or cut.error + room <= tolerance or expired():
            return cut
        left = tolerance - 1.1 * room
        if left <= 0:
            break
        cut = _cut(listed, tasks, left, expired=expired)
    raise TooFine(max(2.2 * room, 1.1 * tolerance))


def _room(listed: Listed, tasks: TaskList, cut: Truncation) -> float:
    """The width that float32 adds to bounds on the problem cut off."""
    unrolled = unroll(listed.structure, cut.rounds)
    return 2 * (make_room(unrolled, listed.tables, tasks.groups, 0.0)[1] or 0.0)


def cut_after(listed: Listed, tasks: TaskList, rounds: int) -> Truncation:
    """What is lost by stopping after so many rounds."""
    given = listed.structure, listed.tables, tasks.groups
    return truncate(*given, tolerance=math.inf, least=rounds, most=rounds)


def cut_off(problem: Problem, listed: Listed, rounds: int) -> Problem:
    """The problem that ends after so many rounds."""
    short = Listed(unroll(listed.structure, rounds), listed.tables)
    return dataclasses.replace(problem, lists=lambda limit: short, horizon=rounds)


def with_later(found: Solution, listed: Listed, tasks: TaskList, cut: Truncation) -> Solution:
    """Add what the rounds after the last can be worth to the bounds, at the roots and inside."""
    if cut.error == 0:
        return found
    inside = truncation_gaps(found.table.tree, listed.structure, listed.tables, tasks.groups, cut)
    table = add_gaps(found.table, inside)
    under, over = (np.concatenate([x.ravel() for x in part]) for part in (cut.under, cut.over))
    met = Status.WITHIN_TOLERANCE if found.status.met else found.status
    return dataclasses.replace(
        ended(found, met),
        lower=found.lower - under,
        upper=found.upper + over,
        plan=table,
        table=table,
    )
