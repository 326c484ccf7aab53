"""From an estimated choice model to a market: utils to money, market shares to mean utilities.

Estimates are in utils, in which logit shocks have scale 1. Dividing a taste by the size of its own
price coefficient puts it into willingness-to-pay space, where theta_i + <gamma_i, omega> adds money
to money; the shocks then have that taste's own scale in money.

**References**

Berry (1994), RAND Journal of Economics 25; Berry, Levinsohn and Pakes (1995), Econometrica 63,
equation 6.8; Train and Weeks (2005), Discrete choice models in preference space and
willingness-to-pay space.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import instance, number, shaped, within
from dynmech.errors import DynmechError, InvalidArgument, OutsideSupport, describe
from dynmech.market.tastes import TasteGrid

_STEPS, _ENOUGH, _CLOSE = 10_000, 1e-13, 1e-9


def in_money(
    tastes: TasteGrid, price: str | int, *, floor: float = 0.0
) -> tuple[TasteGrid, Float[np.ndarray, " m"]]:
    """Put tastes estimated in utils into money: omega_a / alpha_a, with choice scale 1 / alpha_a.

    alpha_a = -omega_a[price] is the size of the price coefficient at taste a; the taste for the
    price becomes -1 (less in size where `floor` binds). Choices stay those that were estimated:
    <gamma, omega_a> over the scale is what it was, for `Logit(scale)`.

    **Arguments**

    - `tastes`: m points in utils per unit of each characteristic, as of
      `TasteGrid.from_mixed_logit` with an estimated mean and covariance.
    - `price`: name or column of the price.
    - `floor`: in [0, 1]: smaller alpha_a are raised to this quantile of alpha over the points.
      Without it tastes that hardly mind the price are worth most of all surplus.

    **Returns**

    The grid in money, with the same weights, and `scale` (m,), money.

    **Raises**

    `OutsideSupport` where some taste likes high prices: in money it is worth nothing sensible.
    Estimate the price coefficient as minus a lognormal, or fixed, or leave these tastes out and say
    what share they are. `InvalidArgument` for a price that is no characteristic.

    ```python
    >>> names = ["zoom", "price"]
    >>> tastes = TasteGrid([[1.0, -0.5], [3.0, -2.0]], [0.5, 0.5], characteristics=names)
    >>> grid, scale = in_money(tastes, "price")
    >>> grid.points.tolist(), scale.tolist()
    ([[2.0, -1.0], [1.5, -1.0]], [2.0, 0.5])

    ```
    """
    instance(TasteGrid, "a TasteGrid")("in_money(tastes=...)", tastes)
    floor = number(least=0, most=1)("in_money(floor=...)", floor)
    points, weights = np.asarray(tastes.points, float), np.asarray(tastes.weights, float)
    alpha = -points[:, _column(tastes, price)]
    wrong = (alpha <= 0) & (weights > 0)
    if wrong.any():
        must = "have a negative coefficient of the price at every taste"
        got = f"{int(wrong.sum())} of {len(points)} tastes that do not mind high prices, of weight "
        got += f"{weights[wrong].sum():.3g}"
        do = (
            "estimate it as minus a lognormal (kinds 'lognormal', signs -1) or fixed, or leave "
            "these tastes out"
        )
        raise OutsideSupport(describe("in_money(tastes=...)", must, got, do))
    size = np.maximum(alpha, float(np.quantile(alpha[weights > 0], floor)))
    grid = TasteGrid(points / size[:, None], weights, None, tastes.characteristics)
    return grid, 1 / size


def mean_utilities(
    shares: npt.ArrayLike,
    deviations: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> Float[np.ndarray, " J"]:
    """Solve market shares for mean utilities delta (J,), in utils relative to buying nothing.

        s_j = sum_a w_a exp(delta_j + mu_ja) / (1 + sum_k exp(delta_k + mu_ka))

    by the contraction delta <- delta + log s - log s(delta). Without deviations it is closed:
    delta_j = log s_j - log s_0.

    **Arguments**

    - `shares` (J,): of all consumers, positive, summing to less than one.
    - `deviations` (J, I): mu_ja, what consumer a's utility of j is beyond the mean, utils.
    - `weights` (I,): of the consumers, nonnegative; importance weights are taken as they are, and
      need not sum to one. Equal by default.

    **Raises**

    `InvalidArgument` (shapes; shares; weights that sum to no more than the shares); `DynmechError`
    where the contraction has not come within 1e-9, as where hardly anybody buys nothing.

    ```python
    >>> mean_utilities([0.2, 0.3]).round(4).tolist()
    [-0.9163, -0.5108]

    ```
    """
    call = "mean_utilities({}=...)".format
    given = within(least=0, most=1)(call("shares"), shaped("J")(call("shares"), shares))
    share = np.asarray(given, float)
    if not (share > 0).all() or not share.sum() < 1:
        must, got = "be positive and sum to less than 1", f"a sum of {share.sum():.6g}"
        got += f", a least one of {share.min():.3g}"
        do = "leave out what nobody buys, and give shares of all consumers, buyers or not"
        raise InvalidArgument(describe(call("shares"), must, got, do))
    start = np.log(share) - np.log1p(-share.sum())
    if deviations is None and weights is None:
        return start
    if deviations is None:
        raise InvalidArgument(describe(call("deviations"), "be given with weights", None))
    moved = np.asarray(shaped(len(share), "I")(call("deviations"), deviations), float)
    count = moved.shape[1]
    mass = np.full(count, 1 / count)
    if weights is not None:
        mass = np.asarray(within(least=0)(call("weights"), shaped(count)(call("weights"), weights)))
    if not share.sum() < mass.sum():
        must = f"sum to more than the shares do, {share.sum():.6g}"
        raise InvalidArgument(describe(call("weights"), must, f"{mass.sum():.6g}"))
    delta, step = start, np.full(len(share), np.inf)
    for _ in range(_STEPS):
        step = np.log(share) - np.log(choice_chances(delta, moved) @ mass)
        if np.abs(step).max() < _ENOUGH:
            break
        delta = delta + step
    if not np.abs(step).max() < _CLOSE:
        must = "be shares that these consumers can make"
        got = f"a gap of {np.abs(step).max():.3g} in logarithms after {_STEPS} steps"
        raise DynmechError(
            describe(
                call("shares"), must, got, "group goods that sell alike, or look at the weights"
            )
        )
    return delta


def choice_chances(
    delta: Float[np.ndarray, " J"], deviations: Float[np.ndarray, "J I"]
) -> Float[np.ndarray, "J I"]:
    """Logit chances of each good for each consumer, buying nothing being worth 0 utils."""
    utils = delta[:, None] + deviations
    peak = np.maximum(utils.max(axis=0), 0.0)
    attraction = np.exp(utils - peak)
    return attraction / (np.exp(-peak) + attraction.sum(axis=0))


def _column(tastes: TasteGrid, price: str | int) -> int:
    """The column of the price, by its name or number."""
    names, k = tastes.characteristics, tastes.dimension
    if isinstance(price, str) and names is not None and price in names:
        return names.index(price)
    if type(price) is int and 0 <= price < k:
        return price
    known = f"one of {', '.join(map(str, names))}, or " if names is not None else ""
    must = f"be {known}a column in 0..{k - 1}"
    raise InvalidArgument(describe("in_money(price=...)", must, repr(price)[:80]))
