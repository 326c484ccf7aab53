"""Corners of the market: closed forms, one taste, many rounds, many products, odd inputs."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import histories_of, random_market
from tests.helpers.oracle import solve_by_brute_force
from tests.helpers.quantities import assert_same, at_profiles, market_of, quantities, solve
from tests.helpers.small import logit_market


@pytest.mark.parametrize("horizon", [1, 2, 60])
def test_one_product_one_taste_is_a_geometric_sum(horizon):
    """W = (1 - q^T) s (theta + u), s the logit share: shown in every round, or never."""
    for theta, u in ((1.0, 0.5), (1.0, -0.5), (1.0, -3.0)):
        env = dm.RecommendationMDP(
            [[1.0]], dm.TasteGrid([[u]], [1.0]), horizon, dm.LastShownOnly(dm.Logit(1.0), 0.9),
            dm.SignalStructure(), dm.ConstantValues([theta]),
        )  # fmt: skip
        policy = solve(env)
        share = 1 / (1 + math.exp(-u))
        bought = (1 - 0.9**horizon) * share if theta + u > 0 else 0.0
        np.testing.assert_allclose(policy.value.item(), bought * (theta + u), rtol=1e-13)
        np.testing.assert_allclose(policy.purchase.item(), bought, rtol=1e-13)
        assert policy.marginal_value.item() == 0.0
        assert policy.start().recommendation == (0 if bought else -1)


def test_indifferent_between_showing_and_not_shows_the_product():
    """theta + u = 0: a tie, which goes to the lowest index and not to none."""
    env = dm.RecommendationMDP(
        [[1.0], [1.0]], dm.TasteGrid([[-1.0]], [1.0]), 2, dm.LastShownOnly(dm.Logit(1.0), 0.5),
        dm.SignalStructure(), dm.ConstantValues([1.0, 1.0]),
    )  # fmt: skip
    assert solve(env).start().recommendation == 0


def test_one_taste_leaves_nothing_to_learn():
    env = logit_market(m=1, horizon=3, seed=2)
    found = quantities(solve(env))
    for axis in range(2, 5):  # no signal moves anything
        np.testing.assert_allclose(np.ptp(found["W"], axis=axis), 0.0, atol=1e-13)
    np.testing.assert_allclose(found["W"], solve(env.without_feedback()).value, atol=1e-13)
    assert found["gain_message"].max() <= 1e-12


@pytest.mark.parametrize("constant", [False, True])
def test_tastes_of_no_weight_change_nothing(constant):
    rng = np.random.default_rng(0)
    case = random_market(rng, constant=constant, m=4)
    more = dict(case)
    for key, axis in (
        ("omega", 0), ("prior", 0), ("action", 2), ("feedback", 1), ("initial_signals", 0),
        ("estimator", 2),
    ):  # fmt: skip
        more[key] = np.insert(case[key], 1, np.take(case[key], 0, axis), axis=axis)
    more["prior"][1] = 0.0
    more["omega"] = np.where(np.arange(5)[:, None] == 1, 1e3, more["omega"])
    found, expected = (quantities(solve(market_of(c))) for c in (more, case))
    # The tie rule and the tolerance are in the money scale, which the far taste enlarges.
    assert_same(found, expected, market_of(case).money_scale)


@pytest.mark.parametrize("markov", [False, True])
def test_values_may_be_correlated(markov):
    """Values are given in the profile, so only expectations over profiles change."""
    case = random_market(np.random.default_rng(1), constant=not markov)
    independent = market_of(case)
    joint = np.array([[0.5, 0.1], [0.0, 0.4]])
    if markov:
        values = dm.MarkovValues(case["theta_support"], joint, case["theta_kernel"])
    else:
        values = dm.ConstantValues(case["theta_support"], joint)
    env = eqx.tree_at(lambda e: e.values, independent, values)
    first, second = solve(independent), solve(env)
    found, expected = quantities(second), quantities(first)
    for key in ("W", "W_marginal", "gain_message", "phi_plus", "window_ceiling"):
        assert_same(found, expected, env.money_scale, [key])
    signals = np.tensordot(case["prior"], case["initial_signals"], 1)
    weight = np.multiply.outer(joint, signals)
    np.testing.assert_allclose(second.probability(), weight, rtol=0, atol=1e-15)
    mean = (weight * second.value)[weight > 0].sum()
    np.testing.assert_allclose(second.ex_ante_value, mean, rtol=1e-12)
    assert abs(second.ex_ante_value - first.ex_ante_value) > 1e-4


def showroom(n, horizon):
    rng = np.random.default_rng(0)
    tastes = dm.TasteGrid(rng.normal(size=(5, 2)), np.full(5, 0.2))
    return dm.RecommendationMDP(
        rng.normal(size=(n, 2)), tastes, horizon, dm.LastShownOnly(dm.Logit(1.0), 0.5),
        dm.SignalStructure(feedback=dm.RatingFeedback(1.0, symbols=2)),
        dm.ConstantValues(np.linspace(0.1, 2.0, n)),
    )  # fmt: skip


@pytest.mark.parametrize(
    "n", [31, *(pytest.param(k, marks=pytest.mark.slow) for k in (50, 70)), 130]
)
def test_markets_of_many_products(n):
    """One round in closed form; then two, which are worth more, by a batch of the only profile."""
    one = dm.Profiles(np.zeros((1, n), int), np.zeros((1, n + 1), int))
    env = showroom(n, 1)
    u, theta = env.utilities, env.values.support
    worth = 0.5 * ((theta + u) / (1 + np.exp(-u))).mean(1)
    policy = solve(env, initial=one)
    np.testing.assert_allclose(policy.value, worth.max(), rtol=1e-13)
    assert policy.start(profile=0).recommendation == worth.argmax()
    others = [np.delete(worth, i).max() for i in range(n)]
    np.testing.assert_allclose(policy.marginal_value[:, 0], others, rtol=1e-13)
    twice = solve(showroom(n, 2), initial=one)
    assert twice.value[0] > 1.4 * policy.value[0]
    assert dm.DynamicTeamMechanism(twice).audit().incentive_gain.max() == 0.0


def test_batches_of_profiles_with_many_group_sizes():
    """Roots asked about by few and by many profiles are solved in groups of rounded sizes."""
    case = random_market(
        np.random.default_rng(2), constant=True, K=3, symbols=(2, 1, 1),
        initial_symbols=(3, 3, 2),
    )  # fmt: skip
    env = market_of(case)
    rng = np.random.default_rng(3)
    shape = env.profile_shape
    index = np.stack(np.unravel_index(rng.choice(math.prod(shape), 17), shape), axis=1)
    some = dm.Profiles(index[:, :2], index[:, 2:])
    policy = solve(env, initial=some)
    assert len(np.unique(np.bincount(policy.pairs.root))) > 4
    expected = solve_by_brute_force(case)
    assert_same(quantities(policy), at_profiles(expected, policy, some), env.money_scale)


def test_lists_and_jax_arrays_are_as_good_as_numpy():
    case = random_market(np.random.default_rng(4), zeros=0.3)
    expected = quantities(solve(market_of(case)))
    horizon = case["horizon"]
    for convert in (np.ndarray.tolist, jnp.asarray, np.asfortranarray):
        given = {k: convert(v) for k, v in case.items() if k != "horizon"}
        env = dm.RecommendationMDP.from_tables(**given, horizon=horizon)
        assert_same(quantities(solve(env)), expected, env.money_scale)


def test_an_estimator_that_tells_merged_histories_apart_is_refused():
    """Behaviour forgets the order of what was shown, the estimator does not."""
    case = random_market(np.random.default_rng(5), constant=True)
    rows = histories_of(2, 2)
    for key in ("action", "feedback"):
        case[key][rows.index((1, 0))] = case[key][rows.index((0, 1))]
    env = market_of(case)
    utility = np.broadcast_to(env.utilities, (len(rows), 2, 4)).copy()
    utility[rows.index((1, 0))] += 1.0
    settlement = dm.TabulatedSettlement(utility)
    with pytest.raises(dm.InvalidArgument, match="SignalStructure"):
        dm.DynamicTeamMechanism(solve(env), estimator=settlement)
    kept = eqx.tree_at(lambda e: e.signals.settlement, env, settlement)
    estimator = case["estimator"].copy()
    extra = np.linalg.lstsq(case["gamma"], np.ones(2), rcond=None)[0]
    estimator[rows.index((1, 0))] += extra
    expected = solve_by_brute_force(case | {"estimator": estimator})
    assert_same(quantities(solve(kept)), expected, env.money_scale)


def test_a_policy_as_a_table():
    env = logit_market(seed=1, names=("chair", "table"))
    policy = solve(env)
    frame = policy.to_frame()
    assert len(frame) == 2 * policy.value.size
    np.testing.assert_allclose(frame["W"].to_numpy()[::2], policy.value.ravel())
    labelled = policy.to_xarray()
    assert labelled["marginal_value"].sel(product="table").shape == policy.value.shape
    first = {"theta chair": frame["theta"][0], "signal platform": frame["platform_signal"][0]}
    np.testing.assert_allclose(labelled["W"].sel(first).to_numpy(), policy.value[0][:, 0])
    words = (*env.names, "none")
    for number, row in enumerate(frame.itertuples()):
        if number % 7 == 0:
            chat = policy.start(profile=int(row.profile))
            assert row.first_recommendation == words[chat.recommendation]
            assert row.product == env.names[number % 2]
            assert row.theta == chat.theta[number % 2]
