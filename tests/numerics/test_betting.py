"""Betting bounds hold at their level for laws without a limit theorem, and are short."""

import numpy as np
import pytest

from solvers import betting_lower, betting_upper
from solvers.confidence.betting import _pace, _wins, bernstein_lower

LAWS = {
    "even": lambda rng, shape: rng.random(shape),
    "rare loss": lambda rng, shape: 1.0 - (rng.random(shape) < 1e-3),
    "rare gain": lambda rng, shape: 1.0 * (rng.random(shape) < 1e-3),
    "no variance": lambda rng, shape: rng.pareto(1.5, shape),
    "coin": lambda rng, shape: 1.0 * (rng.random(shape) < 0.5),
}
MEANS = {"even": 0.5, "rare loss": 0.999, "rare gain": 1e-3, "no variance": 2.0, "coin": 0.5}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("runs", [30, 400])
def test_a_bound_is_false_no_more_often_than_its_level(name, runs):
    sample = LAWS[name](np.random.default_rng(7), (runs, 300))
    below = betting_lower(sample, 0.0, 0.1)
    # Thirty are expected at most; 51 have a chance below one in 10,000.
    assert (below > MEANS[name] + 1e-12).sum() <= 50
    assert (below >= 0).all()
    assert (below <= sample.mean(axis=0) + 1e-12).all()
    if name != "no variance":
        assert (betting_upper(sample, 1.0, 0.1) < MEANS[name] - 1e-12).sum() <= 50
        checked = bernstein_lower(sample, 0.0, 1.0, 0.1)
        assert (checked > MEANS[name] + 1e-12).sum() <= 50


def test_draws_that_are_all_alike_leave_what_was_never_met():
    """With chance p all draws are x, else 0: none is met with chance (1 - p)^N = alpha."""
    alpha, runs = 0.05, 1000
    least = (1 - alpha ** (1 / runs)) * 3.0
    width = 3.0 - betting_lower(np.full(runs, 3.0), 0.0, alpha)
    assert least <= width <= 1.6 * least


def test_bounds_move_with_the_unit_and_the_origin():
    x = np.random.default_rng(1).random(200)
    plain = betting_lower(x, 0.0, 0.05)
    np.testing.assert_allclose(betting_lower(1e-300 * x, 0.0, 0.05), 1e-300 * plain, rtol=1e-9)
    np.testing.assert_allclose(betting_lower(1e200 * x, 0.0, 0.05), 1e200 * plain, rtol=1e-9)
    np.testing.assert_allclose(betting_lower(x - 5, -5.0, 0.05), plain - 5, rtol=1e-9)
    np.testing.assert_allclose(-betting_upper(-x, 0.0, 0.05), plain)
    assert betting_lower(np.zeros(10), 0.0, 0.05) == 0.0


def test_more_wealth_before_a_draw_is_more_after_it():
    """So that what is left is a half line: guesses above one that is not ruled out are neither."""
    x = np.random.default_rng(3).pareto(1.5, (60, 1))
    guess = np.linspace(0.0, 3.0, 500)[:, None]
    won = _wins(x, guess, _pace(x), np.array([0.3]))[:, 0]
    assert won[0]
    assert (np.diff(won.astype(int)) <= 0).all()


def test_levels_are_bounded_together_as_each_by_itself():
    x, level = np.random.default_rng(4).random(200), np.array([0.2, 0.05, 1e-4])
    joint = betting_lower(np.broadcast_to(x[:, None], (200, 3)), 0.0, level)
    each = [betting_lower(x, 0.0, float(one)) for one in level]
    np.testing.assert_allclose(joint, each, atol=2e-3 * (x.mean() - min(each)))
    assert (np.diff(joint) < 0).all()


def test_betting_is_little_wider_than_the_normal_law_says():
    x = np.random.default_rng(2).random((2000, 50))
    normal = 1.645 * x.std(axis=0, ddof=1) / 2000**0.5
    width = x.mean(axis=0) - betting_lower(x, 0.0, 0.05)
    assert width.mean() <= 1.25 * normal.mean()
    assert (width < x.mean(axis=0) - bernstein_lower(x, 0.0, 1.0, 0.05)).all()
