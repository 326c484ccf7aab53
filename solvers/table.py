"""Plans written out: what every task does at every node that it can reach, and what that lacks."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from solvers.host import Record
from solvers.problem import Numbers, Tables, TaskList
from solvers.solution import AbstractPlan, Node
from solvers.tree.tree import Tree


class Answer(Record):
    """What plans yield (R, Q), and per round the controls kept, (N_t, R, keep).

    - `lower`: of `value`, `upper`: of W, rounded outward by what their own terms can lose, where
      that is known. `loss`: per round, (N_t, R, keep), what the plans kept can lack, per unit of
      mass; empty if not wanted. `ill`: whether ties met were ill conditioned (`solvers.ties`).
    """

    value: Float[np.ndarray, "R Q"]
    actions: tuple[Int[np.ndarray, "_N R K"], ...]
    lower: Float[np.ndarray, "R Q"] | None = None
    upper: Float[np.ndarray, "R Q"] | None = None
    loss: tuple[Float[np.ndarray, "_N R K"], ...] = ()
    ill: bool = eqx.field(static=True, default=False)


def flat(parts: Sequence[Numbers | None]) -> Float[np.ndarray, " N"]:
    """Numbers of every group, (R, Q) each, one after the other."""
    return np.concatenate([np.zeros(0), *(np.asarray(part, float).ravel() for part in parts)])


class Grown(Record):
    """One round of what was grown from the rules, as far as the plans kept can reach it.

    - `memory` (M, d): its places. `place` (N,): of each node; `parent`, `control`, `symbol` (N,):
      one way in. `child` (N, A, Z): -1 where nothing was followed. `action` (N, F): of the plans
      kept; `gap` (N, F): their certified loss, per unit of the node's mass.
    """

    memory: Int[np.ndarray, "M d"]
    place: Int[np.ndarray, " N"]
    parent: Int[np.ndarray, " N"]
    control: Int[np.ndarray, " N"]
    symbol: Int[np.ndarray, " N"]
    child: Int[np.ndarray, "N A Z"]
    action: Int[np.ndarray, "N F"]
    gap: Float[np.ndarray, "N F"]


class Last(Record):
    """A last round that stands for all that follow: what it takes stays for as long as it goes on.

    `tables`: of the tree, whose structure has such edges after those of one round; `edge` (X,): the
    edge of one round that each of them begins with.
    """

    tables: Tables
    edge: Int[np.ndarray, " X"]


class PlanTable(AbstractPlan):
    """Plans on a tree.

    - `tree`: where memories were listed; else None, and `rounds` are what the plans can reach.
    - `answers`: per group, what the plans attain (R, Q), and the controls of those kept.
    - `gap`: per group and round, (N_t, R, keep): certified loss at each node, per unit of the
      node's mass; None where it is rounding.
    - `complete`: whether every control is followed at every node.
    - `last`: None unless the tree's last round stands for all that follow.
    """

    tree: Tree | None
    rounds: tuple[Grown, ...] | None
    answers: list[Answer]
    gap: list[tuple[Float[np.ndarray, "_N _R _K"], ...]] | None
    complete: bool = eqx.field(static=True, default=False)
    last: Last | None = None

    @property
    def value(self) -> Float[np.ndarray, " N"]:
        """What the plan of every task attains, (N,)."""
        return flat([part.value for part in self.answers])

    def act(self, node: Node) -> int:
        """What the task's plan does after the node's history."""
        at, layers = 0, self.tree.layers if self.tree is not None else self.rounds or ()
        for layer, (control, symbol) in zip(layers, node.history, strict=False):
            at = int(layer.child[at, control, symbol])
            if at < 0:
                raise KeyError(f"no plan leads to {node.history}")
        task = node.task
        for answer in self.answers:
            roots, width = answer.value.shape
            if task < roots * width:
                root, place = divmod(task, width)
                return int(answer.actions[len(node.history)][at, root, place])
            task -= roots * width
        raise IndexError(f"there is no task {node.task}")


def lay_out(
    rounds: tuple[Grown, ...], tasks: TaskList, value: Float[np.ndarray, " N"]
) -> PlanTable:
    """Plans that were grown from the rules as a table."""
    answers, gaps, first = [], [], 0
    for part, attained in zip(tasks.groups, tasks.split(value), strict=True):
        roots, mine = len(attained), slice(first, first + len(attained) * part.keep)
        shape = (-1, roots, part.keep)
        answers.append(
            Answer(attained, tuple(one.action[:, mine].reshape(shape) for one in rounds))
        )
        gaps.append(tuple(one.gap[:, mine].reshape(shape) for one in rounds))
        first = mine.stop
    return PlanTable(None, rounds, answers, gaps)


def add_gaps(
    table: PlanTable, more: Sequence[tuple[Float[np.ndarray, "_N _R _K"], ...]]
) -> PlanTable:
    """The same plans with more that they may lack at each node."""
    if table.gap is None:
        return dataclasses.replace(table, gap=list(more))
    pairs = zip(table.gap, more, strict=True)
    joined = [tuple(a + b for a, b in zip(*both, strict=True)) for both in pairs]
    return dataclasses.replace(table, gap=joined)
