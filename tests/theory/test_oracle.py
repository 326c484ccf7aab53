"""The brute-force oracle against the shipped cases, the theory, and the papers' slips."""

import numpy as np
import pytest

from tests.helpers import CASES
from tests.helpers.markets import (
    corollary_1_counterexample,
    proposition_9_counterexample,
    random_market,
    relabelled,
)
from tests.helpers.oracle import money_scale, solve_by_brute_force

NAMES = sorted(path.stem for path in CASES.glob("*.npz"))
EPS = 1e-12  # a few hundred roundings of float64, in units of the money scale

SHAPES = {
    "two": {},
    "one product": {"n": 1, "symbols": (2, 2)},
    "three products": {"n": 3, "symbols": (2, 2, 1, 2)},
    "one round": {"horizon": 1},
    "three rounds": {"horizon": 3, "recall": "ordered"},
    "constant values": {"constant": True},
    "three values": {"K": 3, "symbols": (1, 3, 2), "initial_symbols": (3, 1, 2), "k": 3, "m": 5},
    "zeros": {"zeros": 0.3},
    "ties": {"ties": True},
    "only the last shown": {"recall": "last"},
}


@pytest.fixture(params=[(name, seed) for name in SHAPES for seed in range(3)], ids=str)
def market(request):
    name, seed = request.param
    return random_market(np.random.default_rng(seed), **SHAPES[name])


def test_all_cases_are_here():
    assert len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_shipped_case(name):
    with np.load(CASES / f"{name}.npz") as archive:
        case = dict(archive)
    found = solve_by_brute_force(case)
    expected = {key.removeprefix("expected_"): case[key] for key in case if "expected_" in key}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(
            found[key], value, rtol=0, atol=1e-9 * money_scale(case), err_msg=key, strict=True
        )


def test_random_markets_are_valid_and_matter(market):
    n, horizon = len(market["gamma"]), market["horizon"]
    for key in ("action", "initial_signals", "feedback", "theta_kernel", "theta_prior"):
        axis = {"action": (1,), "theta_kernel": (-1,), "theta_prior": (-1,)}.get(
            key, tuple(range(-1 - n, 0))
        )
        assert (market[key] >= 0).all()
        np.testing.assert_allclose(market[key].sum(axis), 1.0, atol=EPS)
    assert len(market["action"]) == sum((n + 1) ** t for t in range(1, horizon + 1))
    found = solve_by_brute_force(market)
    assert np.nanmax(found["W"]) > 0.01
    assert found["gain_message"].max() > 1e-4


def test_marginal_economies(market):
    found, eps = solve_by_brute_force(market), EPS * money_scale(market)
    possible = ~np.isnan(found["W"])
    assert (found["W"] - found["W_marginal"] >= -eps)[:, possible].all()
    assert (found["W_displayable"] - found["W_marginal"] >= -eps)[:, possible].all()
    assert (np.isnan(found["W_marginal"]) == ~possible).all()


def test_values_add_up_and_payoffs_are_surplus(market):
    found, eps = solve_by_brute_force(market), EPS * money_scale(market)
    total = (found["advertiser_value"] + found["user_utility"]).sum(0)
    np.testing.assert_allclose(total, found["W"], rtol=0, atol=eps)
    for payoff in found["agent_payoff"]:
        np.testing.assert_allclose(payoff, found["W"], rtol=0, atol=eps)


def test_unbiased_estimator_leaves_no_gain(market):
    """Theorem 1 at every on-path node."""
    found = solve_by_brute_force(market)
    assert found["gain_estimator"].max() <= EPS * money_scale(market)
    assert (found["gain_message"] >= found["gain_message_first"]).all()


def test_pivot_terms(market):
    """phi_minus is individually rational, displayable phi_plus gives no subsidy (section 4)."""
    found, eps = solve_by_brute_force(market), EPS * money_scale(market)
    possible = ~np.isnan(found["W"])
    assert (found["W"] - found["phi_minus"] >= -eps)[:, possible].all()
    assert (found["phi_plus_displayable"] - found["window_floor"] >= -eps)[:, possible].all()


