"""How many rounds of an endless problem are enough, and what is lost by stopping there.

The problem is stationary: one table of edges serves every round. After k rounds, whatever was
done in them, a process that goes on is worth between D_0 and E_0 given the parameter omega and
the memory class,

    E_0 = max(0, what a controller told omega gets),   D_0 = min(0, what the last control for ever
                                                                    yields),

both from value iteration that starts on the safe side (no more than the largest yield, no less
than the least of a round times the rounds to come) and stays there. What stopping after k rounds
can lose at the start is found by a dynamic program over memory classes, the worst case over every
way to act and over omega,

    E_k(c, omega) = max_a  y(c, a, omega) E_{k-1}(c'(c, a), omega),    y: probability of going on,
    D_k(c, omega) = min_a  y(c, a, omega) D_{k-1}(c'(c, a), omega),

so that with W^k the value of k rounds and W that without an end, for every belief b,

    <b, D_k> <= W - W^k <= <b, E_k>,

and the plan for k rounds, followed by the last control for ever, attains at least W^k + <b, D_k>.
Where beliefs take finitely many directions, <b, E_k> is replaced by H_k - W^k (`_closed`), with
H_k the same recursion as W^k from an upper bound on W: the span shrinks as fast as good plans end
the process, not as slowly as bad ones do.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record, with_fields
from solvers.problem import Structure, Tables, Tasks
from solvers.told.bounds import expected
from solvers.tree.backward import likelihood_rows
from solvers.tree.closed import Closed, close_beliefs, closed_spans
from solvers.tree.tree import Tree

_BYTES = 2e6

_SHARPEN = 200

_LOOK = 256

_DOUBLINGS, _NEGLIGIBLE, _MARGIN = 60, 1e-15, 1e-9


class Truncation(Record):
    """How many rounds are followed, and per group of tasks what that can cost at the roots.

    `over`, `under` (R, Q), unnormalised and >= 0: W - W^k is at most `over`, at least -`under`.
    `error`: the largest sum of both per unit of root mass. `closed`: per group, the beliefs if
    they are finitely many.
    """

    rounds: int = eqx.field(static=True)
    error: float = eqx.field(static=True)
    over: tuple[Float[np.ndarray, "_R _Q"], ...]
    under: tuple[Float[np.ndarray, "_R _Q"], ...]
    closed: Closed | None


def unroll(structure: Structure, rounds: int) -> Structure:
    """Repeat the one round of a stationary structure."""
    edge, successor = structure.edge * rounds, structure.successor * rounds
    return with_fields(structure, edge=edge, successor=successor)


def endless_cycle(
    successor: Int[np.ndarray, "M A"],
    going: Float[np.ndarray, "M A m"],
    live: Bool[np.ndarray, " m"],
) -> tuple[list[tuple[int, int]], int] | None:
    """Find (memory class, control) pairs that can go on for ever with probability one.

    The process ends almost surely under every plan iff no cycle of edges, each certain to go on
    at one and the same omega, can be reached there: finitely many edges, so that the product of
    probabilities along a path has a positive limit only if all but finitely many are one.

    **Arguments:** `going`: probability of going on; `live`: parameters that can occur.

    **Returns:** the cycle and the index of omega; None if there is none.
    """
    sure = going >= 1 - 4 * float(np.finfo(going.dtype).eps)
    trapped: np.ndarray = np.ones(going.shape[::2], bool)
    while True:
        fewer = trapped & (sure & trapped[successor]).any(axis=1)
        if (fewer == trapped).all():
            break
        trapped = fewer
    reached = np.zeros_like(trapped)
    reached[0] = True
    while True:
        more = reached.copy()
        np.logical_or.at(more, successor, reached[:, None] & (going > 0))
        if (more == reached).all():
            break
        reached = more
    found = np.argwhere(trapped & reached & live)
    if not len(found):
        return None
    memory, point = found[0].tolist()
    path: list[tuple[int, int]] = []
    while memory not in [c for c, _ in path]:
        control = int(np.argmax(sure[memory, :, point] & trapped[successor[memory], point]))
        path.append((memory, control))
        memory = int(successor[memory, control])
    return path[[c for c, _ in path].index(memory) :], point


def truncate(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    *,
    tolerance: float,
    least: int = 1,
    most: int = 10_000,
    expired: Callable[[], bool] = lambda: False,
) -> Truncation:
    """Find the fewest rounds whose two-sided error is within `tolerance` per unit of root mass.

    **Arguments:** `structure` of one round, which stands for all; `least`, `most`: of rounds;
    `expired`: whether time is over, so that there are to be no more rounds.

    **Returns:** a `Truncation`, whose `error` is above `tolerance` iff `most` rounds are too few or
    time is over.
    """
    tables = _doubles(tables)
    closed = close_beliefs(structure, tables, tasks)
    spans = [_spans(structure, tables, part, closed) for part in tasks]
    roots = [np.asarray(part.root, float) for part in tasks]
    error, before, rounds = math.inf, math.inf, 0
    over: list[np.ndarray] = []
    under: list[np.ndarray] = []
    for rounds, widths in enumerate(zip(*spans, strict=True)):
        if rounds < least:
            continue
        over, under, errors = [], [], []
        for part, root, (above, below) in zip(tasks, roots, widths, strict=True):
            shape = part.coefficient.shape[:2]
            start = (
                above[0, 0]
                if closed
                else np.einsum("rm,rqm->rq", root, above[0] + 0 * root[:, None])
            )
            over.append(np.broadcast_to(start, shape))
            under.append(-np.einsum("rm,rqm->rq", root, below[0] + 0 * root[:, None]))
            under[-1] = np.broadcast_to(under[-1], shape)
            mass = root.sum(axis=1)
            known = mass > 0
            errors.append(((over[-1] + under[-1])[known] / mass[known, None]).max(initial=0.0))
        error = float(max(errors))
        if error <= tolerance or rounds >= most or expired():
            break
        if rounds % _LOOK == 0:
            if _hopeless(error, before, tolerance, rounds, most):
                break
            before = error
    return Truncation(rounds, error, tuple(over), tuple(under), closed)


def _hopeless(error: float, before: float, tolerance: float, rounds: int, most: int) -> bool:
    """Whether the error falls so slowly that `most` rounds are far too few."""
    if not before < math.inf:
        return False
    if tolerance <= 0 or error >= before:
        return True
    return rounds + _LOOK * math.log(error / tolerance) / math.log(before / error) > 1.1 * most


def truncation_gaps(
    tree: Tree, structure: Structure, tables: Tables, tasks: Sequence[Tasks], cut: Truncation
) -> list[tuple[Float[np.ndarray, "_N _R _K"], ...]]:
    """Certify every node: what the rounds after the tree can add to what its plan lacks there.

    **Returns:** per group and round, for the policies kept, (N_t, R, keep), per unit of mass.
    """
    tables = _doubles(tables)
    column = np.concatenate([tables.column, np.ones((1, tables.column.shape[1]))])
    rows = likelihood_rows(tree, column, len(tree.layers))
    numbers = None if cut.closed is None else cut.closed.numbers(tree)
    found = []
    for part in tasks:
        root, keep = np.asarray(part.root, float), part.keep
        gaps = []
        spans = _spans(structure, tables, part, cut.closed)
        next(spans)
        for t, (above, below) in zip(reversed(range(cut.rounds)), spans, strict=False):
            layer = tree.layers[t]
            mass = (rows[t] @ root.T)[layer.likelihood]
            gap = np.zeros((layer.nodes, len(root), keep))
            told = -below if numbers is not None else above - below
            told = np.broadcast_to(told[:, :, :keep], (len(told), len(root), keep, root.shape[1]))
            if told.any():
                starts = np.flatnonzero(np.diff(layer.memory, prepend=-1))
                for first, end in zip(starts, np.append(starts[1:], layer.nodes), strict=True):
                    wide = (told[layer.memory[first]] * root[:, None]).reshape(-1, root.shape[1])
                    belief = rows[t][layer.likelihood[first:end]]
                    gap[first:end] = (belief @ wide.T).reshape(-1, len(root), keep)
            gap /= np.where(mass > 0, mass, 1.0)[:, :, None]
            if numbers is not None and cut.closed is not None:
                number = numbers[t][layer.likelihood]
                scale = (cut.closed.rows @ root.T)[number]
                span = above[layer.memory, number][:, :, :keep]
                gap += span / np.where(scale > 0, scale, 1.0)[:, :, None]
            gaps.append(np.where((mass > 0)[:, :, None], gap, 0.0))
        found.append(tuple(gaps[::-1]))
    return found


def _doubles(tables: Tables) -> Tables:
    return Tables(*(np.asarray(x, float) for x in (tables.stop, tables.column, tables.reward)))


def _spans(
    structure: Structure, tables: Tables, tasks: Tasks, closed: Closed | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """E_k (or, for closed beliefs, H_k - W^k at each of them) and D_k, for k = 0, 1, ..."""
    joint = _too_large(structure, tasks, tables)
    high, allowed = _worth(tables, tasks, joint, np.max)
    low, _ = _worth(tables, tasks, joint, np.min)
    last = np.zeros_like(allowed)
    last[..., -1] = True
    axes = (1, 2) if tasks.kernel is not None else 2
    most = np.maximum(high.max(axis=axes, keepdims=True), 0.0)[:, :, 0]
    shape = (len(structure.edge[0]), *high.shape[:2], high.shape[3])
    above = np.broadcast_to(most, shape).copy()
    once = _round(structure, tables, tasks, last, np.zeros(shape), np.minimum, low)
    each = np.minimum(once, 0.0).min(axis=(0, 2) if tasks.kernel is not None else 0, keepdims=True)
    least = each * _rounds_to_come(structure, tables)[:, None, None]
    below = np.where(_spreads(structure, tables, tasks, once < 0), least, 0.0)
    for _ in range(_SHARPEN):
        closer = _round(structure, tables, tasks, allowed, above, np.maximum, high)
        nearer = _round(structure, tables, tasks, last, below, np.minimum, low)
        change = max(np.abs(closer - above).max(), np.abs(nearer - below).max())
        above, below = np.minimum(above, closer), np.maximum(below, nearer)
        if change <= 1e-6 * max(np.abs(above).max(), np.abs(below).max()):
            break
    above, below = np.maximum(above, 0.0), np.minimum(below, 0.0)
    inside = None if closed is None else closed_spans(structure, tables, tasks, closed, above)
    while True:
        yield (above if inside is None else next(inside)), below
        if inside is None:
            above = _round(structure, tables, tasks, allowed, above, np.maximum)
        if below.any():
            below = _round(structure, tables, tasks, allowed, below, np.minimum)


def _rounds_to_come(structure: Structure, tables: Tables) -> Float[np.ndarray, "M m"]:
    """How many rounds there are, expected, with the last control for ever; 1 if they never end.

    What k rounds lead to, k = 1, 2, 4, ...: each class has one heir under one control.
    """
    edge, heir = structure.edge[0][:, -1], structure.successor[0][:, -1]
    left = np.minimum(tables.column[structure.columns[edge]].sum(axis=1), 1.0)
    rounds = np.ones_like(left)
    for _ in range(_DOUBLINGS):
        rounds, left, heir = rounds + left * rounds[heir], left * left[heir], heir[heir]
        if ((left < _NEGLIGIBLE) | (left == 1)).all():
            break
    return np.where(left < _NEGLIGIBLE, (1 + _MARGIN) * rounds, 1.0)


def _spreads(
    structure: Structure, tables: Tables, tasks: Tasks, bad: np.ndarray
) -> Bool[np.ndarray, "M _R _Q m"]:
    """Where the last control for ever can lead to what is bad in one round."""
    edge, heir = structure.edge[0][:, -1], structure.successor[0][:, -1]
    going = tables.column[structure.columns[edge]].sum(axis=1) > 0
    if tasks.kernel is not None:
        bad = np.broadcast_to(bad.any(axis=2, keepdims=True), bad.shape)
    while True:
        more = bad | (going[:, None, None] & bad[heir])
        if (more == bad).all():
            return more
        bad = more


def _too_large(structure: Structure, tasks: Tasks, tables: Tables) -> bool:
    cells = tasks.coefficient.shape[0] * tasks.coefficient.shape[1] * tables.column.shape[1]
    return 8.0 * cells * len(structure.edge[0]) > _BYTES


def _worth(tables: Tables, tasks: Tasks, joint: bool, fold: Callable[..., Any]):
    """What every outcome yields given omega, (R, Q, n, m); or one bound for all, R = Q = 1."""
    counted = np.asarray(tasks.counted, float)[..., None]
    worth = np.asarray(tasks.coefficient, float)[..., None] + counted * tables.reward
    allowed = np.asarray(tasks.allowed, bool)
    if joint:
        worth = fold(worth, axis=(0, 1), keepdims=True)
        allowed = np.asarray(allowed.any(axis=(0, 1), keepdims=True))
    return worth, allowed


def _round(
    structure: Structure,
    tables: Tables,
    tasks: Tasks,
    allowed: np.ndarray,
    value: np.ndarray,
    fold: np.ufunc,
    worth: np.ndarray | None = None,
) -> np.ndarray:
    """The best or worst of one round given omega: what is yielded, and what may follow."""
    edges, successor = structure.edge[0], structure.successor[0]
    outside = -np.inf if fold is np.maximum else np.inf
    here = np.full_like(value, outside)
    for control in range(structure.controls):
        edge = edges[:, control]
        going = tables.column[structure.columns[edge]].sum(axis=1)
        total = going[:, None, None] * expected(value[successor[:, control]], tasks, control)
        if worth is not None:
            for slot in range(structure.outcome.shape[1]):
                outcome = structure.outcome[edge, slot]
                chance = np.where((outcome >= 0)[:, None], tables.stop[edge, slot], 0.0)
                total += chance[:, None, None] * np.moveaxis(worth[:, :, outcome], 2, 0)
        fold(here, np.where(allowed[:, :, control, None], total, outside), out=here)
    return here
