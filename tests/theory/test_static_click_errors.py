"""What a user may get wrong in click auctions: one clear error each."""

import numpy as np
import pytest

from dynmech import DynmechError, TasteGrid
from dynmech import static as st

RATES = TasteGrid([[0.3, 0.1], [0.5, 0.4]], [0.5, 0.5])
VALUES = [[1.0, 2.0], [1.5, 2.5]]
AUCTION = st.ClickAuction(RATES, VALUES, 2)
SINGLE = st.AgentClickAuction(RATES, VALUES, 2)
CLICKS = st.click_frequency(RATES, 1)
TOO_HIGH = TasteGrid([[1.2, 0.1]], [1.0])
PRIVATE = st.PrivateSignals.independent([np.ones((2, 2, 1)), np.ones((1, 2, 1))])

MISTAKES = {
    "ClickAuction.rates=.*in .0, 1.*1.2 at state 0": lambda: st.ClickAuction(TOO_HIGH, VALUES),
    "AgentClickAuction.rates=.*in .0, 1": lambda: st.AgentClickAuction(TOO_HIGH, VALUES),
    "click_frequency.rates=.*per cent": lambda: st.click_frequency(TOO_HIGH, 2),
    "sampled_clicks.rates=": lambda: st.sampled_clicks(
        TasteGrid([[-0.1]], [1.0]), [0], 2, [1]
    ),
    "inverse_propensity.rates=": lambda: st.inverse_propensity(TOO_HIGH, [[0.5, 0.5]]),
    "rates=.*not increase": lambda: st.ClickAuction(TasteGrid([[0.1, 0.3]], [1.0]), VALUES),
    "ClickAuction.theta=.*shape": lambda: st.ClickAuction(RATES, [1.0, 2.0]),
    "theta=.*nonnegative": lambda: st.ClickAuction(RATES, [[-1.0], [1.0]]),
    "ClickAuction.theta=.*finite": lambda: st.ClickAuction(RATES, [[np.nan], [1.0]]),
    "theta=.*n >= K": lambda: st.ClickAuction(RATES, [[1.0]]),
    "impressions=.*integer": lambda: st.ClickAuction(RATES, VALUES, 0),
    "names=": lambda: st.ClickAuction(RATES, VALUES, names=["a"]),
    "theta=.*assignments": lambda: st.ClickAuction(
        TasteGrid([np.linspace(0.5, 0.1, 5)], [1.0]), np.ones((9, 1))
    ),
    "signals=": lambda: st.ClickAuction(RATES, VALUES, 1, st.PrivateSignals.none(3, 2)),
    "rates=.*each of 3 agents": lambda: st.AgentClickAuction(RATES, [[1.0]] * 3),
    "AgentClickAuction.names=|StaticEnvironment.names=": lambda: st.AgentClickAuction(
        RATES, VALUES, names=["a", "b", "c"]
    ),
    "efficient_chance=": lambda: st.AgentClickAuction(RATES, VALUES, efficient_chance=1.5),
    "signal_chance": lambda: st.AgentClickAuction(RATES, VALUES, 1, PRIVATE).welfare(),
    "click_prices.rule=": lambda: st.click_prices([1.0, 2.0], 1, "first price"),
    "click_prices.theta=.*shape": lambda: st.click_prices(3.0, 1),
    "click_prices.theta=.*n >= K": lambda: st.click_prices([1.0], 2),
    "click_prices.slots=": lambda: st.click_prices([1.0], 0),
    "information=": lambda: st.per_impression_pivot(AUCTION, "mine"),
    "realised_slack.mechanism=": lambda: st.realised_slack(
        AUCTION, st.click_pivot(AUCTION), CLICKS
    ),
    "kernel=.*states": lambda: st.click_pivot(
        AUCTION, st.Estimator([[0.0, 0.0]], [[1.0]] * 3)
    ),
    "points=.*coordinates": lambda: st.click_pivot(AUCTION, st.Estimator([[0.0]], [[1.0]] * 2)),
    "impressions=.*cells": lambda: st.click_frequency(RATES, 10_000),
    "impressions=.*at least 1": lambda: st.click_frequency(RATES, 0),
    "cuts=": lambda: st.sampled_clicks(RATES, [0], 3, [2, 2]),
    "cuts=.*1..3": lambda: st.sampled_clicks(RATES, [0], 3, [4]),
    "coordinates=": lambda: st.sampled_clicks(RATES, [2], 3, [1]),
    "allocations=.*shape": lambda: st.inverse_propensity(RATES, [0.5, 0.5]),
    "allocations=.*sum": lambda: st.inverse_propensity(RATES, [[0.5, 0.6]]),
    "allocations=.*positive": lambda: st.inverse_propensity(RATES, [[1.0, 0.0]]),
    "inverse_propensity.impressions=.*cells": lambda: st.inverse_propensity(
        RATES, [[0.5, 0.5]], 5_000_000
    ),
    "per_click_second_price.*for sure": lambda: st.per_click_second_price(SINGLE.lottery(0.5)),
    "per_click_second_price.*cells|profiles times": lambda: st.per_click_second_price(
        st.AgentClickAuction(RATES, VALUES, 6_000_000)
    ),
    "click_lottery.*below 1": lambda: st.click_lottery(SINGLE, 1.0),
    "click_lottery.efficient_chance=": lambda: st.click_lottery(SINGLE, 0.0),
    "click_lottery.rule=": lambda: st.click_lottery(SINGLE, 0.5, "efficient"),
    "agent=.*0..1": lambda: st.transfer_range(AUCTION, 2, [0, 0]),
    "others=.*index": lambda: st.transfer_range(AUCTION, 0, [0, 5]),
    "transfer_range.auction=": lambda: st.transfer_range(
        st.ClickAuction(RATES, np.linspace(0, 1, 800) * np.ones((2, 1))), 0, [0, 0]
    ),
    "together": lambda: st.transfer_range(
        st.ClickAuction(
            TasteGrid([[0.3]] * 2 , [0.5, 0.5]),
            np.ones((3, 1)),
            1,
            st.PrivateSignals.independent([np.ones((2, 1)), np.eye(2), np.eye(2)]),
        ),
        0,
        [0, 0, 1],
    ),
    "replace_transfers.transfers=": lambda: st.replace_transfers(
        AUCTION, 0, [0, 0], [0.0, 0.0]
    ),
    "transfers=.*finite": lambda: st.replace_transfers(
        AUCTION, 0, [0, 0], np.full((2, 2), np.nan)
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    with pytest.raises(DynmechError, match=f"(?i){message}"):
        MISTAKES[message]()
