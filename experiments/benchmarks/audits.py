"""Auditing: exhaustive incentive audits, mechaudit beside ours on the same mechanism."""

import importlib.util
from typing import Any

import numpy as np

import dynmech as dm
from experiments.benchmarks.peers import audit_with_mechaudit
from experiments.benchmarks.rows import row, timed


def audit_market(values: int) -> dm.DynamicTeamMechanism:
    """One round, four advertisers, `values` values each: every profile solved."""
    rng = np.random.default_rng(0)
    env = dm.RecommendationMDP(
        gamma=rng.normal(size=(4, 3)),
        tastes=dm.TasteGrid(rng.normal(size=(16, 3)), np.full(16, 1 / 16)),
        horizon=1,
        action_rule=dm.LastShownOnly(dm.Logit(0.5), query=0.2),
        signals=dm.SignalStructure(),
        values=dm.ConstantValues(np.sort(rng.uniform(0, 1, (4, values)), axis=1)),
    )
    return dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))


def rows(values: tuple[int, ...]) -> list[dict[str, Any]]:
    """Time audits: every type's every misreport at every profile.

    Seconds, and the ratio, are of an audit of a policy audited before, as under another settlement.
    """
    found = []
    for size in values:
        mechanism = audit_market(size)
        mechanism.audit()
        seconds, audit = timed(mechanism.audit, repeat=3)
        others = [audit_market(size).audit for _ in range(3)]  # of which nothing is kept
        first = min(timed(audit)[0] for audit in others)
        if audit.incentive_gain.max() > audit.tolerance:
            raise SystemExit("the audit of an efficient mechanism found a gain")
        rate, beside, ratio = audit.deviations / seconds, "mechaudit is not installed", ""
        if importlib.util.find_spec("mechaudit"):
            other, compared, gain = audit_with_mechaudit(mechanism)
            if gain > 1e-9 or compared != audit.deviations:
                raise SystemExit(f"mechaudit compared {compared} misreports, gain {gain}")
            beside, ratio = f"mechaudit: {compared / other:,.0f}/s", rate / (compared / other)
        found.append(
            row(
                f"audit, one round, 4 advertisers x {size} values",
                seconds,
                f"{audit.deviations:,} misreports, a policy's first in {1e3 * first:.2g} ms",
                f"{rate:,.0f} misreports/s",
                beside,
                ratio,
            )
        )
    return found
