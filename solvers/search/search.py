"""Branch and bound on a process given by its rules: nothing is enumerated beforehand.

Nodes and bounds are those of `solvers.search.graph`. A pass walks down from the roots along the
controls that attain the upper bound, follows those that are not followed yet, and backs up what
it met (AO*, as in `solvers.search.branch_and_bound`). What is not followed counts at its bound
(`solvers.search.offers`), which holds at every belief and tightens as places are met.

Tasks are taken a few at a time, each with a bound of its own; all share every node, and one bound
for all of them. Constant coefficients only.

Guarantee: lower <= W <= upper for every task at any time.
"""

import functools
import os
import time
from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float

from solvers.checkpoint import States, mark_of, named, within
from solvers.devices import late
from solvers.host import Record
from solvers.problem import Tasks
from solvers.process import AbstractProcess
from solvers.progress import Bar, deferred
from solvers.search.graph import OWN, Full, Graph
from solvers.search.growing import Passes, as_passes, elapsed
from solvers.search.kept import graph_state, restore_graph
from solvers.search.nodes import Flat
from solvers.search.offers import Place
from solvers.solution import Status, close_enough
from solvers.table import Grown

# Of each place: nodes that follow, and which tasks come there.
Arriving = dict[int, list[tuple[np.ndarray, np.ndarray]]]


class Searched(Record):
    """Bounds of every task, (F,), and the rounds that its plans can reach; why it ended.

    `value`: of its plan, as computed; `ill`: whether ties met were ill conditioned.
    """

    value: Float[np.ndarray, " F"]
    lower: Float[np.ndarray, " F"]
    upper: Float[np.ndarray, " F"]
    rounds: tuple[Grown, ...]
    status: Status = eqx.field(static=True)
    history: tuple[tuple[int, float, float], ...] = eqx.field(static=True)
    ill: bool = eqx.field(static=True, default=False)


def descend(
    graph: Graph, wanted: Bool[np.ndarray, " F"], allowance: Float[np.ndarray, " F"]
) -> bool:
    """One pass for these tasks; whether anything was followed or met."""
    want = {0: wanted[None]}
    visited: list[list[tuple[Place, np.ndarray]]] = []
    progress = False
    for t in range(graph.last):
        hopes: dict[int, tuple[np.ndarray, ...]] = {}
        todo = list(want)
        while todo:
            unmet: dict[bytes, np.ndarray] = {}
            again = []
            for number in todo:
                graph.pause()
                place, mask = graph.offers.listed[t][number], want[number]
                index = np.flatnonzero(mask.any(axis=1))
                found = graph.hope(t, place, index, mask[index], allowance)
                hopes[number] = (index, *found)
                for control in np.unique(found[0][found[1]]):
                    if place.next[control] not in graph.offers.places[t + 1]:
                        unmet[place.next[control]] = place.after[control]
                        again.append(number)
            if unmet:
                graph.meet(t + 1, np.unique(np.stack(list(unmet.values())), axis=0))
                progress = True
            todo = list(dict.fromkeys(again))
        arriving: Arriving = {}
        here = []
        for number, (index, control, open_) in hopes.items():
            place, nodes = graph.offers.listed[t][number], graph.nodes[t][number]
            here.append((place, index[open_.any(axis=1)]))
            for chosen in np.unique(control[open_]).tolist():
                rows = open_ & (control == chosen)
                which = np.flatnonzero(rows.any(axis=1))
                new = nodes["child"][index[which], chosen, 0] < 0
                if new.any():
                    graph.follow(t, place, index[which[new]], chosen)
                    progress = True
                heir = graph.offers.after(t, place, chosen)
                assert heir is not None
                child = nodes["child"][index[which], chosen]
                arriving.setdefault(heir.number, []).append((child, rows[which]))
        visited.append(here)
        want = _arrived(graph, t + 1, arriving)
    for t in reversed(range(len(visited))):
        for place, index in visited[t]:
            graph.back_up(t, place, index)
    return progress


def _arrived(graph: Graph, t: int, arriving: Arriving) -> dict[int, np.ndarray]:
    want = {}
    for number, parts in arriving.items():
        mask = np.zeros((graph.nodes[t][number].count, len(graph.flat.of)), bool)
        for child, rows in parts:
            for symbol in range(child.shape[1]):
                np.logical_or.at(mask, child[:, symbol], rows)
        want[number] = mask
    return want


