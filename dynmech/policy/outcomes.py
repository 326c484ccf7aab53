"""Expectations under a plan: who is bought, what is earned, what the user gets."""

import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Record
from dynmech.bounded import Bounded
from dynmech.problem.settled import Settled
from dynmech.problem.tasks import Pairs
from solvers.tree.plan import Plan, rows_after, visit

_CELLS = 500_000


class Outcomes(Record):
    """Expectations conditional on each pair's signals; NaN where these are impossible.

    All (B, n), money but for `purchase`: probability of buying each product, theta earned by
    it, utility the user gets from it beyond leaving, and the mean of what the estimate says that
    utility is. `costs` (B,): what queries cost.
    """

    purchase: Float[np.ndarray, "B n"]
    earned: Float[np.ndarray, "B n"]
    utility: Float[np.ndarray, "B n"]
    estimated: Float[np.ndarray, "B n"]
    costs: Float[np.ndarray, " B"]

    @property
    def surplus(self) -> Float[np.ndarray, " B"]:
        """Values earned and the user's utility, less costs."""
        return (self.earned + self.utility).sum(axis=1) - self.costs

    @property
    def payoff(self) -> Float[np.ndarray, " B"]:
        """What every advertiser gets, up to her Groves term, as it is settled."""
        return (self.earned + self.estimated).sum(axis=1) - self.costs

    def tables(self, base: Int[np.ndarray, " b"], shape: tuple[int, ...]) -> dict[str, Bounded]:
        """By product and profile, exact: of the entries `base`, laid out in a shape."""
        kinds = {"earned": self.earned, "utility": self.utility, "purchase": self.purchase}
        found = {name: Bounded(x[base].T.reshape(x.shape[1], *shape)) for name, x in kinds.items()}
        return found | {"costs": Bounded(self.costs[base].reshape(shape))}


def core_receipts(
    plan: Plan, support: Float[np.ndarray, "n K"], pairs: Pairs, settled: Settled
) -> Float[np.ndarray, "n P m"]:
    """E[what each advertiser receives for purchases less costs, core transfers; omega], money.

    X_i = sum_{j != i} (theta_j + q_j) 1{j bought} + q_i 1{i bought} - costs, under truth at every
    pair, unnormalised as beliefs are.
    """
    n, count = support.shape[0], len(pairs.root)
    stop, reward = np.asarray(plan.tables.stop), np.asarray(plan.tables.reward)
    outcome, held = plan.tree.structure.outcome, settled.held(plan)
    common = np.zeros((count, stop.shape[2]))
    earned = np.zeros((n, *common.shape))
    step = max(1, _CELLS // (stop.shape[1] * stop.shape[2]))
    for t, here in enumerate(visit(plan, np.arange(count), by_origin=True)):
        for low in range(0, len(here.pair), step):
            part = slice(low, low + step)
            pair, node, origin = here.pair[part], here.node[part], here.origin[part]
            edge = Plan.edge(plan, t, node, here.control[part])
            belief = Plan.belief(plan, t, pair, node) * here.weight[part, None]
            estimate = settled.means(held, t, pair, node, edge)
            for slot in range(stop.shape[1]):
                product = outcome[edge, slot]
                tolled, live = product == n, (product >= 0) & (product < n)
                joint = belief * stop[edge, slot]
                if tolled.any():
                    np.add.at(common, origin[tolled], joint[tolled] * reward[n])
                np.add.at(common, origin[live], joint[live] * estimate[live, slot])
                theta = support[product[live], pairs.theta[pair[live], product[live]]]
                np.add.at(earned, (product[live], origin[live]), joint[live] * theta[:, None])
    return common + earned.sum(axis=0) - earned


def expected_outcomes(
    plan: Plan,
    support: Float[np.ndarray, "n K"],
    pairs: Pairs,
    start: Int[np.ndarray, " B"],
    settled: Settled | None = None,
) -> Outcomes:
    """Follow the plans of `start` under truth and add up beliefs times purchases.

    **Arguments:** `settled`: what purchases are settled at; the utility itself by default.
    """
    n = support.shape[0]
    wanted, place = np.unique(start, return_inverse=True)
    totals, spent = np.zeros((4, len(wanted), n)), np.zeros(len(wanted))
    stop, reward = np.asarray(plan.tables.stop), np.asarray(plan.tables.reward)
    outcome = plan.tree.structure.outcome
    step = max(1, _CELLS // (stop.shape[1] * stop.shape[2]))
    for origin, pair, edge, belief, estimate in _met(plan, wanted, settled, step):
        for slot in range(stop.shape[1]):
            product = outcome[edge, slot]
            tolled, live = product == n, (product >= 0) & (product < n)
            if tolled.any():
                cost = -(belief[tolled] * stop[edge[tolled], slot] * reward[n]).sum(axis=1)
                np.add.at(spent, origin[tolled], cost)
            joint = belief[live] * stop[edge[live], slot]
            bought, at = product[live], origin[live]
            mass = joint.sum(axis=1)
            utility = np.einsum("km,km->k", joint, reward[bought])
            estimated = utility
            if estimate is not None:
                estimated = np.einsum("km,km->k", joint, estimate[live, slot])
            theta = support[bought, pairs.theta[pair[live], bought]]
            for row, amount in enumerate((mass, theta * mass, utility, estimated)):
                np.add.at(totals[row], (at, bought), amount)
    mass = plan.root.sum(axis=1)[plan.pair_root[wanted]]
    each = np.where(mass > 0, mass, np.nan)
    purchase, earned, utility, estimated = (totals / each[:, None])[:, place]
    return Outcomes(purchase, earned, utility, estimated, (spent / each)[place])


def _met(plan: Plan, wanted: Int[np.ndarray, " B"], settled: Settled | None, step: int):
    """What plans visit, about `step` visits at a time, of several rounds where these are small.

    **Returns:** of each, which of `wanted`, its pair, edge, belief times the chance of being there,
    and what purchases are settled at, (k, J, m).
    """
    edge_of, belief_at = Plan.edge, Plan.belief  # bound, they would walk the tree at every call
    held, rows = plan if settled is None else settled.held(plan), None
    roots = np.concatenate([plan.root, np.ones((1, plan.root.shape[1]))])
    waiting, count = [], 0

    def met():
        origin, pair, edge, weight, root, row = map(np.concatenate, zip(*waiting, strict=True))
        belief = roots[root] * row * weight[:, None]
        return np.searchsorted(wanted, origin), pair, edge, belief

    for t, here in enumerate(visit(plan, wanted, by_origin=True)):
        rows, like = rows_after(plan, t, rows), plan.tree.layers[t].likelihood
        for low in range(0, len(here.pair), step):
            part = slice(low, low + step)
            pair, node = here.pair[part], here.node[part]
            edge = edge_of(plan, t, node, here.control[part])
            if rows is None:
                root, row = np.full(len(pair), -1), belief_at(plan, t, pair, node)
            else:
                root, row = plan.pair_root[pair], rows[like[node]]
            waiting.append((here.origin[part], pair, edge, here.weight[part], root, row))
            count += len(pair)
            if settled is not None:
                yield *met(), settled.means(held, t, pair, node, edge)
            elif count >= step:
                yield *met(), None
            else:
                continue
            waiting, count = [], 0
    if waiting:
        yield *met(), None
