"""Save and load a long-horizon policy: what cannot be recomputed is kept, the rest is rebuilt.

The market's process, the told-omega bounds and the beliefs at the outset follow from the market;
of the network the parameters and its two sizes are kept.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech import files
from dynmech.errors import InvalidArgument, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.play.long_play import Outcomes
from dynmech.policy.long_bounds import OwnBounds
from dynmech.problem.process import MarketProcess, market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import Bounds, Certificate, make_case
from solvers import AbstractCeiling, ValueNetwork

if TYPE_CHECKING:
    from dynmech.policy.long_horizon import LongPolicy


class SavedLongPolicy(eqx.Module):
    """What a file holds. `parameters`: of the network, in the order of its leaves."""

    env: RecommendationMDP
    profiles: Profiles
    root: Float[np.ndarray, "B m"]
    parameters: tuple[np.ndarray, ...]
    width: int = eqx.field(static=True)
    summary: int = eqx.field(static=True)
    bounds: Bounds
    marginal: Bounds | None
    displayable: Bounds | None
    own: OwnBounds | None
    outcomes: Outcomes
    cells: Int[np.ndarray, " B"] | None
    history: Float[np.ndarray, "_s 5"]
    certificate: Certificate
    batch: bool = eqx.field(static=True)
    chunk: int = eqx.field(static=True)
    note: str = eqx.field(static=True)


class Restored(eqx.Module):
    """A saved policy with what was rebuilt."""

    saved: SavedLongPolicy
    process: MarketProcess
    ceilings: list[AbstractCeiling]
    network: ValueNetwork


def save_long(policy: LongPolicy, path: str | os.PathLike) -> None:
    """See `LongPolicy.save`."""
    network = policy.network
    arrays = [np.asarray(x) for x in jax.tree.leaves(eqx.filter(network, eqx.is_array))]
    saved = SavedLongPolicy(
        env=policy.env,
        profiles=policy.profiles,
        root=policy.root,
        parameters=tuple(arrays),
        width=int(network.lift.out_features),
        summary=network.summary,
        bounds=policy.bounds,
        marginal=policy.marginal,
        displayable=policy.displayable,
        own=policy.own,
        outcomes=policy.outcomes,
        cells=policy.cells,
        history=policy.history,
        certificate=policy.certificate,
        batch=policy.batch,
        chunk=policy.chunk,
        note=policy.note,
    )
    files.save(saved, path, "LongPolicy")


def restore(path: str | os.PathLike, parts: tuple[type, ...]) -> Restored:
    """Read a file written by `save_long`, and rebuild the rest."""
    saved = files.load(path, SavedLongPolicy, parts, "LongPolicy")
    process = market_process(saved.env)
    values = np.asarray(saved.env.values.support, float)
    theta = values[np.arange(saved.env.products), saved.profiles.theta]
    with jax.enable_x64(True):
        ceilings = [make_ceilings(saved.env, process, [make_case(row)])[0] for row in theta]
    return Restored(saved, process, ceilings, _network(saved, path))


def _network(saved: SavedLongPolicy, path) -> ValueNetwork:
    skeleton = ValueNetwork(jax.random.key(0), saved.width, saved.summary)
    arrays, rest = eqx.partition(skeleton, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    shapes, found = [np.shape(x) for x in leaves], [np.shape(x) for x in saved.parameters]
    if shapes != found:
        must, do = "hold a network of this version", "solve again"
        got = f"{path}: parameters of shapes {found}"
        raise InvalidArgument(describe("LongPolicy.load(path=...)", must, got[:300], do))
    return eqx.combine(jax.tree.unflatten(structure, list(saved.parameters)), rest)
