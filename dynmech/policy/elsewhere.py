"""A policy played in the market of two beside each other, where no tree of both fits.

What happens is the true market's. What is recommended follows from what the mechanism believes,
which is followed besides: by its belief where somebody is asked, by its node where a tree was
walked.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dynmech.market.beside import MarketBeside
from dynmech.policy.guide import AbstractGuide
from dynmech.policy.playable import Playable
from dynmech.problem.moving import PlayedProcess
from solvers.process import Case
from solvers.tree.plan import Plan


class AskedBeside(AbstractGuide):
    """Somebody who is asked for what the mechanism believes.

    A place is the number of the values that were reported last, where the true ones move.
    """

    both: MarketBeside
    play: Playable
    process: PlayedProcess

    def laws(
        self,
        case: Case,
        beliefs: Float[np.ndarray, "C m"],
        memories: Int[np.ndarray, "C d"],
        period: int,
        places: Int[np.ndarray, " C"],
    ):
        believed = self.both.belief(np.asarray(beliefs, float))
        own = self.process.rules.remembered(self.process.of_rule(np.asarray(memories)))
        memory = self.both.memory(np.asarray(own))
        found = np.zeros((len(places), self.process.controls))
        for place in np.unique(places).tolist():
            rows = places == place
            given = self.process.reported(case, place), believed[rows], memory[rows], period
            found[rows] = self.play.laws_at(*given)
        return found

    def follow(
        self,
        places: Int[np.ndarray, " C"],
        period: int,
        controls: Int[np.ndarray, " C"],
        symbols: Int[np.ndarray, " C"],
    ):
        return self.process.moved(places, symbols)

    def outset(self, money: Float[np.ndarray, " n"], signals: Int[np.ndarray, " n1"]):
        return self.both.start(signals[None])[0], self.process.regime(money)


class PlanBeside(AbstractGuide):
    """A plan that is followed on its own tree: a place is a pair and a node of its round.

    `pairs` (P, 2n+1): values of every pair, money, and symbols. `following` (P, V): the pair with
    the same symbols and each profile of values that may follow, itself where the true ones stay.
    """

    both: MarketBeside
    plan: Plan
    pairs: Float[np.ndarray, "P _k"]
    following: Int[np.ndarray, "P V"]

    @property
    def _nodes(self) -> int:
        return max(layer.nodes for layer in self.plan.tree.layers)

    def laws(
        self,
        case: Case,
        beliefs: Float[np.ndarray, "C m"],
        memories: Int[np.ndarray, "C d"],
        period: int,
        places: Int[np.ndarray, " C"],
    ):
        pair, node = np.divmod(places, self._nodes)
        size = self.plan.tree.structure.controls
        taken = np.where(places >= 0, self.plan.actions[period][pair, node], size - 1)
        table = np.eye(size)
        if self.plan.laws is not None:
            table = np.concatenate([table, self.plan.laws])
        return table[taken]

    def follow(
        self,
        places: Int[np.ndarray, " C"],
        period: int,
        controls: Int[np.ndarray, " C"],
        symbols: Int[np.ndarray, " C"],
    ) -> Int[np.ndarray, " C"]:
        pair, node = np.divmod(places, self._nodes)
        heard, regime = np.divmod(symbols, self.following.shape[1])
        joint = self.both.held.heard.of(self.both.env.heard, heard, controls)
        child = self.plan.tree.layers[period].child[node, controls, joint]
        known, pair = (places >= 0) & (child >= 0), self.following[pair, regime]
        return np.where(known, pair * self._nodes + child, -1)

    def outset(self, money: Float[np.ndarray, " n"], signals: Int[np.ndarray, " n1"]):
        row = np.concatenate([np.asarray(money, float), np.asarray(signals, float)])
        near = np.isclose(self.pairs, row, rtol=1e-12, atol=0.0).all(axis=1)
        place = int(np.argmax(near)) * self._nodes if near.any() else -1
        return self.both.start(signals[None])[0], place
