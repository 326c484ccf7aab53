"""Finished parts of a long computation, kept on disk and found again.

A checkpoint is a folder with a manifest, which says whose it is, and one sealed file for each
part, which bears the problem's mark and its own name: parts that are torn, changed, out of place
or of another problem are set aside in a folder `unreadable-*` and made again. Two equal jobs may
share a folder.

Work that is no sum of parts, a search or a training, keeps its state instead: the last two, so
that a torn one costs little.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from solvers.devices import from_first
from solvers.errors import shown
from solvers.files import Damaged, NoOrdinaryFile, fingerprint, read, seal, set_aside, unseal, write

_FORMAT = 2
_KEPT = 2
_SHARE = 0.1  # of the time, at most, that writing states takes
Part = tuple[int | str, ...]


class Unkept(ValueError):
    """Signal a folder in which nothing can be kept, or which is another problem's."""


class Checkpoint:
    """Parts of one problem in a folder.

    **Arguments:** `path`: the folder, made if absent; `mark`: the problem's fingerprint; `call`:
    what users call the folder, for the messages; `inside`: folders in it, to be one of several;
    `look`: whether only to see whose it is, and to claim none that is nobody's.

    **Raises:** `Unkept` if it is no folder or cannot be written, or holds parts of another
    problem; nothing in it is changed then.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mark: str,
        call: str = "solve(checkpoint=...)",
        inside: tuple[str, ...] = (),
        look: bool = False,
    ):
        self.call = call
        if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
            raise Unkept(self._refusal("be the path of a folder", shown(path)))
        self.path, self.mark = Path(path, *inside), mark
        with self._disk():
            self._claim(look)

    def load(self, part: Part) -> dict[str, np.ndarray] | None:
        """Return a finished part, or None where it is absent or had to be set aside."""
        try:
            arrays, document = unseal(read(self._file(part)))
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

    def forget(self, kind: str) -> None:
        """Drop all states (kind, k) but the last two."""
        for k in self.numbers(kind)[_KEPT:]:
            self.drop((kind, k))

    def numbers(self, kind: str) -> list[int]:
        """Numbers k of the parts (kind, k) that are there, the largest first."""
        names = [x.stem.removeprefix(f"part-{kind}-") for x in self.path.glob(f"part-{kind}-*")]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _file(self, part: Part) -> Path:
        return self.path / f"part-{'-'.join(map(str, part))}.safetensors"

    def _document(self, part: Part) -> dict[str, Any]:
        return {"format": _FORMAT, "fingerprint": self.mark, "part": list(part)}

    def _claim(self, look: bool) -> None:
        """Say whose the folder is, in one step, unless it says so already."""
        manifest = self.path / "manifest.json"
        mine = {"format": _FORMAT, "fingerprint": self.mark}
        while (found := _read(manifest)) != mine:
            if found is not None and mine.keys() <= found.keys():
                got = f"{self.path}, which holds parts of another problem or version"
                raise Unkept(self._refusal("name a folder of the same problem", got))
            if look:
                return
            if found is None:
                with contextlib.suppress(FileExistsError):  # of another job, just now: read it
                    write(manifest, json.dumps(mine).encode(), fresh=True)
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


class States:
    """States of a search, each in place of those before; the same search goes on from the last.

    Written where little time is lost by it: never for more than a tenth of what passes.

    **Arguments:** `path`: a checkpoint's folder, None to keep nothing; `name`: of the kind of
    search, which has a folder of its own in it; `mark()`: as in `Checkpoint`.

    **Raises:** `Unkept`, as `Checkpoint`.
    """

    def __init__(self, path: str | os.PathLike[str] | None, name: str, mark: Callable[[], str]):
        self.parts, self.held = None, None
        if path is not None:
            self.parts = Checkpoint(path, mark(), inside=(name,))
        self.next, self.due = {}, 0.0

    def resume(
        self,
        restore: Callable[[dict[str, np.ndarray]], object],
        state: Callable[[], dict[str, np.ndarray]],
        kind: str = "state",
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        """Go on from the last whole state of this kind, that of a mesh's first process, if any.

        **Arguments:** `restore(kept)`: become what was kept; `state()`: what is kept of that.

        **Raises:** `Unkept` where its arrays are not those of this search: it is set aside, and
        the next call goes on from the one before it, or begins anew.
        """
        found = from_first(mesh, lambda: self._last(kind))
        if found is None:
            return
        part, kept = found
        try:
            restore(kept)
            whole = _layout(state()) == _layout(kept)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
            whole = False
        if not whole and self.parts is not None:
            self.parts.reject(part)
            got = f"{self.parts.path}, with a state of another release, which was set aside"
            must = "name a folder whose states this release wrote"
            raise Unkept(f"`{self.parts.call}` must {must}; got {got}; call again without it.")

    def _last(self, kind: str) -> tuple[Part, dict[str, np.ndarray]] | None:
        """The last whole state of this kind and its name, None where there is none."""
        numbers = [] if self.parts is None else self.parts.numbers(kind)
        self.next[kind] = max(numbers, default=0) + 1
        for k in numbers:
            found = None if self.parts is None else self.parts.load((kind, k))
            if found is not None:
                return (kind, k), found
        return None

    def hold(self, state: Callable[[], dict[str, np.ndarray]]) -> None:
        """Take the state as it is now, if it is time to write one, for `keep`.

        Of processes that share a search the one that looked for the last state writes.
        """
        wanted = self.parts is not None and bool(self.next) and time.monotonic() >= self.due
        self.held = {name: np.array(x) for name, x in state().items()} if wanted else None

    def keep(self, kind: str = "state") -> None:
        """Write the state held."""
        if self.parts is None or self.held is None:
            return
        began = time.monotonic()
        self.parts.save((kind, self.next[kind]), self.held)
        self.parts.forget(kind)
        self.next[kind] += 1
        now = time.monotonic()
        self.due, self.held = now + (now - began) / _SHARE, None

    def save(self, state: Callable[[], dict[str, np.ndarray]], kind: str = "state") -> None:
        """Write the state as it is now, if it is time."""
        self.hold(state)
        self.keep(kind)


def claim(path: str | os.PathLike[str] | None, *searches: tuple[str, Callable[[], str]]) -> None:
    """Say whose folders several searches keep their states in, before any of them begins.

    **Arguments:** `path`, `searches`: as in `States`, name and mark of each.

    **Raises:** `Unkept`, as `Checkpoint`; where one is another problem's, none is claimed.
    """
    marks = {} if path is None else {name: mark() for name, mark in searches}
    for look in (True, False):
        for name, mark in marks.items():
            Checkpoint(path or "", mark, inside=(name,), look=look)


def mark_of(numbers: object, *words: object) -> str:
    """Digest of the numbers of a tree and of words: whose a checkpoint is."""
    arrays = [np.asarray(x) for x in jax.tree.leaves(numbers) if eqx.is_array_like(x)]
    return fingerprint([*arrays, np.frombuffer(repr(words).encode(), np.uint8)])


def named(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays with a prefix before their names, to lie beside others."""
    return {f"{prefix}/{name}": x for name, x in arrays.items()}


def within(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that have the prefix, without it."""
    start = f"{prefix}/"
    return {name[len(start) :]: x for name, x in arrays.items() if name.startswith(start)}


def _layout(arrays: dict[str, np.ndarray]) -> dict[str, tuple[Any, ...]]:
    return {name: (np.shape(x), np.asarray(x).dtype) for name, x in arrays.items()}


def _read(manifest: Path) -> dict[str, Any] | None:
    """Content of a manifest: None where there is none, nothing where it cannot be read."""
    try:
        found = json.loads(read(manifest))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError, NoOrdinaryFile):
        return {}
    return found if isinstance(found, dict) else {}
