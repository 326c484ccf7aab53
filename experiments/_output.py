"""Where an experiment's tables and pictures go, and how they are printed: one place for paths.

Columns of a table carry their unit in brackets, and `[money]` stands for the market's own:
`W [money]` is written as `W [thousand 1983 USD]` in the CSV file, and printed as `W` under a
title that states the unit.
"""

import dataclasses
import datetime as dt
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

import dynmech as dm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 118
MONEY = "[money]"


def make_console() -> Console:
    """A console that keeps what it prints; wide enough for tables when it is no terminal."""
    console = Console(record=True, highlight=False)
    if not console.is_terminal or console.width < 80:
        console.width = WIDTH
    return console


@dataclass(frozen=True)
class Output:
    """A folder for the files of one experiment and a console for what is said about them.

    `rounding`: money; what is no more than this in a table is rounding, and stands as 0.
    """

    folder: Path
    unit: str
    console: Console = field(default_factory=make_console)
    written: list[Path] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    rounding: float = 0.0

    def __post_init__(self):
        self.folder.mkdir(parents=True, exist_ok=True)

    def heading(self, text: str) -> None:
        """Start a section."""
        self.console.print()
        self.console.rule(f"[bold]{escape(text)}", align="left")

    def say(self, *lines: str) -> None:
        """Print lines of plain text, each a paragraph."""
        for line in lines:
            self.console.print(escape(line))

    def bullets(self, lines: Sequence[str]) -> None:
        """Print a list."""
        for line in lines:
            self.console.print(Padding(f"- {escape(line)}", (0, 0, 0, 2)))

    def table(self, name: str, frame: pd.DataFrame, title: str, *, show: bool = True) -> None:
        """Write `name.csv` and, if `show`, print the table."""
        frame = self._without_rounding(frame)
        path = self.folder / f"{name}.csv"
        units = {column: column.replace(MONEY, f"[{self.unit}]") for column in frame.columns}
        frame.rename(columns=units).to_csv(path, index=False, float_format="%.10g")
        self.written.append(path)
        if show:
            self.show(frame, title)

    def _without_rounding(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The same table, with 0 for money that is rounding."""
        money = [x for x in frame.select_dtypes("floating").columns if MONEY in x]
        return frame.assign(
            **{x: frame[x].mask(frame[x].abs() <= self.rounding, 0.0) for x in money}
        )

    def show(self, frame: pd.DataFrame, title: str) -> None:
        """Print a table without writing it."""
        money = any(MONEY in column for column in frame.columns)
        caption = escape(f"{title}; money in {self.unit}" if money else title)
        table = Table(
            title=caption, title_justify="left", box=SIMPLE_HEAD, show_edge=False,
            collapse_padding=True,
        )  # fmt: skip
        for column in frame.columns:
            label = column.replace(MONEY, "").replace("[1]", "").strip()
            longest = max(len(word) for word in label.split())
            side = "right" if pd.api.types.is_numeric_dtype(frame[column]) else "left"
            table.add_column(escape(label), justify=side, min_width=longest)
        columns = [spell(pd.Series(frame[column])) for column in frame.columns]
        for row in zip(*columns, strict=True):
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table)

    def picture(self, name: str, figure: "Figure") -> None:
        """Write `name.png` and `name.svg`."""
        for path in (self.folder / f"{name}.png", self.folder / f"{name}.svg"):
            figure.savefig(path, dpi=150)
            if path not in self.written:
                self.written.append(path)

    def finish(self, options: Any) -> None:
        """Say what was written, and keep all that was printed in `report.txt`.

        And in `record.json` how: the `options`, a dataclass, versions, device, date and seconds.
        """
        names = ", ".join(path.name for path in self.written)
        self.heading("Files")
        self.say(f"In {self.folder}: {names}, report.txt, record.json")
        record = {
            "options": dataclasses.asdict(options),
            "versions": {"python": platform.python_version(), "dynmech": dm.__version__}
            | {name: version(name) for name in ("jax", "numpy", "scipy", "pandas")},
            "device": [jax.devices()[0].device_kind, platform.machine(), f"{os.cpu_count()} cores"],
            "date": f"{dt.date.today()}",
            "seconds": round(time.monotonic() - self.began, 1),
        }
        text = json.dumps(record, indent=1, default=str)
        (self.folder / "record.json").write_text(text + "\n", encoding="utf-8")
        lines = self.console.export_text(clear=False).splitlines()
        report = "\n".join(line.rstrip() for line in lines) + "\n"
        (self.folder / "report.txt").write_text(report, encoding="utf-8")


def spell(column: pd.Series) -> list[str]:
    """Print a column with as many decimals as its largest entry needs for four digits."""
    if not pd.api.types.is_float_dtype(column):
        return [str(value) for value in column]
    values = column.to_numpy(float)
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    decimals = int(np.clip(3 - np.floor(np.log10(largest)), 0, 6)) if largest > 0 else 0
    return ["–" if not np.isfinite(v) else _plain(v, decimals) for v in values]


def _plain(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text
