"""The audit finds what was planted, and its witnesses can be replayed by hand."""

import equinox as eqx
import numpy as np
import pytest

import dynmech as dm
from dynmech.audit import shared
from dynmech.market.settlements import AbstractSettlementSignal
from tests.helpers import oracle
from tests.helpers.deviations import (
    nothing,
    private_gains,
    replay,
    second_price,
    settled,
)
from tests.helpers.markets import (
    corollary_1_counterexample,
    proposition_9_counterexample,
    random_market,
)
from tests.helpers.quantities import TOLERANCE, market_of, solve
from tests.helpers.small import logit_market

OPTIONS = {
    "markov": {},
    "constant": {"constant": True, "horizon": 3, "symbols": (2, 2, 1), "recall": "ordered"},
    "three products": {"n": 3, "symbols": (1, 2, 1, 1), "initial_symbols": (1, 2, 2, 1)},
    "zeros": {"zeros": 0.3, "constant": True},
}


def made(name, **more):
    seed = [51, list(OPTIONS).index(name)]
    case = random_market(np.random.default_rng(seed), **OPTIONS[name], **more)
    return case, solve(market_of(case))


def check_witnesses(case, policy, audit, settlement, agent_nodes=None):
    """Replay every witness; return how many there are."""
    atol, names, seen = TOLERANCE * policy.env.money_scale, policy.env.names, 0
    for i, witness in enumerate(audit.witness):
        assert witness.advertiser == names[i]
        assert witness.gain == audit.incentive_gain[i]
        if witness.gain == 0:
            continue
        assert witness.truth != witness.report
        nodes = agent_nodes and agent_nodes[i]
        found = replay(case, witness, names, settlement, nodes)
        np.testing.assert_allclose(witness.gain, found[0], rtol=0, atol=atol)
        labels = (*names, "none")
        assert (witness.honest, witness.deviant) == (labels[found[1]], labels[found[2]])
        if isinstance(policy.env.values, dm.ConstantValues):
            np.testing.assert_allclose(witness.probability, found[3], rtol=0, atol=1e-12)
        assert witness.advertiser in witness.sentence()
        seen += witness.gain > atol
    return seen


@pytest.mark.parametrize("name", OPTIONS)
def test_a_biased_estimator_is_found_and_its_witness_can_be_replayed(name):
    case, policy = made(name, biased=True)
    audit = dm.DynamicTeamMechanism(policy).audit()
    assert check_witnesses(case, policy, audit, oracle.ESTIMATOR) >= 1
    assert audit.incentive_gain.max() > 1e-3
    assert "FAIL" in audit.summary().splitlines()[1]


@pytest.mark.parametrize("name", OPTIONS)
def test_message_driven_transfers_are_found_with_private_signals(name):
    case, policy = made(name)
    mechanism = dm.DynamicTeamMechanism(policy)
    audit = mechanism.audit(dm.settlement.MessageDriven())
    assert check_witnesses(case, policy, audit, oracle.MESSAGE) >= 1
    assert audit.incentive_gain.max() > 1e-4
    honest = mechanism.audit()
    assert honest.incentive_gain.max() <= honest.tolerance
    assert "HOLD" in honest.summary().splitlines()[1]


@pytest.mark.parametrize("seed", range(3))
def test_message_driven_transfers_are_harmless_without_private_signals(seed):
    case = random_market(np.random.default_rng(seed), private=False, recall="ordered")
    audit = dm.DynamicTeamMechanism(solve(market_of(case))).audit(dm.settlement.MessageDriven())
    assert audit.incentive_gain.max() <= audit.tolerance
    assert audit.deviations > 0


def mirrored(seed):
    """Feedback in which (platform, advertiser 0) = (0, 1) and (1, 0) mean the same."""
    case = random_market(
        np.random.default_rng(seed), constant=True, symbols=(2, 2, 1), initial_symbols=(1,), K=1
    )
    table = case["feedback"].copy()
    table[:, :, 0, 1] = table[:, :, 1, 0] = (table[:, :, 0, 1] + table[:, :, 1, 0]) / 2
    return case | {"feedback": table}


