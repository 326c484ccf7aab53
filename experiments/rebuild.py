"""Rebuild every recorded number of the README and the book, and say which moved.

`numbers.json` has, for the numbers that a page prints, the words around them with the numbers in
braces, the command that makes them, and where in that command's tables they stand; and for each
command, when it last ran and how long it took. Commands are run again, each once, and every number
is compared with what its page prints, to its tolerance: half a unit of its last digit, or for
what a clock measures a share. What moved makes the exit status 1; `--write` puts it into the page,
with today's date where the page has the date before the command's name.
"""

import dataclasses
import datetime as dt
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from experiments._recorded import Passage

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).with_name("numbers.json")
Run = Callable[[str, Path], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """What to rebuild."""

    only: tuple[str, ...] = ()
    """Commands, such as `answer`; all by default, some six hours."""
    seconds: float = float("inf")
    """Leave out commands that last took longer: with 300 the rest is a quarter of an hour."""
    write: bool = False
    """Put what moved into the pages and the records, with today's date."""


def read(path: Path = RECORDS) -> tuple[dict[str, dict[str, Any]], list[Passage]]:
    """The commands with their last runs, and the passages of pages that they make."""
    records = json.loads(path.read_text(encoding="utf-8"))
    return records["commands"], [Passage(**record) for record in records["passages"]]


def run_experiment(command: str, results: Path) -> None:
    """Run a command of `experiments`, its tables under `results`."""
    module, *options = shlex.split(command)
    call = [sys.executable, "-m", f"experiments.{module}", *options, "--results", str(results)]
    subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def in_words(day: dt.date) -> str:
    """A date as pages have it."""
    return f"{day.day} {day:%B %Y}"


def dated(text: str, command: str, day: dt.date) -> str:
    """A page with the date before a command's name, "DATE by `python -m ...`", as it is now."""
    name = r"\s+".join(map(re.escape, f"python -m experiments.{command}".split()))
    return re.sub(rf"\d+ \w+ \d{{4}}(?=\s+by\s+`{name}`)", in_words(day), text)


def rebuild(
    options: Options, records: Path = RECORDS, root: Path = ROOT, run: Run = run_experiment
) -> int:
    """Run, compare, say; how many numbers moved."""
    commands, passages = read(records)
    unknown = set(options.only) - set(commands)
    if unknown:
        raise SystemExit(f"--only must name some of {', '.join(commands)}; got {sorted(unknown)}")
    moved = 0
    for command in options.only or tuple(commands):
        last = commands[command]
        mine = [k for k, one in enumerate(passages) if one.command == command]
        many = sum(len(passages[k].printed) for k in mine)
        print(f"{command}: {many} numbers, last made on {last['date']} in {last['seconds']} s")
        if last["seconds"] > options.seconds:
            print("  left out")
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            run(command, Path(folder))
            found = {k: passages[k].find(Path(folder)) for k in mine}
        for k, values in found.items():
            one = passages[k]
            wrong = [not holds for holds in one.hold(values)]
            if not any(wrong):
                continue
            moved += sum(wrong)
            passages[k] = one.moved_to(values)
            now = ", ".join(f"{value:.6g}" for value in values)
            print(f"  MOVED {one.page}: {one.says!r} is {now} now")
            if options.write:
                page = root / one.page
                text = page.read_text(encoding="utf-8")
                page.write_text(text.replace(one.plain, passages[k].plain), encoding="utf-8")
        seconds = round(time.monotonic() - began)
        commands[command] = {"date": dt.date.today().isoformat(), "seconds": seconds}
        for page in {passages[k].page for k in mine} if options.write else ():
            text = (root / page).read_text(encoding="utf-8")
            (root / page).write_text(dated(text, command, dt.date.today()), encoding="utf-8")
        print(f"  {many} compared in {seconds} s")
    if options.write:
        kept = {"commands": commands, "passages": [one.record() for one in passages]}
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        records.write_text(text, encoding="utf-8")
    print(f"{moved} moved")
    return moved


if __name__ == "__main__":
    sys.exit(min(rebuild(tyro.cli(Options, description=__doc__)), 1))
