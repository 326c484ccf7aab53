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

Of data that were rounded to single precision, a term of round t is a product of t columns, stop,
root, and reward or x, each off by half an epsilon; however sums were made of them since.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

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


def widened_endless(
    found: Solution, structure: Structure, tables: Tables, tasks: TaskList, *, single: bool
) -> Solution:
    """The same without a horizon; see `widened`."""
    going, above, rooms = going_on(structure, tables), _gains(tables), []
    slots, symbols, points = structure.outcome.shape[1], structure.symbols, going.shape[1]
    known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    for part, low, high in _parts(tasks, found):
        after, mixed, most = np.zeros(high.shape), signed(tables, part), np.array(high, float)
        for at in np.ndindex(*high.shape):
            root, allowed = np.asarray(part.root[at[0]], float), np.asarray(part.allowed[at], bool)
            name = allowed.tobytes()
            if name not in known:
                used = np.zeros(len(going), bool)
                used[structure.edge[0][:, allowed]] = True
                known[name] = used, going[used].max(axis=0)
            used, further = known[name]
            live = root > 0
            endless = np.where(live, np.inf, 0.0)
            rounds = np.divide(1.0, 1.0 - further, out=endless, where=live & (further < 1))
            weights = (np.maximum(part.coefficient[at], 0.0), np.asarray(part.counted[at], float))
            gains, lost = round_yields(structure, above, *weights), 0.0
            if mixed:
                kept = one_for_ever(structure, gains, going)
                told = told_for_ever(structure, gains, going, kept, allowed)
                most[at], largest = root @ told[0], told.max(axis=0)
                weights = (np.asarray(x[at], float) for x in (part.coefficient, part.counted))
                own = round_yields(structure, tables, *weights)
                losses = np.maximum(-one_for_ever(structure, own, going)[allowed], 0.0)
                losses = losses.max(axis=1)
                lost = losses[(losses @ root).argmin()]
                largest = 2 * largest
            else:
                largest = gains[used].max(axis=0) * rounds
            after[at] = root @ np.where(live, (largest + lost) * further * rounds, 0.0)
        amount = _amount(most, low, high)
        count = 2 * points + 2 * slots + symbols + 20
        room = _HALF[np.float64] * (count * amount + (symbols + 10) * after.ravel())
        if single:
            room += _HALF[np.float32] * ((2 * slots + 12) * amount + 2 * after.ravel())
        rooms.append(room)
    return _apart(found, _SECOND * np.concatenate(rooms))


def told_gains(
    structure: Structure, tables: Tables, groups: Sequence[Tasks]
) -> Float[np.ndarray, " N"]:
    """U+ of every task without a horizon, unnormalised; 0 where no term is below zero.

    There W itself is what its terms add up to.
    """
    going, above, found = going_on(structure, tables), _gains(tables), []
    kept: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    told: dict[bytes, np.ndarray] = {}
    for part in groups:
        if not signed(tables, part):
            found += [0.0] * math.prod(part.coefficient.shape[:2])
            continue
        for at in np.ndindex(*part.coefficient.shape[:2]):
            weights = np.maximum(part.coefficient[at], 0.0), np.asarray(part.counted[at], float)
            allowed = np.asarray(part.allowed[at], bool)
            name = b"".join(x.tobytes() for x in weights)
            whole = name + allowed.tobytes()
            if name not in kept:
                gains = round_yields(structure, above, *weights)
                kept[name] = gains, one_for_ever(structure, gains, going)
            if whole not in told:
                gains, ever = kept[name]
                told[whole] = told_for_ever(structure, gains, going, ever, allowed)[0]
            found.append(np.asarray(part.root[at[0]], float) @ told[whole])
    return np.array(found)


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
