"""Bounds of what a best-first search has open, where ways lead back to where they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from solvers.search.store import Indices
from solvers.search.ways import Ways

if TYPE_CHECKING:
    from solvers.search.best_first import Search

_SETTLINGS = 100


def settle(search: Search, top: Indices) -> None:
    """Solve for the bounds of what is open, where ways lead back to where they came from.

    Both are fixed points of the equations that a pass applies once: U of policy iteration on
    the nodes open, with those that are not at their bounds; L of the plan.
    """
    pairs, opened, count = search.pairs, search.opened, search.pairs.count
    mine = np.zeros(len(search.economies), bool)
    mine[pairs["task"][top]] = True
    every = np.flatnonzero(mine[pairs["task"][:count]] & (pairs["place"][:count] >= 0))
    place, where, rows = pairs["place"][every], np.full(count, -1), np.arange(len(every))
    where[every] = rows
    at, control = np.nonzero(opened["child"][place][:, :, 0] >= 0)
    child, pay = opened["child"][place[at], control], opened["pay"][place[at], control]
    factor, symbols = search.factor(every[at], control, child), child.shape[1]
    ways = Ways(np.repeat(at, symbols), where[child.ravel()], factor.ravel())
    if not len(every) or not ways.circular(len(every)):
        return
    followed = np.full((len(every), search.structure.controls), -1)
    followed[at, control] = np.arange(len(at))

    def worth(rule, otherwise, bound):
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
    search.back_up(every)
