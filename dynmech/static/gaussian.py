"""Maxima of Gaussians in closed form, and rules that integrate over Gaussians.

For jointly Gaussian X_0, ..., X_k the expected maximum and the moments of whatever is selected
follow from P(X_i is the maximum) and the density of ties X_i = X_j on top (Stein's lemma); for
up to three alternatives both are closed forms in the bivariate normal distribution.

A rule on the line carries over to d independent coordinates by products. For a *convex* function
`below` never exceeds the integral and `above`, with the correction `tail`, never falls short: the
first replaces the variable by its mean in each cell, the second spreads it to the cell's ends.
`cells` stretches the first to the right variance. Where the integrand has kinks, as a maximum of
plans has, its error falls faster than that of Gauss-Hermite, whose nodes lie far apart.

**References**

Clark, "The greatest of a finite set of random variables", Operations Research 1961; Owen, "Tables
for computing bivariate normal probabilities", Annals of Mathematical Statistics 1956; Kall and
Mayer, "Stochastic linear programming", 2011 (Jensen and Edmundson-Madansky bounds).
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._checks import finite, shaped
from dynmech.errors import InvalidArgument, describe

_FLOOR, _SAME = 1e-15, 1e-9
CLOSED_FORM_PRODUCTS = 2


class Selection(eqx.Module):
    """Which of k Gaussians and zero is largest; zero is the last alternative.

    `probability` (..., k+1): of being the maximum. `tie` (..., k+1, k+1): density at zero of
    X_i - X_j times the probability that no other exceeds them there; the diagonal is zero.
    """

    probability: Float[np.ndarray, "... k"]
    tie: Float[np.ndarray, "... k k"]

    def moments(
        self, mean: Float[np.ndarray, "... p"], covariance: Float[np.ndarray, "p k"]
    ) -> Float[np.ndarray, "... p"]:
        """Compute E[Y_i 1{X_i is the maximum}] for i = 0..p-1, Y jointly Gaussian with X.

        E[Y_i] P_i + sum_j Cov(Y_i, X_i - X_j) tie_ij. `covariance`: Cov(Y_i, X_j), (p, k+1).
        """
        p = mean.shape[-1]
        gap = np.diagonal(covariance)[:, None] - covariance
        return mean * self.probability[..., :p] + (gap * self.tie[..., :p, :]).sum(axis=-1)


def select_largest(
    mean: Float[np.ndarray, "... p"], covariance: Float[np.ndarray, "p p"]
) -> Selection:
    """Compute the selection among X ~ N(mean, covariance) and 0, in closed form for p <= 2."""
    from scipy.special import ndtr

    p = mean.shape[-1]
    full = np.zeros((p + 1, p + 1))
    full[:p, :p] = covariance
    level = np.concatenate([mean, np.zeros((*mean.shape[:-1], 1))], axis=-1)
    scale = max(np.sqrt(full.max()), np.abs(level).max(initial=0), np.finfo(float).tiny / _FLOOR)
    spread = np.maximum(np.sqrt(np.maximum(_variance_of_gaps(full), 0)), _FLOOR * scale)
    height = (level[..., :, None] - level[..., None, :]) / spread
    density = np.exp(-(height**2) / 2) / (np.sqrt(2 * np.pi) * spread)
    if p == 0:
        return Selection(np.ones(level.shape), np.zeros((*level.shape, 1)))
    if p == 1:
        tie = density * (1 - np.eye(2))
        first = ndtr(height[..., 0, 1])
        return Selection(np.stack([first, ndtr(-height[..., 0, 1])], axis=-1), tie)
    probability, tie = np.zeros(level.shape), np.zeros((*level.shape, 3))
    for i in range(3):
        j, k = (x for x in range(3) if x != i)
        common = full[i, i] - full[i, j] - full[i, k] + full[j, k]
        rho = float(np.clip(common / (spread[i, j] * spread[i, k]), -1, 1))
        rest = max(np.sqrt((1 - rho) * (1 + rho)), 1e-12)
        probability[..., i] = bivariate_normal(height[..., i, j], height[..., i, k], rho)
        for a, b in ((j, k), (k, j)):
            below = ndtr((height[..., i, b] - rho * height[..., i, a]) / rest)
            tie[..., i, a] = density[..., i, a] * below
    return Selection(probability, tie)


def expected_maximum(
    mean: Float[np.ndarray, "... p"], covariance: Float[np.ndarray, "p p"]
) -> Float[np.ndarray, "..."]:
    """Compute E max(X_1, ..., X_p, 0), X ~ N(mean, covariance), in closed form for p <= 2.

    sum_i E[X_i] P_i + sum_{i<j} Var(X_i - X_j) tie_ij. Exact up to rounding.

    **Arguments:** `mean`: (..., p), money; `covariance`: (p, p), positive semidefinite.

    **Raises:** `InvalidArgument`, `NotFinite`.

    ```python
    >>> float(expected_maximum(np.zeros(1), np.eye(1)) * np.sqrt(2 * np.pi))
    1.0

    ```
    """
    call = "expected_maximum({}=...)".format
    mean = np.asarray(finite(call("mean"), mean), np.float64)
    p = mean.shape[-1] if mean.ndim else -1
    if not 0 <= p <= CLOSED_FORM_PRODUCTS:
        must = f"have a last axis of at most {CLOSED_FORM_PRODUCTS}"
        raise InvalidArgument(describe(call("mean"), must, mean.shape))
    covariance = np.asarray(shaped(p, p)(call("covariance"), covariance), np.float64)
    low = np.linalg.eigvalsh((covariance + covariance.T) / 2).min(initial=0)
    size = np.abs(covariance).max(initial=0)
    if low < -_SAME * size or not (np.abs(covariance - covariance.T) <= _SAME * size).all():
        must, got = "be symmetric, positive semidefinite", f"a smallest eigenvalue of {low:.3g}"
        raise InvalidArgument(describe(call("covariance"), must, got))
    found = select_largest(mean, covariance)
    full = np.zeros((p + 1, p + 1))
    full[:p, :p] = covariance
    ties = (found.tie * _variance_of_gaps(full)).sum(axis=(-1, -2)) / 2
    return np.asarray((mean * found.probability[..., :p]).sum(axis=-1) + ties)


def bivariate_normal(
    h: Float[np.ndarray, "..."], k: Float[np.ndarray, "..."], rho: float
) -> Float[np.ndarray, "..."]:
    """Compute P(X <= h, Y <= k) for standard normals of correlation rho, by Owen's T function."""
    from scipy.special import ndtr, owens_t

    root = max(np.sqrt((1 - rho) * (1 + rho)), 1e-150)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        first = np.nan_to_num((k - rho * h) / (h * root), nan=0.0, posinf=np.inf, neginf=-np.inf)
        second = np.nan_to_num((h - rho * k) / (k * root), nan=0.0, posinf=np.inf, neginf=-np.inf)
    product = h * k
    apart = (product < 0) | ((product == 0) & (h + k < 0))
    found = (ndtr(h) + ndtr(k) - apart) / 2 - owens_t(h, first) - owens_t(k, second)
    both = (h == 0) & (k == 0)
    found = np.where(both, 0.25 + np.arcsin(rho) / (2 * np.pi), found)
    return np.asarray(np.clip(found, 0.0, 1.0))


