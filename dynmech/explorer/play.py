"""Conversations that a reader plays: every answer a shopper can give, as data for the page.

One profile is the truth, with every report that one advertiser could make instead. From each,
the conversations that can follow are walked with the policy, and every ending is settled as the
mechanism does, so that the page computes nothing that the library did not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dynmech.errors import DynmechError
from dynmech.explorer.bills import Bills
from dynmech.explorer.walk import Point, walk
from dynmech.market.displays import displays_named
from dynmech.market.values import MarkovValues
from dynmech.mechanism.team import DynamicTeamMechanism
from dynmech.policy.explain import unheard
from dynmech.policy.playable import money_of

_DIGITS = 12
_BELIEF = 5  # digits of a weight: what a picture shows
_TASTES = 60  # of the most weight; the others are one number
_AT_ONCE = 64  # points valued together


def plays(mechanism: DynamicTeamMechanism, profile: int, most: int) -> dict[str, Any]:
    """Data of the conversations, at most `most` points of them: half of them for the truth."""
    policy = mechanism.policy
    env, evaluator = policy.env, policy.evaluator
    theta, signals = policy.profiles.theta[profile], policy.profiles.signals[profile]
    every = list(_reports(env, theta, signals))
    found: list[dict[str, Any]] = []
    walked: list[list[Point]] = []
    spare = most
    for k, (who, told, heard) in enumerate(every):
        if spare == 0:
            break
        try:
            start = evaluator.begin(told, heard)
        except DynmechError:  # a report that was not solved
            continue
        if start.belief.sum() <= 0:
            continue
        share = -(-spare // 2) if k == 0 and len(every) > 1 else -(-spare // (len(every) - k))
        points, covered = walk(evaluator, start, share)
        spare -= len(points)
        walked.append(points)
        report = {"who": who, "theta": _numbers(money_of(env, told)), "signals": heard.tolist()}
        totals = _numbers(_totals(mechanism, profile, who, told, heard))
        found.append({**report, "totals": totals, "covered": round(covered, _DIGITS)})
    points = [point for nodes in walked for point in nodes]
    shown = _tastes(env, points)
    written = _written(mechanism, points, shown)
    for report, nodes in zip(found, walked):
        report["nodes"] = [next(written) for _ in nodes]
    weights = np.asarray(env.tastes.weights, float)
    return {
        "reports": found,
        "left": len(every) - len(found),
        "decoded": mechanism.groves.decoded,
        "utilities": np.round(np.asarray(env.utilities, float)[:, shown], 6).tolist(),
        "prior": np.round(weights[shown] / weights.sum(), _BELIEF).tolist(),
        "before": _numbers(env.utilities @ weights / weights.sum()),
        "tastes": int(env.tastes.size),
    }


def _reports(env: Any, theta: np.ndarray, signals: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Who reports otherwise (-1: nobody), value indices and symbols told."""
    yield -1, theta, signals
    for i in range(env.products):
        for k in range(env.values.support.shape[1]):
            for z in range(env.initial_alphabet[1 + i]):
                if (k, z) != (theta[i], signals[1 + i]):
                    told, heard = theta.copy(), signals.copy()
                    told[i], heard[1 + i] = k, z
                    yield i, told, heard


def _totals(
    mechanism: DynamicTeamMechanism,
    profile: int,
    who: int,
    theta: np.ndarray,
    signals: np.ndarray,
) -> np.ndarray:
    """Groves totals (n,), NaN where not known; in expectation where they are decoded.

    Her own is the truth's, whatever she reports; the others' are known where the report is one of
    the profiles asked for.
    """
    known = mechanism.policy.profiles
    table = mechanism.groves_total.reshape(len(theta), -1)
    same = (known.theta == theta).all(axis=1) & (known.signals == signals).all(axis=1)
    if same.any():
        return table[:, int(same.argmax())]
    return np.where(np.arange(len(theta)) == who, table[:, profile], np.nan)


def _tastes(env: Any, points: list[Point]) -> np.ndarray:
    """The tastes that the page tells apart, those that ever weigh most."""
    weight = np.max([point.belief for point in points], axis=0)
    weight = np.maximum(weight, np.asarray(env.tastes.weights, float))
    return np.sort(np.argsort(-weight, kind="stable")[:_TASTES])


