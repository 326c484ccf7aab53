"""Initial profiles: values and signals of period 1, as indices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from dynmech._checks import generator, indices, whole
from dynmech._types import precision
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.values import profile_grid

if TYPE_CHECKING:
    from dynmech.market.environment import RecommendationMDP


_MOST_DRAWN = 10**7


class Profiles(eqx.Module):
    """A batch of B initial profiles.

    - `theta`: shape (B, n), indices into each advertiser's support.
    - `signals`: shape (B, 1 + n), indices into the alphabets of platform and advertisers.
    """

    theta: Int[np.ndarray, "B n"] = eqx.field(
        converter=partial(indices(None, None), "Profiles(theta=...)")
    )
    signals: Int[np.ndarray, "B n1"] = eqx.field(
        converter=partial(indices(None, None), "Profiles(signals=...)")
    )

    def __len__(self) -> int:
        return self.theta.shape[0]


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


def sample_profiles(env: RecommendationMDP, key: jax.Array, count: int) -> Profiles:
    """Draw profiles from the prior: a taste, then signals given it; values independently."""
    count = whole(1, _MOST_DRAWN)("sample_profiles(count=...)", count)
    env = env.with_cuts_found_anew()
    rng = generator("sample_profiles(key=...)", key)
    n, size = env.values.support.shape
    if env.values.correlated:
        grid = profile_grid(n, size)
        theta = grid[rng.choice(len(grid), count, p=env.values.prior.ravel())]
    else:
        theta = np.stack([rng.choice(size, count, p=row) for row in env.values.prior], axis=1)
    omega = rng.choice(env.tastes.size, count, p=np.asarray(env.tastes.weights, float))
    signals = np.stack([env.signals.initial.draw(rng, env.utilities, w) for w in omega])
    return Profiles(theta.astype(np.int64), signals.astype(np.int64))


def signal_likelihood(env: RecommendationMDP, signals: np.ndarray, utilities=None):
    """Probability of joint initial symbols (B, 1+n) given each taste, shape (B, m)."""
    utilities = env.utilities if utilities is None else utilities
    with precision(env.gamma):
        return env.signals.initial.likelihood(utilities, signals)
