"""From three choice models to markets: cereals, travel modes, and a train that was never built.

Cereals: shares are solved for mean utilities, tastes are those that pyblp's tutorial estimates.
Travel modes: a conditional logit of statsmodels' data, tastes varying with income. Swissmetro: a
mixed logit of the data that biogeme ships, by maximum likelihood over a quadrature; with a normal
coefficient of the cost a share of people like to pay, which is refused, with a lognormal one not.
Utils become money by `dynmech.applications.in_money`; each market is then solved and audited.

    python -m experiments.choice_models
"""

import importlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from dynmech.applications import in_money, mean_utilities
from experiments._figures import BLUE, GREY, RESULTS, new_figure, tidy
from experiments._output import Output
from experiments._quadrature import mixed_logit
from experiments._wheel import opened_wheel

Name = Literal["cereals", "modes", "swissmetro"]
QUERY, NOISE = 0.5, 0.5
SEEN, SAID = "share observed [%]", "share of the model [%]"
SWISSMETRO = "biogeme/data/data/swissmetro.dat"


@dataclass(frozen=True)
class Options:
    """Which models, and how finely."""

    names: tuple[Name, ...] = ("cereals", "modes", "swissmetro")
    """Needs pyblp, statsmodels, and the wheel of biogeme, in turn."""
    tastes: int = 32
    """Taste points, at most."""
    wheel: Path | None = None
    """Wheel of biogeme; else `pip download` of biogeme 3.3.2. It is read, not installed."""
    nodes: int = 9
    """Nodes of the quadrature of the mixed logit in each dimension."""
    results: Path = RESULTS
    """Folder; files go to `choice_models` inside."""


@dataclass(frozen=True)
class Model:
    """A choice model: products relative to what is chosen otherwise, tastes in utils."""

    unit: str
    gamma: pd.DataFrame
    tastes: dm.TasteGrid
    price: str
    seen: np.ndarray
    estimates: dict[str, float]
    said: list[str] = field(default_factory=list)


def cereals(options: Options) -> Model:
    """The five best-selling cereals of one city and quarter; 20 simulated shoppers."""
    data = _beside("pyblp") / "data"
    market = {"market_ids": "C01Q1"}
    goods, people = (_rows(data / f"nevo_{x}.csv", market) for x in ("products", "agents"))
    traits = np.column_stack([np.ones(len(goods)), goods[["prices", "sugar", "mushy"]]])
    sigma = np.array([0.55809, 3.31249, -0.00578, 0.09341])
    income = np.array([2.29197, 588.325, -0.38495, 0.74837])
    squared, age, child = (np.zeros(4) for _ in range(3))
    squared[1], child[1] = -30.1920, 11.0546
    age[[0, 2, 3]] = 1.28443, 0.05223, -1.35339
    mean_price = -62.7299
    own = people[[f"nodes{k}" for k in range(4)]].to_numpy() * sigma
    drawn = people[["income", "income_squared", "age", "child"]].to_numpy()
    own = own + drawn @ np.stack([income, squared, age, child])
    weights, shares = people["weights"].to_numpy(), goods["shares"].to_numpy()
    delta = mean_utilities(shares, traits @ own.T, weights)
    top = np.argsort(-shares)[:5]
    quality = delta - mean_price * goods["prices"].to_numpy()
    names = ["quality", "one", "price", "sugar", "mushy"]
    gamma = pd.DataFrame(np.column_stack([quality, traits])[top], columns=names)
    gamma.index = pd.Index(goods["product_ids"].to_numpy()[top])
    own[:, 1] += mean_price
    utils = np.column_stack([np.ones(len(own)), own])
    said = (
        "Estimates of pyblp's tutorial, on data that were made up like Nevo's (2001); prices are "
        "dollars a serving, and what is not bought here is bought elsewhere or not at all."
    )
    tastes = dm.TasteGrid(utils, weights, characteristics=names)
    estimates = {"mean price coefficient": mean_price, "mean utility, least": float(delta.min())}
    return Model("USD", gamma, tastes, "price", shares[top], estimates, [said])


