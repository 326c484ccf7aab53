"""Auctions of one slot over real items, each with its own click rate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dynmech import TasteGrid, static
from dynmech.applications import ClickLog
from experiments._click_slots import median_cut, row


def item_auction(
    log: ClickLog, items: Sequence[int], values: Sequence[float], impressions: int,
    sample: int, points: int,
) -> static.AgentClickAuction:  # fmt: skip
    """Build the auction of one slot: each advertiser has a sample of her own item's clicks."""
    rates = log.rates(items, points)
    n = len(items)
    cut = median_cut(sample, float(np.mean(rates.mean)))
    signals = static.sampled_clicks(rates, range(n), sample, cut)
    names = [log.items[k] for k in items]
    return static.AgentClickAuction(rates, [list(values)] * n, impressions, signals, names)


def informed_rival(auction: static.AgentClickAuction) -> static.DirectMechanism:
    """Charge the winner M theta_j omega_j with j the best rival at *all* reports.

    That is how the sentence after (19) reads; (19) itself picks j at the others' reports only.
    """
    env = auction.env
    score = auction.values() * auction.expected_rates()
    chosen, points = env.efficient_allocation(), np.asarray(auction.rates.points)
    transfers = []
    for i in range(env.agents):
        rest = score.copy()
        rest[..., i] = -1.0
        rival = rest.argmax(axis=-1)
        value = np.take_along_axis(auction.values(), rival[..., None], axis=-1)
        paid = auction.impressions * value * points.T[rival]
        transfers.append(np.where((chosen == i)[..., None], paid, 0.0))
    law = [static.IdealData().law(env)] * env.agents
    return static.DirectMechanism(env, chosen, transfers, law, "pivot, rival chosen at all reports")


def mechanisms(
    auction: static.AgentClickAuction, logged: int, sample: int
) -> list[static.DirectMechanism]:
    """Build every mechanism for one slot that shows the efficient item for sure."""
    env, rates = auction.env, auction.rates
    counted = static.click_frequency(rates, logged)
    channel = static.sampled_clicks(
        rates, range(env.agents), sample, median_cut(sample, float(np.mean(rates.mean)))
    ).table.reshape(rates.size, -1)
    mean = static.Estimator.posterior_mean(rates, channel)
    name = "pivot, {}".format
    return [
        static.per_click_second_price(auction),
        informed_rival(auction),
        static.data_driven_vcg(env, None, "pivot", name("rates known afterwards")),
        static.data_driven_vcg(env, counted, "pivot", name("unbiased: other clicks counted")),
        static.data_driven_vcg(env, mean, "pivot", name("biased: posterior means")),
    ]


def equation_19() -> tuple[pd.DataFrame, str]:
    """Audit both readings of (19) where one agent knows how good the best rival is.

    The first agent's rate is 1/2; she alone knows whether the second's is 0.6 or 0.2; the third's
    is 0.3. Told that it is 0.2, the mechanism charges her for the third instead of the second.
    """
    rates = TasteGrid([[0.5, 0.6, 0.3], [0.5, 0.2, 0.3]], [0.5, 0.5])
    signals = static.PrivateSignals.independent([np.eye(2), np.ones((2, 1)), np.ones((2, 1))])
    auction = static.AgentClickAuction(rates, [[0.5, 1.0, 1.5]] + [[1.0] * 3] * 2, 1, signals)
    both = [
        static.data_driven_vcg(auction.env, None, "pivot", "pivot, rival at the others' reports"),
        informed_rival(auction),
    ]
    audit = both[1].audit()
    return pd.DataFrame([row(one, states=False) for one in both]), audit.witness[0].sentence()


def lotteries(auction: static.AgentClickAuction, chances: Sequence[float]) -> pd.DataFrame:
    """Tabulate the lotteries of footnote 21 over 1000 impressions, each drawn anew.

    `auction` is that of one impression. The deviation is that of the sum of 1000 transfers.
    """
    best, many, rows = auction.welfare(), 1000, []
    for chance in chances:
        pivot, printed = (
            static.click_lottery(auction, chance, rule) for rule in ("pivot", "printed")
        )
        audit = printed.audit()
        rows.append(
            {
                "chance of the efficient draw p [1]": chance,
                "welfare lost [%]": 100 * (1 - auction.lottery(chance).welfare() / best),
                "gain, price times p [money]": many * pivot.audit().epsilon,
                "gain, price as printed [money]": many * audit.epsilon,
                "participation, as printed [money]": many * float(np.nanmin(audit.participation)),
                "largest payment [money]": float(max(t.max() for t in pivot.transfer)),
                "deviation of a payment [money]": many**0.5 * deviation(pivot),
            }
        )
    return pd.DataFrame(rows)


def deviation(mechanism: static.DirectMechanism) -> float:
    """Largest standard deviation of a transfer, over agents, profiles and states."""
    env, worst = mechanism.env, 0.0
    for i in range(env.agents):
        law = mechanism.law[i][mechanism.allocation]
        paid = mechanism.transfer[i][..., None, :]
        mean = (law * paid).sum(axis=-1)
        square = (law * paid**2).sum(axis=-1) - mean**2
        worst = max(worst, float(np.sqrt(np.maximum(square, 0)).max()))
    return worst


