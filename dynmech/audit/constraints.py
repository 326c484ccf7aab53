"""What every audit asks, dynamic or static: incentives, participation, no subsidy."""

from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._types import Record
from dynmech.audit.witness import Witness
from dynmech.bounded import Bounded

_WORDS = {"proved": "HOLD", "refuted": "FAIL", "unresolved": "UNRESOLVED"}


class AbstractAudit(Record):
    """Gains of misreports and the slack of both constraints, with bounds, money.

    - `gain` (n,): largest gain of a misreport that was compared with truth, never below 0;
      `witness[i]` says where.
    - `slack_participation`, `slack_no_subsidy` (n, *P): of each constraint at each profile.
      `mean_participation`, `mean_no_subsidy` (n,): means over profiles.
    - `confidence`: of every line jointly, 1 where exact.
    - `tolerance`: money; gains and shortfalls below it are rounding.
    """

    who: ClassVar[str] = "advertiser"
    names: eqx.AbstractVar[tuple[str, ...]]
    gain: eqx.AbstractVar[Bounded]
    witness: eqx.AbstractVar[tuple[Witness, ...]]
    slack_participation: eqx.AbstractVar[Bounded]
    slack_no_subsidy: eqx.AbstractVar[Bounded]
    mean_participation: eqx.AbstractVar[Bounded]
    mean_no_subsidy: eqx.AbstractVar[Bounded]
    confidence: eqx.AbstractVar[float]
    tolerance: eqx.AbstractVar[float]

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
        """Bound on the largest gain from above, (n,); an `Audit`'s is at most `incentive_bound`."""
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

    def constraints(self) -> dict[str, str]:
        """Verdicts on participation and no subsidy: see `say`."""
        found, none = {}, self.tolerance
        for name, slack in self.slacks():
            low, high = slack.lower, slack.upper
            crossed = bool((low > high + none).any())
            refuted = bool((high < -none).any())
            found[name] = say(holds(low >= -none, low), refuted, crossed, self.sure)
        return found

    def slacks(self) -> tuple[tuple[str, Bounded], ...]:
        """Both constraints, by name."""
        both = self.slack_participation, self.slack_no_subsidy
        return tuple(zip(("participation", "no_subsidy"), both, strict=True))

    @property
    def sure(self) -> str:
        """What a verdict adds where it does not hold for certain."""
        return "" if self.confidence == 1 else f" at {100 * self.confidence:g}%"

    def columns(self, **extra: Any) -> dict[str, Any]:
        """Columns of a frame, one row an advertiser or agent: worst over profiles, and means."""
        return {
            self.who: list(self.names),
            **extra,
            "incentive_gain": self.incentive_gain,
            **{f"worst_{name}": self.worst(slack.value) for name, slack in self.slacks()},
            "ex_ante_participation": self.ex_ante_participation,
            "ex_ante_no_subsidy": self.ex_ante_no_subsidy,
            "witness": [w.sentence() for w in self.witness],
        }

    def worst(self, table: np.ndarray) -> Float[np.ndarray, " n"]:
        """The least entry of each advertiser or agent."""
        return np.nanmin(table.reshape(len(self.names), -1), axis=1)

    def incentives(self, verdict: str, more: str = "") -> list[str]:
        """Lines on the largest gain and where it is."""
        worst = int(np.argmax(self.incentive_gain))
        gain = self.incentive_gain[worst]
        lines = [f"  incentives     {word(verdict)}: largest gain {gain:.3g}{more}"]
        lies = gain > self.tolerance
        return [*lines, f"    {self.witness[worst].sentence()}"] if lies else lines

    def constraint_lines(self, simulated: bool = False) -> list[str]:
        """A line on each constraint: its worst profile, and its mean."""
        lines, found = [], self.constraints()
        for (name, slack), mean in zip(
            self.slacks(), (self.ex_ante_participation, self.ex_ante_no_subsidy), strict=True
        ):
            at = np.unravel_index(int(np.nanargmin(slack.value)), slack.value.shape)
            between = f", between {slack.lower[at]:.4g} and {slack.upper[at]:.4g}"
            lines.append(
                f"  {name.replace('_', ' '):<14} {word(found[name], 'S')}: worst slack "
                f"{slack.value[at]:.4g}{between if simulated else ''} over "
                f"{np.isfinite(slack.value[0]).sum()} profiles; on average, worst {self.who} "
                f"{np.min(mean):.4g}"
            )
        return lines


def holds(holds: np.ndarray, table: np.ndarray) -> bool:
    """Whether it holds wherever the table says something."""
    return bool(holds[~np.isnan(table)].all())


def say(proved: bool, refuted: bool, crossed: bool, sure: str) -> str:
    """A verdict: "proved", "refuted", each with `sure`, or "unresolved"."""
    if crossed or (proved and refuted):
        return "unresolved"
    if refuted:
        return f"refuted{sure}"
    return f"proved{sure}" if proved else "unresolved"


def word(verdict: str, plural: str = "") -> str:
    """A verdict in a line of a summary: HOLD, FAIL or UNRESOLVED."""
    said, *sure = verdict.split(" ", 1)
    end = plural if said != "unresolved" else ""
    return " ".join([_WORDS[said] + end, *sure])
