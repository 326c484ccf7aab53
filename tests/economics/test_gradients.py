"""`policy.revalue` as a pure function: gradients, jit, vmap, and what is compiled again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market
from tests.helpers.quantities import TOLERANCE, market_of, solve
from tests.helpers.small import logit_market

STEP = 1e-5
# A central difference of step h errs by h^2 f''' / 6 + eps |f| / h: 1e-10 and 1e-11 times
# numbers of order one here, and a kink within h of the point would show as an error of order one.
CLOSE = 1e-7


def tables_market(constant=True):
    return market_of(random_market(np.random.default_rng(1), constant=constant, recall="ordered"))


def rule_market(markov=False):
    return logit_market(seed=2, markov=markov)


MARKETS = {
    "tables": tables_market,
    "rules, markov": lambda: rule_market(markov=True),
    "threshold": lambda: logit_market(seed=3, rule=dm.ImperfectRecall(dm.Threshold(), 0.4, 0.5)),
}


@pytest.fixture(
    scope="module",
    params=["tables", *(pytest.param(k, marks=pytest.mark.slow) for k in list(MARKETS)[1:])],
)
def policy(request):
    return solve(MARKETS[request.param]())


def slopes(function, at):
    """Central differences, one trailing axis per coordinate of `at`."""
    steps = STEP * np.eye(at.size).reshape(-1, *at.shape)
    out = jax.jit(jax.vmap(function))(np.concatenate([at + steps, at - steps]))
    out = np.moveaxis((out[: at.size] - out[at.size :]) / (2 * STEP), 0, -1)
    return out.reshape(*out.shape[:-1], *at.shape)


def jacobian(function, at):
    return np.asarray(jax.jit(jax.jacobian(function))(jnp.asarray(at)))


def base_of(policy, argument):
    env = policy.env
    return {
        "theta_support": env.values.support, "gamma": env.gamma, "prior": env.tastes.weights,
    }[argument]  # fmt: skip


def test_many_supports_at_once_are_one_after_another(policy, monkeypatch):
    rng = np.random.default_rng(4)
    given = policy.env.values.support * rng.uniform(0.5, 1.5, (2, 3, 1, 1))
    # So few together that they are solved in parts, the last one padded.
    widest = max(len(set(policy.pairs.theta[:, i])) for i in range(policy.env.products))
    monkeypatch.setattr("dynmech.policy.revalue._TOGETHER", 4 * widest)
    every = policy.revalue(theta_support=given, marginals=True)
    shape, n = policy.value.shape, policy.env.products
    assert every.value.shape == (2, 3, *shape)
    assert every.marginal_value.shape == (n, 2, 3, *shape)
    for at in np.ndindex(2, 3):
        one = policy.revalue(theta_support=given[at], marginals=True)
        np.testing.assert_allclose(every.value[at], one.value, rtol=1e-12)
        np.testing.assert_allclose(every.marginal_value[:, *at], one.marginal_value, rtol=1e-12)
        np.testing.assert_allclose(
            every.displayable_marginal_value[:, *at], one.displayable_marginal_value, rtol=1e-12
        )


@pytest.mark.parametrize("compiled", [False, True])
def test_few_roots_at_a_time_are_all_at_once(policy, monkeypatch, compiled):
    theta = jnp.asarray(policy.env.values.support)
    roots = len(np.unique(policy.pairs.root))
    assert roots > 3  # else nothing is split

    def found():
        def both(theta):
            again = policy.revalue(theta, marginals=True)
            return again.value, again.marginal_value, again.displayable_marginal_value

        slope = jax.grad(lambda theta: policy.revalue(theta).sum())
        return [jax.jit(f)(theta) if compiled else f(theta) for f in (both, slope)]

    once, asked = found(), []
    monkeypatch.setattr("dynmech.policy.revalue.roots_at_once", lambda *_: asked.append(3) or 3)
    parts = found()
    assert asked
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=TOLERANCE), once, parts)
    np.testing.assert_allclose(parts[0][0], policy.value, rtol=TOLERANCE)


@pytest.mark.parametrize("argument", ["theta_support", "gamma", "prior"])
def test_nothing_changes_at_the_numbers_solved(policy, argument):
    again = policy.revalue(**{argument: base_of(policy, argument)}, marginals=True)
    atol = TOLERANCE * policy.env.money_scale
    for found, expected in (
        (again.value, policy.value),
        (again.marginal_value, policy.marginal_value),
        (again.displayable_marginal_value, policy.displayable_marginal_value),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol, strict=True)


@pytest.mark.parametrize("argument", ["theta_support", "gamma", "prior"])
def test_gradients_match_central_differences(policy, argument):
    def value(x):
        return policy.revalue(**{argument: x}).value

    at = base_of(policy, argument)
    found = jacobian(value, at)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, slopes(value, at), rtol=0, atol=CLOSE)
    assert np.abs(found).max() > 1e-2


def test_gradients_of_the_marginal_economies():
    """They match differences, and an advertiser's own values do not move her economies."""
    policy = solve(rule_market())

    def values(x):
        again = policy.revalue(theta_support=x, marginals=True)
        return jnp.stack([again.marginal_value, again.displayable_marginal_value])

    at = policy.env.values.support
    found = jacobian(values, at)
    np.testing.assert_allclose(found, slopes(values, at), rtol=0, atol=CLOSE)
    assert np.abs(found).max() > 1e-2
    for i in range(policy.env.products):
        np.testing.assert_array_equal(found[:, i, ..., i, :], 0.0)


