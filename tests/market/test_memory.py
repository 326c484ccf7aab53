"""Memory: what can happen is kept, and what does not fit is refused before it is allocated."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import dynmech as dm
from experiments._demo_market import Options, build, resolve
from experiments.benchmarks.instances import generic, hidden_taste, scale, shop
from tests.helpers import ROOT

SCRIPT = """
import re, sys
from pathlib import Path
import jax
import dynmech as dm
from tests.market.test_memory import EVERY

def peak():
    told = Path("/proc/self/status").read_text()  # of this program, not of who started it
    return 1024.0 * int(re.search(r"VmHWM:\\s*(\\d+)", told)[1])

jax.numpy.zeros(1).block_until_ready()
(env, profiles), listed = EVERY[sys.argv[1]](), {"yes": True, "no": False}.get(sys.argv[2])
solver, base = dm.Exact(memory=8e9, listed=listed), peak()
policy = dm.solve_efficient_policy(env, solver, initial=profiles, progress=False)
print((peak() - base) / policy.work.memory)
"""


def profiles_of(env, count):
    return env, env.sample_profiles(jax.random.key(0), count)


LARGE = {
    "G(50, 7)": lambda: (generic(50, 7), None),
    "G(200, 7)": lambda: (generic(200, 7), None),
    "G(50, 8)": lambda: (generic(50, 8), None),
    "S(20, 256, 3)": lambda: (scale(20, 256, 3), None),
    "recall": lambda: (market(20, 512, 3), None),
    "queries by recall": lambda: (shop(30, 256, 3, "perfect"), None),
    "half a recall": lambda: (shop(20, 256, 3, "imperfect"), None),
    "50 on screen": lambda: (shop(50, 256, 3, "last"), None),
    "100 on screen": lambda: (shop(100, 256, 3, "last"), None),
    "many roots": lambda: profiles_of(build(resolve(Options(market="cars"), "cars"))[1], 16),
}


SMALL = {
    "tiny": lambda: (market(3, 8, 2), None),
    "H(50, 6)": lambda: (hidden_taste(50, 6), None),
    "H(200, 9)": lambda: (hidden_taste(200, 9), None),
}
MORE = {
    "12 products recalled": lambda: (market(12, 64, 4), None),
    "6 rounds of recall": lambda: (market(6, 64, 6), None),
    "displays": lambda: (
        dataclasses.replace(shop(8, 64, 4, "last"), displays=dm.Displays(2)),
        None,
    ),
    "7,776 profiles": lambda: (told(market(5, 50, 4)), None),
}
EVERY = SMALL | MORE | LARGE


def told(env):
    """Everybody's value is one of three, and every advertiser's first signal one of two."""
    support = np.random.default_rng(0).uniform(0.3, 1.5, (5, 3))
    signals = dataclasses.replace(env.signals, initial=dm.GaussianSignals(None, 0.8, 2))
    return dataclasses.replace(env, values=dm.ConstantValues(support), signals=signals)


def market(products, tastes, rounds):
    rng = np.random.default_rng(0)
    grid = dm.TasteGrid(rng.normal(size=(tastes, 3)), np.full(tastes, 1 / tastes))
    rule = dm.PerfectRecall(dm.Logit(0.4), 0.7)
    signals = dm.SignalStructure(feedback=dm.RatingFeedback(1.0, 3))
    values = dm.ConstantValues(rng.uniform(0.3, 1.5, products))
    gamma = rng.normal(size=(products, 3))
    return dm.RecommendationMDP(gamma, grid, rounds, rule, signals, values)


def test_only_products_seen_have_a_row():
    env = market(6, 4, 2)
    policy = dm.solve_efficient_policy(env, progress=False)
    found = policy.compiled
    assert found.stop.shape[1] == 2
    rule, every = env.action_rule, np.arange(len(found.query))
    for edge, law in zip(every, found.actions(every), strict=True):
        given = found.edges.memory[edge], found.edges.control[edge], env.utilities
        np.testing.assert_allclose(law, rule.probabilities(*given), atol=1e-15)
    np.testing.assert_array_equal(found.actions(every)[:, :6] > 0, found.buyable())
    taste = every % 4
    np.testing.assert_array_equal(
        found.actions_at(every, taste), found.actions(every)[every, :, taste]
    )


def test_what_does_not_fit_is_refused_first():
    with pytest.raises(dm.TooLarge, match="situations"):
        dm.solve_efficient_policy(market(12, 512, 4), dm.Exact(memory=2e7))


def holds(name, listed):
    given = [sys.executable, "-c", SCRIPT, name, listed]
    fresh = {name: x for name, x in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(given, capture_output=True, text=True, check=True, cwd=ROOT, env=fresh)
    assert 1 / 1.5 < float(done.stdout) < 1.5


@pytest.mark.parametrize("name", SMALL)
def test_the_estimate_of_what_is_small_holds(name):
    holds(name, "yes")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["H(200, 9)", *MORE])
@pytest.mark.parametrize("listed", ["yes", "no"])
def test_the_estimate_holds_whether_the_last_round_is_listed(name, listed):
    holds(name, listed)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_estimate_holds(name):
    holds(name, "either")
