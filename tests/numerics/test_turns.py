"""Best-first search in turns with bounds shared between beliefs: which is taken, and its bounds."""

import signal
import time
import warnings

import jax
import numpy as np
import pytest

import dynmech as dm
from experiments.benchmarks.instances import rated
from solvers import BestFirst, Limits, PointBased, Status, Unkept, checkpoint
from solvers.points import passes, turns
from solvers.points.endless import Graph, Shared
from solvers.points.points import PointSets
from solvers.points.starts import root_beliefs
from solvers.search.endless_plan import EndlessPlan
from tests.numerics.test_endless_points import solve
from tests.numerics.test_stationary import stationary

OURS = "by bounds shared between beliefs"


def problem(seed, going=0.6):
    return stationary(np.random.default_rng(seed), going=going, roots=2, variants=2)


@pytest.mark.parametrize("seed", range(3))
def test_either_way_bounds_hold_and_the_note_says_which_it_was(seed, monkeypatch):
    """After a short turn of its own the search is left for good; during one that is long, never."""
    monkeypatch.setattr(turns, "_TIMES", 1e6)
    parts, limits = problem(seed, 0.95), Limits(1e-4)
    right = solve(*parts, BestFirst(), Limits(1e-6))[0]
    for after, plan in ((0.0, Graph), (1e3, EndlessPlan)):
        found = solve(*parts, BestFirst(points_after=after), limits)[0]
        assert isinstance(found.plan, plan)
        assert (OURS in found.note) == (plan is Graph)
        assert found.status.met
        assert (found.lower <= right.upper + 1e-12).all()
        assert (right.lower <= found.upper + 1e-12).all()
        assert (found.upper - found.value <= 1e-4 + 1e-12).all()


@pytest.mark.parametrize("asked", [{"seconds": 1e-6}, {"memory": 2e5}])
def test_limits_end_both_and_the_status_says_so(asked):
    parts = problem(0, 0.95)
    found = solve(*parts, BestFirst(points_after=0.0, **asked), Limits(1e-8))[0]
    right = solve(*parts, PointBased(), Limits(1e-4))[0]
    assert not found.status.met
    assert {status for status in Status if status.value in found.note} == {found.status}
    assert (found.lower <= right.upper + 1e-12).all()
    assert (right.lower <= found.upper + 1e-12).all()


def test_turns_come_again(monkeypatch):
    """Each is twice as long, its last pass as long as it may; whoever is at it goes on."""
    given, improve = [], Shared.improve

    def improved(self, seconds, turn):
        given.append((seconds, turn))
        return improve(self, seconds) if len(given) > 2 else Status.TIME_LIMIT

    monkeypatch.setattr(Shared, "improve", improved)
    found = solve(*problem(1, 0.95), BestFirst(points_after=0.0), Limits(1e-6))[0]
    assert found.status.met
    assert len(given) > 2
    assert [turn for _, turn in given[:3]] == pytest.approx([0.08, 0.16, 0.32])
    assert [seconds for seconds, _ in given[:3]] == pytest.approx([0.32, 0.64, 1.28])


@pytest.mark.usefixtures("heard")
def test_an_interrupt_leaves_the_closer_bounds(monkeypatch):
    """Of a turn's passes, in the second of them; the search had hardly begun."""
    improve, back, begun = Shared.improve, passes._improve, []

    def backed(*given):
        begun.append(given)
        if len(begun) == 2:
            signal.raise_signal(signal.SIGINT)
        return back(*given)

    monkeypatch.setattr(passes, "_improve", backed)
    monkeypatch.setattr(Shared, "improve", lambda self, *limits: improve(self, None))
    found = solve(*problem(2, 0.95), BestFirst(points_after=0.0), Limits(1e-9))[0]
    assert found.status is Status.INTERRUPTED
    assert len(begun) == 2
    assert OURS in found.note
    assert (found.lower <= found.upper).all()


