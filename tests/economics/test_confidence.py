"""Confidence statements hold where chance hides what matters, and say so where they cross."""

import dataclasses

import equinox as eqx
import numpy as np
import pytest

import dynmech as dm
from experiments.coverage import Options, Truth, count, make_case

POOR = dm.Neural(sweeps=1, runs=2, steps=1, batch=2, cases=2, chunk=128)


@pytest.fixture(scope="module")
def rare():
    """A symbol of chance 2e-4 that tells a taste at which much is at stake; three rounds."""
    env = make_case("rare symbol").market()
    exact = dm.solve_efficient_policy(env, progress=False)
    sure = dm.Certificate(runs=128, marginal_runs=0, walk=0)
    solver = dataclasses.replace(POOR, certificate=sure)
    solved = dm.solve_efficient_policy(env, solver, initial=one(env), progress=False)
    return env, float(exact.value.ravel()[0]), solved


def one(env):
    return dm.Profiles(np.zeros((1, env.products), int), np.zeros((1, env.products + 1), int))


def test_no_conversation_need_meet_what_is_rare(rare):
    """Student's t put most of these bounds above the value of the policy."""
    env, W, policy = rare
    value = Truth(env, policy).surplus(0, 0)
    found = [policy.start(profile=0).certify(dm.Certificate(runs=128, seed=k)) for k in range(10)]
    lower = np.array([float(bounds.lower[0]) for bounds in found])
    assert (lower > value + 1e-12).sum() <= 3  # four have a chance below one in 1,000 at 95%
    assert (value - lower <= 1e-3).all()
    assert all(float(bounds.upper[0]) >= W - 1e-12 for bounds in found)


def test_audits_do_not_refute_what_cannot_fail_and_show_what_contradicts(rare):
    _, _, policy = rare
    audit = dm.DynamicTeamMechanism(policy, dm.groves.Zero()).audit(conversations=60)
    assert not audit.verdicts["incentives"].startswith("refuted")
    assert audit.measured is not None
    assert (audit.measured.gain.lower <= 0).all()
    most = float(audit.incentive_bound.max())
    crossed = eqx.tree_at(lambda a: a.gain.lower, audit, np.full_like(audit.gain.lower, most + 1))
    assert crossed.verdicts["incentives"] == "unresolved"
    assert f"{most + 1.0:.4g}" in crossed.summary()
    assert f"{most:.4g}" in crossed.summary()


@pytest.mark.slow
@pytest.mark.parametrize("name", Options().markets)
def test_statements_are_false_no_more_often_than_they_say(name):
    """Sixty each at 95%: nine or more have a chance below one in 200."""
    for row in count(name, Options(certificates=60)):
        assert row["false"] <= 8, row
