"""What a user may give: labels in any order, remainders of rounding, and refusals by name."""

import dataclasses
import math

import jax
import numpy as np
import pandas as pd
import pytest

import dynmech as dm

KEY = jax.random.key(0)
REST = 1 - 0.9 - 0.1  # -2.8e-17


def market(**changes):
    parts = {
        "gamma": [[0.4], [-0.2]],
        "tastes": dm.TasteGrid([[0.5], [1.0], [2.0]], [0.25, 0.25, 0.5]),
        "horizon": 2,
        "action_rule": dm.LastShownOnly(dm.Logit(0.5), 0.6),
        "signals": dm.SignalStructure(),
        "values": dm.ConstantValues([[0.5, 0.6], [0.6, 0.7]]),
    }
    return dm.RecommendationMDP(**(parts | changes))


def labelled(gamma, points, theta, names=None):
    return market(
        gamma=gamma,
        tastes=dm.TasteGrid(points, [1.0]),
        horizon=1,
        action_rule=dm.LastShownOnly(dm.Logit(1.0), 0.0),
        values=dm.ConstantValues(theta),
        names=names,
    )


GAMMA = pd.DataFrame([[1.0, 0.0], [0.0, 1.0]], index=["beta", "alpha"], columns=["ram", "price"])
THETA = pd.Series([1.0, 0.2], index=["beta", "alpha"])
POINTS = pd.DataFrame([[1.0, -1.0]], columns=["ram", "price"])
MOVING = dm.MarkovValues([[1, 2]], [[0.5, 0.5]], np.full((1, 2, 2), 0.5))
RIGHT = 2 / (1 + math.exp(-1))  # beta: worth 1 to both, bought with the logit chance


@pytest.mark.parametrize("names", [None, ["alpha", "beta"], ["beta", "alpha"]])
@pytest.mark.parametrize("columns", [["ram", "price"], ["price", "ram"]])
@pytest.mark.parametrize("rows", [["alpha", "beta"], ["beta", "alpha"]])
def test_labels_in_any_order_are_one_market(names, columns, rows):
    env = labelled(GAMMA, POINTS[columns], THETA[rows], names)
    policy = dm.solve_efficient_policy(env, progress=False)
    assert env.names[policy.start(profile=0).recommendation] == "beta"
    np.testing.assert_allclose(policy.value.item(), RIGHT, rtol=1e-12)
    assert env.values.support[env.names.index("beta")] == 1.0
    assert env.tastes.characteristics == ("ram", "price")


def test_labels_that_do_not_match_are_listed():
    for bad, words in (
        (lambda: labelled(GAMMA.T, POINTS, THETA, ["beta", "alpha"]), ["gamma", "ram", "alpha"]),
        (lambda: labelled(GAMMA, POINTS, THETA.rename({"beta": "b"})), ["values", "b,", "beta"]),
        (
            lambda: labelled(GAMMA, POINTS.rename(columns=str.upper), THETA),
            ["tastes", "RAM", "ram"],
        ),
        (lambda: dm.Logit(pd.Series([1.0], index=["a"])), ["Logit(scale", "labels", "to_numpy"]),
        (
            lambda: dm.Profiles(pd.DataFrame({"b": [0]}), [[0, 0]]),
            ["Profiles(theta", "b", "labels"],
        ),
    ):
        with pytest.raises(dm.InvalidArgument) as caught:
            bad()
        assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_labels_of_everything_else_follow_the_products():
    prior = pd.DataFrame([[0.9, 0.1], [0.3, 0.7]], index=["a", "b"], columns=["low", "high"])
    support = pd.DataFrame([[2.0, 1.0], [4.0, 3.0]], index=["b", "a"], columns=["high", "low"])
    kernel = np.array([[[0.5, 0.5], [0.2, 0.8]], [[1.0, 0.0], [0.0, 1.0]]])
    for values in (
        dm.ConstantValues(support, prior, pd.DataFrame([[0, 9], [1, 8]], index=["a", "b"])),
        dm.MarkovValues(support, prior, kernel),
    ):
        env = market(values=values, names=["a", "b"])
        np.testing.assert_array_equal(env.values.support, [[4, 3], [2, 1]])
        np.testing.assert_array_equal(env.values.prior, [[0.1, 0.9], [0.7, 0.3]])
    np.testing.assert_array_equal(env.values.kernel[0], kernel[::-1])
    joint = dm.ConstantValues([[1, 2], [3, 4]], [[0.1, 0.2], [0.3, 0.4]], names=["b", "a"])
    env = market(values=joint, names=["a", "b"])
    np.testing.assert_array_equal(env.values.prior, [[0.1, 0.3], [0.2, 0.4]])


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "names",
    [
        ["caf\u00e9", "cafe\u0301"], ["a", "a "], ["a", "\u200ba"], ["a  b", "a b"], ["", "b"],
        [1, 0], [None, math.nan], "ab", 5, ["a"], ["exit", "b"], [" query", "b"],
    ],
)  # fmt: skip
def test_names_that_cannot_be_told_apart_are_refused(names):
    with pytest.raises(dm.InvalidArgument, match=r"RecommendationMDP\(names=...\)"):
        market(names=names)


