"""Signals: laws that sum to one, normal cells, correlation, draws, and whole solves by table."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.stats import norm

import dynmech as dm
from tests.helpers import behaviour as by_hand
from tests.helpers.quantities import assert_same, quantities, solve

M = 5
EPS = 1e-12  # laws are sums of a few dozen products of numbers below one


def market(signals, horizon=2, seed=5, values=None):
    """Who likes one product dislikes the other, so that knowing the taste matters."""
    rng = np.random.default_rng(seed)
    omega = np.stack([np.linspace(-1.0, 1.0, M), rng.uniform(0.8, 1.2, M)], axis=1)
    tastes = dm.TasteGrid(omega, rng.dirichlet(np.full(M, 4.0)))
    values = values or dm.ConstantValues([[0.2, 0.5], [0.3, 0.4]])
    rule = dm.LastShownOnly(dm.Logit(0.4), 0.5)
    return dm.RecommendationMDP(
        np.array([[1.0, -0.1], [-1.1, 0.1]]), tastes, horizon, rule, signals, values
    )


def behaviour_of(env):
    return by_hand.action_table(
        env.utilities, env.horizon, "last", by_hand.logit, by_hand.constant(0.5), scale=0.4
    )


def joint_law(env):
    """Law of the initial symbols given each taste, (m, Zp, Z1, ..., Zn), as the library has it."""
    symbols = np.indices(env.initial_alphabet).reshape(env.products + 1, -1).T
    law = env.signals.initial.likelihood(env.utilities, symbols)
    return np.asarray(law).T.reshape(-1, *env.initial_alphabet)


SIGNALS = {
    "all": {"platform": 0.8, "advertisers": 0.5, "symbols": 3},
    "each her own": {"platform": None, "advertisers": np.array([0.3, 1.1]), "symbols": 2},
    "platform only": {"platform": 0.4, "symbols": 4},
    "correlated": {"platform": 0.9, "advertisers": 0.6, "symbols": 3, "correlation": 0.4},
    "correlated advertisers": {"advertisers": np.array([0.7, 0.4]), "correlation": 0.8},
}


def written_out(env, given):
    advertisers = given.get("advertisers")
    advertisers = [None] * 2 if advertisers is None else np.broadcast_to(advertisers, 2).tolist()
    return by_hand.reading_table(
        env.utilities, env.tastes.weights, given.get("platform"), advertisers,
        given.get("symbols", 3), given.get("correlation", 0.0),
    )  # fmt: skip


@pytest.mark.parametrize("name", SIGNALS)
def test_gaussian_signals(name):
    env = market(dm.SignalStructure(initial=dm.GaussianSignals(**SIGNALS[name])))
    law, expected = joint_law(env), written_out(env, SIGNALS[name])
    assert (law >= 0).all()
    np.testing.assert_allclose(law.reshape(M, -1).sum(1), 1.0, rtol=0, atol=EPS)
    np.testing.assert_allclose(law, expected, rtol=0, atol=EPS)
    probability = np.tensordot(env.tastes.weights, expected, 1)
    values = np.full(env.profile_shape[:2], 0.25)
    policy = solve(env)
    np.testing.assert_allclose(
        policy.probability(), np.multiply.outer(values, probability), rtol=0, atol=EPS
    )


def test_cut_points_are_prior_quantiles():
    """Equal weights: the quantiles of numpy, and equally likely symbols when noise is small."""
    rng = np.random.default_rng(3)
    gamma = rng.normal(size=(2, 2))
    tastes = dm.TasteGrid(rng.normal(size=(400, 2)), np.full(400, 1 / 400))
    signals = dm.GaussianSignals(platform=1e-6, advertisers=1e-6, symbols=4)
    bound = signals.bind(gamma @ tastes.points.T, tastes.weights)
    u = gamma @ tastes.points.T
    for row, target in zip(bound.cut_points, [u.mean(0), *u]):
        np.testing.assert_allclose(row, np.quantile(target, [0.25, 0.5, 0.75]), atol=1e-12)
    symbols = np.indices((4, 4, 4)).reshape(3, -1).T
    law = np.asarray(bound.likelihood(u, symbols)).reshape(4, 4, 4, -1).mean(-1)
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        np.testing.assert_allclose(law.sum(other), 0.25, atol=2 / 400)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95, 0.999])
def test_marginals_are_normal_cells(correlation):
    """Correlation leaves the law of every single reading as it is."""
    given = {"platform": 0.9, "advertisers": 0.6, "symbols": 4, "correlation": correlation}
    env = market(dm.SignalStructure(initial=dm.GaussianSignals(**given)))
    law = joint_law(env)
    targets = np.concatenate([env.utilities.mean(0)[None], env.utilities])
    for party, (target, noise) in enumerate(zip(targets, (0.9, 0.6, 0.6))):
        cuts = np.array(by_hand.quantile_cuts(target, env.tastes.weights, 4))
        edges = np.array([-np.inf, *cuts, np.inf])
        expected = np.diff(norm.cdf((edges[:, None] - target) / noise), axis=0).T
        other = tuple(1 + p for p in range(3) if p != party)
        np.testing.assert_allclose(law.sum(other), expected, rtol=0, atol=EPS)


@pytest.mark.parametrize("correlation", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("precision", [1e-3, 0.3, 20.0])
def test_correlated_readings_by_adaptive_quadrature(correlation, precision):
    """The joint law of two readings over the shock they share, and each one's own law."""
    u, symbols = np.array([[-1.0, 0.2], [0.5, -0.3]]), 2 if precision < 1 else 4
    cuts = np.sort(np.random.default_rng(2).normal(size=(3, symbols - 1)), axis=1)
    signals = dm.GaussianSignals(None, precision, symbols, correlation, cuts=cuts)
    pairs = np.indices((1, symbols, symbols)).reshape(3, -1).T
    law = np.asarray(signals.likelihood(u, pairs)).T.reshape(2, symbols, symbols)
    edges = np.pad(cuts[1:], [(0, 0), (1, 1)], constant_values=[(0, 0), (-np.inf, np.inf)])
    own = precision * np.sqrt(1 - correlation)
    for taste in range(2):

        def cells(shock, at=taste):
            mean = u[:, at, None] + precision * np.sqrt(correlation) * shock
            one, other = np.diff(norm.cdf((edges - mean) / own), axis=1)
            return np.concatenate([np.outer(one, other).ravel(), one]) * norm.pdf(shock)

        found, _ = quad_vec(cells, -9, 9, epsabs=1e-13, limit=2000)
        expected, alone = found[:-symbols].reshape(symbols, symbols), found[-symbols:]
        np.testing.assert_allclose(law[taste], expected, rtol=0, atol=1e-11)
        np.testing.assert_allclose(law[taste].sum(axis=1), alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7])
