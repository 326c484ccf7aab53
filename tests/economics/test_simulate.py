"""Simulated conversations agree with exact expectations, and lies earn what the audit says."""

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market

STANDARD_ERRORS = 5.0
COUNT = 40_000


def _mechanism(seed: int, **options):
    market = random_market(np.random.default_rng(seed), **options)
    policy = dm.solve_efficient_policy(dm.RecommendationMDP.from_tables(**market))
    return dm.DynamicTeamMechanism(policy)


def _ex_ante(policy, table):
    weights = policy.probability().ravel()
    flat = table.reshape(-1, weights.size)
    return np.where(weights > 0, flat * weights, 0).sum(axis=1)


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {"constant": True, "horizon": 3}),
        (1, {"horizon": 2}),
        (2, {"biased": True, "zeros": 0.3}),
        (3, {"n": 3, "symbols": (2, 2, 1, 2)}),
    ],
)
def test_means_agree_with_exact_expectations(seed, options):
    mechanism = _mechanism(seed, **options)
    policy, audit = mechanism.policy, mechanism.audit()
    records = mechanism.simulate(jax.random.key(seed), COUNT)
    for name, exact in (
        ("payment", audit.budget.payments),
        ("earned", policy.advertiser_value),
        ("payoff", audit.participation),
    ):
        mean, error = records.mean(name)
        assert np.all(np.abs(mean - _ex_ante(policy, exact)) <= STANDARD_ERRORS * error + 1e-12)
    mean, error = records.mean("surplus")
    assert abs(mean - policy.ex_ante_value) <= STANDARD_ERRORS * error
    assert records.settled_at_mean


def test_transfers_of_every_record_follow_the_formula():
    mechanism = _mechanism(4, constant=True)
    records = mechanism.simulate(jax.random.key(0), 200)
    support = mechanism.policy.env.values.support
    n = support.shape[0]
    for k in range(200):
        last = records.action[k, records.length[k] - 1]
        theta = support[np.arange(n), mechanism.policy.profiles.theta[records.profile[k]]]
        if last < n:
            expected = mechanism.payment(theta, int(last), records.estimate[k])
            np.testing.assert_allclose(records.core[k], expected, atol=1e-12)
        else:
            assert np.isnan(records.estimate[k])
            assert not records.core[k].any()


def test_payoff_of_a_liar_is_that_of_the_audit():
    """A witness of period 1 under a biased estimator, played by simulation, earns its gain."""
    mechanism = _mechanism(11, biased=True, constant=True, horizon=2)
    policy, audit = mechanism.policy, mechanism.audit()
    i = int(np.argmax(audit.first_gain))
    assert audit.first_gain[i] > 1e-3
    support = policy.env.values.support[i]
    best, worst_noise = -np.inf, 0.0
    for b, (theta, signals) in enumerate(
        zip(policy.profiles.theta, policy.profiles.signals, strict=True)
    ):
        for value in range(len(support)):
            for symbol in range(policy.env.initial_alphabet[i + 1]):

                def lie(period, true_value, true_symbol, value=value, symbol=symbol):
                    if period > 1:
                        return true_value, true_symbol
                    return np.full_like(true_value, value), np.full_like(true_symbol, symbol)

                told = mechanism.simulate(jax.random.key(5), 4_000, {i: lie}, profile=b)
                true = mechanism.simulate(jax.random.key(5), 4_000, profile=b)
                gain = told.payoff[:, i].mean() - true.payoff[:, i].mean()
                noise = np.hypot(told.mean("payoff")[1][i], true.mean("payoff")[1][i])
                best, worst_noise = max(best, gain), max(worst_noise, noise)
                assert gain <= audit.first_gain[i] + STANDARD_ERRORS * noise + 1e-12, (
                    theta,
                    signals,
                )
    assert best >= audit.first_gain[i] - STANDARD_ERRORS * worst_noise


def test_the_same_key_gives_the_same_records():
    mechanism = _mechanism(6)
    first, second = (mechanism.simulate(jax.random.key(9), 300) for _ in range(2))
    np.testing.assert_array_equal(first.payment, second.payment)
    assert not np.array_equal(first.omega, mechanism.simulate(jax.random.key(8), 300).omega)


def test_frame_is_labelled():
    frame = _mechanism(7).simulate(jax.random.key(0), 5).to_frame()
    assert {"conversation", "advertiser", "payment", "groves_term"} <= set(frame.columns)
    assert len(frame) == 10


def test_bad_strategies_and_counts_are_refused():
    mechanism = _mechanism(8)
    with pytest.raises(dm.InvalidArgument, match="conversations"):
        mechanism.simulate(jax.random.key(0), 0)
    with pytest.raises(dm.OutsideSupport, match="strategies"):
        mechanism.simulate(jax.random.key(0), 5, {"nobody": lambda t, v, s: (v, s)})
    with pytest.raises(dm.OutsideSupport, match="theta indices"):
        mechanism.simulate(jax.random.key(0), 5, {0: lambda t, v, s: (v + 99, s)})
    with pytest.raises(dm.OutsideSupport, match="profile"):
        mechanism.simulate(jax.random.key(0), 5, profile=10_000)
