"""Conversations followed on several devices: each device has rows of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dynmech._devices import Work
from dynmech.policy.questions import AbstractCursor


class SpreadCursor(AbstractCursor):
    """Cursors that follow one run of rows each, the k-th on the k-th device; no row moves.

    **Arguments:** `work`: where; `make()`: a cursor.
    """

    def __init__(self, work: Work, make: Callable[[], AbstractCursor]):
        self.work = work
        self.cursors = [make() for _ in range(work.devices)]
        self.sizes = np.zeros(work.devices, np.int64)

    def __copy__(self) -> SpreadCursor:
        other = object.__new__(SpreadCursor)
        other.work, other.sizes = self.work, self.sizes
        other.cursors = [copy.copy(one) for one in self.cursors]
        return other

    def begin(self, signals: Int[np.ndarray, "N n1"]) -> None:
        parts = np.array_split(signals, len(self.cursors))
        self.sizes = np.array([len(part) for part in parts])
        self._each(lambda one, part: one.begin(part), parts)

    def choose(
        self, theta: Int[np.ndarray, "N n"], rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, " N"]:
        draws = [None] * len(self.cursors) if rng is None else rng.spawn(len(self.cursors))
        return np.concatenate(
            self._each(lambda one, part, draw: one.choose(part, draw), self._split(theta), draws)
        )

    def laws(
        self, control: Int[np.ndarray, " N"], omega: Int[np.ndarray, " N"]
    ) -> tuple[Float[np.ndarray, "*L N n"], Float[np.ndarray, "N A"]]:
        found = self._each(
            lambda one, *parts: one.laws(*parts), self._split(control), self._split(omega)
        )
        told, actions = zip(*found, strict=True)
        return np.concatenate(told, axis=-2), np.concatenate(actions)

    @property
    def gains(self) -> Float[np.ndarray, "n m"]:
        return self.cursors[0].gains

    def beliefs(self, rows: Int[np.ndarray, " k"]):
        return self._picked(lambda one, rows: one.beliefs(rows), rows)

    def acted(self, rows: Int[np.ndarray, " k"], code: Int[np.ndarray, " k"]):
        return self._picked(lambda one, rows, code: one.acted(rows, code), rows, code)

    def heard(self, rows: Int[np.ndarray, " k"], joint: Int[np.ndarray, " k"]):
        return self._picked(lambda one, rows, joint: one.heard(rows, joint), rows, joint)

    def _picked(
        self, ask: Callable[..., Any], rows: Int[np.ndarray, " k"], *more: np.ndarray
    ) -> Float[np.ndarray, "k m"]:
        """What the cursors of some rows answer, row by row."""
        first = np.concatenate([[0], np.cumsum(self.sizes)])
        owner = np.searchsorted(first, rows, side="right") - 1
        mine = [np.flatnonzero(owner == k) for k in range(len(self.cursors))]
        parts = [rows[at] - first[k] for k, at in enumerate(mine)]
        answers = self._each(ask, parts, *([given[at] for at in mine] for given in more))
        found = np.empty((len(rows), self.gains.shape[1]))
        if answers:
            found[np.concatenate(mine)] = np.concatenate(answers)
        return found

    def symbols(self, going: np.ndarray, omega: np.ndarray) -> Float[np.ndarray, "N Z"]:
        stay = self._split(going)
        counts = np.array([int(part.sum()) for part in stay])
        others = np.split(omega, np.cumsum(counts)[:-1])
        found = self._each(lambda one, *parts: one.symbols(*parts), stay, others)
        self.sizes = counts
        return np.concatenate(found)

    def advance(self, heard: Int[np.ndarray, " N"]) -> None:
        self._each(lambda one, part: one.advance(part), self._split(heard))

    def _split(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.split(rows, np.cumsum(self.sizes)[:-1])

    def _each(
        self, ask: Callable[..., Any], first: list[np.ndarray], *more: list[Any]
    ) -> list[Any]:
        """What every cursor that has rows answers, in their order."""
        given = list(zip(self.cursors, first, *more, strict=True))
        found = self.work.each(lambda one: ask(*one) if len(one[1]) else None, given)
        return [one for one, part in zip(found, first, strict=True) if len(part)]
