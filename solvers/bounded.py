"""The bounded number: the one carrier of every figure that is not exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from solvers.checks import axis_labels
from solvers.errors import InvalidArgument, describe, is_number, shown
from solvers.host import Record
from solvers.kept import refuse

Table = Float[np.ndarray, "..."]
_CERTAIN = 0.0


def margin(
    error: npt.ArrayLike, unseen: npt.ArrayLike, confidence: float, entries: int = 1
) -> Table:
    """Distance of one-sided bounds from simulated means, for `entries` of them at once.

    By the empirical Bernstein inequality (Maurer and Pontil, 2009), for any law of the draws,

        sqrt(2 log(2 k / alpha)) error + 7/3 log(2 k / alpha) unseen,

    with `unseen` as of `hidden`, or of `Bounded`, whose betting bounds it never exceeds.
    """
    log = np.log(2 * max(entries, 1) / (1 - confidence))
    return np.sqrt(2 * log) * np.asarray(error) + 7 / 3 * log * np.asarray(unseen)


class Bounded(Record):
    """Numbers with bounds: `lower <= truth <= upper`, each entry, with `confidence`.

    Arrays of one shape, given as that or as what broadcasts to it. NaN says nothing: a value that
    is not known, or that does not exist (a profile of probability zero).

    **Arguments**

    - `value`: the best single figure. `lower`, `upper`: bounds, -inf and inf where there are none;
      the value itself by default. At confidence 1 they hold for certain; they are rounding apart
      where the number is exact.
    - `error`: standard error of `value` where it is simulated, 0 elsewhere.
    - `confidence`: in (0, 1], that of each entry by itself; 1 for certain.
    - `unseen`: where it is simulated, what `together` needs besides for other levels; else None.

    **Raises:** `InvalidArgument` for shapes that do not broadcast, a confidence outside (0, 1], and
    certain bounds that cross.

    ```python
    >>> Bounded(2.0, 1.5, 2.5).gap
    array(1.)

    ```
    """

    value: Table
    lower: Table
    upper: Table
    error: Table
    unseen: Table | None
    confidence: float = eqx.field(static=True)

    def __init__(
        self,
        value: npt.ArrayLike,
        lower: npt.ArrayLike | None = None,
        upper: npt.ArrayLike | None = None,
        error: npt.ArrayLike = _CERTAIN,
        confidence: float = 1.0,
        unseen: npt.ArrayLike | None = None,
    ):
        given = {"value": value, "lower": lower, "upper": upper, "unseen": unseen}
        given = {name: part for name, part in given.items() if part is not None}
        if error is not _CERTAIN:
            given["error"] = error
        for name, part in given.items():
            plain = isinstance(part, np.ndarray)
            if not plain and any(axis is not None for axis in axis_labels(part, 0)):
                must, do = "carry no labels: they are not matched here", "pass .to_numpy()"
                raise InvalidArgument(describe(f"Bounded({name}=...)", must, shown(part), do))
        try:
            arrays = {name: np.asarray(part, float) for name, part in given.items()}
            shapes = {part.shape for part in arrays.values()} - {()}
            shape = next(iter(shapes), ())
            if len(shapes) > 1:
                # np.broadcast_arrays ends at 32 axes: tables of many parties have more.
                zeros = (np.zeros(part.shape) for part in arrays.values())
                shape = np.shape(sum(zeros, np.zeros(())))
            whole = {name: _filled(part, shape) for name, part in arrays.items()}
        except (TypeError, ValueError) as failure:
            must = "hold numbers whose shapes broadcast"
            got = ", ".join(shown(part) for part in given.values())
            raise InvalidArgument(describe("Bounded(value=...)", must, got)) from failure
        self.value = whole["value"]
        self.lower, self.upper = (whole.get(name, self.value) for name in ("lower", "upper"))
        self.error = whole["error"] if "error" in whole else np.zeros(shape)
        self.unseen = whole.get("unseen")
        if "error" in arrays and (arrays["error"] < 0).any():
            raise InvalidArgument(describe("Bounded(error=...)", "be at least 0", shown(error)))
        if not (is_number(confidence) and 0 < confidence <= 1):
            must, got = "be a number in (0, 1]", shown(confidence)
            raise InvalidArgument(describe("Bounded(confidence=...)", must, got))
        self.confidence = float(confidence)
        apart = lower is not None or upper is not None
        if self.confidence == 1 and apart and bool((self.lower > self.upper).any()):
            where = tuple(int(i) for i in np.argwhere(self.lower > self.upper)[0])
            got = f"{self.lower[where]} above upper {self.upper[where]} at index {where}"
            raise InvalidArgument(describe("Bounded(lower=...)", "be at most upper", got))

    def check_kept(self) -> None:
        """Raise `ValueError` for numbers that no bounds are about, or out of certain ones."""
        known, room = ~np.isnan(self.value), 1e-9 * (np.abs(self.lower) + np.abs(self.upper))
        parts = {"lower": self.lower, "upper": self.upper, "error": self.error}
        parts |= {} if self.unseen is None else {"unseen": self.unseen}
        for name, part in parts.items():
            if np.isnan(part[known]).any():
                refuse(name, "be a number where the value is", "NaN")
        told = np.isfinite(self.lower) & np.isfinite(self.upper)
        if self.confidence == 1 and (told & ~known).any():
            refuse("value", "be a number where certain bounds are", "NaN")
        if np.isinf(self.value).any():
            refuse("value", "be finite", "an infinite one")
        if self.unseen is not None and (self.unseen < 0).any():
            refuse("unseen", "be at least 0", self.unseen.min())
        off = (self.value < self.lower - room) | (self.value > self.upper + room)
        if self.confidence == 1 and off[known].any():
            refuse("value", "be between bounds that are certain", self.value[known & off][0])
        if self.confidence == 1 and not (self.error[known] == 0).all():
            refuse("error", "be 0 where bounds are certain", self.error[known].max())

    @property
    def gap(self) -> Table:
        """`upper - lower`."""
        return np.asarray(self.upper - self.lower)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every field."""
        return self.value.shape

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Bounded:
        """The same entries of every field."""
        return self.each(lambda x: x[index])

    def each(self, function: Callable[[Table], Table]) -> Bounded:
        """Every field after a function that lays entries out anew."""
        parts = (function(x) for x in (self.value, self.lower, self.upper, self.error))
        unseen = None if self.unseen is None else function(self.unseen)
        return Bounded(*parts, confidence=self.confidence, unseen=unseen)

    def together(self, entries: int, confidence: float | None = None) -> Bounded:
        """Bounds of a simulated mean that hold for `entries` of them at once; see `margin`.

        What is certain stays as it is.

        **Raises:** `InvalidArgument` where there is no `unseen` to tell other levels by.
        """
        if self.confidence == 1:
            return self
        if self.unseen is None:
            must, got = "be asked of means that keep `unseen`", f"{self!r} without"
            raise InvalidArgument(describe("Bounded.together(entries=...)", must, got))
        sure = self.confidence if confidence is None else confidence
        return simulated(self.value, self.error, self.unseen, sure, entries)

    def __repr__(self) -> str:
        if self.value.ndim:
            widest = f"largest gap={np.nanmax(self.gap, initial=0):.4g}"
            return f"Bounded(shape={self.shape}, {widest}, confidence={self.confidence:g})"
        sure = "" if self.confidence == 1 else f" at {self.confidence:.0%}"
        return f"{self.value:.6g} in [{self.lower:.6g}, {self.upper:.6g}]{sure}"


def _filled(part: Table, shape: tuple[int, ...]) -> Table:
    """An array of this shape, of one that broadcasts to it."""
    found = np.empty(shape)
    found[...] = part
    return found


def simulated(
    value: Table, error: Table, unseen: npt.ArrayLike, confidence: float, entries: int = 1
) -> Bounded:
    """Means of draws with bounds, each side of which holds with the confidence; see `margin`."""
    step = margin(error, unseen, confidence, entries)
    return Bounded(value, value - step, value + step, error, confidence, unseen)


def stack(parts: Sequence[Bounded], axis: int = 0) -> Bounded:
    """Join bounded numbers of one shape along a new axis; the least confidence of any."""
    names = "value", "lower", "upper", "error"
    arrays = (np.stack([getattr(part, name) for part in parts], axis) for name in names)
    unseen = [part.unseen for part in parts if part.unseen is not None]
    drawn = np.stack(unseen, axis) if len(unseen) == len(parts) else None
    return Bounded(*arrays, confidence=min(part.confidence for part in parts), unseen=drawn)
