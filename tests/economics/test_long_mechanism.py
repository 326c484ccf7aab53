"""Mechanisms and audits under long-horizon policies, against brute force and exact solutions."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.policy.bias import largest_bias
from dynmech.policy.certified import played_policy
from tests.helpers.long_markets import THREE, solve, whispering
from tests.helpers.long_play import histories

TERMS = (
    dm.groves.Zero(),
    dm.groves.ExAnte(sampled=True),
    dm.groves.Participation(),
    dm.groves.Participation(displayable=True),
    dm.groves.NoSubsidy(),
    dm.groves.NoSubsidy(displayable=True),
    dm.groves.WindowFloor(),
    dm.groves.WindowCeiling(),
    dm.groves.DataDriven(),
)


def test_bounds_hold_what_brute_force_finds(long_solved):
    _, policy, exact = long_solved
    own, pairs = policy.evaluator.own, exact.pairs
    np.testing.assert_array_equal(own.pairs.own, pairs.own)
    slack = 4 * own.surplus.error + 1e-9
    assert (own.surplus.value <= exact.evaluator.pair_value + slack).all()
    assert (exact.evaluator.pair_value - own.surplus.value <= 0.01 + slack).all()
    known = exact.evaluator.own.value
    for bounds, true in ((own.marginal, known[0]), (own.displayable, known[1])):
        assert (bounds.lower <= true + 4 * bounds.error + 1e-9).all()
        assert (bounds.upper >= true - 1e-9).all()


@pytest.mark.parametrize("groves", TERMS, ids=repr)
def test_totals_do_not_move_with_own_reports(long_solved, groves):
    """Profiles 0 and 1 differ only in what advertiser 0 reports, 1 and 2 in advertiser 1."""
    _, policy, _ = long_solved
    total = dm.DynamicTeamMechanism(policy, groves).groves_total
    if isinstance(groves, dm.groves.DataDriven):
        mechanism = dm.DynamicTeamMechanism(policy, groves)
        function = groves.function(mechanism.own)
        np.testing.assert_array_equal(function[0, 0], function[1, 0])
        np.testing.assert_array_equal(function[1, 1], function[2, 1])
        return
    assert total.shape == (2, 3)
    assert total[0, 0] == total[0, 1]
    assert total[1, 1] == total[1, 2]


@pytest.mark.slow
def test_an_audit_holds_with_the_confidence_asked_for(long_solved):
    _, policy, _ = long_solved
    mechanism = dm.DynamicTeamMechanism(policy)
    sure, surer = (mechanism.audit(conversations=60, confidence=c) for c in (0.9, 0.999))
    assert (sure.confidence, surer.confidence) == (0.9, 0.999)
    assert "at 99.9%" in surer.summary() + str(surer.verdicts)
    assert (surer.incentive_bound > sure.incentive_bound).all()
    for name in ("participation", "no_subsidy"):
        wide, narrow = surer.bounded(name), sure.bounded(name)
        assert (wide.lower <= narrow.lower).all()
        assert (wide.lower < narrow.lower).any()
    assert (surer.window.ceiling <= sure.window.ceiling).all()
    with pytest.raises(dm.InvalidArgument, match="confidence"):
        mechanism.audit(confidence=1.0)


@pytest.mark.slow
def test_estimates_that_follow_predictions_are_paid_as_on_the_tree(long_solved):
    """Every rating comes, and is thought to come half the time: q = 2 x - m."""
    _, policy, exact = long_solved
    estimator = dm.InversePropensity(chance=0.5)
    played, walked = (
        dm.DynamicTeamMechanism(p, dm.groves.Zero(), estimator) for p in (policy, exact)
    )
    found, known = played.audit(conversations=200), walked.audit()
    error = 5 * found.budget.payments_error + 1e-9
    assert (np.abs(found.budget.payments - known.budget.payments) < error).all()
    assert found.bias >= known.bias - 1e-12
    mean, error = played.simulate(jax.random.key(0), 4000, profile=0).mean("payment")
    assert (np.abs(mean - known.budget.payments.reshape(2, -1)[:, 0]) < 5 * error).all()


@pytest.mark.slow
def test_a_total_is_the_same_whichever_own_report_was_solved_for(long_solved):
    """Solving for another own report, with the same network, changes no total of hers."""
    _, policy, _ = long_solved
    from dynmech.policy.own_bounds import bound_alternatives, list_alternatives

    for agent, first, second in ((0, 0, 1), (1, 1, 2)):
        totals = []
        for b in (first, second):
            one = dm.Profiles(THREE.theta[[b]], THREE.signals[[b]])
            play = dataclasses.replace(policy.player, profiles=one, root=policy.player.root[[b]])
            listed = list_alternatives(play.env, play.process, one)
            own = bound_alternatives(
                play.env, play.process, play.critic, listed, play.certificate, 4
            )
            names = ("bounds", "marginal", "displayable", "outcomes")
            numbers = [getattr(policy.evaluator, name) for name in names]
            numbers = jax.tree.map(lambda x, b=b: x[..., [b]], numbers)
            worse = dataclasses.replace(
                policy.evaluator,
                play=play,
                solved_own=own,
                **dict(zip(names, numbers, strict=True)),
            )
            alone = played_policy(worse, one, True, policy.solver, 0.0)
            mechanisms = [dm.DynamicTeamMechanism(alone, term) for term in TERMS[2:8]]
            totals.append([m.groves_total[agent, 0] for m in mechanisms])
        np.testing.assert_array_equal(totals[0], totals[1])


def test_each_term_charges_a_bound_on_its_own_side(long_solved):
    _, policy, exact = long_solved

    def totals(groves):
        pair = (dm.DynamicTeamMechanism(p, groves).groves_total for p in (policy, exact))
        return [x.reshape(2, 3) for x in pair]

    for displayable in (False, True):
        below, phi = totals(dm.groves.Participation(displayable))
        assert (below <= phi + 0.01).all()
        assert (below >= phi - 0.05).all()
        above, phi = totals(dm.groves.NoSubsidy(displayable))
        np.testing.assert_array_less(phi - 1e-9, above)
        np.testing.assert_allclose(above, phi, atol=1e-6)  # planned exactly to the end here
    below, ceiling = totals(dm.groves.WindowCeiling())
    assert (below <= ceiling + 1e-9).all()
    assert (below >= ceiling - 0.05).all()
    above, floor = totals(dm.groves.WindowFloor())
    assert (above >= floor - 0.01).all()
    assert (above <= floor + 0.5).all()  # 200 conversations; never above Wd^-i


def test_verdicts_of_participation_and_subsidies(long_solved):
    _, policy, exact = long_solved
    ceiling = dm.DynamicTeamMechanism(policy, dm.groves.WindowCeiling()).audit(conversations=100)
    assert ceiling.verdicts["participation"] == "proved at 95%"
    plus = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy(displayable=True))
    audit = plus.audit(conversations=100)
    assert audit.verdicts["no_subsidy"] == "proved at 95%"
    assert audit.verdicts["participation"] == "refuted at 95%"
    true = dm.DynamicTeamMechanism(exact, dm.groves.NoSubsidy(displayable=True)).audit()
    for slack, known in (
        (audit.slack_participation, true.participation),
        (audit.slack_no_subsidy, true.no_subsidy),
    ):  # fmt: skip
        known = known.reshape(2, 3)
        assert (np.abs(slack.value - known) <= 4.5 * slack.error + 0.01).all()
        assert ((slack.lower <= slack.value) & (slack.value <= slack.upper)).all()
    money = true.budget
    payments = money.payments.reshape(2, 3)
    far = np.abs(audit.budget.payments - payments)
    assert (far <= 4.5 * audit.budget.payments_error + 0.01).all()
    far = np.abs(audit.budget.user_surplus - money.user_surplus.ravel())
    assert (far <= 4.5 * audit.budget.user_surplus_error + 0.01).all()
    assert (audit.budget.payments_error > 0).all()
    zero = dm.DynamicTeamMechanism(policy, dm.groves.Zero()).audit(conversations=400)
    assert zero.verdicts["participation"] == "proved at 95%"
    assert zero.verdicts["no_subsidy"] == "refuted at 95%"
    frame = audit.to_frame()
    assert len(frame) == 2
    assert set(frame.advertiser) == set(policy.env.names)
    assert {"incentive_bound", "worst_participation_lower", "mean_payment"} <= set(frame.columns)
    assert len(audit.measured.to_frame()) == len(audit.measured.gain) == 18
    assert "certified" in audit.summary()


@pytest.mark.slow
def test_bounds_inside_hold_for_the_nodes_come_to(long_worse):
    audit = dm.DynamicTeamMechanism(long_worse, dm.groves.Zero()).audit(conversations=30, nodes=3)
    assert 1 <= len(audit.inside) <= 3
    for node in audit.inside:
        assert node.period == len(node.shown) + 1 >= 2
        assert node.bound >= max(float(node.value.gap), 0) - 1e-12
    assert "inside" in audit.summary()


@pytest.mark.slow
def test_an_estimate_with_bias_adds_twice_its_bias(long_solved):
    env, policy, exact = long_solved
    signal = dm.PosteriorMeanSettlement(1.0, env.tastes.weights)
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero(), signal)
    bias = largest_bias(env, signal)
    report = dm.check_assumption_3(env, signal)
    np.testing.assert_allclose(bias, report.largest_bias.max(), rtol=1e-9)
    assert bias > 0.05
    audit = mechanism.audit(conversations=200)
    plain = dm.DynamicTeamMechanism(policy, dm.groves.Zero()).audit(conversations=30)
    np.testing.assert_allclose(audit.profile_bound, plain.profile_bound + 2 * bias)
    assert (
        audit.measured.gain.value
        <= audit.profile_bound[audit.measured.advertiser, audit.measured.profile]
    ).all()
    known = dm.DynamicTeamMechanism(exact, dm.groves.Zero(), signal).audit()
    slack = audit.slack_participation
    far = np.abs(slack.value - known.participation.reshape(2, 3))
    assert (far <= 4.5 * slack.error + 0.01).all()


def test_a_conversation_is_settled_with_its_totals(long_solved):
    _, policy, _ = long_solved
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Participation(), installments=(0.5, 0.25))
    chat = policy.start(profile=1)
    shown = chat.recommendation
    chat = chat.step("query", {"platform": 1})
    second = chat.recommendation
    ledger = mechanism.settle(chat.step("exit"))
    np.testing.assert_array_equal(ledger.recommendation, [shown, second])
    np.testing.assert_allclose(ledger.groves.sum(axis=0), mechanism.groves_total[:, 1])
    assert (ledger.core == 0).all()
    end = policy.start(profile=1)
    bought = end.step(end.recommendation)
    with pytest.raises(dm.InvalidArgument, match="estimate"):
        mechanism.settle(bought)
    ledger = mechanism.settle(bought, estimate=0.3)
    paid = mechanism.payment(policy.player.theta(1), shown, 0.3)
    np.testing.assert_allclose(ledger.transfer[0], paid + mechanism.groves_total[:, 1], rtol=1e-12)
    assert len(ledger.to_frame()) == 2
    again = dataclasses.replace(policy, evaluator=dataclasses.replace(policy.evaluator))
    same = mechanism.settle(again.start(profile=1).step("exit"))  # equal, though not the same
    np.testing.assert_allclose(same.groves.sum(axis=0), mechanism.groves_total[:, 1])


@pytest.mark.slow
def test_whole_conversations_with_and_without_a_lie(long_solved):
    """Realised payoffs agree with brute force, for truth and for one strategy of lies."""
    env, policy, _ = long_solved
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Participation())
    tree, player, signals = histories(policy, 2)
    total = mechanism.groves_total[:, 2]

    def inflate(period, theta, symbols):
        return np.full_like(theta, 1), np.full_like(symbols, 1) if period == 1 else symbols

    honest = mechanism.simulate(jax.random.key(0), 3000, profile=2)
    liar = mechanism.simulate(jax.random.key(0), 3000, {1: inflate}, profile=2)
    said, heard = policy.player.theta(2).copy(), np.array(signals)
    said[1], heard[2] = env.values.support[1, 1], 1
    for records, exact in (
        (honest, tree.payoff(1)),
        (liar, tree.payoff(1, player.belief(heard), said)),
    ):
        mean, error = records.mean("payoff")
        assert abs(mean[1] - (exact - total[1])) < 4.5 * error[1]
        assert not records.settled_at_mean
    assert (liar.groves[:, 1] == total[1]).all()
    np.testing.assert_array_equal(liar.groves[0, 0], mechanism.groves_total[0, 1])
    mixed = mechanism.simulate(jax.random.key(1), 60)
    assert set(mixed.profile) == {0, 1, 2}
    with pytest.raises(dm.OutsideSupport, match="theta"):
        mechanism.simulate(jax.random.key(0), 5, {0: lambda t, x, z: (x + 9, z)})
    with pytest.raises(dm.OutsideSupport, match="keyed by"):
        mechanism.simulate(jax.random.key(0), 5, {"nobody": inflate})


def test_a_policy_comes_back_as_it_was_saved(long_solved, tmp_path):
    _, policy, exact = long_solved
    policy.save(tmp_path / "kept")
    loaded = dm.EfficientPolicy.load(tmp_path / "kept")
    assert jax.tree.structure(loaded) == jax.tree.structure(policy)
    for kept, found in zip(jax.tree.leaves(policy), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(found, kept)
        assert np.asarray(found).dtype == np.asarray(kept).dtype
    assert loaded.solver == policy.solver
    assert loaded.player.certificate == policy.player.certificate
    before, after = (
        dm.DynamicTeamMechanism(p).simulate(jax.random.key(2), 40) for p in (policy, loaded)
    )
    np.testing.assert_array_equal(before.core, after.core)
    assert dm.DynamicTeamMechanism(loaded).groves_total.tolist() == (
        dm.DynamicTeamMechanism(policy).groves_total.tolist()
    )
    assert (tmp_path / "kept").is_file()
    exact.save(tmp_path / "exact")
    assert dm.EfficientPolicy.load(tmp_path / "exact").exact
    with pytest.raises(dm.InvalidArgument, match=r"EfficientPolicy.load.*nothing"):
        dm.EfficientPolicy.load(tmp_path / "nothing")
    (tmp_path / "kept").write_bytes((tmp_path / "kept").read_bytes()[:900])
    with pytest.raises(dm.InvalidArgument, match="torn"):
        dm.EfficientPolicy.load(tmp_path / "kept")


def test_parameters_of_another_network_are_refused(long_solved, tmp_path):
    policy = long_solved[1]
    critic = eqx.tree_at(lambda x: x.lift.bias, policy.player.critic, np.zeros(3))
    play = dataclasses.replace(policy.player, critic=critic)
    dataclasses.replace(policy, evaluator=dataclasses.replace(policy.evaluator, play=play)).save(
        tmp_path / "kept"
    )
    with pytest.raises(dm.InvalidArgument, match="network of this version"):
        dm.EfficientPolicy.load(tmp_path / "kept")


def test_largest_bias_reads_histories_where_it_has_to():
    from tests.helpers.markets import random_market
    from tests.helpers.quantities import market_of

    env = market_of(random_market(np.random.default_rng(0), zeros=0.3, biased=True))
    report = dm.check_assumption_3(env)
    np.testing.assert_allclose(
        largest_bias(env, env.signals.settlement), np.nanmax(report.largest_bias), rtol=1e-9
    )
    assert largest_bias(whispering(), dm.RatingSettlement(2.0)) == 0.0


def test_what_needs_more_is_refused_by_name(long_solved):
    _, policy, _ = long_solved
    certificate = dataclasses.replace(policy.player.certificate, marginal_runs=0)
    play = dataclasses.replace(policy.player, certificate=certificate)
    evaluator = dataclasses.replace(policy.evaluator, play=play)
    bare = dataclasses.replace(policy, evaluator=evaluator)
    for groves in (dm.groves.Participation(), dm.groves.WindowCeiling(), dm.groves.NoSubsidy()):
        with pytest.raises(dm.InvalidArgument, match="marginal_runs"):
            dm.DynamicTeamMechanism(bare, groves)
    assert (dm.DynamicTeamMechanism(bare, dm.groves.Zero()).groves_total == 0).all()
    mechanism = dm.DynamicTeamMechanism(policy)
    for ask, words in (
        (lambda: mechanism.best_response(), "simulated"),
        (lambda: mechanism.settlement_means(), "simulated"),
        (lambda: dm.payment_moments(mechanism), "Certificate"),
        (lambda: mechanism.audit(histories="all"), "on-path"),
        (lambda: mechanism.audit(conversations=5), "at least 30"),
        (lambda: mechanism.audit(nodes=-1), "nodes"),
        (lambda: mechanism.audit(tolerance=-1.0), "tolerance"),
        (lambda: mechanism.audit(interval=True), "declare"),
        (lambda: mechanism.simulate(jax.random.key(0), 0), "at least 1"),
        (lambda: mechanism.simulate(jax.random.key(0), 1, profile=7), "0..2"),
    ):
        with pytest.raises(dm.DynmechError, match=words):
            ask()
    many = dm.Profiles(np.zeros((1, 3), int), np.zeros((1, 4), int))
    with pytest.raises(dm.TooLarge, match="alternatives"):
        dm.DynamicTeamMechanism(solve(whispering(3, values=200), initial=many))
