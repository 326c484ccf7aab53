"""Quasi-random normal points, clusters of points, and the error of a discretisation."""

import abc
from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from dynmech._types import Record

_DIRECTIONS = 32
_SWEEPS = 50


class AbstractPrior(Record):
    """A prior on R^k by what is known of it.

    - `mean` (k,); `spread` (k,): standard deviations; `random` (k,): coordinates that vary.
    """

    mean: eqx.AbstractVar[Float[np.ndarray, " k"]]
    spread: eqx.AbstractVar[Float[np.ndarray, " k"]]
    random: eqx.AbstractVar[Bool[np.ndarray, " k"]]

    @abc.abstractmethod
    def along(self, direction: Float[np.ndarray, " r"]) -> tuple[float, float, float]:
        """Deviation of s = sum_j direction_j omega_j / spread_j over the random coordinates.

        Then E max(0, s), and by how much that may be off.
        """


def deviations(
    points: Float[np.ndarray, "N k"], shares: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " k"]:
    """Standard deviation of each coordinate, in any unit of it: squares are of its own size."""
    off = points - shares @ points
    size = np.abs(off).max(axis=0)
    unit = np.where(size > 0, size, 1.0)
    return unit * np.sqrt(shares @ (off / unit) ** 2)


def normal_points(
    count: int, dimension: int, seed: int | Sequence[int]
) -> Float[np.ndarray, "count dimension"]:
    """Draw quasi-random standard normals: scrambled Sobol points through the quantile."""
    from scipy.special import ndtri
    from scipy.stats import qmc  # half a second, paid only by those who discretise

    if dimension == 0:
        return np.zeros((count, 0))
    generator = qmc.Sobol(dimension, rng=np.random.default_rng(seed), bits=30)
    uniform = generator.random_base2((count - 1).bit_length())[:count]
    return ndtri(uniform + 2.0**-31)  # the middle of each cell, so never the quantile of zero


def discretisation_error(
    points: Float[np.ndarray, "m k"], weights: Float[np.ndarray, " m"], prior: AbstractPrior
) -> float:
    """Return the largest error over the functionals declared in `TasteGrid`.

    **Arguments**

    - `points`, `weights`: the grid; weights sum to one. `prior`: what it stands for; coordinates
      that do not vary under it are left out.

    **Returns**

    The error, in standard deviations of the prior, with what the prior's own figures may be off
    by; in units of the points if nothing varies.
    """
    from scipy.special import ndtri
    from scipy.stats import qmc

    random = prior.random
    if not random.any():
        return float(np.abs(weights @ points - prior.mean).max())
    grid = points[:, random] / prior.spread[random]
    means = weights @ grid - prior.mean[random] / prior.spread[random]
    spreads = deviations(grid, weights) - 1
    errors = [np.abs(means).max(), np.abs(spreads).max()]

    axes = np.eye(grid.shape[1])
    # The first Sobol point is the corner of the cube and the second its centre: no directions.
    sphere = ndtri(qmc.Sobol(grid.shape[1], scramble=False).random_base2(6)[2 : 2 + _DIRECTIONS])
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    for direction in np.concatenate([axes, -axes, sphere]):
        scale, positive, unsure = prior.along(direction)
        if scale > 1e-9:
            gap = weights @ np.maximum(grid @ direction, 0) - positive
            errors.append((abs(gap) + unsure) / scale)
    return float(max(errors))


def cluster(
    samples: Float[np.ndarray, "N k"], shares: Float[np.ndarray, " N"], size: int, seed: int
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, " m"]]:
    """Group weighted samples by k-means, each coordinate divided by its standard deviation.

    Centres start by k-means++ and move by Lloyd's sweeps until no sample changes its cluster,
    or 50 times. Each ends as the mean of its cluster, so the mean of the samples is kept.

    **Arguments**

    - `samples`: (N, k). `shares`: (N,), summing to one.
    - `size`: the most clusters. `seed`: of the first centres.

    **Returns**

    Centres and masses of the clusters that are not empty.
    """
    from scipy.spatial import KDTree

    spread = deviations(samples, shares)
    scale = np.where(spread > 0, spread, 1)
    scaled = samples / scale
    centres = scaled[_first_centres(scaled, shares, size, np.random.default_rng(seed))]
    labels = np.full(len(scaled), -1)
    for _ in range(_SWEEPS):
        before, labels = labels, KDTree(centres).query(scaled)[1]
        if (labels == before).all():
            break
        masses = np.bincount(labels, shares, len(centres))
        sums = [np.bincount(labels, shares * column, len(centres)) for column in scaled.T]
        filled = masses > 0
        centres[filled] = np.stack(sums, axis=1)[filled] / masses[filled, None]
    # `labels` must be those that the centres are means of, also after the last sweep.
    masses = np.bincount(labels, shares, len(centres))
    return centres[masses > 0] * scale, masses[masses > 0] / masses.sum()


def _first_centres(
    scaled: Float[np.ndarray, "N k"],
    shares: Float[np.ndarray, " N"],
    size: int,
    rng: np.random.Generator,
) -> list[int]:
    """Pick samples at random, each with weight times squared distance to those picked before."""
    nearest = np.ones(len(scaled))
    picked = []
    while len(picked) < size:
        cumulative = np.cumsum(shares * nearest)
        if cumulative[-1] <= 0:  # every distinct sample is a centre
            break
        pick = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        distance = ((scaled - scaled[pick]) ** 2).sum(axis=1)
        nearest = np.minimum(nearest, distance) if picked else distance
        picked.append(pick)
    return picked
