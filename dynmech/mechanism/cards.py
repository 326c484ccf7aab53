"""What mechanisms and comparisons say of themselves."""

from typing import Any

import numpy as np

from dynmech._html import Card


def mechanism(it: Any) -> Card:
    """What is charged, and what each advertiser is worth before it."""
    env, parts = it.policy.env, (it.agent_payoff, it.groves_total)
    means = [[float(np.nanmean(table[i])) for table in parts] for i in range(env.products)]
    return Card(
        f"DynamicTeamMechanism: Groves term {type(it.groves).__name__}, {it.reports} reports",
        (
            ("settled by", type(it.estimator).__name__),
            ("policy", it.policy.solver),
        ),
        ("advertiser", "payoff before", "Groves total"),
        tuple((name, *mean) for name, mean in zip(env.names, means)),
        "Means over profiles, money.",
    )


def comparison(it: Any) -> Card:
    """Settlements side by side: what a lie gains, who would stay away, what the platform gets."""
    return Card(
        f"Comparison of {len(it.audits)} settlements, surplus {it.surplus:.4g} under truth",
        columns=("settlement", "largest gain", "worst participation", "revenue"),
        rows=tuple(
            (
                audit.settlement,
                audit.incentive_gain.max(),
                np.nanmin(audit.participation),
                np.nanmean(audit.budget.revenue),
            )
            for audit in it.audits
        ),
    )
