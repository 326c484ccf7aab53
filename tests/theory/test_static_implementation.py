"""Implementation with ideal and unbiased data: Proposition 1, Theorem 1, section 4.4."""

import itertools

import numpy as np
import pytest

import dynmech as dm
from dynmech import TasteGrid
from dynmech import static as st
from tests.theory.test_static_oracle import CASES, EXACT, random_environment, random_unbiased

PRIVATE = {name: options for name, options in CASES.items() if "priors" not in options}


def auction(rates, weights, values, channels=None, **options):
    """Example 2 with one slot: the click rate is the state, u_i = theta_i omega x_i."""
    n = len(values)
    return st.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] * x[i],
        allocations=np.eye(n),
        states=TasteGrid(np.asarray(rates)[:, None], weights),
        theta=values,
        signals=None if channels is None else st.PrivateSignals.independent(channels),
        **options,
    )


SHARP = np.array([[0.9, 0.1], [0.2, 0.8]])
BLUNT = np.array([[0.6, 0.4], [0.4, 0.6]])
SILENT = np.ones((2, 1))


VALUES = np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 2.9]])


def click_auction(**options):
    return auction([0.1, 0.7], [0.6, 0.4], VALUES, [[SHARP, BLUNT], SHARP], **options)


@pytest.mark.parametrize("groves", [dm.groves.Zero(), "pivot"], ids=["zero", "pivot"])
@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("seed", range(3))
def test_proposition_1_ideal_data(name, seed, groves):
    """Proposition 1: with the state observed, every data-driven VCG mechanism implements x*."""
    env, _ = random_environment(seed, **PRIVATE[name])
    audit = st.data_driven_vcg(env, groves=groves).audit()
    assert audit.epsilon <= audit.tolerance
    assert audit.deviations > 0
    messages = st.message_vcg(env, dm.groves.Zero()).audit()
    assert messages.epsilon > 1e-3  # the same environments do defeat transfers on messages


def test_proposition_1_any_groves_term():
    """Proposition 1: h_i(xi_-i, omega) is arbitrary, as ideal data do not depend on x."""
    env, _ = random_environment(2)
    rng = np.random.default_rng(0)
    tables = [
        rng.normal(size=(*(1 if j == i else e for j, e in enumerate(env.shape)), 3))
        for i in range(2)
    ]
    audit = st.data_driven_vcg(env, groves=tables).audit()
    assert audit.epsilon <= audit.tolerance


@pytest.mark.parametrize(
    ("groves", "slack", "sharp"),
    [
        (dm.groves.NoSubsidy(), "no_subsidy", False),
        (dm.groves.Participation(), "participation", False),
        (dm.groves.WindowFloor(), "no_subsidy", True),
        (dm.groves.WindowCeiling(), "participation", True),
    ],
    ids=repr,
)
def test_terms_keep_their_side_at_every_own_type(groves, slack, sharp):
    """Each is at least 0 at every profile; at the window's ends, 0 at some own type of each."""
    env = click_auction()
    audit = st.data_driven_vcg(env, groves=groves).audit()
    assert audit.epsilon <= audit.tolerance
    for i in range(2):
        least = np.nanmin(getattr(audit, slack)[i], axis=i)
        assert (least >= -audit.tolerance).all()
        assert not sharp or (np.abs(least) <= audit.tolerance).all()


@pytest.mark.parametrize("groves", [dm.groves.Zero(), "pivot"], ids=["zero", "pivot"])
@pytest.mark.parametrize("name", PRIVATE)
def test_theorem_1_unbiased_and_affine(name, groves):
    """Theorem 1: an unbiased estimator, its law moving with the allocation, and affine payoffs."""
    env, _ = random_environment(4, affine=True, **PRIVATE[name])
    estimator = random_unbiased(np.random.default_rng(1), env)
    np.testing.assert_allclose(estimator.bias(env), 0, atol=1e-12)
    audit = st.data_driven_vcg(env, estimator, groves).audit()
    assert audit.epsilon <= audit.tolerance


def test_theorem_1_needs_affine_payoffs():
    """After Theorem 1: by Jensen's inequality it does not extend beyond affine payoffs."""
    found = []
    for seed in range(4):
        env, _ = random_environment(seed, affine=False)
        unbiased = random_unbiased(np.random.default_rng(1), env)
        found.append(st.data_driven_vcg(env, unbiased).audit().epsilon)
    assert max(found) > 0.01


