"""The likelihood of a log under a market: conversations by tastes, in blocks.

Given omega, what a user does and says in different rounds is independent, so that

    log P(conversation c | omega) = sum over rounds t of
        log y_{a_t}(h_t, r_t, omega) + log l(z_t | h_t, r_t, omega),

and its likelihood is the mean over the taste prior. Recommendations are taken as given: a policy
that sees no more than the log adds a factor free of omega. With Gaussian ratings the second term
is quadratic in the rating, so that per conversation and kind of rating three sums are enough:

    sum of log N(rho; u, s^2) = -(S2 - 2 u S1 + u^2 S0) / (2 s^2) - S0 log(s sqrt(2 pi)),

rho = (rating - a) / b. Where ratings are cut at a range, those at its ends count by the chance of
what lies beyond. Conversations that saw and did the same share the first term.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._types import Numbers, Record
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.logs.log import Log
from dynmech.logs.padding import length, lengthened
from dynmech.logs.rated import at_ends, rating_law, reading, utilities_of
from dynmech.logs.reading import QUERY
from dynmech.market.displays import control_of
from dynmech.market.environment import RecommendationMDP
from dynmech.market.rules import AbstractActionRule
from dynmech.market.shown import acts, answers, stepped
from solvers.programs import as_program

_NEVER = -700.0  # the logarithm of what cannot happen: finite, so that gradients stay so
_LISTED = 1024  # joint symbols of period 1 up to which all are listed, met or not


class Situations(Record):
    """What of a log the chances by taste depend on: E edges (memory, control shown).

    Rows are padded, as `lengthened` does, with what is there already.

    - `memory` (E, d), `shown` (E, K), `period` (E,): each edge, `shown` what was displayed;
      `period` counts from 0.
    - `cell` (D, 2): edge and action of each thing done. `heard` (S, 2): edge and platform symbol.
    - `kinds` (C, 3): edge, product rated, and 0 after a query, 1 after a purchase, 2 and 3 where
      the rating is at the low or the high end of a range at which they are cut.
    - `first` F rows of 1+n: distinct symbols of period 1, -1 where not logged.
    """

    memory: Int[np.ndarray, "E d"]
    shown: Int[np.ndarray, "E K"]
    period: Int[np.ndarray, " E"]
    cell: Int[np.ndarray, "D 2"]
    heard: Int[np.ndarray, "S 2"]
    kinds: Int[np.ndarray, "C 3"]
    first: tuple[tuple[int, ...], ...] = eqx.field(static=True)


class Records(Record):
    """A log as a market reads it; N conversations.

    - `situations`: what it met. `paths` (G, T): cells of each distinct sequence, -1 beyond its
      end; `said` (G, T): rows of `heard`; `opening` (G,): row of `first`; `sold` (G,): row of
      `Tables.sold`, -1 where nothing was bought. `path` (N,): the sequence of each conversation.
      `settled` (N,): the rating after a purchase, NaN where none came.
    - `sums` (N, C, 3): number, sum and sum of squares of the ratings of each kind.
    - `weight` (N,): how often each record counts. `of`: the record of each conversation, which
      share one where they saw and did the same and no rating tells them apart.
    """

    situations: Situations
    paths: Int[np.ndarray, "G T"]
    said: Int[np.ndarray, "G T"]
    opening: Int[np.ndarray, " G"]
    sold: Int[np.ndarray, " G"]
    path: Int[np.ndarray, " N"]
    settled: Float[np.ndarray, " N"]
    sums: Float[np.ndarray, "N C 3"]
    weight: Float[np.ndarray, " N"]
    of: Int[np.ndarray, " L"]

    @property
    def rated(self) -> bool:
        """Whether any rating came."""
        return len(self.situations.kinds) > 0


def records(log: Log, env: RecommendationMDP) -> Records:
    """Read a log in a market's terms, checking that the market can say it.

    **Raises:** `OutsideSupport` for products, symbols and rounds that the market does not have;
    `InvalidArgument` for ratings that its feedback does not give.
    """
    shown, (_, action) = controls_shown(log, env), log.on(env.names)
    period, owner = log.round - 1, log.owner
    if period.max() >= env.horizon:
        must = f"have at most the market's {env.horizon} rounds"
        do = "build the market with as many rounds as the longest conversation"
        raise OutsideSupport(describe("log", must, int(period.max()) + 1, do))
    memory, edge = edges_of(env, shown, period)
    cell, cells = np.unique(np.stack([edge, action], axis=1), axis=0, return_inverse=True)
    heard, said = _symbols(log, env, edge)
    first, opening = _first(log, env)
    longest = int(period.max()) + 1
    width = np.full((len(log), 2 * longest + 2), -1)
    width[owner, period] = cells.reshape(-1)
    width[owner, longest + period] = said
    width[:, -1] = opening
    width[:, -2], settled = _sold(log, env.products, action)
    kinds, sums = _ratings(log, env, edge, env.controls[shown, 0], action)
    paths, path = np.unique(width, axis=0, return_inverse=True)
    path, weight, of = path.reshape(-1), np.ones(len(log)), np.arange(len(log))
    if not len(kinds):  # nothing else tells conversations of one path apart
        weight, of = np.bincount(path).astype(float), path
        path, sums = np.arange(len(paths)), np.zeros((len(paths), 0, 3))
        settled = np.full(len(paths), np.nan)
    edges = lengthened(memory)
    situations = Situations(
        memory=edges[:, 2:],
        shown=env.controls[edges[:, 1]],
        period=edges[:, 0],
        cell=lengthened(cell),
        heard=lengthened(heard),
        kinds=lengthened(kinds),
        first=tuple(map(tuple, first.tolist())),
    )
    return Records(
        situations=situations,
        paths=paths[:, :longest],
        said=paths[:, longest:-2],
        sold=paths[:, -2],
        opening=paths[:, -1],
        path=path,
        settled=settled,
        sums=sums,
        weight=weight,
        of=of,
    )


def controls_shown(log: Log, env: RecommendationMDP) -> Int[np.ndarray, " R"]:
    """What was displayed in each row, as rows of `env.controls`.

    **Raises:** `OutsideSupport` for what is no display of the market.
    """
    products, _ = log.on(env.names)
    rows, which = np.unique(products, axis=0, return_inverse=True)
    kept = [tuple(j for j in row if j < env.products) for row in rows.tolist()]
    controls = [control_of("log shown", env, row) for row in kept]
    return np.array(controls, np.int64)[which.reshape(-1)]


def edges_of(env: RecommendationMDP, shown: np.ndarray, period: np.ndarray):
    """Distinct (period, control, memory after it), and the one of each row."""
    start = env.unaware.astype(np.int64)
    after = np.zeros((len(shown), len(start)), np.int64)
    for t in range(int(period.max()) + 1):
        rows = np.flatnonzero(period == t)
        before = np.broadcast_to(start, (len(rows), len(start))) if t == 0 else after[rows - 1]
        pairs = np.concatenate([before, shown[rows, None]], axis=1)
        unique, index = np.unique(pairs, axis=0, return_inverse=True)
        pairs = lengthened(unique)
        found = _stepped(env.action_rule, env.products, pairs[:, :-1], env.controls[pairs[:, -1]])
        found = np.asarray(found)
        after[rows] = found[index.reshape(-1)]
    table = np.concatenate([period[:, None], shown[:, None], after], axis=1)
    edges, edge = np.unique(table, axis=0, return_inverse=True)
    return edges, edge.reshape(-1)


@as_program
def _stepped(rule: AbstractActionRule, products: int, memory: Numbers, shown: Numbers):
    """Memories after displays."""
    return jax.vmap(lambda h, r: stepped(rule, h, r, products))(
        jnp.asarray(memory), jnp.asarray(shown)
    )


def _symbols(log: Log, env: RecommendationMDP, edge: np.ndarray):
    """Distinct (edge, platform symbol) after queries, and the one of each row, -1 for none.

    A rating says its symbol too, and counts alone.
    """
    said = np.where((log.kind == QUERY) & np.isnan(log.rating), log.signal, -1)
    size = env.feedback_alphabet[0]
    if said.max() >= size:
        must = f"hold symbols of the platform's {size}, from 0"
        raise OutsideSupport(describe("log signal", must, int(said.max())))
    found, rows = np.full(len(edge), -1), np.flatnonzero(said >= 0)
    heard, index = np.unique(
        np.stack([edge[rows], said[rows]], axis=1), axis=0, return_inverse=True
    )
    found[rows] = index.reshape(-1)
    return heard, found


def _first(log: Log, env: RecommendationMDP):
    """Distinct symbols of period 1, -1 where not logged, and the row of each conversation."""
    n, alphabet = env.products, np.array(env.initial_alphabet)
    table = np.full((len(log), n + 1), -1)
    if log.first is not None:
        width = log.first.shape[1]
        if width not in (1, n + 1):
            must = f"name one column (the platform's) or {n + 1} (then each advertiser's)"
            raise InvalidArgument(describe("log first", must, width))
        table[:, :width] = log.first
        if (table.max(axis=0) >= alphabet).any():
            must = f"hold symbols below {tuple(alphabet.tolist())}"
            raise OutsideSupport(describe("log first", must, table.max(axis=0).tolist()))
    if np.prod(alphabet.astype(float)) <= _LISTED:
        sizes = np.where((table >= 0).any(axis=0), alphabet, 1)
        holes = (table < 0).any(axis=0)
        if (holes == (table < 0).all(axis=0)).all():
            first = np.where(holes, -1, np.indices(tuple(sizes.tolist())).reshape(len(sizes), -1).T)
            return first, np.ravel_multi_index(tuple(np.maximum(table, 0).T), tuple(sizes))
    first, row = np.unique(table, axis=0, return_inverse=True)
    return first, row.reshape(-1)


def _ratings(
    log: Log, env: RecommendationMDP, edge: np.ndarray, shown: np.ndarray, action: np.ndarray
):
    """Kinds of ratings, and their number, sums and sums of squares by conversation."""
    n = env.products
    asked, bought = action == n + 1, action < n
    use = np.isfinite(log.rating) & ((asked & (shown < n)) | bought)
    rows = np.flatnonzero(use)
    if (asked[rows]).any() and reading(env, int(shown[rows[asked[rows]][0]]), 0) is None:
        must = "give the platform's symbols: this market's feedback takes no numbers"
        do = "pass signal= to Log.from_frame, or use RatingFeedback"
        raise InvalidArgument(describe("log rating", must, type(env.signals.feedback), do))
    after = bought[rows].astype(np.int64)
    if after.any():
        after += after * at_ends(env, log.scale, log.rating[rows])
    product = np.where(bought, np.minimum(action, n - 1), np.minimum(shown, n - 1))[rows]
    where = np.where(after > 0, 0, edge[rows])  # a settled rating knows its product alone
    kinds, kind = np.unique(np.stack([where, product, after], axis=1), axis=0, return_inverse=True)
    sums, kind = np.zeros((len(log), length(len(kinds)), 3)), kind.reshape(-1)
    if len(rows):
        rating = log.rating[rows]
        for power in range(3):
            np.add.at(sums[:, :, power], (log.owner[rows], kind), rating**power)
    return kinds, sums


def _sold(
    log: Log, n: int, action: np.ndarray
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Of each conversation: product bought where no rating came, n more where one did, -1 where
    nothing was; and that rating."""
    row = np.flatnonzero(action < n)
    sold, settled = np.full(len(log), -1), np.full(len(log), np.nan)
    settled[log.owner[row]] = log.rating[row]
    sold[log.owner[row]] = action[row] + n * np.isfinite(log.rating[row])
    return sold, settled


