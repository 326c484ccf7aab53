"""Auctions of slots (paper D, section 5.1): (16), Proposition 2, Remark 2, against brute force."""

import itertools

import numpy as np
import pytest

from dynmech import TasteGrid
from dynmech import static as st

RATES = TasteGrid([[0.3, 0.1], [0.5, 0.4], [0.9, 0.6]], [0.3, 0.5, 0.2])
VALUES = [[0.0, 1.1, 2.0], [0.4, 1.2, 2.1], [0.6, 1.3, 1.9]]
SAMPLE = st.sampled_clicks(RATES, [0, 1, 1], 2, [1])
AUCTION = st.ClickAuction(RATES, VALUES, 2, SAMPLE)
CLICKS = st.click_frequency(RATES, 2)


def posterior(env, profile):
    """Beliefs given the signals of a profile of types, by Bayes' rule written out."""
    table = env.signals.table
    types = [(own.structure[e], own.signal[e]) for own, e in zip(env.types, profile)]
    structures, signals = zip(*types)
    weights = np.array(
        [w * table[(m, *structures, *signals)] for m, w in enumerate(env.states.weights)]
    )
    return weights / weights.sum()


def ranking(auction, profile):
    env = auction.env
    theta = [np.asarray(env.theta)[i, env.types[i].theta[e]] for i, e in enumerate(profile)]
    return theta, sorted(range(len(theta)), key=lambda i: -theta[i])


def vcg(theta, rates, agent):
    """What the others get with the agent less what they get without, over all assignments."""

    def best(allowed):
        return max(
            sum(theta[i] * w for i, w in zip(seats, rates) if i in allowed)
            for seats in itertools.permutations(range(len(theta)), len(rates))
        )

    order = sorted(range(len(theta)), key=lambda i: -theta[i])
    here = sum(theta[i] * w for i, w in zip(order, rates) if i != agent)
    return here - best([i for i in range(len(theta)) if i != agent])


def paid(rule, theta, order, clicks, agent):
    """Payment of an agent for counted clicks, by the paper's formula."""
    rank, slots = order.index(agent), len(clicks)
    if rank >= slots:
        return 0.0
    following = [theta[order[k + 1]] if k + 1 < len(order) else 0.0 for k in range(slots)]
    if rule == "gsp":
        return clicks[rank] * following[rank]
    below = [*clicks, 0.0]
    return sum((below[k] - below[k + 1]) * following[k] for k in range(rank, slots))


def brute_gain(auction, rule, impressions):
    """Largest gain by enumeration of profiles, reports, states and clicks of every slot."""
    env, points = auction.env, np.asarray(auction.rates.points)
    counts = list(itertools.product(range(impressions + 1), repeat=auction.slots))
    choose = [1, 2, 1] if impressions == 2 else [1] * (impressions + 1)
    law = np.array(
        [
            [
                np.prod([choose[c] * w**c * (1 - w) ** (impressions - c) for c, w in zip(row, p)])
                for row in counts
            ]
            for p in points
        ]
    )
    gains = np.zeros(env.agents)
    for profile in np.ndindex(*env.shape):
        belief = posterior(env, profile)
        for i in range(env.agents):
            value = ranking(auction, profile)[0][i]
            payoff = np.zeros(env.shape[i])
            for told in range(env.shape[i]):
                lied = tuple(told if j == i else e for j, e in enumerate(profile))
                theta, order = ranking(auction, lied)
                own = order.index(i)
                for m, row in itertools.product(range(len(points)), range(len(counts))):
                    clicks = counts[row]
                    earned = value * clicks[own] if own < auction.slots else 0.0
                    net = earned - paid(rule, theta, order, clicks, i)
                    payoff[told] += belief[m] * law[m, row] * net
            gains[i] = max(gains[i], payoff.max() - payoff[profile[i]])
    return gains


def test_prices_are_formula_16_and_the_externality():
    rng = np.random.default_rng(3)
    for n, slots in ((4, 3), (3, 3), (5, 1), (4, 2)):
        theta, rates = rng.random(n) * 5, np.sort(rng.random(slots))[::-1]
        prices = st.click_prices(theta, slots)
        order = sorted(range(n), key=lambda i: -theta[i])
        second = st.click_prices(theta, slots, "generalised second price")
        for i in range(n):
            charge = prices[i] @ rates
            assert charge == pytest.approx(paid("pivot", theta, order, rates, i), abs=1e-12)
            assert -charge == pytest.approx(vcg(theta, rates, i), abs=1e-12)
            assert second[i] @ rates == pytest.approx(paid("gsp", theta, order, rates, i))


