"""A compiled market that comes from a file: whether its chances add up."""

from typing import Any

import numpy as np

from solvers.kept import refuse, require_alike, require_chances, require_indices


def check_compiled(compiled: Any) -> None:
    """Raise `ValueError` for indices that point at nothing, and chances that do not add up."""
    edges, structure, count = compiled.edges, compiled.structure, len(compiled.query)
    stop, leave, query = compiled.stop, compiled.leave, compiled.query
    for name, law in (("stop", stop), ("leave", leave), ("query", query)):
        require_chances(name, law)
    require_indices("slot", edges.slot, compiled.products + 1, -1)
    require_indices("edge_of", compiled.edge_of, count, -1)
    require_indices("column_edge", edges.column_edge, count)
    require_indices("column_symbol", edges.column_symbol, structure.symbols)
    for name, control in (("control", edges.control), ("shown", compiled.shown)):
        require_indices(name, control, structure.controls)
    require_indices("period", edges.period, structure.horizon)
    met = np.zeros(count, bool)
    of = np.maximum(compiled.edge_of, 0)
    same = (compiled.situation == edges.memory[of]).all(axis=1)
    met[of[same & (compiled.shown == edges.control[of])]] = True
    if not met.all():
        refuse("memory", "be one that an edge was found at", "another")
    bought = (edges.slot >= 0) & (edges.slot < compiled.products)
    total = np.where(bought[:, :, None], stop, 0.0).sum(axis=1) + leave + query
    require_alike("chances of an edge", total, np.ones(total.shape))
