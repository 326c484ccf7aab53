"""What is wrong with what was asked for: the root of the errors of both packages, and its words.

They are here because settings of solvers are refused where they are given, too.
"""

import numpy as np


class DynmechError(ValueError):
    """Signal a mistake in what the user asked for; the root of all errors raised here."""


class InvalidArgument(DynmechError):
    """Signal an argument of the wrong shape, type or range."""


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
    parts = [f"`{call}` must {must}", f"got {_said(got)}"]
    if do is not None:
        parts.append(do)
    text = "; ".join(parts)
    return text if text.endswith("?") else text + "."


def _said(got: object) -> str:
    try:
        return _in_one_line(str(got))
    except Exception:  # as in `shown`
        return shown(got)


def is_number(value: object, kinds: str = "iuf") -> bool:
    """Whether `value` is one real number, which True is not; "iu": one integer."""
    try:
        array = np.asarray(value)
    except Exception:  # ragged lists, and whatever a foreign __array__ raises
        return False
    held = isinstance(value, list | tuple | np.ma.MaskedArray)
    return not held and array.ndim == 0 and array.dtype.kind in kinds


def shown(value: object) -> str:
    """What was given, in few words, for a message; a class by its name."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    try:
        text = repr(value)
    except Exception:  # an own __repr__ that fails must not hide what is wrong
        text = f"a {type(value).__name__}"
    text = _in_one_line(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _in_one_line(text: str) -> str:
    """The rows of what is printed in several, such as an array, one after the other."""
    return " ".join(map(str.strip, text.splitlines())) if "\n" in text else text


class DynmechWarning(UserWarning):
    """Tell of a result that holds, and is less than what was asked for."""
