"""Every solver against brute force on random markets: a short run, and that it finds a fault."""

import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from experiments._brute_checks import faults
from experiments._brute_markets import KINDS, draw
from experiments._brute_truth import Truth, solve
from experiments.brute import NETWORK, SETTINGS, Options, Setting, main, run
from tests.helpers.oracle import solve_by_brute_force

KIND = "costs and leaving"


class Shifted(dm.AbstractSolver):
    """The exact solver, its bounds off by so much of a unit of money."""

    lower: float
    upper: float

    def solve(self, problem, tasks, limits, progress):
        found = dm.Exact().solve(problem, tasks, limits, progress)
        lower, upper = found.lower + self.lower * tasks.mass, found.upper + self.upper * tasks.mass
        return dataclasses.replace(found, lower=lower, upper=upper)


def test_nothing_is_found_on_a_few_markets():
    few = {name: SETTINGS[name] for name in ("picked", "BestFirst, tolerance")}
    rows, wrong = run(1, seed=1, kinds=(KIND,), settings=2, known=few)
    assert wrong == []
    assert sorted(rows["outcome"]) == ["exact", "within tolerance"]


def test_a_share_of_a_value_about_zero_is_met_but_for_rounding_in_single_precision():
    few = {"BestFirst, share": SETTINGS["BestFirst, share"]}
    rows, wrong = run(1, seed=79000410, kinds=("last shown",), settings=1, known=few, single=1.0)
    assert wrong == []
    assert list(rows["outcome"]) == ["within tolerance"]


def test_a_solver_that_is_off_by_a_millionth_fails_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "Exact", Setting(Shifted(1e-6, 1e-6)))
    given = Options(1, kinds=(KIND,), only=("Exact",), single=0.0, results=tmp_path)
    assert main(given) == 1
    assert "Exact" in (tmp_path / "brute" / "faults.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("market_off", "truth_off", "words"),
    [
        (0.0, 1e-6, "upper bound is below the truth"),
        (0.0, -1e-6, "lower bound is above the truth"),
        (1e-3, 0.0, "plays"),
    ],
)
def test_answers_that_are_not_those_of_the_market_are_found(market_off, truth_off, words):
    market = draw(KINDS[KIND], [0], False)
    policy = dm.solve_efficient_policy(market.env, progress=False)
    truth = solve(market)
    assert faults(market, truth, policy, {}, False, [0]) == []
    other = dataclasses.replace(market, cost=market.cost + market_off)
    off = Truth(truth.low + truth_off, truth.high + truth_off)
    assert any(words in found for found in faults(other, off, policy, {}, False, [0]))


def test_brute_force_is_that_of_the_other_oracle():
    for seed in range(3):
        market = draw(KINDS["tables"], [seed], False)
        env, found = market.env, solve(market)
        n, size = env.values.support.shape
        case = {
            "gamma": env.gamma, "omega": env.tastes.points, "prior": env.tastes.weights,
            "horizon": env.horizon, "action": env.action_rule.action,
            "feedback": env.signals.feedback.table, "initial_signals": env.signals.initial.table,
            "theta_support": env.values.support, "theta_prior": env.values.prior,
            "theta_kernel": np.broadcast_to(np.eye(size), (n + 1, n, size, size)),
        }  # fmt: skip
        right = solve_by_brute_force(case)
        right = [right["W"][None], right["W_marginal"], right["W_displayable"]]
        np.testing.assert_allclose(found.low, np.concatenate(right), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True])
def test_the_command_finds_nothing(x64, tmp_path):
    with jax.enable_x64(x64):
        assert (
            main(Options(len(KINDS), 10**6, settings=2, single=0.2, x64=x64, results=tmp_path)) == 0
        )
    written = {path.name for path in (tmp_path / "brute").iterdir()}
    assert {"kinds.csv", "settings.csv", "faults.csv"} <= written


@pytest.mark.slow
def test_a_network_hardly_trained_holds_its_bounds():
    rows, wrong = run(2, kinds=("perfect recall",), known={"Neural": NETWORK})
    assert wrong == []
    assert len(rows) == 2
