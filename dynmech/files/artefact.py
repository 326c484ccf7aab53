"""Artefacts: a frozen module in one sealed file, and the fingerprint of a market.

The file is safetensors; its header holds the tree of classes and fields as JSON, the format,
the market's fingerprint, and digests of every array and of the whole file.
"""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from dynmech import _checks as checks
from dynmech.errors import DynmechError, InvalidArgument, describe
from dynmech.files.tree import decode, encode, known_classes
from dynmech.files.writing import write
from solvers.files import Damaged, read, seal, unseal
from solvers.files import fingerprint as hash_arrays

FORMAT = 3  # raised where the same fields come to mean something else
T = TypeVar("T")


def fingerprint(env: eqx.Module) -> str:
    """Digest of a market: its arrays, names, sizes, class paths, and the format's number.

    Markets of one fingerprint are the same market, in any process.
    """
    arrays: dict[str, Any] = {}
    tree = encode(env, arrays)
    text = repr((FORMAT, tree)).encode()
    digests = [hash_arrays([array]) for array in arrays.values()]
    return hash_arrays([_bytes(text), *(_bytes(digest.encode()) for digest in digests)])


def mark_of(function: Callable[..., Any]) -> str:
    """What the results of a function of the caller's depend on: its name and its source."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or a callable object
        source = ""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return hash_arrays([_bytes(f"{function.__module__}.{name}\n{source}".encode())])


def save(module: eqx.Module, path: str | os.PathLike[str], call: str | None = None) -> None:
    """Write `module` to the file `path` in one step; what was there stays whole if it fails.

    **Raises:** `InvalidArgument` for what cannot be kept (functions, keys), or where `write` does.
    """
    arrays: dict[str, Any] = {}
    call = f"{call or type(module).__name__}.save(path=...)"
    place = checks.path(call, path)
    tree = encode(module, arrays)
    document = {"format": FORMAT, "market": _market(module), "tree": tree}
    write(place, *seal(arrays, document), call=call)


def load(
    path: str | os.PathLike[str],
    kind: type[T],
    parts: tuple[type, ...] = (),
    name: str | None = None,
) -> T:
    """Read a module written by `save`, through the checks of its classes' constructors.

    **Arguments:** `kind`: what it must be; `parts`: classes of your own it may hold; `name`: what
    users call it, for the messages; that of `kind` by default.

    **Raises:** `InvalidArgument` for what is not, byte for byte, a file written by `save` in this
    format, with what is wrong.
    """
    call = f"{name or kind.__name__}.load"
    known = known_classes(parts, call)
    place = checks.path(f"{call}(path=...)", path)
    try:
        return _read(place, kind, known, call, name or kind.__name__)
    except (Damaged, DynmechError, OSError) as error:
        if isinstance(error, InvalidArgument) and str(error).startswith(f"`{call}("):
            raise
        why = error.strerror if isinstance(error, OSError) else error
        must, do = "name a whole file written by .save", "save it again"
        raise InvalidArgument(describe(f"{call}(path=...)", must, f"{place}: {why}", do)) from error


def _read(place: Path, kind: type[T], known: dict[str, type], call: str, name: str) -> T:
    if place.is_dir():
        raise Damaged("a folder, as releases before format 2 wrote")
    arrays, document = unseal(read(place))
    if set(document) != {"format", "market", "tree"} or document["format"] != FORMAT:
        found = document.get("format")
        raise Damaged(f"it is of format {found}, this release reads format {FORMAT}")
    with jax.enable_x64(True):  # what constructors check in doubles need not hold in singles
        module = decode(document["tree"], arrays, known, call)
    if not isinstance(module, kind):
        must = f"hold a {name}"
        got = f"{place}, a {type(module).__name__}"
        raise InvalidArgument(describe(f"{call}(path=...)", must, got))
    if _market(module) != document["market"]:
        raise Damaged("its market is another than the one it was written for")
    return module


def _market(module: Any) -> str | None:
    """Fingerprint of the market that a module is about: its `env`, or that of its `policy`."""
    env = getattr(module, "env", getattr(getattr(module, "policy", None), "env", None))
    return None if env is None else fingerprint(env)


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)
