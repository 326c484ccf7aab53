"""Modules that live on the host: data of a solve and what is asked of it, call by call."""

from typing import TypeVar

import equinox as eqx

M = TypeVar("M", bound=type[eqx.Module])


def on_host(cls: M) -> M:
    """Bind methods of a module, and of those that extend it, as Python does: at no cost.

    Equinox makes every bound method a pytree of its own, so that methods can be transformed, and
    looks at each leaf of the module to do so: a millisecond a call where the module holds a plan.
    For modules whose methods are never transformed.
    """
    cls.__getattribute__ = object.__getattribute__
    return cls
