"""Upper bounds at visited beliefs that agree with each other, where no round is the last.

Whoever goes on with chance q takes 1 / (1 - q) backups to bring a bound down that rests on itself:
beliefs at which one control is kept for long are followed by others much like them. A backup is
dear for the weights w of the beliefs that it interpolates between. But a bound holds whatever the
weights, so they are found once for every belief that follows a visited one, and

    V_i <- min(V_i, max over a of pay(a, b_i) + sum over z of (r_iaz + f_iaz sum_j w_iazj V_j))

is swept over all visited beliefs, one sparse product each, until nothing moves. What is above W
stays above W; a sum is rounded up by more than its terms can be off by, so that sweeps add nothing
to what one backup may be off by.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record
from solvers.points.batches import words
from solvers.points.points import PointSets
from solvers.told.interpolate import NEAR

_SWEEPS, _STILL = 400, 3e-4  # sweeps at most; what moves less, as a share of the tolerance
_TERMS = 8 * np.finfo(float).eps  # of every term of a sum, as a share of the largest value


class Following(Record):
    """Pairs of a visited belief and a control, and what follows them: R beliefs in all.

    - `belief`, `control` (P,): of each pair, beliefs numbered through all classes. `pay` (P, U).
    - `pair` (R,), `bound` (R, U): whose each belief that follows is, and what it is worth at most.
    - `near`, `weight` (R, k); `factor`, `rest` (R, U): of `solvers.told.interpolate`; the bound is
      as large at once as it is where nothing changes.
    """

    belief: Int[np.ndarray, " P"]
    control: Int[np.ndarray, " P"]
    pay: Float[np.ndarray, "P U"]
    pair: Int[np.ndarray, " R"]
    near: Int[np.ndarray, "R k"]
    weight: Float[np.ndarray, "R k"]
    bound: Float[np.ndarray, "R U"]
    factor: Float[np.ndarray, "R U"]
    rest: Float[np.ndarray, "R U"]


def settle_upper(
    sets: PointSets,
    open_: Bool[np.ndarray, " U"],
    tolerance: float,
    memory: float,
    check: Callable[[], None],
    expired: Callable[[], bool],
) -> None:
    """Sweep upper bounds of the tasks that are open, until they move by a share of `tolerance`.

    Nothing is done where what follows visited beliefs does not fit into so many bytes.
    """
    from scipy.sparse import csr_array  # deferred: slow to import

    points = [(m, one) for (_, m), one in sorted(sets.sets.items()) if len(one.belief)]
    first = dict(
        zip([m for m, _ in points], np.cumsum([0, *(len(x.belief) for _, x in points)]).tolist())
    )
    rows = sets.visited() * sets.structure.controls * sets.structure.symbols
    if rows * (2 * NEAR + 4 * sets.tasks) * 8.0 > memory or not open_.any():
        return
    parts = []
    for m, _ in points:
        check()
        if expired():
            return
        parts.append(_following(sets, m, first, open_))
    pairs = np.cumsum([0, *(len(x.belief) for x in parts)])
    belief, control, pay, near, weight, bound, factor, rest = (
        np.concatenate([getattr(x, name) for x in parts])
        for name in ("belief", "control", "pay", "near", "weight", "bound", "factor", "rest")
    )
    pair = np.concatenate([x.pair + low for x, low in zip(parts, pairs, strict=False)])
    visited, ceilings, lower = (
        np.concatenate([x[..., open_] for x in arrays])
        for arrays in zip(*((x.upper, x.ceiling, x.lower) for _, x in points), strict=True)
    )
    row, slot = np.nonzero(weight)
    mix = csr_array((weight[row, slot], (row, near[row, slot])), (len(near), len(visited)))
    add = csr_array((np.ones(len(pair)), (pair, np.arange(len(pair)))), (len(belief), len(pair)))
    ceilings = np.where(np.asarray(sets.flat.allowed[0]).T[:, open_], ceilings, -np.inf)
    for _ in range(_SWEEPS):
        check()
        total = pay + add @ np.minimum(bound, factor * (mix @ visited) + rest)
        ceilings[belief, control] = np.minimum(ceilings[belief, control], total)
        better = np.maximum(np.minimum(visited, ceilings.max(axis=1)), lower)
        moved, visited = float((visited - better).max(initial=0.0)), better
        if moved <= _STILL * tolerance or expired():
            break
    for m, one in points:
        mine = slice(first[m], first[m] + len(one.belief))
        one.settle(open_, visited[mine], ceilings[mine])


def _following(
    sets: PointSets, memory: int, first: dict[int, int], open_: Bool[np.ndarray, " U"]
) -> Following:
    """What follows the visited beliefs of a class, after controls that may be best."""
    here, now = sets.at(0, memory), sets.now(0, memory)[:, open_]
    largest = np.maximum(abs(here.told), abs(here.least)).max(axis=1)[open_]
    (edge, heirs), back = sets.moves(0, memory), sets.again(0, memory)
    column, stays = sets.column[sets.structure.columns[edge]], 1.0 - back.sum(axis=1)
    belief, control = np.nonzero(
        sets.hopeful(0, memory, np.arange(len(here.belief)))[..., open_].any(axis=2)
    )
    pay = np.einsum("pm,pum->pu", here.belief[belief], now[control])
    terms = (column.any(axis=2).sum(axis=1) + 1) * (NEAR + column.shape[2])
    pay += (terms * _TERMS)[control][:, None] * largest  # rounded up
    live = column.any(axis=2) & (back == 0)
    each, kinds = np.zeros((0, len(largest))), np.zeros((0, NEAR), np.int64)
    found = [(np.zeros(0, np.int64), kinds, 0.0 * kinds, each, each, each)]
    for heir in np.unique(heirs).tolist():
        pair, z = np.nonzero(live[control] & (heirs[control] == heir)[:, None])
        if not len(pair):
            continue
        query = here.belief[belief[pair]] * column[control[pair], z]
        query /= stays[control[pair]][:, None]
        where = sets.at(0, heir)
        bound, near, weight, factor, rest = where.made_of(query)
        size = query.sum(axis=1)
        unit = words(query / np.where(size > 0, size, 1.0)[:, None])
        at = np.array([where.place.get(row.tobytes(), -1) for row in unit], np.int64)
        met = np.flatnonzero((at >= 0) & (at < len(where.belief)))
        near[met, 0], weight[met], weight[met, 0] = at[met], 0.0, 1.0
        factor[met], rest[met] = size[met][:, None], 0.0
        made = near + first.get(heir, 0), weight, bound[:, open_], factor[:, open_], rest[:, open_]
        found.append((pair, *made))
    pair, *made = (np.concatenate(x) for x in zip(*found, strict=True))
    return Following(belief + first[memory], control, pay / stays[control][:, None], pair, *made)
