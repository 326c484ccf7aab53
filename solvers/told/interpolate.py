"""Upper bounds between visited beliefs, and lower bounds from plans, at a batch of beliefs.

W is convex and positively homogeneous in the belief, hence subadditive. Let V_i >= W(b_i) be
known at visited beliefs b_i, let U >= W be linear (a platform told the parameter), and let no
plan earn less than L(omega) given omega. Then, for *any* weights w >= 0,

    W(b) <= sum_i w_i V_i + <U, (b - sum_i w_i b_i)^+> - <L, (sum_i w_i b_i - b)^+>:

split b into what the visited beliefs cover and the rest, which is worth at most U; what they
cover too much cannot have cost more than -L. One b_i with the largest w_i that covers nothing too
much is the sawtooth of SARSOP. Many are much closer: weights are fitted to the nearest visited
beliefs by non-negative least squares, shrunk a little, and the smallest of all these bounds is
taken. The nearest are found by one matrix product, of square roots (Hellinger's affinity).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from solvers.problem import Numbers
from solvers.programs import as_program

NEAR = 16
_GROUP, _ROWS = 32, 64  # beliefs of which the nearest is found first; queries at once
_SWEEPS = 12
_SHRINK = (1.0, 0.99, 0.97, 0.9, 0.75)
_EXACT = jax.lax.Precision.HIGHEST


def upper_between(
    query: Float[Numbers, "N m"],
    belief: Float[Numbers, "K m"],
    value: Float[Numbers, "K U"],
    told: Float[Numbers, "U m"],
    least: Float[Numbers, "U m"],
) -> Float[Array, "N U"]:
    """Bound W from above at unnormalised beliefs, for every task.

    **Arguments:** `query`; `belief`: visited, summing to 1, or rows of zeros, K >= `NEAR`;
    `value`: upper bounds there; `told`, `least`: U and L above.
    """
    _, near, worth = _nearest(query, belief, value)
    return _between(query, near, worth, told, least)


def weights_between(
    query: Float[Numbers, "N m"],
    belief: Float[Numbers, "K m"],
    value: Float[Numbers, "K U"],
    told: Float[Numbers, "U m"],
    least: Float[Numbers, "U m"],
) -> tuple[Array, Array, Array, Array, Array]:
    """The same bounds (N, U), and what they are made of, while other bounds are not smaller.

    **Returns:** `upper_between`; which beliefs (N, k) with which weights w (N, k); and the factor f
    and the rest r (N, U) of each task, so that f sum_i w_i V_i + r is a bound whatever V is.
    """
    index, near, worth = _nearest(query, belief, value)
    bound, weight, factor, rest = _made_of(query, near, worth, told, least)
    return bound, index, weight, factor, rest


@as_program
def _nearest(
    query: Numbers, belief: Numbers, value: Numbers
) -> tuple[Int[Array, "N k"], Float[Array, "N k m"], Float[Array, "N k U"]]:
    """Which the nearest visited beliefs are, they, and the bounds there."""
    mass = query.sum(axis=1, keepdims=True)
    each = jnp.sqrt(query / jnp.where(mass > 0, mass, 1.0)).astype(jnp.float32)
    root = jnp.sqrt(jnp.asarray(belief)).astype(jnp.float32)
    groups = len(root) // _GROUP

    def of_one(row: Array) -> Array:
        affinity = jnp.matmul(root, row, precision=_EXACT)  # in double it would be sorted whole
        if len(root) % _GROUP or groups < 2 * NEAR:
            return jax.lax.top_k(affinity, NEAR)[1]
        group = affinity.reshape(groups, _GROUP)
        _, best = jax.lax.top_k(group.max(axis=1), NEAR)  # where all of the nearest are
        _, near = jax.lax.top_k(group[best].ravel(), NEAR)
        return best[near // _GROUP] * _GROUP + near % _GROUP

    near = jax.lax.map(of_one, each, batch_size=min(_ROWS, len(each)))
    return near, jnp.asarray(belief)[near], jnp.asarray(value)[near]


@as_program
def _between(
    query: Numbers, b: Array, v: Array, told: Numbers, least: Numbers
) -> Float[Array, "N U"]:
    return _mixed(query, b, v, told, least)[0]


@as_program
def _made_of(
    query: Numbers, b: Array, v: Array, told: Numbers, least: Numbers
) -> tuple[Array, Array, Array, Array]:
    bound, weight, worth, shrunk = _mixed(query, b, v, told, least)
    factor = jnp.array(_SHRINK, worth.dtype)[:, None, None]
    best, mass = shrunk.argmin(axis=0)[None], query.sum(axis=1, keepdims=True)
    rest = jnp.take_along_axis(shrunk - factor * worth, best, axis=0)[0]
    return bound, weight, mass * factor[best[0], 0, 0], mass * rest


def _mixed(
    query: Numbers, b: Array, v: Array, told: Numbers, least: Numbers
) -> tuple[Float[Array, "N U"], Float[Array, "N k"], Float[Array, "N U"], Float[Array, "s N U"]]:
    """The smallest bound; weights, what they are worth, and bounds if shrunk, per unit of mass."""
    mass = query.sum(axis=1, keepdims=True)
    q = query / jnp.where(mass > 0, mass, 1.0)
    base = jnp.matmul(q, told.T, precision=_EXACT)
    share = jnp.min(jnp.where(b > 0, q[:, None] / jnp.where(b > 0, b, 1.0), jnp.inf), axis=2)
    share = jnp.where(jnp.isfinite(share), share, 0.0)[:, :, None]
    saved = v - jnp.einsum("nkm,um->nku", b, told, precision=_EXACT)
    best = jnp.minimum(base, (base[:, None] + share * saved).min(axis=1))
    weight = jax.lax.optimization_barrier(_fit(q, b))
    whole = jnp.einsum("nk,nkm->nm", weight, b, precision=_EXACT)
    worth = jnp.einsum("nk,nku->nu", weight, v, precision=_EXACT)
    whole, worth = jax.lax.optimization_barrier((whole, worth))
    factor = jnp.array(_SHRINK, q.dtype)[:, None, None]
    rest = (q - factor * whole).reshape(-1, q.shape[1])
    more = jnp.matmul(jnp.maximum(rest, 0.0), told.T, precision=_EXACT)
    less = jnp.matmul(jnp.maximum(-rest, 0.0), least.T, precision=_EXACT)
    shrunk = factor * worth + (more - less).reshape(len(_SHRINK), *worth.shape)
    return jnp.minimum(best, shrunk.min(axis=0)) * mass, weight, worth, shrunk


def _fit(query: Float[Numbers, "N m"], belief: Float[Array, "N k m"]) -> Float[Array, "N k"]:
    """Non-negative least squares of each query on its beliefs, by coordinate descent."""
    scaled = belief / (query + 1e-6)[:, None]
    gram = jnp.einsum("nkm,nlm->nkl", scaled, belief, precision=_EXACT)
    wanted = jnp.einsum("nkm,nm->kn", scaled, query, precision=_EXACT)
    gram = jax.lax.optimization_barrier(jnp.transpose(gram, (1, 2, 0)))  # queries side by side
    size = jnp.maximum(jnp.diagonal(gram).T, jnp.finfo(gram.dtype).tiny)

    def step(count: Array, weight: Array):
        i = count % NEAR
        gap = wanted[i] - (gram[i] * weight).sum(axis=0)
        return weight.at[i].set(jnp.maximum(0.0, weight[i] + gap / size[i]))

    return jax.lax.fori_loop(0, _SWEEPS * NEAR, step, jnp.zeros_like(wanted)).T


@as_program
def best_plan(
    query: Float[Numbers, "N m"], alpha: Float[Numbers, "P U m"], rank: Int[Numbers, "P U"]
) -> tuple[Float[Array, "N U"], Int[Array, "N U"]]:
    """The best alpha-vector of every task at unnormalised beliefs: its value and rank.

    Of those of one value it is the one of the lowest rank.
    """
    query, alpha, rank = jnp.asarray(query), jnp.asarray(alpha), jnp.asarray(rank)
    plans, tasks, points = alpha.shape
    total = jnp.matmul(query, alpha.reshape(-1, points).T, precision=_EXACT)
    total = total.reshape(-1, plans, tasks)
    best = total.max(axis=1)
    last = jnp.iinfo(rank.dtype).max
    first = jnp.where(total == best[:, None], rank, last).min(axis=1)  # a quarter of argmax
    return best, first
