"""The traced Bellman recursion over a tree.

One step, in a memory class with edges e(a), for likelihood rows l, roots r and tasks q:

    Q[a, l, r, q] = sum_s <row_l * root_r, stop[e(a), s]> x_rq[j] + <row_l * root_r, stop * reward>
                    + sum_z E_x' W'[child[l, a, z], r, q],        W = max_a Q.

The inner products do not depend on the task, so that every coefficient vector and every variant
(a control forbidden, an outcome not counted) shares one matrix product of beliefs by rewards.

Ties: see `solvers.ties`. Beside W go its amount A, where a term may be negative (else A is W), and
what the controls taken are worth, from the round on where that is not W to the last digit. When
traced, W is returned with the gradient of the plan in use.
"""

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from solvers.problem import Numbers, Tables, Tasks
from solvers.programs import as_program
from solvers.ties import rounding, signed, take
from solvers.tree.tree import Layer, Tree, ratios

_BLOCK_SIZES = (8, 64, 512, 4096, 32768)
_LITTLE = 2e6  # operations that padding a small round may cost, to save a compilation
_COMMON = 4096  # nodes handled at once in every round where padding costs nothing but indices
_INDICES = 4e6  # bytes of these
_SHARED = 64e6  # bytes of one table of likelihood rows for all rounds, where it is that small
_LEVEL = 4e6  # bytes up to which the values that follow are padded to those of the widest round
_CACHED = 2.5e6, 4e5  # bytes of beliefs, and of values, worked on at once inside a step
_MULTIPLE = 256  # what sizes of blocks are rounded up to where each has a program of its own
_UNROLLED = 8  # symbols whose values are added up without a loop


def likelihood_rows(tree: Tree, column: Numbers, rounds: int) -> list[Numbers]:
    """Multiply out the likelihood rows (L, m) of the first `rounds` rounds."""
    rows = [column[-1:]]
    for layer in tree.layers[1:rounds]:
        rows.append(rows[-1][layer.parent] * column[layer.column])
    return rows


