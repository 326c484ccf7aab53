"""Money along the way: what each query costs the user, and what leaving is worth to her.

A query after control c costs c(c, omega), in the last round too; leaving, a last query included,
is worth x(omega). Neither moves what she does. As x comes wherever no product is bought, u_j - x in
place of u_j counts it everywhere, and every sum is relative to leaving at once.
"""

from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from dynmech._checks import as_floats, finite
from dynmech._types import Numbers, Record
from dynmech.errors import InvalidArgument, describe


class Toll(Record):
    """Running costs as an outcome of the solvers' problem that does not end anything.

    `unit` (m,): the dearest query given omega, money, never negative. `rate` (C, m) in [0, 1]:
    what a query after each control costs, in these units.
    """

    unit: Float[Numbers, " m"]
    rate: Float[Numbers, "C m"]


def round_cost(call: str, value: Any, controls: int, points: int) -> Numbers:
    """What a query costs: a number, (C,) by control, or (C, m) by control and taste; >= 0.

    **Raises:** `InvalidArgument`, `NotFinite`.
    """
    array = finite(call, value)
    if np.shape(array) not in ((), (controls,), (controls, points)):
        must = f"be a number, or have shape (controls,) = ({controls},), or (controls, m) = "
        must += f"{(controls, points)}, the control that shows nothing last"
        raise InvalidArgument(describe(call, must, f"shape {np.shape(array)}"))
    if not isinstance(array, Tracer) and (np.asarray(array) < 0).any():
        must, do = "be 0 or more: it is paid by the user", "count a benefit of asking in tastes"
        raise InvalidArgument(describe(call, must, float(np.asarray(array).min()), do))
    return array


def exit_value(call: str, value: Any, points: int) -> Numbers:
    """What leaving is worth: a number, or (m,) by taste, money.

    **Raises:** `InvalidArgument`, `NotFinite`.
    """
    array = finite(call, as_floats(value, call))
    if np.shape(array) not in ((), (points,)):
        must = f"be a number, or have shape (m,) = ({points},)"
        raise InvalidArgument(describe(call, must, f"shape {np.shape(array)}"))
    return array


def toll(costs: Float[np.ndarray, "C m"]) -> Toll:
    """Write costs (C, m) as rates of the dearest query given omega."""
    unit = costs.max(axis=0)
    return Toll(unit, np.divide(costs, unit, out=np.zeros_like(costs), where=unit > 0))
