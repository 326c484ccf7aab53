"""Conversations as they really go: other displays, silence, late purchases, bids, batches, days."""

import dataclasses
import json
import multiprocessing
import pickle
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
import pandas as pd
import pytest

import dynmech as dm
from tests.helpers.held import hold, hold_from


def market(rounds=3, support=None, interval=None, seed=0, rule=None, n=3, tastes=5):
    rng = np.random.default_rng(seed)
    support = rng.uniform(0.3, 1.5, (n, 2)) if support is None else support
    rule = (
        dm.PerfectRecall(dm.Logit(0.5), dm.FallingQuery(0.9, nothing=0.7)) if rule is None else rule
    )
    return dm.RecommendationMDP(
        rng.normal(size=(n, 2)),
        dm.TasteGrid(rng.normal(size=(tastes, 2)), rng.dirichlet(np.full(tastes, 3.0))),
        rounds,
        rule,
        dm.SignalStructure(dm.GaussianSignals(1.0), dm.RatingFeedback(1.0, 3)),
        dm.ConstantValues(support, interval=interval),
        ["a", "b", "c"][:n],
    )


@pytest.fixture(scope="module")
def policy():
    return dm.solve_efficient_policy(market(), progress=False)


@pytest.fixture(scope="module")
def mechanism(policy):
    return dm.DynamicTeamMechanism(policy, dm.groves.WindowCeiling(), installments=(0.5, 0.2))


def best_from(env, belief, seen, theta, rounds):
    """W from here by plain recursion: `seen` products remembered, `rounds` left; the control."""
    n, u = env.products, np.asarray(env.utilities)
    query = env.action_rule.query
    best, taken = -np.inf, None
    for r in [*range(n), n]:
        known = sorted({*seen, *([r] if r < n else [])})
        mask = np.isin(np.arange(n), known)
        with jax.enable_x64(True):
            again = np.asarray(query.probability(r, u, mask)) * np.ones(u.shape[1])
        parts = mask[:, None] * np.exp(u / 0.5)
        share = (1 - again) * parts / (1 + parts.sum(axis=0))
        total = ((theta[:, None] + u) * share * belief).sum()
        if rounds > 1:
            with jax.enable_x64(True):
                law = np.asarray(env.signals.feedback.likelihood(None, np.asarray(r), 0, u))
            for z in range(law.shape[1]):
                total += best_from(env, belief * again * law[:, z], known, theta, rounds - 1)[0]
        if total > best + 1e-12:
            best, taken = total, r
    return best, taken


def test_what_remains_after_another_display_is_solved_exactly(policy):
    env = policy.env
    chat = policy.start(profile=4)
    other = next(j for j in range(3) if j != chat.recommendation)
    after = chat.step("query", signals={"platform": 2}, shown=env.names[other])
    value, control = best_from(env, after.weights, [other], chat.theta, 2)
    assert after.turns[0].shown == other
    assert after.left
    assert not after.off_model
    assert after.value == pytest.approx(value / after.weights.sum(), abs=1e-12)
    assert after.recommendation == control
    last = after.step("query", signals={"platform": 0})
    value, control = best_from(env, last.weights, [other, after.recommendation], chat.theta, 1)
    assert last.value == pytest.approx(value / last.weights.sum(), abs=1e-12)


def test_silence_moves_the_belief_by_the_action_alone(policy):
    env, chat = policy.env, policy.start(profile=4)
    after = chat.step("query")
    symbols = [chat.step("query", signals=[z, 0, 0, 0]).weights for z in range(3)]
    np.testing.assert_allclose(after.weights, np.sum(symbols, axis=0), atol=1e-15)
    value, control = best_from(env, after.weights, [chat.recommendation], chat.theta, 2)
    assert after.value == pytest.approx(value / after.weights.sum(), abs=1e-12)
    assert after.recommendation == control
    again = after.step("query")  # values in force stay what they were
    value, control = best_from(env, again.weights, again.seen.nonzero()[0], chat.theta, 1)
    assert again.value == pytest.approx(value / again.weights.sum(), abs=1e-12)
    np.testing.assert_array_equal(again.theta, chat.theta)


