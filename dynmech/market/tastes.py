"""Tastes of the user: a prior on omega, held as weighted points.

The object is the common prior F_0 of the papers, a distribution on R^k, replaced by m weighted
points. A normal, lognormal or mixed-logit prior is discretised by quasi-random points of equal
weight, whose error falls nearly as 1/m, or by the centres of clusters of such points (k-means),
which need fewer points where k is small, keep the mean, and understate the spread.

**References**

Owen, "Scrambled net variance for integrals of smooth functions", Annals of Statistics 1997;
Train, "Discrete Choice Methods with Simulation", 2009, chapters 6 and 9; Arthur and
Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from dynmech.errors import InvalidArgument, describe, require_finite, require_probabilities
from dynmech.market.discretise import cluster, discretisation_error, normal_points
from dynmech.market.moments import SamplePrior, TransformedNormal

_REFERENCE_POINTS = 2**16
_REFERENCE_SEED = 1847
_METHODS = ("sobol", "clusters")
_KINDS = ("normal", "lognormal", "fixed")


class TasteGrid(eqx.Module):
    """Hold the prior F_0 on the user's taste omega as m weighted points in R^k.

    **Arguments**

    - `points`: (m, k), one taste a row; the utility of product i at point a is
      <gamma_i, points[a]>, in the money of theta.
    - `weights`: (m,), nonnegative, summing to one within 1e-9 (for float32, two machine
      epsilons).
    - `discretisation_error`: how far the points are from the prior they stand for; None where
      they are the prior. It is the largest error |E_grid f - E_prior f| over declared
      functionals, in standard deviations of the prior: the mean and the standard deviation of
      each coordinate, in its own standard deviation; and E max(0, <g, omega>), in the standard
      deviation of <g, omega>, for g along both signs of each axis and along 32 fixed directions
      spread over the sphere, after each coordinate is divided by its standard deviation
      (coordinates that do not vary are left out). Moments of the prior are closed forms, or
      those of the full sample; so is E max(0, <g, omega>), except where lognormals are mixed with
      others or their signs: there it is estimated on 2^16 quasi-random points that are no grid's,
      and three standard errors are added.

    Floating arrays keep their type (a float32 grid stays float32); all else becomes float64.
    Traced arrays are accepted; their values are not checked.

    **Raises**

    `InvalidArgument` (shape, type, no points), `NotFinite`, `InvalidProbability`.

    ```python
    >>> grid = TasteGrid([[0.0, 1.0], [2.0, 1.0]], [0.25, 0.75])
    >>> grid.size, grid.dimension, grid.mean.tolist()
    (2, 2, [1.5, 1.0])

    ```
    """

    points: Float[Array | np.ndarray, "m k"]
    weights: Float[Array | np.ndarray, " m"]
    discretisation_error: float | None = eqx.field(static=True)

    def __init__(
        self,
        points: npt.ArrayLike,
        weights: npt.ArrayLike,
        discretisation_error: float | None = None,
    ):
        self.points = _array("TasteGrid(points=...)", points, "m", "k")
        self.weights = _array("TasteGrid(weights=...)", weights, self.points.shape[0])
        self.discretisation_error = discretisation_error
        if isinstance(self.weights, np.ndarray):
            require_probabilities("TasteGrid(weights=...)", self.weights)
        if discretisation_error is not None and not 0 <= discretisation_error < np.inf:
            raise InvalidArgument(
                describe(
                    "TasteGrid(discretisation_error=...)",
                    "be finite and nonnegative, or None",
                    discretisation_error,
                )
            )

    @property
    def size(self) -> int:
        """Return m, the number of points."""
        return self.points.shape[0]

    @property
    def dimension(self) -> int:
        """Return k, the number of characteristics."""
        return self.points.shape[1]

    @property
    def mean(self) -> Float[Array | np.ndarray, " k"]:
        """Return E[omega], (k,)."""
        return self.weights @ self.points

    @property
    def cov(self) -> Float[Array | np.ndarray, "k k"]:
        """Return the covariance matrix of omega, (k, k)."""
        centred = self.points - self.mean
        return (centred * self.weights[:, None]).T @ centred

    @staticmethod
    def from_normal(
        mean: npt.ArrayLike,
        cov: npt.ArrayLike,
        size: int,
        method: str = "sobol",
        seed: int = 0,
    ) -> "TasteGrid":
        """Discretise omega ~ N(mean, cov).

        **Arguments**

        - `mean`: (k,). `cov`: (k, k), symmetric, positive semidefinite, possibly singular.
        - `size`: m >= 1, the number of points ("clusters": at most so many).
        - `method`: "sobol", scrambled Sobol points of equal weight (a power of two is best), or
          "clusters", the centres of 2^16 such points grouped by k-means.
        - `seed`: of the scramble and of the first centres; the same seed, the same grid.

        **Returns**

        A grid in float64 that reports its `discretisation_error`.

        **Raises**

        `InvalidArgument`, `NotFinite`.

        ```python
        >>> grid = TasteGrid.from_normal([1.0, 0.0], [[1.0, 0.5], [0.5, 1.0]], size=256)
        >>> grid.size, grid.discretisation_error < 0.02
        (256, True)

        ```
        """
        kinds = ("normal",) * int(np.size(mean))
        return _discretise("from_normal", mean, cov, kinds, None, size, method, seed)

    @staticmethod
    def from_lognormal(
        mean: npt.ArrayLike,
        cov: npt.ArrayLike,
        size: int,
        method: str = "sobol",
        seed: int = 0,
        *,
        normal_coordinates: Sequence[int] = (),
        signs: npt.ArrayLike | None = None,
    ) -> "TasteGrid":
        """Discretise omega with log omega ~ N(mean, cov).

        **Arguments**

        - `mean`, `cov`: of log omega, not of omega; shapes (k,) and (k, k).
        - `size`, `method`, `seed`: see `from_normal`.
        - `normal_coordinates`: indices in 0..k-1 of the coordinates that are normal themselves;
          there `mean` and `cov` are of omega.
        - `signs`: (k,) of 1 and -1; a coordinate of sign -1 is minus a lognormal (the weight of
          a price, say). Default all 1.

        **Returns**

        A grid in float64 that reports its `discretisation_error`.

        **Raises**

        `InvalidArgument`, `NotFinite` (also where a point overflows).
        """
        count = int(np.size(mean))
        wrong = [j for j in normal_coordinates if j not in range(count)]
        if wrong:
            raise InvalidArgument(
                describe(
                    "TasteGrid.from_lognormal(normal_coordinates=...)",
                    f"hold indices in 0..{count - 1}",
                    wrong[0],
                )
            )
        kinds = ["normal" if j in normal_coordinates else "lognormal" for j in range(count)]
        return _discretise("from_lognormal", mean, cov, kinds, signs, size, method, seed)

    @staticmethod
    def from_mixed_logit(
        mean: npt.ArrayLike,
        cov: npt.ArrayLike,
        kinds: Sequence[str],
        size: int,
        method: str = "sobol",
        seed: int = 0,
        *,
        signs: npt.ArrayLike | None = None,
    ) -> "TasteGrid":
        """Discretise the random coefficients of an estimated mixed logit.

        With z ~ N(mean, cov): omega_j = z_j if normal, signs_j exp(z_j) if lognormal, and
        mean_j if fixed.

        **Arguments**

        - `mean`, `cov`: of z; shapes (k,) and (k, k). Rows and columns of `cov` at fixed
          coordinates are zero.
        - `kinds`: k words, each "normal", "lognormal" or "fixed".
        - `size`, `method`, `seed`: see `from_normal`.
        - `signs`: (k,) of 1 and -1, the latter at lognormal coordinates only. Default all 1.

        **Returns**

        A grid in float64 that reports its `discretisation_error`; fixed coordinates are exact up to
        rounding.

        **Raises**

        `InvalidArgument`, `NotFinite` (also where a point overflows).
        """
        return _discretise("from_mixed_logit", mean, cov, kinds, signs, size, method, seed)

    @staticmethod
    def from_samples(
        samples: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        size: int | None = None,
        method: str = "clusters",
        seed: int = 0,
    ) -> "TasteGrid":
        """Take samples of omega as the prior, all of them or grouped into clusters.

        Clusters are those of weighted k-means, each coordinate divided by its standard
        deviation: centres are means of their clusters, so the mean of the sample is kept.

        **Arguments**

        - `samples`: (N, k). `weights`: (N,), nonnegative, not all zero, in any unit (they are
          divided by their sum); default equal.
        - `size`: the most points to keep; None keeps every sample, in order.
        - `method`: "clusters", the only one.
        - `seed`: of the first centres; the same seed, the same grid.

        **Returns**

        A grid in float64; its `discretisation_error` is measured against the full sample, and
        zero where all distinct samples are kept.

        **Raises**

        `InvalidArgument`, `NotFinite`, `InvalidProbability`.
        """
        call = "TasteGrid.from_samples"
        _require_choice(f"{call}(method=...)", method, ("clusters",))
        points = np.asarray(_array(f"{call}(samples=...)", samples, "N", "k"), np.float64)
        shares = np.ones(len(points))
        if weights is not None:
            shares = np.asarray(_array(f"{call}(weights=...)", weights, len(points)), np.float64)
        if shares.sum() <= 0:
            raise InvalidArgument(
                describe(f"{call}(weights=...)", "have a positive sum", f"a sum of {shares.sum()}")
            )
        shares = shares / shares.sum()
        require_probabilities(f"{call}(weights=...)", shares)
        if size is None:
            return TasteGrid(points, shares, 0.0)
        _require_size(f"{call}(size=...)", size)
        distinct, inverse = np.unique(points, axis=0, return_inverse=True)
        merged = np.bincount(inverse.ravel(), shares, len(distinct))
        if len(distinct) <= size:
            return TasteGrid(distinct, merged, 0.0)
        centres, masses = cluster(distinct, merged, size, seed)
        error = discretisation_error(centres, masses, SamplePrior(points, shares))
        return TasteGrid(centres, masses, error)


def _discretise(
    verb: str,
    mean: npt.ArrayLike,
    cov: npt.ArrayLike,
    kinds: Sequence[str],
    signs: npt.ArrayLike | None,
    size: int,
    method: str,
    seed: int,
) -> TasteGrid:
    """Discretise a transformed normal; the arguments are those of `from_mixed_logit`."""
    call = f"TasteGrid.{verb}"
    _require_size(f"{call}(size=...)", size)
    _require_choice(f"{call}(method=...)", method, _METHODS)
    centre = np.asarray(_array(f"{call}(mean=...)", mean, "k"), np.float64)
    dimension = len(centre)
    if len(kinds) != dimension:
        raise InvalidArgument(
            describe(f"{call}(kinds=...)", f"hold k = {dimension} words", len(kinds))
        )
    for kind in kinds:
        _require_choice(f"{call}(kinds=...)", kind, _KINDS)
    kind_of = np.array(kinds)
    turns = np.ones(dimension)
    if signs is not None:
        turns = np.asarray(_array(f"{call}(signs=...)", signs, dimension), np.float64)
    if not np.isin(turns, [1, -1]).all() or (turns[kind_of != "lognormal"] < 0).any():
        must = "hold 1, or at lognormal coordinates -1"
        raise InvalidArgument(describe(f"{call}(signs=...)", must, turns.tolist()))
    matrix = np.asarray(_array(f"{call}(cov=...)", cov, dimension, dimension), np.float64)
    factor = _factor(f"{call}(cov=...)", matrix, kind_of == "fixed")

    prior = TransformedNormal(centre, factor, kind_of == "lognormal", turns)

    def taste(count: int, draw: int) -> np.ndarray:
        return prior.taste(normal_points(count, factor.shape[1], draw))

    require_finite(f"{call}(mean=..., cov=...)", np.concatenate([prior.mean, prior.spread]))
    if method == "sobol":
        points, weights = taste(size, seed), np.full(size, 1 / size)
    else:
        sample = taste(max(_REFERENCE_POINTS, 4 * size), _REFERENCE_SEED)
        require_finite(f"{call}(mean=..., cov=...)", sample)
        points, weights = cluster(sample, np.full(len(sample), 1 / len(sample)), size, seed)
    require_finite(f"{call}(mean=..., cov=...)", points)
    return TasteGrid(points, weights, discretisation_error(points, weights, prior))


def _factor(
    call: str, matrix: Float[np.ndarray, "k k"], fixed: Bool[np.ndarray, " k"]
) -> Float[np.ndarray, "k r"]:
    """Check a covariance matrix and return A with A A' = cov, one column a random coordinate."""
    largest = np.abs(matrix).max()
    if (np.abs(matrix - matrix.T) > 1e-9 * largest).any():
        raise InvalidArgument(describe(call, "be symmetric", matrix.tolist()))
    if matrix[fixed].any():
        must = "be zero in the rows and columns of fixed coordinates"
        raise InvalidArgument(describe(call, must, matrix.tolist()))
    free = np.flatnonzero(~fixed)
    factor = np.zeros((len(fixed), len(free)))
    inner = matrix[np.ix_(free, free)]
    try:
        factor[free] = np.linalg.cholesky(inner)
    except np.linalg.LinAlgError:  # singular, which is allowed, or indefinite, which is not
        values, vectors = np.linalg.eigh(inner)
        if values[0] < -1e-9 * largest:
            must = "be positive semidefinite"
            raise InvalidArgument(
                describe(call, must, f"an eigenvalue of {values[0]:.6g}")
            ) from None
        factor[free] = vectors * np.sqrt(np.maximum(values, 0))
    return factor


