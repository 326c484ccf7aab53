"""Digital cameras: 332 people who chose among four branded cameras or none, mixed logit in money.

Person a values camera i at <gamma_i, omega_a> dollars more than buying nothing, and chooses by a
logit of scale s_a dollars: (omega, -log s) is normal, omega with a free covariance. The option of
buying nothing was on every screen of the experiment, so its value is data, not an assumption.
"""

import os
from typing import NamedTuple

import numpy as np

from dynmech.applications._choice_models import choice_chances
from dynmech.applications._market import Market, read_columns, require_between, shipped, spread
from dynmech.applications._thin import thin
from dynmech.errors import InvalidArgument, describe
from dynmech.market.tastes import TasteGrid

BRANDS = ("canon", "sony", "nikon", "panasonic")
FEATURES = ("pixels", "zoom", "video", "swivel", "wifi")
FILES = ("cameras_tastes.csv", "cameras_covariance.csv", "cameras_shares.csv")
SCALE = "ln of logit scale per 100 usd"
_DRAWS = 2**12


class _Camera(NamedTuple):
    brand: str
    has: tuple[str, ...]
    price: float


CAMERAS = (
    _Camera("canon", ("pixels", "zoom", "video"), 229.0),
    _Camera("sony", ("video", "swivel", "wifi"), 179.0),
    _Camera("nikon", ("pixels", "swivel"), 129.0),
    _Camera("panasonic", ("zoom", "wifi"), 129.0),
)


def cameras(
    products: int = 4,
    tastes: int = 48,
    *,
    outside: float = 0.0,
    table: str | os.PathLike[str] | None = None,
) -> Market:
    """Build a market of digital cameras, money in US dollars.

    gamma = (1, four brands, 16 megapixels, zoom of 10, high definition video, swivel screen,
    wi-fi, price); the taste for the price is -1.

    **Arguments**

    - `products`: number of cameras n, the first n of four of different brands, 1 to 4.
    - `tastes`: number of taste points m, 1 to 4096.
    - `outside`: what buying nothing is worth beyond what the experiment found, dollars.
    - `table`: folder of the shipped tables; by default that of the source tree.

    **Returns**

    A `Market` with `theta` the Bertrand markup of one-camera firms, which solves
    share + (price - cost) d share / d price = 0 at these prices.

    **Raises**

    `InvalidArgument` naming the argument.

    **References**

    Allenby, Brazell, Howell and Rossi (2014), Quantitative Marketing and Economics 12, for the
    experiment; Train and Weeks (2005), on willingness-to-pay space.

    ```python
    >>> cameras(tastes=8).names
    ('Canon $229', 'Sony $179', 'Nikon $129', 'Panasonic $129')

    ```
    """
    require_between("cameras(products=...)", products, 1, len(CAMERAS), whole=True)
    require_between("cameras(tastes=...)", tastes, 1, _DRAWS, whole=True)
    require_between("cameras(outside=...)", outside, -1e4, 1e4)
    folder = shipped("cameras", table, FILES)
    if folder is None:
        must = f"be a folder that holds {', '.join(FILES)}"
        got, do = "None, and there is none beside this package", "take `experiments/data`"
        raise InvalidArgument(describe("cameras(table=...)", must, got, do))
    traits = (*BRANDS, *FEATURES)
    rows = read_columns(folder / FILES[0], ("mean_usd", "sd_usd"), ("parameter",))
    law = {name: k for k, name in enumerate(rows["parameter"].tolist())}
    order = [law[name] for name in (*traits, SCALE)]
    covariance = np.zeros((len(order),) * 2)
    columns = read_columns(folder / FILES[1], traits)
    covariance[:-1, :-1] = _semidefinite(np.column_stack([columns[name] for name in traits]))
    covariance[-1, -1] = rows["sd_usd"][order[-1]] ** 2
    kinds = ("normal",) * len(traits) + ("lognormal",)
    drawn = TasteGrid.from_mixed_logit(rows["mean_usd"][order], covariance, kinds, _DRAWS)
    people, weights = np.asarray(drawn.points), np.asarray(drawn.weights)
    scale = 100 / people[:, -1]
    ones = np.ones((len(people), 1))
    points = np.hstack([-outside * ones, people[:, :-1], -ones])
    gamma = np.array([_row(camera) for camera in CAMERAS])[:products]
    money = gamma @ points.T
    shares, theta = _markups(money / scale, scale, weights)
    grid, taste_scale, error = thin(gamma, points, scale, weights, tastes)
    seen = read_columns(folder / FILES[2], ("share",), ("alternative",))
    prices = np.array([camera.price for camera in CAMERAS])[:products]
    return Market(
        name="digital cameras, choices of 332 people",
        names=tuple(f"{camera.brand.capitalize()} ${camera.price:g}" for camera in CAMERAS)[
            :products
        ],
        gamma=gamma,
        attributes=("one", *traits, "price"),
        tastes=grid,
        taste_scale=taste_scale,
        theta=theta,
        unit="USD",
        assumptions=(
            "Choices are stated, not made: nobody paid for a camera.",
            "The features and the price of each camera here are ours, from the levels shown.",
            (
                "theta is the markup of one-camera firms facing these people, each choosing among "
                "the cameras here or none."
            ),
            *(
                [f"Buying nothing is worth {outside:.4g} dollars more than in the experiment."]
                if outside
                else []
            ),
        ),
        source=(
            "camera conjoint of the R package bayesm (GPL-2 or later), estimates only: mixed logit "
            "in money, free covariance"
        ),
        diagnostics={
            "share_of_none": float(1 - shares.sum()),
            "share_of_none_observed": float(
                seen["share"][seen["alternative"].tolist().index("none")]
            ),
            "cost_min": float((prices - theta).min()),
            **spread(money, weights),
            **error,
        },
    )


def _row(camera: _Camera) -> list[float]:
    brand = [float(camera.brand == name) for name in BRANDS]
    return [1.0, *brand, *(float(name in camera.has) for name in FEATURES), camera.price]


def _semidefinite(matrix: np.ndarray) -> np.ndarray:
    """The nearest covariance: entries are rounded to whole squared dollars, which leaves -0.2."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.maximum(values, 0.0) @ vectors.T


def _markups(
    utils: np.ndarray, scale: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares s (n,) with all on the screen, and markups s_i / E[s_ia (1 - s_ia) / scale_a] (n,)."""
    chances = choice_chances(np.zeros(len(utils)), utils)
    return chances @ weights, chances @ weights / ((chances * (1 - chances) / scale) @ weights)
