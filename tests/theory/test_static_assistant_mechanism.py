"""Payments of the shopping assistant: Propositions 3, 4 and 9, and slips 5 and 7."""

import jax
import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_array

import dynmech as dm
from dynmech import static as st
from dynmech.static.gaussian import select_largest
from experiments._assistant_market import revealing
from tests.helpers.assistant import EXACT, market, option, posterior, reports, types


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_proposition_4_no_report_gains_at_any_history(rounds):
    """Theta, signal and structure misreported, at the outset and at histories: gain 0.

    Settled on the mechanism's own posterior means instead, lies pay: Proposition 3 and after.
    """
    env = market(rounds)
    profile, nodes = reports(env), 8
    mechanism = st.AssistantMechanism(env, types(env), nodes=nodes)
    histories = [None]
    if rounds > 1:
        histories += [env.history([0], [[0.4, -0.5]])]
    if rounds == 2:
        histories += [env.history([-1], [[-1.0, 2.0]])]
    if rounds > 2:
        histories += [env.history([1, 0], [[0.1, 0.7], [-0.9, 0.0]])]
    for history in histories:
        audit = mechanism.audit(profile, history)
        assert (audit.incentive_gain <= audit.tolerance).all()
        assert (audit.message_gain > 0.1).all()
        worst = audit.message_witness[0]
        theta, *private = worst.report
        told = theta, *map(np.asarray, private), history
        data, words = mechanism.misreport_gain(profile, 0, *told)
        assert data <= audit.tolerance
        assert words == pytest.approx(worst.gain, abs=1e-12)
        assert "gains" in worst.sentence()
    value = st.solve_assistant(env, profile, nodes=nodes).worth.quadrature
    assert mechanism.audit(profile).value == pytest.approx(value, abs=1e-10)


def test_three_products_by_quadrature():
    """Three products, two rounds, no closed form: still no gain on data, and gains on messages."""
    feedback = 0.2 + 2.8 * np.eye(4, 3)
    env = st.ShoppingAssistant([0.1, 0.0, -0.2], np.eye(3) + 0.3, [1.0, 2.0, 3.0], 1.5, feedback, 2)
    signals = [[0.5, 0.0, 0.1], [-1.0, 1.0, 0.3], [1.5, -1.0, -0.5]]
    own = [
        st.AssistantTypes([0.1, 0.7], signals, np.stack([noise, noise / 2]))
        for noise in env.signal_noise
    ]
    profile = env.profile([0.1, 0.7, 0.1], signals, [0.2, 0.1, 0.4])
    mechanism = st.AssistantMechanism(env, own, dm.groves.NoSubsidy(displayable=True), nodes=8)
    audit, plan = mechanism.audit(profile), st.solve_assistant(env, profile, nodes=8)
    assert (audit.incentive_gain <= audit.tolerance).all()
    assert (audit.message_gain > 0.1).all()
    assert (audit.no_subsidy >= -1e-9).all()
    assert audit.value == pytest.approx(plan.worth.quadrature, abs=1e-10)
    assert plan.worth.lower < plan.worth.upper
    talk = st.simulate_assistant(env, profile, profile, jax.random.key(0), 20_000, nodes=8)
    seen = talk.recommendation[..., None] == np.arange(3)
    worth = (seen * (profile.theta + talk.omega[:, None])).sum(axis=(1, 2))
    error = worth.std() / np.sqrt(20_000)
    assert plan.worth.lower - 5 * error <= worth.mean() <= plan.worth.upper + 5 * error


def test_lies_that_move_the_decision_lose_what_they_cost():
    """T = 1: a lie that has j shown instead of i loses a_i - a_j, exactly; others lose nothing."""
    env = market(1)
    profile = reports(env)
    mechanism = st.AssistantMechanism(env, types(env))
    level = profile.theta + env.belief(profile).mean
    assert level[0] > level[1] > 0
    for signal in ([-3.0, 1.0], [5.0, 0.0], [-9.0, -9.0], [-3.0, 3.0]):
        told = profile.replace(0, theta=0.0, signal=signal)
        seen = told.theta + env.belief(told).mean
        worth = level[np.argmax(seen)] if seen.max() > 0 else 0.0
        data, _ = mechanism.misreport_gain(profile, 0, 0.0, signal)
        assert data == pytest.approx(worth - level[0], abs=EXACT)


