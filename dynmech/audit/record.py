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
from dynmech.audit import cards
from dynmech.audit.bounds import GapBound
from dynmech.audit.gains import MeasuredGains
from dynmech.audit.witness import Witness
from dynmech.bounded import Bounded
from dynmech.errors import OutsideSupport, closest, describe, import_extra
from dynmech.errors import shown as told

_WORDS = {"proved": "HOLD", "refuted": "FAIL", "unresolved": "UNRESOLVED"}
_TABLES = (
    "incentive_gain", "participation", "no_subsidy", "payments", "revenue", "user_surplus", "value",
    "best", "ex_ante_participation", "ex_ante_no_subsidy", "incentive_bound", "profile_bound",
    "gain_by_period", "window.floor", "window.ceiling", "incentive_gain_lower",
    "incentive_gain_upper", "groves_total",
)  # fmt: skip


class Window(eqx.Module):
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


class Budget(eqx.Module):
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


class NodeBound(eqx.Module):
    """Most that any report can gain from a node inside a conversation on, money.

    `shown`: the recommendations that led there; `value`: of the policy, with bounds between which
    W lies too; `bound`: with the confidence of each node by itself.
    """

    profile: int = eqx.field(static=True)
    period: int = eqx.field(static=True)
    shown: tuple[int | tuple[int, ...], ...] = eqx.field(static=True)
    value: Bounded
    bound: float = eqx.field(static=True)


class Audit(files.Kept, eqx.Module):
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
      report, 0 where none was. `reported`: values on the "support", or of an "interval".
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
    def incentive_gain(self) -> Float[np.ndarray, " n"]:
        """Largest gain of a misreport found, (n,), money, never below 0."""
        return self.gain.value

    @property
    def incentive_gain_lower(self) -> Float[np.ndarray, " n"]:
        """Bound on the largest gain from below, (n,)."""
        return self.gain.lower

    @property
    def incentive_gain_upper(self) -> Float[np.ndarray, " n"]:
        """Bound on the largest gain from above, (n,); at most `incentive_bound`."""
        return self.gain.upper

    @property
    def participation(self) -> Float[np.ndarray, "n ..."]:
        """Slack of participation, (n, *P), money."""
        return self.slack_participation.value

    @property
    def no_subsidy(self) -> Float[np.ndarray, "n ..."]:
        """Slack of no subsidy, (n, *P), money."""
        return self.slack_no_subsidy.value

    @property
    def ex_ante_participation(self) -> Float[np.ndarray, " n"]:
        """Slack of participation on average over profiles, (n,), money."""
        return self.mean_participation.value

    @property
    def ex_ante_no_subsidy(self) -> Float[np.ndarray, " n"]:
        """Slack of no subsidy on average over profiles, (n,), money."""
        return self.mean_no_subsidy.value

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
        sure = "" if self.confidence == 1 else f" at {100 * self.confidence:g}%"
        none = self.tolerance
        certified = np.isfinite(self.incentive_bound).all()
        proved = certified and bool((self.incentive_bound <= none).all())
        proved = bool(proved or (self.gain.upper <= none).all())
        lies = bool((self.gain.lower > none).any())
        found = {"incentives": _say(proved, lies, bool(self.contradictions), sure)}
        for name, slack in (
            ("participation", self.slack_participation),
            ("no_subsidy", self.slack_no_subsidy),
        ):
            low, high = slack.lower, slack.upper
            crossed = bool((low > high + none).any())
            found[name] = _say(_all(low >= -none, low), bool((high < -none).any()), crossed, sure)
        money = self.budget.revenue
        width = _SIGMAS * self.budget.revenue_error
        found["budget"] = _say(
            _all(money - width >= -none, money), bool((money + width < -none).any()), False, sure
        )
        floor, ceiling = self.window.floor, self.window.ceiling
        room, closed = _all(floor <= ceiling + none, floor), (floor > ceiling + none).any()
        known = bool(np.isfinite(floor).any())
        found["window"] = _say(known and room, bool(closed) and self.runs == 0, False, sure)
        return found

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
                "confidence": self.confidence,
                "incentive_gain": self.incentive_gain,
                "incentive_gain_lower": self.incentive_gain_lower,
                "incentive_gain_upper": self.incentive_gain_upper,
                "incentive_bound": self.incentive_bound,
                "worst_participation": worst(self.participation),
                "worst_participation_lower": worst(self.slack_participation.lower),
                "worst_no_subsidy": worst(self.no_subsidy),
                "worst_no_subsidy_lower": worst(self.slack_no_subsidy.lower),
                "ex_ante_participation": self.ex_ante_participation,
                "ex_ante_no_subsidy": self.ex_ante_no_subsidy,
                "window_open_share": share(self.window, n),
                "mean_payment": np.nanmean(self.budget.payments.reshape(n, -1), axis=1),
                "witness": [w.sentence() for w in self.witness],
            }
        )

    def summary(self) -> str:
        """A one-screen verdict."""
        found, worst = self.verdicts, int(np.argmax(self.incentive_gain))
        gain, none = self.incentive_gain[worst], self.tolerance
        head = f"Settlement {self.settlement}, Groves term {self.groves}, {self.reports} reports, "
        head += f"values on the {self.reported}, {self.histories} histories: {self.deviations} "
        head += "misreports compared with truth"
        if self.runs:
            head += f" at the outset, {self.runs} conversations each; every line at "
            head += f"{100 * self.confidence:g}%"
        lines = [f"{head}, tolerance {none:.1e}"]
        upper = self.incentive_gain_upper.max()
        more = f", at most {upper:.3g}" if self.runs and np.isfinite(upper) else ""
        lines.append(
            f"  incentives     {_word(found['incentives'])}: largest gain {gain:.3g}{more}"
        )
        for i, low, most in self.contradictions:
            lines.append(
                f"    unresolved: {self.names[i]} measurably gains at least {low:.4g}, and "
                f"certainly at most {most:.4g}; run more conversations"
            )
        if gain > none:
            lines.append(f"    {self.witness[worst].sentence()}")
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
        for name, slack, expected in (
            ("participation", self.slack_participation, self.ex_ante_participation),
            ("no_subsidy", self.slack_no_subsidy, self.ex_ante_no_subsidy),
        ):
            at = np.unravel_index(int(np.nanargmin(slack.value)), slack.value.shape)
            between = f", between {slack.lower[at]:.4g} and {slack.upper[at]:.4g}"
            lines.append(
                f"  {name.replace('_', ' '):<14} {_word(found[name], 'S')}: worst slack "
                f"{slack.value[at]:.4g}{between if self.runs else ''} over "
                f"{np.isfinite(slack.value[0]).sum()} profiles; on average, worst advertiser "
                f"{np.min(expected):.4g}"
            )
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


def _all(holds: np.ndarray, table: np.ndarray) -> bool:
    """Whether it holds wherever the table says something."""
    return bool(holds[~np.isnan(table)].all())


def _say(proved: bool, refuted: bool, crossed: bool, sure: str) -> str:
    if crossed or (proved and refuted):
        return "unresolved"
    if refuted:
        return f"refuted{sure}"
    return f"proved{sure}" if proved else "unresolved"


def _word(verdict: str, plural: str = "") -> str:
    word, *sure = verdict.split(" ", 1)
    end = plural if word != "unresolved" else ""
    return " ".join([_WORDS[word] + end, *sure])


def _error(errors: np.ndarray) -> str:
    """Standard error of the mean over profiles, which share their noise: an upper bound."""
    most = float(np.nanmean(errors))
    return f" (s.e. {most:.2g})" if most > 0 else ""
