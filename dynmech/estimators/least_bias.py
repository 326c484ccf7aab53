"""Decode one product: without bias by linear algebra, else with the least by two programs.

The least bias is a linear program, and the least noise at that bias a quadratic one. In both, a
decoder is v = basis @ y and what it means is E[v | omega] = span @ y[:r], with `span`
(s, r) orthonormal columns over the s tastes of a support.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from dynmech.errors import DynmechError, describe

_TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
_ATTEMPTS = (("highs", True), ("highs-ds", False), ("highs-ipm", False))
_PASSES = 3  # of the linear program
_LIGHT = 1e-9  # of the heaviest row: lighter ones count as so heavy in the linear program


def decode_one(
    law: np.ndarray,
    target: np.ndarray,
    chance: np.ndarray,
    weights: np.ndarray,
    eps: float,
    fallback: str,
    slack: float,
    allow: float,
):
    """Decode one product; return v, unbiased, rank, tolerance, lost (m,), mixtures (2, m)."""
    (m, symbols), rows = law.shape, np.flatnonzero(chance > 0)
    lost, mixtures = np.full(m, np.nan), np.full((2, m), np.nan)
    if not len(rows):
        return np.zeros(symbols), True, 0, 0.0, lost, mixtures
    occurs = law[rows].any(axis=0)
    matrix, weight = law[rows][:, occurs], weights[rows]
    heavy, heaviest = chance[rows] / chance.max(), chance.max()
    centre = weight @ target[rows]  # constants can always be decoded
    wanted = target[rows] - centre
    size = max(matrix.shape)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    rank = int((singular > size * eps * singular[0]).sum())
    often = np.sqrt(weight @ matrix)
    null = _felt(np.linalg.svd(right[:rank])[2][rank:].T, often, np.sqrt(eps))
    left, right = left[:, :rank], right[:rank] / singular[:rank, None]  # L right'y = left y
    root = np.sqrt(weight)

    def calm(v: np.ndarray):
        """The decoder of least expected variance among those with the means of v."""
        return v - null @ np.linalg.lstsq(often[:, None] * null, often * v)[0]

    def finish(v: np.ndarray, unbiased: bool):
        values = np.zeros(symbols)
        values[occurs] = v + centre
        return values, unbiased, rank, tolerance, lost, mixtures

    exact = calm(right.T @ (left.T @ wanted))
    top = np.abs(target[rows]).max()
    scale = max(top, np.abs(exact + centre).max())
    tolerance = min(8 * size * eps * scale, np.sqrt(eps) * top)
    solvable = bool(np.abs(matrix @ exact - wanted).max() <= tolerance)
    lost[rows] = 0.0
    if solvable and allow == 0:
        return finish(exact, True)
    values, most = exact, allow / heaviest
    firm = singular[:rank] > eps**0.25 * singular[0]
    left, right = left[:, firm], right[firm]
    if not solvable:
        span = np.linalg.lstsq(root[:, None] * left, root * wanted, rcond=size * eps)[0]
        lost[rows] = wanted - left @ span
        signed = weight * lost[rows]
        if fallback == "minimax":
            span, least, signed = least_bias(left, wanted, heavy)
            most = max(most, least * (1 + slack))
        proved = np.abs(signed @ left).max() <= np.sqrt(eps) * np.abs(signed).sum()
        for k, side in enumerate((np.maximum(-signed, 0), np.maximum(signed, 0))):
            if proved and side.any():
                mixtures[k] = 0.0
                mixtures[k, rows] = side / side.sum()
        values = calm(right.T @ span)
    if fallback == "minimax":
        basis = np.concatenate([right.T, null], axis=1)
        values = least_square_error(basis, left, wanted, heavy, matrix, weight, values, most)
    return finish(values, values is exact)


def _felt(null: np.ndarray, often: np.ndarray, least: float | np.floating):
    """The directions of a null space along which the variance changes by more than rounding."""
    _, size, turn = np.linalg.svd(often[:, None] * null, full_matrices=False)
    return null @ turn[size > least].T


def least_bias(
    span: Float[np.ndarray, "s r"], wanted: Float[np.ndarray, " s"], heavy: Float[np.ndarray, " s"]
) -> tuple[Float[np.ndarray, " r"], float, Float[np.ndarray, " s"]]:
    """Minimise max heavy * |span @ y - wanted| by HiGHS, `heavy` at most 1.

    **Returns:** y; the least value; and a signed measure c with c'span = 0, sum |c| / heavy = 1
    and c'wanted the least value, which proves that no y does better (the multipliers).

    **Raises:** `DynmechError` if HiGHS fails.
    """
    y, value, signed = np.zeros(span.shape[1]), np.inf, np.zeros(len(heavy))
    for _ in range(_PASSES):  # each works on what is left, and so in its units
        rest = wanted - span @ y
        scale = float((heavy * np.abs(rest)).max())
        if scale == 0:
            break
        step, signed = _program(span, rest / scale, heavy)
        after = float((heavy * np.abs(rest - scale * (span @ step))).max())
        if after >= (1 - 1e-6) * value:
            break
        y, value = y + scale * step, after
    return y, min(value, float((heavy * np.abs(wanted - span @ y)).max())), signed


def _program(span: np.ndarray, wanted: np.ndarray, heavy: np.ndarray):
    """One linear program: y and the signed measure of its multipliers."""
    from scipy.optimize import linprog

    weight = np.sqrt(np.maximum(heavy, _LIGHT))  # rows are divided by it: entries near one
    rows, sides = weight[:, None] * span, weight * wanted
    top = np.concatenate([1 / weight] * 2)
    count = span.shape[1]
    found: Any = None
    program = {
        "c": np.eye(count + 1)[count],
        "A_ub": np.column_stack([np.concatenate([rows, -rows]), -top]),
        "b_ub": np.concatenate([sides, -sides]),
        "bounds": [(None, None)] * count + [(0, None)],
    }
    for method, tight in _ATTEMPTS:
        found = linprog(**program, method=method, options=_TIGHT if tight else {})
        if found.status == 0:
            break
    else:
        must = "give a linear program that HiGHS solves"
        do = 'rescale it, or use fallback="least squares"'
        raise DynmechError(describe("decode_utilities(channel=...)", must, found.message, do))
    above, below = np.split(-np.asarray(found.ineqlin.marginals), 2)
    return found.x[:count], weight * (below - above)


def least_square_error(
    basis: Float[np.ndarray, "Z q"],
    span: Float[np.ndarray, "s r"],
    wanted: Float[np.ndarray, " s"],
    heavy: Float[np.ndarray, " s"],
    law: Float[np.ndarray, "s Z"],
    weight: Float[np.ndarray, " s"],
    feasible: Float[np.ndarray, " Z"],
    most: float,
) -> Float[np.ndarray, " Z"]:
    """Minimise E[(v(z) - wanted)^2] by `weight` subject to heavy * |E[v | omega] - wanted| <= most.

    The objective is |root * (v - guess)|^2 plus a constant, with `guess` the posterior mean of
    what is wanted, so this is a least-distance problem, solved by nonnegative least squares.

    **Arguments:** `feasible`: a decoder v that keeps to `most`.

    **Returns:** v, within 1e-6 of `most`; `feasible` where rounding allows nothing better.

    **References:** Lawson and Hanson, "Solving Least Squares Problems", 1974, section 23.4.
    """
    often = weight @ law
    root = np.sqrt(often)
    guess = (weight * wanted) @ law / np.where(often > 0, often, 1)
    turn, triangle = np.linalg.qr(root[:, None] * basis)
    start = turn.T @ (root * guess)
    best, reach = feasible, float(np.linalg.norm(turn.T @ (root * feasible) - start))
    if reach == 0 or not np.diag(triangle).all():
        return feasible
    rows = np.zeros((len(heavy), basis.shape[1]))
    rows[:, : span.shape[1]] = heavy[:, None] * span
    rows = np.linalg.solve(triangle.T, np.concatenate([-rows, rows]).T).T
    sides = np.concatenate([-heavy * wanted - most, heavy * wanted - most]) - rows @ start
    length = np.linalg.norm(rows, axis=1)
    some = length > 0
    rows, sides = rows[some] / length[some, None], sides[some] / length[some]
    # Rounding is least where the scale is that of the answer, which lies between these two.
    for scale in np.geomspace(max(sides.max(initial=0.0), 1e-12 * reach), reach, 5):
        x = _least_distance(rows, sides, float(scale))
        if x is None or np.linalg.norm(x) >= reach:
            continue
        values = basis @ np.linalg.solve(triangle, x + start)
        if (heavy * np.abs(law @ values - wanted)).max() <= most * (1 + 1e-6):
            best, reach = values, float(np.linalg.norm(x))
    return best


def _least_distance(
    rows: np.ndarray, sides: np.ndarray, scale: float
) -> Float[np.ndarray, " q"] | None:
    """The shortest x with rows @ x >= sides, or None if rounding hides it at this scale."""
    from scipy.optimize import nnls

    if sides.max(initial=0.0) <= 0:
        return np.zeros(rows.shape[1])
    table = np.concatenate([rows.T, sides[None] / scale])
    last = np.eye(len(table))[-1]
    try:
        dual, _ = nnls(table, last, maxiter=30 * table.shape[1])
    except RuntimeError:
        return None
    rest = table @ dual - last
    return -rest[:-1] / rest[-1] * scale if rest[-1] < 0 else None
