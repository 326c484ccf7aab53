"""Trees grown of followed controls: what is followed where, and bounds at their nodes."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.checkpoint import States
from solvers.problem import Numbers, Structure, Tables, Tasks, cast
from solvers.table import Answer
from solvers.told.bounds import bound_after, open_columns
from solvers.tree.backward import Swept, likelihood_rows, sweep
from solvers.tree.merging import Leaders
from solvers.tree.tree import Layer, Tree, build_tree

_CACHE = 64e6
Passes = list[tuple[int, float, float]]  # nodes, seconds, largest gap


class Known:
    """Controls followed at the nodes of one round, found again by a key of belief and memory."""

    def __init__(self, controls: int):
        self.keys = np.zeros(0, np.uint64)
        self.follow = np.zeros((0, controls), bool)
        self.place = np.zeros(0, np.int64)

    def find(self, keys: np.ndarray) -> Int[np.ndarray, " N"]:
        """Where each key is, -1 if it is new."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)

    def put(self, keys: np.ndarray, follow: Bool[np.ndarray, "N A"]) -> Bool[np.ndarray, "N A"]:
        """Keep what is followed at these nodes; nodes of one key follow the same."""
        self.keys, self.place = np.unique(keys, return_inverse=True)
        self.follow = np.zeros((len(self.keys), follow.shape[1]), bool)
        np.logical_or.at(self.follow, self.place, follow)
        return self.follow[self.place]


def followed(
    known: list[Known], passes: Passes, leaders: Leaders | None = None
) -> dict[str, np.ndarray]:
    """What is followed before a pass, for a checkpoint."""
    arrays = {f"keys{t}": one.keys for t, one in enumerate(known)}
    arrays |= {f"follow{t}": one.follow for t, one in enumerate(known)}
    arrays |= {} if leaders is None else leaders.state()
    return {**arrays, "passes": np.reshape(np.array(passes), (-1, 3))}


