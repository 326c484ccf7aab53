"""One store of nodes for many searches: arrays that grow, and multisets told apart by words.

A node is a memory class and a direction of belief: the multiset of likelihood columns seen, or
fewer numbers where columns are related (`Structure.digits`). It is known to every task; what a task
expands and plans at it is a *pair*, kept in tables of its own by the search.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from solvers.checkpoint import named, within
from solvers.problem import Structure, Tables

Indices = Int[np.ndarray, " k"]
_ENTRY = 250  # bytes that a node's key takes


class Growing:
    """Arrays that grow together along their first axis."""

    def __init__(self, **like: np.ndarray | np.generic | float):
        self.count = 0
        self.array = {
            name: np.zeros((64, *np.shape(x)), np.asarray(x).dtype) for name, x in like.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        return self.array[name]

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for x in self.array.values())

    def append(self, count: int, **rows: npt.ArrayLike) -> Indices:
        """Make room for `count` rows, set those given; their indices."""
        first, last = self.count, self.count + count
        for name, old in self.array.items():
            if last > len(old):
                grown = np.zeros((max(2 * len(old), last), *old.shape[1:]), old.dtype)
                grown[:first] = old[:first]
                self.array[name] = grown
        for name, value in rows.items():
            self.array[name][first:last] = value
        self.count = last
        return np.arange(first, last)

    def state(self) -> dict[str, np.ndarray]:
        """The rows, and the room that they have, for a checkpoint."""
        rows = {name: x[: self.count] for name, x in self.array.items()}
        return {**rows, "room": np.array(len(next(iter(self.array.values()))))}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Become what was kept."""
        for name, old in self.array.items():
            self.count = len(kept[name])
            self.array[name] = np.zeros((int(kept["room"]), *old.shape[1:]), old.dtype)
            self.array[name][: self.count] = kept[name]


class Store:
    """Nodes met by any search: `memory`, `words`, `size`, and `seen`, how many columns.

    The belief of a root at a node is the root times its likelihood (`rows`), that of the first way
    in, over column `column` from node `origin`; another way's belief is in proportion, in the ratio
    exp of the difference of sizes. Likelihoods are kept where something leads on, in row `slot` of
    `likelihood`; most nodes are only met, and theirs are found again when asked for.
    """

    def __init__(self, structure: Structure, tables: Tables):
        column = np.asarray(tables.column, float)
        digits, count = structure.digits, max(len(column), 1)
        kinds = count if digits is None else digits.shape[1]
        odd = np.random.default_rng(kinds).integers(-(2**62), 2**62, (kinds, 2)) * 2 + 1
        with np.errstate(over="ignore"):
            self.digit = odd if digits is None else digits @ odd
        self.offset = None if digits is None else np.asarray(structure.offset, float)
        self.column = column
        self.nodes = Growing(
            memory=np.int32(0), words=np.zeros(2, np.int64), size=0.0, seen=np.int32(0),
            origin=np.int32(0), column=np.int32(0), slot=np.int32(0),
        )  # fmt: skip
        self.likelihood = Growing(row=column[0])
        self.number: dict[tuple[int, int, int], int] = {(0, 0, 0): 0}
        self.nodes.append(1)
        self.likelihood.append(1, row=1.0)

    @property
    def bytes(self) -> int:
        return self.nodes.bytes + self.likelihood.bytes + _ENTRY * self.nodes.count

    def rows(self, node: Indices) -> Float[np.ndarray, "k m"]:
        """Likelihoods at nodes."""
        nodes, slot = self.nodes, self.nodes["slot"][node]
        new = slot < 0
        if not new.any():
            return self.likelihood["row"][slot]
        found = self.likelihood["row"][np.where(new, nodes["slot"][nodes["origin"][node]], slot)]
        found[new] *= self.column[nodes["column"][node[new]]]
        return found

    def keep(self, node: Indices) -> None:
        """Keep the likelihoods of nodes that something leads on from."""
        late = node[self.nodes["slot"][node] < 0]
        if len(late):
            late = np.unique(late)
            self.nodes["slot"][late] = self.likelihood.append(len(late), row=self.rows(late))

    def after(self, node: Indices, column: Indices, memory: Indices) -> Indices:
        """The nodes reached from `node` by seeing `column`, in class `memory`."""
        with np.errstate(over="ignore"):
            words = self.nodes["words"][node] + self.digit[column]
        return self._met(node, column, memory, words)[0]

    def repeated(
        self, node: Indices, column: Indices, rows: Float[np.ndarray, "k t m"], times: Indices
    ) -> Int[np.ndarray, " n"]:
        """The nodes reached by seeing `column` again and again, `times`, in the same class.

        **Arguments:** `rows`: likelihoods after each time.

        **Returns:** those of the first node after one time, two times and so on, then the others'.
        """
        at = np.repeat(np.arange(len(node)), times)
        often = 1 + np.arange(len(at)) - np.repeat(np.cumsum(times) - times, times)
        node, column = node[at], column[at]
        with np.errstate(over="ignore"):
            words = self.nodes["words"][node] + often[:, None] * self.digit[column]
        index, first = self._met(node, column, self.nodes["memory"][node], words, often)
        if len(first):
            kept = self.likelihood.append(len(first), row=rows[at[first], often[first] - 1])
            self.nodes["slot"][index[first]] = kept
        return index

    def _met(
        self,
        node: np.ndarray,
        column: np.ndarray,
        memory: np.ndarray,
        words: np.ndarray,
        times: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of nodes; those not known yet are entered: where they come first."""
        keys = zip(memory.tolist(), *words.T.tolist(), strict=True)
        number, before, nodes = self.number, len(self.number), self.nodes
        index = np.array([number.setdefault(key, len(number)) for key in keys], np.int64)
        if len(number) == before:
            return index, index[:0]
        fresh, first = np.unique(index, return_index=True)
        first = first[fresh >= before]
        origin, seen, often = node[first], column[first], 1 if times is None else times[first]
        self.keep(origin)
        size = 0.0
        if self.offset is not None:
            size = nodes["size"][origin] + often * self.offset[seen]
        nodes.append(
            len(first), memory=memory[first], words=words[first], size=size, origin=origin,
            seen=nodes["seen"][origin] + often, column=seen, slot=-1,
        )  # fmt: skip
        return index, first

    def state(self) -> dict[str, np.ndarray]:
        """All nodes, for a checkpoint."""
        return {
            **named("nodes", self.nodes.state()),
            **named("likelihood", self.likelihood.state()),
        }

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Become what was kept; what number each node has follows."""
        nodes = within("nodes", kept)
        self.nodes.restore(nodes)
        self.likelihood.restore(within("likelihood", kept))
        keys = zip(nodes["memory"].tolist(), *nodes["words"].T.tolist(), strict=True)
        self.number = {key: k for k, key in enumerate(keys)}

    def ratio(self, node: Indices, column: Indices, child: Indices) -> Float[np.ndarray, " k"]:
        """Belief after `column` at `node` over that of `child`."""
        if self.offset is None:
            return np.ones(len(node))
        size = self.nodes["size"]
        return np.exp(size[node] + self.offset[column] - size[child])
