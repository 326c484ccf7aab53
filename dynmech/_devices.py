"""The `mesh=` of every verb: read, agreed on by all processes, and told of in our own words."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import jax
import numpy as np

from dynmech import files
from dynmech.errors import InvalidArgument, describe
from solvers import Unsuited, agree, check_mesh, spread

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
        versions = f"JAX {jax.__version__}, NumPy {np.__version__}"
        agree(mesh, {"verb": call, "versions": versions, "market": files.fingerprint(env)[:12]})


def over(
    call: str,
    mesh: jax.sharding.Mesh | None,
    function: Callable[[P], R],
    parts: Iterable[P],
) -> list[R]:
    """`solvers.spread`, its refusals in the words of the verb `call`."""
    with _said(call):
        return spread(mesh, function, parts)


@contextlib.contextmanager
def _said(call: str) -> Iterator[None]:
    try:
        yield
    except Unsuited as error:
        name = f"{call}({error.setting}=...)"
        raise InvalidArgument(describe(name, error.must, error.got, error.do)) from error
