"""Clicks as data: unbiased estimators of click-through rates, and private samples of clicks.

The state holds click-through rates, one coordinate a slot (common to all agents) or an agent
(who then competes for one slot). Clicks are Bernoulli with those rates, independent across
impressions, so the share of impressions clicked is an unbiased estimator; so is the click of an
impression drawn by a known lottery, divided by the chance that it was drawn.

**References**

Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe",
Journal of the American Statistical Association 1952.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import as_doubles, checked, indices, whole
from dynmech.errors import (
    InvalidArgument,
    OutsideSupport,
    TooLarge,
    describe,
    require_probabilities,
)
from dynmech.market.tastes import TasteGrid
from dynmech.static.environment import GRID
from dynmech.static.estimators import Estimator
from dynmech.static.signals import PrivateSignals

_CELLS = 20_000_000


def require_rates(call: str, rates: TasteGrid) -> Float[np.ndarray, "m k"]:
    """Return the points in float64, or raise `OutsideSupport` for one outside [0, 1]."""
    points = np.asarray(GRID(call, rates).points, np.float64)
    wrong = (points < 0) | (points > 1)
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        got = f"{points[where]} at state {where[0]}, coordinate {where[1]}"
        do = "give clicks per impression, not per cent"
        raise OutsideSupport(describe(call, "hold click rates in [0, 1]", got, do))
    return points


def binomial(rates: npt.ArrayLike, count: int) -> Float[np.ndarray, "... R"]:
    """Law of the number of clicks in `count` impressions: shape (..., count + 1)."""
    from scipy.special import gammaln, xlog1py, xlogy

    chance = np.asarray(rates, np.float64)[..., None]
    hits = np.arange(count + 1)
    choose = gammaln(count + 1) - gammaln(hits + 1) - gammaln(count - hits + 1)
    mass = np.exp(choose + xlogy(hits, chance) + xlog1py(count - hits, -chance))
    return mass / mass.sum(axis=-1, keepdims=True)


@checked(impressions=whole(1))
def click_frequency(rates: TasteGrid, impressions: int) -> Estimator:
    """Build the share of impressions clicked, one coordinate for each rate.

    omega_hat_k = (1/M) sum_m Z_mk, with independent clicks; unbiased. Fewer impressions than were
    shown are as good in expectation (footnote 19). It serves where every rate is sampled whatever
    is allocated: slots that are all filled, or agents seen in earlier data.

    **Arguments**

    - `rates`: states (m, k) in [0, 1]. `impressions`: M for each coordinate.

    **Returns**

    An `Estimator` with (M + 1)^k values.

    **Raises**

    `OutsideSupport` (a rate outside [0, 1]), `InvalidArgument`, `TooLarge`.

    ```python
    >>> clicks = click_frequency(TasteGrid([[0.5, 0.25]], [1.0]), 2)
    >>> clicks.points.shape, (clicks.kernel @ clicks.points).tolist()
    ((9, 2), [[0.5, 0.25]])

    ```
    """
    points = require_rates("click_frequency(rates=...)", rates)
    states, coordinates = points.shape
    size = float(impressions + 1) ** coordinates * states
    if size > _CELLS:
        must, do = f"give a law of at most {_CELLS:.0e} cells", "count fewer impressions"
        raise TooLarge(describe("click_frequency(impressions=...)", must, size, do))
    law = binomial(points, impressions)
    kernel = np.ones((states, 1))
    for k in range(coordinates):
        kernel = (kernel[:, :, None] * law[:, k, None, :]).reshape(states, -1)
    counts = np.indices((impressions + 1,) * coordinates).reshape(coordinates, -1).T
    return Estimator(counts / impressions, kernel)


@checked(impressions=whole(1))
def inverse_propensity(
    rates: TasteGrid, allocations: npt.ArrayLike, impressions: int = 1
) -> Estimator:
    """Build the estimator of all agents' rates from the clicks of the one that a lottery showed.

    omega_hat_j = 1{j shown} clicks / (M x_j), zero for the others; unbiased for every agent who
    is shown with positive chance (footnote 21). Its variance grows as 1 / x_j.

    **Arguments**

    - `rates`: states (m, n) in [0, 1], one coordinate an agent.
    - `allocations`: (A, n), chances of being shown, positive, rows summing to 1.
    - `impressions`: M, all given to the agent who is drawn.

    **Returns**

    An `Estimator` whose law depends on the allocation, with A n M + 1 values.

    **Raises**

    `OutsideSupport`, `InvalidArgument`, `InvalidProbability`, `TooLarge`.
    """
    points = require_rates("inverse_propensity(rates=...)", rates)
    call = "inverse_propensity(allocations=...)"
    chance = as_doubles(call, allocations)
    states, n = points.shape
    if chance.ndim != 2 or chance.shape[1] != n:
        raise InvalidArgument(describe(call, f"have shape (A, {n})", chance.shape))
    require_probabilities(call, chance)
    if (chance <= 0).any():
        do = "show every agent sometimes: a rate that is never sampled cannot be estimated"
        raise InvalidArgument(describe(call, "be positive", chance.min(), do))
    lotteries, size = len(chance), len(chance) * n * impressions + 1
    if float(size) * lotteries * states > _CELLS:
        must, do = f"give a law of at most {_CELLS:.0e} cells", "count fewer impressions"
        raise TooLarge(describe("inverse_propensity(impressions=...)", must, size, do))
    law = binomial(points, impressions)
    values, kernel = np.zeros((size, n)), np.zeros((lotteries, states, size))
    clicks, at = np.arange(1, impressions + 1), 1
    for a in range(lotteries):
        for j in range(n):
            here = slice(at, at + impressions)
            values[here, j] = clicks / (impressions * chance[a, j])
            kernel[a, :, here] = chance[a, j] * law[:, j, 1:]
            at += impressions
        kernel[a, :, 0] = law[:, :, 0] @ chance[a]
    return Estimator(values, kernel)


@checked(impressions=whole(1))
def sampled_clicks(
    rates: TasteGrid, coordinates: Sequence[int], impressions: int, cuts: Sequence[int]
) -> PrivateSignals:
    """Build private signals: each agent has counted the clicks of her own past impressions.

    Agent i saw Binomial(N, omega_c(i)) clicks, c(i) her coordinate, and keeps how many of the
    cuts the count reaches. Independent across agents given the state.

    **Arguments**

    - `rates`: states (m, k) in [0, 1]. `coordinates`: n entries in 0..k-1.
    - `impressions`: N. `cuts`: increasing counts in 1..N; Z = number of cuts + 1 symbols.

    **Raises**

    `OutsideSupport`, `InvalidArgument`.

    ```python
    >>> rates = TasteGrid([[0.1], [0.5]], [0.5, 0.5])
    >>> sampled_clicks(rates, [0, 0], 1, [1]).table[0, 0, 0].round(2).tolist()
    [[0.81, 0.09], [0.09, 0.01]]

    ```
    """
    points = require_rates("sampled_clicks(rates=...)", rates)
    counts = indices(None)("sampled_clicks(cuts=...)", cuts).tolist()
    held = indices(None)("sampled_clicks(coordinates=...)", coordinates).tolist()
    ladder = [0, *counts, impressions + 1]
    if any(b <= a for a, b in itertools.pairwise(ladder)):
        must = f"be increasing counts in 1..{impressions}"
        raise InvalidArgument(describe("sampled_clicks(cuts=...)", must, counts))
    if not all(0 <= c < points.shape[1] for c in held):
        must = f"hold integers in 0..{points.shape[1] - 1}"
        raise OutsideSupport(describe("sampled_clicks(coordinates=...)", must, held))
    law = np.add.reduceat(binomial(points, impressions), ladder[:-1], axis=-1)
    return PrivateSignals.independent([law[:, c] for c in held])
