"""A solver of one's own is used like those here: its bounds, its plan, its mistakes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
import solvers


def market(values=None, horizon=3):
    signals = dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2))
    values = values or dm.ConstantValues([[0.5, 0.9], [0.6, 0.2]], [[0.5, 0.5], [0.3, 0.7]])
    rule = dm.PerfectRecall(dm.Logit(0.5), query=0.7)
    tastes = dm.TasteGrid(np.eye(2), np.array([0.4, 0.6]))
    return dm.RecommendationMDP([[1.0, -0.5], [-0.4, 0.9]], tastes, horizon, rule, signals, values)


def moving():
    stay = np.broadcast_to([[0.8, 0.2], [0.3, 0.7]], (3, 2, 2, 2))
    return dm.MarkovValues([[0.5, 0.9], [0.6, 0.2]], [[0.5, 0.5], [0.3, 0.7]], stay)


def solve(env, solver=None, **options):
    return dm.solve_efficient_policy(env, solver, progress=False, **options)


class Bare(dm.AbstractSolver):
    """Bounds and a plan that only says what to do: what another solver found, and no more of it."""

    def solve(self, problem, tasks, limits, progress):
        found = dm.Exact().solve(problem, tasks, limits, progress)
        return solvers.Solution(found.lower, found.upper, found.status, found.plan)


class Always(solvers.AbstractPlan):
    """One control for ever where it is allowed, else none."""

    control: int = eqx.field(static=True)
    allowed: np.ndarray

    def act(self, node):
        wanted = self.allowed[node.task, self.control]
        return self.control if wanted else self.allowed.shape[1] - 1


class Stubborn(dm.AbstractSolver):
    """One control for ever, and bounds that are told, not found."""

    control: int = eqx.field(static=True)
    lower: float = eqx.field(static=True, default=0.0)
    status: dm.Status = eqx.field(static=True, default=dm.Status.TIME_LIMIT)

    def solve(self, problem, tasks, limits, progress):
        allowed = np.stack([task.allowed for task in tasks])
        upper = np.array([3.0 * task.root.sum() for task in tasks])
        plan = Always(self.control, allowed)
        return solvers.Solution(self.lower * tasks.mass, upper, self.status, plan)


@pytest.mark.parametrize("values", [None, moving()], ids=["constant", "moving"])
def test_bounds_and_what_to_do_are_enough_for_everything_exact(values):
    env = market(values)
    exact, own = solve(env), solve(env, Bare())
    assert own.status is dm.Status.EXACT
    for name in ("value", "lower", "upper", "marginal_value", "displayable_marginal_value",
                 "advertiser_value", "user_utility", "purchase"):  # fmt: skip
        np.testing.assert_allclose(getattr(own, name), getattr(exact, name), atol=1e-12)
    audits = [dm.DynamicTeamMechanism(policy).audit() for policy in (own, exact)]
    np.testing.assert_allclose(audits[0].incentive_gain, audits[1].incentive_gain, atol=1e-12)


def test_what_its_plan_attains_is_found_whatever_it_says():
    env = market()
    exact = solve(env)
    with pytest.warns(dm.DynmechWarning, match="time allowed"):
        own = solve(env, Stubborn(0), tolerance=0.01)
    assert own.status is dm.Status.TIME_LIMIT
    assert (own.plan.actions[0] == 0).all()
    total = own.advertiser_value.sum(axis=0) + own.user_utility.sum(axis=0)
    np.testing.assert_allclose(own.value, total, atol=1e-12)
    assert (own.lower <= exact.value + 1e-12).all()
    assert (exact.value <= own.upper + 1e-12).all()
    audit = dm.DynamicTeamMechanism(own).audit()
    assert audit.incentive_gain.max() <= audit.gap.bound + 1e-12


def test_a_missed_tolerance_raises_on_demand_and_the_error_has_the_policy():
    with pytest.raises(dm.ToleranceMissed, match="tolerance") as caught:
        solve(market(), Stubborn(0), throw=True)
    assert isinstance(caught.value.policy, dm.EfficientPolicy)


class ToldCritic(dm.AbstractCritic):
    """Beliefs are worth what a platform that is told the taste would get, times a share."""

    share: np.ndarray

    def summaries(self, view):
        return jnp.zeros((view.shape[1], 1))

    def __call__(self, summary, fixed, remaining, case, scale):
        return self.share * fixed[len(case.coefficient) + 2]


class Optimist(dm.AbstractLearner):
    """A learner that has read what to think."""

    chunk: int = eqx.field(static=True, default=64)
    certificate: dm.Certificate | None = None
    share: float = eqx.field(static=True, default=0.9)

    def learn(self, process, roots, limits, progress):
        assert all(abs(root.belief.sum() - 1) < 1e-6 for root in roots)
        return solvers.Learned(ToldCritic(np.asarray(self.share)), "nothing was learned")


def test_a_learner_of_ones_own_stands_where_the_network_stands(tmp_path):
    env, certificate = market(horizon=2), dm.Certificate(100, 50, walk=0)
    exact, own = solve(env), solve(env, Optimist(certificate=certificate))
    assert own.solver.startswith("Optimist: nothing was learned")
    assert (own.lower <= exact.value + 1e-9).all()
    assert (exact.value <= own.upper + 1e-9).all()
    assert (own.marginal_value_lower <= exact.marginal_value + 1e-9).all()
    assert (exact.marginal_value <= own.marginal_value_upper + 1e-9).all()
    own.save(tmp_path / "own")
    again = dm.EfficientPolicy.load(tmp_path / "own", parts=(ToldCritic,))
    at = {"theta": [0, 1], "signals": [0, 0, 0]}
    assert again.start(**at).recommendation == own.start(**at).recommendation
    audit = dm.DynamicTeamMechanism(own).audit(conversations=64)
    assert (audit.incentive_gain_lower <= own.incentive_bound.max() + 1e-9).all()


def test_where_a_learners_tree_fits_it_is_walked():
    env = market(horizon=2)
    exact, own = solve(env), solve(env, Optimist(certificate=dm.Certificate(100, 50)))
    assert (own.value <= exact.value + 1e-12).all()
    assert own.value_upper.max() - own.value_lower.max() < 1e-9
    audit = dm.DynamicTeamMechanism(own).audit()
    assert audit.incentive_gain.max() <= audit.gap.bound + 1e-12


def test_nonsense_of_a_learner_is_named():
    with pytest.raises(dm.InvalidArgument, match=r"Optimist.learn.*finite"):
        solve(market(horizon=2), Optimist(share=np.nan))


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        (Stubborn(0, lower=4.0), "cross"),
        (Stubborn(0, lower=np.nan), "numbers"),
        (Stubborn(-1), "controls"),
    ],
)
def test_nonsense_of_a_solver_is_named(solver, words):
    with pytest.raises(dm.DynmechError, match=words):
        solve(market(), solver)


@pytest.mark.parametrize("solver", [dm.BranchAndBound(), dm.PointBased(), None])
def test_a_share_of_the_upper_bound_is_close_enough(solver):
    env = market()
    exact, found = solve(env), solve(env, solver, relative=0.2)
    assert (found.upper - found.lower <= 0.2 * found.upper + 1e-12).all()
    assert (found.marginal_upper - found.marginal_value <= 0.2 * found.marginal_upper + 1e-12).all()
    assert (found.lower <= exact.value + 1e-12).all()
    assert (exact.value <= found.upper + 1e-12).all()
    assert found.status in (dm.Status.EXACT, dm.Status.WITHIN_TOLERANCE)


@pytest.mark.parametrize(
    "options", [{"relative": 1.0}, {"relative": -0.1}, {"memory": 0}, {"seconds": -1.0}]
)
def test_limits_that_say_nothing_are_refused(options):
    with pytest.raises(dm.InvalidArgument, match=next(iter(options))):
        solve(market(), **options)
