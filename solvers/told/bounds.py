"""Upper bounds that hold at every belief: what a controller would get who is told the parameter.

Told omega, nothing is left to learn, and the best value is a recursion for each parameter alone,

    U_t(c, x, omega) = max_a sum_s stop[e, s, omega] (x_j + reward[j, omega])
                             + (sum_z column[columns[e, z], omega]) E_x'[ U_{t+1}(c', x', omega) ].

By Jensen's inequality <b, U_t(c, x, .)> >= W_t(c, x, b) for every belief b, and it is consistent:
one exact step with U_{t+1} inside never exceeds U_t. Only memory classes are enumerated, no
belief, so the cost does not grow with the number of symbols or of histories.

A controller who is told only the next symbol before she acts on it (the fast informed bound,
Hauskrecht, 2000) has sum_z max_a' sum_omega' P(omega', z | omega, a) U(a', omega') in place of the
second term. The parameter does not move, so omega' = omega, the maximum leaves the sum, and that
bound is this one: nothing is gained between being told omega and planning on.
"""

import numpy as np
from jaxtyping import Float

from solvers.problem import Numbers, Structure, Tables, Tasks

_BYTES = 5e8


def told_parameter(
    structure: Structure, tables: Tables, tasks: Tasks
) -> list[Float[np.ndarray, "_M _R _Q m"]]:
    """Bound W from above for every belief, round, memory class, root and task.

    Where a table for every root and task would be too large, one bounds them all: R = Q = 1.

    **Returns:** U_t for t = 1..T+1, each of shape (M_t, R, Q, m); the last is zero.
    """
    reward, column = np.asarray(tables.reward), open_columns(np.asarray(tables.column))
    stop, allowed = np.asarray(tables.stop), np.asarray(tasks.allowed, bool)
    counted = np.asarray(tasks.counted)[..., None]
    worth = np.asarray(tasks.coefficient)[..., None] + counted * reward
    if _too_large(structure, tasks):
        worth = worth.max(axis=(0, 1), keepdims=True)
        allowed = allowed.reshape(-1, structure.controls).max(axis=0)[None, None]
    roots, variants, _, points = worth.shape
    bounds = [np.zeros((1, roots, variants, points))]
    for t in reversed(range(structure.horizon)):
        edges, successor = structure.edge[t], structure.successor[t]
        here = np.full((len(edges), roots, variants, points), -np.inf)
        for control in range(structure.controls):
            edge = edges[:, control]
            total = np.zeros_like(here)
            for slot in range(structure.outcome.shape[1]):
                outcome = structure.outcome[edge, slot]
                chance = np.where((outcome >= 0)[:, None], stop[edge, slot], 0.0)
                total += chance[:, None, None] * np.moveaxis(worth[:, :, outcome], 2, 0)
            if t < structure.horizon - 1:
                later = expected(bounds[-1][successor[:, control]], tasks, control)
                total += column[structure.columns[edge]].sum(axis=1)[:, None, None] * later
            total = np.where(allowed[:, :, control, None], total, -np.inf)
            np.maximum(here, total, out=here)
        bounds.append(here)
    return bounds[::-1]


def bound_after(
    structure: Structure, tables: Tables, tasks: Tasks, told: list[np.ndarray], t: int, memory: int
) -> Float[np.ndarray, "A _R _Q m"]:
    """Bound what follows each control in a memory class of round t, given omega."""
    column = open_columns(np.asarray(tables.column))
    edge, successor = structure.edge[t][memory], structure.successor[t][memory]
    going = column[structure.columns[edge]].sum(axis=1)
    later = [expected(told[t + 1][successor[a]], tasks, a) for a in range(structure.controls)]
    return going[:, None, None] * np.stack(later)


def expected(value: np.ndarray, tasks: Tasks, control: int) -> np.ndarray:
    """Expectation over the next coefficients of values (..., Q, m), Q = (variants, V)."""
    if tasks.kernel is None or value.shape[-2] == 1:
        return value
    law = np.asarray(tasks.kernel)[control]
    split = value.reshape(*value.shape[:-2], -1, len(law), value.shape[-1])
    return np.einsum("...wm,vw->...vm", split, law).reshape(value.shape)


def open_columns(column: Numbers) -> np.ndarray:
    """Columns and a row of zeros, which index -1 (nothing follows) picks."""
    return np.concatenate([column, np.zeros((1, column.shape[1]))])


def _too_large(structure: Structure, tasks: Tasks) -> bool:
    roots, variants = tasks.coefficient.shape[:2]
    classes = sum(len(edge) for edge in structure.edge)
    return 8.0 * classes * roots * variants * tasks.root.shape[1] > _BYTES
