"""The market of some of the products: the rest can no longer be recommended.

Advertisers of products left out no longer report: what they knew, at the start or after a query,
is the platform's in the smaller market, so that every posterior is what it was.
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Numbers, join_symbols, split_symbol
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.roots import signal_likelihood
from dynmech.market.signals import (
    AbstractInitialSignals,
    NoSignals,
    SignalStructure,
)
from dynmech.market.values import ConstantValues, MarkovValues, Values

_CALL = "Undominated.reduce()"
_MOST_CELLS = 2e7


class FlatSignals(AbstractInitialSignals):
    """Initial signals by a table over joint symbols in one axis, for any number of parties.

    **Arguments:** `table`, shape (m, Zp Z1 ... Zn), the last advertiser fastest, rows summing to
    1; `sizes`, (Zp, Z1, ..., Zn).
    """

    table: Float[Numbers, "m S"]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        return self

    def alphabet(self, products: int):
        return self.sizes

    def likelihood(self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]):
        return jnp.asarray(self.table).T[join_symbols(np.asarray(symbols).T, self.sizes)]

    def draw(self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int):
        law = np.asarray(self.table)[omega]
        flat = np.searchsorted(np.cumsum(law), rng.random() * law.sum(), side="right")
        return split_symbol(min(int(flat), law.size - 1), self.sizes)


def submarket(env: RecommendationMDP, kept: Int[np.ndarray, " K"]) -> RecommendationMDP:
    """Leave out all products but `kept`, increasing indices.

    **Raises:** `InvalidArgument` for parts of your own, which cannot be taken apart; `TooLarge`
    when what the advertisers left out know does not fit into one table.
    """
    if len(kept) == env.products:
        return env
    return RecommendationMDP(
        np.asarray(env.gamma)[kept],
        env.tastes,
        env.horizon,
        env.action_rule.restrict(kept),
        SignalStructure(
            _initial(env, kept),
            env.signals.feedback.restrict(kept),
            env.signals.settlement.restrict(kept),
        ),
        _values(env.values, kept),
        [env.names[i] for i in kept],
        round_cost=env.round_cost if np.ndim(env.round_cost) == 0 else env.round_cost[[*kept, -1]],
        exit_value=env.exit_value,
    )


def fold(
    env: RecommendationMDP, kept: np.ndarray, signals: Int[np.ndarray, "B n1"]
) -> Int[np.ndarray, "B k1"]:
    """Initial symbols in the smaller market: the platform's includes those left out."""
    sizes = env.initial_alphabet
    out = _left_out(kept, env.products)
    order = [0, *(1 + out)]
    platform = join_symbols(signals[:, order].T, tuple(sizes[p] for p in order))
    return np.concatenate([platform[:, None], signals[:, 1 + kept]], axis=1)


def _left_out(kept: np.ndarray, n: int) -> Int[np.ndarray, " l"]:
    return np.setdiff1d(np.arange(n), kept)


def _initial(env: RecommendationMDP, kept: np.ndarray) -> AbstractInitialSignals:
    sizes = env.initial_alphabet
    if math.prod(sizes) == 1:
        return NoSignals()
    count = math.prod(sizes)
    if count * env.tastes.size > _MOST_CELLS:
        held = sum(size > 1 for size in sizes[1:])
        must = f"keep what advertisers know in one table of at most {_MOST_CELLS:.0e} numbers"
        got = f"{held} advertisers with signals: {float(count):.2g} joint symbols"
        do = "give initial signals to the platform, or to few advertisers"
        raise TooLarge(describe(_CALL, must, got, do))
    order = [0, *(1 + _left_out(kept, env.products)), *(1 + kept)]
    symbols = np.indices([sizes[p] for p in order]).reshape(len(order), -1)
    joint = np.zeros_like(symbols)
    joint[order] = symbols
    law = np.asarray(signal_likelihood(env, joint.T)).T
    own = tuple(sizes[p] for p in 1 + kept)
    return FlatSignals(law, (count // math.prod(own), *own))


def _values(values: Values, kept: np.ndarray) -> Values:
    support, prior = values.support[kept], values.prior[kept]
    if values.correlated:
        n = len(values.support)
        prior = values.prior.sum(axis=tuple(_left_out(kept, n).tolist()))
    if isinstance(values, MarkovValues):
        n = len(values.support)
        return MarkovValues(support, prior, values.kernel[[*kept, n]][:, kept])
    interval = None if values.interval is None else values.interval[kept]
    return ConstantValues(support, prior, interval)
