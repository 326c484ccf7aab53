"""Private signal structures as part of the report: laws, values, Groves terms, audits."""

from itertools import product
from typing import Any

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers import oracle
from tests.helpers.markets import histories_of, random_market
from tests.helpers.quantities import assert_same, market_of, quantities, solve
from tests.helpers.small import logit_market

LABELS = ("sharp", "blunt", "odd")


def channels(rng, m, platform, sizes):
    """A platform's channel, and a structure of independent ones for each row of `sizes`."""

    def law(z):
        weights = rng.gamma(0.5, size=(m, z)) + 1e-3
        return weights / weights.sum(axis=1, keepdims=True)

    first = law(platform)
    return [[first, *(law(z) for z in row)] for row in sizes]


def joint(parts):
    """The table (m, Zp, Z1, ..., Zn) of independent channels."""
    table = np.ones(len(parts[0]))
    for part in parts:
        table = table[..., None] * part.reshape(len(part), *(1,) * (table.ndim - 1), -1)
    return table


def union(structures, prior):
    """The table of the disjoint unions, by hand: parts of every advertiser side by side."""
    prior = np.broadcast_to(prior, (len(structures[0]) - 1, len(structures)))
    own = [
        np.concatenate([p * s[i + 1] for p, s in zip(row, structures, strict=True)], axis=1)
        for i, row in enumerate(prior)
    ]
    return joint([structures[0][0], *own])


def replaced(env, initial=None, feedback=None):
    signals = env.signals
    structure = dm.SignalStructure(
        initial or signals.initial, feedback or signals.feedback, signals.settlement
    )
    return dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule, structure, env.values, env.names
    )


def made(seed, sizes=((2, 1), (1, 2), (2, 2)), prior=None, **options):
    """A random market whose advertisers privately hold one of several structures."""
    rng = np.random.default_rng([81, seed])
    options = {"symbols": (1, 2, 1), "constant": bool(seed % 2), **options}
    case = random_market(rng, **options)
    parts = channels(rng, len(case["prior"]), 2, sizes)
    chance = rng.dirichlet(np.ones(len(sizes)), 2) if prior is None else prior
    held = dm.PrivateStructures(
        [dm.JointSignals(joint(part)) for part in parts], chance, LABELS[: len(sizes)]
    )
    table = case | {"initial_signals": union(parts, chance)}
    return replaced(market_of(case), held), table, parts, chance


def test_the_law_is_that_of_the_disjoint_union_and_sums_to_one():
    env, case, _, _ = made(0)
    assert env.initial_alphabet == case["initial_signals"].shape[1:] == (2, 5, 5)
    symbols = np.stack([x.ravel() for x in np.indices(env.initial_alphabet)], axis=1)
    law = np.asarray(env.signals.initial.likelihood(env.utilities, symbols))
    np.testing.assert_allclose(law.sum(axis=0), 1.0, atol=1e-14)
    expected = case["initial_signals"].reshape(len(law.T), -1)
    np.testing.assert_allclose(law.T, expected, atol=1e-15)
    drawn = env.sample_profiles(jax.random.key(0), 500)
    code = np.ravel_multi_index(drawn.signals.T, env.initial_alphabet)
    share = np.bincount(code, minlength=law.shape[0]) / 500
    chance = expected.T @ np.asarray(env.tastes.weights)
    assert (np.abs(share - chance) <= 5 * np.sqrt(chance / 500) + 1e-3).all()


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_every_quantity_is_that_of_brute_force_over_the_union(seed):
    """The oracle knows nothing of structures: it is given the table of the union."""
    env, case, _, _ = made(seed, sizes=((2, 1), (1, 2)))
    policy = solve(env)
    assert_same(quantities(policy), oracle.solve_by_brute_force(case), policy.env.money_scale)


