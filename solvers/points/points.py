"""Point-based backups: beliefs visited, upper bounds there, and plans as alpha-vectors.

Everything is per round and memory class, and shared by all roots and tasks: a task is a row of
coefficients, outcomes that count and controls allowed, whichever root asks for it. A plan is a
control and, for every symbol (and next coefficient vector), a plan of the next round; its
alpha-vector is its payoff given omega, so that its payoff under any belief is an inner product.

Without a last round one set of each memory class serves every round, since W is the same in all:
bounds on a round's W bound what follows it too. The first plans keep one control for ever, and
every plan made later goes on with plans that were there: its alpha-vector is an exact sum, for
ever. Where a symbol has one chance c whatever the parameter and leads back to the class, the belief
is its own, so that a control with such symbols, c in all, and the best plan from there on get

    W(b) = pay(a, b) + c W(b) + sum over the other z of W(b_az) = (pay + the others) / (1 - c).
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.checkpoint import named, within
from solvers.host import Record
from solvers.points.batches import distinct
from solvers.points.ends import Ends, flatten, known_ends
from solvers.points.visited import Points
from solvers.problem import Structure, Tables, Tasks
from solvers.ties import RELATIVE, first_tied
from solvers.told.bounds import expected, open_columns


class Found(Record):
    """What is known of N beliefs of one round and memory class, for A controls and U tasks.

    `upper`, `lower` (N, A, U): bounds on the value of each control, -inf if it is not allowed.
    `mass`, `after_upper`, `after_lower`, `plan` (N, A, Z, U; `mass` without U): of the beliefs
    that follow, unnormalised, and the plan that attains their lower bound.
    """

    upper: Float[np.ndarray, "N A U"]
    lower: Float[np.ndarray, "N A U"]
    mass: Float[np.ndarray, "N A Z"]
    after_upper: Float[np.ndarray, "N A Z U"]
    after_lower: Float[np.ndarray, "N A Z U"]
    plan: Int[np.ndarray, "N A Z U"]


class PointSets:
    """All rounds and memory classes, made when they are first reached."""

    def __init__(
        self,
        structure: Structure,
        tables: Tables,
        tasks: Sequence[Tasks],
        mesh: jax.sharding.Mesh | None = None,
        endless: bool = False,
    ):
        self.structure, self.tables, self.mesh = structure, tables, mesh
        self.endless = endless
        self.flat, self.place = flatten(tasks, tables)
        self.regimes = 1 if self.flat.kernel is None else np.asarray(self.flat.kernel).shape[1]
        self.column = open_columns(np.asarray(tables.column))
        self.ends: Ends = known_ends(structure, tables, self.flat, endless)
        still = (self.column == self.column[:, :1]).all(axis=1) & endless
        self.still = np.where(still, self.column[:, 0], 0.0)
        self.sets: dict[tuple[int, int], Points] = {}
        self.level = 0  # whole passes, by which the next is as deep and wide

    def at(self, t: int, memory: int) -> Points:
        key = (self.table(t), int(memory))
        if key not in self.sets:
            told, least, kept, keeps, after = self.ends.at(*key)
            controls = self.once(t, memory, after)
            sizes = self.structure.symbols, self.regimes
            self.sets[key] = Points(told, least, kept, keeps, controls, *sizes, self.mesh)
        return self.sets[key]

    def once(self, t: int, memory: int, after: np.ndarray) -> Float[np.ndarray, "A U m"]:
        """What each control yields where what follows it yields `after` (M, U, m)."""
        total = self.now(t, memory)
        if not self.goes_on(t):
            return total
        edge, heirs = self.moves(t, memory)
        going = self.column[self.structure.columns[edge]].sum(axis=1)
        later = [expected(after[heir], self.flat, a) for a, heir in enumerate(heirs)]
        return total + going[:, None] * np.stack(later)

    def quiet(self, t: int, memory: int, belief: np.ndarray) -> Int[np.ndarray, "N U"]:
        """Where no plan is worth more than to show nothing until the end: what is done in round t.

        The first control of those that tie when nothing is shown afterwards. `belief` (N, m),
        unnormalised; of every task.
        """
        here, kept = self.at(t, memory), self.ends.kept
        after = kept[t + 1][:, 0] if self.goes_on(t) else kept[t][:, 0]
        total = np.einsum("nm,aum->anu", belief, self.once(t, memory, after), optimize=True)
        allowed = np.asarray(self.flat.allowed)[0].T[:, None]
        return first_tied(np.where(allowed, total, -np.inf), here.size(belief))

    def moves(self, t: int, memory: int) -> tuple[Int[np.ndarray, " A"], Int[np.ndarray, " A"]]:
        """Edges of the controls in a class, and the classes that they lead to."""
        at = self.table(t)
        return self.structure.edge[at][memory], self.structure.successor[at][memory]

    def table(self, t: int) -> int:
        """Which of the structure's rounds stands for round t: without a last one, the only one."""
        return 0 if self.endless else t

    def goes_on(self, t: int) -> bool:
        """Whether another round follows."""
        return self.endless or t < self.structure.horizon - 1

    def again(self, t: int, memory: int) -> Float[np.ndarray, "A Z"]:
        """The chance of symbols that lead back to the same class and belief, 0 of others."""
        edge, heirs = self.moves(t, memory)
        return np.where((heirs == memory)[:, None], self.still[self.structure.columns[edge]], 0.0)

    def state(self) -> dict[str, np.ndarray]:
        """What was found, for a checkpoint."""
        order = np.array(list(self.sets), np.int64).reshape(-1, 2)
        found = {"order": order, "level": np.array(self.level)}
        for (t, memory), points in self.sets.items():
            found |= named(f"{t}-{memory}", points.state())
        return found

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Become what was kept."""
        self.sets.clear()
        self.level = int(kept["level"])
        for t, memory in kept["order"].tolist():
            self.at(t, memory).restore(within(f"{t}-{memory}", kept))

    @property
    def tasks(self) -> int:
        return self.flat.coefficient.shape[1]

    def visited(self) -> int:
        """How many beliefs have been visited."""
        return sum(len(points.belief) for points in self.sets.values())

    def batch(self, memory: float) -> int:
        """How many beliefs may be looked at together in so many bytes."""
        steps = self.structure.controls * self.structure.symbols
        points = self.column.shape[1]
        each = 8.0 * (steps * (2 * points + 5 * self.tasks) + 4 * self.tasks * points)
        return max(1, int(memory / each))

    def bytes(self) -> int:
        return sum(points.bytes() for points in self.sets.values())

    def now(self, t: int, memory: int) -> Float[np.ndarray, "A U m"]:
        """What each control yields at once, given omega."""
        edge = self.structure.edge[self.table(t)][memory]
        reward, stop = np.asarray(self.tables.reward), np.asarray(self.tables.stop)
        coefficient, counted = self.flat.coefficient[0], self.flat.counted[0]
        total = np.zeros((len(edge), len(coefficient), reward.shape[1]))
        for slot in range(self.structure.outcome.shape[1]):
            j = self.structure.outcome[edge, slot]
            chance = np.where((j >= 0)[:, None], stop[edge, slot], 0.0)[:, None]
            total += chance * (
                coefficient.T[j][..., None] + counted.T[j][..., None] * reward[j][:, None]
            )
        return total

    def look(self, t: int, memory: int, index: np.ndarray) -> Found:
        """Bound the controls at visited beliefs, one step ahead.

        Controls that cannot be best for any task are known by their ceiling and passed over.
        """
        here, now = self.at(t, memory), self.now(t, memory)
        belief, ceiling = here.belief[index], here.ceiling[index]
        controls, tasks, points = now.shape
        first = (belief @ now.reshape(-1, points).T).reshape(-1, controls, tasks)
        allowed = np.asarray(self.flat.allowed)[0].T
        ceiling = np.where(allowed, ceiling, -np.inf)
        hopeful = np.asarray(self.hopeful(t, memory, index).any(axis=2))
        symbols = self.structure.symbols if self.goes_on(t) else 0
        shape, again = (len(belief), controls, symbols), np.ones(controls)
        mass = np.zeros(shape)
        upper, lower = np.zeros((*shape, tasks)), np.zeros((*shape, tasks))
        plan = np.full((*shape, tasks), here.none)
        if symbols:
            edge, heirs = self.moves(t, memory)
            column, back = self.column[self.structure.columns[edge]], self.again(t, memory)
            live, again = column.any(axis=2) & (back == 0), 1.0 - back.sum(axis=1)
            for heir in np.unique(heirs).tolist():
                n, a, z = np.nonzero(hopeful[:, :, None] & (live & (heirs == heir)[:, None]))
                if not len(n):
                    continue
                query = belief[n] * column[a, z]
                size = query.sum(axis=1)
                mass[n, a, z] = size
                unit, same = distinct(query / np.where(size > 0, size, 1.0)[:, None])
                where = self.at(t + 1, heir)
                low, best = where.lower_at(unit)
                high = np.maximum(where.upper_at(unit), low)
                upper[n, a, z] = high[same] * size[:, None]
                lower[n, a, z] = low[same] * size[:, None]
                plan[n, a, z] = np.where(size[:, None] > 0, best[same], where.none)
        both = []
        for bound in (upper, lower):
            later = np.stack([self.mean(bound[:, a].sum(axis=1), a) for a in range(controls)], 1)
            total = (first + later) / again[:, None]
            both.append(np.where(hopeful[:, :, None] & allowed, total, -np.inf))
        high = np.where(hopeful[:, :, None], np.minimum(both[0], ceiling), ceiling)
        here.ceiling[index] = high
        return Found(high, both[1], mass, upper, lower, plan)

    def hopeful(self, t: int, memory: int, index: np.ndarray) -> Bool[np.ndarray, "n A U"]:
        """Which controls may be best at visited beliefs, by their ceilings."""
        here, allowed = self.at(t, memory), np.asarray(self.flat.allowed)[0].T
        lower = here.lower[index][:, None]
        return allowed & (here.ceiling[index] >= lower - RELATIVE * abs(lower))

    def mean(self, value: np.ndarray, control: int) -> np.ndarray:
        """Expectation over the next coefficients of values (..., U)."""
        return expected(value[..., None], self.flat, control)[..., 0]

    def onward(self, weight: np.ndarray) -> np.ndarray:
        """Weights (N, A, Z, U) of tasks before a round, as those of what they become after it."""
        if self.flat.kernel is None:
            return weight
        law = np.asarray(self.flat.kernel)
        split = weight.reshape(*weight.shape[:3], -1, self.regimes)
        return np.einsum("nazxv,avw->nazxw", split, law).reshape(weight.shape)

    def per_group(self, group: int) -> list[np.ndarray]:
        """What a platform told the parameter gets, as `told_parameter` of one group."""
        return [told[:, self.place[group]] for told in self.ends.told]

    def siblings(self) -> Int[np.ndarray, "U V"]:
        """The tasks that each task can become."""
        own = np.arange(self.flat.coefficient.shape[1])
        return (own - own % self.regimes)[:, None] + np.arange(self.regimes)

    def law(self, control: np.ndarray) -> Float[np.ndarray, "N U V"]:
        """Probability of each sibling after controls (N, U)."""
        if self.flat.kernel is None:
            return np.ones((*control.shape, 1))
        regime = np.arange(control.shape[1]) % self.regimes
        return np.asarray(self.flat.kernel)[control, regime]

    def back_up(self, t: int, memory: int, index: np.ndarray) -> Found:
        """One backup at visited beliefs: better upper bounds, and one plan for every task."""
        points = self.at(t, memory)
        found = self.look(t, memory, index)
        control = first_tied(np.moveaxis(found.lower, 1, 0), points.size(points.belief[index]))
        task = np.arange(control.shape[1])
        alpha = self.now(t, memory)[control, task]
        after = np.zeros((*control.shape, self.structure.symbols, self.regimes), np.int64)
        if found.mass.shape[2]:
            edge, heirs = (x[control] for x in self.moves(t, memory))
            back = self.again(t, memory)[control]
            law, sibling = self.law(control), self.siblings()
            row = np.arange(len(index))[:, None]
            for z in range(self.structure.symbols):
                column = self.column[self.structure.columns[edge, z]]
                later = np.zeros_like(alpha)
                for v in range(self.regimes):
                    other = np.broadcast_to(sibling[:, v], control.shape)
                    number = found.plan[row, control, z, other]
                    after[:, :, z, v] = number
                    for heir in np.unique(heirs).tolist():
                        here = heirs == heir
                        following = self.at(t + 1, heir)
                        slot = np.searchsorted(following.plan, number[here])
                        part = following.alpha[slot % len(following.plan), other[here]]
                        later[here] += law[..., v][here][:, None] * part
                alpha += np.where(back[:, :, z, None] > 0, 0.0, column * later)
            after = np.where(back[..., None] > 0, -1, after)
            alpha /= 1.0 - back.sum(axis=2)[..., None]
        points.improve(index, found.upper.max(axis=1), alpha, control, after)
        return found