BY_TASTE = ("done", "heard", "opening", "rated", "sold")


class Tables(Record):
    """Logarithms by taste: `done` (D, m), `heard` (S, m), `opening` (F, m), `rated` (C, 3, m).

    `sold` (2n, m): that no rating came after a purchase of each product, and that one did but for
    what depends on the rating itself, `law` of (rating - a) / b, None where nothing does.
    """

    done: Float[Array, "D m"]
    heard: Float[Array, "S m"]
    opening: Float[Array, "F m"]
    rated: Float[Array, "C 3 m"]
    sold: Float[Array, "n2 m"]
    law: Any
    scale: Any


def tables(env: RecommendationMDP, met: Situations, scale: tuple[Any, Any]) -> Tables:
    """Logarithms of the chances of everything that the log holds, given each taste; traced.

    `scale`: (a, b), rating = a + b u + noise.
    """
    rule, feedback, utilities = env.action_rule, env.signals.feedback, utilities_of(env)
    memory, shown, cell = jnp.asarray(met.memory), jnp.asarray(met.shown), jnp.asarray(met.cell)
    act = jax.vmap(lambda h, r: acts(rule, h, r, utilities))(memory, shown)
    heard = jnp.zeros((0, utilities.shape[1]), utilities.dtype)
    opening = jnp.zeros((len(met.first), utilities.shape[1]), utilities.dtype)
    if len(met.heard):
        law = jax.vmap(lambda h, r, t: answers(feedback, h, r, t, utilities))(
            memory, shown, jnp.asarray(met.period)
        )
        edge, symbol = jnp.asarray(met.heard).T
        heard = logarithm(env.heard.platform(law)[edge, :, symbol])
    if np.max(met.first) >= 0:
        opening = logarithm(_opening(env, np.array(met.first), utilities))
    return Tables(
        done=logarithm(act[cell[:, 0], cell[:, 1]]),
        heard=heard,
        opening=opening,
        rated=rating_law(env, met.kinds, met.period, scale),
        sold=_come(env, utilities),
        law=missing_law(env),
        scale=scale,
    )


