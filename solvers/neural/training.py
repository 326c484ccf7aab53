"""The state of a training: all that a run needs to go on as if it had not stopped."""

import equinox as eqx
import numpy as np
import optax
from jaxtyping import Array, Float

from solvers.neural.value_network import ValueNetwork

COLUMNS = ("seconds", "residual", "loss", "value", "error")


class Training(eqx.Module):
    """Everything that a resumed run needs. `history` (sweeps, 5): see `column`; NaN if not done."""

    network: ValueNetwork
    best: ValueNetwork
    optimiser: optax.OptState
    sweep: Array
    best_sweep: Array
    history: Float[Array, "s 5"]

    def column(self, name: str) -> Float[np.ndarray, " _s"]:
        """A column of the history: seconds, residual, loss, value of the first root, error."""
        return np.asarray(self.history, float)[: int(self.sweep), COLUMNS.index(name)]
