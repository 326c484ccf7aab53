"""Passes over beliefs: forward along controls that may be best, and back, the last round first.

Every pass keeps in every round the beliefs that hold most of the gap. In a finite horizon what is
left out is a share of the tolerance. Without one, a belief whose bounds are within a share of the
tolerance, per unit of its mass, is followed no further: what the ways from a root lead to has no
more mass than the root, so that the root's bounds are then as close. Passes go deeper and wider
each time: there is a plan soon, and what is picked next is picked by better bounds. One set serves
all rounds, so that a pass is at a belief once; and as bounds interpolate between beliefs, those of
a round that are near each other are one to it, so that the others lie further apart. From the
second pass on upper bounds are settled after it (`solvers.points.settled`).

A pass goes forward for half of the seconds left at most, for less where the one before took longer
to come back and settle than to go, and comes back from where it is then. After such a one the next
goes no deeper or wider.
"""

import functools
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float

from solvers.checkpoint import States, named, within
from solvers.devices import late
from solvers.host import Record
from solvers.points.batches import distinct, words
from solvers.points.points import PointSets
from solvers.points.settled import settle_upper
from solvers.points.starts import Starts, Wanted
from solvers.progress import Bar
from solvers.search.growing import Passes, as_passes, elapsed
from solvers.solution import Status, close_enough

BELIEFS = 256  # that a pass adds in a round and memory class, where nobody says
_IGNORED = 0.5
_GOING = 0.5  # of a pass's time, at most, that it goes forward
_SAME = 1e-13
# Without a last round: rounds, and beliefs of each, of a first pass; passes that go deeper.
_DEPTH, _WIDTH, _DOUBLINGS = 16, 32, 10
_NEAR = 4e-3  # of a first pass: beliefs so near each other stand for each other; half in each other


@runtime_checkable
class Walking(Protocol):
    """A solver that walks: bytes, seconds, and beliefs that a pass adds, as `PointBased` has."""

    @property
    def memory(self) -> float: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def beliefs(self) -> int: ...


class Pace(Record):
    """So many bytes, seconds and beliefs, of `Walking`."""

    memory: float
    seconds: float | None
    beliefs: int


