"""What every advertiser pays where a conversation ends, as the mechanism settles it."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from dynmech.mechanism.team import DynamicTeamMechanism
from dynmech.payments.core import query_cost
from dynmech.problem.settled import laws_of

Ending = tuple[Any, int]  # a point, and an action code


class Bills:
    """Core transfers of endings: `base` (E, n) + `slope` (E, n) times the rating; NaN: not known.

    A purchase is settled at what its rating stands for (the estimator's word for it); costs of
    queries are charged as they came, and are not known where they depend on the taste. Neither is
    a transfer that a rating does not move evenly.
    """

    base: Float[np.ndarray, "E n"]
    slope: Float[np.ndarray, "E n"]

    def __init__(self, mechanism: DynamicTeamMechanism, endings: list[Ending]):
        env, signal = mechanism.policy.env, mechanism.estimator
        n, support = env.products, np.asarray(env.values.support, float)
        costs = np.array([query_cost(env, c) for c in range(len(env.controls))], float)
        spent = np.array([_spent(costs, point, code, n) for point, code in endings])
        self.base = np.repeat(spent[:, None], n, axis=1)
        self.slope = np.zeros_like(self.base)
        sold = np.array([k for k, (_, code) in enumerate(endings) if code < n], np.int64)
        if not len(sold):
            return
        points, product = [endings[k][0] for k in sold], np.array([endings[k][1] for k in sold])
        weight = np.stack([x.belief * x.bought[j] for x, j in zip(points, product)])
        predicted = (weight * env.gains[product]).sum(axis=1) / weight.sum(axis=1)
        memory = np.stack([x.after for x in points])
        laws = laws_of(env, signal, memory, np.array([x.control for x in points]), product)
        low, high = np.array(ratings(env)).T[:, product]
        at = [low, (low + high) / 2, high]
        told = [np.asarray(signal.estimate(product, x, laws, predicted), float) for x in at]
        slope = (told[2] - told[0]) / (high - low)
        uneven = np.abs(told[0] + told[2] - 2 * told[1]) > 1e-9 * env.money_scale
        slope = np.where(uneven, np.nan, slope)
        theta = np.array([support[j, x.place.theta[j]] for x, j in zip(points, product)])
        others = np.arange(n) != product[:, None]
        self.base[sold] -= (told[0] - slope * low)[:, None] + theta[:, None] * others
        self.slope[sold] = -slope[:, None]


def ratings(env: Any) -> list[list[float]]:
    """From the least to the largest utility of each product, apart by something."""
    low, high = env.gains.min(axis=1), env.gains.max(axis=1)
    return np.stack([low, np.where(high > low, high, low + env.money_scale)], axis=1).tolist()


def _spent(costs: np.ndarray, point: Any, code: int, n: int) -> float:
    """What the queries of a conversation cost that ends here with this action."""
    asked = point.shown if code == n + 1 else point.shown[:-1]
    return float(costs[list(asked)].sum()) if asked else 0.0
