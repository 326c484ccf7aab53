"""The markets of the shopping assistant's experiment, and the reports that are audited."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import root_scalar

from dynmech import static
from experiments._figures import RESULTS

NAMES = ("first", "second")


@dataclass(frozen=True)
class Options:
    """Two products; money has no unit."""

    mean: tuple[float, float] = (0.1, -0.2)
    """Prior means of the user's values."""
    correlation: float = 0.3
    """Correlation of the two values; standard deviations 1 and 1.2."""
    advertisers: tuple[float, float] = (2.0, 3.0)
    """Noise variances of the advertisers' signals."""
    context: float = 1.5
    """Noise variance of the platform's context."""
    shown: float = 4.0
    """Precision of a reaction about the product shown."""
    others: float = 0.2
    """Precision of a reaction about each product not shown."""
    fatigue: float = 0.5
    """Share of the precision that is left each time a product is shown again."""
    rounds: int = 4
    """Most rounds solved; audits stop at 3."""
    nodes: int = 16
    """Quadrature points a product and round."""
    compared: tuple[int, ...] = (8, 12, 16, 24, 32, 48, 64)
    """Numbers of nodes at which the quadratures are compared."""
    profiles: int = 6
    """Profiles audited for each number of rounds."""
    long: tuple[int, ...] = (4, 6, 8, 12)
    """AssistantConversations too long to solve, which are bounded."""
    draws: int = 100_000
    """AssistantConversations simulated."""
    seed: int = 0
    """Seed of profiles and simulations."""
    results: Path = RESULTS
    """Folder; files go to `shopping_assistant` inside."""


def market(options: Options, rounds: int) -> static.ShoppingAssistant:
    """Build the environment; reactions tire when a product is shown again."""

    def precision(past: tuple[int, ...]) -> np.ndarray:
        about = np.full(2, options.others)
        if past[-1] >= 0:
            about[past[-1]] = options.shown * options.fatigue ** past[:-1].count(past[-1])
        return about

    deviations = np.array([1.0, 1.2])
    covariance = np.outer(deviations, deviations) * [
        [1, options.correlation],
        [options.correlation, 1],
    ]
    return static.ShoppingAssistant(
        list(options.mean),
        covariance,
        list(options.advertisers),
        options.context,
        precision,
        rounds,
        NAMES,
    )


def own_types(env: static.ShoppingAssistant) -> list[static.AssistantTypes]:
    """Values, signals on a box, and two structures: as agreed, or twice as precise."""
    found = []
    for i in range(2):
        box = static.AssistantTypes.box(env, i, [0.0, 0.4, 0.8, 1.6], radius=1.5)
        noises = np.stack([env.signal_noise[i], env.signal_noise[i] / 2])
        found.append(static.AssistantTypes(box.theta, box.signals, noises))
    return found


def draw_profiles(
    env: static.ShoppingAssistant, types: Sequence[static.AssistantTypes], count: int, seed: int
) -> list[static.AssistantProfile]:
    """Draw profiles from the lists; the context from its law."""
    rng, found = np.random.default_rng(seed), []
    root = np.linalg.cholesky(env.prior_covariance + env.context_noise)
    for _ in range(count):
        theta = [own.theta[rng.integers(len(own.theta))] for own in types]
        signals = [own.signals[rng.integers(len(own.signals))] for own in types]
        context = env.prior_mean + root @ rng.normal(size=2)
        found.append(env.profile(theta, signals, context))
    return found


def example(env: static.ShoppingAssistant) -> static.AssistantProfile:
    """One profile to follow through the tables."""
    return env.profile([0.4, 0.4], [[0.3, 0.1], [-0.5, 0.4]], [0.2, 0.3])


def revealing(utility: float) -> tuple[static.ShoppingAssistant, static.AssistantProfile]:
    """Build slip 5: showing i reveals omega_j, nothing else does, and nobody knows anything.

    omega_i is `utility`, nearly; omega_j ~ N(-1, v) with v such that knowing it in round 2 is worth
    E max(E[omega_j | reaction], 0) = 1/2.
    """
    faint = 1e-6
    feedback = [[1.0, 100.0], [faint, faint], [faint, faint]]

    def build(variance: float):
        env = static.ShoppingAssistant(
            [utility, -1.0], np.diag([0.01, variance]), [1e9, 1e9], 1e9, feedback, 2, ("i", "j")
        )
        return env, env.profile([0.0, 0.0], [env.prior_mean] * 2, env.prior_mean)

    def excess(variance: float) -> float:
        env, profile = build(variance)
        after = env.belief(profile, env.history([0], [env.prior_mean])).covariance
        news = (env.belief(profile).covariance - after)[1:, 1:]
        return float(static.expected_maximum(env.prior_mean[1:], news)) - 0.5

    return build(root_scalar(excess, bracket=(0.1, 50.0), xtol=1e-13).root)
