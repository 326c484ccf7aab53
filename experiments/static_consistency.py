"""Consistent estimators: the exact epsilon and its bounds against sample size.

Theorem 2, Lemmas 1 to 3, Proposition 7, Corollary 2 and Proposition 8 on an item auction with
u_i = theta_i omega^2 x_i (not affine), omega a click rate and the data m Bernoulli draws of it; and
the two ways in which condition 2 and bounded payoffs fall short (see the tests).

Run `python -m experiments.static_consistency --help`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from dynmech import TasteGrid, static


@dataclass(frozen=True)
class Options:
    """Print and save epsilon and the bounds of Lemmas 1 and 2 for growing samples."""

    out: Path = Path("results/static")
    """Folder for the tables."""
    samples: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    """Sample sizes."""
    states: int = 9
    """Points of the click rate, evenly spaced in [0.05, 0.95]."""


def auction(states: int) -> static.StaticEnvironment:
    """Build the auction: each agent sees one draw of the click rate."""
    rates = np.linspace(0.05, 0.95, states)
    clue = np.stack([rates, 1 - rates], axis=1)
    return static.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] ** 2 * x[i],
        np.eye(2),
        TasteGrid(rates[:, None], np.full(states, 1 / states)),
        [[1.0, 2.0], [1.0, 2.0]],
        static.PrivateSignals.independent([clue, clue]),
        names=("first", "second"),
    )


def measure(options: Options) -> pd.DataFrame:
    """Compute one row for each kind of data and sample size."""
    env, rows = auction(options.states), []
    for m in options.samples:
        draws = static.Estimator.frequency(env.states, m)
        for kind, data in (
            ("frequency (Theorem 2)", draws),
            (
                "posterior mean (Corollary 2)",
                static.Estimator.posterior_mean(env.states, draws.kernel),
            ),
            ("posterior (Proposition 8)", static.BayesianData(env.states, draws.kernel)),
        ):
            bounds = static.epsilon_bounds(env, data)
            epsilon = bounds.reports.max()
            rows.append(
                {
                    "data": kind,
                    "m": m,
                    "epsilon": epsilon,
                    "any allocation": bounds.any_allocation.max(),
                    "Lemma 1": bounds.lemma1.max(),
                    "(22)": bounds.lemma2_posterior.max(),
                    "(23)": bounds.lemma2_state.max(),
                    "m^0.4 epsilon": m**0.4 * epsilon,
                    "m^0.4 (23)": m**0.4 * bounds.lemma2_state.max(),
                }
            )
    return pd.DataFrame(rows).sort_values(["data", "m"], ignore_index=True)


def condition_2(options: Options) -> pd.DataFrame:
    """Compute epsilon where the data are consistent at every state but not uniformly.

    omega_hat_m = omega, but 1 where 0 < omega < 1/m. Agent 1 pays 0.3 for what gives agent 2 omega;
    she sees either a draw of probability omega (posteriors with densities), or omega itself.
    """
    count = 512
    points = np.append(0.0, (np.arange(count) + 0.5) / count)
    rows = []
    for sees, channel in (
        ("a draw", np.stack([1 - points, points], axis=1)),
        ("the state", np.eye(count + 1)),
    ):
        env = static.StaticEnvironment(
            lambda i, x, omega, theta: x[0] * (omega[0] if i else -0.3),
            [[0.0], [1.0]],
            TasteGrid(points[:, None], np.append(1e-9, np.full(count, (1 - 1e-9) / count))),
            [[0.0], [0.0]],
            static.PrivateSignals.independent([channel, np.ones((count + 1, 1))]),
        )
        for m in (m for m in options.samples if 1 < m <= 2 * count):
            wrong = (points > 0) & (points < 1 / m)
            told = np.eye(count + 2)[np.where(wrong, count + 1, np.arange(count + 1))]
            data = static.Estimator(np.append(points, 1.0)[:, None], told)
            bounds = static.epsilon_bounds(env, data)
            rows.append(
                {
                    "agent 1 sees": sees,
                    "m": m,
                    "epsilon": bounds.reports.max(),
                    "(22)": bounds.lemma2_posterior.max(),
                    "(23)": bounds.lemma2_state.max(),
                }
            )
    return pd.DataFrame(rows)


def show(frame: pd.DataFrame, title: str) -> None:
    """Print a table."""
    table = Table(title=title)
    for name in frame.columns:
        table.add_column(str(name), justify="left" if frame[name].dtype == object else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row))
    Console(width=140).print(table)


def main(options: Options) -> None:
    """Run the experiment."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name, frame, title in (
        ("consistency", measure(options), "Exact epsilon and its bounds"),
        ("condition_2", condition_2(options), "Condition 2 of Theorem 2, on 512 states"),
    ):
        frame.to_csv(options.out / f"{name}.csv", index=False)
        show(frame, title)


if __name__ == "__main__":
    main(tyro.cli(Options))
