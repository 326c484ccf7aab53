"""A horizon as a part of the memory: one table of edges that says which round it is.

A finite problem is a stationary one whose memory classes are those of all rounds side by side: the
classes of round t lead to those of round t + 1, and nothing follows the edges of the last round.
Ways never come back, so every sum over what follows for ever ends with the horizon.
"""

import dataclasses

import numpy as np
from jaxtyping import Int

from solvers.problem import Structure, Tables


def with_clock(structure: Structure, tables: Tables) -> tuple[Structure, Tables]:
    """The same problem with one table of edges for all rounds; round t's classes from `starts`."""
    column, edges = np.asarray(tables.column, float), len(structure.columns)
    dead, digits, offset = structure.dead, structure.digits, structure.offset
    if dead < 0:
        dead = len(column)
        column = np.concatenate([column, np.zeros((1, column.shape[1]))])
        if digits is not None and offset is not None:
            digits = np.concatenate([digits, np.zeros_like(digits[:1])])
            offset = np.concatenate([offset, np.zeros(1)])
    last, place = np.unique(structure.edge[-1], return_inverse=True)
    start = starts(structure)
    edge = [*structure.edge[:-1], edges + place.reshape(structure.edge[-1].shape)]
    after = [part + first for part, first in zip(structure.successor[:-1], start[1:], strict=True)]
    after.append(np.full_like(structure.edge[-1], start[-1]))
    columns = np.where(structure.columns < 0, dead, structure.columns)
    nothing = np.full((len(last), structure.symbols), dead)
    timed = dataclasses.replace(
        structure,
        edge=(np.concatenate(edge).astype(np.int32),),
        successor=(np.concatenate(after).astype(np.int32),),
        columns=np.concatenate([columns, nothing]).astype(np.int32),
        outcome=np.concatenate([structure.outcome, structure.outcome[last]]),
        column_count=len(column),
        dead=dead,
        digits=digits,
        offset=offset,
    )
    stop = np.asarray(tables.stop)
    return timed, Tables(np.concatenate([stop, stop[last]]), column, tables.reward)


def starts(structure: Structure) -> Int[np.ndarray, " T"]:
    """The first class of every round among all."""
    return np.cumsum([0, *(len(part) for part in structure.edge[:-1])])
