"""The exact engine: every check on the tree of a policy."""

import numpy as np
from jaxtyping import Float

from dynmech._devices import Work, read_mesh
from dynmech.audit.bounds import bound_gains
from dynmech.audit.incentives import search_misreports, situation
from dynmech.audit.payoffs import alike
from dynmech.audit.record import Audit, Budget, Window
from dynmech.audit.shared import shared
from dynmech.audit.strategies import search_histories
from dynmech.audit.witness import name_structures
from dynmech.bounded import Bounded
from dynmech.payments.groves import OwnTables
from dynmech.payments.settlement import AbstractSettlement, Situation
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled
from solvers.tree.plan import Visits, afterwards, visit

_TOLERANCE = 1e-9
_HERE = Work("audit")


def run_audit(
    policy: AbstractPricedPolicy,
    own: OwnTables,
    total: Float[np.ndarray, "n ..."],
    settlement: AbstractSettlement,
    settled: Settled,
    groves: str = "",
    reports: str = "incremental",
    histories: str = "on-path",
    interval: bool = False,
    tolerance: float | None = None,
    work: Work = _HERE,
) -> Audit:
    """Run every check.

    **Arguments:** `total` (n, *P): Groves totals; `settled`: what purchases are settled at;
    `interval`: search every report of the interval; `work`: where, and what is kept.
    """
    env, n = policy.env, policy.env.products
    shape = policy.advertiser_value.shape
    nearby = (reports, histories, interval) == ("incremental", "on-path", False)
    parts = (len(policy.pairs.signals), "roots") if nearby else (n, "advertisers")
    read_mesh("audit", work.mesh, env, *parts)
    if nearby:
        found = search_misreports(policy, settlement, settled, work)
    else:
        truthful = histories == "on-path"
        found = search_histories(policy, settlement, settled, reports, truthful, interval, work)
    payoff, variance = (x.T.reshape(shape) for x in _settle_truth(policy, settlement, settled))
    payments = total + policy.advertiser_value - payoff
    participation = policy.advertiser_value - payments
    no_subsidy = payments + policy.user_utility
    weights = policy.weights

    def mean(table: np.ndarray):
        flat = table.reshape(n, -1)
        known = np.isfinite(flat[0])
        if known.all():
            return flat @ weights / weights.sum()
        return flat[:, known] @ weights[known] / weights[known].sum()

    def reduce(best: np.ufunc, table: np.ndarray):
        flat = table.reshape(*table.shape[:2], -1).transpose(2, 1, 0)
        return best.reduce(np.ascontiguousarray(flat)).reshape(shape)

    def open_between() -> Window:
        return Window(reduce(np.fmax, own.contribution), reduce(np.fmin, own.payoff))

    gap = shared(policy, "gap", lambda: bound_gains(policy, settled), settled)
    certain, bound = np.full(shape, np.nan), np.full(n, np.nan)
    if settlement.own:
        certain[:] = policy.incentive_bound + gap.stray
        bound[:] = max(float(np.nanmax(certain)), gap.bound)
    if tolerance is None:
        tolerance = _TOLERANCE * shared(policy, "money", lambda: env.money_scale)
    revenue = payments.sum(axis=0)
    surplus = policy.user_utility.sum(axis=0) - policy.round_costs
    return Audit(
        names=env.names,
        settlement=type(settlement).__name__,
        groves=groves,
        reports=reports,
        histories=histories,
        reported="interval" if interval else "support",
        confidence=1.0,
        runs=0,
        gain=Bounded(found.gain),
        gain_by_period=found.by_period,
        witness=tuple(name_structures(env, witness) for witness in found.witness),
        deviations=found.deviations,
        incentive_bound=bound,
        profile_bound=certain,
        gap=gap,
        inside=(),
        bias=gap.bias,
        measured=None,
        slack_participation=Bounded(participation),
        slack_no_subsidy=Bounded(no_subsidy),
        mean_participation=Bounded(mean(participation)),
        mean_no_subsidy=Bounded(mean(no_subsidy)),
        groves_total=total,
        value=policy.figures.value,
        best=Bounded(policy.upper, policy.lower, policy.upper),
        window=shared(policy, "window", open_between, own),
        budget=Budget(payments, revenue, surplus, variance, 0 * payments, 0 * revenue, 0 * surplus),
        tolerance=tolerance,
    )