def improve_points(
    sets: PointSets,
    starts: Starts,
    solver: Walking,
    tolerance: float,
    passes: Passes,
    began: float,
    progress: bool = False,
    check: Callable[[], None] = lambda: None,
    relative: float = 0.0,
    states: States | None = None,
    kind: str = "stage0",
    turn: float | None = None,
) -> Status:
    """Pass over the beliefs that follow `starts` until bounds meet there; why it ended.

    Adds (visited beliefs, seconds, largest gap) of every pass to `passes`. `check` is called
    between backups, to raise if it is to stop. `states`: where what is known is kept, as `kind`.
    `turn`: the seconds after which no other pass begins, None for those of `solver`.
    """
    previous, horizon = np.zeros(0), sets.structure.horizon
    least, going = np.full(sets.tasks, tolerance), _GOING
    states = States(None, "point-based", str) if states is None else states

    def state() -> dict[str, np.ndarray]:
        numbers = {"bounds": previous, "least": least}
        numbers["passes"] = np.reshape(np.array(passes), (-1, 3))
        return {**numbers, **named("sets", sets.state())}

    def restore(kept: dict[str, np.ndarray]) -> None:
        nonlocal previous, least, began
        sets.restore(within("sets", kept))
        previous, passes[:] = kept["bounds"], as_passes(kept["passes"])
        least = np.array(np.broadcast_to(kept["least"], sets.tasks))
        began = time.monotonic() - elapsed(passes)

    states.resume(restore, state, kind, sets.mesh)
    with Bar("backing up", "pass", progress) as bar:
        while True:
            states.save(state, kind)
            try:
                size = horizon, solver.beliefs, 0.0
                if sets.endless:
                    more = min(sets.level, _DOUBLINGS)
                    deep, wide = more if more < 2 else (more + 4) // 2, (more + 1) // 2
                    size = _DEPTH << deep, min(_WIDTH << wide, solver.beliefs), _NEAR / 2**more
                expired = _after_a_share(sets.mesh, began, solver.seconds, going)
                due = _open(sets, starts, least)
                given, start = (
                    (sets, due, solver.memory, least, check, size, expired),
                    time.monotonic(),
                )
                fresh, cut, forward = _improve(*given)
                sets.level += not cut
                least = _allowed(sets, starts, tolerance, relative)
                left = _open_tasks(sets, starts, least)
                if sets.endless and passes and left.any():
                    expired = _after_a_share(sets.mesh, began, solver.seconds, _GOING)
                    still = float(least[left].min())
                    settle_upper(sets, left, still, solver.memory / 8, check, expired)
                spent = time.monotonic() - start
                going = min(_GOING, forward / spent) if spent > 0 else _GOING
            except KeyboardInterrupt:
                if not passes:
                    raise
                return Status.INTERRUPTED
            bounds = _bounds(sets, starts)
            gap = float((bounds[0] - bounds[1]).max(initial=0.0))
            allowed = close_enough(tolerance, relative, np.ones_like(bounds[0]), bounds[0])
            passes.append((sets.visited(), time.monotonic() - began, gap))
            bar(1, f"gap {gap:.3g}, {sets.visited()} beliefs")
            same = bounds.shape == previous.shape and np.allclose(
                bounds, previous, rtol=_SAME, atol=0
            )
            previous = bounds
            if (bounds[0] - bounds[1] <= allowed).all():
                return Status.WITHIN_TOLERANCE
            if late(sets.mesh, began, solver.seconds) or late(sets.mesh, began, turn):
                return Status.TIME_LIMIT
            if _full(sets, solver.memory):
                return Status.MEMORY_LIMIT
            if cut:
                return Status.TIME_LIMIT
            if same and not fresh and not sets.endless:
                return Status.EXACT
            if same and not fresh and sets.level > _DOUBLINGS:
                return Status.STALLED


def _full(sets: PointSets, memory: float) -> bool:
    """Whether what is known takes its part of so many bytes."""
    return sets.bytes() > memory / 4


def _after_a_share(
    mesh: jax.sharding.Mesh | None, began: float, seconds: float | None, share: float
) -> Callable[[], bool]:
    """Whether a pass is to go no further, so that the rest of the time left is to come back."""
    if seconds is None:
        return lambda: False
    now = time.monotonic()
    return functools.partial(late, mesh, now, share * max(0.0, seconds - (now - began)))


def _bounds(sets: PointSets, starts: Starts) -> Float[np.ndarray, "two _k"]:
    """Upper and lower bounds at the starts, where they count."""
    found = [np.zeros((2, 0))]
    for (t, memory), one in starts.items():
        points = sets.at(t, memory)
        index = points.visit(one.belief)
        found.append(np.stack([points.upper[index], points.lower[index]])[:, one.weight > 0])
    return np.concatenate(found, axis=1)


def _allowed(
    sets: PointSets, starts: Starts, tolerance: float, relative: float
) -> Float[np.ndarray, " U"]:
    """The gap of each task that is close enough at its starts; with a last round, the least."""
    found = np.full(sets.tasks, np.inf)
    for (t, memory), one in starts.items():
        points = sets.at(t, memory)
        upper = points.upper[points.visit(one.belief)]
        close = close_enough(tolerance, relative, np.ones_like(upper), upper)
        found = np.minimum(found, np.where(one.weight > 0, close, np.inf).min(axis=0))
    if not sets.endless:
        found[:] = found.min(initial=np.inf)
    return np.where(found < np.inf, found, tolerance)


