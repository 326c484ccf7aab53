"""The search of one economy over multisets: what is kept of each, and how bounds are improved."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from solvers.search.case_tables import CaseTables
from solvers.tabular import Tabular
from solvers.told.informed import HeardBound, Start
from solvers.told.potentials import ALONE, Potentials

_BATCH = 512
_TURN, _STATE = 1e7, 2e5  # what a turn and a multiset cost beside their multiplications
_SWEEPS = (20, 6, 3, 2)  # of the bound that keeps omega hidden: first those all others begin with
_FEW = 8  # multisets valued at once by one thread: fewer are not worth it
_TRIALS, _HELP = 32, 0.02  # it must close that share of what is open: at first, and of so many
_MATRIX = 2**23  # entries of a product of two rounds that is kept, and of what is made at once
_SHARE = 0.05  # of the most that one multiset leaves open: those that leave less wait


class _Pairs(NamedTuple):
    """Opened pairs: multiset, control, what it yields at once, the multisets that follow."""

    rows: Int[np.ndarray, " P"]
    controls: Int[np.ndarray, " P"]
    now: Float[np.ndarray, " P"]
    after: Int[np.ndarray, "P Z"]


class MultisetSearch:
    """Multisets of (control, symbol) as sorted rows of codes, with bounds of every control.

    Of each: V from above, `most`, the largest of `value` (A,), and from below, `low`, by a plan;
    the multisets that follow its opened controls, `child` (A, Z); whether it was valued here,
    `own`, or taken over from the search this one has `begun` with, of an economy that may do all
    that this one may. What that one reached, `guess`, only says what to open first.
    """

    def __init__(
        self,
        process: Tabular,
        tables: CaseTables,
        belief: np.ndarray,
        period: int,
        begun: "MultisetSearch | None" = None,
        spent: float = 0.0,
    ):
        self.tables, self.begun = tables, begun
        self.pay, self.going, self.told = tables.pay, tables.going, tables.told
        self.column = self.going[:, None] * tables.law
        self.belief, self.period, self.horizon = belief, period, process.horizon
        self.matrices: dict[int, np.ndarray] = {}
        self.heard = HeardBound(self.pay, self.going, tables.law)
        self.informed: dict[int, Start] = {}
        self.tried, self.helped, self.at_first = 0, 0.0, 0.0
        self.spent = spent
        if begun is not None:
            self._take(begun)
            return
        # What can be met under any control of the market, so that economies share multisets.
        law = np.moveaxis(np.asarray(process.law), -1, 1)
        self.met = np.asarray(process.chance)[:, None, -1] * law
        self.met = self.met.reshape(-1, len(self.belief))
        self.index: dict[bytes, int] = {}
        width, (a, z) = self.horizon - period, self.column.shape[:2]
        self.potentials = [Potentials(len(self.belief)) for _ in range(width + 1)]
        self.count, self.taken = 0, 0
        self.codes = np.zeros((_BATCH, width), np.int32)
        self.depth = np.zeros(_BATCH, int)
        self.low, self.most = np.zeros(_BATCH), np.zeros(_BATCH)
        self.own, self.guess = np.zeros(_BATCH, bool), np.zeros(0)
        self.value = np.zeros((_BATCH, a))
        self.child = np.full((_BATCH, a, z), -1, np.int32)
        self.parent = np.zeros(_BATCH, int)
        self.opened: dict[int, list[_Pairs]] = {}
        self._add(np.full((1, width), len(self.met), np.int32), 0, np.zeros(1, int))

    def _take(self, other: "MultisetSearch") -> None:
        """Begin with another economy's multisets and bounds, backed up with what is earned here."""
        at = other.tables.places(self.tables)
        assert at is not None
        self.at = at
        excess = other.tables.excess(self.tables)
        self.met, self.index = other.met, dict(other.index)
        self.potentials = [Potentials(len(self.belief)) for _ in other.potentials]
        self.count = self.taken = other.count
        for name in ("codes", "depth", "parent"):
            self.__dict__[name] = other.__dict__[name][: self.count].copy()
        self.value, self.child = other.value[: self.count, at], other.child[: self.count, at]
        if excess.any():
            self.value += self._sums(np.arange(self.count), excess, self.depth)[:, None]
        self.most = self.value.max(axis=1)
        self.own = np.zeros(self.count, bool)
        self.low, self.guess = np.full(self.count, -np.inf), other.low_or_guess(self.count)
        self.low[0] = self._plan(self.belief[None], self.horizon - self.period)[0]
        place = np.full(len(other.tables.controls), -1)
        place[at] = np.arange(len(at))
        same = (other.pay[at] == self.pay).all(axis=1)
        self.opened = {}
        for depth in sorted(other.opened, reverse=True):
            pairs = _joined(other.opened[depth])
            controls = place[pairs.controls]
            kept = controls >= 0
            pairs = _Pairs(*(x[kept] for x in pairs._replace(controls=controls)))
            new = np.flatnonzero(~same[pairs.controls])
            pairs.now[new] = self._sums(pairs.rows[new], self.pay, pairs.controls[new])
            self.opened[depth] = [pairs]
            self._back_up(depth)

    def _sums(
        self, rows: Int[np.ndarray, " N"], worth: Float[np.ndarray, "K m"], which: np.ndarray
    ) -> Float[np.ndarray, " N"]:
        """<b, worth_k> at multisets, `which` k (N,) for each."""
        found, at = np.zeros(len(rows)), np.flatnonzero(worth.any(axis=0))
        worth, depths = worth[:, at], self.depth[rows]
        for depth in np.unique(depths):
            some = np.flatnonzero(depths == depth)
            for start in range(0, len(some), 4 * _BATCH):
                part = some[start : start + 4 * _BATCH]
                beliefs = self._beliefs(self.codes[rows[part]], int(depth), at)
                found[part] = (beliefs * worth[which[part]]).sum(axis=1)
        return found

    def low_or_guess(self, count: int) -> Float[np.ndarray, " N"]:
        """What is known to be reached at the first multisets, or about: by another economy."""
        low = self.low[:count].copy()
        unknown = np.flatnonzero(np.isneginf(low))
        low[unknown] = self.guess[unknown]
        return low

    def _by_depth(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        depth = self.depth[rows]
        return [(int(k), rows[depth == k]) for k in np.unique(depth)]

    @property
    def upper(self) -> float:
        return float(self.most[0])

    def go(self, work: float, tolerance: float) -> bool:
        """Search until so much is spent in all; False once nothing matters that is open."""
        while self.spent < work:
            if not self.open(tolerance):
                return False
        return True

    def open(self, tolerance: float) -> bool:
        """Open the pairs that matter most; False if none matters."""
        if self.upper - self.low[0] <= tolerance * abs(self.upper):
            return False
        found = self._frontier(0.1 * tolerance * abs(self.upper))
        if not len(found):
            return False
        self.spent += _TURN
        for depth, rows in self._by_depth(found[~self.own[found]]):
            for part in self._parts(len(rows)):
                self._value(rows[part], depth)
        found = found[self.own[found]]
        new = np.array([self._worth_informing(int(row)) for row in found], bool)
        self._inform(found[new])
        found = found[~new]
        if len(found):
            self._children(found, self.value[found].argmax(axis=1))
        for depth in sorted(self.opened, reverse=True):
            self._back_up(depth)
        return True

    def _back_up(self, depth: int) -> None:
        """Bound opened pairs by the multisets that follow, from above and by plans."""
        rows, controls, now, after = pairs = _joined(self.opened[depth])
        self.opened[depth] = [pairs]
        total = now + self.most[after].sum(axis=1)
        less = np.flatnonzero(total < self.value[rows, controls])
        self.value[rows[less], controls[less]] = total[less]
        self.most[rows[less]] = self.value[rows[less]].max(axis=1)
        # A plan for each child makes a plan for the pair.
        sure = now + self.low[after].sum(axis=1)
        more = sure > self.low[rows]
        np.maximum.at(self.low, rows[more], sure[more])

    def _frontier(self, least: float) -> np.ndarray:
        """Multisets met under the best controls whose best control is not opened yet."""
        rows, many = np.zeros(1, int), np.ones(1)
        found, weights, low = [], [], self.low_or_guess(self.count)
        for left in range(self.horizon - self.period, 0, -1):
            best = self.value[rows].argmax(axis=1)
            after = self.child[rows, best]
            # Two rounds before the end all that can be known of a multiset is once it is valued.
            closed = after[:, 0] < 0
            if left <= 2:
                new = ~self.own[rows]
                rows, many, after, closed = rows[new], many[new], after[new], closed[new]
            found.append(rows[closed])
            weights.append(many[closed] * (self.most[rows[closed]] - low[rows[closed]]))
            after, many = after[~closed], many[~closed]
            rows, place = np.unique(after, return_inverse=True)
            many = np.bincount(place.ravel(), np.repeat(many, after.shape[1]), len(rows))
            if not len(rows):
                break
        every, spare = np.concatenate(found), np.concatenate(weights)
        kept = spare > max(least / max(len(every), 1), _SHARE * spare.max(initial=0.0))
        if not kept.any() and (unknown := every[np.isneginf(self.low[every])]).size:
            for depth, some in self._by_depth(unknown):  # no search ends by a guess
                left = self.horizon - self.period - depth
                self.low[some] = self._plan(self._beliefs(self.codes[some], depth), left)
            return self._frontier(least)
        every, spare = every[kept], spare[kept]
        most = max(_BATCH, (self.count - self.taken) // 40)
        return every[np.argsort(-spare, kind="stable")[:most]]

    def _worth_informing(self, row: int) -> bool:
        """Whether the bound with omega hidden may be below, and did help where it was tried."""
        if row in self.informed or self.horizon - self.period - self.depth[row] < 3:
            return False
        if not self.tried:
            return True
        return (self.helped / self.tried if self.tried > _TRIALS else self.at_first) > _HELP

    def _inform(self, rows: np.ndarray) -> None:
        """Bound every control of multisets with omega hidden."""
        effort = np.minimum(self.depth[rows], len(_SWEEPS) - 1)
        for some in (rows[effort == k] for k in np.unique(effort)):
            self._inform_some(some[np.argsort(self.depth[some], kind="stable")])

    def _inform_some(self, rows: np.ndarray) -> None:
        depth = self.depth[rows]
        beliefs = np.concatenate(
            [self._beliefs(self.codes[rows[depth == k]], int(k)) for k in np.unique(depth)]
        )
        mass = beliefs.sum(axis=1, keepdims=True)
        beliefs = beliefs / mass
        start = self._start(rows) if depth[0] else self.heard.begin(beliefs, self.codes.shape[1])
        sweeps = _SWEEPS[min(int(depth[0]), len(_SWEEPS) - 1)]
        found = self.heard.bound(beliefs, start, sweeps, depth)
        self.spent += sweeps * self.heard.work * float((start.price.shape[1] - depth).sum())
        old = self.most[rows]
        self.value[rows] = np.minimum(self.value[rows], mass * found.bound)
        self.most[rows] = self.value[rows].max(axis=1)
        closed = old - self.most[rows]
        helped = closed / np.maximum(old - self.low[rows], np.finfo(float).tiny)
        if not self.tried:
            self.at_first = float(helped[0])
        self.tried, self.helped = self.tried + len(rows), self.helped + float(helped.sum())
        for k, row in enumerate(rows):
            self.informed[int(row)] = Start(*(x[k : k + 1].copy() for x in found.start))
            self.potentials[depth[k] + 1].add(beliefs[k], found.after[k], float(found.price[k]))

    def _start(self, rows: np.ndarray) -> Start:
        """Begin where the nearest multiset ended that led here."""
        found: list[Start] = []
        for row in rows:
            above = int(self.parent[row])
            while (start := self._ended(above)) is None:
                above = int(self.parent[above])
            found.append(start.later(int(self.depth[row] - self.depth[above])))
        return Start(*(np.concatenate(x) for x in zip(*found, strict=True)))

    def _ended(self, row: int) -> Start | None:
        """Where the bound of a multiset ended, here or where this search began."""
        if row in self.informed or self.begun is None:
            return self.informed.get(row)
        start = self.begun._ended(row)
        if start is None:
            return None
        return Start(start.choice[:, :, self.at], start.heard[:, :, self.at], start.price)

    def _children(self, rows: np.ndarray, controls: np.ndarray) -> None:
        """Open pairs: find or make the multisets that their symbols lead to."""
        symbols = self.column.shape[1]
        for depth in np.unique(self.depth[rows]):
            at = self.depth[rows] == depth
            parent, control = rows[at], controls[at]
            codes = np.repeat(self.codes[parent], symbols, axis=0)
            met = self.tables.controls[control][:, None] * symbols + np.arange(symbols)
            codes[:, -1] = met.ravel()
            codes.sort(axis=1)
            keys = [row.tobytes() for row in codes]
            new = {key: i for i, key in enumerate(keys) if key not in self.index}
            if new:
                at = np.array(list(new.values()))
                self._add(codes[at], int(depth) + 1, parent[at // symbols])
            ids = np.array([self.index[key] for key in keys], np.int32)
            self.child[parent, control] = ids.reshape(-1, symbols)
            now, after = self._sums(parent, self.pay, control), self.child[parent, control]
            pairs = _Pairs(parent, control, now, after)
            self.opened.setdefault(int(depth), []).append(pairs)

    def _add(self, codes: np.ndarray, depth: int, parents: np.ndarray) -> None:
        """Value new multisets; `parents`: rows that led to them first."""
        for part in self._parts(len(codes)):
            some, first = codes[part], self.count
            self.index.update({row.tobytes(): first + i for i, row in enumerate(some)})
            self._grow(some, depth, parents[part])
            self._value(np.arange(first, self.count), depth)

    def _parts(self, count: int) -> list[slice]:
        """Of so many multisets, those that are valued at once."""
        size = ALONE // self.pay.size
        size = min(size, 4 * _BATCH) if size >= _FEW else 4 * _BATCH
        return [slice(start, start + size) for start in range(0, count, size)]

    def _value(self, rows: np.ndarray, depth: int) -> None:
        """Bound every control of multisets of one size, and what plans reach."""
        beliefs, known = self._beliefs(self.codes[rows], depth), self.potentials[depth]
        self.spent += len(rows) * (_STATE + float(known.count) * len(self.belief))
        value = beliefs @ self.pay.T
        left = self.horizon - self.period - depth
        if left > 1:
            value += self._ahead(beliefs, depth)
            self.spent += float(len(rows) * self.column.size) * len(self.pay)
        value = np.minimum(value, known.least(beliefs)[:, None])
        self.value[rows] = np.minimum(self.value[rows], value)
        self.most[rows] = self.value[rows].max(axis=1)
        self.low[rows] = np.maximum(self.low[rows], self._plan(beliefs, left))
        self.own[rows] = True

    def _beliefs(
        self, codes: np.ndarray, depth: int, at: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """The start times the columns of what was met, in order of their codes, at some tastes."""
        beliefs, met = np.tile(self.belief[at], (len(codes), 1)), self.met[:, at]
        for k in range(depth):
            beliefs *= met[codes[:, k]]
        return beliefs

    def _grow(self, codes: np.ndarray, depth: int, parent: np.ndarray) -> None:
        """Append rows, of which nothing is known; more room is made when it is short."""
        start, self.count = self.count, self.count + len(codes)
        rows = slice(start, self.count)
        while self.count > len(self.depth):
            for name in ("codes", "depth", "value", "most", "low", "own", "child", "parent"):
                old = self.__dict__[name]
                more = np.zeros((max(_BATCH, len(old) // 2), *old.shape[1:]), old.dtype)
                self.__dict__[name] = np.concatenate([old, more])
        self.codes[rows], self.depth[rows], self.parent[rows] = codes, depth, parent
        self.value[rows], self.low[rows] = np.inf, -np.inf
        self.own[rows], self.child[rows] = False, -1

    def _plan(self, beliefs: np.ndarray, left: int) -> np.ndarray:
        """What the best single control yields, kept to the end."""
        rounds = np.zeros_like(self.going)
        for _ in range(left):
            rounds = 1 + self.going * rounds
        return (beliefs @ (self.pay * rounds).T).max(axis=1)

    def _ahead(self, beliefs: np.ndarray, depth: int) -> Float[np.ndarray, "B A"]:
        """After every control and symbol the best control, then told omega; summed over symbols."""
        (a, z, m), count = self.column.shape, len(beliefs)
        worth = self.pay + self.going * self.told[depth + 2]
        if self.column.size * a <= _MATRIX:
            if depth not in self.matrices:
                self.matrices[depth] = self.column.reshape(-1, m, 1) * worth.T
            best = np.matmul(beliefs, self.matrices[depth]).max(axis=2)
            return best.reshape(a, z, count).sum(axis=1).T
        found, step = np.empty((count, a)), max(1, _MATRIX // (z * beliefs.size))
        for k in range(0, a, step):
            joint = self.column[k : k + step].reshape(-1, 1, m) * beliefs
            best = (joint.reshape(-1, m) @ worth.T).max(axis=1)
            found[:, k : k + step] = best.reshape(-1, z, count).sum(axis=1).T
        return found


def _joined(pairs: list[_Pairs]) -> _Pairs:
    return _Pairs(*(np.concatenate(x) for x in zip(*pairs, strict=True)))