def test_proposition_3_any_message_driven_transfers():
    """The least gain over *all* transfers on messages, by linear program.

    Half the cutoffs' spread. The program's types: all signals, and theta on a grid, so that its
    optimum is the closed form up to the grid.
    """
    env = market(1)
    profile = reports(env)
    grid = np.linspace(0, 1.5, 31)
    own = st.AssistantTypes(grid, types(env)[0].signals, env.signal_noise[0])
    found = st.least_message_gain(env, own, profile, 0)
    assert found > 0.1
    means = [env.belief(profile.replace(0, signal=s)).mean for s in own.signals]
    shown = np.concatenate([grid + m[0] >= max(profile.theta[1] + m[1], 0) for m in means])
    theta, count = np.tile(grid, len(means)), len(means) * len(grid)
    a, b = (index.ravel() for index in np.indices((count, count)))
    a, b = a[shown[a] != shown[b]], b[shown[a] != shown[b]]
    at = np.arange(len(a))
    rows = csr_array(  # t_b - t_a - epsilon <= theta_a (1{a is shown} - 1{b is shown})
        (
            np.concatenate([np.ones(len(a)), -np.ones(len(a)), -np.ones(len(a))]),
            (np.tile(at, 3), np.concatenate([b, a, np.full(len(a), count)])),
        )
    )
    bound = theta[a] * (shown[a].astype(float) - shown[b])
    box = [(None, None)] * count + [(0, None)]
    done = linprog(np.eye(count + 1)[-1], rows, bound, bounds=box, method="highs")
    assert done.fun <= found + 1e-7
    assert done.fun == pytest.approx(found, abs=2 * (grid[1] - grid[0]))


def test_message_driven_gain_is_unbounded_in_the_lie():
    """T = 1: she is paid E[omega_i | report]: each unit of the signal adds its weight, for ever."""
    env = market(1)
    profile = reports(env)
    mechanism = st.AssistantMechanism(env, types(env))
    gains = [mechanism.misreport_gain(profile, 0, signal=[s, 0.1])[1] for s in (5.0, 6.0, 7.0)]
    weight = env.belief(profile).covariance @ np.linalg.inv(env.signal_noise[0])
    np.testing.assert_allclose(np.diff(gains), weight[0, 0], atol=EXACT)


def test_payments_are_the_papers_transfers():
    env = market(2)
    mechanism = st.AssistantMechanism(env, types(env))
    paid = mechanism.payment(reports(env), 1, [0.5, -0.4])
    np.testing.assert_allclose(paid, [0.4 - 0.3, 0.4])
    np.testing.assert_array_equal(mechanism.payment(reports(env), -1, [0.5, -0.4]), 0)


def later_recommendation(env, reported, omega, first):
    """P(x_2 = r | omega, x_1), two rounds: the filter's mean is Gaussian given omega."""
    told = env.belief(reported)
    noise = np.linalg.inv(env.precision((first,)))
    gain = told.covariance @ np.linalg.inv(told.covariance + noise)
    mean = told.mean + gain @ (omega - told.mean) + reported.theta
    return select_largest(mean, gain @ noise @ gain.T).probability


def test_average_is_not_independent_of_reports_but_its_mean_is():
    """Slip 7: given omega, h_1 and x_1 the average's variance moves with the report, its mean not.

    Variance by hand: (R_1 + sum_r P(x_2 = r | omega) R_2(r)) / 4, R the noises. The gain of the
    very same report is still not positive.
    """
    env = market(2)
    truth, omega = reports(env), np.array([0.4, -0.6])
    lie = truth.replace(0, signal=[1.2, -1.5])
    plans = [st.solve_assistant(env, told) for told in (truth, lie)]
    first = plans[0].recommendation
    assert first == plans[1].recommendation == 0
    noise = {r: np.diag(np.linalg.inv(env.precision((first, r)))) for r in (0, 1, -1)}
    variances = []
    for seed, told in enumerate((truth, lie)):
        talk = st.simulate_assistant(env, truth, told, jax.random.key(seed), 40_000, omega=omega)
        average = talk.estimate[:, 0]
        chance = later_recommendation(env, told, omega, first)
        for k, r in enumerate((0, 1, -1)):
            share = (talk.recommendation[:, 1] == r).mean()
            assert share == pytest.approx(chance[k], abs=5 * np.sqrt(0.25 / 40_000))
        now = np.diag(np.linalg.inv(env.precision((first,))))
        by_hand = (now + sum(chance[k] * noise[r] for k, r in enumerate((0, 1, -1)))) / 4
        error = average.std(axis=0) / np.sqrt(40_000)
        assert (np.abs(average.mean(axis=0) - omega) <= 5 * error).all()
        squares = (average - omega) ** 2
        error = squares.std(axis=0) / np.sqrt(40_000)
        assert (np.abs(squares.mean(axis=0) - by_hand) <= 5 * error).all()
        variances.append(by_hand)
    assert np.abs(variances[0] - variances[1]).max() > 0.5
    mechanism = st.AssistantMechanism(env, types(env))
    data, words = mechanism.misreport_gain(truth, 0, signal=lie.signals[0])
    assert data <= 1e-12
    assert words != pytest.approx(data, abs=1e-3)


