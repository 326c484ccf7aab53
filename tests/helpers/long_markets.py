"""Markets for long-horizon mechanisms, small enough to be checked by brute force."""

import numpy as np

import dynmech as dm

QUICK = dm.Neural(sweeps=2, runs=16, steps=30, batch=16, cases=4, chunk=4)
CERTIFICATE = dm.Certificate(runs=400, marginal_runs=200, rounds=2)


def whispering(n=2, m=6, horizon=2, *, seed=0, values=1, symbols=2, advertisers=0.8, platform=None):
    """A match or none, a user who asks again when it is none, advertisers who know something."""
    rng = np.random.default_rng(seed)
    gamma, omega = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    support = np.sort(rng.uniform(0.2, 1.0, (n, values)), axis=1)
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, rng.dirichlet(np.full(m, 4.0))),
        horizon=horizon,
        action_rule=dm.LastShownOnly(
            dm.Logit(0.3), dm.FallingQuery(level=1.4, location=0.2, slope=0.5, low=0.05, high=0.9)
        ),
        signals=dm.SignalStructure(
            initial=dm.GaussianSignals(platform=platform, advertisers=advertisers, symbols=2),
            feedback=dm.RatingFeedback(noise=0.7, symbols=symbols),
        ),
        values=dm.ConstantValues(support),
    )


def solve(env, solver=QUICK, certificate=CERTIFICATE, **options):
    return dm.solve_long_horizon(env, solver, certificate=certificate, progress=False, **options)
