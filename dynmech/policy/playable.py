"""A critic in a market, ready to be played."""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech._beside import Beside
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.roots import signal_likelihood
from dynmech.problem.process import MarketProcess, market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers import AbstractCeiling, AbstractCritic, Case, Certificate, decide, in_float64

_PROCESSES, _CEILINGS = Beside(), Beside()


class Playable(eqx.Module):
    """A critic in a market, ready to be played; only arrays and settings, so that it is saved.

    `profiles` (B of them) with unnormalised beliefs `root` (B, m); `critic`: what values the
    beliefs that follow, None where nothing does and play is myopic; `chunk`: runs handled at once.
    """

    env: RecommendationMDP
    profiles: Profiles
    root: Float[np.ndarray, "B m"]
    critic: AbstractCritic | None
    certificate: Certificate
    chunk: int = eqx.field(static=True)

    @property
    def process(self) -> MarketProcess:
        """The market's rules, which are used as they are."""
        return _PROCESSES(self.env, lambda: market_process(self.env))

    @property
    def ceilings(self) -> list[AbstractCeiling]:
        """Told-omega bounds of W, of every profile."""
        return [self.cased(theta)[1] for theta in self.profiles.theta]

    def theta(self, profile: int) -> Float[np.ndarray, " n"]:
        """Values of a profile, money."""
        return money_of(self.env, self.profiles.theta[profile])

    def cased(self, theta: Int[np.ndarray, " n"]) -> tuple[Case, AbstractCeiling]:
        """The economy of everyone at value indices, and its told-omega bound."""
        case, kept = make_case(self.env, money_of(self.env, theta)), _CEILINGS(self, dict)
        key = np.asarray(theta, np.int64).tobytes()
        if key not in kept:
            with jax.enable_x64(True):
                (kept[key],) = make_ceilings(self.env, self.process, [case])
        return case, kept[key]

    def choose(self, theta: Int[np.ndarray, " n"], belief, memory, period: int) -> np.ndarray:
        """Greedy controls (C,) at beliefs (C, m) of mass 1 and memories (C, d); round from 0."""
        case, ceiling = self.cased(theta)
        size = len(belief)
        pad = np.minimum(np.arange(max(padded(size), 8) if size > 1 else 1), size - 1)
        with jax.enable_x64(True):
            found = decide(
                self.process, case, ceiling, in_float64(self.critic), belief[pad], memory[pad],
                period, self.chunk,
            )  # fmt: skip
        return np.asarray(found)[:size]

    def beliefs(self, signals: Int[np.ndarray, "N n1"]) -> Float[np.ndarray, "N m"]:
        """Unnormalised beliefs after initial symbols."""
        return beliefs_after(self.env, signals)


def beliefs_after(env: RecommendationMDP, signals: np.ndarray) -> Float[np.ndarray, "N m"]:
    """Unnormalised beliefs (N, m) after initial symbols (N, 1+n), as they are at the roots."""
    unique, index = np.unique(signals, axis=0, return_inverse=True)
    likelihood = np.asarray(signal_likelihood(env, unique))
    return (np.asarray(env.tastes.weights) * likelihood)[index.reshape(-1)]


def untrained(env: RecommendationMDP, profiles: Profiles) -> Playable:
    """Profiles of a market without a critic."""
    root = beliefs_after(env, profiles.signals)
    return Playable(env, profiles, root, None, Certificate(), 16)


def money_of(env: RecommendationMDP, theta: np.ndarray) -> Float[np.ndarray, " n"]:
    """Values in money from indices into the support."""
    return np.asarray(env.values.support, float)[np.arange(env.products), theta]


def padded(size: int) -> int:
    """The next power of two, so that few shapes are compiled."""
    return 1 << max(size - 1, 0).bit_length()
