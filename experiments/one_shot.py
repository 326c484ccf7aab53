"""The one-shot example of paper C, section 2: two advertisers, one recommendation, one decision.

Everyone reads omega with noise; the user buys what she is shown if its utility is not negative;
then she rates it. The data-driven VCG payment

    p_i = - <gamma_i, w> y_i - (theta_j + <gamma_j, w>) y_j + phi_i,

its pivotal terms phi_plus = max over s_i of E[(theta_j + u_j) y_j] and phi_minus, the min, and
what a lie gains when payments use reports instead of the rating. Section 2 of the paper says
that phi_plus secures participation and phi_minus no subsidy: it swaps them; Proposition 2 is right.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from dynmech.market.displays import named
from experiments._figures import BLUE, RED, RESULTS, new_figure, tidy
from experiments._markets import ABSTRACT
from experiments._output import Output
from experiments._windows import slacks

TERMS = {
    "phi_plus": dm.groves.NoSubsidy(),
    "phi_minus": dm.groves.Participation(),
    "ex ante": dm.groves.ExAnte(),
}


@dataclass(frozen=True)
class Options:
    """The market; money has no unit."""

    tastes: int = 64
    """Points that stand for the normal prior of omega, one coordinate a product."""
    mean: float = 0.2
    """Mean utility of each product."""
    correlation: float = 0.3
    """Correlation of the two utilities, standard deviation 1."""
    platform: float = 2.0
    """Noise of the platform's signal."""
    advertisers: float = 1.0
    """Noise of each advertiser's signal."""
    shared: float = 0.2
    """Correlation of the signals' noises."""
    symbols: int = 3
    """Symbols into which each signal is cut."""
    values: tuple[float, ...] = (0.2, 0.6, 1.0)
    """Values per purchase that each advertiser may have, equally likely."""
    rating: float = 1.0
    """Noise of the rating that settles payments."""
    seed: int = 0
    """Seed of the taste points."""
    results: Path = RESULTS
    """Folder; files go to `one_shot` inside."""


def market(options: Options) -> dm.RecommendationMDP:
    """Two products, one round, threshold purchase; nobody queries."""
    rho = options.correlation
    tastes = dm.TasteGrid.from_normal(
        [options.mean] * 2, [[1.0, rho], [rho, 1.0]], options.tastes, seed=options.seed
    )
    initial = dm.GaussianSignals(
        options.platform, options.advertisers, options.symbols, options.shared
    )
    return dm.RecommendationMDP(
        np.eye(2),
        tastes,
        horizon=1,
        action_rule=dm.PerfectRecall(dm.Threshold(), query=0.0),
        signals=dm.SignalStructure(initial, settlement=dm.RatingSettlement(options.rating)),
        values=dm.ConstantValues(np.array([options.values] * 2)),
        names=("advertiser 1", "advertiser 2"),
    )


def payments(policy: dm.EfficientPolicy, options: Options) -> pd.DataFrame:
    """Recommendation and expected payments by the advertisers' signals; platform's and values mid.

    `settles` is the payment net of the Groves term.
    """
    middle, theta = options.symbols // 2, len(options.values) // 2
    rows = []
    plus, minus = (dm.DynamicTeamMechanism(policy, TERMS[x]) for x in ("phi_plus", "phi_minus"))
    core = policy.advertiser_value - plus.agent_payoff
    for signals in np.ndindex(options.symbols, options.symbols):
        at = (theta, theta, middle, *signals)
        chat = policy.start(theta=[theta] * 2, signals=[middle, *signals])
        row = {
            "signal 1": signals[0],
            "signal 2": signals[1],
            "shown": named(policy.env.names, chat.recommendation),
            "bought [%]": 100 * float(policy.purchase[(slice(None), *at)].sum()),
        }
        for i in (0, 1):
            row |= {
                f"settles {i + 1} [money]": core[(i, *at)],
                f"phi_minus {i + 1} [money]": minus.groves_total[(i, *at)],
                f"phi_plus {i + 1} [money]": plus.groves_total[(i, *at)],
            }
        rows.append(row)
    return pd.DataFrame(rows)


