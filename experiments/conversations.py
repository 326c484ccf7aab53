"""The shipped log: conversations about tents, drawn from a market that is known.

A shop recommends one tent a round by the efficient policy, from what it and the makers know first.
Two buyers in five send a rating. What is written is what a shop would have logged: what a fit
finds in it can be compared with the truth, the market of `notebooks/tents`.

    python -m experiments.conversations
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro

import dynmech as dm

DATA = Path(__file__).parent / "data"
TENTS = Path(__file__).parent.parent / "notebooks" / "tents"
NAME = "tents_log.csv"
CHANCE = 0.4


@dataclass(frozen=True)
class Options:
    """What is drawn."""

    seed: int = 0
    """Of the draws."""
    conversations: int = 1500
    """How many."""
    folder: Path = DATA
    """Where the table goes."""


def market(settlement_chance: float = CHANCE) -> dm.RecommendationMDP:
    """The tents, each purchase rated with this chance."""
    tents = dm.read_market(TENTS)
    rating = dm.MissingRatings(tents.signals.settlement, settlement_chance)
    signals = dm.SignalStructure(tents.signals.initial, tents.signals.feedback, rating)
    return dataclasses.replace(tents, signals=signals)


def main(options: Options) -> Path:
    """Write the log and return its path."""
    policy = dm.solve_efficient_policy(market(), progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero(), estimator=dm.InversePropensity())
    drawn = mechanism.simulate(jax.random.key(options.seed), options.conversations)
    frame = drawn.to_log().to_frame().round({"rating": 1})
    frame["action"] = frame["action"].where(frame["action"] != "buy", frame.pop("bought"))
    names = {"conversation": "id", "round": "turn", "shown": "product", "action": "did"}
    path = options.folder / NAME
    frame.rename(columns=names).to_csv(path, index=False, lineterminator="\n")
    return path


if __name__ == "__main__":
    print(main(tyro.cli(Options)))
