"""Parts spread over devices: the same answers in the same order, whatever the mesh."""

import threading

import jax
import numpy as np
import pytest

import solvers


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
            expected = solvers.spread(None, part, range(7))
            threads.clear()
            assert solvers.spread(mesh(3), part, range(7)) == expected
            assert len(threads) == 3
            assert threading.current_thread().name not in threads
    assert solvers.spread(mesh(3), part, []) == []


def test_what_a_part_raises_is_raised_and_nobody_starts_another():
    done = []

    def part(k):
        if k == 0:
            raise MemoryError("no room")
        done.append(k)
        return k

    with pytest.raises(MemoryError, match="no room"):
        solvers.spread(mesh(1), part, range(5))
    assert done == []
    with pytest.raises(MemoryError, match="no room"):
        solvers.spread(mesh(2), part, range(100))


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
        solvers.check_mesh(given, work, "roots")
    assert caught.value.setting == "mesh"


def test_no_mesh_and_one_that_fits_pass():
    solvers.check_mesh(None, 0)
    solvers.check_mesh(mesh(3), 3)
    solvers.agree(None, dict)
    solvers.agree(mesh(3), dict)
