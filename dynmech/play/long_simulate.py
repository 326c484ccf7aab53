"""Conversations under a long-horizon policy, drawn taste by taste, with every transfer.

Advertisers report the truth, or follow strategies; the policy only ever sees reports, the user
only ever acts on her taste.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dynmech._checks import generator
from dynmech._types import NONE, join_symbols, split_symbol
from dynmech.market.profiles import signal_likelihood
from dynmech.market.signals import AbstractSettlementSignal
from dynmech.play.long_play import wide_chunk
from dynmech.play.simulate import (
    Simulation,
    Strategy,
    ask_reports,
    blank_record,
    draw,
    record_purchases,
)
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import in_float64, make_case
from solvers import decide

_MOST_CELLS = 4_000_000

if TYPE_CHECKING:
    from dynmech.policy.long_horizon import LongPolicy


def simulate_long(
    policy: LongPolicy,
    key: jax.Array,
    profile: np.ndarray,
    signal: AbstractSettlementSignal | None = None,
    lies: Mapping[int, Strategy] | None = None,
) -> tuple[Simulation, np.ndarray]:
    """Draw one conversation for each entry of `profile`; no Groves term is charged.

    **Returns:** records, and the initial reports (N, 2n): value indices, then own symbols.
    """
    rng = generator("simulate(key=...)", key)
    signal = policy.env.signals.settlement if signal is None else signal
    with jax.enable_x64(True):
        return _Drawn(policy, signal, dict(lies or {}), rng).conversations(profile)


class _Drawn:
    """One simulation; call it with float64 enabled."""

    def __init__(self, policy: LongPolicy, signal, lies: dict[int, Strategy], rng):
        self.policy, self.signal, self.lies, self.rng = policy, signal, lies, rng
        self.env, self.process = policy.env, policy.process
        self.network, self.ceilings = in_float64(policy.network), {}
        self.chunk = wide_chunk(self.env, self.process, policy.chunk)
        for theta, ceiling in zip(policy.profiles.theta, policy.ceilings, strict=True):
            self.ceilings[theta.tobytes()] = ceiling

    def conversations(self, profile: np.ndarray) -> tuple[Simulation, np.ndarray]:
        env, process, n = self.env, self.process, self.env.products
        count, horizon = len(profile), process.horizon
        truth = self.policy.profiles.theta[profile]
        seen = self.policy.profiles.signals[profile]
        omega = draw(self.rng, self.policy.root[profile])
        told, said = ask_reports(env, self.lies, 0, truth, seen[:, 1:])
        initial = np.concatenate([told, said], axis=1)
        belief = self._belief(np.concatenate([seen[:, :1], said], axis=1))
        memory = np.tile(np.asarray(process.start()), (count, 1))
        record = blank_record(profile, omega, np.zeros((count, n)), horizon)
        alive = np.arange(count)
        for t in range(horizon):
            control = self._choose(told[alive], belief, memory, t)
            after, mean, ends, going, law = self._situations(memory, control, omega[alive], t)
            leave = np.clip(1 - ends.sum(axis=1, keepdims=True), 0.0, 1.0)
            action = draw(self.rng, np.concatenate([ends[:, :n], leave, ends[:, n:]], axis=1))
            record["recommendation"][alive, t] = np.where(control == n, NONE, control)
            record["action"][alive, t] = action
            bought = np.flatnonzero(action < n)
            who, product = alive[bought], action[bought]
            given = mean[bought, product]
            record_purchases(record, env, self.signal, self.rng, who, product, given, truth, told)
            again = action == n + 1
            if t == horizon - 1 or not again.any():
                break
            law, going, memory = law[again], going[again], after[again]
            belief, alive = belief[again], alive[again]
            joint = draw(self.rng, law[np.arange(len(alive)), omega[alive]])
            record["symbol"][alive, t] = joint
            symbols = split_symbol(joint, env.feedback_alphabet)
            told[alive], said = ask_reports(env, self.lies, t + 1, truth[alive], symbols[1:].T)
            heard = join_symbols(np.concatenate([symbols[:1], said.T]), env.feedback_alphabet)
            belief = _unit(belief * going * law[np.arange(len(alive)), :, heard])
        at_mean = self.signal.noise(np.asarray(env.utilities, float)) is None
        return Simulation(names=env.names, settled_at_mean=at_mean, **record), initial

    def _situations(self, memory, control, omega, t: int) -> list[np.ndarray]:
        """Next memories, and given omega: estimate means and chances; laws given every taste."""
        parts, step = [], _MOST_CELLS // self.env.tastes.size
        for low in range(0, len(control), step):
            part = slice(low, low + step)
            size = len(control[part])
            pad = np.minimum(np.arange(_padded(size)), size - 1)
            found = _laws_met(
                self.process, self.signal, memory[part][pad], control[part][pad],
                omega[part][pad], jnp.asarray(t), np.asarray(self.env.utilities, float),
            )  # fmt: skip
            parts.append([np.asarray(x)[:size] for x in found])
        return [np.concatenate(x) for x in zip(*parts, strict=True)]

    def _belief(self, signals: np.ndarray) -> np.ndarray:
        """Belief of mass 1 after symbols (N, 1+n), zero where they are impossible."""
        unique, index = np.unique(signals, axis=0, return_inverse=True)
        likelihood = np.asarray(signal_likelihood(self.env, unique), float)
        return _unit(np.asarray(self.env.tastes.weights, float) * likelihood)[index.reshape(-1)]

    def _choose(self, told, belief, memory, t: int) -> np.ndarray:
        """The policy's recommendation for what it is told; none where it thinks that impossible."""
        n, support = self.env.products, np.asarray(self.env.values.support, float)
        control = np.full(len(told), n)
        unique, index = np.unique(told, axis=0, return_inverse=True)
        for k, theta in enumerate(unique):
            rows = np.flatnonzero((index.reshape(-1) == k) & belief.any(axis=1))
            if not len(rows):
                continue
            case = make_case(support[np.arange(n), theta])
            key = theta.tobytes()
            if key not in self.ceilings:
                (self.ceilings[key],) = make_ceilings(self.env, self.process, [case])
            pad = np.minimum(np.arange(max(_padded(len(rows)), 8)), len(rows) - 1)
            found = decide(
                self.process, case, self.ceilings[key], self.network, belief[rows[pad]],
                memory[rows[pad]], t, self.chunk,
            )  # fmt: skip
            control[rows] = found[: len(rows)]
        return control


@eqx.filter_jit
def _laws_met(process, signal, memory, control, omega, period, utilities):
    """See `_Drawn._situations`."""

    def one(memory, control, omega):
        after = process.step(memory, control)
        ends = process.ends(after, control)
        mean = signal.mean(after, control, jnp.asarray(utilities))
        law = process.symbols(after, control, period)
        return after, mean[:, omega], ends[:, omega], ends[-1], law

    return jax.vmap(one)(jnp.asarray(memory), jnp.asarray(control), jnp.asarray(omega))


def _padded(size: int) -> int:
    """The next power of two, so that few shapes are compiled."""
    return 1 << max(size - 1, 0).bit_length()


def _unit(beliefs: np.ndarray) -> np.ndarray:
    mass = beliefs.sum(axis=1, keepdims=True)
    return beliefs / np.where(mass > 0, mass, 1.0)
