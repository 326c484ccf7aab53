"""Classes whose objects are kept in files of their own."""

import os
from typing import Any, Self, cast

from dynmech.files.artefact import load, save


class Kept:
    """A frozen module that is written to one sealed file and read back (`dynmech.files`)."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to one sealed file, in one step, with all that it holds; see `dynmech.files`."""
        save(cast(Any, self), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], parts: tuple[type, ...] = ()) -> Self:
        """Read what `save` wrote; `parts` lists your own classes that it holds, if any.

        **Raises:** `InvalidArgument` for a file that is changed, torn, or of another format.
        """
        return load(path, cls, parts)
