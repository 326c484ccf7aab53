"""Endless markets in which something is learned: the last round written out stands for the rest."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from dynmech.market.shown import acts, answers, stepped
from dynmech.mechanism.payment_moments import payment_moments
from dynmech.plotting import policy_tree
from solvers.points import turns

STANDARD_ERRORS = 5.0
KINDS = {"search": dm.BestFirst, "points": dm.PointBased}
RULES = {
    "last": lambda: dm.LastShownOnly(dm.Logit(0.5), dm.ConstantQuery(0.6)),
    "recall": lambda: dm.PerfectRecall(dm.Logit(0.5), dm.ConstantQuery(0.7)),
    "forgetful": lambda: dm.ImperfectRecall(dm.Logit(0.5), dm.ConstantQuery(0.7), 0.5),
}


def market(rule="last", dtype=np.float64, values=1, horizon=math.inf, cost=0.0, private=False):
    """Two products, three tastes; answers tell likes from dislikes."""
    rng = np.random.default_rng(3)
    known = 2.0 if private else None
    initial = dm.GaussianSignals(platform=known, advertisers=known, symbols=2)
    return dm.RecommendationMDP(
        np.array([[1.0, -0.5], [-0.8, 0.9]], dtype),
        dm.TasteGrid([[0.8, 0.1], [0.2, 1.0], [0.9, 0.8]], [0.4, 0.4, 0.2]),
        horizon,
        RULES[rule](),
        dm.SignalStructure(initial, dm.RatingFeedback(noise=0.8, symbols=2)),
        dm.ConstantValues(np.sort(rng.uniform(0.3, 1.2, (2, values)), axis=1)),
        round_cost=cost,
    )


@functools.cache
def solved(rule="last", kind="search", relative=1e-2, values=1, private=False):
    env = market(rule, values=values, private=private)
    return dm.solve_efficient_policy(env, KINDS[kind](), relative=relative, progress=False)


def attained(env, policy, profile=0):
    """What the recommendations attain, by the market's own rules, round after round."""
    n, rule, utilities = env.products, env.action_rule, np.asarray(env.utilities)
    worth = np.asarray(env.values.support)[np.arange(n), policy.profiles.theta[profile]]
    worth = worth[:, None] + np.asarray(env.gains)

    @functools.cache
    def laws(memory, control):
        shown = env.controls[control]
        after = np.asarray(stepped(rule, np.array(memory), shown, n))
        act = np.asarray(acts(rule, after, shown, utilities), float)
        said = np.asarray(answers(env.signals.feedback, after, shown, np.array(0), utilities))
        return after, act, said

    def law(memory, control):
        return laws(tuple(memory.tolist()), control)

    def value(chat, belief, memory, left):
        control = chat.recommendation % (n + 1)
        after, act, said = law(memory, control)
        total = belief @ (worth * act[:n]).sum(axis=0)
        if left:
            for z in range(said.shape[1]):
                then = belief * act[n + 1] * said[:, z]
                if then.sum() > 0:
                    total += value(chat.step("query", [z, 0, 0]), then, after, left - 1)
            return total
        while belief.sum() > 1e-15:  # shown again and again
            belief, memory = belief * act[n + 1], after
            after, act, _ = law(memory, control)
            total += belief @ (worth * act[:n]).sum(axis=0)
        return total

    root = policy.roots[profile] / policy.roots[profile].sum()
    with jax.enable_x64(True):
        return value(policy.start(profile=profile), root, env.unaware, policy.env.horizon - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_what_is_attained_is_attained_for_ever(rule, kind):
    """A sum over the rounds written out, and one for ever after them; by the rules, one by one."""
    policy, env = solved(rule, kind), market(rule)
    assert policy.env.action_rule.lasts() is not None
    assert policy.env.horizon > 1
    for profile in range(len(policy.profiles)):
        right = attained(env, policy, profile)
        assert policy.value.ravel()[profile] == pytest.approx(right, abs=1e-12)
    np.testing.assert_array_equal(policy.value, policy.value_lower)
    assert (policy.lower <= policy.value + 1e-2 * policy.upper).all()
    assert (policy.value <= policy.upper).all()
    together = policy.advertiser_value.sum(axis=0) + policy.user_utility.sum(axis=0)
    np.testing.assert_allclose(together, policy.value, atol=1e-12)


def test_bounds_are_those_of_the_market_cut_late():
    """The rounds after k bring at most .7^k of what one purchase does."""
    policy, rounds = solved("recall", "search", 1e-5), 12
    long = dm.solve_efficient_policy(market("recall", horizon=rounds), progress=False)
    rest = 0.7**rounds * 2.5
    for low, high, value in (
        ("lower", "upper", "value"),
        ("marginal_lower", "marginal_upper", "marginal_value"),
        ("displayable_marginal_lower", "displayable_marginal_upper", "displayable_marginal_value"),
    ):
        right = getattr(long, value)
        assert (getattr(policy, low) <= right + rest).all()
        assert (right <= getattr(policy, high) + 1e-12).all()
    assert (policy.value <= long.value + rest).all()
    assert (policy.value >= long.value - 2e-5).all()


@pytest.mark.parametrize(("rule", "kind"), [("last", "points"), ("recall", "search")])
def test_simulations_are_of_what_is_attained(rule, kind):
    mechanism = dm.DynamicTeamMechanism(solved(rule, kind, values=2, private=True))
    policy = mechanism.policy
    sim = mechanism.simulate(jax.random.key(1), 60_000)
    assert sim.length.max() == policy.env.horizon
    assert (sim.action != policy.env.products + 1)[:, -1].all()  # nobody is left asking
    mean, error = sim.mean("surplus")
    assert abs(mean - policy.ex_ante_value) <= STANDARD_ERRORS * error
    moments = payment_moments(mechanism)
    paid = sim.payment
    mean, error = sim.mean("payment")
    assert (np.abs(mean - moments.overall_mean[:-1]) <= STANDARD_ERRORS * error).all()
    spread = (paid - mean) ** 2
    error = spread.std(axis=0) / np.sqrt(len(spread))
    off = np.abs(spread.mean(axis=0) - moments.overall_variance[:-1])
    assert (off <= STANDARD_ERRORS * error).all()


def test_rounds_simulated_one_by_one_are_of_what_is_attained():
    """Users drawn here, round by round, however long they ask."""
    policy, env = solved("recall"), market("recall")
    rng, count, n = np.random.default_rng(0), 4000, 2
    theta, gains = np.asarray(env.values.support)[:, 0], np.asarray(env.gains)
    chats, laws = {}, {}
    surplus = np.zeros(count)
    for row in range(count):
        profile = int(rng.choice(len(policy.profiles), p=policy.mass / policy.mass.sum()))
        root = policy.roots[profile] / policy.roots[profile].sum()
        omega, memory, path = int(rng.choice(3, p=root)), env.unaware, (profile,)
        while True:
            if path not in chats:
                before = chats.get(path[:-1])
                chats[path] = (
                    policy.start(profile=profile)
                    if before is None
                    else before.step("query", [path[-1], 0, 0])
                )
            control = chats[path].recommendation % (n + 1)
            key = tuple(memory.tolist()), control
            if key not in laws:
                shown = env.controls[control]
                after = np.asarray(stepped(env.action_rule, memory, shown, n))
                given = after, shown, np.asarray(env.utilities)
                said = answers(env.signals.feedback, after, shown, np.array(0), given[2])
                laws[key] = after, np.asarray(acts(env.action_rule, *given)), np.asarray(said)
            memory, act, said = laws[key]
            action = int(rng.choice(n + 2, p=act[:, omega] / act[:, omega].sum()))
            if action <= n:
                surplus[row] = theta[action] + gains[action, omega] if action < n else 0.0
                break
            z = int(rng.choice(2, p=said[omega] / said[omega].sum()))
            path = (*path, z) if len(path) < policy.env.horizon else path
    error = surplus.std() / np.sqrt(count)
    assert abs(surplus.mean() - policy.ex_ante_value) <= STANDARD_ERRORS * error


def test_the_last_round_of_a_conversation_goes_on_for_as_long_as_she_asks(tmp_path):
    policy = solved("recall")
    mechanism = dm.DynamicTeamMechanism(policy)
    chat = policy.start(profile=0)
    for _ in range(policy.env.horizon - 1):
        chat = chat.step("query", [1, 0, 0])
    later = chat
    for z in (0, 1, 0):
        later = later.step("query", [z, 0, 0])
        assert not later.ended
        assert not later.off_model
        assert later.recommendation == chat.recommendation
        assert later.value == chat.value
        np.testing.assert_array_equal(later.belief, chat.belief)
        assert policy.explain(later).learning == pytest.approx(0.0, abs=1e-12)
    assert later.period == policy.env.horizon + 3
    again = policy.resume(later.record())
    assert again.recommendation == later.recommendation
    assert again.period == later.period
    bought = chat.recommendation if chat.recommendation >= 0 else 0
    one, two = (mechanism.settle(x.step(bought), 0.3) for x in (chat, later))
    np.testing.assert_allclose(one.transfer.sum(axis=0), two.transfer.sum(axis=0), atol=1e-12)
    # Something else is shown: what remains is solved from there, for ever.
    other = later.step("query", [1, 0, 0], shown=1 - bought)
    found = other.certify()
    assert found.lower <= found.upper
    assert abs(other.value - found.lower[0]) <= 1e-2
    assert not other.step("query", [1, 0, 0]).ended
    policy.save(tmp_path / "policy")
    held = type(policy).load(tmp_path / "policy")
    np.testing.assert_array_equal(held.value, policy.value)
    assert held.env.action_rule.lasts() == policy.env.action_rule.lasts()
    assert held.resume(later.record()).recommendation == later.recommendation


def test_what_remains_is_found_the_same_way_on_a_slower_machine(monkeypatch):
    """After a second it was found another way: one that was resumed recommended something else."""
    begun, begin = [], turns.Turns.__init__

    def began(self, shared, tasks, after, *more):
        begun.append(after)
        begin(self, shared, tasks, after, *more)

    policy = solved("forgetful")
    monkeypatch.setattr(turns.Turns, "__init__", began)
    chat = policy.start(profile=0).step("query").step("query", [1, 0, 0])
    again = policy.resume(chat.record())
    assert (again.recommendation, again.value) == (chat.recommendation, chat.value)
    assert len(begun) >= 2
    assert min(begun) >= 10.0


def test_many_conversations_are_those_of_one():
    policy, count = solved("recall"), 40
    rng = np.random.default_rng(0)
    profiles = rng.integers(0, len(policy.profiles), count)
    chats = policy.start_many(profiles)
    alone = [policy.start(profile=int(k)) for k in profiles]
    for t in range(policy.env.horizon + 3):
        code = rng.choice([0, 2, 3], size=count, p=[0.05, 0.05, 0.9])
        said = rng.integers(0, 2, (count, 1)) * np.array([[1, 0, 0]])
        if t == 1:
            said[:5] = -1  # nothing is said
        shown = chats.recommendation.copy()
        if t == policy.env.horizon:
            shown[:3] = 1 - np.maximum(shown[:3], 0)
        before, chats = chats, chats.step(code, said, shown)
        for k in range(count):
            if not alone[k].ended:
                signals = None if code[k] < 3 or (said[k] < 0).any() else said[k]
                other = None if shown[k] == before.recommendation[k] else int(shown[k])
                alone[k] = alone[k].step(int(code[k]), signals, shown=other)
        np.testing.assert_array_equal(chats.ended, [x.ended for x in alone])
        np.testing.assert_array_equal(chats.off_model, [x.off_model for x in alone])
        said_now = [-1 if x.ended else x.recommendation for x in alone]
        np.testing.assert_array_equal(chats.recommendation, said_now)
        predicted = [x.predicted for x in alone]
        np.testing.assert_allclose(chats.predicted, predicted, atol=1e-12, equal_nan=True)


def test_the_mechanism_is_audited_as_it_is_played():
    env, policy = market(values=2, private=True), solved(values=2, private=True)
    mechanism = dm.DynamicTeamMechanism(policy)
    audit, widest = mechanism.audit(), float((policy.upper - policy.value).max())
    assert audit.incentive_gain.max() <= audit.gap.bound
    assert audit.incentive_gain.max() <= 2 * widest
    # The market itself, seen without a last round, is the one that the mechanism believes in.
    there = mechanism.audit(under=env)
    np.testing.assert_allclose(there.incentive_gain, audit.incentive_gain, atol=1e-9)
    sim = mechanism.simulate(jax.random.key(0), 20_000, under=env)
    mean, error = sim.mean("surplus")
    assert abs(mean - policy.ex_ante_value) <= STANDARD_ERRORS * error
    short = market(values=2, private=True, horizon=policy.env.horizon)
    with pytest.raises(dm.InvalidArgument, match="no last round"):
        mechanism.audit(under=short)
    costly = market(values=2, private=True, cost=0.1)
    with pytest.raises(dm.InvalidArgument, match="costs of queries"):
        mechanism.audit(under=costly)


def test_the_rounds_written_out_are_a_market_like_any_other():
    """Solved again, from lists and from rules, it is worth no less and no more than may be."""
    policy = solved("recall")
    exact = dm.solve_efficient_policy(policy.env, dm.Exact(), progress=False)
    assert (policy.value <= exact.value + 1e-12).all()
    assert (exact.value <= policy.upper + 1e-12).all()
    rules = dm.solve_efficient_policy(
        policy.env, dm.BranchAndBound(), tolerance=1e-6, progress=False
    )
    assert (rules.lower <= exact.value + 1e-12).all()
    assert (exact.value <= rules.upper + 1e-12).all()
    np.testing.assert_allclose(policy.revalue().value, exact.value, atol=1e-12)
    np.testing.assert_allclose(exact.revalue().value, exact.value, atol=1e-12)
    with jax.enable_x64(True):
        given = jnp.asarray(policy.env.gamma)
        slope = jax.grad(lambda x: policy.revalue(gamma=x).sum())(given)
        step = 1e-5 * np.array([[1.0, 0.0], [0.0, 0.0]])
        ends = [float(policy.revalue(gamma=given + x).sum()) for x in (step, -step)]
        np.testing.assert_allclose(slope[0, 0], (ends[0] - ends[1]) / 2e-5, rtol=1e-5)
    assert "the last for all that follow" in repr(policy.env)
    assert policy_tree(policy) is not None
    assert dm.check_assumption_3(policy.env) is not None
    assert "ask of the market without" in str(dm.undominated(policy.env).reason)
    with pytest.raises(dm.InvalidArgument, match="finite"):
        dm.solve_efficient_policy(policy.env, dm.Neural(), progress=False)
    with pytest.raises(dm.InvalidArgument, match="the last for all that follow"):
        dm.GivenPolicy(policy.env, lambda belief, memory, theta, period: 0)


def test_costs_of_queries_are_cut_with_the_rounds_as_before():
    env = market(cost=0.05)
    policy = dm.solve_efficient_policy(env, relative=1e-2, progress=False)
    assert policy.env.action_rule.lasts() is None
    assert (policy.value_lower <= policy.value).all()
    assert (policy.value <= policy.upper).all()


def test_single_precision_is_worked_on_in_double():
    env = market(dtype=np.float32)
    policy = dm.solve_efficient_policy(env, relative=1e-2, progress=False)
    assert policy.status.met
    assert policy.value.item() == pytest.approx(attained(market(), policy), rel=1e-5)
    assert (policy.value <= solved().upper * (1 + 1e-5)).all()
    assert (policy.lower <= policy.value + 1e-2 * policy.upper).all()
    sim = dm.DynamicTeamMechanism(policy).simulate(jax.random.key(0), 2000)
    mean, error = sim.mean("surplus")
    assert abs(mean - policy.ex_ante_value) <= STANDARD_ERRORS * error


def test_given_actions_may_cost_what_the_rounds_cut_off_do():
    """Bounds were those of the rounds alone, below what may be gained, or crossed upper ones."""
    for rule, relative in (("last", 1e-2), ("recall", 3e-3)):
        policy = dm.solve_efficient_policy(
            market(rule, cost=0.05), dm.BestFirst(), relative=relative, progress=False
        )
        again = policy.with_actions(policy.actions)
        assert (policy.value_lower < policy.value).all()
        np.testing.assert_allclose(again.value_lower, policy.value_lower, atol=1e-14)
        assert (again.incentive_bound >= policy.incentive_bound - 1e-14).all()
        assert (again.lower <= again.upper).all()


@pytest.mark.parametrize("horizon", [3, math.inf])
def test_values_that_have_nowhere_to_move_are_constant(horizon):
    """`BestFirst` refused them, and without a last round whoever gave no tolerance in money was."""
    env = market("last", horizon=horizon)
    still = dm.MarkovValues(env.values.support, np.ones((2, 1)), np.ones((3, 2, 1, 1)))
    same = dm.RecommendationMDP(env.gamma, env.tastes, horizon, env.action_rule, env.signals, still)
    one, two = (
        dm.solve_efficient_policy(x, dm.BestFirst(), relative=1e-2, progress=False)
        for x in (env, same)
    )
    np.testing.assert_array_equal(one.value, two.value)
    np.testing.assert_array_equal(one.displayable_marginal_upper, two.displayable_marginal_upper)
    np.testing.assert_allclose(two.revalue().value, one.revalue().value, atol=1e-12)
    gains = [dm.DynamicTeamMechanism(x).audit().incentive_gain for x in (one, two)]
    np.testing.assert_allclose(*gains, atol=1e-12)
    if horizon == math.inf:
        kernel = np.broadcast_to(np.full((2, 2), 0.5), (3, 2, 2, 2))
        moves = dm.MarkovValues(np.array([[0.2, 0.4]] * 2), np.full((2, 2), 0.5), kernel)
        moving = dm.RecommendationMDP(
            env.gamma, env.tastes, horizon, env.action_rule, env.signals, moves
        )
        with pytest.raises(dm.InvalidArgument, match="does not follow from relative"):
            dm.solve_efficient_policy(moving, relative=1e-2, progress=False)
    chat = two.start(profile=0).step("query", [0, 0, 0], theta=[0, 0], shown=0)
    assert chat.ended or np.isfinite(chat.value)


@pytest.mark.parametrize("kind", KINDS.values())
def test_users_who_go_on_for_long_cost_few_rounds(kind):
    """Most of W was beyond the rounds that fit; a few rounds and one that stands for the rest."""
    env = market()
    rule = dm.LastShownOnly(dm.Logit(0.5), dm.ConstantQuery(0.999))
    env = dm.RecommendationMDP(
        env.gamma, env.tastes, math.inf, rule, env.signals, env.values, names=env.names
    )
    policy = dm.solve_efficient_policy(env, kind(), relative=0.03, progress=False)
    assert policy.status.met
    assert (policy.value >= 0.97 * policy.upper).all()


def test_what_remains_is_solved_however_close_the_bounds_are_at_the_outset():
    """A tolerance below what float64 certifies was refused there, with the bounds' own width."""
    env = market("recall")
    policy = dm.solve_efficient_policy(env, dm.PointBased(), tolerance=1e-9, progress=False)
    assert policy.upper.item() - policy.lower.item() <= 1e-9
    chat = policy.start(profile=0)
    found = chat.step("query", [0, 0, 0], shown=-1 if chat.recommendation else 1).certify()
    assert found.gap[0] <= 1e-3 * found.upper[0]
