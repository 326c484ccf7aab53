"""A last round that stands for all that follow: what it shows stays for as long as it goes on.

Where a control leaves the memory class as it is, c = succ(c, a), keeping it for ever is one round
again and again. With p_j the chance of outcome j in a round and q that of going on, given the
parameter, the process ends in j with chance

    p_j (1 + q + q^2 + ...) = p_j / (1 - q),

so that the round that stands for all is an ordinary one whose edge has another law, and none that
follows. Where classes move first, (c_0, c_1, ..., c_k, c_k, ...) under one control, the chances of
the rounds before are added, each times the chance of getting there. What a plan attains that keeps
one control from such a round on is then a sum over the tree, for ever: nothing is cut.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from solvers.host import with_fields
from solvers.problem import Structure, TaskList
from solvers.process import Listed
from solvers.search.economy import Economy
from solvers.search.forever import going_on
from solvers.search.store import Indices
from solvers.table import Last
from solvers.truncation import unroll

_CELLS = 4_000_000  # numbers of laws that live at once


def settling(successor: Int[np.ndarray, "M A"], most: int = 64) -> int | None:
    """After how many times one control no longer moves any class; None if some always does."""
    here, controls = np.arange(len(successor))[:, None], np.arange(successor.shape[1])
    here = np.broadcast_to(here, successor.shape)
    for times in range(most + 1):
        after = successor[here, controls]
        if (after == here).all():
            return times
        here = after
    return None


class Closed:
    """What the tasks whose plans are kept attain by one control from the last round on.

    **Arguments:** `listed`: a problem whose last round may stand for all that follow.
    """

    def __init__(self, listed: Listed, tasks: TaskList):
        self.structure, self.tables = listed.structure, listed.tables
        after = self.structure.successor[0]
        self.stays = after == np.arange(len(after))[:, None]
        self.weights: list[tuple[np.ndarray, np.ndarray]] = []
        allowed: list[np.ndarray] = []
        for part in tasks.groups:
            for root in range(len(part.root)):
                for task in range(part.keep):
                    both = (part.coefficient[root, task], part.counted[root, task])
                    self.weights.append((np.asarray(both[0], float), np.asarray(both[1], float)))
                    allowed.append(np.asarray(part.allowed[root, task], bool))
        self.allowed = np.array(allowed).reshape(-1, self.structure.controls)

    def best(
        self,
        economy: Economy,
        task: int,
        memory: Indices,
        belief: Float[np.ndarray, "k m"],
        own: Indices,
    ) -> tuple[Indices, Float[np.ndarray, " k"]]:
        """The control to keep at nodes, and what the economy attains by it, -inf where none stays.

        **Arguments:** `task`: its place among those kept; `own`: the control that its plan keeps,
        which is taken where it stays; -1 where there is none.
        """
        taken, worth = own.copy(), np.full(len(memory), -np.inf)
        for c in np.unique(memory).tolist():
            mine = np.flatnonzero(memory == c)
            may = self.allowed[task] & self.stays[c]
            if not may.any():
                continue
            option = np.where(may, belief[mine] @ economy.kept[:, c].T, -np.inf)
            held = (own[mine] >= 0) & self.stays[c, own[mine]]
            taken[mine] = np.where(held, own[mine], option.argmax(axis=1))
            worth[mine] = option[np.arange(len(mine)), taken[mine]]
        return taken, worth

    def last(self, rounds: int, classes: Int[np.ndarray, " c"]) -> tuple[Structure, Last]:
        """Edges of so many rounds, the last of which stands for all that follow.

        **Arguments:** `classes`: those of the last round; others have the edges of one round there.
        """
        structure, controls = self.structure, self.structure.controls
        here = np.repeat(classes, controls)
        control = np.tile(np.arange(controls), len(classes))
        path = self._path(here, control)
        unique, number = np.unique(path, axis=0, return_inverse=True)
        outcome, stop = self._laws(unique)
        tables = dataclasses.replace(
            self.tables, stop=_stacked(np.asarray(self.tables.stop), stop, 0.0)
        )
        edge = structure.edge[0].copy()
        edge[here, control] = len(structure.columns) + number.reshape(-1)
        columns = np.full((len(unique), structure.symbols), -1, np.int32)
        written = unroll(structure, rounds)
        written = with_fields(
            written,
            edge=(*written.edge[:-1], edge),
            columns=np.concatenate([structure.columns, columns]),
            outcome=_stacked(structure.outcome, outcome, -1),
        )
        return written, Last(tables, unique[:, 0])

    def attained(
        self, task: int, last: Last, structure: Structure, edge: Indices, belief: np.ndarray
    ) -> Float[np.ndarray, " k"]:
        """What a task attains at edges that stand for all that follow."""
        (coefficient, counted), used = self.weights[task], np.unique(edge)
        worth = coefficient[:, None] + counted[:, None] * np.asarray(last.tables.reward, float)
        outcome = structure.outcome[used]
        chance = np.where((outcome >= 0)[..., None], last.tables.stop[used], 0.0)
        yields = (chance * worth[np.maximum(outcome, 0)]).sum(axis=1)
        return (belief * yields[np.searchsorted(used, edge)]).sum(axis=1)

    def _path(self, memory: Indices, control: Indices) -> Int[np.ndarray, "k L"]:
        """Edges met in turn if a control is kept, the last of which is met for ever."""
        edge, after = self.structure.edge[0], self.structure.successor[0]
        path = [edge[memory, control].astype(np.int64)]
        while not (self.stays[memory, control]).all():
            memory = after[memory, control].astype(np.int64)
            path.append(edge[memory, control].astype(np.int64))
        return np.stack(path, axis=1)

    def _laws(
        self, path: Int[np.ndarray, "k L"]
    ) -> tuple[Int[np.ndarray, "k J"], Float[np.ndarray, "k J m"]]:
        """Outcomes and their chances, if edges of a path are met in turn, the last for ever."""
        structure, row = self.structure, np.arange(len(path))
        met = np.zeros((len(path), structure.outcomes + 1), bool)
        for edge in path.T:
            met[row[:, None], structure.outcome[edge]] = True
        met = met[:, :-1]  # empty slots are -1
        width = max(int(met.sum(axis=1).max(initial=0)), 1)
        order = np.argsort(~met, axis=1, kind="stable")[:, :width]
        outcome = np.where(np.take_along_axis(met, order, 1), order, -1)
        each = structure.outcomes * np.asarray(self.tables.stop).shape[2]
        step, going = max(1, _CELLS // each), going_on(structure, self.tables)
        found = []
        for low in range(0, len(path), step):
            part = slice(low, low + step)
            every = self._chances(path[part], going)
            found.append(np.take_along_axis(every, order[part, :, None], 1))
        return outcome.astype(np.int32), np.minimum(np.concatenate(found), 1.0)

    def _chances(
        self, path: Int[np.ndarray, "k L"], going: Float[np.ndarray, "E m"]
    ) -> Float[np.ndarray, "k n m"]:
        """The same, of every outcome; the rows of a few paths."""
        structure, stop = self.structure, np.asarray(self.tables.stop, float)
        found = np.zeros((len(path), structure.outcomes, stop.shape[2]))
        chance, row = np.ones((len(path), stop.shape[2])), np.arange(len(path))
        for step, edge in enumerate(path.T):
            if step == path.shape[1] - 1:
                left = 1 - going[edge]
                chance = np.divide(chance, left, out=np.zeros_like(chance), where=left > 0)
            for slot in range(structure.outcome.shape[1]):
                outcome = structure.outcome[edge, slot]
                live = outcome >= 0
                found[row[live], outcome[live]] += chance[live] * stop[edge[live], slot]
            chance = chance * going[edge]
        return found


def _stacked(first: np.ndarray, more: np.ndarray, fill: float) -> np.ndarray:
    """Rows after rows, (., J) or (., J, m), the shorter ones filled."""
    width = max(first.shape[1], more.shape[1])

    def filled(part: np.ndarray) -> np.ndarray:
        room = [(0, 0)] * part.ndim
        room[1] = 0, width - part.shape[1]
        return np.pad(part, room, constant_values=fill)

    return np.concatenate([filled(first), filled(more)])
