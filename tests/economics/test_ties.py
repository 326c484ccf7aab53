"""W against exact rationals: money in any unit, products nobody would show, rare ruin, ties."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

import dynmech as dm

SYMBOL = [[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]]
PRIOR, TASTES = [0.2, 0.5, 0.3], [[1.0, -1.0], [-1.0, 1.0], [0.5, 0.2]]
BUY = [[0.3, 0.05, 0.2], [0.05, 0.3, 0.1], [0.01, 0.01, 0.01]]
ASK = [[0.5, 0.6, 0.6], [0.6, 0.5, 0.6], [0.5] * 3, [0.9] * 3]
GAMMA = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
SOLVERS = [dm.Exact(), dm.BranchAndBound(), dm.PointBased()]


def exact(prior, rounds, buy, ask, theta, u, without=None):
    """W, or that without one product: behaviour depends on the product last shown alone."""

    def number(table):
        return [[Fraction(float(x)) for x in row] for row in table]

    buy, ask, u, symbol = number(buy), number(ask), number(u), number(SYMBOL)
    theta = [Fraction(float(x)) for x in theta]

    def worth(t, belief):
        found = []
        for shown in set(range(len(theta) + 1)) - {without}:
            total = Fraction(0)
            if shown < len(theta):
                chances = [b * y for b, y in zip(belief, buy[shown])]
                total += sum(c * (theta[shown] + v) for c, v in zip(chances, u[shown]))
            for z in range(2) if t < rounds else ():
                going = zip(belief, ask[shown], symbol)
                total += worth(t + 1, [b * y * law[z] for b, y, law in going])
            found.append(total)
        return max(found)

    return worth(1, [Fraction(float(p)) for p in prior])


def market(prior, rounds, buy, ask, theta, u, unit=1.0, kind=np.float64):
    products, tastes = len(theta), len(prior)
    shown = [t for k in range(rounds) for t in itertools.product(range(products + 1), repeat=k + 1)]
    last = np.array([h[-1] for h in shown])
    action = np.zeros((len(shown), products + 2, tastes))
    for j in range(products):
        action[last == j, j] = buy[j]
    action[:, -1] = np.array(ask)[last]
    action[:, -2] = 1 - action.sum(axis=1)
    law = np.tile(np.array(SYMBOL), (len(shown), 1, 1)).reshape(-1, tastes, 2, *[1] * products)
    first = np.ones((tastes, 1, *[1] * products))
    one, kernel = np.ones((products, 1)), np.ones((products + 1, products, 1, 1))
    u = np.array(u)
    return dm.RecommendationMDP.from_tables(
        (np.eye(products) * unit).astype(kind), u.T, prior, rounds, action, law, first,
        np.array(theta)[:, None] * unit, one, kernel,
    )  # fmt: skip


def check(solver, prior, buy, ask, theta, u, rounds=2, unit=1.0, **more):
    env = market(prior, rounds, buy, ask, theta, u, unit, **more)
    policy = dm.solve_efficient_policy(env, solver, progress=False)
    theta = np.asarray(env.values.support)[:, 0]
    given = prior, rounds, buy, ask, theta, np.asarray(env.utilities)
    right = exact(*given)
    rights = [exact(*given, i) for i in range(len(theta))]
    low, value, high = (x.item() for x in (policy.lower, policy.value, policy.upper))
    assert Fraction(low) <= right <= Fraction(high)
    loose = 1e-9 if env.gamma.dtype == np.float64 else 1e-3
    size = abs(float(right)) or np.abs(theta[:, None] + np.asarray(env.utilities)).max()
    assert high - low <= loose * size
    marginal, above = policy.marginal_value.ravel(), policy.marginal_upper.ravel()
    assert (marginal <= value).all()
    for found, top, true in zip(marginal, above, rights, strict=True):
        assert abs(found - float(true)) <= loose * abs(float(true))
        assert true <= Fraction(top)
    assert abs(value - float(right)) <= loose * abs(float(right))
    return policy


def utilities(gamma, tastes):
    return np.array(gamma) @ np.array(tastes).T


@pytest.mark.parametrize("big", [1e3, 1e12, 1e15])
def test_a_product_excluded_by_a_huge_negative_value_changes_nothing(big):
    u = utilities(GAMMA, TASTES)
    policy = check(dm.Exact(), PRIOR, BUY, ASK, [0.1, 0.9, -big], u)
    assert policy.marginal_value[2].item() == policy.value.item()


@pytest.mark.parametrize("solver", [*SOLVERS, dm.BestFirst()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("other", "unit"), [(0.1, 1.0), (-2.0, 1e-150)])
def test_every_solver_leaves_an_excluded_product_out(solver, other, unit):
    u = utilities(GAMMA, TASTES)
    policy = check(solver, PRIOR, BUY, ASK, [other, 0.9, -1e12], u, unit=unit)
    assert other > 0 or policy.marginal_value[1].item() == 0.0


@pytest.mark.parametrize("ruin", [1e6, 1e13])
def test_a_rare_ruin_leaves_the_others_as_certain_as_they_are(ruin):
    rare = 0.01 / ruin
    u = utilities(GAMMA[:2], [TASTES[0], TASTES[1], [-ruin, -ruin]])
    prior = [0.4, 0.6 - rare, rare]
    check(dm.Exact(), prior, BUY[:2], [*ASK[:2], ASK[3]], [0.1, 0.9], u)


@pytest.mark.parametrize("unit", [1e-280, 1e-30, 1e30, 1e280])
def test_the_unit_of_money_does_not_matter(unit):
    check(dm.Exact(), PRIOR, BUY, ASK, [0.1, 0.9, -0.5], utilities(GAMMA, TASTES), unit=unit)


@pytest.mark.parametrize("unit", [1e-310, 1e-295, 1e295])
def test_money_that_cannot_be_added_up_is_refused(unit):
    env = market(PRIOR, 2, BUY, ASK, [0.1, 0.9, -0.5], utilities(GAMMA, TASTES), unit)
    with pytest.raises(dm.NotFinite, match="unit of money"):
        dm.solve_efficient_policy(env, progress=False)


@pytest.mark.parametrize("rounds", [150, 300])
def test_chances_too_small_for_a_number_are_in_the_bounds_of_many_rounds(rounds):
    """Bought at .5 a round, worth 2, else asked about again: W = .5 * 2 / (1 - .5)."""
    env = dm.RecommendationMDP(
        [[1.0]],
        dm.TasteGrid([[1.0]], [1.0]),
        rounds,
        dm.LastShownOnly(dm.Threshold(), dm.ProductQuery([0.5], none=1e-3)),
        dm.SignalStructure(),
        dm.ConstantValues([1.0]),
    )
    policy = dm.solve_efficient_policy(env, dm.Exact(), progress=False)
    np.testing.assert_allclose(policy.value, 2.0, rtol=1e-12)
    assert policy.lower.item() <= 2.0 <= policy.upper.item() <= 2.0 + 1e-9


def test_copies_go_to_the_lowest_whatever_the_order_of_their_sums():
    buy, ask, u = [BUY[0]] * 3, [ASK[0]] * 3 + [ASK[3]], utilities([GAMMA[0]] * 3, TASTES)
    policy = check(dm.Exact(), PRIOR, buy, ask, [0.7, 0.7, 0.7], u)
    assert all((np.isin(taken, [0, 3])).all() for taken in policy.plan.actions)


def test_markets_in_float32_are_bounded_by_their_own_terms():
    u = utilities(GAMMA, TASTES)
    policy = check(dm.Exact(), PRIOR, BUY, ASK, [0.125, 0.875, -1e9], u, kind=np.float32)
    assert "float32" in policy.solver


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_random_markets_against_rationals(solver):
    rng = np.random.default_rng(0)
    for _ in range(60):
        chances = rng.dirichlet(np.ones(3), (4, 3)).transpose(2, 0, 1)
        prior = rng.dirichlet(np.ones(3) * 0.3)
        theta = rng.normal(size=3) * 10.0 ** rng.integers(-3, 8, 3)
        u = rng.normal(size=(3, 3)) * 10.0 ** rng.integers(-3, 8, (3, 3))
        check(solver, prior, chances[0, :3], chances[1], theta, u)


def tying(gamma, theta, symbols, horizon, omega=((0.5, 1.0), (1.5, 0.2), (0.3, 0.3)), prior=PRIOR):
    rule = dm.LastShownOnly(dm.Logit(0.5), dm.ConstantQuery(0.6))
    rating = dm.RatingFeedback(noise=1.0, symbols=2) if symbols > 1 else dm.NoFeedback()
    return dm.RecommendationMDP(
        np.array(gamma, float), dm.TasteGrid(np.array(omega), prior), horizon, rule,
        dm.SignalStructure(feedback=rating), dm.ConstantValues(np.array(theta, float)[:, None]),
    )  # fmt: skip


NEVER = {"exact_after": np.inf}
SEARCHES = [dm.BestFirst(**NEVER), dm.PointBased(**NEVER)]
BOUNDED = [dm.Exact(), dm.BranchAndBound(**NEVER), *SEARCHES, None]


@pytest.mark.parametrize(
    ("horizon", "solver", "tolerance"),
    [
        *itertools.product([2, 3], BOUNDED, [0, 1e-6]),
        *((np.inf, solver, 1e-6) for solver in [*SEARCHES, dm.Stationary(), None]),
    ],
    ids=str,
)
@pytest.mark.parametrize("symbols", [1, 2])
@pytest.mark.parametrize(
    ("gamma", "theta", "first"),
    [
        ([[0, 0]] * 2, [0, 0], 0),
        ([[-3, 0], [0, 0], [0, 0]], [0, 0, 0], 1),
        ([[0.1, 0.1], [0.4, 1], [0.4, 1]], [0.1, 0.9, 0.9], 1),
        ([[1, 0.5], [0.5, 0.2], [0.5, 0.2]], [0.9, 0.3, 0.3], 0),
    ],
    ids=["worthless", "none but one", "copies", "copies without"],
)
def test_ties_go_to_the_lowest_and_none_is_last(
    gamma, theta, first, symbols, horizon, solver, tolerance
):
    env = tying(gamma, theta, symbols, horizon)
    policy = dm.solve_efficient_policy(env, solver, tolerance=tolerance, progress=False)
    rounds = min(horizon, 1 if isinstance(solver, dm.Stationary) else 3)
    begun = policy.start()
    assert begun.recommendation == first
    for said in itertools.product(range(symbols), repeat=rounds - 1):
        here = begun
        for symbol in said:
            here = here.step("query", {"platform": symbol} if symbols > 1 else None)
            assert here.recommendation == first


@pytest.mark.parametrize(
    "solver", [dm.BranchAndBound(**NEVER), dm.PointBased(**NEVER)], ids=lambda s: type(s).__name__
)
def test_products_that_mirror_each_other_tie_up_to_rounding(solver):
    """What one is worth to one taste the other is to the other: sums come in another order."""
    gamma, theta = [[0, 0], [-0.5, 0.7], [0.7, -0.5]], [0.1, 0.3, 0.3]
    env = tying(gamma, theta, 2, 3, [[1.1, 0.3], [0.3, 1.1]], [0.5, 0.5])
    found = []
    for one in (dm.Exact(), solver):
        begun = dm.solve_efficient_policy(env, one, progress=False).start()
        here = [begun]
        for said in itertools.product((0, 1), repeat=2):
            chat = begun
            for symbol in said:
                chat = chat.step("query", {"platform": symbol})
                here.append(chat)
        found.append([chat.recommendation for chat in here])
    assert found[0][0] == 1
    assert found[0] == found[1]
