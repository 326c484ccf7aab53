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
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.checkpoint import named, within
from solvers.host import Record
from solvers.points.batches import distinct, in_chunks, padded_length, words
from solvers.points.ends import Ends, flatten, known_ends
from solvers.problem import Structure, Tables, Tasks
from solvers.ties import RELATIVE
from solvers.told.bounds import expected, open_columns
from solvers.told.interpolate import NEAR, best_plan, upper_between, weights_between

_CELLS = 3_072
_ROUNDED = 1e-15
_FOUND = ("belief", "upper", "lower", "best", "ceiling", "alpha", "plan", "control", "after")


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


class Points:
    """Visited beliefs and plans of one round and memory class.

    - `belief` (K, m), `upper` (K, U), `lower` (K, U): visited beliefs, of mass one, and bounds.
    - `alpha` (P, U, m), `plan` (P,): plans in use and their numbers; `control` (all plans, U),
      `after` (all plans, U, Z, V): what every plan ever made does, per task.
    - `best` (K, U): the plan number that attains each lower bound. `ceiling` (K, A, U): upper
      bounds on what every control is worth there.
    """

    def __init__(
        self, told: np.ndarray, least: np.ndarray, kept: np.ndarray, keeps: np.ndarray,
        controls: np.ndarray, symbols: int, regimes: int, mesh: jax.sharding.Mesh | None,
    ):  # fmt: skip
        tasks, points = told.shape
        self.mesh, self.told, self.least = mesh, told, least
        self.belief, self.upper = np.zeros((0, points)), np.zeros((0, tasks))
        self.lower, self.best = np.zeros((0, tasks)), np.zeros((0, tasks), np.int64)
        self.ceiling = np.zeros((0, len(controls), tasks))
        self.controls = controls
        self.alpha, self.plan, self.control = kept, np.arange(len(kept)), keeps
        self.none = len(kept) - 1  # the number of the first plan that shows nothing
        again = np.broadcast_to(self.plan[:, None, None, None], (*keeps.shape, symbols, regimes))
        self.after = again.copy()
        self.place: dict[bytes, int] = {}
        self._cache: dict[str, tuple[Array, ...]] = {}

    def state(self) -> dict[str, np.ndarray]:
        """What was found, for a checkpoint."""
        return {name: getattr(self, name) for name in _FOUND}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Become what was kept."""
        for name in _FOUND:
            setattr(self, name, kept[name].copy())
        self.place = {row.tobytes(): k for k, row in enumerate(words(self.belief))}
        self._cache.clear()

    def bytes(self) -> int:
        arrays = (self.belief, self.upper, self.lower, self.alpha, self.after)
        return sum(array.nbytes for array in arrays)

    def visit(self, belief: np.ndarray) -> Int[np.ndarray, " n"]:
        """Where beliefs of mass one are among those visited; new ones are added."""
        index = np.empty(len(belief), np.int64)
        fresh = []
        for n, row in enumerate(words(belief)):
            known = self.place.setdefault(row.tobytes(), len(self.place))
            index[n] = known
            if known == len(self.belief) + len(fresh):
                fresh.append(n)
        if fresh:
            more = belief[fresh]
            upper, lower, best = self.upper_at(more), *self.lower_at(more)
            self.belief = np.concatenate([self.belief, more])
            self.upper = np.concatenate([self.upper, upper])
            self.lower = np.concatenate([self.lower, lower])
            self.best = np.concatenate([self.best, best])
            ceiling = np.einsum("nm,aum->nau", more, self.controls, optimize=True)
            self.ceiling = np.concatenate([self.ceiling, ceiling])
            self._cache.clear()
        return index

    def upper_at(self, query: np.ndarray) -> Float[np.ndarray, "N U"]:
        """Upper bounds at unnormalised beliefs."""
        return in_chunks(upper_between, query, self._known(), self.mesh)[0]

    def made_of(self, query: np.ndarray) -> list[np.ndarray]:
        """They, and what they are made of, as `weights_between` says."""
        return in_chunks(weights_between, query, self._known(), self.mesh)

    def _known(self) -> tuple[Array, ...]:
        if "upper" not in self._cache:
            length = padded_length(max(len(self.belief), NEAR))
            pad = [(0, length - len(self.belief)), (0, 0)]
            arrays = (np.pad(self.belief, pad), np.pad(self.upper, pad), self.told, self.least)
            self._cache["upper"] = tuple(map(jnp.asarray, arrays))
        return self._cache["upper"]

    def lower_at(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower bounds at unnormalised beliefs, and the plans that attain them, (N, U) each."""
        if "alpha" not in self._cache:
            order = np.argsort(self.plan == self.none, kind="stable")  # last where plans tie
            fill = np.full(padded_length(len(order)) - len(order), order[-1])
            self.order = np.concatenate([order, fill])
            self._cache["alpha"] = (jnp.asarray(self.alpha[self.order]),)
        cells = self.alpha.shape[0] * self.alpha.shape[1]
        value, index = in_chunks(best_plan, query, self._cache["alpha"], self.mesh, cells > _CELLS)
        return value, self.plan[self.order[index]]

    def improve(
        self,
        index: np.ndarray,
        upper: np.ndarray,
        alpha: np.ndarray,
        control: np.ndarray,
        after: np.ndarray,
    ) -> None:
        """Take in backups at visited beliefs: upper bounds (n, U), and one plan each.

        A plan goes on with itself after a symbol where `after` is -1.
        """
        np.minimum.at(self.upper, index, np.maximum(upper, self.lower[index]))
        self._cache.pop("upper", None)
        own = np.einsum("num,nm->nu", alpha, self.belief[index])
        lower = self.lower[index]
        new = (own > lower + _ROUNDED * abs(lower)).any(axis=1)
        if not new.any():
            return
        alpha, control, after = alpha[new], control[new], after[new]
        numbers = len(self.control) + np.arange(len(alpha))
        after = np.where(after < 0, numbers[:, None, None, None], after)
        self.control = np.concatenate([self.control, control])
        self.after = np.concatenate([self.after, after])
        fill = np.zeros(padded_length(len(alpha)) - len(alpha), int)
        padded = np.concatenate([alpha, alpha[fill]])
        value, at = in_chunks(best_plan, self.belief, (jnp.asarray(padded),), self.mesh)
        better = value > self.lower + _ROUNDED * abs(self.lower)
        self.lower = np.where(better, value, self.lower)
        self.best = np.where(better, numbers[at], self.best)
        self.upper = np.maximum(self.upper, self.lower)
        self.alpha = np.concatenate([self.alpha, alpha])
        self.plan = np.concatenate([self.plan, numbers])
        self.prune()

    def settle(self, open_: np.ndarray, upper: np.ndarray, ceiling: np.ndarray) -> None:
        """Take in upper bounds (K, U) and ceilings (K, A, U) of the tasks that are open."""
        self.upper[:, open_], self.ceiling[..., open_] = upper, ceiling
        self._cache.pop("upper", None)

    def prune(self) -> None:
        """Set plans aside that are best at no visited belief: no bound there is lost."""
        used = np.isin(self.plan, self.best) | (self.plan == self.none)
        self.alpha, self.plan = self.alpha[used], self.plan[used]
        self._cache.clear()


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
            controls = self.now(t, memory)
            if self.goes_on(t):
                edge, heirs = self.moves(*key)
                going = self.column[self.structure.columns[edge]].sum(axis=1)
                later = [expected(after[heir], self.flat, a) for a, heir in enumerate(heirs)]
                controls = controls + going[:, None] * np.stack(later)
            sizes = self.structure.symbols, self.regimes
            self.sets[key] = Points(told, least, kept, keeps, controls, *sizes, self.mesh)
        return self.sets[key]

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
        control = found.lower.argmax(axis=1)
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
