"""Long-horizon policies that several files audit; each takes long to solve."""

import pytest

import dynmech as dm
from tests.helpers.long_markets import THREE, scrambled, solve, whispering


@pytest.fixture(scope="session")
def long_solved():
    env = whispering()
    policy = solve(env, initial=THREE)
    return env, policy, dm.solve_efficient_policy(env, initial=THREE, progress=False)


@pytest.fixture(scope="session")
def long_worse():
    """A policy far from efficient at profile 2, in a market where order matters."""
    return scrambled(solve(whispering(recall=True), initial=THREE), size=0.8, seed=4)
