"""Who recommends where no tree says it."""

import abc

import numpy as np
from jaxtyping import Float, Int

from solvers import AbstractChooser


class AbstractGuide(AbstractChooser):
    """Who recommends in a market, told what is reported; see `solvers.AbstractChooser`."""

    @abc.abstractmethod
    def outset(
        self, money: Float[np.ndarray, " n"], signals: Int[np.ndarray, " n1"]
    ) -> tuple[Float[np.ndarray, " m"], int] | None:
        """What the mechanism believes after reports, unnormalised, and the place where it starts.

        None: what the market believes.
        """
