"""Procurement with a consumer spot market: section 5.3, (20) and Corollary 1."""

import itertools
import sys

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from dynmech import DynmechError, MissingExtra, TasteGrid
from dynmech import static as st

EXACT = 1e-9
BENEFITS = np.array([10.0, 9.0, 9.5])
SHOCKS = np.array([-1.0, 0.5, 2.0])
PRIOR = np.array([0.3, 0.4, 0.3])
EXPOSED = np.array([1.0, 0.2, -0.5])
THETA = np.array([[4.0, 5.0], [3.0, 4.2], [4.0, 4.5]])
CLUE = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])


def market(sellers=3, theta=THETA, **changes):
    """Costs theta_i + exposure_i * omega; each seller sees one draw about omega."""
    given = {
        "benefits": BENEFITS[:sellers],
        "states": TasteGrid(SHOCKS[:, None], PRIOR),
        "theta": theta[:sellers],
        "signals": st.PrivateSignals.independent([CLUE] * sellers),
        **changes,
    }
    return st.Procurement(lambda i, t, omega: t + EXPOSED[i] * omega[0], **given)


def cost(i, t, w):
    return THETA[i, t] + EXPOSED[i] * SHOCKS[w]


def belief(signals):
    mass = PRIOR.copy()
    for z in signals:
        mass = mass * CLUE[:, z]
    return mass / mass.sum()


class ByHand:
    """Section 5.3 by loops: who wins, who is best without i, and what each is paid."""

    def __init__(self, auction):
        types = auction.env.types
        self.n = len(types)
        self.own = [list(zip(own.theta, own.signal, strict=True)) for own in types]

    def best(self, cell, without=None):
        seen = [self.own[j][e][1] for j, e in enumerate(cell) if j != without]
        mean = belief(seen)
        worth = [
            -np.inf
            if k == without
            else BENEFITS[k] - sum(mean[w] * cost(k, self.own[k][e][0], w) for w in range(3))
            for k, e in enumerate(cell)
        ]
        return int(np.argmax(worth))

    def paid(self, cell, estimates, losers=True):
        winner, paid = self.best(cell), np.zeros(self.n)
        for i in range(self.n):
            j = self.best(cell, without=i)
            if i == winner:
                paid[i] = BENEFITS[i] - BENEFITS[j] + estimates[j]
            elif losers:
                paid[i] = BENEFITS[winner] - estimates[winner] - BENEFITS[j] + estimates[j]
        return paid

    def gains(self, estimate, losers=True):
        """Largest gain of each seller; estimate(thetas, w) gives expected c_hat at true costs."""
        best = np.zeros(self.n)
        for cell in itertools.product(*(range(len(own)) for own in self.own)):
            thetas = tuple(self.own[j][e][0] for j, e in enumerate(cell))
            mean = belief([self.own[j][e][1] for j, e in enumerate(cell)])
            for i in range(self.n):
                payoff = []
                for e in range(len(self.own[i])):
                    told = (*cell[:i], e, *cell[i + 1 :])
                    wins = self.best(told) == i
                    payoff.append(
                        sum(
                            mean[w]
                            * (
                                self.paid(told, estimate(thetas, w), losers)[i]
                                - wins * cost(i, thetas[i], w)
                            )
                            for w in range(3)
                        )
                    )
                best[i] = max(best[i], max(payoff) - payoff[cell[i]])
        return best


def true_costs(thetas, w):
    return np.array([cost(j, t, w) for j, t in enumerate(thetas)])


@pytest.mark.parametrize("sellers", [2, 3])
def test_pivot_transfers_equal_the_section(sellers):
    """b_i - b_j + c_hat_j to the winner, j the best of the rest by their own signals."""
    auction = market(sellers)
    hand = ByHand(auction)
    estimates = np.array([[4.1, 3.3, 4.4], [2.0, 7.0, -1.0]])[:, :sellers]
    moved = 0.0
    for cell in itertools.product(*(range(e) for e in auction.env.shape)):
        found = auction.transfers(cell, estimates)
        expected = -np.stack([hand.paid(cell, row) for row in estimates])
        np.testing.assert_allclose(found, expected, atol=EXACT)
        losers = np.arange(sellers) != hand.best(cell)
        moved = max(moved, np.abs(found[:, losers]).max())
    assert (moved > 0.1) == (sellers == 3)  # a loser is paid where her signal moves the rest


