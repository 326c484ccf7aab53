"""Several sellers of one product (paper C, section 6): who is recommended, and who pays what.

Sellers have equal or nearly equal characteristics and different terms. Equal: one car at one price,
sellers differ in costs and fees, so in theta. Nearly equal: they also differ in price; a discount
moves money from theta to the user and makes a purchase more likely. With equal terms for the user
and no signals of their own, W^{-i} makes the recommended seller pay the second highest theta
per purchase, as in a second-price auction; with signals the window opens between both ends.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import COLOURS, RESULTS, new_figure, tidy
from experiments._output import Output

PRICE = 2  # the column of gamma that holds the price


@dataclass(frozen=True)
class Options:
    """The sellers; money in thousands of 1983 dollars."""

    car: int = 0
    """Which of the eight segment cars they sell."""
    costs: tuple[float, ...] = (0.0, 0.2, 0.5)
    """What each seller's costs and fees take from the markup."""
    discounts: tuple[float, ...] = (0.0, 0.3, 0.9)
    """What each takes off the price, when terms are nearly equal."""
    spread: tuple[float, ...] = (0.9, 1.1)
    """Each seller's value is one of these multiples of her net markup, equally likely."""
    tastes: int = 40
    """Taste points."""
    rounds: int = 2
    """Rounds; the user asks again with probability 0.5 whatever is shown."""
    advertisers: float = 10.0
    """Noise of each seller's own signal about the user's utility, where they have signals."""
    results: Path = RESULTS
    """Folder; files go to `sellers` inside."""


def market(options: Options, discounts: Any, signals: bool) -> dm.RecommendationMDP:
    """One car offered by several sellers."""
    base = dm.applications.cars(products=8, tastes=options.tastes, selection="segments")
    n, discounts = len(options.costs), np.asarray(discounts, float)
    gamma = np.repeat(np.asarray(base.gamma)[[options.car]], n, axis=0)
    gamma[:, PRICE] -= discounts
    net = float(base.theta[options.car]) - np.asarray(options.costs) - discounts
    own = dm.GaussianSignals(None, options.advertisers, symbols=2) if signals else dm.NoSignals()
    return dm.RecommendationMDP(
        gamma,
        base.tastes,
        horizon=options.rounds,
        action_rule=dm.LastShownOnly(dm.Logit(base.taste_scale), query=0.5),
        signals=dm.SignalStructure(own, dm.RatingFeedback(5.0, 2), dm.RatingSettlement(5.0)),
        values=dm.ConstantValues(net[:, None] * np.array(options.spread)),
        names=tuple(f"seller {chr(65 + i)}" for i in range(n)),
    )


def second_highest(policy: dm.EfficientPolicy) -> np.ndarray:
    """The second highest value of each profile, shape P, money."""
    n = policy.env.products
    theta = policy.env.values.support[np.arange(n), policy.profiles.theta]
    return np.sort(theta, axis=1)[:, -2].reshape(policy.value.shape)


def table(terms: str, signals: str, policy: dm.EfficientPolicy) -> tuple[pd.DataFrame, float]:
    """Each seller: value, how often shown and bought, payment under both terms; largest gain."""
    env, weights = policy.env, np.nan_to_num(policy.probability())
    both = (dm.groves.Participation(), dm.groves.NoSubsidy())
    low, high = (dm.DynamicTeamMechanism(policy, term).audit() for term in both)
    first = policy.plan.actions[0][policy.pairs.base, 0].reshape(policy.value.shape)

    def mean(values: np.ndarray) -> float:
        return float(np.nansum(values * weights))

    rows = []
    for i, name in enumerate(env.names):
        rows.append(
            {
                "terms": terms,
                "signals": signals,
                "seller": name,
                "theta, mean [money]": float(env.values.support[i].mean()),
                "utility, mean [money]": float(env.utilities[i] @ np.asarray(env.tastes.weights)),
                "shown first [%]": 100 * mean(first == i),
                "bought [%]": 100 * mean(policy.purchase[i]),
                "second price [money]": mean(policy.purchase[i] * second_highest(policy)),
                "paid, phi_minus [money]": mean(low.budget.payments[i]),
                "paid, phi_plus [money]": mean(high.budget.payments[i]),
                "window open [%]": 100 * mean(low.window.open[i]),
            }
        )
    return pd.DataFrame(rows), float(low.incentive_gain.max())


