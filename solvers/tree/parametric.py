"""Controls taken as one coefficient sweeps an interval: an exact parametric dynamic program.

Let the coefficient of one outcome be x in [low, high], all others fixed, constant over rounds. By
the Bellman recursion every Q_a(x) is a finite sum of linear terms and of values of the next round,
and W = max_a Q_a: all are convex and piecewise linear in x. So each node's W is carried as a value
and a slope at `low` and a list of kinks (place, jump of slope). Sums merge lists; a maximum adds
the crossings that lie on the upper envelope. Between neighbouring kinks and crossings of a node
the control taken is the same everywhere, so the places themselves and one point between each two
tell every control ever taken, under the solver's own rule for ties (`solvers.ties`; amounts are
those of the x of largest size in the interval).

Guarantee: every control that is best by more than rounding somewhere is found, and so are those
taken at a single x where several are tied. Exact up to rounding; kinks that bend W by less than
1e-14 of its range are dropped.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record
from solvers.problem import Tables
from solvers.ties import Taken, shares, take
from solvers.tree.backward import likelihood_rows
from solvers.tree.tree import Tree, ratios

_ROUND = 1e-14


class Sweep(Record):
    """Controls taken somewhere on the interval in one round, shape (G, N, A).

    `low`, `high`: the widest stretch of x on which the control is taken, NaN where it never is;
    equal where it is taken at single points only.
    """

    low: Float[np.ndarray, "G N A"]
    high: Float[np.ndarray, "G N A"]

    @property
    def taken(self) -> Bool[np.ndarray, "G N A"]:
        """Whether the control is taken anywhere."""
        return ~np.isnan(self.low)


class Swept(Record):
    """What a sweep finds: `rounds`, a `Sweep` each, and `kinks` (G, L) of W at the roots.

    Kinks are where the slope of W changes, increasing, NaN in unused places: between two of them
    the controls that a plan comes to take from its root do not change.
    """

    rounds: tuple[Sweep, ...]
    kinks: Float[np.ndarray, "G L"]


class _Convex(Record):
    """k convex piecewise linear functions on [low, high]; unused kinks have jump 0."""

    value: Float[np.ndarray, " k"]
    slope: Float[np.ndarray, " k"]
    place: Float[np.ndarray, "k L"]
    jump: Float[np.ndarray, "k L"]


class _Lines(Record):
    """Every control's Q at `points` of k nodes; linear between neighbouring points.

    `slope` (k, A, n-1) of the intervals between points; `mass` (k,). `amount` (k, A): see
    `solvers.ties`; `share` of it is what values can be off by, at most `tolerance` (k,) for those
    that can be the best anywhere.
    """

    points: Float[np.ndarray, "k n"]
    value: Float[np.ndarray, "k A n"]
    slope: Float[np.ndarray, "k A n1"]
    mass: Float[np.ndarray, " k"]
    amount: Float[np.ndarray, "k A"]
    tolerance: Float[np.ndarray, " k"]
    share: float = eqx.field(static=True)


def sweep_coefficient(
    tree: Tree,
    tables: Tables,
    root: Float[np.ndarray, "G m"],
    coefficient: Float[np.ndarray, "G n"],
    outcome: int,
    interval: tuple[float, float],
    *,
    cells: int = 4_000_000,
) -> Swept:
    """Find every control taken at every node as the coefficient of `outcome` sweeps `interval`.

    **Arguments:** `root`: unnormalised beliefs; `coefficient`: of all outcomes (that of `outcome`
    is ignored); `cells`: numbers that may live at once in one array.

    **Raises:** `MemoryError` if one node alone needs more than `cells`.
    """
    low, high = (float(x) for x in interval)
    column = np.asarray(tables.column, float)
    column = np.concatenate([column, np.ones((1, column.shape[1]))])
    rows = likelihood_rows(tree, column, len(tree.layers))
    root = np.asarray(root, float)
    fixed = np.array(coefficient, float)
    fixed[:, outcome] = low
    groups, width = len(root), tree.structure.controls
    following = _Convex(np.zeros(0), np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0)))
    structure, larger = tree.structure, max(abs(low), abs(high))
    counts = column.shape[1], structure.horizon, structure.outcome.shape[1]
    room = shares(*counts, structure.symbols, drift=structure.drift)
    found, amounts = [], np.zeros(0)
    for t in reversed(range(len(tree.layers))):
        layer = tree.layers[t]
        kinks = layer.child.shape[2] * following.place.shape[1]
        each = width * max(width * (kinks + 2), tree.structure.outcome.shape[1] * root.shape[1])
        if each > cells:
            raise MemoryError(f"round {t + 1} has nodes with up to {width * kinks} kinks")
        step = max(1, cells // each)
        functions, lows, highs, most = [], [], [], []
        for first in range(0, layer.nodes * groups, step):
            index = np.arange(first, min(first + step, layer.nodes * groups))
            node, group = np.divmod(index, groups)
            belief = np.asarray(rows[t])[layer.likelihood[node]] * root[group]
            edge = tree.structure.edge[t][layer.memory[node]]
            what = tables, structure.outcome, belief, edge, fixed[group], outcome
            now, amount = _stops(*what), _sizes(*what, larger)
            child = layer.child[node].astype(np.int64) * groups + group[:, None, None]
            mass = belief.sum(axis=1)
            share = ratios(tree, t, node)
            if child.shape[2]:
                amount += (amounts[child] * (1.0 if share is None else share)).sum(axis=2)
            lines = _add(now, following, child, share, low, high)
            lines = _refine(lines, mass, amount, room.each[t])
            most.append(lines.tolerance / (2 * room.each[t]))
            functions.append(_maximum(lines))
            below, above = _stretches(lines)
            lows.append(below)
            highs.append(above)
        following, amounts = _join(functions, high), np.concatenate(most)
        shape = (layer.nodes, groups, width)
        found.append(
            Sweep(*(np.concatenate(x).reshape(shape).swapaxes(0, 1) for x in (lows, highs)))
        )
    kinks = np.where(following.jump != 0, following.place, np.nan)
    return Swept(tuple(found[::-1]), kinks)


def _stops(
    tables: Tables,
    outcomes: np.ndarray,
    belief: np.ndarray,
    edge: np.ndarray,
    coefficient: np.ndarray,
    outcome: int,
):
    """Value at `low` and slope of what stopping now yields, (k, A) each."""
    value, slope = np.zeros(edge.shape), np.zeros(edge.shape)
    stop, reward = np.asarray(tables.stop, float), np.asarray(tables.reward, float)
    for a in range(edge.shape[1]):
        for slot in range(outcomes.shape[1]):
            what = outcomes[edge[:, a], slot]
            joint = belief * stop[edge[:, a], slot]
            chance = joint.sum(axis=1)
            value[:, a] += chance * coefficient[np.arange(len(what)), what]
            value[:, a] += (joint * reward[what]).sum(axis=1)
            slope[:, a] += np.where(what == outcome, chance, 0.0)
    return value, slope


def _sizes(
    tables: Tables,
    outcomes: np.ndarray,
    belief: np.ndarray,
    edge: np.ndarray,
    coefficient: np.ndarray,
    outcome: int,
    larger: float,
):
    """Amounts of what stopping now yields, (k, A), where |coefficient| is at most `larger`."""
    size = abs(coefficient)
    size[:, outcome] = larger
    positive = Tables(tables.stop, tables.column, abs(np.asarray(tables.reward, float)))
    return _stops(positive, outcomes, belief, edge, size, outcome)[0]


def _add(
    now: tuple[np.ndarray, np.ndarray],
    following: _Convex,
    child: Int[np.ndarray, "k A Z"],
    share: np.ndarray | None,
    low: float,
    high: float,
):
    """Add what follows: points, values (k, A, n) and slopes (k, A, n-1) of every control.

    `share` (k, A, Z): belief over that of the child, None where all are 1.
    """
    value, slope = now
    count, width, symbols = child.shape
    share = np.ones(child.shape) if share is None else share
    if symbols and following.place.shape[1]:
        place = following.place[child].reshape(count, -1)
        jump = (following.jump[child] * share[..., None]).reshape(count, -1)
        owner = np.repeat(np.arange(width), place.shape[1] // width)
        place, jump, owner = _compact(place, jump, high, np.broadcast_to(owner, place.shape))
    else:
        place = jump = np.zeros((count, 0))
        owner = np.zeros((count, 0), np.int64)
    value = value + (following.value[child] * share).sum(axis=2)
    slope = slope + (following.slope[child] * share).sum(axis=2)
    ends = np.full((2, count, 1), low)
    ends[1] = high
    points = np.concatenate([ends[0], place, ends[1]], axis=1)
    steps = np.where(owner[:, None] == np.arange(width)[:, None], jump[:, None], 0.0)
    slopes = np.cumsum(np.concatenate([slope[:, :, None], steps], axis=2), axis=2)
    rises = slopes * np.diff(points, axis=1)[:, None]
    values = np.cumsum(np.concatenate([value[:, :, None], rises], axis=2), axis=2)
    return points, values, slopes


def _compact(place: np.ndarray, jump: np.ndarray, high: float, owner: np.ndarray):
    """Sort kinks by place, those of jump 0 last, and cut to the most that any function has."""
    live = jump != 0
    order = np.argsort(np.where(live, place, np.inf), axis=1, kind="stable")
    order = order[:, : int(live.sum(axis=1).max(initial=0))]
    live = np.take_along_axis(live, order, axis=1)
    place = np.where(live, np.take_along_axis(place, order, axis=1), high)
    jump = np.where(live, np.take_along_axis(jump, order, axis=1), 0.0)
    return place, jump, np.take_along_axis(owner, order, axis=1)


def _refine(
    sums: tuple[np.ndarray, np.ndarray, np.ndarray],
    mass: np.ndarray,
    amount: np.ndarray,
    error: float,
) -> _Lines:
    """Add the points where two controls cross on the upper envelope."""
    points, values, slopes = sums
    count, width, _ = values.shape
    best = _take(values, amount, error, mass).amount
    assert best is not None
    tolerance = 2 * error * np.asarray(best).max(axis=1)
    rows, xs, heights, intervals = [], [], [], []
    for a in range(width):
        for b in range(a + 1, width):
            gap = values[:, a] - values[:, b]
            left, right = gap[:, :-1], gap[:, 1:]
            apart = np.maximum(np.abs(left), np.abs(right)) > tolerance[:, None]
            row, k = np.nonzero((np.sign(left) * np.sign(right) < 0) & apart)
            share = left[row, k] / (left[row, k] - right[row, k])
            ahead = share * (points[row, k + 1] - points[row, k])
            height = values[row, :, k] + slopes[row, :, k] * ahead[:, None]
            top = height[:, a] >= height.max(axis=1, initial=-np.inf) - tolerance[row]
            rows.append(row[top])
            xs.append((points[row, k] + ahead)[top])
            heights.append(height[top])
            intervals.append(k[top])
    row, x = np.concatenate(rows), np.concatenate(xs)
    height, k = np.concatenate(heights), np.concatenate(intervals)
    order = np.lexsort((x, row))
    row, x, height, k = row[order], x[order], height[order], k[order]
    each = np.bincount(row, minlength=count)
    slot = np.arange(len(row)) - (np.cumsum(each) - each)[row]
    extra = int(each.max(initial=0))
    crossing = np.repeat(points[:, -1:], extra, axis=1)
    crossing[row, slot] = x
    level = np.repeat(values[:, :, -1:], extra, axis=2)
    level[row, :, slot] = height
    last = slopes.shape[2] - 1
    interval = np.full((count, extra), last)
    interval[row, slot] = k
    known = np.minimum(np.arange(points.shape[1]), last)
    interval = np.concatenate([np.broadcast_to(known, points.shape), interval], axis=1)
    points = np.concatenate([points, crossing], axis=1)
    order = np.argsort(points, axis=1, kind="stable")
    interval = np.maximum.accumulate(np.take_along_axis(interval, order, axis=1), axis=1)
    points = np.take_along_axis(points, order, axis=1)
    values = np.concatenate([values, level], axis=2)
    values = np.take_along_axis(values, order[:, None], axis=2)
    slopes = np.take_along_axis(slopes, interval[:, None, :-1], axis=2)
    return _Lines(points, values, slopes, mass, amount, tolerance, error)


def _maximum(lines: _Lines) -> _Convex:
    """Upper envelope of the controls."""
    points = lines.points
    middle = (lines.value[:, :, :-1] + lines.value[:, :, 1:]) / 2
    best = middle.argmax(axis=1)[:, None]
    slope = np.take_along_axis(lines.slope, best, axis=1)[:, 0]
    low, high = points[:, :1], points[:, -1:]
    wide = np.diff(points, axis=1) > _ROUND * np.maximum(np.abs(low), np.abs(high))
    source = np.where(wide, np.arange(wide.shape[1]), -1)
    source = np.maximum.accumulate(source, axis=1)
    source = np.where(source < 0, wide.argmax(axis=1)[:, None], source)
    slope = np.take_along_axis(slope, source, axis=1)
    jump = np.diff(slope, axis=1)
    jump = np.where(np.abs(jump) > _ROUND * lines.mass[:, None], jump, 0.0)
    place, jump, _ = _compact(points[:, 1:-1], jump, float(high[0, 0]), jump)
    return _Convex(lines.value[:, :, 0].max(axis=1), slope[:, 0], place, jump)


def _stretches(lines: _Lines):
    """The widest stretch of x on which each control is taken, (k, A) low and high."""
    points, value, width = lines.points, lines.value, lines.value.shape[1]
    middle = (value[:, :, :-1] + value[:, :, 1:]) / 2
    count, places = points.shape
    control = np.zeros((count, 2 * places - 1), np.int64)
    control[:, ::2], control[:, 1::2] = (
        _take(part, lines.amount, lines.share, lines.mass).choice for part in (value, middle)
    )
    left = np.repeat(points, 2, axis=1)[:, :-1]
    right = np.repeat(points, 2, axis=1)[:, 1:]
    index = np.broadcast_to(np.arange(control.shape[1]), control.shape)
    change = control[:, 1:] != control[:, :-1]
    edge = np.ones((count, 1), bool)
    opens, closes = np.hstack([edge, change]), np.hstack([change, edge])
    start = np.maximum.accumulate(np.where(opens, index, 0), axis=1)
    end = np.where(closes, index, control.shape[1])
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    left = np.take_along_axis(left, start, axis=1)
    right = np.take_along_axis(right, end, axis=1)
    low, high = np.full((2, count, width), np.nan)
    for a in range(width):
        mine = control == a
        widest = np.where(mine, right - left, -1.0).argmax(axis=1)[:, None]
        live = mine.any(axis=1)
        low[live, a] = np.take_along_axis(left, widest, axis=1)[live, 0]
        high[live, a] = np.take_along_axis(right, widest, axis=1)[live, 0]
    return low, high


def _take(value: np.ndarray, amount: np.ndarray, share: float, mass: np.ndarray) -> Taken:
    """What is taken at each point (k, n) of values (k, A, n)."""
    amounts = np.broadcast_to(amount[:, :, None], value.shape)
    total, amounts = (np.moveaxis(x, 1, 0) for x in (value, amounts))
    return take(total, amounts, share, mass[:, None] > 0)


def _join(parts: list[_Convex], high: float) -> _Convex:
    """Concatenate functions, padding their kinks to one length."""
    longest = max(part.place.shape[1] for part in parts)

    def pad(table: np.ndarray, fill: float):
        width = ((0, 0), (0, longest - table.shape[1]))
        return np.pad(table, width, constant_values=fill)

    return _Convex(
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.slope for part in parts]),
        np.concatenate([pad(part.place, high) for part in parts]),
        np.concatenate([pad(part.jump, 0.0) for part in parts]),
    )
