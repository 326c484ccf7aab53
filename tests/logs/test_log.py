"""Logs: what is read is what was written, and what cannot be is refused by row."""

import numpy as np
import pandas as pd
import pytest

import dynmech as dm
from tests.helpers.logs import drawn, read, small

FRAME = pd.DataFrame(
    {
        "id": ["a", "b", "a", "c", "c"],
        "turn": [1, 1, 2, 1, 2],
        "product": ["x", "y", "y", "x|y", None],
        "did": ["query", "exit", "x", "query", "query"],
        "stars": [3, np.nan, np.nan, 4.5, None],
    }
)


def test_rows_of_interleaved_conversations_are_brought_together():
    log = read(FRAME, rating="stars")
    assert len(log) == 3
    assert log.rows == 5
    assert log.products == ("x", "y")
    np.testing.assert_array_equal(log.round, [1, 2, 1, 1, 2])
    np.testing.assert_array_equal(log.shown, [[0, -1], [1, -1], [1, -1], [0, 1], [-1, -1]])
    np.testing.assert_array_equal(log.bought, [-1, 0, -1, -1, -1])
    np.testing.assert_array_equal(log.rating, [3, np.nan, np.nan, 4.5, np.nan])
    assert log.censored == 1


def test_a_frame_written_reads_back():
    log = read(FRAME, rating="stars")
    frame = log.to_frame()
    again = read(frame, rating="stars", bought="bought")
    pd.testing.assert_frame_equal(again.to_frame(), frame)


def test_products_are_matched_by_name_in_any_order():
    shown, action = read(FRAME).on(["y", "z", "x"])
    np.testing.assert_array_equal(shown, [[2, 3], [0, 3], [0, 3], [2, 0], [3, 3]])
    np.testing.assert_array_equal(action, [4, 2, 3, 4, 4])
    with pytest.raises(dm.OutsideSupport, match=r"log.*market.*got x"):
        read(FRAME).on(["y", "z"])


def test_codes_are_read_where_a_conversation_goes_on():
    frame = pd.DataFrame(
        {"id": [1, 1, 2], "turn": [1, 2, 1], "product": [0, 1, -1], "did": [4, 1, 3]}
    )
    log = read(frame)
    np.testing.assert_array_equal(log.kind, [2, 0, 1])
    np.testing.assert_array_equal(log.bought, [-1, 1, -1])
    with pytest.raises(dm.InvalidArgument, match="action"):
        read(frame.iloc[2:])


