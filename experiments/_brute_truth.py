"""Brute force: W and every marginal economy of a market by its definition, and what a policy gets.

All ordered histories of displays are walked, with every path of signals and every value profile;
nothing is merged, nothing is left out. Where there is no last round, histories of so many rounds
are, those that differ in order alone once, and what is left to come is bounded by its chance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import dynmech as dm
from experiments._brute_laws import Array, History
from experiments._brute_markets import Market


@dataclass(frozen=True)
class Truth:
    """Bounds that hold what is true, equal where there is a last round; (2n+1, *P), NaN: never.

    Economies: W, then W^{-i} of every i, then Wd^{-i}.
    """

    low: Array
    high: Array


def solve(market: Market) -> Truth:
    """Walk all histories."""
    n, economies = len(market.gains), 2 * len(market.gains) + 1
    allowed = np.ones((economies, len(market.displays)), bool)
    counted = np.ones((economies, n))
    for i in range(n):
        allowed[1 + i] = [i not in display for display in market.displays]
        counted[1 + n + i, i] = 0.0
    cases = _Cases(market, allowed, counted, {})
    found = _best(cases, (), market.root, ())  # (ends, E, Z, V)
    mass = market.root.sum(axis=1)
    shape = market.env.profile_shape
    values, per = market.theta.shape[0], np.where(mass > 0, mass, np.nan)[:, None]
    tables = np.moveaxis(found / per, -1, -2).reshape(len(found), economies, values, -1)
    tables = tables.reshape(len(found), economies, *shape)
    return Truth(tables[0], tables[-1])


@dataclass(frozen=True)
class _Cases:
    market: Market
    allowed: Array  # (E, C)
    counted: Array  # (E, n)
    known: dict[Any, Array]


def _best(cases: _Cases, history: History, belief: Array, columns: tuple[Any, ...]) -> Array:
    """The best that every economy can do from here on, (ends, E, Z, V), by Z unnormalised beliefs.

    `columns`: what was observed, in any order.
    """
    market, n = cases.market, len(cases.market.gains)
    endless = market.going > 0
    key = (market.alike(history), tuple(sorted(columns)))
    if endless and key in cases.known:
        return cases.known[key]
    if len(history) == market.rounds:
        shape = (1, len(cases.allowed), len(belief), len(market.theta))
        rest = left(market) * np.broadcast_to(belief.sum(axis=1)[:, None], shape)
        return np.concatenate([-rest, rest]) if endless else 0 * rest
    worth: list[Array] = []
    for c, display in enumerate(market.displays):
        now = (*history, display)
        y = market.acts(now)
        mass, user = belief @ y[:n].T, belief @ (y[:n] * market.gains).T
        value = np.einsum("ej,vj,zj->ezv", cases.counted, market.theta, mass)
        value = value + (cases.counted @ user.T)[:, :, None]
        value = (value - ((belief * y[n + 1]) @ market.cost[c])[:, None])[None]
        law = y[n + 1] * market.hears(now).reshape(y.shape[1], -1).T  # (s, m)
        if endless:
            mark = market.alike(history), display
            after = [
                _best(cases, now, belief * column, (*columns, (mark, s)))
                for s, column in enumerate(law)
                if column.any()
            ]
            later = sum(after, np.zeros_like(value))
        else:
            beliefs = (belief[:, None] * law).reshape(-1, y.shape[1])
            later = _best(cases, now, beliefs, ())
            later = later.reshape(*later.shape[:2], len(belief), len(law), -1).sum(axis=3)
        value = value + later @ market.kernel[c].T
        worth.append(np.where(cases.allowed[:, c, None, None], value, -np.inf))
    best = np.max(worth, axis=0)
    if endless:
        cases.known[key] = best
    return best


def left(market: Market) -> float:
    """What can come, at most, of a conversation that goes on; 0 where it cannot."""
    gain = np.abs(market.theta[:, :, None] + market.gains).max()
    return float(gain + market.cost.max() / (1 - market.going)) if market.going > 0 else 0.0


def best_from(market: Market, history: History, belief: Array, v: int) -> tuple[float, float]:
    """Bounds on W from a history on, per unit of a belief (m,), at a value profile."""
    everything = np.ones((1, len(market.displays)), bool), np.ones((1, len(market.gains)))
    found = _best(_Cases(market, *everything, {}), history, belief[None], ())[:, 0, 0, v]
    return float(found[0] / belief.sum()), float(found[-1] / belief.sum())


def attained(market: Market, policy: dm.EfficientPolicy, profile: int) -> tuple[float, float]:
    """What a policy gets, by asking it at every history that it leads to; bounds, per profile."""
    n, at = len(market.gains), policy.profiles
    sizes = market.env.initial_alphabet
    belief = market.root[np.ravel_multi_index(tuple(at.signals[profile]), sizes)]
    values = np.full(n, market.env.values.support.shape[1])
    v = int(np.ravel_multi_index(tuple(at.theta[profile]), values))
    chat = policy.start(profile=profile)
    return followed(market, chat, (), belief / belief.sum(), v)


def elsewhere(
    market: Market, policy: dm.EfficientPolicy, profile: int, rng: np.random.Generator
) -> tuple[dm.Conversation, History, Array, int] | None:
    """A conversation after a round, half of them with any display, whatever the policy says.

    **Returns:** it, the history, the belief (m,), the value profile; None where it surely ended.
    """
    n, at, env = len(market.gains), policy.profiles, market.env
    belief = market.root[np.ravel_multi_index(tuple(at.signals[profile]), env.initial_alphabet)]
    values = (env.values.support.shape[1],) * n
    v = int(np.ravel_multi_index(tuple(at.theta[profile]), values))
    outset = policy.start(profile=profile)
    display = market.displays[int(rng.integers(len(market.displays)))]
    if rng.random() < 0.5:
        display = _shown(outset)
    history, c = (display,), market.displays.index(display)
    heard = market.hears(history)
    law = (belief * market.acts(history)[n + 1]) @ heard.reshape(len(belief), -1)
    if not law.sum() > 0 or policy.env.horizon == 1:
        return None
    symbols = np.unravel_index(rng.choice(len(law), p=law / law.sum()), heard.shape[1:])
    chance = market.kernel[c, v]
    w = int(rng.choice(len(chance), p=chance / chance.sum()))
    theta = tuple(int(k) for k in np.unravel_index(w, values))
    moves = values[0] > 1 and isinstance(env.values, dm.MarkovValues)
    shown = history[0] if env.controls.shape[1] > 1 else (*history[0], -1)[0]
    chat = outset.step(
        "query", tuple(int(k) for k in symbols), theta if moves else None, shown=shown
    )
    after = belief * market.acts(history)[n + 1] * heard[(slice(None), *symbols)]
    return chat, history, after / after.sum(), w


def _shown(chat: dm.Conversation) -> tuple[int, ...]:
    """What is recommended, as the products shown."""
    shown = chat.recommendation
    return shown if isinstance(shown, tuple) else (shown,) * (shown >= 0)


def followed(
    market: Market, chat: dm.Conversation, history: History, belief: Array, v: int
) -> tuple[float, float]:
    """Bounds on what a conversation brings from here on, (m,) a belief of mass one."""
    value, rest = _followed(market, chat, history, belief, v)
    return value - rest, value + rest


def _followed(
    market: Market, chat: dm.Conversation, history: History, belief: Array, v: int
) -> tuple[float, float]:
    """What comes from here on, and how much more or less it may be."""
    if chat.ended:  # no round is written out any more
        return 0.0, float(belief.sum()) * left(market)
    n, display = len(market.gains), _shown(chat)
    now, c = (*history, display), market.displays.index(display)
    y = market.acts(now)
    earned = market.theta[v][:, None] + market.gains
    value = float((belief * (y[:n] * earned).sum(axis=0)).sum())
    value -= float((belief * y[n + 1]) @ market.cost[c])
    going = float(belief @ y[n + 1])
    if len(now) == market.rounds or going * left(market) < 1e-9 < market.going:
        return value, going * left(market)
    rest, heard = 0.0, market.hears(now)
    moves = market.env.values.support.shape[1] > 1 and isinstance(
        market.env.values, dm.MarkovValues
    )
    places = (market.env.values.support.shape[1],) * n
    for symbols in np.ndindex(heard.shape[1:]):
        after = belief * y[n + 1] * heard[(slice(None), *symbols)]
        if not after.any():
            continue
        for w in np.flatnonzero(market.kernel[c, v]):
            last = len(now) == (chat.policy.env.horizon)
            theta = tuple(int(k) for k in np.unravel_index(w, places))
            next_ = chat.step("query", symbols, theta if moves and not last else None)
            found = _followed(market, next_, now, after, int(w))
            value += market.kernel[c, v, w] * found[0]
            rest += market.kernel[c, v, w] * found[1]
    return value, rest
