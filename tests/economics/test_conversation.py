"""Conversations stepped by hand: beliefs by Bayes, values by brute force, what cannot happen."""

import numpy as np
import pytest

import dynmech as dm
from tests.helpers import oracle
from tests.helpers.markets import histories_of, random_market
from tests.helpers.quantities import TOLERANCE, market_of, solve
from tests.helpers.small import logit_market

NAMES = ("chair", "table")


def nodes_of(case):
    """Every node of the whole history tree, by the oracle."""
    g, nodes = oracle.unpack(case), {}
    belief = (g.prior[:, None] * g.initial_signals.reshape(g.m, -1)).T
    shown, counted = range(g.n + 1), np.ones(g.n)
    oracle.walk(g, (), belief, g.initial_signals.shape[1:], shown, counted, nodes)
    return g, nodes


def follow(case, policy, rng, chats):
    """Random conversations beside the oracle's nodes: yields both at every round."""
    g, nodes = nodes_of(case)
    alphabet, markov = policy.env.feedback_alphabet, isinstance(policy.env.values, dm.MarkovValues)
    starts = np.argwhere(~np.isnan(policy.value))
    for start in starts[rng.choice(len(starts), chats)]:
        theta, history = start[: g.n], ()
        chat = policy.start(theta, start[g.n :])
        path = int(np.ravel_multi_index(start[g.n :], policy.env.initial_alphabet))
        while True:
            values = int(np.ravel_multi_index(theta, (g.K,) * g.n))
            yield chat, nodes[history], path, values
            if len(history) == g.horizon - 1:
                break
            history = (*history, int(nodes[history].choice[path, values]))
            symbols = rng.integers(alphabet)
            theta = rng.integers(g.K, size=g.n) if markov else theta
            chat = chat.step("query", symbols, theta if markov else None)
            if chat.off_model:
                break
            path = path * int(np.prod(alphabet)) + int(np.ravel_multi_index(symbols, alphabet))


MARKETS = {
    "constant": {"constant": True, "horizon": 3, "recall": "ordered", "symbols": (2, 1, 2)},
    "markov": {"initial_symbols": (1, 2, 2), "horizon": 3, "symbols": (2, 1, 1)},
    "zeros": {"zeros": 0.4, "constant": True, "horizon": 3},
    "ties": {"ties": True},
}


@pytest.mark.parametrize("name", MARKETS)
def test_belief_value_and_recommendation_are_those_of_brute_force(name):
    rng = np.random.default_rng([41, list(MARKETS).index(name)])
    case = random_market(rng, **MARKETS[name])
    policy = solve(market_of(case))
    atol, later = TOLERANCE * policy.env.money_scale, 0
    for chat, node, path, values in follow(case, policy, rng, 25):
        mass = node.belief[path].sum()
        np.testing.assert_allclose(chat.belief, node.belief[path] / mass, rtol=0, atol=1e-12)
        np.testing.assert_allclose(chat.value, node.value[path, values] / mass, rtol=0, atol=atol)
        assert chat.recommendation % (policy.env.products + 1) == node.choice[path, values]
        n = policy.env.products
        for r in range(n + 1):
            worth = chat.worth(-1 if r == n else r)
            expected = node.pay[r, oracle.ESTIMATOR, path, values]
            np.testing.assert_allclose(worth, expected, rtol=0, atol=atol)
        later += chat.period > 1
    assert later >= 10


def test_belief_by_hand():
    """Bayes' rule with the tables: prior, context, a query and a rating, then a purchase."""
    case = random_market(np.random.default_rng(1), constant=True, recall="ordered")
    policy = solve(market_of(case))
    rows = histories_of(2, 2)
    chat = policy.start((1, 0), (1, 0, 1))
    weights = case["prior"] * case["initial_signals"][:, 1, 0, 1]
    np.testing.assert_allclose(chat.belief, weights / weights.sum(), rtol=0, atol=1e-14)
    first = chat.recommendation
    row = rows.index((first % 3,))
    later = chat.step("query", (0, 1, 1))
    weights = weights * case["action"][row, 3] * case["feedback"][row, :, 0, 1, 1]
    np.testing.assert_allclose(later.belief, weights / weights.sum(), rtol=0, atol=1e-14)
    row = rows.index((first % 3, later.recommendation % 3))
    for action in range(4):
        chance = case["action"][row, action]
        if chance @ weights > 0:
            after = later.step(action)
            expected = weights * chance / (weights @ chance)
            np.testing.assert_allclose(after.belief, expected, rtol=0, atol=1e-14)
            assert after.ended
            assert after.value == 0.0


