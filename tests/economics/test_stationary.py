"""Markets without a last round: closed forms, long horizons, certificates, mistakes."""

import math

import equinox as eqx
import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.audit.bounds import _worth
from dynmech.market.choices import AbstractChoice
from solvers.tree.plan import visit

BOUNDS = (
    ("lower", "upper"),
    ("marginal_lower", "marginal_upper"),
    ("displayable_marginal_lower", "displayable_marginal_upper"),
)
SLOW = [pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 3, 5, 7)]
KINDS = ("last", "stays", "recall", "order")


def solve(env, tolerance=0.0, solver=None, **options):
    """By cutting off, where there is no last round."""
    if solver is None and env.horizon == math.inf:
        solver = dm.Stationary()
    return dm.solve_efficient_policy(env, solver, tolerance=tolerance, progress=False, **options)


class Fixed(AbstractChoice):
    """The same share of those who do not ask again buys whatever is remembered."""

    share: float = eqx.field(static=True)

    def shares(self, utilities, weight):
        return self.share * weight[:, None] * jax.numpy.ones_like(utilities)


def one_product(buy, query, horizon=math.inf, theta=0.7, utility=0.4):
    """One product, one taste: bought with probability `buy`, asked about again with `query`."""
    rule = dm.LastShownOnly(Fixed(buy / (1 - query)), dm.ProductQuery([query], none=query))
    tastes = dm.TasteGrid(np.ones((1, 1)), np.ones(1))
    values = dm.ConstantValues([[theta]])
    return dm.RecommendationMDP(
        np.array([[utility]]), tastes, horizon, rule, dm.SignalStructure(), values
    )


