"""Cost of an exact solve against products, tastes, symbols and rounds, with fitted exponents."""

from functools import partial
from typing import Any

import numpy as np

import dynmech as dm
from experiments._figures import BLUE, GREY, new_figure, tidy
from experiments.benchmarks.rows import timed

BASE: dict[str, Any] = {"products": 8, "tastes": 256, "symbols": 5, "rounds": 4}
VALUES = {
    "products": (4, 6, 8, 12),
    "tastes": (64, 128, 256, 512, 1024),
    "symbols": (2, 3, 5, 7),
    "rounds": (2, 3, 4, 5),
}


def market(
    products: int, tastes: int, symbols: int, rounds: int, kind: str = "float64"
) -> dm.RecommendationMDP:
    """A market with ratings, only the last product bought: beliefs merge, memories are few."""
    rng = np.random.default_rng(0)
    gamma = rng.normal(size=(products, 4)).astype(kind)
    points = rng.normal(size=(tastes, 4)).astype(kind)
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(points, np.full(tastes, 1 / tastes, kind)),
        horizon=rounds,
        action_rule=dm.LastShownOnly(dm.Logit(0.5), query=0.7),
        signals=dm.SignalStructure(feedback=dm.RatingFeedback(1.0, symbols)),
        values=dm.ConstantValues(rng.uniform(0.3, 1.5, products).astype(kind)),
    )


def curves() -> dict[str, dict[str, Any]]:
    """Least seconds of three solves after the first, one thing changed at a time."""
    found = {}
    for name, values in VALUES.items():
        seconds = []
        for value in values:
            given: dict[str, Any] = {**BASE, name: value}
            solve = partial(dm.solve_efficient_policy, market(**given), progress=False)
            solve()
            took, _ = timed(solve, repeat=3)
            seconds.append(took)
        slope, level = np.polyfit(np.log(values), np.log(seconds), 1)
        fitted = np.exp(level) * np.asarray(values, float) ** slope
        found[name] = {
            "values": list(values), "seconds": seconds, "exponent": float(slope),
            "fitted": fitted.tolist(),
        }  # fmt: skip
    return found


def picture(curves: dict[str, dict[str, Any]]):
    """One panel for each thing that was changed, both axes logarithmic."""
    figure, axes = new_figure(11.0, 3.0, ncols=len(curves), sharey=True)
    for ax, (name, curve) in zip(axes, curves.items(), strict=True):
        ax.loglog(curve["values"], curve["seconds"], marker="o", color=BLUE, label="measured")
        ax.loglog(curve["values"], curve["fitted"], color=GREY, linestyle="--", label="fitted")
        tidy(ax, f"exponent {curve['exponent']:.2f}", name, "")
        ax.set_xticks(curve["values"], labels=[str(x) for x in curve["values"]])
        ax.minorticks_off()
    axes[0].set_ylabel("seconds, exact, warm")
    axes[0].legend(frameon=False)
    return figure
