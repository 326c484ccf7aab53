"""`solve_efficient_policy` with a network: the shapes and names of every other solver."""

import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.long_markets import UNTRAINED
from tests.helpers.small import logit_market

pytestmark = pytest.mark.slow  # the default run asks a network's policy in tests/contract

QUICK = dm.Certificate(runs=600, marginal_runs=200, rounds=2, walk=0)
NETWORK = dataclasses.replace(UNTRAINED, certificate=QUICK)


@pytest.fixture(scope="module")
def both():
    """A platform whose third symbol never occurs; product 0 may be worth either of two values."""
    env = logit_market(seed=3, m=4, platform=None, advertisers=None)
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.dirichlet(np.ones(2), 4), np.zeros((4, 1))], axis=1)
    signals = dataclasses.replace(env.signals, initial=dm.JointSignals(table[:, :, None, None]))
    values = dm.ConstantValues(env.values.support, [[0.3, 0.7], [1.0, 0.0]])
    env = dataclasses.replace(env, signals=signals, values=values)
    policy = dm.solve_efficient_policy(env, NETWORK, tolerance=10.0, progress=False)
    return policy, dm.solve_efficient_policy(env, progress=False)


def test_shapes_are_those_of_all_initial_profiles(both):
    policy, exact = both
    assert exact.value.shape == (2, 2, 3, 1, 1)
    assert np.isnan(exact.value[:, :, 2]).all()
    slack = 5 * policy.bounded("value").error + 1e-9  # rounding, where nothing is left to draw
    for low, high, true in (
        (policy.lower - slack, policy.upper + 1e-9, exact.value),
        (policy.value - slack, policy.value + slack, exact.value),
        (None, policy.marginal_upper + 1e-9, exact.marginal_value),
        (None, policy.displayable_marginal_upper + 1e-9, exact.displayable_marginal_value),
    ):
        assert high.shape == true.shape
        np.testing.assert_array_equal(np.isnan(high), np.isnan(true))
        assert (np.isnan(true) | (high >= true)).all()
        assert low is None or (np.isnan(true) | (low <= true)).all()
    assert "within the tolerance" in policy.solver


def test_what_it_yields_by_product_is_what_the_exact_policy_does(both):
    """An untrained network looks one of two rounds ahead and loses nothing here."""
    policy, exact = both
    outcomes = policy.evaluator.outcomes
    for found, error, true in (
        (policy.advertiser_value, outcomes.earned.error, exact.advertiser_value),
        (policy.user_utility, outcomes.utility.error, exact.user_utility),
        (policy.marginal_value, policy.evaluator.marginal.error, exact.marginal_value),
        (policy.displayable_marginal_value, policy.evaluator.displayable.error,
         exact.displayable_marginal_value),
    ):  # fmt: skip
        assert found.shape == true.shape
        apart = np.abs(policy.flat(found) - policy.flat(true))
        assert (apart <= 5 * error + 1e-9).all()
    assert np.nanmax(policy.advertiser_value) > 0.1
    slack = 5 * policy.evaluator.bounds.attained.error.max() + 1e-9
    assert abs(policy.ex_ante_value - exact.ex_ante_value) <= slack
    apart = np.abs(policy.ex_ante_marginal_value - exact.ex_ante_marginal_value)
    assert (apart <= 5 * policy.evaluator.marginal.error.max(axis=1) + 1e-9).all()
    assert np.nansum(policy.probability()) == pytest.approx(1)


def test_mechanisms_have_these_shapes_too(both):
    """Every own alternative is solved along, so that any term can be charged."""
    policy, exact = both
    floor = dm.groves.WindowFloor()  # charges a simulated bound, for certain on its side
    for groves in (dm.groves.Participation(), floor, dm.groves.ExAnte()):
        mine, true = (dm.DynamicTeamMechanism(p, groves) for p in (policy, exact))
        assert mine.groves_total.shape == true.groves_total.shape
        missing = np.isnan(mine.groves_total)
        assert (missing == np.isnan(exact.marginal_value)).all()
        apart = (mine.groves_total - true.groves_total)[~missing]
        assert apart.min() >= -1e-9 if groves is floor else np.abs(apart).max() < 0.2
    total = policy.flat(mine.groves_total)
    chat = policy.start((1, 0), (1, 0, 0)).step("exit")
    assert chat.profile == 7  # three symbols each: 2 * 3 profiles before (1, 0), one with it
    paid, every = mine.settle(chat).groves.sum(axis=0), mine.groves_total.reshape(2, -1)
    np.testing.assert_allclose(paid, every[:, chat.profile], atol=1e-12)
    records = mine.simulate(jax.random.key(0), 20)
    np.testing.assert_allclose(records.groves, every.T[records.profile], atol=1e-12)
    audit = mine.audit(conversations=30)
    np.testing.assert_array_equal(policy.flat(audit.groves_total), total)


