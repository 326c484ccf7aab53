"""Markets in float32: bounds allow for rounding, and a tolerance beyond it is refused at once."""

import math

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech._types import in_doubles
from tests.helpers.small import logit_market

SOLVERS = [dm.Exact(), dm.BranchAndBound(), dm.PointBased()]


def single(seed, **options):
    """A random market whose characteristics are in float32, and the same numbers in float64."""
    short = shortened(logit_market(2, 3, 2, seed=seed, values=1, advertisers=None, **options))
    return short, in_doubles(short)


def shortened(env):
    """The same market, its characteristics rounded to float32."""
    return dm.RecommendationMDP(
        np.asarray(env.gamma, np.float32), env.tastes, env.horizon, env.action_rule, env.signals,
        env.values,
    )  # fmt: skip


def solve(env, solver, **options):
    return dm.solve_efficient_policy(env, solver, progress=False, **options)


def brackets(policy, true):
    pairs = [
        (policy.lower, true.value, policy.upper),
        (policy.marginal_lower, true.marginal_value, policy.marginal_upper),
        (
            policy.displayable_marginal_lower,
            true.displayable_marginal_value,
            policy.displayable_marginal_upper,
        ),
    ]
    return all(((low <= exact) & (exact <= high)).all() for low, exact, high in pairs)


def check(seeds, solver, **options):
    for seed in seeds:
        short, wide = single(seed)
        true, policy = solve(wide, dm.Exact()), solve(short, solver, **options)
        assert brackets(policy, true), seed
        assert policy.gap is not None
        slack = np.nanmax(policy.upper - policy.lower)
        # Where none is the best, nothing is added up and nothing is rounded.
        assert (slack > 0) == (np.abs(true.value).max() > 0)
        assert slack < 1e-3 * wide.money_scale + options.get("tolerance", 0.0)
        audit = dm.DynamicTeamMechanism(policy).audit()
        assert audit.incentive_gain.max() <= audit.gap.bound + 1e-12


@pytest.mark.parametrize("solver", SOLVERS[:2], ids=["Exact", "BranchAndBound"])
def test_bounds_hold_the_value_in_float64(solver):
    check(range(3), solver)


@pytest.mark.parametrize(
    "solver", [dm.Exact(), dm.BranchAndBound(exact_after=math.inf)], ids=["Exact", "search"]
)
def test_what_is_hardly_ever_heard_is_known_as_well(solver):
    few = {"advertisers": 0.015, "platform": 0.015, "symbols": 3, "values": 1}
    wide = logit_market(2, 4, 2, **few)
    policy, true = solve(shortened(wide), solver), solve(in_doubles(shortened(wide)), dm.Exact())
    assert 0 < policy.mass[policy.mass > 0].min() < 1e-60
    assert brackets(policy, true)
    assert np.nanmax(policy.upper - policy.lower) < 1e-4 * wide.money_scale
    total = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy()).groves_total
    right = dm.DynamicTeamMechanism(true, dm.groves.NoSubsidy()).groves_total
    np.testing.assert_allclose(total, right, rtol=0, atol=1e-4 * wide.money_scale)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS[:2], ids=["Exact", "BranchAndBound"])
def test_bounds_hold_the_value_in_float64_hundreds(solver):
    check(range(10, 310), solver)
    check(range(10, 110), dm.BranchAndBound(), tolerance=0.05)


def test_point_based_works_in_float64():
    short, wide = single(0)
    policy, true = solve(short, dm.PointBased()), solve(wide, dm.Exact())
    assert "float32" not in policy.solver
    np.testing.assert_allclose(policy.value, true.value, rtol=1e-12)


def test_a_float64_solve_stays_exact():
    policy = solve(single(0)[1], dm.Exact())
    assert policy.gap is None
    assert (policy.lower <= policy.value).all()
    assert (policy.value <= policy.upper).all()
    assert (policy.upper - policy.lower).max() <= 1e-12 * policy.env.money_scale


@pytest.mark.parametrize("solver", [*SOLVERS[:2], None], ids=["Exact", "BranchAndBound", "None"])
def test_a_tolerance_beyond_float32_is_refused_with_the_smallest(solver, monkeypatch):
    short, wide = single(2)
    worked = []
    monkeypatch.setattr("solvers.tree.exact._solve_chunk", lambda *args: worked.append(args))
    monkeypatch.setattr("solvers.search.branch_and_bound.grow", lambda *args: worked.append(args))
    with pytest.raises(dm.InvalidArgument, match="float32 can certify") as caught:
        solve(short, solver, tolerance=1e-9)
    assert not worked
    monkeypatch.undo()
    least = float(str(caught.value).split("at least ")[1].split(" money")[0])
    policy = solve(short, solver, tolerance=1.01 * least)
    assert np.nanmax(policy.upper - policy.lower) <= 1.01 * least
    assert solve(wide, solver, tolerance=1e-9).solver


