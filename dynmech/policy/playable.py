"""A critic or a recommender in a market, ready to be played."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech._beside import Beside
from dynmech._types import Record
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.roots import signal_likelihood
from dynmech.policy.guide import AbstractGuide
from dynmech.policy.kept import check_profiles, require_beliefs
from dynmech.problem.compile import distinct_integers
from dynmech.problem.moving import PlayedProcess, played_process
from dynmech.problem.process import MarketProcess, market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers import AbstractCeiling, AbstractCritic, AbstractProcess, Case, Certificate
from solvers.certify import in_float64, simplify
from solvers.chooser import draw_controls
from solvers.neural.rollout import decide
from solvers.tree.misled import Told

_RULES, _PROCESSES, _CEILINGS = Beside(), Beside(), Beside()


class Playable(Record):
    """Who plays in a market: a critic, or somebody whose recommendations are asked for.

    `profiles` (B of them) with unnormalised beliefs `root` (B, m); `critic`: what values the
    beliefs that follow, None where nothing does and play is myopic; `chunk`: runs handled at once;
    `chooser`: who recommends instead, if anybody; `single`: whether the market's numbers were
    rounded to single precision. Without a chooser it is only arrays and settings, so that it is
    saved.
    """

    env: RecommendationMDP
    profiles: Profiles
    root: Float[np.ndarray, "B m"]
    critic: AbstractCritic | None
    certificate: Certificate
    chunk: int = eqx.field(static=True)
    chooser: AbstractGuide | None = None
    single: bool = eqx.field(static=True, default=False)

    def check_kept(self) -> None:
        """Raise `ValueError` for profiles and beliefs that are not of the market."""
        check_profiles(self.env, self.profiles)
        require_beliefs(self.env, self.root)

    @property
    def process(self) -> PlayedProcess:
        """The market's rules, which are used as they are, and how its values move."""
        return _PROCESSES(self.env, lambda: played_process(self.env, self.rules))

    @property
    def rules(self) -> MarketProcess:
        """The market's rules alone."""
        return _RULES(self.env, lambda: market_process(self.env, self.single))

    @property
    def ceilings(self) -> list[AbstractCeiling]:
        """Told-omega bounds of W, of every profile."""
        return [self.cased(theta)[1] for theta in self.profiles.theta]

    def theta(self, profile: int) -> Float[np.ndarray, " n"]:
        """Values of a profile, money."""
        return money_of(self.env, self.profiles.theta[profile])

    def cased(self, theta: Int[np.ndarray, " n"]) -> tuple[Case, AbstractCeiling]:
        """The economy of everyone at value indices, and its told-omega bound."""
        return self.priced(money_of(self.env, theta))

    def priced(self, money: Float[np.ndarray, " n"]) -> tuple[Case, AbstractCeiling]:
        """The economy of everyone at values in money, and its told-omega bound."""
        case, kept = self.process.posed(make_case(self.env, money)), _CEILINGS(self, dict)
        key = np.asarray(case.coefficient).tobytes()
        if key not in kept:
            with jax.enable_x64(True):
                (kept[key],) = make_ceilings(self.env, self.process, [case])
        return case, kept[key]

    def told(self, profile: int) -> Told | None:
        """What the chooser is told of a profile, where that is not the market's own belief."""
        found = None
        if self.chooser is not None:
            found = self.chooser.outset(self.theta(profile), self.profiles.signals[profile])
        if found is None:
            return None
        case, ceiling = self.cased(self.profiles.theta[profile])
        return told_of(*found, (case,), (ceiling,))

    def quick(self, ceiling: AbstractCeiling) -> tuple[AbstractProcess, AbstractCeiling]:
        """Rules and bound, as tables where memory is of no matter to anybody."""
        if self.chooser is not None:
            return self.process, ceiling
        process, (ceiling,), _ = simplify(self.process, [ceiling])
        return process, ceiling

    def choose(
        self,
        theta: Int[np.ndarray, " n"],
        belief: Float[np.ndarray, "C m"],
        memory: Int[np.ndarray, "C d"],
        period: int,
        rng: np.random.Generator | None = None,
    ) -> Int[np.ndarray, " C"]:
        """Controls (C,) at beliefs (C, m) of mass 1 and memories (C, d); round from 0.

        Where they are drawn, by `rng`, or by a hash of where that is.
        """
        laws = self.laws(theta, belief, memory, period)
        if rng is not None and self.chooser is not None:
            return draw_controls(laws, rng.random(len(laws)))
        found, drawn = laws.argmax(axis=1), np.flatnonzero(laws.max(axis=1) < laws.sum(axis=1))
        for row in drawn.tolist():
            # Beliefs of conversations followed together are the same up to rounding.
            place = np.round(belief[row], 9) + 0.0
            words = b"".join(x.tobytes() for x in (place, np.asarray(memory[row], np.int64), theta))
            seed = [period, int.from_bytes(hashlib.sha256(words).digest()[:8], "big")]
            uniform = np.random.default_rng(seed).random(1)
            found[row] = draw_controls(laws[row][None], uniform)[0]
        return found

    def laws(
        self, theta: Int[np.ndarray, " n"], belief: np.ndarray, memory: np.ndarray, period: int
    ) -> Float[np.ndarray, "C A"]:
        """Laws over controls (C, A); arguments as of `choose`."""
        return self.laws_at(money_of(self.env, theta), belief, memory, period)

    def laws_at(
        self, money: Float[np.ndarray, " n"], belief: np.ndarray, memory: np.ndarray, period: int
    ) -> Float[np.ndarray, "C A"]:
        """`laws` at values in money."""
        count = len(self.env.controls)
        if self.chooser is not None:
            at = np.asarray(belief, float), np.asarray(memory), period, np.zeros(len(belief), int)
            return self.chooser.laws(make_case(self.env, money), *at)
        case, ceiling = self.priced(money)
        with jax.enable_x64(True):
            found = decide(
                self.process, case, ceiling, in_float64(self.critic), belief, memory, period,
                self.chunk,
            )  # fmt: skip
        return np.eye(count)[found]

    def beliefs(self, signals: Int[np.ndarray, "N n1"]) -> Float[np.ndarray, "N m"]:
        """Unnormalised beliefs after initial symbols."""
        return beliefs_after(self.env, signals)


