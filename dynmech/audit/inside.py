"""W - V at nodes inside simulated truthful conversations, from what is believed there.

A conversation is drawn as the policy plays it, and replayed on what the audit holds: the true
belief, what the rule remembers, and, where a policy is audited in another market, what its own
market believes and where it is in its plan.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Record, query_code
from dynmech.audit.record import NodeBound
from dynmech.bounded import Bounded
from dynmech.market.displays import control_of, display
from dynmech.play.simulate import draw_conversations
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.playable import Playable, told_of
from dynmech.policy.under import Elsewhere
from solvers import Certificate
from solvers.certify import certify

_RUNS = 512


def bound_inside(
    policy: AbstractPricedPolicy,
    elsewhere: Elsewhere | None,
    nodes: int,
    bias: float,
    confidence: float,
) -> tuple[NodeBound, ...]:
    """Certify at nodes that simulated truthful conversations come to, each node once.

    **Arguments:** `policy`: simulated; of the market beside which both are kept where it is played
    `elsewhere`; `bias`: most that one purchase pays beside the surplus, either way.
    """
    if nodes == 0:
        return ()
    stage, told_as = policy, None
    if elsewhere is not None:
        stage, told_as = elsewhere, elsewhere.policy.env.heard
    env, play, known = stage.env, policy.player, policy.played
    rng, wanted = np.random.default_rng(0), known[np.arange(4 * nodes * len(known)) % len(known)]
    records, _ = draw_conversations(stage, env.signals.settlement, {}, rng, wanted, told_as)
    settings = play.certificate
    certificate = Certificate(
        min(_RUNS, settings.runs),
        confidence=confidence,
        rounds=settings.rounds,
        work=settings.work,
        seed=settings.seed + 1,
    )
    found: dict[tuple[int, ...], _Node] = {}
    again = query_code(env.products)
    for row, profile in enumerate(records["profile"].tolist()):
        node = _outset(play, int(np.searchsorted(known, profile)))
        for t in range(int(env.horizon) - 1):
            if records["action"][row, t] != again or len(found) >= nodes:
                break
            shown = records["recommendation"][row, t]
            control = control_of("audit(nodes=...)", env, shown if shown.ndim else int(shown))
            symbol = records["symbol"][row, t]
            heard = int(policy.env.heard.of(env.heard, symbol, control))
            following = records["reported"][row, t + 1]
            node = node.after(control, play.process.told(heard, following))
            found.setdefault((profile, *node.path), node)
    rows = []
    for (profile, *_), node in found.items():
        at, shown = node.certified(certificate), tuple(display(env, c) for c in node.path[::2])
        bound = max(float(at.gap[0]), 0.0) + 2 * bias  # truth is a report too
        rows.append(NodeBound(profile, len(shown) + 1, shown, at[0], bound))
    return tuple(rows)


class _Node(Record):
    """Where a conversation of one profile of `play` stands.

    - `belief` (m,), `memory` (d,): what is true. `told`, `place`: what its own market believes,
      and where in its plan that is; None where the policy is played in its own.
    - `path`: controls and joint symbols so far, by turns.
    """

    play: Playable
    profile: int
    belief: Float[np.ndarray, " m"]
    memory: Int[np.ndarray, " d"]
    told: Float[np.ndarray, " m"] | None
    place: int
    path: tuple[int, ...]

    def after(self, control: int, symbol: int) -> _Node:
        """One round later: she asked again, and this was heard."""
        process, period, chooser = self.play.process, len(self.path) // 2, self.play.chooser
        with jax.enable_x64(True):
            memory = np.asarray(process.step(self.memory, control))
            after = process.hear(memory[None], np.array([symbol]))[0]
            asked = np.asarray(process.ends(memory, control), float)[-1]
            column = asked * np.asarray(process.symbols(memory, control, period), float)[:, symbol]
        told, place = self.told, self.place
        if told is not None and chooser is not None:
            told, at = told * column, (np.array([x]) for x in (place, control, symbol))
            first, *rest = at
            place = int(chooser.follow(first, period, *rest)[0])
        path = (*self.path, control, symbol)
        return dataclasses.replace(
            self, belief=self.belief * column, memory=after, told=told, place=place, path=path
        )

    def certified(self, certificate: Certificate) -> Bounded:
        """The policy's value here, with bounds between which W lies too, per unit of mass."""
        play, period = self.play, len(self.path) // 2
        case, ceiling = play.cased(play.profiles.theta[self.profile])
        told = self.told
        if told is not None:
            told = told_of(told, self.place, (case,), (ceiling,))
        return certify(
            play.process, [case], [ceiling], play.critic, self.belief, certificate.runs,
            certificate, play.chunk, self.memory, period, play.chooser, told,
        ).both  # fmt: skip


def _outset(play: Playable, profile: int) -> _Node:
    """Before the first round."""
    told, memory = play.told(profile), np.asarray(play.process.outset(play.theta(profile)))
    belief, place = (None, 0) if told is None else (told.belief, told.place)
    return _Node(play, profile, play.root[profile], memory, belief, place, ())
