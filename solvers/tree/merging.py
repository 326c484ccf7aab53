"""Beliefs that are close are taken for one: fewer nodes, at a cost that is added to every bound.

W_t is convex and piecewise linear, its pieces the alpha-vectors of plans. Given omega no plan of
rounds t.. earns more than U_t(omega) or less than L(omega) = min(0, worst outcome), so that for
beliefs of mass one

    |W_t(b) - W_t(b')| <= |b - b'|_1 / 2 * C_t,    C_t = max U_t - min L,

the signed parts of b - b' being of equal mass. In the *merged tree* the belief after a control and
a symbol is replaced by a leader within delta of it for every root, rescaled to its mass. With
d_t <= delta the largest distance of round t, the merged recursion is off by at most

    e_t = go_t (C_{t+1} d_{t+1} / 2 + e_{t+1}),   e_{T-1} = 0,   go_t = max_{r, omega} P(go on)

per unit of mass at every leader of round t (induction backward: a merged child costs C_s d_s / 2
once, then what its leader is off by), for W, for its upper bound, and for every variant; a plan
that is best in the merged recursion loses at most 2 e_t. Hence, at *any* belief b of round t,

    W(b) <= mass(b) (Upper(leader) / mass(leader) + e_t + |b - leader|_1 C_t / 2).

What is returned has no merged belief in it: the controls of the nearest leader are followed on a
tree of exact beliefs, so that `lower` is the plan's own payoff, plans are executed and evaluated
without error, and the bound above enters as a cap at every node.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from solvers.host import Record
from solvers.problem import Structure, Tables, Tasks
from solvers.told.bounds import open_columns
from solvers.tree.backward import Swept, likelihood_rows
from solvers.tree.tree import Layer, Tree, build_tree

_NEAR = 1e-14


class Leaders:
    """Leaders of every round, for `build_tree(near=...)`; kept from one tree to the next."""

    def __init__(self, delta: float, tables: Tables, tasks: Sequence[Tasks]):
        self.delta = delta
        self.column = np.asarray(tables.column, float)
        root = np.concatenate([np.asarray(part.root, float) for part in tasks])
        self.root = np.unique(root[root.sum(axis=1) > 0], axis=0)
        self.known: list[set[bytes]] = []
        self.begin()

    def begin(self) -> None:
        """Start a new tree."""
        self.rows = [np.ones((1, self.column.shape[1]))]
        self.distance = [0.0]

    def state(self) -> dict[str, np.ndarray]:
        """The names of leaders, for a checkpoint."""
        names = [sorted(one) for one in self.known]
        flat = [np.frombuffer(b"".join(one), np.uint8).reshape(len(one), -1) for one in names]
        return {f"leaders{t}": one for t, one in enumerate(flat)}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Become what was kept."""
        count = sum(name.startswith("leaders") for name in kept)
        self.known = [{row.tobytes() for row in kept[f"leaders{t}"]} for t in range(count)]

    def __call__(
        self,
        rows: np.ndarray,
        first: np.ndarray,
        words: np.ndarray,
        source: np.ndarray,
        picked: np.ndarray,
    ):
        """Merge rows that are close: their new numbers, and who stands for each."""
        here = self.rows[-1][source[first]] * self.column[picked[first]]
        if len(self.known) < len(self.rows):
            self.known.append(set())
        known = self.known[len(self.rows) - 1]
        names = [word.tobytes() for word in words]
        old = np.array([name in known for name in names])
        leader, distance = _lead(_normalised(here, self.root), old, self.delta)
        kept, number = np.unique(leader, return_inverse=True)
        known.update(names[k] for k in kept.tolist())
        self.rows.append(here[kept])
        self.distance.append(distance)
        return number.reshape(-1)[rows], first[kept], words[kept]


def _normalised(rows: np.ndarray, root: np.ndarray) -> Float[np.ndarray, "L R m"]:
    """Beliefs of mass one after each row, for each root; zero where nothing is left."""
    belief = rows[:, None] * root
    mass = belief.sum(axis=2, keepdims=True)
    return belief / np.where(mass > 0, mass, 1.0)


def _lead(belief: Float[np.ndarray, "L R m"], old: np.ndarray, delta: float):
    """A leader within delta, for every root, of every row; and the largest distance."""
    from scipy.spatial import KDTree

    count, roots, points = belief.shape
    tree = KDTree(belief.reshape(count, roots * points))
    leader, worst = np.full(count, -1), 0.0
    alive = belief.sum(axis=2) > 0
    for k in np.argsort(~old, kind="stable").tolist():
        if leader[k] >= 0:
            continue
        # The sum over roots of distances is at least the largest: search wide, then check.
        close = np.array(tree.query_ball_point(belief[k].ravel(), roots * delta, p=1.0))
        close = close[leader[close] < 0]
        apart = np.abs(belief[close] - belief[k]).sum(axis=2).max(axis=1)
        alike = ~np.logical_xor(alive[close], alive[k : k + 1]).any(axis=1)
        same = np.flatnonzero(((apart <= delta) & alike & ~old[close]) | (close == k))
        leader[close[same]] = k
        worst = max(worst, float(apart[same].max(initial=0.0)))
    return leader, worst


class Costs(Record):
    """C_t of every round, (T, R, Q), and e_t of the merged tree, (T, R, Q)."""

    span: Float[np.ndarray, "T _R _Q"]
    off: Float[np.ndarray, "T _R _Q"]


