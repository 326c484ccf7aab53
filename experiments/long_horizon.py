"""Long horizons: a value network, certified bounds around it, and the policies it has to beat.

Every market is one that no tree fits. Lower bounds are simulated on fresh conversations (95%,
one-sided); upper bounds plan exactly for some rounds and are then told the taste, without
sampling error. The network's own numbers are never shown. Simpler policies meet the same draws as
the network's, and differences are taken conversation by conversation.

Run `python -m experiments.long_horizon --help`.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd
import tyro
from scipy.special import stdtrit

import dynmech as dm
from experiments._figures import BLUE, GREY, RED, RESULTS, new_figure, tidy
from experiments._output import Output
from experiments.benchmarks.instances import hidden_taste

Name = Literal[
    "impatient", "persistent", "learning", "noisy", "perfect recall", "hidden taste", "cars",
    "electricity",
]  # fmt: skip
BASELINES = ("myopic", "posterior sampling", "knowledge gradient", "greedy for told-omega")
UNIT = "units of money; cars in thousand 1983 USD, electricity in cents per kWh"


@dataclass(frozen=True)
class Options:
    """Train, certify, and compare on markets that differ in persistence and in what is learned."""

    results: Path = RESULTS
    """Folder under which long_horizon/ is written."""
    markets: tuple[Name, ...] = (
        "impatient", "persistent", "learning", "hidden taste", "cars", "electricity"
    )  # fmt: skip
    """impatient, persistent, learning: an ideal product for every user, only what is on the screen
    is bought, ratings of what was shown; a query with probability .5, .9, or the likelier the
    worse the match. noisy: as persistent, .93, with ratings that tell little: the bounds are far
    apart, as told omega is worth much for long. perfect recall: what was shown before can be
    bought. hidden taste: the benchmark H. cars, electricity: real products, a query with
    probability .9."""
    products: int = 20
    """Products, but in hidden taste, which has five, and electricity, which has eight."""
    tastes: int = 512
    """Taste points, but in hidden taste and cars, which have 200 at most, electricity 361."""
    rounds: int = 20
    """Rounds, but half as many again in hidden taste."""
    sweeps: int = 10
    """Most training sweeps."""
    runs: int = 32
    """Training conversations of each economy in a sweep."""
    steps: int = 160
    """Gradient steps of a sweep."""
    conversations: int = 1024
    """Fresh conversations that bound W from below, and again for each policy compared."""
    marginal: int = 128
    """Fresh conversations that bound each marginal economy."""
    work: float = 3e11
    """Multiplications allowed for the upper bound of W, and for all the others together."""
    relaxed: int = 48
    """Draws of the upper bound by information relaxation, two rounds ahead; 0 leaves it out."""
    seed: int = 0
    """Seed of the markets, the training and the conversations."""


def make_market(name: Name, options: Options) -> dm.RecommendationMDP:
    """Build one market of the requested size."""
    n, m, rounds = options.products, options.tastes, options.rounds
    if name == "hidden taste":
        return hidden_taste(min(m, 200), rounds * 3 // 2)
    if name in ("cars", "electricity"):
        return _real(name, n, m, rounds)
    if name == "perfect recall":
        return _perfect_recall(options)
    dimensions = 3 if name == "learning" else 2
    rng = np.random.default_rng(options.seed)
    ideal = rng.uniform(size=(n, dimensions))
    wanted = rng.uniform(size=(m, dimensions))
    theta = rng.uniform(0.3, 1.0, size=n)
    # u_j = 1 - 4 |wanted - ideal_j|^2, linear in (1, wanted, |wanted|^2).
    squares = (ideal**2).sum(axis=1, keepdims=True)
    gamma = np.concatenate([1 - 4 * squares, 8 * ideal, np.full((n, 1), -4.0)], axis=1)
    tastes = [np.ones((m, 1)), wanted, (wanted**2).sum(axis=1, keepdims=True)]
    query: float | dm.FallingQuery = {"impatient": 0.5, "noisy": 0.93}.get(name, 0.9)
    if name == "learning":
        query = dm.FallingQuery(slope=0.3, low=0.05, high=0.95, nothing=0.6)
    noise = {"persistent": 0.25, "noisy": 1.0}.get(name, 0.5)
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(np.concatenate(tastes, axis=1), np.full(m, 1 / m)),
        horizon=rounds,
        action_rule=dm.LastShownOnly(dm.Logit(0.3), query),
        signals=dm.SignalStructure(feedback=dm.RatingFeedback(noise=noise, symbols=5)),
        values=dm.ConstantValues(theta),
    )


def _perfect_recall(options: Options) -> dm.RecommendationMDP:
    rng = np.random.default_rng(options.seed)
    gamma = rng.normal(size=(options.products, 4))
    omega = np.abs(rng.normal(size=(options.tastes, 4)))
    query = dm.FallingQuery(level=1.2, low=0.02, high=0.95, nothing=0.6)
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, np.full(options.tastes, 1 / options.tastes)),
        horizon=options.rounds,
        action_rule=dm.PerfectRecall(dm.Threshold(), query),
        signals=dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=5)),
        values=dm.ConstantValues(rng.uniform(0.3, 1.5, size=options.products)),
    )


def _real(name: str, products: int, tastes: int, rounds: int) -> dm.RecommendationMDP:
    if name == "cars":
        market = dm.applications.cars(1990, products, min(tastes, 200), selection="segments")
    else:
        market = dm.applications.electricity(min(products, 8), min(tastes, 361))
    points, weights = np.asarray(market.tastes.points), np.asarray(market.tastes.weights)
    utilities = np.asarray(market.gamma) @ points.T
    apart = utilities - (utilities @ weights)[:, None]
    noise = 0.3 * float(np.sqrt((apart**2 @ weights).mean()))
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


def network_of(policy: dm.EfficientPolicy) -> Any:
    """What the training of the policy's network left: its history and its bounds."""
    return policy.evaluator


