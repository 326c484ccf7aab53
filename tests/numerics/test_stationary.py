"""Cutting off an unbounded horizon, on abstract problems: closed forms and brute force."""

import itertools

import equinox as eqx
import numpy as np
import pytest

from solvers import Exact, Structure, Tables, Tasks
from solvers.tree.closed import close_beliefs
from solvers.tree.exact import solve_exact
from solvers.tree.tree import build_tree
from solvers.truncation import endless_cycle, truncate, truncation_gaps, unroll
from tests.helpers.problems import random_problem, value, values


def stationary(rng, going=1.0, **options):
    """A random problem whose one round stands for all; columns are scaled by `going`."""
    problem = random_problem(rng, rounds=2, classes=3, points=3, **options)
    edge, successor = problem.structure.edge[1], rng.integers(0, 3, (3, 3)).astype(np.int32)
    structure = eqx.tree_at(
        lambda s: (s.edge, s.successor), problem.structure, ((edge,), (successor,))
    )
    tables = eqx.tree_at(lambda t: t.column, problem.tables, problem.tables.column * going)
    return structure, tables, problem.tasks


def solved(structure, tables, tasks, rounds):
    tree = build_tree(unroll(structure, rounds))
    return tree, solve_exact(tree, tables, [tasks], Exact())[0]


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_error_bounds_what_more_rounds_change(seed, moving):
    """Values of five more rounds, then of many: within `over` above, `under` below."""
    structure, tables, tasks = stationary(
        np.random.default_rng(seed), going=0.6, moving=moving, variants=2
    )
    for tolerance in (0.5, 0.05):
        cut = truncate(structure, tables, [tasks], tolerance=tolerance)
        assert cut.error <= tolerance
        short = solved(structure, tables, tasks, cut.rounds)[1].value
        long = solved(structure, tables, tasks, cut.rounds + 4)[1].value
        tail = tolerance / 10 * tasks.root.sum(axis=1)[:, None]
        assert (long - short <= cut.over[0] + 1e-12).all()
        assert (long - short >= -cut.under[0] - tail).all()
        fewer = truncate(structure, tables, [tasks], tolerance=tolerance, most=cut.rounds - 1)
        assert cut.rounds == 1 or fewer.error > tolerance


def test_the_bound_is_attained_where_the_worst_policy_is_the_best():
    """One control, going on with .8 or .5 by omega, yielding 1 with what is left.

    Over k rounds 1 - .8^k and 1 - .5^k, so that .8^k and .5^k are what stopping loses.
    """
    zero, again = np.zeros((1, 1), np.int32), np.array([0.8, 0.5, 0.0])
    structure = Structure((zero,), (zero,), zero, zero, 1, 1, 1)
    tables = Tables((1 - again)[None, None], again[None], np.zeros((1, 3)))
    ones = np.ones((3, 1, 1))
    tasks = Tasks(np.eye(3), ones, ones, ones > 0, 1)
    for rounds in (1, 3, 20):
        cut = truncate(structure, tables, [tasks], tolerance=0.8**rounds * (1 + 1e-9))
        assert cut.rounds == rounds
        np.testing.assert_allclose(cut.over[0][:, 0], again**rounds, rtol=1e-5)
        np.testing.assert_array_equal(cut.under[0], 0.0)
        tree, _ = solved(structure, tables, tasks, rounds)
        gaps = truncation_gaps(tree, structure, tables, [tasks], cut)[0]
        for t, gap in enumerate(gaps):
            left = np.where(again**t > 0, again ** (rounds - t), 0.0)
            np.testing.assert_allclose(gap[0, :, 0], left, rtol=1e-5)


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_gaps_hold_at_every_node(seed, closes):
    """What more rounds add at nodes of the tree, found by recursion.

    Columns that rule parameters out, or that say nothing, give finitely many beliefs.
    """
    rng = np.random.default_rng(seed)
    structure, tables, tasks = stationary(rng, going=0.3, roots=2, variants=1)
    if closes:
        column = 0.08 * (rng.random(tables.column.shape) > 0.3)
        tables = eqx.tree_at(lambda t: t.column, tables, column)
    cut = truncate(structure, tables, [tasks], tolerance=0.3, least=2, most=3)
    assert (cut.closed is not None) == closes
    tree, answer = solved(structure, tables, tasks, cut.rounds)
    gaps = truncation_gaps(tree, structure, tables, [tasks], cut)[0]
    more = Problem(unroll(structure, 4), tables, tasks)
    column = np.concatenate([tables.column, np.ones((1, 3))])
    rows = [np.ones((1, 3))]
    for layer in tree.layers[1:]:
        rows.append(rows[-1][layer.parent] * column[layer.column])
    for t, layer in enumerate(tree.layers):
        for node in range(min(layer.nodes, 3)):
            memory, row = int(layer.memory[node]), rows[t][layer.likelihood[node]]
            for r, q in itertools.product(range(2), range(1)):
                belief = row * tasks.root[r]
                if not belief.sum() > 0:
                    assert gaps[t][node, r, q] == 0
                    continue
                left = cut.rounds - t
                short = value(
                    Problem(unroll(structure, left), tables, tasks), 0, memory, belief, r, q
                )
                long = value(more, 0, memory, belief, r, q)
                assert long - short <= gaps[t][node, r, q] * belief.sum() + 1e-12
    start = (cut.over[0] + cut.under[0]) / tasks.root.sum(axis=1)[:, None]
    np.testing.assert_allclose(gaps[0][0], start[:, : tasks.keep], atol=1e-12)
    np.testing.assert_allclose(
        answer.value, values(Problem(unroll(structure, cut.rounds), tables, tasks)), atol=1e-12
    )


