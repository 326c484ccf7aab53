"""What an estimator costs: noise in payments, and what lies gain where it is biased.

On a small market of real cars the same efficient policy is settled with many estimators of the
utility of the car bought: ratings, averages, ratings in symbols ("stars") settled at their
midpoints or decoded, posterior means. For each: is it unbiased (Assumption 3 of paper C), how far
off, what its bias lets misreports gain at most (bound) and in fact (exact audit), and what its
noise adds to payments. Run `python -m experiments.estimator_quality --help`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._markets import real_assumptions, real_market
from experiments._output import Output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIDPOINTS, LEAST, ALLOWED, RANDOM = (
    "at midpoints", "least bias", "bias allowed", "rounded at random",
)  # fmt: skip
COLOURS = {MIDPOINTS: "#D55E00", LEAST: "#0072B2", ALLOWED: "#009E73", RANDOM: "#CC79A7"}
FLOOR = 1e-4  # of gains, in the pictures


@dataclass(frozen=True)
class Options:
    """Compare estimators of the utility of the car bought."""

    results: Path = Path("results/estimator_quality")
    """Folder for tables and pictures."""
    products: int = 3
    """Cars."""
    tastes: int = 24
    """Points of the taste grid."""
    rounds: int = 2
    """Rounds of the conversation."""
    noise: float = 10.0
    """Standard deviation of one rating, thousand 1983 dollars."""
    symbols: tuple[int, ...] = (2, 3, 5, 8, 12, 20, 40)
    """Numbers of symbols that a rating is cut into."""
    allow: float = 0.05
    """Bias allowed, times the chance of a purchase, to make decoders less noisy."""
    slack: float = 0.1
    """Or a bias this share above the least."""
    conversations: int = 20_000
    """Simulated for quantiles of payments."""
    seed: int = 0
    """Of the simulation."""


class Bench:
    """One market and policy, and every estimator measured on it."""

    def __init__(self, options: Options):
        self.options = options
        self.env, self.market = real_market(
            products=options.products, tastes=options.tastes, rounds=options.rounds
        )
        self.policy = dm.solve_efficient_policy(self.env, progress=False)
        self.support = dm.purchase_support(self.policy)
        self.prior = np.asarray(self.env.tastes.weights)

    def mechanism(self, signal: dm.AbstractSettlementSignal) -> dm.DynamicTeamMechanism:
        """Settle the efficient policy with `signal`."""
        return dm.DynamicTeamMechanism(self.policy, dm.groves.WindowCeiling(), signal)

    def measure(self, signal: dm.AbstractSettlementSignal) -> dict[str, float | bool]:
        """Bias, what it can and does invite, and the noise of payments."""
        mechanism = self.mechanism(signal)
        audit, report = mechanism.audit(), dm.check_assumption_3(mechanism)
        moments = dm.payment_moments(mechanism)
        gain = float(audit.incentive_gain.max())
        n = self.env.products
        return {
            "unbiased": bool(report.unbiased.all()),
            "largest bias [money]": float(np.nanmax(report.largest_bias)),
            "bound on gains [money]": report.incentive_bound,
            "largest gain [money]": gain if gain > audit.tolerance else 0.0,
            "noise of a payment [money]": float(np.sqrt(moments.overall_noise_variance[0])),
            "s.d. of a payment [money]": float(np.sqrt(moments.overall_variance[:n]).mean()),
            "s.d. of revenue [money]": float(np.sqrt(moments.overall_variance[n])),
        }

    def stars(self, count: int) -> Mapping[str, dm.AbstractSettlementSignal]:
        """Ratings cut into `count` symbols, equal cells over the middle 96% of utilities."""
        low, high = np.quantile(self.env.utilities, [0.02, 0.98])
        cuts = np.linspace(low, high, count + 1)[1:-1]
        rating = dm.QuantisedRatingSettlement(self.options.noise, cuts)
        channel = rating.channel(self.env.utilities)

        def decoded(slack: float = 1e-3, allow: float = 0.0) -> dm.AbstractSettlementSignal:
            decoder = dm.decode_utilities(
                channel, self.env.utilities, self.support, self.prior, slack=slack, allow=allow
            )
            return dm.ChannelSettlement(channel, decoder)

        found: dict[str, dm.AbstractSettlementSignal] = {MIDPOINTS: rating, LEAST: decoded()}
        some = decoded(slack=self.options.slack, allow=self.options.allow)
        return found | {ALLOWED: some, RANDOM: self.rounded(count)}

    def rounded(self, count: int) -> dm.AbstractSettlementSignal:
        """The utility itself, rounded to one of its two neighbouring levels at random.

        With the odds that keep its mean, so that the levels decode it; they cover its range.
        """
        utilities = self.env.utilities
        levels = np.linspace(utilities.min(), utilities.max(), count)
        place = (utilities - levels[0]) / (levels[1] - levels[0])
        channel = np.clip(1 - np.abs(place[:, :, None] - np.arange(count)), 0, 1)
        decoder = dm.decode_utilities(channel, utilities, self.support, self.prior)
        return dm.ChannelSettlement(channel, decoder)


def estimators(bench: Bench) -> dict[str, dm.AbstractSettlementSignal]:
    """The estimators of the first table, by what they are."""
    noise = bench.options.noise
    return {
        "the utility itself": dm.OracleSettlement(),
        f"rating, noise {noise / 5:g}": dm.RatingSettlement(noise / 5),
        f"rating, noise {noise:g}": dm.RatingSettlement(noise),
        "average of 4 ratings": dm.AveragedSettlement(noise, 4),
        "average of 16 ratings": dm.AveragedSettlement(noise, 16),
        "a second rating only if the first is negative": dm.StoppedAverageSettlement(noise, 0.0),
        "posterior mean given a rating": dm.PosteriorMeanSettlement(noise, bench.prior),
        **{f"rating in 5 symbols, {k}": s for k, s in bench.stars(5).items()},
    }


def compare(bench: Bench) -> pd.DataFrame:
    """Measure every estimator."""
    rows = [{"estimator": name, **bench.measure(s)} for name, s in estimators(bench).items()]
    return pd.DataFrame(rows)


def sweep(bench: Bench) -> pd.DataFrame:
    """Measure ratings in symbols, by their number and how they are settled."""
    rows = [
        {"symbols": count, "settled": way, **bench.measure(signal)}
        for count in bench.options.symbols
        for way, signal in bench.stars(count).items()
    ]
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, symbols: pd.DataFrame, unit: str) -> "Figure":
    """Noise and gain by estimator; gains, bounds and noise by the number of symbols."""
    figure, axes = plt.subplots(
        1, 3, figsize=(17, 5.6), layout="constrained", width_ratios=(5, 4, 4)
    )
    plt.close(figure)
    noise, gain = table["noise of a payment [money]"], table["largest gain [money]"]
    at = np.arange(len(table))
    colours = ["#009E73" if x == 0 else "#D55E00" for x in gain]
    axes[0].barh(at, noise, color=colours, height=0.7)
    for y, width, lie in zip(at, noise, gain):
        text = "no lie gains" if lie == 0 else f"a lie gains {lie:.3g}"
        axes[0].annotate(
            text, (width, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes[0].set_yticks(at, table["estimator"], fontsize=9)
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, 1.35 * noise.max())
    axes[0].set_title("Noise that the estimate adds to a payment", loc="left")
    axes[0].set_xlabel(f"standard deviation [{unit}]")
    for way, part in symbols.groupby("settled", sort=False):
        style: dict[str, Any] = {"color": COLOURS[str(way)], "marker": "o", "ms": 4}
        style |= {"lw": 5, "alpha": 0.4} if way == LEAST else {"lw": 1.7}  # another lies on it
        count = part["symbols"]
        axes[1].plot(count, np.maximum(part["largest gain [money]"], FLOOR), label=way, **style)
        bound = np.maximum(part["bound on gains [money]"], FLOOR)
        axes[1].plot(count, bound, **(style | {"ls": ":", "marker": ""}))
        axes[2].plot(count, part["noise of a payment [money]"], label=way, **style)
    axes[1].set_title("Largest gain of a lie (dotted: the bound)", loc="left")
    axes[1].set_ylabel(f"{unit}; {FLOOR:g} and less at the bottom")
    axes[2].set_title("Noise that the estimate adds to a payment", loc="left")
    axes[2].set_ylabel(f"standard deviation [{unit}]")
    for axis in axes[1:]:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(symbols["symbols"].unique(), symbols["symbols"].unique())
        axis.minorticks_off()
        axis.set_xlabel("symbols that the rating is cut into")
        axis.grid(color="#E5E5E5", lw=0.7)
    axes[2].legend(title="settled", frameon=False, loc="upper left")
    for axis in axes:
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "What an estimator of the user's utility costs in noise and in incentives",
        x=0.01, ha="left", fontsize=14, weight="bold",
    )  # fmt: skip
    return figure


def run(options: Options) -> None:
    """Compare estimators and write the tables and the picture."""
    began = time.monotonic()
    bench = Bench(options)
    out = Output(options.results, bench.market.unit)
    out.heading("Estimators of the utility of the car bought")
    out.bullets(real_assumptions(bench.market, "cars"))
    out.say(
        f"Here the rating after the purchase has noise {options.noise:g}. "
        "Gains are exact, at the worst node and type. Bounds hold for every strategy of reports. "
        "Noise is the standard deviation that the estimate alone adds to a payment."
    )
    table, symbols = compare(bench), sweep(bench)
    out.table("estimators", table, "Estimators")
    shown = symbols.drop(columns=[x for x in symbols if str(x).startswith("s.d.")])
    noise = "noise of a payment [money]"
    shown[noise] = shown[noise].map("{:.3g}".format)  # it runs over many orders of magnitude
    out.table("symbols", shown, f"Ratings of noise {options.noise:g}, cut into symbols")
    worst = table.loc[table["largest gain [money]"].idxmax()]
    out.say(
        f"Of the first list, lies gain most from: {worst['estimator']}, "
        f"{worst['largest gain [money]']:.3g} {bench.market.unit}.",
        "At midpoints the bias is in the outermost symbols, which stand for everything beyond; "
        "least bias fights the worst taste, at a price in noise, and with few symbols invites "
        "larger gains than midpoints, because what a lie gains is the bias on average over "
        f"tastes. Allowing a bias {options.slack:.0%} above the least, or {options.allow:g}, takes "
        "the noise away; once there are symbols enough, no lie is worth telling. A rating "
        "rounded at random keeps its mean with few symbols, if they cover the range.",
    )
    least = bench.stars(5)[LEAST]
    assert isinstance(least, dm.ChannelSettlement)
    decoder = dm.decode_utilities(least.channel, bench.env.utilities, bench.support, bench.prior)
    out.table("decoder", decoder.to_frame(bench.env.names), "What 5 symbols cannot express")
    for name, signal in (
        ("rating", dm.RatingSettlement(options.noise)),
        ("average", dm.AveragedSettlement(options.noise, 16)),
    ):
        paid = dm.payment_distribution(
            bench.mechanism(signal), jax.random.key(options.seed), options.conversations
        )
        out.table(f"payments_{name}", paid, f"Payments settled with the {name}", show=False)
    out.picture("estimator_quality", draw(table, symbols, bench.market.unit))
    out.say(f"{time.monotonic() - began:.0f} s.")
    out.finish(options)


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
