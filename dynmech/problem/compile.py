"""From a market to the solvers' problem: the only seam.

Memories reachable in each period are enumerated, an *edge* is a memory after a control,
and two edges are one when they have the same probabilities. Memories from which the same edges
can be reached from here on are one class (partition refinement, backward), so that histories are
merged only where the future is provably the same.

With ``exact=False`` nothing is compared by value: edges are one only if rule and feedback see the
same memory and control, which stays right when `gamma` is replaced by other numbers.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._types import Numbers, precision
from dynmech.errors import (
    InvalidArgument,
    TooLarge,
    describe,
)
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import AbstractFeedback
from dynmech.market.rewards import Toll
from dynmech.market.rules import AbstractActionRule
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.shown import stepped
from dynmech.problem.edges import (
    Compiled,
    Edges,
    actions_jit,
    compile_edges,
    endings_jit,
    law_blocks,
    laws_jit,
    standing,
    told_jit,
)
from solvers import Tables
from solvers.programs import as_program

_MOST_BITS = 62
_RULE = "RecommendationMDP(action_rule=...)"


def compile_market(env: RecommendationMDP, exact: bool = True, limit: float = 8e9) -> Compiled:
    """Enumerate memories and edges, check behaviour and laws, merge what is the same.

    **Arguments:** `exact`: merge what has equal numbers; `limit`: bytes for the tables.

    **Raises:** `UnseenPurchase`, `InvalidProbability`, `InvalidArgument`, `TooLarge`.
    """
    found, _, place, after = _compile(env, exact, limit)
    edge, successor = _refine([found.edge_of[p] for p in place], after)
    structure = dataclasses.replace(found.structure, edge=tuple(edge), successor=tuple(successor))
    return dataclasses.replace(found, structure=structure)


def compile_remembered(
    env: RecommendationMDP, limit: float = 8e9
) -> tuple[Compiled, list[Int[np.ndarray, "_M d"]]]:
    """As `compile_market`, with every memory in a class of its own; and the memories by class.

    Whoever reads the memory can then be asked at a node.
    """
    found, memories, place, after = _compile(env, True, limit)
    edge = tuple(found.edge_of[p].astype(np.int32) for p in place)
    successor = [part.astype(np.int32) for part in after]
    successor[-1] = np.zeros_like(successor[-1])
    structure = dataclasses.replace(found.structure, edge=edge, successor=tuple(successor))
    return dataclasses.replace(found, structure=structure), memories


def _compile(env: RecommendationMDP, exact: bool, limit: float):
    """Edges without what may follow what; memories, their edges, and which follows which."""
    n, horizon = env.products, int(env.horizon)
    with precision(env.gamma):
        memories, after = enumerate_memories(env, horizon, limit)
        keys, place = raw_edges(env, memories, after, horizon)
    before = env.action_rule.shown_before(n)
    always, ever = _shown(before, memories, after, place, len(keys), env.members)
    continuing = np.unique(np.concatenate([p.ravel() for p in place[:-1]] or [np.zeros(0, int)]))
    found = compile_edges(env, keys, always, ever, continuing, exact, limit)
    return found, memories, place, after


def tables(env: RecommendationMDP, compiled: Compiled, gamma: Numbers | None = None) -> Tables:
    """The problem's numbers; a traceable function of `gamma` when it is given."""
    rules, more = (env.action_rule, env.signals.feedback), (env.exit_value, env.toll)
    if gamma is not None:
        given, shown = jnp.asarray(gamma), env.controls[compiled.edges.control]
        ends = standing(env, compiled.edges.period)
        last = ends if ends.any() else None
        return _tables_jit(rules, compiled.edges, shown, given, env.tastes.points, more, last)
    reward = np.asarray(env.gains, float)
    if env.toll is not None:
        reward = np.concatenate([reward, -np.asarray(env.toll.unit, float)[None]])
    return Tables(compiled.stop, _columns(env, compiled), reward)


def _columns(env: RecommendationMDP, compiled: Compiled) -> Float[np.ndarray, "C m"]:
    """Likelihood columns y_q L(z | .), by the program that told edges apart."""
    edges = compiled.edges
    of, symbol = edges.column_edge, edges.column_symbol
    column = np.zeros((len(of), env.tastes.size))
    if not len(of):
        return column
    used, place = np.unique(of, return_inverse=True)
    given = edges.memory[used], env.controls[edges.control[used]], edges.period[used]
    for low, part in law_blocks(env, *given):
        mine = np.flatnonzero((place >= low) & (place < low + len(part.law)))
        column[mine] = part.law[place[mine] - low, :, symbol[mine]]
    return compiled.query[of] * column


