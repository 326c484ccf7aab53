"""Beliefs that take finitely many directions: what is not yet settled after k rounds there.

W is homogeneous, so only the direction of a belief matters. Where products of likelihood columns
take few directions (nothing is learned, or what is learned rules parameters out), memory class
and direction are a finite state, and W itself is found there by value iteration from above,

    W <= H_k,   H_0: many Bellman steps from E_0,   H_k and W^k: k steps from H_0 and from 0,

so that H_k - W^k is about what k rounds really lack.
"""

import itertools
from collections.abc import Iterator, Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from solvers.host import Record
from solvers.problem import Structure, Tables, Tasks
from solvers.told.bounds import expected
from solvers.tree.tree import Tree

_MOST_ROWS = 512
_MOST_CELLS = 2e6
_DIGITS = 13
_ROUNDING = 1e-15
_MOST_STEPS = 5_000
_WORK = 3e8


class Closed(Record):
    """Directions of likelihood rows, the first all ones; and where each column leads.

    - `rows` (B, m): largest entry 1, or zero throughout.
    - `after` (B, C): the direction after a column. `scale` (B, C): the factor taken out.
    - `drift`: the most that two rows taken for one direction differ by, 0 if only by rounding.
    """

    rows: Float[np.ndarray, "B m"]
    after: Int[np.ndarray, "B C"]
    scale: Float[np.ndarray, "B C"]
    drift: float = eqx.field(static=True)

    def numbers(self, tree: Tree) -> list[Int[np.ndarray, " _L"]]:
        """The direction of every likelihood row of a tree, by round."""
        found = [np.zeros(1, np.int64)]
        for layer in tree.layers[1:]:
            found.append(self.after[found[-1][layer.parent], layer.column])
        return found


def close_beliefs(structure: Structure, tables: Tables, tasks: Sequence[Tasks]) -> Closed | None:
    """Enumerate directions of belief until none is new; None if there are too many to use."""
    column = np.asarray(tables.column, float)
    count, points = column.shape
    widest = max((p.coefficient.shape[0] * p.coefficient.shape[1] for p in tasks), default=1)
    each = widest * max(structure.outcome.shape[0], structure.edge[0].size)
    most = int(min(_MOST_ROWS, _MOST_CELLS / each, _MOST_CELLS / max(count * points, 1)))
    rows, numbers = [np.ones(points)], {_name(np.ones(points)): 0}
    after, scale, done, drift = [], [], 0, 0.0
    while done < len(rows):
        grown = rows[done] * column
        factor = grown.max(axis=1)
        grown = grown / np.where(factor > 0, factor, 1.0)[:, None]
        here = []
        for row in grown:
            name = _name(row)
            if name not in numbers:
                numbers[name] = len(rows)
                rows.append(row)
            here.append(numbers[name])
            drift = max(drift, float(np.abs(rows[here[-1]] - row).max()))
        if len(rows) > most:
            return None
        after.append(here)
        scale.append(factor)
        done += 1
    shape = (len(rows), count)
    drift = drift if drift > _ROUNDING else 0.0
    return Closed(np.stack(rows), np.array(after, np.int64).reshape(shape), np.stack(scale), drift)


def _name(row: np.ndarray) -> bytes:
    return (np.round(row, _DIGITS) + 0.0).tobytes()


def closed_spans(
    structure: Structure, tables: Tables, tasks: Tasks, closed: Closed, above: np.ndarray
) -> Iterator[Float[np.ndarray, "M B R Q"]]:
    """H_k - W^k at every memory class and direction for k = 0, 1, ...; `above`: E_0.

    What rows taken for one direction can differ by is added, round by round.
    """
    edges, successor = structure.edge[0], structure.successor[0]
    root = np.asarray(tasks.root, float)
    now = _yields(structure, tables, tasks, closed)
    shape = (len(edges), len(closed.rows), *tasks.coefficient.shape[:2])
    weight = closed.rows[:, None] * root  # (B, R, m)
    told = np.broadcast_to(above, (len(edges), *shape[2:], root.shape[1]))
    high = np.einsum("brm,crqm->cbrq", weight, told)
    value = np.zeros(shape)
    most = np.abs(told).max(axis=(0, 3))
    unit = most * root.sum(axis=1)[:, None]
    slack = closed.drift * unit
    allowed = np.moveaxis(np.asarray(tasks.allowed, bool), 2, 0)

    def step(later: np.ndarray) -> np.ndarray:
        best = np.full(shape, -np.inf)
        for control in range(structure.controls):
            edge, heir = edges[:, control], successor[:, control]
            total = now[edge]
            for z in range(structure.symbols):
                column = structure.columns[edge, z]
                moved = later[heir[:, None], closed.after.T[column]]
                law = closed.scale.T[column][:, :, None, None]
                total = total + law * expected(moved[..., None], tasks, control)[..., 0]
            np.maximum(best, np.where(allowed[control], total, -np.inf), out=best)
        return best

    most = int(min(_MOST_STEPS, _WORK / (high.size * structure.controls * structure.symbols)))
    for _ in range(most):
        closer = np.minimum(step(high) + slack, high)
        if (high - closer <= _ROUNDING * unit).all():
            break
        high = closer
    for rounds in itertools.count():
        yield np.where(high > value, high - value + rounds * slack, 0.0)
        high, value = step(high), step(value)


def _yields(
    structure: Structure, tables: Tables, tasks: Tasks, closed: Closed
) -> Float[np.ndarray, "E B R Q"]:
    """What a round yields at every edge and direction, unnormalised."""
    root, reward = np.asarray(tasks.root, float), np.asarray(tables.reward, float)
    coefficient, counted = (np.asarray(x, float) for x in (tasks.coefficient, tasks.counted))
    weight = closed.rows[:, None] * root
    total = 0.0
    for slot in range(structure.outcome.shape[1]):
        j = structure.outcome[:, slot]
        stop = np.where((j >= 0)[:, None], np.asarray(tables.stop, float)[:, slot], 0.0)
        chance = np.einsum("em,brm->ebr", stop, weight)[..., None]
        earned = np.einsum("em,brm->ebr", stop * reward[j], weight)[..., None]
        total = total + chance * np.moveaxis(coefficient[:, :, j], 2, 0)[:, None]
        total = total + earned * np.moveaxis(counted[:, :, j], 2, 0)[:, None]
    return np.asarray(total)
