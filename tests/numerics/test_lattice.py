"""Beliefs in proportion: relations among columns, and that merging by them is exact."""

import dataclasses

import equinox as eqx
import numpy as np
import pytest

from solvers.tree.backward import backward
from solvers.tree.lattice import drift, relations
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem, values


def binomial(points=7, symbols=4):
    """Columns of a binomial reading: an exponential family with one statistic."""
    chance = np.linspace(0.1, 0.9, points)
    heads = np.arange(symbols)[:, None]
    weight = np.array([1, 3, 3, 1])[:symbols, None]
    return weight * chance**heads * (1 - chance) ** (symbols - 1 - heads)


def rebuilt(column, digits, offset):
    """Columns from the generators that the digits and offsets name."""
    own = [
        int(np.flatnonzero((digits[:, g] != 0) & (offset == 0))[0]) for g in range(digits.shape[1])
    ]
    logs = np.log(column[own]) / digits[own, np.arange(len(own))][:, None]
    return np.exp(digits @ logs + offset[:, None])


def test_readings_of_one_statistic_have_two_generators():
    digits, offset = relations(binomial())
    assert 0 < drift(binomial(), digits, offset) < 1e-12
    assert digits.shape == (4, 2)
    assert np.array_equal(digits, [[1, 0], [0, 1], [-1, 2], [-2, 3]])
    np.testing.assert_allclose(rebuilt(binomial(), digits, offset), binomial(), rtol=1e-12)


def test_fractions_of_a_generator_are_found():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0.1, 0.9, (2, 6))
    column = np.stack(
        [first, second, 0.7 * np.sqrt(first * second), 0.2 * (first * second) ** (1 / 3)]
    )
    digits, offset = relations(column)
    assert np.array_equal(digits, [[6, 0], [0, 6], [3, 3], [2, 2]])
    np.testing.assert_allclose(offset, [0, 0, np.log(0.7), np.log(0.2)], atol=1e-12)


@pytest.mark.parametrize("points", [2, 3, 8])
def test_columns_in_general_position_are_not_related(points):
    """With few tastes every column is a combination of the others, but not a rational one."""
    column = np.random.default_rng(points).uniform(0.05, 0.9, (12, points))
    assert relations(column) == (None, None)


def test_near_relations_are_not_used():
    column = binomial()
    column[3, 2] *= 1 + 1e-9
    digits, _ = relations(column)
    assert np.array_equal(digits[3], np.eye(3, dtype=int)[2])


def test_columns_with_zeros_count_for_themselves():
    column = binomial()
    column[1, 0] = 0.0
    digits, offset = relations(column)
    assert np.count_nonzero(digits[1]) == 1
    assert offset[1] == 0


def related_problem(seed, rounds=4, moving=False):
    """A random problem whose columns are readings of one statistic, times other columns."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, rounds=rounds, points=7, roots=2, variants=2, moving=moving)
    count = problem.structure.column_count
    base = rng.uniform(0.2, 0.9, (2, 7))
    column = 0.5 * base[np.arange(count) % 2] * binomial()[np.arange(count) % 4]
    digits, offset = relations(column)
    structure = dataclasses.replace(problem.structure, digits=digits, offset=offset)
    return dataclasses.replace(
        problem, structure=structure, tables=eqx.tree_at(lambda t: t.column, problem.tables, column)
    )


@pytest.mark.parametrize("seed", range(6))
def test_merging_in_proportion_changes_no_value(seed):
    problem = related_problem(seed, moving=bool(seed % 2))
    apart = dataclasses.replace(problem.structure, digits=None, offset=None)
    small, large = build_tree(problem.structure), build_tree(apart)
    assert small.nodes < large.nodes
    one, actions = backward(small, problem.tables, problem.tasks, block=64)
    two, _ = backward(large, problem.tables, problem.tasks, block=64)
    np.testing.assert_allclose(one, two, rtol=1e-12)
    np.testing.assert_allclose(one, values(problem), rtol=1e-10)
    assert len(actions) == problem.structure.horizon


def test_columns_that_say_nothing_need_no_generator():
    """Two constant columns: every multiset of them has the belief it started from."""
    column = np.array([[0.6, 0.6, 0.6], [0.2, 0.2, 0.2]])
    digits, offset = relations(column)
    assert digits is not None
    assert digits.shape == (2, 0)
    np.testing.assert_allclose(np.exp(offset), column[:, 0], rtol=1e-12)
