"""Finished parts of a long computation, kept on disk and found again.

A checkpoint is a folder with a manifest, which says whose it is, and one sealed file for each
part, which bears the problem's mark and its own name: parts that are torn, changed, out of place
or of another problem are set aside in a folder `unreadable-*` and made again. Two equal jobs may
share a folder.
"""

import contextlib
import json
import os
from pathlib import Path

import numpy as np

from solvers.errors import shown
from solvers.files import Damaged, seal, set_aside, unseal, write

_FORMAT = 2
Part = tuple[int | str, ...]


class Unkept(ValueError):
    """Signal a folder in which nothing can be kept, or which is another problem's."""


class Checkpoint:
    """Parts of one problem in a folder.

    **Arguments:** `path`: the folder, made if absent; `mark`: the problem's fingerprint; `call`:
    what users call the folder, for the messages.

    **Raises:** `Unkept` if it is no folder or cannot be written, or holds parts of another
    problem; nothing in it is changed then.
    """

    def __init__(self, path: str | os.PathLike, mark: str, call: str = "solve(checkpoint=...)"):
        self.call = call
        if not isinstance(path, str | os.PathLike) or "\0" in str(path):
            raise Unkept(self._refusal("be the path of a folder", shown(path)))
        self.path, self.mark = Path(path), mark
        with self._disk():
            self._claim()

    def load(self, part: Part) -> dict[str, np.ndarray] | None:
        """Return a finished part, or None where it is absent or had to be set aside."""
        try:
            arrays, document = unseal(self._file(part).read_bytes())
            if document == self._document(part):
                return arrays
        except FileNotFoundError:
            return None
        except (Damaged, OSError):
            pass
        self.reject(part)
        return None

    def save(self, part: Part, arrays: dict[str, np.ndarray]) -> None:
        """Keep a finished part.

        **Raises:** `Unkept` where it cannot be written; what was kept stays.
        """
        with self._disk():
            write(self._file(part), *seal(arrays, self._document(part)))

    def reject(self, part: Part) -> None:
        """Set a part aside, to be made again."""
        with self._disk():
            set_aside(self.path, [self._file(part)])

    def drop(self, part: Part) -> None:
        """Forget a part."""
        with contextlib.suppress(OSError):
            self._file(part).unlink()

    def numbers(self, kind: str) -> list[int]:
        """Numbers k of the parts (kind, k) that are there, the largest first."""
        names = [x.stem.removeprefix(f"part-{kind}-") for x in self.path.glob(f"part-{kind}-*")]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _file(self, part: Part) -> Path:
        return self.path / f"part-{'-'.join(map(str, part))}.safetensors"

    def _document(self, part: Part) -> dict:
        return {"format": _FORMAT, "fingerprint": self.mark, "part": list(part)}

    def _claim(self) -> None:
        """Say whose the folder is, in one step, unless it says so already."""
        manifest = self.path / "manifest.json"
        mine = {"format": _FORMAT, "fingerprint": self.mark}
        while (found := _read(manifest)) != mine:
            if found is None:
                with contextlib.suppress(FileExistsError):  # of another job, just now: read it
                    write(manifest, json.dumps(mine).encode(), fresh=True)
            elif mine.keys() <= found.keys():
                got = f"{self.path}, which holds parts of another problem or version"
                raise Unkept(self._refusal("name a folder of the same problem", got))
            else:
                set_aside(self.path, [manifest])

    @contextlib.contextmanager
    def _disk(self):
        """Say clearly what the disk refuses inside the block."""
        try:
            yield
        except OSError as error:
            got = f"{error.filename or self.path}: {error.strerror or error}"
            raise Unkept(self._refusal("name a folder that can be written", got)) from error

    def _refusal(self, must: str, got: str) -> str:
        do = "choose another folder, delete this one, or make room"
        return f"`{self.call}` must {must}; got {got}; {do}."


def _read(manifest: Path) -> dict | None:
    """Content of a manifest: None where there is none, nothing where it cannot be read."""
    try:
        found = json.loads(manifest.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, IsADirectoryError):
        return {}
    return found if isinstance(found, dict) else {}
