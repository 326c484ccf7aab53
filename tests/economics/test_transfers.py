"""What is paid: the team transfer for every action, ledgers of conversations, Groves terms."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market
from tests.helpers.quantities import TOLERANCE, market_of, solve
from tests.helpers.small import logit_market

NAMES = ("chair", "table", "lamp")
GROVES = {
    "zero": dm.groves.Zero(),
    "ex ante": dm.groves.ExAnte(),
    "no subsidy": dm.groves.NoSubsidy(),
    "participation": dm.groves.Participation(),
    "floor": dm.groves.WindowFloor(),
    "ceiling": dm.groves.WindowCeiling(),
}


@pytest.fixture(scope="module")
def policy():
    return solve(logit_market(n=3, horizon=2, seed=2, names=NAMES, platform=None))


def transfer(gamma, theta, action, w):
    """Paper C, Definition 4, as printed on the model page, without the Groves term."""
    n, paid = len(theta), []
    for i in range(n):
        p = -gamma[i] @ w if action == i else 0.0
        for j in range(n):
            if j != i and action == j:
                p -= theta[j] + gamma[j] @ w
        paid.append(p)
    return np.array(paid)


@pytest.mark.parametrize("action", range(5))
def test_payment_of_every_action(policy, action):
    mechanism, rng = dm.DynamicTeamMechanism(policy), np.random.default_rng(action)
    gamma, theta, w = policy.env.gamma, rng.normal(size=3), rng.normal(size=2)
    expected = transfer(gamma, theta, action, w)
    for code in (action, jnp.asarray(action)):
        found = mechanism.payment(theta, code, w)
        assert found.shape == (3,)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    # The estimated utility of the product bought stands for the taste.
    utility = gamma[action] @ w if action < 3 else 123.0
    np.testing.assert_allclose(
        mechanism.payment(theta, action, utility), expected, rtol=0, atol=1e-14
    )
    assert expected.any() == (action < 3)


def test_payment_under_jit_vmap_and_grad(policy):
    mechanism, rng = dm.DynamicTeamMechanism(policy), np.random.default_rng(0)
    gamma, count = policy.env.gamma, 40
    theta, w = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
    action = rng.integers(0, 5, count)
    expected = np.stack([transfer(gamma, *x) for x in zip(theta, action, w)])
    paid = jax.jit(jax.vmap(mechanism.payment))(theta, action, w)
    np.testing.assert_allclose(paid, expected, rtol=0, atol=1e-14)
    jitted = jax.jit(mechanism.payment)
    for k in range(5):
        np.testing.assert_allclose(jitted(theta[k], k, w[k]), transfer(gamma, theta[k], k, w[k]))
    slope = jax.jacobian(lambda q: mechanism.payment(theta[0], 1, q))(0.7)
    np.testing.assert_allclose(slope, -np.ones(3))


def test_own_report_moves_only_what_others_pay(policy):
    """p_i does not depend on theta_i: reports matter through what is done alone."""
    slope = jax.jacobian(
        lambda theta: dm.DynamicTeamMechanism(policy).payment(theta, 2, jnp.asarray(0.3))
    )(jnp.asarray([0.2, 0.4, 0.6]))
    np.testing.assert_array_equal(slope, [[0, 0, -1], [0, 0, -1], [0, 0, 0]])


@pytest.mark.parametrize("name", GROVES)
def test_ledger_adds_up(policy, name):
    mechanism = dm.DynamicTeamMechanism(policy, groves=GROVES[name])
    profile = ((1, 0, 1), (0, 1, 0, 1))
    start = policy.start(*profile)
    later = start.step("query", {"platform": 1, "chair": 0})
    bought = max(later.recommendation, start.recommendation)
    total = mechanism.groves_total[(slice(None), *profile[0], *profile[1])]
    ends = [
        (start.step("exit"), None),
        (later.step("query"), None),
        (later.step("exit"), None),
        (start.step(start.recommendation), 0.75),
        (later.step(bought), -0.25),
        (later.step(bought), np.array([0.4, 1.1])),
    ]
    for chat, estimate in ends:
        ledger = mechanism.settle(chat, estimate)
        rows = len(chat.turns)
        np.testing.assert_array_equal(ledger.period, np.arange(1, rows + 1))
        np.testing.assert_allclose(ledger.groves[0], total, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(ledger.groves[1:], 0.0)
        np.testing.assert_array_equal(ledger.core[:-1], 0.0)
        turn = chat.turns[-1]
        if estimate is None:
            np.testing.assert_array_equal(ledger.core, 0.0)
            assert np.isnan(ledger.estimate).all()
        else:
            w = estimate
            utility = w if np.ndim(w) == 0 else policy.env.gamma[turn.action] @ w
            core = -(turn.theta[turn.action] + utility) * np.ones(3)
            core[turn.action] = -utility
            np.testing.assert_allclose(ledger.core[-1], core, rtol=0, atol=1e-14)
            np.testing.assert_allclose(ledger.estimate[-1], utility, rtol=0, atol=1e-15)
        np.testing.assert_allclose(ledger.transfer, ledger.core + ledger.groves)
        np.testing.assert_allclose(ledger.revenue, ledger.transfer.sum(1))
        np.testing.assert_array_equal(ledger.action, [t.action for t in chat.turns])
        np.testing.assert_array_equal(ledger.recommendation, [t.recommendation for t in chat.turns])


def test_ledger_as_a_table(policy):
    mechanism = dm.DynamicTeamMechanism(policy)
    chat = policy.start((0, 0, 0), (0, 0, 0, 0)).step("query", (0, 0, 0, 0))
    shown = NAMES[chat.recommendation]
    frame = mechanism.settle(chat.step(shown), 0.5).to_frame()
    assert len(frame) == 2 * 3
    assert list(frame["advertiser"]) == [*NAMES, *NAMES]
    assert list(frame["action"])[::3] == ["query", f"buy {shown}"]
    ledger = mechanism.settle(chat.step(shown), 0.5)
    np.testing.assert_allclose(frame["transfer"].sum(), ledger.revenue.sum(), rtol=1e-14)


class Paid(dm.AbstractGroves):
    reads_own: ClassVar[bool] = False

    def total(self, own):
        return np.full(own.marginal.shape[:2], -1.0)


def test_nothing_is_charged_as_zero(policy):
    """A total below zero, due in the first round, is no -0 in those after."""
    mechanism = dm.DynamicTeamMechanism(policy, groves=Paid())
    chat = policy.start((0, 0, 0), (0, 0, 0, 0)).step("query", (0, 0, 0, 0)).step("exit")
    ledger = mechanism.settle(chat)
    np.testing.assert_array_equal(ledger.groves, [[-1.0] * 3, [0.0] * 3])
    assert not np.signbit(ledger.groves[1]).any()


def test_settlement_uses_the_values_then_in_force():
    """Markov values: the transfer of period 2 is in the values of period 2."""
    policy = solve(logit_market(horizon=2, seed=4, markov=True, advertisers=None))
    support = policy.env.values.support
    chat = policy.start((0, 0), (0, 0, 0)).step("query", (0, 0, 0), theta=(1, 1))
    np.testing.assert_array_equal(chat.theta, support[:, 1])
    bought = chat.recommendation
    core = dm.DynamicTeamMechanism(policy).settle(chat.step(bought), 0.0).core[-1]
    assert core[bought] == 0.0
    np.testing.assert_allclose(core[1 - bought], -support[bought, 1], rtol=1e-15)


def test_expected_ledgers_are_the_expected_payments(policy):
    """Mean transfer over everything that can happen = the audit's budget at that profile."""
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.WindowCeiling())
    env, where = policy.env, ((1, 0, 1), (0, 1, 0, 0))
    u = env.utilities

    def expected(chat, reach):
        """Unnormalised: `reach` (m,) is the chance of being here, jointly with the taste."""
        total = np.zeros(3)
        edge = chat.step("query", (0,) * 4) if chat.period == 1 else chat.step("query")
        law = policy.compiled.actions(np.array([edge.turns[-1].edge]))[0]
        for j in np.flatnonzero(law[:3] @ reach > 0):
            mean = (reach * law[j] * u[j]).sum() / (reach @ law[j])
            core = mechanism.settle(chat.step(int(j)), mean).core[-1]
            total += (reach @ law[j]) * core
        if chat.period == 2:
            return total
        shown, seen = chat.recommendation, 0.0
        cuts, noise = env.signals.feedback.cut_points[shown], float(env.signals.feedback.noise)
        for z in range(3):
            edges = np.array([-np.inf, *cuts, np.inf])[z : z + 2]
            normal = jax.scipy.special.ndtr((edges[:, None] - u[shown]) / noise)
            likelihood = np.asarray(normal[1] - normal[0])
            after = chat.step("query", (z, 0, 0, 0))
            total += expected(after, reach * law[4] * likelihood)
            seen += likelihood
        np.testing.assert_allclose(seen, 1.0, rtol=0, atol=1e-12)
        return total

    chat = policy.start(*where)
    at = (slice(None), *where[0], *where[1])
    paid = expected(chat, chat.belief) + mechanism.groves_total[at]
    atol = TOLERANCE * env.money_scale
    np.testing.assert_allclose(mechanism.audit().budget.payments[at], paid, rtol=0, atol=atol)


@pytest.mark.parametrize("constant", [False, True])
def test_ex_ante_term(constant):
    case = random_market(np.random.default_rng(5), zeros=0.3, constant=constant)
    policy = solve(market_of(case))
    weight = policy.probability()
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.ExAnte())
    possible = weight > 0
    for i in range(2):
        mean = (weight * policy.marginal_value[i])[possible].sum()
        np.testing.assert_allclose(mechanism.groves_total[i], mean, rtol=0, atol=1e-12)
    audit = mechanism.audit()
    slack = policy.ex_ante_value - policy.ex_ante_marginal_value
    np.testing.assert_allclose(audit.ex_ante_participation, slack, rtol=0, atol=1e-12)
    assert (slack >= 0).all()  # Proposition 1: individually rational ex ante


def test_sampled_ex_ante_term_is_the_mean_of_the_batch():
    env = logit_market(seed=2)
    batch = env.sample_profiles(jax.random.key(0), 6)
    policy = solve(env, initial=batch)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.ExAnte(sampled=True))
    expected = np.broadcast_to(policy.marginal_value.mean(1)[:, None], (2, 6))
    np.testing.assert_allclose(mechanism.groves_total, expected, rtol=0, atol=1e-14)
