"""Bounds of what a best-first search has open, where ways lead back to where they came from."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from solvers.search.arrays import Growing, Indices
from solvers.search.ways import Ways

_SETTLINGS = 100


def settle(
    pairs: Growing,
    opened: Growing,
    tasks: Bool[np.ndarray, " F"],
    factor_of: Callable[[Indices, Indices, np.ndarray], np.ndarray],
) -> Indices:
    """Solve for the bounds of what is open, where ways lead back to where they came from.

    Both are fixed points of the equations that a pass applies once: U of policy iteration on
    the nodes open, with those that are not at their bounds; L of the plan.

    **Arguments:** `pairs`, `opened`: as of the search; `tasks`: whose pairs; `factor_of` (parents,
    controls, children): what beliefs are multiplied by.

    **Returns:** the pairs that changed.
    """
    count = pairs.count
    every = np.flatnonzero(tasks[pairs["task"][:count]] & (pairs["place"][:count] >= 0))
    place, where, rows = pairs["place"][every], np.full(count, -1), np.arange(len(every))
    where[every] = rows
    at, control = np.nonzero(opened["child"][place][:, :, 0] >= 0)
    child, pay = opened["child"][place[at], control], opened["pay"][place[at], control]
    factor, symbols = factor_of(every[at], control, child), child.shape[1]
    ways = Ways(np.repeat(at, symbols), where[child.ravel()], factor.ravel())
    if not len(every) or not ways.circular(len(every)):
        return every[:0]
    followed = np.full((len(every), opened["pay"].shape[1]), -1)
    followed[at, control] = np.arange(len(at))

    def worth(rule: np.ndarray, otherwise: np.ndarray, bound: np.ndarray):
        """The value of following a rule; -1 and what is not followed count as they are."""
        way = np.where(rule < 0, -1, followed[rows, rule])
        free, way = np.flatnonzero(way >= 0), way[way >= 0]
        there, weight = where[child[way]], factor[way]
        right = otherwise.copy()
        right[free] = pay[way] + np.where(there < 0, bound[child[way]] * weight, 0.0).sum(axis=1)
        return Ways(np.repeat(free, symbols), there.ravel(), weight.ravel()).solve(right)

    above, option = pairs["upper"][:count].copy(), opened["option"][place].copy()
    rule = np.full(len(every), -1)
    for _ in range(_SETTLINGS):
        option[at, control] = pay + (above[child] * factor).sum(axis=1)
        better = option.max(axis=1) > above[every] + 1e-15 * np.abs(above[every])
        if (rule >= 0).all() and not better.any():
            pairs["upper"][every] = np.minimum(pairs["upper"][every], above[every])
            break
        rule = np.where(better | (rule < 0), option.argmax(axis=1), rule)
        above[every] = worth(rule, option[rows, rule], above)
    floor = pairs["lower"][every]
    below = worth(pairs["act"][every].astype(int), floor, pairs["lower"])
    pairs["lower"][every] = np.maximum(floor, below)
    pairs["upper"][every] = np.maximum(pairs["upper"][every], pairs["lower"][every])
    return every
