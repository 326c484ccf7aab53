"""Settlement: ledgers of conversations that have ended (paper C, Definition 4).

Each round charges what a query cost and its installment of the Groves total; the last one charges
the core transfer of what was bought and what is left of the total.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dynmech._checks import (
    as_floats,
    shaped,
)
from dynmech.errors import (
    InvalidArgument,
    describe,
    is_number,
)
from dynmech.errors import shown as told
from dynmech.market.displays import control_of, places
from dynmech.mechanism.openings import totals_at
from dynmech.mechanism.rated import estimated, estimated_many
from dynmech.payments.core import core_payment, query_cost
from dynmech.payments.ledger import Ledger
from dynmech.play.terms import AbstractTerms
from dynmech.policy.conversation import Conversation
from dynmech.policy.conversations import Conversations


def settle_one(
    terms: AbstractTerms, conversation: Conversation, estimate: Any, totals: Any, costs: Any
) -> Ledger:
    """See `DynamicTeamMechanism.settle`."""
    if not conversation.ended:
        must, do = "be a conversation that has ended", "step it to a purchase or exit"
        raise InvalidArgument(describe("settle(conversation=...)", must, "in progress", do))
    n = terms.policy.env.products
    turns = conversation.turns
    bought = turns[-1].action < n
    env, action = terms.policy.env, np.array([turn.action for turn in turns])
    shown, recommended = (
        np.array([control_of("settle(conversation=...)", env, x) for x in given])
        for given in zip(*((turn.shown, turn.recommendation) for turn in turns), strict=True)
    )
    spent = _spent(terms, shown[None], action[None], costs)[0]
    core = np.repeat(spent[:, None], n, axis=1)
    rated = np.full(len(turns), np.nan)
    if bought:
        product = turns[-1].action
        rated[-1] = estimated(terms.policy.env, terms.estimator, conversation, estimate)
        core[-1] = np.asarray(core_payment(env, turns[-1].theta, product, rated[-1], None))
    shares = _shares(terms, len(turns))
    shares[-1] += 1 - shares.sum()
    groves = 0.0 + shares[:, None] * _totals_at(terms, conversation, totals)  # no -0
    return Ledger(
        names=terms.policy.env.names,
        period=np.array([turn.period for turn in turns]),
        recommendation=places(env, recommended),
        shown=places(env, shown),
        off_model=conversation.off_model,
        action=action,
        estimate=rated,
        cost=spent,
        core=core,
        groves=groves,
    )


def settle_each(
    terms: AbstractTerms, given: Sequence[Any], estimate: Any, totals: Any, costs: Any
) -> Ledger:
    """One ledger of conversations or records, one after the other; lists run over them."""
    if not len(given):
        must = "hold at least one conversation"
        raise InvalidArgument(describe("settle(conversation=...)", must, given))

    def parts(name: str, value: Any) -> list[Any]:
        if value is None:
            return [None] * len(given)
        if np.ndim(value) == 0 or len(value) != len(given):
            must = (
                f"hold one entry for each of {len(given)} conversations, None where there is none"
            )
            raise InvalidArgument(describe(f"settle({name}=...)", must, told(value)))
        return [None if part is None or _missing(part) else part for part in value]

    each = [
        settle_one(terms, own_conversation(terms, chat), *rest)
        for chat, *rest in zip(
            given, parts("estimate", estimate), parts("totals", totals), parts("costs", costs)
        )
    ]
    rows = [len(ledger.period) for ledger in each]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(ledger, name) for ledger in each])

    return Ledger(
        names=terms.policy.env.names,
        period=joined("period"),
        recommendation=joined("recommendation"),
        shown=joined("shown"),
        action=joined("action"),
        estimate=joined("estimate"),
        cost=joined("cost"),
        core=joined("core"),
        groves=joined("groves"),
        off_model=any(ledger.off_model for ledger in each),
        conversation=np.repeat(np.arange(len(each)), rows),
    )


def _missing(part: Any) -> bool:
    """Whether an entry of a list is NaN: nothing came."""
    return is_number(part) and bool(np.isnan(float(part)))


def settle_many(
    terms: AbstractTerms, chats: Conversations, estimate: Any, totals: Any, costs: Any
) -> Ledger:
    """One ledger of all rounds of N conversations; `estimate` (N,), NaN where nothing sold."""
    env, count = terms.policy.env, len(chats)
    n = env.products
    if chats.policy.fingerprint != terms.policy.fingerprint:
        must, got = "follow the mechanism's own policy", "some of another policy"
        raise InvalidArgument(describe("settle(conversation=...)", must, got))
    if not chats.ended.all():
        must, got = "have ended, every one", f"{int((~chats.ended).sum())} in progress"
        raise InvalidArgument(describe("settle(conversation=...)", must, got))
    given = estimated_many(env, terms.estimator, chats, estimate)
    sold = chats.bought >= 0
    money = chats.reported
    buyer, product = np.flatnonzero(sold), chats.bought[sold]
    core = np.zeros((count, n))
    core[buyer] = -(money[buyer, product] + given[buyer])[:, None]
    core[buyer, product] = -given[buyer]
    total = _totals_of(terms, chats, totals)
    row, turn = np.nonzero(chats.action >= 0)
    rounds = (chats.action >= 0).sum(axis=1)
    last = turn == rounds[row] - 1
    spent = _spent(terms, chats.displayed, chats.action, costs)[row, turn]
    share = _shares(terms, chats.action.shape[1] + 1)
    charged = np.where(last, 1 - np.cumsum(np.append(0.0, share))[turn], share[turn])
    return Ledger(
        names=env.names,
        period=turn + 1,
        recommendation=places(env, chats.advised)[row, turn],
        shown=chats.shown[row, turn],
        action=chats.action[row, turn],
        estimate=np.where(last & sold[row], given[row], np.nan),
        cost=spent,
        core=np.where(last[:, None], core[row], 0.0) + spent[:, None],
        groves=0.0 + charged[:, None] * total[row],
        off_model=bool(chats.off_model.any()),
        conversation=row,
    )


def _shares(terms: AbstractTerms, rounds: int) -> np.ndarray:
    """Shares of the total that are due in each of so many rounds, whatever ends when.

    The rest is due with the ending; all of it where only what follows the ending tells the total.
    """
    found = np.zeros(rounds)
    if not terms.groves.decoded:
        found[: len(terms.installments)] = terms.installments[:rounds]
    return found


def own_conversation(terms: AbstractTerms, conversation: Any) -> Conversation:
    """The conversation under this policy, resumed where it was held with an equal one."""
    call, policy = "settle(conversation=...)", terms.policy
    if isinstance(conversation, Conversation):
        if conversation.policy.evaluator is policy.evaluator:
            return conversation
        conversation = conversation.record()
    if not isinstance(conversation, Mapping):
        raise InvalidArgument(describe(call, "be a conversation", type(conversation)))
    if conversation.get("policy") != policy.fingerprint:
        must, got = "follow the mechanism's own policy", "one of another policy"
        do = "start it with mechanism.policy.start(...)"
        raise InvalidArgument(describe(call, must, got, do))
    return policy.resume(conversation)


def _spent(terms: AbstractTerms, shown: np.ndarray, action: np.ndarray, costs: Any) -> np.ndarray:
    """What the query of each round cost, (N, turns), 0 where there was none."""
    env, asked = terms.policy.env, action == terms.policy.env.products + 1
    each = np.array([query_cost(env, c) for c in range(len(env.controls))], float)[shown]
    if costs is not None:
        given = np.asarray(as_floats(costs, "settle(costs=...)"), float)
        if given.shape not in (shown.shape, shown.shape[1:]):
            must = f"have shape {shown.shape if len(shown) > 1 else shown.shape[1:]}"
            raise InvalidArgument(describe("settle(costs=...)", must, given.shape))
        each = np.where(np.isnan(each), given, each)
    if not np.isfinite(each[asked]).all():
        must = "be given: what a query costs depends on the taste"
        do = "pass an unbiased estimate for each turn with a query"
        raise InvalidArgument(describe("settle(costs=...)", must, costs, do))
    return np.where(asked, each, 0.0)


def _totals_of(terms: AbstractTerms, chats: Conversations, totals: Any) -> Float[np.ndarray, "N n"]:
    """Groves totals of many conversations."""
    n = terms.policy.env.products
    _check_decoded(terms, totals)
    if totals is not None:
        return np.asarray(shaped(len(chats), n)("settle(totals=...)", totals))
    found = terms.groves_total.reshape(n, -1)[:, chats.profile].T
    for row in np.flatnonzero(chats.profile < 0).tolist():
        found[row] = totals_at(terms, chats.opened(row))
    return found


def _totals_at(
    terms: AbstractTerms, conversation: Conversation, totals: np.ndarray | None
) -> Float[np.ndarray, " n"]:
    _check_decoded(terms, totals)
    if totals is not None:
        return np.asarray(shaped(terms.policy.env.products)("settle(totals=...)", totals))
    if conversation.profile < 0:
        return totals_at(terms, conversation.opening)
    return terms.groves_total.reshape(terms.policy.env.products, -1)[:, conversation.profile]


def _check_decoded(terms: AbstractTerms, totals: Any) -> None:
    if terms.groves.decoded != (totals is not None):
        must = "be given with a total that is decoded, as groves.DataDriven, and only then"
        do = "decode f, groves.function(mechanism.own), from the signal after the ending"
        raise InvalidArgument(describe("settle(totals=...)", must, totals, do))
