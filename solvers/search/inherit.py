"""Tasks that are solved once another is: whose plan is theirs, and what it may cost them.

Tasks of one root that may use fewer controls are often solved already. Where the plan found for
one task uses only controls that another may use, with the same yields, and the other may use no
control that the first may not, the first's bounds on W are the other's too, and so is its plan:
leaving out a control that the best plan never takes changes nothing. W and n economies without one
control each then cost W and the few whose control its plan takes. Where the other may earn more
from something, by at most D given the parameter whatever is done,

    W'(b) <= W(b) + <b, D>,    D: what the differences of yields add up to at most, being told,

its bounds are as far apart as those of the first, plus <b, D>: it follows where that is close
enough.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.problem import Structure, Tables, Tasks
from solvers.search.arrays import each_once
from solvers.search.best_first import Search
from solvers.search.endless_plan import used_edges
from solvers.search.forever import one_for_ever, told_for_ever


def _shape(group: Tasks) -> tuple[int, int]:
    roots, width = group.coefficient.shape[:2]
    return roots, width


def each_task(groups: Sequence[Tasks]) -> list[tuple[np.ndarray, ...]]:
    """Root, coefficient, counted and allowed of every task."""
    return [
        (
            np.asarray(group.root[r], float),
            *(np.asarray(x[r, q], float) for x in (group.coefficient, group.counted)),
            np.asarray(group.allowed[r, q], bool),
        )
        for group in groups
        for r, q in np.ndindex(*_shape(group))
    ]


def parents(structure: Structure, tables: Tables, groups: Sequence[Tasks]) -> Int[np.ndarray, " N"]:
    """For each task one that may do all it may do, and earns hardly less; -1 where there is none.

    Only tasks whose plans are kept are looked at: there are few of them; and they earn no less than
    each other.
    """
    reward, first, found = np.asarray(tables.reward, float), 0, [np.zeros(0, np.int64)]
    edge, after = structure.edge[0], structure.successor[0]
    can = (np.asarray(tables.stop) > 0).any(axis=2) & (structure.outcome >= 0)
    for group in groups:
        roots, width = _shape(group)
        order, head = np.arange(width), np.arange(group.keep)
        for r in range(roots):
            allowed, root = np.asarray(group.allowed[r], bool), np.asarray(group.root[r])
            parts = (np.asarray(x[r], float) for x in (group.coefficient, group.counted))
            live = reward[:, (root > 0) | (root.max() <= 0)]
            (coefficient, counted), ends = parts, (live.min(axis=1), live.max(axis=1))
            sets, of = np.unique(allowed, axis=0, return_inverse=True)
            possible = np.zeros((len(sets), structure.outcomes), bool)
            for mine, one in zip(possible, sets, strict=True):
                used = edge[_classes_within(after, one)][:, one]
                mine[structure.outcome[used][can[used]]] = True
            possible = possible[of.reshape(-1)]
            may = np.zeros((width, group.keep), bool)
            beyond = np.zeros((width, group.keep))
            for p in head.tolist():
                within = ~(allowed & ~allowed[p]).any(axis=1)
                more = counted - counted[p]  # whose most is at an end of the rewards
                over = coefficient - coefficient[p] + np.maximum(more * ends[0], more * ends[1])
                beyond[:, p] = np.where(possible, over, 0.0).max(axis=1, initial=0.0)
                may[:, p] = within & ((beyond[:, p] == 0) | (order >= group.keep))
            # Of two that may do the same and earn the same the first is the parent.
            both = may[: group.keep] & may[: group.keep].T
            may[: group.keep] &= ~both | (head[None] < head[:, None])
            may &= order[:, None] != head[None]
            least = np.where(may, beyond, np.inf)
            near = may & (least <= least.min(axis=1, keepdims=True))
            best = np.where(near, allowed[head].sum(axis=1), -1).argmax(axis=1)
            found.append(np.where(may.any(axis=1), best + first, -1))
            first += width
    return np.concatenate(found)


def excesses(
    search: Search, flat: list[tuple[np.ndarray, ...]], parent: Int[np.ndarray, " F"]
) -> list[np.ndarray]:
    """D of each task over its parent, from each memory class on, (M, m); see the module."""
    nothing = np.zeros((len(search.structure.edge[0]), search.store.column.shape[1]))
    found = [nothing] * len(flat)
    for q in np.flatnonzero(parent >= 0).tolist():
        own, other = (search.yields(*flat[k][1:3]) for k in (q, parent[q]))
        over = np.where(flat[q][0] > 0, np.maximum(own - other, 0.0), 0.0)
        if over.any():
            kept = one_for_ever(search.structure, over, search.going)
            found[q] = told_for_ever(search.structure, over, search.going, kept, flat[q][3])
    return found


def _classes_within(
    after: Int[np.ndarray, "M A"], allowed: Bool[np.ndarray, " A"]
) -> Bool[np.ndarray, " M"]:
    """Classes that can be reached, from the first one on, with these controls."""
    reached = np.zeros(len(after), bool)
    fresh = np.zeros(1, np.int64)
    while len(fresh):
        reached[fresh] = True
        following = each_once(after[fresh][:, allowed])
        fresh = following[~reached[following]]
    return reached


def inherit(
    search: Search,
    flat: list[tuple[np.ndarray, ...]],
    parent: Int[np.ndarray, " F"],
    economy: Int[np.ndarray, " F"],
    more: Float[np.ndarray, " F"],
    asked: tuple[float, float, Float[np.ndarray, " F"]],
) -> Int[np.ndarray, " k"]:
    """Give tasks the economy of their parent where its plan is theirs; which to search next.

    **Arguments:** `more`: what W may be above the parent's; `asked`: tolerance, share of W, and
    what is close enough to each task, unnormalised.
    """
    known: dict[int, tuple[Bool[np.ndarray, " E"], Bool[np.ndarray, " A"]]] = {}
    pairs = search.pairs
    edges = search.structure.edge[0]
    due = np.zeros(len(economy), bool)
    left = np.flatnonzero((economy < 0) & (parent >= 0))
    while len(left):
        for q in left[economy[parent[left]] >= 0].tolist():
            above = int(economy[parent[q]])
            if above not in known:
                used = used_edges(search, search.top[above])
                known[above] = used, np.array([used[of].any() for of in edges.T])
            root, coefficient, counted, allowed = flat[q]
            used, controls = known[above]
            yields = search.yields(coefficient, counted)
            same = (yields == search.economies[above].yields)[used][:, root > 0].all()
            high, low = pairs["upper"][search.top[above]], pairs["lower"][search.top[above]]
            enough = max(asked[0] * root.sum(), asked[1] * abs(high), asked[2][q])
            wide = more[q] > 0 and high + more[q] - low > enough
            due[q] = not same or (controls & ~allowed).any() or wide
            economy[q] = economy[q] if due[q] else above
        before, left = len(left), np.flatnonzero((economy < 0) & (parent >= 0) & ~due)
        if len(left) == before:
            break
    return np.flatnonzero(due)
