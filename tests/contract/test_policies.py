"""Every kind of policy through every question: an answer, or one refusal in words.

The market is tiny, so that every answer can be held against the exact solver's number.
"""

import dataclasses
import math

import equinox as eqx
import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.groves import AbstractGroves
from dynmech.settlement import AbstractSettlement

PROFILES = dm.Profiles(np.array([[0, 0], [1, 0]]), np.zeros((2, 3), int))
QUICK = dm.Certificate(runs=60, marginal_runs=60, rounds=1)
NETWORK = dm.Neural(sweeps=1, runs=2, steps=1, batch=2, cases=2, chunk=64, certificate=QUICK)


class OwnTerm(AbstractGroves):
    """`groves.NoSubsidy(displayable=True)` under another name."""

    side = "upper"

    def total(self, own):
        return np.fmax.reduce(own.displayable, axis=2)


class OwnSettlement(AbstractSettlement):
    """Settle with the estimate, under another name."""

    def payoff(self, at):
        earned = np.take_along_axis(at.theta, np.maximum(at.product, 0), axis=1)
        return (earned[:, :, None] + at.estimate)[:, None]

    def charge(self, at):
        return np.zeros((len(at.belief), 1))


def market(horizon=2.0, interval=None):
    return dm.RecommendationMDP(
        np.array([[1.0, -0.5], [-0.4, 0.9]]),
        dm.TasteGrid(
            np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.6]]), np.array([0.4, 0.3, 0.3])
        ),
        horizon if horizon == math.inf else int(horizon),
        dm.LastShownOnly(dm.Logit(0.5), query=0.6),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2)),
        dm.ConstantValues([[0.2, 0.8], [0.3, 0.7]], interval=interval),
    )  # fmt: skip


UTILITIES = np.array([[1.0, -0.5, 0.2], [-0.4, 0.9, 0.34]])


def likes(belief, memory, theta, period):
    """What the user likes least on average, whatever sellers would pay."""
    return int(np.argmin(UTILITIES @ belief))


class Likes(eqx.Module):
    """`likes` as a part that is saved with the policy."""

    def __call__(self, belief, memory, theta, period):
        return likes(belief, memory, theta, period)


class Shop(dm.AbstractPolicy):
    """A recommender of somebody's own, with an environment."""

    env: dm.RecommendationMDP

    def recommend(self, belief, memory, theta, period):
        return int(np.argmax(self.env.utilities @ belief))


SOLVERS = {
    "Exact": dm.Exact(),
    "Exact, the last round not listed": dm.Exact(listed=False),
    "BranchAndBound": dm.BranchAndBound(),
    "PointBased": dm.PointBased(),
    "Stationary": dm.Stationary(),
    "Neural": NETWORK,
    "Neural, simulated": dataclasses.replace(
        NETWORK, certificate=dataclasses.replace(QUICK, walk=0)
    ),
}
KINDS = (*SOLVERS, "GivenPolicy", "GivenPolicy, simulated", "own policy")


@pytest.fixture(scope="module")
def policies():
    found = {}
    for name, solver in SOLVERS.items():
        env = market(math.inf if name == "Stationary" else 2)
        asks = name in ("BranchAndBound", "PointBased", "Stationary")
        tolerance = 0.05 if asks else 0.0
        found[name] = dm.solve_efficient_policy(
            env, solver, initial=PROFILES, tolerance=tolerance, progress=False
        )
    found["GivenPolicy"] = dm.GivenPolicy(market(), likes, initial=PROFILES)
    found["GivenPolicy, simulated"] = dm.GivenPolicy(
        market(), Likes(), initial=PROFILES, certificate=dataclasses.replace(QUICK, walk=0)
    )
    found["own policy"] = dm.DynamicTeamMechanism(Shop(market()), dm.groves.Zero()).policy
    return found


def audited(mechanism):
    return mechanism.audit(conversations=30)


