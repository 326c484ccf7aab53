"""Certified gaps of W, and what they cost, beside those of an earlier commit.

Markets that a network is trained for are certified with the same settings, and the same network,
by the code here and by that of a commit of this repository's history, each in a process of its own,
one after the other, market by market: nothing that was written down is compared with. The gap is
the upper bound of W less the lower bound of the policy's value, the mean over certificates with
fresh conversations; the work is processor time of one certificate, programs compiled.

Run `python -m experiments.gaps --help`.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import RESULTS
from experiments._output import Output
from experiments.long_horizon import Name

ROOT = Path(__file__).resolve().parents[1]
UNIT = "units of money"

# What both sides run; `begin` is each side's own.
MEASURE = """
import dataclasses, json, sys, time
import equinox as eqx
import jax
import numpy as np
import dynmech as dm
from experiments.long_horizon import Options, make_market, train

given = json.loads(sys.argv[1])
conversations, certificates = given.pop("conversations"), given.pop("certificates")
market, network = given.pop("market"), given.pop("network")
seed, work = given["seed"], given["work"]

def policy(**more):
    options = Options(conversations=64, marginal=30, **{**given, **more})
    return train(make_market(market, options), options, marginal=False)

def begin():
    BEGIN

with jax.enable_x64(True):
    start = begin()
    for runs in conversations:
        for k in range(-1, certificates):
            begun = time.process_time()
            setting = dm.Certificate(runs=runs, work=work, seed=seed + 2 + k)
            found = start.certify(setting)
            row = [float(x[0]) for x in (found.value, found.lower, found.upper)]
            if k >= 0:  # the first compiles
                print(json.dumps([runs, *row, time.process_time() - begun]), flush=True)
"""
NOW = """
    start = policy().start(profile=0)
    np.savez(network, *jax.tree.leaves(start.evaluator.play.critic))
    return start
"""
THEN = """
    found = policy(sweeps=1, runs=4, steps=1)
    numbers, rest = eqx.partition(found.network, eqx.is_array)
    with np.load(network) as held:
        trained = [held[f"arr_{k}"] for k in range(len(held.files))]
    numbers = jax.tree.unflatten(jax.tree.structure(numbers), trained)
    return dataclasses.replace(found, network=eqx.combine(numbers, rest)).start(profile=0)
"""


@dataclass(frozen=True)
class Options:
    """Certify ordinary markets by the code here and by that of an earlier commit."""

    results: Path = RESULTS
    """Folder under which gaps/ is written."""
    commit: str = "a3b02b5"
    """The earlier commit, one with Student's intervals on raw draws."""
    markets: tuple[Name, ...] = ("impatient", "persistent", "learning", "noisy")
    """Markets, as in `experiments.long_horizon`."""
    conversations: tuple[int, ...] = (1024, 4096)
    """Conversations of a certificate."""
    certificates: int = 4
    """Certificates of each number of conversations."""
    products: int = 8
    """Products."""
    tastes: int = 64
    """Taste points."""
    rounds: int = 8
    """Rounds."""
    sweeps: int = 4
    """Most training sweeps."""
    runs: int = 16
    """Training conversations of a sweep."""
    steps: int = 64
    """Gradient steps of a sweep."""
    work: float = 2e9
    """Multiplications allowed for the upper bound."""
    seed: int = 0
    """Seed of the markets, the training and the conversations."""


def unpack(commit: str, folder: Path) -> None:
    """Write the files of a commit to a folder.

    **Raises:** `ValueError` where there is no such commit, or no history.
    """
    call = ["git", "-C", str(ROOT), "archive", "--format=tar", f"{commit}^{{commit}}"]
    try:
        found = subprocess.run(call, capture_output=True, check=True)
    except OSError as error:
        raise ValueError(f"gaps needs git to read {commit}: {error}") from error
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode(errors="replace").strip()
        raise ValueError(
            f"gaps(commit=...) must be a commit in the history of {ROOT}; got {commit!r}: {why}; "
            "run it in a clone with its history, or name another commit"
        ) from error
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as held:
        held.extractall(folder, filter="data")


def measure(tree: Path, begin: str, market: str, network: Path, options: Options) -> pd.DataFrame:
    """Certificates of one market by the code in a folder, a row each.

    **Arguments:** `begin`: how that code comes to a policy; `network`: the file of its network.
    """
    names = "products", "tastes", "rounds", "sweeps", "runs", "steps", "work", "seed"
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given |= {"market": market, "certificates": options.certificates, "network": str(network)}
    given["conversations"] = list(options.conversations)
    text = MEASURE.replace("    BEGIN\n", begin)
    call = [sys.executable, "-c", text, json.dumps(given)]
    where = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(call, cwd=tree, env=where, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{market}, by the code in {tree}: {done.stderr[-2000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return pd.DataFrame(rows, columns=["runs", "value", "lower", "upper", "seconds"])


def compare(market: str, before: pd.DataFrame, now: pd.DataFrame) -> list[dict[str, Any]]:
    """Means of both sides for each number of conversations, and ratios."""
    rows = []
    for runs, mine in now.groupby("runs"):
        row: dict[str, Any] = {"market": market, "conversations": int(str(runs))}
        sides = (before[before["runs"] == runs], mine)
        gaps, widths, seconds = (
            [float(part(side).mean()) for side in sides]
            for part in (
                lambda x: x["upper"] - x["lower"],
                lambda x: x["value"] - x["lower"],
                lambda x: x["seconds"],
            )
        )
        for name, unit, (old, new) in (
            ("gap", "money", gaps),
            ("value less lower", "money", widths),
            ("CPU", "s", seconds),
        ):
            row |= {f"{name} then [{unit}]": old, f"{name} now [{unit}]": new}
            row[f"{name} now / then [1]"] = new / old
        rows.append(row)
    return rows


def main(options: Options) -> None:
    """Run the experiment."""
    output = Output(options.results / "gaps", UNIT)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        then = Path(folder, "then")
        unpack(options.commit, then)
        for market in options.markets:
            network = Path(folder, "network.npz")
            now = measure(ROOT, NOW, market, network, options)
            rows += compare(market, measure(then, THEN, market, network, options), now)
    output.heading("Certified gaps")
    title = f"Certificates of W at 95%, by {options.commit} and now"
    output.table("gaps", pd.DataFrame(rows), title)
    output.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options))
