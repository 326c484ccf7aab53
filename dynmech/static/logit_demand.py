"""Logit demand for the goods of a consumer market, given or estimated (paper D, section 5.3).

s_j(p) = exp(x_j' beta - alpha p_j) / (1 + sum_k exp(x_k' beta - alpha p_k)); the 1 is the outside
option, which a market may lack.

**References**

Berry, "Estimating discrete-choice models of product differentiation", RAND Journal of Economics
1994; McFadden, "Conditional logit analysis of qualitative choice behavior", 1974.
"""

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import as_doubles, checked, flag, instance, number
from dynmech.errors import (
    InvalidArgument,
    InvalidProbability,
    OutsideSupport,
    describe,
    import_extra,
    require_finite,
)

_SUM = 1e-6
_STEP = 1e-4
_VAGUE = 100.0


class LogitDemand(eqx.Module):
    """Logit demand for n goods: the price coefficient alpha and qualities x_j' beta, in utils.

    **Arguments**

    - `alpha`: positive, utils per unit of money. `quality`: (n,), utils over the outside option,
      or, without one, up to a constant.
    - `outside`: whether consumers may buy nothing.

    **Raises**

    `InvalidArgument` (shape), `OutsideSupport` (a price coefficient of the wrong sign),
    `NotFinite`.

    ```python
    >>> demand = LogitDemand(0.5, [2.0, 1.0])
    >>> demand.shares([4.0, 2.0]).round(3).tolist()
    [0.333, 0.333]

    ```
    """

    alpha: Float[np.ndarray, ""]
    quality: Float[np.ndarray, " n"]
    outside: bool = eqx.field(static=True)

    @checked(outside=flag)
    def __init__(self, alpha: npt.ArrayLike, quality: npt.ArrayLike, outside: bool = True):
        self.alpha = as_doubles("LogitDemand(alpha=...)", alpha)
        self.quality = as_doubles("LogitDemand(quality=...)", quality)
        self.outside = bool(outside)
        if self.alpha.shape or self.quality.ndim != 1 or len(self.quality) < 2 - self.outside:
            must = "be a number and a list, of two goods or more where there is no outside option"
            got = f"shapes {self.alpha.shape} and {self.quality.shape}"
            raise InvalidArgument(describe("LogitDemand(alpha=..., quality=...)", must, got))
        require_finite("LogitDemand(alpha=...)", self.alpha)
        require_finite("LogitDemand(quality=...)", self.quality)
        if self.alpha <= 0:
            raise OutsideSupport(_wrong_sign("LogitDemand(alpha=...)", self.alpha))

    def shares(self, prices: npt.ArrayLike) -> Float[np.ndarray, "..."]:
        """Compute s_j(p): prices (..., n) give (..., n)."""
        money = as_goods("LogitDemand.shares(prices=...)", prices, len(self.quality))
        utils = self.quality - self.alpha * money
        top = utils.max(axis=-1, keepdims=True)
        if self.outside:
            top = np.maximum(top, 0.0)
        taken = np.exp(utils - top)
        return taken / (taken.sum(axis=-1, keepdims=True) + self.outside * np.exp(-top))

    @staticmethod
    @checked(alpha=number(above=0), outside=flag)
    def from_shares(
        alpha: npt.ArrayLike, prices: npt.ArrayLike, shares: npt.ArrayLike, outside: bool = True
    ) -> "LogitDemand":
        """Find the qualities that give these shares at these prices: log(s_j / s_0) + alpha p_j.

        Berry's inversion; without an outside option the first good's share stands in for s_0.

        **Arguments:** `prices`, `shares`: (n,).

        **Raises:** `InvalidArgument`, `OutsideSupport`, `InvalidProbability`, `NotFinite`.
        """
        call = "LogitDemand.from_shares(shares=...)"
        parts = as_doubles(call, shares)
        if parts.ndim != 1 or not len(parts):
            raise InvalidArgument(describe(call, "have shape (n,)", parts.shape))
        money = as_goods("LogitDemand.from_shares(prices=...)", prices, len(parts))
        require_shares(call, parts, outside)
        rest = 1 - parts.sum() if outside else parts[0]
        return LogitDemand(alpha, np.log(parts / rest) + np.asarray(alpha) * money, outside)


class DemandEstimate(eqx.Module):
    """A logit demand as estimated.

    `demand`: with quality at mean characteristics; `beta` (d,), their coefficients; `deviation`
    (1 + d,): standard errors of -alpha and beta; `shares` (n,): mean predicted shares;
    `log_likelihood`; `choices`: how many.
    """

    demand: LogitDemand
    beta: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d1"]
    shares: Float[np.ndarray, " n"]
    log_likelihood: float = eqx.field(static=True)
    choices: float = eqx.field(static=True)


