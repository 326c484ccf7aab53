"""From a market to the solvers' problem: the only seam.

Memories reachable in each period are enumerated, an *edge* is a memory after a control,
and two edges are one when they have the same probabilities. Memories from which the same edges
can be reached from here on are one class (partition refinement, backward), so that histories are
merged only where the future is provably the same.

With ``exact=False`` nothing is compared by value: edges are one only if rule and feedback see the
same memory and control, which stays right when `gamma` is replaced by other numbers.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Numbers, precision
from dynmech.errors import (
    InvalidArgument,
    InvalidProbability,
    NotFinite,
    TooLarge,
    UnseenPurchase,
    describe,
)
from dynmech.market.environment import RecommendationMDP
from dynmech.market.shown import acts, alone, answers, stepped
from dynmech.market.signals import AbstractSettlementSignal
from solvers import Structure, Tables, as_program, drift, relations

_RULE = "RecommendationMDP(action_rule=...)"
_FEEDBACK = "RecommendationMDP(signals=SignalStructure(feedback=...))"


class Edges(eqx.Module):
    """One representative of every edge, and where its columns come from.

    - `memory` (E, d), `control` (E,), `period` (E,): arguments that give its laws.
    - `slot` (E, J): the product of each slot, -1 where empty, n what a query costs.
    - `column_edge`, `column_symbol` (C,): the edge and the joint symbol of each column.
    """

    memory: Int[np.ndarray, "E d"]
    control: Int[np.ndarray, " E"]
    period: Int[np.ndarray, " E"]
    slot: Int[np.ndarray, "E J"]
    column_edge: Int[np.ndarray, " C"]
    column_symbol: Int[np.ndarray, " C"]


class Compiled(eqx.Module):
    """A market as the solvers see it, and the way back.

    `action` (E, n+2, m) are the action probabilities of the edges. `situation` (S, d), `shown`
    (S,): every memory and control, before edges were merged, and `edge_of` (S,).
    """

    structure: Structure
    edges: Edges
    action: Float[np.ndarray, "E n2 m"]
    situation: Int[np.ndarray, "S d"]
    shown: Int[np.ndarray, " S"]
    edge_of: Int[np.ndarray, " S"]


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


def compile_edges(env, keys, always, ever, continuing, exact: bool, limit: float) -> Compiled:
    """Check and merge the edges of a market: all but what may follow what.

    **Arguments:** `keys` (S, d+2): memory, control, period of each situation; `always`,
    `ever` (S, n): products surely, possibly shown there; `continuing`: what something may follow.
    """
    n = env.products
    with precision(env.gamma):
        symbols = math.prod(env.feedback_alphabet)
        size = len(keys) * (n + 2 + symbols) * env.tastes.size * 8
        if size > limit:
            got = f"{len(keys)} situations x {n + 2 + symbols} laws: {size / 1e9:.3g} GB"
            do = "use fewer tastes, symbols, rounds, a rule that remembers less, or more memory"
            raise TooLarge(describe(_RULE, f"need at most {limit / 1e9:.3g} GB", got, do))
        memory, control, period = keys[:, :-2], keys[:, -2], keys[:, -1]
        signals = env.signals
        rules = (env.action_rule, signals.feedback, signals.settlement)
        action, law, told = map(
            np.asarray,
            _behaviour_jit(
                rules, memory, env.controls[control], period, jnp.asarray(env.utilities),
                jnp.asarray(env.gains),
            ),
        )  # fmt: skip
    _check_actions(env, action, always)
    _check_laws(law)
    query = action[:, n + 1]
    column_id, column_edge, column_symbol, dead = _columns(query, law, continuing, exact)
    digits, offset, off = None, None, 0.0
    if exact and len(column_edge):
        column = query[column_edge] * law[column_edge, :, column_symbol]
        digits, offset = relations(column)
        off = drift(column, digits, offset)
    buyable = action[:, :n].any(axis=2) if exact else ever
    slot, toll = _slots(buyable), env.toll
    told = told.reshape(len(told), -1, n, env.tastes.size)
    settled = np.where(action[:, None, :n] > 0, told, 0.0)
    settled = settled.reshape(len(told), -1, env.tastes.size)
    if toll is not None:
        running = query * toll.rate[control]
        asked = running.any(axis=1) if exact else np.ones(len(slot), bool)
        slot = np.concatenate([slot, np.where(asked, n, -1)[:, None]], axis=1)
        settled = np.concatenate([settled, running[:, None]], axis=1)
    first, merged = _merge_edges(action, settled, column_id, exact)
    structure = Structure(
        edge=(),
        successor=(),
        columns=column_id[first].astype(np.int32),
        outcome=slot[first].astype(np.int32),
        controls=len(env.controls),
        outcomes=n + (toll is not None),
        column_count=len(column_edge),
        dead=dead,
        digits=digits,
        offset=offset,
        drift=off,
    )
    kept = (memory[first], control[first], period[first], slot[first])
    edges = Edges(*kept, merged[column_edge], column_symbol)
    return Compiled(structure, edges, action[first], memory, control, merged)


def tables(env: RecommendationMDP, compiled: Compiled, gamma: Numbers | None = None) -> Tables:
    """The problem's numbers; a traceable function of `gamma` when it is given."""
    given = jnp.asarray(env.gamma if gamma is None else gamma)
    action = jnp.asarray(compiled.action) if gamma is None else None
    shown, more = env.controls[compiled.edges.control], (env.exit_value, env.toll)
    rules = env.action_rule, env.signals.feedback
    return _tables_jit(rules, compiled.edges, shown, action, given, env.tastes.points, more)


