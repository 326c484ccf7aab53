"""Consistent estimators: Lemmas 1 to 3, 5 and 6, Theorem 2, Corollary 2, Propositions 7 and 8."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import binom

from dynmech import TasteGrid
from dynmech import static as st
from tests.theory.test_static_oracle import EXACT, random_environment

COMMON = np.linspace(0.05, 0.95, 7)


def curved_auction():
    """One item, u_i = theta_i omega^2 x_i: not affine, Lipschitz; equal values are tied."""
    clues = np.stack([COMMON, 1 - COMMON], axis=1)
    return st.StaticEnvironment(
        lambda i, x, omega, t: t * omega[0] ** 2 * x[i],
        np.eye(2), TasteGrid(COMMON[:, None], np.full(7, 1 / 7)), [[1.0, 2.0], [1.0, 2.0]],
        st.PrivateSignals.independent([clues, clues]),
    )  # fmt: skip


def chained(bounds):
    """Check that each bound is at least the one before it."""
    chain = [
        bounds.reports, bounds.any_allocation, bounds.lemma1, bounds.lemma2_posterior,
        bounds.lemma2_state,
    ]  # fmt: skip
    for lower, upper in itertools.pairwise(chain):
        assert (lower <= upper + EXACT).all(), bounds
    return chain


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", ["estimator", "posterior"])
@pytest.mark.parametrize("seed", range(3))
def test_lemmas_1_and_2_bound_the_exact_epsilon(seed, name, affine):
    """Lemma 1 and Lemma 2, (21) to (23): each bound holds, on random instances and data."""
    env, _ = random_environment(seed, affine=affine)
    rng = np.random.default_rng(seed)
    if name == "estimator":
        data = st.Estimator(rng.normal(size=(5, 2)), rng.dirichlet(np.ones(5), size=(3, 3)))
    else:
        data = st.BayesianData(env.states, rng.dirichlet(np.ones(4), size=3))
    chained(st.epsilon_bounds(env, data))


def test_lemma_1_is_tight_where_the_objective_is_flat():
    """Lemma 1 and Definition 6 in closed form: with equal values the winner gains by losing.

    E[omega_hat^2 | omega] = omega^2 + omega (1 - omega) / m, so losing to an equal is worth
    theta E[omega (1 - omega) | s] / m more than winning. Lemma 1's bound is twice that.
    """
    env = curved_auction()
    spread = (env.posterior(0) @ (COMMON * (1 - COMMON))).max()
    for m in (1, 3, 10, 100):
        data = st.Estimator.frequency(env.states, m)
        bounds = st.epsilon_bounds(env, data)
        assert bounds.reports[0] == pytest.approx(2.0 * spread / m, abs=EXACT)
        assert bounds.lemma1[0] == pytest.approx(2 * 2.0 * spread / m, abs=EXACT)
        assert st.data_driven_vcg(env, data).audit().epsilon == pytest.approx(
            bounds.reports.max(), abs=EXACT
        )


def mean_absolute_error(m, p):
    """De Moivre: E|X/m - p| for X binomial(m, p)."""
    top = int(np.floor(m * p)) + 1
    return 2 * top * binom(m, top) * p**top * (1 - p) ** (m - top + 1) / m


def test_frequency_estimator_in_closed_form():
    """The share of successes: unbiased, variance omega (1 - omega) / m, mean error of De Moivre."""
    env = curved_auction()
    for m in (1, 4, 50):
        data = st.Estimator.frequency(env.states, m)
        np.testing.assert_allclose(data.bias(env), 0, atol=1e-12)
        second = data.law(env)[0] @ data.points[:, 0] ** 2
        np.testing.assert_allclose(second - COMMON**2, COMMON * (1 - COMMON) / m, atol=1e-12)
        expected = [mean_absolute_error(m, p) for p in COMMON]
        np.testing.assert_allclose(data.distance(env)[0], expected, atol=1e-12)


def test_theorem_2_condition_1_and_lemma_3_part_1():
    """Theorem 2 and Lemma 3, uniform consistency: every bound, so epsilon, goes to zero."""
    env = curved_auction()
    last = np.full(5, np.inf)
    for m in (1, 10, 100, 1000):
        bounds = st.epsilon_bounds(env, st.Estimator.frequency(env.states, m))
        now = np.array([item.max() for item in chained(bounds)])
        assert (now <= last + EXACT).all()
        last = now
    assert last[0] < 2e-3
    assert last[-1] < 0.11


def test_proposition_7_rate():
    """Proposition 7: at rate q_m = m^0.4, slower than the estimator's m^0.5, q_m epsilon_m -> 0.

    The bound (23) falls like m^-1/2 (De Moivre), epsilon itself like 1/m.
    """
    env, sizes = curved_auction(), np.array([10, 40, 160, 640])
    found = [st.epsilon_bounds(env, st.Estimator.frequency(env.states, int(m))) for m in sizes]
    bound = np.array([b.lemma2_state.max() for b in found])
    epsilon = np.array([b.reports.max() for b in found])
    assert (np.diff(sizes**0.4 * bound) < 0).all()
    assert (np.diff(sizes**0.4 * epsilon) < 0).all()
    errors = [max(mean_absolute_error(m, p) for p in COMMON) for m in sizes]
    slope = np.array([b.lipschitz.max() for b in found])
    np.testing.assert_allclose(bound, 2 * slope * errors, atol=EXACT)
    assert np.polyfit(np.log(sizes), np.log(bound), 1)[0] == pytest.approx(-0.5, abs=0.02)
    assert np.polyfit(np.log(sizes), np.log(epsilon), 1)[0] == pytest.approx(-1.0, abs=1e-6)


def test_proposition_7_needs_uniform_integrability():
    """Proposition 7: without (31) it fails; q_m d -> 0 in probability, q_m epsilon_m -> infinity.

    The estimate is right but for a chance 1/m of being 1, and q_m = m^2.
    """
    states = TasteGrid([[0.0], [1.0]], [0.5, 0.5])
    env = st.StaticEnvironment(
        lambda i, x, omega, t: x[0] * (omega[0] if i else -t), [[0.0], [1.0]], states,
        [[0.3, 2.0], [0.0, 0.0]], st.PrivateSignals.independent([np.eye(2), np.ones((2, 1))]),
    )  # fmt: skip
    scaled = []
    for m in (4, 16, 64):
        wrong = st.Estimator([[0.0], [1.0]], [[1 - 1 / m, 1 / m], [0.0, 1.0]])
        cost = st.StaticEnvironment(
            env.payoff, env.allocations, states, [[0.5 / m, 2.0], [0.0, 0.0]], env.signals
        )
        epsilon = st.epsilon_bounds(cost, wrong).reports[0]
        assert epsilon == pytest.approx(0.5 / m, abs=EXACT)  # 1/m of agent 2's credit less cost
        scaled.append(m**2 * epsilon)
    assert (np.diff(scaled) > 0).all()


def threshold_environment(points, weights, channel):
    """Allocation 1 costs agent 1 0.3 and gives agent 2 omega; only agent 1 sees anything."""
    m = len(points)
    return st.StaticEnvironment(
        lambda i, x, omega, t: x[0] * (omega[0] if i else -0.3),
        [[0.0], [1.0]], TasteGrid(np.asarray(points)[:, None], weights), [[0.0], [0.0]],
        st.PrivateSignals.independent([channel, np.ones((m, 1))]),
    )  # fmt: skip


def wrong_near_zero(points, m):
    """omega_hat_m = omega, but 1 where 0 < omega < 1/m: consistent pointwise, not uniformly."""
    points = np.asarray(points)
    values = np.append(points, 1.0)[:, None]
    outcome = np.where((points > 0) & (points < 1 / m), len(points), np.arange(len(points)))
    return st.Estimator(values, np.eye(len(points) + 1)[outcome])


def test_theorem_2_condition_2_and_lemma_3_part_2_with_densities():
    """Theorem 2, condition 2: pointwise consistency is enough if posteriors have bounded densities.

    P(s = 1 | omega) = omega, omega uniform: E[d | s = 0] = (2/3) (1 - (1 - 1/m)^3), while
    (23) stays near 1.
    """
    N = 2**10
    points = (np.arange(N) + 0.5) / N
    env = threshold_environment(points, np.full(N, 1 / N), np.stack([1 - points, points], 1))
    for m in (2, 8, 32, 128):
        bounds = st.epsilon_bounds(env, wrong_near_zero(points, m))
        expected = 2 * 2 / 3 * (1 - (1 - 1 / m) ** 3)
        assert bounds.lemma2_posterior[0] == pytest.approx(expected, abs=1e-5)
        assert bounds.lemma2_state[0] > 1.99
        chained(bounds)


def test_theorem_2_condition_2_slip_revealing_signals():
    """Theorem 2, condition 2, and Lemma 3, part 2, fail as stated: (9) in W_1 is not enough.

    Agent 1 sees omega: her posteriors are Dirac, W_1(delta_s, delta_s') = |s - s'|, Lipschitz with
    constant 1; the estimator does not depend on x; Psi is a singleton. It is consistent at every
    omega, yet for every m she may know that it will say 1 where omega is near 0: epsilon_m stays
    1 - 0.3 - O(1/m). (The proof bounds |int f d(pi - pi')| by W_1 for f that is not Lipschitz;
    posteriors Lipschitz in total variation, or f_m equicontinuous in omega, would do.)
    """
    points = np.concatenate([[0.0], 2.0 ** -np.arange(13)[::-1]])
    env = threshold_environment(points, np.full(14, 1 / 14), np.eye(14))
    for k in range(12):
        data = wrong_near_zero(points, 2**k)
        epsilon = st.epsilon_bounds(env, data).reports[0]
        assert epsilon == pytest.approx(0.7, abs=EXACT)
        audit = st.data_driven_vcg(env, data).audit()
        assert audit.epsilon == pytest.approx(0.7, abs=EXACT)
        right = data.distance(env)[0] == 0
        assert right[(points == 0) | (points >= 2.0**-k)].all()
    ended = st.epsilon_bounds(env, wrong_near_zero(points, 2**12)).reports[0]
    assert ended == pytest.approx(0, abs=EXACT)  # no state lies between 0 and 1 / m


def test_theorem_2_footnote_10_finite_states():
    """Footnote 10: with finite states pointwise consistency is uniform; epsilon reaches zero."""
    points = np.array([0.0, 0.1, 0.5, 1.0])
    env = threshold_environment(points, np.full(4, 0.25), np.eye(4))
    epsilon = [st.epsilon_bounds(env, wrong_near_zero(points, m)).reports[0] for m in (1, 8, 11)]
    np.testing.assert_allclose(epsilon, [0.7, 0.7, 0.0], atol=EXACT)


def binomial_channel(points, m):
    return st.Estimator.frequency(TasteGrid(points[:, None], np.full(7, 1 / 7)), m).kernel


def test_lemma_5_and_corollary_2_posterior_mean():
    """Lemma 5 and Corollary 2: d(E[omega | y], omega) <= W_1, so the mean is consistent if Y is."""
    env = curved_auction()
    last = np.inf
    for m in (1, 16, 256, 1024):
        channel = binomial_channel(COMMON, m)
        mean = st.Estimator.posterior_mean(env.states, channel)
        whole = st.BayesianData(env.states, channel)
        to_state = np.abs(COMMON[None] - COMMON[:, None])  # W_1 to a Dirac is the mean distance
        w1 = whole.posterior @ to_state
        assert (np.abs(mean.points - COMMON[None]) <= w1 + EXACT).all()
        np.testing.assert_allclose(whole.distance(env)[0], np.sum(whole.kernel * w1.T, axis=1))
        assert (mean.distance(env) <= whole.distance(env) + EXACT).all()
        bounds = st.epsilon_bounds(env, mean)
        chained(bounds)
        assert bounds.lemma2_state.max() <= last
        last = bounds.lemma2_state.max()
    assert last < 1e-3


def test_definition_11_and_proposition_8_bayesian_vcg():
    """Definition 11, Proposition 8 and Lemma 6: Lipschitz payoffs, epsilon -> 0 with sup E W_1."""
    env = curved_auction()
    last = np.inf
    for m in (1, 16, 256, 1024):
        data = st.BayesianData(env.states, binomial_channel(COMMON, m))
        bounds = st.epsilon_bounds(env, data)
        chained(bounds)
        audit = st.data_driven_vcg(env, data, "pivot").audit()
        assert audit.epsilon == pytest.approx(bounds.reports.max(), abs=EXACT)
        assert bounds.lemma2_state.max() <= last
        last = bounds.lemma2_state.max()
    assert last < 1e-3
    revealing = st.data_driven_vcg(env, st.BayesianData(env.states, np.eye(7))).audit()
    assert revealing.epsilon <= revealing.tolerance


def test_definition_11_transfers_by_hand():
    """Definition 11: the transfer is E[u_j(x*, omega, theta_j) | y], by Bayes' rule."""
    env = curved_auction()
    channel = binomial_channel(COMMON, 3)
    mechanism = st.data_driven_vcg(env, st.BayesianData(env.states, channel))
    for y in range(4):
        belief = channel[:, y] / channel[:, y].sum()
        worth = 2.0 * belief @ COMMON**2
        cell = (0, int(np.flatnonzero(env.types[1].theta == 1)[0]))
        assert mechanism.transfer[0][(*cell, y)] == pytest.approx(-worth, abs=EXACT)
        assert mechanism.transfer[1][(*cell, y)] == pytest.approx(0.0, abs=EXACT)


def test_proposition_8_slip_bounded_payoffs_are_not_enough():
    """Proposition 8 needs Lipschitz payoffs (or finitely many states): bounded is not enough.

    u_2 = 1{omega = 0}, a prior without an atom at 0 (here of mass 1e-13), and Y_m the cell of width
    1/m that holds omega. W_1 <= 1/m everywhere, but the posterior never believes in omega = 0,
    which agent 1 may know: epsilon_m = 0.5 for all m, above the proof's 2 ||u|| sup E W_1.
    """
    N = 2**10
    points = np.append(0.0, (np.arange(N) + 0.5) / N)
    weights = np.append(1e-13, np.full(N, (1 - 1e-13) / N))
    knows = np.stack([points == 0, points > 0], axis=1).astype(float)
    env = st.StaticEnvironment(
        lambda i, x, omega, t: x[0] * (jnp.where(omega[0] == 0, 1.0, 0.0) if i else -0.5),
        [[0.0], [1.0]], TasteGrid(points[:, None], weights), [[0.0], [0.0]],
        st.PrivateSignals.independent([knows, np.ones((N + 1, 1))]),
    )  # fmt: skip
    for m in (8, 32, 128):
        data = st.BayesianData(env.states, np.eye(m)[np.minimum((points * m).astype(int), m - 1)])
        audit = st.data_driven_vcg(env, data).audit()
        assert data.distance(env).max() <= 1 / m
        assert audit.epsilon == pytest.approx(0.5, abs=EXACT)
        assert audit.epsilon > 2 * 1.0 * data.distance(env).max()


def test_proposition_8_and_corollary_2_slip_revealing_signals():
    """Proposition 8 (ii), Lemma 6, part 2, and Corollary 2 (ii) fail where Theorem 2's part 2 does.

    Y_m reveals omega but pools (0, 1/m) with (1 - 1/m, 1): posterior consistent at every omega.
    Agent 1 knows omega; near 0 the data say 1/2 on average: epsilon_m = 0.5 - 0.3 for all m.
    """
    steps = 2.0 ** -np.arange(2, 13)
    points = np.sort(np.concatenate([[0.0, 0.5, 1.0], steps, 1 - steps]))
    env = threshold_environment(points, np.full(25, 1 / 25), np.eye(25))
    for m in 2.0 ** np.arange(1, 11):
        near = ((points > 0) & (points < 1 / m)) | ((points < 1) & (points > 1 - 1 / m))
        channel = np.eye(26)[np.where(near, 25, np.arange(25))]
        for data in (
            st.BayesianData(env.states, channel),
            st.Estimator.posterior_mean(env.states, channel),
        ):
            assert (data.distance(env)[0][~near] == 0).all()
            assert st.data_driven_vcg(env, data).audit().epsilon == pytest.approx(0.2, abs=EXACT)
