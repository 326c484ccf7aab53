"""What arithmetic of low precision can be off by: an allowance that is added to every bound.

The sweep of `_backward` may run in float32 on numbers that are known in float64. Let u = eps / 2
and g(k) = k u / (1 - k u). A product or sum of k factors, terms or roundings of the data, in
whatever order, is off by at most g(k) times the sum of the terms' sizes (Higham, Accuracy and
Stability of Numerical Algorithms, 2002, section 3.1). Let S be the largest |coefficient| plus the
largest |reward|, m parameters, J slots, Z symbols, V coefficient vectors. In round t = 0, 1, ...

- what a round yields, sum_omega b stop (x + reward), is made of t columns, stop, reward, root and
  x, each rounded once as data, their products, an inner product of length m and sums over slots:
  off by at most g(m + 2t + 2J + 10) S P(stop in t). What replaces a control that is not followed
  is one more such inner product, with a bound of size at most S;
- what follows, sum_z E[W_{t+1}], is a sum of Z terms of total size at most S P(go on), each times
  a ratio and averaged over V: off by at most g(Z + V + 8) S P(go on), besides what the terms are.

Both chances sum to at most the mass of the belief, and maxima do not add to errors; the control
taken may be `TIE` of the scale short of the best. So at every node, by induction backward,

    |computed W - W| <= S mass(b) e_t,   e_t = max(g_now, e_{t+1} (1 + g_next) + g_next) + TIE,

Stops and columns sum to at most one, as probabilities do. The same holds of upper bounds and of
the value of any plan, so that a plan that the computed values prefer loses at most
2 S mass(b) e_t. Products below the smallest normal number are flushed to zero. Where the data let
none be, nothing is added; else columns are not related (no ratio may magnify what was flushed),
and what can be flushed on all histories is added.
"""

import dataclasses

import equinox as eqx
import numpy as np
from jaxtyping import Float

from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.solution import Solution, TooFine
from solvers.table import Answer, PlanTable, add_gaps
from solvers.tree.backward import TIE


class Rounding(eqx.Module):
    """Allowance of one solve: per unit of mass in every round, and per root whatever its mass.

    `each` (T,), `flushed`: money.
    """

    each: Float[np.ndarray, " T"]
    flushed: float = eqx.field(static=True)

    @property
    def total(self) -> float:
        """How far off a value at a root of mass one can be."""
        return float(self.each[0]) + self.flushed

    def widen(
        self, tasks: Tasks, low: Float[np.ndarray, "R Q"], high: Float[np.ndarray, "R Q"]
    ) -> tuple[Float[np.ndarray, "R Q"], Float[np.ndarray, "R Q"]]:
        """Bounds at the roots that hold whatever was rounded."""
        mass = np.asarray(tasks.root, float).sum(axis=1)[:, None]
        room = np.where(mass > 0, self.each[0] * mass + self.flushed, 0.0)
        return np.asarray(low, float) - room, np.asarray(high, float) + room

    def losses(self, tasks: Tasks, answer: Answer) -> tuple[Float[np.ndarray, "_N _R _K"], ...]:
        """What the plan kept can lack at every node, per unit of mass."""
        return tuple(
            np.full(taken.shape, 2 * (room + self.flushed))
            for room, taken in zip(self.each, answer.actions, strict=True)
        )

    def widened(self, found: Solution, table: PlanTable, tasks: TaskList) -> Solution:
        """A solution with what was rounded in its bounds, at the roots and at every node."""
        low, high = tasks.split(found.lower), tasks.split(found.upper)
        bounds = [self.widen(*one) for one in zip(tasks.groups, low, high, strict=True)]
        table = add_gaps(
            table, [self.losses(*one) for one in zip(tasks.groups, table.answers, strict=True)]
        )
        return dataclasses.replace(
            found,
            lower=np.concatenate([one.ravel() for one, _ in bounds]),
            upper=np.concatenate([one.ravel() for _, one in bounds]),
            plan=table,
            table=table,
            note=f"{found.note}; float32, rounding at most {self.total:.2g}",
        )


def make_room(
    structure: Structure, tables: Tables, tasks: tuple[Tasks, ...], tolerance: float
) -> tuple[Structure, Rounding]:
    """What float32 can be off by, before any work; and the structure as it is solved in it.

    **Raises:** `TooFine` if it cannot certify the tolerance, with the smallest it can.
    """
    structure = unrelated(structure, tables, tasks)
    room = rounding(structure, tables, tasks)
    if not np.isfinite(room.total) or 0 < tolerance < 2 * room.total:
        raise TooFine(2 * room.total)
    return structure, room


def rounding(
    structure: Structure,
    tables: Tables,
    tasks: tuple[Tasks, ...],
    dtype: type[np.floating] = np.float32,
) -> Rounding:
    """Bound the error of a sweep in `dtype`; infinite where nothing can be said."""
    unit = float(np.finfo(dtype).eps) / 2
    size = _largest([tables.reward]) + _largest([part.coefficient for part in tasks])
    points, rounds = tables.column.shape[1], structure.horizon
    slots, symbols = structure.outcome.shape[1], max(structure.symbols, 1)
    regimes = max((0 if part.kernel is None else part.kernel.shape[1] for part in tasks), default=0)
    later = _gamma(symbols + regimes + 8, unit)
    each, room = np.zeros(rounds), 0.0
    for t in reversed(range(rounds)):
        now = _gamma(points + 2 * t + 2 * slots + 10, unit)
        room = (max(now, room * (1 + later) + later) if t < rounds - 1 else now) + TIE
        each[t] = room
    flushed = 0.0
    if _flushes(tables, tasks, rounds, dtype):
        tiny = float(np.finfo(dtype).tiny)
        paths = sum(float(symbols) ** t for t in range(rounds)) if rounds < 200 else np.inf
        flushed = 16.0 * (rounds + slots) * tiny * points * size * paths
    return Rounding(1.01 * size * each, flushed)


def unrelated(
    structure: Structure,
    tables: Tables,
    tasks: tuple[Tasks, ...],
    dtype: type[np.floating] = np.float32,
) -> Structure:
    """The structure without relations of columns, where a product could be flushed to zero."""
    if structure.digits is None or not _flushes(tables, tasks, structure.horizon, dtype):
        return structure
    return dataclasses.replace(structure, digits=None, offset=None)


def _gamma(count: float, unit: float) -> float:
    return count * unit / (1 - count * unit) if count * unit < 0.01 else np.inf


def _largest(arrays) -> float:
    return max((float(np.abs(np.asarray(x)).max(initial=0.0)) for x in arrays), default=0.0)


def _least(array) -> float:
    """The smallest size of what is not zero, at most one."""
    found = np.abs(np.asarray(array, float))
    return min(float(found[found > 0].min(initial=1.0)), 1.0)


def _flushes(tables: Tables, tasks, rounds: int, dtype) -> bool:
    """Whether a product of data that are not zero can be below the smallest normal number."""
    parts = (tables.stop, tables.reward)
    logs = sum(np.log2(_least(x)) for x in parts) + (rounds - 1) * np.log2(_least(tables.column))
    for name in ("root", "coefficient"):
        logs += min((np.log2(_least(getattr(part, name))) for part in tasks), default=0.0)
    kernels = [part.kernel for part in tasks if part.kernel is not None]
    logs += (rounds - 1) * min((np.log2(_least(k)) for k in kernels), default=0.0)
    info = np.finfo(dtype)
    return bool(logs < np.log2(float(info.tiny)) - np.log2(float(info.eps)) + 2)