def missing_law(env: RecommendationMDP) -> Any:
    """The chance that ratings after purchases come as a function of the rating, else None."""
    sent: Any = env.signals.settlement
    return sent.law if sent.sends_missing() else None


def _come(env: RecommendationMDP, utilities: Numbers) -> Float[Array, "n2 m"]:
    """Logarithms of the chances that ratings come, where taste or rating moves them; else 0."""
    sent: Any = env.signals.settlement
    moves = sent.sends_missing() and (sent.law is not None or np.ndim(sent.chance) > 0)
    if not moves or sent.given == "history":
        return jnp.zeros((2 * env.products, utilities.shape[1]), utilities.dtype)
    gains = utilities - jnp.asarray(env.exit_value)
    come = sent.come(None, gains)
    if sent.law is None:
        return logarithm(jnp.concatenate([1 - come, come]))
    none = sent.expect(lambda x: 1 - sent.law(x), None, None, gains)
    return jnp.concatenate([logarithm(none), jnp.zeros_like(none)])


def _opening(
    env: RecommendationMDP, first: Int[np.ndarray, "F n1"], utilities: Numbers
) -> Float[Array, "F m"]:
    """Chance of the symbols of period 1 that were logged; the others are summed over."""
    logged = (first >= 0).any(axis=0)
    alphabet = np.array(env.initial_alphabet)
    free = np.where(logged, 1, alphabet)
    size = int(np.prod(free.astype(float)))
    if size > 100_000:
        must = "be logged for every advertiser: their symbols are too many to sum over"
        raise InvalidArgument(describe("log first", must, f"{size} combinations left out"))
    rest = np.indices(tuple(free)).reshape(len(free), -1).T
    full = np.where(logged, first[:, None], rest[None])
    law = env.signals.initial.likelihood(utilities, full.reshape(-1, len(free)))
    return law.reshape(len(first), len(rest), -1).sum(axis=1)


def logarithm(chance: Numbers) -> Array:
    """log of a chance, and -700 of none."""
    possible = chance > 0
    return jnp.where(possible, jnp.log(jnp.where(possible, chance, 1.0)), _NEVER)
