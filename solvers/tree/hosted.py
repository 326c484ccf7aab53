"""What takes longest of a step in NumPy: products, and sums of what follows; and how long.

And how many nodes a step works on at once, compiled or not.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from solvers.problem import Numbers, Tasks

ONE_THREAD, ROWS = 250_000, 16  # products that BLAS starts no thread for, and rows of these
_TILES = 256  # nodes whose product with few features two threads share evenly
_FEW = 0.02  # ratios of beliefs that are not 1, of all: so few are multiplied by one by one
# Of passes in NumPy: cells and products a second, seconds a call, cells that comparing takes.
_CELL_RATE, _HOST_RATE, _CALL_SECONDS, _COMPARED = 1.5e9, 1e10, 5e-4, 30


def product_on_host(
    rows: Float[Numbers, "*n m"], beliefs: Float[Numbers, "C m"]
) -> Float[np.ndarray, "*n C"]:
    """Sums over the points of rows times beliefs; rows of zeros are not multiplied.

    By pieces, below what BLAS starts threads for: where other work waits for the cores, waiting for
    a thread takes longer than all of them.
    """
    flat, given = np.reshape(rows, (-1, rows.shape[-1])), np.asarray(beliefs)
    used = np.flatnonzero(flat.any(axis=1))
    factor = flat if len(used) == len(flat) else flat[used]
    (width, points), count = factor.shape, len(given)
    found = np.empty((width, count), np.result_type(flat.dtype, given.dtype))
    wide = min(count, max(1, ONE_THREAD // (ROWS * points)))
    high = max(ROWS, ONE_THREAD // (wide * points))
    for low in range(0, width, high):
        for left in range(0, count, wide):
            here = slice(low, low + high), slice(left, left + wide)
            np.matmul(factor[here[0]], given[here[1]].T, out=found[here])
    if width < len(flat):
        some, found = found, np.zeros((len(flat), count), found.dtype)
        found[used] = some
    return found.reshape(*rows.shape[:-1], count)


def added_on_host(
    following: Float[Numbers, "N R Q"],
    step: Int[Numbers, "Z A C"],
    share: Float[Numbers, "Z A C _R 1"] | None,
    total: Float[np.ndarray, "A C R Q"],
) -> Float[np.ndarray, "A C R Q"]:
    """Add values at what follows, times its share, symbol by symbol to `total`, in place."""
    later = np.empty_like(total)
    for z, index in enumerate(np.asarray(step, np.intp)):
        np.take(following, index, axis=0, out=later, mode="clip")
        if share is not None:
            other = share[z] != 1
            if np.count_nonzero(other) < _FEW * index.size:  # most beliefs are those of the child
                some = np.nonzero(other.any(axis=(2, 3)))
                later[some] *= share[z][some]
            else:
                later *= share[z]
        total += later
    return total


def nodes_at_once(
    near: tuple[float, float], points: int, controls: int, slots: int, tasks: Tasks
) -> float:
    """How many nodes have so many bytes of beliefs, and of values, at most."""
    roots, variants = tasks.coefficient.shape[:2]
    widths = points, 2 * controls * (slots + variants) * roots
    return min(np.divide(near, np.multiply(widths, tasks.root.dtype.itemsize)))


def halved(nodes: int, most: float) -> int:
    """Of equal parts of so many nodes one of `most` at most, if it can be split: about the largest.

    A power of two where `most` is `_TILES` or more: else threads share products unevenly.
    """
    if nodes <= most:
        return nodes
    tiled = math.gcd(nodes, 1 << max(int(most).bit_length() - 1, 0))
    if tiled >= _TILES:
        return tiled
    while nodes % 2 == 0 and nodes > most:
        nodes //= 2
    return nodes


def host_seconds(
    nodes: int, blocks: int, controls: int, symbols: int, slots: int, tasks: Tasks, roots: int
) -> float:
    """What `step_on_host` takes for all blocks of a round, roughly, on one core."""
    variants = tasks.coefficient.shape[1]
    cells = nodes * controls * roots * variants * (4 * slots + 2 * symbols + _COMPARED)
    products = nodes * roots * tasks.root.shape[1] * 3 * controls * slots
    return cells / _CELL_RATE + products / _HOST_RATE + blocks * _CALL_SECONDS
