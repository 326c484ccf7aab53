"""Reports of any value in a declared interval: against brute force over fine grids of reports."""

import copy
import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.audit.intervals import sweep_reports
from dynmech.market.values import reportable
from tests.helpers import oracle
from tests.helpers.deviations import nodes_of, replay
from tests.helpers.markets import random_market
from tests.helpers.quantities import TOLERANCE, market_of, solve
from tests.helpers.small import logit_market

OPTIONS = {
    "two rounds": {},
    "three rounds": {"horizon": 3, "symbols": (1, 2, 1), "recall": "ordered"},
    "three products": {"n": 3, "symbols": (1, 2, 1, 1), "initial_symbols": (1, 2, 2, 1)},
    "zeros": {"zeros": 0.3, "initial_symbols": (2, 2, 1)},
    "twins": {"ties": True, "initial_symbols": (1, 2, 2), "symbols": (1, 2, 1)},
}
QUICK = ("three rounds", "zeros")
LOW, HIGH = 0.0, 1.2


def declared(env, interval=(LOW, HIGH)):
    """The same market, reports of any value in the interval."""
    values = dm.ConstantValues(env.values.support, env.values.prior, interval)
    return dataclasses.replace(env, values=values)


def made(name, **more):
    rng = np.random.default_rng([71, list(OPTIONS).index(name)])
    case = random_market(rng, constant=True, **OPTIONS[name], **more)
    return case, solve(declared(market_of(case)))


def choices(case, agent, grid):
    """What is recommended at every node if `agent` reports each point of the grid: history ->
    (signal paths, values of the others, grid), by the oracle's walk over the whole tree."""
    g, _ = nodes_of(case)
    found = {}
    others = np.delete(np.arange(g.n), agent)
    rest = np.stack(np.meshgrid(*g.theta_support[others], indexing="ij"), -1).reshape(-1, g.n - 1)
    for part in np.array_split(grid, -(-len(grid) // 60)):
        here = copy.copy(g)
        thetas = np.zeros((len(rest), len(part), g.n))
        thetas[:, :, others], thetas[:, :, agent] = rest[:, None], part
        here.thetas = thetas.reshape(-1, g.n)
        here.kernel = np.broadcast_to(np.eye(len(here.thetas)), (g.n + 1, *[len(here.thetas)] * 2))
        here.scale = max(g.scale, np.abs(thetas[..., None] + g.utility).max())
        nodes, belief = {}, (g.prior[:, None] * g.initial_signals.reshape(g.m, -1)).T
        symbols = g.initial_signals.shape[1:]
        oracle.walk(here, (), belief, symbols, range(g.n + 1), np.ones(g.n), nodes)
        for h, node in nodes.items():
            found.setdefault(h, []).append(node.choice.reshape(-1, len(rest), len(part)))
    return {h: np.concatenate(parts, axis=2) for h, parts in found.items()}


def gains_on_grid(case, agent, grid):
    """Largest gain by period and settlement of reports on the grid, (T, 2), at nodes of truth."""
    g, nodes = nodes_of(case)
    on, told = oracle.reached(g, nodes), choices(case, agent, grid)
    gains = np.zeros((g.horizon, 2))
    profiles = np.moveaxis(np.arange(len(g.thetas)).reshape((g.K,) * g.n), agent, -1)
    value = profiles.reshape(-1, g.K)  # (u, k)
    for h, node in nodes.items():
        paths = np.arange(len(node.belief)).reshape(-1, *node.symbols)
        signal = np.moveaxis(paths, 2 + agent, -1).reshape(-1, node.symbols[1 + agent])
        for settlement in (oracle.ESTIMATOR, oracle.MESSAGE):
            for s in range(signal.shape[1]):
                belief = node.belief[signal[:, s]]  # (a, m)
                mass = belief.sum(1)
                for x in range(signal.shape[1]):
                    pay = node.pay[:, settlement][:, signal[:, x]][:, :, value]  # (r, a, u, k, m)
                    worth = np.einsum("am,raukm->rauk", belief, pay)
                    choice = told[h][signal[:, x]]  # (a, u, v)
                    lie = np.take_along_axis(worth, choice.transpose(2, 0, 1)[..., None], 0)
                    true = node.choice[signal[:, s]][:, value]
                    honest = node.pay[:, settlement][:, signal[:, s]][:, :, value]
                    honest = np.einsum("am,raukm->rauk", belief, honest)
                    honest = np.take_along_axis(honest, true[None], 0)[0]
                    live = on[h][signal[:, s]][:, value]
                    with np.errstate(invalid="ignore", divide="ignore"):
                        gain = (lie.max(axis=0) - honest) / mass[:, None, None]
                    best = gain[live].max(initial=0.0)
                    gains[len(h), settlement] = max(gains[len(h), settlement], best)
    return gains


def breakpoints(policy, agent):
    """Every place where some node's recommendation changes with the report."""
    pieces = sweep_reports(policy, agent, np.arange(len(policy.pairs.root)))
    ends = np.concatenate([x[s.taken] for s in pieces.sweeps for x in (s.low, s.high)])
    return np.unique(ends)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(x, marks=pytest.mark.slow) for x in OPTIONS if x not in QUICK)]
)
def test_gains_are_those_of_brute_force_over_fine_grids(name):
    """No fine grid finds more; a grid with every breakpoint finds all, in every period.

    Settled by a biased estimator (first row) and by messages; the support alone hides gains.
    """
    case, policy = made(name, biased=True)
    mechanism, atol = dm.DynamicTeamMechanism(policy), TOLERANCE * policy.env.money_scale
    message = dm.settlement.MessageDriven()
    audits = [mechanism.audit(), mechanism.audit(message)]
    coarse = [mechanism.audit(interval=False), mechanism.audit(message, interval=False)]
    for every, some in zip(audits, coarse, strict=True):
        assert (every.reported, some.reported) == ("interval", "support")
        assert (every.gain_by_period >= some.gain_by_period - atol).all()
        assert (every.gain_by_period.max(axis=1) == every.incentive_gain).all()
    assert (audits[0].gain_by_period - coarse[0].gain_by_period).max() > 1e-3
    support = policy.env.values.support.ravel()
    for agent in range(policy.env.products):
        gains = np.stack([audit.gain_by_period[agent] for audit in audits], axis=1)
        fine = np.concatenate([np.linspace(LOW, HIGH, 301), support])
        assert (gains_on_grid(case, agent, fine) <= gains + atol).all()
        places = breakpoints(policy, agent)
        near = [places + step for step in (-1e-7, 0.0, 1e-7)]
        grid = np.concatenate([*near, support, (places[1:] + places[:-1]) / 2])
        found = gains_on_grid(case, agent, np.clip(grid, LOW, HIGH))
        np.testing.assert_allclose(gains, found, rtol=0, atol=atol)


