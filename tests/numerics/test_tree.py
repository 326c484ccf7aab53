"""The merged tree: what is merged, what is kept apart, how many nodes there are."""

import dataclasses
import math
from itertools import product

import equinox as eqx
import numpy as np
import pytest

from experiments.benchmarks.instances import HIDDEN_TASTE_VALUE, hidden_taste, scale
from solvers import Exact, Structure
from solvers.tree import planned
from solvers.tree.backward import likelihood_rows
from solvers.tree.shapes import blocks
from solvers.tree.tree import bound_nodes, build_tree
from tests.helpers.problems import random_problem
from tests.helpers.quantities import solve


def one_class(controls, symbols, rounds):
    """One memory class; every control and symbol has a column of its own."""
    edge = np.arange(controls, dtype=np.int32)[None]
    columns = np.arange(controls * symbols, dtype=np.int32).reshape(controls, symbols)
    outcome = np.full((controls, 1), -1, np.int32)
    none = np.zeros_like(edge)
    return Structure(
        (edge,) * rounds, (none,) * rounds, columns, outcome, controls, 1, controls * symbols
    )


def extended(column):
    return np.concatenate([column, np.ones((1, column.shape[1]))])


@pytest.mark.parametrize(("controls", "symbols", "rounds"), [(2, 3, 5), (3, 1, 6), (1, 1, 4)])
def test_node_counts_are_those_of_multisets(controls, symbols, rounds):
    structure = one_class(controls, symbols, rounds)
    width = controls * symbols
    merged = [layer.nodes for layer in build_tree(structure).layers]
    apart = [layer.nodes for layer in build_tree(structure, merge=False).layers]
    assert merged == [math.comb(width + t - 1, t) for t in range(rounds)]
    assert apart == [width**t for t in range(rounds)]
    assert bound_nodes(structure) == merged
    assert bound_nodes(structure, merge=False) == apart


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("merge", [True, False])
def test_every_history_arrives_at_its_memory_and_likelihood(seed, merge):
    """Walk all histories by the structure alone, and by the tree's children."""
    problem = random_problem(np.random.default_rng(seed), rounds=4, dead=bool(seed % 2))
    structure, column = problem.structure, problem.tables.column
    tree = build_tree(structure, merge)
    rows = likelihood_rows(tree, extended(column), structure.horizon)
    walks = 0
    for moves in product(product(range(structure.controls), range(structure.symbols)), repeat=3):
        node, memory, seen = 0, 0, np.ones(column.shape[1])
        for t, (control, symbol) in enumerate(moves):
            edge = structure.edge[t][memory, control]
            seen = seen * column[structure.columns[edge, symbol]]
            memory = structure.successor[t][memory, control]
            node = tree.layers[t].child[node, control, symbol]
            layer = tree.layers[t + 1]
            assert layer.memory[node] == memory
            np.testing.assert_allclose(
                rows[t + 1][layer.likelihood[node]], seen, rtol=1e-14, atol=0
            )
        walks += 1
    assert walks == (structure.controls * structure.symbols) ** 3
    for layer, bound in zip(tree.layers, bound_nodes(structure, merge), strict=True):
        assert layer.nodes <= bound
        assert (np.diff(layer.memory) >= 0).all()
        assert layer.child.dtype == np.int32


def test_merging_needs_equal_multisets_and_equal_memory():
    """Two nodes are one only if both are equal: no two nodes of a round share both."""
    for seed in range(6):
        problem = random_problem(np.random.default_rng(seed), rounds=4, shared=bool(seed % 2))
        tree, structure = build_tree(problem.structure), problem.structure
        bags = {0: ()}
        for t, layer in enumerate(tree.layers[:-1]):
            following = {}
            for node in range(layer.nodes):
                edges = structure.edge[t][layer.memory[node]]
                for control, symbol in np.ndindex(*layer.child.shape[1:]):
                    bag = tuple(
                        sorted((*bags[node], int(structure.columns[edges[control], symbol])))
                    )
                    child = int(layer.child[node, control, symbol])
                    assert following.setdefault(child, bag) == bag
            bags, after = following, tree.layers[t + 1]
            states = {(bags[node], int(after.memory[node])) for node in range(after.nodes)}
            assert len(states) == after.nodes == len(bags)


