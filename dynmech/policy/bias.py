"""The bias of what purchases are settled with, over every history that there may be."""

import jax
import jax.numpy as jnp
import numpy as np

from dynmech._types import Numbers
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.shown import alone
from dynmech.problem.compile import enumerate_memories
from dynmech.problem.process import MarketProcess, market_process
from dynmech.problem.settled import largest_bias as worst_bias
from solvers.programs import as_program

_PART = 128
_FEW = 2e7  # bytes of memories enumerated in one period


@as_program
def endings(
    process: MarketProcess, signal: AbstractSettlementSignal, memories: Numbers, control: Numbers,
    gains: Numbers,
):  # fmt: skip
    """Chances (C, n+1, m) of every ending, and means (C, n, m) of the estimates: at no prediction,
    and by how much they follow it, None where they do not."""

    def one(memory: Numbers, control: Numbers):
        after, u = process.step(memory, control), jnp.asarray(gains)
        shown, own = alone(jnp.asarray(process.shown)[control]), process.remembered(after)
        follows = signal.moments(own, shown, u, jnp.zeros_like(u))
        drift = None if follows is None else follows[0]
        return process.ends(after, control), signal.mean(own, shown, u), drift

    return jax.vmap(one)(jnp.asarray(memories), jnp.asarray(control))


def largest_bias(env: RecommendationMDP, signal: AbstractSettlementSignal) -> float:
    """Largest |E[estimate of u_j | omega, history] - u_j(omega)|, money, over all histories.

    Certain: every memory is tried, unless the estimate is known not to read it, as with all
    signals of this package but those that read a `Tabulated` rule's; then purchases of any product
    at any taste are taken to be possible, under threshold choice those of no negative utility.

    **Raises:** `TooLarge` for a signal of the user's own where memories are too many.
    """
    utilities = np.asarray(env.utilities, float)
    gains = np.asarray(env.gains, float)
    live = np.broadcast_to(np.asarray(env.tastes.weights) > 0, utilities.shape)
    with jax.enable_x64(True):
        if not signal.forgets():
            try:
                memories, _ = enumerate_memories(env, int(env.horizon), _FEW)
            except TooLarge as error:
                must = "have a mean that does not depend on a long history"
                call = "DynamicTeamMechanism(estimator=...)"
                raise TooLarge(
                    describe(call, must, str(error), "use RatingSettlement()")
                ) from error
            return _enumerated_bias(env, signal, memories, gains, live)
        u, shown = jnp.asarray(gains), alone(env.controls[-1])
        mean = np.asarray(signal.mean(env.unaware, shown, u))
        follows = signal.moments(env.unaware, shown, u, jnp.zeros_like(u))
    live = live & env.action_rule.possible(utilities)
    return worst_bias(mean, None if follows is None else np.asarray(follows)[0], gains, live)


def _enumerated_bias(
    env: RecommendationMDP, signal: AbstractSettlementSignal, memories: list[np.ndarray],
    gains: np.ndarray, live: np.ndarray,
) -> float:  # fmt: skip
    process, worst = market_process(env), 0.0
    start = process.start()[len(env.unaware) :]  # what processes remember besides
    for here in (np.column_stack([x, np.tile(start, (len(x), 1))]) for x in memories[:-1]):
        for control in range(process.controls):
            for low in range(0, len(here), _PART):
                part = here[low : low + _PART]
                pad = np.minimum(np.arange(_PART), len(part) - 1)
                ends, mean, drift = endings(
                    process, signal, part[pad], np.full(_PART, control), gains
                )
                bought = (np.asarray(ends)[:, : len(gains)] > 0) & live
                drift = None if drift is None else np.asarray(drift)
                worst = max(worst, worst_bias(np.asarray(mean), drift, gains, bought))
    return worst
