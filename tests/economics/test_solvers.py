"""One contract for every solver: bounds bracket the brute force, and the policy can be used."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from experiments.benchmarks.instances import generic, hidden_taste, scale
from tests.economics.test_cases import NAMES, expected_of, load
from tests.helpers.by_history import SignalsByHistory
from tests.helpers.few import few
from tests.helpers.markets import random_market, relabelled
from tests.helpers.oracle import money_scale
from tests.helpers.quantities import TOLERANCE, market_of

# Whether a tolerance was missed is told of elsewhere; here bounds are looked at.
pytestmark = pytest.mark.filterwarnings("ignore::dynmech.errors.DynmechWarning")

SOLVERS = [dm.Exact(), dm.BranchAndBound(), dm.PointBased(), dm.Stationary()]
BOUNDED = [dm.BranchAndBound(), dm.PointBased()]
IDS = [type(solver).__name__ for solver in SOLVERS]


class Ending(dm.AbstractActionRule):
    """Tables over histories of T rounds, and an exit after them: T rounds without saying so."""

    action: np.ndarray

    def start(self, products, horizon):
        return np.full(1, -1)

    def step(self, memory, recommendation, products):
        after = (memory + 1) * (products + 1) + recommendation
        return jnp.where(memory == self.last, memory, jnp.minimum(after, self.last))

    def probabilities(self, memory, recommendation, utilities):
        return jnp.asarray(self.action)[memory[0]]

    @property
    def last(self):
        return len(self.action) - 1


def posed(case, solver):
    """The market of a case, in the form that a solver takes."""
    env = market_of(case)
    if not isinstance(solver, dm.Stationary):
        return env
    n, rounds = env.products, int(env.horizon)
    action = np.array(env.action_rule.action)
    final = len(action) - (n + 1) ** rounds
    action[final:, n] += action[final:, n + 1]
    action[final:, n + 1] = 0.0
    gone = np.zeros((1, *action.shape[1:]))
    gone[:, n] = 1.0
    table = np.asarray(env.signals.feedback.table)
    return dm.RecommendationMDP(
        env.gamma, env.tastes, math.inf, Ending(np.concatenate([action, gone])),
        dm.SignalStructure(
            env.signals.initial, SignalsByHistory(np.concatenate([table, table[-1:]]))
        ),
        env.values,
    )  # fmt: skip


def solve(env, solver, **options):
    return dm.solve_efficient_policy(env, solver, progress=False, **options)


def assert_brackets(policy, expected, slack):
    """Bounds hold W and both marginal economies, whatever the gap."""
    for low, high, key in (
        (policy.lower, policy.upper, "W"),
        (policy.marginal_value, policy.marginal_upper, "W_marginal"),
        (policy.displayable_marginal_value, policy.displayable_marginal_upper, "W_displayable"),
    ):
        true = expected[key]
        np.testing.assert_array_equal(np.isnan(low), np.isnan(true), err_msg=key)
        known = ~np.isnan(true)
        assert (low[known] <= true[known] + slack).all(), key
        assert (true[known] <= high[known] + slack).all(), key


@pytest.mark.parametrize("solver", SOLVERS, ids=IDS)
@pytest.mark.parametrize("name", NAMES)
def test_bounds_meet_at_the_brute_force(name, solver):
    case = load(name)
    policy = solve(posed(case, solver), solver)
    slack = TOLERANCE * money_scale(case)
    expected = expected_of(case)
    assert_brackets(policy, expected, slack)
    np.testing.assert_allclose(policy.value, expected["W"], rtol=0, atol=slack)
    np.testing.assert_allclose(policy.upper, expected["W"], rtol=0, atol=slack)
    np.testing.assert_allclose(policy.marginal_value, expected["W_marginal"], rtol=0, atol=slack)
    gain = dm.DynamicTeamMechanism(policy).audit().incentive_gain
    if name != "biased_estimator":
        assert gain.max() <= slack


@pytest.mark.parametrize("solver", BOUNDED, ids=IDS[1:3])
@pytest.mark.parametrize("share", few([0.3, 0.0, 0.05], 2))
@pytest.mark.parametrize("name", NAMES)
def test_a_tolerance_is_kept_and_the_gap_is_not_optimistic(name, share, solver):
    case = load(name)
    scale_ = money_scale(case)
    policy = solve(market_of(case), solver, tolerance=share * scale_)
    slack = TOLERANCE * scale_
    assert_brackets(policy, expected_of(case), slack)
    assert np.nanmax(policy.upper - policy.lower) <= share * scale_ + slack
    assert np.nanmax(policy.marginal_upper - policy.marginal_value) <= share * scale_ + slack
    total = policy.advertiser_value.sum(axis=0) + policy.user_utility.sum(axis=0)
    np.testing.assert_allclose(policy.value, total, rtol=0, atol=slack)
    audit = dm.DynamicTeamMechanism(policy).audit()
    assert audit.incentive_gain.max() <= audit.gap.bound + slack


@pytest.mark.parametrize(
    ("solver", "seed"),
    few([(dm.PointBased(), 0), *((dm.BranchAndBound(), seed) for seed in range(6))], 3),
)
def test_relabelled_products_have_the_same_bounds(solver, seed):
    market = random_market(np.random.default_rng(seed), n=3, horizon=2)
    order = np.random.default_rng(seed).permutation(3)
    one = solve(dm.RecommendationMDP.from_tables(**market), solver, tolerance=0.05)
    other = dm.RecommendationMDP.from_tables(**relabelled(market, order))
    two = solve(other, solver, tolerance=0.05)
    axes = (*order, 3, *(4 + order))
    exact = solve(other, dm.Exact()).value
    assert (two.lower <= exact + 1e-9).all()
    assert (exact <= two.upper + 1e-9).all()
    back = np.transpose(one.lower, axes)
    assert np.abs(back - two.lower).max() <= 0.05 + 1e-9


@pytest.mark.parametrize("solver", BOUNDED, ids=IDS[1:3])
def test_tightening_the_tolerance_never_loosens_a_bound(solver):
    env = hidden_taste(12, 5)
    exact = solve(env, dm.Exact()).value.item()
    gaps = []
    for tolerance in (0.1, 0.01, 0.0):
        policy = solve(env, solver, tolerance=tolerance)
        assert policy.lower.item() <= exact + 1e-12 <= policy.upper.item() + 2e-12
        gaps.append(policy.upper.item() - policy.lower.item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1e-5
    assert gaps[-1] <= 1e-9


def test_most_of_a_large_market_is_never_looked_at():
    env = scale(6, 16, 4)
    exact, bounded = solve(env, dm.Exact()), solve(env, dm.BranchAndBound())
    np.testing.assert_allclose(bounded.value, exact.value, rtol=1e-12)
    np.testing.assert_allclose(bounded.marginal_value, exact.marginal_value, rtol=1e-12)
    assert bounded.work.nodes < exact.work.nodes / 4


@pytest.mark.parametrize("solver", BOUNDED, ids=IDS[1:3])
def test_a_policy_with_a_gap_can_be_used_like_any_other(solver, tmp_path):
    market = random_market(np.random.default_rng(3), n=2, horizon=3, constant=True)
    env = dm.RecommendationMDP.from_tables(**market)
    policy = solve(env, solver, tolerance=0.2)
    assert policy.gap is not None
    policy.save(tmp_path / "policy")
    again = dm.EfficientPolicy.load(tmp_path / "policy")
    np.testing.assert_array_equal(again.upper, policy.upper)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Participation())
    records = mechanism.simulate(jax.random.key(0), 200)
    assert len(records.to_frame()) > 0
    chat = policy.start(theta=(0, 0), signals=(0, 0, 0))
    assert chat.recommendation in (-1, 0, 1)
    again = np.asarray(policy.revalue().value)
    assert (policy.lower - 1e-9 <= again).all()
    assert (again <= policy.upper + 1e-9).all()


def test_the_tolerance_can_be_asked_for_at_every_node_that_play_visits():
    """A gap at the outset says nothing about what follows it; with `everywhere` it is bounded."""
    env = hidden_taste(12, 5)
    later = []
    for everywhere in (False, True):
        policy = solve(env, dm.PointBased(beliefs=8, everywhere=everywhere), tolerance=3e-3)
        bound = dm.DynamicTeamMechanism(policy).audit().gap
        assert bound.root_gap <= 3e-3
        later.append(bound.by_period.max())
    assert later[0] > 3e-3 >= later[1]


def test_a_tolerance_lets_a_market_be_solved_that_does_not_fit():
    env = hidden_taste(12, 5)
    with pytest.raises(dm.TooLarge):
        solve(env, dm.Exact(memory=2e4))
    assert solve(env, None, tolerance=0.05).solver.startswith("Exact, picked")


def test_being_exact_is_left_where_it_takes_too_long():
    env = hidden_taste(5, 3)
    with pytest.raises(dm.TooLarge, match="end in time"):
        dm.solve_efficient_policy(env, dm.Exact(seconds=1e-9), progress=False)
    policy = dm.solve_efficient_policy(env, seconds=1e-9, progress=False)
    assert policy.status is dm.Status.TIME_LIMIT
    assert policy.solver.startswith("BestFirst")
    exact = dm.solve_efficient_policy(env, progress=False).value
    assert policy.value <= exact <= policy.upper


def test_a_tree_that_takes_too_long_is_refused_while_it_grows():
    """Of G(10, 12) nobody waits for a round of a billion ways to be merged."""
    with pytest.raises(dm.TooLarge, match=r"end in time; got an estimate of more than"):
        dm.solve_efficient_policy(
            generic(10, 12), dm.Exact(memory=1e15, seconds=0.05), progress=False
        )


def test_beliefs_merged_within_delta_cost_what_the_bounds_say():
    env = hidden_taste(12, 5)
    exact = solve(env, dm.Exact())
    policy = solve(env, dm.BranchAndBound(merge_within=0.2), tolerance=0.02)
    assert "BranchAndBound" in policy.solver
    for low, true, high in (
        (policy.lower, exact.value, policy.upper),
        (policy.marginal_value, exact.marginal_value, policy.marginal_upper),
        (
            policy.displayable_marginal_value,
            exact.displayable_marginal_value,
            policy.displayable_marginal_upper,
        ),
    ):
        assert (low <= true + 1e-12).all()
        assert (true <= high + 1e-12).all()
    assert np.nanmax(policy.upper - policy.lower) > 1e-9
    total = policy.advertiser_value.sum(axis=0) + policy.user_utility.sum(axis=0)
    np.testing.assert_allclose(policy.value, total, rtol=0, atol=1e-12)
    audit = dm.DynamicTeamMechanism(policy).audit()
    assert audit.incentive_gain.max() <= audit.gap.bound + 1e-12


@pytest.mark.parametrize("kind", [dm.BranchAndBound, dm.PointBased])
def test_time_ends_a_solve_with_the_bounds_reached(kind):
    env = hidden_taste(12, 5)
    policy = solve(env, kind(seconds=1e-6))
    assert "time" in policy.solver
    exact = solve(env, dm.Exact()).value.item()
    assert policy.lower.item() <= exact + 1e-12 <= policy.upper.item() + 2e-12
    assert policy.upper.item() > policy.lower.item()


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        (lambda: dm.BranchAndBound(memory=0), ["memory", "positive"]),
        (lambda: dm.BranchAndBound(seconds=-1), ["seconds", "positive"]),
        (lambda: dm.BestFirst(exact_after=-0.1), ["exact_after", "[0, inf)"]),
        (lambda: dm.BranchAndBound(memory=100), ["memory", "plan"]),
        (lambda: dm.BranchAndBound(memory=20_000), ["memory", "plan"]),
        (lambda: dm.BranchAndBound(merge_within=-0.1), ["merge_within", "[0, 2]"]),
        (lambda: dm.BranchAndBound(merge_within=math.nan), ["merge_within", "[0, 2]"]),
        (lambda: dm.PointBased(memory=0), ["memory", "positive"]),
        (lambda: dm.PointBased(seconds=-1), ["seconds", "positive"]),
        (lambda: dm.PointBased(beliefs=0), ["beliefs"]),
        (lambda: dm.PointBased(memory=20_000), ["memory", "plan"]),
    ],
)
def test_settings_that_cannot_work_are_named(solver, words):
    with pytest.raises(dm.DynmechError) as caught:
        solve(hidden_taste(8, 3), solver())
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("solver", SOLVERS, ids=IDS)
@pytest.mark.parametrize("memory", [100, 20_000])
def test_memory_for_less_than_one_chunk_is_refused_before_any_work(solver, memory, monkeypatch):
    """Nothing is swept, backed up or solved before the error names the setting."""
    worked = []
    for place in ("tree.exact._solve_chunk", "search.branch_and_bound.sweep_bounded"):
        monkeypatch.setattr(f"solvers.{place}", lambda *args, **kwargs: worked.append(args))
    for place in ("sweep_bounded", "improve_points"):
        monkeypatch.setattr(
            f"solvers.points.point_based.{place}", lambda *args, **kwargs: worked.append(args)
        )
    env = hidden_taste(8, 4)
    if isinstance(solver, dm.Stationary):
        env = dm.RecommendationMDP(
            env.gamma, env.tastes, math.inf, env.action_rule, env.signals, env.values
        )
    with pytest.raises(dm.TooLarge, match="memory"):
        solve(env, type(solver)(memory=memory), tolerance=1e-3)
    assert not worked
