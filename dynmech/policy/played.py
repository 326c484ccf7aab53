"""The evaluator of a policy that is played: no tree, everything by simulation, with bounds.

The policy plans one round ahead and values what follows by a network, at any belief and memory.
No number of the network is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech._beside import Beside
from dynmech._types import Numbers
from dynmech.bounded import Bounded
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.beside import MarketBeside
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.shown import alone
from dynmech.market.values import ConstantValues
from dynmech.payments.groves import OwnTables
from dynmech.policy.bias import largest_bias
from dynmech.policy.elsewhere import AskedBeside
from dynmech.policy.guide import AbstractGuide
from dynmech.policy.nodes import Followed, Wider, recommendations
from dynmech.policy.own_bounds import OwnBounds, bound_alternatives, list_alternatives
from dynmech.policy.own_values import Between, at_ends, declared, with_values
from dynmech.policy.playable import Playable, padded, untrained
from dynmech.policy.player import Outcomes, wide_chunk
from dynmech.policy.questions import (
    AbstractCursor,
    AbstractEvaluator,
    Place,
    check_side,
    refuse,
)
from dynmech.policy.recommender import Numbered
from dynmech.problem.process import MarketProcess
from dynmech.problem.tasks import Pairs, make_pairs
from solvers import Certificate
from solvers.certify import Worth, certify
from solvers.programs import as_program

if TYPE_CHECKING:
    from dynmech.problem.edges import Compiled
    from solvers.tree.plan import Plan

_MOST_CELLS = 4_000_000
_OWN = Beside()
_WALK = (
    "raise Certificate(walk=...), the cells up to which the tree is walked, "
    "or solve with Exact() or BranchAndBound()"
)


class PlayEvaluator(AbstractEvaluator):
    """A policy that is simulated, and what is certain about it.

    Its profiles are those of `play`: all that can occur among those asked for. `bounds` (B,) are of
    W and of the policy's value, `marginal` and `displayable` (n, B) of W^{-i} and Wd^{-i}.
    `outcomes`: by product, under truth. `history`: sweeps by seconds, held-out Bellman residual,
    loss, simulated value of the first profile, its standard error. `solved_own`: along own
    alternatives, None where they are worked out when first asked for.
    """

    walked: ClassVar[bool] = False
    play: Playable
    bounds: Worth
    marginal: Bounded
    displayable: Bounded
    solved_own: OwnBounds | None
    outcomes: Outcomes
    history: Float[np.ndarray, "_s 5"]
    solver: str = eqx.field(static=True)

    @property
    def env(self) -> RecommendationMDP:
        return self.play.env

    @property
    def profiles(self) -> Profiles:
        """Those that were played."""
        return self.play.profiles

    @property
    def player(self) -> Playable:
        return self.play

    @property
    def asked(self) -> Playable:
        return self.play

    @property
    def own(self) -> OwnBounds:
        """What Groves terms need of each advertiser's own alternatives."""
        if self.solved_own is not None:
            return self.solved_own

        def solve() -> OwnBounds:
            play = self.play
            if play.certificate.marginal_runs == 0:
                must = "be Zero() where the economies without an advertiser were left unsolved"
                do = "solve with Certificate(marginal_runs=512)"
                call = "DynamicTeamMechanism(groves=...)"
                raise InvalidArgument(describe(call, must, "marginal_runs=0", do))
            env, interval = play.env, declared(play.env)
            if interval is not None:
                env = with_values(env, interval)
            listed = list_alternatives(env, play.process, play.profiles)
            return bound_alternatives(
                env, play.process, play.critic, listed, play.certificate, play.chunk,
                play.chooser,
            )  # fmt: skip

        return _OWN(self, solve)

    @property
    def plan(self) -> Plan:
        self._refuse("EfficientPolicy.plan")

    @property
    def pairs(self) -> Pairs:
        return self.own.pairs

    @property
    def compiled(self) -> Compiled:
        self._refuse("EfficientPolicy.compiled")

    @property
    def whole(self) -> None:
        return None

    @property
    def optimal(self) -> None:
        return None

    @property
    def gap(self) -> NoReturn:
        self._refuse("EfficientPolicy.gap")

    def _refuse(self, question: str) -> NoReturn:
        raise refuse(question, self.solver, _WALK)

    def begin(self, theta: Int[np.ndarray, " n"], signals: Int[np.ndarray, " n1"]) -> Place:
        known = self.profiles
        same = (known.theta == theta).all(axis=1) & (known.signals == signals).all(axis=1)
        if not same.any():
            must, do = "name a profile that was solved", "solve with it in initial=Profiles(...)"
            got = f"theta {theta.tolist()}, signals {signals.tolist()}"
            raise OutsideSupport(describe("EfficientPolicy.start(...)", must, got, do))
        belief = self.play.root[int(np.argmax(same))]
        return Place(1, np.asarray(theta), belief, np.asarray(self.play.rules.start()))

    def control(self, place: Place) -> int:
        belief = place.belief / place.belief.sum()
        at = belief[None], np.asarray(place.memory)[None], place.period - 1
        return int(self.play.choose(place.theta, *at)[0])

    def edge(self, place: Place, control: int) -> int:
        return -1

    def chances(self, place: Place, control: int):
        process = self.play.rules
        with jax.enable_x64(True):
            after = process.step(place.memory, control)
            ends = process.leaves(np.asarray(process.ends(after, control), float))
            law = np.asarray(process.symbols(after, control, place.period - 1), float)
        return ends, ends[-1] * law.T

    def follow(self, place: Place, control: int, joint: int, theta: np.ndarray) -> Place:
        _, columns = self.chances(place, control)
        with jax.enable_x64(True):
            memory = np.asarray(self.play.rules.step(place.memory, control))
        belief = place.belief * columns[joint]
        mass = belief.sum()
        belief = belief / mass if mass > 0 else belief
        return Place(place.period + 1, place.theta, belief, memory)

    def leave(
        self, place: Place, money: Float[np.ndarray, " n"] | None = None, rounds: int | None = None
    ):
        if money is None:
            return self, place
        values = ConstantValues(np.asarray(money, float)[:, None])
        env = eqx.tree_at(lambda market: market.values, self.env, values)
        place = dataclasses.replace(place, theta=np.zeros_like(place.theta))
        return dataclasses.replace(self, play=dataclasses.replace(self.play, env=env)), place

    def considered(self, place: Place, control: int) -> bool:
        return True

    def worths(self, places: Sequence[Place]):
        self._refuse("Conversation.worth(recommendation=...)")

    def certify(self, place: Place, certificate: Certificate | None) -> Worth:
        play = self.play
        certificate = play.certificate if certificate is None else certificate
        case, ceiling = play.cased(place.theta)
        belief = place.belief / place.belief.sum()
        return certify(
            play.process, [case], [ceiling], play.critic, belief, certificate.runs, certificate,
            play.chunk, place.memory, place.period - 1, play.chooser,
        )  # fmt: skip

    def cursor(self, signal: AbstractSettlementSignal) -> AbstractCursor:
        return play_cursor(self.play, signal)

    def between(self) -> Between | None:
        return at_ends(self.env, make_pairs(self.env, self.profiles))

    def follow_on(self, wider: Wider, more: Between | None = None) -> Followed:
        """Ask at every node what is recommended for what the mechanism believes there."""
        both, play = wider.both, self.play
        if more is not None:
            play = dataclasses.replace(play, env=more.priced(play.env))

        def ask(theta: np.ndarray, belief: np.ndarray, memory: np.ndarray, period: int):
            return play.laws(theta, both.belief(belief), both.memory(memory), period)

        asked = Numbered(ask)
        taken = recommendations(wider.plan, wider.pairs, list(wider.memories), asked)
        return taken, asked.table

    def guide(self, both: MarketBeside) -> AbstractGuide:
        return AskedBeside(both, self.play, untrained(both.env, self.profiles).process)

    def own_tables(
        self, signal: AbstractSettlementSignal, side: str | None, needed: bool = True,
        confidence: float | None = None,
    ) -> OwnTables:  # fmt: skip
        """Bounds, each on its side, so that what a term promises holds.

        `payoff` from below and `contribution` from above, all of each at once with the policy's
        confidence. W^{-i} and Wd^{-i} from above for `side` "upper": exact planning for some
        rounds, certain; Wd^{-i} then gives no subsidy whatever the policy. Else from below: a
        policy without i, simulated; charging less favours participation.

        A table is a function of the others' initial reports and the platform's signal alone: i's
        value is absent from W^{-i} and Wd^{-i}, and no simulation or search behind them reads it.
        """
        check_side(side, False)
        if not needed and self.solved_own is None:
            return self._no_tables()
        own, env, n = self.own, self.env, self.env.products
        pairs, bias = own.pairs, largest_bias(env, signal)
        count = int(np.isfinite(own.surplus.value).sum())
        payoff = own.surplus.together(count, confidence).lower - bias
        contribution = own.contribution.together(count * n, confidence).upper + bias
        live, at = pairs.own >= 0, np.maximum(pairs.own, 0)
        mine = contribution[at, np.arange(n)[None, :, None, None]]
        mine = np.fmin(mine, own.displayable.upper[:, :, None, :])  # D_i <= Wd^{-i}, for any play
        upper = side == "upper"
        return OwnTables(
            payoff=np.where(live, payoff[at], np.nan),
            contribution=np.where(live, mine, np.nan),
            marginal=own.marginal.upper if upper else own.marginal.lower,
            displayable=own.displayable.upper if upper else own.displayable.lower,
            root=own.root,
            own_root=np.where(live[:, :, 0], pairs.root[at[:, :, 0]], -1),
            own_pair=pairs.own,
            signal=self.profiles.signals[:, 1:],
        )

    def at_once(self, table: str) -> Bounded:
        # What is above the best is above every policy, for certain.
        value = table == "value"
        one = self.bounds.both if value else self.marginal
        found = one.together(len(self.profiles) * (1 + value))
        above = np.minimum(one.upper, found.upper) if value else one.upper
        return Bounded(one.value, found.lower, above, one.error, one.confidence)

    def _no_tables(self) -> OwnTables:
        """Tables of NaN, for a term that reads none."""
        batch, (n, size) = len(self.profiles), self.env.values.support.shape
        widest = max(self.env.initial_alphabet[1:])
        wide, thin = np.full((batch, n, size, widest), np.nan), np.full((batch, n, widest), np.nan)
        rows = np.broadcast_to(np.arange(batch)[:, None, None], thin.shape).copy()
        return OwnTables(
            wide, wide, thin, thin, self.play.root, rows, np.full(wide.shape, -1),
            self.profiles.signals[:, 1:],
        )  # fmt: skip

    def recommend(
        self, belief: np.ndarray, memory: np.ndarray, theta: np.ndarray, period: int
    ) -> int:
        gap = np.abs(np.asarray(self.env.values.support) - np.asarray(theta)[:, None])
        index, mass = gap.argmin(axis=1), float(np.sum(belief))
        if gap.min(axis=1).max() > 1e-9 * max(1.0, self.env.money_scale) or mass <= 0:
            must = "be asked at values of the support and a belief of positive mass"
            raise InvalidArgument(describe("recommend(theta=..., belief=...)", must, theta))
        at = np.asarray(belief)[None] / mass, np.asarray(memory)[None], period - 1
        return int(self.play.choose(index, *at)[0])


