"""A plain table writer: what objects say of themselves in a terminal and in a notebook.

An object hands over a `Card`: a title, facts, a table, a note. Text has at most fifteen lines; HTML
has no script and no style of its own but what a notebook gives to tables, and no label is taken
for a formula.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import numpy as np

T = TypeVar("T")
LINES = 15
_WIDTH = 88
_ROWS = 40


@dataclass(frozen=True)
class Card:
    """What an object says of itself; the cells of `rows` are labels or numbers."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    note: str = ""


def amount(x: Any) -> str:
    """A number to four digits, "?" where it is not known."""
    value = float(x)
    return "?" if np.isnan(value) else f"{value + 0.0:.4g}"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def span(values: Any) -> str:
    """From the least to the largest of many numbers, those known."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not known.size:
        return "not known"
    low, high = amount(known.min()), amount(known.max())
    return low if low == high else f"{low} to {high}"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else amount(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def as_text(card: Card) -> str:
    """At most fifteen lines."""
    wide = max((len(name) for name, _ in card.facts), default=0)
    lines = [f"  {name:<{wide}}  {text}" for name, text in card.facts]
    room = LINES - 1 - len(lines) - bool(card.note) - bool(card.columns)
    kept = card.rows if len(card.rows) <= room else card.rows[: max(room - 1, 0)]
    if card.columns and kept:
        cells = [card.columns, *([_cut(_cell(x), 40) for x in row] for row in kept)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(card.columns))]
        lines += [
            "  " + "  ".join(f"{x:<{w}}" for x, w in zip(row, widths)).rstrip() for row in cells
        ]
        left = len(card.rows) - len(kept)
        lines += [f"  and {left} more"] if left else []
    lines = [card.title, *lines, *([f"  {card.note}"] if card.note else [])]
    return "\n".join(_cut(line, _WIDTH) for line in lines[:LINES])


def as_html(card: Card) -> str:
    """Tables of escaped text; of many rows the first forty."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(x)}</{tag}>" for x in cells) + "</tr>"

    parts = [f"<p><strong>{html.escape(card.title)}</strong></p>"]
    if card.facts:
        parts.append("<table>" + "".join(line(fact, "td") for fact in card.facts) + "</table>")
    if card.columns:
        rows = [line([_cell(x) for x in row], "td") for row in card.rows[:_ROWS]]
        head = f"<thead>{line(card.columns, 'th')}</thead>"
        parts.append(f"<table>{head}<tbody>{''.join(rows)}</tbody></table>")
        left = len(card.rows) - _ROWS
        parts += [f"<p>and {left} more</p>"] if left > 0 else []
    parts += [f"<p>{html.escape(card.note)}</p>"] if card.note else []
    return f'<div class="tex2jax_ignore mathjax_ignore">{"".join(parts)}</div>'


def portrait(thing: T, make: Callable[[T], Card], write: Callable[[Card], str] = as_text) -> str:
    """Write an object's card, or its fields where it is not whole or is being traced."""
    try:
        return write(make(thing))
    except (AttributeError, TypeError):
        fields = eqx.tree_pformat(thing)
        return fields if write is as_text else f"<pre>{html.escape(fields)}</pre>"
