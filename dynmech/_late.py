"""Names of a package that are loaded when they are first asked for.

A module's `__getattr__` and `__dir__` (PEP 562): importing a package then takes no time, whatever
its modules import. For a type checker the package imports the same names under `TYPE_CHECKING`.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def late(
    package: dict[str, Any], homes: dict[str, str], beside: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's `__getattr__` and `__dir__`.

    **Arguments:** `package`: its `globals()`; `homes`: for each module the names that come from
    it, apart by spaces; names that come from the package itself are its modules. `beside`: names
    that `dir` leaves out, because one meets them as results or rarely.
    """
    own = package["__name__"]
    home = {name: module for module, names in homes.items() for name in names.split()}

    def find(name: str) -> Any:
        from importlib.metadata import PackageNotFoundError, version

        if name == "__all__":
            return sorted(home)
        if name == "__version__":
            try:
                package[name] = version(own)
            except PackageNotFoundError as error:
                raise AttributeError(f"{own!r} is not installed: its version is unknown") from error
            return package[name]
        if name not in home:
            raise _unknown(own, name, home)
        if home[name] == own:
            return importlib.import_module(f"{own}.{name}")
        package[name] = getattr(importlib.import_module(home[name]), name)
        return package[name]

    listed = set(home) - set(beside.split())
    return find, lambda: sorted({*listed, *(name for name in package if name[:2] == "__")})


def suggesting(module: dict[str, Any]) -> Callable[[str], Any]:
    """Make a module's `__getattr__`, which says of a wrong name what is nearest.

    **Arguments:** `module`: its `globals()`.
    """

    def find(name: str) -> Any:
        raise _unknown(module["__name__"], name, [x for x in module if x[0] != "_"])

    return find


def _unknown(module: str, name: str, known: Iterable[str]) -> AttributeError:
    from difflib import get_close_matches

    near = [] if name[:2] == "__" else get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{meant}")


def require_own(package: str, beside: str) -> None:
    """Raise `ImportError` where another package of this name hides the one that came with us.

    **Arguments:** `beside`: a file of the package beside whose folder ours lies.
    """
    loaded = sys.modules.get(package)
    spec = importlib.util.find_spec(package) if loaded is None else loaded.__spec__
    places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin])]
    ours = Path(beside).resolve().parent.parent / package
    if ours not in [Path(place).resolve() for place in places if place]:
        found = ", ".join(map(str, places)) or "nothing"
        raise ImportError(
            f"`import dynmech` needs its own package `{package}`, in {ours}; Python finds {found}. "
            f"Rename your folder or file `{package}`, or start Python somewhere else."
        )
