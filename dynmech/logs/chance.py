"""The chance that ratings come, from a log: shares, where it does not depend on the rating.

Given the history, a constant chance does not depend on the taste, so that it is a factor of the
likelihood by itself, largest at the share of ratings that came. A law of the rating is not: what
did not come says something about the taste, and `dynmech.logs.likelihood` holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Record
from dynmech.errors import InvalidArgument, NotIdentified, describe
from dynmech.logs.likelihood import controls_shown, edges_of, missing_law
from dynmech.logs.log import Log
from dynmech.logs.reading import BUY, QUERY
from dynmech.market.environment import RecommendationMDP

_CALL = "fit(parameters=...)"


class Chance(Record):
    """Shares of ratings that came: `labels`, `values` (q,), `covariance` (q, q), and where they go.

    `rows` (q,): entries of the market's chance, -1 for all of it. `placed`: whether the market's
    ratings can be missing, so that the estimates replace its chance.
    """

    labels: tuple[str, ...] = eqx.field(static=True)
    values: Float[np.ndarray, " q"]
    covariance: Float[np.ndarray, "q q"]
    rows: Int[np.ndarray, " q"]
    placed: bool = eqx.field(static=True)

    def place(self, env: RecommendationMDP, values: Float[np.ndarray, " q"]) -> RecommendationMDP:
        """The market with these chances in place."""
        if not self.placed:
            return env
        sent: Any = env.signals.settlement
        chance = np.array(sent.chance, float)
        inside = np.clip(values, 0.0, 1.0)
        chance = inside[0] if (self.rows < 0).any() else _put(chance, self.rows, inside)
        return eqx.tree_at(lambda e: e.signals.settlement.chance, env, np.asarray(chance))


def by_shares(market: RecommendationMDP, names: Sequence[str]) -> bool:
    """Whether the chance was asked for and is a share, no law of the rating."""
    return "rating chance" in names and missing_law(market) is None


def rating_chance(log: Log, market: RecommendationMDP, groups: Int[np.ndarray, " N"]) -> Chance:
    """Estimate the chance, by history where the market's depends on it; errors by cluster.

    **Raises:** `NotIdentified` where it depends on the taste.
    """
    sent: Any = market.signals.settlement
    placed = sent.sends_missing()
    came, bought = np.isfinite(log.rating), log.kind == BUY
    if placed and sent.given == "constant" and np.ndim(sent.chance):
        must = "be one chance, one for each history, or a law of the rating"
        do = 'pass MissingRatings(rating, chance, given="history" | "rating")'
        raise NotIdentified(describe(_CALL, must, "rating chance by taste", do))
    could = bought
    if not placed:  # ratings of any kind that ever come
        kinds = [kind for kind in (bought, log.kind == QUERY) if came[kind].any()]
        could = np.any(kinds, axis=0)
    row = np.flatnonzero(could)
    if not len(row):
        must = "hold purchases for the chance of their ratings to be estimated"
        raise InvalidArgument(describe("fit(log=...)", must, "none"))
    history = np.full(len(row), -1)
    if placed and sent.given == "history":
        memory, edge = edges_of(market, controls_shown(log, market), log.round - 1)
        history = memory[edge[row], 2]
    rows, index = np.unique(history, return_inverse=True)
    index, owner = index.reshape(-1), groups[log.owner[row]]
    count = np.bincount(index)
    values = np.bincount(index, came[row].astype(float)) / count
    score = np.zeros((int(groups.max()) + 1, len(rows)))
    np.add.at(score, (owner, index), came[row] - values[index])
    covariance = (score.T @ score) / np.outer(count, count)
    heads = ["" if h < 0 else f": {_told(market, int(h))}" for h in rows]
    labels = tuple(f"rating chance{head}" for head in heads)
    return Chance(labels, values, covariance, rows, placed)


def _put(chance: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    chance[rows] = values
    return chance


def _told(market: RecommendationMDP, history: int) -> str:
    """A history of recommendations by its index among all, in words."""
    n, length = market.products, 1
    while history >= (n + 1) ** length:
        history, length = history - (n + 1) ** length, length + 1
    digits = np.unravel_index(history, (n + 1,) * length)
    return " > ".join((*market.names, "none")[int(k)] for k in digits)
