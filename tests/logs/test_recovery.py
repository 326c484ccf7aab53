"""Fits cover what their logs were simulated with as often as they say."""

import csv

import pytest

from experiments import recovery


@pytest.mark.slow
def test_of_100_logs_95_intervals_cover_the_truth_but_for_chance(tmp_path):
    recovery.main(recovery.Options(results=tmp_path))
    with (tmp_path / "recovery" / "recovery.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["parameter"] for row in rows} == set(recovery.truth())
    for row in rows:
        assert row["logs"] == "100"
        assert 88 <= int(row["covered"]) <= 99, row
