"""The experiments: small runs write labelled tables and pictures, and their claims hold."""

import csv
import importlib
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

import dynmech as dm
from experiments import approximate, one_shot, static_statements
from experiments.__main__ import shown
from experiments._windows import solve
from tests.helpers import ROOT
from tests.helpers.experiments import FILES, SMALL


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


class Results:
    """Every experiment at its smallest, through the command's own entry, when first asked for."""

    def __init__(self, folder: Path):
        self.folder, self.done = folder, set()

    def __truediv__(self, name: str) -> Path:
        if name not in self.done:
            module = importlib.import_module(f"experiments.{name}")
            module.main(module.Options(results=self.folder, **SMALL[name]))
            self.done.add(name)
        return self.folder / name


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    return Results(tmp_path_factory.mktemp("results"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], start: str) -> np.ndarray:
    """The column whose label starts so, as numbers."""
    name = next(label for label in rows[0] if label.startswith(start))
    return np.array([float(row[name]) for row in rows])


CLAIMS = {}
"""What the tables of an experiment must show, checked where they are made: they take long."""


def claims(name: str):
    def keep(check):
        CLAIMS[name] = check
        return check

    return keep


@pytest.mark.parametrize("name", SMALL)
def test_help_states_every_option(name, capsys):
    module = importlib.import_module(f"experiments.{name}")
    with pytest.raises(SystemExit) as stop:
        tyro.cli(module.Options, args=["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--results" in text
    assert len(module.__doc__) > 100


def test_all_are_listed():
    listed = dict(shown())
    assert set(SMALL) <= set(listed)
    assert all(len(words) > 20 for words in listed.values())


LONG = {  # slow
    "choice_models",
    "real_case",
    "robustness",
    "static_statements",
    "participation",
    "click_auction",
    "quantising",
    "recommenders",
    "sweep",
} | {"long_horizon", "reports", "procurement", "shopping_assistant"}


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=[pytest.mark.slow] if k in LONG else []) for k in SMALL]
)
def test_tables_are_labelled_and_pictures_written_and_claims_hold(results, name):
    folder = results / name
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert FILES[name] <= written
    for path in folder.rglob("*.csv"):
        rows = read(path)
        assert rows, path
        for label, text in rows[0].items():
            assert label
            assert "[money]" not in label
            numeric = re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text) is not None
            assert not numeric or label.endswith("]"), f"{path.name}: {label} has no unit"
    for path in folder.rglob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size > 5_000
        assert path.with_suffix(".svg").exists()
    assert all(p.stat().st_size > 200 for p in folder.rglob("report.txt"))
    for path in folder.rglob("record.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["versions"]["dynmech"] == dm.__version__
        assert record["options"]["results"] == str(folder.parent)
    assert list(folder.rglob("record.json"))
    CLAIMS.get(name, lambda results: None)(results)


@claims("one_shot")
def pivots_are_the_papers(results):
    """phi_1^+ = max over s_1 of E[(theta_2 + u_2) y_2 | s], by hand from the posteriors."""
    options = one_shot.Options(tastes=16, symbols=2)
    policy = solve(one_shot.market(options))
    own = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy()).own
    env, at = policy.env, policy.profiles
    sold = np.maximum(env.utilities[1], 0)
    theta = env.values.support[1, at.theta[:, 1]]
    earned = theta[:, None] * (env.utilities[1] >= 0) + sold
    belief = own.root[own.own_root[:, 0]]
    belief = belief / belief.sum(axis=2, keepdims=True)
    mean = np.einsum("bzm,bm->bz", belief, earned)
    plus = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy()).groves_total[0]
    np.testing.assert_allclose(plus.ravel(), mean.max(axis=1), atol=1e-12)
    rows = read(results / "one_shot" / "lies.csv")
    gains = column(rows, "largest gain")
    assert gains[0] < 1e-12
    assert (gains[1:] > 0.05).all()
    slack = read(results / "one_shot" / "terms.csv")
    kept, subsidy = column(slack, "participation, worst"), column(slack, "no subsidy, worst")
    assert kept[0] < -0.01 <= kept[1] + 0.01
    assert subsidy[1] < -0.01 <= subsidy[0] + 0.01
    assert min(column(slack, "participation, mean")[2], column(slack, "no subsidy, mean")[2]) >= 0


