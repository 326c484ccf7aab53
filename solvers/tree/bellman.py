"""One Bellman step for a block of nodes of one memory class."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.devices import at_hand
from solvers.gains import Gains
from solvers.host import Record
from solvers.problem import Numbers, Tables, Tasks
from solvers.programs import as_program
from solvers.ties import DType, Taken, take
from solvers.tree.ahead import Coming, look_ahead
from solvers.tree.hosted import ROWS, added_on_host, halved, nodes_at_once, product_on_host
from solvers.tree.shared import Apart, shared_features, take_shared, yields, yields_apart

_CACHED = 2.5e6, 1.6e6  # bytes of beliefs, and of values, worked on at once inside a step
_HOST = 2.0  # times as much in NumPy, where every piece takes as many calls
_UNROLLED = 8  # symbols whose values are added up without a loop


class Later(Record):
    """Values of the round that follows, (N, R, Q); None where they are not carried.

    `value`: where it is not `best`; `amount`: where a term may be negative and they are carried.
    """

    best: Numbers
    value: Numbers | None
    amount: Numbers | None
    upper: Numbers | None


class Found(Record):
    """What a step finds at its nodes; as in `Swept`, None where it is not carried.

    `apart`, `ill`: of each chunk of nodes, whether a value is not `best`, and whether numbers are
    ill conditioned. Without `value`, none is apart.
    """

    best: Numbers
    value: Numbers | None
    apart: Numbers
    action: Numbers
    amount: Numbers | None
    ill: Numbers | None
    upper: Numbers | None
    hopeful: Numbers | None


@as_program
def bellman_step(
    previous: Float[Numbers, "L m"],
    parent: Int[Numbers, " C"],
    picked: Int[Numbers, " C"],
    edges: Int[Numbers, " A"],
    child: Int[Numbers, "C A Z"],
    followed: Bool[Numbers, "C A"] | None,
    ratio: Float[Numbers, "C A Z"] | Float[Numbers, "C A Z R"] | None,
    following: Later,
    bound: Float[Numbers, "A _R _Q m"] | None,
    column: Float[Numbers, "C1 m"],
    tables: Tables,
    outcomes: Int[Numbers, "E J"],
    tasks: Tasks,
    shares: Float[Numbers, " three"],
    gained: Gains | None = None,
    size: Int[Numbers, ""] | None = None,
    own: Apart | None = None,
    coming: Coming | None = None,
    most: int | None = None,
    valued: bool = True,
) -> Found:
    """One Bellman step for a block of nodes of one memory class: values and controls (C, R, Q).

    `shares`: of amounts, what values, a round's yields, and sums of what follows can be off by;
    `gained`: what bounds amounts where they are not carried and a term may be negative.
    `own`: in the last round, where the tasks of a root differ in one control: which it is; what is
    found is then laid out as (chunks, R, Q, nodes of a chunk), which takes less to write. Not
    `valued`: without `value`, which is `best` where none is apart, and takes long to write.
    `coming`: what follows, where that is not listed (`solvers.tree.ahead`).
    Nodes are worked on in chunks of `most` (None: as many as stay in the cache), up to the first
    `size` nodes (all by default).
    """
    nodes = parent, picked, child, followed, ratio
    if most is None:
        most = chunk_size(len(parent), previous.shape[1], len(edges), outcomes.shape[1], tasks)
    chunk = halved(len(parent), most)
    numbers = tables, outcomes, tasks, shares
    if own is None:
        solve = _solver(previous, edges, following, bound, column, *numbers, gained, jnp, coming)
    else:
        wide = following.amount is not None
        solve = _sharing(previous, edges, column, *numbers, own, wide, gained)
    if not valued:
        solve = _unvalued(solve)
    if chunk == len(parent):
        return solve(nodes) if own is None else jax.tree.map(lambda x: x[None], solve(nodes))
    count = len(parent) // chunk
    split = jax.tree.map(lambda x: jnp.reshape(x, (count, chunk, *x.shape[1:])), nodes)
    if size is None:
        found = jax.lax.map(solve, split)
    else:
        # Indices are in range: what checks that is much of the program.
        index, update = jax.lax.dynamic_index_in_dim, jax.lax.dynamic_update_index_in_dim
        one = jax.eval_shape(solve, jax.tree.map(lambda x: x[0], split))
        blank = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), one)

        def go_on(k: Array, found: Found):
            part = solve(jax.tree.map(lambda x: index(x, k, keepdims=False), split))
            return jax.tree.map(lambda all_, new: update(all_, new, k, 0), found, part)

        found = jax.lax.fori_loop(0, -(-size // chunk), go_on, blank)
    return found if own is not None else jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)


def step_on_host(
    previous: Float[Numbers, "L m"],
    parent: Int[Numbers, " C"],
    picked: Int[Numbers, " C"],
    edges: Int[Numbers, " A"],
    child: Int[Numbers, "C A Z"],
    followed: Bool[Numbers, "C A"] | None,
    ratio: Float[Numbers, "C A Z"] | Float[Numbers, "C A Z R"] | None,
    following: Later,
    bound: Float[Numbers, "A _R _Q m"] | None,
    column: Float[Numbers, "C1 m"],
    tables: Tables,
    outcomes: Int[Numbers, "E J"],
    tasks: Tasks,
    shares: Float[Numbers, " three"],
    gained: Gains | None = None,
    own: Apart | None = None,
) -> Found:
    """`bellman_step` in NumPy, for passes that take less time than their program to compile.

    `own`: of any round, where amounts are not carried; what is found is laid out as without.
    """
    nodes = parent, picked, child, followed, ratio
    most = _HOST * nodes_at_once(_CACHED, previous.shape[1], len(edges), outcomes.shape[1], tasks)
    chunk = -(-len(parent) // math.ceil(len(parent) / max(most, 1.0)))  # all alike, or nearly
    given = previous, edges, following, bound, column, tables, outcomes, tasks, shares, gained
    with np.errstate(all="ignore"):
        solve = _solver(*given, np, own=own)
        parts = [
            solve(jax.tree.map(lambda x, low=low: x[low : low + chunk], nodes))
            for low in range(0, len(parent), chunk)
        ]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def chunk_size(nodes: int, points: int, controls: int, slots: int, tasks: Tasks) -> int:
    """How many of a block's nodes are worked on at once."""
    near = at_hand(_CACHED[0]), at_hand(_CACHED[1])
    return halved(nodes, nodes_at_once(near, points, controls, slots, tasks))


