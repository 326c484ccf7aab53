"""Theory as properties of solved markets: beliefs, convexity, marginal economies, symmetries."""

import numpy as np
import pytest

import dynmech as dm
from tests.helpers.markets import histories_of, random_market, relabelled
from tests.helpers.quantities import assert_same, market_of, quantities, solve
from tests.helpers.small import logit_market

SEEDS = range(4)


def joint_symbols(alphabet):
    return np.indices(alphabet).reshape(len(alphabet), -1).T


@pytest.mark.parametrize("seed", SEEDS)
def test_posteriors_are_a_martingale(seed):
    """Over actions and signals, the expected posterior is the belief held before."""
    case = random_market(
        np.random.default_rng(seed), constant=True, horizon=3, zeros=0.2, recall="ordered"
    )
    env = market_of(case)
    n, row = env.products, {h: k for k, h in enumerate(histories_of(2, 3))}
    policy, rng, checked = solve(env), np.random.default_rng(seed), 0
    for start in rng.permutation(np.argwhere(~np.isnan(policy.value)))[:12]:
        chat, shown = policy.start(start[:n], start[n:]), ()
        while not chat.ended:
            belief, r = chat.belief, chat.recommendation
            np.testing.assert_allclose(belief.sum(), 1.0, rtol=0, atol=1e-14)
            shown = (*shown, n if r == -1 else r)
            law = case["action"][row[shown]]
            mean, total, following = np.zeros_like(belief), 0.0, []
            for action in np.flatnonzero(law @ belief > 0):
                if action < n + 1 or len(shown) == 3:
                    after = chat.step(int(action))
                    mean += (law[action] @ belief) * after.belief
                    total += law[action] @ belief
                    continue
                for z in joint_symbols(env.feedback_alphabet):
                    chance = law[action] * case["feedback"][(row[shown], slice(None), *z)] @ belief
                    if chance > 0:
                        after = chat.step(int(action), z)
                        mean += chance * after.belief
                        total += chance
                        following.append(after)
            np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-13)
            np.testing.assert_allclose(mean, belief, rtol=0, atol=1e-13)
            checked += 1
            if not following:
                break
            chat = following[rng.integers(len(following))]
    assert checked >= 20


@pytest.mark.parametrize("seed", SEEDS)
def test_value_is_convex_in_the_belief(seed):
    """Unnormalised, W is convex in b: the mixture of priors is worth at most the mean of W."""
    rng = np.random.default_rng(seed)
    case = random_market(rng, constant=bool(seed % 2), initial_symbols=(1,))
    policy = solve(market_of(case))
    slack, eps = [], 1e-13 * policy.env.money_scale

    def unnormalised(prior):
        mass = np.tensordot(prior, case["initial_signals"], 1)
        return np.asarray(policy.revalue(prior=prior)) * mass

    for weight in (0.2, 0.5, 0.9) * 4:
        ends = rng.dirichlet(np.full(len(case["prior"]), 0.3), 2)  # far apart
        mean = weight * unnormalised(ends[0]) + (1 - weight) * unnormalised(ends[1])
        mixed = np.array([weight, 1 - weight]) @ ends
        slack.append(mean - unnormalised(mixed))
    assert np.min(slack) >= -eps
    assert np.max(slack) > 1e-4  # which side it is matters
    assert_same(
        {"W": np.asarray(policy.revalue(prior=mixed))},
        {"W": solve(market_of(case | {"prior": mixed})).value},
        policy.env.money_scale,
    )


@pytest.mark.parametrize("markov", [False, True])
def test_value_is_convex_in_theta(markov):
    """In theta for constant values, and in the values of the support with kernels fixed."""
    rng = np.random.default_rng(3)
    policy = solve(market_of(random_market(rng, constant=not markov)))
    base, slack = policy.env.values.support, []
    for _ in range(10):
        first, second = base + rng.normal(0.0, 0.5, (2, *base.shape))
        ends = [np.asarray(policy.revalue(theta_support=x)) for x in (first, second)]
        middle = np.asarray(policy.revalue(theta_support=(first + second) / 2))
        slack.append((ends[0] + ends[1]) / 2 - middle)
    assert np.min(slack) >= -1e-13
    assert np.max(slack) > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("positive", [False, True])
