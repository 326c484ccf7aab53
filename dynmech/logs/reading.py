"""Columns of a table of conversations, read one by one: what each cell must be."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import axis_labels, in_order
from dynmech.errors import (
    DynmechError,
    InvalidArgument,
    NotFinite,
    OutsideSupport,
    describe,
    is_number,
    shown,
)

BUY, EXIT, QUERY = 0, 1, 2
_WORDS = {"buy": BUY, "exit": EXIT, "query": QUERY}
_MOST = 2.0**53  # integers that a float tells apart
_NOTHING = frozenset({"", "none", "nan", "<na>"})


def column(frame: Any, argument: str, name: object) -> np.ndarray:
    """Cells of one column of a DataFrame, shape (R,), missing ones as None or NaN.

    **Raises:** `OutsideSupport`, listing the columns there are.
    """
    if not isinstance(name, Hashable) or name not in frame.columns:
        must = "name a column of the frame"
        got = f"{shown(name)}; the columns are {', '.join(map(str, frame.columns))}"
        raise OutsideSupport(describe(_call(argument), must, got))
    found = frame[name]
    if found.ndim != 1:
        must = "name one column"
        raise InvalidArgument(describe(_call(argument), must, f"{name!r}, there more than once"))
    cells = found.to_numpy()
    # NumPy takes its own times and complex numbers for numbers; as objects they are none.
    return found.astype(object).to_numpy() if cells.dtype.kind in "mMc" else cells


def _call(argument: str) -> str:
    return f"Log.from_frame({argument}=...)"


def missing(cells: np.ndarray) -> np.ndarray:
    """Which cells hold nothing: None, NaN, NaT or pandas' NA, shape (R,)."""
    if cells.dtype.kind == "f":
        return np.isnan(cells)
    if cells.dtype.kind in "iub":
        return np.zeros(len(cells), bool)
    return np.array([x is None or x != x or str(x) == "<NA>" for x in cells.tolist()], bool)


def numbered(pandas: Any, ids: np.ndarray) -> tuple[Int[np.ndarray, " R"], np.ndarray]:
    """The number of each row's conversation, in the order met, and their identifiers."""
    try:
        return pandas.factorize(ids)
    except TypeError as error:
        must, got = "hold names or numbers", f"cells like {shown(ids[0])}"
        raise InvalidArgument(describe(_call("conversation"), must, got)) from error


class Rows:
    """Where each row of a log stands, for messages."""

    def __init__(self, conversation: np.ndarray, period: np.ndarray):
        self.conversation, self.period = conversation, period

    def at(self, row: int) -> str:
        """Conversation and round of a row."""
        return f"conversation {self.conversation[row]!s}, round {self.period[row]}"

    def refuse(
        self,
        argument: str,
        must: str,
        bad: np.ndarray,
        cells: np.ndarray,
        do: str | None = None,
        kind: type[DynmechError] = InvalidArgument,
    ) -> None:
        """Raise `kind`, naming the first of the `bad` rows, if there is any."""
        where = np.flatnonzero(bad)
        if len(where):
            count = f" ({len(where)} rows in all)" if len(where) > 1 else ""
            cell = cells[where[0]]
            cell = cell.item() if isinstance(cell, np.generic) else cell
            got = f"{cell!r} in {self.at(int(where[0]))}{count}"
            raise kind(describe(_call(argument), must, got, do))


def whole(argument: str, cells: np.ndarray, rows: Rows) -> Int[np.ndarray, " R"]:
    """Cells that must be integers, -1 where there is none, shape (R,)."""
    gone = missing(cells)
    try:
        numbers = np.where(gone, -1, cells).astype(float)
    except (TypeError, ValueError):
        bad = np.array([not _numeric(x) for x in cells.tolist()]) & ~gone
        rows.refuse(argument, "hold integers", bad, cells)
        raise
    counts = np.where(np.abs(numbers) < _MOST, numbers, 0.5)
    rows.refuse(argument, "hold integers", counts % 1 != 0, cells)
    return numbers.astype(np.int64)


def symbols(argument: str, cells: np.ndarray, rows: Rows) -> Int[np.ndarray, " R"]:
    """Cells that must be symbols, -1 or nothing where there is none, shape (R,)."""
    found = whole(argument, cells, rows)
    rows.refuse(argument, "hold symbols from 0, -1 or nothing for none", found < -1, cells)
    return found


