"""A last round that stands for all that follow: its laws, and plans written out up to it."""

import dataclasses

import numpy as np
import pytest

from solvers import BestFirst, Limits, Listed, PointBased
from solvers import Problem as Posed
from solvers.problem import TaskList
from solvers.search.lasting import Closed, settling
from solvers.solution import Node
from tests.numerics.test_stationary import stationary


def remembered(seed, going=0.6):
    """Classes that remember the control taken last; tasks of two roots."""
    rng = np.random.default_rng(seed)
    structure, tables, tasks = stationary(rng, going=going, roots=2, variants=2)
    classes, controls = structure.edge[0].shape
    after = np.broadcast_to(np.arange(controls) % classes, (classes, controls)).astype(np.int32)
    return dataclasses.replace(structure, successor=(after,)), tables, tasks


def test_after_how_many_rounds_classes_settle():
    assert settling(np.zeros((1, 3), int)) == 0
    assert settling(np.array([[1, 2], [1, 2], [1, 2]])) == 1
    assert settling(np.array([[1, 1], [2, 2], [2, 2]])) == 2
    assert settling(np.array([[1], [0]])) is None


@pytest.mark.parametrize("seed", range(3))
def test_laws_are_those_of_a_control_that_is_kept(seed):
    structure, tables, tasks = remembered(seed)
    closed = Closed(Listed(structure, tables, lasting=True), TaskList([tasks]))
    classes, controls = structure.edge[0].shape
    written, last = closed.last(3, np.arange(classes))
    assert written.horizon == 3
    column = np.asarray(tables.column)
    for c in range(classes):
        for a in range(controls):
            found = np.zeros((structure.outcomes, column.shape[1]))
            here, chance = c, np.ones(column.shape[1])
            for _ in range(2000):
                edge = structure.edge[0][here, a]
                for slot, outcome in enumerate(structure.outcome[edge]):
                    if outcome >= 0:
                        found[outcome] += chance * np.asarray(tables.stop)[edge, slot]
                chance = chance * column[structure.columns[edge]].sum(axis=0)
                here = int(structure.successor[0][here, a])
            edge = written.edge[-1][c, a]
            told = np.zeros_like(found)
            for slot, outcome in enumerate(written.outcome[edge]):
                if outcome >= 0:
                    told[outcome] += last.tables.stop[edge, slot]
            np.testing.assert_allclose(told, found, atol=1e-13)
            assert (written.columns[edge] == -1).all()
            assert last.edge[edge - len(structure.columns)] == structure.edge[0][c, a]


def attained(table, structure, tables, task, index, rounds):
    """What a table yields by the histories that it leads to, then by its last round."""
    column, total = np.asarray(tables.column), 0.0
    layer = {((), 0): task.root}
    weights = np.split(task.weights, 2)
    worth = weights[0][:, None] + weights[1][:, None] * np.asarray(tables.reward)
    written, stop = table.tree.structure, np.asarray(table.last.tables.stop)
    for period in range(rounds):
        after = {}
        for (history, memory), belief in layer.items():
            control = table.act(Node(index, period, np.zeros(1, int), belief, history))
            assert task.allowed[control]
            edge = written.edge[period][memory, control]
            for slot, outcome in enumerate(written.outcome[edge]):
                if outcome >= 0:
                    total += belief @ (stop[edge, slot] * worth[outcome])
            for z, place in enumerate(written.columns[edge]):
                if place >= 0:
                    key = (*history, (control, z)), int(structure.successor[0][memory, control])
                    after[key] = belief * column[place]
        layer = after
    assert not layer
    return total


@pytest.mark.parametrize("kind", [BestFirst, PointBased])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_out_attains_what_is_said_for_ever(seed, kind):
    """And no less than is proven but for the share of the tolerance that is left to it."""
    structure, tables, tasks = remembered(seed)
    listed, every = Listed(structure, tables, lasting=True), TaskList([tasks])
    posed = Posed(lambda: None, lambda limit: listed, np.inf, structure.controls)
    found = kind().solve(posed, every, Limits(1e-2), False)
    short = kind().solve(
        dataclasses.replace(posed, lists=lambda limit: dataclasses.replace(listed, lasting=False)),
        every, Limits(1e-2), False,
    )  # fmt: skip
    np.testing.assert_allclose(found.lower, short.lower, atol=1e-12)
    np.testing.assert_allclose(found.upper, short.upper, atol=1e-12)
    table = found.table
    assert table.last is not None
    assert short.table.last is None
    rounds = len(table.tree.layers)
    assert rounds <= 1 + len(short.table.tree.layers)
    assert (found.lower - found.value <= 0.5e-2 * every.mass).all()
    for q in np.flatnonzero(every.kept).tolist():
        right = attained(table, structure, tables, every[q], q, rounds)
        assert found.value[q] == pytest.approx(min(right, found.upper[q]), abs=1e-12)
