"""The run-time type checker of the tests."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, Self, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, install_import_hook

_CHECK = beartype(  # an int is also a float
    conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError)
)
_JAXTYPED = jaxtyping.jaxtyped


def install(*packages: str) -> None:
    """Check every annotated call into `packages`, which must not have been imported yet.

    The import hook decorates each function with `jaxtyping.jaxtyped`, which binds the arguments
    anew and checks them twice at every call: a fifth of the time of all tests. `_typed` takes its
    place.
    """
    install_import_hook(packages, f"{__name__}._CHECK")
    jaxtyping.jaxtyped = _jaxtyped


def _jaxtyped(*what: Any, **checker: Any) -> Any:
    return _JAXTYPED(*what, **checker) if what else _typed


def _typed(what: Any) -> Any:
    if not inspect.isclass(what):
        return _typed_function(what)
    if dataclasses.is_dataclass(what) and what.__init__.__globals__ is not globals():
        what.__init__ = _typed_function(what.__init__)
    return what


def _typed_function(function: FunctionType) -> Callable:
    """Check the hints of `function` at each call: types, and shapes within one call.

    Functions inside functions are made, and would be decorated, at every call of those.
    """
    if "<locals>" in function.__qualname__:
        return function
    if inspect.isgeneratorfunction(function):  # which beartype would check where it is consumed
        return _JAXTYPED(function, typechecker=_CHECK)
    checked = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    checked.__kwdefaults__ = function.__kwdefaults__
    checked.__module__, checked.__qualname__ = function.__module__, function.__qualname__
    checked.__annotations__ = _hints(function)
    checked = _CHECK(checked)

    @functools.wraps(function)
    def typed(*args, **options):
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **options)
        with _JAXTYPED("context"):  # names of axes have one size here
            return checked(*args, **options)

    return typed


def _hints(function: FunctionType) -> dict[str, Any]:
    """The hints of `function` that can be read where it is defined, except those with `Self`.

    beartype resolves `Self` only where it decorates the whole class.
    """
    hints = {}
    for name, hint in function.__annotations__.items():
        written = SimpleNamespace(__annotations__={name: hint})
        try:
            hint = get_type_hints(written, function.__globals__, include_extras=True)[name]
        except Exception:  # a name imported for types only, or defined further down
            continue
        if not _mentions_self(hint):
            hints[name] = hint
    return hints


def _mentions_self(hint: object) -> bool:
    return hint is Self or any(_mentions_self(part) for part in get_args(hint))