def train(env: dm.RecommendationMDP, options: Options, marginal: bool = True) -> dm.EfficientPolicy:
    """Train and certify; without the marginal economies the value alone is wanted."""
    certificate = dm.Certificate(
        runs=options.conversations,
        marginal_runs=options.marginal if marginal else 0,
        work=options.work,
        seed=options.seed + 1,
        rounds=None if marginal else 0,
        walk=0,
    )
    solver = dm.Neural(
        sweeps=options.sweeps,
        runs=options.runs,
        steps=options.steps,
        seed=options.seed,
        certificate=certificate,
    )
    one = dm.Profiles(np.zeros((1, env.products), int), np.zeros((1, env.products + 1), int))
    return dm.solve_efficient_policy(env, solver, initial=one)


def certificate_row(
    name: str, policy: dm.EfficientPolicy, minutes: float, computing: float, options: Options
) -> dict[str, Any]:
    """Summarise one market's bounds."""
    economies = policy.bounded("marginal_value"), policy.bounded("displayable_marginal_value")
    env, upper = policy.env, float(policy.upper[0])
    value, sampled = float(policy.value[0]), float(policy.value[0] - policy.lower[0])
    worst = [100 * float((b.gap / abs(upper)).max()) for b in economies]
    open_ = upper - value
    told = policy.relax(options.relaxed, rounds=2) if options.relaxed else None
    return {
        "market": name,
        "n, m, T": f"{env.products}, {env.tastes.size}, {env.horizon}",
        "policy [money]": value,
        "s.e. [money]": policy.bounded("value").error[0],
        "lower, 95% [money]": policy.lower[0],
        "upper [money]": upper,
        "upper by relaxation, 95% [money]": told.upper if told else np.nan,
        "gap [%]": 100 * float(policy.incentive_bound[0] / abs(upper)),
        "largest gap W^-i [%]": worst[0],
        "largest gap Wd^-i [%]": worst[1],
        "rounds planned [1]": network_of(policy).bounds.rounds,
        "all [min]": minutes,
        "CPU [min]": computing,
        "limit": "policy and upper bound" if open_ > sampled else "conversations simulated",
    }


def comparison_rows(
    name: str, policy: dm.EfficientPolicy, options: Options
) -> list[dict[str, Any]]:
    """Simulate the simpler policies on the same draws, and one that hears no feedback."""
    found = policy.compare(BASELINES, options.conversations, seed=options.seed + 2)
    columns = (found.value, found.error, found.difference, found.difference_error)
    rows = [list(row) for row in zip(found.name, *columns, strict=True)]
    silent = train(_without_feedback(policy.env), options, marginal=False)
    apart = found.value[0] - silent.value[0]
    error = np.hypot(found.error[0], silent.bounded("value").error[0])
    rows.append(
        ["neural, no feedback", silent.value[0], silent.bounded("value").error[0], apart, error]
    )
    start = np.asarray(policy.player.process.start())[None]
    belief = policy.roots[0] / policy.roots[0].sum()
    told = float(policy.player.ceilings[0].value(0, start)[0] @ belief)
    rows.append(["told-omega ceiling", told, 0.0, found.value[0] - told, found.error[0]])
    rows[0][3:] = [np.nan, np.nan]
    return [
        {
            "market": name,
            "policy": label,
            "W [money]": value,
            "s.e. [money]": error,
            "of the upper bound [%]": 100 * value / policy.upper[0],
            "neural less this [money]": less,
            "s.e. of that [money]": spread,
        }
        for label, value, error, less, spread in rows
    ]


