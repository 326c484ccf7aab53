"""Ratings that need not come: what is settled without them, what lies gain, what it costs."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from dynmech.estimators.decoders import decode_utilities
from tests.helpers.markets import histories_of, random_market
from tests.helpers.quantities import market_of

RATING = dm.RatingSettlement(1.0)
RNG = np.random.default_rng(0)
GAMMA, POINTS = RNG.normal(size=(3, 2)), RNG.normal(size=(20, 2))
THETA = RNG.uniform(0.2, 1, size=(3, 2))


def market(settlement, weights=None, query=0.7, m=20):
    weights = np.full(m, 1 / m) if weights is None else weights
    first = dm.GaussianSignals(platform=1.0, advertisers=1.0, symbols=2)
    signals = dm.SignalStructure(first, dm.RatingFeedback(1.0, 3), settlement)
    rule = dm.LastShownOnly(dm.Logit(0.5), query)
    tastes, values = dm.TasteGrid(POINTS[:m], weights), dm.ConstantValues(THETA)
    return dm.RecommendationMDP(GAMMA, tastes, 2, rule, signals, values)


def mechanism(env, **options):
    policy = dm.solve_efficient_policy(env, progress=False)
    estimator = dm.InversePropensity(**options)
    return dm.DynamicTeamMechanism(policy, dm.groves.WindowCeiling(), estimator=estimator)


class ByHand(dm.AbstractSettlementSignal):
    """A rating divided by the rate believed, 0 where there is none; the rate may rise with u."""

    rate: float = 0.1
    believed: float = 0.1
    tilt: float = 0.0

    def chance(self, u):
        return self.rate * (1 + self.tilt * jnp.tanh(jnp.asarray(u)))

    def mean(self, memory, recommendation, utilities):
        return self.chance(utilities) / self.believed * jnp.asarray(utilities)

    def noise(self, utilities=None):
        u = np.asarray(utilities)
        p = np.asarray(self.chance(u))
        return np.sqrt(p * (u**2 + 1) - (p * u) ** 2) / self.believed

    def draw(self, rng, utilities, product, omega, mean):
        u = np.asarray(utilities)[product, omega]
        came = rng.random(len(u)) < np.asarray(self.chance(u))
        return np.where(came, (u + rng.standard_normal(len(u))) / self.believed, 0.0)


class Mixed(dm.AbstractSettlement):
    """Share c settled by the rating's mean, 1 - c by what the platform thinks."""

    share: float

    def payoff(self, at):
        parts = dm.settlement.Estimator().payoff(at), dm.settlement.MessageDriven().payoff(at)
        return self.share * parts[0] + (1 - self.share) * parts[1]

    def charge(self, at):
        return np.zeros((len(at.belief), 1))


@pytest.mark.parametrize(
    ("rate", "believed", "tilt"),
    [(1.0, 1.0, 0.0), (0.1, 0.1, 0.0), (0.08, 0.1, 0.0), (0.1, 0.1, 0.5)],
)
def test_figures_made_by_hand_are_reproduced(rate, believed, tilt):
    hand = ByHand(rate, believed, tilt)
    env = market(dm.MissingRatings(RATING, np.asarray(hand.chance(GAMMA @ POINTS.T))))
    shipped = mechanism(env, chance=believed, augment=False)
    made = dm.DynamicTeamMechanism(shipped.policy, shipped.groves, estimator=hand)
    audits = shipped.audit(), made.audit()
    gains = [audit.incentive_gain for audit in audits]
    np.testing.assert_allclose(gains[0], gains[1], atol=1e-12)
    spreads = [dm.payment_moments(one).overall_variance for one in (shipped, made)]
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=1e-9)
    right = rate == believed and tilt == 0
    assert (audits[0].incentive_gain.max() <= audits[0].tolerance) == right


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0, 1.3])
def test_with_a_wrong_chance_gains_are_those_of_the_mixture(share):
    env = market(dm.MissingRatings(RATING, 0.1 * share))
    own = mechanism(env, chance=0.1)
    plain = dm.DynamicTeamMechanism(own.policy, own.groves, estimator=RATING)
    audit, mixture = own.audit(), plain.audit(Mixed(share))
    np.testing.assert_allclose(audit.gain_by_period, mixture.gain_by_period, atol=1e-9)
    np.testing.assert_allclose(audit.participation, mixture.participation, atol=1e-9)
    every = own.best_response().gain, plain.best_response(Mixed(share)).gain
    np.testing.assert_allclose(every[0], every[1], atol=1e-9)
    assert (every[0].max() > 1e-3) == (share != 1)
    assert (audit.incentive_gain <= audit.incentive_bound + 1e-9).all()


