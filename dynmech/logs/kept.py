"""A log that comes from a file: whether its indices point at something."""

from typing import Any

import numpy as np

from dynmech.logs.reading import BUY, QUERY
from solvers.kept import refuse, require_indices, require_numbers


def check_log(log: Any) -> None:
    """Raise `ValueError` for offsets that do not rise, and codes that nothing has."""
    offsets = log.offsets
    ends = offsets[[0, -1]].tolist() if len(offsets) == len(log) + 1 else []
    if ends != [0, log.rows] or (np.diff(offsets) <= 0).any():
        refuse("offsets", f"rise from 0 to {log.rows}", offsets)
    products = len(log.products)
    require_indices("shown", log.shown, products, -1)
    require_indices("bought", log.bought, products, -1)
    require_indices("kind", log.kind, QUERY + 1)
    require_numbers("rating", log.rating, blank=True)
    if log.reports is not None:
        require_numbers("reports", log.reports, blank=True)
    for name, symbol in (("signal", log.signal), ("first", log.first)):
        if symbol is not None:
            require_indices(name, symbol, 1 << 31, -1)
    if ((log.kind == BUY) != (log.bought >= 0)).any():
        refuse("bought", "be a product where one was bought, else -1", "others")
