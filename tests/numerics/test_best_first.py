"""Best-first search of finite horizons: against brute force, and where memory or time ends it."""

import dataclasses
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from solvers import BestFirst, Limits, Listed, PointBased, Status
from solvers import Problem as Posed
from solvers.problem import TaskList
from solvers.search.forever import going_on, one_for_ever, told_for_ever
from solvers.search.timed import with_clock
from tests.helpers.problems import random_problem, values


def solve(problem, tolerance=0.0, **options):
    return run(BestFirst(**options), problem, Limits(tolerance))


def run(solver, problem, limits):
    tasks = TaskList([problem.tasks])
    structure = problem.structure
    listed = Listed(structure, problem.tables)
    posed = Posed(lambda: None, lambda limit: listed, structure.horizon, structure.controls)
    return solver.solve(posed, tasks, limits, False)


def of_fractions(problem):
    """The same problem, its numbers as they are and no sum rounded."""
    exact = np.vectorize(Fraction, otypes=[object])
    fields = {k: exact(v) for k, v in vars(problem.tables).items()}
    tasks = problem.tasks
    parts = {k: exact(getattr(tasks, k)) for k in ("root", "coefficient", "counted")}
    return dataclasses.replace(
        problem, tables=SimpleNamespace(**fields),
        tasks=SimpleNamespace(**parts, allowed=tasks.allowed, kernel=None),
    )  # fmt: skip


@pytest.mark.parametrize("huge", ["nothing", "a loss", "what never comes", "what hardly comes"])
def test_bounds_hold_the_value_in_exact_arithmetic(huge):
    """To the last digit; what nobody would take or get, however large, makes them no wider."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, rounds=2 + seed % 2, controls=2, roots=1, variants=2)
        problem.tasks.coefficient[0, :, 0] -= 1e13 * (huge == "a loss")
        if huge == "what never comes":
            problem.tasks.coefficient[0, :, 0] += 1e18
            problem.tables.stop[problem.structure.outcome == 0] = 0.0
        elif huge == "what hardly comes":
            problem.tasks.root[0, 0] = 1e-20
            problem.tables.reward[:, 0] = 1e18
        true = values(of_fractions(problem)).ravel()
        found = solve(problem)
        lower, upper = ([Fraction(x) for x in row] for row in (found.lower, found.upper))
        assert all(x <= y <= z for x, y, z in zip(lower, true, upper, strict=True))
        assert (found.upper - found.lower <= 1e-12 * (1 + np.abs(found.upper))).all()


def test_what_being_told_is_worth_is_no_less_beside_a_huge_loss():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, rounds=6, classes=2, controls=4, roots=1, variants=1)
        structure, tables = with_clock(problem.structure, problem.tables)
        going, edge = going_on(structure, tables), structure.edge[0]
        yields = rng.uniform(0, 1, going.shape)
        yields[0] = -1e13
        kept = one_for_ever(structure, yields, going)
        told = told_for_ever(structure, yields, going, kept, np.ones(4, bool))
        best = np.zeros_like(told)
        for _ in range(6):
            best = (yields[edge] + going[edge] * best[structure.successor[0]]).max(axis=1)
        np.testing.assert_allclose(told, best, rtol=1e-12)


@pytest.mark.parametrize("solver", [BestFirst(), PointBased()], ids=["BestFirst", "PointBased"])
def test_bounds_hold_numbers_that_were_rounded_to_single_precision(solver):
    for seed in range(3):
        problem = random_problem(np.random.default_rng(seed), rounds=3, roots=1, variants=2)
        true = values(problem).ravel()
        tables = {k: v.astype(np.float32).astype(float) for k, v in vars(problem.tables).items()}
        rounded = dataclasses.replace(problem, tables=type(problem.tables)(**tables))
        found = run(solver, rounded, Limits(1e-4, single=True))
        assert (found.lower <= true).all()
        assert (true <= found.upper).all()
        assert (found.upper - found.lower <= 1e-3).all()


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


def test_a_root_that_cannot_be_is_worth_nothing():
    problem = random_problem(np.random.default_rng(3), roots=2)
    problem.tasks.root[0] = 0.0
    found = solve(problem)
    np.testing.assert_allclose(found.lower, values(problem).ravel(), rtol=0, atol=1e-12)
    assert (found.upper.reshape(2, -1)[0] == 0).all()
