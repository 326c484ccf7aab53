"""The protocol of solvers: a problem and tasks in, one `Solution` out.

A solver is an object with one method, `solve`. What asks it never asks which solver it is: it
reads bounds, a status, and a plan that says what to do at a node. A solver of one's own subclasses
`AbstractSolver`, fills in `lower`, `upper` and a plan with `act`, and is used exactly as those here
(`solvers.testing.check` tries it).

A solver refuses before its work starts, with Python's own errors: `MemoryError` (the smallest
answer does not fit), `FloatingPointError` (a number that is not finite, or a tolerance below what
the precision certifies), `ArithmeticError` (chances that are no law); `Unsuited` where it is not
made for the problem. What is found out later is a status, returned with the bounds that hold.
"""

import abc
import dataclasses
import enum
import os
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record
from solvers.problem import TaskList
from solvers.process import Problem


class Status(enum.Enum):
    """Why a solve ended; the value of each member is its message."""

    EXACT = "only rounding separates the bounds"
    WITHIN_TOLERANCE = "the bounds are within the tolerance"
    MEMORY_LIMIT = "the memory allowed holds no more"
    TIME_LIMIT = "the time allowed is used up"
    TRAINING_FAILED = "training failed; the best fixed sequence is used instead"
    INTERRUPTED = "it was interrupted"
    STALLED = "nothing that the solver's settings allow brings the bounds closer"

    @property
    def met(self) -> bool:
        """Whether the solver did what it was asked for."""
        return self in (Status.EXACT, Status.WITHIN_TOLERANCE)


class Limits(Record):
    """What is asked of a solve, and what it may take.

    - `tolerance`: bounds this close are close enough, per unit of a root's mass; `relative`: or
      closer than this share of the upper bound. Either is enough, task by task (`close_enough`).
    - `memory`: bytes that may live at once; `seconds`: of work; None leaves both to the solver,
      whose own settings win.
    - `checkpoint`: a folder where finished parts are kept; `mesh`: devices to spread over
      (`solvers.spread`). A solver that has no use for a mesh refuses it.
    - `single`: work in float32 and widen the bounds by what that can be off by.
    """

    tolerance: float = eqx.field(static=True, default=0.0)
    relative: float = eqx.field(static=True, default=0.0)
    memory: float | None = eqx.field(static=True, default=None)
    seconds: float | None = eqx.field(static=True, default=None)
    checkpoint: str | os.PathLike[str] | None = eqx.field(static=True, default=None)
    mesh: jax.sharding.Mesh | None = eqx.field(static=True, default=None)
    single: bool = eqx.field(static=True, default=False)


class Unsuited(ValueError):
    """A problem or a setting that a solver cannot take, refused before work starts.

    `setting` must `must`; it was `got`; `do` says what helps.
    """

    def __init__(self, setting: str, must: str, got: object, do: str):
        self.setting, self.must, self.got, self.do = setting, must, got, do
        ValueError.__init__(self, f"{setting} must {must}, got {got}; {do}")


class TooFine(FloatingPointError):
    """A tolerance below what the precision certifies; `least` is the smallest that it can."""

    def __init__(self, least: float):
        self.least = least
        FloatingPointError.__init__(self, f"the precision certifies {least:.3g} at best")


def close_enough(
    tolerance: float,
    relative: float,
    mass: Float[np.ndarray, "..."],
    upper: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """Gap per unit of mass that is close enough where values are at most `upper`, money.

    `tolerance` per unit of mass, or `relative` times the upper bound: whichever is larger.
    """
    share = relative * np.abs(upper) / np.where(mass > 0, mass, 1.0)
    return np.maximum(tolerance, np.where(mass > 0, share, 0.0))


class Node(Record):
    """Where a plan is asked what to do.

    - `task`: which of the tasks it is playing. `period`: rounds before this one.
    - `memory` (d,): the problem's memory. `belief` (m,): unnormalised, the task's root times what
      was observed.
    - `history`: the (control, symbol) of every round before.
    """

    task: int = eqx.field(static=True)
    period: int = eqx.field(static=True)
    memory: Int[np.ndarray, " d"]
    belief: Float[np.ndarray, " m"]
    history: tuple[tuple[int, int], ...] = eqx.field(static=True)


class AbstractPlan(Record):
    """What to do at every node that its own controls lead to."""

    @abc.abstractmethod
    def act(self, node: Node) -> int:
        """The control to use; the same answer whenever the same question is asked."""


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a solver found, task by task, in units of the mass of each task's root.

    - `lower` <= W <= `upper` (N,): bounds on the best value. `value` (N,): what the plan attains,
      as far as the solver knows; None where it does not say.
    - `status`: why it ended. `plan`: what attains `value`.
    - `confidence`: the level at which all bounds hold; 1.0 where they are certain.
    - `note`: how it was solved, in words. `nodes`, `bytes`, `seconds`: what it took.
    - `table`: the plans written out on a tree, where the solver has them (`solvers.table`).
    - `rounding` (N,): how far apart rounding alone can put the bounds, where the solver knows.
    """

    lower: Float[np.ndarray, " N"]
    upper: Float[np.ndarray, " N"]
    status: Status
    plan: AbstractPlan
    value: Float[np.ndarray, " N"] | None = None
    confidence: float = 1.0
    note: str = ""
    nodes: int = 0
    bytes: float = 0.0
    seconds: float = 0.0
    table: Any = None
    rounding: Float[np.ndarray, " N"] | None = None

    def crossed(self, rounding: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Tasks whose bounds contradict each other by more than `rounding`."""
        return ~(self.lower <= self.upper + rounding)


def ended(found: Solution, status: Status) -> Solution:
    """The same with another status, also where its note says why the solve ended."""
    note = found.note.replace(found.status.value, status.value, 1)
    return dataclasses.replace(found, status=status, note=note)


class AbstractSolver(Record):
    """A way to solve decision problems with a static hidden parameter.

    `learns`: whether it is an `AbstractLearner`, whose policy is played where no tree fits.
    """

    learns: ClassVar[bool] = False

    @abc.abstractmethod
    def solve(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool) -> Solution:
        """Bound the value of every task and plan for it.

        **Arguments:** `problem`: the rules; `tasks`: a root belief, weights of the rewards and
        controls allowed each; `limits`: what is asked for and may be taken; `progress`: show a bar.

        **Returns:** a `Solution`: bounds, a status, and a plan, whatever was reached.

        **Raises:** `MemoryError`, `FloatingPointError`, `ArithmeticError`, `Unsuited`, before
        work starts.
        """
