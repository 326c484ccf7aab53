"""Endless markets as they are solved by default: searched, not cut."""

import math

import jax
import numpy as np
import pytest

import dynmech as dm
from experiments.benchmarks.churn import draw, every_economy, market
from tests.economics.test_stationary import BOUNDS, assert_brackets, random_endless


def solve(env, tolerance):
    return dm.solve_efficient_policy(env, tolerance=tolerance, progress=False)


@pytest.mark.parametrize(("products", "types"), [(3, 5), (10, 10)])
def test_users_who_leave_at_the_first_dislike(products, types):
    like, prior = draw(0, products, types)
    right = every_economy(like, prior)
    policy = solve(market(like, prior), 1e-6)
    found = np.concatenate([policy.lower.ravel(), policy.marginal_value.ravel()])
    above = np.concatenate([policy.upper.ravel(), policy.marginal_upper.ravel()])
    assert np.abs(found - right).max() <= 1e-6
    assert (above >= right - 1e-9).all()
    assert (above - found <= 1e-6).all()
    assert policy.upper.item() - policy.value.item() <= 1e-6
    # Whoever bought was worth P / (1 - P), so that the likes are the user's utility.
    assert policy.user_utility.sum() == pytest.approx(policy.value.item(), abs=1e-12)


def test_the_policy_can_be_used_like_any_other():
    like, prior = draw(0, 3, 5)
    policy = solve(market(like, prior), 1e-2)
    mechanism = dm.DynamicTeamMechanism(policy)
    audit = mechanism.audit()
    assert audit.incentive_gain.max() <= 1e-2
    chat = policy.start(profile=0)
    for _ in range(10):
        assert chat.recommendation in range(len(like))
        chat = chat.step("query")
    assert len(mechanism.simulate(jax.random.key(0), 50).to_frame()) > 0


def rarely_leaves(query, cost=0.0):
    """Nothing is learned and one product is best for ever: the market, W = E[share (theta + u)]."""
    u = np.array([[0.4], [-0.2]]) @ np.array([[0.5, 1.0, 2.0]])
    weights, theta = np.array([0.25, 0.25, 0.5]), np.array([0.5, 0.6])
    best = ((theta[:, None] + u) / (1 + np.exp(-u / 0.5)) @ weights).max()
    rule = dm.LastShownOnly(dm.Logit(0.5), query)
    grid = dm.TasteGrid([[0.5], [1.0], [2.0]], weights)
    env = dm.RecommendationMDP(
        [[0.4], [-0.2]], grid, math.inf, rule, dm.SignalStructure(), dm.ConstantValues(theta),
        round_cost=cost,
    )  # fmt: skip
    return env, best


@pytest.mark.parametrize("query", [0.9, 0.999, pytest.param(0.9999, marks=pytest.mark.slow)])
def test_a_user_who_rarely_leaves_costs_no_more(query):
    env, best = rarely_leaves(query)
    policy = solve(env, 1e-2)
    assert policy.work.nodes == 1  # a belief that nothing changes comes back to itself
    # One round stands for all: what is shown stays.
    assert policy.env.horizon == 1
    assert policy.status is dm.Status.EXACT
    assert policy.lower.item() <= best + 1e-12 <= policy.upper.item() + 2e-12
    assert policy.value.item() == pytest.approx(best, abs=1e-12)


def test_rounds_that_are_too_many_to_write_out_are_said(monkeypatch):
    """Where queries cost something no round stands for others: what is returned attains less."""
    monkeypatch.setattr("solvers.search.unrolled._MOST_ALONE", 100)
    cost = 1e-4
    env, bought = rarely_leaves(0.99, cost)
    best = bought - 99 * cost
    with pytest.warns(dm.DynmechWarning, match="0.29"):
        policy = solve(env, 1e-2)
    assert policy.status is dm.Status.MEMORY_LIMIT
    assert policy.env.action_rule.lasts() is None
    assert policy.lower.item() == pytest.approx(best, abs=1e-9)
    assert policy.value.item() == pytest.approx(best * (1 - 0.99**policy.env.horizon), abs=1e-9)
    left = best - policy.value.item()
    assert policy.incentive_bound.item() >= left - 1e-9


@pytest.mark.parametrize("seed", [2, 4, 11])
def test_bounds_hold_a_very_long_horizon(seed):
    feedback = seed % 3 > 0
    long, query = (6, 0.2) if feedback else (20, 0.3)
    env = random_endless(seed, feedback=feedback, query=query)
    reference = solve(random_endless(seed, long, feedback, query), 0.0)
    scale = env.money_scale
    for share in (0.3, 0.01):
        policy = solve(env, share * scale)
        assert_brackets(policy, reference, scale * query**long + 1e-12)
        assert np.nanmax(policy.upper - policy.value) <= share * scale
        assert np.nanmax(policy.marginal_upper - policy.marginal_value) <= share * scale


