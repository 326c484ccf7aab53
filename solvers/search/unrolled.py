"""Plans without a last round written out on a tree of so many rounds.

Plans are followed from their roots under every symbol, merged where beliefs are in proportion and
memories one, until what is still to come is worth less than asked for at every root, or the tree
is as large as it may be. What the rounds written out attain, and what they lack at every node, is
then an exact sum over the tree.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from solvers.problem import Structure, TaskList
from solvers.search.endless_plan import EndlessPlan
from solvers.search.store import Indices
from solvers.search.timed import starts
from solvers.table import Answer, PlanTable
from solvers.tree.tree import Layer, Tree
from solvers.truncation import unroll

_MOST_ROUNDS = 10_000


class _Entries(NamedTuple):
    """Plans at the nodes of a round: the kept task, its pair (0: none), the control kept for ever.

    `weight`: the plan's belief there over that of the node.
    """

    node: Int[np.ndarray, " k"]
    task: Int[np.ndarray, " k"]
    pair: Int[np.ndarray, " k"]
    keep: Int[np.ndarray, " k"]
    weight: Float[np.ndarray, " k"]


class _Round(NamedTuple):
    """Nodes of a round: store nodes or, where belief is zero, -1; and the rest as in `Layer`."""

    node: Int[np.ndarray, " N"]
    memory: Int[np.ndarray, " N"]
    parent: Int[np.ndarray, " N"]
    column: Int[np.ndarray, " N"]
    row: Float[np.ndarray, "N m"]
    size: Float[np.ndarray, " N"] | None


def write_rounds(
    plan: EndlessPlan,
    tasks: TaskList,
    lower: Float[np.ndarray, " N"],
    upper: Float[np.ndarray, " N"],
    rest: Float[np.ndarray, " N"],
    memory: float,
    least: int,
) -> PlanTable:
    """The plans of the tasks kept on a tree, from which on no more than `rest` is to come.

    **Arguments:** `lower`, `upper`, `rest` (N,): of every task, unnormalised; `memory`: bytes for
    the tree; `least`: rounds that it has at any rate.
    """
    return _Writer(plan, tasks, lower, upper).write(rest, memory, least)


def write_finite(
    plan: EndlessPlan,
    tasks: TaskList,
    lower: Float[np.ndarray, " N"],
    upper: Float[np.ndarray, " N"],
    structure: Structure,
    memory: float,
) -> PlanTable:
    """The plans of the tasks kept in every round of a finite problem, `structure`.

    The plans are those of the same problem with a clock (`solvers.search.timed`). Where their tree
    is larger than `memory` they keep one control from some round on, a later one if that fits.

    **Raises:** `MemoryError` where not even plans of one control each fit.
    """
    writer = _Writer(plan, tasks, lower, upper)
    for following in reversed(range(structure.horizon + 1)):
        try:
            return writer.write_all(structure, memory, following)
        except MemoryError:
            if following == 0:
                raise
    raise MemoryError("no plan has any round")


class _Writer:
    def __init__(
        self,
        plan: EndlessPlan,
        tasks: TaskList,
        lower: Float[np.ndarray, " N"],
        upper: Float[np.ndarray, " N"],
    ):
        self.plan, self.tasks, self.lower, self.upper = plan, tasks, lower, upper
        self.search, self.structure = plan.search, plan.search.structure
        self.kept = np.flatnonzero(tasks.kept)
        economies = [self.search.economies[k] for k in plan.economy[self.kept].tolist()]
        self.root = np.array([one.root for one in economies])
        self.economies = economies

    def write_all(self, structure: Structure, memory: float, following: int) -> PlanTable:
        """Write every round, following the plans for some of them; see `write_finite`."""
        start, horizon = starts(structure), structure.horizon
        rounds, entries = [self._first()], [self._top()]
        children: list[np.ndarray] = []
        used = 0.0
        for t in range(horizon):
            here, at = rounds[-1], entries[-1]
            if t == following:
                at = entries[-1] = self._settled(at)
            used += self._bytes(here, at)
            if used * structure.symbols > memory:
                raise MemoryError(f"round {t + 1} of a plan has {len(here.node)} nodes")
            if t < horizon - 1:
                after, child, reached = self._next(here, at)
                children.append(child)
                rounds.append(after)
                entries.append(reached)
        children.append(np.zeros((len(rounds[-1].node), structure.controls, 0), np.int32))
        found = self._table(rounds, entries, children, structure)
        assert found.tree is not None
        layers = tuple(
            dataclasses.replace(layer, memory=layer.memory - np.int32(first))
            for layer, first in zip(found.tree.layers, start, strict=True)
        )
        return dataclasses.replace(found, tree=Tree(layers, structure))

    def _settled(self, at: _Entries) -> _Entries:
        """The same entries, from here on with the control that is best kept."""
        keep = np.where(at.pair > 0, self.search.pairs["keep"][at.pair], at.keep)
        return at._replace(pair=np.zeros_like(at.pair), keep=keep.astype(np.int64))

    def _first(self) -> _Round:
        first, points = np.zeros(1, np.int64), self.root.shape[1]
        size = None if self.search.store.offset is None else np.zeros(1)
        return _Round(first, first, first, first - 1, np.ones((1, points)), size)

    def _top(self) -> _Entries:
        """Every plan at its root."""
        top = np.asarray(self.search.top, np.int64)[self.plan.economy[self.kept]]
        every = np.arange(len(self.kept))
        keep = self.search.pairs["keep"][top].astype(np.int64)
        return _Entries(0 * every, every, top, keep, np.ones(len(every)))

    def _bytes(self, here: _Round, at: _Entries) -> float:
        """Bytes of a round, while it is written and solved."""
        each = 8.0 * (2 * self.root.shape[1] + self.structure.controls * self.structure.symbols)
        return (each + 16.0 * len(self.kept)) * len(here.node) + 48.0 * len(at.node)

    def write(self, rest: Float[np.ndarray, " N"], memory: float, least: int) -> PlanTable:
        """See `write_rounds`."""
        structure = self.structure
        rounds, entries = [self._first()], [self._top()]
        children: list[np.ndarray] = []
        used = 0.0
        while True:
            here, at = rounds[-1], entries[-1]
            left = np.bincount(at.task, self._to_come(here, at), len(self.kept))
            used += self._bytes(here, at)
            if len(rounds) >= least and (left <= rest[self.kept]).all():
                break
            if len(rounds) >= _MOST_ROUNDS or used * structure.symbols > memory:
                break
            following, child, after = self._next(here, at)
            children.append(child)
            rounds.append(following)
            entries.append(after)
        children.append(np.zeros((len(rounds[-1].node), structure.controls, 0), np.int32))
        return self._table(rounds, entries, children, unroll(structure, len(rounds)))

    def _control(self, at: _Entries) -> Indices:
        act = self.search.pairs["act"][at.pair].astype(np.int64)
        return np.where((at.pair > 0) & (act >= 0), act, at.keep)

    def _bounds(self, here: _Round, at: _Entries) -> tuple[np.ndarray, np.ndarray]:
        """What the plan attains from here on, for ever, and bounds above, unweighted."""
        pairs = self.search.pairs
        low, high = pairs["lower"][at.pair].copy(), pairs["upper"][at.pair].copy()
        for f in np.unique(at.task[at.pair == 0]).tolist():
            mine = np.flatnonzero((at.pair == 0) & (at.task == f))
            belief = here.row[at.node[mine]] * self.root[f]
            where, one = here.memory[at.node[mine]], self.economies[f]
            low[mine] = (belief * one.kept[at.keep[mine], where]).sum(axis=1)
            high[mine] = (belief * one.told[where]).sum(axis=1)
        return low, np.maximum(high, low)

    def _to_come(self, here: _Round, at: _Entries) -> Float[np.ndarray, " k"]:
        low, high = self._bounds(here, at)
        scale = self._scale(here, at)
        return at.weight * np.maximum(np.abs(low), np.abs(high)) * scale

    def _scale(self, here: _Round, at: _Entries) -> Float[np.ndarray, " k"]:
        """The belief of a round's node over that of the store's, 1 unless columns are related."""
        if here.size is None:
            return np.ones(len(at.node))
        node = here.node[at.node]
        known = self.search.store.nodes["size"][np.maximum(node, 0)]
        return np.where((node >= 0) & (at.pair > 0), np.exp(here.size[at.node] - known), 1.0)

    def _next(self, here: _Round, at: _Entries) -> tuple[_Round, np.ndarray, _Entries]:
        """Nodes after every control taken and symbol, where they are, and the plans there."""
        structure, store, search = self.structure, self.search.store, self.search
        symbols = structure.symbols
        control = self._control(at)
        ways, which = np.unique(at.node * structure.controls + control, return_inverse=True)
        source, taken = np.divmod(ways, structure.controls)
        memory = here.memory[source]
        column = structure.columns[structure.edge[0][memory, taken]].ravel().astype(np.int64)
        after = np.repeat(structure.successor[0][memory, taken], symbols).astype(np.int64)
        source = np.repeat(source, symbols)
        dead = (here.node[source] < 0) | (column == structure.dead)
        number = -1 - after
        if not dead.all():
            number[~dead] = store.after(here.node[source[~dead]], column[~dead], after[~dead])
        keys = np.stack([after, number])
        nodes, first, index = np.unique(keys, axis=1, return_index=True, return_inverse=True)
        index = index.reshape(-1)
        row = here.row[source[first]] * store.column[column[first]]
        row[dead[first]] = 0.0
        size = None
        if here.size is not None and store.offset is not None:
            size = here.size[source[first]] + store.offset[column[first]]
        following = _Round(
            np.maximum(nodes[1], -1), nodes[0], source[first], column[first], row, size
        )
        child = np.full((len(here.node), structure.controls, symbols), -1, np.int32)
        child[source, np.repeat(taken, symbols), np.tile(np.arange(symbols), len(ways))] = index
        # Where a plan goes on: the pair that follows, or what it keeps for ever.
        spot = index.reshape(-1, symbols)[which]
        place, act = search.pairs["place"][at.pair], search.pairs["act"][at.pair]
        inside = (at.pair > 0) & (act >= 0)
        pair = np.zeros((len(at.node), symbols), np.int64)
        pair[inside] = search.opened["child"][place[inside], act[inside].astype(int)]
        keep = np.where(
            pair > 0,
            search.pairs["keep"][pair],
            np.where(inside, structure.controls - 1, at.keep)[:, None],
        )
        weight = np.repeat(at.weight, symbols)
        if size is not None and here.size is not None and store.offset is not None:
            step = here.size[source] + store.offset[column] - size[index]
            weight = weight * np.exp(step.reshape(-1, symbols)[which]).ravel()
        task = np.repeat(at.task, symbols)
        return (
            following,
            child,
            self._merged(
                following,
                _Entries(spot.ravel(), task, pair.ravel(), keep.ravel().astype(np.int64), weight),
            ),
        )

    def _merged(self, here: _Round, at: _Entries) -> _Entries:
        """One entry a node and plan: where ways differ in what they keep, what is worth most."""
        low = self._bounds(here, at)[0] * self._scale(here, at)
        key = at.node * len(self.kept) + at.task
        order = np.lexsort((-low, key))
        key = key[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        weight = np.add.reduceat(at.weight[order], first)
        best = order[first]
        return _Entries(at.node[best], at.task[best], at.pair[best], at.keep[best], weight)

    def _table(
        self,
        rounds: Sequence[_Round],
        entries: Sequence[_Entries],
        children: Sequence[np.ndarray],
        written: Structure,
    ) -> PlanTable:
        """Backward over the tree of the structure written: what plans attain, what they lack."""
        structure, width = self.structure, len(self.kept)
        later = np.zeros((len(rounds[-1].node), width))
        actions, gaps = [], []
        for t in reversed(range(len(rounds))):
            here, at, child = rounds[t], entries[t], children[t]
            control = self._control(at)
            edge = structure.edge[0][here.memory[at.node], control]
            value = np.zeros((len(here.node), width))
            belief = here.row[at.node] * self.root[at.task]
            yields = np.zeros(len(at.node))
            for f in np.unique(at.task).tolist():
                mine = at.task == f
                yields[mine] = (belief[mine] * self.economies[f].yields[edge[mine]]).sum(axis=1)
            if child.shape[2]:
                reached = child[at.node, control]
                factor = self._ratio(here, rounds[t + 1], at, edge, reached)
                yields += (later[reached, at.task[:, None]] * factor).sum(axis=1)
            value[at.node, at.task] = yields
            high = self._bounds(here, at)[1] * self._scale(here, at)
            if t == 0:
                high = self.upper[self.kept[at.task]]
            mass = belief.sum(axis=1)
            gap = np.zeros((len(here.node), width))
            lack = np.maximum(high - yields, 0.0)
            gap[at.node, at.task] = np.where(mass > 0, lack / np.where(mass > 0, mass, 1.0), 0.0)
            taken = np.full((len(here.node), width), structure.controls - 1)
            taken[at.node, at.task] = control
            actions.append(taken)
            gaps.append(gap)
            later = value
        layers = tuple(map(_layer, rounds, children))
        return self._laid_out(Tree(layers, written), actions[::-1], gaps[::-1], later[0])

    def _ratio(self, here: _Round, after: _Round, at: _Entries, edge, reached):
        offset = self.search.store.offset
        if offset is None or here.size is None or after.size is None:
            return np.ones(reached.shape)
        column = self.structure.columns[edge]
        return np.exp(here.size[at.node][:, None] + offset[column] - after.size[reached])

    def _laid_out(self, tree: Tree, actions, gaps, attained) -> PlanTable:
        value = self.lower.copy()
        value[self.kept] = attained
        answers, lacking, first = [], [], 0
        for part, numbers in zip(self.tasks.groups, self.tasks.split(value), strict=True):
            roots = len(numbers)
            mine, shape = slice(first, first + roots * part.keep), (-1, roots, part.keep)
            taken = tuple(one[:, mine].reshape(shape) for one in actions)
            answers.append(Answer(numbers, taken))
            lacking.append(tuple(one[:, mine].reshape(shape) for one in gaps))
            first = mine.stop
        return PlanTable(tree, None, answers, lacking)


def _layer(here: _Round, child: np.ndarray) -> Layer:
    def small(numbers: np.ndarray) -> np.ndarray:
        return numbers.astype(np.int32)

    at = np.arange(len(here.node), dtype=np.int32)
    return Layer(
        small(here.parent), small(here.column), at, small(here.memory), child, here.size, here.row
    )
