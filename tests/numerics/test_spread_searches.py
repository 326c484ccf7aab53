"""Searches of one store on several devices: the same bits, whatever the mesh."""

import threading

import jax
import numpy as np
import pytest

import solvers
from solvers import BestFirst, BranchAndBound, PointBased
from solvers.points.batches import in_chunks
from tests.economics.test_search import solve
from tests.economics.test_search import unlisted as unlisted
from tests.helpers.problems import solved
from tests.helpers.small import logit_market

COMPILED = [
    pytest.param(one, marks=pytest.mark.slow)
    for one in (BranchAndBound(), BranchAndBound(merge_within=0.2), PointBased(everywhere=True))
]


def mesh(count, axes=("parts",), shape=None):
    """A mesh with the one device that is always there as often as wanted."""
    return jax.sharding.Mesh(np.array(jax.devices()[:1] * count).reshape(shape or count), axes)


@pytest.fixture
def little_is_much(monkeypatch):
    """Small problems in many runs and blocks; the threads that worked on them."""
    for name, value in {
        "search.met._RUN": 8,
        "search.met._WORTH": 0,
        "search.graph._BLOCK": 1.0,
        "tree.shapes._COMMON": 64,
        "tree.bellman._CACHED": (2e3, 2e3),
        "points.batches.FEW": 4,
        "points.batches.MANY": 8,
    }.items():
        monkeypatch.setattr(f"solvers.{name}", value)
    monkeypatch.setattr(
        "solvers.tree.backward.on_host", lambda takes, seconds: [False] * len(takes)
    )
    threads, spread = set(), solvers.devices.spread

    def run(function):
        def seen(part):
            threads.add(threading.current_thread().name)
            return function(part)

        return seen

    monkeypatch.setattr(
        "solvers.devices.spread", lambda mesh, f, parts: spread(mesh, run(f), parts)
    )
    return threads


def same(one, other):
    assert one.status == other.status
    for name in ("lower", "upper", "value"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for here, there in zip(one.table.answers, other.table.answers, strict=True):
        for x, y in zip(here.actions, there.actions, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("solver", [BestFirst(), *COMPILED], ids=repr)
def test_searches_find_the_same_on_any_mesh(solver, little_is_much):
    alone = solved(3, solver, 0.02)
    assert {name for name in little_is_much if name.startswith("device")} == set()
    for devices in (2, 3):
        same(solved(3, solver, 0.02, mesh=mesh(devices)), alone)
        assert {name for name in little_is_much if name.startswith("device")}
    with pytest.raises(solvers.Unsuited, match="one axis"):
        solved(3, solver, 0.02, mesh=mesh(4, ("a", "b"), (2, 2)))


@pytest.mark.usefixtures("unlisted")
def test_a_search_from_the_rules_finds_the_same_on_any_mesh(little_is_much):
    env = logit_market(seed=1, horizon=3)
    alone, spread = (solve(env, tolerance=0.02, mesh=m) for m in (None, mesh(3)))
    assert {name for name in little_is_much if name.startswith("device")}
    assert "searched from the rules" in spread.solver
    assert spread.solver == alone.solver
    for name in ("value", "lower", "upper", "marginal_value", "marginal_upper"):
        np.testing.assert_array_equal(getattr(spread, name), getattr(alone, name), err_msg=name)


def test_chunks_of_queries_are_whole_on_any_mesh():
    def work(query, weight):
        assert len(query) in (64, 512)
        return query @ weight, query.sum(axis=1)

    weight = np.arange(6.0).reshape(3, 2)
    for count, heavy in ((1, False), (64, False), (65, True), (1300, False), (1300, True)):
        query = np.arange(3.0 * count).reshape(count, 3)
        for devices in (None, mesh(2), mesh(5)):
            one, two = in_chunks(work, query, (weight,), devices, heavy)
            np.testing.assert_array_equal(one, query @ weight)
            np.testing.assert_array_equal(two, query.sum(axis=1))
