"""Independent draws of one number: their mean, and how far it may be off."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from solvers.host import Record


class AbstractSample(Record):
    """Draws `gain` (N,), each with the number in question as its mean."""

    gain: eqx.AbstractVar[Float[np.ndarray, " N"]]

    @property
    def mean(self) -> float:
        """Mean of the draws."""
        return float(self.gain.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean; infinite for a single draw, and where a draw is infinite."""
        count = len(self.gain)
        known = count > 1 and bool(np.isfinite(self.gain).all())
        return float(self.gain.std(ddof=1) / count**0.5) if known else np.inf


def repeated(
    gain: Float[np.ndarray, " N"], alpha: Float[np.ndarray, "*l"] | float
) -> Float[np.ndarray, "N *l"]:
    """The same draws for each of several levels."""
    shape = np.shape(alpha)
    return np.broadcast_to(gain.reshape(-1, *(1,) * len(shape)), (len(gain), *shape))
