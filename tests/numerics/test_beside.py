"""Searches that give way to the whole tree, and those that do not."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dynmech as dm
from experiments.benchmarks.instances import generic, hidden_taste
from solvers import (
    AbstractProcess,
    BestFirst,
    BranchAndBound,
    Limits,
    Listed,
    PointBased,
    Status,
    Structure,
    Unkept,
)
from solvers import Problem as Posed
from solvers.problem import TaskList
from solvers.tree import beside
from solvers.tree.estimate import foresee
from solvers.tree.tree import build_tree
from tests.helpers import problems
from tests.helpers.problems import random_problem, values

MEASURED = beside.exact_way  # which the tests do without
SOLVERS = [BestFirst(), BranchAndBound(), PointBased()]


@pytest.fixture(scope="module")
def problem():
    return random_problem(np.random.default_rng(6), rounds=4, symbols=3, roots=1, variants=2)


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(beside, "exact_way", MEASURED)
    return monkeypatch


def no_rules() -> AbstractProcess:
    raise AssertionError("memories are listed")


def solve(problem: problems.Problem, solver: Any, settings: dict[str, Any], limits: Limits):
    listed = Listed(problem.structure, problem.tables)
    posed = Posed(no_rules, lambda limit: listed, problem.structure.horizon,
                  problem.structure.controls)  # fmt: skip
    solver = dataclasses.replace(solver, **settings)
    return solver.solve(posed, TaskList([problem.tasks]), limits, False)


def run(problem: problems.Problem, solver: Any, **settings: Any):
    found = solve(problem, solver, settings, Limits(1e-3))
    true = values(problem).ravel()
    assert (found.lower <= true + 1e-12).all()
    assert (true <= found.upper + 1e-12).all()
    return found


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_small_trees_are_solved_exactly_unless_told_otherwise(
    problem: problems.Problem, solver: Any, estimated: pytest.MonkeyPatch
):
    found = run(problem, solver)
    assert found.status is Status.EXACT
    assert "solved exactly" in found.note
    np.testing.assert_allclose(found.value, values(problem).ravel(), rtol=1e-12)
    for settings in ({"exact_after": math.inf}, {"seconds": 1e-9}):
        assert "solved exactly" not in run(problem, solver, **settings).note


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_searches_give_way_once_they_have_had_their_time(
    problem: problems.Problem, solver: Any, estimated: pytest.MonkeyPatch
):
    estimated.setattr(beside, "AT_ONCE", 0.0)
    found = run(problem, solver, exact_after=1e-9)
    assert found.status is Status.EXACT
    assert "solved exactly" in found.note
    patient = run(problem, solver, exact_after=1e9)
    assert "solved exactly" not in patient.note
    assert patient.status.met

    class Interrupted:
        def __init__(self, memory: float, listed: bool):
            pass

        def solve(self, *given: Any):
            raise KeyboardInterrupt

    estimated.setattr(beside, "Exact", Interrupted)
    found = run(problem, solver, exact_after=1e-9)
    assert found.status is Status.INTERRUPTED


def test_what_is_known_before_any_pass_takes_its_part_of_the_time(
    problem: problems.Problem, estimated: pytest.MonkeyPatch
):
    estimated.setattr(beside, "AT_ONCE", 0.0)
    estimated.setattr("solvers.points.point_based.improve_points", None)
    assert "solved exactly" in run(problem, PointBased(), exact_after=1e-9).note


@pytest.mark.parametrize("at_once", [0.0, 1.0])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_searches_go_on_where_the_whole_tree_does_not_fit_after_all(
    problem: problems.Problem, solver: Any, at_once: float, estimated: pytest.MonkeyPatch
):
    """To their own end, whatever was foreseen; not to a limit of memory that nobody met."""

    class Refused:
        def __init__(self, memory: float, listed: bool):
            pass

        def solve(self, *given: Any):
            raise MemoryError

    estimated.setattr(beside, "AT_ONCE", at_once)
    estimated.setattr(beside, "Exact", Refused)
    for seconds in (None, 60.0):
        found = run(problem, solver, exact_after=1e-9, seconds=seconds)
        assert found.status.met
        assert "solved exactly" not in found.note
    assert run(problem, solver, exact_after=1e-9, seconds=1e-9).status is not Status.MEMORY_LIMIT


def test_small_trees_of_many_multisets_are_solved_exactly(estimated: pytest.MonkeyPatch):
    """Nodes are few, as columns are proportional (refused before, where multisets are too many)."""
    estimated.setattr("solvers.tree.planned._HOPELESS", 0.05)  # of 8e5: between nodes and multisets
    env = hidden_taste(8, 6)
    for solver in (dm.Exact(memory=1e8), *SOLVERS):
        policy = dm.solve_efficient_policy(env, solver, relative=0.05, progress=False)
        assert policy.status is dm.Status.EXACT


def test_what_a_tree_takes_is_foreseen_from_its_first_rounds(monkeypatch: pytest.MonkeyPatch):
    edge, columns = np.arange(5, dtype=np.int32)[None], np.arange(20, dtype=np.int32)
    parts = (edge,) * 5, (np.zeros_like(edge),) * 5, columns.reshape(5, 4)
    apart = Structure(*parts, np.full((5, 1), -1, np.int32), 5, 1, 20)
    same = random_problem(np.random.default_rng(6), controls=5, roots=1, variants=2)
    tables, tasks = same.tables, [same.tasks]
    true = build_tree(apart).nodes
    for ways, near in ((1e6, 1.0), (1e3, 1.25)):
        monkeypatch.setattr("solvers.tree.estimate._GLANCE", ways)
        given = apart, tables, tasks, 4e9
        whole, short = foresee(*given), foresee(*given, ahead=True)
        assert whole is not None
        assert short is not None
        assert true / near <= whole.nodes <= true * near
        fewer = build_tree(apart, rounds=4).nodes
        assert fewer / near <= short.nodes <= fewer * near
    assert foresee(apart, tables, tasks, 1e6) is None


def test_the_last_round_is_listed_only_where_that_is_quicker(estimated: pytest.MonkeyPatch):
    """Generic laws merge little: as many nodes again as there are, times ten, come last."""
    estimated.setattr("dynmech.solve.running.AT_ONCE", 1e-9)
    estimated.setattr(beside, "AT_ONCE", 0.0)
    env = generic(8, 4)
    asked: dict[str, Any] = {"tolerance": 1e-3, "progress": False}
    policy = dm.solve_efficient_policy(env, dm.BestFirst(exact_after=0), **asked)
    whole = dm.solve_efficient_policy(env, dm.Exact(listed=True), **asked)
    assert "nodes; the last round is not listed" in policy.solver
    assert policy.work.nodes < whole.work.nodes / 5
    for name in ("value", "lower", "upper", "marginal_value", "marginal_upper"):
        found, true = getattr(policy, name), getattr(whole, name)
        np.testing.assert_allclose(found, true, rtol=1e-12, err_msg=name)


def test_with_a_tolerance_large_trees_are_searched_first(estimated: pytest.MonkeyPatch):
    estimated.setattr("dynmech.solve.running.AT_ONCE", 1e-9)
    env = hidden_taste(8, 3)
    policy = dm.solve_efficient_policy(env, tolerance=1e-3, progress=False)
    assert policy.solver.startswith("BestFirst, picked because the exact tree would take more")
    assert "solved exactly" in policy.solver


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_a_folder_with_the_whole_tree_of_another_problem_is_refused_before_a_search(
    problem: problems.Problem, solver: Any, estimated: pytest.MonkeyPatch, tmp_path: Path
):
    """It was once the search had had its time, all of which was lost."""
    estimated.setattr(beside, "AT_ONCE", 0.0)
    other = random_problem(np.random.default_rng(7), rounds=4, symbols=3, roots=1, variants=2)
    kept = {"exact_after": 0.0}, Limits(1e-3, checkpoint=tmp_path)
    first = solve(problem, solver, *kept)
    assert "solved exactly" in first.note
    assert [path.name for path in tmp_path.iterdir()] == ["exact"]
    again = solve(problem, solver, *kept)  # from the parts that are there
    np.testing.assert_array_equal(again.value, first.value)
    begun = {"exact_after": 1e9}, Limits(1e-3, checkpoint=tmp_path)
    with pytest.raises(Unkept, match="same problem"):
        solve(other, solver, *begun)
    assert [path.name for path in tmp_path.iterdir()] == ["exact"]
    assert solve(problem, solver, *begun).status.met
