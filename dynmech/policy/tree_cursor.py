"""Many conversations followed on the tree of a policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from dynmech.errors import OutsideSupport, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.policy.questions import AbstractCursor
from dynmech.problem.compile import distinct_integers, told_laws
from dynmech.problem.edges import Compiled
from dynmech.problem.tasks import Pairs
from solvers.tree.plan import Plan


def draw(
    plan: Plan, t: int, pair: np.ndarray, node: np.ndarray, rng: np.random.Generator | None
) -> Int[np.ndarray, " N"]:
    """Controls at nodes; where they are drawn, by `rng`, or by a hash of the place."""
    taken, size = plan.actions[t][pair, node].astype(np.int64), plan.tree.structure.controls
    drawn = np.flatnonzero(taken >= size)
    if plan.laws is None or not len(drawn):
        return taken
    if rng is None:
        places = zip(pair[drawn].tolist(), node[drawn].tolist(), strict=True)
        chance = np.array([np.random.default_rng([t, *place]).random() for place in places])
    else:
        chance = rng.random(len(drawn))
    ladder = np.cumsum(plan.laws[taken[drawn] - size], axis=1)
    below = ladder <= chance[:, None] * ladder[:, -1:]
    taken[drawn] = np.minimum(below.sum(axis=1), size - 1)
    return taken


class TreeCursor(AbstractCursor):
    """Rows of a tree: each at a node of its root."""

    def __init__(
        self,
        env: RecommendationMDP,
        compiled: Compiled,
        pairs: Pairs,
        plan: Plan,
        signal: AbstractSettlementSignal,
    ):
        self.plan, self.compiled = plan, compiled
        self.gains = np.asarray(env.gains, float)
        self.told = told_laws(env, compiled, signal)
        self.index = {
            (int(r), *row): k
            for k, (r, row) in enumerate(zip(pairs.root, pairs.theta.tolist(), strict=True))
        }
        self.signal_root = {tuple(row): r for r, row in enumerate(pairs.signals.tolist())}

    def begin(self, signals: Int[np.ndarray, "N n1"]) -> None:
        self.root = _look_up(self.signal_root, signals)
        self.node, self.t = np.zeros(len(signals), np.int64), 0

    def choose(
        self, theta: Int[np.ndarray, "N n"], rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, " N"]:
        rows = np.concatenate([self.root[:, None], theta], axis=1)
        self.pair = _look_up(self.index, rows)
        self.control = draw(self.plan, self.t, self.pair, self.node, rng)
        return self.control

    def laws(self, control: Int[np.ndarray, " N"], omega: Int[np.ndarray, " N"]):
        self.edge = self.plan.edge(self.t, self.node, control)
        told = self.told[self.edge[:, None], ..., omega[:, None]][:, 0]
        return np.moveaxis(told, 0, -2), self.compiled.actions_at(self.edge, omega)

    def beliefs(self, rows: Int[np.ndarray, " k"]):
        return self.plan.belief(self.t, self.pair[rows], self.node[rows])

    def acted(self, rows: Int[np.ndarray, " k"], code: Int[np.ndarray, " k"]):
        edge, n = self.edge[rows], self.compiled.products
        chance = self.compiled.bought(edge, code)
        for at, law in ((n, self.compiled.leave), (n + 1, self.compiled.query)):
            chance[code == at] = law[edge[code == at]]
        return chance

    def heard(self, rows: Int[np.ndarray, " k"], joint: Int[np.ndarray, " k"]):
        column = np.asarray(self.plan.tables.column)
        return column[self.plan.tree.structure.columns[self.edge[rows], joint]]

    def symbols(self, going: np.ndarray, omega: np.ndarray):
        self.root, self.node, self.control, self.edge = (
            x[going] for x in (self.root, self.node, self.control, self.edge)
        )
        column = np.asarray(self.plan.tables.column)
        return column[self.plan.tree.structure.columns[self.edge], omega[:, None]]

    def advance(self, heard: Int[np.ndarray, " N"]) -> None:
        self.node = self.plan.tree.layers[self.t].child[self.node, self.control, heard]
        self.t += 1


def _look_up(table: dict[tuple[Any, ...], int], rows: np.ndarray) -> np.ndarray:
    unique, inverse = distinct_integers(rows)
    found = [table.get(tuple(row), -1) for row in unique.tolist()]
    if min(found) < 0:
        must = "report only what was solved: one advertiser's own alternatives in a batch"
        got = unique[int(np.argmin(found))].tolist()
        raise OutsideSupport(describe("simulate(strategies=...)", must, got))
    return np.array(found)[inverse]
