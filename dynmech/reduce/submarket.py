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
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.estimators.settlement_signals import (
    AveragedSettlement,
    ChannelSettlement,
    OracleSettlement,
    PosteriorMeanSettlement,
    QuantisedRatingSettlement,
    StoppedAverageSettlement,
)
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import (
    AbstractFeedback,
    ChannelFeedback,
    NoFeedback,
    RatingFeedback,
    TabulatedFeedback,
)
from dynmech.market.profiles import signal_likelihood
from dynmech.market.rules import (
    AbstractActionRule,
    ConstantQuery,
    FallingQuery,
    ImperfectRecall,
    LastShownOnly,
    Logit,
    PerfectRecall,
    ProductQuery,
    Tabulated,
    Threshold,
)
from dynmech.market.signals import (
    AbstractInitialSignals,
    AbstractSettlementSignal,
    NoSignals,
    RatingSettlement,
    SignalStructure,
    TabulatedSettlement,
)
from dynmech.market.values import ConstantValues, MarkovValues, Values

_CALL = "Undominated.reduce()"
_MOST_CELLS = 2e7
_AS_THEY_ARE = (
    RatingSettlement, OracleSettlement, AveragedSettlement, StoppedAverageSettlement,
    PosteriorMeanSettlement,
)  # fmt: skip


class FlatSignals(AbstractInitialSignals):
    """Initial signals by a table over joint symbols in one axis, for any number of parties.

    **Arguments:** `table`, shape (m, Zp Z1 ... Zn), the last advertiser fastest, rows summing to
    1; `sizes`, (Zp, Z1, ..., Zn).
    """

    table: Float[Numbers, "m S"]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def bind(self, utilities, weights):
        return self

    def alphabet(self, products):
        return self.sizes

    def likelihood(self, utilities, symbols):
        return jnp.asarray(self.table).T[join_symbols(np.asarray(symbols).T, self.sizes)]

    def draw(self, rng, utilities, omega):
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
    horizon = env.horizon
    return RecommendationMDP(
        np.asarray(env.gamma)[kept],
        env.tastes,
        horizon,
        _rule(env.action_rule, kept, env.products, horizon),
        SignalStructure(
            _initial(env, kept),
            _feedback(env.signals.feedback, kept, env.products, horizon),
            _settlement(env.signals.settlement, kept, env.products, horizon),
        ),
        _values(env.values, kept),
        [env.names[i] for i in kept],
    )


def fold(env: RecommendationMDP, kept, signals: Int[np.ndarray, "B n1"]) -> Int[np.ndarray, "B k1"]:
    """Initial symbols in the smaller market: the platform's includes those left out."""
    sizes = env.initial_alphabet
    out = _left_out(kept, env.products)
    order = [0, *(1 + out)]
    platform = join_symbols(signals[:, order].T, tuple(sizes[p] for p in order))
    return np.concatenate([platform[:, None], signals[:, 1 + kept]], axis=1)


def _left_out(kept, n: int) -> Int[np.ndarray, " l"]:
    return np.setdiff1d(np.arange(n), kept)


def _own(part: str, thing) -> InvalidArgument:
    must = f"find a {part} built in here: it cannot take apart one of your own"
    do = "build the market of the products in `.kept` yourself"
    return InvalidArgument(describe(_CALL, must, type(thing).__name__, do))


def _rows(kept, n: int, horizon) -> Int[np.ndarray, " H"]:
    """Rows of tables over histories that show kept products only, in their order."""
    label = np.append(kept, n)
    rows, level, start = [], np.zeros(1, np.int64), 0
    for t in range(1, int(horizon) + 1):
        level = (level[:, None] * (n + 1) + label).ravel()
        rows.append(start + level)
        start += (n + 1) ** t
    return np.concatenate(rows)


def _rule(rule: AbstractActionRule, kept, n: int, horizon) -> AbstractActionRule:
    if isinstance(rule, Tabulated):
        table = np.asarray(rule.action)[_rows(kept, n, horizon)]
        return Tabulated(table[:, [*kept, n, n + 1]])
    if not isinstance(rule, PerfectRecall | ImperfectRecall | LastShownOnly):
        raise _own("rule", rule)
    if not isinstance(rule.choice, Threshold | Logit):
        raise _own("choice", rule.choice)
    query = rule.query
    if isinstance(query, ProductQuery):
        query = eqx.tree_at(lambda q: q.level, query, np.asarray(query.level)[kept])
    elif not isinstance(query, ConstantQuery | FallingQuery):
        raise _own("query", query)
    return eqx.tree_at(lambda r: r.query, rule, query)


def _initial(env: RecommendationMDP, kept) -> AbstractInitialSignals:
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


def _feedback(feedback: AbstractFeedback, kept, n: int, horizon) -> AbstractFeedback:
    if isinstance(feedback, NoFeedback):
        return feedback
    if isinstance(feedback, RatingFeedback):
        noise = np.asarray(feedback.noise)
        if feedback.by_product and noise.ndim:
            noise = noise[..., kept]
        values = (noise, feedback.cut_points[kept])
        return eqx.tree_at(
            lambda f: (f.noise, f.cuts), feedback, values, is_leaf=lambda x: x is None
        )
    if isinstance(feedback, ChannelFeedback):
        return ChannelFeedback(_fold_table(np.asarray(feedback.table)[[*kept, n]], kept, n))
    if isinstance(feedback, TabulatedFeedback):
        table = np.asarray(feedback.table)[_rows(kept, n, horizon)]
        return TabulatedFeedback(_fold_table(table, kept, n))
    raise _own("feedback", feedback)


def _fold_table(table: np.ndarray, kept, n: int) -> np.ndarray:
    """Join the symbols of those left out to the platform's, in tables (rows, m, Zp, Z1, ...)."""
    moved = np.moveaxis(table, [3 + i for i in _left_out(kept, n)], range(3, 3 + n - len(kept)))
    return moved.reshape(*table.shape[:2], -1, *(table.shape[3 + i] for i in kept))


def _settlement(signal: AbstractSettlementSignal, kept, n: int, horizon):
    if isinstance(signal, _AS_THEY_ARE):
        return signal
    if isinstance(signal, TabulatedSettlement):
        return TabulatedSettlement(np.asarray(signal.utility)[_rows(kept, n, horizon)][:, kept])
    if isinstance(signal, ChannelSettlement):
        channel = signal.channel if len(signal.channel) == 1 else signal.channel[kept]
        values = (channel, signal.values[kept])
        return eqx.tree_at(lambda s: (s.channel, s.values), signal, values)
    if isinstance(signal, QuantisedRatingSettlement):
        if signal.cuts.ndim == 1:
            return signal
        values = (signal.cuts[kept], signal.levels[kept])
        return eqx.tree_at(lambda s: (s.cuts, s.levels), signal, values)
    raise _own("settlement", signal)


def _values(values: Values, kept) -> Values:
    support, prior = values.support[kept], values.prior[kept]
    if values.correlated:
        n = len(values.support)
        prior = values.prior.sum(axis=tuple(_left_out(kept, n).tolist()))
    if isinstance(values, MarkovValues):
        n = len(values.support)
        return MarkovValues(support, prior, values.kernel[[*kept, n]][:, kept])
    interval = None if values.interval is None else values.interval[kept]
    return ConstantValues(support, prior, interval)
