"""Bounds with what rounding can have done to them, where no amounts were kept.

A value is off by at most a share c of its *amount* A, the sum of the sizes of its terms
(`solvers.ties`). Let P and N be what the terms that are positive, and negative, add up to in size,
so that A = P + N and P - N is the value. Whatever is done, P is at most U+, what a controller told
the parameter gets if terms below zero count as nothing; so that N <= U+ - L for every plan that is
worth L or more, and

    A <= 2 U+ - L.

This holds for the best plan, for bounds found by going on from it with better than it can do, and
for the plan that attains L. A control that nobody would take, however large its loss, is in no U+.

Without a horizon a term of round t has t columns, each with its own error, so that what counts
besides A is the sum over t of the amounts A_t of what is still to come then. With g the largest
chance of going on, U+ the largest over memory classes, and k what one control kept for ever may
lose, which no plan that may keep it does worse than,

    sum_t A_t <= <b, (2 U+ + k) g / (1 - g)>.

With L and U this is all that rounding can do to a closed form; `Sums` says it of every task, before
a search, which need not bring its bounds closer than that, and after it, when they are widened.

Of data that were rounded to single precision, a term of round t is a product of t columns, stop,
root, and reward or x, each off by half an epsilon; however sums were made of them since.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

from solvers.problem import Structure, Tables, TaskList, Tasks
from solvers.process import AbstractCeiling, AbstractProcess, Case
from solvers.search.forever import going_on, one_for_ever, round_yields, told_for_ever
from solvers.solution import Limits, Solution, TooFine
from solvers.ties import most_amount, shares, signed
from solvers.told.bounds import told_parameter

_HALF = {kind: float(np.finfo(kind).eps) / 2 for kind in (np.float32, np.float64)}
_SECOND = 1.02  # products of many factors near one, beyond the first order
_CLOSE = 1e-14  # of what a value's terms add up to: a search stops there
_APART = 1e-13  # of the same, how far apart what it does can put bounds
P = TypeVar("P", bound=AbstractProcess)


def widened(
    found: Solution, structure: Structure, tables: Tables, tasks: TaskList, *, single: bool
) -> Solution:
    """The same solution of a finite horizon, its bounds as far apart as rounding asks for.

    **Arguments:** `single`: whether the numbers of the problem were rounded to single precision
    before they were worked on in double.
    """
    slots, points, rounds = structure.outcome.shape[1], tables.column.shape[1], structure.horizon
    share = shares(points, rounds, slots, structure.symbols).each[0]
    if single:
        share += _of_data(rounds)
    above, amounts = _gains(tables), []
    for part, low, high in _parts(tasks, found):
        most = high
        if signed(tables, part):
            told = told_parameter(structure, above, _gained(part))[0][0]
            most = np.broadcast_to((told * part.root[:, None]).sum(axis=-1), high.shape)
        amounts.append(_amount(most, low, high))
    return _apart(found, share * np.concatenate(amounts))


def widened_by_rules(found: Solution, process: AbstractProcess, tasks: TaskList) -> Solution:
    """The same solution of a process, of numbers that were rounded to single precision.

    Whatever ends a conversation comes once, what is paid for going on may come in every round; so
    that U+ is at most the most that either yields, given the parameter.
    """
    reward, rounds = np.maximum(np.asarray(process.reward, float), 0.0), int(process.horizon)
    ends, amounts = len(reward) - process.tolls, []
    for part, low, high in _parts(tasks, found):
        x, counted = np.maximum(part.coefficient, 0.0), np.asarray(part.counted, float)
        gains = x[..., None] + counted[..., None] * reward
        most = gains[:, :, :ends].max(axis=2, initial=0.0)
        most = most + rounds * gains[:, :, ends:].max(axis=2, initial=0.0)
        amounts.append(_amount((most * part.root[:, None]).sum(axis=-1), low, high))
    return _apart(found, _of_data(rounds) * np.concatenate(amounts))


def asked_for(
    limits: Limits, structure: Structure, tables: Tables, tasks: Sequence[Tasks]
) -> Limits:
    """What to ask of a search in double so that its bounds, `widened`, are as close as wanted.

    Less, by what rounding of the data can have done as far as it is foreseen: to at most half of
    it, where a share of the upper bound is asked for.

    **Raises:** `TooFine` if that is all of the tolerance, with the smallest that it is not.
    """
    if not limits.single:
        return limits
    share = _of_data(structure.horizon)
    amounts = ((1 + signed(tables, part)) * most_amount(tables, part) for part in tasks)
    room = share * max(amounts, default=0.0)
    if not math.isfinite(room) or 0 < limits.tolerance < 2 * room:
        raise TooFine(2 * room)
    relative = max(limits.relative / 2, limits.relative - 8 * share)
    tolerance = max(limits.tolerance - 2 * room, 0.0)
    return dataclasses.replace(limits, tolerance=tolerance, relative=relative)


class Sums(NamedTuple):
    """What values without a last round are sums of, task by task, unnormalised.

    - `gained` (N,): U+; 0 where no term is below zero: there W itself is what its terms add up to.
    - `after` (N,): sum_t A_t of what is still to come in every round, at most.
    - `points`, `slots`, `symbols`: how many terms are added at once.
    """

    gained: Float[np.ndarray, " N"]
    after: Float[np.ndarray, " N"]
    points: int
    slots: int
    symbols: int

    def room(
        self, low: np.ndarray | float, high: np.ndarray | float, single: bool = False
    ) -> Float[np.ndarray, " N"]:
        """What rounding can have moved bounds by that are about `low` and `high`.

        **Arguments:** `single`: as in `widened`.
        """
        amount, slots = _amount(self.gained, low, high), self.slots
        count = 2 * self.points + 2 * slots + self.symbols + 20
        room = _HALF[np.float64] * (count * amount + (self.symbols + 10) * self.after)
        if single:
            room = room + _HALF[np.float32] * ((2 * slots + 12) * amount + 2 * self.after)
        return _SECOND * room

    def least(self) -> Float[np.ndarray, " N"]:
        """How close a search is to bring bounds at most, however close is asked for."""
        return np.maximum(_CLOSE * self.gained, self.room(0.0, 0.0))

    def apart(
        self, low: Float[np.ndarray, " N"], high: Float[np.ndarray, " N"]
    ) -> Float[np.ndarray, " N"]:
        """How far apart rounding alone can put the bounds that a search finds."""
        size = np.maximum(self.gained, np.maximum(np.abs(high), np.abs(low)))
        return np.maximum(_APART * size, 2 * self.room(low, high))


def widened_endless(found: Solution, sums: Sums, *, single: bool) -> Solution:
    """The same without a horizon; see `widened`."""
    return _apart(found, sums.room(found.lower, found.upper, single))


def endless_sums(
    structure: Structure, tables: Tables, groups: Sequence[Tasks], lasting: bool = True
) -> Sums:
    """What values without a last round are sums of.

    **Arguments:** `lasting`: False where a round is the last, of which memory classes know: what is
    still to come then counts as nothing, and `widened` says what rounding does to it.
    """
    going, above = going_on(structure, tables), _gains(tables)
    gained: list[float] = []
    after: list[float] = []
    furthest: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    yields: dict[bytes, np.ndarray] = {}
    ever: dict[bytes, np.ndarray] = {}
    told: dict[bytes, np.ndarray] = {}
    for part in groups:
        mixed = signed(tables, part)
        for at in np.ndindex(*part.coefficient.shape[:2]):
            root, allowed = np.asarray(part.root[at[0]], float), np.asarray(part.allowed[at], bool)
            weights = np.maximum(part.coefficient[at], 0.0), np.asarray(part.counted[at], float)
            name, may = b"".join(x.tobytes() for x in weights), allowed.tobytes()
            if name not in yields and (mixed or lasting):
                yields[name] = round_yields(structure, above, *weights)
            if mixed and name not in ever:
                ever[name] = one_for_ever(structure, yields[name], going)
            if mixed and name + may not in told:
                given = yields[name], going, ever[name]
                told[name + may] = told_for_ever(structure, *given, allowed)
            gained.append(float(root @ told[name + may][0]) if mixed else 0.0)
            if not lasting:
                continue
            if may not in furthest:
                used = np.zeros(len(going), bool)
                used[structure.edge[0][:, allowed]] = True
                furthest[may] = used, going[used].max(axis=0)
            used, further = furthest[may]
            live, lost = root > 0, 0.0
            endless = np.where(live, np.inf, 0.0)
            rounds = np.divide(1.0, 1.0 - further, out=endless, where=live & (further < 1))
            largest = yields[name][used].max(axis=0) * rounds
            if mixed:
                largest = 2 * told[name + may].max(axis=0)
                own = round_yields(structure, tables, np.asarray(part.coefficient[at]), weights[1])
                losses = np.maximum(-one_for_ever(structure, own, going)[allowed], 0.0)
                losses = losses.max(axis=1)
                lost = losses[(losses @ root).argmin()]
            after.append(float(root @ np.where(live, (largest + lost) * further * rounds, 0.0)))
    count = going.shape[1], structure.outcome.shape[1], structure.symbols
    return Sums(np.array(gained), np.array(after if lasting else np.zeros(len(gained))), *count)


class Rounded(AbstractCeiling):
    """A ceiling of numbers that were rounded to single precision; `gains`: that of `gaining`."""

    ceiling: AbstractCeiling
    gains: AbstractCeiling

    def value(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return self.ceiling.value(period, memories)

    def plans(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return self.ceiling.plans(period, memories)

    def gained(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return self.gains.value(period, memories)


def gaining(process: P, cases: Sequence[Case]) -> tuple[P, list[Case]]:
    """The same process and cases, terms below zero counted as nothing."""
    reward = np.maximum(np.asarray(process.reward), 0.0)
    given = [np.maximum(np.asarray(case.coefficient), 0.0) for case in cases]
    both = zip(cases, given, strict=True)
    most = [dataclasses.replace(case, coefficient=x) for case, x in both]
    return dataclasses.replace(process, reward=reward), most


def data_room(
    process: AbstractProcess,
    ceiling: AbstractCeiling,
    belief: Float[np.ndarray, " m"],
    low: float,
    memory: np.ndarray | None = None,
    period: int = 0,
) -> float:
    """What rounding of the data can have moved a value of `low` or more, at a belief of mass 1.

    **Arguments:** `process`, `ceiling`: of the value, `memory` theirs, that of the start by
    default; nothing is rounded where the ceiling knows no `gained`.
    """
    memory = np.asarray(process.start() if memory is None else memory)
    gains = ceiling.gained(period, memory[None])
    if gains is None:
        return 0.0
    return _of_data(int(process.horizon)) * float(_amount(gains[0] @ belief, low, low)[0])


def _of_data(rounds: int) -> float:
    """Share of its amount that a value is off by, of data rounded to single precision."""
    return shares(0, rounds, 1, 1, dtype=np.float32).now


def _gains(tables: Tables) -> Tables:
    return dataclasses.replace(tables, reward=np.maximum(tables.reward, 0.0))


def _gained(part: Tasks) -> Tasks:
    return dataclasses.replace(part, coefficient=np.maximum(part.coefficient, 0.0))


def _parts(tasks: TaskList, found: Solution):
    """Groups of tasks with their bounds."""
    return zip(tasks.groups, tasks.split(found.lower), tasks.split(found.upper), strict=True)


def _amount(
    most: np.ndarray | float, low: np.ndarray | float, high: np.ndarray | float
) -> np.ndarray:
    """What terms add up to in size, of what is gained at most and the bounds."""
    most = np.maximum(most, np.abs(high))
    return np.ravel(most + np.maximum(most - low, 0.0))


def _apart(found: Solution, room: Float[np.ndarray, " N"]) -> Solution:
    if not all(map(math.isfinite, room)):
        raise ArithmeticError("sums are too long for this precision")
    apart = 2.0 * room + (0.0 if found.rounding is None else found.rounding)
    low, high = found.lower - room, found.upper + room
    return dataclasses.replace(found, lower=low, upper=high, rounding=apart)
