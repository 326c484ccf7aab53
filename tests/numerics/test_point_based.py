"""Point-based solving: plans are real, bounds hold everywhere, nothing known is lost."""

import time
import types
from typing import Any

import numpy as np
import pytest

from solvers import PointBased, Status
from solvers.points import passes
from solvers.points.passes import improve_points
from solvers.points.point_based import solve_point_based
from solvers.points.points import PointSets
from solvers.points.starts import root_beliefs
from solvers.problem import TaskList
from solvers.told.bounds import told_parameter
from solvers.told.interpolate import NEAR, upper_between, weights_between
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem, value, values

SHAPE: dict[str, Any] = {"points": 4, "roots": 2, "variants": 2}
"""One shape for all, so that little is compiled."""


@pytest.fixture(autouse=True)
def whole_passes(monkeypatch):
    """Whatever the seconds, a pass goes to its last round: of few, one comes after the other."""
    monkeypatch.setattr(passes, "_after_a_share", lambda *given: lambda: False)


def solved(problem, tolerance=0.0, **options):
    return solve_point_based(
        problem.structure, problem.tables, [problem.tasks], PointBased(**options),
        tolerance=tolerance,
    )  # fmt: skip


def improved(problem, tolerance=0.0, count=None, **options):
    """Bounds alone, after all passes or after so many."""
    sets = PointSets(problem.structure, problem.tables, [problem.tasks])
    starts = root_beliefs(sets, [problem.tasks])
    if count is None:
        improve_points(sets, starts, PointBased(**options), tolerance, [], time.monotonic())
    for _ in range(count or 0):
        solver = PointBased(seconds=1e-9, **options)
        improve_points(sets, starts, solver, tolerance, [], time.monotonic())
    return sets


def executed(problem, sets, t, memory, plan, task, belief):
    """What a plan earns from a belief, by following it symbol by symbol."""
    s, numbers, flat = problem.structure, problem.tables, sets.flat
    points = sets.at(t, memory)
    control = points.control[plan, task]
    assert flat.allowed[0, task, control]
    edge, total = s.edge[t][memory, control], 0.0
    for slot, j in enumerate(s.outcome[edge]):
        if j >= 0:
            worth = flat.coefficient[0, task, j] + flat.counted[0, task, j] * numbers.reward[j]
            total += (belief * numbers.stop[edge, slot] * worth).sum()
    if t == s.horizon - 1:
        return total
    heir = int(s.successor[t][memory, control])
    kernel = flat.kernel
    law = np.ones(1) if kernel is None else kernel[control, task % kernel.shape[1]]
    for z, column in enumerate(s.columns[edge]):
        after = belief * numbers.column[column]
        for v, chance in enumerate(law):
            other = task - task % len(law) + v
            following = points.after[plan, task, z, v]
            total += chance * executed(problem, sets, t + 1, heir, following, other, after)
    return total


def all_points(sets):
    return [(t, memory, points) for (t, memory), points in sets.sets.items()]


def exact_at(problem, sets, t, memory, belief, task):
    """W of a distinct task, found through one (root, task) that it stands for."""
    root, variant = np.argwhere(sets.place[0] == task)[0]
    return value(problem, t, memory, belief, int(root), int(variant))


@pytest.mark.parametrize(("seed", "moving"), [(0, False), (1, True), (2, False)])
def test_alpha_vectors_are_what_their_plans_earn(seed, moving):
    """At beliefs that no plan was made for, mass anything, for every task."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, rounds=3, moving=moving, dead=seed == 2, **SHAPE)
    sets, checked = improved(problem), 0
    for t, memory, points in all_points(sets):
        for slot, plan in enumerate(points.plan):
            belief = rng.dirichlet(np.full(4, 0.5)) * rng.uniform(0.1, 2)
            for task in range(sets.tasks):
                earned = executed(problem, sets, t, memory, plan, task, belief)
                assert abs(points.alpha[slot, task] @ belief - earned) <= 1e-13
                checked += 1
    assert checked > 40


@pytest.mark.parametrize(("seed", "moving"), [(0, True), (1, False), (2, True), (3, False)])
def test_bounds_hold_at_every_belief(seed, moving):
    """After one coarse pass and after all of them, visited or not, in every round and class."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, rounds=3, moving=moving, dead=bool(seed % 2), **SHAPE)
    apart = []
    for count, options in ((1, {"beliefs": 1}), (None, {})):
        sets = improved(problem, count=count, **options)
        for t, memory, points in all_points(sets):
            query = rng.dirichlet(np.full(4, 0.4), 6) * rng.uniform(0.1, 2, (6, 1))
            query = np.concatenate([query, points.belief[:6]])
            upper, (lower, _) = points.upper_at(query), points.lower_at(query)
            for n, belief in enumerate(query):
                for task in range(sets.tasks):
                    exact = exact_at(problem, sets, t, memory, belief, task)
                    assert lower[n, task] <= exact + 1e-12
                    assert exact <= upper[n, task] + 1e-12
                    apart.append(upper[n, task] - exact)
    assert min(apart) < 1e-9
    assert max(apart) > 1e-3


