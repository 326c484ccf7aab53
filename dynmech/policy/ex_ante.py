"""What a policy attains on average over profiles, estimated where it was solved for some of them.

    E[V_1] = E over profiles drawn from the prior of V_1(profile),

each solved where it was not: at the outset, as in the middle of a conversation, what remains can be
solved by itself.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float

from dynmech._checks import flag, generator, whole
from dynmech.bounded import Bounded
from dynmech.market.profiles import Profiles, draw_profiles
from dynmech.policy.playable import beliefs_after
from dynmech.policy.priced import AbstractPriced
from dynmech.policy.questions import Place
from solvers import betting_lower, betting_upper

_MOST = 10_000
_CONFIDENCE = 0.95
_VERB = "estimate_ex_ante({}=...)".format


def estimate_ex_ante(
    policy: AbstractPriced, key: jax.Array, count: int = 256, common: bool = False
) -> Bounded:
    """See `EfficientPolicy.estimate_ex_ante`."""
    count = whole(2, _MOST)(_VERB("count"), count)
    drawn = _drawn(policy, key, count, flag(_VERB("common"), common))
    rows = np.concatenate([drawn.theta, drawn.signals], axis=1)
    unique, index = np.unique(rows, axis=0, return_inverse=True)
    n = policy.env.products
    found = np.array([_worth(policy, row[:n], row[n:]) for row in unique])[index.reshape(-1)]
    value, low, high = found.T
    if policy.confidence < 1:  # simulated without bias, each by itself
        low = high = value
    reach = _reach(policy)
    alpha = (1 - _CONFIDENCE) / 2
    return Bounded(
        value.mean(),
        betting_lower(low, -reach, alpha),
        betting_upper(high, reach, alpha),
        value.std(ddof=1) / np.sqrt(count),
        confidence=_CONFIDENCE,
    )


def _drawn(policy: AbstractPriced, key: jax.Array, count: int, common: bool) -> Profiles:
    """Profiles from the prior, each from a stream of its own: the same in every market if common.

    Else the market's own streams, so that estimates of different markets are independent.
    """
    env, words = policy.env, generator(_VERB("key"), key).integers(2**32, size=4).tolist()
    if not common:
        words += [int(policy.fingerprint[k : k + 8], 16) for k in (0, 8)]
    parts = env.values, env.tastes, env.signals.initial, env.utilities
    each = [draw_profiles(np.random.default_rng([*words, k]), *parts, 1) for k in range(count)]
    return Profiles(
        np.concatenate([x.theta for x in each]), np.concatenate([x.signals for x in each])
    )


def _worth(
    policy: AbstractPriced, theta: np.ndarray, signals: np.ndarray
) -> tuple[float, float, float]:
    """V_1 at one profile and bounds on it."""
    known, env = policy.profiles, policy.env
    same = (known.theta == theta).all(axis=1) & (known.signals == signals).all(axis=1)
    if same.any():
        at, figures = int(np.argmax(same)), policy.figures.value
        value, low, high = (x.ravel() for x in (figures.value, figures.lower, figures.upper))
        return float(value[at]), float(low[at]), float(high[at])
    evaluator = policy.evaluator
    belief = np.asarray(beliefs_after(env, signals[None])[0], float)
    there, place = evaluator.leave(Place(1, theta, belief, env.unaware))
    found = there.certify(place, None).attained
    value, low = float(found.value[0]), float(found.lower[0])
    return value, low, max(value, low)


def _reach(policy: AbstractPriced) -> Float[np.ndarray, ""] | float:
    """The most that a conversation can yield, or cost."""
    costs = float(np.max(policy.env.costs))
    if costs == 0:
        return policy.env.money_scale
    return policy.env.money_scale + costs * float(policy.env.horizon)
