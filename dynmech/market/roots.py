"""The initial profiles of a market."""

import math

import numpy as np

from dynmech._types import Numbers, module_of, precision, split_symbol
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles

_TOGETHER = 64  # profiles of symbols whose chances are found at once
LEAST_CHANCE = 1e-290  # of symbols; products with smaller ones have too few digits


def all_profiles(env: RecommendationMDP) -> Profiles:
    """Every initial profile, in the order of the axes P."""
    n = env.products
    index = np.indices(env.profile_shape).reshape(2 * n + 1, -1).T
    return Profiles(index[:, :n], index[:, n:])


def possible_profiles(env: RecommendationMDP, most: int) -> Profiles:
    """Every initial profile of positive probability, (B,), in the order of all of them.

    **Raises:** `MemoryError` where values of positive chance and symbols make more than `most`.
    """
    prior, alphabet = env.values.prior, env.initial_alphabet
    joint = math.prod(alphabet)
    if env.values.correlated:
        values = np.argwhere(prior > 0)
    else:
        ways = [np.flatnonzero(row > 0) for row in prior]
        count = math.prod(map(len, ways))
        if count * joint > most:
            raise MemoryError(f"{count} profiles of values x {joint} of signals")
        picked = split_symbol(np.arange(count), tuple(map(len, ways)))
        values = np.stack([way[k] for way, k in zip(ways, picked, strict=True)], axis=1)
    if len(values) * joint > most:
        raise MemoryError(f"{len(values)} profiles of values x {joint} of signals")
    signals = split_symbol(np.arange(joint), alphabet).T
    weights = np.asarray(env.tastes.weights, float)
    parts = np.array_split(signals, -(-joint // (64 * _TOGETHER)))
    mass = np.concatenate([signal_likelihood(env, part) @ weights for part in parts])
    signals = signals[mass > 0]
    return Profiles(np.repeat(values, len(signals), axis=0), np.tile(signals, (len(values), 1)))


def check_profiles(env: RecommendationMDP, profiles: Profiles) -> Profiles:
    """Return the profiles as integers, or raise if an index is outside its support."""
    call = "solve_efficient_policy(initial=...)"
    if not isinstance(profiles, Profiles):
        must = "be a Profiles(theta=(B, n), signals=(B, 1+n)) of indices"
        do = "draw some with env.sample_profiles(key, B)"
        raise InvalidArgument(describe(call, must, type(profiles), do))
    n, size = env.values.support.shape
    theta, signals = np.asarray(profiles.theta), np.asarray(profiles.signals)
    if theta.shape[1:] != (n,) or signals.shape != (len(theta), n + 1):
        must = f"have theta (B, {n}) and signals (B, {n + 1})"
        raise InvalidArgument(describe(call, must, (theta.shape, signals.shape)))
    if len(theta) == 0:
        raise InvalidArgument(describe(call, "hold at least one profile", 0))
    sizes = np.array(env.initial_alphabet)
    if (theta < 0).any() or (theta >= size).any():
        got = f"{theta.min()} to {theta.max()}"
        raise OutsideSupport(describe(call, f"have theta in 0..{size - 1}", got))
    if (signals < 0).any() or (signals >= sizes).any():
        got = f"{signals.min()} at least, {signals.max(axis=0).tolist()} at most"
        must = f"have signals from 0 on, below {sizes.tolist()}"
        raise OutsideSupport(describe(call, must, got))
    return profiles


def signal_likelihood(
    env: RecommendationMDP, signals: np.ndarray, utilities: Numbers | None = None
):
    """Probability of joint initial symbols (B, 1+n) given each taste, shape (B, m).

    0 where their chance is below 1e-290: they count as never heard.
    """
    initial = env.signals.initial
    with precision(env.gamma):
        if utilities is not None:
            return _heard(env, initial.likelihood(utilities, signals))
        # A few at a time, always as many: what is compiled for some serves any others.
        count, parts = len(signals), [np.zeros((0, env.tastes.size))]
        for low in range(0, count, _TOGETHER):
            at = np.minimum(np.arange(low, low + _TOGETHER), count - 1)
            part = np.asarray(initial.likelihood(env.utilities, signals[at]))
            parts.append(part[: count - low])
    return _heard(env, np.concatenate(parts))


def _heard(env: RecommendationMDP, law: Numbers):
    """The law of symbols without those that count as never heard."""
    arrays = module_of(law)
    chance = law @ np.asarray(env.tastes.weights, law.dtype)
    return arrays.where((chance >= LEAST_CHANCE)[:, None], law, 0.0)
