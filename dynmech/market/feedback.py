"""Feedback: the signals that follow a query.

They may depend on what the action rule remembers, on what was shown and on the period
(history-dependent precision), and may be correlated across the platform and the advertisers.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from dynmech._checks import finite, flag, number, optional, whole, within
from dynmech._types import Estimable, Given, Index, Numbers, with_default
from dynmech.errors import InvalidArgument, describe
from dynmech.market.channels import (
    AbstractSymbols,
    as_channel,
    common_shock,
    dependence,
    in_use,
    prior_quantiles,
    quantised_normal,
    require_shape,
)
from dynmech.market.part import fold_symbols, kept_histories

_CORRELATION = "RatingFeedback(correlation=...)"


class AbstractFeedback(AbstractSymbols):
    """Signals after a query; may depend on what the action rule remembers, and on the period."""

    @abc.abstractmethod
    def likelihood(
        self,
        memory: Numbers | None,
        shown: Index,
        period: Index,
        utilities: Float[Numbers, "n m"],
        /,
    ) -> Float[Array, "m Z"]:
        """Joint law of the symbols (last advertiser fastest) given each taste; traced.

        `memory` is that after the display `shown` (K,): products in order, n for an empty place;
        `period` counts from 0. A class that names the parameter otherwise is written for a single
        product, and is given the product itself.
        """

    @abc.abstractmethod
    def periodic(self) -> bool:
        """Whether the law depends on the period itself."""

    @with_default
    def readers(self, shown: Int[np.ndarray, "C K"]) -> Int[np.ndarray, " C"] | None:
        """The one advertiser who may read anything after a query at each display, n for nobody.

        None, as by default, where several may. A class that names her also gives `read`, and laws
        are then as large as two parties' symbols, whatever the number of advertisers.
        """
        return None

    @with_default
    def read(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ) -> Float[Array, "m Zp Zi"]:
        """Joint law of the platform's symbol and the reader's, of `likelihood`; traced.

        Her axis is as long as the largest alphabet of an advertiser.
        """
        kind = type(self).__name__
        must, do = "come with the law of what the one reader hears", f"define {kind}.read"
        raise InvalidArgument(describe(f"{kind}.readers", must, "no method `read`", do))

    @with_default
    def cut(self, product: int, ratings: Float[np.ndarray, " k"]) -> Int[np.ndarray, " k"] | None:
        """The platform's symbols of many numeric answers about a product shown, money.

        Those of `symbol`, one by one, by default; None where answers are no numbers.
        """
        found = [self.symbol(product, float(rating)) for rating in ratings]
        return None if None in found else np.array(found, np.int64)

    @with_default
    def reads_history(self) -> bool:
        """Whether it reads the memory of a `Tabulated` rule: the index of the history."""
        return False

    @with_default
    def correlated(self) -> str | None:
        """What makes parties hear alike given the taste, in words; None where nothing does."""
        return None

    @with_default
    def word(self) -> str:
        """What one answer is called."""
        return "signal"

    @with_default
    def symbol(self, product: int, rating: float) -> int | None:
        """The platform's symbol of a numeric answer about a product shown, money.

        None where answers are no numbers, as by default.
        """
        return None


class NoFeedback(AbstractFeedback):
    """A query itself is all that is learned."""

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        return self

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def alphabet(self, products: int):
        return (1,) * (products + 1)

    def periodic(self):
        return False

    def likelihood(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        return jnp.ones((utilities.shape[1], 1))


class RatingFeedback(AbstractFeedback):
    """After product r is shown, a rating u_r(omega) + sd * noise, quantised; nothing after none.

    Where several products are shown at once the rating is of the one in the first place.

    The platform sees the rating. With `advertisers`, the advertiser whose product was shown
    sees a second, noisier reading of it of her own (noise drawn around the same rating when
    `correlation` > 0), which only she knows.

    **Arguments**

    - `noise`: standard deviation, money: a number, or shape (T,) by period (history-dependent
      precision); may be shape (n,) with `by_product=True`, or (T, n).
    - `symbols`: size of the platform's alphabet, cut at prior quantiles of u_r.
    - `advertisers`: None, or standard deviation of the advertiser's own reading; `symbols` too.
    - `correlation`: of the two noises, in [0, 1); it leaves the law of either as it is.
    - `cuts`: shape (n, symbols - 1), money; prior quantiles by default, found anew
      (`cut_points`) for every market that the feedback is used in.

    `noise`, `advertisers` and `cuts` may be traced.
    """

    estimable: ClassVar[Estimable] = {"feedback noise": (("noise", "positive"),)}
    noise: Float[Numbers, "..."]
    symbols: int = eqx.field(static=True)
    advertisers: Numbers | float | None
    correlation: float
    by_product: bool = eqx.field(static=True)
    cuts: Float[Numbers, "n s"] | None
    found: Float[Numbers, "n s"] | None = eqx.field(init=False)

    def __init__(
        self,
        noise: Given = 1.0,
        symbols: int = 5,
        advertisers: Given | None = None,
        correlation: Numbers | float = 0.0,
        by_product: bool = False,
        cuts: Given | None = None,
    ):
        call = "RatingFeedback({}=...)".format
        self.noise = within(above=0)(call("noise"), noise)
        self.symbols = whole(2)(call("symbols"), symbols)
        self.advertisers = optional(within(above=0))(call("advertisers"), advertisers)
        self.correlation = number(least=0, below=1)(_CORRELATION, correlation)
        common_shock(_CORRELATION, self.correlation, 2)
        self.by_product = flag(call("by_product"), by_product)
        self.cuts = None if cuts is None else finite(call("cuts"), cuts)
        self.found = None

    @property
    def cut_points(self) -> Float[Numbers, "n s"]:
        """The cut points in use: those given, or those found for the market."""
        return in_use("RatingFeedback(cuts=...)", self.cuts, self.found)

    def finds_cuts(self):
        return self.cuts is None

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        if self.cuts is not None:
            shape = (len(utilities), self.symbols - 1)
            ordered = isinstance(self.cuts, Tracer) or (np.diff(self.cuts, axis=1) >= 0).all()
            if self.cuts.shape != shape or not ordered:
                must = f"have shape (n, symbols - 1) = {shape}, each row in increasing order"
                got = f"shape {self.cuts.shape}, {self.cuts}"
                raise InvalidArgument(describe("RatingFeedback(cuts=...)", must, got[:120]))
            return self
        cuts = prior_quantiles(utilities, weights, self.symbols)
        return eqx.tree_at(lambda s: s.found, self, cuts, is_leaf=lambda x: x is None)

    def check(self, products: int, points: int, horizon: int | float):
        if self.noise.ndim == 0:
            return
        wanted = [(products,), (horizon, products)] if self.by_product else [(horizon,)]
        if self.noise.shape not in wanted:
            must = f"have shape (T,) = {wanted[0]}"
            if self.by_product:
                must = f"have shape (n,) = {(products,)} or (T, n)"
            raise InvalidArgument(describe("RatingFeedback(noise=...)", must, self.noise.shape))

    def restrict(self, keep: Int[np.ndarray, " K"]):
        noise = np.asarray(self.noise)
        if self.by_product and noise.ndim:
            noise = noise[..., keep]
        values = (noise, self.cut_points[keep])
        return eqx.tree_at(lambda f: (f.noise, f.cuts), self, values, is_leaf=lambda x: x is None)

    def alphabet(self, products: int):
        own = 1 if self.advertisers is None else self.symbols
        return (self.symbols, *(own,) * products)

    def _noise(self, recommendation: Index, period: Index):
        deviation = jnp.asarray(self.noise)
        if self.by_product and deviation.ndim == 1:
            deviation = deviation[None]
        elif deviation.ndim == 1:
            deviation = deviation[:, None]
        if deviation.ndim == 2:
            row = deviation[jnp.minimum(period, deviation.shape[0] - 1)]
            return row[jnp.minimum(recommendation, row.shape[0] - 1)]
        return deviation

    def cut(self, product: int, ratings: Float[np.ndarray, " k"]):
        return np.searchsorted(np.asarray(self.cut_points)[product], ratings)

    def symbol(self, product: int, rating: float):
        return int(self.cut(product, np.array([rating]))[0])

    def reading_noise(self, recommendation: Index, period: Index, products: int):
        """Standard deviation of the rating itself, before it is cut into symbols, money; traced."""
        return self._noise(recommendation, period)

    def correlated(self):
        return f"correlation={self.correlation}" if self.correlation else None

    def word(self):
        return "rating"

    def periodic(self):
        return self.noise.ndim > int(self.by_product)

    def readers(self, shown: Index):
        return None if self.advertisers is None else np.asarray(shown)[:, 0]

    def likelihood(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        n, points = utilities.shape
        if self.advertisers is None:
            first_place, target, noise, cuts = self._rated(shown, period, utilities)
            law = quantised_normal(target, noise, cuts)
            return jnp.where(first_place == n, jnp.arange(self.symbols) == 0, law)
        joint = self.read(memory, shown, period, utilities)
        rated = jnp.minimum(jnp.atleast_1d(jnp.asarray(shown))[0], n - 1)
        law = jnp.zeros((points, self.symbols, *(self.symbols,) * n))
        places = [jnp.where(jnp.arange(n) == rated, s, 0) for s in range(self.symbols)]
        for s, place in enumerate(places):
            law = law.at[(slice(None), slice(None), *place)].add(joint[:, :, s])
        return law.reshape(points, -1)

    def read(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        first_place, target, noise, cuts = self._rated(shown, period, utilities)
        rest, blur = np.sqrt(1 - self.correlation), self.advertisers
        assert blur is not None

        def add(joint: Array, at: tuple[Array, Array]):
            shared, weight = at
            platform = quantised_normal(target + noise * shared, noise * rest, cuts)
            own = quantised_normal(target + blur * shared, blur * rest, cuts)
            return joint + weight * platform[:, :, None] * own[:, None, :], None

        shocks, weights = common_shock(_CORRELATION, self.correlation, 2)
        given = (jnp.asarray(np.sqrt(self.correlation) * shocks), jnp.asarray(weights))
        kind = jnp.result_type(target, noise, blur, cuts, *given)
        blank = jnp.zeros((len(target), self.symbols, self.symbols), kind)
        joint, _ = jax.lax.scan(add, blank, given)
        first = jnp.arange(self.symbols) == 0
        return jnp.where(first_place == len(utilities), first[:, None] & first, joint)

    def _rated(self, shown: Index, period: Index, utilities: Numbers):
        """The product in the first place; its utilities, noise and cut points."""
        n, first_place = len(utilities), jnp.atleast_1d(jnp.asarray(shown))[0]
        rated = jnp.minimum(first_place, n - 1)
        noise = self._noise(rated, period)
        return (
            first_place,
            jnp.asarray(utilities)[rated],
            noise,
            jnp.asarray(self.cut_points)[rated],
        )


class ChannelFeedback(AbstractFeedback):
    """A finite channel for each product shown.

    **Arguments:** `table`, shape (n+1, m, Zp, Z1, ..., Zn), the first axis the product shown
    (n for none), axis 1 omega; the laws sum to 1.
    """

    table: Float[Numbers, "n1 m ..."]

    def __init__(self, table: Given):
        self.table = as_channel("ChannelFeedback(table=...)", table, lead=2)

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        n, m = utilities.shape
        require_shape("ChannelFeedback(table=...)", self.table, (n + 1, m), n + 1)
        return self

    def restrict(self, keep: Int[np.ndarray, " K"]):
        n = len(self.table) - 1
        return ChannelFeedback(fold_symbols(np.asarray(self.table)[[*keep, n]], keep, n))

    def alphabet(self, products: int):
        return self.table.shape[2:]

    def correlated(self):
        return dependence(self.table)

    def periodic(self):
        return False

    def likelihood(
        self,
        memory: Numbers | None,
        recommendation: Index,
        period: Index,
        utilities: Float[Numbers, "n m"],
    ):
        law = jnp.asarray(self.table)[recommendation]
        return law.reshape(law.shape[0], -1)


class TabulatedFeedback(AbstractFeedback):
    """A finite channel for each ordered history; needs the `Tabulated` action rule's memory.

    **Arguments:** `table`, shape (H, m, Zp, Z1, ..., Zn), H as in `Tabulated`.
    """

    table: Float[Numbers, "H m ..."]

    def __init__(self, table: Given):
        self.table = as_channel("TabulatedFeedback(table=...)", table, lead=2)

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        n, m = utilities.shape
        lead = (self.table.shape[0], m)
        require_shape("TabulatedFeedback(table=...)", self.table, lead, n + 1)
        return self

    def restrict(self, keep: Int[np.ndarray, " K"]):
        n = self.table.ndim - 3
        rows = kept_histories(keep, n, len(self.table))
        return TabulatedFeedback(fold_symbols(np.asarray(self.table)[rows], keep, n))

    def alphabet(self, products: int):
        return self.table.shape[2:]

    def reads_history(self):
        return True

    def correlated(self):
        return dependence(self.table)

    def periodic(self):
        return False

    def likelihood(
        self,
        memory: Numbers | None,
        recommendation: Index,
        period: Index,
        utilities: Float[Numbers, "n m"],
    ):
        assert memory is not None
        law = jnp.asarray(self.table)[memory[0]]
        return law.reshape(law.shape[0], -1)
