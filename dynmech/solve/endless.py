"""An infinite horizon: memories that close, conversations that end, and a certified truncation.

The rule must remember finitely many things, so that one table of situations serves every round,
and every sequence of recommendations must let the conversation end with probability one at every
taste (paper C, section 3). Then some number of rounds is enough: the market of so many rounds is
solved, and bounds hold the efficient surplus of the market without an end between them.
"""

from __future__ import annotations

import dataclasses
import math
import os

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import precision
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.problem.compile import (
    Compiled,
    compile_edges,
    next_memories,
    raw_edges,
    tables,
    unique_rows,
)
from dynmech.problem.tasks import Assignment
from dynmech.solve.prepare import rounded_up
from dynmech.solve.running import Solved, allow, run_solver, too_fine
from solvers import (
    BranchAndBound,
    Exact,
    Stationary,
    Truncation,
    endless_cycle,
    truncate,
    truncation_gaps,
    unroll,
)

_RULE = "RecommendationMDP(action_rule=...)"
_VERB = "solve_efficient_policy"
_MOST_MEMORIES = 50_000
_MOST_ROUNDS = 10_000
_RESOLUTION = 1e4
_CUTS = 4


class Endless(eqx.Module):
    """A market without a last round: its structure is one round, which stands for all.

    `depth`: rounds after which every memory can have been reached.
    """

    compiled: Compiled
    depth: int = eqx.field(static=True)


def compile_endless(env: RecommendationMDP, limit: float) -> Endless:
    """Enumerate memories until none is new, compile one round, check that conversations end.

    **Raises:** `InvalidArgument` (memories or laws that need a last round, a conversation that
    never ends), `TooLarge`, and what `compile_market` raises.
    """
    n = env.products
    if env.signals.feedback.periodic():
        must, got = "not depend on the period when horizon is math.inf", "a law for every period"
        call = "RecommendationMDP(signals=SignalStructure(feedback=...))"
        raise InvalidArgument(describe(call, must, got, "use a finite horizon"))
    with precision(env.gamma):
        memories, after, depth = _close(env, limit)
        keys, place = raw_edges(env, [memories, memories], [after], 1)
    always, ever = _shown(after, place[0], len(keys), n)
    found = compile_edges(env, keys, always, ever, np.arange(len(keys)), True, limit)
    edge = found.edge_of[place[0]]
    _check_end(env, found, memories, after, edge)
    structure = _refine(found.structure, edge, after)
    return Endless(dataclasses.replace(found, structure=structure), depth)


def solve_endless(
    env: RecommendationMDP,
    endless: Endless,
    assignment: Assignment,
    solver: Stationary | None,
    *,
    tolerance: float,
    checkpoint: str | os.PathLike | None,
    mesh: jax.sharding.Mesh | None,
    progress: bool,
    single: bool = False,
) -> tuple[RecommendationMDP, Compiled, Solved]:
    """Choose the rounds, solve the market cut off after them, and certify what that costs.

    **Returns:** the market and compilation of so many rounds, and what was found, bounds included.
    """
    _check_tolerance(env, tolerance)
    setting = solver or Stationary()
    options = {"checkpoint": checkpoint, "mesh": mesh, "progress": progress, "single": single}
    exact = Exact(setting.memory, setting.merge)
    try:
        parts = _cut(env, endless, assignment, tolerance)
        if single:
            parts = _cut_again(env, endless, assignment, parts, tolerance)
        found = run_solver(
            *parts[:2], assignment, exact, tolerance=0.0, why="for these rounds", **options
        )
    except TooLarge as error:
        if not tolerance > 0 or not setting.merge:
            raise
        half, bounded = tolerance / 2, BranchAndBound(setting.memory)
        parts = _cut(env, endless, assignment, half)
        if single and (room := _room(parts, assignment)) > half:
            raise too_fine(tolerance, 2 * room) from error
        options["why"] = "for these rounds, because the exact tree does not fit"
        found = run_solver(*parts[:2], assignment, bounded, tolerance=half, **options)
    short, compiled, cut = parts
    why = "as asked" if solver else "picked because horizon is math.inf"
    text = f"{cut.rounds} rounds, cut-off error at most {cut.error:.3g}"
    note = f"Stationary, {why}: {text}; {found.note}"
    return short, compiled, _widen(endless, assignment, found, cut, note)


