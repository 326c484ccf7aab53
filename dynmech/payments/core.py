"""The core transfer of one realised period, whatever policy is in use."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from dynmech._checks import matched
from dynmech._types import Numbers, precision
from dynmech.errors import (
    InvalidArgument,
    NotFinite,
    OutsideSupport,
    describe,
    is_number,
    shown,
)
from dynmech.market.environment import RecommendationMDP
from solvers import unshared


def core_payment(
    env: RecommendationMDP, theta: Numbers, action: Numbers | int, estimate: Numbers | float
) -> Float[Numbers, " n"]:
    """Charge each advertiser the core transfer; see `DynamicTeamMechanism.payment`."""
    theta = matched("payment(theta=...)", theta, products=env.names)
    estimate = matched("payment(estimate=...)", estimate, columns=env.tastes.characteristics)
    env, theta, action, estimate = unshared((env, theta, action, estimate))
    if any(isinstance(given, jax.Array) for given in (theta, action, estimate)):
        return _payment(env, theta, action, estimate)
    with precision(env.gamma):
        return np.asarray(_payment(env, theta, action, estimate))


def _payment(env, theta, action, estimate) -> Float[Array, " _n"]:
    gamma = env.gamma
    n, k = gamma.shape
    theta, estimate = jnp.asarray(theta), jnp.asarray(estimate)
    if theta.shape != (n,):
        must = f"have shape ({n},)"
        raise InvalidArgument(describe("payment(theta=...)", must, theta.shape))
    if estimate.shape not in ((), (k,)):
        must = f"be a number or have shape ({k},)"
        raise InvalidArgument(describe("payment(estimate=...)", must, estimate.shape))
    _check_realised(theta, action, estimate, n)
    bought = jnp.arange(n) == jnp.asarray(action)
    utility = jnp.asarray(gamma) @ estimate if estimate.ndim else jnp.full(n, estimate)
    surplus = jnp.where(bought, theta + utility, 0.0).sum()
    return jnp.where(bought, theta, 0.0) - surplus


def _check_realised(theta, action, estimate, n: int) -> None:
    if not isinstance(action, Tracer) and not (is_number(action, "iu") and 0 <= action < n + 2):
        must = f"be a code in 0..{n + 1}"
        raise OutsideSupport(describe("payment(action=...)", must, shown(action)))
    for name, value in (("theta", theta), ("estimate", estimate)):
        if not isinstance(value, Tracer) and not np.isfinite(np.asarray(value)).all():
            raise NotFinite(describe(f"payment({name}=...)", "be finite", value))
