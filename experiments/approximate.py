"""Approximate policies: what misreports can gain when recommendations are not efficient.

At a node with a truthful past no strategy gains more than W - V of the policy in use there, plus
twice the estimate's bias (model page, section 5). Random markets' efficient policies are spoiled
at random nodes of one period; the measured gain is compared with the bound node by node, with the
gap at the root, which alone would be wrong inside, and with that gap divided by the node's
probability, which is right but loose.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, GREEN, GREY, RED, RESULTS, new_figure, tidy
from experiments._output import Output

GAIN = "measured gain [% of scale]"
BOUND = "node bound [% of scale]"
ROOT = "root gap [% of scale]"
DIVIDED = "root gap / node probability [% of scale]"


@dataclass(frozen=True)
class Options:
    """Sizes and seeds; the defaults take well under a minute."""

    markets: int = 10
    """Random markets: two products, two symbols."""
    rounds: int = 3
    """Rounds."""
    shares: tuple[float, ...] = (0.02, 0.1, 0.4)
    """Share of the spoiled period's recommendations that are replaced by random ones."""
    seed: int = 0
    """First seed, of markets and of what is spoiled."""
    results: Path = RESULTS
    """Folder; files go to `approximate` inside."""


def spoil(policy: Any, period: int, share: float, seed: int) -> Any:
    """Replace a share of the recommendations of one period (from 0) by random ones."""
    rng = np.random.default_rng([seed, period])
    actions = [taken.copy() for taken in policy.plan.actions]
    hit = rng.random(actions[period].shape) < share
    actions[period][hit] = rng.integers(0, policy.env.products + 1, hit.sum())
    return policy.with_actions(actions)


def measure(options: Options) -> pd.DataFrame:
    """Gains and bounds of every spoiled policy, one row each."""
    rows = []
    for s in range(options.seed, options.seed + options.markets):
        env = markets.random_market(s, rounds=options.rounds, constant=bool(s % 2))
        policy = dm.solve_efficient_policy(env, progress=False)
        scale = env.money_scale / 100
        for period in range(options.rounds):
            for share in options.shares:
                spoiled = spoil(policy, period, share, s)
                mechanism = dm.DynamicTeamMechanism(spoiled, dm.groves.Participation())
                audit, best = mechanism.audit(), mechanism.best_response()
                gap: Any = audit.gap
                rows.append(
                    {
                        "seed": s,
                        "spoiled period": period + 1,
                        "share spoiled [%]": 100 * share,
                        "surplus lost [% of E W]": 100
                        * (1 - spoiled.ex_ante_value / policy.ex_ante_value),
                        GAIN: audit.incentive_gain.max() / scale,
                        BOUND: gap.bound / scale,
                        ROOT: gap.root_gap / scale,
                        DIVIDED: gap.root_bound / scale,
                        "gain at the outset [% of scale]": float(np.nanmax(best.gain)) / scale,
                        "participation, worst [% of scale]": np.nanmin(audit.participation) / scale,
                    }
                )
    return pd.DataFrame(rows)


def exceeds(table: pd.DataFrame, column: str, what: str = GAIN) -> int:
    """How many policies have a measured gain above this column."""
    gain, bound = (table[name].to_numpy(float) for name in (what, column))
    return int((gain > bound + 1e-7).sum())


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Medians by period and share, and how often each bound would have been wrong."""
    rows = []
    keys = table[["spoiled period", "share spoiled [%]"]].drop_duplicates().to_numpy(float)
    for period, share in keys:
        here = (table["spoiled period"] == period) & (table["share spoiled [%]"] == share)
        group = pd.DataFrame(table[here])
        medians = ("surplus lost [% of E W]", GAIN, BOUND, ROOT, DIVIDED)
        rows.append(
            {
                "spoiled period": int(period),
                "share [%]": share,
                "policies": len(group),
                **{column: np.median(group[column].to_numpy(float)) for column in medians},
                "gain > node bound": exceeds(group, BOUND),
                "gain > root gap": exceeds(group, ROOT),
            }
        )
    return pd.DataFrame(rows)


def picture(table: pd.DataFrame, out: Output) -> None:
    """Each bound against the gain measured, on log scales; below the line a bound is wrong."""
    figure, axes = new_figure(9.5, 3.8, ncols=3, sharex=True, sharey=True)
    shown = pd.DataFrame(table[table[GAIN] > 1e-4])
    ends = [1e-4, 1e3]
    for ax, column, colour in zip(axes, (BOUND, ROOT, DIVIDED), (BLUE, RED, GREEN), strict=True):
        ax.plot(ends, ends, color=GREY, linewidth=0.8)
        ax.plot(shown[GAIN], shown[column], "o", color=colour, markersize=4, alpha=0.7)
        ax.set(xscale="log", yscale="log")
        up = "bound [% of largest |theta + u|]" if ax is axes[0] else ""
        tidy(ax, column.split(" [")[0].capitalize(), "measured gain [%]", up)
        ax.set_xlim(*_around(shown[GAIN].to_numpy(float)))
    figure.suptitle("Spoiled policies: below the line, a bound would be wrong", fontsize=11)
    out.picture("bounds", figure)


def _around(values: np.ndarray) -> tuple[float, float]:
    return (values.min() / 2, values.max() * 2) if len(values) else (0.1, 10.0)


def main(options: Options) -> None:
    """Measure, tabulate, draw, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "approximate", "% of largest |theta + u|")
        table = measure(options)
        out.heading("Gains under policies that are not efficient, and bounds")
        out.bullets(
            [
                (
                    f"{options.markets} random markets from seed {options.seed}, two products, "
                    f"{options.rounds} rounds, unbiased ratings; odd seeds have constant values."
                ),
                "Gains: one misreport, truthful own past, conditional on the node; medians.",
                "The root gap bounds plans made at the outset only.",
            ]
        )
        out.table("bounds", summary(table), "Medians over markets, % of largest |theta + u|")
        out.table("policies", table, "Every spoiled policy", show=False)
        start = exceeds(table, ROOT, "gain at the outset [% of scale]")
        out.say(
            f"Of {len(table)} spoiled policies the measured gain exceeds the node bound in "
            f"{exceeds(table, BOUND)}, the root gap alone in {exceeds(table, ROOT)}; strategies "
            f"from the outset exceed the root gap in {start}."
        )
        picture(table, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
