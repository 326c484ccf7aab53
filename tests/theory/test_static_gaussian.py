"""Maxima of Gaussians in closed form, and rules that bracket convex functions."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from dynmech import static as st
from dynmech.static.gaussian import bivariate_normal, product_rule, select_largest
from tests.helpers.assistant import EXACT, option


@pytest.mark.parametrize("seed", range(3))
def test_expected_maximum_against_two_dimensional_integration(seed):
    rng = np.random.default_rng(seed)
    root, mean = rng.normal(size=(2, 2)), rng.normal(size=2)
    covariance = root @ root.T + 0.2 * np.eye(2)
    own, slope = np.sqrt(covariance[0, 0]), covariance[0, 1] / covariance[0, 0]
    rest = np.sqrt(covariance[1, 1] - slope * covariance[0, 1])

    def inside(x):  # E max(Y, top) given X = x
        top = max(x, 0.0)
        return (top + option(mean[1] + slope * (x - mean[0]) - top, rest)) * norm.pdf(
            x, mean[0], own
        )

    ends = mean[0] - 10 * own, mean[0] + 10 * own
    found = quad(inside, *ends, points=[0.0, mean[0]], epsabs=1e-12, limit=200)[0]
    assert float(st.expected_maximum(mean, covariance)) == pytest.approx(found, abs=EXACT)
    # Without the outside option: Clark's formula.
    up = mean + 30
    theta = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    ratio = (up[0] - up[1]) / theta
    clark = up[0] * norm.cdf(ratio) + up[1] * norm.cdf(-ratio) + theta * norm.pdf(ratio)
    assert float(st.expected_maximum(up, covariance)) == pytest.approx(clark, abs=1e-12)


def test_selection_and_the_bivariate_normal():
    rng = np.random.default_rng(1)
    for h, k, rho in [
        *rng.normal(size=(6, 3)),
        (0.0, 0.0, 0.4),
        (0.0, -1.0, 1.0),
        (1.0, 1.0, -1.0),
    ]:
        rho = float(rho if abs(rho) <= 1 else np.tanh(rho))
        law = multivariate_normal([0, 0], [[1, rho], [rho, 1]], allow_singular=True)
        found = bivariate_normal(np.array(h), np.array(k), rho)
        assert float(found) == pytest.approx(law.cdf([h, k]), abs=1e-7)
    mean, covariance = np.array([0.3, -0.1]), np.array([[1.0, 0.4], [0.4, 0.5]])
    chosen = select_largest(mean, covariance)
    assert chosen.probability.sum() == pytest.approx(1, abs=1e-12)
    step = 1e-5  # the probability is the gradient of the expected maximum
    for i in range(2):
        move = step * np.eye(2)[i]
        up, down = (st.expected_maximum(mean + s * move, covariance) for s in (1, -1))
        assert chosen.probability[i] == pytest.approx((up - down) / (2 * step), abs=1e-8)
    for degenerate in (np.zeros((2, 2)), np.array([[1.0, 1.0], [1.0, 1.0]])):
        found = float(st.expected_maximum(mean, degenerate))
        z = mean + np.linspace(-9, 9, 400_001)[:, None] * np.sqrt(degenerate[0, 0])
        weights = norm.pdf(np.linspace(-9, 9, 400_001))
        by_hand = np.maximum(z.max(axis=1), 0) @ weights / weights.sum()
        assert found == pytest.approx(by_hand, abs=1e-8)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_rules_bracket_convex_functions(dimensions):
    """Jensen below, spreads above, with the tail at the slope; Gauss-Hermite exact on moments."""
    slope = np.array([1.0, 0.6, -0.8])[:dimensions]
    deviation = float(np.linalg.norm(slope))
    truth, gaps = option(0.3, deviation), []
    for nodes in (8, 16):
        low, high = (product_rule(kind, nodes, dimensions) for kind in ("below", "above"))
        worth = [rule.weights @ np.maximum(0.3 + rule.nodes @ slope, 0) for rule in (low, high)]
        worth[1] += high.tail * np.abs(slope).sum()
        assert worth[0] <= truth <= worth[1]
        gaps.append(worth[1] - worth[0])
    assert gaps[1] < 0.5 * gaps[0]
    hermite = product_rule("hermite", 8, dimensions)
    assert hermite.weights @ (hermite.nodes @ slope) ** 4 == pytest.approx(3 * deviation**4)
