"""The initial profiles of a market."""

import numpy as np

from dynmech._types import precision
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles


def all_profiles(env: RecommendationMDP) -> Profiles:
    """Every initial profile, in the order of the axes P."""
    n = env.products
    index = np.indices(env.profile_shape).reshape(2 * n + 1, -1).T
    return Profiles(index[:, :n], index[:, n:])


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
        raise OutsideSupport(describe(call, f"have theta in 0..{size - 1}", int(theta.max())))
    if (signals < 0).any() or (signals >= sizes).any():
        raise OutsideSupport(describe(call, f"have signals below {tuple(sizes)}", signals.max(0)))
    return profiles


def signal_likelihood(env: RecommendationMDP, signals: np.ndarray, utilities=None):
    """Probability of joint initial symbols (B, 1+n) given each taste, shape (B, m)."""
    utilities = env.utilities if utilities is None else utilities
    with precision(env.gamma):
        return env.signals.initial.likelihood(utilities, signals)
