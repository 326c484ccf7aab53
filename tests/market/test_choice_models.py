"""Utils to money and market shares to mean utilities, against the logit they invert."""

import numpy as np
import pytest

import dynmech as dm
from dynmech.applications import in_money, mean_utilities


def shares_of(delta, deviations, weights):
    """Written out consumer by consumer."""
    total = np.zeros(len(delta))
    for mu, weight in zip(deviations.T, weights):
        e = np.exp(delta + mu)
        total += weight * e / (1 + e.sum())
    return total


def test_mean_utilities_invert_the_shares():
    rng = np.random.default_rng(0)
    delta, deviations = rng.normal(size=6), 2 * rng.normal(size=(6, 40))
    for weights in (rng.dirichlet(np.ones(40)), 0.3 * rng.dirichlet(np.ones(40))):
        found = mean_utilities(shares_of(delta, deviations, weights), deviations, weights)
        np.testing.assert_allclose(found, delta, atol=1e-11)
    equal = shares_of(delta, deviations, np.full(40, 1 / 40))
    np.testing.assert_allclose(mean_utilities(equal, deviations), delta, atol=1e-11)
    alone = shares_of(delta, np.zeros((6, 1)), [1.0])
    np.testing.assert_allclose(mean_utilities(alone), delta, atol=1e-12)


def test_choices_in_money_are_those_in_utils():
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.normal(size=(30, 2)), -rng.lognormal(size=30)])
    tastes = dm.TasteGrid(points, rng.dirichlet(np.ones(30)), characteristics=["a", "b", "price"])
    gamma = rng.normal(size=(4, 3))
    for price, floor in (("price", 0.0), (2, 0.0), ("price", 0.3)):
        grid, scale = in_money(tastes, price, floor=floor)
        np.testing.assert_allclose(gamma @ grid.points.T / scale, gamma @ points.T, rtol=1e-12)
        np.testing.assert_array_equal(grid.weights, tastes.weights)
        cost = -grid.points[:, 2]
        assert (cost <= 1 + 1e-12).all()
        assert (np.abs(cost - 1) < 1e-12).mean() >= 1 - floor - 0.05
        assert grid.characteristics == ("a", "b", "price")


def test_what_cannot_be_put_in_money_or_inverted_is_refused():
    tastes = dm.TasteGrid([[1.0, -1.0], [1.0, 0.5], [1.0, 0.0]], [0.5, 0.4, 0.1])
    with pytest.raises(dm.OutsideSupport, match=r"2 of 3 tastes .* weight 0.5.*lognormal"):
        in_money(tastes, 1)
    unmet = dm.TasteGrid([[1.0, -1.0], [1.0, 0.5]], [1.0, 0.0])
    assert in_money(unmet, 1, floor=0.5)[1][0] == 1.0  # a taste without weight does not count
    with pytest.raises(dm.InvalidArgument, match=r"price=.*0\.\.1"):
        in_money(tastes, "price")
    for shares in ([0.5, 0.5], [0.5, 0.0], [0.3, -0.1]):
        with pytest.raises(dm.InvalidArgument, match="shares="):
            mean_utilities(shares)
    with pytest.raises(dm.InvalidArgument, match="deviations="):
        mean_utilities([0.1, 0.2], np.zeros((3, 4)))
    with pytest.raises(dm.InvalidArgument, match="weights="):
        mean_utilities([0.3, 0.3], np.zeros((2, 2)), [0.2, 0.2])
