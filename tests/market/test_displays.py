"""Several products at once: brute-force cases, rules, feedback, results that name displays."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import told_taste
from dynmech.solve.certificates import make_case
from solvers.told.enumerated import enumerate_ceilings, list_memories
from tests.helpers import CASES
from tests.helpers.by_history import SignalsByHistory
from tests.helpers.quantities import tables_of

NAMES = sorted(path.stem for path in (CASES / "displays").glob("*.npz"))


class ByHistory(dm.AbstractActionRule):
    """A table over all ordered histories of controls; memory is the row of the history so far."""

    action: np.ndarray
    controls: np.ndarray

    def start(self, products, horizon):
        return np.full(1, -1)

    def step(self, memory, shown, products):
        control = jnp.argmax((jnp.asarray(self.controls) == shown).all(axis=1))
        return (memory + 1) * len(self.controls) + control

    def probabilities(self, memory, shown, utilities):
        return jnp.asarray(self.action)[memory[0]]


@functools.cache
def case(name: str):
    """The market of a case and what is expected of it."""
    data = dict(np.load(CASES / "displays" / f"{name}.npz"))
    expected = {k.removeprefix("expected_"): x for k, x in data.items() if "expected_" in k}
    n, kernel = len(data["gamma"]), data["theta_kernel"]
    support, prior = data["theta_support"], data["theta_prior"]
    still = (kernel == np.eye(kernel.shape[-1])).all()
    rows = [tuple(j for j in row if j < n) for row in data["controls"].tolist()]
    size, ordered = int(data["size"]), bool(data["ordered"])
    env = dm.RecommendationMDP(
        data["gamma"], dm.TasteGrid(data["omega"], data["prior"]), int(data["horizon"]),
        ByHistory(data["action"], data["controls"]),
        dm.SignalStructure(
            dm.JointSignals(data["initial_signals"]), SignalsByHistory(data["feedback"])
        ),
        dm.ConstantValues(support, prior) if still else dm.MarkovValues(support, prior, kernel),
        displays=dm.Displays(size, ordered, rows[:-1] if data["listed"] else None),
        round_cost=data["round_cost"], exit_value=data["exit_value"],
    )  # fmt: skip
    np.testing.assert_array_equal(env.controls, data["controls"])
    return env, expected


@functools.cache
def solved(name: str) -> dm.EfficientPolicy:
    return dm.solve_efficient_policy(case(name)[0], progress=False)


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_as_brute_force_finds_it(name):
    policy, expected = solved(name), case(name)[1]
    first = np.full(len(policy.profiles), -1)
    for b in np.flatnonzero(policy.possible).tolist():
        shown = policy.start(profile=b).recommendation
        kept = [tuple(j for j in row if j < policy.env.products) for row in policy.env.controls]
        first[b] = kept.index(shown)
    found = tables_of(policy) | {"first_control": first.reshape(policy.value.shape)}
    for key, table in found.items():
        if key in expected:
            np.testing.assert_allclose(
                table, expected[key], rtol=0, atol=1e-9 * policy.env.money_scale, err_msg=key
            )
    assert expected.keys() <= found.keys() | {"user_utility", "exit_mean", "user_surplus_with_exit"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", [dm.BranchAndBound(), dm.PointBased()], ids=["search", "points"])
def test_every_solver_ranges_over_displays(name, solver):
    env, expected = case(name)
    found = dm.solve_efficient_policy(env, solver, relative=1e-6, progress=False)
    slack = 1e-9 * env.money_scale
    for below, above, key in (
        (found.lower, found.upper, "W"),
        (found.marginal_lower, found.marginal_upper, "W_marginal"),
        (found.displayable_marginal_lower, found.displayable_marginal_upper, "W_displayable"),
    ):
        known = np.isfinite(expected[key])
        assert (below - slack <= expected[key])[known].all()
        assert (expected[key] <= above + slack)[known].all()


def shop(rule=None, size=2, ordered=False, of=None, horizon=2, feedback=None, **kw):
    rng = np.random.default_rng(3)
    rule = dm.LastShownOnly(dm.Logit(0.5), query=0.4) if rule is None else rule
    feedback = dm.RatingFeedback(noise=0.7, symbols=2) if feedback is None else feedback
    return dm.RecommendationMDP(
        rng.normal(size=(3, 2)), dm.TasteGrid(rng.normal(size=(3, 2)), np.full(3, 1 / 3)), horizon,
        rule, dm.SignalStructure(feedback=feedback), dm.ConstantValues(rng.uniform(0.2, 1, (3, 1))),
        names=["ash", "bay", "cob"], displays=dm.Displays(size, ordered, of), **kw,
    )  # fmt: skip


def weights(history, decay: float, n: int) -> np.ndarray:
    """How well each product is remembered after the displays of a history."""
    found, age = np.zeros(n), 0
    for display in reversed(history):
        fresh = [j for j in display if found[j] == 0]
        found[fresh] = decay**age
        age += bool(fresh)
    return found


def by_hand(env, decay: float, last: bool) -> float:
    """W of one profile over all histories of displays, for logit choice."""
    u, worth = env.utilities, env.values.support + env.utilities - env.exit_value
    prior = np.asarray(env.tastes.weights)
    query, scale = 0.4, 0.5
    law = [env.signals.feedback.likelihood(None, np.array([j]), 0, u) for j in range(4)]
    rows = [tuple(j for j in row if j < 3) for row in env.controls.tolist()]

    def go(history, belief):
        best = -np.inf
        for row, cost in zip(rows, env.costs, strict=True):
            later = (*history, row)
            kept = weights(later[-1:] if last else later, decay, 3)
            part = kept[:, None] * np.exp(u / scale)
            value = ((1 - query) * part / (1 + part.sum(axis=0)) * worth).sum(axis=0) @ belief
            value -= query * cost @ belief
            if len(later) < env.horizon:
                for column in np.asarray(law[row[0] if row else 3]).T:
                    value += go(later, belief * query * column)
            best = max(best, value)
        return best

    return go((), prior)


@pytest.mark.parametrize(
    ("rule", "decay", "last", "ordered"),
    [
        (dm.LastShownOnly(dm.Logit(0.5), query=0.4), 1.0, True, True),
        (dm.PerfectRecall(dm.Logit(0.5), query=0.4), 1.0, False, False),
        (dm.ImperfectRecall(dm.Logit(0.5), query=0.4, decay=0.5), 0.5, False, False),
    ],
    ids=["screen", "perfect", "imperfect"],
)
def test_rules_compare_all_that_is_shown(rule, decay, last, ordered):
    rng = np.random.default_rng(8)
    cost, leaving = rng.uniform(0, 0.2, (10 if ordered else 7, 3)), rng.normal(0, 0.3, 3)
    env = shop(rule, ordered=ordered, horizon=2, round_cost=cost, exit_value=leaving)
    with jax.enable_x64(True):
        expected = by_hand(env, decay, last)
    for solver in (None, dm.BranchAndBound()):
        policy = dm.solve_efficient_policy(env, solver, tolerance=1e-9, progress=False)
        np.testing.assert_allclose(policy.upper.ravel(), expected, rtol=0, atol=1e-8)
        np.testing.assert_allclose(policy.lower.ravel(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("choice", [dm.Threshold(), dm.Logit(0.5)], ids=["exact", "bound"])
def test_told_bounds_range_over_displays(choice):
    rule = dm.PerfectRecall(choice, query=dm.ProductQuery([0.3, 0.5, 0.7], none=0.8))
    env = shop(rule, horizon=3, round_cost=np.arange(7) / 20)
    with jax.enable_x64(True):
        process = market_process(env)
        cases = [
            make_case(env, env.values.support[:, 0], *one) for one in ((None,), (0,), (1, True))
        ]
        known, (memories, _) = enumerate_ceilings(process, cases), list_memories(process)
        for bound, exact in zip(
            rule.told_bound(told_taste(env, process, cases)), known, strict=True
        ):
            for t, here in enumerate(memories[:-1]):
                above = bound.value(t, here) - exact.value(t, here)
                assert above.min() >= -1e-12
                assert not bound.exact or above.max() <= 1e-12


def test_two_together_sell_more_than_either():
    """Logit, surpluses 1.0 and .9: .633 against .5 (model page)."""
    env = dm.RecommendationMDP(
        np.eye(2), dm.TasteGrid([[0.0, 0.0]], [1.0]), 1, dm.LastShownOnly(dm.Logit(1.0), query=0.0),
        dm.SignalStructure(), dm.ConstantValues([1.0, 0.9]), displays=dm.Displays(2),
    )  # fmt: skip
    policy = dm.solve_efficient_policy(env, progress=False)
    assert policy.start(profile=0).recommendation == (0, 1)
    np.testing.assert_allclose(policy.value.ravel(), 1.9 / 3)
    np.testing.assert_allclose(policy.marginal_value.ravel(), [0.45, 0.5])
    found = dm.undominated(env)
    assert found.kept.tolist() == [0, 1]
    assert "display" in found.reason


def test_conversations_name_displays():
    env = shop(round_cost=np.arange(7) / 100.0)
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    chat = policy.start(profile=0)
    assert isinstance(chat.recommendation, tuple)
    apart = chat.step("query", 0.3, shown=["cob", "ash"])
    assert apart.turns[0].shown == (0, 2)
    assert apart.turns[0].recommendation == chat.recommendation
    nothing = chat.step("query", [0, 0, 0, 0], shown=())
    assert nothing.turns[0].shown == ()
    for one in (apart, nothing, chat.step("query", 0.3)):
        record = json.loads(json.dumps(one.record()))
        again = policy.resume(record)
        assert again.turns[0].shown == one.turns[0].shown
        np.testing.assert_allclose(again.value, one.value)
    ledger = mechanism.settle(apart.step("ash"), 0.5)
    assert ledger.shown[0].tolist() == [0, 2]
    np.testing.assert_allclose(ledger.core[0], 0.02)  # row (0, 2) of the controls
    assert ledger.to_frame()["shown"].iloc[0] == "ash | cob"
    with pytest.raises(dm.OutsideSupport, match="shown"):
        chat.step("query", 0.3, shown=(0, 1, 2))
    many = policy.start_many([0, 0])
    assert many.recommendation.shape == (2, 2)
    shown = np.array([[0, 2], [-1, -1]])
    after = many.step(np.array([4, 4]), np.array([0.3, np.nan]), shown=shown)
    np.testing.assert_array_equal(after.shown[:, 0], shown)
    np.testing.assert_allclose(after.one(0).value, apart.value)


def test_what_is_simulated_under_displays():
    env = shop(exit_value=0.1)
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    for world in (None, env):
        drawn = mechanism.simulate(jax.random.key(2), 20_000, under=world)
        assert drawn.recommendation.shape == (20_000, 2, 2)
        mean, error = drawn.mean("surplus")
        assert abs(mean - policy.value.ravel()[0]) < 5 * error
    audit = mechanism.audit(under=env)
    np.testing.assert_allclose(audit.value.value, policy.value, rtol=0, atol=1e-12)
    given = dm.GivenPolicy(env, lambda belief, memory, theta, period: (0, 1))
    assert given.value <= given.upper
    assert given.start(profile=0).recommendation == (0, 1)
    turns = np.zeros(1, np.int64), lambda memory, shown: memory + 1
    counted = dm.GivenPolicy(env, lambda belief, memory, theta, period: (0, 1), memory=turns)
    np.testing.assert_allclose(counted.value, given.value, atol=1e-12)
    again = policy.revalue(gamma=env.gamma, marginals=True)
    np.testing.assert_allclose(again.value, policy.value, atol=1e-12)
    np.testing.assert_allclose(again.marginal_value, policy.marginal_value, atol=1e-12)


@pytest.mark.parametrize("solver", [None, dm.Stationary()], ids=["search", "rounds"])
def test_without_end(solver):
    long, endless = (shop(horizon=t, size=2, of=[(0, 1), (2,)]) for t in (12, np.inf))
    found = dm.solve_efficient_policy(endless, solver, tolerance=1e-4, progress=False)
    right = dm.solve_efficient_policy(long, dm.BranchAndBound(), tolerance=1e-4, progress=False)
    for below, above, low, high in (
        (found.lower, found.upper, right.lower, right.upper),
        (found.marginal_lower, found.marginal_upper, right.marginal_lower, right.marginal_upper),
    ):
        assert (below <= high + 1e-4).all()
        assert (low <= above + 1e-4).all()


def test_displays_as_they_are_declared():
    env = shop(ordered=True, of=[("bay", "ash"), ("ash",), (1, 2)])
    assert env.controls.tolist() == [[0, 3], [1, 0], [1, 2], [3, 3]]
    listed = [[0, 1], [2, 3], [3, 3]]
    for of in ([("bay", "ash"), ("cob",)], np.array(listed), [(0, 1), (2, -1)]):
        assert shop(of=of).controls.tolist() == listed
    single = shop(size=1, of=["bay"], horizon=1)
    policy = dm.solve_efficient_policy(single, progress=False)
    assert policy.start(profile=0).recommendation in (1, -1)
    assert shop().without_feedback().controls.tolist() == shop().controls.tolist()


class OneAtATime(dm.AbstractActionRule):
    def start(self, products, horizon):
        return np.full(1, products)

    def step(self, memory, recommendation, products):
        return jnp.asarray(recommendation)[None]

    def probabilities(self, memory, recommendation, utilities):
        n = utilities.shape[0]
        bought = 0.3 * (jnp.arange(n) == recommendation)[:, None] * jnp.ones(utilities.shape)
        rest = jnp.ones(utilities.shape[1:])
        return jnp.concatenate([bought, (0.5 * rest - bought.sum(0))[None], 0.5 * rest[None]])


def test_a_rule_for_one_product_is_told_one_and_refuses_several():
    alone = dm.solve_efficient_policy(shop(OneAtATime(), size=1), progress=False)
    assert alone.start(profile=0).recommendation in range(-1, 3)
    with pytest.raises(dm.InvalidArgument, match="OneAtATime"):
        shop(OneAtATime())


@pytest.mark.parametrize(
    "given",
    [
        {"size": 0},
        {"size": 4},
        {"of": [(0, 0)]},
        {"of": [(0, 1, 2)]},
        {"of": [(0, 7)]},
        {"of": [("elm",)]},
        {"of": [(0, 1), (1, 0)]},
        {"of": 3},
        {"round_cost": np.zeros(4)},
    ],
    ids=str,
)
def test_displays_that_cannot_be_are_refused(given):
    with pytest.raises(dm.DynmechError, match=r"(Displays|round_cost)"):
        shop(**given)
    with pytest.raises(dm.TooLarge, match="of="):
        dm.Displays(3).table(tuple(map(str, range(200))))


def test_a_network_says_that_it_is_for_one_product_at_a_time():
    with pytest.raises(dm.DynmechError, match="Neural"):
        dm.solve_efficient_policy(shop(), dm.Neural(), progress=False)


def test_saved_and_read(tmp_path):
    env = shop()
    policy = dm.solve_efficient_policy(env, progress=False)
    policy.save(tmp_path / "policy")
    held = dm.EfficientPolicy.load(tmp_path / "policy")
    assert held.env.controls.tolist() == env.controls.tolist()
    assert held.start(profile=0).recommendation == policy.start(profile=0).recommendation
    env.write(tmp_path / "market")
    back = dm.read_market(tmp_path / "market")
    assert back.controls.tolist() == env.controls.tolist()
