"""Frozen modules as plain JSON and arrays, and back through their constructors' checks.

Nothing is imported but modules of this project; other classes are constructed only where the
reader names them. An array that stands in several places is kept once.
"""

import dataclasses
import enum
import importlib
import inspect
import math
import sys
from collections.abc import Collection, Sequence, Set
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from dynmech.errors import (
    DynmechError,
    InvalidArgument,
    InvalidProbability,
    describe,
    shown,
)
from solvers.files import Damaged

_PACKAGES = ("dynmech", "solvers")
_OTHER = ": another release wrote it"
_AGREE = 1e-5  # what a constructor works out again may differ by, relative, between machines


def encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a module into JSON; its arrays are entered into `arrays`.

    **Raises:** `InvalidArgument` for what is no module, array, tuple, number or string.
    """
    return _Encoder(arrays).encode(value, "")


class _Encoder:
    """One encoding: `seen` holds the arrays met, with what keeps their addresses their own."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays, self.seen = arrays, {}

    def encode(self, value: Any, where: str) -> Any:
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, eqx.Module):
            names = [f.name for f in dataclasses.fields(value)]
            fields = {n: self.encode(getattr(value, n), f"{where}.{n}") for n in names}
            return {"class": _label(type(value)), "fields": fields}
        if isinstance(value, enum.Enum):
            return {"class": _label(type(value)), "member": value.name}
        if isinstance(value, np.generic):
            return {"scalar": value.dtype.str, "value": self.encode(value.item(), where)}
        if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
            items = [self.encode(x, where) for x in value.ravel().tolist()]
            return {"labels": items, "dtype": value.dtype.str, "shape": list(value.shape)}
        if isinstance(value, np.ndarray | jax.Array):
            return {"array": self._array(value, where)}
        if type(value) in (tuple, list):
            items = [self.encode(x, f"{where}[{k}]") for k, x in enumerate(value)]
            return {type(value).__name__: items}
        if isinstance(value, tuple) and _fields(type(value)):
            pairs = zip(_fields(type(value)), value, strict=True)
            items = {k: self.encode(x, f"{where}.{k}") for k, x in pairs}
            return {"class": _label(type(value)), "items": items}
        if type(value) is dict and all(type(key) is str for key in value):
            return {"dict": {k: self.encode(x, f"{where}[{k!r}]") for k, x in value.items()}}
        must = "hold only modules, arrays, tuples, numbers and strings"
        got = f"{type(value).__name__} as {where.lstrip('.') or 'the whole'}"
        raise InvalidArgument(describe("save(...)", must, got, "keep it apart"))

    def _array(self, value: Any, where: str) -> str:
        if id(value) in self.seen:
            return self.seen[id(value)][0]
        numbers = isinstance(value.dtype, np.dtype) and value.dtype.kind in "biuf"
        if isinstance(value, Tracer) or not numbers:
            must = "hold arrays of numbers"
            got = f"{value.dtype} as {where.lstrip('.')}"
            raise InvalidArgument(describe("save(...)", must, got))
        name = f"a{len(self.arrays)}"
        self.seen[id(value)] = (name, value)
        self.arrays[name] = np.asarray(value, order="C")
        return name


def _fields(kind: type) -> tuple[str, ...]:
    """Names of a tuple's fields, where it has any."""
    found = getattr(kind, "_fields", None)
    return found if isinstance(found, tuple) else ()


def known_classes(parts: Any, call: str) -> dict[str, type]:
    """Own classes by import path; `InvalidArgument` for what is no class."""
    parts = tuple(parts) if isinstance(parts, Sequence | Set) else (parts,)
    wrong = [part for part in parts if not isinstance(part, type)]
    if wrong:
        must, do = "hold classes", "pass them as load(path, parts=(MyRule,))"
        got = shown(wrong[0])
        raise InvalidArgument(describe(f"{call}(parts=...)", must, got, do))
    return {_label(part): part for part in parts}


def decode(tree: Any, arrays: dict[str, np.ndarray], known: dict[str, type], call: str) -> Any:
    """Invert `encode`; every module passes its constructor's checks.

    **Raises:** `Damaged` with the field at fault, or for arrays that no field is;
    `InvalidArgument` for a class that is not known.
    """
    decoder = _Decoder(arrays, known, call)
    try:
        found = decoder.decode(tree, "")
    except (Damaged, DynmechError):
        raise
    except Exception as error:  # whatever comes of a document that `encode` did not write
        raise Damaged(f"its fields cannot be read ({type(error).__name__})") from error
    unknown = sorted(set(arrays) - decoder.used)
    if unknown:
        raise Damaged(f"it has arrays that are not known, as {unknown[0]}{_OTHER}")
    return found


