"""What quantising costs: belief signals in welfare, ratings that settle payments in incentives.

Beliefs use a rating cut into symbols. W is solved on a small car market as the number of symbols
grows, for three ways to cut; the limit, extrapolated, is the market with Gaussian ratings as drawn.
Settlement uses the rating as drawn and is unbiased; settling on the midpoints of quantised ratings
is biased, and the audit reports what a lie then gains, next to the bound, twice the bias.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro
from scipy.special import ndtr

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, GREEN, ORANGE, RESULTS, new_figure, tidy
from experiments._output import Output

COARSENESS = "symbols"
KINDS = ("utility quantiles", "rating quantiles", "even steps")
LOST = "lost of the value of feedback [%]"


@dataclass(frozen=True)
class Options:
    """The market; money in thousands of 1983 dollars."""

    products: int = 3
    """Cars."""
    tastes: int = 30
    """Taste points."""
    rounds: int = 2
    """Rounds."""
    symbols: tuple[int, ...] = (2, 3, 5, 9, 17)
    """Symbols into which a rating is cut while the conversation lasts."""
    fine: int = 33
    """Symbols from which the limit is extrapolated, with those before it; 0 for none."""
    settled: tuple[int, ...] = (2, 3, 5, 9, 17)
    """Symbols into which the rating that settles payments is cut."""
    noise: float = 5.0
    """Noise of a rating."""
    profiles: int = 4
    """Initial profiles drawn from the prior."""
    seed: int = 0
    """Their seed."""
    results: Path = RESULTS
    """Folder; files go to `quantising` inside."""


def cut_points(env: dm.RecommendationMDP, kind: str, noise: float, symbols: int) -> np.ndarray:
    """Cut points of each product's rating, shape (n, symbols - 1), money.

    `kind`: "utility quantiles", of u_j (the library's default); "rating quantiles", of u_j plus
    noise; "even steps", from -4 to 8 deviations of the noise, where decisions turn.
    """
    levels, weights, cuts = np.arange(1, symbols) / symbols, np.asarray(env.tastes.weights), []
    for utility in env.utilities:
        if kind == "even steps":
            cuts.append(noise * (12 * levels - 4))
            continue
        spread = noise if kind == "rating quantiles" else 1e-3 * noise
        grid = np.linspace(utility.min() - 5 * noise, utility.max() + 5 * noise, 20_001)
        law = ndtr((grid[:, None] - utility) / spread) @ weights
        cuts.append(np.interp(levels, law, grid))
    return np.array(cuts)


def market(options: Options, symbols: int, kind: str) -> dm.RecommendationMDP:
    """The car market with ratings cut into so many symbols."""
    env, base = markets.real_market(
        "cars", options.products, options.tastes, options.rounds, own_readings=False
    )
    own = kind != KINDS[0]  # the default's cut points are the library's own
    cuts = cut_points(env, kind, options.noise, symbols) if own else None
    signals = dm.SignalStructure(
        env.signals.initial,
        dm.RatingFeedback(options.noise, symbols, cuts=cuts),
        dm.RatingSettlement(options.noise),
    )
    return dm.RecommendationMDP(
        base.gamma, base.tastes, options.rounds, env.action_rule, signals, env.values, base.names
    )


def limit(values: list[float]) -> float:
    """Aitken's extrapolation of the last three of a sequence whose errors fall geometrically."""
    a, b, c = values[-3:]
    curve = (c - b) - (b - a)
    return c if abs(curve) < 1e-14 else c - (c - b) ** 2 / curve


def welfare(options: Options) -> tuple[pd.DataFrame, dict[str, float]]:
    """Mean W by number of symbols and kind of cuts; the limit and W without feedback."""
    counts = [*options.symbols, *([options.fine] if options.fine else [])]
    base = market(options, counts[0], KINDS[0])
    batch = base.sample_profiles(jax.random.key(options.seed), options.profiles)

    def worth(env: dm.RecommendationMDP) -> float:
        policy = dm.solve_efficient_policy(env, initial=batch, progress=False)
        return float(np.nanmean(policy.value))

    deaf = worth(base.without_feedback())
    found = {kind: [worth(market(options, z, kind)) for z in counts] for kind in KINDS}
    even = found[KINDS[2]]
    top = limit(even) if len(counts) > 2 else even[-1]
    rows = []
    for at, z in enumerate(counts):
        row: dict[str, float] = {COARSENESS: z}
        for kind, values in found.items():
            row[f"W, {kind} [money]"] = values[at]
            row[f"{kind}: {LOST}"] = 100 * (top - values[at]) / (top - deaf)
        rows.append(row)
    return pd.DataFrame(rows), {"limit": top, "no feedback": deaf}


def settlement(options: Options) -> pd.DataFrame:
    """Gain of a misreport when payments are settled on midpoints of quantised ratings."""
    env = market(options, 3, KINDS[2])
    batch = env.sample_profiles(jax.random.key(options.seed), options.profiles)
    policy = dm.solve_efficient_policy(env, initial=batch, progress=False)
    signals: dict[tuple[str, str], dm.RatingSettlement | dm.QuantisedRatingSettlement] = {
        (kind, str(z)): dm.QuantisedRatingSettlement(
            options.noise, cut_points(env, kind, options.noise, z)
        )
        for kind in KINDS[1:]
        for z in options.settled
    }
    signals["none", "as drawn"] = dm.RatingSettlement(options.noise)
    rows = []
    for (kind, z), signal in signals.items():
        mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Participation(), estimator=signal)
        audit, best = mechanism.audit(), mechanism.best_response()
        gap: Any = audit.gap
        rows.append(
            {
                "cuts": kind,
                COARSENESS: z,
                "largest bias [money]": gap.bias,
                "gain of one misreport [money]": audit.incentive_gain.max(),
                "gain of any strategy [money]": float(np.nanmax(best.gain)),
                "bound, twice the bias [money]": gap.bound,
                "participation, worst [money]": float(np.nanmin(audit.participation)),
            }
        )
    return pd.DataFrame(rows)


