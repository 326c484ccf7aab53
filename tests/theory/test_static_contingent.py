"""Other contingent mechanisms: Mezzetti, lotteries, messages; Propositions 5 and 6, Claim 2."""

import itertools

import numpy as np
import pytest
from scipy.spatial import ConvexHull

import dynmech as dm
from dynmech import DynmechError, TasteGrid
from dynmech import static as st
from tests.theory.test_static_implementation import BLUNT, SHARP, SILENT, auction, click_auction
from tests.theory.test_static_oracle import EXACT, random_environment

HIGHS = 1e-7


@pytest.mark.parametrize("seed", range(2))
def test_mezzetti_two_stages(seed):
    """(10) and footnote 12: first-stage truth is optimal; transfers are VCG's with ideal data."""
    env, _ = random_environment(seed)
    first = st.mezzetti(env)
    ideal = st.data_driven_vcg(env)
    for i in range(2):
        np.testing.assert_allclose(first.transfer[i], ideal.transfer[i], atol=EXACT)
    audit = first.audit()
    assert audit.epsilon <= audit.tolerance


def test_mezzetti_second_stage_indifference_and_fragility():
    """Section 4.3: all second-stage reports pay i the same, and i's truth hangs on the others'."""
    env, _ = random_environment(1)
    np.testing.assert_array_equal(st.second_stage_spread(env), 0)
    told = np.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(st.mezzetti_transfers(told), [-1.0, -2.3, 0.7])
    paid = st.mezzetti_transfers(told, lambda i, others: -others.min())
    np.testing.assert_allclose(paid, [0.0, -2.6, 1.7])
    # Reporting zero, or doubling, is a best reply too; after it the first stage unravels.
    for other in (lambda u: 0 * u, lambda u: 2 * u):
        assert st.mezzetti(env, other).audit().epsilon > 0.01


def test_mezzetti_slip_groves_term_of_second_stage_reports():
    """(10) says any h_i(xi_-i, u_-i): false, since i's report moves the allocation that earns u_-i.

    phi_i = sum_{j != i} u'_j cancels the transfer, and with it the reason to be truthful.
    """
    told = np.array([0.3, -1.0, 2.0])
    paid = st.mezzetti_transfers(told, lambda i, others: others.sum())
    np.testing.assert_allclose(paid, 0, atol=1e-15)
    env = click_auction()
    nothing = st.DirectMechanism(env, env.efficient_allocation(), [np.zeros((1, 1, 1))] * 2)
    assert nothing.audit().epsilon > 0.1


def test_mezzetti_has_no_pivot():
    """Footnote 13: when i wins the others' payoffs are zero, so h_i(u_-i) cannot be a price."""
    env = click_auction()
    wins = env.efficient_allocation() == 0
    realised = np.broadcast_to(env.payoff_by_type(1), (*env.shape, 2, 2))[wins][:, 0]
    np.testing.assert_array_equal(realised, 0)
    price = st.data_driven_vcg(env, groves="pivot").transfer[0][wins]
    assert (np.ptp(price, axis=-1) > 0.5).all()  # it moves with the state, which u_-i does not


@pytest.mark.parametrize("seed", range(5))
def test_condition_11_equals_a_convex_hull(seed):
    """(11): which beliefs are extreme, by linear programs and by qhull; both proofs check."""
    beliefs = np.random.default_rng(seed).dirichlet(np.ones(3), size=8)
    found = st.separate(beliefs)
    extreme = np.isin(np.arange(8), ConvexHull(beliefs[:, :2]).vertices)
    np.testing.assert_array_equal(found.margin > 0, extreme)
    for k in range(8):
        if extreme[k]:
            score = beliefs @ found.bet[k]
            assert abs(score[k]) <= EXACT
            assert np.delete(score, k).max() <= -1 + HIGHS
        else:
            weights = found.combination[k]
            assert weights.min() >= 0
            assert weights[k] == 0
            np.testing.assert_allclose(weights @ beliefs, beliefs[k], atol=HIGHS)
            assert found.error[k] <= HIGHS


def three_state_auction(channels, values=None):
    values = [[1.0, 2.0], [1.2, 1.9]] if values is None else values
    return auction([0.1, 0.4, 0.8], [0.3, 0.4, 0.3], values, channels)


RICH = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
COARSE = np.array([[0.8, 0.2], [0.5, 0.5], [0.3, 0.7]])


