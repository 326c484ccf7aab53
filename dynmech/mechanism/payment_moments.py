"""How an estimator moves payments: exact means and variances, simulated quantiles.

Up to its Groves term advertiser i pays p_i = -q - theta_j 1{j != i} when j is bought, with q the
estimate of u_j. Given the conversation and omega only q is random, so that

    Var p_i = E[Var(q | omega, j bought)] + Var(E[p_i | conversation, omega]):

the first part is the estimator's noise, the same for every advertiser, and can be cut by a better
rating; the second is what users do, and cannot. Where queries cost something, every advertiser is
charged on the way, too (`solvers.tree.plan.afterwards`).
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech._checks import checked, instance, within
from dynmech._types import Record
from dynmech.errors import InvalidArgument, describe, import_extra
from dynmech.mechanism.team import DynamicTeamMechanism
from dynmech.play.records import Simulation
from dynmech.problem.settled import Settled
from solvers.tree.plan import afterwards, visit

_CELLS = 4_000_000
_KINDS = ("core", "groves", "payment")


class PaymentMoments(Record):
    """Exact mean and variance of what one conversation pays under truth, Groves terms included.

    The first axis is the n advertisers and, last, the platform's revenue. P as in
    `EfficientPolicy`, or (B,) for a batch; NaN at profiles of probability zero.

    - `mean`, `variance` (n+1, *P): given the initial profile. Money, money squared.
    - `noise_variance` (n+1, *P): the part of the variance due to the estimator's noise.
    - `overall_mean`, `overall_variance`, `overall_noise_variance` (n+1,): over profiles too, by
      their probability, or evenly over a batch of some.
    - `settled_at_mean`: True where the estimator's noise is not known and counts as none.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    mean: Float[np.ndarray, "n1 ..."]
    variance: Float[np.ndarray, "n1 ..."]
    noise_variance: Float[np.ndarray, "n1 ..."]
    overall_mean: Float[np.ndarray, " n1"]
    overall_variance: Float[np.ndarray, " n1"]
    overall_noise_variance: Float[np.ndarray, " n1"]
    settled_at_mean: bool = eqx.field(static=True)

    def to_frame(self):
        """Labelled pandas table: one row an advertiser and one for the platform's revenue."""
        pandas = import_extra("pandas", "experiments", "PaymentMoments.to_frame")
        return pandas.DataFrame(
            {
                "who": [*self.names, "revenue"],
                "mean": self.overall_mean,
                "variance": self.overall_variance,
                "noise_variance": self.overall_noise_variance,
                "deviation": np.sqrt(self.overall_variance),
            }
        )


@checked(mechanism=instance(DynamicTeamMechanism, "a DynamicTeamMechanism"))
def payment_moments(mechanism: DynamicTeamMechanism) -> PaymentMoments:
    """Compute the mean and variance of every payment under truth, exactly on the grid.

    Sums over the nodes that the policy visits, beliefs times purchases, of the first two moments
    of the amount paid; the noise of the estimate enters by its variance given omega. Totals of
    `groves.DataDriven` count as decoded without noise, as in simulations.

    **Arguments:** `mechanism`: with any settlement signal.

    **Returns:** `PaymentMoments`.
    """
    policy, n = mechanism.policy, mechanism.policy.env.products
    start, first, place = np.unique(policy.pairs.base, return_index=True, return_inverse=True)
    law = mechanism.settlement_means()
    groves = _groves_by_taste(mechanism)[first]
    root = policy.plan.root[policy.plan.pair_root[start]]
    core, square, noisy, cross = _core_moments(mechanism, law, start, groves)
    total = np.einsum("bim,bm->ib", groves, root)
    square = square + 2 * cross + np.einsum("bim,bm->ib", groves**2, root)
    mass = root.sum(axis=1)
    mean, square, noisy = (
        np.where(mass > 0, table / np.where(mass > 0, mass, 1), np.nan)[:, place]
        for table in (core + total, square, noisy)
    )
    variance = np.maximum(square - mean**2, 0.0)
    weights = policy.weights
    known = np.isfinite(mean[0]) & (weights > 0)
    weights = weights[known] / weights[known].sum()
    overall = mean[:, known] @ weights
    spread = (mean[:, known] - overall[:, None]) ** 2
    shape = (n + 1, *policy.value.shape)
    return PaymentMoments(
        names=policy.env.names,
        mean=mean.reshape(shape),
        variance=variance.reshape(shape),
        noise_variance=noisy.reshape(shape),
        overall_mean=overall,
        overall_variance=(variance[:, known] + spread) @ weights,
        overall_noise_variance=noisy[:, known] @ weights,
        settled_at_mean=not law.known,
    )


