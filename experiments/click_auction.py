"""Click-through auctions on real impressions and clicks (paper D, section 5.1).

Slots common to all advertisers: payments per click by the pivot (16) beside the generalised second
price and payments per impression, audited exactly; Remark 2 for every realisation of the clicks;
Proposition 2 and what its converse needs. Click rates that depend on the advertiser: the
manipulation of footnote 20 and the lottery of footnote 21, over real items. The log is the Open
Bandit sample, campaign `all` by default. It has no bids: values per click are assumed here, in
money of no particular unit. It shows no position effect: the decay across slots is assumed.

Run `python -m experiments.click_auction --help`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from dynmech.applications import ClickLog, open_bandit
from experiments import _click_items as items
from experiments import _click_slots as slots
from experiments._figures import BLUE, GREEN, GREY, ORANGE, RED, RESULTS, new_figure, tidy
from experiments._output import Output


@dataclass(frozen=True)
class Options:
    """The log, what is assumed beside it, and the sizes of the exact audits."""

    campaign: str = "all"
    """Campaign of the log: all, men or women; see the first table before using the last two."""
    values: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Assumed: values per click that each advertiser may have, by what she reports."""
    decay: tuple[float, ...] = (1.0, 0.7, 0.5)
    """Assumed: click rate of each slot over that of the first."""
    agents: int = 4
    """Advertisers who compete for the slots, at least as many as there are."""
    impressions: int = 1000
    """Impressions of each slot."""
    sample: int = 5000
    """Past impressions of which each advertiser has counted the clicks: her private signal."""
    kept: int = 3
    """Impressions on whose clicks one pivot is settled (footnote 19)."""
    realised: int = 400
    """Impressions for the check of every realisation, one and two slots."""
    grids: tuple[int, ...] = (3, 5, 9, 17)
    """Numbers of values in the search for transfers other than the pivot's."""
    rivals: int = 3
    """Items that compete for one slot, by uncertainty of their click rates."""
    points: int = 2
    """Points that stand for the posterior of each item's click rate."""
    logged: int = 3
    """Other impressions of each item on which a pivot for items is settled."""
    chances: tuple[float, ...] = (0.5, 0.75, 0.9, 0.95, 0.99)
    """Chances of the efficient draw in the lottery of footnote 21."""
    shown: int = 20
    """Items in the auction at values drawn at random."""
    spread: float = 0.1
    """Assumed: standard deviation of the log of those values; the median is 1."""
    seed: int = 0
    """Seed of those values."""
    results: Path = RESULTS
    """Folder; files go to `click_auction` inside."""


def describe_log(output: Output, campaign: str) -> None:
    """Say what is in the log and whether it fits the shop's own figures."""
    rows = []
    for name in ("all", "men", "women"):
        log = open_bandit(name)
        for k, policy in enumerate(("bts", "random")):
            found = log.diagnostics(policy)
            rows.append(
                {
                    "campaign": name,
                    "policy": policy,
                    "items": len(log.items),
                    "impressions": int(log.impressions[k].sum()),
                    "clicks predicted [1]": found["predicted"],
                    "clicks seen": int(found["seen"]),
                    "p-value [1]": f"{found['p_value']:.2g}",
                    "propensity sum over expected [1]": found["propensity_sum"],
                }
            )
    output.table("log", pd.DataFrame(rows), "The log against the shop's own Beta laws")
    log = open_bandit(campaign)
    shown, clicks, p_value = log.position_counts()
    frame = pd.DataFrame(
        {
            "position": range(1, 4),
            "impressions": shown.astype(int),
            "clicks": clicks.astype(int),
            "rate [%]": 100 * clicks / shown,
        }
    )
    output.table("positions", frame, f"Positions, campaign {campaign}")
    output.say(f"Equal rates in all positions: p = {p_value:.2f}; a decay is an assumption.")
    for policy in ("bts", "random"):
        found = log.diagnostics(policy)
        if found["p_value"] < 0.01 or abs(found["propensity_sum"] - 1) > 0.1:
            output.say(f"Warning: the {policy} log of {campaign} does not fit its own figures.")
    output.picture("rates", draw_rates(log))


