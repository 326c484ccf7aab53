"""What sweeps can be off by: every bound is wide enough, and no wider than its own terms allow."""

import itertools
import math

import numpy as np
import pytest

from solvers import BranchAndBound, Exact, Structure, Tables, Tasks
from solvers.search.branch_and_bound import solve_branch_and_bound
from solvers.ties import fits, foreseen
from solvers.tree.backward import sweep
from solvers.tree.exact import solve_exact
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem


def both(problem, dtype=None):
    """Answers of the exact solver and of branch and bound."""
    tree = build_tree(problem.structure)
    parts = tree, problem.tables, [problem.tasks]
    answer = solve_exact(*parts, Exact(), dtype=dtype, losses=dtype is not None)[0]
    parts = (problem.structure, problem.tables, [problem.tasks], BranchAndBound())
    bounded = solve_branch_and_bound(*parts, tolerance=0.05, dtype=dtype)
    return answer, bounded.answers[0]


@pytest.mark.parametrize("options", [{"slots": 1}, {"moving": True, "variants": 2}])
def test_bounds_on_amounts_are_no_less_and_tell_the_same_ties(options):
    bounded = 0
    for seed, host in itertools.product(range(4), (0.0, math.inf)):
        problem = random_problem(np.random.default_rng(seed), **options)
        given = build_tree(problem.structure), problem.tables, problem.tasks
        swept = (list(sweep(*given, block=64, host=host, carry=x)) for x in (True, False))
        for one, other in zip(*swept, strict=True):
            np.testing.assert_array_equal(one.best, other.best)
            np.testing.assert_array_equal(one.action, other.action)
            assert one.ill == other.ill
            assert (one.amount <= other.amount).all()
            bounded += int((one.amount < other.amount).sum())
    assert bounded  # else they would be the same


def test_gains_that_nobody_goes_for_are_left_out_where_they_hide_ties():
    """Control 0 wins or loses a fortune; controls 1 and 2 differ by little: amounts tell them."""
    for fortune, host in itertools.product((1.0, 1e9), (0.0, math.inf)):
        edge = (np.array([[0, 1, 2, 3]], np.int32),)
        outcome = np.array([[0], [1], [2], [-1]], np.int32)
        structure = Structure(edge, edge, np.zeros((4, 1), np.int32) - 1, outcome, 4, 3, 0)
        reward = np.array([[fortune, -2 * fortune], [1.0, 1.0], [1.0 + 1e-7, 1.0]])
        stop = np.ones((4, 1, 2)) * np.array([1.0, 1.0, 1.0, 0.0])[:, None, None]
        tables = Tables(stop, np.zeros((0, 2)), reward)
        ones = np.ones((1, 1, 3))
        tasks = Tasks(np.full((1, 2), 0.5), 0 * ones, ones, np.ones((1, 1, 4)), 1)
        tree = build_tree(structure)
        (end,) = sweep(tree, tables, tasks, block=8, host=host, carry=False)
        assert end.ill == (fortune > 1)
        found = solve_exact(tree, tables, [tasks], Exact())[0]
        assert not found.ill
        assert found.actions[0].item() == 2
        assert (
            found.lower.item() <= 1.0 + 0.5e-7 <= found.upper.item() <= found.lower.item() + 1e-12
        )


def check(seeds, **options):
    off = 0.0
    for seed in seeds:
        problem = random_problem(np.random.default_rng(seed), **options)
        true = both(problem)[0].value
        answer, bounded = both(problem, np.float32)
        assert answer.value.dtype == np.float32
        for one in (answer, bounded):
            assert (one.lower <= true).all()
            assert (true <= one.upper).all()
        room = answer.upper - answer.lower
        assert (room < 1e-3).all()
        off = max(off, (np.abs(answer.value - true) / np.where(room > 0, room, 1.0)).max())
        assert answer.loss
        assert all(loss.shape == taken.shape for loss, taken in zip(answer.loss, answer.actions))
        foreseen_ = foreseen(problem.structure, problem.tables, problem.tasks, np.float32)
        mass = problem.tasks.root.sum(axis=1)[:, None]
        assert (room / mass).max() <= 2.1 * foreseen_
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
    tables = Tables(stop, np.zeros((0, points)), reward)
    root = rng.dirichlet(np.ones(points))[None]
    ones = np.ones((1, 1, 1))
    return structure, tables, Tasks(root, 0 * ones, ones, np.ones((1, 1, 2)), 1)


def test_the_allowance_grows_with_the_length_of_the_sums():
    rng = np.random.default_rng(0)
    rooms = []
    for points in (10, 100, 1000, 10_000):
        structure, tables, tasks = one_round(points, rng)
        tree = build_tree(structure)
        found = solve_exact(tree, tables, [tasks], Exact(), dtype=np.float32)[0]
        true = float((tasks.root * tables.reward).sum())
        assert found.lower.item() <= true <= found.upper.item()
        rooms.append(found.upper.item() - found.lower.item())
    assert rooms == sorted(rooms)
    assert rooms[-1] > 100 * rooms[0]


def test_sums_too_long_for_float32_are_not_certified():
    structure, tables, tasks = one_round(300_000, np.random.default_rng(0))
    assert foreseen(structure, tables, tasks, np.float32) == np.inf
    assert foreseen(structure, tables, tasks, np.float64) < 1e-9


def test_what_is_flushed_to_zero_is_counted():
    problem = random_problem(np.random.default_rng(0), rounds=4)
    structure, tables, tasks = problem.structure, problem.tables, problem.tasks
    small = Tables(tables.stop, tables.column * 1e-13, tables.reward)
    assert fits(small, tasks, np.float32)
    usual, more = (foreseen(structure, x, tasks, np.float32) for x in (tables, small))
    assert 0 < more - usual < 1e-25 or more == usual
    tree = build_tree(structure)
    true = solve_exact(tree, small, [tasks], Exact())[0].value
    found = solve_exact(tree, small, [tasks], Exact(), dtype=np.float32)[0]
    assert ((found.lower <= true) & (true <= found.upper)).all()


def test_money_that_float32_cannot_add_up_is_left_to_float64():
    problem = random_problem(np.random.default_rng(0))
    large = Tables(problem.tables.stop, problem.tables.column, problem.tables.reward * 1e30)
    assert not fits(large, problem.tasks, np.float32)
    assert fits(large, problem.tasks, np.float64)
