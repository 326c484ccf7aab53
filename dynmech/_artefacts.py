"""Write frozen modules to a folder and read them back: safetensors plus JSON, no pickle.

Only classes of this package, and those the reader names, are ever constructed.
"""

import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from dynmech.errors import DynmechError, InvalidArgument, describe

_FORMAT = 1
_PACKAGES = ("dynmech", "solvers")
T = TypeVar("T")


def save_module(module: eqx.Module, path: str | os.PathLike) -> None:
    """Write `module` to the folder `path`; nothing half-written is left if it fails."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    tree = _encode(module, arrays)
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        must = "name a folder"
        raise InvalidArgument(describe("save(path=...)", must, f"the file {folder}"))
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"format": _FORMAT, "tree": tree}).encode()
    for name, data in (("arrays.safetensors", save(arrays)), ("tree.json", content)):
        partial = folder / f"{name}.partial"
        partial.write_bytes(data)
        partial.replace(folder / name)


def load_module(
    path: str | os.PathLike, kind: type[T], types: tuple[type, ...] = (), name: str | None = None
) -> T:
    """Read a module written by `save_module`; `types`: classes of your own it may hold.

    `name`: what users call it, for the messages; that of `kind` by default.

    **Raises:** `InvalidArgument` for a folder that is absent, incomplete, or of another format.
    """
    name = name or kind.__name__
    call = f"{name}.load(path=...)"
    try:
        return _load(path, kind, types, name)
    except DynmechError:
        raise
    except Exception as error:
        must, do = "be a complete folder written by .save", "save it again"
        got = f"{path}: {type(error).__name__}: {error}"
        raise InvalidArgument(describe(call, must, got[:300], do)) from error


def _load(path: str | os.PathLike, kind: type[T], types: tuple[type, ...], name: str) -> T:
    from safetensors.numpy import load_file

    folder = Path(path)
    if not (folder / "tree.json").exists():
        must = "be a folder written by .save"
        raise InvalidArgument(describe(f"{name}.load(path=...)", must, str(folder)))
    stored = json.loads((folder / "tree.json").read_text())
    if stored.get("format") != _FORMAT:
        must = f"have format {_FORMAT}"
        raise InvalidArgument(describe(f"{name}.load(path=...)", must, stored.get("format")))
    known = {f"{t.__module__}:{t.__qualname__}": t for t in types}
    module = _decode(stored["tree"], load_file(folder / "arrays.safetensors"), known)
    if not isinstance(module, kind):
        must = f"hold a {name}"
        raise InvalidArgument(describe(f"{name}.load(path=...)", must, type(module).__name__))
    return module


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, eqx.Module):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        kind = type(value)
        return {
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "fields": {name: _encode(item, arrays) for name, item in fields.items()},
        }
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        name = f"a{len(arrays)}"
        arrays[name] = np.ascontiguousarray(np.asarray(value))
        return {"array": name, "shape": list(np.shape(value))}
    if isinstance(value, tuple | list):
        return {"tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    must = "hold only modules, arrays, tuples, numbers and strings"
    raise InvalidArgument(describe("save(...)", must, type(value)))


def _decode(value: Any, arrays: dict[str, np.ndarray], known: dict[str, type]) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]].reshape(value["shape"])
    if "tuple" in value:
        return tuple(_decode(item, arrays, known) for item in value["tuple"])
    if "float" in value:
        return float(value["float"])
    kind = _class(value["class"], known)
    module = object.__new__(kind)
    for name, item in value["fields"].items():
        object.__setattr__(module, name, _decode(item, arrays, known))
    return module


def _class(label: str, known: dict[str, type]) -> type:
    if label in known:
        return known[label]
    module, name = label.split(":")
    if module.split(".")[0] not in _PACKAGES:
        must = "be told about classes of your own"
        do = "pass them as load(path, types=(MyRule,))"
        raise InvalidArgument(describe("load(types=...)", must, label, do))
    kind = getattr(importlib.import_module(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, eqx.Module)):
        raise InvalidArgument(describe("load(path=...)", "hold known classes", label))
    return kind
