"""Best-first search without a horizon: one store of nodes, a plan of its own for every task.

The object: a stationary problem (one table of edges serves every round), and tasks, each a root
belief, weights of what is yielded and the controls it may use. At a node met by a task W is held
between L and U: one control for ever and being told the parameter (`solvers.search.forever`), and,
once the node is opened,

    U(b) = max_a  pay(a, b) + sum_z U(b_az),      L(b) = max(L(b), max_a pay(a, b) + sum_z L(b_az)).

A node's *slack* is how much U may fall there before it leaves every plan that could beat the root's
L by more than the tolerance: U - L - tolerance at the root; after control a and symbol z what is
left of it once U is replaced by a's, so that the other symbols count at their U. Nodes of slack
zero are never opened. For a single symbol this is A*, for several AO*: any search with these bounds
opens what is opened here. A pass goes down from the roots along what has slack, opens the most
promising tips of each step (few at first, twice as many each pass: an incumbent comes early, and
passes stay few), and backs up what it met. All tasks of a pass share its every array operation.

In a class that nothing follows one control is all there is: U = L, and nothing is opened. Where all
that follows is such, opening looks a round ahead and is exact. An economy that may do less than
another, and earns no more, is bounded by what was found for the other at the same node.

Beliefs in proportion are one node, so that a control that teaches nothing leads to its own node:
that loop is summed in closed form.

Guarantee: lower <= W <= upper for every task at any time, and a plan that attains lower, for ever.

References: Hart, Nilsson & Raphael (1968); Martelli & Montanari (1978); Smith & Simmons (2004).
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.problem import Structure, Tables
from solvers.search.economy import Economy
from solvers.search.forever import going_on, one_for_ever, round_yields, told_for_ever
from solvers.search.settle import settle
from solvers.search.store import Growing, Indices, Store
from solvers.search.ways import Ways

_AGAIN = 1.25
_LEVELS = 3


class Search:
    """Bounds and plans of economies on one store; grows with every call of `run`.

    `pairs`: an economy at a node: `upper`, `lower`, `mass`; `place`, its row in `opened`, or -1;
    `act`: the control of its plan, or -1 where `keep` is kept for ever. `opened`: `pay` (A,),
    `option` (A,): bounds above by control; `child` (A, Z): pairs that follow, -1 if not followed.
    Pair 0 stands for an impossible belief. `related`: whether beliefs can come back to themselves.
    """

    def __init__(self, structure: Structure, tables: Tables):
        self.structure, self.tables = structure, tables
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
        self._kept: dict[bytes, tuple] = {}
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
        known = self.store.nodes.bytes + self.pairs.bytes + self.opened.bytes
        return known + sum(table.nbytes for table in self.pair_of) + 200 * self.store.nodes.count

    def yields(self, coefficient, counted) -> Float[np.ndarray, "E m"]:
        """What a round yields at each edge; found once for tasks with the same weights."""
        key = coefficient.tobytes() + counted.tobytes()
        if key not in self._yields:
            self._yields[key] = round_yields(self.structure, self.tables, coefficient, counted)
        return self._yields[key]

    def add(self, root, coefficient, counted, allowed, above: int = -1, excess=None) -> int:
        """Add an economy; its number. Nothing is searched.

        **Arguments:** `above`: an economy of the same root that may do all that this one may: what
        bounds it from above bounds this one, plus the belief times `excess` (M, m). -1: none.
        """
        key = coefficient.tobytes() + counted.tobytes()
        if key not in self._kept:
            yields = self.yields(coefficient, counted)
            self._kept[key] = yields, one_for_ever(self.structure, yields, self.going)
        yields, kept = self._kept[key]
        told = told_for_ever(self.structure, yields, self.going, kept, allowed)
        one = Economy(self.structure, root, yields, kept, told, allowed, above, excess)
        if above >= 0:
            one.alike = (yields == self.economies[above].yields)[:, root > 0].all(axis=1)
        self.economies.append(one)
        self.pair_of.append(np.full(64, -1, np.int32))
        number = len(self.economies) - 1
        self.top.append(int(self._seek(np.array([number]), np.zeros(1, np.int64))[0]))
        return number

    def run(
        self,
        tasks: Indices,
        tolerance: float,
        relative: float = 0.0,
        check: Callable[[], object] = lambda: None,
        memory: float = np.inf,
        deadline: float = np.inf,
        report: Callable[[int, float], object] = lambda pairs, gap: None,
        keep: Callable[[int, float], object] = lambda width, before: None,
        begun: tuple[int, float] = (1, np.inf),
    ) -> bool:
        """Search until bounds meet within `tolerance` per unit of root mass, for these tasks.

        Or, where `relative` is positive, within this share of the upper bound. `keep` is called
        before every pass with what `begun` must be to go on from there.

        **Returns:** whether they do. **Raises:** `MemoryError`, `TimeoutError` once limits are
        met; bounds and plans are whole then, and whenever `check` raises.
        """
        pairs, top, (width, before) = self.pairs, np.asarray(self.top)[tasks], begun
        while True:
            keep(width, before)
            check()
            gap = pairs["upper"][top] - pairs["lower"][top]
            due = np.maximum(tolerance * pairs["mass"][top], relative * np.abs(pairs["upper"][top]))
            open_ = gap > due
            if not open_.any():
                return True
            if self.bytes > memory:
                raise MemoryError(f"{self.store.nodes.count} nodes")
            if time.monotonic() > deadline:
                raise TimeoutError
            grown = self._pass(top[open_], due[open_], width)
            if self.related:
                mine = np.zeros(len(self.economies), bool)
                mine[pairs["task"][top[open_]]] = True
                changed = settle(pairs, self.opened, mine, self.factor)
                self._back_up(changed)
            report(self.pairs.count, float(gap.max()))
            after = (pairs["upper"][top] - pairs["lower"][top]).sum()
            if not grown and not after < before:
                return False
            before, width = after, min(2 * width, 1 << 14)

    def _pass(self, top: Indices, due: Float[np.ndarray, " k"], width: int) -> bool:
        """Go down from these roots, open tips, back up; whether anything was opened."""
        pairs, single = self.pairs, self.structure.symbols == 1 and self.store.offset is None
        pairs["slack"][: pairs.count] = -np.inf
        pairs["slack"][top] = pairs["upper"][top] - pairs["lower"][top] - due
        task = pairs["task"][top]
        rise, margin, tolerance = np.zeros((3, len(self.economies)))
        margin[task] = due
        tolerance[task] = due / np.where(pairs["mass"][top] > 0, pairs["mass"][top], 1.0)
        active, visited, levels, grown = top, [], 0, False
        while len(active):
            spare = pairs["slack"][active] - rise[pairs["task"][active]]
            live = spare > 0
            active, spare = active[live], spare[live]
            tip = pairs["place"][active] < 0
            if tip.any():
                levels += 1
                if levels > _LEVELS and not single:
                    active, spare = active[~tip], spare[~tip]
                else:
                    active, spare = self._choose(active, spare, tip, width * len(top))
                    self._open(active[pairs["place"][active] < 0])
                    grown = True
            if not len(active):
                break
            visited.append(active)
            ahead = pairs["upper"][active] > pairs["lower"][active]
            active, spare = active[ahead], spare[ahead]
            active, more = self._onward(active, spare, rise, margin, tolerance, single)
            grown |= more
        for step in reversed(visited):
            self._back_up(step)
        return grown

    def _choose(self, active, spare, tip, most: int):
        """All that is open already, and the most promising tips."""
        if tip.sum() > most:
            tips = np.flatnonzero(tip)
            score = np.minimum(spare, self.pairs["upper"][active] - self.pairs["lower"][active])
            tip[tips[np.argpartition(-score[tips], most)[:most]]] = False
            active, spare = active[~tip], spare[~tip]
        return active, spare

    def _onward(self, active, spare, rise, margin, tolerance, single: bool):
        """Follow what has slack at open pairs; the pairs to go on with, and if any was new."""
        pairs, opened = self.pairs, self.opened
        place = pairs["place"][active]
        room = opened["option"][place] - (pairs["upper"][active] - spare)[:, None]
        at, control = np.nonzero(room > 0)
        row, parent = place[at], active[at]
        new = opened["child"][row, control, 0] < 0
        if new.any():
            self._follow(parent[new], row[new], control[new])
        child = opened["child"][row, control]
        factor = self.factor(parent, control, child)
        above, below = pairs["upper"][child] * factor, pairs["lower"][child] * factor
        pay = opened["pay"][row, control]
        threshold = (pairs["upper"][active] - spare)[at]
        left = np.minimum(room[at, control], pay + above.sum(axis=1) - threshold)
        if single:  # an incumbent below raises the bar for all that is still to come
            task = pairs["task"][parent]
            np.maximum.at(rise, task, rise[task] + pay + below[:, 0] - threshold + margin[task])
        gap = pairs["upper"][child] - pairs["lower"][child]
        own = np.minimum(left[:, None] / np.where(factor > 0, factor, 1.0), gap)
        room = tolerance[pairs["task"][parent]][:, None] * pairs["mass"][child]
        wanted = (own > 0) & (gap > room)
        wanted &= child != parent[:, None]
        slack = pairs["slack"]
        if single:
            own = own + rise[pairs["task"][child]]
        wanted &= own > np.where(slack[child] > 0, _AGAIN, 1.0) * slack[child]
        reached = child[wanted]
        np.maximum.at(slack, reached, own[wanted])
        return np.unique(reached), bool(new.any())

    def factor(self, parent, control, child) -> Float[np.ndarray, "k Z"]:
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
        starts = np.flatnonzero(np.diff(code[order], prepend=-1))
        for one in np.split(order, starts[1:]):
            yield int(task[one[0]]), int(memory[one[0]]), one

    def _seek(self, task: Indices, node: Indices) -> Indices:
        """The pairs of these tasks and nodes; those not met yet get their bounds."""
        found = np.zeros(len(node), np.int64)
        memory, rows = self.store.nodes["memory"], self.store.nodes["row"]
        for q, c, part in self._groups(task, memory[node]):
            table = self.pair_of[q]
            if len(table) < self.store.nodes.count:
                more = max(2 * len(table), self.store.nodes.count) - len(table)
                table = self.pair_of[q] = np.concatenate([table, np.full(more, -1, np.int32)])
            nodes = node[part]
            fresh = nodes[table[nodes] < 0]
            if len(fresh):
                fresh = np.unique(fresh)
                bound = rows[fresh] @ self.economies[q].bounding(c)
                keep = bound[:, 2:].argmax(axis=1)
                below = np.take_along_axis(bound[:, 2:], keep[:, None], 1)[:, 0]
                above = below if self.final[c] else self._above(q, c, fresh, bound[:, 1], below)
                table[fresh] = self.pairs.append(
                    len(fresh), node=fresh, task=q, upper=above, lower=below,
                    mass=bound[:, 0], slack=-np.inf, place=-1, act=-1,
                    keep=self.economies[q].controls[keep],
                )  # fmt: skip
            found[part] = table[nodes]
        return found

    def _above(self, task: int, c: int, fresh: Indices, told, below) -> Float[np.ndarray, " k"]:
        """Bounds above of pairs not met yet: told the parameter, or those of the economy above."""
        economy = self.economies[task]
        other = economy.above
        if other >= 0:
            table = self.pair_of[other]
            known = fresh < len(table)
            pair = np.where(known, table[np.where(known, fresh, 0)], -1)
            bound = self.pairs["upper"][pair] + self.store.nodes["row"][fresh] @ economy.excess[c]
            told = np.where(pair >= 0, np.minimum(told, bound), told)
        return np.maximum(told, below)

    def _open(self, tips: Indices) -> None:
        """Contract beliefs at tips with what every control yields and may lead to.

        Where nothing follows what follows, that is exact, and nothing has to be met to know it.
        """
        pairs, nodes = self.pairs, self.store.nodes
        controls, symbols = self.structure.controls, self.structure.symbols
        node, task = pairs["node"][tips], pairs["task"][tips]
        total = np.empty((len(tips), controls * (1 + symbols)))
        blocked = np.zeros((len(tips), controls), bool)
        for q, c, part in self._groups(task, nodes["memory"][node]):
            total[part] = nodes["row"][node[part]] @ self.economies[q].opening(c, self.store.column)
            blocked[part] = ~self.economies[q].allowed
        pay = total[:, :controls]
        option = pay + total[:, controls:].reshape(-1, controls, symbols).sum(axis=2)
        option[blocked] = -np.inf
        place = pairs["place"][tips] = self.opened.append(
            len(tips), pay=pay, option=option, child=-1
        )
        for q, c, part in self._groups(task, nodes["memory"][node]):
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
        new = place[~same]
        opened["option"][new] = one.look_ahead(
            memory, self.store.nodes["row"][node[~same]], opened["pay"][new],
            opened["option"][new], self.store.column,
        )  # fmt: skip
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

    def _back_up(self, active: Indices) -> None:
        pairs, opened = self.pairs, self.opened
        place = pairs["place"][active]
        at, control = np.nonzero(opened["child"][place][:, :, 0] >= 0)
        row, parent = place[at], active[at]
        child = opened["child"][row, control]
        factor = self.factor(parent, control, child)
        loop = child == parent[:, None]
        again = 1.0 - np.where(loop, factor, 0.0).sum(axis=1)
        factor = np.where(loop, 0.0, factor)
        pay = opened["pay"][row, control]
        above = (pay + (pairs["upper"][child] * factor).sum(axis=1)) / again
        below = (pay + (pairs["lower"][child] * factor).sum(axis=1)) / again
        opened["option"][row, control] = np.minimum(opened["option"][row, control], above)
        upper = opened["option"][place].max(axis=1)
        floor = np.full((len(active), self.structure.controls), -np.inf)
        floor[at, control] = below
        best = floor.argmax(axis=1)
        reached = floor[np.arange(len(active)), best]
        better = reached > pairs["lower"][active]
        lower = np.where(better, reached, pairs["lower"][active])
        pairs["act"][active[better]] = best[better]
        pairs["lower"][active] = lower
        pairs["upper"][active] = np.maximum(np.minimum(pairs["upper"][active], upper), lower)
