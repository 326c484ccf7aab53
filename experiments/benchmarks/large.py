"""Large markets, each in a process of its own: seconds, gap, and the most memory that it held.

G(m, T) is the benchmark of generic likelihoods (`instances.generic`), the shops are those of
`instances.shop`; all economies, solved by what `solver=None` picks, to a share of the upper bound.
"""

import json
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

import dynmech as dm
from experiments.benchmarks.instances import generic, shop
from experiments.benchmarks.rows import most_held, row

MARKETS = {
    "G(50, 6)": (lambda: generic(50, 6), 1e-3),
    "G(50, 8)": (lambda: generic(50, 8), 1e-3),
    "G(50, 10)": (lambda: generic(50, 10), 1e-2),
    "G(200, 8)": (lambda: generic(200, 8), 1e-3),
    "imperfect recall, 20 x 256 x 3": (lambda: shop(20, 256, 3, "imperfect"), 0.0),
    "perfect recall, 50 x 256 x 3": (lambda: shop(50, 256, 3, "perfect"), 0.0),
    "perfect recall, 20 x 256 x 5": (lambda: shop(20, 256, 5, "perfect"), 0.0),
    "last shown only, 200 x 256 x 3": (lambda: shop(200, 256, 3, "last"), 1e-2),
    "last shown only, 20 x 256 x 10": (lambda: shop(20, 256, 10, "last"), 5e-2),
}
"""The markets (products x tastes x rounds), and the shares of W to which they are solved."""

_PATIENCE = 600.0  # seconds of a search, which then shows the gap that it reached


def rows(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row a market; a solve that fails is an error, one that stops short shows its gap."""
    found = []
    for name in names:
        call = [sys.executable, "-m", "experiments.benchmarks.large", name]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        share = f"to {MARKETS[name][1]:g} of W" if MARKETS[name][1] else "exact"
        found.append(
            row(
                f"{name}, every economy {share}, compilation included",
                one["seconds"],
                f"{one['nodes']:,} nodes, {one['status']}, largest gap {one['gap']:.2g} of W",
                f"most memory {one['held']:.2f} GB",
                one["solver"],
            )
        )
    return found


def measure(name: str) -> dict[str, Any]:
    """Solve one market; seconds of the processor, and memory above what the imports hold."""
    make, share = MARKETS[name]
    env = make()
    with jax.enable_x64(True):
        jax.block_until_ready(jax.numpy.zeros(1) + 1)
    before, begin = most_held(), time.process_time()
    policy = dm.solve_efficient_policy(
        env, initial=env.sample_profiles(jax.random.key(0), 1), relative=share,
        seconds=_PATIENCE, progress=False,
    )  # fmt: skip
    seconds = time.process_time() - begin
    gaps = policy.upper - policy.lower, policy.marginal_upper - policy.marginal_lower
    width = max(float(np.max(gap)) for gap in gaps)
    return {
        "seconds": seconds, "held": most_held() - before, "nodes": policy.work.nodes,
        "gap": width / float(policy.upper.max()), "status": policy.status.name,
        "solver": policy.solver.partition(",")[0],
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