def backward(
    tree: Tree,
    tables: Tables,
    tasks: Tasks,
    *,
    block: int,
    tick: Callable[[int], None] = lambda nodes: None,
) -> tuple[Float[Array, "R Q"], list[Int[np.ndarray, "_N _R _K"]]]:
    """Solve every task at every node: the values at the roots and the policies kept.

    Exact up to rounding. Pure when traced (policies are then not returned).

    **Arguments:** `tree`, `tables`, `tasks`; `block`: the most nodes handled at once;
    `tick`: called with the number of nodes done.

    **Returns:** W at the roots, shape (R, Q); per round the control taken, shape
    (N_t, R, keep), empty when traced.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((tables, tasks)))
    value, actions = jnp.zeros((1, *tasks.coefficient.shape[:2])), []
    for layer in sweep(tree, tables, tasks, block=block, tick=tick):
        value = layer.best
        if not traced:
            actions.append(layer.action)
    return jnp.asarray(value)[0], actions[::-1]


class Swept(eqx.Module):
    """One round solved: what the controls taken yield (N, R, Q), and the controls.

    - `best`: W among controls that are followed. `amount`: of both; `share`, `lost`: what they
      can be off by is `share` of it, and `lost` besides (`solvers.ties`).
    - `upper`: a bound on W, rounded outward, and `hopeful`, the controls that attain it; None
      without bounds on what is not followed.
    - `ill`: whether numbers were ill conditioned here or later; False when traced.
    """

    value: Float[Numbers, "N R Q"]
    best: Float[Numbers, "N R Q"]
    amount: Float[Numbers, "N R Q"]
    action: Int[Numbers, "N R K"]
    upper: Float[Numbers, "N R Q"] | None
    hopeful: Int[Numbers, "N R Q"] | None
    ill: bool = eqx.field(static=True)
    share: float = eqx.field(static=True)
    lost: float = eqx.field(static=True)

    @property
    def error(self) -> Float[np.ndarray, "N R Q"]:
        """What values can be off by, unnormalised."""
        return self.share * np.asarray(self.amount, float) + self.lost

    @property
    def lower(self) -> Float[np.ndarray, "N R Q"]:
        """What the controls taken yield at least."""
        return np.asarray(self.value, float) - self.error

    @property
    def loss(self) -> Float[np.ndarray, "N R Q"]:
        """What the controls taken can lack of W."""
        short = np.asarray(self.best, float) - np.asarray(self.value, float)
        return short + 2 * self.error


class _Later(eqx.Module):
    """Values of the round that follows, (N, R, Q); None where they are not carried.

    `value`: where it is not `best`; `amount`: where a term may be negative.
    """

    best: Numbers
    value: Numbers | None
    amount: Numbers | None
    upper: Numbers | None


def sweep(
    tree: Tree,
    tables: Tables,
    tasks: Tasks,
    *,
    block: int,
    bounds: Callable[[int, int], Float[np.ndarray, "A _R _Q m"]] | None = None,
    caps: Sequence[Float[np.ndarray, "_N _R _Q"]] | None = None,
    share: Callable[[int, Int[np.ndarray, " k"]], Numbers | None] | None = None,
    tick: Callable[[int], None] = lambda nodes: None,
) -> Iterator[Swept]:
    """Solve the rounds of a tree, the last one first.

    Controls that are not followed are not taken. With `bounds(t, memory)`, which bound what
    follows every control given the parameter, an upper bound on W is propagated as well: such a
    control counts there at what it yields at once and the bound after it. `caps`, with bounds:
    other upper bounds on W at the nodes of every round but the last. `share(t, nodes)`: belief
    after each control and symbol over that of the child, (k, A, Z, R), where trees merge beliefs
    that are not in proportion.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((tables, tasks)))
    arrays: ModuleType = jnp if traced else np
    column = arrays.asarray(tables.column)
    # A column of ones, which index -1 (no column seen yet) picks.
    column = arrays.concatenate([column, arrays.ones((1, column.shape[1]), column.dtype)])
    rows = likelihood_rows(tree, column, len(tree.layers) - 1)
    given = column, tables, tasks
    given = jax.tree.map(jnp.asarray, given) if traced else jax.device_put(given)
    shapes = _shapes(tree, rows, tasks, block, traced)
    shared = None
    if shapes.shared:
        shared = _padded(np.concatenate(rows), _length(sum(map(len, rows))))
    room = rounding(tree.structure, tables, tasks, column.dtype)
    carried, ill = signed(tables, tasks), False
    nothing = arrays.zeros((_BLOCK_SIZES[0], *tasks.coefficient.shape[:2]), column.dtype)
    bounded = None if bounds is None else nothing
    following = _Later(nothing, None, nothing if carried else None, bounded)
    for t in reversed(range(len(tree.layers))):
        layer = tree.layers[t]
        last = t == len(tree.layers) - 1
        parts, bound, at = [], None, -1
        before = max(t - 1, 0)
        if shared is None:
            start, previous = 0, rows[before]
            previous = previous if traced else _padded(previous, _length(len(previous)))
        else:
            start, previous = sum(map(len, rows[:before])), shared
        partial = bool((layer.child[:, :, :1] < 0).any())
        least = 1 if last else shapes.block
        for first, size, nodes in blocks(layer, shapes.most, least, exact=traced):
            if bounds is not None and not last and layer.memory[first] != at:
                at = layer.memory[first]
                bound = jnp.asarray(bounds(t, int(at)), column.dtype)
            found = _step(
                previous,
                layer.parent[layer.likelihood[nodes]] + start,
                layer.column[layer.likelihood[nodes]],
                tree.structure.edge[t][layer.memory[first]],
                layer.child[nodes],
                layer.child[nodes, :, 0] >= 0 if partial else None,
                ratios(tree, t, nodes) if share is None else share(t, nodes),
                following,
                bound,
                given[0],
                given[1],
                tree.structure.outcome,
                given[2],
                np.asarray([room.each[t], room.now, room.later], column.dtype),
                None if traced else np.asarray(size, np.int32),
            )
            parts.append(jax.tree.map(lambda x, size=size: arrays.asarray(x)[:size], found))
            tick(size)
        joined = jax.tree.map(lambda *x: arrays.concatenate(x), *parts)
        if not traced and joined.ill is not None:
            ill = ill or bool(joined.ill.any())
        best, value, amount = joined.best, joined.value, joined.amount
        amount = best if amount is None else amount
        upper = joined.upper
        if upper is not None and caps is not None and not last:
            cap = caps[t] + room.each[t] * (abs(caps[t]) + amount)
            upper = arrays.maximum(value, arrays.minimum(upper, cap))
        if traced:  # W, with the gradient of the plan in use
            best = value = value + jax.lax.stop_gradient(best - value)
        same = traced or np.array_equal(best, value)
        following = _Later(best, None if same else value, joined.amount if carried else None, upper)
        if not traced:
            length = max(shapes.following, _length(layer.nodes))
            following = jax.tree.map(lambda x, length=length: _padded(x, length), following)
        action = joined.action[:, :, : tasks.keep]
        end = room.each[t], room.lost
        yield Swept(value, best, amount, action, upper, joined.hopeful, ill, *end)


