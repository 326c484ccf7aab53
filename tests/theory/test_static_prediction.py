"""Joint prediction: Examples 1, 3 and 5, Claim 1, with the corrected transfer."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from dynmech import TasteGrid
from dynmech import static as st

EXACT = 1e-9
GAMES = {
    "two": ([0.0, 1.0], [1.0, 2.0], 1.0),
    "three": ([1.5, -1.0, 2.0], [0.5, 1.0, 3.0], 2.0),
    "correlated": ([1.2, 0.9, -0.4], [[1.0, 0.5, 0.1], [0.5, 2.0, 0.0], [0.1, 0.0, 0.7]], 1.5),
}


@pytest.fixture(params=GAMES)
def game(request):
    return st.JointPrediction(*GAMES[request.param])


def regress(game, signals, kept):
    """E[omega | s] and Var by the joint covariance of (omega, s): another route."""
    tau = float(game.prior_variance)
    noise = np.asarray(game.noise)[np.ix_(kept, kept)]
    weights = np.linalg.solve(noise + tau, np.full(len(kept), tau))
    return float(weights @ np.asarray(signals)[kept]), tau - tau * weights.sum()


def signals_of(game, seed=0):
    return np.random.default_rng(seed).normal(size=game.agents) * 1.5


def test_example_1_efficient_allocation(game):
    """Example 1: x* = mean theta + E[omega | s]; with independent noise the printed weights."""
    s, everyone = signals_of(game), list(range(game.agents))
    mean, variance = regress(game, s, everyone)
    assert float(game.posterior_mean(s)) == pytest.approx(mean, abs=EXACT)
    assert 1 / float(game.posterior_precision()) == pytest.approx(variance, abs=EXACT)
    theta = np.asarray(game.theta)

    def loss(x):
        return ((x - theta - mean) ** 2).sum()

    assert float(game.allocation(s)) == pytest.approx(minimize_scalar(loss).x, abs=1e-6)
    noise = np.array([1.0, 2.0])
    printed = (s[:2] / noise).sum() / (1 + (1 / noise).sum())
    two = st.JointPrediction(*GAMES["two"])
    assert float(two.posterior_mean(s[:2])) == pytest.approx(printed, abs=EXACT)


def test_example_3_expected_transfer_is_the_corrected_one(game):
    """Example 3: (n-1) [(E[omega|s] - E[omega|s_-i])^2 - (mean theta - mean theta_-i)^2].

    Against the definition (3), (4), integrated over omega given s by Gauss-Hermite (exact). What
    is printed differs.
    """
    s, n, theta = signals_of(game), game.agents, np.asarray(game.theta)
    mean, variance = regress(game, s, list(range(n)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    omega = mean + np.sqrt(variance) * nodes
    weights = weights / weights.sum()
    realised = -np.asarray(game.pivot_transfers(s, omega))
    found = -np.asarray(game.expected_pivot_transfers(s))
    np.testing.assert_allclose(weights @ realised, found, atol=EXACT)
    x = theta.mean() + mean
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        without = theta[rest].mean() + regress(game, s, rest)[0]
        by_hand = sum(
            weights @ ((without - theta[j] - omega) ** 2 - (x - theta[j] - omega) ** 2)
            for j in rest
        )
        assert found[i] == pytest.approx(by_hand, abs=EXACT)
        news = (mean - regress(game, s, rest)[0]) ** 2
        printed = -((theta[rest].mean() - theta[rest]) ** 2).sum() + news
        assert abs(printed - by_hand) > 0.01
        if n == 2:  # "the expected payment for introducing bias (theta_i - theta_j)^2 / 4"
            assert by_hand == pytest.approx(news - (theta[0] - theta[1]) ** 2 / 4, abs=EXACT)


def test_example_3_by_simulation(game):
    """Example 3 ex ante, settled on the state or a noisy estimate: within 5 standard errors."""
    expected = np.asarray(game.ex_ante_pivot_transfers())
    for deviation in (0.0, 0.7):
        found = game.simulate(jax.random.key(3), 200_000, deviation)
        assert (np.abs(found.value - expected) <= 5 * found.error).all()
        assert (found.error < 0.05).all()


def test_footnote_9_ex_ante_transfer():
    """Footnote 9: equal theta, the printed ratio, per other agent; decreasing in sigma_i^2."""
    noise = np.array([0.5, 1.0, 3.0])
    found = np.asarray(st.JointPrediction([0.3] * 3, noise).ex_ante_pivot_transfers())
    for i in range(3):
        rest = sum(1 / noise[j] for j in range(3) if j != i)
        ratio = (1 / noise[i]) / ((1 + rest) * (1 + rest + 1 / noise[i]))
        assert found[i] / 2 == pytest.approx(-ratio, abs=EXACT)
    paid = [
        float(st.JointPrediction([0.3] * 3, [v, 1.0, 3.0]).ex_ante_pivot_transfers()[0])
        for v in (0.5, 1.0, 2.0)
    ]
    assert (np.diff(paid) > 0).all()


def test_proposition_1_in_closed_form(game):
    """Proposition 1: a lie (theta', s', sigma') that moves the decision loses n (x' - x*)^2."""
    n, s = game.agents, signals_of(game)
    mean, variance = regress(game, s, list(range(n)))
    theta, rng = np.asarray(game.theta), np.random.default_rng(1)

    def payoff(x):  # u_0 plus her transfer, up to h: minus everybody's expected loss
        return -sum((x - t - mean) ** 2 + variance for t in theta)

    for _ in range(5):
        told = st.JointPrediction(
            np.append(rng.normal(), theta[1:]), np.asarray(game.noise) * rng.uniform(0.5, 2),
            game.prior_variance,
        )  # fmt: skip
        x = float(told.allocation(np.append(rng.normal(), s[1:])))
        loss = payoff(float(game.allocation(s))) - payoff(x)
        assert float(game.loss_from_lying(s, x)) == pytest.approx(loss, abs=1e-8)
        assert loss >= 0


def test_definition_6_biased_estimator(game):
    """Definition 6 in closed form: bias b gives epsilon (n-1)^2 b^2 / n, found by optimisation."""
    n, s, bias = game.agents, signals_of(game), 0.6
    mean, _ = regress(game, s, list(range(n)))
    theta = np.asarray(game.theta)

    def negative(x):
        others = ((x - theta[1:] - mean - bias) ** 2).sum()
        return (x - theta[0] - mean) ** 2 + others

    best = minimize_scalar(negative, options={"xtol": 1e-12})
    gain = negative(float(game.allocation(s))) - best.fun
    assert float(game.bias_epsilon(bias)) == pytest.approx(gain, abs=1e-8)
    assert float(game.bias_epsilon(0.0)) == 0


def test_theorem_1_reaches_quadratic_payoffs_if_x_does_not_move_the_noise():
    """Theorem 1, a step beyond: u is affine in omega up to a term without x, so noise is harmless.

    If the noise depends on x, that term does too, and the agent can choose it.
    """
    s = np.array([-1.0, 0.5, 2.0])
    env = st.StaticEnvironment(
        lambda i, x, omega, t: -((x[0] - t - omega[0]) ** 2),
        np.linspace(-2, 2, 9)[:, None], TasteGrid(s[:, None], [0.2, 0.5, 0.3]),
        [[0.0, 1.0], [-0.5, 0.5]],
        st.PrivateSignals.independent([[[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]] * 2),
    )  # fmt: skip
    noisy = st.Estimator.gaussian(env.states, 0.8)
    audit = st.data_driven_vcg(env, noisy).audit()
    assert audit.epsilon <= audit.tolerance
    kernel = np.tile(np.eye(3, 3 * 9 + 3, 27), (9, 1, 1))
    kernel[4] = np.hstack([noisy.kernel, np.zeros((3, 3))])
    some = st.Estimator(np.concatenate([noisy.points, s[:, None]]), kernel)
    np.testing.assert_allclose(some.bias(env), 0, atol=1e-12)
    assert st.data_driven_vcg(env, some).audit().epsilon > 0.01


def test_claim_1_profitable_lie(game):
    """Claim 1 and Example 5: generalised VCG on messages, the best lie found by optimisation."""
    n, s, theta = game.agents, signals_of(game), np.asarray(game.theta)
    mean, variance = regress(game, s, list(range(n)))

    def payoff(told_theta, told_signal):
        reports = np.append(told_theta, theta[1:])
        guess, spread = regress(game, np.append(told_signal, s[1:]), list(range(n)))
        x = reports.mean() + guess
        own = -((x - theta[0] - mean) ** 2) - variance
        return own - sum((x - t - guess) ** 2 + spread for t in theta[1:])

    lie_theta, lie_signal, gain = (float(item) for item in game.message_lie(0, s))
    truth = payoff(theta[0], s[0])
    assert payoff(lie_theta, lie_signal) - truth == pytest.approx(gain, abs=1e-8)
    best = minimize(lambda z: -payoff(*z), [theta[0], s[0]], method="BFGS")
    assert -best.fun - truth == pytest.approx(gain, abs=1e-6)
    assert gain > 0.1


def test_claim_1_contradiction():
    """Claim 1: the h_1 that both one-dimensional problems require would vary with theta_1.

    For fixed signals the VCG transfer is -(theta_1-theta_2)^2/4 - Var + h_1(theta_2, s), for fixed
    theta -(theta_1-theta_2) E[omega|s] + k_1(s_2, theta); each alone is incentive compatible.
    """
    game = st.JointPrediction(*GAMES["two"])
    s, theta = np.array([0.4, -0.2]), np.asarray(game.theta)
    mean, variance = regress(game, s, [0, 1])

    def worth(x):
        return -((x - theta[0] - mean) ** 2) - variance

    def in_theta(told):
        x = (told + theta[1]) / 2 + mean
        return worth(x) - (told - theta[1]) ** 2 / 4 - variance

    def in_signal(told):
        guess, _ = regress(game, np.array([told, s[1]]), [0, 1])
        return worth(theta.mean() + guess) - (theta[0] - theta[1]) * guess

    for objective, truth in ((in_theta, theta[0]), (in_signal, s[0])):
        found = minimize_scalar(lambda z, f=objective: -f(z), bracket=(-5, 5))
        assert found.x == pytest.approx(truth, abs=1e-5)

    def required(first):  # h_1(theta_2; s) - h_1(theta_2; s'_1, s_2)
        other = regress(game, np.array([1.4, s[1]]), [0, 1])[0]
        return -(first - theta[1]) * (mean - other)

    slope = required(2.0) - required(1.0)
    assert slope == pytest.approx(regress(game, np.array([1.4, -0.2]), [0, 1])[0] - mean)
    assert abs(slope) > 0.1


def test_closed_forms_are_traceable(game):
    """Transfers may be differentiated in theta: d p_1 / d theta_1 = 2 (n-1)/n (mean - mean_-1)."""
    s, n = signals_of(game), game.agents

    def paid(theta):
        moved = st.JointPrediction(theta, game.noise, game.prior_variance)
        return moved.expected_pivot_transfers(s)[0]

    theta = np.asarray(game.theta)
    slope = jax.grad(paid)(jax.numpy.asarray(theta))[0]
    expected = 2 * (n - 1) / n * (theta.mean() - theta[1:].mean())
    assert float(slope) == pytest.approx(expected, abs=EXACT)