def test_prices_broadcast_and_break_ties_by_index():
    theta = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    both = st.click_prices(theta, 2)
    for k in (0, 1):
        np.testing.assert_array_equal(both[k], st.click_prices(theta[k], 2))
    np.testing.assert_array_equal(both[0], [[0, 0], [3, -2], [0, 1]])


def test_payoffs_are_clicks_times_value():
    """The gross payoff is M theta_i sum_k x_ik omega_k; Definition 9 sums over m once more."""
    table = AUCTION.env.payoff_by_type(1)
    points = np.asarray(RATES.points)
    for a, seats in enumerate(AUCTION.seats):
        for e, v in enumerate(AUCTION.env.types[1].theta):
            rate = points[:, seats.tolist().index(1)] if 1 in seats else 0.0
            np.testing.assert_allclose(table[0, e, 0, a], 2 * VALUES[1][v] * rate, atol=1e-12)


def test_assortative_is_efficient_at_every_belief():
    env = AUCTION.env
    total = sum(env.expected_payoff(i) for i in range(3))
    chosen = np.take_along_axis(total, AUCTION.assortative()[..., None], -1)[..., 0]
    np.testing.assert_allclose(chosen, total.max(axis=-1), atol=1e-12)


def test_pivot_is_data_driven_vcg():
    """(16) is (3) with (4): the same transfers at every click count, values being distinct."""
    mechanism = st.click_pivot(AUCTION, CLICKS)
    general = st.data_driven_vcg(AUCTION.env, CLICKS, "pivot")
    np.testing.assert_array_equal(mechanism.allocation, general.allocation)
    for mine, other in zip(mechanism.transfer, general.transfer):
        np.testing.assert_allclose(mine, other, atol=1e-12)


@pytest.mark.parametrize(("rule", "build"), [
    ("pivot", st.click_pivot), ("gsp", st.generalised_second_price),
])  # fmt: skip
def test_audit_agrees_with_enumeration(rule, build):
    audit = build(AUCTION, CLICKS).audit()
    np.testing.assert_allclose(audit.incentive_gain, brute_gain(AUCTION, rule, 2), atol=1e-9)
    assert (audit.epsilon <= 1e-9) == (rule == "pivot")


@pytest.mark.parametrize("data", [None, CLICKS, st.click_frequency(RATES, 1)])
def test_proposition_2(data):
    """Incentives, participation, no subsidy in every state; footnote 19: one click will do."""
    mechanism = st.click_pivot(AUCTION, data)
    audit = mechanism.audit()
    assert audit.epsilon <= 1e-9
    assert audit.worst_state_participation.min() >= -1e-12
    assert audit.worst_state_no_subsidy.min() >= -1e-12
    points = np.asarray(RATES.points)
    for profile in [(1, 3, 5), (5, 0, 2), (0, 1, 4)]:
        theta, order = ranking(AUCTION, profile)
        for i in range(3):
            expected = [2 * paid("pivot", theta, order, rates, i) for rates in points]
            np.testing.assert_allclose(
                mechanism.expected_transfer(i)[profile], expected, atol=1e-12
            )


def test_generalised_second_price_textbook_gain():
    """Values 10, 4, 2; 200 and 199 clicks: 1200 under truth, 8 * 199 = 1592 by bidding 3."""
    rates = TasteGrid([[0.2, 0.199]], [1.0])
    auction = st.ClickAuction(rates, [[10.0, 3.0], [4.0, 4.0], [2.0, 2.0]], 1000)
    audit = st.generalised_second_price(auction).audit()
    assert audit.profile_gain[0, 0, 0, 0] == pytest.approx(392, abs=1e-9)
    assert st.click_pivot(auction).audit().epsilon <= 1e-9


@pytest.mark.parametrize("information", ["prior", "others", "reported"])
def test_payments_per_impression_fail(information):
    """Example 4: whoever the expectation is taken by, some agent gains; clicks are what helps."""
    audit = st.per_impression_pivot(AUCTION, information).audit()
    assert audit.epsilon > 0.05
    assert np.nanmin(audit.worst_state_participation) < -0.05


def test_per_impression_pivot_charges_expected_clicks():
    profile = (3, 5, 1)
    theta, order = ranking(AUCTION, profile)
    points, table = np.asarray(RATES.points), SAMPLE.table[:, 0, 0, 0]
    symbols = [int(own.signal[e]) for own, e in zip(AUCTION.env.types, profile)]
    for i in range(3):
        others = table.sum(axis=1 + i)
        seen = others[(slice(None), *(s for j, s in enumerate(symbols) if j != i))]
        beliefs = {
            "prior": np.asarray(RATES.weights),
            "others": RATES.weights * seen / (RATES.weights * seen).sum(),
            "reported": posterior(AUCTION.env, profile),
        }
        for information, belief in beliefs.items():
            found = st.per_impression_pivot(AUCTION, information).transfer[i][profile]
            expected = 2 * paid("pivot", theta, order, belief @ points, i)
            assert found[0] == pytest.approx(expected, abs=1e-12)


