"""Markets for long-horizon mechanisms, small enough to be checked by brute force."""

import equinox as eqx
import jax
import numpy as np

import dynmech as dm

UNTRAINED = dm.Neural(sweeps=1, runs=2, steps=1, batch=2, cases=2, chunk=64)
# Profile 1 is profile 0 with another report of advertiser 0; profile 2 is 1 with one of 1.
THREE = dm.Profiles(np.array([[0, 1], [1, 1], [1, 0]]), np.array([[0, 0, 1], [0, 1, 1], [0, 1, 0]]))


def whispering(
    n=2,
    m=6,
    horizon=3,
    *,
    seed=2,
    values=2,
    interval=None,
    settlement=None,
    recall=False,
    **signals,
):
    """A match or none, a user who asks again when it is none, advertisers who know something.

    With `recall` the user remembers what was shown, so that order matters: a network is then free
    to be as wrong as it likes.
    """
    rng = np.random.default_rng(seed)
    gamma, omega = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    support = np.sort(rng.uniform(0.2, 1.0, (n, values)), axis=1)
    query = dm.FallingQuery(level=1.4, location=0.2, slope=0.5, low=0.05, high=0.9)
    initial = dm.GaussianSignals(**{"advertisers": 0.8, "symbols": 2, **signals})
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, rng.dirichlet(np.full(m, 4.0))),
        horizon=horizon,
        action_rule=(dm.PerfectRecall if recall else dm.LastShownOnly)(dm.Logit(0.3), query),
        signals=dm.SignalStructure(
            initial=initial,
            feedback=dm.RatingFeedback(noise=0.7, symbols=2),
            settlement=settlement or dm.RatingSettlement(0.5),
        ),
        values=dm.ConstantValues(support, interval=interval),
    )


def solve(env, solver=UNTRAINED, certificate=None, **options):
    certificate = certificate or dm.Certificate(runs=300, marginal_runs=200, rounds=env.horizon)
    return dm.solve_long_horizon(env, solver, certificate=certificate, progress=False, **options)


def scrambled(policy, size=1.5, seed=0):
    """The same policy with a network that is wrong, and its own certified bounds."""
    rng = np.random.default_rng(seed)

    def shake(x):
        if not eqx.is_inexact_array(x):
            return x
        return x + (size * rng.normal(size=x.shape)).astype(x.dtype)

    worse = eqx.tree_at(lambda p: p.network, policy, jax.tree.map(shake, policy.network))
    found = [worse.start(profile=b).certify() for b in range(len(policy.profiles))]
    arrays = [
        np.concatenate([np.asarray(getattr(x, name)) for x in found])
        for name in ("value", "error", "unseen", "lower", "upper")
    ]
    bounds = dm.Bounds(*arrays, found[0].confidence, found[0].rounds)
    return eqx.tree_at(lambda p: p.bounds, worse, bounds)
