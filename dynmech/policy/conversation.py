"""One conversation, stepped by hand: what is recommended, believed and expected at each turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import by_label, finite, indices
from dynmech._types import NONE, exit_code, join_symbols, query_code
from dynmech.bounded import Bounded
from dynmech.errors import (
    ImpossibleProfile,
    InvalidArgument,
    OutsideSupport,
    describe,
    is_number,
    shown,
)
from dynmech.market.structures import PrivateFeedback, PrivateStructures
from dynmech.market.values import MarkovValues
from dynmech.policy.questions import AbstractEvaluator, Place
from dynmech.solve.certificates import Bounds, Certificate

if TYPE_CHECKING:
    from dynmech.policy.base import AbstractPricedPolicy


class Turn(eqx.Module):
    """One round as it happened.

    `recommendation` is an index or -1; `action` a code (0..n-1 buy, n exit, n+1 query); `theta`
    (n,), money; `signals` (1+n,), symbols seen after a query; `edge` the situation of the tree it
    was in, -1 without a tree.
    """

    period: int = eqx.field(static=True)
    recommendation: int = eqx.field(static=True)
    action: int = eqx.field(static=True)
    theta: Float[np.ndarray, " n"]
    signals: Int[np.ndarray, " n1"] | None
    edge: int = eqx.field(static=True)


class Conversation(eqx.Module):
    """A conversation under the policy and truthful reports; `step` and `undo` return new ones.

    `profile`: the index of the profile that it started from, -1 where that is an alternative to
    those asked for. `weights` (m,): unnormalised belief. `probability`: of what happened so far,
    given the initial profile and the values in force.
    """

    policy: AbstractPricedPolicy
    profile: int = eqx.field(static=True)
    place: Place
    weights: Float[np.ndarray, " m"]
    probability: float = eqx.field(static=True)
    turns: tuple[Turn, ...]
    ended: bool = eqx.field(static=True)
    previous: Conversation | None

    @property
    def period(self) -> int:
        """The round, counted from 1."""
        return len(self.turns) + (0 if self.ended else 1)

    @property
    def actions(self) -> tuple[int, ...]:
        """Action codes so far."""
        return tuple(turn.action for turn in self.turns)

    @property
    def recommendation(self) -> int:
        """The product recommended now, -1 for none."""
        self._require_progress("recommendation")
        control = self._evaluator.control(self.place)
        return NONE if control == self.policy.env.products else control

    @property
    def theta(self) -> Float[np.ndarray, " n"]:
        """Values in force, money."""
        env = self.policy.env
        return np.asarray(env.values.support)[np.arange(env.products), self.place.theta]

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
    def _evaluator(self) -> AbstractEvaluator:
        return self.policy.evaluator

    def certify(self, certificate: Certificate | None = None) -> Bounds | Bounded:
        """Bound W at this node, for its belief: arrays of one entry.

        The gap bounds what a single-period misreport, or any reporting strategy, can gain from
        here on, as long as the past is truthful and the estimate unbiased (paper C, Theorem 1).

        **Arguments:** `certificate`: how hard to work where it is simulated.
        """
        self._require_progress("certify(...)")
        if not isinstance(certificate, Certificate | None):
            must = "be Certificate(...)"
            call = "Conversation.certify(certificate=...)"
            raise InvalidArgument(describe(call, must, type(certificate)))
        return self._evaluator.certify(self.place, certificate)

    def considered(self, recommendation: int) -> bool:
        """Whether the solver looked into what this recommendation leads to, from here."""
        self._require_progress("considered(...)")
        return self._evaluator.considered(self.place, self._control(recommendation))

    def worth(self, recommendation: int) -> Float[np.ndarray, " m"]:
        """Surplus given omega of recommending this now and following the policy after, (m,).

        **Raises:** `OutsideSupport` unless `considered(recommendation)`; `DynmechError` where the
        policy is simulated.
        """
        self._require_progress("worth(...)")
        return self._evaluator.worth(self.place, self._control(recommendation))

    def step(self, action: int | str, signals: Any = None, theta: Any = None) -> Conversation:
        """Go on with what the user did.

        **Arguments:** `action`: "query", "exit", a product label, or a code; `signals`: after
        a query, symbols (1+n,), or a mapping from "platform" and labels to symbols (a party
        of one symbol may be left out); `theta`: with Markov values, the next values, as in
        `EfficientPolicy.start`.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `ImpossibleProfile` when what happened
        has probability zero.
        """
        self._require_progress("step(...)")
        env, place, evaluator = self.policy.env, self.place, self._evaluator
        code, control = action_code(env, action), evaluator.control(self.place)
        actions, columns = evaluator.chances(place, control)
        if actions[code] @ self.weights <= 0:
            must = "be something the user does here with positive probability"
            raise ImpossibleProfile(describe("Conversation.step(action=...)", must, action))
        again = code == query_code(env.products)
        goes_on = again and self.period < env.horizon
        if not again and signals is not None:
            must = "be given only after a query"
            raise InvalidArgument(describe("Conversation.step(signals=...)", must, shown(signals)))
        symbols, joint = None, 0
        if goes_on:
            symbols = read_symbols(env, signals, initial=False)
            joint = int(join_symbols(symbols, env.feedback_alphabet))
        index = _next_values(env, place.theta, theta, goes_on)
        here = self.weights * (columns[joint] if goes_on else actions[code])
        if here.sum() <= 0:
            must = "have positive probability after this history"
            raise ImpossibleProfile(describe("Conversation.step(signals=...)", must, signals))
        after = evaluator.follow(place, control, joint, index) if goes_on else place
        turn = Turn(
            self.period, self.recommendation, code, self.theta, symbols,
            evaluator.edge(place, control),
        )  # fmt: skip
        chance = self.probability * float(here.sum() / self.weights.sum())
        weights = after.belief if goes_on else here
        return Conversation(
            self.policy, self.profile, after, weights, chance, (*self.turns, turn), not goes_on,
            self,
        )  # fmt: skip

    def undo(self) -> Conversation:
        """Return to before the last step.

        **Raises:** `InvalidArgument` before the first.
        """
        if self.previous is None:
            must = "follow at least one step"
            raise InvalidArgument(describe("Conversation.undo()", must, "none"))
        return self.previous

    def _control(self, recommendation: int) -> int:
        return self.policy.env.products if recommendation == NONE else recommendation

    def _require_progress(self, what: str) -> None:
        if self.ended:
            must, do = "be in progress", "call .undo()"
            raise InvalidArgument(describe(f"Conversation.{what}", must, "ended", do))


def start_conversation(policy: AbstractPricedPolicy, theta, signals, profile) -> Conversation:
    """See `EfficientPolicy.start`."""
    env, known = policy.env, policy.profiles
    if profile is not None:
        if theta is not None or signals is not None:
            must = "be either a profile or theta and signals"
            raise InvalidArgument(describe("EfficientPolicy.start(...)", must, "both"))
        index, symbols = policy.profile_at("start", profile)
    else:
        index, symbols = theta_index(env, theta), read_symbols(env, signals, initial=True)
        same = (known.theta == index).all(axis=1) & (known.signals == symbols).all(axis=1)
        profile = int(np.argmax(same)) if same.any() else -1
        if profile >= 0:
            policy.profile_at("start", profile)
    place = policy.evaluator.begin(index, symbols)
    if place.belief.sum() <= 0:
        must = "have signals of positive probability"
        raise ImpossibleProfile(
            describe("EfficientPolicy.start(signals=...)", must, symbols.tolist())
        )
    return Conversation(policy, profile, place, place.belief, 1.0, (), False, None)


def action_code(env, action: int | str) -> int:
    n = env.products
    words = {
        "exit": exit_code(n),
        "query": query_code(n),
        **{x: i for i, x in enumerate(env.names)},
    }
    if isinstance(action, str):
        if action not in words:
            must = f"be one of {', '.join(words)}"
            raise OutsideSupport(describe("Conversation.step(action=...)", must, action))
        return words[action]
    if not is_number(action, "iu") or not 0 <= int(action) < n + 2:
        must = f"be a code in 0..{n + 1}, or one of {', '.join(words)}"
        raise OutsideSupport(describe("Conversation.step(action=...)", must, shown(action)))
    return int(action)


def read_symbols(env, signals, initial: bool) -> Int[np.ndarray, " n1"]:
    structure = env.signals.initial if initial else env.signals.feedback
    alphabet = env.initial_alphabet if initial else env.feedback_alphabet
    call = "signals"
    labels, signals = ("platform", *env.names), by_label(signals)
    if signals is None:
        if max(alphabet) > 1:
            must = "be given"
            do = f"pass symbols of {', '.join(labels)}, below {tuple(alphabet)}"
            raise InvalidArgument(describe(f"{call}=...", must, None, do))
        return np.zeros(len(alphabet), np.int64)
    if isinstance(signals, Mapping):
        unknown = set(signals) - set(labels)
        if unknown:
            must = f"name only {', '.join(labels)}"
            raise OutsideSupport(describe(f"{call}=...", must, shown(unknown)))
        missing = [x for x, size in zip(labels, alphabet, strict=True) if size > 1]
        missing = [x for x in missing if x not in signals]
        if missing:
            raise InvalidArgument(describe(f"{call}=...", "name every party", f"no {missing}"))
        signals = [signals.get(label, 0) for label in labels]
    if isinstance(signals, Sequence) and any(isinstance(given, tuple) for given in signals):
        if not isinstance(structure, PrivateStructures | PrivateFeedback):
            must = "be integers: pairs (structure, symbol) are for private structures"
            raise InvalidArgument(describe(f"{call}=...", must, signals))
        signals = structure.encode(signals)
    symbols = indices(None)(f"{call}=...", signals)
    if symbols.shape != (len(alphabet),):
        must = f"be {len(alphabet)} integers (platform first)"
        raise InvalidArgument(describe(f"{call}=...", must, signals))
    if (symbols < 0).any() or (symbols >= np.array(alphabet)).any():
        raise OutsideSupport(describe(f"{call}=...", f"be below {tuple(alphabet)}", signals))
    return symbols


def theta_index(env, theta) -> Int[np.ndarray, " n"]:
    support, theta = env.values.support, by_label(theta)
    n, size = support.shape
    if theta is None:
        if size > 1:
            raise InvalidArgument(describe("theta=...", "be given", None, "pass indices (n,)"))
        return np.zeros(n, np.int64)
    if isinstance(theta, Mapping):
        if set(theta) != set(env.names):
            must = f"name each of {', '.join(env.names)}"
            raise OutsideSupport(describe("theta=...", must, shown(list(theta))))
        money = np.asarray(finite("theta=...", [theta[name] for name in env.names]))
        gap = np.abs(support - money[:, None])
        index = gap.argmin(axis=1)
        off = gap[np.arange(n), index] > 1e-9 * max(1.0, float(np.abs(support).max()))
        if off.any():
            name = env.names[int(np.flatnonzero(off)[0])]
            must = "hold money values of the declared support"
            raise OutsideSupport(describe("theta=...", must, f"{name}: {theta[name]}"))
        return index
    index = indices(None)("theta=...", theta)
    if index.shape != (n,):
        must = f"be {n} integer indices, or a mapping from labels to money"
        raise InvalidArgument(describe("theta=...", must, theta))
    if (index < 0).any() or (index >= size).any():
        raise OutsideSupport(describe("theta=...", f"be indices in 0..{size - 1}", theta))
    return index


def profile_index(policy, verb: str, profile) -> int:
    """The index of a solved profile; `OutsideSupport` for any other."""
    count = len(policy.profiles)
    if not is_number(profile, "iu") or not 0 <= int(profile) < count:
        must = f"be an index in 0..{count - 1}"
        raise OutsideSupport(describe(f"{verb}(profile=...)", must, shown(profile)))
    return int(profile)


def _next_values(env, held: np.ndarray, theta, goes_on: bool) -> Int[np.ndarray, " n"]:
    """Value indices of the next round: those in force where values are constant."""
    call = "Conversation.step(theta=...)"
    if not goes_on:
        if theta is not None:
            raise InvalidArgument(
                describe(call, "be given only when the conversation goes on", theta)
            )
        return held
    if not isinstance(env.values, MarkovValues):
        if theta is not None and (theta_index(env, theta) != held).any():
            raise InvalidArgument(describe(call, "stay the same: values are constant", theta))
        return held
    if theta is None and env.values.support.shape[1] > 1:
        must, do = "be given: values move between rounds", "pass the next values"
        raise InvalidArgument(describe(call, must, None, do))
    return theta_index(env, theta)
