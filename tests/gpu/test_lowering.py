"""Every program that a job compiles is one for CUDA as well, and none of them calls the host."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers import ROOT
from tests.helpers.small import logit_market

HOST = ("callback", "infeed", "outfeed", "SendToHost", "RecvFromHost")
LOWERED = """
import equinox as eqx, jax, numpy as np
jax.config.update("jax_enable_x64", True)
real, seen = eqx.filter_jit, {}

def recording(function):
    program = real(function)
    def call(*given, **named):
        name = f"{function.__module__}.{function.__qualname__}"
        if name not in seen:
            arrays, rest = eqx.partition((given, named), eqx.is_array)
            def lowered(arrays):
                given, named = eqx.combine(arrays, rest)
                return eqx.filter(function(*given, **named), eqx.is_array)
            traced = jax.jit(lowered).trace(arrays)
            seen[name] = traced.lower(lowering_platforms=("cuda",)).as_text()
        return program(*given, **named)
    return call

eqx.filter_jit = recording  # before the first program is made
import dynmech as dm
import solvers.tree.exact
solvers.tree.exact.HOST_SECONDS = 0.0  # a program even for what NumPy does sooner
from solvers.told.informed import HeardBound
from tests.gpu.test_lowering import HOST
from tests.helpers.small import logit_market

env = logit_market(seed=1)
mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))
mechanism.audit()
log = mechanism.simulate(jax.random.key(0), 200).to_log()
dm.fit(log, env, ["choice scale"], progress=False)
two = dm.Profiles(np.array([[0, 0], [1, 1]]), np.array([[0, 0, 0], [1, 1, 1]]))
certificate = dm.Certificate(runs=30, marginal_runs=30, walk=0, work=1e4)
solver = dm.Neural(sweeps=1, runs=4, steps=2, batch=4, width=4, summary=2, cases=2,
                   certificate=certificate)
dm.solve_efficient_policy(env, solver, initial=two, progress=False)
pay, law = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[[0.8, 0.2], [0.2, 0.8]]] * 2)
heard, even = HeardBound(pay, np.full((2, 2), 0.9), law), np.array([[0.5, 0.5]])
heard.bound(even, heard.begin(even, 4), 2)
coarse = lambda line: "dot_general" in line and "f32" in line and "HIGHEST" not in line
for name, text in seen.items():
    rounded = [f"rounded: {line.strip()}" for line in text.splitlines() if coarse(line)]
    print(name, [word for word in HOST if word in text] + rounded)
"""


def test_the_recursion_lowers_for_cuda_without_the_host():
    env = logit_market(m=2, horizon=1, seed=1)
    policy = dm.solve_efficient_policy(env, progress=False)
    program = jax.jit(lambda support: policy.revalue(support).value)
    traced = program.trace(jax.numpy.asarray(env.values.support))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "dot_general" in text
    assert not [word for word in HOST if word in text]


def test_products_in_float32_keep_their_bits():
    env = logit_market(m=2, horizon=1, seed=1)
    single = dataclasses.replace(env, gamma=np.asarray(env.gamma, np.float32))
    policy = dm.solve_efficient_policy(single, progress=False)
    with jax.enable_x64(False):
        program = jax.jit(lambda gamma: policy.revalue(gamma=gamma).value)
        traced = program.trace(jax.numpy.asarray(single.gamma))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert [line for line in products if "precision = [HIGHEST, HIGHEST]" not in line] == []


@pytest.mark.slow
def test_all_programs_of_the_main_jobs_lower_for_cuda_without_the_host():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", LOWERED],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    programs = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for name in ("solvers.tree.bellman.bellman_step", "solvers.neural.neural._steps",
                 "solvers.neural.rollout._step", "solvers.confidence.runs._enumerate",
                 "solvers.told.informed._sweeps"):  # fmt: skip
        assert name in programs
    assert {name: words for name, words in programs.items() if words != "[]"} == {}
