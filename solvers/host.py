"""Records: frozen modules at no more than Python's own cost; and a mark of generic answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import equinox as eqx

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="Record")
_OPEN = "being made"

if TYPE_CHECKING:

    class Record(eqx.Module):
        """See below."""

else:

    class _Kind(type(eqx.Module)):
        """Makes records: what Equinox does, but for looking at each leaf of what is passed."""

        def __init__(cls, *args: Any, **options: Any):
            type.__init__(cls, *args, **options)
            cls.record_steps = None

        def __call__(cls, *args: Any, **options: Any) -> Any:
            if cls.record_steps is None:
                cls.record_steps = _steps(cls)
            count, converters, checks = cls.record_steps
            made = object.__new__(cls)
            made.__dict__[_OPEN] = True
            cls.__init__(made, *args, **options)
            del made.__dict__[_OPEN]
            if len(made.__dict__) < count:
                for name in cls.__dataclass_fields__:
                    getattr(made, name)  # its default, or an AttributeError
            for name, converter in converters:
                object.__setattr__(made, name, converter(made.__dict__[name]))
            for check in checks:
                check(made)
            return made

    def _steps(cls: type) -> tuple[int, list[tuple[str, Any]], list[Any]]:
        """Fields, those that are converted, and checks after that, the class's own first."""
        missing = [*cls.__abstractvars__, *cls.__abstractclassvars__]
        if missing:
            raise TypeError(f"Can't instantiate abstract class {cls.__name__} without {missing}")
        fields = dataclasses.fields(cls)
        converters = [
            (f.name, f.metadata["converter"]) for f in fields if "converter" in f.metadata
        ]
        checks = [vars(kind).get("__check_init__") for kind in cls.__mro__]
        return len(fields), converters, [check for check in checks if check is not None]

    class Record(eqx.Module, metaclass=_Kind):
        """A frozen module, pytree and all, that costs what a plain class does.

        Equinox looks at each leaf of whatever a module is made of, for functions that were
        transformed, and makes every bound method a pytree of its own: a millisecond where a plan
        is held. Here methods are bound as Python binds them, so they cannot be transformed with
        what they are bound to, and fields are written while it is made.
        """

        __getattribute__ = object.__getattribute__

        def __setattr__(self, name: str, value: Any) -> None:
            fields = self.__dict__
            if _OPEN not in fields or name not in self.__dataclass_fields__:
                raise dataclasses.FrozenInstanceError(f"cannot assign to field '{name}'")
            fields[name] = value


def with_fields(record: R, **fields: Any) -> R:
    """The same record with other fields; nothing is made anew or checked, as `equinox.tree_at`."""
    made = object.__new__(type(record))
    vars(made).update(vars(record), **fields)
    return made


def with_default(method: F) -> F:
    """Mark a method of an abstract class whose generic answer a class may replace by its own."""
    vars(method)["has_default"] = True
    return method
