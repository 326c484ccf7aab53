"""Beliefs merged within delta: bounds hold W whatever is merged, and trees get smaller."""

import numpy as np
import pytest

from solvers import BranchAndBound, Exact
from solvers.search.branch_and_bound import solve_branch_and_bound
from solvers.tree.exact import solve_exact
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem, value

DELTAS = (0.05, 0.3, 1.0, 2.0)


def solved(problem, delta, tolerance=0.0):
    return solve_branch_and_bound(
        problem.structure, problem.tables, [problem.tasks], BranchAndBound(merge_within=delta),
        tolerance=tolerance,
    )  # fmt: skip


def learning(rng, **options):
    """A problem whose columns and stops are a law: they sum to at most one."""
    problem = random_problem(rng, shared=False, **options)
    total = problem.tables.stop.sum(axis=1).max() + problem.structure.symbols * 0.4
    problem.tables.stop[:] /= total
    problem.tables.column[:] /= total
    return problem


def check(seeds, **options):
    loose = merged = 0
    for seed in seeds:
        problem = learning(np.random.default_rng(seed), **options)
        tree = build_tree(problem.structure)
        exact = solve_exact(tree, problem.tables, [problem.tasks], Exact())[0].value
        delta = DELTAS[seed % len(DELTAS)]
        found = solved(problem, delta, tolerance=(0.0, 0.02)[seed % 2])
        low, high = found.answers[0].value, found.upper[0]
        assert (low <= exact + 1e-12).all(), seed
        assert (exact <= high + 1e-12).all(), seed
        loose += (high - low).max() > 1e-9
        merged += found.status.name == "STALLED"
        if problem.tasks.kernel is None:
            assert_nodes(problem, found)
    return loose, merged


def assert_nodes(problem, found):
    """The gap at every node covers what the policy kept lacks there."""
    tree, tasks = found.tree, problem.tasks
    rows = [np.ones((1, problem.tables.column.shape[1]))]
    for layer in tree.layers[1:]:
        rows.append(rows[-1][layer.parent] * problem.tables.column[layer.column])
    rng = np.random.default_rng(0)
    for t in range(1, len(tree.layers)):
        layer = tree.layers[t]
        for node in rng.integers(0, layer.nodes, 2):
            r, q = 0, 0
            belief = rows[t][layer.likelihood[node]] * tasks.root[r]
            if belief.sum() > 0:
                best = value(problem, t, layer.memory[node], belief, r, q)
                lost = best - payoff(problem, found, t, node, belief, r, q)
                assert lost <= found.gap[0][t][node, r, q] * belief.sum() + 1e-12


def payoff(problem, found, t, node, belief, r, q):
    """What the policy kept earns from a node on, under a belief."""
    s, numbers, tasks = problem.structure, problem.tables, problem.tasks
    layer = found.tree.layers[t]
    control = int(found.answers[0].actions[t][node, r, q])
    edge = s.edge[t][layer.memory[node], control]
    total = 0.0
    for slot, j in enumerate(s.outcome[edge]):
        if j >= 0:
            weight = belief * numbers.stop[edge, slot]
            total += weight.sum() * tasks.coefficient[r, q, j]
            total += (weight * numbers.reward[j]).sum() * tasks.counted[r, q, j]
    if t < s.horizon - 1:
        for z, column in enumerate(s.columns[edge]):
            after = belief * numbers.column[column]
            child = layer.child[node, control, z]
            total += payoff(problem, found, t + 1, child, after, r, q)
    return total


def test_bounds_hold_the_value_whatever_is_merged():
    loose, merged = check(range(8), rounds=4, controls=3, roots=1, variants=3)
    assert loose > 1
    assert merged > 0


def test_bounds_hold_the_value_with_several_roots_and_moving_coefficients():
    check(range(2), rounds=3, roots=3, variants=2)
    check(range(2), rounds=3, roots=1, moving=True, variants=2)


@pytest.mark.slow
def test_bounds_hold_the_value_whatever_is_merged_thousands():
    loose, _ = check(range(100, 2100), rounds=4, controls=3, roots=1, variants=3)
    assert loose > 400
    check(range(100), rounds=3, roots=3, variants=2)
    check(range(100), rounds=3, roots=1, moving=True, variants=2)


def test_merging_searches_fewer_nodes():
    problem = learning(np.random.default_rng(1), rounds=5, controls=3, roots=1, variants=1)
    nodes = [solved(problem, delta).history[-2][0] for delta in (1e-12, 0.2, 2.0)]
    assert nodes[0] > nodes[1] > nodes[2]
    gaps = [solved(problem, delta).history[-1][2] for delta in (1e-12, 0.2, 2.0)]
    assert gaps[0] < 1e-9