def _array(call: str, values: npt.ArrayLike, *shape: int | str) -> Array | np.ndarray:
    """Return a finite floating array of this shape, where letters stand for any length >= 1.

    The array is NumPy's unless `values` is traced; traced values are not checked.
    """
    array = values if isinstance(values, Tracer) else _floating(call, values)
    fits = len(array.shape) == len(shape) and all(
        found >= 1 if isinstance(wanted, str) else found == wanted
        for found, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        letters = [axis for axis in shape if isinstance(axis, str)]
        least = f" with {', '.join(letters)} >= 1" if letters else ""
        raise InvalidArgument(describe(call, f"have shape ({wanted}){least}", array.shape))
    if isinstance(array, np.ndarray):
        require_finite(call, array)
    return array


def _floating(call: str, values: npt.ArrayLike) -> np.ndarray:
    """Return `values` as a NumPy array, in float64 unless they are floating already."""
    try:
        array = np.asarray(values)
        if np.iscomplexobj(array):
            raise TypeError("complex numbers have no order")
        return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            describe(call, "be an array of real numbers", repr(values)[:80])
        ) from error


def _require_size(call: str, size: int) -> None:
    """Raise unless `size` is a positive integer."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InvalidArgument(describe(call, "be an integer of at least 1", size))


def _require_choice(call: str, word: str, choices: tuple[str, ...]) -> None:
    """Raise unless `word` is one of `choices`."""
    if word not in choices:
        wanted = " or ".join(repr(choice) for choice in choices)
        raise InvalidArgument(describe(call, f"be {wanted}", repr(word)))
