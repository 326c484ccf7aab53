"""Sweeps in float32: what they may be off by is foreseen, and what they were off by is said.

A root's mass is the chance of what was heard at the start, which may be far below the smallest
number of float32. So roots are solved times a power of two that brings their mass near one, which
changes no digit of what is found; it is divided by it again.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.solution import TooFine
from solvers.table import Answer
from solvers.ties import fits, flushes, foreseen


def make_room(
    structure: Structure, tables: Tables, tasks: Sequence[Tasks], tolerance: float
) -> tuple[Structure, float | None]:
    """What float32 may be off by at roots of mass one, before any work; None: use float64.

    Also the structure as it is solved: where a product can be flushed to zero, columns are not
    related, as no ratio of beliefs may magnify what was lost.

    **Raises:** `TooFine` if it cannot certify the tolerance, with the smallest it can.
    """
    if not all(fits(tables, part, np.float32) for part in tasks):
        return structure, None
    if any(flushes(structure, tables, part, np.float32) for part in tasks):
        structure = dataclasses.replace(structure, digits=None, offset=None, drift=0.0)
    parts = [(structure, tables, part, np.float32) for part in tasks]
    room = max((foreseen(*part) for part in parts), default=0.0)
    if not np.isfinite(room) or 0 < tolerance < 2 * room:
        raise TooFine(2 * room)
    return structure, room


def near_one(tasks: Sequence[Tasks]) -> tuple[list[Tasks], list[Int[np.ndarray, " _R"]]]:
    """Groups of tasks whose roots have a mass from 1/2 to 1, and the power of two of each root."""
    powers = [np.frexp(np.asarray(part.root, float).sum(axis=1))[1] for part in tasks]
    groups = [
        dataclasses.replace(part, root=np.ldexp(np.asarray(part.root, float), -power[:, None]))
        for part, power in zip(tasks, powers, strict=True)
    ]
    return groups, powers


def times(answer: Answer, power: Int[np.ndarray, " R"]) -> Answer:
    """What is attained from roots times these powers of two."""
    names = ("value", "lower", "upper")
    found = {name: x for name in names if (x := getattr(answer, name)) is not None}
    size = power[:, None]
    return dataclasses.replace(
        answer, **{name: np.ldexp(np.asarray(x, float), size) for name, x in found.items()}
    )


def remarks(answers: Sequence[Answer], tasks: TaskList, room: float | None = None) -> str:
    """What a note says of precision: ties that rounding hides, and what float32 was off by."""
    text = "; ill conditioned" if any(answer.ill for answer in answers) else ""
    if room is None:
        return text
    most = 0.0
    for answer, part in zip(answers, tasks.groups, strict=True):
        mass = np.asarray(part.root, float).sum(axis=1)[:, None]
        off = np.asarray(answer.value, float) - np.asarray(answer.lower, float)
        most = max(most, float((off / np.where(mass > 0, mass, 1.0)).max(initial=0.0)))
    return f"{text}; float32, rounding at most {most:.2g}"
