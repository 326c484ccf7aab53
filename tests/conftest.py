"""Settings of every test run: float64, run-time shape checks, repeatable examples."""

import gc
import math
import os
import re
import signal
from collections import Counter
from pathlib import Path

import jax
import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import ROOT, typecheck

collect_ignore = ["trials"]  # scripts, which tests run as programs

jax.config.update("jax_enable_x64", True)

# Most of the time of a run is compilation, of programs that run once: optimise little, and emit
# them the short way. Set the variable to 0 to test what users run; `make test-slow` does. XLA ends
# the process at flags it does not know: these are for versions that were tried. It reads them once,
# so that programs started by tests are spared them.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    if jax.__version_info__ < (0, 11):
        given = os.environ.get("XLA_FLAGS")
        os.environ["XLA_FLAGS"] = " ".join((
            given or "",
            "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
        ))  # fmt: skip
        jax.devices()
        if given is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = given

# Compiled programs are shared by the processes of a run and kept for the next: it takes half the
# time. (A program read while another process writes it is compiled again: see filterwarnings.)
for name, value in {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0.0,
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
}.items():
    if name not in os.environ:
        jax.config.update(name.lower(), value)
        os.environ[name] = str(value)  # for the programs started by tests

# Must come before the first import of either package: from here on every annotated array is
# checked for shape and dtype at each call.
typecheck.install("dynmech", "solvers")

# Compilation makes the first example slow, so no deadline; the same examples in every run.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.hookimpl(trylast=True)  # after those that are not marked were left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]):
    """Keep one part of the tests where `PART=k/n` asks for it: whole files, much alike."""
    if not (part := os.environ.get("PART")):
        return
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    k, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= k <= n:
        raise pytest.UsageError(f"PART must be k/n with k from 1 to n, such as 2/4; got {part!r}")
    parts: list[list[str]] = [[] for _ in range(n)]
    counts = Counter(str(item.path) for item in items)
    for path in sorted(counts, key=lambda path: (-counts[path], path)):
        min(parts, key=lambda part: sum(counts[one] for one in part)).append(path)
    mine = set(parts[k - 1])
    config.hook.pytest_deselected(items=[item for item in items if str(item.path) not in mine])
    items[:] = [item for item in items if str(item.path) in mine]


def pytest_collection_finish():
    """Leave what imports and collection made out of every later search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


# Every compiled program maps some pages, and Linux gives a process 65,530 mappings: when they run
# out, the compiler crashes the process.
_MAPPINGS = Path("/proc/self/maps")
_MANY = 7_000


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forget compiled programs between files when there are many, and their memory with them."""
    yield
    if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b"\n") > _MANY:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True, scope="session")
def searched():
    """Searches go on to their end: whole trees are so small in tests that all would give way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("solvers.tree.beside.exact_way", lambda *asked: (math.inf, True))
        yield


@pytest.fixture
def untyped():
    """Without run-time type checks, which would come first, as users are."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def heard():
    """SIGINT interrupts also where tests run in the background, which it does not reach."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
