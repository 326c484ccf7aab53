"""Somebody's own recommender, asked: its answers are checked and made laws over controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import NONE
from dynmech.errors import InvalidArgument, OutsideSupport, describe, shown
from dynmech.market.displays import control_of
from dynmech.market.environment import RecommendationMDP
from dynmech.policy.guide import AbstractGuide
from solvers import Case

Recommend = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Any]
Ask = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
CALL = "GivenPolicy(recommend=...)"


class Recommender(AbstractGuide):
    """A function recommend(belief, memory, theta, period) of a market; see `GivenPolicy`.

    One question is asked once in a call, however many conversations put it.
    """

    env: RecommendationMDP
    recommend: Recommend
    batched: bool = eqx.field(static=True)

    def laws(
        self,
        case: Case,
        beliefs: Float[np.ndarray, "C m"],
        memories: Int[np.ndarray, "C d"],
        period: int,
        places: Int[np.ndarray, " C"],
    ):
        theta = np.asarray(case.coefficient, float)[: self.env.products]
        return self.asked(theta, np.asarray(beliefs), np.asarray(memories), period)

    def follow(
        self,
        places: Int[np.ndarray, " C"],
        period: int,
        controls: Int[np.ndarray, " C"],
        symbols: Int[np.ndarray, " C"],
    ):
        return places

    def outset(self, money: Float[np.ndarray, " n"], signals: Int[np.ndarray, " n1"]):
        return None

    def asked(
        self,
        theta: Float[np.ndarray, " n"],
        beliefs: Float[np.ndarray, "C m"],
        memories: Int[np.ndarray, "C d"],
        period: int,
    ) -> Float[np.ndarray, "C A"]:
        """Laws at values in money; `period` counts from 0."""
        first: dict[bytes, int] = {}
        rows = zip(beliefs, memories, strict=True)
        which = [first.setdefault(b.tobytes() + h.tobytes(), len(first)) for b, h in rows]
        where = np.zeros(len(first), np.int64)
        where[which[::-1]] = np.arange(len(which))[::-1]
        belief, memory = beliefs[where], memories[where]
        if self.batched:
            tiled = np.tile(theta, (len(belief), 1))
            taken = np.asarray(self.recommend(belief, memory, tiled, period + 1))
            if taken.shape[:1] != (len(belief),) or taken.ndim > 2:
                must = f"return one control or law each, for {len(belief)} at once"
                raise InvalidArgument(describe(CALL, must, f"shape {taken.shape}"))
            said: Any = taken
        else:
            said = [
                self.recommend(b, h, theta, period + 1) for b, h in zip(belief, memory, strict=True)
            ]
        return np.stack([self._law(one) for one in said])[which]

    def _law(self, said: Any) -> Float[np.ndarray, " A"]:
        size = len(self.env.controls)
        found, none = np.zeros(size), size - 1
        if isinstance(said, tuple) and self.env.displays is not None:
            found[control_of(CALL, self.env, said)] = 1.0
            return found
        answer = np.asarray(said)
        if answer.ndim == 0 and answer.dtype.kind in "iu":
            if not NONE <= answer <= none:
                must = f"return a control 0..{none - 1}, or {none} for none"
                raise OutsideSupport(describe(CALL, must, int(answer)))
            found[none if answer == NONE else int(answer)] = 1.0
            return found
        law = answer.astype(float) if answer.dtype.kind in "iuf" else np.zeros(0)
        fits = law.shape == (size,) and np.isfinite(law).all() and law.min() >= 0
        if not fits or abs(law.sum() - 1) > 1e-9:
            must = f"return one control, an integer in 0..{none}, or a law over {size} of them"
            raise InvalidArgument(describe(CALL, must, shown(said)))
        if law.max() == law.sum():
            found[int(law.argmax())] = 1.0
            return found
        return law / law.sum()


class Numbered:
    """Answers as numbers: a control, or A and on for the laws met, in the order of `table`.

    **Arguments:** `ask` (value indices (n,), beliefs (C, m), memories (C, d), round from 0) -> laws
    (C, A).
    """

    def __init__(self, ask: Ask):
        self.ask, self.rows = ask, {}

    def __call__(
        self, theta: Int[np.ndarray, " n"], belief: np.ndarray, memory: np.ndarray, period: int
    ) -> np.ndarray:
        laws = self.ask(theta, belief, memory, period)
        found = laws.argmax(axis=1)
        for row in np.flatnonzero(laws.max(axis=1) < laws.sum(axis=1)).tolist():
            law = laws[row].tobytes()
            found[row] = laws.shape[1] + self.rows.setdefault(law, len(self.rows))
        return found

    @property
    def table(self) -> Float[np.ndarray, "L A"] | None:
        """The laws met, by their numbers; None where nothing is drawn."""
        if not self.rows:
            return None
        return np.stack([np.frombuffer(law) for law in self.rows])


class Repeated:
    """Somebody who is asked some questions again: another answer is an error.

    **Arguments:** `ask`: see `Numbered`; `most`: how many.
    """

    def __init__(self, ask: Ask, most: int = 64):
        self.ask, self.most, self.questions = ask, most, []

    def __call__(
        self, theta: Int[np.ndarray, " n"], belief: np.ndarray, memory: np.ndarray, period: int
    ) -> np.ndarray:
        laws = self.ask(theta, belief, memory, period)
        if len(self.questions) < self.most:
            self.questions.append(((theta, belief[:1], memory[:1], period), laws[0]))
        return laws

    def again(self) -> None:
        """Ask again. **Raises:** `InvalidArgument` for another answer."""
        for question, first in self.questions:
            if not np.array_equal(self.ask(*question)[0], first):
                must, do = "be a function of its arguments", "return a law, do not draw from it"
                got = f"two answers at one belief in period {question[3] + 1}"
                raise InvalidArgument(describe(CALL, must, got, do))
