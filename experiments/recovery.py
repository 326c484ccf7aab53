"""How often a fit's intervals cover what the log was simulated with.

A small market of two products and four tastes is simulated again and again under a shop that shows
products at random; every log is fitted, and for every parameter the logs are counted whose interval
holds the truth: of 100 at 95%, between 88 and 99 but for one time in a hundred.

    python -m experiments.recovery
    python -m experiments.recovery --logs 400 --conversations 2000
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro
from scipy.special import ndtri

import dynmech as dm
from experiments._figures import RESULTS
from experiments._output import Output

POINTS = np.array([[2.0, 0.5, 0.0], [-1.0, 1.5, 0.0], [0.5, -1.5, 0.0], [-1.5, -1.0, 0.0]])
WEIGHTS = np.array([0.3, 0.3, 0.2, 0.2])
TRUTH = {
    "choice scale": 0.5, "query": 0.6, "feedback noise": 0.7, "settlement noise": 0.8,
    "outside option": 0.0, "rating chance": 0.7, "rating scale: a": 0.0, "rating scale: b": 1.0,
}  # fmt: skip
GUESS = {
    "choice scale": 1.0, "query": 0.3, "feedback noise": 1.5, "settlement noise": 2.0,
    "rating chance": 0.5,
}  # fmt: skip
# What is estimated together, from a guess; the rest is known.
TOGETHER = (
    (
        "choice scale", "query", "feedback noise", "settlement noise", "outside option",
        "rating chance",
    ),
    ("choice scale", "rating scale"),
    ("query", "taste weights"),
    ("taste mean", "taste covariance"),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How many logs, and how long they are."""

    results: Path = RESULTS
    """Folder under which recovery/ is written."""
    logs: int = 100
    """Logs that are simulated."""
    conversations: int = 400
    """Conversations of each."""
    confidence: float = 0.95
    """Level of the intervals."""


def market(values: dict[str, float]) -> dm.RecommendationMDP:
    """Two products over three rounds; a user remembers all that she was shown."""
    sent = dm.RatingSettlement(values["settlement noise"])
    return dm.RecommendationMDP(
        np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
        dm.TasteGrid(POINTS, WEIGHTS),
        3,
        dm.PerfectRecall(dm.Logit(values["choice scale"]), query=values["query"]),
        dm.SignalStructure(
            feedback=dm.RatingFeedback(values["feedback noise"], 5),
            settlement=dm.MissingRatings(sent, values["rating chance"]),
        ),
        dm.ConstantValues(np.ones((2, 1))),
    )


def truth() -> dict[str, float]:
    """Every estimate's true value, by its label."""
    mean = WEIGHTS @ POINTS
    spread = (WEIGHTS[:, None] * (POINTS - mean)).T @ (POINTS - mean)
    known = {f"taste weight: {k}": float(x) for k, x in enumerate(WEIGHTS)}
    for i in range(2):
        known[f"taste mean: {i}"] = float(mean[i])
        known |= {f"taste covariance: {i}, {j}": float(spread[i, j]) for j in range(i + 1)}
    return TRUTH | known


def simulated(options: Options) -> list[dm.Log]:
    """Logs of a shop that shows either product, by seed."""
    env = market(TRUTH)
    policy = dm.GivenPolicy(env, lambda *_: np.array([0.5, 0.5, 0.0]), name="at random")
    shop = dm.DynamicTeamMechanism(policy, dm.groves.Zero(), estimator=dm.InversePropensity())
    return [
        shop.simulate(jax.random.key(seed), options.conversations).to_log()
        for seed in range(options.logs)
    ]


def estimates(log: dm.Log, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Estimates and standard errors of one fit, those of the taste weights among them."""
    guess = TRUTH | {name: GUESS[name] for name in names if name in GUESS}
    fit = dm.fit(log, market(guess), list(names), progress=False)
    found = dict(fit.estimates)
    if "taste weights" in names:
        weights = np.asarray(fit.market.tastes.weights, float)
        for k, pair in enumerate(zip(weights.tolist(), fit.weights_error.tolist(), strict=True)):
            found[f"taste weight: {k}"] = pair
    return found


def count(logs: list[dm.Log], names: tuple[str, ...], confidence: float) -> list[dict[str, Any]]:
    """Fit every log; one row a parameter."""
    known, half = truth(), float(ndtri(0.5 + confidence / 2))
    every = [estimates(log, names) for log in logs]
    rows = []
    for label in every[0]:
        value, error = np.array([found[label] for found in every]).T
        rows.append({
            "fit": 1 + TOGETHER.index(names),
            "parameter": label,
            "truth": known[label],
            "mean estimate": value.mean(),
            "spread of estimates": value.std(ddof=1),
            "mean standard error": error.mean(),
            "logs": len(logs),
            "covered": int((np.abs(value - known[label]) < half * error).sum()),
        })  # fmt: skip
    return rows


def main(options: Options) -> None:
    """Simulate, fit, print and write the table."""
    out = Output(options.results / "recovery", "")
    out.heading("What was simulated, and what fits find of it")
    began = time.monotonic()
    logs = simulated(options)
    rows = [row for names in TOGETHER for row in count(logs, names, options.confidence)]
    table = pd.DataFrame(rows)
    sure = f"{100 * options.confidence:g}%"
    out.table(
        "recovery", table, f"Logs of {options.conversations} conversations; intervals at {sure}"
    )
    fits = len(logs) * len(TOGETHER)
    out.say(f"{fits} fits, {time.monotonic() - began:.0f} s with what is compiled first")
    out.finish(options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
