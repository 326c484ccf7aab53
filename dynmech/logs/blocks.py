"""Conversations in blocks, and what is added up over each of them.

Where a log differs from another of the same market only in its numbers, its blocks have the same
shapes: short logs are padded to one of few sizes, long ones are cut into blocks of one size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._types import Record
from dynmech.logs.likelihood import Records, Tables, logarithm
from dynmech.logs.padding import length

_BLOCK = 4096  # conversations at once


class Blocks(Record):
    """Conversations padded to K whole blocks of B; what pads them has weight 0.

    `rows` (K, B, 2T+2): rows of `done`, of `heard`, of `sold` and of `opening`, one beyond the last
    for none. `sums` (K, B, 3C), `settled`, `weight` (K, B): as in `Records`.
    """

    rows: Int[np.ndarray, "K B L"]
    sums: Float[np.ndarray, "K B J"]
    settled: Float[np.ndarray, "K B"]
    weight: Float[np.ndarray, "K B"]
    rounds: int = eqx.field(static=True)


def blocks(data: Records, weight: Float[np.ndarray, " N"] | None = None) -> Blocks:
    """Split records into blocks. `weight`: in place of the records' own."""
    count = len(data.path)
    size = min(_BLOCK, length(count))
    total = -(-count // size) * size
    done = np.where(data.paths < 0, len(data.situations.cell), data.paths)
    said = np.where(data.said < 0, len(data.situations.heard), data.said)
    ends = data.sold[:, None], data.opening[:, None]
    rows = np.concatenate([done, said, *ends], axis=1)[data.path]

    def laid(array: np.ndarray) -> np.ndarray:
        padded = np.zeros((total, *array.shape[1:]), array.dtype)
        padded[:count] = array
        return padded.reshape(total // size, size, *array.shape[1:])

    sums = data.sums.reshape(count, -1)
    weight = data.weight if weight is None else weight
    return Blocks(laid(rows), laid(sums), laid(data.settled), laid(weight), data.paths.shape[1])


def in_blocks(found: Tables, parts: Blocks, each: Callable[[Array, Array], Any]) -> Any:
    """`each(logs, weight)` of every block, logs (B, m) = log P(c | omega); traced, stacked."""

    def padded(table: Array) -> Array:
        return jnp.concatenate([table, jnp.zeros((1, table.shape[1]), table.dtype)])

    done, heard, sold = padded(found.done), padded(found.heard), padded(found.sold)
    rated = found.rated.reshape(-1, done.shape[1])

    @jax.checkpoint
    def one(block: tuple[Array, ...]):
        rows, sums, settled, weight = block
        logs = found.opening[rows[:, -1]] + sums @ rated + sold[rows[:, -2]]
        if found.law is not None:
            a, b = found.scale
            came = jnp.isfinite(settled)
            chance = found.law((jnp.where(came, settled, 0.0) - a) / b)
            logs = logs + jnp.where(came, logarithm(chance), 0.0)[:, None]
        for t in range(parts.rounds):
            logs = logs + done[rows[:, t]]
            if len(found.heard):
                logs = logs + heard[rows[:, parts.rounds + t]]
        return each(logs, weight)

    given = parts.rows, parts.sums, parts.settled, parts.weight
    laid = tuple(jnp.asarray(x) for x in given)
    return jax.lax.map(one, laid)
