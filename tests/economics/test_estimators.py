"""Settlement signals, and the check of Assumption 3."""

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
    QuantisedRatingSettlement,
    StoppedAverageSettlement,
)
from tests.helpers.markets import histories_of, random_market
from tests.helpers.quantities import market_of, solve
from tests.helpers.settlements import KINDS, UNBIASED, signals_of

STANDARD_ERRORS = 5.0

# Settlement signals --------------------------------------------------------------------------


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
