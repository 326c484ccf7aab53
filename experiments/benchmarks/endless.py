"""Users who leave at the first dislike, without a horizon: W and every W^{-i}, beside plain NumPy.

Instance R(n, m) of `churn`: a published problem whose own program was measured on another machine.
A best-first search of a page of NumPy, one economy after another, runs in the same process, so
that the ratios hold on any machine; seconds are of the processor, warm (the first call of the
process is shown apart). The published C++ seconds are of W alone: they are shown times n + 1, and
scaled by this machine's NumPy seconds over those measured beside them.
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import dynmech as dm
from experiments.benchmarks.churn import draw, every_economy, market

PUBLISHED = {(10, 10): (0.019, 0.018), (10, 20): (0.004, 0.023), (10, 100): (0.029, 0.034),
             (20, 20): (0.025, 0.116)}  # fmt: skip
"""Median C++ seconds of W alone to 1e-8, and NumPy seconds of all economies beside them."""


_AXES = 29  # with more products the only profile is named, rather than a table of it


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure."""

    shapes: tuple[tuple[int, int], ...] = ((10, 10), (10, 20), (10, 100), (20, 20), (40, 10))
    """Products and types; (100, 10) takes NumPy a minute a draw."""
    draws: int = 8
    """Draws of each shape."""
    tolerance: float = 1e-6
    """Bounds closer than this, in likes."""
    results: Path = Path("results/benchmarks")
    """Where the table goes, as JSON."""


def measure(products: int, types: int, seed: int, tolerance: float) -> dict:
    """Solve one draw twice, and by NumPy; seconds, and the largest difference of values."""
    like, prior = draw(seed, products, types)
    env, spent = market(like, prior), []
    one = None if len(like) <= _AXES else env.sample_profiles(jax.random.key(0), 1)
    policy = None
    for _ in range(2):
        begin = time.process_time()
        policy = dm.solve_efficient_policy(env, initial=one, tolerance=tolerance, progress=False)
        spent.append(time.process_time() - begin)
    assert policy is not None
    begin = time.process_time()
    right = every_economy(like, prior, tolerance)
    numpy = time.process_time() - begin
    found = np.concatenate([policy.lower.ravel(), policy.marginal_value.ravel()])
    return {
        "shape": (products, types), "seed": seed, "kept": len(like), "first": spent[0],
        "ours": spent[1], "numpy": numpy, "gap": float((policy.upper - policy.lower).max()),
        "off": float(np.abs(found - right).max()),
    }  # fmt: skip


def summary(rows: list[dict], shape: tuple[int, int]) -> dict:
    """Medians of one shape, the worst excess over NumPy, and the published seconds, scaled."""
    ours, numpy = ([row[name] for row in rows] for name in ("ours", "numpy"))
    row = {
        "shape": shape, "first": rows[0]["first"], "ours": statistics.median(ours),
        "numpy": statistics.median(numpy),
        "ratio": statistics.median(ours) / statistics.median(numpy),
        "most over": max(a - b for a, b in zip(ours, numpy, strict=True)),
        "off": max(row["off"] for row in rows),
    }  # fmt: skip
    published, beside = PUBLISHED.get(shape, (None, None))
    row["published"] = None if not published else published * (shape[0] + 1) * row["numpy"] / beside
    return row


def main(options: Options) -> None:
    """Print the table and write it."""
    console, rows, found = Console(), [], []
    for shape in options.shapes:
        part = [measure(*shape, seed, options.tolerance) for seed in range(options.draws)]
        found += part
        rows.append(summary(part, shape))
    table = Table(*rows[0], title="W and every W^{-i}, seconds of the processor, medians")
    for row in rows:
        table.add_row(*(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values()))
    console.print(table)
    options.results.mkdir(parents=True, exist_ok=True)
    written = {"rows": rows, "draws": found}
    (options.results / "endless.json").write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
