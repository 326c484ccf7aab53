"""Passages of pages with numbers that a command makes: where they stand, whether they hold."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

T = TypeVar("T")


def number(text: str) -> float:
    """The number that is printed."""
    return float(text.replace(",", "").replace("−", "-"))


def last_digit(text: str) -> float:
    """What one more in the last digit printed is worth."""
    mantissa, _, power = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(power.replace("−", "-") or 0) - decimals)


def printed_like(text: str, value: float) -> str:
    """Print a value in the form of another: sign, commas, decimals or power of ten."""
    if "e" in text.lower():
        decimals = len(text.lower().partition("e")[0].partition(".")[2])
        mantissa, _, power = f"{value:.{decimals}e}".partition("e")
        return f"{mantissa}e{int(power)}"
    decimals = len(text.partition(".")[2])
    sign, comma = "+" if text[0] == "+" else "-", "," if "," in text else ""
    new = f"{value:{sign}{comma}.{decimals}f}"
    if not number(new):
        new = new.replace("-", "")
    if re.match(r"[-+−]?\.", text):
        new = new.replace("0.", ".", 1)
    return new.replace("-", "−") if "−" in text else new


@dataclasses.dataclass(frozen=True)
class Passage:
    """Words of a page, with numbers that one command makes.

    `says`: words, once in the page, the numbers in braces; `command`: a module of `experiments`,
    with its options; `table`: a CSV file of it under the results; `row`: cells that tell the row;
    `column`: its name, without the unit. What is not the same for all of the numbers is a list.
    `factor`: what the table's numbers are multiplied by in the page; `share`: tolerance of what is
    measured by a clock, as a share; None: half a unit of the last digit printed.
    """

    page: str
    says: str
    command: str
    table: str
    row: dict[str, str | list[str]]
    column: str | list[str]
    factor: float = 1.0
    share: float | list[float | None] | None = None

    @property
    def plain(self) -> str:
        """What the page has, no braces."""
        return self.says.replace("{", "").replace("}", "")

    @property
    def printed(self) -> list[str]:
        """The numbers as they are printed."""
        return re.findall(r"\{(.*?)\}", self.says)

    def places(self) -> list[tuple[dict[str, str], str]]:
        """The row and the column of each number."""
        count = len(self.printed)
        cells = {name: _each(cell, count) for name, cell in self.row.items()}
        rows = [{name: cell[k] for name, cell in cells.items()} for k in range(count)]
        return list(zip(rows, _each(self.column, count), strict=True))

    def find(self, results: Path) -> list[float]:
        """The values in the command's table. Raises `LookupError` where one is not there, once."""
        table = pd.read_csv(results / self.table)
        table.columns = [re.sub(r" \[.*?\]$", "", name) for name in table.columns]
        values = []
        for row, column in self.places():
            told = np.ones(len(table), bool)
            for name, cell in row.items():
                told &= table[name].astype(str).to_numpy() == cell
            rows = np.flatnonzero(told)
            if len(rows) != 1:
                raise LookupError(f"{self.table} has {len(rows)} rows of {row}")
            values.append(self.factor * float(table[column].to_numpy()[rows[0]]))
        return values

    def hold(self, values: Sequence[float]) -> list[bool]:
        """Whether each value found is the one printed."""
        held, shares = [], _each(self.share, len(values))
        for text, value, share in zip(self.printed, values, shares, strict=True):
            printed = number(text)
            room = 0.5000001 * last_digit(text) if share is None else share * abs(printed)
            held.append(abs(value - printed) <= room)
        return held

    def moved_to(self, values: Sequence[float]) -> "Passage":
        """The same passage, what moved printed anew in the same form."""
        new = [
            text if held else printed_like(text, value)
            for text, value, held in zip(self.printed, values, self.hold(values), strict=True)
        ]
        parts = re.split(r"\{.*?\}", self.says)
        says = parts[0] + "".join(f"{{{x}}}{part}" for x, part in zip(new, parts[1:], strict=True))
        return dataclasses.replace(self, says=says)

    def record(self) -> dict[str, Any]:
        """As it is written."""
        plain = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: x for name, x in vars(self).items() if x != plain[name]}


def _each(given: T | list[T], count: int) -> list[T]:
    """What there is for each of several numbers, where it may be one for all."""
    return given if isinstance(given, list) else [given] * count
