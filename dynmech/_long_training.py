"""What a long-horizon solve checks before it starts, and how it trains."""

import math
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from dynmech._certify import Certificate
from dynmech._environment import RecommendationMDP
from dynmech._errors import (
    InvalidArgument,
    TooLarge,
    TrainingDiverged,
    describe,
    import_extra,
)
from dynmech._profiles import Profiles, all_profiles, check_profiles
from dynmech._values import ConstantValues
from solvers import Diverged, Neural, NeuralCheckpoint, Training, begin, fingerprint, train

_VERB = "solve_long_horizon"
_MOST_PROFILES = 64


def train_network(process, roots, solver, checkpoint, progress) -> Training:
    """Train from the checkpoint, if there is one, in float32; `TrainingDiverged` if it blows up."""
    with jax.enable_x64(False):
        start, keep, after = begin(solver), None, lambda training: None
        if checkpoint is not None:
            orbax = import_extra("orbax.checkpoint", "train", f"{_VERB}(checkpoint=...)")
            try:
                keep = NeuralCheckpoint(orbax, Path(checkpoint), _mark(process, roots, solver))
            except ValueError as error:
                must = "name a folder of the same problem and solver"
                call = f"{_VERB}(checkpoint=...)"
                do = "choose a new folder or delete it"
                raise InvalidArgument(describe(call, must, str(error), do)) from error
            start, after = keep.load(start) or start, keep.save
        try:
            return train(process, roots, solver, start, after, progress)
        except Diverged as error:
            do = "lower the rate, or clip more"
            if checkpoint is not None:
                do += f"; the last good sweep is kept in {checkpoint}"
            call, must = "Neural(learning_rate=..., clip=...)", "let training converge"
            raise TrainingDiverged(describe(call, must, str(error), do)) from error
        finally:
            if keep is not None:
                keep.close()


def _mark(process, roots, solver) -> str:
    arrays = [x for x in jax.tree.leaves((process, roots)) if eqx.is_array(x)]
    settings = np.frombuffer(repr((solver, process.horizon)).encode(), np.uint8)
    return fingerprint([*map(np.asarray, arrays), settings])


def long_profiles(env: RecommendationMDP, initial: Profiles | None) -> Profiles:
    """The profiles asked for, all of them by default; `TooLarge` beyond the most."""
    count = math.prod(env.profile_shape) if initial is None else len(initial)
    if count > _MOST_PROFILES:
        must = f"hold at most {_MOST_PROFILES} profiles"
        do = "pass initial=env.sample_profiles(jax.random.key(0), 16)"
        raise TooLarge(describe(f"{_VERB}(initial=...)", must, count, do))
    return all_profiles(env) if initial is None else check_profiles(env, initial)


def check_long(env, solver, certificate) -> None:
    """Raise unless market, solver and certificate fit a long horizon."""
    if not isinstance(solver, Neural):
        raise InvalidArgument(describe(f"{_VERB}(solver=...)", "be Neural(...)", type(solver)))
    if not isinstance(certificate, Certificate):
        must = "be Certificate(...)"
        raise InvalidArgument(describe(f"{_VERB}(certificate=...)", must, type(certificate)))
    if env.horizon == math.inf:
        must, do = "be finite", "use a long finite horizon"
        raise InvalidArgument(describe("RecommendationMDP(horizon=...)", must, env.horizon, do))
    if not isinstance(env.values, ConstantValues):
        must, do = "be ConstantValues", "solve shorter horizons with Exact() or BranchAndBound()"
        raise InvalidArgument(describe("RecommendationMDP(values=...)", must, "MarkovValues", do))
    for name in ("sweeps", "runs", "steps", "batch", "cases", "width", "summary", "chunk"):
        if getattr(solver, name) < 1:
            must = "be at least 1"
            raise InvalidArgument(describe(f"Neural({name}=...)", must, getattr(solver, name)))
    for name in ("learning_rate", "clip"):
        if not 0 < getattr(solver, name) < math.inf:
            must = "be positive and finite"
            raise InvalidArgument(describe(f"Neural({name}=...)", must, getattr(solver, name)))
    for name in ("persistence", "explore"):
        if not 0 <= getattr(solver, name) <= 1:
            must = "be in [0, 1]"
            raise InvalidArgument(describe(f"Neural({name}=...)", must, getattr(solver, name)))
