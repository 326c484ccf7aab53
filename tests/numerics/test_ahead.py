"""The last round that is not listed, against the tree that lists it and against brute force."""

import dataclasses
import itertools

import numpy as np
import pytest

import dynmech as dm
from solvers import Exact, Limits, Listed, Problem, Status
from solvers.problem import TaskList
from solvers.tree.backward import sweep
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem, values
from tests.numerics.test_backward import EPS


def mixed(tasks):
    """Tasks that differ from the first in one control, in none, in some, and in all."""
    coefficient, counted, allowed = (
        np.array(x) for x in (tasks.coefficient, tasks.counted, tasks.allowed)
    )
    coefficient[:, 1:3], counted[:, 1:3] = coefficient[:, :1], counted[:, :1]
    allowed[:, :4] = True
    allowed[:, 1, 0] = False
    return dataclasses.replace(tasks, coefficient=coefficient, counted=counted, allowed=allowed)


def positive(problem):
    """The same without a term below zero."""
    tables = dataclasses.replace(problem.tables, reward=abs(problem.tables.reward))
    tasks = dataclasses.replace(problem.tasks, coefficient=abs(problem.tasks.coefficient))
    return dataclasses.replace(problem, tables=tables, tasks=tasks)


def solve(problem, solver):
    listed = Listed(problem.structure, problem.tables)
    rounds, controls = problem.structure.horizon, problem.structure.controls
    posed = Problem(lambda: None, lambda limit: listed, rounds, controls)
    return solver.solve(posed, TaskList([problem.tasks]), Limits(), False)


@pytest.mark.parametrize("sign", [lambda x: x, positive], ids=["signed", "positive"])
def test_rounds_that_are_listed_are_those_of_the_whole_tree(sign):
    """W of every history, errors and controls; the plan attains W in the last round too."""
    problem = random_problem(np.random.default_rng(3), controls=4, points=6, roots=2, dead=True)
    problem = sign(dataclasses.replace(problem, tasks=mixed(problem.tasks)))
    structure, numbers = problem.structure, (problem.tables, problem.tasks)
    free = problem.tasks.allowed.all(axis=2)  # others are not told apart where they never come
    whole = list(sweep(build_tree(structure), *numbers, block=64))[1:]
    short = list(sweep(build_tree(structure, rounds=2), *numbers, block=64))
    for one, other in zip(short, whole, strict=True):
        np.testing.assert_allclose(one.best[:, free], other.best[:, free], rtol=0, atol=EPS)
        np.testing.assert_array_equal(one.action[:, free], other.action[:, free])
        assert (one.error >= other.error * (1 - 1e-9))[:, free].all()
        np.testing.assert_allclose(one.error[:, free], other.error[:, free], rtol=1.0, atol=EPS)
    found, expected = solve(problem, Exact(listed=False)), values(problem).ravel()
    assert found.status is Status.EXACT
    assert not found.table.complete
    assert ((found.lower <= expected + EPS) & (expected <= found.upper + EPS)).all()
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=EPS)


@pytest.mark.slow
def test_a_tree_that_does_not_fit_is_listed_but_for_its_last_round():
    """Without being asked; with everything listed it is refused."""
    rng = np.random.default_rng(0)
    problem = random_problem(rng, rounds=4, controls=18, symbols=6, points=2, roots=1, shared=False)
    found, small = solve(problem, Exact(memory=6.5e7)), Exact(memory=6.5e7, listed=True)
    assert "the last round is not listed" in found.note
    assert found.nodes == build_tree(problem.structure, rounds=3).nodes
    with pytest.raises(MemoryError, match="round 4 is reached in"):
        solve(problem, small)
    np.testing.assert_allclose(found.value, solve(problem, Exact()).value, rtol=0, atol=EPS)


def test_a_market_of_perfect_recall_is_played_and_paid_as_if_all_were_listed():
    query = dm.FallingQuery(level=1.2, location=0.5, slope=0.5, low=0.05, high=0.9, nothing=0.6)
    rng = np.random.default_rng(0)
    env = dm.RecommendationMDP(
        rng.normal(size=(3, 2)),
        dm.TasteGrid(rng.normal(size=(4, 2)), np.full(4, 0.25)),
        3,
        dm.PerfectRecall(dm.Logit(0.4), query),
        dm.SignalStructure(feedback=dm.RatingFeedback(1.0, 2)),
        dm.ConstantValues(rng.uniform(0.3, 1.5, size=(3, 2))),
    )
    short, whole = (
        dm.solve_efficient_policy(env, dm.Exact(listed=x), progress=False) for x in (False, True)
    )
    for name in ("value", "upper", "lower", "marginal_value", "displayable_marginal_value"):
        found, true = getattr(short, name), getattr(whole, name)
        np.testing.assert_allclose(found, true, rtol=0, atol=EPS, err_msg=name)
    np.testing.assert_allclose(short.purchase, whole.purchase, rtol=0, atol=EPS)
    for heard in itertools.product(range(2), repeat=2):
        for theta in ([0, 0, 0], [1, 0, 1]):
            one, other = (x.start(theta, [0, 0, 0, 0]) for x in (short, whole))
            for symbol in heard:
                assert one.recommendation == other.recommendation
                one, other = (x.step("query", [symbol, 0, 0, 0]) for x in (one, other))
            assert one.recommendation == other.recommendation
    one, other = (dm.DynamicTeamMechanism(x, dm.groves.Participation()) for x in (short, whole))
    np.testing.assert_allclose(one.groves_total, other.groves_total, rtol=0, atol=1e-12)
    one, other = one.audit(), other.audit()
    assert one.verdicts == other.verdicts
    np.testing.assert_allclose(one.participation, other.participation, rtol=0, atol=1e-12)
