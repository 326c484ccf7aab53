"""Fits: the likelihood is the sum by hand, what was simulated is recovered, the rest is refused."""

import jax
import numpy as np
import pandas as pd
import pytest

import dynmech as dm
from tests.helpers.compiled import compiled
from tests.helpers.logs import drawn, read, small

STARS = (2.0, 1.5)
TRUE = {"choice scale": 0.5, "query": 0.6, "feedback noise": 0.7, "outside option": 0.0}


def by_hand(env, frame, scale, query, noise, stars):
    """Log likelihood by a loop over conversations, rounds and tastes."""
    a, b = stars
    utilities, total = env.utilities, 0.0
    for _, rows in frame.groupby("id"):
        chance = env.tastes.weights.copy()
        seen = np.zeros(env.products)
        for row in rows.itertuples():
            r = env.names.index(row.product)
            seen[r] = 1
            parts = seen[:, None] * np.exp(utilities / scale)
            share = parts / (1 + parts.sum(axis=0))
            if row.did == "query":
                chance = chance * query
                if np.isfinite(row.stars):
                    z = ((row.stars - a) / b - utilities[r]) / noise
                    chance = chance * np.exp(-(z**2) / 2) / (np.sqrt(2 * np.pi) * noise * b)
            elif row.did == "exit":
                chance = chance * (1 - query) * (1 - share.sum(axis=0))
            else:
                chance = chance * (1 - query) * share[env.names.index(row.did)]
        total += np.log(chance.sum())
    return total


@pytest.fixture(scope="module")
def logged():
    env = small()
    frame = drawn(env, 1500, 3, rated=0.8)
    return env, frame, read(frame, rating="stars", scale=STARS)


@pytest.fixture(scope="module")
def fitted(logged):
    start = small(scale=1.0, query=0.3, noise=1.5)
    return dm.fit(logged[2], start, list(TRUE), progress=False)


def test_the_likelihood_is_that_of_a_loop_over_tastes(logged, fitted):
    _, frame, _ = logged
    market = fitted.market
    rule, noise = market.action_rule, market.signals.feedback.noise
    found = by_hand(
        market, frame, float(rule.choice.scale), float(rule.query.level), float(noise), STARS
    )
    assert fitted.loglikelihood == pytest.approx(found, abs=1e-6)


def test_what_was_simulated_is_recovered(fitted):
    for name, true in TRUE.items():
        value, error = fitted.estimates[name]
        assert abs(value - true) < 4 * error, name
        assert error < 0.2
    assert "choice scale" in fitted.to_frame().index
    assert "log likelihood" in fitted.summary()
    assert not fitted.notes
    assert "choice scale" in repr(fitted)


def test_a_better_market_is_nowhere_near(logged, fitted):
    _, frame, _ = logged
    rule = fitted.market.action_rule
    at = [float(rule.choice.scale), float(rule.query.level)]
    noise = float(fitted.market.signals.feedback.noise)
    for k in range(2):
        for step in (-0.01, 0.01):
            moved = list(at)
            moved[k] += step
            assert by_hand(fitted.market, frame, *moved, noise, STARS) < fitted.loglikelihood


def test_another_log_of_the_same_structure_compiles_nothing(fitted):
    log = read(drawn(small(), 1450, 7, stars=(1.0, 0.5)), rating="stars", scale=(1.0, 0.5))
    with compiled() as programs:
        again = dm.fit(log, small(scale=0.8, query=0.4, noise=1.0), list(TRUE), progress=False)
    assert not programs
    assert again.estimates["query"] != fitted.estimates["query"]


def test_shares_by_round_fit_what_was_drawn(fitted):
    check = fitted.check()
    assert (check["z"].abs() < 4).all()
    np.testing.assert_allclose(check["observed"].groupby("round").sum(), 1)
    np.testing.assert_allclose(check["expected"].groupby("round").sum(), 1)


def test_draws_are_markets_that_spread_as_the_errors_say(fitted):
    markets = fitted.draws(jax.random.key(1), 200)
    scales = np.array([float(m.action_rule.choice.scale) for m in markets])
    value, error = fitted.estimates["choice scale"]
    assert abs(np.log(scales).mean() - np.log(value)) < 0.3 * error / value
    assert 0.8 < np.log(scales).std() / (error / value) < 1.2


