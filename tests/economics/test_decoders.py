"""Decoders of a finite channel: unbiased where possible, provably least biased elsewhere."""

import numpy as np
import pytest

import dynmech as dm
from dynmech.estimators.decoders import decode_tastes, decode_utilities
from dynmech.estimators.settlement_signals import QuantisedRatingSettlement

EPS = np.finfo(float).eps
SLACK = 1e-3  # what a decoder may exceed the least bias by, to be less noisy


def random_channel(rng, tastes, symbols):
    return rng.dirichlet(np.ones(symbols), tastes)


@pytest.mark.parametrize(("high", "low"), [(0.9, 0.2), (0.51, 0.49), (1.0, 0.0)])
def test_binary_channel_is_decoded_in_closed_form(high, low):
    """(a, 1-a), (b, 1-b): v = ((1-b) u0 - (1-a) u1, a u1 - b u0) / (a - b)."""
    u = np.array([[2.0, -0.5], [-1.0, 3.0]])
    decoder = decode_utilities([[high, 1 - high], [low, 1 - low]], u)
    first = (1 - low) * u[:, 0] - (1 - high) * u[:, 1]
    second = high * u[:, 1] - low * u[:, 0]
    expected = np.stack([first, second], axis=1) / (high - low)
    assert decoder.unbiased.all()
    np.testing.assert_allclose(decoder.values, expected, rtol=1e-12)
    assert (decoder.largest_bias <= decoder.tolerance).all()
    # Var = a (1 - a) (v0 - v1)^2 at each taste.
    odds = np.array([high * (1 - high), low * (1 - low)])
    gap = (expected[:, 0] - expected[:, 1]) ** 2
    np.testing.assert_allclose(decoder.variance, gap[:, None] * odds, rtol=1e-9, atol=1e-12)
    assert decoder.incentive_bound <= 4 * decoder.tolerance.max()


@pytest.mark.parametrize("seed", range(5))
def test_no_other_unbiased_decoder_has_less_variance(seed):
    rng = np.random.default_rng(seed)
    channel, u = random_channel(rng, 4, 9), rng.normal(size=(3, 4))
    prior = rng.dirichlet(np.ones(4))
    decoder = decode_utilities(channel, u, prior=prior)
    assert decoder.unbiased.all()
    null = np.linalg.svd(channel)[2][4:]
    for j in range(3):
        for _ in range(200):
            other = decoder.values[j] + rng.normal(size=5) * 10 ** rng.uniform(-3, 1) @ null
            mean = channel @ other
            np.testing.assert_allclose(mean, u[j], atol=1e-12)
            variance = prior @ ((channel * other**2).sum(1) - mean**2)
            assert variance >= decoder.expected_variance[j] - 1e-12
    # Stationarity: the weighted decoder is orthogonal to every direction that keeps it unbiased.
    np.testing.assert_allclose(null @ ((prior @ channel) * decoder.values).T, 0, atol=1e-13)


def test_symbols_that_mean_the_same_are_settled_alike():
    """Splitting a symbol by a coin adds solutions, and only noise: least variance ignores it."""
    rng = np.random.default_rng(8)
    channel, u = random_channel(rng, 3, 3), rng.normal(size=(1, 3))
    split = np.column_stack([channel, 0.3 * channel[:, 0]])
    split[:, 0] *= 0.7
    plain, found = decode_utilities(channel, u), decode_utilities(split, u)
    np.testing.assert_allclose(found.values[0, :3], plain.values[0], rtol=1e-10)
    np.testing.assert_allclose(found.values[0, 3], plain.values[0, 0], rtol=1e-10)
    np.testing.assert_allclose(found.expected_variance, plain.expected_variance, rtol=1e-10)


