"""Settlement: the signal after a purchase, from which the utility of what was bought is estimated.

It is not quantised: it is settled as drawn."""

import abc
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._checks import (
    check_fields,
    choice,
    number,
    shaped,
)
from dynmech._types import Estimable, Given, Index, Numbers, Record, precision, with_default
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.channels import (
    capped_normal,
    normal_expectation,
)
from dynmech.market.part import MarketPart, kept_histories

_LIMITS = "RatingSettlement(limits=...)"


class AbstractSettlementSignal(MarketPart, Record):
    """The signal after a purchase, from which the utility of the product bought is estimated.

    Methods are told the product recommended, n for none; all places (K,) where several are shown.
    """

    @abc.abstractmethod
    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ) -> Float[Array, "n m"]:
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
    def laws(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ) -> Float[Array, "*L n m"]:
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
    def expect(
        self,
        function: Callable[[Array], Array],
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
    ) -> Array:
        """E[function(rating) | omega, j bought], of arrays (n, m), to (..., n, m); traced.

        **Raises:** `InvalidArgument` by default: a mean and a noise are no law.
        """
        must = "have a law that is known, where a chance or a cap depends on the rating"
        do = "use RatingSettlement(...), or give the class a method `expect`"
        call = "MissingRatings(rating=...)"
        raise InvalidArgument(describe(call, must, type(self).__name__, do))

    @with_default
    def moments(
        self,
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
        noise: Float[Numbers, "n m"],
    ) -> Float[Array, "4 n m"] | None:
        """How the estimate follows the prediction m = E[u_j | reports, history, purchase]; traced.

        (d, v0, v1, v2) with E[estimate | omega, m] = mean + d m and Var = v0 + v1 m + v2 m^2.
        None, as by default, where it does not. `noise`: of the rating, NaN where it is unknown.
        """
        return None

    @with_default
    def sends_missing(self) -> bool:
        """Whether its ratings need not come, so that an estimator has to say what that counts.

        Such a signal has the fields `rating`, `chance` and `given` of `MissingRatings`.
        """
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
    def normal(self) -> tuple[Any, float, float] | None:
        """(sd, low, high) where it sends u_j + sd * N(0, 1), cut at low and high, which may be
        infinite; None, as by default, where it is not known to. What `fit` reads ratings by."""
        return None

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


def _range(given: Given | None) -> tuple[float, float] | None:
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

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return self

    def normal(self):
        return (self.deviation, *(self._ends if self._cut else (-np.inf, np.inf)))

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        u = jnp.asarray(utilities)
        return capped_normal(u, self.deviation, *self._ends)[0] if self._cut else u

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        if not self._cut:
            return self.deviation
        with precision(np.asarray(utilities)):
            first, second = capped_normal(np.asarray(utilities), self.deviation, *self._ends)
            return np.sqrt(np.maximum(np.asarray(second) - np.asarray(first) ** 2, 0.0))

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        noise = np.asarray(self.deviation) * rng.standard_normal(len(mean))
        if self._cut:
            return (utilities[product, omega] + noise).clip(*self._ends)
        return mean + noise

    def expect(
        self,
        function: Callable[[Array], Array],
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
    ):
        def sent(rating: Array):
            return function(rating.clip(*self._ends) if self._cut else rating)

        return normal_expectation(sent, jnp.asarray(utilities), self.deviation)

    def estimate(
        self,
        product: Int[np.ndarray, " N"],
        rating: Float[np.ndarray, " N"],
        laws: Float[np.ndarray, "*L N"],
        prediction: Float[np.ndarray, " N"],
    ):
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

    def restrict(self, keep: Int[np.ndarray, " K"]):
        rows = kept_histories(keep, self.utility.shape[1], len(self.utility))
        return TabulatedSettlement(np.asarray(self.utility)[rows][:, keep])

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        assert memory is not None
        return jnp.asarray(self.utility)[memory[0]]

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return None

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        return mean

    def reads_history(self):
        return True
