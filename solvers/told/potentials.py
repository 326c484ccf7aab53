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

    Which is the least is found out in single precision, what it is in double: any is a bound.
    """

    def __init__(self, points: int):
        self.linear, self.price = np.zeros((_ROOM, points)), np.zeros(_ROOM)
        self.outside = np.zeros((_ROOM, points), bool)
        self.rough = np.zeros((_ROOM, points + 1), np.float32)
        self.count, self.unit = 0, 1.0

    def add(
        self, reference: Float[np.ndarray, " m"], after: Float[np.ndarray, " m"], price: float
    ) -> None:
        """Keep one more form, of a reference of mass 1; what claims nothing is left out."""
        with np.errstate(over="ignore", invalid="ignore"):
            linear = after - price * np.log(np.where(reference > 0, reference, 1.0))
        if not (np.isfinite(linear).all() and np.isfinite(price)):
            return
        if not self.count:
            self.unit = max(float(np.abs(linear).max()), np.finfo(float).tiny)
        if self.count == len(self.price):
            for name in ("linear", "price", "outside", "rough"):
                old = self.__dict__[name]
                self.__dict__[name] = np.concatenate([old, np.zeros_like(old)])
        self.linear[self.count], self.price[self.count] = linear, price
        self.outside[self.count] = reference <= 0
        with np.errstate(over="ignore"):
            self.rough[self.count] = np.append(linear, price) / self.unit
        self.count += 1

    def least(self, beliefs: Float[np.ndarray, "B m"]) -> Float[np.ndarray, " B"]:
        """The least U at beliefs, unnormalised, but for ties; infinite outside of every reference.

        What differs by less than single precision tells apart counts as tied.
        """
        if not self.count:
            return np.full(len(beliefs), np.inf)
        mass = np.maximum(beliefs.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        share = beliefs / mass
        known = xlogx(share).sum(axis=1, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._roughly(np.concatenate([share, known], axis=1).astype(np.float32))
        if (outside := self.outside[: self.count]).any():
            found[(beliefs > 0) @ outside.T] = np.inf
        found[np.isnan(found)] = np.inf
        best = found.argmin(axis=1)
        lost = found[np.arange(len(found)), best] == np.inf
        value = (share * self.linear[best]).sum(axis=1) + known[:, 0] * self.price[best]
        return np.where(lost, np.inf, mass[:, 0] * value)

    def _roughly(self, beliefs: np.ndarray) -> np.ndarray:
        """(B, forms), in products that one thread does."""
        width = int(np.clip(ALONE // max(beliefs.size, 1), 1, _ROOM))
        width = 1 << (width.bit_length() - 1)
        blocks = self.rough.reshape(-1, width, self.rough.shape[1])
        blocks = np.swapaxes(blocks[: -(-self.count // width)], 1, 2)
        found = np.moveaxis(np.matmul(beliefs, blocks), 0, 1)
        return found.reshape(len(beliefs), -1)[:, : self.count]


def xlogx(x: np.ndarray) -> np.ndarray:
    """x log x, zero at zero."""
    return x * np.log(np.where(x > 0, x, 1.0))
