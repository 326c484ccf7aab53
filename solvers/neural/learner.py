"""The protocol of learners: rules and roots in, a critic out; bounds are found around it.

A learner is a solver for horizons that no tree fits. It is asked for one thing, `learn`: a critic
(`solvers.neural.critic`), for which a policy is then greedy. What that policy is worth is simulated
on fresh runs, what any policy is worth is bounded from above without the critic
(`solvers.certify`), so that a bad learner has a bad policy and bounds that hold all the same.
"""

import abc
import math
import time
from typing import ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from solvers.certify import Certificate, certify, simplify
from solvers.checkpoint import mark_of
from solvers.neural.critic import AbstractCritic
from solvers.neural.rollout import decide
from solvers.problem import TaskList
from solvers.process import AbstractCeiling, AbstractProcess, Case, Problem
from solvers.solution import (
    AbstractPlan,
    AbstractSolver,
    Limits,
    Node,
    Solution,
    Status,
    Unsuited,
    close_enough,
)
from solvers.told.enumerated import enumerate_ceilings
from solvers.told.plans import with_plan


class Root(eqx.Module):
    """Where a learner starts: a belief of mass 1, a case, and its told-omega bound.

    `first`: of a problem of its own; the others are variants of one that comes first.
    """

    belief: Float[np.ndarray, " m"]
    case: Case
    ceiling: AbstractCeiling
    first: bool = eqx.field(static=True)


class Learned(eqx.Module):
    """What a learner found.

    - `critic`: None where it failed; play is then the best fixed plan, or better round by round.
    - `note`: how it went, in words. `history` (s, 5): by sweep, seconds, Bellman residual, loss,
      simulated value of the first root and its standard error; what is not known is NaN.
    """

    critic: AbstractCritic | None
    note: str = eqx.field(static=True, default="")
    history: Float[np.ndarray, "s 5"] = eqx.field(default_factory=lambda: np.zeros((0, 5)))


class AbstractLearner(AbstractSolver):
    """A solver that learns what beliefs are worth, for horizons that no tree fits.

    `chunk`: runs handled at once; sets the memory needed. `certificate`: how hard to work for
    bounds, `Certificate()` where None.
    """

    learns: ClassVar[bool] = True
    chunk: eqx.AbstractVar[int]
    certificate: eqx.AbstractVar[Certificate | None]

    @abc.abstractmethod
    def learn(
        self, process: AbstractProcess, roots: list[Root], limits: Limits, progress: bool
    ) -> Learned:
        """Learn a critic for every case at the roots.

        **Arguments:** `process`: the rules; `roots`: at least one; `limits`: `checkpoint` and
        `mesh` are the learner's to use, the rest is looked at when bounds are there.

        **Raises:** `Unkept` for a checkpoint that is another problem's.
        """

    def solve(self, problem: Problem, tasks: TaskList, limits: Limits, progress: bool):
        """Learn, and bound every task at the certificate's confidence, each by itself."""
        name, began = type(self).__name__, time.monotonic()
        if problem.horizon == math.inf:
            raise Unsuited("horizon", f"be finite for {name}()", problem.horizon, "cut it")
        if any(part.kernel is not None for part in tasks.groups):
            do = "solve with Exact()"
            raise Unsuited("tasks", f"keep their weights for {name}()", "weights that move", do)
        if not all(np.isin(part.counted, (0, 1)).all() for part in tasks.groups):
            do = "solve with Exact()"
            raise Unsuited("tasks", f"count outcomes or not for {name}()", "shares of them", do)
        certificate = Certificate() if self.certificate is None else self.certificate
        process, cases = problem.process, _cases(tasks)
        mass = tasks.mass
        beliefs = [task.root / max(task.root.sum(), 1e-300) for task in tasks]
        with jax.enable_x64(True):
            above = enumerate_ceilings(process, cases)
            ceilings: list[AbstractCeiling] = [
                with_plan(process, case, ceiling, belief)
                for case, ceiling, belief in zip(cases, above, beliefs, strict=True)
            ]
            quick, simple, _ = simplify(process, ceilings)
        roots = [
            Root(belief.astype(np.float32), case, ceiling, k == 0)
            for k, (belief, case, ceiling) in enumerate(zip(beliefs, cases, simple, strict=True))
            if mass[k] > 0
        ]
        learned = self.learn(quick, roots, limits, progress)
        table = np.zeros((3, len(tasks)))
        for k in np.flatnonzero(mass > 0):
            given = [cases[k]], [ceilings[k]], learned.critic, beliefs[k]
            found = certify(process, *given, certificate.runs, certificate, self.chunk)
            low, high = found.attained.lower[0], found.best.upper[0]
            table[:, k] = found.attained.value[0], low, max(low, high)
        value, lower, upper = table * mass
        enough = close_enough(limits.tolerance, limits.relative, mass, upper)
        met = (table[2] - table[1] <= enough).all()
        status = Status.WITHIN_TOLERANCE if met else Status.STALLED
        return Solution(
            lower,
            upper,
            Status.TRAINING_FAILED if learned.critic is None else status,
            Greedy(process, tuple(cases), tuple(ceilings), learned.critic),
            value=np.clip(value, lower, upper),
            confidence=certificate.confidence,
            note=learned.note,
            seconds=time.monotonic() - began,
        )


def learning_mark(process: AbstractProcess, roots: list[Root], learner: AbstractLearner) -> str:
    """Digest of all that learning depends on: the problem's numbers, and settings but bounds'."""
    kept = eqx.tree_at(lambda s: s.certificate, learner, None, is_leaf=lambda x: x is None)
    return mark_of((process, roots, kept), kept, process.horizon)


class Greedy(AbstractPlan):
    """The policy that is greedy for a critic, in each of several cases."""

    process: AbstractProcess
    cases: tuple[Case, ...]
    ceilings: tuple[AbstractCeiling, ...]
    critic: AbstractCritic | None

    def act(self, node: Node) -> int:
        mass = node.belief.sum()
        if mass <= 0:
            return self.process.controls - 1
        at = (node.belief / mass)[None], np.asarray(node.memory)[None], node.period
        with jax.enable_x64(True):
            case, ceiling = self.cases[node.task], self.ceilings[node.task]
            return int(decide(self.process, case, ceiling, self.critic, *at)[0])


def _cases(tasks: TaskList) -> list[Case]:
    """Every task's maximisation."""
    return [
        Case(
            np.asarray(part.coefficient[r, q], float),
            np.asarray(part.counted[r, q]) > 0,
            np.asarray(part.allowed[r, q], bool),
        )
        for part in tasks.groups
        for r in range(part.coefficient.shape[0])
        for q in range(part.coefficient.shape[1])
    ]
