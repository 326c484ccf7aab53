"""One conversation, stepped by hand: what is recommended, believed and expected at each turn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech import files
from dynmech._html import as_html, portrait
from dynmech._types import Record, query_code, with_fields
from dynmech.bounded import Bounded
from dynmech.errors import (
    ImpossibleProfile,
    InvalidArgument,
    OutsideSupport,
    describe,
)
from dynmech.errors import shown as told
from dynmech.market.continued import laws_at
from dynmech.market.displays import control_of, display
from dynmech.market.roots import signal_likelihood
from dynmech.market.shown import stepped
from dynmech.market.values import MarkovValues
from dynmech.policy import cards
from dynmech.policy.questions import AbstractEvaluator, Place
from dynmech.policy.said import (
    action_code,
    answer_of,
    bid_of,
    next_values,
    read_symbols,
    theta_index,
)
from solvers import Certificate

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced


Display = int | tuple[int, ...]


class Turn(Record):
    """One round as it happened.

    `recommendation`, `shown`: what was recommended and what was displayed, a product or -1, or a
    tuple of products where several are shown at once;
    `action` a code (0..n-1 buy, n exit, n+1 query); `theta` (n,), money; `signals` (1+n,), symbols
    seen after a query, None where nothing was said; `edge` the situation of the tree it was in, -1
    without a tree or off it; `values` (n,): indices of the next values, None unless they moved.
    """

    period: int = eqx.field(static=True)
    recommendation: Display = eqx.field(static=True)
    shown: Display = eqx.field(static=True)
    action: int = eqx.field(static=True)
    theta: Float[np.ndarray, " n"]
    signals: Int[np.ndarray, " n1"] | None
    edge: int = eqx.field(static=True)
    values: Int[np.ndarray, " n"] | None = None


class Conversation(Record):
    """A conversation under the policy and truthful reports; `step` and `undo` return new ones.

    `profile`: the index of the profile that it started from, -1 where that is an alternative to
    those asked for; `opening`: its value indices, or money where that is of no index, and symbols.
    `weights` (m,): unnormalised belief. `probability`: of what happened so far, given the initial
    profile and the values in force. `evaluator`: who answers here, the policy's until the belief
    leaves its plan. `off_model`: whether something happened that the model thought impossible.
    A pickled conversation is its `record`.
    """

    policy: AbstractPriced
    profile: int = eqx.field(static=True)
    place: Place
    weights: Float[np.ndarray, " m"]
    probability: float = eqx.field(static=True)
    turns: tuple[Turn, ...]
    ended: bool = eqx.field(static=True)
    previous: Conversation | None
    evaluator: AbstractEvaluator
    opening: tuple[tuple[float, ...], tuple[int, ...]] = eqx.field(static=True)
    off_model: bool = eqx.field(static=True, default=False)

    def __reduce__(self):
        return dict, (self.record(),)

    def __repr__(self) -> str:
        return portrait(self, cards.conversation)

    def _repr_html_(self) -> str:
        return portrait(self, cards.conversation, as_html)

    @property
    def period(self) -> int:
        """The round, counted from 1."""
        return len(self.turns) + (0 if self.ended else 1)

    @property
    def actions(self) -> tuple[int, ...]:
        """Action codes so far."""
        return tuple(turn.action for turn in self.turns)

    @property
    def recommendation(self) -> Display:
        """The product recommended now, -1 for none; a tuple where several are shown at once."""
        self._require_progress("recommendation")
        return display(self.policy.env, self.evaluator.control(self.place))

    @property
    def theta(self) -> Float[np.ndarray, " n"]:
        """Values in force, money."""
        support = np.asarray(self.evaluator.env.values.support)
        return support[np.arange(len(support)), self.place.theta]

    @property
    def belief(self) -> Float[np.ndarray, " m"]:
        """Posterior weights of the tastes; zeros if the reports are impossible together."""
        mass = self.weights.sum()
        return self.weights / mass if mass > 0 else self.weights

    @property
    def value(self) -> float:
        """Expected surplus from here on under the policy, W_t, money; 0 once ended.

        Where it is simulated, its standard error and bounds are those of `certify`.
        """
        return 0.0 if self.ended else float(self.certify().value[0])

    @property
    def predicted(self) -> float:
        """E[u_j - x | reports, history, purchase] of the product bought, money; 0 where the model
        thought the purchase impossible, NaN where nothing was bought."""
        if not self.ended or self.turns[-1].action >= self.policy.env.products:
            return math.nan
        if self.off_model and self.previous is not None and not self.previous.off_model:
            return 0.0
        return float(self.belief @ self.policy.env.gains[self.turns[-1].action])

    @property
    def left(self) -> bool:
        """Whether the conversation left the policy's plan: what remained was solved by itself."""
        at = self.turns[0].edge if self.turns else 0
        return self.evaluator is not self.policy.evaluator or any(
            turn.shown != turn.recommendation or turn.edge < 0 <= at for turn in self.turns
        )

    def certify(self, certificate: Certificate | None = None) -> Bounded:
        """Bound the policy's value and W at this node, for its belief: arrays of one entry.

        The gap bounds what a single-period misreport, or any reporting strategy, can gain from
        here on, as long as the past is truthful and the estimate unbiased (paper C, Theorem 1).

        **Arguments:** `certificate`: how hard to work where it is simulated.
        """
        self._require_progress("certify(...)")
        if not isinstance(certificate, Certificate | None):
            call, must = "Conversation.certify(certificate=...)", "be Certificate(...)"
            raise InvalidArgument(describe(call, must, type(certificate)))
        return self.evaluator.certify(self._with_beyond(), certificate).both

    def _with_beyond(self) -> Place:
        """The place, and where rounds are not written out what these can cost from here."""
        place = self.place
        if place.period == 1 or self.evaluator.left_over(place) is None:
            return place
        there, at = solved_anew(self)
        return with_fields(place, beyond=there.left_over(at))

    def considered(self, recommendation: Any) -> bool:
        """Whether the solver looked into what this recommendation leads to, from here."""
        self._require_progress("considered(...)")
        return self.evaluator.considered(self.place, self._control(recommendation))

    def worth(self, recommendation: Any) -> Float[np.ndarray, " m"]:
        """Surplus given omega of recommending this now and following the policy after, (m,).

        **Raises:** `OutsideSupport` unless `considered(recommendation)`; `DynmechError` where the
        policy is simulated.
        """
        self._require_progress("worth(...)")
        control = self._control(recommendation)
        found = self.evaluator.worths([self.place])[0, control]
        if np.isnan(found).all():
            got = f"{recommendation} in period {self.period}"
            must = "be one that the solver looked into"
            do = "recommend as the policy does, or solve with Exact()"
            raise OutsideSupport(describe("Conversation.worth(recommendation=...)", must, got, do))
        return found

    def step(
        self, action: int | str, signals: Any = None, theta: Any = None, *, shown: Any = None
    ) -> Conversation:
        """Go on with what the user did.

        Nothing that a user can do raises: what the model thought impossible is recorded as
        `off_model`. A purchase or exit then ends the conversation; after a query the belief falls
        back on the last one times the action's chance where that is positive, else stays. Where
        the belief leaves the plan, what remains is solved on demand, exactly where it fits. A last
        round that stands for all that follow stays, belief and all, for as long as she asks.

        **Arguments**

        - `action`: "query", "exit", a product label, or a code.
        - `signals`: after a query, symbols (1+n,), or a mapping from "platform" and labels to
          symbols (a party of one symbol may be left out); a number is the rating itself, money, if
          nobody but the platform reads it. None: nothing was said; the action alone is learned.
        - `theta`: with Markov values, the next values, as in `EfficientPolicy.start`.
        - `shown`: what was displayed instead of the recommendation: label, index, or -1 for none;
          a tuple of products, () for none.

        **Raises:** `InvalidArgument`, `OutsideSupport`, for what is no action, symbol or product.
        """
        self._require_progress("step(...)")
        env, place, evaluator = self.policy.env, self.place, self.evaluator
        code, taken = action_code(env, action), evaluator.control(place)
        call = "Conversation.step(shown=...)"
        control = taken if shown is None else control_of(call, env, shown)
        again, last = code == query_code(env.products), self._last
        goes_on = again and (not last or env.action_rule.lasts() is not None)
        if not again and signals is not None:
            call, must = "Conversation.step(signals=...)", "be given only after a query"
            raise InvalidArgument(describe(call, must, told(signals)))
        symbols = answer_of(env, control, signals) if goes_on else None
        index = next_values(env, place.theta, theta, goes_on)
        planned = control == taken
        if planned:
            actions, columns = evaluator.chances(place, control)
        else:
            _, actions, columns = laws_at(env, self.memory, control, self.period)
        stays = goes_on and planned and last and evaluator.env.action_rule.lasts() is not None
        here, off = (self.weights, False) if stays else _learned(self.weights, actions[code], True)
        if goes_on and symbols is not None and not stays:
            joint = int(env.heard.join(symbols, control))
            heard, strange = _learned(self.weights, columns[joint], False)
            here, off = (here, True) if strange else (heard, off)
            follows = planned and not strange and not last
        else:
            joint, follows = 0, False
        there, after = evaluator, place
        if goes_on and follows:
            after = evaluator.follow(place, control, joint, index)
        elif goes_on and not stays:
            memory, _, _ = laws_at(env, self.memory, control, self.period)
            seen = self.seen | env.members[control]
            held = index if isinstance(env.values, MarkovValues) else self.opened
            beyond = Place(self.period + 1, held, here / here.sum(), memory, seen)
            there, after = self.policy.evaluator.leave(beyond, self.bid)
        moved = goes_on and isinstance(env.values, MarkovValues)
        turn = Turn(
            self.period, display(env, taken), display(env, control), code, self.theta, symbols,
            evaluator.edge(place, control) if planned and there is evaluator else -1,
            index if moved else None,
        )  # fmt: skip
        chance = 0.0 if off else self.probability * float(here.sum() / self.weights.sum())
        weights = after.belief if goes_on and follows else here
        return Conversation(
            self.policy, self.profile, after, weights, chance, (*self.turns, turn), not goes_on,
            self, there, self.opening, self.off_model or off,
        )  # fmt: skip

    @property
    def _last(self) -> bool:
        """Whether no round of the plan that is followed comes after this one."""
        if self.policy.env.action_rule.lasts() is None:
            return self.period >= self.policy.env.horizon
        return self.place.period >= self.evaluator.env.horizon

    @property
    def memory(self) -> Int[np.ndarray, " d"]:
        """What the action rule remembers by now; once ended, after what was shown last."""
        env = self.policy.env
        memory = env.unaware
        for control in self._shown():
            after = stepped(env.action_rule, memory, env.controls[control], env.products)
            memory = np.asarray(after)
        return memory

    @property
    def seen(self) -> Bool[np.ndarray, " n"]:
        """Which products have been shown so far, (n,)."""
        return np.asarray(self.policy.env.members[self._shown()].any(axis=0))

    def _shown(self) -> list[int]:
        """The controls displayed so far."""
        return [self._control(turn.shown) for turn in self.turns]

    @property
    def opened(self) -> Int[np.ndarray, " n"]:
        """Indices of the initial values in the market's support, zeros where they are a bid."""
        return np.array(self.opening[0] if self.bid is None else [0] * len(self.opening[0]))

    @property
    def bid(self) -> Float[np.ndarray, " n"] | None:
        """Values (n,), money, where they are not of the market's support; else None."""
        money = np.asarray(self.opening[0])
        return money if money.dtype.kind == "f" else None

    def record(self) -> dict[str, Any]:
        """What happened so far, for JSON: `policy.resume(record)` goes on in any process.

        **Returns:** a dict of the policy's fingerprint, the opening, the turns, and their digest.
        """
        found = {
            "policy": self.policy.fingerprint,
            "theta": list(self.opening[0]),
            "signals": list(self.opening[1]),
            "turns": [
                {
                    "shown": list(turn.shown) if isinstance(turn.shown, tuple) else turn.shown,
                    "action": turn.action,
                    "signals": None if turn.signals is None else turn.signals.tolist(),
                    "values": None if turn.values is None else turn.values.tolist(),
                }
                for turn in self.turns
            ],
        }
        return files.sealed(found)

    def undo(self) -> Conversation:
        """Return to before the last step.

        **Raises:** `InvalidArgument` before the first.
        """
        if self.previous is None:
            must = "follow at least one step"
            raise InvalidArgument(describe("Conversation.undo()", must, "none"))
        return self.previous

    def _control(self, recommendation: Any) -> int:
        return control_of("Conversation.worth(recommendation=...)", self.policy.env, recommendation)

    def _require_progress(self, what: str) -> None:
        if self.ended:
            must, do = "be in progress", "call .undo()"
            raise InvalidArgument(describe(f"Conversation.{what}", must, "ended", do))


