"""The Gaussian shopping assistant: section 5.2, Propositions 3, 4 and 9, and slips 5 and 7."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq, linprog, minimize
from scipy.sparse import csr_array
from scipy.stats import multivariate_normal, norm

from dynmech import static as st
from dynmech.static._gaussian import bivariate_normal, product_rule, select_largest

EXACT = 1e-9
SHOWN = np.array([[4.0, 0.1], [0.3, 2.0], [0.1, 0.1]])


def market(rounds=2, feedback=SHOWN, **changes):
    given = {
        "prior_mean": [0.1, -0.2], "prior_covariance": [[1.0, 0.3], [0.3, 1.5]],
        "signal_noise": [2.0, 3.0], "context_noise": 1.5, **changes,
    }  # fmt: skip
    return st.ShoppingAssistant(feedback=feedback, rounds=rounds, **given)


def reports(env):
    return env.profile([0.2, 0.3], [[0.3, 0.1], [-0.5, 0.4]], [0.2, -0.1])


def types(env, structures=True):
    signals = [[0.3, 0.1], [-0.5, 0.4], [1, 1], [-1, -1], [2, -2], [-2, 2]]
    other = [0.5 * np.eye(2)] if structures else []
    return [
        st.OwnTypes([0, 0.2, 0.3, 0.6, 1.5], signals, np.stack([env.signal_noise[i], *other]))
        for i in range(2)
    ]


def option(mean, deviation):
    """E max(N(mean, deviation^2), 0)."""
    return mean * norm.cdf(mean / deviation) + deviation * norm.pdf(mean / deviation)


def posterior(env, covariance, history):
    """Covariance and news of the last reaction, by joint covariances: another route."""
    for t in range(len(history)):
        noise = np.linalg.inv(env.precision(history[: t + 1]))
        news = covariance @ np.linalg.solve(covariance + noise, covariance)
        covariance = covariance - news
    return covariance, news


# Gaussian maxima -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_expected_maximum_against_two_dimensional_integration(seed):
    rng = np.random.default_rng(seed)
    root, mean = rng.normal(size=(2, 2)), rng.normal(size=2)
    covariance = root @ root.T + 0.2 * np.eye(2)
    own, slope = np.sqrt(covariance[0, 0]), covariance[0, 1] / covariance[0, 0]
    rest = np.sqrt(covariance[1, 1] - slope * covariance[0, 1])

    def inside(x):  # E max(Y, top) given X = x
        top = max(x, 0.0)
        return (top + option(mean[1] + slope * (x - mean[0]) - top, rest)) * norm.pdf(
            x, mean[0], own
        )

    ends = mean[0] - 10 * own, mean[0] + 10 * own
    found = quad(inside, *ends, points=[0.0, mean[0]], epsabs=1e-12, limit=200)[0]
    assert float(st.expected_maximum(mean, covariance)) == pytest.approx(found, abs=EXACT)
    # Without the outside option: Clark's formula.
    up = mean + 30
    theta = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    ratio = (up[0] - up[1]) / theta
    clark = up[0] * norm.cdf(ratio) + up[1] * norm.cdf(-ratio) + theta * norm.pdf(ratio)
    assert float(st.expected_maximum(up, covariance)) == pytest.approx(clark, abs=1e-12)


def test_selection_and_the_bivariate_normal():
    rng = np.random.default_rng(1)
    for h, k, rho in [
        *rng.normal(size=(6, 3)),
        (0.0, 0.0, 0.4),
        (0.0, -1.0, 1.0),
        (1.0, 1.0, -1.0),
    ]:
        rho = float(rho if abs(rho) <= 1 else np.tanh(rho))
        law = multivariate_normal([0, 0], [[1, rho], [rho, 1]], allow_singular=True)
        found = bivariate_normal(np.array(h), np.array(k), rho)
        assert float(found) == pytest.approx(law.cdf([h, k]), abs=1e-7)
    mean, covariance = np.array([0.3, -0.1]), np.array([[1.0, 0.4], [0.4, 0.5]])
    chosen = select_largest(mean, covariance)
    assert chosen.probability.sum() == pytest.approx(1, abs=1e-12)
    step = 1e-5  # the probability is the gradient of the expected maximum
    for i in range(2):
        move = step * np.eye(2)[i]
        up, down = (st.expected_maximum(mean + s * move, covariance) for s in (1, -1))
        assert chosen.probability[i] == pytest.approx((up - down) / (2 * step), abs=1e-8)
    for degenerate in (np.zeros((2, 2)), np.array([[1.0, 1.0], [1.0, 1.0]])):
        found = float(st.expected_maximum(mean, degenerate))
        z = mean + np.linspace(-9, 9, 400_001)[:, None] * np.sqrt(degenerate[0, 0])
        weights = norm.pdf(np.linspace(-9, 9, 400_001))
        by_hand = np.maximum(z.max(axis=1), 0) @ weights / weights.sum()
        assert found == pytest.approx(by_hand, abs=1e-8)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_rules_bracket_convex_functions(dimensions):
    """Jensen below, spreads above, with the tail at the slope; Gauss-Hermite exact on moments."""
    slope = np.array([1.0, 0.6, -0.8])[:dimensions]
    deviation = float(np.linalg.norm(slope))
    truth, gaps = option(0.3, deviation), []
    for nodes in (8, 16):
        low, high = (product_rule(kind, nodes, dimensions) for kind in ("below", "above"))
        worth = [rule.weights @ np.maximum(0.3 + rule.nodes @ slope, 0) for rule in (low, high)]
        worth[1] += high.tail * np.abs(slope).sum()
        assert worth[0] <= truth <= worth[1]
        gaps.append(worth[1] - worth[0])
    assert gaps[1] < 0.5 * gaps[0]
    hermite = product_rule("hermite", 8, dimensions)
    assert hermite.weights @ (hermite.nodes @ slope) ** 4 == pytest.approx(3 * deviation**4)


# Beliefs ---------------------------------------------------------------------------------------


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


# Values ----------------------------------------------------------------------------------------


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
    for nodes in (8, 64):
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
    env, swap = market(3), np.array([1, 0])
    profile = reports(env)
    base = st.solve_assistant(env, profile, nodes=8)
    other = market(
        3, SHOWN[[1, 0, 2]][:, swap], prior_mean=env.prior_mean[swap],
        prior_covariance=env.prior_covariance[swap][:, swap], signal_noise=[3.0, 2.0],
    )  # fmt: skip
    turned = other.profile(
        profile.theta[swap], profile.signals[swap][:, swap], profile.context[swap]
    )
    found = st.solve_assistant(other, turned, nodes=8)
    assert found.value == pytest.approx(base.value, abs=1e-3)
    assert found.worth.lower == pytest.approx(base.worth.lower, abs=1e-4)
    scaled = market(
        3, SHOWN / 9, prior_mean=3 * env.prior_mean, prior_covariance=9 * env.prior_covariance,
        signal_noise=9 * env.signal_noise, context_noise=9 * env.context_noise,
    )  # fmt: skip
    money = scaled.profile(3 * profile.theta, 3 * profile.signals, 3 * profile.context)
    found = st.solve_assistant(scaled, money, nodes=8)
    np.testing.assert_allclose(found.action_values, 3 * base.action_values, atol=1e-10)


# Incentives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_proposition_4_no_report_gains_at_any_history(rounds):
    """Theta, signal and structure misreported, at the outset and at histories: gain 0.

    Settled on the mechanism's own posterior means instead, lies pay: Proposition 3 and after.
    """
    env = market(rounds)
    profile, nodes = reports(env), 8
    mechanism = st.AssistantMechanism(env, types(env), nodes=nodes)
    histories = [None]
    if rounds > 1:
        histories += [env.history([0], [[0.4, -0.5]]), env.history([-1], [[-1.0, 2.0]])]
    if rounds > 2:
        histories += [env.history([1, 0], [[0.1, 0.7], [-0.9, 0.0]])]
    for history in histories:
        audit = mechanism.audit(profile, history)
        assert (audit.incentive_gain <= audit.tolerance).all()
        assert (audit.message_gain > 0.1).all()
        worst = audit.message_witness[0]
        report = {"theta": worst.theta, "signal": worst.signal, "noise": worst.noise}
        data, words = mechanism.misreport_gain(profile, 0, **report, history=history)
        assert data <= audit.tolerance
        assert words == pytest.approx(worst.gain, abs=1e-12)
        assert "first" not in worst.sentence()
        assert "gains" in worst.sentence()
    value = st.solve_assistant(env, profile, nodes=nodes).worth.quadrature
    assert mechanism.audit(profile).value == pytest.approx(value, abs=1e-10)


def test_lies_that_move_the_decision_lose_what_they_cost():
    """T = 1: a lie that has j shown instead of i loses a_i - a_j, exactly; others lose nothing."""
    env = market(1)
    profile = reports(env)
    mechanism = st.AssistantMechanism(env, types(env))
    level = profile.theta + env.belief(profile).mean
    assert level[0] > level[1] > 0
    for signal in ([-3.0, 1.0], [5.0, 0.0], [-9.0, -9.0], [-3.0, 3.0]):
        told = profile.replace(0, theta=0.0, signal=signal)
        seen = told.theta + env.belief(told).mean
        worth = level[np.argmax(seen)] if seen.max() > 0 else 0.0
        data, _ = mechanism.misreport_gain(profile, 0, 0.0, signal)
        assert data == pytest.approx(worth - level[0], abs=EXACT)


def test_proposition_3_any_message_driven_transfers():
    """The least gain over *all* transfers on messages, by linear program.

    Half the cutoffs' spread. The program's types: all signals, and theta on a grid, so that its
    optimum is the closed form up to the grid.
    """
    env = market(1)
    profile = reports(env)
    grid = np.linspace(0, 1.5, 31)
    own = st.OwnTypes(grid, types(env)[0].signals, env.signal_noise[0])
    found = st.least_message_gain(env, own, profile, 0)
    assert found > 0.1
    means = [env.belief(profile.replace(0, signal=s)).mean for s in own.signals]
    shown = np.concatenate([grid + m[0] >= max(profile.theta[1] + m[1], 0) for m in means])
    theta, count = np.tile(grid, len(means)), len(means) * len(grid)
    a, b = (index.ravel() for index in np.indices((count, count)))
    a, b = a[shown[a] != shown[b]], b[shown[a] != shown[b]]
    at = np.arange(len(a))
    rows = csr_array(  # t_b - t_a - epsilon <= theta_a (1{a is shown} - 1{b is shown})
        (
            np.concatenate([np.ones(len(a)), -np.ones(len(a)), -np.ones(len(a))]),
            (np.tile(at, 3), np.concatenate([b, a, np.full(len(a), count)])),
        )
    )
    bound = theta[a] * (shown[a].astype(float) - shown[b])
    box = [(None, None)] * count + [(0, None)]
    done = linprog(np.eye(count + 1)[-1], rows, bound, bounds=box, method="highs")
    assert done.fun <= found + 1e-7
    assert done.fun == pytest.approx(found, abs=2 * (grid[1] - grid[0]))


def test_message_driven_gain_is_unbounded_in_the_lie():
    """T = 1: she is paid E[omega_i | report]: each unit of the signal adds its weight, for ever."""
    env = market(1)
    profile = reports(env)
    mechanism = st.AssistantMechanism(env, types(env))
    gains = [mechanism.misreport_gain(profile, 0, signal=[s, 0.1])[1] for s in (5.0, 6.0, 7.0)]
    weight = env.belief(profile).covariance @ np.linalg.inv(env.signal_noise[0])
    np.testing.assert_allclose(np.diff(gains), weight[0, 0], atol=EXACT)


def test_transfers_are_the_papers():
    env = market(2)
    mechanism = st.AssistantMechanism(env, types(env))
    paid = mechanism.transfers(reports(env), 1, [0.5, -0.4])
    np.testing.assert_allclose(paid, [0.3 - 0.4, -0.4])
    np.testing.assert_array_equal(mechanism.transfers(reports(env), -1, [0.5, -0.4]), 0)


# The average of the remaining reactions ---------------------------------------------------------


def later_recommendation(env, reported, omega, first):
    """P(x_2 = r | omega, x_1), two rounds: the filter's mean is Gaussian given omega."""
    told = env.belief(reported)
    noise = np.linalg.inv(env.precision((first,)))
    gain = told.covariance @ np.linalg.inv(told.covariance + noise)
    mean = told.mean + gain @ (omega - told.mean) + reported.theta
    return select_largest(mean, gain @ noise @ gain.T).probability


