"""Programs over more rows than 16,384 and 32,768: where a compiler of JAX 0.10.2 goes wrong."""

import jax
import numpy as np
import pytest

import dynmech as dm

QUERY, SYMBOLS, TASTES, ROUNDS = 0.6, 64, 3, 3


def market(kind, tastes=TASTES, symbols=SYMBOLS, horizon=ROUNDS, support=(0.3, 0.6)):
    rng = np.random.default_rng(4)
    gamma = rng.normal(size=(2, 2)).astype(kind)
    omega = rng.normal(size=(tastes, 2)).astype(kind)
    table = rng.dirichlet(np.ones(symbols), size=(3, tastes)).reshape(3, tastes, symbols, 1, 1)
    return dm.RecommendationMDP(
        gamma,
        dm.TasteGrid(omega, np.full(tastes, 1 / tastes, kind)),
        horizon,
        dm.LastShownOnly(dm.Logit(1.0), QUERY),
        dm.SignalStructure(feedback=dm.ChannelFeedback(table)),
        dm.ConstantValues(support),
    )


def by_numpy(env):
    """W by plain recursion over every history of products shown and symbols seen."""
    u = np.asarray(env.utilities, float)
    buy = (1 - QUERY) / (1 + np.exp(-u))
    pay = np.append(buy * (env.values.support + u), np.zeros((1, u.shape[1])), axis=0)
    law = QUERY * np.asarray(env.signals.feedback.table)[:, :, :, 0, 0]

    def value(belief, rounds):
        now = belief @ pay.T
        if rounds > 1:
            for r, channel in enumerate(law):
                after = (belief[:, None, :] * channel.T).reshape(-1, belief.shape[1])
                now[:, r] += value(after, rounds - 1).reshape(len(belief), -1).sum(axis=1)
        return now.max(axis=1)

    return value(np.asarray(env.tastes.weights, float)[None], env.horizon).item()


@pytest.mark.parametrize(("kind", "close"), [(float, 1e-12), (np.float32, 1e-5)])
def test_recursion_over_many_nodes(kind, close):
    """(two products or none, 64 symbols) after two rounds: 36,864 beliefs in the last round."""
    env = market(kind)
    policy = dm.solve_efficient_policy(env, progress=False)
    assert policy.value.item() == pytest.approx(by_numpy(env), abs=close)


@pytest.mark.parametrize("tastes", [16_385, 32_769])
@pytest.mark.parametrize(("kind", "close"), [(float, 1e-12), (np.float32, 1e-5)])
def test_recursion_over_many_tastes(tastes, kind, close):
    env = market(kind, tastes, symbols=2, horizon=2)
    policy = dm.solve_efficient_policy(env, progress=False)
    assert policy.value.item() == pytest.approx(by_numpy(env), abs=close)


def test_simulation_of_many_conversations():
    """What is paid agrees with what was drawn, row by row, and on average with W."""
    env = market(float, symbols=2, horizon=2)
    mechanism = dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))
    played = mechanism.simulate(jax.random.key(1), 40_000)
    bought = (played.action >= 0) & (played.action < 2)
    at = np.argmax(bought, axis=1)
    rows = np.flatnonzero(bought.any(axis=1))
    product = played.action[rows, at[rows]]
    theta = env.values.support[product, 0]
    core = np.repeat(-(theta + played.estimate[rows])[:, None], 2, axis=1)
    core[np.arange(len(rows)), product] = -played.estimate[rows]
    np.testing.assert_allclose(played.core[rows], core, rtol=0, atol=1e-12)
    mean, error = played.mean("surplus")
    assert abs(mean - by_numpy(env)) < 5 * error


def refined(env, tastes=1, symbols=1):
    """The same economics with every taste and every symbol of feedback split in so many alike."""
    table = np.repeat(np.asarray(env.signals.feedback.table), symbols, axis=2) / symbols
    return dm.RecommendationMDP(
        env.gamma,
        dm.TasteGrid(
            np.repeat(env.tastes.points, tastes, axis=0),
            np.repeat(env.tastes.weights, tastes) / np.asarray(tastes, env.gamma.dtype),
        ),
        env.horizon,
        env.action_rule,
        dm.SignalStructure(feedback=dm.ChannelFeedback(np.repeat(table, tastes, axis=1))),
        env.values,
    )


@pytest.mark.parametrize(("kind", "close"), [(float, 1e-12), (np.float32, 2e-5)])
@pytest.mark.parametrize("split", [{"tastes": 11_000}, {"symbols": 64}], ids=str)
def test_audits_of_many_rows(split, kind, close):
    """33,000 tastes; 192 (displays, symbols) squared, 36,864 nodes: as 3 tastes, as 3 symbols."""
    support = [[0.1, 2.0], [2.0, 9.0]]
    small = market(kind, symbols=3, horizon=3 if "symbols" in split else 2, support=support)
    found = []
    for env in (small, refined(small, **split)):
        policy = dm.solve_efficient_policy(env, progress=False)
        mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
        found.append([mechanism.audit(), mechanism.audit(dm.settlement.NoTransfers())])
    for one, other in zip(*found, strict=True):
        for name in ("incentive_gain", "participation", "no_subsidy"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=close)
    assert found[0][1].incentive_gain.max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", [float, np.float32])
def test_certificates_of_many_rows(kind):
    """33,000 runs; in float32 the chances that behaviour follows from are rounded as data are."""
    env = market(kind, symbols=2, horizon=3)
    policy = dm.solve_efficient_policy(
        env, dm.Neural(sweeps=2, certificate=dm.Certificate(runs=33_000)), progress=False
    )
    right = by_numpy(env)
    assert policy.lower.item() <= right <= policy.upper.item()
    assert policy.value_lower.item() <= policy.value_upper.item() <= policy.upper.item()
