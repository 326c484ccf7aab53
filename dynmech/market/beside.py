"""Two markets kept side by side: what is true, and what a mechanism believes.

The mechanism of a market M' works in a market M. Both beliefs are followed at once on one grid:
the tastes of M with their weights, then those of M' with none,

    b = (b_M, b_M'),    every likelihood of an action or a symbol the two markets' side by side.

Expectations are M's, as the tastes of M' have no mass; the mechanism's belief is the last block,
started from M''s prior. Both rules remember, each for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Index, Numbers, Record, in_doubles
from dynmech.errors import InvalidArgument, describe, shown
from dynmech.market.channels import AbstractSymbols
from dynmech.market.choices import Memory
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import AbstractFeedback
from dynmech.market.roots import signal_likelihood
from dynmech.market.rules import AbstractActionRule
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.shown import acts, alone, answers_of_all, stepped, told
from dynmech.market.signals import AbstractInitialSignals, SignalStructure
from dynmech.market.tastes import TasteGrid


class MarketBeside(Record):
    """A market M, with the tastes of M' beside its own.

    - `env`: both as one market, in which M's tastes alone have weight. `truth`: M, read by the
      device of M'. `held`: M'.
    """

    env: RecommendationMDP
    truth: RecommendationMDP
    held: RecommendationMDP

    def belief(self, belief: Float[np.ndarray, "... m"]) -> Float[np.ndarray, "... h"]:
        """What the mechanism believes of what is believed side by side."""
        return belief[..., self.truth.tastes.size :]

    def memory(self, memory: np.ndarray) -> np.ndarray:
        """What the rule of M' remembers of what both do."""
        size = len(self.truth.unaware)
        return memory[..., size:]

    def start(self, signals: np.ndarray) -> Float[np.ndarray, "R m"]:
        """The mechanism's unnormalised belief after initial symbols, on the common grid."""
        return root_beside(self.held, self.truth.tastes.size, signals)


def root_beside(
    held: RecommendationMDP, points: int, signals: np.ndarray
) -> Float[np.ndarray, "R m"]:
    """The belief of the market `held` after initial symbols, beside `points` true tastes."""
    law = np.asarray(signal_likelihood(held, signals))
    belief = np.asarray(held.tastes.weights) * law
    return np.concatenate([np.zeros((len(belief), points)), belief], axis=1)


def beside(
    call: str,
    truth: RecommendationMDP,
    held: RecommendationMDP,
    signal: AbstractSettlementSignal,
) -> MarketBeside:
    """Put a market beside the one that a mechanism believes in.

    **Arguments:** `signal`: what purchases in the true market are settled with.

    **Raises:** `InvalidArgument` where the two differ in what they must share.
    """
    truth, held = read_by(call, truth, held), in_doubles(held)
    _check_estimate(truth, signal)
    utilities = truth.utilities, held.utilities
    points = [np.asarray(env.tastes.points) for env in (truth, held)]
    corners = [np.zeros((len(x), y.shape[1])) for x, y in zip(points, points[::-1], strict=True)]
    grid = np.concatenate(
        [
            np.concatenate([points[0], corners[0]], axis=1),
            np.concatenate([corners[1], points[1]], axis=1),
        ]
    )
    weights = np.concatenate([truth.tastes.weights, np.zeros(len(points[1]))])
    rules = truth.action_rule, held.action_rule
    size = len(truth.unaware)
    signals = truth.signals, held.signals
    env = RecommendationMDP(
        gamma=np.concatenate([truth.gamma, held.gamma], axis=1),
        tastes=TasteGrid(grid, weights),
        horizon=truth.horizon,
        action_rule=_Rules(*rules, utilities, size),
        signals=SignalStructure(
            _InitialBeside(signals[0].initial, signals[1].initial, utilities),
            _FeedbackBeside(signals[0].feedback, signals[1].feedback, utilities, size),
            _SettlementBeside(signal, (truth.gains, held.gains), size, held),
        ),
        values=truth.values,
        names=truth.names,
        displays=truth.displays,
        round_cost=np.concatenate([truth.costs, held.costs], axis=1),
        exit_value=np.concatenate(
            [np.broadcast_to(x.exit_value, x.tastes.size) for x in (truth, held)]
        ),
    )
    return MarketBeside(env, truth, held)


