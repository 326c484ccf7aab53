"""What ratings stand for where conversations are settled, also those that did not come."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from dynmech._checks import as_floats
from dynmech.errors import DynmechWarning, InvalidArgument, describe
from dynmech.market.displays import control_of
from dynmech.market.environment import RecommendationMDP
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.payments.core import core_payment
from dynmech.policy.conversation import Conversation
from dynmech.policy.conversations import Conversations
from dynmech.problem.settled import laws_of

_CALL = "settle(estimate=...)"
_DO = "pass the rating drawn; ratings that need not come: estimator=InversePropensity()"


def estimated(
    env: RecommendationMDP, signal: AbstractSettlementSignal, chat: Conversation, estimate: Any
) -> float:
    """The estimate that the rating of one purchase stands for; None: no rating came.

    **Raises:** `InvalidArgument` where the signal does not say what that counts.
    """
    last = chat.turns[-1]
    if estimate is None and not signal.counts_missing():
        must = "be given after a purchase"
        raise InvalidArgument(describe(_CALL, must, None, _DO))
    rating = np.array([np.nan])
    if estimate is not None:
        told = np.asarray(as_floats(estimate, _CALL), float)
        rating = -np.asarray(core_payment(env, last.theta, last.action, told, None))[[last.action]]
        _plausible(env, signal, last.action, float(rating[0]))
    shown = np.array([control_of(_CALL, env, last.shown)])
    product, predicted = np.array([last.action]), np.array([chat.predicted])
    laws = laws_of(env, signal, chat.memory[None], shown, product)
    return float(signal.estimate(product, rating, laws, predicted)[0])


def estimated_many(
    env: RecommendationMDP, signal: AbstractSettlementSignal, chats: Conversations, estimate: Any
) -> Float[np.ndarray, " N"]:
    """The estimates that the ratings (N,) of many stand for, NaN where nothing was bought.

    **Raises:** `InvalidArgument`.
    """
    count = len(chats)
    given = np.full(count, np.nan)
    if estimate is not None:
        given = np.array(as_floats(estimate, _CALL), float)
    buyer = np.flatnonzero(chats.bought >= 0)
    came = np.isfinite(given) | (np.isnan(given) & signal.counts_missing())
    if given.shape != (count,) or not came[buyer].all():
        must = f"have shape (N,) = ({count},), a number wherever something was bought"
        got = given.shape if given.shape != (count,) else f"{int((~came[buyer]).sum())} without"
        raise InvalidArgument(describe(_CALL, must, got, _DO))
    product, found = chats.bought[buyer], np.full(count, np.nan)
    if not len(buyer):
        return found
    for one in np.unique(product).tolist():
        rated = given[buyer[product == one]]
        rated = rated[np.isfinite(rated)]
        for rating in {float(rated.min()), float(rated.max())} if len(rated) else ():
            _plausible(env, signal, one, rating)
    laws = laws_of(env, signal, chats.memories(buyer), chats.last_shown[buyer], product)
    found[buyer] = signal.estimate(product, given[buyer], laws, chats.predicted[buyer])
    return found


def _plausible(
    env: RecommendationMDP, signal: AbstractSettlementSignal, product: int, rating: float
) -> None:
    """Warn of a rating further than eight standard deviations from every taste's utility."""
    utilities = np.asarray(env.gains, float)
    noise = signal.rating_noise(utilities)
    if noise is None:
        return
    u, s = utilities[product], np.broadcast_to(np.asarray(noise), utilities.shape)[product]
    if (np.abs(rating - u) > 8 * s + 1e-9 * (1 + np.abs(u))).all():
        must = f"be a rating near a utility ({u.min():.3g} to {u.max():.3g}) of the product"
        do = "check where it comes from before the bill is sent"
        text = describe(_CALL, must, f"{rating:.6g}", do)
        warnings.warn(text, DynmechWarning, stacklevel=5)