@claims("theorem1")
def no_misreport_gains_but_by_message(results):
    """Theorem 1, one lie and whole strategies; settlement by message is refuted."""
    random = read(results / "theorem1" / "random_markets_all.csv")
    for kind in ("one lie", "strategy"):
        assert column(random, f"data-driven, {kind}").max() < 1e-7
        assert column(random, f"message-driven, {kind}").min() > 0.1


@claims("reporting")
def conventions_of_reporting_differ_after_own_lies(results):
    """After an own lie a second can gain, unless reports are cumulative; installments are safe."""
    rows = read(results / "reporting" / "reporting.csv")
    late = column(rows, "any own past [")
    told = np.array([row["reports"] for row in rows])
    assert column(rows, "truthful past [").max() < 1e-7
    assert column(rows, "strategy from the outset").max() < 1e-7
    assert late[told == "cumulative"].max() < 1e-7
    assert late[told == "incremental"].min() > 1e-3
    charges = read(results / "reporting" / "charges.csv")
    assert column(charges, "its largest gain").max() > 1
    assert column(charges, "installments: largest gain").max() < 1e-7


@claims("reports")
def reports_outside_the_support_are_searched(results):
    """Values of an interval, and private signal structures."""
    lies = read(results / "reports" / "intervals.csv")
    gap = column(lies, "interval [") - column(lies, "support [")
    honest = np.array([row["settlement"] == "data-driven" for row in lies])
    assert column(lies, "interval [")[honest].max() < 1e-7
    assert gap.min() > -1e-9
    built = read(results / "reports" / "constructed.csv")
    np.testing.assert_allclose(column(built, "support [")[:2], 0.0, atol=1e-9)
    np.testing.assert_allclose(column(built, "interval [")[:2], [0.0, 100 * 9 / 12], atol=1e-9)
    held = read(results / "reports" / "structures.csv")
    assert column(held, "data-driven gain").max() < 1e-7
    message, gap = column(held, "message-driven gain"), column(held, "and largest")
    np.testing.assert_allclose(message[0], 100 * 2.5 / 3, atol=1e-9)
    assert message[-1] >= message[1:-1].max() - 1e-9
    assert gap[-1] >= gap[1:-1].max() - 1e-9


@claims("approximate")
def the_gap_at_the_node_bounds_a_gain(results):
    """That of the node, not of the root."""
    spoiled = read(results / "approximate" / "policies.csv")
    gain = column(spoiled, approximate.GAIN)
    assert (gain <= column(spoiled, approximate.BOUND) + 1e-9).all()
    assert (column(spoiled, approximate.BOUND) <= column(spoiled, "root gap / node") + 1e-9).all()
    assert (gain > column(spoiled, approximate.ROOT) + 1e-6).any()


@claims("quantising")
def quantising_costs_little_welfare_and_invites_lies(results):
    rows = read(results / "quantising" / "settlement.csv")
    gain, bound = column(rows, "gain of one misreport"), column(rows, "bound, twice")
    assert (gain <= bound + 1e-9).all()
    assert gain[-1] < 1e-9
    assert rows[-1]["symbols"] == "as drawn"
    worth = read(results / "quantising" / "welfare.csv")
    assert (np.abs(column(worth, "W, rating quantiles")) > 0).all()


@claims("robustness")
def wrong_models_cost_no_more_than_the_bound(results):
    rows = read(results / "robustness" / "robustness.csv")
    gain, bound, lost = (column(rows, name) for name in ("largest gain", "bound", "welfare lost"))
    far = column(rows, "distance")
    assert (gain <= bound + 1e-9).all()
    assert gain[far == 0].max() < 1e-9
    assert np.abs(lost[far == 0]).max() < 1e-9
    assert (lost >= -1e-9).all()
    assert lost.max() > 1e-3
    wrong = np.array([row["truth"] == "fewer ratings" for row in rows])
    share = gain[wrong & (far == 1)] / gain[wrong & (far == 0.5)]
    np.testing.assert_allclose(share, 2, rtol=1e-6)  # gains grow with 1 - c


@claims("choice_models")
def estimated_shares_are_met(results):
    rows = read(results / "choice_models" / "cereals.csv")
    seen, said = column(rows, "share observed"), column(rows, "share of the model")
    assert (said > seen).all()  # the other nineteen cereals are not for sale here
    assert np.corrcoef(seen, said)[0, 1] > 0.99