def _written(
    mechanism: DynamicTeamMechanism, points: list[Point], shown: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Each point's numbers."""
    policy = mechanism.policy
    env = policy.env
    n, names = env.products, displays_named(env, np.arange(len(env.controls)))
    worth = _worth(policy.evaluator, points)
    deaf = _unheard(env, points, worth)
    endings = [
        (point, code)
        for point in points
        for code in np.flatnonzero(point.law > 0).tolist()
        if code <= n or point.place.period == env.horizon
    ]
    bills = Bills(mechanism, endings)
    bill = iter(zip(bills.base, bills.slope))
    count = iter(endings)
    ahead = next(count, None)
    for k, point in enumerate(points):
        ends = []
        while ahead is not None and ahead[0] is point:
            base, slope = next(bill)
            whole = bool(np.isfinite(base).all() and np.isfinite(slope).all())
            money = (_numbers(base), _numbers(slope)) if whole else (None, None)
            ends.append([ahead[1], float(point.law[ahead[1]]), *money])
            ahead = next(count, None)
        taken, order = point.control, np.where(np.isfinite(worth[k]), worth[k], -np.inf)
        value = float(order[taken])
        order[taken] = -np.inf
        second = int(order.argmax())
        rival = bool(np.isfinite(order[second]))
        yield {
            "round": point.place.period,
            "shown": names[taken],
            "value": round(value, _DIGITS),
            "second": names[second] if rival else None,
            "lead": _settled(value - worth[k, second], env) if rival else None,
            "learning": _settled(value - deaf[k], env),
            "theta": _numbers(money_of(env, point.place.theta)),
            "utility": _numbers(env.utilities @ point.belief),
            "belief": np.round(point.belief[shown], _BELIEF).tolist(),
            "ends": ends,
            "answers": [
                [x.symbols, x.chance, x.point, *_moved(env, point, x)] for x in point.answers
            ],
        }


def _moved(env: Any, point: Point, answer: Any) -> list[list[float | None]]:
    """The next values, money, where they moved."""
    if (answer.values == point.place.theta).all():
        return []
    return [_numbers(money_of(env, answer.values))]


def _worth(evaluator: Any, points: list[Point]) -> np.ndarray:
    """Expected surplus of each control at each point (N, C), NaN where not looked into."""
    found = np.full((len(points), len(evaluator.env.controls)), np.nan)
    for rows in _by(points, lambda x: x.place.period):
        for first in range(0, len(rows), _AT_ONCE):
            at = rows[first : first + _AT_ONCE]
            table = evaluator.worths([points[k].place for k in at])
            beliefs = np.stack([points[k].belief for k in at])
            found[at] = np.einsum("ncm,nm->nc", table, beliefs)
    return found


def _unheard(env: Any, points: list[Point], worth: np.ndarray) -> np.ndarray:
    """What the best plan that does not listen is worth at each point (N,)."""
    found = np.nanmax(worth, axis=1)  # in the last round nobody has anything to listen to
    moving = isinstance(env.values, MarkovValues)
    support = np.asarray(env.values.support, float)
    seen = [env.members[list(x.shown[:-1])].any(axis=0) for x in points]
    early = [k for k, x in enumerate(points) if x.place.period < env.horizon]
    for rows in _by(
        [points[k] for k in early],
        lambda x: (x.place.period, x.memory.tobytes(), tuple(sorted(set(x.shown[:-1])))),
    ):
        at = [early[k] for k in rows]
        first, index = points[at[0]], np.stack([points[k].place.theta for k in at])
        theta = index if moving else support[np.arange(env.products), index]
        beliefs = np.stack([points[k].belief for k in at])
        place = first.place.period, first.memory, seen[at[0]]
        found[at] = unheard(env, *place, beliefs, theta)
    return found


def _by(points: list[Point], key: Any) -> list[list[int]]:
    """Indices of the points of each key."""
    groups: dict[Any, list[int]] = {}
    for k, point in enumerate(points):
        groups.setdefault(key(point), []).append(k)
    return list(groups.values())


def _settled(difference: float, env: Any) -> float:
    """A difference of two values, 0 where it is rounding."""
    small = abs(difference) <= 1e-12 * env.money_scale
    return 0.0 if small else round(float(difference), _DIGITS)


def _numbers(array: np.ndarray) -> list[float | None]:
    """Rounded, None for what is not known."""
    rounded = np.round(np.asarray(array, float), _DIGITS)
    return [x if np.isfinite(x) else None for x in rounded.tolist()]
