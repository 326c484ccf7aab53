"""How the user behaves: action rules with a small integer memory (paper C, Assumption 1).

A rule is a vector of integers that it remembers, a step that a recommendation makes on it, and
the probabilities of buying each product, leaving, and asking again. `step` and
`probabilities` handle one memory and one display, `shown` (K,): the products on the screen in
order, n for an empty place. They are traced by JAX; a rule of your own subclasses
`AbstractActionRule` and is used exactly as those here. One that names the parameter otherwise is
written for a single product: it is given the product itself (n for none), and cannot be shown
several.

The rules here have two parts: how likely a follow-up query is (`query`), and what is chosen
among the products remembered and the outside option when the user does not query (`choice`).
The random shocks of a logit choice are behaviour, not surplus.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from dynmech._checks import chances, check_fields, flag, instance, shaped
from dynmech._types import Index, Numbers, Record, with_default
from dynmech.errors import InvalidArgument, describe, is_number
from dynmech.market.choices import AbstractChoice as AbstractChoice
from dynmech.market.choices import AbstractQuery as AbstractQuery
from dynmech.market.choices import ConstantQuery as ConstantQuery
from dynmech.market.choices import levels
from dynmech.market.part import MarketPart, history_count, kept_histories
from dynmech.market.shown import asks
from dynmech.market.told import (
    AbstractToldBound,
    ToldTaste,
    best_matches,
    free_recalls,
    queries,
)

Memory = Int[Array | np.ndarray, " d"]
_TABLE = "Tabulated(action=...)"


def _as_query(query: Any) -> Any:
    fits = isinstance(query, Tracer) or (
        is_number(query) and (0 <= np.asarray(query) <= 1 or not np.isfinite(query))
    )
    return ConstantQuery(levels("query=...", query, ())) if fits else query


def _check_parts(rule: "_Recall") -> None:
    check_fields(
        rule,
        choice=instance(AbstractChoice, "Threshold() or Logit(scale)"),
        query=instance(
            AbstractQuery, "a probability in [0, 1], or how it is found, as ProductQuery(...)"
        ),
    )


class AbstractActionRule(MarketPart, Record):
    """What the user remembers, and what she does after a recommendation."""

    @abc.abstractmethod
    def start(self, products: int, horizon: int | float) -> Int[np.ndarray, " d"]:
        """Memory before anything is shown: integers, of a length that never changes.

        `horizon` is `math.inf` when there is no last round.
        """

    @abc.abstractmethod
    def step(self, memory: Memory, shown: Index, products: int, /) -> Memory:
        """Memory after the display `shown` (K,), `products` in an empty place; traced."""

    @abc.abstractmethod
    def probabilities(
        self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"], /
    ) -> Float[Numbers, "n2 m"]:
        """Probabilities of buying 0..n-1, leaving, asking again; shape (n+2, m); traced.

        `memory` is that after the display `shown` (K,).
        """

    @with_default
    def begin(self, products: int, horizon: int | float, size: int) -> Int[np.ndarray, " d"]:
        """Memory before anything is shown where up to `size` products are shown at once.

        That of `start`, by default.
        """
        return self.start(products, horizon)

    @with_default
    def shown_before(self, products: int) -> Bool[np.ndarray, " n"]:
        """Products that she has seen by the start: none, unless a conversation is continued."""
        return np.zeros(products, bool)

    @with_default
    def possible(self, utilities: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, "n m"]:
        """Where each product may be bought after some history: everywhere, by default."""
        return np.ones(utilities.shape, bool)

    @with_default
    def counts_histories(self) -> bool:
        """Whether the memory is the row of the history, as that of `Tabulated`, for tables."""
        return False

    @with_default
    def lasts(self) -> int | None:
        """None, by default: who asks in the last round has left.

        Where the last round of a market stands for all that follow, what is shown there is shown
        again for as long as she asks: after how many times that no longer changes what she does.
        """
        return None

    @with_default
    def endless(self) -> "AbstractActionRule":
        """The same rule where there is no last round: this one, by default."""
        return self

    @with_default
    def alone(
        self, shown: Index, utilities: Float[Numbers, "n m"]
    ) -> tuple[Float[Numbers, " m"], Float[Numbers, " m"]] | None:
        """Chances that the one product shown, n for none, is bought, and of a query; traced.

        For rules under which nothing else can be bought, whatever was shown before. None, by
        default: `probabilities` is asked about every product.
        """
        return None

    @with_default
    def told_bound(self, told: ToldTaste) -> Sequence[AbstractToldBound] | None:
        """Bounds on what a platform that is told the taste could get, one a maximisation.

        None, by default: memories are listed instead, up to 1e6 of them, which is exact.
        """
        return None


class _Recall(AbstractActionRule):
    """A rule of two parts, how likely a query is and what is chosen otherwise."""

    choice: eqx.AbstractVar[AbstractChoice]
    query: eqx.AbstractVar[AbstractQuery]

    def check(self, products: int, points: int, horizon: int | float):
        self.choice.check(products, points, horizon)
        self.query.check(products, points, horizon)

    def possible(self, utilities: Float[np.ndarray, "n m"]):
        return self.choice.possible(utilities)

    def restrict(self, keep: Int[np.ndarray, " K"]):
        parts = self.choice.restrict(keep), self.query.restrict(keep)
        return eqx.tree_at(lambda rule: (rule.choice, rule.query), self, parts)

    def _free_recall(self, told: ToldTaste) -> Sequence[AbstractToldBound] | None:
        known = np.zeros(len(told.utilities), bool)
        if (
            not self.query.by_best()
            or self.choice.most(told.utilities, told.utilities, known) is None
        ):
            return None
        return free_recalls(self.choice, told, queries(self.query, told))


def _act(
    choice: AbstractChoice, query: AbstractQuery, shown: Index, utilities: Numbers, weight: Numbers
):
    """Query first; otherwise choose among what is remembered and the outside option."""
    again = asks(query, jnp.atleast_1d(jnp.asarray(shown)), utilities, weight > 0)
    shares = choice.shares(utilities, weight)
    leave = jnp.clip(1 - shares.sum(axis=0), 0.0, 1.0)
    return jnp.concatenate([(1 - again) * shares, ((1 - again) * leave)[None], again[None]])


class PerfectRecall(_Recall):
    """Remember every product shown, and compare them all; the order does not matter.

    **Arguments:** `choice`: `Threshold()` or `Logit(scale)`; `query`: a probability, or
    `ConstantQuery`, `ProductQuery`, `FallingQuery`.
    """

    choice: AbstractChoice
    query: AbstractQuery = eqx.field(converter=_as_query)

    def __check_init__(self):
        _check_parts(self)

    def told_bound(self, told: ToldTaste):
        if self.query.by_best() and self.choice.takes_best():
            return best_matches(told, queries(self.query, told))
        return self._free_recall(told)

    def start(self, products: int, horizon: int | float):
        return np.full(int(min(products, horizon)), products)

    def begin(self, products: int, horizon: int | float, size: int):
        return np.full(int(min(products, horizon * size)), products)

    def step(self, memory: Memory, shown: Index, products: int):
        found = jnp.sort(jnp.concatenate([jnp.asarray(memory), jnp.atleast_1d(jnp.asarray(shown))]))
        twice = jnp.append(found[1:] == found[:-1], False)
        return jnp.sort(jnp.where(twice, products, found))[: len(memory)]

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        n = utilities.shape[0]
        memory, shown = jnp.asarray(memory), jnp.atleast_1d(jnp.asarray(shown))
        again = asks(self.query, shown, utilities, _seen(memory, n))
        # Few of many products are remembered: choose among those.
        known = (memory < n).astype(utilities.dtype)
        among = self.choice.shares(utilities[jnp.minimum(memory, n - 1)], known)
        leave = jnp.clip(1 - among.sum(axis=0), 0.0, 1.0)
        bought = jnp.zeros_like(utilities).at[memory].add((1 - again) * among, mode="drop")
        return jnp.concatenate([bought, ((1 - again) * leave)[None], again[None]])


class ImperfectRecall(_Recall):
    """Remember what was shown k products ago with weight decay**k; the last shown with weight 1.

    Where several products are shown at once, those of one display are as fresh as each other, and k
    counts displays of which something has not been shown again since.

    **Arguments:** `choice`, `query` as in `PerfectRecall`; `decay` in [0, 1].
    """

    choice: AbstractChoice
    query: AbstractQuery = eqx.field(converter=_as_query)
    decay: Float[Numbers, ""] = eqx.field(
        converter=lambda x: levels("ImperfectRecall(decay=...)", x, ())
    )

    def __check_init__(self):
        _check_parts(self)

    def told_bound(self, told: ToldTaste):
        return self._free_recall(told)

    def start(self, products: int, horizon: int | float):
        return np.full(int(min(products, horizon)), products)

    def begin(self, products: int, horizon: int | float, size: int):
        return np.full(int(min(products, horizon * size)), products)

    def step(self, memory: Memory, shown: Index, products: int):
        # Freshest first; n + 1 is added to a product that was on the screen with the one before it.
        old, new = jnp.asarray(memory), jnp.sort(jnp.atleast_1d(jnp.asarray(shown)))
        product = jnp.concatenate([new, old % (products + 1)])
        age = jnp.concatenate([0 * new, jnp.cumsum(old <= products)])
        again = (old[:, None] % (products + 1) == new).any(axis=1)
        empty = (product == products) | jnp.concatenate([new != new, again])
        order = jnp.argsort(empty, stable=True)[: len(old)]
        product, age = jnp.where(empty, products, product)[order], age[order]
        beside = jnp.append(False, age[1:] == age[:-1]) & (product < products)
        return product + (products + 1) * beside

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        n, memory = utilities.shape[0], jnp.asarray(memory)
        age = jnp.cumsum(memory <= n) - 1
        weight = jnp.asarray(self.decay, utilities.dtype) ** age
        weight = jnp.zeros(n + 1, utilities.dtype).at[memory % (n + 1)].max(weight)[:n]
        return _act(self.choice, self.query, shown, utilities, weight)


class LastShownOnly(_Recall):
    """Buy a product on the screen or nothing.

    **Arguments:** `choice`, `query` as in `PerfectRecall`; `stays`: True if the last display
    stays on the screen when none is recommended; by default the screen is then empty.
    """

    choice: AbstractChoice
    query: AbstractQuery = eqx.field(converter=_as_query)
    stays: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        _check_parts(self)
        check_fields(self, stays=flag)

    def alone(self, shown: Index, utilities: Float[Numbers, "n m"]):
        if not self.choice.ignores_unseen():
            return None
        n = utilities.shape[0]
        own = jax.lax.dynamic_slice(
            jnp.asarray(utilities), (jnp.minimum(shown, n - 1), 0), (1, utilities.shape[1])
        )
        share = self.choice.shares(own, jnp.ones(1))[0] * (shown < n)
        again = asks(self.query, shown, utilities, jnp.arange(n) == shown)
        return (1 - again) * share, again

    def start(self, products: int, horizon: int | float):
        return np.full(1, products)

    def begin(self, products: int, horizon: int | float, size: int):
        return np.full(size, products)

    def step(self, memory: Memory, shown: Index, products: int):
        shown = jnp.sort(jnp.atleast_1d(jnp.asarray(shown)))
        return jnp.where((shown == products).all(), memory, shown) if self.stays else shown

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        weight = _seen(memory, utilities.shape[0]).astype(utilities.dtype)
        return _act(self.choice, self.query, shown, utilities, weight)


class Tabulated(AbstractActionRule):
    """A table of probabilities for every ordered history of recommendations.

    **Arguments:** `action`, shape (H, n+2, m): rows 0..n-1 buy j, row n exit, row n+1 query. H
    runs over histories of length 1..T: shorter first, then lexicographic, entries 0..n (n for
    none). Memory is the row of the history so far, -1 before the first.
    """

    action: Float[Numbers, "H n2 m"] = eqx.field(
        converter=lambda x: chances(_TABLE, shaped("H", "n+2", "m")(_TABLE, x), axis=1)
    )

    def check(self, products: int, points: int, horizon: int | float):
        if horizon == math.inf:
            must = "remember finitely much when horizon is math.inf"
            got, do = "Tabulated, a row for every history", "use another rule, or a finite horizon"
            raise InvalidArgument(describe("RecommendationMDP(action_rule=...)", must, got, do))
        shape = (history_count(products, int(horizon)), products + 2, points)
        if self.action.shape != shape:
            must = f"have shape (H, n+2, m) = {shape}"
            raise InvalidArgument(describe(_TABLE, must, self.action.shape))

    def counts_histories(self):
        return True

    def restrict(self, keep: Int[np.ndarray, " K"]):
        n = self.action.shape[1] - 2
        rows = kept_histories(keep, n, len(self.action))
        return Tabulated(np.asarray(self.action)[rows][:, [*keep, n, n + 1]])

    def start(self, products: int, horizon: int | float):
        return np.full(1, -1)

    def step(self, memory: Memory, recommendation: Index, products: int):
        return (memory + 1) * (products + 1) + recommendation

    def probabilities(
        self, memory: Memory, recommendation: Index, utilities: Float[Numbers, "n m"]
    ):
        return jnp.asarray(self.action)[memory[0]]


def _seen(memory: Numbers, n: int):
    """Which products a memory of indices (n for empty) holds, shape (n,)."""
    return jnp.zeros(n + 1, bool).at[jnp.asarray(memory)].set(True)[:n]
