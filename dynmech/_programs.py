"""Compiled programs kept from one process to the next, where a user asks for it."""

import hashlib
import os
import platform
import stat
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from dynmech import _checks as checks
from dynmech.errors import InvalidArgument, describe

_CALL = "enable_compilation_cache(path=...)"
_LEVEL = "1"  # JAX's own, which it sets where none is set
_SECONDS = 1.0  # JAX's own default: programs that compile faster are not kept


def enable_compilation_cache(path: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs in a folder, so that the next process need not compile them again.

    A new process spends most of its first solve compiling; with this one call at its start it reads
    what an earlier one compiled. Nothing is kept, and no setting is touched, unless it is called.

    **Arguments:** `path`: the folder; None: the one that JAX is set to already
    (`JAX_COMPILATION_CACHE_DIR`), which is kept as it is, else a folder of the user's own, under
    `$XDG_CACHE_HOME` or `~/.cache`, one for each version of JAX and each processor: what is
    compiled for another may not run here.

    JAX's loader logs an error of three thousand characters for many a program that it reads on some
    processors ("prefer-no-gather is not supported"): tuning of the same machine, taken for an
    instruction it lacks. Errors that compiled code logs, not those it raises, are therefore left
    out from here on, unless `TF_CPP_MIN_LOG_LEVEL` or `jax_logging_level` is set.

    **Returns:** the folder. JAX's thresholds of what is worth keeping are lowered to everything,
    where they are JAX's own.

    **Raises:** `InvalidArgument` for a folder that cannot be made or that others can write to.
    """
    _log_less()
    set_already = jax.config.values["jax_compilation_cache_dir"]
    if path is None and set_already:
        return Path(set_already)
    folder = _own_folder() if path is None else _checked(path)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        must = "be a folder that can be made"
        raise InvalidArgument(describe(_CALL, must, str(error), "name another one")) from error
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and path is None:
        must = "be a folder that nobody else can write to: programs in it are run"
        raise InvalidArgument(describe(_CALL, must, str(folder), f"chmod 700 {folder}"))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if jax.config.values["jax_persistent_cache_min_compile_time_secs"] == _SECONDS:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()  # it may have been looked for, and not found, before
    return folder


def _log_less() -> None:
    """Leave out what compiled code logs below the level of what ends a process."""
    level = jax.config.values["jax_logging_level"]
    if level == "NOTSET" and os.environ.get("TF_CPP_MIN_LOG_LEVEL", _LEVEL) == _LEVEL:
        jax.config.update("jax_logging_level", "CRITICAL")  # of Python's loggers as well,
        jax.config.update("jax_logging_level", level)  # which this gives back


def _checked(path: str | os.PathLike[str]) -> Path:
    folder = checks.path(_CALL, path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InvalidArgument(describe(_CALL, "be a folder", str(folder), "name another one"))
    return folder


def _own_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "dynmech" / f"jax-{jax.__version__}-{_processor()}"


def _processor() -> str:
    """A name for what programs are compiled for: the instructions of this processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kinds = ("model name", "flags", "Features", "CPU part")
        told = sorted({line for line in lines if line.startswith(kinds)})
    except OSError:
        told = [platform.processor()]
    text = "\n".join([platform.machine(), *told])
    return f"{platform.machine()}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