@pytest.mark.parametrize("rounds", [0, 2.5, 10**6 + 1, 2**63, 1e300, -math.inf])
def test_rounds_that_cannot_be_listed_are_refused(rounds):
    with pytest.raises(dm.InvalidArgument, match=r"horizon=.*math.inf"):
        market(horizon=rounds)


def test_a_remainder_below_zero_counts_as_zero():
    row = [0.9, 0.1, REST]
    support = [[0.1, 0.2, 0.3]]
    for kept in (
        dm.TasteGrid([[1.0], [2.0], [3.0]], row).weights,
        dm.ConstantValues(support, [row]).prior,
        dm.MarkovValues(support, [[1.0, 0, 0]], np.broadcast_to(row, (2, 1, 3, 3))).kernel,
        dm.JointSignals(np.array(row)[None, :, None]).table,
        dm.PrivateStructures([dm.NoSignals()] * 3, row).prior,
    ):
        assert kept.min() == 0
    for bad in (lambda: dm.TasteGrid([[1.0], [2.0], [3.0]], [0.9, 0.2, -0.1]),):
        with pytest.raises(dm.InvalidProbability, match="nonnegative"):
            bad()


@pytest.mark.parametrize(
    ("part", "change", "right"),
    [
        (dm.ConstantValues([1.0, 2.0]), {"support": np.ones((2, 1))}, [[1.0], [1.0]]),
        (
            dm.MarkovValues([[1, 2]], [[0.5, 0.5]], np.full((1, 2, 2), 0.5)),
            {"prior": [[1, 0]]},
            [[1, 0]],
        ),
        (dm.RatingFeedback(1.0), {"symbols": 3}, 3),
        (dm.RatingFeedback(1.0), {"noise": np.array(2.0)}, 2.0),
        (dm.GaussianSignals(1.0), {"platform": 2.0}, 2.0),
        (dm.TasteGrid([[1.0], [2.0]], [0.5, 0.5]), {"weights": [0.2, 0.8]}, [0.2, 0.8]),
        (dm.Logit(1.0), {"scale": 2.0}, 2.0),
        (dm.LastShownOnly(dm.Logit(0.5), 0.6), {"stays": True}, True),
        (market(), {"horizon": 3}, 3),
        (market(), {"names": ("x", "y")}, ("x", "y")),
    ],
)
def test_one_field_is_replaced_and_the_rest_checked_again(part, change, right):
    (name,) = change
    again = dataclasses.replace(part, **change)
    assert np.all(np.asarray(getattr(again, name)) == np.asarray(right))
    with pytest.raises((dm.DynmechError, TypeError)):
        dataclasses.replace(again, **{name: "a"})


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: market().sample_profiles(0, 3), "sample_profiles(key"),
        (lambda: market().sample_profiles(jax.random.split(KEY), 3), "sample_profiles(key"),
        (lambda: market().sample_profiles(KEY, 3.0), "sample_profiles(count"),
        (lambda: dm.ConstantValues(np.ma.masked_array([[1.0, 9.0]], [[0, 1]])), "masked"),
        (lambda: dm.ConstantValues([[1.0 + 1j]]), "ConstantValues(support"),
        (lambda: dm.ConstantValues([["0.2"]]), "ConstantValues(support"),
        (lambda: dm.ConstantValues(np.array([[None], [None]], object)), "ConstantValues(support"),
        (lambda: dm.Logit("0.5"), "Logit(scale"),
        (lambda: dm.SignalStructure(dm.RatingFeedback(1.0)), "SignalStructure(initial"),
        (lambda: dm.SignalStructure(feedback=dm.NoFeedback), "NoFeedback(...)"),
        (lambda: dm.PerfectRecall(0.5, 0.7), "PerfectRecall(choice"),
        (lambda: dm.LastShownOnly(dm.Logit, 0.7), "LastShownOnly(choice"),
        (lambda: dm.PerfectRecall(dm.Logit(1.0), "a"), "PerfectRecall(query"),
        (lambda: dm.GaussianSignals(1.0, symbols=2.5), "GaussianSignals(symbols"),
        (lambda: dm.RatingFeedback(symbols=2, cuts=[[math.nan]]), "RatingFeedback(cuts"),
        (lambda: dm.FallingQuery(low=np.float32(0.9), high=np.float32(0.1)), "FallingQuery(low"),
        (lambda: dm.TabulatedSettlement(np.full((1, 2, 3), math.nan)), "TabulatedSettlement"),
        (lambda: dm.Profiles("a", None), "Profiles(theta"),
        (lambda: dm.Exact(memory="a"), "Exact(memory"),
        (lambda: dm.solve_efficient_policy(market(), throw="x"), "throw=..."),
        (lambda: dm.solve_efficient_policy(market(), progress=3), "progress=..."),
    ],
)
def test_the_wrong_kind_is_refused_by_the_argument(call, words):
    with pytest.raises(dm.DynmechError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