def test_histories_after_the_impossible_are_one():
    problem = random_problem(np.random.default_rng(0), rounds=4, dead=True)
    tree = build_tree(problem.structure)
    assert (
        tree.nodes
        < build_tree(eqx.tree_at(lambda s: s.edge, undead(problem), problem.structure.edge)).nodes
    )
    rows = likelihood_rows(tree, extended(problem.tables.column), 4)
    for layer, row in zip(tree.layers[1:], rows[1:]):
        nothing = ~row.any(axis=1)
        through_dead = (layer.column == 0) & nothing
        assert through_dead.sum() <= 1 + (nothing.sum() - 1)
        impossible = np.flatnonzero(~row[layer.likelihood].any(axis=1))
        assert len(set(layer.memory[impossible])) <= len(impossible)


def undead(problem):
    s = problem.structure
    return Structure(
        s.edge, s.successor, s.columns, s.outcome, s.controls, s.outcomes, s.column_count, -1
    )


def test_long_keys_count_the_same():
    """With so many columns that a multiset fills more than 62 bits."""
    small = one_class(2, 2, 7)
    large = Structure(
        small.edge, small.successor, small.columns, small.outcome, 2, 1, column_count=100_000
    )
    column = extended(np.random.default_rng(0).uniform(size=(100_000, 1)))
    few, many = build_tree(small), build_tree(large)
    assert [layer.nodes for layer in few.layers] == [layer.nodes for layer in many.layers]
    for a, b in zip(*(likelihood_rows(tree, column, 7) for tree in (few, many)), strict=True):
        np.testing.assert_allclose(np.sort(a[:, 0]), np.sort(b[:, 0]), rtol=1e-12)


@pytest.mark.parametrize("dead", [False, True])
def test_beliefs_are_told_apart_by_ranks_as_by_sums(dead, monkeypatch):
    """One tree, but for the order of its nodes, where some controls alone are followed too."""
    for seed, choose in product(range(4), (None, lambda t, layer, words: some(t, layer))):
        problem = random_problem(
            np.random.default_rng(seed), rounds=5, controls=2, symbols=3, classes=2, dead=dead
        )
        one = build_tree(problem.structure, choose=choose)
        with monkeypatch.context() as patch:
            patch.setattr("solvers.tree.numbering._WIDE", 0)
            other = build_tree(problem.structure, choose=choose)
        same = np.zeros(1, int)
        for here, there in zip(one.layers, other.layers, strict=True):
            np.testing.assert_array_equal(here.memory, there.memory[same])
            pair = np.stack([here.child, there.child[same]], axis=-1).reshape(-1, 2)
            assert ((pair < 0) == (pair[:, :1] < 0)).all()
            pair = np.unique(pair[pair[:, 0] >= 0], axis=0)
            if len(pair):
                np.testing.assert_array_equal(pair[:, 0], np.arange(len(pair)))
                np.testing.assert_array_equal(np.sort(pair[:, 1]), np.arange(len(pair)))
            same = pair[:, 1]


def some(t, layer):
    """Controls to follow that depend on what belief and memory are alone."""
    follow = np.zeros((layer.nodes, 2), bool)
    follow[:, 1], follow[:, 0] = True, layer.memory == 0
    return follow


@pytest.mark.parametrize("merge", [True, False])
def test_a_limit_is_kept(merge):
    structure = one_class(3, 2, 6)
    counts = [layer.nodes for layer in build_tree(structure, merge).layers]
    assert build_tree(structure, merge, limit=counts[-1]).nodes == sum(counts)
    with pytest.raises(MemoryError, match=f"round 6 has {counts[-1]} nodes"):
        build_tree(structure, merge, limit=counts[-1] - 1)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("largest", [1, 3, 8, 50, 100, 10**6])
def test_blocks_cover_every_node_once_and_one_memory_each(largest, exact):
    problem = random_problem(np.random.default_rng(3), rounds=5, shared=False, controls=2)
    for layer in build_tree(problem.structure).layers:
        seen = []
        for first, count, nodes in blocks(layer, largest, exact=exact):
            assert 1 <= count <= len(nodes) <= max(largest, 1)
            assert (layer.memory[nodes] == layer.memory[first]).all()
            np.testing.assert_array_equal(nodes[:count], np.arange(first, first + count))
            seen += nodes[:count].tolist()
        assert seen == list(range(layer.nodes))


