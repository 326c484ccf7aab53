"""Training kept on disk after every sweep; the last two sweeps are kept.

A killed run resumes to the same result as one that was not: networks, optimiser and history are
kept in full, and what a sweep draws depends on the seed and the sweep's number only.
"""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from solvers.checkpoint import Checkpoint
from solvers.neural.training import Training


class NeuralCheckpoint:
    """Training states in a folder, one part a sweep.

    **Arguments:** `path`: the folder, made if absent; `mark`: a fingerprint of the problem and of
    the solver's settings.

    **Raises:** `Unkept`, as `Checkpoint`.
    """

    def __init__(self, path: str | os.PathLike[str], mark: str):
        self.parts = Checkpoint(path, mark)

    def save(self, training: Training) -> None:
        """Keep the state after a sweep."""
        leaves = jax.tree.leaves(eqx.filter(training, eqx.is_array))
        arrays = {str(k): np.asarray(leaf) for k, leaf in enumerate(leaves)}
        self.parts.save(("sweep", int(training.sweep)), arrays)
        self.parts.forget("sweep")

    def load(self, like: Training) -> Training | None:
        """Return the last state that is whole; `like` gives shapes and types.

        Sweeps that are not are set aside, and made again.

        **Returns:** None if there is none.
        """
        arrays, static = eqx.partition(like, eqx.is_array)
        leaves, tree = jax.tree.flatten(arrays)
        for sweep in self.parts.numbers("sweep"):
            found = self.parts.load(("sweep", sweep))
            if found is None:
                continue
            kept = [found.get(str(k)) for k in range(len(leaves))]
            if len(found) == len(kept) and all(map(_fits, kept, leaves)):
                return eqx.combine(jax.tree.unflatten(tree, map(jnp.asarray, kept)), static)
            self.parts.reject(("sweep", sweep))  # of another release of the optimiser
        return None


def _fits(kept: np.ndarray | None, leaf: jax.Array) -> bool:
    return kept is not None and kept.shape == leaf.shape and kept.dtype == leaf.dtype