def random_endless(seed, horizon=math.inf, feedback=True, query=0.4, order=None):
    """A random market whose user stops asking, with surpluses of both signs.

    Kinds differ in what is remembered: the last product or all of them, in order or not. Values
    are constant, or move; every third market has a chance of certain exit in some situation.
    """
    rng = np.random.default_rng(seed)
    n, m = 1 + seed % 2, 3
    kind = KINDS[seed // 2 % 4]
    gamma = rng.normal(size=(n, 2))
    points = rng.normal(size=(m, 2))
    support = np.sort(rng.normal(0.0, 0.6, (n, 2)), axis=1)
    weights = rng.dirichlet(np.full(m, 3.0))
    level = rng.uniform(0.05, query, (n, m)) * (rng.random((n, m)) > 0.1 * (seed % 3))
    none = float(rng.uniform(0.05, query))
    table = rng.dirichlet(np.ones(2), (n + 1, m)).reshape(n + 1, m, 2, *[1] * n)
    initial = rng.dirichlet(np.ones(2), m).reshape(m, 1, 2, *[1] * (n - 1))
    prior = rng.dirichlet(np.ones(2), n)
    kernel = rng.dirichlet(np.ones(2), (n + 1, n, 2))
    if order is not None:
        gamma, support, level, prior = gamma[order], support[order], level[order], prior[order]
        table, kernel = table[[*order, n]], kernel[[*order, n]][:, order]
        initial = initial.transpose(0, 1, *(2 + np.asarray(order)))
    shown = dm.ProductQuery(level, none=none)
    rule = {
        "last": lambda: dm.LastShownOnly(dm.Logit(0.7), shown),
        "stays": lambda: dm.LastShownOnly(dm.Logit(0.7), shown, stays=True),
        "recall": lambda: dm.PerfectRecall(dm.Logit(0.7), shown),
        "order": lambda: dm.ImperfectRecall(dm.Logit(0.7), shown, decay=0.5),
    }[kind]()
    moving = seed % 5 == 0
    values = (
        dm.MarkovValues(support, prior, kernel) if moving else dm.ConstantValues(support, prior)
    )
    law = dm.ChannelFeedback(table) if feedback else dm.NoFeedback()
    signals = dm.SignalStructure(initial=dm.JointSignals(initial), feedback=law)
    return dm.RecommendationMDP(
        gamma, dm.TasteGrid(points, weights), horizon, rule, signals, values
    )


def assert_brackets(policy, reference, slack):
    """Bounds hold the values of a very long horizon, which is `slack` away from none at all."""
    for low, high in BOUNDS:
        true = getattr(reference, low.replace("lower", "value"))
        below, above = getattr(policy, low), getattr(policy, high)
        known = ~np.isnan(true)
        assert (np.isnan(below) == ~known).all()
        assert (below[known] <= true[known] + slack).all(), low
        assert (true[known] <= above[known] + slack).all(), high


@pytest.mark.parametrize(("buy", "query"), [(0.3, 0.5), (0.1, 0.85), (0.4, 0.05)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_geometric_series(buy, query, sign):
    """W = (theta + u) p / (1 - q); nothing is worth showing when theta + u < 0."""
    env = one_product(buy, query, theta=0.7 if sign > 0 else -1.5)
    exact = max(0.0, (env.values.support[0, 0] + 0.4) * buy / (1 - query))
    for tolerance in (1e-2, 1e-9):
        policy = solve(env, tolerance)
        assert policy.lower.item() <= exact + 1e-14
        assert exact <= policy.upper.item() + 1e-14
        assert policy.upper.item() - policy.lower.item() <= tolerance
        assert abs(policy.value.item() - exact) <= tolerance
        assert policy.marginal_value.item() == 0 <= policy.marginal_upper.item() <= 1e-15
    if sign > 0:  # the fewest rounds that are enough
        shorter = solve(one_product(buy, query, policy.plan.horizon - 1))
        assert exact - shorter.value.item() > 0.99e-9
    else:
        assert policy.plan.horizon == 1


def test_the_last_round_asks_again_like_any_other():
    """Half of the value of one round is in the rounds after it: no bound may forget it."""
    env = one_product(0.3, 0.5)
    policy = solve(env, 0.35)
    assert policy.plan.horizon == 1
    assert policy.value.item() == pytest.approx(1.1 * 0.3)
    assert policy.upper.item() == pytest.approx(1.1 * 0.6, abs=1e-5)
    assert policy.lower.item() == pytest.approx(policy.value.item(), rel=1e-12)


@pytest.mark.parametrize("tolerance", [1e-6, 1.0])
def test_costs_that_nobody_can_avoid_are_in_the_bounds(tolerance):
    """Without the product the user asks on at .9 a round, at a cost: W^{-i} = -.1 * .9 / .1."""
    env = dm.RecommendationMDP(
        [[1.0]],
        dm.TasteGrid([[1.0]], [1.0]),
        math.inf,
        dm.LastShownOnly(dm.Threshold(), dm.ProductQuery([0.5], none=0.9)),
        dm.SignalStructure(),
        dm.ConstantValues([1.0]),
        round_cost=0.1,
    )
    policy = dm.solve_efficient_policy(env, dm.Stationary(), tolerance=tolerance, progress=False)
    assert policy.marginal_lower.item() <= -0.9 <= policy.marginal_upper.item()
    assert policy.lower.item() <= 1.9 <= policy.upper.item()


def test_what_is_remembered_can_still_be_bought_at_a_loss():
    """The plan and then none for ever is worth less than the plan: the lower bound says so.

    One product that stays on the screen, theta + u = -1 at one of two tastes and +1.5 at the
    other, bought with probability .2 and asked about with .6. Shown in the single round that is
    followed, and bought later all the same, it yields s * .2 / (1 - .6) at either taste.
    """
    rule = dm.LastShownOnly(Fixed(0.5), dm.ProductQuery([0.6], none=0.6), stays=True)
    env = dm.RecommendationMDP(
        np.ones((1, 1)), dm.TasteGrid(np.array([[-1.0], [1.5]]), np.array([0.5, 0.5])), math.inf,
        rule, dm.SignalStructure(), dm.ConstantValues([[0.0]]),
    )  # fmt: skip
    policy = solve(env, 2.0)
    assert policy.plan.horizon == 1
    after = 0.6 * 0.5
    assert policy.value.item() == pytest.approx(0.2 * 0.25)
    assert policy.lower.item() == pytest.approx(0.2 * 0.25 - 0.5 * after * 1.0, abs=1e-5)
    assert policy.upper.item() == pytest.approx(0.25 * 0.5, abs=1e-9)
    tight = solve(env, 1e-9)
    assert tight.value.item() == pytest.approx(0.25 * 0.5, abs=1e-9)


@pytest.mark.parametrize("seed", [2, 10, *SLOW])
def test_bounds_hold_a_very_long_horizon(seed):
    feedback = seed % 3 > 0
    long, query = (6, 0.2) if feedback else (20, 0.3)
    env = random_endless(seed, feedback=feedback, query=query)
    reference = solve(random_endless(seed, long, feedback, query))
    scale = env.money_scale
    slack = scale * query**long + 1e-12
    for share in (0.3, 0.01 if feedback else 1e-9):
        policy = solve(env, share * scale)
        assert_brackets(policy, reference, slack)
        assert np.nanmax(policy.upper - policy.lower) <= share * scale
        width = policy.marginal_upper - policy.marginal_value
        assert np.nanmax(width) <= share * scale
        assert (policy.lower <= policy.value).all()
        assert (policy.value <= policy.upper).all()


@pytest.mark.slow
@pytest.mark.parametrize("count", [400])
def test_certificates_are_not_violated_on_many_markets(count):
    """Loose tolerances, where a wrong certificate would show; most with one product, to be quick.

    Of many, one in eight has two products and feedback.
    """
    below = above = 0
    for seed in range(1000, 1000 + count):
        feedback = seed % 8 == 7 if seed % 2 and count > 100 else seed % 2 == 0
        query, long = (0.3, 6) if feedback else (0.4, 12)
        env = random_endless(seed, feedback=feedback, query=query)
        reference = solve(random_endless(seed, long, feedback, query))
        tolerance = (0.3, 0.05)[seed // 2 % 2] * env.money_scale
        policy = solve(env, tolerance)
        assert_brackets(policy, reference, env.money_scale * query**long + 1e-12)
        assert np.nanmax(policy.upper - policy.lower) <= tolerance
        assert np.nanmax(policy.marginal_upper - policy.marginal_value) <= tolerance
        below += (policy.lower < policy.value - 1e-9).any()
        above += (reference.value > policy.value + 1e-4).any()
    assert below > count / 50
    assert above > count / 50


@pytest.mark.parametrize("seed", [2, 4, 6, *SLOW])
def test_every_node_is_certified_and_the_lower_bound_is_attained(seed):
    """The short plan, then none for ever, on a much longer tree of the same nodes."""
    env = random_endless(seed, feedback=seed % 2 > 0, query=0.3)
    scale = env.money_scale
    short, long = solve(env, 0.2 * scale), solve(env, 2e-3 * scale)
    rounds = short.plan.horizon
    assert rounds < long.plan.horizon
    actions = [np.full_like(taken, env.products) for taken in long.plan.actions]
    for t, taken in enumerate(short.plan.actions):
        actions[t] = taken
    used = long.with_actions(actions)
    slack = 4e-3 * scale
    assert (used.value >= short.lower - slack).all()
    assert (used.lower <= used.value).all()
    path = visit(used.plan, np.arange(len(used.pairs.root)), by_origin=False)
    attained, best = (_worth(used, plan, path) for plan in (used.plan, used.optimal))
    for t, here in enumerate(path[:rounds]):
        mass = used.plan.belief(t, here.pair, here.node).sum(axis=1)
        loss = (best[t] - attained[t]) / np.where(mass > 0, mass, 1)
        certified = short.gap[t][here.pair, here.node]
        assert (loss <= certified + slack)[mass > 0].all()


@pytest.mark.parametrize("seed", [0, 1, 6, 11])
def test_the_policy_can_be_used_like_any_other(seed, tmp_path):
    env = random_endless(seed)
    policy = solve(env, 0.05 * env.money_scale)
    assert policy.env.horizon == policy.plan.horizon
    assert f"{policy.plan.horizon} rounds" in policy.solver
    mechanism = dm.DynamicTeamMechanism(policy)
    audit = mechanism.audit()
    assert audit.incentive_gain.max() <= 1e-9 * env.money_scale
    assert audit.incentive_gain.max() <= audit.gap.bound
    assert audit.gap.bound >= np.nanmax(policy.upper - policy.lower) - 1e-12
    assert len(mechanism.simulate(jax.random.key(0), 50).to_frame()) > 0
    chat = policy.start(profile=0)
    for _ in range(policy.plan.horizon):
        assert chat.recommendation in range(-1, env.products)
        more = ((0,) * (env.products + 1), (0,) * env.products)
        chat = chat.step("query", *more if chat.period < policy.plan.horizon else ())
    policy.save(tmp_path / "policy")
    again = dm.EfficientPolicy.load(tmp_path / "policy")
    np.testing.assert_array_equal(again.lower, policy.lower)
    assert dm.check_assumption_3(policy.env) is not None


@pytest.mark.parametrize("seed", [1, 7])
def test_relabelled_products_have_the_same_bounds(seed):
    one, two = (solve(random_endless(seed, order=order), 0.01) for order in (None, [1, 0]))
    assert one.plan.horizon == two.plan.horizon
    axes = (1, 0, 2, 4, 3)
    for name in ("value", "lower", "upper"):
        found = np.transpose(getattr(one, name), axes)
        np.testing.assert_allclose(found, getattr(two, name), atol=1e-12)


def test_merging_does_not_change_the_answer():
    env = random_endless(3)
    one = solve(env, 0.1 * env.money_scale)
    two = solve(env, 0.1 * env.money_scale, dm.Stationary(merge=False))
    for name in ("value", "lower", "upper", "marginal_value", "marginal_upper"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-12)


def test_a_long_conversation_without_feedback_stays_narrow():
    """Worst-case survival would need thousands of rounds; good plans end far sooner."""
    env = random_endless(4, feedback=False)
    slow = dm.LastShownOnly(dm.Logit(0.7), dm.ProductQuery(np.full((1, 1), 0.6), none=0.998))
    env = dm.RecommendationMDP(
        env.gamma, env.tastes, math.inf, slow, env.signals, dm.ConstantValues(np.array([[3.0]]))
    )
    policy = solve(env, 1e-6)
    assert policy.plan.horizon < 60
    assert max(layer.nodes for layer in policy.plan.tree.layers) == 1
    reference = solve(
        dm.RecommendationMDP(env.gamma, env.tastes, 120, slow, env.signals, env.values)
    )
    assert_brackets(policy, reference, 1e-12)


def test_conversations_that_end_by_themselves_need_no_tolerance():
    env = one_product(0.3, 0.0)
    policy = solve(env)
    assert policy.plan.horizon == 1
    assert policy.value.item() == pytest.approx(0.33)
    assert policy.upper.item() == pytest.approx(policy.value.item(), rel=1e-12)
    assert policy.gap is None


def test_what_does_not_fit_is_bounded(monkeypatch):
    """Half of the tolerance goes to the rounds left out, half to what is not followed."""
    env = random_endless(1, query=0.5)
    tolerance = 0.1 * env.money_scale
    full = solve(env, tolerance / 10)

    def refuse(*_):
        raise MemoryError("too large")

    monkeypatch.setattr("solvers.tree.planned.plan_tree", refuse)
    found = solve(env, tolerance)
    assert "BranchAndBound" in found.solver
    assert (found.lower <= full.upper).all()
    assert (full.lower <= found.upper).all()
    assert 0 < (found.upper - found.lower).max() <= tolerance
    audit = dm.DynamicTeamMechanism(found).audit()
    assert audit.incentive_gain.max() <= audit.gap.bound


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"tolerance": 0.0}, ["tolerance", "positive", "money"]),
        ({}, {"tolerance": 1e-15}, ["tolerance", "certify"]),
        ({"none": 1.0}, {"tolerance": 0.1}, ["action_rule", "none", "taste point 0", "memory"]),
        ({"sure": True}, {"tolerance": 0.1}, ["action_rule", "product 1", "taste point 2"]),
        ({"none": 1 - 1e-6}, {"tolerance": 1e-3, "recall": True}, ["tolerance", "rounds"]),
        ({}, {"tolerance": 0.1, "solver": dm.Exact()}, ["horizon", "BestFirst"]),
        ({}, {"tolerance": 0.1, "solver": dm.BranchAndBound()}, ["horizon", "BestFirst"]),
        ({"horizon": 3}, {"solver": dm.Stationary()}, ["horizon", "inf", "Exact"]),
    ],
)
def test_mistakes_are_named_before_work_starts(change, options, words):
    options = dict(options)
    level = np.full((2, 3), 0.3)
    if change.get("sure"):
        level[1, 2] = 1.0
    query = dm.ProductQuery(level, none=change.get("none", 0.3))
    kind = dm.PerfectRecall if options.pop("recall", False) else dm.LastShownOnly
    base = random_endless(1)
    env = dm.RecommendationMDP(
        base.gamma, base.tastes, change.get("horizon", math.inf), kind(dm.Logit(1.0), query),
        base.signals, base.values,
    )  # fmt: skip
    with pytest.raises(dm.DynmechError) as caught:
        solve(env, **options)
    for word in words:
        assert word in str(caught.value)