def test_noises_have_the_correlation_asked_for(correlation):
    """Read on a grid so fine that cells stand for numbers: E[xy] / (sd sd) = rho."""
    noise = {"platform": 0.5, "advertisers": 1.5}
    fine = np.linspace(-6.0, 6.0, 241)
    cuts = np.stack([0.5 * fine, 1.5 * fine])  # in standard deviations of each party
    signals = dm.GaussianSignals(**noise, symbols=len(fine) + 1, correlation=correlation, cuts=cuts)
    symbols = np.indices((len(fine) + 1,) * 2).reshape(2, -1).T
    law = np.asarray(signals.likelihood(np.zeros((1, 1)), symbols)).reshape(len(fine) + 1, -1)
    np.testing.assert_allclose(law.sum(), 1.0, rtol=0, atol=EPS)
    middle = np.array([fine[0], *(fine[1:] + fine[:-1]) / 2, fine[-1]])
    width = fine[1] - fine[0]
    # Rounding to the middle of cells of width d adds d^2/12 to a variance, nothing to a
    # covariance; quadrature of second moments is exact, the tail beyond 6 is 1e-9.
    np.testing.assert_allclose(middle @ law @ middle, correlation, rtol=0, atol=1e-5)
    for axis in range(2):
        variance = law.sum(axis) @ middle**2
        np.testing.assert_allclose(variance, 1 + width**2 / 12, rtol=0, atol=1e-5)


