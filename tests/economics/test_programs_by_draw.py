"""What was compiled for one draw of profiles serves the next."""

import jax
import numpy as np

import dynmech as dm
from tests.helpers.compiled import compiled


def test_another_draw_of_profiles_compiles_nothing():
    rng = np.random.default_rng(0)
    env = dm.RecommendationMDP(
        rng.normal(size=(3, 2)),
        dm.TasteGrid(rng.normal(size=(6, 2)), np.full(6, 1 / 6)),
        2,
        dm.LastShownOnly(dm.Logit(0.5), 0.8),
        dm.SignalStructure(dm.GaussianSignals(platform=1.0, advertisers=1.0, symbols=3)),
        dm.ConstantValues(rng.uniform(0.2, 1.0, (3, 2))),
    )
    values = []
    for seed in range(4):
        with compiled() as programs:
            initial = env.sample_profiles(jax.random.key(seed), 5)
            policy = dm.solve_efficient_policy(env, initial=initial, progress=False)
        assert not programs or seed == 0
        values.append((initial, policy))
    every = dm.solve_efficient_policy(env, progress=False)
    for initial, policy in values:
        at = tuple(np.concatenate([initial.theta, initial.signals], axis=1).T)
        np.testing.assert_allclose(policy.value, every.value[at], rtol=1e-12)
        np.testing.assert_allclose(policy.marginal_value, every.marginal_value[:, *at], rtol=1e-12)