def test_marginal_economies(seed, positive):
    rng = np.random.default_rng(seed)
    case = random_market(rng, n=3, symbols=(2, 1, 1, 1), positive=positive, K=1 + seed % 2)
    policy = solve(market_of(case))
    eps = 1e-12 * policy.env.money_scale
    assert (policy.value - policy.marginal_value >= -eps).all()
    assert (policy.displayable_marginal_value - policy.marginal_value >= -eps).all()
    assert np.max(policy.value - policy.marginal_value) > 1e-3
    assert (policy.marginal_value >= -eps).all()  # none is always allowed
    if positive:
        assert (policy.value - policy.displayable_marginal_value >= -eps).all()


def relabel(found, order):
    """Quantities of the market in which product `order[j]` is called j."""
    axes = [*order, len(order), *(1 + len(order) + np.array(order))]
    out = {}
    for key, value in found.items():
        if key == "W":
            value = value.transpose(axes)
        elif value.ndim:
            value = value[list(order)]
            value = value.transpose([0, *(1 + np.array(axes))]) if value.ndim > 1 else value
        out[key] = value
    return out


@pytest.mark.parametrize("constant", [False, True])
def test_relabelling_products_permutes_everything(constant):
    order = [2, 0, 1]
    case = random_market(
        np.random.default_rng(5), n=3, symbols=(2, 1, 2, 1), initial_symbols=(2, 3, 1, 2),
        zeros=0.2, biased=True, recall="ordered", constant=constant,
    )  # fmt: skip
    found = quantities(solve(market_of(case)))
    assert_same(
        quantities(solve(market_of(relabelled(case, order)))),
        relabel(found, order),
        market_of(case).money_scale,
    )


@pytest.mark.parametrize("unit", [1e-6, 7.0, 1e6])
def test_scaling_money_scales_everything(unit):
    """Also through behaviour: scales, locations and noises are all in money."""
    found, scaled = (quantities(solve(logit_market(unit=u, seed=4))) for u in (1.0, unit))
    expected = {key: unit * value for key, value in found.items()}
    assert_same(scaled, expected, unit * logit_market(seed=4).money_scale)
    assert found["gain_message"].max() > 1e-4


def test_scaling_money_of_tables():
    case = random_market(np.random.default_rng(6), ties=True, zeros=0.3)
    unit = 1e5
    scaled = case | {key: unit * case[key] for key in ("gamma", "theta_support")}
    found, larger = (quantities(solve(market_of(c))) for c in (case, scaled))
    expected = {key: unit * value for key, value in found.items()}
    assert_same(larger, expected, unit * market_of(case).money_scale)


def test_a_product_nobody_would_show_changes_nothing():
    """Shown, it loses the user. Its advertiser has two values and nothing to say about taste."""
    found, more = (quantities(solve(with_bad_product(k))) for k in (0, 1))
    scale = with_bad_product(1).money_scale
    old = slice(0, 2)
    for key, value in found.items():
        if key == "W":  # her value is a third axis, her only symbol the last one
            expected = np.broadcast_to(value[:, :, None, ..., None], more[key].shape)
            assert_same(more, {key: expected.copy()}, scale)
        elif value.ndim > 1:
            expected = value[:, :, :, None, ..., None]
            expected = np.broadcast_to(expected, more[key][old].shape)
            assert_same({key: more[key][old]}, {key: expected.copy()}, scale)
        else:
            part = more[key][old] if value.ndim else more[key]
            assert_same({key: np.asarray(part)}, {key: value}, scale)
    assert_same({"W": more["W_marginal"][2]}, {"W": more["W"]}, scale)
    assert_same({"W": more["W_displayable"][2]}, {"W": more["W"]}, scale)
    for key in ("advertiser_value", "user_utility", "gain_estimator", "gain_message"):
        assert not more[key][2].any(), key


def with_bad_product(count):
    """Two good products, and `count` that are never asked about again and never wanted."""
    rng = np.random.default_rng(7)
    env = logit_market(seed=7)
    gamma = np.concatenate([env.gamma, np.full((count, 2), -1e4)])
    support = np.concatenate([env.values.support, np.full((count, 2), [0.1, 0.4])])
    prior = np.concatenate([env.values.prior, np.full((count, 2), 0.5)])
    table = rng.dirichlet(np.full(12, 0.5), env.tastes.size)
    rule = dm.LastShownOnly(
        dm.Logit(0.5), dm.ProductQuery(np.array([0.6, 0.5, 0.0][: 2 + count]), none=0.3)
    )
    return dm.RecommendationMDP(
        gamma,
        env.tastes,
        3,
        rule,
        dm.SignalStructure(
            dm.JointSignals(table.reshape(-1, 2, 3, 2, *(1,) * count)),
            dm.RatingFeedback(noise=0.7, symbols=3),
        ),
        dm.ConstantValues(support, prior),
    )
