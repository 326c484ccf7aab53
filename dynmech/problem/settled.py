"""What purchases are settled at, given the taste, in every situation of a tree.

An estimate q of u_j may follow the mechanism's own prediction at the node where it is made,

    E[q | omega, m] = mean + d m,    Var(q | omega, m) = v0 + v1 m + v2 m^2,
    m = E[u_j | reports, history, j bought],

under what the *mechanism* believes; 0 where it thinks the purchase impossible.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._beside import Beside
from dynmech._types import Numbers, Record, precision
from dynmech.errors import InvalidArgument, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.shown import alone
from dynmech.problem.compile import distinct_integers
from dynmech.problem.edges import Compiled
from solvers.programs import as_program
from solvers.tree.plan import Plan

_LAWS = Beside()
_MOST_TRIED = 2e7  # numbers that predictions are made of


class Settled(Record):
    """Conditional means and variances of the estimate at each edge; money.

    - `mean` (E, n, m). `follows` (4, E, n, m): d, v0, v1, v2, None where no prediction enters.
    - `noise` (n, m): standard deviation where none does, NaN where it is unknown.
    - `root` (R, m): unnormalised beliefs of the mechanism at the roots where they are not the
      tree's own, else None.
    """

    mean: Float[np.ndarray, "E n m"]
    follows: Float[np.ndarray, "4 E n m"] | None
    noise: Float[np.ndarray, "n m"]
    root: Float[np.ndarray, "R m"] | None

    @property
    def known(self) -> bool:
        """Whether variances are known."""
        return not np.isnan(self.noise).any()

    def held(self, plan: Plan) -> Plan:
        """The plan with the mechanism's own beliefs at its roots."""
        if self.root is None or self.follows is None:
            return plan
        return eqx.tree_at(lambda p: p.root, plan, self.root)

    def _slot(self, held: Plan, edge: np.ndarray) -> Int[np.ndarray, "k J"]:
        """The product of each slot, the first where there is none."""
        outcome = held.tree.structure.outcome[edge]
        return np.where((outcome >= 0) & (outcome < len(self.noise)), outcome, 0)

    def predict(
        self, held: Plan, t: int, pair: np.ndarray, node: np.ndarray, edge: np.ndarray
    ) -> Float[np.ndarray, "k J"]:
        """m of every slot at nodes of round t; `held`: see `held`."""
        slot = self._slot(held, edge)
        belief = Plan.belief(held, t, pair, node)[:, None]
        stop, reward = np.asarray(held.tables.stop), np.asarray(held.tables.reward)
        return predictions(belief * stop[edge], reward[slot])

    def hull(self, plan: Plan) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Least and largest m of each product at any node, belief and recommendation; 0 counts.

        Where there are too many to try, the least and the largest that a product is worth.
        """
        held, reward = self.held(plan), np.asarray(plan.tables.reward)[: len(self.noise)]
        ends = np.minimum(reward.min(axis=1), 0.0), np.maximum(reward.max(axis=1), 0.0)
        roots = np.unique(plan.pair_root, return_index=True)[1]
        structure, layers = plan.tree.structure, plan.tree.layers
        cells = sum(x.nodes for x in layers) * len(roots) * structure.controls * reward.shape[1]
        if cells * structure.outcome.shape[1] > _MOST_TRIED:
            return ends
        low, high = np.zeros((2, len(reward)))
        for t, layer in enumerate(layers):
            nodes = np.repeat(np.arange(layer.nodes), structure.controls)
            control = np.tile(np.arange(structure.controls), layer.nodes)
            edge = plan.edge(t, nodes, control)
            known = (edge >= 0) & (edge < len(structure.outcome))
            for pair in roots.tolist():
                at = nodes[known], edge[known]
                m = self.predict(held, t, np.full(len(at[0]), pair), *at)
                slot = self._slot(held, at[1])
                np.minimum.at(low, slot, m)
                np.maximum.at(high, slot, m)
        return np.maximum(low, ends[0]), np.minimum(high, ends[1])

    def means(
        self, held: Plan, t: int, pair: np.ndarray, node: np.ndarray, edge: np.ndarray
    ) -> Float[np.ndarray, "k J m"]:
        """E[q | omega, purchase] of every slot at nodes of round t."""
        slot = self._slot(held, edge)
        mean = self.mean[edge[:, None], slot]
        if self.follows is None:
            return mean
        m = self.predict(held, t, pair, node, edge)[..., None]
        return mean + self.follows[0][edge[:, None], slot] * m

    def variances(
        self, held: Plan, t: int, pair: np.ndarray, node: np.ndarray, edge: np.ndarray
    ) -> Float[np.ndarray, "k J m"]:
        """Var(q | omega, purchase) of every slot at nodes of round t; NaN where unknown."""
        slot = self._slot(held, edge)
        if self.follows is None:
            return self.noise[slot] ** 2
        m = self.predict(held, t, pair, node, edge)[..., None]
        v0, v1, v2 = (v[edge[:, None], slot] for v in self.follows[1:])
        return np.maximum(v0 + v1 * m + v2 * m**2, 0.0)


def predictions(
    weight: Float[np.ndarray, "... m"], utility: Float[np.ndarray, "... m"]
) -> Float[np.ndarray, "..."]:
    """E[u | weights], 0 where there is no weight."""
    mass = weight.sum(axis=-1)
    return (weight * utility).sum(axis=-1) / np.where(mass > 0, mass, 1.0)


def largest_bias(
    mean: np.ndarray,
    drift: np.ndarray | None,
    utilities: np.ndarray,
    live: np.ndarray,
    hull: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """Largest |E[q | omega, m] - u_j| over `live` (..., n, m), and over every prediction m.

    **Arguments:** `drift`: d, None where no prediction enters; `hull`: least and largest m (n,) of
    each product; by default its least and largest utility, and 0.
    """
    ends = [0.0]
    if hull is None:
        hull = np.minimum(utilities.min(axis=1), 0.0), np.maximum(utilities.max(axis=1), 0.0)
    if drift is not None:
        ends = [end[:, None] for end in hull]
    means = [mean if drift is None else mean + drift * m for m in ends]
    gaps = [np.abs(one - utilities) for one in means]
    return max(float(np.where(live, gap, 0.0).max(initial=0.0)) for gap in gaps)


def settled(
    env: RecommendationMDP,
    compiled: Compiled,
    signal: AbstractSettlementSignal,
    signals: np.ndarray,
) -> Settled:
    """Means and variances of a signal's estimates at the edges of a tree, once for each tree.

    **Arguments:** `signals` (R, 1+n): first symbols of the tree's roots.

    **Raises:** `InvalidArgument` if the signal tells apart histories that were merged.
    """
    kept: list[tuple[tuple[object, ...], Settled]] = _LAWS(compiled, list)
    asked = env, signal, signals
    for given, law in kept:
        if all(one is other for one, other in zip(given, asked, strict=True)):
            return law
    law = _settle(env, compiled, signal, signals)
    kept[:] = [(asked, law)]
    return law


def _settle(
    env: RecommendationMDP,
    compiled: Compiled,
    signal: AbstractSettlementSignal,
    signals: np.ndarray,
) -> Settled:
    n, points = env.products, env.tastes.size
    noise = rating_noise(env, signal)
    with precision(env.gamma):
        shown = alone(env.controls[compiled.shown])
        given = compiled.situation, shown, jnp.asarray(env.gains), jnp.asarray(noise)
        every, moved = _settled_jit(signal, *given)

    def by_edge(table: np.ndarray) -> np.ndarray:
        found = np.zeros((len(compiled.query), n, points))
        found[compiled.edge_of] = table
        bought = compiled.buyable()[compiled.edge_of]
        moved = np.where(bought, table - found[compiled.edge_of], 0.0)
        if (np.nan_to_num(moved) != 0).any():
            must = "be the same after histories with the same behaviour and feedback"
            do = "put it into the market: SignalStructure(settlement=...)"
            call = "DynamicTeamMechanism(estimator=...)"
            raise InvalidArgument(describe(call, must, type(signal).__name__, do))
        return found

    mean, follows = by_edge(np.asarray(every)), None
    if moved is not None:
        follows = np.stack([by_edge(np.asarray(moved)[:, k]) for k in range(4)])
        noise = np.where(np.isfinite(follows[1]).all(), noise, np.nan)
    return Settled(mean, follows, noise, signal.held_root(signals))


def laws_of(
    env: RecommendationMDP,
    signal: AbstractSettlementSignal,
    memory: np.ndarray,
    shown: np.ndarray,
    product: np.ndarray,
) -> Float[np.ndarray, "*L k"]:
    """What `signal.laws` holds of k purchases, as the mechanism sees them: at the first taste."""
    with precision(env.gamma):
        unique, index = distinct_integers(np.concatenate([memory, shown[:, None]], axis=1))
        # As many as a power of two: another batch of purchases compiles nothing.
        size = 1 << (len(unique) - 1).bit_length()
        unique = unique[np.minimum(np.arange(size), len(unique) - 1)]
        display = alone(env.controls[unique[:, -1]])
        told = np.asarray(_laws_jit(signal, unique[:, :-1], display, env.gains))
    return np.moveaxis(told[index, ..., 0][np.arange(len(index)), ..., product], 0, -1)


@as_program
def _laws_jit(
    signal: AbstractSettlementSignal, memory: Numbers, shown: Numbers, utilities: Numbers
):
    laws = jax.vmap(lambda h, r: signal.laws(h, r, jnp.asarray(utilities)))
    return laws(jnp.asarray(memory), jnp.asarray(shown))


def rating_noise(
    env: RecommendationMDP, signal: AbstractSettlementSignal
) -> Float[np.ndarray, "n m"]:
    """Standard deviation of the rating behind the estimate, NaN where it is unknown."""
    noise = signal.rating_noise(env.gains)
    return np.array(np.broadcast_to(np.nan if noise is None else noise, env.gains.shape), float)


@as_program
def _settled_jit(
    signal: AbstractSettlementSignal,
    memory: Numbers,
    recommendation: Numbers,
    utilities: Numbers,
    noise: Numbers,
):
    def one(memory: Array, recommendation: Array):
        mean = signal.mean(memory, recommendation, utilities)
        return mean, signal.moments(memory, recommendation, utilities, noise)

    return jax.vmap(one)(jnp.asarray(memory), jnp.asarray(recommendation))
