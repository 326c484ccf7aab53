"""Exact solution by backward recursion over the merged tree, root chunk by root chunk.

Guarantee: values exact up to rounding. Memory: the roots solved together, and the nodes handled
together, are chosen so that what lives at once stays below `Exact.memory`.
"""

import dataclasses
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

import equinox as eqx
import jax
import numpy as np

from solvers.checkpoint import Checkpoint
from solvers.checks import check_fields, flag, optional, positive
from solvers.devices import at_hand, check_mesh, shares, spread
from solvers.files import fingerprint
from solvers.problem import Structure, Tables, TaskList, Tasks, cast
from solvers.process import Problem
from solvers.progress import Bar, deferred
from solvers.single import make_room, near_one, remarks, times
from solvers.solution import AbstractSolver, Limits, Solution, Status, Unsuited
from solvers.table import Answer, PlanTable, flat
from solvers.ties import signed
from solvers.tree.backward import HOST_SECONDS, likelihood_rows, rounds_on_host, sweep
from solvers.tree.estimate import ROOT_SHARE, START, root_bytes, roots_together, second_run
from solvers.tree.planned import CACHE, plan_rounds
from solvers.tree.reached import kept_only, reached_tree, with_last_round
from solvers.tree.tree import Tree

_HELD = 0.8  # of what listing laws took, how much the system has not got back
_SMALL = 1e6  # bytes of laws that are not counted
_FEW = 64  # roots that any number of light ones are padded to
_LITTLE = 2e7  # operations that this may cost