def told_of(
    belief: np.ndarray, place: int, cases: Sequence[Case], ceilings: Sequence[AbstractCeiling]
) -> Told:
    """What controls are chosen for, from an unnormalised belief; nothing is done where it has no
    mass."""
    return Told(belief / max(belief.sum(), 1e-300), tuple(cases), tuple(ceilings), place)


def beliefs_after(env: RecommendationMDP, signals: np.ndarray) -> Float[np.ndarray, "N m"]:
    """Unnormalised beliefs (N, m) after initial symbols (N, 1+n), as they are at the roots."""
    unique, index = distinct_integers(signals)
    likelihood = np.asarray(signal_likelihood(env, unique))
    return (np.asarray(env.tastes.weights) * likelihood)[index]


def untrained(
    env: RecommendationMDP,
    profiles: Profiles,
    chooser: AbstractGuide | None = None,
    single: bool = False,
) -> Playable:
    """Profiles of a market without a critic, `chooser` recommending if there is one."""
    root = beliefs_after(env, profiles.signals)
    return Playable(env, profiles, root, None, Certificate(), 16, chooser, single)


def money_of(env: RecommendationMDP, theta: np.ndarray) -> Float[np.ndarray, "*b n"]:
    """Values in money from indices into the support."""
    return np.asarray(env.values.support, float)[np.arange(env.products), theta]


def padded(size: int) -> int:
    """The next power of two, so that few shapes are compiled."""
    return 1 << max(size - 1, 0).bit_length()
