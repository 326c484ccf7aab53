"""The market of what remains of a conversation: its belief is the prior, its memory the start."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._types import Index, Numbers
from dynmech.market.choices import Memory
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import AbstractFeedback
from dynmech.market.rules import AbstractActionRule
from dynmech.market.shown import acts, answers, answers_of_all, stepped, told
from dynmech.market.signals import AbstractInitialSignals, SignalStructure
from dynmech.market.tastes import TasteGrid
from dynmech.market.told import AbstractToldBound, ToldTaste
from dynmech.market.values import ConstantValues, Values
from solvers.programs import as_program


class Continued(AbstractActionRule):
    """A rule in mid-conversation. `held` (d,): its memory; `seen` (n,): products shown so far."""

    inner: AbstractActionRule
    held: Int[np.ndarray, " d"]
    seen: Bool[np.ndarray, " n"]

    def shown_before(self, products: int):
        return self.seen | self.inner.shown_before(products)

    def possible(self, utilities: Float[np.ndarray, "n m"]):
        return self.inner.possible(utilities)

    def told_bound(self, told: ToldTaste):
        return self.inner.told_bound(told)

    def start(self, products: int, horizon: int | float):
        return self.held

    def step(self, memory: Memory, shown: Index, products: int):
        return stepped(self.inner, memory, shown, products)

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        return acts(self.inner, memory, shown, utilities)

    def lasts(self):
        return self.inner.lasts()

    def endless(self):
        return Continued(self.inner.endless(), self.held, self.seen)


class Remembering(AbstractActionRule):
    """A rule whose memory is followed by somebody else's, which behaviour does not look at.

    `first` (d',): the other memory at the start; `advance(memory, shown)`: its step, traced, told
    the product shown, n for none, or all places of a display; `kept`: length of the rule's own.
    """

    inner: AbstractActionRule
    first: Int[np.ndarray, " e"]
    advance: Callable[..., Any] = eqx.field(static=True)
    kept: int = eqx.field(static=True)

    def shown_before(self, products: int):
        return self.inner.shown_before(products)

    def possible(self, utilities: Float[np.ndarray, "n m"]):
        return self.inner.possible(utilities)

    def told_bound(self, told: ToldTaste):
        bounds = self.inner.told_bound(told)
        if bounds is None:
            return None
        kinds = {True: _ExactlyBounded, False: _Bounded}
        return [kinds[bound.exact](bound, self.kept) for bound in bounds]

    def start(self, products: int, horizon: int | float):
        return self.begin(products, horizon, 1)

    def begin(self, products: int, horizon: int | float, size: int):
        return np.concatenate([self.inner.begin(products, horizon, size), self.first])

    def step(self, memory: Memory, shown: Index, products: int):
        own = stepped(self.inner, memory[: self.kept], shown, products)
        places = jnp.asarray(shown)
        other = self.advance(memory[self.kept :], places[0] if len(places) == 1 else places)
        return jnp.concatenate([jnp.asarray(own), jnp.asarray(other)])

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        return acts(self.inner, memory[: self.kept], shown, utilities)

    def lasts(self):
        return self.inner.lasts()


class _Bounded(AbstractToldBound):
    """A bound of a rule, told more than the rule remembers."""

    exact: ClassVar[bool] = False
    inner: AbstractToldBound
    kept: int = eqx.field(static=True)

    def value(self, period: int, memories: Int[np.ndarray, "U d"]):
        return self.inner.value(period, memories[:, : self.kept])


class _ExactlyBounded(AbstractToldBound):
    """The same, of a bound that is exact."""

    exact: ClassVar[bool] = True
    inner: AbstractToldBound
    kept: int = eqx.field(static=True)

    def value(self, period: int, memories: Int[np.ndarray, "U d"]):
        return self.inner.value(period, memories[:, : self.kept])


class Held(AbstractInitialSignals):
    """What the platform believes already: symbol b for one of B beliefs, likelihood (B, m).

    Rows of likelihoods, not of chances: they make beliefs of the prior, up to scale.
    """

    ratio: Float[np.ndarray, "B m"]

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        return self

    def alphabet(self, products: int):
        return (len(self.ratio), *(1,) * products)

    def likelihood(self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]):
        return jnp.asarray(self.ratio)[np.asarray(symbols)[:, 0]]

    def draw(self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int):
        law = self.ratio[:, omega]
        platform = rng.choice(len(law), p=law / law.sum())
        return np.concatenate([[platform], np.zeros(len(utilities), np.int64)])


class Later(AbstractFeedback):
    """Feedback of a market some rounds of which are over. `rounds`: how many."""

    inner: AbstractFeedback
    rounds: int

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        return self  # cut points are the device's, whatever is believed by now

    def alphabet(self, products: int):
        return self.inner.alphabet(products)

    def periodic(self):
        return self.inner.periodic()

    def cut(self, product: int, ratings: Float[np.ndarray, " k"]):
        return self.inner.cut(product, ratings)

    def symbol(self, product: int, rating: float):
        return self.inner.symbol(product, rating)

    def readers(self, shown: Int[np.ndarray, "C K"]):
        return self.inner.readers(shown)

    def read(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        given = memory, told(self.inner.read, shown), period + self.rounds, utilities
        return self.inner.read(*given)

    def likelihood(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        return answers_of_all(self.inner, memory, shown, period + self.rounds, utilities)


def remaining(
    env: RecommendationMDP,
    beliefs: Float[np.ndarray, "B m"],
    memory: Int[np.ndarray, " d"],
    rounds: int,
    seen: Bool[np.ndarray, " n"],
    money: Float[np.ndarray, "n K"] | None = None,
) -> RecommendationMDP:
    """The market from here on, nobody having signals but which of the beliefs is held.

    **Arguments:** `beliefs` (B, m): not zero; `memory`: the rule's; `rounds`: over by now; `seen`
    (n,): products shown so far; `money`: values in force where they do not move, whether or not
    they are of the support.

    **Returns:** a market of the same products, the belief held being the platform's first symbol.
    Its parts were checked when the first was made.
    """
    values: Values = env.values if money is None else ConstantValues(money)
    beliefs = beliefs / beliefs.sum(axis=1, keepdims=True)
    prior = beliefs.mean(axis=0)
    likelihood = beliefs / np.where(prior > 0, prior, 1.0)
    changes = {
        "tastes": TasteGrid(np.asarray(env.tastes.points), prior),
        "horizon": env.horizon if env.horizon == math.inf else int(env.horizon) - rounds,
        "action_rule": Continued(env.action_rule, np.asarray(memory), seen),
        "signals": SignalStructure(
            Held(likelihood), Later(env.signals.feedback, rounds), env.signals.settlement
        ),
        "values": values,
    }
    return changed(env, changes)


def with_rounds(env: RecommendationMDP, rounds: int | float) -> RecommendationMDP:
    """The market with so many rounds: all else was checked for any number of them."""
    return env if rounds == env.horizon else changed(env, {"horizon": rounds})


def changed(env: RecommendationMDP, changes: dict[str, Any]) -> RecommendationMDP:
    """The market with other parts, which were checked."""
    market = object.__new__(type(env))
    for field in dataclasses.fields(env):
        given = changes.get(field.name, getattr(env, field.name))
        object.__setattr__(market, field.name, given)
    return market


def laws_at(
    env: RecommendationMDP, memory: Int[np.ndarray, " d"], control: int, period: int
) -> tuple[Int[np.ndarray, " d"], Float[np.ndarray, "n2 m"], Float[np.ndarray, "Z m"]]:
    """What a control does after a memory, in `period` from 1.

    **Returns:** the memory after it, the chance of every action, and the chance of a query with
    each joint symbol after it, given each taste.
    """
    given = np.asarray(memory), env.controls[control], np.array(period - 1)
    with jax.enable_x64(True):
        found = _laws(
            env.action_rule, env.signals.feedback, *given, np.asarray(env.utilities, float)
        )
    after, actions, law = (np.asarray(part) for part in found)
    return after, actions, actions[-1] * law.T


@as_program
def _laws(
    rule: AbstractActionRule,
    feedback: AbstractFeedback,
    memory: Numbers,
    shown: Numbers,
    period: Numbers,
    utilities: Numbers,
):
    """The memory after a display, the law of actions (n+2, m), and of answers (m, Z)."""
    after = stepped(rule, memory, shown, len(utilities))
    law = answers(feedback, after, shown, period, utilities)
    return after, acts(rule, after, shown, utilities).astype(float), law.astype(float)
