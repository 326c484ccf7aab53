"""Chances of going on very close to one: sums for ever, against the same in rational numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest

from solvers import BestFirst, Limits, Listed, PointBased, Status, Structure, Tables, Tasks
from solvers import Problem as Posed
from solvers.problem import TaskList
from solvers.search.forever import going_on, one_for_ever, round_yields, told_for_ever
from solvers.tree.lattice import relations

CLOSE = [0.9, 0.999, 0.99999, 0.9999999]


def problem(seed, going, recall=True, certain=False, losses=False, controls=4, points=2):
    """Whoever goes on does so by the same chance, or not at all: beliefs are finitely many.

    **Arguments:** `recall`: whether all that was shown is remembered; `certain`: whether some end
    for certain after some controls; `losses`: whether terms are of both signs.
    """
    rng = np.random.default_rng(seed)
    products = controls - 1
    classes = 2**products if recall else 1
    memory = np.arange(classes)[:, None]
    shown = np.append(1 << np.arange(products), 0)
    after = np.where(recall, memory | shown, 0).astype(np.int32)
    edge = np.arange(classes * controls, dtype=np.int32).reshape(classes, controls)
    live = np.ones((3, points), bool)
    live[1:, 1:] = (rng.random((2, points - 1)) < 0.5) | (not certain)
    column = going * live
    columns = rng.integers(0, 3, (edge.size, 1)).astype(np.int32)
    outcome = np.broadcast_to(np.arange(products, dtype=np.int32), (edge.size, products))
    law = rng.dirichlet(np.ones(controls), (edge.size, points))[..., :products]
    stop = law.swapaxes(1, 2) * (1 - column[columns[:, 0]])[:, None]
    digits, offset = relations(column)
    sizes = controls, products, len(column)
    structure = Structure((edge,), (after,), columns, outcome, *sizes, -1, digits, offset)
    reward = rng.normal(size=(products, points)) if losses else np.zeros((products, points))
    shape = 1, 2, products
    coefficient = rng.normal(size=shape) if losses else rng.uniform(0.5, 1.5, shape)
    allowed = np.ones((1, 2, controls), bool)
    allowed[0, 1, 0] = False
    root = rng.dirichlet(np.ones(points), 1)
    tasks = Tasks(root, coefficient, np.ones(shape), allowed, 2)
    return structure, Tables(stop, column, reward), tasks


def rational(numbers):
    return np.vectorize(Fraction, otypes=[object])(np.asarray(numbers, float))


def best(structure, tables, task, root):
    """W in rational numbers: policy iteration over the beliefs that there are."""
    n = structure.outcomes
    worth = rational(task.weights[:n])[:, None] + rational(task.weights[n:])[:, None] * rational(
        tables.reward
    )
    yields = (rational(tables.stop) * worth[structure.outcome]).sum(axis=1)
    column, edge, after = rational(tables.column), structure.edge[0], structure.successor[0]
    places: dict[tuple, int] = {}
    nodes: list[tuple] = []

    def place(memory, belief):
        mass = sum(belief)
        key = (memory, *(x / mass for x in belief)) if mass else None
        if key is not None and key not in places:
            places[key] = len(nodes)
            nodes.append(key)
        return mass, places.get(key, -1)

    mass, _ = place(0, rational(root))
    ways = []
    for memory, *belief in nodes:  # grows while it is read
        ways.append([])
        for a in np.flatnonzero(task.allowed):
            one, now = np.array(belief, object), edge[memory, a]
            follows = place(int(after[memory, a]), one * column[structure.columns[now, 0]])
            ways[-1].append((one @ yields[now], *follows))
    rule, value = [0] * len(nodes), [Fraction(0)] * len(nodes)

    def then(way):
        return way[0] + (way[1] * value[way[2]] if way[2] >= 0 else 0)

    while True:
        known: set[int] = set()
        for start in range(len(nodes)):
            path, here = [], start
            while here >= 0 and here not in known and here not in path:
                path.append(here)
                here = ways[here][rule[here]][2]
            if here in path:  # round and round
                total, chance = Fraction(0), Fraction(1)
                for k in path[path.index(here) :]:
                    total, chance = (
                        total + chance * ways[k][rule[k]][0],
                        chance * ways[k][rule[k]][1],
                    )
                value[here] = total / (1 - chance)
                known.add(here)
            for k in reversed([k for k in path if k not in known]):
                value[k] = then(ways[k][rule[k]])
            known.update(path)
        options = [[then(way) for way in each] for each in ways]
        better = [k for k, each in enumerate(options) if max(each) > value[k]]
        if not better:
            return mass * value[0]
        for k in better:
            rule[k] = options[k].index(max(options[k]))


@pytest.mark.parametrize("going", CLOSE)
@pytest.mark.parametrize("kind", ["recall", "certain", "losses", "certain, one class"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_bounds_hold_and_only_rounding_separates_them(kind, going, seed):
    """The memory was said to hold no more, or 200,000 rounds were written out."""
    options = {"certain": "certain" in kind, "losses": kind == "losses"}
    parts = problem(seed, going, recall="one class" not in kind, **options)
    structure, tables, tasks = parts
    every, listed = TaskList([tasks]), Listed(structure, tables, depth=2, lasting=True)
    posed = Posed(lambda: None, lambda limit: listed, math.inf, structure.controls)
    true = [best(structure, tables, task, tasks.root[0]) for task in every]
    for solver in (BestFirst(1e8), PointBased(1e8)):
        found = solver.solve(posed, every, Limits(), False)
        assert found.status is Status.EXACT, found.note
        assert found.table.tree.layers[-1].nodes < 100
        for k, right in enumerate(true):
            assert Fraction(float(found.lower[k])) <= right <= Fraction(float(found.upper[k]))
            assert found.upper[k] - found.value[k] <= found.rounding[k]


@pytest.mark.parametrize("going", CLOSE)
@pytest.mark.parametrize("seed", range(6))
def test_whoever_is_told_gets_no_more_than_the_bound(going, seed):
    """Policy iteration did not end where sums are off by more than what is called better."""
    structure, tables, tasks = problem(seed, going, certain=True, losses=seed % 2 == 1)
    chance = going_on(structure, tables)
    every = TaskList([tasks])
    for task in every:
        n = structure.outcomes
        yields = round_yields(structure, tables, task.weights[:n], task.weights[n:])
        kept = one_for_ever(structure, yields, chance)
        told = told_for_ever(structure, yields, chance, kept, task.allowed)[0]
        for point, bound in enumerate(told.tolist()):
            right = best(structure, tables, task, np.eye(len(told))[point])
            room = 1e-15 / (1 - going) * max(abs(bound), 1.0)
            assert float(right) - room <= bound <= float(right) + 4 * room
