"""Converters of what users give: numbers, arrays, laws, parts, keys, and their labels.

Each takes the call's name and what was given, and returns it in the form in which it is used, or
refuses it with an error that names the call. Those of single numbers and parts are in
`solvers.checks`, which settings of solvers use too.
"""

import functools
import inspect
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from dynmech.errors import (
    InvalidArgument,
    InvalidProbability,
    OutsideSupport,
    describe,
    is_number,
    require_finite,
    require_probabilities,
    shown,
)
from solvers.checks import Convert as Convert
from solvers.checks import Labels as Labels
from solvers.checks import axis_labels as axis_labels
from solvers.checks import check_fields as check_fields
from solvers.checks import choice as choice
from solvers.checks import flag as flag
from solvers.checks import instance as instance
from solvers.checks import number as number
from solvers.checks import optional as optional
from solvers.checks import positive as positive
from solvers.checks import probability as probability
from solvers.checks import whole as whole

P = ParamSpec("P")
T = TypeVar("T")
_RAW_KEYS = (2, 4)  # words of a key that is no typed key array


def checked(**converters: Convert) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Run converters over a verb's arguments before it; the call is named after the verb."""

    def wrap(verb: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(verb)
        name = verb.__qualname__.removesuffix(".__init__")

        @functools.wraps(verb)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            given = signature.bind(*args, **kwargs)
            for argument, convert in converters.items():
                if argument in given.arguments:
                    value = given.arguments[argument]
                    given.arguments[argument] = convert(f"{name}({argument}=...)", value)
            return verb(*given.args, **given.kwargs)

        return call

    return wrap


def as_floats(value: Any, call: str = "an array argument") -> Array | np.ndarray:
    """Keep float32 and traced arrays as they are; everything else becomes float64.

    **Raises:** `InvalidArgument`, naming `call`, for what is no array of numbers: text, complex
    numbers, Python objects, masked entries; and for labels, which only `labelled` matches.
    """
    array, labels = labelled(call, value)
    _refuse_labels(call, labels)
    return array


def _refuse_labels(call: str, labels: tuple[Labels, ...]) -> None:
    if any(axis is not None for axis in labels):
        must, do = "carry no labels: they are not matched here", "pass .to_numpy(), in order"
        raise InvalidArgument(describe(call, must, shown(labels), do))


def as_doubles(call: str, value: Any) -> np.ndarray:
    """Real numbers in float64, as `as_floats` takes them."""
    return np.asarray(as_floats(value, call), np.float64)


def labelled(call: str, value: Any) -> tuple[Array | np.ndarray, tuple[Labels, ...]]:
    """The numbers, as `as_floats` gives them, and the labels of each axis, None where none are.

    Labels are those of pandas and xarray objects; 0, 1, 2, ... are the numbers of rows.
    """
    if isinstance(value, Tracer):
        return value, (None,) * value.ndim
    must = "be an array of real numbers"
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except Exception as error:  # ragged lists, and whatever a foreign __array__ raises
        do = "give numbers, every row as many"
        raise InvalidArgument(describe(call, must, shown(value), do)) from error
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        do = "fill or drop the masked entries"
        raise InvalidArgument(describe(call, must, f"{value.mask.sum()} masked entries", do))
    kind = getattr(array.dtype, "kind", "")  # keys of jax.random have none
    if not kind or (kind not in "biuf" and not _is_low_float(array.dtype)):
        got = f"{array.dtype} entries, {shown(value)}"
        raise InvalidArgument(describe(call, must, got, "convert them to floats"))
    if not (isinstance(array, jax.Array) and np.issubdtype(array.dtype, np.floating)):
        array = np.asarray(array)
        array = array if array.dtype == np.float32 else array.astype(np.float64)
    return array, axis_labels(value, array.ndim)


def _is_low_float(dtype: np.dtype) -> bool:
    return dtype.kind == "V" and jax.numpy.issubdtype(dtype, np.floating)  # bfloat16 and its kind


def in_order(call: str, array: Any, axis: int, labels: Labels, wanted: Labels, of: str) -> Any:
    """Put an axis with these labels in the order wanted.

    **Arguments:** `of`: what the wanted labels are those of, for the message.

    **Raises:** `InvalidArgument`, listing both, where they are not the same labels.
    """
    if labels is None or labels == wanted:
        return array
    if wanted is None or len(set(labels)) < len(labels) or set(labels) != set(wanted):
        must = f"be labelled by the {of}, in any order"
        names = "without labels" if wanted is None else ", ".join(map(str, wanted))
        got = f"the labels {', '.join(map(str, labels))}, where the {of} are {names}"
        raise InvalidArgument(describe(call, must, got, "rename them, or pass .to_numpy()"))
    return array.take(np.array([labels.index(label) for label in wanted]), axis)


def matched(call: str, value: Any, **axes: Labels) -> Array | np.ndarray:
    """Numbers whose last axes, where labelled, are put in the order of these labels.

    **Arguments:** `axes`: what each of the last axes is of, and its labels: `products=names`.
    """
    array, labels = labelled(call, value)
    for back, (of, wanted) in enumerate(reversed(axes.items()), start=1):
        if back <= array.ndim:
            array = in_order(call, array, array.ndim - back, labels[-back], wanted, of)
    return array


def by_label(value: Any) -> Any:
    """A labelled vector as a mapping from its labels; anything else as it is."""
    labels = axis_labels(value, 1)
    if len(labels) != 1 or labels[0] is None:
        return value
    return dict(zip(labels[0], np.asarray(value).tolist(), strict=True))


def shaped(*lengths: int | str) -> Convert:
    """Finite real numbers of this shape, a letter for any length from 1 on; traced ones pass."""
    letters = [axis for axis in lengths if isinstance(axis, str)]
    must = f"have shape ({', '.join(map(str, lengths))}{',' if len(lengths) == 1 else ''})"
    must += f" with {', '.join(letters)} >= 1" if letters else ""

    def convert(call: str, value: Any) -> Any:
        array = as_floats(value, call)
        fits = array.ndim == len(lengths) and all(
            size >= 1 if isinstance(wanted, str) else size == wanted
            for size, wanted in zip(array.shape, lengths, strict=True)
        )
        if not fits:
            raise InvalidArgument(describe(call, must, array.shape))
        return finite(call, array)

    return convert


def finite(call: str, value: Any) -> Array | np.ndarray:
    """Finite real numbers of any shape; traced ones pass."""
    array = as_floats(value, call)
    if not isinstance(array, Tracer):
        require_finite(call, np.asarray(array))
    return array


def within(least: float = -np.inf, most: float = np.inf, above: float = -np.inf) -> Convert:
    """Finite real numbers of any shape, all in a range; traced ones pass."""

    def convert(call: str, value: Any) -> Any:
        array = finite(call, value)
        if not isinstance(array, Tracer):
            held = np.asarray(array)
            if held.size == 0 or held.min() < least or held.max() > most or held.min() <= above:
                low = (
                    f"numbers above {above:g}" if above > -np.inf else f"numbers, {least:g} or more"
                )
                must = "hold positive numbers" if above == 0 else f"hold {low}"
                must += f", at most {most:g}" if most < np.inf else ""
                got = f"from {held.min():g} to {held.max():g}" if held.size else "no numbers"
                raise InvalidArgument(describe(call, must, got))
        return array

    return convert


def chances(
    call: str, value: Any, axis: int | tuple[int, ...] = -1, keep: bool = False
) -> Array | np.ndarray:
    """Probabilities that sum to 1 along `axis`; a remainder below 0 by rounding alone is 0.

    Those given in less than double precision sum to 1 within their rounding only, which no later
    check would allow: they are divided by their sum, in double precision, unless `keep` says that
    they stay of their type.

    **Raises:** `InvalidArgument`, `NotFinite`, `InvalidProbability`.
    """
    array = as_floats(value, call)
    if isinstance(array, Tracer):
        return array
    if np.asarray(array).size == 0:
        raise InvalidProbability(describe(call, "hold probabilities", "none"))
    found = require_probabilities(call, np.asarray(array), axis)
    if keep or found.dtype == np.float64:
        return found
    found = found.astype(np.float64)
    return found / found.sum(axis=axis, keepdims=True)


def indices(*lengths: int | None) -> Convert:
    """Integers of this shape, None for any length; floats, and labels, are refused."""

    def convert(call: str, value: Any) -> Int[np.ndarray, "..."]:
        axes = [str(size) for size in lengths if size is not None]
        must = f"hold integers, in {len(lengths)} axes"
        must += f", of length {', '.join(axes)}" if axes else ""
        try:
            array = np.asarray(value)
        except Exception as error:
            raise InvalidArgument(describe(call, must, shown(value))) from error
        empty = array.size == 0 and array.ndim == len(lengths)
        fits = array.ndim == len(lengths) and all(
            wanted in (None, size) for size, wanted in zip(array.shape, lengths, strict=True)
        )
        if not fits or not (array.dtype.kind in "iu" or empty):
            got = f"{array.dtype} entries of shape {array.shape}"
            raise InvalidArgument(describe(call, must, got))
        _refuse_labels(call, axis_labels(value, array.ndim))
        return array.astype(np.int64)

    return convert


def path(call: str, value: Any) -> Path:
    """The path of a file or folder, of at least one character."""
    named = isinstance(value, str | os.PathLike)
    text = os.fspath(value) if named else ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidArgument(describe(call, 'be a path, as "results/here"', shown(value)))
    return Path(text)


def member(call: str, value: Any, count: int) -> int:
    """One of the numbers 0..count-1, as a Python int."""
    if not is_number(value, "iu") or not 0 <= value < count:
        raise OutsideSupport(describe(call, f"be in 0..{count - 1}", shown(value)))
    return int(value)


def arrays(call: str, value: Any) -> list[np.ndarray]:
    """A sequence of arrays of real numbers, each in float64."""
    rows = isinstance(value, np.ndarray | jax.Array) and value.ndim > 0
    if not rows and not isinstance(value, list | tuple):
        raise InvalidArgument(describe(call, "be a list of arrays", shown(value)))
    at = call.removesuffix("=...)")
    return [as_doubles(f"{at}[{i}]=...)", one) for i, one in enumerate(value)]


def function(count: int, example: str) -> Convert:
    """A function of so many arguments; `example` says which."""

    def convert(call: str, value: Any) -> Any:
        if not takes(value, count):
            raise InvalidArgument(describe(call, f"be a function {example}", shown(value)))
        return value

    return convert


def takes(function: Any, count: int) -> bool:
    """Whether this is a function of so many arguments, as far as it says; a class is none."""
    if not callable(function) or isinstance(function, type):
        return False
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        pass
    return True


def several(kind: Any, example: str) -> Convert:
    """A sequence of at least one instance of a kind, as a tuple; `example` says how one is made."""

    def convert(call: str, value: Any) -> tuple[Any, ...]:
        held = isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) > 0
        if not held or not all(isinstance(one, kind) for one in value):
            raise InvalidArgument(describe(call, f"be a sequence of {example}", shown(value)))
        return tuple(value)

    return convert


