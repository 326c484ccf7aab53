"""Signals about the taste: initial, feedback after a query, settlement after a purchase.

Signals of the platform and the advertisers are drawn jointly given omega and the history, with
noise that may be correlated across them, independently across periods (paper C, section 3.1).
Alphabets are finite, so that posteriors are exact; a Gaussian reading is quantised at prior
quantiles of what it reads. The settlement signal is not quantised: it is settled as drawn.

Each kind is completed by `bind`, which fixes its cut points for a market; likelihoods stay
traceable functions of the utilities.
"""

import abc
from functools import partial
from typing import ClassVar

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
    positive,
    shaped,
    whole,
    within,
)
from dynmech._types import Estimable, Numbers
from dynmech.errors import InvalidArgument, describe
from dynmech.market.channels import (
    AbstractSymbols,
    as_channel,
    none_to_nan,
    prior_quantiles,
    quantised_normal,
    require_shape,
)
from dynmech.market.feedback import AbstractFeedback, NoFeedback


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


class AbstractSettlementSignal(eqx.Module):
    """The signal after a purchase, from which the utility of the product bought is estimated."""

    @abc.abstractmethod
    def mean(self, memory, recommendation, utilities: Float[Numbers, "n m"]) -> Float[Array, "n m"]:
        """E[estimate of u_j | omega, j bought after this history], shape (n, m); traced."""

    @abc.abstractmethod
    def noise(
        self, utilities: Float[Numbers, "n m"] | None = None
    ) -> Float[Numbers, "..."] | float | None:
        """Standard deviation of the estimate given omega and the product bought, money.

        A number, or an array that broadcasts to (n, m); None where only the mean is known.
        """

    @abc.abstractmethod
    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, " N"],
    ) -> Float[np.ndarray, " N"]:
        """Draw the estimates of N purchases, money; `mean` is their conditional mean."""


class NoSignals(AbstractInitialSignals):
    """Nobody knows anything but the prior at the start."""

    def bind(self, utilities, weights):
        return self

    def alphabet(self, products):
        return (1,) * (products + 1)

    def likelihood(self, utilities, symbols):
        return jnp.ones((symbols.shape[0], utilities.shape[1]))

    def draw(self, rng, utilities, omega):
        return np.zeros(utilities.shape[0] + 1, np.int64)


class JointSignals(AbstractInitialSignals):
    """A table of the joint law of the initial signals.

    **Arguments:** `table`, shape (m, Zp, Z1, ..., Zn), each row (axis 0) summing to 1.
    """

    table: Float[Numbers, "m ..."]

    def __init__(self, table):
        self.table = as_channel("JointSignals(table=...)", table)

    def bind(self, utilities, weights):
        n, m = utilities.shape
        require_shape("JointSignals(table=...)", self.table, (m,), n + 1)
        return self

    def alphabet(self, products):
        return self.table.shape[1:]

    def likelihood(self, utilities, symbols):
        return jnp.moveaxis(jnp.asarray(self.table), 0, -1)[tuple(np.asarray(symbols).T)]

    def draw(self, rng, utilities, omega):
        law = np.asarray(self.table)[omega]
        flat = np.searchsorted(np.cumsum(law.ravel()), rng.random() * law.sum(), side="right")
        return np.stack(np.unravel_index(min(flat, law.size - 1), law.shape))


