"""A user who trembles: nothing that she can do is impossible, and the rest is as before."""

import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm


def market(rule, horizon=2, products=2, displays=None):
    gamma = np.random.default_rng(1).normal(size=(products, 2))
    tastes = dm.TasteGrid([[1.0, 0.2], [-0.3, 1.0]], [0.4, 0.6])
    signals = dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2))
    values = dm.ConstantValues(np.full((products, 1), 0.5))
    given = gamma, tastes, horizon, rule, signals, values
    return dm.RecommendationMDP(*given, displays=displays)


RULE = dm.LastShownOnly(dm.Threshold(), query=0.6)


def test_the_law_is_a_mixture_with_what_is_open():
    rule, n = dm.Trembling(RULE, 0.2), 40
    utilities = jnp.asarray(np.random.default_rng(0).normal(size=(n, 3)))
    memory = rule.start(n, 5)
    for shown in (3, 37, n):
        memory = rule.step(memory, np.array([shown]), n)
    law = np.asarray(rule.probabilities(memory, np.array([n]), utilities))
    inner = np.asarray(RULE.probabilities(np.array([n]), np.array([n]), utilities))
    opened = np.isin(np.arange(n + 2), [3, 37, n, n + 1]) / 4
    np.testing.assert_allclose(law, 0.8 * inner + 0.2 * opened[:, None], rtol=1e-6)


@pytest.mark.parametrize("displays", [None, dm.Displays(2)])
def test_without_a_chance_it_is_the_rule(displays):
    plain, calm = (market(x, displays=displays) for x in (RULE, dm.Trembling(RULE, 0.0)))
    found = [dm.solve_efficient_policy(env, progress=False) for env in (plain, calm)]
    for name in ("value", "marginal_value", "displayable_marginal_value", "purchase"):
        np.testing.assert_allclose(getattr(found[1], name), getattr(found[0], name), atol=1e-12)


def test_an_earlier_product_is_bought_on_the_model_and_settles():
    policy = dm.solve_efficient_policy(market(dm.Trembling(RULE, 0.05)), progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    chat = policy.start(profile=0)
    first = chat.recommendation
    chat = chat.step("query", {"platform": 0})
    chat = chat.step(int(first), shown=int(1 - first))
    assert chat.ended
    assert not chat.off_model
    assert np.isfinite(mechanism.settle(chat, 0.3).transfer).all()
    assert mechanism.audit().incentive_gain.max() < 1e-12


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dm.Trembling(RULE, 1.5), "chance"),
        (lambda: dm.Trembling(RULE, -0.1), "chance"),
        (lambda: dm.Trembling(3, 0.1), "rule"),
    ],
)
def test_mistakes_are_named(untyped, make, words):
    with pytest.raises(dm.DynmechError, match=rf"Trembling\({words}"):
        make()