def _open(sets: PointSets, starts: Starts, tolerance: Float[np.ndarray, " U"]) -> Starts:
    """The starts with the weights of tasks whose bounds are not close enough there."""
    found = {}
    for (t, memory), one in starts.items():
        points = sets.at(t, memory)
        index = points.visit(one.belief)
        wide = points.upper[index] - points.lower[index] > tolerance
        found[t, memory] = Wanted(one.belief, one.weight * wide)
    return found


def _open_tasks(
    sets: PointSets, starts: Starts, tolerance: Float[np.ndarray, " U"]
) -> Bool[np.ndarray, " U"]:
    """Tasks whose bounds are not close enough at some start."""
    left = [one.weight.any(axis=0) for one in _open(sets, starts, tolerance).values()]
    return np.any([np.zeros(sets.tasks, bool), *left], axis=0)


Candidates = dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]


def _improve(
    sets: PointSets,
    starts: Starts,
    memory: float,
    tolerance: Float[np.ndarray, " U"],
    check: Callable[[], None],
    size: tuple[int, int, float],
    expired: Callable[[], bool],
) -> tuple[int, bool, float]:
    """One pass forward, and back.

    **Arguments:** `size`: rounds at most, beliefs of each round and class, and how near beliefs of
    a round stand for each other, without a last one (`_united`).

    **Returns:** how many beliefs are new; whether time or memory was over before
    the last round; the seconds that it went forward.
    """
    began, over, (rounds, width, near) = time.monotonic(), False, size
    before, most = sets.visited(), sets.batch(memory / 8)
    walk: list[dict[int, np.ndarray]] = []
    wanted: dict[int, Wanted] = {}
    walked: dict[int, set[int]] = {}
    full = functools.partial(_full, sets, memory) if sets.endless else lambda: False
    close = _IGNORED * tolerance if sets.endless else np.zeros(sets.tasks)
    ignored = 0.0 if sets.endless else _IGNORED * float(tolerance.min()) / rounds
    for t in range(rounds):
        here: dict[int, np.ndarray] = {}
        candidates: Candidates = {}
        for kind in {*wanted, *(m for s, m in starts if s == t)}:
            parts = [x for x in (wanted.get(kind), starts.get((t, kind))) if x is not None]
            belief = np.concatenate([x.belief for x in parts])
            index, inverse = np.unique(sets.at(t, kind).visit(belief), return_inverse=True)
            weight = np.zeros((len(index), sets.tasks))
            np.add.at(weight, inverse.reshape(-1), np.concatenate([x.weight for x in parts]))
            here[kind] = index
            walked.setdefault(kind, set()).update(index.tolist() if sets.endless else ())
            for low in range(0, len(index) if sets.goes_on(t) else 0, most):
                check()
                part = slice(low, low + most)
                _follow(sets, t, kind, index[part], weight[part], candidates, close)
                if over := expired() or full():
                    break
            if over:
                break
        walk.append(here)
        if sets.endless:
            candidates = _not_walked(sets, candidates, walked, width, near)
        wanted = _largest(candidates, width, ignored)
        if over or (sets.endless and not wanted):
            break
    turned = time.monotonic()
    for t in reversed(range(len(walk))):
        for kind, index in walk[t].items():
            for low in range(0, len(index), most):
                check()
                sets.back_up(t, kind, index[low : low + most])
    return sets.visited() - before, over, turned - began


