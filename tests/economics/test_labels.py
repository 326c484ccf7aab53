"""Labels of pandas and xarray objects: matched with names, or refused, in every argument."""

import numpy as np
import pandas as pd
import pytest

import dynmech as dm
from experiments._fuzz_parts import constructors

xarray = pytest.importorskip("xarray")

# Where labels are names: rows and columns that others are matched with.
NAMING = {
    ("TasteGrid", "points"): (0, 1),
    ("from_samples", "samples"): (0, 1),
    ("from_normal", "mean"): (0,),
    ("from_lognormal", "mean"): (0,),
    ("from_mixed_logit", "mean"): (0,),
    ("ConstantValues", "support"): (0, 1),
    ("MarkovValues", "support"): (0, 1),
    ("RecommendationMDP", "gamma"): (1,),
    ("from_tables", "gamma"): (1,),
    ("from_tables", "omega"): (0, 1),
    ("from_tables", "theta_support"): (1,),
}


def arrays(arguments):
    """The arguments that are arrays of numbers, as such."""
    for name, value in arguments.items():
        if isinstance(value, np.ndarray | list | tuple) and not isinstance(
            value, np.ma.core.MaskedArray
        ):
            try:
                array = np.asarray(value)
            except ValueError:
                continue
            if array.ndim and array.dtype.kind in "biuf":
                yield name, array


def labelled(array, axis):
    """The array in every kind of object that has labels, foreign ones along one axis."""
    names = [f"z{k}" for k in range(array.shape[axis])]
    dims = [f"d{k}" for k in range(array.ndim)]
    yield xarray.DataArray(array, dims=dims, coords={dims[axis]: names})
    if array.ndim == 1:
        yield pd.Series(array, index=names)
    if array.ndim == 2:
        yield pd.DataFrame(array, **{("index", "columns")[axis]: names})


@pytest.mark.usefixtures("untyped")
def test_labels_that_nothing_knows_are_refused_by_every_constructor():
    refused = 0
    for name, (call, arguments) in constructors().items():
        for argument, array in arrays(arguments):
            naming = NAMING.get((name, argument), ())
            for axis in set(range(array.ndim)) - set(naming):
                for given in labelled(array, axis):
                    with pytest.raises(dm.DynmechError, match=argument):
                        call(**{**arguments, argument: given})
                    refused += 1
            for axis in naming:
                for given in labelled(array, axis):
                    call(**{**arguments, argument: given})
    assert refused > 100


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("kind", [lambda x: x, xarray.DataArray], ids=["pandas", "xarray"])
def test_labels_in_any_order_are_the_same_market_and_the_same_money(kind):
    rng = np.random.default_rng(0)
    rows, columns, levels = ["a", "b"], ["ram", "price"], ["low", "high"]
    gamma = pd.DataFrame(rng.normal(size=(2, 2)), rows, columns)
    points = pd.DataFrame(rng.normal(size=(3, 2)), ["x", "y", "z"], columns)
    weights = pd.Series([0.2, 0.3, 0.5], ["x", "y", "z"])
    support = pd.DataFrame([[1.0, 2.0], [0.5, 1.5]], rows, levels)
    prior = pd.DataFrame([[0.6, 0.4], [0.1, 0.9]], rows, levels)
    interval = pd.DataFrame([[0.0, 3.0], [0.0, 2.0]], rows, levels)

    def market(turn):
        g, p, w, s, f, i = map(turn, (gamma, points, weights, support, prior, interval))
        rule = dm.LastShownOnly(dm.Logit(1.0), 0.5)
        values = dm.ConstantValues(s, f, i)
        grid = dm.TasteGrid(p, w)
        return dm.RecommendationMDP(g, grid, 2, rule, dm.SignalStructure(), values, rows)

    def turned(x):
        return kind(x.iloc[::-1] if x.ndim == 1 else x.iloc[::-1, ::-1])

    plain = dm.solve_efficient_policy(market(lambda x: x), progress=False)
    other = market(turned)
    np.testing.assert_array_equal(other.values.prior[:, ::-1], prior)
    np.testing.assert_array_equal(other.values.interval, interval)
    # its tastes and values are in another order than those of the plain market
    policy = dm.solve_efficient_policy(other, progress=False)
    np.testing.assert_allclose(policy.value[::-1, ::-1], plain.value, rtol=1e-14)
    paid, bids = [], pd.Series([2.0, 1.5], rows)
    taste = pd.Series([1.0, 0.2], columns)
    for one, turn in ((plain, lambda x: x), (policy, turned)):
        chat = one.start(theta=turn(bids))
        mechanism = dm.DynamicTeamMechanism(one, dm.groves.Zero())
        paid.append((chat.value, *mechanism.payment(turn(bids), 1, turn(taste))))
        many = one.start_many(theta=turn(pd.DataFrame([bids, bids]).reset_index(drop=True)))
        assert many.recommendation.tolist() == [chat.recommendation] * 2
    np.testing.assert_allclose(*paid, rtol=1e-14)


@pytest.mark.usefixtures("untyped")
def test_what_is_not_matched_by_its_labels_is_refused():
    support = pd.DataFrame([[1.0, 2.0]], ["a"], ["low", "high"])
    with pytest.raises(dm.InvalidArgument, match=r"interval=.*ends"):
        dm.ConstantValues(support, None, pd.DataFrame([[0.0, 3.0]], ["a"], ["least", "most"]))
    with pytest.raises(dm.InvalidArgument, match=r"Bounded\(lower=.*no labels"):
        dm.Bounded([1.0, 2.0], xarray.DataArray([0.0, 1.0], coords={"d": ["b", "a"]}, dims="d"))
    frame = pd.DataFrame({"who": ["x", "y"], "round": 1, "shown": "a", "action": ["buy", "exit"]})
    log = dm.Log.from_frame(
        frame, conversation="who", round="round", shown="shown", action="action"
    )
    mask = pd.Series([True, False], ["y", "x"])
    for given in (mask, xarray.DataArray(mask)):
        assert log.keep(given).conversations.tolist() == ["y"]
    for wrong in (mask.rename({"x": "z"}), pd.Series([0, 1], ["y", "x"])):
        with pytest.raises(dm.InvalidArgument, match=r"keep\(which="):
            log.keep(wrong)