def test_average_is_not_independent_of_reports_but_its_mean_is():
    """Slip 7: given omega, h_1 and x_1 the average's variance moves with the report, its mean not.

    Variance by hand: (R_1 + sum_r P(x_2 = r | omega) R_2(r)) / 4, R the noises. The gain of the
    very same report is still not positive.
    """
    env = market(2)
    truth, omega = reports(env), np.array([0.4, -0.6])
    lie = truth.replace(0, signal=[1.2, -1.5])
    plans = [st.solve_assistant(env, told) for told in (truth, lie)]
    first = plans[0].recommendation
    assert first == plans[1].recommendation == 0
    noise = {r: np.diag(np.linalg.inv(env.precision((first, r)))) for r in (0, 1, -1)}
    variances = []
    for seed, told in enumerate((truth, lie)):
        talk = st.simulate_play(env, truth, told, jax.random.key(seed), 40_000, omega=omega)
        average = talk.estimate[:, 0]
        chance = later_recommendation(env, told, omega, first)
        for k, r in enumerate((0, 1, -1)):
            share = (talk.recommendation[:, 1] == r).mean()
            assert share == pytest.approx(chance[k], abs=5 * np.sqrt(0.25 / 40_000))
        now = np.diag(np.linalg.inv(env.precision((first,))))
        by_hand = (now + sum(chance[k] * noise[r] for k, r in enumerate((0, 1, -1)))) / 4
        error = average.std(axis=0) / np.sqrt(40_000)
        assert (np.abs(average.mean(axis=0) - omega) <= 5 * error).all()
        squares = (average - omega) ** 2
        error = squares.std(axis=0) / np.sqrt(40_000)
        assert (np.abs(squares.mean(axis=0) - by_hand) <= 5 * error).all()
        variances.append(by_hand)
    assert np.abs(variances[0] - variances[1]).max() > 0.5
    mechanism = st.AssistantMechanism(env, types(env))
    data, words = mechanism.misreport_gain(truth, 0, signal=lie.signals[0])
    assert data <= 1e-12
    assert words != pytest.approx(data, abs=1e-3)


