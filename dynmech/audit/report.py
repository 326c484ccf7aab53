"""The audit's verdict: worst cases with witnesses and tolerances, never a bare yes or no."""

import os
from typing import Self

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from dynmech import files
from dynmech._types import Numbers
from dynmech.audit.bounds import GapBound, bound_gains
from dynmech.audit.incentives import search_misreports, situation
from dynmech.audit.strategies import search_histories
from dynmech.audit.witness import Witness, name_structures
from dynmech.errors import import_extra
from dynmech.payments.groves import OwnTables
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from solvers import visit

_TOLERANCE = 1e-9


class Window(eqx.Module):
    """The sharp window of totals fixed given the others' initial reports, (n, *P), money.

    No subsidy for every own type iff total_i >= `floor`; participation iff total_i <= `ceiling`.
    """

    floor: Float[np.ndarray, "n ..."]
    ceiling: Float[np.ndarray, "n ..."]

    @property
    def open(self) -> Bool[np.ndarray, "n ..."]:
        """Whether one total does both."""
        return self.floor <= self.ceiling


class Budget(eqx.Module):
    """Expected money: `payments` (n, *P), platform `revenue` P, `user_surplus` P.

    `payment_variance` (n, *P): of one conversation's transfers given the profile, money squared;
    NaN where the settlement's noise is not known.
    """

    payments: Float[np.ndarray, "n ..."]
    revenue: Float[np.ndarray, "..."]
    user_surplus: Float[np.ndarray, "..."]
    payment_variance: Float[np.ndarray, "n ..."]


