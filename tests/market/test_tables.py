"""Markets as folders of tables: written and read back digit by digit, mistakes blamed by line."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import random_market

PRODUCTS = "name,size,price,theta\nbig,2.0,-1,0.5\nsmall,0.5,-0.4,0.3\n"
CHANCES = "name,size,price,theta_1,theta_2,chance_1,chance_2\n"
CHANCES += "big,2,-1,0.2,0.5,0.5,0.5\nsmall,1,-1,0.2,0.5,0.5,0.6\n"
TASTES = "weight,price,size\n0.25,1.0,0.2\n0.75,1.0,0.9\n"
MARKET = """horizon = 3

[behaviour]
rule = "LastShownOnly"
choice = "Logit"
scale = 0.5
query = [0.6, 0.8]

[signals]
platform = 2.0

[feedback]
noise = 0.7
symbols = 3

[values]
interval = [0.0, 1.0]

[money]
unit = "USD"
"""


def folder(path, products=PRODUCTS, tastes=TASTES, market=MARKET):
    for name, text in (("products.csv", products), ("tastes.csv", tastes), ("market.toml", market)):
        if text is not None:
            (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "chance"),
    [("0.4", 0.4), ("[0.2, 0.9]", [0.2, 0.9]), ("{ intercept = -1.0, slope = 0.5 }", None)],
)
def test_ratings_that_need_not_come_are_read_and_written(tmp_path, text, chance):
    given = "" if chance else 'given = "rating"'
    market = (
        f"{MARKET}\n[settlement]\ndeviation = 0.3\nlimits = [-5, 5]\nchance = {text}\n{given}\n"
    )
    env = dm.read_market(folder(tmp_path, market=market))
    (tmp_path / "again").mkdir()
    env.write(tmp_path / "again")
    for one in (env, dm.read_market(tmp_path / "again")):
        sent: Any = one.signals.settlement
        assert sent.rating.deviation == 0.3
        assert sent.rating.limits == (-5.0, 5.0)
        if chance is None:
            assert (float(sent.chance.intercept), float(sent.chance.slope)) == (-1.0, 0.5)
        else:
            np.testing.assert_array_equal(sent.chance, chance)
    with pytest.raises(dm.InvalidProbability, match=r"market.toml.*line"):
        dm.read_market(folder(tmp_path, market=market.replace(text, "1.5").replace(given, "")))


def test_a_folder_is_the_market_by_hand(tmp_path):
    env = dm.read_market(folder(tmp_path))
    rule = dm.LastShownOnly(dm.Logit(0.5), dm.ProductQuery([0.6, 0.8]))
    by_hand = dm.RecommendationMDP(
        [[2.0, -1], [0.5, -0.4]],
        dm.TasteGrid(np.array([[0.2, 1.0], [0.9, 1.0]]), np.array([0.25, 0.75])),
        3,
        rule,
        dm.SignalStructure(
            dm.GaussianSignals(platform=2.0), dm.RatingFeedback(noise=0.7, symbols=3)
        ),
        dm.ConstantValues([0.5, 0.3], interval=[0.0, 1.0]),
        ["big", "small"],
    )
    first, second = (dm.solve_efficient_policy(x, progress=False) for x in (env, by_hand))
    assert env.names == ("big", "small")
    np.testing.assert_array_equal(first.value, second.value)


def markets():
    gamma, points = [[1.0, -0.5], [-0.4, 0.9]], np.array([[1.0, 0.1], [0.3, 1.0], [0.5, 0.6]])
    grid = dm.TasteGrid(points, np.array([0.2, 0.3, 0.5]))
    kernel = np.array([[[0.7, 0.3], [0.2, 0.8]]] * 2)
    for rule, signals, values in (
        (
            dm.PerfectRecall(dm.Threshold(), query=1 / 3),
            dm.SignalStructure(dm.NoSignals(), dm.NoFeedback(), dm.RatingSettlement(0.1)),
            dm.ConstantValues([[0.1, 0.7], [0.2, 0.4]], [[0.3, 0.7], [0.5, 0.5]]),
        ),
        (
            dm.ImperfectRecall(dm.Logit([0.5, 0.6, 0.7]), dm.FallingQuery(0.9), decay=0.5),
            dm.SignalStructure(
                dm.GaussianSignals(advertisers=[1.0, 2.0], correlation=0.3, symbols=2),
                dm.RatingFeedback(noise=[1.0, 0.5], symbols=2),
            ),
            dm.MarkovValues([[0.1, 0.7], [0.2, 0.4]], [[0.3, 0.7], [0.5, 0.5]], kernel),
        ),
        (
            dm.LastShownOnly(dm.Logit(0.5), dm.ProductQuery([[0.1], [0.9]], none=0.5), stays=True),
            dm.SignalStructure(
                dm.JointSignals(np.full((3, 2, 1, 1), 0.5)),
                dm.ChannelFeedback(np.full((3, 3, 2, 1, 1), 0.5)),
            ),
            dm.ConstantValues([[0.1, 0.7], [0.2, 0.4]], [[0.1, 0.2], [0.3, 0.4]]),
        ),
    ):
        yield dm.RecommendationMDP(gamma, grid, 2, rule, signals, values, ['a, "b"', "cß"])
    two = [dm.GaussianSignals(1.0, noise, symbols=2) for noise in (0.5, 5.0)]
    cut = [dm.RatingFeedback(1.0, 2, advertisers=noise) for noise in (1.0, 3.0)]
    yield dm.RecommendationMDP(
        gamma, grid, 2, dm.Trembling(dm.LastShownOnly(dm.Threshold(), 0.5), 0.05),
        dm.SignalStructure(
            dm.PrivateStructures(two, [0.3, 0.7], ["sharp", "blunt"]), dm.PrivateFeedback(cut)
        ),
        dm.ConstantValues([0.5, 0.3]),
    )  # fmt: skip
    yield dm.RecommendationMDP.from_tables(**random_market(np.random.default_rng(0)))


KINDS = ["recall", "imperfect", "channel", "trembling, private", "tables"]


@pytest.mark.parametrize("env", list(markets()), ids=KINDS)
def test_what_is_written_reads_back(env, tmp_path):
    env.write(tmp_path / "market")
    again = dm.read_market(tmp_path / "market")
    assert again.names == env.names
    one, two = (dm.solve_efficient_policy(x, progress=False) for x in (env, again))
    np.testing.assert_array_equal(one.value, two.value)
    np.testing.assert_array_equal(one.marginal_value, two.marginal_value)
    assert (tmp_path / "market" / "market.toml").read_text().startswith("horizon = 2")


def test_tastes_may_be_drawn(tmp_path):
    tail = (
        '\n[tastes]\nkind = "normal"\nmean = [1.0, 0.5]\ncov = [[1.0, 0.0], [0.0, 1.0]]\nsize = 8\n'
    )
    env = dm.read_market(folder(tmp_path, tastes=None, market=MARKET + tail))
    drawn = dm.TasteGrid.from_normal([1.0, 0.5], np.eye(2), 8)
    np.testing.assert_array_equal(env.tastes.points, drawn.points)


def test_a_rule_of_ones_own_is_code(tmp_path):
    class Own(dm.LastShownOnly):
        pass

    class Shaky(dm.Trembling):
        pass

    env, rule = next(iter(markets())), Own(dm.Threshold(), 0.5)
    for mine in (rule, dm.Trembling(rule, 0.1), Shaky(dm.PerfectRecall(dm.Threshold(), 0.5), 0.1)):
        own = dm.RecommendationMDP(env.gamma, env.tastes, 2, mine, env.signals, env.values)
        with pytest.raises(dm.InvalidArgument, match=r"PerfectRecall.*got (Own|Shaky)"):
            own.write(tmp_path / "own")
    spaced = dataclasses.replace(env, names=["a ", *env.names[1:]])
    with pytest.raises(dm.InvalidArgument, match=r"names.*'a '"):
        spaced.write(tmp_path / "own")
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"products": PRODUCTS.replace("0.3\n", "much\n")}, dm.InvalidArgument,
         r"products.csv, line 3, column theta.*'much'"),
        ({"products": PRODUCTS.replace("0.3\n", "inf\n")}, dm.InvalidArgument, "line 3"),
        ({"products": PRODUCTS.replace("small", "big")}, dm.InvalidArgument, "line 3, column name"),
        ({"products": PRODUCTS.replace("0.5,-0.4", "0.5")}, dm.InvalidArgument, "line 3.*4 cells"),
        ({"products": PRODUCTS.replace("theta", "value")}, dm.OutsideSupport, "column theta"),
        ({"tastes": TASTES.replace("size", "colour")}, dm.OutsideSupport, "tastes.csv.*colour"),
        ({"products": PRODUCTS.replace("\nbig", "\n\n\"big\n1\"").replace("0.3", "x")},
         dm.InvalidArgument, "line 5, column theta"),
        ({"products": PRODUCTS.replace("small", '"small')}, dm.InvalidArgument, "line 3.*end of"),
        ({"products": PRODUCTS.replace("theta", "theta_1").replace("price", "theta")},
         dm.OutsideSupport, "line 1.*theta_1.*got theta"),
        ({"products": CHANCES}, dm.InvalidProbability, "line 3, column chance_1.*sum to 1"),
        ({"products": PRODUCTS.encode() + b"\xff,1,2,3\n"}, dm.InvalidArgument, "line 4.*UTF-8"),
        ({"tastes": TASTES.replace("0.75", "-0.75")}, dm.InvalidArgument, "line 3, column weight"),
        ({"tastes": TASTES.replace("0.75", "0.5")}, dm.InvalidProbability, "tastes.csv"),
        ({"tastes": None}, dm.OutsideSupport, r"tastes.kind|market.toml, tastes"),
        ({"market": None}, dm.InvalidArgument, "market.toml"),
        ({"market": MARKET.replace("horizon = 3", "horizon = 0")}, dm.InvalidArgument, "line 1"),
        ({"market": MARKET.replace("horizon = 3", "horizon 3")}, dm.InvalidArgument, "line 1"),
        ({"market": MARKET.replace('"Logit"', '"Probit"')}, dm.OutsideSupport, r"line 5.*Logit"),
        ({"market": MARKET.replace("scale = 0.5", "scale = -1")}, dm.InvalidArgument,
         "line 6, behaviour.scale"),
        ({"market": MARKET.replace('"Logit"', "{}")}, dm.OutsideSupport, "line 5, behav"),
        ({"market": MARKET.replace("[0.6, 0.8]", "[[1], [1, 2]]")}, dm.InvalidArgument, "line 7"),
        ({"market": MARKET.replace("noise", "noize")}, dm.OutsideSupport, r"line 13.*noize"),
        ({"market": MARKET.replace("[money]", "[mony]")}, dm.OutsideSupport, "line 19, mony"),
        ({"market": MARKET.replace("[0.6, 0.8]", "[0.6]")}, dm.InvalidArgument, "level"),
    ],
)  # fmt: skip
def test_mistakes_are_blamed_by_file_line_and_column(change, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        dm.read_market(folder(tmp_path, **change))