def footnote_20(values: tuple[float, float] = (1.0, 0.6)) -> tuple[pd.DataFrame, str]:
    """Reproduce footnote 20: two agents, M = 1, each knows her own rate."""
    levels = np.array([0.2, 0.5, 1.0])
    pairs = np.array([(a, b) for a in levels for b in levels])
    seen = [(pairs[:, i, None] == levels).astype(float) for i in (0, 1)]
    states = TasteGrid(pairs, np.full(len(pairs), 1 / len(pairs)))
    theta = [[values[1], values[0]], [values[1], values[1]]]
    signals = static.PrivateSignals.independent(seen)
    auction = static.AgentClickAuction(states, theta, 1, signals)
    mechanism = static.per_click_second_price(auction)
    env, own, rows = auction.env, auction.env.types[0], []
    first, second = values
    for s1, s2 in ((0.2, 0.5), (0.2, 1.0), (0.5, 1.0)):
        true = next(e for e in range(env.shape[0])
                    if own.theta[e] == 1 and levels[own.signal[e]] == s1)  # fmt: skip
        told = next(e for e in range(env.shape[0])
                    if own.theta[e] == 1 and own.signal[e] == 2)  # fmt: skip
        other = int(np.searchsorted(levels, s2))
        other = next(e for e, z in enumerate(env.types[1].signal) if z == other)
        state = int(np.flatnonzero((pairs == (s1, s2)).all(axis=1))[0])
        paid = mechanism.expected_transfer(0)[:, other, state]
        wins = mechanism.allocation[:, other] == 0
        rows.append(
            {
                "rates (s_1, s_2)": f"({s1:g}, {s2:g})",
                "efficient": "1" if first * s1 >= second * s2 else "2",
                "payoff, truth [money]": first * s1 * wins[true] - paid[true],
                "payoff, s_1 told as 1 [money]": first * s1 * wins[told] - paid[told],
                "(theta_1 - theta_2 s_2) s_1 [money]": (first - second * s2) * s1,
            }
        )
    audit = mechanism.audit()
    return pd.DataFrame(rows), audit.witness[0].sentence()


ESTIMATES = ("posterior", "clicks, random log", "inverse propensity, sampler's log")


def real_auction(log: ClickLog, count: int, spread: float, seed: int) -> pd.DataFrame:
    """Run the auction over the items of highest rate, with assumed values per click.

    Values are lognormal with median 1 and deviation `spread` in logs; items by value times
    posterior rate, the efficient order.
    """
    items = np.array(log.select(count))
    theta = np.exp(spread * np.random.default_rng(seed).standard_normal(count))
    found = (log.posterior_rate(), log.click_frequency("random"), log.inverse_propensity_rate())
    order = np.argsort(-theta * found[0].rate[items], kind="stable")
    items, theta = items[order], theta[order]
    frame = pd.DataFrame({"item": [log.items[k] for k in items], "value per click [money]": theta})
    for name, estimate in zip(ESTIMATES, found):
        frame[f"rate by {name} [%]"] = 100 * estimate.rate[items]
        frame[f"standard error, {name} [%]"] = 100 * estimate.error[items]
    return frame


def leaders(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Shorten the table of the real auction for print: estimates with their errors."""
    first = frame.head(count)
    short = pd.DataFrame({name: first[name] for name in ("item", "value per click [money]")})
    value = first["value per click [money]"] * first["rate by posterior [%]"]
    short["for 1000 impressions [money]"] = 10 * value
    for name in ESTIMATES:
        pairs = zip(first[f"rate by {name} [%]"], first[f"standard error, {name} [%]"])
        short[f"rate by {name} [%]"] = [
            "0, no click" if np.isnan(error) else f"{rate:.3f} ± {error:.3f}"
            for rate, error in pairs
        ]
    return short


def settled(frame: pd.DataFrame) -> pd.DataFrame:
    """Settle the real auction: what the winner pays per 1000 impressions, by the data used."""
    first, second = frame.iloc[0], frame.iloc[1]
    theta, own = second["value per click [money]"], first["rate by posterior [%]"] / 100
    rows = [
        {
            "settled on": f"runner-up's rate by {name}",
            "winner pays [money]": 10 * theta * second[f"rate by {name} [%]"],
            "standard error [money]": 10 * theta * second[f"standard error, {name} [%]"],
        }
        for name in ESTIMATES
    ]
    price = theta * second["rate by posterior [%]"] / first["rate by posterior [%]"]
    rows.append(
        {
            "settled on": f"winner's own clicks, {price:.3f} each (manipulable)",
            "winner pays [money]": 1000 * price * own,
            "standard error [money]": price * np.sqrt(1000 * own * (1 - own)),
        }
    )
    return pd.DataFrame(rows)
