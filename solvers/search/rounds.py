"""Rounds of plans while they are written out: their nodes, and which plan is where."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.devices import late
from solvers.problem import Tables, Tasks
from solvers.search.store import Indices
from solvers.solution import Limits, TooFine
from solvers.ties import most_gained
from solvers.tree.tree import Layer

_FINEST = {False: 1e4 * np.finfo(np.float64).eps, True: 50 * np.finfo(np.float32).eps}  # by single
_SEARCH = 0.6  # share of the seconds after which a search ends, where plans go on
_LEAST = 0.1  # of the seconds, which writing has at any rate


class Entries(NamedTuple):
    """Plans at the nodes of a round: the kept task, its pair (0: none), the control kept for ever.

    `weight`: the plan's belief there over that of the node.
    """

    node: Int[np.ndarray, " k"]
    task: Int[np.ndarray, " k"]
    pair: Int[np.ndarray, " k"]
    keep: Int[np.ndarray, " k"]
    weight: Float[np.ndarray, " k"]


class Round(NamedTuple):
    """Nodes of a round: words of what was seen, whether belief is zero; the rest as in `Layer`."""

    words: Int[np.ndarray, "N w"]
    dead: Bool[np.ndarray, " N"]
    memory: Int[np.ndarray, " N"]
    parent: Int[np.ndarray, " N"]
    column: Int[np.ndarray, " N"]
    row: Float[np.ndarray, "N m"]
    size: Float[np.ndarray, " N"] | None


def joined(rounds: Sequence[Round], entries: Sequence[Entries]) -> tuple[Round, Entries]:
    """Rounds side by side as one, and their entries."""
    if len(rounds) == 1:
        return rounds[0], entries[0]
    ways = ((one.words, one.dead, one.memory, one.parent, one.column, one.row) for one in rounds)
    sides = [np.concatenate(side) for side in zip(*ways, strict=True)]
    sizes = [one.size for one in rounds if one.size is not None]
    starts = np.cumsum([0, *(len(one.memory) for one in rounds[:-1])])
    first = np.repeat(starts, [len(one.node) for one in entries])
    at = Entries(*map(np.concatenate, zip(*entries, strict=True)))
    size = np.concatenate(sizes) if sizes else None
    return Round(*sides, size=size), at._replace(node=first + at.node)


def distinct(code: Indices) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each number that there is comes first, the numbers in order, and which each is."""
    if len(code) == 1:
        return np.zeros(1, np.int64), code, np.zeros(1, np.int64)
    found, first, index = np.unique(code, return_index=True, return_inverse=True)
    return first, found, index.reshape(-1)


def places(after: np.ndarray, dead: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, ...]:
    """Nodes told apart, by memory first: where each comes first, and which each is."""
    if len(after) == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    keys = after, ~dead, *words.T
    order = np.lexsort(keys[::-1])
    fresh = np.ones(len(after), bool)
    fresh[1:] = np.any([key[order[1:]] != key[order[:-1]] for key in keys], axis=0)
    index = np.empty(len(after), np.int64)
    index[order] = np.cumsum(fresh) - 1
    return order[fresh], index


def as_layer(here: Round, child: np.ndarray) -> Layer:
    """A round as a layer of a tree."""
    at = np.arange(len(here.memory), dtype=np.int32)
    return Layer(here.parent, here.column, at, here.memory, child, here.size, here.row)


def require_fine(limits: Limits, tables: Tables, groups: Sequence[Tasks]) -> None:
    """Raise `TooFine` for a tolerance that cannot be certified without a last round."""
    least = float(_FINEST[limits.single]) * most_gained(tables, groups)
    if 0 < limits.tolerance < least:
        raise TooFine(least)


def to_search(seconds: float | None) -> float | None:
    """The seconds of a search, so that some are left to write its plans out."""
    return None if seconds is None else _SEARCH * seconds


def to_write(
    mesh: jax.sharding.Mesh | None, began: float, seconds: float | None
) -> Callable[[float], bool]:
    """Whether rounds are to be written out no more, asked once a search has ended.

    However late that was, there is some time: a plan of which little is written attains little.

    **Returns:** a function of the seconds that are needed besides.
    """
    if seconds is None:
        return lambda ahead: False
    now = time.monotonic()
    most = max(seconds - (now - began), _LEAST * seconds)
    return lambda ahead: late(mesh, now, most - ahead)
