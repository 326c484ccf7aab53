"""The audit's verdict: worst cases with witnesses and tolerances, never a bare yes or no."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from dynmech._efficient import EfficientPolicy
from dynmech._errors import import_extra
from dynmech._groves import OwnTables
from dynmech._outcomes import expected_outcomes
from dynmech._settlement import AbstractSettlement, Estimator
from dynmech.audit._incentives import search_misreports, situation
from dynmech.audit._strategies import search_histories
from dynmech.audit._witness import Witness
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
    """Expected money: `payments` (n, *P), platform `revenue` P, `user_surplus` P."""

    payments: Float[np.ndarray, "n ..."]
    revenue: Float[np.ndarray, "..."]
    user_surplus: Float[np.ndarray, "..."]


class Audit(eqx.Module):
    """Incentives, participation, no subsidy, budget: exact on the grid, up to rounding.

    - `incentive_gain` (n,): largest gain, conditional on the node, of a single-period misreport
      at any on-path node with a truthful past, never below 0; `first_gain`: period 1 only.
      `witness[i]` says where. `deviations`: how many misreports were compared with truth.
    - `participation`, `no_subsidy` (n, *P): slack of each constraint, from actual expected
      payments; `ex_ante_participation`, `ex_ante_no_subsidy` (n,): means over profiles by their
      probability (over the batch as drawn, for a batch).
    - `window`, `budget`. `tolerance`: money; gains and shortfalls below it are rounding.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    settlement: str = eqx.field(static=True)
    groves: str = eqx.field(static=True)
    reports: str = eqx.field(static=True)
    histories: str = eqx.field(static=True)
    incentive_gain: Float[np.ndarray, " n"]
    first_gain: Float[np.ndarray, " n"]
    witness: tuple[Witness, ...]
    deviations: int = eqx.field(static=True)
    participation: Float[np.ndarray, "n ..."]
    no_subsidy: Float[np.ndarray, "n ..."]
    ex_ante_participation: Float[np.ndarray, " n"]
    ex_ante_no_subsidy: Float[np.ndarray, " n"]
    groves_total: Float[np.ndarray, "n ..."]
    window: Window
    budget: Budget
    tolerance: float = eqx.field(static=True)

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
        head += f"{self.histories} histories: {self.deviations} misreports compared with truth, "
        head += f"tolerance {self.tolerance:.1e}"
        verdict, gain = "HOLD" if ok else "FAIL", self.incentive_gain[worst]
        lines = [head, f"  incentives     {verdict}: largest gain {gain:.3g}"]
        if not ok:
            lines.append(f"    {self.witness[worst].sentence()}")
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
    policy: EfficientPolicy,
    own: OwnTables,
    total: Float[np.ndarray, "n ..."],
    settlement: AbstractSettlement,
    means: Float[np.ndarray, "E n m"],
    groves: str = "",
    reports: str = "incremental",
    histories: str = "on-path",
) -> Audit:
    """Run every check. `total` (n, *P): Groves totals; `means`: of the estimate at each edge."""
    env, n = policy.env, policy.env.products
    shape = policy.advertiser_value.shape
    if (reports, histories) == ("incremental", "on-path"):
        found = search_misreports(policy, settlement, means)
    else:
        truthful = histories == "on-path"
        found = search_histories(policy, settlement, means, reports, truthful)
    if isinstance(settlement, Estimator):
        outcomes = expected_outcomes(
            policy.plan, env.values.support, policy.pairs, policy.pairs.base, means
        )
        payoff = np.repeat((outcomes.earned + outcomes.estimated).sum(axis=1)[:, None], n, axis=1)
    else:
        payoff = _settled_payoff(policy, settlement, means)
    payoff = payoff.T.reshape(shape)
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
        incentive_gain=found.gain,
        first_gain=found.first,
        witness=found.witness,
        deviations=found.deviations,
        participation=participation,
        no_subsidy=no_subsidy,
        ex_ante_participation=mean(participation),
        ex_ante_no_subsidy=mean(no_subsidy),
        groves_total=total,
        window=Window(reduce(np.fmax, own.contribution), reduce(np.fmin, own.payoff)),
        budget=Budget(payments, payments.sum(axis=0), policy.user_utility.sum(axis=0)),
        tolerance=_TOLERANCE * env.money_scale,
    )


def _settled_payoff(policy, settlement, means) -> Float[np.ndarray, "B n"]:
    """Expected payoff of each advertiser under truth with any settlement, no Groves term."""
    plan, n = policy.plan, policy.env.products
    start, place = np.unique(policy.pairs.base, return_inverse=True)
    total = np.zeros((len(start), n))
    step = max(1, 4_000_000 // (plan.root.shape[1] * means.shape[1]))
    for t, here in enumerate(visit(plan, start, by_origin=True)):
        for low in range(0, len(here.pair), step):
            part = slice(low, low + step)
            at = situation(policy, means, t, here.pair[part], here.node[part], here.control[part])
            worth = np.broadcast_to(settlement.payoff(at), (len(at.belief), n, *at.stop.shape[1:]))
            gained = np.einsum("kcjm,kjm,km->kc", worth, at.stop, at.belief)
            origin = np.searchsorted(start, here.origin[part])
            np.add.at(total, origin, gained * here.weight[part, None])
    mass = plan.root.sum(axis=1)[plan.pair_root[start]][:, None]
    return np.where(mass > 0, total / np.where(mass > 0, mass, 1), np.nan)[place]
