"""Comparators: each settlement's payoff, gains and payment variance, against hand computation."""

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market

WAYS = dm.settlement


def _mechanism(seed=0, **options):
    market = random_market(np.random.default_rng(seed), **options)
    policy = dm.solve_efficient_policy(dm.RecommendationMDP.from_tables(**market))
    return dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())


@pytest.fixture(scope="module")
def table():
    return dm.compare(_mechanism(0)).to_frame().set_index("settlement")


def test_the_table_refutes_every_comparator_and_clears_the_mechanism(table):
    assert table.loc["Estimator", "largest_gain"] <= 1e-9
    others = table.drop(index="Estimator")
    assert set(others.index) == {
        "MessageDriven", "PerPurchaseSecondPrice", "GeneralizedSecondPrice", "NoTransfers",
    }  # fmt: skip
    assert (others["largest_gain"] > 1e-3).all()
    assert others["witness"].str.contains("gains").all()


def test_without_transfers_advertisers_keep_what_they_earn(table):
    assert table.loc["NoTransfers", "revenue"] == pytest.approx(0, abs=1e-12)
    assert table.loc["NoTransfers", "payment_sd"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("way", [WAYS.PerPurchaseSecondPrice(), WAYS.GeneralizedSecondPrice()])
def test_prices_per_purchase_in_a_one_round_market_by_hand(way):
    """One round: payments are the price times the probability of the purchase."""
    mechanism = _mechanism(3, horizon=1, constant=True)
    policy, env = mechanism.policy, mechanism.policy.env
    audit = mechanism.audit(way)
    n = env.products
    for b in range(len(policy.profiles)):
        theta = env.values.support[np.arange(n), policy.profiles.theta[b]]
        belief = policy.plan.root[policy.pairs.root[policy.pairs.base[b]]]
        belief = belief / belief.sum()
        control = policy.plan.actions[0][policy.pairs.base[b], 0]
        expected = np.zeros(n)
        if control < n:
            edge = policy.plan.edge(0, np.array([0]), np.array([control]))[0]
            mean = env.utilities @ belief
            for j in range(n):
                rivals = [k for k in range(n) if k != j]
                price = max(theta[rivals])
                if isinstance(way, WAYS.GeneralizedSecondPrice):
                    price = max(0.0, max(theta[rivals] + mean[rivals]) - mean[j])
                expected[j] = price * (belief @ policy.compiled.actions(np.array([edge]))[0, j])
        paid = audit.budget.payments.reshape(n, -1)[:, b]
        np.testing.assert_allclose(paid, expected, atol=1e-12)


@pytest.mark.parametrize("options", [{"constant": True}, {"horizon": 3}])
def test_payment_variance_agrees_with_simulation(options):
    """At the mean of the settlement: noise of zero, so that the variance is exact."""
    market = random_market(np.random.default_rng(5), **options)
    env = dm.RecommendationMDP.from_tables(**market)
    env = dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule,
        dm.SignalStructure(env.signals.initial, env.signals.feedback, dm.RatingSettlement(0.7)),
        env.values,
    )  # fmt: skip
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(env))
    variance = mechanism.audit().budget.payment_variance.reshape(2, -1)
    records = mechanism.simulate(jax.random.key(1), 100_000, profile=2)
    drawn = records.core.var(axis=0, ddof=1)
    fourth = ((records.core - records.core.mean(0)) ** 4).mean(0)
    error = np.sqrt((fourth - drawn**2) / len(records.core))
    assert (np.abs(variance[:, 2] - drawn) <= 5 * error).all()


@pytest.mark.slow
def test_every_comparator_is_refuted_on_the_car_market_in_a_sentence():
    """Real cars, advertisers with private readings before and after a query."""
    market = dm.applications.cars(year=1990, products=4, tastes=60, selection="segments")
    signals = dm.SignalStructure(
        dm.GaussianSignals(platform=30.0, advertisers=60.0),
        dm.RatingFeedback(noise=5.0, advertisers=20.0, symbols=3),
        settlement=dm.RatingSettlement(5.0),
    )
    rule = dm.LastShownOnly(choice=dm.Logit(market.taste_scale), query=0.9)
    values = dm.ConstantValues(market.theta[:, None] * [0.8, 1.0, 1.2])
    env = dm.RecommendationMDP(market.gamma, market.tastes, 2, rule, signals, values, market.names)
    drawn = env.sample_profiles(jax.random.key(0), 4)
    policy = dm.solve_efficient_policy(env, initial=drawn, progress=False)
    honest, *others = dm.compare(dm.DynamicTeamMechanism(policy)).audits
    assert honest.incentive_gain.max() <= honest.tolerance
    assert len(others) == 4
    for audit in others:
        worst = int(audit.incentive_gain.argmax())
        assert audit.incentive_gain[worst] > 0.3, audit.settlement
        sentence = audit.witness[worst].sentence()
        assert market.names[worst] in sentence
        assert "gains" in sentence
        assert "instead of" in sentence
