"""Errors that a user can cause, one class for each kind of mistake.

Every class is a `DynmechError`, which is a `ValueError`, so that a caller may catch one kind,
all of ours, or simply `ValueError`. Messages are built by `describe`, so that each names the
call and the argument, what it must be, what it was, and what to do.
"""

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import cast

import numpy as np

from solvers.errors import DynmechError as DynmechError
from solvers.errors import DynmechWarning as DynmechWarning
from solvers.errors import InvalidArgument as InvalidArgument
from solvers.errors import describe as describe
from solvers.errors import is_number as is_number
from solvers.errors import shown as shown


class InvalidProbability(DynmechError):
    """Signal probabilities that are negative or do not sum to one."""


class NotFinite(DynmechError):
    """Signal a NaN or an infinity in the input."""


class UnseenPurchase(DynmechError):
    """Signal an action rule under which the user can buy a product not yet shown."""


class TooLarge(DynmechError):
    """Signal a problem that will not fit in the memory or the work allowed."""


class NotIdentified(DynmechError):
    """Signal parameters that a log cannot tell apart, or says nothing about."""


class MissingExtra(DynmechError, ImportError):
    """Signal that an optional dependency is not installed."""


class ImpossibleProfile(DynmechError):
    """Signal a report profile that has probability zero under the prior."""


class OutsideSupport(DynmechError):
    """Signal a value, label or index outside the declared support."""


class ToleranceMissed(DynmechError):
    """Signal bounds that are wider than what was asked for; `policy` has them."""

    def __init__(self, message: str, policy: object = None):
        self.policy = policy
        DynmechError.__init__(self, message)


class TrainingDiverged(ToleranceMissed):
    """Signal, with `throw`, a training that blew up; the policy it carries uses no network."""


class MiscompilingJaxWarning(DynmechWarning):
    """Tell of an installed JAX that is known to compute some large programs wrongly."""


def closest(given: object, known: Iterable[str]) -> str | None:
    """The remedy for names that are nearly known ones, as "did you mean 'Alpine'?"; else None.

    **Arguments:** `given`: a name, or several, of which those not known count.
    """
    words = tuple(known)
    names = [given] if isinstance(given, str) else list(cast("Iterable[object]", given))
    for name in names:
        near = get_close_matches(str(name), words, 1) if name not in words else []
        if near:
            return f"did you mean {near[0]!r}?"
    return None


def require_finite(call: str, array: np.ndarray) -> None:
    """Raise `NotFinite`, naming the first bad entry, unless every entry of `array` is finite."""
    finite = np.isfinite(array)
    if finite.all():
        return
    where = tuple(int(i) for i in np.argwhere(~finite)[0])
    raise NotFinite(
        describe(
            call,
            "hold finite numbers",
            f"{array[where]} at index {where} ({int((~finite).sum())} of {array.size} entries)",
            "replace or drop these entries",
        )
    )


def require_probabilities(
    call: str, array: np.ndarray, axis: int | tuple[int, ...] = -1, tolerance: float = 1e-9
) -> np.ndarray:
    """Return `array`, or raise unless it is finite, nonnegative and sums to one along `axis`.

    `tolerance` bounds the error of each sum; for arrays of lower precision than float64 it is
    raised to two machine epsilons, the rounding of the entries themselves. What is negative by
    no more than that is the remainder of other entries, and returned as 0.

    **Raises**

    `NotFinite` or `InvalidProbability`, the latter naming the entry or the sum at fault.
    """
    require_finite(call, array)
    if np.issubdtype(array.dtype, np.floating):
        tolerance = max(tolerance, 2 * float(np.finfo(array.dtype).eps))
    if (array < -tolerance).any():
        where = tuple(int(i) for i in np.argwhere(array < -tolerance)[0])
        raise InvalidProbability(
            describe(call, "be nonnegative", f"{array[where]} at index {where}")
        )
    sums = array.sum(axis=axis, dtype=np.float64)
    gaps = np.abs(sums - 1)
    if (gaps > tolerance).any():
        where = np.unravel_index(int(np.argmax(gaps)), gaps.shape)
        place = f" at index {tuple(int(i) for i in where)} of the other axes" if where else ""
        raise InvalidProbability(
            describe(
                call,
                f"sum to 1 within {tolerance:.1e}",
                f"a sum of {float(np.asarray(sums)[where]):.12g}{place}",
                "divide by the sum if it is meant to be normalised",
            )
        )
    return np.maximum(array, 0) if (array < 0).any() else array


def import_extra(module: str, extra: str, verb: str) -> ModuleType:
    """Import an optional dependency, or say which command installs it.

    **Arguments**

    - `module`: dotted name of the module to import.
    - `extra`: the extra of this package that holds it, such as `"data"`.
    - `verb`: the public name that needs it, for the message.

    **Returns**

    The imported module.

    **Raises**

    `MissingExtra` if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(
            f"`{verb}` needs the package `{module.split('.')[0]}`, which is not installed; "
            f'run: pip install "dynmech[{extra}]".'
        ) from error
