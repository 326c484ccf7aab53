"""From rules to a problem: what a solver is given, made of an `AbstractProcess` alone.

Memories are listed, and what can happen after each control with them; equal laws are one edge.
"""

import math

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import Int

from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.process import AbstractProcess, Listed, Problem, ends_after
from solvers.told.enumerated import list_memories


def pose(process: AbstractProcess, horizon: int | float | None = None) -> Problem:
    """Pose a process as the problem that every solver takes.

    **Arguments:** `horizon`: number of rounds, that of the process by default; `math.inf` where
    there is no last one.

    **Raises:** `MemoryError`, when a solver asks for lists, where they do not fit.
    """
    rounds = process.horizon if horizon is None else horizon
    if rounds == math.inf:

        def refuse(limit: float) -> Listed:
            raise MemoryError("a problem without a last round, which is not listed")

        return Problem(lambda: process, refuse, rounds, process.controls)
    return Problem(lambda: process, lambda limit: list_process(process, limit), rounds,
                   process.controls)  # fmt: skip


def list_process(process: AbstractProcess, limit: float = 4e9) -> Listed:
    """List every memory of a process with a last round, and what each control does after it.

    **Arguments:** `limit`: bytes of all laws together.

    **Raises:** `MemoryError` beyond it.
    """
    n, points = np.shape(process.reward)
    rounds, controls = int(process.horizon), process.controls
    with jax.enable_x64(True):
        memories, after = list_memories(process)
        symbols = np.shape(ends_after(process, memories[0][0], 0)[1])[2]
        count = sum(len(part) for part in memories[:-1]) * controls
        size = 8.0 * count * points * (n + 1 + symbols)
        if size > limit:
            raise MemoryError(f"{count} laws: {size / 1e9:.3g} GB, of {limit / 1e9:.3g} allowed")
        ends = np.zeros((count, n + 1, points))
        columns = np.zeros((count, symbols, points))
        row = 0
        for t in range(rounds):
            for memory in memories[t]:
                chance, law, _ = (np.asarray(x) for x in ends_after(process, memory, t))
                ends[row : row + controls] = chance
                if t < rounds - 1:
                    columns[row : row + controls] = chance[:, -1:] * law.swapaxes(1, 2)
                row += controls
    last = np.arange(count) >= count - len(memories[rounds - 1]) * controls
    column, number = _distinct(columns[~last].reshape(-1, points))
    numbers = np.full((count, symbols), -1)
    numbers[~last] = number.reshape(-1, symbols)
    slots = _slots(np.asarray(ends[:, :-1].any(axis=2)))
    stop = np.take_along_axis(ends[:, :-1], np.maximum(slots, 0)[:, :, None], axis=1)
    stop = np.where(slots[:, :, None] >= 0, stop, 0.0)
    marks = np.concatenate([stop.reshape(count, -1), slots, numbers], axis=1)
    first, edge = np.unique(marks, axis=0, return_index=True, return_inverse=True)[1:]
    cuts = np.cumsum([len(part) * controls for part in memories[:-1]])[:-1]
    dead = np.flatnonzero(~column.any(axis=1))
    structure = Structure(
        edge=tuple(
            part.reshape(-1, controls).astype(np.int32) for part in np.split(edge.reshape(-1), cuts)
        ),
        successor=tuple(part.astype(np.int32) for part in [*after[:-1], np.zeros_like(after[-1])]),
        columns=numbers[first].astype(np.int32),
        outcome=slots[first].astype(np.int32),
        controls=controls,
        outcomes=n,
        column_count=len(column),
        dead=int(dead[0]) if len(dead) else -1,
    )
    return Listed(structure, Tables(stop[first], column, np.asarray(process.reward, float)))


def one_task(
    process: AbstractProcess,
    prior: npt.ArrayLike,
    coefficient: npt.ArrayLike | None = None,
) -> TaskList:
    """The task of one controller who starts from a prior and whom every outcome counts for.

    **Arguments:** `prior` (m,): weights; `coefficient` (n,): x, what each outcome yields beside
    its reward, 0 by default.
    """
    n = np.shape(process.reward)[0]
    x = np.zeros(n) if coefficient is None else np.asarray(coefficient, float)
    every = np.ones((1, 1, process.controls), bool)
    root = np.asarray(prior, float)[None]
    return TaskList([Tasks(root, x[None, None], np.ones((1, 1, n)), every, 1)])


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(rows) == 0:
        return rows, np.zeros(0, int)
    found, number = np.unique(rows + 0.0, axis=0, return_inverse=True)
    return found, number.reshape(-1)


def _slots(possible: np.ndarray) -> Int[np.ndarray, "E J"]:
    """Outcomes that can happen at each edge, in order, padded with -1."""
    width = max(int(possible.sum(axis=1).max(initial=0)), 1)
    order = np.argsort(~possible, axis=1, kind="stable")[:, :width]
    return np.where(np.take_along_axis(possible, order, axis=1), order, -1)
