"""Searches that keep their state: killed after any pass, they go on to the same bits."""

import math

import jax
import numpy as np
import pytest

import dynmech as dm
from experiments.benchmarks.instances import generic, hidden_taste
from solvers import BestFirst, BranchAndBound, Exact, PointBased, Unkept, checkpoint
from solvers.files import seal, unseal, write
from tests.economics.test_search import unlisted as unlisted
from tests.helpers.problems import solved


class Killed(Exception):
    """The process is gone, just after a state was written."""


def killed_again_and_again(solve, folder, monkeypatch):
    """What is found at last, and how many kills there were, each after a pass."""
    usual, written, kills = checkpoint.Checkpoint.save, [], 0

    def save(self, part, arrays):
        usual(self, part, arrays)
        written.append(part)
        if len(written) == 2:  # the first is that with which it began
            raise Killed

    monkeypatch.setattr(checkpoint, "_SHARE", math.inf)
    monkeypatch.setattr(checkpoint.Checkpoint, "save", save)
    while True:
        written.clear()
        try:
            return solve(folder), kills
        except Killed:
            kills += 1
            assert len(list(folder.rglob("part-*"))) <= 4, "states pile up"


def test_of_the_processes_of_a_mesh_the_first_one_keeps_states(tmp_path, monkeypatch):
    monkeypatch.setattr("solvers.devices._processes", lambda mesh: {0, 1})
    monkeypatch.setattr("solvers.devices._exchange", lambda mine: [mine])
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("parts",))
    for process, kept in ((1, False), (0, True)):
        monkeypatch.setattr("jax.process_index", lambda process=process: process)
        for solver in (BestFirst(), BranchAndBound(), PointBased()):
            solved(4, solver, 0.05, checkpoint=tmp_path / str(process), mesh=mesh)
        names = {path.parent.name for path in (tmp_path / str(process)).rglob("part-*")}
        assert len(names) == 3 * kept


SEARCHES = [
    BestFirst(),
    BranchAndBound(),
    BranchAndBound(merge_within=0.2),
    PointBased(),
    PointBased(everywhere=True),
]


@pytest.mark.parametrize("solver", SEARCHES, ids=str)
def test_a_killed_search_goes_on_to_the_same_answer(solver, tmp_path, monkeypatch):
    whole = solved(4, solver, 0.0)
    found, kills = killed_again_and_again(
        lambda folder: solved(4, solver, 0.0, checkpoint=folder), tmp_path, monkeypatch
    )
    assert kills >= 1
    assert found.nodes == whole.nodes
    for name in ("value", "lower", "upper"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
    with pytest.raises(Unkept, match="same problem"):
        solved(2, solver, 0.0, checkpoint=tmp_path)
    with pytest.raises(Unkept, match="same problem"):
        solved(4, solver, 0.5, checkpoint=tmp_path)


def test_many_nodes_are_numbered_by_a_table_as_few_by_a_dictionary(tmp_path, monkeypatch):
    env, options = generic(4, 4), {"tolerance": 1e-3, "progress": False}
    found = []
    for many in (1 << 20, 0):
        monkeypatch.setattr("solvers.search.numbers._MANY", many)
        found.append(dm.solve_efficient_policy(env, dm.BestFirst(), **options))
        kept, kills = killed_again_and_again(
            lambda folder: solved(4, BestFirst(), 0.0, checkpoint=folder),
            tmp_path / str(many),
            monkeypatch,
        )
        assert kills >= 1
        np.testing.assert_array_equal(kept.upper, solved(4, BestFirst(), 0.0).upper)
    one, other = found
    assert one.work.nodes == other.work.nodes > 500  # the table has grown
    for name in ("value", "lower", "upper", "marginal_upper"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


OTHER = [  # what another release may have kept
    lambda kept: {"other": np.ones(1), **dict(list(kept.items())[1:])},
    lambda kept: {**kept, "new": np.ones(1)},
    lambda kept: {},
]


@pytest.mark.parametrize("solver", [SEARCHES[0], SEARCHES[2], SEARCHES[3], Exact()], ids=str)
def test_states_of_other_arrays_are_refused_and_set_aside(solver, tmp_path):
    whole = solved(4, solver, 0.0, checkpoint=tmp_path)
    places = list(tmp_path.rglob("part-*"))
    for place, change in zip(places, OTHER, strict=False):
        arrays, document = unseal(place.read_bytes())
        write(place, *seal(change(arrays), document))
    if not isinstance(solver, Exact):  # a part of its answers is made again
        for _ in places:
            with pytest.raises(Unkept, match="another release"):
                solved(4, solver, 0.0, checkpoint=tmp_path)
    again = solved(4, solver, 0.0, checkpoint=tmp_path)
    np.testing.assert_array_equal(again.value, whole.value)
    assert len(list(tmp_path.rglob("unreadable-*/part-*"))) == len(places)


def test_torn_states_cost_a_pass_and_no_more(tmp_path, monkeypatch):
    solver = BestFirst()
    whole = solved(4, solver, 0.0, checkpoint=tmp_path)
    for part in tmp_path.rglob("part-*"):
        part.write_bytes(part.read_bytes()[:-1])
    again = solved(4, solver, 0.0, checkpoint=tmp_path)
    np.testing.assert_array_equal(again.value, whole.value)
    assert list(tmp_path.rglob("unreadable-*"))


def endless():
    """Some taste may query for ever: beliefs take no finite number of directions."""
    return dm.RecommendationMDP(
        np.eye(2),
        dm.TasteGrid(np.eye(2), np.full(2, 1 / 2)),
        math.inf,
        dm.LastShownOnly(dm.Logit(1.0), dm.ConstantQuery(0.5)),
        dm.SignalStructure(feedback=dm.RatingFeedback(1.0, symbols=2)),
        dm.ConstantValues(np.ones((2, 1))),
    )


def whole_and_killed(env, solver, tolerance, folder, monkeypatch):
    def solve(checkpoint):
        options = {"tolerance": tolerance, "checkpoint": checkpoint, "progress": False}
        return dm.solve_efficient_policy(env, solver, **options)

    whole = solve(None)
    found, kills = killed_again_and_again(solve, folder, monkeypatch)
    assert kills >= 1
    return whole, found


@pytest.mark.slow
def test_a_search_that_is_picked_for_an_endless_horizon_is_kept(tmp_path, monkeypatch):
    # Which of two methods ends it depends on the clock, and with it where between the bounds.
    whole, found = whole_and_killed(endless(), None, 0.05, tmp_path, monkeypatch)
    assert found.status == whole.status == dm.Status.WITHIN_TOLERANCE
    for name in ("value", "marginal_value", "displayable_marginal_value"):
        one, other = whole.bounded(name), found.bounded(name)
        assert (other.gap <= 0.05).all(), name
        assert (one.lower <= other.upper).all(), name
        assert (other.lower <= one.upper).all(), name


@pytest.mark.slow
@pytest.mark.usefixtures("unlisted")
def test_a_search_from_the_rules_is_kept(tmp_path, monkeypatch):
    solver = dm.BranchAndBound()
    whole, found = whole_and_killed(hidden_taste(8, 3), solver, 0.0, tmp_path, monkeypatch)
    assert found.solver == whole.solver
    for name in ("value", "lower", "upper", "marginal_value", "marginal_upper"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
