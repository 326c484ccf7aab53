"""The static experiments run on small inputs and show what they claim."""

import numpy as np

from experiments import static_consistency, static_prediction, static_rivals


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
