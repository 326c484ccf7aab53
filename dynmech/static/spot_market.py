"""The pricing game of a consumer market, and costs read off its prices (paper D, section 5.3).

Firms of one product each set prices at once under logit demand. In equilibrium

  p_j = c_j + 1 / (alpha (1 - s_j(p))),

which `spot_equilibrium` solves for prices given costs, and `recover_costs`, (20), for costs given
prices and an estimate of demand.

**References**

Berry, "Estimating discrete-choice models of product differentiation", RAND Journal of Economics
1994; Caplin and Nalebuff, "Aggregation and imperfect competition: on the existence of
equilibrium", Econometrica 1991 (existence and uniqueness for logit demand).
"""

from collections.abc import Callable

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import as_doubles, checked
from dynmech.errors import InvalidArgument, describe
from dynmech.static.logit_demand import DEMAND, LogitDemand, as_goods, require_shares

_SOLVED = 1e-9
_HIGHEST = 300.0


@checked(demand=DEMAND)
def recover_costs(
    prices: npt.ArrayLike,
    demand: LogitDemand,
    shares: npt.ArrayLike | None = None,
) -> Float[np.ndarray, "..."]:
    """Recover marginal costs from equilibrium prices, c_j = p_j - 1 / (alpha (1 - s_j)), (20).

    Exact where prices are those of an equilibrium of `demand` between firms of one product each.
    A negative cost says that they are not: that demand is less elastic than the model needs, or
    firms have several products (see `experiments.procurement` for cars).

    **Arguments**

    - `prices`: (..., n). `demand`: the estimate.
    - `shares`: (..., n), observed; None: those of `demand` at these prices, as printed in (20).

    **Raises**

    `InvalidArgument` (shapes), `OutsideSupport` (shares outside (0, 1)), `InvalidProbability`
    (shares that sum to 1 or more, or not to 1 where there is no outside option), `NotFinite`.

    ```python
    >>> demand = LogitDemand(0.5, [2.0, 1.0])
    >>> recover_costs([4.0, 3.0], demand).round(3).tolist()
    [0.755, 0.393]

    ```
    """
    money = as_goods("recover_costs(prices=...)", prices, len(demand.quality))
    call = "recover_costs(shares=...)"
    parts = demand.shares(money) if shares is None else as_doubles(call, shares)
    if parts.shape != money.shape:
        must = f"have shape {money.shape}, as prices have"
        raise InvalidArgument(describe(call, must, parts.shape))
    require_shares(call, parts, demand.outside)
    return money - 1 / (demand.alpha * (1 - parts))


class SpotEquilibrium(eqx.Module):
    """Prices, shares (..., n) and the largest violation of a first-order condition, money."""

    prices: Float[np.ndarray, "... n"]
    shares: Float[np.ndarray, "... n"]
    residual: float = eqx.field(static=True)


@checked(demand=DEMAND)
def spot_equilibrium(demand: LogitDemand, costs: npt.ArrayLike) -> SpotEquilibrium:
    """Solve the pricing game: p_j = c_j + 1 / (alpha (1 - s_j(p))) for every firm j.

    By scipy's Newton methods with the exact Jacobian, in z_j = log(alpha (p_j - c_j) - 1), which
    in equilibrium is the log odds of share j, so that no trial price leaves the domain. The
    equilibrium exists and is unique (Caplin and Nalebuff). First-order conditions are verified to
    1e-9 of the larger of 1/alpha and the largest price.

    **Arguments:** `costs`: (..., n), money; each row is a market of its own.

    **Raises:** `InvalidArgument` (shape; a system that the solver cannot solve), `NotFinite`.

    ```python
    >>> duopoly = LogitDemand(1.0, [3.0, 3.0])
    >>> found = spot_equilibrium(duopoly, [1.0, 1.0])
    >>> bool(abs(recover_costs(found.prices, duopoly) - 1.0).max() < 1e-9)
    True

    ```
    """
    from scipy.optimize import root

    money = as_goods("spot_equilibrium(costs=...)", costs, len(demand.quality))
    alpha, rows = float(demand.alpha), money.reshape(-1, money.shape[-1])
    eye, found, residual = np.eye(rows.shape[1]), np.empty_like(rows), 0.0
    for k, cost in enumerate(rows):

        def prices_of(z: np.ndarray, cost: np.ndarray = cost):
            return cost + (1 + np.exp(np.minimum(z, _HIGHEST))) / alpha

        def gap(z: np.ndarray, price: Callable[[np.ndarray], np.ndarray] = prices_of):
            return z - _log_odds(demand, price(z))

        def slopes(z: np.ndarray, price: Callable[[np.ndarray], np.ndarray] = prices_of):
            rivals = _rivals(demand, price(z))
            rest = np.exp(rivals - np.logaddexp.reduce(rivals, axis=1, keepdims=True))
            rest = rest[:, : len(eye)]  # chance of each other good, were j not there
            return eye + (eye - rest) * np.exp(np.minimum(z, _HIGHEST))

        for method in ("hybr", "lm"):
            done = root(gap, np.zeros(len(cost)), jac=slopes, method=method, tol=1e-15)
            price = prices_of(done.x)
            wrong = float(
                np.abs(price - cost - (1 + np.exp(_log_odds(demand, price))) / alpha).max()
            )
            scale = max(1 / alpha, float(np.abs(price).max()))
            if wrong <= _SOLVED * scale:
                break
        else:
            must = f"have prices that solve the first-order conditions within {_SOLVED:.0e}"
            do = "check the spread of qualities and costs, in units of 1/alpha"
            call = "spot_equilibrium(demand=..., costs=...)"
            raise InvalidArgument(describe(call, must, f"{wrong:.3g} after {done.nfev} steps", do))
        found[k], residual = price, max(residual, wrong)
    prices = found.reshape(money.shape)
    return SpotEquilibrium(prices, demand.shares(prices), residual)


def _rivals(demand: LogitDemand, prices: np.ndarray) -> Float[np.ndarray, "n k"]:
    """Utilities of what competes with each good at one price vector; -inf for itself."""
    utils = demand.quality - demand.alpha * prices
    rest = np.where(np.eye(len(utils), dtype=bool), -np.inf, utils)
    return np.column_stack([rest, np.zeros(len(utils))]) if demand.outside else rest


def _log_odds(demand: LogitDemand, prices: np.ndarray) -> Float[np.ndarray, " n"]:
    """log(s_j / (1 - s_j)) at one price vector, without loss where a share is near 0 or 1."""
    utils = demand.quality - demand.alpha * prices
    return utils - np.logaddexp.reduce(_rivals(demand, prices), axis=1)