def test_interpolation_is_no_looser_than_told_omega_or_the_sawtooth():
    """And exact where the belief was visited, whatever multiple of it is asked."""
    gained = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, rounds=3, **SHAPE)
        told = told_parameter(problem.structure, problem.tables, problem.tasks)[1][0, 0]
        belief = rng.dirichlet(np.full(4, 2.0), NEAR)
        known = np.array([[value(problem, 1, 0, b, 0, q) for q in range(2)] for b in belief])
        least = np.full_like(told, -10.0)
        query = rng.dirichlet(np.full(4, 2.0), 20) * 0.3
        found = np.asarray(upper_between(query, belief, known, told, least))
        base, saving = query @ told.T, known - belief @ told.T
        share = (query[:, None] / belief).min(axis=2)
        sawtooth = (base[:, None] + share[:, :, None] * saving[None]).min(axis=1)
        assert (found <= np.minimum(base, sawtooth) + 1e-12).all()
        gained += (found < np.minimum(base, sawtooth) - 1e-4).sum()
        again = np.asarray(upper_between(0.7 * belief, belief, known, told, least))
        assert (again <= 0.7 * known + 1e-12).all()
    assert gained > 10


def test_what_a_bound_is_made_of_holds_of_smaller_bounds():
    """Weights found once bound W by whatever else bounds it at the same beliefs."""
    problem = random_problem(np.random.default_rng(3), rounds=3, **SHAPE)
    told = told_parameter(problem.structure, problem.tables, problem.tasks)[1][0, 0]
    rng, least = np.random.default_rng(1), np.full_like(told, -10.0)
    belief, query = rng.dirichlet(np.full(4, 2.0), NEAR), rng.dirichlet(np.full(4, 2.0), 20) * 0.3
    known, right = (
        np.array([[value(problem, 1, 0, b, 0, q) for q in range(2)] for b in beliefs])
        for beliefs in (belief, query)
    )
    loose = known + rng.uniform(0, 0.2, known.shape)
    made = weights_between(query, belief, loose, told, least)
    bound, near, weight, factor, rest = map(np.asarray, made)
    np.testing.assert_allclose(bound, upper_between(query, belief, loose, told, least))
    worth = [np.einsum("nk,nku->nu", weight, x[near]) for x in (loose, known)]
    before, after = (factor * x + rest for x in worth)
    assert (bound <= before + 1e-6).all()
    assert (right <= after + 1e-6).all()
    assert (after < before - 1e-3).any()


def test_a_rest_that_is_covered_too_much_is_paid_for():
    """Where outcomes can cost money, a belief may be worth more than one that exceeds it.

    Visited: (1, 1) / 2, worth 0, because the second parameter costs 1. Asked: (1, 0), worth 1.
    With `least` = 0 the bound there would fall short for weights that cover too much.
    """
    belief = np.zeros((NEAR, 2))
    belief[0] = 0.5
    known, told = np.zeros((NEAR, 1)), np.array([[1.0, 0.0]])
    query = np.array([[1.0, 0.0], [0.6, 0.4], [0.9, 0.1]])
    right = np.asarray(upper_between(query, belief, known, told, np.array([[-1.0, -1.0]])))[:, 0]
    assert (right >= np.maximum(query[:, 0] - query[:, 1], 0.0) - 1e-12).all()
    np.testing.assert_allclose(right[0], 1.0)


def test_setting_plans_aside_loses_nothing_at_visited_beliefs():
    rng = np.random.default_rng(3)
    problem = random_problem(rng, rounds=4, controls=4, symbols=3, **SHAPE)
    sets, fewer = improved(problem), 0
    for _, _, points in all_points(sets):
        for low, plan in zip(points.lower, points.best, strict=True):
            assert np.isin(plan, points.plan).all()
            assert (low > -np.inf).all()
        known = np.einsum("km,pum->pku", points.belief, points.alpha).max(axis=0, initial=-np.inf)
        np.testing.assert_allclose(known, points.lower, rtol=0, atol=1e-13)
        fewer += len(points.control) > len(points.plan)
    assert fewer > 2