def draw_rates(log: ClickLog, count: int = 24):
    """Draw the posterior of the items of highest rate, and two unbiased estimates of it."""
    chosen = log.select(count)
    across = np.arange(count)
    figure, axes = new_figure(9.5, 4.6)
    styles = (
        (log.click_frequency("random"), ORANGE, "^", "clicks / impressions, random log"),
        (log.inverse_propensity_rate("bts"), GREEN, "s", "inverse propensity, sampler's log"),
    )
    for shift, (found, colour, mark, label) in zip((0.12, 0.24), styles):
        axes.plot(across + shift, 100 * found.rate[chosen], mark, color=colour, label=label, ms=5)
    found = log.posterior_rate()
    axes.errorbar(
        across - 0.12, 100 * found.rate[chosen], 200 * found.error[chosen],
        fmt="o", color=BLUE, label="posterior mean, 2 standard deviations", ms=4,
    )  # fmt: skip
    axes.set_xticks(across, [log.items[k].removeprefix("item ") for k in chosen])
    tidy(axes, "Noise of unbiased estimates against the posterior", "item", "click rate, %")
    axes.legend(frameon=False, fontsize=9)
    return figure


def slot_auctions(output: Output, log: ClickLog, options: Options) -> None:
    """Price, audit and settle the auction of slots."""
    output.heading("Slots: one click rate each, the same for all advertisers")
    auction = slots.slot_auction(
        log, options.decay, options.values, options.agents, options.impressions, options.sample
    )
    level = 100 * np.asarray(auction.rates.points)[:, 0]
    output.say(
        f"Rate of the first slot: {', '.join(f'{x:.3f}' for x in level)} %, equally likely. "
        f"Assumption 2 holds: {bool(auction.informational_richness().all())}."
    )
    table = slots.prices(auction)
    clicks = [column for column in table.columns if column.startswith("pivot, a click")]
    paid = [column for column in table.columns if " payment " in column or " own " in column]
    output.table("click_prices", table.drop(columns=paid), "Who pays for which click")
    output.table(
        "payments", table.drop(columns=clicks), f"Payments for {options.impressions} impressions"
    )
    built = slots.mechanisms(auction, options.kept)
    frame = pd.DataFrame([slots.row(one) for one in built])
    frame.loc[1, "mechanism"] = f"per-click pivot, {options.kept} impressions counted"
    output.table("slot_audits", frame, "Audit over all values and signals")
    output.bullets([f"{one.name}: {slots.lie(one)}" for one in built[2:]])
    output.picture("payments", draw_payments(table, frame))
    frame = slots.realised(log, options.decay, options.values, options.realised)
    output.table("realised", frame, f"Every realisation of {options.realised} impressions a slot")


def draw_payments(table: pd.DataFrame, audits: pd.DataFrame):
    """Draw prices per own click beside the largest gains."""
    figure, (left, right) = new_figure(11, 4.2, ncols=2, width_ratios=(1.1, 1))
    names = ("pivot", "generalised second price")
    filled = table[table["slot"] != "none"]
    across = np.arange(len(filled))
    for shift, name, colour in zip((-0.18, 0.18), names, (BLUE, RED)):
        height = filled[f"{name}: per own click [money]"]
        left.bar(across + shift, height, 0.34, color=colour, label=name)
    value = filled["value per click [money]"]
    left.hlines(value, across - 0.36, across + 0.36, color=GREY, label="value per click")
    left.set_xticks(across, [f"slot {k + 1}" for k in across])
    left.set_xlim(-0.6, len(filled) - 0.4)
    left.set_ylim(top=1.2 * value.max())
    tidy(left, "Expected payment per own click", "", "money a click")
    left.legend(frameon=False, fontsize=9, loc="upper right")
    order = np.arange(len(audits))[::-1]
    gains = audits["largest gain [money]"].to_numpy()
    right.barh(order, gains, color=[BLUE if g < 1e-9 else RED for g in gains])
    for y, gain in zip(order, gains):
        right.annotate(f" {gain:.2f}" if gain > 1e-9 else " 0", (gain, y), va="center")
    right.set_yticks(order, audits["mechanism"])
    right.set_xlim(right=1.15 * gains.max())
    tidy(right, "Largest gain of a lie", "money, all impressions", "")
    right.grid(visible=False)
    return figure


