"""Controls that can never be needed: removed by a certificate that holds at every belief.

The setting: what a control r yields and what may follow depend on r alone, not on what was done
before. W_t(b) = max_r Q_t(r, b), where

    Q_t(r, b) = <b, pay_r> + sum_z W_{t+1}(b column_r(z)),

is convex and positively homogeneous in b, hence subadditive: W(x + y) <= W(x) + W(y). Let U be
what a controller gets who is told the parameter and L what the worst plan earns given it, so that
<x, L> <= W(x) <= <x, U> for x >= 0, and W(x) <= W(x + y) - <y, L> for y >= 0. The last control
stands for doing nothing: it is always there.

*Lemma.* Take any weights w_j >= 0 with sum_j w_j = 1, the last control's included, garblings
g_j(z | z') >= 0 with sum_z g_j(z | z') = 1, and let e_j(z) = column_k(z) - sum_z' g_j(z | z')
column_j(z'), split into positive and negative parts. With

    cost_j = sum_z e_j(z)^+ U - e_j(z)^- L,      D = sum_j w_j (pay_j - cost_j) - pay_k,

<b, D> >= 0 implies Q_t(k, b) <= sum_j w_j Q_t(j, b) <= max_j Q_t(j, b).

*Proof.* W(b column_k(z)) <= W(sum_z' g(z | z') b column_j(z')) + <b e^+, U> - <b e^-, L>. By
subadditivity and homogeneity the first term summed over z is at most
sum_z' (sum_z g(z | z')) W(b column_j(z')) = sum_z' W(b column_j(z')). Hence
Q_t(k, b) <= Q_t(j, b) + <b, pay_k - pay_j + cost_j> for each j; average with the weights. QED.

Controls with the same columns cost nothing. D does not depend on t if U and L are those of the
longest time left. It is linear in b: checked on vectors whose conic hull holds every belief (the
unit vectors, if nothing is known), it holds at all.

*Elimination.* Controls are removed one after another, each by weights on controls not removed yet.
Backward in t, W without k equals W: at every belief some control left is as good. Then L, U and
subadditivity still hold (they are facts about the W of before), so the next one may go; chains of
removals end in controls that are kept.

*Variants.* In variant i control i is taken away, or is there and yields nothing. A control may go
in every variant at once if for every i there are weights without i: one mixture of weights, and
for each of its members a mixture without it. pay_k is taken at its most, pay_j at its least over
all coefficients. The last control needs no such spare.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record

_POOL = 96
_LEADERS = 3
_CHUNK = 64
_SAME = 1e-15
ROUNDING = 1e-13


class Mixture(Record):
    """Controls and weights that do at least as well; `margin`: least <b, D> per unit of mass."""

    member: Int[np.ndarray, " k"]
    weight: Float[np.ndarray, " k"]
    margin: float = eqx.field(static=True)


class Removal(Record):
    """A control removed, and its witnesses: whichever control is taken away, one does without it.

    `free`: the first mixture is as good even where the control's own yield does not count.
    """

    control: int = eqx.field(static=True)
    mixtures: tuple[Mixture, ...]
    free: bool = eqx.field(static=True)


class Choices(Record):
    """What A controls yield and what may follow; the last one stands for doing nothing.

    - `low`, `high` (A, m): least and most expected yield of a round, over all coefficients.
    - `column` (A, P, m, Z): chance of going on and observing, in each of P periods.
    - `above`, `below` (m,): U and L of the lemma, for the longest time left.
    - `cone` (g, m): nonnegative vectors, of mass one, whose conic hull holds every belief.
    - `group` (A,): only controls of one group may stand for each other.

    Inequalities hold up to `ROUNDING` of the sizes of the yields compared, entry by entry.
    """

    low: Float[np.ndarray, "A m"]
    high: Float[np.ndarray, "A m"]
    column: Float[np.ndarray, "A P m Z"]
    above: Float[np.ndarray, " m"]
    below: Float[np.ndarray, " m"]
    cone: Float[np.ndarray, "g m"]
    group: Int[np.ndarray, " A"]

    @property
    def slack(self) -> Float[np.ndarray, "A g"]:
        """What comparing a control's yields along the cone with another's may be off by."""
        return ROUNDING * (np.maximum(abs(self.low), abs(self.high)) @ self.cone.T)


def told_ahead(
    low: Float[np.ndarray, "A m"],
    high: Float[np.ndarray, "A m"],
    going: Float[np.ndarray, "A m"],
    rounds: float,
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """U and L with so many rounds left (or infinitely many), yields counted or not."""
    gain, loss = np.maximum(high, 0.0), np.minimum(low, 0.0)
    if rounds == np.inf:
        left = 1 - going
        with np.errstate(divide="ignore", invalid="ignore"):
            above = np.where(left > 0, gain / left, 0.0).max(axis=0)
            below = np.where(left > 0, loss / left, 0.0).min(axis=0)
        return above, below
    above = below = np.zeros(low.shape[1])
    for _ in range(int(rounds)):
        above = (gain + going * above).max(axis=0)
        below = (loss + going * below).min(axis=0)
    return above, below


def eliminate(choices: Choices) -> list[Removal]:
    """Remove, one after another, every control that a certificate is found against.

    **Returns:** the removals in order; each one's witnesses are not removed before it.
    """
    search = _Search(choices)
    needed = search.surely_needed()
    order = np.lexsort((-np.arange(search.count), search.most.max(axis=1)))
    removals: list[Removal] = []
    for k in order[~needed[order]].tolist():
        found = search.remove(k) if len(removals) < search.count - 1 else None
        if found is not None:
            removals.append(found)
    return removals


class _Search:
    """What is still there, and yields along the cone."""

    def __init__(self, choices: Choices):
        self.choices = choices
        self.count = len(choices.low) - 1
        self.active = np.ones(self.count + 1, bool)
        self.least = choices.low @ choices.cone.T  # (A, g)
        self.most = choices.high[:-1] @ choices.cone.T
        self.slack = choices.slack  # (A, g); that of the last control is 0
        self.kind = _kinds(choices.column)

    def surely_needed(self) -> Bool[np.ndarray, " A1"]:
        """Controls that are the only or second best somewhere: no weights without the best do."""
        needed = np.zeros(self.count, bool)
        for group in np.unique(self.choices.group[:-1]):
            here = np.flatnonzero(self.choices.group[:-1] == group)
            padded = np.concatenate([self.least[here], np.full((2, self.least.shape[1]), -np.inf)])
            best = -np.partition(-padded, 2, axis=0)[:3]
            best.sort(axis=0)
            second = np.maximum(best[::-1], self.least[-1])
            own = self.least[here]
            # The second best of the others: skip the control itself if it is among the first two.
            rival = np.where(own >= second[1], second[2], second[1])
            needed[here] = (self.most[here] > rival + self.slack[here]).any(axis=1)
        return needed

    def remove(self, k: int) -> Removal | None:
        """Find witnesses against control k among what is left, and take it away; or None."""
        self.active[k] = False
        found = self._twins(k) or self._mixtures(k)
        if found is None:
            self.active[k] = True
            return None
        return Removal(k, found, self._free(k, found[0]))

    def _twins(self, k: int) -> tuple[Mixture, ...] | None:
        """Two single controls with the same columns that yield at least as much."""
        same = self.active & (self.kind == self.kind[k]) & self._group(k)
        rivals = np.flatnonzero(same)
        apart = self.least[rivals] - self.most[k]
        margin = apart.min(axis=1, initial=np.inf)
        close = (apart >= -(self.slack[rivals] + self.slack[k])).all(axis=1)
        good = np.argsort(np.where(close, -margin, np.inf), kind="stable")[:2]
        good = good[close[good]]
        alone = bool(len(good)) and rivals[good[0]] == self.count
        if len(good) < 2 and not alone:
            return None
        one = np.ones(1)
        return tuple(Mixture(rivals[g : g + 1], one, float(margin[g])) for g in good)

    def _mixtures(self, k: int) -> tuple[Mixture, ...] | None:
        pool = self._pool(k)
        worth = self.least[pool] - self._costs(k, pool) @ self.choices.cone.T
        first = self._solve(k, pool, worth)
        if first is None:
            return None
        risky = first.member[first.member < self.count]
        if not len(risky):
            return (first,)
        apart = self._solve(k, pool, worth, without=risky)
        if apart is not None:
            return (first, apart)
        spare = []
        for i in risky:
            other = self._solve(k, pool, worth, without=np.array([i]))
            if other is None:
                return None
            spare.append(other)
        return (first, *spare)

    def _pool(self, k: int) -> Int[np.ndarray, " p"]:
        """Controls worth trying: those of the same columns, and the leaders along the cone."""
        usable = self.active & self._group(k)
        score = np.where(usable[:, None], self.least, -np.inf)
        leaders = min(_LEADERS + 1, len(score))
        top = np.argpartition(-score, leaders - 1, axis=0)[:leaders]
        votes = np.bincount(top.ravel(), minlength=len(score)).astype(float)
        votes += (
            usable & (self.kind == self.kind[k]) & (self.choices.group == self.choices.group[k])
        )
        votes[-1] = len(votes) + votes.max()
        votes[~usable] = 0.0
        order = np.argsort(-votes, kind="stable")[:_POOL]
        return np.sort(order[votes[order] > 0])

    def _group(self, k: int) -> Bool[np.ndarray, " A"]:
        group = self.choices.group
        return np.append(group[:-1] == group[k], group[-1] == group[k] or group[-1] < 0)

    def _costs(self, k: int, pool: np.ndarray) -> Float[np.ndarray, "p m"]:
        """What it costs that a control of the pool is followed by other symbols than k."""
        c = self.choices
        cost = np.zeros((len(pool), c.low.shape[1]))
        other = np.flatnonzero(self.kind[pool] != self.kind[k])
        mean = c.cone.mean(axis=0)
        for start in range(0, len(other), _CHUNK):
            part = other[start : start + _CHUNK]
            for own, theirs in zip(c.column[k], np.moveaxis(c.column[pool[part]], 1, 0)):
                total = own.sum(axis=1, keepdims=True)
                law = np.divide(
                    own, total, out=np.full_like(own, 1 / own.shape[1]), where=total > 0
                )
                joint = np.einsum("jmy,mz->jyz", mean[:, None] * theirs, law)
                joint += np.finfo(float).tiny
                garbling = joint / joint.sum(axis=2, keepdims=True)
                rest = own - theirs @ garbling
                gap = np.maximum(rest, 0).sum(axis=2) * c.above
                gap -= np.maximum(-rest, 0).sum(axis=2) * c.below
                cost[part] = np.maximum(cost[part], gap)
        return cost

    def _solve(
        self, k: int, pool: np.ndarray, worth: np.ndarray, without: np.ndarray | tuple[()] = ()
    ) -> Mixture | None:
        """The weights with the largest margin, checked; None if none is certified."""
        from scipy.optimize import linprog

        allowed = ~np.isin(pool, without)
        pool, worth = pool[allowed], worth[allowed]
        slack = self.slack[pool] + self.slack[k]
        if not len(pool):
            return None
        target = self.most[k]
        single = (worth - target).min(axis=1)
        close = (worth - target >= -slack).all(axis=1)
        if close.any():
            best = int(np.where(close, single, -np.inf).argmax())
            return Mixture(pool[best : best + 1], np.ones(1), float(single[best]))
        if (worth + slack < target).all(axis=0).any():
            return None
        unit = np.maximum(np.abs(worth).max(axis=0), np.abs(target))
        unit = np.where(unit > 0, unit, 1.0)
        rows = np.concatenate([-(worth / unit).T, np.ones((len(unit), 1))], axis=1)
        found = linprog(
            np.append(np.zeros(len(pool)), -1.0),
            A_ub=rows,
            b_ub=-target / unit,
            A_eq=np.append(np.ones(len(pool)), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * len(pool) + [(None, 1.0)],
            method="highs",
        )
        if found.x is None:
            return None
        weight = np.maximum(found.x[:-1], 0.0)
        weight[weight < 1e-9] = 0.0
        weight /= max(weight.sum(), 1e-300)
        apart = weight @ worth - target
        if (apart < -(weight @ slack)).any():
            return None
        margin = float(apart.min())
        used = np.flatnonzero(weight)
        return Mixture(pool[used], weight[used], margin)

    def _free(self, k: int, first: Mixture) -> bool:
        cost = self._costs(k, first.member) @ self.choices.cone.T
        worth = first.weight @ (self.least[first.member] - cost)
        slack = first.weight @ self.slack[first.member] + self.slack[k]
        return bool((worth >= np.maximum(self.most[k], 0.0) - slack).all())


def _kinds(column: Float[np.ndarray, "A P m Z"]) -> Int[np.ndarray, " A"]:
    """Number controls by their columns: the same number only if they agree bit for bit."""
    flat = np.ascontiguousarray(column.reshape(len(column), -1) + 0.0)
    packed = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
    return np.unique(packed, return_inverse=True)[1].reshape(-1)
