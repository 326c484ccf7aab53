"""New cars in the United States, 1971 to 1990, as a market for one shopping assistant."""

import os
from collections.abc import Sequence

import numpy as np

from dynmech.applications._choice_models import in_money
from dynmech.applications._demand import BETA, SIGMA, TRAITS, Demand, estimate, labels, load
from dynmech.applications._market import Market, require_between, require_choice, spread
from dynmech.applications._thin import cluster, thin
from dynmech.errors import InvalidArgument, describe
from dynmech.market.tastes import TasteGrid


def cars(
    year: int = 1990,
    products: int = 8,
    tastes: int = 200,
    selection: str | Sequence[str] = "best-sellers",
    *,
    outside: float | None = 2.43,
    conversion: float = 0.5,
    price_floor: float = 0.05,
    shoppers: str = "market",
    table: str | os.PathLike[str] | None = None,
) -> Market:
    """Build a market of new cars, money in thousands of 1983 dollars.

    gamma = (quality xi, 1, price, hpwt, air, mpd, space); the taste of shopper a is her taste in
    utils divided by max(alpha_a, floor), so that choices made with `taste_scale` are those of the
    estimated model whatever the floor.

    **Arguments**

    - `year`: 1971 to 1990; without pyblp, 1990 only.
    - `products`: number of cars n, at least 1.
    - `tastes`: number of taste points m, 1 to the number of shoppers in the data, 200 a year.
    - `selection`: `"best-sellers"`; `"segments"`, the best seller in each of n clusters of cars
      alike in price and characteristics, less similar than the best sellers; or the codes of the
      cars, such as `("HDACCO90", "GOMETR90")`, in which case `products` is not used.
    - `outside`: value of leaving without a car, in utils; None finds the value at which a share
      `conversion` of shoppers, choosing among all n cars, buys.
    - `conversion`: between 0 and 1, used when `outside` is None.
    - `price_floor`: quantile of alpha below which it is raised to that quantile, 0 to 1; 0 leaves
      it as estimated.
    - `shoppers`: whom the assistant talks to: `"market"`, those who buy a car of that year, or
      `"chosen"`, those who buy one of the n.
    - `table`: folder with `cars_products.csv` and `cars_agents.csv`, to be used instead of pyblp.

    **Returns**

    A `Market`. Its `diagnostics` hold the largest share residual, the least marginal cost, the
    mean own-price elasticity, conversion, the fit of shares within the n cars (correlation, total
    variation), what the floor does, and the error of a grid with fewer tastes than shoppers.

    **Raises**

    `InvalidArgument` naming the argument; `MissingExtra` without pyblp and without a table.

    **References**

    Berry, Levinsohn and Pakes (1995), Econometrica 63, table IV. Conlon and Gortmaker (2020), RAND
    Journal of Economics 51 (pyblp). Train and Weeks (2005), on willingness-to-pay space.

    ```python
    >>> market = cars(selection="segments")
    >>> market.names[:3]
    ('Honda Accord', 'Ford Taurus', 'Chevrolet Cavalier')

    ```
    """
    if outside is not None:
        require_between("cars(outside=...)", outside, -50, 50)
    require_between("cars(conversion=...)", conversion, 1e-6, 1 - 1e-6)
    require_between("cars(price_floor=...)", price_floor, 0, 1)
    require_choice("cars(shoppers=...)", shoppers, ("market", "chosen"))
    demand = estimate(*load(year, table))
    chosen = _select(demand, products, selection)
    require_between("cars(tastes=...)", tastes, 1, len(demand.alpha), whole=True)

    buyers = demand.chances[chosen if shoppers == "chosen" else slice(None)].sum(axis=0)
    weights = demand.weights * buyers
    weights = weights / weights.sum()
    quality = demand.delta - demand.x @ BETA
    columns = (quality, demand.x[:, 0], demand.prices, *demand.x[:, 1:].T)
    gamma = np.stack(columns, axis=1)[chosen]
    likes = BETA + demand.nodes * SIGMA
    utils = np.column_stack([np.ones(len(likes)), likes[:, 0], -demand.alpha, likes[:, 1:]])
    if outside is None:
        outside = _outside(gamma @ utils.T, weights, conversion)
    utils[:, 1] -= outside
    priced, scale = in_money(TasteGrid(utils, weights), 2, floor=price_floor)
    points, floor = np.asarray(priced.points), float(1 / scale.max())
    grid, taste_scale, error = thin(gamma, points, scale, weights, tastes)

    sales = np.exp(gamma @ utils.T)
    sales = (sales / (1 + sales.sum(axis=0))) @ weights
    within, seen = sales / sales.sum(), demand.shares[chosen] / demand.shares[chosen].sum()
    raw = gamma @ (utils / demand.alpha[:, None]).T
    diagnostics = {
        "share_residual": demand.residual,
        "cost_min": float((demand.prices - demand.markups).min()),
        "elasticity_mean": float(demand.elasticities.mean()),
        "outside": float(outside),
        "conversion": float(sales.sum()),
        "share_correlation": _correlation(within, seen),
        "share_total_variation": float(np.abs(within - seen).sum() / 2),
        "price_coefficient_floor": floor,
        "floored_weight": float(weights[demand.alpha < floor].sum()),
        "utility_min_without_floor": float(raw.min()),
        "utility_max_without_floor": float(raw.max()),
        **spread(gamma @ points.T, weights),
        **error,
    }
    who = "a car of that year" if shoppers == "market" else "one of these cars"
    return Market(
        name=f"new cars, United States, {year}",
        names=labels(demand.ids[chosen]),
        gamma=gamma,
        attributes=("quality", "one", "price", *TRAITS),
        tastes=grid,
        taste_scale=taste_scale,
        theta=demand.markups[chosen],
        unit="thousand 1983 USD",
        assumptions=(
            (
                f"Leaving without a car is worth {outside:.3g} utils, an assumption; it is "
                f"subtracted from every utility; {sales.sum():.0%} of shoppers who see all the "
                "cars here buy."
            ),
            (
                f"Price coefficients below {floor:.3g} utils per thousand dollars are raised to it "
                "when utils are turned into money: utilities run from "
                f"{diagnostics['utility_min']:.0f} to {diagnostics['utility_max']:.0f} instead of "
                f"{raw.min():.0f} to {raw.max():.0f}."
            ),
            f"The shopper is one who buys {who}: the data's weights times that probability.",
            "beta and sigma are those published in 1995, not estimated again.",
            (
                f"theta is price less cost when the firms of {year} set the prices of all "
                f"{len(demand.ids)} cars; here each car acts for itself."
            ),
        ),
        source="Berry, Levinsohn and Pakes (1995) data as shipped in pyblp (MIT licence)",
        diagnostics=diagnostics,
    )


