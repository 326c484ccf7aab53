"""One store of nodes for many searches: arrays that grow, and multisets told apart by words.

A node is a memory class and a direction of belief: the multiset of likelihood columns seen, or
fewer numbers where columns are related (`Structure.digits`). It is known to every task; what a task
expands and plans at it is a *pair*, kept in tables of its own by the search.
"""

import numpy as np
from jaxtyping import Float, Int

from solvers.checkpoint import named, within
from solvers.problem import Structure, Tables
from solvers.search.arrays import Growing, Indices, each_once
from solvers.search.numbers import Numbers


def digits_of(structure: Structure, columns: int) -> Int[np.ndarray, "C 2"]:
    """What every column adds to the words of a belief."""
    digits = structure.digits
    kinds = max(columns, 1) if digits is None else digits.shape[1]
    odd = np.random.default_rng(kinds).integers(-(2**62), 2**62, (kinds, 2)) * 2 + 1
    with np.errstate(over="ignore"):
        return odd if digits is None else digits @ odd


class Store:
    """Nodes met by any search: `memory`, `words`, `size`, and `seen`, how many columns.

    The belief of a root at a node is the root times its likelihood (`rows`), that of the first way
    in, over column `column` from node `origin`; another way's belief is in proportion, in the ratio
    exp of the difference of sizes. Likelihoods are kept where something leads on, in row `slot` of
    `likelihood`; most nodes are only met, and theirs are found again when asked for.
    """

    def __init__(self, structure: Structure, tables: Tables):
        column = np.asarray(tables.column, float)
        self.digit = digits_of(structure, len(column))
        self.offset = None if structure.digits is None else np.asarray(structure.offset, float)
        self.column = column
        self.nodes = Growing(
            memory=np.int32(0), words=np.zeros(2, np.int64), size=0.0, seen=np.int32(0),
            origin=np.int32(0), column=np.int32(0), slot=np.int32(0),
        )  # fmt: skip
        self.likelihood = Growing(row=column[0])
        self.nodes.append(1)
        self.number = Numbers(self.nodes)
        self.likelihood.append(1, row=1.0)

    @property
    def bytes(self) -> int:
        return self.nodes.bytes + self.likelihood.bytes + self.number.bytes

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
            late = each_once(late)
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
        nodes = self.nodes
        index, first = self.number.of(memory, words)
        if not len(first):
            return index, first
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
        self.nodes.restore(within("nodes", kept))
        self.likelihood.restore(within("likelihood", kept))
        self.number.renumber()

    def ratio(self, node: Indices, column: Indices, child: Indices) -> Float[np.ndarray, " k"]:
        """Belief after `column` at `node` over that of `child`."""
        if self.offset is None:
            return np.ones(len(node))
        size = self.nodes["size"]
        return np.exp(size[node] + self.offset[column] - size[child])
