"""Private readings of the product shown: numbered by their reader, and as tables of everybody."""

import jax
import numpy as np

import dynmech as dm
from tests.helpers.quantities import quantities
from tests.helpers.small import logit_market


def replaced(env, feedback):
    signals = dm.SignalStructure(env.signals.initial, feedback, env.signals.settlement)
    given = env.gamma, env.tastes, env.horizon, env.action_rule, signals, env.values
    return dm.RecommendationMDP(*given, displays=env.displays)


def both(horizon=2, displays=None, **options):
    """A market whose ratings are read by the advertiser shown too, and its law as a table."""
    rule = dm.LastShownOnly(dm.Logit(0.5), 0.6)
    feedback = dm.RatingFeedback(0.7, 2, advertisers=1.0, correlation=0.3)
    env = logit_market(horizon=horizon, rule=rule, feedback=feedback, platform=None, **options)
    law = env.signals.feedback.likelihood
    laws = [np.asarray(law(np.zeros(2), r, 0, env.utilities), float) for r in range(3)]
    laws = [one / one.sum(axis=1, keepdims=True) for one in laws]
    table = np.stack(laws).reshape(3, env.tastes.size, 2, 2, 2)
    return env, replaced(env, dm.ChannelFeedback(table))


def test_numbers_are_pairs_and_back():
    env, _ = both()
    heard, shown = env.heard, np.arange(3)[:, None]
    assert heard.count == 5 < np.prod(env.feedback_alphabet)
    symbols = heard.split(np.arange(4), shown)
    assert (symbols[1, 1] == 0).all()
    assert (symbols[2, 0] == 0).all()
    np.testing.assert_array_equal(heard.join(symbols, shown)[:2], [range(4)] * 2)
    assert heard.join(np.array([0, 0, 1]), 0) == 4  # she was not shown: she cannot have read it


def test_everything_is_that_of_the_joint_table():
    env, plain = both(markov=True)
    one, other = (dm.solve_efficient_policy(x, progress=False) for x in (env, plain))
    for mine, right in zip(quantities(one).values(), quantities(other).values(), strict=True):
        np.testing.assert_allclose(mine, right, atol=1e-12)
    for reports in ("incremental", "cumulative"):
        mine, right = (
            dm.DynamicTeamMechanism(x, reports=reports).audit(histories="all") for x in (one, other)
        )
        np.testing.assert_allclose(mine.incentive_gain, right.incentive_gain, atol=1e-9)
        np.testing.assert_allclose(mine.gain_by_period, right.gain_by_period, atol=1e-9)


def test_lies_that_pay_are_found_as_in_the_joint_table():
    gains = []
    for env in both():
        policy = dm.solve_efficient_policy(env, progress=False)
        message = dm.settlement.MessageDriven()
        audit = dm.DynamicTeamMechanism(policy).audit(message)
        gains.append(audit.incentive_gain)
    assert gains[0].max() > 1e-6
    np.testing.assert_allclose(*gains, atol=1e-9)


def test_another_market_may_number_what_is_heard_otherwise():
    env, plain = both()
    found = []
    for held, truth in ((env, plain), (plain, env)):
        mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(held, progress=False))
        gain = mechanism.audit(under=truth).incentive_gain
        found.append((gain, mechanism.simulate(jax.random.key(0), 200, under=truth).payment))
    (gain, payment), other = found
    np.testing.assert_allclose(gain, other[0], atol=1e-9)
    np.testing.assert_allclose(payment, other[1], atol=1e-9)


def test_a_reading_that_nobody_can_have_had_is_off_the_model():
    env, _ = both()
    chat = dm.solve_efficient_policy(env, progress=False).start((0, 0), (0, 0, 0))
    shown = chat.recommendation
    said = {"platform": 1, env.names[shown]: 1, env.names[1 - shown]: 0}
    assert not chat.step("query", said).off_model
    assert chat.step("query", said | {env.names[1 - shown]: 1}).off_model


def test_sixty_advertisers_who_read_their_own_rating():
    rng = np.random.default_rng(0)
    grid = dm.TasteGrid(rng.lognormal(0, 0.5, (6, 2)), np.full(6, 1 / 6))
    signals = dm.SignalStructure(feedback=dm.RatingFeedback(0.7, 2, advertisers=1.0))
    rule = dm.LastShownOnly(dm.Logit(0.5), 0.6)
    gamma, values = rng.normal(size=(60, 2)), dm.ConstantValues(np.linspace(0.1, 1, 60))
    env = dm.RecommendationMDP(gamma, grid, 2, rule, signals, values)
    policy = dm.solve_efficient_policy(env, progress=False)
    assert policy.exact
    play = dm.DynamicTeamMechanism(policy).simulate(jax.random.key(0), 20)
    assert np.isfinite(play.payment).all()
