"""The kit that tries solvers: it passes those here, and finds what is wrong with others."""

import dataclasses

import equinox as eqx
import numpy as np
import pytest

import solvers
from solvers.listing import one_task, pose

KINDS = [
    solvers.Exact(),
    solvers.BestFirst(),
    solvers.BranchAndBound(),
    solvers.PointBased(),
]


@pytest.mark.parametrize("solver", KINDS, ids=lambda solver: type(solver).__name__)
def test_solvers_here_pass(solver):
    limits = solvers.Limits(tolerance=0.05)
    assert len(solvers.testing.check(solver, problems=2, limits=limits)) == 2


def test_a_learner_passes():
    certificate = solvers.Certificate(60, 30, rounds=1)
    quick = solvers.Neural(sweeps=1, runs=4, steps=2, batch=4, certificate=certificate)
    (found,) = solvers.testing.check(quick, problems=1)
    assert found.confidence == 0.95
    assert found.note == "1 sweeps, the best after 0"


class Spoiled(solvers.AbstractSolver):
    """The exact answer with one thing made wrong."""

    how: str = eqx.field(static=True)

    def solve(self, problem, tasks, limits, progress):
        found = solvers.Exact().solve(problem, tasks, limits, progress)
        lower, upper = np.array(found.lower), np.array(found.upper)
        if self.how == "optimistic":
            return dataclasses.replace(found, lower=lower + 0.1, upper=upper + 0.1)
        if self.how == "pessimistic":
            return dataclasses.replace(found, lower=lower - 0.1, upper=upper - 0.1)
        if self.how == "plan":
            return dataclasses.replace(found, plan=Idle())
        return dataclasses.replace(found, value=np.asarray(found.value) - 0.1)


class Idle(solvers.AbstractPlan):
    def act(self, node):
        return 2


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("optimistic", "lower bound"),
        ("pessimistic", "upper bound"),
        ("plan", "the plan attains"),
        ("value", "`value` is"),
    ],
)
def test_what_is_wrong_is_found(how, words):
    with pytest.raises(AssertionError, match=words):
        solvers.testing.check(Spoiled(how), problems=1)


def test_a_listed_process_is_the_process():
    process = solvers.testing.random_process(np.random.default_rng(5), rounds=4, symbols=3)
    problem, tasks = pose(process), one_task(process, np.array([0.2, 0.5, 0.3]))
    found = solvers.Exact().solve(problem, tasks, solvers.Limits(), False)
    np.testing.assert_allclose(found.lower[0], solvers.testing.best_value(problem, tasks[0]))
