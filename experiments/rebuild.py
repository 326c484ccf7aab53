"""Rebuild every recorded number of the README and the book, and say which moved.

`numbers.json` has, for each number that a page prints, the words around it with the number in
braces, the command that makes it, and where in that command's tables it stands; and for each
command, when it last ran and how long it took. Commands are run again, each once, and every number
is compared with what its page prints, to its tolerance: half a unit of its last digit, or for
what a clock measures a share. What moved makes the exit status 1; `--write` puts it into the page.
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

import numpy as np
import pandas as pd
import tyro

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).with_name("numbers.json")
Run = Callable[[str, Path], None]


@dataclasses.dataclass(frozen=True)
class Number:
    """One number of a page.

    `says`: words of the page, once in it, the number in braces; `command`: a module of
    `experiments`, with its options; `table`: a CSV file of it under the results; `row`: cells that
    tell the row; `column`: its name, without the unit; `share`: tolerance of what is measured by
    a clock, as a share; None: half a unit of the last digit printed.
    """

    page: str
    says: str
    command: str
    table: str
    row: dict[str, str]
    column: str
    share: float | None = None

    @property
    def words(self) -> str:
        """What the page has, no braces."""
        return self.says.replace("{", "").replace("}", "")

    @property
    def printed(self) -> str:
        """The number as it is printed."""
        return re.findall(r"\{(.*?)\}", self.says)[0]

    def holds(self, value: float) -> bool:
        """Whether a value found is the one printed."""
        printed = float(self.printed)
        if self.share is not None:
            return abs(value - printed) <= self.share * abs(printed)
        return abs(value - printed) <= 0.5000001 * 10.0**-self.decimals

    @property
    def decimals(self) -> int:
        """Digits printed after the point."""
        return len(self.printed.partition(".")[2])

    def moved_to(self, value: float) -> "Number":
        """The same number, printed anew in the same form."""
        sign = "+" if self.printed.startswith("+") else "-"
        text = f"{value:{sign}.{self.decimals}f}"
        text = text if float(text) else text.replace("-", "")
        return dataclasses.replace(
            self, says=self.says.replace(f"{{{self.printed}}}", f"{{{text}}}")
        )


@dataclasses.dataclass(frozen=True)
class Options:
    """What to rebuild."""

    only: tuple[str, ...] = ()
    """Commands, such as `answer`; all by default, a quarter of an hour for long horizons."""
    write: bool = False
    """Put what moved into the pages and the records, with today's date."""


def read(path: Path = RECORDS) -> tuple[dict[str, dict], list[Number]]:
    """The commands with their last runs, and the numbers."""
    records = json.loads(path.read_text(encoding="utf-8"))
    return records["commands"], [Number(**record) for record in records["numbers"]]


def run_experiment(command: str, results: Path) -> None:
    """Run a command of `experiments`, its tables under `results`."""
    module, *options = shlex.split(command)
    call = [sys.executable, "-m", f"experiments.{module}", *options, "--results", str(results)]
    subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def look_up(number: Number, results: Path) -> float:
    """The value in a command's table. Raises `LookupError` where it is not there, once."""
    table = pd.read_csv(results / number.table)
    table.columns = [re.sub(r" \[.*?\]$", "", name) for name in table.columns]
    cells = [table[name].astype(str) == cell for name, cell in number.row.items()]
    rows = np.flatnonzero(np.all(cells, axis=0))
    if len(rows) != 1:
        raise LookupError(f"{number.table} has {len(rows)} rows of {number.row}")
    return float(table[number.column].to_numpy()[rows[0]])


def rebuild(
    options: Options, records: Path = RECORDS, root: Path = ROOT, run: Run = run_experiment
) -> int:
    """Run, compare, say; how many numbers moved."""
    commands, numbers = read(records)
    unknown = set(options.only) - set(commands)
    if unknown:
        raise SystemExit(f"--only must name some of {', '.join(commands)}; got {sorted(unknown)}")
    moved = 0
    for command in options.only or tuple(commands):
        began = time.monotonic()
        mine = [k for k, number in enumerate(numbers) if number.command == command]
        print(f"{command}: {len(mine)} numbers, last made on {commands[command]['date']}")
        with tempfile.TemporaryDirectory() as folder:
            run(command, Path(folder))
            found = {k: look_up(numbers[k], Path(folder)) for k in mine}
        for k, value in found.items():
            number = numbers[k]
            if number.holds(value):
                continue
            moved += 1
            numbers[k] = number.moved_to(value)
            print(f"  MOVED {number.page}: {number.says!r} is {value:.6g} now")
            if options.write:
                page = root / number.page
                text = page.read_text(encoding="utf-8")
                page.write_text(text.replace(number.words, numbers[k].words), encoding="utf-8")
        seconds = round(time.monotonic() - began)
        today = dt.date.today().isoformat()
        commands[command] = {"date": today, "seconds": seconds}
        print(f"  {len(mine)} compared in {seconds} s")
    if options.write:
        kept = {"commands": commands, "numbers": [_plain(number) for number in numbers]}
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        records.write_text(text, encoding="utf-8")
    print(f"{moved} moved")
    return moved


def _plain(number: Number) -> dict:
    """A record as it is written."""
    return {name: x for name, x in dataclasses.asdict(number).items() if x is not None}


if __name__ == "__main__":
    sys.exit(min(rebuild(tyro.cli(Options, description=__doc__)), 1))