def start_conversation(
    policy: AbstractPriced, theta: Any, signals: Any, profile: int | None
) -> Conversation:
    """See `EfficientPolicy.start`."""
    env, known = policy.env, policy.profiles
    money = None
    if profile is not None:
        if theta is not None or signals is not None:
            must = "be either a profile or theta and signals"
            raise InvalidArgument(describe("EfficientPolicy.start(...)", must, "both"))
        index, symbols = policy.profile_at("start", profile)
    else:
        symbols = read_symbols(env, signals, initial=True)
        money = bid_of(env, theta)
        index = np.zeros(env.products, np.int64) if money is not None else theta_index(env, theta)
        same = (known.theta == index).all(axis=1) & (known.signals == symbols).all(axis=1)
        profile = int(np.argmax(same)) if money is None and same.any() else -1
        if profile >= 0:
            policy.profile_at("start", profile)
    if money is None:
        evaluator, place = policy.evaluator, policy.evaluator.begin(index, symbols)
        opening = tuple(index.tolist()), tuple(symbols.tolist())
    else:
        with jax.enable_x64(True):
            law = np.asarray(signal_likelihood(env, symbols[None]), float)[0]
        belief = np.asarray(env.tastes.weights, float) * law
        opening = tuple(map(float, money)), tuple(symbols.tolist())
        place, evaluator = Place(1, index, belief, env.unaware), policy.evaluator
    if place.belief.sum() <= 0:
        must = "have signals of positive probability"
        raise ImpossibleProfile(
            describe("EfficientPolicy.start(signals=...)", must, symbols.tolist())
        )
    if money is not None:
        evaluator, place = policy.evaluator.leave(place, money)
    return Conversation(
        policy, profile, place, place.belief, 1.0, (), False, None, evaluator, opening
    )  # fmt: skip


def solved_anew(chat: Conversation, rounds: int | None = None) -> tuple[AbstractEvaluator, Place]:
    """Who answers, and where, if what remains is solved anew; see `AbstractEvaluator.leave`."""
    moving = isinstance(chat.policy.env.values, MarkovValues)
    held, belief = chat.place.theta, chat.weights / chat.weights.sum()
    here = Place(chat.period, held if moving else chat.opened, belief, chat.memory, chat.seen)
    return chat.policy.evaluator.leave(here, chat.bid, rounds)


def _learned(
    weights: Float[np.ndarray, " m"], chance: Float[np.ndarray, " m"], stays: bool
) -> tuple[Float[np.ndarray, " m"], bool]:
    """The belief after something of that chance, and whether the model thought it impossible."""
    after = weights * chance
    if after.sum() > 0:
        return after, False
    return (weights if stays else after), True