@checked(outside=flag)
def estimate_logit(
    prices: npt.ArrayLike,
    choices: npt.ArrayLike,
    characteristics: npt.ArrayLike | None = None,
    outside: bool = True,
) -> DemandEstimate:
    """Estimate logit demand by maximum likelihood (xlogit).

    Consistent in the number of choices, provided that prices vary and are independent of what
    consumers see and the analyst does not.

    **Arguments**

    - `prices`: (T, n), money, in each of T situations (markets, weeks, or single purchases).
    - `choices`: how many consumers chose each good there: (T, n + 1), the last column counting
      those who chose nothing; (T, n) without an outside option.
    - `characteristics`: (T, n, d), or (n, d): x_j. None: an intercept for each good, the first
      one's being 0 where there is no outside option.

    **Returns**

    `DemandEstimate`.

    **Raises**

    `InvalidArgument` (shapes; counts; collinear data), `OutsideSupport` (a price coefficient of
    the wrong sign), `NotFinite`, `MissingExtra` (xlogit).

    ```python
    >>> prices = np.array([[4.0, 2.0], [3.0, 3.0], [2.0, 5.0]])
    >>> shares = LogitDemand(0.5, [2.0, 1.0]).shares(prices)
    >>> counts = np.column_stack([1000 * shares, 1000 * (1 - shares.sum(axis=1))])
    >>> found = estimate_logit(prices, counts).demand
    >>> round(float(found.alpha), 3), found.quality.round(3).tolist()
    (0.5, [2.0, 1.0])

    ```
    """
    xlogit = import_extra("xlogit", "data", "estimate_logit")
    money = as_doubles("estimate_logit(prices=...)", prices)
    counts = as_doubles("estimate_logit(choices=...)", choices)
    if money.ndim != 2 or 0 in money.shape:
        raise InvalidArgument(
            describe("estimate_logit(prices=...)", "have shape (T, n)", money.shape)
        )
    require_finite("estimate_logit(prices=...)", money)
    T, n = money.shape
    if counts.shape != (T, n + outside):
        must = f"have shape ({T}, {n + outside}), as prices have {n} goods"
        must += " and there is an outside option" if outside else ""
        raise InvalidArgument(describe("estimate_logit(choices=...)", must, counts.shape))
    require_finite("estimate_logit(choices=...)", counts)
    if (counts < 0).any() or not counts.any():
        must, got = "be counts, not all zero", f"a least one of {counts.min():g}"
        raise InvalidArgument(describe("estimate_logit(choices=...)", must, got))
    traits = np.eye(n)[:, (0 if outside else 1) :] if characteristics is None else characteristics
    traits = as_doubles("estimate_logit(characteristics=...)", traits)
    if traits.ndim not in (2, 3) or traits.shape[:-1] not in ((n,), (T, n)):
        must = f"have shape ({n}, d) or ({T}, {n}, d)"
        call = "estimate_logit(characteristics=...)"
        raise InvalidArgument(describe(call, must, traits.shape))
    require_finite("estimate_logit(characteristics=...)", traits)
    traits = np.broadcast_to(traits, (T, n, traits.shape[-1]))
    # One weighted row for each situation and good that somebody chose there.
    place, taken = np.nonzero(counts)
    table = np.zeros((len(place), n + outside, 1 + traits.shape[-1]))
    table[:, :n] = np.concatenate([money[..., None], traits], axis=2)[place]
    flat = table.reshape(-1, table.shape[-1])
    centred = table - table.mean(axis=1, keepdims=True)
    size = np.abs(flat).max(axis=0).clip(np.finfo(float).tiny)
    rank = np.linalg.matrix_rank(centred.reshape(flat.shape) / size)
    if rank < flat.shape[1]:
        must = "tell every coefficient apart: prices and characteristics that vary on their own"
        call = "estimate_logit(prices=..., characteristics=...)"
        do = "observe more price variation, or drop collinear characteristics"
        raise InvalidArgument(describe(call, must, f"rank {rank} of {flat.shape[1]}", do))
    weights = counts[place, taken]
    model = xlogit.MultinomialLogit()
    with np.errstate(all="ignore"):  # a likelihood without maximum is told below
        model.fit(
            X=flat / size,  # in like units, so that the optimiser sees them alike
            y=np.eye(n + outside)[taken].ravel(),
            varnames=["price", *(f"x{k}" for k in range(traits.shape[-1]))],
            alts=np.tile(np.arange(n + outside), len(place)),
            ids=np.repeat(np.arange(len(place)), n + outside),
            weights=np.repeat(weights * len(weights) / weights.sum(), n + outside),
            verbose=0,
            skip_std_errs=True,
        )
    scaled, covariance = _maximise(table / size, taken, weights, np.asarray(model.coeff_))
    found, deviation = scaled / size, np.sqrt(np.diag(covariance)) / size
    if not found[0] < 0:
        raise OutsideSupport(_wrong_sign("estimate_logit(prices=..., choices=...)", -found[0]))
    chance = _chances(table, found)
    return DemandEstimate(
        demand=LogitDemand(-found[0], traits.mean(axis=0) @ found[1:], outside),
        beta=found[1:],
        deviation=deviation,
        shares=weights @ chance[:, :n] / counts.sum(),
        log_likelihood=float(weights @ np.log(chance[np.arange(len(taken)), taken])),
        choices=float(counts.sum()),
    )