def modes(options: Options) -> Model:
    """Plane, train and bus between Australian cities, the car being what one takes otherwise."""
    models = importlib.import_module("statsmodels.discrete.conditional_models")
    path = _beside("statsmodels") / "datasets" / "modechoice" / "modechoice.csv"
    data: Any = pd.read_csv(path, sep=";")
    names = ["air", "train", "bus"]
    for code, name in enumerate(names, 1):
        data[name] = (data["mode"] == code).astype(float)
    data["air by income"] = data["hinc"] * data["air"]
    columns = [*names, "ttme", "invc", "invt", "air by income"]
    fit = models.ConditionalLogit(data["choice"], data[columns], groups=data["individual"]).fit(
        disp=False
    )
    found = dict(zip(columns, np.asarray(fit.params, float).tolist()))
    mean = data.groupby("mode")[["ttme", "invc", "invt"]].mean().to_numpy()
    traits = [*names, "ttme", "invc", "invt"]
    gamma = np.column_stack([np.eye(3), mean[:3] - mean[3]])
    incomes = data.groupby("individual")["hinc"].first().to_numpy(float)
    utils = np.tile([found[name] for name in traits], (len(incomes), 1))
    utils[:, 0] += found["air by income"] * incomes
    tastes = dm.TasteGrid.from_samples(pd.DataFrame(utils, columns=traits), None, options.tastes)
    chosen = data[data["choice"] == 1]["mode"].value_counts(normalize=True)
    said = (
        "210 travellers, the less popular modes over-sampled, so that shares are those of the "
        "sample; each mode at its mean time and cost, less the car's."
    )
    table = pd.DataFrame(gamma, index=pd.Index(names), columns=traits)
    return Model(
        "AUD of 1987", table, tastes, "invc", chosen.loc[[1, 2, 3]].to_numpy(), found, [said]
    )


def swissmetro(options: Options) -> Model:
    """Train and Swissmetro, the car being what one takes otherwise: 5,607 stated choices."""
    with opened_wheel(options.wheel, "biogeme==3.3.2") as wheel:
        data: Any = pd.read_csv(io.BytesIO(wheel.read(SWISSMETRO)), sep="\t")
    known = data["PURPOSE"].isin([1, 3]) & (data["CHOICE"] != 0) & (data["CAR_AV"] == 1)
    data = data[known & (data["SP"] != 0) & (data["TRAIN_AV"] == 1)]
    free = (data["GA"] == 0).to_numpy(float)  # a season ticket costs nothing more
    time = data[["TRAIN_TT", "SM_TT", "CAR_TT"]].to_numpy(float) / 100
    cost = data[["TRAIN_CO", "SM_CO", "CAR_CO"]].to_numpy(float) / 100
    cost[:, :2] *= free[:, None]
    names = ["train", "swissmetro", "time", "cost"]
    modes_of = np.broadcast_to(np.eye(3)[:, :2], (len(data), 3, 2))
    traits = np.concatenate([modes_of, time[..., None], cost[..., None]], axis=2)
    choice = data["CHOICE"].to_numpy() - 1
    said, kinds = [], ["fixed", "fixed", "normal", "normal"]
    plain = mixed_logit(traits, choice, kinds, options.nodes)
    grid = dm.TasteGrid.from_mixed_logit(*plain.law, kinds, 1024)
    try:
        in_money(_named(grid, names), "cost")
    except dm.OutsideSupport as error:
        said.append(f"With a normal coefficient of the cost, refused: {error}")
    kinds, signs = ["fixed", "fixed", "normal", "lognormal"], [1, 1, 1, -1]
    better = mixed_logit(traits, choice, kinds, options.nodes, signs)
    grid = dm.TasteGrid.from_mixed_logit(*better.law, kinds, 1024, signs=signs)
    tastes = dm.TasteGrid.from_samples(
        pd.DataFrame(np.asarray(grid.points), columns=names), None, options.tastes
    )
    gamma = traits[:, :2].mean(axis=0) - traits[:, 2:].mean(axis=0)
    said.append(
        "Choices are stated, 9 or fewer by each person, taken as independent; each mode at its "
        "mean time (100 minutes) and cost (100 francs), less the car's."
    )
    estimates = dict(zip([*names, "sd of time", "sd of ln cost"], better.values))
    plainly = [f"{name}, normal cost" for name in (*names, "sd of time", "sd of cost")]
    estimates |= dict(zip(plainly, plain.values))
    estimates |= {"log likelihood": better.value, "log likelihood, normal cost": plain.value}
    table = pd.DataFrame(gamma, index=pd.Index(names[:2]), columns=names)
    seen = np.bincount(choice, minlength=3)[:2] / len(choice)
    return Model("100 CHF", table, tastes, "cost", seen, estimates, said)


