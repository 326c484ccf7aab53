"""Compile what plans can reach, where a market's memories are too many to list."""

import dataclasses

import numpy as np
from jaxtyping import Int

from dynmech.market.environment import RecommendationMDP
from dynmech.problem.compile import next_memories
from dynmech.problem.edges import Compiled, compile_edges
from solvers.table import Grown
from solvers.tree.tree import Layer, Tree


def compile_rounds(
    env: RecommendationMDP, rounds: tuple[Grown, ...], limit: float
) -> tuple[Compiled, Tree]:
    """Edges of the recommendations in use, and the tree over them; others have no edge.

    **Arguments:** `rounds`: what plans can reach; `limit`: bytes for the tables.
    """
    n, clock = env.products, env.signals.feedback.periodic()
    lasts = env.action_rule.lasts() is not None
    width = len(env.controls)
    used, following, rows = [], [], []
    for t, one in enumerate(rounds):
        mask = np.zeros((len(one.memory), width), bool)
        for task in range(one.action.shape[1]):
            mask[one.place, one.action[:, task]] = True
        after = np.asarray(next_memories(env.action_rule, one.memory, env.controls, n))[mask]
        control = np.nonzero(mask)[1]
        own = clock or (lasts and t == len(rounds) - 1)
        period = np.full(len(control), t if own else 0)
        rows.append(np.concatenate([after, control[:, None], period[:, None]], axis=1))
        used.append(mask)
        heir = np.zeros((len(one.memory), width), np.int64)
        if t < len(rounds) - 1:
            child = one.child[:, :, 0]
            node, taken = np.nonzero(child >= 0)
            heir[one.place[node], taken] = rounds[t + 1].place[child[node, taken]]
        following.append(heir)
    keys, index = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    place = []
    for mask, part in zip(used, np.split(index.reshape(-1), _ends(rows)), strict=True):
        table = np.full(mask.shape, -1)
        table[mask] = part
        place.append(table)
    before = env.action_rule.shown_before(n)
    always, ever = _shown(before, used, following, place, len(keys), env.members)
    going = np.unique(np.concatenate([p[p >= 0] for p in place[:-1]] or [np.zeros(0, int)]))
    found = compile_edges(env, keys, always, ever, going, True, limit)
    missing = len(found.structure.columns)
    edge = tuple(np.where(p >= 0, found.edge_of[p], missing).astype(np.int32) for p in place)
    successor = tuple(x.astype(np.int32) for x in following)
    structure = dataclasses.replace(
        found.structure, edge=edge, successor=successor, digits=None, offset=None
    )
    layers = []
    for t, one in enumerate(rounds):
        column = np.full(len(one.place), -1, np.int32)
        if t:
            before = edge[t - 1][rounds[t - 1].place[one.parent], one.control]
            column = structure.columns[before, one.symbol].astype(np.int32)
        parent, memory = one.parent.astype(np.int32), one.place.astype(np.int32)
        rows_of = np.arange(len(memory), dtype=np.int32)
        layers.append(Layer(parent, column, rows_of, memory, one.child))
    return dataclasses.replace(found, structure=structure), Tree(tuple(layers), structure)


def _ends(rows: list[np.ndarray]) -> Int[np.ndarray, " _t"]:
    return np.cumsum([len(part) for part in rows])[:-1]


def _shown(
    before: np.ndarray,
    used: list[np.ndarray],
    following: list[np.ndarray],
    place: list[np.ndarray],
    count: int,
    added: np.ndarray,
):
    """Products surely, and possibly, shown at each edge in use, over the ways that are in use."""
    n = added.shape[1]
    always, ever = np.ones((count, n), bool), np.zeros((count, n), bool)
    sure, may = before[None], before[None]
    for t, mask in enumerate(used):
        at, control = np.nonzero(mask)
        surely, maybe = sure[at] | added[control], may[at] | added[control]
        np.logical_and.at(always, place[t][mask], surely)
        np.logical_or.at(ever, place[t][mask], maybe)
        if t < len(used) - 1:
            size = len(used[t + 1])
            sure, may = np.ones((size, n), bool), np.zeros((size, n), bool)
            np.logical_and.at(sure, following[t][mask], surely)
            np.logical_or.at(may, following[t][mask], maybe)
    return always, ever