@pytest.mark.parametrize("name", QUICK)
def test_no_report_of_the_interval_gains_under_the_data_driven_mechanism(name):
    _, policy = made(name)
    audit = dm.DynamicTeamMechanism(policy).audit()
    assert audit.reported == "interval"
    assert audit.incentive_gain.max() <= audit.tolerance


def shading_pays():
    """One round, tastes A and B, which advertiser 0's signal tells; theta = (1, 0).

    u = 0 but u_1(B) = 10; what is shown is bought, but product 1 at B with probability 1/20.
    """
    action = np.zeros((3, 4, 2))
    action[0, 0] = 1.0
    action[1, 1], action[1, 2] = (1.0, 0.05), (0.0, 0.95)
    action[2, 2] = 1.0
    env = dm.RecommendationMDP.from_tables(
        np.array([[0.0], [1.0]]), np.array([[0.0], [10.0]]), np.full(2, 0.5), 1, action,
        np.ones((3, 2, 1, 1, 1)), np.eye(2)[:, None, :, None],
        np.array([[1.0], [0.0]]), np.ones((2, 1)), np.ones((3, 2, 1, 1)),
    )  # fmt: skip
    return declared(env, (0.0, 2.0))


def test_an_interval_finds_what_a_coarse_support_hides():
    """At A truth shows 0 and brings 1. Settled by messages, product 1 would bring 10 if B is told.

    Told B and theta_0 = 1 the platform shows 0, as 1 > 10 / 20: a lie about the signal alone
    brings 1 again, a gain of 0. With a report below 1/2 it shows 1, which is then bought for
    certain and brings 10: a gain of 9. At 1/2 exactly the tie goes to product 0.
    """
    mechanism = dm.DynamicTeamMechanism(solve(shading_pays()))
    message = dm.settlement.MessageDriven()
    every, some = (mechanism.audit(message, interval=x) for x in (True, False))
    np.testing.assert_allclose(some.incentive_gain, 0.0, atol=1e-14)
    np.testing.assert_allclose(every.incentive_gain, [9.0, 0.0], atol=1e-14)
    assert mechanism.audit().incentive_gain.max() <= 1e-14
    witness = every.witness[0]
    np.testing.assert_allclose(witness.report_interval, (0.0, 0.5), atol=1e-15)
    assert witness.report == (0.25, 1)
    assert (witness.truth, witness.deviant) == ((1.0, 0), "product 1")
    words = "a value of 0.25 (any from 0 to 0.5) instead of 1 and signal 1 instead of 0"
    assert words in witness.sentence()
    assert "interval" in every.summary().splitlines()[0]
    np.testing.assert_allclose(mechanism.best_response(message).gain[0], [9.0, 0.0], atol=1e-14)


