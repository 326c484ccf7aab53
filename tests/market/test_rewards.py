"""Costs of queries and the worth of leaving: brute-force cases, settlement, refusals."""

import functools
import json

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers import CASES
from tests.helpers.quantities import tables_of

NAMES = sorted(path.stem for path in (CASES / "rewards").glob("*.npz"))


@functools.cache
def case(name: str):
    """The arguments of a case and what is expected of it."""
    data = dict(np.load(CASES / "rewards" / f"{name}.npz"))
    expected = {k.removeprefix("expected_"): x for k, x in data.items() if "expected_" in k}
    given = {k: x for k, x in data.items() if "expected_" not in k}
    return given | {"horizon": int(given["horizon"])}, expected


@functools.cache
def solved(name: str) -> dm.EfficientPolicy:
    return dm.solve_efficient_policy(market(name), progress=False)


def market(name: str) -> dm.RecommendationMDP:
    return dm.RecommendationMDP.from_tables(**case(name)[0])


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_as_brute_force_finds_it(name):
    policy, (_, expected) = solved(name), case(name)
    found = tables_of(policy)
    for key, table in found.items():
        np.testing.assert_allclose(
            table, expected[key], rtol=0, atol=1e-9 * policy.env.money_scale, err_msg=key
        )
    total = (policy.advertiser_value + policy.user_utility).sum(axis=0) - policy.round_costs
    np.testing.assert_allclose(policy.value, total, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "solver", [dm.BranchAndBound(), dm.PointBased(), None], ids=["bounds", "points", "given"]
)
def test_every_solver_counts_them(solver):
    name, env = NAMES[0], market(NAMES[0])
    found = dm.solve_efficient_policy(env, solver, relative=1e-6, progress=False)
    slack = 1e-9 * env.money_scale
    for below, above, key in (
        (found.lower, found.upper, "W"),
        (found.marginal_lower, found.marginal_upper, "W_marginal"),
        (found.displayable_marginal_lower, found.displayable_marginal_upper, "W_displayable"),
    ):
        expected = case(name)[1][key]
        known = np.isfinite(expected)
        assert (below - slack <= expected)[known].all()
        assert (expected <= above + slack)[known].all()


def shop(cost=0.0, leaving=0.0, horizon=3, chance=0.4) -> dm.RecommendationMDP:
    rng = np.random.default_rng(5)
    return dm.RecommendationMDP(
        rng.normal(size=(2, 2)), dm.TasteGrid(rng.normal(size=(3, 2)), np.full(3, 1 / 3)), horizon,
        dm.PerfectRecall(dm.Logit(0.5), query=chance),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=0.7, symbols=2)),
        dm.ConstantValues([[0.5, 0.9], [0.3, 0.8]]), round_cost=cost, exit_value=leaving,
    )  # fmt: skip


BY_TASTE = np.random.default_rng(6).uniform(0, 0.3, size=(3, 3))


