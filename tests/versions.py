"""Try the wheel on the oldest Python with the oldest JAX admitted, and on the newest of both.

Run by `make test-versions`: `python tests/versions.py WORKERS [TESTS ...]`, with nothing but a
Python installed. Interpreters are looked for on the path and among those of pyenv; the oldest
releases are those that pyproject.toml names. The wheel is built once and installed, with what the
tests need, into an environment of each interpreter; then its first user's script runs from an empty
folder, and a core of the tests from one where there are no sources of the packages.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = (
    "tests/economics/test_cases.py",
    "tests/economics/test_borders.py",
    "tests/economics/test_rows.py",
    "tests/numerics/test_backward.py",
)
VERSION = (
    "import sys; v = sys.version_info;"
    "print('.'.join(map(str, v[:3])) if v.releaselevel == 'final' else '0')"
)
USED = (
    "import jax, numpy, sys;"
    "print('used: Python', *sys.version.split()[:1], sys.executable);"
    "print('used: JAX', jax.__version__, 'NumPy', numpy.__version__, flush=True)"
)
Release = tuple[int, ...]


def release(text: str) -> Release:
    """Numbers of a version."""
    return tuple(int(part) for part in text.split("."))


def admitted() -> tuple[Release, str]:
    """The oldest Python and the oldest JAX of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (jax,) = (x for x in project["dependencies"] if re.match(r"jax\W", x))
    oldest = [re.search(r">=([\d.]+)", text) for text in (project["requires-python"], jax)]
    python, jax = (found[1] for found in oldest if found)
    return release(python), jax


def interpreters(oldest: Release) -> dict[Release, Path]:
    """The Pythons that start here, by version, none older than `oldest`."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders += sorted(home.glob("versions/*/bin"))
    found: dict[Release, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("python3.*"))):
        if re.fullmatch(r"python3\.\d+", path.name):
            said = subprocess.run([path, "-c", VERSION], capture_output=True, text=True)
            if said.returncode == 0 and release(said.stdout) >= oldest:
                found.setdefault(release(said.stdout), path)
    return found


def environment(name: str, python: Path, version: Release) -> Path:
    """The interpreter of an environment of its own, made anew where it is of another Python."""
    folder = ROOT / f".venv-{name}"
    own = folder / "bin" / "python"
    made = own.exists() and subprocess.run([own, "-c", VERSION], capture_output=True, text=True)
    if not made or made.returncode or release(made.stdout) != version:
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    return own


def attempt(name: str, python: Path, jax: str, wheel: Path, folder: Path, tests: list[str]) -> None:
    """Install the wheel with a JAX, and try it: as a first user, then by the tests."""
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = [f"dynmech[test] @ {wheel.as_uri()}", f"jax{jax}", f"jaxlib{jax}"]
    subprocess.run([*install, "--upgrade", *wanted], check=True)
    subprocess.run([*install, "--force-reinstall", "--no-deps", wheel], check=True)
    smoke = [python, "-P", "-W", "error", ROOT / "tests" / "smoke_wheel.py", ROOT]
    with tempfile.TemporaryDirectory() as empty:
        subprocess.run([python, "-c", USED], cwd=empty, check=True)
        subprocess.run(smoke, cwd=empty, check=True)
    cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / f"jax-{name}")}
    call = [python, "-m", "pytest", "-q", *tests]
    subprocess.run(call, cwd=folder, check=True, env={**os.environ, **cache})


def main(workers: str, *tests: str) -> None:
    oldest, jax = admitted()
    found = interpreters(oldest)
    if not found:
        raise SystemExit(f"no Python {'.'.join(map(str, oldest))} or newer starts here")
    for version, path in sorted(found.items()):
        print("found: Python", ".".join(map(str, version)), path, flush=True)
    if min(found)[:2] > oldest or max(found)[:2] == min(found)[:2]:
        print("the oldest Python admitted, or a newer one, is not here: what is found is used")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
        subprocess.run(build, check=True)
        (wheel,) = folder.glob("*.whl")
        for name in ("tests", "experiments", "notebooks"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, folder / name)
        options = [f"-n{workers}", *(tests or CORE)]
        for name, pick, pin in (("oldest", min, f"=={jax}"), ("newest", max, f">{jax}")):
            version = pick(found)
            python = environment(name, found[version], version)
            attempt(name, python, pin, wheel, folder, options)


if __name__ == "__main__":
    main(*sys.argv[1:])
