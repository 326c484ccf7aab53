"""Procurement settled on costs read off a consumer market: section 5.3, (20), Corollary 1.

Costs of real brands by (20) from estimated demand; the pivot b_i - b_j + c_hat_j beside its
rivals; estimates from simulated markets: error of c_hat and epsilon of the equilibrium against
sample size; and (20) used where it does not belong, on cars.

Run `python -m experiments.procurement --help`.
"""

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pandas as pd
import tyro

from dynmech import TasteGrid, applications, static
from experiments._figures import BLUE, GREEN, GREY, ORANGE, RED, RESULTS, new_figure, tidy
from experiments._output import Output

TABLE = Path(__file__).resolve().parent / "data" / "procurement_scanner.csv"
SHOCKS = (-1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Options:
    """Recover costs, settle the auction on them, and measure epsilon as the sample grows."""

    results: Path = RESULTS
    """Folder; tables and pictures go to its `procurement` subfolder."""
    category: Literal["Yogurt", "Cracker", "Catsup"] = "Yogurt"
    """Whose brands bid."""
    outside: float = 0.3
    """Assumed share of trips on which nothing is bought (the panels hold purchases only)."""
    values: tuple[float, ...] = (0.9, 1.0, 1.1)
    """A seller's private cost factor, times the cost recovered."""
    shock: float = 0.2
    """The common shock moves all costs by this fraction up or down, or not at all."""
    accuracy: float = 0.8
    """Chance that a seller's signal points the way of the shock."""
    samples: tuple[int, ...] = (400, 1_600, 6_400, 25_600, 102_400, 409_600)
    """Consumers in the test markets from which demand is estimated."""
    markets: int = 20
    """Test markets, prices drawn around those observed."""
    replications: int = 100
    """Samples of each size."""
    seed: int = 0
    """Seed of the samples."""


def read_table() -> pd.DataFrame:
    """Read the demand and costs shipped in experiments/data."""
    return pd.read_csv(TABLE)


def real_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Recover costs by (20) at mean prices and shares, and solve prices from them again."""
    parts = []
    for _, rows in table.groupby("category", sort=False):
        price, share = rows["price"].to_numpy(), rows["model_share"].to_numpy()
        share = share / share.sum()
        demand = static.LogitDemand.from_shares(rows["alpha"].iloc[0], price, share, outside=False)
        cost = static.recover_costs(price, demand, share)
        again = static.spot_equilibrium(demand, cost)
        parts.append(
            pd.DataFrame(
                {
                    "category": rows["category"],
                    "brand": rows["brand"],
                    "price [price]": price,
                    "share [%]": 100 * share,
                    "alpha [1/price]": rows["alpha"],
                    "s.e. [1/price]": rows["alpha_deviation"],
                    "markup [price]": price - cost,
                    "cost, (20) [price]": cost,
                    "price solved less observed [price]": [
                        f"{x:.1e}" for x in again.prices - price
                    ],
                    "first-order residual [price]": f"{again.residual:.1e}",
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Setting:
    """One category's market: demand with an outside option, costs, and the auction."""

    brands: list[str]
    prices: np.ndarray
    spread: np.ndarray
    demand: static.LogitDemand
    costs: np.ndarray
    auction: static.Procurement


def setting(options: Options, table: pd.DataFrame) -> Setting:
    """Build the auction: b_i the retail price, c_i = theta_i (1 + omega)."""
    rows = pd.DataFrame(table[table["category"] == options.category])
    prices, share = rows["price"].to_numpy(), rows["model_share"].to_numpy()
    share = share / share.sum() * (1 - options.outside)
    demand = static.LogitDemand.from_shares(rows["alpha"].iloc[0], prices, share)
    costs, n = static.recover_costs(prices, demand), len(prices)
    up = np.array([1 - options.accuracy, 0.5, options.accuracy])
    auction = static.Procurement(
        lambda i, theta, omega: theta * (1 + omega[0]),
        prices,
        TasteGrid(options.shock * np.array(SHOCKS)[:, None], np.full(3, 1 / 3)),
        np.outer(costs, options.values),
        static.PrivateSignals.independent([np.stack([1 - up, up], axis=1)] * n),
        names=rows["brand"].tolist(),
    )
    spread = rows["price_deviation"].to_numpy()
    return Setting(rows["brand"].tolist(), prices, spread, demand, costs, auction)


def constructed() -> static.Procurement:
    """Build three sellers of unlike exposure to the shock, whose signals move who is second."""
    exposure = np.array([1.0, 0.2, -0.5])
    clue = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    return static.Procurement(
        lambda i, theta, omega: theta + exposure[i] * omega[0],
        [10.0, 9.0, 9.5],
        TasteGrid([[-1.0], [0.5], [2.0]], [0.3, 0.4, 0.3]),
        [[4.0, 5.0], [3.0, 4.2], [4.0, 4.5]],
        static.PrivateSignals.independent([clue] * 3),
    )


def mechanisms(options: Options, auction: static.Procurement) -> tuple[pd.DataFrame, list[str]]:
    """Audit the pivot with several sources of cost estimates, and what fails; the lies found."""
    env = auction.env
    exact = static.data_driven_vcg(env, groves="pivot", name="pivot, costs observed")
    chosen = env.efficient_allocation()
    winners = [
        np.where((chosen == i)[..., None], exact.transfer[i], 0.0) for i in range(env.agents)
    ]
    noisy = static.Estimator.gaussian(env.states, options.shock)
    rows, lies = [], []
    for mechanism in (
        exact,
        static.data_driven_vcg(env, noisy, "pivot", "pivot, noisy input price"),
        static.DirectMechanism(env, chosen, winners, exact.law, "winner paid, losers not"),
        static.message_vcg(env, "pivot"),
        static.message_vcg(env, "informed"),
    ):
        audit = mechanism.audit()
        worst = int(np.argmax(audit.incentive_gain))
        if audit.epsilon > audit.tolerance:
            lies.append(f"{mechanism.name}: {audit.witness[worst].sentence()}")
        rows.append(
            {
                "mechanism": mechanism.name,
                "largest gain [price]": audit.epsilon,
                "worst participation [price]": float(np.nanmin(audit.participation)),
                "rent, ex ante [price]": float(audit.ex_ante_participation.sum()),
                "left to the buyer, ex ante [price]": float(audit.ex_ante_no_subsidy.sum()),
            }
        )
    return pd.DataFrame(rows), lies


def estimates(options: Options, given: Setting, consumers: int, rng: np.random.Generator):
    """Estimate demand from test markets, once for each replication."""
    n = len(given.prices)
    for _ in range(options.replications):
        draws = given.prices + given.spread * rng.normal(size=(options.markets, n))
        draws = np.maximum(draws, 0.2 * given.prices)
        parts = given.demand.shares(draws)
        parts = np.column_stack([parts, 1 - parts.sum(axis=1)])
        per = consumers // options.markets
        counts = np.stack([rng.multinomial(per, p / p.sum()) for p in parts])
        yield static.estimate_logit(draws, counts).demand


def consistency(options: Options, given: Setting) -> pd.DataFrame:
    """Measure errors of c_hat (at mean costs) and epsilon for each sample size.

    Prices are those of the spot equilibrium at every profile of costs. `epsilon` is Definition
    6's, the estimate being unknown when sellers report: it takes the mean error. `epsilon, demand
    known` is for sellers who know the estimate of demand before they report: the mean over samples.
    """
    auction, rng = given.auction, np.random.default_rng(options.seed)
    true = auction.costs()
    spot = static.spot_equilibrium(given.demand, true)
    base = static.spot_equilibrium(given.demand, given.costs).prices
    rows = []
    for consumers in options.samples:
        errors, known, bench = [], [], []
        for found in estimates(options, given, consumers, rng):
            error = static.recover_costs(spot.prices, found) - true
            errors.append(error)
            bench.append(static.recover_costs(base, found) - given.costs)
            known.append(auction.epsilon_bounds(error).reports.max())
        wrong, one = np.stack(errors), np.stack(bench)
        bounds = auction.epsilon_bounds(wrong.mean(axis=0), np.abs(wrong).mean(axis=0))
        count = len(known)
        rows.append(
            {
                "consumers": consumers,
                "rms error of c_hat [price]": float(np.sqrt((one**2).mean())),
                "mean error [price]": float(one.mean()),
                "its s.e. [price]": float(one.mean(axis=1).std(ddof=1) / np.sqrt(count)),
                "epsilon [price]": float(bounds.reports.max()),
                "Lemma 1 [price]": float(bounds.lemma1.max()),
                "(22) [price]": float(bounds.lemma2_posterior.max()),
                "(23) [price]": float(bounds.lemma2_state.max()),
                "epsilon, demand known [price]": float(np.mean(known)),
                "its s.e., known [price]": float(np.std(known, ddof=1) / np.sqrt(count)),
            }
        )
    return pd.DataFrame(rows)


def cars(out: Output) -> pd.DataFrame | None:
    """Use (20) on the cars of Berry, Levinsohn and Pakes with a plain logit, by pyblp."""
    found = importlib.util.find_spec("pyblp")
    if found is None:
        out.say(
            "pyblp is not installed, so the cars are left out; run: pip install 'dynmech[data]'"
        )
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pyblp

        pyblp.options.verbose = False
        products = pd.read_csv(pyblp.data.BLP_PRODUCTS_LOCATION)
        data = {str(name): products[name].to_numpy() for name in products}
        formula = pyblp.Formulation("1 + hpwt + air + mpd + space + prices")
        result = pyblp.Problem(formula, data).solve(method="1s")
    price = list(result.beta_labels).index("prices")
    alpha = -float(np.asarray(result.beta).ravel()[price])
    rows = []
    for year, cohort in products.groupby("market_ids"):
        money, share = cohort["prices"].to_numpy(), cohort["shares"].to_numpy()
        demand = static.LogitDemand.from_shares(alpha, money, share)
        logit = static.recover_costs(money, demand, share)
        market = applications.cars(int(str(year)), products=len(cohort), tastes=200, price_floor=0)
        column = market.attributes.index("price")
        full = market.gamma[:, column] - market.theta
        order = np.argsort(-share, kind="stable")
        rows.append(
            pd.DataFrame(
                {
                    "year": int(str(year)),
                    "car": market.names,
                    "price [thousand 1983 USD]": money[order],
                    "cost, plain logit and (20) [thousand 1983 USD]": logit[order],
                    "cost, BLP (1995) [thousand 1983 USD]": full,
                }
            )
        )
    table = pd.concat(rows, ignore_index=True)
    wrong = table["cost, plain logit and (20) [thousand 1983 USD]"] < 0
    right = table["cost, BLP (1995) [thousand 1983 USD]"] < 0
    out.say(
        f"WARNING: with the plain logit (alpha {alpha:.4g}, instrumented), (20) gives "
        f"{wrong.sum()} of {len(table)} cars a negative cost. One alpha for all buyers gives every "
        f"car of a small share the same markup, 1/alpha = {1 / alpha:.3g} thousand dollars, above "
        f"the price of the cheap ones; and these firms price many cars at once. With the "
        f"random coefficients of Berry, Levinsohn and Pakes and multi-product firms, "
        f"{right.sum()} are negative (`dynmech.applications.cars`). Use (20) for firms of one "
        "product each, and look at the signs."
    )
    return table


def picture_consistency(table: pd.DataFrame, out: Output) -> None:
    """Errors and epsilon on logarithmic axes, with the slope -1/2 for the eye."""
    figure, axes = new_figure(10.0, 4.0, ncols=2)
    size = table["consumers"].to_numpy(float)
    series = (
        (axes[0], "rms error of c_hat [price]", "root mean square error of a cost", BLUE, "o-"),
        (axes[1], "epsilon, demand known [price]", "epsilon, demand estimate known", RED, "s-"),
        (axes[1], "epsilon [price]", "epsilon (Definition 6); 0 where not drawn", GREEN, "o-"),
        (axes[1], "Lemma 1 [price]", "its bound by Lemma 1", ORANGE, "v--"),
        (axes[1], "(23) [price]", "its bound (23)", GREY, "^--"),
    )
    for ax, column, label, colour, style in series:
        height = table[column].to_numpy(float)
        shown = height > 0
        ax.plot(size[shown], height[shown], style, color=colour, label=label, markersize=5)
    first = table["rms error of c_hat [price]"].iloc[0]
    axes[0].plot(size, first * np.sqrt(size[0] / size), ":", color=GREY, label="slope -1/2")
    for ax, title in zip(axes, ("Costs by (20)", "Gain from lying, and its bounds"), strict=True):
        ax.set_xscale("log")
        ax.set_yscale("log")
        tidy(ax, title, "consumers in the test markets", out.unit)
        ax.legend(fontsize=8, frameon=False)
    out.picture("consistency", figure)


def picture_cars(table: pd.DataFrame, out: Output) -> None:
    """Costs against prices: (20) with a plain logit, and the published model."""
    figure, axes = new_figure(10.0, 4.0, ncols=2, sharey=True)
    columns = [name for name in table if str(name).startswith("cost")]
    titles = ("Plain logit and (20): negative in red", "Berry, Levinsohn and Pakes (1995)")
    price = table["price [thousand 1983 USD]"]
    for ax, column, title in zip(axes, columns, titles, strict=True):
        cost = table[column]
        colour = np.where(cost < 0, RED, BLUE)
        ax.scatter(price, cost, s=5, c=colour, linewidths=0)
        ax.plot([0, price.max()], [0, price.max()], ":", color=GREY, linewidth=1)
        tidy(ax, title, "price, thousand 1983 USD", "cost, thousand 1983 USD", zero=True)
    axes[1].text(0.6 * price.max(), 0.68 * price.max(), "cost = price", color=GREY, fontsize=8,
                 ha="right")  # fmt: skip
    out.picture("cars", figure)


def main(options: Options) -> None:
    """Run every part, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "procurement", "the panel's price unit")
        table = read_table()
        out.heading("Costs by (20), from scanner data")
        out.say(
            "Demand by xlogit on household panels (experiments/data); shares are of purchases, "
            "without an outside option. Prices solved again from these costs return those observed."
        )
        out.table("costs", real_costs(table), "Demand and costs; prices in each panel's unit")
        given = setting(options, table)
        out.heading(f"Procurement of {options.category.lower()}: the pivot and its rivals")
        factors = ", ".join(f"{x:g}" for x in options.values)
        out.bullets(
            [
                f"Sellers {', '.join(given.brands)}; b_i is the retail price, an assumption.",
                (
                    f"c_i = theta_i (1 + omega): theta_i the cost by (20) times one of {factors}, "
                    f"omega in -{options.shock:g}, 0, {options.shock:g}, assumptions; each seller "
                    f"sees one signal of it, right with chance {options.accuracy:g}."
                ),
                (
                    f"{100 * options.outside:g}% of trips end without a purchase, an assumption "
                    "that moves the share in (20) and with it the costs."
                ),
                (
                    "Ex ante: over equally likely values, the shock and signals. 'Left to the "
                    "buyer' is E[b_w] less all payments."
                ),
            ]
        )
        rivals, lies = mechanisms(options, given.auction)
        out.table("mechanisms", rivals, "Worst over type profiles")
        out.bullets(lies)
        out.say(
            "The section prints the winner's transfer only. A loser whose signal changes which of "
            "the others is best must be paid (b_w - c_w) - (b_j - c_j). Among these brands leaving "
            "that out does no harm; with unlike exposures to the shock it does:"
        )
        rivals, lies = mechanisms(options, constructed())
        out.table("constructed", rivals, "Three constructed sellers, worst over type profiles")
        out.bullets(lies)
        out.heading("Corollary 1: consistency and epsilon")
        found = consistency(options, given)
        out.table("consistency", found, f"{options.replications} samples of each size")
        size = np.log(found["consumers"].to_numpy(float))
        slope = np.polyfit(size, np.log(found["rms error of c_hat [price]"]), 1)[0]
        out.say(
            f"The error of c_hat falls with the sample to the power {slope:.3f}. Epsilon is 0 once "
            "the mean error is too small to close any gap between finitely many types. Mean errors "
            "carry the noise of the samples, of which Lemma 1's bound is the largest entry."
        )
        picture_consistency(found, out)
        out.heading("Where (20) does not belong: cars")
        wrong = cars(out)
        if wrong is not None:
            out.table("cars", wrong, "Costs of cars", show=False)
            picture_cars(wrong, out)
        out.finish(options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