def _follow(
    sets: PointSets,
    t: int,
    memory: int,
    index: np.ndarray,
    weight: np.ndarray,
    candidates: Candidates,
    close: Float[np.ndarray, " U"],
) -> None:
    """Add the beliefs after hopeful controls: by class, (belief, weight, share of the gap).

    Where bounds are within `close` of each other, per unit of mass, nothing is left to find.
    """
    points = sets.at(t, memory)
    found = sets.look(t, memory, index)
    np.minimum.at(points.upper, index, found.upper.max(axis=1))
    hopeful = found.upper.argmax(axis=1)
    edge, heirs = sets.moves(t, memory)
    taken = hopeful[:, None] == np.arange(len(edge))[:, None]  # (N, A, U)
    reach = np.where(taken, weight[:, None], 0.0)[:, :, None] * found.mass[..., None]
    reach = sets.onward(reach)
    mass = np.where(found.mass > 0, found.mass, 1.0)[..., None]
    gap = (found.after_upper - found.after_lower) / mass
    share = np.where(gap > close, reach * gap, 0.0).max(axis=3)
    n, a, z = np.nonzero(share > 0)
    if not len(n):
        return
    belief = points.belief[index[n]] * sets.column[sets.structure.columns[edge[a], z]]
    belief /= belief.sum(axis=1, keepdims=True)
    for heir in np.unique(heirs[a]).tolist():
        here = heirs[a] == heir
        more = (belief[here], reach[n, a, z][here], share[n, a, z][here])
        candidates.setdefault(heir, []).append(more)


def _not_walked(
    sets: PointSets, candidates: Candidates, walked: dict[int, set[int]], most: int, near: float
) -> Candidates:
    """Each once, those that this pass has not been at in another round: most of them, by class."""
    found: Candidates = {}
    for memory, parts in candidates.items():
        belief, weight, share = (np.concatenate(x) for x in zip(*parts, strict=True))
        belief, same = distinct(belief)
        total, reach = np.zeros(len(belief)), np.zeros((len(belief), weight.shape[1]))
        np.add.at(total, same, share)
        np.add.at(reach, same, weight)
        if len(belief) > most:
            belief, reach, total = _united(belief, reach, total, near)
        place, seen, picked = sets.at(0, memory).place, walked.get(memory, set()), []
        order = np.argsort(-total, kind="stable")
        for n, word in zip(order.tolist(), words(belief[order]), strict=True):
            if len(picked) == most:
                break
            if place.get(word.tobytes(), -1) not in seen:
                picked.append(n)
        if picked:
            found[memory] = [(belief[picked], reach[picked], total[picked])]
    return found


def _united(
    belief: Float[np.ndarray, "n m"],
    reach: Float[np.ndarray, "n U"],
    total: Float[np.ndarray, " n"],
    near: float,
) -> tuple[Float[np.ndarray, "k m"], Float[np.ndarray, "k U"], Float[np.ndarray, " k"]]:
    """Beliefs further than `near` from each other, each with the weight of those it stands for.

    Of those near each other, by one less Hellinger's affinity, the one that holds most of the gap.
    """
    order = np.argsort(-total, kind="stable")
    root = np.sqrt(belief[order])
    close, lead = root @ root.T > 1.0 - near, np.full(len(order), -1)
    for n in range(len(order)):
        if lead[n] < 0:
            lead[close[n] & (lead < 0)] = n
    kept, place = np.unique(lead, return_inverse=True)
    more, share = np.zeros((len(kept), reach.shape[1])), np.zeros(len(kept))
    np.add.at(more, place.reshape(-1), reach[order])
    np.add.at(share, place.reshape(-1), total[order])
    return belief[order[kept]], more, share


def _largest(candidates: Candidates, most: int, ignored: float) -> dict[int, Wanted]:
    """The candidates that hold most of the gap, at most `most` of each class."""
    joined = {m: [np.concatenate(x) for x in zip(*c, strict=True)] for m, c in candidates.items()}
    every = np.sort(np.concatenate([share for _, _, share in joined.values()] or [np.zeros(0)]))
    small = np.searchsorted(np.cumsum(every), ignored)
    floor = every[small] if small < len(every) else np.inf
    wanted = {}
    for memory, (belief, weight, share) in joined.items():
        order = np.argsort(-share, kind="stable")[:most]
        order = order[share[order] >= floor]
        if len(order):
            wanted[memory] = Wanted(belief[order], weight[order])
    return wanted
