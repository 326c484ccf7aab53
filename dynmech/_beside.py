"""What is worked out on first access and kept beside frozen data: no leaf of it, never copied."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Beside:
    """Keep one thing beside each of many frozen modules, for as long as the module lives."""

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def __call__(self, module: object, make: Callable[[], T]) -> T:
        """What was kept beside `module`; made, and kept, where nothing was."""
        key = id(module)
        if key not in self._kept:
            self._kept[key] = make()
            weakref.finalize(module, self._kept.pop, key, None)
        return self._kept[key]