@pytest.mark.parametrize("seed", range(6))
def test_a_witness_on_a_merged_node_names_signals_that_lead_to_it(seed):
    """Two pairs of symbols reach one node, but lies about them lead to different nodes."""
    case = mirrored(seed)
    policy = solve(market_of(case))
    audit = dm.DynamicTeamMechanism(policy).audit(dm.settlement.MessageDriven())
    found = oracle.solve_by_brute_force(case)["gain_message"]
    np.testing.assert_allclose(audit.incentive_gain, found, rtol=0, atol=1e-9)
    check_witnesses(case, policy, audit, oracle.MESSAGE)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    ("settlement", "price"),
    [
        (dm.settlement.NoTransfers(), nothing),
        (dm.settlement.PerPurchaseSecondPrice(), second_price),
    ],
    ids=["none", "second price"],
)
def test_private_payoffs_against_brute_force(name, settlement, price):
    case, policy = made(name)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    audit = mechanism.audit(settlement)
    expected = private_gains(case, price)
    atol = TOLERANCE * policy.env.money_scale
    np.testing.assert_allclose(audit.incentive_gain, expected, rtol=0, atol=atol)
    assert expected.max() > 1e-3
    nodes = [settled(case, i, price)[1] for i in range(policy.env.products)]
    assert check_witnesses(case, policy, audit, 0, nodes) >= 1
    for i, table in enumerate(nodes):
        root = table[()]
        mass = root.belief.sum(1)[:, None]
        with np.errstate(invalid="ignore"):
            payoff = np.einsum("am,atm->at", root.belief, root.truthful()[0]) / mass
        payoff = payoff.T.reshape(policy.value.shape)
        np.testing.assert_allclose(audit.participation[i], payoff, rtol=0, atol=atol)
        np.testing.assert_allclose(
            audit.budget.payments[i], policy.advertiser_value[i] - payoff, rtol=0, atol=atol
        )


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_constraints_and_budget_against_brute_force(name, biased):
    case, policy = made(name, biased=biased)
    found, atol = oracle.solve_by_brute_force(case), TOLERANCE * policy.env.money_scale
    weight = policy.probability()
    for term, key in (
        (dm.groves.Participation(), "phi_minus"),
        (dm.groves.NoSubsidy(displayable=True), "phi_plus_displayable"),
        (dm.groves.WindowFloor(), "window_floor"),
    ):
        audit = dm.DynamicTeamMechanism(policy, groves=term).audit()
        deficit = found["agent_payoff"] - found["advertiser_value"] - found["user_utility"]
        expected = {
            "groves_total": found[key],
            "participation": found["agent_payoff"] - found[key],
            "no_subsidy": found[key] - deficit,
        }
        for name_, table in expected.items():
            np.testing.assert_allclose(getattr(audit, name_), table, rtol=0, atol=atol)
        payments = found[key] + found["advertiser_value"] - found["agent_payoff"]
        np.testing.assert_allclose(audit.budget.payments, payments, rtol=0, atol=atol)
        np.testing.assert_allclose(audit.budget.revenue, payments.sum(0), rtol=0, atol=atol)
        np.testing.assert_allclose(
            audit.budget.user_surplus, found["user_utility"].sum(0), rtol=0, atol=atol
        )
        np.testing.assert_allclose(audit.window.floor, found["window_floor"], rtol=0, atol=atol)
        ceiling = found["window_ceiling"]
        np.testing.assert_allclose(audit.window.ceiling, ceiling, rtol=0, atol=atol)
        known = ~np.isnan(ceiling)
        gap = found["window_floor"] - ceiling
        sure = known & (np.abs(gap) > atol)
        np.testing.assert_array_equal(audit.window.open[sure], (gap <= 0)[sure])
        assert not audit.window.open[~known].any()
        for i in range(policy.env.products):
            mean = np.nansum(weight * expected["participation"][i])
            np.testing.assert_allclose(audit.ex_ante_participation[i], mean, rtol=0, atol=atol)
            mean = np.nansum(weight * expected["no_subsidy"][i])
            np.testing.assert_allclose(audit.ex_ante_no_subsidy[i], mean, rtol=0, atol=atol)