def test_floats_are_money_and_integers_are_indices(policy):
    support = policy.env.values.support
    index = np.array([1, 0, 1])
    money = support[np.arange(3), index]
    for given in (money, money.tolist(), dict(zip("abc", money.tolist(), strict=True))):
        np.testing.assert_array_equal(policy.start(given, [1, 0, 0, 0]).theta, money)
    np.testing.assert_array_equal(policy.start(index, [1, 0, 0, 0]).theta, money)
    with pytest.raises(dm.OutsideSupport, match="declared support"):
        policy.start(money + 0.01, [1, 0, 0, 0])


def test_a_rating_may_be_a_number(policy):
    chat = policy.start(profile=4)
    by_number = chat.step("query", signals=1e3)
    by_symbol = chat.step("query", signals={"platform": 2})
    np.testing.assert_array_equal(by_number.weights, by_symbol.weights)
    mapped = chat.step("query", signals={"platform": -1e3})
    np.testing.assert_array_equal(mapped.weights, chat.step("query", signals=[0] * 4).weights)
    with pytest.raises(dm.NotFinite, match="rating"):
        chat.step("query", signals=float("nan"))


def test_what_the_model_excludes_ends_or_goes_on_and_settles():
    rule = dm.LastShownOnly(dm.Logit(0.5), 0.7)
    policy = dm.solve_efficient_policy(market(rule=rule), progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    chat = policy.start(profile=4)
    first = chat.recommendation
    other = next(j for j in range(3) if j != first)
    second = chat.step("query", signals=[1, 0, 0, 0])
    end = second.step(other if second.recommendation != other else first)
    assert end.ended
    assert end.off_model
    assert end.probability == 0
    ledger = mechanism.settle(end, estimate=0.3)
    product = end.turns[-1].action
    paid = np.full(3, -(chat.theta[product] + 0.3))
    paid[product] = -0.3
    np.testing.assert_allclose(ledger.transfer.sum(axis=0), paid)
    assert ledger.off_model


def test_a_bid_inside_the_interval_is_that_market(policy):
    support = np.array([[0.2, 0.8]] * 3)
    known = dm.solve_efficient_policy(market(2, support, (0.0, 1.0)), progress=False)
    for bid in ([0.5, 0.5, 0.5], [0.9, 0.2, 0.8], [0.2, 0.95, 0.8]):
        theta = dict(zip("abc", bid, strict=True))
        exact = dm.solve_efficient_policy(market(2, np.array(bid)[:, None]), progress=False)
        right = exact.start(signals=[1, 0, 0, 0])
        chat = known.start(theta, [1, 0, 0, 0])
        assert chat.recommendation == right.recommendation
        assert chat.value == pytest.approx(right.value, abs=1e-12)
        np.testing.assert_allclose(chat.theta, bid)
        going = chat.step("query", signals=[2, 0, 0, 0])
        after = right.step("query", signals=[2, 0, 0, 0])
        assert going.recommendation == after.recommendation
        assert going.value == pytest.approx(after.value, abs=1e-12)
        silent = going.step("query") if not going.ended and going.period < 2 else going
        np.testing.assert_allclose(silent.theta, bid)
        again = known.resume(json.loads(json.dumps(going.record())))
        assert again.value == going.value
    with pytest.raises(dm.OutsideSupport, match=r"interval \[0.0, 1.0\]"):
        known.start({"a": 1.5, "b": 0.5, "c": 0.5}, [1, 0, 0, 0])


def test_totals_at_a_bid_depend_on_the_others_bids_alone():
    support = np.array([[0.2, 0.8], [0.3, 0.7]])
    known = dm.solve_efficient_policy(market(2, support, (0.0, 1.0), n=2), progress=False)
    said, i, other = [1, 0, 0], 1, 0.5
    every = np.linspace(0.0, 1.0, 41)
    asked = dm.Profiles(np.stack([np.full(41, 20), np.arange(41)], axis=1), np.tile(said, (41, 1)))
    fine = market(2, np.stack([every, every]), n=2)
    alone = dm.solve_efficient_policy(fine, initial=asked, progress=False)
    worth, left = alone.value, alone.value - (alone.advertiser_value + alone.user_utility)[i]
    for term, right in (
        (dm.groves.WindowCeiling(), min(worth)),
        (dm.groves.WindowFloor(), max(left)),
        (dm.groves.Zero(), 0.0),
    ):
        mechanism = dm.DynamicTeamMechanism(known, term)
        for own in (0.05, 0.9):
            chat = known.start(np.insert([other], i, own), said).step("exit")
            paid = mechanism.settle(chat).transfer.sum(axis=0)
            assert paid[i] == pytest.approx(right, abs=1e-12)


def test_many_start_from_rows_of_bids_and_signals_as_one_does():
    """On the plan, off the support, and at values that only own alternatives have."""
    support = np.array([[0.2, 0.8], [0.3, 0.7]])
    env = market(2, support, (0.0, 1.0), n=2)
    asked = dm.Profiles(np.array([[0, 1]]), np.array([[1, 0, 0]]))
    known = dm.solve_efficient_policy(env, initial=asked, progress=False)
    mechanism = dm.DynamicTeamMechanism(known, dm.groves.WindowCeiling())
    money = np.array([[0.2, 0.7], [0.5, 0.45], [0.8, 0.7], [0.5, 0.45], [0.9, 0.7]])
    said = np.tile([1, 0, 0], (5, 1))
    chats = known.start_many(theta=money, signals=said)
    alone = [known.start(*row) for row in zip(money, said, strict=True)]
    assert chats.profile.tolist() == [0, -1, -1, -1, -1]
    for step in ([3, 3, 3, 0, 3], [3, 1, 0, 0, 2]):
        assert chats.recommendation.tolist() == [
            -1 if one.ended else one.recommendation for one in alone
        ]
        answer = np.full(5, 2)
        chats = chats.step(step, answer)
        alone = [
            one if one.ended else one.step(a, [2, 0, 0] if a == 3 and one.period < 2 else None)
            for one, a in zip(alone, step, strict=True)
        ]
    assert chats.ended.all()
    estimate = np.where(chats.bought >= 0, 0.3, np.nan)
    paid = mechanism.settle(chats, estimate)
    for k, one in enumerate(alone):
        right = mechanism.settle(one, 0.3 if chats.bought[k] >= 0 else None).transfer
        np.testing.assert_allclose(paid.transfer[paid.conversation == k], right, atol=1e-12)
        assert chats.one(k).record() == one.record()
    columns = {"b": money[:, 1], "a": money[:, 0]}, {"platform": [1] * 5}
    frame, rows = pd.DataFrame(columns[0]), [dict(zip("ab", x, strict=True)) for x in money]
    for theta in (columns[0], frame, rows):
        same = known.start_many(theta=theta, signals=columns[1])
        np.testing.assert_array_equal(same.bid, chats.bid)
        np.testing.assert_array_equal(same.opening, chats.opening)
    for bad, kind, words in (
        ({"theta": money, "signals": said[:2]}, dm.InvalidArgument, "rows"),
        ({}, dm.InvalidArgument, "nothing"),
        ({"profiles": [0], "theta": money}, dm.InvalidArgument, "both"),
        ({"theta": money + 0.3, "signals": said}, dm.OutsideSupport, "interval"),
        ({"theta": money, "signals": said + 2}, dm.OutsideSupport, "below"),
        ({"theta": {"a": [0.1], "b": [0.1, 0.2]}}, dm.InvalidArgument, "one length"),
    ):
        with pytest.raises(kind, match=words):
            known.start_many(**bad)


def test_records_travel_and_are_refused_elsewhere(policy, mechanism, tmp_path):
    chat = policy.start(profile=7).step("query").step("query", signals=[1, 0, 0, 0], shown=-1)
    chat = chat.step("exit")
    right = mechanism.settle(chat)
    record = json.loads(json.dumps(chat.record()))
    policy.save(tmp_path / "policy")
    loaded = dm.DynamicTeamMechanism(
        dm.EfficientPolicy.load(tmp_path / "policy"),
        dm.groves.WindowCeiling(),
        installments=(0.5, 0.2),
    )
    for form in (chat, record, pickle.loads(pickle.dumps(chat))):
        found = loaded.settle(form)
        np.testing.assert_array_equal(found.transfer, right.transfer)
        np.testing.assert_array_equal(found.shown, right.shown)
    np.testing.assert_array_equal(loaded.policy.resume(record).weights, chat.weights)
    assert len(pickle.dumps(chat)) < 2000
    other = dm.DynamicTeamMechanism(dm.solve_efficient_policy(market(seed=2), progress=False))
    for form in (chat, record):
        with pytest.raises(dm.InvalidArgument, match="another policy"):
            other.settle(form)
    turns = [{"shown": 0}], ["x"], 3
    odd = [{**record, "turns": x} for x in turns] + [{**record, "theta": None}, {"turns": []}, None]
    for form in (*odd, {**record, "turns": record["turns"][:-1]}):
        with pytest.raises(dm.InvalidArgument, match="record"):
            policy.resume(form)
    with pytest.raises(dm.InvalidArgument, match="another policy"):
        other.policy.explain(policy.start(profile=0))


def test_a_rating_that_no_taste_gives_is_warned_of(policy, mechanism):
    chat = policy.start(profile=7)
    chat = chat.step(chat.recommendation)
    mechanism.settle(chat, estimate=0.3)
    with pytest.warns(dm.DynmechWarning, match="near a utility"):
        mechanism.settle(chat, estimate=1e9)


def market_with_zeros():
    """Some answers tell tastes for certain, some never come; nobody buys what she dislikes."""
    table = np.zeros((4, 5, 3, 1, 1, 1))
    table[..., 0, 0, 0] = [[1.0, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 1, 0], [0, 0.2, 0.8]]
    table[3] = table[0, 0]
    env = market(rule=dm.LastShownOnly(dm.Threshold(), 0.7))
    feedback = dm.ChannelFeedback(table)
    return dataclasses.replace(env, signals=dataclasses.replace(env.signals, feedback=feedback))


@pytest.mark.parametrize("zeros", [False, True])
def test_many_are_the_same_as_one_by_one(policy, mechanism, zeros):
    if zeros:
        policy = dm.solve_efficient_policy(market_with_zeros(), progress=False)
        mechanism = dm.DynamicTeamMechanism(policy, dm.groves.WindowCeiling())
    rng, n = np.random.default_rng(5), 3
    chats = policy.start_many(rng.integers(len(policy.profiles), size=40))
    singles = [policy.start(profile=int(b)) for b in chats.profile]
    while not chats.ended.all():
        count = len(chats)
        assert chats.recommendation.tolist() == [
            -1 if one.ended else one.recommendation for one in singles
        ]
        luck, shown = rng.random(count), chats.recommendation.copy()
        away = rng.random(count) < 0.2
        shown[away] = rng.integers(n, size=away.sum())
        actions = np.where(luck < 0.7, n + 1, np.where((luck < 0.9) & (shown >= 0), shown, n))
        signals = rng.integers(-1, 3, size=count)
        every = np.stack([signals, *[np.zeros(count, int)] * n], axis=1)
        chats = chats.step(actions, every if zeros else signals, shown)
        for k, one in enumerate(singles):
            if one.ended:
                continue
            said = None if signals[k] < 0 or actions[k] != n + 1 else [signals[k], 0, 0, 0]
            same = shown[k] == one.recommendation
            singles[k] = one.step(int(actions[k]), said, shown=None if same else int(shown[k]))
    assert all(one.ended for one in singles)
    assert chats.off_model.tolist() == [one.off_model for one in singles]
    assert 0 < chats.off_model.sum() < len(chats) or not zeros
    estimate = np.where(chats.bought >= 0, 0.25, np.nan)
    together, ledger = mechanism.settle(singles, estimate), mechanism.settle(chats, estimate)
    assert ledger.off_model == together.off_model == zeros
    for k, one in enumerate(singles):
        alone = mechanism.settle(one, 0.25 if chats.bought[k] >= 0 else None)
        for many in (ledger, together):
            here = many.conversation == k
            np.testing.assert_allclose(many.transfer[here], alone.transfer, atol=1e-14)
            for name in ("action", "recommendation", "shown"):
                np.testing.assert_array_equal(getattr(many, name)[here], getattr(alone, name))
    with pytest.raises(dm.InvalidArgument, match="a number wherever"):
        mechanism.settle(chats)
    for bad in ([], singles[:1], [3]):
        with pytest.raises(dm.InvalidArgument, match="settle"):
            mechanism.settle(bad, [0.1, 0.2])


def test_values_that_move_are_told_to_many():
    kernel = np.array([[[0.7, 0.3], [0.2, 0.8]]] * 3)
    env = market(2, rule=dm.LastShownOnly(dm.Logit(0.5), 0.7))
    values = dm.MarkovValues(env.values.support, None, kernel)
    policy = dm.solve_efficient_policy(dataclasses.replace(env, values=values), progress=False)
    chats, after = policy.start_many([0, 9, 20]), np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]])
    with pytest.raises(dm.InvalidArgument, match="values move"):
        chats.step([4, 4, 4], [0, 1, 2])
    going = chats.step([4, 4, 3], [0, -1, -1], theta=after)
    singles = [policy.start(profile=k).step("query", theta=after[j]) for j, k in ((1, 9),)]
    singles.insert(0, policy.start(profile=0).step("query", [0, 0, 0, 0], theta=after[0]))
    assert going.recommendation[:2].tolist() == [one.recommendation for one in singles]
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    paid = mechanism.settle(going.step([1, 2, 3]), [0.1, 0.2, np.nan])
    alone = [mechanism.settle(singles[0].step(1), 0.1), mechanism.settle(singles[1].step(2), 0.2)]
    for k, one in enumerate(alone):
        np.testing.assert_allclose(paid.transfer[paid.conversation == k], one.transfer)


