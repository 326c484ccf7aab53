"""A mixed logit by maximum likelihood, random coefficients integrated by Gauss and Hermite."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.optimize import minimize


@dataclass(frozen=True)
class Estimate:
    """Means (k,) and standard deviations of what is random, in `values`; log likelihood `value`.

    `law`: mean (k,) and covariance (k, k) as `TasteGrid.from_mixed_logit` takes them.
    """

    values: np.ndarray
    value: float
    random: tuple[int, ...]

    @property
    def law(self) -> tuple[np.ndarray, np.ndarray]:
        k = len(self.values) - len(self.random)
        variance = np.zeros(k)
        variance[list(self.random)] = self.values[k:] ** 2
        return self.values[:k], np.diag(variance)


def mixed_logit(
    traits: np.ndarray,
    choice: np.ndarray,
    kinds: Sequence[str],
    nodes: int = 9,
    signs: Sequence[int] | None = None,
) -> Estimate:
    """Estimate independent coefficients of a mixed logit, each choice by itself.

    **Arguments:** `traits` (N, J, k); `choice` (N,), 0..J-1; `kinds`, `signs` (k,): as in
    `TasteGrid.from_mixed_logit`; `nodes`: of the quadrature in each random coefficient.
    """
    k, turns = traits.shape[2], jnp.asarray(np.ones(traits.shape[2]) if signs is None else signs)
    random = tuple(i for i, kind in enumerate(kinds) if kind != "fixed")
    log = np.array([kind == "lognormal" for kind in kinds])
    points, masses = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.array(list(product(points, repeat=len(random)))).reshape(-1, len(random))
    mass = np.array([np.prod(x) for x in product(masses / masses.sum(), repeat=len(random))])
    x = jnp.asarray(traits - np.take_along_axis(traits, choice[:, None, None], axis=1))

    @jax.jit
    @jax.value_and_grad
    def loss(free: Array):
        z = jnp.tile(free[:k], (len(grid), 1)).at[:, list(random)].add(grid * free[k:])
        taste = jnp.where(log, turns * jnp.exp(jnp.where(log, z, 0.0)), z)
        chance = 1 / jnp.exp(x @ taste.T).sum(axis=1)
        return -jnp.log(chance @ mass).mean()

    start = np.concatenate([np.zeros(k), np.full(len(random), 0.5)])
    with jax.enable_x64(True):
        found = minimize(
            lambda at: tuple(map(np.asarray, loss(at))), start, jac=True, method="BFGS"
        )
    values = np.array(found.x)
    values[k:] = np.abs(values[k:])
    return Estimate(values, -float(found.fun) * len(choice), random)
