"""Work that is killed goes on to the same answer: a short run by default, all of it if slow."""

import pytest

from experiments import _kill_jobs
from experiments.kills import run


@pytest.mark.parametrize(
    ("jobs", "kills"),
    [
        (("save",), 1),
        pytest.param(tuple(_kill_jobs.JOBS), 200, marks=pytest.mark.slow),
    ],
)
def test_killed_work_goes_on_to_the_same_answer(jobs, kills):
    rows = run(jobs, kills, seed=1)
    assert [row["job"] for row in rows] == list(jobs)
    assert sum(row["kills"] for row in rows) >= kills
    for row in rows:
        assert row["same"] == row["ended"] > 0, row
