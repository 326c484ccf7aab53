"""One row of a benchmark: what, seconds, size, rate, a peer's seconds beside it, and the ratio."""

import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def timed(work: Callable[[], T], repeat: int = 1) -> tuple[float, T]:
    """Least seconds of `repeat` runs, and what the last returned."""
    start = time.perf_counter()
    found = work()
    best = time.perf_counter() - start
    for _ in range(repeat - 1):
        start = time.perf_counter()
        found = work()
        best = min(best, time.perf_counter() - start)
    return best, found


def most_held() -> float:
    """The most memory that this process has held, GB: what was before it was begun left out."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def reference() -> float:
    """Seconds of a fixed piece of work on this machine now: a matrix product, a sort, a loop."""
    rng = np.random.default_rng(0)
    table, line = rng.normal(size=(600, 600)), rng.normal(size=400_000)

    def work() -> float:
        total = float((table @ table).sum()) + float(np.sort(line)[0])
        for k in range(100_000):
            total += k % 7
        return total

    return timed(work, 7)[0]


def row(
    what: str,
    seconds: float,
    size: str = "",
    rate: str = "",
    beside: str = "",
    ratio: float | str = "",
) -> dict[str, Any]:
    """A labelled row; `ratio` is the peer's seconds, or work a second, over ours."""
    return {
        "what": what, "seconds": seconds, "size": size, "rate": rate, "beside it": beside,
        "ratio": ratio,
    }  # fmt: skip
