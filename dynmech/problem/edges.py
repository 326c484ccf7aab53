"""Edges of a market: what users do, and what is heard, after each memory and control.

Laws are computed in blocks of situations and kept by what can happen: a product that cannot be
bought has no row. Two situations are one edge when they have the same probabilities; columns
y_q L(z | .) of beliefs are numbered the same way.
"""

import hashlib
import math
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._types import Numbers, Record, precision
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import AbstractFeedback
from dynmech.market.rules import AbstractActionRule
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.shown import acts, acts_for_ever, alone, answers
from dynmech.problem.chances import check_actions, check_laws
from dynmech.problem.kept import check_compiled
from solvers import Structure
from solvers.programs import as_program
from solvers.tree.lattice import drift, relations

_RULE = "RecommendationMDP(action_rule=...)"
_BLOCK = 2.5e8  # bytes of laws that live at once, before only what can happen is kept
_TEMPORARY = 8  # numbers a product and taste that rules may hold at once
_SIZES = (16, 128, 1024, 8192)


class Edges(Record):
    """One representative of every edge, and where its columns come from.

    - `memory` (E, d), `control` (E,), `period` (E,): arguments that give its laws; of periods only
      those count whose laws differ from the others', all else is of period 0.
    - `slot` (E, J): the product of each slot, -1 where empty, n what a query costs.
    - `column_edge`, `column_symbol` (C,): the edge and the joint symbol of each column.
    """

    memory: Int[np.ndarray, "E d"]
    control: Int[np.ndarray, " E"]
    period: Int[np.ndarray, " E"]
    slot: Int[np.ndarray, "E J"]
    column_edge: Int[np.ndarray, " C"]
    column_symbol: Int[np.ndarray, " C"]


