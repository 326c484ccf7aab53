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
from solvers.programs import unshared


def core_payment(
    env: RecommendationMDP,
    theta: Numbers,
    action: Numbers | int,
    estimate: Numbers | float | None,
    control: int | None,
) -> Float[Numbers, " n"]:
    """Charge each advertiser the core transfer; see `DynamicTeamMechanism.payment`."""
    theta = matched("payment(theta=...)", theta, products=env.names)
    if not isinstance(action, Tracer) and not (
        is_number(action, "iu") and 0 <= action < env.products + 2
    ):
        must = f"be a code in 0..{env.products + 1}"
        raise OutsideSupport(describe("payment(action=...)", must, shown(action)))
    cost = _charged(env, action, control)
    if estimate is None:
        estimate = _needless(env, action, cost)
    estimate = matched("payment(estimate=...)", estimate, columns=env.tastes.characteristics)
    env, theta, action, estimate = unshared((env, theta, action, estimate))
    if any(isinstance(given, jax.Array) for given in (theta, action, estimate)):
        return _payment(env, theta, action, estimate, cost)
    with precision(env.gamma):
        return np.asarray(_payment(env, theta, action, estimate, cost))


def query_cost(env: RecommendationMDP, control: int) -> float | None:
    """What a query after a control costs where that is known, None where it depends on taste."""
    row = env.costs[control]
    return float(row[0]) if (row == row[0]).all() else None


def _charged(env: RecommendationMDP, action: Numbers | int, control: int | None) -> float | None:
    """What a query costs: 0 where this is none, None where it has to be estimated."""
    n = env.products
    if env.toll is None or (not isinstance(action, Tracer) and action != n + 1):
        return 0.0
    if control is not None:
        return query_cost(env, control)
    if (env.costs == env.costs[:1]).all():
        return query_cost(env, 0)
    must = "be given after a query: what it costs depends on what was shown"
    raise InvalidArgument(describe("payment(shown=...)", must, None, "pass what was displayed"))


def _needless(env: RecommendationMDP, action: Numbers | int, cost: float | None) -> float:
    """The estimate where none is needed."""
    must, do = "be given after a purchase", "pass the rating drawn, or its mean"
    if cost is None:
        must = "be given after a query whose cost depends on the taste"
        do = "pass an unbiased estimate of what it cost her"
    elif not isinstance(action, Tracer) and is_number(action, "iu") and action >= env.products:
        return 0.0
    raise InvalidArgument(describe("payment(estimate=...)", must, None, do))


def _payment(
    env: RecommendationMDP,
    theta: Numbers,
    action: Numbers | int,
    estimate: Numbers,
    cost: float | None,
) -> Float[Array, " _n"]:
    gamma = env.gamma
    n, k = gamma.shape
    theta, estimate = jnp.asarray(theta), jnp.asarray(estimate)
    if theta.shape != (n,):
        must = f"have shape ({n},)"
        raise InvalidArgument(describe("payment(theta=...)", must, theta.shape))
    if estimate.shape not in ((), (k,)) or (cost is None and estimate.ndim):
        must = f"be a number or have shape ({k},)" if cost is not None else "be a number"
        raise InvalidArgument(describe("payment(estimate=...)", must, estimate.shape))
    _check_realised(theta, estimate)
    bought = jnp.arange(n) == jnp.asarray(action)
    if estimate.ndim:
        utility = jnp.asarray(gamma) @ estimate - _leaving(env)
    else:
        utility = jnp.full(n, estimate)
    surplus = jnp.where(bought, theta + utility, 0.0).sum()
    spent = jnp.where(jnp.asarray(action) == n + 1, estimate if cost is None else cost, 0.0)
    return jnp.where(bought, theta, 0.0) - surplus + spent


def _leaving(env: RecommendationMDP) -> float:
    """What leaving is worth, where an estimated taste is enough to know it."""
    x = np.asarray(env.exit_value)
    if (x != x.flat[0]).any():
        must = "be a number, an estimate of u_j - x: what leaving is worth depends on the taste"
        raise InvalidArgument(describe("payment(estimate=...)", must, "a taste"))
    return float(x.flat[0])


def _check_realised(theta: Numbers, estimate: Numbers) -> None:
    for name, value in (("theta", theta), ("estimate", estimate)):
        if not isinstance(value, Tracer) and not np.isfinite(np.asarray(value)).all():
            raise NotFinite(describe(f"payment({name}=...)", "be finite", value))
