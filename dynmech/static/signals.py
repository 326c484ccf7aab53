"""Private signals and private signal structures of the static model (paper D, section 2.1).

Agent i's signal is a map S_i(omega, r) of the state and a residual r that all share, so signals
may be correlated in any way; which map she has, and what she saw, are both private. On finite
sets this is a table L(s | omega, S) of the joint law of the realisations s under each profile of
structures S.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import arrays, as_doubles, checked, instance, optional, whole
from dynmech.errors import (
    InvalidArgument,
    InvalidProbability,
    OutsideSupport,
    describe,
    require_probabilities,
)

_TOLERANCE = 1e-9


class PrivateSignals(eqx.Module):
    """Hold the joint law L(s | omega, S) of all private signals.

    **Arguments**

    - `table`: shape (m, Q_1, ..., Q_n, Z_1, ..., Z_n): probability of the realisations
      s in Z_1 x ... x Z_n at each state, when agent i has structure S_i in 0..Q_i-1. Sums to 1
      over the last n axes. What the others see may not depend on the structure of i: summed over
      s_i, the table is constant in S_i.

    **Raises**

    `InvalidArgument` (shape), `NotFinite`, `InvalidProbability` (sums; structures that reach
    into the others' signals).

    **References**

    Gentzkow and Kamenica, "Bayesian persuasion with multiple senders and rich signal spaces",
    Games and Economic Behavior 2017; Green and Stokey, "Two representations of information
    structures and their comparisons", Decisions in Economics and Finance 2022.
    """

    table: Float[np.ndarray, "m ..."]

    def __init__(self, table: npt.ArrayLike):
        call = "PrivateSignals(table=...)"
        self.table = as_doubles("PrivateSignals(table=...)", table)
        if self.table.ndim < 3 or self.table.ndim % 2 == 0 or 0 in self.table.shape:
            must = "have shape (m, Q_1, ..., Q_n, Z_1, ..., Z_n) with no empty axis"
            raise InvalidArgument(describe(call, must, self.table.shape))
        n = self.agents
        self.table = require_probabilities(call, self.table, axis=tuple(range(1 + n, 1 + 2 * n)))
        for i in range(n):
            rest = self.table.sum(axis=1 + n + i)
            spread = float(np.abs(rest - rest.take([0], axis=1 + i)).max())
            if spread > _TOLERANCE:
                raise InvalidProbability(
                    describe(
                        call,
                        f"give the others' signals a law that the structure of agent {i} leaves be",
                        f"probabilities that change by {spread:.3g}",
                        "build it from maps of one shared residual with PrivateSignals.from_maps",
                    )
                )

    @property
    def agents(self) -> int:
        """Return n."""
        return (self.table.ndim - 1) // 2

    @staticmethod
    @checked(states=whole(1), agents=whole(1))
    def none(states: int, agents: int) -> "PrivateSignals":
        """Build signals that say nothing: one structure, one realisation each."""
        return PrivateSignals(np.ones((states, *(1,) * (2 * agents))))

    @staticmethod
    def independent(channels: Sequence[npt.ArrayLike]) -> "PrivateSignals":
        """Build signals independent across agents given the state.

        **Arguments**

        - `channels`: n arrays; the i-th has shape (Q_i, m, Z_i), or (m, Z_i) for a structure that
          is commonly known; rows sum to 1.

        **Raises**

        `InvalidArgument`, `NotFinite`, `InvalidProbability`.

        ```python
        >>> coin = [[0.8, 0.2], [0.2, 0.8]]
        >>> PrivateSignals.independent([coin, [coin, [[1.0, 0.0], [0.0, 1.0]]]]).table.shape
        (2, 1, 2, 2, 2)

        ```
        """
        call = "PrivateSignals.independent(channels=...)"
        laws = [law[None] if law.ndim == 2 else law for law in arrays(call, channels)]
        n = len(laws)
        if n == 0 or any(law.ndim != 3 or law.shape[1] != laws[0].shape[1] for law in laws):
            must = "hold arrays of shape (Q_i, m, Z_i) or (m, Z_i) with the same m"
            raise InvalidArgument(describe(call, must, [law.shape for law in laws]))
        for i, law in enumerate(laws):
            require_probabilities(f"PrivateSignals.independent(channels[{i}]=...)", law)
        table = np.ones((laws[0].shape[1], *(1,) * (2 * n)))
        for i, law in enumerate(laws):
            shape = [1] * (1 + 2 * n)
            shape[0], shape[1 + i], shape[1 + n + i] = law.shape[1], law.shape[0], law.shape[2]
            table = table * law.transpose(1, 0, 2).reshape(shape)
        return PrivateSignals(table)

    @staticmethod
    def from_maps(maps: Sequence[npt.ArrayLike], weights: npt.ArrayLike) -> "PrivateSignals":
        """Build signals from maps S_i(omega, r) of the state and one shared residual r.

        **Arguments**

        - `maps`: n integer arrays; the i-th has shape (Q_i, m, R), or (m, R): what agent i sees
          at each state and residual, counted from 0.
        - `weights`: (R,), the law of the residual.

        **Raises**

        `InvalidArgument`, `NotFinite`, `InvalidProbability`, `OutsideSupport` (a negative map).

        ```python
        >>> both = [[0, 1], [1, 0]]                        # omega xor r, seen by both alike
        >>> PrivateSignals.from_maps([both, both], [0.5, 0.5]).table[0, 0, 0]
        array([[0.5, 0. ],
               [0. , 0.5]])

        ```
        """
        call = "PrivateSignals.from_maps(maps=...)"
        mass = as_doubles("PrivateSignals.from_maps(weights=...)", weights)
        mass = require_probabilities("PrivateSignals.from_maps(weights=...)", mass)
        seen = arrays(call, maps)
        seen = [item[None] if item.ndim == 2 else item for item in seen]
        shapes = [item.shape for item in seen]
        if not seen or any(len(s) != 3 or s[1:] != (shapes[0][1], *mass.shape) for s in shapes):
            must = f"hold arrays of shape (Q_i, m, {mass.size}) or (m, {mass.size})"
            raise InvalidArgument(describe(call, must, shapes))
        if any((item < 0).any() or (item != np.rint(item)).any() for item in seen):
            raise OutsideSupport(describe(call, "hold integers counted from 0", "other values"))
        seen = [item.astype(np.int64) for item in seen]
        n, states = len(seen), shapes[0][1]
        structures = [s[0] for s in shapes]
        symbols = [int(item.max()) + 1 for item in seen]
        flat = np.zeros((states, math.prod(structures), *symbols))
        for k, chosen in enumerate(np.ndindex(*structures)):
            for r in range(mass.size):
                own = tuple(seen[i][chosen[i], :, r] for i in range(n))
                flat[(np.arange(states), k, *own)] += mass[r]
        return PrivateSignals(flat.reshape(states, *structures, *symbols))


SIGNALS = optional(instance(PrivateSignals, "a `PrivateSignals`"))
