"""A shopping assistant with two products, and its Gaussian updates by another route."""

import numpy as np
from scipy.stats import norm

from dynmech import static as st

EXACT = 1e-9
SHOWN = np.array([[4.0, 0.1], [0.3, 2.0], [0.1, 0.1]])


def market(rounds=2, feedback=SHOWN, **changes):
    given = {
        "prior_mean": [0.1, -0.2], "prior_covariance": [[1.0, 0.3], [0.3, 1.5]],
        "signal_noise": [2.0, 3.0], "context_noise": 1.5, **changes,
    }  # fmt: skip
    return st.ShoppingAssistant(feedback=feedback, rounds=rounds, **given)


def reports(env):
    return env.profile([0.2, 0.3], [[0.3, 0.1], [-0.5, 0.4]], [0.2, -0.1])


def types(env, structures=True):
    signals = [[0.3, 0.1], [-0.5, 0.4], [1, 1], [-1, -1], [2, -2], [-2, 2]]
    other = [0.5 * np.eye(2)] if structures else []
    return [
        st.AssistantTypes([0, 0.2, 0.3, 0.6, 1.5], signals, np.stack([env.signal_noise[i], *other]))
        for i in range(2)
    ]


def option(mean, deviation):
    """E max(N(mean, deviation^2), 0)."""
    return mean * norm.cdf(mean / deviation) + deviation * norm.pdf(mean / deviation)


def posterior(env, covariance, history):
    """Covariance and news of the last reaction, by joint covariances: another route."""
    for t in range(len(history)):
        noise = np.linalg.inv(env.precision(history[: t + 1]))
        news = covariance @ np.linalg.solve(covariance + noise, covariance)
        covariance = covariance - news
    return covariance, news
