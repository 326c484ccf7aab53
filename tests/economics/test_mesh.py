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
def test_searches_are_the_same_on_devices_and_refuse_other_axes(env, solver):
    options = {"initial": env.sample_profiles(jax.random.key(0), 2), "tolerance": 0.1}
    one, two = (
        dm.solve_efficient_policy(env, solver, mesh=m, progress=False, **options)
        for m in (None, mesh(2))
    )
    assert two.status == one.status
    same(two.figures, one.figures)
    square = jax.sharding.Mesh(np.array(jax.devices()[:1] * 4).reshape(2, 2), ("a", "b"))
    with pytest.raises(dm.InvalidArgument, match=r"mesh=.*one axis"):
        dm.solve_efficient_policy(env, solver, mesh=square, progress=False, **options)


def test_simulated_conversations_are_the_same(policy):
    mechanism = dm.DynamicTeamMechanism(policy)
    one, two = (mechanism.simulate(jax.random.key(0), 70_000, mesh=m) for m in (None, mesh(2)))
    same(two, one)
    one, two = (mechanism.simulate_summary(jax.random.key(0), 70_000, mesh=m, progress=False)
                for m in (None, mesh(2)))  # fmt: skip
    same(two, one)
    for verb in (mechanism.simulate, mechanism.simulate_summary):
        with pytest.raises(dm.InvalidArgument, match=r"simulate.*mesh=.*65536 conversations"):
            verb(jax.random.key(0), 10, mesh=mesh(2))


def served(policy, mesh):
    """What five conversations are shown, to the end, and what was predicted of their purchases."""
    chats, found = policy.start_many([0, 5, 1, 0, 3], mesh), []
    for actions in ([3, 3, 0, 3, 3], [3, 1, 0, 3, 2], [0, 0, 0, 1, 0]):
        found.append(chats.recommendation)
        chats = chats.step(np.array(actions), np.zeros(5, np.int64))
    assert chats.ended.all()
    return [*found, chats.predicted]


def test_conversations_served_in_batches_are_the_same(policy):
    for devices in (2, 4):
        same(served(policy, mesh(devices)), served(policy, None))
    with pytest.raises(dm.InvalidArgument, match=r"start_many\(mesh=.*conversations"):
        policy.start_many([0], mesh(2))


def audits(mechanism, mesh):
    return [
        mechanism.audit(mesh=mesh),
        mechanism.audit(dm.settlement.MessageDriven(), mesh=mesh),
        mechanism.audit(histories="all", mesh=mesh),
    ]


def test_audits_are_the_same(policy):
    mechanism = dm.DynamicTeamMechanism(policy)
    one, two = audits(mechanism, None), audits(mechanism, mesh(2))
    assert one[1].incentive_gain.max() > 0
    for here, there in zip(one, two, strict=True):
        assert here.deviations == there.deviations
        assert here.witness == there.witness
        same(here, there)
    with pytest.raises(dm.InvalidArgument, match=r"audit\(mesh=.*advertisers"):
        mechanism.audit(histories="all", mesh=mesh(3))


@pytest.mark.slow
def test_many_supports_are_revalued_the_same(policy):
    supports = np.linspace(0.5, 1.5, 5)[:, None, None] * policy.env.values.support
    one, two = (policy.revalue(supports, mesh=m).value for m in (None, mesh(3)))
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-12 * policy.env.money_scale)
    for bad in (supports[:2], supports[0], None):
        with pytest.raises(dm.InvalidArgument, match=r"revalue\(mesh=.*supports of values"):
            policy.revalue(bad, mesh=mesh(3))
    with pytest.raises(dm.InvalidArgument, match=r"revalue\(mesh=.*traced"):
        jax.grad(lambda x: policy.revalue(x, mesh=mesh(1)).value.sum())(jax.numpy.asarray(supports))


@pytest.mark.slow
def test_networks_are_trained_and_certified_the_same(env):
    pair = dm.Profiles(np.array([[0, 1], [1, 0]]), np.array([[0, 0, 0], [1, 1, 0]]))
    found = [
        dm.solve_efficient_policy(env, NETWORK, initial=pair, mesh=m, progress=False)
        for m in (None, mesh(3))
    ]
    same(found[1].figures, found[0].figures)
    one, two = (
        found[0].start_many([0, 1, 1], m).step([3, 3, 3], [0, 1, 1]) for m in (None, mesh(2))
    )
    np.testing.assert_array_equal(two.recommendation, one.recommendation)
    mechanism = dm.DynamicTeamMechanism(found[0], dm.groves.Zero())
    one, two = (mechanism.audit(conversations=32, mesh=m) for m in (None, mesh(3)))
    assert one.witness == two.witness
    same(two.measured, one.measured)
    with pytest.raises(dm.InvalidArgument, match=r"mesh=.*no more devices than there are parts"):
        dm.solve_efficient_policy(env, NETWORK, initial=pair, mesh=mesh(5), progress=False)


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
        mechanism = dm.DynamicTeamMechanism(policy)
        audit = mechanism.audit(dm.settlement.MessageDriven(), mesh=mesh)
        (other,) = mechanism.audit(under=[policy.env], mesh=mesh)
        numbers[f"{name} gain elsewhere"] = other.incentive_gain
        paid = mechanism.simulate(jax.random.key(0), 600_000, mesh=mesh).payment
        for solver in (dm.BranchAndBound(), dm.PointBased(), dm.BestFirst()):
            if name == "odd":
                policy = dm.solve_efficient_policy(
                    env, solver, tolerance=0.1, mesh=mesh, progress=False
                )
                numbers |= {f"{solver} {key}": value for key, value in quantities(policy).items()}
        numbers |= {f"{name} gain": audit.incentive_gain, f"{name} payment": paid}
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
            np.testing.assert_allclose(archive[key], value, rtol=0, atol=1e-12 * scale, err_msg=key)


def test_an_audit_finds_its_parts_again_and_makes_torn_ones_anew(policy, tmp_path):
    mechanism, lying = dm.DynamicTeamMechanism(policy), dm.settlement.MessageDriven()
    whole = mechanism.audit(lying)
    mechanism.audit(lying, mesh=mesh(2), checkpoint=tmp_path)
    parts = sorted(tmp_path.glob("part-*"))
    assert len(parts) >= 4
    parts[0].unlink()
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    before = [path.stat().st_mtime_ns for path in parts[2:]]
    again = mechanism.audit(lying, mesh=mesh(2), checkpoint=tmp_path)
    assert again.witness == whole.witness
    same(again, whole)
    assert [path.stat().st_mtime_ns for path in parts[2:]] == before
    with pytest.raises(dm.InvalidArgument, match=r"audit\(checkpoint=.*same problem"):
        mechanism.audit(checkpoint=tmp_path)