def test_many_rounds_are_searched_where_a_tree_in_float32_can_certify_nothing():
    rule = dm.LastShownOnly(dm.Logit(0.5), 0.5)
    market = logit_market(2, 3, 200, values=1, advertisers=None, platform=None, rule=rule)
    env = shortened(market)
    with pytest.raises(dm.InvalidArgument, match="float32 can certify"):
        solve(env, dm.Exact(), tolerance=0.02)
    policy = solve(env, None, tolerance=0.02)
    assert "float32 cannot certify" in policy.solver
    assert policy.status.met
    assert np.max(policy.upper - policy.value) <= 0.02
    true = solve(in_doubles(env), dm.BestFirst(exact_after=math.inf), tolerance=1e-3)
    assert (policy.lower <= true.upper).all()
    assert (true.lower <= policy.upper).all()


def test_an_infinite_horizon_in_float32_keeps_its_tolerance():
    short, wide = single(1, rule=dm.LastShownOnly(dm.Logit(0.5), query=0.5))
    forever = [
        dm.RecommendationMDP(
            env.gamma, env.tastes, math.inf, env.action_rule, env.signals, env.values
        )
        for env in (short, wide)
    ]
    policy, true = (solve(env, dm.Stationary(), tolerance=0.05) for env in forever)
    assert (policy.lower <= true.upper).all()
    assert (true.lower <= policy.upper).all()
    assert np.nanmax(policy.upper - policy.lower) <= 0.05
    assert np.nanmax(true.upper - true.lower) < np.nanmax(policy.upper - policy.lower)
    with pytest.raises(dm.InvalidArgument, match="float32"):
        solve(forever[0], dm.Stationary(), tolerance=1e-6)


@pytest.mark.parametrize("walk", [0, pytest.param(20_000, marks=pytest.mark.slow)])
def test_certificates_hold_the_value_of_what_was_rounded(walk):
    """Exact but for rounding in two rounds, by certificates and on the tree: W and every W^{-i}."""
    rule = dm.LastShownOnly(dm.Logit(0.5), query=0.5)
    env = logit_market(2, 3, 2, seed=4, values=1, platform=None, advertisers=None, rule=rule)
    short = shortened(env)
    certificate = dm.Certificate(runs=30, marginal_runs=30, walk=walk)
    policy = solve(short, dm.Neural(sweeps=1, certificate=certificate))
    true, off = solve(env, dm.Exact()), solve(in_doubles(short), dm.Exact())
    assert np.abs(true.value - off.value).max() > 1e-10
    for name in ("", "marginal_", "displayable_marginal_"):
        low, high = (getattr(policy, name + side) for side in ("lower", "upper"))
        exact = getattr(true, name + "value")
        assert ((low <= exact) & (exact <= high)).all()
        assert (high - low < 1e-5).all()


@pytest.mark.parametrize("tree", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_bounds_hold_another_market_that_was_rounded(tree, monkeypatch):
    """W of the true market, where both are walked and where nothing but simulation is left."""
    held = single(5)[1]
    env = logit_market(2, 3, 2, seed=4, values=1, advertisers=None)
    true = dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule, env.signals, held.values
    )
    mechanism = dm.DynamicTeamMechanism(solve(held, dm.Exact()), dm.groves.Zero())
    short = shortened(true)
    right, off = (mechanism.audit(under=one).best.value for one in (true, in_doubles(short)))
    assert np.abs(right - off).max() > 1e-10
    if not tree:
        monkeypatch.setattr("dynmech.mechanism.under.walk_under", _no_tree)
    best = mechanism.audit(under=short, conversations=30).best
    assert (best.lower <= right).all()
    assert (right <= best.upper).all()
    assert not tree or (best.upper - right < 1e-5).all()


def _no_tree(*given):
    raise dm.TooLarge("no tree of both markets fits")


def test_what_is_exact_but_for_rounding_can_be_revalued():
    policy = solve(single(2)[0], dm.Exact())
    assert not policy.partial
    np.testing.assert_allclose(np.asarray(policy.revalue()), policy.value, rtol=1e-4)


