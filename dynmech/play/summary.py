"""What is kept of conversations that are too many to keep: moments and quantiles, as they come.

Of each record: how many are known, their mean, sum of squared deviations, least and largest, and a
histogram over cells whose ends are in proportion. Moments of two sets of conversations are joined
exactly (Chan, Golub & LeVeque, 1983), histograms by adding up, so that what is kept does not grow.
Cell k of a positive record x, in units of its scale, holds

    LEAST g^(k-1) < x <= LEAST g^k,   g = (1 + ERROR) / (1 - ERROR),

and stands for 2 LEAST g^k / (1 + g): no number in it is further from that than ERROR of itself
(Masson, Rim & Lee, 2019). Negative ones alike; those within LEAST of zero are zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech import files
from dynmech._checks import choice, number
from dynmech._types import Record
from dynmech.errors import import_extra

ERROR = 1e-3  # of a quantile, relative
LEAST, MOST = 1e-9, 1e6  # of the scale: what is told from zero, and what cells are there for
_BASE = math.log((1 + 0.999 * ERROR) / (1 - 0.999 * ERROR))  # rounding puts few one cell off
_CELLS = math.ceil(math.log(MOST / LEAST) / _BASE)
EACH = ("payment", "payoff", "core", "groves", "earned")  # of every advertiser
WHOLE = ("surplus", "user_utility", "round_costs", "estimate", "rating", "length")


class Moments(Record):
    """Running moments of F records, and the cells of their histograms that hold anything.

    - `known` (F,): numbers that are no NaN. `mean`, `squares` (F,): of these, and their summed
      squared deviations; `least`, `most` (F,).
    - `cell` (H,), `count` (H,): cells in order, each numbered record by record, and how many
      numbers are in each.
    """

    known: Int[np.ndarray, " F"]
    mean: Float[np.ndarray, " F"]
    squares: Float[np.ndarray, " F"]
    least: Float[np.ndarray, " F"]
    most: Float[np.ndarray, " F"]
    cell: Int[np.ndarray, " H"]
    count: Int[np.ndarray, " H"]

    def joined(self, other: Moments) -> Moments:
        """Those of both sets of numbers."""
        known = self.known + other.known
        share = other.known / np.maximum(known, 1)
        apart = np.where(self.known > 0, other.mean - self.mean, 0.0)
        mean = np.where(self.known > 0, self.mean + apart * share, other.mean)
        cell, at = np.unique(np.concatenate([self.cell, other.cell]), return_inverse=True)
        count = np.zeros(len(cell), np.int64)
        np.add.at(count, at, np.concatenate([self.count, other.count]))
        return Moments(
            known,
            np.where(other.known > 0, mean, self.mean),
            self.squares + other.squares + apart**2 * self.known * share,
            np.minimum(self.least, other.least),
            np.maximum(self.most, other.most),
            cell,
            count,
        )

    def quantile(self, record: int, level: float, scale: float) -> float:
        """The least number that a share `level` of those of a record does not exceed."""
        known = int(self.known[record])
        if known == 0:
            return math.nan
        width = 2 * _CELLS + 1
        mine = slice(*np.searchsorted(self.cell, [record * width, (record + 1) * width]))
        cell, total = self.cell[mine] - record * width - _CELLS, np.cumsum(self.count[mine])
        rank = max(math.ceil(round(level * known, 6)), 1)
        if rank in (1, known):
            return float((self.least if rank == 1 else self.most)[record])
        k = int(cell[np.searchsorted(total, rank)])
        found = 2 * LEAST * math.exp(_BASE * abs(k)) / (1 + math.exp(_BASE)) * scale
        found = math.copysign(found, k) if k else 0.0
        return min(max(found, float(self.least[record])), float(self.most[record]))


def moments_of(numbers: Float[np.ndarray, "N F"], scale: Float[np.ndarray, " F"]) -> Moments:
    """Moments and histograms of N numbers each, NaN where one is not known."""
    there = ~np.isnan(numbers)
    known = there.sum(axis=0)
    filled = np.where(there, numbers, 0.0)
    mean = filled.sum(axis=0) / np.maximum(known, 1)
    apart = np.where(there, numbers - mean, 0.0)
    row, record = np.nonzero(there & (np.abs(filled) > LEAST * scale))
    size = np.abs(numbers[row, record]) / (LEAST * scale[record])
    at = np.clip(np.ceil(np.log(size) / _BASE), 1, _CELLS).astype(np.int64)
    at = np.where(numbers[row, record] < 0, -at, at) + record * (2 * _CELLS + 1) + _CELLS
    middle = np.arange(len(known)) * (2 * _CELLS + 1) + _CELLS
    zeros = known - np.bincount(record, minlength=len(known))
    cell, count = np.unique(at, return_counts=True)
    every = np.concatenate([cell, middle[zeros > 0]])
    order = np.argsort(every)
    return Moments(
        known,
        mean,
        (apart**2).sum(axis=0),
        np.where(there, numbers, np.inf).min(axis=0),
        np.where(there, numbers, -np.inf).max(axis=0),
        every[order],
        np.concatenate([count, zeros[zeros > 0]])[order],
    )


def record_table(records: Mapping[str, np.ndarray]) -> Float[np.ndarray, "N F"]:
    """The numbers kept, by conversation: `EACH` of every advertiser, then `WHOLE`."""
    payment = records["core"] + records["groves"]
    each = {**records, "payment": payment, "payoff": records["earned"] - payment}
    surplus = records["earned"].sum(axis=1) + records["user_utility"] - records["round_costs"]
    length = (records["action"] >= 0).sum(axis=1)
    whole = {**records, "surplus": surplus, "length": length}
    columns = [each[name] for name in EACH] + [whole[name][:, None] for name in WHOLE]
    return np.concatenate(columns, axis=1).astype(float)


class SimulationSummary(files.Kept, Record):
    """Moments and quantiles of simulated conversations; money unless said otherwise.

    Of "payment", "payoff", "core", "groves" and "earned", (n,) each, and of "surplus",
    "user_utility", "round_costs", "estimate", "rating" and "length" (rounds, no money), as a
    `Simulation` has them: over those conversations in which they are known, a rating after a
    purchase, a Groves term where the profile reported was solved.

    - `conversations`: how many. `scale`: of money, in whose units quantiles tell numbers apart.
    - `settled_at_mean`: True where the settlement's noise is not known to the market.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    conversations: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    moments: Moments
    settled_at_mean: bool = eqx.field(static=True)

    def known(self, name: str) -> Int[np.ndarray, "..."]:
        """In how many conversations a record is known."""
        return self._part(name, self.moments.known)

    def mean(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard error of a record, as `Simulation.mean`; NaN where none is known."""
        known = self.known(name)
        mean = np.where(known > 0, self._part(name, self.moments.mean), np.nan)
        return mean, np.asarray(self.std(name) / np.sqrt(np.maximum(known, 1)))

    def std(self, name: str) -> Float[np.ndarray, "..."]:
        """Standard deviation of a record; NaN where fewer than two are known."""
        known, squares = self.known(name), self._part(name, self.moments.squares)
        return np.where(known > 1, np.sqrt(squares / np.maximum(known - 1, 1)), np.nan)

    def least(self, name: str) -> Float[np.ndarray, "..."]:
        """The smallest number met, infinity where none is known."""
        return self._part(name, self.moments.least)

    def most(self, name: str) -> Float[np.ndarray, "..."]:
        """The largest number met, minus infinity where none is known."""
        return self._part(name, self.moments.most)

    def quantile(self, name: str, level: float) -> Float[np.ndarray, "..."]:
        """The least number that a share `level` of a record does not exceed.

        Within a thousandth of the order statistic itself, or, near zero, within 1e-9 of the
        scale; the ends are exact. Numbers beyond 1e6 times the scale are not told apart.

        **Arguments:** `level`: in [0, 1]. **Raises:** `InvalidArgument`.
        """
        number(least=0, most=1)("SimulationSummary.quantile(level=...)", level)
        scale = 1.0 if name == "length" else self.scale
        where = np.arange(len(self.moments.known))
        found = [self.moments.quantile(int(k), level, scale) for k in self._flat(name, where)]
        return np.array(found) if name in EACH else np.array(found[0])

    def _flat(self, name: str, row: np.ndarray) -> np.ndarray:
        choice(*EACH, *WHOLE)("SimulationSummary(name=...)", name)
        n = len(self.names)
        if name in EACH:
            at = EACH.index(name) * n
            return row[at : at + n]
        at = len(EACH) * n + WHOLE.index(name)
        return row[at : at + 1]

    def _part(self, name: str, row: np.ndarray) -> np.ndarray:
        found = self._flat(name, row)
        return found if name in EACH else np.asarray(found[0])

    def to_frame(self):
        """Labelled pandas table: a row a record and advertiser, moments and five quantiles."""
        pandas = import_extra("pandas", "experiments", "SimulationSummary.to_frame")
        rows = []
        for name in (*EACH, *WHOLE):
            mean, error = self.mean(name)
            numbers = [self.known(name), mean, error, self.std(name), self.least(name)]
            numbers += [self.quantile(name, level) for level in (0.05, 0.25, 0.5, 0.75, 0.95)]
            table = np.stack([*map(np.atleast_1d, numbers), np.atleast_1d(self.most(name))], axis=1)
            who = self.names if name in EACH else ("",)
            rows += [[name, i, *row] for i, row in zip(who, table.tolist(), strict=True)]
        shares = ["5%", "25%", "50%", "75%", "95%"]
        columns = ["record", "advertiser", "known", "mean", "standard_error", "std", "least"]
        return pandas.DataFrame(rows, columns=[*columns, *shares, "most"])


def record_scales(products: int, scale: float) -> Float[np.ndarray, " F"]:
    """Unit of every record kept: of money, or, for rounds, one."""
    names = [name for name in EACH for _ in range(products)] + [*WHOLE]
    return np.array([1.0 if name == "length" else scale for name in names])
