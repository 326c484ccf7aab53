"""One row of a table: a policy priced by the pivot without subsidy, means over its profiles."""

from typing import Any

import dynmech as dm

ADVERTISERS, USER = "advertisers' values [money]", "user surplus [money]"
REVENUE, SOLD = "revenue [money]", "conversations that sell [%]"
GAIN, MESSAGE = "largest gain [money]", "largest gain, message-driven [money]"
WORST = "worst participation [money]"


def row_of_means(policy: Any) -> tuple[dict[str, float], dm.DynamicTeamMechanism, dm.Audit]:
    """Surplus, sales and revenue, and what misreports gain at most, settled on ratings or reports.

    **Returns:** the row, and the mechanism and its audit that it is of.
    """
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy(displayable=True))
    audit = mechanism.audit()
    told = mechanism.audit(dm.settlement.MessageDriven())
    row = {
        ADVERTISERS: policy.advertiser_value.sum(axis=0).mean(),
        USER: audit.budget.user_surplus.mean(),
        SOLD: 100 * policy.purchase.sum(axis=0).mean(),
        REVENUE: audit.budget.revenue.mean(),
        GAIN: audit.incentive_gain.max(),
        MESSAGE: told.incentive_gain.max(),
        WORST: audit.participation.min(),
    }
    return row, mechanism, audit
