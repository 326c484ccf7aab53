"""Users who leave at the first dislike: draws of a published benchmark, and a search of one page.

A user of hidden type likes product i with chance P[i, type]; a like goes on, a dislike ends the
conversation, and W is the expected number of likes (Keinan and Ben-Porat, 2025).
"""

import heapq
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import dynmech as dm

Numbers = Array | np.ndarray


class BuysWhatIsShown(dm.AbstractChoice):
    """Whoever does not ask again takes the product on the screen."""

    def shares(self, utilities: Float[Numbers, "k m"], weight: Float[Numbers, " k"]):
        return jnp.broadcast_to(weight[:, None], utilities.shape)


def market(like: np.ndarray, prior: np.ndarray):
    """A like goes on, and a dislike is a purchase worth P / (1 - P): a round is worth P."""
    rule = dm.LastShownOnly(choice=BuysWhatIsShown(), query=dm.ProductQuery(like, none=0.0))
    grid = dm.TasteGrid((like / (1 - like)).T, prior)
    values = dm.ConstantValues(np.zeros((len(like), 1)))
    return dm.RecommendationMDP(
        np.eye(len(like)), grid, math.inf, rule, dm.SignalStructure(), values
    )


def draw(seed: int, products: int, types: int):
    """Chances of a like from the angle between random directions, and weights of the types.

    Products liked less by every type than another are left out, and draws where the best product
    for ever is as good as being told the type.
    """
    rng = np.random.default_rng(seed)
    while True:
        place = rng.normal(size=(products, products))
        direction = rng.normal(size=(types, products))
        place /= np.linalg.norm(place, axis=1, keepdims=True)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        like = (place @ direction.T + 1) / 2
        every = range(products)
        beaten = [any((like[j] >= like[i]).all() for j in every if j != i) for i in every]
        like = np.clip(like[~np.array(beaten)], 0.01, 0.99)
        prior = np.exp(rng.normal(0, 0.5, types))
        prior /= prior.sum()
        forever = like / (1 - like)
        if len(like) > 1 and prior @ forever.max(0) > (forever @ prior).max() + 1e-6:
            return like, prior


def best_first(like: np.ndarray, prior: np.ndarray, precision: float = 1e-6):
    """W to this precision: a heap of how often each product was shown, likes earned so far.

    Below: one product for ever. Above: the type is told. Both are sums of geometric series.
    """
    forever = like / (1 - like)
    best = (forever @ prior).max()
    start: tuple[int, ...] = (0,) * len(like)
    reached = {start: 0.0}
    heap: list[tuple[Any, ...]] = [(-(prior @ forever.max(0)), start, prior, 0.0)]
    while heap:
        bound, shown, weight, earned = heapq.heappop(heap)
        if -bound <= best + precision:
            break
        if reached[shown] > earned + 1e-15:
            continue
        on = like * weight
        so_far = earned + on.sum(1)
        best = max(best, (so_far + (forever @ on.T).max(0)).max())
        above = so_far + on @ forever.max(0)
        for i in np.flatnonzero(above > best + precision):
            after = (*shown[:i], shown[i] + 1, *shown[i + 1 :])
            if so_far[i] > reached.get(after, -1.0):
                reached[after] = so_far[i]
                heapq.heappush(heap, (-above[i], after, on[i], so_far[i]))
    return best


def every_economy(like: np.ndarray, prior: np.ndarray, precision: float = 1e-6):
    """W, then W without each product."""
    without = [best_first(np.delete(like, i, 0), prior, precision) for i in range(len(like))]
    return np.array([best_first(like, prior, precision), *without])
