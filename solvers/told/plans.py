"""Lower bounds without sampling error: a fixed sequence of controls, whatever is observed.

What a sequence a_t, a_{t+1}, ..., a_T yields from memory h on is linear in the belief,

    v_t(h, omega) = pay(h, a_t, omega) + going(h, a_t, omega) v_{t+1}(h_a, omega),     v_{T+1} = 0,

and no symbol enters. From any memory its rest can be followed, so that L(h, b) = max <b, v_t(h)>
over a few sequences satisfies L(b) <= pay + sum_z L(b_z) for the first control of the best one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, Case
from solvers.programs import as_program

_SWEEPS = 2


class Planned(AbstractCeiling):
    """A ceiling with fixed sequences of controls beside it: `sequences` (K, T)."""

    ceiling: AbstractCeiling
    process: AbstractProcess
    case: Case
    sequences: Int[np.ndarray, "K T"]

    def value(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return self.ceiling.value(period, memories)

    def gained(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return self.ceiling.gained(period, memories)

    def plans(self, period: int, memories: Int[np.ndarray, "_U d"]):
        now = jnp.asarray(memories), self.sequences, jnp.asarray(period)
        found = _followed(self.process, self.case, *now)
        return np.asarray(found)


def with_plan(
    process: AbstractProcess, case: Case, ceiling: AbstractCeiling, belief: Float[np.ndarray, " m"]
) -> AbstractCeiling:
    """Add the best fixed sequence that is found from one belief on; call it with float64 enabled.

    Where laws depend on no memory the ceiling is returned as it is: every control that is kept to
    the end is a plan there, and `solvers.neural.rollout` knows their values.
    """
    if process.orderless:
        return ceiling
    sequence, _ = best_sequence(process, case, belief)
    return Planned(ceiling, process, case, sequence[None])


def best_sequence(
    process: AbstractProcess, case: Case, belief: Float[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " T"], float]:
    """Find a sequence of controls that no change of one control improves much, and its value.

    From the best single control, kept to the end, one round after the other is improved, twice.
    """
    start = jnp.asarray(process.start())
    sequence, value = _ascend(process, case, jnp.asarray(belief), start)
    return np.asarray(sequence), float(value)


@as_program
def _ascend(process: AbstractProcess, case: Case, belief: Array, memory: Array):
    controls, rounds = process.controls, process.horizon
    allowed = jnp.asarray(case.allowed)

    def worth(sequence: Array):
        rows = _one(process, case, memory, sequence, 0)
        return rows @ belief

    every = jnp.tile(jnp.arange(controls)[:, None], (1, rounds))

    def best(options: Array):
        values = jnp.where(allowed, jax.lax.map(worth, options), -jnp.inf)
        k = jnp.argmax(values)
        return options[k], values[k]

    start, value = best(every)

    def improve(step: Array, carry: tuple[Array, Array]):
        sequence, value = carry
        options = jnp.tile(sequence, (controls, 1)).at[:, step % rounds].set(jnp.arange(controls))
        other, higher = best(options)
        better = higher > value
        return jnp.where(better, other, sequence), jnp.where(better, higher, value)

    return jax.lax.fori_loop(0, _SWEEPS * rounds, improve, (start, value))


@as_program
def _followed(
    process: AbstractProcess, case: Case, memories: Numbers, sequences: Numbers, period: Numbers
):
    """(U, K, m): every sequence from `period` on, after each memory."""

    def of(memory: Numbers, sequence: Numbers):
        return _one(process, case, memory, sequence, period)

    each = jax.vmap(jax.vmap(of, in_axes=(None, 0)), in_axes=(0, None))
    return each(memories, jnp.asarray(sequences))


def _one(
    process: AbstractProcess, case: Case, memory: Numbers, sequence: Numbers, period: Numbers | int
):
    worth = case.worth(process.reward)

    def round_(t: Array, carry: tuple[Array, Array, Array]):
        memory, alive, total = carry
        after = process.step(memory, sequence[t])
        ends = process.ends(after, sequence[t])
        total = total + alive * (ends[:-1] * worth).sum(axis=0)
        return after, alive * ends[-1], total

    ones = jnp.ones(worth.shape[1], worth.dtype)
    carry = (jnp.asarray(memory), ones, 0 * ones)
    return jax.lax.fori_loop(period, process.horizon, round_, carry)[2]
