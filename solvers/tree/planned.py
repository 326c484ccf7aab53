"""The tree that an exact solve works on, if it fits: of every round, or of all but the last."""

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from solvers.problem import Structure, Tables, Tasks
from solvers.tree.estimate import (
    WAY_BYTES,
    Work,
    estimate,
    foreseen_nodes,
    glance,
)
from solvers.tree.numbering import numbering
from solvers.tree.tree import Tree, bound_nodes, build_tree

CACHE = 64e6  # bytes that are there however little memory is allowed
_HOPELESS = 50  # times the nodes that a round may have, from which on no tree is begun
_GROWN = 1.05  # times what was looked at: again worth an estimate, which goes through all rounds
_FAR = 4.0  # times the memory allowed, foreseen, from which on all rounds are not tried


@runtime_checkable
class Settings(Protocol):
    """Of a solver: bytes that may live at once, whether histories are merged, seconds."""

    @property
    def memory(self) -> float: ...
    @property
    def merge(self) -> bool: ...
    @property
    def seconds(self) -> float | None: ...


def plan_rounds(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: Settings,
    listed: bool | None,
) -> tuple[Work, Tree]:
    """`plan_tree` of every round, or of all but the last.

    **Arguments:** `listed`: whether the last round must be there; None: where it fits. Where
    coefficients move, or there is one round, it must.
    """
    given, before = (structure, tables, tasks, solver), structure.horizon - 1
    if listed or not before or any(part.kernel is not None for part in tasks):
        return plan_tree(*given)
    if listed is not None:
        return plan_tree(*given, rounds=before)
    try:
        return plan_tree(*given, far=None if solver.seconds else _FAR)
    except (MemoryError, TimeoutError) as error:
        refused = error
    try:
        return plan_tree(*given, rounds=before)
    except (MemoryError, TimeoutError):
        raise refused from None


def plan_tree(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    solver: Settings,
    rounds: int | None = None,
    far: float | None = None,
) -> tuple[Work, Tree]:
    """Estimate the work, refuse what will not fit, and build the tree.

    **Arguments:** `rounds`: list only the first so many, all but the last; `far`: refuse as soon as
    rounds that go on growing as they do need that many times the memory.

    **Raises:** `MemoryError`; `TimeoutError` as soon as `solver.seconds` are seen not to be enough.
    """
    began = time.monotonic()
    given, rate = (structure, tables, tasks, solver.memory), numbering(structure).rate
    listed, short = rounds or structure.horizon, rounds is not None

    looked = [0.0, 0.0]  # at so many rounds and ways

    def fits(counts: list[int], ways: int) -> None:
        if ways * WAY_BYTES > max(solver.memory, CACHE):
            raise MemoryError(f"round {len(counts) + 1} is reached in {ways:.3g} ways")
        now = float(len(counts)), float(ways)
        grown = any(_GROWN * before < x for before, x in zip(looked, now, strict=True))
        if (solver.seconds is None and far is None) or not (grown or len(counts) == listed):
            return
        looked[:] = now
        every = foreseen_nodes(counts, listed)
        work = estimate(*given, every, ahead=short and len(every) == listed)
        takes = max(work.seconds, time.monotonic() - began + ways / rate)
        if solver.seconds is not None and takes > solver.seconds:
            more = "more than " if len(counts) < listed else ""
            took = f"an estimate of {more}{takes:.3g} s for {more}{work.nodes:.3g} nodes"
            raise TimeoutError(f"{took} of {solver.seconds:.3g} s allowed")
        allowed = max(solver.memory, CACHE) * (1.0 if far is None else far)
        if work.memory > allowed:
            raise MemoryError(f"about {work.nodes:.3g} nodes in {work.memory / 1e9:.3g} GB")

    bound = estimate(*given, bound_nodes(structure, solver.merge)[:listed], ahead=short)
    most = int(solver.memory / (4 * structure.controls * max(structure.symbols, 1)))
    # Histories that are few columns multiplied merge into far fewer nodes than there are multisets.
    if bound.nodes > _HOPELESS * most < sum(glance(structure, listed, solver.merge)):
        raise MemoryError(_needs(f"up to {bound.nodes:.3g} nodes, {bound.seconds:.3g} s", bound))
    try:
        tree = build_tree(structure, solver.merge, limit=most, grows=fits, rounds=rounds)
    except MemoryError as error:
        raise MemoryError(_needs(str(error), bound)) from error
    counts = [layer.nodes for layer in tree.layers]
    work = estimate(*given, counts, ahead=short)
    fits(counts, 0)
    if work.memory > max(solver.memory, CACHE):
        raise MemoryError(_needs(f"{sum(counts)} nodes", work))
    return work, tree


def _needs(what: str, work: Work) -> str:
    return f"{what} (estimate: {work.nodes:.3g} nodes, {work.bytes / 1e9:.3g} GB)"
