"""Expected payments by Groves term, and what misreports gain, per advertiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dynmech._checks import checked
from dynmech.audit import Audit
from dynmech.mechanism.team import DynamicTeamMechanism
from dynmech.plotting.style import (
    GREY,
    PALETTE,
    PAYS,
    RECEIVES,
    TITLE,
    UNIT,
    bare,
    labelled,
    new_figure,
    plain,
    product_colours,
    require_same,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@checked(mechanisms=labelled(DynamicTeamMechanism, '{"ours": mechanism}'), unit=UNIT, title=TITLE)
def plot_payments(
    mechanisms: Mapping[str, DynamicTeamMechanism], *, unit: str = "money", title: str = ""
) -> "Figure":
    """Draw what each advertiser is expected to pay under each Groves term, a panel a term.

    Bars are means over the profiles solved, to the right where she pays and to the left where
    the platform pays her; panels share their axis.

    **Arguments:** `mechanisms`: label to mechanism; `unit`: of money.
    """
    all_names = [m.policy.env.names for m in mechanisms.values()]
    require_same("plot_payments(mechanisms=...)", all_names)
    columns = min(4, len(mechanisms))
    rows = -(-len(mechanisms) // columns)
    names = next(iter(mechanisms.values())).policy.env.names
    height = 1.3 + rows * (0.8 + 0.34 * len(names))
    figure, grid = new_figure(
        "plot_payments", max(2.2 + 2.75 * columns, 6.6), height,
        nrows=rows, ncols=columns, sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    for axes, (label, mechanism) in zip(grid.flat, mechanisms.items(), strict=False):
        paid = mean_payments(mechanism)
        colours = [PAYS if x >= 0 else RECEIVES for x in paid]
        axes.barh(np.arange(len(paid)), paid, color=colours, height=0.7)
        axes.axvline(0, color=GREY, lw=0.8)
        axes.set_title(f"{plain(label)}\nrevenue {paid.sum():+.3g}", fontsize=10.5, loc="left")
        axes.set_yticks(np.arange(len(names)), wrapped(names), fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=8.5)
        axes.grid(axis="x", color="#E5E5E5", lw=0.7)
        axes.set_axisbelow(True)
        bare(axes, "bottom")
    grid[0, 0].invert_yaxis()
    for axes in list(grid.flat)[len(mechanisms) :]:
        axes.set_visible(False)
    for axes in list(grid.flat)[max(len(mechanisms) - columns, 0) : len(mechanisms)]:
        axes.tick_params(labelbottom=True)  # also above a place that is empty
    figure.suptitle(
        plain(title) or "Expected payment of each advertiser, by Groves term",
        x=0.01, ha="left", fontsize=14, weight="bold",
    )  # fmt: skip
    label = figure.supxlabel(
        f"{plain(unit)} per conversation, mean over profiles;\n"
        "left of zero the platform pays the advertiser",
        fontsize=10,
    )
    figure.draw_without_rendering()  # lays out: names take room on the left
    first, last = grid[0, 0].get_position(), grid[0, -1].get_position()
    label.set_x((first.x0 + last.x1) / 2)
    return figure


def mean_payments(mechanism: DynamicTeamMechanism) -> np.ndarray:
    """Expected payment of each advertiser, Groves term included, mean over profiles, (n,)."""
    policy = mechanism.policy
    paid = mechanism.groves_total + policy.advertiser_value - mechanism.agent_payoff
    return np.nanmean(paid.reshape(len(paid), -1), axis=1)


@checked(audits=labelled(Audit, '{"ours": mechanism.audit()}'), unit=UNIT, title=TITLE)
def plot_incentives(
    audits: Mapping[str, Audit], *, unit: str = "money", title: str = ""
) -> "Figure":
    """Draw the largest gain from a misreport, per advertiser, one bar a settlement.

    **Arguments:** `audits`: label to audit; `unit`: of money. Gains below an audit's tolerance
    are rounding and marked 0.
    """
    require_same("plot_incentives(audits=...)", [audit.names for audit in audits.values()])
    names = next(iter(audits.values())).names
    at, width = np.arange(len(names)), 0.8 / len(audits)
    height = 1.6 + len(names) * (0.2 + 0.22 * len(audits))
    figure, axes = new_figure("plot_incentives", 9.0, height)
    colours = [PALETTE[2], PALETTE[5], PALETTE[0]] if len(audits) > 1 else [PALETTE[2]]
    colours = (colours + product_colours(len(audits)))[: len(audits)]
    top = max(float(audit.incentive_gain.max()) for audit in audits.values())
    for k, ((label, audit), colour) in enumerate(zip(audits.items(), colours, strict=True)):
        y = at - 0.4 + width * (k + 0.5)
        gain = np.where(audit.incentive_gain <= audit.tolerance, 0.0, audit.incentive_gain)
        axes.barh(y, gain, height=0.9 * width, color=colour, label=plain(label))
        for where, value in zip(y, gain, strict=True):
            text = "0" if value == 0 else f"{value:.3g}"
            axes.annotate(
                text, (value, where), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=9, color=colour if value == 0 else "black",
            )  # fmt: skip
    axes.set_yticks(at, wrapped(names, 32), fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08 * top if top > 0 else 1.0)
    axes.set_xlabel(f"largest gain of one misreport [{plain(unit)}], at the node where it is made")
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=GREY, lw=0.8)
    axes.grid(axis="x", color="#E5E5E5", lw=0.7)
    axes.set_axisbelow(True)
    bare(axes, "bottom")
    figure.suptitle(
        plain(title) or "What an advertiser gains by misreporting",
        x=0.01, ha="left", fontsize=14, weight="bold",
    )  # fmt: skip
    figure.legend(loc="outside lower center", ncols=len(audits), frameon=False, fontsize=10)
    return figure