ENDS = ("value", "marginal_value", "displayable_marginal_value")
TABLES = (
    *ENDS, "lower", "upper", "incentive_bound", "advertiser_value", "user_utility", "purchase",
    "round_costs", *(f"{name}_{side}" for name in ENDS for side in ("lower", "upper")),
)  # fmt: skip
AVERAGES = ("ex_ante_value", "ex_ante_marginal_value")
QUESTIONS = {
    "tables": lambda p, tmp: [p.bounded(name) for name in TABLES],
    "facts": lambda p, tmp: (
        p.exact, p.confidence, p.solver, p.work, p.partial, p.complete, p.status.value
    ),
    "frame": lambda p, tmp: p.to_frame(),
    "dataset": lambda p, tmp: p.to_xarray(),
    "save": lambda p, tmp: (p.save(tmp / "p"), type(p).load(tmp / "p", (Likes,)))[1],
    "conversation": lambda p, tmp: p.start(profile=0).step("query", [0, 0, 0]).undo().value,
    "considered": lambda p, tmp: p.start(profile=0).considered(0),
    "worth": lambda p, tmp: p.start(profile=0).worth(p.start(profile=0).recommendation),
    "certify": lambda p, tmp: p.start(profile=0).certify(),
    "recommend": lambda p, tmp: p.recommend(
        p.start(profile=0).belief, p.player.process.start(), p.player.theta(0), 1
    ),
    "revalue": lambda p, tmp: p.revalue(theta_support=p.env.values.support + 0.1).value,
    "actions": lambda p, tmp: p.with_actions(p.actions),
    "compare": lambda p, tmp: p.compare(("myopic",), conversations=8),
    "relax": lambda p, tmp: p.relax(30, rounds=1, beam=4),
    "simulate": lambda p, tmp: dm.DynamicTeamMechanism(p).simulate(jax.random.key(0), 8),
    "lie": lambda p, tmp: dm.DynamicTeamMechanism(p, dm.groves.Zero()).simulate(
        jax.random.key(0), 4, {0: lambda t, theta, z: (1 - theta, z)}
    ),
    "own term": lambda p, tmp: dm.DynamicTeamMechanism(p, OwnTerm()).groves_total,
    "data driven": lambda p, tmp: dm.DynamicTeamMechanism(p, dm.groves.DataDriven()).own,
    "settle": lambda p, tmp: dm.DynamicTeamMechanism(p).settle(p.start(profile=0).step("exit")),
    "audit": lambda p, tmp: audited(dm.DynamicTeamMechanism(p)).summary(),
    "cumulative": lambda p, tmp: audited(dm.DynamicTeamMechanism(p, reports="cumulative")),
    "own settlement": lambda p, tmp: dm.DynamicTeamMechanism(p).audit(
        OwnSettlement(), conversations=30
    ),
    "all histories": lambda p, tmp: dm.DynamicTeamMechanism(p).audit(
        histories="all", conversations=30
    ),
    "best response": lambda p, tmp: dm.DynamicTeamMechanism(p).best_response().gain,
    "moments": lambda p, tmp: dm.payment_moments(dm.DynamicTeamMechanism(p)).mean,
    "assumption 3": lambda p, tmp: dm.check_assumption_3(dm.DynamicTeamMechanism(p)),
    "comparators": lambda p, tmp: dm.compare(dm.DynamicTeamMechanism(p)).surplus,
    "verdicts": lambda p, tmp: dm.DynamicTeamMechanism(p).audit(conversations=30).verdicts,
    "tree": lambda p, tmp: dm.plotting.policy_tree(p),
}  # fmt: skip
COIN = iter(np.random.default_rng(0).integers(0, 1000, 10_000).tolist())
REFUSED: dict[tuple[str, str], str] = {}


def asked(question, policy, folder):
    """The answer, and the words of a refusal."""
    folder.mkdir()
    try:
        return QUESTIONS[question](policy, folder), None
    except dm.DynmechError as error:
        return None, str(error)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_policy_answers_or_refuses_in_words(policies, question, tmp_path):
    for kind, policy in policies.items():
        answer, words = asked(question, policy, tmp_path / kind.replace(" ", ""))
        if words is None:
            assert answer is not None, kind
            continue
        REFUSED[question, kind] = words
        named = policy.solver.split(",")[0].split(":")[0]
        assert [part for part in ("must", "; got ", named) if part not in words] == [], words


