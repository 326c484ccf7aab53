"""Simulated logs: what was simulated is what is read, and the chance of a rating is found in it."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import dynmech as dm
from dynmech.logs.rated import at_ends
from tests.helpers.markets import histories_of, random_market
from tests.helpers.quantities import market_of

RNG = np.random.default_rng(1)
TASTES = dm.TasteGrid(RNG.normal(size=(6, 2)), np.full(6, 1 / 6))
GAMMA = RNG.normal(size=(2, 2))
LAW = dm.RatingLaw(-0.5, 1.5, 0.1)


def market(chance, given="constant"):
    signals = dm.SignalStructure(
        dm.GaussianSignals(platform=1.0, advertisers=1.0, symbols=2),
        dm.RatingFeedback(1.0, 3),
        dm.MissingRatings(dm.RatingSettlement(0.7), chance, given),
    )
    rule = dm.LastShownOnly(dm.Logit(0.5), 0.4)
    return dm.RecommendationMDP(GAMMA, TASTES, 3, rule, signals, dm.ConstantValues(np.ones((2, 1))))


def settled_by(sent):
    own = market(0.5).signals
    return dm.SignalStructure(own.initial, own.feedback, sent)


def chance_of(env) -> Any:
    return env.signals.settlement.chance


def logged(env, count, seed=0):
    policy = dm.solve_efficient_policy(env, progress=False)
    own = dm.DynamicTeamMechanism(policy, dm.groves.Zero(), estimator=dm.InversePropensity())
    return own.simulate(jax.random.key(seed), count).to_log()


@pytest.fixture(scope="module")
def by_law():
    env = market(LAW, "rating")
    return env, logged(env, 6000)


def test_a_simulated_log_reads_back():
    log = logged(market(0.5), 200)
    frame = log.to_frame()
    names = {name: name for name in ("conversation", "round", "shown", "action", "bought")}
    first = [name for name in frame if name.startswith("signal_")]
    assert first == ["signal_platform", "signal_product 0", "signal_product 1"]
    again = dm.Log.from_frame(
        frame, **names, rating="rating", signal="signal", first=first, scale=(0.0, 1.0),
        reports=[name for name in frame if name.startswith("theta_")],
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.to_frame(), frame)
    bought = log.kind == 0
    assert np.isnan(log.rating[~bought]).all()
    assert 0.3 < np.isfinite(log.rating[bought]).mean() < 0.7
    assert (log.signal[log.kind == 2][:10] >= 0).any()


def test_a_constant_chance_is_the_share_that_came():
    env = market(0.3)
    log = logged(env, 4000)
    fit = dm.fit(log, market(0.9), ["rating chance"], progress=False)
    came = np.isfinite(log.rating[log.kind == 0])
    value, error = fit.estimates["rating chance"]
    assert value == pytest.approx(came.mean())
    assert error == pytest.approx(np.sqrt(value * (1 - value) / len(came)), rel=1e-6)
    assert chance_of(fit.market) == pytest.approx(value)
    draws = [float(chance_of(m)) for m in fit.draws(jax.random.key(0), 60)]
    assert np.std(draws) == pytest.approx(error, rel=0.4)


def test_chances_by_history_are_the_shares_of_histories():
    env = market_of(random_market(np.random.default_rng(3), m=3))
    histories = histories_of(2, 2)
    chance = np.linspace(0.1, 0.9, len(histories))
    sent = dm.MissingRatings(env.signals.settlement, chance, "history")
    log = logged(eqx.tree_at(lambda e: e.signals.settlement, env, sent), 4000)
    start = dm.MissingRatings(env.signals.settlement, np.full(len(histories), 0.5), "history")
    start = eqx.tree_at(lambda e: e.signals.settlement, env, start)
    fit = dm.fit(log, start, ["rating chance"], progress=False)
    words = [" > ".join((*env.names, "none")[r] for r in h) for h in histories]
    found = {f"rating chance: {word}": x for word, x in zip(words, chance, strict=True)}
    for label, (value, error) in fit.estimates.items():
        assert abs(value - found[label]) < 4.5 * error + 1e-3
    placed = chance_of(fit.market)
    for k, word in enumerate(words):
        known = fit.estimates.get(f"rating chance: {word}", (0.5, 0.0))
        assert placed[k] == pytest.approx(known[0])


def test_a_law_of_the_rating_is_recovered_with_what_did_not_come(by_law):
    _, log = by_law
    start = market(dm.RatingLaw(0.0, 0.1, 0.1), "rating")
    fit = dm.fit(log, start, ["rating chance", "query"], progress=False)
    for name, true in (("intercept", -0.5), ("slope", 1.5)):
        value, error = fit.estimates[f"rating chance: {name}"]
        assert abs(value - true) < 4 * error
        assert error < 0.5
    assert float(chance_of(fit.market).slope) == fit.estimates[
        "rating chance: slope"
    ][0]  # fmt: skip


def by_hand(env, log, rated):
    """Log likelihood by a loop; `rated`: of utility and rating after purchases."""
    u, total = env.utilities, 0.0
    shown, action = log.on(env.names)
    every = np.indices(env.initial_alphabet).reshape(3, -1).T
    first = np.asarray(env.signals.initial.likelihood(u, every))
    feedback = env.signals.feedback
    for c in range(len(log)):
        symbols = log.first[c]
        weight = env.tastes.weights * first[(every == symbols).all(axis=1)][0]
        for row in range(log.offsets[c], log.offsets[c + 1]):
            memory = np.array([shown[row, 0]])
            y = np.asarray(env.action_rule.probabilities(memory, shown[row, 0], u))
            weight = weight * y[action[row]]
            if action[row] == 3 and log.signal[row] >= 0:
                told = np.asarray(feedback.likelihood(memory, shown[row, 0], 0, u))
                weight = weight * told[:, log.signal[row]]
            if action[row] < 2:
                weight = weight * rated(u[action[row]], log.rating[row])
        total += np.log(weight.sum())
    return total


def test_the_likelihood_of_missing_ratings_is_that_of_a_loop_over_tastes(by_law):
    env, log = by_law
    log = log.keep(np.arange(40))
    fit = dm.fit(log, env, ["rating chance"], throw=False, progress=False)
    law, x = chance_of(fit.market), np.linspace(-8, 8, 4001)

    def rated(u, rating):
        if np.isfinite(rating):
            return norm.pdf(rating, u, 0.7) * float(law(rating))
        return (norm.pdf(x, u[:, None], 0.7) * (1 - np.asarray(law(x)))).sum(1) * (x[1] - x[0])

    assert fit.loglikelihood == pytest.approx(by_hand(env, log, rated), abs=1e-6)


def test_ratings_cut_at_a_range_count_by_what_lies_beyond_its_ends():
    low, high = -0.4, 0.6
    sent = dm.RatingSettlement(0.7, limits=(low, high), outside="cap")
    env = dataclasses.replace(market(0.5), signals=settled_by(sent))
    policy = dm.solve_efficient_policy(env, progress=False)
    own = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    log = own.simulate(jax.random.key(2), 120).to_log()
    fit = dm.fit(log, env, ["settlement noise"], progress=False)
    value, error = fit.estimates["settlement noise"]
    assert abs(value - 0.7) < 4 * error < 1.0

    def rated(u, rating):
        if low < rating < high:
            return norm.pdf(rating, u, value)
        return norm.cdf((low - u) / value) if rating <= low else norm.sf((high - u) / value)

    assert fit.loglikelihood == pytest.approx(by_hand(env, log, rated), abs=1e-6)
    ends = at_ends(env, (0.0, 1.0), log.rating)
    assert set(ends.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(at_ends(env, (1.0, -2.0), 1.0 - 2.0 * log.rating), ends)
    odd = settled_by(dm.StoppedAverageSettlement(0.7, 0.1))
    with pytest.raises(dm.InvalidArgument, match="StoppedAverageSettlement"):
        dm.fit(log, dataclasses.replace(env, signals=odd), ["query"], progress=False)


def test_a_chance_by_taste_is_refused(by_law):
    with pytest.raises(dm.NotIdentified, match="taste"):
        dm.fit(by_law[1], market(np.full(6, 0.5)), ["rating chance"], progress=False)


def test_the_shipped_log_is_what_its_command_draws(tmp_path):
    from experiments import conversations

    path = conversations.main(conversations.Options(folder=tmp_path))
    assert path.read_text() == (conversations.DATA / conversations.NAME).read_text()
