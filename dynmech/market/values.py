"""What advertisers earn from a purchase: constant values, or Markov values.

theta_it is advertiser i's value, in money, if her product is bought in period t (paper C,
section 3.1). Values are independent of the taste and of all signals; the prior of the first
period's values may be correlated across advertisers.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._checks import Labels, chances, distinct, in_order, labelled, matched, shaped
from dynmech._types import Given, Record
from dynmech.errors import InvalidArgument, OutsideSupport, describe, require_finite


def check_theta(names: tuple[Any, ...], support: Any, prior: Any) -> None:
    """Refuse the two tables (n, K) of `from_tables` by their names there, labels included."""
    call = "from_tables(theta_support=...)"
    array, labels = labelled(call, support)
    shaped(len(names), "K")(call, array)
    levels = labels[1]
    in_order(call, array, 0, labels[0], names, "products")
    call = "from_tables(theta_prior=...)"
    array, labels = labelled(call, prior)
    chances(call, array)
    if array.ndim == 2:
        in_order(call, array, 0, labels[0], names, "products")
        in_order(call, array, 1, labels[1], levels, "columns of theta_support")


def _support(
    verb: str, support: Given, names: Sequence[str] | None
) -> tuple[np.ndarray, Labels, Labels]:
    """The support as (n, K), the names of its rows, given or its own, and labels of its columns."""
    call = f"{verb}(support=...)"
    array, labels = labelled(call, support)
    array = np.asarray(array)
    if array.ndim == 1:
        array, labels = array[:, None], (labels[0], None)
    if array.ndim != 2 or array.size == 0:
        must = "have shape (n,) or (n, K) with n, K >= 1"
        raise InvalidArgument(describe(call, must, array.shape))
    require_finite(call, array)
    if names is None:
        return array, labels[0], labels[1]
    names = distinct(f"{verb}(names=...)", names, len(array))
    return in_order(call, array, 0, labels[0], names, "names"), names, labels[1]


def _prior(verb: str, prior: Given | None, support: np.ndarray, names: Labels, columns: Labels):
    """Validate a prior; the flag tells a joint one from one of independent values."""
    n, size = support.shape
    if prior is None:
        return np.full((n, size), 1 / size), False
    call = f"{verb}(prior=...)"
    array, labels = labelled(call, prior)
    array = np.asarray(array)
    if n == 1 and array.shape == (size,):
        array, labels = array[None], (None, *labels)
    require_finite(call, array)
    rows = array.shape == (n, size)
    joint = array.shape == (size,) * n
    if rows and joint:
        joint = not np.allclose(array.sum(-1), 1) and np.isclose(array.sum(), 1)
    elif not rows and not joint:
        must = f"have shape (n, K) = {(n, size)}, or {(size,) * n} if values are correlated"
        raise InvalidArgument(describe(call, must, array.shape))
    for axis, given in enumerate(labels):
        if joint or axis == 1:
            array = in_order(call, array, axis, given, columns, "columns of the support")
        else:
            array = in_order(call, array, axis, given, names, "rows of the support")
    law = chances(call, array, axis=tuple(range(n)) if joint else -1)
    return np.asarray(law), bool(joint)


def _interval(interval: Given, support: np.ndarray, names: Labels) -> np.ndarray:
    call, n = "ConstantValues(interval=...)", len(support)
    array, labels = labelled(call, interval)
    array = np.asarray(array)
    if array.shape not in ((2,), (n, 2)):
        must = f"have shape (2,) or (n, 2) = ({n}, 2): lowest and highest report"
        raise InvalidArgument(describe(call, must, f"shape {array.shape}"))
    require_finite(call, array)
    if array.ndim == 2:
        array = in_order(call, array, 0, labels[0], names, "rows of the support")
    array = in_order(call, array, array.ndim - 1, labels[-1], ("low", "high"), "ends")
    array = np.broadcast_to(array, (n, 2)).copy()
    out = (support.min(axis=1) < array[:, 0]) | (support.max(axis=1) > array[:, 1])
    if out.any():
        i = int(np.flatnonzero(out)[0])
        must, got = "hold every value of the support", f"{array[i]} for {support[i]} (row {i})"
        raise OutsideSupport(describe(call, must, got, "widen it"))
    return array


def _rows(values: "Values", names: tuple[str, ...]) -> list[int]:
    """Which rows of labelled values are those of these products, in their order."""
    rows = np.arange(len(names))
    call, own = "RecommendationMDP(values=...)", values.names
    return in_order(call, rows, 0, own, names, "products").tolist()


class ConstantValues(Record):
    """Values drawn once and constant during the conversation (identity kernel).

    **Arguments**

    - `support`: shape (n, K) or (n,), money; the values each advertiser may have.
    - `prior`: shape (n, K), rows summing to 1 (independent values), or (K,)*n summing to 1
      (correlated values). Uniform by default.
    - `interval`: None, or shape (n, 2) or (2,), money: the values each advertiser may *report*,
      lowest and highest ("low", "high" where labelled), which hold her support. True values are
      those of the support; audits then search every report of the interval, exactly.
    - `names`: of the products, in the order of the rows; the labels of `support` where it has
      any. A market matches them with its own; labels of the other arguments match these.

    **Raises:** `InvalidArgument`, `InvalidProbability`, `NotFinite`, `OutsideSupport`.
    """

    support: Float[np.ndarray, "n K"]
    prior: np.ndarray
    correlated: bool = eqx.field(static=True, init=False)
    interval: Float[np.ndarray, "n 2"] | None
    names: tuple[Any, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        support: Given,
        prior: Given | None = None,
        interval: Given | None = None,
        names: Sequence[str] | None = None,
    ):
        self.support, self.names, columns = _support("ConstantValues", support, names)
        given = "ConstantValues", prior, self.support, self.names, columns
        self.prior, self.correlated = _prior(*given)
        self.interval = None if interval is None else _interval(interval, self.support, self.names)

    def in_order(self, names: tuple[str, ...]) -> "ConstantValues":
        """The same values, their rows in the order of these products.

        **Raises:** `InvalidArgument`, listing both, where they are not the same names.
        """
        if self.names is None or self.names == names:
            return self
        rows = _rows(self, names)
        prior = self.prior.transpose(rows) if self.correlated else self.prior[rows]
        interval = None if self.interval is None else self.interval[rows]
        return ConstantValues(self.support[rows], prior, interval, names)


class MarkovValues(Record):
    """Values that move between rounds by a kernel G_i(theta' | r, theta), paper C, section 3.1.

    **Arguments**

    - `support`, `prior`, `names`: as in `ConstantValues`; `prior` is the law in period 1.
    - `kernel`: shape (n, K, K), or (C, n, K, K) where the first axis is the control just used:
      the recommendation, n for none, or a row of `env.controls`; rows sum to 1.
    - `interval`: refused; the kernel says what follows only for values of the support.

    **Raises:** `InvalidArgument`, `InvalidProbability`, `NotFinite`.
    """

    support: Float[np.ndarray, "n K"]
    prior: np.ndarray
    correlated: bool = eqx.field(static=True, init=False)
    kernel: Float[np.ndarray, "C n K K"]
    names: tuple[Any, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        support: Given,
        prior: Given | None,
        kernel: Given,
        interval: Given | None = None,
        names: Sequence[str] | None = None,
    ):
        if interval is not None:
            must = "be left out: the kernel says what follows values of the support only"
            do = "use ConstantValues(support, prior, interval), or a finer support"
            raise InvalidArgument(describe("MarkovValues(interval=...)", must, interval, do))
        self.support, self.names, columns = _support("MarkovValues", support, names)
        given = "MarkovValues", prior, self.support, self.names, columns
        self.prior, self.correlated = _prior(*given)
        n, size = self.support.shape
        call = "MarkovValues(kernel=...)"
        axes = {"products": self.names, "support": columns, "columns": columns}
        array = np.asarray(matched(call, kernel, **axes))
        if array.shape == (n, size, size):
            array = np.broadcast_to(array, (n + 1, n, size, size)).copy()
        if array.ndim != 4 or array.shape[1:] != (n, size, size) or not len(array):
            must = f"have shape (n+1, n, K, K) = {(n + 1, n, size, size)} or (n, K, K)"
            raise InvalidArgument(describe(call, must, array.shape))
        self.kernel = np.asarray(chances(call, array))

    def in_order(self, names: tuple[str, ...]) -> "MarkovValues":
        """The same values, their rows in the order of these products, as `ConstantValues`'."""
        if self.names is None or self.names == names:
            return self
        rows = _rows(self, names)
        prior = self.prior.transpose(rows) if self.correlated else self.prior[rows]
        kernel = self.by_control(len(rows) + 1).kernel[[*rows, len(rows)]][:, rows]
        return MarkovValues(self.support[rows], prior, kernel, names=names)

    def by_control(self, count: int) -> "MarkovValues":
        """The same values with a kernel for each of so many controls.

        **Raises:** `InvalidArgument` where it says something else for other controls.
        """
        if len(self.kernel) == count:
            return self
        wrong = len(self.kernel) != len(self.support) + 1  # what (n, K, K) was laid out to
        if wrong or (self.kernel != self.kernel[:1]).any():
            must = f"have a first axis of the {count} controls, as in env.controls"
            do = "or pass (n, K, K), the same whatever was shown"
            raise InvalidArgument(describe("MarkovValues(kernel=...)", must, self.kernel.shape, do))
        kernel = np.broadcast_to(self.kernel[:1], (count, *self.kernel.shape[1:])).copy()
        return MarkovValues(self.support, self.prior, kernel, names=self.names)


Values = ConstantValues | MarkovValues


def reportable(values: Values) -> Float[np.ndarray, "n _V"]:
    """Values of the support, and the ends of the interval of reports where one is declared."""
    if isinstance(values, ConstantValues) and values.interval is not None:
        return np.concatenate([values.support, values.interval], axis=1)
    return values.support


def prior_probability(values: Values, index: np.ndarray) -> np.ndarray:
    """Prior probability of value profiles, given as indices into the support, shape (..., n)."""
    if values.correlated:
        return values.prior[tuple(np.moveaxis(index, -1, 0))]
    return np.prod(values.prior[np.arange(index.shape[-1]), index], axis=-1)


def profile_grid(n: int, size: int) -> np.ndarray:
    """All value profiles as indices, shape (K**n, n), last advertiser fastest."""
    return np.array(list(itertools.product(range(size), repeat=n)), np.int64).reshape(-1, n)


def joint_kernel(values: MarkovValues) -> Float[np.ndarray, "A V V"]:
    """Law of the next value profile after each control, shape (C, K**n, K**n)."""
    n, count = values.support.shape[0], len(values.kernel)
    joint = np.ones((count, 1, 1))
    for i in range(n):
        joint = np.einsum("apq,axy->apxqy", joint, values.kernel[:, i])
        joint = joint.reshape(count, joint.shape[1] * joint.shape[2], -1)
    return joint
