"""What a long-horizon solve checks before it starts, and how it trains."""

import dataclasses
import math

import equinox as eqx
import jax
import numpy as np

from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import ConstantValues
from dynmech.solve.certificates import Certificate
from solvers import Diverged, Neural, NeuralCheckpoint, Training, Unkept, begin, fingerprint, train

_VERB = "solve_efficient_policy"
_MOST_PROFILES = 64


def train_network(
    process, roots, solver, checkpoint, progress, mesh: jax.sharding.Mesh | None = None
) -> Training | None:
    """Train from the checkpoint, if there is one, in float32; None where it diverges."""
    with jax.enable_x64(False):
        start, after = begin(solver), lambda training: None
        try:
            if checkpoint is not None:
                keep = NeuralCheckpoint(checkpoint, training_mark(process, roots, solver))
                start, after = keep.load(start) or start, keep.save
            return train(process, roots, solver, start, after, progress, mesh)
        except Unkept as error:
            raise InvalidArgument(str(error)) from error
        except Diverged:
            return None


def training_mark(process, roots, solver) -> str:
    """Digest of all that a training depends on."""
    arrays = [x for x in jax.tree.leaves((process, roots)) if eqx.is_array(x)]
    solver = dataclasses.replace(solver, certificate=None)
    settings = np.frombuffer(repr((solver, process.horizon)).encode(), np.uint8)
    return fingerprint([*map(np.asarray, arrays), settings])


def require_few(count: int) -> None:
    """Raise `TooLarge` beyond the most profiles that one network is trained for."""
    if count > _MOST_PROFILES:
        must = f"hold at most {_MOST_PROFILES} profiles"
        do = "pass initial=env.sample_profiles(jax.random.key(0), 16)"
        raise TooLarge(describe(f"{_VERB}(initial=...)", must, count, do))


def check_long(env, solver, certificate) -> None:
    """Raise unless market, solver and certificate fit a long horizon."""
    if not isinstance(env, RecommendationMDP):
        raise InvalidArgument(describe(f"{_VERB}(env=...)", "be RecommendationMDP(...)", type(env)))
    if not isinstance(solver, Neural):
        raise InvalidArgument(describe(f"{_VERB}(solver=...)", "be Neural(...)", type(solver)))
    if not isinstance(certificate, Certificate):
        must = "be Certificate(...)"
        raise InvalidArgument(describe("Neural(certificate=...)", must, type(certificate)))
    if env.displays is not None:
        must, do = "show one product at a time for Neural()", "solve with BranchAndBound()"
        got = f"{len(env.controls)} displays"
        raise InvalidArgument(describe("RecommendationMDP(displays=...)", must, got, do))
    if env.horizon == math.inf:
        must, do = "be finite", "use a long finite horizon"
        raise InvalidArgument(describe("RecommendationMDP(horizon=...)", must, env.horizon, do))
    if not isinstance(env.values, ConstantValues):
        must, do = "be ConstantValues", "solve shorter horizons with Exact() or BranchAndBound()"
        raise InvalidArgument(describe("RecommendationMDP(values=...)", must, "MarkovValues", do))