class Audit(eqx.Module):
    """Incentives, participation, no subsidy, budget: exact on the grid, up to rounding.

    - `incentive_gain` (n,): largest gain, conditional on the node, of a single-period misreport
      at any on-path node with a truthful past, never below 0; `gain_by_period` (n, T) of each
      period; `first_gain` of period 1. With an interval of reports, the supremum over all of
      it (`reported`: "support" or "interval"). `witness[i]` says where. `deviations`: how many
      misreports were compared with truth.
    - `participation`, `no_subsidy` (n, *P): slack of each constraint, from actual expected
      payments; `ex_ante_participation`, `ex_ante_no_subsidy` (n,): means over profiles by their
      probability (over the batch as drawn, for a batch).
    - `window`, `budget`. `gap`: bound on the gain of any report under a policy that need not be
      efficient, for settlement by the estimator; only the bias for the efficient policy.
    - `tolerance`: money; gains and shortfalls below it are rounding.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    settlement: str = eqx.field(static=True)
    groves: str = eqx.field(static=True)
    reports: str = eqx.field(static=True)
    histories: str = eqx.field(static=True)
    reported: str = eqx.field(static=True)
    incentive_gain: Float[np.ndarray, " n"]
    gain_by_period: Float[np.ndarray, "n T"]
    witness: tuple[Witness, ...]
    deviations: int = eqx.field(static=True)
    participation: Float[np.ndarray, "n ..."]
    no_subsidy: Float[np.ndarray, "n ..."]
    ex_ante_participation: Float[np.ndarray, " n"]
    ex_ante_no_subsidy: Float[np.ndarray, " n"]
    groves_total: Float[np.ndarray, "n ..."]
    window: Window
    budget: Budget
    gap: GapBound
    tolerance: float = eqx.field(static=True)

    @property
    def first_gain(self) -> Float[np.ndarray, " n"]:
        """Largest gain of a misreport in period 1, shape (n,), money."""
        return self.gain_by_period[:, 0]

    def save(self, path: str | os.PathLike) -> None:
        """Write the audit to one sealed file, in one step; see `dynmech.files`."""
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, parts: tuple[type, ...] = ()) -> Self:
        """Read what `save` wrote; `parts` lists your own classes that it holds, if any.

        **Raises:** `InvalidArgument` for a file that is changed, torn, or of another format.
        """
        return files.load(path, cls, parts)

    def to_frame(self):
        """Labelled pandas table: one row an advertiser; money, worst over profiles."""
        pandas = import_extra("pandas", "experiments", "Audit.to_frame")
        n = len(self.names)

        def worst(table):
            return np.nanmin(table.reshape(n, -1), axis=1)

        return pandas.DataFrame(
            {
                "advertiser": list(self.names),
                "settlement": self.settlement,
                "groves": self.groves,
                "incentive_gain": self.incentive_gain,
                "worst_participation": worst(self.participation),
                "worst_no_subsidy": worst(self.no_subsidy),
                "ex_ante_participation": self.ex_ante_participation,
                "ex_ante_no_subsidy": self.ex_ante_no_subsidy,
                "window_open_share": _share(self.window, n),
                "mean_payment": np.nanmean(self.budget.payments.reshape(n, -1), axis=1),
                "witness": [w.sentence() for w in self.witness],
            }
        )

    def summary(self) -> str:
        """A one-screen verdict."""
        worst = int(np.argmax(self.incentive_gain))
        ok = self.incentive_gain[worst] <= self.tolerance
        head = f"Settlement {self.settlement}, Groves term {self.groves}, {self.reports} reports, "
        head += f"values on the {self.reported}, {self.histories} histories: {self.deviations} "
        head += f"misreports compared with truth, tolerance {self.tolerance:.1e}"
        verdict, gain = "HOLD" if ok else "FAIL", self.incentive_gain[worst]
        lines = [head, f"  incentives     {verdict}: largest gain {gain:.3g}"]
        if not ok:
            lines.append(f"    {self.witness[worst].sentence()}")
        if self.gap.bound > self.tolerance and self.settlement == "Estimator":
            lines.append(
                f"    certified: no report gains more than {self.gap.bound:.3g} at any on-path node"
            )
        for label, table, expected in (
            ("participation", self.participation, self.ex_ante_participation),
            ("no subsidy", self.no_subsidy, self.ex_ante_no_subsidy),
        ):
            verdict = "HOLDS" if np.nanmin(table) >= -self.tolerance else "FAILS"
            lines.append(
                f"  {label:<14} {verdict}: worst slack {np.nanmin(table):.4g} over "
                f"{np.isfinite(table[0]).sum()} profiles; on average, worst advertiser "
                f"{np.min(expected):.4g}"
            )
        share = _share(self.window, len(self.names))
        lines.append(
            f"  window         open for {100 * share.mean():.0f}% of advertisers and profiles"
        )
        lines.append(
            f"  budget         mean revenue {np.nanmean(self.budget.revenue):.4g}, mean user "
            f"surplus {np.nanmean(self.budget.user_surplus):.4g}"
        )
        return "\n".join(lines)


def _share(window: Window, n: int) -> Float[np.ndarray, " n"]:
    known = np.isfinite(window.floor.reshape(n, -1))
    return (window.open.reshape(n, -1) & known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def run_audit(
    policy: AbstractPricedPolicy,
    own: OwnTables,
    total: Float[np.ndarray, "n ..."],
    settlement: AbstractSettlement,
    means: Float[np.ndarray, "E n m"],
    groves: str = "",
    reports: str = "incremental",
    histories: str = "on-path",
    noise: Numbers | float | None = None,
    interval: bool = False,
) -> Audit:
    """Run every check.

    **Arguments:** `total` (n, *P): Groves totals; `means`: of the estimate at each edge; `noise`:
    its standard deviation, None where unknown; `interval`: search every report of the interval.
    """
    env, n = policy.env, policy.env.products
    shape = policy.advertiser_value.shape
    if (reports, histories, interval) == ("incremental", "on-path", False):
        found = search_misreports(policy, settlement, means)
    else:
        truthful = histories == "on-path"
        found = search_histories(policy, settlement, means, reports, truthful, interval)
    payoff, variance = (x.T.reshape(shape) for x in _settle_truth(policy, settlement, means, noise))
    payments = total + policy.advertiser_value - payoff
    participation = policy.advertiser_value - payments
    no_subsidy = payments + policy.user_utility
    weights = np.ones(len(policy.profiles)) if policy.batch else policy.probability().ravel()

    def mean(table):
        flat = table.reshape(n, -1)
        known = np.isfinite(flat[0])
        return flat[:, known] @ weights[known] / weights[known].sum()

    def reduce(best, table):
        return best.reduce(table.reshape(*table.shape[:2], -1), axis=2).T.reshape(shape)

    return Audit(
        names=env.names,
        settlement=type(settlement).__name__,
        groves=groves,
        reports=reports,
        histories=histories,
        reported="interval" if interval else "support",
        incentive_gain=found.gain,
        gain_by_period=found.by_period,
        witness=tuple(name_structures(env, witness) for witness in found.witness),
        deviations=found.deviations,
        participation=participation,
        no_subsidy=no_subsidy,
        ex_ante_participation=mean(participation),
        ex_ante_no_subsidy=mean(no_subsidy),
        groves_total=total,
        window=Window(reduce(np.fmax, own.contribution), reduce(np.fmin, own.payoff)),
        budget=Budget(payments, payments.sum(axis=0), policy.user_utility.sum(axis=0), variance),
        gap=bound_gains(policy, means),
        tolerance=_TOLERANCE * env.money_scale,
    )


def _settle_truth(policy, settlement, means, noise) -> tuple[np.ndarray, np.ndarray]:
    """Expected payoff (B, n) under truth without Groves term, and variance of what is paid.

    The variance is that of one conversation's transfers, given the profile: over tastes,
    actions, signals and the estimate's own noise; NaN where that is not known.
    """
    plan, env, n = policy.plan, policy.env, policy.env.products
    start, place = np.unique(policy.pairs.base, return_inverse=True)
    sums = np.zeros((4, len(start), n))
    spread = np.zeros(env.utilities.shape)
    if settlement.own:
        spread = np.broadcast_to(np.nan if noise is None else np.square(noise), spread.shape)
    step = max(1, 4_000_000 // (plan.root.shape[1] * means.shape[1] * n))
    for t, here in enumerate(visit(plan, start, by_origin=True)):
        for low in range(0, len(here.pair), step):
            part = slice(low, low + step)
            at = situation(policy, means, t, here.pair[part], here.node[part], here.control[part])
            belief = at.belief * here.weight[part, None]
            worth = np.broadcast_to(settlement.payoff(at), (len(belief), n, *at.stop.shape[1:]))
            charge = np.broadcast_to(settlement.charge(at), (len(belief), n))
            joint = (at.stop * belief[:, None])[:, None]
            mine = (at.product[:, None, :] == np.arange(n)[:, None])[..., None]
            paid = mine * at.theta[:, :, None, None] - worth
            variance = spread[np.maximum(at.product, 0)][:, None]
            mass = belief.sum(axis=1)[:, None]
            fixed = charge * (mass - joint.sum(axis=(2, 3)))
            amounts = (
                (worth * joint).sum(axis=(2, 3)) - charge * mass,
                ((paid + charge[:, :, None, None]) * joint).sum(axis=(2, 3)) + fixed,
                ((paid**2 + variance) * joint).sum(axis=(2, 3)),
                charge * mass,
            )
            origin = np.searchsorted(start, here.origin[part])
            for total, amount in zip(sums, amounts, strict=True):
                np.add.at(total, origin, amount)
    mass = plan.root.sum(axis=1)[plan.pair_root[start]][:, None]
    sums = np.where(mass > 0, sums / np.where(mass > 0, mass, 1), np.nan)[:, place]
    charged = np.nan if np.nanmax(np.abs(sums[3]), initial=0) > 0 else 0.0
    return sums[0], sums[2] - sums[1] ** 2 + charged
