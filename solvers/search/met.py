"""Economies at the nodes of one store: bounds where they are met, and what follows once opened.

A *pair* is an economy at a node. Its bounds, when it is met, are one control for ever and being
told the parameter (`solvers.search.forever`), or what was found for an economy that may do more.
Opened, it has what every control yields and may lead to; backed up, the best of that.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.devices import spread_runs
from solvers.problem import Structure, Tables
from solvers.search.arrays import Growing, Indices, each_once, firsts
from solvers.search.economy import Economy
from solvers.search.forever import going_on, one_for_ever, round_yields, told_for_ever
from solvers.search.store import Store
from solvers.search.ways import Ways

_CELLS = 4e6  # numbers of likelihoods at once
_RUN = 1024  # nodes at once, on any mesh: sums keep their order
_WORTH = 1e7  # products that are worth a thread of their own


class Met:
    """Bounds and plans of economies on one store.

    `pairs`: an economy at a node: `upper`, `lower`, `mass`; `place`, its row in `opened`, or -1;
    `act`: the control of its plan, or -1 where `keep` is kept for ever. `opened`: `pay` (A,),
    `option` (A,): bounds above by control; `child` (A, Z): pairs that follow, -1 if not followed.
    Pair 0 stands for an impossible belief. `related`: whether beliefs can come back to themselves.
    `mesh`: devices over which the contractions of nodes are spread, in runs of one length on any.
    """

    def __init__(self, structure: Structure, tables: Tables, mesh: jax.sharding.Mesh | None = None):
        self.structure, self.tables, self.dead = structure, tables, structure.dead
        self.mesh = mesh
        self.store = Store(structure, tables)
        self.going = going_on(structure, tables)
        controls, symbols = structure.controls, structure.symbols
        self.pairs = Growing(
            node=np.int32(0), task=np.int32(0), upper=0.0, lower=0.0, mass=0.0, slack=0.0,
            place=np.int32(0), act=np.int16(0), keep=np.int16(0),
        )  # fmt: skip
        child = np.zeros((controls, symbols), np.int32)
        self.opened = Growing(pay=np.zeros(controls), option=np.zeros(controls), child=child)
        self.pairs.append(1, place=-1, act=-1, keep=controls - 1)
        self.economies: list[Economy] = []
        self.top: list[int] = []
        self.pair_of: list[np.ndarray] = []
        self._kept: dict[bytes, tuple[Any, ...]] = {}
        self._yields: dict[bytes, np.ndarray] = {}
        alive = np.asarray((self.going > 0).any(axis=1))[structure.edge[0]]
        source, control = np.nonzero(alive)
        target = structure.successor[0][source, control]
        self.final = np.asarray(~alive.any(axis=1))
        self.last_but_one = ~self.final & self.final[structure.successor[0]].all(axis=1)
        ways = Ways(source, target, np.ones(len(source)))
        again = (source == target).any() or ways.circular(len(structure.edge[0]))
        self.related = self.store.offset is not None and bool(again)

    @property
    def bytes(self) -> int:
        known = self.store.bytes + self.pairs.bytes + self.opened.bytes
        return known + sum(table.nbytes for table in self.pair_of)

    def yields(self, coefficient: np.ndarray, counted: np.ndarray) -> Float[np.ndarray, "E m"]:
        """What a round yields at each edge; found once for tasks with the same weights."""
        key = coefficient.tobytes() + counted.tobytes()
        if key not in self._yields:
            self._yields[key] = round_yields(self.structure, self.tables, coefficient, counted)
        return self._yields[key]

    def _for_ever(self, coefficient: np.ndarray, counted: np.ndarray):
        """What a round yields, and each control kept for ever; found once, as `yields`."""
        key = coefficient.tobytes() + counted.tobytes()
        if key not in self._kept:
            yields = self.yields(coefficient, counted)
            self._kept[key] = yields, one_for_ever(self.structure, yields, self.going)
        return self._kept[key]

    def first_due(
        self, tasks: Sequence[tuple[np.ndarray, ...]], parent: Int[np.ndarray, " F"]
    ) -> Indices:
        """Tasks that have to be searched before it is known which others have to be.

        Those without a parent; and, where ways do not branch, those that differ from it in the
        control that it would keep to begin with: its plan is hardly theirs, and there a step of a
        search costs little more for several tasks than for one.

        **Arguments:** `tasks`: root, coefficient, counted, allowed of each; `parent`: -1 for none.
        """
        due = np.flatnonzero(parent < 0)
        if self.structure.symbols > 1 or self.store.offset is not None:
            return due
        found = [due]
        for p in due.tolist():
            root, coefficient, counted, allowed = tasks[p]
            yields, kept = self._for_ever(coefficient, counted)
            keep = int(np.where(allowed, kept[:, 0] @ root, -np.inf).argmax())
            edge = self.structure.edge[0][0, keep]
            for q in np.flatnonzero(parent == p).tolist():
                same = (self.yields(*tasks[q][1:3])[edge] == yields[edge])[root > 0].all()
                if not (same and tasks[q][3][keep]):
                    found.append(np.array([q]))
        return np.sort(np.concatenate(found))

    def add(
        self,
        root: np.ndarray,
        coefficient: np.ndarray,
        counted: np.ndarray,
        allowed: np.ndarray,
        above: int = -1,
        excess: np.ndarray | None = None,
    ) -> int:
        """Add an economy; its number. Nothing is searched.

        **Arguments:** `above`: an economy of the same root that may do all that this one may: what
        bounds it from above bounds this one, plus the belief times `excess` (M, m). -1: none.
        """
        yields, kept = self._for_ever(coefficient, counted)
        told = told_for_ever(self.structure, yields, self.going, kept, allowed)
        one = Economy(self.structure, root, yields, kept, told, allowed, above, excess)
        if above >= 0:
            one.alike = (yields == self.economies[above].yields)[:, root > 0].all(axis=1)
        self.economies.append(one)
        self.pair_of.append(np.full(64, -1, np.int32))
        number = len(self.economies) - 1
        self.top.append(int(self._seek(np.array([number]), np.zeros(1, np.int64))[0]))
        return number

    def factor(
        self, parent: np.ndarray, control: np.ndarray, child: np.ndarray
    ) -> Float[np.ndarray, "k Z"]:
        """Belief after each symbol over that of the pair that follows, 0 where it is impossible."""
        if self.store.offset is None:
            return np.ones(child.shape)
        node, symbols = self.pairs["node"], child.shape[1]
        memory = self.store.nodes["memory"][node[parent]]
        column = self.structure.columns[self.structure.edge[0][memory, control]]
        flat = np.repeat(node[parent], symbols), column.ravel(), node[child.ravel()]
        return np.where(child > 0, self.store.ratio(*flat).reshape(child.shape), 0.0)

    def _groups(self, task: Indices, memory: Indices) -> Iterator[tuple[int, int, Indices | slice]]:
        """Positions of each (task, memory class)."""
        if not len(task):
            return
        code = task.astype(np.int64) * len(self.structure.edge[0]) + memory
        if (code == code[0]).all():
            yield int(task[0]), int(memory[0]), slice(None)
            return
        order = np.argsort(code, kind="stable")
        starts = [*np.flatnonzero(firsts(code[order])).tolist(), len(order)]
        for low, high in itertools.pairwise(starts):
            one = order[low:high]
            yield int(task[one[0]]), int(memory[one[0]]), one

    def _seek(self, task: Indices, node: Indices) -> Indices:
        """The pairs of these tasks and nodes; those not met yet get their bounds."""
        memory, tables = self.store.nodes["memory"], []
        groups = list(self._groups(task, memory[node]))
        for q, _, part in groups:
            table = self.pair_of[q]
            if len(table) < self.store.nodes.count:
                more = max(2 * len(table), self.store.nodes.count) - len(table)
                table = self.pair_of[q] = np.concatenate([table, np.full(more, -1, np.int32)])
            nodes = node[part]
            tables.append(each_once(nodes[table[nodes] < 0]))
        met = zip(groups, tables, strict=True)
        bounds = self._contracted(
            [(fresh, self.economies[q].bounding(c)) for (q, c, _), fresh in met]
        )
        found = np.zeros(len(node), np.int64)
        for (q, c, part), fresh, bound in zip(groups, tables, bounds, strict=True):
            self.pair_of[q][fresh] = self._bounded(q, c, fresh, bound)
            found[part] = self.pair_of[q][node[part]]
        return found

    def _contracted(
        self, wanted: list[tuple[Int[np.ndarray, " _k"], Float[np.ndarray, "m _F"]]]
    ) -> list[Float[np.ndarray, "_k _F"]]:
        """Likelihoods at nodes times a matrix, of each pair of them."""
        step = max(1, min(_RUN, int(_CELLS / self.store.column.shape[1])))
        if self.mesh is None and all(len(nodes) <= step for nodes, _ in wanted):
            return [self.store.rows(nodes) @ matrix for nodes, matrix in wanted]
        runs = [
            (at, nodes[low : low + step])
            for at, (nodes, _) in enumerate(wanted)
            for low in range(0, len(nodes), step)
        ]
        size = sum(len(nodes) * matrix.size for nodes, matrix in wanted)
        mesh = self.mesh if size > _WORTH else None
        found = [np.empty((len(nodes), matrix.shape[1])) for nodes, matrix in wanted]
        done = [0] * len(wanted)
        parts = spread_runs(
            mesh, lambda run: [self.store.rows(nodes) @ wanted[at][1] for at, nodes in run], runs
        )
        for (at, nodes), part in zip(runs, parts, strict=True):
            found[at][done[at] : done[at] + len(nodes)] = part
            done[at] += len(nodes)
        return found

    def _bounded(
        self, task: int, c: int, fresh: Indices, bound: Float[np.ndarray, "k K3"]
    ) -> Int[np.ndarray, " k"]:
        """Pairs of nodes of one class that a task meets for the first time.

        Bounds above: told the parameter, or those of the economy above.

        **Arguments:** `bound`: likelihoods there times `Economy.bounding`.
        """
        economy = self.economies[task]
        keep = bound[:, 3:].argmax(axis=1)
        below, above = bound[np.arange(len(keep)), 3 + keep], bound[:, 1]
        if self.final[c]:
            above = below
        elif economy.above >= 0:
            table = self.pair_of[economy.above]
            known = fresh < len(table)
            pair = np.where(known, table[np.where(known, fresh, 0)], -1)
            other = self.pairs["upper"][pair] + bound[:, 2]
            above = np.where(pair >= 0, np.minimum(above, other), above)
        return self.pairs.append(
            len(fresh), node=fresh, task=task, upper=np.maximum(above, below), lower=below,
            mass=bound[:, 0], slack=-np.inf, place=-1, act=-1, keep=economy.controls[keep],
        )  # fmt: skip

    def _open(self, tips: Indices) -> None:
        """Contract beliefs at tips with what every control yields and may lead to.

        Where nothing follows what follows, that is exact, and nothing has to be met to know it.
        """
        pairs, nodes = self.pairs, self.store.nodes
        controls, symbols = self.structure.controls, self.structure.symbols
        node, task = pairs["node"][tips], pairs["task"][tips]
        self.store.keep(node)
        total = np.empty((len(tips), controls * (1 + symbols)))
        blocked = np.zeros((len(tips), controls), bool)
        groups = list(self._groups(task, nodes["memory"][node]))
        column = self.store.column
        found = self._contracted(
            [(node[part], self.economies[q].opening(c, column)) for q, c, part in groups]
        )
        for (q, _, part), one in zip(groups, found, strict=True):
            total[part], blocked[part] = one, ~self.economies[q].allowed
        pay = total[:, :controls]
        option = pay + total[:, controls:].reshape(-1, controls, symbols).sum(axis=2)
        option[blocked] = -np.inf
        place = pairs["place"][tips] = self.opened.append(
            len(tips), pay=pay, option=option, child=-1
        )
        for q, c, part in groups:
            if self.last_but_one[c]:
                self._close(q, c, tips[part], place[part])

    def _close(self, task: int, memory: int, tips: Indices, place: Indices) -> None:
        """Look one round ahead at tips after which one round is left; the control taken follows."""
        pairs, opened, one = self.pairs, self.opened, self.economies[task]
        node = pairs["node"][tips]
        same, other = self._taken_above(task, memory, node)
        opened["option"][place[same]] = np.where(
            one.allowed, opened["option"][pairs["place"][other]], -np.inf
        )
        new, left = place[~same], node[~same]
        pay, option, column = opened["pay"][new], opened["option"][new], self.store.column

        def look(run: list[slice]) -> list[np.ndarray]:
            return [
                one.look_ahead(memory, self.store.rows(left[at]), pay[at], option[at], column)
                for at in run
            ]

        runs = [slice(low, low + _RUN) for low in range(0, len(left), _RUN)]
        size = self.structure.symbols * column.shape[1] * len(left)
        found = spread_runs(self.mesh if size > _WORTH else None, look, runs)
        opened["option"][new] = np.concatenate([option[:0], *found])
        ahead = opened["option"][place]
        best = ahead.argmax(axis=1)
        self._follow(tips, place, best)
        pairs["act"][tips] = best
        pairs["upper"][tips] = pairs["lower"][tips] = ahead.max(axis=1)

    def _taken_above(
        self, task: int, memory: int, node: Indices
    ) -> tuple[Bool[np.ndarray, " k"], Int[np.ndarray, " _s"]]:
        """Where the economy above has a plan that is this one's too; its pairs there."""
        pairs, economy = self.pairs, self.economies[task]
        if economy.above < 0 or economy.excess.any():
            return np.zeros(len(node), bool), np.zeros(0, np.int64)
        alike = economy.alike
        table, edges = self.pair_of[economy.above], self.structure.edge[0]
        known = node < len(table)
        pair = np.where(known, table[np.where(known, node, 0)], -1)
        place = np.where(pair >= 0, pairs["place"][pair], -1)
        act = np.where(place >= 0, pairs["act"][pair], -1).astype(int)
        after = self.structure.successor[0][memory, act]
        keep = pairs["keep"][self.opened["child"][place, act]].astype(int)
        shown = economy.allowed[act] & economy.allowed[keep].all(axis=1)
        last = edges[after[:, None], keep]
        alike = alike[edges[memory, act]] & alike[last].all(axis=1)
        same = (act >= 0) & shown & alike
        return same, pair[same]

    def _follow(self, parent: Indices, row: Indices, control: Indices) -> None:
        structure, pairs, symbols = self.structure, self.pairs, self.structure.symbols
        node = pairs["node"][parent]
        memory = self.store.nodes["memory"][node]
        column = structure.columns[structure.edge[0][memory, control]].ravel()
        after = np.repeat(structure.successor[0][memory, control], symbols)
        source, task = np.repeat(node, symbols), np.repeat(pairs["task"][parent], symbols)
        child = np.zeros(len(column), np.int64)
        alive = column != structure.dead
        met = self.store.after(source[alive], column[alive], after[alive])
        child[alive] = self._seek(task[alive], met)
        self.opened["child"][row, control] = child.reshape(-1, symbols)

    def _back_up(self, *steps: Int[np.ndarray, " _k"]) -> None:
        """Bounds of open pairs from those of what follows them, one step after the other.

        No pair is in two steps.
        """
        pairs, opened = self.pairs, self.opened
        high, low, option = pairs["upper"], pairs["lower"], opened["option"]
        every = np.concatenate(steps)
        place = pairs["place"][every]
        followed = opened["child"][place, :, 0] >= 0
        rest = np.where(followed, -np.inf, option[place]).max(axis=1)
        at, control = np.nonzero(followed)
        row, again, factor = place[at], None, None
        child, pay, known = (opened[x][row, control] for x in ("child", "pay", "option"))
        if self.store.offset is not None:  # else every belief is that of its own node
            parent = every[at]
            factor, loop = self.factor(parent, control, child), child == parent[:, None]
            again = 1.0 - np.where(loop, factor, 0.0).sum(axis=1)
            factor = np.where(loop, 0.0, factor)
        first = np.flatnonzero(firsts(at))  # the first way of each pair that has any
        owner, ends = at[first], np.cumsum([0, *map(len, steps)])
        least = followed.any(axis=1)
        ended = every[~least]
        high[ended] = np.maximum(np.minimum(high[ended], rest[~least]), low[ended])
        every, rest = every[owner], rest[owner]
        found, worth, before = np.empty(len(at)), np.empty(len(at)), low[every]
        cuts, groups = (np.searchsorted(x, ends) for x in (at, owner))
        since = first - np.repeat(cuts[:-1], np.diff(groups))
        spans = zip(
            itertools.pairwise(cuts.tolist()), itertools.pairwise(groups.tolist()), strict=True
        )
        for (low_way, high_way), (low_pair, high_pair) in spans:
            ways, mine = slice(low_way, high_way), slice(low_pair, high_pair)
            active, start = every[mine], since[mine]
            if not len(active):
                continue
            above, below = high[child[ways]], low[child[ways]]
            if factor is not None:
                above, below = above * factor[ways], below * factor[ways]
            if above.shape[1] > 1:
                above, below = above.sum(axis=1), below.sum(axis=1)
            above, below = pay[ways] + above.ravel(), pay[ways] + below.ravel()
            if again is not None:
                above, below = above / again[ways], below / again[ways]
            found[ways], worth[ways] = above, below = np.minimum(known[ways], above), below
            lower = np.maximum(np.maximum.reduceat(below, start), low[active])
            upper = np.maximum(np.maximum.reduceat(above, start), rest[mine])
            low[active], high[active] = lower, np.maximum(np.minimum(high[active], upper), lower)
        option[row, control] = found
        count = np.diff(first, append=len(at))
        best = (worth == np.repeat(low[every], count)) & np.repeat(low[every] > before, count)
        best = np.flatnonzero(best)[::-1]  # of equals the lowest, which is written last
        pairs["act"][np.repeat(every, count)[best]] = control[best]
