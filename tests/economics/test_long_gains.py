"""Gains of lies under long-horizon policies: simulated, bounded, and by brute force."""

import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.payments.settlement import ChargeOnReach, Estimator, MessageDriven, NoTransfers
from dynmech.policy.player import Report
from tests.helpers.long_markets import solve, whispering
from tests.helpers.long_play import histories, lies, player_of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["as solved", "scrambled"])
def test_simulated_deviations_are_those_of_brute_force(long_solved, long_worse, name):
    """All misreports of both advertisers at the outset, three settlements, both of `lasting`."""
    policy = long_worse if name == "scrambled" else long_solved[1]
    profile = 2
    tree, player, signals = histories(policy, profile)
    player, theta = player_of(policy), policy.player.theta(profile)
    signal, compared = policy.env.signals.settlement, 0
    for price, way in (
        ("estimate", Estimator()), ("message", MessageDriven()), ("nothing", NoTransfers())
    ):  # fmt: skip
        truth = player.play(theta, signals, way, signal)
        for agent in range(2):
            honest = tree.payoff(agent, price=price)
            for value, symbol, said, heard in lies(policy.env, theta, signals, agent):
                lasting = bool((value + symbol) % 2 < 1)
                report = Report(agent, value, symbol, lasting)
                lie = player.play(theta, signals, way, signal, report)
                exact = tree.payoff(agent, player.belief(heard), said, lasting, price)
                for sample, true in (
                    (lie.steady_payoff[:, agent], exact),
                    ((lie.steady_payoff - truth.steady_payoff)[:, agent], exact - honest),
                    (lie.payoff[:, agent], exact),
                ):
                    error = sample.std(ddof=1) / len(sample) ** 0.5
                    assert abs(sample.mean() - true) <= 4.5 * error + 1e-9, (price, agent, report)
                    compared += 1
    assert compared == 3 * 2 * 3 * 3


@pytest.mark.slow
def test_gains_of_lies_stay_below_the_bound_and_are_found(long_solved, long_worse):
    """A policy far from efficient: some lie really gains, and none gains more than W - V."""
    audit = dm.DynamicTeamMechanism(long_worse, dm.groves.Zero()).audit(conversations=600)
    gains, bound = audit.measured, audit.profile_bound
    assert bound[0, 2] > 0.05
    limit = bound[gains.advertiser, gains.profile]
    assert (gains.gain.value <= limit + 3 * gains.gain.error + 1e-9).all()
    assert (gains.gain.lower <= limit + 1e-9).all()
    tree, player, signals = histories(long_worse, 2)
    rows = np.flatnonzero(gains.profile == 2)
    exact = []
    for k in rows:
        i = int(gains.advertiser[k])
        said, heard = long_worse.player.theta(2).copy(), np.array(signals)
        said[i], heard[i + 1] = gains.value[k], gains.signal[k]
        exact.append(tree.payoff(i, player.belief(heard), said) - tree.payoff(i))
    assert (np.abs(gains.gain.value[rows] - exact) <= 4.5 * gains.gain.error[rows] + 1e-9).all()
    assert 0 < max(exact) <= bound[0, 2]
    mine = int(np.argmax(gains.gain.value))
    assert audit.witness[int(gains.advertiser[mine])].gain == gains.gain.value[mine]
    efficient = dm.DynamicTeamMechanism(long_solved[1], dm.groves.Zero()).audit(conversations=60)
    assert (efficient.incentive_bound < 0.03).all()


@pytest.mark.slow
def test_message_driven_settlement_is_refuted(long_solved):
    _, policy, exact = long_solved
    mechanism = dm.DynamicTeamMechanism(policy)
    audit = mechanism.audit(MessageDriven(), conversations=4000)
    assert audit.verdicts["incentives"] == "refuted at 95%"
    assert audit.measured.gain.lower.max() > 0
    assert np.isnan(audit.incentive_bound).all()
    assert "FAIL at 95%" in audit.summary()
    assert "believes otherwise" in audit.summary() or "instead of" in audit.summary()
    known = dm.DynamicTeamMechanism(exact).audit(MessageDriven()).first_gain
    assert (audit.incentive_gain <= known + 0.01).all()  # of all own types, truth from period 2 on


