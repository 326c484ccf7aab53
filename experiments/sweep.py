"""Comparative statics with error bars: welfare and revenue against the platform's precision.

One cell a market, noise of the platform's context and seed; every noise gets the same seeds, and
so the same tastes and values, so that differences between noises are paired. Finished cells are
kept in the results folder: the same command goes on from there, and workers may share it.

    python -m experiments.sweep --workers 2
    python -m experiments.sweep --cluster logs     # jobs of a cluster, by submitit
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

import dynmech as dm
from dynmech.errors import import_extra
from experiments import _markets as markets
from experiments._figures import RESULTS
from experiments._output import Output

PROFILES = 8


@dataclass(frozen=True)
class Options:
    """What is varied, and who works."""

    names: tuple[markets.Real, ...] = ("cars", "electricity")
    """Markets, of three products and two rounds."""
    noises: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Noise of the platform's context, in multiples of the demo's."""
    base: float = 10.0
    """The noise that others are compared with."""
    seeds: int = 8
    """Draws of 8 profiles at each setting."""
    workers: int = 1
    """Local processes."""
    cluster: Path | None = None
    """Folder of a cluster's logs: cells are submitted as its jobs, by submitit."""
    quick: bool = False
    """Two noises, two seeds and the first market: a try, no result."""
    results: Path = RESULTS
    """Folder; files go to `sweep` inside."""


def cell(seed: int, market: markets.Real, noise: float) -> dict[str, float]:
    """Welfare and revenue of one market at one noise, over profiles drawn with one seed."""
    env, _ = markets.real_market(market)
    _, platform, advertisers = markets.REAL_NOISE[market]
    signals = dm.SignalStructure(
        dm.GaussianSignals(noise * platform, advertisers, symbols=2),
        env.signals.feedback,
        env.signals.settlement,
    )
    env = dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule, signals, env.values, env.names
    )
    drawn = env.sample_profiles(jax.random.key(seed), PROFILES)
    policy = dm.solve_efficient_policy(env, initial=drawn, progress=False)
    found = {"welfare": float(policy.value.mean())}
    for name, term in (
        ("phi_minus", dm.groves.Participation()),
        ("phi_plus", dm.groves.NoSubsidy(displayable=True)),
    ):
        mechanism = dm.DynamicTeamMechanism(policy, term)
        paid = policy.advertiser_value - mechanism.agent_payoff + mechanism.groves_total
        found[name] = float(paid.sum(axis=0).mean())
    return found


def main(options: Options) -> None:
    """Sweep, print paired differences and draw; returns nothing."""
    noises, seeds, names = options.noises, options.seeds, options.names
    if options.quick:
        noises, seeds, names = (noises[0], options.base), 2, names[:1]
    executor = None
    if options.cluster is not None:
        submitit = import_extra("submitit", "cluster", "experiments.sweep")
        executor = submitit.AutoExecutor(folder=options.cluster)
    for name in names:
        market = markets.real_market(name)[1]
        out = Output(options.results / "sweep" / name, market.unit)
        out.heading(f"Welfare and revenue against the platform's noise: {name}")
        out.bullets(markets.real_assumptions(market, name))
        out.say(
            "phi_minus and phi_plus: expected revenue with the pivot that keeps participation, and "
            "with the displayable one that gives no subsidy."
        )
        found = dm.sweep(
            cell,
            {"market": [name], "noise": sorted({*noises, options.base})},
            seeds=seeds,
            folder=out.folder / "cells",
            workers=options.workers,
            executor=executor,
        )
        columns = {x: f"{x} [money]" for x in np.ravel([[m, f"{m}_error"] for m in found.measures])}
        renamed = {**columns, "noise": "noise [times the demo's]", "seeds": "seeds [1]"}
        out.table("means", found.summary().rename(columns=renamed), "Means over seeds")
        paired = found.differences("noise", options.base).rename(columns=renamed)
        title = f"Less noise than {options.base:g} times the demo's: differences paired by seed"
        out.table("differences", paired, title)
        out.picture("noise", found.plot("noise"))
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