@pytest.mark.parametrize("rounds", [2, 3])
def test_realised_averages_settle_to_what_the_audit_expects(rounds):
    """Team payments from simulated conversations, under truth and a lie: 5 standard errors."""
    env = market(rounds)
    truth, nodes = reports(env), 8
    lie = truth.replace(0, theta=0.6, signal=[1.0, 1.0], noise=0.5 * np.eye(2))
    mechanism = st.AssistantMechanism(env, types(env), dm.groves.Zero(), nodes=nodes)
    worth = mechanism.audit(truth)
    for seed, told in enumerate((truth, lie)):
        talk = st.simulate_assistant(env, truth, told, jax.random.key(seed), 20_000, nodes=nodes)
        seen = talk.recommendation[..., None] == np.arange(2)
        # Agent 0: theta_0 earned, plus what she is paid. She is truthful about others' theta.
        paid = {
            "data": (talk.estimate * seen).sum(axis=(1, 2)),
            "words": (talk.quote * seen).sum(axis=(1, 2)),
        }
        earned = (seen * truth.theta).sum(axis=(1, 2))
        gains = mechanism.misreport_gain(
            truth, 0, told.theta[0], told.signals[0], told.signal_noise[0]
        )
        payoff = {kind: money + earned for kind, money in paid.items()}
        honest = {"data": worth.participation[0], "words": None}
        error = payoff["data"].std() / np.sqrt(20_000)
        expected = honest["data"] + gains[0]
        slack = 2e-3 if rounds == 3 else 0.0  # the audit's quadrature, see its bracket
        assert payoff["data"].mean() == pytest.approx(expected, abs=5 * error + slack)
        if told is truth:
            base = payoff["words"].mean(), payoff["words"].std() / np.sqrt(20_000)
        else:
            error = np.hypot(base[1], payoff["words"].std() / np.sqrt(20_000))
            found = payoff["words"].mean() - base[0]
            assert found == pytest.approx(gains[1], abs=5 * error + slack)
            assert gains[1] > 0.1


def test_groves_terms_may_not_depend_on_later_histories_or_nonlinearly_on_estimates():
    """Proposition 4's "arbitrary" h_i(xi_-i, h_tau, what): some pay for lies; two rounds.

    A reward of 1 if product 0 is shown in round 2, or of what^2, whose expectation is that of
    omega^2 plus the variance. What itself stays harmless.
    """
    env = market(2)
    truth = reports(env)
    lie = truth.replace(0, signal=[-0.5, -1.0])
    mechanism = st.AssistantMechanism(env, types(env))
    assert st.solve_assistant(env, lie).recommendation == 0
    data, _ = mechanism.misreport_gain(truth, 0, signal=lie.signals[0])
    assert data <= 0
    talks = [st.simulate_assistant(env, truth, t, jax.random.key(5), 40_000) for t in (truth, lie)]
    terms = {
        "reward": [1.0 * (talk.recommendation[:, 1] == 0) for talk in talks],
        "square": [talk.estimate[:, 0, 0] ** 2 for talk in talks],
        "linear": [talk.estimate[:, 0, 0] for talk in talks],
    }
    for name, (honest, deviant) in terms.items():
        change = deviant - honest
        error = change.std() / 200
        if name == "linear":
            assert abs(change.mean()) <= 5 * error
        else:
            assert data + change.mean() > 5 * error


def known(env, profile):
    return [st.AssistantTypes([0.0], [profile.signals[i]], env.signal_noise[i]) for i in range(2)]


