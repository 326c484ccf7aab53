"""Beliefs that point-based walks begin from: roots, and nodes whose bounds are too far apart."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from solvers.host import Record
from solvers.points.points import PointSets
from solvers.problem import Numbers, Tasks
from solvers.table import Answer
from solvers.told.bounds import open_columns
from solvers.tree.backward import Swept, likelihood_rows
from solvers.tree.tree import Tree


class Wanted(Record):
    """Beliefs of mass one in one round and memory class, and their weight for every task."""

    belief: Float[np.ndarray, "N m"]
    weight: Float[np.ndarray, "N U"]


Starts = dict[tuple[int, int], Wanted]


def root_beliefs(sets: PointSets, tasks: Sequence[Tasks]) -> Starts:
    """Every root, of mass one, with weight one for its tasks."""
    beliefs, weights = [], []
    for part, place in zip(tasks, sets.place, strict=True):
        root = np.asarray(part.root)
        mass = root.sum(axis=1)
        for r in np.flatnonzero(mass > 0):
            weight = np.zeros(sets.tasks)
            weight[place[r]] = 1.0
            beliefs.append(root[r] / mass[r])
            weights.append(weight)
    if not beliefs:
        return {}
    return {(0, 0): Wanted(np.array(beliefs), np.array(weights))}


def loose_nodes(
    sets: PointSets,
    tree: Tree,
    tasks: Sequence[Tasks],
    swept: Sequence[list[Swept]],
    answers: Sequence[Answer],
    tolerance: float,
) -> Starts:
    """Nodes that the kept policies visit with a gap above the tolerance, by round and class."""
    column = open_columns(np.asarray(sets.tables.column))
    column[-1] = 1.0
    rows = likelihood_rows(tree, column, len(tree.layers))
    found: dict[tuple[int, int], list[tuple[Numbers, Numbers]]] = {}
    for g, part in enumerate(tasks):
        root = np.asarray(part.root)
        law = None if part.kernel is None else np.asarray(part.kernel)
        reached = np.ones((1, len(root), part.keep), bool)
        for t, layer in enumerate(tree.layers):
            belief = rows[t][layer.likelihood][:, None] * root
            mass = belief.sum(axis=2)
            reached &= mass[:, :, None] > 0
            one = swept[g][t]
            assert one.upper is not None
            rounded = one.error + one.share * abs(one.upper)
            excess = (one.upper - one.lower - 4 * rounded)[:, :, : part.keep]
            node, r, k = np.nonzero(reached & (excess > tolerance * mass[:, :, None]))
            weight = np.zeros((len(node), sets.tasks))
            weight[np.arange(len(node)), sets.place[g][r, k]] = 1.0
            for memory in np.unique(layer.memory[node]).tolist():
                at = layer.memory[node] == memory
                flat = belief[node[at], r[at]] / mass[node[at], r[at]][:, None]
                found.setdefault((t, memory), []).append((flat, weight[at]))
            if t == len(tree.layers) - 1:
                break
            node, r, k = np.nonzero(reached)
            control = answers[g].actions[t][node, r, k].astype(np.int64)
            child = layer.child[node, control]
            reached = np.zeros((tree.layers[t + 1].nodes, *reached.shape[1:]), bool)
            if law is None:
                reached[child, r[:, None], k[:, None]] = True
                continue
            size = law.shape[1]
            for v in range(size):
                live = law[control, k % size, v] > 0
                reached[child[live], r[live, None], (k - k % size + v)[live, None]] = True
    return {
        key: Wanted(*(np.concatenate(x) for x in zip(*parts, strict=True)))
        for key, parts in found.items()
    }