def test_a_turn_that_was_overrun_is_made_up_for(monkeypatch):
    given = []

    def improved(self, seconds, turn):
        given.append(turn)
        if len(given) == 1:
            time.sleep(1.0)
        return Status.TIME_LIMIT if len(given) < 3 else Status.STALLED

    monkeypatch.setattr(Shared, "improve", improved)
    solve(*problem(1, 0.95), BestFirst(points_after=0.0, seconds=3.0), Limits(1e-10))
    assert given[1] >= 1.0


def test_a_pass_cut_short_is_made_again_as_deep():
    structure, tables, tasks = problem(0, 0.95)
    with jax.enable_x64(True):
        sets = PointSets(structure, tables, [tasks], endless=True)
        starts = root_beliefs(sets, [tasks])
        for seconds, turn, level in [(1e-9, None, 0), (None, 1e-9, 1), (None, 1e-9, 2)]:
            pace, made = passes.Pace(4e9, seconds, 16), []
            given = sets, starts, pace, 1e-9, made, time.monotonic()
            assert passes.improve_points(*given, turn=turn) is Status.TIME_LIMIT
            assert len(made) == 1
            assert sets.level == level


@pytest.mark.slow
@pytest.mark.parametrize(("going", "limit"), [(0.9, 3e-3), (0.99, 1e-3)])
def test_a_tolerance_is_met_where_much_is_learned(going, limit):
    """Best first, marginal economies are a fifth off; half a minute at .99."""
    env = rated(going)
    one = env.sample_profiles(jax.random.key(0), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dm.DynmechWarning)  # few rounds are written out
        policy = dm.solve_efficient_policy(env, initial=one, relative=limit, progress=False)
    assert OURS in policy.solver
    gap = policy.marginal_upper - policy.marginal_lower
    assert (gap <= limit * np.abs(policy.marginal_upper) + 1e-9).all()


def test_a_search_in_turns_that_is_resumed_has_the_seconds_that_are_left(tmp_path, monkeypatch):
    """They began anew with every call."""
    monkeypatch.setattr(checkpoint, "_SHARE", np.inf)
    parts, limits = problem(0, 0.99), Limits(1e-11, checkpoint=tmp_path)
    last, over, kept, ages = checkpoint.States._last, turns.Turns._over, [], []

    def found(self, kind):
        part = last(self, kind)
        kept.extend([] if part is None else part[1].get("seconds", np.zeros(0)).ravel())
        return part

    def asked(self, began):
        ages.append(time.monotonic() - began)
        late = over(self, began)
        assert self.began <= began
        return late

    monkeypatch.setattr(checkpoint.States, "_last", found)
    monkeypatch.setattr(turns.Turns, "_over", asked)
    for _ in range(2):
        ages.clear()
        solver = BestFirst(points_after=0.05, seconds=4.0)
        assert solve(*parts, solver, limits)[0].status is Status.TIME_LIMIT
    assert len(kept) == 1
    assert 0 < kept[0] <= ages[0]


def test_a_folder_of_another_problem_is_refused_before_the_first_turn(tmp_path, monkeypatch):
    """Whoever of the two kept something there; it stays theirs alone."""
    solver = BestFirst(points_after=1e3)
    others = {"points": PointBased(), "search": BestFirst()}
    for name, other in others.items():
        solve(*problem(0), other, Limits(1e-2, checkpoint=tmp_path / name))
    monkeypatch.setattr("solvers.search.endless.search_endless", None)
    for name in others:
        kept = sorted((tmp_path / name).iterdir())
        assert len(kept) == 1
        for parts, tolerance in ((problem(1), 1e-2), (problem(0), 1e-3)):
            with pytest.raises(Unkept, match="same problem"):
                solve(*parts, solver, Limits(tolerance, checkpoint=tmp_path / name))
        assert sorted((tmp_path / name).iterdir()) == kept