CHANCES = {
    "constant": (0.2, None),
    "rating": (dm.RatingLaw(-1.0, 1.0, 0.1), None),
    "wrong": (0.3, 0.2),
}


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("kind", CHANCES)
def test_moments_are_those_of_simulated_payments(kind, cap):
    chance, believed = CHANCES[kind]
    env = market(dm.MissingRatings(RATING, chance, "rating" if callable(chance) else "constant"))
    own = mechanism(env, chance=believed, cap=cap)
    audit, moments = own.audit(), dm.payment_moments(own)
    drawn = own.simulate(jax.random.key(1), 40_000)
    assert np.isnan(drawn.rating[np.isfinite(drawn.estimate)]).any()
    mean, error = drawn.mean("payment")
    assert (np.abs(mean - moments.overall_mean[:-1]) < 5 * error).all()
    np.testing.assert_allclose(drawn.payment.var(axis=0), moments.overall_variance[:-1], rtol=0.15)
    weights = own.policy.probability()
    paid = (audit.budget.payments * weights).sum(axis=tuple(range(1, 8)))
    np.testing.assert_allclose(paid, moments.overall_mean[:-1], atol=1e-12)
    unbiased = cap is None and believed is None
    assert (audit.incentive_gain.max() <= audit.tolerance) == unbiased
    report = dm.check_assumption_3(own)
    assert report.unbiased.all() == unbiased
    assert report.report_spread.max() <= 1e-9 or not unbiased
    assert audit.incentive_gain.max() <= report.incentive_bound + 1e-9


def test_variance_given_the_taste_is_that_of_the_formula():
    """One round, one product, nothing known: Var(q | u) = s^2/rho + (1 - rho)/rho (u - m)^2."""
    rho, theta = 0.25, dm.ConstantValues(np.array([[1.0]]))
    tastes = dm.TasteGrid(np.array([[1.0], [-0.5]]), np.array([0.4, 0.6]))
    signals = dm.SignalStructure(settlement=dm.MissingRatings(dm.RatingSettlement(0.7), rho))
    env = dm.RecommendationMDP(
        np.eye(1), tastes, 1, dm.LastShownOnly(dm.Logit(0.5), 0.0), signals, theta
    )
    own = mechanism(env)
    u, w = env.utilities[0], env.tastes.weights
    buy = np.exp(u / 0.5) / (1 + np.exp(u / 0.5))
    m = (w * buy * u).sum() / (w * buy).sum()
    noise = 0.49 / rho + (1 - rho) / rho * (u - m) ** 2
    found = dm.payment_moments(own).overall_noise_variance[0]
    assert found == pytest.approx((w * buy * noise).sum(), rel=1e-9)


def test_a_chance_by_history_weighs_by_the_history():
    rng = np.random.default_rng(3)
    env = market_of(random_market(rng, m=3))
    chance = rng.uniform(0.1, 0.9, len(histories_of(2, 2)))
    signal = dm.MissingRatings(env.signals.settlement, chance, "history")
    env = eqx.tree_at(lambda e: e.signals.settlement, env, signal)
    right, wrong = mechanism(env), mechanism(env, chance=0.5)
    assert right.audit().incentive_gain.max() <= 1e-9
    assert wrong.audit().incentive_gain.max() > 1e-3
    drawn = right.simulate(jax.random.key(0), 20_000)
    mean, error = drawn.mean("payment")
    assert (np.abs(mean - dm.payment_moments(right).overall_mean[:-1]) < 5 * error).all()


def test_under_another_market_the_belief_stays_the_mechanisms():
    weights = np.random.default_rng(4).dirichlet(np.ones(20))
    held, truth = market(dm.MissingRatings(RATING, 0.1)), dm.MissingRatings(RATING, 0.08)
    own, near = mechanism(held), market(truth)
    same = mechanism(near, chance=0.1).audit()
    np.testing.assert_allclose(own.audit(under=near).gain_by_period, same.gain_by_period, atol=1e-9)
    far = market(truth, weights, query=0.6)
    audit, drawn = own.audit(under=far), own.simulate(jax.random.key(2), 20_000, under=far)
    chance = dm.solve_efficient_policy(far, progress=False).probability()
    paid = (audit.budget.payments * chance).sum(axis=tuple(range(1, 8)))
    mean, error = drawn.mean("payment")
    assert (np.abs(mean - paid) < 5 * error).all()
    assert (audit.incentive_gain <= audit.incentive_bound + 1e-9).all()


def test_where_taste_decides_who_rates_the_channel_is_decoded():
    rating = dm.QuantisedRatingSettlement(1.0, np.linspace(-2.5, 2.5, 9))
    sent = dm.MissingRatings(rating, np.linspace(0.2, 0.9, 4))
    env = market(sent, m=4)
    channel = sent.channel(env.utilities)
    np.testing.assert_allclose(channel.sum(axis=2), 1)
    decoder = decode_utilities(channel, env.utilities, np.ones_like(env.utilities))
    signal = dm.ChannelSettlement(channel, decoder, missing=True)
    policy = dm.solve_efficient_policy(env, progress=False)
    decoded = dm.DynamicTeamMechanism(policy, estimator=signal)
    assert decoder.unbiased.all()
    assert decoded.audit().incentive_gain.max() <= 1e-6
    assert mechanism(env, chance=0.55).audit().incentive_gain.max() > 1e-4
    chat = policy.start(theta=[0, 0, 0], signals=[0, 0, 0, 0])
    chat = chat.step(chat.recommendation)
    product = chat.turns[-1].action
    assert decoded.settle(chat).estimate[-1] == pytest.approx(signal.values[product, -1])
    with pytest.raises(dm.InvalidArgument, match="taste"):
        mechanism(env)


