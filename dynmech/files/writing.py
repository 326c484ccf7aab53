"""Write any file in one step, and say clearly what the disk refuses."""

import os

from dynmech import _checks as checks
from dynmech.errors import InvalidArgument, describe
from solvers.files import Chunk
from solvers.files import write as write_whole


def write(
    path: str | os.PathLike[str],
    *chunks: Chunk | str,
    call: str = "write(path=...)",
    fresh: bool = False,
) -> None:
    """Write a file beside its place, sync it, and move it there in one step.

    Whoever reads at any moment, or after a kill, finds the file of before or the new one, whole.

    **Arguments:** `path`: folders above it are made; `chunks`: the content in parts, text in
    UTF-8; `call`: what users call it, for the messages; `fresh`: only where there is no file yet.

    **Raises:** `FileExistsError` where `fresh` finds one; `InvalidArgument` where the disk is full
    or refuses, or the place is a symbolic link, a folder, a device or a file without leave to
    write; nothing is changed or left then.
    """
    place = checks.path(call, path)
    content = [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]
    try:
        write_whole(place, *content, fresh=fresh)
    except OSError as error:
        if fresh and isinstance(error, FileExistsError):
            raise
        got = f"{place}: {error.strerror or error}"
        do = "choose another place, or make room"
        raise InvalidArgument(describe(call, "name a file that can be written", got, do)) from error