def _cut(env, endless: Endless, assignment: Assignment, tolerance: float):
    """The market, its compilation and the certificate for the fewest rounds that are enough."""
    numbers = jax.tree.map(np.asarray, tables(env, endless.compiled))
    structure = endless.compiled.structure
    most = _MOST_ROUNDS if tolerance > 0 else max(endless.depth, len(structure.edge[0])) + 1
    cut = truncate(
        structure,
        numbers,
        assignment.groups,
        tolerance=tolerance,
        least=max(1, endless.depth),
        most=most,
    )
    if cut.error > tolerance and not tolerance > 0:
        must = "be positive, in money: the conversation can last longer than any number of rounds"
        do = f"pass, say, tolerance={1e-6 * env.money_scale:.1e}"
        raise InvalidArgument(describe(f"{_VERB}(tolerance=...)", must, tolerance, do))
    if cut.error > tolerance:
        must = f"be reached within {_MOST_ROUNDS} rounds"
        got = f"{tolerance:.3g}, with an error of {cut.error:.3g} after {cut.rounds} rounds"
        do = "raise it, or let the user ask again less often"
        raise TooLarge(describe(f"{_VERB}(tolerance=...)", must, got, do))
    short = RecommendationMDP(
        env.gamma, env.tastes, cut.rounds, env.action_rule, env.signals, env.values, env.names
    )
    compiled = endless.compiled
    unrolled = dataclasses.replace(compiled, structure=unroll(structure, cut.rounds))
    return short, unrolled, cut


def _cut_again(env, endless: Endless, assignment: Assignment, parts, tolerance: float):
    """Leave room in the tolerance for what float32 can be off by in so many rounds."""
    for _ in range(_CUTS):
        room = _room(parts, assignment)
        if tolerance <= 0 or parts[2].error + room <= tolerance:
            return parts
        left = tolerance - 1.1 * room
        if left <= 0:
            break
        parts = _cut(env, endless, assignment, left)
    raise too_fine(tolerance, max(2.2 * room, 1.1 * tolerance))


def _room(parts, assignment: Assignment) -> float:
    """The width that float32 adds to bounds on a market cut off."""
    short, compiled, _ = parts
    numbers = jax.tree.map(np.asarray, tables(short, compiled))
    return 2 * allow(compiled, numbers, assignment, 0.0)[1].total


def _widen(
    endless: Endless, assignment: Assignment, found: Solved, cut: Truncation, note: str
) -> Solved:
    """Add what the rounds after the last can be worth to the bounds, at the roots and inside."""
    if cut.error == 0:
        return dataclasses.replace(found, note=note)
    structure, groups = endless.compiled.structure, assignment.groups
    inside = truncation_gaps(found.tree, structure, found.tables, groups, cut)
    if found.gap is not None:
        pairs = zip(inside, found.gap, strict=True)
        inside = [tuple(a + b for a, b in zip(*both, strict=True)) for both in pairs]
    values = [np.asarray(answer.value, float) for answer in found.answers]
    values = values if found.lower is None else found.lower
    above = values if found.upper is None else found.upper
    return dataclasses.replace(
        found,
        lower=[value - under for value, under in zip(values, cut.under, strict=True)],
        upper=[value + over for value, over in zip(above, cut.over, strict=True)],
        gap=inside,
        note=note,
    )


def _check_tolerance(env: RecommendationMDP, tolerance: float) -> None:
    """Raise unless a positive tolerance is above what the cut-off, in float64, can certify."""
    least = _RESOLUTION * float(np.finfo(np.float64).eps) * env.money_scale
    if 0 < tolerance < least:
        must = f"be at least {rounded_up(least)} money, what float64 numbers can certify"
        raise InvalidArgument(describe(f"{_VERB}(tolerance=...)", must, tolerance, "raise it"))


