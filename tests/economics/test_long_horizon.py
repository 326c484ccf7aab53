"""Long-horizon policies: bounds against exact values, conversations, payments, mistakes."""

import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.market.told import BestMatch, FreeRecall
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import RuleCeiling, make_ceilings, told_taste
from dynmech.solve.certificates import make_case
from experiments.benchmarks.instances import hidden_taste
from solvers.told.enumerated import EnumeratedCeiling, enumerate_ceilings, list_memories
from tests.helpers.learning import learning_market
from tests.helpers.long_markets import UNTRAINED, scrambled
from tests.helpers.long_markets import solve as simulated
from tests.helpers.long_play import Histories

QUICK = dm.Neural(sweeps=3, runs=16, steps=40, batch=16, cases=4, chunk=4)
MOVING = dm.MarkovValues(np.ones((3, 1)), np.ones((3, 1)), np.ones((3, 1, 1)))
MANY = dm.ConstantValues(np.ones((7, 2)) * [0.5, 0.7])
CERTIFICATE = dm.Certificate(runs=300, marginal_runs=60, rounds=2)


def market(seed=0, horizon=3, n=3, **options):
    return learning_market(n, 6, horizon, seed=seed, **options)


def solve(env, solver=QUICK, certificate=CERTIFICATE, **options):
    return simulated(env, solver, certificate, **options)


@pytest.fixture(scope="module")
def solved():
    env = market()
    return env, solve(env), dm.solve_efficient_policy(env, progress=False)


def test_bounds_hold_the_exact_values_and_little_is_lost(solved):
    _, policy, exact = solved
    W = exact.value.item()
    slack = 5 * policy.evaluator.bounds.attained.error[0] + 1e-9
    assert policy.upper[0] >= W - 1e-9
    assert policy.lower[0] <= W + slack
    assert W - policy.value[0] < 0.005 * W + slack
    for bounds, true in (
        (policy.evaluator.marginal, exact.marginal_value),
        (policy.evaluator.displayable, exact.displayable_marginal_value),
    ):
        true = true.reshape(3, 1)
        assert (bounds.upper >= true - 1e-9).all()
        assert (bounds.lower <= true + 5 * bounds.error + 1e-9).all()
        assert (true - bounds.value <= 0.01 * np.abs(true) + 5 * bounds.error + 1e-9).all()
    assert policy.incentive_bound[0] >= W - policy.value[0] - slack
    assert policy.confidence == 0.95


@pytest.mark.slow
def test_the_interval_holds_the_exact_value_as_often_as_it_says():
    """Over 200 seeds; the lower bound of an untrained policy, at 80% confidence."""
    query = dm.FallingQuery(level=1.4, location=0.2, slope=0.5, low=0.05, high=0.9, nothing=0.6)
    env = market(horizon=3, rule=dm.PerfectRecall(dm.Logit(0.3), query))
    W = dm.solve_efficient_policy(env, progress=False).value.item()
    untrained = dm.Neural(sweeps=1, runs=2, steps=1, batch=1)
    sure = dm.Certificate(runs=20_000, rounds=3)
    policy = solve(env, untrained, sure, marginal=False)
    outset, value = policy.start(profile=0), policy.value[0]
    assert (
        W - value > 10 * policy.evaluator.bounds.attained.error[0]
    )  # otherwise the two counts are one
    inside = below = 0
    for seed in range(200):
        found = outset.certify(dm.Certificate(runs=60, confidence=0.8, rounds=1, seed=seed + 10))
        below += int(found.lower[0] <= value)
        inside += int(found.lower[0] <= W <= found.upper[0])
    spread = 3 * np.sqrt(200 * 0.8 * 0.2)
    assert inside >= 160 - spread
    assert below >= 160 - spread


