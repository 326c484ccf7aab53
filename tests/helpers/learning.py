"""Markets in which the first recommendation hardly ever suits, so that learning pays."""

import numpy as np

import dynmech as dm


def learning_market(n=3, m=6, horizon=3, *, seed=0, unit=1.0, values=None, rule=None, symbols=2):
    """Tastes on all sides of zero, a good match for some of them each; one value by default."""
    rng = np.random.default_rng(seed)
    gamma, omega = unit * rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    theta = unit * rng.uniform(0.3, 1.0, n)
    query = dm.FallingQuery(
        level=1.4, location=0.2 * unit, slope=0.5 * unit, low=0.05, high=0.9, nothing=0.6
    )
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, rng.dirichlet(np.full(m, 4.0))),
        horizon=horizon,
        action_rule=rule or dm.LastShownOnly(dm.Logit(0.3 * unit), query),
        signals=dm.SignalStructure(feedback=dm.RatingFeedback(noise=0.7 * unit, symbols=symbols)),
        values=values or dm.ConstantValues(theta),
    )
