"""Click rates that depend on the agent (paper D, end of section 5.1; footnotes 20 and 21)."""

import itertools

import numpy as np
import pytest

from dynmech import TasteGrid
from dynmech import static as st

LEVELS = np.array([0.2, 0.5, 1.0])
PAIRS = np.array(list(itertools.product(LEVELS, LEVELS)))
STATES = TasteGrid(PAIRS, np.full(9, 1 / 9))
KNOWN = st.PrivateSignals.independent([(PAIRS[:, i, None] == LEVELS) * 1.0 for i in (0, 1)])
THETA = [0.3, 0.6, 1.0]
AUCTION = st.AgentClickAuction(STATES, [THETA, THETA], 1, KNOWN)


def labels(env, agent, type_):
    own = env.types[agent]
    return THETA[own.theta[type_]], LEVELS[own.signal[type_]]


def wins(env, first, second):
    """Whether agent 0 is shown; ties within rounding go to her, the lower index."""
    (t1, s1), (t2, s2) = labels(env, 0, first), labels(env, 1, second)
    return t1 * s1 >= t2 * s2 - 1e-12


def test_footnote_20():
    """Every report: (theta_1 - theta_2 s_2 / s'_1) 1{theta'_1 s'_1 >= theta_2 s_2} s_1."""
    env, mechanism = AUCTION.env, st.per_click_second_price(AUCTION)
    audit = mechanism.audit()
    gains = np.zeros(env.shape)
    for true, other in np.ndindex(*env.shape):
        (t1, s1), (t2, s2) = labels(env, 0, true), labels(env, 1, other)
        state = int(np.flatnonzero(((s1, s2) == PAIRS).all(axis=1))[0])
        payoff = []
        for told in range(env.shape[0]):
            said = labels(env, 0, told)[1]
            expected = (t1 - t2 * s2 / said) * wins(env, told, other) * s1
            assert (mechanism.allocation[told, other] == 0) == wins(env, told, other)
            shown = mechanism.allocation[told, other] == 0
            found = t1 * s1 * shown - mechanism.expected_transfer(0)[told, other, state]
            assert found == pytest.approx(expected, abs=1e-12)
            payoff.append(expected)
        gains[true, other] = max(payoff) - payoff[true]
    np.testing.assert_allclose(audit.profile_gain[0], gains, atol=1e-9)
    # theta_1 s_1 < theta_2 s_2 and theta_1 > theta_2: claiming s'_1 = 1 wins at a profit.
    assert audit.epsilon > 0.1
    assert any("signal 2 instead of" in lie for lie in audit.witness[0].lies)


def test_per_click_second_price_in_expectation():
    """max_j theta_j x_i E[omega_j | s'] / E[omega_i | s'] M E[omega_i | s], three agents."""
    rng = np.random.default_rng(0)
    rates = TasteGrid(rng.random((5, 3)), np.full(5, 0.2))
    signals = st.sampled_clicks(rates, [0, 1, 2], 1, [1])
    theta = rng.random((3, 2)) + 0.5
    auction = st.AgentClickAuction(rates, theta, 4, signals)
    env, mechanism = auction.env, st.per_click_second_price(auction)
    mean = np.stack([env.posterior(0) @ np.asarray(rates.points)[:, i] for i in range(3)], axis=-1)
    value = [theta[i, env.types[i].theta] for i in range(3)]
    for told, true in itertools.product(np.ndindex(*env.shape), repeat=2):
        if sum(a != b for a, b in zip(told, true)) > 1:
            continue
        belief = env.posterior(0)[true]
        score = [value[j][told[j]] * mean[told][j] for j in range(3)]
        for i in range(3):
            if any(a != b for j, (a, b) in enumerate(zip(told, true)) if j != i):
                continue
            best = max(score[j] for j in range(3) if j != i)
            shown = float(score[i] > best)
            expected = shown * best / mean[told][i] * 4 * mean[true][i]
            found = belief @ mechanism.expected_transfer(i)[told]
            assert found == pytest.approx(expected, abs=1e-9)


def test_equation_19():
    """-E p_i = M sum_j theta_j E[omega_j | s] (x_j*(xi') - x_j*(xi_-i)), and truth is optimal."""
    env = AUCTION.env
    mechanism = st.data_driven_vcg(env, groves="pivot")
    for first, second in np.ndindex(*env.shape):
        expected = 0.0 if not wins(env, first, second) else labels(env, 1, second)[0]
        np.testing.assert_allclose(
            mechanism.expected_transfer(0)[first, second], expected * PAIRS[:, 1], atol=1e-12
        )
    assert mechanism.audit().epsilon <= 1e-9
    counted = st.data_driven_vcg(env, st.click_frequency(STATES, 3), "pivot").audit()
    assert counted.epsilon <= 1e-9
    shrunk = st.Estimator.posterior_mean(STATES, st.click_frequency(STATES, 1).kernel)
    assert st.data_driven_vcg(env, shrunk, "pivot").audit().epsilon > 0.05


