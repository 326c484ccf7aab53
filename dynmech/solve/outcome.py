"""What a solver found, laid out on a tree of the market, and what is said where it falls short."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from dynmech.errors import (
    DynmechWarning,
    InvalidArgument,
    ToleranceMissed,
    TooLarge,
    TrainingDiverged,
    describe,
)
from dynmech.market.environment import RecommendationMDP
from dynmech.problem.edges import Compiled
from dynmech.problem.pose import Posed
from dynmech.solve.prepare import MEMORY
from solvers import Limits, Problem, Solution, Status, Tables, TaskList
from solvers.follow import write_out
from solvers.table import Answer, PlanTable
from solvers.ties import signed
from solvers.tree.estimate import Estimate
from solvers.tree.tree import Tree
from solvers.truncation import truncate

_VERB = "solve_efficient_policy"
P = TypeVar("P")


@dataclasses.dataclass(frozen=True)
class Solved:
    """A solution on a tree of the market that was solved.

    `lower`, `upper` (N,): bounds on W of every task; `answers`: per group, what the plans attain;
    `gap`: None where only rounding separates the bounds, else per group and round the certified
    gap of each kept policy at each node, (N_t, R, keep), per unit of the node's mass.
    `complete`: whether every recommendation was followed at every node.
    `beyond` (N,): what the rounds after the last can cost each task at most, where none is shown.
    `endless`: whether there are such rounds, for which the last one does not stand.
    """

    compiled: Compiled
    tree: Tree
    tables: Tables
    answers: list[Answer]
    lower: Float[np.ndarray, " N"]
    upper: Float[np.ndarray, " N"]
    gap: list[tuple[Float[np.ndarray, "_N _R _K"], ...]] | None
    work: Estimate
    status: Status
    complete: bool
    note: str
    beyond: Float[np.ndarray, " N"]
    endless: bool


def with_table(problem: Problem, tasks: TaskList, found: Solution, limits: Limits) -> Solution:
    """The same solution with its plans written out, by following them where they are not.

    **Raises:** `TooLarge` where what the plans can reach does not fit; `InvalidArgument` for plans
    that answer nonsense.
    """
    if found.table is not None:
        return found
    call = f"{_VERB}(solver=...)"
    try:
        table = write_out(problem, tasks, found.plan, found.upper, limits.memory or MEMORY)
    except MemoryError as error:
        do = "reduce rounds, symbols or profiles"
        raise TooLarge(describe(call, "fit the tree of its plans", str(error), do)) from error
    except IndexError as error:
        must = "return plans that use controls that there are and that tasks allow"
        raise InvalidArgument(describe(call, must, str(error))) from error
    attained, value = table.value, found.lower if found.value is None else found.value
    known = ~np.isnan(attained)
    value = np.where(known, attained, value)
    answers = [
        dataclasses.replace(answer, value=part)
        for part, answer in zip(tasks.split(value), table.answers, strict=True)
    ]
    return dataclasses.replace(
        found,
        value=value,
        lower=np.maximum(found.lower, np.where(known, attained, -np.inf)),
        upper=np.maximum(found.upper, value),
        table=dataclasses.replace(table, answers=answers),
    )


def laid_out(
    posed: Posed, tasks: TaskList, found: Solution, limits: Limits
) -> tuple[RecommendationMDP, Solved]:
    """The market whose rounds the plans have, and the solution on a tree of it."""
    table: PlanTable = found.table
    if table.tree is not None:
        tree = table.tree
        market, compiled, numbers = posed.on_tree(tree, table.last)
    else:
        assert table.rounds is not None
        market, compiled, numbers, tree = posed.on_rounds(table.rounds, limits.memory or MEMORY)
    endless, rounds = posed.problem.horizon == math.inf and table.last is None, len(tree.layers)
    left = np.zeros(len(tasks))
    if endless:
        left = _beyond(posed.problem, tasks, numbers, rounds, limits.memory or MEMORY)
    return market, Solved(
        compiled,
        tree,
        numbers,
        table.answers,
        found.lower,
        found.upper,
        table.gap,
        Estimate(found.nodes, found.bytes, found.seconds),
        found.status,
        table.complete,
        found.note,
        left,
        endless,
    )


def _beyond(
    problem: Problem, tasks: TaskList, tables: Tables, rounds: int, memory: float
) -> np.ndarray:
    """What the rounds of an endless problem after these can cost, infinite if that is not known.

    `tables`: of the rounds written out, whose outcomes are those of the market.
    """
    nothing = np.zeros(len(tasks))
    if not any(signed(tables, part) for part in tasks.groups):
        return nothing
    try:
        listed = problem.lists(memory)
    except MemoryError:
        return nothing + math.inf
    given = listed.structure, listed.tables, tasks.groups
    cut = truncate(*given, tolerance=math.inf, least=rounds, most=rounds)
    return np.concatenate([nothing[:0], *(part.ravel() for part in cut.under)])


def told_of(policy: P, found: Solution, tasks: TaskList, limits: Limits, throw: bool) -> P:
    """The policy; with a warning, or an error that carries it, where the tolerance was missed."""
    if found.status.met:
        return policy
    mass = tasks.mass
    least = found.lower if found.value is None else np.minimum(found.lower, found.value)
    gap = (found.upper - least) / np.where(mass > 0, mass, 1.0)
    widest = float(np.where(mass > 0, gap, 0.0).max(initial=0.0))
    return missed(policy, found.status, widest, limits, throw)


def missed(policy: P, status: Status, gap: float, limits: Limits, throw: bool) -> P:
    """The policy, with a warning, or an error that carries it; `gap`: the widest bounds, money."""
    asked = f"{limits.tolerance:.3g} money"
    if limits.relative > 0:
        asked += f" or {limits.relative:.3g} of the upper bound"
    must = f"reach a tolerance of {asked}"
    got = f"bounds up to {gap:.3g} apart: "
    do = "use `.lower` and `.upper`, which hold, or raise the tolerance, memory or seconds"
    kind = ToleranceMissed
    if status is Status.TRAINING_FAILED:
        kind, do = TrainingDiverged, f"learn otherwise, as with a lower learning_rate; {do}"
    text = describe(f"{_VERB}(...)", must, got + status.value, do)
    if throw:
        raise kind(text, policy)
    warnings.warn(text, DynmechWarning, stacklevel=4)
    return policy
