"""The main job, an audit, a fit and a training on an accelerator, beside the processor's cores.

Run by hand, `pytest -m gpu`, on a machine that has one; without one every test says so.
"""

import contextlib

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.small import logit_market

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device():
    found = [one for one in jax.devices() if one.platform != "cpu"]
    if not found:
        pytest.skip(f"no accelerator: jax.devices() are {jax.devices()}")
    return found[0]


@contextlib.contextmanager
def on(device):
    with jax.default_device(device):
        yield


def both(device, work):
    """What work finds on the processor, and on the device."""
    return [work_on(where, work) for where in (jax.devices("cpu")[0], device)]


def work_on(where, work):
    with on(where):
        return work()


def solved(dtype=np.float64):
    env = logit_market(n=3, m=24, horizon=3, seed=1)
    env = dm.RecommendationMDP(
        np.asarray(env.gamma, dtype), env.tastes, env.horizon, env.action_rule, env.signals,
        env.values,
    )  # fmt: skip
    return dm.solve_efficient_policy(env, progress=False)


def test_the_main_job_in_float64_is_that_of_the_processor(device):
    here, there = both(device, solved)
    scale = here.env.money_scale
    for name in ("value", "marginal_value", "displayable_marginal_value"):
        one, other = getattr(here, name), getattr(there, name)
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12 * scale, err_msg=name)


def test_float32_is_within_its_own_bounds_of_float64(device):
    exact = work_on(jax.devices("cpu")[0], solved)
    quick = work_on(device, lambda: solved(np.float32))
    assert (quick.lower <= exact.value).all()
    assert (exact.value <= quick.upper).all()
    assert np.nanmax(quick.upper - quick.lower) <= 1e-3 * exact.env.money_scale


def test_an_audit_is_that_of_the_processor(device):
    def work():
        mechanism = dm.DynamicTeamMechanism(solved())
        return mechanism.audit(), mechanism.audit(dm.settlement.MessageDriven())

    for here, there in zip(*both(device, work), strict=True):
        np.testing.assert_allclose(there.incentive_gain, here.incentive_gain, rtol=0, atol=1e-10)
        np.testing.assert_allclose(there.participation, here.participation, rtol=0, atol=1e-10)


def test_a_fit_is_that_of_the_processor(device):
    env = logit_market(seed=1)
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))
    log = mechanism.simulate(jax.random.key(0), 2000).to_log()
    here, there = both(device, lambda: dm.fit(log, env, ["choice scale"], progress=False))
    assert there.loglikelihood == pytest.approx(here.loglikelihood, rel=1e-9)
    for one, other in zip(jax.tree.leaves(here.covariance), jax.tree.leaves(there.covariance),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(other, one, rtol=1e-4)


def test_what_is_trained_there_is_certified_there(device):
    env = logit_market(seed=1)
    exact = dm.solve_efficient_policy(env, progress=False)
    two = dm.Profiles(exact.profiles.theta[:2], exact.profiles.signals[:2])
    known = dm.solve_efficient_policy(env, initial=two, progress=False)
    certificate = dm.Certificate(runs=256, marginal_runs=64, walk=0)
    solver = dm.Neural(sweeps=3, runs=16, steps=8, cases=2, certificate=certificate)
    found = work_on(
        device, lambda: dm.solve_efficient_policy(env, solver, initial=two, progress=False)
    )
    assert (found.lower <= known.value + 1e-9).all()
    assert (known.value <= found.upper + 1e-9).all()
    assert (found.value_lower <= found.value_upper).all()


def test_a_mesh_of_devices_and_cores_gives_the_same(device):
    mesh = jax.sharding.Mesh(np.array([device, jax.devices("cpu")[0]]), ("parts",))
    env = logit_market(seed=1, symbols=3)
    one, two = (dm.solve_efficient_policy(env, mesh=m, progress=False) for m in (None, mesh))
    np.testing.assert_allclose(two.value, one.value, rtol=0, atol=1e-12 * env.money_scale)
