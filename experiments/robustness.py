"""A wrong model: what it costs in welfare, and what lies gain by it, against the bound.

The platform solves the market it believes in and charges by it; the truth is another one, at a
distance from 0 to 1: users ask again less often, like other products, or answer with more noise, or
fewer buyers rate than believed. In each truth M the policy pi of the platform is worth V_M(pi), the
best policy W_M; at every node with a truthful past no report gains more than W_M - V_M(pi) there,
plus twice the bias of the estimate, which is 0 but for the wrong chance.

    python -m experiments.robustness --quick
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, GREEN, RED, RESULTS, new_figure, tidy
from experiments._output import Output

BELIEVED = {"query": 0.9, "chance": 0.4}
KINDS = ("fewer questions", "other tastes", "noisier answers", "fewer ratings")
LOSS, GAIN, BOUND, BIAS = (
    f"{name} [money]" for name in ("welfare lost", "largest gain", "bound", "bias")
)
FAR = "distance [1]"


@dataclass(frozen=True)
class Options:
    """The markets, and how far the truth may be."""

    names: tuple[markets.Real, ...] = ("cars", "electricity")
    """Markets, each of three products and two rounds."""
    tastes: int = 24
    """Taste points."""
    steps: int = 5
    """Truths of each kind, the first the platform's own market."""
    quick: bool = False
    """Three truths over eight tastes: a try, no result."""
    results: Path = RESULTS
    """Folder; files go to `robustness` inside."""


def truth(env: dm.RecommendationMDP, name: markets.Real, kind: str, far: float):
    """The market at a distance in [0, 1] from the one believed, in one respect.

    Questions: again with probability 0.9 - 0.6 far. Tastes: prior weights tilted by exp(2 far z), z
    the standardised lead of the last product's utility over the first's. Answers: 4^far times the
    noise. Ratings: 0.4 (1 - 0.75 far) of buyers rate.
    """
    noise, signals = markets.REAL_NOISE[name][0], env.signals
    held: Any = env  # of the parts that this experiment built
    if kind == "fewer questions":
        rule = dm.LastShownOnly(held.action_rule.choice, BELIEVED["query"] - 0.6 * far)
        return dataclasses.replace(env, action_rule=rule)
    if kind == "other tastes":
        lead, weights = env.utilities[-1] - env.utilities[0], np.asarray(env.tastes.weights)
        lead = lead - weights @ lead
        tilted = weights * np.exp(2 * far * lead / np.sqrt(weights @ lead**2))
        tastes = dm.TasteGrid(np.asarray(env.tastes.points), tilted / tilted.sum())
        return dataclasses.replace(env, tastes=tastes)
    feedback, rating = held.signals.feedback, held.signals.settlement.rating
    if kind == "noisier answers":
        feedback = dm.RatingFeedback(noise * 4**far, feedback.symbols, 2 * noise * 4**far)
        sent = signals.settlement
    else:
        sent = dm.MissingRatings(rating, BELIEVED["chance"] * (1 - 0.75 * far))
    return dataclasses.replace(env, signals=dm.SignalStructure(signals.initial, feedback, sent))


def compare(options: Options, name: markets.Real) -> tuple[pd.DataFrame, dm.applications.Market]:
    """Audit the mechanism of one market in every truth."""
    steps, tastes = (3, 8) if options.quick else (options.steps, options.tastes)
    base, market = markets.real_market(name, tastes=tastes, query=BELIEVED["query"])
    rating = dm.MissingRatings(base.signals.settlement, BELIEVED["chance"])
    signals = dm.SignalStructure(base.signals.initial, base.signals.feedback, rating)
    env = dataclasses.replace(base, signals=signals)
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, estimator=dm.InversePropensity())
    rows = []
    for kind in KINDS:
        for far in np.linspace(0, 1, steps).tolist():
            other = truth(env, name, kind, far)
            audit = mechanism.audit(under=other)
            weight = dm.solve_efficient_policy(other, progress=False).probability()
            lost = np.nansum(weight * (audit.best.value - audit.value.value))
            rows.append(
                {
                    "market": name,
                    "truth": kind,
                    FAR: far,
                    "W [money]": float(np.nansum(weight * audit.best.value)),
                    LOSS: float(lost),
                    GAIN: float(audit.incentive_gain.max()),
                    BOUND: float(audit.incentive_bound.max()),
                    BIAS: float(audit.bias),
                }
            )
    return pd.DataFrame(rows), market


def picture(found: pd.DataFrame, units: dict[str, str], out: Output) -> None:
    """Loss, gain and bound by distance: a row a market, a column a respect."""
    names = list(units)
    figure, axes = new_figure(
        12.5, 3.1 * len(names), nrows=len(names), ncols=len(KINDS), sharex=True, squeeze=False
    )
    for row, name in zip(axes, names, strict=True):
        for ax, kind in zip(row, KINDS, strict=True):
            mine = pd.DataFrame(found[(found["market"] == name) & (found["truth"] == kind)])
            for label, colour, style in ((BOUND, BLUE, "--"), (GAIN, RED, "-"), (LOSS, GREEN, "-")):
                text = label.removesuffix(" [money]")
                ax.plot(mine[FAR], mine[label], style, marker="o", color=colour, label=text,
                        markersize=4)  # fmt: skip
            tidy(
                ax,
                f"{name}: {kind}",
                "distance of the truth",
                units[name] if kind == KINDS[0] else "",
            )
            biased = bool(mine[BIAS].to_numpy(float).max() > 0)
            within = [GAIN, LOSS] if biased else [GAIN, LOSS, BOUND]
            ax.set_ylim(0, 1.15 * max(mine[within].to_numpy(float).max(), 1e-9))
            if biased:
                top = mine[BOUND].to_numpy(float).max()
                most = f"bound {top:.3g} at distance 1,\nbeyond the scale"
                ax.text(0.03, 0.95, most, transform=ax.transAxes, va="top", fontsize=8)
    axes[0, 0].legend(fontsize=8, frameon=False)
    out.picture("robustness", figure)


def main(options: Options) -> None:
    """Audit, tabulate, draw, in float64."""
    with jax.enable_x64(True):
        tables, units = [], {}
        for name in options.names:
            table, market = compare(options, name)
            tables.append(table)
            units[name] = market.unit
        out = Output(options.results / "robustness", "the market's money")
        out.heading("The market believed and the true one")
        for name in options.names:
            _, market = markets.real_market(name, tastes=8)
            out.bullets(markets.real_assumptions(market, name))
        out.bullets([" ".join(str(truth.__doc__).split("\n\n")[1].split())])
        found = pd.concat(tables, ignore_index=True)
        out.heading("Welfare lost, gains of lies, bounds")
        out.say(
            "The loss is the mean over profiles of the true market; gain and bound are the largest "
            "over advertisers, profiles and nodes. Distance 0 is the market believed. With the "
            "chance wrong by a factor c, gains are 1 - c times those of message-driven payments; "
            "the bound, twice the bias, takes the worst taste and the worst prediction."
        )
        out.table("robustness", found, "A wrong model")
        picture(found, units, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
