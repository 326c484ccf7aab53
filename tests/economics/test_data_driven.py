"""Totals that read the estimate: both constraints at once wherever any function allows it."""

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market


def _mechanism(seed: int, groves, **options):
    market = random_market(np.random.default_rng(seed), **options)
    policy = dm.solve_efficient_policy(dm.RecommendationMDP.from_tables(**market))
    return dm.DynamicTeamMechanism(policy, groves=groves)


@pytest.mark.parametrize("options", [{}, {"m": 3, "symbols": (2, 4, 4)}, {"zeros": 0.3}])
@pytest.mark.parametrize("seed", range(3))
def test_both_constraints_hold_wherever_the_program_says_so(seed, options):
    groves = dm.groves.DataDriven()
    mechanism = _mechanism(seed, groves, **options)
    audit, room = mechanism.audit(), groves.compare(mechanism.own)
    count, n = len(mechanism.policy.profiles), mechanism.policy.env.products
    slack = np.fmin(audit.participation, audit.no_subsidy).reshape(n, count).T
    known = np.isfinite(slack)
    assert (slack[known] >= room.data_driven[known] - 1e-9).all()
    assert (room.data_driven[known] >= room.fixed[known] - 1e-9).all()
    assert audit.incentive_gain.max() <= audit.tolerance


def test_it_opens_more_profiles_than_a_fixed_total():
    fixed, driven = [], []
    for seed in range(8):
        groves = dm.groves.DataDriven()
        shares = groves.compare(_mechanism(seed, groves).own).shares()
        fixed.append(shares[0])
        driven.append(shares[1])
    assert np.mean(driven) > np.mean(fixed) + 0.05


def test_expectation_does_not_depend_on_the_own_value_and_only_via_the_own_signal():
    """E[f | s] is linear in the posterior: the total is f's mean at each profile."""
    groves = dm.groves.DataDriven()
    mechanism = _mechanism(4, groves)
    own, function = mechanism.own, groves.function(mechanism.own)
    total = mechanism.groves_total.reshape(2, -1).T
    expected = np.einsum("bnm,bnm->bn", function, own.posterior())
    np.testing.assert_allclose(total, expected, atol=1e-12)
    table = mechanism.groves_total[0]
    np.testing.assert_allclose(table[0], table[1], atol=1e-9)


def test_a_constant_function_gives_the_middle_of_the_fixed_window():
    groves = dm.groves.DataDriven(functions=np.ones((4, 1)))
    mechanism = _mechanism(5, groves)
    room = groves.compare(mechanism.own)
    np.testing.assert_allclose(room.data_driven, room.fixed, atol=1e-9)


def test_program_and_closed_form_agree_where_posteriors_are_independent():
    from dynmech.payments.data_driven import _program

    rng = np.random.default_rng(0)
    low = rng.normal(size=3)
    high = low + rng.normal(size=3)
    _, slack = _program(np.eye(3), low, high, np.ones(3) / 3, "slack")
    assert slack == pytest.approx(((high - low) / 2).min(), abs=1e-9)


def test_revenue_charges_the_lowest_payoff_of_each_signal_when_both_can_hold():
    """With independent posteriors the signals decouple: at each, the ceiling is charged."""
    groves = dm.groves.DataDriven(objective="revenue")
    mechanism = _mechanism(6, groves)
    own = mechanism.own
    room = groves.compare(own).data_driven
    ceiling = np.take_along_axis(own.payoff.min(axis=2), own.signal[:, :, None], axis=2)[:, :, 0]
    total = mechanism.groves_total.reshape(2, -1).T
    assert (room >= 0).any()
    np.testing.assert_allclose(total[room >= 0], ceiling[room >= 0], atol=1e-9)


def test_simulated_totals_average_to_the_expectation():
    mechanism = _mechanism(7, dm.groves.DataDriven(), constant=True)
    records = mechanism.simulate(jax.random.key(0), 60_000, profile=3)
    mean, error = records.mean("groves")
    expected = mechanism.groves_total.reshape(2, -1)[:, 3]
    assert (np.abs(mean - expected) <= 5 * error + 1e-12).all()


def test_settling_needs_the_decoded_totals():
    mechanism = _mechanism(7, dm.groves.DataDriven(), constant=True)
    ended = mechanism.policy.start(profile=0).step("exit")
    with pytest.raises(dm.InvalidArgument, match="totals"):
        mechanism.settle(ended)
    ledger = mechanism.settle(ended, totals=np.array([0.25, -0.5]))
    np.testing.assert_allclose(ledger.transfer.sum(0), [0.25, -0.5])


def test_bad_arguments_are_refused():
    with pytest.raises(dm.InvalidArgument, match="objective"):
        dm.groves.DataDriven(objective="luck")
    with pytest.raises(dm.InvalidArgument, match="functions"):
        _mechanism(0, dm.groves.DataDriven(functions=np.ones((3, 2))))
