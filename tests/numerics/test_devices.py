"""Parts spread over devices: the same answers in the same order, whatever the mesh."""

import threading
from unittest import mock

import jax
import numpy as np
import pytest

import solvers
from solvers.devices import at_hand


def mesh(count, axes=("parts",), shape=None):
    """A mesh with the one device that is always there as often as wanted."""
    return jax.sharding.Mesh(np.array(jax.devices()[:1] * count).reshape(shape or count), axes)


def test_parts_come_back_in_their_order_from_threads_with_the_settings_of_the_caller():
    threads = set()

    def part(k):
        threads.add(threading.current_thread().name)
        return k, float(jax.numpy.ones(1).sum()), jax.numpy.ones(1).dtype

    for double in (False, True):
        with jax.enable_x64(double):
            expected = solvers.devices.spread(None, part, range(7))
            threads.clear()
            assert solvers.devices.spread(mesh(3), part, range(7)) == expected
            assert len(threads) == 3
            assert threading.current_thread().name not in threads
    assert solvers.devices.spread(mesh(3), part, []) == []


def test_side_by_side_the_first_part_is_worked_on_alone_and_all_come_back_in_their_order():
    main, both = threading.current_thread(), threading.Barrier(2)
    alone = []

    def part(k):
        alone.append((k, threading.current_thread() is main))
        if k in (1, 2):
            both.wait(60)  # or nobody works beside it
        return k, float(jax.numpy.ones(1).sum()), jax.numpy.ones(1).dtype

    for double in (False, True):
        with jax.enable_x64(double), jax.default_device(jax.devices()[0]):
            alone[:] = []
            found = solvers.devices.spread(None, part, range(8), together=2)
            assert found == [(k, 1.0, jax.numpy.ones(1).dtype) for k in range(8)]
            assert alone[0] == (0, True)
            assert sorted(alone[1:]) == [(k, False) for k in range(1, 8)]
    assert solvers.devices.spread(None, str, range(2), together=2) == ["0", "1"]


def test_parts_side_by_side_hear_that_nobody_will_ask_for_them():
    ended, heard = threading.Event(), []

    def part(k):
        if k == 1:
            raise MemoryError("no room")
        if k > 1:
            heard.append(ended.wait(60))

    with pytest.raises(MemoryError, match="no room"):
        solvers.devices.spread(None, part, range(9), together=2, ended=ended)
    assert heard in ([True], [])  # the other one had begun, or did not


def test_what_a_part_raises_is_raised_and_nobody_starts_another():
    done = []

    def part(k):
        if k == 0:
            raise MemoryError("no room")
        done.append(k)
        return k

    with pytest.raises(MemoryError, match="no room"):
        solvers.devices.spread(mesh(1), part, range(5))
    assert done == []
    with pytest.raises(MemoryError, match="no room"):
        solvers.devices.spread(mesh(2), part, range(100))


@pytest.mark.parametrize(
    ("given", "work", "words"),
    [
        (3, None, "be a jax.sharding.Mesh"),
        (lambda: mesh(4, ("a", "b"), (2, 2)), None, "one axis"),
        (lambda: mesh(4), 3, "no more devices than there are roots to spread, 3"),
    ],
)
def test_wrong_meshes_are_refused(given, work, words):
    given = given() if callable(given) else given
    with pytest.raises(solvers.Unsuited, match=words) as caught:
        solvers.devices.check_mesh(given, work, "roots")
    assert caught.value.setting == "mesh"


def test_no_mesh_and_one_that_fits_pass():
    solvers.devices.check_mesh(None, 0)
    solvers.devices.check_mesh(mesh(3), 3)
    solvers.devices.agree(None, dict)
    solvers.devices.agree(mesh(3), dict)


@pytest.fixture
def two_processes(monkeypatch):
    """As if a mesh held devices of two processes, this one the first; `said`: by the second."""
    said = []
    monkeypatch.setattr("solvers.devices._processes", lambda mesh: {0, 1})
    monkeypatch.setattr("solvers.devices._exchange", lambda mine: [mine, *said])
    return said


def test_processes_that_differ_are_refused_by_what_differs(two_processes):
    mine = {"versions": "JAX 1", "market": "abc"}
    two_processes.append({"versions": "JAX 2", "market": "abc"})
    words = "span processes with the same versions, got JAX 2 in process 1, JAX 1 in 0"
    with pytest.raises(solvers.Unsuited, match=words):
        solvers.devices.agree(mesh(2), lambda: mine)
    two_processes[:] = [mine]
    solvers.devices.agree(mesh(2), lambda: mine)


def test_what_another_process_found_or_failed_at_is_here_too(two_processes):
    two_processes.append(({5: "five"}, None))
    assert solvers.devices.spread(mesh(1), str, range(5)) == ["0", "1", "2", "3", "4"]
    two_processes[:] = [({}, "MemoryError: no room")]
    with pytest.raises(solvers.Unsuited, match="process 1: MemoryError: no room"):
        solvers.devices.spread(mesh(1), str, range(5))


def test_runs_are_even_whole_and_in_order_and_a_single_one_stays_where_it_is():
    threads = set()

    def run(parts):
        threads.add(threading.current_thread().name)
        sizes.append(len(parts))
        return [str(k) for k in parts]

    for devices in (None, mesh(1), mesh(3)):
        for count in (0, 1, 2, 7):
            sizes = []
            assert solvers.devices.spread_runs(devices, run, range(count)) == [
                *map(str, range(count))
            ]
            assert max(sizes, default=0) - min(sizes, default=0) <= 1
    alone = threading.current_thread().name
    assert alone in threads
    assert len(threads) > 1


def test_clocks_and_files_are_those_of_the_first_process(two_processes, monkeypatch):
    assert solvers.devices.from_first(None, lambda: 3) == 3
    two_processes[:] = ["theirs"]
    assert solvers.devices.from_first(mesh(1), lambda: "mine") == "mine"
    monkeypatch.setattr("jax.process_index", lambda: 1)
    monkeypatch.setattr("solvers.devices._exchange", lambda mine: ["first", mine])
    assert solvers.devices.from_first(mesh(1), lambda: pytest.fail("asked here")) == "first"


def test_accelerators_are_given_more_at_once_than_a_cache_holds():
    assert at_hand(3.0) == 3.0
    with jax.default_device(jax.devices("cpu")[0]):
        assert at_hand(3.0) == 3.0
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        assert at_hand(3.0) == 300.0
        with jax.default_device(jax.devices("cpu")[0]):
            assert at_hand(3.0) == 3.0
