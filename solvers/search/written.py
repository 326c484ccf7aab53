"""What a search without a last round found, with its plans written out for so many rounds."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from solvers.problem import TaskList
from solvers.process import Listed
from solvers.search.endless_plan import AbstractEndless
from solvers.search.rounds import why_short
from solvers.search.unrolled import write_rounds
from solvers.solution import Limits, Solution, close_enough, ended


def to_attain(limits: Limits, memory: float) -> Limits:
    """What plans are to attain: in single precision half is left to rounding of the data."""
    return dataclasses.replace(part_of(limits, 1 / (1 + limits.single)), memory=memory)


def part_of(limits: Limits, share: float) -> Limits:
    """The same with a share of the tolerance."""
    parts = {"tolerance": share * limits.tolerance, "relative": share * limits.relative}
    return dataclasses.replace(limits, **parts)


def written_out(
    found: Solution,
    tasks: TaskList,
    listed: Listed,
    limits: Limits,
    share: float,
    expired: Callable[[], bool],
) -> Solution:
    """The same, from whose last round on no more than a share of the tolerance is to come.

    **Arguments:** `limits`: the memory that there is, and the tolerance that is to be kept. Where
    that is missed since rounds are too few, the status says why they are.
    """
    plan, memory, asked = found.plan, limits.memory, (limits.tolerance, limits.relative)
    assert isinstance(plan, AbstractEndless)
    assert memory is not None
    close = close_enough(*asked, tasks.mass, found.upper) * tasks.mass
    rounded = np.asarray(found.rounding)
    known = found.lower, found.upper, np.maximum(share * close, rounded)
    with jax.enable_x64(True):
        table = write_rounds(plan, tasks, *known, memory, listed, expired)
    value = np.minimum(table.value, found.upper)
    if found.status.met and (found.upper - value > np.maximum(close, rounded)).any():
        found = ended(found, why_short(expired))
    note = f"{found.note}, {len(table.answers[0].actions)} rounds written out"
    return dataclasses.replace(found, value=value, table=table, note=note)
