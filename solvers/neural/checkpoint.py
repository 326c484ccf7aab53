"""Training kept on disk after every sweep, by orbax; the last two sweeps are kept.

A killed run resumes to the same result as one that was not: networks, optimiser and history are
kept in full, and what a sweep draws depends on the seed and the sweep's number only.
"""

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp

from solvers.neural.neural import Training


class NeuralCheckpoint:
    """Training states in a folder.

    **Arguments:** `orbax`: the module `orbax.checkpoint`; `path`: the folder, made if absent;
    `mark`: a fingerprint of the problem and of the solver's settings.

    **Raises:** `ValueError` if it is no folder, or holds the training of another problem or one
    that cannot be read; nothing in it is changed then.
    """

    def __init__(self, orbax: ModuleType, path: str | os.PathLike, mark: str):
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.orbax, self.path = orbax, Path(path).resolve()
        sweeps = self.path / "sweeps"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim(mark, sweeps)
            sweeps.mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or error}") from error
        options = orbax.CheckpointManagerOptions(max_to_keep=2)
        handler = orbax.StandardCheckpointHandler()  # or orbax guesses from what the last one holds
        self.manager = orbax.CheckpointManager(sweeps, options=options, item_handlers=handler)
        self.digests = self._read_digests()

    def _claim(self, mark: str, sweeps: Path) -> None:
        """Stamp a new folder, in one step; raise unless an old one has this stamp."""
        manifest = self.path / "problem.json"
        if not manifest.exists():
            if sweeps.exists() and any(sweeps.iterdir()):
                raise ValueError(f"{self.path}, which has sweeps but no problem.json")
            self._write(manifest, {"fingerprint": mark})
            return
        try:
            found = json.loads(manifest.read_text())["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}, whose problem.json cannot be read") from error
        if found != mark:
            raise ValueError(f"{self.path}, which holds the training of another problem or solver")

    def save(self, training: Training) -> None:
        """Keep the state after a sweep."""
        leaves = {str(k): x for k, x in enumerate(_arrays(training))}
        self.manager.save(int(training.sweep), args=self.orbax.args.StandardSave(leaves))
        self.manager.wait_until_finished()
        self._record(int(training.sweep))

    def load(self, like: Training) -> Training | None:
        """Return the last state that can be read; `like` gives shapes and types.

        Sweeps that cannot be read are moved to a folder `unreadable-*`, and made again.

        **Returns:** None if no sweep was kept.

        **Raises:** `ValueError` if none of those kept can be read.
        """
        bad: list[int] = []
        why = ""
        for step in sorted(self.manager.all_steps(), reverse=True):
            found = self._try(step, like)
            if not isinstance(found, str):
                self._set_aside(bad)
                return found
            bad, why = [*bad, step], found
        if bad:
            raise ValueError(f"{self.path}, whose sweeps {bad} cannot be read ({why})")
        return None

    def _try(self, step: int, like: Training) -> Training | str:
        """Return the state, or why it cannot be read."""
        try:
            for file, digest in self.digests.get(str(step), {}).items():
                if self._digest(file) != digest:
                    return f"{file} is not what was written"
            return self._read(step, like)
        except Exception as error:  # orbax raises whatever the broken file leads to
            return f"{type(error).__name__}: {error}".partition("\n")[0][:80]

    def _read(self, step: int, like: Training) -> Training:
        arrays, static = eqx.partition(like, eqx.is_array)
        leaves, tree = jax.tree.flatten(arrays)
        shapes = {str(k): x for k, x in enumerate(leaves)}
        found = self.manager.restore(step, args=self.orbax.args.StandardRestore(shapes))
        kept = [jnp.asarray(found[str(k)]) for k in range(len(leaves))]
        training = eqx.combine(jax.tree.unflatten(tree, kept), static)
        if int(training.sweep) != step:
            raise ValueError(f"sweep {int(training.sweep)} is kept as sweep {step}")
        return training

    def _digest(self, file: str) -> str:
        """Digest of a file: orbax checks some parts only, and prints what it meets."""
        path = self.path / "sweeps" / file
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"

    def _record(self, step: int) -> None:
        """Write down what was kept of a sweep, and forget those that are gone."""
        sweeps = self.path / "sweeps"
        files = [x for x in (sweeps / str(step)).rglob("*") if x.is_file()]
        self.digests = {k: x for k, x in self.digests.items() if int(k) in self.manager.all_steps()}
        names = [x.relative_to(sweeps).as_posix() for x in sorted(files)]
        self.digests[str(step)] = {name: self._digest(name) for name in names}
        self._write(self.path / "digests.json", self.digests)

    def _read_digests(self) -> dict[str, dict[str, str]]:
        """Digests of the sweeps kept; none where a run was killed before it wrote them."""
        try:
            found = json.loads((self.path / "digests.json").read_text())
            return {str(int(step)): dict(files) for step, files in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self, path: Path, content: dict) -> None:
        """Write a JSON file in one step."""
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(content))
        os.replace(draft, path)

    def _set_aside(self, steps: list[int]) -> None:
        if not steps:
            return
        aside = Path(tempfile.mkdtemp(prefix="unreadable-", dir=self.path))
        for step in steps:
            os.replace(self.path / "sweeps" / str(step), aside / str(step))
            self.digests.pop(str(step), None)
        self._write(self.path / "digests.json", self.digests)
        self.manager.reload()

    def close(self) -> None:
        self.manager.close()


def _arrays(training: Training) -> list:
    return jax.tree.leaves(eqx.filter(training, eqx.is_array))
