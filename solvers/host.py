"""Marks of classes: modules that live on the host, and methods with a generic answer."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=type[eqx.Module])


def on_host(cls: M) -> M:
    """Bind methods of a module, and of those that extend it, as Python does: at no cost.

    Equinox makes every bound method a pytree of its own, so that methods can be transformed, and
    looks at each leaf of the module to do so: a millisecond a call where the module holds a plan.
    For modules whose methods are never transformed.
    """
    cls.__getattribute__ = object.__getattribute__
    return cls


def with_default(method: F) -> F:
    """Mark a method of an abstract class whose generic answer a class may replace by its own."""
    vars(method)["has_default"] = True
    return method
