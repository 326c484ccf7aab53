"""Brute force over all histories of a market in which only what is on the screen counts."""

import jax
import jax.numpy as jnp
import numpy as np

import dynmech as dm
from dynmech.market.values import joint_kernel, profile_grid


def tables(env):
    """Purchase (n+1, n, m), query (n+1, m) and symbol law (n+1, T, m, Z) after each product."""
    n = env.products
    rule, feedback = env.action_rule, env.signals.feedback

    def one(shown):
        memory = rule.step(jnp.asarray(rule.start(n, env.horizon)), shown, n)
        laws = [feedback.likelihood(memory, shown, t, utilities) for t in range(env.horizon)]
        return rule.probabilities(memory, shown, utilities), jnp.stack(laws)

    with jax.enable_x64(True):
        utilities = jnp.asarray(env.utilities)
        act, laws = (np.asarray(x) for x in jax.vmap(one)(jnp.arange(n + 1)))
    return act[:, :n], act[:, n + 1], laws


def economies(env, theta, signals, only=None):
    """W (), W^{-i} (n,), Wd^{-i} (n,) at one profile, conditional on it; NaN if impossible.

    `only`: the products that may be recommended, all by default.
    """
    n, size = env.values.support.shape
    buy, query, law = tables(env)
    if isinstance(env.values, dm.MarkovValues):
        states, kernel = profile_grid(n, size), joint_kernel(env.values)
        here = int(np.flatnonzero((states == theta).all(axis=1))[0])
    else:
        states, here = np.asarray(theta)[None], 0
        kernel = np.ones((n + 1, 1, 1))
    money = env.values.support[np.arange(n), states]  # (V, n)
    with jax.enable_x64(True):
        like = env.signals.initial.likelihood(jnp.asarray(env.utilities), np.asarray(signals)[None])
    root = np.asarray(env.tastes.weights) * np.asarray(like)[0]
    mass = root.sum()
    if mass == 0:
        return np.full(1 + 2 * n, np.nan)

    def best(worth, shown):
        """W for worth (V, n, m) of a purchase; products `shown` may be recommended."""
        pay = np.einsum("ajm,vjm->avm", buy, worth)

        def value(beliefs, t):  # (N, m) -> (N, V)
            found = np.full((len(beliefs), len(states)), -np.inf)
            for r in (*shown, n):
                total = beliefs @ pay[r].T
                if t < env.horizon - 1:
                    step = query[r][:, None] * law[r, t]
                    after = (beliefs[:, None, :] * step.T).reshape(-1, beliefs.shape[1])
                    later = value(after, t + 1).reshape(len(beliefs), -1, len(states)).sum(axis=1)
                    total = total + later @ kernel[r].T
                found = np.maximum(found, total)
            return found

        return value(root[None], 0)[0, here] / mass

    worth = money[:, :, None] + env.utilities
    every = list(range(n)) if only is None else list(only)
    counted = ~np.eye(n, dtype=bool)[:, :, None]
    withdrawn = [best(worth, [j for j in every if j != i]) for i in range(n)]
    displayable = [best(worth * counted[i], every) for i in range(n)]
    return np.array([best(worth, every), *withdrawn, *displayable])
