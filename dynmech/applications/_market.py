"""A calibrated market: products, tastes in money, markups, and what was assumed on the way.

Tastes are estimated in utils, values in money. Dividing the taste vector of shopper a by the
size of her own price coefficient alpha_a puts it into willingness-to-pay space (Train and Weeks,
2005), where theta_i + <gamma_i, omega_a> adds money to money. A logit choice of scale 1 in utils
then has scale 1 / alpha_a in money: it is kept as `taste_scale`.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from dynmech.errors import InvalidArgument, describe, require_finite, shown
from dynmech.market.tastes import TasteGrid


class Market(eqx.Module):
    """Hold one market as the environment takes it, u_i(omega) = <gamma_i, omega> in money.

    The outside option is worth zero: its value is subtracted in the taste for the constant column
    of `gamma`.

    **Arguments**

    - `name`: of the market.
    - `names`: n product labels, all different.
    - `gamma`: (n, k), characteristics of each product.
    - `attributes`: k labels, the columns of `gamma` and of `tastes.points`.
    - `tastes`: m weighted tastes, in `unit` per unit of each characteristic.
    - `taste_scale`: (m,), positive, in `unit`: the scale of a logit choice at each taste point.
    - `theta`: (n,), the markup earned on one sale, in `unit`.
    - `unit`: of all money here.
    - `assumptions`: one sentence for each thing that the data do not say.
    - `source`: where the data come from.
    - `diagnostics`: named numbers that show how well the calibration fits.

    **Raises**

    `InvalidArgument` if the shapes disagree or a scale is not positive; `NotFinite`.
    """

    name: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    gamma: Float[Array | np.ndarray, "n k"]
    attributes: tuple[str, ...] = eqx.field(static=True)
    tastes: TasteGrid
    taste_scale: Float[Array | np.ndarray, " m"]
    theta: Float[Array | np.ndarray, " n"]
    unit: str = eqx.field(static=True)
    assumptions: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True)
    diagnostics: dict[str, float]

    def __check_init__(self):
        n, k = self.gamma.shape
        m = self.tastes.size
        for name, got, want in (
            ("names", len(set(self.names)), n),
            ("attributes", len(self.attributes), k),
            ("tastes", self.tastes.dimension, k),
            ("taste_scale", self.taste_scale.shape[0], m),
            ("theta", self.theta.shape[0], n),
        ):
            if got != want:
                raise InvalidArgument(
                    describe(f"Market({name}=...)", f"agree with the rest, at size {want}", got)
                )
        for name in ("gamma", "theta", "taste_scale"):
            require_finite(f"Market({name}=...)", np.asarray(getattr(self, name)))
        if not (np.asarray(self.taste_scale) > 0).all():
            smallest = float(np.min(self.taste_scale))
            raise InvalidArgument(describe("Market(taste_scale=...)", "be positive", smallest))

    @property
    def utilities(self) -> Float[Array | np.ndarray, "n m"]:
        """Return u_i(omega_a) = <gamma_i, omega_a>, (n, m), in `unit`."""
        return self.gamma @ self.tastes.points.T


def read_columns(
    path: Path, numbers: Sequence[str], text: Sequence[str] = (), **where: str
) -> dict[str, np.ndarray]:
    """Read columns of a CSV file: floats for `numbers`, strings for `text`; rows where all match.

    **Raises**

    `InvalidArgument` naming the file and the column that is missing or does not parse.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        place = {name: k for k, name in enumerate(next(lines, []))}
        missing = {*numbers, *text, *where} - set(place)
        if missing:
            raise InvalidArgument(
                describe(f"table={path.name!r}", f"have columns {sorted(missing)}", "none so named")
            )
        wanted, blank = [(place[key], want) for key, want in where.items()], [""] * len(place)
        last = max((k for k, _ in wanted), default=0)
        rows = [
            row + blank[len(row) :]  # of a line that ends early
            for row in lines
            if len(row) > last and all(row[k] == want for k, want in wanted)
        ]
    columns = {key: np.array([row[place[key]] for row in rows]) for key in text}
    for key in numbers:
        try:
            columns[key] = np.array([float(row[place[key]]) for row in rows])
        except ValueError as error:
            raise InvalidArgument(
                describe(f"table={path.name!r}", f"hold numbers in column {key!r}", str(error))
            ) from error
    return columns


def shipped(call: str, table: str | os.PathLike[str] | None, files: Sequence[str]) -> Path | None:
    """Return the folder that holds `files`: `table`, else the one of this source tree, else None.

    **Raises**

    `InvalidArgument` if `table` is given and lacks one of them.
    """
    if table is not None:
        missing = [name for name in files if not Path(table, name).is_file()]
        if missing:
            raise InvalidArgument(
                describe(
                    f"{call}(table=...)",
                    f"be a folder that holds {', '.join(files)}",
                    f"{os.fspath(table)!r} without {', '.join(missing)}",
                    "write them with `python -m experiments.calibrate --out FOLDER`",
                )
            )
        return Path(table)
    here = Path(__file__).resolve()
    for folder in (here.parent / "data", here.parents[2] / "experiments" / "data"):
        if all((folder / name).is_file() for name in files):
            return folder
    return None


def require_between(call: str, value: float, low: float, high: float, whole: bool = False) -> None:
    """Raise `InvalidArgument` unless low <= value <= high, and whole where asked."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    good = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
    if not good:
        kind = "be a whole number" if whole else "be a number"
        raise InvalidArgument(describe(call, f"{kind} from {low} to {high}", shown(value)))


def require_choice(call: str, value: object, options: Sequence[str]) -> None:
    """Raise `InvalidArgument` unless `value` is one of `options`."""
    if not isinstance(value, str) or value not in options:
        raise InvalidArgument(describe(call, f"be one of {', '.join(options)}", shown(value)))


def spread(utilities: np.ndarray, weights: np.ndarray) -> Mapping[str, float]:
    """Return the range of money utilities and the mean correlation between two products'."""
    centred = utilities - (utilities @ weights)[:, None]
    covariance = (centred * weights) @ centred.T
    deviation = np.sqrt(np.diag(covariance))
    moves = deviation > 1e-9 * max(1.0, float(deviation.max()))
    n = int(moves.sum())
    correlation = covariance[np.ix_(moves, moves)] / np.outer(deviation[moves], deviation[moves])
    mean = (correlation.sum() - n) / (n * (n - 1)) if n > 1 else 1.0
    return {
        "utility_min": float(utilities.min()),
        "utility_max": float(utilities.max()),
        "utility_correlation": float(mean),
    }
