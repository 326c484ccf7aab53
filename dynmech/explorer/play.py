"""Conversations that a reader plays: every answer a shopper can give, as data for the page.

One profile is the truth, with every report that one advertiser could make instead. From each,
the conversations that can follow are walked with the policy, and every ending is settled with the
mechanism, so that the page computes nothing that the library did not.
"""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any

import numpy as np

from dynmech.errors import DynmechError, DynmechWarning, InvalidArgument
from dynmech.market.displays import displays_named
from dynmech.mechanism.team import DynamicTeamMechanism
from dynmech.policy.conversation import Conversation

_DIGITS = 12


def plays(mechanism: DynamicTeamMechanism, profile: int, most: int) -> dict[str, Any]:
    """Data of the conversations, at most `most` points of them: truth first, then the reports."""
    policy = mechanism.policy
    theta, signals = policy.profiles.theta[profile], policy.profiles.signals[profile]
    found, left = [], most
    for who, told, heard in _reports(policy.env, theta, signals):
        try:
            chat = policy.start(tuple(told.tolist()), tuple(heard.tolist()))
        except DynmechError:  # a report that cannot be, or that was not solved
            continue
        nodes = _walk(mechanism, chat, _totals(mechanism, told, heard), left)
        left -= len(nodes)
        money = policy.env.values.support[np.arange(policy.env.products), told]
        found.append(
            {
                "who": who,
                "theta": _numbers(money),
                "signals": heard.tolist(),
                "nodes": nodes,
            }
        )
        if left <= 0:
            break
    return {"reports": found, "whole": left > 0}


def _reports(env: Any, theta: np.ndarray, signals: np.ndarray):
    """Who reports otherwise (-1: nobody), value indices and symbols told."""
    yield -1, theta, signals
    for i in range(env.products):
        for k in range(env.values.support.shape[1]):
            for z in range(env.initial_alphabet[1 + i]):
                if (k, z) != (theta[i], signals[1 + i]):
                    told, heard = theta.copy(), signals.copy()
                    told[i], heard[1 + i] = k, z
                    yield i, told, heard


def _totals(mechanism: DynamicTeamMechanism, theta, signals) -> np.ndarray | None:
    """Groves totals of a profile where they are known, in expectation where they are decoded."""
    known = mechanism.policy.profiles
    same = (known.theta == theta).all(axis=1) & (known.signals == signals).all(axis=1)
    if not same.any():
        return None
    return mechanism.groves_total.reshape(len(theta), -1)[:, int(same.argmax())]


def _walk(mechanism: DynamicTeamMechanism, chat: Conversation, totals, most: int) -> list[dict]:
    """Points of the conversations from here, the first first; children by their index."""
    nodes: list[dict[str, Any]] = [{}]
    waiting = deque([(0, chat)])
    while waiting:
        at, here = waiting.popleft()
        nodes[at], answers = _point(mechanism, here, totals)
        for symbol, chance, then in answers:
            if len(nodes) < most:
                nodes[at]["answers"].append([symbol, chance, len(nodes)])
                nodes.append({})
                waiting.append((len(nodes) - 1, then))
            else:
                nodes[at]["answers"].append([symbol, chance, -1])
    return nodes


def _point(mechanism: DynamicTeamMechanism, chat: Conversation, totals):
    """What is shown and believed at one point, how it can end, and where it can go on."""
    env, n, belief = chat.policy.env, chat.policy.env.products, chat.belief
    control = chat.evaluator.control(chat.place)
    names = displays_named(env, np.arange(len(env.controls)))
    actions, columns = chat.evaluator.chances(chat.place, control)
    law, heard = actions @ belief, columns @ belief
    worth = np.array(
        [
            belief @ chat.worth(shown) if chat.considered(shown) else -np.inf
            for shown in names
        ]
    )  # fmt: skip
    second = int(np.where(np.arange(len(names)) == control, -np.inf, worth).argmax())
    rival = bool(np.isfinite(worth[second])) and second != control
    ends = [
        [code, float(law[code]), *_bill(mechanism, chat.step(code), totals)]
        for code in range(n + 2)
        if law[code] > 0 and (code <= n or chat.period == env.horizon)
    ]
    going = chat.period < env.horizon and law[n + 1] > 0
    answers = [
        (env.heard.split(z, control).tolist(), float(heard[z]),
         chat.step("query", env.heard.split(z, control)))
        for z in range(len(heard) if going else 0)
        if heard[z] > 0
    ]  # fmt: skip
    point = {
        "round": chat.period,
        "shown": names[control],
        "value": round(chat.value, _DIGITS),
        "second": names[second] if rival else None,
        "lead": round(float(worth[control] - worth[second]), _DIGITS) if rival else None,
        "utility": _numbers(env.utilities @ belief),
        "ends": ends,
        "answers": [],
    }
    return point, answers


def _bill(mechanism: DynamicTeamMechanism, ended: Conversation, totals):
    """Transfers (n,) at a rating of 0, and by how much a rating of one unit more moves them.

    None where totals are not known, a cost has to be estimated, or a rating does not move the
    transfers evenly.
    """
    turn, env = ended.turns[-1], mechanism.policy.env
    if totals is None:
        return None, None
    decoded = totals if mechanism.groves.decoded else None
    bought = turn.action < env.products
    low, high = ratings(env)[turn.action] if bought else (0.0, 1.0)
    at = [low, (low + high) / 2, high] if bought else [None] * 3
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DynmechWarning)
            paid = [
                mechanism.settle(ended, estimate=x, totals=decoded).transfer.sum(axis=0) for x in at
            ]
    except InvalidArgument:
        return None, None
    slope = (paid[2] - paid[0]) / (high - low)
    if not np.allclose(paid[0] + paid[2], 2 * paid[1], rtol=0, atol=1e-9 * env.money_scale):
        return None, None
    return _numbers(paid[0] - slope * low), _numbers(slope)


def ratings(env: Any) -> list[list[float]]:
    """From the least to the largest utility of each product, apart by something."""
    low, high = env.utilities.min(axis=1), env.utilities.max(axis=1)
    return np.stack([low, np.where(high > low, high, low + env.money_scale)], axis=1).tolist()


def _numbers(array: np.ndarray) -> list[float]:
    return np.round(np.asarray(array, float), _DIGITS).tolist()