@pytest.mark.parametrize("solver", [dm.Stationary(), dm.BestFirst()])
def test_costs_that_run_on_for_ever_are_in_the_bound_on_what_is_attained(solver):
    """Nobody buys, half of the users ask on, .1 a time: V and W are -.1, V_k is -.1 (1 - 2^-k)."""
    env = dm.RecommendationMDP(
        [[1.0]],
        dm.TasteGrid([[-5.0]], [1.0]),
        math.inf,
        dm.LastShownOnly(dm.Threshold(), dm.ConstantQuery(0.5)),
        dm.SignalStructure(),
        dm.ConstantValues([0.0]),
        round_cost=0.1,
    )
    policy = dm.solve_efficient_policy(env, solver, tolerance=1.0, progress=False)
    assert policy.value.item() > -0.1
    np.testing.assert_allclose(policy.value_lower, -0.1, rtol=1e-9)
    assert policy.value_lower.item() <= policy.lower.item() + 1e-12
    np.testing.assert_allclose(policy.incentive_bound, policy.upper + 0.1, atol=1e-9)
    start = dm.solve_efficient_policy(env, solver, tolerance=0.02, progress=False).start(profile=0)
    for shown in (None, 0):  # there is no memory: -.1 at every belief, on the plan or off it
        found = start.step("query", shown=shown).certify()
        np.testing.assert_allclose(found.lower, -0.1, atol=1e-9)
        assert found.upper[0] >= -0.1 - 1e-12


@pytest.mark.parametrize("solver", [dm.Stationary(), None], ids=["rounds", "search"])
def test_what_is_said_off_the_plan_counts_the_rounds_that_are_not_written_out(solver):
    """W = share (theta + u) / (1 - q) from any history on; a few rounds alone bring less."""
    env, best = rarely_leaves(0.5)
    policy = dm.solve_efficient_policy(env, solver, tolerance=0.1, progress=False)
    shown = 1 - policy.start(profile=0).recommendation
    for other in (shown, None):
        chat = policy.start(profile=0).step("query", shown=other)
        found = chat.certify()
        assert found.lower[0] <= best + 1e-12
        assert best <= found.upper[0] + 1e-12


def test_off_the_plan_what_remains_is_searched_where_its_tree_does_not_fit():
    """4e7 histories of the rounds that are left (refused after a minute before)."""
    rng = np.random.default_rng(1)
    env = dm.RecommendationMDP(
        rng.normal(size=(4, 2)),
        dm.TasteGrid(rng.normal(size=(10, 2)), np.full(10, 0.1)),
        math.inf,
        dm.LastShownOnly(dm.Logit(0.4), query=0.75),
        dm.SignalStructure(feedback=dm.RatingFeedback(1.0, 3)),
        dm.ConstantValues(rng.uniform(0.3, 1.5, size=(4, 1))),
    )
    policy = dm.solve_efficient_policy(env, relative=0.05, progress=False)
    start = policy.start(profile=0)
    other = 1 if start.recommendation == 0 else 0
    on, off = (start.step("query", [1, 0, 0, 0, 0], shown=x) for x in (None, other))
    for chat in (on, off):
        found = chat.certify()
        assert np.isfinite([found.lower, found.upper]).all()
        assert found.gap[0] <= 3 * (policy.upper - policy.value_lower).item()


def test_explanations_count_as_many_rounds_later_on_as_at_the_outset():
    """W is the same in every round; of the last one written out it was a part alone."""
    for cost in (0.0, 1e-3):
        env, bought = rarely_leaves(0.5, cost)
        policy, best = solve(env, 0.1), bought - cost
        chat = policy.start(profile=0)
        for _ in range(int(policy.env.horizon)):
            told = policy.explain(chat)
            assert best - 0.1 <= told.worth[told.taken] <= best + 1e-12
            assert not told.lead < 0  # NaN where nothing else was looked into
            assert told.learning == pytest.approx(0.0, abs=1e-12)
            chat = chat.step("query")
        assert chat.ended == (cost > 0)


@pytest.mark.parametrize("solver", [dm.BestFirst(), dm.PointBased()], ids=["best", "points"])
def test_a_tolerance_beyond_float32_is_refused_without_a_last_round_too(solver):
    env, best = rarely_leaves(0.5)
    short = dm.RecommendationMDP(
        np.asarray(env.gamma, np.float32), env.tastes, math.inf, env.action_rule, env.signals,
        env.values,
    )  # fmt: skip
    with pytest.raises(dm.InvalidArgument, match="float32 can certify") as caught:
        dm.solve_efficient_policy(short, solver, tolerance=1e-9, progress=False)
    least = float(str(caught.value).split("at least ")[1].split(" money")[0])
    policy = dm.solve_efficient_policy(short, solver, tolerance=1.01 * least, progress=False)
    assert policy.status.met
    assert policy.upper.item() - policy.value.item() <= 1.01 * least
    assert policy.lower.item() <= best + 1e-6 <= policy.upper.item() + 2e-6