RATINGS = {
    "rating": ({"noise": 0.8, "symbols": 3}, lambda t, j: 0.8),
    "by period": ({"noise": [0.4, 0.9, 2.0]}, lambda t, j: [0.4, 0.9, 2.0][t]),
    "by product": ({"noise": [0.3, 1.4], "by_product": True}, lambda t, j: [0.3, 1.4][j]),
    "by period and product": (
        {"noise": [[0.3, 1.4], [0.9, 0.2], [2.0, 0.5]], "by_product": True},
        lambda t, j: [[0.3, 1.4], [0.9, 0.2], [2.0, 0.5]][t][j],
    ),
    "own reading": ({"noise": 0.8, "advertisers": 1.2}, lambda t, j: 0.8),
    "correlated reading": (
        {"noise": 0.8, "advertisers": 1.2, "correlation": 0.6}, lambda t, j: 0.8,
    ),
    "own reading by period": (
        {"noise": [0.4, 0.9, 2.0], "advertisers": 0.7, "correlation": 0.3},
        lambda t, j: [0.4, 0.9, 2.0][t],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RATINGS)
def test_rating_feedback_is_its_table(name):
    given, deviation = RATINGS[name]
    given = {"symbols": 2} | given
    horizon = 3
    env = market(dm.SignalStructure(feedback=dm.RatingFeedback(**given)), horizon=horizon)
    u, weights = env.utilities, env.tastes.weights
    table = by_hand.rating_table(
        u, weights, horizon, deviation, given["symbols"], given.get("advertisers"),
        given.get("correlation", 0.0),
    )  # fmt: skip
    np.testing.assert_allclose(table.reshape(len(table), M, -1).sum(2), 1.0, atol=EPS)
    tables = by_hand.tabulated(env, behaviour_of(env), table, np.ones((M, 1, 1, 1)))
    found = quantities(solve(env))
    assert_same(found, quantities(solve(tables)), env.money_scale)
    blind = solve(env.without_feedback()).value
    assert np.max(found["W"] - blind) > 1e-4
    assert np.min(found["W"] - blind) >= -1e-12


def test_gaussian_signals_and_ratings_in_one_market():
    given = {"platform": 0.8, "advertisers": 0.5, "symbols": 2, "correlation": 0.4}
    env = market(
        dm.SignalStructure(dm.GaussianSignals(**given), dm.RatingFeedback(0.7, symbols=3)),
        values=dm.MarkovValues(
            [[0.2, 0.9], [0.3, 0.7]], [[0.5, 0.5], [0.1, 0.9]], np.full((2, 2, 2), 0.5)
        ),
    )
    feedback = by_hand.rating_table(env.utilities, env.tastes.weights, 2, lambda t, j: 0.7, 3)
    tables = by_hand.tabulated(env, behaviour_of(env), feedback, written_out(env, given))
    found = quantities(solve(env))
    assert_same(found, quantities(solve(tables)), env.money_scale)
    assert found["gain_message"].max() > 1e-4


def test_without_feedback_is_the_best_fixed_sequence():
    """With nothing to see, the best plan is one sequence: compare with all of them."""
    env = market(dm.SignalStructure(feedback=dm.RatingFeedback(0.5)), horizon=3)
    fixed = solve(env.without_feedback())
    u, n = env.utilities, env.products
    histories = by_hand.histories_of(n, 3)
    action = behaviour_of(env)
    for theta in np.ndindex(2, 2):
        money = env.values.support[np.arange(n), theta]
        best = -np.inf
        for sequence in (h for h in histories if len(h) == 3):
            total, reach = 0.0, env.tastes.weights
            for t in range(3):
                table = action[histories.index(sequence[: t + 1])]
                total += (reach * table[:n] * (money[:, None] + u)).sum()
                reach = reach * table[n + 1]
            best = max(best, total)
        np.testing.assert_allclose(fixed.value[(*theta, 0, 0, 0)], best, rtol=0, atol=1e-12)


@pytest.mark.parametrize("initial", [dm.GaussianSignals(0.8, 0.5, 2, 0.5), None])
def test_profiles_are_drawn_from_their_law(initial):
    rng = np.random.default_rng(1)
    table = dm.JointSignals(rng.dirichlet(np.ones(8), M).reshape(M, 2, 2, 2))
    prior = rng.dirichlet(np.ones(4)).reshape(2, 2)  # correlated values
    env = market(
        dm.SignalStructure(initial=initial or table),
        values=dm.ConstantValues([[0.2, 0.9], [0.3, 0.7]], prior),
    )
    count = 2000
    drawn = env.sample_profiles(jax.random.key(0), count)
    codes = np.ravel_multi_index((*drawn.theta.T, *drawn.signals.T), env.profile_shape)
    seen = np.bincount(codes, minlength=32) / count
    law = solve(env).probability().ravel()
    np.testing.assert_allclose(law.sum(), 1.0, rtol=0, atol=EPS)
    spread = np.sqrt(law * (1 - law) / count)
    assert (np.abs(seen - law) <= 5 * spread + 1e-12).all()  # once in 50,000 sets of keys
    again = env.sample_profiles(jax.random.key(0), count)
    np.testing.assert_array_equal(again.theta, drawn.theta)
    other = env.sample_profiles(jax.random.key(1), count)
    assert (other.signals != drawn.signals).any()


def test_cut_points_are_found_anew_in_every_market():
    """A part that was bound, a replaced field, a leaf put in: each as a market made afresh."""
    signals = dm.SignalStructure(dm.GaussianSignals(0.8, None, 2), dm.RatingFeedback(0.3, 2))
    old = market(signals)
    gamma = 2 * np.asarray(old.gamma) + [[0.3, -0.2], [0.1, 0.4]]
    fresh = dataclasses.replace(old, gamma=gamma, signals=signals)
    ways = (
        dataclasses.replace(old, gamma=gamma),
        dataclasses.replace(fresh, signals=old.signals),
        eqx.tree_at(lambda env: env.gamma, old, gamma),
    )
    right = solve(fresh).value
    for env in ways:
        np.testing.assert_array_equal(solve(env).value, right)
    given = dm.RatingFeedback(0.3, 2, cuts=[[0.1], [0.2]])
    np.testing.assert_array_equal(
        market(dm.SignalStructure(feedback=given)).signals.feedback.cut_points, [[0.1], [0.2]]
    )


def test_noises_are_traceable_and_correlation_says_that_it_is_not():
    u, cuts = np.array([[0.5, 1.0], [0.1, 0.2]]), [[0.0]] * 3
    symbols = np.array([[0, 1, 0]])

    def reading(noise, correlation=0.4):
        return dm.GaussianSignals(noise, noise, 2, correlation, cuts=cuts).likelihood(u, symbols)

    def rating(noise):
        feedback = dm.RatingFeedback(noise, 2, noise, 0.4, cuts=cuts[:2])
        return feedback.likelihood(np.array([0]), 0, 0, u)

    for law in (reading, rating):
        slope = jax.jacfwd(law)(0.7)
        apart = (law(0.7 + 1e-5) - law(0.7 - 1e-5)) / 2e-5
        np.testing.assert_allclose(slope, apart, rtol=0, atol=1e-8)
    with pytest.raises(dm.InvalidArgument, match="correlation"):
        jax.jacfwd(lambda rho: reading(0.7, rho))(0.5)
    with pytest.raises(dm.InvalidArgument, match="noise of their own"):
        dm.GaussianSignals(1.0, 1.0, correlation=1 - 1e-9)


@pytest.mark.parametrize(("chance", "heard"), [(1e-270, True), (1e-300, False), (1e-320, False)])
def test_what_hardly_ever_comes_is_known_as_well_or_counts_as_never_heard(chance, heard):
    rare = chance * np.arange(1.0, 1 + M)
    table = np.zeros((M, 1, 2, 2))
    table[:, 0, 0], table[:, 0, 1, 0] = 0.5, rare
    feedback = dm.RatingFeedback(0.5, 2, cuts=[[0.1], [-0.1]])
    env = market(dm.SignalStructure(dm.JointSignals(table), feedback))
    policy = dm.solve_efficient_policy(env, progress=False)
    assert policy.possible.reshape(policy.value.shape)[0, 0, 0, 1, 0] == heard
    np.testing.assert_array_equal(np.isnan(policy.value).ravel(), ~policy.possible)
    assert np.nanmax(policy.upper - policy.lower) < 1e-12 * env.money_scale
    belief = env.tastes.weights * np.arange(1.0, 1 + M)  # what the rare symbol says
    told = dataclasses.replace(env.tastes, weights=belief / belief.sum())
    known = dm.solve_efficient_policy(
        dataclasses.replace(env, tastes=told, signals=dm.SignalStructure(feedback=feedback)),
        progress=False,
    )
    off = policy.value[:, :, 0, 1, 0] - known.value[:, :, 0, 0, 0]
    assert np.abs(off).max() < 1e-12 * env.money_scale if heard else np.isnan(off).all()
    assert dm.DynamicTeamMechanism(policy).audit().incentive_gain.max() < 1e-12


def test_more_joint_symbols_than_float64_has_chances_for_are_refused():
    n, rng, cuts = 400, np.random.default_rng(1), np.linspace(-1.2, 1.2, 7)
    env = dm.RecommendationMDP(
        rng.normal(size=(n, 2)),
        dm.TasteGrid([[0.0, 0.1], [0.1, 0.0]], [0.5, 0.5]),
        1,
        dm.LastShownOnly(dm.Logit(0.5), 0.0),
        dm.SignalStructure(dm.GaussianSignals(1.0, 1.0, 8, cuts=np.tile(cuts, (1 + n, 1)))),
        dm.ConstantValues(rng.uniform(size=(n, 1))),
    )
    drawn = env.sample_profiles(jax.random.key(0), 1)
    with pytest.raises(dm.NotFinite, match=r"RecommendationMDP\(signals=.*joint symbols"):
        dm.solve_efficient_policy(env, initial=drawn, progress=False)
