"""What a mesh of devices made of a machine's cores gains, and what very many conversations take.

The same solve, audit and simulation without a mesh and with one, in turns; and `simulate_summary`
over as many conversations as a shop has in years, in memory that does not grow.

    python -m experiments.devices --conversations 100000000
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import RESULTS
from experiments._output import Output

_FIRST = 200_000  # conversations after which memory is looked at first


@dataclass(frozen=True)
class Options:
    """How much of it."""

    results: Path = RESULTS
    """Folder under which devices/ is written."""
    devices: int = 2
    """Devices made of the cores; 1 leaves the comparison out."""
    pairs: int = 3
    """Runs of each without and with a mesh, in turns; the table has medians."""
    drawn: int = 2_000_000
    """Conversations of the simulation that is compared."""
    conversations: int = 100_000_000
    """Conversations whose moments are kept; 0 leaves them out."""
    seed: int = 0
    """Seed of profiles and conversations."""


def cars(seed: int) -> tuple[dm.RecommendationMDP, dm.Profiles]:
    """Six cars, 200 tastes, four rounds, ratings of three symbols; 16 profiles."""
    market = dm.applications.cars(year=1990, products=6, tastes=200, selection="segments")
    rating = dm.RatingFeedback(noise=5.0, symbols=3)
    env = dm.RecommendationMDP(
        market.gamma, market.tastes, 4,
        dm.LastShownOnly(dm.Logit(market.taste_scale), query=0.9),
        dm.SignalStructure(dm.GaussianSignals(30.0, 60.0), rating, dm.RatingSettlement(5.0)),
        dm.ConstantValues(market.theta[:, None] * [0.8, 1.0, 1.2]), market.names,
    )  # fmt: skip
    return env, env.sample_profiles(jax.random.key(seed), 16)


def small() -> dm.DynamicTeamMechanism:
    """Two products, three rounds."""
    env = dm.RecommendationMDP(
        [[1.0, -0.5], [-0.4, 0.9]], dm.TasteGrid(np.eye(2), [0.4, 0.6]), 3,
        dm.PerfectRecall(dm.Logit(0.5), query=0.7),
        dm.SignalStructure(dm.NoSignals(), dm.RatingFeedback(1.0, 2), dm.RatingSettlement(1.0)),
        dm.ConstantValues([[0.5, 0.9], [0.6, 0.2]]),
    )  # fmt: skip
    return dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))


def compared(options: Options) -> pd.DataFrame:
    """Seconds by the clock without a mesh and with one, medians of runs in turns."""
    mesh = jax.make_mesh((options.devices,), ("parts",))
    env, batch = cars(options.seed)
    policy = dm.solve_efficient_policy(env, dm.Exact(), initial=batch, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.WindowCeiling())
    key = jax.random.key(options.seed)
    works: dict[str, Callable[[jax.sharding.Mesh | None], object]] = {
        "solve": lambda mesh: dm.solve_efficient_policy(
            env, dm.Exact(), initial=batch, mesh=mesh, progress=False
        ),
        "audit": lambda mesh: mechanism.audit(mesh=mesh),
        "simulation": lambda mesh: mechanism.simulate_summary(
            key, options.drawn, mesh=mesh, progress=False
        ),
    }
    rows = []
    for name, work in works.items():
        found = np.zeros((options.pairs + 1, 2))
        for pair, which in np.ndindex(found.shape):
            began = time.perf_counter()
            work(mesh if which else None)
            found[pair, which] = time.perf_counter() - began
        alone, spread = np.median(found[1:], axis=0)  # the first pair compiles
        rows.append({"work": name, "alone [s]": alone, "with a mesh [s]": spread})
    return pd.DataFrame(rows)


def many(options: Options) -> pd.DataFrame:
    """Time and memory of very many conversations."""
    mechanism, key = small(), jax.random.key(options.seed)

    def held() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    mechanism.simulate_summary(key, min(_FIRST, options.conversations), progress=False)
    first, began, used = held(), time.monotonic(), time.process_time()
    mechanism.simulate_summary(key, options.conversations, progress=False)
    return pd.DataFrame([{
        "conversations [1]": options.conversations,
        "clock [s]": time.monotonic() - began,
        "processor [s]": time.process_time() - used,
        "most held at first [MB]": first,
        "most held [MB]": held(),
    }])  # fmt: skip


def main(options: Options) -> None:
    """Run, print and write the tables."""
    out = Output(options.results / "devices", "")
    if options.conversations:
        out.table("many", many(options), "Moments of very many conversations")
    if options.devices > 1:
        out.table("devices", compared(options), f"A mesh of {options.devices} made of the cores")
    out.finish(options)


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    jax.config.update("jax_num_cpu_devices", chosen.devices)  # before JAX starts
    main(chosen)
