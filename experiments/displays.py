"""What showing two or three products at once is worth: welfare, payments and incentives.

Cars and electricity contracts, the user choosing (logit) among all that is on the screen and
leaving. The same market is solved with screens of one, two and three places; every smaller display
stays feasible, so that total surplus cannot fall. Message-driven settlement is there for
comparison: what misreports would gain if purchases were settled by the platform's own belief.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, GREEN, ORANGE, RED, RESULTS, new_figure, tidy
from experiments._means import ADVERTISERS, GAIN, MESSAGE, REVENUE, SOLD, USER, row_of_means
from experiments._output import Output

REAL: tuple[markets.Real, ...] = ("cars", "electricity")
TOTAL, OPEN = "surplus [money]", "window open [%]"


@dataclass(frozen=True)
class Options:
    """Sizes and seeds; the defaults take about a minute."""

    products: int = 5
    """Products of each market."""
    tastes: int = 24
    """Their taste points."""
    rounds: int = 2
    """Rounds of a conversation."""
    sizes: tuple[int, ...] = (1, 2, 3)
    """Places on the screen."""
    profiles: int = 4
    """Initial profiles, drawn from the prior; the same for every size."""
    query: float = 0.5
    """Chance of a follow-up query."""
    seed: int = 0
    """Of the profiles."""
    results: Path = RESULTS
    """Folder; files go to `displays` inside."""


def study(name: markets.Real, options: Options) -> tuple[pd.DataFrame, dm.applications.Market]:
    """One row a size: means over the same profiles under the pivot that gives no subsidy."""
    rows, market = [], None
    for size in options.sizes:
        env, market = markets.real_market(
            name, options.products, options.tastes, options.rounds,
            own_readings=False, query=options.query, size=size,
        )  # fmt: skip
        profiles = env.sample_profiles(jax.random.key(options.seed), options.profiles)
        policy = dm.solve_efficient_policy(env, initial=profiles, progress=False)
        row, _, audit = row_of_means(policy)
        first = [policy.start(profile=b).recommendation for b in range(len(profiles))]
        rows.append(
            {
                "places": size,
                "displays": len(env.controls) - 1,
                "shown first [1]": float(np.mean([_shown(display) for display in first])),
                TOTAL: policy.value.mean(),
                **row,
                "worst no subsidy [money]": audit.no_subsidy.min(),
                OPEN: 100 * audit.window.open.mean(),
            }
        )
    if market is None:
        raise ValueError("give a size")
    return pd.DataFrame(rows), market


def _shown(display: int | tuple[int, ...]) -> int:
    """How many products a recommendation shows."""
    return len(display) if isinstance(display, tuple) else int(display >= 0)


def picture(found: dict[str, tuple[pd.DataFrame, str]], out: Output) -> None:
    """Surplus and its parts, and gains of misreports, by places on the screen."""
    figure, axes = new_figure(9.5, 3.6 * len(found), nrows=len(found), ncols=2, squeeze=False)
    for row, (name, (table, unit)) in zip(axes, found.items(), strict=True):
        x = np.arange(len(table))
        bars = ((TOTAL, BLUE), (ADVERTISERS, ORANGE), (USER, GREEN), (REVENUE, RED))
        for k, (column, colour) in enumerate(bars):
            label = column.removesuffix(" [money]")
            row[0].bar(x + 0.2 * (k - 1.5), table[column], 0.18, color=colour, label=label)
        for column, colour in ((GAIN, BLUE), (MESSAGE, RED)):
            label = column.removesuffix(" [money]").removeprefix("largest ")
            row[1].plot(x, table[column], "o-", color=colour, label=label)
        for axis, title in ((row[0], "a conversation"), (row[1], "largest gain of a misreport")):
            axis.set_xticks(x, table["places"])
            tidy(axis, f"{name}: {title}", "places on the screen", unit, zero=True)
            axis.legend(frameon=False, fontsize=8, ncols=4, loc="upper center")
            axis.set_ylim(top=1.15 * axis.get_ylim()[1])
    out.picture("displays", figure)


def main(options: Options) -> None:
    """Run both markets, print what is found, and write the files."""
    with jax.enable_x64(True):
        out = Output(options.results / "displays", "")
        found = {}
        for name in REAL:
            table, market = study(name, options)
            out.heading(f"{market.name}: {options.products} products")
            out.bullets(markets.real_assumptions(market, name, options.query))
            own = Output(out.folder, market.unit, out.console)
            own.table(name, table, f"Means over {options.profiles} profiles")
            out.written.extend(own.written)
            first, last = table.iloc[0], table.iloc[-1]
            more = 100 * (last[TOTAL] / first[TOTAL] - 1)
            out.say(
                f"{last['places']:g} places in place of {first['places']:g}: total surplus "
                f"{more:+.1f}%, the user's from {first[USER]:.4g} to {last[USER]:.4g} "
                f"{market.unit}, conversations that sell from {first[SOLD]:.0f}% to "
                f"{last[SOLD]:.0f}%."
            )
            found[name] = (table, market.unit)
        picture(found, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
