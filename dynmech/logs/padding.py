"""Sizes that logs of one market share, so that its programs are compiled once for all of them."""

import numpy as np
from jaxtyping import Shaped

_LEAST = 8


def length(count: int) -> int:
    """At least `count`, by at most an eighth or seven: one of few sizes; 0 stays 0."""
    step = max(_LEAST, 1 << max((count - 1).bit_length() - 3, 0))
    return -(-count // step) * step


def lengthened(rows: Shaped[np.ndarray, "k ..."]) -> Shaped[np.ndarray, "l ..."]:
    """The rows and the last one again, as many as `length` says."""
    return rows[np.minimum(np.arange(length(len(rows))), len(rows) - 1)]