def _without_feedback(env: dm.RecommendationMDP) -> dm.RecommendationMDP:
    """The same market when users rate nothing: a query itself is all that is learned."""
    signals = dm.SignalStructure(settlement=env.signals.settlement)
    parts = (env.gamma, env.tastes, env.horizon, env.action_rule, signals, env.values, env.names)
    return dm.RecommendationMDP(*parts)


def draw(results: list[tuple[str, dm.EfficientPolicy]], runs: int):
    """Value and certificate, and the held-out residual, against training time.

    Each sweep's policy was simulated in `runs` fresh conversations: its own bound from below.
    """
    step = float(stdtrit(runs - 1, 0.95))
    width = max(3.3 * len(results), 5.0)
    figure, axes = new_figure(width, 5.6, nrows=2, ncols=len(results), squeeze=False)
    for k, (name, policy) in enumerate(results):
        minutes, value, error = (
            network_of(policy).history[:, 0] / 60,
            *network_of(policy).history[:, 3:].T,
        )
        top, bottom = axes[:, k]
        below = np.minimum(value - step * error, policy.upper[0])
        label = "certified gap after each sweep, 95%"
        top.fill_between(
            minutes, below, policy.upper[0], color=RED, alpha=0.12, linewidth=0, label=label
        )
        top.plot(minutes, value, color=BLUE, marker="o", markersize=3, label="policy, simulated")
        top.axhline(policy.upper[0], color=RED, label="certified upper bound")
        top.axhline(
            policy.lower[0], color=RED, linestyle="--", label="certified lower bound, final"
        )
        # The untrained network's sweep sets no scale.
        low = min(policy.lower[0], below[1:].min(initial=np.inf))
        high = max(policy.upper[0], value.max())
        margin = 0.1 * max(high - low, 1e-3 * abs(high))
        top.set_ylim(low - margin, high + margin)
        gap = 100 * policy.incentive_bound[0] / abs(policy.upper[0])
        unit = "surplus W [money]" if k == 0 else ""
        tidy(top, f"{name}: certified gap {gap:.2g}%", "training [minutes]", unit)
        top.ticklabel_format(axis="y", useOffset=False)
        bottom.plot(
            minutes, 100 * network_of(policy).history[:, 1], color=GREY, marker="o", markersize=3
        )
        up = "held-out Bellman residual\n[% of largest surplus]" if k == 0 else ""
        tidy(bottom, "", "training [minutes]", up)
        bottom.set_ylim(bottom=0)
        for axis in (top, bottom):
            axis.set_xlim(0, 1.04 * minutes.max())
            axis.locator_params(axis="x", nbins=4)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    columns = 4 if len(results) > 2 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def main(options: Options) -> None:
    """Run the experiment."""
    output = Output(options.results / "long_horizon", UNIT)
    certificates, baselines, results = [], [], []
    with jax.enable_x64(True):
        for name in options.markets:
            begun, used = time.monotonic(), _computing()
            env = make_market(name, options)
            policy = train(env, options)
            minutes = (time.monotonic() - begun) / 60
            computing = (_computing() - used) / 60
            certificates.append(certificate_row(name, policy, minutes, computing, options))
            baselines += comparison_rows(name, policy, options)
            results.append((name, policy))
            # Written after every market: a long run that is stopped keeps what it has.
            for stem, rows in (("certificates", certificates), ("baselines", baselines)):
                pd.DataFrame(rows).to_csv(output.folder / f"{stem}.csv", index=False)
            output.picture("training", draw(results, options.runs))
    output.heading("Certified gaps")
    frame = pd.DataFrame(certificates)
    output.table("certificates", frame, "", show=False)
    split = list(frame.columns).index("gap [%]") + 1
    output.show(frame.iloc[:, :split], "Bounds on W; its gap in % of the upper bound")
    title = "Largest gaps of marginal economies, in % of W's upper bound; minutes of all of it"
    output.show(frame.iloc[:, [0, *range(split, frame.shape[1])]], title)
    output.heading("Simpler policies")
    title = "Values by simulation, on the same draws but for the policy without feedback"
    output.table("baselines", pd.DataFrame(baselines), title)
    output.finish(options)


def _computing() -> float:
    """Seconds of CPU so far."""
    spent = os.times()
    return spent.user + spent.system


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options))
