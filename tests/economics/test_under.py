"""A policy solved for one market where another is the truth: brute force, and what must hold."""

import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.under import NAMES, Case, cuts_of, market, prior_of


@pytest.fixture(scope="module", params=NAMES)
def case(request) -> Case:
    return Case(request.param)


def test_gains_participation_and_windows_are_those_of_the_true_market(case):
    audit = case.audit
    case.same(case.policy.value, "W_solved")
    case.same(audit.incentive_gain, "gain")
    case.same(audit.gain_by_period, "gain_by_period")
    case.same(audit.value.value, "V")
    case.same(audit.best.upper, "W_true")
    case.same(audit.participation, "participation")
    case.same(audit.no_subsidy, "no_subsidy")
    case.same(audit.window.floor, "window_floor")
    case.same(audit.window.ceiling, "window_ceiling")
    case.same(audit.budget.payments, "core_payment")
    case.same(audit.budget.user_surplus, "user_surplus")
    case.same(audit.incentive_bound, "incentive_bound_inside")
    case.same(audit.profile_bound[0], "incentive_bound")


def test_whole_strategies_gain_no_more_than_the_bound(case):
    found = case.mechanism.best_response(under=case.true)
    case.same(np.nanmax(found.gain, axis=1), "gain_whole")
    bound = np.nanmax(case.expected["incentive_bound"])
    assert np.nanmax(found.gain) <= bound + 1e-9
    every = case.mechanism.audit(under=case.true, histories="all")
    assert (every.incentive_gain >= case.expected["gain"] - 1e-9).all()


def test_simulation_draws_from_the_true_market(case):
    drawn = case.mechanism.simulate(jax.random.key(3), 4000, under=case.true)
    weights = prior_of(case.true)
    right = float(np.nansum(case.expected["V"] * weights))
    mean, error = drawn.mean("surplus")
    assert abs(mean - right) < 5 * error


def test_the_own_market_is_the_audit_without_another():
    env = market()
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))
    plain, under = mechanism.audit(), mechanism.audit(under=env)
    np.testing.assert_allclose(under.incentive_gain, plain.incentive_gain, atol=1e-9)
    np.testing.assert_allclose(under.participation, plain.participation, atol=1e-9)
    np.testing.assert_allclose(under.no_subsidy, plain.no_subsidy, atol=1e-9)
    np.testing.assert_allclose(under.window.floor, plain.window.floor, atol=1e-9)
    assert under.incentive_bound.max() < 1e-9


def test_readings_are_cut_where_the_mechanism_cuts_them():
    """With other weights alone the medians differ; given cuts must make no difference."""
    tilted = np.array([0.6, 0.2, 0.1, 0.05, 0.03, 0.02])
    believed, true = market(), market(prior=tilted)
    readings = believed.signals
    given = dm.RecommendationMDP(
        true.gamma, true.tastes, 2, true.action_rule,
        dm.SignalStructure(
            dm.GaussianSignals(None, 0.8, 2, cuts=cuts_of(readings.initial)),
            dm.RatingFeedback(0.7, 2, cuts=cuts_of(readings.feedback)),
            true.signals.settlement,
        ),
        true.values,
    )  # fmt: skip
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(believed, progress=False))
    found, right = mechanism.audit(under=true), mechanism.audit(under=given)
    np.testing.assert_allclose(found.participation, right.participation, atol=1e-12)
    drawn = [mechanism.simulate(jax.random.key(1), 500, under=env) for env in (true, given)]
    np.testing.assert_array_equal(drawn[0].payment, drawn[1].payment)


def read(seed, table):
    """Readings of the one shown alone, or the same law as a table in which anybody may read."""
    env = market(seed=seed, initial=False)
    feedback = dm.ChannelFeedback(_law(seed)) if table else _readings(seed)
    return dataclasses.replace(env, signals=dm.SignalStructure(feedback=feedback))


def _readings(seed):
    noises = np.random.default_rng(seed).uniform(0.3, 0.6, 2)
    return dm.RatingFeedback(noises[0], 2, advertisers=noises[1], cuts=np.zeros((2, 1)))


def _law(seed):
    """What is heard after each control, given each taste: (3, m, 2, 2, 2)."""
    utilities = market(seed=seed, initial=False).utilities
    with jax.enable_x64(True):
        shown = [np.array([control]) for control in range(3)]
        laws = [_readings(seed).likelihood(r, r, 0, utilities) for r in shown]
    return np.asarray(laws, float).reshape(3, -1, 2, 2, 2)


