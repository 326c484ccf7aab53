"""Run the solver asked for, or pick one, on a market posed as a problem; say which and why."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Generator

import numpy as np

from dynmech.errors import (
    DynmechError,
    InvalidArgument,
    InvalidProbability,
    NotFinite,
    TooLarge,
    describe,
)
from dynmech.solve.prepare import MEMORY, rounded_up
from solvers import (
    AbstractSolver,
    BestFirst,
    BranchAndBound,
    Exact,
    Limits,
    Problem,
    Solution,
    Status,
    TaskList,
    TooFine,
    Unkept,
    Unsuited,
)
from solvers.solution import close_enough, ended
from solvers.tree.beside import AT_ONCE

_VERB = "solve_efficient_policy"
_ROUNDING = 1e-9
_SINGLE = 1e-5  # of a value, in single precision, where a solver does not say
_EXACT = 1e-11
_PATIENCE = 30.0  # seconds, estimated, of being exact where a tolerance is given


def run_solver(
    problem: Problem,
    tasks: TaskList,
    solver: AbstractSolver | None,
    limits: Limits,
    progress: bool,
) -> Solution:
    """Solve every task; None picks a solver, and the note says which and why.

    **Raises:** our errors for those of the solver; `InvalidArgument` where its bounds cross.
    """
    if solver is None:
        found = _pick(problem, tasks, limits, progress)
    else:
        found = _ask(solver, problem, tasks, limits, progress, "as asked")
    return check_solution(found, tasks, solver, limits)


def _pick(problem: Problem, tasks: TaskList, limits: Limits, progress: bool) -> Solution:
    """Exact where its tree fits; else a search, of lists of memories or from the rules.

    With a tolerance, exact where that takes about a second; else a search that gives way to it
    (`solvers.tree.beside`), and only where memories are too many to search, exact again.
    """
    memory = limits.memory or MEMORY
    search = problem, tasks, limits, progress
    if problem.horizon == math.inf:
        why = "picked because horizon is math.inf"
        return _ask(BestFirst(memory, limits.seconds, points_after=AT_ONCE), *search, why)
    bounded = max(limits.tolerance, limits.relative) > 0
    constant = all(part.kernel is None for part in tasks.groups)
    given = limits.seconds or math.inf
    tries = [AT_ONCE, _PATIENCE] if bounded and constant else [math.inf]
    why = ""
    for most in tries:
        patience = min(most, given)
        try:
            exact = Exact(memory, seconds=None if patience == math.inf else patience)
            found = _ask(exact, problem, tasks, limits, progress, "picked")
            note = found.note.replace("picked", f"picked because {found.nodes} nodes fit", 1)
            return dataclasses.replace(found, note=note)
        except TooLarge as error:
            if not bounded and limits.seconds is None:
                raise
            late = isinstance(error.__cause__, TimeoutError)
            lacks = f"would take more than {patience:.3g} s" if late else f"does not fit ({error})"
            why = f"picked because the exact tree {lacks}"
        except InvalidArgument as error:  # searches may work in doubles, whatever the data
            if not isinstance(error.__cause__, TooFine):
                raise
            why = "picked because float32 cannot certify the exact tree as closely"
        if constant and most == tries[0]:
            with contextlib.suppress(TooLarge):  # where memories are too many to list
                return _ask(BestFirst(memory, limits.seconds), *search, why)
    return _ask(BranchAndBound(memory, limits.seconds), *search, why)


def _ask(
    solver: AbstractSolver,
    problem: Problem,
    tasks: TaskList,
    limits: Limits,
    progress: bool,
    why: str,
) -> Solution:
    name = type(solver).__name__
    with our_errors(name, limits):
        found = solver.solve(problem, tasks, limits, progress)
    between = "" if not found.note or found.note.startswith(";") else ": "
    return dataclasses.replace(found, note=f"{name}, {why}{between}{found.note}")


@contextlib.contextmanager
def our_errors(name: str, limits: Limits) -> Generator[None, None, None]:
    """Turn what solvers raise into what users catch; `name`: of the solver."""
    try:
        yield
    except DynmechError:
        raise
    except MemoryError as error:
        if isinstance(error.__cause__, DynmechError):
            raise error.__cause__ from error
        do = f"reduce rounds, symbols, products or profiles, raise {name}(memory=...) in bytes"
        do += ", or solve with Neural()"
        if max(limits.tolerance, limits.relative) == 0:
            do += ", or give a tolerance"
        call = f"{_VERB}(solver={name}(memory=...))"
        raise TooLarge(describe(call, "fit", str(error), do)) from error
    except TimeoutError as error:
        do = f"give {name} more seconds, reduce rounds, symbols, products or profiles"
        do += "" if max(limits.tolerance, limits.relative) > 0 else ", or give a tolerance"
        call = f"{_VERB}(solver={name}(seconds=...))"
        raise TooLarge(describe(call, "end in time", str(error), do)) from error
    except TooFine as error:
        must = f"be at least {rounded_up(error.least)} money, what "
        must += "float32 can certify in this market" if limits.single else "float64 can certify"
        do = "raise it, or pass gamma in float64" if limits.single else "raise it"
        if not np.isfinite(error.least):
            must, do = "be for float64: float32 can certify nothing here", "pass gamma in float64"
        raise InvalidArgument(
            describe(f"{_VERB}(tolerance=...)", must, limits.tolerance, do)
        ) from error
    except FloatingPointError as error:
        raise NotFinite(describe(f"{_VERB}(env=...)", "be finite", str(error))) from error
    except ArithmeticError as error:
        call = "RecommendationMDP(action_rule=..., signals=...)"
        raise InvalidProbability(describe(call, "be laws", str(error))) from error
    except Unkept as error:
        raise InvalidArgument(str(error)) from error
    except Unsuited as error:
        call = f"{_VERB}({error.setting}=...)"
        raise InvalidArgument(describe(call, error.must, error.got, error.do)) from error


def check_solution(
    found: Solution, tasks: TaskList, solver: AbstractSolver | None, limits: Limits
) -> Solution:
    """Raise unless bounds are there for every task, and do not contradict each other.

    A status is taken at its word where it says that the tolerance was missed; else it follows from
    the bounds and what plans attain.
    """
    name, count = type(solver).__name__, len(tasks)
    call = f"{_VERB}(solver={name}())"
    low, high = (np.asarray(x, float).reshape(-1) for x in (found.lower, found.upper))
    value = low if found.value is None else np.asarray(found.value, float).reshape(-1)
    if not len(low) == len(high) == len(value) == count:
        got = f"{len(low)} lower, {len(high)} upper, {len(value)} values"
        must = f"return bounds of all {count} tasks"
        raise InvalidArgument(describe(call, must, got, "return one number a task"))
    if np.isnan([low, high, value]).any():
        raise NotFinite(describe(call, "return bounds that are numbers", "NaN"))
    # Each value is held to its own size, never to the market's largest number.
    size = np.maximum(np.abs(high), np.abs(low))
    rounded = _SINGLE * size if limits.single else 0.0
    if found.rounding is not None:
        rounded = np.asarray(found.rounding, float).reshape(-1)
    slack = np.maximum(_ROUNDING * size, rounded)
    for what, one, other in (("lower", low, high), ("value", value, high)):
        if (one > other + slack).any():
            at = int(np.argmax(one - other - slack))
            got = f"{what} {one[at]:.12g} above upper {other[at]:.12g} for task {at}"
            raise InvalidArgument(describe(call, "return bounds that do not cross", got))
    high, status = np.maximum(high, np.maximum(low, value)), found.status
    if status.met:
        mass = np.where(tasks.mass > 0, tasks.mass, 1.0)
        gap, asked = high - np.minimum(low, value), (limits.tolerance, limits.relative)
        allowed = close_enough(*asked, tasks.mass, high) * mass
        # A tolerance in money is refused where single precision needs it all: it is part of it. A
        # share of a value about zero is less than any rounding.
        strict = limits.single and limits.tolerance > 0
        short = gap > allowed + (_ROUNDING * size if strict else slack)
        status = Status.STALLED if short.any() else Status.WITHIN_TOLERANCE
        # Plans that go on for ever are written out until what is left is ten times as much.
        close = np.maximum(_EXACT * size, rounded)
        exact = (high - low <= close) & (low - value <= 10 * close)
        missed = strict and bool(short.any())
        status = Status.EXACT if exact.all() and not missed else status
    return dataclasses.replace(ended(found, status), lower=low, upper=high, value=value)
