"""What advertisers earn from a purchase: constant values, or Markov values.

theta_it is advertiser i's value, in money, if her product is bought in period t (paper C,
section 3.1). Values are independent of the taste and of all signals; the prior of the first
period's values may be correlated across advertisers.
"""

import itertools

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._types import as_floats
from dynmech.errors import (
    InvalidArgument,
    OutsideSupport,
    describe,
    require_finite,
    require_probabilities,
)


def _support(verb: str, support) -> np.ndarray:
    array = np.asarray(as_floats(support))
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise InvalidArgument(
            describe(
                f"{verb}(support=...)", "have shape (n,) or (n, K) with n, K >= 1", array.shape
            )
        )
    require_finite(f"{verb}(support=...)", array)
    return array


def _prior(verb: str, prior, support: np.ndarray) -> tuple[np.ndarray, bool]:
    """Validate a prior; the flag tells a joint one from one of independent values."""
    n, size = support.shape
    if prior is None:
        return np.full((n, size), 1 / size), False
    call = f"{verb}(prior=...)"
    array = np.asarray(as_floats(prior))
    if n == 1 and array.shape == (size,):
        array = array[None]
    require_finite(call, array)
    rows = array.shape == (n, size)
    joint = array.shape == (size,) * n
    if rows and joint:
        joint = not np.allclose(array.sum(-1), 1) and np.isclose(array.sum(), 1)
    elif not rows and not joint:
        must = f"have shape (n, K) = {(n, size)}, or {(size,) * n} if values are correlated"
        raise InvalidArgument(describe(call, must, array.shape))
    require_probabilities(call, array, axis=tuple(range(n)) if joint else -1)
    return array, bool(joint)


def _interval(interval, support: np.ndarray) -> np.ndarray:
    call, n = "ConstantValues(interval=...)", len(support)
    array = np.asarray(as_floats(interval, call))
    if array.shape not in ((2,), (n, 2)):
        must = f"have shape (2,) or (n, 2) = ({n}, 2): lowest and highest report"
        raise InvalidArgument(describe(call, must, f"shape {array.shape}"))
    require_finite(call, array)
    array = np.broadcast_to(array, (n, 2)).copy()
    out = (support.min(axis=1) < array[:, 0]) | (support.max(axis=1) > array[:, 1])
    if out.any():
        i = int(np.flatnonzero(out)[0])
        must, got = "hold every value of the support", f"{array[i]} for {support[i]} (row {i})"
        raise OutsideSupport(describe(call, must, got, "widen it"))
    return array


class ConstantValues(eqx.Module):
    """Values drawn once and constant during the conversation (identity kernel).

    **Arguments**

    - `support`: shape (n, K) or (n,), money; the values each advertiser may have.
    - `prior`: shape (n, K), rows summing to 1 (independent values), or (K,)*n summing to 1
      (correlated values). Uniform by default.
    - `interval`: None, or shape (n, 2) or (2,), money: the values each advertiser may *report*,
      lowest and highest, which hold her support. True values are those of the support; audits
      then search every report of the interval, exactly.

    **Raises:** `InvalidArgument`, `InvalidProbability`, `NotFinite`, `OutsideSupport`.
    """

    support: Float[np.ndarray, "n K"]
    prior: np.ndarray
    correlated: bool = eqx.field(static=True)
    interval: Float[np.ndarray, "n 2"] | None = None

    def __init__(self, support, prior=None, interval=None):
        self.support = _support("ConstantValues", support)
        self.prior, self.correlated = _prior("ConstantValues", prior, self.support)
        self.interval = None if interval is None else _interval(interval, self.support)


class MarkovValues(eqx.Module):
    """Values that move between rounds by a kernel G_i(theta' | r, theta), paper C, section 3.1.

    **Arguments**

    - `support`, `prior`: as in `ConstantValues`; `prior` is the law in period 1.
    - `kernel`: shape (n, K, K), or (n+1, n, K, K) where the first axis is the recommendation
      just made (n for none); rows sum to 1.
    - `interval`: refused; the kernel says what follows only for values of the support.

    **Raises:** `InvalidArgument`, `InvalidProbability`, `NotFinite`.
    """

    support: Float[np.ndarray, "n K"]
    prior: np.ndarray
    correlated: bool = eqx.field(static=True)
    kernel: Float[np.ndarray, "n1 n K K"]

    def __init__(self, support, prior, kernel, interval=None):
        if interval is not None:
            must = "be left out: the kernel says what follows values of the support only"
            do = "use ConstantValues(support, prior, interval), or a finer support"
            raise InvalidArgument(describe("MarkovValues(interval=...)", must, interval, do))
        self.support = _support("MarkovValues", support)
        self.prior, self.correlated = _prior("MarkovValues", prior, self.support)
        n, size = self.support.shape
        array = np.asarray(as_floats(kernel))
        if array.shape == (n, size, size):
            array = np.broadcast_to(array, (n + 1, n, size, size)).copy()
        if array.shape != (n + 1, n, size, size):
            raise InvalidArgument(
                describe(
                    "MarkovValues(kernel=...)",
                    f"have shape (n+1, n, K, K) = {(n + 1, n, size, size)} or (n, K, K)",
                    array.shape,
                )
            )
        require_probabilities("MarkovValues(kernel=...)", array)
        self.kernel = array


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
    """Law of the next value profile after each recommendation, shape (n+1, K**n, K**n)."""
    n = values.support.shape[0]
    joint = np.ones((n + 1, 1, 1))
    for i in range(n):
        joint = np.einsum("apq,axy->apxqy", joint, values.kernel[:, i])
        joint = joint.reshape(n + 1, joint.shape[1] * joint.shape[2], -1)
    return joint
