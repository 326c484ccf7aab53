"""What is known at every belief before any is visited, and the plans that are there from the start.

With a last round: bounds of a recursion from its end, and the plan that does nothing. Without one
(`solvers.search.forever`): being told the parameter for ever above, the same of losses below, and
every control that a task may use kept for ever, in their order; where it may not, the last is kept.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from solvers.host import Record
from solvers.problem import Structure, Tables, Tasks
from solvers.search.forever import going_on, one_for_ever, round_yields, told_for_ever
from solvers.told.bounds import told_parameter


class Ends(Record):
    """Per round, or once where there is no last one, and for every memory class and task.

    `told`, `least`: (M, U, m), what whoever is told the parameter gets, and what no plan gets less
    than. `kept`: (M, P, U, m), what the first plans yield; `keeps` (P, U): the control of each.
    """

    told: list[Float[np.ndarray, "_M U m"]]
    least: list[Float[np.ndarray, "_M U m"]]
    kept: list[Float[np.ndarray, "_M P U m"]]
    keeps: Int[np.ndarray, "P U"]
    endless: bool = eqx.field(static=True)

    def at(self, t: int, memory: int):
        """Of one round and class: told, least, kept, keeps; and what is told in the next round."""
        after = self.told[0 if self.endless else t + 1]
        one = (x[t][memory] for x in (self.told, self.least, self.kept))
        return *one, self.keeps, after


def known_ends(structure: Structure, tables: Tables, flat: Tasks, endless: bool) -> Ends:
    """The ends of the distinct tasks, those of one root.

    **Raises:** `MemoryError` where tables of every memory class and task are too large.
    """
    opposite = eqx.tree_at(lambda x: x.reward, tables, -np.asarray(tables.reward))
    negated = eqx.tree_at(lambda x: x.coefficient, flat, -flat.coefficient)
    if endless:
        told, kept, keeps = _for_ever(structure, tables, flat)
        least = -_for_ever(structure, opposite, negated)[0]
        return Ends([told], [least], [kept], keeps, True)
    told, least = _per_task(structure, tables, flat), _per_task(structure, opposite, negated)
    only = np.zeros_like(flat.allowed)
    only[..., -1] = True
    quiet = eqx.tree_at(lambda x: x.allowed, flat, only)
    kept = [x[:, None] for x in _per_task(structure, tables, quiet)]
    keeps = np.full((1, flat.coefficient.shape[1]), structure.controls - 1)
    return Ends(told, [-x for x in least], kept, keeps, False)


def _for_ever(structure: Structure, tables: Tables, flat: Tasks):
    """Told (M, U, m); one control for ever (M, A, U, m), and which (A, U)."""
    going, told, kept = going_on(structure, tables), [], []
    allowed = np.asarray(flat.allowed[0], bool)
    for coefficient, counted, may in zip(
        flat.coefficient[0], flat.counted[0], allowed, strict=True
    ):
        yields = round_yields(structure, tables, coefficient, counted)
        ever = one_for_ever(structure, yields, going)
        told.append(told_for_ever(structure, yields, going, ever, may))
        kept.append(np.where(may[:, None, None], ever, ever[-1]))
    keeps = np.where(allowed.T, np.arange(structure.controls)[:, None], structure.controls - 1)
    return np.stack(told, 1), np.moveaxis(np.stack(kept, 2), 1, 0), keeps


def flatten(tasks: Sequence[Tasks], tables: Tables) -> tuple[Tasks, list[np.ndarray]]:
    """The distinct tasks of all groups as those of one root, and where each (root, task) is."""
    kernel = tasks[0].kernel
    width = 1 if kernel is None else np.asarray(kernel).shape[1]
    rows, sizes = [], []
    for part in tasks:
        parts = (part.coefficient, part.counted, part.allowed)
        row = np.concatenate([np.asarray(x, float) for x in parts], axis=2)
        rows.append(row.reshape(-1, width * row.shape[2]))
        sizes.append(row.shape[:2])
    unique, number = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    number = number.reshape(-1)[:, None] * width + np.arange(width)
    ends = np.cumsum([len(row) for row in rows])[:-1]
    place = [x.reshape(size) for x, size in zip(np.split(number, ends), sizes, strict=True)]
    outcomes = tasks[0].coefficient.shape[2]
    unique = unique.reshape(1, -1, unique.shape[1] // width)
    coefficient, counted, allowed = np.split(unique, [outcomes, 2 * outcomes], axis=2)
    root = np.ones((1, np.asarray(tables.reward).shape[1]))
    return Tasks(root, coefficient, counted, allowed > 0, 0, kernel), place


def _per_task(structure: Structure, tables: Tables, flat: Tasks) -> list[np.ndarray]:
    tasks = flat.coefficient.shape[1]
    bounds = [x[:, 0] for x in told_parameter(structure, tables, flat)]
    if any(x.shape[1] != tasks for x in bounds):
        classes = sum(len(edge) for edge in structure.edge)
        raise MemoryError(f"tables of {classes} memory classes x {tasks} tasks are too large")
    return bounds