class Exact(AbstractSolver):
    """Solve exactly over all reachable histories.

    **Arguments**

    - `memory`: bytes that may live at once, default 4e9.
    - `merge`: False keeps every history apart; the answer is the same, for checking.
    - `seconds`: refused before work where the estimate, which is rough, is longer; None: never.
    - `listed`: whether the histories of the last round must be in the tree. None: where they fit;
      else, of constant coefficients in float64, they are worked out from the round before, and the
      tree is of what the plans kept can reach. False: always so; the answer is the same.
    """

    memory: float = eqx.field(static=True, default=4e9)
    merge: bool = eqx.field(static=True, default=True)
    seconds: float | None = eqx.field(static=True, default=None)
    listed: bool | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        fields = {"memory": positive, "merge": flag, "seconds": optional(positive)}
        check_fields(self, **fields, listed=optional(flag))

    def solve(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        """Solve every task exactly; see `AbstractSolver.solve`."""
        if problem.horizon == math.inf:
            do = "solve with BestFirst() or PointBased(), and a tolerance"
            raise Unsuited("horizon", "be finite for Exact()", problem.horizon, do)
        check_mesh(limits.mesh, sum(len(part.root) for part in tasks.groups), "roots")
        listed = problem.lists(max(self.memory, _SMALL))
        room_left = self.memory - (listed.size if listed.size > _SMALL else 0.0)
        if room_left <= 0:
            raise MemoryError(f"laws of {len(listed.structure.columns)} edges")
        inner = dataclasses.replace(self, memory=room_left)
        structure, numbers, groups, room = listed.structure, listed.tables, tasks.groups, None
        powers = None
        if limits.single:
            groups, powers = near_one(groups)
            structure, room = make_room(structure, numbers, groups, limits.tolerance)
        with deferred() as interrupts, interrupts.now():
            listing = True if limits.single else self.listed
            work, tree = plan_rounds(structure, numbers, groups, inner, listing)
            answers = solve_exact(
                tree,
                numbers,
                groups,
                inner,
                checkpoint=limits.checkpoint,
                mesh=limits.mesh,
                progress=progress,
                dtype=None if room is None else np.float32,
                losses=room is not None,
            )
            whole = len(tree.layers) == structure.horizon
            if not whole:
                tree = reached_tree(tree, answers)
                rest = solve_exact(tree, numbers, kept_only(groups), inner)
                answers = with_last_round(answers, rest)
        if powers is not None:
            answers = list(map(times, answers, powers))
        gap = None if room is None else [answer.loss for answer in answers]
        table = PlanTable(tree, None, answers, gap, complete=whole)
        lower, upper = (flat([getattr(x, name) for x in answers]) for name in ("lower", "upper"))
        # Beside a tree without its last round what listing laws took counts: most is still held.
        held = work.memory + listed.size + (0.0 if whole else _HELD * listed.bytes)
        return Solution(
            lower,
            upper,
            Status.EXACT,
            table,
            value=table.value,
            note=("" if whole else "the last round is not listed") + remarks(answers, tasks, room),
            nodes=work.nodes,
            bytes=START + work.beside + max(held, listed.bytes + listed.size),
            seconds=work.seconds,
            table=table,
            rounding=upper - lower,
        )


def solve_exact(
    tree: Tree,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: Exact,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = False,
    dtype: type[np.floating] | None = None,
    losses: bool = False,
) -> list[Answer]:
    """Solve every group of tasks.

    **Arguments:** `tree`, `tables`; `tasks`: groups of roots with equally many tasks;
    `checkpoint`: a folder where finished chunks are kept and found again; `mesh`: devices over
    which they are spread; `progress`: show a bar; `dtype`: the precision to work in, that of the
    numbers by default; `losses`: whether those at every node are wanted.

    **Raises:** `MemoryError` if one root alone passes `solver.memory`.
    """
    if dtype is not None:
        tables, tasks = cast(tables, dtype), [cast(part, dtype) for part in tasks]
    counts = [layer.nodes for layer in tree.layers]
    chunks = [
        (g, *chunk)
        for g, part in enumerate(tasks)
        for chunk in _chunks(part, tables, counts, tree.structure, solver, shares(mesh))
    ]
    store = None
    if checkpoint is not None:
        numbers = [*jax.tree.leaves((tables, tuple(tasks), tree)), [part.keep for part in tasks]]
        store = Checkpoint(checkpoint, fingerprint(np.asarray(x) for x in numbers))
    total = sum(tree.nodes * (stop - start) for _, start, stop, _ in chunks)
    given = tables, counts, tree.structure, solver.memory
    two = [mesh is None and second_run(part, *given) > 0 for part in tasks]
    inner = dataclasses.replace(solver, memory=solver.memory / max(shares(mesh), 1 + any(two)))
    classes = [1 + int(np.count_nonzero(np.diff(layer.memory))) for layer in tree.layers]
    given = tree.structure, counts, classes
    on_host = sum(sum(rounds_on_host(*given, tasks[g], width)) for g, _, _, width in chunks)
    # What is compiled for one chunk serves them all: they share the seconds, or need no program.
    host = HOST_SECONDS / (1 if on_host <= HOST_SECONDS else len(chunks))
    ended = threading.Event()
    with Bar("solving", "node", progress, total) as bar:

        def tick(nodes: int) -> None:
            if ended.is_set():
                raise CancelledError
            bar(nodes)

        def one(chunk: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
            group, start, stop, width = chunk
            found = store.load((group, start, stop)) if store else None
            wanted = tree, tasks[group], stop - start, losses
            if store and found is not None and not _whole(found, *wanted):
                store.reject((group, start, stop))  # of another release
                found = None
            if found is not None:
                bar(tree.nodes * (stop - start))
                return found
            parts = tasks[group], start, stop, width
            found = _solve_chunk(tree, tables, *parts, inner, tick, losses, host)
            if store:
                store.save((group, start, stop), found)
            return found

        if mesh is not None:
            found = spread(mesh, one, chunks, ended=ended)
        else:  # what a group's first chunk compiles serves the rest of it
            each = [[chunk for chunk in chunks if chunk[0] == g] for g in range(len(tasks))]
            found = [
                part
                for some, both in zip(each, two, strict=True)
                for part in spread(None, one, some, together=1 + both, ended=ended)
            ]
    answers: list[list[dict[str, np.ndarray]]] = [[] for _ in tasks]
    for (group, *_), part in zip(chunks, found, strict=True):
        answers[group].append(part)
    return [_join(parts, len(counts)) for parts in answers]


def _solve_chunk(
    tree: Tree,
    tables: Tables,
    tasks: Tasks,
    start: int,
    stop: int,
    width: int,
    solver: Exact,
    tick: Callable[[int], None],
    losses: bool,
    host: float,
):
    at = np.minimum(np.arange(start, start + width), stop - 1)
    piece = eqx.tree_at(
        lambda t: (t.root, t.coefficient, t.counted, t.allowed),
        tasks,
        tuple(
            np.asarray(x)[at] for x in (tasks.root, tasks.coefficient, tasks.counted, tasks.allowed)
        ),
    )
    cells = tree.structure.controls * piece.coefficient.shape[0] * piece.coefficient.shape[1]
    block = int(max(8, min(at_hand(CACHE), solver.memory / 5) / (8 * cells)))
    actions, off, first = [], [], None

    def worked(nodes: int) -> None:
        tick(nodes * (stop - start))

    # Bounds on amounts nearly always tell ties from what is not tied; amounts do else.
    for carry in (True,) if losses or np.asarray(tables.column).itemsize < 8 else (False, True):
        counted = worked if first is None else lambda nodes: tick(0)
        actions, off = [], []
        for first in sweep(tree, tables, piece, block=block, tick=counted, host=host, carry=carry):
            actions.append(np.array(first.action))  # not a view of what is there for all tasks
            if losses:
                off.append(first.loss[:, :, : piece.keep])
        if first is not None and not first.ill:
            break
    assert first is not None
    high = np.asarray(first.best, float) + first.error
    found = {"value": np.asarray(first.value), "lower": first.lower, "upper": high}
    found = {name: x[0, : stop - start] for name, x in found.items()}
    for t, taken in enumerate(reversed(actions)):
        found[f"action{t}"] = taken[:, : stop - start]
    if losses:
        off = _per_mass(tree, tables, piece, off[::-1])
    for t, loss in enumerate(off):
        found[f"loss{t}"] = loss[:, : stop - start]
    found["ill"] = np.asarray(first.ill)
    return found


def _whole(
    found: dict[str, np.ndarray], tree: Tree, tasks: Tasks, roots: int, losses: bool
) -> bool:
    """Whether a part has the arrays that `_solve_chunk` makes."""
    value = roots, tasks.coefficient.shape[1]
    shapes: dict[str, tuple[int, ...]] = {"value": value, "lower": value, "upper": value, "ill": ()}
    for t, layer in enumerate(tree.layers):
        for name in ("action", "loss")[: 1 + losses]:
            shapes[f"{name}{t}"] = (layer.nodes, roots, tasks.keep)
    return {name: x.shape for name, x in found.items()} == shapes


def _per_mass(tree: Tree, tables: Tables, tasks: Tasks, loss: list[np.ndarray]):
    """Losses (N_t, R, keep) of every round over the masses of beliefs."""
    column = np.asarray(tables.column, float)
    column = np.concatenate([column, np.ones((1, column.shape[1]))])
    rows = likelihood_rows(tree, column, len(tree.layers))
    root, found = np.asarray(tasks.root, float), []
    for layer, row, one in zip(tree.layers, rows, loss, strict=True):
        mass = (row @ root.T)[layer.likelihood][:, :, None]
        found.append(np.where(mass > 0, one / np.where(mass > 0, mass, 1.0), 0.0))
    return found


def _chunks(
    tasks: Tasks,
    tables: Tables,
    counts: list[int],
    structure: Structure,
    solver: Exact,
    devices: int,
) -> list[tuple[int, int, int]]:
    """Split roots into runs that fit in the memory setting, and how many each is padded to.

    And whose features, what every belief is contracted with, over and over, stay in the cache,
    and their values for some nodes at once.
    Runs are padded to a power of two, or more where that costs little, so that few programs serve
    any number of roots; there is one for every device.
    """
    each = root_bytes(counts, tasks, signed(tables, tasks))
    memory = solver.memory / devices
    if each > ROOT_SHARE * memory:
        got = f"one root needs {each / 1e9:.2f} GB of the {memory / 1e9:.2f} GB allowed"
        raise MemoryError(got + (" on a device" if devices > 1 else ""))
    count, fits = tasks.root.shape[0], roots_together(tasks, tables, counts, structure, memory)
    even = -(-count // devices)
    most = min(1 << fits.bit_length() - 1, 1 << (even - 1).bit_length())
    work = sum(counts) * tasks.coefficient.shape[1] * structure.controls * _FEW
    if 1 < most < _FEW <= fits and work <= _LITTLE and devices == 1:
        most = _FEW
    return [(low, min(low + most, count), most) for low in range(0, count, most)]


def _join(parts: list[dict[str, np.ndarray]], rounds: int) -> Answer:
    value, lower, upper = (
        np.concatenate([part[name] for part in parts]) for name in ("value", "lower", "upper")
    )

    def by_round(name: str):
        return tuple(
            np.concatenate([part[f"{name}{t}"] for part in parts], axis=1)
            for t in range(rounds)
            if f"{name}0" in parts[0]
        )

    ill = any(bool(part["ill"]) for part in parts)
    return Answer(value, by_round("action"), lower, upper, by_round("loss"), ill)
