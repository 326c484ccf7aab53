"""Reachable histories with merged beliefs: host-side integers only.

The parameter is static, so a belief depends on the *multiset* of likelihood columns seen, and
a state on that multiset and the memory class. Round t has at most
C(column_count + t - 2, t - 1) * M_t nodes instead of (A Z)^(t-1) histories, and fewer where
columns are related (`Structure.digits`). Only what is provably the same is merged: beliefs in
proportion, in the same memory class.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record
from solvers.kept import (
    refuse,
    require_alike,
    require_chances,
    require_indices,
    require_numbers,
)
from solvers.problem import Structure
from solvers.tree.numbering import Indices, Words, numbered, numbering, spans, whole_numbers

_COUNTLESS = 10**30  # of nodes: what long horizons have besides would not fit a float


class Layer(NamedTuple):
    """Nodes of one round, sorted by memory class.

    - `parent`, `column`: shape (L,): likelihood row l is row `parent[l]` of the round before
      times column `column[l]` (round 1: one row of ones).
    - `likelihood`, `memory`: shape (N,): likelihood row and memory class of each node.
    - `child`: shape (N, A, Z): the node that follows, -1 after controls that are not followed;
      (N, A, 0) in the last round.
    - `size`: shape (L,): summed offset of the columns of each likelihood row, None where columns
      are not related: rows that a node stands for are its own times exp of the difference.
    - `row`: shape (L, m): the rows themselves, None where they are found from the columns.
    """

    parent: Int[np.ndarray, " L"]
    column: Int[np.ndarray, " L"]
    likelihood: Int[np.ndarray, " N"]
    memory: Int[np.ndarray, " N"]
    child: Int[np.ndarray, "N A Z"]
    size: Float[np.ndarray, " L"] | None = None
    row: Float[np.ndarray, "L m"] | None = None

    @property
    def nodes(self) -> int:
        return self.memory.shape[0]


class Tree(Record):
    """All rounds of the tree that follows any root."""

    layers: tuple[Layer, ...]
    structure: Structure

    @property
    def nodes(self) -> int:
        return sum(layer.nodes for layer in self.layers)

    def check_kept(self) -> None:
        """Raise `ValueError` for indices that point at nothing."""
        structure, before = self.structure, 1
        for t, layer in enumerate(self.layers):
            rows = len(layer.parent)
            require_indices(f"layers[{t}].parent", layer.parent, before, -1 if t == 0 else 0)
            require_indices(f"layers[{t}].column", layer.column, structure.column_count, -1)
            require_indices(f"layers[{t}].likelihood", layer.likelihood, rows)
            require_indices(f"layers[{t}].memory", layer.memory, len(structure.edge[t]))
            after = self.layers[t + 1].nodes if t + 1 < len(self.layers) else 0
            require_indices(f"layers[{t}].child", layer.child, after, -1)
            if after and len(np.unique(layer.child[layer.child >= 0])) != after:
                refuse(f"layers[{t}].child", f"lead to all of {after} nodes", "fewer")
            if layer.row is not None:
                require_chances(f"layers[{t}].row", layer.row)
            if layer.size is not None:
                require_numbers(f"layers[{t}].size", layer.size)
            if t and layer.size is not None and structure.offset is not None:
                above = self.layers[t - 1].size
                added = structure.offset[layer.column]
                whole = added if above is None else above[layer.parent] + added
                require_alike(f"layers[{t}].size", layer.size, whole)
            before = rows


def bound_nodes(structure: Structure, merge: bool = True) -> list[int]:
    """Bound the nodes of every round before anything is built (exact if nothing merges)."""
    counts = [1]
    for t in range(1, structure.horizon):
        following = counts[-1] * structure.controls * structure.symbols
        if merge:
            classes = structure.edge[t].shape[0]
            multisets = math.comb(structure.column_count + t - 1, t)
            if structure.digits is not None:
                multisets = min(multisets, math.prod((t * spans(structure.digits) + 1).tolist()))
            following = min(following, multisets * classes)
        counts.append(min(following, _COUNTLESS))
    return counts


def build_tree(
    structure: Structure,
    merge: bool = True,
    limit: int | None = None,
    choose: Callable[[int, "Layer", Words], Bool[np.ndarray, "N A"]] | None = None,
    near: Callable[..., tuple[Indices, Indices, Words]] | None = None,
    grows: Callable[[list[int], int], None] | None = None,
    rounds: int | None = None,
) -> Tree:
    """Enumerate every history reachable from a root.

    **Arguments:** `structure`; `merge`: False keeps every history apart (slow, for checking);
    `limit`: the most nodes a round may have; `choose(t, layer, words)`: the controls to follow at
    the nodes of a round, whose words tell their beliefs apart; all by default; `near(rows, first,
    words, source, picked)`: merge likelihood rows further, and the words of those left;
    `grows(counts, ways)`: asked before the ways out of a round are merged, with the nodes of every
    round so far; what it raises ends the work; `rounds`: list only the first so many rounds.

    **Raises:** `MemoryError` with the round and the count when `limit` is passed.
    """
    horizon = rounds or structure.horizon
    layers, counts = [], []
    ones = np.zeros(1, np.int32)
    parent, column, likelihood, memory = ones, ones - 1, ones, ones
    beliefs = numbering(structure, near is not None)
    size = None if structure.offset is None else np.zeros(1)
    for t in range(horizon):
        if t == horizon - 1:
            child = np.zeros((len(memory), structure.controls, 0), np.int32)
            layers.append(Layer(parent, column, likelihood, memory, child, size))
            break
        columns = structure.columns[structure.edge[t][memory]]
        counts.append(len(memory))
        follow: Any = slice(None)
        if choose is not None:
            draft = Layer(parent, column, likelihood, memory, columns[:, :, :0], size)
            follow = np.asarray(choose(t, draft, beliefs.words))
        if limit is not None and not merge and columns.size > limit:
            raise MemoryError(f"round {t + 2} has {columns.size} nodes, the limit is {limit}")
        if grows is not None:
            grows(counts, columns.size)
        after = np.broadcast_to(structure.successor[t][memory][:, :, None], columns.shape)
        source = np.broadcast_to(likelihood[:, None, None], columns.shape)
        after, source, picked = (x[follow].ravel() for x in (after, source, columns))
        if merge:
            rows, first = beliefs.merge(source, picked)
            if near is not None:
                rows, first, beliefs.words = near(rows, first, beliefs.words, source, picked)
        else:
            rows = first = np.arange(len(source))
        code = after.astype(whole_numbers(len(structure.edge[t + 1]) * len(first)))
        code *= len(first)
        code += rows
        nodes, index = numbered(code)
        if limit is not None and len(nodes) > limit:
            raise MemoryError(f"round {t + 2} has {len(nodes)} nodes, the limit is {limit}")
        child = np.full(columns.shape, -1, np.int32)
        child[follow] = index.reshape(child[follow].shape)
        layers.append(Layer(parent, column, likelihood, memory, child, size))
        parent, column = source[first].astype(np.int32), picked[first].astype(np.int32)
        memory, likelihood = (part.astype(np.int32) for part in np.divmod(nodes, len(first)))
        if size is not None and structure.offset is not None:
            size = size[parent] + structure.offset[column]
    return Tree(tuple(layers), structure)


def ratios(tree: Tree, t: int, nodes: Indices) -> Float[np.ndarray, "k A Z"] | None:
    """Belief after each control and symbol over that of the child node; None where all are 1."""
    layer = tree.layers[t]
    structure = tree.structure
    if layer.size is None or structure.offset is None or t == len(tree.layers) - 1:
        return None
    following = tree.layers[t + 1]
    assert following.size is not None
    picked = structure.columns[structure.edge[t][layer.memory[nodes]]]
    reached = following.likelihood[layer.child[nodes]]  # of any node where none is followed
    here = layer.size[layer.likelihood[nodes]][:, None, None]
    return np.exp(here + structure.offset[picked] - following.size[reached])
