"""A policy where another market is the truth and no tree of both fits: bounds, by simulation."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import scipy.stats

import dynmech as dm
from tests.helpers.under import NAMES, Case, cuts_of, market, prior_of


@pytest.fixture(scope="module", params=NAMES)
def case(request) -> Case:
    return Case(request.param)


@pytest.fixture
def no_tree_fits(monkeypatch):
    """As if the tree of both markets were too large for any machine."""
    monkeypatch.setattr("dynmech.mechanism.under.walk_under", _refuse)


def _refuse(*given):
    raise dm.TooLarge("no tree of both markets fits")


def test_bounds_of_a_few_profiles_hold_what_the_tree_of_both_says(case, monkeypatch):
    """Values that stay, values that move, and histories that are impossible to the mechanism."""
    every = case.policy.profiles
    possible = np.flatnonzero(np.isfinite(case.expected["V"].ravel()))[[0, -1]]
    few = dm.Profiles(every.theta[possible], every.signals[possible])
    policy = dm.solve_efficient_policy(case.solved, initial=few, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    exact = mechanism.audit(under=case.true)
    monkeypatch.setattr("dynmech.mechanism.under.walk_under", _refuse)
    found = mechanism.audit(under=case.true, conversations=60, nodes=2)
    for got, right in (
        (found.value, exact.value.value),
        (found.slack_participation, exact.participation),
        (found.slack_no_subsidy, exact.no_subsidy),
    ):
        assert (got.lower <= right + 1e-9).all()
        assert (right <= got.upper + 1e-9).all()
    # The exact audit takes the own alternatives of these profiles for true types, too.
    assert (found.gain.lower <= exact.gain_by_period[:, 0] + 1e-9).all()
    np.testing.assert_allclose(found.best.upper, exact.best.value, atol=1e-9)
    assert (found.window.floor >= exact.window.floor - 1e-9).all()
    assert (found.window.ceiling <= exact.window.ceiling + 1e-9).all()
    # Nothing is left to chance in the last round.
    assert max(node.bound for node in found.inside) <= exact.incentive_bound.max() + 1e-9


@pytest.mark.slow
def test_where_no_tree_fits_bounds_hold_what_brute_force_finds(case, no_tree_fits):
    audit = case.mechanism.audit(under=case.true, conversations=300)
    possible = np.isfinite(case.expected["V"])
    value, right = audit.value, case.expected["V"][possible]
    missed = (value.lower[possible] > right + 1e-9) | (value.upper[possible] < right - 1e-9)
    assert missed.mean() <= 0.1
    assert (audit.best.upper[possible] >= case.expected["W_true"][possible] - 1e-9).all()
    at_outset = audit.profile_bound[0][possible]
    assert (at_outset >= case.expected["incentive_bound"][possible] - 1e-9).all()
    first = case.expected["gain_by_period"][:, 0]
    assert (audit.incentive_gain_lower <= first + 1e-9).all()
    assert (first <= audit.incentive_gain_upper + 1e-9).all()
    np.testing.assert_allclose(audit.budget.payments, case.expected["core_payment"], atol=0.3)
    known = np.isfinite(case.expected["window_floor"])
    over = (audit.window.floor - case.expected["window_floor"])[known]
    under = (case.expected["window_ceiling"] - audit.window.ceiling)[known]
    assert min(over.min(), under.min()) > -1e-9
    assert max(over.max(), under.max()) < 1.0


@pytest.mark.parametrize("kind", ["asked", pytest.param("efficient", marks=pytest.mark.slow)])
def test_nodes_are_bounded_under_another_market_where_no_tree_fits(kind, no_tree_fits):
    """Every node of the last round by hand, where nothing is left to chance."""
    env, true = market(initial=False), market(scale=1.2, query=0.4, noise=1.0, initial=False)
    policy = dm.GivenPolicy(env, lambda b, h, theta, t: int(np.argmin(env.utilities @ b)))
    if kind == "efficient":
        policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    audit = mechanism.audit(under=true, conversations=60, nodes=8)
    mean, error = mechanism.simulate(jax.random.key(0), 4000, under=true).mean("surplus")
    weights = prior_of(true)
    low, high = ((side * weights).sum() for side in (audit.value.lower, audit.value.upper))
    assert low - 4 * error <= mean <= high + 4 * error
    right, u = [], true.utilities
    buys, cuts = 0.6 / (1 + np.exp(-u / 1.2)), cuts_of(env.signals.feedback)[:, 0]
    for profile, theta in enumerate(itertools.product(*env.values.support.tolist())):
        first = policy.start(profile=profile)
        above = scipy.stats.norm.sf(cuts[first.recommendation], u[first.recommendation], 1.0)
        for symbol, law in enumerate((1 - above, above)):
            worth = ((np.array(theta)[:, None] + u) * buys) @ (law / law.sum())
            shown = first.step("query", signals={"platform": symbol}).recommendation
            right.append((profile, worth[shown], max(worth.max(), 0.0) - worth[shown]))
    found = [(x.profile, float(x.value.value), x.bound) for x in audit.inside]
    np.testing.assert_allclose(sorted(found), sorted(right), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [False, True])
def test_several_products_at_once_are_bounded_where_no_tree_fits(ordered, monkeypatch):
    """Against the tree: under another market, and a recommender that draws in its own."""
    screen = dm.Displays(2, ordered=ordered)
    env, true = (
        dataclasses.replace(one, displays=screen)
        for one in (market(), market(scale=0.9, query=0.3, noise=1.2))
    )

    def draws(belief, memory, theta, period):
        liked = np.append(env.utilities @ belief, 0.0)[env.controls].sum(axis=1)
        return np.exp(3 * liked) / np.exp(3 * liked).sum()

    some = dm.Profiles(np.array([[0, 1], [1, 1]]), np.array([[0, 1, 0], [0, 0, 0]]))
    policy = dm.GivenPolicy(env, draws, initial=some)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    exact, own = mechanism.audit(under=true), mechanism.audit()
    quick = dm.Certificate(256, marginal_runs=60, walk=0)
    played = dm.GivenPolicy(env, draws, initial=some, certificate=quick)
    with monkeypatch.context() as patch:
        patch.setattr("dynmech.mechanism.under.walk_under", _refuse)
        elsewhere = mechanism.audit(under=true, conversations=200, nodes=3)
    here = dm.DynamicTeamMechanism(played, groves=dm.groves.Zero()).audit(conversations=200)
    for right, found in ((exact, elsewhere), (own, here)):
        value = found.value
        missed = (value.lower > right.value.value) | (value.upper < right.value.value)
        assert missed.mean() <= 0.1
        np.testing.assert_allclose(found.best.upper, right.best.upper, atol=1e-9)
        first = right.gain_by_period[:, 0]
        assert (found.incentive_gain_lower <= first + 1e-9).all()
        assert (first <= found.incentive_gain_upper + 1e-9).all()
    assert (elsewhere.window.floor - exact.window.floor > -1e-9).all()
    assert (exact.window.ceiling - elsewhere.window.ceiling > -1e-9).all()
    assert max(node.bound for node in elsewhere.inside) <= exact.incentive_bound.max() + 0.1
    np.testing.assert_allclose(played.marginal_value, policy.marginal_value, atol=1e-9)