@pytest.mark.parametrize("name", QUICK)
def test_a_witness_can_be_replayed_anywhere_in_its_interval(name):
    """Put the value reported into the support of the market, solve again, and replay."""
    case, policy = made(name)
    audit = dm.DynamicTeamMechanism(policy).audit(dm.settlement.MessageDriven())
    assert audit.incentive_gain.max() > 1e-3
    for i, witness in enumerate(audit.witness):
        if witness.gain <= audit.tolerance:
            continue
        low, high = witness.report_interval
        for share in (1e-4, 0.5, 1 - 1e-4):
            value = low + share * (high - low)
            support = np.concatenate([case["theta_support"], case["theta_support"][:, :1]], axis=1)
            support[i, -1] = value
            size = support.shape[1]
            again = case | {
                "theta_support": support,
                "theta_prior": np.full(support.shape, 1 / size),
                "theta_kernel": np.broadcast_to(
                    np.eye(size), (len(support) + 1, len(support), size, size)
                ),
            }
            told = (value, witness.report[1])
            said = dataclasses.replace(witness, report=told)
            found = replay(again, said, policy.env.names, oracle.MESSAGE)
            np.testing.assert_allclose(found[0], witness.gain, rtol=0, atol=audit.tolerance)
            labels = (*policy.env.names, "none")
            assert (witness.honest, witness.deviant) == (labels[found[1]], labels[found[2]])


def one_round(utilities, support):
    """Certain purchase of what is shown; nobody has signals; one taste."""
    n = len(utilities)
    action = np.zeros((n + 1, n + 2, 1))
    action[np.arange(n + 1), np.arange(n + 1)] = 1.0
    size = np.shape(support)[1]
    return dm.RecommendationMDP.from_tables(
        np.array(utilities)[:, None], np.ones((1, 1)), np.ones(1), 1, action,
        np.ones((n + 1, 1, *[1] * (n + 1))), np.ones((1, *[1] * (n + 1))),
        support, np.full((n, size), 1 / size),
        np.broadcast_to(np.eye(size), (n + 1, n, size, size)).copy(),
    )  # fmt: skip


def test_a_report_at_the_breakpoint_follows_the_tie_rule():
    """theta_0 = 1, u = 0: reports of advertiser 1 above 1 win; at 1 the tie goes to product 0.

    Without transfers she gains 0.5 at theta_1 = 0.5 by any report above 1. Advertiser 0 gains 1
    at theta_1 = 1.5 by any report from 1.5 on, the tie included.
    """
    env = declared(one_round([0.0, 0.0], [[1.0, 1.0], [0.5, 1.5]]), (0.0, 2.0))
    policy = solve(env)
    pieces = sweep_reports(policy, 1, np.arange(len(policy.pairs.root)))
    taken, low, high = (x[0, 0] for x in (pieces.sweeps[0].taken, *_ends(pieces.sweeps[0])))
    np.testing.assert_array_equal(taken, [True, True, False])
    np.testing.assert_array_equal(low[:2], [0.0, 1.0])
    np.testing.assert_array_equal(high[:2], [1.0, 2.0])
    mechanism = dm.DynamicTeamMechanism(policy)
    free = mechanism.audit(dm.settlement.NoTransfers())
    np.testing.assert_allclose(free.incentive_gain, [1.0, 0.5], atol=1e-15)
    assert free.witness[1].report_interval == (1.0, 2.0)
    assert free.witness[0].report_interval == (1.5, 2.0)
    assert mechanism.audit().incentive_gain.max() <= 1e-15