def study(options: Options) -> tuple[pd.DataFrame, float]:
    """Equal and nearly equal terms, with and without the sellers' own signals; largest gain."""
    tables, gains = [], []
    for terms, discounts in (
        ("equal", np.zeros(len(options.costs))),
        ("near", options.discounts),
    ):
        for signals in (False, True):
            env = market(options, discounts, signals)
            policy = dm.solve_efficient_policy(env, progress=False)
            found, gain = table(terms, "own" if signals else "no", policy)
            tables.append(found)
            gains.append(gain)
    return pd.concat(tables), max(gains)


def picture(found: pd.DataFrame, out: Output) -> None:
    """Who is shown first, and what each pays between phi_minus and phi_plus."""
    figure, axes = new_figure(10.0, 4.0, ncols=2)
    cases = [f"{a}, {b} signals" for a, b in found[["terms", "signals"]].drop_duplicates().values]
    sellers = list(dict.fromkeys(found["seller"]))
    width = 0.8 / len(sellers)
    for s, seller in enumerate(sellers):
        rows = found[found["seller"] == seller]
        place = np.arange(len(cases)) + (s - (len(sellers) - 1) / 2) * width
        colour = COLOURS[s % len(COLOURS)]
        axes[0].bar(place, rows["shown first [%]"], width, color=colour, label=seller)
        low, high = rows["paid, phi_minus [money]"], rows["paid, phi_plus [money]"]
        axes[1].vlines(place, low, high, color=colour, linewidth=3)
        for ends, shape in ((low, "v"), (high, "^")):
            axes[1].plot(place, ends, shape, color=colour, markersize=6)
    for ax in axes:
        ax.set_xticks(range(len(cases)), [x.replace(", ", ",\n") for x in cases], fontsize=8)
    tidy(axes[0], "Shown first", "", "% of conversations")
    title = "Expected payment, from phi_minus to phi_plus"
    tidy(axes[1], title, "", f"{out.unit} a conversation", zero=True)
    axes[0].set_ylim(0, 125)
    axes[0].set_yticks(range(0, 101, 20))
    axes[0].legend(fontsize=9, frameon=False, ncols=len(sellers), loc="upper center")
    out.picture("sellers", figure)


def main(options: Options) -> None:
    """Solve, tabulate, draw, in float64."""
    if len(options.discounts) != len(options.costs):
        raise SystemExit("--discounts must give one number for each of --costs.")
    with jax.enable_x64(True):
        out = Output(options.results / "sellers", "thousand 1983 USD")
        base = dm.applications.cars(products=8, tastes=options.tastes, selection="segments")
        car = base.names[options.car]
        out.heading(f"Section 6: {len(options.costs)} sellers of one {car}")
        out.bullets(
            [
                (
                    f"Markup {base.theta[options.car]:.4g}; costs and fees "
                    f"{', '.join(f'{x:g}' for x in options.costs)}, discounts when terms differ "
                    f"{', '.join(f'{x:g}' for x in options.discounts)}, assumptions both."
                ),
                "The user asks again with probability 0.5 and buys what is on the screen (logit).",
                f"Own signals, where they are: the car's utility with noise {options.advertisers}.",
                *base.assumptions,
            ]
        )
        found, gain = study(options)
        out.table("sellers", found, "Means over profiles, a conversation")
        out.say(
            "With equal terms and no signals the payment is the second price: the second highest "
            "theta, paid if the product is bought."
        )
        out.say(f"Largest gain of a misreport over the four cases: {gain:.1e}.")
        picture(found, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
