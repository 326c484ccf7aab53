"""Searching a market from its rules: the same bounds, plans and audits as with whole trees."""

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.errors import TooLarge
from experiments.benchmarks.instances import scale
from tests.economics.test_cases import expected_of, load
from tests.economics.test_solvers import assert_brackets
from tests.helpers.markets import random_market, relabelled
from tests.helpers.oracle import money_scale
from tests.helpers.quantities import TOLERANCE, market_of

# Whether a tolerance was missed is told of elsewhere; here bounds are looked at.
pytestmark = pytest.mark.filterwarnings("ignore::dynmech.errors.DynmechWarning")


def refuse(env, limit):
    raise TooLarge("too many")


@pytest.fixture
def unlisted(monkeypatch):
    """As if no market's memories could be listed."""
    monkeypatch.setattr("dynmech.problem.pose.compile_market", refuse)


def solve(env, solver=None, **options):
    return dm.solve_efficient_policy(env, solver or dm.BranchAndBound(), progress=False, **options)


def assert_honest(expected, policy, tolerance, slack):
    """Bounds hold every economy and are as close as asked; no report gains more than the bound."""
    assert "searched from the rules" in policy.solver
    assert_brackets(policy, expected, slack)
    for low, high in (
        (policy.lower, policy.upper),
        (policy.marginal_value, policy.marginal_upper),
        (policy.displayable_marginal_value, policy.displayable_marginal_upper),
    ):
        assert np.nanmax(high - low) <= tolerance + slack
    total = policy.advertiser_value.sum(axis=0) + policy.user_utility.sum(axis=0)
    np.testing.assert_allclose(policy.value, total, rtol=0, atol=slack)
    audit = dm.DynamicTeamMechanism(policy).audit()
    assert audit.incentive_gain.max() <= audit.gap.bound + slack


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_bounds_hold_the_brute_force_and_audits_run(share, unlisted):
    case = load("constant_values_three_rounds")
    slack, tolerance = TOLERANCE * money_scale(case), share * money_scale(case)
    policy = solve(market_of(case), tolerance=tolerance)
    assert_honest(expected_of(case), policy, tolerance, slack)


def solve_both(case, tolerance, monkeypatch):
    """The exact values of a market, and the policy that a search finds."""
    env = dm.RecommendationMDP.from_tables(**case)
    exact = solve(env, dm.Exact())
    with monkeypatch.context() as patch:
        patch.setattr("dynmech.problem.pose.compile_market", refuse)
        found = solve(env, tolerance=tolerance)
    names = {"W": "value", "W_marginal": "marginal_value"}
    names["W_displayable"] = "displayable_marginal_value"
    return {key: getattr(exact, name) for key, name in names.items()}, found


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 3, 4))]
)
def test_policies_of_random_markets_can_be_audited(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    case = random_market(rng, n=n, horizon=min(3, 5 - n), constant=True, zeros=0.3 * (seed % 2))
    tolerance = (0.0, 0.02, 0.2)[seed % 3]
    expected, found = solve_both(case, tolerance, monkeypatch)
    assert_honest(expected, found, tolerance, 1e-9)


@pytest.mark.parametrize("count", [9, pytest.param(400, marks=pytest.mark.slow)])
def test_bounds_of_random_markets_are_never_optimistic(count, monkeypatch):
    rng, loose = np.random.default_rng(count), 0
    for k in range(count):
        case = random_market(rng, n=2, m=3, K=1, constant=True, zeros=(0.0, 0.3)[k % 2])
        tolerance = (0.0, 0.05, 0.3)[k % 3]
        expected, found = solve_both(case, tolerance, monkeypatch)
        assert_brackets(found, expected, 1e-11)
        for low, high in (
            (found.lower, found.upper),
            (found.marginal_value, found.marginal_upper),
            (found.displayable_marginal_value, found.displayable_marginal_upper),
        ):
            assert np.nanmax(high - low) <= tolerance + 1e-11
            loose += np.nanmax(high - low) > 1e-6
    assert loose > count / 20


def test_an_interrupted_search_returns_the_bounds_reached(monkeypatch):
    import solvers.search.search as module

    env, calls, real = scale(6, 16, 3), [], module.descend

    def descend(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr("dynmech.problem.pose.compile_market", refuse)
    whole = solve(env)
    monkeypatch.setattr(module, "descend", descend)
    found = solve(env)
    assert "interrupted" in found.solver
    assert (found.marginal_value <= whole.marginal_value + 1e-12).all()
    assert (whole.marginal_value <= found.marginal_upper + 1e-12).all()


def test_a_larger_market_matches_the_exact_solution(request):
    env = scale(6, 16, 4)
    exact = solve(env, dm.Exact())
    request.getfixturevalue("unlisted")
    found = solve(env)
    for name in ("value", "marginal_value", "displayable_marginal_value", "purchase"):
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), atol=1e-12)
    assert found.work.nodes < exact.work.nodes / 4
    mechanism = dm.DynamicTeamMechanism(found, groves=dm.groves.Participation())
    assert len(mechanism.simulate(jax.random.key(0), 50).to_frame()) > 0
    chat = found.start(theta=[0] * 6, signals=[0] * 7)
    same = exact.start(theta=[0] * 6, signals=[0] * 7)
    for symbol in (2, 0, 4):
        assert chat.recommendation == same.recommendation
        np.testing.assert_allclose(chat.value, same.value, rtol=1e-12)
        other = (chat.recommendation + 1) % 6
        assert chat.considered(chat.recommendation)
        assert not chat.considered(other)
        with pytest.raises(dm.OutsideSupport, match="looked into"):
            chat.worth(other)
        chat, same = (c.step("query", signals={"platform": symbol}) for c in (chat, same))


def test_time_and_memory_end_a_search_with_the_bounds_reached(request):
    env = scale(6, 16, 4)
    exact = solve(env, dm.Exact()).value.item()
    request.getfixturevalue("unlisted")
    for solver, word in (
        (dm.BranchAndBound(seconds=1e-6), "time"),
        (dm.BranchAndBound(memory=3e5), "memory"),
    ):
        found = solve(env, solver)
        assert word in found.solver
        assert found.lower.item() <= exact + 1e-12 <= found.upper.item() + 2e-12
        assert np.nanmax(found.marginal_upper - found.marginal_value) > 1e-6


def test_a_market_too_large_to_list_is_searched_without_being_asked():
    """Perfect recall over 24 products and 4 rounds: 12,951 sets can have been seen."""
    env = scale(24, 8, 4)
    profiles = env.sample_profiles(jax.random.key(0), 1)
    options = {"initial": profiles, "tolerance": 0.3}
    policy = solve(env, dm.BranchAndBound(memory=1e7), **options)
    assert "searched" in policy.solver
    assert (policy.lower <= policy.upper).all()
    gap = policy.marginal_upper - policy.marginal_value
    assert 0 < gap.max() <= 0.3


def test_relabelled_products_have_the_same_bounds(unlisted):
    market = random_market(np.random.default_rng(5), n=3, horizon=2, constant=True)
    order = np.random.default_rng(5).permutation(3)
    one, two = (
        solve(dm.RecommendationMDP.from_tables(**case))
        for case in (market, relabelled(market, order))
    )
    axes = (*order, 3, *(4 + order))
    np.testing.assert_allclose(np.transpose(one.value, axes), two.value, atol=1e-12)
