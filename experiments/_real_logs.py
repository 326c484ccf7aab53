"""Two logs of what people did, read from counts, and the shopper that is fitted to them.

Counts by round are the whole of a log in which nothing is known of a round but whether it was the
last and how it ended: each conversation is written out, one row a round. What was shown is not in
the counts; it is called by one name, and fitted as one product.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

import dynmech as dm

Name = Literal["dialogues", "sessions"]
DATA = Path(__file__).parent / "data"
SHOWN = "what was shown"
PARAMETERS = ("query", "outside option")
SOURCES: dict[Name, str] = {
    "dialogues": "MG-ShopDial: people coached through buying something (SIGIR 2023), counts",
    "sessions": "sessions at an online shop, by product pages (UCI Online Shoppers, 2018), counts",
}


def dialogues() -> pd.DataFrame:
    """Coached conversations, one row a recommendation: 59 of them, 256 rows.

    A recommendation that is answered with a yes and ends the conversation counts as bought, any
    other end as left.
    """
    counts = pd.read_csv(DATA / "shopping_dialogues.csv")
    return _rows(counts["round"], counts["ended_with_positive_answer"], counts["ended_other"])


def sessions(rounds: int) -> pd.DataFrame:
    """Sessions of an online shop, one row a product page, cut after `rounds` pages.

    The 35 sessions without a product page are left out. How long a session was is known, and
    whether it bought; it need not have bought on its last page, to which the purchase is put.
    """
    counts = pd.read_csv(DATA / "shop_sessions.csv").iloc[1 : rounds + 1]
    page = counts["product_pages_viewed"].astype(int)
    beyond = int(counts["sessions_at_risk"].iloc[-1] - counts[["buy", "exit"]].iloc[-1].sum())
    return _rows(page, counts["buy"], counts["exit"], beyond)


def _rows(rounds: Any, bought: Any, left: Any, longer: int = 0) -> pd.DataFrame:
    """A row a round of every conversation, from counts by round; `longer` ones go on after it."""
    length = np.concatenate([np.repeat(rounds, bought), np.repeat(rounds, left)])
    length = np.concatenate([length, np.full(longer, max(rounds))]).astype(int)
    ends = np.repeat(["buy", "exit", "query"], [sum(bought), sum(left), longer])
    owner = np.repeat(np.arange(len(length)), length)
    turn = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length) + 1
    action = np.where(turn == length[owner], ends[owner], "query")
    return pd.DataFrame({"id": owner, "turn": turn, "shown": SHOWN, "did": action})


def read(name: Name, rounds: int) -> dm.Log:
    """The log of that name; `rounds` is where sessions are cut."""
    frame = dialogues() if name == "dialogues" else sessions(rounds)
    return dm.Log.from_frame(frame, conversation="id", round="turn", shown="shown", action="did")


def fit_shopper(log: dm.Log, market: dm.applications.Market) -> dm.Fit:
    """Chance of another question and the value of leaving, tastes being the market's.

    The product on the screen is the average of the market's.
    """
    shopper = dm.RecommendationMDP(
        np.asarray(market.gamma).mean(axis=0, keepdims=True),
        market.tastes,
        horizon=int(log.round.max()),
        action_rule=dm.LastShownOnly(dm.Logit(market.taste_scale), query=0.5),
        signals=dm.SignalStructure(),
        values=dm.ConstantValues([0.0]),
        names=(SHOWN,),
    )
    return dm.fit(log, shopper, PARAMETERS, progress=False)
