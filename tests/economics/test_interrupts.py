"""Interrupts at any moment, memory that runs out late, and settings of the wrong kind."""

import importlib
import math
import os
import signal
import threading

import numpy as np
import pytest

import dynmech as dm
from experiments.benchmarks.instances import hidden_taste, scale
from solvers.points.starts import root_beliefs
from solvers.progress import deferred
from tests.economics.test_search import refuse

# Whether a tolerance was missed is told of elsewhere; here bounds are looked at.
pytestmark = [
    pytest.mark.filterwarnings("ignore::dynmech.errors.DynmechWarning"),
    pytest.mark.usefixtures("heard"),
]

SOLVERS = {
    "branch": (dm.BranchAndBound(), "search.branch_and_bound"),
    "merging": (dm.BranchAndBound(merge_within=0.05), "search.branch_and_bound"),
    "points": (dm.PointBased(beliefs=8), "points.point_based"),
}


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def strike(monkeypatch, target: str, *counts: int):
    """Interrupt inside `module/Class.name`, before its work, at these calls; the calls made."""
    path, name = target.rsplit(".", 1)
    module, _, kind = path.partition("/")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    real, calls = getattr(owner, name), []

    def struck(*arguments, **options):
        calls.append(1)
        if len(calls) in counts:
            interrupt()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, struck)
    return calls


def solve(env, solver, tolerance=0.0):
    return dm.solve_efficient_policy(env, solver, tolerance=tolerance, progress=False)


def assert_holds(found, exact):
    for low, high, true in (
        (found.lower, found.upper, exact.value),
        (found.marginal_value, found.marginal_upper, exact.marginal_value),
    ):
        assert (low <= true + 1e-9).all()
        assert (true <= high + 1e-9).all()


@pytest.fixture(scope="module")
def learning():
    env = hidden_taste(8, 4)
    return env, solve(env, dm.Exact())


@pytest.fixture(scope="module")
def large():
    env = scale(6, 16, 3)
    return env, solve(env, dm.Exact())


def test_an_interrupt_waits_and_a_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with deferred() as outer:
        interrupt()
        with deferred() as inner:
            assert inner is outer
            with pytest.raises(KeyboardInterrupt):
                inner.check()
            inner.check()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    with deferred() as interrupts:
        with interrupts.now(when=False):
            interrupt()
        with pytest.raises(KeyboardInterrupt), interrupts.now():
            raise AssertionError
    with deferred() as interrupts, pytest.raises(KeyboardInterrupt), interrupts.now():
        interrupt()
    with pytest.raises(ZeroDivisionError), deferred():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_the_program_is_called_in_time_and_other_threads_are_left_alone():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with deferred() as interrupts:
            interrupt()
            assert not heard
            interrupts.check()
            interrupts.check()
            assert len(heard) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    found = []

    def inside():
        with deferred() as interrupts:
            interrupts.check()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("name", ["Graph._append", "Graph.totals", "Graph._sync", "Nodes.append"])
def test_a_search_interrupted_anywhere_keeps_its_bounds(name, count, large, monkeypatch):
    env, exact = large
    monkeypatch.setattr("dynmech.problem.pose.compile_market", refuse)
    calls = strike(monkeypatch, f"solvers.search.graph/{name}", count)
    found = solve(env, dm.BranchAndBound())
    assert len(calls) >= count
    assert "interrupted" in found.solver or (count == 9 and "append" in name)
    assert_holds(found, exact)


@pytest.mark.parametrize(
    "name",
    [
        "solvers.search.search.complete",
        "solvers.search.search._grown",
        "dynmech.problem.pose.compile_rounds",
    ],
)
def test_a_search_that_is_closing_goes_on_at_one_interrupt_and_ends_at_two(
    name, large, monkeypatch
):
    env, exact = large
    monkeypatch.setattr("dynmech.problem.pose.compile_market", refuse)
    with monkeypatch.context() as patch:
        strike(patch, name, 1)
        found = solve(env, dm.BranchAndBound())
    np.testing.assert_allclose(found.value, exact.value, atol=1e-12)
    strike(monkeypatch, "solvers.search.search.descend", 1)
    strike(monkeypatch, name, 1)
    with pytest.raises(KeyboardInterrupt):
        solve(env, dm.BranchAndBound())


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [
        ("branch", "follow_more", 1),
        ("branch", "grow", 2),
        ("branch", "summary", 2),
        ("merging", "follow_more", 1),
        ("merging", "grow", 3),
        ("merging", "follow_guides", 1),
        ("points", "_grow", 1),
        ("points", "sweep_bounded", 1),
        ("points", "summary", 1),
    ],
)
def test_bounds_reached_survive_an_interrupt(kind, name, count, learning, monkeypatch):
    env, exact = learning
    solver, module = SOLVERS[kind]
    calls = strike(monkeypatch, f"solvers.{module}.{name}", count)
    found = solve(env, solver)
    assert len(calls) >= count
    assert_holds(found, exact)
    assert ("interrupted" in found.solver) == (kind != "points" and name != "follow_guides")