@claims("recommenders")
def no_lie_gains_more_than_what_a_recommender_loses(results):
    for name in ("cars", "electricity"):
        rows = read(results / "recommenders" / f"{name}.csv")
        value, best = column(rows, "V ["), column(rows, "W [")
        gain, bound = column(rows, "largest gain ["), column(rows, "no report gains")
        assert (value <= best + 1e-9).all()
        assert value[0] == pytest.approx(best[0])
        assert gain[0] == pytest.approx(0.0, abs=1e-9)
        assert (gain <= bound + 1e-9).all()
        assert (column(rows, "largest gain, message-driven")[1:] > 0).any()


@claims("real_case")
def a_logged_market_is_priced_with_its_uncertainty(results):
    folder = results / "real_case"
    rows = read(folder / "fits.csv")
    assert [int(row["conversations"]) for row in rows] == [59, 12281]
    # With one chance for all rounds its estimate is the share of questions, 197 of 256.
    assert column(rows, "query")[0] == pytest.approx(197 / 256, abs=1e-4)
    lost = column(read(folder / "policies.csv"), "lost")
    assert lost[0] == 0
    assert (lost >= -1e-9).all()
    drawn = read(folder / "draws.csv")
    assert (column(drawn, "largest gain") <= column(drawn, "bound") + 1e-9).all()
    robust = np.array([row["Groves term"] != "WindowCeiling" for row in drawn])
    assert column(drawn, "participation")[robust].min() > -1e-9


@claims("click_auction")
def click_auctions_show_what_they_claim(results):
    """Proposition 2, Remark 2, footnotes 20 and 21, in the tables that were written."""
    folder = results / "click_auction"
    rows = read(folder / "slot_audits.csv")
    pivot = np.array(["per-click pivot" in row["mechanism"] for row in rows])
    assert column(rows, "largest gain")[pivot].max() < 1e-9
    assert column(rows, "participation")[pivot].min() > -1e-9
    assert column(rows, "largest gain")[~pivot].min() > 0.01
    rows = read(folder / "realised.csv")
    assert (column(rows, "chance of a subsidy") > 0).tolist() == [False, False, True, False]
    rows = read(folder / "perturbed.csv")
    rows = [row for row in rows if row["broken"] == "nothing"]
    kept = {(row["signals"], row["change of transfers"]) for row in rows}
    bet = "a fair bet on the rate"
    assert kept == {("a sample", "none: (16)"), ("may know", "none: (16)"), ("a sample", bet)}
    rows = read(folder / "footnote_20.csv")
    np.testing.assert_allclose(column(rows, "payoff, s_1 told"), column(rows, "(theta_1"))
    rows = read(folder / "lotteries.csv")
    assert column(rows, "gain, price times p").max() < 1e-9
    assert column(rows, "gain, price as printed")[0] > 0.1
    assert (np.diff(column(rows, "welfare lost")) < 0).all()
    assert (np.diff(column(rows, "largest payment")) > 0).all()


@claims("shopping_assistant")
def the_assistant_shows_what_it_claims(results):
    """Paper D, section 5.2: Propositions 3, 4 and 9, the average, and h that invites lies."""
    folder = results / "shopping_assistant"
    found = read(folder / "incentives.csv")
    assert column(found, "largest gain").max() < 1e-9
    assert column(found, "settled on messages, largest").min() > 0.05
    least = read(folder / "impossibility.csv")
    assert (np.diff(column(least, "least gain")) < 0).all()
    assert column(least, "gain, team payments on data").max() < 1e-9
    mean = read(folder / "averages.csv")
    error = column(mean, "standard error")
    assert (np.abs(column(mean, "E[what") - column(mean, "omega")) < 5 * error).all()
    assert np.ptp(column(mean, "Var(what")) > 5 * column(mean, "its standard error").max()
    assert column(mean, "gain on data").max() <= 1e-9
    moved = read(folder / "forbidden.csv")
    gain, error = column(moved, "gain of one lie"), column(moved, "standard error")
    assert gain[0] < 0
    assert gain[1] > 5 * error[1]
    assert abs(gain[3] - gain[0]) < 5 * error[3]
    constructed = read(folder / "slip_5.csv")
    assert column(constructed, "participation")[0] == pytest.approx(-0.5, abs=1e-9)
    assert column(constructed, "no subsidy")[3] < -0.1
    kept, subsidy = (column(read(folder / "pivots.csv"), f"worst {x}") for x in ("part", "no sub"))
    assert kept[1] >= -1e-9
    assert subsidy[0] >= -1e-9
    assert kept[0] < -0.1
    assert subsidy[1] < -0.1


