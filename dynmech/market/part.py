"""What every part of a market can be asked, and what one that does not say answers."""

from typing import Self

import numpy as np
from jaxtyping import Int

from dynmech._types import with_default
from dynmech.errors import InvalidArgument, describe


class MarketPart:
    """A rule, choice, query, signal or settlement; a class of yours may give these methods too."""

    @with_default
    def check(self, products: int, points: int, horizon: int | float) -> None:
        """Raise `InvalidArgument` unless the part fits n products, m tastes, T rounds."""
        return

    @with_default
    def restrict(self, keep: Int[np.ndarray, " K"]) -> Self:
        """The same part in the market of the products `keep`, increasing indices.

        In feedback the symbols of advertisers left out become the platform's, in the order
        (platform, those left out, those kept).

        **Raises:** `InvalidArgument` here, where a class does not give the method.
        """
        kind = type(self).__name__
        must = "say what is left of the part when products are left out"
        do = f"define it in {kind}, or build the market of the products in `.kept` yourself"
        raise InvalidArgument(describe(f"{kind}.restrict(keep)", must, "no such method", do))


def history_count(products: int, horizon: int) -> int:
    """Number of ordered histories of recommendations of length 1..T: the H of `Tabulated`."""
    return sum((products + 1) ** t for t in range(1, horizon + 1))


def kept_histories(keep: Int[np.ndarray, " K"], products: int, rows: int) -> Int[np.ndarray, " H"]:
    """Rows, of `rows` over all histories, of those that show kept products only, in order."""
    label = np.append(keep, products)
    found, level, start = [], np.zeros(1, np.int64), 0
    while start < rows:
        level = (level[:, None] * (products + 1) + label).ravel()
        found.append(start + level)
        start += (products + 1) ** len(found)
    return np.concatenate(found)


def fold_symbols(table: np.ndarray, keep: Int[np.ndarray, " K"], products: int) -> np.ndarray:
    """Join the symbols of those left out to the platform's, in tables (rows, m, Zp, Z1, ...)."""
    out = np.setdiff1d(np.arange(products), keep)
    moved = np.moveaxis(table, [3 + i for i in out], range(3, 3 + len(out)))
    return moved.reshape(*table.shape[:2], -1, *(table.shape[3 + i] for i in keep))
