"""Rounds where the tasks of a root differ in one control, against any round's step."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from solvers.tree.backward import sweep
from solvers.tree.shared import one_control, yields_apart
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem, values
from tests.numerics.test_backward import EPS, HOSTS


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("carry", [True, False])
def test_tasks_that_differ_in_one_control_compare_the_others_once(
    carry: bool, sign: float, idle: bool, monkeypatch: pytest.MonkeyPatch
):
    """Values, controls taken and errors are those of any tasks; ties are among them."""
    rng, size = np.random.default_rng(7), 4
    problem = random_problem(rng, controls=size, slots=size, classes=2, roots=size, points=6)
    structure, tables = problem.structure, problem.tables
    mine = np.arange(len(structure.outcome)) % size  # the outcome of an edge, and its control
    edge = tuple(e - e % size + np.arange(size, dtype=np.int32) for e in structure.edge)
    outcome = np.where(structure.outcome == mine[:, None], structure.outcome, -1)
    structure = dataclasses.replace(structure, edge=edge, outcome=outcome)
    stop = np.where(outcome[:, :, None] >= 0, tables.stop, 0.0)
    stop[1::size, :, :] = 0.0
    stop[1::size, 0], outcome[1::size] = stop[::size].sum(axis=1), [1, -1, -1, -1]  # as control 0
    if idle:  # the last control yields nothing
        stop[size - 1 :: size], outcome[size - 1 :: size] = 0.0, -1
    reward = sign * abs(tables.reward)
    reward[1] = reward[0]
    tables = dataclasses.replace(tables, stop=stop, reward=reward)
    given = problem.tasks
    roots, own = np.arange(size), np.arange(size) % (size - idle)
    parts = [np.repeat(x[:, :1], 5, axis=1) for x in (given.coefficient, given.counted)]
    parts[0][..., 1] = parts[0][..., 0] = 0.5
    parts[1][..., :2] = 1.0
    allowed = np.repeat(given.allowed[:, :1], 5, axis=1)
    for part, varied in zip(
        (*parts, allowed), (given.coefficient, given.counted, given.allowed), strict=True
    ):
        part[roots, 1:, own] = varied[roots, 1:, own]
    allowed[..., -1] = True
    coefficient = abs(parts[0]) if sign > 0 else parts[0]
    tasks = dataclasses.replace(given, coefficient=coefficient, counted=parts[1], allowed=allowed)
    apart = one_control(structure, tasks, 2)
    assert apart is not None
    assert apart.control.tolist() == own.tolist()
    assert len(apart.others) == size - 1 - idle
    assert one_control(structure, given, 2) is None
    tree = build_tree(structure)
    calls, swept = [], []
    monkeypatch.setattr(
        "solvers.tree.bellman.yields_apart",
        lambda *given: (calls.append(1), yields_apart(*given))[1],
    )
    for host, least in itertools.product(HOSTS, (0, math.inf)):
        monkeypatch.setattr("solvers.tree.backward._CELLS", least)
        swept.append(list(sweep(tree, tables, tasks, block=64, host=host, carry=carry)))
    assert (len(calls) > 0) == (sign > 0 or not carry)  # in NumPy
    ties = 0
    for one, *others in zip(*swept, strict=True):
        for other in others:
            np.testing.assert_allclose(one.best, other.best, rtol=0, atol=EPS)
            np.testing.assert_allclose(one.value, other.value, rtol=0, atol=EPS)
            np.testing.assert_allclose(one.amount, other.amount, rtol=0, atol=EPS)
            np.testing.assert_array_equal(one.action, other.action)
            assert one.ill == other.ill
        ties += int((np.asarray(one.action)[:, 1:] == 0).sum())
    assert ties  # controls 0 and 1 are alike
    expected = values(dataclasses.replace(problem, structure=structure, tables=tables, tasks=tasks))
    np.testing.assert_allclose(swept[0][-1].best[0], expected, rtol=0, atol=EPS)
