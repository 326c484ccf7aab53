"""Participation and no subsidy: Propositions 1 and 2 and Corollary 1 of paper C, and their limits.

Where the statements hold and where they do not: constructed markets in which showing one product
helps another (no subsidy fails for phi_plus, and Corollary 1 with it), the displayable economy as
the remedy and what it costs; random and real markets; windows of fixed and of data-driven totals;
participation against subsidy as advertisers know more, and as the platform's context sharpens.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, GREEN, ORANGE, RED, RESULTS, new_figure, tidy
from experiments._output import Output
from experiments._windows import TERMS, propositions, slacks, solve, tension, windows

FAMILIES = {
    "random": {},
    "separate": {"separate": True},
    "keeper": {"keeps": True},
}
REAL: tuple[markets.Real, ...] = ("cars", "electricity")
NOISE = "noise of the context [1]"
PLUS, MINUS = "worst participation, phi_plus [money]", "worst no subsidy, phi_minus [money]"
MEANING = {
    "random": "random: perfect recall, queries and feedback depend on what is shown",
    "separate": "separate: random, but showing a product cannot help the others",
    "keeper": "keeper: random, but the user rarely asks again unless product 0 is shown",
    "cars": "cars, 2 rounds",
    "electricity": "electricity contracts, 2 rounds",
}


@dataclass(frozen=True)
class Options:
    """Sizes and seeds; the defaults take well under a minute."""

    markets: int = 20
    """Random markets of each kind."""
    products: int = 3
    """Products of the car and electricity markets."""
    tastes: int = 24
    """Their taste points."""
    noises: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0, 8.0)
    """Noise of the advertisers' first signals, in multiples of the demo's, on the car market."""
    blurs: tuple[float, ...] = (1, 0.3, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 0)
    """Share of noise in the platform's context for Corollary 1; 0 reveals omega."""
    seed: int = 0
    """First seed of the random markets."""
    results: Path = RESULTS
    """Folder; files go to `participation` inside."""