def test_settling_without_a_rating():
    env = market(dm.MissingRatings(RATING, 0.1))
    own = mechanism(env)
    chat = own.policy.start(theta=[0, 0, 0], signals=[0, 0, 0, 0])
    chat = chat.step(chat.recommendation)
    product = chat.turns[-1].action
    predicted = chat.belief @ env.utilities[product]
    for rating, count in ((None, predicted), (2.0, predicted + 10 * (2.0 - predicted))):
        ledger = own.settle(chat, rating)
        assert ledger.estimate[-1] == pytest.approx(count)
        np.testing.assert_allclose(ledger.core[-1], own.payment(chat.theta, product, count))
    drawn = own.simulate(jax.random.key(5), 500)
    chats = own.policy.start_many(drawn.profile)
    for t in range(2):
        symbols = np.maximum(drawn.symbol[:, t], 0)
        chats = chats.step(np.where(drawn.action[:, t] < 0, 3, drawn.action[:, t]), symbols)
    ledger = own.settle(chats, drawn.rating)
    core = np.zeros_like(drawn.core)
    np.add.at(core, np.asarray(ledger.conversation), ledger.core)
    np.testing.assert_allclose(core, drawn.core, atol=1e-9)
    plain = dm.DynamicTeamMechanism(own.policy)
    for call in (
        lambda: plain.settle(chat),
        lambda: plain.simulate(jax.random.key(0), 10),
        plain.audit,
    ):
        with pytest.raises(dm.InvalidArgument, match="InversePropensity"):
            call()


def test_ratings_outside_the_declared_range_are_refused_or_capped():
    for outside in ("refuse", "cap"):
        rating = dm.RatingSettlement(1.0, (-3.0, 3.0), outside)
        for settlement in (rating, dm.MissingRatings(rating, 0.5)):
            own = mechanism(market(settlement), chance=0.5)
            chat = own.policy.start(theta=[0, 0, 0], signals=[0, 0, 0, 0])
            chat = chat.step(chat.recommendation)
            if outside == "refuse":
                with pytest.raises(dm.OutsideSupport, match="range"):
                    own.settle(chat, 5.0)
            else:
                got = own.settle(chat, 3.5).estimate[-1], own.settle(chat, 3.0).estimate[-1]
                assert got[0] == got[1]
    u = np.array([[0.5, -3.2]])
    z = np.clip(u[..., None] + np.random.default_rng(0).standard_normal(400_000), -3, 3)
    np.testing.assert_allclose(rating.mean(None, None, u), z.mean(axis=2), atol=5e-3)
    np.testing.assert_allclose(rating.noise(u), z.std(axis=2), atol=5e-3)


SHORT, LAW = np.full(3, 0.5), dm.RatingLaw(0.0, 1.0)
REFUSED = [
    (lambda: dm.MissingRatings(0.1, RATING), dm.InvalidArgument, "rating"),
    (lambda: dm.MissingRatings(RATING, 1.5), dm.InvalidProbability, "chance"),
    (lambda: dm.MissingRatings(RATING, math.nan), dm.NotFinite, "chance"),
    (lambda: dm.MissingRatings(RATING, 0.5, "taste"), dm.InvalidArgument, "given"),
    (lambda: dm.MissingRatings(RATING, 0.5, "rating"), dm.InvalidArgument, "function"),
    (lambda: dm.MissingRatings(RATING, LAW), dm.InvalidArgument, "given"),
    (lambda: dm.MissingRatings(dm.MissingRatings(RATING, 0.5), 0.5), dm.InvalidArgument, "comes"),
    (lambda: market(dm.MissingRatings(RATING, SHORT)), dm.InvalidArgument, "20"),
    (lambda: market(dm.MissingRatings(RATING, SHORT, "history")), dm.InvalidArgument, "Tabulated"),
    (
        lambda: market(dm.MissingRatings(RATING, jnp.tanh, "rating")),
        dm.InvalidProbability,
        "chance",
    ),
    (lambda: dm.InversePropensity(0.0), dm.InvalidProbability, "above 0"),
    (lambda: dm.InversePropensity(0.5, cap=0.5), dm.InvalidArgument, "cap"),
    (lambda: mechanism(market(RATING)), dm.InvalidArgument, "always come"),
    (lambda: dm.RatingSettlement(1.0, (2.0, 1.0)), dm.InvalidArgument, "limits"),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED)
def test_what_is_no_chance_is_refused_by_name(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
