"""The bounded number of `solvers`, the one carrier of every figure that is not exact."""

from solvers.bounded import Bounded as Bounded
from solvers.bounded import simulated as simulated
from solvers.bounded import stack as stack

Bounds = Bounded
