"""Executable plans on a tree: where a plan goes, and what it is worth to whom.

A plan takes the control ``actions[t][pair, node]`` for every *pair* of a root and a coefficient
vector; it may also draw one: number A + l stands for row l of ``laws``. Because the parameter is
static, everything a plan does is linear in the belief:

- forward, `visit` follows it from its root: the unnormalised belief at a node is the
  probability of the path and the parameter jointly, so an expectation is a plain sum over the
  nodes visited;
- backward, `unfold` and `evaluate` give, for any (pair, node, control), the *alpha-vector*
  ``Q(omega)``: the payoff, given omega, of taking that control and then following the plan. Its
  inner product with any belief is the payoff of the plan under that belief, whatever belief the
  plan was made for.

Host-side NumPy: the sets are ragged and small beside the tree.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from solvers.host import Record
from solvers.kept import require_alike, require_chances, require_indices
from solvers.problem import Tables
from solvers.tree.tree import Tree, ratios

_ROWS = 2e6  # numbers of likelihood rows that are kept along a walk
Indices = Int[np.ndarray, " _k"]


class Plan(Record):
    """Controls at every node for every pair of a root and a coefficient vector.

    - `tree`, `tables`: what the plan runs on.
    - `root`: shape (R, m), unnormalised; `pair_root`: shape (P,), the root of each pair.
    - `actions`: per round, shape (P, N_t). `laws`: shape (L, A), None where nothing is drawn.
    - `sibling`: shape (P, V), the pair of the same root for each coefficient vector that can
      follow; V = 1 and the pair itself when coefficients are constant.
    - `kernel`: None or shape (A, V, V); `regime`: shape (P,), each pair's row of it.
    """

    tree: Tree
    tables: Tables
    root: Float[np.ndarray, "R m"]
    pair_root: Int[np.ndarray, " P"]
    actions: tuple[Int[np.ndarray, "P _N"], ...]
    sibling: Int[np.ndarray, "P V"]
    regime: Int[np.ndarray, " P"]
    kernel: Float[np.ndarray, "A V V"] | None
    laws: Float[np.ndarray, "L A"] | None = None

    def check_kept(self) -> None:
        """Raise `ValueError` for indices that point at nothing, and chances that are none."""
        pairs = len(self.pair_root)
        require_indices("pair_root", self.pair_root, len(self.root))
        require_indices("sibling", self.sibling, pairs)
        require_chances("root", self.root)
        for name, law in (("kernel", self.kernel), ("laws", self.laws)):
            if law is not None:
                require_chances(name, law)
                require_alike(name, law.sum(axis=-1), np.ones(law.shape[:-1]))
        require_indices(
            "regime", self.regime, pairs if self.kernel is None else self.kernel.shape[1]
        )

    @property
    def horizon(self) -> int:
        return len(self.actions)

    @property
    def width(self) -> int:
        """How many numbers `actions` may hold: controls, and laws over them."""
        return self.tree.structure.controls + (0 if self.laws is None else len(self.laws))

    def split(self, control: Indices) -> tuple[Indices, Indices, Float[np.ndarray, " _j"]]:
        """Entries of `control` taken apart: which entry, a control that it uses, its chance."""
        size = self.tree.structure.controls
        if self.laws is None:
            return np.arange(len(control)), control.astype(np.int64), np.ones(len(control))
        chance = np.concatenate([np.eye(size), self.laws])[control]
        entry, taken = np.nonzero(chance)
        return entry, taken, chance[entry, taken]

    def edge(self, t: int, node: Indices, control: Indices) -> Indices:
        """Which edge a control is at a node."""
        return self.tree.structure.edge[t][self.tree.layers[t].memory[node], control]

    def belief(self, t: int, pair: Indices, node: Indices) -> Float[np.ndarray, "_k m"]:
        """Unnormalised beliefs at nodes of round t: the root times the columns seen."""
        belief = self.root[self.pair_root[pair]]
        if t == 0:
            return belief
        column, known = np.asarray(self.tables.column), self.tree.layers[t].row
        index = self.tree.layers[t].likelihood[node]
        if known is not None:
            return belief * known[index]
        for layer in self.tree.layers[t:0:-1]:
            belief *= column[layer.column[index]]
            index = layer.parent[index]
        return belief


def rows_after(
    plan: Plan, t: int, rows: Float[np.ndarray, "_K m"] | None
) -> Float[np.ndarray, "_L m"] | None:
    """Likelihood rows of round t from those of the round before; None where they are many.

    With them a walk over all rounds costs as much as it has rounds; `Plan.belief` goes back from
    where it is asked.
    """
    layer, column = plan.tree.layers[t], np.asarray(plan.tables.column)
    if layer.row is not None or len(layer.parent) * column.shape[1] > _ROWS:
        return layer.row
    if t == 0:
        return np.ones((1, column.shape[1]))
    return None if rows is None else rows[layer.parent] * column[layer.column]


class Visits(NamedTuple):
    """Nodes that plans visit in one round, each once for every (origin, pair) and control used.

    `weight` counts the merged paths, times the probability of the coefficients that lead there
    and the ratio of their beliefs to the node's.
    `before` and `symbol` name one way in: the visit of the round before, and what was observed.
    """

    origin: Indices
    pair: Indices
    node: Indices
    control: Indices
    weight: Float[np.ndarray, " k"]
    before: Indices
    symbol: Indices


def visit(plan: Plan, pairs: Indices, *, by_origin: bool) -> list[Visits]:
    """Follow the plans of `pairs` from their roots under every symbol.

    With `by_origin`, visits of different starting pairs are kept apart (needed for expectations
    from each start; only matters when coefficients move).
    """
    pairs = np.asarray(pairs, np.int64)
    entry, control, chance = Plan.split(plan, plan.actions[0][pairs, 0])
    pairs, nothing = pairs[entry], np.full(len(entry), -1)
    here = Visits(pairs, pairs, 0 * pairs, control, chance, nothing, nothing)
    path = [here]
    for t in range(plan.horizon - 1):
        child = plan.tree.layers[t].child[here.node, here.control]
        ratio = ratios(plan.tree, t, here.node)
        each = None if ratio is None else ratio[np.arange(len(ratio)), here.control]
        on = _ways if plan.kernel is None else _moved_ways
        index, symbol, origin, pair, node, weight = on(plan, here, child, each)
        origin = origin if by_origin else pair
        if len(node) > 1:
            nodes = plan.tree.layers[t + 1].nodes
            key = (origin * len(plan.pair_root) + pair) * nodes + node
            _, first, merged = np.unique(key, return_index=True, return_inverse=True)
            weight = np.bincount(merged.reshape(-1), weight, len(first))
            ways = index, symbol, origin, pair, node
            index, symbol, origin, pair, node = (part[first] for part in ways)
        control = plan.actions[t + 1][pair, node].astype(np.int64)
        here = Visits(origin, pair, node, control, weight, index, symbol)
        if plan.laws is not None:
            entry, control, chance = Plan.split(plan, control)
            here = Visits._make(part[entry] for part in here)
            here = here._replace(control=control, weight=here.weight * chance)
        path.append(here)
    return path


def _ways(plan: Plan, here: Visits, child: Int[np.ndarray, "k Z"], ratio: np.ndarray | None):
    """What follows visits, if coefficients stay: visit, symbol, origin, pair, node, weight."""
    count, symbols = child.shape
    if symbols == 1:
        index, node = np.arange(count), child[:, 0].astype(np.int64)
        weight = here.weight if ratio is None else here.weight * ratio[:, 0]
        return index, np.zeros(count, np.int64), here.origin, here.pair, node, weight
    index, symbol = np.repeat(np.arange(count), symbols), np.tile(np.arange(symbols), count)
    weight = here.weight[index] if ratio is None else (here.weight[:, None] * ratio).ravel()
    return index, symbol, here.origin[index], here.pair[index], child.ravel().astype(int), weight


def _moved_ways(plan: Plan, here: Visits, child: Int[np.ndarray, "k Z"], ratio: np.ndarray | None):
    """The same if they move."""
    sibling = plan.sibling[here.pair]
    law = _law(plan, here.pair, here.control)
    shape = (*child.shape, sibling.shape[1])
    live = np.broadcast_to((law > 0)[:, None, :], shape)
    index, symbol, _ = np.nonzero(live)
    node = np.broadcast_to(child[:, :, None], shape)[live].astype(np.int64)
    pair = np.broadcast_to(sibling[:, None, :], shape)[live].astype(np.int64)
    weight = here.weight[:, None, None] * law[:, None, :]
    if ratio is not None:
        weight = weight * ratio[:, :, None]
    weight = np.broadcast_to(weight, shape)[live]
    return index, symbol, here.origin[index], pair, node, weight


class Keys(Record):
    """Distinct (pair, node, control) of one round and what follows each.

    `following` has shape (k, Z, V): where in the next round's keys, -1 where V has no mass.
    `mix`: keys of laws, keys of the controls that they use, and chances; None where there is none.
    """

    pair: Indices
    node: Indices
    control: Indices
    following: Int[np.ndarray, "k Z V"]
    mix: tuple[Indices, Indices, Float[np.ndarray, " _j"]] | None = None


def unfold(
    plan: Plan, wanted: list[tuple[Indices, Indices, Indices]]
) -> tuple[list[Keys], list[Indices]]:
    """Find every key that the wanted (pair, node, control) of each round lead to.

    **Returns:** the keys of each round, and where the wanted ones are among them.
    """
    keys, places = [], []
    arriving = (np.zeros(0, np.int64),) * 3
    for t in range(plan.horizon):
        nodes = plan.tree.layers[t].nodes
        width, size = plan.width, plan.tree.structure.controls
        parts = [
            np.concatenate([a, w]).astype(np.int64)
            for a, w in zip(arriving, wanted[t], strict=True)
        ]
        code = (parts[0] * nodes + parts[1]) * width + parts[2]
        unique, index, mix = code, np.arange(len(code)), None
        if not (code[1:] > code[:-1]).all():
            unique, index = np.unique(code, return_inverse=True)
            index = index.reshape(-1)
        if width > size:
            unique, index, mix = _taken_apart(plan, unique, index)
        if keys:
            follow = keys[-1].following
            follow[follow >= 0] = index[: len(arriving[0])]
        places.append(index[len(arriving[0]) :])
        pair, node, control = parts
        if unique is not code:
            rest, control = np.divmod(unique, width)
            pair, node = np.divmod(rest, nodes)
        if t == plan.horizon - 1:
            keys.append(Keys(pair, node, control, np.zeros((len(pair), 0, 1), np.int64), mix))
            break
        one = control < size
        taken = np.where(one, control, 0)
        child = plan.tree.layers[t].child[node, taken].astype(np.int64)
        sibling = plan.sibling[pair].astype(np.int64)
        shape = (*child.shape, sibling.shape[1])
        law = _law(plan, pair, taken)
        live = np.broadcast_to(((law > 0) & one[:, None])[:, None, :], shape)
        next_node = np.broadcast_to(child[:, :, None], shape)[live]
        next_pair = np.broadcast_to(sibling[:, None, :], shape)[live]
        arriving = (next_pair, next_node, plan.actions[t + 1][next_pair, next_node])
        keys.append(Keys(pair, node, control, np.where(live, 0, -1), mix))
    return keys, places


def _taken_apart(plan: Plan, codes: Indices, index: Indices):
    """Keys of a round with those of the controls that laws among them use; and how they mix."""
    rest, control = np.divmod(codes, plan.width)
    drawn = np.flatnonzero(control >= plan.tree.structure.controls)
    entry, taken, chance = Plan.split(plan, control[drawn])
    parts = rest[drawn][entry] * plan.width + taken
    every = np.union1d(codes, parts)
    law, part = np.searchsorted(every, codes[drawn])[entry], np.searchsorted(every, parts)
    return every, np.searchsorted(every, codes)[index], (law, part, chance)


def evaluate(
    plan: Plan,
    keys: list[Keys],
    flow: Callable[[int, Indices, Indices, Indices], Float[np.ndarray, "_k C m"]],
) -> list[Float[np.ndarray, "_k C m"]]:
    """Alpha-vectors of every key: payoff given omega, for C payoffs at once.

    **Arguments:** `keys` from `unfold`; `flow(t, pair, node, control)`: what a round yields
    given omega, shape (k, C, m), already multiplied by the probability that it does.
    """
    column = np.asarray(plan.tables.column)
    values: list[np.ndarray] = []
    for t in reversed(range(plan.horizon)):
        here = keys[t]
        one = np.flatnonzero(here.control < plan.tree.structure.controls)
        at = here.pair[one], here.node[one], here.control[one]
        total = flow(t, *at)
        if t < plan.horizon - 1:
            total = np.array(total)
            law = _law(plan, at[0], at[2])
            picked = plan.tree.structure.columns[plan.edge(t, *at[1:])]
            padded = np.concatenate([values[-1], np.zeros((1, *total.shape[1:]))])
            for z in range(picked.shape[1]):
                later = np.zeros_like(total)
                for v in range(law.shape[1]):
                    later += law[:, v, None, None] * padded[here.following[one, z, v]]
                total += later * column[picked[:, z]][:, None, :]
        if here.mix is not None:
            every = np.zeros((len(here.control), *total.shape[1:]))
            every[one] = total
            drawn, part, chance = here.mix
            np.add.at(every, drawn, chance[:, None, None] * every[part])
            total = every
        values.append(total)
    return values[::-1]


def afterwards(
    plan: Plan,
    path: list[Visits],
    flow: Callable[[int, Indices, Indices, Indices], Float[np.ndarray, "_k C m"]],
) -> list[Float[np.ndarray, "_v C m"]]:
    """What is still to come after the round of each visit, given omega, by the chance of that.

    With x_t what a round yields, E[(sum_t x_t)^2] = sum_t E[x_t^2] + 2 sum_t E[x_t sum_s>t x_s]: of
    sums along paths whose nodes are merged this is all that has to be known.

    **Arguments:** as of `evaluate`; `path`: from `visit`.
    """
    wanted = [(here.pair, here.node, here.control) for here in path]
    keys, places = unfold(plan, wanted)
    values = evaluate(plan, keys, flow)
    return [
        x[at] - flow(t, *wanted[t]) for t, (x, at) in enumerate(zip(values, places, strict=True))
    ]


def _law(plan: Plan, pair: Indices, control: Indices) -> Float[np.ndarray, "_k V"]:
    """Probability of each coefficient vector that can follow."""
    if plan.kernel is None:
        return np.ones((len(pair), 1))
    return plan.kernel[control, plan.regime[pair]]