def _select(demand: Demand, products: int, selection: str | Sequence[str]) -> np.ndarray:
    """Return the rows of the chosen cars, in order of sales or in the order asked for."""
    count = len(demand.ids)
    if isinstance(selection, str):
        require_choice("cars(selection=...)", selection, ("best-sellers", "segments"))
        require_between("cars(products=...)", products, 1, count, whole=True)
        if selection == "best-sellers":
            return np.arange(products)
        traits = np.column_stack([demand.prices, demand.x[:, 1:]])
        groups = cluster((traits - traits.mean(0)) / traits.std(0), demand.shares, products)
        return np.sort(np.unique(groups, return_index=True)[1])
    rows = [int(np.argmax(demand.ids == name)) for name in selection]
    unknown = [name for name, row in zip(selection, rows) if demand.ids[row] != name]
    if not rows or unknown or len(set(rows)) < len(rows):
        raise InvalidArgument(
            describe(
                "cars(selection=...)",
                "be 'best-sellers', 'segments' or different codes of cars of that year",
                f"unknown {unknown}" if unknown else repr(selection),
                f"choose among {', '.join(demand.ids[:12])}, ...",
            )
        )
    return np.array(rows)


def _outside(utils: np.ndarray, weights: np.ndarray, conversion: float) -> float:
    """Return v with E[sum_j e^u_j / (e^v + sum_j e^u_j)] = conversion."""
    from scipy.optimize import root_scalar

    inclusive = np.logaddexp.reduce(utils, axis=0)

    def gap(v: float) -> float:
        return float(weights @ (1 / (1 + np.exp(v - inclusive)))) - conversion

    bracket = (float(inclusive.min()) - 50, float(inclusive.max()) + 50)
    return float(root_scalar(gap, bracket=bracket, xtol=1e-13).root)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 else 1.0