def test_theorem_1_slip_arbitrary_groves_term():
    """Theorem 1 says any integrable h_i: false if the estimator's law moves with the allocation.

    h = omega_hat^2 on an unbiased estimator that is noisy at one allocation only: its mean is
    omega^2 + variance, and the agent can choose the variance. Affine h (the pivot's) is immune.
    """
    states = TasteGrid([[0.25], [0.75]], [0.5, 0.5])
    env = st.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] * x[i],
        np.eye(2), states, theta=[[1.0, 3.0], [2.0, 2.0]],
    )  # fmt: skip
    points, spread = np.array([[0.25], [0.75], [-0.75], [1.25], [1.75]]), np.zeros((2, 2, 5))
    spread[0, [0, 1], [0, 1]] = 1.0
    spread[1, 0, [2, 3]] = spread[1, 1, [0, 3]] = 0.5
    spread[1, 1] = [0.5, 0, 0, 0.5, 0]
    estimator = st.Estimator(points, spread)
    np.testing.assert_allclose(estimator.bias(env), 0, atol=1e-15)
    assert st.data_driven_vcg(env, estimator, "pivot").audit().epsilon <= EXACT
    steep = 100 * points[:, 0] ** 2
    tables = [steep.reshape(1, 1, -1), np.zeros((1, 1, 5))]
    audit = st.data_driven_vcg(env, estimator, tables).audit()
    variance = np.array([[1.0, 0.25]]) @ [0.5, 0.5]  # E of the noise's variance at allocation 1
    lost = 0.5 * (3.0 - 2.0)  # surplus given up by handing the item to the other
    assert audit.incentive_gain[0] == pytest.approx(100 * variance[0] - lost, abs=EXACT)


def test_lemma_1_slip_the_pivot_may_exceed_the_bound():
    """Lemma 1 bounds "every data-driven VCG mechanism", but leaves h_i out of its error.

    Click rates omega_i by agent (footnote 4), and data that show the rate of the winner only,
    saying 0 for the other. Payoffs at the allocation implemented are credited without error, so
    the bound is 0 and h = 0 is exact; the pivot charges the winner theta_j times 0, and the loser
    of value 1 gains her E[omega_1] by claiming 3.
    """
    rates = np.array([[0.2, 0.6], [0.7, 0.4]])
    env = st.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[i] * x[i],
        np.eye(2), TasteGrid(rates, [0.5, 0.5]), [[1.0, 3.0], [2.0, 2.0]],
    )  # fmt: skip
    points = np.concatenate([rates * row for row in np.eye(2)])
    data = st.Estimator(points, np.eye(4).reshape(2, 2, 4))
    bounds = st.epsilon_bounds(env, data)
    np.testing.assert_allclose(bounds.lemma1, 0, atol=1e-15)
    exact = st.data_driven_vcg(env, data).audit()
    assert exact.epsilon <= exact.tolerance
    pivot = st.data_driven_vcg(env, data, "pivot").audit()
    assert pivot.incentive_gain[0] == pytest.approx(1.0 * rates[:, 0].mean(), abs=EXACT)


def test_definition_7_slip_private_priors():
    """Section 4.4 says the results extend to Definition 7; data-driven VCG does not.

    Agent 1 weighs agent 2's ideal-data payoff with her *own* prior, the efficient rule (15) with
    agent 2's. Allocation 1 costs agent 1 theta_1 = 0.3 and gives agent 2 omega; agent 2 expects
    0.8, so it is efficient; agent 1 expects 0.2, so she says it costs her 1, and gains 0.1.
    """

    def env(theta, believed):
        return st.StaticEnvironment(
            lambda i, x, omega, t: x[0] * (-t if i == 0 else omega[0]),
            [[0.0], [1.0]], TasteGrid([[0.0], [1.0]], [0.5, 0.5]), theta,
            priors=[[[1 - believed, believed]], [[0.2, 0.8]]],
        )  # fmt: skip

    theta = [[0.3, 1.0], [0.0, 0.0]]
    audit = st.data_driven_vcg(env(theta, 0.2)).audit()
    assert audit.incentive_gain[0] == pytest.approx(0.3 - 0.2, abs=EXACT)
    assert "value 1.0 instead of 0.3" in audit.witness[0].sentence()
    same = st.data_driven_vcg(env(theta, 0.8)).audit()
    assert same.epsilon <= same.tolerance


def test_definition_7_holds_where_others_payoffs_need_no_beliefs():
    """Definition 7: with private priors, VCG is exact if what i pays for does not involve omega."""
    rng = np.random.default_rng(5)
    worth, noise = rng.normal(size=(3, 2)), rng.dirichlet(np.ones(2), size=(2, 3))
    own = rng.dirichlet(np.ones(3), size=(2, 3))
    env = st.StaticEnvironment(
        lambda i, x, omega, t: x @ worth[:, i] * t + (x[0] * omega[0] if i == 0 else 0.0),
        np.eye(3), TasteGrid([[-1.0], [0.0], [2.0]], [0.2, 0.3, 0.5]), [[1.0, 2.0], [0.5, 1.5]],
        st.PrivateSignals.independent([noise[0], noise[1]]), own,
    )  # fmt: skip
    audit = st.data_driven_vcg(env).audit()
    assert audit.incentive_gain[0] <= audit.tolerance