class Rule(eqx.Module):
    """Integrate over d independent standard normals.

    `nodes` (Q, d), `weights` (Q,), summing to 1. `tail`: E|z - z'| for the part of a coordinate z
    that lies outside the rule's range, to be charged at the function's slope; 0 unless `above`.
    """

    nodes: Float[np.ndarray, "Q d"]
    weights: Float[np.ndarray, " Q"]
    tail: float = eqx.field(static=True)


def product_rule(kind: str, nodes: int, dimensions: int) -> Rule:
    """Build the product of `dimensions` rules of `nodes` points on the line.

    `kind`: "hermite", "cells", or "below" and "above" (bounds for convex functions).
    """
    line, mass, tail = _line(kind, nodes)
    grid = np.indices((nodes,) * dimensions).reshape(dimensions, nodes**dimensions)
    return Rule(line[grid].T, mass[grid].prod(axis=0), tail)


def _line(kind: str, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    from scipy.special import ndtr

    if kind == "hermite":
        nodes, weights = np.polynomial.hermite_e.hermegauss(count)
        return nodes, weights / weights.sum(), 0.0
    # Equal cells on a range that widens with their number, so that tails matter less than cells.
    reach = 1 + np.sqrt(2 * np.log(max(count, 2)))
    if kind in ("below", "cells"):
        edges = np.concatenate([[-np.inf], np.linspace(-reach, reach, count - 1), [np.inf]])
        mass = np.diff(ndtr(edges))
        nodes = -np.diff(_density(edges)) / mass
        scale = 1 / np.sqrt(mass @ nodes**2) if kind == "cells" else 1.0
        return nodes * scale, mass / mass.sum(), 0.0
    edges = np.linspace(-reach, reach, count)
    mass, moment = np.diff(ndtr(edges)), -np.diff(_density(edges))
    right = (moment - edges[:-1] * mass) / np.diff(edges)
    weights = np.zeros(count)
    weights[1:] += right
    weights[:-1] += mass - right
    weights[[0, -1]] += ndtr(-reach)
    tail = 2 * (_density(edges[-1:])[0] - reach * ndtr(-reach))
    return edges, weights / weights.sum(), float(tail)


def _density(x: np.ndarray) -> np.ndarray:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def _variance_of_gaps(covariance: np.ndarray) -> np.ndarray:
    own = np.diagonal(covariance)
    return own[:, None] + own - 2 * covariance
