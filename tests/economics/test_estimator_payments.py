"""What estimators do to incentives and to payments."""

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.audit.estimators import check_assumption_3, purchase_support
from dynmech.estimators.decoders import decode_utilities
from dynmech.estimators.posterior_mean import PosteriorMeanSettlement
from dynmech.estimators.settlement_signals import (
    AveragedSettlement,
    ChannelSettlement,
    OracleSettlement,
)
from dynmech.mechanism.payment_moments import payment_distribution, payment_moments
from tests.helpers.few import few
from tests.helpers.markets import histories_of, random_market
from tests.helpers.quantities import market_of, solve
from tests.helpers.settlements import KINDS, random_channel, signals_of

STANDARD_ERRORS = 5.0

# Incentives ------------------------------------------------------------------------------------

MARKETS = [
    (seed, options)
    for seed in range(4)
    for options in ({}, {"constant": True, "horizon": 3, "symbols": (2, 1, 1)}, {"recall": "last"})
]


@pytest.mark.parametrize(("seed", "options"), few(MARKETS, 6))
def test_the_bound_covers_every_gain_the_audit_finds(seed, options):
    case = random_market(np.random.default_rng([41, seed]), biased=True, **options)
    env = market_of(case)
    policy = solve(env)
    rng = np.random.default_rng(seed)
    prior = np.asarray(env.tastes.weights)
    channel = random_channel(rng, env.tastes.size, 2)
    chance = purchase_support(env)
    decoders = [
        decode_utilities(channel, env.utilities, chance, prior),
        decode_utilities(channel, env.utilities, chance > 0, prior),
        decode_utilities(channel, env.utilities, chance, prior, fallback="least squares"),
    ]
    gains = []
    for signal, most in [
        (env.signals.settlement, np.inf),
        (PosteriorMeanSettlement(1.0, prior), np.inf),
        *((ChannelSettlement(channel, d), d.incentive_bound) for d in decoders),
    ]:
        mechanism = dm.DynamicTeamMechanism(policy, estimator=signal)
        gain = mechanism.audit().incentive_gain.max()
        report = check_assumption_3(mechanism)
        assert gain <= report.incentive_bound + 1e-12
        if signal is env.signals.settlement:  # whole strategies too
            assert mechanism.best_response().gain.max() <= report.incentive_bound + 1e-12
        assert report.incentive_bound <= 2 * np.nanmax(report.largest_bias) + 1e-12
        assert report.incentive_bound <= most + 1e-9
        gains.append(gain)
    assert max(gains) > 1e-4  # else nothing was put to the test


@pytest.mark.parametrize("seed", range(3))
def test_unbiased_decoders_make_truth_optimal(seed):
    rng = np.random.default_rng([43, seed])
    env = market_of(random_market(rng, biased=True))
    policy = solve(env)
    channel = random_channel(rng, env.tastes.size, 5)
    decoder = decode_utilities(channel, env.utilities, purchase_support(env))
    audit = dm.DynamicTeamMechanism(policy, estimator=ChannelSettlement(channel, decoder)).audit()
    assert decoder.unbiased.all()
    assert audit.incentive_gain.max() <= audit.tolerance
    assert dm.DynamicTeamMechanism(policy).audit().incentive_gain.max() > 1e-3


