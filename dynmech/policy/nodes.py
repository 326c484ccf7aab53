"""What is recommended at every node of a tree, whoever is asked."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Record
from dynmech.market.beside import MarketBeside
from dynmech.problem.tasks import Pairs
from solvers.tree.plan import Plan

# What is recommended at every node, and the laws that numbers beyond the controls stand for.
Followed = tuple[tuple[Int[np.ndarray, "P _N"], ...], Float[np.ndarray, "L A"] | None]


class Wider(Record):
    """A tree of two markets side by side, on which a policy of the second is followed.

    `plan`: its root is what the policy's own mechanism believes; `pairs`: those of the tree;
    `memories`: of each round, by memory class.
    """

    both: MarketBeside
    plan: Plan
    pairs: Pairs
    memories: tuple[Int[np.ndarray, "_M d"], ...]


def recommendations(
    plan: Plan,
    pairs: Pairs,
    memories: list[Int[np.ndarray, "_M d"]],
    choose: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray],
) -> tuple[Int[np.ndarray, "P _N"], ...]:
    """What somebody recommends at every node, none where the mechanism thinks it impossible.

    **Arguments:** `memories`: of each round, by memory class; `choose` (value indices (n,), beliefs
    (C, m) of mass 1, memories (C, d), round from 0) -> controls (C,).
    """
    none, found = plan.tree.structure.controls - 1, []
    for t, layer in enumerate(plan.tree.layers):
        nodes, taken = np.arange(layer.nodes), np.full((len(pairs.root), layer.nodes), none)
        memory = memories[t][layer.memory]
        for pair in range(len(pairs.root)):
            belief = plan.belief(t, np.full(len(nodes), pair), nodes)
            mass = belief.sum(axis=1, keepdims=True)
            live = np.flatnonzero(mass[:, 0] > 0)
            if len(live):
                at = belief[live] / mass[live], memory[live]
                taken[pair, live] = choose(pairs.theta[pair], *at, t)
        found.append(taken)
    return tuple(found)
