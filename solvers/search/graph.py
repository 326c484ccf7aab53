"""Nodes that a search on a process has met, and the bounds of every task at them.

A node is a memory (a *place*, `solvers.search.offers`) and the multiset of likelihood columns seen.
Its controls' yields are contracted with its belief once, when it is met; what follows a control
counts at the bounds of the nodes that follow, or, where it is not followed, at the bound after it
that holds at every belief. All tasks share every node and one such bound; up to `OWN` of them
have one of their own besides.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int

from solvers.devices import spread_runs
from solvers.process import AbstractProcess
from solvers.search.nodes import Flat, Nodes
from solvers.search.offers import Offers, Place
from solvers.ties import Taken, shares, take

OWN = 16
_FEW = 64
_BLOCK = 4e7  # bytes of a table of all controls' totals
_DEAD = np.iinfo(np.int64).min


T = TypeVar("T")
# Of nodes and the upper totals, lower totals and amounts of every control there.
Finding = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], T]


class Full(Exception):
    """The memory setting is used up."""


class Graph:
    """Nodes met so far, and the bounds of every task at them.

    **Arguments:** `check`: called where all that is kept is whole, to raise if it is to stop.
    `mesh`: devices over which blocks of a place's nodes are spread.
    """

    def __init__(
        self,
        process: AbstractProcess,
        flat: Flat,
        memory: float,
        check: Callable[[], None] = lambda: None,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.process, self.flat, self.memory, self.check = process, flat, memory, check
        self.mesh = mesh
        self.reward = np.asarray(process.reward, float)
        self.offers = Offers(process, memory / 3)
        self.last = process.horizon - 1
        self.controls = flat.allowed.shape[1]
        self.tasks = [np.flatnonzero(flat.of == r) for r in range(len(flat.root))]
        everything = np.arange(len(flat.of))
        worth = self._worth(everything)
        self.signed = bool((flat.coefficient < 0).any() or (self.reward < 0).any())
        self.offers.variant(0, worth, np.asarray(flat.allowed.any(axis=0)))
        self.own: list[int] = []
        self.epoch = 0
        self.bytes, self.closing, self.ill = 0.0, False, False
        self.nodes: list[dict[int, Nodes]] = [{} for _ in range(process.horizon)]
        self.word = np.zeros((0, 2), np.int64)
        first = self.offers.listed[0][0]
        points = flat.root.shape[1]
        slots = max(self.offers.offer(0, first).outcome.shape[1], len(self.reward))
        self.rounding = shares(points, process.horizon, slots, self.symbols())
        self._add(0, first, np.ones((1, points)), np.zeros((1, 2), np.int64))

    def _worth(self, tasks: np.ndarray) -> Float[np.ndarray, "n m"]:
        """The most that each outcome is worth to any of these tasks."""
        rows = []
        for j, reward in enumerate(self.reward):
            pairs = np.stack([self.flat.coefficient[tasks, j], self.flat.counted[tasks, j]], axis=1)
            x, counted = np.unique(pairs, axis=0).T
            rows.append((x[:, None] + counted[:, None] * reward).max(axis=0))
        return np.stack(rows)

    @property
    def count(self) -> int:
        return sum(nodes.count for part in self.nodes for nodes in part.values())

    def pause(self) -> None:
        """Let the search be stopped here, unless it is closing."""
        if not self.closing:
            self.check()

    def meet(self, t: int, memories: Int[np.ndarray, "k d"]) -> None:
        """Compute what follows memories not met yet in round t, a few at a time."""
        for low in range(0, len(memories), _FEW):
            self.pause()
            self.offers.meet(t, memories[low : low + _FEW])

    def place_nodes(self, t: int, place: Place) -> Nodes:
        if place.number not in self.nodes[t]:
            roots, points = self.flat.root.shape
            tasks, controls = len(self.flat.of), self.controls
            like: dict[str, np.ndarray] = {
                "mass": np.zeros((0, roots)),
                "words": np.zeros((0, 2), np.int64),
                "lower": np.zeros((0, tasks)),
                "upper": np.zeros((0, tasks)),
                "amount": np.zeros((0, tasks)),
                "action": np.zeros((0, tasks), np.int16),
            }
            if t < self.last:
                slots = self.offers.offer(t, place).outcome.shape[1]
                like |= {
                    "belief": np.zeros((0, points)),
                    "stopped": np.zeros((0, roots, controls, slots)),
                    "yielded": np.zeros((0, roots, controls, slots)),
                    "sized": np.zeros((0, roots, controls, slots if self.signed else 0)),
                    "child": np.zeros((0, controls, self.symbols()), np.int32),
                    "shared": np.zeros((0, roots, controls)),
                    "owned": np.zeros((0, OWN, controls)),
                    "checked": np.zeros(0, np.int64),
                    "epoch": np.zeros(0, np.int64),
                }
            self.nodes[t][place.number] = Nodes(**like)
        return self.nodes[t][place.number]

    def symbols(self) -> int:
        first = self.offers.listed[0][0]
        return len(self.offers.columns(0, first, 0))

    def _add(
        self, t: int, place: Place, belief: np.ndarray, words: np.ndarray
    ) -> Int[np.ndarray, " k"]:
        """Find nodes by their words, append those that are new; where they are."""
        nodes = self.place_nodes(t, place)
        keys = [row.tobytes() for row in words]
        fresh = []
        for k, key in enumerate(keys):
            if key not in nodes.number:
                nodes.number[key] = len(nodes.number)
                fresh.append(k)
        if fresh:
            self._append(t, place, nodes, belief[fresh], words[fresh])
        return np.array([nodes.number[key] for key in keys])

    def _append(
        self, t: int, place: Place, nodes: Nodes, belief: np.ndarray, words: np.ndarray
    ) -> None:
        offer = self.offers.offer(t, place)
        stop = offer.stop
        gain = stop * self.reward[offer.outcome]
        features = np.concatenate([stop, gain, abs(gain)] if self.signed else [stop, gain])
        shape = (len(belief), -1, *stop.shape[:2])
        features = features.reshape(-1, stop.shape[2])
        each = [((belief * root) @ features.T).reshape(shape) for root in self.flat.root]
        stopped, yielded, *more = np.moveaxis(np.stack(each, axis=1), 2, 0)
        sized = more[0] if more else yielded[..., :0]
        mass = belief @ self.flat.root.T
        rows = {"mass": mass, "words": words}
        if t == self.last:
            now = self._now(offer.outcome, stopped, yielded)
            size = self._sizes(offer.outcome, stopped, sized, now)
            settled, ill = self._settle(t, now, size, mass)
            rows, self.ill = rows | settled, self.ill or ill
            rows["upper"] = rows["lower"] + self.rounding.now * rows["amount"]
        else:
            tasks = len(self.flat.of)
            rows |= {
                "belief": belief,
                "stopped": stopped,
                "yielded": yielded,
                "sized": sized,
                "amount": np.zeros((len(belief), tasks)),
                "lower": np.full((len(belief), tasks), -np.inf),
                "upper": np.full((len(belief), tasks), np.inf),
                "action": np.full((len(belief), tasks), self.controls - 1, np.int16),
                "child": np.full((len(belief), self.controls, self.symbols()), -1, np.int32),
                "checked": np.full(len(belief), -1),
                "epoch": np.full(len(belief), -1),
                "shared": np.zeros((len(belief), *mass.shape[1:], self.controls)),
                "owned": np.zeros((len(belief), OWN, self.controls)),
            }
        self.bytes += nodes.append(**rows) + 200.0 * len(belief)

    def _now(
        self, outcome: np.ndarray, stopped: np.ndarray, yielded: np.ndarray
    ) -> Float[np.ndarray, "A k F"]:
        """What every control yields at once to every task; -inf where it may not be used."""
        total = self._sum(outcome, stopped, yielded, self.flat.coefficient)
        return np.where(self.flat.allowed.T[:, None], total, -np.inf)

    def _sizes(
        self, outcome: np.ndarray, stopped: np.ndarray, sized: np.ndarray, now: np.ndarray
    ) -> Float[np.ndarray, "A k F"]:
        """Sizes of the terms that `now` adds up: itself, where none is negative."""
        if not self.signed:
            return now
        return self._sum(outcome, stopped, sized, abs(self.flat.coefficient))

    def _sum(
        self, outcome: np.ndarray, stopped: np.ndarray, yielded: np.ndarray, coefficient: np.ndarray
    ) -> Float[np.ndarray, "A k F"]:
        flat = self.flat
        real = (outcome >= 0)[..., None]
        total = np.empty((self.controls, len(stopped), len(flat.of)))
        for r, tasks in enumerate(self.tasks):
            x = np.where(real, np.moveaxis(coefficient[tasks][:, outcome], 0, -1), 0.0)
            counted = np.where(real, np.moveaxis(flat.counted[tasks][:, outcome], 0, -1), 0.0)
            mine = np.matmul(stopped[:, r].swapaxes(0, 1), x)
            total[:, :, tasks] = mine + np.matmul(yielded[:, r].swapaxes(0, 1), counted)
        return total

    def _settle(
        self, t: int, total: np.ndarray, amount: np.ndarray, mass: np.ndarray
    ) -> tuple[dict[str, np.ndarray], bool]:
        """Take the first control tied with the best; the last one at a belief of no mass.

        And whether ties were ill conditioned.
        """
        live = mass[:, self.flat.of] > 0
        share = self.rounding.each[t]
        found: Taken = take(total, amount if self.signed else None, share, live)
        ill = found.ill is not None and bool(found.ill.any())
        most = found.best if found.amount is None else found.amount
        action = np.asarray(found.choice, np.int16)
        rows = {"lower": np.asarray(found.value), "amount": np.asarray(most), "action": action}
        return rows, ill

    def _sync(self, t: int, place: Place, index: np.ndarray) -> None:
        """Bring the bounds after controls up to date at some nodes of a place."""
        nodes, offers = self.nodes[t][place.number], self.offers
        keys = offers.places[t + 1]
        changed = np.array([keys[key].changed if key in keys else 0 for key in place.next])
        renewed = nodes["epoch"][index] != self.epoch
        oldest = nodes["checked"][index[~renewed]].min(initial=offers.clock)
        for which, controls in (
            (index[renewed], np.arange(self.controls)),
            (index[~renewed], np.flatnonzero(changed > oldest)),
        ):
            if not len(which) or not len(controls):
                continue
            going = offers.offer(t, place).going[controls]
            belief = nodes["belief"][which]

            def after(
                variant: int, root: np.ndarray, going: np.ndarray = going,
                belief: np.ndarray = belief, chosen: np.ndarray = controls,
            ) -> np.ndarray:  # fmt: skip
                told = {k: offers.told(t + 1, k, variant) for k in {place.next[a] for a in chosen}}
                later = going * np.stack([told[place.next[a]] for a in chosen])
                return (belief * root) @ later.T

            for r, root in enumerate(self.flat.root):
                nodes["shared"][which[:, None], r, controls] = after(0, root)
            for slot, task in enumerate(self.own):
                mine = after(1 + task, self.flat.root[self.flat.of[task]])
                nodes["owned"][which[:, None], slot, controls] = mine
            nodes["checked"][which] = offers.clock
            nodes["epoch"][which] = self.epoch

    def totals(self, t: int, place: Place, index: np.ndarray, outcome: Int[np.ndarray, "A J"]):
        """Upper (rounded outward) and lower totals of every control and amounts, (A, k, F)."""
        nodes, of, room = self.nodes[t][place.number], self.flat.of, self.rounding
        stopped = nodes["stopped"][index]
        now = self._now(outcome, stopped, nodes["yielded"][index])
        size = self._sizes(outcome, stopped, nodes["sized"][index], now)
        most = now + room.now * size
        after = np.moveaxis(nodes["shared"][index], 2, 0)[:, :, of]
        upper = most + after + room.now * abs(after)
        for slot, task in enumerate(self.own):
            after = nodes["owned"][index, slot].T
            mine = most[:, :, task] + after + room.now * abs(after)
            upper[:, :, task] = np.minimum(upper[:, :, task], mine)
        lower, amount = np.full_like(now, -np.inf), size.copy()
        followed = nodes["child"][index, :, 0] >= 0
        for control in np.flatnonzero(followed.any(axis=0)):
            where = np.flatnonzero(followed[:, control])
            child = nodes["child"][index[where], control]
            heir = self.offers.after(t, place, int(control))
            assert heir is not None
            below = self.nodes[t + 1][heir.number]
            high = below["upper"][child]
            later = high.sum(axis=1) + room.later * abs(high).sum(axis=1)
            upper[control, where] = most[control, where] + later
            lower[control, where] = now[control, where] + below["lower"][child].sum(axis=1)
            amount[control, where] += below["amount"][child].sum(axis=1)
        return upper, lower, amount

    def _blocks(self, index: np.ndarray) -> list[np.ndarray]:
        size = max(1, int(_BLOCK / (8 * self.controls * len(self.flat.of))))
        return [index[k : k + size] for k in range(0, len(index), size)]

    def _each(self, t: int, place: Place, parts: list[np.ndarray], finding: Finding[T]) -> list[T]:
        """What is found of the totals of every block of nodes, which are brought up to date."""
        for part in parts:
            self._sync(t, place, part)
        outcome = self.offers.offer(t, place).outcome

        def run(some: list[np.ndarray]) -> list[T]:
            return [finding(part, *self.totals(t, place, part, outcome)) for part in some]

        return spread_runs(self.mesh, run, parts)

    def hope(
        self, t: int, place: Place, index: np.ndarray, wanted: np.ndarray,
        allowance: np.ndarray | float,
    ):  # fmt: skip
        """The control that attains the upper bound, and where the gap is still too large."""
        nodes, hopes, opens = self.nodes[t][place.number], [], []

        def highest(_: np.ndarray, upper: np.ndarray, lower: np.ndarray, amount: np.ndarray):
            return upper.max(axis=0), upper.argmax(axis=0)

        parts = self._blocks(index)
        found = self._each(t, place, parts, highest)
        for part, (best, control) in zip(parts, found, strict=True):
            nodes["upper"][part] = np.minimum(nodes["upper"][part], best)
            mass = nodes["mass"][part][:, self.flat.of]
            hopes.append(np.where(mass > 0, control, self.controls - 1))
            with np.errstate(invalid="ignore"):
                off = self.rounding.each[t] * (nodes["amount"] + abs(nodes["upper"]))[part]
                gap = nodes["upper"][part] - nodes["lower"][part] - 2 * off
            opens.append(~(gap <= allowance * mass))
        return np.concatenate(hopes), np.concatenate(opens) & wanted

    def follow(self, t: int, place: Place, index: np.ndarray, control: int) -> None:
        """Follow a control at some nodes of a place: find or append what follows."""
        offers, nodes = self.offers, self.nodes[t][place.number]
        self.pause()
        columns = offers.columns(t, place, control)
        while len(self.word) < len(offers.column):
            rng = np.random.default_rng(len(self.word))
            self.word = np.concatenate([self.word, rng.integers(-(2**62), 2**62, (64, 2)) * 2 + 1])
        heir = offers.after(t, place, control)
        assert heir is not None
        if self.bytes + offers.used > (2.0 if self.closing else 0.8) * self.memory:
            raise MemoryError(f"{self.count} nodes") if self.closing else Full
        table = np.stack([offers.column[c] for c in columns])
        live = table.any(axis=1)
        for part in self._blocks(index):
            words = nodes["words"][part][:, None] + self.word[columns]
            words[(nodes["words"][part][:, 0] == _DEAD)[:, None] | ~live] = _DEAD
            belief = nodes["belief"][part][:, None] * table
            shape = (-1, belief.shape[2])
            added = self._add(t + 1, heir, belief.reshape(shape), words.reshape(-1, 2))
            nodes["child"][part, control] = added.reshape(len(part), -1)

    def back_up(self, t: int, place: Place, index: np.ndarray) -> None:
        nodes = self.nodes[t][place.number]

        def settled(part: np.ndarray, upper: np.ndarray, lower: np.ndarray, amount: np.ndarray):
            return *self._settle(t, lower, amount, nodes["mass"][part]), upper.max(axis=0)

        parts = self._blocks(index)
        for part, (rows, ill, high) in zip(
            parts, self._each(t, place, parts, settled), strict=True
        ):
            self.ill |= ill
            for name, row in rows.items():
                nodes[name][part] = row
            best = np.minimum(nodes["upper"][part], high)
            nodes["upper"][part] = np.maximum(best, nodes["lower"][part])

    def evaluate(self) -> None:
        """Back up every node."""
        self.offers.refresh()
        for t in reversed(range(self.last)):
            for number, nodes in self.nodes[t].items():
                self.pause()
                self.back_up(t, self.offers.listed[t][number], np.arange(nodes.count))

    def take(self, tasks: np.ndarray) -> None:
        """Keep own bounds for these tasks, at most OWN, from here on."""
        self.offers.forget([1 + task for task in self.own])
        self.own = tasks[:OWN].tolist()
        self.epoch += 1
        for task in self.own:
            self.keep_own_bounds(task)

    def keep_own_bounds(self, task: int) -> None:
        """Let the offers keep bounds for one task alone."""
        self.offers.variant(1 + task, self._worth(np.array([task])), self.flat.allowed[task])

    def errors(self, t: int, nodes: Nodes) -> Float[np.ndarray, "k F"]:
        """What the plans' values at the nodes of a place can be off by."""
        return self.rounding.each[t] * nodes["amount"]

    def gaps(self) -> Float[np.ndarray, " F"]:
        """Upper minus lower bound of every task at its root, per unit of mass."""
        top = self.nodes[0][0]
        mass = top["mass"][0][self.flat.of]
        low = top["lower"][0]  # -inf before there is a plan: nothing is known from below
        off = np.where(np.isfinite(low), self.errors(0, top)[0], 0.0)
        gap = top["upper"][0] - low + off
        return np.where(mass > 0, gap / np.where(mass > 0, mass, 1), 0.0)
