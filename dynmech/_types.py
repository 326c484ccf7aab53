"""The one encoding of actions and recommendations, and the working precision.

A user's action is 0..n-1 (buy that product), n (exit) or n+1 (query). A recommendation is a
product index; "none" is -1 in Python results and n as an index of table axes.
"""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Generator
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import eval_context
from jaxtyping import Array

from dynmech._checks import as_floats as as_floats
from dynmech.errors import MiscompilingJaxWarning
from solvers.host import Record as Record
from solvers.host import with_default as with_default
from solvers.host import with_fields as with_fields
from solvers.programs import unshared, whole_products

Numbers = Array | np.ndarray
Given = npt.ArrayLike | tuple[Any, ...]  # numbers as users write them
Index = Numbers | int | np.integer  # one whole number or many, traced or not
T = TypeVar("T")
NONE = -1
# Parameters that a log can be asked about: name -> (field, domain) pairs (`dynmech.logs`).
Estimable = dict[str, tuple[tuple[str, str], ...]]
# Where JAX keeps what tells whether it traces: elsewhere in its oldest release that is admitted.
_EXTEND, _CORE = map(importlib.import_module, ("jax.extend.core", "jax.core"))
_STATE: Any = _EXTEND if "get_opaque_trace_state" in dir(_EXTEND) else _CORE
MISCOMPILING_JAX = ("0.10.2",)  # excluded in pyproject.toml, may be installed all the same


def exit_code(products: int) -> int:
    """Action code of leaving without a purchase."""
    return products


def query_code(products: int) -> int:
    """Action code of a follow-up query."""
    return products + 1


def in_doubles(tree: T) -> T:
    """The same numbers with every float32 array written in float64; nothing is rounded.

    No array is that of the caller, who may have given it to JAX in another precision.
    """

    def wide(leaf: Any):
        if not isinstance(leaf, np.ndarray | jax.Array) or leaf.dtype != np.float32:
            return unshared(leaf)
        return np.asarray(leaf).astype(np.float64)

    return jax.tree.map(wide, tree)


@contextlib.contextmanager
def precision(array: Numbers) -> Generator[None, None, None]:
    """Compute in float64 inside the block if `array` is float64, whatever JAX's default is.

    What is computed is computed now, also where the caller is being traced: programs in float64
    never become part of one in float32. Where nobody is, constants of a program are part of it.
    """
    _warn_of_miscompiler(jax.__version__)
    now = jax.ensure_compile_time_eval() if _traced() else contextlib.nullcontext()
    with now, _width(array.dtype == np.float64):
        yield


def _traced() -> bool:
    """Whether the caller is being traced."""
    here = _STATE.get_opaque_trace_state()
    with eval_context():
        return here != _STATE.get_opaque_trace_state()


@functools.cache
def _warn_of_miscompiler(version: str) -> None:
    """Warn once in a process, at the first verb, of a JAX that the dependencies exclude."""
    if version in MISCOMPILING_JAX:
        warnings.warn(
            f"JAX {version} computes some sums of products over more than 16,384 rows wrongly on "
            "CPU; install another version: pip install 'jax!=0.10.2' 'jaxlib!=0.10.2'",
            MiscompilingJaxWarning,
            stacklevel=2,
        )


def in_double_precision() -> contextlib.AbstractContextManager[None]:
    """As `precision` of a float64 array."""
    return precision(np.zeros(0))


@contextlib.contextmanager
def _width(double: bool) -> Generator[None, None, None]:
    wide = jax.enable_x64(True) if double else contextlib.nullcontext()
    with wide, whole_products():
        yield


def module_of(*numbers: Any) -> ModuleType:
    """NumPy where no number is one of JAX's, whose module is the answer where one is."""
    return jnp if any(isinstance(x, jax.Array) for x in numbers) else np


def split_symbol(joint: npt.ArrayLike, alphabet: tuple[int, ...]) -> np.ndarray:
    """Symbols of every party from joint ones, last party fastest; shape (parties, ...).

    As `numpy.unravel_index`, for any number of parties.
    """
    rest, parts = np.asarray(joint), []
    for size in reversed(alphabet):
        rest, part = np.divmod(rest, size)
        parts.append(part)
    return np.stack(parts[::-1])


def join_symbols(symbols: np.ndarray, alphabet: tuple[int, ...]) -> np.ndarray:
    """Joint symbol from those of every party, shape (parties, ...); inverse of `split_symbol`."""
    joint = np.zeros(np.shape(symbols)[1:], np.int64)
    for part, size in zip(symbols, alphabet, strict=True):
        joint = np.asarray(joint * size + part)
    return joint