class Compiled(Record):
    """A market as the solvers see it, and the way back.

    `stop` (E, J, m): chances of what is in `edges.slot`; `leave`, `query` (E, m): of leaving and
    of asking again. `situation` (S, d), `shown` (S,): every memory and control, before
    edges were merged, and `edge_of` (S,).
    """

    structure: Structure
    edges: Edges
    stop: Float[np.ndarray, "E J m"]
    leave: Float[np.ndarray, "E m"]
    query: Float[np.ndarray, "E m"]
    situation: Int[np.ndarray, "S d"]
    shown: Int[np.ndarray, " S"]
    edge_of: Int[np.ndarray, " S"]
    products: int = eqx.field(static=True)

    def check_kept(self) -> None:
        """Raise `ValueError` for chances that do not add up; see `solvers.kept`."""
        check_compiled(self)

    def actions(self, edge: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k n2 m"]:
        """Action probabilities of edges: of buying each product, leaving, asking again."""
        n = self.products
        found = np.zeros((len(edge), n + 2, self.query.shape[1]))
        row, place = np.nonzero((self.edges.slot[edge] >= 0) & (self.edges.slot[edge] < n))
        found[row, self.edges.slot[edge[row], place]] = self.stop[edge[row], place]
        found[:, n], found[:, n + 1] = self.leave[edge], self.query[edge]
        return found

    def actions_at(
        self, edge: Int[np.ndarray, " k"], taste: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, "k n2"]:
        """Action probabilities of each edge at one taste."""
        n, slot = self.products, self.edges.slot[edge]
        found = np.zeros((len(edge), n + 2))
        row, place = np.nonzero((slot >= 0) & (slot < n))
        found[row, slot[row, place]] = self.stop[edge[row], place, taste[row]]
        found[:, n], found[:, n + 1] = self.leave[edge, taste], self.query[edge, taste]
        return found

    def bought(
        self, edge: Int[np.ndarray, " k"], product: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, "k m"]:
        """Chance that one product is bought at each edge."""
        mine = self.edges.slot[edge] == np.broadcast_to(product, len(edge))[:, None]
        return np.where(mine[:, :, None], self.stop[edge], 0.0).sum(axis=1)

    def buyable(self) -> Bool[np.ndarray, "E n m"]:
        """Where each product can be bought, by edge."""
        n = self.products
        found = np.zeros((len(self.query), n, self.query.shape[1]), bool)
        row, place = np.nonzero((self.edges.slot >= 0) & (self.edges.slot < n))
        found[row, self.edges.slot[row, place]] = self.stop[row, place] > 0
        return found

    @property
    def bytes(self) -> float:
        """What compiling it took at most, while parts were joined and turned into tables."""
        laws = sum(part.nbytes for part in (self.stop, self.leave, self.query))
        columns = 8.0 * self.structure.column_count * self.query.shape[1]
        points, (_, symbols) = self.query.shape[1], self.structure.columns.shape
        each = _each(points, self.products, symbols)
        return 2.0 * laws + 3.0 * columns + _size(len(self.shown), each) * each


class _Part(Record):
    """Laws of a block of situations, in full."""

    action: Float[np.ndarray, "B n2 m"]
    law: Float[np.ndarray, "B m Z"]
    told: Float[np.ndarray, "B L n m"]


def compile_edges(
    env: RecommendationMDP,
    keys: Int[np.ndarray, "S d2"],
    always: Bool[np.ndarray, "S n"],
    ever: Bool[np.ndarray, "S n"],
    continuing: Int[np.ndarray, " k"],
    exact: bool,
    limit: float,
) -> Compiled:
    """Check and merge the edges of a market: all but what may follow what.

    **Arguments:** `keys` (S, d+2): memory, control, period of each situation; `always`,
    `ever` (S, n): products surely, possibly shown there; `continuing`: what something may follow;
    `exact`: merge what has equal numbers; `limit`: bytes.
    """
    n, toll, points = env.products, env.toll, env.tastes.size
    memory, control, period = keys[:, :-2], keys[:, -2], keys[:, -1]
    goes = np.zeros(len(keys), bool)
    goes[continuing] = True
    _check_room(env, ever, int(goes.sum()), limit)
    found, columns = _Numbered(exact), _Numbered(exact)
    slots, stops, leaves, queries, numbers = [], [], [], [], []
    merged = np.zeros(len(keys), np.int64)
    column_rows, column_edge, column_symbol = [], [], []
    symbols = env.heard.count
    for low, part in law_blocks(env, memory, env.controls[control], period):
        high = low + len(part.action)
        check_actions(env, part.action, always[low:high])
        check_laws(part.law)
        query, leave = part.action[:, n + 1], part.action[:, n]
        possible = np.asarray(part.action[:, :n].any(axis=2) if exact else ever[low:high])
        slot = _slots(possible)
        product = np.maximum(slot, 0)[:, :, None]
        stop = np.where(slot[:, :, None] >= 0, np.take_along_axis(part.action, product, 1), 0.0)
        told = np.take_along_axis(part.told, product[:, None], 2)
        told = np.where(stop[:, None] > 0, told, 0.0)
        if toll is not None:
            running = query * toll.rate[control[low:high]]
            asked = running.any(axis=1) if exact else np.ones(len(slot), bool)
            slot = np.concatenate([slot, np.where(asked, n, -1)[:, None]], axis=1)
            stop = np.concatenate([stop, running[:, None]], axis=1)
        for row in range(len(slot)):
            here, held = np.full(symbols, -1), slot[row] >= 0
            if goes[low + row]:
                rows = query[row] * part.law[row].T + 0.0
                for z in range(symbols):
                    number, new = columns.of(rows[z])
                    here[z] = number
                    if new:
                        column_rows.append(rows[z].copy())
                        column_edge.append(low + row)
                        column_symbol.append(z)
            bought = held[: told.shape[2]]
            content = slot[row, held], stop[row, held], leave[row], query[row], told[row][:, bought]
            edge, new = found.of(*content, here)
            merged[low + row] = edge
            if new:
                slots.append(slot[row])
                stops.append(stop[row])
                leaves.append(leave[row].copy())
                queries.append(query[row].copy())
                numbers.append((low + row, here))
    first = np.array([row for row, _ in numbers], np.int64)
    column = np.array(column_rows).reshape(-1, points)
    dead = np.flatnonzero(~column.any(axis=1)) if exact else np.zeros(0, int)
    digits, offset, off = None, None, 0.0
    if exact and len(column):
        digits, offset = relations(column)
        off = drift(column, digits, offset)
    slot, stop = _joined(slots, stops, toll is not None)
    structure = Structure(
        edge=(),
        successor=(),
        columns=np.stack([here for _, here in numbers]).astype(np.int32),
        outcome=slot.astype(np.int32),
        controls=len(env.controls),
        outcomes=n + (toll is not None),
        column_count=len(column),
        dead=int(dead[0]) if len(dead) else -1,
        digits=digits,
        offset=offset,
        drift=off,
    )
    origin = merged[np.array(column_edge, np.int64)], np.array(column_symbol, np.int64)
    edges = Edges(memory[first], control[first], period[first], slot, *origin)
    laws = stop, np.stack(leaves), np.stack(queries)
    return Compiled(structure, edges, *laws, memory, control, merged, n)


class _Numbered:
    """Numbers in the order of first occurrence; equal contents have one, unless none are merged."""

    def __init__(self, merge: bool):
        self.merge, self.count = merge, 0
        self.known: dict[bytes, int] = {}

    def of(self, *content: np.ndarray) -> tuple[int, bool]:
        """The number of this content, and whether it is new."""
        number = self.count
        if self.merge:
            digest = hashlib.blake2b(digest_size=16)
            for part in content:
                digest.update(np.ascontiguousarray(part + 0).tobytes())
            number = self.known.setdefault(digest.digest(), self.count)
        new = number == self.count
        self.count += new
        return number, new


def _check_room(env: RecommendationMDP, ever: np.ndarray, going: int, limit: float) -> None:
    """Raise before anything is computed where what can happen does not fit."""
    count, points = len(ever), env.tastes.size
    symbols = env.heard.count
    width = max(int(ever.sum(axis=1).max(initial=1)), 1) + 2 + (env.toll is not None)
    each = _each(points, env.products, symbols)
    size = 8.0 * points * (2.0 * count * width + 3.0 * going * symbols) + _size(count, each) * each
    if size > limit:
        got = f"{count} situations x {width} actions and {symbols} symbols: {size / 1e9:.3g} GB"
        do = "use fewer tastes, symbols, rounds, a rule that remembers less, or more memory"
        raise TooLarge(describe(_RULE, f"need at most {limit / 1e9:.3g} GB", got, do))


def law_blocks(
    env: RecommendationMDP, memory: np.ndarray, shown: np.ndarray, period: np.ndarray
) -> Iterator[tuple[int, _Part]]:
    """Laws of all situations, a few at a time, in few sizes."""
    n, points, count = env.products, env.tastes.size, len(memory)
    each = _each(points, n, env.heard.count)
    signals, ends = env.signals, standing(env, period)
    rules = env.action_rule, signals.feedback, signals.settlement
    for low, at in in_blocks(count, each):
        with precision(env.gamma):
            given = memory[at], shown[at], period[at]
            parts = _behaviour_jit(rules, *given, env.utilities, env.gains)
            action, law, told = (np.asarray(part)[: count - low] for part in parts)
            if ends[at].any():
                last = endings_jit(rules[0], *given[:2], env.utilities)
                action = np.where(ends[at][: count - low, None, None], last[: count - low], action)
        shape = len(told), math.prod(told.shape[1:-2]), n, points
        yield low, _Part(action, law, told.reshape(shape))


def in_blocks(count: int, each: float) -> Iterator[tuple[int, Int[np.ndarray, " B"]]]:
    """Rows to take together where each needs so many bytes, in few sizes, the last repeated."""
    size = _size(count, each)
    for low in range(0, count, size):
        yield low, np.minimum(np.arange(low, low + size), count - 1)


def _size(count: int, each: float) -> int:
    """How many rows are taken together."""
    fits = [size for size in _SIZES if size * each <= _BLOCK] or [1]
    return next((size for size in fits if size >= count), fits[-1])


def _each(points: int, products: int, symbols: int) -> float:
    """Bytes that the laws of one situation take while they are computed."""
    return 8.0 * points * (_TEMPORARY * (products + 2) + 4 * symbols)


@as_program
def actions_jit(rule: AbstractActionRule, memory: Numbers, shown: Numbers, utilities: Numbers):
    """Action probabilities of situations, (S, n+2, m)."""
    law = jax.vmap(lambda m, r: acts(rule, m, r, utilities))
    return law(jnp.asarray(memory), jnp.asarray(shown))


@as_program
def endings_jit(rule: AbstractActionRule, memory: Numbers, shown: Numbers, utilities: Numbers):
    """The same, (S, n+2, m), of a last round that stands for all that follow."""
    times = rule.lasts()
    assert times is not None
    law = jax.vmap(lambda m, r: acts_for_ever(rule, m, r, utilities, times))
    return law(jnp.asarray(memory), jnp.asarray(shown))


def standing(env: RecommendationMDP, period: Int[np.ndarray, " S"]) -> Bool[np.ndarray, " S"]:
    """Which situations are of a last round that stands for all that follow."""
    if env.action_rule.lasts() is None:
        return np.zeros(len(period), bool)
    return period == env.horizon - 1


@as_program
def laws_jit(
    feedback: AbstractFeedback, memory: Numbers, shown: Numbers, period: Numbers, utilities: Numbers
):
    """Laws of the joint symbol of situations, (S, m, Z)."""
    law = jax.vmap(lambda m, r, t: answers(feedback, m, r, t, utilities))
    return law(jnp.asarray(memory), jnp.asarray(shown), jnp.asarray(period))


@as_program
def told_jit(signal: AbstractSettlementSignal, memory: Numbers, shown: Numbers, gains: Numbers):
    """All by which the signal tells situations apart, shape (S, *L, n, m)."""
    laws = jax.vmap(lambda m, r: signal.laws(m, alone(r), gains))
    return laws(jnp.asarray(memory), jnp.asarray(shown))


@as_program
def _behaviour_jit(
    rules: tuple[AbstractActionRule, AbstractFeedback, AbstractSettlementSignal],
    memory: Numbers,
    shown: Numbers,
    period: Numbers,
    utilities: Numbers,
    gains: Numbers,
):
    """Actions, laws of the feedback and what settles purchases, of every situation."""
    rule, feedback, signal = rules
    return (
        actions_jit(rule, memory, shown, utilities),
        laws_jit(feedback, memory, shown, period, utilities),
        told_jit(signal, memory, shown, gains),
    )


def _joined(
    slots: list[np.ndarray], stops: list[np.ndarray], toll: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Slots and their chances of all edges, padded with empty ones; what a query costs is last."""
    width, points = max(map(len, slots)), stops[0].shape[1]
    slot = np.full((len(slots), width), -1)
    stop = np.zeros((len(slots), width, points))
    for k, (one, chance) in enumerate(zip(slots, stops, strict=True)):
        head = len(one) - toll
        slot[k, :head], stop[k, :head] = one[:head], chance[:head]
        if toll:
            slot[k, -1], stop[k, -1] = one[-1], chance[-1]
    return slot, stop


def _slots(buyable: np.ndarray):
    """Products that can be bought at each edge, in order, padded with -1."""
    width = max(int(buyable.sum(axis=1).max()), 1)
    order = np.argsort(~buyable, axis=1, kind="stable")[:, :width]
    return np.where(np.take_along_axis(buyable, order, axis=1), order, -1)
