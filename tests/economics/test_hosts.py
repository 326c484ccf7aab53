"""Two processes that share one solve, as on two hosts: what one process finds, in both."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import ROOT

PROGRAM = """
import sys
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
address, count, process, seed, path = sys.argv[1:]
jax.distributed.initialize(address, num_processes=int(count), process_id=int(process))
import dynmech as dm
from tests.economics.test_hosts import found
from tests.helpers.small import logit_market

mesh = jax.make_mesh((int(count),), ("parts",))
assert {device.process_index for device in mesh.devices.flat} == set(range(int(count)))
try:
    env = logit_market(seed=int(seed), symbols=3)
    np.savez(path, **found(env, mesh))
except dm.InvalidArgument as error:
    print(error)
"""


def found(env, mesh):
    """A market solved exactly and searched, audited, simulated; a network trained, certified."""
    import jax

    import dynmech as dm
    from tests.economics.test_mesh import NETWORK

    policy = dm.solve_efficient_policy(env, mesh=mesh, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    two = dm.Profiles(np.array([[0, 1], [1, 0]]), np.array([[0, 0, 0], [1, 1, 0]]))
    network = dm.solve_efficient_policy(env, NETWORK, initial=two, mesh=mesh, progress=False)
    searched = [
        dm.solve_efficient_policy(env, solver, tolerance=0.05, mesh=mesh, progress=False)
        for solver in (dm.BestFirst(seconds=900), dm.BranchAndBound(), dm.PointBased(seconds=900))
    ]
    return {
        "searched": np.stack([one.upper for one in searched]),
        "value": policy.value,
        "marginal": policy.marginal_value,
        "gain": mechanism.audit(dm.settlement.MessageDriven(), mesh=mesh).incentive_gain,
        "payment": mechanism.simulate(jax.random.key(0), 70_000, mesh=mesh).payment,
        "network": network.value,
        "below": network.value_lower,
        "parameters": np.concatenate(
            [x.ravel() for x in jax.tree.leaves(network.evaluator.play.critic)]
        ),
    }


def start(seeds, folder):
    """What two processes print; what they find is kept in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }  # fmt: skip
    processes = []
    for k, seed in enumerate(seeds):
        given = [address, str(len(seeds)), str(k), str(seed), str(folder / f"{k}.npz")]
        processes.append(subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *given],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        ))  # fmt: skip
    try:
        told = [process.communicate(timeout=500) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(seeds), told
    return [out for out, _ in told]


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path):
    for name, seeds in (("one", [1]), ("two", [1, 1])):
        (tmp_path / name).mkdir()
        start(seeds, tmp_path / name)
    with np.load(tmp_path / "one" / "0.npz") as archive:
        expected = dict(archive)
    for k in range(2):
        with np.load(tmp_path / "two" / f"{k}.npz") as archive:
            assert len(archive) == len(expected) == 8
            for name, value in expected.items():
                np.testing.assert_array_equal(archive[name], value, err_msg=name)


@pytest.mark.slow
def test_processes_with_different_markets_are_refused_in_both(tmp_path):
    for words in start([1, 2], tmp_path):
        assert "span processes with the same market" in words