@dataclasses.dataclass(frozen=True)
class _Decoder:
    arrays: dict[str, np.ndarray]
    known: dict[str, type]
    call: str
    used: set[str] = dataclasses.field(default_factory=set)

    def decode(self, value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            return value
        match value:
            case {"array": name}:
                if name not in self.arrays:
                    raise Damaged(f"{where.lstrip('.') or 'it'} is an array that is not there")
                self.used.add(name)
                return self.arrays[name]
            case {"float": text}:
                return np.nan if text == "nan" else float(text)  # one NaN, which is itself
            case {"scalar": kind, "value": held}:
                return np.dtype(kind).type(self.decode(held, where))
            case {"labels": items, "dtype": kind, "shape": shape}:
                found = np.empty(len(items), kind)
                found[:] = self._items(items, where)
                return found.reshape(shape)
            case {"tuple": items}:
                return tuple(self._items(items, where))
            case {"list": items}:
                return self._items(items, where)
            case {"dict": items}:
                return {k: self.decode(x, f"{where}[{k!r}]") for k, x in items.items()}
            case {"class": label, "member": name}:
                kind = self._class(label, enum.Enum)
                if name not in kind.__members__:
                    place = f"{where.lstrip('.') or 'it'}, {kind.__name__},"
                    raise Damaged(f"{place} is {name}, which is not known{_OTHER}")
                return kind[name]
            case {"class": label, "items": items}:
                kind = self._class(label, tuple)
                self._same_names(_fields(kind), items, kind, where, "field")
                return kind(**{k: self.decode(x, f"{where}.{k}") for k, x in items.items()})
            case {"class": label, "fields": fields}:
                kind = self._class(label, eqx.Module)
                wanted = [f.name for f in dataclasses.fields(kind)]
                place = self._same_names(wanted, fields, kind, where, "field")
                given = {n: self.decode(x, f"{where}.{n}") for n, x in fields.items()}
                return rebuild(kind, given, place)
            case _:
                pass
        raise Damaged(f"{where.lstrip('.') or 'it'} is of a kind that is not known")

    def _same_names(
        self, wanted: Collection[str], found: Collection[str], kind: type, where: str, what: str
    ) -> str:
        """Where a class stands, in words; `Damaged` unless it is saved with the names it has."""
        place = f"{where.lstrip('.') or 'it'}, {kind.__name__},"
        for name in wanted:
            if name not in found:
                raise Damaged(f"{place} has no {what} {name}{_OTHER}")
        for name in found:
            if name not in wanted:
                raise Damaged(f"{place} has a {what} {name} that is not known{_OTHER}")
        return place

    def _items(self, items: list[Any], where: str) -> list[Any]:
        return [self.decode(item, f"{where}[{k}]") for k, item in enumerate(items)]

    def _class(self, label: str, base: type) -> Any:
        kind = self.known.get(label)
        module, _, name = label.partition(":")
        if kind is None and module.split(".")[0] in _PACKAGES:
            kind = _ours(module, name)
        elif kind is None:
            must = "be told about classes of your own"
            do = "pass them as load(path, parts=(MyRule,))"
            raise InvalidArgument(describe(f"{self.call}(parts=...)", must, label, do))
        if not isinstance(kind, type) or not issubclass(kind, base):
            raise Damaged(f"it holds the class {label}, which is not known")
        return kind


def _ours(module: str, name: str) -> Any:
    """A class of this project, from the module that defines it."""
    try:
        found = vars(sys.modules.get(module) or importlib.import_module(module)).get(name)
    except ImportError:
        return None
    return found if getattr(found, "__module__", None) == module else None


def rebuild(kind: type, given: dict[str, Any], place: str) -> Any:
    """A module with these fields, if its constructor takes them and works out the same.

    Where the constructor's arguments are other than the fields, `__check_init__` alone is run;
    then `check_kept`, where the class has it (`solvers.kept`).

    **Raises:** `Damaged`.
    """
    module = object.__new__(kind)
    for name, value in given.items():
        object.__setattr__(module, name, value)
    arguments = inspect.signature(kind).parameters
    try:
        if all(name in given or x.default is None for name, x in arguments.items()):
            made = _construct(kind, {name: given[name] for name in arguments if name in given})
            late = {f.name for f in dataclasses.fields(kind) if not f.init}
            for name, value in given.items():
                found = getattr(made, name)
                if name in late and found is None:
                    continue  # completed, and compared, by what holds this module
                if not _agree(found, value):
                    raise Damaged(f"{place} has a field {name} that contradicts the others")
        else:
            for each in kind.__mro__:
                if "__check_init__" in vars(each):
                    vars(each)["__check_init__"](module)
        check = getattr(module, "check_kept", None)
        if check is not None:
            check()
    except Damaged:
        raise
    except Exception as error:  # whatever a constructor raises at what does not fit
        raise Damaged(f"{place} is refused: {error}"[:400]) from error
    return module


def _construct(kind: type, given: dict[str, Any]) -> Any:
    """Call a constructor; numbers widened from singles are checked as what they were."""
    try:
        return kind(**given)
    except InvalidProbability:
        narrow = {
            name: x.astype(np.float32) if getattr(x, "dtype", None) == np.float64 else x
            for name, x in given.items()
        }
        if any((np.asarray(narrow[n]) != x).any() for n, x in given.items() if narrow[n] is not x):
            raise
        return kind(**narrow)


def _agree(made: Any, given: Any) -> bool:
    """Whether what a constructor made of a field is that field, up to rounding."""
    if made is given:
        return True
    if jax.tree.structure(made) != jax.tree.structure(given):
        return False
    pairs = zip(jax.tree.leaves(made), jax.tree.leaves(given), strict=True)
    return all(a is b or _near(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _near(made: np.ndarray, given: np.ndarray) -> bool:
    if made.shape != given.shape:
        return False
    if given.dtype.kind not in "iufb":
        return bool(np.all(made == given))
    scale = np.abs(given[np.isfinite(given)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        return np.allclose(made, given, rtol=_AGREE, atol=_AGREE * scale, equal_nan=True)


def _label(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