def test_chances_in_float32_are_those_that_sum_to_one():
    """Their sums are off by up to 1e-7, which no check of a law in float64 would let pass."""
    rng, env = np.random.default_rng(0), logit_market(2, 3, 1, seed=0, values=1, advertisers=None)
    action = rng.dirichlet(np.ones(4), (3, 3)).transpose(0, 2, 1)
    action[[0, 1, 2, 2], [1, 0, 0, 1]] = 0.0  # what was not shown
    action = (action / action.sum(axis=1, keepdims=True)).astype(np.float32)
    law = rng.dirichlet(np.ones(7), (3, 3)).transpose(0, 2, 1).astype(np.float32)
    wide = [x.astype(float) for x in (action, law)]
    assert all(np.abs(x.sum(axis=1) - 1).max() > 1e-8 for x in wide)
    found = []
    for table, heard in ((action, law), [x / x.sum(axis=1, keepdims=True) for x in wide]):
        feedback = dm.ChannelFeedback(heard.transpose(0, 2, 1).reshape(3, 3, 7, 1, 1))
        market = dm.RecommendationMDP(
            env.gamma, env.tastes, 1, dm.Tabulated(table), dm.SignalStructure(feedback=feedback),
            env.values,
        )  # fmt: skip
        found.append(solve(market, dm.Exact()).value)
    np.testing.assert_array_equal(*found)


def test_profiles_are_drawn_by_weights_in_float32():
    """Weights in float32 stay so, and sum to one within their rounding only."""
    weights = np.full(3, 1 / 3, np.float32)
    assert abs(weights.astype(float).sum() - 1) > 1.5e-8
    initial = np.eye(3).reshape(3, 3, 1)
    env = dm.RecommendationMDP(
        np.ones((1, 1), np.float32), dm.TasteGrid(np.arange(3.0)[:, None], weights), 1,
        dm.LastShownOnly(dm.Logit(0.5), 0.5), dm.SignalStructure(dm.JointSignals(initial)),
        dm.ConstantValues([0.5]),
    )  # fmt: skip
    drawn = env.sample_profiles(jax.random.key(0), 4000).signals[:, 0]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, weights, atol=0.03)
    assert solve(env, dm.Exact()).estimate_ex_ante(jax.random.key(1), 4).value.size == 1


def all_bounds(policy):
    """Lower bounds, what plans attain, and upper bounds of W and both marginal economies."""
    low = [policy.lower], policy.marginal_lower, policy.displayable_marginal_lower
    value = [policy.value], policy.marginal_value, policy.displayable_marginal_value
    high = [policy.upper], policy.marginal_upper, policy.displayable_marginal_upper
    return (np.concatenate(parts) for parts in (low, value, high))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("share", [0.0, 1e-7, 1e-6, 3e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("kind", [dm.PointBased, dm.BranchAndBound, dm.BestFirst])
def test_a_status_in_float32_is_true_of_the_bounds_returned(kind, share, relative):
    """Within a tolerance is said of bounds as wide as rounding makes them."""
    said, refused = set(), []
    for seed in range(4):
        env = single(seed)[0]
        asked = share if relative else share * env.money_scale
        solver, name = kind(exact_after=math.inf), "relative" if relative else "tolerance"
        try:
            policy = solve(env, solver, **{name: asked})
        except dm.InvalidArgument as error:
            refused.append(str(error))
            continue
        low, value, high = all_bounds(policy)
        gap = high - np.minimum(low, value)
        allowed = asked * np.abs(high) if relative else asked
        said.add(policy.status)
        if policy.status is dm.Status.EXACT:
            assert np.nanmax(gap) <= 1e-5 * env.money_scale
        else:
            assert np.nanmax(gap - allowed) <= 1e-9 * env.money_scale
    assert said <= {dm.Status.EXACT, dm.Status.WITHIN_TOLERANCE}
    assert all("float32 can certify" in words for words in refused)
    assert not (relative and refused)


def test_bounds_searched_from_the_rules_in_float32_hold_the_value_in_float64(monkeypatch):
    def refuse(env, limit):
        raise dm.TooLarge("too many")

    monkeypatch.setattr("dynmech.problem.pose.compile_market", refuse)
    for seed in range(3):
        short, wide = single(seed, rule=dm.PerfectRecall(dm.Logit(0.5), query=0.5))
        moved = in_doubles(short)  # the same market, could its numbers have been rounded otherwise
        lean = dm.RecommendationMDP(
            wide.gamma * (1 - 5e-8), wide.tastes, wide.horizon, wide.action_rule, wide.signals,
            wide.values,
        )  # fmt: skip
        policy = solve(short, dm.BranchAndBound())
        assert "searched from the rules" in policy.solver
        for env in (moved, lean):
            assert brackets(policy, solve(env, dm.BranchAndBound())), seed
        assert np.nanmax(policy.upper - policy.lower) < 1e-4 * short.money_scale