class GaussianSignals(AbstractInitialSignals):
    """Noisy Gaussian readings, quantised: S = target(omega) + sd * noise.

    The platform reads the user's average utility over products (how much she wants any of
    them), advertiser i the utility of her own product; both in money. Readings are cut into
    `symbols` symbols at the prior quantiles of their target. With `correlation` rho, noises are
    sqrt(rho) common + sqrt(1 - rho) own: the common shock has `nodes` Gauss-Hermite points,
    and that law is the model solved.

    **Arguments**

    - `platform`, `advertisers`: noise standard deviations, money; `advertisers` a number or
      shape (n,). None: no signal (one symbol).
    - `symbols`: at least 2. `correlation`: in [0, 1).
    """

    platform: float | None
    advertisers: Float[np.ndarray, "..."] | None
    symbols: int = eqx.field(static=True)
    correlation: float
    nodes: int = eqx.field(static=True)
    cuts: Float[np.ndarray, "n1 s"] | None

    def __init__(
        self, platform=None, advertisers=None, symbols=3, correlation=0.0, nodes=16, cuts=None
    ):
        call = "GaussianSignals({}=...)".format
        self.platform = optional(positive)(call("platform"), platform)
        self.platform = None if platform is None else float(platform)
        self.advertisers = None
        if advertisers is not None:
            self.advertisers = np.asarray(within(above=0)(call("advertisers"), advertisers))
        self.symbols = whole(2)(call("symbols"), symbols)
        self.correlation = number(least=0, below=1)(call("correlation"), correlation)
        self.nodes = whole(1)(call("nodes"), nodes)
        self.cuts = None if cuts is None else np.asarray(finite(call("cuts"), cuts))

    def _cuts(self) -> Float[np.ndarray, "n1 s"]:
        if self.cuts is None:
            must, do = "have cut points", "call bind, as RecommendationMDP does"
            raise InvalidArgument(describe("GaussianSignals(cuts=...)", must, None, do))
        return self.cuts

    def _targets(self, utilities):
        return jnp.concatenate([utilities.mean(axis=0, keepdims=True), utilities])

    def bind(self, utilities, weights):
        n = utilities.shape[0]
        if self.advertisers is not None and self.advertisers.shape not in ((), (n,)):
            must = f"be a number or have shape ({n},)"
            call = "GaussianSignals(advertisers=...)"
            raise InvalidArgument(describe(call, must, self.advertisers.shape))
        if self.cuts is not None:
            return self
        targets = np.concatenate([utilities.mean(axis=0, keepdims=True), utilities])
        return eqx.tree_at(
            lambda s: s.cuts,
            self,
            prior_quantiles(targets, weights, self.symbols),
            is_leaf=lambda x: x is None,
        )

    def alphabet(self, products):
        advertisers = 1 if self.advertisers is None else self.symbols
        return (1 if self.platform is None else self.symbols, *(advertisers,) * products)

    def likelihood(self, utilities, symbols):
        n, points = utilities.shape
        shocks, weights = np.polynomial.hermite_e.hermegauss(self.nodes if self.correlation else 1)
        total = jnp.ones((len(shocks), symbols.shape[0], points), utilities.dtype)
        noises = [self.platform, *np.broadcast_to(none_to_nan(self.advertisers), n)]
        targets = self._targets(jnp.asarray(utilities))
        for party, noise in enumerate(noises):
            if noise is None or np.isnan(noise):
                continue
            common = np.sqrt(self.correlation) * noise * shocks
            own = np.sqrt(1 - self.correlation) * noise
            law = quantised_normal(targets[party] + common[:, None], own, self._cuts()[party])
            total = total * jnp.moveaxis(law, -1, 1)[:, symbols[:, party]]
        return jnp.tensordot(jnp.asarray(weights / weights.sum()), total, 1)

    def draw(self, rng, utilities, omega):
        n = utilities.shape[0]
        shocks, weights = np.polynomial.hermite_e.hermegauss(self.nodes if self.correlation else 1)
        shock = rng.choice(shocks, p=weights / weights.sum())
        readings = np.append(utilities[:, omega].mean(), utilities[:, omega])
        noises = [self.platform, *np.broadcast_to(none_to_nan(self.advertisers), n)]
        symbols = np.zeros(n + 1, np.int64)
        for party, noise in enumerate(noises):
            own = rng.standard_normal()
            if noise is not None and not np.isnan(noise):
                mixed = np.sqrt(self.correlation) * shock + np.sqrt(1 - self.correlation) * own
                reading = readings[party] + noise * mixed
                symbols[party] = np.searchsorted(self._cuts()[party], reading)
        return symbols


class RatingSettlement(AbstractSettlementSignal):
    """A Gaussian rating u_j(omega) + sd * noise of the product bought, settled as drawn.

    Unbiased given omega and the history: Assumption 3 holds for what payments use.
    **Arguments:** `deviation`: standard deviation, money, not negative.
    """

    estimable: ClassVar[Estimable] = {"settlement noise": (("deviation", "positive"),)}
    deviation: float = eqx.field(default=1.0)

    def __check_init__(self):
        check_fields(self, deviation=number(least=0))

    def mean(self, memory, recommendation, utilities):
        return jnp.asarray(utilities)

    def noise(self, utilities=None):
        return self.deviation

    def draw(self, rng, utilities, product, omega, mean):
        return mean + np.asarray(self.deviation) * rng.standard_normal(len(mean))


class TabulatedSettlement(AbstractSettlementSignal):
    """The conditional mean of an estimate of omega; needs the `Tabulated` rule's memory.

    **Arguments:** `utility`, shape (H, n, m): E[<gamma_j, omega_hat> | omega, j bought after
    that history], money. Its noise is not known: simulation settles at the mean and says so.
    """

    utility: Float[Numbers, "H n m"] = eqx.field(
        converter=partial(shaped("H", "n", "m"), "TabulatedSettlement(utility=...)")
    )

    def mean(self, memory, recommendation, utilities):
        return jnp.asarray(self.utility)[memory[0]]

    def noise(self, utilities=None):
        return None

    def draw(self, rng, utilities, product, omega, mean):
        return mean


class SignalStructure(eqx.Module):
    """All signals of a conversation.

    **Arguments:** `initial`: `GaussianSignals`, `JointSignals`, `NoSignals` (default);
    `feedback`: `RatingFeedback`, `ChannelFeedback`, `TabulatedFeedback`, `NoFeedback`
    (default); `settlement`: `RatingSettlement` (default), `TabulatedSettlement`.
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