@pytest.mark.parametrize("count", [1, 4, 9])
def test_backups_are_never_cut_in_half(count, learning, monkeypatch):
    env, exact = learning
    strike(monkeypatch, "solvers.points.points/Points.improve", 10 + count)
    found = solve(env, SOLVERS["points"][0])
    assert "interrupted" in found.solver
    assert_holds(found, exact)


@pytest.mark.parametrize("kind", SOLVERS)
def test_an_interrupt_before_any_bounds_raises(kind, learning, monkeypatch):
    solver, module = SOLVERS[kind]
    first = "points.passes._improve" if kind == "points" else f"{module}.summary"
    strike(monkeypatch, f"solvers.{first}", 1)
    with pytest.raises(KeyboardInterrupt):
        solve(learning[0], solver)


@pytest.mark.parametrize(("kind", "name"), [("points", "build_tree"), ("merging", "follow_guides")])
def test_memory_that_runs_out_after_work_keeps_the_bounds(kind, name, learning, monkeypatch):
    env, exact = learning
    solver, module = SOLVERS[kind]

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(f"solvers.{module}.{name}", full)
    found = solve(env, solver)
    assert "memory" in found.solver
    assert_holds(found, exact)


def test_memory_that_runs_out_on_a_second_tree_keeps_the_first(learning, monkeypatch):
    import solvers.points.point_based as module

    env, exact = learning
    real, calls = module.build_tree, []

    def build(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return real(*arguments, **options)

    monkeypatch.setattr(module, "build_tree", build)
    monkeypatch.setattr(
        module, "loose_nodes", lambda sets, _, tasks, *__: root_beliefs(sets, tasks)
    )
    found = solve(env, dm.PointBased(everywhere=True))
    assert len(calls) == 2
    assert "memory" in found.solver
    assert_holds(found, exact)


def endless(dtype):
    return dm.RecommendationMDP(
        np.array([[1.0], [0.5]], dtype),
        dm.TasteGrid([[0.5], [1.5]], [0.5, 0.5]),
        math.inf,
        dm.LastShownOnly(dm.Logit(0.5), query=0.3),
        dm.SignalStructure(),
        dm.ConstantValues(np.array([[0.4], [0.7]])),
    )


def test_an_infinite_horizon_in_float32_is_solved_to_what_it_says_it_can_certify():
    env = endless(np.float32)
    for tolerance in (5e-5, 1e-3):
        found = solve(env, None, tolerance)
        assert np.nanmax(found.upper - found.lower) <= tolerance
        assert found.solver.count("as asked") == 0
    with pytest.raises(dm.InvalidArgument, match="float32") as caught:
        solve(env, dm.Stationary(), 1e-6)
    least = float(str(caught.value).split("at least ")[1].split(" money")[0])
    found = solve(env, dm.Stationary(), least)
    assert np.nanmax(found.upper - found.lower) <= least
    assert found.solver.count("as asked") == 1


@pytest.mark.parametrize("least", [1.0, 1.004, 9.999, 2.2204e-12, 7.8349])
def test_the_least_that_is_named_is_never_too_little(least):
    from dynmech.solve.prepare import rounded_up

    assert least <= float(rounded_up(least)) <= 1.02 * least


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (dm.Exact, "memory", (math.inf, "4GB", None)),
        (dm.BranchAndBound, "memory", (math.nan, True)),
        (dm.BranchAndBound, "seconds", ("3", math.nan)),
        (dm.PointBased, "seconds", ("3", True)),
        (dm.BranchAndBound, "merge_within", ("a", None, [0.1])),
        (dm.PointBased, "beliefs", (2.5, math.inf, True, -1, "8")),
    ],
)
def test_settings_of_the_wrong_kind_are_named(kind, name, values):
    for value in values:
        with pytest.raises(dm.InvalidArgument, match=rf"{kind.__name__}\({name}=...\)"):
            kind(**{name: value})


@pytest.mark.parametrize("tolerance", ["a", None, [0.1], np.ones(2), 1j, True, math.nan, -1.0])
def test_a_tolerance_of_the_wrong_kind_is_named(tolerance):
    from dynmech.solve.prepare import check_tolerance

    with pytest.raises(dm.InvalidArgument, match=r"verb\(tolerance=...\)"):
        check_tolerance("verb", tolerance)
    for good in (0, 0.1, np.float32(1), math.inf):
        check_tolerance("verb", good)