def test_every_policy_goes_on_after_silence_and_other_displays(policies):
    for kind, policy in policies.items():
        chat = policy.start([1, 0], [0, 0, 0]).step("query")
        assert chat.recommendation in (-1, 0, 1), kind
        assert np.isfinite(chat.value), kind
        end = chat.step(0, shown=0)
        np.testing.assert_allclose(end.theta, [0.8, 0.3], err_msg=kind)
        mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
        paid = mechanism.settle([end, policy.start(profile=0).step("exit")], [0.2, None])
        np.testing.assert_allclose(paid.transfer.sum(axis=0), [-0.2, -1.0], err_msg=kind)


def test_at_most_one_cell_in_ten_is_refused(policies):
    """Asked last: each for a reason of mathematics, no belief tree or not all of it."""
    assert len(REFUSED) <= len(QUESTIONS) * len(policies) / 10, sorted(REFUSED)


def test_bounds_hold_the_exact_numbers(policies):
    exact = policies["Exact"]
    for kind, policy in policies.items():
        if kind in ("Stationary", "own policy"):  # another market, another batch
            continue
        assert (policy.lower <= exact.value + 1e-9).all(), kind
        assert (policy.upper >= exact.value - 1e-9).all(), kind
        assert (policy.value_lower <= policy.upper + 1e-9).all(), kind
        for name in ("marginal_value", "displayable_marginal_value"):
            bounds, true = policy.bounded(name), getattr(exact, name)
            assert (bounds.upper >= true - 1e-9).all(), (kind, name)
            assert (bounds.lower <= true + 1e-9).all() or bounds.confidence < 1, (kind, name)


def between(found, table):
    """Whether a bounded number has a table's numbers, inside its bounds."""
    np.testing.assert_array_equal(found.value, table)
    known = ~np.isnan(found.value)
    return ((found.lower <= found.value) & (found.value <= found.upper))[known].all()


def test_every_table_is_a_bounded_number(policies):
    for kind, policy in policies.items():
        for name in TABLES:
            assert between(policy.bounded(name), getattr(policy, name)), (kind, name)
        for name in AVERAGES:
            if policy.complete:
                assert between(policy.bounded(name), getattr(policy, name)), (kind, name)
            else:
                with pytest.raises(dm.DynmechError, match="estimate_ex_ante"):
                    policy.bounded(name)
        with pytest.raises(dm.OutsideSupport, match="did you mean 'purchase'"):
            policy.bounded("purchases")


def test_means_over_profiles_are_those_of_their_tables():
    """Exactly, and with bounds that hold at all profiles at once where they are simulated."""
    exact = dm.solve_efficient_policy(market(), progress=False)
    chance = np.full((2, 2), 0.25)
    mean = exact.bounded("ex_ante_value")
    assert mean.value == pytest.approx((chance * exact.value.reshape(2, 2)).sum(), abs=1e-12)
    assert mean.upper - mean.lower < 1e-12
    without = (exact.marginal_value.reshape(2, 2, 2) * chance).sum(axis=(1, 2))
    np.testing.assert_allclose(exact.ex_ante_marginal_value, without, atol=1e-12)
    never = dataclasses.replace(QUICK, walk=0)
    played = dm.GivenPolicy(market(), Likes(), certificate=never)
    walked = dm.GivenPolicy(market(), Likes())
    for name in AVERAGES:
        found, true = played.bounded(name), walked.bounded(name)
        assert found.confidence == 0.95
        assert (found.lower <= true.value).all()
        assert (found.upper >= true.value).all()
    each = played.bounded("value")
    assert found.value == pytest.approx(played.ex_ante_marginal_value, abs=1e-12)
    assert played.bounded("ex_ante_value").lower < np.nanmean(each.lower)


