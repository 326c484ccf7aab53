"""Signals about the taste: initial, feedback after a query, settlement after a purchase.

Signals of the platform and the advertisers are drawn jointly given omega and the history, with
noise that may be correlated across them, independently across periods (paper C, section 3.1).
Alphabets are finite, so that posteriors are exact; a Gaussian reading is quantised at prior
quantiles of what it reads. The settlement signal is not quantised: it is settled as drawn.

Each kind is completed by `bind`, which fixes its cut points for a market; likelihoods stay
traceable functions of the utilities.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._checks import (
    check_fields,
    finite,
    instance,
    number,
    optional,
    whole,
    within,
)
from dynmech._types import Given, Numbers, Record, module_of
from dynmech.errors import InvalidArgument, describe
from dynmech.market.channels import (
    AbstractSymbols,
    as_channel,
    common_shock,
    in_use,
    prior_quantiles,
    quantised_normal,
    require_shape,
)
from dynmech.market.feedback import AbstractFeedback, NoFeedback
from dynmech.market.settlements import (
    AbstractSettlementSignal,
    RatingSettlement,
)

_CORRELATION = "GaussianSignals(correlation=...)"
_CELLS = 2**22


class AbstractInitialSignals(AbstractSymbols):
    """Signals of period 1: the platform's context and each advertiser's own data."""

    @abc.abstractmethod
    def likelihood(
        self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]
    ) -> Float[Array, "B m"]:
        """Probability of each joint symbol given each taste."""

    @abc.abstractmethod
    def draw(
        self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int
    ) -> Int[np.ndarray, " n1"]:
        """Draw one joint symbol (platform, advertisers) at taste point `omega`."""


class NoSignals(AbstractInitialSignals):
    """Nobody knows anything but the prior at the start."""

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        return self

    def alphabet(self, products: int):
        return (1,) * (products + 1)

    def likelihood(self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]):
        return module_of(utilities).ones((symbols.shape[0], utilities.shape[1]))

    def draw(self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int):
        return np.zeros(utilities.shape[0] + 1, np.int64)


class JointSignals(AbstractInitialSignals):
    """A table of the joint law of the initial signals.

    **Arguments:** `table`, shape (m, Zp, Z1, ..., Zn), each row (axis 0) summing to 1.
    """

    table: Float[Numbers, "m ..."]

    def __init__(self, table: Given):
        self.table = as_channel("JointSignals(table=...)", table)

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        n, m = utilities.shape
        require_shape("JointSignals(table=...)", self.table, (m,), n + 1)
        return self

    def alphabet(self, products: int):
        return self.table.shape[1:]

    def likelihood(self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]):
        return jnp.moveaxis(jnp.asarray(self.table), 0, -1)[tuple(np.asarray(symbols).T)]

    def draw(self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int):
        law = np.asarray(self.table)[omega]
        flat = np.searchsorted(np.cumsum(law.ravel()), rng.random() * law.sum(), side="right")
        return np.stack(np.unravel_index(min(flat, law.size - 1), law.shape))


class GaussianSignals(AbstractInitialSignals):
    """Noisy Gaussian readings, quantised: S = target(omega) + sd * noise.

    The platform reads the user's average utility over products (how much she wants any of
    them), advertiser i the utility of her own product; both in money. Readings are cut into
    `symbols` symbols at the prior quantiles of their target. With `correlation` rho, noises are
    sqrt(rho) common + sqrt(1 - rho) own. The joint law is summed over as many values of the
    common shock as make it exact to 1e-12: correlation leaves each party's own law as it is.

    **Arguments**

    - `platform`, `advertisers`: noise standard deviations, money; `advertisers` a number or
      shape (n,). None: no signal (one symbol). May be traced.
    - `symbols`: at least 2. `correlation`: in [0, 1).
    - `nodes`: values of the common shock at least; more are taken where the law needs them.
    - `cuts`: shape (1 + n, symbols - 1), money, platform first; prior quantiles by default, found
      anew (`cut_points`) for every market that the signals are used in.
    """

    platform: Numbers | float | None
    advertisers: Float[Numbers, "..."] | None
    symbols: int = eqx.field(static=True)
    correlation: float
    nodes: int = eqx.field(static=True)
    cuts: Float[Numbers, "n1 s"] | None
    found: Float[Numbers, "n1 s"] | None = eqx.field(init=False)

    def __init__(
        self,
        platform: Given | None = None,
        advertisers: Given | None = None,
        symbols: float = 3,
        correlation: Numbers | float = 0.0,
        nodes: int = 16,
        cuts: Given | None = None,
    ):
        call = "GaussianSignals({}=...)".format
        self.platform = optional(within(above=0))(call("platform"), platform)
        self.advertisers = optional(within(above=0))(call("advertisers"), advertisers)
        self.symbols = whole(2)(call("symbols"), symbols)
        self.correlation = number(least=0, below=1)(_CORRELATION, correlation)
        self.nodes = whole(1)(call("nodes"), nodes)
        common_shock(_CORRELATION, self.correlation, 2, self.nodes)
        self.cuts = None if cuts is None else finite(call("cuts"), cuts)
        self.found = None

    @property
    def cut_points(self) -> Float[Numbers, "n1 s"]:
        """The cut points in use: those given, or those found for the market."""
        return in_use("GaussianSignals(cuts=...)", self.cuts, self.found)

    def finds_cuts(self):
        return self.cuts is None

    def _noises(self, n: int) -> list[Any]:
        """Deviation of every party's reading, None where she has none."""
        if self.advertisers is None:
            return [self.platform, *(None,) * n]
        own = self.advertisers
        return [self.platform, *(own if own.ndim == 0 else own[i] for i in range(n))]

    def _shocks(self, n: int):
        readings = sum(noise is not None for noise in self._noises(n))
        return common_shock(_CORRELATION, self.correlation, readings, self.nodes)

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        n = utilities.shape[0]
        if self.advertisers is not None and self.advertisers.shape not in ((), (n,)):
            must = f"be a number or have shape ({n},)"
            call = "GaussianSignals(advertisers=...)"
            raise InvalidArgument(describe(call, must, self.advertisers.shape))
        self._shocks(n)
        if self.cuts is not None:
            return self
        targets = np.concatenate([utilities.mean(axis=0, keepdims=True), utilities])
        cuts = prior_quantiles(targets, weights, self.symbols)
        return eqx.tree_at(lambda s: s.found, self, cuts, is_leaf=lambda x: x is None)

    def alphabet(self, products: int):
        advertisers = 1 if self.advertisers is None else self.symbols
        return (1 if self.platform is None else self.symbols, *(advertisers,) * products)

    def likelihood(self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]):
        given = utilities, self.platform, self.advertisers, self.correlation, self.cut_points
        arrays = module_of(*given)
        u, (shocks, weights) = arrays.asarray(utilities), self._shocks(len(utilities))
        targets, cuts = arrays.concatenate([u.mean(axis=0, keepdims=True), u]), given[-1]
        total = arrays.zeros((len(symbols), u.shape[1]), u.dtype)
        size = max(1, _CELLS // max(total.size, 1))
        for first in range(0, len(shocks), size):
            part = slice(first, first + size)
            shared = np.sqrt(self.correlation) * shocks[part, None]
            joint = arrays.ones((len(shared), *total.shape), u.dtype)
            for party, noise in enumerate(self._noises(len(u))):
                if noise is not None:
                    own = np.sqrt(1 - self.correlation) * noise
                    reading = targets[party] + noise * shared
                    law = quantised_normal(reading, own, cuts[party], arrays)
                    joint = joint * arrays.moveaxis(law, -1, 1)[:, symbols[:, party]]
            # Not a product of matrices: so small a one waits longer for threads than it takes.
            each = arrays.asarray(weights[part], u.dtype)
            total = total + arrays.einsum("q,qbm->bm", each, joint)
        return total

    def draw(self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int):
        n = utilities.shape[0]
        shock = rng.standard_normal()
        readings = np.append(utilities[:, omega].mean(), utilities[:, omega])
        symbols = np.zeros(n + 1, np.int64)
        for party, noise in enumerate(self._noises(n)):
            own = rng.standard_normal()
            if noise is not None:
                mixed = np.sqrt(self.correlation) * shock + np.sqrt(1 - self.correlation) * own
                reading = readings[party] + float(noise) * mixed
                symbols[party] = np.searchsorted(self.cut_points[party], reading)
        return symbols


class SignalStructure(Record):
    """All signals of a conversation.

    **Arguments:** `initial`: `GaussianSignals`, `JointSignals`, `NoSignals` (default);
    `feedback`: `RatingFeedback`, `ChannelFeedback`, `TabulatedFeedback`, `NoFeedback`
    (default); `settlement`: `RatingSettlement` (default), `TabulatedSettlement`, or
    `MissingRatings` around one, where ratings need not come.
    """

    initial: AbstractInitialSignals = eqx.field(default_factory=NoSignals)
    feedback: AbstractFeedback = eqx.field(default_factory=NoFeedback)
    settlement: AbstractSettlementSignal = eqx.field(default_factory=RatingSettlement)

    def __check_init__(self):
        check_fields(
            self,
            initial=instance(AbstractInitialSignals, "initial signals, as GaussianSignals(...)"),
            feedback=instance(AbstractFeedback, "feedback, as RatingFeedback(...)"),
            settlement=instance(AbstractSettlementSignal, "a settlement signal"),
        )
