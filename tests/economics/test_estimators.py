"""Settlement signals, the check of Assumption 3, and what estimators do to payments."""

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech._decoders import decode_utilities
from dynmech._estimator_checks import check_assumption_3, purchase_support
from dynmech._estimators import (
    AveragedSettlement,
    ChannelSettlement,
    OracleSettlement,
    PosteriorMeanSettlement,
    QuantisedRatingSettlement,
    StoppedAverageSettlement,
)
from dynmech._payment_moments import payment_distribution, payment_moments
from tests.helpers.markets import histories_of, random_market
from tests.helpers.quantities import market_of, solve

STANDARD_ERRORS = 5.0


def random_channel(rng, tastes, symbols):
    return rng.dirichlet(np.ones(symbols), tastes)


# Settlement signals --------------------------------------------------------------------------


def signals_of(utilities, prior, rng):
    n, m = utilities.shape
    channel = random_channel(rng, m, m + 2)
    cuts = np.sort(rng.normal(size=(n, 4)), axis=1)
    return {
        "rating": dm.RatingSettlement(0.7),
        "oracle": OracleSettlement(),
        "average": AveragedSettlement(2, 3),
        "stopped": StoppedAverageSettlement(1.3, 0.2),
        "channel": ChannelSettlement(channel, decode_utilities(channel, utilities, prior=prior)),
        "symbols": QuantisedRatingSettlement(0.4, cuts),
        "two symbols": QuantisedRatingSettlement(0.4, [0.1]),
        "posterior": PosteriorMeanSettlement(1.1, prior),
    }


KINDS = tuple(signals_of(np.zeros((1, 2)), np.ones(2) / 2, np.random.default_rng(0)))
UNBIASED = ("rating", "oracle", "average", "channel")


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_stated_mean_and_noise(kind):
    rng = np.random.default_rng(12)
    utilities, prior = rng.normal(size=(2, 4)), rng.dirichlet(np.ones(4))
    signal = signals_of(utilities, prior, rng)[kind]
    mean = np.asarray(signal.mean(None, None, utilities))
    noise = np.broadcast_to(np.asarray(signal.noise(utilities), float), mean.shape)
    assert mean.shape == utilities.shape
    assert np.allclose(mean, utilities, rtol=0, atol=1e-12) == (kind in UNBIASED)
    count = 20_000
    product, omega = (np.repeat(x.ravel(), count) for x in np.indices(mean.shape))
    drawn = signal.draw(rng, utilities, product, omega, mean[product, omega]).reshape(-1, count)
    found, spread = drawn.mean(axis=1), drawn.std(axis=1)
    error = noise.ravel() / np.sqrt(count)
    assert (np.abs(found - mean.ravel()) <= STANDARD_ERRORS * error + 1e-12).all()
    fourth = ((drawn - found[:, None]) ** 4).mean(axis=1)
    error = np.sqrt(np.maximum(fourth - spread**4, 0) / count)
    assert (np.abs(spread**2 - noise.ravel() ** 2) <= STANDARD_ERRORS * error + 1e-12).all()


def test_an_average_over_a_number_that_depends_on_the_ratings_is_biased():
    """E = u + sd/2 density((c - u) / sd): 0.1995 sd at c = u."""
    signal = StoppedAverageSettlement(deviation=2.0, threshold=1.0)
    mean = signal.mean(None, None, np.array([[1.0, 100.0]]))
    np.testing.assert_allclose(mean, [[1 + 1 / np.sqrt(2 * np.pi), 100.0]], rtol=1e-12)
    fixed = AveragedSettlement(2.0, 16)
    np.testing.assert_array_equal(fixed.mean(None, None, np.array([[1.0]])), [[1.0]])
    assert fixed.noise() == 0.5


def test_posterior_mean_is_the_integral_of_the_best_guess():
    from scipy.integrate import quad

    u, prior, sd = np.array([[-1.0, 0.4, 6.0]]), np.array([0.5, 0.3, 0.2]), 0.8
    found = np.asarray(PosteriorMeanSettlement(sd, prior).mean(None, None, u))

    def guess(x):
        weight = prior * np.exp(-(((x - u[0]) / sd) ** 2) / 2)
        return weight @ u[0] / weight.sum()

    def mean(center):
        def density(x):
            return np.exp(-(((x - center) / sd) ** 2) / 2) / sd / np.sqrt(2 * np.pi)

        inside = (center - 8 * sd, center + 8 * sd)
        return quad(lambda x: guess(x) * density(x), *inside, epsabs=1e-12, limit=500)[0]

    np.testing.assert_allclose(found[0], [mean(x) for x in u[0]], atol=1e-10)
    # Shrinks to the prior mean, and is right on average over the prior.
    assert prior @ found[0] == pytest.approx(prior @ u[0], abs=1e-10)
    assert found[0, 0] > u[0, 0]
    assert found[0, 2] < u[0, 2]


