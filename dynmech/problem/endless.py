"""An infinite horizon: memories that close, and conversations that end.

The rule must remember finitely many things, so that one table of situations serves every round,
and every sequence of recommendations must let the conversation end with probability one at every
taste (paper C, section 3).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from dynmech._types import precision
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.displays import words
from dynmech.market.environment import RecommendationMDP
from dynmech.market.lasting import lasting
from dynmech.problem.compile import (
    next_memories,
    raw_edges,
    unique_rows,
)
from dynmech.problem.edges import Compiled, Edges, compile_edges
from solvers.problem import Structure
from solvers.search.lasting import settling
from solvers.table import Last
from solvers.truncation import endless_cycle

_RULE = "RecommendationMDP(action_rule=...)"
_MOST_MEMORIES = 50_000


def compile_endless(env: RecommendationMDP, limit: float) -> tuple[Compiled, int]:
    """Enumerate memories until none is new, compile one round, check that conversations end.

    **Returns:** the compilation, whose one round stands for all, and after how many rounds every
    memory can have been reached.

    **Raises:** `InvalidArgument` (memories or laws that need a last round, a conversation that
    never ends), `TooLarge`, and what `compile_market` raises.
    """
    if env.signals.feedback.periodic():
        must, got = "not depend on the period when horizon is math.inf", "a law for every period"
        call = "RecommendationMDP(signals=SignalStructure(feedback=...))"
        raise InvalidArgument(describe(call, must, got, "use a finite horizon"))
    with precision(env.gamma):
        memories, after, depth = _close(env, limit)
        keys, place = raw_edges(env, [memories, memories], [after], 1)
    before = env.action_rule.shown_before(env.products)
    always, ever = _shown(before, after, place[0], len(keys), env.members)
    found = compile_edges(env, keys, always, ever, np.arange(len(keys)), True, limit)
    edge = found.edge_of[place[0]]
    _check_end(env, found, memories, after, edge)
    structure = _refine(found.structure, edge, after)
    return dataclasses.replace(found, structure=structure), depth


def with_last(compiled: Compiled, structure: Structure, last: Last) -> Compiled:
    """The compilation of so many rounds, the last of which stands for all that follow.

    **Arguments:** `structure`: of these rounds, its edges those of one round and then those of
    `last`; each is met in the situations of the edge that it begins with.
    """
    edges, first, count = compiled.edges, last.edge, len(compiled.query)
    none = np.zeros((len(first), compiled.query.shape[1]))
    stop = np.asarray(last.tables.stop, float)
    more = edges.memory[first], edges.control[first], np.full(len(first), structure.horizon - 1)
    given = edges.memory, edges.control, edges.period
    memory, control, period = (np.concatenate(both) for both in zip(given, more, strict=True))
    order = np.argsort(compiled.edge_of, kind="stable")
    held = compiled.edge_of[order]
    low, high = np.searchsorted(held, first, "left"), np.searchsorted(held, first, "right")
    at = np.concatenate([order[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True)])
    which = np.repeat(np.arange(len(first)), high - low)
    return Compiled(
        structure,
        Edges(memory, control, period, structure.outcome, edges.column_edge, edges.column_symbol),
        stop,
        np.concatenate([compiled.leave, np.clip(1 - stop[count:].sum(axis=1), 0.0, 1.0)]),
        np.concatenate([compiled.query, none]),
        np.concatenate([compiled.situation, compiled.situation[at]]),
        np.concatenate([compiled.shown, compiled.shown[at]]),
        np.concatenate([compiled.edge_of, count + which]),
        compiled.products,
    )


def written_like(
    call: str, env: RecommendationMDP, held: RecommendationMDP, limit: float = 1e9
) -> RecommendationMDP:
    """As many rounds of a market as of `held`, if there the last one stands for all that follow.

    **Raises:** `InvalidArgument` where that cannot be, and for a market with a last round.
    """
    if held.action_rule.lasts() is None or env.action_rule.lasts() is not None:
        return env
    if env.horizon < math.inf:
        must, got = "have no last round, as the market that was solved", f"{env.horizon} rounds"
        raise InvalidArgument(describe(call, must, got, "make it with horizon=math.inf"))
    with precision(env.gamma):
        times = None if env.toll is not None else settling(_close(env, limit)[1])
    if times is None:
        must = "let a last round stand for all that follow, as the market that was solved does"
        got = "costs of queries" if env.toll is not None else "memories that move for ever"
        raise InvalidArgument(describe(call, must, got))
    return lasting(env, int(held.horizon), times)


def _close(
    env: RecommendationMDP, limit: float
) -> tuple[Int[np.ndarray, "M d"], Int[np.ndarray, "M A"], int]:
    """Every memory, the first being the start; what follows each; rounds until all are found."""
    n, name = env.products, type(env.action_rule).__name__
    width = len(env.controls)
    try:
        start = env.unaware
    except (TypeError, ValueError, OverflowError) as error:
        must = "start from a memory when the horizon is math.inf"
        got = f"{name}.start(products={n}, horizon=inf) failing: {error}"
        raise InvalidArgument(describe(_RULE, must, got, "use a finite horizon")) from error
    if start.ndim != 1 or not np.issubdtype(start.dtype, np.integer):
        must = "start from a vector of integers"
        raise InvalidArgument(describe(_RULE, must, f"shape {start.shape}, type {start.dtype}"))
    known = {tuple(start.tolist()): 0}
    fresh, after, depth = np.asarray(start[None], np.int64), [], 0
    most = min(_MOST_MEMORIES, limit / (8.0 * width * max(start.size, 1)))
    while len(fresh):
        grown = np.asarray(next_memories(env.action_rule, fresh, env.controls, n))
        if grown.shape != (len(fresh), width, start.size):
            must = f"return memories of the length it starts from, {start.size}"
            raise InvalidArgument(describe(f"{_RULE}.step", must, grown.shape[2:]))
        before = len(known)
        flat = map(tuple, grown.reshape(-1, start.size).tolist())
        index = [known.setdefault(memory, len(known)) for memory in flat]
        after.append(np.array(index, np.int64).reshape(len(fresh), width))
        if len(known) > most:
            must = f"remember finitely much, at most {int(most)} memories, when horizon is math.inf"
            got = f"{name}, with {len(known)} after {depth + 1} rounds and more to come"
            do = "remember less, use fewer products, or a finite horizon"
            raise TooLarge(describe(_RULE, must, got, do))
        fresh = np.array(list(known)[before:], np.int64).reshape(-1, start.size)
        depth += len(fresh) > 0
    return np.array(list(known), np.int64), np.concatenate(after), depth


def _shown(before: np.ndarray, after: np.ndarray, place: np.ndarray, count: int, added: np.ndarray):
    """Products surely shown, and possibly shown, at each edge, over all ways to reach it."""
    n = added.shape[1]
    sure = np.ones((len(after), n), bool)
    sure[0] = before
    may = np.zeros((len(after), n), bool)
    may[0] = before
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


def _refine(structure: Structure, edge: np.ndarray, after: np.ndarray):
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


def _check_end(
    env: RecommendationMDP,
    found: Compiled,
    memories: np.ndarray,
    after: np.ndarray,
    edge: Int[np.ndarray, "M A"],
) -> None:
    """Raise unless every sequence of recommendations ends the conversation almost surely."""
    query: Float[np.ndarray, "M A m"] = found.query[edge]
    cycle = endless_cycle(after, query, np.asarray(env.tastes.weights) > 0)
    if cycle is None:
        return
    path, point = cycle
    labels = [words(env)[control] for _, control in path]
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
