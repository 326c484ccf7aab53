"""What an exact solve will take, before any work: nodes, bytes and seconds."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import numpy as np

from solvers.devices import at_hand
from solvers.host import Record
from solvers.problem import Structure, Tables, Tasks
from solvers.ties import signed
from solvers.tree.ahead import Ahead
from solvers.tree.bellman import roots_at_once
from solvers.tree.numbering import numbering
from solvers.tree.tree import bound_nodes, build_tree

_ELEMENT_RATE = 2e8
_PRODUCT_RATE = 2e10
_AHEAD = 0.5  # of the time that this takes elsewhere, in a last round that is not listed
WAY_BYTES = 60.0  # of each way out of a round, while they are merged
PROGRAMS = 8e7  # bytes that programs take, and to compile them
_PADDED = 1.5  # copies of a round's likelihood rows that programs read, their padding counted
ROOT_SHARE = 0.6  # of memory, that one root may take
_GLANCE = 2e5  # ways out of a round up to which trees are looked at before anything is decided
_FEATURES = 5e5  # bytes of what beliefs are contracted with, read again for every few of them


class Estimate(Record):
    """What a solve will take: nodes, bytes that live at once, seconds (rough, on two cores)."""

    nodes: int = eqx.field(static=True)
    memory: float = eqx.field(static=True)
    seconds: float = eqx.field(static=True)


def estimate(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    memory: float,
    nodes: list[int] | None,
    merge: bool = True,
    ahead: bool = False,
) -> Estimate:
    """Estimate a solve before any work; `nodes` per round if the tree is known, else a bound.

    **Arguments:** `ahead`: one more round is to come, which is not listed.

    At most there are ways out of a round that are merged, or the tree, its likelihood rows, the
    values of a round and the controls taken; and programs.
    """
    counts = bound_nodes(structure, merge) if nodes is None else nodes
    width, points = structure.controls, tables.column.shape[1]
    features = 2 * width * structure.outcome.shape[1] + 1
    flops = steps = values = taken = 0.0
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
        taken += 6.0 * sum(counts) * part.keep * roots
    index = 4.0 * sum(counts[:-1]) * width * structure.symbols + 16.0 * sum(counts)
    ways = max([0, *counts[:-1]]) * width * structure.symbols * WAY_BYTES
    rows = 8.0 * points * (sum(counts[:-1]) + _PADDED * max([0, *counts[:-1]]))
    solved = rows + index + values + taken
    return Estimate(
        sum(counts),
        PROGRAMS + max(ways, solved),
        flops / _PRODUCT_RATE + steps / _ELEMENT_RATE,
    )


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
) -> Estimate | None:
    """Estimate an exact solve, tree included, from the first rounds; None where it will not fit.

    **Arguments:** `ahead`: the last round is not listed, but worked out from the one before.
    """
    width, rounds = structure.controls * structure.symbols, structure.horizon - ahead
    counts = glance(structure, rounds)
    if len(counts) < rounds:
        return None
    work = estimate(structure, tables, tasks, memory, counts, ahead=ahead)
    merging = sum(counts[:-1]) * width / numbering(structure).rate
    fits = work.memory - PROGRAMS <= memory and max(counts) < 2**31
    each = max(root_bytes(counts, part, signed(tables, part)) for part in tasks)
    if not fits or each > ROOT_SHARE * memory:
        return None
    return Estimate(work.nodes, work.memory, work.seconds + merging)


def root_bytes(counts: list[int], tasks: Tasks, carried: bool) -> float:
    """Bytes that one root needs: a round's values, or amounts as well, in parts and joined."""
    each = 16.0 * (1 + 2 * carried) * tasks.coefficient.shape[1]
    return each * max(counts) + sum(counts) * tasks.keep


def roots_together(
    tasks: Tasks, tables: Tables, counts: list[int], structure: Structure, memory: float
) -> int:
    """How many roots are worked on at once: those whose numbers fit in memory and cache."""
    slots, points = structure.outcome.shape[1], tasks.root.shape[1]
    features = 8.0 * points * (2 * structure.controls * slots + 1)
    near = min(at_hand(_FEATURES) // features, roots_at_once(structure.controls, slots, tasks))
    return max(
        1, int(min(ROOT_SHARE * memory // root_bytes(counts, tasks, signed(tables, tasks)), near))
    )