@pytest.mark.parametrize("cost", [0.1, [0.0, 0.1, 0.3], BY_TASTE], ids=["all", "shown", "taste"])
def test_what_is_simulated_and_settled_is_what_is_expected(cost):
    env = shop(cost, leaving=np.array([0.2, -0.1, 0.3]))
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    weight = policy.probability()
    for world in (None, env):
        drawn = mechanism.simulate(jax.random.key(2), 20_000, under=world)
        for name, table in (("surplus", policy.value), ("round_costs", policy.round_costs)):
            mean, error = drawn.mean(name)
            assert abs(mean - (weight * table).sum()) < 5 * error
        payments = dm.payment_moments(mechanism).overall_mean[:-1] + drawn.groves[0] * 0
        mean, error = drawn.mean("payment")
        assert (np.abs(mean - payments) < 5 * error + 1e-9).all()
    audit = mechanism.audit(under=env)
    np.testing.assert_allclose(audit.value.value, policy.value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(audit.no_subsidy, mechanism.audit().no_subsidy, atol=1e-12)
    chat = policy.start(profile=0).step("query", [1, 0, 0], shown=1).step("query").step("exit")
    given = [0.07, 0.08, 0.0] if np.ndim(cost) == 2 else None
    ledger = mechanism.settle(chat, costs=given)
    second = env.costs[chat.turns[1].shown, 0] if given is None else 0.08
    first = env.costs[1, 0] if given is None else 0.07
    np.testing.assert_allclose(ledger.core, np.outer([first, second, 0.0], [1, 1]))
    paid = mechanism.payment(np.array([0.5, 0.3]), 3, None if given is None else 0.07, shown=1)
    np.testing.assert_allclose(paid, first)


def test_a_settlement_that_leaves_costs_out_invites_lies():
    class Forgets(dm.settlement.AbstractSettlement):
        team = True

        def payoff(self, at):
            return dm.settlement.Estimator().payoff(at)

        def charge(self, at):
            return dm.settlement.Estimator().charge(at)

        def toll(self, at):
            return 0 * at.cost[:, None]

    mechanism = dm.DynamicTeamMechanism(solved("by_control"), groves=dm.groves.Zero())
    assert mechanism.audit(settlement=Forgets()).incentive_gain.max() > 1e-3
    simple = mechanism.audit(settlement=dm.settlement.NoTransfers())
    np.testing.assert_allclose(simple.budget.payments, 0.0, atol=1e-12)


@pytest.mark.parametrize("horizon", [np.inf, 40])
def test_without_end_costs_add_up_to_a_geometric_sum(horizon):
    env = dm.RecommendationMDP(
        [[1.0]], dm.TasteGrid([[1.0]], [1.0]), horizon, dm.LastShownOnly(dm.Threshold(), query=0.5),
        dm.SignalStructure(), dm.ConstantValues([0.25]), round_cost=0.125, exit_value=0.5,
    )  # fmt: skip
    policy = dm.solve_efficient_policy(env, tolerance=1e-9, progress=False)
    np.testing.assert_allclose(policy.lower, 0.25 + 1 - 0.5 - 0.125, atol=1e-8)
    np.testing.assert_allclose(policy.upper, policy.lower, atol=1e-8)
    np.testing.assert_allclose(policy.marginal_value.ravel(), -0.125, atol=1e-8)


@pytest.mark.slow
def test_networks_count_costs():
    env, few = shop(0.1, 0.2), dm.Certificate(runs=200, marginal_runs=200, walk=0)
    exact = dm.solve_efficient_policy(env, progress=False)
    at = (0,) * exact.value.ndim
    found = dm.solve_efficient_policy(
        env, dm.Neural(sweeps=1, runs=8, steps=4, certificate=few), progress=False,
        initial=dm.Profiles(np.zeros((1, 2), int), np.zeros((1, 3), int)),
    )  # fmt: skip
    assert found.lower[0] - 1e-9 <= exact.value[at] <= found.upper[0] + 1e-9
    costs = found.bounded("round_costs")
    assert costs.lower[0] <= exact.round_costs[at] <= costs.upper[0]
    np.testing.assert_allclose(costs.value[0], exact.round_costs[at], atol=0.05)
    audit = dm.DynamicTeamMechanism(found, groves=dm.groves.Zero()).audit(conversations=200)
    assert audit.verdicts["incentives"] != "refuted"


def test_dominated_products_are_found_with_costs():
    env = dm.RecommendationMDP(
        [[1.0], [1.0], [1.0]], dm.TasteGrid([[0.5], [1.5]], [0.5, 0.5]), 3,
        dm.LastShownOnly(dm.Logit(0.5), query=0.6), dm.SignalStructure(),
        dm.ConstantValues([0.7, 0.7, 0.7]), round_cost=[0.2, 0.1, 0.15, 0.3], exit_value=0.4,
    )  # fmt: skip
    found = dm.undominated(env)
    assert found.kept.tolist() == [1, 2]  # the dearer of two that do without each other stays
    whole, less = (dm.solve_efficient_policy(x, progress=False) for x in (env, found.reduce()))
    np.testing.assert_allclose(whole.value.ravel(), less.value.ravel(), atol=1e-12)


def test_a_market_on_disk_keeps_them(tmp_path):
    env = shop([0.0, 0.1, 0.3], np.array([0.2, -0.1, 0.3]))
    env.write(tmp_path / "market")
    back = dm.read_market(tmp_path / "market")
    np.testing.assert_array_equal(back.round_cost, env.round_cost)
    np.testing.assert_array_equal(back.exit_value, env.exit_value)
    policy = dm.solve_efficient_policy(back, progress=False)
    policy.save(tmp_path / "policy")
    held = dm.EfficientPolicy.load(tmp_path / "policy")
    np.testing.assert_array_equal(held.round_costs, policy.round_costs)
    chat = policy.start(profile=0).step("query")
    assert held.resume(json.loads(json.dumps(chat.record()))).value == chat.value
    again = policy.revalue(gamma=env.gamma, marginals=True)
    np.testing.assert_allclose(again.value, policy.value, atol=1e-12)
    np.testing.assert_allclose(again.marginal_value, policy.marginal_value, atol=1e-12)


@pytest.mark.parametrize(
    "given",
    [
        {"cost": -0.1},
        {"cost": np.nan},
        {"cost": [0.1, 0.2]},
        {"cost": "dear"},
        {"leaving": [0.1, 0.2]},
        {"leaving": np.inf},
        {"leaving": None},
    ],
    ids=str,
)
def test_amounts_that_make_no_sense_are_refused(given):
    with pytest.raises(dm.DynmechError, match=r"(round_cost|exit_value)=\.\.\."):
        shop(**given)


def test_what_depends_on_the_taste_has_to_be_estimated():
    mechanism = dm.DynamicTeamMechanism(
        dm.solve_efficient_policy(shop(BY_TASTE, [0.1, 0.2, 0.3]), progress=False)
    )
    chat = mechanism.policy.start(profile=0).step("query").step("exit")
    for call in (
        lambda: mechanism.settle(chat),
        lambda: mechanism.payment(np.array([0.5, 0.3]), 3),
        lambda: mechanism.payment(np.array([0.5, 0.3]), 0),
        lambda: mechanism.payment(np.array([0.5, 0.3]), 0, np.array([0.1, 0.2])),
    ):
        with pytest.raises(dm.InvalidArgument):
            call()


def test_what_payments_vary_by_is_that_of_every_path():
    """Costs on the way and a rating at the end, exactly, against conversations drawn."""
    env = market(NAMES[0])
    assert env.costs.any()
    signals = dm.SignalStructure(
        env.signals.initial, env.signals.feedback, dm.RatingSettlement(0.3)
    )
    env = dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule, signals, env.values,
        round_cost=3 * env.costs, exit_value=env.exit_value,
    )  # fmt: skip
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Participation())
    moments, budget = dm.payment_moments(mechanism), mechanism.audit().budget
    profile = int(np.flatnonzero(policy.possible)[-1])
    records = mechanism.simulate(jax.random.key(0), 40_000, profile=profile)
    n = env.products
    for table, drawn in (
        (moments.variance.reshape(n + 1, -1)[:n, profile], records.payment),
        (budget.payment_variance.reshape(n, -1)[:, profile], records.core),
    ):
        spread = drawn - drawn.mean(axis=0)
        error = np.sqrt(((spread**4).mean(axis=0) - drawn.var(axis=0) ** 2) / len(drawn))
        assert (np.abs(table - drawn.var(axis=0)) <= 5 * error + 1e-12).all()
    revenue = records.payment.sum(axis=1)
    np.testing.assert_allclose(moments.mean[n].ravel()[profile], revenue.mean(), atol=0.05)
    np.testing.assert_allclose(moments.variance[n].ravel()[profile], revenue.var(), rtol=0.05)