class Counting(dm.AbstractActionRule):
    """Remembers how often something was recommended: never a finite set of memories."""

    def start(self, products, horizon):
        return np.zeros(1, int)

    def step(self, memory, recommendation, products):
        return memory + 1

    def probabilities(self, memory, recommendation, utilities):
        n, m = utilities.shape
        return jax.numpy.zeros((n + 2, m)).at[n:].set(0.5)


class Diary(dm.AbstractActionRule):
    """Has a page for every round: needs to know their number."""

    def start(self, products, horizon):
        return np.zeros(horizon, int)

    def step(self, memory, recommendation, products):
        return memory

    def probabilities(self, memory, recommendation, utilities):
        n, m = utilities.shape
        return jax.numpy.zeros((n + 2, m)).at[n:].set(0.5)


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Counting(), "Counting"),
        (Diary(), "Diary"),
        (dm.Tabulated(np.full((3, 3, 1), 1 / 3)), "Tabulated"),
    ],
    ids=["Counting", "Diary", "Tabulated"],
)
def test_memories_that_do_not_close_are_named(rule, word, monkeypatch):
    monkeypatch.setattr("dynmech.problem.endless._MOST_MEMORIES", 40)
    base = one_product(0.3, 0.5)

    def attempt():
        parts = (base.tastes, math.inf, rule, base.signals, base.values)
        return solve(dm.RecommendationMDP(base.gamma, *parts), 0.1)

    with pytest.raises(dm.DynmechError, match=word) as caught:
        attempt()
    assert "action_rule" in str(caught.value)
