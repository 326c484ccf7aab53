"""Bounds on what any report can gain under a policy that need not be efficient.

At a node with a truthful past no reporting strategy gains more than

    W(node, true belief) - V(node) + 2 max |bias| + variation of total_i in i's own report,

(where the estimate follows the mechanism's predictions, max less min of the expected bias at an
ending in place of 2 max |bias|, if that is less: no purchase is where the bias is largest)
with V the payoff of the policy in use: a deviation is a plan, whose surplus is at most W, and the
estimate's bias enters the deviation's payoff and truth's once each, for at most one purchase. The
Groves totals here never depend on own reports, so the last term is zero. Where only the gap at
the root is certified it bounds plans made at the outset; inside it has to be divided by the
probability of the node.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._types import Record
from dynmech.audit.incentives import situation, yield_given_taste
from dynmech.payments.settlement import Estimator
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled
from dynmech.problem.settled import largest_bias as worst_bias
from solvers.tree.plan import Plan, Visits, evaluate, unfold, visit


class GapBound(Record):
    """Certified bounds on the gain of any report at on-path nodes with a truthful past, money.

    - `bound`: largest over nodes of the node's own gap, plus `stray`: twice the bias, or less.
      `bias`: largest |E[estimate] - u_j| where a purchase can happen.
    - `root_gap`: largest gap at the outset: what it alone would suggest (without the bias).
    - `root_bound`: the root's gap divided by the node's probability, plus `stray`.
    - `by_period` (T,): largest node gap of each period.
    """

    bound: float = eqx.field(static=True)
    bias: float = eqx.field(static=True)
    stray: float = eqx.field(static=True)
    root_gap: float = eqx.field(static=True)
    root_bound: float = eqx.field(static=True)
    by_period: Float[np.ndarray, " T"]


def bound_gains(policy: AbstractPricedPolicy, settled: Settled) -> GapBound:
    """Bound incentive gains node by node; see the module."""
    bias, stray = biases(policy, settled)
    horizon = policy.plan.horizon
    if policy.optimal is None and policy.gap is None:
        return GapBound(stray, bias, stray, 0.0, stray, np.zeros(horizon))
    starts = np.arange(len(policy.pairs.root))
    path = visit(policy.plan, starts, by_origin=False)
    used: list[np.ndarray] = []
    best: list[np.ndarray] = []
    if policy.optimal is not None:
        used, best = _worth(policy, policy.plan, path), _worth(policy, policy.optimal, path)
    by_period, least = np.zeros(horizon), np.inf
    root_mass = policy.plan.root.sum(axis=1)[policy.pairs.root]
    for t, here in enumerate(path):
        mass = policy.plan.belief(t, here.pair, here.node).sum(axis=1)
        live = mass > 0
        if not live.any():
            continue
        gap = np.zeros(int(live.sum()))
        if policy.gap is not None:
            gap += policy.gap[t][here.pair, here.node][live]
        if policy.optimal is not None:
            gap += (best[t] - used[t])[live] / mass[live]
        by_period[t] = max(0.0, float(gap.max()))
        least = min(least, float((mass[live] / root_mass[here.pair[live]]).min()))
    root_gap = float(by_period[0])
    return GapBound(
        bound=float(by_period.max()) + stray,
        bias=bias,
        stray=stray,
        root_gap=root_gap,
        root_bound=float(root_gap / least) + stray,
        by_period=by_period,
    )


def biases(policy: AbstractPricedPolicy, settled: Settled) -> tuple[float, float]:
    """Largest |E[estimate | omega, j bought] - u_j(omega) + x(omega)| where j can be bought.

    And what a plan can gain by biases, at most twice that.
    Given omega the expected bias of a plan is an average, over where it ends, of

        f = sum_j y_j (E[estimate of u_j] - u_j) / (1 - y_q)  and 0,

    so that two plans differ by max f - min f at most, over all endings, tastes and predictions.
    """
    compiled, gains, n = policy.compiled, policy.env.gains, policy.env.products
    bought = compiled.buyable()
    if settled.follows is None:
        bias = worst_bias(settled.mean, None, gains, bought)
        return bias, 2 * bias
    drift, hull = settled.follows[0], settled.hull(policy.plan)
    bias = worst_bias(settled.mean, drift, gains, bought, hull)
    slot = compiled.structure.outcome
    sold, edge = (slot >= 0) & (slot < n), np.arange(len(slot))[:, None]
    ends = np.where(compiled.query < 1, 1 - compiled.query, 1.0)[:, None]
    chance = np.where(sold[:, :, None], compiled.stop, 0.0) / ends
    at = np.where(sold, slot, 0)
    gaps = [(settled.mean + drift * end[:, None] - gains)[edge, at] for end in hull]
    real = np.asarray(policy.env.tastes.weights) > 0
    top = (chance * np.maximum(*gaps)).sum(axis=1)[:, real].max(initial=0.0)
    bottom = (chance * np.minimum(*gaps)).sum(axis=1)[:, real].min(initial=0.0)
    return bias, min(2 * bias, float(top - bottom))


def _worth(policy: AbstractPricedPolicy, plan: Plan, path: list[Visits]) -> list[np.ndarray]:
    """Surplus of a plan at every visited node under the true belief, unnormalised."""
    wanted = [
        (here.pair, here.node, plan.actions[t][here.pair, here.node].astype(np.int64))
        for t, here in enumerate(path)
    ]
    keys, places = unfold(plan, wanted)
    surplus = Estimator()
    gains = policy.env.gains
    told = np.broadcast_to(gains, (len(policy.compiled.query), *gains.shape))
    exact = Settled(told, None, np.zeros(gains.shape), None)

    def flow(t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray):
        at = situation(policy, exact, t, pair, node, control)
        return yield_given_taste(surplus, at)

    values = evaluate(plan, keys, flow)
    return [
        (values[t][places[t], 0] * plan.belief(t, here.pair, here.node)).sum(axis=1)
        for t, here in enumerate(path)
    ]
