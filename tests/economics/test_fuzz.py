"""Random bad calls are refused by the argument's name, or answered soundly: a short run."""

import pytest

from experiments.fuzz import run


@pytest.mark.usefixtures("untyped")
def test_bad_calls_are_refused_by_name_or_answered_soundly():
    found = run(count=150, seed=0)
    assert found["failures"] == []
    assert found["total"]["refused"] > 100