def test_names_indices_and_money_start_the_same_conversation():
    env = logit_market(seed=1, names=NAMES)
    policy = solve(env)
    money = {name: float(env.values.support[i, 1 - i]) for i, name in enumerate(NAMES)}
    signals = {"platform": 1, "table": 1, "chair": 0}
    for theta, symbols in (
        ((1, 0), (1, 0, 1)),
        (np.array([1, 0]), [1, 0, 1]),
        (money, signals),
        (dict(reversed(money.items())), signals),
    ):
        chat = policy.start(theta, symbols)
        np.testing.assert_allclose(chat.value, policy.value[1, 0, 1, 0, 1], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(chat.theta, list(money.values()))
        assert chat.period == 1
        assert not chat.ended
        assert type(chat.recommendation) is int
        assert type(chat.value) is float


def test_actions_by_label_and_by_code():
    policy = solve(logit_market(seed=1, names=NAMES, advertisers=None, horizon=3))
    chat = policy.start((0, 1), {"platform": 0})
    label = NAMES[chat.recommendation]
    for word, code in ((label, chat.recommendation), ("exit", 2)):
        by_word, by_code = chat.step(word), chat.step(int(code))
        assert by_word.ended
        assert by_word.turns[-1].action == by_code.turns[-1].action == code
        assert by_word.turns[-1].signals is None
    for signals in ({"platform": 2}, {"platform": 2, "chair": 0}, (2, 0, 0)):
        for action in ("query", 3):
            after = chat.step(action, signals)
            assert after.period == 2
            assert not after.ended
            np.testing.assert_array_equal(after.turns[-1].signals, [2, 0, 0])
            assert after.turns[-1].recommendation == chat.recommendation


def test_undo_returns_what_was_there():
    policy = solve(logit_market(seed=1, horizon=3, advertisers=None))
    start = policy.start((0, 0), (1, 0, 0))
    second = start.step("query", (2, 0, 0))
    third = second.step("query", (0, 0, 0))
    over = third.step("exit")
    assert (start.period, second.period, third.period, over.period) == (1, 2, 3, 3)
    for after, before in ((over, third), (third, second), (second, start)):
        back = after.undo()
        np.testing.assert_array_equal(back.belief, before.belief)
        assert back.value == before.value
        assert back.period == before.period
        assert back.recommendation == before.recommendation
    again = over.undo().undo().step("query", (0, 0, 0))
    np.testing.assert_array_equal(again.belief, third.belief)
    assert len(start.turns) == 0  # stepping changes nothing in place


def test_a_query_in_the_last_round_ends_it():
    policy = solve(logit_market(seed=1, horizon=1, advertisers=None))
    after = policy.start((0, 0), (0, 0, 0)).step("query")
    assert after.ended
    assert after.value == 0.0
    with pytest.raises(dm.InvalidArgument, match="ended"):
        _ = after.recommendation


def two_histories(first, last):
    """One product, two rounds; what happens after (0, 0) and (none, 0), nobody buys otherwise."""
    rows = histories_of(1, 2)
    action = np.zeros((len(rows), 3, 1))
    action[rows.index((0,))] = [[0.0], [0.5], [0.5]]
    action[rows.index((1,))] = [[0.0], [0.4], [0.6]]
    action[rows.index((0, 0))], action[rows.index((1, 0))] = first, last
    action[rows.index((0, 1)), 1] = action[rows.index((1, 1)), 1] = 1.0
    return dm.RecommendationMDP.from_tables(
        [[1.0]], [[1.0]], [1.0], 2, action, np.ones((len(rows), 1, 1, 1)), np.ones((1, 1, 1)),
        [[1.0]], [[1.0]], np.ones((2, 1, 1, 1)),
    )  # fmt: skip


def test_merged_last_rounds_keep_leaving_and_asking_apart():
    """The two histories yield the same purchases; after one the user leaves, else she asks."""
    leaves, asks = [[0.3], [0.7], [0.0]], [[0.3], [0.0], [0.7]]
    for better in (0, 1):  # which first round leads on: the one kept by `none` asks more often
        env = two_histories(*((leaves, asks) if better == 0 else (asks, leaves)))
        chat = solve(env).start().step("query")
        assert chat.turns[0].recommendation == -1
        done, not_done = ("query", "exit") if better == 0 else ("exit", "query")
        assert not chat.step(done).off_model
        assert chat.step(not_done).off_model
        assert chat.step(not_done).ended


def test_what_cannot_happen_is_said_and_learned_as_far_as_it_can_be():
    case = random_market(np.random.default_rng(0), constant=True, symbols=(2, 1, 1))
    case["feedback"][..., 1, 0, 0] = 0.0
    case["feedback"][..., 0, 0, 0] = 1.0
    policy = solve(market_of(case))
    chat = policy.start((1, 1), (0, 0, 0))
    shown = chat.recommendation
    assert shown >= 0
    bought = chat.step(1 - shown)  # not shown, so it cannot be bought
    assert bought.off_model
    assert bought.ended
    strange, silent = chat.step("query", (1, 0, 0)), chat.step("query")
    assert strange.off_model
    np.testing.assert_array_equal(strange.weights, silent.weights)
    assert strange.recommendation == silent.recommendation
    assert not silent.off_model
    assert chat.step("query", (0, 0, 0)).period == 2


def test_a_batch_is_started_by_profile():
    env = logit_market(seed=1, names=NAMES)
    batch = dm.Profiles(np.array([[1, 0], [0, 0]]), np.array([[1, 0, 1], [0, 1, 1]]))
    full, some = solve(env), solve(env, initial=batch)
    for b in range(2):
        chat = some.start(profile=b)
        other = full.start(batch.theta[b], batch.signals[b])
        np.testing.assert_allclose(chat.value, some.value[b], rtol=0, atol=1e-12)
        np.testing.assert_allclose(chat.belief, other.belief, rtol=0, atol=1e-14)
        assert chat.recommendation == other.recommendation
        after, same = (c.step("query", {"platform": 2, "chair": 0}) for c in (chat, other))
        np.testing.assert_allclose(after.value, same.value, rtol=0, atol=1e-12)
    alternative = some.start((0, 0), (1, 0, 1))  # advertiser 0 alone has another value
    np.testing.assert_allclose(alternative.value, full.value[0, 0, 1, 0, 1], rtol=0, atol=1e-12)


def test_expected_value_of_the_next_round_adds_up():
    """W_1 = what is earned now + the mean of W_2 over what may come, with Markov values."""
    case = random_market(np.random.default_rng(3), symbols=(2, 1, 1), initial_symbols=(1,))
    env = market_of(case)
    policy, rows = solve(env), histories_of(2, 2)
    checked = 0
    for theta in np.ndindex(2, 2):
        chat = policy.start(theta, (0, 0, 0))
        r = chat.recommendation % 3
        law, belief = case["action"][rows.index((r,))], chat.belief
        money = case["theta_support"][[0, 1], theta]
        total = (law[:2] * (money[:, None] + env.utilities)) @ belief
        total = total.sum()
        for after in np.ndindex(2, 2):
            kernel = np.prod([case["theta_kernel"][r, i, theta[i], after[i]] for i in range(2)])
            for z in range(2):
                chance = (law[3] * case["feedback"][rows.index((r,)), :, z, 0, 0]) @ belief
                total += kernel * chance * chat.step("query", (z, 0, 0), after).value
                checked += 1
        np.testing.assert_allclose(chat.value, total, rtol=0, atol=1e-12)
    assert checked == 32
