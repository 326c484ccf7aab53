"""Memory: what can happen is kept, and what does not fit is refused before it is allocated."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import dynmech as dm
from experiments._demo_market import Options, build, resolve
from experiments.benchmarks.instances import generic, scale, shop
from tests.helpers import ROOT

SCRIPT = """
import resource, sys
import dynmech as dm
from tests.market.test_memory import LARGE, market

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
dm.solve_efficient_policy(market(3, 8, 2), progress=False)
env, profiles = LARGE[sys.argv[1]]()
base = peak()
policy = dm.solve_efficient_policy(env, dm.Exact(memory=8e9), initial=profiles, progress=False)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_estimate_holds(name):
    given = [sys.executable, "-c", SCRIPT, name]
    done = subprocess.run(given, capture_output=True, text=True, check=True, cwd=ROOT)
    assert 1 / 1.5 < float(done.stdout) < 1.5
