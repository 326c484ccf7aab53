"""One table of ways to settle the same market: what each costs and what it invites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import numpy as np

from dynmech._checks import instance, several
from dynmech._html import as_html, portrait
from dynmech._types import Record
from dynmech.audit import Audit
from dynmech.errors import import_extra
from dynmech.mechanism import cards
from dynmech.payments import settlement

if TYPE_CHECKING:
    from dynmech.mechanism.team import DynamicTeamMechanism

STANDARD = (
    settlement.Estimator(),
    settlement.MessageDriven(),
    settlement.PerPurchaseSecondPrice(),
    settlement.GeneralizedSecondPrice(),
    settlement.NoTransfers(),
)


class Comparison(Record):
    """Audits of several settlements of one mechanism, `audits`, and the surplus under truth.

    All figures are under truth: where a gain is positive, truth is no equilibrium and the row
    says what the settlement would bring if everyone were honest nevertheless.
    """

    audits: tuple[Audit, ...]
    surplus: float = eqx.field(static=True)

    def __repr__(self) -> str:
        return portrait(self, cards.comparison)

    def _repr_html_(self) -> str:
        return portrait(self, cards.comparison, as_html)

    def to_frame(self):
        """Labelled pandas table: one row a settlement; money, means over profiles."""
        pandas = import_extra("pandas", "experiments", "Comparison.to_frame")
        rows = []
        for audit in self.audits:
            worst = int(np.argmax(audit.incentive_gain))
            budget = audit.budget
            rows.append(
                {
                    "settlement": audit.settlement,
                    "groves": audit.groves,
                    "surplus_under_truth": self.surplus,
                    "largest_gain": audit.incentive_gain[worst],
                    "worst_participation": np.nanmin(audit.participation),
                    "worst_no_subsidy": np.nanmin(audit.no_subsidy),
                    "revenue": np.nanmean(budget.revenue),
                    "user_surplus": np.nanmean(budget.user_surplus),
                    "payment_sd": np.sqrt(np.nanmean(budget.payment_variance))
                    if np.isfinite(budget.payment_variance).any()
                    else np.nan,
                    "witness": audit.witness[worst].sentence(),
                }
            )
        return pandas.DataFrame(rows)


def compare(
    mechanism: DynamicTeamMechanism,
    settlements: Sequence[settlement.AbstractSettlement] = STANDARD,
) -> Comparison:
    """Audit a mechanism under several settlements: what data-driven settlement buys.

    The Groves term applies to team settlements (by the estimator, by messages); prices per
    purchase and no transfers stand alone, with a Groves term of zero.

    **Arguments:** `mechanism`; `settlements`: the standard five by default.

    **Returns:** `Comparison`.
    """
    from dynmech.mechanism.team import DynamicTeamMechanism
    from dynmech.payments.groves import Zero

    instance(DynamicTeamMechanism, "a DynamicTeamMechanism")("compare(mechanism=...)", mechanism)
    ways = several(settlement.AbstractSettlement, "settlements, as settlement.Estimator()")
    settlements = ways("compare(settlements=...)", settlements)
    policy = mechanism.policy
    plain = DynamicTeamMechanism(policy, Zero(), mechanism.estimator, mechanism.reports)
    audits = tuple((mechanism if way.team else plain).audit(way) for way in settlements)
    return Comparison(audits, float(np.nanmean(policy.value)))
