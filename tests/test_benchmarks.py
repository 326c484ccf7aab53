"""The benchmarks: a small run is kept and read back, and what became slower is found."""

import copy
import json

import pytest

from experiments.benchmarks import compare
from experiments.benchmarks.__main__ import Options, main

RUN = {
    "commit": "before",
    "reference": 0.1,
    "rows": [{"what": name, "seconds": seconds} for name, seconds in (("a", 1.0), ("b", 0.001))],
}


def exit_of(tmp_path, old: dict, new: dict) -> int:
    paths = tmp_path / "old.json", tmp_path / "new.json"
    for path, run in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(run))
    with pytest.raises(SystemExit) as ended:
        compare.main(*paths)
    return int(ended.value.code or 0)


def slower(run: dict, times: float, pace: float = 1.0) -> dict:
    run = copy.deepcopy(run)
    run["reference"] *= pace
    for row in run["rows"]:
        row["seconds"] *= times
    return run


@pytest.mark.parametrize(
    ("new", "lost"),
    [
        (RUN, 0),
        (slower(RUN, 1.2), 0),
        (slower(RUN, 0.5), 0),
        (slower(RUN, 1.5), 1),
        (slower(RUN, 1.5, pace=1.5), 0),  # the machine is slower, not the program
        (slower(RUN, 1.0, pace=0.5), 1),  # as fast, on a machine twice as fast
        ({**RUN, "rows": RUN["rows"][1:]}, 1),
        ({**RUN, "rows": [*RUN["rows"], {"what": "c", "seconds": 9.0}]}, 0),
    ],
)
def test_a_loss_is_found_and_nothing_else(new, lost, tmp_path):
    assert exit_of(tmp_path, RUN, new) == lost
    found = {row["what"]: row for row in compare.compare(RUN, new)}
    assert not found["b"]["loss"]  # a thousandth of a second is no difference


@pytest.mark.slow
def test_a_small_run_of_everything_is_kept_and_compared(tmp_path):
    main(
        Options(
            hidden=((5, 3),),
            bounded=((5, 3),),
            peer_rounds=3,
            audit_values=(2,),
            scale=((4, 8, 2, 0.0),),
            candidates=(3, 4),
            churn=((3, 5, 2), (5, 5, 1)),
            rated=((0.9, 1.0),),
            large=(),
            real=False,
            curves=False,
            results=tmp_path,
        )
    )
    (path,) = tmp_path.glob("*.json")
    run = json.loads(path.read_text())
    names = [row["what"] for row in run["rows"]]
    assert len(set(names)) == len(names) > 6
    assert all(row["seconds"] > 0 for row in run["rows"])
    assert exit_of(tmp_path, run, run) == 0
    assert exit_of(tmp_path, run, slower(run, 3.0)) == 1