def test_the_rival_must_be_chosen_at_the_others_reports():
    """The sentence after (19) lets i's report pick the rival she pays for: she picks a cheap one.

    omega_1 is 0.6 or 0.2, known to agent 0 alone; omega_2 = 0.3; all values 1 but theta_0 = 1.5.
    At 0.6 she pays 0.6, but 0.3 if she reports 0.2. By (19) the rival is 1 either way, E = 0.4;
    then news that helps the others is paid for, 0.3 - 0.2, so no subsidy fails.
    """
    from experiments._click_items import equation_19

    frame, sentence = equation_19()
    assert frame["largest gain [money]"].tolist() == pytest.approx([0, 0.3], abs=1e-12)
    assert frame["no subsidy, expected [money]"].tolist() == pytest.approx([-0.1, 0], abs=1e-12)
    assert "signal 1 instead of 0" in sentence


@pytest.mark.parametrize("chance", [0.3, 0.5, 0.9])
def test_footnote_21(chance):
    """Exact at 2 p theta_j / (1 - p) a click on the other's ad; as printed, 1 / p too much.

    Gain of losing: theta_j omega_j - p theta_i omega_i, where i should win.
    """
    env = AUCTION.lottery(chance).env
    pivot = st.click_lottery(AUCTION, chance)
    audit = pivot.audit()
    assert audit.epsilon <= 1e-9
    assert np.nanmin(audit.participation) >= -1e-12
    assert np.nanmin(audit.no_subsidy) >= -1e-12
    for first, second in np.ndindex(*env.shape):
        price = 2 * chance * labels(env, 1, second)[0] / (1 - chance)
        table = pivot.transfer[0][first, second]
        law = pivot.law[0][pivot.allocation[first, second]]
        if not wins(env, first, second):
            assert np.abs(table).max() < 1e-12
            continue
        # Outcomes that can occur: a click on the other's ad costs the price, all else nothing.
        owed = np.unique(table[law.max(axis=0) > 0].round(9))
        np.testing.assert_allclose(owed, [0, price], atol=1e-9)
        seen = law[:, np.isclose(table, price)].sum(axis=1)
        np.testing.assert_allclose(seen, (1 - chance) / 2 * PAIRS[:, 1], atol=1e-12)
    printed = st.click_lottery(AUCTION, chance, "printed").audit()
    gain = np.zeros(env.shape)
    for cell in np.ndindex(*env.shape):
        mine, other = (t * s for t, s in (labels(env, i, e) for i, e in enumerate(cell)))
        gain[cell] = max(0.0, other - chance * mine) if wins(env, *cell) else 0.0
    reported = np.nanmax(printed.profile_gain[0])
    # Losing must be open to her: some report below every rival's score with theta_2 s_2 > 0.06.
    assert reported == pytest.approx(gain.max(), abs=1e-9)
    assert reported > 0.05


def test_lottery_costs_efficiency_in_proportion():
    """The inefficient item is shown with chance (1 - p)/2."""
    env = AUCTION.env
    best = worst = 0.0
    for cell in np.ndindex(*env.shape):
        scores = [t * s for t, s in (labels(env, i, e) for i, e in enumerate(cell))]
        best += max(scores) / env.shape[0] ** 2
        worst += min(scores) / env.shape[0] ** 2
    assert AUCTION.welfare() == pytest.approx(best, abs=1e-12)
    for chance in (0.2, 0.9):
        expected = (1 + chance) / 2 * best + (1 - chance) / 2 * worst
        assert AUCTION.lottery(chance).welfare() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("impressions", [1, 3])
def test_inverse_propensity_is_unbiased(impressions):
    chances = np.array([[0.7, 0.1, 0.2], [0.05, 0.05, 0.9]])
    rates = TasteGrid([[0.2, 0.5, 0.9], [0.0, 1.0, 0.4]], [0.5, 0.5])
    data = st.inverse_propensity(rates, chances, impressions)
    points = np.asarray(rates.points)
    np.testing.assert_allclose(data.kernel.sum(axis=-1), 1, atol=1e-12)
    mean = data.kernel @ data.points
    np.testing.assert_allclose(mean, np.broadcast_to(points, mean.shape), atol=1e-12)
    second = points * (1 - points) / impressions + points**2
    expected = second / chances[:, None] - points**2
    np.testing.assert_allclose(data.kernel @ data.points**2 - mean**2, expected, atol=1e-9)


def test_three_agents_and_more_impressions():
    rates = TasteGrid([[0.2, 0.5, 0.4], [0.6, 0.1, 0.4]], [0.5, 0.5])
    signals = st.sampled_clicks(rates, [0, 1, 2], 2, [1])
    auction = st.AgentClickAuction(rates, [[0.0, 1.0], [0.5, 1.5], [1.0, 0.8]], 3, signals)
    assert st.click_lottery(auction, 0.8).audit().epsilon <= 1e-9
    assert st.per_click_second_price(auction).audit().epsilon > 0.01
    # A value of zero wins only ties at zero, and then pays nothing.
    idle = st.AgentClickAuction(TasteGrid([[0.0, 0.0]], [1.0]), [[1.0], [1.0]], 2)
    audit = st.per_click_second_price(idle).audit()
    assert audit.epsilon == 0
    assert np.abs(audit.no_subsidy).max() == 0
