"""Whole misreporting strategies, and reporting conventions after own past lies."""

import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.audit.strategies import search_histories
from solvers.tree.tree import ratios
from tests.helpers.markets import random_market
from tests.helpers.quantities import solve
from tests.helpers.small import logit_market

TOLERANCE = 1e-9


def _policy(seed: int, **options):
    market = random_market(np.random.default_rng(seed), horizon=3, **options)
    return dm.solve_efficient_policy(dm.RecommendationMDP.from_tables(**market))


@pytest.mark.parametrize("reports", ["incremental", "cumulative"])
@pytest.mark.parametrize("seed", range(4))
def test_no_strategy_beats_truth_from_the_outset(seed, reports):
    policy = _policy(seed, constant=bool(seed % 2))
    mechanism = dm.DynamicTeamMechanism(policy, reports=reports)
    found = mechanism.best_response()
    assert np.nanmax(found.gain) <= TOLERANCE * policy.env.money_scale
    payoff = mechanism.agent_payoff.reshape(policy.env.products, -1)
    np.testing.assert_allclose(found.payoff, payoff, atol=TOLERANCE * policy.env.money_scale)


def test_a_second_lie_undoes_the_first_under_incremental_reports_only():
    """Slip 3: after her own lie, incremental reporting invites another; cumulative does not."""
    gains = {"incremental": [], "cumulative": []}
    for seed in range(4):
        policy = _policy(seed, constant=bool(seed % 2))
        for reports, found in gains.items():
            mechanism = dm.DynamicTeamMechanism(policy, reports=reports)
            truthful, lied = (mechanism.audit(histories=h) for h in ("on-path", "all"))
            assert truthful.incentive_gain.max() <= truthful.tolerance
            found.append(lied.incentive_gain.max() / policy.env.money_scale)
            if reports == "incremental":
                witness = lied.witness[int(np.argmax(lied.incentive_gain))]
                assert witness.told_signals != witness.own_signals
                assert "told as her earlier signals" in witness.sentence()
    assert min(gains["incremental"]) > 1e-3
    assert max(gains["cumulative"]) <= TOLERANCE


@pytest.mark.parametrize("settlement", [dm.settlement.Estimator(), dm.settlement.MessageDriven()])
@pytest.mark.parametrize("seed", range(3))
def test_two_searches_of_single_lies_agree(seed, settlement):
    """The game of histories, restricted to truthful ones, finds what the direct search finds."""
    policy = _policy(seed, constant=bool(seed % 2), biased=seed == 2)
    mechanism = dm.DynamicTeamMechanism(policy)
    audit = mechanism.audit(settlement)
    means = mechanism.settlement_means()
    found = search_histories(policy, settlement, means, "incremental", truthful=True)
    scale = TOLERANCE * policy.env.money_scale
    np.testing.assert_allclose(found.gain, audit.incentive_gain, atol=scale)
    np.testing.assert_allclose(found.by_period, audit.gain_by_period, atol=scale)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_searches_of_single_lies_agree_on_a_batch(seed):
    """Also at profiles that only others' alternatives lead to."""
    env = logit_market(n=3, horizon=2, seed=seed, feedback=dm.RatingFeedback(0.7, 2, 1.0))
    drawn = env.sample_profiles(jax.random.key(seed), 4)
    mechanism = dm.DynamicTeamMechanism(solve(env, initial=drawn), dm.groves.Zero())
    message = dm.settlement.MessageDriven()
    audit, means = mechanism.audit(message), mechanism.settlement_means()
    found = search_histories(mechanism.policy, message, means, "incremental", truthful=True)
    scale = TOLERANCE * env.money_scale
    np.testing.assert_allclose(found.by_period, audit.gain_by_period, atol=scale)
    assert audit.gain_by_period[:, 1].max() > 1e-3


@pytest.mark.slow
def test_two_searches_agree_where_beliefs_in_proportion_are_one_node():
    """Two trials, of chance p: (none, both) and (one, one) give the same belief up to a factor 4.

    Solved with and without merging: the same gains of lies, of strategies, and on an interval.
    """
    p = np.random.default_rng(3).uniform(0.1, 0.9, (3, 5))
    law = np.stack([(1 - p) ** 2, 2 * p * (1 - p), p**2], axis=-1)
    rule = dm.LastShownOnly(dm.Logit(0.5), 0.9)
    feedback = dm.ChannelFeedback(law[:, :, None, :, None])
    env = logit_market(horizon=3, seed=1, rule=rule, feedback=feedback)
    values = dm.ConstantValues(env.values.support, env.values.prior, (0.0, 2.0))
    env = dataclasses.replace(env, values=values)
    message, found = dm.settlement.MessageDriven(), []
    for merge in (True, False):
        drawn = env.sample_profiles(jax.random.key(0), 2)
        mechanism = dm.DynamicTeamMechanism(solve(env, merge, drawn), dm.groves.Zero())
        policy, means = mechanism.policy, mechanism.settlement_means()
        share = ratios(policy.plan.tree, 1, np.arange(policy.plan.tree.layers[1].nodes))
        assert (share is not None and np.ptp(share) > 1) == merge
        some = mechanism.audit(message, interval=False)
        again = search_histories(policy, message, means, "incremental", truthful=True)
        every = mechanism.audit(message)
        assert every.gain_by_period.max() > 1e-3
        np.testing.assert_allclose(again.by_period, some.gain_by_period, atol=1e-9)
        assert (every.gain_by_period >= some.gain_by_period - 1e-9).all()
        assert mechanism.audit().incentive_gain.max() <= every.tolerance
        assert np.nanmax(mechanism.best_response().gain) <= every.tolerance
        found.append((every.gain_by_period, mechanism.best_response(message).payoff))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-9)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_strategies_gain_at_least_what_one_lie_gains(seed):
    policy = _policy(seed, constant=True)
    mechanism = dm.DynamicTeamMechanism(policy)
    message = dm.settlement.MessageDriven()
    found = mechanism.best_response(message)
    audit = mechanism.audit(message)
    assert (np.nanmax(found.gain, axis=1) >= audit.first_gain - 1e-12).all()
    assert np.nanmax(found.gain) > 1e-3


