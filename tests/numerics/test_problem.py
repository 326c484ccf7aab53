"""A problem and its tasks as a solver of one's own meets them: the numbers are those of lists."""

import numpy as np
import pytest

import dynmech as dm
from dynmech.problem.process import market_process
from solvers import Problem, TaskList
from tests.helpers.problems import random_problem


@pytest.mark.parametrize("moving", [False, True])
def test_tasks_come_in_the_order_of_their_groups(moving):
    rng = np.random.default_rng(0)
    groups = [random_problem(rng, moving=moving, roots=r).tasks for r in (1, 3)]
    tasks = TaskList(groups)
    assert len(tasks) == len(list(tasks)) == sum(part.counted[..., 0].size for part in groups)
    flat = np.arange(float(len(tasks)))
    assert [part.shape for part in tasks.split(flat)] == [g.coefficient.shape[:2] for g in groups]
    for number, task in enumerate(tasks):
        group = int(number >= tasks.starts[1])
        root, at = divmod(number - tasks.starts[group], groups[group].coefficient.shape[1])
        n = groups[group].coefficient.shape[2]
        np.testing.assert_array_equal(task.weights[:n], groups[group].coefficient[root, at])
        np.testing.assert_array_equal(task.weights[n:], groups[group].counted[root, at])
        np.testing.assert_array_equal(task.root, groups[group].root[root])
        np.testing.assert_allclose(task.law.sum(axis=1), 1)
        assert tasks.mass[number] == task.root.sum()
        assert number in task.following
        assert len(task.following) == (2 if moving else 1)
    assert len(tasks[1:3]) == 2


def test_a_problem_gives_rewards_and_likelihoods_by_memory_and_control():
    """One round by hand: W is the best control's sum of belief, weights and rewards."""
    env = dm.RecommendationMDP(
        np.array([[1.0, -0.5], [-0.4, 0.9]]),
        dm.TasteGrid(np.eye(2), np.array([0.5, 0.5])),
        1,
        dm.PerfectRecall(dm.Logit(0.5), query=0.7),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2)),
        dm.ConstantValues([0.5, 0.6]),
    )

    def refuse(limit):
        raise MemoryError

    problem = Problem(lambda: market_process(env), refuse, 1, 3)
    assert (problem.horizon, problem.controls, problem.points) == (1, 3, 2)
    memory, belief = problem.start(), np.array([0.5, 0.5])
    weights = np.array([0.5, 0.6, 1.0, 1.0])
    best = max(belief @ (weights @ problem.reward(memory, control)) for control in range(3))
    policy = dm.solve_efficient_policy(env, progress=False)
    np.testing.assert_allclose(policy.value.item(), best, rtol=1e-12)
    going = [problem.likelihood(memory, control).sum(axis=0) for control in range(3)]
    np.testing.assert_allclose(going, 0.7)
    assert (problem.step(memory, 1) != memory).any()