def real(argument: str, cells: np.ndarray, rows: Rows) -> Float[np.ndarray, " R"]:
    """Cells that must be numbers, NaN where there is none, shape (R,)."""
    gone = missing(cells)
    texts = cells if cells.dtype.kind in "iuf" else np.where(gone, np.nan, cells)
    try:
        numbers = texts.astype(float)
    except (TypeError, ValueError):
        bad = np.array([not _numeric(x) for x in cells.tolist()]) & ~gone
        rows.refuse(argument, "hold numbers, empty where none came", bad, cells)
        raise
    rows.refuse(argument, "hold finite numbers", np.isinf(numbers), cells, kind=NotFinite)
    return numbers


def _numeric(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return not isinstance(cell, bool)


def labels(cells: np.ndarray, argument: str, rows: Rows) -> list[tuple[str | int, ...]]:
    """Products named in each cell: names joined by `|`, or one index; () for none, length R."""
    if cells.dtype.kind in "iuf":
        index = whole(argument, cells, rows)
        rows.refuse(argument, "hold names, or indices from 0, -1 for none", index < -1, cells)
        return [() if k < 0 else (int(k),) for k in index.tolist()]
    found: list[tuple[str | int, ...]] = []
    for cell, gone in zip(cells.tolist(), missing(cells).tolist()):
        if isinstance(cell, int | np.integer) and not isinstance(cell, bool):
            found.append((int(cell),) if cell >= 0 else ())
            continue
        names = [] if gone else [x.strip() for x in str(cell).split("|")]
        found.append(tuple(x for x in names if x.lower() not in _NOTHING))
    twice = np.array([len(set(x)) < len(x) for x in found], bool)
    rows.refuse(argument, "name each product once", twice, cells)
    return found


def actions(
    cells: np.ndarray,
    bought: Sequence[tuple[str | int, ...]] | None,
    shown: Sequence[tuple[str | int, ...]],
    rows: Rows,
) -> tuple[Int[np.ndarray, " R"], list[str | int | None]]:
    """What the user did in each row, and the product bought, None elsewhere.

    Words: `buy` (of the product in `bought`, else of the only one shown), `exit`, `query`, or a
    product's name. Numbers are action codes 0..n-1, n, n+1.
    """
    gone = missing(cells)
    if cells.dtype.kind not in "iuf":
        gone |= np.array([not str(x).strip() for x in cells.tolist()], bool)
    rows.refuse("action", "say what the user did in every row", gone, cells)
    if cells.dtype.kind in "iuf":
        return _codes(whole("action", cells, rows), cells, shown, rows)
    kinds, products = np.zeros(len(cells), np.int64), []
    for row, cell in enumerate(cells.tolist()):
        word = str(cell).strip()
        kinds[row] = _WORDS.get(word.lower(), BUY)
        product: str | int | None = None
        if kinds[row] == BUY:
            named = () if bought is None else bought[row]
            if word.lower() != "buy":
                named = (word,)
            product = named[0] if named else (shown[row][0] if len(shown[row]) == 1 else None)
            if product is None or len(named) > 1:
                must = "say which product was bought where not one alone was shown"
                got = f"{cell!r} with {len(shown[row])} shown in {rows.at(row)}"
                do = "name it in the column bought="
                raise InvalidArgument(describe(_call("action"), must, got, do))
        products.append(product)
    if bought is not None:
        stray = np.array([bool(x) for x in bought]) & (kinds != BUY)
        must, do = "be empty where nothing was bought", "look whether columns are swapped"
        rows.refuse("bought", must, stray, np.array(["|".join(map(str, x)) for x in bought]), do)
    return kinds, products


def _codes(
    code: Int[np.ndarray, " R"], cells: np.ndarray, shown: Sequence[Sequence[str | int]], rows: Rows
):
    """Read action codes: whatever goes on is a query, which has the highest code, n + 1."""
    going = np.flatnonzero(rows.conversation[1:] == rows.conversation[:-1])
    if not len(going):
        must = "be words (buy, exit, query, a product) where no conversation has a second round"
        got = f"codes up to {code.max()}"
        raise InvalidArgument(describe(_call("action"), must, got))
    query = int(code[going[0]])
    rows.refuse("action", f"hold codes in 0..{query}", (code < 0) | (code > query), cells)
    if any(isinstance(x, str) for names in shown for x in names):
        must, do = "be words where products are named", "write buy, exit, query, or a name"
        raise InvalidArgument(describe(_call("action"), must, "codes", do))
    kinds = np.where(code == query, QUERY, np.where(code == query - 1, EXIT, BUY))
    products: list[str | int | None] = [int(c) if c < query - 1 else None for c in code.tolist()]
    return kinds, products


def counted(ids: np.ndarray, codes: np.ndarray, cells: np.ndarray) -> Rows:
    """Check that rounds of each conversation are 1, 2, ... in this order."""
    rows = Rows(ids, cells)
    period = whole("round", cells, rows)
    first = np.concatenate([[True], codes[1:] != codes[:-1]])
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    wanted = np.arange(len(codes)) - start + 1
    bad = period != wanted
    must = "count 1, 2, ... within each conversation, one row a round, in this order"
    do = "sort by conversation and round, and merge rows of the same round"
    rows.refuse("round", must, bad, cells, do)
    return Rows(ids, period)


def vocabulary(
    seen: Sequence[Sequence[str | int]], bought: Sequence[str | int | None]
) -> tuple[str | int, ...]:
    """Every product met, names in the order met, indices in increasing order."""
    met = dict.fromkeys(x for names in seen for x in names)
    met.update(dict.fromkeys(x for x in bought if x is not None))
    kinds = {type(x) for x in met}
    if kinds == {int}:
        return tuple(range(max(int(x) for x in met) + 1))
    if len(kinds) > 1:
        must, got = "name all products, or index all of them", ", ".join(map(str, met))
        raise InvalidArgument(describe("Log.from_frame(shown=...)", must, got[:120]))
    return tuple(met)


def money(table: Any, name: str, rows: Rows) -> np.ndarray:
    """Read a column of reports, which none may lack."""
    numbers = real("reports", column(table, "reports", name), rows)
    rows.refuse("reports", "be given in every round", np.isnan(numbers), numbers)
    return numbers


def several_columns(argument: str, names: object) -> tuple[Any, ...]:
    """One name of a column or several, None for none, as a tuple."""
    if names is None or isinstance(names, str):
        return () if names is None else (names,)
    if not isinstance(names, list | tuple | np.ndarray) or np.ndim(np.array(names, object)) != 1:
        must = "name columns of the frame, or be None"
        raise InvalidArgument(describe(_call(argument), must, shown(names)))
    return tuple(names)


def reporter(name: object) -> str:
    """Whose reports a column holds."""
    if not isinstance(name, str) or not name.startswith("theta_") or name == "theta_":
        must = "name columns theta_NAME, NAME a product"
        raise InvalidArgument(describe("Log.from_frame(reports=...)", must, shown(name)))
    return name.removeprefix("theta_")


def read_scale(scale: object) -> tuple[float, float] | None:
    """Check the scale of ratings, (a, b)."""
    if scale is None:
        return None
    pair = tuple(scale) if isinstance(scale, tuple | list | np.ndarray) else ()
    if len(pair) != 2 or not all(is_number(x) and np.isfinite(x) for x in pair) or pair[1] == 0:
        must = "be (a, b), finite, b not 0: rating = a + b u + noise"
        raise InvalidArgument(describe("Log.from_frame(scale=...)", must, shown(scale)))
    return float(pair[0]), float(pair[1])


def chosen(which: Any, conversations: np.ndarray) -> Int[np.ndarray, " k"]:
    """Indices of conversations, given as such or as a mask, which labels of theirs may order."""
    call, count = "Log.keep(which=...)", len(conversations)
    try:
        given = np.asarray(which)
    except Exception:  # ragged lists, and whatever a foreign __array__ raises
        given = np.zeros((0, 0))
    mask = given.dtype.kind == "b" and given.shape == (count,)
    if not mask and (given.ndim != 1 or (given.size > 0 and given.dtype.kind not in "iu")):
        must = f"be indices of conversations, or a mask of shape ({count},)"
        raise InvalidArgument(describe(call, must, shown(which)))
    if not mask and given.size and not (given.min() >= 0 and given.max() < count):
        must, got = f"be in 0..{count - 1}", f"{given.min()} to {given.max()}"
        raise OutsideSupport(describe(call, must, got))
    names = axis_labels(which, 1)[0]
    if mask:
        own = tuple(conversations.tolist())
        return np.flatnonzero(in_order(call, given, 0, names, own, "conversations"))
    if names is not None:
        must, do = "carry no labels: they are not matched here", "pass .to_numpy()"
        raise InvalidArgument(describe(call, must, shown(which), do))
    return given.astype(np.int64)
