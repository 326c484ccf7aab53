"""Files of a market's folder, cell by cell: faults by file, line, and column or key."""

from __future__ import annotations

import csv
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dynmech.errors import DynmechError, InvalidArgument, OutsideSupport, describe
from solvers.files import read

SECTIONS = (
    "behaviour",
    "signals",
    "feedback",
    "settlement",
    "values",
    "displays",
    "money",
    "tastes",
)


def _text(path: Path) -> str:
    """What a file holds. **Raises:** `InvalidArgument` where there is none, or it is no text."""
    try:
        held = read(path)
    except OSError as error:
        must, got = (
            f"hold a file {path.name} that can be read",
            f"{path}: {error.strerror or error}",
        )
        raise InvalidArgument(describe("read_market(path=...)", must, got)) from error
    try:
        return held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = held[: error.start].count(b"\n") + 1
        got = f"the byte {held[error.start]:#x}"
        raise InvalidArgument(describe(f"{path.name}, line {line}", "be UTF-8", got)) from error


class Table:
    """A CSV file with a head; cells are read by column, and blamed by line and column.

    `head`: names of its columns; `rows`, `lines`: of the others, and where each begins.
    """

    def __init__(self, path: Path):
        self.name, self.rows, self.lines = path.name, [], []
        reader, end = csv.reader(_text(path).splitlines(keepends=True), strict=True), 0
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    self.rows.append(row)
                    self.lines.append(end + 1)
                end = reader.line_num
        except csv.Error as error:
            raise self._wrong(end + 1, "be comma-separated cells", str(error)) from error
        if len(self.rows) < 2:
            must = "hold a head and rows"
            raise InvalidArgument(describe(self.name, must, f"{len(self.rows)} lines"))
        self.head = [cell.strip() for cell in self.rows.pop(0)]
        self.top = self.lines.pop(0)
        if len(set(self.head)) < len(self.head) or "" in self.head:
            raise self._wrong(self.top, "name each column once", self.head)
        for line, row in zip(self.lines, self.rows, strict=True):
            if len(row) != len(self.head):
                raise self._wrong(line, f"hold {len(self.head)} cells, as its head", len(row))

    def where(self, line: int, column: str | None = None) -> str:
        """A place in words."""
        return f"{self.name}, line {line}" + ("" if column is None else f", column {column}")

    def _wrong(self, line: int, must: str, got: object) -> InvalidArgument:
        return InvalidArgument(describe(self.where(line), must, got))

    def only(self, names: list[str], among: str = "") -> None:
        """Raise for a column that is none of `names`, of those that match `among`."""
        strange = [x for x in self.head if re.match(among, x) and x not in names]
        if strange:
            must = f"have the columns {', '.join(names)}"
            raise OutsideSupport(describe(self.where(self.top), must, ", ".join(strange)))

    def others(self, first: str, pattern: str) -> list[str]:
        """Columns that are neither `first` nor match."""
        found = [x for x in self.head if x != first and not re.match(pattern, x)]
        if not found:
            raise self._wrong(self.top, "name characteristics", self.head)
        return found

    def column(self, name: str) -> list[str]:
        if name not in self.head:
            got = ", ".join(self.head)
            raise OutsideSupport(describe(self.where(self.top), f"have a column {name}", got))
        at = self.head.index(name)
        return [row[at].strip() for row in self.rows]

    def texts(self, name: str) -> list[str]:
        cells = self.column(name)
        for k, (line, cell) in enumerate(zip(self.lines, cells, strict=True)):
            if not cell or cell in cells[:k]:
                place = self.where(line, name)
                raise InvalidArgument(describe(place, "hold a name of its own", repr(cell)))
        return cells

    def numbers(self, names: list[str], least: float = -math.inf) -> Float[np.ndarray, "R C"]:
        """Columns as finite numbers of at least `least`."""
        out = np.empty((len(self.rows), len(names)))
        for j, name in enumerate(names):
            for k, (line, cell) in enumerate(zip(self.lines, self.column(name), strict=True)):
                try:
                    number = float(cell)
                except ValueError:
                    number = math.nan
                if not (math.isfinite(number) and number >= least):
                    must = "be a finite number" + (f" >= {least:g}" if least > -math.inf else "")
                    raise InvalidArgument(describe(self.where(line, name), must, repr(cell)))
                out[k, j] = number
        return out


class Blame:
    """Put the file, the line and the key before a message from a constructor."""

    def __init__(self, place: str):
        self.place = place

    def __enter__(self):
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object):
        if isinstance(error, DynmechError):
            raise type(error)(f"{self.place}: {error}") from error
        if isinstance(error, TypeError):
            raise InvalidArgument(f"{self.place}: {error}") from error
        return False


class Settings:
    """`market.toml`, with the line of each key."""

    def __init__(self, path: Path):
        self.name, self.text = path.name, _text(path)
        try:
            self.sections: dict[str, Any] = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgument(describe(path.name, "be TOML", str(error))) from error
        for name in self.sections:
            if name not in (*SECTIONS, "horizon"):
                must = f"hold horizon and the sections {', '.join(SECTIONS)}"
                raise OutsideSupport(describe(self.where(name), must, name))

    def where(self, *keys: str) -> str:
        """File and line of a key, the section first."""
        line, inside = 0, len(keys) == 1
        for number, text in enumerate(self.text.splitlines(), 1):
            head = re.match(r"\s*\[\s*([\w.]+)\s*\]", text)
            if head:
                inside = head.group(1) == keys[0]
                line = number if inside else line
                continue
            if inside and re.match(rf"\s*{re.escape(keys[-1])}\s*=", text):
                return f"{self.name}, line {number}, {'.'.join(keys)}"
        place = f"{self.name}, line {line}" if line else self.name
        return f"{place}, {'.'.join(keys)}"

    def blame(self, *keys: str) -> Blame:
        return Blame(self.where(*keys))

    def top(self, name: str) -> Any:
        if name not in self.sections:
            raise InvalidArgument(describe(self.name, f"give {name}", "nothing"))
        return self.sections[name]

    def section(self, name: str) -> dict[str, Any]:
        found = self.sections.get(name, {})
        if not isinstance(found, dict):
            raise InvalidArgument(describe(self.where(name), f"be a section [{name}]", repr(found)))
        return dict(found)

    def array(self, section: str, key: str, given: Any) -> Any:
        """A list as an array; anything else as it is."""
        if not isinstance(given, list):
            return given
        try:
            return np.array(given)
        except ValueError as error:
            must = "be a list, or lists of one length"
            raise InvalidArgument(describe(self.where(section, key), must, given)) from error

    def build(self, section: str, kind: Any, **arguments: Any) -> Any:
        """Call a constructor; what it refuses is blamed on the key it names, or on the section."""
        try:
            return kind(**arguments)
        except (DynmechError, TypeError) as error:
            named = re.search(r"\((\w+)=", str(error))
            with Blame(self._holder(section, named.group(1) if named else "")):
                raise

    def _holder(self, section: str, key: str) -> str:
        """Where an argument stands: in its section, or, of the market, wherever it is given."""
        if key in self.section(section):
            return self.where(section, key)
        if section != "market":
            return self.where(section)
        if key == "horizon":
            return self.where(key)
        for name in self.sections:
            if name != "horizon" and key in self.section(name):
                return self.where(name, key)
        return f"{self.name}, market"