def test_groves_terms_keep_what_they_promise():
    """And within an open window, floor and ceiling keep both promises."""
    for name in OPTIONS:
        _, policy = made(name)
        eps = 1e-12 * policy.env.money_scale
        audits = {
            key: dm.DynamicTeamMechanism(policy, groves=term).audit()
            for key, term in {
                "minus": dm.groves.Participation(),
                "plus": dm.groves.NoSubsidy(displayable=True),
                "floor": dm.groves.WindowFloor(),
                "ceiling": dm.groves.WindowCeiling(),
            }.items()
        }
        assert np.nanmin(audits["minus"].participation) >= -eps
        assert np.nanmin(audits["plus"].no_subsidy) >= -eps
        assert np.nanmin(audits["floor"].no_subsidy) >= -eps
        assert np.nanmin(audits["ceiling"].participation) >= -eps
        possible = ~np.isnan(policy.value)
        both = audits["ceiling"].window.open & possible
        assert (audits["ceiling"].no_subsidy[both] >= -eps).all()
        assert (audits["floor"].participation[both] >= -eps).all()
        assert both.any()


def spoiled(policy, period, pair, node, control):
    actions = [taken.copy() for taken in policy.plan.actions]
    actions[period][pair, node] = control
    return policy.with_actions(actions)


def test_a_spoiled_action_in_a_market_of_one_round_by_hand():
    """One round: the plan is a recommendation for each report, so gains are differences of V."""
    env = logit_market(n=2, horizon=1, seed=3, values=3, symbols=2)
    policy = solve(env)
    theta, signals = (1, 2), (0, 1, 0)
    pair = int(policy.pairs.base[np.ravel_multi_index((*theta, *signals), env.profile_shape)])
    chat = policy.start(theta, signals)
    worth = np.array([chat.belief @ chat.worth(r) for r in (0, 1, -1)])
    bad = int(np.argmin(worth))
    wrong = spoiled(policy, 0, pair, 0, bad)
    audit = dm.DynamicTeamMechanism(wrong).audit()
    for i in range(2):
        offered = set()
        for k in range(3):
            for z in range(2):
                said, told = list(theta), list(signals)
                said[i], told[i + 1] = k, z
                offered.add(wrong.start(said, told).recommendation)
        gain = max(worth[r] for r in offered) - worth[bad]
        np.testing.assert_allclose(audit.incentive_gain[i], gain, rtol=0, atol=1e-12)
        assert gain > 1e-3
        witness = audit.witness[i]
        assert witness.honest == (*env.names, "none")[bad]
        assert witness.theta == tuple(env.values.support[[0, 1], theta])
        assert witness.signals == signals
        assert witness.period == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_spoiled_action_in_the_last_round_is_found(seed):
    """Spoil one node of period 2 that truth reaches; the gain there is conditional on it."""
    case = random_market(
        np.random.default_rng(seed), constant=True, symbols=(2, 2, 2), initial_symbols=(1,)
    )
    policy = solve(market_of(case))
    start = policy.start((1, 0), (0, 0, 0))
    after = start.step("query", (1, 0, 1))
    worth = np.array([after.belief @ after.worth(r) for r in (0, 1, -1)])
    wrong = spoiled(policy, 1, after.place.pair, after.place.node, int(np.argmin(worth)))
    audit = dm.DynamicTeamMechanism(wrong).audit()
    lost = worth.max() - worth.min()
    assert audit.first_gain.max() <= lost * after_probability(case, start, (1, 0, 1)) + 1e-12
    assert 1e-3 < audit.incentive_gain.max() <= lost + 1e-12
    worst = audit.witness[int(np.argmax(audit.incentive_gain))]
    assert worst.period == 2
    assert worst.history == ((policy.env.names[start.recommendation], (1, 0, 1)),)
    again = eqx.tree_at(lambda p: p.plan.actions, policy, wrong.plan.actions)
    found = dm.DynamicTeamMechanism(again).audit()
    np.testing.assert_array_equal(found.incentive_gain, audit.incentive_gain)


def after_probability(case, chat, symbols):
    row = chat.recommendation % 3
    law = case["action"][row, 3] * case["feedback"][(row, slice(None), *symbols)]
    return float(law @ chat.belief)


class Flattering(AbstractSettlementSignal):
    """A rating that flatters product 0, by `bias` on average."""

    bias: float

    def mean(self, memory, recommendation, utilities):
        return utilities + self.bias * (np.arange(utilities.shape[0]) == 0)[:, None]

    def noise(self, utilities=None):
        return 1.0

    def draw(self, rng, utilities, product, omega, mean):
        return mean + rng.standard_normal(len(mean))


