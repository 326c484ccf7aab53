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
    if count > _MOST_COLUMNS or positive.sum() < 2 or points < 2:
        return alone
    logs = np.log(np.where(positive[:, None], column, 1.0))
    centred = logs - logs.mean(axis=1, keepdims=True)
    basis, triangle = np.zeros((0, points)), np.zeros((0, 0))
    generators: list[int] = []
    combination: dict[int, np.ndarray] = {}
    for c in np.flatnonzero(positive).tolist():
        inside = basis @ centred[c]
        rest = centred[c] - inside @ basis
        more = basis @ rest
        inside, rest = inside + more, rest - more @ basis
        size = np.sqrt(rest @ rest)
        if size > _RANK * max(1.0, np.sqrt(centred[c] @ centred[c])):
            basis = np.concatenate([basis, rest[None] / size])
            triangle = np.pad(triangle, (0, 1))
            triangle[-1] = np.append(inside, size)
            generators.append(c)
            continue
        # centred[generators] = triangle @ basis, so the coefficients solve x @ triangle = inside.
        exact = np.linalg.solve(triangle.T, inside) if generators else np.zeros(0)
        found = _rational(exact)
        if found is not None:
            gap = centred[c] - found @ centred[generators]
            if np.abs(gap).max() <= _SAME * max(1.0, np.abs(logs[c]).max()):
                combination[c] = np.pad(found, (0, count))[:count]
    if not combination:
        return alone
    return _digits(count, generators, combination, logs)


def _rational(exact: np.ndarray) -> np.ndarray | None:
    """The nearest combination with one small denominator, or None."""
    scaled = exact * _DENOMINATORS[:, None]
    near = np.abs(scaled - np.round(scaled)).max(axis=1, initial=0.0) <= _NEAR
    if not near.any() or np.abs(exact).max(initial=0.0) > _LARGEST:
        return None
    first = int(np.argmax(near))
    return np.round(scaled[first]) / _DENOMINATORS[first]


def _digits(count, generators, combination, logs):
    """Write every column in integer digits of generators, with one denominator for all."""
    every = np.array(list(combination.values()))[:, : len(generators)]
    common = int(np.lcm.reduce(_denominators(every), initial=1))
    own = [c for c in range(count) if c not in combination]
    place = {c: g for g, c in enumerate(own)}
    if common > 5_040:
        return None, None
    digits, offset = np.zeros((count, len(own)), np.int64), np.zeros(count)
    digits[own, np.arange(len(own))] = common
    for c, found in combination.items():
        parts = found[: len(generators)]
        digits[c, [place[g] for g in generators]] = np.round(common * parts)
        offset[c] = (logs[c] - parts @ logs[generators]).mean()
    divisor = np.gcd.reduce(digits, axis=0)
    return digits // np.maximum(divisor, 1), offset


def _denominators(values: np.ndarray) -> np.ndarray:
    scaled = np.abs(values.ravel()[:, None] * _DENOMINATORS)
    near = np.abs(scaled - np.round(scaled)) <= _NEAR
    return _DENOMINATORS[np.argmax(near, axis=1)]
