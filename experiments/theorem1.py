"""Theorem 1 of paper C, measured: the largest gain of any misreport, and of any whole strategy.

Data-driven settlement (term zero of Groves, which does not matter for gains) against
message-driven settlement, on many random markets and on the car market: single-period misreports
at every reachable node with a truthful own past, and best responses over whole misreporting
strategies. The first are zero up to rounding; the second show that the audit can fail.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, RED, RESULTS, new_figure, tidy
from experiments._output import Output

SETTLEMENTS = {
    "data-driven": dm.settlement.Estimator(),
    "message-driven": dm.settlement.MessageDriven(),
}
KINDS = ("one lie", "strategy")
WORDS = {"one lie": "one misreport in one period", "strategy": "any misreporting strategy"}
SIZES = ((1, 2, 2), (2, 1, 2), (2, 2, 2), (2, 2, 3), (2, 3, 2), (3, 2, 2), (3, 3, 2))


@dataclass(frozen=True)
class Options:
    """Sizes and seeds; the defaults take well under a minute."""

    markets: int = 6
    """Random markets of each size; half with constant, half with moving values."""
    sizes: tuple[tuple[int, int, int], ...] = SIZES
    """(products, rounds, symbols) of the random markets."""
    profiles: int = 16
    """Initial profiles drawn on the car market."""
    few: int = 2
    """Initial profiles drawn of random markets that have more than 120; else all are solved."""
    cars: int = 4
    """Cars, of the real market."""
    rounds: int = 3
    """Rounds on the car market."""
    seed: int = 0
    """First seed."""
    results: Path = RESULTS
    """Folder; files go to `theorem1` inside."""


def gains(env: dm.RecommendationMDP, profiles: int, seed: int) -> dict[str, float]:
    """Largest gains of one market under both settlements, in % of its money scale."""
    many = int(np.prod(env.profile_shape)) > 120
    batch = env.sample_profiles(jax.random.key(seed), profiles) if many else None
    policy = dm.solve_efficient_policy(env, initial=batch, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    row: dict[str, float] = {"profiles": len(policy.profiles), "misreports": 0}
    for label, way in SETTLEMENTS.items():
        audit, best = mechanism.audit(way), mechanism.best_response(way)
        row["misreports"] += audit.deviations
        row[f"{label}, one lie"] = audit.incentive_gain.max() / env.money_scale * 100
        row[f"{label}, strategy"] = float(np.nanmax(best.gain)) / env.money_scale * 100
    return row


def measure(options: Options) -> pd.DataFrame:
    """Gains of every random market, one row a market."""
    rows = []
    for n, rounds, symbols in options.sizes:
        for s in range(options.seed, options.seed + options.markets):
            env = markets.random_market(s, n, rounds, symbols, constant=bool(s % 2))
            size = {"products": n, "rounds": rounds, "symbols": symbols, "seed": s}
            rows.append(size | gains(env, options.few, s))
    return pd.DataFrame(rows)


def by_size(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Groups of markets of one size, labelled."""
    labels = (
        table["products"]
        .astype(str)
        .str.cat([table["rounds"].astype(str), table["symbols"].astype(str)], sep=", ")
    )
    return [(str(size), pd.DataFrame(table[labels == size])) for size in dict.fromkeys(labels)]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median and largest of the markets' largest gains, by settlement and size of market."""
    rows = []
    for label in SETTLEMENTS:
        for size, group in by_size(table):
            row: dict[str, str | float] = {"settlement": label, "n, T, symbols": size}
            row |= {"markets": len(group), "misreports": int(group["misreports"].to_numpy().sum())}
            for kind in KINDS:
                found = group[f"{label}, {kind}"].to_numpy(float)
                row[f"{kind}, median [%]"] = float(np.median(found))
                row[f"{kind}, most [%]"] = float(found.max())
            rows.append(row)
    return pd.DataFrame(rows)


def picture(table: pd.DataFrame, out: Output) -> None:
    """Largest gain of every random market, by size."""
    figure, axes = new_figure(9.5, 3.9, ncols=2, sharey=True)
    sizes = by_size(table)
    for ax, kind in zip(axes, KINDS, strict=True):
        for label, colour, shape in zip(SETTLEMENTS, (BLUE, RED), "_o", strict=True):
            for place, (_, group) in enumerate(sizes):
                spread = place + np.linspace(-0.25, 0.25, len(group))
                name = label if place == 0 else None
                found = np.sort(group[f"{label}, {kind}"].to_numpy(float))
                ax.plot(spread, found, shape, color=colour, markersize=5, alpha=0.8, label=name)
        ax.set_xticks(range(len(sizes)), [size for size, _ in sizes], fontsize=8)
        up = "% of largest |theta + u|" if ax is axes[0] else ""
        tidy(ax, f"Largest gain of {WORDS[kind]}", "products, rounds, symbols", up)
    axes[0].legend(fontsize=9, frameon=False, loc="upper left")
    figure.suptitle(f"Theorem 1 on {len(table)} random markets, each a mark", fontsize=11)
    out.picture("gains", figure)


def real(options: Options, out: Output) -> pd.DataFrame:
    """Gains on the car market, by advertiser, with witnesses."""
    env, market = markets.real_market(
        "cars", options.cars, 50, options.rounds, 3, own_readings=False, spread=(0.8, 1.0, 1.2)
    )
    out.bullets(markets.real_assumptions(market, "cars"))
    batch = env.sample_profiles(jax.random.key(options.seed), options.profiles)
    policy = dm.solve_efficient_policy(env, initial=batch, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    rows = []
    for label, way in SETTLEMENTS.items():
        audit, best = mechanism.audit(way), mechanism.best_response(way)
        out.say(audit.summary(), "")
        for i, name in enumerate(env.names):
            strategy = float(np.nanmax(best.gain[i]))
            rows.append(
                {
                    "settlement": label,
                    "advertiser": name,
                    "one misreport [money]": _exact(audit.incentive_gain[i], audit.tolerance),
                    "any strategy [money]": _exact(strategy, audit.tolerance),
                    "witness": audit.witness[i].sentence(),
                }
            )
    return pd.DataFrame(rows)


def _exact(gain: float, tolerance: float) -> float:
    return 0.0 if gain <= tolerance else float(gain)


def main(options: Options) -> None:
    """Run both parts, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "theorem1", "thousand 1983 USD")
        table = measure(options)
        out.heading("Theorem 1 on random markets")
        out.bullets(
            [
                (
                    f"{options.markets} markets of each size from seed {options.seed}: perfect "
                    "recall, logit choice, unbiased ratings, joint signals of every party."
                ),
                (
                    "Gains conditional on the node, in % of the market's largest |theta + u|; an "
                    "advertiser knows the others' reports. Where there are more than 120 profiles "
                    f"{options.few} are drawn; one lie is also tried from each advertiser's own "
                    "other types, whole strategies only from the profiles themselves."
                ),
            ]
        )
        out.table("random_markets", summary(table), "Largest gain over truth, % of scale")
        renamed = table.rename(columns=lambda c: f"{c} [%]" if "driven" in c else c)
        out.table("random_markets_all", renamed, "Every market", show=False)
        picture(table, out)
        out.heading("Theorem 1 on the car market")
        cars = real(options, out)
        shown = cars.drop(columns="witness")
        out.table("cars", cars, "With witnesses", show=False)
        out.table("cars_gains", shown, "Largest gain over truth (0: below the audit's tolerance)")
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
