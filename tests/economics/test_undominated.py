"""Products removed with a proof: W and every marginal economy stay what they were."""

import equinox as eqx
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.screen import economies

EXACT = 1e-12


def candidates(seed):
    """A market in which the screen is all that counts, and several products cannot matter."""
    rng = np.random.default_rng(seed)
    kind, m = rng.choice(4, p=[0.2, 0.4, 0.2, 0.2]), 3
    horizon = int(rng.integers(1, 3 if kind == 1 else 4))
    n = 6 if horizon < 3 else 4
    size = int(rng.integers(1, 3))
    tastes = dm.TasteGrid(rng.lognormal(0.0, 0.6, (m, 2)), rng.dirichlet(np.full(m, 3.0)))
    gamma = rng.normal(0.0, 1.0, (n, 2))
    if kind == 0:  # sellers of the same product
        gamma = gamma[rng.integers(0, n // 2, n)]
    elif kind == 1:  # specialists, and products that are all right for everyone
        gamma = rng.uniform(2.5, 3.0, (n, 1)) * [1.0, -1.0] * rng.uniform(0.9, 1.1, (n, 2))
        gamma[1::2] *= -1
        if n > 4:
            gamma[4:] = rng.uniform(0.0, 0.05, (n - 4, 2))
    support = np.sort(rng.uniform(0.3, 1.0, (n, 1)) + rng.uniform(0.0, 0.2, (n, size)), axis=1)
    if kind == 1:
        support[:4] += 0.7
    if rng.random() < 0.2:  # twins
        gamma[1], support[1] = gamma[0], support[0]
    prior = rng.dirichlet(np.full(size, 2.0), n)
    values = dm.ConstantValues(support, prior)
    if n == 4 and rng.random() < 0.3:
        kernel = rng.dirichlet(np.ones(size), (n + 1, n, size))
        kernel[1] = kernel[2] = kernel[3] = kernel[0]
        values = dm.MarkovValues(support, prior, kernel)
    choice = dm.Logit(rng.uniform(0.2, 1.0, m)) if rng.random() < 0.6 else dm.Threshold()
    query = [
        dm.ConstantQuery(rng.uniform(0.3, 0.9)),
        dm.ProductQuery(rng.uniform(0.3, 0.9, n), none=rng.uniform(0.3, 1.0)),
        dm.FallingQuery(1.2, 0.2, 0.7, low=0.2, high=0.8, nothing=0.7),
    ][0 if kind == 1 else rng.integers(0, 3)]
    sees = np.where(np.arange(n) < 2, 2, 1)  # two advertisers see signals of their own

    def channel(*lead):
        law = rng.gamma(0.7, size=(*lead, m, 2, *sees)) + 1e-3
        return law / law.sum(axis=tuple(range(len(lead) + 1, law.ndim)), keepdims=True)

    feedback = [
        dm.NoFeedback(),
        dm.ChannelFeedback(np.repeat(channel(1), n + 1, axis=0)),
        dm.ChannelFeedback(channel(n + 1)),
        dm.RatingFeedback(10 ** rng.uniform(-0.5, 1.0), symbols=2),
        dm.RatingFeedback(10 ** rng.uniform(-0.5, 1.0, horizon), symbols=2),
    ][rng.integers(0, 2 if kind == 1 else 5)]
    initial = [
        dm.NoSignals(),
        dm.JointSignals(channel()),
        dm.GaussianSignals(platform=1.0, advertisers=2.0 if n == 4 else None, symbols=2),
    ][rng.integers(0, 3)]
    signals = dm.SignalStructure(initial, feedback)
    rule = dm.LastShownOnly(choice, query)
    return dm.RecommendationMDP(gamma, tastes, horizon, rule, signals, values)


def compare(env, found, seed, build):
    """Brute force with all products and with those kept, at a profile; the largest difference.

    `build`: of the reduced market itself, instead of the full one in which no other is shown.
    """
    rng = np.random.default_rng(seed)
    n, size = env.values.support.shape
    theta = rng.integers(0, size, n)
    signals = np.array([rng.integers(0, z) for z in env.initial_alphabet])
    full = economies(env, theta, signals)
    kept, removed = found.kept, found.removed
    same = [0, *(1 + kept), *(1 + n + kept)]
    if build:
        small = found.profiles(dm.Profiles(theta[None], signals[None]))
        part = economies(found.reduce(), small.theta[0], small.signals[0])
    else:
        part = economies(env, theta, signals, only=kept)[same]
    free = removed[found.displayable[removed]]
    np.testing.assert_array_equal(np.isnan(full[same]), np.isnan(part))
    apart = [full[same] - part, full[1 + removed] - part[0], full[1 + n + free] - part[0]]
    return max(float(np.nanmax(np.abs(x), initial=0.0)) for x in apart)


def check(seeds, build):
    removed = mixed = 0
    for seed in seeds:
        env = candidates(seed)
        found = dm.undominated(env, ("reachable", "any")[seed % 2])
        removed += len(found.removals)
        mixed += sum(len(r.mixtures[0].member) > 1 for r in found.removals)
        worst = compare(env, found, seed, build and len(found.removals) > 0)
        assert worst <= EXACT * max(env.money_scale, 1.0), seed
    return removed, mixed


def test_every_economy_keeps_its_value_without_what_is_removed():
    removed, mixed = check(range(7), build=False)
    assert removed > 12
    assert mixed >= 1


@pytest.mark.slow
def test_every_economy_keeps_its_value_without_what_is_removed_thousands():
    removed, mixed = check(range(7, 3007), build=False)
    assert removed > 3000
    assert mixed > 100


@pytest.mark.slow
def test_the_reduced_market_has_the_values_of_the_full_one():
    removed, _ = check(range(100, 103), build=True)
    assert removed > 0


def screen(gamma, theta, horizon=2, rule=None, **options):
    """Two kinds of users, one who likes the first trait and one who likes the second."""
    rule = rule or dm.LastShownOnly(dm.Threshold(), query=0.5)
    signals = dm.SignalStructure(**options)
    tastes = dm.TasteGrid([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
    values = dm.ConstantValues(theta)
    return dm.RecommendationMDP(gamma, tastes, horizon, rule, signals, values)


SPECIALISTS = [[2.0, -2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, 2.0]]


def test_a_mixture_removes_what_no_single_product_does():
    """Everyone buys it, at 0.2 + theta; half of the users would buy another at 2 + theta."""
    env = screen([*SPECIALISTS, [0.2, 0.2]], np.full(5, 1.0))
    found = dm.undominated(env, "any")
    assert found.removed.tolist() == [4]
    first, *spare = found.removals[0].mixtures
    assert len(first.member) == 2
    np.testing.assert_allclose(first.weight, 0.5, atol=0.2)
    assert len(spare) == 1  # one mixture of the others' twins does for both of its members
    assert not np.isin(spare[0].member, first.member).any()
    alone = screen([*SPECIALISTS[:3], [0.2, 0.2]], np.full(4, 1.0))
    assert 3 in dm.undominated(alone, "any").kept  # needed if product 2 withdraws


def test_a_spare_is_kept_because_the_best_may_withdraw():
    env = screen([[1.0, 1.0]] * 4, [0.4, 0.9, 0.7, 0.6])
    found = dm.undominated(env)
    assert found.kept.tolist() == [1, 2]
    assert found.displayable[found.removed].all()
    overlapping = screen([[1.0, 1.0]] * 3, [[0.3, 0.8], [0.5, 0.9], [0.6, 1.0]])
    assert dm.undominated(overlapping).kept.tolist() == [0, 1, 2]


def test_a_product_that_teaches_what_no_other_does_is_kept():
    """Product 2 sells nothing, but showing it tells the two kinds apart."""
    law = np.full((4, 2, 2, 1, 1, 1), 0.5)
    law[2] = np.array([[0.95, 0.05], [0.05, 0.95]]).reshape(2, 2, 1, 1, 1)
    gamma, theta = [[2.0, -2.0], [-2.0, 2.0], [-1.0, -1.0]], [0.1, 0.1, 0.1]
    lively = dm.LastShownOnly(dm.Threshold(), dm.ProductQuery([0.5, 0.5, 1.0], none=1.0))
    env = screen(gamma, theta, rule=lively, feedback=dm.ChannelFeedback(law))
    assert 2 in dm.undominated(env).kept
    known = screen(gamma, theta, horizon=1, rule=lively, feedback=dm.ChannelFeedback(law))
    assert 2 in dm.undominated(known).removed  # in a last round nothing is left to learn


def test_what_removed_advertisers_know_is_kept_as_the_platforms():
    law = np.zeros((2, 1, 1, 1, 2, 1))
    law[0, 0, 0, 0], law[1, 0, 0, 0] = [[0.9], [0.1]], [[0.2], [0.8]]
    env = screen([*SPECIALISTS[:3], [-1.0, -1.0]][:4], np.full(4, 1.0), horizon=1)
    env = dm.RecommendationMDP(
        env.gamma, env.tastes, 1, env.action_rule,
        dm.SignalStructure(dm.JointSignals(law.reshape(2, 1, 1, 1, 1, 2))), env.values,
    )  # fmt: skip
    found = dm.undominated(env)
    assert 3 in found.removed
    assert found.reduce().initial_alphabet[0] == 2
    for symbol in range(2):
        signals = np.array([0, 0, 0, 0, symbol])
        small = found.profiles(dm.Profiles(np.zeros((1, 4), int), signals[None]))
        part = economies(found.reduce(), small.theta[0], small.signals[0])
        assert part[0] == pytest.approx(economies(env, np.zeros(4, int), signals)[0], abs=EXACT)


def test_rules_that_remember_keep_everything_and_say_why():
    rule = dm.PerfectRecall(dm.Threshold(), 0.5)
    found = dm.undominated(screen([[1.0, 1.0]] * 4, [0.4, 0.9, 0.7, 0.6], rule=rule))
    assert len(found.kept) == 4
    assert "remembers" in found.summary()
    once = screen([[1.0, 1.0]] * 4, [0.4, 0.9, 0.7, 0.6], horizon=1, rule=rule)
    assert dm.undominated(once).kept.tolist() == [1, 2]


def test_a_thousand_products_come_down_to_few_and_the_policy_is_solved():
    rng = np.random.default_rng(0)
    tastes = dm.TasteGrid(rng.lognormal(0.0, 0.5, (6, 2)), rng.dirichlet(np.full(6, 4.0)))
    values = dm.ConstantValues(np.sort(rng.uniform(0.2, 1.2, (1000, 2)), axis=1))
    env = dm.RecommendationMDP(
        rng.normal(0.0, 1.0, (1000, 2)), tastes, 2,
        dm.LastShownOnly(dm.Logit(0.5), query=0.6),
        dm.SignalStructure(feedback=dm.RatingFeedback(10.0, symbols=3)), values,
    )  # fmt: skip
    found = dm.undominated(env)
    assert 2 <= len(found.kept) < 20
    assert "of 1000" in found.summary()
    drawn = dm.Profiles(np.zeros((2, 1000), int), np.zeros((2, 1001), int))
    small = found.profiles(drawn)
    policy = dm.solve_efficient_policy(found.reduce(), initial=small, progress=False)
    assert (policy.value >= policy.marginal_value.max(axis=0) - EXACT).all()
    frame = found.to_frame()
    assert frame["kept"].sum() == len(found.kept)
    assert (frame["instead"] != "").sum() == 1000 - len(found.kept)


def test_mistakes_are_named():
    env = screen([[1.0, 1.0]] * 3, [0.4, 0.9, 0.7])
    with pytest.raises(dm.InvalidArgument, match="beliefs"):
        dm.undominated(env, "some")


def test_dropping_a_kept_product_as_well_changes_some_economy():
    """The comparison above can fail: it does when one product too many is left out."""
    changed = 0
    for seed in range(6):
        env = candidates(seed)
        n, kept = env.products, dm.undominated(env).kept
        start = np.zeros(n, int), np.zeros(n + 1, int)
        full = economies(env, *start)
        part = economies(env, *start, only=kept[:-1])
        changed += np.nanmax(np.abs(full - part)[[0, *(1 + kept[:-1])]]) > 1e-6
    assert changed >= 3


class AbstractRenamed(dm.AbstractActionRule):
    """Somebody's own rule, with the chances of one that is built in."""

    inner: eqx.AbstractVar[dm.AbstractActionRule]

    def start(self, products, horizon):
        return self.inner.start(products, horizon)

    def step(self, memory, recommendation, products):
        return self.inner.step(memory, recommendation, products)

    def probabilities(self, memory, recommendation, utilities):
        return self.inner.probabilities(memory, recommendation, utilities)


class Renamed(AbstractRenamed):
    inner: dm.AbstractActionRule


class Restricted(AbstractRenamed):
    """The same, and it says what is left of it when products are left out."""

    inner: dm.AbstractActionRule

    def restrict(self, keep):
        return Restricted(self.inner.restrict(keep))


def on_screen(rule, products):
    rng = np.random.default_rng(4)
    gamma = rng.uniform(0.1, 1.0, (products, 1))
    tastes = dm.TasteGrid([[0.5], [1.5]], [0.5, 0.5])
    values = dm.ConstantValues(np.full((products, 1), 0.5))
    return dm.RecommendationMDP(gamma, tastes, 2, rule, dm.SignalStructure(), values)


@pytest.mark.parametrize("products", [5, 300])
def test_own_rules_are_reduced_as_those_built_in(products):
    rule = dm.LastShownOnly(dm.Logit(0.5), query=dm.ProductQuery(np.full(products, 0.6)))
    right = dm.undominated(on_screen(rule, products))
    got = dm.undominated(on_screen(Restricted(rule), products))
    assert 0 < len(right.kept) < products
    np.testing.assert_array_equal(got.kept, right.kept)
    smaller = dm.solve_efficient_policy(got.reduce(), progress=False)
    asked = dm.solve_efficient_policy(right.reduce(), progress=False)
    np.testing.assert_allclose(smaller.value, asked.value, rtol=1e-12)


def test_a_part_that_cannot_be_restricted_names_the_method():
    rule = Renamed(dm.LastShownOnly(dm.Logit(0.5), query=0.6))
    with pytest.raises(dm.InvalidArgument, match=r"Renamed.restrict\(keep\)"):
        dm.undominated(on_screen(rule, 5)).reduce()