@pytest.mark.slow
def test_other_settlements_are_simulated(long_solved):
    _, policy, exact = long_solved
    late = ChargeOnReach(np.array([0.0, 0.4]))
    audit = dm.DynamicTeamMechanism(policy, dm.groves.Zero()).audit(late, conversations=200)
    known = dm.DynamicTeamMechanism(exact, dm.groves.Zero()).audit(late)
    far = np.abs(audit.participation - known.participation.reshape(2, 3))
    assert (far <= 4.5 * audit.slack_participation.error + 0.01).all()


@pytest.mark.slow
def test_a_declared_interval_of_reports_is_tried_at_its_ends(long_solved):
    _, policy, _ = long_solved
    values = dm.ConstantValues(policy.env.values.support, interval=(0.1, 1.2))
    env = dataclasses.replace(policy.env, values=values)
    play = dataclasses.replace(policy.player, env=env)
    wide = dataclasses.replace(policy, evaluator=dataclasses.replace(policy.evaluator, play=play))
    mechanism = dm.DynamicTeamMechanism(wide, dm.groves.Zero())
    audit = mechanism.audit(conversations=30)
    gains = audit.measured
    assert len(gains.gain) == 3 * 2 * (4 * 2 - 1)
    assert {0.1, 1.2} <= set(gains.value.tolist())
    support = mechanism.audit(conversations=30, interval=False)
    assert len(support.measured.gain) == 18
    assert support.reported == "support"
    assert "ends of the interval" in audit.summary()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 6, 8])
def test_a_trained_policy_gives_no_more_than_its_bound(seed):
    env = whispering(n=3, m=8, horizon=4, seed=seed)
    solver = dm.Neural(sweeps=6, runs=32, steps=60)
    certificate = dm.Certificate(runs=2000, marginal_runs=300)
    profiles = env.sample_profiles(jax.random.key(seed), 2)
    policy = solve(env, solver, certificate, initial=profiles)
    mechanism = dm.DynamicTeamMechanism(policy)
    audit = mechanism.audit(conversations=1500)
    limit = audit.profile_bound[audit.measured.advertiser, audit.measured.profile]
    assert (audit.measured.gain.lower <= limit + 1e-9).all()
    tree, player, signals = histories(policy, 0)
    for k in np.flatnonzero(audit.measured.profile == 0)[::3]:
        i = int(audit.measured.advertiser[k])
        said, heard = policy.player.theta(0).copy(), np.array(signals)
        said[i], heard[i + 1] = audit.measured.value[k], audit.measured.signal[k]
        exact = tree.payoff(i, player.belief(heard), said) - tree.payoff(i)
        assert audit.measured.gain.lower[k] <= exact <= audit.measured.gain.upper[k]
    W = dm.solve_efficient_policy(env, initial=profiles, progress=False).value
    assert (
        audit.profile_bound
        >= W - tree.payoff(0) * (np.arange(2) == 0) - W * (np.arange(2) == 1) - 1e-9
    ).all()


@pytest.mark.slow
def test_intervals_of_gains_hold_the_exact_gain_as_often_as_they_say(long_worse):
    """Two-sided 90% over 150 seeds, for a lie whose gain is uncertain."""
    tree, player, signals = histories(long_worse, 2)
    theta, signal = long_worse.player.theta(2), long_worse.env.signals.settlement
    best = None
    for i in range(2):
        for value, symbol, said, heard in lies(long_worse.env, theta, signals, i):
            exact = tree.payoff(i, player.belief(heard), said) - tree.payoff(i)
            if best is None or exact > best[0]:
                best = (exact, Report(i, value, symbol))
    exact, report = best
    inside = 0
    for seed in range(150):
        player = player_of(long_worse, 200, seed)
        truth = player.play(theta, signals, Estimator(), signal)
        lie = player.play(theta, signals, Estimator(), signal, report)
        extra = (lie.steady_payoff - truth.steady_payoff)[:, report.owner]
        inside += abs(extra.mean() - exact) <= 1.653 * extra.std(ddof=1) / 200**0.5
    assert abs(inside - 135) <= 3 * np.sqrt(150 * 0.9 * 0.1) + 3
