"""Point-based solving without a last round: against recursions cut late, and sums for ever."""

import dataclasses
import time

import equinox as eqx
import jax
import numpy as np
import pytest

from solvers import Limits, Listed, PointBased, Status, Structure, Tables, Tasks, Unsuited
from solvers import Problem as Posed
from solvers.points.endless import Graph
from solvers.points.passes import improve_points
from solvers.points.points import PointSets
from solvers.points.settled import settle_upper
from solvers.points.starts import root_beliefs
from solvers.problem import TaskList
from solvers.solution import Node
from solvers.tree.lattice import relations
from tests.numerics.test_stationary import stationary


def solve(structure, tables, tasks, solver, limits):
    every, listed = TaskList([tasks]), Listed(structure, tables)
    posed = Posed(lambda: None, lambda limit: listed, np.inf, structure.controls)
    return solver.solve(posed, every, limits, False), every


def improved(structure, tables, tasks, tolerance=1e-6, passes=None):
    """Bounds after so many passes, or after all."""
    with jax.enable_x64(True):
        sets = PointSets(structure, tables, [tasks], endless=True)
        starts, solver = root_beliefs(sets, [tasks]), PointBased(beliefs=16)
        if passes is None:
            improve_points(sets, starts, solver, tolerance, [], time.monotonic())
        for _ in range(passes or 0):
            hurried = PointBased(beliefs=16, seconds=1e-9)
            improve_points(sets, starts, hurried, tolerance, [], time.monotonic())
    return sets


def with_relations(structure, tables):
    """Columns in proportion to products of others, one of which says nothing."""
    column = np.array([[6, 4, 2], [2, 4, 6], [4, 4, 4], [5, 5, 5], [3, 2, 1]]) / 40
    column = column[: len(tables.column)]
    digits, offset = relations(column)
    structure = dataclasses.replace(structure, digits=digits, offset=offset, dead=-1)
    return structure, eqx.tree_at(lambda t: t.column, tables, column)


def after_rounds(sets, belief, memory, rounds):
    """W of so many rounds, of every task at beliefs (N, m), by recursion over all histories."""
    if not rounds:
        return 0.0
    structure, best = sets.structure, -np.inf
    allowed = np.asarray(sets.flat.allowed)[0].T
    for control, now in enumerate(sets.now(0, memory)):
        total, heir = belief @ now.T, structure.successor[0][memory, control]
        for column in structure.columns[structure.edge[0][memory, control]]:
            after = belief * np.asarray(sets.tables.column)[column]
            total = total + after_rounds(sets, after, int(heir), rounds - 1)
        best = np.maximum(best, np.where(allowed[control], total, -np.inf))
    return best


@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_at_every_belief(seed, still):
    """Visited or not, in every class, after one coarse pass and many; six rounds find the rest.

    What is left after k rounds is at most g^k times what a round yields, over 1 - g.
    """
    rng = np.random.default_rng(seed)
    structure, tables, tasks = stationary(rng, going=0.3, roots=2, variants=2, dead=seed == 2)
    if still:  # columns that say nothing, as each is: beliefs come back to themselves
        same = np.arange(len(tables.column)) % 2 > 0
        column = np.where(same[:, None], 0.1, tables.column)
        tables = eqx.tree_at(lambda t: t.column, tables, column)
    rounds, apart = 6, []
    going = np.asarray(tables.column)[structure.columns].sum(axis=1).max()
    for passes in (1, None):
        sets = improved(structure, tables, tasks, passes=passes)
        worst = max(abs(sets.now(0, c)).max() for c in range(3))
        tail = worst * going**rounds / (1 - going)
        for (_, memory), points in sets.sets.items():
            query = rng.dirichlet(np.full(3, 0.5), 3) * rng.uniform(0.1, 2, (3, 1))
            query = np.concatenate([query, points.belief[:2]])
            with jax.enable_x64(True):
                upper, (lower, _) = points.upper_at(query), points.lower_at(query)
            right = after_rounds(sets, query, memory, rounds)
            room = tail * query.sum(axis=1, keepdims=True) + 1e-12
            assert (lower <= right + room).all()
            assert (right <= upper + room).all()
            apart += (upper - lower).ravel().tolist()
    assert min(apart) < 1e-9
    assert max(apart) > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_settled_bounds_hold(seed):
    """They fall, to no less than what six rounds find."""
    rng = np.random.default_rng(seed)
    structure, tables, tasks = stationary(rng, going=0.3, roots=2, variants=2, dead=seed == 2)
    sets, rounds, moved = improved(structure, tables, tasks, passes=2), 6, []
    with jax.enable_x64(True):
        sets.at(0, 0).visit(rng.dirichlet(np.full(3, 0.5), 20))
    for _ in range(4):
        before = [one.upper.copy() for one in sets.sets.values()]
        with jax.enable_x64(True):
            settle_upper(sets, np.ones(sets.tasks, bool), 1e-9, 1e8, lambda: None, lambda: False)
        after = [one.upper for one in sets.sets.values()]
        moved.append(np.concatenate([(x - y).ravel() for x, y in zip(before, after, strict=True)]))
    assert min(x.min() for x in moved) >= -1e-15  # lower bounds are rounded too
    assert max(x.max() for x in moved) > 1e-6
    for (_, memory), points in sets.sets.items():
        right = after_rounds(sets, points.belief, memory, rounds)
        going = np.asarray(tables.column)[structure.columns].sum(axis=1).max()
        tail = abs(sets.now(0, memory)).max() * going**rounds / (1 - going)
        assert (right <= points.upper + tail + 1e-12).all()
        assert (points.lower <= points.upper).all()


