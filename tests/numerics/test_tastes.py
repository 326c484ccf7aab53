"""Discretised tastes: moments in closed form, the reported error, and every bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad_vec
from scipy.stats import norm

from dynmech import TasteGrid
from dynmech.errors import InvalidArgument, InvalidProbability, NotFinite

MEAN = np.array([1.0, -0.5, 0.2])
COV = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.1], [0.0, -0.1, 2.0]])
# The reported error is against closed forms: nothing but rounding may be missing from it.
REFERENCE = 1e-9


def standard_errors(grid, mean, cov):
    """Errors of mean and standard deviation, in standard deviations."""
    spread = np.sqrt(np.diag(cov))
    return np.abs(grid.mean - mean) / spread, np.abs(np.sqrt(np.diag(grid.cov)) / spread - 1)


@pytest.mark.parametrize("method", ["sobol", "clusters"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_reported_error_bounds_the_moments_of_a_normal(size, method):
    grid = TasteGrid.from_normal(MEAN, COV, size, method)
    assert grid.size == size
    for errors in standard_errors(grid, MEAN, COV):
        assert (errors <= grid.discretisation_error + REFERENCE).all()


def test_reported_error_bounds_the_moments_of_a_lognormal():
    scale = 0.3 * COV
    grid = TasteGrid.from_lognormal(MEAN, scale, 64)
    expected = np.exp(MEAN + np.diag(scale) / 2)
    cov = np.outer(expected, expected) * (np.exp(scale) - 1)
    for errors in standard_errors(grid, expected, cov):
        assert (errors <= grid.discretisation_error + REFERENCE).all()


@pytest.mark.parametrize("method", ["sobol", "clusters"])
@pytest.mark.parametrize("variance", [0.25, 4.0, 9.0])
def test_reported_error_of_a_heavy_tail(variance, method):
    """No sample that a grid is fitted to knows the tail: the error is that against closed forms."""
    grid = TasteGrid.from_lognormal([0.0], [[variance]], 64, method)
    mean = np.exp(variance / 2)
    cov = [[np.expm1(variance) * mean**2]]
    for errors in standard_errors(grid, [mean], cov):
        assert (errors <= grid.discretisation_error + REFERENCE).all()
    assert grid.discretisation_error < 1


def test_reported_error_of_mixed_kinds_against_a_sample_of_its_own():
    centre, kinds, signs = [0.3, -0.2, 0.1], ("normal", "lognormal", "lognormal"), [1, 1, -1]
    grid = TasteGrid.from_mixed_logit(centre, COV, kinds, 64, seed=1847, signs=signs)
    z = np.random.default_rng(7).multivariate_normal(centre, COV, 400_000)
    sample = np.stack([z[:, 0], np.exp(z[:, 1]), -np.exp(z[:, 2])], axis=1)
    variance = np.diag(COV)
    lognormal = np.exp(np.array(centre) + variance / 2)
    spread = np.where(np.array(kinds) == "normal", 1, lognormal * np.sqrt(np.expm1(variance)))
    for direction in np.concatenate([np.eye(3), -np.eye(3)]) / spread:
        scale = np.abs(direction[direction != 0]).sum() * spread[direction != 0].sum()
        found = grid.weights @ np.maximum(grid.points @ direction, 0)
        part = np.maximum(sample @ direction, 0)
        slack = 4 * part.std() / np.sqrt(len(part))
        assert abs(found - part.mean()) / scale <= grid.discretisation_error + slack


@pytest.mark.parametrize(
    ("kinds", "variance", "method"),
    [(("normal",), 9.0, "sobol"), (("lognormal",), 6.0, "clusters")],
)
def test_reported_error_of_a_heavy_tail_beside_another_by_quadrature(kinds, variance, method):
    """E max(0, g) of two coordinates, one minus a lognormal: the inner one in closed form."""
    cov = variance * np.array([[1.0, -0.7], [-0.7, 1.0]])
    grid = TasteGrid.from_mixed_logit([0.3, -0.2], cov, (*kinds, "lognormal"), 16, method,
                                      signs=[1, -1])  # fmt: skip
    level = np.exp([0.3 + variance / 2, -0.2 + variance / 2])
    spread = level * np.sqrt(np.expm1(variance))
    spread[0] = spread[0] if kinds == ("lognormal",) else np.sqrt(variance)
    left = np.sqrt(0.51 * variance)  # of the second's logarithm, given the first
    for first, second in ((1.0, 1.0), (0.3, 2.0), (2.0, 0.3)):

        def part(z, g=first / spread[0], h=second / spread[1]):
            x = 0.3 + np.sqrt(variance) * z
            c = g * (np.exp(x) if kinds == ("lognormal",) else x)
            mean = -0.2 - 0.7 * np.sqrt(variance) * z
            with np.errstate(divide="ignore", invalid="ignore"):
                d = (np.log(np.maximum(c, 0) / h) - mean) / left
            whole = c * norm.cdf(d) - h * np.exp(mean + left**2 / 2) * norm.cdf(d - left)
            return np.where(c > 0, whole, 0.0) * norm.pdf(z)

        right = quad_vec(part, -25, 25, epsabs=1e-11, limit=2000)[0]
        direction = np.array([first, second]) / spread
        found = grid.weights @ np.maximum(grid.points @ direction, 0)
        # the scale of a direction is at most that of its parts together
        assert abs(found - right) / (first + second) <= grid.discretisation_error


def test_many_points_reach_the_closed_forms():
    grid = TasteGrid.from_normal(MEAN, COV, 2**14)
    np.testing.assert_allclose(grid.mean, MEAN, atol=2e-3)
    np.testing.assert_allclose(grid.cov, COV, atol=1e-2)


def test_expected_positive_part_of_a_normal():
    # E max(0, X) = mu Phi(mu / s) + s phi(mu / s) for X ~ N(mu, s^2), along directions that are
    # none of those the error is declared for.
    grid = TasteGrid.from_normal(MEAN, COV, 2**12)
    for direction in np.random.default_rng(0).normal(size=(20, 3)):
        mu, s = direction @ MEAN, np.sqrt(direction @ COV @ direction)
        expected = mu * norm.cdf(mu / s) + s * norm.pdf(mu / s)
        found = grid.weights @ np.maximum(grid.points @ direction, 0)
        assert abs(found - expected) / s < 5e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_sobol_points_hit_every_quantile(seed):
    # In one dimension a scrambled net has exactly one point in each of its 2^d cells.
    size = 256
    grid = TasteGrid.from_normal([2.0], [[9.0]], size, seed=seed)
    cells = norm.cdf(np.sort(grid.points[:, 0]), 2.0, 3.0) * size
    assert (np.floor(cells) == np.arange(size)).all()


@pytest.mark.parametrize("method", ["sobol", pytest.param("clusters", marks=pytest.mark.slow)])
def test_error_falls_with_size(method):
    errors = [
        TasteGrid.from_normal(MEAN, COV, size, method).discretisation_error for size in (4, 32, 256)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_mixed_logit_coordinates_are_of_their_kinds():
    cov = np.diag([1.0, 0.25, 0.0])
    kinds = ("normal", "lognormal", "fixed")
    grid = TasteGrid.from_mixed_logit([0.5, 1.0, -3.0], cov, kinds, 1024, signs=[1, -1, 1])
    lognormal = np.exp(1 + 0.25 / 2)
    np.testing.assert_allclose(grid.mean, [0.5, -lognormal, -3.0], rtol=1e-2)
    assert (grid.points[:, 1] < 0).all()
    assert (grid.points[:, 2] == -3.0).all()
    # Medians: 0.5 and -e.
    np.testing.assert_allclose(np.median(grid.points, axis=0)[:2], [0.5, -np.e], rtol=1e-2)


def test_lognormal_is_the_same_as_mixed_logit():
    one = TasteGrid.from_lognormal(MEAN, COV, 32, normal_coordinates=[1], signs=[1, 1, -1])
    kinds = ("lognormal", "normal", "lognormal")
    other = TasteGrid.from_mixed_logit(MEAN, COV, kinds, 32, signs=[1, 1, -1])
    np.testing.assert_array_equal(one.points, other.points)


def test_singular_covariance_is_respected():
    loading = np.array([[1.0], [2.0], [0.0]])
    grid = TasteGrid.from_normal([0.0, 1.0, 5.0], loading @ loading.T, 128)
    # The root of a singular matrix is known to the root of machine epsilon.
    np.testing.assert_allclose(grid.points[:, 1], 1 + 2 * grid.points[:, 0], atol=1e-7)
    np.testing.assert_allclose(grid.points[:, 2], 5.0, atol=1e-7)


def test_everything_fixed_is_exact():
    grid = TasteGrid.from_mixed_logit([1.0, 2.0], np.zeros((2, 2)), ("fixed", "fixed"), 4)
    assert (grid.points == [1.0, 2.0]).all()
    assert grid.discretisation_error == 0


def test_samples_are_kept_in_order():
    samples = np.random.default_rng(0).normal(size=(50, 2))
    grid = TasteGrid.from_samples(samples, weights=np.arange(50))
    np.testing.assert_array_equal(grid.points, samples)
    np.testing.assert_allclose(grid.weights, np.arange(50) / np.arange(50).sum())
    assert grid.discretisation_error == 0


def test_repeated_samples_are_merged_without_error():
    grid = TasteGrid.from_samples([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]], size=2)
    np.testing.assert_array_equal(grid.points, [[0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(grid.weights, [1 / 3, 2 / 3])
    assert grid.discretisation_error == 0


@given(
    samples=st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 2), min_size=2, max_size=40),
    size=st.integers(1, 12),
    seed=st.integers(0, 10),
)
def test_clusters_keep_the_mean_and_lose_spread(samples, size, seed):
    samples = np.array(samples)
    weights = np.arange(1.0, len(samples) + 1)
    full = TasteGrid.from_samples(samples, weights)
    grid = TasteGrid.from_samples(samples, weights, size, seed=seed)
    assert grid.size <= size
    # Sums of at most 40 terms of size 100 in float64.
    np.testing.assert_allclose(grid.mean, full.mean, atol=1e-10)
    # The law of total variance: what is lost is the spread within clusters.
    lost = full.cov - grid.cov
    assert np.linalg.eigvalsh(lost).min() >= -1e-8


def test_clusters_find_planted_groups():
    rng = np.random.default_rng(0)
    groups = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 500.0]])
    label = rng.choice(3, size=3000, p=[0.5, 0.3, 0.2])
    samples = groups[label] + rng.normal(size=(3000, 2)) * [0.01, 0.5]
    grid = TasteGrid.from_samples(samples, size=3)
    order = np.lexsort(grid.points.round(-1).T)
    np.testing.assert_allclose(grid.points[order], groups, atol=0.1)
    np.testing.assert_allclose(grid.weights[order], np.bincount(label) / 3000)


@pytest.mark.parametrize("method", ["sobol", pytest.param("clusters", marks=pytest.mark.slow)])
def test_seed_repeats_and_matters(method):
    one, same, other = (
        TasteGrid.from_normal(MEAN, COV, 4, method, seed=seed).points for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_moments_of_a_small_grid():
    grid = TasteGrid([[0.0, 1.0], [4.0, 3.0]], [0.25, 0.75])
    assert (grid.size, grid.dimension) == (2, 2)
    np.testing.assert_allclose(grid.mean, [3.0, 2.5])
    np.testing.assert_allclose(grid.cov, 0.1875 * np.outer([4, 2], [4, 2]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_type_is_kept(dtype):
    grid = TasteGrid(jnp.ones((3, 2), dtype), jnp.full(3, 1 / 3, dtype))
    assert grid.points.dtype == grid.weights.dtype == dtype
    assert TasteGrid([[1, 2]], [1]).points.dtype == np.float64


def test_grid_passes_through_jit_without_retracing():
    traces = []

    @jax.jit
    def mean(points, weights):
        traces.append(None)
        return TasteGrid(points, weights).mean

    for seed in range(3):
        grid = TasteGrid.from_normal(MEAN, COV, 8, seed=seed)
        np.testing.assert_allclose(mean(grid.points, grid.weights), grid.mean, rtol=1e-12)
    assert len(traces) == 1


def test_gradient_of_the_mean_is_the_weight():
    grid = TasteGrid.from_normal(MEAN, COV, 8)
    gradient = jax.grad(lambda points: TasteGrid(points, grid.weights).mean.sum())(grid.points)
    np.testing.assert_allclose(gradient, np.full((8, 3), 1 / 8))


@pytest.mark.parametrize("unit", [1e-14, 1e14])
def test_units_of_the_coordinates_change_nothing(unit):
    """A covariance of rank two, and clusters of a sample."""
    cov = np.array([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.5, 0.5, 1.0]])
    units = np.array([unit, 1.0, 1.0])
    plain = TasteGrid.from_normal(np.zeros(3), cov, 64)
    other = TasteGrid.from_normal(np.zeros(3), cov * np.outer(units, units), 64)
    np.testing.assert_allclose(other.points / units, plain.points, atol=1e-6)
    assert other.discretisation_error == pytest.approx(plain.discretisation_error, rel=1e-6)
    sample = np.random.default_rng(0).normal(size=(200, 3))
    plain, *others = (
        TasteGrid.from_samples(sample * x, size=4) for x in (1.0, units, unit**14, unit**-14)
    )
    for other in others:
        assert other.discretisation_error == pytest.approx(plain.discretisation_error, rel=1e-6)


GOOD = [[0.0, 1.0], [1.0, 0.0]]
BAD = {
    "sum": (lambda: TasteGrid(GOOD, [0.5, 0.4]), InvalidProbability, "weights.*sum of 0.9"),
    "slightly off": (
        lambda: TasteGrid(GOOD, [0.5, 0.5 + 2e-9]),
        InvalidProbability,
        r"weights.*sum of 1\.000000002",
    ),
    "negative": (lambda: TasteGrid(GOOD, [1.5, -0.5]), InvalidProbability, "weights.*-0.5"),
    "NaN point": (lambda: TasteGrid([[np.nan], [1.0]], [0.5, 0.5]), NotFinite, "points.*nan"),
    "infinite point": (lambda: TasteGrid([[0.0], [np.inf]], [0.5, 0.5]), NotFinite, "points.*inf"),
    "NaN weight": (lambda: TasteGrid(GOOD, [np.nan, 0.5]), NotFinite, "weights.*nan"),
    "flat points": (
        lambda: TasteGrid([0.0, 1.0], [0.5, 0.5]),
        InvalidArgument,
        r"points.*\(m, k\)",
    ),
    "empty": (lambda: TasteGrid(np.zeros((0, 2)), []), InvalidArgument, "points.*m, k >= 1"),
    "weight count": (lambda: TasteGrid(GOOD, [1.0]), InvalidArgument, r"weights.*\(2,\)"),
    "words": (lambda: TasteGrid([["a"]], [1.0]), InvalidArgument, "points.*real numbers"),
    "complex": (lambda: TasteGrid([[1j]], [1.0]), InvalidArgument, "points.*real numbers"),
    "ragged": (lambda: TasteGrid([[1.0], [1.0, 2.0]], [0.5, 0.5]), InvalidArgument, "points"),
    "error": (lambda: TasteGrid(GOOD, [0.5, 0.5], -1.0), InvalidArgument, "discretisation_error"),
    "size": (lambda: TasteGrid.from_normal(MEAN, COV, 0), InvalidArgument, "size.*at least 1"),
    "method": (lambda: TasteGrid.from_normal(MEAN, COV, 4, "grid"), InvalidArgument, "'sobol'"),
    "cov shape": (
        lambda: TasteGrid.from_normal(MEAN, COV[:2], 4),
        InvalidArgument,
        r"cov.*\(3, 3\)",
    ),
    "mean shape": (lambda: TasteGrid.from_normal([MEAN], COV, 4), InvalidArgument, r"mean.*\(k,\)"),
    "asymmetric": (
        lambda: TasteGrid.from_normal([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], 4),
        InvalidArgument,
        "cov.*symmetric",
    ),
    "indefinite": (
        lambda: TasteGrid.from_normal([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], 4),
        InvalidArgument,
        "cov.*semidefinite.*-1",
    ),
    "asymmetric beside a large variance": (
        lambda: TasteGrid.from_normal([0.0, 0.0], [[1e12, 1.0], [-1.0, 1e-6]], 4),
        InvalidArgument,
        "cov.*symmetric",
    ),
    "indefinite beside a large variance": (
        lambda: TasteGrid.from_normal([0.0, 0.0], [[1e6, 5.0], [5.0, 1e-6]], 4),
        InvalidArgument,
        "cov.*semidefinite.*-4",
    ),
    "NaN mean": (lambda: TasteGrid.from_normal([np.nan], [[1.0]], 4), NotFinite, "mean"),
    "overflow": (lambda: TasteGrid.from_lognormal([800.0], [[1.0]], 4), NotFinite, "mean"),
    "coordinate": (
        lambda: TasteGrid.from_lognormal(MEAN, COV, 4, normal_coordinates=[3]),
        InvalidArgument,
        "normal_coordinates.*got 3",
    ),
    "kind": (
        lambda: TasteGrid.from_mixed_logit([0.0], [[1.0]], ["uniform"], 4),
        InvalidArgument,
        "kinds.*'uniform'",
    ),
    "kind count": (
        lambda: TasteGrid.from_mixed_logit([0.0], [[1.0]], ["normal"] * 2, 4),
        InvalidArgument,
        "kinds.*got 2",
    ),
    "fixed that varies": (
        lambda: TasteGrid.from_mixed_logit([0.0], [[1.0]], ["fixed"], 4),
        InvalidArgument,
        "cov.*zero in the rows",
    ),
    "sign": (
        lambda: TasteGrid.from_lognormal([0.0], [[1.0]], 4, signs=[2]),
        InvalidArgument,
        "signs",
    ),
    "sign of a normal": (
        lambda: TasteGrid.from_mixed_logit([0.0], [[1.0]], ["normal"], 4, signs=[-1]),
        InvalidArgument,
        "signs",
    ),
    "sample method": (
        lambda: TasteGrid.from_samples(GOOD, method="sobol"),
        InvalidArgument,
        "method.*'clusters'",
    ),
    "sample size": (lambda: TasteGrid.from_samples(GOOD, size=0), InvalidArgument, "size"),
    "no samples": (lambda: TasteGrid.from_samples(np.zeros((0, 1))), InvalidArgument, "samples"),
    "NaN sample": (lambda: TasteGrid.from_samples([[np.nan]]), NotFinite, "samples"),
    "weightless": (lambda: TasteGrid.from_samples(GOOD, [0, 0]), InvalidArgument, "positive sum"),
    "negative share": (
        lambda: TasteGrid.from_samples(GOOD, [2, -1]),
        InvalidProbability,
        "weights",
    ),
}


@pytest.mark.parametrize(("build", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_has_its_own_error(build, error, message):
    with pytest.raises(error, match=message):
        build()