def key(call: str, value: Any) -> jax.Array:
    """One key of `jax.random`: `jax.random.key(0)`, or a raw one."""
    if isinstance(value, jax.Array | np.ndarray) and not isinstance(value, Tracer):
        if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            one = value.ndim == 0
        else:
            one = value.dtype == np.uint32 and value.ndim == 1 and len(value) in _RAW_KEYS
        if one:
            return jax.numpy.asarray(value)
    raise InvalidArgument(describe(call, "be one key, as jax.random.key(0)", shown(value)))


def key_words(call: str, value: Any) -> list[int]:
    """The numbers in a key of `jax.random`; also where the caller is traced."""
    with jax.ensure_compile_time_eval():
        return np.asarray(jax.random.key_data(key(call, value))).ravel().tolist()


def generator(call: str, value: Any) -> np.random.Generator:
    """NumPy's generator, seeded with a key of `jax.random`; also where the caller is traced."""
    return np.random.default_rng(key_words(call, value))


def distinct(
    call: str, names: Any, count: int | None, reserved: Iterable[str] = ()
) -> tuple[Any, ...]:
    """Names as given: strings that can be told apart, whatever their spaces and spelling.

    Two names are the same when their normal forms are: compatibility characters composed, marks
    that cannot be seen left out, blanks at the ends and repeated ones dropped.
    """
    of = f"{count} different names" if count is not None else "different names"
    do = "pass a list of strings"
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise InvalidArgument(describe(call, f"hold {of}", shown(names), do))
    try:
        given = tuple(str(x) if isinstance(x, np.str_) else x for x in names)
    except TypeError as error:  # arrays of no axis say so when they are read
        raise InvalidArgument(describe(call, f"hold {of}", shown(names), do)) from error
    if not all(isinstance(x, str) for x in given):
        raise InvalidArgument(describe(call, f"hold {of}, each a string", shown(given), do))
    seen: dict[str, str] = {}
    for name in given:
        plain = _normal(name)
        if not plain or plain in seen:
            got = "a blank one" if not plain else f"{seen[plain]!r} and {name!r}"
            must = f"hold {of}, one for each, that can be told apart"
            raise InvalidArgument(describe(call, must, got))
        seen[plain] = name
    if count is not None and len(given) != count:
        raise InvalidArgument(describe(call, f"hold {of}, one for each", shown(given)))
    if taken := sorted(set(reserved) & set(seen)):
        must = f"not be {', '.join(reserved)}, which mean something else"
        raise InvalidArgument(describe(call, must, taken))
    return given


def _normal(name: str) -> str:
    visible = (c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return " ".join("".join(visible).split())