def test_ties_of_three_go_to_the_lowest_index():
    """Three equal products at theta = 1. (Controls taken at one point only: test_parametric.)

    Below 1, advertiser 0's report shows product 1, from 1 on her own: the tie included.
    """
    policy = solve(declared(one_round([0.0] * 3, np.ones((3, 1))), (0.0, 2.0)))
    for agent in range(3):
        np.testing.assert_allclose(breakpoints(policy, agent), [0.0, 1.0, 2.0])
    sweep = sweep_reports(policy, 0, np.arange(1)).sweeps[0]
    np.testing.assert_array_equal(sweep.low[0, 0], [1.0, 0.0, np.nan, np.nan])
    np.testing.assert_array_equal(sweep.high[0, 0], [2.0, 1.0, np.nan, np.nan])


def _ends(sweep):
    return sweep.low, sweep.high


@pytest.mark.parametrize("reports", ["incremental", "cumulative"])
def test_strategies_may_report_the_whole_interval(reports):
    """No strategy beats truth; message-driven, at least as much is gained as on the support."""
    _, policy = made("three rounds")
    mechanism, scale = dm.DynamicTeamMechanism(policy, reports=reports), policy.env.money_scale
    assert np.nanmax(mechanism.best_response().gain) <= TOLERANCE * scale
    message = dm.settlement.MessageDriven()
    every, some = (mechanism.best_response(message, interval=x) for x in (True, False))
    one = mechanism.audit(message)
    assert np.nanmin(every.gain - some.gain) >= -1e-12
    assert (np.nanmax(every.gain, axis=1) >= one.first_gain - 1e-12).all()
    assert np.nanmax(every.gain - some.gain) > 1e-3
    past = mechanism.audit(histories="all")
    assert (past.incentive_gain.max() <= past.tolerance) == (reports == "cumulative")


def test_a_batch_is_searched_from_every_own_type():
    """Every profile asked for in a batch: the same gains as the full solve."""
    _, policy = made("two rounds")
    env = policy.env
    batch = dm.solve_efficient_policy(env, initial=policy.profiles, progress=False)
    few = dm.solve_efficient_policy(
        env, initial=env.sample_profiles(jax.random.key(0), 3), progress=False
    )
    message = dm.settlement.MessageDriven()
    full, same, part = (
        dm.DynamicTeamMechanism(p, dm.groves.Zero()).audit(message) for p in (policy, batch, few)
    )
    np.testing.assert_allclose(full.gain_by_period, same.gain_by_period, atol=1e-12)
    assert (part.gain_by_period <= full.gain_by_period + 1e-12).all()
    coarse = dm.DynamicTeamMechanism(few, dm.groves.Zero()).audit(message, interval=False)
    assert (part.gain_by_period >= coarse.gain_by_period - 1e-12).all()


def test_the_search_goes_in_parts_and_refuses_what_does_not_fit(monkeypatch):
    _, policy = made("two rounds")
    mechanism, message = dm.DynamicTeamMechanism(policy), dm.settlement.MessageDriven()
    whole = mechanism.audit(message)
    monkeypatch.setattr("dynmech.audit.game._MOST_STATES", 200)
    parts = mechanism.audit(message)
    np.testing.assert_allclose(parts.gain_by_period, whole.gain_by_period, atol=1e-14)
    assert parts.deviations == whole.deviations
    monkeypatch.setattr("dynmech.audit.intervals._MOST_CELLS", 10)
    with pytest.raises(dm.TooLarge, match=r"audit\(interval=.*pass interval=False"):
        mechanism.audit(message)
    assert mechanism.audit(message, interval=False).deviations > 0


def test_an_interval_that_is_the_support_adds_nothing():
    case, _ = made("two rounds")
    support = np.repeat(case["theta_support"][:, :1], 2, axis=1)
    env = market_of(case | {"theta_support": support})
    policy = solve(declared(env, support[:, :2]))
    mechanism = dm.DynamicTeamMechanism(policy)
    message = dm.settlement.MessageDriven()
    every, some = (mechanism.audit(message, interval=x) for x in (True, False))
    np.testing.assert_allclose(every.gain_by_period, some.gain_by_period, atol=1e-12)
    np.testing.assert_array_equal(policy.value, solve(env).value)