def test_what_nobody_can_have_heard_is_impossible_whoever_numbers_it():
    found = []
    for table in (False, True):
        policy = dm.solve_efficient_policy(read(110, table), progress=False)
        mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
        found.append(mechanism.audit(under=read(10, table)).gain_by_period)
    assert found[1][:, 1].max() > 0.1
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)


@pytest.mark.parametrize("own", ["table", pytest.param("readings", marks=pytest.mark.slow)])
def test_what_is_claimed_without_a_reading_is_what_the_mechanism_hears(own):
    """Where it can be read in one of both markets only: payoffs by hand."""
    env, truth, law = read(110, False), read(10, own == "readings"), _law(10)
    if own == "table":
        any_law = np.random.default_rng(10).dirichlet(np.full(8, 0.3), (3, 6))
        feedback = dm.ChannelFeedback(any_law.reshape(3, 6, 2, 2, 2))
        env = dataclasses.replace(env, signals=dm.SignalStructure(feedback=feedback))
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    first, money = policy.start(profile=3), np.array([0.9, 0.7])
    liar, buys = 1 - first.recommendation, 0.4 / (1 + np.exp(-truth.utilities / 0.5))

    def claim(period, values, symbols):
        return values, symbols if period == 1 else np.ones_like(symbols)

    def sale(product, chance):
        """What each advertiser has of it: she earns her value, and is paid the others' surplus."""
        return chance @ (money[product] + truth.utilities[product]) / 6

    drawn = mechanism.simulate(jax.random.key(0), 4000, {liar: claim}, 3, truth)
    right, later = sale(first.recommendation, buys[first.recommendation]), {}
    for said in np.ndindex(2, 2, 2):
        told = np.array(said)
        told[1 + liar] = 1
        next_shown = first.step("query", signals=told).recommendation
        shown = later[said] = next_shown if own == "table" else -1  # nothing more: impossible
        if shown >= 0:
            chance = 0.6 * law[(first.recommendation, slice(None), *said)] * buys[shown]
            right += sale(shown, chance)
    payoff = drawn.earned - drawn.payment
    error = payoff.std(axis=0) / len(payoff) ** 0.5
    assert (np.abs(payoff.mean(axis=0) - right) < 4 * error).all()
    again = drawn.action[:, 0] == env.products + 1
    possible = {later[said] for said in np.ndindex(2, 2, 2) if said[1 + liar] == 0}
    assert set(drawn.recommendation[again, 1].tolist()) == possible


def test_several_markets_have_a_row_each_and_a_summary():
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(market(), progress=False))
    others = [market(scale=scale) for scale in (0.5, 0.8, 1.5)]
    audits = mechanism.audit(under=others)
    assert len(audits) == 3
    assert audits.incentive_gain.shape == (3, 2)
    assert len(audits.to_frame()) == 6
    assert audits.quantile(0.0) == audits.incentive_gain.max(axis=1).min()
    assert "largest gain" in audits.summary()
    assert len(repr(audits).splitlines()) == 2 + len(audits)
    one = mechanism.audit(under=others[2])
    np.testing.assert_array_equal(audits[2].incentive_gain, one.incentive_gain)


def test_tastes_may_differ_in_number():
    rng = np.random.default_rng(5)
    believed, true = market(), market()
    true = dm.RecommendationMDP(
        true.gamma, dm.TasteGrid(rng.normal(size=(9, 2)), np.full(9, 1 / 9)), 2, true.action_rule,
        true.signals, true.values,
    )  # fmt: skip
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(believed, progress=False))
    audit = mechanism.audit(under=true)
    drawn = mechanism.simulate(jax.random.key(0), 4000, under=true)
    mean, error = drawn.mean("payment")
    weights = prior_of(true)
    right = np.nansum((audit.budget.payments * weights).reshape(2, -1), axis=1)
    assert (np.abs(mean - right) < 5 * error).all()


