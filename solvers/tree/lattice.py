"""Which likelihood columns multiply to the same belief: integer relations among their logarithms.

Beliefs are compared up to scale, because W is homogeneous. If, up to constants, the logarithms of
the columns are integer combinations of fewer *generators* P,

    log column[c, omega] = sum_g (digits[c, g] / d) P[g, omega] + offset[c],

then two multisets of columns with equal sums of digits give proportional beliefs, and their ratio
is the exponential of the difference of their summed offsets. Counts of generators, not of
columns, then number the beliefs: likelihoods of an exponential family have few sufficient
statistics. Relations are searched numerically and each one used holds to `_SAME` in the
logarithm, so that merging by them is exact up to rounding.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

_SAME = 2e-13
_RANK = 1e-7
_NEAR = 1e-6
_DENOMINATORS = np.arange(1, 13)
_LARGEST = 64
_MOST_COLUMNS = 4_096


def relations(
    column: Float[np.ndarray, "C m"],
) -> tuple[Int[np.ndarray, "C g"], Float[np.ndarray, " C"]] | tuple[None, None]:
    """Find digits (C, g) and offsets (C,) of every column; None where nothing is related.

    Columns with a zero, and those whose combination is not rational with a small denominator,
    are generators of their own.
    """
    count, points = column.shape
    alone = None, None
    positive = np.asarray((column > 0).all(axis=1))
    if count > _MOST_COLUMNS or not positive.any() or points < 2:
        return alone
    logs = np.log(np.where(positive[:, None], column, 1.0))
    centred = logs - logs.mean(axis=1, keepdims=True)
    generators, triangle, inside = _span(centred, positive)
    spanned = positive.copy()
    spanned[generators] = False
    combination: dict[int, np.ndarray] = {}
    for c, exact in zip(
        np.flatnonzero(spanned).tolist(),
        np.linalg.solve(triangle.T, inside[spanned].T).T if generators else inside[spanned],
        strict=True,
    ):
        found = _rational(exact)
        if found is not None:
            gap = centred[c] - found @ centred[generators]
            if np.abs(gap).max() <= _SAME * max(1.0, np.abs(logs[c]).max()):
                combination[c] = found
    if not combination:
        return alone
    return _digits(count, generators, combination, logs)


def drift(
    column: Float[np.ndarray, "C m"],
    digits: Int[np.ndarray, "C g"] | None,
    offset: Float[np.ndarray, " C"] | None,
) -> float:
    """What a belief can be off by in a round, as a share, where related columns are merged."""
    if digits is None or offset is None:
        return 0.0
    # A generator is the first column whose only digit is its own.
    single = ((digits != 0).sum(axis=1) == 1) & (offset == 0)
    own = [int(np.flatnonzero(single & (digits[:, g] != 0))[0]) for g in range(digits.shape[1])]
    related = np.flatnonzero((column > 0).all(axis=1))
    logs = np.log(np.where(column > 0, column, 1.0))
    part = digits[related] / digits[own, np.arange(len(own))]
    gap = logs[related] - part @ logs[own] - offset[related, None]
    return 2 * float(np.abs(gap).max(initial=0.0)) + 4 * float(np.finfo(float).eps)


def _span(centred: np.ndarray, positive: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The first rows that span all positive rows: centred[generators] = triangle @ basis.

    Also each row's coordinates in the orthonormal basis of the generators before it, (C, g), so
    that a combination x of generators with x @ triangle = coordinates gives the row.
    """
    size = np.sqrt(np.einsum("cm,cm->c", centred, centred))
    rest = np.where(positive[:, None], centred, 0.0)
    basis, generators = np.zeros((0, centred.shape[1])), []
    while True:
        left = np.sqrt(np.einsum("cm,cm->c", rest, rest))
        far = np.flatnonzero(left > _RANK * np.maximum(1.0, size))
        far = far[far > (generators[-1] if generators else -1)]
        if not len(far):
            break
        c = int(far[0])
        # Taken out once more: what is left after rounding is not orthogonal.
        new = rest[c] - (rest[c] @ basis.T) @ basis
        new /= np.sqrt(new @ new)
        basis = np.concatenate([basis, new[None]])
        generators.append(c)
        rest[c:] -= (rest[c:] @ new)[:, None] * new
    inside = centred @ basis.T
    inside[np.arange(len(centred))[:, None] < np.array(generators, int)] = 0.0
    return generators, inside[generators], inside


def _rational(exact: np.ndarray) -> np.ndarray | None:
    """The nearest combination with one small denominator, or None."""
    scaled = exact * _DENOMINATORS[:, None]
    near = np.abs(scaled - np.round(scaled)).max(axis=1, initial=0.0) <= _NEAR
    if not near.any() or np.abs(exact).max(initial=0.0) > _LARGEST:
        return None
    first = int(np.argmax(near))
    return np.round(scaled[first]) / _DENOMINATORS[first]


def _digits(
    count: int,
    generators: list[Any] | list[int],
    combination: dict[int, np.ndarray],
    logs: np.ndarray,
):
    """Write every column in integer digits of generators, with one denominator for all."""
    every = np.array(list(combination.values()))
    common = int(np.lcm.reduce(_denominators(every), initial=1))
    own = [c for c in range(count) if c not in combination]
    place = {c: g for g, c in enumerate(own)}
    if common > 5_040:
        return None, None
    digits, offset = np.zeros((count, len(own)), np.int64), np.zeros(count)
    digits[own, np.arange(len(own))] = common
    for c, found in combination.items():
        digits[c, [place[g] for g in generators]] = np.round(common * found)
        offset[c] = (logs[c] - found @ logs[generators]).mean()
    divisor = np.gcd.reduce(digits, axis=0)
    return digits // np.maximum(divisor, 1), offset


def _denominators(values: np.ndarray) -> np.ndarray:
    scaled = np.abs(values.ravel()[:, None] * _DENOMINATORS)
    near = np.abs(scaled - np.round(scaled)) <= _NEAR
    return _DENOMINATORS[np.argmax(near, axis=1)]