def test_given_the_structures_held_it_is_the_plain_market():
    """W, marginal economies and the windows' ingredients at each choice of structures."""
    env, _, parts, _ = made(1)
    policy = solve(env)
    starts = np.cumsum([[0, 0], *[[p.shape[1] for p in part[1:]] for part in parts]], axis=0)
    held = env.signals.initial
    assert isinstance(held, dm.PrivateStructures)
    for first, second in ((0, 1), (2, 0), (1, 2)):
        own = [parts[0][0], parts[first][1], parts[second][2]]
        plain = solve(replaced(env, dm.JointSignals(joint(own))))
        cut = (
            ...,
            slice(starts[first, 0], starts[first + 1, 0]),
            slice(starts[second, 1], starts[second + 1, 1]),
        )
        for name in ("value", "marginal_value", "displayable_marginal_value", "user_utility"):
            np.testing.assert_allclose(getattr(policy, name)[cut], getattr(plain, name), atol=1e-12)
        last = [part.shape[1] - 1 for part in own]
        theta = (0, 1)
        said = (last[0], (LABELS[first], last[1]), (second, last[2]))
        chat, other = policy.start(theta, said), plain.start(theta, last)
        np.testing.assert_allclose(chat.value, other.value, atol=1e-12)
        np.testing.assert_allclose(chat.belief, other.belief, atol=1e-12)
        named = {"platform": last[0], "product 0": said[1], "product 1": said[2]}
        assert policy.start(theta, named).value == chat.value
        assert held.describe(held.encode(said)) == (
            last[0], (LABELS[first], last[1]), (LABELS[second], last[2]),
        )  # fmt: skip


def test_pivots_are_extremes_over_structures_and_signals():
    """phi_plus is the largest, phi_minus the smallest of W^{-i} over plain markets as well."""
    env, _, parts, _ = made(3)
    policy = solve(env)
    plus, minus = (
        dm.DynamicTeamMechanism(policy, term).groves_total
        for term in (dm.groves.NoSubsidy(), dm.groves.Participation())
    )
    tables = []
    for first in range(3):
        own = [parts[0][0], parts[first][1], parts[1][2]]
        plain = solve(replaced(env, dm.JointSignals(joint(own))))
        tables.append(plain.marginal_value[0])
    own = np.concatenate(tables, axis=-2)
    cut = slice(parts[0][2].shape[1], parts[0][2].shape[1] + parts[1][2].shape[1])
    for found, expected in ((plus, own.max(axis=-2)), (minus, own.min(axis=-2))):
        expected = np.broadcast_to(expected[..., None, :], found[0][..., cut].shape)
        np.testing.assert_allclose(found[0][..., cut], expected, atol=1e-12)
    width = (plus - minus)[0][..., 0, cut]
    each = [table.max(axis=-2) - table.min(axis=-2) for table in tables]
    assert (width >= np.max(each, axis=0) - 1e-12).all()
    assert (width > each[0] + 1e-3).any()


def test_one_structure_is_that_structure():
    """Correlated ones included."""
    initial = dm.GaussianSignals(1.0, 0.5, symbols=2, correlation=0.4)
    plain = replaced(logit_market(seed=4), initial)
    feedback = plain.signals.feedback
    single = replaced(
        plain, dm.PrivateStructures([plain.signals.initial]), dm.PrivateFeedback([feedback])
    )
    one, other = solve(plain), solve(single)
    scale = plain.money_scale
    assert_same(quantities(other), quantities(one), scale)


def rating_structures(deviations=(0.5, 3.0), **more):
    return dm.PrivateFeedback(
        [dm.RatingFeedback(0.7, 2, advertisers=sd, **more) for sd in deviations],
        (0.3, 0.7),
        LABELS[: len(deviations)],
    )


