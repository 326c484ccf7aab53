"""Built-in rules and signals against tables of every ordered history, written out by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from tests.helpers import behaviour as by_hand
from tests.helpers.quantities import assert_same, quantities, solve

M = 4


def grid(n, seed):
    rng = np.random.default_rng(seed)
    omega = rng.lognormal(0.0, 0.6, (M, 2))
    return rng, rng.normal(0.0, 0.9, (n, 2)), dm.TasteGrid(omega, rng.dirichlet(np.full(M, 4.0)))


def pairs(n, gamma, tastes):
    """Built-in rules, each with how its table is written by hand."""
    u = gamma @ tastes.points.T
    rng = np.random.default_rng(99)
    level, scales = rng.uniform(0.1, 0.9, (n, M)), rng.uniform(0.2, 0.9, M)
    falling = (1.3, -0.2, 0.6, 0.15, 0.85, 0.6)
    query_falling = dm.FallingQuery(*falling)
    return {
        "perfect, logit, constant": (
            dm.PerfectRecall(dm.Logit(0.5), 0.4),
            lambda T: by_hand.action_table(
                u, T, "all", by_hand.logit, by_hand.constant(0.4), scale=0.5
            ),
        ),
        "perfect, threshold, falling": (
            dm.PerfectRecall(dm.Threshold(), query_falling),
            lambda T: by_hand.action_table(
                u, T, "all", by_hand.threshold, by_hand.falling(*falling)
            ),
        ),
        "imperfect, logit per taste, by product": (
            dm.ImperfectRecall(dm.Logit(scales), dm.ProductQuery(level, none=0.25), decay=0.55),
            lambda T: by_hand.action_table(
                u, T, "recency", by_hand.logit, by_hand.by_product(level, 0.25),
                decay=0.55, scale=scales,
            ),
        ),
        "imperfect, threshold, constant": (
            dm.ImperfectRecall(dm.Threshold(), dm.ConstantQuery(0.5), decay=0.3),
            lambda T: by_hand.action_table(
                u, T, "recency", by_hand.threshold, by_hand.constant(0.5), decay=0.3
            ),
        ),
        "imperfect without memory, falling": (
            dm.ImperfectRecall(dm.Logit(0.4), query_falling, decay=0.0),
            lambda T: by_hand.action_table(
                u, T, "stays", by_hand.logit, by_hand.falling(*falling), scale=0.4
            ),
        ),
        "screen, logit, by product": (
            dm.LastShownOnly(dm.Logit(0.4), dm.ProductQuery(level[:, 0], none=0.9)),
            lambda T: by_hand.action_table(
                u, T, "last", by_hand.logit,
                by_hand.by_product(level[:, :1].repeat(M, 1), 0.9), scale=0.4,
            ),
        ),
        "screen, falling": (
            dm.LastShownOnly(dm.Threshold(), query_falling),
            lambda T: by_hand.action_table(
                u, T, "last", by_hand.threshold, by_hand.falling(*falling)
            ),
        ),
        "screen that stays, falling": (
            dm.LastShownOnly(dm.Logit(scales), query_falling, stays=True),
            lambda T: by_hand.action_table(
                u, T, "stays", by_hand.logit, by_hand.falling(*falling), scale=scales
            ),
        ),
    }  # fmt: skip


RULES = list(pairs(2, *grid(2, 0)[1:]))


def check(env, action, feedback, initial):
    """Everything the library computes, with behaviour by rule and by tables."""
    tables = by_hand.tabulated(env, action, feedback, initial)
    assert env.profile_shape == tables.profile_shape
    policy = solve(env)
    found = quantities(policy)
    assert_same(found, quantities(solve(tables)), env.money_scale)
    return policy, found


def market(n, horizon, rule, feedback, initial, gamma, tastes, rng, K=2):
    return dm.RecommendationMDP(
        gamma,
        tastes,
        horizon,
        rule,
        dm.SignalStructure(initial=initial, feedback=feedback),
        dm.MarkovValues(
            np.sort(rng.uniform(0.1, 1.0, (n, K)), axis=1),
            rng.dirichlet(np.ones(K), n),
            rng.dirichlet(np.ones(K), (n + 1, n, K)),
        ),
    )


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("n", "horizon"), [(2, 3), pytest.param(3, 3, marks=pytest.mark.slow)])
def test_rule_is_its_table(name, n, horizon):
    rng, gamma, tastes = grid(n, 5)
    rule, table = pairs(n, gamma, tastes)[name]
    channel = rng.dirichlet(np.ones(2), (n + 1, M)).reshape(n + 1, M, 2, *(1,) * n)
    initial = rng.dirichlet(np.ones(2), M).reshape(M, 1, 2, *(1,) * (n - 1))
    env = market(
        n, horizon, rule, dm.ChannelFeedback(channel), dm.JointSignals(initial), gamma, tastes, rng
    )
    feedback = by_hand.channel_table(channel, horizon)
    policy, found = check(env, table(horizon), feedback, initial)
    assert np.nanmax(found["W"]) > 0
    unmerged = sum((2 * (n + 1)) ** t for t in range(horizon))
    assert policy.plan.tree.nodes < unmerged


def test_tastes_that_tie_are_broken_by_index():
    """Two products of the same utility: the first remembered is bought."""
    gamma, tastes = np.array([[1.0], [1.0], [-1.0]]), dm.TasteGrid([[1.0], [0.0]], [0.5, 0.5])
    env = dm.RecommendationMDP(
        gamma, tastes, 2, dm.ImperfectRecall(dm.Threshold(), 0.5, decay=0.5),
        dm.SignalStructure(), dm.ConstantValues([0.2, 0.1, 0.3]),
    )  # fmt: skip
    u = gamma @ tastes.points.T
    table = by_hand.action_table(
        u, 2, "recency", by_hand.threshold, by_hand.constant(0.5), decay=0.5
    )
    rows = by_hand.histories_of(3, 2)
    # At omega = 0 all three are worth zero, which is enough; 1 was shown last.
    np.testing.assert_allclose(table[rows.index((0, 1)), :, 1], [0.25, 0.25, 0, 0, 0.5])
    check(env, table, by_hand.silent_table(3, 2, 2), np.ones((2, 1, 1, 1, 1)))


class Bored(dm.AbstractActionRule):
    """A user's own rule: remembers how many rounds passed, and buys from the last screen."""

    patience: float

    def start(self, products, horizon):
        return np.zeros(1, np.int64)

    def step(self, memory, recommendation, products):
        return memory + 1

    def probabilities(self, memory, recommendation, utilities):
        n, m = utilities.shape
        again = self.patience ** memory[0]
        shown = jnp.arange(n)[:, None] == recommendation
        bought = jnp.where(shown, 0.5 * (utilities > 0), 0.0) * (1 - again)
        leave = 1 - again - bought.sum(0)
        return jnp.concatenate([bought, leave[None], jnp.full((1, m), again)])