def payment_distribution(
    source: DynamicTeamMechanism | Simulation,
    key: jax.Array | None = None,
    conversations: int = 100_000,
    quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
):
    """Tabulate mean, variance and quantiles of each transfer, by advertiser.

    **Arguments:** `source`: a mechanism, which is simulated under truth `conversations` times
    with `key` (consumed), or a `Simulation`, and then neither is used; `quantiles`: in [0, 1].

    **Returns:** labelled pandas table, one row an advertiser (last, the platform's revenue) and
    transfer: "core", "groves", "payment" (their sum). Money: `mean` with its `standard_error`,
    `variance`, quantiles "q05", ...; of payments also `exact_mean` and `exact_variance` where the
    source is a mechanism whose policy has a plan (NaN elsewhere).

    **Raises:** `InvalidArgument`.
    """
    call = "payment_distribution"
    pandas = import_extra("pandas", "experiments", call)
    levels = np.atleast_1d(np.asarray(within(0, 1)(f"{call}(quantiles=...)", quantiles)))
    if levels.ndim != 1:
        must = "be a number, or a sequence of them, in [0, 1]"
        raise InvalidArgument(describe(f"{call}(quantiles=...)", must, quantiles))
    exact = np.full((2, 1), np.nan)
    if isinstance(source, DynamicTeamMechanism):
        if key is None:
            must, do = "be given to simulate", "pass jax.random.key(0)"
            raise InvalidArgument(describe(f"{call}(key=...)", must, None, do))
        records = source.simulate(key, conversations)
        if source.policy.evaluator.walked:
            moments = payment_moments(source)
            exact = np.stack([moments.overall_mean, moments.overall_variance])
    elif isinstance(source, Simulation):
        records = source
    else:
        must = "be a DynamicTeamMechanism or a Simulation"
        raise InvalidArgument(describe(f"{call}(source=...)", must, type(source).__name__))
    rows = []
    for i, who in enumerate([*records.names, "revenue"]):
        for kind in _KINDS:
            table = getattr(records, kind)
            paid = table[:, i] if i < table.shape[1] else table.sum(axis=1)
            known = exact[:, i % exact.shape[1]] if kind == "payment" else (np.nan, np.nan)
            variance = float(paid.var(ddof=1)) if len(paid) > 1 else np.nan
            rows.append(
                {
                    "who": who,
                    "transfer": kind,
                    "mean": float(paid.mean()),
                    "standard_error": np.sqrt(variance / len(paid)),
                    "variance": variance,
                    "exact_mean": float(known[0]),
                    "exact_variance": float(known[1]),
                    **dict(zip([f"q{100 * x:02.4g}" for x in levels], np.quantile(paid, levels))),
                }
            )
    return pandas.DataFrame(rows)


def _groves_by_taste(mechanism: DynamicTeamMechanism) -> Float[np.ndarray, "B n1 m"]:
    """The Groves total of each profile given omega, advertisers and then all of them together."""
    points = mechanism.policy.env.tastes.size
    total = mechanism.totals_by_taste()
    total = np.broadcast_to(total, (*total.shape[:2], points))
    total = np.nan_to_num(total)  # NaN only where the profile is impossible
    return np.concatenate([total, total.sum(axis=1, keepdims=True)], axis=1)


