"""The README's example under each Groves term: what holds, what it costs, and how long it takes.

The example is run as the README has it. The spread of one bill is the standard deviation of what an
advertiser drawn at random pays for a conversation drawn at random, exactly. Seconds are of a fresh
process: of its processor, without and with programs kept by `dm.enable_compilation_cache`.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import RESULTS
from experiments._output import Output

README = Path(__file__).parents[1] / "README.md"
TERMS = {
    "DataDriven()": dm.groves.DataDriven(),
    'DataDriven(objective="revenue")': dm.groves.DataDriven(objective="revenue"),
    'DataDriven(objective="variance")': dm.groves.DataDriven(objective="variance"),
    "WindowCeiling()": dm.groves.WindowCeiling(),
    "NoSubsidy()": dm.groves.NoSubsidy(),
}
_TIMED = """
import contextlib, io, resource, sys
import dynmech as dm
if sys.argv[1]:
    dm.enable_compilation_cache(sys.argv[1])
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    exec(compile(sys.stdin.read(), "README.md", "exec"), {})
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    timed: bool = True
    """Time the example in fresh processes, which takes the longest."""
    results: Path = RESULTS
    """Folder; files go to `answer` inside."""


def example() -> str:
    """The README's first block of code."""
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)[0]


def terms(policy: dm.EfficientPolicy) -> pd.DataFrame:
    """Worst slacks over advertisers and profiles, and means over profiles."""
    rows = []
    for name, term in TERMS.items():
        mechanism = dm.DynamicTeamMechanism(policy, groves=term)
        audit, moments = mechanism.audit(), dm.payment_moments(mechanism)
        mean, variance = moments.overall_mean[:-1], moments.overall_variance[:-1]
        rows.append(
            {
                "Groves term": name,
                "participation, worst [money]": np.nanmin(audit.participation),
                "no subsidy, worst [money]": np.nanmin(audit.no_subsidy),
                "revenue [money]": np.nanmean(audit.budget.revenue),
                "spread of one bill [money]": np.sqrt(variance.mean() + mean.var()),
                "window open [%]": 100 * audit.window.open.mean(),
                "W [money]": np.nanmean(policy.value),
            }
        )
    return pd.DataFrame(rows)


def seconds() -> pd.DataFrame:
    """Seconds that the example takes in a fresh process."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, kept in (("first", ""), ("keeping", folder), ("kept", folder)):
            began = time.monotonic()
            command = [sys.executable, "-c", _TIMED, kept]
            plain = {name: x for name, x in os.environ.items() if not name.startswith("JAX_")}
            done = subprocess.run(
                command, input=example(), capture_output=True, text=True, check=True, env=plain
            )
            clock = time.monotonic() - began
            rows.append({"run": name, "processor [s]": float(done.stdout), "clock [s]": clock})
    return pd.DataFrame(rows)


def main(options: Options) -> None:
    """Print and write the tables."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(example(), str(README), "exec"), names)
    output = Output(options.results / "answer", names["market"].unit)
    output.heading("The README's market")
    output.table("terms", terms(names["policy"]), "One Groves term a row")
    if options.timed:
        output.table("seconds", seconds(), "The example in a fresh process")
    output.finish(options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
