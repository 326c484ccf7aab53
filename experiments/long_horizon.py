"""Long horizons: a value network, certified bounds around it, and the policies it has to beat.

Every market is one that no tree fits. Lower bounds are simulated on fresh conversations (95%,
one-sided); upper bounds plan exactly for some rounds and are then told the taste, without
sampling error. The network's own numbers are never shown.

Run `python -m experiments.long_horizon --help`.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import BLUE, GREY, RED, RESULTS, new_figure, tidy
from experiments._output import Output
from experiments.benchmarks.instances import hidden_taste

Name = Literal["brief", "persistent", "learning", "hidden taste", "cars"]
BASELINES = ("myopic", "posterior sampling", "knowledge gradient", "greedy for told-omega")
UNIT = "units of money; cars in thousand 1983 USD"
Z95 = 1.645


@dataclass(frozen=True)
class Options:
    """Train, certify, and compare on markets that differ in persistence and in what is learned."""

    results: Path = RESULTS
    """Folder under which long_horizon/ is written."""
    markets: tuple[Name, ...] = ("brief", "persistent", "learning", "hidden taste", "cars")
    """brief, persistent: perfect recall, ratings of what was shown. learning: only what is on the
    screen is bought, noisy ratings. hidden taste: the benchmark H. cars: real products."""
    products: int = 20
    """Products, but in hidden taste, which has five."""
    tastes: int = 512
    """Taste points, but in hidden taste, which has 200 at most."""
    rounds: int = 20
    """Rounds, but half as many again in hidden taste."""
    sweeps: int = 12
    """Most training sweeps."""
    runs: int = 48
    """Training conversations of each economy in a sweep."""
    steps: int = 80
    """Gradient steps of a sweep."""
    conversations: int = 2048
    """Fresh conversations that bound W from below; a quarter of them for each baseline."""
    marginal: int = 128
    """Fresh conversations that bound each marginal economy."""
    work: float = 2e10
    """Multiplications allowed for each set of upper bounds."""
    seed: int = 0
    """Seed of the markets, the training and the conversations."""


def make_market(name: Name, options: Options) -> dm.RecommendationMDP:
    """Build one market of the requested size."""
    n, m, rounds = options.products, options.tastes, options.rounds
    if name == "hidden taste":
        return hidden_taste(min(m, 200), rounds * 3 // 2)
    if name == "cars":
        return _cars(n, m, rounds)
    rng = np.random.default_rng(options.seed)
    gamma = rng.normal(size=(n, 4))
    omega = rng.normal(size=(m, 4))
    if name != "learning":
        omega = np.abs(omega)
    theta = rng.uniform(0.3, 1.5, size=n)
    noise = 2.0 if name == "learning" else 1.0
    rule: dm.AbstractActionRule
    if name == "learning":
        rule = dm.LastShownOnly(dm.Logit(0.5), dm.FallingQuery(low=0.05, high=0.95, nothing=0.6))
    else:
        level, low = (1.2, 0.02) if name == "brief" else (1.9, 0.5)
        query = dm.FallingQuery(level=level, low=low, high=0.95, nothing=0.6)
        rule = dm.PerfectRecall(dm.Threshold(), query)
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, np.full(m, 1 / m)),
        horizon=rounds,
        action_rule=rule,
        signals=dm.SignalStructure(feedback=dm.RatingFeedback(noise=noise, symbols=5)),
        values=dm.ConstantValues(theta),
    )


def _cars(products: int, tastes: int, rounds: int) -> dm.RecommendationMDP:
    market = dm.applications.cars(year=1990, products=products, tastes=tastes)
    noise = 30.0
    return dm.RecommendationMDP(
        gamma=market.gamma,
        tastes=market.tastes,
        horizon=rounds,
        action_rule=dm.LastShownOnly(dm.Logit(market.taste_scale), 0.9),
        signals=dm.SignalStructure(
            feedback=dm.RatingFeedback(noise, symbols=5), settlement=dm.RatingSettlement(noise)
        ),
        values=dm.ConstantValues(market.theta),
        names=market.names,
    )


def solve(env: dm.RecommendationMDP, options: Options) -> tuple[dm.LongPolicy, float, float]:
    """Train and certify; minutes of training, and of everything."""
    begun = time.monotonic()
    policy = dm.solve_long_horizon(
        env,
        dm.Neural(sweeps=options.sweeps, runs=options.runs, steps=options.steps, seed=options.seed),
        certificate=dm.Certificate(
            runs=options.conversations,
            marginal_runs=options.marginal,
            work=options.work,
            seed=options.seed + 1,
        ),
    )
    training = float(policy.history[-1, 0]) if len(policy.history) else 0.0
    return policy, training / 60, (time.monotonic() - begun) / 60


def certificate_row(name: str, policy: dm.LongPolicy, minutes: tuple[float, float]) -> dict:
    """Summarise one market's bounds."""
    marginal, shown = policy.marginal, policy.displayable
    if marginal is None or shown is None:
        raise ValueError("certificate_row needs a policy solved with marginal=True")
    m = policy.env.tastes.size
    size = f"{policy.env.products}, {m}, {policy.process.horizon}"
    upper = policy.upper[0]
    worst = [100 * float((b.gap / np.abs(upper)).max()) for b in (marginal, shown)]
    return {
        "market": name,
        "n, m, T": size,
        "policy [money]": policy.value[0],
        "s.e. [money]": policy.bounds.error[0],
        "lower, 95% [money]": policy.lower[0],
        "upper [money]": upper,
        "gap [%]": 100 * float(policy.bounds.gap[0] / abs(upper)),
        "rounds planned [1]": policy.bounds.rounds,
        "largest gap W^-i [%]": worst[0],
        "largest gap Wd^-i [%]": worst[1],
        "training [min]": minutes[0],
        "all [min]": minutes[1],
    }


