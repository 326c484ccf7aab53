"""Finished parts of a long solve, kept on disk: safetensors plus one JSON manifest.

A checkpoint is a folder. The manifest holds a fingerprint of the problem, so that parts are
never mixed with those of another one. Files are written under a temporary name and renamed:
an interrupted write leaves nothing half-written.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """Hash numbers and shapes, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class Checkpoint:
    """Parts of one solve in a folder.

    **Arguments:** `path`: the folder, made if absent; `mark`: the problem's fingerprint.

    **Raises:** `ValueError` if the folder holds parts of another problem.
    """

    def __init__(self, path: str | os.PathLike, mark: str):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        manifest = self.path / "manifest.json"
        if manifest.exists():
            found = json.loads(manifest.read_text()).get("fingerprint")
            if found != mark:
                raise ValueError(
                    f"`solve(checkpoint=...)` must name a folder of the same problem; got "
                    f"{self.path}, which holds parts of another; choose a new folder or delete it."
                )
        else:
            _write(manifest, json.dumps({"fingerprint": mark}).encode())

    def load(self, part: tuple[int, int, int]) -> dict[str, np.ndarray] | None:
        """Return a finished part (group of tasks, first root, one past the last), or None."""
        from safetensors.numpy import load_file

        file = self._file(part)
        return load_file(file) if file.exists() else None

    def save(self, part: tuple[int, int, int], arrays: dict[str, np.ndarray]) -> None:
        """Keep a finished part."""
        from safetensors.numpy import save

        _write(self._file(part), save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))

    def _file(self, part: tuple[int, int, int]) -> Path:
        group, start, stop = part
        return self.path / f"part-{group}-{start}-{stop}.safetensors"


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".partial")
    temporary.write_bytes(content)
    temporary.replace(file)
