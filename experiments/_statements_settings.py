"""Environments in which the statements of paper D are checked: random ones and small auctions."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array

from dynmech import TasteGrid, static

SHARP = np.array([[0.9, 0.1], [0.2, 0.8]])
BLUNT = np.array([[0.6, 0.4], [0.4, 0.6]])
SILENT = np.ones((2, 1))
RICH = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
COARSE = np.array([[0.8, 0.2], [0.5, 0.5], [0.3, 0.7]])
RATES = np.linspace(0.05, 0.95, 7)


def random_environment(seed: int, affine: bool) -> static.StaticEnvironment:
    """Draw payoffs, states, values and signals; three agents and shared noise by turns.

    Two signal structures for each agent where noise is independent or agents are two.
    """
    rng = np.random.default_rng(seed)
    n, m, count = (3 if seed % 3 == 2 else 2), 3, 3
    weights = rng.normal(size=(n, count, 9))
    weights[..., 0] *= 0.1  # so that types matter for the allocation

    def payoff(agent: int, x: Array, omega: Array, theta: Array):
        flat = [1.0, theta, omega[0], omega[1], theta * omega[0], theta * omega[1]]
        curved = [omega[0] ** 2, jnp.sin(3 * omega[1]) * theta, omega[0] * omega[1]]
        terms = flat if affine else flat + curved
        own = jnp.asarray(weights)[agent, x[0].astype(int)]
        return sum(w * term for w, term in zip(own, terms, strict=False))

    if seed % 2:
        maps = [rng.integers(0, 2, (2, m, 4)) for _ in range(n)]
        for item in maps:
            item.flat[:2] = [0, 1]
        signals = static.PrivateSignals.from_maps(maps, rng.dirichlet(np.ones(4)))
    else:
        structures = 1 if n == 3 else 2
        signals = static.PrivateSignals.independent(
            [rng.dirichlet(np.ones(2), size=(structures, m)) for _ in range(n)]
        )
    return static.StaticEnvironment(
        payoff,
        np.arange(count)[:, None],
        TasteGrid(rng.normal(size=(m, 2)), rng.dirichlet(np.ones(m))),
        rng.normal(size=(n, 2)),
        signals,
    )


def random_unbiased(seed: int, env: static.StaticEnvironment) -> static.Estimator:
    """Draw an unbiased estimator whose noise depends on the allocation."""
    rng, states = np.random.default_rng(seed), np.asarray(env.states.points)
    count, m = len(env.allocations), len(states)
    shocks = rng.normal(size=(count, *states.shape))
    points = np.concatenate([states + sign * shocks[a] for a in range(count) for sign in (1, -1)])
    kernel = np.zeros((count, m, len(points)))
    for a, w, sign in itertools.product(range(count), range(m), range(2)):
        kernel[a, w, (2 * a + sign) * m + w] = 0.5
    return static.Estimator(points, kernel)


def random_data(seed: int, env: static.StaticEnvironment) -> static.Estimator:
    """Draw an estimator with no virtue at all."""
    rng = np.random.default_rng(seed)
    shape = (len(env.allocations), env.states.size)
    return static.Estimator(rng.normal(size=(5, 2)), rng.dirichlet(np.ones(5), size=shape))


def auction(
    rates: npt.ArrayLike,
    weights: npt.ArrayLike,
    values: Sequence[Sequence[float]] | np.ndarray,
    channels: Any = None,
) -> static.StaticEnvironment:
    """Build Example 2 with one slot: u_i = theta_i omega x_i."""
    return static.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] * x[i],
        np.eye(len(values)),
        TasteGrid(np.asarray(rates)[:, None], weights),
        values,
        None if channels is None else static.PrivateSignals.independent(channels),
    )


VALUES = np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 2.9]])


def click_auction() -> static.StaticEnvironment:
    """Build two bidders for one slot of rate 0.1 or 0.7; the first has two structures."""
    return auction([0.1, 0.7], [0.6, 0.4], VALUES, [[SHARP, BLUNT], SHARP])


def curved_auction() -> static.StaticEnvironment:
    """Build an auction with u_i = theta_i omega^2 x_i: not affine, Lipschitz, with ties."""
    clues = np.stack([RATES, 1 - RATES], axis=1)
    return static.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] ** 2 * x[i],
        np.eye(2),
        TasteGrid(RATES[:, None], np.full(7, 1 / 7)),
        [[1.0, 2.0], [1.0, 2.0]],
        static.PrivateSignals.independent([clues, clues]),
    )


def threshold(
    points: Sequence[float] | np.ndarray, weights: npt.ArrayLike, channel: npt.ArrayLike
) -> static.StaticEnvironment:
    """Let allocation 1 cost agent 1 0.3 and give agent 2 omega; only agent 1 sees anything."""
    return static.StaticEnvironment(
        lambda i, x, omega, theta: x[0] * (omega[0] if i else -0.3),
        [[0.0], [1.0]],
        TasteGrid(np.asarray(points)[:, None], weights),
        [[0.0], [0.0]],
        static.PrivateSignals.independent([channel, np.ones((len(points), 1))]),
    )


def wrong_near_zero(points: np.ndarray, m: float) -> static.Estimator:
    """Return omega, but 1 where 0 < omega < 1/m: consistent at every state, not uniformly."""
    count = len(points)
    told = np.where((points > 0) & (points < 1 / m), count, np.arange(count))
    return static.Estimator(np.append(points, 1.0)[:, None], np.eye(count + 1)[told])


def binomial(env: static.StaticEnvironment, m: int) -> np.ndarray:
    """Return the law of m draws of probability omega, (states, m + 1)."""
    return static.Estimator.frequency(env.states, m).kernel
