"""Averages over profiles from some of them: close to the exact one, as sure as they say."""

import equinox as eqx
import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.small import logit_market


@pytest.fixture(scope="module")
def solved():
    env = logit_market(horizon=2, seed=3)
    batch = env.sample_profiles(jax.random.key(9), 2)
    every = dm.solve_efficient_policy(env, progress=False)
    return env, every, dm.solve_efficient_policy(env, initial=batch, progress=False)


def test_a_batch_estimates_what_all_profiles_say(solved):
    _, every, some = solved
    with pytest.raises(dm.DynmechError, match="estimate_ex_ante"):
        _ = some.ex_ante_value
    key = jax.random.key(0)
    found, same = (p.estimate_ex_ante(key, 400, common=True) for p in (some, every))
    assert abs(found.value - every.ex_ante_value) < 4 * found.error
    assert found.lower <= every.ex_ante_value <= found.upper
    assert found.value == pytest.approx(float(same.value), abs=1e-9)
    spread = (every.probability() * (every.value - every.ex_ante_value) ** 2).sum()
    assert found.error == pytest.approx(float(np.sqrt(spread / 400)), rel=0.2)


def test_common_draws_tell_markets_apart_with_less_error(solved):
    env, every, _ = solved
    richer = eqx.tree_at(lambda e: e.values.support, env, env.values.support + 0.01)
    other = dm.solve_efficient_policy(richer, progress=False)
    truth, errors = other.ex_ante_value - every.ex_ante_value, []
    for common in (True, False):
        moves = []
        for key in jax.random.split(jax.random.key(1), 8):
            pair = (p.estimate_ex_ante(key, 40, common).value for p in (other, every))
            moves.append(float(next(pair) - next(pair)))
        errors.append(np.std(np.array(moves) - truth))
    assert errors[0] < errors[1] / 5


def test_a_recommender_of_ones_own_is_asked_at_profiles_drawn(solved):
    env = solved[0]
    batch = env.sample_profiles(jax.random.key(9), 1)

    def always(belief, memory, theta, period):
        return 0

    given = dm.GivenPolicy(env, always, initial=batch)
    found = given.estimate_ex_ante(jax.random.key(0), 16)
    true = dm.GivenPolicy(env, always).ex_ante_value
    assert abs(found.value - true) < 5 * found.error
    table = solved[1].with_actions([np.zeros_like(taken) for taken in solved[1].actions])
    with pytest.raises(dm.InvalidArgument, match="stay on the tree"):
        table.start(profile=0).step("query", shown=-1)
    with pytest.raises(dm.InvalidArgument, match="count"):
        solved[1].estimate_ex_ante(jax.random.key(0), 1)
