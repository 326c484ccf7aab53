"""Independent parts of one computation, spread over the devices of a mesh.

Parts are the same on any mesh, none reads another, and each is computed on one device as it would
be there alone: sums keep their order. The devices of this process work side by side, each from a
thread of its own, which waits for it while NumPy and JAX let the others go on. Devices of other
processes (`jax.distributed`) compute their own parts; what was found is then exchanged, so that
every process returns all of it. Every process makes the same calls in the same order.
"""

import itertools
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, TypeVar

import jax
import numpy as np

from solvers.solution import Unsuited

# Of JAX, which belong to a thread: those of the caller are to hold in every one.
_SETTINGS = attrgetter("jax_enable_x64", "jax_default_matmul_precision")
_DEVICE = attrgetter("jax_default_device")
P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")


_WIDER = 100.0


def at_hand(cached: float) -> float:
    """How much is worked on at once where `cached` of it stays in a core's cache.

    An accelerator is given a hundred times as much: it has to be filled, and every pass started.
    """
    return cached if on_processors() else _WIDER * cached


def on_processors() -> bool:
    """Whether programs run on processors, not on an accelerator."""
    device = _DEVICE(jax.config)
    platform = jax.default_backend() if device is None else getattr(device, "platform", device)
    return platform == "cpu"


def check_mesh(mesh: object, work: int | None = None, unit: str = "parts") -> None:
    """Raise `Unsuited` unless `mesh` is None or a mesh that `work` parts can be spread over.

    It has one axis, devices of every process, and no more of them than there is work (None: not
    known yet).
    """
    if mesh is None:
        return
    if not isinstance(mesh, jax.sharding.Mesh):
        do = 'make one with jax.make_mesh((2,), ("parts",))'
        raise Unsuited("mesh", "be a jax.sharding.Mesh", type(mesh).__name__, do)
    if len(mesh.axis_names) != 1:
        got = f"axes {dict(mesh.shape)}"
        do = f'make it with jax.make_mesh(({mesh.size},), ("parts",))'
        raise Unsuited("mesh", "have one axis, over which parts are spread", got, do)
    if work is not None and mesh.size > work:
        must = f"have no more devices than there are {unit} to spread, {work}"
        do = "make a mesh of fewer devices, or pass None"
        raise Unsuited("mesh", must, f"{mesh.size} devices", do)
    missing = set(range(jax.process_count())) - _processes(mesh)
    if missing:
        must = f"hold devices of all {jax.process_count()} processes"
        do = "make it of jax.devices()"
        raise Unsuited("mesh", must, f"none of process {sorted(missing)[0]}", do)


def shares(mesh: jax.sharding.Mesh | None) -> int:
    """Devices to share work among."""
    return 1 if mesh is None else mesh.size


def spread(
    mesh: jax.sharding.Mesh | None,
    function: Callable[[P], R],
    parts: Iterable[P],
    *,
    together: int = 1,
    compiled: bool = False,
    ended: threading.Event | None = None,
) -> list[R]:
    """Apply a function to every part, part k on device k of the mesh, and so round and round.

    **Arguments:** `function`: of a part alone, with NumPy's arrays in what it returns; what it
    raises is raised here, in every process; `together`: without a mesh, how many parts are worked
    on side by side, but for the first, which finds what is to be compiled unless it is `compiled`;
    `ended`: is set once what is still worked on will not be asked for, by an error or an interrupt.

    **Returns:** what it returned for each part, in their order.
    """
    given = list(parts)
    if mesh is None and (together == 1 or len(given) < 3 - compiled):
        return [function(part) for part in given]
    found: dict[int, R] = {}
    if mesh is None:
        devices, mine = [_DEVICE(jax.config)] * together, list(range(together))
        if not compiled:
            found[0] = function(given[0])
    else:
        devices, process = mesh.devices.reshape(-1).tolist(), jax.process_index()
        mine = [k for k in range(len(devices)) if devices[k].process_index == process]
    settings, begun = _SETTINGS(jax.config), len(found)
    ended = ended or threading.Event()

    def work(k: int) -> dict[int, R]:
        double, product = settings
        with (
            jax.enable_x64(double),
            jax.default_matmul_precision(product),
            jax.default_device(devices[k]),
        ):
            places = range(begun + k, len(given), len(devices))
            return {at: function(given[at]) for at in places if not ended.is_set()}

    error: BaseException | None = None
    with ThreadPoolExecutor(max(len(mine), 1), "device") as pool:
        try:
            for job in [pool.submit(work, k) for k in mine]:
                try:
                    found.update(job.result())
                except Exception as raised:  # told to the others before it is raised here
                    error = error or raised
                    ended.set()
        finally:
            ended.set()  # also by an interrupt: nobody starts another part
    if mesh is not None and len(_processes(mesh)) > 1:
        words = None if error is None else f"{type(error).__name__}: {error}"
        for process, (theirs, problem) in enumerate(_exchange((found, words))):
            found.update(theirs)
            if problem is not None and error is None:
                got, do = f"process {process}: {problem}", "look at what that process reports"
                raise Unsuited("mesh", "have every process finish its parts", got, do)
    if error is not None:
        raise error
    return [found[k] for k in range(len(given))]