def test_remark_2_holds_for_one_slot_only():
    """With two slots the lower one may be clicked more often by chance: then (16) pays."""
    one = TasteGrid(np.asarray(RATES.points)[:, :1], RATES.weights)
    auction, clicks = st.ClickAuction(one, VALUES, 5), st.click_frequency(one, 5)
    found = st.realised_slack(auction, st.click_pivot(auction, clicks), clicks)
    assert found.participation.min() >= -1e-12
    assert found.no_subsidy.min() >= -1e-12
    assert max(found.shortfall.max(), found.subsidy.max()) == 0
    values = [[3.0], [2.0], [1.0]]
    auction = st.ClickAuction(RATES, values, 2)
    found = st.realised_slack(auction, st.click_pivot(auction, CLICKS), CLICKS)
    # The first pays 2 (c_1 - c_2) + c_2, negative iff c_2 > 2 c_1: c_1 = 0 < c_2.
    points = np.asarray(RATES.points)
    chance = ((1 - points[:, 0]) ** 2 * (1 - (1 - points[:, 1]) ** 2)).max()
    assert found.subsidy[0] == pytest.approx(chance, abs=1e-12)
    assert found.no_subsidy[0] == pytest.approx(-2, abs=1e-12)
    assert found.participation.min() >= -1e-12
    assert (found.shortfall == 0).all()


def test_single_slot_is_a_second_price_per_click():
    one = TasteGrid(np.asarray(RATES.points)[:, :1], RATES.weights)
    auction = st.ClickAuction(one, VALUES, 3, st.sampled_clicks(one, [0, 0, 0], 2, [1]))
    clicks = st.click_frequency(one, 3)
    pivot, gsp = st.click_pivot(auction, clicks), st.generalised_second_price(auction, clicks)
    same = st.AgentClickAuction(
        TasteGrid(np.repeat(one.points, 3, axis=1), one.weights),
        VALUES, 3, auction.env.signals,
    )  # fmt: skip
    scored = st.per_click_second_price(same)
    for profile in np.ndindex(*auction.env.shape):
        theta, order = ranking(auction, profile)
        price = theta[order[1]]
        for i in range(3):
            owed = price * np.arange(4) if i == order[0] else np.zeros(4)
            for mechanism in (pivot, gsp, scored):
                np.testing.assert_allclose(mechanism.transfer[i][profile], owed, atol=1e-12)
    assert scored.audit().epsilon <= 1e-9


def test_no_agent_is_left_without_a_slot():
    """n = K: the last slot is free, theta_{n+1} = 0."""
    auction = st.ClickAuction(RATES, [[1.0, 2.0], [1.5, 2.5]], 1)
    audit = st.click_pivot(auction).audit()
    assert audit.epsilon <= 1e-9
    np.testing.assert_allclose(st.click_prices([1.0, 2.0], 2), [[0, 0], [1, -1]])
    alone = st.ClickAuction(TasteGrid([[0.5]], [1.0]), [[1.0, 2.0]])
    for information in ("prior", "others", "reported"):
        assert st.per_impression_pivot(alone, information).audit().epsilon == 0


def test_click_frequency_is_unbiased():
    np.testing.assert_allclose(CLICKS.kernel @ CLICKS.points, RATES.points, atol=1e-12)
    square = CLICKS.kernel @ CLICKS.points**2 - np.asarray(RATES.points) ** 2
    rates = np.asarray(RATES.points)
    np.testing.assert_allclose(square, rates * (1 - rates) / 2, atol=1e-12)


def test_samples_have_binomial_laws():
    from scipy.stats import binom

    signals = st.sampled_clicks(RATES, [1, 0], 7, [2, 4])
    rates = np.asarray(RATES.points)
    first = signals.table[:, 0, 0].sum(axis=2)
    expected = np.diff(binom.cdf([-1, 1, 3, 7], 7, rates[:, 1, None]), axis=1)
    np.testing.assert_allclose(first, expected, atol=1e-12)
    second = signals.table[:, 0, 0].sum(axis=1)
    expected = np.diff(binom.cdf([-1, 1, 3, 7], 7, rates[:, 0, None]), axis=1)
    np.testing.assert_allclose(second, expected, atol=1e-12)
    np.testing.assert_allclose(
        signals.table[:, 0, 0], first[:, :, None] * second[:, None], atol=1e-12
    )
