"""Where many conversations start: at solved profiles, or at rows of values and signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import by_label, indices, labelled
from dynmech._types import Record
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.errors import shown as told
from dynmech.policy.conversation import Conversation, start_conversation

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced

_CALL = "EfficientPolicy.start_many({})".format


class Openings(Record):
    """N conversations before their first round.

    `profile` (N,): the one asked for, -1 where that is none; `values` (N, n): indices, 0 where they
    are a `bid` (N, n), money, else NaN; `signals` (N, 1+n): symbols; `apart`: rows on no plan.
    """

    profile: Int[np.ndarray, " N"]
    values: Int[np.ndarray, "N n"]
    signals: Int[np.ndarray, "N n1"]
    bid: Float[np.ndarray, "N n"]
    apart: Mapping[int, Conversation]


def openings(policy: AbstractPriced, profiles: Any, theta: Any, signals: Any) -> Openings:
    """Read what `EfficientPolicy.start_many` is given; what is the same is started once.

    **Raises:** `InvalidArgument`, `OutsideSupport`, `ImpossibleProfile`.
    """
    if profiles is not None:
        if theta is not None or signals is not None:
            must = "be either profiles or theta and signals"
            raise InvalidArgument(describe(_CALL("..."), must, "both"))
        index = _solved(policy, profiles)
        values, symbols = policy.profiles.theta[index], policy.profiles.signals[index]
        return Openings(index, values, symbols, np.full(values.shape, np.nan), {})
    given = {"theta": _rows("theta", theta), "signals": _rows("signals", signals)}
    sizes = {name: len(rows) for name, rows in given.items() if rows is not None}
    if len(set(sizes.values())) != 1 or not min(sizes.values()):
        must = "be profiles (N,), or N rows of theta, of signals, or of both, N >= 1"
        raise InvalidArgument(describe(_CALL("..."), must, sizes or "nothing"))
    count, started, each = min(sizes.values()), {}, []
    values, said = (rows or [None] * count for rows in given.values())
    for row, heard in zip(values, said, strict=True):
        key = repr((row, heard))
        if key not in started:
            started[key] = start_conversation(policy, row, heard, None)
        each.append(started[key])
    values = np.array([chat.place.theta for chat in each], np.int64)
    bid = np.full(values.shape, np.nan)
    apart = {k: chat for k, chat in enumerate(each) if chat.bid is not None}
    for k, chat in apart.items():
        bid[k], values[k] = chat.bid, 0
    symbols = np.array([chat.opening[1] for chat in each], np.int64)
    return Openings(np.array([chat.profile for chat in each]), values, symbols, bid, apart)


def _solved(policy: AbstractPriced, profiles: Any) -> Int[np.ndarray, " N"]:
    """Indices of solved profiles that can occur."""
    call = _CALL("profiles=...")
    index = indices(None)(call, profiles)
    if index.ndim != 1 or not len(index):
        raise InvalidArgument(describe(call, "have shape (N,), N >= 1", index.shape))
    if (index < 0).any() or (index >= len(policy.profiles)).any():
        must = f"be indices in 0..{len(policy.profiles) - 1}"
        raise OutsideSupport(describe(call, must, index.tolist()[:8]))
    for profile in np.unique(index).tolist():
        policy.profile_at("start_many", profile)
    return index


def _rows(name: str, given: Any) -> list[Any] | None:
    """Rows as `start` takes them, from a table, its columns by name, or a list of rows."""
    call = _CALL(f"{name}=...")
    if given is None:
        return None
    if isinstance(given, Mapping):
        columns = [np.asarray(column) for column in given.values()]
        shapes = {column.shape for column in columns}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            must = "hold columns (N,) by their names, of one length"
            raise InvalidArgument(describe(call, must, sorted(shapes)))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [dict(zip(given, row, strict=True)) for row in rows]
    if isinstance(given, list | tuple):
        return [_plain(row) for row in given]
    array, labels = labelled(call, given)
    if np.ndim(array) != 2:
        raise InvalidArgument(describe(call, "have one row a conversation", told(given)))
    rows = np.asarray(given).tolist()
    if labels[1] is None:
        return rows
    return [dict(zip(labels[1], row, strict=True)) for row in rows]


def _plain(row: Any) -> Any:
    """One row in Python's own numbers, so that equal rows read the same."""
    row = by_label(row)
    if isinstance(row, Mapping):
        return {name: np.asarray(x).tolist() for name, x in row.items()}
    if isinstance(row, list | tuple):
        return [x if isinstance(x, tuple) else np.asarray(x).tolist() for x in row]
    return np.asarray(row).tolist()
