"""Where 32 and 64 bits meet: whatever is traced around the verbs, in either setting of JAX."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import ROOT

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp, numpy as np
import dynmech as dm
warnings.simplefilter("ignore", dm.MiscompilingJaxWarning)

rng = np.random.default_rng(3)
env = dm.RecommendationMDP(
    rng.normal(size=(2, 2)),
    dm.TasteGrid(rng.lognormal(0, 0.5, (4, 2)), np.full(4, 0.25)),
    2,
    dm.LastShownOnly(dm.Logit(0.5), 0.6),
    dm.SignalStructure(feedback=dm.RatingFeedback(0.4, 2)),
    dm.ConstantValues([[0.2, 0.5], [0.3, 0.6]]),
)
support, gamma = env.values.support, env.gamma
solve = lambda: dm.solve_efficient_policy(env, progress=False)
policy = solve()
mechanism = dm.DynamicTeamMechanism(policy)
right = policy.value
out = {"value": right.tolist()}
key = jax.random.key(5)
plays = lambda: mechanism.simulate(key, 200)
first = plays()
out["play"] = [int((first.action * 7 + first.symbol * 3 + first.omega[:, None]).sum()),
               first.payment.sum().item()]
far = lambda found: float(np.abs(np.asarray(found, float) - right).max())
small, large = {}, {}
told = jnp.asarray(support)
for turn in range(2):
    small[f"jit {turn}"] = far(jax.jit(lambda x: policy.revalue(theta_support=x).value)(told))
    scaled = jax.jit(lambda s: policy.revalue(gamma=jnp.asarray(policy.env.gamma) * s).value)
    small[f"jit of a constant {turn}"] = far(scaled(jnp.asarray(1.0)))
    small[f"vmap {turn}"] = far(
        jax.vmap(lambda x: policy.revalue(theta_support=x).value)(told[None])[0])
    small[f"numbers inside jit {turn}"] = far(
        jax.jit(lambda s: s * policy.revalue(gamma=gamma).value)(jnp.asarray(1.0)))
    large[f"solve {turn}"] = far(solve().value)
    large[f"numbers {turn}"] = far(policy.revalue(gamma=gamma).value)
    with jax.enable_x64(True):
        wide = jnp.asarray(np.array(support))
        large[f"jit in doubles {turn}"] = far(
            jax.jit(lambda x: policy.revalue(theta_support=x).value)(wide))
        large[f"solve in doubles {turn}"] = far(solve().value)
slope = jax.grad(lambda g: policy.revalue(gamma=g).value.sum())(jnp.asarray(np.array(gamma)))
out["slope"] = np.asarray(slope, float).tolist()
theta, estimate = np.array([0.5, 0.3]), 1 / 3
exact = np.array([-estimate, -0.5 - estimate])
pay = lambda q: mechanism.payment(theta, 0, q)
large["payment"] = float(np.abs(pay(estimate) - exact).max())
small["payment in jit"] = float(np.abs(jax.jit(pay)(jnp.asarray(estimate)) - exact).max())
small["payment of numbers in jit"] = float(
    np.abs(jax.jit(lambda s: s * pay(estimate))(jnp.asarray(1.0)) - exact).max())
small["payment in vmap"] = float(np.abs(jax.vmap(pay)(jnp.full(2, estimate))[1] - exact).max())
inside = jax.jit(lambda s: s * plays().payment.sum())(jnp.asarray(1.0))
small["simulate in jit"] = abs(float(inside) / out["play"][1] - 1)
again = plays()
large["simulate"] = float(np.abs(again.payment - first.payment).max())
try:
    jax.jit(lambda k: mechanism.simulate(k, 5).payment)(key)
except dm.DynmechError as error:
    out["traced key"] = str(error)
print(json.dumps(out | {"small": small, "large": large}))
"""


@pytest.fixture(scope="module")
def found():
    results = []
    for wide in ("0", "1"):
        environment = os.environ | {"JAX_ENABLE_X64": wide}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads(done.stdout.splitlines()[-1]))
    return results


@pytest.mark.parametrize("wide", [0, 1])
def test_any_order_of_transformations_gives_the_same_numbers(found, wide):
    off = {k: x for k, x in found[wide]["small"].items() if x > (1e-12 if wide else 1e-5)}
    off |= {k: x for k, x in found[wide]["large"].items() if x > 1e-12}
    assert not off
    assert "simulate(key=...)" in found[wide]["traced key"]


def test_both_settings_of_jax_give_the_same_numbers_and_conversations(found):
    default, wide = found
    np.testing.assert_allclose(default["value"], wide["value"], rtol=0, atol=1e-12)
    assert default["play"][0] == wide["play"][0]
    assert default["play"][1] == pytest.approx(wide["play"][1], rel=1e-12)
    np.testing.assert_allclose(default["slope"], wide["slope"], rtol=1e-4, atol=1e-5)
