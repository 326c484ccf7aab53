"""Logs drawn by hand: numpy only, so that what reads and fits them is checked from outside."""

import numpy as np
import pandas as pd

import dynmech as dm


def small(scale=0.5, query=0.6, noise=0.7, horizon=4, products=3, tastes=12, seed=0):
    """A market of perfect recall with logit choice and ratings; a constant characteristic."""
    rng = np.random.default_rng(seed)
    gamma = np.c_[rng.normal(size=(products, 2)), np.ones(products)]
    points = np.c_[rng.normal(size=(tastes, 2)), np.zeros(tastes)]
    return dm.RecommendationMDP(
        gamma,
        dm.TasteGrid(points, np.full(tastes, 1 / tastes)),
        horizon,
        dm.PerfectRecall(dm.Logit(scale), query=query),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=noise, symbols=5)),
        dm.ConstantValues(np.ones(products)),
    )


def drawn(env, count, seed, scale=0.5, query=0.6, noise=0.7, stars=(2.0, 1.5), rated=1.0):
    """`count` conversations in which products are shown at random: a long DataFrame."""
    rng = np.random.default_rng(seed)
    utilities, n, (a, b) = env.utilities, env.products, stars
    rows = []
    for c in range(count):
        omega = rng.choice(env.tastes.size, p=env.tastes.weights)
        seen = np.zeros(n)
        for t in range(int(env.horizon)):
            r = int(rng.integers(n))
            seen[r] = 1
            parts = seen * np.exp(utilities[:, omega] / scale)
            buy = (1 - query) * parts / (1 + parts.sum())
            law = np.append(buy, [1 - query - buy.sum(), query])
            action = int(rng.choice(n + 2, p=law / law.sum()))
            word = env.names[action] if action < n else ("exit", "query")[action - n]
            rating = np.nan
            if action == n + 1 and rng.random() < rated:
                rating = a + b * (utilities[r, omega] + noise * rng.standard_normal())
            rows.append((c, t + 1, env.names[r], word, rating))
            if action != n + 1:
                break
    return pd.DataFrame(rows, columns=["id", "turn", "product", "did", "stars"])


def read(frame, **options):
    """The frame as a `Log`."""
    return dm.Log.from_frame(
        frame, conversation="id", round="turn", shown="product", action="did", **options
    )
