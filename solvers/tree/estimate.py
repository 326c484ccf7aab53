"""What an exact solve will take, before any work: nodes, bytes and seconds."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import numpy as np

from solvers.devices import at_hand, on_processors
from solvers.host import Record
from solvers.problem import Structure, Tables, Tasks
from solvers.ties import signed
from solvers.tree.ahead import Ahead
from solvers.tree.backward import HOST_SECONDS, on_host, rounds_on_host
from solvers.tree.bellman import roots_at_once
from solvers.tree.numbering import numbering
from solvers.tree.tree import bound_nodes, build_tree

_ELEMENT_RATE = 2e8
_PRODUCT_RATE = 2e10
_ROUND = 1.5e-3  # seconds that a round takes at least, listed and worked on
_AHEAD = 0.5  # of the time that this takes elsewhere, in a last round that is not listed
WAY_BYTES = 60.0  # of each way out of a round, while they are merged
START = 4.2e7  # bytes that the first programs of a process take, those that laws are listed by
_STEP, _LAST = 2.2e7, 7.5e7  # bytes of a step's program, and where the last round is not listed
_BLOCK = 2e4  # bytes of a block of that, for every task of the roots solved together
_AGREE = 4.0  # times the mean of least and most that plans found reach of a round not listed
_PROGRAMS = 3  # that steps take at most: rounds share shapes
_LEFT = 0.3  # of what merging took, how much is free again and yet not given back
_CELL, _VISIT = 4.0, 150.0  # bytes of a control while plans are laid out, and of a visit of theirs
_PIECES = 2.5e7  # bytes, at most, of the visits whose beliefs are worked on at once
_PADDED = 1.5  # copies of a round's likelihood rows that programs read, their padding counted
ROOT_SHARE = 0.6  # of memory, that one root may take
_GLANCE = 2e5  # ways out of a round up to which trees are looked at before anything is decided
_SECOND = 0.1  # of memory, that a second run of roots may take, worked on beside the first
_FEATURES = 5e5  # bytes of what beliefs are contracted with, read again for every few of them


class Estimate(Record):
    """What a solve will take: nodes, bytes that live at once, seconds (rough, on two cores)."""

    nodes: int = eqx.field(static=True)
    memory: float = eqx.field(static=True)
    seconds: float = eqx.field(static=True)


class Work(NamedTuple):
    """What a solve will take; `beside` its `memory` is what counts not against what is allowed.

    That is programs, what is not given back at once, what is made of the plans found, and little
    that a second run of roots takes.
    """

    nodes: int
    memory: float
    seconds: float
    beside: float

    @property
    def bytes(self) -> float:
        """All that lives at once."""
        return self.memory + self.beside


def estimate(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    memory: float,
    nodes: list[int] | None,
    merge: bool = True,
    ahead: bool = False,
) -> Work:
    """Estimate a solve before any work; `nodes` per round if the tree is known, else a bound.

    **Arguments:** `ahead`: one more round is to come, which is not listed.

    At most there are ways out of a round that are merged, or the tree, its likelihood rows, the
    values of a round and the controls taken. Beside it are programs, and what is made of the plans
    where that is more: controls laid out, and visits.
    """
    counts = bound_nodes(structure, merge) if nodes is None else nodes
    width, points = structure.controls, tables.column.shape[1]
    features = 2 * width * structure.outcome.shape[1] + 1
    flops = steps = values = plans = taken = second = 0.0
    for part in tasks:
        roots, variants = part.coefficient.shape[:2]
        flops += 2.0 * sum(counts) * points * (features * roots + 2)
        branch = width * (structure.outcome.shape[1] * 2 + 3)
        inner = sum(counts[:-1]) * width * structure.symbols
        steps += roots * variants * (sum(counts) * branch + inner)
        if ahead:
            one = Ahead(structure, _first_root(part), 0.0, signed(tables, part))
            histories = float(counts[-1]) * one.leading * structure.symbols * roots
            flops += _AHEAD * 2.0 * histories * points * one.features
            steps += _AHEAD * histories * (one.features + variants)
        most = roots_together(part, tables, counts, structure, memory)
        values = max(values, min(roots, most) * root_bytes(counts, part, False))
        second = max(second, second_run(part, tables, counts, structure, memory))
        plans += part.keep * roots
        taken += 6.0 * sum(counts) * part.keep * roots
    index = 4.0 * sum(counts[:-1]) * width * structure.symbols + 16.0 * sum(counts)
    ways = max([0, *counts[:-1]]) * width * structure.symbols * WAY_BYTES
    rows = _row_bytes(counts, points)
    solved = rows + index + values + taken
    held = max(ways, solved)
    reached = _reached(structure, counts, plans, ahead)
    visits = plans * sum(_paths(structure, count, t) for t, count in enumerate(reached))
    pieces = min(_PIECES, 5 * 8.0 * points * visits)
    after = index + _CELL * plans * sum(reached) + _VISIT * visits + pieces
    most = max(held, solved + second + _LEFT * ways, after)
    programs = _programs(structure, counts, tables, tasks, memory, ahead)
    seconds = flops / _PRODUCT_RATE + steps / _ELEMENT_RATE + _ROUND * len(counts)
    return Work(sum(counts), held, seconds, programs + most - held)


def _paths(structure: Structure, count: int, t: int) -> float:
    """How many nodes of a round a plan can be at."""
    return float(min(count, structure.symbols ** min(t, 20)))


def _reached(structure: Structure, counts: list[int], plans: float, ahead: bool) -> list[int]:
    """About so many nodes of every round are in the tree of the plans found, which often agree."""
    if not ahead:
        return counts
    least = [_paths(structure, count, t) for t, count in enumerate(counts)]
    most = [min(count, plans * x) for count, x in zip(counts, least, strict=True)]
    least.append(least[-1] * structure.symbols)
    most.append(most[-1] * min(structure.controls, plans) * structure.symbols)
    return [
        int(min(high, _AGREE * math.sqrt(low * high)))
        for low, high in zip(least, most, strict=True)
    ]


def _programs(
    structure: Structure,
    counts: list[int],
    tables: Tables,
    tasks: Sequence[Tasks],
    memory: float,
    ahead: bool,
) -> float:
    """Bytes that the programs of rounds take which NumPy does not work on, and to compile them."""
    classes = [len(edge) for edge in structure.edge[: len(counts)]]
    takes, chunks, most = [], [], 0
    for part in tasks:
        roots = len(part.root)
        width = min(roots, roots_together(part, tables, counts, structure, memory))
        takes.append(rounds_on_host(structure, counts, classes, part, width))
        chunks.append(-(-roots // width))
        most = max(most, width * part.coefficient.shape[1])
    every = sum(count * sum(each) for count, each in zip(chunks, takes, strict=True))
    host = HOST_SECONDS / (1 if every <= HOST_SECONDS else sum(chunks))
    steps = 0
    for each in takes:
        if ahead:
            each[-1] = math.inf
        steps += on_host(each, host).count(False) - ahead
    return (_LAST + _BLOCK * most) * ahead + _STEP * min(steps, _PROGRAMS)


def _first_root(tasks: Tasks) -> Tasks:
    parts = tasks.root, tasks.coefficient, tasks.counted, tasks.allowed
    names = ("root", "coefficient", "counted", "allowed")
    first = {name: np.asarray(x)[:1] for name, x in zip(names, parts, strict=True)}
    return dataclasses.replace(tasks, **first)


def foreseen_nodes(counts: list[int], rounds: int) -> list[int]:
    """Nodes of every round, after those known as multisets of ever more columns grow, or faster."""
    found = list(counts)
    for t in range(len(counts), rounds if len(counts) > 2 else 0):
        found.append(found[-1] ** 2 * (t - 1) // max(found[-2] * t, 1))
    return found


def glance(structure: Structure, rounds: int, merge: bool = True) -> list[int]:
    """Nodes of every round, seen of small trees, else foreseen; of fewer where they explode."""
    counts: list[int] = []
    width = structure.controls * structure.symbols

    def grows(known: list[int], ways: int) -> None:
        counts[:] = known
        if ways > _GLANCE:
            raise TimeoutError

    try:
        return [x.nodes for x in build_tree(structure, merge, grows=grows, rounds=rounds).layers]
    except TimeoutError:
        if len(counts) < min(3, rounds):  # too few to see how they grow
            counts.append(min(counts[-1] * width, bound_nodes(structure, merge)[len(counts)]))
        return foreseen_nodes(counts, rounds)


def foresee(
    structure: Structure, tables: Tables, tasks: Sequence[Tasks], memory: float, ahead: bool = False
) -> Work | None:
    """Estimate an exact solve, tree included, from the first rounds; None where it will not fit.

    **Arguments:** `ahead`: the last round is not listed, but worked out from the one before.
    """
    width, rounds = structure.controls * structure.symbols, structure.horizon - ahead
    counts = glance(structure, rounds)
    if len(counts) < rounds:
        return None
    work = estimate(structure, tables, tasks, memory, counts, ahead=ahead)
    merging = sum(counts[:-1]) * width / numbering(structure).rate
    fits = work.memory <= memory and max(counts) < 2**31
    each = max(root_bytes(counts, part, signed(tables, part)) for part in tasks)
    if not fits or each > ROOT_SHARE * memory:
        return None
    return work._replace(seconds=work.seconds + merging)


def root_bytes(counts: list[int], tasks: Tasks, carried: bool) -> float:
    """Bytes that one root needs: a round's values, or amounts as well, in parts and joined."""
    each = 16.0 * (1 + 2 * carried) * tasks.coefficient.shape[1]
    return each * max(counts) + sum(counts) * tasks.keep