def test_ten_thousand_are_held_and_settled_in_a_second(policy, mechanism):
    """The second time: the first may compile. Ratings are numbers, as a user passes them."""
    for _ in range(2):
        rng, count, began = np.random.default_rng(0), 10_000, time.process_time()
        chats = policy.start_many(rng.integers(len(policy.profiles), size=count))
        for _ in range(3):
            asks = rng.random(count) < 0.6
            actions = np.where(asks | (chats.recommendation < 0), 4, chats.recommendation)
            chats = chats.step(actions, rng.normal(size=count))
        paid = mechanism.settle(chats, np.where(chats.bought >= 0, 0.3, np.nan)).transfer
        took = time.process_time() - began
    assert chats.ended.all()
    assert np.isfinite(paid).all()
    assert took < 1


def test_threads_are_served_as_one_after_another(mechanism):
    """One policy, eight threads: on the plan, off it, silent, in batches, settled."""
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(partial(hold, mechanism), range(10)))
    assert together == [hold(mechanism, number) for number in range(10)]


@pytest.mark.slow
def test_processes_are_served_as_one_is(mechanism, tmp_path):
    """One file, three processes that read it: the same conversations, bills and choices."""
    path = tmp_path / "mechanism"
    mechanism.save(path)
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        together = list(pool.map(partial(hold_from, path), range(9)))
    assert together == [hold(mechanism, number) for number in range(9)]


def test_bad_batches_are_refused_by_argument(policy, mechanism):
    with pytest.raises(dm.OutsideSupport, match="profiles"):
        policy.start_many([0, 10_000])
    chats = policy.start_many([0, 1])
    with pytest.raises(dm.InvalidArgument, match=r"actions=.*shape"):
        chats.step([4])
    with pytest.raises(dm.OutsideSupport, match=r"actions=.*row 1"):
        chats.step([4, 5])
    with pytest.raises(dm.OutsideSupport, match=r"signals="):
        chats.step([4, 4], [0, 3])
    with pytest.raises(dm.InvalidArgument, match="in progress"):
        mechanism.settle(chats)
