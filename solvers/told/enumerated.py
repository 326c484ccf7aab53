"""What a controller who is told omega gets, by a recursion over every memory there is.

    U_t(h, omega) = max_a sum_j worth_j(omega) ends_j(h_a, a, omega)
                          + ends_going(h_a, a, omega) U_{t+1}(h_a, omega),

for any process whose memories are few enough to be listed, whatever its rules are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, Case, follow_each
from solvers.programs import as_program

_MOST = 1e6
_BYTES = 2e9
_CHUNK = 64e6
_LISTING = 100  # multiplications that telling apart one number of a memory costs
_DENSE = 0.25  # of outcomes that can happen: below it those that cannot are left out
_SIZES = (1, 16, 256, 4096, 65536)


class EnumeratedCeiling(AbstractCeiling):
    """Exact: a recursion over memories, which are few.

    `tables[t]` (O_t, m): for memories that offer the same; `rows[t]`: where each is found.
    """

    tables: list[Float[np.ndarray, "_O m"]]
    rows: tuple[dict[bytes, int], ...] = eqx.field(static=True)

    def value(self, period: int, memories: Int[np.ndarray, "_U d"]):
        rows = self.rows[period]
        keys = np.asarray(memories, np.int64)
        return self.tables[period][[rows[key.tobytes()] for key in keys]]

    def plans(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return None

    def gained(self, period: int, memories: Int[np.ndarray, "_U d"]):
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
        grown = _in_chunks((here,), 8.0 * process.controls * here.shape[1], follow_each, process)[0]
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
    process: AbstractProcess,
    cases: Sequence[Case],
    most: float = _MOST,
    work: float = np.inf,
    kernel: Float[np.ndarray, "A V V"] | None = None,
) -> list[EnumeratedCeiling]:
    """Bound every case. Call it with float64 enabled.

    Memories that offer the same edges, memories after a control, are worth the same; the laws of
    an edge are found once for all that offer it and for all cases.

    **Arguments:** `most`: memories listed at most; `work`: multiplications at most; `kernel`:
    where one of the V cases follows another, its law after each control; they stay by default.

    **Raises:** `MemoryError` where memories, tables or multiplications are more than is allowed.
    """
    n, points = np.shape(process.reward)
    each = n * points * len(cases)
    listing = _LISTING * process.controls * len(np.asarray(process.start()))
    memories, after = list_memories(process, min(most, work / max(each, listing) + 1))
    offers = [_offers(part) for part in after]
    count = 1 + sum(len(offer) for _, offer, _ in offers)
    if 8.0 * count * points * len(cases) > _BYTES:
        raise MemoryError(f"{count} memories x {points} points x {len(cases)} cases")
    total = float(sum(len(edges) for edges, _, _ in offers)) * each
    if total > work:
        raise MemoryError(f"{total:.3g} multiplications, of at most {work:.3g}")
    places = [*(place for _, _, place in offers), np.zeros(len(memories[-1]), int)]
    rows = tuple(
        dict(zip((key.tobytes() for key in part), place.tolist(), strict=True))
        for part, place in zip(memories, places, strict=True)
    )
    worth = np.stack([np.asarray(case.worth(process.reward)) for case in cases])
    allowed = np.stack([np.asarray(case.allowed, bool) for case in cases])
    tables = [np.zeros((len(cases), 1, points))]
    wide = 8.0 * points * (n + 3 + 4 * len(cases)) * process.controls
    size = max(1, int(_CHUNK / wide))
    laws = _Laws(process, worth)
    for t in reversed(range(int(process.horizon))):
        edges, offer, _ = offers[t]
        best = []
        for low in range(0, len(offer), size):
            used, at = np.unique(offer[low : low + size], return_inverse=True)
            heir, control = edges[used].T
            value, going = laws.of(memories[t + 1][heir], control)
            later = tables[-1][:, places[t + 1][heir]]
            if kernel is not None:
                later = np.einsum("evw,wem->vem", kernel[control], later)
            value = value + going * later
            value[~allowed[:, control]] = -np.inf
            at = at.reshape(-1, process.controls)
            best.append(np.stack([one[at].max(axis=1) for one in value]))
        tables.append(np.concatenate(best, axis=1))
    return [EnumeratedCeiling([part[k] for part in tables[::-1]], rows) for k in range(len(cases))]


class _Laws:
    """What edges yield in every case and the chance of going on, found once for all rounds alike.

    **Arguments:** `worth` (C, n, m): what outcomes yield, money.
    """

    def __init__(self, process: AbstractProcess, worth: Float[np.ndarray, "C n m"]):
        self.process, self.worth = process, worth
        self.given: tuple[np.ndarray, ...] = ()
        self.found: tuple[np.ndarray, ...] = ()

    def of(self, heirs: Int[np.ndarray, "E d"], controls: Int[np.ndarray, " E"]):
        """What E edges yield (C, E, m), money, and the chance of another round (E, m).

        **Arguments:** `heirs` (E, d): memories after `controls` (E,).
        """
        given = heirs, controls
        if not self.given or not all(map(np.array_equal, given, self.given)):
            _, n, points = self.worth.shape
            ends = _in_chunks(given, 8.0 * (n + 3) * points, _ends, self.process)[0]
            self.given, self.found = given, (self._earned(ends[:, :-1]), ends[:, -1])
        return self.found

    def _earned(self, chance: Float[np.ndarray, "E n m"]) -> Float[np.ndarray, "C E m"]:
        happens = np.asarray(chance.any(axis=2))
        if np.count_nonzero(happens) > _DENSE * happens.size:
            return np.einsum("ejm,cjm->cem", chance, self.worth, optimize=True)
        found = np.zeros((len(self.worth), len(chance), chance.shape[2]))
        for j in np.flatnonzero(happens.any(axis=0)):
            edges = np.flatnonzero(happens[:, j])
            found[:, edges] += self.worth[:, j, None] * chance[edges, j]
        return found


def _offers(after: Int[np.ndarray, "M A"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (memory after, control) (E, 2); distinct rows of them (O, A); the row of each."""
    size = np.int64(after.shape[1])
    code, edge = np.unique(after.astype(np.int64) * size + np.arange(size), return_inverse=True)
    offer, place = np.unique(edge.reshape(after.shape), axis=0, return_inverse=True)
    return np.stack(np.divmod(code, size), axis=1), offer, place.reshape(-1)


def _in_chunks(
    rows: tuple[np.ndarray, ...], each: float, law: Callable[..., Any], *given: Any
) -> tuple[np.ndarray, ...]:
    """Apply a law to rows, padded to a few sizes, so that what lives at once stays small."""
    count = len(rows[0])
    fits = [size for size in _SIZES if size * each <= _CHUNK or size == 1]
    enough = [size for size in fits if size >= count]
    size = enough[0] if enough else fits[-1]
    parts = []
    for low in range(0, count, size):
        index = np.minimum(np.arange(low, low + size), count - 1)
        found = law(*given, *(jnp.asarray(x[index]) for x in rows))
        parts.append([np.asarray(x)[: count - low] for x in found])
    return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


@as_program
def _ends(process: AbstractProcess, memories: Numbers, controls: Numbers):
    return (jax.vmap(process.ends)(memories, controls),)