def test_the_bound_is_attained():
    """Two equal products, bought for certain; settled at -b and +b: a lie turns one into the other.

    theta_0 = 1 and theta_1 in {1, 2}, u = 0, one round. At (1, 1) the tie goes to product 0 and
    everyone gets 1 - b; if advertiser 1 reports 2, product 1 is shown and everyone gets 1 + b.
    """
    b = 0.25
    histories = histories_of(2, 1)
    action = np.zeros((3, 4, 1))
    for row, (r,) in enumerate(histories):
        action[row, min(r, 2)] = 1.0
    env = dm.RecommendationMDP.from_tables(
        np.eye(2), np.zeros((1, 2)), np.ones(1), 1, action,
        np.ones((3, 1, 1, 1, 1)), np.ones((1, 1, 1, 1)),
        np.array([[1.0, 1.0], [1.0, 2.0]]), np.full((2, 2), 0.5),
        np.broadcast_to(np.eye(2), (3, 2, 2, 2)).copy(),
    )  # fmt: skip
    channel = np.ones((1, 1))
    signal = ChannelSettlement(channel, np.array([[-b], [b]]))
    audit = dm.DynamicTeamMechanism(solve(env), estimator=signal).audit()
    report = check_assumption_3(env, signal)
    assert audit.incentive_gain[1] == pytest.approx(2 * b, abs=1e-12)
    assert report.incentive_bound == pytest.approx(2 * b, abs=1e-12)


def test_a_signal_of_the_market_and_of_the_mechanism_settle_alike():
    rng = np.random.default_rng(51)
    case = random_market(rng)
    env = market_of(case)
    channel = random_channel(rng, 4, 2)
    decoder = decode_utilities(channel, env.utilities, purchase_support(env))
    signal = ChannelSettlement(channel, decoder)
    inside = dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule,
        dm.SignalStructure(env.signals.initial, env.signals.feedback, signal), env.values,
    )  # fmt: skip
    one = dm.DynamicTeamMechanism(solve(inside))
    other = dm.DynamicTeamMechanism(solve(env), estimator=signal)
    for name in ("incentive_gain", "participation", "no_subsidy"):
        found = [getattr(mechanism.audit(), name) for mechanism in (one, other)]
        np.testing.assert_allclose(found[0], found[1], atol=1e-12)


# Payments --------------------------------------------------------------------------------------


def over_profiles(policy, table):
    weights = policy.probability().ravel()
    return np.where(weights > 0, table.reshape(-1, weights.size) * weights, 0).sum(axis=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rating", {}),
        ("channel", {"constant": True, "horizon": 3, "symbols": (2, 1, 1)}),
        ("symbols", {"zeros": 0.3, "initial_symbols": (2, 3, 2)}),
        ("posterior", {"recall": "last"}),
    ],
)
def test_simulated_payments_have_the_exact_mean_and_variance(kind, options):
    rng = np.random.default_rng([61, KINDS.index(kind)])
    env = market_of(random_market(rng, **options))
    signal = signals_of(env.utilities, np.asarray(env.tastes.weights), rng)[kind]
    mechanism = dm.DynamicTeamMechanism(solve(env), dm.groves.NoSubsidy(), signal)
    moments = payment_moments(mechanism)
    np.testing.assert_allclose(
        moments.overall_mean[:2],
        over_profiles(mechanism.policy, mechanism.audit().budget.payments),
        atol=1e-12,
    )
    np.testing.assert_allclose(moments.overall_mean[2], moments.overall_mean[:2].sum(), atol=1e-12)
    audited = mechanism.audit().budget.payment_variance
    np.testing.assert_allclose(moments.variance[:2], audited, atol=1e-12)
    records = mechanism.simulate(jax.random.key(1), 60_000)
    assert not records.settled_at_mean
    assert not moments.settled_at_mean
    paid = np.column_stack([records.payment, records.payment.sum(axis=1)])
    spread, count = paid.var(axis=0), len(paid)
    error = np.sqrt(spread / count)
    assert (np.abs(paid.mean(axis=0) - moments.overall_mean) <= STANDARD_ERRORS * error).all()
    fourth = ((paid - paid.mean(axis=0)) ** 4).mean(axis=0)
    error = np.sqrt((fourth - spread**2) / count)
    assert (np.abs(spread - moments.overall_variance) <= STANDARD_ERRORS * error).all()
    mean, error = records.mean("payoff")
    exact = over_profiles(mechanism.policy, mechanism.audit().participation)
    assert (np.abs(mean - exact) <= STANDARD_ERRORS * error).all()