@as_program
def _tables_jit(rules, edges, shown, action, gamma, points, more) -> Tables:
    (rule, feedback), (leaving, toll) = rules, more
    utilities = gamma @ jnp.asarray(points).T
    if action is None:
        action = _actions_jit(rule, edges.memory, shown, utilities)
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
        law = _laws_jit(feedback, edges.memory, shown, edges.period, utilities)
        column = action[of, -1] * law[of, :, edges.column_symbol]
    return Tables(stop, column, reward)


def told_laws(
    env: RecommendationMDP, compiled: Compiled, signal: AbstractSettlementSignal
) -> Float[np.ndarray, "E *L n m"]:
    """`signal.laws` at every edge, of u_j - x."""
    with precision(env.gamma):
        every = np.asarray(
            _told_jit(
                signal, compiled.situation, env.controls[compiled.shown], jnp.asarray(env.gains)
            )
        )
    told = np.zeros((len(compiled.action), *every.shape[1:]))
    told[compiled.edge_of] = every
    return told


@as_program
def _told_jit(signal, memory, shown, gains):
    """All by which the signal tells situations apart, shape (S, *L, n, m)."""
    laws = jax.vmap(lambda m, r: signal.laws(m, alone(r), gains))
    return laws(jnp.asarray(memory), jnp.asarray(shown))


def enumerate_memories(env, horizon, limit):
    """Distinct memories of each period, and for each the index of the one that follows."""
    n, width = env.products, len(env.controls)
    start = env.unaware
    if start.ndim != 1 or not np.issubdtype(start.dtype, np.integer):
        must = "start from a vector of integers"
        raise InvalidArgument(describe(_RULE, must, f"shape {start.shape}, type {start.dtype}"))
    memories, after = [start[None].astype(np.int64)], []
    for _ in range(horizon):
        here = memories[-1]
        if len(here) * width * start.size * 8 > limit:
            got = f"{len(here)} memories in period {len(memories)}"
            raise TooLarge(describe(_RULE, "remember less", got, "reduce products or rounds"))
        grown = np.asarray(next_memories(env.action_rule, here, env.controls, n))
        if grown.shape != (len(here), width, start.size):
            must = f"return memories of the length it starts from, {start.size}"
            raise InvalidArgument(describe(f"{_RULE}.step", must, grown.shape[2:]))
        unique, index = np.unique(
            grown.reshape(-1, start.size).astype(np.int64), axis=0, return_inverse=True
        )
        # Each is a situation of its own, with the action law that it needs.
        if len(unique) * (n + 2) * env.tastes.size * 8 > limit:
            got = f"{len(unique)} memories after period {len(memories)}"
            do = "reduce products, rounds or tastes, raise memory, or search with a tolerance"
            raise TooLarge(describe(_RULE, f"need at most {limit / 1e9:.3g} GB", got, do))
        memories.append(unique)
        after.append(index.reshape(len(here), width))
    return memories, after


@as_program
def next_memories(rule, memories, controls, products):
    def step(memory, shown):
        return stepped(rule, memory, shown, products)

    each = jax.vmap(jax.vmap(step, in_axes=(None, 0)), in_axes=(0, None))
    return each(jnp.asarray(memories), jnp.asarray(controls))


def raw_edges(env, memories, after, horizon):
    """Distinct (memory after, control, period), and which of them follows each memory."""
    clock = env.signals.feedback.periodic()
    rows = []
    for t in range(horizon):
        grown = memories[t + 1][after[t]]
        shape = grown.shape[:2]
        control = np.broadcast_to(np.arange(shape[1]), shape)[..., None]
        period = np.full((*shape, 1), t if clock else 0)
        rows.append(np.concatenate([grown, control, period], axis=2))
    width = rows[0].shape[2]
    keys, index = np.unique(
        np.concatenate([r.reshape(-1, width) for r in rows]), axis=0, return_inverse=True
    )
    ends = np.cumsum([r.shape[0] * r.shape[1] for r in rows])
    parts = np.split(index.reshape(-1), ends[:-1])
    return keys, [part.reshape(r.shape[:2]) for part, r in zip(parts, rows, strict=True)]