def roots_at_once(controls: int, slots: int, variants: int, kind: DType) -> float:
    """How many roots leave room for `ROWS` nodes at once: fewer, and products are slow."""
    width = 2 * controls * (slots + variants)
    return at_hand(_CACHED[1]) / (ROWS * width * np.dtype(kind).itemsize)


def _solver(
    previous: Numbers, edges: Numbers, following: Later, bound: Numbers | None, column: Numbers,
    tables: Tables, outcomes: Numbers, tasks: Tasks, shares: Numbers, gained: Gains | None,
    arrays: ModuleType, coming: Coming | None = None, own: Apart | None = None,
):  # fmt: skip
    """The step as a function of nodes: parents, columns, children, who is followed, ratios."""
    root, wide = arrays.asarray(tasks.root), following.amount is not None
    weight = arrays.ones(root.shape) if gained is None else arrays.asarray(gained.weight)
    given, kind = (edges, tables, outcomes), previous.dtype
    if own is not None:
        features = shared_features(*given, tasks, own, kind, wide, weight, arrays)
    else:
        if _one_by_one(outcomes.shape[1], tasks):
            each = yields(*given, tasks, wide, tasks.coefficient.shape[1], arrays)
            rows = arrays.concatenate([x.reshape(-1, *root.shape) for x in each])
        else:
            rows = _features(*given, wide, arrays)[:, None]
        rows = rows.astype(kind) * root
        features = arrays.concatenate([rows, (weight.astype(kind) * root)[None]])
    scale = None if gained is None else arrays.asarray(gained.scale)

    def solve(part: tuple[Numbers, Numbers, Numbers, Numbers | None, Numbers | None]):
        parent, picked, child, followed, ratio = part
        belief, later = previous[parent] * column[picked], following
        if coming is not None:
            found = look_ahead(belief, coming, column, tables, outcomes, tasks, wide)
            later = Later(found[0], None, found[1], None)
            child = jnp.arange(len(found[0]), dtype=jnp.int32).reshape(len(parent), -1, 1)
        return _bellman(
            belief, features, edges, child, followed, ratio, later, bound, outcomes, tasks,
            shares, scale, own, arrays,
        )  # fmt: skip

    return solve


