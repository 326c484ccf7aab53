"""Shapes of arrays that rounds are worked on in: few, so that few programs are compiled."""

import math
from collections.abc import Iterator, Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Int

from solvers.host import Record
from solvers.problem import Numbers, Structure, Tasks
from solvers.tree.bellman import chunk_size
from solvers.tree.tree import Layer, Tree

BLOCK_SIZES = (8, 64, 512, 4096, 32768)
_LITTLE = 2e6  # operations that padding a small round may cost, to save a compilation
_COMMON = 4096  # nodes handled at once in every round where padding costs nothing but indices
_INDICES = 4e6  # bytes of these
_SHARED = 64e6  # bytes of one table of likelihood rows for all rounds, where it is that small
_LEVEL = 4e6  # bytes up to which the values that follow are padded to those of the widest round
_ALIGNED = 64  # bytes at whose multiples JAX reads the numbers of NumPy where they are
_MULTIPLE = 256  # what sizes of blocks are rounded up to where each has a program of its own


class Shapes(Record):
    """Shapes that the rounds of a tree share, so that few programs are compiled.

    - `block`: the fewest nodes handled at once, where that costs next to nothing; `most`: the most,
      and `last` those of a round that nothing follows.
    - `following`: the fewest values that follow.
    - `shared`: whether one table holds the likelihood rows of all rounds.
    """

    block: int = eqx.field(static=True)
    most: int = eqx.field(static=True)
    last: int = eqx.field(static=True)
    following: int = eqx.field(static=True)
    shared: bool = eqx.field(static=True)


def few_shapes(
    tree: Tree, rows: Sequence[Numbers], tasks: Tasks, block: int, traced: bool
) -> Shapes:
    if traced:
        return Shapes(1, block, block, 1, False)
    structure = tree.structure
    slots, points = structure.outcome.shape[1], tasks.root.shape[1]
    roots, variants = tasks.coefficient.shape[:2]
    features = (2 * structure.controls * slots + 1) * points
    cells = 2 * structure.controls * (structure.symbols + 2 * slots) * variants
    few = [s for s in BLOCK_SIZES if s * roots * (features + cells) <= _LITTLE]
    widest = max((_width(layer) for layer in tree.layers[:-1]), default=1)
    least = max((s for s in few if s <= 64 or s <= padded_length(widest)), default=1)
    indices = 12 * _COMMON * structure.controls * structure.symbols
    chunk = chunk_size(_COMMON, points, structure.controls, slots, tasks)
    last = 1
    if chunk < _COMMON <= block:
        last = _at_once(tree.layers[-1], min(block * structure.controls, BLOCK_SIZES[-1]))
    if widest > least and chunk < _COMMON <= block and indices <= _INDICES:
        # Only the chunks that count are worked on: one program for rounds of any width.
        least = block = _COMMON
    longest = padded_length(max((layer.nodes for layer in tree.layers[1:]), default=1))
    level = longest if 8.0 * longest * roots * variants <= _LEVEL else 1
    few_rows = 8.0 * padded_length(sum(map(len, rows))) * points <= _SHARED
    return Shapes(least, block, max(last, block), level, few_rows)


def _at_once(layer: Layer, most: int) -> int:
    """How many nodes that nothing follows are handed over at once: a class, of `most` at most.

    1 where that pads more than blocks of `_COMMON` do, or is no more.
    """
    starts = np.flatnonzero(np.diff(layer.memory, prepend=-1))
    counts = np.diff(starts, append=layer.nodes)
    size = 1 << (int(counts.max()) - 1).bit_length()
    padded = _COMMON * int((-(-counts // _COMMON)).sum())
    return size if _COMMON < size <= most and size * len(counts) <= padded else 1


def padded_length(count: int) -> int:
    """Round up to one of few lengths, so that few programs are compiled."""
    length = next((s for s in BLOCK_SIZES[1:] if s >= count), BLOCK_SIZES[-1])
    while length < count:
        length *= 2
    return length


def joined_uncopied(
    parts: Sequence[Numbers], length: int, sizes: Sequence[int] | None = None
) -> np.ndarray:
    """Arrays one after the other, and room that nobody reads, where JAX reads them uncopied.

    **Arguments:** `sizes`: of parts that are chunks of rows, how many rows of each count.
    """
    like, axes = parts[0], 1 if sizes is None else 2
    shape, at = like.shape[axes:], 0
    room = np.empty(length * math.prod(shape) + _ALIGNED // like.itemsize, like.dtype)
    first = -room.ctypes.data % _ALIGNED // like.itemsize
    whole = room[first : first + length * math.prod(shape)].reshape(length, *shape)
    if sizes is None:
        np.concatenate(parts, out=whole[: sum(map(len, parts))])
        return whole
    for part, size in zip(parts, sizes, strict=True):
        full, rest = divmod(size, part.shape[1])
        end = at + size - rest
        whole[at:end].reshape(full, *part.shape[1:])[:] = part[:full]
        if rest:
            whole[end : end + rest] = part[full, :rest]
        at += size
    return whole


def _width(layer: Layer) -> int:
    """The most nodes of one memory class."""
    return int(np.diff(np.flatnonzero(np.diff(layer.memory, prepend=-1, append=-1))).max())


def blocks(
    layer: Layer, largest: int, least: int = 1, exact: bool = False
) -> Iterator[tuple[int, int, Int[np.ndarray, " C"]]]:
    """Split a round into blocks of one memory class and few distinct sizes.

    Yields the first node, how many nodes count, and the node indices (padded by the last); there
    are at most `largest` of them, and at least `least` where that allows it. `exact`: any size,
    padded by little.
    """
    starts = np.flatnonzero(np.diff(layer.memory, prepend=-1))
    ends = np.append(starts[1:], layer.nodes)
    widest = max(int((ends - starts).max()), least)
    size = next((s for s in BLOCK_SIZES if s >= min(widest, largest)), BLOCK_SIZES[-1])
    if exact and widest < size:
        size = -(-widest // _MULTIPLE) * _MULTIPLE if widest > _MULTIPLE else widest
    if size > largest:  # a power of two, which can be split
        size = 1 << max(largest.bit_length() - 1, 0)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        for first in range(start, end, size):
            count = min(size, end - first)
            yield first, count, np.minimum(np.arange(first, first + size), end - 1)


def shared_out(layer: Layer, most: int, devices: int, structure: Structure, tasks: Tasks) -> int:
    """The most nodes of a block such that every device gets some, in chunks as on one device."""
    slots, points = structure.outcome.shape[1], tasks.root.shape[1]
    chunk = chunk_size(_COMMON, points, structure.controls, slots, tasks)
    even = 1 << max(-(-_width(layer) // devices) - 1, 1).bit_length()
    return min(most, max(even, 2 * chunk))