def _row_bytes(counts: list[int], points: int) -> float:
    """Bytes of likelihood rows."""
    return 8.0 * points * (sum(counts[:-1]) + _PADDED * max([0, *counts[:-1]]))


def second_run(
    tasks: Tasks, tables: Tables, counts: list[int], structure: Structure, memory: float
) -> float:
    """Bytes of a run of roots that is worked on beside another; 0 where one is at a time.

    What NumPy and programs of one thread leave of the cores is worth little of the memory. The
    first run is worked on alone (`solvers.devices.spread`), so that there must be three.
    """
    width = roots_together(tasks, tables, counts, structure, memory)
    if not on_processors() or len(tasks.root) <= 2 * width:
        return 0.0
    takes = width * root_bytes(counts, tasks, signed(tables, tasks))
    takes += _row_bytes(counts, tables.column.shape[1])
    return takes if takes <= _SECOND * memory else 0.0


def roots_together(
    tasks: Tasks, tables: Tables, counts: list[int], structure: Structure, memory: float
) -> int:
    """How many roots are worked on at once: those whose numbers fit in memory and cache."""
    slots, points = structure.outcome.shape[1], tasks.root.shape[1]
    features = 8.0 * points * (2 * structure.controls * slots + 1)
    variants, kind = tasks.coefficient.shape[1], tasks.root.dtype
    width = roots_at_once(structure.controls, slots, variants, kind)
    near = min(at_hand(_FEATURES) // features, width)
    return max(
        1, int(min(ROOT_SHARE * memory // root_bytes(counts, tasks, signed(tables, tasks)), near))
    )
