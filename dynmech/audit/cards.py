"""What an audit says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynmech._html import Card, amount


def audit(it: Any) -> Card:
    """Verdicts with their numbers, and each advertiser's worst case."""
    n, said = len(it.names), it.verdicts

    def worst(table: np.ndarray) -> list[float]:
        rows = np.where(np.isfinite(table), table, np.inf).reshape(n, -1).min(axis=1)
        rows = np.where(np.abs(rows) <= it.tolerance, 0.0, rows)
        return np.where(np.isfinite(rows), rows, np.nan).tolist()

    kept, unpaid = worst(it.participation), worst(it.no_subsidy)
    revenue = it.budget.revenue[np.isfinite(it.budget.revenue)]
    lies = f"largest gain {amount(it.incentive_gain.max())}, "
    lies += f"at most {amount(it.incentive_gain_upper.max())}"
    numbers = {
        "incentives": lies,
        "participation": f"worst slack {amount(min(kept))}",
        "no_subsidy": f"worst slack {amount(min(unpaid))}",
        "budget": f"mean revenue {amount(revenue.mean() if revenue.size else np.nan)}",
        "window": f"open for {100 * it.window.open.mean():.0f}% of advertisers and profiles",
    }
    most = int(np.argmax(it.incentive_gain))
    return Card(
        f"Audit: settled by {it.settlement}, Groves term {it.groves}, {it.reports} reports",
        tuple((name.replace("_", " "), f"{said[name]}: {numbers[name]}") for name in numbers),
        ("advertiser", "gain of a lie", "participation", "no subsidy"),
        tuple(zip(it.names, it.incentive_gain.tolist(), kept, unpaid)),
        it.witness[most].sentence() if it.incentive_gain[most] > it.tolerance else "",
    )


def several(it: Any) -> Card:
    """A mechanism where each of several markets is the truth: worst cases, market by market."""
    gains = it.incentive_gain
    rows = tuple(
        (
            str(k),
            float(gains[k].max()),
            float(np.nanmin(audit.participation)),
            float(np.nanmin(audit.no_subsidy)),
        )
        for k, audit in enumerate(it)
    )
    return Card(
        f"Audits under {len(it)} markets: largest gain {amount(gains.max())}",
        columns=("market", "largest gain", "worst participation", "worst no subsidy"),
        rows=rows,
    )
