"""The search over multisets against exact values, against lookahead, and where it must refuse."""

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from experiments.benchmarks.instances import HIDDEN_TASTE_VALUE, hidden_taste
from solvers.neural.rollout import Play, rollout
from solvers.neural.value_network import ValueNetwork
from solvers.search import merged_search as merged
from solvers.search.case_tables import CaseTables, above_each
from solvers.search.merged_search import merged_search
from solvers.search.multisets import MultisetSearch
from solvers.tabular import tabulate
from solvers.told.lookahead import lookahead
from tests.helpers.learning import learning_market


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def searched(env, case, belief=None, work=float("inf"), period=0, tolerance=1e-12):
    process = market_process(env)
    ceiling = make_ceilings(env, process, [case])[0]
    belief = np.asarray(env.tastes.weights) if belief is None else belief
    table = tabulate(process)
    assert table is not None
    given = table, [case], [table.ceiling(ceiling)], belief, work, period, tolerance
    return merged_search(*given)[0]


def economies(env):
    """W, every W^{-i}, every Wd^{-i}: cases in this order."""
    theta, n = env.values.support[:, 0], env.products
    others = [make_case(env, theta, i, shown) for shown in (False, True) for i in range(n)]
    return [make_case(env, theta), *others]


def solved(env):
    """Exact values in the order of `economies`."""
    exact = dm.solve_efficient_policy(env, dm.Exact(), progress=False)
    true = [exact.value, exact.marginal_value, exact.displayable_marginal_value]
    return np.concatenate([np.ravel(x) for x in true])


def together(env, work, tolerance=1e-12):
    """Every economy in one call."""
    process, cases = market_process(env), economies(env)
    table = tabulate(process)
    assert table is not None
    ceilings = [table.ceiling(one) for one in make_ceilings(env, process, cases)]
    return merged_search(table, cases, ceilings, env.tastes.weights, work, 0, tolerance)


