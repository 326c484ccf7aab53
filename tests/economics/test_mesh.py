"""Work spread over devices: every verb gives what it gives on one."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers import ROOT
from tests.helpers.quantities import quantities
from tests.helpers.small import logit_market

NETWORK = dm.Neural(
    sweeps=1, runs=4, steps=2, batch=4, width=4, summary=2, cases=2,
    certificate=dm.Certificate(runs=30, marginal_runs=30, walk=0, work=1e4),
)  # fmt: skip


def mesh(count):
    """A mesh with the one device that is always there as often as wanted."""
    return jax.sharding.Mesh(np.array(jax.devices()[:1] * count), ("parts",))


def same(one, other):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def env():
    return logit_market(seed=1, symbols=3)


@pytest.fixture(scope="module")
def policy(env):
    return dm.solve_efficient_policy(env, progress=False)


def test_exact_solves_are_the_same_on_devices_that_roots_do_not_divide_by(env, policy):
    spread = dm.solve_efficient_policy(env, mesh=mesh(2), progress=False)
    same(spread.figures, policy.figures)
    one = dm.Profiles(policy.profiles.theta[:1], policy.profiles.signals[:1])
    with pytest.raises(dm.InvalidArgument, match=r"mesh=.*no more devices than there are roots"):
        dm.solve_efficient_policy(env, initial=one, mesh=mesh(64), progress=False)


@pytest.mark.parametrize("solver", [dm.BranchAndBound(), dm.PointBased(), dm.BestFirst()])
def test_searches_of_one_store_refuse_a_mesh(env, solver):
    with pytest.raises(dm.InvalidArgument, match=r"mesh=.*share one search"):
        dm.solve_efficient_policy(env, solver, tolerance=0.1, mesh=mesh(2), progress=False)


@pytest.mark.slow
def test_networks_are_trained_and_certified_the_same(env):
    two = dm.Profiles(np.array([[0, 1], [1, 0]]), np.array([[0, 0, 0], [1, 1, 0]]))
    found = [
        dm.solve_efficient_policy(env, NETWORK, initial=two, mesh=m, progress=False)
        for m in (None, mesh(3))
    ]
    same(found[1].figures, found[0].figures)
    with pytest.raises(dm.InvalidArgument, match=r"mesh=.*no more devices than there are parts"):
        dm.solve_efficient_policy(env, NETWORK, initial=two, mesh=mesh(5), progress=False)


MESH = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import dynmech as dm
from tests.economics.test_mesh import found
assert len(jax.devices()) == 8, jax.devices()
np.savez(sys.argv[1], **found(jax.make_mesh((8,), ("parts",))))
"""


def found(mesh):
    """Every number of two markets, worked out over a mesh."""
    numbers = {}
    for name, options in (("odd", {"symbols": 3}), ("moving", {"markov": True})):
        env = logit_market(seed=1, **options)
        policy = dm.solve_efficient_policy(env, mesh=mesh, progress=False)
        numbers |= {f"{name} {key}": value for key, value in quantities(policy).items()}
    return numbers


@pytest.mark.slow
def test_eight_devices_give_what_one_does(tmp_path):
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }  # fmt: skip
    file = tmp_path / "found.npz"
    done = subprocess.run(
        [sys.executable, "-c", MESH, str(file)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = found(None)
    with np.load(file) as archive:
        assert set(archive) == set(expected)
        for key, value in expected.items():
            scale = np.nanmax(np.abs(np.asarray(value, float)), initial=1.0)
            np.testing.assert_allclose(archive[key], value, atol=1e-12 * scale, err_msg=key)