def attained(plan, structure, tables, task, root, rounds):
    """What a plan yields by the histories that it leads to, those alike taken together."""
    edge, successor = structure.edge[0], structure.successor[0]
    layer, total = {((), 0): root}, 0.0
    yields = plan.economy_of(task).yields
    for period in range(rounds):
        after = {}
        for (history, memory), belief in layer.items():
            node = Node(task, period, np.zeros(1, int), belief, history)
            control = plan.act(node)
            total += belief @ yields[edge[memory, control]]
            for z, column in enumerate(structure.columns[edge[memory, control]]):
                key = (*history, (control, z)), int(successor[memory, control])
                after[key] = belief * np.asarray(tables.column)[column]
        layer = after
    return total


@pytest.mark.parametrize("related", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_plans_attain_what_is_said(seed, related):
    """Followed history by history, and written out; off it, one control is kept."""
    rng = np.random.default_rng(seed)
    structure, tables, tasks = stationary(rng, going=0.5, roots=2, variants=1)
    if related:
        structure, tables = with_relations(structure, tables)
    limits = Limits(1e-4)
    found, every = solve(structure, tables, tasks, PointBased(), limits)
    assert isinstance(found.plan, Graph)
    assert found.status.met
    assert (found.upper - found.value <= 1e-4 * every.mass).all()
    for q, task in enumerate(every):
        rounds = 9
        short = attained(found.plan, structure, tables, q, task.root, rounds)
        going = np.asarray(tables.column)[structure.columns].sum(axis=1).max()
        worst = abs(found.plan.economy_of(q).yields).max()
        tail = worst * going**rounds / (1 - going) * task.root.sum()
        assert abs(short - found.lower[q]) <= tail + 1e-12
        root = task.root * np.asarray(tables.column)[structure.columns[0, 0]]
        wrong = int(np.flatnonzero(task.allowed)[0])
        node = Node(q, 1, np.zeros(1, int), root, ((wrong, 0),))
        assert task.allowed[found.plan.act(node)]
        assert found.plan.act(node) == found.plan.act(node)


@pytest.mark.parametrize("going", [0.9, 0.999])
def test_the_chance_of_going_on_does_not_matter(going):
    """A user rates what is shown, and goes on with one chance: all tasks to 1e-2."""
    rng = np.random.default_rng(0)
    products, points, symbols = 3, 4, 2
    law = rng.dirichlet(np.full(symbols, 0.3), (products + 1, points))
    column = going * np.moveaxis(law, -1, 1).reshape(-1, points)
    edge = np.arange(products + 1, dtype=np.int32)[None]
    columns = np.arange(len(column), dtype=np.int32).reshape(-1, symbols)
    outcome = np.where(edge[0] < products, edge[0], -1)[:, None].astype(np.int32)
    structure = Structure((edge,), (0 * edge,), columns, outcome, products + 1, products,
                          len(column), -1)  # fmt: skip
    stop = np.full((products + 1, 1, points), 1 - going)
    tables = Tables(stop, column, rng.uniform(0, 1, (products, points)))
    allowed = np.ones((1, products + 1, products + 1), bool)
    allowed[0, np.arange(1, products + 1), np.arange(products)] = False
    ones = np.ones((1, products + 1, products))
    tasks = Tasks(np.full((1, points), 1 / points), 0 * ones, ones, allowed, 1)
    solver = PointBased(memory=1e7, beliefs=32)
    found, _ = solve(structure, tables, tasks, solver, Limits(relative=1e-2))
    assert (found.upper - found.lower <= 1e-2 * found.upper).all()
    if going > 0.9:  # rounds that bring little are many
        assert found.status == Status.MEMORY_LIMIT


def test_where_nothing_is_learned_one_belief_is_enough():
    going = 0.999
    edge = np.array([[0, 1]], np.int32)
    outcome, column = np.array([[0], [1]], np.int32), np.full((1, 3), going)
    structure = Structure((edge,), (0 * edge,), np.zeros((2, 1), np.int32), outcome, 2, 2, 1, -1)
    omega = np.array([-0.2, 0.3, 1.0])
    tables = Tables(np.full((2, 1, 3), 1 - going), column, np.stack([1 + omega, np.full(3, 1.2)]))
    root, ones = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]]), np.ones((2, 1, 2))
    tasks = Tasks(root, 0 * ones, ones, ones > 0, 1)
    found, _ = solve(structure, tables, tasks, PointBased(), Limits(1e-2))
    assert found.nodes == 2
    right = (root @ tables.reward.T).max(axis=1)
    np.testing.assert_allclose(found.lower, right, rtol=1e-9)
    np.testing.assert_allclose(found.upper, right, rtol=1e-9)


def test_seconds_bound_the_search_and_the_writing():
    structure, tables, tasks = stationary(np.random.default_rng(0), going=0.6, roots=1, variants=1)
    limits = Limits(1e-9)
    found, _ = solve(structure, tables, tasks, PointBased(seconds=1e-6), limits)
    assert found.status == Status.TIME_LIMIT
    assert len(found.table.answers[0].actions) == 1
    assert (found.value <= found.upper).all()
    with pytest.raises(Unsuited, match="everywhere"):
        solve(structure, tables, tasks, PointBased(everywhere=True), limits)