def spread_runs(
    mesh: jax.sharding.Mesh | None, function: Callable[[list[P]], list[R]], parts: Iterable[P]
) -> list[R]:
    """Apply a function to runs of parts, one run for every device, as even as may be.

    For parts of one pass of a search, which read what all found before: what a run reads is
    brought to its device once (`here`). A single run is worked on where the search is.

    **Arguments:** `function`: of a run of parts, which returns what it found for each.

    **Returns:** what it found for every part, in their order.
    """
    given, count = list(parts), shares(mesh)
    ends = [len(given) * k // count for k in range(count + 1)]
    runs = [given[low:high] for low, high in itertools.pairwise(ends) if high > low]
    found = spread(mesh if len(runs) > 1 else None, function, runs)
    return [one for run in found for one in run]


def here(tree: T) -> T:
    """The same arrays on the device that this part of a spread computation is worked on."""
    device = _DEVICE(jax.config)
    return tree if device is None else jax.device_put(tree, device)


def from_first(mesh: jax.sharding.Mesh | None, finding: Callable[[], R]) -> R:
    """What the first process of a mesh finds: a clock, a file, and all else that may differ."""
    if mesh is None or len(_processes(mesh)) == 1:
        return finding()
    return _exchange(finding() if jax.process_index() == 0 else None)[0]


def late(mesh: jax.sharding.Mesh | None, began: float, seconds: float | None) -> bool:
    """Whether `seconds` have passed since then by the clock of the first process; None: never."""
    return seconds is not None and from_first(mesh, lambda: time.monotonic() - began > seconds)


def agree(mesh: jax.sharding.Mesh | None, facts: Callable[[], Mapping[str, object]]) -> None:
    """Raise `Unsuited` where processes of a mesh have different facts, by name; `mesh` is checked.

    **Arguments:** `facts()`: the same names in every process; versions, digests, settings.
    """
    if mesh is None or len(_processes(mesh)) == 1:
        return
    mine = {name: str(value) for name, value in facts().items()}
    for process, theirs in enumerate(_exchange(mine)):
        wrong = [name for name in mine if theirs.get(name) != mine[name]]
        if wrong:
            name = wrong[0]
            got = f"{theirs.get(name)} in process {process}, {mine[name]} in {jax.process_index()}"
            do = "start every process in the same environment, with the same script and data"
            raise Unsuited("mesh", f"span processes with the same {name}", got, do)


def _processes(mesh: jax.sharding.Mesh) -> set[int]:
    return {device.process_index for device in mesh.devices.flat}


def _exchange(mine: Any) -> list[Any]:
    """What every process of the job passed here, in their order."""
    from jax.experimental import multihost_utils

    data = np.frombuffer(pickle.dumps(mine), np.uint8)
    size = np.asarray([len(data)], np.int32)
    sizes = np.asarray(multihost_utils.process_allgather(size)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, sizes, strict=True)]
