"""Finite channels: quantised Gaussian readings and checks of tables of probabilities."""

import abc
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.core import Tracer
from jaxtyping import Array, Float

from dynmech._checks import as_floats, chances
from dynmech._types import Given, Numbers, Record, with_default
from dynmech.errors import InvalidArgument, describe
from dynmech.market.part import MarketPart

Alphabet = tuple[int, ...]
_FARTHEST = 8.0  # standard deviations of a shock: beyond lies 1e-15 of its law
_STEP = 0.02  # of an expectation over a rating
_EXPONENT = 60.0  # twice the logarithm of the error allowed, 1e-13
_MOST_SHOCKS = 2**15
_APART = 1e-9  # of a joint law from independence: rounding


class AbstractSymbols(MarketPart, Record):
    """Joint symbols of the platform and the advertisers, completed for a market by `bind`."""

    @abc.abstractmethod
    def bind(self, utilities: np.ndarray, weights: np.ndarray) -> Self:
        """Complete the structure for a market, utilities (n, m), prior weights (m,).

        Called for every market that is built or solved, also on what was bound before: the
        answer depends on what the user gave and on this market, never on an earlier one.
        """

    @abc.abstractmethod
    def alphabet(self, products: int) -> Alphabet:
        """Number of symbols of the platform and of each advertiser, (Zp, Z1, ..., Zn)."""

    @with_default
    def finds_cuts(self) -> bool:
        """Whether it cuts answers where its market's prior says, and others elsewhere."""
        return False

    @with_default
    def describe(self, symbols: Sequence[int]) -> tuple[Any, ...] | None:
        """Symbols (1+n,) with the structure that each is of, where structures are private.

        None, by default: a symbol is a symbol.
        """
        return None

    @with_default
    def encode(self, symbols: Sequence[Any]) -> tuple[Any, ...]:
        """Invert `describe`. **Raises:** `InvalidArgument`, by default: none are private."""
        must = "be integers: pairs (structure, symbol) are for private structures"
        raise InvalidArgument(describe("signals=...", must, symbols))


def marginals(table: Float[Numbers, "m ..."]) -> list[Numbers]:
    """Law of every single party's symbol, shapes (m, Z), from a joint law (m, Zp, Z1, ..., Zn)."""
    parties = range(1, table.ndim)
    return [table.sum(axis=tuple(p for p in parties if p != q)) for q in parties]


def dependence(table: Float[Numbers, "H m ..."]) -> str | None:
    """How far joint laws are from independence across parties, in words; None where they are not.

    None as well while traced. **Arguments:** `table` (rows, m, Zp, Z1, ..., Zn).
    """
    if isinstance(table, Tracer):
        return None
    return dependence_of(np.asarray(table).reshape(-1, *table.shape[2:]))


def dependence_of(table: Float[np.ndarray, "m ..."]) -> str | None:
    """`dependence` of one joint law by taste."""
    product = np.ones(table.shape[0])
    for law in marginals(table):
        shape = (law.shape[0], *(1,) * (product.ndim - 1), law.shape[1])
        product = product[..., None] * law.reshape(shape)
    gap = float(np.abs(product - table).max())
    return f"a joint law {gap:.2g} away from independence" if gap > _APART else None


def prior_quantiles(targets: np.ndarray, weights: np.ndarray, symbols: int) -> np.ndarray:
    """Cut points of each row at its prior quantiles 1/symbols, ..., shape (rows, symbols - 1).

    Linear interpolation of the weighted distribution; equal weights give `numpy.quantile`.
    """
    levels = np.arange(1, symbols) / symbols
    cuts = []
    for row in np.asarray(targets, float):
        order = np.argsort(row, kind="stable")
        mass = np.asarray(weights, float)[order]
        grid = np.cumsum(mass) - mass
        top = grid[-1]
        cuts.append(np.interp(levels, grid / top if top > 0 else grid, row[order]))
    return np.array(cuts)


def quantised_normal(
    mean: Numbers, deviation: Numbers | float, cuts: Numbers, arrays: ModuleType = jnp
) -> Numbers:
    """P(mean + deviation * N(0,1) falls between consecutive cuts), last axis the symbols."""
    normal = scipy.special.ndtr if arrays is np else jax.scipy.special.ndtr
    with np.errstate(over="ignore", invalid="ignore"):
        below = normal((cuts - arrays.asarray(mean)[..., None]) / deviation)
        above = normal((arrays.asarray(mean)[..., None] - cuts) / deviation)
    middle = arrays.where(below[..., :-1] < 0.5, arrays.diff(below), -arrays.diff(above))
    return arrays.concatenate([below[..., :1], middle, above[..., -1:]], axis=-1)


