"""Finished parts of a long computation in a folder, whatever frozen modules they are."""

import json
import os
from typing import Any

import numpy as np

from dynmech.errors import InvalidArgument
from dynmech.files.tree import decode, encode
from solvers import Unkept
from solvers.checkpoint import Checkpoint
from solvers.files import Damaged
from solvers.files import fingerprint as hash_arrays

_TREE = "tree"  # the array that holds the JSON of a part


class Parts:
    """Parts of one computation, each in a sealed file of its own; the same call finds them again.

    **Arguments:** `folder`: made if absent; `facts`: all that the parts depend on, modules, arrays,
    numbers and strings; `call`: the verb, for the messages.

    **Raises:** `InvalidArgument` where nothing can be kept there, or it holds other parts.
    """

    def __init__(self, folder: str | os.PathLike[str], facts: tuple[Any, ...], call: str):
        arrays: dict[str, np.ndarray] = {}
        text = np.frombuffer(repr(encode((call, *facts), arrays)).encode(), np.uint8)
        mark = hash_arrays([text, *arrays.values()])
        self.call = f"{call}(checkpoint=...)"
        try:
            self.kept = Checkpoint(folder, mark, self.call)
        except Unkept as error:
            raise InvalidArgument(str(error)) from error

    def load(self, *name: int | str) -> Any:
        """Return a finished part, or None where it is absent or had to be set aside."""
        found = self.kept.load(name)
        if found is None:
            return None
        try:
            tree = json.loads(found.pop(_TREE).tobytes())
            return decode(tree, found, {}, self.call)
        except (Damaged, KeyError, TypeError, ValueError):  # of another version of its classes
            self.kept.reject(name)
            return None

    def save(self, part: Any, *name: int | str) -> None:
        """Keep a finished part.

        **Raises:** `InvalidArgument` where it cannot be written; what was kept stays.
        """
        arrays: dict[str, np.ndarray] = {}
        tree = json.dumps(encode(part, arrays)).encode()
        try:
            self.kept.save(name, {**arrays, _TREE: np.frombuffer(tree, np.uint8)})
        except Unkept as error:
            raise InvalidArgument(str(error)) from error

    def last(self, kind: str, most: int) -> tuple[int, Any]:
        """The largest k <= `most` of whole parts (kind, k), and that part; (0, None) if none."""
        for k in self.kept.numbers(kind):
            found = self.load(kind, k) if k <= most else None
            if found is not None:
                return k, found
        return 0, None

    def forget(self, kind: str) -> None:
        """Drop all parts (kind, k) but the last two."""
        self.kept.forget(kind)