def test_private_feedback_is_the_table_of_its_union():
    """Feedback by history, and by rating: the same market with the union written out."""
    rng = np.random.default_rng(91)
    case = random_market(rng, constant=True, initial_symbols=(1, 2, 1))
    m, rows = len(case["prior"]), len(histories_of(2, 2))
    tables, unions = [], []
    for _ in range(rows):
        parts = channels(rng, m, 2, ((2, 1), (1, 2)))
        tables.append([joint(part) for part in parts])
        unions.append(union(parts, (0.4, 0.6)))
    held = dm.PrivateFeedback(
        [dm.TabulatedFeedback(np.stack(x)) for x in zip(*tables, strict=True)], (0.4, 0.6)
    )
    env = replaced(market_of(case), feedback=held)
    assert env.feedback_alphabet == (2, 3, 3)
    policy = solve(env)
    expected = oracle.solve_by_brute_force(case | {"feedback": np.stack(unions)})
    assert_same(quantities(policy), expected, env.money_scale)
    chat = policy.start((0, 1), (0, 1, 0))
    if chat.recommendation >= 0:
        after = chat.step("query", (1, ("structure 1", 0), (0, 0)))
        np.testing.assert_array_equal(np.asarray(after.turns[-1].signals), [1, 2, 0])


def test_private_ratings_are_those_of_each_structure():
    market = logit_market(seed=6, feedback=rating_structures())
    law = np.asarray(market.signals.feedback.likelihood(np.zeros(2), 0, 0, market.utilities))
    np.testing.assert_allclose(law.sum(axis=1), 1.0, atol=1e-6)
    law = law.reshape(-1, 2, 4, 4)
    np.testing.assert_allclose(law[:, :, :2].sum(axis=(1, 2, 3)), 0.3, atol=1e-6)
    plain = [dm.RatingFeedback(0.7, 2, advertisers=sd) for sd in (0.5, 3.0)]
    for k, part in enumerate(plain):
        bound = replaced(market, feedback=part).signals.feedback
        one = np.asarray(bound.likelihood(np.zeros(2), 0, 0, market.utilities))
        one = one.reshape(-1, 2, 2, 2).sum(axis=3)
        mine = law[:, :, 2 * k : 2 * k + 2].sum(axis=3) / (0.3, 0.7)[k]
        np.testing.assert_allclose(mine, one, atol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_truth_about_the_structure_is_optimal_under_data_driven_settlement(seed):
    env, _, _, _ = made(seed, horizon=2)
    policy = solve(env)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy())
    audit = mechanism.audit()
    assert audit.incentive_gain.max() <= audit.tolerance
    assert np.nanmax(mechanism.best_response().gain) <= audit.tolerance
    both = dm.DynamicTeamMechanism(policy, dm.groves.Participation()).audit()
    assert np.nanmin(both.participation) >= -both.tolerance
    remedied = dm.groves.NoSubsidy(displayable=True)
    assert np.nanmin(dm.DynamicTeamMechanism(policy, remedied).audit().no_subsidy) >= -1e-9


def test_truth_about_the_structure_of_feedback_is_optimal_too():
    policy = solve(logit_market(seed=6, feedback=rating_structures(), symbols=2))
    mechanism = dm.DynamicTeamMechanism(policy)
    audit, message = mechanism.audit(), mechanism.audit(dm.settlement.MessageDriven())
    assert audit.incentive_gain.max() <= audit.tolerance
    late = message.gain_by_period[:, 1]
    assert late.max() > 1e-3
    worst = [w for w in message.witness if w.period == 2]
    assert all("sharp" in w.sentence() or "blunt" in w.sentence() for w in worst)


@pytest.mark.slow
def test_the_freedom_to_lie_about_the_structure_is_worth_something():
    """Message-driven: the gain at each type is at least that of lies about the symbol alone."""
    more = []
    for seed in range(4):
        env, _, parts, _ = made(seed, horizon=1)
        message = dm.settlement.MessageDriven()
        free = dm.DynamicTeamMechanism(solve(env)).audit(message).incentive_gain
        known = np.zeros(2)
        for first, second in product(range(3), repeat=2):
            own = [parts[0][0], parts[first][1], parts[second][2]]
            plain = solve(replaced(env, dm.JointSignals(joint(own))))
            found = dm.DynamicTeamMechanism(plain).audit(message).incentive_gain
            known = np.maximum(known, found)
        assert (free >= known - 1e-12).all()
        more.append((free - known).max())
    assert max(more) > 1e-3


