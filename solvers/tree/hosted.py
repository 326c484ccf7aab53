"""What takes longest of a step in NumPy: products of beliefs, and sums of what follows."""

import numpy as np
from jaxtyping import Float, Int

from solvers.problem import Numbers

ONE_THREAD, ROWS = 250_000, 16  # products that BLAS starts no thread for, and rows of these


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
) -> Float[np.ndarray, "A C R Q"]:
    """Sums over symbols of values at what follows, times its share, into one array."""
    total = np.zeros((*step.shape[1:], *following.shape[1:]), following.dtype)
    later = np.empty_like(total)
    for z, index in enumerate(np.asarray(step, np.intp)):
        np.take(following, index, axis=0, out=later, mode="clip")
        if share is not None:
            later *= share[z]
        total += later
    return total