def test_totals_that_read_the_taste_add_to_the_variance_and_covary():
    case = random_market(np.random.default_rng(63), constant=True)
    policy = solve(market_of(case))
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.DataDriven(), dm.RatingSettlement(0.3))
    moments = payment_moments(mechanism)
    np.testing.assert_allclose(
        moments.overall_mean[:2],
        over_profiles(policy, mechanism.audit().budget.payments),
        atol=1e-10,
    )
    records = mechanism.simulate(jax.random.key(3), 60_000)
    paid = np.column_stack([records.payment, records.payment.sum(axis=1)])
    spread = paid.var(axis=0)
    fourth = ((paid - paid.mean(axis=0)) ** 4).mean(axis=0)
    error = np.sqrt((fourth - spread**2) / len(paid))
    assert (np.abs(spread - moments.overall_variance) <= STANDARD_ERRORS * error).all()
    fixed = payment_moments(dm.DynamicTeamMechanism(policy, None, dm.RatingSettlement(0.3)))
    assert (np.abs(moments.overall_variance - fixed.overall_variance) > 10 * error).any()


def test_averages_cut_the_noise_of_payments_by_their_number_and_leave_the_rest():
    policy = solve(market_of(random_market(np.random.default_rng(71))))
    bought = over_profiles(policy, policy.purchase).sum()

    def moments(signal):
        return payment_moments(dm.DynamicTeamMechanism(policy, estimator=signal))

    still = moments(OracleSettlement())
    np.testing.assert_array_equal(still.overall_noise_variance, 0.0)
    for count in (1, 2, 8):
        found = moments(AveragedSettlement(1.5, count))
        noise = found.overall_noise_variance
        np.testing.assert_allclose(noise[:2], 1.5**2 / count * bought, rtol=1e-12)
        np.testing.assert_allclose(noise[2], 4 * noise[0], rtol=1e-12)
        np.testing.assert_allclose(found.overall_mean, still.overall_mean, atol=1e-12)
        np.testing.assert_allclose(found.overall_variance - noise, still.overall_variance)


def test_tables_of_payments_are_labelled_and_consistent():
    case = random_market(np.random.default_rng(81), horizon=1)
    mechanism = dm.DynamicTeamMechanism(solve(market_of(case)), estimator=dm.RatingSettlement(0.5))
    frame = payment_distribution(mechanism, jax.random.key(2), 5_000, quantiles=(0.1, 0.5))
    assert frame["who"].tolist()[::3] == ["product 0", "product 1", "revenue"]
    assert {"q10", "q50", "mean", "variance", "exact_variance"} <= set(frame.columns)
    records = mechanism.simulate(jax.random.key(2), 5_000)
    again = payment_distribution(records, quantiles=(0.1, 0.5))
    columns = ["mean", "variance", "q10", "q50"]
    np.testing.assert_array_equal(frame[columns], again[columns])
    assert again["exact_mean"].isna().all()
    paid = frame[frame["transfer"] == "payment"]
    assert (np.abs(paid["mean"] - paid["exact_mean"]) <= 5 * paid["standard_error"]).all()
    np.testing.assert_allclose(paid["q50"].to_numpy()[:2], np.median(records.payment, axis=0))
    unknown = dm.DynamicTeamMechanism(mechanism.policy)
    assert payment_moments(unknown).settled_at_mean
    batch = solve(market_of(case), initial=mechanism.policy.profiles)
    even = payment_moments(dm.DynamicTeamMechanism(batch, estimator=dm.RatingSettlement(0.5)))
    np.testing.assert_allclose(
        even.mean, payment_moments(mechanism).mean.reshape(3, -1), atol=1e-12
    )
    with pytest.raises(dm.InvalidArgument, match="key="):
        payment_distribution(mechanism)
    with pytest.raises(dm.InvalidArgument, match="quantiles="):
        payment_distribution(records, quantiles=(1.5,))