@pytest.mark.parametrize("winner_pays", ["prior", "others' signals"])
def test_example_4_message_driven_second_price_fails(winner_pays):
    """Example 4: pay max theta_j E[omega], or with E[omega | s_-i]; the winner may regret it."""
    env, rates = click_auction(), np.array([0.1, 0.7])
    allocation = env.efficient_allocation()
    transfers, expected = [], np.zeros(2)
    for i in range(2):
        values = [VALUES[j][env.types[j].theta] for j in range(2)]
        own, rival = (values[0][:, None], values[1][None])[:: 1 if i == 0 else -1]
        guess = np.array([0.6, 0.4]) @ rates
        if winner_pays != "prior":
            guess = env.posterior(1 - i, without=i) @ rates
        transfers.append(np.where(allocation == i, rival * guess, 0.0)[..., None])
        # Won at a loss, she would rather lose; lost at a profit, rather win; if a report does it.
        worth = own * (env.posterior(i) @ rates) - rival * guess
        wins = allocation == i
        can = np.where(wins, VALUES[i].min() < rival, VALUES[i].max() > rival)
        expected[i] = (np.maximum(np.where(wins, -worth, worth), 0) * can).max()
    audit = st.DirectMechanism(env, allocation, transfers).audit()
    np.testing.assert_allclose(audit.incentive_gain, expected, atol=EXACT)
    assert audit.epsilon > 0.05


def test_example_4_pivot_is_a_per_click_second_price_auction():
    """Example 4 and (5): the winner pays max theta_j times the click frequency; exact by Theorem 1.

    Remark 2: participation and no subsidy hold for every realisation of the clicks.
    """
    env = click_auction()
    clicks = st.Estimator.frequency(env.states, 5)
    mechanism = st.data_driven_vcg(env, clicks, "pivot")
    share = clicks.points[:, 0]
    for cell in itertools.product(*(range(e) for e in env.shape)):
        bid = [VALUES[i][env.types[i].theta[e]] for i, e in enumerate(cell)]
        winner = int(np.argmax(bid))
        paid = np.array([mechanism.transfer[i][cell] for i in range(2)])
        np.testing.assert_allclose(paid[winner], bid[1 - winner] * share, atol=EXACT)
        np.testing.assert_allclose(paid[1 - winner], 0, atol=EXACT)
        assert (bid[winner] * share - paid[winner] >= -EXACT).all()
    cell = (4, 3)
    paid = st.realised_transfers(env, cell, clicks.points)
    np.testing.assert_allclose(paid.T, [t[cell] for t in mechanism.transfer], atol=EXACT)
    audit = mechanism.audit()
    assert audit.epsilon <= audit.tolerance
    assert np.nanmin(audit.worst_state_participation) >= -audit.tolerance
    assert np.nanmin(audit.worst_state_no_subsidy) >= -audit.tolerance


