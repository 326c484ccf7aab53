"""Ratings in a log: how they are distributed given the taste.

With a + b u the rating's middle and s its deviation, log N(rating; a + b u, s^2) is quadratic in
the rating. Where ratings after purchases are cut at a range, one at an end counts by the chance of
what lies beyond, Phi((low - middle) / s) or Phi((middle - high) / s).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._types import Index, Numbers
from dynmech.errors import InvalidArgument, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.settlements import AbstractSettlementSignal

_LOW, _HIGH = 2, 3  # kinds of ratings at the ends of their range


def utilities_of(env: RecommendationMDP) -> Float[Array, "n m"]:
    """u_i(omega), traceable in the tastes."""
    return jnp.asarray(env.gamma) @ jnp.asarray(env.tastes.points).T


def reading(env: RecommendationMDP, product: Index, period: Index) -> Numbers | None:
    """Standard deviation of a numeric answer about a product shown, money; None if symbols come."""
    noise = getattr(env.signals.feedback, "reading_noise", None)
    return None if noise is None else noise(product, period, env.products)


def at_ends(
    env: RecommendationMDP, scale: tuple[float, float] | None, rating: Float[np.ndarray, " k"]
) -> Int[np.ndarray, " k"]:
    """1 and 2 for ratings after purchases at the low and the high end of their range, else 0.

    **Raises:** `InvalidArgument` where it is not known how such ratings are distributed.
    """
    _check_noise(env.signals.settlement, np.asarray(env.gains, float))
    _, low, high = _cut(env.signals.settlement)
    if not np.isfinite([low, high]).any():
        return np.zeros(len(rating), np.int64)
    if scale is None:
        must = "say the scale of ratings that are cut at a range"
        do = "pass scale=(a, b), rating = a + b u + noise"
        raise InvalidArgument(describe("Log.from_frame(scale=...)", must, None, do))
    money = (rating - scale[0]) / scale[1]  # larger numbers may be worse ratings
    slack = 1e-9 * (high - low)
    below, above = money <= low + slack, money >= high - slack
    return np.where(below, _LOW - 1, np.where(above, _HIGH - 1, 0))


def rating_law(
    env: RecommendationMDP,
    kinds: Int[Numbers, "C 3"],
    period: Int[Numbers, " E"],
    scale: tuple[Any, Any],
) -> Float[Array, "C 3 m"]:
    """Coefficients of number, sum and sum of squares of each kind of rating; traced.

    **Arguments:** `kinds`, `period` (of edges): see `Situations`; `scale`: (a, b).
    """
    utilities, (a, b) = utilities_of(env), scale
    if not len(kinds):
        return jnp.zeros((0, 3, utilities.shape[1]), utilities.dtype)
    leaving = jnp.asarray(env.exit_value)
    deviation, low, high = _cut(env.signals.settlement)
    if deviation is None:
        deviation = env.signals.settlement.noise(utilities - leaving)
    settled = jnp.broadcast_to(
        jnp.asarray(1.0 if deviation is None else deviation), utilities.shape
    )

    def coefficients(product: Array, kind: Array, when: Array):
        u = utilities[product] - jnp.where(kind > 0, leaving, 0.0)
        asked = reading(env, product, when)
        noise = settled[product] if asked is None else jnp.where(kind > 0, settled[product], asked)
        s = jnp.broadcast_to(noise, u.shape) * b
        middle = a + b * u
        constant = -(middle**2) / (2 * s**2) - 0.5 * jnp.log(2 * jnp.pi * s**2)
        inside = jnp.stack([constant, middle / s**2, -0.5 / s**2])
        if not np.isfinite([low, high]).any():
            return inside
        beyond = jnp.where(kind == _LOW, a + b * low - middle, middle - a - b * high) / s
        ends = jax.scipy.special.log_ndtr(beyond)
        return jnp.where(kind >= _LOW, jnp.stack([ends, 0 * u, 0 * u]), inside)

    edge, product, kind = jnp.asarray(kinds).T
    return jax.vmap(coefficients)(product, kind, jnp.asarray(period)[edge])


def _cut(sent: AbstractSettlementSignal) -> tuple[Numbers | float | None, float, float]:
    """The rating's deviation, None where only its noise is known, and the ends of its range."""
    law = sent.normal()
    return (None, -np.inf, np.inf) if law is None else law


def _check_noise(sent: AbstractSettlementSignal, gains: np.ndarray) -> None:
    """Raise for ratings that are not known to lie around the utility, with some spread."""
    spread, law = np.inf, sent.normal()
    try:
        found = jax.eval_shape(lambda u: law[0] if law else sent.noise(u), gains)
        if found is not None:
            spread = np.min(np.asarray(law[0] if law else sent.noise(gains)))
    except jax.errors.JAXTypeError:
        spread = np.nan
    if not spread > 0:
        must = "send a normal rating with some noise where the log has ratings after purchases"
        do = "use RatingSettlement(deviation), or leave rating= out"
        call = "fit(market=...): the settlement signal"
        raise InvalidArgument(describe(call, must, type(sent).__name__, do))
