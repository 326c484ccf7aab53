"""Auctions of several slots: prices, audits, realised clicks, and the converse of Proposition 2."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynmech import TasteGrid, static
from dynmech.applications import ClickLog

OTHER = np.array([0.2, 0.4, 0.6])


def median_cut(impressions: int, rate: float) -> list[int]:
    """Return the cut nearest to the expected number of clicks, at least one."""
    return [int(np.clip(round(impressions * rate), 1, impressions))]


def slot_auction(
    log: ClickLog, decay: Sequence[float], values: Sequence[float], agents: int,
    impressions: int, sample: int,
) -> static.ClickAuction:  # fmt: skip
    """Build the auction of slots at the log's pooled click rate, each agent with a sample."""
    rates = log.slot_rates(decay)
    cut = median_cut(sample, float(rates.mean[0]))
    signals = static.sampled_clicks(rates, [0] * agents, sample, cut)
    names = [log.items[k] for k in log.select(agents)]
    return static.ClickAuction(rates, [list(values)] * agents, impressions, signals, names)


def prices(auction: static.ClickAuction) -> pd.DataFrame:
    """Tabulate who gets which slot and pays what, at the highest profile of distinct values."""
    env = auction.env
    values = np.sort(np.asarray(env.theta)[0])[::-1][: env.agents]
    rates = np.asarray(auction.rates.mean)
    clicks = auction.impressions * np.append(rates, np.zeros(env.agents - auction.slots))
    frame = pd.DataFrame(
        {
            "advertiser": list(env.names),
            "value per click [money]": values,
            "slot": [str(k + 1) if k < auction.slots else "none" for k in range(env.agents)],
            "expected clicks [1]": clicks,
        }
    )
    for rule in ("pivot", "generalised second price"):
        table = static.click_prices(values, auction.slots, rule)
        for k in range(auction.slots if rule == "pivot" else 0):
            frame[f"pivot, a click on slot {k + 1} [money]"] = table[:, k]
        paid = auction.impressions * table @ rates
        each = np.divide(paid, clicks, out=np.full(len(clicks), np.nan), where=clicks > 0)
        frame[f"{rule}: payment [money]"] = paid
        frame[f"{rule}: per own click [money]"] = each
    return frame


def row(mechanism: static.DirectMechanism, states: bool = True) -> dict[str, Any]:
    """Audit a mechanism: one row of a table, with slacks in the worst state or in expectation."""
    audit = mechanism.audit()
    kind, slacks = "expected", (audit.participation, audit.no_subsidy)
    if states:
        kind = "worst state"
        slacks = (audit.worst_state_participation, audit.worst_state_no_subsidy)
    return {
        "mechanism": mechanism.name,
        "largest gain [money]": audit.epsilon,
        f"participation, {kind} [money]": float(np.nanmin(slacks[0])),
        f"no subsidy, {kind} [money]": float(np.nanmin(slacks[1])),
        "equilibrium": "holds" if audit.epsilon <= audit.tolerance else "fails",
    }


def lie(mechanism: static.DirectMechanism) -> str:
    """Say the most profitable lie."""
    audit = mechanism.audit()
    return audit.witness[int(np.argmax(audit.incentive_gain))].sentence()


def mechanisms(auction: static.ClickAuction, kept: int) -> list[static.DirectMechanism]:
    """Build every mechanism for slots; one pivot is settled on the clicks of few impressions."""
    few = static.click_frequency(auction.rates, kept)
    return [
        static.click_pivot(auction),
        static.click_pivot(auction, few),
        static.generalised_second_price(auction),
        *(static.per_impression_pivot(auction, who) for who in ("prior", "others", "reported")),
    ]


def realised(log: ClickLog, decay: Sequence[float], values: Sequence[float], impressions: int):
    """Tabulate the worst realisation for one and for two slots, Remark 2 and beyond."""
    rows = []
    for slots in (1, 2):
        rates = log.slot_rates(decay[:slots])
        support = [[min(values), max(values)], [float(np.median(values))] * 2, [min(values)] * 2]
        auction = static.ClickAuction(rates, support, impressions)
        clicks = static.click_frequency(rates, impressions)
        for build in (static.click_pivot, static.generalised_second_price):
            mechanism = build(auction, clicks)
            found = static.realised_slack(auction, mechanism, clicks)
            rows.append(
                {
                    "slots": slots,
                    "mechanism": mechanism.name,
                    "participation, worst clicks [money]": found.participation.min(),
                    "chance of a shortfall [%]": 100 * found.shortfall.max(),
                    "no subsidy, worst clicks [money]": found.no_subsidy.min(),
                    "chance of a subsidy [%]": 100 * found.subsidy.max(),
                }
            )
    return pd.DataFrame(rows)