def test_slip_5_participation_fails_by_one_half():
    """omega_i = -3: i is never shown, W = 0, yet Wd^{-i} = 1/2: slack -1/2 under h^-."""
    env, profile = revealing(-3.0)
    news = posterior(env, env.belief(profile).covariance, (0,))[1]
    assert option(-1.0, np.sqrt(news[1, 1])) == pytest.approx(0.5, abs=EXACT)
    plan = st.solve_assistant(env, profile)
    assert plan.value == pytest.approx(0, abs=EXACT)
    assert plan.recommendation == -1
    np.testing.assert_allclose(plan.displayable_marginal_value[0], 0.5, atol=EXACT)
    assert plan.marginal_value[0] == pytest.approx(0, abs=EXACT)
    for groves in (dm.groves.Participation(True), dm.groves.NoSubsidy(True)):
        audit = st.AssistantMechanism(env, known(env, profile), groves).audit(profile)
        assert audit.participation[0] == pytest.approx(-0.5, abs=EXACT)
        assert audit.no_subsidy[0] == pytest.approx(0.5, abs=EXACT)
    withdrawn = st.AssistantMechanism(env, known(env, profile), dm.groves.Participation())
    assert withdrawn.audit(profile).participation[0] == pytest.approx(0, abs=EXACT)


def test_slip_5_withdrawn_pivot_subsidises():
    """omega_i = 1: D_i > 0 = W^{-i}, so no subsidy needs the displayable economy."""
    env, profile = revealing(1.0)
    withdrawn = st.AssistantMechanism(env, known(env, profile), dm.groves.NoSubsidy())
    shown = st.AssistantMechanism(env, known(env, profile), dm.groves.NoSubsidy(displayable=True))
    assert withdrawn.audit(profile).no_subsidy[0] < -0.1
    found = shown.audit(profile)
    assert found.no_subsidy[0] >= -EXACT
    assert found.participation[0] > 0.5


@pytest.mark.parametrize("rounds", [1, 2])
def test_proposition_9_where_it_holds(rounds):
    """h^+: no subsidy at every profile. h^-: participation, where i's surplus is not negative."""
    env = market(rounds)
    own = [st.AssistantTypes.box(env, i, [0.0, 0.4, 3.0], points=2) for i in range(2)]
    rng, kept = np.random.default_rng(2), 0
    for _ in range(8):
        pick = [rng.integers(len(o.signals)) for o in own]
        theta = [o.theta[rng.integers(3)] for o in own]
        signals = [o.signals[k] for o, k in zip(own, pick, strict=True)]
        profile = env.profile(theta, signals, rng.normal(size=2))
        plus = st.AssistantMechanism(env, own, dm.groves.NoSubsidy(displayable=True)).audit(profile)
        minus = st.AssistantMechanism(env, own, dm.groves.Participation(displayable=True)).audit(
            profile
        )
        assert (plus.no_subsidy >= -1e-9).all()
        assert (plus.groves_total >= minus.groves_total - 1e-12).all()
        plan = st.solve_assistant(env, profile)
        level = profile.theta + plan.belief.mean
        safe = level >= 0 if rounds == 1 else plan.displayable_marginal_value <= plan.value
        assert (minus.participation[safe] >= -1e-9).all()
        kept += safe.sum()
    assert kept > 6


@pytest.mark.slow
def test_the_window_is_sharp_at_own_types():
    """The floor is the least total that subsidises no own type, the ceiling the most all accept."""
    env = market(1)
    own, profile = types(env), reports(env)
    told = [
        profile.replace(0, theta=t, signal=s, noise=q)
        for t in own[0].theta
        for s in own[0].signals
        for q in own[0].noise
    ]
    for term, name in (
        (dm.groves.WindowFloor(), "no_subsidy"),
        (dm.groves.WindowCeiling(), "participation"),
    ):
        mechanism = st.AssistantMechanism(env, own, term)
        slack = [getattr(mechanism.audit(each), name)[0] for each in told]
        assert min(slack) == pytest.approx(0, abs=1e-12)
        assert max(slack) > 0.01


def test_largest_marginal_value_over_a_box_is_at_a_vertex():
    """Wd^{-i} is convex in s_i: a search inside the box finds nothing above its vertices."""
    env = market(2)
    profile = reports(env)
    box = st.AssistantTypes.box(env, 0, [0.2], points=2)
    fine = st.AssistantTypes.box(env, 0, [0.2], points=7)
    rest = types(env)[1]
    tops = [
        st.AssistantMechanism(env, [own, rest], dm.groves.NoSubsidy(displayable=True)).groves_total(
            profile
        )[0]
        for own in (box, fine)
    ]
    assert tops[0] == pytest.approx(tops[1], abs=1e-12)

    def negative(signal):
        told = profile.replace(0, signal=signal)
        return -st.solve_assistant(env, told).displayable_marginal_value[0]

    low, high = box.signals.min(axis=0), box.signals.max(axis=0)
    start = (low + high) / 2
    found = minimize(negative, start, bounds=list(zip(low, high, strict=True)), method="L-BFGS-B")
    assert -found.fun <= tops[0] + 1e-9