def test_bad_intervals_are_refused():
    support = np.array([[0.2, 0.5], [0.3, 0.6]])
    with pytest.raises(dm.InvalidArgument, match=r"ConstantValues\(interval=.*shape"):
        dm.ConstantValues(support, interval=np.zeros((3, 2)))
    with pytest.raises(dm.NotFinite, match="interval"):
        dm.ConstantValues(support, interval=(0.0, np.inf))
    with pytest.raises(dm.OutsideSupport, match="hold every value of the support"):
        dm.ConstantValues(support, interval=(0.25, 1.0))
    kernel = np.broadcast_to(np.eye(2), (2, 2, 2))
    with pytest.raises(dm.InvalidArgument, match="values of the support only"):
        dm.MarkovValues(support, None, kernel, interval=(0.0, 1.0))
    for env in (logit_market(horizon=1), logit_market(horizon=1, markov=True)):
        mechanism = dm.DynamicTeamMechanism(solve(env))
        assert mechanism.audit().reported == "support"
        for ask in (mechanism.audit, mechanism.best_response):
            with pytest.raises(dm.InvalidArgument, match=r"interval=.*declare ConstantValues"):
                ask(interval=True)
    policy = solve(declared(logit_market(horizon=1), (0.0, 2.0)))
    other = policy.with_actions(policy.plan.actions)
    assert dm.DynamicTeamMechanism(other).audit(interval=True).reported == "support"
    assert dm.DynamicTeamMechanism(other).audit(interval=False).deviations > 0


def test_intervals_are_saved_and_loaded(tmp_path):
    policy = solve(declared(logit_market(horizon=1), (0.0, 2.0)))
    policy.save(tmp_path / "p")
    again = dm.EfficientPolicy.load(tmp_path / "p")
    np.testing.assert_array_equal(reportable(again.env.values), reportable(policy.env.values))
    one, other = (dm.DynamicTeamMechanism(p).audit() for p in (policy, again))
    np.testing.assert_array_equal(one.gain_by_period, other.gain_by_period)


@pytest.mark.parametrize("name", [pytest.param("zeros", marks=pytest.mark.slow), "twins"])
def test_windows_are_those_of_every_own_value_of_the_interval(name):
    """Against markets in which a fine grid of own values is the support, true or not."""
    case, policy = made(name)
    n, count = policy.env.products, 121
    grid = np.linspace(LOW, HIGH, count)
    support = np.column_stack([policy.env.values.support, np.tile(grid, (n, 1))])
    prior = np.pad(np.asarray(policy.env.values.prior), ((0, 0), (0, count)))
    other = random_market(np.random.default_rng(8), constant=True, **OPTIONS[name])
    other["theta_support"], other["theta_prior"] = case["theta_support"], case["theta_prior"]
    true = market_of(other)
    fine = dm.ConstantValues(support, prior)
    known = dataclasses.replace(policy.env, values=fine)
    right = dm.solve_efficient_policy(known, initial=policy.profiles, progress=False)
    here = dm.DynamicTeamMechanism(policy, dm.groves.WindowFloor())
    there = dm.DynamicTeamMechanism(right, dm.groves.WindowFloor())
    flat = here.groves_total.reshape(n, -1)
    np.testing.assert_allclose(flat, there.groves_total, atol=1e-12)
    alone = here.own.contribution[:, :, : case["theta_support"].shape[1]]
    assert np.nanmax(flat.T - np.fmax.reduce(alone, axis=(2, 3))) > 1e-3
    decoded, other = (
        dm.DynamicTeamMechanism(x, dm.groves.DataDriven()).groves_total.reshape(n, -1)
        for x in (policy, right)
    )
    np.testing.assert_allclose(decoded, other, atol=1e-7)
    one = here.audit(under=declared(true), interval=False).window
    two = there.audit(under=dataclasses.replace(true, values=fine)).window
    np.testing.assert_allclose(one.floor.reshape(n, -1), two.floor, atol=1e-12)
    below = two.ceiling - one.ceiling.reshape(n, -1)
    assert np.nanmin(below) > -1e-12
    assert np.nanmax(below) < (HIGH - LOW) / (count - 1)
