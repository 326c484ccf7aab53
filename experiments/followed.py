"""The README and the pages of the book, followed to the letter in a fresh environment.

A wheel is built and installed, with the extras that the pages name, into a new virtual environment.
A new folder gets what a reader downloads beside the package: the market `notebooks/tents` and the
logs under `experiments/data`. There the code of every page runs, cell after cell in one process of
its own, with nothing of this repository on the path. Pages of which a cell fails are named, and the
exit status is 1.

    python -m experiments.followed
    python -m experiments.followed --pages mechanism
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from experiments._figures import RESULTS
from experiments._output import Output

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "experiments" / "benchmarks" / "measured.json"
BOOK = ROOT / "notebooks"
_CELL = re.compile(r"(?ms)^```(?:\{code-cell\}[^\n]*|python|py)\n(.*?)^```$")
_TAGS = re.compile(r"(?m)\A(?::[^\n]*\n)+")
_PATIENCE = 1200  # seconds that no page should take


@dataclass(frozen=True)
class Options:
    """Which pages, and where they are followed."""

    results: Path = RESULTS
    """Folder under which followed/ is written."""
    pages: tuple[str, ...] = ()
    """Names of pages, without their endings; all that have code, and the README, by default."""
    extras: str = "experiments,qp"
    """Extras of the package that are installed."""


def pages() -> dict[str, Path]:
    """The README and the pages of the book that have code to run, by name."""
    every = [ROOT / "README.md", *sorted(BOOK.glob("*.md")), *sorted(BOOK.glob("*.ipynb"))]
    return {path.stem: path for path in every if cells(path)}


def cells(page: Path) -> list[str]:
    """The code of a page, cell by cell; a block that is only shown is none."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        found = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return ["".join(cell["source"]) for cell in found]
    blocks = list(_CELL.finditer(text))
    if page.is_relative_to(BOOK):  # where blocks of Python are shown, and cells are run
        blocks = [block for block in blocks if block[0].startswith("```{code-cell}")]
    return [_TAGS.sub("", block[1]) for block in blocks]


def install(folder: Path, extras: str) -> tuple[Path, dict[str, float]]:
    """Build the wheel and install it into a new environment; its Python, and seconds."""
    took, quiet = {}, ["--quiet", "--disable-pip-version-check"]
    began = time.monotonic()
    build = [sys.executable, "-m", "pip", "wheel", *quiet, "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(build, check=True)
    took["build the wheel"] = time.monotonic() - began
    began = time.monotonic()
    venv.create(folder / "environment", with_pip=True)
    python = folder / "environment" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", *quiet, f"{wheel}[{extras}]"], check=True)
    took["install it"] = time.monotonic() - began
    return python, took


def download(folder: Path) -> None:
    """What a reader has beside the package."""
    shutil.copytree(BOOK / "tents", folder / "notebooks" / "tents")
    (folder / "experiments" / "data").mkdir(parents=True)
    for path in (ROOT / "experiments" / "data").glob("*.csv"):
        shutil.copy(path, folder / "experiments" / "data")
    (folder / "experiments" / "benchmarks").mkdir()
    shutil.copy(BENCHMARKS, folder / "experiments" / "benchmarks")


def follow(page: Path, python: Path, folder: Path) -> tuple[float, str]:
    """Run a page's cells in one process; seconds, and the last line of what went wrong."""
    script = folder / f"{page.stem}.py"
    script.write_text("\n\n".join(cells(page)), encoding="utf-8")
    clean = {name: x for name, x in os.environ.items() if not name.startswith(("PYTHON", "JAX"))}
    began = time.monotonic()
    try:
        done = subprocess.run(
            [python, "-P", script], cwd=folder / page.parent.relative_to(ROOT),
            env={**clean, "MPLBACKEND": "Agg", "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return time.monotonic() - began, f"more than {_PATIENCE} seconds"
    lines = done.stderr.strip().splitlines()
    wrong = "" if done.returncode == 0 else (lines[-1] if lines else f"exit {done.returncode}")
    return time.monotonic() - began, wrong


def main(options: Options) -> None:
    """Install, follow, print and write the table; raises `SystemExit` where a page fails."""
    known = pages()
    unknown = sorted(set(options.pages) - set(known))
    if unknown:
        raise SystemExit(f"--pages must be among {', '.join(known)}; got {', '.join(unknown)}")
    out = Output(options.results / "followed", "")
    out.heading("Pages followed in a fresh environment")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        python, took = install(folder, options.extras)
        download(folder)
        rows: list[dict[str, Any]] = [
            {"what": name, "time [s]": x, "wrong": ""} for name, x in took.items()
        ]
        for name in options.pages or known:
            seconds, wrong = follow(known[name], python, folder)
            rows.append({"what": name, "time [s]": seconds, "wrong": wrong})
    out.table("followed", pd.DataFrame(rows), "Seconds; what went wrong, if anything")
    out.finish(options)
    failed = [row["what"] for row in rows if row["wrong"]]
    if failed:
        raise SystemExit(f"a page fails: {', '.join(failed)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