@pytest.fixture
def takes_over(monkeypatch):
    """No economy is searched by itself before it takes over what another found; who did."""
    taken, take = [], MultisetSearch._take

    def recorded(search, other):
        take(search, other)
        taken.append(search)

    monkeypatch.setattr(merged, "_ALONE", 0.0)
    monkeypatch.setattr(MultisetSearch, "_take", recorded)
    return taken


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_it_ends_at_the_exact_value_of_every_economy(seed, horizon):
    env = learning_market(3, 6, horizon, seed=seed, symbols=3)
    found = [searched(env, case).upper for case in economies(env)]
    np.testing.assert_allclose(found, solved(env), atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
def test_economies_that_begin_with_what_others_found_end_at_exact_values(seed, horizon, takes_over):
    env = learning_market(3, 6, horizon, seed=seed, symbols=3)
    found = together(env, 1e14)
    np.testing.assert_allclose([one.upper for one in found], solved(env), atol=1e-10)
    assert takes_over or horizon < 3  # before, there is nothing to take over


@pytest.mark.parametrize("seed", [3, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "changes",
    [{}, {"round_cost": 0.05, "exit_value": -0.1}, {"displays": dm.Displays(2)}],
    ids=["plain", "rewards", "displays"],
)
def test_no_economy_is_bounded_below_its_value_whenever_the_search_stops(seed, changes, takes_over):
    env = learning_market(3, 7, 5, seed=seed)
    parts = env.gamma, env.tastes, env.horizon, env.action_rule, env.signals, env.values
    env = dm.RecommendationMDP(*parts, **changes)
    true = solved(env)
    bounds = [[one.upper for one in together(env, work)] for work in (1.0, 2e7, 6e7, 2e8)]
    assert (bounds >= true - 1e-12).all()
    assert (np.diff(bounds, axis=0) <= 1e-12).all()
    assert (np.min(bounds, axis=0) < bounds[0]).any()
    assert takes_over


def test_an_economy_is_worth_no_more_than_the_one_above_it_and_what_is_said_to_be_earned_beyond():
    env = learning_market(3, 6, 4, seed=5)
    process, cases = market_process(env), economies(env)
    table = tabulate(process)
    assert table is not None
    ceilings = [table.ceiling(one) for one in make_ceilings(env, process, cases)]
    rows = [CaseTables(table, *given, 0) for given in zip(cases, ceilings, strict=True)]
    belief = np.asarray(env.tastes.weights)
    # W is above all; it may earn less than Wd^{-i} from who buys what she likes little.
    told = np.array([row.told[0] @ belief for row in rows])
    assert above_each(rows.__getitem__, told, belief).tolist() == [-1, 0, 0, 0, 0, 0, 0]
    excess = [rows[0].excess(row) for row in rows]
    assert not np.any(excess[:4])
    assert np.any(excess[4:])
    for belief in np.random.default_rng(0).dirichlet(np.full(6, 0.5), 20):
        value = lookahead(table, cases, ceilings, belief, 4)[0]
        assert (value <= value[0] + [one[0] @ belief for one in excess] + 1e-12).all()
    # Of those alike the first is above the others.
    assert above_each(lambda _: rows[0], told[[0, 0, 0]], belief).tolist() == [-1, 0, 0]


def test_the_published_value_of_hidden_taste_is_reached_from_few_states():
    env = hidden_taste(50, 6)
    case = make_case(env, env.values.support[:, 0])
    found = searched(env, case, tolerance=1e-9)
    assert abs(found.upper - HIDDEN_TASTE_VALUE[50, 6]) < 1e-6
    assert found.states < 5_000  # 142,506 without bounds


def test_it_is_above_the_value_whenever_it_stops_and_falls_with_work():
    env = learning_market(4, 12, 6, seed=3, symbols=3)
    case = make_case(env, env.values.support[:, 0])
    exact = searched(env, case).upper
    bounds = [searched(env, case, work=work).upper for work in (1.0, 1e7, 5e7)]
    assert (np.diff(bounds) <= 1e-12).all()
    assert bounds[0] > bounds[-1] >= exact - 1e-12
    process = market_process(env)
    ceiling = make_ceilings(env, process, [case])[0]
    two, _ = lookahead(process, [case], [ceiling], np.asarray(env.tastes.weights), 2)
    np.testing.assert_allclose(bounds[0], two[0], rtol=1e-12)


def test_a_later_node_is_bounded_as_lookahead_bounds_it():
    env = learning_market(3, 6, 5, seed=2)
    process, case = market_process(env), make_case(env, env.values.support[:, 0], 1)
    ceiling = make_ceilings(env, process, [case])[0]
    belief = np.random.default_rng(0).dirichlet(np.ones(6)) * 0.3
    memory = np.asarray(process.step(process.start(), 2))
    exact, _ = lookahead(process, [case], [ceiling], belief, 3, memory, 2)
    table = tabulate(process, memory, 2)
    [found] = merged_search(table, [case], [table.ceiling(ceiling)], belief, np.inf, 2, 1e-12)
    np.testing.assert_allclose(found.upper, exact[0], rtol=1e-10)


def test_markets_in_which_order_matters_are_refused():
    query = dm.FallingQuery(level=1.4, low=0.05, high=0.9, nothing=0.6)
    for rule in (
        dm.PerfectRecall(dm.Threshold(), query),
        dm.ImperfectRecall(dm.Logit(0.3), 0.8, 0.5),
    ):
        assert tabulate(market_process(learning_market(rule=rule))) is None
    rule = dm.LastShownOnly(dm.Logit(0.3), query, stays=True)
    assert tabulate(market_process(learning_market(rule=rule))) is None


@pytest.mark.slow
def test_tables_change_nothing_but_the_time():
    env = learning_market(3, 6, 4)
    process, case = market_process(env), make_case(env, env.values.support[:, 0])
    ceiling = make_ceilings(env, process, [case])[0]
    table, network = tabulate(process), ValueNetwork(jax.random.key(0))
    belief = np.asarray(env.tastes.weights)
    for play in Play:
        gains = [
            rollout(rules, case, bound, network, belief, 40, np.random.default_rng(0), play).gain
            for rules, bound in ((process, ceiling), (table, table.ceiling(ceiling)))
        ]
        np.testing.assert_allclose(*gains, rtol=1e-5)


@pytest.mark.slow
def test_the_knowledge_gradient_is_no_worse_than_one_control_kept():
    env = learning_market(3, 6, 6, seed=1)
    table, case = tabulate(market_process(env)), make_case(env, env.values.support[:, 0])
    ceiling = table.ceiling(make_ceilings(env, market_process(env), [case])[0])
    belief = np.asarray(env.tastes.weights)
    pay = np.einsum("ajm,jm->am", table.chance[:, :-1], case.worth(table.reward))
    kept = pay * sum(table.chance[:, -1] ** t for t in range(6))
    play, rng = Play.GRADIENT, np.random.default_rng(0)
    found = rollout(table, case, ceiling, None, belief, 2000, rng, play, chunk=200)
    assert found.mean >= (kept @ belief).max() - 4 * found.error