@pytest.mark.parametrize("sellers", [2, 3])
def test_true_costs_make_the_pivot_exact(sellers):
    """Proposition 1 with costs observed: data-driven VCG on `env` is the section's pivot."""
    auction = market(sellers)
    hand = ByHand(auction)
    mechanism = st.data_driven_vcg(auction.env, groves="pivot")
    for cell in itertools.product(*(range(e) for e in auction.env.shape)):
        wins = np.arange(sellers) == hand.best(cell)
        thetas = tuple(int(hand.own[j][e][0]) for j, e in enumerate(cell))
        for w in range(3):
            paid = hand.paid(cell, true_costs(thetas, w)) - wins * BENEFITS[:sellers]
            found = [-mechanism.transfer[i][(*cell, w)] for i in range(sellers)]
            np.testing.assert_allclose(found, paid, atol=EXACT)
    audit = mechanism.audit()
    assert audit.epsilon <= audit.tolerance
    np.testing.assert_allclose(hand.gains(true_costs), 0, atol=EXACT)
    bounds = auction.epsilon_bounds(0.0)
    np.testing.assert_allclose(bounds.reports, 0, atol=1e-14)


def test_input_prices_as_data():
    """Costs affine in the shock and an unbiased estimate of it: exact by Theorem 1."""
    auction = market()
    noisy = st.Estimator.gaussian(auction.env.states, 1.3)
    audit = st.data_driven_vcg(auction.env, noisy, "pivot").audit()
    assert audit.epsilon <= audit.tolerance


def test_losers_must_be_paid_too():
    """With losers unpaid, as a reading of the section would have it, three sellers lie.

    Her signal moves who is best of the others from j to k; unpaid for that, she would rather win.
    """
    auction = market()
    mechanism = st.data_driven_vcg(auction.env, groves="pivot")
    chosen = auction.env.efficient_allocation()
    winners = [np.where((chosen == i)[..., None], mechanism.transfer[i], 0.0) for i in range(3)]
    audit = st.DirectMechanism(auction.env, chosen, winners, mechanism.law).audit()
    expected = ByHand(auction).gains(true_costs, losers=False)
    np.testing.assert_allclose(audit.incentive_gain, expected, atol=EXACT)
    assert audit.epsilon > 0.1
    two = market(2)
    exact = st.data_driven_vcg(two.env, groves="pivot")
    np.testing.assert_allclose(
        np.where((two.env.efficient_allocation() == 1)[..., None], exact.transfer[0], 0), 0
    )


def test_corollary_1_epsilon_equals_brute_force():
    """Definition 6 for estimates whose error moves with all true costs, by loops; the bounds."""
    auction, rng = market(), np.random.default_rng(1)
    errors = rng.normal(size=(2, 2, 2, 3, 3)) * 0.6
    found = auction.epsilon_bounds(errors, np.abs(errors) + 0.2)
    expected = ByHand(auction).gains(lambda th, w: true_costs(th, w) + errors[(*th, w)])
    np.testing.assert_allclose(found.reports, expected, atol=EXACT)
    assert expected.max() > 0.1
    chain = [
        found.reports, found.any_allocation, found.lemma1, found.lemma2_posterior,
        found.lemma2_state,
    ]  # fmt: skip
    for lower, upper in itertools.pairwise(chain):
        assert (lower <= upper + EXACT).all()


DEMANDS = {
    "outside": st.LogitDemand(0.4, [4.0, 3.0, 1.0, 2.0]),
    "no outside": st.LogitDemand(1.4, [0.0, 0.1, 1.1, -1.4], outside=False),
    "one firm": st.LogitDemand(0.4, [4.0]),
    "dear": st.LogitDemand(0.03, [2.0, -1.0, 3.0]),
}


@pytest.mark.parametrize("name", DEMANDS)
def test_spot_equilibrium_is_one(name):
    """First-order conditions to 1e-9, and no firm gains by another price: two other routes."""
    demand = DEMANDS[name]
    n, alpha = len(demand.quality), float(demand.alpha)
    costs = np.random.default_rng(0).uniform(0.5, 3.0, (5, n)) / alpha
    found = st.spot_equilibrium(demand, costs)
    assert found.residual <= 1e-9 * max(1 / alpha, found.prices.max())
    step = 1e-5 / alpha
    for row, cost_row in zip(found.prices, costs, strict=True):
        for j in range(n):
            bump = step * np.eye(n)[j]
            slope = (demand.shares(row + bump)[j] - demand.shares(row - bump)[j]) / (2 * step)
            share = demand.shares(row)[j]
            assert slope * (row[j] - cost_row[j]) + share == pytest.approx(0, abs=1e-8)

            def profit(price, j=j, row=row, cost_row=cost_row):
                moved = np.where(np.arange(n) == j, price, row)
                return -demand.shares(moved)[j] * (price - cost_row[j])

            best = minimize_scalar(profit, bounds=(cost_row[j], cost_row[j] + 60 / alpha))
            assert profit(row[j]) <= best.fun + 1e-9 / alpha
    np.testing.assert_allclose(st.recover_costs(found.prices, demand), costs, rtol=0, atol=1e-7)


