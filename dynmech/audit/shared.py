"""What all audits of one policy need, whatever settles: kept beside it where it is small."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import jax
import numpy as np

from dynmech._beside import Beside
from dynmech.policy.base import AbstractPricedPolicy

T = TypeVar("T")
_FOUND = Beside()
MOST = 1_000_000  # numbers that are kept of one kind


def shared(
    policy: AbstractPricedPolicy, name: Hashable | None, make: Callable[[], T], of: object = None
) -> T:
    """What `make` finds for a policy, and for other frozen data `of`, the last of which counts.

    Where it is large, or has no name, it is worked out each time.
    """
    if name is None:
        return make()
    kept = _FOUND(policy, dict)
    held = kept.get(name)  # once: other threads may put another in its place
    if held is not None and held[0] is of:
        return held[1]
    found = make()
    if sum(np.size(part) for part in jax.tree.leaves(found)) <= MOST:
        kept[name] = of, found
    return found