def test_passes_never_loosen_a_bound_at_a_visited_belief():
    rng = np.random.default_rng(5)
    problem = random_problem(rng, rounds=5, controls=5, symbols=3, **SHAPE)
    sets = PointSets(problem.structure, problem.tables, [problem.tasks])
    starts = root_beliefs(sets, [problem.tasks])
    before, moved = {}, 0
    for _ in range(6):
        solver = PointBased(seconds=1e-9, beliefs=4)
        improve_points(sets, starts, solver, 0.0, [], time.monotonic())
        for t, memory, points in all_points(sets):
            upper, lower = points.upper.copy(), points.lower.copy()
            if (t, memory) in before:
                high, low = before[t, memory]
                assert (upper[: len(high)] <= high + 1e-15).all()
                assert (lower[: len(low)] >= low - 1e-15).all()
                moved += (upper[: len(high)] < high - 1e-6).any()
            before[t, memory] = upper, lower
    assert moved > 3


@pytest.mark.parametrize("seed", range(4))
def test_bounds_meet_at_the_value(seed):
    rng = np.random.default_rng(seed)
    moving, dead = seed % 3 == 0, bool(seed % 2)
    problem = random_problem(rng, rounds=3 + seed % 2, moving=moving, dead=dead, **SHAPE)
    found = solved(problem)
    assert found.status in (Status.WITHIN_TOLERANCE, Status.EXACT)
    np.testing.assert_allclose(found.answers[0].value, values(problem), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.upper[0], values(problem), rtol=0, atol=1e-12)
    assert found.tree.nodes <= build_tree(problem.structure).nodes


@pytest.mark.parametrize("count", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_bounds_are_never_optimistic_on_thousands_of_problems(count):
    rng = np.random.default_rng(count)
    loose = 0
    for k in range(count):
        problem = random_problem(rng, rounds=3, classes=2, **SHAPE)
        options = {"beliefs": 1, "seconds": 1e-9} if k % 2 else {}
        found = solved(problem, tolerance=(0.0, 0.1, 0.5)[k % 3], **options)
        exact, low, high = values(problem), found.answers[0].value, found.upper[0]
        assert (low <= exact + 1e-12).all()
        assert (exact <= high + 1e-12).all()
        if not k % 2:
            mass = problem.tasks.root.sum(axis=1, keepdims=True)
            assert ((high - low) / mass).max() <= (0.0, 0.1, 0.5)[k % 3] + 1e-12
        loose += (high - low).max() > 1e-6
    assert loose > count / 20


def test_an_interruption_returns_the_bounds_reached(monkeypatch):
    problem = random_problem(np.random.default_rng(8), rounds=5, controls=5, symbols=3, **SHAPE)
    real, calls = passes._improve, []

    def improve(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(passes, "_improve", improve)
    found = solved(problem, beliefs=2)
    assert found.status is Status.INTERRUPTED
    assert (found.answers[0].value <= found.upper[0]).all()


def test_where_nothing_is_worth_it_what_is_left_is_rounding_of_what_could_be():
    """W = 0, its upper bound up to 4e-22: what a taste of chance 1e-5 could bring, rounded."""
    rng = np.random.default_rng(37)
    problem = random_problem(rng, rounds=2, roots=1, variants=2, points=3)
    problem.tasks.coefficient[...] = -3.0 * (problem.tasks.counted > 0)
    problem.tables.reward[:, 0] += 6.0
    problem.tasks.root[0, 0] = 1e-5
    found = solved(problem).solution(TaskList([problem.tasks]))
    assert found.value[0] == 0 < found.rounding[0] < 1e-19
    assert (found.upper - found.lower <= found.rounding).all()


def test_a_pass_goes_as_far_as_it_has_time_to_come_back(monkeypatch):
    """One that had taken four fifths of its time to come back did so again, long past the end."""
    shares, backed = [], iter((0.2, 0.9, 0.3))
    monkeypatch.setattr(
        passes, "_after_a_share", lambda *given: shares.append(given[3]) or (lambda: False)
    )
    improve, clock = passes._improve, [0.0]

    def made(*given):
        clock[0] += 1.0
        return *improve(*given)[:2], next(backed, 0.5)

    monkeypatch.setattr(passes, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(passes, "_improve", made)
    improved(random_problem(np.random.default_rng(0), **SHAPE))
    assert shares[:3] == [0.5, 0.2, 0.5][: len(shares)]
    assert len(shares) > 1
