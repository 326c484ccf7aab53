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
    choice,
    finite,
    instance,
    number,
    optional,
    shaped,
    whole,
    within,
)
from dynmech._types import Estimable, Numbers, precision, with_default
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.channels import (
    AbstractSymbols,
    as_channel,
    capped_normal,
    common_shock,
    in_use,
    normal_expectation,
    prior_quantiles,
    quantised_normal,
    require_shape,
)
from dynmech.market.feedback import AbstractFeedback, NoFeedback
from dynmech.market.part import MarketPart, kept_histories

_CORRELATION = "GaussianSignals(correlation=...)"
_LIMITS = "RatingSettlement(limits=...)"
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


class AbstractSettlementSignal(MarketPart, eqx.Module):
    """The signal after a purchase, from which the utility of the product bought is estimated.

    Methods are told the product recommended, n for none; all places (K,) where several are shown.
    """

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
        mean: Float[np.ndarray, "*L N"],
    ) -> Float[np.ndarray, " N"]:
        """Draw what is sent after N purchases, money; `mean`: what `laws` holds of each."""

    @with_default
    def laws(self, memory, recommendation, utilities) -> Float[Array, "*L n m"]:
        """All by which histories differ for the signal, its mean by default; traced.

        Histories are told apart where it differs, and `draw` is given it.
        """
        return self.mean(memory, recommendation, utilities)

    @with_default
    def reads_history(self) -> bool:
        """Whether it reads the memory of a `Tabulated` rule: the index of the history."""
        return False

    @with_default
    def check_ratings(self, utilities: Float[np.ndarray, "n m"]) -> None:
        """Raise unless what it says of ratings holds wherever they can lie in this market."""

    @with_default
    def expect(self, function, memory, recommendation, utilities):
        """E[function(rating) | omega, j bought], of arrays (n, m), to (..., n, m); traced.

        **Raises:** `InvalidArgument` by default: a mean and a noise are no law.
        """
        must = "have a law that is known, where a chance or a cap depends on the rating"
        do = "use RatingSettlement(...), or give the class a method `expect`"
        call = "MissingRatings(rating=...)"
        raise InvalidArgument(describe(call, must, type(self).__name__, do))

    @with_default
    def moments(
        self, memory, recommendation, utilities, noise: Float[Array, "n m"]
    ) -> Float[Array, "4 n m"] | None:
        """How the estimate follows the prediction m = E[u_j | reports, history, purchase]; traced.

        (d, v0, v1, v2) with E[estimate | omega, m] = mean + d m and Var = v0 + v1 m + v2 m^2.
        None, as by default, where it does not. `noise`: of the rating, NaN where it is unknown.
        """
        return None

    @with_default
    def sends_missing(self) -> bool:
        """Whether its ratings need not come, so that an estimator has to say what that counts."""
        return False

    @with_default
    def counts_missing(self) -> bool:
        """Whether `estimate` says what a rating that did not come counts."""
        return False

    @with_default
    def estimate(
        self,
        product: Int[np.ndarray, " N"],
        rating: Float[np.ndarray, " N"],
        laws: Float[np.ndarray, "*L N"],
        prediction: Float[np.ndarray, " N"],
    ) -> Float[np.ndarray, " N"]:
        """The estimates that N ratings stand for, NaN where none came; themselves by default.

        **Arguments:** `laws`: of each purchase; `prediction`: m, see `moments`.
        """
        return rating

    @with_default
    def rating_noise(self, utilities: Float[Numbers, "n m"]) -> Numbers | float | None:
        """`noise` of the rating behind the estimate, which is the estimate itself by default."""
        return self.noise(utilities)

    @with_default
    def symbols(self, utilities: Float[Numbers, "n m"]) -> Float[np.ndarray, "n m Z"]:
        """P(symbol | omega, j bought).

        **Raises:** `InvalidArgument`, as by default, where ratings have no symbols.
        """
        must, do = "come in symbols to be decoded", "use QuantisedRatingSettlement(...)"
        call = "MissingRatings(rating=...)"
        raise InvalidArgument(describe(call, must, type(self).__name__, do))

    @with_default
    def sent_by(self, sent: "AbstractSettlementSignal") -> "AbstractSettlementSignal":
        """The estimator where nature sends `sent`; itself by default, being what is sent."""
        return self

    @with_default
    def held_root(self, signals: Int[np.ndarray, "R n1"]) -> Float[np.ndarray, "R m"] | None:
        """What the mechanism believes after first symbols where it is not what is true."""
        return None

    @with_default
    def forgets(self) -> bool:
        """Whether `mean` is the same after every memory and control; False where not known."""
        return False


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
        self, platform=None, advertisers=None, symbols=3, correlation=0.0, nodes=16, cuts=None
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

    def _noises(self, n: int) -> list:
        """Deviation of every party's reading, None where she has none."""
        if self.advertisers is None:
            return [self.platform, *(None,) * n]
        own = self.advertisers
        return [self.platform, *(own if own.ndim == 0 else own[i] for i in range(n))]

    def _shocks(self, n: int):
        readings = sum(noise is not None for noise in self._noises(n))
        return common_shock(_CORRELATION, self.correlation, readings, self.nodes)

    def bind(self, utilities, weights):
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

    def alphabet(self, products):
        advertisers = 1 if self.advertisers is None else self.symbols
        return (1 if self.platform is None else self.symbols, *(advertisers,) * products)

    def likelihood(self, utilities, symbols):
        u, (shocks, weights) = jnp.asarray(utilities), self._shocks(len(utilities))
        targets, cuts = jnp.concatenate([u.mean(axis=0, keepdims=True), u]), self.cut_points
        total = jnp.zeros((len(symbols), u.shape[1]), u.dtype)
        size = max(1, _CELLS // max(total.size, 1))
        for first in range(0, len(shocks), size):
            part = slice(first, first + size)
            shared = np.sqrt(self.correlation) * shocks[part, None]
            joint = jnp.ones((len(shared), *total.shape), u.dtype)
            for party, noise in enumerate(self._noises(len(u))):
                if noise is not None:
                    own = np.sqrt(1 - self.correlation) * noise
                    law = quantised_normal(targets[party] + noise * shared, own, cuts[party])
                    joint = joint * jnp.moveaxis(law, -1, 1)[:, symbols[:, party]]
            total = total + jnp.tensordot(jnp.asarray(weights[part], u.dtype), joint, 1)
        return total

    def draw(self, rng, utilities, omega):
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


def _range(given) -> tuple[float, float] | None:
    if given is None:
        return None
    low, high = np.asarray(shaped(2)(_LIMITS, given)).tolist()
    if not low < high:
        must = "be (low, high), money, low below high"
        raise InvalidArgument(describe(_LIMITS, must, given))
    return low, high


class RatingSettlement(AbstractSettlementSignal):
    """A Gaussian rating u_j(omega) + sd * noise of the product bought, settled as drawn.

    Unbiased given omega and the history: Assumption 3 holds for what payments use. With a range
    and "cap" the rating is cut at its ends, which is biased, and audits say by how much.

    **Arguments:** `deviation`: standard deviation, money, not negative; `limits`: (low, high), the
    range of ratings, money; `outside`: "refuse", a rating out of it is no rating, or "cap".
    """

    estimable: ClassVar[Estimable] = {"settlement noise": (("deviation", "positive"),)}
    deviation: float = eqx.field(default=1.0)
    limits: tuple[float, float] | None = eqx.field(static=True, default=None, converter=_range)
    outside: str = eqx.field(static=True, default="refuse")

    def __check_init__(self):
        check_fields(self, deviation=number(least=0), outside=choice("refuse", "cap"))
        if self._cut:
            check_fields(self, deviation=number(above=0))

    @property
    def _cut(self) -> bool:
        return self.limits is not None and self.outside == "cap"

    @property
    def _ends(self) -> tuple[float, float]:
        return (-np.inf, np.inf) if self.limits is None else self.limits

    def forgets(self):
        return True

    def restrict(self, keep):
        return self

    def mean(self, memory, recommendation, utilities):
        u = jnp.asarray(utilities)
        return capped_normal(u, self.deviation, *self._ends)[0] if self._cut else u

    def noise(self, utilities=None):
        if not self._cut:
            return self.deviation
        with precision(np.asarray(utilities)):
            first, second = capped_normal(np.asarray(utilities), self.deviation, *self._ends)
            return np.sqrt(np.maximum(np.asarray(second) - np.asarray(first) ** 2, 0.0))

    def draw(self, rng, utilities, product, omega, mean):
        noise = np.asarray(self.deviation) * rng.standard_normal(len(mean))
        if self._cut:
            return (utilities[product, omega] + noise).clip(*self._ends)
        return mean + noise

    def expect(self, function, memory, recommendation, utilities):
        def sent(rating):
            return function(rating.clip(*self._ends) if self._cut else rating)

        return normal_expectation(sent, jnp.asarray(utilities), self.deviation)

    def estimate(self, product, rating, laws, prediction):
        low, high = self._ends
        out = np.isfinite(rating) & ((rating < low) | (rating > high))
        if out.any() and not self._cut:
            must = f"lie in the range of ratings, {low:g} to {high:g}"
            do = 'check where it comes from, or declare RatingSettlement(outside="cap")'
            got = f"{float(rating[out][0]):.6g}"
            raise OutsideSupport(describe("settle(estimate=...)", must, got, do))
        return rating.clip(low, high)


class TabulatedSettlement(AbstractSettlementSignal):
    """The conditional mean of an estimate of omega; needs the `Tabulated` rule's memory.

    **Arguments:** `utility`, shape (H, n, m): E[<gamma_j, omega_hat> | omega, j bought after
    that history], money. Its noise is not known: simulation settles at the mean and says so.
    """

    utility: Float[Numbers, "H n m"] = eqx.field(
        converter=partial(shaped("H", "n", "m"), "TabulatedSettlement(utility=...)")
    )

    def restrict(self, keep):
        rows = kept_histories(keep, self.utility.shape[1], len(self.utility))
        return TabulatedSettlement(np.asarray(self.utility)[rows][:, keep])

    def mean(self, memory, recommendation, utilities):
        return jnp.asarray(self.utility)[memory[0]]

    def noise(self, utilities=None):
        return None

    def draw(self, rng, utilities, product, omega, mean):
        return mean

    def reads_history(self):
        return True


class SignalStructure(eqx.Module):
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