@pytest.mark.parametrize("seed", range(5))
def test_displayable_economy_is_no_larger_when_every_purchase_is_worth_making(seed):
    market = random_market(np.random.default_rng(seed), positive=True)
    found = solve_by_brute_force(market)
    assert (found["W"] - found["W_displayable"] >= -EPS * money_scale(market)).all()


@pytest.mark.parametrize("seed", range(5))
def test_biased_estimator_is_caught_and_its_gain_bounded(seed):
    """A gain is at most twice the largest bias (section 5, approximate policies)."""
    market = random_market(np.random.default_rng(seed), biased=True)
    found = solve_by_brute_force(market)
    bias = np.einsum("jk,hjmk->hjm", market["gamma"], market["estimator"] - market["omega"])
    assert 1e-3 < found["gain_estimator"].max() <= 2 * np.abs(bias).max()
    assert np.nanmax(np.abs(found["agent_payoff"] - found["W"])) > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_without_private_signals_message_driven_is_truthful(seed):
    market = random_market(np.random.default_rng(seed), private=False, recall="ordered")
    assert solve_by_brute_force(market)["gain_message"].max() <= EPS * money_scale(market)


@pytest.mark.parametrize("zeros", [0.0, 0.3])
def test_relabelling_products(zeros):
    order = [2, 0, 1]
    market = random_market(
        np.random.default_rng(1), n=3, symbols=(1, 2, 3, 1), initial_symbols=(2, 3, 1, 2),
        zeros=zeros, biased=True, recall="ordered",
    )  # fmt: skip
    before, after = (solve_by_brute_force(x) for x in (market, relabelled(market, order)))
    axes = [*order, 3, *(4 + np.array(order))]  # those of a profile
    for key, value in before.items():
        if key == "W":
            value = value.transpose(axes)
        elif value.ndim:
            value = value[order]
            value = value.transpose([0, *(1 + np.array(axes))]) if value.ndim > 1 else value
        atol = EPS * money_scale(market)
        np.testing.assert_allclose(after[key], value, rtol=0, atol=atol, err_msg=key)


def test_default_estimator_is_omega(market):
    without = {key: value for key, value in market.items() if key != "estimator"}
    found, default = solve_by_brute_force(market), solve_by_brute_force(without)
    np.testing.assert_array_equal(default["agent_payoff"], found["agent_payoff"])


def test_corollary_1_fails():
    """Model page, section 7, item 5: nobody has private signals and the window is empty."""
    found = solve_by_brute_force(corollary_1_counterexample())
    low = np.s_[0, :, 0, 0, 0]  # theta_i = 0
    np.testing.assert_allclose(found["W"][low], 0.5)
    np.testing.assert_allclose(found["W_marginal"][0], 0.0)
    deficit = found["agent_payoff"] - found["advertiser_value"] - found["user_utility"]
    np.testing.assert_allclose(deficit[0], 1.0)
    np.testing.assert_allclose(found["window_floor"][0], 1.0)
    np.testing.assert_allclose(found["window_ceiling"][0], 0.5)
    assert (found["phi_plus"][0] < found["window_floor"][0]).all()  # a subsidy
    np.testing.assert_allclose(found["phi_plus_displayable"][0], 1.0)  # none, but then
    assert (found["W"] - found["phi_plus_displayable"][0])[low].max() < 0  # participation fails


def test_proposition_9_participation_fails():
    """Model page, section 7, item 5: slack -0.5 although phi_minus should be rational."""
    found = solve_by_brute_force(proposition_9_counterexample())
    np.testing.assert_allclose(found["W"] - found["phi_minus_displayable"][0], -0.5)
    np.testing.assert_allclose(found["W"] - found["phi_minus"][0], 0.0)