def test_every_table_of_an_audit_is_a_bounded_number(policies):
    names = (
        "incentive_gain", "incentive_gain_lower", "incentive_gain_upper", "incentive_bound",
        "gain_by_period", "participation", "no_subsidy", "ex_ante_participation",
        "ex_ante_no_subsidy", "groves_total",
    )  # fmt: skip
    for kind in ("Exact", "BranchAndBound", "Neural, simulated", "GivenPolicy, simulated"):
        audit = audited(dm.DynamicTeamMechanism(policies[kind]))
        for name in names:
            assert between(audit.bounded(name), getattr(audit, name)), (kind, name)
        for part in ("floor", "ceiling"):
            assert between(audit.bounded(f"window.{part}"), getattr(audit.window, part)), kind
        for name in ("payments", "revenue", "user_surplus"):
            assert between(audit.bounded(name), getattr(audit.budget, name)), (kind, name)
        with pytest.raises(dm.OutsideSupport, match="did you mean 'incentive_gain'"):
            audit.bounded("incentive_gains")


def test_a_term_of_ones_own_charges_what_ours_does(policies):
    for kind, policy in policies.items():
        ours = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy(displayable=True)).groves_total
        own = dm.DynamicTeamMechanism(policy, OwnTerm()).groves_total
        np.testing.assert_allclose(own, ours, rtol=0, atol=1e-12, err_msg=kind)


def test_a_recommender_is_worth_what_it_attains(policies):
    """By brute force: both symbols of one query, every taste."""
    policy, env = policies["GivenPolicy"], market()
    utilities, weights = np.asarray(env.utilities), np.asarray(env.tastes.weights)
    theta = env.values.support[:, 0]

    def walk(belief, period):
        shown = likes(belief / belief.sum(), None, theta, period)
        share = 1 / (1 + np.exp(-utilities[shown] / 0.5))
        again = 0.6 if period < 2 else 0.0
        total = belief @ ((1 - 0.6) * share * (theta[shown] + utilities[shown]))
        if again:
            law = np.asarray(env.signals.feedback.likelihood(None, shown, 0, env.utilities))
            total += sum(walk(belief * again * law[:, z], 2) for z in range(2))
        return total

    np.testing.assert_allclose(policy.value[0], walk(weights, 1), atol=1e-12)
    assert (policy.value <= policy.upper + 1e-12).all()
    np.testing.assert_allclose(policy.upper, policies["Exact"].value, atol=1e-12)
    audit = dm.DynamicTeamMechanism(policy).audit()
    assert (audit.incentive_gain <= audit.incentive_bound + 1e-9).all()


@pytest.mark.parametrize(
    ("recommend", "kind", "words"),
    [
        (lambda b, h, t, p: 7, dm.OutsideSupport, "return a control"),
        (lambda b, h, t, p: np.nan, dm.InvalidArgument, "one control"),
        (lambda b, h, t, p: np.zeros((2, 2)), dm.InvalidArgument, "one control"),
        (lambda b, h, t, p: "red", dm.InvalidArgument, "one control"),
        (lambda b, h, t, p: next(COIN) % 2, dm.InvalidArgument, "function"),
        (3, dm.InvalidArgument, "function"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(recommend, kind, words):
    with pytest.raises(kind, match=words):
        dm.GivenPolicy(market(), recommend, initial=PROFILES)


def test_a_term_that_reads_the_own_report_is_refused(policies):
    class Reads(AbstractGroves):
        side = "both"

        def total(self, own):
            return own.payoff[:, :, 0, 0]

    class Mute(AbstractGroves):
        def total(self, own):
            return np.zeros(own.signal.shape)

    with pytest.raises(dm.InvalidArgument, match="own report"):
        dm.DynamicTeamMechanism(policies["Exact"], Reads())
    dm.DynamicTeamMechanism(policies["Exact"], Mute())
    with pytest.raises(dm.InvalidArgument, match="side"):
        dm.DynamicTeamMechanism(policies["BranchAndBound"], Mute())
    with pytest.raises(dm.InvalidArgument, match="env"):
        dm.DynamicTeamMechanism("a policy")