def merging_costs(
    structure: Structure,
    tables: Tables,
    tasks: Tasks,
    told: list[Float[np.ndarray, "_M _R _Q m"]],
    distance: list[float],
) -> Costs:
    """What merging can cost one group of tasks, per unit of mass."""
    counted = np.asarray(tasks.counted)[..., None]
    worth = np.asarray(tasks.coefficient)[..., None] + counted * np.asarray(tables.reward)
    least = np.minimum(worth.min(axis=(2, 3)), 0.0)
    if tasks.kernel is not None:
        least = np.broadcast_to(least.min(axis=1, keepdims=True), least.shape)
    most = [np.broadcast_to(up.max(axis=(0, 3)), least.shape) for up in told[: len(distance)]]
    span = np.maximum(np.stack(most), 0.0) - least
    column, off = open_columns(np.asarray(tables.column, float)), np.zeros(span.shape)
    for t in reversed(range(len(distance) - 1)):
        edges = np.unique(structure.edge[t])
        going = float(column[structure.columns[edges]].sum(axis=1).max())
        off[t] = going * (distance[t + 1] * span[t + 1] / 2 + off[t + 1]) * (1 + _NEAR)
    return Costs(span, off)


def shares(tree: Tree, tables: Tables, tasks: Tasks):
    """Mass after each control and symbol over that of the leader it is replaced by, per root."""
    column = open_columns(np.asarray(tables.column, float))
    rows = _rows(tree, tables)
    root = np.asarray(tasks.root, float)
    mass = [row @ root.T for row in rows]

    def share(t: int, nodes: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k A Z R"] | None:
        if t == len(tree.layers) - 1:
            return None
        layer, following = tree.layers[t], tree.layers[t + 1]
        picked = column[tree.structure.columns[tree.structure.edge[t][layer.memory[nodes[0]]]]]
        wide = (picked[:, :, None] * root).reshape(-1, root.shape[1])
        above = (rows[t][layer.likelihood[nodes]] @ wide.T).reshape(
            -1, *picked.shape[:2], len(root)
        )
        below = mass[t + 1][following.likelihood[layer.child[nodes]]]
        return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)

    return share


def _rows(tree: Tree, tables: Tables) -> list[np.ndarray]:
    column = open_columns(np.asarray(tables.column, float))
    column[-1] = 1.0
    return [np.asarray(row) for row in likelihood_rows(tree, column, len(tree.layers))]


class Guide:
    """Controls and upper bounds of the nearest leader, for any belief."""

    def __init__(self, tree: Tree, tables: Tables, tasks: Tasks, swept: list[Swept], costs: Costs):
        self.tree, self.swept, self.costs = tree, swept, costs
        self.root = np.asarray(tasks.root, float)
        self.last = tree.structure.controls - 1
        self.mass = [row @ self.root.T for row in _rows(tree, tables)]
        self.belief = [_normalised(row, self.root) for row in _rows(tree, tables)]
        self.found: dict[tuple[int, int, int], Any] = {}

    def at(self, t: int, memory: int, r: int, belief: Float[np.ndarray, "k m"]):
        """For unnormalised beliefs of root r: controls (k, Q), upper bounds (k, Q)."""
        from scipy.spatial import KDTree

        layer, mass = self.tree.layers[t], belief.sum(axis=1)
        width = self.swept[t].value.shape[2]
        control = np.full((len(belief), width), self.last)
        cap = np.where(mass > 0, np.inf, 0.0)[:, None].repeat(width, axis=1)
        if (t, memory, r) not in self.found:
            nodes = np.flatnonzero(layer.memory == memory)
            nodes = nodes[self.mass[t][layer.likelihood[nodes], r] > 0]
            there = self.belief[t][layer.likelihood[nodes], r]
            self.found[t, memory, r] = nodes, KDTree(there) if len(nodes) else None
        nodes, near = self.found[t, memory, r]
        live = np.flatnonzero(mass > 0)
        if near is None or not len(live):
            return control, cap
        apart, at = near.query(belief[live] / mass[live, None], p=1.0)
        node = nodes[at]
        control[live] = np.asarray(self.swept[t].action)[node, r]
        upper = np.asarray(self.swept[t].upper)
        each = upper[node, r] / self.mass[t][layer.likelihood[node], r][:, None]
        each = each + self.costs.off[t, r] + apart[:, None] / 2 * self.costs.span[t, r]
        cap[live] = mass[live, None] * each
        return control, cap


def follow_guides(
    structure: Structure, tables: Tables, tasks: Sequence[Tasks], guides: list[Guide], limit: int
) -> tuple[Tree, list[list[Float[np.ndarray, "_N _R _Q"]]]]:
    """The tree of exact beliefs that the guides lead to, and upper bounds at its nodes."""
    column = open_columns(np.asarray(tables.column, float))
    column[-1] = 1.0
    rows: list[np.ndarray] = []
    caps: list[list[np.ndarray]] = [[] for _ in tasks]

    def choose(t: int, layer: Layer, words: np.ndarray):
        here = rows[-1][layer.parent] * column[layer.column] if t else column[-1:]
        rows.append(here)
        follow = np.zeros((layer.nodes, structure.controls), bool)
        for g, part in enumerate(tasks):
            cap = np.empty((layer.nodes, *part.coefficient.shape[:2]))
            for memory in np.unique(layer.memory).tolist():
                nodes = np.flatnonzero(layer.memory == memory)
                for r, root in enumerate(np.asarray(part.root, float)):
                    belief = here[layer.likelihood[nodes]] * root
                    control, cap[nodes, r] = guides[g].at(t, memory, r, belief)
                    follow[nodes[:, None], control] = True
            caps[g].append(cap)
        return follow

    return build_tree(structure, limit=limit, choose=choose), caps
