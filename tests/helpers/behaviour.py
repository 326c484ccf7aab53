"""Behaviour and signals written out by hand, history by history and taste by taste.

Plain Python on purpose, and independent of the library: what a user remembers is read off the
whole ordered history, so that merged memories can be checked against it.
"""

import math

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

import dynmech as dm
from tests.helpers.markets import histories_of


def remembered(history, n, recall, decay=1.0):
    """Weight of each product in memory after a history of recommendations (n for none)."""
    weight = [0.0] * n
    if recall == "last":
        seen = [r for r in history[-1:] if r < n]
    elif recall == "stays":
        seen = [r for r in history if r < n][-1:]
    else:
        seen = [r for r in history if r < n]
    distinct = []
    for r in reversed(seen):
        if r not in distinct:
            distinct.append(r)
    for rank, r in enumerate(distinct):
        weight[r] = 1.0 if recall != "recency" else decay**rank
    return weight


def logit(utility, weight, scale):
    """Shares of the products at one taste."""
    odds = [d * math.exp(u / scale) for u, d in zip(utility, weight)]
    return [x / (1.0 + sum(odds)) for x in odds]


def threshold(utility, weight, scale=None):
    """Products come to mind independently; the best of those not below zero is bought."""
    shares, missed = [0.0] * len(utility), 1.0
    for j in sorted(range(len(utility)), key=lambda j: (-utility[j], j)):
        if utility[j] >= 0:
            shares[j] = missed * weight[j]
            missed *= 1.0 - weight[j]
    return shares


def falling(level, location, slope, low, high, nothing):
    """Probability of asking again, falling in the best match remembered."""

    def query(shown, utility, weight, omega):
        known = [u for u, d in zip(utility, weight) if d > 0]
        if not known:
            return nothing
        return min(max(level / (1.0 + math.exp((max(known) - location) / slope)), low), high)

    return query


def by_product(level, none):
    """Probability of asking again by the product shown; `level` (n, m)."""
    return lambda shown, utility, weight, omega: none if shown is None else level[shown][omega]


def constant(level):
    return lambda shown, utility, weight, omega: level


def action_table(utilities, horizon, recall, choice, query, *, decay=1.0, scale=None):
    """Action probabilities of every ordered history, (H, n+2, m)."""
    n, m = utilities.shape
    rows = []
    for history in histories_of(n, horizon):
        weight = remembered(history, n, recall, decay)
        shown = history[-1] if history[-1] < n else None
        table = np.zeros((n + 2, m))
        for w in range(m):
            each = None if scale is None else float(np.broadcast_to(scale, m)[w])
            again = query(shown, utilities[:, w], weight, w)
            shares = choice(utilities[:, w], weight, each)
            table[:n, w] = [(1 - again) * x for x in shares]
            table[n, w] = (1 - again) * (1 - sum(shares))
            table[n + 1, w] = again
        rows.append(table)
    return np.array(rows)


# A rule of its own for the common shock: Gauss-Legendre on many short pieces.
_PIECES = np.linspace(-9.0, 9.0, 61)
_NODES, _MASSES = np.polynomial.legendre.leggauss(10)
SHOCKS = (_PIECES[:-1, None] + np.diff(_PIECES)[:, None] * (_NODES + 1) / 2).ravel()
SHOCK_WEIGHTS = (np.diff(_PIECES)[:, None] / 2 * _MASSES).ravel() * norm.pdf(SHOCKS)


def cells(mean, deviation, cuts):
    """Probabilities that a normal falls between consecutive cuts."""
    edges = norm.cdf((np.array([-np.inf, *cuts, np.inf]) - mean) / deviation)
    return np.diff(edges)


def quantile_cuts(target, weights, symbols):
    """Cut points at prior quantiles 1/symbols, ..., of a target on a weighted grid.

    The distribution is taken as piecewise linear: value k (ascending) sits at the mass below it,
    relative to the mass below the largest.
    """
    order = sorted(range(len(target)), key=lambda w: target[w])
    below, place = 0.0, []
    for w in order:
        place.append(below)
        below += weights[w]
    place = [p / place[-1] for p in place]
    out = []
    for level in (s / symbols for s in range(1, symbols)):
        k = max(j for j in range(len(place)) if place[j] <= level)
        k = min(k, len(place) - 2)
        share = (level - place[k]) / (place[k + 1] - place[k])
        out.append(target[order[k]] + share * (target[order[k + 1]] - target[order[k]]))
    return out