@pytest.mark.parametrize("change", ["horizon", "support", "alphabet"])
def test_what_must_be_shared_is_said(change):
    env = market(initial=False)
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))
    parts = {"tastes": env.tastes, "action_rule": env.action_rule, "signals": env.signals}
    values, horizon = env.values, 2
    if change == "horizon":
        horizon = 3
    elif change == "support":
        values = dm.ConstantValues([[0.4, 0.9], [0.3, 0.8]])
    elif change == "alphabet":
        parts["signals"] = dm.SignalStructure(feedback=dm.RatingFeedback(0.7, 3))
    other = dm.RecommendationMDP(gamma=env.gamma, horizon=horizon, values=values, **parts)
    for ask in (
        mechanism.audit,
        lambda under: mechanism.simulate(jax.random.key(0), 9, under=under),
    ):
        with pytest.raises(dm.InvalidArgument, match="under="):
            ask(under=other)


def test_no_market_at_all_is_refused():
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(market(), progress=False))
    with pytest.raises(dm.InvalidArgument, match="finite sequence"):
        mechanism.audit(under=[])


def test_a_total_in_the_robust_window_does_both_in_every_market():
    others = [market(scale=scale, query=query) for scale, query in ((0.4, 0.5), (0.6, 0.7))]
    policy = dm.solve_efficient_policy(market(), progress=False)
    plain = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero()).audit(under=others)
    least = np.fmax(*(audit.window.floor for audit in plain))
    most = np.fmin(*(audit.window.ceiling for audit in plain))
    for charge, right in (("floor", least), ("ceiling", most)):
        term = dm.groves.RobustWindow(others, charge=charge)
        mechanism = dm.DynamicTeamMechanism(policy, groves=term)
        np.testing.assert_allclose(mechanism.groves_total, right, atol=1e-9)
        slack = "no_subsidy" if charge == "floor" else "participation"
        for audit in mechanism.audit(under=others):
            assert np.nanmin(getattr(audit, slack)) >= -1e-9


def test_totals_in_the_robust_window_at_bids_are_those_where_the_bids_are_values():
    """Of others' bids alone; what is never drawn is a value like any other for the others."""
    kinds = ((0.5, 0.6), (0.4, 0.5), (0.6, 0.7))

    def made(values):
        return [dataclasses.replace(market(scale=s, query=q), values=values) for s, q in kinds]

    own = market().values
    low, high = float(own.support.min()), float(own.support.max())
    bid = np.append((low + high) / 2, own.support[1:, 0])
    every = np.broadcast_to(np.linspace(low, high, 101), (len(bid), 101))
    wider = np.column_stack([own.support, bid, every])
    known = made(dm.ConstantValues(wider, np.pad(own.prior, ((0, 0), (0, 102)))))
    env, *others = made(dm.ConstantValues(own.support, own.prior, (low, high)))
    policy = dm.solve_efficient_policy(env, progress=False)
    said = np.zeros(env.products + 1, int)
    start = dm.Profiles(np.array([[own.support.shape[1]] * env.products]), said[None])
    right = dm.solve_efficient_policy(known[0], initial=start, progress=False)
    here, there = (
        dm.DynamicTeamMechanism(one, dm.groves.RobustWindow(markets, charge="floor"))
        for one, markets in ((policy, others), (right, known[1:]))
    )
    paid = here.settle(policy.start(bid, said).step("exit")).transfer.sum(axis=0)
    # Where others are of the support her total is that of any own report that was solved.
    assert paid[0] == pytest.approx(here.groves_total[0].flat[0], abs=1e-12)
    np.testing.assert_allclose(paid[1:], there.groves_total[1:, 0], atol=1e-12)


@pytest.mark.slow
def test_a_policy_that_is_played_is_followed_on_the_tree_of_both_markets():
    """A network's own recommendations, asked at every node, and drawn in conversations."""
    quick = dm.Certificate(runs=60, marginal_runs=60, rounds=1, walk=0)
    network = dm.Neural(sweeps=1, runs=2, steps=1, batch=2, cases=2, chunk=64, certificate=quick)
    policy = dm.solve_efficient_policy(market(), network, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    true = market(scale=1.2, query=0.4)
    audit = mechanism.audit(under=true)
    assert not policy.evaluator.walked
    drawn = mechanism.simulate(jax.random.key(0), 4000, under=true)
    mean, error = drawn.mean("surplus")
    right = np.nansum(audit.value.value * prior_of(true))
    assert abs(mean - right) < 5 * error
    assert (audit.best.upper - audit.value.value)[np.isfinite(audit.value.value)].min() > -1e-9