def test_what_is_asked_of_the_rounds_written_out_is_refused_with_what_to_do_instead():
    env, _ = rarely_leaves(0.5)
    policy = dm.solve_efficient_policy(env, dm.PointBased(), tolerance=0.1, progress=False)
    mechanism, rounds = dm.DynamicTeamMechanism(policy), int(policy.env.horizon)
    assert mechanism.audit(under=env).incentive_gain.max() <= 0.1
    costly = rarely_leaves(0.5, 1e-3)[0]
    cut = dm.solve_efficient_policy(costly, dm.PointBased(), tolerance=0.1, progress=False)
    rounds = int(cut.env.horizon)
    with pytest.raises(dm.InvalidArgument, match=f"make this market with horizon={rounds}"):
        dm.DynamicTeamMechanism(cut).audit(under=costly)
    parts = env.gamma, env.tastes, rounds, env.action_rule, env.signals, env.values
    there = dm.RecommendationMDP(*parts, round_cost=1e-3)
    assert dm.DynamicTeamMechanism(cut).audit(under=there).incentive_gain.max() <= 0.1
    for ask in (mechanism.best_response, lambda: mechanism.audit(histories="all")):
        with pytest.raises(dm.InvalidArgument, match=r"best_response.*with some `horizon`"):
            ask()


@pytest.mark.parametrize("kind", [dm.PointBased, dm.BestFirst])
@pytest.mark.parametrize("limits", [{}, {"seconds": 1e-6}, {"memory": 2e5}])
@pytest.mark.filterwarnings("ignore::dynmech.DynmechWarning")
def test_what_is_said_of_a_solver_is_its_status(kind, limits):
    """W is found at once; how many rounds are written out is what the limits end."""
    cost = 1e-6
    env, best = rarely_leaves(0.999, cost)
    best -= 999 * cost
    policy = dm.solve_efficient_policy(env, kind(**limits), tolerance=1e-2, progress=False)
    expected = {"": "WITHIN_TOLERANCE", "seconds": "TIME_LIMIT", "memory": "MEMORY_LIMIT"}
    assert policy.status is dm.Status[expected["".join(limits)]]
    said = {status for status in dm.Status if status.value in policy.solver}
    assert said == {policy.status}
    assert policy.lower.item() <= best + 1e-12 <= policy.upper.item() + 2e-12


@pytest.mark.parametrize("kind", [dm.PointBased, dm.BestFirst])
def test_limits_end_an_exact_search_with_bounds_and_no_refusal(kind):
    env, best = rarely_leaves(0.9, cost=1e-6)
    best -= 9e-6
    with pytest.warns(dm.DynmechWarning, match="time allowed"):
        policy = dm.solve_efficient_policy(env, kind(seconds=1e-6), progress=False)
    assert policy.status is dm.Status.TIME_LIMIT
    assert policy.lower.item() <= best + 1e-12 <= policy.upper.item() + 2e-12
    assert policy.value_lower.item() <= best + 1e-12
    free = dm.solve_efficient_policy(env, kind(), progress=False)
    assert free.status is dm.Status.EXACT
    assert free.value.item() == pytest.approx(best, abs=1e-9)


def test_profiles_that_cannot_be_are_left_out_without_a_last_round_too():
    env = market(*draw(0, 3, 3))
    table = np.zeros((env.tastes.size, 2, *(1,) * env.products))
    table[:, 0] = 1.0
    parts = env.gamma, env.tastes, math.inf, env.action_rule
    signals = dm.SignalStructure(dm.JointSignals(table), env.signals.feedback)
    both = dm.RecommendationMDP(*parts, signals, env.values)
    for solver in (dm.BestFirst(), dm.PointBased(), dm.Stationary()):
        policy = dm.solve_efficient_policy(both, solver, tolerance=1e-2, progress=False)
        np.testing.assert_array_equal(np.isnan(policy.value).ravel(), ~policy.possible)
        assert not policy.possible.all()


@pytest.mark.parametrize("solver", [dm.Stationary, dm.BestFirst, dm.PointBased])
def test_seconds_end_a_solve_by_rounds_with_bounds_that_hold(solver, tmp_path):
    """Values that move are left to it by the other two, which pass on the seconds they have."""
    env = random_endless(5, query=0.6)
    kept = {"tolerance": 0.02, "checkpoint": tmp_path, "progress": False}
    whole = dm.solve_efficient_policy(env, solver(), tolerance=1e-3, progress=False)
    with pytest.warns(dm.DynmechWarning, match="time allowed"):
        short = dm.solve_efficient_policy(env, solver(seconds=1e-6), **kept)
    assert short.status is dm.Status.TIME_LIMIT
    for low, high in BOUNDS:
        known = ~np.isnan(getattr(whole, low))
        assert (getattr(short, low) <= getattr(whole, high) + 1e-12)[known].all(), low
        assert (getattr(short, high) >= getattr(whole, low) - 1e-12)[known].all(), high
    again = dm.solve_efficient_policy(env, solver(seconds=1e3), **kept)  # on no fewer rounds
    free = dm.solve_efficient_policy(env, solver(), tolerance=0.02, progress=False)
    assert again.status is dm.Status.WITHIN_TOLERANCE
    np.testing.assert_array_equal(again.upper, free.upper)
