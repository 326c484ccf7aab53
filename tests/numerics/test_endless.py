"""Best-first search without a horizon: against brute force, closed forms and a page of NumPy."""

import dataclasses

import equinox as eqx
import numpy as np
import pytest

from experiments.benchmarks.churn import draw, every_economy
from solvers import Limits, Status, Structure, Tables, Tasks
from solvers.problem import TaskList
from solvers.search.endless import search_endless
from solvers.search.endless_plan import EndlessPlan
from solvers.search.forever import round_yields
from solvers.solution import Node
from solvers.told.rounded import endless_sums
from solvers.tree.lattice import relations
from solvers.truncation import truncate
from tests.helpers.problems import random_problem
from tests.numerics.test_stationary import solved


def churn(like, prior):
    """The problem of a user who leaves at the first dislike: W, then W without each product."""
    n, m = like.shape
    edge = np.arange(n + 1, dtype=np.int32)
    outcome = np.where(edge < n, edge, -1)[:, None]
    nothing = np.zeros((1, m))
    none = (0 * edge[None],)
    structure = Structure((edge[None],), none, edge[:, None], outcome, n + 1, n, n + 1, n)
    reward = like / (1 - like)
    stop, column = (np.concatenate([x, nothing]) for x in (1 - like, like))
    tables = Tables(stop[:, None], column, reward)
    allowed = np.ones((1, n + 1, n + 1), bool)
    allowed[0, np.arange(1, n + 1), np.arange(n)] = False
    ones = np.ones((1, n + 1, n))
    return structure, tables, Tasks(prior[None], 0 * ones, ones, allowed, 1)


def stationary(rng, going, **options):
    """A random problem whose one round stands for all, with lawful chances."""
    problem = random_problem(rng, rounds=2, classes=3, points=3, **options)
    edge, successor = problem.structure.edge[1], rng.integers(0, 3, (3, 3)).astype(np.int32)
    structure = dataclasses.replace(problem.structure, edge=(edge,), successor=(successor,))
    tables = eqx.tree_at(lambda t: t.column, problem.tables, problem.tables.column * going)
    return structure, tables, problem.tasks


def searched(structure, tables, groups, limits):
    return search_endless(
        structure, tables, groups, endless_sums(structure, tables, groups), limits
    )


def attained(structure, tables, tasks, solution):
    """What the plans yield, by how often each edge is used."""
    every, count = TaskList([tasks]), structure.outcomes
    assert isinstance(solution.plan, EndlessPlan)
    found = []
    for q, task in enumerate(every):
        yields = round_yields(structure, tables, task.weights[:count], task.weights[count:])
        found.append((solution.plan.frequencies(q) * yields).sum(axis=0) @ task.root)
    return np.array(found)


