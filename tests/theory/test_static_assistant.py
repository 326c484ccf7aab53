"""The Gaussian shopping assistant: beliefs, values and certified bounds; what users get wrong."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import dynmech as dm
from dynmech import DynmechError
from dynmech import static as st
from tests.helpers.assistant import EXACT, SHOWN, market, option, posterior, reports, types


def test_beliefs_are_the_conditional_law():
    """Against regression on the stacked vector of all signals and reactions."""

    def tired(past):  # the second time a product is shown, the reaction says half as much
        return SHOWN[past[-1]] / (1 + past[:-1].count(past[-1]))

    env = market(3, tired)
    profile = reports(env).replace(1, noise=[[1.0, 0.4], [0.4, 2.0]])
    history = env.history([0, 0], [[0.4, -0.5], [1.0, 0.2]])
    found = env.belief(profile, history)
    seen = [(profile.signal_noise[i], profile.signals[i]) for i in range(2)]
    seen.append((env.context_noise, profile.context))
    for precision, c in zip((SHOWN[0], SHOWN[0] / 2), history.feedback, strict=True):
        seen.append((np.diag(1 / precision), c))
    tall = np.kron(np.ones((len(seen), 1)), np.eye(2))
    noise = np.zeros((2 * len(seen),) * 2)
    for k, (block, _) in enumerate(seen):
        noise[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
    prior = env.prior_covariance
    gain = prior @ tall.T @ np.linalg.inv(tall @ prior @ tall.T + noise)
    told = np.concatenate([value for _, value in seen]) - tall @ env.prior_mean
    np.testing.assert_allclose(found.mean, env.prior_mean + gain @ told, atol=1e-12)
    np.testing.assert_allclose(found.covariance, prior - gain @ tall @ prior, atol=1e-12)


def test_one_round_is_a_closed_form():
    """T = 1: W = max(theta + m, 0); E[W] = E max of normals of covariance Sigma - P."""
    env = market(1)
    profile = reports(env)
    plan = st.solve_assistant(env, profile)
    level = profile.theta + env.belief(profile).mean
    assert plan.value == pytest.approx(max(level.max(), 0), abs=EXACT)
    np.testing.assert_allclose(plan.marginal_value, np.maximum(level[::-1], 0), atol=EXACT)
    np.testing.assert_allclose(plan.displayable_marginal_value, plan.marginal_value, atol=EXACT)
    news = env.prior_covariance - env.belief(profile).covariance
    found = st.assistant_ex_ante(env, profile.theta)
    ratio = st.expected_maximum(env.prior_mean + profile.theta, news)
    assert found.value == pytest.approx(float(ratio), abs=EXACT)
    # Values so large that the outside option never matters: Clark's formula by hand.
    up = env.prior_mean + profile.theta + 40
    theta = np.sqrt(news[0, 0] + news[1, 1] - 2 * news[0, 1])
    x = (up[0] - up[1]) / theta
    clark = up[0] * norm.cdf(x) + up[1] * norm.cdf(-x) + theta * norm.pdf(x)
    assert st.assistant_ex_ante(env, profile.theta + 40).value == pytest.approx(clark, abs=EXACT)


def test_two_rounds_are_a_closed_form():
    """T = 2: each first recommendation is worth a_r + E max(a', 0)."""
    env = market(2)
    profile = reports(env)
    plan, belief = st.solve_assistant(env, profile), env.belief(profile)
    level = profile.theta + belief.mean
    for index, r in enumerate((0, 1, -1)):
        _, news = posterior(env, belief.covariance, (r,))
        now = level[r] if r >= 0 else 0.0
        worth = now + float(st.expected_maximum(level, news))
        assert plan.action_values[index] == pytest.approx(worth, abs=EXACT)
    assert plan.worth.lower == pytest.approx(plan.worth.upper, abs=1e-12)
    bounds = st.bound_assistant(env, profile, lookahead=2)
    np.testing.assert_allclose(bounds, plan.value, atol=1e-12)
    for i, j in ((0, 1), (1, 0)):  # withdrawn: show j or none; displayable: i too, unpaid
        worth = {
            r: option(level[j], np.sqrt(posterior(env, belief.covariance, (r,))[1][j, j]))
            for r in (0, 1, -1)
        }
        withdrawn = max(level[j] + worth[j], worth[-1])
        assert plan.marginal_value[i] == pytest.approx(withdrawn, abs=EXACT)
        displayed = max(withdrawn, worth[i])
        assert plan.displayable_marginal_value[i] == pytest.approx(displayed, abs=EXACT)


def test_one_product_and_three_rounds_by_adaptive_quadrature():
    """n = 1, T = 3 by nested adaptive integration, and the certified bounds around it."""
    env = st.ShoppingAssistant([-0.3], [[1.2]], [2.0], 2.0, [[3.0], [0.5]], 3)
    profile = env.profile([0.1], [[0.2]], [0.0])
    belief = env.belief(profile)

    def worth(level, history):
        best = -np.inf
        for r, now in ((0, level), (-1, 0.0)):
            path = (*history, r)
            _, news = posterior(env, belief.covariance, path)
            scale = float(np.sqrt(news[0, 0]))
            if len(path) == 2:
                ahead = option(level, scale)
            else:

                def inside(z, path=path, scale=scale):
                    return worth(level + scale * z, path) * norm.pdf(z)

                ahead = sum(quad(inside, a, b)[0] for a, b in pairwise(np.linspace(-8, 8, 17)))
            best = max(best, now + ahead)
        return best

    truth = worth(float(profile.theta[0] + belief.mean[0]), ())
    plan = st.solve_assistant(env, profile, nodes=64)
    assert plan.worth.lower - 1e-8 <= truth <= plan.worth.upper + 1e-8
    assert plan.worth.upper - plan.worth.lower < 1e-4
    assert plan.worth.quadrature == pytest.approx(truth, abs=5e-4)
    hermite = st.solve_assistant(env, profile, nodes=64, rule="hermite").worth
    assert hermite.quadrature == pytest.approx(truth, abs=1e-3)
    assert abs(hermite.quadrature - truth) > abs(plan.worth.quadrature - truth)
    assert plan.value == pytest.approx(truth, abs=plan.worth.upper - plan.worth.lower + 1e-8)


@pytest.mark.parametrize("products", [2, 3])
def test_bounds_bracket_and_information_is_worth_less_later(products):
    """Three rounds: lower <= upper; told after k rounds decreases in k; the quadrature is near."""
    feedback = 0.1 + 3.9 * np.eye(products + 1, products)
    env = st.ShoppingAssistant(
        np.linspace(0.1, -0.2, products), np.eye(products) + 0.2, np.full(products, 2.0), 1.5,
        feedback, 3,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(2 if products == 2 else 1):
        profile = env.profile(
            rng.uniform(0, 0.5, products), rng.normal(size=(products, products)),
            rng.normal(size=products),
        )  # fmt: skip
        plan = st.solve_assistant(env, profile, nodes=16 if products == 2 else 6)
        assert plan.worth.lower < plan.worth.upper
        assert (np.diff(plan.told_after) <= 1e-12).all()
        assert plan.worth.upper <= plan.told_after[-1] + 1e-12
        distance = max(
            plan.worth.lower - plan.worth.quadrature, plan.worth.quadrature - plan.worth.upper, 0
        )
        assert distance <= (2e-3 if products == 2 else 2e-2)
        assert (plan.marginal_value <= plan.displayable_marginal_value + 1e-12).all()
        assert (plan.marginal_value <= plan.value + 1e-3).all()
        for k in (1, 2):
            low, high = st.bound_assistant(env, profile, lookahead=k, nodes=16)
            assert low <= plan.worth.upper + 1e-12
            assert high >= plan.worth.lower - 1e-12
            assert low >= 3 * max((profile.theta + plan.belief.mean).max(), 0) - 1e-12


@pytest.mark.parametrize("rule", ["cells", "hermite"])
def test_more_nodes_come_closer(rule):
    """The quadrature converges to the bracket, and so does the change on doubling."""
    env = market(3)
    distance, change = [], []
    for nodes in (8, 32):
        worth = st.solve_assistant(env, reports(env), nodes=nodes, rule=rule).worth
        assert worth.upper - worth.lower < 4e-4
        distance.append(abs(worth.quadrature - (worth.lower + worth.upper) / 2))
        change.append(worth.change)
    assert distance[1] < (1e-4 if rule == "cells" else 1e-3)
    assert change[1] < change[0]


def test_ex_ante_value_averages_over_signals():
    env = market(2)
    theta = np.array([0.2, 0.3])
    found = st.assistant_ex_ante(env, theta, nodes=24)
    rng = np.random.default_rng(0)
    belief = env.belief(reports(env))
    spread = np.linalg.cholesky(env.prior_covariance - belief.covariance)
    level = env.prior_mean + theta + rng.normal(size=(100_000, 2)) @ spread.T
    worth = np.full(len(level), -np.inf)
    for r in (0, 1, -1):
        _, news = posterior(env, belief.covariance, (r,))
        now = level[:, r] if r >= 0 else 0.0
        worth = np.maximum(worth, now + st.expected_maximum(level, news))
    assert found.lower <= found.upper
    error = worth.std() / np.sqrt(len(worth))
    assert found.value == pytest.approx(worth.mean(), abs=5 * error + 1e-4)


def test_values_obey_scaling_and_relabelling():
    env, swap = market(2), np.array([1, 0])
    profile = reports(env)
    base = st.solve_assistant(env, profile, nodes=8)
    other = market(
        2, SHOWN[[1, 0, 2]][:, swap], prior_mean=env.prior_mean[swap],
        prior_covariance=env.prior_covariance[swap][:, swap], signal_noise=[3.0, 2.0],
    )  # fmt: skip
    turned = other.profile(
        profile.theta[swap], profile.signals[swap][:, swap], profile.context[swap]
    )
    found = st.solve_assistant(other, turned, nodes=8)
    assert found.value == pytest.approx(base.value, abs=1e-10)
    assert found.worth.lower == pytest.approx(base.worth.lower, abs=1e-10)
    scaled = market(
        2, SHOWN / 9, prior_mean=3 * env.prior_mean, prior_covariance=9 * env.prior_covariance,
        signal_noise=9 * env.signal_noise, context_noise=9 * env.context_noise,
    )  # fmt: skip
    money = scaled.profile(3 * profile.theta, 3 * profile.signals, 3 * profile.context)
    found = st.solve_assistant(scaled, money, nodes=8)
    np.testing.assert_allclose(found.action_values, 3 * base.action_values, atol=1e-10)


MISTAKES = {
    "prior_covariance=.*positive definite": lambda: market(prior_covariance=np.ones((2, 2))),
    "prior_covariance=.*symmetric": lambda: market(prior_covariance=[[1.0, 0.5], [0.1, 1.0]]),
    "prior_covariance=.*shape": lambda: market(prior_covariance=np.eye(3)),
    "prior_mean=.*shape": lambda: market(prior_mean=0.0),
    "prior_mean=.*finite": lambda: market(prior_mean=[np.nan, 0.0]),
    "signal_noise=.*shape": lambda: market(signal_noise=np.ones(3)),
    "signal_noise.0.=.*positive definite": lambda: market(signal_noise=[0.0, 1.0]),
    "context_noise=.*shape": lambda: market(context_noise=[1.0, 2.0]),
    "context_noise=.*positive definite": lambda: market(context_noise=-1.0),
    "feedback=.*shape": lambda: market(feedback=np.ones((2, 2))),
    "feedback=.*positive precisions.*-1.0 at index .0, 1.": lambda: market(
        feedback=[[1.0, -1.0], [1.0, 1.0], [1.0, 1.0]]
    ),
    "feedback.*symmetric precision": lambda: market(feedback=lambda past: [[1.0, 2.0], [2.0, 1.0]]),
    "feedback.*have shape": lambda: market(feedback=lambda past: np.ones(3)),
    "rounds=.*at least 1": lambda: market(rounds=0),
    "names=": lambda: market(names=["one"]),
    "profile.theta=.*nonnegative": lambda: market().profile([-1, 0], np.zeros((2, 2)), [0, 0]),
    "profile.signals=.*shape": lambda: market().profile([0, 0], np.zeros(2), [0, 0]),
    "signal_noise.1.=.*definite": lambda: market().profile(
        [0, 0], np.zeros((2, 2)), [0, 0], [np.eye(2), np.ones((2, 2))]
    ),
    "history.recommendations=.*fewer": lambda: market().history([0, 0], np.zeros((2, 2))),
    "history.recommendations=.*be in 0": lambda: market().history([2], np.zeros((1, 2))),
    "history.feedback=.*shape": lambda: market().history([0], np.zeros((2, 2))),
    "nodes=.*even": lambda: st.solve_assistant(market(), reports(market()), nodes=7),
    "nodes=.*reduce the rounds, the products or the nodes": lambda: st.solve_assistant(
        market(6), reports(market(6))
    ),
    "rule=.*'cells' or 'hermite'": lambda: st.solve_assistant(
        market(), reports(market()), rule="simpson"
    ),
    "lookahead=": lambda: st.bound_assistant(market(), reports(market()), lookahead=3),
    "groves=": lambda: st.AssistantMechanism(market(), types(market()), "pivot"),
    "AssistantMechanism.groves=.*function of": lambda: st.AssistantMechanism(
        market(), types(market()), dm.groves.DataDriven()
    ),
    "types=": lambda: st.AssistantMechanism(market(), types(market())[:1]),
    "audit.profile=": lambda: st.AssistantMechanism(market(), types(market())).audit(
        reports(market()).replace(0, theta=0.25)
    ),
    "AssistantTypes.*shapes": lambda: st.AssistantTypes([0.1], [0.0, 0.0], np.eye(2)),
    "AssistantTypes.theta=.*nonnegative": lambda: st.AssistantTypes(
        [-0.1], [[0.0, 0.0]], np.eye(2)
    ),
    "AssistantTypes.noise.0.=": lambda: st.AssistantTypes([0.1], [[0.0, 0.0]], np.zeros((2, 2))),
    "payment.estimate=": lambda: st.AssistantMechanism(market(), types(market())).payment(
        reports(market()), 0, [1.0]
    ),
    "payment.recommendation=": lambda: st.AssistantMechanism(market(), types(market())).payment(
        reports(market()), 2, [1.0, 0.0]
    ),
    "misreport_gain.agent=": lambda: st.AssistantMechanism(
        market(), types(market())
    ).misreport_gain(reports(market()), 2),
    "least_message_gain.env=": lambda: st.least_message_gain(
        market(), types(market())[0], reports(market()), 0
    ),
    "least_message_gain.agent=": lambda: st.least_message_gain(
        market(1), types(market())[0], reports(market()), 5
    ),
    "draws=": lambda: st.simulate_assistant(
        market(), reports(market()), reports(market()), jax.random.key(0), 1
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_have_clear_errors(message):
    with pytest.raises(ValueError, match=message) as caught:
        MISTAKES[message]()
    assert isinstance(caught.value, DynmechError)
