"""Joint prediction: expected pivot transfers in closed form, by simulation, and as printed.

Examples 1, 3 and 5 and Claim 1. The formula printed in Example 3 is shown beside the corrected
one: (n-1) [(E[omega|s] - E[omega|s_-i])^2 - (mean theta - mean theta_-i)^2].

Run `python -m experiments.static_prediction --help`.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from dynmech import static


@dataclass(frozen=True)
class Options:
    """Compare the pivot's ex-ante transfers with their simulation, and the printed formula."""

    out: Path = Path("results/static")
    """Folder for the table."""
    theta: tuple[float, ...] = (0.0, 0.5, 1.5)
    """Biases."""
    noise: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Noise variances of the signals."""
    draws: int = 1_000_000
    """Draws of the state and the signals."""
    seed: int = 0
    """Seed of the draws."""


def measure(options: Options) -> pd.DataFrame:
    """Compute one row for each agent."""
    theta, noise = np.array(options.theta), np.array(options.noise)
    n = len(theta)
    game = static.JointPrediction(theta, noise)
    found = game.simulate(jax.random.key(options.seed), options.draws)
    expected = -np.asarray(game.ex_ante_pivot_transfers())  # the paper's t_i
    signals = np.zeros(n)
    rows = []
    for i in range(n):
        rest = np.delete(theta, i)
        steering = (theta.mean() - rest.mean()) ** 2
        news = expected[i] / (n - 1) + steering
        lie_theta, lie_signal, gain = game.message_lie(i, signals)
        rows.append(
            {
                "agent": i + 1,
                "closed form": expected[i],
                "simulated": -found.value[i],
                "standard error": found.error[i],
                "z": (-found.value[i] - expected[i]) / found.error[i],
                "as printed": news - ((rest.mean() - rest) ** 2).sum(),
                "lie on messages: theta": float(lie_theta),
                "signal": float(lie_signal),
                "gain": float(gain),
            }
        )
    return pd.DataFrame(rows)


def main(options: Options) -> None:
    """Run the experiment."""
    options.out.mkdir(parents=True, exist_ok=True)
    frame = measure(options)
    frame.to_csv(options.out / "prediction.csv", index=False)
    table = Table(*map(str, frame.columns), title="Pivot transfers in joint prediction, ex ante")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{x:.5g}" for x in row))
    Console(width=140).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