class _Shapes(eqx.Module):
    """Shapes that the rounds of a tree share, so that few programs are compiled.

    - `block`: the fewest nodes handled at once, where that costs next to nothing; `most`: the most.
    - `following`: the fewest values that follow.
    - `shared`: whether one table holds the likelihood rows of all rounds.
    """

    block: int = eqx.field(static=True)
    most: int = eqx.field(static=True)
    following: int = eqx.field(static=True)
    shared: bool = eqx.field(static=True)


def _shapes(tree: Tree, rows: Sequence[Numbers], tasks: Tasks, block: int, traced: bool) -> _Shapes:
    if traced:
        return _Shapes(1, block, 1, False)
    structure = tree.structure
    slots, points = structure.outcome.shape[1], tasks.root.shape[1]
    roots, variants = tasks.coefficient.shape[:2]
    features = (2 * structure.controls * slots + 1) * points
    cells = 2 * structure.controls * (structure.symbols + 2 * slots) * variants
    few = [s for s in _BLOCK_SIZES if s * roots * (features + cells) <= _LITTLE]
    widest = max((_width(layer) for layer in tree.layers[:-1]), default=1)
    least = max((s for s in few if s <= 64 or s <= _length(widest)), default=1)
    indices = 12 * _COMMON * structure.controls * structure.symbols
    chunk = _chunk(_COMMON, points, structure.controls, slots, tasks)
    if widest > least and chunk < _COMMON <= block and indices <= _INDICES:
        # Only the chunks that count are worked on: one program for rounds of any width.
        least = block = _COMMON
    longest = _length(max((layer.nodes for layer in tree.layers[1:]), default=1))
    level = longest if 8.0 * longest * roots * variants <= _LEVEL else 1
    return _Shapes(least, block, level, 8.0 * _length(sum(map(len, rows))) * points <= _SHARED)


def _length(count: int) -> int:
    """Round up to one of few lengths, so that few programs are compiled."""
    length = next((s for s in _BLOCK_SIZES[1:] if s >= count), _BLOCK_SIZES[-1])
    while length < count:
        length *= 2
    return length


def _padded(rows: Numbers, length: int) -> Array:
    """Append zeros."""
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return jnp.asarray(padded)


def _width(layer: Layer) -> int:
    """The most nodes of one memory class."""
    return int(np.diff(np.flatnonzero(np.diff(layer.memory, prepend=-1, append=-1))).max())


