"""Training kept on disk after every sweep, by orbax; the last two sweeps are kept.

A killed run resumes to the same result as one that was not: networks, optimiser and history are
kept in full, and what a sweep draws depends on the seed and the sweep's number only.
"""

import json
import logging
import os
from pathlib import Path
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp

from solvers._neural import Training


class NeuralCheckpoint:
    """Training states in a folder.

    **Arguments:** `orbax`: the module `orbax.checkpoint`; `path`: the folder, made if absent;
    `mark`: a fingerprint of the problem and of the solver's settings.

    **Raises:** `ValueError` if the folder holds the training of another problem.
    """

    def __init__(self, orbax: ModuleType, path: str | os.PathLike, mark: str):
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.orbax, self.path = orbax, Path(path).resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        manifest = self.path / "problem.json"
        if manifest.exists() and json.loads(manifest.read_text())["fingerprint"] != mark:
            raise ValueError(f"{path}, which holds the training of another problem or solver")
        manifest.write_text(json.dumps({"fingerprint": mark}))
        options = orbax.CheckpointManagerOptions(max_to_keep=2, create=True)
        self.manager = orbax.CheckpointManager(self.path / "sweeps", options=options)

    def save(self, training: Training) -> None:
        """Keep the state after a sweep."""
        leaves = {str(k): x for k, x in enumerate(_arrays(training))}
        self.manager.save(int(training.sweep), args=self.orbax.args.StandardSave(leaves))
        self.manager.wait_until_finished()

    def load(self, like: Training) -> Training | None:
        """Return the last state kept, None if there is none; `like` gives shapes and types."""
        last = self.manager.latest_step()
        if last is None:
            return None
        arrays, static = eqx.partition(like, eqx.is_array)
        leaves, tree = jax.tree.flatten(arrays)
        shapes = {str(k): x for k, x in enumerate(leaves)}
        found = self.manager.restore(last, args=self.orbax.args.StandardRestore(shapes))
        kept = [jnp.asarray(found[str(k)]) for k in range(len(leaves))]
        return eqx.combine(jax.tree.unflatten(tree, kept), static)

    def close(self) -> None:
        self.manager.close()


def _arrays(training: Training) -> list:
    return jax.tree.leaves(eqx.filter(training, eqx.is_array))