def complete(graph: Graph) -> None:
    """Follow until every task has a plan, and plans kept have one wherever plans kept lead."""
    graph.closing = True
    missing = True
    while missing:
        graph.evaluate()
        missing = _walk(graph, np.ones(len(graph.flat.of), bool), fill=True)[0]


def _walk(graph: Graph, wanted: Bool[np.ndarray, " F"], fill: bool):
    """Follow the plans from the roots; with `fill`, follow something where there is none.

    Returns whether something was missing, and per round the nodes reached of each place.
    """
    want, kept = {0: wanted[None]}, graph.flat.kept
    reached, missing = [], False
    for t in range(graph.last + 1):
        for mask in want.values():
            mask[mask[:, kept].any(axis=1)] |= kept & wanted
        reached.append({k: np.flatnonzero(v.any(axis=1)) for k, v in want.items()})
        if t == graph.last:
            break
        arriving: Arriving = {}
        for number, mask in want.items():
            place, nodes = graph.offers.listed[t][number], graph.nodes[t][number]
            index = reached[-1][number]
            control = nodes["action"][index].astype(int)
            absent = mask[index] & ~np.isfinite(nodes["lower"][index])
            if fill and absent.any():
                missing = True
                hope, _ = graph.hope(t, place, index, mask[index], 0.0)
                control = np.where(absent, hope, control)
                graph.meet(t + 1, place.after[np.unique(control[absent])])
            for chosen in np.unique(control[mask[index]]).tolist():
                rows = mask[index] & (control == chosen)
                which = np.flatnonzero(rows.any(axis=1))
                new = nodes["child"][index[which], chosen, 0] < 0
                if new.any():
                    graph.follow(t, place, index[which[new]], chosen)
                heir = graph.offers.after(t, place, chosen)
                assert heir is not None
                child = nodes["child"][index[which], chosen]
                arriving.setdefault(heir.number, []).append((child, rows[which]))
        want = _arrived(graph, t + 1, arriving)
    return missing, reached


def flatten(groups: Sequence[Tasks]) -> Flat:
    """Lay the tasks of all groups side by side."""
    parts, first = [], 0
    for part in groups:
        roots, width = part.coefficient.shape[:2]
        parts.append(
            (
                np.asarray(part.root, float),
                np.repeat(np.arange(roots) + first, width),
                np.asarray(part.coefficient, float).reshape(roots * width, -1),
                np.asarray(part.counted, float).reshape(roots * width, -1),
                np.asarray(part.allowed, bool).reshape(roots * width, -1),
                np.tile(np.arange(width) < part.keep, roots),
            )
        )
        first += roots
    return Flat(*map(np.concatenate, zip(*parts, strict=True)))


