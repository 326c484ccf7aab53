"""Real markets: demand reproduces sales, markups solve the firms' problem, money adds to money."""

import importlib.util
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

from dynmech import DynmechError
from dynmech.applications import Market, _demand, _market, _thin, cameras, cars, electricity
from dynmech.errors import InvalidArgument, MissingExtra
from tests.helpers import ROOT

DATA = ROOT / "experiments" / "data"
CAR = {"products": 8, "tastes": 200}


def alone(market):
    """Chance of buying each product when it alone is on screen, (n, m)."""
    return 1 / (1 + np.exp(-market.utilities / market.taste_scale))


@pytest.fixture(scope="module")
def demand():
    return _demand.estimate(*_demand.load(1990, None))


@pytest.fixture
def no_pyblp(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_shares_are_those_of_a_logit_integrated_over_agents(demand):
    # Written out per agent, from the published numbers alone.
    predicted = np.zeros(len(demand.ids))
    for weight, nodes, alpha in zip(demand.weights, demand.nodes, demand.alpha):
        utils = demand.delta + demand.x @ (_demand.SIGMA * nodes) - alpha * demand.prices
        predicted += weight * np.exp(utils) / (1 + np.exp(utils).sum())
    # The contraction stops at 1e-13 in every log share; shares are below 0.005.
    np.testing.assert_allclose(predicted, demand.shares, rtol=0, atol=1e-12)


@pytest.mark.parametrize("year", [1971, 1980, 1990])
def test_markups_solve_the_first_order_conditions(year):
    products, agents = _demand.load(year, None)
    demand = _demand.estimate(products, agents)
    order = np.argsort(-products["shares"], kind="stable")
    firms = products["firm_ids"][order]

    def shares(prices):
        utils = demand.delta[:, None] + demand.x @ (demand.nodes * _demand.SIGMA).T
        e = np.exp(utils - np.outer(prices, demand.alpha))
        return e / (1 + e.sum(axis=0)) @ demand.weights

    costs = demand.prices - demand.markups
    for k in (0, 3, len(costs) - 1):
        # d profit / d p_k by a complex step, which is exact to rounding.
        prices = demand.prices.astype(complex)
        prices[k] += 1e-30j
        mine = firms == firms[k]
        slope = (((prices - costs) * shares(prices))[mine].sum()).imag / 1e-30
        assert abs(slope) < 1e-8 * demand.shares[k]
    assert (costs > 0).all()


def test_figures_published_with_the_calibration(demand):
    market = cars(1990, **CAR)
    figures = market.diagnostics
    assert figures["share_residual"] < 8e-13
    assert demand.elasticities.mean() == pytest.approx(-3.94, abs=0.005)
    assert figures["conversion"] == pytest.approx(0.5, abs=1e-4)
    assert figures["share_correlation"] == pytest.approx(0.918, abs=5e-4)
    assert figures["share_total_variation"] == pytest.approx(0.048, abs=6e-4)
    assert (figures["utility_min"], figures["utility_max"]) == pytest.approx((-185, 105), abs=0.5)
    assert market.theta[0] == pytest.approx(2.489334, abs=1e-6)
    assert market.names[0] == "Honda Accord"
    assert figures["utility_correlation"] > 0.95


@pytest.mark.parametrize("price_floor", [0.0, 0.05, 0.5])
def test_money_is_utils_over_the_price_coefficient(demand, price_floor):
    market = cars(1990, **CAR, price_floor=price_floor, outside=1.5)
    taste = demand.x @ (demand.nodes * _demand.SIGMA).T - np.outer(demand.prices, demand.alpha)
    utils = (demand.delta[:, None] + taste)[:8] - 1.5
    size = np.maximum(demand.alpha, np.quantile(demand.alpha, price_floor))
    # Sums of a few numbers of at most 1e4, so rounding is below 1e-11.
    np.testing.assert_allclose(market.utilities, utils / size, rtol=1e-11, atol=1e-9)
    # Whatever the floor, choices are those of the estimated model.
    np.testing.assert_allclose(market.utilities / market.taste_scale, utils, rtol=1e-11, atol=1e-9)
    price = market.attributes.index("price")
    np.testing.assert_array_less(-1 - 1e-12, market.tastes.points[:, price])
    if price_floor == 0:
        np.testing.assert_allclose(market.tastes.points[:, price], -1, rtol=1e-12)


def test_the_shopper_is_a_buyer(demand):
    for shoppers, rows in (("market", slice(None)), ("chosen", slice(8))):
        buys = demand.weights * demand.chances[rows].sum(axis=0)
        market = cars(1990, **CAR, shoppers=shoppers)
        np.testing.assert_allclose(market.tastes.weights, buys / buys.sum(), rtol=1e-12)


@pytest.mark.parametrize("conversion", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("selection", ["best-sellers", "segments"])
def test_outside_value_hits_the_conversion_asked_for(conversion, selection):
    market = cars(outside=None, conversion=conversion, selection=selection)
    attraction = np.exp(market.utilities / market.taste_scale).sum(axis=0)
    bought = float(market.tastes.weights @ (attraction / (1 + attraction)))
    assert bought == pytest.approx(conversion, abs=1e-10)
    assert market.diagnostics["conversion"] == pytest.approx(conversion, abs=1e-10)


def test_segments_are_less_alike_than_best_sellers():
    for n in (2, 5, 8, 12):
        both = [cars(products=n, selection=how) for how in ("best-sellers", "segments")]
        assert all(len(set(market.names)) == n for market in both)
        alike = [market.diagnostics["utility_correlation"] for market in both]
        assert alike[1] < alike[0] - 0.05


def test_cars_can_be_named():
    market = cars(selection=("GOMETR90", "HDACCO90"))
    assert market.names == ("Geo Metro", "Honda Accord")
    np.testing.assert_array_equal(market.gamma[1], cars(products=1).gamma[0])
    everything = cars(products=131)
    assert len(set(everything.names)) == 131


@pytest.mark.parametrize("selection", ["best-sellers", "segments"])
def test_fewer_tastes_keep_means_and_nearly_keep_choices(selection):
    full = cars(selection=selection)
    for size, allowed in ((32, 0.02), (64, 0.01), (128, 0.005)):
        small = cars(selection=selection, tastes=size)
        assert small.tastes.size == size
        np.testing.assert_allclose(
            small.utilities @ small.tastes.weights, full.utilities @ full.tastes.weights, rtol=1e-10
        )
        before, after = (alone(market) @ market.tastes.weights for market in (full, small))
        error = np.abs(after - before).max()
        assert error == pytest.approx(small.diagnostics["grid_error"], abs=1e-12)
        assert error < allowed


def test_clusters_are_exact_filled_and_repeatable():
    rng = np.random.default_rng(3)
    rows, weights = rng.normal(size=(60, 3)) ** 3, rng.uniform(0.1, 5.0, size=60)
    for size in (1, 2, 7, 59, 60):
        groups = _thin.cluster(rows, weights, size)
        assert set(groups.tolist()) == set(range(size))
        np.testing.assert_array_equal(groups, _thin.cluster(rows, weights, size))
    # Three far-off heaps are found.
    heaps = np.repeat(np.eye(3) * 100, 20, axis=0) + rows / 100
    groups = _thin.cluster(heaps, weights, 3)
    assert all(len(set(groups[i : i + 20].tolist())) == 1 for i in (0, 20, 40))


def test_shipped_cars_are_those_of_a_fresh_calibration():
    fresh, shipped = cars(products=131), cars(products=131, table=DATA)
    assert fresh.names == shipped.names
    for name in ("gamma", "theta", "taste_scale", "utilities"):
        np.testing.assert_array_equal(getattr(fresh, name), getattr(shipped, name))
    assert fresh.diagnostics == shipped.diagnostics
    added = _market.read_columns(
        DATA / "cars_products.csv", ("quality", "markup", "cost", "prices"), ("label",)
    )
    np.testing.assert_allclose(added["quality"], fresh.gamma[:, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(added["markup"], fresh.theta, rtol=0, atol=1e-6)
    np.testing.assert_allclose(added["cost"], added["prices"] - fresh.theta, rtol=0, atol=1e-6)
    assert tuple(added["label"].tolist()) == fresh.names


def test_cars_without_pyblp_come_from_the_shipped_tables(no_pyblp, tmp_path, monkeypatch):
    assert cars().names[0] == "Honda Accord"
    with pytest.raises(MissingExtra, match=r"cars\(year=1985\).*pip install 'dynmech\[data\]'"):
        cars(year=1985)
    with pytest.raises(InvalidArgument, match=r"cars\(year=\.\.\.\).*1985"):
        cars(year=1985, table=DATA)
    monkeypatch.setattr(_market, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(MissingExtra, match="pyblp"):
        cars()
    with pytest.raises(InvalidArgument, match=r"electricity\(table=\.\.\.\).*None"):
        electricity()


def test_electricity_figures():
    market = electricity(tastes=361)
    figures = market.diagnostics
    assert figures["log_likelihood"] == pytest.approx(-3888.5, abs=0.05)
    assert figures["log_likelihood_plain_logit"] == pytest.approx(-4958.6, abs=0.06)
    assert figures["choice_correlation"] == pytest.approx(0.987, abs=5e-4)
    assert figures["cost_min"] > 0
    assert figures["grid_error"] == 0
    # Within 1% of an independent calibration with other draws.
    expected = [1.54907, 1.25934, 1.46066, 1.22388, 2.23041, 1.16227, 1.61389, 1.54175]
    np.testing.assert_allclose(market.theta, expected, rtol=0.01)
    quartiles = np.quantile(market.utilities - 7.5, [0.25, 0.5])
    np.testing.assert_allclose(quartiles, [-9.1, -7.5], atol=0.05)


@pytest.mark.parametrize("price_floor", [0.0, 0.25])
def test_electricity_money_is_utils_over_the_price_coefficient(price_floor):
    market = electricity(tastes=361, outside=-6.0, price_floor=price_floor)
    columns = _market.read_columns(DATA / "electricity_households.csv", market.attributes[1:])
    utils = np.column_stack(list(columns.values()))
    size = np.maximum(-utils[:, 0], np.quantile(-utils[:, 0], price_floor))
    money = market.gamma[:, 1:] @ utils.T / size + 6.0
    np.testing.assert_allclose(market.utilities, money, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(market.taste_scale, 1 / size, rtol=1e-14)


def test_electricity_markups_solve_the_first_order_conditions():
    # By quasi-random draws of the shipped estimates, other than those of the calibration; the
    # largest error of the two is about half a per cent.
    market = electricity(tastes=4096, prior="population", outside=0.0)
    utils = market.utilities / market.taste_scale
    chances = np.exp(utils - utils.max(axis=0))
    chances /= chances.sum(axis=0)
    slope = (chances * (1 - chances) / market.taste_scale).mean(axis=1)
    np.testing.assert_allclose(market.theta * slope, chances.mean(axis=1), rtol=0.01)


def test_the_population_varies_more_than_household_means():
    wide, narrow = electricity(tastes=361, prior="population"), electricity(tastes=361)
    assert (wide.utilities.std(axis=1) > narrow.utilities.std(axis=1) - 1e-9).all()
    assert electricity(products=3).names == narrow.names[:3]


@pytest.mark.parametrize("build", [cars, electricity])
def test_a_market_is_labelled_deterministic_data(build):
    market = build(tastes=50)
    again = build(tastes=50)
    n, m = market.utilities.shape
    assert (n, m) == (8, 50) == (len(market.theta), len(market.taste_scale))
    assert all(array.dtype == np.float64 for array in (market.gamma, market.theta))
    assert eqx.tree_equal(market, again)
    assert market.unit in {"thousand 1983 USD", "c/kWh"}
    assert all(sentence.endswith(".") for sentence in market.assumptions)
    assert market.tastes.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (market.theta > 0).all()
    assert np.isfinite(list(market.diagnostics.values())).all()


@pytest.mark.parametrize(
    ("build", "argument", "value"),
    [
        (cars, "year", 1991),
        (cars, "year", 1970),
        (cars, "products", 0),
        (cars, "products", 132),
        (cars, "tastes", 0),
        (cars, "tastes", 201),
        (cars, "tastes", True),
        (cars, "selection", "cheapest"),
        (cars, "selection", ()),
        (cars, "selection", ("HDACCO90", "NOSUCH90")),
        (cars, "selection", ("HDACCO90", "HDACCO90")),
        (cars, "outside", float("nan")),
        (cars, "conversion", 1.0),
        (cars, "price_floor", -0.1),
        (cars, "shoppers", "everyone"),
        (cars, "table", Path("nowhere")),
        (electricity, "products", 9),
        (electricity, "tastes", 362),
        (electricity, "outside", float("inf")),
        (electricity, "prior", "mixed"),
        (electricity, "price_floor", 2),
        (electricity, "table", "nowhere"),
    ],
)
def test_mistakes_are_named(build, argument, value):
    call = rf"{build.__name__}\({argument}=\.\.\.\).* must .*; got "
    with pytest.raises(InvalidArgument, match=call) as caught:
        build(**{argument: value})
    assert isinstance(caught.value, DynmechError)


def test_tables_with_bad_content_are_refused(tmp_path):
    for name in _demand.FILES:
        (tmp_path / name).write_text((DATA / name).read_text())
    path = tmp_path / "cars_products.csv"
    good = path.read_text()
    for old, new, says in (
        (",hpwt,", ",power,", "hpwt"),
        (",9.292272379495,", ",n/a,", "prices"),
        (",0.004423392569,", ",0.95,", "shares"),
        (",0.004423392569,", ",-0.1,", "shares"),
    ):
        assert old in good
        path.write_text(good.replace(old, new))
        with pytest.raises(InvalidArgument, match=says):
            cars(table=tmp_path)


def test_market_refuses_shapes_that_disagree():
    market = cars(tastes=20)
    for name, value in (
        ("names", market.names[:-1]),
        ("names", market.names[:-1] + market.names[:1]),
        ("attributes", market.attributes[1:]),
        ("taste_scale", -market.taste_scale),
    ):
        fields = {key: getattr(market, key) for key in Market.__dataclass_fields__}
        with pytest.raises(InvalidArgument, match=rf"Market\({name}="):
            Market(**{**fields, name: value})


def test_cameras_have_the_estimated_law_and_markups_that_solve_the_first_order_conditions():
    market = cameras(tastes=4096)
    weights, points = np.asarray(market.tastes.weights), np.asarray(market.tastes.points)
    rows = _market.read_columns(DATA / "cameras_tastes.csv", ("mean_usd", "sd_usd"))
    mean, spread = weights @ points, np.sqrt(weights @ points**2 - (weights @ points) ** 2)
    np.testing.assert_allclose(mean[1:-1], rows["mean_usd"][:-1], atol=0.5)
    np.testing.assert_allclose(spread[1:-1], rows["sd_usd"][:-1], rtol=0.02)
    assert np.allclose(points[:, -1], -1)
    assert 0.15 < market.diagnostics["share_of_none"] < 0.35  # .253 over all that was shown
    price = market.gamma[:, -1].astype(complex)
    for i, theta in enumerate(market.theta):
        moved = price.copy()
        moved[i] += 1e-30j
        e = np.exp((market.gamma[:, :-1] @ points[:, :-1].T - moved[:, None]) / market.taste_scale)
        share = (e / (1 + e.sum(axis=0)) @ weights)[i]
        assert share.real + theta * share.imag / 1e-30 == pytest.approx(0, abs=1e-12)


def test_the_value_of_no_camera_is_subtracted_and_few_tastes_keep_the_means():
    free, held = cameras(2, 16), cameras(2, 16, outside=25.0)
    fine = cameras(2, 4096)
    mean = fine.utilities @ fine.tastes.weights
    np.testing.assert_allclose(free.utilities @ free.tastes.weights, mean, atol=1e-9)
    np.testing.assert_allclose(held.utilities @ held.tastes.weights, mean - 25.0, atol=1e-9)
    with pytest.raises(InvalidArgument, match="cameras"):
        cameras(5)