def begin_again(
    states: States,
    known: list[Known],
    leaders: Leaders | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Passes:
    """Follow what was kept, if anything; the passes that there had been."""
    passes: Passes = []

    def restore(kept: dict[str, np.ndarray]) -> None:
        for t, one in enumerate(known):
            one.keys, one.follow = kept[f"keys{t}"], kept[f"follow{t}"]
        if leaders is not None:
            leaders.restore(kept)
        passes[:] = as_passes(kept["passes"])

    states.resume(restore, lambda: followed(known, passes, leaders), mesh=mesh)
    return passes


def as_passes(rows: Float[np.ndarray, "k 3"]) -> Passes:
    """Passes from the rows of a checkpoint."""
    return [(int(nodes), seconds, gap) for nodes, seconds, gap in rows.tolist()]


def elapsed(passes: Passes) -> float:
    """Seconds that passes took."""
    return passes[-1][1] if passes else 0.0


def _keys(layer: Layer, words: np.ndarray) -> np.ndarray:
    """A number for every node's belief and memory; a collision costs time, never correctness."""
    odd = np.random.default_rng(1).integers(1, 2**62, words.shape[1] + 1) * 2 + 1
    with np.errstate(over="ignore"):
        mixed = words[layer.likelihood] @ odd[1:] + layer.memory * odd[0]
    return mixed.astype(np.uint64)


@runtime_checkable
class Sized(Protocol):
    """A solver: `memory` is what may live at once, in bytes."""

    @property
    def memory(self) -> float: ...


def grow(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    told: Sequence[list[np.ndarray]],
    known: list[Known],
    solver: Sized,
    near: Leaders | None = None,
) -> Tree:
    """Build the tree of followed controls; new nodes follow what is best when told omega."""
    column = np.concatenate([np.asarray(tables.column), np.ones((1, tables.column.shape[1]))])
    rows: list[np.ndarray] = []
    most = most_nodes(structure, tables, tasks, solver)

    def choose(t: int, layer: Layer, words: np.ndarray) -> Bool[np.ndarray, "N A"]:
        above = rows[-1] if rows else np.ones((1, column.shape[1]))
        here = above[layer.parent] * column[layer.column] if t else above
        rows.append(here)
        keys = _keys(layer, words)
        place = known[t].find(keys)
        follow = np.zeros((layer.nodes, structure.controls), bool)
        old = place >= 0
        if old.any():
            follow[old] = known[t].follow[place[old]]
        fresh = np.flatnonzero(~old)
        for part, up in zip(tasks, told, strict=True):
            _hopeful(structure, tables, part, up, t, layer, here, fresh, follow)
        return known[t].put(keys, follow)

    return build_tree(structure, limit=most, choose=choose, near=near)


@contextlib.contextmanager
def fits_a_plan() -> Generator[None, None, None]:
    """Say of a `MemoryError` that comes here what it was that did not fit."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"one plan for every task does not: {error}") from error


def require_plan(
    structure: Structure,
    tables: Tables,
    tasks: Sequence[Tasks],
    told: Sequence[list[np.ndarray]],
    solver: Sized,
) -> Tree:
    """The plan of who is told the parameter next round; raise `MemoryError` unless it fits."""
    known = [Known(structure.controls) for _ in told[0]]
    return grow(structure, tables, tasks, told, known, solver)


def caps_at(
    tree: Tree, tables: Tables, tasks: Sequence[Tasks], upper: Callable[..., np.ndarray]
) -> list[list[Float[np.ndarray, "_N _R _Q"]]]:
    """Upper bounds at the nodes of a tree, per group and round but the last.

    **Arguments:** `upper(group, t, memory, root, belief)`: (k, Q), at unnormalised beliefs (k, m).
    """
    column = open_columns(np.asarray(tables.column, float))
    column[-1] = 1.0
    rows = [np.asarray(x) for x in likelihood_rows(tree, column, len(tree.layers))]
    caps: list[list[np.ndarray]] = [[] for _ in tasks]
    for g, part in enumerate(tasks):
        for t, layer in enumerate(tree.layers[:-1]):
            cap = np.empty((layer.nodes, *part.coefficient.shape[:2]))
            for memory in np.unique(layer.memory).tolist():
                nodes = np.flatnonzero(layer.memory == memory)
                for r, root in enumerate(np.asarray(part.root, float)):
                    belief = rows[t][layer.likelihood[nodes]] * root
                    cap[nodes, r] = upper(g, t, memory, r, belief)
            caps[g].append(cap)
    return caps


def most_nodes(structure: Structure, tables: Tables, tasks: Sequence[Tasks], solver: Sized) -> int:
    """Nodes a round may have so that its beliefs, children and bounds fit."""
    cells = sum(part.coefficient.shape[0] * part.coefficient.shape[1] for part in tasks)
    points = tables.column.shape[1]
    each = 8 * points + 4 * structure.controls * structure.symbols + 40 * cells
    return int(solver.memory / (each * structure.horizon))


def _hopeful(
    structure: Structure,
    tables: Tables,
    tasks: Tasks,
    told: list[np.ndarray],
    t: int,
    layer: Layer,
    rows: np.ndarray,
    fresh: np.ndarray,
    follow: np.ndarray,
) -> None:
    """Follow, at fresh nodes, the control that each task would take if told omega afterwards."""
    if not len(fresh):
        return
    root = np.asarray(tasks.root)
    order = fresh[np.argsort(layer.memory[fresh], kind="stable")]
    starts = np.flatnonzero(np.diff(layer.memory[order], prepend=-1))
    counted, coefficient = np.asarray(tasks.counted), np.asarray(tasks.coefficient)
    reward = np.asarray(tables.reward)
    roots, width = coefficient.shape[:2]
    for start, stop in zip(starts, np.append(starts[1:], len(order)), strict=True):
        members = order[start:stop]
        memory = int(layer.memory[members[0]])
        edge = structure.edge[t][memory]
        worth = bound_after(structure, tables, tasks, told, t, memory)
        worth = np.broadcast_to(worth, (len(edge), roots, width, root.shape[1])).copy()
        for slot in range(structure.outcome.shape[1]):
            j = structure.outcome[edge, slot]
            chance = np.where((j >= 0)[:, None], np.asarray(tables.stop)[edge, slot], 0.0)
            x = np.moveaxis(coefficient[:, :, j], 2, 0)[..., None]
            counts = np.moveaxis(counted[:, :, j], 2, 0)[..., None]
            worth += chance[:, None, None] * (x + counts * reward[j][:, None, None])
        allowed = np.moveaxis(np.asarray(tasks.allowed, bool), 2, 0)
        step = max(1, int(_CACHE // (8 * worth.shape[0] * roots * width)))
        for low in range(0, len(members), step):
            part = members[low : low + step]
            belief = rows[layer.likelihood[part]]
            total = np.stack(
                [
                    belief @ (worth[:, r] * root[r]).reshape(-1, root.shape[1]).T
                    for r in range(roots)
                ]
            ).reshape(roots, len(part), len(edge), width)
            total = np.where(np.moveaxis(allowed, 0, 1)[:, None], total, -np.inf)
            best = total.argmax(axis=2)
            best[(belief @ root.T).T <= 0] = structure.controls - 1
            follow[part[None, :, None], best] = True


def sweep_bounded(
    tree: Tree,
    tables: Tables,
    tasks: Tasks,
    told: list[np.ndarray],
    solver: Sized,
    caps: Sequence[np.ndarray] | None = None,
    dtype: type[np.floating] | None = None,
    share: Callable[[int, np.ndarray], Numbers | None] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> list[Swept]:
    """Solve a grown tree; `caps`: per round but the last, other upper bounds at its nodes.

    `share`: as in `sweep`, where beliefs are merged that are not in proportion.
    `dtype`: the precision to work in, that of the numbers by default; see `rounding`. `mesh`:
    devices over which the nodes of a round are spread.
    """
    cells = tree.structure.controls * tasks.coefficient.shape[0] * tasks.coefficient.shape[1]
    block = int(max(8, min(_CACHE, solver.memory / 5) / (16 * cells)))

    def bounds(t: int, memory: int) -> np.ndarray:
        return bound_after(tree.structure, tables, tasks, told, t, memory)

    used = (tables, tasks) if dtype is None else (cast(tables, dtype), cast(tasks, dtype))
    rounds = sweep(tree, *used, block=block, bounds=bounds, caps=caps, share=share, mesh=mesh)
    return list(rounds)[::-1]


def summary(tree: Tree, tables: Tables, tasks: Sequence[Tasks], swept: list[list[Swept]]):
    """Answers, upper bounds and gaps; and the largest gap at a root, per unit of mass."""
    column = np.concatenate([np.asarray(tables.column), np.ones((1, tables.column.shape[1]))])
    rows = likelihood_rows(tree, column, len(tree.layers))
    answers, upper, gaps, largest = [], [], [], 0.0
    for part, rounds in zip(tasks, swept, strict=True):
        apart: list[np.ndarray] = []
        for layer, row, one in zip(tree.layers, rows, rounds, strict=True):
            mass = (row @ np.asarray(part.root).T)[layer.likelihood][:, :, None]
            assert one.upper is not None
            gap = np.maximum(one.upper - one.lower, 0.0)
            apart.append(np.where(mass > 0, gap / np.where(mass > 0, mass, 1), 0.0))
        largest = max(largest, float(apart[0].max(initial=0.0)))
        first = rounds[0]
        assert first.upper is not None
        value, actions = np.asarray(first.value[0]), tuple(np.asarray(one.action) for one in rounds)
        high = np.maximum(np.asarray(first.upper[0], float), value)
        answers.append(Answer(value, actions, first.lower[0], high, ill=first.ill))
        upper.append(high)
        gaps.append(tuple(apart))
    return (tree, answers, upper, gaps), largest


def follow_more(
    tree: Tree,
    tables: Tables,
    tasks: Sequence[Tasks],
    swept: list[list[Swept]],
    known: list[Known],
    allowed: list[np.ndarray],
) -> bool:
    """Extend what every group follows; whether there was anything left to follow."""
    groups = zip(tasks, swept, allowed, strict=True)
    more = [_extend(tree, tables, part, one, known, most) for part, one, most in groups]
    return any(more)


def _extend(
    tree: Tree,
    tables: Tables,
    tasks: Tasks,
    swept: list[Swept],
    known: list[Known],
    allowed: np.ndarray,
) -> bool:
    """Follow the controls that attain the upper bound wherever the gap is too large."""
    column = np.concatenate([np.asarray(tables.column), np.ones((1, tables.column.shape[1]))])
    rows = likelihood_rows(tree, column, len(tree.layers))
    root = np.asarray(tasks.root)
    wanted = np.ones((1, *tasks.coefficient.shape[:2]), bool)
    found = False
    law = None if tasks.kernel is None else np.asarray(tasks.kernel)
    for t, layer in enumerate(tree.layers[:-1]):
        value, upper, hopeful = swept[t].value, swept[t].upper, swept[t].hopeful
        assert upper is not None
        assert hopeful is not None
        rounded = swept[t].error + swept[t].share * abs(upper)
        node, r, q = np.nonzero(wanted)
        mass = rows[t] @ root.T
        allowance = allowed[r, q] * mass[layer.likelihood[node], r] + 2 * rounded[node, r, q]
        open_ = upper[node, r, q] - value[node, r, q] > allowance
        node, r, q = node[open_], r[open_], q[open_]
        control = hopeful[node, r, q].astype(np.int64)
        followed = layer.child[node, control, 0] >= 0
        new = ~followed
        if new.any():
            found = True
            known[t].follow[known[t].place[node[new]], control[new]] = True
        wanted = np.zeros((tree.layers[t + 1].nodes, *wanted.shape[1:]), bool)
        child = layer.child[node[followed], control[followed]].astype(np.int64)
        r, q = r[followed], q[followed]
        if law is None:
            wanted[child, r[:, None], q[:, None]] = True
        else:
            size = law.shape[1]
            for v in range(size):
                live = law[control[followed], q % size, v] > 0
                wanted[child[live], r[live, None], (q - q % size + v)[live, None]] = True
    return found