@claims("procurement")
def procurement_costs_and_epsilon(results):
    """(20) on scanner data inverts the equilibrium; errors and epsilon fall; cars are a warning."""
    folder = results / "procurement"
    costs = read(folder / "costs.csv")
    alpha = {row["category"]: float(row["alpha [1/price]"]) for row in costs}
    assert alpha == pytest.approx({"Yogurt": 0.36658, "Cracker": 0.03125, "Catsup": 1.40241}, 1e-4)
    assert (column(costs, "cost, (20)") > 0).all()
    for name in ("price solved less", "first-order residual"):
        assert (np.abs(column(costs, name)) <= 1e-9 * column(costs, "price [")).all()
    for name in ("mechanisms", "constructed"):
        rows = read(folder / f"{name}.csv")
        gain = column(rows, "largest gain")
        assert gain[:2].max() < 1e-9
        assert gain[3:].min() > 0.1
    assert gain[2] > 0.1  # losers unpaid, three constructed sellers
    found = read(folder / "consistency.csv")
    for name in ("rms error", "epsilon, demand known", "(23)"):
        few, many = column(found, name)
        assert few > 3 * many
    assert (column(found, "epsilon [") <= column(found, "Lemma 1") + 1e-12).all()
    assert (column(found, "Lemma 1") <= column(found, "(22)") + 1e-12).all()
    cars = read(folder / "cars.csv")
    assert len(cars) == 2217
    assert (column(cars, "cost, plain logit") < 0).sum() == 775
    assert (column(cars, "cost, BLP") > 0).all()


@claims("static_statements")
def every_statement_is_reproduced_and_listed(results):
    """No check of a statement misses, the ten slips fail as they should, the page lists all."""
    rows = read(results / "static_statements" / "statements.csv")
    told = {row["statement"] for row in rows}
    assert [row["statement"] for row in rows if row["verdict"] == "NOT REPRODUCED"] == []
    assert told == set(static_statements.ORDER)
    wrong = {row["statement"] for row in rows if row["verdict"] == "fails as stated"}
    assert wrong == {
        "Example 3", "Theorem 1", "Theorem 2", "(10)", "Definition 7", "Lemma 1", "Lemma 3",
        "Corollary 2", "Proposition 8", "Lemma 6",
    }  # fmt: skip
    page = (ROOT / "notebooks" / "statements.md").read_text()
    table = page.split("## Statements of paper D")[1].split("\n### ")[0]
    numbered = {"Example": 7, "Claim": 2, "Lemma": 6, "Proposition": 9, "Theorem": 2,
                "Corollary": 2, "Remark": 2}  # fmt: skip
    names = [f"{kind} {k}" for kind, count in numbered.items() for k in range(1, count + 1)]
    lines = [line.split("|")[1] for line in table.splitlines() if "|" in line]
    assert [name for name in names if not any(name in line for line in lines)] == []
    bold = [line for line in table.splitlines() if "**" in line]
    elsewhere = ("click_auction", "shopping_assistant")
    here = [line for line in bold if not any(name in line for name in elsewhere)]
    assert len(here) == len(wrong)
    assert len(bold) - len(here) == 5  # Prop. 2's converse, Remark 2, footnote 21, Props. 4 and 9


@claims("long_horizon")
def certified_bounds_hold_what_is_simulated(results):
    rows = read(results / "long_horizon" / "certificates.csv")
    policy, error = column(rows, "policy"), column(rows, "s.e.")
    assert (column(rows, "lower") < policy).all()
    assert (policy <= column(rows, "upper") + 4 * error).all()
    assert (policy <= column(rows, "upper by relaxation") + 4 * error).all()
    rows = read(results / "long_horizon" / "baselines.csv")
    names = {"this policy", "myopic", "knowledge gradient", "neural, no feedback"}
    names.add("told-omega ceiling")
    assert {row["policy"] for row in rows} >= names
    np.testing.assert_allclose(
        column(rows[1:5], "neural less"), column(rows[:1], "W") - column(rows[1:5], "W"), atol=1e-8
    )
    told = column(rows, "W")[[row["policy"] == "told-omega ceiling" for row in rows]]
    assert told.max() >= column(rows, "W").max() - 4 * column(rows, "s.e.").max()
