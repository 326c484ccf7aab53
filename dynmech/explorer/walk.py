"""The conversations that can follow from a start, the most likely points of them first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dynmech.market.shown import stepped
from dynmech.market.values import MarkovValues, Values
from dynmech.policy.questions import AbstractEvaluator, Place


@dataclass
class Answer:
    """One way on: every party's symbol, the next value indices, its chance here, and where to."""

    symbols: list[int]
    values: np.ndarray
    chance: float
    point: int = -1


@dataclass
class Point:
    """One point of the conversations: what is shown there, and everything that can happen.

    `memory`: the action rule's before this round, `after` once the recommendation is shown;
    `shown`: controls so far, this one last; `chance`: of coming here; `law` (A,) of the actions;
    `bought` (A, m): their chances given each taste.
    """

    place: Place
    memory: np.ndarray
    after: np.ndarray
    shown: tuple[int, ...]
    chance: float
    law: np.ndarray
    bought: np.ndarray
    answers: list[Answer] = field(default_factory=list)

    @property
    def control(self) -> int:
        """The recommendation."""
        return self.shown[-1]

    @property
    def belief(self) -> np.ndarray:
        """Weights (m,) of the tastes, mass 1."""
        return self.place.belief / self.place.belief.sum()


def walk(evaluator: AbstractEvaluator, start: Place, most: int) -> tuple[list[Point], float]:
    """Points from `start` on, at most so many, the likeliest; the chance of staying on them."""
    env, order = evaluator.env, itertools.count()
    horizon, values, said = env.horizon, env.values, env.heard
    points: list[Point] = []
    memories: dict[tuple[bytes, int], np.ndarray] = {}
    spoken: dict[tuple[int, int], list[int]] = {}
    waiting: list[tuple[float, int, Point, Answer, int]] = []
    place, memory, before, chance = start, env.unaware, (), 1.0
    while True:
        control = evaluator.control(place)
        key = memory.tobytes(), control
        if key not in memories:
            memories[key] = np.asarray(
                stepped(env.action_rule, memory, env.controls[control], env.products)
            )
        after, shown = memories[key], (*before, control)
        actions, columns = evaluator.chances(place, control)
        belief = place.belief / place.belief.sum()
        point = Point(place, memory, after, shown, chance, actions @ belief, actions)
        points.append(point)
        heard = columns @ belief if place.period < horizon else np.zeros(0)
        for joint in np.flatnonzero(heard > 0).tolist():
            if (joint, control) not in spoken:
                spoken[joint, control] = said.split(joint, control).tolist()
            for index, moved in _moves(values, control, place.theta):
                answer = Answer(spoken[joint, control], index, float(heard[joint] * moved))
                point.answers.append(answer)
                row = -chance * answer.chance, next(order), point, answer, joint
                heapq.heappush(waiting, row)
        if not waiting or len(points) == most:
            return points, 1 + sum(row[0] for row in waiting)
        minus, _, via, answer, joint = heapq.heappop(waiting)
        answer.point, chance = len(points), -minus
        place = evaluator.follow(via.place, via.control, joint, answer.values)
        memory, before = via.after, via.shown


def _moves(values: Values, control: int, held: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Value indices (n,) that can come next, and their chances."""
    if not isinstance(values, MarkovValues):
        yield held, 1.0
        return
    rows = values.kernel[control][np.arange(len(held)), held]
    for index in itertools.product(*(np.flatnonzero(row) for row in rows)):
        yield np.array(index), float(np.prod(rows[np.arange(len(held)), index]))