@pytest.mark.slow
def test_bounds_are_wider_where_hardly_any_conversation_goes_on():
    """What hardly ever happens is met as often as it is worth: half of these were too high."""
    env = market(horizon=6, rule=dm.LastShownOnly(dm.Logit(0.3), 0.002))
    W = dm.solve_efficient_policy(env, progress=False).value.item()
    policy = solve(env, UNTRAINED, dm.Certificate(runs=512, rounds=1), marginal=False)
    outset = policy.start(profile=0)
    for seed in range(12):
        found = outset.certify(dm.Certificate(runs=512, rounds=1, seed=seed))
        assert found.lower[0] <= W <= found.upper[0] + 1e-12
        assert found.value[0] > found.lower[0]
    alone = market(horizon=1)
    once = solve(alone, UNTRAINED, marginal=False)
    np.testing.assert_allclose(once.upper - once.lower, 0.0, atol=1e-12)
    assert once.evaluator.bounds.attained.unseen[0] <= 1e-15


@pytest.mark.slow
def test_what_is_certified_inside_is_the_policy_that_goes_on():
    """When all was shown the rest has one law, which the network must not see in another form."""
    rng = np.random.default_rng(3)
    gamma, omega, weights = rng.normal(size=(2, 2)), rng.normal(size=(5, 2)), np.full(5, 4.0)
    tastes = dm.TasteGrid(omega, rng.dirichlet(weights))
    query = dm.ProductQuery(rng.uniform(0.05, 0.95, (2, 5)), none=0.5)
    env = dm.RecommendationMDP(
        gamma, tastes, 6, dm.PerfectRecall(dm.Logit(0.3), query),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=0.7, symbols=2)),
        dm.ConstantValues([0.5, 0.9]),
    )  # fmt: skip
    policy, apart = solve(env, UNTRAINED, marginal=False), []
    for seed in range(3):
        chat = (scrambled(policy, size=1.0, seed=seed) if seed else policy).start(profile=0)
        for _ in range(2):
            chat = chat.step("query", {"platform": 0})
        assert sorted(chat.place.memory.tolist()) == [0, 1]
        found = chat.certify(dm.Certificate(runs=2000, rounds=1))
        exact = Histories(chat.policy, chat.theta, chat.belief).surplus(chat.place.memory, 2)
        apart.append(abs(found.value[0] - exact) / found.error[0])
    assert max(apart) <= 4


@pytest.mark.slow
def test_numbers_in_float32_are_written_in_doubles():
    """The upper bound is above the optimum for certain, by what rounding the data can do."""
    env = market(n=2)
    narrow = dataclasses.replace(env, gamma=env.gamma.astype(np.float32))
    policy = solve(narrow, UNTRAINED, dm.Certificate(runs=30, rounds=3), marginal=False)
    assert policy.env.gamma.dtype == np.float64
    wide = dataclasses.replace(env, gamma=env.gamma.astype(np.float32).astype(float))
    W = dm.solve_efficient_policy(wide, progress=False).value.item()
    assert W < policy.upper[0] <= W * (1 + 64 * np.finfo(np.float32).eps)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_under_half_a_percent(seed):
    env = hidden_taste(50, 6) if seed == 3 else market(seed, horizon=4)
    exact = dm.solve_efficient_policy(env, progress=False)
    solver = dm.Neural(sweeps=15, seed=seed)
    policy = solve(env, solver, dm.Certificate(runs=3000, marginal_runs=1500))
    W, n = exact.value.item(), env.products
    assert policy.upper[0] >= W - 1e-9
    assert W - policy.value[0] < 0.005 * W + 3 * policy.evaluator.bounds.attained.error[0]
    true = exact.marginal_value.reshape(n, 1)
    assert (
        true - policy.evaluator.marginal.value <= 0.005 * true + 3 * policy.evaluator.marginal.error
    ).all()


def bound_of(env, process, case):
    """The told bound that is chosen: a rule's own, or one of listed memories."""
    (found,) = make_ceilings(env, process, [case])
    found = getattr(found, "ceiling", found)
    return found.bound if isinstance(found, RuleCeiling) else found


