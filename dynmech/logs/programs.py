"""The few programs that fits run, compiled once for all logs of one market's structure.

The market's numbers, the coordinates that a fit starts from and what the log holds are arguments,
and what differs in number from log to log is padded to one of few sizes (`dynmech.logs.padding`):
another log of the same market compiles nothing. Derivatives beyond the first are differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._types import Numbers, Record
from dynmech.logs.blocks import Blocks, in_blocks
from dynmech.logs.likelihood import BY_TASTE, Situations, Tables, tables
from dynmech.logs.parameters import Free, Parameter
from dynmech.market.environment import RecommendationMDP
from solvers.programs import as_program


class Model(Record):
    """A market and the parameters that move, as one log reads them.

    `scale`: (a, b) of ratings; None where the last two coordinates are a and log b.
    """

    market: RecommendationMDP
    found: tuple[Parameter, ...]
    situations: Situations
    scale: tuple[Float[np.ndarray, ""], Float[np.ndarray, ""]] | None

    def scale_at(self, free: Free) -> tuple[Any, Any]:
        """(a, b) of ratings at these coordinates."""
        return (free[-2], jnp.exp(free[-1])) if self.scale is None else self.scale

    def tables(self, free: Free, on: Int[Numbers, " k"] | None = None) -> Tables:
        """Log chances at these coordinates, of all tastes or of some; traced."""
        market = placed_in(self.market, self.found, free)
        found = tables(market, self.situations, self.scale_at(free))
        if on is None:
            return found
        every = (getattr(found, name) for name in BY_TASTE)
        fewer = {name: table[..., on] for name, table in zip(BY_TASTE, every, strict=True)}
        return dataclasses.replace(found, **fewer)


def placed_in(market: Any, found: Sequence[Parameter], free: Free) -> Any:
    """The market with these coordinates in place; traced."""
    at = 0
    for one in found:
        market = one.place(market, free[at : at + one.size])
        at += one.size
    return market


def _mixed(logs: Array, weights: Numbers) -> Array:
    return jax.scipy.special.logsumexp(logs + jnp.log(jnp.maximum(weights, 1e-300)), axis=1)


def _loss(free: Array, model: Model, weights: Numbers, on: Numbers, parts: Blocks) -> Array:
    def one(logs: Array, weight: Array):
        return (weight * _mixed(logs, weights)).sum()

    return -in_blocks(model.tables(free, on), parts, one).sum()


@as_program
def slope_of(model: Model, free: Array, weights: Numbers, on: Numbers, parts: Blocks):
    """Minus the log likelihood, of the tastes that are `on`, and its slope in `free`."""
    return jax.value_and_grad(_loss)(free, model, weights, on, parts)


@as_program
def joint(model: Model, free: Array, weights: Numbers, on: Numbers, parts: Blocks):
    """log P of every record, (K, B)."""
    return in_blocks(model.tables(free, on), parts, lambda logs, _: _mixed(logs, weights))


@as_program
def ratios(model: Model, free: Array, weights: Numbers, on: Numbers, parts: Blocks):
    """P(record | taste) / P(record), (K, B, k)."""

    def one(logs: Array, _: Array):
        return jnp.exp(logs - _mixed(logs, weights)[:, None])

    return in_blocks(model.tables(free, on), parts, one)


@as_program
def given_taste(model: Model, kind: Any, free: Array, parts: Blocks):
    """Likelihoods by taste, each record's largest being 1, (K, B, m)."""

    def one(logs: Array, _: Array):
        return jnp.exp(logs - logs.max(axis=1, keepdims=True)).astype(kind)

    return in_blocks(model.tables(free), parts, one)
