"""Write out any plan: what it does at every node that it can reach, what that is worth, and lacks.

A plan of one's own is a function of nodes. Followed from the roots under every symbol it gives a
tree, round by round; backward over that tree its value is an exact sum. Above, at every node, a
controller who is told the parameter (`solvers.told.enumerated`), so that every node has a certified
gap, whatever the plan is.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.host import Record
from solvers.problem import Task, TaskList
from solvers.process import AbstractCeiling, Case, Problem
from solvers.solution import AbstractPlan, Node
from solvers.table import Grown, PlanTable, lay_out
from solvers.told.enumerated import enumerate_ceilings


class _Round(Record):
    """Nodes of one round while plans are followed; see `Grown`."""

    memory: Int[np.ndarray, "M d"]
    place: Int[np.ndarray, " N"]
    parent: Int[np.ndarray, " N"]
    control: Int[np.ndarray, " N"]
    symbol: Int[np.ndarray, " N"]
    row: Float[np.ndarray, "N m"]
    history: tuple[tuple[tuple[int, int], ...], ...] = eqx.field(static=True)


def write_out(
    problem: Problem,
    tasks: TaskList,
    plan: AbstractPlan,
    upper: Float[np.ndarray, " N"],
    memory: float,
) -> PlanTable:
    """Follow the plans that are kept, and value them.

    **Arguments:** `upper`: bounds on every task's value at its root; `memory`: bytes for the tree.

    **Raises:** `MemoryError` where the tree does not fit; `IndexError` for a control that there is
    not, or that the task does not allow.
    """
    kept = np.flatnonzero(tasks.kept)
    every = [tasks[int(k)] for k in kept]
    number = {int(k): f for f, k in enumerate(kept)}
    rounds, actions, children = [_first(problem)], [], []
    want = np.ones((1, len(kept)), bool)
    for t in range(int(problem.horizon)):
        here = rounds[-1]
        taken = _ask(problem, plan, every, kept, here, want, t)
        actions.append(taken)
        last = t == int(problem.horizon) - 1
        child, following = _next(problem, here, taken, want, t, last, memory)
        children.append(child)
        if following is None:
            break
        want = _arrive(every, number, taken, want, child, len(following.place))
        rounds.append(following)
    values = _value(problem, every, number, rounds, actions, children)
    gaps = _gaps(problem, every, number, rounds, values, upper[kept])
    grown = tuple(
        Grown(one.memory, one.place, one.parent, one.control, one.symbol, child, taken, gap)
        for one, child, taken, gap in zip(rounds, children, actions, gaps, strict=True)
    )
    attained = np.full(len(tasks), np.nan)
    attained[kept] = values[0][0]
    return lay_out(grown, tasks, attained)


def _first(problem: Problem) -> _Round:
    zero = np.zeros(1, np.int64)
    ones = np.ones((1, problem.points))
    return _Round(problem.start()[None].astype(np.int64), zero, zero, zero, zero, ones, ((),))


def _ask(
    problem: Problem,
    plan: AbstractPlan,
    every: Sequence[Task],
    kept: Int[np.ndarray, " F"],
    here: _Round,
    want: Bool[np.ndarray, "N F"],
    t: int,
) -> Int[np.ndarray, "N F"]:
    """The control of every plan at every node; the last one at beliefs without mass."""
    taken = np.full(want.shape, problem.controls - 1)
    for node, f in np.argwhere(want).tolist():
        belief = every[f].root * here.row[node]
        if not belief.sum() > 0:
            continue
        asked = Node(int(kept[f]), t, here.memory[here.place[node]], belief, here.history[node])
        control = int(plan.act(asked))
        if not 0 <= control < problem.controls or not every[f].allowed[control]:
            raise IndexError(f"control {control} of task {int(kept[f])} in round {t + 1}")
        taken[node, f] = control
    # Plans that do not come here are taken to do what one of those does that come.
    first = want.argmax(axis=1)
    return np.where(want, taken, np.take_along_axis(taken, first[:, None], axis=1))


def _next(
    problem: Problem,
    here: _Round,
    taken: np.ndarray,
    want: np.ndarray,
    t: int,
    last: bool,
    memory: float,
):
    """Nodes after every control that is taken and every symbol; nodes that are one are merged."""
    count, places, found = len(here.place), {}, {}
    parts: list[list[Any]] = [[] for _ in range(6)]
    links, symbols = [], 0
    for node in range(0 if last else count):
        at = here.memory[here.place[node]]
        for control in np.unique(taken[node, want[node]]).tolist():
            law = problem.likelihood(at, control, t)
            symbols = len(law)
            after = problem.step(at, control).astype(np.int64)
            for z, chance in enumerate(law):
                row = here.row[node] * chance
                key = after.tobytes() + row.tobytes()
                if key not in found:
                    found[key] = len(found)
                    place = places.setdefault(after.tobytes(), (len(places), after))[0]
                    new = (place, node, control, z, row, (*here.history[node], (control, z)))
                    for part, item in zip(parts, new, strict=True):
                        part.append(item)
                links.append((node, control, z, found[key]))
        if 8.0 * len(found) * (problem.points + problem.controls * max(symbols, 1)) > memory:
            raise MemoryError(f"round {t + 2} has {len(found)} nodes or more")
    child = np.full((count, problem.controls, symbols), -1, np.int32)
    if last:
        return child, None
    for node, control, z, following in links:
        child[node, control, z] = following
    place, parent, control, symbol = (np.array(part, np.int64) for part in parts[:4])
    memories = np.stack([after for _, after in places.values()])
    way = parent, control, symbol, np.array(parts[4]), tuple(parts[5])
    return child, _Round(memories, place, *way)


def _arrive(
    every: Sequence[Task],
    number: dict[int, int],
    taken: np.ndarray,
    want: np.ndarray,
    child: np.ndarray,
    count: int,
) -> Bool[np.ndarray, "N F"]:
    """Which plans reach each node of the next round."""
    following = np.zeros((count, want.shape[1]), bool)
    for node, f in np.argwhere(want).tolist():
        control = taken[node, f]
        for other, chance in zip(every[f].following.tolist(), every[f].law[control], strict=True):
            if chance > 0:
                following[child[node, control], number[other]] = True
    return following


def _value(
    problem: Problem,
    every: Sequence[Task],
    number: dict[int, int],
    rounds: list[_Round],
    actions: list[np.ndarray],
    children: list[np.ndarray],
) -> list[Float[np.ndarray, "N F"]]:
    """What every plan attains at every node, unnormalised."""
    values: list[np.ndarray] = []
    for t in reversed(range(len(rounds))):
        here, taken = rounds[t], actions[t]
        total = np.zeros(taken.shape)
        for node in range(len(taken)):
            at = here.memory[here.place[node]]
            for control in np.unique(taken[node]).tolist():
                rewards = problem.reward(at, control, t)
                for f in np.flatnonzero(taken[node] == control).tolist():
                    belief = every[f].root * here.row[node]
                    total[node, f] = belief @ (every[f].weights @ rewards)
                    after = children[t][node, control]
                    if not values or not len(after) or after[0] < 0:
                        continue
                    chances = every[f].law[control]
                    for other, chance in zip(every[f].following.tolist(), chances, strict=True):
                        total[node, f] += chance * values[-1][after, number[other]].sum()
        values.append(total)
    return values[::-1]


def _gaps(
    problem: Problem,
    every: Sequence[Task],
    number: dict[int, int],
    rounds: list[_Round],
    values: list[np.ndarray],
    upper: np.ndarray,
) -> list[Float[np.ndarray, "N F"]]:
    """What is told, or at the roots the solver's own bound, minus what is attained."""
    ceilings, n = _ceilings(problem, every, number), len(np.asarray(problem.process.reward))
    reward = float(np.abs(np.asarray(problem.process.reward)).max(initial=0.0))
    worst = reward + max((float(np.abs(task.weights[:n]).max()) for task in every), default=0.0)
    gaps = []
    for t, (here, value) in enumerate(zip(rounds, values, strict=True)):
        gap = np.zeros(value.shape)
        for f, task in enumerate(every):
            belief = here.row * task.root
            mass = belief.sum(axis=1)
            high = worst * mass
            if ceilings is not None:
                high = np.einsum("nm,nm->n", belief, ceilings[f].value(t, here.memory)[here.place])
            if t == 0:
                high = np.minimum(high, upper[f])
            gap[:, f] = np.where(mass > 0, (high - value[:, f]) / np.where(mass > 0, mass, 1), 0)
        gaps.append(np.maximum(gap, 0.0))
    return gaps


def _ceilings(
    problem: Problem, every: Sequence[Task], number: dict[int, int]
) -> Sequence[AbstractCeiling] | None:
    """What is got by who is told the parameter and has the best coefficients that may follow.

    None where memories are too many to list.
    """
    n = len(np.asarray(problem.process.reward))
    cases = []
    for task in every:
        best = np.max([every[number[int(k)]].weights[:n] for k in task.following], axis=0)
        cases.append(Case(best, task.weights[n:] > 0, task.allowed))
    try:
        with jax.enable_x64(True):
            return enumerate_ceilings(problem.process, cases)
    except MemoryError:
        return None