def test_an_uninformative_channel_loses_all_but_the_mean():
    u = np.array([[1.0, 4.0, -3.0, 0.0]])
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    decoder = decode_utilities(np.full((4, 3), 1 / 3), u, prior=prior)
    assert not decoder.unbiased[0]
    assert decoder.rank[0] == 1
    mean = prior @ u[0]
    np.testing.assert_allclose(decoder.lost[0], u[0] - mean, atol=1e-14)
    spread = np.sqrt(prior @ (u[0] - mean) ** 2)
    np.testing.assert_allclose(decoder.lost_norm, spread, rtol=1e-13)
    # Least bias: the middle of the range; the proof is the two ends of the range.
    np.testing.assert_allclose(decoder.least_bias, 3.5, rtol=1e-9)
    np.testing.assert_allclose(decoder.values, 0.5, atol=SLACK * 3.5)
    np.testing.assert_allclose(decoder.largest_bias, 3.5, rtol=SLACK)
    np.testing.assert_allclose(decoder.mixtures[0], np.eye(4)[[2, 1]], atol=1e-9)
    assert decoder.confused(0, most=2).tolist() == [[2, 1], [2, 0]]
    squares = decode_utilities(np.full((4, 3), 1 / 3), u, prior=prior, fallback="least squares")
    np.testing.assert_allclose(squares.values, mean, atol=1e-13)


def test_mixtures_are_confused_where_no_two_tastes_are():
    """The middle row is the mean of the outer rows: c = (1, -2, 1) is lost, |c'u| / 4 the bias."""
    channel = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    u = np.array([[0.0, 3.0, 1.0], [0.0, 0.5, 1.0]])
    decoder = decode_utilities(channel, u)
    assert decoder.unbiased.tolist() == [False, True]
    assert len(decoder.confused(0)) == 0
    np.testing.assert_allclose(decoder.lost[0], -5.0 / 6 * np.array([1, -2, 1]), atol=1e-14)
    np.testing.assert_allclose(decoder.lost_norm[0], 5 / np.sqrt(18), rtol=1e-13)
    np.testing.assert_allclose(decoder.mixtures[0], [[0.5, 0, 0.5], [0, 1, 0]], atol=1e-9)
    np.testing.assert_allclose(decoder.bias[0], [1.25, -1.25, 1.25], rtol=5 * SLACK)
    np.testing.assert_allclose(decoder.least_bias[0], 1.25, rtol=1e-9)
    assert decoder.incentive_bound == pytest.approx(2.5, rel=2 * SLACK)
    np.testing.assert_array_equal(decoder.lost[1], 0.0)
    assert np.isnan(decoder.mixtures[1]).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_least_bias_is_proved_by_duality_and_beats_other_decoders(seed, weighted):
    rng = np.random.default_rng([seed, weighted])
    channel, u = random_channel(rng, 9, 4), rng.normal(size=(2, 9))
    chance = rng.uniform(0.05, 1, (2, 9)) if weighted else np.ones((2, 9))
    decoder = decode_utilities(channel, u, chance if weighted else None)
    worst = np.abs(chance * decoder.bias).max(axis=1)
    assert (worst >= decoder.least_bias * (1 - 1e-9)).all()
    assert (worst <= decoder.least_bias * (1 + SLACK * (1 + 1e-6))).all()
    low, high = decoder.mixtures[:, 0], decoder.mixtures[:, 1]
    np.testing.assert_allclose((high - low) @ channel, 0, atol=1e-9)
    np.testing.assert_allclose(decoder.mixtures.sum(axis=2), 1, rtol=1e-12)
    if not weighted:
        gap = ((high - low) * u).sum(axis=1)
        np.testing.assert_allclose(gap / 2, decoder.least_bias, rtol=1e-8)
    squares = decode_utilities(channel, u, chance, fallback="least squares")
    for j in range(2):
        for _ in range(300):
            other = decoder.values[j] + rng.normal(size=4) * 10 ** rng.uniform(-4, 1)
            error = np.abs(chance[j] * (channel @ other - u[j])).max()
            assert error >= decoder.least_bias[j] * (1 - 1e-9)
            assert ((channel @ other - u[j]) ** 2).mean() >= squares.lost_norm[j] ** 2
    np.testing.assert_allclose(squares.bias, -squares.lost, atol=1e-12)
    assert (np.abs(chance * squares.bias).max(axis=1) >= squares.least_bias * (1 - 1e-12)).all()
    assert (squares.least_bias <= worst * (1 + 1e-9)).all()


