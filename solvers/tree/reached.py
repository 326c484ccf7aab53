"""The part of a tree that plans can reach, its last round listed where the tree does not list it.

Plans take one control at a node, so that they reach few of the nodes of a tree: as many as there
are symbols after each node of theirs. A last round that is not listed (`solvers.tree.ahead`) is
found again from there, node by node.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from solvers.problem import Tasks
from solvers.table import Answer
from solvers.tree.tree import Layer, Tree


def reached_tree(tree: Tree, answers: Sequence[Answer]) -> Tree:
    """What the plans kept can reach in a tree without the structure's last round, and in that.

    **Arguments:** `answers`: per group, controls of every round listed. Only theirs are followed.
    """
    structure, rounds = tree.structure, len(tree.layers)
    nodes = start = np.zeros(1, np.int64)
    here = Layer(start, start - 1, start, start, np.zeros((1, structure.controls, 0), np.int32),
                 None if structure.offset is None else np.zeros(1))  # fmt: skip
    layers: list[Layer] = []
    count = sum(x.actions[0].shape[1] * x.actions[0].shape[2] for x in answers)
    comes = np.ones((1, count), bool)
    for t in range(rounds):
        taken = np.concatenate([x.actions[t][nodes].reshape(len(nodes), -1) for x in answers], 1)
        follow = np.zeros((len(nodes), structure.controls), bool)
        node, plan = np.nonzero(comes)
        follow[node, taken[node, plan]] = True
        at, control = np.nonzero(follow)
        picked = structure.columns[structure.edge[t][here.memory[at], control]]  # (ways, Z)
        if t < rounds - 1:
            after = tree.layers[t].child[nodes[at], control].astype(np.int64)
            nodes, first, index = np.unique(after, return_index=True, return_inverse=True)
            memory, index = tree.layers[t + 1].memory[nodes], index.reshape(picked.shape)
        else:
            follows = structure.successor[t][here.memory[at], control]
            memory, first, index = _apart(follows, picked.shape[1])
        child = np.full((len(here.memory), structure.controls, picked.shape[1]), -1, np.int32)
        child[at, control] = index
        layers.append(here._replace(child=child))
        comes = _arrive(comes, taken, child, len(memory))
        parent, column = at[first // picked.shape[1]], picked.reshape(-1)[first]
        size = None
        if here.size is not None and structure.offset is not None:
            size = here.size[parent] + structure.offset[column]
        here = Layer(
            parent.astype(np.int32),
            column.astype(np.int32),
            np.arange(len(memory), dtype=np.int32),
            memory.astype(np.int32),
            np.zeros((len(memory), structure.controls, 0), np.int32),
            size,
        )
    return Tree((*layers, here), structure)


def kept_only(groups: Sequence[Tasks]) -> list[Tasks]:
    """The tasks whose plans are kept."""
    return [
        dataclasses.replace(
            part,
            coefficient=part.coefficient[:, : part.keep],
            counted=part.counted[:, : part.keep],
            allowed=part.allowed[:, : part.keep],
        )
        for part in groups
    ]


def with_last_round(answers: Sequence[Answer], rest: Sequence[Answer]) -> list[Answer]:
    """Answers with the plans kept in every round, and what these attain.

    **Arguments:** `rest`: of `kept_only`, on the tree of `reached_tree`.
    """
    found = []
    for answer, plans in zip(answers, rest, strict=True):
        keep, value = plans.value.shape[1], np.array(answer.value)
        assert answer.lower is not None
        assert plans.lower is not None
        lower = np.array(answer.lower)
        value[:, :keep], lower[:, :keep] = plans.value, plans.lower
        ill = answer.ill or plans.ill
        found.append(Answer(value, plans.actions, lower, answer.upper, (), ill))
    return found


def _apart(
    follows: Int[np.ndarray, " w"], symbols: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, "w Z"]]:
    """A node of its own for every way and symbol, by memory class: memories, ways, numbers."""
    order = np.argsort(follows, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    each = np.arange(symbols)
    first = (order[:, None] * symbols + each).reshape(-1)
    return np.repeat(follows[order], symbols), first, place[:, None] * symbols + each


def _arrive(
    comes: Bool[np.ndarray, "k F"],
    taken: Int[np.ndarray, "k F"],
    child: Int[np.ndarray, "k A Z"],
    count: int,
) -> Bool[np.ndarray, "n F"]:
    """Which plans come to each node of the next round."""
    found = np.zeros((count, comes.shape[1]), bool)
    node, plan = np.nonzero(comes)
    found[child[node, taken[node, plan]], plan[:, None]] = True
    return found
