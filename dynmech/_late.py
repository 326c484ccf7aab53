"""Names of a package that are loaded when they are first asked for.

A module's `__getattr__` and `__dir__` (PEP 562): importing a package then takes no time, whatever
its modules import. For a type checker the package imports the same names under `TYPE_CHECKING`.
"""

import importlib
from collections.abc import Callable
from typing import Any


def late(
    package: dict[str, Any], homes: dict[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's `__getattr__` and `__dir__`.

    **Arguments:** `package`: its `globals()`; `homes`: for each module the names that come from
    it, apart by spaces; names that come from the package itself are its modules.
    """
    own = package["__name__"]
    home = {name: module for module, names in homes.items() for name in names.split()}

    def find(name: str) -> Any:
        if name == "__all__":
            return sorted(home)
        if name not in home:
            raise AttributeError(f"module {own!r} has no attribute {name!r}")
        if home[name] == own:
            return importlib.import_module(f"{own}.{name}")
        package[name] = getattr(importlib.import_module(home[name]), name)
        return package[name]

    return find, lambda: sorted({*package, *home})
