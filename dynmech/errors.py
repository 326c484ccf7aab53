"""Errors that a user can cause, one class for each kind of mistake.

Every class is a `DynmechError`, which is a `ValueError`, so that a caller may catch one kind,
all of ours, or simply `ValueError`. Messages are built by `describe`, so that each names the
call and the argument, what it must be, what it was, and what to do.
"""

import importlib
from types import ModuleType

import numpy as np


class DynmechError(ValueError):
    """Signal a mistake in what the user asked for; the root of all errors raised here."""


class InvalidArgument(DynmechError):
    """Signal an argument of the wrong shape, type or range."""


class InvalidProbability(DynmechError):
    """Signal probabilities that are negative or do not sum to one."""


class NotFinite(DynmechError):
    """Signal a NaN or an infinity in the input."""


class UnseenPurchase(DynmechError):
    """Signal an action rule under which the user can buy a product not yet shown."""


class TooLarge(DynmechError):
    """Signal a problem that will not fit in the memory or the work allowed."""


class TrainingDiverged(DynmechError):
    """Signal a training that blew up; no policy is returned."""


class NotIdentified(DynmechError):
    """Signal parameters that a log cannot tell apart, or says nothing about."""


class MissingExtra(DynmechError, ImportError):
    """Signal that an optional dependency is not installed."""


class ImpossibleProfile(DynmechError):
    """Signal a report profile that has probability zero under the prior."""


class OutsideSupport(DynmechError):
    """Signal a value, label or index outside the declared support."""


class DynmechWarning(UserWarning):
    """Tell of a result that holds, and is less than what was asked for."""


def describe(call: str, must: str, got: object, do: str | None = None) -> str:
    """Build the message "`call` must `must`; got `got`; `do`".

    **Arguments**

    - `call`: the call and its argument, as `verb(argument=...)`.
    - `must`: what the argument must do or be, without the word must.
    - `got`: what was given instead.
    - `do`: the remedy, in the imperative; left out where `must` already says it.

    **Returns**

    The message, a string.

    ```python
    >>> describe("RecommendationMDP(horizon=...)", "be at least 1", 0, "pass a positive horizon")
    '`RecommendationMDP(horizon=...)` must be at least 1; got 0; pass a positive horizon.'

    ```
    """
    parts = [f"`{call}` must {must}", f"got {got}"]
    if do is not None:
        parts.append(do)
    return "; ".join(parts) + "."


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
) -> None:
    """Raise unless `array` is finite, nonnegative and sums to one along `axis`.

    `tolerance` bounds the error of each sum; for arrays of lower precision than float64 it is
    raised to two machine epsilons, the rounding of the entries themselves.

    **Raises**

    `NotFinite` or `InvalidProbability`, the latter naming the entry or the sum at fault.
    """
    require_finite(call, array)
    if (array < 0).any():
        where = tuple(int(i) for i in np.argwhere(array < 0)[0])
        raise InvalidProbability(
            describe(call, "be nonnegative", f"{array[where]} at index {where}")
        )
    if np.issubdtype(array.dtype, np.floating):
        tolerance = max(tolerance, 2 * float(np.finfo(array.dtype).eps))
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


def require_whole(call: str, number, least: int, why: str = "") -> None:
    """Raise `InvalidArgument` unless `number` is an integer, at least `least`."""
    if not is_number(number, "iu") or number < least:
        must = f"be an integer, at least {least}{why}"
        raise InvalidArgument(describe(call, must, repr(number)[:80]))


def is_number(value: object, kinds: str = "iuf") -> bool:
    """Whether `value` is one real number, which True is not; "iu": one integer."""
    array = np.array(value, object) if isinstance(value, list | tuple) else np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in kinds
