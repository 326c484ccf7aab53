"""Settle with ratings that need not come: each counts the more the rarer it is.

With R = 1 where a rating x came, rho the chance believed and m the mechanism's own prediction
E[u_j | reports, history, purchase],

    q = m + (R / rho) (x - m),       E[q | omega, history, m] = u_j(omega) where rho is right,

as E[R / rho | x, omega, history] = 1. The mean alone enters Theorem 1, so truth stays optimal
although the variance of q moves with m; for constant rho and noise s,

    Var(q | omega, m) = s^2 / rho + ((1 - rho) / rho) (u_j - m)^2.

With rho wrong by a constant factor c, E q = c u_j + (1 - c) m: the mechanism is c times the
data-driven one and 1 - c times the message-driven one, gains of lies included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int

from dynmech._checks import as_floats, check_fields, flag, number, optional
from dynmech._types import Index, Numbers
from dynmech.errors import InvalidArgument, InvalidProbability, describe
from dynmech.market.missing import (
    MissingRatings,
    chance_at,
    check_chance,
    check_law,
    read_chance,
)
from dynmech.market.settlements import AbstractSettlementSignal

_CHANCE = "InversePropensity(chance=...)"


class InversePropensity(AbstractSettlementSignal):
    """Weigh the ratings that come by the inverse of their chance (see the module).

    Guarantee: unbiased given (omega, history, reports) where the chance believed is right, without
    a cap. Where it is wrong, where taste decides who rates, or with a cap, the mean follows m and
    the reports; audits price that.

    **Arguments**

    - `chance`: that a rating comes, as the mechanism believes: a number, (H,) in the order of H, or
      a traceable function of the rating; that of the market's `MissingRatings` by default.
    - `augment`: predict by m what did not come, or else by 0.
    - `cap`: the most that a rating may weigh, at least 1; no cap by default.

    **Raises:** `InvalidArgument`, `InvalidProbability`.

    **References:** model: ratings that do not come. Robins, Rotnitzky, Zhao (1994), JASA 89.

    ```python
    >>> import dynmech as dm
    >>> sent = dm.MissingRatings(dm.RatingSettlement(1.0), 0.1)
    >>> signal = dm.InversePropensity().sent_by(sent)
    >>> signal.estimate(np.zeros(2, int), np.array([2.0, np.nan]), np.full((3, 2), 0.1), np.ones(2))
    array([11.,  1.])

    ```
    """

    chance: Numbers | Callable[[Array], Array] | None
    augment: bool = eqx.field(static=True)
    cap: float | None
    given: str = eqx.field(static=True)
    sent: MissingRatings | None

    def __init__(
        self,
        chance: npt.ArrayLike | Callable[[Array], Array] | None = None,
        augment: bool = True,
        cap: float | None = None,
        sent: MissingRatings | None = None,
    ):
        if chance is not None and not callable(chance):
            chance = as_floats(chance, _CHANCE)
        many = not callable(chance) and np.ndim(cast(Any, chance)) > 0
        self.given = "rating" if callable(chance) else "history" if many else "constant"
        held = None if chance is None else read_chance(_CHANCE, chance, self.given)
        self.chance = cast("Numbers | Callable[[Array], Array] | None", held)
        if self.chance is not None and not callable(self.chance) and not np.all(self.chance > 0):
            must = "be above 0: no weight makes up for ratings that never come"
            raise InvalidProbability(describe(_CHANCE, must, float(np.min(self.chance))))
        self.augment, self.cap, self.sent = augment, cap, sent
        check_fields(self, augment=flag, cap=optional(number(least=1)))

    def sent_by(self, sent: AbstractSettlementSignal) -> InversePropensity:
        """The same belief where nature sends `sent`: its own chance where none was given.

        **Raises:** `InvalidArgument` where there is no chance to believe in.
        """
        if not sent.sends_missing():
            if self.chance is None:
                must, do = "be given where the market's ratings always come", "pass a number"
                raise InvalidArgument(describe(_CHANCE, must, None, do))
            sent = MissingRatings(sent, 1.0)
        sent = cast(MissingRatings, sent)
        chance = sent.chance if self.chance is None else self.chance
        taste = sent.given == "constant" and not callable(chance) and np.ndim(chance) > 0
        if self.chance is None and taste:
            must = "not depend on the taste, which no mechanism sees"
            do = "decode MissingRatings.channel (ChannelSettlement), or pass a number"
            raise InvalidArgument(describe(_CHANCE, must, "the market's, by taste", do))
        return InversePropensity(cast(Any, chance), self.augment, self.cap, sent)

    def _sent(self) -> MissingRatings:
        if self.sent is None:
            must, do = "be put into a mechanism", "DynamicTeamMechanism(policy, estimator=...)"
            raise InvalidArgument(describe("InversePropensity(...)", must, "used alone", do))
        return self.sent

    def check(self, products: int, points: int, horizon: int | float):
        self._sent().check(products, points, horizon)
        check_chance(_CHANCE, self.chance, self.given, products, horizon)

    def check_ratings(self, utilities: Float[np.ndarray, "n m"]):
        self._sent().check_ratings(utilities)
        if callable(self.chance):
            check_law(_CHANCE, self.chance, self._sent().rating, utilities, least=1e-5)

    def forgets(self):
        return self.given != "history" and self._sent().forgets()

    def restrict(self, keep: Int[np.ndarray, " K"]):
        sent = None if self.sent is None else self.sent.restrict(keep)
        return InversePropensity(self.chance, self.augment, self.cap, sent)

    def reads_history(self):
        return self.given == "history" or self._sent().reads_history()

    def counts_missing(self):
        return True

    def _weight(self, chance: Numbers):
        weight = 1 / chance
        return weight if self.cap is None else weight.clip(max=self.cap)

    def _sums(
        self,
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Numbers,
        noise: Any = 0.0,
    ) -> Float[Array, "5 n m"]:
        """E of Rw, Rwx, (Rw)^2, (Rw)^2 x, (Rw)^2 x^2 given omega and the history."""
        sent, u = self._sent(), jnp.asarray(utilities)
        come = sent.come(memory, u)
        weight = self._weight(chance_at(self.chance, self.given, memory, u))
        mean = sent.rating.mean(memory, recommendation, u)
        if sent.law is None and not callable(self.chance):
            once, twice = come * weight, come * weight**2
            square = twice * (mean**2 + noise**2)
            return jnp.stack([once, once * mean, twice, twice * mean, square])

        def sums(x: Array):
            chance = come if sent.law is None else sent.law(x)
            w = self._weight(self.chance(x)) if callable(self.chance) else weight
            once, twice = chance * w, chance * w**2
            return jnp.stack([once, once * x, twice, twice * x, twice * x**2])

        return sent.rating.expect(sums, memory, recommendation, u)

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        return self._sums(memory, recommendation, utilities)[1]

    def moments(
        self,
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
        noise: Float[Numbers, "n m"],
    ):
        once, first, zero, one, two = self._sums(memory, recommendation, utilities, noise)
        variance = two - first**2
        if not self.augment:
            nothing = jnp.zeros_like(once)
            return jnp.stack([nothing, variance, nothing, nothing])
        return jnp.stack([1 - once, variance, 2 * (once * first - one), zero - once**2])

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return None

    def rating_noise(self, utilities: Float[Numbers, "n m"]):
        return self._sent().rating.rating_noise(utilities)

    def laws(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        held = chance_at(self.chance, self.given, memory, utilities)
        sent = self._sent().laws(memory, recommendation, utilities)
        return jnp.concatenate([sent, held[None].astype(sent.dtype)])

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        return self._sent().draw(rng, utilities, product, omega, mean)

    def estimate(
        self,
        product: Int[np.ndarray, " N"],
        rating: Float[np.ndarray, " N"],
        laws: Float[np.ndarray, "*L N"],
        prediction: Float[np.ndarray, " N"],
    ):
        sent = self._sent().rating.estimate(product, rating, laws[0], prediction)
        chance = laws[2]
        if callable(self.chance):
            chance = np.asarray(self.chance(jnp.asarray(np.nan_to_num(sent))), float)
        m = prediction if self.augment else np.zeros_like(prediction)
        return np.where(np.isnan(sent), m, m + self._weight(chance) * (sent - m))
