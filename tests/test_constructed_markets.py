"""Markets that experiments build by hand: where the statements of the papers hold and fail."""

import jax
import numpy as np
import pytest

import dynmech as dm
from experiments import _markets as markets
from experiments import (
    participation,
    reporting,
    sellers,
    two_rounds,
)
from experiments._windows import TERMS, propositions, slacks, solve


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def test_corollary_1_counterexample():
    """W^{-i} = 0, D_i = 1/2 * 2 = 1, W_1 = 1/2 * (theta_i - 1) + 1: 0.5 and 1.5; window [1, 0.5].

    Nobody has private signals, so phi_plus = phi_minus = W^{-i} = 0 and no subsidy misses 1.
    With Wd^{-i} = 1 it holds, and participation misses 0.5 at theta_i = 0.
    """
    policy = solve(markets.corollary_1_fails())
    audit = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy()).audit()
    np.testing.assert_allclose(policy.marginal_value[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(policy.value[:, 0].ravel(), [0.5, 1.5], atol=1e-12)
    np.testing.assert_allclose(audit.window.floor[0], 1.0, atol=1e-12)
    np.testing.assert_allclose(audit.window.ceiling[0], 0.5, atol=1e-12)
    assert not audit.window.open[0].any()
    np.testing.assert_allclose(audit.no_subsidy[0], -1.0, atol=1e-12)
    kept, subsidy = slacks(policy, TERMS["phi_plus, displayable"])
    assert subsidy.min() >= -1e-12
    np.testing.assert_allclose(kept[0].min(), -0.5, atol=1e-12)


@pytest.mark.parametrize(
    ("utility", "worth", "contribution", "slack", "remedied"),
    [(1.0, 1.0, 0.5, -0.5, 0.5), (-3.0, 0.0, 0.0, 0.0, -0.5)],
)
def test_showing_i_reveals_j(utility, worth, contribution, slack, remedied):
    """W^{-i} = 0, Wd^{-i} = 1/2 * 1/2 * 2 = 0.5; W_1 = max(u_i / 2 + 0.5, 0).

    u_i = 1: phi_plus = 0 < D_i = 0.5, a subsidy; Wd^{-i} leaves participation 0.5. u_i = -3: i is
    never shown, D_i = 0, and Wd^{-i} makes participation miss 0.5 (paper D, Prop. 9).
    """
    policy = solve(markets.showing_i_reveals_j(utility))
    audit = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy()).audit()
    np.testing.assert_allclose(policy.value, worth, atol=1e-12)
    np.testing.assert_allclose(policy.marginal_value[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(policy.displayable_marginal_value[0], 0.5, atol=1e-12)
    np.testing.assert_allclose(audit.window.floor[0], contribution, atol=1e-12)
    np.testing.assert_allclose(audit.no_subsidy[0], slack, atol=1e-12)
    kept, subsidy = slacks(policy, TERMS["phi_minus, displayable"])
    assert subsidy[0].min() >= -1e-12
    np.testing.assert_allclose(kept[0], remedied, atol=1e-12)


def test_proposition_2_holds_where_display_helps_nobody():
    """phi_plus gives no subsidy and phi_minus participation; the other way round neither need."""
    policies = [solve(markets.random_market(s, separate=True)) for s in range(4)]
    table = propositions("separate", policies).set_index("Groves term")
    assert table.loc["phi_plus", "no subsidy fails [% of profiles]"] == 0
    assert table.loc["phi_minus", "participation fails [% of profiles]"] == 0
    assert table.loc["phi_plus", "worst [% of E W]"] < -1
    assert table.loc["phi_minus", "worst subsidy slack [% of E W]"] < -1
    assert table.loc["ex ante", "ex ante, worst [% of E W]"] >= -1e-9
    assert table.loc["ex ante", "ex ante, worst subsidy slack [% of E W]"] >= -1e-9


def test_corollary_1_is_a_limit():
    """phi_plus - phi_minus falls with the context's noise, about in proportion, and is 0 at 0."""
    gaps = [
        participation.tension(solve(markets.sharp_market(0, blur)))
        for blur in (1e-3, 1e-4, 1e-5, 0.0)
    ]
    mean = [gap["E[phi_plus - phi_minus] [money]"] for gap in gaps]
    assert mean[0] > 4 * mean[1] > 16 * mean[2] > 0
    assert abs(mean[3]) < 1e-12
    assert gaps[3]["worst participation, phi_plus [money]"] >= -1e-12
    assert gaps[3]["worst no subsidy, phi_minus [money]"] >= -1e-12


def test_showing_the_second_product_can_be_worse():
    """q = 0.9 / (1 + e): W = 6, always showing j brings (1 - q) * 6 + q * 1.1."""
    row = two_rounds.compare("constructed", two_rounds.better_not_shown())
    query = 0.9 / (1 + np.e)
    assert row["W [money]"] == pytest.approx(6.0, abs=1e-12)
    assert row["second always shown [money]"] == pytest.approx((1 - query) * 6 + query * 1.1)
    assert row["second not shown [% of profiles]"] == pytest.approx(100)


def test_equal_sellers_pay_the_second_price():
    """Equal terms, no signals: the seller shown pays the second highest theta per purchase."""
    options = sellers.Options(tastes=8)
    policy = solve(sellers.market(options, np.zeros(3), signals=False))
    audit = dm.DynamicTeamMechanism(policy, dm.groves.Participation()).audit()
    price = policy.purchase * sellers.second_highest(policy)
    np.testing.assert_allclose(audit.budget.payments, price, atol=1e-9)
    assert audit.window.open.all()


def test_a_charge_on_reach_is_manipulable_and_installments_are_not():
    policy = solve(markets.random_market(1, keeps=True, constant=True))
    row = reporting.charges("seed 1", policy, 1.0)
    assert row["its largest gain [% of scale]"] > 5
    assert row["installments: largest gain [% of scale]"] < 1e-7
    assert row["installments: totals differ by [% of scale]"] < 1e-9