def test_what_a_person_looks_at_first():
    log = read(FRAME, rating="stars")
    funnel = log.funnel()
    np.testing.assert_array_equal(funnel["at_risk"], [3, 2])
    np.testing.assert_allclose(funnel["asked"], [2 / 3, 1 / 2])
    np.testing.assert_allclose(funnel["mean_rating"][1], 3.75)
    after = log.by_answer(1)
    assert after.index.tolist() == ["3 to 4.5"]
    np.testing.assert_allclose(after[["at_risk", "bought", "asked"]], [[2, 0.5, 0.5]])
    figure = dm.plotting.plot_log(log, title="what happened")
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "round", "product shown", "answer in the round before",
    ]  # fmt: skip
    by = log.by_product()
    np.testing.assert_array_equal(by["at_risk"], [2, 3])
    assert "without an end" in log.summary()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"turn": [1, 1, 1, 1, 2]}, dm.InvalidArgument, r"round=.*conversation a, round 1"),
        ({"turn": [2, 1, 1, 1, 2]}, dm.InvalidArgument, r"round=.*in this order"),
        ({"turn": [1, 1, 3, 1, 2]}, dm.InvalidArgument, r"round=.*got 3"),
        ({"turn": [1, 1, 1.5, 1, 2]}, dm.InvalidArgument, r"round=.*integers"),
        ({"did": ["exit", "exit", "x", "query", "query"]}, dm.InvalidArgument, "after a query"),
        ({"did": ["query", "exit", "z", "query", "query"]}, dm.UnseenPurchase, "got 'z'"),
        ({"did": ["query", None, "x", "query", "query"]}, dm.InvalidArgument, r"action=.*every"),
        ({"did": ["query", "exit", "x", "buy", "query"]}, dm.InvalidArgument, "which product"),
        ({"stars": ["a", 1, 1, 1, 1]}, dm.InvalidArgument, r"rating=.*numbers"),
        ({"stars": [np.inf, 1, 1, 1, 1]}, dm.NotFinite, r"rating=.*finite"),
        ({"product": ["x|x", "y", "y", "x", "y"]}, dm.InvalidArgument, r"shown=.*once"),
        ({"id": [None, "b", "a", "c", "c"]}, dm.InvalidArgument, r"conversation="),
        ({"id": [[1], [2], [1], [3], [3]]}, dm.InvalidArgument, r"conversation=.*\[1\]"),
        ({"turn": [1, 1, np.inf, 1, 2]}, dm.InvalidArgument, r"round=.*integers"),
        ({"turn": [1, 1, 10**30, 1, 2]}, dm.InvalidArgument, r"round=.*integers"),
        ({"stars": pd.Timestamp("2026-01-01")}, dm.InvalidArgument, r"rating=.*numbers"),
        ({"stars": [1j, 1, 1, 1, 1]}, dm.InvalidArgument, r"rating=.*numbers"),
        ({"did": ["query", " ", "x", "query", "query"]}, dm.InvalidArgument, r"action=.*every"),
        ({"sold": ["x", "", "y", "", ""]}, dm.InvalidArgument, r"bought=.*empty.*'x'.*a, round 1"),
    ],
)
def test_bad_rows_are_refused_by_column_conversation_and_round(change, kind, message):
    with pytest.raises(kind, match=message):
        read(FRAME.assign(**change), rating="stars", bought="sold" if "sold" in change else None)


def test_columns_that_are_not_there_are_listed():
    with pytest.raises(dm.OutsideSupport, match=r"rating=.*the columns are id, turn"):
        read(FRAME, rating="rating")
    with pytest.raises(dm.InvalidArgument, match="DataFrame"):
        read({"id": [1]})
    with pytest.raises(dm.InvalidArgument, match=r"scale=.*b not 0"):
        read(FRAME, scale=(1.0, 0.0))
    with pytest.raises(dm.InvalidArgument, match=r"signal=.*from 0"):
        read(FRAME.assign(heard=-3), signal="heard")
    with pytest.raises(dm.InvalidArgument, match="theta_NAME"):
        read(FRAME, reports=["stars"])


def test_conversations_can_be_chosen_and_repeated():
    env = small()
    log = read(drawn(env, 30, 0), rating="stars")
    again = log.keep(np.array([4, 4, 0]))
    assert len(again) == 3
    one = log.keep(np.array([4]))
    assert again.rows == 2 * one.rows + log.keep(np.array([0])).rows
    np.testing.assert_array_equal(again.shown[: one.rows], one.shown)


def test_logs_written_out_from_counts_count_the_same():
    """The shipped counts of coached conversations and of sessions, as logs."""
    from experiments import _real_logs as logs

    counts = pd.read_csv(logs.DATA / "shopping_dialogues.csv")
    funnel = logs.read("dialogues", 1).funnel()
    names = {"bought": "ended_with_positive_answer", "left": "ended_other", "asked": "continued"}
    assert funnel["at_risk"].tolist() == counts["recommendations"].tolist()
    for name, column in names.items():
        np.testing.assert_allclose(funnel[name] * funnel["at_risk"], counts[column], atol=1e-9)
    log = logs.read("sessions", 2)
    assert (len(log), log.censored) == (12281, 11656 - 20 - 440)
    np.testing.assert_allclose(log.funnel()["bought"] * log.funnel()["at_risk"], [13, 20])