def _close(env, limit) -> tuple[Int[np.ndarray, "M d"], Int[np.ndarray, "M A"], int]:
    """Every memory, the first being the start; what follows each; rounds until all are found."""
    n, name = env.products, type(env.action_rule).__name__
    try:
        start = np.asarray(env.action_rule.start(n, math.inf))
    except (TypeError, ValueError, OverflowError) as error:
        must = "start from a memory when the horizon is math.inf"
        got = f"{name}.start(products={n}, horizon=inf) failing: {error}"
        raise InvalidArgument(describe(_RULE, must, got, "use a finite horizon")) from error
    if start.ndim != 1 or not np.issubdtype(start.dtype, np.integer):
        must = "start from a vector of integers"
        raise InvalidArgument(describe(_RULE, must, f"shape {start.shape}, type {start.dtype}"))
    known = {tuple(start.tolist()): 0}
    fresh, after, depth = np.asarray(start[None], np.int64), [], 0
    most = min(_MOST_MEMORIES, limit / (8.0 * (n + 1) * max(start.size, 1)))
    while len(fresh):
        grown = np.asarray(next_memories(env.action_rule, fresh, n))
        if grown.shape != (len(fresh), n + 1, start.size):
            must = f"return memories of the length it starts from, {start.size}"
            raise InvalidArgument(describe(f"{_RULE}.step", must, grown.shape[2:]))
        before = len(known)
        flat = map(tuple, grown.reshape(-1, start.size).tolist())
        index = [known.setdefault(memory, len(known)) for memory in flat]
        after.append(np.array(index, np.int64).reshape(len(fresh), n + 1))
        if len(known) > most:
            must = f"remember finitely much, at most {int(most)} memories, when horizon is math.inf"
            got = f"{name}, with {len(known)} after {depth + 1} rounds and more to come"
            do = "remember less, use fewer products, or a finite horizon"
            raise TooLarge(describe(_RULE, must, got, do))
        fresh = np.array(list(known)[before:], np.int64).reshape(-1, start.size)
        depth += len(fresh) > 0
    return np.array(list(known), np.int64), np.concatenate(after), depth


def _shown(after, place, count: int, n: int):
    """Products surely shown, and possibly shown, at each edge, over all ways to reach it."""
    added = np.concatenate([np.eye(n, dtype=bool), np.zeros((1, n), bool)])
    sure = np.ones((len(after), n), bool)
    sure[0] = False
    may = np.zeros((len(after), n), bool)
    while True:
        surely, maybe = sure[:, None] | added, may[:, None] | added
        less, more = sure.copy(), may.copy()
        np.logical_and.at(less, after, surely)
        np.logical_or.at(more, after, maybe)
        if (less == sure).all() and (more == may).all():
            break
        sure, may = less, more
    always, ever = np.ones((count, n), bool), np.zeros((count, n), bool)
    np.logical_and.at(always, place, surely)
    np.logical_or.at(ever, place, maybe)
    return always, ever


def _refine(structure, edge, after):
    """Merge memories that offer the same edges now and lead to the same classes for ever."""
    classes = np.zeros(len(edge), np.int64)
    while True:
        rows = np.concatenate([edge, classes[after]], axis=1).astype(np.int64)
        first, finer = unique_rows(rows)
        if len(first) == classes.max() + 1:
            break
        classes = finer
    here, follow = edge[first].astype(np.int32), classes[after][first].astype(np.int32)
    return dataclasses.replace(structure, edge=(here,), successor=(follow,))


def _check_end(env, found: Compiled, memories, after, edge: Int[np.ndarray, "M A"]) -> None:
    """Raise unless every sequence of recommendations ends the conversation almost surely."""
    query: Float[np.ndarray, "M A m"] = found.action[:, env.products + 1][edge]
    cycle = endless_cycle(after, query, np.asarray(env.tastes.weights) > 0)
    if cycle is None:
        return
    path, point = cycle
    labels = [env.names[r] if r < env.products else "none" for _, r in path]
    taste = np.array2string(np.asarray(env.tastes.points)[point], precision=4, threshold=6)
    memory = np.array2string(memories[path[0][0]], threshold=8)
    shown = ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
    must = (
        "let the user stop asking at some time, whatever is recommended, when horizon is math.inf"
    )
    got = (
        f"query probability 1 for ever if the recommendation is {shown}, over and over, "
        f"from memory {memory} on, at taste point {point}, {taste}"
    )
    do = "make it less than 1, as in ProductQuery(none=0.9), or use a finite horizon"
    raise InvalidArgument(describe(_RULE, must, got, do))
