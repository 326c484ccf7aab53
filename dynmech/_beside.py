"""What is worked out on first access and kept beside frozen data: no leaf of it, never copied."""

import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Beside:
    """Keep one thing beside each of many frozen modules, for as long as the module lives.

    Threads that ask at once wait for the first one to make it.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}
        self._making: dict[int, threading.RLock] = {}

    def __call__(self, module: object, make: Callable[[], T]) -> T:
        """What was kept beside `module`; made, and kept, where nothing was."""
        key = id(module)
        if key not in self._kept:
            with self._making.setdefault(key, threading.RLock()):
                if key not in self._kept:
                    self._kept[key] = make()
                    weakref.finalize(module, self._kept.pop, key, None)
            self._making.pop(key, None)
        return self._kept[key]
