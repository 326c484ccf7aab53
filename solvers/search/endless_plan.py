"""Plans without a last round: followed node by node, and summed in closed form.

`AbstractEndless` is what their rounds are written out from (`solvers.search.unrolled`).

A plan is what each economy's opened pairs say, and where they end one control kept for ever. It
answers at every history: off what was searched it keeps the control that is best for ever at the
belief and memory where the plan was left, whose distance to the best is bounded there.
"""

import abc

import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.problem import Structure
from solvers.search.arrays import each_once
from solvers.search.best_first import Search
from solvers.search.economy import Economy
from solvers.search.store import Indices
from solvers.search.ways import Ways
from solvers.solution import AbstractPlan, Node


class AbstractEndless(AbstractPlan):
    """Plans that are at *pairs*, numbers above 0, or keep one control for ever, 0."""

    @property
    @abc.abstractmethod
    def structure(self) -> Structure:
        """The one table of edges."""

    @property
    @abc.abstractmethod
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Likelihood columns (C, m), what each adds to words, and to the size of a belief."""

    @abc.abstractmethod
    def economy_of(self, task: int) -> Economy:
        """Root, yields and bounds of a task."""

    @abc.abstractmethod
    def tops(self, tasks: Indices) -> tuple[Indices, Indices]:
        """Where the plans of tasks start: pairs, and what is kept."""

    @abc.abstractmethod
    def acts(self, pair: Indices) -> Indices:
        """The control taken at a pair, -1 where one is kept for ever."""

    @abc.abstractmethod
    def keeps(self, pair: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The control that is best kept at a pair."""

    @abc.abstractmethod
    def onward(
        self, pair: Indices, keep: Indices
    ) -> tuple[Int[np.ndarray, "k Z"], Int[np.ndarray, "k Z"]]:
        """Where plans are after each symbol: pairs, and what is kept."""

    @abc.abstractmethod
    def known(
        self,
        pair: Indices,
        task: int,
        memory: Indices,
        belief: Float[np.ndarray, "k m"],
        size: Float[np.ndarray, " k"] | None,
        sharp: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a task attains from pairs on, at beliefs unnormalised, and what it cannot exceed.

        **Arguments:** `size`: of the beliefs, as in `Layer`; `sharp`: whether what is above is to
        be as close as it is known, else as it is quickly found.
        """


class EndlessPlan(AbstractEndless):
    """The plans of all tasks: `economy` (N,), which of the search's each follows, and `allowed`.

    A task that follows another's economy may use fewer controls than it: all that the plan
    uses, not all that is used where the plan was left.
    """

    search: Search
    economy: Int[np.ndarray, " N"]
    allowed: Bool[np.ndarray, "N A"]

    @property
    def structure(self) -> Structure:
        return self.search.structure

    @property
    def columns(self):
        store = self.search.store
        return store.column, store.digit, store.offset

    def economy_of(self, task: int) -> Economy:
        return self.search.economies[self.economy[task]]

    def tops(self, tasks: Indices):
        top = np.asarray(self.search.top, np.int64)[self.economy[tasks]]
        return top, self.keeps(top)

    def acts(self, pair: Indices):
        return np.where(pair > 0, self.search.pairs["act"][pair].astype(np.int64), -1)

    def keeps(self, pair: Int[np.ndarray, "..."]):
        return self.search.pairs["keep"][pair].astype(np.int64)

    def onward(self, pair: Indices, keep: Indices):
        place, act = self.search.pairs["place"][pair], self.acts(pair)
        inside = act >= 0
        following = np.zeros((len(pair), self.structure.symbols), np.int64)
        following[inside] = self.search.opened["child"][place[inside], act[inside]]
        otherwise = np.where(inside, self.structure.controls - 1, keep)[:, None]
        return following, np.where(following > 0, self.keeps(following), otherwise)

    def known(
        self,
        pair: Indices,
        task: int,
        memory: Indices,
        belief: Float[np.ndarray, "k m"],
        size: Float[np.ndarray, " k"] | None,
        sharp: bool,
    ):
        pairs, nodes = self.search.pairs, self.search.store.nodes
        low, high = pairs["lower"][pair], pairs["upper"][pair]
        if size is None:
            return low, high
        scale = np.exp(size - nodes["size"][pairs["node"][pair]])
        return low * scale, high * scale

    def act(self, node: Node) -> int:
        """The control at a history; `node.memory` and `node.belief` follow from it."""
        return self.at(node.task, node.history)[0]

    def at(self, task: int, history: tuple[tuple[int, int], ...]) -> tuple[int, float]:
        """The control at a history of (control, symbol), and what it can lose from there.

        The loss is in the unnormalised belief's units: what a controller told the parameter gets
        beyond the control kept for ever, or the searched bounds of the node.
        """
        search = self.search
        structure, pairs = search.structure, search.pairs
        economy = search.economies[self.economy[task]]
        own = bool((self.allowed[task] == economy.allowed).all())
        pair, keep, memory = search.top[self.economy[task]], -1, 0
        belief = economy.root.copy()
        for control, symbol in history:
            edge = structure.edge[0][memory, control]
            belief = belief * search.store.column[structure.columns[edge, symbol]]
            memory = int(structure.successor[0][memory, control])
            kept = pair == 0 and control == keep
            if pair > 0:
                place, act = pairs["place"][pair], int(pairs["act"][pair])
                keep = int(pairs["keep"][pair])
                kept = act < 0 and control == keep
                follow = -1
                if place >= 0 and not kept and (own or control == act):
                    follow = int(search.opened["child"][place, control, symbol])
                pair = max(follow, 0)
            if pair == 0 and not kept:
                keep = economy.best_kept(memory, belief, self.allowed[task])
        if pair > 0:
            act, gap = int(pairs["act"][pair]), float(pairs["upper"][pair] - pairs["lower"][pair])
            size, mass = pairs["mass"][pair], belief.sum()
            return act if act >= 0 else int(pairs["keep"][pair]), gap * mass / max(size, 1e-300)
        lost = economy.told[memory] - economy.kept[keep, memory]
        return keep, float(belief @ lost)

    def frequencies(self, task: int) -> Float[np.ndarray, "E m"]:
        """How often each edge is used given the parameter, over the whole process, for ever."""
        search = self.search
        structure, store, pairs = search.structure, search.store, search.pairs
        reached, onward = plan_pairs(search, search.top[self.economy[task]])
        act, node = pairs["act"][reached].astype(int), pairs["node"][reached]
        memory = store.nodes["memory"][node]
        total = np.zeros((len(search.going), store.column.shape[1]))
        start = np.zeros(len(reached))
        start[0] = 1.0
        count = onward.back().solve(start)
        weight = count[:, None] * store.rows(node)
        at = np.flatnonzero(act >= 0)
        np.add.at(total, structure.edge[0][memory[at], act[at]], weight[at])
        for one in np.flatnonzero(act < 0):
            keep = int(pairs["keep"][reached[one]])
            self._keep_on(total, int(memory[one]), keep, weight[one])
        return total

    def _keep_on(
        self, total: np.ndarray, memory: int, control: int, weight: Float[np.ndarray, " m"]
    ) -> None:
        """Add what one control kept for ever from here on uses."""
        edges, after = self.search.structure.edge[0], self.search.structure.successor[0]
        path: list[int] = []
        while memory not in path:
            path.append(memory)
            memory = int(after[memory, control])
        first = path.index(memory)
        around = np.prod(self.search.going[edges[path[first:], control]], axis=0)
        for place, one in enumerate(path):
            edge = edges[one, control]
            if place == first:
                weight = np.divide(weight, 1 - around, out=np.zeros_like(weight), where=around < 1)
            total[edge] += weight
            weight = weight * self.search.going[edge]


def plan_pairs(search: Search, top: int) -> tuple[Indices, Ways]:
    """Pairs that a plan can reach from the pair it starts at, which comes first.

    **Returns:** them, and the factor by which a belief at one goes on to another.
    """
    pairs, opened = search.pairs, search.opened
    if search.structure.symbols == 1:
        return _one_by_one(search, top)
    place_of = np.full(pairs.count, -1)
    place_of[top], reached = 0, [np.array([top])]
    rows, columns, factors, active = [], [], [], reached[0]
    while len(active):
        active = active[pairs["act"][active] >= 0]
        act = pairs["act"][active].astype(int)
        child = opened["child"][pairs["place"][active], act]
        fresh = each_once(child[(place_of[child] < 0) & (child > 0)])
        count = sum(map(len, reached))
        place_of[fresh] = count + np.arange(len(fresh))
        live = child > 0
        rows.append(np.repeat(place_of[active], live.sum(axis=1)))
        columns.append(place_of[child[live]])
        factors.append(search.factor(active, act, child)[live])
        reached.append(fresh)
        active = fresh
    none = np.zeros(0, np.int64)
    ways = Ways(
        np.concatenate([none, *rows]),
        np.concatenate([none, *columns]),
        np.concatenate([np.zeros(0), *factors]),
    )
    return np.concatenate(reached), ways


def _one_by_one(search: Search, top: int) -> tuple[Indices, Ways]:
    """The same where a single symbol is all that can follow, so that ways do not branch."""
    act, place, child = search.pairs["act"], search.pairs["place"], search.opened["child"]
    rank, pair = {}, int(top)
    while pair > 0 and pair not in rank:
        rank[pair] = len(rank)
        control = int(act[pair])
        pair = int(child[place[pair], control, 0]) if control >= 0 else 0
    reached = np.array([*rank], np.int64)
    onward = reached if pair > 0 else reached[:-1]
    after = np.append(reached[1:], pair)[: len(onward)]
    factor = search.factor(onward, act[onward].astype(int), after[:, None])[:, 0]
    target = np.arange(1, 1 + len(onward))
    target[len(reached) - 1 :] = rank.get(pair, 0)
    return reached, Ways(np.arange(len(onward)), target, factor)


def value_plan(search: Search, top: int) -> float:
    """What a plan attains, its pairs' lower bounds raised to it."""
    pairs = search.pairs
    reached, onward = plan_pairs(search, top)
    act = pairs["act"][reached].astype(int)
    pay = search.opened["pay"][pairs["place"][reached], act]
    value = onward.solve(np.where(act >= 0, pay, pairs["lower"][reached]))
    pairs["lower"][reached] = np.maximum(pairs["lower"][reached], value)
    pairs["upper"][reached] = np.maximum(pairs["upper"][reached], pairs["lower"][reached])
    return float(value[0])


def used_edges(search: Search, top: int) -> Bool[np.ndarray, " E"]:
    """Edges that a plan may come to use."""
    structure, pairs = search.structure, search.pairs
    reached = plan_pairs(search, top)[0]
    memory = search.store.nodes["memory"][pairs["node"][reached]]
    act, keep = pairs["act"][reached].astype(int), pairs["keep"][reached].astype(int)
    used = np.zeros(len(search.going), bool)
    inside = act >= 0
    used[structure.edge[0][memory[inside], act[inside]]] = True
    met = np.zeros(structure.edge[0].shape, bool)
    for start, control in zip(memory[~inside].tolist(), keep[~inside].tolist(), strict=True):
        at = start
        while not met[at, control]:
            met[at, control] = True
            at = int(structure.successor[0][at, control])
    used[structure.edge[0][met]] = True
    return used
