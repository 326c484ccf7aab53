"""Initial profiles: values and signals of period 1, as indices."""

from functools import partial

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import indices
from dynmech._types import Record
from dynmech.market.signals import AbstractInitialSignals
from dynmech.market.tastes import TasteGrid
from dynmech.market.values import Values, profile_grid


class Profiles(Record):
    """A batch of B initial profiles.

    - `theta`: shape (B, n), indices into each advertiser's support.
    - `signals`: shape (B, 1 + n), indices into the alphabets of platform and advertisers.
    """

    theta: Int[np.ndarray, "B n"] = eqx.field(
        converter=partial(indices(None, None), "Profiles(theta=...)")
    )
    signals: Int[np.ndarray, "B n1"] = eqx.field(
        converter=partial(indices(None, None), "Profiles(signals=...)")
    )

    def __len__(self) -> int:
        return self.theta.shape[0]


def draw_profiles(
    rng: np.random.Generator,
    values: Values,
    tastes: TasteGrid,
    initial: AbstractInitialSignals,
    utilities: Float[np.ndarray, "n m"],
    count: int,
) -> Profiles:
    """Draw profiles from the prior: a taste, then signals given it; values independently."""
    n, size = values.support.shape
    if values.correlated:
        grid = profile_grid(n, size)
        theta = grid[rng.choice(len(grid), count, p=values.prior.ravel())]
    else:
        theta = np.stack([rng.choice(size, count, p=row) for row in values.prior], axis=1)
    weights = np.asarray(tastes.weights, float)
    omega = rng.choice(tastes.size, count, p=weights / weights.sum())
    signals = np.stack([initial.draw(rng, utilities, int(w)) for w in omega])
    return Profiles(theta.astype(np.int64), signals.astype(np.int64))