@as_program
def _tables_jit(
    rules: tuple[AbstractActionRule, AbstractFeedback],
    edges: Edges,
    shown: Numbers,
    gamma: Numbers,
    points: Numbers,
    more: tuple[Numbers, Toll | None],
    last: Numbers | None,
) -> Tables:
    (rule, feedback), (leaving, toll) = rules, more
    utilities = gamma @ jnp.asarray(points).T
    action = actions_jit(rule, edges.memory, shown, utilities)
    if last is not None:
        ends = endings_jit(rule, edges.memory, shown, utilities)
        action = jnp.where(jnp.asarray(last)[:, None, None], ends, action)
    chance, reward = action, utilities - jnp.asarray(leaving)
    if toll is not None:
        running = action[:, -1] * jnp.asarray(toll.rate)[edges.control]
        chance = jnp.concatenate([action[:, :-2], running[:, None]], axis=1)
        reward = jnp.concatenate([reward, -jnp.asarray(toll.unit)[None]])
    stop = jnp.take_along_axis(chance, jnp.maximum(edges.slot, 0)[:, :, None], axis=1)
    stop = jnp.where(edges.slot[:, :, None] >= 0, stop, 0.0)
    column = jnp.zeros((0, utilities.shape[1]), utilities.dtype)
    if len(edges.column_edge):
        of = edges.column_edge
        law = laws_jit(feedback, edges.memory, shown, edges.period, utilities)
        column = action[of, -1] * law[of, :, edges.column_symbol]
    return Tables(stop, column, reward)


def told_laws(
    env: RecommendationMDP, compiled: Compiled, signal: AbstractSettlementSignal
) -> Float[np.ndarray, "E *L n m"]:
    """`signal.laws` at every edge, of u_j - x."""
    with precision(env.gamma):
        every = np.asarray(
            told_jit(
                signal, compiled.situation, env.controls[compiled.shown], jnp.asarray(env.gains)
            )
        )
    told = np.zeros((len(compiled.query), *every.shape[1:]))
    told[compiled.edge_of] = every
    return told


def enumerate_memories(env: RecommendationMDP, horizon: int, limit: float):
    """Distinct memories of each period, and for each the index of the one that follows."""
    n, width = env.products, len(env.controls)
    start = env.unaware
    if start.ndim != 1 or not np.issubdtype(start.dtype, np.integer):
        must = "start from a vector of integers"
        raise InvalidArgument(describe(_RULE, must, f"shape {start.shape}, type {start.dtype}"))
    memories, after = [start[None].astype(np.int64)], []
    for _ in range(horizon):
        here = memories[-1]
        if after and np.array_equal(here, memories[-2]):  # from here on nothing is new
            memories.append(here)
            after.append(after[-1])
            continue
        if len(here) * width * start.size * 8 > limit:
            got = f"{len(here)} memories in period {len(memories)}"
            raise TooLarge(describe(_RULE, "remember less", got, "reduce products or rounds"))
        grown = np.asarray(next_memories(env.action_rule, here, env.controls, n))
        if grown.shape != (len(here), width, start.size):
            must = f"return memories of the length it starts from, {start.size}"
            raise InvalidArgument(describe(f"{_RULE}.step", must, grown.shape[2:]))
        unique, index = distinct_integers(grown.reshape(-1, start.size).astype(np.int64))
        # Each is a situation of its own, where one product at least is bought, or not.
        if 2.0 * len(unique) * 3 * env.tastes.size * 8 > limit:
            got = f"{len(unique)} memories after period {len(memories)}"
            do = "reduce products, rounds or tastes, raise memory, or search with a tolerance"
            raise TooLarge(describe(_RULE, f"need at most {limit / 1e9:.3g} GB", got, do))
        memories.append(unique)
        after.append(index.reshape(len(here), width))
    return memories, after


@as_program
def next_memories(rule: AbstractActionRule, memories: Numbers, controls: Numbers, products: int):
    def step(memory: Array, shown: Array):
        return stepped(rule, memory, shown, products)

    each = jax.vmap(jax.vmap(step, in_axes=(None, 0)), in_axes=(0, None))
    return each(jnp.asarray(memories), jnp.asarray(controls))


