"""The backward recursion against brute force: blocks, chunks, ties, roots of no mass, tracing."""

import dataclasses
import itertools
import logging
import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
import solvers.tree.exact as exact
from solvers import Exact, Structure, Tables, Tasks
from solvers.tree.backward import backward
from solvers.tree.exact import solve_exact
from solvers.tree.shapes import blocks
from solvers.tree.tree import build_tree
from tests.helpers.problems import options, random_problem, value, values
from tests.helpers.quantities import assert_same, quantities, solve
from tests.helpers.small import logit_market

HOSTS = 0.0, math.inf  # seconds that rounds may take in NumPy: none are, and all
EPS = 1e-13  # of sums of a few hundred products of numbers of order one

KINDS = {
    "constant": {},
    "moving": {"moving": True, "variants": 2},
    "with a dead column": {"dead": True, "rounds": 4, "symbols": 1},
    "nothing shared": {"shared": False},
    "one round": {"rounds": 1},
    "one slot": {"slots": 1, "controls": 4, "classes": 1},
}


def problem_of(name, seed=0):
    return random_problem(np.random.default_rng([seed, *name.encode()]), **KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_values_are_those_of_brute_force(name):
    problem = problem_of(name)
    expected = values(problem)
    for merge, host in itertools.product((True, False), HOSTS):
        tree = build_tree(problem.structure, merge)
        found, _ = backward(tree, problem.tables, problem.tasks, block=4096, host=host)
        np.testing.assert_allclose(found, expected, rtol=0, atol=EPS)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("block", [1, 5, 8, 60])
def test_block_sizes_do_not_change_anything(block):
    problem = random_problem(np.random.default_rng(4), rounds=4, shared=False)
    tree = build_tree(problem.structure)
    assert max(layer.nodes for layer in tree.layers) > 60
    ticks = []
    given = tree, problem.tables, problem.tasks
    found, actions = backward(*given, block=block, tick=ticks.append, host=0.0)
    expected, same = backward(tree, problem.tables, problem.tasks, block=10**6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=EPS)
    for a, b in zip(actions, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(ticks) == tree.nodes


@pytest.mark.parametrize(("block", "cached"), [(16, (1e9, 1e3)), (4096, (1.0, 1e9))])
def test_chunks_do_not_change_anything(block, cached, monkeypatch):
    """Blocks are worked on piece by piece, and only the pieces that count."""
    problem = random_problem(np.random.default_rng(6), rounds=4, classes=3)
    tree = build_tree(problem.structure)
    expected, same = backward(tree, problem.tables, problem.tasks, block=block)
    monkeypatch.setattr("solvers.tree.bellman._CACHED", cached)
    jax.clear_caches()  # the sizes are no argument of the compiled step
    given = tree, problem.tables, problem.tasks
    found, actions = backward(*given, block=block, host=0.0)
    np.testing.assert_allclose(backward(*given, block=block)[0], expected, rtol=0, atol=EPS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=EPS)
    for a, b in zip(actions, same, strict=True):
        np.testing.assert_array_equal(a, b)
    traced = jax.jit(lambda tables: backward(tree, tables, problem.tasks, block=block)[0])
    np.testing.assert_allclose(traced(problem.tables), expected, rtol=0, atol=EPS)
    jax.clear_caches()


def follow(problem, tree, actions, t, node, memory, belief, root, task):
    """What the kept policy is worth, and whether each control is the best there is."""
    s, tasks = problem.structure, problem.tasks
    control = int(actions[t][node, root, task])
    every = options(problem, t, memory, belief, root, task)
    if belief.sum() == 0:
        assert control == s.controls - 1
    else:
        assert every[control] >= every.max() - 1e-11
    if t == s.horizon - 1:
        return
    edge = s.edge[t][memory, control]
    for symbol, column in enumerate(s.columns[edge]):
        child = int(tree.layers[t].child[node, control, symbol])
        after = belief * problem.tables.column[column]
        heirs = [task] if tasks.kernel is None else [task - task % 2, task - task % 2 + 1]
        for heir in heirs:
            follow(
                problem, tree, actions, t + 1, child, s.successor[t][memory, control], after,
                root, heir,
            )  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("merge", [True, False])
def test_kept_policies_attain_the_values(name, merge):
    problem = problem_of(name, seed=1)
    tree = build_tree(problem.structure, merge)
    host = 0.0 if merge else math.inf
    _, actions = backward(tree, problem.tables, problem.tasks, block=64, host=host)
    roots, width = problem.tasks.coefficient.shape[:2]
    assert len(actions) == problem.structure.horizon
    for layer, taken in zip(tree.layers, actions, strict=True):
        assert taken.shape == (layer.nodes, roots, width)
    for root in range(roots):
        for task in range(width):
            belief = problem.tasks.root[root]
            follow(problem, tree, actions, 0, 0, 0, belief, root, task)


def test_only_the_policies_asked_for_are_kept():
    problem = problem_of("constant")
    tree = build_tree(problem.structure)
    _, every = backward(tree, problem.tables, problem.tasks, block=64)
    few = dataclasses.replace(problem.tasks, keep=2)
    _, kept = backward(tree, problem.tables, few, block=64)
    for a, b in zip(every, kept, strict=True):
        np.testing.assert_array_equal(a[:, :, :2], b)


def two_controls(difference, mass=1.0, controls=3):
    """One round; control k yields k * difference more than control 0, the last one nothing."""
    stop = np.full((controls, 1, 1), 0.5)
    stop[-1] = 0.0
    structure = Structure(
        (np.arange(controls, dtype=np.int32)[None],),
        (np.zeros((1, controls), np.int32),),
        np.full((controls, 1), -1, np.int32),
        np.zeros((controls, 1), np.int32),
        controls, 1, 0,
    )  # fmt: skip
    stop[:-1, 0, 0] *= 1.0 + 2.0 * difference * np.arange(controls - 1)
    tables = Tables(stop, np.zeros((0, 1)), np.zeros((1, 1)))
    one = np.ones((1, 1, 1))
    tasks = Tasks(np.full((1, 1), mass), one, one, np.ones((1, 1, controls), bool), 1)
    (one, same) = (
        (float(found[0, 0]), int(actions[0][0, 0, 0]))
        for found, actions in (
            backward(build_tree(structure), tables, tasks, block=8, host=host) for host in HOSTS
        )
    )
    assert one == same
    return one


@pytest.mark.parametrize("mass", [1.0, 1e-30])
@pytest.mark.parametrize("controls", [3, 5])
def test_ties_go_to_the_lowest_index(mass, controls):
    """Within what rounding can do to these very values: a belief of little mass has less."""
    assert two_controls(0.0, mass, controls) == (0.5 * mass, 0)
    # The last but one is better by (controls - 2) * difference.
    width = controls - 2
    worth, chosen = two_controls(1e-16 / width, mass, controls)
    assert chosen == 0
    assert worth >= 0.5 * mass
    worth, chosen = two_controls(1e-13 / width, mass, controls)
    assert 0 < chosen <= width
    assert worth > 0.5 * mass * (1 + 1e-13)
    worth, chosen = two_controls(1e-3, mass, controls)
    assert chosen == width
    np.testing.assert_allclose(worth, mass * (0.5 + 1e-3 * width), rtol=1e-14)
    _, chosen = two_controls(-1e-3, mass, controls)
    assert chosen == 0


def test_the_last_control_is_taken_when_all_are_worth_nothing_only_at_no_mass():
    """Zero everywhere is a tie, and goes to the lowest index; no mass goes to the last."""
    assert two_controls(0.0, mass=0.0) == (0.0, 2)
    structure = problem_of("one round").structure
    tables = problem_of("one round").tables
    flat = dataclasses.replace(tables, stop=np.zeros_like(tables.stop))
    tasks = problem_of("one round").tasks
    free = dataclasses.replace(tasks, allowed=np.ones_like(tasks.allowed))
    found, actions = backward(build_tree(structure), flat, free, block=8)
    np.testing.assert_array_equal(found, 0.0)
    np.testing.assert_array_equal(actions[0], 0)


@pytest.mark.parametrize("name", ["constant", "moving"])
def test_roots_of_no_mass_are_worth_nothing_and_spoil_nothing(name):
    problem = problem_of(name)
    tree = build_tree(problem.structure)
    root = problem.tasks.root.copy()
    root[1] = 0.0
    empty = dataclasses.replace(problem.tasks, root=root)
    found, actions = backward(tree, problem.tables, empty, block=64)
    expected, usual = backward(tree, problem.tables, problem.tasks, block=64)
    np.testing.assert_array_equal(found[1], 0.0)
    found, expected, others = np.asarray(found), np.asarray(expected), [0, 2]
    np.testing.assert_array_equal(found[others], expected[others])
    for a, b in zip(actions, usual, strict=True):
        np.testing.assert_array_equal(a[:, 1], problem.structure.controls - 1)
        np.testing.assert_array_equal(a[:, others], b[:, others])


@pytest.mark.parametrize("memory", [1e5, 1e4, 4e9])
@pytest.mark.parametrize("name", ["constant", "moving"])
def test_little_memory_splits_the_roots_and_changes_nothing(name, memory, monkeypatch):
    rng = np.random.default_rng(5)
    problem = random_problem(rng, roots=40, **KINDS[name])
    tree = build_tree(problem.structure)
    widest, usual = [], exact._solve_chunk

    def count(tree, tables, tasks, start, stop, *rest):
        widest.append(stop - start)
        return usual(tree, tables, tasks, start, stop, *rest)

    monkeypatch.setattr(exact, "_solve_chunk", count)
    (answer,) = solve_exact(tree, problem.tables, [problem.tasks], Exact(memory=memory))
    expected, actions = backward(tree, problem.tables, problem.tasks, block=64)
    np.testing.assert_allclose(answer.value, expected, rtol=0, atol=EPS)
    for a, b in zip(answer.actions, actions, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(widest) == 40
    assert (len(widest) > 1) == (memory < 1e6)


def test_one_root_that_does_not_fit_is_refused():
    problem = problem_of("constant")
    tree = build_tree(problem.structure)
    with pytest.raises(MemoryError, match="one root needs"):
        solve_exact(tree, problem.tables, [problem.tasks], Exact(memory=1e3))


@pytest.mark.parametrize("memory", [5e4, 2e5])
def test_little_memory_gives_the_same_mechanism(memory):
    env = logit_market(seed=1, symbols=3, horizon=3)
    found = quantities(solve(env, memory=memory))
    assert_same(found, quantities(solve(env)), env.money_scale)


def test_gradients_are_those_of_the_plan_in_use():
    """In the coefficients: the probability of each outcome, by central differences of W."""
    problem = problem_of("constant")
    tree = build_tree(problem.structure)

    def total(coefficient):
        tasks = dataclasses.replace(problem.tasks, coefficient=coefficient)
        return backward(tree, problem.tables, tasks, block=64)[0]

    at = jnp.asarray(problem.tasks.coefficient)
    slope = jax.jit(jax.grad(lambda x: total(x).sum()))(at)
    rng = np.random.default_rng(0)
    for _ in range(5):
        way = rng.normal(size=at.shape) * problem.tasks.counted
        central = (total(at + 1e-5 * way).sum() - total(at - 1e-5 * way).sum()) / 2e-5
        np.testing.assert_allclose((slope * way).sum(), central, rtol=0, atol=1e-8)
    assert (slope >= 0).all()
    np.testing.assert_allclose(jax.jit(total)(at), total(at), rtol=0, atol=EPS)


def test_values_by_hand_in_one_round():
    problem = problem_of("one round")
    tasks = problem.tasks
    found, _ = backward(build_tree(problem.structure), problem.tables, tasks, block=8)
    np.testing.assert_allclose(
        found[0, 0], value(problem, 0, 0, tasks.root[0], 0, 0), rtol=0, atol=EPS
    )


def compilations(caplog, work):
    caplog.clear()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        work()
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Compiling ")]


@pytest.mark.parametrize("markov", [False, True])
def test_a_second_solve_of_the_same_shapes_compiles_nothing(caplog, markov):
    # Nothing is clipped and nothing merges by chance, so that shapes are the same for all seeds.
    rule = dm.LastShownOnly(dm.Logit(0.5), 0.5)
    shape = {"m": 6 + markov, "horizon": 3, "markov": markov, "advertisers": None, "rule": rule}
    first = compilations(caplog, lambda: solve(logit_market(seed=1, **shape)))
    assert first  # else nothing would be counted
    again = compilations(caplog, lambda: solve(logit_market(seed=2, **shape)))
    assert again == []
    compilations(caplog, lambda: quantities(solve(logit_market(seed=3, **shape))))
    audited = compilations(caplog, lambda: quantities(solve(logit_market(seed=4, **shape))))
    assert audited == []


def test_one_compilation_for_many_blocks_of_one_shape(caplog):
    """Blocks and rounds share a compiled step: memory classes are data, not shapes."""
    rng = np.random.default_rng(9)
    problem = random_problem(rng, classes=12, controls=5, symbols=3, points=7)
    tree = build_tree(problem.structure)
    numbers = [len(list(blocks(layer, 8))) for layer in tree.layers]
    assert numbers[0] == 1
    assert min(numbers[1:]) > 2
    given = tree, problem.tables, problem.tasks
    messages = compilations(caplog, lambda: backward(*given, block=8, host=0.0))
    # One for the last round, which nothing follows, and one that all other rounds share.
    assert sum("jit(bellman_step)" in message for message in messages) == 2


def test_many_rounds_share_two_compilations(caplog):
    """As many as two rounds have, whatever the numbers: small rounds are padded to one shape."""
    sizes = {"rounds": 6, "classes": 2, "controls": 3, "symbols": 2, "points": 5}
    first, second = (random_problem(np.random.default_rng(seed), **sizes) for seed in (21, 22))
    tree = build_tree(first.structure)
    assert len({layer.nodes for layer in tree.layers}) > 4

    def steps(problem):
        solve = partial(backward, tree, problem.tables, problem.tasks, block=64, host=0.0)
        return sum("jit(bellman_step)" in message for message in compilations(caplog, solve))

    assert steps(first) == 2
    assert steps(dataclasses.replace(first, tables=second.tables)) == 0


def test_small_passes_compile_nothing_and_bounds_are_the_same(caplog, monkeypatch):
    """Rounds in NumPy: no program, and what a search bounds with them is what programs find."""
    problem = random_problem(np.random.default_rng(3), rounds=3, points=9)
    tree = build_tree(problem.structure)
    messages = compilations(caplog, lambda: backward(tree, problem.tables, problem.tasks, block=64))
    assert not any("jit(bellman_step)" in message for message in messages)
    env, found = logit_market(seed=3, horizon=3, m=7), []
    for host in HOSTS:
        monkeypatch.setattr(
            "solvers.tree.backward.on_host",
            lambda takes, seconds, host=host: [host > 0] * len(takes),
        )
        policy = dm.solve_efficient_policy(env, dm.BranchAndBound(), tolerance=1e-3, progress=False)
        found.append(np.stack([policy.lower, policy.upper, *policy.marginal_upper]))
    np.testing.assert_allclose(*found, rtol=0, atol=EPS)


def test_rounds_in_numpy_beside_compiled_ones_compile_nothing_of_their_own(caplog, monkeypatch):
    """Where some rounds are left to NumPy it is given NumPy's arrays: no operation is a program."""
    problem = random_problem(np.random.default_rng(5), rounds=4, points=9)
    tree = build_tree(problem.structure)
    monkeypatch.setattr(
        "solvers.tree.backward.on_host", lambda takes, _: [True, True, False, False]
    )
    given = tree, problem.tables, problem.tasks
    messages = compilations(caplog, lambda: backward(*given, block=64))
    assert sum("jit(bellman_step)" in message for message in messages) > 0
    assert not any("gather" in message or "multiply" in message for message in messages)


def test_structure_is_not_changed_by_solving():
    problem = problem_of("constant")
    before = [np.array(x) for x in jax.tree.leaves(eqx.filter(problem.structure, eqx.is_array))]
    backward(build_tree(problem.structure), problem.tables, problem.tasks, block=8)
    after = jax.tree.leaves(eqx.filter(problem.structure, eqx.is_array))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