def test_noise_as_wide_as_the_cells_hides_the_rounding_except_at_the_ends():
    """The documented bias of midpoints: (h / pi) exp(-2 pi^2 sd^2 / h^2) times a sine."""
    cell, sd = 1.0, 0.5
    signal = QuantisedRatingSettlement(sd, np.arange(-10, 10) + 0.5)
    inside = np.linspace(-3, 3, 61)[None]
    bias = np.asarray(signal.mean(None, None, inside)) - inside
    shape = np.sin(2 * np.pi * inside / cell) * np.exp(-2 * np.pi**2 * sd**2)
    np.testing.assert_allclose(np.abs(bias), np.abs(cell / np.pi * shape), atol=1e-8)
    outside = np.array([[25.0]])
    assert signal.mean(None, None, outside)[0, 0] == pytest.approx(10.0)


def test_quantised_ratings_are_decoded_without_bias_when_symbols_suffice():
    u = np.array([[-1.0, 0.3, 2.0]])
    enough = QuantisedRatingSettlement(0.8, [-0.5, 1.0])
    decoder = decode_utilities(enough.channel(u), u)
    assert decoder.unbiased[0]
    assert np.abs(np.asarray(enough.mean(None, None, u)) - u).max() > 0.05
    few = QuantisedRatingSettlement(0.8, [0.3])
    assert not decode_utilities(few.channel(u), u).unbiased[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AveragedSettlement(1.0, 0), dm.InvalidArgument, "count="),
        (lambda: AveragedSettlement(-1.0, 2), dm.InvalidArgument, "deviation="),
        (lambda: AveragedSettlement(np.nan, 2), dm.NotFinite, "deviation="),
        (lambda: StoppedAverageSettlement(0.0, 0.0), dm.InvalidArgument, "deviation="),
        (lambda: StoppedAverageSettlement(1.0, np.inf), dm.NotFinite, "threshold="),
        (lambda: QuantisedRatingSettlement(1.0, [1.0, 1.0]), dm.InvalidArgument, "increase"),
        (lambda: QuantisedRatingSettlement(1.0, []), dm.InvalidArgument, "cuts="),
        (lambda: QuantisedRatingSettlement(1.0, [0.0]).noise(), dm.InvalidArgument, "noise"),
        (lambda: PosteriorMeanSettlement(1.0, [0.5, 0.4]), dm.InvalidProbability, "prior="),
        (lambda: ChannelSettlement([[0.5, 0.4]], [[1.0, 1.0]]), dm.InvalidProbability, "sum to 1"),
        (lambda: ChannelSettlement([[0.5, 0.5]], [[1.0]]), dm.InvalidArgument, r"\(n, Z\)"),
        (lambda: ChannelSettlement([[0.5, 0.5]], [[1.0, np.nan]]), dm.NotFinite, "decoder="),
    ],
)
def test_bad_settlement_signals_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_signals_made_for_another_market_are_refused():
    env = market_of(random_market(np.random.default_rng(0)))
    policy = solve(env)
    for signal in (
        ChannelSettlement(np.full((3, 2), 0.5), np.zeros((2, 2))),
        PosteriorMeanSettlement(1.0, np.ones(3) / 3),
        QuantisedRatingSettlement(1.0, np.zeros((5, 1))),
    ):
        with pytest.raises(dm.InvalidArgument, match=type(signal).__name__):
            dm.DynamicTeamMechanism(policy, estimator=signal)


# Assumption 3 ---------------------------------------------------------------------------------