def read_markets(call: str, under: object) -> tuple[RecommendationMDP, ...]:
    """One market or several, as a tuple.

    **Raises:** `InvalidArgument` for anything else, and for an empty sequence.
    """
    if isinstance(under, RecommendationMDP):
        return (under,)
    given = tuple(under) if isinstance(under, Sequence) else ()
    if not given or not all(isinstance(one, RecommendationMDP) for one in given):
        must = "be a RecommendationMDP, or a finite sequence of them"
        raise InvalidArgument(describe(call, must, shown(under)))
    return given


def read_by(call: str, truth: RecommendationMDP, held: RecommendationMDP) -> RecommendationMDP:
    """The true market in float64, its ratings and first readings cut where the mechanism cuts.

    **Raises:** `InvalidArgument` where the two differ in what they must share.
    """
    if not isinstance(truth, RecommendationMDP):
        must = "be a RecommendationMDP, or a finite sequence of them"
        raise InvalidArgument(describe(call, must, type(truth)))
    shared = (
        ("the products", truth.names, held.names),
        ("the horizon", truth.horizon, held.horizon),
        ("the displays", truth.controls.tolist(), held.controls.tolist()),
        ("the support of values", *(env.values.support.tolist() for env in (truth, held))),
        ("the alphabets of the first signals", truth.initial_alphabet, held.initial_alphabet),
        ("the alphabets of the feedback", truth.feedback_alphabet, held.feedback_alphabet),
    )
    for what, here, there in shared:
        if here != there:
            must, do = f"have {what} of the market that was solved", "or solve a policy for it"
            if what == "the horizon" and truth.horizon == math.inf:
                must = "end after the rounds of the policy that are written out"
                do = f"make this market with horizon={held.horizon}"
            raise InvalidArgument(describe(call, must, f"{here} for {there}", do))
    truth = in_doubles(truth)
    parts = [(env.signals.initial, env.signals.feedback) for env in (truth, held)]
    read = tuple(_cut_alike(*both) for both in zip(*parts, strict=True))
    return eqx.tree_at(lambda env: (env.signals.initial, env.signals.feedback), truth, read)


def _cut_alike(
    truth: AbstractSymbols,
    device: AbstractSymbols,
):
    """A true reading with the cut points of a device of its kind, given or found."""
    if type(truth) is not type(device):
        return truth

    def nothing(leaf: object):
        return leaf is None

    leaves = jax.tree_util.tree_flatten_with_path(device, is_leaf=nothing)[0]
    there = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}

    def cut(path: tuple[Any, ...], leaf: Any):
        here = jax.tree_util.keystr(path)
        if not here.endswith(".cuts"):
            return leaf
        given = there.get(here)
        return there.get(f"{here.removesuffix('cuts')}found") if given is None else given

    return jax.tree_util.tree_map_with_path(cut, truth, is_leaf=nothing)


def _check_estimate(truth: RecommendationMDP, signal: AbstractSettlementSignal) -> None:
    """Raise unless the signal says what it means at every taste of the true market."""
    shown, n = truth.controls[0], truth.products
    memory = stepped(truth.action_rule, jnp.asarray(truth.unaware), shown, n)
    shape = np.shape(signal.mean(memory, alone(shown), truth.gains))
    if shape != truth.utilities.shape:
        must = f"know its mean at each taste of the true market, shape {truth.utilities.shape}"
        do = "pass estimator=RatingSettlement(...), or a market with the same tastes"
        raise InvalidArgument(describe("audit(under=...): the estimator", must, shape, do))


class _Rules(AbstractActionRule):
    """Both users, each with her own memory (the true one's first) and her own tastes."""

    truth: AbstractActionRule
    held: AbstractActionRule
    utilities: tuple[np.ndarray, np.ndarray]
    size: int = eqx.field(static=True)

    def start(self, products: int, horizon: int | float):
        return np.concatenate([rule.start(products, horizon) for rule in (self.truth, self.held)])

    def begin(self, products: int, horizon: int | float, size: int):
        both = self.truth, self.held
        return np.concatenate([rule.begin(products, horizon, size) for rule in both])

    def step(self, memory: Memory, shown: Index, products: int):
        own = memory[: self.size], memory[self.size :]
        rules = self.truth, self.held
        return jnp.concatenate(
            [
                jnp.asarray(stepped(rule, part, shown, products))
                for rule, part in zip(rules, own, strict=True)
            ]
        )

    def lasts(self):
        both = self.truth.lasts(), self.held.lasts()
        return None if None in both else max(times for times in both if times is not None)

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        truth = acts(self.truth, memory[: self.size], shown, jnp.asarray(self.utilities[0]))
        held = acts(self.held, memory[self.size :], shown, jnp.asarray(self.utilities[1]))
        return jnp.concatenate([truth, held], axis=1)