@pytest.mark.parametrize("seed", range(4))
def test_no_decoder_of_that_bias_has_a_smaller_mean_square_error(seed):
    """Against another solver (SLSQP) on the same convex program."""
    from scipy.optimize import minimize

    rng = np.random.default_rng([seed, 9])
    channel, u = random_channel(rng, 12, 5), rng.normal(size=(1, 12))
    prior, chance = rng.dirichlet(np.ones(12)), rng.uniform(0.1, 1, (1, 12))
    rows = chance[0][:, None] * channel

    def error(v):
        return (prior[:, None] * channel * (v - u[0][:, None]) ** 2).sum()

    least = decode_utilities(channel, u, chance, prior).least_bias[0]
    for allow in (0.0, 1.2 * least, 2 * least, 100.0):
        decoder = decode_utilities(channel, u, chance, prior, allow=allow)
        v, most = decoder.values[0], max(allow, least * (1 + SLACK))
        assert np.abs(rows @ v - chance[0] * u[0]).max() <= most * (1 + 2e-6)
        limits = [
            {"type": "ineq", "fun": lambda x, k=k, t=most: t - k * (rows @ x - chance[0] * u[0])}
            for k in (1, -1)
        ]
        options = {"maxiter": 1000, "ftol": 1e-14}
        other = minimize(error, v, method="SLSQP", constraints=limits, options=options)
        assert other.fun >= error(v) * (1 - 1e-5)
        start = minimize(error, np.zeros(5), method="SLSQP", constraints=limits, options=options)
        if start.success:
            np.testing.assert_allclose(start.fun, error(v), rtol=1e-4)
    # With the constraint out of the way: the posterior mean.
    np.testing.assert_allclose(v, (prior * u[0]) @ channel / (prior @ channel), rtol=1e-8)


def test_least_bias_leaves_what_the_channel_cannot_see_to_least_variance():
    rng = np.random.default_rng(5)
    base, u = random_channel(rng, 7, 3), rng.normal(size=(1, 7))
    channel = np.concatenate([base / 2, base / 2], axis=1)  # three symbols, each split by a coin
    decoder = decode_utilities(channel, u)
    np.testing.assert_allclose(decoder.values[0, :3], decoder.values[0, 3:], atol=1e-9)


def test_only_tastes_that_can_buy_count():
    """Three tastes, two symbols: no decoder for all, one for any two."""
    channel = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    u = np.array([[1.0, 5.0, -1.0]])
    assert not decode_utilities(channel, u).unbiased[0]
    for out in range(3):
        seen = np.arange(3) != out
        decoder = decode_utilities(channel, u, support=seen[None])
        assert decoder.unbiased[0]
        assert np.isnan(decoder.bias[0, out])
        np.testing.assert_allclose(decoder.mean[0, seen], u[0, seen], rtol=1e-12)
        by_prior = decode_utilities(channel, u, prior=seen / 2)
        np.testing.assert_allclose(by_prior.values, decoder.values, rtol=1e-12)
    nobody = decode_utilities(channel, np.vstack([u, u]), support=[[True] * 3, [False] * 3])
    assert nobody.unbiased.tolist() == [False, True]
    np.testing.assert_array_equal(nobody.values[1], 0.0)
    assert np.isfinite(nobody.incentive_bound)