def vague_or_sharp(labels=("sharp", "vague")):
    """One round, tastes A and B evenly; advertiser 0 may know the taste (sharp) or nothing.

    theta = 0, u_0 = (2, -2), u_1 = (-2, 3) at (A, B); what is shown is bought.
    """
    action = np.zeros((3, 4, 2))
    action[np.arange(3), np.arange(3)] = 1.0
    env = dm.RecommendationMDP.from_tables(
        np.eye(2), np.array([[2.0, -2.0], [-2.0, 3.0]]), np.full(2, 0.5), 1, action,
        np.ones((3, 2, 1, 1, 1)), np.ones((2, 1, 1, 1)),
        np.zeros((2, 1)), np.ones((2, 1)), np.ones((3, 2, 1, 1)),
    )  # fmt: skip
    sharp, vague = np.eye(2)[:, None, :, None], np.ones((2, 1, 1, 1))
    parts = [dm.JointSignals({"sharp": sharp, "vague": vague}[name]) for name in labels]
    return replaced(env, dm.PrivateStructures(parts, labels=labels))


def test_structures_by_hand():
    """Sharp: W = 2 at A, 3 at B; vague: max(0, 1/2). Symbols 0 and 1 of sharp, 0 of vague.

    Without product 0: max(-2, 0) = 0, 3 and 1/2. So phi_plus = 3 and phi_minus = 0, though for
    an advertiser known to be vague both are 1/2. Advertiser 1's structures have one symbol each.
    """
    policy = solve(vague_or_sharp())
    assert policy.env.initial_alphabet == (1, 3, 2)
    by_hand = {
        "value": [2.0, 3.0, 0.5],
        "probability": [0.125, 0.125, 0.25],
        "marginal_value": [0.0, 3.0, 0.5],
        "phi_plus": [3.0] * 3,
        "phi_minus": [0.0] * 3,
    }
    terms = {"phi_plus": dm.groves.NoSubsidy(), "phi_minus": dm.groves.Participation()}
    found = {
        "value": policy.value,
        "probability": policy.probability(),
        "marginal_value": policy.marginal_value[0],
        **{x: dm.DynamicTeamMechanism(policy, term).groves_total[0] for x, term in terms.items()},
    }
    for name, expected in by_hand.items():
        table = found[name].reshape(3, 2)
        np.testing.assert_allclose(table, np.array(expected)[:, None] + [0, 0], atol=1e-14)
    known = dm.DynamicTeamMechanism(solve(vague_or_sharp(labels=("vague",))))
    np.testing.assert_allclose(known.groves_total[0], 0.5, atol=1e-14)


def test_a_lie_about_the_structure_can_pay_more_than_any_about_the_symbol():
    """Settled by messages, told "sharp, B" the platform shows 1 and pays as if it were worth 3.

    Sharp at A gains 3 - 2 = 1, and so much if she is known to be sharp; vague gains 3 - 1/2, and
    nothing if she is known to be vague. Settled by data, nobody gains.
    """
    message = dm.settlement.MessageDriven()
    for labels, gain in ((("sharp", "vague"), 2.5), (("sharp",), 1.0), (("vague",), 0.0)):
        mechanism = dm.DynamicTeamMechanism(solve(vague_or_sharp(labels=labels)))
        audit = mechanism.audit(message)
        np.testing.assert_allclose(audit.incentive_gain, [gain, 0.0], atol=1e-14)
        assert mechanism.audit().incentive_gain.max() <= 1e-14
        if len(labels) == 2:
            witness = audit.witness[0]
            assert (witness.structures, witness.symbols) == (("sharp", "vague"), (1, 0))
            words = (
                "reporting signal 1 of sharp instead of 0 of vague: the platform still recommends"
            )
            assert words in witness.sentence()


@pytest.mark.slow
def test_conversations_are_simulated_with_private_structures():
    env = logit_market(seed=6, feedback=rating_structures())
    noises = [dm.GaussianSignals(2.0, sd, 2) for sd in (0.5, 4.0)]
    policy = solve(replaced(env, dm.PrivateStructures(noises)))
    mechanism = dm.DynamicTeamMechanism(policy)
    records = mechanism.simulate(jax.random.key(0), 20_000)
    mean, error = records.mean("payoff")
    weights = policy.probability().ravel()
    exact = np.nansum(mechanism.audit().participation.reshape(2, -1) * weights, axis=1)
    assert (np.abs(mean - exact) <= 4.5 * error).all()