def test_instance_h_has_the_nodes_of_the_performance_page():
    """142,506 multisets over all rounds, and one node a round after recommending none.

    Its readings have one statistic, a multiple of 1/4, whatever was shown: beliefs in proportion
    are numbered by how often each product was shown and the sum of the readings.
    """
    policy = solve(hidden_taste(50, 6))
    structure = policy.plan.tree.structure
    apart = dataclasses.replace(structure, digits=None, offset=None)
    multisets = [math.comb(24 + t, t) for t in range(6)]
    assert sum(multisets) == math.comb(30, 5) == 142_506
    counts = [layer.nodes for layer in build_tree(apart).layers]
    assert counts == [1, *(x + 1 for x in multisets[1:])]
    counts = [layer.nodes for layer in policy.plan.tree.layers]
    assert counts == [1, *(math.comb(t + 4, 4) * (4 * t + 1) + 1 for t in range(1, 6))]
    np.testing.assert_allclose(policy.value.item(), HIDDEN_TASTE_VALUE[50, 6], rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("m", "T"),
    [(200, 6), (50, 8), (200, 8)],
)
def test_instance_h_has_the_values_of_the_performance_page(m, T):
    value = solve(hidden_taste(m, T)).value.item()
    np.testing.assert_allclose(value, HIDDEN_TASTE_VALUE[m, T], rtol=0, atol=5e-7)


def best_from_here(env, seen, shown, belief, rounds):
    """Instance S by recursion: every product not yet shown, or none."""
    u, theta, best = env.utilities, env.values.support[:, 0], 0.0
    cuts = env.signals.feedback.cut_points
    from scipy.stats import norm

    for r in (*(j for j in range(len(u)) if j not in seen), None):
        known = [*seen, *([] if r is None else [r])]
        again = np.full(u.shape[1], 0.6)
        total, after = 0.0, np.ones((1, u.shape[1]))
        if known:
            top = u[known].max(0)
            again = np.clip(1.2 / (1 + np.exp(top)), 0.02, 0.95)
            bought = np.array(known)[u[known].argmax(0)]
            worth = np.where(top >= 0, theta[bought] + top, 0.0)
            total = (belief * (1 - again) * worth).sum()
        if r is not None:
            edges = np.array([-np.inf, *cuts[r], np.inf])
            after = np.diff(norm.cdf(edges[:, None] - u[r]), axis=0)
        if rounds > 1:
            for law in after:
                total += best_from_here(env, known, r, belief * again * law, rounds - 1)
        best = max(best, total)
    return best


@pytest.mark.parametrize(("n", "m", "T"), [(3, 12, 3), (4, 7, 2), (2, 5, 3)])
def test_instance_s_against_recursion(n, m, T):
    env = scale(n, m, T)
    expected = best_from_here(env, [], None, np.full(m, 1 / m), T)
    np.testing.assert_allclose(solve(env).value.item(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        env.signals.feedback.cut_points, np.quantile(env.utilities, [0.2, 0.4, 0.6, 0.8], axis=1).T,
        rtol=0, atol=1e-12,
    )  # fmt: skip


def test_hundreds_of_rounds_are_foreseen_a_few_times(monkeypatch):
    """An estimate goes through all rounds: made at each of them, that is their number squared."""
    looked, estimate = [], planned.estimate

    def counted(*given, **more):
        looked.append(len(given[4]))
        return estimate(*given, **more)

    monkeypatch.setattr(planned, "estimate", counted)
    problem = random_problem(np.random.default_rng(0), 600, classes=1, controls=1, symbols=1)
    given = problem.structure, problem.tables, [problem.tasks]
    work, tree = planned.plan_tree(*given, Exact(seconds=1e6))
    assert [layer.nodes for layer in tree.layers] == [1] * 600
    assert work.nodes == 600
    assert looked[-1] == 600
    assert len(looked) < 150
    with pytest.raises(TimeoutError, match=r"0\.5 s allowed"):
        planned.plan_tree(*given, Exact(seconds=0.5))
