"""Upper bounds without sampling error where the order of what happened does not matter.

Where laws depend neither on the memory nor on the round, a belief is the start times one column
going_a law_a(z) for every control and symbol met, in any order: states are multisets. From the
start, the search follows the controls that look best under the bounds it has,

    Q(b, a) = <b, pay_a> + sum_z V(b going_a law_a(z)),      V(b) = max_a Q(b, a),

where a pair (b, a) that was never opened counts as V^2 of `lookahead` does: one more exact round
and one more symbol, then told omega. That is one matrix product for all controls, symbols and
controls after. In turns, the multisets that the best controls lead to, those first that leave most
open, are bounded with omega hidden (`solvers.told.informed`), then the best pair of each is opened,
and all bounds are backed up. What was found so holds at every belief with as many rounds to go, and
caps each multiset that is met later. Every Q is an upper bound at any time, so the search may stop
whenever it likes; it is exact once nothing reached is open. It prunes as it goes: a control is
followed only while its bound is the largest.
Float64; rounding is of the order of T machine epsilons times the value.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from solvers.host import Record
from solvers.process import AbstractCeiling, Case
from solvers.tabular import Tabular
from solvers.told.informed import HeardBound, Start
from solvers.told.potentials import ALONE, Potentials

_BATCH = 512
_TURN, _STATE = 1e7, 2e5  # what a turn and a multiset cost beside their multiplications
_SWEEPS = (20, 6, 3, 2)  # of the bound that keeps omega hidden: first those all others begin with
_FEW = 8  # multisets valued at once by one thread: fewer are not worth it
_TRIALS, _HELP = 32, 0.02  # it must close that share of what is open: at first, and of so many
_SHARE = 0.05  # of the most that one multiset leaves open: those that leave less wait


class Searched(Record):
    """An upper bound `upper`, the multisets valued, and the largest of them."""

    upper: float
    states: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)


def merged_search(
    process: Tabular,
    case: Case,
    ceiling: AbstractCeiling,
    belief: Float[np.ndarray, " m"],
    work: float,
    period: int = 0,
    tolerance: float = 1e-5,
) -> Searched:
    """Bound the value of one case from above at one belief (unnormalised).

    **Arguments:** `ceiling`: that of `process`; `work`: multiplications allowed; `period`: rounds
    gone by, from 0; `tolerance`: the search ends when the bound is within this share of a value
    that some plan reaches.
    """
    search = _Search(process, case, ceiling, belief, period)
    while search.spent < work and search.open(tolerance):
        pass
    return Searched(search.upper, search.count, int(search.depth[: search.count].max()))


class _Search:
    """Multisets of (control, symbol) as sorted rows of codes, with bounds of every control."""

    def __init__(
        self,
        process: Tabular,
        case: Case,
        ceiling: AbstractCeiling,
        belief: np.ndarray,
        period: int,
    ):
        self.controls = np.flatnonzero(case.allowed)
        worth = np.asarray(case.worth(process.reward))
        ends = np.asarray(process.chance)[self.controls]
        self.going = ends[:, -1]
        self.pay = np.einsum("ajm,jm->am", ends[:, :-1], worth)
        law = np.moveaxis(np.asarray(process.law)[self.controls], -1, 1)
        self.column = self.going[:, None] * law
        self.belief, self.period, self.horizon = np.asarray(belief, float), period, process.horizon
        rounds, memory = range(period, process.horizon + 1), process.start()[None]
        self.told = [ceiling.value(t, memory)[0] for t in rounds]
        self.matrices: dict[int, np.ndarray] = {}
        self.heard = HeardBound(self.pay, self.going, law)
        self.informed: dict[int, Start] = {}
        self.tried, self.helped, self.at_first = 0, 0.0, 0.0
        self.spent, self.index = 0.0, {}
        width, (a, z) = self.horizon - period, self.column.shape[:2]
        self.potentials = [Potentials(len(self.belief)) for _ in range(width + 1)]
        self.count = 0
        self.codes = np.zeros((_BATCH, width), np.int32)
        self.depth = np.zeros(_BATCH, int)
        self.low, self.most = np.zeros(_BATCH), np.zeros(_BATCH)
        self.value, self.now = np.zeros((_BATCH, a)), np.zeros((_BATCH, a))
        self.child = np.full((_BATCH, a, z), -1, np.int32)
        self.parent = np.zeros(_BATCH, int)
        self.opened: dict[int, list[np.ndarray]] = {}
        self._add(np.full((1, width), a * z, np.int32), 0, np.zeros(1, int))

    @property
    def upper(self) -> float:
        return float(self.most[0])

    def open(self, tolerance: float) -> bool:
        """Open the pairs that matter most; False if none matters."""
        if self.upper - self.low[0] <= tolerance * abs(self.upper):
            return False
        found = self._frontier(0.1 * tolerance * abs(self.upper))
        if not len(found):
            return False
        self.spent += _TURN
        new = np.array([self._worth_informing(int(row)) for row in found])
        self._inform(found[new])
        found = found[~new]
        if len(found):
            self._children(found, self.value[found].argmax(axis=1))
        for depth in sorted(self.opened, reverse=True):
            self._back_up(depth)
        return True

    def _back_up(self, depth: int) -> None:
        """Bound opened pairs by the multisets that follow, from above and by plans."""
        pairs = np.concatenate(self.opened[depth])
        self.opened[depth] = [pairs]
        rows, controls, after = pairs[:, 0], pairs[:, 1], pairs[:, 2:]
        now = self.now[rows, controls]
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
        found, excess = [], []
        for _ in range(self.horizon - self.period - 2):
            best = self.value[rows].argmax(axis=1)
            after = self.child[rows, best]
            closed = after[:, 0] < 0
            found.append(rows[closed])
            spare = self.most[rows[closed]] - self.low[rows[closed]]
            excess.append(many[closed] * spare)
            after, many = after[~closed], many[~closed]
            rows, place = np.unique(after, return_inverse=True)
            many = np.bincount(place.ravel(), np.repeat(many, after.shape[1]), len(rows))
            if not len(rows):
                break
        if not found:
            return np.zeros(0, int)
        every, spare = np.concatenate(found), np.concatenate(excess)
        kept = spare > max(least / max(len(every), 1), _SHARE * spare.max(initial=0.0))
        every, spare = every[kept], spare[kept]
        return every[np.argsort(-spare, kind="stable")[: max(_BATCH, self.count // 40)]]

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
            while above not in self.informed:
                above = int(self.parent[above])
            skipped = int(self.depth[row] - self.depth[above])
            found.append(self.informed[above].later(skipped))
        return Start(*(np.concatenate(x) for x in zip(*found, strict=True)))

    def _children(self, rows: np.ndarray, controls: np.ndarray) -> None:
        """Open pairs: find or make the multisets that their symbols lead to."""
        symbols = self.column.shape[1]
        for depth in np.unique(self.depth[rows]):
            at = self.depth[rows] == depth
            parent, control = rows[at], controls[at]
            codes = np.repeat(self.codes[parent], symbols, axis=0)
            codes[:, -1] = (control[:, None] * symbols + np.arange(symbols)).ravel()
            codes.sort(axis=1)
            keys = [row.tobytes() for row in codes]
            new = {key: i for i, key in enumerate(keys) if key not in self.index}
            if new:
                at = np.array(list(new.values()))
                self._add(codes[at], int(depth) + 1, parent[at // symbols])
            ids = np.array([self.index[key] for key in keys], np.int32)
            self.child[parent, control] = ids.reshape(-1, symbols)
            pairs = np.column_stack([parent, control, self.child[parent, control]])
            self.opened.setdefault(int(depth), []).append(pairs)

    def _add(self, codes: np.ndarray, depth: int, parents: np.ndarray) -> None:
        """Value new multisets; `parents`: rows that led to them first."""
        size = ALONE // self.pay.size
        size = min(size, 4 * _BATCH) if size >= _FEW else 4 * _BATCH
        for start in range(0, len(codes), size):
            part = codes[start : start + size]
            first, count = self.count, len(part)
            self.spent += _STATE * count
            self.index.update({row.tobytes(): first + i for i, row in enumerate(part)})
            above, beliefs = parents[start : start + size], self._beliefs(part, depth)
            known = self.potentials[depth]
            self.spent += float(count) * known.count * len(self.belief)
            now = beliefs @ self.pay.T
            left = self.horizon - self.period - depth
            value = now
            if left > 1:
                ahead = np.matmul(beliefs, self._matrix(depth))
                best = ahead.max(axis=2).reshape(*self.column.shape[:2], count)
                value = now + best.sum(axis=1).T
                self.spent += float(ahead.size) * len(self.belief)
            value = np.minimum(value, known.least(beliefs)[:, None])
            fixed = self._plan(beliefs, left)
            self._grow(part, np.full(count, depth), value, fixed, now, above)

    def _beliefs(self, codes: np.ndarray, depth: int) -> np.ndarray:
        """The start times the columns of what was met, in order of their codes."""
        flat = self.column.reshape(-1, len(self.belief))
        beliefs = np.tile(self.belief, (len(codes), 1))
        for k in range(depth):
            beliefs *= flat[codes[:, k]]
        return beliefs

    def _grow(
        self,
        codes: np.ndarray,
        depth: np.ndarray,
        value: np.ndarray,
        low: np.ndarray,
        now: np.ndarray,
        parent: np.ndarray,
    ) -> None:
        """Append rows; room doubles when it is short."""
        start, self.count = self.count, self.count + len(codes)
        rows = slice(start, self.count)
        while self.count > len(self.depth):
            for name in ("codes", "depth", "value", "most", "low", "now", "child", "parent"):
                old = self.__dict__[name]
                self.__dict__[name] = np.concatenate([old, np.full_like(old, -1)])
        self.codes[rows], self.depth[rows], self.value[rows] = codes, depth, value
        self.low[rows], self.now[rows], self.parent[rows] = low, now, parent
        self.most[rows] = value.max(axis=1)

    def _plan(self, beliefs: np.ndarray, left: int) -> np.ndarray:
        """What the best single control yields, kept to the end."""
        rounds = np.zeros_like(self.going)
        for _ in range(left):
            rounds = 1 + self.going * rounds
        return (beliefs @ (self.pay * rounds).T).max(axis=1)

    def _matrix(self, depth: int) -> np.ndarray:
        """(A Z, m, A): a control, a symbol, then a control and told omega."""
        if depth not in self.matrices:
            worth = self.pay + self.going * self.told[depth + 2]
            columns = self.column.reshape(-1, len(self.belief), 1)
            self.matrices[depth] = columns * worth.T
        return self.matrices[depth]