def baseline_rows(name: str, policy: dm.LongPolicy, options: Options) -> list[dict]:
    """Simulate the simpler policies on the same market."""
    count = max(options.conversations // 4, 30)
    rows = [("neural", float(policy.value[0]), float(policy.bounds.error[0]))]
    rows += [(x, *policy.baseline(x, count, seed=options.seed + 2)) for x in BASELINES]
    told = float(policy.ceilings[0].value(0, np.asarray(policy.process.start())[None])[0] @ (
        policy.root[0] / policy.root[0].sum()
    ))  # fmt: skip
    rows.append(("told-omega ceiling", told, 0.0))
    return [
        {
            "market": name,
            "policy": label,
            "W [money]": value,
            "s.e. [money]": error,
            "of the upper bound [%]": 100 * value / policy.upper[0],
        }
        for label, value, error in rows
    ]


def draw(results: list[tuple[str, dm.LongPolicy]]):
    """Value and certificate, and the held-out residual, against training time."""
    width = max(3.3 * len(results), 5.0)
    figure, axes = new_figure(width, 5.6, nrows=2, ncols=len(results), squeeze=False)
    for k, (name, policy) in enumerate(results):
        minutes, value, error = policy.history[:, 0] / 60, *policy.history[:, 3:].T
        top, bottom = axes[:, k]
        top.fill_between(
            minutes, value - Z95 * error, value + Z95 * error, color=BLUE, alpha=0.2, linewidth=0
        )
        top.plot(minutes, value, color=BLUE, marker="o", markersize=3, label="policy, simulated")
        top.axhline(policy.upper[0], color=RED, label="certified upper bound")
        top.axhline(
            policy.lower[0], color=RED, linestyle="--", label="certified lower bound, final"
        )
        # The untrained network's sweep sets no scale.
        low = min(policy.lower[0], value[1:].min(initial=np.inf))
        margin = 0.15 * max(policy.upper[0] - low, 1e-3 * abs(policy.upper[0]))
        top.set_ylim(low - margin, policy.upper[0] + margin)
        gap = 100 * policy.bounds.gap[0] / abs(policy.upper[0])
        unit = "surplus W [money]" if k == 0 else ""
        tidy(top, f"{name}: certified gap {gap:.2g}%", "training [minutes]", unit)
        top.ticklabel_format(axis="y", useOffset=False)
        bottom.plot(minutes, 100 * policy.history[:, 1], color=GREY, marker="o", markersize=3)
        up = "held-out Bellman residual\n[% of largest surplus]" if k == 0 else ""
        tidy(bottom, "", "training [minutes]", up)
        bottom.set_ylim(bottom=0)
        for axis in (top, bottom):
            axis.set_xlim(0, 1.04 * minutes.max())
            axis.locator_params(axis="x", nbins=4)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    columns = 3 if len(results) > 2 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def main(options: Options) -> None:
    """Run the experiment."""
    output = Output(options.results / "long_horizon", UNIT)
    certificates, baselines, results = [], [], []
    with jax.enable_x64(True):
        for name in options.markets:
            env = make_market(name, options)
            policy, *minutes = solve(env, options)
            certificates.append(certificate_row(name, policy, (minutes[0], minutes[1])))
            baselines += baseline_rows(name, policy, options)
            results.append((name, policy))
            # Written after every market: a long run that is stopped keeps what it has.
            for stem, rows in (("certificates", certificates), ("baselines", baselines)):
                pd.DataFrame(rows).to_csv(output.folder / f"{stem}.csv", index=False)
    frame = pd.DataFrame(certificates)
    output.heading("Certified gaps")
    output.table("certificates", frame, "Bounds on W and the marginal economies; gaps in % of W")
    output.heading("Baselines")
    output.table("baselines", pd.DataFrame(baselines), "Simulated values of simpler policies")
    output.picture("training", draw(results))
    output.finish()


if __name__ == "__main__":
    main(tyro.cli(Options))
