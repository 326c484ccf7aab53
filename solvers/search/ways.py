"""Ways from node to node, and the linear equations of what follows them for ever."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from scipy.sparse import csc_array

_FEW = 100


class Ways(NamedTuple):
    """Of each way the node it leaves, the node it leads to, and the factor that goes on.

    A way that leads to -1 is none.
    """

    source: Int[np.ndarray, " w"]
    target: Int[np.ndarray, " w"]
    factor: Float[np.ndarray, " w"]

    def matrix(self, count: int) -> "csc_array":
        """Factors as a matrix, (count, count)."""
        from scipy import sparse

        live = self.target >= 0
        at = self.source[live], self.target[live]
        return sparse.csc_array(sparse.coo_array((self.factor[live], at), (count, count)))

    def back(self) -> "Ways":
        """The same ways, backward."""
        return Ways(self.target, self.source, self.factor)

    def circular(self, count: int) -> bool:
        """Whether a way leads back to where it came from, over another node."""
        return int(self._rings(count)[0]) < count

    def _rings(self, count: int) -> tuple[int, Int[np.ndarray, " k"]]:
        """How many sets of nodes that ways lead round in there are, and which each node is in.

        Ways from one set to another lead to sets of lower numbers, or all to higher ones.
        """
        from scipy.sparse import csgraph

        found = csgraph.connected_components(self.matrix(count), connection="strong")
        return int(found[0]), np.asarray(found[1])

    def solve(self, right: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """x = right + (factor x at the target, summed over the ways of each node).

        What goes on dies out, so that no equation is ever to be exchanged for another; where ways
        never lead back they are solved one after the other.
        """
        count = len(right)
        if count <= _FEW:
            table = np.zeros((count, count))
            live = self.target >= 0
            np.add.at(table, (self.source[live], self.target[live]), self.factor[live])
            return np.linalg.solve(np.eye(count) - table, right)
        from scipy.sparse import csc_array, eye_array, linalg

        equations = csc_array(eye_array(count, format="csc") - self.matrix(count))
        rings, ring = self._rings(count)
        order = np.argsort(ring, kind="stable")
        columns = "NATURAL" if rings == count else "MMD_AT_PLUS_A"
        parts = linalg.splu(
            equations[order][:, order].tocsc(),
            permc_spec=columns,
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        found = np.empty(count)
        found[order] = parts.solve(np.asarray(right, float)[order])
        return found
