"""Measure solving, auditing and waiting times on this machine.

Instance H(m, T) is the hidden-taste benchmark of `instances`: five products, five symbols, W and
both marginal economies of every product at once. Rates depend on the machine and on what else
it does: compare rows of one run only.
"""

import dataclasses
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import dynmech as dm
from experiments.benchmarks.instances import HIDDEN_TASTE_VALUE, hidden_taste


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure."""

    hidden: tuple[tuple[int, int], ...] = ((50, 6), (200, 6))
    """Tastes and rounds of each hidden-taste instance; (200, 8) takes about 20 s and 6 GB."""
    audit_values: tuple[int, ...] = (4, 8)
    """Values of each of four advertisers in the one-round market whose audit is timed."""
    results: Path = Path("results/benchmarks")
    """Where benchmark.json goes."""


def timed(work: Callable) -> tuple[float, object]:
    """Seconds that `work` takes, and what it returns."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def solve_rows(options: Options) -> list[dict]:
    """Time the exact solver, compilation included and not, and check the published values."""
    rows = []
    for m, rounds in options.hidden:
        env = hidden_taste(m, rounds)
        solver = dm.Exact(memory=12e9)
        for label in ("compilation included", "again"):
            seconds, policy = timed(
                lambda env=env, solver=solver: dm.solve_efficient_policy(
                    env, solver, progress=False
                )
            )
            assert isinstance(policy, dm.EfficientPolicy)
            value = float(policy.value.ravel()[0])
            known = HIDDEN_TASTE_VALUE.get((m, rounds), value)
            if abs(value - known) > 1e-6:
                raise SystemExit(f"H({m}, {rounds}) is worth {known}, not {value}")
            rows.append(
                {
                    "what": f"solve H({m}, {rounds}), {label}",
                    "seconds": seconds,
                    "size": f"{policy.work.nodes:,} nodes, 11 economies",
                    "rate": f"{policy.work.nodes / seconds:,.0f} nodes/s",
                }
            )
    return rows


def audit_market(values: int) -> dm.DynamicTeamMechanism:
    """One round, four advertisers, `values` values each: every profile solved."""
    rng = np.random.default_rng(0)
    env = dm.RecommendationMDP(
        gamma=rng.normal(size=(4, 3)),
        tastes=dm.TasteGrid(rng.normal(size=(16, 3)), np.full(16, 1 / 16)),
        horizon=1,
        action_rule=dm.LastShownOnly(dm.Logit(0.5), query=0.2),
        signals=dm.SignalStructure(),
        values=dm.ConstantValues(np.sort(rng.uniform(0, 1, (4, values)), axis=1)),
    )
    return dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))


def audit_rows(options: Options) -> list[dict]:
    """Time exhaustive incentive audits: every type's every misreport at every profile."""
    rows = []
    for values in options.audit_values:
        mechanism = audit_market(values)
        mechanism.audit()
        seconds, audit = timed(mechanism.audit)
        assert isinstance(audit, dm.Audit)
        if audit.incentive_gain.max() > audit.tolerance:
            raise SystemExit("the audit of an efficient mechanism found a gain")
        rows.append(
            {
                "what": f"audit, one round, 4 advertisers x {values} values",
                "seconds": seconds,
                "size": f"{audit.deviations:,} misreports",
                "rate": f"{audit.deviations / seconds:,.0f} misreports/s",
            }
        )
    return rows


def waiting_rows() -> list[dict]:
    """Time the import and a first small solve in a fresh process, and the same solve again."""
    code = (
        "import time, jax; a = time.perf_counter(); import dynmech; b = time.perf_counter();"
        "from experiments.benchmarks.instances import hidden_taste as h;"
        "s = lambda: dynmech.solve_efficient_policy(h(8, 2), progress=False);"
        "s(); c = time.perf_counter(); s(); d = time.perf_counter(); print(b - a, c - b, d - c)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    labels = ("import dynmech, after jax", "first small solve, H(8, 2)", "the same solve again")
    seconds = map(float, done.stdout.split())
    return [
        {"what": label, "seconds": one, "size": "", "rate": ""}
        for label, one in zip(labels, seconds, strict=True)
    ]


def main(options: Options) -> None:
    """Print a table and write it, with the machine, to results/benchmarks/benchmark.json."""
    rows = [*waiting_rows(), *solve_rows(options), *audit_rows(options)]
    machine = f"{platform.machine()}, {jax.devices()[0].platform}, jax {jax.__version__}"
    table = Table("what", "seconds", "size", "rate", title=f"Measured on {machine}")
    for row in rows:
        table.add_row(row["what"], f"{row['seconds']:.3f}", row["size"], row["rate"])
    Console().print(table)
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / "benchmark.json"
    file.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    Console().print(f"Written to {file}.")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