@pytest.mark.parametrize("rounds", [2, 3])
def test_realised_averages_settle_to_what_the_audit_expects(rounds):
    """Team payments from simulated conversations, under truth and a lie: 5 standard errors."""
    env = market(rounds)
    truth, nodes = reports(env), 8
    lie = truth.replace(0, theta=0.6, signal=[1.0, 1.0], noise=0.5 * np.eye(2))
    mechanism = st.AssistantMechanism(env, types(env), "zero", nodes=nodes)
    worth = mechanism.audit(truth)
    for seed, told in enumerate((truth, lie)):
        talk = st.simulate_play(env, truth, told, jax.random.key(seed), 30_000, nodes=nodes)
        seen = talk.recommendation[..., None] == np.arange(2)
        # Agent 0: theta_0 earned, plus what she is paid. She is truthful about others' theta.
        paid = {
            "data": (talk.estimate * seen).sum(axis=(1, 2)),
            "words": (talk.quote * seen).sum(axis=(1, 2)),
        }
        earned = (seen * truth.theta).sum(axis=(1, 2))
        gains = mechanism.misreport_gain(
            truth, 0, told.theta[0], told.signals[0], told.signal_noise[0]
        )
        payoff = {kind: money + earned for kind, money in paid.items()}
        honest = {"data": worth.participation[0], "words": None}
        error = payoff["data"].std() / np.sqrt(30_000)
        expected = honest["data"] + gains[0]
        slack = 2e-3 if rounds == 3 else 0.0  # the audit's quadrature, see its bracket
        assert payoff["data"].mean() == pytest.approx(expected, abs=5 * error + slack)
        if told is truth:
            base = payoff["words"].mean(), payoff["words"].std() / np.sqrt(30_000)
        else:
            error = np.hypot(base[1], payoff["words"].std() / np.sqrt(30_000))
            found = payoff["words"].mean() - base[0]
            assert found == pytest.approx(gains[1], abs=5 * error + slack)
            assert gains[1] > 0.1


