"""What plans attain at nodes of rounds that are written out, and over all of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from solvers.problem import Structure, TaskList
from solvers.search.arrays import pieces
from solvers.search.endless_plan import AbstractEndless
from solvers.search.lasting import Closed
from solvers.search.rounds import Entries, Round, as_layer, joined
from solvers.search.store import Indices
from solvers.table import Answer, Last, PlanTable
from solvers.tree.tree import Tree

FEW, TOGETHER = 64, 16  # entries of a round that is looked at with others, so many rounds
Numbers = tuple[np.ndarray, ...]  # of entries: control, edge, yield, bound above, and mass


class Plans:
    """The plans of the tasks kept; `root` (K, m).

    **Arguments:** `lower`, `upper` (N,): of every task, unnormalised; `closed`: None unless the
    last round may stand for all that follow.
    """

    def __init__(
        self,
        plan: AbstractEndless,
        tasks: TaskList,
        lower: Float[np.ndarray, " N"],
        upper: Float[np.ndarray, " N"],
        closed: Closed | None = None,
    ):
        self.plan, self.tasks, self.lower, self.upper = plan, tasks, lower, upper
        self.closed, self.structure, self.offset = closed, plan.structure, plan.columns[2]
        self.kept = np.flatnonzero(tasks.kept)
        self.economies = [plan.economy_of(k) for k in self.kept.tolist()]
        self.root = np.array([one.root for one in self.economies])

    def left(
        self, rounds: list[Round], entries: list[Entries]
    ) -> tuple[Float[np.ndarray, "t K"], Bool[np.ndarray, " t"]]:
        """What is missed if one of some rounds is the last one, by kept task.

        What is lost where the round stands for all that follow, and, where it cannot, what is still
        to come.

        **Returns:** it, and which rounds can stand for all that follow.
        """
        here, at = joined(rounds, entries)
        low, high = self.bounds(here, at)
        width, count = len(self.kept), [len(one.node) for one in entries]
        code = np.repeat(np.arange(len(rounds)), count)
        missed, ends = np.maximum(np.abs(low), np.abs(high)), np.zeros(len(rounds), bool)
        if self.closed is not None:
            attained = self.keeps(here, at)[1]
            ends[:] = True
            ends[code[np.isneginf(attained)]] = False
            missed = np.where(ends[code], np.maximum(low - attained, 0.0), missed)
        left = np.bincount(code * width + at.task, at.weight * missed, width * len(rounds))
        return left.reshape(len(rounds), width), ends

    def keeps(self, here: Round, at: Entries) -> tuple[Indices, Float[np.ndarray, " k"]]:
        """The control that each plan keeps if this round stands for all, and what that attains."""
        assert self.closed is not None
        taken, worth = np.zeros(len(at.node), np.int64), np.zeros(len(at.node))
        own = np.where(at.pair > 0, -1, at.keep)
        for f in np.unique(at.task).tolist():
            mine = np.flatnonzero(at.task == f)
            belief, memory = here.row[at.node[mine]] * self.root[f], here.memory[at.node[mine]]
            parts = memory, belief, own[mine]
            taken[mine], worth[mine] = self.closed.best(self.economies[f], f, *parts)
        return taken, worth

    def control(self, at: Entries) -> Indices:
        act = self.plan.acts(at.pair)
        return np.where(act >= 0, act, at.keep)

    def bounds(
        self, here: Round, at: Entries, sharp: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the plan attains from here on, for ever, and bounds above, unweighted."""
        low, high = np.zeros((2, len(at.node)))
        for f in np.unique(at.task).tolist():
            one, mine = self.economies[f], np.flatnonzero(at.task == f)
            belief, where = here.row[at.node[mine]] * self.root[f], here.memory[at.node[mine]]
            inside = at.pair[mine] > 0
            out, some = mine[~inside], mine[inside]
            low[out] = (belief[~inside] * one.kept[at.keep[out], where[~inside]]).sum(axis=1)
            high[out] = (belief[~inside] * one.told[where[~inside]]).sum(axis=1)
            size = None if here.size is None else here.size[at.node[some]]
            parts = where[inside], belief[inside], size, sharp
            low[some], high[some] = self.plan.known(at.pair[some], int(self.kept[f]), *parts)
        return low, np.maximum(high, low)

    def numbers(self, rounds: Sequence[Round], entries: Sequence[Entries]) -> list[Numbers]:
        """What plans do in rounds, some of them at a time: most of what laying them out takes."""
        step = max(TOGETHER, TOGETHER * FEW // max((len(one.node) for one in entries), default=1))
        return [self._numbers(rounds[k : k + step], entries[k : k + step])
                for k in range(0, len(rounds), step)]  # fmt: skip

    def table(
        self,
        rounds: Sequence[Round],
        entries: Sequence[Entries],
        children: Sequence[np.ndarray],
        numbers: Sequence[Numbers],
        written: Structure,
        last: Last | None = None,
    ) -> PlanTable:
        """Backward over the tree of the structure written: what plans attain, what they lack.

        **Arguments:** `numbers`: of these rounds in their order, and perhaps of more.
        """
        controls, width = self.structure.controls, len(self.kept)
        nodes = np.cumsum([0, *(len(one.memory) for one in rounds)])
        ends = np.cumsum([0, *(len(one.node) for one in entries)])
        parts = (np.concatenate(part)[: ends[-1]] for part in zip(*numbers, strict=True))
        control, edge, yields, high, mass = parts
        if last is not None:
            ending = self._ending(rounds[-1], entries[-1], written, last)
            control[ends[-2] :], yields[ends[-2] :] = ending
        value, gap = np.zeros((2, nodes[-1], width))
        taken = np.full((nodes[-1], width), controls - 1)
        chain = self.structure.symbols == 1 and rounds[0].size is None
        chain = chain and nodes[-1] == len(rounds) and ends[-1] == len(rounds) * width
        if chain:  # one node a round, and every plan there in the same order
            value = yields.reshape(-1, width)[::-1].cumsum(axis=0)[::-1]
            yields = value.ravel()
        for t in () if chain else reversed(range(len(rounds))):
            here, at, child = rounds[t], entries[t], children[t]
            mine = slice(ends[t], ends[t + 1])
            if child.shape[2]:
                reached = child[at.node, control[mine]]
                later = value[nodes[t + 1] + reached, at.task[:, None]]
                if here.size is not None:
                    later = later * self._ratio(here, rounds[t + 1], at, edge[mine], reached)
                yields[mine] += later.sum(axis=1)
            value[nodes[t] + at.node, at.task] = yields[mine]
        at = Entries(*map(np.concatenate, zip(*entries, strict=True)))
        at = at._replace(node=at.node + np.repeat(nodes[:-1], np.diff(ends)))
        high[: ends[1]] = self.upper[self.kept[entries[0].task]]
        lack = np.maximum(high - yields, 0.0)
        gap[at.node, at.task] = np.where(mass > 0, lack / np.where(mass > 0, mass, 1.0), 0.0)
        taken[at.node, at.task] = control
        actions, gaps = (pieces(x, nodes[1:-1].tolist()) for x in (taken, gap))
        layers = tuple(map(as_layer, rounds, children))
        return self._laid_out(Tree(layers, written), actions, gaps, value[0], last)

    def _ending(
        self, here: Round, at: Entries, written: Structure, last: Last
    ) -> tuple[Indices, Float[np.ndarray, " k"]]:
        """Controls of the round that stands for all that follow, and what they attain."""
        assert self.closed is not None
        taken, worth = self.keeps(here, at)
        edge = written.edge[-1][here.memory[at.node], taken]
        for f in np.unique(at.task).tolist():
            mine = np.flatnonzero(at.task == f)
            belief = here.row[at.node[mine]] * self.root[f]
            worth[mine] = self.closed.attained(f, last, written, edge[mine], belief)
        return taken, worth

    def _numbers(self, rounds: Sequence[Round], entries: Sequence[Entries]) -> Numbers:
        here, at = joined(rounds, entries)
        control = self.control(at)
        edge = self.structure.edge[0][here.memory[at.node], control]
        belief = here.row[at.node] * self.root[at.task]
        yields = np.zeros(len(at.node))
        for f in np.unique(at.task).tolist():
            mine = at.task == f
            yields[mine] = (belief[mine] * self.economies[f].yields[edge[mine]]).sum(axis=1)
        high = self.bounds(here, at, sharp=True)[1]
        return control, edge, yields, high, belief.sum(axis=1)

    def _ratio(self, here: Round, after: Round, at: Entries, edge: np.ndarray, reached: np.ndarray):
        offset = self.offset
        assert offset is not None
        assert here.size is not None
        assert after.size is not None
        column = self.structure.columns[edge]
        return np.exp(here.size[at.node][:, None] + offset[column] - after.size[reached])

    def _laid_out(
        self,
        tree: Tree,
        actions: list[np.ndarray],
        gaps: list[np.ndarray],
        attained: np.ndarray,
        last: Last | None,
    ) -> PlanTable:
        value = self.lower.copy()
        value[self.kept] = attained
        answers, lacking, first = [], [], 0
        for part, numbers in zip(self.tasks.groups, self.tasks.split(value), strict=True):
            roots = len(numbers)
            mine, shape = slice(first, first + roots * part.keep), (-1, roots, part.keep)
            taken = tuple(one[:, mine].reshape(shape) for one in actions)
            answers.append(Answer(numbers, taken))
            lacking.append(tuple(one[:, mine].reshape(shape) for one in gaps))
            first = mine.stop
        return PlanTable(tree, None, answers, lacking, last=last)
