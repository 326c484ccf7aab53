"""The audit's record: worst cases with witnesses, bounds and verdicts, never a bare yes or no.

One record, whichever engine filled it: exact on the tree of a policy, or by simulation with
certified bounds where no tree was walked. Exact numbers have bounds that equal them.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from dynmech import files
from dynmech._html import as_html, portrait
from dynmech._types import Record
from dynmech.audit import cards
from dynmech.audit.bounds import GapBound
from dynmech.audit.constraints import AbstractAudit, holds, say
from dynmech.audit.gains import MeasuredGains
from dynmech.audit.witness import Witness
from dynmech.bounded import Bounded
from dynmech.errors import OutsideSupport, closest, describe, import_extra
from dynmech.errors import shown as told

_TABLES = (
    "incentive_gain", "participation", "no_subsidy", "payments", "revenue", "user_surplus", "value",
    "best", "ex_ante_participation", "ex_ante_no_subsidy", "incentive_bound", "profile_bound",
    "gain_by_period", "window.floor", "window.ceiling", "incentive_gain_lower",
    "incentive_gain_upper", "groves_total",
)  # fmt: skip


_COLUMNS = (
    "advertiser", "settlement", "groves", "confidence", "incentive_gain", "incentive_gain_lower",
    "incentive_gain_upper", "incentive_bound", "worst_participation",
    "worst_participation_lower", "worst_no_subsidy", "worst_no_subsidy_lower",
    "ex_ante_participation", "ex_ante_no_subsidy", "window_open_share", "mean_payment", "witness",
)  # fmt: skip


class Window(Record):
    """The sharp window of totals fixed given the others' initial reports, (n, *P), money.

    No subsidy for every own type iff total_i >= `floor`; participation iff total_i <= `ceiling`.
    Where numbers are not exact `floor` is a bound from above and `ceiling` from below: a total
    between them does both; NaN where own alternatives were not solved.
    """

    floor: Float[np.ndarray, "n ..."]
    ceiling: Float[np.ndarray, "n ..."]

    @property
    def open(self) -> Bool[np.ndarray, "n ..."]:
        """Whether one total does both."""
        return self.floor <= self.ceiling


class Budget(Record):
    """Expected money: `payments` (n, *P), platform `revenue` P, `user_surplus` P.

    `..._error`: standard errors, 0 where exact. `payment_variance` (n, *P): of one conversation's
    transfers given the profile, money squared; NaN where it is not known.
    """

    payments: Float[np.ndarray, "n ..."]
    revenue: Float[np.ndarray, "..."]
    user_surplus: Float[np.ndarray, "..."]
    payment_variance: Float[np.ndarray, "n ..."]
    payments_error: Float[np.ndarray, "n ..."]
    revenue_error: Float[np.ndarray, "..."]
    user_surplus_error: Float[np.ndarray, "..."]


class NodeBound(Record):
    """Most that any report can gain from a node inside a conversation on, money.

    `shown`: the recommendations that led there; `value`: of the policy, with bounds between which
    W lies too; `bound`: with the confidence of each node by itself.
    """

    profile: int = eqx.field(static=True)
    period: int = eqx.field(static=True)
    shown: tuple[int | tuple[int, ...], ...] = eqx.field(static=True)
    value: Bounded
    bound: float = eqx.field(static=True)


class Audit(files.Kept, AbstractAudit):
    """Incentives, participation, no subsidy, budget and window of a mechanism, money.

    - `gain` (n,): largest gain, conditional on the node, of a misreport that was compared with
      truth, never below 0: `incentive_gain`, `incentive_gain_lower`, `incentive_gain_upper`.
      Exact where the policy's tree was walked: a single-period misreport at any on-path node with
      a truthful past; else of misreports at the outset, measured, and bounded from above for every
      strategy where a bound is certified. `witness[i]` says where. `gain_by_period` (n, T): of
      each period, NaN where it was not searched. `deviations`: misreports compared with truth.
    - `incentive_bound` (n,): the most that any report gains at the outset or a node walked, and
      `profile_bound` (n, *P) of it, at the outset; NaN for a settlement other than the estimator.
      `gap`: how it arose at the nodes of a tree, else None. `inside`: at simulated nodes. `bias`:
      largest of the estimate.
    - `slack_participation`, `slack_no_subsidy` (n, *P): of each constraint, from expected
      payments; values as `participation`, `no_subsidy`. `mean_participation`, `mean_no_subsidy`
      (n,): means over profiles by probability (evenly over a batch of some); values as
      `ex_ante_participation`, `ex_ante_no_subsidy`.
    - `value` P: V, what the policy attains in the market of the audit; `best` P: W, the most that
      any policy attains there. `window`, `budget`, `groves_total` (n, *P). `measured`: each
      misreport that was simulated.
    - `confidence`: of every line jointly, 1 where exact. `runs`: conversations simulated of each
      report, 0 where none was. `reported`: values on the "support", of an "interval", or, where
      play is simulated, of its ends: `gain.lower` is then a bound from below on what any report
      of the interval gains, and `incentive_bound` one from above.
    - `tolerance`: money; gains and shortfalls below it are rounding.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    settlement: str = eqx.field(static=True)
    groves: str = eqx.field(static=True)
    reports: str = eqx.field(static=True)
    histories: str = eqx.field(static=True)
    reported: str = eqx.field(static=True)
    confidence: float = eqx.field(static=True)
    runs: int = eqx.field(static=True)
    gain: Bounded
    gain_by_period: Float[np.ndarray, "n T"]
    witness: tuple[Witness, ...]
    deviations: int = eqx.field(static=True)
    incentive_bound: Float[np.ndarray, " n"]
    profile_bound: Float[np.ndarray, "n ..."]
    gap: GapBound | None
    inside: tuple[NodeBound, ...]
    bias: float = eqx.field(static=True)
    measured: MeasuredGains | None
    slack_participation: Bounded
    slack_no_subsidy: Bounded
    mean_participation: Bounded
    mean_no_subsidy: Bounded
    groves_total: Float[np.ndarray, "n ..."]
    value: Bounded
    best: Bounded
    window: Window
    budget: Budget
    tolerance: float = eqx.field(static=True)

    def __repr__(self) -> str:
        return portrait(self, cards.audit)

    def _repr_html_(self) -> str:
        return portrait(self, cards.audit, as_html)

    @property
    def first_gain(self) -> Float[np.ndarray, " n"]:
        """Largest gain of a misreport in period 1, shape (n,), money."""
        return self.gain_by_period[:, 0]

    def bounded(self, name: str) -> Bounded:
        """A table with bounds, standard errors and confidence.

        **Arguments:** `name`: of a table of the audit, "value" and "best" (V and W), of its budget
        "payments", "revenue" or "user_surplus" (standard errors alone), "window.floor" or
        "window.ceiling". Of one that is itself a bound `value` is that bound, and `lower` and
        `upper` hold what it bounds.

        **Raises:** `OutsideSupport` for another name.
        """
        if name not in _TABLES:
            must = f"be one of {', '.join(_TABLES)}"
            do, call = closest(str(name), _TABLES), "Audit.bounded(name=...)"
            raise OutsideSupport(describe(call, must, told(name), do))
        money, gain, simulated = self.budget, self.gain, self.runs > 0

        def sure(value: Any, low: Any = None, high: Any = None, error: Any = 0.0) -> Bounded:
            return Bounded(value, low, high, error, self.confidence)

        most = np.where(np.isnan(self.incentive_bound), np.inf, self.incentive_bound)
        period, known = self.gain_by_period, ~np.isnan(self.gain_by_period)
        floor, ceiling = self.window.floor, self.window.ceiling
        tables = (
            gain,
            self.slack_participation,
            self.slack_no_subsidy,
            sure(money.payments, error=money.payments_error),
            sure(money.revenue, error=money.revenue_error),
            sure(money.user_surplus, error=money.user_surplus_error),
            self.value,
            self.best,
            self.mean_participation,
            self.mean_no_subsidy,
            sure(self.incentive_bound, np.fmin(gain.lower, most), most),
            sure(self.profile_bound, np.fmin(0.0, self.profile_bound)),
            # Only the outset was simulated, where a gain is the largest of all.
            sure(period, gain.lower[:, None] * known, np.where(known, gain.upper[:, None], np.inf))
            if simulated
            else sure(period),
            sure(floor, floor - np.inf if simulated else None),
            sure(ceiling, None, ceiling + np.inf if simulated else None),
            sure(gain.lower, gain.lower, gain.upper),
            sure(gain.upper, gain.lower, gain.upper),
            sure(self.groves_total),
        )
        return tables[_TABLES.index(name)]

    @property
    def contradictions(self) -> list[tuple[int, float, float]]:
        """Advertiser, measured gain at least, certified gain at most: where these cross.

        Each holds with the audit's confidence, so that one of the two is an error of chance, or
        the market is not what the settlement needs: the audit decides nothing then.
        """
        most = np.where(np.isfinite(self.incentive_bound), self.incentive_bound, np.inf)
        return [
            (int(i), float(self.gain.lower[i]), float(most[i]))
            for i in np.flatnonzero(self.gain.lower > most + self.tolerance)
        ]

    @property
    def verdicts(self) -> dict[str, str]:
        """ "proved", "refuted" (each also "... at 95%") or "unresolved", for each question.

        Keys: "incentives", "participation", "no_subsidy", "budget" (the platform's expected
        revenue is not negative), "window" (one total can do both).
        """
        none = self.tolerance
        certified = np.isfinite(self.incentive_bound).all()
        proved = certified and bool((self.incentive_bound <= none).all())
        proved = bool(proved or (self.gain.upper <= none).all())
        lies = bool((self.gain.lower > none).any())
        found = {"incentives": say(proved, lies, bool(self.contradictions), self.sure)}
        found |= self.constraints()
        money = self.budget.revenue
        width = _SIGMAS * self.budget.revenue_error
        kept, lost = holds(money - width >= -none, money), bool((money + width < -none).any())
        found["budget"] = say(kept, lost, False, self.sure)
        floor, ceiling = self.window.floor, self.window.ceiling
        room, closed = holds(floor <= ceiling + none, floor), (floor > ceiling + none).any()
        known = bool(np.isfinite(floor).any())
        found["window"] = say(known and room, bool(closed) and self.runs == 0, False, self.sure)
        return found

    def to_frame(self):
        """Labelled pandas table: one row an advertiser; money, worst over profiles."""
        pandas = import_extra("pandas", "experiments", "Audit.to_frame")
        money, slack = self.budget.payments.reshape(len(self.names), -1), dict(self.slacks())
        columns = self.columns(
            settlement=self.settlement,
            groves=self.groves,
            confidence=self.confidence,
            incentive_gain_lower=self.incentive_gain_lower,
            incentive_gain_upper=self.incentive_gain_upper,
            incentive_bound=self.incentive_bound,
            **{f"worst_{k}_lower": self.worst(x.lower) for k, x in slack.items()},
            window_open_share=share(self.window, len(self.names)),
            mean_payment=np.nanmean(money, axis=1),
        )
        return pandas.DataFrame({name: columns[name] for name in _COLUMNS})

    def summary(self) -> str:
        """A one-screen verdict."""
        found, none = self.verdicts, self.tolerance
        head = f"Settlement {self.settlement}, Groves term {self.groves}, {self.reports} reports, "
        head += f"values on the {self.reported}, {self.histories} histories: {self.deviations} "
        head += "misreports compared with truth"
        if self.runs:
            head += f" at the outset, {self.runs} conversations each; every line at "
            head += f"{100 * self.confidence:g}%"
        lines = [f"{head}, tolerance {none:.1e}"]
        upper = self.incentive_gain_upper.max()
        more = f", at most {upper:.3g}" if self.runs and np.isfinite(upper) else ""
        first, *where = self.incentives(found["incentives"], more)
        lines.append(first)
        for i, low, most in self.contradictions:
            lines.append(
                f"    unresolved: {self.names[i]} measurably gains at least {low:.4g}, and "
                f"certainly at most {most:.4g}; run more conversations"
            )
        lines += where
        if np.isfinite(self.incentive_bound).all() and self.incentive_bound.max() > none:
            where = "planned at the outset" if self.runs else "at any on-path node"
            lines.append(
                f"    certified: no report {where} gains more than {self.incentive_bound.max():.3g}"
            )
        if self.inside:
            most = max(node.bound for node in self.inside)
            lines.append(
                f"    certified: nor, from {len(self.inside)} nodes inside, more than {most:.4g} "
                f"(each node by itself)"
            )
        lines += self.constraint_lines(self.runs > 0)
        part = share(self.window, len(self.names)).mean()
        lines.append(f"  window         open for {100 * part:.0f}% of advertisers and profiles")
        money = self.budget
        lines.append(
            f"  budget         mean revenue {np.nanmean(money.revenue):.4g}"
            f"{_error(money.revenue_error)}, mean user surplus "
            f"{np.nanmean(money.user_surplus):.4g}{_error(money.user_surplus_error)}"
        )
        return "\n".join(lines)


_SIGMAS = 4.0  # of the revenue, whose bound is by its standard error


def share(window: Window, n: int) -> Float[np.ndarray, " n"]:
    """Share of profiles in which each advertiser's window is open."""
    known = np.isfinite(window.floor.reshape(n, -1))
    return (window.open.reshape(n, -1) & known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _error(errors: np.ndarray) -> str:
    """Standard error of the mean over profiles, which share their noise: an upper bound."""
    most = float(np.nanmean(errors))
    return f" (s.e. {most:.2g})" if most > 0 else ""