def test_own_rule_is_its_table():
    n, horizon = 2, 3
    rng, gamma, tastes = grid(n, 8)
    u = gamma @ tastes.points.T
    initial = rng.dirichlet(np.ones(6), M).reshape(M, 1, 2, 3)
    env = market(
        n, horizon, Bored(0.7), dm.RatingFeedback(0.5, 2), dm.JointSignals(initial), gamma,
        tastes, rng,
    )  # fmt: skip
    rows = []
    for h in by_hand.histories_of(n, horizon):
        table, again = np.zeros((n + 2, M)), 0.7 ** len(h)
        if h[-1] < n:
            table[h[-1]] = (1 - again) * 0.5 * (u[h[-1]] > 0)
        table[n + 1] = again
        table[n] = 1 - table.sum(0)
        rows.append(table)
    feedback = by_hand.rating_table(u, tastes.weights, horizon, lambda t, j: 0.5, 2)
    check(env, np.array(rows), feedback, initial)


class Telepath(dm.AbstractActionRule):
    """Breaks Assumption 1: may buy product 1 whatever was shown."""

    def start(self, products, horizon):
        return np.zeros(1, np.int64)

    def step(self, memory, recommendation, products):
        return memory

    def probabilities(self, memory, recommendation, utilities):
        n, m = utilities.shape
        return jnp.zeros((n + 2, m)).at[1].set(0.1).at[n].set(0.9)


def test_buying_what_was_not_shown_is_refused():
    _, gamma, tastes = grid(2, 9)
    env = dm.RecommendationMDP(
        gamma, tastes, 2, Telepath(), dm.SignalStructure(), dm.ConstantValues([1.0, 1.0]),
        names=("chair", "table"),
    )  # fmt: skip
    with pytest.raises(dm.UnseenPurchase, match="table"):
        solve(env)


def test_buying_what_was_shown_on_one_path_only_is_refused():
    """A memory that forgets whether 0 was shown, and lets it be bought."""
    _, gamma, tastes = grid(2, 9)
    action = np.zeros((12, 4, M))
    action[:, 2] = 1.0
    row = by_hand.histories_of(2, 2).index((1, 1))
    action[row, 0], action[row, 2] = 0.1, 0.9
    env = by_hand.tabulated(
        dm.RecommendationMDP(
            gamma, tastes, 2, dm.Tabulated(action), dm.SignalStructure(),
            dm.ConstantValues([1.0, 1.0]),
        ),
        action, by_hand.silent_table(2, M, 2), np.ones((M, 1, 1, 1)),
    )  # fmt: skip
    with pytest.raises(dm.UnseenPurchase, match="product 0"):
        solve(env)


@pytest.mark.parametrize("products", [3, 8, 9, 20])
def test_a_threshold_takes_the_best_that_comes_to_mind(products):
    """Few products are compared in pairs, many are sorted; both as by listing what is recalled."""
    rng = np.random.default_rng(products)
    utilities = np.round(rng.normal(size=(products, 6)), 1)
    utilities[1] = utilities[0]
    weight = np.where(np.arange(products) < 4, rng.uniform(size=products), 0.0)
    weight[2] = 1.0
    expected = np.zeros_like(utilities)
    few = min(products, 4)
    for recalled in itertools.product((False, True), repeat=few):
        chance = np.prod(np.where(recalled, weight[:few], 1 - weight[:few]))
        for m in range(6):
            best, held = 0.0, -1
            for j in np.flatnonzero(recalled):
                if utilities[j, m] >= 0 and (held < 0 or utilities[j, m] > best):
                    best, held = utilities[j, m], j
            if held >= 0:
                expected[held, m] += chance
    with jax.enable_x64(True):
        found = dm.Threshold().shares(jnp.asarray(utilities), jnp.asarray(weight))
    np.testing.assert_allclose(found, expected, atol=1e-12)
