"""Programs over more rows than 16,384 and 32,768: where a compiler of JAX 0.10.2 goes wrong."""

import jax
import numpy as np
import pytest

import dynmech as dm

QUERY, SYMBOLS, TASTES, ROUNDS = 0.6, 64, 3, 3


def market(kind, tastes=TASTES, symbols=SYMBOLS, horizon=ROUNDS):
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
        dm.ConstantValues([0.3, 0.6]),
    )


def by_numpy(env):
    """W by plain recursion over every history of products shown and symbols seen."""
    u = np.asarray(env.gamma, float) @ np.asarray(env.tastes.points, float).T
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
