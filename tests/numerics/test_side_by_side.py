"""Runs of roots worked on side by side: what each finds is what it finds alone."""

import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

import solvers.tree.exact as exact
from solvers import Exact
from solvers.tree.exact import solve_exact
from solvers.tree.tree import build_tree
from tests.helpers.problems import random_problem

KINDS = {
    "constant": {},
    "moving": {"moving": True, "variants": 2},
    "with a dead column": {"dead": True, "rounds": 4, "symbols": 1},
    "one round": {"rounds": 1},
}


@pytest.mark.parametrize("name", KINDS)
def test_runs_of_roots_side_by_side_find_the_same_bits(name, monkeypatch):
    problem = random_problem(np.random.default_rng(5), roots=40, **KINDS[name])
    tree, found, usual = build_tree(problem.structure), [], exact._solve_chunk
    main = threading.current_thread()
    threads, pair = set(), threading.Barrier(2)

    def note(*given):
        if threading.current_thread() is not main and threading.current_thread() not in threads:
            threads.add(threading.current_thread())
            pair.wait(60)  # or nobody works beside it
        return usual(*given)

    monkeypatch.setattr(exact, "_solve_chunk", note)
    monkeypatch.setattr(exact, "roots_together", lambda *given: 4)
    for bytes_, expected in ((1e9, 2), (0.0, 0)):
        monkeypatch.setattr(exact, "second_run", lambda *given, x=bytes_: x)
        threads.clear()
        found += solve_exact(tree, problem.tables, [problem.tasks], Exact())
        assert len(threads) == expected
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.usefixtures("heard")
def test_an_interrupt_ends_runs_of_roots_side_by_side(monkeypatch):
    problem = random_problem(np.random.default_rng(5), roots=40, **KINDS["constant"])
    tree, usual, begun = build_tree(problem.structure), exact.sweep, []
    main, struck = threading.current_thread(), threading.Event()

    def slow(*given, tick, **options):
        begun.append(1)
        if threading.current_thread() is not main and not struck.is_set():
            struck.set()
            os.kill(os.getpid(), signal.SIGINT)
        for layer in usual(*given, tick=tick, **options):
            while struck.is_set():  # for ever, but that work done is counted
                tick(0)
                time.sleep(0.001)
            yield layer

    monkeypatch.setattr(exact, "sweep", slow)
    monkeypatch.setattr(exact, "roots_together", lambda *given: 4)
    monkeypatch.setattr(exact, "second_run", lambda *given: 1.0)
    with pytest.raises(KeyboardInterrupt):
        solve_exact(tree, problem.tables, [problem.tasks], Exact())
    assert 2 <= len(begun) <= 3  # of ten
