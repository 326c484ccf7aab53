"""What a search without a last round found, with its plans written out for so many rounds."""

import dataclasses
import math
import time
from collections.abc import Callable

import jax
import numpy as np

from solvers.devices import late
from solvers.problem import TaskList
from solvers.process import Listed
from solvers.progress import deferred
from solvers.search.endless_plan import AbstractEndless
from solvers.search.unrolled import write_rounds
from solvers.solution import Limits, Solution, Status, close_enough, ended

_HURRIED = 1.0  # seconds of writing, after an interrupt
_SEARCHED, _REST = 0.68, 0.3  # of the tolerance: of bounds, and what later rounds may bring


def to_attain(limits: Limits, memory: float) -> Limits:
    """What plans are to attain: in single precision half is left to rounding of the data."""
    return dataclasses.replace(part_of(limits, 1 / (1 + limits.single)), memory=memory)


def to_bound(limits: Limits) -> Limits:
    """How close the bounds of plans are to be that attain so much once they are written out."""
    return part_of(limits, _SEARCHED)


def part_of(limits: Limits, share: float) -> Limits:
    """The same with a share of the tolerance."""
    parts = {"tolerance": share * limits.tolerance, "relative": share * limits.relative}
    return dataclasses.replace(limits, **parts)


def written_out(
    found: Solution,
    tasks: TaskList,
    listed: Listed,
    limits: Limits,
    expired: Callable[[float], bool],
) -> Solution:
    """The same, from whose last round on no more than `_REST` of the tolerance is to come.

    **Arguments:** `limits`: the memory that there is, and the tolerance that is to be kept. Where
    that is missed since rounds are too few, the status says why they are; `expired`: as in
    `write_rounds`. An interrupt ends them where they are; one that came before leaves a second.
    """
    plan, memory, asked = found.plan, limits.memory, (limits.tolerance, limits.relative)
    assert isinstance(plan, AbstractEndless)
    assert memory is not None
    close = close_enough(*asked, tasks.mass, found.upper) * tasks.mass
    rounded = np.asarray(found.rounding)
    known = found.lower, found.upper, _REST * np.maximum(close, rounded)
    why, began = Status.MEMORY_LIMIT, time.monotonic()
    hurried = _HURRIED if found.status is Status.INTERRUPTED else math.inf
    with jax.enable_x64(True), deferred() as interrupts:

        def over(ahead: float) -> bool:
            nonlocal why
            if expired(ahead) or (hurried < math.inf and late(limits.mesh, began, hurried - ahead)):
                why = Status.TIME_LIMIT
            try:
                interrupts.check()
            except KeyboardInterrupt:
                why = Status.INTERRUPTED
            return why is not Status.MEMORY_LIMIT

        table = write_rounds(plan, tasks, *known, memory, listed, over)
    above = np.maximum(table.value - found.upper, 0.0)  # what is still to come may cost as much
    value = np.minimum(table.value, found.upper) - (above if table.last is None else 0.0)
    if found.status.met and (found.upper - value > np.maximum(close, rounded)).any():
        found = ended(found, why)
    note = f"{found.note}, {len(table.answers[0].actions)} rounds written out"
    return dataclasses.replace(found, value=value, table=table, note=note)
