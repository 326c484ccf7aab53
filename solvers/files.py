"""Files that are whole or absent, and numbers sealed so that no change goes unnoticed.

`write` puts a file together beside its place, syncs it and moves it there in one step: readers,
other writers and a kill at any moment find the file of before or the one of after. Drafts bear
a name of their own and are locked while they are written, so that what a killed writer leaves
is told apart from the work of a living one, and swept up by the next write.

`read` gives the bytes of an ordinary file, and refuses what would never end.

`seal` is safetensors with a JSON document in the header. The document holds the digest of every
array and that of the whole file, which is taken with zeros in its own place.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # no such locks here: drafts of killed writers stay
    fcntl = None

Chunk = bytes | memoryview
_DRAFT = ".partial-"
_TRIES = 100
_ZEROS = "0" * 64


class Damaged(ValueError):
    """Signal content that is not what was written; says what is wrong with it."""


class NoOrdinaryFile(OSError):
    """Signal a folder, a device, a pipe or a socket where a file should be."""


def fingerprint(arrays: Iterable[np.ndarray]) -> str:
    """Hash numbers, shapes and types, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array, order="C")
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an ordinary file; nothing is waited for.

    **Raises:** `OSError`; `NoOrdinaryFile` for a folder, a device, a pipe or a socket.
    """
    place = os.fspath(path)
    _require_ordinary(os.stat(place), place)  # a socket cannot be opened, a device may act on it
    handle = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        _require_ordinary(os.fstat(handle), place)  # a pipe may have come in between
        return file.read()


def _require_ordinary(found: os.stat_result, place: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise NoOrdinaryFile(errno.EISDIR, "a folder", place)
    if not stat.S_ISREG(found.st_mode):
        raise NoOrdinaryFile(errno.EINVAL, "a device, a pipe or a socket, no ordinary file", place)


def write(path: str | os.PathLike[str], *chunks: Chunk, fresh: bool = False) -> None:
    """Write a file in one step; whatever fails, what was there stays and nothing is left over.

    **Arguments:** `chunks`: the content, in parts; `fresh`: only where there is no file yet.

    **Raises:** `OSError`, also where the place is a symbolic link, a folder, a device, or a file
    without leave to write; `FileExistsError` where `fresh` finds one.
    """
    place = Path(path)
    mode = _mode(place)
    made = _make_folders(place.parent)
    draft = None
    try:
        handle, draft = _open_draft(place.parent)
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(handle)
            if mode is not None:
                os.chmod(draft, mode)
            if fresh:
                os.link(draft, place)
            else:
                os.replace(draft, place)
        _sync(place.parent)
    except BaseException:
        _discard(draft, made)
        raise
    if fresh:
        draft.unlink(missing_ok=True)
    _sweep(place.parent)


def _mode(place: Path) -> int | None:
    """Permissions of the file that is replaced, None where there is none."""
    try:
        found = os.lstat(place).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found):
        raise OSError(errno.ELOOP, "a symbolic link, which is never written through", str(place))
    if stat.S_ISDIR(found):
        raise IsADirectoryError(errno.EISDIR, "a folder", str(place))
    if not stat.S_ISREG(found):
        raise OSError(errno.EEXIST, "no ordinary file", str(place))
    if not found & 0o222 or not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, "a file without leave to write", str(place))
    return stat.S_IMODE(found)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return those that were not there."""
    made: list[Path] = []
    try:
        for each in reversed([folder, *folder.parents]):
            if not each.is_dir():
                with contextlib.suppress(FileExistsError):  # of another writer, just now
                    each.mkdir()
                    made.append(each)
    except BaseException:
        _discard(None, made)
        raise
    return made


def _open_draft(folder: Path) -> tuple[int, Path]:
    """Open and lock a new file that no other writer and no link can be in the way of."""
    for _ in range(_TRIES):
        draft = folder / f"{_DRAFT}{secrets.token_hex(8)}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if _lock(handle) and os.fstat(handle).st_nlink:
            return handle, draft
        os.close(handle)  # a sweeper was here between the two
    raise OSError(errno.EBUSY, "drafts are swept away", str(folder))


def _lock(handle: int) -> bool:
    """Lock a draft unless somebody else has; where there are no locks, nobody has."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _discard(draft: Path | None, made: list[Path]) -> None:
    with contextlib.suppress(OSError):
        if draft is not None:
            draft.unlink(missing_ok=True)
        for folder in reversed(made):
            folder.rmdir()


def _sync(folder: Path) -> None:
    """Make a renaming last; some file systems keep folders without being asked, and refuse."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove the drafts of writers that are no more."""
    if fcntl is None:
        return
    for draft in folder.glob(f"{_DRAFT}{'[0-9a-f]' * 16}"):
        with contextlib.suppress(OSError):
            handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                draft.unlink()
            finally:
                os.close(handle)


def set_aside(folder: Path, places: Sequence[Path]) -> None:
    """Move what cannot be used to a new folder `unreadable-*`; somebody else may have, already."""
    if not places:
        return
    aside = Path(tempfile.mkdtemp(prefix="unreadable-", dir=folder))
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            os.replace(place, aside / place.name)
    with contextlib.suppress(OSError):
        aside.rmdir()  # where all were gone


def seal(arrays: dict[str, np.ndarray], document: dict[str, Any]) -> tuple[Chunk, Chunk]:
    """Return the content of a file of arrays and a document of plain JSON, as two chunks."""
    from safetensors.numpy import save

    kept = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    digests = {name: fingerprint([array]) for name, array in kept.items()}
    sealed = {"digest": _ZEROS, **document, "arrays": digests}
    text = json.dumps(sealed, allow_nan=False, separators=(",", ":"))
    data = save(kept, metadata={"sealed": text})
    stop = 8 + int.from_bytes(data[:8], "little")
    digest = hashlib.sha256(data).hexdigest()
    return data[:stop].replace(_ZEROS.encode(), digest.encode(), 1), memoryview(data)[stop:]


def unseal(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `seal` made.

    **Returns:** the arrays and the document.

    **Raises:** `Damaged` unless every byte is what was written.
    """
    from safetensors.numpy import load

    stop = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or len(data) < stop:
        raise Damaged(f"it is torn: it ends after {len(data)} bytes, within its header")
    head = data[:stop]
    try:
        document = json.loads(json.loads(head[8:])["__metadata__"]["sealed"])
        digest, digests = str(document.pop("digest")), dict(document.pop("arrays"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"its header cannot be read ({type(error).__name__})") from error
    found = hashlib.sha256(head.replace(digest.encode(), _ZEROS.encode(), 1))
    found.update(memoryview(data)[stop:])
    if found.hexdigest() != digest:
        raise Damaged(_difference(data, digests))
    arrays = load(data)
    if {name: fingerprint([array]) for name, array in arrays.items()} != digests:
        raise Damaged(_difference(data, digests))
    return arrays, document


def _difference(data: bytes, digests: dict[str, str]) -> str:
    """Say which part of a changed file is not what was written."""
    from safetensors.numpy import load

    try:
        arrays = load(data)
    except Exception as error:  # the library has an error of its own for all that can be wrong
        return f"it is torn or changed ({error})"
    wrong = sorted(
        name
        for name in {*arrays, *digests}
        if name not in arrays or digests.get(name) != fingerprint([arrays[name]])
    )
    if not wrong:
        return "its header is not what was written"
    return f"{', '.join(wrong[:3])} of its arrays {'are' if len(wrong) > 1 else 'is'} changed"
