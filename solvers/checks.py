"""Converters: each takes the call's name and what was given, and returns it or refuses it.

`check_fields` runs them over the fields of a module, from its `__check_init__`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.core import Tracer

from solvers.errors import InvalidArgument, describe, is_number, shown

Convert = Callable[[str, Any], Any]
Labels = tuple[Any, ...] | None


def axis_labels(value: Any, ndim: int) -> tuple[Labels, ...]:
    """Labels of each axis of a pandas or xarray object, None where none are.

    0, 1, 2, ... are the numbers of rows, and no labels.
    """
    axes, dims = getattr(value, "axes", None), getattr(value, "dims", None)
    if isinstance(axes, list):  # pandas
        found = [list(axis) for axis in axes]
    elif isinstance(dims, tuple):  # xarray
        known = getattr(value, "indexes", {})
        found = [list(known[name]) if name in known else None for name in dims]
    else:
        return (None,) * ndim
    return tuple(
        None if given is None or given == list(range(len(given))) else tuple(given)
        for given in found
    )


def check_fields(module: Any, **converters: Convert) -> None:
    """Refuse a module whose fields these converters refuse; the call is the constructor's."""
    for name, convert in converters.items():
        convert(f"{type(module).__name__}({name}=...)", getattr(module, name))


def optional(convert: Convert) -> Convert:
    """`convert`, or None."""
    return lambda call, value: None if value is None else convert(call, value)


def number(
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    finite: bool = True,
) -> Convert:
    """One real number in a range; traced ones are not checked.

    **Arguments:** `least`, `most`: may be attained; `above`, `below`: may not.
    """
    low, high = max(least, above), min(most, below)
    must = "be a positive number" if (low, high, above) == (0, math.inf, 0) else "be a number"
    if must == "be a number" and (low > -math.inf or high < math.inf):
        ends = "[" if least > above else "(", "]" if most < below else ")"
        must += f" in {ends[0]}{low:g}, {high:g}{ends[1]}"
    must += ", finite" if finite and high == math.inf else ""

    def convert(call: str, value: Any) -> Any:
        if isinstance(value, Tracer):
            return value
        fits = is_number(value)
        if fits:
            x = np.asarray(value)
            fits = least <= x <= most and bool(np.isfinite(x) if finite else not np.isnan(x))
            fits = fits and (x > above or above == -math.inf) and (x < below or below == math.inf)
        if not fits:
            raise InvalidArgument(describe(call, must, shown(value)))
        return value

    return convert


def whole(least: int = 0, most: float = math.inf) -> Convert:
    """One integer in a range, as a Python int; neither a float nor True."""
    must = f"be an integer, at least {least}" + (f" and at most {most}" if most < math.inf else "")

    def convert(call: str, value: Any) -> int:
        if not is_number(value, "iu") or not least <= int(value) <= most:
            raise InvalidArgument(describe(call, must, shown(value)))
        return int(value)

    return convert


def flag(call: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidArgument(describe(call, "be True or False", shown(value)))
    return bool(value)


def choice(*words: str) -> Convert:
    """One of these words."""

    def convert(call: str, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            must = "be " + " or ".join(repr(word) for word in words)
            raise InvalidArgument(describe(call, must, shown(value)))
        return value

    return convert


def instance(kind: Any, example: str) -> Convert:
    """An instance of a kind; `example` says how one is written, for the message."""

    def convert(call: str, value: Any) -> Any:
        if not isinstance(value, kind):
            do = None
            if isinstance(value, type) and issubclass(value, kind):
                do = f"make one of the class, as in {value.__name__}(...)"
            raise InvalidArgument(describe(call, f"be {example}", shown(value), do))
        return value

    return convert


positive = number(above=0)
probability = number(least=0, most=1)
time_limit = optional(number(above=0, finite=False))