@pytest.mark.parametrize("owner", [pytest.param(None, marks=pytest.mark.slow), 1])
def test_every_ceiling_is_above_the_told_value(owner):
    query = dm.FallingQuery(level=1.2, low=0.1, high=0.9, nothing=0.6)
    env = market(n=4, rule=dm.PerfectRecall(dm.Threshold(), query))
    process, case = market_process(env), make_case(env, env.values.support[:, 0], owner)
    (exact,), (memories, _) = enumerate_ceilings(process, [case]), list_memories(process)
    quick = bound_of(env, process, case)
    assert isinstance(quick, BestMatch)
    told = told_taste(env, process, [case])
    (free,) = dm.ImperfectRecall(dm.Threshold(), query, 0.5).told_bound(told)
    for t, here in enumerate(memories):
        np.testing.assert_allclose(quick.value(t, here), exact.value(t, here), atol=1e-12)
        assert (free.value(t, here) >= exact.value(t, here) - 1e-12).all()
    logit = market(n=4, rule=dm.PerfectRecall(dm.Logit(0.3), query))
    process = market_process(logit)
    (exact,), (memories, _) = enumerate_ceilings(process, [case]), list_memories(process)
    assert isinstance(bound_of(logit, process, case), EnumeratedCeiling)
    (free,) = logit.action_rule.told_bound(told_taste(logit, process, [case]))
    for t, here in enumerate(memories):
        assert (free.value(t, here) >= exact.value(t, here) - 1e-12).all()
    large = market(n=20, horizon=20, rule=logit.action_rule)
    found = bound_of(large, market_process(large), make_case(large, np.ones(20)))
    assert isinstance(found, FreeRecall)
    wide = market(n=60)  # the last product is remembered: 61 memories, whatever their laws take
    found = bound_of(wide, market_process(wide), make_case(wide, np.ones(60)))
    assert isinstance(found, EnumeratedCeiling)


@pytest.mark.slow
def test_perfect_recall_over_twenty_products_is_no_obstacle():
    env = market(n=20, horizon=20, rule=dm.PerfectRecall(dm.Logit(0.3), 0.7))
    solver = dm.Neural(sweeps=1, runs=2, steps=1, batch=2)
    certificate = dm.Certificate(runs=30, rounds=1)
    policy = solve(env, solver, certificate, marginal=False)
    assert np.isfinite(policy.value).all()
    assert policy.lower[0] <= policy.upper[0]


def test_a_conversation_believes_what_the_exact_one_does(solved):
    env, policy, exact = solved
    chat, other = policy.start(profile=0), exact.start(theta=(0, 0, 0), signals=(0, 0, 0, 0))
    for symbol in (1, 0):
        if chat.recommendation != other.recommendation:
            break
        chat = chat.step("query", {"platform": symbol})
        other = other.step("query", {"platform": symbol})
        np.testing.assert_allclose(chat.belief, other.belief, rtol=1e-10)
    assert chat.period >= 2
    node = chat.certify(dm.Certificate(runs=100, rounds=2))
    if chat.period == other.period:
        assert node.upper[0] >= other.value - 1e-9
        assert node.lower[0] <= other.value + 5 * node.error[0] + 1e-9
    done = chat.step("exit")
    assert done.ended
    with pytest.raises(dm.InvalidArgument, match="in progress"):
        _ = done.recommendation
    chat = policy.start(profile=0)
    unseen = next(j for j in range(3) if j != chat.recommendation)
    assert chat.step(env.names[unseen]).off_model


def test_simulated_transfers_are_the_core_payments(solved):
    env, policy, _ = solved
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    records = mechanism.simulate(jax.random.key(0), 600)
    mean, error = records.mean("surplus")
    assert abs(mean - policy.value[0]) < 4 * np.hypot(
        error, policy.evaluator.bounds.attained.error[0]
    )
    bought = np.flatnonzero(~np.isnan(records.estimate))
    theta = env.values.support[:, 0]
    for row in bought[:5]:
        action = int(records.action[row, records.length[row] - 1])
        paid = mechanism.payment(theta, action, float(records.estimate[row]))
        np.testing.assert_allclose(records.core[row], paid, rtol=1e-12)
    assert (records.core[np.isnan(records.estimate)] == 0).all()
    payoff, error = records.mean("payoff")
    assert (
        np.abs(payoff - policy.value[0]) < 5 * error + 5 * policy.evaluator.bounds.attained.error[0]
    ).all()