def test_equation_20_inverts_the_equilibrium():
    """(20) returns the costs that the prices were solved from; a wrong alpha shifts them."""
    demand, costs = DEMANDS["outside"], np.array([3.0, 2.0, 1.5, 4.0])
    found = st.spot_equilibrium(demand, costs)
    back = st.recover_costs(found.prices, demand)
    np.testing.assert_allclose(back, costs, atol=EXACT)
    np.testing.assert_allclose(
        st.recover_costs(found.prices, demand, shares=found.shares), costs, atol=EXACT
    )
    flat = st.LogitDemand(0.2, demand.quality)
    by_hand = found.prices - 1 / (0.2 * (1 - flat.shares(found.prices)))
    np.testing.assert_allclose(st.recover_costs(found.prices, flat), by_hand, atol=EXACT)
    assert (by_hand < costs - 1).all()


def test_symmetric_duopoly_in_closed_form():
    """Two equal firms, no outside option: s = 1/2, so p = c + 2 / alpha."""
    found = st.spot_equilibrium(st.LogitDemand(0.5, [1.0, 1.0], outside=False), [3.0, 3.0])
    np.testing.assert_allclose(found.prices, 7.0, atol=EXACT)


def test_extreme_markets_are_solved():
    """Near monopolies, hopeless firms, and money in any unit."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, alpha = int(rng.integers(2, 7)), 10 ** rng.uniform(-3, 2)
        quality = rng.normal(size=n) * 10 ** rng.uniform(-1, 1.3)
        costs = rng.normal(size=n) * 10 ** rng.uniform(-2, 2) / alpha
        demand = st.LogitDemand(alpha, quality, outside=bool(rng.integers(2)))
        found = st.spot_equilibrium(demand, costs)
        assert found.residual * alpha <= 1e-9 * max(1, alpha * np.abs(found.prices).max())


def test_inversion_of_shares():
    """Berry's inversion: the demand returned has the shares given, at the prices given."""
    prices, shares = np.array([2.0, 5.0, 3.0]), np.array([0.2, 0.1, 0.4])
    np.testing.assert_allclose(
        st.LogitDemand.from_shares(0.7, prices, shares).shares(prices), shares, atol=1e-12
    )
    whole = shares / shares.sum()
    closed = st.LogitDemand.from_shares(0.7, prices, whole, outside=False)
    np.testing.assert_allclose(closed.shares(prices), whole, atol=1e-12)


