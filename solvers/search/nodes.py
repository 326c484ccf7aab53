"""Rows of arrays that grow together, for the nodes of one place, found by their words."""

import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record


class Flat(Record):
    """Tasks of all groups side by side: `root` (R, m), and of each task its root and the rest."""

    root: Float[np.ndarray, "R m"]
    of: Int[np.ndarray, " F"]
    coefficient: Float[np.ndarray, "F n"]
    counted: Float[np.ndarray, "F n"]
    allowed: Bool[np.ndarray, "F A"]
    kept: Bool[np.ndarray, " F"]


class Nodes:
    """Nodes of one place: arrays that grow together along their first axis."""

    def __init__(self, room: int = 4, /, **like: np.ndarray):
        self.count = 0
        self.number: dict[bytes, int] = {}
        self.array = {name: np.zeros((room, *x.shape[1:]), x.dtype) for name, x in like.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.array[name][: self.count]

    def append(self, **rows: np.ndarray) -> int:
        """Append rows; bytes that were added."""
        more, before = len(next(iter(rows.values()))), self.size
        for name, x in rows.items():
            array = self.array[name]
            if self.count + more > len(array):
                size = max(2 * len(array), self.count + more)
                grown = np.zeros((size, *array.shape[1:]), array.dtype)
                grown[: self.count] = array[: self.count]
                array = self.array[name] = grown
            array[self.count : self.count + more] = x
        self.count += more
        return self.size - before

    @property
    def room(self) -> int:
        return len(self.array["mass"])

    @property
    def size(self) -> int:
        return sum(x.nbytes for x in self.array.values())
