"""Why this is recommended now: what is believed, what comes second, what listening is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._checks import instance
from dynmech._html import Card, amount, as_html, portrait
from dynmech._types import Record
from dynmech.errors import InvalidArgument, describe
from dynmech.market.continued import remaining, with_rounds
from dynmech.market.displays import displays_named, words
from dynmech.market.values import MarkovValues
from dynmech.policy.conversation import Conversation, solved_anew
from dynmech.policy.questions import AbstractEvaluator, Place
from dynmech.policy.rest import solve_rest

if TYPE_CHECKING:
    from dynmech.market.environment import RecommendationMDP
    from dynmech.policy.priced import AbstractPriced

_MOVERS = 5


class Explanation(Record):
    """Why a product is recommended at one point of a conversation.

    - `period`; `recommendation`, `runner_up`: products, -1 for none, or tuples where several are
      shown at once; `runner_up` is None where the solver looked into nothing else.
    - `worth` (C,): expected surplus from here on of each control, none last, and following the
      policy after, money; NaN where the solver did not look into it. `controls`: they, in words;
      `taken`, `second`: which are recommended, and next. `lead`: of the recommendation over the
      runner-up, money; NaN without one.
    - `learning`: what the policy is worth from here on above the best plan that does not listen to
      what she says, money; never negative under a policy solved exactly.
    Where the rounds after the last one written out count as nothing, as many are counted from here
    on as were at the outset, what remains being solved anew as closely; a lead may be negative by
    what that leaves open.
    - `utility`, `utility_before` (n,): expected utility of each product now and under the prior.
    - `belief`, `belief_before` (m,): weights of the tastes; `movers`: indices of the tastes whose
      weights moved most, the largest move first.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    unit: str = eqx.field(static=True)
    period: int = eqx.field(static=True)
    controls: tuple[str, ...] = eqx.field(static=True)
    recommendation: int | tuple[int, ...] = eqx.field(static=True)
    runner_up: int | tuple[int, ...] | None = eqx.field(static=True)
    taken: int = eqx.field(static=True)
    second: int = eqx.field(static=True)
    worth: Float[np.ndarray, " C"]
    lead: float = eqx.field(static=True)
    learning: float = eqx.field(static=True)
    utility: Float[np.ndarray, " n"]
    utility_before: Float[np.ndarray, " n"]
    belief: Float[np.ndarray, " m"]
    belief_before: Float[np.ndarray, " m"]
    movers: Int[np.ndarray, " _k"]
    tastes: Float[np.ndarray, "m k"]

    def __repr__(self) -> str:
        return portrait(self, _card)

    def _repr_html_(self) -> str:
        return portrait(self, _card, as_html)


def explain(policy: AbstractPriced, conversation: Conversation, unit: str) -> Explanation:
    """See `EfficientPolicy.explain`."""
    call = "EfficientPolicy.explain({}=...)".format
    instance(Conversation, "a conversation of this policy")(call("conversation"), conversation)
    instance(str, "the unit of money, as 'dollars'")(call("unit"), unit)
    if conversation.policy is not policy and conversation.policy.fingerprint != policy.fingerprint:
        must, got = "be of this policy", "one of another policy"
        raise InvalidArgument(describe(call("conversation"), must, got))
    env, chat, recommended = policy.env, conversation, conversation.recommendation
    belief, taken = chat.belief, chat.evaluator.control(chat.place)
    names = displays_named(env, np.arange(len(env.controls)))
    there, at, more = _looking_on(chat)
    worth = there.worths([at])[0] @ belief
    value = float(worth[there.control(at)])
    others = np.where(np.isfinite(worth), worth, -np.inf)
    others[taken] = -np.inf
    second = int(others.argmax())
    found = np.isfinite(others[second])
    prior = np.asarray(env.tastes.weights, float)
    prior = prior / prior.sum()
    moved = np.abs(belief - prior)
    order = np.argsort(-moved, kind="stable")[:_MOVERS]
    return Explanation(
        names=env.names,
        unit=unit,
        period=chat.period,
        controls=words(env),
        recommendation=recommended,
        runner_up=names[second] if found else None,
        taken=taken,
        second=second,
        worth=worth,
        lead=_settled(float(worth[taken] - worth[second]), env) if found else float("nan"),
        learning=_learning(chat, value, more),
        utility=env.utilities @ belief,
        utility_before=env.utilities @ prior,
        belief=belief,
        belief_before=prior,
        movers=order[moved[order] > 0],
        tastes=np.asarray(env.tastes.points, float),
    )


