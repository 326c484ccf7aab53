"""The run-time type checker of the tests."""

from collections.abc import Callable
from typing import Any, Self, get_args

from beartype import BeartypeConf, beartype

_CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is also a float


def typechecked(function: Callable) -> Callable:
    """Check the hints of `function` at each call, except those that mention `Self`.

    beartype resolves `Self` only where it decorates the whole class; the import hook decorates
    methods one by one. Functions inside functions are made, and would be decorated, at every call
    of those: that took a fifth of the time of all tests.
    """
    if "<locals>" in function.__qualname__:
        return function
    hints: dict[str, Any] = getattr(function, "__annotations__", {})
    function.__annotations__ = {
        name: hint for name, hint in hints.items() if not _mentions_self(hint)
    }
    return _CHECK(function)


def _mentions_self(hint: object) -> bool:
    return hint is Self or any(_mentions_self(part) for part in get_args(hint))
