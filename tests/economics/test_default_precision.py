"""Users who leave JAX at its default of float32: answers, audits and ledgers are in float64."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import CASES, ROOT
from tests.helpers.oracle import money_scale
from tests.helpers.quantities import TOLERANCE, assert_same

SCRIPT = """
import json, sys, warnings
import jax, numpy as np
import dynmech as dm
from tests.helpers.quantities import market_of, quantities, solve
from tests.helpers.small import logit_market

assert not jax.config.jax_enable_x64
for case, file in zip(sys.argv[1::2], sys.argv[2::2]):
    with np.load(case) as archive:
        policy = solve(market_of(dict(archive)))
    np.savez(file, **quantities(policy))
out = {"x64 afterwards": bool(jax.config.jax_enable_x64)}

policy = solve(logit_market(seed=1, advertisers=None, platform=None))
mechanism = dm.DynamicTeamMechanism(policy)
chat = policy.start((0, 1), (0, 0, 0))
rating = 1 / 3
core = mechanism.settle(chat.step(chat.recommendation), rating).core[-1]
j, support = chat.recommendation, policy.env.values.support
exact = np.full(2, -(support[j, (0, 1)[j]] + rating))
exact[j] = -rating
out["ledger"] = float(np.abs(core - exact).max())
for name, call in {
    "theta_support": lambda: policy.revalue(theta_support=support),
    "gamma": lambda: policy.revalue(gamma=policy.env.gamma),
    "prior": lambda: policy.revalue(prior=policy.env.tastes.weights),
    "grad": lambda: jax.grad(lambda x: policy.revalue(theta_support=x).value.sum())(support),
    "jit": lambda: jax.jit(lambda x: policy.revalue(theta_support=x).value)(support),
}.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = np.asarray(call())
    out[name] = [sorted({str(w.message)[:60] for w in caught})]
    if name in ("theta_support", "gamma", "prior", "jit"):
        out[name].append(float(np.abs(found - policy.value).max()))
print(json.dumps(out))
"""
NAMES = ("biased_estimator", "zeros")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder, results = tmp_path_factory.mktemp("plain"), {}
    environment = {
        key: value for key, value in os.environ.items() if key != "JAX_ENABLE_X64"
    } | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}  # fmt: skip
    files = [(str(CASES / f"{name}.npz"), str(folder / f"{name}.npz")) for name in NAMES]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *sum(files, ())],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, (_, file) in zip(NAMES, files, strict=True):
        with np.load(file) as archive:
            results[name] = dict(archive)
    return results | {"rest": json.loads(done.stdout)}


def test_answers_are_exact_and_other_numbers_come_in_silence(found):
    """One test, as it is one process: expected arrays, ledgers, revaluations."""
    for name in NAMES:
        with np.load(CASES / f"{name}.npz") as archive:
            case = dict(archive)
        expected = {k.removeprefix("expected_"): v for k, v in case.items() if "expected_" in k}
        assert_same(found[name], expected, money_scale(case))
    rest = found["rest"]
    assert rest["x64 afterwards"] is False
    assert rest["ledger"] <= TOLERANCE
    for argument in ("theta_support", "gamma", "prior", "jit"):
        warned, error = rest[argument]
        assert warned == [], argument
        assert error <= 1e-5, argument  # float32, values of order one
    assert rest["grad"] == [[]]