def _strategies_by_brute_force(market, policy, i, message):
    """Best payoff of advertiser i in a two-period market, by recursion over raw histories."""
    env, n = policy.env, policy.env.products
    act, law = market["action"], market["feedback"].reshape(*market["feedback"].shape[:2], -1)
    prior = np.asarray(market["prior"])
    first = market["initial_signals"]
    plan, pairs = policy.plan, policy.pairs
    u = env.utilities
    number = {
        (tuple(pairs.signals[r]), *t): k
        for k, (r, t) in enumerate(zip(pairs.root, pairs.theta.tolist(), strict=True))
    }
    symbols = [np.unravel_index(z, env.feedback_alphabet) for z in range(law.shape[2])]
    size, alphabet = env.values.support.shape[1], env.initial_alphabet[i + 1]

    def recommend(t, signals, theta, node):
        return int(plan.actions[t][number[(tuple(signals), *theta)], node])

    def flow(history, true, told, theta):
        buy = act[history, :n]
        quality = u
        if message:
            mass = (told * buy).sum(1, keepdims=True)
            quality = (told * buy * u).sum(1, keepdims=True) / np.where(mass > 0, mass, 1)
        worth = env.values.support[np.arange(n), theta][:, None] + quality
        return (true * buy * worth).sum()

    def lies(signals, theta):
        for value in range(size):
            yield tuple(value if j == i else x for j, x in enumerate(theta))

    best = np.full(len(pairs.base), np.nan)
    for b, pair in enumerate(pairs.base):
        signals, theta = tuple(pairs.signals[pairs.root[pair]]), tuple(pairs.theta[pair])
        true = prior * first[(slice(None), *signals)]
        if true.sum() <= 0:
            continue
        options = []
        for symbol in range(alphabet):
            claim = tuple(symbol if k == i + 1 else z for k, z in enumerate(signals))
            told = prior * first[(slice(None), *claim)]
            for report in lies(claim, theta):
                r = recommend(0, claim, report, 0)
                total = flow(r, true, told, theta)
                for z, joint in enumerate(symbols):
                    later = []
                    column = act[r, n + 1] * law[r, :, z]
                    for own in range(env.feedback_alphabet[i + 1]):
                        heard = [own if k == i + 1 else x for k, x in enumerate(joint)]
                        h = int(np.ravel_multi_index(heard, env.feedback_alphabet))
                        node = int(plan.tree.layers[0].child[0, r, h])
                        held = told * act[r, n + 1] * law[r, :, h]
                        for again in lies(claim, theta):
                            r2 = recommend(1, claim, again, node)
                            history = (n + 1) * (1 + r) + r2
                            later.append(flow(history, true * column, held, theta))
                    total += max(later)
                options.append(total)
        best[b] = max(options) / true.sum()
    return best


@pytest.mark.parametrize("message", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_best_response_equals_brute_force_over_histories(seed, message):
    options = {"constant": True, "horizon": 2, "zeros": 0.3 * seed}
    market = random_market(np.random.default_rng(40 + seed), **options)
    policy = dm.solve_efficient_policy(dm.RecommendationMDP.from_tables(**market))
    mechanism = dm.DynamicTeamMechanism(policy)
    settlement = dm.settlement.MessageDriven() if message else dm.settlement.Estimator()
    found = mechanism.best_response(settlement)
    for i in range(policy.env.products):
        expected = _strategies_by_brute_force(market, policy, i, message)
        np.testing.assert_allclose(
            found.payoff[i], expected, atol=TOLERANCE * policy.env.money_scale
        )


def test_bad_requests_are_refused():
    policy = _policy(0)
    mechanism = dm.DynamicTeamMechanism(policy)
    with pytest.raises(dm.InvalidArgument, match="reports"):
        dm.DynamicTeamMechanism(policy, reports="sometimes")
    with pytest.raises(dm.InvalidArgument, match="histories"):
        mechanism.audit(histories="none")
    with pytest.raises(dm.OutsideSupport, match="profiles"):
        mechanism.best_response(profiles=np.array([10_000]))
