"""The demo: tables with labels and units, pictures that are pictures, feedback that pays."""

import csv
import re
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import dynmech as dm
from dynmech import plotting
from experiments import _demo_tables as tables
from experiments import demo
from experiments._demo_market import MARKETS, Options, resolve, solve
from experiments._output import Output

TABLES = (
    "market", "first_recommendation", "policy_tree", "values", "profiles", "payments",
    "groves_terms", "payments_by_groves_term", "incentive_gains", "incentive_gains_wide",
    "conversation", "ledger_by_round", "ledger",
)  # fmt: skip
PICTURES = ("policy_tree", "payments", "incentives", "conversation")
TINY = {"products": 3, "tastes": 24, "rounds": 3, "profiles": 3, "symbols": 3}
UNITS = {"cars": "thousand 1983 USD", "electricity": "c/kWh"}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Both markets at tiny settings, through the command's own entry."""
    folder = tmp_path_factory.mktemp("results")
    demo.main(Options(results=folder, **TINY))
    return folder


@pytest.fixture(scope="module")
def tiny():
    return solve(resolve(Options(**TINY), "cars"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("market", MARKETS)
def test_tables_are_labelled_and_carry_units(results, market):
    for name in TABLES:
        rows = read(results / market / f"{name}.csv")
        assert rows, name
        for column, text in rows[0].items():
            assert column
            assert "[money]" not in column
            numeric = re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text) is not None
            assert not numeric or column.endswith("]"), f"{name}: {column} has no unit"
    columns = read(results / market / "values.csv")[0]
    assert f"W^-i [{UNITS[market]}]" in columns
    assert {row["without"] for row in read(results / market / "values.csv")} == {
        row["product"] for row in read(results / market / "market.csv")
    }


@pytest.mark.parametrize("market", MARKETS)
def test_money_that_is_rounding_stands_as_zero(results, market):
    """Slacks of what is never shown or charged to the limit were 1e-16 and the like, or less."""
    found = 0
    for name in TABLES:
        for row in read(results / market / f"{name}.csv"):
            money = [x for column, x in row.items() if column.endswith(f"[{UNITS[market]}]") and x]
            assert all(float(x) == 0 or abs(float(x)) > 1e-10 for x in money), (name, money)
            assert "-0" not in money, name
            found += sum(x == "0" for x in money)
            assert not re.search(r"\de-\d\d", row.get("witness") or ""), row
    assert found > 0


def test_what_is_rounding_is_what_an_audit_takes_for_it(tiny, tmp_path):
    audit = dm.DynamicTeamMechanism(tiny.policy).audit()
    out = Output(tmp_path, "EUR", rounding=1e-9 * tiny.policy.env.money_scale)
    assert out.rounding == audit.tolerance
    columns = {
        "slack [money]": [-audit.tolerance, 2 * audit.tolerance, np.nan],
        "x [1]": [1e-20] * 3,
    }
    out.table("slacks", pd.DataFrame(columns), "", show=False)
    rows = read(tmp_path / "slacks.csv")
    assert [row["slack [EUR]"] for row in rows] == ["0", f"{2 * audit.tolerance:.10g}", ""]
    assert [float(row["x [1]"]) for row in rows] == [1e-20] * 3


@pytest.mark.parametrize("market", MARKETS)
def test_pictures_are_written(results, market):
    for name in PICTURES:
        data = (results / market / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 10_000


@pytest.mark.parametrize("market", MARKETS)
def test_report_says_what_it_must(results, market):
    report = (results / market / "report.txt").read_text(encoding="utf-8")
    flat = " ".join(report.split())
    for phrase in (
        f"All money is in {UNITS[market]}",
        "Assumed:",
        "asks again with probability 0.9",
        "comes first",
        "Value of feedback over the best fixed sequence",
        "% of W",
        "Expected revenue of the platform",
        "expected user surplus",
        "incentives HOLD",
        "Round 1.",
        "transfers:",
        "Final ledger",
    ):
        assert phrase in flat, phrase
    for term in tables.groves_terms():
        assert term.split()[0] in report


@pytest.mark.parametrize("market", MARKETS)
def test_mechanism_has_no_gain_and_message_driven_has_one(results, market):
    rows = read(results / market / "incentive_gains.csv")
    column = f"largest gain [{UNITS[market]}]"
    gains: dict[str, float] = {}
    for row in rows:
        label = row["settlement"]
        gains[label] = max(gains.get(label, 0.0), float(row[column]))
    assert gains["mechanism, settled on ratings"] <= 1e-9
    assert gains["message-driven, settled on reports"] > 1e-3


def test_groves_table_agrees_with_the_audit(tiny):
    mechanism = dm.DynamicTeamMechanism(tiny.policy, groves=dm.groves.WindowCeiling())
    audit = mechanism.audit()
    row = tables.groves_table({"it": mechanism}, audit).iloc[0]
    rounding = {"rel": 1e-9, "abs": 1e-9}
    assert row["participation, worst [money]"] == pytest.approx(
        audit.participation.min(), **rounding
    )
    assert row["no subsidy, worst [money]"] == pytest.approx(audit.no_subsidy.min(), **rounding)
    assert row["revenue [money]"] == pytest.approx(audit.budget.revenue.mean(), **rounding)


def test_first_moves_add_up_and_the_best_is_recommended(tiny):
    for b in range(len(tiny.policy.profiles)):
        chat, deaf = tiny.policy.start(profile=b), tiny.fixed.start(profile=b)
        moves = tables.first_moves(chat, deaf)
        label = tables.product_label(chat.policy.env, chat.recommendation)
        assert moves["recommended first"][0] == label
        assert moves["total [money]"][0] == pytest.approx(tiny.policy.value[b], rel=1e-9)
        # Hearing more never hurts.
        assert (moves["ratings add [money]"] >= -1e-9).all()


def test_tree_conserves_probability(tiny):
    whole = plotting.policy_tree(tiny.policy, merge=False)
    merged = plotting.policy_tree(tiny.policy)
    assert whole.probability == pytest.approx(1.0)
    for round_ in (1, 2, 3):
        reached = [
            sum(b.probability for b in root.walk() if b.round == round_) for root in (whole, merged)
        ]
        # The user asks again with probability 0.9 whatever is shown.
        np.testing.assert_allclose(reached, 0.9 ** (round_ - 1), rtol=1e-9)
    assert merged.leaves <= whole.leaves
    pruned = merged.prune(0.05)
    assert all(b.probability >= 0.05 for b in pruned.walk())
    lost = sum(b.left_out for b in pruned.walk())
    assert (lost > 0) == (pruned.leaves < merged.leaves)


def test_pictures_need_no_display_and_change_no_settings(tiny):
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    chat = tiny.policy.start(profile=0)
    with pytest.raises(dm.InvalidArgument, match="plot_conversation"):
        plotting.plot_conversation(chat)
    plotting.plot_policy_tree(tiny.policy)
    plotting.plot_conversation(chat.step("query", {"platform": 1}).step("exit"))
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.pyplot.get_fignums() == []


def test_impossible_options_end_with_one_clear_sentence(tmp_path):
    options = Options(market="cars", products=2, tastes=12, rounds=2, profiles=0, results=tmp_path)
    with pytest.raises(SystemExit, match=r"cars: .*sample_profiles\(count"):
        demo.main(options)


def test_money_of_one_market_is_not_given_to_both(tmp_path):
    with pytest.raises(SystemExit, match=r"--outside: .*--market"):
        demo.main(Options(outside=1.0, results=tmp_path))


@pytest.mark.slow
def test_nothing_is_ever_bought_when_the_user_only_asks(tmp_path):
    options = Options(market="cars", query=1.0, results=tmp_path, **TINY)
    demo.main(options)
    report = (tmp_path / "cars" / "report.txt").read_text(encoding="utf-8")
    assert "none ended in a purchase" in report


@pytest.mark.slow
def test_feedback_pays_at_the_default_car_settings():
    solved = solve(resolve(Options(), "cars"))
    gained = np.mean(solved.policy.value - solved.fixed.value)
    assert gained >= 0.02 * np.mean(solved.policy.value)
    _, counts = tables.tree_counts(solved.policy)
    assert max(counts) >= 3


def test_sampled_conversation_is_drawn_from_the_market(tiny):
    from experiments import _demo_conversation as talk

    rng = np.random.default_rng(1)
    drawn = talk.draw_conversation(tiny.policy, 0, rng)
    assert drawn.end.ended
    assert drawn.rating is not None
    assert len(drawn.rounds) == len(drawn.end.turns)
    again = talk.draw_conversation(tiny.policy, 0, np.random.default_rng(1))
    assert again.rating == drawn.rating
    assert jax.config.jax_enable_x64
