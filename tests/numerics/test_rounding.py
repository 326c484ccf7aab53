"""Sweeps in float32: what they can be off by is bounded, and every bound is wide enough."""

import dataclasses

import numpy as np
import pytest

from solvers import (
    BranchAndBound,
    Exact,
    Structure,
    Tables,
    Tasks,
    build_tree,
    rounding,
    solve_branch_and_bound,
    solve_exact,
    unrelated,
)
from tests.helpers.problems import random_problem


def both(problem, dtype=None):
    """Values and upper bounds (R, Q) of the exact solver and of branch and bound."""
    tree = build_tree(problem.structure)
    answer = solve_exact(tree, problem.tables, [problem.tasks], Exact(), dtype=dtype)[0]
    parts = (problem.structure, problem.tables, [problem.tasks], BranchAndBound())
    bounded = solve_branch_and_bound(*parts, tolerance=0.05, dtype=dtype)
    return answer, (bounded.answers[0].value, bounded.upper[0])


def check(seeds, **options):
    off = 0.0
    for seed in seeds:
        problem = random_problem(np.random.default_rng(seed), **options)
        true = both(problem)[0].value
        answer, (low, high) = both(problem, np.float32)
        assert answer.value.dtype == np.float32
        room = rounding(problem.structure, problem.tables, (problem.tasks,))
        assert 0 < room.total < 1e-3
        for one, other in ((answer.value, answer.value), (low, high)):
            lower, upper = room.widen(problem.tasks, one, other)
            assert (lower <= true).all()
            assert (true <= upper).all()
        off = max(off, np.abs(answer.value - true).max() / room.total)
        losses = room.losses(problem.tasks, answer)
        assert all(loss.shape == taken.shape for loss, taken in zip(losses, answer.actions))
    assert 0 < off < 1


def test_values_of_float32_are_within_the_allowance():
    check(range(12))


def test_values_of_float32_are_within_the_allowance_with_moving_coefficients():
    check(range(3), moving=True, variants=2)


@pytest.mark.slow
def test_values_of_float32_are_within_the_allowance_thousands():
    check(range(100, 2100))
    check(range(100), rounds=4, points=64, roots=1, variants=2)


def one_round(points, rng):
    """One control that pays for sure: a long sum whose rounding can be seen."""
    edge = (np.array([[0, 1]], np.int32),)
    outcome = np.array([[0], [-1]], np.int32)
    structure = Structure(
        edge, edge, np.zeros((2, 1), np.int32) - 1, outcome, 2, 1, 0, -1
    )  # fmt: skip
    stop = np.stack([np.ones((1, points)), np.zeros((1, points))])
    reward = 0.5 + rng.random((1, points))
    tables = Tables(stop, np.zeros((0, points)), reward, np.asarray(2.0))
    root = rng.dirichlet(np.ones(points))[None]
    ones = np.ones((1, 1, 1))
    return structure, tables, Tasks(root, 0 * ones, ones, np.ones((1, 1, 2)), 1)


def test_the_allowance_grows_with_the_length_of_the_sums():
    rng = np.random.default_rng(0)
    rooms = []
    for points in (10, 100, 1000, 10_000):
        structure, tables, tasks = one_round(points, rng)
        room = rounding(structure, tables, (tasks,))
        tree = build_tree(structure)
        value = solve_exact(tree, tables, [tasks], Exact(), dtype=np.float32)[0].value.item()
        error = abs(value - float((tasks.root * tables.reward).sum()))
        assert error <= room.total
        rooms.append(room.total)
    assert rooms == sorted(rooms)
    assert rooms[-1] > 100 * rooms[0]


def test_sums_too_long_for_float32_are_not_certified():
    structure, tables, tasks = one_round(300_000, np.random.default_rng(0))
    assert rounding(structure, tables, (tasks,)).total == np.inf
    assert rounding(structure, tables, (tasks,), np.float64).total < 1e-9


def test_what_is_flushed_to_zero_is_counted_and_columns_are_not_related():
    problem = random_problem(np.random.default_rng(0), rounds=4)
    digits = np.eye(problem.structure.column_count, dtype=np.int64)
    structure = dataclasses.replace(problem.structure, digits=digits, offset=np.zeros(len(digits)))
    groups = (problem.tasks,)
    assert unrelated(structure, problem.tables, groups) is structure
    small = problem.tables.column * 1e-13
    tables = Tables(problem.tables.stop, small, problem.tables.reward, problem.tables.scale)
    assert unrelated(structure, tables, groups).digits is None
    assert rounding(structure, problem.tables, groups).flushed == 0
    room = rounding(structure, tables, groups)
    assert 0 < room.flushed < 1e-25
    tree = build_tree(problem.structure)
    true = solve_exact(tree, tables, list(groups), Exact())[0].value
    value = solve_exact(tree, tables, list(groups), Exact(), dtype=np.float32)[0].value
    low, high = room.widen(problem.tasks, value, value)
    assert ((low <= true) & (true <= high)).all()