def test_a_biased_estimator_of_ones_own_is_found():
    policy = solve(logit_market(seed=2))
    mechanism = dm.DynamicTeamMechanism(policy, estimator=Flattering(0.5))
    audit = mechanism.audit()
    assert 1e-3 < audit.incentive_gain.max() <= 2 * 0.5
    assert dm.DynamicTeamMechanism(policy).audit().incentive_gain.max() <= audit.tolerance
    expected = np.stack([policy.value + 0.5 * policy.purchase[0]] * 2)
    np.testing.assert_allclose(mechanism.agent_payoff, expected, rtol=0, atol=1e-12)
    total = mechanism.groves_total
    np.testing.assert_allclose(audit.participation, expected - total, rtol=0, atol=1e-12)


def test_corollary_1_fails():
    """Model page, section 7, item 5: nobody has private signals, and the window is empty."""
    policy = solve(market_of(corollary_1_counterexample()))
    low = (0, slice(None), 0, 0, 0)  # theta_0 = 0
    np.testing.assert_allclose(policy.value[low], 0.5, rtol=0, atol=1e-15)
    np.testing.assert_allclose(policy.marginal_value[0], 0.0, rtol=0, atol=1e-15)
    audit = dm.DynamicTeamMechanism(policy, groves=dm.groves.NoSubsidy()).audit()
    np.testing.assert_allclose(audit.window.floor[0], 1.0, rtol=0, atol=1e-15)
    np.testing.assert_allclose(audit.window.ceiling[0], 0.5, rtol=0, atol=1e-15)
    assert not audit.window.open[0].any()
    np.testing.assert_allclose(audit.no_subsidy[0], -1.0, rtol=0, atol=1e-15)
    assert (audit.participation[0] >= 0).all()
    shown = dm.DynamicTeamMechanism(policy, groves=dm.groves.NoSubsidy(displayable=True)).audit()
    np.testing.assert_allclose(shown.no_subsidy[0], 0.0, rtol=0, atol=1e-15)
    np.testing.assert_allclose(shown.participation[0][low[0]], -0.5, rtol=0, atol=1e-15)
    assert "FAILS" in shown.summary()
    ex_ante = dm.DynamicTeamMechanism(policy, groves=dm.groves.ExAnte()).audit()
    np.testing.assert_allclose(ex_ante.ex_ante_no_subsidy[0], -1.0, rtol=0, atol=1e-15)
    assert (ex_ante.ex_ante_participation >= 0).all()


def test_proposition_9_participation_fails():
    """Model page, section 7, item 5: the displayable economy leaves a slack of -0.5."""
    policy = solve(market_of(proposition_9_counterexample()))
    for displayable, slack in ((True, -0.5), (False, 0.0)):
        term = dm.groves.Participation(displayable=displayable)
        audit = dm.DynamicTeamMechanism(policy, groves=term).audit()
        np.testing.assert_allclose(audit.participation[0], slack, rtol=0, atol=1e-15)


def test_the_verdict_is_labelled():
    _, policy = made("zeros")
    audit = dm.DynamicTeamMechanism(policy).audit(dm.settlement.MessageDriven())
    frame = audit.to_frame()
    assert list(frame["advertiser"]) == list(policy.env.names)
    np.testing.assert_array_equal(frame["incentive_gain"], audit.incentive_gain)
    text = audit.summary()
    for word in ("MessageDriven", "Participation", "incentives", "window", "budget", "no subsidy"):
        assert word in text
    assert len(text.splitlines()) <= 12


def test_what_audits_share_is_of_what_was_asked_whatever_other_threads_put_there(monkeypatch):
    """It was looked up twice: in between another audit's could come in its place."""

    class Raced(dict):
        asked = 0

        def __getitem__(self, name):
            self.asked += 1
            return dict.__getitem__(self, name) if self.asked == 1 else (None, "another's")

    mine, kept = object(), Raced()
    policy = dm.solve_efficient_policy(logit_market(), progress=False)
    monkeypatch.setattr(shared, "_FOUND", lambda policy, make: kept)
    for _ in range(2):
        assert shared.shared(policy, "gap", lambda: "mine", mine) == "mine"
