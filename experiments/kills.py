"""Work that is killed at random moments and gone on with: is the answer the same, to the last bit?

Each job (a solve, a training, an audit, a simulation, a sweep, files written one over another) runs
in a process of its own, on a folder where it keeps what is finished. The process is killed with
SIGKILL, at a moment drawn from the time that the work takes, and started again on the same folder,
again and again until it ends before its kill. Its answer is compared with that of a run that nobody
disturbed; then a new folder is begun, until there were as many kills as are wanted.

    python -m experiments.kills --kills 200
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from experiments import _kill_jobs
from experiments._figures import RESULTS
from experiments._output import Output

_PATIENCE = 600  # seconds that no job should take
_MANY = 5  # kills that are worth a second undisturbed run, to know how long it takes


@dataclass(frozen=True)
class Options:
    """How many kills of which jobs."""

    results: Path = RESULTS
    """Folder under which kills/ is written."""
    jobs: tuple[str, ...] = tuple(_kill_jobs.JOBS)
    """Which jobs."""
    kills: int = 200
    """Kills in all, shared evenly by the jobs."""
    seed: int = 0
    """Seed of the moments."""


class Job:
    """One job, as a process on a folder."""

    def __init__(self, name: str, compiled: Path):
        self.name, self.compiled = name, compiled

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """The process, from the moment on at which its work begins."""
        code = "from experiments._kill_jobs import run_job; run_job()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, self.name, str(folder), str(self.compiled)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline().strip() != _kill_jobs.BEGUN:
            raise RuntimeError(f"{self.name} did not begin: {process.communicate()[1][-2000:]}")
        return process

    def end(self, process: subprocess.Popen[str], seconds: float) -> str | None:
        """Its answer, or None where it was killed after so many seconds."""
        try:
            told, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return None
        if process.returncode != 0:
            raise RuntimeError(f"{self.name} failed: {errors[-2000:]}")
        return told.strip()


def run(
    jobs: tuple[str, ...], kills: int, seed: int, say: Callable[[str], object] = lambda line: None
) -> list[dict[str, Any]]:
    """Kill every job its share of times; a row each, said as soon as the job is done.

    **Returns:** per job, `kills`; `ended`: runs that came to their end; `same`: how many of these
    had the answer of the undisturbed run; `seconds` of that run.
    """
    rows, share = [], np.array_split(np.arange(kills), len(jobs))
    for k, name in enumerate(jobs):
        rng = np.random.default_rng([seed, k])
        with tempfile.TemporaryDirectory() as place:
            rows.append(_kill(name, len(share[k]), rng, Path(place)))
        say(
            "{job}: {kills} kills, {ended} ended, {same} the same, {seconds:.1f} s".format(
                **rows[-1]
            )
        )
    return rows


def _kill(name: str, wanted: int, rng: np.random.Generator, place: Path) -> dict[str, Any]:
    job, folders = Job(name, place / "compiled"), 0
    whole, seconds = None, 0.0
    for path in ("first", "whole")[: 1 + (wanted >= _MANY)]:  # the first run also compiles
        (place / path).mkdir()
        process, began = job.start(place / path), time.monotonic()
        whole, seconds = job.end(process, _PATIENCE), time.monotonic() - began
    killed = ended = same = 0
    while killed < wanted:
        folder = place / str(folders)
        folder.mkdir()
        folders += 1
        while True:
            limit = rng.uniform(0.0, seconds) if killed < wanted else _PATIENCE
            answer = job.end(job.start(folder), limit)
            if answer is not None:
                ended, same = ended + 1, same + (answer == whole)
                break
            killed += 1
    return {"job": name, "kills": killed, "ended": ended, "same": same, "seconds": seconds}


def main(options: Options) -> None:
    """Kill, print and write the table; raises `SystemExit` where an answer differs."""
    out = Output(options.results / "kills", "")
    out.heading("Killed at random moments and gone on with")
    rows = run(options.jobs, options.kills, options.seed, out.say)
    names = {"kills": "kills [1]", "ended": "runs that ended [1]", "same": "same answer [1]",
             "seconds": "undisturbed [s]"}  # fmt: skip
    table = pd.DataFrame(rows).rename(columns=names)
    out.table("kills", table, "The answer is that of an undisturbed run, to the last bit")
    (out.folder / "kills.json").write_text(json.dumps(rows))
    out.finish(options)
    if any(row["same"] < row["ended"] for row in rows):
        raise SystemExit("an answer differs")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