def _looking_on(chat: Conversation) -> tuple[AbstractEvaluator, Place, int]:
    """Who answers, where, and rounds that are counted besides those written out.

    Where rounds after the last one written out count as nothing, as many are from here as were from
    the outset, however few of those are left.
    """
    evaluator, place = chat.evaluator, chat.place
    if chat.period == 1 or evaluator.left_over(place) is None:
        return evaluator, place, 0
    return *solved_anew(chat, int(chat.policy.env.horizon)), chat.period - 1


def _learning(chat: Conversation, value: float, more: int) -> float:
    """What the policy is worth here above the best plan that does not listen."""
    env = chat.policy.env
    env = with_rounds(env, env.horizon + more)
    at = min(chat.period, int(env.horizon)), chat.memory, chat.seen
    theta = chat.place.theta if isinstance(env.values, MarkovValues) else chat.theta
    deaf = unheard(env, *at, chat.belief[None], theta[None])
    return _settled(value - float(deaf[0]), env)


def unheard(
    env: RecommendationMDP,
    period: int,
    memory: Int[np.ndarray, " d"],
    seen: Bool[np.ndarray, " n"],
    beliefs: Float[np.ndarray, "B m"],
    theta: np.ndarray,
) -> Float[np.ndarray, " B"]:
    """What the best plans that do not listen are worth from here on, at beliefs of mass 1.

    **Arguments:** `theta` (B, n): values in force, money, or their indices where they move.
    """
    money, index = None, np.asarray(theta)
    if not isinstance(env.values, MarkovValues):
        rows = [np.unique(column, return_inverse=True) for column in index.T]
        widest = max(len(values) for values, _ in rows)
        money = np.stack([np.pad(x, (0, widest - len(x)), mode="edge") for x, _ in rows])
        index = np.stack([place.reshape(-1) for _, place in rows], axis=1)
    rest = remaining(env.without_feedback(), beliefs, memory, period - 1, seen, money)
    deaf = solve_rest(rest, index)
    return deaf.value[deaf.pairs.base]


def _settled(difference: float, env: RecommendationMDP) -> float:
    """A difference of two values, 0 where it is rounding."""
    return 0.0 if abs(difference) <= 1e-12 * env.money_scale else float(difference)


def _move(before: float, now: float) -> str:
    """From one number to another; one where they read alike."""
    return " to ".join(dict.fromkeys((amount(before), amount(now))))


def _card(it: Explanation) -> Card:
    taken, unit = it.controls[it.taken], it.unit
    head = f"Round {it.period}: {taken}"
    facts = [("worth", f"{amount(it.worth[it.taken])} {unit} from here on")]
    if it.runner_up is not None:
        head += f", {amount(it.lead)} {unit} ahead of {it.controls[it.second]}"
        facts.append(
            ("runner-up", f"{it.controls[it.second]}, {amount(it.worth[it.second])} {unit}")
        )
    facts.append(("listening", f"worth {amount(it.learning)} {unit} from here on"))
    order = np.argsort(-np.abs(it.utility - it.utility_before), kind="stable")[:4]
    moves = [
        f"{it.names[i]} {_move(float(it.utility_before[i]), float(it.utility[i]))}" for i in order
    ]
    facts.append(("expected utility", f"{'; '.join(moves)} {unit}"))
    rows = tuple(
        (
            "(" + ", ".join(map(amount, it.tastes[k])) + ")",
            f"{100 * it.belief_before[k]:.1f}%",
            f"{100 * it.belief[k]:.1f}%",
        )
        for k in it.movers.tolist()
    )
    columns = ("taste", "at first", "now") if rows else ()
    return Card(head, tuple(facts), columns, rows)