def _core_moments(
    mechanism: DynamicTeamMechanism, law: Settled, start: np.ndarray, groves: np.ndarray
) -> Float[np.ndarray, "4 n1 B"]:
    """First two moments of the core transfers and of the revenue, the noise in the second, and
    the mean product with the Groves total given omega, `groves` (B, n1, m).

    Unnormalised: times the mass of each start's signals.
    """
    policy, n = mechanism.policy, mechanism.policy.env.products
    plan, support = policy.plan, policy.env.values.support
    outcome, held = policy.plan.tree.structure.outcome, law.held(plan)
    stop = np.asarray(plan.tables.stop)
    totals = np.zeros((4, n + 1, len(start)))
    step = max(1, _CELLS // (stop.shape[1] * stop.shape[2]))
    path, query, costs = visit(plan, start, by_origin=True), policy.compiled.query, policy.env.costs
    share = np.append(np.ones(n), n)[:, None]

    def flow(t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray):
        edge, theta = plan.edge(t, node, control), support[np.arange(n), policy.pairs.theta[pair]]
        total = share * (query[edge] * costs[control])[:, None]
        means = law.means(held, t, pair, node, edge)
        for slot in range(stop.shape[1]):
            j = outcome[edge, slot]
            sold, j = (j >= 0) & (j < n), np.where((j >= 0) & (j < n), j, 0)
            others = theta[np.arange(len(j)), j][:, None] * (np.arange(n) != j[:, None])
            others = np.concatenate([others, others.sum(axis=1, keepdims=True)], axis=1)
            chance = np.where(sold[:, None], stop[edge, slot], 0.0)[:, None]
            total -= chance * (others[:, :, None] + share * means[:, slot][:, None])
        return total

    toll = policy.env.toll is not None
    for t, later in enumerate(afterwards(plan, path, flow) if toll else ()):
        here = path[t]
        edge, cost = plan.edge(t, here.node, here.control), costs[here.control]
        belief = plan.belief(t, here.pair, here.node) * here.weight[:, None]
        origin, asked = np.searchsorted(start, here.origin), belief * query[edge] * cost
        for i, times in enumerate(share[:, 0]):
            square = times**2 * asked * cost + 2 * times * belief * cost * later[:, i]
            amounts = times * asked, square, 0 * asked, times * asked * groves[origin, i]
            for row, amount in enumerate(amounts):
                np.add.at(totals[row, i], origin, amount.sum(axis=1))
    for t, here in enumerate(path):
        for low in range(0, len(here.pair), step):
            part = slice(low, low + step)
            pair, edge = here.pair[part], plan.edge(t, here.node[part], here.control[part])
            belief = plan.belief(t, pair, here.node[part]) * here.weight[part, None]
            origin = np.searchsorted(start, here.origin[part])
            place = held, t, pair, here.node[part], edge
            means, noise = law.means(*place), np.nan_to_num(law.variances(*place))
            for slot in range(stop.shape[1]):
                live = (outcome[edge, slot] >= 0) & (outcome[edge, slot] < n)
                j, at = outcome[edge, slot][live], origin[live]
                joint = belief[live] * stop[edge[live], slot]
                estimate = means[live, slot]
                noisy = (joint * noise[live, slot]).sum(axis=1)
                theta = support[j, policy.pairs.theta[pair[live], j]]
                for i in range(n + 1):  # pays minus (others + share * q)
                    others, share = (theta * (j != i), 1) if i < n else ((n - 1) * theta, n)
                    paid = -(others[:, None] + share * estimate)
                    amounts = (
                        (joint * paid).sum(axis=1),
                        (joint * paid**2).sum(axis=1) + share**2 * noisy,
                        share**2 * noisy,
                        (joint * paid * groves[at, i]).sum(axis=1),
                    )
                    for row, amount in enumerate(amounts):
                        np.add.at(totals[row, i], at, amount)
    return totals
