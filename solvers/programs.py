"""Compiled programs, whatever precision the caller has switched to, and whatever it traces.

JAX keeps, for every NumPy array *object* that it is given, the array that it was turned into,
for as long as some program holds that one. An array that was a constant of a program traced in
single precision is then taken for single by the next program in double precision that is given
the same object, and the other way round. So no array of ours is given to JAX under the same
object twice: it gets views, which cost nothing and are new objects each time.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def unshared(tree: T) -> T:
    """The same tree, each NumPy array in it a new view of its numbers."""

    def view(leaf: Any) -> Any:
        return leaf.view() if isinstance(leaf, np.ndarray) else leaf

    return jax.tree.map(view, tree)


def whole_products() -> contextlib.AbstractContextManager[None]:
    """Products of matrices in the precision of their numbers; accelerators keep ten bits else."""
    return jax.default_matmul_precision("highest")


def as_program(function: Callable[P, R]) -> Callable[P, R]:
    """`equinox.filter_jit` that gives JAX views of NumPy arrays.

    Factors of products are not rounded, as by default those in float32 are on accelerators.
    """
    program = eqx.filter_jit(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given, named = unshared((args, kwargs))
        with whole_products():
            return program(*given, **named)

    return call