def shared_cells(mean, deviation, cuts, correlation):
    """Law of a reading at each value of the shock that it shares, (shocks, cells)."""
    shift = math.sqrt(correlation) * deviation * SHOCKS[:, None]
    edges = np.array([-np.inf, *cuts, np.inf]) - mean - shift
    return np.diff(ndtr(edges / (math.sqrt(1 - correlation) * deviation)), axis=1)


def two_readings(mean, first, second, cuts, correlation):
    """Joint law of two readings of one target, noises correlated through a common shock."""
    if correlation == 0:
        return np.outer(cells(mean, first, cuts), cells(mean, second, cuts))
    parts = [shared_cells(mean, noise, cuts, correlation) for noise in (first, second)]
    return np.einsum("q,qa,qb->ab", SHOCK_WEIGHTS, *parts)


def rating_table(utilities, weights, horizon, deviation, symbols, own=None, correlation=0.0):
    """Feedback of every ordered history: a rating of the product shown, nothing after none.

    `deviation(period, product)`; `own`: noise of the second reading that the advertiser shown has.
    """
    n, m = utilities.shape
    cuts = [quantile_cuts(u, weights, symbols) for u in utilities]
    private = 1 if own is None else symbols
    rows = []
    for history in histories_of(n, horizon):
        law, r = np.zeros((m, symbols, *(private,) * n)), history[-1]
        for w in range(m):
            if r == n:
                law[(w, 0, *(0,) * n)] = 1.0
                continue
            noise = deviation(len(history) - 1, r)
            if own is None:
                law[(w, slice(None), *(0,) * n)] = cells(utilities[r, w], noise, cuts[r])
                continue
            joint = two_readings(utilities[r, w], noise, own, cuts[r], correlation)
            for s in range(symbols):
                at = [s if j == r else 0 for j in range(n)]
                law[(w, slice(None), *at)] += joint[:, s]
        rows.append(law)
    return np.array(rows)


def channel_table(table, horizon):
    """Feedback of every ordered history from one channel per product shown."""
    n = len(table) - 1
    return np.array([table[h[-1]] for h in histories_of(n, horizon)])


def silent_table(n, m, horizon):
    return np.ones((len(histories_of(n, horizon)), m, *(1,) * (n + 1)))


def reading_table(utilities, weights, platform, advertisers, symbols, correlation=0.0):
    """Initial signals: the platform reads the mean utility, each advertiser her own."""
    m = utilities.shape[1]
    targets = np.concatenate([utilities.mean(0)[None], utilities])
    noises = [platform, *advertisers]
    sizes = [1 if noise is None else symbols for noise in noises]
    table = np.zeros((m, *sizes))
    for w in range(m):
        joint = np.array(SHOCK_WEIGHTS)
        for target, noise in zip(targets, noises):
            law = np.ones((len(SHOCKS), 1))
            if noise is not None:
                cuts = quantile_cuts(target, weights, symbols)
                law = shared_cells(target[w], noise, cuts, correlation)
            joint = joint[..., None] * law.reshape(len(SHOCKS), *(1,) * (joint.ndim - 1), -1)
        table[w] = joint.sum(axis=0)
    return table


def tabulated(env, action, feedback, initial):
    """The same market as `env`, its behaviour and signals given as tables."""
    values, n = env.values, env.products
    kernel = np.broadcast_to(
        np.eye(values.support.shape[1]), (n + 1, n, *values.support.shape[1:] * 2)
    )
    if isinstance(values, dm.MarkovValues):
        kernel = values.kernel
    return dm.RecommendationMDP.from_tables(
        env.gamma, env.tastes.points, env.tastes.weights, env.horizon, action, feedback, initial,
        values.support, values.prior, kernel,
    )  # fmt: skip