def test_rank_is_judged_at_rounding_and_not_above_it():
    channel = np.array([[0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    same, differ = np.array([[1.0, -1.0, -1.0]]), np.array([[1.0, -1.0, -1.0 + 1e-9]])
    nudged = channel.copy()
    nudged[2] += [-EPS / 4, EPS / 4]  # below the spacing of the numbers: the same row
    assert decode_utilities(nudged, same).unbiased[0]
    assert not decode_utilities(channel, differ).unbiased[0]
    # 1e-6 apart is far above rounding: decodable, at a price in variance that is reported.
    split = np.vstack([np.column_stack([channel, np.zeros(3)])])
    split[2] += [-1e-6, 0, 1e-6]
    decoder = decode_utilities(split, np.array([[1.0, -1.0, 2.0]]))
    assert decoder.unbiased[0]
    assert decoder.expected_variance[0] > 1e6
    single = decode_utilities(channel.astype(np.float32), same)
    assert single.unbiased[0]
    assert single.tolerance[0] > 1e-7


def test_allowing_some_bias_cuts_the_variance():
    """A rating of 24 symbols, 16 tastes: decodable in principle, at an absurd variance."""
    u = np.linspace(-3.0, 3.0, 16)[None] ** 3
    channel = QuantisedRatingSettlement(1.0, np.linspace(-4, 4, 23)).channel(np.cbrt(u))
    amounts = (0.0, 1e-3, 0.1, 2.0)
    found = [decode_utilities(channel, u, allow=x) for x in amounts]
    variance = [float(d.expected_variance[0]) for d in found]
    assert [bool(d.unbiased[0]) for d in found] == [True, False, False, False]
    assert variance == sorted(variance, reverse=True)
    assert variance[0] > 30 * variance[1] > 30 * variance[3]
    for d, most in zip(found[1:], amounts[1:]):
        assert d.largest_bias[0] <= most * (1 + 1e-6)
        np.testing.assert_array_equal(d.lost, 0.0)
        assert np.isnan(d.mixtures).all()
        assert d.least_bias[0] == 0


def test_units_and_constants_pass_through():
    rng = np.random.default_rng(3)
    for symbols in (3, 8):
        channel, u = random_channel(rng, 5, symbols), rng.normal(size=(2, 5))
        plain = decode_utilities(channel, u)
        scaled = decode_utilities(channel, 1e6 * u + 40.0)
        np.testing.assert_allclose(scaled.values, 1e6 * plain.values + 40, rtol=1e-6)
        np.testing.assert_allclose(scaled.lost, 1e6 * plain.lost, rtol=1e-6, atol=1e-6)
        assert (scaled.unbiased == plain.unbiased).all()


def test_decoders_of_all_of_omega_decode_every_utility():
    rng = np.random.default_rng(4)
    channel, grid = random_channel(rng, 5, 7), dm.TasteGrid(rng.normal(size=(5, 3)), np.ones(5) / 5)
    gamma = rng.normal(size=(4, 3))
    tastes = decode_tastes(channel, grid)
    assert tastes.unbiased.all()
    np.testing.assert_allclose(tastes.mean, grid.points.T, atol=1e-12)
    direct = decode_utilities(channel, gamma @ grid.points.T, prior=grid.weights)
    np.testing.assert_allclose(gamma @ tastes.values, direct.values, atol=1e-11)
    seen = np.array([True, True, False, True, False])
    few = decode_tastes(channel[:, :3] / channel[:, :3].sum(1, keepdims=True), grid, seen)
    assert few.unbiased.all()


def test_a_channel_of_its_own_for_each_product():
    rng = np.random.default_rng(6)
    channels = np.stack([random_channel(rng, 4, 5) for _ in range(2)])
    u = rng.normal(size=(2, 4))
    both = decode_utilities(channels, u)
    for j in range(2):
        alone = decode_utilities(channels[j], u[j : j + 1])
        np.testing.assert_allclose(both.values[j], alone.values[0], rtol=1e-12)
    frame = both.to_frame(("a", "b"))
    assert frame["product"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"channel": [[0.5, 0.4], [0.5, 0.5]]}, dm.InvalidProbability, r"channel=.*sum to 1"),
        ({"channel": [[0.5, np.nan], [0.5, 0.5]]}, dm.NotFinite, r"channel="),
        ({"channel": [[1.5, -0.5], [0.5, 0.5]]}, dm.InvalidProbability, r"channel=.*nonnegative"),
        ({"channel": np.full((3, 2), 0.5)}, dm.InvalidArgument, r"a row for each taste"),
        ({"channel": [0.5, 0.5]}, dm.InvalidArgument, r"channel="),
        ({"utilities": [1.0, 2.0]}, dm.InvalidArgument, r"utilities=.*shape \(n, m\)"),
        ({"utilities": [[1.0, np.inf]]}, dm.NotFinite, r"utilities="),
        ({"support": [[True, False, True]]}, dm.InvalidArgument, r"support="),
        ({"support": [[2.0, 1.0]]}, dm.InvalidArgument, r"support=.*probabilities"),
        ({"prior": [0.0, 0.0]}, dm.InvalidArgument, r"prior=.*positive"),
        ({"prior": [0.5, -0.5]}, dm.InvalidArgument, r"prior=.*nonnegative"),
        ({"fallback": "hope"}, dm.InvalidArgument, r"fallback=.*minimax"),
        ({"allow": -1.0}, dm.InvalidArgument, r"allow="),
        ({"slack": -1.0}, dm.InvalidArgument, r"slack="),
        ({"allow": 1.0, "fallback": "least squares"}, dm.InvalidArgument, r"allow=.*minimax"),
    ],
)
def test_bad_channels_are_refused_by_name(changes, error, message):
    given = {"channel": [[0.9, 0.1], [0.2, 0.8]], "utilities": [[1.0, -1.0]]} | changes
    with pytest.raises(error, match=message):
        decode_utilities(**given)