@pytest.mark.parametrize(("products", "types"), [(3, 5), (10, 5), (10, 10), (20, 20)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_economy_of_the_churn_benchmark(products, types, seed):
    like, prior = draw(seed, products, types)
    problem = churn(like, prior)
    right = every_economy(like, prior)
    found = searched(*problem[:2], [problem[2]], Limits(tolerance=1e-6))
    assert found.status == Status.WITHIN_TOLERANCE
    assert (found.lower <= right + 1e-6).all()
    assert (found.upper >= right - 1e-9).all()
    assert (found.upper - found.lower <= 1e-6).all()
    np.testing.assert_allclose(attained(*problem, found), found.lower, rtol=1e-12)


@pytest.mark.parametrize("related", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_what_many_rounds_find(seed, related):
    """Several memory classes and symbols; columns in proportion to products of others."""
    structure, tables, tasks = stationary(
        np.random.default_rng(seed), going=0.6, roots=2, dead=seed % 2 > 0
    )
    if related:
        column = np.array([[6, 4, 2], [2, 4, 6], [4, 4, 4], [5, 5, 5], [3, 2, 1]]) / 25
        column = column[: len(tables.column)]
        digits, offset = relations(column)
        structure = dataclasses.replace(structure, digits=digits, offset=offset, dead=-1)
        tables = eqx.tree_at(lambda t: t.column, tables, column)
    cut = truncate(structure, tables, [tasks], tolerance=0, most=10)
    many = solved(structure, tables, tasks, 10)[1].value
    below, above = (many - cut.under[0]).ravel(), (many + cut.over[0]).ravel()
    for tolerance in (1e-2, 1e-4):
        found = searched(structure, tables, [tasks], Limits(tolerance=tolerance))
        assert found.status.met
        assert (found.lower <= above + 1e-9).all()
        assert (found.upper >= below - 1e-9).all()
        mass = TaskList([tasks]).mass
        assert (found.upper - found.lower <= tolerance * mass).all()
        np.testing.assert_allclose(attained(structure, tables, tasks, found), found.lower)


@pytest.mark.parametrize("going", [0.9, 0.999])
def test_where_nothing_is_learned_the_answer_is_exact(going):
    """Two memory classes, and controls best taken in turn: a finite process, solved exactly.

    In class c control c ends with chance 1 - going and yields 1 + omega, the other with as much
    and .5; control a leads to class 1 - c if a = c, else back to c: W = (1 + E omega).
    """
    edge = np.array([[0, 1], [1, 0]], np.int32)
    successor = np.array([[1, 0], [0, 1]], np.int32)
    outcome = np.array([[0], [1]], np.int32)
    column = np.full((1, 3), going)
    digits, offset = np.zeros((1, 1), np.int64), np.log([going])
    structure = Structure((edge,), (successor,), np.zeros((2, 1), np.int32), outcome, 2, 2, 1,
                          -1, digits, offset)  # fmt: skip
    omega = np.array([-0.2, 0.3, 1.0])
    reward = np.stack([1 + omega, np.full(3, 0.5)])
    tables = Tables(np.full((2, 1, 3), 1 - going), column, reward)
    root = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    # At the second root omega = -.2 is likely: W is still the better of the two for ever.
    ones = np.ones((2, 1, 2))
    tasks = Tasks(root, 0 * ones, ones, ones > 0, 1)
    found = searched(structure, tables, [tasks], Limits())
    assert found.status == Status.EXACT
    np.testing.assert_allclose(found.lower, (root @ reward.T).max(axis=1), rtol=1e-9)
    np.testing.assert_allclose(attained(structure, tables, tasks, found), found.lower, rtol=1e-9)


def test_a_plan_answers_at_every_history():
    like, prior = draw(2, 5, 5)
    structure, tables, tasks = churn(like, prior)
    found = searched(structure, tables, [tasks], Limits(tolerance=1e-6))
    assert isinstance(found.plan, EndlessPlan)
    n, rng = len(like), np.random.default_rng(0)
    for task in range(n + 1):
        allowed = tasks.allowed[0, task]
        history, belief, value = (), prior, 0.0
        for period in range(400):
            node = Node(task, period, np.zeros(1, int), belief, history)
            control = found.plan.act(node)
            assert allowed[control]
            assert found.plan.act(node) == control
            value += belief @ (like[control] if control < n else 0 * prior)
            history += ((control, 0),)
            belief = belief * (like[control] if control < n else 0.0)
        assert abs(value - found.lower[task]) < 1e-6
        wrong, belief = (), prior
        for _ in range(30):
            control = int(rng.integers(n))
            wrong, belief = (*wrong, (control, 0)), belief * like[control]
            taken, loss = found.plan.at(task, wrong)
            assert allowed[taken]
            assert 0 <= loss <= belief @ (like / (1 - like)).max(axis=0) + 1e-12


def test_limits_end_the_search_with_bounds():
    like, prior = draw(1, 20, 20)
    structure, tables, tasks = churn(like, prior)
    right = every_economy(like, prior)[0]
    for limits, status in (
        (Limits(1e-6, memory=3e5), Status.MEMORY_LIMIT),
        (Limits(1e-6, seconds=1e-4), Status.TIME_LIMIT),
    ):
        found = searched(structure, tables, [tasks], limits)
        assert found.status == status
        assert found.lower[0] <= right + 1e-6
        assert found.upper[0] >= right - 1e-9
        np.testing.assert_allclose(attained(structure, tables, tasks, found), found.lower)
    loose = searched(structure, tables, [tasks], Limits(0.0, relative=0.05))
    assert (loose.upper - loose.lower <= 0.05 * loose.upper).all()
