"""The same tree with other numbers: a pure function for grad, jit and vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree, Shaped

from dynmech._checks import finite
from dynmech._devices import Work, read_mesh
from dynmech._types import Numbers, Record, precision
from dynmech.errors import InvalidArgument, describe
from dynmech.market.values import MarkovValues
from dynmech.problem.compile import compile_market, tables
from dynmech.problem.tasks import assign, make_pairs
from solvers import Structure, Tables, Tasks
from solvers.devices import at_hand
from solvers.programs import unshared, whole_products
from solvers.tree.backward import backward
from solvers.tree.bellman import roots_at_once
from solvers.tree.tree import Tree, build_tree

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced


_TOGETHER = 256  # tasks of one root that are solved side by side
_FEATURES = 4e6  # bytes of what beliefs are contracted with: of more roots, products are slow
_BLOCK = 32768  # nodes handed over at once; a step splits them itself


class Revaluation(Record):
    """Values of a re-optimised policy; shapes as in `EfficientPolicy`. Stands for `.value`.

    JAX arrays where some argument was one, in their precision; else NumPy's, in the market's.
    Many supports at once: axes before P, and between n and P of the marginal economies.
    """

    value: Float[Numbers, "..."]
    marginal_value: Float[Numbers, "n ..."] | None
    displayable_marginal_value: Float[Numbers, "n ..."] | None

    def __jax_array__(self) -> Array:
        return jnp.asarray(self.value)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value, dtype)

    def __getitem__(self, index: Any) -> Numbers:
        return self.value[index]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def sum(self) -> Numbers:
        """Sum of W over the profiles."""
        return self.value.sum()

    def mean(self) -> Numbers:
        """Mean of W over the profiles."""
        mean = self.value.mean()
        return mean if isinstance(mean, jax.Array) else np.asarray(mean)


def revalue(
    policy: AbstractPriced,
    theta_support: Numbers | None,
    gamma: Numbers | None,
    prior: Numbers | None,
    marginals: bool,
    mesh: jax.sharding.Mesh | None,
) -> Revaluation:
    """See `EfficientPolicy.revalue`."""
    policy = unshared(policy)  # met as constants, whatever the caller traces
    env = policy.env
    shapes = {
        "theta_support": (theta_support, env.values.support.shape, "(n, K)"),
        "gamma": (gamma, env.gamma.shape, "(n, k)"),
        "prior": (prior, env.tastes.weights.shape, "(m,)"),
    }
    given = []
    for name, (value, shape, letters) in shapes.items():
        if value is None:
            given.append(None)
            continue
        value = finite(f"revalue({name}=...)", value)
        many = name == "theta_support" and np.ndim(value) > 2
        if np.shape(value)[-2 if many else 0 :] != shape:
            must = f"have shape {letters} = {shape}"
            raise InvalidArgument(describe(f"revalue({name}=...)", must, np.shape(value)))
        given.append(value)
    if mesh is not None:
        if any(isinstance(leaf, Tracer) for leaf in given):
            must, do = "be None where the caller is traced", "spread what is called from outside"
            raise InvalidArgument(describe("revalue(mesh=...)", must, mesh, do))
        count = 1 if given[0] is None else int(np.prod(np.shape(given[0])[:-2]))
        read_mesh("revalue", mesh, env, count, "supports of values")
    # Numbers of JAX bring their own precision; all others are computed in that of the market.
    if any(isinstance(value, jax.Array) for value in given):
        with whole_products():
            return _revalue(policy, given[0], given[1], given[2], marginals, mesh)
    with precision(env.gamma):
        found = _revalue(policy, given[0], given[1], given[2], marginals, mesh)
        return jax.tree.map(np.asarray, found)


def _revalue(
    policy: AbstractPriced,
    theta_support: Numbers | None,
    gamma: Numbers | None,
    prior: Numbers | None,
    marginals: bool,
    mesh: jax.sharding.Mesh | None,
) -> Revaluation:
    env = policy.env
    markov = isinstance(env.values, MarkovValues)
    every = make_pairs(env, policy.profiles)
    pairs = every if marginals else every.alone(markov)
    whole = policy.evaluator.whole
    if gamma is None and whole is not None:
        compiled, tree = whole
    else:
        # The tree is host-side integers, also when the caller traces: nothing of it is traced.
        compiled = compile_market(env, exact=gamma is None)
        tree = build_tree(compiled.structure)
    utilities = jnp.asarray(env.utilities)
    if gamma is not None:
        utilities = jnp.asarray(gamma) @ jnp.asarray(env.tastes.points).T
    weights = env.tastes.weights if prior is None else prior
    root = jnp.asarray(weights) * env.signals.initial.likelihood(utilities, pairs.signals)
    given = jnp.asarray(env.values.support if theta_support is None else theta_support)
    index = np.arange(env.values.support.size).reshape(env.values.support.shape)
    assignment = assign(env, pairs, root, index, nothing=index.size)
    numbers = tables(env, compiled, gamma)
    lead, each = given.shape[:-2], given.reshape(-1, env.values.support.size)
    each = jnp.concatenate([each, jnp.zeros_like(each[:, :1])], axis=1)

    def solve(part: Array):
        found = [_together(tree, numbers, group, part) for group in assignment.groups]
        return jnp.concatenate(found, axis=1)

    width = max(g.coefficient.shape[1] for g in assignment.groups)
    size = max(1, _TOGETHER // width)
    if mesh is None:
        values = _in_parts(solve, each, size)
    else:
        parts = np.array_split(np.asarray(each), mesh.size)

        def rows(part: np.ndarray) -> np.ndarray:
            return np.asarray(_in_parts(solve, jnp.asarray(part), size))

        values = jnp.concatenate(Work("revalue", mesh).each(rows, parts))
    mass = root.sum(axis=1)
    shape = policy.value.shape

    def conditional(index: np.ndarray, root_index: np.ndarray):
        total = mass[root_index]
        found = values[:, index] / jnp.where(total > 0, total, 1)
        return jnp.where(total > 0, found, jnp.nan)

    base = pairs.root[pairs.base]
    value = conditional(assignment.pair[pairs.base], base).reshape(*lead, *shape)
    if not marginals:
        return Revaluation(value, None, None)
    n = env.products
    here = policy.profiles.signals[:, 1:][:, :, None]
    marginal = []
    for table in (assignment.marginal, assignment.displayable):
        at = np.take_along_axis(table, here, axis=2)[:, :, 0]
        found = jnp.swapaxes(conditional(at, base[:, None]), 1, 2)
        marginal.append(jnp.moveaxis(found.reshape(*lead, n, *shape), len(lead), 0))
    return Revaluation(value, *marginal)


def _together(tree: Tree, numbers: Tables, group: Tasks, support: Array) -> Float[Array, "B RQ"]:
    """Solve a group at every row of `support` (B, n * K + 1), the last of tolls, 0: tasks of one
    root, side by side."""
    count = len(support)
    coefficient = support[:, group.coefficient.astype(int)] * group.counted
    coefficient = jnp.moveaxis(coefficient, 0, 1).reshape(len(group.root), -1, coefficient.shape[3])
    repeated = [jnp.tile(jnp.asarray(x), (1, count, 1)) for x in (group.counted, group.allowed)]

    def of_roots(part: tuple[Array, ...]):
        tasks = eqx.tree_at(lambda g: (g.root, g.coefficient, g.counted, g.allowed), group, part)
        return backward(tree, numbers, tasks, block=_BLOCK)[0]

    rows = group.root, coefficient, *repeated
    value = _in_parts(of_roots, rows, _roots_near(tree.structure, group.root, coefficient))
    return jnp.moveaxis(value.reshape(len(group.root), count, -1), 1, 0).reshape(count, -1)


def _roots_near(structure: Structure, root: Numbers, coefficient: Numbers) -> int:
    """How many roots are solved together: those whose features stay near, and their values."""
    slots, variants = structure.outcome.shape[1], coefficient.shape[1]
    features = structure.controls * min(variants, 2 * slots) + 1
    near = at_hand(_FEATURES) // (features * root.shape[1] * root.dtype.itemsize)
    return max(1, int(min(near, roots_at_once(structure.controls, slots, variants, root.dtype))))


def _in_parts(
    solve: Callable[[Any], Float[Array, "B _V"]], each: PyTree[Shaped[Array, "B ..."]], size: int
) -> Float[Array, "B _V"]:
    """Apply `solve` to a few rows at a time, so that what a step works on stays in the cache."""
    leaves = jax.tree.leaves(each)
    count = len(leaves[0])
    if count <= size:
        return solve(each)
    parts = -(-count // size)
    size = -(-count // parts)
    index = np.minimum(np.arange(parts * size), count - 1).reshape(parts, size)

    def one(rows: Int[Numbers, " size"]):
        return solve(jax.tree.map(lambda x: jnp.asarray(x)[rows], each))

    if any(isinstance(x, Tracer) for x in leaves):
        found = jax.lax.map(one, index)
    else:  # programs are those of the step, compiled once for all parts
        found = jnp.stack([one(rows) for rows in index])
    return found.reshape(parts * size, -1)[:count]
