"""What a recommendation and the plan after it pay an advertiser, given the taste."""

import numpy as np
from jaxtyping import Float, Int

from dynmech.audit.shared import MOST, shared
from dynmech.payments.settlement import AbstractSettlement, Situation
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled
from solvers.tree.plan import evaluate, unfold

_BATCH = 4_000_000
_KINDS = 16  # ways to differ that may be numbered, for each that there is


def alpha_vectors(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    wanted: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    name: str | None = None,
) -> tuple[list[Float[np.ndarray, "_k C m"]], list[np.ndarray]]:
    """Payoff given omega of the wanted (pair, node, control) of each round, truth following.

    **Arguments:** `name`: of what is wanted, where every audit of the policy wants the same.

    **Returns:** per round the payoffs of all that had to be evaluated, C = 1 when they are
    everyone's, else n; and where the wanted ones are among them.
    """
    keys, places = shared(policy, name and (name, "led"), lambda: unfold(policy.plan, wanted))

    def flow(t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray):
        parts, (one, kind) = [], alike(policy, settlement, t, pair, node, control, name)
        pair, node, control = pair[one], node[one], control[one]
        step = max(1, _BATCH // (policy.plan.root.shape[1] * settled.mean.shape[1]))
        for low in range(0, max(len(pair), 1), step):
            part = slice(low, low + step)
            at = situation(policy, settled, t, pair[part], node[part], control[part])
            parts.append(yield_given_taste(settlement, at))
        return (np.concatenate(parts) if len(parts) > 1 else parts[0])[kind]

    return evaluate(policy.plan, keys, flow), places


def alike(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    t: int,
    pair: Int[np.ndarray, " k"],
    node: Int[np.ndarray, " k"],
    control: Int[np.ndarray, " k"],
    name: str | None = None,
) -> tuple[Int[np.ndarray, " _s"] | slice, Int[np.ndarray, " k"] | slice]:
    """One of all (pair, node, control) that are settled alike, and of which kind each is.

    Alike are one edge, one belief and one value earned in each slot, where nothing else is read.

    **Arguments:** `name`: as of `alpha_vectors`.
    """
    if not settlement.sold_alone:
        return slice(None), slice(None)
    return shared(policy, name and (name, t), lambda: _kinds(policy, t, pair, node, control))


def _kinds(
    policy: AbstractPricedPolicy, t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray
):
    plan, theta = policy.plan, policy.pairs.theta
    outcome, (n, size) = plan.tree.structure.outcome, policy.env.values.support.shape
    slots, roots, layer = outcome.shape[1], len(plan.root), plan.tree.layers[t]
    kinds = float(size) ** slots * roots
    count = len(outcome) * roots * len(layer.parent) * size**slots
    if kinds >= len(theta) or count > _KINDS * max(len(pair), 1):
        return slice(None), slice(None)
    edge = plan.edge(t, node, control)
    code = edge.astype(np.int64)
    if roots > 1:
        code = code * roots + plan.pair_root[pair]
    if len(layer.parent) > 1:
        code = code * len(layer.parent) + layer.likelihood[node]
    earned = np.concatenate([theta, np.zeros_like(theta[:, :1])], axis=1).ravel()
    place, product = pair * (n + 1), np.where((outcome >= 0) & (outcome < n), outcome, n)
    for slot in range(slots):
        code = code * size + earned.take(place + product[:, slot].take(edge))
    met = np.zeros(count, bool)
    met[code] = True
    kind = (np.cumsum(met) - 1).take(code)
    one = np.zeros(np.count_nonzero(met), np.int64)
    one[kind] = np.arange(len(kind))
    return one, kind


def situation(
    policy: AbstractPricedPolicy,
    settled: Settled,
    t: int,
    pair: np.ndarray,
    node: np.ndarray,
    control: np.ndarray,
) -> Situation:
    """Describe what is settled at (pair, node, control) of round t."""
    plan, env = policy.plan, policy.env
    edge = plan.edge(t, node, control)
    used, place, few = slice(None), edge, 4 * plan.tables.stop.size <= MOST
    if not few and len(policy.compiled.query) > len(edge):
        used, place = np.unique(edge, return_inverse=True)  # of many nodes, few edges most often
    told = shared(policy, "sold" if few else None, lambda: _sold(policy, used))
    product, stop, utility, cost = told
    return Situation(
        product=product[place],
        stop=stop[place],
        utility=utility[place],
        estimate=settled.means(settled.held(plan), t, pair, node, edge),
        belief=plan.belief(t, pair, node),
        theta=env.values.support[np.arange(env.products), policy.pairs.theta[pair]],
        utilities=np.asarray(plan.tables.reward)[: env.products],
        asked=policy.compiled.query[edge],
        cost=cost[place],
        period=t + 1,
    )


def _sold(policy: AbstractPricedPolicy, edges: np.ndarray | slice):
    """Products, their chances and utilities in each slot of edges, and what queries cost there."""
    plan, n, reward = policy.plan, policy.env.products, np.asarray(policy.plan.tables.reward)
    outcome, stop = plan.tree.structure.outcome[edges], np.asarray(plan.tables.stop)[edges]
    product = np.where(outcome < n, outcome, -1)
    cost = ((outcome == n)[:, :, None] * stop * -reward[outcome]).sum(axis=1)
    return product, (product >= 0)[:, :, None] * stop, reward[np.maximum(product, 0)], cost


def yield_given_taste(settlement: AbstractSettlement, at: Situation) -> np.ndarray:
    """What a period yields given omega, shape (k, C, m): C is 1 when everyone's, else n."""
    worth = settlement.payoff(at) * at.stop[:, None]
    worth = worth[:, :, 0] if worth.shape[2] == 1 else worth.sum(axis=2)
    toll, charge = settlement.toll(at), settlement.charge(at)
    if toll.any() or charge.any():
        return worth - toll - charge[:, :, None]
    whose = max(x.shape[1] for x in (worth, toll, charge))
    return worth if worth.shape[1] == whose else worth.repeat(whose, axis=1)