def converse_auction(values: int, information: str) -> static.ClickAuction:
    """Build one slot of rate 0.2, 0.4 or 0.6, two agents, by what they know of it.

    "none"; "a sample": one impression each; "may know": the first agent has a sample or, under
    her other signal structure, sees the rate.
    """
    states = TasteGrid(OTHER[:, None], np.full(3, 1 / 3))
    one = np.stack([1 - OTHER, OTHER], axis=1)
    both = np.stack([np.pad(one, ((0, 0), (0, 1))), np.eye(3)])
    signals = {
        "none": None,
        "a sample": static.PrivateSignals.independent([one, one]),
        "may know": static.PrivateSignals.independent([both, one]),
    }[information]
    grid = np.linspace(0, 2, values)
    return static.ClickAuction(states, [grid, grid], 1, signals)


def rival_at(auction: static.ClickAuction) -> list[int]:
    """Index the rival's type with the middle value and the lowest signal."""
    own = auction.env.types[1]
    value = np.asarray(auction.env.theta)[1]
    return [0, int(np.argmax(value[own.theta] >= value[len(value) // 2]))]


def widths(grids: Sequence[int]) -> pd.DataFrame:
    """Tabulate how far transfers can be from (17), by information and grid of values."""
    rows = []
    for information in ("none", "a sample", "may know"):
        for size in grids:
            auction = converse_auction(size, information)
            for informed in (True, False):
                found = static.transfer_range(auction, 0, rival_at(auction), informed=informed)
                rows.append(
                    {
                        "signals": information,
                        "Assumption 2": "holds" if auction.informational_richness()[0] else "fails",
                        "transfers use reports": "all" if informed else "of value",
                        "step of values [money]": 2 / (size - 1),
                        "E[t | S] from the pivot's [money]": found.mean_width,
                        "t from (17) in a state [money]": found.state_width,
                    }
                )
    return pd.DataFrame(rows)


def fair_bet(auction: static.ClickAuction, others: Sequence[int]) -> np.ndarray:
    """Return a bet on the state, fair under every posterior of the first agent's sample.

    By value it is as large as participation and no subsidy in every state allow: (E_1, m).
    """
    from scipy.linalg import null_space

    env = auction.env
    cell = (slice(None), int(others[1]))
    sample = env.types[0].structure == 0
    bet = null_space(env.posterior(0)[cell][sample])[:, 0]
    paid = static.click_pivot(auction).transfer[0][cell]
    wins = auction.seats[auction.assortative()[cell], 0] == 0
    own = auction.values()[cell][:, 0]
    room = np.minimum(own[:, None] * OTHER * wins[:, None] - paid, paid)
    return (room / np.abs(bet)).min(axis=1)[:, None] * bet


def perturbed(values: int = 9) -> pd.DataFrame:
    """Change the transfers of one agent, and audit what breaks.

    The cases are those of the proof of Proposition 2: (16) is what the others get with her less
    what they get without her, and each part may use E[omega | s'] at her report in place of data.
    """
    rows = []
    for information in ("a sample", "may know"):
        auction = converse_auction(values, information)
        others = rival_at(auction)
        cell = (slice(None), others[1])
        paid = static.click_pivot(auction).transfer[0][cell]
        told = auction.expected_rates()[cell]
        price = float(auction.values()[cell][0, 1])
        lost = (auction.seats[auction.assortative()[cell]] != 0).astype(float)
        changes = {
            "none: (16)": paid,
            "0.1 more": paid + 0.1,
            "0.1 less": paid - 0.1,
            "prices up by half": 1.5 * paid,
            "prices down by half": 0.5 * paid,
            "case 1: part at reports": price * (OTHER - lost * told),
            "case 2: part at reports": price * (told - lost * OTHER),
            "case 3: all at reports": price * (1 - lost) * told * np.ones(len(OTHER)),
            "a fair bet on the rate": paid + fair_bet(auction, others),
        }
        for name, transfers in changes.items():
            mechanism = static.replace_transfers(auction, 0, others, transfers)
            tolerance, found = mechanism.audit().tolerance, row(mechanism)
            gain, participation, subsidy = list(found.values())[1:4]
            broken = [
                label
                for label, slack in (
                    ("incentives", -gain), ("participation", participation), ("subsidy", subsidy),
                )
                if slack < -tolerance
            ]  # fmt: skip
            rows.append(
                {
                    "signals": information,
                    "change of transfers": name,
                    **dict(list(found.items())[1:4]),
                    "t from (17) in a state [money]": float(np.abs(transfers - paid).max()),
                    "broken": ", ".join(broken) or "nothing",
                }
            )
    return pd.DataFrame(rows)