def blocks(
    layer: Layer, largest: int, least: int = 1, exact: bool = False
) -> Iterator[tuple[int, int, Int[np.ndarray, " C"]]]:
    """Split a round into blocks of one memory class and few distinct sizes.

    Yields the first node, how many nodes count, and the node indices (padded by the last); there
    are at most `largest` of them, and at least `least` where that allows it. `exact`: any size,
    padded by little.
    """
    starts = np.flatnonzero(np.diff(layer.memory, prepend=-1))
    ends = np.append(starts[1:], layer.nodes)
    widest = max(int((ends - starts).max()), least)
    size = next((s for s in _BLOCK_SIZES if s >= min(widest, largest)), _BLOCK_SIZES[-1])
    if exact and widest < size:
        size = -(-widest // _MULTIPLE) * _MULTIPLE if widest > _MULTIPLE else widest
    if size > largest:  # a power of two, which can be split
        size = 1 << max(largest.bit_length() - 1, 0)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        for first in range(start, end, size):
            count = min(size, end - first)
            yield first, count, np.minimum(np.arange(first, first + size), end - 1)


class _Found(eqx.Module):
    """What a step finds at its nodes; as in `Swept`, None where it is not carried."""

    best: Numbers
    value: Numbers
    action: Numbers
    amount: Numbers | None
    ill: Numbers | None
    upper: Numbers | None
    hopeful: Numbers | None


@as_program
def _step(
    previous: Float[Numbers, "L m"],
    parent: Int[Numbers, " C"],
    picked: Int[Numbers, " C"],
    edges: Int[Numbers, " A"],
    child: Int[Numbers, "C A Z"],
    followed: Bool[Numbers, "C A"] | None,
    ratio: Float[Numbers, "C A Z"] | Float[Numbers, "C A Z R"] | None,
    following: _Later,
    bound: Float[Array, "A _R _Q m"] | None,
    column: Float[Numbers, "C1 m"],
    tables: Tables,
    outcomes: Int[Numbers, "E J"],
    tasks: Tasks,
    shares: Float[Numbers, " three"],
    size: Int[Numbers, ""] | None = None,
) -> _Found:
    """One Bellman step for a block of nodes of one memory class: values and controls (C, R, Q).

    `shares`: of amounts, what values, a round's yields, and sums of what follows can be off by.
    Nodes are worked on in chunks that stay in the cache, up to the first `size` nodes (all by
    default).
    """
    nodes = parent, picked, child, followed, ratio
    chunk = _chunk(len(parent), previous.shape[1], len(edges), outcomes.shape[1], tasks)
    root = jnp.asarray(tasks.root)
    wide = following.amount is not None
    features = _features(edges, tables, outcomes, root, previous.dtype, wide)

    def solve(part):
        parent, picked, child, followed, ratio = part
        belief = previous[parent] * column[picked]
        return _bellman(
            belief, features, edges, child, followed, ratio, following, bound, outcomes, tasks,
            shares,
        )  # fmt: skip

    if chunk == len(parent):
        return solve(nodes)
    count = len(parent) // chunk
    split = jax.tree.map(lambda x: jnp.reshape(x, (count, chunk, *x.shape[1:])), nodes)
    if size is None:
        found = jax.lax.map(solve, split)
    else:
        one = jax.eval_shape(solve, jax.tree.map(lambda x: x[0], split))
        blank = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), one)

        def go_on(k, found):
            part = solve(jax.tree.map(lambda x: x[k], split))
            return jax.tree.map(lambda all_, new: all_.at[k].set(new), found, part)

        found = jax.lax.fori_loop(0, -(-size // chunk), go_on, blank)
    return jax.tree.map(lambda x: x.reshape(len(parent), *x.shape[2:]), found)


def _chunk(nodes: int, points: int, controls: int, slots: int, tasks: Tasks) -> int:
    """How many of a block's nodes are worked on at once."""
    roots, variants = tasks.coefficient.shape[:2]
    widths = points, 2 * controls * (slots + variants) * roots
    most = min(np.divide(_CACHED, np.multiply(widths, tasks.root.dtype.itemsize)))
    while nodes % 2 == 0 and nodes > most:
        nodes //= 2
    return nodes


def _bellman(
    belief, features, edges, child, followed, ratio, following: _Later, bound, outcomes, tasks,
    shares,
) -> _Found:  # fmt: skip
    """The step for the nodes of a chunk."""
    wide = following.amount is not None
    mass, parts = _contract(belief, features, outcomes.shape[1], len(edges))
    outcome = jnp.asarray(outcomes)[edges]
    coefficient = jnp.moveaxis(jnp.asarray(tasks.coefficient)[:, :, outcome], (0, 1), (2, 3))
    counted = jnp.moveaxis(jnp.asarray(tasks.counted)[:, :, outcome], (0, 1), (2, 3))
    allowed = jnp.moveaxis(jnp.asarray(tasks.allowed, bool), 2, 0)[:, None]
    now = _yield(parts[0], parts[1], coefficient, counted)
    size = None
    if wide:
        size = jax.lax.stop_gradient(_yield(parts[0], parts[2], abs(coefficient), counted))

    def usable(total, rest):
        if followed is not None:
            total = jnp.where(jnp.asarray(followed).T[:, :, None, None], total, rest)
        # The barrier keeps what follows from being added up again for each comparison.
        return jax.lax.optimization_barrier(jnp.where(allowed, total, -jnp.inf))

    total = usable(now + _continue(child, ratio, following.best, tasks.kernel), -jnp.inf)
    kept = amount = upper = hopeful = None
    if following.value is not None:
        kept = usable(now + _continue(child, ratio, following.value, tasks.kernel), -jnp.inf)
    if size is not None:
        amount = jax.lax.stop_gradient(_continue(child, ratio, following.amount, tasks.kernel))
        amount = jax.lax.optimization_barrier(size + amount)
    live = mass[:, :, None] > 0
    taken = take(total, amount, shares[0], live, kept=kept, arrays=jnp)
    if following.upper is not None:
        high = _continue(child, ratio, following.upper, tasks.kernel)
        spread = high
        if size is not None:
            spread = _continue(child, ratio, abs(following.upper), tasks.kernel)
        size = now if size is None else size
        more, rest = now + high + shares[1] * size + shares[2] * spread, -jnp.inf
        if followed is not None and bound is not None:
            root = jnp.asarray(tasks.root)
            ahead, room = _after(belief, root, bound), _after(belief, root, abs(bound))
            rest = now + ahead + shares[1] * (size + room)
        hope = take(usable(more, rest), None, 0.0, live, arrays=jnp)
        upper, hopeful = hope.value, hope.choice
    ill = None if taken.ill is None else jnp.any(taken.ill, axis=(1, 2))
    return _Found(taken.best, taken.value, taken.choice, taken.amount, ill, upper, hopeful)


def _yield(chances, rewards, coefficient, counted):
    """What each control yields at once, (A, C, R, Q), of chances and rewards (A, J, C, R)."""
    shape = (*chances.shape[:1], *chances.shape[2:], coefficient.shape[-1])
    total = jnp.zeros(shape, chances.dtype)
    for slot in range(chances.shape[1]):
        total = total + chances[:, slot, :, :, None] * coefficient[:, slot, None]
        total = total + rewards[:, slot, :, :, None] * counted[:, slot, None]
    return total


def _after(belief, root, bound):
    """Bound what follows each control at each belief, shape (A, C, R, Q or 1)."""
    weighted = bound * root[:, None]
    return jnp.einsum("cm,arqm->acrq", belief, weighted, precision=jax.lax.Precision.HIGHEST)


def _features(edges, tables, outcomes, root, kind, wide: bool) -> Float[Array, "F R m"]:
    """What beliefs are contracted with, of every root: chances, rewards (and sizes), and ones."""
    stop = jnp.asarray(tables.stop)[edges]
    reward = jnp.asarray(tables.reward)[jnp.asarray(outcomes)[edges]]
    points = stop.shape[2]
    rows = [stop, stop * reward] + ([stop * abs(reward)] if wide else [])
    features = jnp.concatenate([*(x.reshape(-1, points) for x in rows), jnp.ones((1, points))])
    return features.astype(kind)[:, None, :] * root[None]


def _contract(belief, features, slots: int, controls: int):
    """Contract beliefs with what every control's edge yields: the heavy stage.

    Returns the mass of each belief (C, R); and per kind, control and slot (A, J, C, R) the
    probability of the outcome, the reward it brings, and its size.
    """
    product = jnp.einsum("frm,cm->fcr", features, belief, precision=jax.lax.Precision.HIGHEST)
    return product[-1], product[:-1].reshape(-1, controls, slots, *product.shape[1:])


def _continue(child, ratio, following, kernel):
    """Expected value of what follows each control, shape (A, C, R, Q)."""
    start = jnp.zeros((child.shape[1], child.shape[0], *following.shape[1:]), following.dtype)
    if child.shape[2] == 0:
        return start
    step = jnp.maximum(jnp.transpose(jnp.asarray(child), (2, 1, 0)), 0)
    if ratio is None:
        total, _ = jax.lax.scan(
            lambda sum_, index: (sum_ + following[index], None), start, step, unroll=_UNROLLED
        )
    else:
        ratio = jnp.asarray(ratio, start.dtype)
        ratio = ratio[..., None] if ratio.ndim == 3 else ratio
        share = jnp.transpose(ratio, (2, 1, 0, 3))[..., None]
        total, _ = jax.lax.scan(
            lambda sum_, at: (sum_ + at[1] * following[at[0]], None),
            start,
            (step, share),
            unroll=_UNROLLED,
        )
    if kernel is None:
        return total
    law = jnp.asarray(kernel)
    split = total.reshape(*total.shape[:3], -1, law.shape[1])
    return jnp.einsum("acrxw,avw->acrxv", split, law).reshape(total.shape)
