"""Ratings that need not come: as nature sends them, with "none came" a symbol.

R = 1 if a rating arrives, with P(R = 1 | rating, omega, history) = rho. What a mechanism makes of
it is said by an estimator: `InversePropensity` where rho depends on what it sees, the decoder of
`MissingRatings.channel` where rho depends on the taste.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from dynmech._checks import Convert, as_floats, choice, instance, number, within
from dynmech._types import Estimable, Index, Numbers, Record
from dynmech.errors import InvalidArgument, InvalidProbability, describe, shown
from dynmech.market.part import history_count
from dynmech.market.settlements import AbstractSettlementSignal

_REACH, _PROBES = 8.0, 401  # where a law of the rating is looked at, in deviations
_GIVEN = ("constant", "history", "rating")


def _number(name: str, check: Convert) -> Callable[[Any], Numbers]:
    """Converter of a field of `RatingLaw`: one number as an array."""
    call = f"RatingLaw({name}=...)"
    return lambda value: as_floats(check(call, value), call)


class RatingLaw(Record):
    """Chance that a rating comes, more or less likely the better it is.

        rho(x) = low + (1 - low) / (1 + exp(-(intercept + slope x)))

    **Arguments:** `intercept`; `slope`: per money; `low`: the least chance, in [0, 1).
    """

    estimable: ClassVar[Estimable] = {
        "rating chance": (("intercept", "real"), ("slope", "real")),
    }
    intercept: Float[Numbers, ""] = eqx.field(converter=_number("intercept", number()))
    slope: Float[Numbers, ""] = eqx.field(converter=_number("slope", number()))
    low: Float[Numbers, ""] = eqx.field(
        converter=_number("low", number(least=0, below=1)), default=0.0
    )

    def __call__(self, rating: Numbers | float) -> Array:
        z = self.intercept + self.slope * jnp.asarray(rating)
        return jnp.asarray(self.low + (1 - self.low) * (0.5 + 0.5 * jnp.tanh(z / 2)))


class MissingRatings(AbstractSettlementSignal):
    """A rating that comes by chance: the settlement signal as nature sends it.

    `mean` is that of the rating, had it come. Without an estimator for ratings that do not come a
    mechanism can price nothing by it.

    **Arguments**

    - `rating`: the settlement signal that comes or not.
    - `chance`: that it comes. With `given="constant"` a number, or (m,) or (n, m), by taste and
      product bought (selection on taste); with "history" (H,), in the order of H, for the rule
      `Tabulated`; with "rating" a traceable function of the rating in money, element by element,
      as `RatingLaw`.
    - `given`: what the chance depends on.

    **Raises:** `InvalidArgument`, `NotFinite`, `InvalidProbability`.

    **References:** model: ratings that do not come.

    ```python
    >>> import dynmech as dm
    >>> signal = dm.MissingRatings(dm.RatingSettlement(1.0), 0.1)
    >>> rng, utilities = np.random.default_rng(0), np.array([[0.5, -0.5]])
    >>> sent = signal.draw(rng, utilities, np.zeros(9, int), np.zeros(9, int), np.full((2, 9), 0.1))
    >>> int(np.isfinite(sent).sum())
    2

    ```
    """

    rating: AbstractSettlementSignal
    chance: Any
    given: str = eqx.field(static=True)

    def __init__(self, rating: Any, chance: Any, given: str = "constant"):
        call = "MissingRatings({}=...)".format
        instance(AbstractSettlementSignal, "a settlement signal")(call("rating"), rating)
        if rating.sends_missing() or rating.counts_missing():
            must = "be a rating that comes, as RatingSettlement(...)"
            raise InvalidArgument(describe(call("rating"), must, type(rating).__name__))
        choice(*_GIVEN)(call("given"), given)
        self.rating, self.given = rating, given
        self.chance = read_chance(call("chance"), chance, given)

    @property
    def law(self) -> Any:
        """The chance as a function of the rating, None where it does not depend on it."""
        return self.chance if callable(self.chance) else None

    def come(self, memory: Numbers | None, utilities: Float[Numbers, "n m"]) -> Float[Array, "n m"]:
        """P(R = 1 | omega, history) where it does not depend on the rating, else 1; traced."""
        return chance_at(self.chance, self.given, memory, utilities)

    def sends_missing(self):
        return True

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        return self.rating.mean(memory, recommendation, utilities)

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return self.rating.noise(utilities)

    def normal(self):
        return self.rating.normal()

    def laws(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        mean = self.rating.mean(memory, recommendation, utilities)
        return jnp.stack([mean, jnp.broadcast_to(self.come(memory, utilities), mean.shape)])

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        sent = np.asarray(self.rating.draw(rng, utilities, product, omega, mean[0]), float)
        law = self.law
        chance = mean[1] if law is None else np.asarray(law(jnp.asarray(sent)), float)
        return np.where(rng.random(len(sent)) < chance, sent, np.nan)

    def expect(
        self,
        function: Callable[[Array], Array],
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
    ):
        return self.rating.expect(function, memory, recommendation, utilities)

    def reads_history(self):
        return self.given == "history" or self.rating.reads_history()

    def forgets(self):
        return self.given != "history" and self.rating.forgets()

    def restrict(self, keep: Int[np.ndarray, " K"]):
        if self.given == "history":
            must = "not depend on the history where products are left out"
            do = "build the market of the products in `.kept` yourself"
            raise InvalidArgument(describe("MissingRatings(chance=...)", must, self.given, do))
        chance = self.chance[keep] if np.ndim(self.chance) == 2 else self.chance
        return MissingRatings(self.rating.restrict(keep), chance, self.given)

    def check_ratings(self, utilities: Float[np.ndarray, "n m"]):
        if callable(self.chance):
            check_law("MissingRatings(chance=...)", self.chance, self.rating, utilities)

    def check(self, products: int, points: int, horizon: int | float):
        self.rating.check(products, points, horizon)
        call = "MissingRatings(chance=...)"
        check_chance(call, self.chance, self.given, products, horizon)
        fits = ((), (points,), (products, points))
        if self.given == "constant" and np.shape(self.chance) not in fits:
            must = f"be a number, or have shape ({points},) or {(products, points)}, by taste"
            raise InvalidArgument(describe(call, must, f"shape {np.shape(self.chance)}"))

    def channel(self, utilities: Float[Numbers, "n m"]) -> Float[np.ndarray, "n m Z1"]:
        """{rho(omega) P(z | omega), 1 - rho(omega)}: the rating's symbols, and last "none came".

        What `decode_utilities` needs where the chance depends on the taste; settle with
        `ChannelSettlement(channel, decoder, missing=True)`.

        **Raises:** `InvalidArgument` where the rating has no symbols, as those of
        `QuantisedRatingSettlement`, or the chance depends on the history or on the rating.
        """
        if self.given != "constant":
            must = "depend on the taste alone to be decoded"
            raise InvalidArgument(describe("MissingRatings.channel", must, self.given))
        law = np.asarray(self.rating.symbols(utilities))
        come = np.broadcast_to(np.asarray(self.come(None, utilities), float), law.shape[:2])
        return np.concatenate([law * come[..., None], 1 - come[..., None]], axis=2)


def read_chance(call: str, chance: Any, given: str):
    """A chance that fits what it is said to depend on.

    **Raises:** `InvalidArgument`, `NotFinite`, `InvalidProbability`.
    """
    wanted = {
        "constant": ("be a number, or (m,) or (n, m), by taste", (0, 1, 2)),
        "history": ("have shape (H,), one for each history", (1,)),
        "rating": ("be a traceable function of the rating, as RatingLaw(0.0, 1.0)", ()),
    }
    must, axes = wanted[given]
    if callable(chance):
        if given != "rating":
            do = 'pass given="rating"'
            raise InvalidArgument(describe(call, must, "a function", do))
        return chance
    if not axes:
        raise InvalidArgument(describe(call, must, shown(chance)))
    array = as_floats(chance, call)
    if np.ndim(array) not in axes:
        raise InvalidArgument(describe(call, must, f"shape {np.shape(array)}"))
    array = within()(call, array)
    if not isinstance(array, Tracer) and ((array < 0) | (array > 1)).any():
        got = f"from {array.min():g} to {array.max():g}"
        raise InvalidProbability(describe(call, "lie in [0, 1]", got))
    return array


def chance_at(
    chance: Any, given: str, memory: Numbers | None, utilities: Float[Numbers, "n m"]
) -> Float[Array, "n m"]:
    """The chance after a history at every taste, 1 where it depends on the rating; traced."""
    u = jnp.asarray(utilities)
    if callable(chance):
        return jnp.ones_like(u)
    held = jnp.asarray(chance, u.dtype)
    if given == "history":
        assert memory is not None
        held = held[memory[0]]
    return jnp.broadcast_to(held, u.shape)


def check_chance(call: str, chance: Any, given: str, products: int, horizon: int | float) -> None:
    """Raise unless a chance by history has one for each of them."""
    histories = history_count(products, int(horizon)) if given == "history" else 0
    if given == "history" and np.shape(chance) != (histories,):
        must = f"have shape ({histories},), one for each history of recommendations"
        raise InvalidArgument(describe(call, must, f"shape {np.shape(chance)}"))


def check_law(
    call: str,
    law: Callable[..., Any],
    rating: AbstractSettlementSignal,
    utilities: Numbers,
    least: float = 0.0,
):
    """Raise unless a law of the rating gives chances, above `least`, wherever ratings can lie."""
    u = np.asarray(utilities, float)
    noise = rating.rating_noise(u)
    reach = _REACH * (0.0 if noise is None else float(np.max(np.asarray(noise))))
    probes = np.linspace(u.min() - reach, u.max() + reach, _PROBES)
    try:
        found = np.asarray(law(jnp.asarray(probes)), float)
    except Exception as error:
        must = "be a traceable function of ratings, element by element"
        got = f"{type(error).__name__}: {error}"[:160]
        raise InvalidArgument(describe(call, must, got)) from error
    if found.shape != probes.shape:
        must = "return a chance for each rating"
        raise InvalidArgument(describe(call, must, f"shape {found.shape}"))
    slack = 1e-6
    if not ((found >= least - slack) & (found <= 1 + slack)).all():
        must = f"lie in [{least:g}, 1] wherever ratings can"
        got = f"from {found.min():g} to {found.max():g}"
        raise InvalidProbability(describe(call, must, got))
