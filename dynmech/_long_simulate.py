"""Conversations under a long-horizon policy, drawn taste by taste, with core transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dynmech._certify import in_float64, make_case
from dynmech._simulate import Simulation
from dynmech._types import NONE
from solvers import decide

if TYPE_CHECKING:
    from dynmech._long_horizon import LongPolicy


def simulate_long(
    policy: LongPolicy, key: jax.Array, conversations: int, profile: int
) -> Simulation:
    """See `LongPolicy.simulate`."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    env, process, n = policy.env, policy.process, policy.env.products
    count, horizon = conversations, process.horizon
    theta, utilities = policy.theta(profile), np.asarray(env.utilities)
    case, ceiling = make_case(theta), policy.ceilings[profile]
    root = policy.root[profile] / policy.root[profile].sum()
    omega = rng.choice(len(root), count, p=root)
    belief = np.tile(root, (count, 1))
    memory = np.tile(np.asarray(process.start()), (count, 1))
    record = {
        "profile": np.full(count, profile),
        "omega": omega,
        "recommendation": np.full((count, horizon), NONE),
        "action": np.full((count, horizon), -1),
        "symbol": np.full((count, horizon), -1),
        "estimate": np.full(count, np.nan),
        "core": np.zeros((count, n)),
        "groves": np.zeros((count, n)),
        "earned": np.zeros((count, n)),
        "user_utility": np.zeros(count),
    }
    alive = np.arange(count)
    signal = env.signals.settlement
    with jax.enable_x64(True):
        network = in_float64(policy.network)
        for t in range(horizon):
            control = decide(process, case, ceiling, network, belief, memory, t, policy.chunk)
            after, mean, ends, going, law = (
                np.asarray(x)
                for x in _situations(
                    process, signal, memory, control, omega[alive], jnp.asarray(t), utilities
                )
            )
            leave = np.clip(1 - ends.sum(axis=1, keepdims=True), 0.0, 1.0)
            action = _draw(rng, np.concatenate([ends[:, :n], leave, ends[:, n:]], axis=1))
            record["recommendation"][alive, t] = np.where(control == n, NONE, control)
            record["action"][alive, t] = action
            bought = np.flatnonzero(action < n)
            who, product = alive[bought], action[bought]
            given = mean[bought, product]
            estimate = signal.draw(rng, utilities, product, omega[who], given)
            record["estimate"][who] = estimate
            record["earned"][who, product] = theta[product]
            record["user_utility"][who] = utilities[product, omega[who]]
            core = np.repeat(-(theta[product] + estimate)[:, None], n, axis=1)
            core[np.arange(len(who)), product] = -estimate
            record["core"][who] = core
            again = action == n + 1
            if t == horizon - 1 or not again.any():
                break
            law, going, memory = law[again], going[again], after[again]
            belief, alive = belief[again], alive[again]
            symbol = _draw(rng, law[np.arange(len(alive)), omega[alive]])
            record["symbol"][alive, t] = symbol
            belief = belief * going * law[np.arange(len(alive)), :, symbol]
            belief /= belief.sum(axis=1, keepdims=True)
    at_mean = signal.noise(utilities) is None
    return Simulation(names=env.names, settled_at_mean=at_mean, **record)


@eqx.filter_jit
def _situations(process, signal, memory, control, omega, period, utilities):
    """Next memories, and given omega: estimate means and chances; and laws given every taste."""

    def one(memory, control, omega):
        after = process.step(memory, control)
        ends = process.ends(after, control)
        mean = signal.mean(after, control, jnp.asarray(utilities))
        law = process.symbols(after, control, period)
        return after, mean[:, omega], ends[:, omega], ends[-1], law

    return jax.vmap(one)(jnp.asarray(memory), jnp.asarray(control), jnp.asarray(omega))


def _draw(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """Draw an index along the last axis with the given unnormalised weights."""
    ladder = np.cumsum(weights, axis=-1)
    point = rng.random(ladder.shape[:-1])[..., None] * ladder[..., -1:]
    return (ladder <= point).sum(axis=-1).clip(max=weights.shape[-1] - 1)
