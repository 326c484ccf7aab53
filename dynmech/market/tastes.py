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
from jaxtyping import Array, Bool, Float

from dynmech._checks import (
    Labels,
    chances,
    check_fields,
    choice,
    distinct,
    in_order,
    indices,
    labelled,
    matched,
    number,
    optional,
    shaped,
    whole,
)
from dynmech._types import Record
from dynmech.errors import InvalidArgument, describe, require_finite
from dynmech.market.discretise import cluster, discretisation_error, normal_points
from dynmech.market.moments import SamplePrior, TransformedNormal

_REFERENCE_POINTS = 2**16
_REFERENCE_SEED = 1847
_METHODS = ("sobol", "clusters")
_KINDS = ("normal", "lognormal", "fixed")
_SIZE = whole(1, 2**22)


class TasteGrid(Record):
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
    - `characteristics`: k names of the columns; those of `points` where it is labelled. A market
      matches them with the columns of its `gamma`.

    Floating arrays keep their type (a float32 grid stays float32); all else becomes float64.
    Labelled weights are matched with labelled points. Traced arrays are accepted; their values
    are not checked.

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
    characteristics: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        points: npt.ArrayLike,
        weights: npt.ArrayLike,
        discretisation_error: float | None = None,
        characteristics: Sequence[str] | None = None,
    ):
        call = "TasteGrid({}=...)".format
        array, labels = labelled(call("points"), points)
        self.points = shaped("m", "k")(call("points"), array)
        m, k = self.points.shape
        if characteristics is None:
            self.characteristics = labels[1]
        else:
            self.characteristics = distinct(call("characteristics"), characteristics, k)
            self.points = in_order(
                call("points"), self.points, 1, labels[1], self.characteristics, "characteristics"
            )
        weights = matched(call("weights"), weights, points=labels[0])
        self.weights = chances(call("weights"), shaped(m)(call("weights"), weights), keep=True)
        self.discretisation_error = discretisation_error
        check_fields(self, discretisation_error=optional(number(least=0)))

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

    def in_order(self, characteristics: Labels) -> "TasteGrid":
        """The same grid with its columns in this order; their names, where it has none.

        **Raises:** `InvalidArgument`, listing both, where they are not the same names.
        """
        if characteristics is None or self.characteristics == characteristics:
            return self
        points = in_order(
            "RecommendationMDP(tastes=...)", self.points, 1, self.characteristics,
            characteristics, "columns of gamma",
        )  # fmt: skip
        return TasteGrid(points, self.weights, self.discretisation_error, characteristics)

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
        kinds = ("normal",) * _count(mean)
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
        call, count = "TasteGrid.from_lognormal(normal_coordinates=...)", _count(mean)
        normal = indices(None)(call, normal_coordinates)
        wrong = normal[(normal < 0) | (normal >= count)]
        if wrong.size:
            raise InvalidArgument(describe(call, f"hold indices in 0..{count - 1}", wrong[0]))
        kinds = ["normal" if j in normal else "lognormal" for j in range(count)]
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
        choice("clusters")(f"{call}(method=...)", method)
        size = optional(_SIZE)(f"{call}(size=...)", size)
        seed = whole(0)(f"{call}(seed=...)", seed)
        array, labels = labelled(f"{call}(samples=...)", samples)
        points = np.asarray(shaped("N", "k")(f"{call}(samples=...)", array), np.float64)
        shares = np.ones(len(points))
        if weights is not None:
            weights = matched(f"{call}(weights=...)", weights, samples=labels[0])
            shares = shaped(len(points))(f"{call}(weights=...)", weights)
            shares = np.asarray(shares, np.float64)
        if shares.sum() <= 0:
            raise InvalidArgument(
                describe(f"{call}(weights=...)", "have a positive sum", f"a sum of {shares.sum()}")
            )
        shares, names = chances(f"{call}(weights=...)", shares / shares.sum()), labels[1]
        if size is None:
            return TasteGrid(points, shares, 0.0, names)
        distinct, inverse = np.unique(points, axis=0, return_inverse=True)
        merged = np.bincount(inverse.ravel(), shares, len(distinct))
        if len(distinct) <= size:
            return TasteGrid(distinct, merged, 0.0, names)
        centres, masses = cluster(distinct, merged, size, seed)
        error = discretisation_error(centres, masses, SamplePrior(points, np.asarray(shares)))
        return TasteGrid(centres, masses, error, names)


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
    size = _SIZE(f"{call}(size=...)", size)
    seed = whole(0)(f"{call}(seed=...)", seed)
    choice(*_METHODS)(f"{call}(method=...)", method)
    array, labels = labelled(f"{call}(mean=...)", mean)
    centre = np.asarray(shaped("k")(f"{call}(mean=...)", array), np.float64)
    (names,) = labels
    dimension = len(centre)
    kinds = list(kinds) if isinstance(kinds, Sequence | np.ndarray) else [kinds]
    if len(kinds) != dimension:
        raise InvalidArgument(
            describe(f"{call}(kinds=...)", f"hold k = {dimension} words", len(kinds))
        )
    for kind in kinds:
        choice(*_KINDS)(f"{call}(kinds=...)", kind)
    kind_of = np.array(kinds)
    turns = np.ones(dimension)
    if signs is not None:
        given = matched(f"{call}(signs=...)", signs, characteristics=names)
        turns = np.asarray(shaped(dimension)(f"{call}(signs=...)", given), np.float64)
    if not np.isin(turns, [1, -1]).all() or (turns[kind_of != "lognormal"] < 0).any():
        must = "hold 1, or at lognormal coordinates -1"
        raise InvalidArgument(describe(f"{call}(signs=...)", must, turns.tolist()))
    given = matched(f"{call}(cov=...)", cov, characteristics=names, columns=names)
    matrix = np.asarray(shaped(dimension, dimension)(f"{call}(cov=...)", given), np.float64)
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
    return TasteGrid(points, weights, discretisation_error(points, weights, prior), names)


def _count(mean: npt.ArrayLike) -> int:
    """Number of coordinates of a mean, which is checked later."""
    return int(labelled("TasteGrid(mean=...)", mean)[0].size)


def _factor(
    call: str, matrix: Float[np.ndarray, "k k"], fixed: Bool[np.ndarray, " k"]
) -> Float[np.ndarray, "k r"]:
    """A with A A' = cov, one column a random coordinate; cov is checked, each in its own unit."""
    largest, variance = np.abs(matrix).max(initial=0.0), np.diag(matrix)
    unit = np.sqrt(np.where(variance > 0, variance, largest if largest > 0 else 1.0))
    scaled = matrix / unit[:, None] / unit
    if (np.abs(scaled - scaled.T) > 1e-9).any():
        raise InvalidArgument(describe(call, "be symmetric", matrix.tolist()))
    if matrix[fixed].any():
        must = "be zero in the rows and columns of fixed coordinates"
        raise InvalidArgument(describe(call, must, matrix.tolist()))
    free = np.flatnonzero(~fixed)
    factor = np.zeros((len(fixed), len(free)))
    at = np.ix_(free, free)
    try:
        factor[free] = np.linalg.cholesky(matrix[at])
    except np.linalg.LinAlgError:  # singular, which is allowed, or indefinite, which is not
        values, vectors = np.linalg.eigh(scaled[at])
        if values[0] < -1e-9:
            must = "be positive semidefinite"
            raise InvalidArgument(
                describe(call, must, f"an eigenvalue of {values[0]:.6g} in units of deviations")
            ) from None
        varies = np.where(variance > 0, unit, 0.0)[free, None]
        factor[free] = varies * vectors * np.sqrt(np.maximum(values, 0))
    return factor
