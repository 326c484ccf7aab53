"""What a service has acknowledged, in one SQLite file: openings, turns, settlements.

Each is one row, written before it is acknowledged: an entry that was answered is there after the
process was killed (write-ahead log, synced at every commit). A row is keyed by the conversation and
its place in it, with what was asked and what was answered, so that asking twice answers the same.
"""

import json
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLE = """CREATE TABLE IF NOT EXISTS entries (
    conversation TEXT, place INTEGER, asked TEXT, answered TEXT, record TEXT,
    PRIMARY KEY (conversation, place)) WITHOUT ROWID"""
OPENING, SETTLEMENT = 0, -1  # turns are 1, 2, ...


def canonical(value: Any) -> str:
    """One text for one JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Entry:
    """One row: what was asked, what was answered, and the conversation's record after it."""

    asked: str
    answered: dict[str, Any]
    record: dict[str, Any]


class Store:
    """Entries in one file, which any number of threads and processes may open."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(_TABLE)

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection, None, None]:
        with closing(sqlite3.connect(self.path, timeout=30.0, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            yield db

    def get(self, conversation: str, place: int) -> Entry | None:
        """The entry at a place, None if there is none."""
        query = "SELECT asked, answered, record FROM entries WHERE conversation = ? AND place = ?"
        return self._one(query, conversation, place)

    def last(self, conversation: str) -> Entry | None:
        """The opening or the latest turn, None if the conversation is not known."""
        query = (
            "SELECT asked, answered, record FROM entries WHERE conversation = ? AND place >= 0 "
            "ORDER BY place DESC LIMIT 1"
        )
        return self._one(query, conversation)

    def put(self, conversation: str, place: int, entry: Entry) -> Entry:
        """Write an entry, unless its place is taken; what stands there then."""
        row = entry.asked, canonical(entry.answered), canonical(entry.record)
        with self._open() as db:
            db.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (conversation, place, *row),
            )
        found = self.get(conversation, place)
        assert found is not None
        return found

    def conversations(self) -> list[str]:
        """Every conversation, in the order of their names."""
        query = "SELECT conversation FROM entries WHERE place = 0 ORDER BY conversation"
        with self._open() as db:
            return [name for (name,) in db.execute(query)]

    def _one(self, query: str, *given: Any) -> Entry | None:
        with self._open() as db:
            row = db.execute(query, given).fetchone()
        return None if row is None else Entry(row[0], json.loads(row[1]), json.loads(row[2]))
