"""A policy in a market other than the one it was solved for (model: a wrong model).

Its own belief still decides what it recommends; what happens, and what it is worth, is the true
market's. Where the tree of both fits, the result is a policy of the market beside which both are
kept (`dynmech.market.beside`), with everything that a priced policy can be asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._devices import Work
from dynmech._types import Record
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.beside import beside, read_by
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.values import ConstantValues, prior_probability
from dynmech.policy.base import with_actions
from dynmech.policy.certified import certified_play, played_policy
from dynmech.policy.nodes import Wider
from dynmech.policy.own_bounds import bound_alternatives, list_alternatives
from dynmech.policy.own_values import between, declared, on_tree, with_values
from dynmech.policy.playable import beliefs_after, untrained
from dynmech.policy.played import play_cursor
from dynmech.policy.questions import AbstractCursor
from dynmech.policy.solved import solve_remembered
from dynmech.problem.endless import written_like
from dynmech.solve.training import require_few
from solvers import Certificate

_CHUNK = 64

if TYPE_CHECKING:
    from dynmech.payments.groves import AbstractGroves
    from dynmech.policy.base import AbstractPricedPolicy, EfficientPolicy


def walk_under(
    call: str,
    policy: AbstractPricedPolicy,
    truth: RecommendationMDP,
    signal: AbstractSettlementSignal,
) -> EfficientPolicy:
    """Value a policy exactly where another market is the truth, beside what is best there.

    **Arguments:** `signal`: what purchases in the true market are settled with.

    **Returns:** a policy of the market that keeps both: `value` is V_M(pi), `upper` W_M.

    **Raises:** `TooLarge` where the tree of both does not fit; `InvalidArgument`.
    """
    truth = written_like(call, truth, policy.env)
    both, single = beside(call, truth, policy.env, signal), truth.gamma.dtype == np.float32
    profiles = policy.profiles
    best, memories = solve_remembered(both.env, profiles, policy.batch, single=single)
    held = eqx.tree_at(lambda plan: plan.root, best.plan, both.start(best.pairs.signals))
    wider = Wider(both, held, best.pairs, tuple(memories))
    taken, laws = policy.evaluator.follow_on(wider)
    there = with_actions(best, taken, f"{policy.solver}, under another market", laws)
    more = policy.evaluator.between()
    if more is not None:
        held = on_tree(held, more.pairs)
        wider = dataclasses.replace(wider, plan=held, pairs=more.pairs)
        plan = on_tree(best.plan, more.pairs, *policy.evaluator.follow_on(wider, more))
        between(there.evaluator, lambda: dataclasses.replace(more, plan=plan))
    return there


def certify_under(
    call: str,
    policy: AbstractPricedPolicy,
    truth: RecommendationMDP,
    signal: AbstractSettlementSignal,
    certificate: Certificate,
) -> EfficientPolicy:
    """Bound what a policy is worth where another market is the truth, by simulation.

    `value` is V_M(pi) with bounds at the certificate's level, `upper` is above W_M for certain;
    own alternatives, the ends of an interval among them, are bounded too where they are few enough.

    **Raises:** `TooLarge` where values move, and they or what the true rule remembers are too many
    to list; `InvalidArgument`.
    """
    truth = written_like(call, truth, policy.env)
    both, single = beside(call, truth, policy.env, signal), truth.gamma.dtype == np.float32
    env, profiles = both.env, policy.profiles
    interval = None
    if isinstance(env.values, ConstantValues):
        interval = None if policy.evaluator.between() is None else declared(policy.env)
        values = ConstantValues(env.values.support, env.values.prior, interval)
        env = eqx.tree_at(lambda market: market.values, env, values)
    known = np.flatnonzero(beliefs_after(env, profiles.signals).sum(axis=1) > 0)
    require_few(len(known), call.split("(")[0])
    played = Profiles(profiles.theta[known], profiles.signals[known])
    play = untrained(env, played, policy.evaluator.guide(both), single)
    play = dataclasses.replace(play, certificate=certificate, chunk=_CHUNK)
    posed = [play.cased(theta) for theta in played.theta]
    economies, bounds_of = [[case] for case, _ in posed], [[bound] for _, bound in posed]
    note = f"{policy.solver}, under another market, simulated"
    work, history = Work(call.split("(")[0]), np.zeros((0, 5))
    found = certified_play(play, play.process, economies, bounds_of, history, note, work)
    with contextlib.suppress(TooLarge):
        wider = env if interval is None else with_values(env, interval)
        listed = list_alternatives(wider, play.process, played, False)
        settings = dataclasses.replace(certificate, marginal_runs=certificate.runs)
        given = wider, play.process, None, listed, settings, _CHUNK, play.chooser
        found = dataclasses.replace(found, solved_own=bound_alternatives(*given))
    return played_policy(found, profiles, policy.batch, note, 0.0)


class Elsewhere(Record):
    """A policy played in another market, as far as whole conversations need: no tree is walked.

    - `env`: the true market, read by the mechanism's device. `policy`: whose recommendations.
    """

    env: RecommendationMDP
    policy: AbstractPricedPolicy

    @property
    def profiles(self) -> Profiles:
        """Those of the policy."""
        return self.policy.profiles

    @property
    def weights(self) -> Float[np.ndarray, " B"]:
        """Of profiles in means, as of the policy; by their true probability."""
        return self.probability() if self.policy.complete else np.ones(len(self.profiles))

    @property
    def roots(self) -> Float[np.ndarray, "B m"]:
        """True unnormalised belief at the outset of each profile."""
        return beliefs_after(self.env, self.profiles.signals)

    def probability(self) -> Float[np.ndarray, " B"]:
        """True prior probability of each profile."""
        theta = prior_probability(self.env.values, self.profiles.theta)
        return theta * self.roots.sum(axis=1)

    def cursor(self, signal: AbstractSettlementSignal) -> AbstractCursor:
        """Follow many conversations, settled by `signal`."""
        own = self.policy.evaluator.cursor(self.policy.env.signals.settlement)
        truth = play_cursor(untrained(self.env, self.profiles), signal)
        return _CursorElsewhere(own, truth)


def play_under(call: str, policy: AbstractPricedPolicy, truth: RecommendationMDP) -> Elsewhere:
    """Put a policy into another market, to be played there.

    **Raises:** `InvalidArgument` where the markets differ in what they must share.
    """
    return Elsewhere(read_by(call, written_like(call, truth, policy.env), policy.env), policy)


class _CursorElsewhere(AbstractCursor):
    """The policy's own rows say what is shown, the true market's what happens.

    Joint symbols that are told are numbered as the policy's own market numbers them.
    """

    def __init__(self, held: AbstractCursor, truth: AbstractCursor):
        self.held, self.truth, self.gains = held, truth, held.gains

    def begin(self, signals: np.ndarray) -> None:
        self.held.begin(signals)
        self.truth.begin(signals)

    def choose(
        self, theta: Int[np.ndarray, "N n"], rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, " N"]:
        return self.held.choose(theta, rng)

    def laws(self, control: Int[np.ndarray, " N"], omega: Int[np.ndarray, " N"]):
        self.held.laws(control, np.zeros_like(omega))
        return self.truth.laws(control, omega)

    def beliefs(self, rows: Int[np.ndarray, " k"]):
        return self.held.beliefs(rows)

    def acted(self, rows: Int[np.ndarray, " k"], code: Int[np.ndarray, " k"]):
        return self.held.acted(rows, code)

    def heard(self, rows: Int[np.ndarray, " k"], joint: Int[np.ndarray, " k"]):
        return self.held.heard(rows, joint)

    def symbols(self, going: np.ndarray, omega: np.ndarray):
        self.held.symbols(going, np.zeros_like(omega))
        return self.truth.symbols(going, omega)

    def advance(self, heard: Int[np.ndarray, " N"]) -> None:
        self.held.advance(heard)
        self.truth.advance(np.zeros_like(heard))  # of the truth, memories alone are asked


def settling_signal(
    policy: AbstractPricedPolicy, truth: RecommendationMDP, signal: AbstractSettlementSignal
) -> AbstractSettlementSignal:
    """What purchases are settled with: the true market's own signal, or a mechanism's estimator."""
    sent = truth.signals.settlement
    return sent if signal is policy.env.signals.settlement else signal.sent_by(sent)


def check_totals(call: str, groves: AbstractGroves) -> None:
    """Raise for totals that are decoded by a channel of the market that was solved."""
    if groves.decoded:
        must = "be asked of a mechanism whose totals are fixed by the others' first reports"
        do = "decode by the true market's channels: solve it, or use another Groves term"
        raise InvalidArgument(describe(call, must, type(groves).__name__, do))