def test_example_2_information_does_not_move_the_allocation():
    """Example 2: slots are matched assortatively, whatever is known about click rates."""
    values = np.array([[1.0, 4.0], [2.0, 2.5], [0.5, 3.0]])
    orders = [np.array(p) for p in itertools.permutations(range(3))]
    slots = np.array([[order[:2] == i for i in range(3)] for order in orders], float)
    env = st.StaticEnvironment(
        lambda i, x, omega, theta: theta * (x.reshape(3, 2)[i] @ omega),
        slots.reshape(6, 6),
        TasteGrid([[0.5, 0.1], [0.9, 0.3], [0.3, 0.2]], [0.3, 0.3, 0.4]),
        values,
        st.PrivateSignals.independent([[[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]] * 3),
    )
    chosen = env.efficient_allocation()
    for cell in itertools.product(*(range(e) for e in env.shape)):
        bid = [values[i][env.types[i].theta[e]] for i, e in enumerate(cell)]
        np.testing.assert_array_equal(orders[chosen[cell]], np.argsort(bid)[::-1])
    audit = st.data_driven_vcg(env, groves="pivot").audit()
    assert audit.epsilon <= audit.tolerance


@pytest.mark.parametrize("seed", range(3))
def test_pivot_participation_and_subsidy(seed):
    """The pivot with ideal data: participation if payoffs are nonnegative; the slack is exact."""
    env = auction(
        [0.1, 0.4, 0.9], [0.2, 0.5, 0.3], np.random.default_rng(seed).uniform(0, 3, (3, 2)),
        list(np.random.default_rng(seed).dirichlet(np.ones(2), size=(3, 3))),
    )  # fmt: skip
    audit = st.data_driven_vcg(env, groves="pivot").audit()
    assert np.nanmin(audit.participation) >= -audit.tolerance
    surplus = sum(env.expected_payoff(i) for i in range(3))
    for i in range(3):
        chosen = np.broadcast_to(env.efficient_allocation(without=i), env.shape)[..., None]
        others = sum(env.expected_payoff(j) for j in range(3) if j != i)
        alone = np.take_along_axis(others, chosen, axis=-1)[..., 0]
        np.testing.assert_allclose(audit.participation[i], surplus.max(axis=-1) - alone, atol=EXACT)


def test_equation_14_leave_one_out():
    """(14): settled on the others' data, truth is optimal; in the second stage by indifference."""
    env = auction(
        [0.2, 0.7], [0.5, 0.5], [[1.0, 2.0], [1.2, 1.8], [0.9, 2.2]], [SHARP, BLUNT, SHARP]
    )
    own = [st.Estimator.frequency(env.states, k) for k in (2, 3, 1)]
    rest = st.Estimator.leave_one_out(own)
    for i, estimator in enumerate(rest):
        np.testing.assert_allclose(estimator.bias(env), 0, atol=1e-14)
        others = [j for j in range(3) if j != i]
        points = [(a + b) / 2 for a in own[others[0]].points for b in own[others[1]].points]
        np.testing.assert_allclose(estimator.points, points)  # free of what i observed
    for groves in (dm.groves.Zero(), "pivot"):
        audit = st.data_driven_vcg(env, rest, groves).audit()
        assert audit.epsilon <= audit.tolerance
    # Settled on her own data too, she would misreport them: she pays less at a larger estimate.
    seller = st.realised_transfers(env, (0, 0, 0), [0.9], pivot=False)
    assert (seller <= st.realised_transfers(env, (0, 0, 0), [0.1], pivot=False)).all()


def test_section_4_4_state_revealing_signals():
    """Section 4.4: together the signals reveal the state, yet transfers must not rely on them."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    maps = [states[:, [i]].astype(int) for i in range(2)]
    env = st.StaticEnvironment(
        lambda i, x, omega, theta: theta * (0.2 + omega[0] + omega[1]) * x[i],
        np.eye(2), TasteGrid(states, [0.1, 0.2, 0.3, 0.4]), [[1.0, 2.0], [1.5, 1.6]],
        st.PrivateSignals.from_maps(maps, [1.0]),
    )  # fmt: skip
    belief = env.posterior(0)
    assert ((belief == 0) | (belief == 1)).all()
    for groves in (dm.groves.Zero(), "pivot", "informed"):
        assert st.message_vcg(env, groves).audit().epsilon > 0.1
    noisy = random_unbiased(np.random.default_rng(0), env)
    for data in (st.IdealData(), noisy):
        audit = st.data_driven_vcg(env, data, "pivot").audit()
        assert audit.epsilon <= audit.tolerance


def test_profiles_that_cannot_occur_are_left_out():
    """Zero-probability profiles are NaN, whatever is reported at them."""
    maps = [np.array([[0, 1], [1, 0]])] * 2
    env = auction([0.2, 0.8], [0.5, 0.5], [[1.0], [2.0]])
    env = st.StaticEnvironment(
        env.payoff, np.eye(2), env.states, env.theta, st.PrivateSignals.from_maps(maps, [0.3, 0.7])
    )
    audit = st.data_driven_vcg(env, groves="pivot").audit()
    np.testing.assert_array_equal(np.isnan(audit.profile_gain[0]), [[False, True], [True, False]])
    np.testing.assert_array_equal(env.possible(), [[True, False], [False, True]])
    assert audit.epsilon <= audit.tolerance
    assert "HOLD" in audit.summary()


def test_payoffs_are_traceable():
    """u_i may be differentiated in the values: d surplus / d theta_i is the rate times x_i."""
    import jax

    env = auction([0.2, 0.8], [0.5, 0.5], [[1.0], [2.0]])

    def worth(theta):
        moved = st.StaticEnvironment(env.payoff, np.eye(2), env.states, theta)
        return moved.payoff_table(0)[0, 0, 0, 1] + moved.payoff_table(1)[0, 0, 0, 1]

    slope = jax.grad(worth)(jax.numpy.array([[1.0], [2.0]]))
    np.testing.assert_allclose(slope, [[0.8], [0.0]])
