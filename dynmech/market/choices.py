"""What is chosen among the products remembered, and how likely a follow-up query is.

The random shocks of a logit choice are behaviour, not surplus.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from dynmech._checks import as_floats, number, within
from dynmech._types import Estimable, Given, Index, Numbers, Record, with_default
from dynmech.errors import InvalidArgument, describe, require_finite
from dynmech.market.part import MarketPart

Memory = Int[Array | np.ndarray, " d"]
_FEW = 8  # products compared in pairs; more are sorted


class AbstractChoice(MarketPart, Record):
    """Choice among the products remembered and the outside option of utility 0."""

    @abc.abstractmethod
    def shares(
        self, utilities: Float[Numbers, "k m"], weight: Float[Numbers, " k"]
    ) -> Float[Numbers, "k m"]:
        """Probability of each of k products; `weight` in [0, 1] is how well it is remembered.

        All products, or those remembered alone: a weight of 0 counts as not being there.
        """

    @with_default
    def possible(self, utilities: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, "n m"]:
        """Where each product may be chosen, whatever is remembered: everywhere, by default."""
        return np.ones(utilities.shape, bool)

    @with_default
    def most(
        self,
        utilities: Float[np.ndarray, "n m"],
        worth: Float[np.ndarray, "n m"],
        known: Bool[np.ndarray, " n"],
    ) -> Float[np.ndarray, " m"] | None:
        """The most that a choice can be worth, whichever of the `known` products are remembered.

        None, by default, where no bound is known.
        """
        return None

    @with_default
    def ignores_unseen(self) -> bool:
        """Whether shares of one product alone are what they are beside products of weight 0.

        False, by default: all n products are then compared.
        """
        return False

    @with_default
    def takes_best(self) -> bool:
        """Whether the best product remembered is taken if its utility is not negative, or none."""
        return False


class Threshold(AbstractChoice):
    """Buy the best product remembered if its utility is at least that of the outside option.

    A product of weight d < 1 comes to mind with probability d, independently; ties go to the
    lowest index.
    """

    def ignores_unseen(self):
        return True

    def shares(self, utilities: Float[Numbers, "k m"], weight: Float[Numbers, " k"]):
        n = utilities.shape[0]
        if n <= _FEW:
            above = utilities[None] > utilities[:, None]
            earlier = jnp.tri(n, k=-1, dtype=bool)[:, :, None]
            above |= (utilities[None] == utilities[:, None]) & earlier
            better = jnp.where(above, 1 - weight[None, :, None], 1.0).prod(axis=1)
        else:
            order = jnp.argsort(-utilities, axis=0, stable=True)
            forgotten = jnp.cumprod(1 - weight[order], axis=0)
            forgotten = jnp.concatenate([jnp.ones_like(forgotten[:1]), forgotten[:-1]])
            better = jnp.take_along_axis(forgotten, jnp.argsort(order, axis=0), axis=0)
        return jnp.where(utilities >= 0, weight[:, None] * better, 0.0)

    def possible(self, utilities: Float[np.ndarray, "n m"]):
        return utilities >= 0

    def most(
        self,
        utilities: Float[np.ndarray, "n m"],
        worth: Float[np.ndarray, "n m"],
        known: Bool[np.ndarray, " n"],
    ):
        return np.where(known[:, None] & (utilities >= 0), worth, 0.0).max(axis=0)

    def takes_best(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self


class Logit(AbstractChoice):
    """Choose with probabilities d_j exp(u_j / scale) / (1 + sum_k d_k exp(u_k / scale)).

    **Arguments**

    - `scale`: money, positive; a number, or shape (m,), one for each taste point.
    """

    estimable: ClassVar[Estimable] = {"choice scale": (("scale", "positive"),)}
    scale: Float[Numbers, "..."]

    def __init__(self, scale: Given):
        self.scale = within(above=0)("Logit(scale=...)", scale)
        if self.scale.ndim > 1:
            must = "be a positive number or a positive array of shape (m,)"
            raise InvalidArgument(describe("Logit(scale=...)", must, f"shape {self.scale.shape}"))

    def check(self, products: int, points: int, horizon: int | float):
        if self.scale.shape not in ((), (points,)):
            must = f"be a number or have shape (m,) = ({points},)"
            raise InvalidArgument(describe("Logit(scale=...)", must, self.scale.shape))

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def most(
        self,
        utilities: Float[np.ndarray, "n m"],
        worth: Float[np.ndarray, "n m"],
        known: Bool[np.ndarray, " n"],
    ):
        """Of share-weighted worth, over weights: a prefix of the products, best worth first."""
        worth = np.where(known[:, None], worth, 0.0)
        logits = np.where(known[:, None], utilities / np.asarray(self.scale), -np.inf)
        peak = np.maximum(logits.max(axis=0), 0.0)
        order = np.argsort(-worth, axis=0, kind="stable")
        weight = np.take_along_axis(np.exp(logits - peak), order, axis=0)
        gained = np.cumsum(weight * np.take_along_axis(worth, order, axis=0), axis=0)
        return (gained / (np.exp(-peak) + np.cumsum(weight, axis=0))).max(axis=0)

    def ignores_unseen(self):
        return True

    def shares(self, utilities: Float[Numbers, "k m"], weight: Float[Numbers, " k"]):
        logits = utilities / self.scale
        # Only what is remembered counts: what is not may be better by more than exp can bear.
        logits = jnp.where(weight[:, None] > 0, logits, -jnp.inf)
        peak = jnp.maximum(jax.lax.stop_gradient(logits).max(axis=0), 0.0)
        parts = weight[:, None] * jnp.exp(logits - peak)
        return parts / (jnp.exp(-peak) + parts.sum(axis=0))


class AbstractQuery(MarketPart, Record):
    """Probability of a follow-up query."""

    @abc.abstractmethod
    def probability(
        self,
        shown: Index,
        utilities: Float[Numbers, "n m"],
        remembered: Numbers,
    ) -> Float[Numbers, " m"]:
        """Probability at each taste after the display `shown` (K,)."""

    @with_default
    def by_best(self) -> bool:
        """Whether all that counts of what is remembered is its best utility; not known: False."""
        return False


class ConstantQuery(AbstractQuery):
    """Ask again with the same probability whatever was shown. `level` in [0, 1]."""

    estimable: ClassVar[Estimable] = {"query": (("level", "unit"),)}
    level: Float[Numbers, ""]

    def __init__(self, level: Given):
        self.level = levels("ConstantQuery(level=...)", level, ())

    def by_best(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def probability(self, shown: Index, utilities: Float[Numbers, "n m"], remembered: Numbers):
        return jnp.broadcast_to(jnp.asarray(self.level), utilities.shape[1:])


class ProductQuery(AbstractQuery):
    """The papers' y_q(i, omega): a probability for each product shown and taste.

    Where several products are shown at once it is the mean over them.

    `level` has shape (n,), (n, 1) or (n, m); `none` in [0, 1] applies when none is shown.
    """

    estimable: ClassVar[Estimable] = {"query": (("level", "unit"),)}
    level: Float[Numbers, "n M"]
    none: Float[Numbers, ""]

    def __init__(self, level: Given, none: Given = 1.0):
        level = as_floats(level, "ProductQuery(level=...)")
        level = level[:, None] if level.ndim == 1 else level
        self.level = levels("ProductQuery(level=...)", level, (None, None))
        self.none = levels("ProductQuery(none=...)", none, ())

    def check(self, products: int, points: int, horizon: int | float):
        if self.level.shape not in ((products, 1), (products, points)):
            must = f"have shape (n,) = ({products},) or (n, m) = {(products, points)}"
            raise InvalidArgument(describe("ProductQuery(level=...)", must, self.level.shape))

    def by_best(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return eqx.tree_at(lambda q: q.level, self, np.asarray(self.level)[keep])

    def probability(self, shown: Index, utilities: Float[Numbers, "n m"], remembered: Numbers):
        shape, shown = utilities.shape, jnp.atleast_1d(jnp.asarray(shown))
        level = jnp.concatenate(
            [jnp.broadcast_to(self.level, shape), jnp.broadcast_to(self.none, (1, shape[1]))]
        )
        if len(shown) == 1:
            return level[shown[0]]
        real = shown < shape[0]
        mean = jnp.where(real[:, None], level[shown], 0.0).sum(axis=0) / jnp.maximum(real.sum(), 1)
        return jnp.where(real.any(), mean, level[-1])


class FallingQuery(AbstractQuery):
    """Ask again less often the better the best match so far, v = max over remembered of u.

        clip(level / (1 + exp((v - location) / slope)), low, high)

    **Arguments:** `level` >= 0; `location`, `slope` > 0 in money; `low` <= `high` in [0, 1];
    `nothing`: probability in [0, 1] while no product is remembered.
    """

    estimable: ClassVar[Estimable] = {
        "query": (("level", "positive"), ("location", "real"), ("slope", "positive"))
    }
    level: Float[Numbers, ""]
    location: Float[Numbers, ""]
    slope: Float[Numbers, ""]
    low: Float[Numbers, ""]
    high: Float[Numbers, ""]
    nothing: Float[Numbers, ""]

    def __init__(
        self,
        level: Given = 1.0,
        location: Given = 0.0,
        slope: Given = 1.0,
        low: Given = 0.0,
        high: Given = 1.0,
        nothing: Given = 1.0,
    ):
        call = "FallingQuery({}=...)".format
        self.level = as_floats(number(least=0)(call("level"), level))
        self.location = as_floats(number()(call("location"), location))
        self.slope = as_floats(number(above=0)(call("slope"), slope))
        self.low = levels("FallingQuery(low=...)", low, ())
        self.high = levels("FallingQuery(high=...)", high, ())
        self.nothing = levels("FallingQuery(nothing=...)", nothing, ())
        traced = isinstance(self.low, Tracer) or isinstance(self.high, Tracer)
        if not traced and self.low > self.high:
            must = "have low <= high"
            raise InvalidArgument(describe("FallingQuery(low=..., high=...)", must, (low, high)))

    def by_best(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def probability(self, shown: Index, utilities: Float[Numbers, "n m"], remembered: Numbers):
        best = jnp.where(remembered[:, None], utilities, -jnp.inf).max(axis=0)
        finite = jnp.where(jnp.isfinite(best), best, 0.0)
        falling = self.level * jax.nn.sigmoid((self.location - finite) / self.slope)
        return jnp.where(jnp.any(remembered), jnp.clip(falling, self.low, self.high), self.nothing)


def levels(call: str, level: Given, shape: tuple[Any, ...]) -> Numbers:
    level = as_floats(level, call)
    if not isinstance(level, Tracer):
        given = np.asarray(level)
        require_finite(call, given)
        if given.ndim != len(shape) or given.size == 0 or ((given < 0) | (given > 1)).any():
            must = f"be {'a probability' if not shape else 'probabilities'} in [0, 1]"
            span = f", from {given.min()} to {given.max()}" if given.size else ""
            got = f"shape {given.shape}{span}"
            raise InvalidArgument(describe(call, must, got))
    return level