def terms(policy: dm.EfficientPolicy) -> pd.DataFrame:
    """Each term against both constraints: section 2 of the paper against Proposition 2."""
    weights, rows = policy.probability(), []
    for name, term in TERMS.items():
        kept, subsidy = slacks(policy, term)
        rows.append(
            {
                "Groves term": name,
                "participation, worst [money]": np.nanmin(kept),
                "participation, mean [money]": np.nansum(kept * weights) / 2,
                "no subsidy, worst [money]": np.nanmin(subsidy),
                "no subsidy, mean [money]": np.nansum(subsidy * weights) / 2,
            }
        )
    return pd.DataFrame(rows)


def lies(policy: dm.EfficientPolicy) -> pd.DataFrame:
    """Largest gain of a lie when payments are settled on the rating, and on reports."""
    mechanism = dm.DynamicTeamMechanism(policy)
    rows = []
    for label, way in (
        ("data-driven", dm.settlement.Estimator()),
        ("message-driven", dm.settlement.MessageDriven()),
        ("second price per purchase", dm.settlement.PerPurchaseSecondPrice()),
        ("no transfers", dm.settlement.NoTransfers()),
    ):
        audit = mechanism.audit(way)
        worst = int(np.argmax(audit.incentive_gain))
        rows.append(
            {
                "settlement": label,
                "largest gain [money]": audit.incentive_gain[worst],
                "misreports": audit.deviations,
                "witness": audit.witness[worst].sentence(),
            }
        )
    return pd.DataFrame(rows)


def picture(policy: dm.EfficientPolicy, out: Output) -> None:
    """Slack of both constraints at every profile, under both terms."""
    figure, axes = new_figure(6.4, 4.6)
    for name, colour, shape in (("phi_plus", RED, "o"), ("phi_minus", BLUE, "^")):
        kept, subsidy = slacks(policy, TERMS[name])
        axes.plot(
            kept.ravel(), subsidy.ravel(), shape, color=colour, markersize=3, alpha=0.4, label=name
        )
    tidy(
        axes,
        "Left of the line participation fails, below it no subsidy",
        f"slack of participation [{out.unit}]",
        f"slack of no subsidy [{out.unit}]",
        zero=True,
    )
    axes.axvline(0, color="#555555", linewidth=0.8)
    axes.legend(frameon=False, fontsize=9, markerscale=2)
    out.picture("slacks", figure)


def main(options: Options) -> None:
    """Solve, tabulate, draw, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "one_shot", ABSTRACT)
        env = market(options)
        policy = dm.solve_efficient_policy(env, progress=False)
        out.heading("Section 2: two advertisers, one recommendation")
        out.bullets(
            [
                (
                    f"Utilities normal, mean {options.mean:g}, correlation "
                    f"{options.correlation:g}, on {options.tastes} points (discretisation error "
                    f"{env.tastes.discretisation_error:.2g} standard deviations)."
                ),
                (
                    "Each advertiser reads her own product's utility and the platform the mean of "
                    f"both, noises {options.advertisers:g} and {options.platform:g}, correlated "
                    f"{options.shared:g}, in {options.symbols} symbols each."
                ),
                (
                    f"Values {', '.join(f'{x:g}' for x in options.values)}, equally likely; "
                    f"ratings have noise {options.rating:g}; E[W] = {policy.ex_ante_value:.4g}."
                ),
            ]
        )
        title = "Expected payments by signals; middle values and platform signal"
        out.table("payments", payments(policy, options), title)
        out.heading("phi_plus and phi_minus: which secures what")
        out.table("terms", terms(policy), "Slack of both constraints")
        out.say(
            "Section 2 has them swapped: phi_plus gives no subsidy, phi_minus secures "
            "participation (Proposition 2); the ex-ante term does both on average (Proposition 1)."
        )
        out.heading("A lie, settled on the rating or on reports")
        found = lies(policy)
        out.table("lies_witnesses", found, "With witnesses", show=False)
        out.table("lies", found.drop(columns="witness"), "Largest gain of one misreport")
        out.say(f"Settled on reports: {found['witness'][1]}")
        picture(policy, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
