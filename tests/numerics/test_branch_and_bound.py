"""Bounds that are told the parameter, and branch and bound, against all histories."""

import itertools

import numpy as np
import pytest

from solvers import BranchAndBound, Status
from solvers.search.branch_and_bound import solve_branch_and_bound
from solvers.told.bounds import told_parameter
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem, value, values


def bounded(problem, tolerance=0.0, **options):
    return solve_branch_and_bound(
        problem.structure, problem.tables, [problem.tasks], BranchAndBound(**options),
        tolerance=tolerance,
    )  # fmt: skip


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_told_omega_bounds_every_belief(seed, moving):
    """At random beliefs in every round and memory class, for every root and task."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, rounds=3, moving=moving, variants=2)
    told = told_parameter(problem.structure, problem.tables, problem.tasks)
    roots, width = problem.tasks.coefficient.shape[:2]
    tight = []
    for t, classes in enumerate(len(edge) for edge in problem.structure.edge):
        for memory in range(classes):
            for _ in range(3):
                belief = rng.dirichlet(np.full(4, 0.3)) * rng.uniform(0.1, 2)
                for r in range(roots):
                    for q in range(width):
                        exact = value(problem, t, memory, belief, r, q)
                        upper = told[t][memory, r, q] @ belief
                        assert exact <= upper + 1e-12
                        tight.append(upper - exact)
    assert min(tight) < 1e-3 < max(tight)


@pytest.mark.parametrize("moving", [False, True])
def test_a_joint_bound_holds_where_tables_would_be_too_large(moving, monkeypatch):
    problem = random_problem(np.random.default_rng(1), rounds=3, moving=moving)
    each = told_parameter(problem.structure, problem.tables, problem.tasks)
    monkeypatch.setattr("solvers.told.bounds._BYTES", 1.0)
    joint = told_parameter(problem.structure, problem.tables, problem.tasks)
    for one, all_ in zip(joint, each, strict=True):
        assert one.shape[1:3] == (1, 1)
        assert (one >= all_ - 1e-12).all()
    found = bounded(problem)
    assert (found.upper[0] >= values(problem) - 1e-12).all()
    np.testing.assert_allclose(found.answers[0].value, values(problem), atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_bounds_meet_at_the_value(seed):
    problem = random_problem(
        np.random.default_rng(seed), rounds=3 + seed % 2, moving=seed % 3 == 0, dead=bool(seed % 2)
    )
    found = bounded(problem)
    assert found.status in (Status.WITHIN_TOLERANCE, Status.EXACT)
    np.testing.assert_allclose(found.answers[0].value, values(problem), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.upper[0], values(problem), rtol=0, atol=1e-12)
    assert found.tree.nodes <= build_tree(problem.structure).nodes


@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_bounds_are_never_optimistic_on_thousands_of_problems(count):
    """Small problems solved to loose tolerances: no bound is on the wrong side."""
    rng = np.random.default_rng(count)
    loose = 0
    for k in range(count):
        problem = random_problem(rng, rounds=3, classes=2, points=3, roots=1, variants=2)
        found = bounded(problem, tolerance=(0.0, 0.1, 0.5)[k % 3])
        exact = values(problem)
        low, high = found.answers[0].value, found.upper[0]
        assert (low <= exact + 1e-12).all()
        assert (exact <= high + 1e-12).all()
        mass = problem.tasks.root.sum()
        assert (high - low).max() <= (0.0, 0.1, 0.5)[k % 3] * mass + 1e-12
        loose += (high - low).max() > 1e-6
    assert loose > count / 20


def test_passes_improve_both_bounds():
    rng = np.random.default_rng(5)
    problem = random_problem(rng, rounds=5, controls=5, symbols=3, roots=1, variants=1, points=8)
    lows, highs = [], []
    for tolerance in (1.0, 0.1, 0.03, 0.01, 0.0):
        found = bounded(problem, tolerance)
        lows.append(found.answers[0].value.item())
        highs.append(found.upper[0].item())
    assert lows == sorted(lows)
    assert highs == sorted(highs, reverse=True)
    gaps = [gap for _, _, gap in found.history]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(gaps))


def test_gaps_are_per_unit_of_mass_at_every_node():
    problem = random_problem(np.random.default_rng(2), rounds=3, roots=2, variants=2)
    found = bounded(problem, tolerance=1.0)
    for t, gap in enumerate(found.gap[0]):
        assert gap.shape == (found.tree.layers[t].nodes, 2, problem.tasks.keep)
        assert (gap >= 0).all()
    mass = problem.tasks.root.sum(axis=1, keepdims=True)
    apart = (found.upper[0] - found.answers[0].value) / mass
    np.testing.assert_allclose(found.gap[0][0][0], apart[:, : problem.tasks.keep], atol=1e-12)


def test_an_interruption_returns_the_bounds_reached(monkeypatch):
    problem = random_problem(np.random.default_rng(8), rounds=5, controls=5, symbols=3, points=8)
    assert len(bounded(problem).history) > 1
    import solvers.search.branch_and_bound as module

    real, calls = module.sweep_bounded, []

    def sweep(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(module, "sweep_bounded", sweep)
    found = bounded(problem)
    assert found.status is Status.INTERRUPTED
    assert len(found.history) == 1