@pytest.mark.parametrize("build", [tables_market, rule_market])
def test_gradient_in_theta_is_expected_purchases(build):
    policy = solve(build())
    n, size = policy.env.values.support.shape
    found = jacobian(lambda x: policy.revalue(theta_support=x).value, policy.env.values.support)
    expected = np.zeros(found.shape)
    for where in np.ndindex(policy.value.shape):
        for i in range(n):
            expected[(*where, i, where[i])] = policy.purchase[(i, *where)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert size > 1
    earned = policy.env.values.support[np.arange(n)[:, None], np.arange(size)]
    for i in range(n):
        shape = [size if axis == i else 1 for axis in range(policy.value.ndim)]
        np.testing.assert_allclose(
            policy.purchase[i] * earned[i].reshape(shape), policy.advertiser_value[i], atol=1e-12
        )


def test_gradient_under_markov_values_is_purchases_too():
    """Over the whole support: moving every value by one moves W by all purchases expected."""
    policy = solve(MARKETS["rules, markov"]())
    ones = np.ones_like(policy.env.values.support)
    at = jnp.asarray(policy.env.values.support)
    _, found = jax.jvp(lambda x: policy.revalue(theta_support=x).value, (at,), (jnp.asarray(ones),))
    np.testing.assert_allclose(found, policy.purchase.sum(0), rtol=0, atol=1e-12)


def test_other_numbers_give_what_a_fresh_solve_gives():
    """With cut points kept: symbols are cut at quantiles of the market first solved."""
    env = logit_market(seed=2, horizon=3, advertisers=None, platform=None, feedback=cut_rating())
    policy, rng = solve(env), np.random.default_rng(0)
    gamma = env.gamma + rng.normal(0.0, 0.3, env.gamma.shape)
    support = env.values.support + rng.normal(0.0, 0.3, env.values.support.shape)
    prior = rng.dirichlet(np.ones(env.tastes.size))
    other = dm.RecommendationMDP(
        gamma, dm.TasteGrid(env.tastes.points, prior), 3, env.action_rule,
        dm.SignalStructure(feedback=cut_rating()), dm.ConstantValues(support, env.values.prior),
    )  # fmt: skip
    again, fresh = policy.revalue(support, gamma, prior, marginals=True), solve(other)
    atol = TOLERANCE * other.money_scale
    np.testing.assert_allclose(again.value, fresh.value, rtol=0, atol=atol)
    np.testing.assert_allclose(again.marginal_value, fresh.marginal_value, rtol=0, atol=atol)
    assert np.abs(fresh.value - policy.value).max() > 1e-2


def cut_rating():
    return dm.RatingFeedback(noise=0.7, symbols=3, cuts=np.array([[-0.5, 0.5], [0.0, 1.0]]))


@pytest.mark.parametrize(
    "argument", ["theta_support", "gamma", pytest.param("prior", marks=pytest.mark.slow)]
)
def test_jit_and_vmap(argument):
    policy = solve(rule_market())
    rng, base = np.random.default_rng(3), base_of(policy, argument)
    many = jnp.asarray(base * rng.uniform(0.8, 1.2, (3, *base.shape)))

    def value(x):
        return policy.revalue(**{argument: x}).value

    each = np.stack([value(x) for x in many])
    assert np.ptp(each, axis=0).max() > 1e-3
    jitted = jax.jit(value)
    np.testing.assert_allclose(np.stack([jitted(x) for x in many]), each, rtol=0, atol=1e-13)
    np.testing.assert_allclose(jax.jit(jax.vmap(value))(many), each, rtol=0, atol=1e-13)
    assert jitted._cache_size() == 1


def test_impossible_profiles_leave_gradients_finite():
    case = random_market(np.random.default_rng(4), zeros=0.4, constant=True)
    policy = solve(market_of(case))
    assert np.isnan(policy.value).any()
    for argument in ("theta_support", "prior"):

        def total(x, argument=argument):
            return jnp.nansum(policy.revalue(**{argument: x}).value)

        at = base_of(policy, argument)
        found = jacobian(total, at)
        assert np.isfinite(found).all(), argument
        np.testing.assert_allclose(found, slopes(total, at), rtol=0, atol=1e-6)


def test_a_revaluation_stands_for_its_value():
    policy = solve(rule_market())
    again = policy.revalue()
    assert again.shape == policy.value.shape
    np.testing.assert_allclose(np.asarray(again), policy.value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(again), policy.value.sum(), rtol=1e-12)
    np.testing.assert_allclose(again.mean(), policy.value.mean(), rtol=1e-12)
    np.testing.assert_allclose(again[0], policy.value[0], rtol=0, atol=1e-12)
    assert again.marginal_value is None