def _settle_truth(
    policy: AbstractPricedPolicy, settlement: AbstractSettlement, settled: Settled
) -> tuple[np.ndarray, np.ndarray]:
    """Expected payoff (B, n) under truth without Groves term, and variance of what is paid.

    The variance is that of one conversation's transfers, given the profile: over tastes,
    actions, signals and the estimate's own noise; NaN where that is not known.
    """
    plan, n = policy.plan, policy.env.products

    def walk() -> tuple[np.ndarray, np.ndarray, list[Visits]]:
        used = np.zeros(len(policy.pairs.root), bool)
        used[policy.pairs.base] = True
        start, place = np.flatnonzero(used), (np.cumsum(used) - 1)[policy.pairs.base]
        return start, place, visit(plan, start, by_origin=True)

    start, place, path = shared(policy, "path", walk)
    sums = np.zeros((len(start), 4, n))
    held = settled.held(plan)
    step = max(1, 4_000_000 // (plan.root.shape[1] * settled.mean.shape[1] * n))
    for t, here in enumerate(path):
        name = "path" if step >= len(here.pair) else None
        for low in range(0, len(here.pair), step):
            part = slice(low, low + step)
            visits = here.pair[part], here.node[part], here.control[part]
            one, kind = alike(policy, settlement, t, *visits, name)
            pair, node, control = (x[one] for x in visits)
            at = situation(policy, settled, t, pair, node, control)
            belief = at.belief
            mass, joint = belief.sum(axis=1)[:, None], at.stop * belief[:, None]
            charge = np.broadcast_to(settlement.charge(at), (len(belief), n))
            asked = np.einsum("kim,km->ki", settlement.toll(at), belief)
            worth, paid, square = _moments(at, settlement.payoff(at), joint)
            if settlement.own:
                edge = plan.edge(t, node, control)
                noise = settled.variances(held, t, pair, node, edge)
                square += np.einsum("kjm,kjm->k", noise, joint)[:, None]
            due, some = charge * mass + asked, np.abs(charge) * mass + asked
            each = np.stack([worth - due, paid + due, square, some], axis=1)
            amounts = each[kind] * here.weight[part, None, None]
            if t == 0 and plan.laws is None:  # each once
                sums[part] += amounts
                continue
            np.add.at(sums, np.searchsorted(start, here.origin[part]), amounts)
    if sums[:, 3].any():
        sums[:, 2] += _along_paths(policy, settlement, settled, path, start)
    mass = plan.root.sum(axis=1)[plan.pair_root[start]][:, None, None]
    sums /= np.where(mass > 0, mass, np.nan)
    payoff, paid, square = sums[:, 0], sums[:, 1], sums[:, 2]
    return payoff[place], np.maximum(square - paid**2, 0.0)[place]


def _moments(
    at: Situation, worth: Float[np.ndarray, "k C J M"], joint: Float[np.ndarray, "k J m"]
) -> tuple[Float[np.ndarray, "k C"], Float[np.ndarray, "k n"], Float[np.ndarray, "k n"]]:
    """What a purchase is worth, and what each advertiser pays for it and its square, unnormalised.

    She pays what she earned less what it is worth to her, so that all but the one whose product it
    is pay alike where it is worth the same to all.
    """
    n, slots = at.theta.shape[1], at.product.shape[1]
    mine = at.product[:, None, :] == np.arange(n)[:, None]
    hers = np.maximum(at.product, 0)
    earned = at.theta[np.arange(len(hers))[:, None], hers][:, :, None]
    each = (
        worth[:, 0]
        if worth.shape[1] == 1
        else worth[np.arange(len(hers))[:, None], hers, np.arange(slots)]
    )

    def both(paid: np.ndarray, chance: np.ndarray):
        first = paid * chance
        return first.sum(axis=-1), (first * paid).sum(axis=-1)

    own, others = both(earned - each, joint), both(-worth, joint[:, None])
    paid, square = (
        np.where(mine, x[:, None], y).sum(axis=2) for x, y in zip(own, others, strict=True)
    )
    return -others[0].sum(axis=2), paid, square


def _along_paths(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    path: list[Visits],
    start: np.ndarray,
) -> Float[np.ndarray, "B n"]:
    """What charges of a period and costs of queries add to the second moment, unnormalised.

    A period charges c, and k more for a query, whatever comes later, F: with x paid for a purchase,

        c^2 + 2 c E[x] + P(query) (2 c k + k^2) + 2 E[(c + k) F; query].
    """
    plan, n = policy.plan, policy.env.products
    step = max(1, 4_000_000 // (plan.root.shape[1] * settled.mean.shape[1] * n))

    def parts(t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray):
        at = situation(policy, settled, t, pair, node, control)
        worth, shape = settlement.payoff(at), (len(pair), n, *at.stop.shape[1:])
        mine = (at.product[:, None, :] == np.arange(n)[:, None])[..., None]
        paid = mine * at.theta[:, :, None, None] - np.broadcast_to(worth, shape)
        paid = (paid * at.stop[:, None]).sum(axis=2)
        charge = np.broadcast_to(settlement.charge(at), (len(pair), n))[:, :, None]
        toll = np.broadcast_to(settlement.toll(at), paid.shape)
        return at, paid, charge, toll

    def flow(t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray):
        found = [np.zeros((0, n, plan.root.shape[1]))]
        for low in range(0, len(pair), step):
            part = slice(low, low + step)
            _, paid, charge, toll = parts(t, pair[part], node[part], control[part])
            found.append(paid + charge + toll)
        return np.concatenate(found)

    total = np.zeros((len(start), n))
    for t, (here, later) in enumerate(zip(path, afterwards(plan, path, flow), strict=True)):
        for low in range(0, len(here.pair), step):
            part = slice(low, low + step)
            place = here.pair[part], here.node[part], here.control[part]
            at, paid, charge, toll = parts(t, *place)
            asked = at.asked[:, None]
            query = np.divide(toll, asked, out=np.zeros_like(toll), where=asked > 0)
            each = charge**2 + 2 * charge * paid + asked * (2 * charge * query + query**2)
            each = each + 2 * (charge + query) * later[part]
            belief = at.belief * here.weight[part, None]
            origin = np.searchsorted(start, here.origin[part])
            np.add.at(total, origin, np.einsum("kim,km->ki", each, belief))
    return total