@pytest.mark.slow
def test_policies_with_structures_are_saved_and_revalued(tmp_path):
    env = logit_market(seed=6, feedback=rating_structures(), horizon=1)
    held = dm.PrivateStructures([dm.GaussianSignals(2.0, sd, 2) for sd in (0.5, 4.0)])
    policy = solve(replaced(env, held))
    policy.save(tmp_path / "p")
    again = dm.EfficientPolicy.load(tmp_path / "p")
    np.testing.assert_array_equal(again.value, policy.value)
    loaded = again.env.signals.initial
    assert isinstance(loaded, dm.PrivateStructures)
    assert loaded.describe((0, 3, 0)) == held.describe((0, 3, 0))
    found = policy.revalue(gamma=env.gamma).value
    np.testing.assert_allclose(found, policy.value, atol=1e-10)


def test_bad_structures_are_refused():
    gaussian = dm.GaussianSignals(1.0, 0.5)
    with pytest.raises(dm.InvalidArgument, match="be a list of AbstractInitialSignals"):
        dm.PrivateStructures([dm.NoFeedback()])
    with pytest.raises(dm.InvalidArgument, match="be a list"):
        dm.PrivateFeedback([])
    with pytest.raises(dm.InvalidArgument, match=r"prior=.*shape"):
        dm.PrivateStructures([gaussian, gaussian], (0.2, 0.3, 0.5))
    with pytest.raises(dm.InvalidProbability, match="prior="):
        dm.PrivateStructures([gaussian, gaussian], (0.2, 0.3))
    with pytest.raises(dm.InvalidArgument, match="2 different names"):
        dm.PrivateStructures([gaussian, gaussian], labels=("a", "a"))
    env = logit_market(horizon=1)
    correlated = dm.GaussianSignals(1.0, 0.5, correlation=0.5)
    for bad, match in (
        ([gaussian, correlated], r"independent across parties.*structure 1"),
        ([gaussian, dm.GaussianSignals(2.0, 0.5)], "same signal in every structure"),
        ([gaussian, dm.GaussianSignals(None, 0.5)], "same signal in every structure"),
    ):
        with pytest.raises(dm.InvalidArgument, match=match):
            replaced(env, dm.PrivateStructures(bad))
    with pytest.raises(dm.InvalidArgument, match="row for each of the 2 advertisers"):
        replaced(env, dm.PrivateStructures([gaussian] * 2, np.full((3, 2), 0.5)))
    with pytest.raises(dm.InvalidArgument, match=r"independent.*correlation=0.3"):
        replaced(env, feedback=rating_structures(correlation=0.3))
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(8), (3, 5)).reshape(3, 5, 2, 2, 2)
    with pytest.raises(dm.InvalidArgument, match="away from independence"):
        replaced(env, feedback=dm.PrivateFeedback([dm.ChannelFeedback(table)] * 2))
    noise: Any = np.ones(7)
    wrong = dm.PrivateFeedback([dm.RatingFeedback(noise, 2, advertisers=1.0)] * 2)
    with pytest.raises(dm.InvalidArgument, match="noise"):
        replaced(env, feedback=wrong)
    policy = solve(vague_or_sharp())
    for said in ((0, ("c", 0), 0), (0, ("vague", 1), 0), (("vague", 0), 0, 0), (0, ("vague",), 0)):
        with pytest.raises(dm.OutsideSupport, match="signals"):
            policy.start((0, 0), said)
    plain = solve(replaced(vague_or_sharp(), dm.JointSignals(np.full((2, 1, 3, 2), 1 / 6))))
    with pytest.raises(dm.InvalidArgument, match="private structures"):
        plain.start((0, 0), (0, ("vague", 0), 0))
    many = dm.PrivateStructures([dm.GaussianSignals(1.0, 0.5, symbols=9)] * 2)
    with pytest.raises(dm.TooLarge, match="fewer symbols"):
        replaced(logit_market(n=7), many)
