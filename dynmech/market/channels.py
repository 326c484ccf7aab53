"""Finite channels: quantised Gaussian readings and checks of tables of probabilities."""

import abc
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from dynmech._checks import as_floats, chances
from dynmech._types import Numbers
from dynmech.errors import InvalidArgument, describe

Alphabet = tuple[int, ...]


class AbstractSymbols(eqx.Module):
    """Joint symbols of the platform and the advertisers, completed for a market by `bind`."""

    @abc.abstractmethod
    def bind(self, utilities: np.ndarray, weights: np.ndarray) -> Self:
        """Complete the structure for a market, utilities (n, m), prior weights (m,)."""

    @abc.abstractmethod
    def alphabet(self, products: int) -> Alphabet:
        """Number of symbols of the platform and of each advertiser, (Zp, Z1, ..., Zn)."""


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


def quantised_normal(mean: Numbers, deviation: Numbers | float, cuts: Numbers) -> Array:
    """P(mean + deviation * N(0,1) falls between consecutive cuts), last axis the symbols."""
    below = jax.scipy.special.ndtr((cuts - jnp.asarray(mean)[..., None]) / deviation)
    above = jax.scipy.special.ndtr((jnp.asarray(mean)[..., None] - cuts) / deviation)
    middle = jnp.where(below[..., :-1] < 0.5, jnp.diff(below), -jnp.diff(above))
    return jnp.concatenate([below[..., :1], middle, above[..., -1:]], axis=-1)


def none_to_nan(value):
    return np.nan if value is None else value


def as_channel(call: str, table, lead: int = 1) -> Numbers:
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
