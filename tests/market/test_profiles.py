"""Profiles that no array of P axes holds are listed."""

import jax
import numpy as np
import pytest

import dynmech as dm


def market(values, horizon=1, initial=()):
    n = len(values.support)
    gamma, omega = np.linspace(0.2, 1.0, n)[:, None], np.array([[-1.0], [0.5], [1.0]])
    return dm.RecommendationMDP(
        gamma,
        dm.TasteGrid(omega, [0.2, 0.3, 0.5]),
        horizon,
        dm.LastShownOnly(dm.Logit(0.5), 0.6),
        dm.SignalStructure(*initial),
        values,
    )


def solve(env, **options):
    return dm.solve_efficient_policy(env, progress=False, **options)


def one(n):
    return dm.Profiles(np.zeros((1, n), int), np.zeros((1, n + 1), int))


def test_sixty_three_axes_with_one_profile_are_solved_without_naming_it():
    env = market(dm.ConstantValues(np.linspace(0.3, 1.0, 31)[:, None]))
    policy = solve(env)
    assert policy.value.shape == (1,)
    assert policy.marginal_value.shape == (31, 1)
    np.testing.assert_array_equal(policy.value, solve(env, initial=one(31)).value)
    assert policy.ex_ante_value == policy.value.item()


def test_only_values_that_can_be_are_listed():
    n, chance = 22, np.tile([1.0, 0.0], (22, 1))
    chance[3], chance[5] = [0.4, 0.6], [0.0, 1.0]
    support = np.linspace(0.3, 1.0, n)[:, None] * [1.0, 2.0]
    policy = solve(market(dm.ConstantValues(support, chance)))
    assert policy.profiles.theta[:, [3, 5]].tolist() == [[0, 1], [1, 1]]
    assert policy.complete
    assert (np.diff(policy.value) >= 0).all()
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.ExAnte())
    mean = policy.marginal_value @ [0.4, 0.6]
    np.testing.assert_allclose(mechanism.groves_total, np.tile(mean[:, None], 2), atol=1e-12)
    where = mechanism.simulate(jax.random.key(0), 2000).profile
    assert abs(where.mean() - 0.6) < 0.05


def test_too_many_are_refused_before_they_are_listed():
    values = dm.ConstantValues(np.linspace(0.3, 1.0, 40)[:, None] * [1.0, 2.0])
    with pytest.raises(dm.TooLarge, match="sample_profiles"):
        solve(market(values))
    alphabet = dm.GaussianSignals(advertisers=1.0, symbols=3)
    with pytest.raises(dm.TooLarge, match="name the profiles"):
        solve(market(dm.ConstantValues(np.ones((40, 1))), initial=(alphabet,)))