READERS: dict[Name, Callable[[Options], Model]] = {
    "cereals": cereals,
    "modes": modes,
    "swissmetro": swissmetro,
}


def solve(model: Model) -> tuple[pd.DataFrame, dm.EfficientPolicy]:
    """The market of a model, what it predicts, and its efficient policy.

    theta is the Bertrand markup of one-product firms, s_i / E[s_i (1 - s_i) / scale].
    """
    tastes, scale = in_money(model.tastes, model.price, floor=0.05)
    gamma, weights = model.gamma.to_numpy(), np.asarray(tastes.weights)
    money = gamma @ np.asarray(tastes.points).T
    attraction = np.exp(money / scale)
    chances = attraction / (1 + attraction.sum(axis=0))
    share = chances @ weights
    theta = share / ((chances * (1 - chances) / scale) @ weights)
    mean = money @ weights
    noise = NOISE * float(np.sqrt(money.var(axis=1).max()))
    env = dm.RecommendationMDP(
        model.gamma,
        tastes,
        horizon=2,
        action_rule=dm.LastShownOnly(dm.Logit(scale), QUERY),
        signals=dm.SignalStructure(
            dm.NoSignals(), dm.RatingFeedback(noise, 3), dm.RatingSettlement(noise)
        ),
        values=dm.ConstantValues(theta[:, None] * np.array([0.8, 1.2])),
        names=[str(name) for name in model.gamma.index],
    )
    table = pd.DataFrame(
        {
            "product": env.names,
            SEEN: 100 * model.seen,
            SAID: 100 * share,
            f"mean utility [{model.unit}]": mean,
            f"sd of utility [{model.unit}]": np.sqrt((money - mean[:, None]) ** 2 @ weights),
            f"markup theta [{model.unit}]": theta,
        }
    )
    return table, dm.solve_efficient_policy(env, progress=False)


def main(options: Options) -> None:
    """Read, estimate, put into money, solve, audit."""
    out = Output(options.results / "choice_models", "the market's money")
    figure, axes = new_figure(
        4.2 * len(options.names), 3.4, ncols=len(options.names), squeeze=False
    )
    for name, axis in zip(options.names, axes[0], strict=True):
        model = READERS[name](options)
        out.heading(f"{name}, money in {model.unit}")
        assumed = (
            f"She asks again with chance {QUERY:g}, and rates with noise {NOISE:g} times the "
            "spread of utility; values are 0.8 or 1.2 times a markup: assumptions."
        )
        out.bullets([*model.said, assumed])
        found = {"estimate": list(model.estimates), "value [1]": list(model.estimates.values())}
        out.table(f"{name}_estimates", pd.DataFrame(found), "Estimates", show=False)
        out.say(
            "Estimates, utils: " + ", ".join(f"{k} {v:.4g}" for k, v in model.estimates.items())
        )
        table, policy = solve(model)
        out.table(name, table, "The market")
        audit = dm.DynamicTeamMechanism(policy, dm.groves.Participation()).audit()
        out.say(
            f"{policy.env.tastes.size} tastes; W = {policy.ex_ante_value:.4g} {model.unit} a "
            f"conversation; largest gain of a lie {audit.incentive_gain.max():.2g}."
        )
        place = np.arange(len(table))
        for shift, label, colour in ((-0.2, SEEN, GREY), (0.2, SAID, BLUE)):
            axis.bar(place + shift, table[label], 0.4, color=colour, label=label.split(" [")[0])
        axis.set_xticks(place, table["product"])
        tidy(axis, name, "", "share, %")
    axes[0, 0].legend(frameon=False, fontsize=8)
    out.picture("choice_models", figure)
    out.finish(options)


def _named(grid: dm.TasteGrid, names: list[str]) -> dm.TasteGrid:
    return dm.TasteGrid(grid.points, grid.weights, characteristics=names)


def _beside(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is needed: pip install 'dynmech[choice-models]'")
    return Path(found.origin).parent


def _rows(path: Path, where: dict[str, str]) -> pd.DataFrame:
    table: Any = pd.read_csv(path)
    for column, value in where.items():
        table = table[table[column] == value]
    return table


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
