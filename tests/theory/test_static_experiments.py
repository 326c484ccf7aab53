"""The static experiments run on small inputs and show what they claim."""

import importlib.util

import numpy as np
import pytest

from dynmech import static
from experiments import _scanner, procurement, static_consistency, static_prediction, static_rivals
from experiments._output import Output


def test_consistency_table():
    frame = static_consistency.measure(static_consistency.Options(samples=(1, 16, 64), states=5))
    for _, rows in frame.groupby("data"):
        assert (np.diff(rows["epsilon"]) < 0).all()
        assert (rows["epsilon"] <= rows["Lemma 1"]).all()
        assert (rows["Lemma 1"] <= rows["(22)"] + 1e-9).all()


def test_rivals_tables():
    frame = static_rivals.rivals().set_index("mechanism")["largest gain"]
    holding = frame.index.str.startswith(("data-driven", "lottery", "Mezzetti"))
    assert (frame[holding] < 1e-9).all()
    assert (frame[~holding] > 0.1).all()
    lottery = static_rivals.lottery(static_rivals.Options(spreads=(0.1, 0.01, 0.0)))
    assert lottery["largest bet"][1] > 5 * lottery["largest bet"][0]
    assert lottery["margin"][2] == 0
    assert " x (" in lottery["outcome"][2]
    assert static_rivals.example_7()["largest gain"][0] > 0.1


def test_prediction_table():
    frame = static_prediction.measure(static_prediction.Options(draws=20_000))
    assert (frame["z"].abs() < 5).all()
    assert (np.abs(frame["as printed"] - frame["closed form"]) > 0.1).all()


def test_scanner_table_is_that_of_an_estimate():
    """Brands, shares, markups and costs of a drawn panel; the table's columns are those shipped."""
    pandas = pytest.importorskip("pandas")
    rng, demand = np.random.default_rng(0), static.LogitDemand(0.5, [1.0, 0.0], outside=False)
    prices = rng.uniform(2, 6, (800, 2))
    taken = rng.uniform(size=800) < demand.shares(prices)[:, 0]
    panel = pandas.DataFrame(
        {
            "price.a": prices[:, 0], "price.b": prices[:, 1],
            "feat.a": rng.integers(0, 2, 800), "feat.b": rng.integers(0, 2, 800),
            "choice": np.where(taken, "a", "b"),
        }
    )  # fmt: skip
    table = _scanner.costs_table({"drawn": panel})
    assert list(table.columns) == list(procurement.read_table().columns)
    assert table["brand"].tolist() == ["a", "b"]
    np.testing.assert_allclose(table["share"], [taken.mean(), 1 - taken.mean()])
    assert abs(table["alpha"][0] - 0.5) < 4 * table["alpha_deviation"][0]
    markup = 1 / (table["alpha"] * (1 - table["model_share"]))
    np.testing.assert_allclose(table["price"] - table["cost"], markup, atol=1e-9)


def test_shipped_scanner_costs():
    """The shipped table: price coefficients, positive costs, and (20) at its own figures."""
    table = procurement.read_table()
    found = table.groupby("category")["alpha"].first().round(3).to_dict()
    assert found == {"Catsup": 1.402, "Cracker": 0.031, "Yogurt": 0.367}
    assert (table["cost"] > 0).all()
    markup = 1 / (table["alpha"] * (1 - table["model_share"]))
    np.testing.assert_allclose(table["markup"], markup, rtol=1e-8)
    np.testing.assert_allclose(table["price"] - table["markup"], table["cost"], rtol=1e-8)
    sums = table.groupby("category")[["share", "model_share"]].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-8)
    np.testing.assert_allclose(table["model_share"], table["share"], atol=1e-9)


def test_cars_are_left_out_without_pyblp(tmp_path, monkeypatch, capsys):
    """Without pyblp the experiment says how to get it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert procurement.cars(Output(tmp_path, "money")) is None
    assert "dynmech[data]" in capsys.readouterr().out
