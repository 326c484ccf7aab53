"""The `mesh=` of every verb: read, agreed on by all processes, and told of in our own words."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, TypeVar

import jax
import numpy as np

from dynmech import files
from dynmech.errors import InvalidArgument, describe
from solvers import Unsuited
from solvers.devices import agree, check_mesh, shares, spread

if TYPE_CHECKING:
    import equinox as eqx

P = TypeVar("P")
R = TypeVar("R")


def read_mesh(
    call: str, mesh: jax.sharding.Mesh | None, env: "eqx.Module", work: int | None, unit: str
) -> None:
    """Raise `InvalidArgument` unless work on a market can be spread over `mesh`.

    **Arguments:** `call`: the verb; `work`: how many parts of the kind `unit` there are, None
    where that is not known yet. Processes of different versions or markets are refused in each.
    """
    if mesh is None:
        return
    with _said(call):
        check_mesh(mesh, work, unit)
        agree(mesh, lambda: {"verb": call, "versions": _versions(), "market": _short(env)})


def _versions() -> str:
    with contextlib.suppress(PackageNotFoundError):
        return f"dynmech {version('dynmech')}, JAX {jax.__version__}, NumPy {np.__version__}"
    return f"JAX {jax.__version__}, NumPy {np.__version__}"


def _short(env: "eqx.Module") -> str:
    return files.fingerprint(env)[:12]


@dataclasses.dataclass(frozen=True)
class Work:
    """Where the parts of a verb's work are done, and where what was found is kept, if anywhere.

    **Arguments:** `call`: the verb; `mesh`: devices over which parts are spread; `kept`: of this
    work alone.
    """

    call: str
    mesh: jax.sharding.Mesh | None = None
    kept: files.Parts | None = None

    @property
    def devices(self) -> int:
        """How many share the work."""
        return shares(self.mesh)

    def each(
        self,
        function: Callable[[P], R],
        parts: Iterable[P],
        name: Callable[[P], tuple[int | str, ...]] | None = None,
    ) -> list[R]:
        """What the function finds for every part, in order; see `solvers.devices.spread`.

        **Arguments:** `name`: of a part that is kept, and found again.
        """

        def work(part: P) -> R:
            if self.kept is None or name is None:
                return function(part)
            found = self.kept.load(*name(part))
            if found is None:
                found = function(part)
                self.kept.save(found, *name(part))
            return found

        with _said(self.call):
            return spread(self.mesh, work, parts)


@contextlib.contextmanager
def _said(call: str) -> Generator[None, None, None]:
    try:
        yield
    except Unsuited as error:
        name = f"{call}({error.setting}=...)"
        raise InvalidArgument(describe(name, error.must, error.got, error.do)) from error