@pytest.mark.slow
def test_the_scale_of_ratings_and_weights_of_tastes_are_found(logged):
    env, frame, _ = logged
    log = read(frame, rating="stars")
    with pytest.raises(dm.InvalidArgument, match="rating scale"):
        dm.fit(log, env, ["query"], progress=False)
    names = ["rating scale", "taste weights", "rating chance"]
    found = dm.fit(log, env, names, progress=False)
    for label, true in (("rating scale: a", 2.0), ("rating scale: b", 1.5), ("rating chance", 0.8)):
        value, error = found.estimates[label]
        assert abs(value - true) < 4 * error
    weights = np.asarray(found.market.tastes.weights)
    assert weights.sum() == pytest.approx(1)
    # the maximum over weights: no taste's mean ratio exceeds 1 (Lindsay 1983)
    again = dm.fit(log, found.market, names, progress=False)
    assert again.loglikelihood == pytest.approx(found.loglikelihood, abs=1e-3)
    assert found.loglikelihood > dm.fit(log, env, names[:1], progress=False).loglikelihood


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["round cost"], dm.InvalidArgument, "primitive rule"),
        (["price"], dm.OutsideSupport, "choice scale"),
        ([], dm.InvalidArgument, "parameters"),
        ("query", dm.InvalidArgument, "list"),
        (["settlement noise"], dm.NotIdentified, "settlement noise"),
        (["taste weights", "taste mean"], dm.NotIdentified, "not both"),
    ],
)
def test_what_is_not_identified_is_refused_with_the_reason(logged, names, kind, message):
    env, _, log = logged
    with pytest.raises(kind, match=message):
        dm.fit(log, env, names, progress=False)


def test_a_log_that_says_the_same_again_and_again_is_no_sample():
    """Everybody leaves alike: a chance at its end, ratings that never move, one person alone."""
    env = small()
    rows = [(k, 1, env.names[0], "query", 0.5) for k in range(40)]
    frame = pd.DataFrame(rows, columns=["id", "turn", "product", "did", "stars"])
    log = read(frame, rating="stars", scale=(0.0, 1.0))
    with pytest.raises(dm.NotIdentified, match="does not move along query"):
        dm.fit(log, env, ["query"], progress=False)
    with pytest.raises(dm.NotIdentified, match=r"the same of feedback noise.*no sample"):
        dm.fit(log, env, ["feedback noise"], progress=False)
    with pytest.raises(dm.NotIdentified, match="ratings that differ"):
        dm.fit(log, env, ["rating scale"], progress=False)
    with pytest.raises(dm.InvalidArgument, match=r"below 1e\+100, in money too"):
        dm.fit(read(frame, rating="stars", scale=(0.0, 1e-200)), env, ["query"], progress=False)
    varied = read(frame.assign(did=["query", "exit"] * 20))
    weights = dm.fit(varied, env, ["taste weights"], progress=False).market.tastes.weights
    assert weights.sum() == pytest.approx(1)
    with pytest.raises(dm.NotIdentified, match="taste weights that the log cannot tell apart"):
        dm.fit(read(frame), env, ["taste weights"], progress=False)
    with pytest.raises(dm.NotIdentified, match="no sample"):
        dm.fit(varied, env, ["query"], cluster=[0] * 40, progress=False)


@pytest.mark.slow
def test_estimates_are_the_same_in_any_unit_of_money():
    found = []
    for unit in (1.0, 1e-4):
        env = small(horizon=2)
        tastes = dm.TasteGrid(np.asarray(env.tastes.points) * unit, env.tastes.weights)
        rule = dm.PerfectRecall(dm.Logit(0.8 * unit), query=0.5)
        signals = dm.SignalStructure(feedback=dm.RatingFeedback(unit, symbols=5))
        env = dm.RecommendationMDP(env.gamma, tastes, 2, rule, signals, env.values)
        log = read(drawn(small(horizon=2), 300, 3), rating="stars", scale=(2.0, 1.5 / unit))
        names = ["choice scale", "outside option", "feedback noise"]
        found.append(dm.fit(log, env, names, progress=False).to_frame() / unit)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_rating_with_its_symbol_counts_once():
    env, frame = small(horizon=2), drawn(small(horizon=2), 60, 5, rated=0.5)
    both = frame.assign(heard=np.where(frame.did == "query", 1, np.nan))
    alone = both.assign(heard=both.heard.where(both.stars.isna()))
    found = [
        dm.fit(read(x, rating="stars", signal="heard", scale=STARS), env, ["query"], progress=False)
        for x in (both, alone)
    ]
    assert found[0].loglikelihood == pytest.approx(found[1].loglikelihood, abs=1e-9)


def test_bad_arguments_are_refused_by_name(logged):
    env, _, log = logged
    with pytest.raises(dm.InvalidArgument, match=r"cluster.*one a conversation"):
        dm.fit(log, env, ["query"], cluster=[1, 2], progress=False)
    with pytest.raises(dm.OutsideSupport, match="rounds"):
        dm.fit(log, small(horizon=2), ["query"], progress=False)
    with pytest.raises(dm.InvalidArgument, match="chance zero"):
        dm.fit(log, small(query=0.0), ["choice scale"], progress=False)


def test_a_log_of_symbols_without_ratings_is_fitted():
    """No rating anywhere, only symbols: behaviour is estimated all the same."""
    env = small(horizon=2)
    frame = drawn(env, 300, 5).assign(stars=np.nan)
    asked = (frame.did == "query") & (frame.turn < 2)
    frame["heard"] = np.where(asked, np.arange(len(frame)) % 5, np.nan)
    fitted = dm.fit(read(frame, signal="heard"), env, ["query"], progress=False)
    value, error = fitted.estimates["query"]
    assert abs(value - 0.6) < 4 * error
    assert "cut points found in the market given" in fitted.summary()
