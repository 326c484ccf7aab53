"""What a prior on tastes is known to be, for the error of the points that stand for it.

Coordinates are counted in standard deviations of the prior. Means, deviations and correlations
of a transformed normal are closed forms. So is E max(0, s), s = <g, omega>, where s is normal, or
of one sign; elsewhere it is estimated on quasi-random points that no grid was made from, and
three standard errors of that estimate are stated beside it.
"""

import numpy as np
from jaxtyping import Bool, Float

from dynmech.market.discretise import AbstractPrior, deviations, normal_points

_SCRAMBLES = 8
_POINTS = 2**13
_REFERENCE_SEED = 1847  # with the number of the scramble: no seed that a grid can be made from
_LARGEST_LOG_VARIANCE = 700.0  # of a lognormal whose variance is a float


class SamplePrior(AbstractPrior):
    """The sample itself. **Arguments:** `points` (N, k), `shares` (N,) that sum to one."""

    scaled: Float[np.ndarray, "N r"]
    shares: Float[np.ndarray, " N"]
    mean: Float[np.ndarray, " k"]
    spread: Float[np.ndarray, " k"]
    random: Bool[np.ndarray, " k"]

    def __init__(self, points: np.ndarray, shares: np.ndarray):
        self.shares = shares
        self.mean = shares @ points
        self.spread = deviations(points, shares)
        self.random = self.spread > 1e-12 * np.abs(points).max(axis=0)
        self.scaled = points[:, self.random] / self.spread[self.random]

    def along(self, direction: Float[np.ndarray, " r"]):
        s = self.scaled @ direction
        scale = np.sqrt(self.shares @ (s - self.shares @ s) ** 2)
        return float(scale), float(self.shares @ np.maximum(s, 0)), 0.0


class TransformedNormal(AbstractPrior):
    """omega_j = z_j, or signs_j exp(z_j) where `lognormal`, with z = centre + factor N(0, I).

    **Arguments:** `centre` (k,), `factor` (k, r), `lognormal` (k,), `signs` (k,) of 1 and -1.
    """

    centre: Float[np.ndarray, " k"]
    factor: Float[np.ndarray, "k r"]
    lognormal: Bool[np.ndarray, " k"]
    signs: Float[np.ndarray, " k"]
    mean: Float[np.ndarray, " k"]
    spread: Float[np.ndarray, " k"]
    random: Bool[np.ndarray, " k"]
    correlation: Float[np.ndarray, "r1 r1"]
    scrambles: Float[np.ndarray, "S N r1"] | None

    def __init__(
        self, centre: np.ndarray, factor: np.ndarray, lognormal: np.ndarray, signs: np.ndarray
    ):
        self.centre, self.factor, self.lognormal, self.signs = centre, factor, lognormal, signs
        cov = factor @ factor.T
        variance = np.diag(cov)
        log = np.where(lognormal, variance, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            level = np.exp(centre + log / 2)
            wide = np.sqrt(np.expm1(np.where(log < _LARGEST_LOG_VARIANCE, log, np.inf)))
            self.mean = np.where(lognormal, signs * level, centre)
            self.spread = np.where(lognormal, level * wide, np.sqrt(variance))
        self.random = variance > 0
        at = np.flatnonzero(self.random)
        # Cov(z, e^x) = Cov(z, x) E e^x for normal z and x, Cov(e^x, e^y) = E e^x E e^y (e^c - 1).
        inner, kind = cov[np.ix_(at, at)], lognormal[at]
        both = kind[:, None] & kind
        unit = np.where(kind, signs[at] / wide[at].clip(1e-300), 1 / np.sqrt(variance[at]))
        moved = np.where(both, np.expm1(np.where(both, inner, 0.0)), inner)
        self.correlation = np.outer(unit, unit) * moved
        self.scrambles = self._draw() if len(at) > 1 and kind.any() else None

    def taste(self, normal: Float[np.ndarray, "N r"]) -> Float[np.ndarray, "N k"]:
        """The tastes at standard normal points; infinite where they overflow."""
        z = self.centre + normal @ self.factor.T
        with np.errstate(over="ignore"):
            return np.where(self.lognormal, self.signs * np.exp(z), z)

    def _draw(self) -> Float[np.ndarray, "S N r1"]:
        rank = self.factor.shape[1]
        draws = [normal_points(_POINTS, rank, [_REFERENCE_SEED, k]) for k in range(_SCRAMBLES)]
        scaled = [self.taste(x)[:, self.random] / self.spread[self.random] for x in draws]
        return np.stack(scaled)

    def along(self, direction: Float[np.ndarray, " r"]):
        used, kind = direction != 0, self.lognormal[self.random]
        centre = self.mean[self.random] / self.spread[self.random]
        middle = float(direction @ centre)
        scale = float(np.sqrt(max(direction @ self.correlation @ direction, 0.0)))
        if not kind[used].any():
            return scale, _normal_positive_part(middle, scale), 0.0
        side = np.where(used, direction * self.signs[self.random], 0.0)
        if kind[used].all() and ((side >= 0).all() or (side <= 0).all()):
            return scale, max(middle, 0.0), 0.0
        assert self.scrambles is not None
        s = self.scrambles @ direction
        # E max(0, s) = E s + E max(0, -s): the side whose estimate moves least is used.
        sides = [np.maximum(s, 0).mean(axis=1), middle + np.maximum(-s, 0).mean(axis=1)]
        steady = min(sides, key=lambda x: x.std())
        return scale, float(steady.mean()), 3 * float(steady.std(ddof=1)) / np.sqrt(len(steady))


def _normal_positive_part(mean: float, deviation: float) -> float:
    """E max(0, X) for X ~ N(mean, deviation^2)."""
    from scipy.special import ndtr

    if deviation == 0:
        return max(mean, 0.0)
    z = mean / deviation
    return float(mean * ndtr(z) + deviation * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