def picture(coarse: pd.DataFrame, settled: pd.DataFrame, out: Output) -> None:
    """Welfare lost by quantising beliefs, gains invited by settling on quantised ratings."""
    figure, axes = new_figure(9.5, 3.9, ncols=2)
    for kind, colour in zip(KINDS, (ORANGE, BLUE, GREEN), strict=True):
        lost = coarse[f"{kind}: {LOST}"]
        axes[0].plot(coarse[COARSENESS], lost, "o-", color=colour, label=kind, markersize=5)
    axes[0].set(xscale="log", yscale="log")
    axes[0].set_xticks(coarse[COARSENESS], [str(z) for z in coarse[COARSENESS]])
    axes[0].xaxis.minorticks_off()
    up = "% of the value of feedback (log scale)"
    tidy(axes[0], "Beliefs: welfare lost, by cuts", "symbols of a rating (log scale)", up)
    for kind, colour in zip(KINDS[1:], (BLUE, GREEN), strict=True):
        shown = settled[settled["cuts"] == kind]
        place, gain = np.arange(len(shown)), shown["gain of one misreport [money]"]
        axes[1].plot(place, gain, "o-", color=colour, label=kind, markersize=5)
        axes[1].set_xticks(place, shown[COARSENESS])
    axes[1].set_ylim(bottom=0)
    across, title = "symbols of the rating settled on", "Settlement on midpoints: gain of a lie"
    tidy(axes[1], title, across, out.unit)
    for ax in axes:
        ax.legend(fontsize=8, frameon=False)
    out.picture("quantising", figure)


def main(options: Options) -> None:
    """Solve, tabulate, draw, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "quantising", "thousand 1983 USD")
        _, base = markets.real_market("cars", options.products, options.tastes)
        out.heading("Quantising the signal that beliefs use: welfare")
        out.bullets(
            [
                *markets.real_assumptions(base, "cars"),
                (
                    f"{options.products} cars, {options.rounds} rounds, {options.tastes} tastes, "
                    f"{options.profiles} profiles drawn with seed {options.seed}."
                ),
                (
                    "Cuts: quantiles of the utility (the library's default), quantiles of the "
                    "rating, or even steps from -4 to 8 deviations of a rating's noise."
                ),
            ]
        )
        coarse, ends = welfare(options)
        out.table("welfare", coarse, "Mean W by number of symbols")
        out.say(
            f"Extrapolated limit of even steps, ratings as drawn: W = {ends['limit']:.6g}; without "
            f"ratings {ends['no feedback']:.6g} {out.unit}. Utilities have long tails: quantiles "
            "spend their cuts where many users are, even steps where decisions turn."
        )
        out.heading("Quantising the rating that settles payments: incentives")
        out.say(
            "Three symbols in beliefs. The bias is largest at utilities far outside the cuts; the "
            "gain is that of the worst lie, the bound holds for any."
        )
        settled = settlement(options)
        out.table("settlement", settled, "Gains, and what bounds them")
        picture(coarse, settled, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
