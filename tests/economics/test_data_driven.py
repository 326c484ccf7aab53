"""Totals that read the estimate: both constraints at once wherever any function allows it."""

from typing import Any, cast

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market


def _mechanism(seed: int, groves, **options):
    market = random_market(np.random.default_rng(seed), **options)
    policy = dm.solve_efficient_policy(dm.RecommendationMDP.from_tables(**market))
    return dm.DynamicTeamMechanism(policy, groves=groves)


@pytest.mark.parametrize("options", [{}, {"m": 3, "symbols": (2, 4, 4)}, {"zeros": 0.3}])
@pytest.mark.parametrize("seed", range(3))
def test_both_constraints_hold_wherever_the_program_says_so(seed, options):
    groves = dm.groves.DataDriven()
    mechanism = _mechanism(seed, groves, **options)
    audit, room = mechanism.audit(), groves.compare(mechanism.own)
    count, n = len(mechanism.policy.profiles), mechanism.policy.env.products
    slack = np.fmin(audit.participation, audit.no_subsidy).reshape(n, count).T
    known = np.isfinite(slack)
    assert (slack[known] >= room.data_driven[known] - 1e-9).all()
    assert (room.data_driven[known] >= room.fixed[known] - 1e-9).all()
    assert audit.incentive_gain.max() <= audit.tolerance


def test_it_opens_more_profiles_than_a_fixed_total():
    fixed, driven = [], []
    for seed in range(8):
        groves = dm.groves.DataDriven()
        shares = groves.compare(_mechanism(seed, groves).own).shares()
        fixed.append(shares[0])
        driven.append(shares[1])
    assert np.mean(driven) > np.mean(fixed) + 0.05


def test_expectation_does_not_depend_on_the_own_value_and_only_via_the_own_signal():
    """E[f | s] is linear in the posterior: the total is f's mean at each profile."""
    groves = dm.groves.DataDriven()
    mechanism = _mechanism(4, groves)
    own, function = mechanism.own, groves.function(mechanism.own)
    total = mechanism.groves_total.reshape(2, -1).T
    expected = np.einsum("bnm,bnm->bn", function, own.posterior())
    np.testing.assert_allclose(total, expected, atol=1e-12)
    table = mechanism.groves_total[0]
    np.testing.assert_allclose(table[0], table[1], atol=1e-9)


def test_a_constant_function_gives_the_middle_of_the_fixed_window():
    groves = dm.groves.DataDriven(functions=np.ones((4, 1)))
    mechanism = _mechanism(5, groves)
    room = groves.compare(mechanism.own)
    np.testing.assert_allclose(room.data_driven, room.fixed, atol=1e-9)


def test_program_and_closed_form_agree_where_posteriors_are_independent():
    from dynmech.payments.data_driven import _program

    rng = np.random.default_rng(0)
    low = rng.normal(size=3)
    high = low + rng.normal(size=3)
    _, slack = _program(np.eye(3), low, high, np.ones(3) / 3, "slack")
    assert slack == pytest.approx(((high - low) / 2).min(), abs=1e-9)


def test_revenue_charges_the_lowest_payoff_of_each_signal_when_both_can_hold():
    """With independent posteriors the signals decouple: at each, the ceiling is charged."""
    groves = dm.groves.DataDriven(objective="revenue")
    mechanism = _mechanism(6, groves)
    own = mechanism.own
    room = groves.compare(own).data_driven
    ceiling = np.take_along_axis(own.payoff.min(axis=2), own.signal[:, :, None], axis=2)[:, :, 0]
    total = mechanism.groves_total.reshape(2, -1).T
    assert (room >= 0).any()
    np.testing.assert_allclose(total[room >= 0], ceiling[room >= 0], atol=1e-9)


def _paid(mechanism, b, i):
    """Variance of what advertiser i pays, over the own types that the others' reports leave."""
    moments = dm.payment_moments(mechanism)
    n, own, policy = 2, mechanism.own, mechanism.policy
    chance = policy.probability()
    at = list(np.unravel_index(b, policy.value.shape))
    at[i], at[n + 1 + i] = slice(None), slice(None)
    weight = np.nan_to_num(chance[tuple(at)])
    assert own.signal.shape[1] == n
    return float((np.nan_to_num(moments.variance[i][tuple(at)]) * weight).sum() / weight.sum())