@pytest.mark.slow
def test_no_simple_policy_is_better_than_the_bound(solved):
    _, policy, _ = solved
    for name in ("myopic", "posterior sampling", "knowledge gradient", "greedy for told-omega"):
        value, error = policy.baseline(name, 300)
        assert value <= policy.upper[0] + 4 * error


def test_simpler_policies_meet_the_same_draws(solved):
    _, policy, exact = solved
    found = policy.compare(("myopic", "knowledge gradient"), 200)
    assert found.name == ("this policy", "myopic", "knowledge gradient")
    np.testing.assert_allclose(found.difference, found.value[0] - found.value, atol=1e-12)
    assert found.difference[0] == found.difference_error[0] == 0
    apart = np.hypot(found.error[0], found.error[1:])
    assert (found.difference_error[1:] <= 1.01 * apart).all()
    assert (found.value <= exact.value.item() + 5 * found.error + 1e-9).all()


def test_the_relaxation_is_above_the_value(solved):
    _, policy, exact = solved
    found = policy.relax(60, rounds=2)
    assert found.value >= exact.value.item() - 4 * found.error
    assert found.upper > found.value
    assert (found.confidence, found.rounds) == (0.95, 2)
    for options in ({"conversations": 3}, {"rounds": 0}, {"beam": 0}):
        with pytest.raises(dm.InvalidArgument, match=next(iter(options))):
            policy.relax(**options)
    with pytest.raises(dm.InvalidArgument, match="names"):
        policy.compare(("bold",))


@pytest.mark.slow
def test_a_checkpoint_resumes_and_is_refused_for_another_problem(tmp_path):
    env, solver = market(horizon=2), dm.Neural(sweeps=2, runs=4, steps=2, batch=4, chunk=4)
    certificate = dm.Certificate(runs=30, rounds=1)
    one = solve(env, solver, certificate, marginal=False, checkpoint=tmp_path / "kept")
    two = solve(env, solver, certificate, marginal=False, checkpoint=tmp_path / "kept")
    np.testing.assert_array_equal(one.value, two.value)
    np.testing.assert_array_equal(one.evaluator.history, two.evaluator.history)
    with pytest.raises(dm.InvalidArgument, match="another problem"):
        solve(market(1, horizon=2), solver, certificate, marginal=False,
              checkpoint=tmp_path / "kept")  # fmt: skip


def test_divergence_leaves_a_policy_without_a_network():
    env, exact = market(horizon=2), dm.solve_efficient_policy(market(horizon=2), progress=False)
    certificate = dm.Certificate(runs=100, marginal_runs=0)
    wild = dm.Neural(
        sweeps=8, runs=8, steps=20, batch=8, learning_rate=1e4, clip=1e9, certificate=certificate
    )
    with pytest.warns(dm.DynmechWarning, match="training failed.*learning_rate"):
        policy = dm.solve_efficient_policy(env, wild, progress=False)
    assert policy.status is dm.Status.TRAINING_FAILED
    live = policy.possible.reshape(policy.value.shape)
    assert (policy.lower <= exact.value + 1e-9)[live].all()
    assert (policy.upper >= exact.value - 1e-9)[live].all()
    with pytest.raises(dm.TrainingDiverged) as caught:
        dm.solve_efficient_policy(env, wild, progress=False, throw=True)
    np.testing.assert_array_equal(caught.value.policy.value, policy.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dm.Certificate(runs=3), ["runs", "30"]),
        (lambda: dm.Certificate(confidence=1.0), ["confidence"]),
        (lambda: dm.Certificate(rounds=-1), ["rounds"]),
        (lambda: solve(market(), dm.Neural(runs=0)), ["runs", "at least 1"]),
        (lambda: solve(market(), dm.Neural(learning_rate=-1.0)), ["learning_rate"]),
        (lambda: solve(market(), dm.Neural(explore=2.0)), ["explore"]),
        (lambda: solve(market(horizon=float("inf"))), ["horizon", "finite"]),
        (lambda: solve(market(values=MOVING)), ["ConstantValues"]),
        (lambda: solve(market(n=7, values=MANY)), ["64", "sample_profiles"]),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(dm.DynmechError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
