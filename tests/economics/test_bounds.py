"""Bounds on incentive gains under policies that are not efficient (model page, section 5)."""

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.few import few
from tests.helpers.markets import random_market


def _policy(seed: int, **options):
    market = random_market(np.random.default_rng(seed), **options)
    return dm.solve_efficient_policy(dm.RecommendationMDP.from_tables(**market))


def _spoil(policy, seed: int, period: int, share: float):
    """Replace a share of the recommendations of one period by random products."""
    rng = np.random.default_rng(seed)
    actions = [taken.copy() for taken in policy.plan.actions]
    hit = rng.random(actions[period].shape) < share
    actions[period][hit] = rng.integers(0, policy.env.products + 1, hit.sum())
    return policy.with_actions(actions)


@pytest.mark.parametrize("period", [0, 1, 2])
@pytest.mark.parametrize("seed", few(range(4), 2))
def test_measured_gain_stays_below_the_bound(seed, period):
    policy = _policy(seed, horizon=3, constant=bool(seed % 2), biased=seed == 3)
    spoiled = _spoil(policy, seed, period, 0.3)
    mechanism = dm.DynamicTeamMechanism(spoiled)
    audit = mechanism.audit()
    slack = 1e-12 * policy.env.money_scale
    assert audit.incentive_gain.max() <= audit.gap.bound + slack
    assert audit.gap.bound <= audit.gap.root_bound + slack
    assert audit.first_gain.max() <= audit.gap.root_gap + 2 * audit.gap.bias + slack
    best = mechanism.best_response()
    assert np.nanmax(best.gain) <= audit.gap.root_gap + 2 * audit.gap.bias + slack
    assert np.nanmin(spoiled.upper - spoiled.value) >= -slack


def test_the_gap_at_the_root_alone_would_have_been_wrong():
    """One improbable node is spoiled: the gap at the root is tiny, the gain there is not."""
    wrong = 0
    for seed in range(12):
        policy = _policy(seed, horizon=3, constant=True)
        spoiled = _spoil(policy, seed, 2, 0.05)
        audit = dm.DynamicTeamMechanism(spoiled).audit()
        assert audit.incentive_gain.max() <= audit.gap.bound + 1e-12
        wrong += audit.incentive_gain.max() > audit.gap.root_gap + 1e-9
    assert wrong >= 6


def test_an_efficient_policy_has_no_gap_but_its_bias():
    policy = _policy(5, biased=True)
    gap = dm.DynamicTeamMechanism(policy).audit().gap
    assert gap.bias > 0
    assert gap.bound == gap.root_bound == 2 * gap.bias


def test_given_actions_have_their_own_value():
    """Values of given recommendations agree with simulated conversations."""
    policy = _spoil(_policy(1, constant=True, horizon=2), 1, 0, 0.5)
    records = dm.DynamicTeamMechanism(policy).simulate(jax.random.key(2), 40_000)
    mean, error = records.mean("surplus")
    weights = policy.probability()
    assert abs(mean - np.nansum(policy.value * weights)) <= 5 * error
    assert (policy.value <= policy.upper + 1e-12).all()
    assert (policy.value < policy.upper - 1e-6).any()


def test_participation_uses_the_value_of_the_policy_in_use():
    policy = _spoil(_policy(2, constant=True, horizon=2), 2, 0, 0.8)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Participation())
    slack = mechanism.audit().participation
    expected = policy.value - mechanism.groves_total
    np.testing.assert_allclose(slack, expected, atol=1e-12)
    assert np.nanmin(slack) < 0


def test_wrong_actions_are_refused():
    policy = _policy(0)
    with pytest.raises(dm.InvalidArgument, match="with_actions"):
        policy.with_actions(policy.plan.actions[:1])
    too_high = [taken + 100 for taken in policy.plan.actions]
    with pytest.raises(dm.OutsideSupport, match="with_actions"):
        policy.with_actions(too_high)


def test_a_charge_on_reaching_period_two_is_manipulable():
    """Slip 1: a constant that does not depend on own reports, but is charged only if reached."""
    gains, honest = [], []
    for seed in range(6):
        policy = _policy(seed, constant=True, horizon=2)
        mechanism = dm.DynamicTeamMechanism(policy)
        charge = dm.settlement.ChargeOnReach(np.full(2, 2.0), period=2)
        audit = mechanism.audit(charge)
        gains.append(audit.incentive_gain.max())
        honest.append(mechanism.audit().incentive_gain.max())
        again = mechanism.best_response(charge)
        assert np.nanmax(again.gain) >= audit.first_gain.max() - 1e-12
    assert max(honest) <= 1e-9
    assert max(gains) > 0.05


def test_installments_add_to_the_same_total_on_every_path():
    policy = _policy(3, constant=True, horizon=3)
    whole = dm.DynamicTeamMechanism(policy)
    spread = dm.DynamicTeamMechanism(policy, installments=(0.5, 0.2))
    total = whole.groves_total.reshape(2, -1)[:, 0]
    chat = policy.start(profile=0)
    for queries in range(3):
        here = chat
        for _ in range(queries):
            here = here.step("query", signals=[0, 0, 0])
        ended = here.step("exit")
        np.testing.assert_allclose(spread.settle(ended).groves.sum(0), total, atol=1e-12)
        np.testing.assert_allclose(whole.settle(ended).groves[0], total, atol=1e-12)
    assert spread.settle(ended).groves[0, 0] == pytest.approx(0.5 * total[0])
    with pytest.raises(dm.InvalidArgument, match="installments"):
        dm.DynamicTeamMechanism(policy, installments=(0.9, 0.9))
