"""Tables that stand for rules, and told bounds: the same numbers however they are come by."""

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers import tabular
from solvers.search import multisets
from solvers.search.merged_search import merged_search
from solvers.told import enumerated
from solvers.told.enumerated import enumerate_ceilings
from tests.helpers.learning import learning_market


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


QUERY = dm.FallingQuery(level=1.4, low=0.05, high=0.9, nothing=0.6)
RULES = {
    "last": dm.LastShownOnly(dm.Logit(0.3), QUERY),
    "stays": dm.LastShownOnly(dm.Logit(0.3), QUERY, stays=True),
    "perfect": dm.PerfectRecall(dm.Threshold(), QUERY),
    "imperfect": dm.ImperfectRecall(dm.Logit(0.3), 0.8, 0.5),
}


def market(n=3, m=6, horizon=4, rule="last"):
    return learning_market(n, m, horizon, rule=RULES[rule])


@pytest.mark.parametrize("rule", RULES)
def test_looking_first_at_what_follows_finds_the_same_tables(rule, monkeypatch):
    process = market_process(market(rule=rule))
    whole = tabular.tabulate(process)
    assert (whole is None) == (rule != "last")
    monkeypatch.setattr(tabular, "_MANY", 0)
    quick = tabular.tabulate(process)
    assert (quick is None) == (whole is None)
    if whole is not None and quick is not None:
        np.testing.assert_array_equal(quick.chance, whole.chance)
        np.testing.assert_array_equal(quick.law, whole.law)


def test_markets_of_many_products_have_tables():
    # A market of 64 products and more had none, and was bounded by the history.
    assert market_process(market(90, 4, 3)).orderless
    assert market_process(market(200, 16, 3)).orderless


@pytest.mark.parametrize("rule", RULES)
def test_outcomes_that_cannot_happen_add_nothing_to_what_a_told_controller_gets(rule, monkeypatch):
    env = market(4, 6, 4, rule)
    process = market_process(env)
    theta = env.values.support[:, 0]
    cases = [make_case(env, theta), make_case(env, theta, 1), make_case(env, theta, 1, True)]
    found = []
    for dense in (0.0, 2.0):
        monkeypatch.setattr(enumerated, "_DENSE", dense)
        found.append(enumerate_ceilings(process, cases))
    memories, _ = enumerated.list_memories(process)
    for t, some in enumerate(memories):
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one.value(t, some), other.value(t, some), rtol=1e-14)
    assert (found[0][0].value(0, memories[0]) > 0.1).all()


def test_products_of_two_rounds_that_are_not_kept_bound_as_those_that_are(monkeypatch):
    env = market(4, 12, 6)
    process, case = market_process(env), make_case(env, env.values.support[:, 0])
    table = tabular.tabulate(process)
    assert table is not None
    ceiling = table.ceiling(make_ceilings(env, process, [case])[0])
    given = table, [case], [ceiling], env.tastes.weights, 1e9, 0, 1e-12
    kept = merged_search(*given)[0]
    monkeypatch.setattr(multisets, "_MATRIX", 100)
    made = merged_search(*given)[0]
    assert made.states == kept.states > 10
    np.testing.assert_allclose(made.upper, kept.upper, rtol=1e-12)


@pytest.mark.slow
def test_two_hundred_products_are_bounded_told_omega_in_every_economy():
    env = market(200, 256, 20)
    process, theta = market_process(env), env.values.support[:, 0]
    others = [make_case(env, theta, i, shown) for shown in (False, True) for i in range(200)]
    # Memories of all rounds, each with 256 numbers for each of 401 economies, did not fit.
    bounds = make_ceilings(env, process, [make_case(env, theta), *others])
    told = np.array([one.value(0, process.start()[None])[0] @ env.tastes.weights for one in bounds])
    assert (told[1:] <= told[0] + 1e-12).all()
