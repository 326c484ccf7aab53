"""Sweeps: paired by seed, restartable, and whole whatever dies."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dynmech as dm
from tests import sweep_cells as cells


def run(cell=cells.draws, grid=None, **options):
    grid = {"noise": [1.0, 2.0]} if grid is None else grid
    return dm.sweep(cell, grid, progress=False, **options)


def test_settings_share_their_seeds_so_that_differences_are_paired():
    found = run(grid={"noise": [1.0, 2.0], "shift": [0.0, 3.0]}, seeds=4)
    frame = found.to_frame()
    assert len(frame) == 16
    expected = [cells.draws(s, n, h)["mean"] for n, h, s in
                frame[["noise", "shift", "seed"]].itertuples(index=False)]  # fmt: skip
    np.testing.assert_array_equal(frame["mean"], expected)
    moved = found.differences("shift", 0.0)
    np.testing.assert_allclose(moved["mean"], 3.0)
    np.testing.assert_allclose(moved["mean_error"], 0.0, atol=1e-12)
    summary = found.summary().set_index(["noise", "shift"])
    each = [cells.draws(s, 2.0)["mean"] for s in range(4)]
    assert summary.loc[(2.0, 0.0), "mean_error"] == pytest.approx(np.std(each, ddof=1) / 2)


def test_a_folder_is_gone_on_with_and_torn_files_are_made_again(tmp_path):
    calls = []

    def counted(seed, noise):
        calls.append((seed, noise))
        return cells.draws(seed, noise)

    first = run(counted, seeds=2, folder=tmp_path)
    assert len(calls) == 4
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) == 5
    again = run(counted, {"noise": [1.0, 2.0, 3.0]}, seeds=2, folder=tmp_path)
    assert len(calls) == 6
    np.testing.assert_array_equal(again.numbers[:4], first.numbers)
    torn, other = [path for path in files if path.name != "sweep.json"][:2]
    whole, changed = torn.read_text(), json.loads(torn.read_text())
    changed["numbers"] = {name: x + 1 for name, x in changed["numbers"].items()}
    for text in (whole[:-9], json.dumps(changed), other.read_text(), "[]"):
        calls.clear()
        torn.write_text(text)
        np.testing.assert_array_equal(run(counted, seeds=2, folder=tmp_path).numbers, first.numbers)
        assert len(calls) == 1
        assert torn.read_text() == whole
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(dm.InvalidArgument, match="folder of this sweep alone"):
        run(counted, seeds=2, folder=tmp_path)


def test_another_sweep_may_not_use_the_folder(tmp_path):
    run(seeds=1, folder=tmp_path)
    with pytest.raises(dm.InvalidArgument, match=r"folder of this sweep alone.*'draws'"):
        run(cells.welfare, {"precision": [1.0]}, seeds=1, folder=tmp_path)


def test_a_cell_that_fails_is_named_and_the_rest_goes_on():
    def picky(seed, noise):
        if noise == 2.0:
            raise RuntimeError("no two")
        return {"x": noise if seed else np.nan}

    with pytest.warns(dm.DynmechWarning, match="3 of 4 cells failed"):
        found = run(picky, seeds=2)
    assert found.numbers.tolist() == [[1.0]]
    whys = [why for _, _, why in found.failures]
    assert whys == ["'x' must be finite, got nan"] + 2 * ["RuntimeError: no two"]
    with pytest.raises(dm.InvalidArgument, match="no two"):
        run(picky, {"noise": [2.0]}, seeds=1)


def test_workers_give_the_same_and_survive_the_death_of_some(tmp_path):
    grid = {"noise": [1.0, 2.0, 3.0], "mark": [str(tmp_path / "mark")]}
    with pytest.warns(dm.DynmechWarning, match="1 of 3 cells failed.*process died twice"):
        found = run(cells.dies, grid, seeds=1, workers=2)
    assert [settings["noise"] for settings, _, _ in found.failures] == [2.0]
    np.testing.assert_array_equal(found.numbers, run(grid={"noise": [1.0, 3.0]}, seeds=1).numbers)


def test_any_executor_will_do():
    with ThreadPoolExecutor(2) as pool:
        found = run(seeds=2, executor=pool)
    np.testing.assert_array_equal(found.numbers, run(seeds=2).numbers)


def test_statics_of_a_market_have_error_bars():
    found = run(cells.welfare, {"precision": [0.5, 4.0]}, seeds=3)
    gain = found.differences("precision", 0.5).iloc[0]
    assert gain["W"] > 3 * gain["W_error"] >= 0
    figure = found.plot("precision", "W")
    assert figure.axes[0].get_title(loc="left") == "W"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cell": 3}, ["cell", "function"]),
        ({"grid": {}}, ["grid"]),
        ({"grid": {"seed": [1]}}, ["grid", "seed"]),
        ({"grid": {"noise": []}}, ["noise"]),
        ({"grid": {"noise": "abc"}}, ["noise"]),
        ({"grid": {"noise": [np.inf]}}, ["noise", "finite"]),
        ({"grid": {"noise": [1.0, 1.0]}}, ["each once"]),
        ({"grid": {"noise": [object()]}}, ["noise"]),
        ({"seeds": 0}, ["seeds"]),
        ({"seeds": [1, 1]}, ["seeds", "different"]),
        ({"workers": 0}, ["workers"]),
        ({"cell": lambda seed, noise: {"x": 1.0}, "workers": 2}, ["cell", "importable"]),
    ],
)
def test_mistakes_are_named(untyped, options, words):
    with pytest.raises(dm.InvalidArgument) as caught:
        run(**options)
    assert all(word in str(caught.value) for word in words)
    assert "sweep(" in str(caught.value)
