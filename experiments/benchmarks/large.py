"""Large markets, each in a process of its own: seconds, gap, and the most memory that it held.

G(m, T) is the benchmark of generic likelihoods (`instances.generic`), the shops are those of
`instances.shop`; all economies, solved by what `solver=None` picks, to a share of the upper bound.
Long ones have W alone certified, around a network's policy.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import dynmech as dm
from experiments.benchmarks.instances import generic, shop
from experiments.benchmarks.rows import most_held, row


class Large(NamedTuple):
    """A market, the share of W to which it is solved, and by what; None: what is picked."""

    make: Callable[[], dm.RecommendationMDP]
    share: float = 0.0
    solver: dm.Neural | None = None


def _network() -> dm.Neural:
    return dm.Neural(
        sweeps=3, runs=16, steps=80, certificate=dm.Certificate(runs=256, marginal_runs=0, walk=0)
    )


MARKETS = {
    "G(50, 6)": Large(lambda: generic(50, 6), 1e-3),
    "G(50, 8)": Large(lambda: generic(50, 8), 1e-3),
    "G(50, 10)": Large(lambda: generic(50, 10), 1e-2),
    "G(200, 8)": Large(lambda: generic(200, 8), 1e-3),
    "imperfect recall, 20 x 256 x 3": Large(lambda: shop(20, 256, 3, "imperfect")),
    "perfect recall, 50 x 256 x 3": Large(lambda: shop(50, 256, 3, "perfect")),
    "perfect recall, 20 x 256 x 5": Large(lambda: shop(20, 256, 5, "perfect")),
    "last shown only, 200 x 256 x 3": Large(lambda: shop(200, 256, 3, "last"), 1e-2),
    "last shown only, 20 x 256 x 10": Large(lambda: shop(20, 256, 10, "last"), 5e-2),
    "last shown only, 50 x 1024 x 20": Large(lambda: shop(50, 1024, 20, "last"), 0.0, _network()),
    "perfect recall, 50 x 1024 x 20": Large(lambda: shop(50, 1024, 20, "perfect"), 0.0, _network()),
}
"""The markets, those but G by products x tastes x rounds."""

_PATIENCE = 600.0  # seconds of a search, which then shows the gap that it reached


def rows(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row a market; a solve that fails is an error, one that stops short shows its gap."""
    found = []
    for name in names:
        call = [sys.executable, "-m", "experiments.benchmarks.large", name]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        share = f"to {MARKETS[name].share:g} of W" if MARKETS[name].share else "exact"
        what, size = f"every economy {share}", f"{one['nodes']:,} nodes, {one['status']}, largest"
        if MARKETS[name].solver is not None:
            what, size = "W by a network", "95%,"
        found.append(
            row(
                f"{name}, {what}, compilation included",
                one["seconds"],
                f"{size} gap {one['gap']:.2g} of W",
                f"most memory {one['held']:.2f} GB",
                one["solver"],
            )
        )
    return found


def measure(name: str) -> dict[str, Any]:
    """Solve one market; seconds of the processor, and memory above what the imports hold."""
    make, share, solver = MARKETS[name]
    env = make()
    with jax.enable_x64(True):
        jax.block_until_ready(jax.numpy.zeros(1) + 1)
    before, begin = most_held(), time.process_time()
    policy = dm.solve_efficient_policy(
        env, solver, initial=env.sample_profiles(jax.random.key(0), 1), relative=share,
        seconds=_PATIENCE, progress=False,
    )  # fmt: skip
    seconds = time.process_time() - begin
    gaps = policy.upper - policy.lower, policy.marginal_upper - policy.marginal_lower
    width = max(float(np.nanmax(gap, initial=0.0)) for gap in gaps)
    return {
        "seconds": seconds, "held": most_held() - before, "nodes": policy.work.nodes,
        "gap": width / float(policy.upper.max()), "status": policy.status.name,
        "solver": policy.solver.partition(",")[0],
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