def converse(output: Output, options: Options) -> None:
    """Show what pins the pivot's transfers down, and what does not."""
    output.heading("Proposition 2: the converse")
    output.say(
        "One slot of rate 0.2, 0.4 or 0.6, two advertisers; the transfers of the first, at the "
        "rival's middle value."
    )
    output.table("perturbed", slots.perturbed(), "Other transfers, audited")
    output.say(
        "A bet that is fair under each of her posteriors breaks no condition as long as it stays "
        "within her slack, so Assumption 2 does not give (18) state by state: it gives the "
        "expectation given the signals, which is the pivot's without Assumption 2 as well, as the "
        "step of the grid of values goes to zero. If she may know the state, the bet pays her to "
        "lie, and (18) holds in each state in the limit."
    )
    frame = slots.widths(options.grids)
    output.table("converse", frame, "Farthest transfers that keep every condition")
    figure, panels = new_figure(9.5, 4.0, ncols=2, sharey=True)
    kinds = (("none", GREY, "o-"), ("a sample", RED, "s--"), ("may know", BLUE, "^-"))
    labels = ("E[t | S] from the pivot's [money]", "t from (17) in a state [money]")
    titles = ("Expectation given the signals", "In one state, (18)")
    for axes, label, title in zip(panels, labels, titles):
        for kind, colour, mark in kinds:
            rows = frame[(frame["signals"] == kind) & (frame["transfers use reports"] == "all")]
            step = rows["step of values [money]"]
            size = 9 if kind == "none" else 5
            axes.plot(step, rows[label], mark, color=colour, ms=size, label=f"signals: {kind}")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        tidy(axes, title, "step of the grid of values, money", "")
    panels[0].set_ylabel("farthest from the pivot, money")
    panels[0].legend(frameon=False, fontsize=9)
    output.picture("converse", figure)


def item_auctions(output: Output, log: ClickLog, options: Options) -> None:
    """Audit the auctions over items, and run one at values drawn at random."""
    output.heading("Items: a click rate for each advertiser")
    frame, sentence = items.footnote_20()
    output.table("footnote_20", frame, "Footnote 20, per-click second price: theta = (1, 0.6)")
    output.bullets([sentence])
    chosen = log.select(options.rivals, "uncertain")
    auction = items.item_auction(
        log, chosen, options.values, options.impressions, options.sample, options.points
    )
    built = items.mechanisms(auction, options.logged, options.sample)
    names = ", ".join(log.items[k] for k in chosen)
    frame = pd.DataFrame([slots.row(one, states=False) for one in built])
    output.table("item_audits", frame, f"Audit over {names}")
    output.bullets([f"{one.name}: {slots.lie(one)}" for one in built])
    frame, sentence = items.equation_19()
    output.table("equation_19", frame, "Whose reports may choose the rival in (19)")
    output.bullets([sentence])
    single = items.item_auction(log, chosen[:2], options.values, 1, options.sample, options.points)
    frame = items.lotteries(single, options.chances)
    output.table("lotteries", frame, "Lottery of footnote 21, two items, 1000 impressions")
    output.picture("lotteries", draw_lotteries(frame))
    frame = items.real_auction(log, options.shown, options.spread, options.seed)
    output.table("real_auction", frame, "All items of the auction", show=False)
    title = f"First 6 of {options.shown} items at values drawn at random"
    output.table("leaders", items.leaders(frame, 6), title)
    output.table("settled", items.settled(frame), "What the winner pays for 1000 impressions")


def draw_lotteries(frame: pd.DataFrame):
    """Draw the price of efficiency: welfare lost, gains, noise of payments."""
    figure, panels = new_figure(10.5, 3.8, ncols=3)
    chance = frame["chance of the efficient draw p [1]"]
    panels[0].plot(chance, frame["welfare lost [%]"], "o-", color=BLUE)
    tidy(panels[0], "Welfare lost", "p", "% of efficient welfare")
    for name, colour in (("price as printed", RED), ("price times p", BLUE)):
        panels[1].plot(chance, frame[f"gain, {name} [money]"], "o-", color=colour, label=name)
    tidy(panels[1], "Largest gain of a lie", "p", "money per 1000 impressions")
    panels[1].legend(frameon=False, fontsize=9)
    panels[2].semilogy(chance, frame["largest payment [money]"], "o-", color=BLUE)
    tidy(panels[2], "Largest payment for a click", "p", "money")
    return figure


def main(options: Options) -> None:
    """Run the experiment."""
    output = Output(options.results / "click_auction", "assumed units")
    log = open_bandit(options.campaign)
    output.heading("The log")
    output.say(f"Source: {log.source}.")
    output.bullets(log.assumptions)
    describe_log(output, options.campaign)
    slot_auctions(output, log, options)
    converse(output, options)
    item_auctions(output, log, options)
    output.finish(options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
