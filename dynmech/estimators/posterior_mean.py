"""The settlement signal that shrinks a rating towards what is expected before it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int

from dynmech._checks import as_floats, within
from dynmech._types import Index, Numbers, precision
from dynmech.errors import InvalidArgument, describe, require_probabilities
from dynmech.estimators.settlement_signals import given_utilities
from dynmech.market.settlements import AbstractSettlementSignal

_REACH, _STEP, _CELLS = 8.5, 0.1, 4_000_000  # of the quadrature over a standard normal


class PosteriorMeanSettlement(AbstractSettlementSignal):
    """E[u_j | rating] under the prior, rating = u_j(omega) + sd * noise: biased to the prior mean.

    The best guess of u_j in mean square, and no estimate for Theorem 1: given omega it is too
    low where u_j is high and too high where it is low. Its mean and noise are integrals over
    the rating, by the trapezoidal rule on +-8.5 sd in steps of 0.1 sd.

    **Arguments:** `deviation`: of the rating, money, positive; `prior`: weights of the tastes (m,).
    """

    deviation: Float[Numbers, ""]
    prior: Float[np.ndarray, " m"]

    def __init__(self, deviation: npt.ArrayLike, prior: npt.ArrayLike):
        call = "PosteriorMeanSettlement({}=...)".format
        self.deviation = within(above=0)(call("deviation"), deviation)
        self.prior = np.asarray(as_floats(prior, call("prior")))
        if self.prior.ndim != 1:
            call, must = "PosteriorMeanSettlement(prior=...)", "have shape (m,)"
            raise InvalidArgument(describe(call, must, f"shape {self.prior.shape}"))
        self.prior = require_probabilities("PosteriorMeanSettlement(prior=...)", self.prior)

    def forgets(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        return self._moments(jnp.asarray(utilities))[0]

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        with precision(given_utilities(self, utilities)):
            mean, square = self._moments(jnp.asarray(utilities))
            return np.sqrt(np.maximum(np.asarray(square - mean**2), 0.0))

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        ratings = utilities[product, omega]
        ratings = ratings + np.asarray(self.deviation) * rng.standard_normal(len(mean))
        found = np.zeros(len(mean))
        step = max(1, _CELLS // len(self.prior))
        for low in range(0, len(mean), step):
            part = slice(low, low + step)
            with precision(utilities):
                guess = self._estimate(ratings[part, None], jnp.asarray(utilities[product[part]]))
                found[part] = np.asarray(guess)[:, 0]
        return found

    def _estimate(self, ratings: Numbers, utilities: Numbers):
        """E[u_j | rating] of ratings (n, q), utilities (n, m): shape (n, q)."""
        if utilities.shape[-1] != len(self.prior):
            must = f"have a weight for each of the {utilities.shape[-1]} tastes"
            call = "PosteriorMeanSettlement(prior=...)"
            raise InvalidArgument(describe(call, must, f"shape {self.prior.shape}"))
        prior = jnp.asarray(self.prior, utilities.dtype)
        gaps = (ratings[:, :, None] - utilities[:, None, :]) / self._scale(utilities)
        logs = jnp.where(prior > 0, jnp.log(prior), -jnp.inf) - gaps**2 / 2
        return (jax.nn.softmax(logs, axis=2) * utilities[:, None, :]).sum(axis=2)

    def _scale(self, utilities: Numbers):
        return jnp.asarray(self.deviation, utilities.dtype)

    def _moments(self, utilities: Numbers):
        nodes = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
        weights = np.exp(-(nodes**2) / 2)

        def add(total: tuple[Array, Array], node: Array):
            shock, weight = node
            guess = self._estimate(utilities + self._scale(utilities) * shock, utilities)
            return (total[0] + weight * guess, total[1] + weight * guess**2), None

        zero = jnp.zeros_like(utilities)
        ladder = jnp.asarray(np.stack([nodes, weights / weights.sum()], axis=1), utilities.dtype)
        return jax.lax.scan(add, (zero, zero), ladder)[0]