def sample(demand, rng, consumers, situations=20):
    n = len(demand.quality)
    prices = rng.uniform(3, 12, (situations, n))
    parts = demand.shares(prices)
    if demand.outside:
        parts = np.column_stack([parts, 1 - parts.sum(axis=1)])
    counts = np.stack([rng.multinomial(consumers // situations, p / p.sum()) for p in parts])
    return prices, counts


@pytest.mark.parametrize("outside", [True, False])
def test_demand_estimates_are_within_their_standard_errors(outside):
    """Maximum likelihood on simulated choices: the score is zero, and z below 4."""
    demand = st.LogitDemand(0.4, [0.0, 3.0, 1.0, 2.0], outside)
    prices, counts = sample(demand, np.random.default_rng(0), 40_000)
    found = st.estimate_logit(prices, counts, outside=outside)
    truth = np.append(-0.4, demand.quality if outside else demand.quality[1:])
    z = (np.append(-found.demand.alpha, found.beta) - truth) / found.deviation
    assert (np.abs(z) < 4).all()
    assert (found.deviation < 0.1).all()
    seen = counts[:, :4].sum(axis=0) / counts.sum()
    np.testing.assert_allclose(found.shares, seen, atol=EXACT)  # the score of the intercepts
    if not outside:
        dummies = np.broadcast_to(np.eye(4)[:, 1:], (20, 4, 3))
        again = st.estimate_logit(prices, counts, dummies, outside=False)
        np.testing.assert_allclose(again.beta, found.beta, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_demand_estimates_do_not_depend_on_the_unit_of_money(unit):
    prices, counts = sample(DEMANDS["outside"], np.random.default_rng(1), 10_000)
    found, other = (st.estimate_logit(p, counts) for p in (prices, unit * prices))
    assert other.demand.alpha * unit == pytest.approx(float(found.demand.alpha), rel=1e-6)
    np.testing.assert_allclose(other.demand.quality, found.demand.quality, atol=1e-6)
    np.testing.assert_allclose(other.deviation[0] * unit, found.deviation[0], rtol=1e-4)


def test_cost_estimates_are_consistent():
    """After (20): c_hat -> c; 256 times the sample, a sixteenth of the error."""
    demand, costs = DEMANDS["outside"], np.array([3.0, 2.0, 1.5, 4.0])
    spot = st.spot_equilibrium(demand, costs).prices
    rng, wrong = np.random.default_rng(3), []
    for consumers in (1_000, 256_000):
        found = [
            st.recover_costs(spot, st.estimate_logit(*sample(demand, rng, consumers)).demand)
            for _ in range(12)
        ]
        wrong.append(np.sqrt(np.mean((np.stack(found) - costs) ** 2)))
    assert 8 < wrong[0] / wrong[1] < 32


GOOD = ([[1.0, 2.0], [2.0, 1.0], [1.5, 1.0]], [[3, 1, 4], [1, 3, 4], [2, 4, 3]])
TWO = st.LogitDemand(0.5, [1.0, 1.0])
PAIR = st.LogitDemand(0.5, [1.0, 1.0], outside=False)
MISTAKES = {
    "LogitDemand.alpha=.*positive price coefficient": lambda: st.LogitDemand(-0.2, [1.0]),
    "LogitDemand.*shapes": lambda: st.LogitDemand(0.2, [[1.0]]),
    "LogitDemand.quality=.*finite": lambda: st.LogitDemand(0.2, [np.nan]),
    "estimate_logit.*positive price coefficient": lambda: st.estimate_logit(
        GOOD[0], [[1, 3, 4], [3, 1, 4], [4, 2, 3]]
    ),
    "estimate_logit.prices=.*shape": lambda: st.estimate_logit([1.0], [[1, 2]]),
    "estimate_logit.choices=.*outside option": lambda: st.estimate_logit(GOOD[0], [[1, 2]] * 3),
    "estimate_logit.choices=.*counts": lambda: st.estimate_logit(GOOD[0], [[-1, 2, 3]] * 3),
    "estimate_logit.characteristics=.*shape": lambda: st.estimate_logit(*GOOD, np.ones((4, 2, 1))),
    "estimate_logit.choices=.*maximum likelihood estimate.*every good": lambda: st.estimate_logit(
        GOOD[0], [[4, 0, 4], [3, 0, 4], [3, 0, 4]]
    ),
    "estimate_logit.choices=.*have a maximum": lambda: st.estimate_logit(
        GOOD[0], [[4, 0, 0], [0, 4, 0], [0, 4, 0]]
    ),
    "tell every coefficient apart": lambda: st.estimate_logit([[1.0, 2.0]] * 3, GOOD[1]),
    "recover_costs.prices=.*length 2": lambda: st.recover_costs([1.0, 2.0, 3.0], TWO),
    "recover_costs.shares=.*shape": lambda: st.recover_costs([1.0, 2.0], TWO, [0.1, 0.2, 0.3]),
    "recover_costs.shares=.*between 0 and 1": lambda: st.recover_costs([1.0, 2.0], TWO, [0.0, 0.3]),
    "recover_costs.shares=.*less than 1": lambda: st.recover_costs([1.0, 2.0], TWO, [0.6, 0.4]),
    "recover_costs.shares=.*sum to 1 where": lambda: st.recover_costs([1.0, 2.0], PAIR, [0.6, 0.3]),
    "recover_costs.prices=.*finite": lambda: st.recover_costs([1.0, np.inf], TWO),
    "from_shares.*between": lambda: st.LogitDemand.from_shares(0.5, [1.0, 2.0], [1.2, 0.1]),
    "from_shares.*shape": lambda: st.LogitDemand.from_shares(0.5, [1.0, 2.0], [[0.2, 0.1]]),
    "spot_equilibrium.costs=.*length": lambda: st.spot_equilibrium(TWO, [1.0]),
    "Procurement.benefits=.*shape": lambda: market(benefits=[1.0, 2.0]),
    "Procurement.benefits=.*nonnegative": lambda: market(benefits=[1.0, -2.0, 3.0]),
    "transfers.profile=": lambda: market().transfers((0, 9, 0), [1.0, 1.0, 1.0]),
    "transfers.cost_estimates=.*length": lambda: market().transfers((0, 0, 0), [1.0]),
    "epsilon_bounds.errors=.*broadcast": lambda: market().epsilon_bounds(np.zeros(2)),
    "epsilon_bounds.distances=.*at least": lambda: market().epsilon_bounds(0.5, 0.1),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    with pytest.raises(DynmechError, match=f"(?s){message}"):
        MISTAKES[message]()


def test_estimating_without_xlogit_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "xlogit", None)
    with pytest.raises(MissingExtra, match=r"dynmech\[data\]"):
        st.estimate_logit(*GOOD)
