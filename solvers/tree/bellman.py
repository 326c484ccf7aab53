"""One Bellman step for a block of nodes of one memory class."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.problem import Numbers, Tables, Tasks
from solvers.programs import as_program
from solvers.ties import take

_CACHED = 2.5e6, 4e5  # bytes of beliefs, and of values, worked on at once inside a step

_UNROLLED = 8  # symbols whose values are added up without a loop


class Later(eqx.Module):
    """Values of the round that follows, (N, R, Q); None where they are not carried.

    `value`: where it is not `best`; `amount`: where a term may be negative.
    """

    best: Numbers
    value: Numbers | None
    amount: Numbers | None
    upper: Numbers | None


class Found(eqx.Module):
    """What a step finds at its nodes; as in `Swept`, None where it is not carried."""

    best: Numbers
    value: Numbers
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
    bound: Float[Array, "A _R _Q m"] | None,
    column: Float[Numbers, "C1 m"],
    tables: Tables,
    outcomes: Int[Numbers, "E J"],
    tasks: Tasks,
    shares: Float[Numbers, " three"],
    size: Int[Numbers, ""] | None = None,
) -> Found:
    """One Bellman step for a block of nodes of one memory class: values and controls (C, R, Q).

    `shares`: of amounts, what values, a round's yields, and sums of what follows can be off by.
    Nodes are worked on in chunks that stay in the cache, up to the first `size` nodes (all by
    default).
    """
    nodes = parent, picked, child, followed, ratio
    chunk = chunk_size(len(parent), previous.shape[1], len(edges), outcomes.shape[1], tasks)
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


def chunk_size(nodes: int, points: int, controls: int, slots: int, tasks: Tasks) -> int:
    """How many of a block's nodes are worked on at once."""
    roots, variants = tasks.coefficient.shape[:2]
    widths = points, 2 * controls * (slots + variants) * roots
    most = min(np.divide(_CACHED, np.multiply(widths, tasks.root.dtype.itemsize)))
    while nodes % 2 == 0 and nodes > most:
        nodes //= 2
    return nodes


def _bellman(
    belief, features, edges, child, followed, ratio, following: Later, bound, outcomes, tasks,
    shares,
) -> Found:  # fmt: skip
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
    return Found(taken.best, taken.value, taken.choice, taken.amount, ill, upper, hopeful)


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
