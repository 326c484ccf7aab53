"""Confidence bounds on means that hold at their level for every law and every number of draws.

The object: draws X_1, X_2, ... with values of at least a known `floor`, each with the same mean mu
given those before. The operator: for a guess m of the mean, the wealth of a bet on "more than m",

    K_N(m) = prod_i (1 + lambda_i (X_i - m)),      0 <= lambda_i <= c / (m - floor),  c < 1,

is nonnegative, and its mean is at most one if mu <= m and each lambda_i is a function of the
draws before i alone. By Markov's inequality K_N(mu) >= 1 / alpha with chance at most alpha, so
that every m with K_N(m) >= 1 / alpha may be ruled out. K_N falls in m: what is left is a half
line, and its end is the bound (Waudby-Smith and Ramdas, 2024, JRSS B 86, section 4). Nothing is
assumed about tails above the floor, and no limit theorem is used: draws that are all alike leave
(mu - floor) log(1 / alpha) / N, which what was never met may still be worth.

Stakes: lambda_i = sqrt(2 log(1 / alpha) / (N v_{i-1})), with v the variance of the draws so far;
any other predictable stakes would give valid bounds, these give short ones.

`bernstein_lower` is the simple check (Maurer and Pontil, 2009): it needs a ceiling as well.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

_MOST = 0.8  # c: no draw costs more than this share of the wealth
_SHY = 0.03  # of mean less floor: standard deviation that is taken for granted at first
_HALVINGS = 40


def betting_lower(
    sample: Float[np.ndarray, "N *s"],
    floor: Float[np.ndarray, "*s"] | float,
    alpha: float,
) -> Float[np.ndarray, "*s"]:
    """Bound means from below: each is above its bound with chance at least 1 - `alpha`.

    **Arguments:** `sample`: draws in the order in which they were made; `floor`: never above
    any draw that can occur, -inf where none is known; `alpha` in (0, 1).

    **Returns:** bounds, at least `floor`, at most the mean of the sample.
    """
    x = np.asarray(sample, float)
    floor = np.broadcast_to(np.asarray(floor, float), x.shape[1:])
    # Rounding alone takes a draw below its floor; where there is no floor there is no bound.
    known = np.isfinite(floor)
    x = np.where(known, np.maximum(x - np.where(known, floor, 0.0), 0.0), 0.0)
    scale = x.max(axis=0, initial=0.0)
    x = x / np.where(scale > 0, scale, 1.0)
    stakes = _stakes(x, alpha)
    low, high = np.zeros(x.shape[1:]), x.mean(axis=0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        most = _MOST / np.where(middle > 0, middle, 1.0)
        wealth = np.log1p(np.minimum(stakes, most) * (x - middle)).sum(axis=0)
        ruled_out = wealth >= -np.log(alpha)
        low, high = np.where(ruled_out, middle, low), np.where(ruled_out, high, middle)
    return np.asarray(floor + low * scale)


def betting_upper(sample: npt.ArrayLike, ceiling: npt.ArrayLike, alpha: float):
    """Bound means from above, as `betting_lower` does from below; `ceiling`: above any draw."""
    return -betting_lower(-np.asarray(sample, float), -np.asarray(ceiling, float), alpha)


def _stakes(x: np.ndarray, alpha: float) -> np.ndarray:
    """Stakes from the draws before each; none at first. The shape of x."""
    count = np.arange(len(x)).reshape(-1, *(1,) * (x.ndim - 1))
    before = np.maximum(count, 1)
    mean = (np.cumsum(x, axis=0) - x) / before
    square = (np.cumsum(x * x, axis=0) - x * x) / before
    variance = np.maximum(square - mean**2, 0.0) + (_SHY * mean) ** 2 / before + 1e-300
    stakes = np.sqrt(-2 * np.log(alpha) / (len(x) * variance))
    return np.where(count > 0, np.minimum(stakes, 1e150), 0.0)


def bernstein_lower(
    sample: Float[np.ndarray, "N *s"],
    floor: Float[np.ndarray, "*s"] | float,
    ceiling: Float[np.ndarray, "*s"] | float,
    alpha: float,
) -> Float[np.ndarray, "*s"]:
    """Bound means from below by the empirical Bernstein inequality; draws in [floor, ceiling].

    mean - sqrt(2 V log(2 / alpha) / N) - 7 (ceiling - floor) log(2 / alpha) / (3 (N - 1)), with V
    the sample variance: the check that needs no bisection, some ten times wider where draws
    hardly vary.
    """
    x = np.asarray(sample, float)
    log, count = np.log(2 / alpha), len(x)
    width = np.asarray(ceiling, float) - np.asarray(floor, float)
    step = np.sqrt(2 * x.var(axis=0, ddof=1) * log / count) + 7 * width * log / (3 * (count - 1))
    return np.asarray(np.maximum(x.mean(axis=0) - step, floor))