def play_cursor(play: Playable, signal: AbstractSettlementSignal) -> AbstractCursor:
    """Follow many conversations of a market whose rules are used as they are."""
    return _PlayCursor(play, signal)


class _PlayCursor(AbstractCursor):
    """Rows with beliefs and memories of their own."""

    def __init__(self, play: Playable, signal: AbstractSettlementSignal):
        self.play, self.signal = play, signal
        self.gains = np.asarray(play.env.gains, float)
        self.chunk = wide_chunk(play.env, play.rules, play.chunk)

    def begin(self, signals: Int[np.ndarray, "N n1"]) -> None:
        self.belief, self.t = _unit(np.asarray(self.play.beliefs(signals), float)), 0
        self.memory = np.tile(np.asarray(self.play.rules.start()), (len(signals), 1))

    def choose(
        self, theta: Int[np.ndarray, "N n"], rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, " N"]:
        control = np.full(len(theta), self.play.rules.controls - 1)
        unique, index = np.unique(theta, axis=0, return_inverse=True)
        for k, values in enumerate(unique):
            rows = np.flatnonzero((index.reshape(-1) == k) & self.belief.any(axis=1))
            if len(rows):
                at = self.belief[rows], self.memory[rows], self.t
                control[rows] = self.play.choose(values, *at, rng)
        return control

    def laws(self, control: Int[np.ndarray, " N"], omega: Int[np.ndarray, " N"]):
        self.control = control
        parts, step = [], _MOST_CELLS // self.play.env.tastes.size
        for low in range(0, len(control), step):
            part = slice(low, low + step)
            size = len(control[part])
            pad = np.minimum(np.arange(padded(size)), size - 1)
            with jax.enable_x64(True):
                found = _laws_met(
                    self.play.rules, self.signal, self.memory[part][pad], control[part][pad],
                    omega[part][pad], jnp.asarray(self.t), self.gains,
                )  # fmt: skip
            parts.append([np.asarray(x)[:size] for x in found])
        self.after, told, ends, self.going, self.law = (
            np.concatenate(x) for x in zip(*parts, strict=True)
        )
        return np.moveaxis(told, 0, -2), self.play.rules.leaves(ends.T).T

    def beliefs(self, rows: Int[np.ndarray, " k"]):
        return self.belief[rows]

    def acted(self, rows: Int[np.ndarray, " k"], code: Int[np.ndarray, " k"]):
        size = len(rows)
        pad = rows[np.minimum(np.arange(padded(size)), size - 1)] if size else rows
        with jax.enable_x64(True):
            ends = _ends_met(self.play.rules, self.after[pad], self.control[pad])
        chances = self.play.rules.leaves(np.moveaxis(np.asarray(ends, float)[:size], 1, 0))
        return chances[code, np.arange(size)]

    def heard(self, rows: Int[np.ndarray, " k"], joint: Int[np.ndarray, " k"]):
        return self.going[rows] * self.law[rows, :, joint]

    def symbols(self, going: np.ndarray, omega: np.ndarray):
        self.belief, self.memory = self.belief[going], self.after[going]
        self.going, self.law = self.going[going], self.law[going]
        return self.law[np.arange(len(omega)), omega]

    def advance(self, heard: Int[np.ndarray, " N"]) -> None:
        law = self.law[np.arange(len(heard)), :, heard]
        self.belief, self.t = _unit(self.belief * self.going * law), self.t + 1


@as_program
def _laws_met(
    process: MarketProcess, signal: AbstractSettlementSignal, memory: Numbers, control: Numbers,
    omega: Numbers, period: Numbers, gains: Numbers,
):  # fmt: skip
    """Next memories, and given omega: laws of the signal and chances; laws given every taste."""

    def one(memory: Numbers, control: Numbers, omega: Numbers):
        after = process.step(memory, control)
        ends = process.ends(after, control)
        shown = jnp.asarray(process.shown)[control]
        told = signal.laws(process.remembered(after), alone(shown), jnp.asarray(gains))
        law = process.symbols(after, control, period)
        return after, told[..., omega], ends[:, omega], ends[-1], law

    return jax.vmap(one)(jnp.asarray(memory), jnp.asarray(control), jnp.asarray(omega))


@as_program
def _ends_met(process: MarketProcess, after: Numbers, control: Numbers):
    """Chances (N, n+1, m) of every ending."""
    return jax.vmap(process.ends)(jnp.asarray(after), jnp.asarray(control))


def _unit(beliefs: np.ndarray) -> np.ndarray:
    mass = beliefs.sum(axis=1, keepdims=True)
    return beliefs / np.where(mass > 0, mass, 1.0)