# Proposition 9 ----------------------------------------------------------------------------------


def revealing(utility, tiny=1e-6):
    """Showing i reveals omega_j, nothing else does; knowing it in round 2 is worth 1/2.

    omega_j ~ N(-1, v): v such that E max(E[omega_j | reaction], 0) = 1/2. Nobody knows anything.
    """
    feedback = [[1.0, 100.0], [tiny, tiny], [tiny, tiny]]

    def build(variance):
        covariance = np.diag([0.01, variance])
        return st.ShoppingAssistant([utility, -1.0], covariance, [1e9, 1e9], 1e9, feedback, 2)

    def excess(variance):
        env = build(variance)
        belief = env.belief(env.profile([0, 0], [env.prior_mean] * 2, env.prior_mean))
        news = posterior(env, belief.covariance, (0,))[1]
        return option(belief.mean[1], np.sqrt(news[1, 1])) - 0.5

    env = build(brentq(excess, 0.1, 50, xtol=1e-13))
    return env, env.profile([0, 0], [env.prior_mean] * 2, env.prior_mean)


def known(env, profile):
    return [st.OwnTypes([0.0], [profile.signals[i]], env.signal_noise[i]) for i in range(2)]


def test_slip_5_participation_fails_by_one_half():
    """omega_i = -3: i is never shown, W = 0, yet Wd^{-i} = 1/2: slack -1/2 under h^-."""
    env, profile = revealing(-3.0)
    plan = st.solve_assistant(env, profile)
    assert plan.value == pytest.approx(0, abs=EXACT)
    assert plan.recommendation == -1
    np.testing.assert_allclose(plan.displayable_marginal_value[0], 0.5, atol=EXACT)
    assert plan.marginal_value[0] == pytest.approx(0, abs=EXACT)
    for groves in ("participation", "no subsidy"):
        audit = st.AssistantMechanism(env, known(env, profile), groves).audit(profile)
        assert audit.participation[0] == pytest.approx(-0.5, abs=EXACT)
        assert audit.no_subsidy[0] == pytest.approx(0.5, abs=EXACT)
    withdrawn = st.AssistantMechanism(env, known(env, profile), displayable=False)
    assert withdrawn.audit(profile).participation[0] == pytest.approx(0, abs=EXACT)