@pytest.mark.parametrize("options", [{}, {"m": 6, "symbols": (1, 2, 2), "constant": True}])
def test_least_variance_is_that_of_no_other_feasible_function(options):
    """By brute force: the audited variance of payments, at functions a feasible step away."""
    made = {
        kind: _mechanism(2, dm.groves.DataDriven(objective=kind), **options)
        for kind in ("slack", "revenue", "variance")
    }
    least, rng, tried = made["variance"], np.random.default_rng(0), 0
    own, groves = least.own, cast(Any, least.groves)
    function = groves.function(own)
    reach = own.root / np.maximum(own.root.sum(axis=1, keepdims=True), 1e-300)
    room = groves.compare(own).data_driven
    for b, i in ((0, 0), (5, 1)):
        spread = {kind: _paid(one, b, i) for kind, one in made.items()}
        assert spread["variance"] <= min(spread.values()) + 1e-9
        live = own.own_root[b, i] >= 0
        mu = reach[own.own_root[b, i][live]]
        slack = max(0.0, -room[b, i])
        low = own.contribution[b, i][:, live].max(axis=0) - slack - 1e-7
        high = own.payoff[b, i][:, live].min(axis=0) + slack + 1e-7
        held = mu @ function[b, i]
        assert (held >= low).all()
        assert (held <= high).all()
        form, slope = _brute(least, b, i)
        best = function[b, i] @ form @ function[b, i] + slope @ function[b, i]
        for _ in range(2000):
            step = function[b, i] + rng.normal(size=len(slope)) * 10 ** rng.uniform(-4, 0)
            if (mu @ step >= low).all() and (mu @ step <= high).all():
                tried += 1
                assert step @ form @ step + slope @ step >= best - 1e-6
    assert tried > 20


def _brute(mechanism, b, i):
    """The variance of payments as a quadratic in f, from what the audit of payments says at m + 1
    functions and their sums: no formula of the program."""
    m = mechanism.own.root.shape[1]

    def spread(f):
        held = Fixed(np.broadcast_to(f, (*mechanism.own.signal.shape, m)))
        return _paid(dm.DynamicTeamMechanism(mechanism.policy, held), b, i)

    zero, unit = spread(np.zeros(m)), np.eye(m)
    one = np.array([spread(u) for u in unit])
    minus = np.array([spread(-u) for u in unit])
    slope = (one - minus) / 2
    form = np.diag((one + minus) / 2 - zero)
    for k in range(m):
        for j in range(k):
            both = spread(unit[k] + unit[j])
            form[k, j] = form[j, k] = (both - one[k] - one[j] + zero) / 2
    return form, slope


class Fixed(dm.AbstractGroves):
    """A total that is a given function of the taste."""

    side = "both"
    decoded = True
    table: np.ndarray

    def total(self, own):
        return np.einsum("bnm,bnm->bn", self.table, own.posterior())

    def function(self, own):
        return self.table


def test_a_missing_solver_is_named_with_its_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "clarabel", None)
    with pytest.raises(dm.MissingExtra, match=r"dynmech\[qp\]"):
        _mechanism(2, dm.groves.DataDriven(objective="variance"))


def test_simulated_totals_average_to_the_expectation():
    mechanism = _mechanism(7, dm.groves.DataDriven(), constant=True)
    records = mechanism.simulate(jax.random.key(0), 60_000, profile=3)
    mean, error = records.mean("groves")
    expected = mechanism.groves_total.reshape(2, -1)[:, 3]
    assert (np.abs(mean - expected) <= 5 * error + 1e-12).all()


def test_settling_needs_the_decoded_totals():
    mechanism = _mechanism(7, dm.groves.DataDriven(), constant=True)
    ended = mechanism.policy.start(profile=0).step("exit")
    with pytest.raises(dm.InvalidArgument, match="totals"):
        mechanism.settle(ended)
    ledger = mechanism.settle(ended, totals=np.array([0.25, -0.5]))
    np.testing.assert_allclose(ledger.transfer.sum(0), [0.25, -0.5])


def test_decoded_totals_are_charged_with_the_ending_of_one_and_of_many():
    mechanism = _mechanism(7, dm.groves.DataDriven(), constant=True)
    policy, decoded = mechanism.policy, np.array([0.25, -0.5])
    left, asked = policy.env.products, policy.env.products + 1  # codes of actions
    chat = policy.start(profile=0)
    chat = chat.step("query", [0] * (policy.env.products + 1))
    assert not chat.ended
    one = mechanism.settle(chat.step("exit"), totals=decoded)
    np.testing.assert_allclose(one.groves, [[0.0, 0.0], decoded])
    chats = policy.start_many([0, 0]).step([asked, asked], [0, 0])
    many = mechanism.settle(chats.step([left, left]), totals=np.stack([decoded] * 2))
    np.testing.assert_allclose(many.groves, np.tile(one.groves, (2, 1)))


def test_bad_arguments_are_refused():
    with pytest.raises(dm.InvalidArgument, match="objective"):
        dm.groves.DataDriven(objective="luck")
    with pytest.raises(dm.InvalidArgument, match="functions"):
        _mechanism(0, dm.groves.DataDriven(functions=np.ones((3, 2))))
