"""Random markets against brute force: merging on and off, batches against full solves."""

import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market
from tests.helpers.oracle import money_scale, solve_by_brute_force
from tests.helpers.quantities import assert_same, at_profiles, market_of, quantities, solve

SHAPES = {
    "markov": {},
    "constant": {"constant": True, "symbols": (2, 2, 1), "initial_symbols": (1, 2, 3)},
    "one product": {"n": 1, "K": 3, "symbols": (2, 3), "initial_symbols": (3, 2)},
    "one product, three rounds": {"n": 1, "horizon": 3, "symbols": (2, 2), "zeros": 0.3},
    "three products": {
        "n": 3, "symbols": (2, 1, 2, 1), "initial_symbols": (1, 3, 1, 2), "recall": "ordered",
    },
    "one round": {"horizon": 1, "K": 3, "symbols": (1, 1, 1), "initial_symbols": (2, 3, 4)},
    "three rounds": {
        "horizon": 3, "symbols": (2, 1, 2), "initial_symbols": (2, 1, 3), "recall": "ordered",
    },
    "three constant rounds": {
        "horizon": 3, "constant": True, "symbols": (1, 2, 2), "biased": True, "zeros": 0.2,
    },
    "zeros": {"zeros": 0.3},
    "constant zeros": {"zeros": 0.4, "constant": True, "initial_symbols": (3, 2, 2)},
    "ties": {"ties": True},
    "constant ties and zeros": {"ties": True, "constant": True, "zeros": 0.3, "horizon": 3},
    "biased": {"biased": True, "recall": "last"},
    "nobody knows": {"private": False, "symbols": (3,), "initial_symbols": (2,)},
    "one value": {"K": 1, "symbols": (2, 2, 2), "initial_symbols": (1, 1, 1)},
    "no feedback": {"symbols": (1, 1, 1), "initial_symbols": (3, 2, 2), "horizon": 3},
}  # fmt: skip
WORTH = ("W", "W_marginal", "W_displayable")
BATCHED = ("zeros", "constant zeros", "three products", "markov", "ties")
SLOW = [(name, seed) for name in SHAPES for seed in range(2, 12)]


def check(case, merge):
    """Where values are rounding alone, so is the control taken: only worth is compared."""
    expected = solve_by_brute_force(case)
    policy = solve(market_of(case), merge)
    found = quantities(policy)
    assert found.keys() == expected.keys()
    keys = WORTH if "ill conditioned" in policy.solver else None
    assert_same(found, expected, money_scale(case), keys)


@pytest.mark.parametrize("name", SHAPES)
def test_brute_force(name):
    rng = np.random.default_rng([11, list(SHAPES).index(name)])
    case = random_market(rng, **SHAPES[name])
    for merge in (True, False):
        check(case, merge)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), SLOW)
def test_brute_force_many(name, seed):
    case = random_market(np.random.default_rng([13, seed]), **SHAPES[name])
    for merge in (True, False):
        check(case, merge)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(150))
def test_brute_force_any_shape(seed):
    check(any_market(np.random.default_rng([17, seed])), merge=bool(seed % 2))


def any_market(rng):
    n, horizon = (int(x) for x in rng.integers(1, 4, 2))
    return random_market(
        rng,
        n=n,
        horizon=min(horizon, 2) if n == 3 else horizon,
        m=int(rng.integers(1, 7)),
        K=int(rng.integers(1, 3)),
        symbols=tuple(int(x) for x in rng.integers(1, 3, n + 1)),
        initial_symbols=tuple(int(x) for x in rng.integers(1, 4, n + 1)),
        constant=bool(rng.integers(2)),
        ties=n > 1 and bool(rng.integers(2)),
        zeros=float(rng.choice([0.0, 0.3])),
        biased=bool(rng.integers(2)),
        private=bool(rng.integers(4)),
        recall=str(rng.choice(["perfect", "last", "ordered"])),
        positive=bool(rng.integers(2)),
    )


def every_profile(env):
    n = env.products
    index = np.indices(env.profile_shape).reshape(2 * n + 1, -1).T
    return dm.Profiles(index[:, :n], index[:, n:])


def picked(profiles, rows):
    return dm.Profiles(profiles.theta[rows], profiles.signals[rows])


@pytest.mark.parametrize("name", ["markov", "constant zeros", "ties"])
def test_batch_of_every_profile_is_the_full_solve(name):
    case = random_market(np.random.default_rng([19, BATCHED.index(name)]), **SHAPES[name])
    env = market_of(case)
    full, everyone = quantities(solve(env)), every_profile(env)
    policy = solve(env, initial=everyone)
    found = quantities(policy)
    expected = at_profiles(full, policy, everyone)
    assert len(expected) == 12
    assert_same(found, expected, env.money_scale)
    for key in ("gain_estimator", "gain_estimator_first", "gain_message", "gain_message_first"):
        assert_same(found, full, env.money_scale, [key])


@pytest.mark.parametrize("name", BATCHED)
def test_batch_of_some_profiles(name):
    """Values and all Groves totals at the batch's profiles; gains are those of fewer nodes."""
    rng = np.random.default_rng([23, BATCHED.index(name)])
    case = random_market(rng, **SHAPES[name])
    env = market_of(case)
    full, everyone = quantities(solve(env)), every_profile(env)
    some = picked(everyone, rng.choice(len(everyone), 5))  # with repetitions, in any order
    policy = solve(env, initial=some)
    found = quantities(policy)
    expected = at_profiles(full, policy, some)
    assert len(expected) == 12
    assert_same(found, expected, env.money_scale)
    for key in ("gain_estimator", "gain_message", "gain_message_first"):
        assert (found[key] <= full[key] + 1e-9 * env.money_scale).all()


def test_batch_unmerged_and_single():
    rng = np.random.default_rng(29)
    env = market_of(random_market(rng, **SHAPES["three constant rounds"]))
    one = picked(every_profile(env), [7])
    found = [quantities(solve(env, merge, one)) for merge in (True, False)]
    assert found[0]["W"].shape == (1,)
    assert_same(found[0], found[1], env.money_scale)


def test_window_totals_are_constant_along_own_axes():
    """A total may not move with the advertiser's own report: that is the Groves condition."""
    case = random_market(np.random.default_rng(31), zeros=0.3, initial_symbols=(2, 3, 2))
    policy = solve(market_of(case))
    n = len(case["gamma"])
    totals = quantities(policy)
    for key in ("phi_plus", "phi_minus", "window_floor", "window_ceiling"):
        for i in range(n):
            own = (i, n + 1 + i)
            spread = np.ptp(np.nan_to_num(totals[key][i], nan=0.0), axis=own)
            missing = np.isnan(totals[key][i])
            assert (missing.any(axis=own) == missing.all(axis=own)).all()
            np.testing.assert_array_equal(spread, 0.0)
