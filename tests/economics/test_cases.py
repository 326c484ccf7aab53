"""The shipped brute-force cases: every expected array, with merging on and off."""

import numpy as np
import pytest

from tests.helpers import CASES
from tests.helpers.oracle import money_scale
from tests.helpers.quantities import TOLERANCE, assert_same, market_of, quantities, solve

NAMES = sorted(path.stem for path in CASES.glob("*.npz"))


def load(name):
    with np.load(CASES / f"{name}.npz") as archive:
        return dict(archive)


def expected_of(case):
    return {k.removeprefix("expected_"): v for k, v in case.items() if k.startswith("expected_")}


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "unmerged"])
@pytest.mark.parametrize("name", NAMES)
def test_every_expected_array(name, merge):
    case = load(name)
    expected = expected_of(case)
    policy = solve(market_of(case), merge)
    found = quantities(policy)
    assert len(expected) >= 18
    assert found.keys() == expected.keys()
    assert_same(found, expected, money_scale(case))
    known = ~np.isnan(policy.value)
    assert (policy.lower <= policy.value)[known].all()
    assert (policy.value <= policy.upper)[known].all()
    assert np.nanmax(policy.upper - policy.lower) <= 1e-12 * policy.env.money_scale


def test_cases_cover_what_they_claim():
    """Were these to vanish from the cases, the test above would prove less than it says."""
    assert expected_of(load("biased_estimator"))["gain_estimator"].max() > 1e-3
    assert np.isnan(expected_of(load("zeros"))["W"]).any()
    assert expected_of(load("context_only"))["gain_message"].max() <= 1e-12
    assert load("one_round")["horizon"] == 1
    assert load("constant_values_three_rounds")["horizon"] == 3


@pytest.mark.parametrize("name", NAMES)
def test_money_scale(name):
    case = load(name)
    np.testing.assert_allclose(market_of(case).money_scale, money_scale(case), rtol=1e-14)


@pytest.mark.parametrize("name", ["two_products_two_rounds", "biased_estimator", "zeros"])
def test_expectations_follow_from_the_profiles(name):
    """E[W] is the mean of W by the probability of the profiles, which sums to one."""
    case = load(name)
    policy = solve(market_of(case))
    weight = policy.probability()
    assert weight.shape == policy.value.shape
    np.testing.assert_allclose(weight.sum(), 1.0, rtol=0, atol=1e-12)
    possible = weight > 0
    mean = (weight * policy.value)[possible].sum()
    atol = TOLERANCE * money_scale(case)
    np.testing.assert_allclose(mean, case["expected_ex_ante_W"], rtol=0, atol=atol)
    bought = policy.purchase[:, ~np.isnan(policy.value)]
    assert (bought >= 0).all()
    assert (bought.sum(0) <= 1 + 1e-12).all()


def test_unmerged_tree_keeps_every_history_apart():
    env = market_of(load("two_products_two_rounds"))
    n, symbols = env.products, int(np.prod(env.feedback_alphabet))
    apart = solve(env, merge=False).plan.tree
    assert [layer.nodes for layer in apart.layers] == [1, (n + 1) * symbols]
    assert solve(env).plan.tree.nodes <= apart.nodes
