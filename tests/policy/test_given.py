"""Somebody's own recommender: laws over controls, and memories of its own, against brute force."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm

SUPPORT = np.array([[0.2, 0.9], [0.6, 0.3]])
CEILING = dm.groves.WindowCeiling()


def market(horizon=2, prior=None, **values):
    return dm.RecommendationMDP(
        [[1.0, -0.5], [-0.4, 0.9]],
        dm.TasteGrid([[1.0, 0.2], [-0.3, 1.0], [0.5, 0.6]], prior or [0.4, 0.3, 0.3]),
        horizon,
        dm.LastShownOnly(dm.Logit(0.5), query=0.6),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2, cuts=[[0.1], [0.3]])),
        dm.ConstantValues(SUPPORT, **values),
    )


def quick(**changes):
    """A certificate of a policy whose tree is never walked."""
    return dm.Certificate(**({"runs": 256, "marginal_runs": 60, "walk": 0} | changes))


def sampled(env):
    """Thompson sampling: each product with the chance that it is the best."""
    utilities = env.utilities

    def recommend(belief, memory, theta, period):
        best = np.argmax(theta[:, None] + utilities, axis=0)
        return np.bincount(best, belief, minlength=len(theta) + 1)

    return recommend


def modest(belief, memory, theta, period):
    """Show those who are worth least the most: lies pay."""
    weight = np.append(np.exp(-3.0 * theta) * (1 + belief[0]), 0.1)
    return weight / weight.sum()


def brute(env, reported, true, law, free=None):
    """Expected surplus at true values where `reported` ones are told in period 1.

    `law(belief, theta, period, controls so far)` of a walk over every history, nothing merged. An
    advertiser `free` tells what serves her best at every history instead.
    """
    utilities, n = env.utilities, env.products
    weights = np.asarray(env.tastes.weights)

    def walk(belief, memory, past, period):
        if not belief.any():
            return 0.0
        if free is None:
            return follow(belief, memory, past, period, reported if period == 1 else true)
        every = itertools.product(*([x] if i != free else SUPPORT[i] for i, x in enumerate(true)))
        return max(follow(belief, memory, past, period, told) for told in every)

    def follow(belief, memory, past, period, told):
        chances = law(belief / belief.sum(), np.asarray(told), period, past)
        total = 0.0
        for control in np.flatnonzero(chances):
            after = np.asarray(env.action_rule.step(memory, control, n))
            acts = np.asarray(env.action_rule.probabilities(after, control, jnp.asarray(utilities)))
            worth = np.asarray(true)[:, None] + utilities
            found = (belief * (acts[:n] * worth).sum(axis=0)).sum()
            if period < env.horizon:
                symbol = np.asarray(
                    env.signals.feedback.likelihood(
                        after, control, period - 1, jnp.asarray(utilities)
                    )
                )
                for column in symbol.T:
                    then = belief * acts[n + 1] * column
                    found += walk(then, after, (*past, int(control)), period + 1)
            total += chances[control] * found
        return total

    return walk(weights, np.asarray(env.action_rule.start(n, env.horizon)), (), 1)


def law_of(recommend):
    """What a recommender does as a law, for `brute`."""

    def law(belief, theta, period, past):
        said = recommend(belief, None, theta, period)
        return np.eye(3)[said] if np.ndim(said) == 0 else said

    return law


@pytest.mark.parametrize("kind", [sampled, lambda env: modest], ids=["Thompson", "modest"])
def test_a_law_over_controls_is_worth_its_mean_and_audited(kind):
    env = market()
    recommend = kind(env)
    policy = dm.GivenPolicy(env, recommend)
    law = law_of(recommend)
    money = [[SUPPORT[0, i], SUPPORT[1, j]] for i in range(2) for j in range(2)]
    worth = np.array([brute(env, theta, theta, law) for theta in money])
    np.testing.assert_allclose(policy.value.ravel(), worth, atol=1e-12)
    assert (policy.incentive_bound > 0).all()
    gains = np.zeros(2)
    for i in range(2):
        for theta, honest in zip(money, worth, strict=True):
            for lie in SUPPORT[i]:
                said = [lie if j == i else x for j, x in enumerate(theta)]
                gains[i] = max(gains[i], brute(env, said, theta, law) - honest)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    audit, every = mechanism.audit(), mechanism.audit(histories="all")
    first = np.asarray(audit.gain_by_period)[:, 0]
    np.testing.assert_allclose(np.maximum(first, 0.0), gains, atol=1e-12)
    # Without private readings an own past lie leaves nothing behind.
    np.testing.assert_allclose(every.gain_by_period, audit.gain_by_period, atol=1e-12)
    best = [[brute(env, theta, theta, law, free=i) for theta in money] for i in range(2)]
    found = mechanism.best_response()
    np.testing.assert_allclose(found.payoff, best, atol=1e-12)
    np.testing.assert_allclose(found.gain, best - worth, atol=1e-12)
    if recommend is modest:
        assert gains.min() > 0.01
        assert audit.witness[0].honest == every.witness[0].honest == "a draw"


def test_draws_follow_the_law_and_the_key():
    env = market(1)
    policy = dm.GivenPolicy(env, lambda *given: np.array([0.25, 0.75, 0.0]))
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    found = mechanism.simulate(jax.random.key(0), 4000)
    share = np.mean(found.recommendation[:, 0] == 0)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)
    again = mechanism.simulate(jax.random.key(0), 4000)
    np.testing.assert_array_equal(found.recommendation, again.recommendation)
    chat = policy.start(profile=0)
    assert chat.recommendation == policy.start(profile=0).recommendation
    assert chat.value == pytest.approx(policy.value.ravel()[0])


@pytest.mark.slow
@pytest.mark.parametrize("reports", ["incremental", "cumulative"])
def test_strategies_against_hardly_any_draws_are_those_against_none(reports):
    """With private readings, at the outset and after a query."""
    readings = dm.RatingFeedback(0.7, 2, advertisers=0.6)
    signals = dm.SignalStructure(dm.GaussianSignals(None, 0.8, 2), readings)
    env = dataclasses.replace(market(), signals=signals)

    def firm(belief, memory, theta, period):
        return int(np.argmin(theta + env.utilities @ belief))

    def wavering(*given):
        law = np.full(3, 1e-13)
        law[firm(*given)] += 1 - 3e-13
        return law

    found = [
        dm.DynamicTeamMechanism(dm.GivenPolicy(env, kind), dm.groves.Zero(), reports=reports)
        for kind in (firm, wavering)
    ]
    gains = [mechanism.best_response().gain for mechanism in found]
    assert gains[0].max() > 0.01
    np.testing.assert_allclose(gains[1], gains[0], atol=1e-11)


def test_a_recommender_may_remember_more_than_the_user():
    """Never the same product twice in a row: the user herself forgets what she saw."""
    env = market(3)

    def turns(belief, memory, theta, period):
        return int(memory[-1] + 1) % 2

    policy = dm.GivenPolicy(
        env, turns, memory=(np.array([1]), lambda memory, control: jnp.asarray(control)[None])
    )

    def law(belief, theta, period, past):
        return np.eye(3)[(past[-1] + 1) % 2 if past else 0]

    theta = SUPPORT[:, 0]
    worth = brute(env, theta, theta, law)
    np.testing.assert_allclose(policy.value.ravel()[0], worth, atol=1e-12)


def worst(belief, memory, theta, period):
    """Show whom the user likes least."""
    return int(np.argmin(market(1).utilities @ belief))


def test_simulated_bounds_hold_the_exact_numbers():
    env, missed = market(), 0
    exact = dm.GivenPolicy(env, modest)
    for seed in range(3):
        found = dm.GivenPolicy(env, modest, certificate=quick(seed=seed))
        assert not found.evaluator.walked
        missed += (found.value_lower > exact.value).sum() + (found.value_upper < exact.value).sum()
        assert (found.value_upper - found.value_lower < 0.3).all()
        assert (found.lower <= exact.upper + 1e-9).all()
        assert (found.upper >= exact.upper - 1e-9).all()
        assert (found.marginal_upper >= exact.marginal_value - 1e-9).all()
        assert (found.incentive_bound >= exact.incentive_bound - 1e-9).all()
    assert missed <= 3  # of 24, each at 95%
    audit = dm.DynamicTeamMechanism(found, dm.groves.Zero()).audit(conversations=200)
    gains = dm.DynamicTeamMechanism(exact, dm.groves.Zero()).audit().gain_by_period[:, 0]
    assert (audit.incentive_gain_lower <= gains + 1e-9).all()
    assert (gains <= audit.incentive_gain_upper + 1e-9).all()
    np.testing.assert_allclose(audit.profile_bound[0], found.incentive_bound, atol=0.2)
    chat = found.start(profile=0).step("query", [1, 0, 0], shown=1)
    other = exact.start(profile=0).step("query", [1, 0, 0], shown=1)
    bounds = chat.evaluator.certify(chat.place, None).attained
    assert bounds.lower[0] - 1e-9 <= other.value <= bounds.upper[0] + 1e-9


def test_where_no_tree_fits_a_recommender_is_simulated():
    rng = np.random.default_rng(0)
    env = dm.RecommendationMDP(
        rng.normal(size=(8, 3)),
        dm.TasteGrid(rng.normal(size=(12, 3)), np.full(12, 1 / 12)),
        12,
        dm.LastShownOnly(dm.Logit(0.5), query=0.7),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=4)),
        dm.ConstantValues(rng.uniform(0.2, 0.8, (8, 1))),
    )
    batch = env.sample_profiles(jax.random.key(0), 1)
    with pytest.raises(dm.TooLarge):
        dm.solve_efficient_policy(env, dm.Exact(), initial=batch)
    likes = quick(runs=60, rounds=1, marginal_runs=0)
    policy = dm.GivenPolicy(
        env, lambda b, h, theta, t: int(np.argmax(env.utilities @ b)), initial=batch,
        certificate=likes,
    )  # fmt: skip
    assert "simulated" in policy.solver
    assert policy.value_lower < policy.value < policy.value_upper <= policy.upper
    np.testing.assert_allclose(policy.incentive_bound, policy.upper - policy.value_lower)
    chat = policy.start(profile=0).step("query", np.eye(9, dtype=int)[0], shown=3)
    assert chat.recommendation == np.argmax(env.utilities @ chat.belief)
    again = policy.resume(chat.record())
    np.testing.assert_array_equal(again.belief, chat.belief)


def test_a_function_can_be_asked_off_its_tree():
    """What was displayed instead of the recommendation, and bids within a declared interval."""
    env = market(interval=[[0.1, 1.0], [0.2, 0.7]])
    for recommend in (worst, modest):
        policy = dm.GivenPolicy(env, recommend)
        chat = policy.start(profile=1).step("query", [1, 0, 0], shown=1)
        rest = dm.GivenPolicy(market(1, chat.belief.tolist()), recommend)
        if recommend is worst:
            assert chat.recommendation == worst(chat.belief, None, None, 2)
        assert chat.value == pytest.approx(rest.value[0, 1, 0, 0, 0], abs=1e-12)
        bid = dict(zip(env.names, (0.33, 0.44), strict=True))
        right = brute(env, (0.33, 0.44), (0.33, 0.44), law_of(recommend))
        assert policy.start(theta=bid, signals=[0, 0, 0]).value == pytest.approx(right, abs=1e-12)
        played = dm.GivenPolicy(env, recommend, certificate=quick(marginal_runs=0))
        there = played.start(theta=bid, signals=[0, 0, 0])
        found = there.evaluator.certify(there.place, None).attained
        assert found.lower[0] <= right <= found.upper[0]


def test_totals_at_bids_are_those_of_the_recommender(tmp_path):
    """Over own values of the support and the interval's ends, at others' bids wherever they lie."""
    env = market(interval=[[0.1, 1.0], [0.2, 0.7]])
    for recommend in (worst, modest):
        mechanism = dm.DynamicTeamMechanism(dm.GivenPolicy(env, recommend), CEILING)
        law = law_of(recommend)
        every = [*SUPPORT[0], 0.1, 1.0]
        right = min(brute(env, (own, 0.44), (own, 0.44), law) for own in every)
        for own in (0.33, 0.2):
            chat = mechanism.policy.start(np.array([own, 0.44]), [0, 0, 0]).step("exit")
            assert mechanism.settle(chat).transfer.sum(axis=0)[0] == pytest.approx(right, abs=1e-12)
        at = mechanism.policy.start(np.array([0.33, 0.3]), [0, 0, 0]).step("exit")
        known = mechanism.groves_total[0, 0, 1, 0, 0, 0]
        assert mechanism.settle(at).transfer.sum(axis=0)[0] == pytest.approx(known, abs=1e-12)
    start = dm.Profiles(np.array([[0, 1]]), np.array([[0, 0, 0]]))
    mechanism.save(tmp_path / "mechanism")
    again = dm.DynamicTeamMechanism.load(tmp_path / "mechanism")
    np.testing.assert_array_equal(again.groves_total, mechanism.groves_total)
    played = dm.GivenPolicy(env, modest, initial=start, certificate=quick())
    mechanism, paid = dm.DynamicTeamMechanism(played, CEILING), []
    for own in (0.33, 0.2):
        chat = played.start(np.array([own, 0.44]), [0, 0, 0]).step("exit")
        paid.append(mechanism.settle(chat).transfer.sum(axis=0)[0])
    assert paid[0] == paid[1]
    assert right - 1.0 < paid[0] <= right + 1e-12


@pytest.mark.parametrize(
    ("recommend", "options", "words"),
    [
        (lambda *given: np.array([0.5, 0.6, 0.0]), {}, "law over 3"),
        (lambda *given: np.array([1.5, -0.5, 0.0]), {}, "law over 3"),
        (lambda *given: np.array([0.5, np.nan, 0.5]), {}, "law over 3"),
        (lambda *given: np.array([0.5, 0.5]), {}, "law over 3"),
        (lambda *given: 7, {}, r"control 0\.\.1"),
        (lambda *given: 0, {"memory": 3}, "memory"),
        (lambda *given: 0, {"memory": (np.zeros(1), None)}, "memory"),
    ],
)
def test_mistakes_are_named(untyped, recommend, options, words):
    with pytest.raises(dm.DynmechError, match=words):
        dm.GivenPolicy(market(1), recommend, **options)