def _chances(table: np.ndarray, coefficients: np.ndarray) -> Float[np.ndarray, "R n"]:
    utils = table @ coefficients
    chance = np.exp(utils - utils.max(axis=1, keepdims=True))
    return chance / chance.sum(axis=1, keepdims=True)


def _maximise(table: np.ndarray, taken: np.ndarray, weights: np.ndarray, start: np.ndarray):
    """Take the estimate to the maximum, and return it with its covariance.

    xlogit stops where its last step is small; with weighted rows that can be a good part of a
    standard error away in large samples.
    """
    from scipy.optimize import root

    chosen, mean = np.eye(table.shape[1])[taken], weights / weights.sum()

    def score(b: np.ndarray):
        return np.einsum("rjk,rj->k", table, (chosen - _chances(table, b)) * mean[:, None])

    def slope(b: np.ndarray):
        chance = _chances(table, b)
        centre = np.einsum("rjk,rj->rk", table, chance)
        second = np.einsum("rjk,rjl,rj->kl", table, table, chance * mean[:, None])
        return np.einsum("rk,rl,r->kl", centre, centre, mean) - second

    with np.errstate(all="ignore"):
        done = root(score, start, jac=slope, method="hybr", tol=1e-14)
    information = -slope(done.x) * weights.sum()
    least = float(np.linalg.eigvalsh(information)[0])
    # What is left of the score, in standard errors; nothing where some direction is left open.
    off = np.sqrt(np.square(score(done.x) * weights.sum()).sum() / max(least, 1e-300))
    if not (least >= _VAGUE**-2 and off <= _STEP):
        must = "have a maximum likelihood estimate"
        do = "observe choices of every good (and of none, if that is an option), at more prices"
        got = f"a likelihood of curvature {least:.3g} in its flattest direction"
        raise InvalidArgument(describe("estimate_logit(choices=...)", must, got, do))
    return done.x, np.linalg.inv(information)


def as_goods(call: str, values: npt.ArrayLike, n: int) -> Float[np.ndarray, "..."]:
    """Return an array of numbers with one entry a good along its last axis, or complain."""
    array = as_doubles(call, values)
    if array.ndim == 0 or array.shape[-1] != n:
        must = f"have a last axis of length {n}, one entry a good"
        raise InvalidArgument(describe(call, must, array.shape))
    require_finite(call, array)
    return array


def require_shares(call: str, shares: np.ndarray, outside: bool) -> None:
    """Raise unless shares are in (0, 1) and leave room for the outside option, or sum to 1."""
    require_finite(call, shares)
    if (shares <= 0).any() or (shares >= 1).any():
        got = float(shares[(shares <= 0) | (shares >= 1)][0])
        raise OutsideSupport(describe(call, "lie strictly between 0 and 1", got))
    total = shares.sum(axis=-1)
    if outside and (total >= 1).any():
        must = "sum to less than 1, leaving a share to the outside option"
        do = "divide sales by market size, or use a demand with outside=False"
        raise InvalidProbability(describe(call, must, f"{float(total.max()):.6g}", do))
    if not outside and (np.abs(total - 1) > _SUM).any():
        must = "sum to 1 where there is no outside option"
        raise InvalidProbability(describe(call, must, f"{float(total.flat[0]):.6g}"))


def _wrong_sign(call: str, alpha: npt.ArrayLike) -> str:
    must = "have a positive price coefficient alpha: utility is x'beta - alpha p"
    do = "check the sign convention, and that prices do not follow demand (use instruments)"
    return describe(call, must, f"{float(np.asarray(alpha)):.4g}", do)


DEMAND = instance(LogitDemand, "a `LogitDemand`, as LogitDemand(alpha, quality)")