@pytest.mark.parametrize("noisy", [False, True])
def test_proposition_5_lottery_mechanism(noisy):
    """Proposition 5 and (24): bets on the state (or on a noisy estimate of it) implement x*."""
    env = three_state_auction([RICH, COARSE])
    assert st.message_vcg(env, dm.groves.Zero()).audit().epsilon > 0.01
    data = st.Estimator.frequency(env.states, 4) if noisy else None
    lottery = st.lottery_mechanism(env, data)
    audit = lottery.mechanism.audit()
    assert audit.epsilon <= audit.tolerance
    assert (lottery.scale > 0).all()
    # The bets are fair under truth, and the scale is the least that works for them.
    base = st.message_vcg(env, dm.groves.Zero())
    for i in range(2):
        expected = (lottery.mechanism.expected_transfer(i) * env.posterior(i)).sum(axis=-1)
        np.testing.assert_allclose(expected, base.transfer[i][..., 0], atol=1e-8)
    weak = [
        b + 0.9 * (t - b) for b, t in zip(base.transfer, lottery.mechanism.transfer, strict=True)
    ]
    short = st.DirectMechanism(env, base.allocation, weak, lottery.mechanism.law)
    assert (short.audit().incentive_gain > 1e-3).all()


def test_condition_11_fails_where_the_prior_is_a_posterior():
    """(11) and (13): with an uninformative structure the prior is a mixture of the posteriors.

    The weights are the probabilities of the signals, by Bayes' rule; the error says so.
    """
    silent = np.tile([1.0, 0.0, 0.0], (3, 1))
    env = three_state_auction([np.stack([RICH, silent]), np.ones((3, 1))])
    relevance = [r for r in st.check_relevance(env) if r.agent == 0]
    assert len(relevance) == 1
    found = relevance[0]
    prior = np.flatnonzero(np.abs(found.beliefs - [0.3, 0.4, 0.3]).max(axis=1) < EXACT)[0]
    assert found.separation.margin[prior] == 0
    weights = np.array([found.separation.combination[prior][found.index[z]] for z in range(3)])
    np.testing.assert_allclose(weights, np.array([0.3, 0.4, 0.3]) @ RICH, atol=HIGHS)
    with pytest.raises(DynmechError, match=r"lottery_mechanism\(env=.*convex hull.*0.32 x"):
        st.lottery_mechanism(env)
    audit = st.data_driven_vcg(env).audit()  # which needs no such condition
    assert audit.epsilon <= audit.tolerance


