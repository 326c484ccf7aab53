"""Reachable histories with merged beliefs: host-side integers only.

The parameter is static, so a belief depends on the *multiset* of likelihood columns seen, and
a state on that multiset and the memory class. Round t has at most
C(column_count + t - 2, t - 1) * M_t nodes instead of (A Z)^(t-1) histories. Only what is
provably the same is merged: equal multisets of equal columns, in the same memory class.
"""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Int

from solvers._problem import Structure


class Layer(eqx.Module):
    """Nodes of one round, sorted by memory class.

    - `parent`, `column`: shape (L,): likelihood row l is row `parent[l]` of the round before
      times column `column[l]` (round 1: one row of ones).
    - `likelihood`, `memory`: shape (N,): likelihood row and memory class of each node.
    - `child`: shape (N, A, Z): the node that follows; (N, A, 0) in the last round.
    """

    parent: Int[np.ndarray, " L"]
    column: Int[np.ndarray, " L"]
    likelihood: Int[np.ndarray, " N"]
    memory: Int[np.ndarray, " N"]
    child: Int[np.ndarray, "N A Z"]

    @property
    def nodes(self) -> int:
        return self.memory.shape[0]


class Tree(eqx.Module):
    """All rounds of the tree that follows any root."""

    layers: tuple[Layer, ...]
    structure: Structure

    @property
    def nodes(self) -> int:
        return sum(layer.nodes for layer in self.layers)


def bound_nodes(structure: Structure, merge: bool = True) -> list[int]:
    """Bound the nodes of every round before anything is built (exact if nothing merges)."""
    counts = [1]
    for t in range(1, structure.horizon):
        following = counts[-1] * structure.controls * structure.symbols
        if merge:
            classes = structure.edge[t].shape[0]
            multisets = math.comb(structure.column_count + t - 1, t)
            following = min(following, multisets * classes)
        counts.append(following)
    return counts


def build_tree(structure: Structure, merge: bool = True, limit: int | None = None) -> Tree:
    """Enumerate every history reachable from a root.

    **Arguments:** `structure`; `merge`: False keeps every history apart (slow, for checking);
    `limit`: the most nodes a round may have.

    **Raises:** `MemoryError` with the round and the count when `limit` is passed.
    """
    horizon = structure.horizon
    layers = []
    ones = np.zeros(1, np.int32)
    parent, column, likelihood, memory = ones, ones - 1, ones, ones
    bags = np.zeros((1, 0), np.int64)
    for t in range(horizon):
        if t == horizon - 1:
            child = np.zeros((len(memory), structure.controls, 0), np.int32)
            layers.append(Layer(parent, column, likelihood, memory, child))
            break
        columns = structure.columns[structure.edge[t][memory]]
        if limit is not None and not merge and columns.size > limit:
            raise MemoryError(f"round {t + 2} has {columns.size} nodes, the limit is {limit}")
        after = np.broadcast_to(structure.successor[t][memory][:, :, None], columns.shape).ravel()
        source = np.broadcast_to(likelihood[:, None, None], columns.shape).ravel()
        picked = columns.ravel()
        if merge:
            rows, first, bags = _merge_bags(bags, source, picked, structure)
        else:
            rows = first = np.arange(len(source))
        nodes, index = np.unique(after.astype(np.int64) * len(first) + rows, return_inverse=True)
        if limit is not None and len(nodes) > limit:
            raise MemoryError(f"round {t + 2} has {len(nodes)} nodes, the limit is {limit}")
        child = index.reshape(columns.shape).astype(np.int32)
        layers.append(Layer(parent, column, likelihood, memory, child))
        parent, column = source[first].astype(np.int32), picked[first].astype(np.int32)
        memory, likelihood = (part.astype(np.int32) for part in np.divmod(nodes, len(first)))
    return Tree(tuple(layers), structure)


def _merge_bags(bags, source, picked, structure):
    """Number the multisets `bags[source] + [picked]`; sorted digits are the exact key."""
    grown = np.concatenate([bags[source], picked[:, None]], axis=1)
    if structure.dead >= 0:
        grown[(grown == structure.dead).any(axis=1)] = structure.dead
    grown.sort(axis=1)
    count, length = structure.column_count, grown.shape[1]
    if count**length < 2**62:
        keys = grown @ (count ** np.arange(length, dtype=np.int64)[::-1])
        _, first, rows = np.unique(keys, return_index=True, return_inverse=True)
    else:
        _, first, rows = np.unique(grown, axis=0, return_index=True, return_inverse=True)
    return rows.reshape(-1), first, grown[first]