def normal_expectation(
    function: Callable[[Array], Array], mean: Array, deviation: Numbers | float
) -> Array:
    """E[function(mean + deviation * N(0,1))] of arrays (n, m), to (..., n, m); traced.

    The trapezoidal rule on +-8 standard deviations in steps of 0.02: exact to rounding where the
    function is smooth, to 1e-5 of its slope's jump where it is capped.
    """
    shocks = np.arange(-_FARTHEST, _FARTHEST + _STEP / 2, _STEP)
    weights = np.exp(-(shocks**2) / 2)

    def add(total: Array, node: Array):
        shock, weight = node
        return total + weight * function(mean + deviation * shock), None

    nodes = jnp.asarray(np.stack([shocks, weights / weights.sum()], axis=1), mean.dtype)
    start = jax.eval_shape(function, mean)
    return jax.lax.scan(add, jnp.zeros(start.shape, start.dtype), nodes)[0]


def capped_normal(mean: Numbers, deviation: Numbers | float, low: float, high: float):
    """First two moments of N(mean, deviation^2), deviation > 0, cut at `low` and `high`."""
    start, end = (low - mean) / deviation, (high - mean) / deviation
    first, last = (jnp.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (start, end))
    below, above = jax.scipy.special.ndtr(start), jax.scipy.special.ndtr(-end)
    inside, bent = 1 - below - above, first - last
    one = low * below + high * above + mean * inside + deviation * bent
    two = low**2 * below + high**2 * above + mean**2 * inside + 2 * mean * deviation * bent
    return one, two + deviation**2 * (inside + start * first - end * last)


def common_shock(
    call: str, correlation: Numbers | float, readings: int, least: int = 1
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """Points and weights of E f(X), X ~ N(0, 1), for laws of readings that share the shock X.

    f is a product of `readings` normal cells of width delta = sqrt((1 - rho) / rho), an entire
    function: the trapezoidal rule of step h errs by about exp(-(2 pi delta / h)^2 / (2 readings +
    2 delta^2)). The step is such that this is 1e-13, so that correlation leaves the law of every
    single reading as it is, and few enough points are refused instead.

    **Arguments:** `correlation` rho in [0, 1); `least`: points at least.

    **Raises:** `InvalidArgument` for a correlation so close to one that it needs too many.
    """
    if isinstance(correlation, Tracer):
        must = "be known: it decides how many values of the common shock are summed over"
        raise InvalidArgument(describe(call, must, "a traced number", "trace the noises instead"))
    if correlation == 0:
        return np.zeros(1), np.ones(1)
    width = math.sqrt((1 - correlation) / correlation)
    step = 2 * math.pi * width / math.sqrt(_EXPONENT * (readings + width**2))
    count = max(math.ceil(2 * _FARTHEST / step), least)
    if count > _MOST_SHOCKS:
        must = "leave the readings some noise of their own"
        got = f"{correlation!r}: {count:.2g} points of the common shock"
        do = f"lower it until at most {_MOST_SHOCKS} are needed, or describe the joint law by table"
        raise InvalidArgument(describe(call, must, got, do))
    shocks = np.linspace(-_FARTHEST, _FARTHEST, count + 1)
    weights = np.exp(-(shocks**2) / 2)
    return shocks, weights / weights.sum()


def in_use(call: str, given: Numbers | None, found: Numbers | None) -> Numbers:
    """Cut points: those given by the user, else those that `bind` found.

    **Raises:** `InvalidArgument` where there are neither.
    """
    cuts = found if given is None else given
    if cuts is None:
        must, do = "have cut points", "call bind, as RecommendationMDP does"
        raise InvalidArgument(describe(call, must, None, do))
    return cuts


def as_channel(call: str, table: Given, lead: int = 1) -> Numbers:
    array = as_floats(table, call)
    if array.ndim <= lead:
        must = f"have {lead} leading axes and one for each party's symbols"
        raise InvalidArgument(describe(call, must, f"shape {array.shape}"))
    if not isinstance(array, Tracer):
        return chances(call, array, axis=tuple(range(lead, array.ndim)))
    return array


def require_shape(call: str, array: Numbers, lead: tuple[int, ...], rest: int) -> None:
    if array.shape[: len(lead)] != lead or array.ndim != len(lead) + rest:
        must = f"have shape {lead} followed by {rest} more axes"
        raise InvalidArgument(describe(call, must, f"shape {array.shape}"))