def test_condition_13_independent_signals():
    """(13): Omega_1 x Omega_2, each agent on her own factor; three collinear beliefs fail."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    law = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])  # the last symbol says nothing
    env = st.StaticEnvironment(
        lambda i, x, omega, t: t * omega[1 - i] * x[i], np.eye(2),
        TasteGrid(states, np.full(4, 0.25)), [[1.0, 2.0], [1.0, 2.0]],
        st.PrivateSignals.independent([law[states[:, i].astype(int)] for i in range(2)]),
    )  # fmt: skip
    failing = [line for r in st.check_relevance(env) for line in r.failures()]
    assert len(failing) == 6  # each agent's flat belief, at each signal of the other
    with pytest.raises(DynmechError, match="condition"):
        st.lottery_mechanism(env)


def test_proposition_6_full_surplus_extraction():
    """Proposition 6, (25) and (26): known values, truth is optimal and nobody keeps a rent."""
    env = three_state_auction([RICH, COARSE], values=[[1.0], [1.1]])
    lottery = st.surplus_extraction(env)
    audit = lottery.mechanism.audit()
    assert audit.epsilon <= audit.tolerance
    np.testing.assert_allclose(audit.participation, 0, atol=1e-8)
    surplus = sum(env.expected_payoff(i) for i in range(2)).max(axis=-1)
    np.testing.assert_allclose(audit.revenue, surplus, atol=1e-8)
    with pytest.raises(DynmechError, match="one value for each agent"):
        st.surplus_extraction(three_state_auction([RICH, COARSE]))


def test_lottery_with_contradictory_reports():
    """Proposition 5 where signals are correlated and some report profiles cannot occur."""
    maps = [np.array([[0, 0], [1, 1], [2, 0]]), np.array([[0, 1], [1, 1], [0, 0]])]
    env = st.StaticEnvironment(
        lambda i, x, omega, t: t * omega[0] * x[i], np.eye(2),
        TasteGrid([[0.1], [0.5], [0.9]], [0.3, 0.4, 0.3]), [[1.0, 2.0], [1.5, 1.6]],
        st.PrivateSignals.from_maps(maps, [0.6, 0.4]),
    )  # fmt: skip
    assert not env.possible().all()
    audit = st.lottery_mechanism(env).mechanism.audit()
    assert audit.epsilon <= audit.tolerance


@pytest.mark.parametrize("groves", [dm.groves.Zero(), "pivot", "informed"])
def test_claim_2_generalised_vcg_on_messages_fails(groves):
    """Claim 2 and Example 6: an item of common quality; the audit exhibits the profitable lie."""
    env = click_auction()
    audit = st.message_vcg(env, groves).audit()
    assert audit.epsilon > 0.1
    worst = audit.witness[int(np.argmax(audit.incentive_gain))]
    assert "gains" in worst.sentence()
    assert "signal" in worst.sentence()
    honest = st.data_driven_vcg(env, groves="pivot").audit()
    assert honest.epsilon <= honest.tolerance


def test_claim_2_no_transfers_on_messages():
    """Claim 2: the least epsilon of *any* message-driven transfers, (theta_L E_h - theta_H E_l)/2.

    theta_L loses to the rival and theta_H beats her; transfers cannot separate (theta_L, high),
    who would pay theta_L E_h to win, from (theta_H, low), to whom winning is worth theta_H E_l.
    """
    rates, prior = np.array([0.1, 0.7]), np.array([0.6, 0.4])
    env = auction(rates, prior, [[1.9, 2.1], [2.0, 2.0]], [SHARP, SILENT])
    joint = SHARP * prior[:, None]
    low, high = np.sort(rates @ (joint / joint.sum(axis=0)))
    bound = st.least_message_epsilon(env)
    expected = (1.9 * high - 2.1 * low) / 2
    assert bound.epsilon[0] == pytest.approx(expected, abs=HIGHS)
    assert bound.epsilon[1] == pytest.approx(0, abs=HIGHS)
    audit = bound.mechanism.audit()
    assert audit.incentive_gain[0] == pytest.approx(expected, abs=1e-6)
    assert st.message_vcg(env).audit().incentive_gain[0] >= expected - 1e-6
    # Where values are far apart, a price per item separates them: finite types may escape Claim 2.
    apart = auction(rates, prior, [[0.1, 9.0], [2.0, 2.0]], [BLUNT, SILENT])
    assert st.least_message_epsilon(apart).epsilon.max() <= HIGHS


def test_zero_informational_size():
    """Appendix B.1: an agent who knows nothing has no lie about information; the other has one."""
    env = auction([0.1, 0.7], [0.6, 0.4], [[1.0, 2.0, 3.0], [1.5, 2.5, 2.9]], [SILENT, SHARP])
    audit = st.message_vcg(env, "informed").audit()
    assert audit.incentive_gain[0] <= audit.tolerance
    assert audit.incentive_gain[1] > 0.1


def test_example_7_interdependent_preferences():
    """Example 7: u_2 = (theta_2 - theta_1) x_2 omega defeats data-driven VCG by theta_1' = 0.

    Where theta_1 < theta_2, truth gives theta_1 or theta_2 - theta_1 times E[omega | s]; the lie
    gives theta_2 E[omega | s].
    """
    grid = np.linspace(0, 1, 5)
    env = st.StaticEnvironment(
        lambda i, x, omega, t: (t[0] if i == 0 else t[1] - t[0]) * x[i] * omega[0],
        np.eye(2), TasteGrid([[0.2], [0.9]], [0.5, 0.5]), np.stack([grid, grid]),
        st.PrivateSignals.independent([SHARP, SHARP]), interdependent=True,
    )  # fmt: skip
    audit = st.data_driven_vcg(env).audit()
    mean = env.posterior(0) @ [0.2, 0.9]
    first, second = grid[env.types[0].theta][:, None], grid[env.types[1].theta][None]
    truth = np.where(2 * first >= second, first, second - first)
    # Her own payoff is theta_1 if she wins; the credit theta_2 - theta_1' if she loses.
    best = np.maximum(np.where(second > 0, second, first), first)
    np.testing.assert_allclose(audit.profile_gain[0], (best - truth) * mean, atol=EXACT)
    assert audit.incentive_gain[0] > 0.3
    told = audit.witness[0]
    assert told.report[0] == 0
    with pytest.raises(DynmechError, match="values of all"):
        st.data_driven_vcg(env, groves="pivot")
