"""What a controller who is told omega gets, by a recursion over every memory there is.

    U_t(h, omega) = max_a pay(h_a, a, omega) + going(h_a, a, omega) U_{t+1}(h_a, omega),

for any process whose memories are few enough to be listed, whatever its rules are.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from solvers.process import AbstractCeiling, AbstractProcess, Case
from solvers.programs import as_program

_MOST = 1e6
_BYTES = 2e9
_CHUNK = 64e6
_SIZES = (1, 16, 256, 4096, 65536)


class EnumeratedCeiling(AbstractCeiling):
    """Exact: a recursion over memories, which are few. `tables[t]` (M_t, m), `rows[t]`."""

    tables: list[Float[np.ndarray, "_M m"]]
    rows: tuple[dict[bytes, int], ...] = eqx.field(static=True)

    def value(self, period, memories):
        rows = self.rows[period]
        keys = np.asarray(memories, np.int64)
        return self.tables[period][[rows[key.tobytes()] for key in keys]]

    def plans(self, period, memories):
        return None


def list_memories(
    process: AbstractProcess, most: float = _MOST
) -> tuple[list[Int[np.ndarray, "_M d"]], list[Int[np.ndarray, "_M A"]]]:
    """Distinct memories before every round and after the last, and what follows each.

    **Raises:** `MemoryError` where there are more than `most` in all.
    """
    memories: list[np.ndarray] = [np.asarray(process.start(), np.int64)[None]]
    after: list[np.ndarray] = []
    total = 1
    for t in range(int(process.horizon)):
        here = memories[-1]
        grown = _in_chunks(here, 8.0 * process.controls * here.shape[1], _next, process)[0]
        unique, index = np.unique(
            grown.reshape(-1, here.shape[1]).astype(np.int64), axis=0, return_inverse=True
        )
        total += len(unique)
        if total > most:
            raise MemoryError(f"{total} memories after round {t + 1}, of at most {most:.3g}")
        memories.append(unique)
        after.append(index.reshape(len(here), process.controls))
    return memories, after


def enumerate_ceilings(
    process: AbstractProcess, cases: Sequence[Case], most: float = _MOST
) -> list[EnumeratedCeiling]:
    """Bound every case. Call it with float64 enabled.

    **Raises:** `MemoryError` where there are more than `most` memories, or their tables are large.
    """
    memories, after = list_memories(process, most)
    points = int(np.shape(process.reward)[1])
    count = sum(map(len, memories))
    if 8.0 * count * points * len(cases) > _BYTES:
        raise MemoryError(f"{count} memories x {points} points x {len(cases)} cases")
    rows = tuple({key.tobytes(): i for i, key in enumerate(part)} for part in memories)
    last = np.zeros((len(memories[-1]), points))
    tables: list[list[np.ndarray]] = [[last] for _ in cases]
    each = 8.0 * process.controls * points * (len(np.asarray(process.reward)) + 3)
    for t in reversed(range(int(process.horizon))):
        for case, table in zip(cases, tables, strict=True):
            pay, going = _in_chunks(memories[t], each, _told, process, case)
            total = pay + going * table[-1][after[t]]
            table.append(total[:, np.asarray(case.allowed)].max(axis=1))
    return [EnumeratedCeiling(table[::-1], rows) for table in tables]


def _in_chunks(memories: np.ndarray, each: float, law, *given) -> tuple[np.ndarray, ...]:
    """Apply a law to memories, padded to a few sizes, so that what lives at once stays small."""
    fits = [size for size in _SIZES if size * each <= _CHUNK or size == 1]
    enough = [size for size in fits if size >= len(memories)]
    size = enough[0] if enough else fits[-1]
    parts = []
    for low in range(0, len(memories), size):
        piece = memories[low : low + size]
        padded = np.concatenate([piece, np.repeat(piece[-1:], size - len(piece), axis=0)])
        found = law(*given, jnp.asarray(padded))
        parts.append([np.asarray(x)[: len(piece)] for x in found])
    return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


@as_program
def _next(process, memories):
    each = jax.vmap(jax.vmap(process.step, in_axes=(None, 0)), in_axes=(0, None))
    return (each(memories, jnp.arange(process.controls)),)


@as_program
def _told(process, case, memories):
    worth = case.worth(process.reward)

    def one(memory, control):
        ends = process.ends(process.step(memory, control), control)
        return (ends[:-1] * worth).sum(axis=0), ends[-1]

    every = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    return every(memories, jnp.arange(process.controls))
