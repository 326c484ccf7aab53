"""What can be shown at once: one product, or a set or a list of several.

A control is a display. `env.controls` lists them, (C, K): products in order, n for an empty place;
the last row shows none, the others are in the order of tuples, (0,) before (0, 1) before (1,).
Results name a display as a product where one is shown at a time, else as a tuple; -1 or () for
none.
"""

import functools
import itertools
import math
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Int

from dynmech._checks import flag, whole
from dynmech._types import NONE, Record
from dynmech.errors import InvalidArgument, OutsideSupport, TooLarge, describe, is_number
from dynmech.errors import shown as told

_MOST = 32_000  # controls, so that two bytes hold one
_CALL = "Displays({}=...)".format


class Displays(Record):
    """Several products on the screen at once: at most `size` of them.

    **Arguments**

    - `size`: K >= 1, places on the screen. `ordered`: whether places matter to the user, so that
      (0, 1) and (1, 0) are two displays; else a display is a set.
    - `of`: the displays that are feasible, tuples of products (indices or labels), or rows as of
      `env.controls`, -1 or n in an empty place; None: all of one to `size` different products.
      Showing none is always feasible.

    **Raises:** `InvalidArgument`; from the market, `OutsideSupport` and `TooLarge`.

    ```python
    >>> import dynmech as dm
    >>> dm.Displays(2).table(("a", "b", "c")).tolist()
    [[0, 3], [0, 1], [0, 2], [1, 3], [1, 2], [2, 3], [3, 3]]

    ```
    """

    size: int = eqx.field(static=True)
    ordered: bool = eqx.field(static=True)
    of: tuple[tuple[int | str, ...], ...] | None = eqx.field(static=True)

    def __init__(self, size: int = 1, ordered: bool = False, of: Any = None):
        self.size, self.ordered = whole(1)(_CALL("size"), size), flag(_CALL("ordered"), ordered)
        self.of = None if of is None else tuple(_read(one, self.size) for one in _listed(of))

    def table(self, names: tuple[str, ...]) -> Int[np.ndarray, "C K"]:
        """The controls of a market with products of these names, see the module."""
        return _table(self.size, self.ordered, self.of, tuple(names))


def controls_of(displays: Displays | None, names: tuple[str, ...]) -> Int[np.ndarray, "C K"]:
    """The controls of a market; one product at a time where there are no displays."""
    return _table(*_key(displays), names)


def members_of(displays: Displays | None, names: tuple[str, ...]) -> Bool[np.ndarray, "C n"]:
    """Which products each control shows."""
    return _members(*_key(displays), names)


def _key(displays: Displays | None) -> tuple[int, bool, Any]:
    return (1, False, None) if displays is None else (displays.size, displays.ordered, displays.of)


@functools.lru_cache(maxsize=64)
def _members(size: int, ordered: bool, of: Any, names: tuple[str, ...]) -> np.ndarray:
    rows = _table(size, ordered, of, names)
    held = (rows[:, :, None] == np.arange(len(names))).any(axis=1)
    held.setflags(write=False)
    return held


def display(env: Any, control: int) -> int | tuple[int, ...]:
    """A control as results name it: a product or -1, or a tuple."""
    return displays_named(env, np.asarray(control)[None])[0]


def displays_named(env: Any, control: Int[np.ndarray, " N"]) -> list[int | tuple[int, ...]]:
    """Controls as results name them."""
    n, rows = env.products, env.controls[control].tolist()
    if env.controls.shape[1] == 1:
        return [NONE if row[0] == n else row[0] for row in rows]
    return [tuple(product for product in row if product < n) for row in rows]


