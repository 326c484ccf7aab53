"""Confidence bounds on means that hold at their level for every law and every number of draws.

The object: draws X_1, ..., X_N with values of at least a known `floor`, each with the same mean mu
given those before. The operator: for a guess m of the mean, the wealth of a bet on "more than m",
alpha at first and kept where it comes to one,

    w_i(m) = min(1, w_{i-1} + g_i(w_{i-1}) (X_i - m)),   0 <= g_i(w) <= c w / (m - floor), c < 1,

is nonnegative, and its mean is at most alpha if mu <= m and each g_i is a function of the draws
before i alone. By Markov's inequality w_N(mu) = 1 with chance at most alpha, so that every m with
w_N(m) = 1 may be ruled out. Nothing is assumed about tails above the floor, and no limit theorem
is used: draws that are all alike leave (mu - floor) log(1 / alpha) / N, which what was never met
may still be worth.

Stakes: those that make it likeliest to come from w to one in the draws that are left (Kulldorff,
1993, SIAM J. Control Optim. 31; Browne, 1999, Adv. Appl. Probab. 31), for draws of the standard
deviation sigma_i that those before i had,

    g_i(w) = phi(Phi^{-1}(w)) / (sigma_i sqrt(N - i + 1)),

or the most there may be. Any other predictable stakes would give valid bounds (Waudby-Smith and
Ramdas, 2024, JRSS B 86, section 4); in the limit of many draws these leave as much as the normal
law says, 1.64 standard errors at 95% where stakes that do not look at w leave 2.45.

w_N falls in m, so that what is left is a half line, and its end is the bound. For each g_i is
concave in w and zero at w = 0: with g_i' <= g_i / w <= c / (m - floor) where X_i < m, and with
g_i / (1 - w), the slope of a chord, rising where X_i > m, more wealth before a draw is more after
it; and for given wealth g_i (X_i - m) falls in m.

`bernstein_lower` is the simple check (Maurer and Pontil, 2009): it needs a ceiling as well.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.special import ndtri

_MOST = 0.95  # c: no draw costs more than this share of the wealth
_SHY = 0.03  # of mean less floor: standard deviation that is taken for granted at first
_NEAREST = 1e-9  # of mean less floor: guesses begin there below the mean
_FINE = 1e-3  # of the width: guesses end there
_WIDE = 4096  # guesses that are followed together


def betting_lower(
    sample: Float[np.ndarray, "N *s"],
    floor: Float[np.ndarray, "*s"] | float,
    alpha: Float[np.ndarray, "*s"] | float,
) -> Float[np.ndarray, "*s"]:
    """Bound means from below: each is above its bound with chance at least 1 - `alpha`.

    **Arguments:** `sample`: draws in the order in which they were made; `floor`: never above
    any draw that can occur, -inf where none is known; `alpha` in (0, 1).

    **Returns:** bounds, at least `floor`, at most the mean of the sample.
    """
    x = np.asarray(sample, float)
    shape = x.shape[1:]
    floor = np.broadcast_to(np.asarray(floor, float), shape)
    # Rounding alone takes a draw below its floor; where there is no floor there is no bound.
    known = np.isfinite(floor)
    x = np.where(known, np.maximum(x - np.where(known, floor, 0.0), 0.0), 0.0)
    scale = x.max(axis=0, initial=0.0)
    x = (x / np.where(scale > 0, scale, 1.0)).reshape(len(x), -1)
    level = np.broadcast_to(np.asarray(alpha, float), shape).reshape(-1)
    mean, pace = x.mean(axis=0), _pace(x)
    # Distances from the mean, each `ratio` of the one before: the least that rules out, and all.
    guesses = int(np.clip(_WIDE // max(len(mean), 1), 4, 64))
    near, ratio = np.full(len(mean), _NEAREST), _NEAREST ** (-1 / guesses)
    while ratio > 1 + _FINE:
        apart = np.minimum(near * ratio ** np.arange(1, guesses + 1)[:, None], 1.0)
        won = _wins(x, mean * (1 - apart), pace, level)
        # What is ruled out at last stays so: at the floor nothing has to be.
        first = np.where(won.any(axis=0), won.argmax(axis=0), guesses - 1)
        near, ratio = near * ratio**first, ratio ** (1 / guesses)
    low = mean * (1 - np.minimum(near * ratio**guesses, 1.0))
    return np.asarray(floor + low.reshape(shape) * scale)


def betting_upper(
    sample: npt.ArrayLike, ceiling: npt.ArrayLike, alpha: Float[np.ndarray, "*s"] | float
):
    """Bound means from above, as `betting_lower` does from below; `ceiling`: above any draw."""
    below = betting_lower(-np.asarray(sample, float), -np.asarray(ceiling, float), alpha)
    return np.asarray(-below)


def _wins(
    x: Float[np.ndarray, "N S"],
    guess: Float[np.ndarray, "K S"],
    pace: Float[np.ndarray, "N S"],
    alpha: Float[np.ndarray, " S"],
) -> np.ndarray:
    """Whether bets on more than each guess come from `alpha` to one; floors are zero."""
    wealth = np.broadcast_to(alpha, guess.shape).copy()
    most = _MOST / np.where(guess > 0, guess, 1.0)
    for draw, speed in zip(x, pace, strict=True):
        stake = np.minimum(speed * np.exp(-0.5 * ndtri(wealth) ** 2), most * wealth)
        wealth = np.minimum(wealth + stake * (draw - guess), 1.0)
    return wealth >= 1


def _pace(x: Float[np.ndarray, "N S"]) -> Float[np.ndarray, "N S"]:
    """1 / (sqrt(2 pi) sigma_i sqrt(N - i + 1)), from the draws before each; nothing at first."""
    count = np.arange(len(x))[:, None]
    before = np.maximum(count, 1)
    mean = (np.cumsum(x, axis=0) - x) / before
    square = (np.cumsum(x * x, axis=0) - x * x) / before
    variance = np.maximum(square - mean**2, 0.0) + (_SHY * mean) ** 2 / before + 1e-300
    return np.where(count > 0, (2 * np.pi * variance * (len(x) - count)) ** -0.5, 0.0)


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
