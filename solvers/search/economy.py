"""One task of a best-first search: its root, its yields, and its bounds at every belief."""

import numpy as np
from jaxtyping import Bool, Float

from solvers.problem import Structure

_FIRST = 4
_CELLS = 4e6


class Economy:
    """One task: its root belief, what a round yields, and its bounds at every belief.

    **Arguments:** `root` (m,), `yields` (E, m), `kept` (A, M, m), `told` (M, m), `allowed` (A,);
    `above`: the number of an economy that bounds this one from above, -1 for none, up to `excess`
    (M, m) of the belief, here times the root.
    """

    def __init__(
        self,
        structure: Structure,
        root: np.ndarray,
        yields: np.ndarray,
        kept: np.ndarray,
        told: np.ndarray,
        allowed: np.ndarray,
        above: int,
        excess: np.ndarray | None,
    ):
        self.structure, self.root, self.yields, self.above = structure, root, yields, above
        self.kept, self.told, self.allowed = kept, told, allowed
        self.excess = np.zeros_like(told) if excess is None else excess * root
        self.controls = np.flatnonzero(allowed)
        self.alike = np.zeros(len(yields), bool)  # edges that yield the same in the economy above
        self._opening: dict[int, np.ndarray] = {}
        self._bounding: dict[int, np.ndarray] = {}

    def opening(self, memory: int, column: Float[np.ndarray, "C m"]) -> Float[np.ndarray, "m AAZ"]:
        """Yields of every control, then bounds above after every control and symbol."""
        found = self._opening.get(memory)
        if found is None:
            edge, after = self.structure.edge[0][memory], self.structure.successor[0][memory]
            later = column[self.structure.columns[edge]] * self.told[after][:, None]
            rows = np.concatenate([self.yields[edge], later.reshape(-1, len(self.root))])
            found = self._opening[memory] = np.ascontiguousarray((rows * self.root).T)
        return found

    def bounding(self, memory: int) -> Float[np.ndarray, "m K3"]:
        """The root's weights, the bound above, the excess, and each control kept for ever."""
        found = self._bounding.get(memory)
        if found is None:
            rows = np.stack([self.root, self.told[memory] * self.root, self.excess[memory]])
            kept = self.kept[self.controls, memory] * self.root
            found = self._bounding[memory] = np.ascontiguousarray(np.concatenate([rows, kept]).T)
        return found

    def best_kept(
        self, memory: int, belief: Float[np.ndarray, " m"], allowed: Bool[np.ndarray, " A"]
    ) -> int:
        """The control that is best if kept for ever from here on."""
        worth = self.kept[:, memory] @ belief
        return int(np.where(allowed, worth, -np.inf).argmax())

    def look_ahead(
        self,
        memory: int,
        rows: Float[np.ndarray, "k m"],
        pay: Float[np.ndarray, "k A"],
        option: Float[np.ndarray, "k A"],
        column: Float[np.ndarray, "C m"],
    ) -> Float[np.ndarray, "k A"]:
        """What each control is worth where one more round follows, which is the last.

        `option` bounds that from above. Controls are looked at in its order, a few at a time, until
        the rest are bounded below the best: what is returned is exact where it is largest.
        """
        found, done, step = option.copy(), 0, _FIRST
        order = np.argsort(-option, axis=1, kind="stable")
        best, due = np.full(len(rows), -np.inf), np.arange(len(rows))
        symbols = self.structure.symbols
        while len(due):
            some = order[due, done : done + step]
            size = max(1, int(_CELLS / (some.shape[1] * symbols * rows.shape[1])))
            for low in range(0, len(due), size):
                at, taken = due[low : low + size], some[low : low + size]
                worth = pay[at[:, None], taken] + self._last(memory, rows[at], taken, column)
                # A bound is a bound: what rounding adds to what lies below it is taken off.
                found[at[:, None], taken] = np.minimum(worth, found[at[:, None], taken])
                best[at] = np.maximum(best[at], found[at[:, None], taken].max(axis=1))
            done, step = done + some.shape[1], 4 * step
            if done >= option.shape[1]:
                break
            due = due[option[due, order[due, done]] > best[due]]
        return found

    def _last(
        self,
        memory: int,
        rows: Float[np.ndarray, "k m"],
        taken: np.ndarray,
        column: Float[np.ndarray, "C m"],
    ) -> Float[np.ndarray, "k s"]:
        """What the last round is worth after each control taken (k, s), over all symbols."""
        edge = self.structure.edge[0][memory][taken]
        after = self.structure.successor[0][memory][taken]
        belief = rows[:, None, None] * column[self.structure.columns[edge]]
        total = np.empty(belief.shape[:3])
        for c in np.unique(after).tolist():
            mine = after == c
            total[mine] = (belief[mine] @ self.bounding(c)[:, 3:]).max(axis=2)
        return total.sum(axis=2)