def _unvalued(solve: Callable[[Any], Found]) -> Callable[[Any], Found]:
    """The same without `value`."""
    return lambda part: dataclasses.replace(solve(part), value=None)


def _sharing(
    previous: Numbers, edges: Numbers, column: Numbers, tables: Tables, outcomes: Numbers,
    tasks: Tasks, shares: Numbers, own: Apart, wide: bool, gained: Gains | None,
):  # fmt: skip
    """The step of the last round where the tasks of a root differ in one control."""
    weight = jnp.ones(tasks.root.shape) if gained is None else gained.weight
    given = edges, tables, outcomes, tasks, own, previous.dtype
    features = shared_features(*given, wide, weight, jnp)
    scale = None if gained is None else jnp.asarray(gained.scale)

    def solve(part: tuple[Numbers, Numbers, Numbers, Numbers | None, Numbers | None]):
        belief = previous[part[0]] * column[part[1]]
        taken = take_shared(belief, features, edges, outcomes, tasks, own, shares[0], wide, scale)
        return _found(taken, None, None, jnp)

    return solve


def _bellman(
    belief: Numbers, features: Numbers, edges: Numbers, child: Numbers, followed: Numbers | None,
    ratio: Numbers | None, following: Later, bound: Numbers | None, outcomes: Numbers,
    tasks: Tasks, shares: Numbers, scale: Numbers | None, own: Apart | None, arrays: ModuleType,
) -> Found:  # fmt: skip
    """The step for the nodes of a chunk."""
    wide = following.amount is not None
    constant = _same if arrays is np else jax.lax.stop_gradient
    product = _products(belief, features, arrays)  # the heavy stage
    mass, size = product[-1], None
    allowed = arrays.moveaxis(arrays.asarray(tasks.allowed, bool), 2, 0)[:, None]
    if own is not None:
        now = yields_apart(product[:-1], np.asarray(outcomes)[edges], tasks, own)
    elif _one_by_one(outcomes.shape[1], tasks):
        parts = product[:-1].reshape(-1, len(edges), tasks.coefficient.shape[1], *mass.shape)
        parts = arrays.moveaxis(parts, 2, -1)
        now = parts[0]
        if wide:
            size = constant(parts[1])
    else:
        parts = product[:-1].reshape(-1, len(edges), outcomes.shape[1], *mass.shape)
        outcome = arrays.asarray(outcomes)[edges]
        coefficient, counted = (
            arrays.moveaxis(arrays.asarray(x)[:, :, outcome], (0, 1), (2, 3))
            for x in (tasks.coefficient, tasks.counted)
        )
        now = _yield(parts[0], parts[1], coefficient, counted, arrays)
        if wide:
            size = constant(_yield(parts[0], parts[2], abs(coefficient), counted, arrays))

    def usable(total: Numbers, rest: Numbers | float):
        if followed is not None:
            total = arrays.where(arrays.asarray(followed).T[:, :, None, None], total, rest)
        return total if own is not None else arrays.where(allowed, total, -jnp.inf)

    def worth(later: Numbers):
        start = None if own is None else now.copy()
        total = _continue(child, ratio, later, tasks.kernel, arrays, start)
        return usable(total + now if start is None else total, -jnp.inf)

    kept = None if following.value is None else worth(following.value)
    total, amount, upper, hopeful = worth(following.best), None, None, None
    if size is not None and following.amount is not None:
        amount = constant(_continue(child, ratio, following.amount, tasks.kernel, arrays))
        amount = size + amount
    live = mass[:, :, None] > 0
    room = None if scale is None else (shares[0] * scale * mass)[:, :, None]
    taken = take(total, amount, shares[0], live, kept=kept, room=room, arrays=arrays)
    if following.upper is not None:
        high = _continue(child, ratio, following.upper, tasks.kernel, arrays)
        spread = high
        if size is not None:
            spread = _continue(child, ratio, abs(following.upper), tasks.kernel, arrays)
        size = now if size is None else size
        more, rest = now + high + shares[1] * size + shares[2] * spread, -jnp.inf
        if followed is not None and bound is not None:
            root = arrays.asarray(tasks.root)
            ahead = room = _after(belief, root, bound, arrays)
            if wide:
                room = _after(belief, root, abs(bound), arrays)
            rest = now + ahead + shares[1] * (size + room)
        hope = take(usable(more, rest), None, 0.0, live, arrays=arrays)
        upper, hopeful = hope.value, hope.choice
    return _found(taken, upper, hopeful, arrays)


