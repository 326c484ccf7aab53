"""Plans without a last round written out on a tree of so many rounds.

Plans are followed from their roots under every symbol, merged where beliefs are in proportion and
memories one, until what is still to come is worth less than asked for at every root, or the tree
is as large as it may be. What the rounds written out attain, and what they lack at every node, is
then an exact sum over the tree. Where the problem lets it the last of them stands for all that
follow (`solvers.search.lasting`), so that it is a sum for ever.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from solvers.problem import Structure, TaskList
from solvers.process import Listed
from solvers.search.endless_plan import AbstractEndless
from solvers.search.lasting import Closed
from solvers.search.rounds import Entries, Round, distinct, places
from solvers.search.summed import FEW, TOGETHER, Numbers, Plans
from solvers.search.timed import starts
from solvers.table import PlanTable
from solvers.tree.tree import Tree
from solvers.truncation import unroll

_MOST_ROUNDS, _MOST_ALONE = 10_000, 200_000  # the latter where only one way is left
_OVER = 1.0  # of the seconds in which nodes were found: to go back over them, and to use the plan


def write_rounds(
    plan: AbstractEndless,
    tasks: TaskList,
    lower: Float[np.ndarray, " N"],
    upper: Float[np.ndarray, " N"],
    rest: Float[np.ndarray, " N"],
    memory: float,
    listed: Listed,
    expired: Callable[[float], bool] = lambda ahead: False,
) -> PlanTable:
    """The plans of the tasks kept on a tree, after which no more than `rest` is to come or is lost.

    **Arguments:** `lower`, `upper`, `rest` (N,): of every task, unnormalised; `memory`: bytes for
    the tree; `listed`: the problem, whose depth is how many rounds it has at any rate; `expired`:
    whether it is to have no more, if so many seconds are still needed for what it has.
    """
    closed = Closed(listed, tasks) if listed.lasting else None
    writer = _Writer(Plans(plan, tasks, lower, upper, closed))
    return writer.write(rest, memory, max(1, listed.depth), expired)


def write_finite(
    plan: AbstractEndless,
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
    writer = _Writer(Plans(plan, tasks, lower, upper))
    for following in reversed(range(structure.horizon + 1)):
        try:
            return writer.write_all(structure, memory, following)
        except MemoryError:
            if following == 0:
                raise
    raise MemoryError("no plan has any round")


class _Pace:
    """Seconds that rounds take: to find nodes, and to number what plans do there, an entry.

    As the last ones did; `found`: seconds in which all were found.
    """

    def __init__(self):
        self.finding, self.numbering, self.found = 0.0, 0.0, 0.0

    def ahead(self, waiting: int, latest: Sequence[Entries]) -> float:
        """Seconds of what is left to do, if another round is written out first.

        **Arguments:** `waiting`: entries not numbered yet; `latest`: those of the last two rounds.
        """
        before, now = len(latest[0].node), len(latest[-1].node)
        more = now * max(1.0, now / before)
        found = self.finding * more
        return found + self.numbering * (waiting + more) + _OVER * (self.found + found)


def _share(began: float, entries: int, before: float) -> float:
    """Seconds since then, an entry; as before where there is none."""
    return (time.monotonic() - began) / entries if entries else before


class _Writer:
    def __init__(self, plans: Plans):
        self.plans, self.plan = plans, plans.plan
        self.structure, self.closed = plans.structure, plans.closed
        self.column, self.digit, self.offset = self.plan.columns
        self.kept, self.root = self.plans.kept, self.plans.root

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
                raise MemoryError(f"round {t + 1} of a plan has {len(here.memory)} nodes")
            if t < horizon - 1:
                after, child, reached = self._next(here, at)
                children.append(child)
                rounds.append(after)
                entries.append(reached)
        children.append(np.zeros((len(rounds[-1].memory), structure.controls, 0), np.int32))
        numbers = self.plans.numbers(rounds, entries)
        found = self.plans.table(rounds, entries, children, numbers, structure)
        assert found.tree is not None
        layers = tuple(
            layer._replace(memory=layer.memory - np.int32(first))
            for layer, first in zip(found.tree.layers, start, strict=True)
        )
        return dataclasses.replace(found, tree=Tree(layers, structure))

    def _settled(self, at: Entries) -> Entries:
        """The same entries, from here on with the control that is best kept."""
        keep = np.where(at.pair > 0, self.plan.keeps(at.pair), at.keep)
        return at._replace(pair=np.zeros_like(at.pair), keep=keep)

    def _first(self) -> Round:
        first, points = np.zeros(1, np.int32), self.root.shape[1]
        size = None if self.offset is None else np.zeros(1)
        words, ones = np.zeros((1, self.digit.shape[1]), np.int64), np.ones((1, points))
        return Round(words, np.zeros(1, bool), first, first, first - 1, ones, size)

    def _top(self) -> Entries:
        """Every plan at its root."""
        top, keep = self.plan.tops(self.kept)
        every = np.arange(len(self.kept))
        return Entries(0 * every, every, top, keep, np.ones(len(every)))

    def _bytes(self, here: Round, at: Entries) -> float:
        """Bytes of a round, while it is written and solved."""
        each = 8.0 * (2 * self.root.shape[1] + self.structure.controls * self.structure.symbols)
        return (each + 16.0 * len(self.kept)) * len(here.memory) + 48.0 * len(at.node)

    def write(
        self,
        rest: Float[np.ndarray, " N"],
        memory: float,
        least: int,
        expired: Callable[[float], bool],
    ) -> PlanTable:
        """See `write_rounds`."""
        structure = self.structure
        rounds, entries = [self._first()], [self._top()]
        children: list[np.ndarray] = []
        used, looked, ends, met = 0.0, least - 1, np.zeros(least - 1, bool), False
        numbers: list[Numbers] = []
        numbered, pace = 0, _Pace()
        while True:
            here, at = rounds[-1], entries[-1]
            used += self._bytes(here, at)
            way = self._only_way(here, at)
            most = _MOST_ROUNDS if way is None else _MOST_ALONE
            last = len(rounds) >= most or used * structure.symbols > memory
            waiting = sum(len(one.node) for one in entries[numbered:])
            last |= expired(pace.ahead(waiting, entries[-2:]))
            last &= len(rounds) >= least
            more = TOGETHER if way is None else max(TOGETHER, len(rounds) // 2)
            due = last or len(at.node) > FEW or len(rounds) - looked >= more
            if due:
                began = time.monotonic()
                numbers += self.plans.numbers(rounds[numbered:], entries[numbered:])
                numbered, pace.numbering = len(rounds), _share(began, waiting, pace.numbering)
            if due and len(rounds) > looked:
                left, more_ends = self.plans.left(rounds[looked:], entries[looked:])
                enough = np.flatnonzero((left <= rest[self.kept]).all(axis=1))
                ends = np.append(ends, more_ends)
                met = len(enough) > 0
                ends = ends[: looked + int(enough[0]) + 1] if met else ends
                looked, last = len(rounds), last or met
            if last:
                break
            if way is not None and len(rounds) < _MOST_ALONE - more:
                following = self._again(here, *way, more)
                children += following[0]
                rounds += following[1]
                again = self._again_at(at)
                keep = self.plans.control(at)
                entries += [at._replace(pair=np.where(again, at.pair, 0), keep=keep)] * more
                used += more * self._bytes(here, at)
                continue
            began = time.monotonic()
            following, child, after = self._next(here, at)
            pace.finding = _share(began, len(after.node), pace.finding)
            pace.found += time.monotonic() - began
            children.append(child)
            rounds.append(following)
            entries.append(after)
        if not met and ends.any():  # as much as may be was written out
            ends = ends[: np.flatnonzero(ends)[-1] + 1]
        count = len(ends)
        rounds, entries, children = rounds[:count], entries[:count], children[: count - 1]
        children.append(np.zeros((len(rounds[-1].memory), structure.controls, 0), np.int32))
        written, last = unroll(structure, count), None
        if self.closed is not None and ends[-1]:
            written, last = self.closed.last(count, np.unique(rounds[-1].memory))
        return self.plans.table(rounds, entries, children, numbers, written, last)

    def _next(self, here: Round, at: Entries) -> tuple[Round, np.ndarray, Entries]:
        """Nodes after every control taken and symbol, where they are, and the plans there."""
        structure, column_of, offset = self.structure, self.column, self.offset
        symbols, controls = structure.symbols, structure.controls
        control = self.plans.control(at)
        ways, which = distinct(at.node * controls + control)[1:]
        source, taken = np.divmod(ways, controls)
        memory = here.memory[source]
        column = structure.columns[structure.edge[0][memory, taken]].ravel().astype(np.int64)
        after = np.repeat(structure.successor[0][memory, taken], symbols)
        source = np.repeat(source, symbols)
        dead = here.dead[source] | (column == structure.dead)
        with np.errstate(over="ignore"):
            words = np.where(dead[:, None], 0, here.words[source] + self.digit[column])
        first, index = places(after, dead, words)
        origin, seen = source[first], column[first]
        row = here.row[origin] * column_of[seen]
        row[dead[first]] = 0.0
        size = None
        if here.size is not None and offset is not None:
            size = here.size[origin] + offset[seen]
        ways_in = origin.astype(np.int32), seen.astype(np.int32)
        following = Round(words[first], dead[first], after[first], *ways_in, row, size)
        child = np.full((len(here.memory), controls, symbols), -1, np.int32)
        child[source, np.repeat(taken, symbols), np.tile(np.arange(symbols), len(ways))] = index
        # Where a plan goes on: the pair that follows, or what it keeps for ever.
        spot = index.reshape(-1, symbols)[which]
        pair, keep = self.plan.onward(at.pair, at.keep)
        weight = np.repeat(at.weight, symbols)
        if size is not None and here.size is not None and offset is not None:
            step = here.size[source] + offset[column] - size[index]
            weight = weight * np.exp(step.reshape(-1, symbols)[which]).ravel()
        task = np.repeat(at.task, symbols)
        return (
            following,
            child,
            self._merged(
                following,
                Entries(spot.ravel(), task, pair.ravel(), keep.ravel().astype(np.int64), weight),
            ),
        )

    def _only_way(self, here: Round, at: Entries) -> tuple[int, int] | None:
        """The control and column, where all that follows is one control kept in one class."""
        structure = self.structure
        if structure.symbols > 1 or len(here.memory) > 1:
            return None
        memory, taken = int(here.memory[0]), self.plans.control(at)
        keep = int(taken[0])
        column = int(structure.columns[structure.edge[0][memory, keep], 0])
        stays = structure.successor[0][memory, keep] == memory and column != structure.dead
        leaves = (self.plan.acts(at.pair) >= 0) & ~self._again_at(at)
        return (keep, column) if stays and not leaves.any() and (taken == keep).all() else None

    def _again_at(self, at: Entries) -> Bool[np.ndarray, " k"]:
        """Where a plan comes back to the pair that it is at, after a single symbol."""
        back = self.plan.onward(at.pair, at.keep)[0][:, 0]
        return (self.plan.acts(at.pair) >= 0) & (back == at.pair)

    def _again(self, here: Round, control: int, column: int, count: int):
        """Children and so many rounds that follow from the only way on."""
        times = np.arange(1, count + 1)[:, None]
        child = np.full((1, self.structure.controls, 1), -1, np.int32)
        child[0, control, 0] = 0
        row = np.repeat(self.column[column][None], count + 1, axis=0)
        row[0] = here.row[0]
        row = np.multiply.accumulate(row, axis=0)[1:]
        with np.errstate(over="ignore"):
            words = here.words + times * self.digit[column]
        zero, seen = np.zeros(1, np.int32), np.full(1, column, np.int32)
        size: list[np.ndarray | None] = [None] * count
        if here.size is not None and self.offset is not None:
            size = list(here.size + times * self.offset[column])
        rounds = [
            Round(words[t : t + 1], here.dead, here.memory, zero, seen, row[t : t + 1], size[t])
            for t in range(count)
        ]
        return [child] * count, rounds

    def _merged(self, here: Round, at: Entries) -> Entries:
        """One entry a node and plan: where ways differ in what they keep, what is worth most."""
        key = at.node * len(self.kept) + at.task
        if len(key) == 1 or (np.diff(key) > 0).all():
            return at
        order = np.argsort(key, kind="stable")
        key, pair, keep = key[order], at.pair[order], at.keep[order]
        new = np.diff(key, prepend=-1) > 0
        first, group = np.flatnonzero(new), np.cumsum(new) - 1
        unlike = ~new[1:] & ((pair[1:] != pair[:-1]) | (keep[1:] != keep[:-1]))
        mixed = np.zeros(len(first), bool)
        mixed[group[1:][unlike]] = True
        some = np.flatnonzero(mixed[group])
        if len(some):
            ways = Entries(*(x[order[some]] for x in at))
            low = self.plans.bounds(here, ways)[0]
            order[some] = order[some][np.lexsort((-low, key[some]))]
        weight = np.add.reduceat(at.weight[order], first)
        best = order[first]
        return Entries(at.node[best], at.task[best], at.pair[best], at.keep[best], weight)