def search_process(
    process: AbstractProcess,
    groups: Sequence[Tasks],
    *,
    memory: float = 4e9,
    seconds: float | None = None,
    tolerance: float = 0.0,
    relative: float = 0.0,
    progress: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Searched:
    """Search until bounds meet for every task, within `tolerance` per unit of root mass.

    Or within `relative`, a share of the upper bound: either is enough. `checkpoint`: a folder where
    the state is kept, pass by pass, and found again. `mesh`: devices over which blocks of nodes
    are spread.

    An interrupt ends the search, and its bounds are returned; a second one raises.

    **Raises:** `MemoryError` if one executable plan for every task does not fit; `ArithmeticError`
    if the process's chances are not laws.
    """
    flat = flatten(groups)
    facts = (process, flat), process.horizon, "BranchAndBound", tolerance, relative
    states = States(checkpoint, "branch-and-bound-from-rules", functools.partial(mark_of, *facts))
    with deferred() as interrupts, Bar("bounding", "pass", progress) as bar:
        graph = Graph(process, flat, memory, interrupts.check, mesh)
        passes: Passes = []
        status = Status.WITHIN_TOLERANCE
        order = np.argsort(~flat.kept, kind="stable")
        size, stuck, chosen = 1, np.zeros(len(flat.of), bool), np.zeros(0, np.int64)
        mass = graph.nodes[0][0]["mass"][0][flat.of]
        allowance = np.zeros(len(flat.of))

        def state() -> dict[str, np.ndarray]:
            numbers = {"size": np.array(size), "stuck": stuck, "chosen": chosen}
            numbers |= {"allowance": allowance, "passes": np.reshape(np.array(passes), (-1, 3))}
            return {**numbers, **named("graph", graph_state(graph))}

        def restore(kept: dict[str, np.ndarray]) -> None:
            nonlocal size, stuck, chosen, passes, allowance
            size, stuck, chosen = int(kept["size"]), kept["stuck"].copy(), kept["chosen"]
            passes, allowance = as_passes(kept["passes"]), kept["allowance"]
            restore_graph(graph, within("graph", kept))

        states.resume(restore, state, mesh=mesh)
        began = time.monotonic() - elapsed(passes)
        try:
            while True:
                if not len(chosen):
                    graph.evaluate()
                    upper = graph.nodes[0][0]["upper"][0]
                    allowance = close_enough(tolerance, relative, mass, upper)
                    open_ = (graph.gaps() > allowance) & ~stuck
                    if not open_.any():
                        break
                    chosen = order[open_[order]][:size]
                    graph.take(chosen if len(flat.of) > 1 else chosen[:0])
                wanted = np.zeros(len(flat.of), bool)
                wanted[chosen] = True
                while True:
                    states.save(state)
                    progressed = descend(graph, wanted, allowance)
                    graph.offers.refresh()
                    gap = graph.gaps()
                    worst = float(gap[np.isfinite(gap)].max(initial=0.0))
                    passes.append((graph.count, time.monotonic() - began, worst))
                    bar(1, f"{int((gap > allowance).sum())} open, {graph.count} nodes")
                    if not (gap[chosen] > allowance[chosen]).any():
                        break
                    if not progressed:
                        stuck[chosen] = True
                        break
                    if late(mesh, began, seconds):
                        raise TimeoutError
                size, chosen = min(2 * size, OWN), chosen[:0]
        except Full:
            status = Status.MEMORY_LIMIT
        except TimeoutError:
            status = Status.TIME_LIMIT
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        if status == Status.WITHIN_TOLERANCE and (stuck.any() or max(tolerance, relative) == 0):
            status = Status.EXACT
        complete(graph)
        gap = graph.gaps()
        passes.append((graph.count, time.monotonic() - began, float(gap.max(initial=0.0))))
        top = graph.nodes[0][0]
        value = top["lower"][0]
        lower = value - graph.errors(0, top)[0]
        rounds = _grown(graph)
    upper = np.maximum(top["upper"][0], value)
    return Searched(value, lower, upper, rounds, status, tuple(passes), graph.ill)


def _grown(graph: Graph) -> tuple[Grown, ...]:
    """Cut out what the plans kept can reach, nodes sorted by place."""
    kept = graph.flat.kept
    _, reached = _walk(graph, kept, fill=False)
    shift: list[dict[int, np.ndarray]] = []
    for t, part in enumerate(reached):
        places, at = {}, 0
        for number in sorted(part):
            table = np.full(graph.nodes[t][number].count, -1)
            table[part[number]] = at + np.arange(len(part[number]))
            places[number], at = table, at + len(part[number])
        shift.append(places)
    rounds = []
    way = np.zeros((3, 1), np.int64)
    for t, part in enumerate(reached):
        numbers = sorted(part)
        count = sum(len(part[k]) for k in numbers)
        symbols = 0 if t == graph.last else graph.symbols()
        child = np.full((count, graph.controls, symbols), -1, np.int32)
        action, gaps, place_of = [], [], []
        following = 0 if t == graph.last else sum(map(len, reached[t + 1].values()))
        nextway = np.zeros((3, following), np.int64)
        at = 0
        for k, number in enumerate(numbers):
            index, nodes = part[number], graph.nodes[t][number]
            place = graph.offers.listed[t][number]
            mass = nodes["mass"][index][:, graph.flat.of[kept]]
            gap = nodes["upper"] - nodes["lower"] + graph.errors(t, nodes)
            gap = np.maximum(gap[index][:, kept], 0.0)
            gaps.append(np.where(mass > 0, gap / np.where(mass > 0, mass, 1), 0.0))
            action.append(nodes["action"][index][:, kept])
            place_of.append(np.full(len(index), k))
            for control in np.unique(action[-1]).tolist() if t < graph.last else []:
                rows = np.flatnonzero((action[-1] == control).any(axis=1))
                heir = graph.offers.after(t, place, control)
                assert heir is not None
                to = shift[t + 1][heir.number][nodes["child"][index[rows], control]]
                child[at + rows, control] = to
                nextway[0, to] = (at + rows)[:, None]
                nextway[1, to] = control
                nextway[2, to] = np.arange(symbols)
            at += len(index)
        memory = np.stack([graph.offers.listed[t][number].memory for number in numbers])
        joined = (np.concatenate(x) for x in (place_of, action, gaps))
        which, taken, left = joined
        rounds.append(Grown(memory, which, way[0], way[1], way[2], child, taken, left))
        way = nextway
    return tuple(rounds)
