"""A last round that stands for all that follow: its laws, and plans written out up to it."""

import dataclasses
import functools
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from solvers import BestFirst, Limits, Listed, PointBased, Status
from solvers import Problem as Posed
from solvers.problem import TaskList
from solvers.search import unrolled
from solvers.search.lasting import Closed, settling
from solvers.search.rounds import to_write
from solvers.search.summed import Plans
from solvers.search.ways import Ways
from solvers.solution import Node
from tests.numerics.test_endless_points import solve
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


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("solver", [BestFirst(), PointBased()], ids=lambda x: type(x).__name__)
def test_an_interrupt_ends_what_is_written_out(solver, monkeypatch):
    """It was heard of when all was written, that is never."""
    onward, begun = unrolled._Writer._next, []

    def following(self, *given):
        begun.append(given)
        if len(begun) == 2:
            signal.raise_signal(signal.SIGINT)
        return onward(self, *given)

    parts = remembered(0, 0.9)
    whole = solve(*parts, solver, Limits(1e-6))[0]
    monkeypatch.setattr(unrolled._Writer, "_next", following)
    found = solve(*parts, solver, Limits(1e-6))[0]
    assert found.status is Status.INTERRUPTED
    assert len(begun) == 2
    assert len(found.table.answers[0].actions) == 3
    assert len(whole.table.answers[0].actions) > 3
    np.testing.assert_array_equal(found.upper, whole.upper)


def test_a_search_that_ended_late_leaves_time_to_write():
    """Of a plan written out for a round alone little was attained."""
    now = time.monotonic()
    assert not to_write(None, now - 100.0, 50.0)(1.0)
    assert to_write(None, now - 100.0, 50.0)(6.0)
    assert not to_write(None, now - 100.0, 1000.0)(800.0)
    assert to_write(None, now - 100.0, 1000.0)(950.0)
    assert to_write(None, now, 0.0)(0.0)
    assert not to_write(None, now, None)(1e9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("each", [(0.01, 0.001), (0.001, 0.01)], ids=["numbering", "finding"])
def test_writing_ends_while_there_is_time_for_what_is_written(seed, each, monkeypatch):
    """By a clock that every entry takes so much of; half as much again was overrun."""
    structure, tables, tasks = stationary(np.random.default_rng(seed), going=0.99, roots=2)
    every, listed, clock, spent = TaskList([tasks]), Listed(structure, tables), [0.0], [0.0]
    found = solve(structure, tables, tasks, BestFirst(), Limits(1e-2))[0]
    numbers, onward = Plans.numbers, unrolled._Writer._next
    numbering, finding = each

    def numbered(self, rounds, entries):
        clock[0] += numbering * sum(len(one.node) for one in entries)
        return numbers(self, rounds, entries)

    def following(self, *given):
        after = onward(self, *given)
        spent[0] += finding * len(after[2].node)
        clock[0] += finding * len(after[2].node)
        return after

    monkeypatch.setattr(unrolled, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(Plans, "numbers", numbered)
    monkeypatch.setattr(unrolled._Writer, "_next", following)
    for seconds in (20.0, 100.0):
        clock[0] = spent[0] = 0.0
        given = found.lower, found.upper, 0.0 * found.upper, 4e9, listed
        late = functools.partial(lambda most, ahead: clock[0] + ahead > most, seconds)
        table = unrolled.write_rounds(found.plan, every, *given, late)
        assert len(table.tree.layers) > 2
        assert 0.75 * seconds <= clock[0] + spent[0] <= seconds


def test_costs_that_are_still_to_come_are_missed_like_what_is_still_to_come(monkeypatch):
    """A value above W, as its costs were cut off, was taken for one that is exact."""
    structure, tables, tasks = stationary(np.random.default_rng(0), going=0.9)
    reward = -np.abs(np.asarray(tables.reward)) - 1.0
    coefficient = np.zeros_like(tasks.coefficient)
    worse = dataclasses.replace(tables, reward=reward)
    tasks = dataclasses.replace(tasks, coefficient=coefficient, counted=coefficient + 1.0)
    monkeypatch.setattr(unrolled, "_MOST_ROUNDS", 2)
    monkeypatch.setattr(unrolled, "_MOST_ALONE", 2)
    found = solve(structure, worse, tasks, BestFirst(), Limits(1e-6))[0]
    assert (found.table.value > found.upper + 1e-3).any()
    assert found.status is Status.MEMORY_LIMIT


def test_ways_that_never_lead_back_are_followed_one_after_the_other():
    """As fast as going through them, whatever is merged: their equations were filled in."""
    rng, count = np.random.default_rng(0), 8000
    source = np.repeat(np.arange(count - 1), 3)
    ahead = 1 + (rng.random(len(source)) * (count - 1 - source)).astype(int)
    factor, right = rng.uniform(0, 0.33, len(source)), rng.normal(size=count)
    name = rng.permutation(count)
    began = time.process_time()
    found = Ways(name[source], name[source + ahead], factor).solve(right[np.argsort(name)])
    took, began = time.process_time() - began, time.process_time()
    value = right.copy()
    for k in reversed(range(count - 1)):
        mine = slice(3 * k, 3 * k + 3)
        value[k] += factor[mine] @ value[(source + ahead)[mine]]
    np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12)
    assert took < 10 * (time.process_time() - began)
