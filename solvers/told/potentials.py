"""Upper bounds that hold at every belief, kept and asked together.

Each is linear in the belief but for its price times the belief's entropy (`solvers.told.informed`).
"""

import numpy as np
from jaxtyping import Float

_ROOM = 64  # forms kept before room doubles, a power of two
ALONE = 2**18  # multiplications in a product of matrices that is not worth waking more threads for


class Potentials:
    """The least of U_t over the references it was found for, as U_t bounds V_t everywhere.

    U is linear in b but for lambda times the entropy of b, so that many forms at many beliefs are
    one matrix product: with q the reference,

        U(b) = <b, g - lambda log q> + lambda sum_omega b log(b / |b|).
    """

    def __init__(self, points: int):
        self.linear, self.price = np.zeros((_ROOM, points)), np.zeros(_ROOM)
        self.outside = np.zeros((_ROOM, points), bool)
        self.count = 0

    def add(
        self, reference: Float[np.ndarray, " m"], after: Float[np.ndarray, " m"], price: float
    ) -> None:
        """Keep one more form, of a reference of mass 1; what claims nothing is left out."""
        with np.errstate(over="ignore", invalid="ignore"):
            linear = after - price * np.log(np.where(reference > 0, reference, 1.0))
        if not (np.isfinite(linear).all() and np.isfinite(price)):
            return
        if self.count == len(self.price):
            for name in ("linear", "price", "outside"):
                old = self.__dict__[name]
                self.__dict__[name] = np.concatenate([old, np.zeros_like(old)])
        self.linear[self.count], self.price[self.count] = linear, price
        self.outside[self.count] = reference <= 0
        self.count += 1

    def least(self, beliefs: Float[np.ndarray, "B m"]) -> Float[np.ndarray, " B"]:
        """The least U at beliefs, unnormalised; infinite outside of every reference."""
        if not self.count:
            return np.full(len(beliefs), np.inf)
        price = self.price[: self.count]
        mass = np.maximum(beliefs.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        known = xlogx(beliefs / mass).sum(axis=1) * mass[:, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._linear(beliefs) + known[:, None] * price
        if (outside := self.outside[: self.count]).any():
            found[(beliefs > 0) @ outside.T] = np.inf
        return np.where(np.isnan(found), np.inf, found).min(axis=1)

    def _linear(self, beliefs: np.ndarray) -> np.ndarray:
        """(B, forms), in products that one thread does."""
        width = int(np.clip(ALONE // max(beliefs.size, 1), 1, _ROOM))
        width = 1 << (width.bit_length() - 1)
        blocks = self.linear.reshape(-1, width, self.linear.shape[1])
        blocks = np.swapaxes(blocks[: -(-self.count // width)], 1, 2)
        found = np.moveaxis(np.matmul(beliefs, blocks), 0, 1)
        return found.reshape(len(beliefs), -1)[:, : self.count]


def xlogx(x: np.ndarray) -> np.ndarray:
    """x log x, zero at zero."""
    return x * np.log(np.where(x > 0, x, 1.0))