def test_profiles_are_drawn_from_the_prior(both):
    """As by the exact policy: values (0.3, 0.7) and (1, 0), symbols by what is known of tastes."""
    policy, exact = both
    records = dm.DynamicTeamMechanism(policy, dm.groves.Zero()).simulate(jax.random.key(3), 4000)
    shares = np.bincount(records.profile, minlength=len(policy.profiles)) / 4000
    np.testing.assert_allclose(shares, policy.probability().ravel(), atol=0.03)
    np.testing.assert_allclose(exact.probability(), policy.probability(), atol=1e-12)
    assert not policy.batch


def test_data_driven_totals_follow_what_others_report(both):
    """The liar is charged as if she told the truth, the others at the profile reported."""
    for policy in both:
        mechanism = dm.DynamicTeamMechanism(policy, dm.groves.DataDriven())
        table = mechanism.totals_by_taste()
        theta, signals = policy.profiles.theta, policy.profiles.signals
        truth, said = (
            np.flatnonzero((theta == row).all(1) & (signals == (0, 0, 0)).all(1))[0]
            for row in ((0, 0), (1, 0))
        )
        records = mechanism.simulate(
            jax.random.key(1), 40, {0: lambda t, value, symbol: (value * 0 + 1, symbol)},
            profile=int(truth),
        )  # fmt: skip
        np.testing.assert_allclose(records.groves[:, 0], table[truth, 0, records.omega])
        np.testing.assert_allclose(records.groves[:, 1], table[said, 1, records.omega])
        assert np.abs(table[truth, 1] - table[said, 1]).max() > 1e-3


def test_conversations_can_be_undone_and_have_values(both):
    policy, exact = both
    chat, true = (p.start((1, 1), (0, 0, 0)) for p in both)
    assert abs(chat.value - true.value) <= 5 * chat.certify().error[0] + 1e-9
    asked = chat.step("query", {"platform": 1}, theta=(1, 1))
    assert asked.undo() is chat
    assert asked.step("exit").value == 0.0
    with pytest.raises(dm.InvalidArgument, match="at least one step"):
        chat.undo()
    with pytest.raises(dm.InvalidArgument, match="constant"):
        chat.step("query", {"platform": 1}, theta=(0, 1))
    with pytest.raises(dm.InvalidArgument, match="either"):
        policy.start((1, 1), (0, 0, 0), profile=0)
    with pytest.raises(dm.ImpossibleProfile, match="positive probability"):
        policy.start((1, 1), (2, 0, 0))
    frame = policy.to_frame()
    assert len(frame) == 2 * len(policy.profiles)
    at = (frame["profile"] == chat.profile) & (frame["product"] == policy.env.names[1])
    row = frame[at].iloc[0]
    assert row["W_upper"] == policy.upper[1, 1, 0, 0, 0]
    assert row["marginal_value_lower"] == policy.marginal_lower[1, 1, 1, 0, 0, 0]
    assert row["first_recommendation"] == policy.env.names[chat.recommendation]
    assert exact.to_frame()["theta"].isin(frame["theta"]).all()


def test_it_comes_back_as_it_was_saved(both, tmp_path):
    policy, _ = both
    policy.save(tmp_path / "kept")
    loaded = dm.EfficientPolicy.load(tmp_path / "kept")
    np.testing.assert_array_equal(loaded.value, policy.value)
    np.testing.assert_array_equal(loaded.user_utility, policy.user_utility)
    assert loaded.solver == policy.solver


def test_what_does_not_go_together_is_refused(both):
    policy, exact = both
    env = policy.env
    wrong = jax.sharding.Mesh(np.array(jax.devices()[:1])[:, None], ("x", "y"))
    with pytest.raises(dm.InvalidArgument, match=r"mesh.*one axis"):
        dm.solve_efficient_policy(env, NETWORK, mesh=wrong)
    with pytest.raises(dm.InvalidArgument, match="tolerance"):
        dm.solve_efficient_policy(env, NETWORK, tolerance=-1.0)
    again = policy.revalue(marginals=True)  # its market is small: solved on its tree
    np.testing.assert_allclose(again.value, exact.value, atol=1e-9)
    np.testing.assert_allclose(again.marginal_value, exact.marginal_value, atol=1e-9)
    never = dm.Profiles(np.array([[0, 0]]), np.array([[2, 0, 0]]))
    with pytest.raises(dm.ImpossibleProfile, match="positive probability"):
        dm.solve_efficient_policy(env, NETWORK, initial=never)
    batch = dm.Profiles(np.array([[0, 0]]), np.array([[1, 0, 0]]))
    some = dm.solve_efficient_policy(env, NETWORK, initial=batch, progress=False)
    assert some.value.shape == (1,)
    assert "tolerance" not in some.solver
    with pytest.raises(dm.DynmechError, match="every initial profile"):
        _ = some.ex_ante_value
