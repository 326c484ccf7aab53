"""The same tree with other numbers: a pure function for grad, jit and vmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynmech._compile import compile_market, tables
from dynmech._errors import InvalidArgument, describe
from dynmech._tasks import assign
from dynmech._types import Numbers, as_floats, precision
from dynmech._values import MarkovValues
from solvers import backward, build_tree

if TYPE_CHECKING:
    from dynmech._efficient import EfficientPolicy


class Revaluation(eqx.Module):
    """Values of a re-optimised policy; shapes as in `EfficientPolicy`. Stands for `.value`."""

    value: Float[Array, "..."]
    marginal_value: Float[Array, "n ..."] | None
    displayable_marginal_value: Float[Array, "n ..."] | None

    def __jax_array__(self) -> Array:
        return self.value

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.value, dtype)

    def __getitem__(self, index) -> Array:
        return self.value[index]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def sum(self) -> Array:
        """Sum of W over the profiles."""
        return self.value.sum()

    def mean(self) -> Array:
        """Mean of W over the profiles."""
        return self.value.mean()


def revalue(
    policy: EfficientPolicy,
    theta_support: Numbers | None,
    gamma: Numbers | None,
    prior: Numbers | None,
    marginals: bool,
) -> Revaluation:
    """See `EfficientPolicy.revalue`."""
    env = policy.env
    if policy.partial:
        must, do = "be solved exactly", "solve with Exact()"
        raise InvalidArgument(describe("EfficientPolicy.revalue()", must, policy.solver, do))
    shapes = {
        "theta_support": (theta_support, env.values.support.shape, "(n, K)"),
        "gamma": (gamma, env.gamma.shape, "(n, k)"),
        "prior": (prior, env.tastes.weights.shape, "(m,)"),
    }
    given = []
    for name, (value, shape, letters) in shapes.items():
        if value is not None and np.shape(value) != shape:
            must = f"have shape {letters} = {shape}"
            raise InvalidArgument(describe(f"revalue({name}=...)", must, np.shape(value)))
        given.append(value if value is None else as_floats(value, f"revalue({name}=...)"))
    # Numbers of JAX bring their own precision; all others are computed in that of the market.
    if any(isinstance(value, jax.Array) for value in given):
        return _revalue(policy, given[0], given[1], given[2], marginals)
    with precision(env.gamma):
        return _revalue(policy, given[0], given[1], given[2], marginals)


def _revalue(policy: EfficientPolicy, theta_support, gamma, prior, marginals) -> Revaluation:
    env = policy.env
    markov = isinstance(env.values, MarkovValues)
    pairs = policy.pairs if marginals else policy.pairs.alone(markov)
    if gamma is None:
        compiled, tree = policy.compiled, policy.plan.tree
        utilities = jnp.asarray(env.utilities)
    else:
        # The tree is host-side integers, also when the caller traces: nothing of it is traced.
        with jax.ensure_compile_time_eval():
            compiled = compile_market(env, exact=False)
        tree = build_tree(compiled.structure)
        utilities = jnp.asarray(gamma) @ jnp.asarray(env.tastes.points).T
    weights = env.tastes.weights if prior is None else prior
    root = jnp.asarray(weights) * env.signals.initial.likelihood(utilities, pairs.signals)
    support = env.values.support if theta_support is None else theta_support
    index = np.arange(env.values.support.size).reshape(env.values.support.shape)
    assignment = assign(env, pairs, root, index)
    numbers = tables(env, compiled, gamma)
    flat = []
    for group in assignment.groups:
        coefficient = jnp.asarray(support).ravel()[group.coefficient.astype(int)] * group.counted
        value, _ = backward(
            tree, numbers, eqx.tree_at(lambda g: g.coefficient, group, coefficient), block=4096
        )
        flat.append(value.ravel())
    values = jnp.concatenate(flat)
    mass = root.sum(axis=1)
    shape = policy.value.shape

    def conditional(index, root_index):
        total = mass[root_index]
        return jnp.where(total > 0, values[index] / jnp.where(total > 0, total, 1), jnp.nan)

    base = pairs.root[pairs.base]
    value = conditional(assignment.pair[pairs.base], base).reshape(shape)
    if not marginals:
        return Revaluation(value, None, None)
    n = env.products
    here = policy.profiles.signals[:, 1:][:, :, None]
    each = []
    for table in (assignment.marginal, assignment.displayable):
        at = np.take_along_axis(table, here, axis=2)[:, :, 0]
        each.append(conditional(at, base[:, None]).T.reshape(n, *shape))
    return Revaluation(value, *each)
