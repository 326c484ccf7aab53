"""One conversation, stepped by hand: what is recommended, believed and expected at each turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import by_label, finite, indices
from dynmech._types import NONE, exit_code, join_symbols, query_code
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
from solvers import evaluate, unfold

if TYPE_CHECKING:
    from dynmech.policy.efficient import EfficientPolicy


class Turn(eqx.Module):
    """One round as it happened.

    `recommendation` is an index or -1; `action` a code (0..n-1 buy, n exit, n+1 query); `theta`
    (n,), money; `signals` (1+n,), symbols seen after a query; `edge` the situation it was in.
    """

    period: int = eqx.field(static=True)
    recommendation: int = eqx.field(static=True)
    action: int = eqx.field(static=True)
    theta: Float[np.ndarray, " n"]
    signals: Int[np.ndarray, " n1"] | None
    edge: int = eqx.field(static=True)


class Conversation(eqx.Module):
    """A conversation under the policy and truthful reports; `step` and `undo` return new ones."""

    policy: EfficientPolicy
    pair: int = eqx.field(static=True)
    node: int = eqx.field(static=True)
    turns: tuple[Turn, ...]
    ended: bool = eqx.field(static=True)
    previous: Conversation | None
    start_pair: int = eqx.field(static=True)

    @property
    def period(self) -> int:
        """The round, counted from 1."""
        return len(self.turns) + (0 if self.ended else 1)

    @property
    def recommendation(self) -> int:
        """The product recommended now, -1 for none."""
        if self.ended:
            must = "be in progress"
            do = "call .undo()"
            raise InvalidArgument(describe("Conversation.recommendation", must, "ended", do))
        control = int(self.policy.plan.actions[self.period - 1][self.pair, self.node])
        return NONE if control == self.policy.env.products else control

    @property
    def theta(self) -> Float[np.ndarray, " n"]:
        """Values in force, money."""
        return _money(self.policy, self.pair)

    @property
    def belief(self) -> Float[np.ndarray, " m"]:
        """Posterior weights of the tastes; zeros if the reports are impossible together."""
        weights = self._weights()
        return weights / weights.sum() if weights.sum() > 0 else weights

    @property
    def probability(self) -> float:
        """Probability of what happened so far, given the initial profile."""
        start = self.policy.plan.root[self.policy.plan.pair_root[self.start_pair]].sum()
        return float(self._weights().sum() / start)

    @property
    def value(self) -> float:
        """Expected surplus from here on under the policy, W_t, money; 0 once ended."""
        if self.ended:
            return 0.0
        belief = self.belief
        return float(belief @ self.worth(self.recommendation))

    def considered(self, recommendation: int) -> bool:
        """Whether the solver looked into what this recommendation leads to, from here."""
        plan, t = self.policy.plan, self.period - 1
        control = self.policy.env.products if recommendation == NONE else recommendation
        edge = plan.edge(t, np.array([self.node]), np.array([control]))[0]
        known = edge < len(plan.tree.structure.columns)
        return bool(known and (plan.tree.layers[t].child[self.node, control] >= 0).all())

    def worth(self, recommendation: int) -> Float[np.ndarray, " m"]:
        """Surplus given omega of recommending this now and following the policy after, (m,).

        **Raises:** `OutsideSupport` unless `considered(recommendation)`.
        """
        plan, n = self.policy.plan, self.policy.env.products
        control = n if recommendation == NONE else recommendation
        none = np.zeros(0, np.int64)
        wanted = [(none, none, none) for _ in range(plan.horizon)]
        here = np.array([self.pair]), np.array([self.node]), np.array([control])
        if not self.considered(recommendation):
            got = f"{recommendation} in period {self.period}"
            must = "be one that the solver looked into"
            do = "recommend as the policy does, or solve with Exact()"
            raise OutsideSupport(describe("Conversation.worth(recommendation=...)", must, got, do))
        wanted[self.period - 1] = here
        keys, places = unfold(plan, wanted)
        support, theta = self.policy.env.values.support, self.policy.pairs.theta
        stop, reward = np.asarray(plan.tables.stop), np.asarray(plan.tables.reward)

        def flow(t, pair, node, control):
            edge = plan.edge(t, node, control)
            product = plan.tree.structure.outcome[edge]
            money = support[np.arange(n), theta[pair]]
            earned = np.take_along_axis(money, np.maximum(product, 0), axis=1)
            return ((earned[:, :, None] + reward[product]) * stop[edge]).sum(1)[:, None]

        values = evaluate(plan, keys, flow)
        return values[self.period - 1][places[self.period - 1][0], 0]

    def step(
        self,
        action: int | str,
        signals: Any = None,
        theta: Any = None,
    ) -> Conversation:
        """Go on with what the user did.

        **Arguments:** `action`: "query", "exit", a product label, or a code; `signals`: after
        a query, symbols (1+n,), or a mapping from "platform" and labels to symbols (a party
        of one symbol may be left out); `theta`: with Markov values, the next values, as in
        `EfficientPolicy.start`.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `ImpossibleProfile` when what happened
        has probability zero.
        """
        if self.ended:
            must, do = "be in progress", "call .undo()"
            raise InvalidArgument(describe("Conversation.step(...)", must, "ended", do))
        plan, env, t = self.policy.plan, self.policy.env, self.period - 1
        code = action_code(env, action)
        control = int(plan.actions[t][self.pair, self.node])
        edge = int(plan.edge(t, np.array([self.node]), np.array([control]))[0])
        chance = self.policy.compiled.action[edge, code] @ self._weights()
        if chance <= 0:
            must = "be something the user does here with positive probability"
            raise ImpossibleProfile(describe("Conversation.step(action=...)", must, action))
        again = code == query_code(env.products)
        goes_on = again and t + 1 < plan.horizon
        symbols = read_symbols(env, signals, initial=False) if goes_on else None
        if not again and signals is not None:
            must = "be given only after a query"
            raise InvalidArgument(describe("Conversation.step(signals=...)", must, shown(signals)))
        turn = Turn(t + 1, self.recommendation, code, self.theta, symbols, edge)
        pair, node = self.pair, self.node
        if symbols is not None:
            joint = int(join_symbols(symbols, env.feedback_alphabet))
            node = int(plan.tree.layers[t].child[node, control, joint])
            pair = _next_pair(self.policy, pair, theta)
        elif theta is not None:
            must = "be given only when the conversation goes on"
            raise InvalidArgument(describe("Conversation.step(theta=...)", must, theta))
        after = Conversation(
            self.policy, pair, node, (*self.turns, turn), not goes_on, self, self.start_pair
        )
        if goes_on and after._weights().sum() <= 0:
            must = "have positive probability after this history"
            raise ImpossibleProfile(describe("Conversation.step(signals=...)", must, signals))
        return after

    def undo(self) -> Conversation:
        """Return to before the last step."""
        if self.previous is None:
            must = "follow at least one step"
            raise InvalidArgument(describe("Conversation.undo()", must, "none"))
        return self.previous

    def _weights(self):
        t = len(self.turns)
        plan = self.policy.plan
        if self.ended:
            belief = self.previous._weights() if self.previous else plan.root[0]
            turn = self.turns[-1]
            return belief * self.policy.compiled.action[turn.edge, turn.action]
        return plan.belief(t, np.array([self.pair]), np.array([self.node]))[0]


def start_conversation(policy: EfficientPolicy, theta, signals, profile) -> Conversation:
    """See `EfficientPolicy.start`."""
    env, pairs = policy.env, policy.pairs
    if profile is not None:
        if theta is not None or signals is not None:
            must = "be either a profile or theta and signals"
            raise InvalidArgument(describe("EfficientPolicy.start(...)", must, "both"))
        pair = int(pairs.base[profile_index(policy, "EfficientPolicy.start", profile)])
    else:
        index = theta_index(env, theta)
        symbols = read_symbols(env, signals, initial=True)
        root = np.flatnonzero((pairs.signals == symbols).all(axis=1))
        found = np.flatnonzero(np.isin(pairs.root, root) & (pairs.theta == index).all(axis=1))
        if not len(found):
            must = "name a profile that was solved"
            got = f"theta {index.tolist()}, signals {symbols.tolist()}"
            do = "solve with it in initial=Profiles(...)"
            raise OutsideSupport(describe("EfficientPolicy.start(...)", must, got, do))
        pair = int(found[0])
    if policy.plan.root[pairs.root[pair]].sum() <= 0:
        must = "have signals of positive probability"
        got = pairs.signals[pairs.root[pair]].tolist()
        raise ImpossibleProfile(describe("EfficientPolicy.start(signals=...)", must, got))
    return Conversation(policy, pair, 0, (), False, None, pair)


def _money(policy, pair: int) -> Float[np.ndarray, " n"]:
    env = policy.env
    return env.values.support[np.arange(env.products), policy.pairs.theta[pair]]


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


def _next_pair(policy, pair: int, theta) -> int:
    env = policy.env
    if not isinstance(env.values, MarkovValues):
        if theta is not None and (theta_index(env, theta) != policy.pairs.theta[pair]).any():
            must = "stay the same: values are constant"
            raise InvalidArgument(describe("Conversation.step(theta=...)", must, theta))
        return pair
    if theta is None and env.values.support.shape[1] > 1:
        must, do = "be given: values move between rounds", "pass the next values"
        raise InvalidArgument(describe("Conversation.step(theta=...)", must, None, do))
    index = theta_index(env, theta)
    options = policy.plan.sibling[pair]
    return int(options[(policy.pairs.theta[options] == index).all(axis=1)][0])
