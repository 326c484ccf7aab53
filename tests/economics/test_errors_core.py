"""Bad input: one clear error each, naming argument, requirement, value and remedy."""

import functools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import dynmech as dm
from tests.helpers import ROOT
from tests.helpers.mistakes_in_use import MISTAKES
from tests.helpers.quantities import solve
from tests.helpers.small import logit_market


@functools.cache
def made():
    """Every mistake, made in a process of its own: the tests' type checks would come first."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.helpers.mistakes_in_use"],
        capture_output=True, text=True, env=environment, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name):
    expected, found = MISTAKES[name], made()[name]
    assert found is not None, "accepted in silence"
    message = found["message"]
    assert "DynmechError" in found["classes"], (found["classes"][0], message)
    assert expected.kind in found["classes"], (found["classes"][0], message)
    assert "ValueError" in found["classes"]
    missing = [word for word in expected.words if word.lower() not in message.lower()]
    assert not missing, (missing, message)
    assert re.search(r"must |needs ", message), message  # the requirement
    assert message.endswith(".")
    assert len(message) < 600


def test_enough_mistakes_are_made():
    kinds = {one.kind for one in MISTAKES.values()}
    assert kinds >= {
        "InvalidArgument", "InvalidProbability", "NotFinite", "OutsideSupport", "TooLarge",
        "UnseenPurchase",
    }  # fmt: skip
    assert len(MISTAKES) > 100


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_a_user_who_never_stops_asking_is_allowed(horizon):
    env = logit_market(horizon=horizon, rule=dm.PerfectRecall(dm.Logit(0.5), 1.0))
    policy = solve(env)
    for table in (policy.value, policy.marginal_value, policy.purchase, policy.user_utility):
        np.testing.assert_array_equal(table, 0.0)
    audit = dm.DynamicTeamMechanism(policy).audit()
    np.testing.assert_array_equal(audit.incentive_gain, 0.0)
    chat = policy.start(profile=0) if policy.batch else policy.start((0, 0), (0, 0, 0))
    for _ in range(horizon - 1):
        chat = chat.step("query", signals={"platform": 0, "product 0": 0, "product 1": 0})
        assert not chat.ended
    assert chat.step("query").ended


def test_a_user_who_stops_asking_once_shown_something():
    """Asks for ever while the screen is empty: the platform is better off showing something."""
    query = dm.ProductQuery(np.array([0.0, 0.0]), none=1.0)
    env = logit_market(horizon=3, rule=dm.LastShownOnly(dm.Logit(0.5), query), advertisers=None)
    policy = solve(env)
    weight, u = env.tastes.weights, env.utilities
    for where in np.ndindex(policy.value.shape):
        theta = env.values.support[np.arange(2), where[:2]]
        signal = env.signals.initial.likelihood(u, np.array([where[2:]]))
        belief = weight * np.asarray(signal)[0]
        worth = ((theta[:, None] + u) / (1 + np.exp(-u / 0.5)) * belief).sum(1) / belief.sum()
        np.testing.assert_allclose(policy.value[where], max(worth.max(), 0.0), atol=1e-12)


def test_impossible_profile_cannot_be_started():
    env = dm.RecommendationMDP(
        [[1.0]], dm.TasteGrid([[1.0]], [1.0]), 1, dm.PerfectRecall(dm.Threshold(), 0.0),
        dm.SignalStructure(dm.JointSignals([[[0.0, 1.0]]])), dm.ConstantValues([1.0]),
    )  # fmt: skip
    policy = solve(env)
    assert np.isnan(policy.value[0, 0, 0])
    np.testing.assert_allclose(policy.value[0, 0, 1], 2.0, rtol=1e-15)
    np.testing.assert_allclose(policy.ex_ante_value, 2.0, rtol=1e-15)
    with pytest.raises(dm.ImpossibleProfile, match="positive probability"):
        policy.start(signals=(0, 0))
    assert policy.start(signals=(0, 1)).recommendation == 0