def test_slip_5_withdrawn_pivot_subsidises():
    """omega_i = 1: D_i > 0 = W^{-i}, so no subsidy needs the displayable economy."""
    env, profile = revealing(1.0)
    withdrawn = st.AssistantMechanism(env, known(env, profile), "no subsidy", displayable=False)
    shown = st.AssistantMechanism(env, known(env, profile), "no subsidy")
    assert withdrawn.audit(profile).no_subsidy[0] < -0.1
    found = shown.audit(profile)
    assert found.no_subsidy[0] >= -EXACT
    assert found.participation[0] > 0.5


@pytest.mark.parametrize("rounds", [1, 2])
def test_proposition_9_where_it_holds(rounds):
    """h^+: no subsidy at every profile. h^-: participation, where i's surplus is not negative."""
    env = market(rounds)
    own = [st.OwnTypes.box(env, i, [0.0, 0.4, 3.0], points=2) for i in range(2)]
    rng, kept = np.random.default_rng(2), 0
    for _ in range(8):
        pick = [rng.integers(len(o.signals)) for o in own]
        theta = [o.theta[rng.integers(3)] for o in own]
        signals = [o.signals[k] for o, k in zip(own, pick, strict=True)]
        profile = env.profile(theta, signals, rng.normal(size=2))
        plus = st.AssistantMechanism(env, own, "no subsidy").audit(profile)
        minus = st.AssistantMechanism(env, own, "participation").audit(profile)
        assert (plus.no_subsidy >= -1e-9).all()
        assert (plus.groves_total >= minus.groves_total - 1e-12).all()
        plan = st.solve_assistant(env, profile)
        level = profile.theta + plan.belief.mean
        safe = level >= 0 if rounds == 1 else plan.displayable_marginal_value <= plan.value
        assert (minus.participation[safe] >= -1e-9).all()
        kept += safe.sum()
    assert kept > 6


