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

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from solvers.search.arrays import each_once, firsts, pieces
from solvers.search.met import Met
from solvers.search.settle import settle
from solvers.search.store import Indices

_AGAIN = 1.25
_LEVELS, _MOST = 3, 1 << 14  # steps of a pass that open pairs, and how many pairs an economy
# Where ways do not branch: tips opened in the first step of all; and, where pairs are few, how
# often what they keep is kept ahead in a step, and how many beliefs are looked at so.
_AT_FIRST, _LANES, _OFTEN, _AHEAD = 16, 64, 48, 512


class Search(Met):
    """Bounds and plans of economies on one store; they grow with every call of `run`."""

    def run(
        self,
        tasks: Indices,
        tolerance: float,
        relative: float = 0.0,
        least: Float[np.ndarray, " k"] | float = 0.0,
        check: Callable[[], object] = lambda: None,
        memory: float = np.inf,
        expired: Callable[[], bool] = lambda: False,
        report: Callable[[int, float], object] = lambda pairs, gap: None,
        keep: Callable[[int, float], object] = lambda width, before: None,
        begun: tuple[int, float] = (1, np.inf),
    ) -> bool:
        """Search until bounds meet within `tolerance` per unit of root mass, for these tasks.

        Or, where `relative` is positive, within this share of the upper bound; or within `least`,
        task by task, unnormalised. `keep` is called before every pass with what `begun` must be to
        go on from there.

        **Returns:** whether they do. **Raises:** `MemoryError`, `TimeoutError` once limits are
        met; bounds and plans are whole then, and whenever `check` raises.
        """
        pairs, top, (width, before) = self.pairs, np.asarray(self.top)[tasks], begun
        while True:
            keep(width, before)
            check()
            gap = pairs["upper"][top] - pairs["lower"][top]
            due = np.maximum(tolerance * pairs["mass"][top], relative * np.abs(pairs["upper"][top]))
            due = np.maximum(due, least)
            open_ = gap > due
            if not open_.any():
                return True
            if self.bytes > memory:
                raise MemoryError(f"{self.store.nodes.count} nodes")
            if expired():
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
            before, width = after, min(2 * width, _MOST)

    def _pass(self, top: Indices, due: Float[np.ndarray, " k"], width: int) -> bool:
        """Go down from these roots, open tips, back up; whether anything was opened."""
        pairs, single = self.pairs, self.structure.symbols == 1 and self.store.offset is None
        pairs["slack"][: pairs.count] = -np.inf
        pairs["slack"][top] = pairs["upper"][top] - pairs["lower"][top] - due
        task = pairs["task"][top]
        width = max(width, _AT_FIRST) if single else width
        rise, margin, tolerance = np.zeros((3, len(self.economies)))
        margin[task] = due
        tolerance[task] = due / np.where(pairs["mass"][top] > 0, pairs["mass"][top], 1.0)
        active, visited, levels, grown, before = top, [], 0, False, self.opened.count
        while len(active):
            spare = pairs["slack"][active] - rise[pairs["task"][active]]
            live = spare > 0
            active, spare = active[live], spare[live]
            tip, waiting = pairs["place"][active] < 0, active[:0]
            if tip.any():
                levels += 1
                if levels > _LEVELS and not single:
                    active, spare = active[~tip], spare[~tip]
                else:
                    active, spare, waiting = self._choose(active, spare, tip, width * len(top))
                    if single:
                        active = self._keep_on(active, spare, rise)
                        spare = pairs["slack"][active] - rise[pairs["task"][active]]
                    self._open(active[pairs["place"][active] < 0])
                    grown = True
            if not len(active):
                break
            visited.append(active)
            ahead = pairs["upper"][active] > pairs["lower"][active]
            active, spare = active[ahead], spare[ahead]
            active, more = self._onward(active, spare, rise, margin, tolerance, single)
            grown |= more
            if single:  # there is one way on, so that what was not chosen is as good as it was
                active, width = each_once(np.concatenate([active, waiting])), min(2 * width, _MOST)
                if self.opened.count - before > _MOST:
                    break
        if single:
            self._back_up(*self._deepest_first(visited))
        for step in () if single else reversed(visited):
            self._back_up(step)
        return grown

    def _deepest_first(self, visited: list[np.ndarray]) -> list[np.ndarray]:
        """Pairs, those after most symbols first."""
        every = each_once(np.concatenate([np.zeros(0, np.int64), *visited]))
        seen = self.store.nodes["seen"][self.pairs["node"][every]]
        order = np.argsort(-seen, kind="stable")
        return pieces(every[order], np.flatnonzero(firsts(seen[order]))[1:].tolist())

    def _choose(self, active: np.ndarray, spare: np.ndarray, tip: np.ndarray, most: int):
        """All that is open already, and the most promising tips; the other tips."""
        waiting = active[:0]
        if tip.sum() > most:
            tips = np.flatnonzero(tip)
            score = np.minimum(spare, self.pairs["upper"][active] - self.pairs["lower"][active])
            tip[tips[np.argpartition(-score[tips], most)[:most]]] = False
            active, spare, waiting = active[~tip], spare[~tip], active[tip]
        return active, spare, waiting

    def _keep_on(
        self, active: np.ndarray, spare: np.ndarray, rise: np.ndarray
    ) -> Int[np.ndarray, " k"]:
        """Pairs, and, if they are few, those met while what they keep is kept and has slack."""
        pairs, edges, store = self.pairs, self.structure.edge[0], self.store
        keep, node = pairs["keep"][active].astype(int), pairs["node"][active]
        memory = store.nodes["memory"][node]
        column = self.structure.columns[edges[memory, keep], 0]
        stays = (self.structure.successor[0][memory, keep] == memory) & (column != self.dead)
        if len(active) > _LANES or not stays.any():
            return active
        at, times = np.flatnonzero(stays), min(_OFTEN, _AHEAD // len(active))
        task, node, memory, keep, column = (
            x[at] for x in (pairs["task"][active], node, memory, keep, column)
        )
        own = [self.economies[q] for q in task.tolist()]
        pays = np.array(
            [one.yields[e] * one.root for one, e in zip(own, edges[memory, keep], strict=True)]
        )
        told = np.array([one.told[c] * one.root for one, c in zip(own, memory, strict=True)])
        rows = np.empty((len(at), times + 1, pays.shape[1]))
        rows[:, 0], rows[:, 1:] = store.rows(node), store.column[column][:, None]
        rows = np.multiply.accumulate(rows, axis=1)
        earned = (rows[:, :-1] @ pays[:, :, None])[:, :, 0].cumsum(axis=1)
        start = (spare[at] - pairs["upper"][active[at]])[:, None] + earned
        slack = start + (rows[:, 1:] @ told[:, :, None])[:, :, 0]
        live = np.logical_and.accumulate(slack > 0, axis=1)
        counts = live.sum(axis=1)
        nodes = store.repeated(node, column, rows[:, 1:], counts)
        chain = self._seek(np.repeat(task, counts), nodes)
        slack = start[live] + pairs["upper"][chain] + rise[np.repeat(task, counts)]
        np.maximum.at(pairs["slack"], chain, slack)
        return each_once(np.concatenate([active, chain]))

    def _onward(
        self,
        active: np.ndarray,
        spare: np.ndarray,
        rise: np.ndarray,
        margin: np.ndarray,
        tolerance: Float[np.ndarray, " F"],
        single: bool,
    ):
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
        gap = pairs["upper"][child] - pairs["lower"][child]
        task, slack = pairs["task"][parent], pairs["slack"]
        bar, known = 0.0, slack[child]
        if single:  # an incumbent below raises the bar for all that is still to come
            old = rise[task]
            np.maximum.at(rise, task, old + pay + below[:, 0] - threshold + margin[task])
            bar = rise[task][:, None]
            own, known = (left + old)[:, None] - bar, known - bar
        else:
            own = np.minimum(left[:, None] / np.where(factor > 0, factor, 1.0), gap)
        wanted = (own > 0) & (gap > tolerance[task][:, None] * pairs["mass"][child])
        wanted &= child != parent[:, None]
        wanted &= own > np.where(known > 0, _AGAIN, 1.0) * known
        reached = child[wanted]
        np.maximum.at(slack, reached, (own + bar)[wanted])
        return each_once(reached), bool(new.any())
