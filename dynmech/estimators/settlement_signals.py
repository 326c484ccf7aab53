"""Settlement signals beyond a single rating: averages, symbols and perfect estimates.

Theorem 1 of paper C needs E[estimate of u_j | omega, history, j bought] = u_j(omega). Of the
signals here `AveragedSettlement`, `OracleSettlement`, and `ChannelSettlement` with an unbiased
decoder satisfy it; `QuantisedRatingSettlement` and `StoppedAverageSettlement` do not, nor does
`PosteriorMeanSettlement`, and are there to be compared and audited.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int

from dynmech._checks import as_floats, check_fields, flag, shaped, whole, within
from dynmech._types import Index, Numbers, precision
from dynmech.errors import InvalidArgument, describe, require_finite, require_probabilities
from dynmech.estimators.decoders import Decoder
from dynmech.market.channels import normal_expectation, quantised_normal
from dynmech.market.settlements import AbstractSettlementSignal


class OracleSettlement(AbstractSettlementSignal):
    """Settle at u_j(omega) itself: no estimate does better, and none has it."""

    def forgets(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        return jnp.asarray(utilities)

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return 0.0

    def draw(
        self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"], omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):  # fmt: skip
        return mean

    def expect(
        self,
        function: Callable[[Array], Array],
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
    ):
        return function(jnp.asarray(utilities))


class AveragedSettlement(AbstractSettlementSignal):
    """The average of a fixed number of ratings u_j(omega) + sd * noise, independent given omega.

    Unbiased, with variance sd^2 / count. The number must be fixed before anything is rated, or
    depend only on what is independent of the ratings' noise: an average over a number that depends
    on the ratings is biased, see `StoppedAverageSettlement`.

    **Arguments:** `deviation`: of one rating, money, not negative; `count`: at least 1.
    """

    deviation: Float[Numbers, ""] = eqx.field(
        converter=partial(shaped(), "AveragedSettlement(deviation=...)")
    )
    count: int = eqx.field(static=True)

    def __check_init__(self):
        check_fields(self, deviation=within(least=0), count=whole(1))

    def forgets(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        return jnp.asarray(utilities)

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return self.deviation / np.sqrt(self.count)

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        return mean + np.asarray(self.noise()) * rng.standard_normal(len(mean))

    def expect(
        self,
        function: Callable[[Array], Array],
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
    ):
        deviation = self.deviation / np.sqrt(self.count)
        return normal_expectation(function, jnp.asarray(utilities), deviation)


class StoppedAverageSettlement(AbstractSettlementSignal):
    """A second rating only when the first is below a threshold c, and the average: biased.

        E[estimate | omega] = u_j + sd/2 * density((c - u_j) / sd),   density the standard normal

    because E[(second - first) / 2; first < c] > 0: bad luck is diluted and good luck is kept.

    **Arguments:** `deviation`: of one rating, money, positive; `threshold`: c, money.
    """

    deviation: Float[Numbers, ""] = eqx.field(
        converter=partial(shaped(), "StoppedAverageSettlement(deviation=...)")
    )
    threshold: Float[Numbers, ""] = eqx.field(
        converter=partial(shaped(), "StoppedAverageSettlement(threshold=...)")
    )

    def __check_init__(self):
        check_fields(self, deviation=within(above=0))

    def forgets(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        gap = (self.threshold - jnp.asarray(utilities)) / self.deviation
        density = jnp.exp(-(gap**2) / 2) / np.sqrt(2 * np.pi)
        return jnp.asarray(utilities) + self.deviation / 2 * density

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        from scipy.special import ndtr

        gap = (self.threshold - given_utilities(self, utilities)) / np.asarray(self.deviation)
        density, below = np.exp(-(gap**2) / 2) / np.sqrt(2 * np.pi), ndtr(gap)
        square = 1 - below / 2 + 0.75 * gap * density - density**2 / 4
        return np.asarray(self.deviation) * np.sqrt(square)

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        utility = utilities[product, omega]
        first, second = (
            utility + np.asarray(self.deviation) * rng.standard_normal(len(mean)) for _ in range(2)
        )
        return np.where(first < self.threshold, (first + second) / 2, first)


class ChannelSettlement(AbstractSettlementSignal):
    """A symbol arrives after the purchase and is settled at a fixed amount: mean L v.

    **Arguments**

    - `channel`: L, shape (m, Z), or (n, m, Z) by product bought; rows sum to 1.
    - `decoder`: a `Decoder` from `decode_utilities`, or amounts v, shape (n, Z), money.
    - `missing`: whether the last symbol is that no rating came (`MissingRatings.channel`).

    **Raises:** `InvalidArgument`, `InvalidProbability`, `NotFinite`.

    ```python
    >>> from dynmech.estimators.decoders import decode_utilities
    >>> channel, utilities = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1.0, -1.0]])
    >>> signal = ChannelSettlement(channel, decode_utilities(channel, utilities))
    >>> signal.mean(None, None, utilities).round(6).tolist()
    [[1.0, -1.0]]

    ```
    """

    channel: Float[np.ndarray, "n m Z"]
    values: Float[np.ndarray, "n Z"]
    missing: bool = eqx.field(static=True)

    def __init__(
        self, channel: npt.ArrayLike, decoder: Decoder | npt.ArrayLike, missing: bool = False
    ):
        self.missing = flag("ChannelSettlement(missing=...)", missing)
        law = np.asarray(as_floats(channel, "ChannelSettlement(channel=...)"))
        held = decoder.values if isinstance(decoder, Decoder) else decoder
        values = np.asarray(as_floats(held, "ChannelSettlement(decoder=...)"))
        shape = (*values.shape[:1], *law.shape[-2:])
        wrong = values.ndim != 2 or law.ndim not in (2, 3) or law.shape not in (shape[1:], shape)
        if wrong or law.shape[-1] != values.shape[-1]:
            must = "be (m, Z) or (n, m, Z) and come with amounts of shape (n, Z)"
            got = f"shapes {law.shape} and {values.shape}"
            raise InvalidArgument(describe("ChannelSettlement(channel=...)", must, got))
        law = require_probabilities("ChannelSettlement(channel=...)", law)
        require_finite("ChannelSettlement(decoder=...)", values)
        self.channel, self.values = np.array(np.broadcast_to(law, shape)), values

    def forgets(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        values = self.channel[keep], self.values[keep]
        return eqx.tree_at(lambda s: (s.channel, s.values), self, values)

    def check(self, products: int, points: int, horizon: int | float):
        if self.channel.shape[:2] != (products, points):
            must = f"be made for this market, {(products, points)} products and tastes"
            got = self.channel.shape[:2]
            raise InvalidArgument(describe("ChannelSettlement(channel=...)", must, got))

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        products, points = np.shape(utilities)
        self.check(products, points, 1)
        return jnp.einsum("nmz,nz->nm", jnp.asarray(self.channel), jnp.asarray(self.values))

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return _deviation(self.channel, self.values[:, None, :])

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        ladder = np.cumsum(self.channel[product, omega], axis=1)
        point = rng.random(len(product))[:, None] * ladder[:, -1:]
        symbol = (ladder <= point).sum(axis=1).clip(max=ladder.shape[1] - 1)
        sent = self.values[product, symbol]
        none = self.missing & (symbol == ladder.shape[1] - 1)
        return np.where(none, np.nan, sent)

    def counts_missing(self):
        return self.missing

    def estimate(
        self,
        product: Int[np.ndarray, " N"],
        rating: Float[np.ndarray, " N"],
        laws: Float[np.ndarray, "*L N"],
        prediction: Float[np.ndarray, " N"],
    ):
        return np.where(np.isnan(rating), self.values[product, -1], rating)

    def expect(
        self,
        function: Callable[[Array], Array],
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
    ):
        shape, law = self.channel.shape[:2], jnp.asarray(self.channel)
        levels = map(jnp.asarray, self.values.T)
        terms = (
            function(jnp.broadcast_to(level[:, None], shape)) * law[:, :, z]
            for z, level in enumerate(levels)
        )
        return jnp.asarray(sum(terms))

    def symbols(self, utilities: Float[Numbers, "n m"]):
        return self.channel


class QuantisedRatingSettlement(AbstractSettlementSignal):
    """A rating u_j(omega) + sd * noise, cut into symbols and settled at their midpoints: biased.

    Beyond the outermost cuts a cell is taken to be as wide as its neighbour (with one cut, two
    deviations wide). Between them the noise smooths the rounding: for equal cells of width h the
    bias is about (h / pi) sin(2 pi u / h) exp(-2 pi^2 sd^2 / h^2), 0.002 h at sd = h / 2; at the
    ends it grows without limit. To decode the symbols instead, as well as can be:

        channel = rating.channel(env.gains)
        decoder = decode_utilities(channel, env.gains, purchase_support(env), prior)
        ChannelSettlement(channel, decoder)

    **Arguments:** `deviation`: of the rating, money, positive; `cuts`: increasing, money, shape
    (Z - 1,), or (n, Z - 1) by product bought. `levels`, (Z,) or (n, Z), are what symbols stand for.
    """

    deviation: Float[Numbers, ""]
    cuts: Float[np.ndarray, "... s"]
    levels: Float[np.ndarray, "... Z"]

    def __init__(self, deviation: npt.ArrayLike, cuts: npt.ArrayLike):
        call = "QuantisedRatingSettlement({}=...)".format
        self.deviation = within(above=0)(call("deviation"), deviation)
        self.cuts = np.asarray(as_floats(cuts, call("cuts")))
        call = "QuantisedRatingSettlement(cuts=...)"
        if self.cuts.ndim not in (1, 2) or 0 in self.cuts.shape:
            must = "have shape (Z - 1,) or (n, Z - 1)"
            raise InvalidArgument(describe(call, must, f"shape {self.cuts.shape}"))
        require_finite(call, self.cuts)
        if (np.diff(self.cuts, axis=-1) <= 0).any():
            raise InvalidArgument(describe(call, "increase strictly", self.cuts.tolist()))
        width = np.diff(self.cuts, axis=-1)
        if self.cuts.shape[-1] == 1:
            width = np.full_like(self.cuts, 2 * np.asarray(self.deviation))
        low = self.cuts[..., :1] - width[..., :1] / 2
        middle = (self.cuts[..., 1:] + self.cuts[..., :-1]) / 2
        high = self.cuts[..., -1:] + width[..., -1:] / 2
        self.levels = np.concatenate([low, middle, high], axis=-1)

    def channel(self, utilities: Float[Numbers, "n m"]) -> Float[np.ndarray, "n m Z"]:
        """P(symbol | omega, j bought), for `decode_utilities`."""
        with precision(np.asarray(utilities)):
            law = np.asarray(self._law(np.asarray(utilities)))
        return law / law.sum(axis=-1, keepdims=True)

    def forgets(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        if self.cuts.ndim == 1:
            return self
        values = self.cuts[keep], self.levels[keep]
        return eqx.tree_at(lambda s: (s.cuts, s.levels), self, values)

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        levels = jnp.asarray(self.levels)[..., None, :]
        return (self._law(jnp.asarray(utilities)) * levels).sum(axis=-1)

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return _deviation(self.channel(given_utilities(self, utilities)), self.levels[..., None, :])

    def symbols(self, utilities: Float[Numbers, "n m"]):
        return self.channel(utilities)

    def expect(
        self,
        function: Callable[[Array], Array],
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
    ):
        levels, law = jnp.asarray(self.levels), self._law(jnp.asarray(utilities))
        shape = law.shape[:2]
        terms = (
            function(jnp.broadcast_to(levels[..., z].reshape(-1, 1), shape)) * law[..., z]
            for z in range(levels.shape[-1])
        )
        return jnp.asarray(sum(terms))

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        shape = (len(utilities), self.cuts.shape[-1])
        cuts = np.broadcast_to(self.cuts, shape)[product]
        levels = np.broadcast_to(self.levels, (shape[0], shape[1] + 1))
        noise = np.asarray(self.deviation) * rng.standard_normal(len(mean))
        symbol = (utilities[product, omega][:, None] + noise[:, None] > cuts).sum(axis=1)
        return levels[product, symbol]

    def _law(self, utilities: Numbers):
        if self.cuts.ndim == 2 and len(self.cuts) != len(utilities):
            must = f"have shape (Z - 1,) or ({len(utilities)}, Z - 1)"
            call = "QuantisedRatingSettlement(cuts=...)"
            raise InvalidArgument(describe(call, must, f"shape {self.cuts.shape}"))
        return quantised_normal(utilities, self.deviation, jnp.asarray(self.cuts)[..., None, :])


def given_utilities(
    signal: AbstractSettlementSignal, utilities: Numbers | None
) -> Float[np.ndarray, "n m"]:
    """The utilities that a noise depends on, or `InvalidArgument` without them."""
    if utilities is None:
        call = f"{type(signal).__name__}.noise(utilities=...)"
        must = "be given: the noise depends on the taste"
        raise InvalidArgument(describe(call, must, None, "pass env.utilities"))
    return np.asarray(utilities)


def _deviation(law: np.ndarray, amounts: np.ndarray) -> Float[np.ndarray, "n m"]:
    """Standard deviation given omega of amounts (..., 1, Z) under a law (n, m, Z)."""
    centred = amounts - (law * amounts).sum(axis=-1, keepdims=True)
    return np.sqrt((law * centred**2).sum(axis=-1))