def test_largest_marginal_value_over_a_box_is_at_a_vertex():
    """Wd^{-i} is convex in s_i: a search inside the box finds nothing above its vertices."""
    env = market(2)
    profile = reports(env)
    box = st.OwnTypes.box(env, 0, [0.2], points=2)
    fine = st.OwnTypes.box(env, 0, [0.2], points=7)
    rest = types(env)[1]
    tops = [
        st.AssistantMechanism(env, [own, rest], "no subsidy").groves_total(profile)[0]
        for own in (box, fine)
    ]
    assert tops[0] == pytest.approx(tops[1], abs=1e-12)

    def negative(signal):
        told = profile.replace(0, signal=signal)
        return -st.solve_assistant(env, told).displayable_marginal_value[0]

    low, high = box.signals.min(axis=0), box.signals.max(axis=0)
    start = (low + high) / 2
    found = minimize(negative, start, bounds=list(zip(low, high, strict=True)), method="L-BFGS-B")
    assert -found.fun <= tops[0] + 1e-9


# Mistakes --------------------------------------------------------------------------------------

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
    "rule=.*'cells', 'hermite'": lambda: st.solve_assistant(
        market(), reports(market()), rule="simpson"
    ),
    "lookahead=": lambda: st.bound_assistant(market(), reports(market()), lookahead=3),
    "groves=": lambda: st.AssistantMechanism(market(), types(market()), "pivot"),
    "types=": lambda: st.AssistantMechanism(market(), types(market())[:1]),
    "audit.profile=": lambda: st.AssistantMechanism(market(), types(market())).audit(
        reports(market()).replace(0, theta=0.25)
    ),
    "OwnTypes.*shapes": lambda: st.OwnTypes([0.1], [0.0, 0.0], np.eye(2)),
    "OwnTypes.theta=.*nonnegative": lambda: st.OwnTypes([-0.1], [[0.0, 0.0]], np.eye(2)),
    "OwnTypes.noise.0.=": lambda: st.OwnTypes([0.1], [[0.0, 0.0]], np.zeros((2, 2))),
    "transfers.estimate=": lambda: st.AssistantMechanism(market(), types(market())).transfers(
        reports(market()), 0, [1.0]
    ),
    "transfers.recommendation=": lambda: st.AssistantMechanism(market(), types(market())).transfers(
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
    "draws=": lambda: st.simulate_play(
        market(), reports(market()), reports(market()), jax.random.key(0), 1
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_have_clear_errors(message):
    with pytest.raises(ValueError, match=message) as caught:
        MISTAKES[message]()
    assert type(caught.value).__module__.startswith("dynmech")
