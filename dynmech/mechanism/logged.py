"""Conversations of a log, played again under a mechanism's policy, so that they can be settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np
from jaxtyping import Float, Int

from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.logs.log import Log
from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import MarkovValues
from dynmech.policy.said import symbols_of

if TYPE_CHECKING:
    from dynmech.policy.base import AbstractPricedPolicy
    from dynmech.policy.conversations import Conversations

_CALL = "settle(conversation=Log)"


def replayed(
    policy: AbstractPricedPolicy, log: Log
) -> tuple[Conversations, Float[np.ndarray, " N"]]:
    """Play the N conversations of a log again: as reported, shown, answered and ended there.

    **Returns:** them, and what was rated after purchases, money, NaN where nothing was.

    **Raises:** `InvalidArgument`, `OutsideSupport` for what the log does not say, or says of
    another market.
    """
    env = policy.env
    horizon, counts = _most_rounds(env), np.diff(log.offsets)
    shown, action = log.on(env.names)
    _check_ends(log, counts, action[log.offsets[1:] - 1] == env.products + 1, env)
    ratings, reports = _in_money(log), _reports(log, env)
    heard, display = _symbols(log, env, shown, action, ratings), _displays(shown, env)
    chats = policy.start_many(theta=reports[log.offsets[:-1]], signals=_first(log, env))
    moves = isinstance(env.values, MarkovValues)
    index = _indices(reports, env) if moves else None
    for t in range(int(min(horizon, counts.max()))):
        row = log.offsets[:-1] + np.minimum(t, counts - 1)
        following = None
        if index is not None:
            following = index[log.offsets[:-1] + np.minimum(t + 1, counts - 1)]
        chats = chats.step(action[row], heard[row], display[row], following)
    last = log.offsets[1:] - 1
    return chats, np.where(action[last] < env.products, ratings[last], np.nan)


def _most_rounds(env: RecommendationMDP) -> float:
    """Rounds that a conversation can have: any number where the last stands for all that follow."""
    return float(env.horizon) if env.action_rule.lasts() is None else np.inf


def _refuse(must: str, got: object, do: str | None = None) -> NoReturn:
    raise InvalidArgument(describe(_CALL, must, got, do))


def _check_ends(log: Log, counts: np.ndarray, asked: np.ndarray, env: RecommendationMDP) -> None:
    if (counts > _most_rounds(env)).any():
        _refuse(f"have at most the market's {env.horizon} rounds", int(counts.max()))
    going = np.flatnonzero(asked & (counts < _most_rounds(env)))
    if len(going):
        got = f"{len(going)} of {len(log)} without an end, {log.conversations[going[0]]} the first"
        _refuse("hold conversations that have ended", got, "leave the others out: log.keep(...)")


def _in_money(log: Log) -> Float[np.ndarray, " R"]:
    """Ratings as utilities."""
    if log.scale is None and np.isfinite(log.rating).any():
        do = "pass scale=(a, b) to Log.from_frame, that of a fit for one"
        _refuse("say what ratings mean in money", "ratings without a scale", do)
    a, b = log.scale or (0.0, 1.0)
    return (log.rating - a) / b


def _reports(log: Log, env: RecommendationMDP) -> Float[np.ndarray, "R n"]:
    """Reported values in the order of the market's products."""
    do = "name the columns theta_NAME in Log.from_frame(reports=...)"
    if log.reports is None or set(log.reporters) != set(env.names):
        _refuse(
            f"hold what {', '.join(env.names)} reported", ", ".join(log.reporters) or "none", do
        )
    found = log.reports[:, [log.reporters.index(name) for name in env.names]]
    first = found[np.repeat(log.offsets[:-1], np.diff(log.offsets))]
    changed = np.flatnonzero((found != first).any(axis=1))
    if len(changed) and not isinstance(env.values, MarkovValues):
        where = f"others in conversation {log.conversations[log.owner[changed[0]]]}"
        _refuse("report the same in every round: values are constant", where)
    return found


def _indices(reports: np.ndarray, env: RecommendationMDP) -> Int[np.ndarray, "R n"]:
    """Which values of the support were reported."""
    gap = np.abs(np.asarray(env.values.support, float) - reports[:, :, None])
    strange = np.argwhere(gap.min(axis=2) > 1e-9 * env.money_scale)
    if len(strange):
        row, who = strange[0]
        got = f"{env.names[who]}: {reports[row, who]}"
        raise OutsideSupport(describe(_CALL, "report values of the support", got))
    return gap.argmin(axis=2)


def _first(log: Log, env: RecommendationMDP) -> Int[np.ndarray, "N n1"]:
    """Symbols of period 1 of every party."""
    alphabet = np.array(env.initial_alphabet)
    found = np.zeros((len(log), len(alphabet)), np.int64)
    held = 0 if log.first is None else log.first.shape[1]
    if log.first is not None and held <= len(alphabet):
        found[:, :held] = log.first
    unknown = held > len(alphabet) or (alphabet[held:] > 1).any()
    if unknown or ((found < 0) | (found >= alphabet)).any():
        must = (
            f"hold first symbols of the platform and of each advertiser, below {alphabet.tolist()}"
        )
        _refuse(must, f"{held} columns", "name them in Log.from_frame(first=...)")
    return found


def _displays(shown: np.ndarray, env: RecommendationMDP) -> Int[np.ndarray, "R ..."]:
    """What was displayed, as `Conversations.step` takes it."""
    places, size = env.controls.shape[1], shown.shape[1]
    if size > places and (shown[:, places:] < env.products).any():
        do = "use displays of as many products"
        _refuse(f"show at most {places} products at a time", f"{size} at once", do)
    found = np.full((len(shown), places), -1)
    known = shown[:, :places]
    found[:, : known.shape[1]] = np.where(known < env.products, known, -1)
    return found[:, 0] if places == 1 else found


def _symbols(
    log: Log, env: RecommendationMDP, shown: np.ndarray, action: np.ndarray, ratings: np.ndarray
) -> Int[np.ndarray, " R"]:
    """The platform's symbol after each query, -1 where nothing was said."""
    if max(env.feedback_alphabet[1:]) > 1:
        must = "be of a market in which the platform alone hears answers"
        _refuse(must, "advertisers who do, too", "step policy.start_many(...) with their symbols")
    found, asked = log.signal.copy(), action == env.products + 1
    if env.feedback_alphabet[0] == 1:
        return 0 * found
    for product in np.unique(shown[:, 0]).tolist():
        here = asked & (found < 0) & np.isfinite(ratings) & (shown[:, 0] == product)
        if here.any():
            found[here] = symbols_of(env, product, ratings[here])
    return np.where(asked, found, -1)
