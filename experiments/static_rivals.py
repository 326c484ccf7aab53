"""Rival mechanisms on one item auction: messages, Mezzetti, lotteries, data-driven VCG; Example 7.

Claim 2 and Example 6 (the profitable lie, and the least epsilon of any transfers on messages),
Proposition 5 with condition (11) (how bets grow as beliefs approach the hull, and the
convex combination where they meet it), Proposition 6, footnote 12, Example 7.

Run `python -m experiments.static_rivals --help`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

import dynmech as dm
from dynmech import DynmechError, TasteGrid, static

RICH = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
COARSE = np.array([[0.8, 0.2], [0.5, 0.5], [0.3, 0.7]])


@dataclass(frozen=True)
class Options:
    """Compare mechanisms, and follow the lottery's bets as condition (11) fails."""

    out: Path = Path("results/static")
    """Folder for the tables."""
    spreads: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 0.001, 0.0)
    """How much the first agent's second structure says; at 0 its posterior is the prior."""


def auction(first: np.ndarray, values: list[list[float]]) -> static.StaticEnvironment:
    """Build the auction of an item of unknown quality, by the first agent's signals."""
    return static.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] * x[i],
        np.eye(2),
        TasteGrid([[0.1], [0.4], [0.8]], [0.3, 0.4, 0.3]),
        values,
        static.PrivateSignals.independent([first, COARSE]),
        names=("first", "second"),
        allocation_names=("first wins", "second wins"),
    )


def rivals() -> pd.DataFrame:
    """Audit every mechanism on the same auction."""
    env = auction(RICH, [[1.0, 1.9, 2.0], [1.2, 1.8, 2.1]])
    clicks = static.Estimator.frequency(env.states, 10)
    mechanisms = [
        *(static.message_vcg(env, groves) for groves in (dm.groves.Zero(), "pivot", "informed")),
        static.least_message_epsilon(env).mechanism,
        static.mezzetti(env),
        static.lottery_mechanism(env).mechanism,
        static.data_driven_vcg(env, groves="pivot"),
        static.data_driven_vcg(env, clicks, "pivot"),
    ]
    rows = []
    for mechanism in mechanisms:
        audit = mechanism.audit()
        worst = int(np.argmax(audit.incentive_gain))
        holds = audit.epsilon <= max(audit.tolerance, 1e-7)
        rows.append(
            {
                "mechanism": mechanism.name,
                "largest gain": audit.epsilon,
                "worst participation": float(np.nanmin(audit.participation)),
                "worst no subsidy": float(np.nanmin(audit.no_subsidy)),
                "profitable lie": "none" if holds else audit.witness[worst].sentence(),
            }
        )
    return pd.DataFrame(rows)


def lottery(options: Options) -> pd.DataFrame:
    """Follow margin, scale and the largest bet as the second structure loses its information."""
    rows, tilt = [], np.array([1.0, -1.0, 0.5])
    for spread in options.spreads:
        other = 0.5 + spread * np.stack([tilt, -tilt], axis=1)
        env = auction(np.stack([COARSE, other]), [[1.1], [1.0]])
        margin = min(r.separation.margin.min() for r in static.check_relevance(env))
        row = {"spread": spread, "margin": float(margin)}
        try:
            found = static.surplus_extraction(env)
            audit = found.mechanism.audit()
            bets = [found.scale[r.agent] * np.abs(r.separation.bet).max() for r in found.relevance]
            row |= {
                "scale": float(found.scale.max()),
                "largest bet": float(max(bets)),
                "largest gain": audit.epsilon,
                "largest rent": float(np.nanmax(np.abs(audit.participation))),
                "outcome": "extracts all surplus",
            }
        except DynmechError as error:
            row |= {"outcome": str(error).split("got ")[1].split("; use")[0]}
        rows.append(row)
    return pd.DataFrame(rows)


def example_7() -> pd.DataFrame:
    """Audit Example 7, where u_2 depends on theta_1."""
    grid = np.linspace(0, 1, 6)
    env = static.StaticEnvironment(
        lambda i, x, omega, theta: (theta[0] if i == 0 else theta[1] - theta[0]) * x[i] * omega[0],
        np.eye(2),
        TasteGrid([[0.2], [0.9]], [0.5, 0.5]),
        np.stack([grid, grid]),
        interdependent=True,
        names=("first", "second"),
        allocation_names=("first wins", "second wins"),
    )
    audit = static.data_driven_vcg(env).audit()
    return pd.DataFrame(
        {
            "agent": audit.names,
            "largest gain": audit.incentive_gain,
            "profitable lie": [w.sentence() for w in audit.witness],
        }
    )


def main(options: Options) -> None:
    """Run the experiment."""
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=160)
    for name, frame, title in (
        ("rivals", rivals(), "Mechanisms on one auction"),
        ("lottery", lottery(options), "Surplus extraction as condition (11) fails"),
        ("example_7", example_7(), "Example 7: interdependent preferences"),
    ):
        frame.to_csv(options.out / f"{name}.csv", index=False)
        table = Table(*map(str, frame.columns), title=title)
        for row in frame.itertuples(index=False):
            table.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row))
        console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