class _InitialBeside(AbstractInitialSignals):
    truth: AbstractInitialSignals
    held: AbstractInitialSignals
    utilities: tuple[np.ndarray, np.ndarray]

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        return self

    def alphabet(self, products: int):
        return self.truth.alphabet(products)

    def likelihood(self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]):
        parts = zip((self.truth, self.held), self.utilities, strict=True)
        return jnp.concatenate([part.likelihood(u, symbols) for part, u in parts], axis=1)

    def draw(self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int):
        return self.truth.draw(rng, self.utilities[0], omega)


class _FeedbackBeside(AbstractFeedback):
    truth: AbstractFeedback
    held: AbstractFeedback
    utilities: tuple[np.ndarray, np.ndarray]
    size: int = eqx.field(static=True)

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        return self

    def alphabet(self, products: int):
        return self.truth.alphabet(products)

    def periodic(self):
        return self.truth.periodic() or self.held.periodic()

    def likelihood(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        assert memory is not None
        own = memory[: self.size], memory[self.size :]
        both = zip((self.truth, self.held), own, map(jnp.asarray, self.utilities), strict=True)
        laws = [answers_of_all(one, held, shown, period, u) for one, held, u in both]
        return jnp.concatenate(laws)

    def readers(self, shown: Int[np.ndarray, "C K"]):
        truth, held = self.truth.readers(shown), self.held.readers(shown)
        alike = truth is not None and held is not None and np.array_equal(truth, held)
        return truth if alike else None

    def read(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        assert memory is not None
        own = memory[: self.size], memory[self.size :]
        both = zip((self.truth, self.held), own, map(jnp.asarray, self.utilities), strict=True)
        laws = [one.read(held, told(one.read, shown), period, u) for one, held, u in both]
        return jnp.concatenate(laws)


class _SettlementBeside(AbstractSettlementSignal):
    """The true estimate; where the tastes have no mass, their utility. `gains`: u - x of both."""

    signal: AbstractSettlementSignal
    gains: tuple[np.ndarray, np.ndarray]
    size: int = eqx.field(static=True)
    held: RecommendationMDP

    def mean(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        own, held = map(jnp.asarray, self.gains)
        assert memory is not None
        mean = self.signal.mean(memory[: self.size], recommendation, own)
        return jnp.concatenate([mean, held], axis=1)

    def noise(self, utilities: Float[Numbers, "n m"] | None = None):
        return self._beside(self.signal.noise(self.gains[0]))

    def rating_noise(self, utilities: Float[Numbers, "n m"]):
        return self._beside(self.signal.rating_noise(self.gains[0]))

    def _beside(self, noise: Numbers | float | None):
        own, held = self.gains
        if noise is None:
            return None
        return np.concatenate([np.broadcast_to(noise, own.shape), np.zeros(held.shape)], axis=1)

    def laws(
        self, memory: Numbers | None, recommendation: Index | None, utilities: Float[Numbers, "n m"]
    ):
        own, held = map(jnp.asarray, self.gains)
        assert memory is not None
        laws = self.signal.laws(memory[: self.size], recommendation, own)
        return jnp.concatenate([laws, jnp.broadcast_to(held, (*laws.shape[:-2], *held.shape))], -1)

    def moments(
        self,
        memory: Numbers | None,
        recommendation: Index | None,
        utilities: Float[Numbers, "n m"],
        noise: Float[Numbers, "n m"],
    ):
        own, held = map(jnp.asarray, self.gains)
        near = noise[:, : own.shape[1]]
        assert memory is not None
        found = self.signal.moments(memory[: self.size], recommendation, own, near)
        if found is None:
            return None
        return jnp.concatenate([found, jnp.zeros((4, *held.shape), found.dtype)], axis=2)

    def counts_missing(self):
        return self.signal.counts_missing()

    def held_root(self, signals: Int[np.ndarray, "R n1"]):
        return root_beside(self.held, self.gains[0].shape[1], signals)

    def draw(
        self,
        rng: np.random.Generator,
        utilities: Float[np.ndarray, "n m"],
        product: Int[np.ndarray, " N"],
        omega: Int[np.ndarray, " N"],
        mean: Float[np.ndarray, "*L N"],
    ):
        return self.signal.draw(rng, self.gains[0], product, omega, mean)
