"""Best-first search of finite horizons: against brute force, and where memory or time ends it."""

import dataclasses

import numpy as np
import pytest

from solvers import BestFirst, Limits, Listed, Status
from solvers import Problem as Posed
from solvers.problem import TaskList
from tests.helpers.problems import random_problem, values


def solve(problem, tolerance=0.0, **options):
    tasks = TaskList([problem.tasks])
    structure = problem.structure
    listed = Listed(structure, problem.tables)
    posed = Posed(lambda: None, lambda limit: listed, structure.horizon, structure.controls)
    return BestFirst(**options).solve(posed, tasks, Limits(tolerance), False)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_and_plans_attain_them(seed):
    rng = np.random.default_rng(seed)
    symbols = 1 if seed % 3 == 2 else 2
    shared, dead = seed % 2 == 0, seed == 4
    problem = random_problem(rng, rounds=1 + seed % 4, symbols=symbols, shared=shared, dead=dead)
    true = values(problem).ravel()
    for tolerance in (0.0, 0.05):
        found = solve(problem, tolerance)
        assert (found.lower <= true + 1e-12).all()
        assert (true <= found.upper + 1e-12).all()
        mass = TaskList([problem.tasks]).mass
        assert (found.upper - found.lower <= tolerance * mass + 1e-12).all()
        np.testing.assert_allclose(found.value, found.lower, atol=1e-12)
        assert len(found.table.tree.layers) == problem.structure.horizon


def test_whenever_it_ends_there_is_a_plan():
    rng = np.random.default_rng(1)
    problem = random_problem(rng, rounds=5, symbols=4, roots=1, variants=2, shared=False)
    true, whole = values(problem).ravel(), solve(problem)
    assert whole.status is Status.EXACT
    short, small = solve(problem, seconds=1e-9), solve(problem, memory=3e5)
    assert short.status is Status.TIME_LIMIT
    assert small.status is Status.MEMORY_LIMIT  # the plan found is too large to be written out
    for found in (short, small):
        assert (found.value <= found.lower + 1e-12).all()
        assert (found.lower <= true + 1e-12).all()
        assert (true <= found.upper + 1e-12).all()
        assert len(found.table.tree.layers) == 5
        assert found.value.sum() < whole.value.sum() - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_economies_that_may_earn_more_are_bounded_by_those_that_may_do_more(seed):
    """What does not count may also have been a loss: W of the second can be above the first."""
    rng = np.random.default_rng(100 + seed)
    problem = random_problem(rng, rounds=2 + seed % 3, roots=2, variants=4, shared=seed % 2 == 0)
    part = problem.tasks
    coefficient, counted = np.asarray(part.coefficient).copy(), np.asarray(part.counted).copy()
    coefficient[:, 1:], allowed = coefficient[:, :1], np.asarray(part.allowed).copy()
    counted[:, 0], allowed[:, 0] = 1.0, True
    for k in range(1, counted.shape[1]):
        counted[:, k] = np.arange(counted.shape[2]) != k % counted.shape[2]
    problem = dataclasses.replace(
        problem,
        tasks=dataclasses.replace(
            part, coefficient=coefficient * counted, counted=counted, allowed=allowed, keep=1
        ),
    )
    true = values(problem).ravel()
    mass = TaskList([problem.tasks]).mass
    for tolerance in (0.0, 0.02, 0.2):
        found = solve(problem, tolerance)
        assert (found.lower <= true + 1e-12).all()
        assert (true <= found.upper + 1e-12).all()
        assert (found.upper - found.lower <= tolerance * mass + 1e-12).all()