def raw_edges(
    env: RecommendationMDP, memories: list[np.ndarray], after: list[np.ndarray], horizon: int
):
    """Distinct (memory after, control, period), and which of them follows each memory."""
    clock, lasts = env.signals.feedback.periodic(), env.action_rule.lasts() is not None
    rows = []
    for t in range(horizon):
        grown = memories[t + 1][after[t]]
        shape = grown.shape[:2]
        control = np.broadcast_to(np.arange(shape[1]), shape)[..., None]
        own = clock or (lasts and t == horizon - 1)
        period = np.full((*shape, 1), t if own else 0)
        rows.append(np.concatenate([grown, control, period], axis=2))
    width = rows[0].shape[2]
    keys, index = distinct_integers(np.concatenate([r.reshape(-1, width) for r in rows]))
    ends = np.cumsum([r.shape[0] * r.shape[1] for r in rows])
    parts = np.split(index.reshape(-1), ends[:-1])
    return keys, [part.reshape(r.shape[:2]) for part, r in zip(parts, rows, strict=True)]


def _shown(
    before: np.ndarray,
    memories: list[np.ndarray],
    after: list[np.ndarray],
    place: list[np.ndarray],
    count: int,
    added: np.ndarray,
):
    """Products surely shown, and possibly shown, at each edge, over all ways to reach it.

    `added` (C, n): what each control shows.
    """
    n = added.shape[1]
    always, ever = np.ones((count, n), bool), np.zeros((count, n), bool)
    sure, may = [before[None]], [before[None]]
    for t, follow in enumerate(after):
        surely, maybe = sure[t][:, None] | added, may[t][:, None] | added
        np.logical_and.at(always, place[t], surely)
        np.logical_or.at(ever, place[t], maybe)
        next_sure = np.ones((len(memories[t + 1]), n), bool)
        next_may = np.zeros((len(memories[t + 1]), n), bool)
        np.logical_and.at(next_sure, follow, surely)
        np.logical_or.at(next_may, follow, maybe)
        sure.append(next_sure)
        may.append(next_may)
    return always, ever


def distinct_integers(
    rows: Int[np.ndarray, "R d"],
) -> tuple[Int[np.ndarray, "U d"], Int[np.ndarray, " R"]]:
    """Distinct rows in the order of tuples, and the number of each row; as `numpy.unique`.

    Rows of few values are compared as one integer each, in mixed radix; where there are more rows
    than such integers, none is sorted.
    """
    low = rows.min(axis=0, initial=0)
    radix = rows.max(axis=0, initial=0) - low + 1
    if not rows.shape[1] or np.log2(radix).sum() > _MOST_BITS:
        unique, index = np.unique(rows, axis=0, return_inverse=True)
        return unique, index.reshape(-1)
    weight = np.append(np.cumprod(radix[:0:-1])[::-1], 1).astype(np.int64)
    code, many = (rows - low) @ weight, int(np.prod(radix))
    if many > len(rows):
        _, first, index = np.unique(code, return_index=True, return_inverse=True)
        return rows[first], index.reshape(-1)
    first = np.full(many, -1)
    first[code] = np.arange(len(rows))
    number = np.cumsum(first >= 0) - 1
    return rows[first[first >= 0]], number[code]


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First occurrence of every distinct row, and the number of each row; bitwise equality."""
    if len(rows) == 0:
        return np.zeros(0, int), np.zeros(0, int)
    packed = np.ascontiguousarray(rows)
    packed = packed.view(np.dtype((np.void, packed.dtype.itemsize * packed.shape[1]))).ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return np.sort(first), rank[inverse.reshape(-1)]


def _refine(edges: list[np.ndarray], after: list[np.ndarray]):
    """Merge memories that offer the same edges now and lead to the same classes."""
    tables_: list[np.ndarray] = []
    successors: list[np.ndarray] = []
    classes = np.zeros(0, np.int64)
    for t in reversed(range(len(edges))):
        follow = classes[after[t]] if t < len(edges) - 1 else np.zeros_like(after[t])
        first, classes = unique_rows(np.concatenate([edges[t], follow], axis=1).astype(np.int64))
        tables_.append(edges[t][first].astype(np.int32))
        successors.append(follow[first].astype(np.int32))
    return tables_[::-1], successors[::-1]