def test_the_check_finds_the_largest_bias_and_where_it_is():
    case = random_market(np.random.default_rng(1), biased=True, horizon=2)
    env = market_of(case)
    report = check_assumption_3(env)
    n, rows = 2, histories_of(2, 2)
    estimate = np.einsum("jk,hjmk->hjm", case["gamma"], case["estimator"])
    bias = np.where(case["action"][:, :n] > 0, estimate - env.utilities, np.nan)
    np.testing.assert_allclose(report.bias_low, np.nanmin(bias, axis=(0, 2)), atol=1e-13)
    np.testing.assert_allclose(report.bias_high, np.nanmax(bias, axis=(0, 2)), atol=1e-13)
    assert not report.unbiased.any()
    assert not report.reads_reports
    for j, witness in enumerate(report.witness):
        h = rows.index(tuple(n if r == -1 else r for r in witness.history))
        assert witness.product == env.names[j]
        assert witness.bias == pytest.approx(bias[h, j, witness.taste], abs=1e-13)
        assert abs(witness.bias) == pytest.approx(report.largest_bias[j])
        assert witness.chance == pytest.approx(case["action"][h, j, witness.taste])
        np.testing.assert_array_equal(witness.point, case["omega"][witness.taste])
        seen = np.where(case["action"][:, j] > 0, estimate[:, j], np.nan)
        spread = (np.nanmax(seen, axis=0) - np.nanmin(seen, axis=0)).max()
        assert report.history_spread[j] == pytest.approx(spread, abs=1e-13)
    assert "FAILS" in report.summary()
    assert witness.sentence() in report.to_frame()["witness"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_unbiased_signals_pass_and_biased_ones_fail(kind):
    rng = np.random.default_rng(7)
    env = market_of(random_market(rng))
    prior = np.asarray(env.tastes.weights)
    report = check_assumption_3(env, signals_of(env.utilities, prior, rng)[kind])
    assert report.unbiased.all() == (kind in UNBIASED)
    assert ("HOLDS" in report.summary()) == (kind in UNBIASED)
    assert (report.incentive_bound <= 1e-12) == (kind in UNBIASED)
    np.testing.assert_array_equal(report.history_spread, 0.0)


def test_bias_where_nobody_buys_is_no_bias():
    """Taste 0 has prior zero; product 1 is never bought at taste 1."""
    case = random_market(np.random.default_rng(2), m=3)
    case["prior"] = np.array([0.0, 0.5, 0.5])
    case["action"][:, 2] += case["action"][:, 1]
    case["action"][:, 1, 1] = 0.0
    case["action"][:, 2] = 1 - case["action"][:, [0, 1, 3]].sum(axis=1)
    for taste, product in ((0, slice(None)), (1, 1)):
        case["estimator"][:, product, taste] += 100.0
    env = market_of(case)
    assert check_assumption_3(env).unbiased.all()
    support = purchase_support(env)
    assert support[:, 0].tolist() == [0, 0]
    assert support[1, 1] == 0
    assert (support[:, 2] > 0).all()
    assert (support <= 1).all()


def test_an_estimator_that_reads_reports_is_caught():
    env = market_of(random_market(np.random.default_rng(3), K=2))
    utilities, support = env.utilities, env.values.support

    def honest(theta, signals, memory, recommendation):
        return utilities

    def bribed(theta, signals, memory, recommendation):
        return utilities + 0.1 * support[0, theta[0]] + 0.2 * signals[0]

    policy = solve(env, initial=env.sample_profiles(jax.random.key(0), 3))
    for market in (env, policy, dm.DynamicTeamMechanism(policy)):
        clean = check_assumption_3(market, honest)
        assert clean.unbiased.all()
        assert clean.reads_reports
        np.testing.assert_array_equal(clean.report_spread, 0.0)
        report = check_assumption_3(market, bribed)
        # The platform's own signal is no report: moving with it alone is bias, not dependence.
        gap = 0.1 * np.ptp(support[0])
        np.testing.assert_allclose(report.report_spread, gap, rtol=1e-9)
        assert report.largest_bias.max() == pytest.approx(0.2 + 0.1 * support[0, 1])
        assert report.witness[0].reports[0][0] == 1
        assert report.estimator == "bribed"


def test_tables_of_tastes_must_stay_in_the_span_of_the_grid():
    case = random_market(np.random.default_rng(4), k=3)
    case["omega"][:, 2] = 1.0  # a constant, as in the car market
    env = market_of(case)
    points = np.asarray(env.tastes.points)
    assert check_assumption_3(env, points).unbiased.all()
    shrunk = points.mean(axis=0) + 0.5 * (points - points.mean(axis=0))
    report = check_assumption_3(env, np.broadcast_to(shrunk, (2, *points.shape)))
    assert not report.unbiased.any()
    with pytest.raises(dm.InvalidArgument, match="affine span of the taste grid"):
        check_assumption_3(env, 0.9 * points)


@pytest.mark.parametrize(
    ("estimator", "error"),
    [
        (np.zeros((7, 2)), dm.InvalidArgument),
        (np.full((4, 2), np.nan), dm.NotFinite),
        ("rating", dm.InvalidArgument),
        (lambda theta, signals, memory, recommendation: np.zeros((3, 3)), dm.InvalidArgument),
        (lambda theta, signals, memory, recommendation: np.full((2, 4), np.nan), dm.NotFinite),
    ],
)
def test_bad_estimators_are_refused_by_name(estimator, error):
    env = market_of(random_market(np.random.default_rng(5)))
    with pytest.raises(error, match=r"check_assumption_3\(estimator="):
        check_assumption_3(env, estimator)


# Incentives ------------------------------------------------------------------------------------

MARKETS = [
    (seed, options)
    for seed in range(4)
    for options in ({}, {"constant": True, "horizon": 3, "symbols": (2, 1, 1)}, {"recall": "last"})
]


@pytest.mark.parametrize(("seed", "options"), MARKETS)
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
