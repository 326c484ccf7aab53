"""What plans can gain at most, given omega: bounds on the sizes of all that is added up.

Of any plan, with P and N what it gains and loses, Q = P - N, and its amount (`solvers.ties`) is
A = P + N = 2 P - Q. P is at most <b, g_t>; and a plan that can be the best yields no less than the
last control for ever, which loses <b, n_t> at most, so that of any such plan

    A <= <b, 2 g_t + n_t>,  g_t = max_a (stop (x+ + reward+) + sum_z column g_{t+1}),

n_t the same of what the last control loses. What controls lose that nobody would take is not in it.
"""

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from solvers.host import Record
from solvers.problem import Numbers, Structure, Tables, Tasks

_OUTWARD, _LEAST = 1.001, 1e-6  # of bounds: for their own rounding; the least share of the largest
_PART = 500_000  # numbers of laws that are read at once


class Gains(Record):
    """Of every root, 2 g_t + n_t of one round: `scale` * `weight`, or a little more.

    Weights are nowhere zero: sums of beliefs times them are, where beliefs have no mass.
    """

    weight: Float[Numbers, "R m"]
    scale: Float[Numbers, " R"]

    def amount(self, root: Numbers) -> Float[Numbers, "1 R 1"]:
        """Bound amounts at every belief that roots lead to."""
        return ((root * self.weight).sum(axis=1) * self.scale)[None, :, None]


def gains(structure: Structure, tables: Tables, tasks: Tasks, arrays: ModuleType) -> list[Gains]:
    """Bound amounts from every round on, over all memory classes; laws are read in parts.

    **Arguments:** `arrays`: jax.numpy where numbers are traced.
    """
    if arrays is not np:  # what bounds errors is held constant: maxima have no gradient everywhere
        tables, tasks = jax.lax.stop_gradient((tables, tasks))
    x = arrays.asarray(tasks.coefficient)
    signs = [arrays.maximum(y, 0.0).max(axis=(1, 2))[:, None] for y in (x, -x)]
    later = [arrays.zeros((1, tables.column.shape[1]), x.dtype)] * 2
    found: list[Gains] = []
    for t in reversed(range(structure.horizon)):
        every = structure.edge[t], structure.edge[t][:, -1]
        for k, (sign, edges) in enumerate(zip((1.0, -1.0), every, strict=True)):
            last = t == structure.horizon - 1
            sold, yielded, going = _most(structure, tables, np.unique(edges), sign, last)
            later[k] = signs[k] * sold + yielded + going * later[k]
        total = _OUTWARD * (2 * later[0] + later[1])
        scale = total.max(axis=1)
        scale = arrays.where(scale > 0, scale, 1.0)
        weight = arrays.maximum(total / scale[:, None], _LEAST)
        found.append(Gains(weight, scale))
    return found[::-1]


def _most(
    structure: Structure, tables: Tables, edges: Int[np.ndarray, " e"], sign: float, last: bool
) -> tuple[Numbers, Numbers, Any]:
    """The most of any of these edges, given omega: chances of ending, yields, chances to go on."""
    traced = any(isinstance(x, Tracer) for x in (tables.stop, tables.column, tables.reward))
    arrays: ModuleType = jnp if traced else np
    stop, column, reward = (arrays.asarray(x) for x in (tables.stop, tables.column, tables.reward))
    reward = arrays.maximum(sign * reward, 0.0)
    size = len(edges) if traced else max(1, _PART // max(stop[:1].size, 1))
    parts: list[list[Any]] = []
    for low in range(0, len(edges), size):
        part = edges[low : low + size]
        outcome = structure.outcome[part]
        there = arrays.where((outcome >= 0)[:, :, None], stop[part], 0.0)
        going = 0.0 if last else column[structure.columns[part]].sum(axis=1).max(axis=0)
        yielded = (there * reward[outcome]).sum(axis=1).max(axis=0)
        parts.append([there.sum(axis=1).max(axis=0), yielded, going])
    sold, yielded, going = (functools.reduce(arrays.maximum, x) for x in zip(*parts, strict=True))
    return sold, yielded, going
