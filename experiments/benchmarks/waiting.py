"""Waiting: imports, the first small solve, the next, and serving running conversations."""

import subprocess
import sys

import jax

import dynmech as dm
from experiments.benchmarks.instances import hidden_taste
from experiments.benchmarks.rows import row, timed

CONVERSATIONS = 10_000


def rows() -> list[dict]:
    """Time what a user waits for, in a fresh process; and serving."""
    code = (
        "import time, jax; a = time.perf_counter(); import dynmech; b = time.perf_counter();"
        "from experiments.benchmarks.instances import hidden_taste as h;"
        "s = lambda: dynmech.solve_efficient_policy(h(8, 2), progress=False);"
        "s(); c = time.perf_counter(); w = [];\n"
        "for _ in range(20): d = time.perf_counter(); s(); w.append(time.perf_counter() - d)\n"
        "print(b - a, c - b, min(w))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    labels = (
        "import dynmech, after jax (names load on first use)",
        "first small solve, H(8, 2): loading and compilation included",
        "the same solve again, least of 20",
    )
    seconds = map(float, done.stdout.split())
    found = [row(label, one) for label, one in zip(labels, seconds, strict=True)]
    policy = dm.solve_efficient_policy(hidden_taste(50, 6), progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    mechanism.simulate(jax.random.key(1), 100)
    took, records = timed(lambda: mechanism.simulate(jax.random.key(0), CONVERSATIONS))
    periods = len(records.to_frame())
    found.append(
        row(
            f"{CONVERSATIONS:,} conversations of up to 6 rounds, with every transfer",
            took,
            f"{periods:,} records",
            f"{CONVERSATIONS / took:,.0f}/s",
        )
    )
    return found