class Problem:
    """What the recursion of the helpers reads."""

    def __init__(self, structure, tables, tasks):
        self.structure, self.tables, self.tasks = structure, tables, tasks


def test_a_joint_bound_holds_where_tables_would_be_too_large(monkeypatch):
    structure, tables, tasks = stationary(np.random.default_rng(3))
    each = truncate(structure, tables, [tasks], tolerance=0.0, most=4)
    monkeypatch.setattr("solvers.truncation._BYTES", 1.0)
    joint = truncate(structure, tables, [tasks], tolerance=0.0, most=4)
    assert (joint.over[0] >= each.over[0] - 1e-12).all()
    assert (joint.under[0] >= each.under[0] - 1e-12).all()


def test_finitely_many_beliefs_are_found():
    structure, tables, tasks = stationary(np.random.default_rng(0))
    sets = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]]) * np.array([[0.3], [0.1], [0.7]])
    count = len(tables.column)
    column = sets[np.arange(count) % 3]
    closed = close_beliefs(structure, eqx.tree_at(lambda t: t.column, tables, column), [tasks])
    assert closed is not None
    assert len(closed.rows) == 4  # everything, either pair, the middle alone
    for row, after, scale in zip(closed.rows, closed.after, closed.scale, strict=True):
        np.testing.assert_allclose(closed.rows[after] * scale[:, None], row * column, atol=1e-15)
    assert close_beliefs(structure, tables, [tasks]) is None


def graph(*edges, classes=2, controls=2, points=2):
    """Going on with .5 everywhere, save the (memory, control, to, point) listed: surely."""
    successor = np.zeros((classes, controls), np.int64)
    going = np.full((classes, controls, points), 0.5)
    for memory, control, to, point in edges:
        successor[memory, control] = to
        going[memory, control, point] = 1.0
    return successor, going


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([], None),
        ([(0, 1, 0, 1)], ([(0, 1)], 1)),
        ([(0, 0, 1, 1), (1, 1, 0, 1)], ([(0, 0), (1, 1)], 1)),
        ([(0, 0, 1, 0), (1, 1, 0, 1)], None),  # sure at one omega, but never all the way
        ([(1, 0, 1, 0)], None),  # never reached
        ([(0, 0, 1, 1), (1, 0, 1, 1)], ([(1, 0)], 1)),
    ],
)
def test_cycles_that_never_end_are_found(edges, expected):
    assert endless_cycle(*graph(*edges), np.ones(2, bool)) == expected


def test_only_what_can_occur_and_be_reached_counts():
    successor, going = graph((0, 1, 0, 1))
    assert endless_cycle(successor, going, np.array([True, False])) is None
    successor, going = graph((0, 1, 1, 0), (1, 0, 1, 1), (1, 1, 1, 1))
    going[0, :, 1] = 0.0
    assert endless_cycle(successor, going, np.ones(2, bool)) is None


def test_hopeless_cases_are_given_up_early():
    structure, tables, tasks = stationary(np.random.default_rng(0))
    column = np.full_like(tables.column, 0.4999)
    edges = np.zeros_like(tables.stop)
    slow = eqx.tree_at(lambda t: (t.column, t.stop), tables, (column, edges + 0.0001))
    cut = truncate(structure, slow, [tasks], tolerance=1e-9, most=10_000)
    assert cut.error > 1e-9
    assert cut.rounds < 2_000