@as_program
def _actions_jit(rule, memory, shown, utilities):
    law = jax.vmap(lambda m, r: acts(rule, m, r, utilities))
    return law(jnp.asarray(memory), jnp.asarray(shown))


@as_program
def _laws_jit(feedback, memory, shown, period, utilities):
    law = jax.vmap(lambda m, r, t: answers(feedback, m, r, t, utilities))
    return law(jnp.asarray(memory), jnp.asarray(shown), jnp.asarray(period))


@as_program
def _behaviour_jit(rules, memory, shown, period, utilities, gains):
    """Actions, laws of the feedback and what settles purchases, of every situation."""
    rule, feedback, signal = rules
    return (
        _actions_jit(rule, memory, shown, utilities),
        _laws_jit(feedback, memory, shown, period, utilities),
        _told_jit(signal, memory, shown, gains),
    )


def _shown(before, memories, after, place, count, added):
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


def _check_actions(env, action, always):
    n = env.products
    if action.shape[1:] != (n + 2, env.tastes.size):
        must = f"return probabilities of shape {(n + 2, env.tastes.size)}"
        raise InvalidArgument(describe(f"{_RULE}.probabilities", must, action.shape[1:]))
    if not np.isfinite(action).all():
        raise NotFinite(describe(f"{_RULE}.probabilities", "be finite", "NaN or infinity"))
    gap = np.abs(action.sum(axis=1) - 1)
    if (action < -1e-12).any() or (gap > _tolerance(action)).any():
        must = "be nonnegative and sum to 1 over buying, leaving, asking again"
        got = f"smallest {action.min():.3g}, largest error of a sum {gap.max():.3g}"
        raise InvalidProbability(describe(f"{_RULE}.probabilities", must, got))
    bad = (action[:, :n] > 0).any(axis=2) & ~always
    if bad.any():
        product = env.names[int(np.argwhere(bad)[0, 1])]
        must = "let the user buy only what has been recommended (Assumption 1)"
        got = f"a positive probability of buying {product!r} before it was shown"
        raise UnseenPurchase(describe(_RULE, must, got, "make it zero until it is shown"))


def _check_laws(law):
    gap = np.abs(law.sum(axis=2) - 1)
    if not np.isfinite(law).all():
        raise NotFinite(describe(f"{_FEEDBACK}.likelihood", "be finite", "NaN or infinity"))
    if (law < -1e-12).any() or (gap > _tolerance(law)).any():
        got = f"smallest {law.min():.3g}, largest error of a sum {gap.max():.3g}"
        must = "be nonnegative and sum to 1 over symbols"
        raise InvalidProbability(describe(f"{_FEEDBACK}.likelihood", must, got))


def _tolerance(array) -> float:
    return max(1e-9, 64 * float(np.finfo(array.dtype).eps))


def _columns(query, law, continuing, exact):
    """Number the columns y_q * L(z | .) of the edges that something may follow.

    Returns their numbers (E, Z), -1 where nothing follows; an edge and symbol of each; and the
    number of the column that is zero at every taste (reports the mechanism thinks impossible
    lead through it), -1 if there is none or columns are not compared by value.
    """
    count, points, symbols = law.shape
    index = np.full((count, symbols), -1)
    value = query[continuing][:, None, :] * law[continuing].swapaxes(1, 2) + 0.0
    value = value.reshape(-1, points)
    edge, symbol = np.repeat(continuing, symbols), np.tile(np.arange(symbols), len(continuing))
    first, number = unique_rows(value) if exact else (np.arange(len(value)),) * 2
    index[edge, symbol] = number
    dead = np.flatnonzero(~value[first].any(axis=1)) if exact else np.zeros(0, int)
    return index, edge[first], symbol[first], int(dead[0]) if len(dead) else -1


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First occurrence of every distinct row, and the number of each row; bitwise equality."""
    if len(rows) == 0:
        return np.zeros(0, int), np.zeros(0, int)
    packed = np.ascontiguousarray(rows)
    packed = packed.view(np.dtype((np.void, packed.dtype.itemsize * packed.shape[1]))).ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return np.sort(first), rank[inverse.reshape(-1)]


def _slots(buyable):
    """Products that can be bought at each edge, in order, padded with -1."""
    width = max(int(buyable.sum(axis=1).max()), 1)
    order = np.argsort(~buyable, axis=1, kind="stable")[:, :width]
    return np.where(np.take_along_axis(buyable, order, axis=1), order, -1)


def _merge_edges(action, settled, column_id, exact):
    """Edges with the same behaviour, settled alike, and the same columns; and the map."""
    if not exact:
        return np.arange(len(action)), np.arange(len(action))
    flat = [x.reshape(len(action), -1) for x in (action, settled)]
    _, same = unique_rows(np.concatenate(flat, axis=1) + 0.0)
    return unique_rows(np.concatenate([same[:, None], column_id], axis=1))


def _refine(edges, after):
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