def constructed() -> pd.DataFrame:
    """The constructed markets: quantities and slacks of advertiser i, worst over her values."""
    rows = []
    for label, env in (
        ("i keeps the user", markets.corollary_1_fails()),
        ("i reveals u_j, u_i = 1", markets.showing_i_reveals_j(1.0)),
        ("i reveals u_j, u_i = -3", markets.showing_i_reveals_j(-3.0)),
    ):
        policy = solve(env)
        audit = dm.DynamicTeamMechanism(policy, dm.groves.Zero()).audit()
        row = {
            "market": label,
            "W^-i [money]": policy.marginal_value[0].max(),
            "Wd^-i [money]": policy.displayable_marginal_value[0].max(),
            "max D_i [money]": audit.window.floor[0].max(),
            "min W_1 [money]": audit.window.ceiling[0].min(),
            "window open": bool(audit.window.open[0].all()),
        }
        for name, term in (
            ("phi_plus", TERMS["phi_plus"]),
            ("phi_plus displayable", TERMS["phi_plus, displayable"]),
        ):
            kept, subsidy = slacks(policy, term)
            row |= {
                f"{name}: participation [money]": kept[0].min(),
                f"{name}: no subsidy [money]": subsidy[0].min(),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def information(options: Options, out: Output) -> pd.DataFrame:
    """Participation against subsidy on the car market as advertisers know more."""
    rows = []
    for noise in options.noises:
        env, _ = markets.real_market("cars", options.products, options.tastes, advertisers=noise)
        first = noise * markets.REAL_NOISE["cars"][2]
        policy = solve(env)
        room = windows("", [policy])
        shares = {k: room[k] for k in ("fixed total: open [%]", "data-driven: open [%]")}
        rows.append({"advertisers' noise [money]": first, **tension(policy), **shares})
    table = pd.DataFrame(rows)
    figure, axes = new_figure(9.5, 4.0, ncols=2)
    across = table["informational size [1]"]
    for column, sign, colour, style, label in (
        ("E[phi_plus - phi_minus] [money]", 1, BLUE, "o-", "phi_plus - phi_minus, mean"),
        (PLUS, -1, RED, "o-", "participation missed under phi_plus, most"),
        (MINUS, -1, GREEN, "x--", "subsidy under phi_minus, most"),
    ):
        axes[0].plot(across, sign * table[column], style, color=colour, label=label, markersize=5)
    axes[0].set_ylim(0, 1.45 * -table[[PLUS, MINUS]].to_numpy().min())
    size = "informational size: distance of posteriors, 0 to 1"
    tidy(axes[0], "What each end of Proposition 2 gives up", size, out.unit)
    for column, colour, label in (
        ("fixed total: open [%]", ORANGE, "fixed given others' reports"),
        ("data-driven: open [%]", BLUE, "data-driven"),
    ):
        axes[1].plot(across, table[column], "o-", color=colour, label=label, markersize=4)
    tidy(axes[1], "Where both constraints fit", size, "% of advertisers and profiles")
    axes[1].set_ylim(0, 105)
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    axes[1].legend(fontsize=8, frameon=False, loc="center right")
    figure.suptitle("Cars: participation against subsidy as advertisers know more", fontsize=11)
    out.picture("informational_size", figure)
    return table


def limit(options: Options, out: Output) -> pd.DataFrame:
    """Corollary 1 as a limit, where showing a product is useless to the others; random markets."""
    rows = []
    for blur in options.blurs:
        found = [
            tension(solve(markets.sharp_market(options.seed + s, blur)))
            for s in range(min(options.markets, 8))
        ]
        table = pd.DataFrame(found)
        worst = {c: table[c].max() if "largest" in c else table[c].mean() for c in table}
        worst |= {c: table[c].min() for c in table if c.startswith("worst")}
        rows.append({NOISE: blur, **worst})
    table = pd.DataFrame(rows)
    seen = table[table[NOISE] > 0]
    across = seen[NOISE]
    figure, axes = new_figure(6.4, 4.0)
    for column, colour, label in (
        ("largest phi_plus - phi_minus [money]", BLUE, "largest over profiles and markets"),
        ("E[phi_plus - phi_minus] [money]", ORANGE, "mean over profiles and markets"),
    ):
        axes.plot(across, seen[column], "o-", color=colour, label=label, markersize=4)
    axes.set(xscale="log", yscale="log")
    axes.invert_xaxis()
    across = "share of noise in the platform's context (log scale)"
    tidy(
        axes,
        "Corollary 1 as a limit: phi_plus - phi_minus as the context sharpens",
        across,
        out.unit,
    )
    axes.legend(fontsize=8, frameon=False)
    out.picture("corollary_1_limit", figure)
    return table.assign(**{NOISE: [f"{blur:g}" for blur in table[NOISE]]})


def report(options: Options, out: Output) -> None:
    """Constructed, random and real markets; the limit of Corollary 1."""
    out.heading("Constructed markets: showing i helps j")
    out.say(
        "Paper C takes D_i <= W^-i 'by construction'. It fails when showing i keeps the user "
        "or reveals her taste better than anything else; then phi_plus from W^-i subsidises, "
        "and Corollary 1 fails although nobody has private signals. Groves terms from Wd^-i "
        "(i may be shown, her payoff and the user's from her do not count) always give no "
        "subsidy; participation then needs theta_i + u_i >= 0 (paper D, Prop. 9)."
    )
    out.table("constructed", constructed(), "Advertiser i, worst over her values")
    seeds = range(options.seed, options.seed + options.markets)
    groups = {
        label: [solve(markets.random_market(s, **kind)) for s in seeds]
        for label, kind in FAMILIES.items()
    }
    out.heading("Propositions 1 and 2 on random and real markets")
    out.bullets(
        [
            (
                f"{options.markets} random markets of each kind, seeds from {options.seed}: two "
                "products, two rounds, two symbols and values each, values moving."
            ),
            "Slack under truth in % of the market's E[W]; negative breaks the constraint.",
        ]
    )
    for name in REAL:
        env, market = markets.real_market(name, options.products, options.tastes)
        groups[name] = [solve(env)]
        out.bullets(markets.real_assumptions(market, name))
    tables = {label: propositions(label, group) for label, group in groups.items()}
    for label, table in tables.items():
        out.table(f"propositions_{label}", table.drop(columns="markets"), MEANING[label])
    out.table("propositions", pd.concat(tables.values()), "All markets", show=False)
    rows = [windows(label, group) for label, group in groups.items()]
    out.heading("Windows: fixed given the others' reports, and data-driven totals")
    out.table("windows", pd.DataFrame(rows), "Room for participation and no subsidy at once")
    out.heading("Corollary 1 where display is useless to others")
    out.say(
        f"{min(options.markets, 8)} random markets: what is on the screen moves neither queries "
        "nor what is learned. At noise 0 the context is sufficient: phi_plus equals phi_minus and "
        "both constraints hold. The largest gap falls late: it is where the context contradicts "
        "the advertisers, ever less likely."
    )
    out.table("corollary_1_limit", limit(options, out), "Worst or largest over markets")
    out.finish(options)


def main(options: Options) -> None:
    """Run every part, in float64."""
    folder = options.results / "participation"
    with jax.enable_x64(True):
        report(options, Output(folder, markets.ABSTRACT))
        cars = Output(folder / "cars", "thousand 1983 USD")
        cars.heading("Participation against subsidy as informational size grows")
        cars.say(
            "Informational size: the largest total-variation distance between posteriors that an "
            "advertiser's own first signal can bring about, mean over profiles (0 to 1)."
        )
        cars.table("informational_size", information(options, cars), "Car market")
        cars.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
