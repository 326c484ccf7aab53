"""What a long-horizon solve checks before it starts."""

import math

import equinox as eqx
import jax
import numpy as np

from dynmech._checks import instance
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.cards import rounds_of
from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import ConstantValues
from solvers import AbstractCritic, AbstractLearner, Learned

_VERB = "solve_efficient_policy"
_MOST_PROFILES = 64


def require_few(count: int, verb: str = _VERB) -> None:
    """Raise `TooLarge` beyond the most profiles that one network is trained for, or played at."""
    if count > _MOST_PROFILES:
        must = f"hold at most {_MOST_PROFILES} profiles"
        do = "pass initial=env.sample_profiles(jax.random.key(0), 16)"
        raise TooLarge(describe(f"{verb}(initial=...)", must, count, do))


def check_long(env: RecommendationMDP, learner: AbstractLearner) -> None:
    """Raise unless a market fits a learner."""
    name = type(learner).__name__
    if env.displays is not None:
        must, do = f"show one product at a time for {name}()", "solve with BranchAndBound()"
        got = f"{len(env.controls)} displays"
        raise InvalidArgument(describe("RecommendationMDP(displays=...)", must, got, do))
    if env.horizon == math.inf or env.action_rule.lasts() is not None:
        must, do = "be finite", "use a long finite horizon"
        raise InvalidArgument(describe("RecommendationMDP(horizon=...)", must, rounds_of(env), do))
    if not isinstance(env.values, ConstantValues):
        must, do = "be ConstantValues", "solve shorter horizons with Exact() or BranchAndBound()"
        raise InvalidArgument(describe("RecommendationMDP(values=...)", must, "MarkovValues", do))


def read_critic(name: str, learned: Learned) -> AbstractCritic | None:
    """What a learner found, its arrays in NumPy. **Raises:** `InvalidArgument` for nonsense."""
    call = f"{name}.learn(...)"
    for value, kind, what in (
        (learned, Learned, "solvers.Learned(...)"),
        (getattr(learned, "critic", None), AbstractCritic | None, "an AbstractCritic, or none"),
    ):
        instance(kind, what)(call, value)
    critic = jax.tree.map(lambda x: np.asarray(x) if eqx.is_array(x) else x, learned.critic)
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(critic) if eqx.is_inexact_array(x)):
        must, do = "return a critic of finite numbers", "return critic=None where learning fails"
        raise InvalidArgument(describe(call, must, "NaN or inf", do))
    return critic
