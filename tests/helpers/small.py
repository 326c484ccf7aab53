"""Small markets of built-in rules, quick to solve, in which everything matters."""

import numpy as np

import dynmech as dm


def logit_market(
    n=2,
    m=5,
    horizon=2,
    *,
    unit=1.0,
    values=2,
    markov=False,
    advertisers=1.5,
    platform=2.0,
    symbols=2,
    seed=0,
    rule=None,
    feedback=None,
    names=None,
):
    """Perfect recall, logit choice, falling query, Gaussian signals, ratings. `unit`: of money.

    All of it is traceable in gamma and scales with the unit of money.
    """
    rng = np.random.default_rng(seed)
    omega = rng.lognormal(0.0, 0.5, (m, 2))
    weights = rng.dirichlet(np.full(m, 4.0))
    gamma = unit * rng.normal(0.0, 1.0, (n, 2))
    support = unit * np.sort(rng.uniform(0.2, 1.2, (n, values)), axis=1)
    prior = rng.dirichlet(np.full(values, 3.0), n)
    law = dm.ConstantValues(support, prior)
    if markov:
        law = dm.MarkovValues(support, prior, rng.dirichlet(np.ones(values), (n + 1, n, values)))
    query = dm.FallingQuery(
        level=1.1, location=0.3 * unit, slope=0.8 * unit, low=0.1, high=0.8, nothing=0.7
    )
    initial = dm.GaussianSignals(
        platform=platform and unit * platform,
        advertisers=advertisers and unit * advertisers,
        symbols=symbols,
    )
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, weights),
        horizon=horizon,
        action_rule=rule or dm.PerfectRecall(dm.Logit(0.5 * unit), query),
        signals=dm.SignalStructure(
            initial=initial,
            feedback=feedback or dm.RatingFeedback(noise=0.7 * unit, symbols=3),
        ),
        values=law,
        names=names,
    )
