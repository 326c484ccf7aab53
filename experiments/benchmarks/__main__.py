"""Measure solving, auditing, waiting and serving on this machine, peers beside us; keep the result.

Instance H(m, T) is the hidden-taste benchmark of `instances`, S(n, m, T) the scale benchmark. Every
row that compares was measured in one run, ours and the peer's in the same process. Rates depend on
the machine and on what else it does: compare rows of one run only. SARSOP is not on the package
index; its seconds are those published with the instances, on another machine. R(n, m) is a user
who leaves at the first dislike (`endless`).

What was measured is kept as JSON under the commit's name: `python -m experiments.benchmarks.compare
OLD NEW` says what became slower.
"""

import dataclasses
import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from experiments.benchmarks import audits, endless, large, scaling, solving, waiting
from experiments.benchmarks.rows import reference

_HERE = Path(__file__).parent
RECORD = _HERE / "measured.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure."""

    hidden: tuple[tuple[int, int], ...] = ((50, 6), (200, 6), (200, 8), (200, 10))
    """Tastes and rounds of each hidden-taste instance."""
    bounded: tuple[tuple[int, int], ...] = ((200, 10),)
    """Of these the longest is solved to a gap of 1e-3 and 1e-5 by the solvers of part of a tree."""
    peer_rounds: int = 6
    """Longest hidden-taste instance that the NumPy recursion is run on; 8 takes half a minute."""
    audit_values: tuple[int, ...] = (4, 5, 8, 11)
    """Values of each of four advertisers in the one-round market whose audit is timed; of 5 there
    are 10,000 misreports."""
    scale: tuple[tuple[int, int, int, float], ...] = (
        (8, 64, 4, 0.0),
        (12, 64, 4, 0.0),
        (50, 1024, 4, 0.0),
        (50, 1024, 5, 0.01),
    )
    """Products, tastes and rounds of each scale instance, and the gap asked for over W."""
    candidates: tuple[int, int] = (20, 50)
    """Models and sellers of the market whose needless offers are removed."""
    churn: tuple[tuple[int, int, int], ...] = (
        (10, 10, 8),
        (10, 20, 8),
        (10, 100, 8),
        (20, 20, 8),
        (40, 10, 8),
        (100, 10, 1),
    )
    """Products and types of users who leave at the first dislike, and how many draws of each; of
    (100, 10) the first takes NumPy half a minute, and others many."""
    rated: tuple[tuple[float, float], ...] = ((0.9, 60.0), (0.99, 120.0), (0.999, 120.0))
    """Chances of going on of users who rate what is shown, and seconds for each solver."""
    large: tuple[str, ...] = tuple(large.MARKETS)
    """Large markets, each in a process of its own."""
    real: bool = True
    """Measure the markets from published data, and a fresh process."""
    curves: bool = True
    """Measure cost against products, tastes, symbols and rounds, with a picture."""
    results: Path = Path("results/benchmarks")
    """Where tables and pictures go."""
    record: bool = False
    """Keep what was measured as `measured.json` beside this file too, which the book prints."""


def main(options: Options) -> None:
    """Print tables and write them, with the machine, to results/benchmarks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = f"{platform.machine()}, {cores} cores, {jax.devices()[0].device_kind}"
    machine = f"{where}, jax {jax.__version__}"
    console = Console()
    before = reference()
    rows = [
        *(waiting.rows() if options.real else ()),
        *endless.rows(options.churn),
        *endless.rated_rows(options.rated),
        *solving.rows(options.hidden, options.peer_rounds),
        *solving.bounded_rows(options.bounded),
        *(solving.real_rows() if options.real else ()),
        *solving.scale_rows(options.scale),
        *large.rows(options.large),
        solving.candidate_row(*options.candidates),
        *audits.rows(options.audit_values),
    ]
    columns = ("what", "seconds", "size", "rate", "beside it", "ratio")
    table = Table(*columns, title=f"Measured on {machine}")
    for row in rows:
        table.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values()))
    console.print(table)
    options.results.mkdir(parents=True, exist_ok=True)
    pace = (before + reference()) / 2
    written: dict[str, Any] = {
        "machine": machine,
        "commit": commit(),
        "reference": pace,
        "rows": rows,
    }
    if options.curves:
        curves = scaling.curves()
        written["curves"] = curves
        table = Table("against", "values", "seconds", "fitted exponent", title="Cost, exact")
        for name, curve in curves.items():
            seconds = ", ".join(f"{x:.3g}" for x in curve["seconds"])
            values = ", ".join(map(str, curve["values"]))
            table.add_row(name, values, seconds, f"{curve['exponent']:.2f}")
        console.print(table)
        scaling.picture(curves).savefig(options.results / "cost.png", dpi=150)
    written["date"] = dt.date.today().isoformat()
    for path in (
        options.results / f"{written['commit']}.json",
        *([RECORD] if options.record else ()),
    ):
        path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        console.print(f"Written to {path}.")


def commit() -> str:
    """The short name of what is checked out, with a mark where it was changed since."""
    call = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(call, capture_output=True, text=True, check=True, cwd=_HERE)
    except (OSError, subprocess.CalledProcessError):
        return "unversioned"
    return found.stdout.strip()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