def _found(taken: Taken, upper: Numbers | None, hopeful: Numbers | None, arrays: ModuleType):
    ill = None if taken.ill is None else arrays.any(taken.ill)[None]
    apart = arrays.any(taken.value != taken.best)[None]
    return Found(taken.best, taken.value, apart, taken.choice, taken.amount, ill, upper, hopeful)


def _same(numbers: Numbers):
    return numbers


def _products(belief: Numbers, rows: Numbers, arrays: ModuleType):
    """Sums over the points of beliefs (C, m) times rows (n, ..., m): (n, C, ...).

    Never of rounded factors. In NumPy nodes are last in memory: there are more than roots.
    """
    if arrays is not np:
        return jnp.einsum("cm,n...m->nc...", belief, rows, precision=jax.lax.Precision.HIGHEST)
    return np.moveaxis(product_on_host(rows, belief), -1, 1)


def _yield(
    chances: Numbers, rewards: Numbers, coefficient: Numbers, counted: Numbers, arrays: ModuleType
):
    """What each control yields at once, (A, C, R, Q), of chances and rewards (A, J, C, R)."""

    def parts():
        for slot in range(chances.shape[1]):
            for one, weight in ((chances, coefficient), (rewards, counted)):
                if arrays is np:  # nodes, which are last in memory, are what is run along
                    each = np.swapaxes(one[:, slot], 1, 2)[:, :, None] * weight[:, slot, ..., None]
                    yield np.moveaxis(each, -1, 1)
                else:
                    yield one[:, slot, :, :, None] * weight[:, slot, None]

    return functools.reduce(operator.add, parts())


def _after(belief: Numbers, root: Numbers, bound: Numbers, arrays: ModuleType):
    """Bound what follows each control at each belief, shape (A, C, R, Q or 1)."""
    return _products(belief, bound * root[:, None], arrays)


def _one_by_one(slots: int, tasks: Tasks) -> bool:
    """Whether yields to each task are no more numbers than chances and rewards of every slot."""
    return tasks.coefficient.shape[1] <= 2 * slots


def _features(
    edges: Numbers, tables: Tables, outcomes: Numbers, wide: bool, arrays: ModuleType
) -> Float[Numbers, "F m"]:
    """What beliefs are contracted with for any task: chances and rewards (and sizes) of slots."""
    stop = arrays.asarray(tables.stop)[edges]
    reward = arrays.asarray(tables.reward)[arrays.asarray(outcomes)[edges]]
    rows = [stop, stop * reward] + ([stop * abs(reward)] if wide else [])
    return arrays.concatenate([x.reshape(-1, stop.shape[2]) for x in rows])


def _continue(
    child: Numbers,
    ratio: Numbers | None,
    following: Numbers,
    kernel: Numbers | None,
    arrays: ModuleType,
    start: Numbers | None = None,
):
    """Expected value of what follows each control, (A, C, R, Q); `start`: what it is added to."""
    shape = (child.shape[1], child.shape[0], *following.shape[1:])
    total: Any = arrays.zeros(shape, following.dtype) if start is None else start
    if child.shape[2] == 0:
        return total
    step = arrays.maximum(arrays.transpose(arrays.asarray(child), (2, 1, 0)), 0)
    share = None
    if ratio is not None:
        each = arrays.asarray(ratio, total.dtype)
        each = each[..., None] if each.ndim == 3 else each
        share = arrays.transpose(each, (2, 1, 0, 3))[..., None]

    def add(total: Numbers, at: tuple[Numbers, Numbers | None]):
        index, share = at
        later = following[index]
        return total + (later if share is None else share * later), None

    if arrays is np:
        total = added_on_host(following, step, share, total)
    else:
        total, _ = jax.lax.scan(add, total, (step, share), unroll=_UNROLLED)
    if kernel is None:
        return total
    law = arrays.asarray(kernel)
    split = total.reshape(*total.shape[:3], -1, law.shape[1])
    return arrays.einsum("acrxw,avw->acrxv", split, law).reshape(total.shape)