def places(env: Any, control: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Controls in arrays of results: products or -1; several places on a last axis, -1 if empty."""
    rows = env.controls[control]
    rows = np.where((rows == env.products) | (control[..., None] < 0), NONE, rows)
    return rows[..., 0] if rows.shape[-1] == 1 else rows


def words(env: Any) -> tuple[str, ...]:
    """Every control in words: a name, several joined by " | ", or "none"."""
    return tuple(named(env.names, row) for row in env.controls)


def named(names: tuple[str, ...], row: Any) -> str:
    """What is on the screen, in words; empty places are of no product."""
    row = np.atleast_1d(np.asarray(row, np.int64)).tolist()
    return " | ".join(names[j] for j in row if 0 <= j < len(names)) or "none"


def control_of(call: str, env: Any, shown: Any) -> int:
    """The control of what was displayed: a label, an index, -1 or "none"; or a tuple of products.

    **Raises:** `OutsideSupport` for what is no product, or no feasible display.
    """
    held = isinstance(shown, np.ndarray | jax.Array) and shown.ndim == 1
    several = held or isinstance(shown, list | tuple)
    products: list[Any] = list(shown) if several else [shown]
    row = [_product(call, env, product) for product in products]
    row = tuple(product for product in row if product < env.products)
    if env.displays is not None and not env.displays.ordered:
        row = tuple(sorted(row))
    found = _numbers(*_key(env.displays), env.names).get(row)
    if found is None:
        must = "be a display that is feasible in this market"
        raise OutsideSupport(describe(call, must, told(shown), "see env.controls"))
    return found


def _product(call: str, env: Any, product: Any) -> int:
    """Index of a product, n for none."""
    n = env.products
    if isinstance(product, str):
        known = {**{name: i for i, name in enumerate(env.names)}, "none": n}
        if product not in known:
            raise OutsideSupport(describe(call, f"be one of {', '.join(known)}", product))
        return known[product]
    if not is_number(product, "iu") or not NONE <= int(product) < n:
        must = f"be a product's label or index in 0..{n - 1}, or -1 for none"
        raise OutsideSupport(describe(call, must, told(product)))
    return n if int(product) == NONE else int(product)


@functools.lru_cache(maxsize=64)
def _numbers(
    size: int, ordered: bool, of: Any, names: tuple[str, ...]
) -> dict[tuple[int, ...], int]:
    """The control of each display, by its products."""
    rows = _table(size, ordered, of, names).tolist()
    return {tuple(j for j in row if j < len(names)): c for c, row in enumerate(rows)}


def _listed(of: Any) -> list[Any]:
    must, do = "list displays, tuples of products", "as [(0,), (0, 1)]"
    if isinstance(of, str) or not isinstance(of, Iterable):
        raise InvalidArgument(describe(_CALL("of"), must, told(of), do))
    try:
        return list(of)
    except TypeError as error:  # arrays of no axis say so when they are read
        raise InvalidArgument(describe(_CALL("of"), must, told(of), do)) from error


def _read(one: Any, size: int) -> tuple[int | str, ...]:
    alone = isinstance(one, str) or not isinstance(one, Iterable)
    row: tuple[Any, ...] = tuple([one] if alone else _listed(one))
    if not all(isinstance(x, str) or is_number(x, "iu") for x in row):
        must = "hold products, by index or label"
        raise InvalidArgument(describe(_CALL("of"), must, told(one)))
    row = tuple(x if isinstance(x, str) else int(x) for x in row)
    if len(row) > size:
        must = f"hold displays of at most size = {size} products"
        raise InvalidArgument(describe(_CALL("of"), must, told(one)))
    return row


@functools.lru_cache(maxsize=64)
def _table(size: int, ordered: bool, of: Any, names: tuple[str, ...]) -> np.ndarray:
    n = len(names)
    if size > n:
        must = f"have at most as many places as there are products, {n}"
        raise InvalidArgument(describe(_CALL("size"), must, size))
    if of is None:
        ways = math.perm if ordered else math.comb
        count = sum(ways(n, k) for k in range(1, size + 1))
        if count >= _MOST:
            do = "list the displays that are feasible: Displays(size, of=[...])"
            must = f"leave fewer than {_MOST} displays"
            raise TooLarge(describe(_CALL("size"), must, f"{count} of {n} products", do))
        pick = itertools.permutations if ordered else itertools.combinations
        rows = [row for k in range(1, size + 1) for row in pick(range(n), k)]
    else:
        rows = [row for row in (_indices(one, names, ordered) for one in of) if row]
        if len(set(rows)) < len(rows):
            must = "list each display once" + ("" if ordered else ", in whatever order")
            raise InvalidArgument(describe(_CALL("of"), must, "one twice"))
        if len(rows) >= _MOST:
            raise TooLarge(describe(_CALL("of"), f"list fewer than {_MOST} displays", len(rows)))
    table = np.full((len(rows) + 1, size), n, np.int64)
    for place, row in zip(table, sorted(rows), strict=False):
        place[: len(row)] = row
    table.setflags(write=False)
    return table


def _indices(one: tuple[Any, ...], names: tuple[str, ...], ordered: bool) -> tuple[int, ...]:
    known = {**{name: i for i, name in enumerate(names)}, **{i: i for i in range(len(names))}}
    filled = [product for product in one if product not in (NONE, len(names))]
    for product in filled:
        if product not in known:
            must = f"name products: {', '.join(names)}, or their indices"
            raise OutsideSupport(describe(_CALL("of"), must, told(product)))
    row = tuple(known[product] for product in filled)
    if len(set(row)) < len(row):
        must = "hold displays of different products"
        raise InvalidArgument(describe(_CALL("of"), must, told(one)))
    return row if ordered else tuple(sorted(row))
