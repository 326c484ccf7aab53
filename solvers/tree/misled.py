"""Runs whose controls are chosen by someone who holds another belief, or another case.

What happens is drawn from the true belief p; controls are greedy for what is *told*: a belief q
and a case. Both beliefs are updated by what happens. With the critic V of the true case and Q_t as
in `solvers.neural.rollout`,

    G = Q_1(a_1, p_1) + sum_{t >= 2} 1{still going} (Q_t(a_t, p_t) - V_t(h_t, p_t))

has the expected yield under the true belief and case as its expectation, whatever chooses the
controls. Runs that share their noise differ only where their controls do, so that differences
between what is told are estimated well.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from solvers.neural.rollout import Play, _round
from solvers.neural.value_network import ValueNetwork
from solvers.process import AbstractCeiling, AbstractProcess, Case
from solvers.programs import as_program

Observer = Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Told(eqx.Module):
    """What controls are chosen for.

    `belief` (m,); `cases`, `ceilings`: of the rounds from the first on, the last one repeated.
    Where the told belief has no mass, nothing is done.
    """

    belief: Float[np.ndarray, " m"]
    cases: tuple[Case, ...]
    ceilings: tuple[AbstractCeiling, ...]


class Followed(eqx.Module):
    """Runs: `gain` (N,), each unbiased for the expected yield; `seen` (N, F): what was observed.

    `first`: the control of the first round; `going`: the chance to go beyond it.
    """

    gain: Float[np.ndarray, " N"]
    seen: Float[np.ndarray, "N F"]
    first: int = eqx.field(static=True)
    going: float = eqx.field(static=True)


def follow(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    critic: ValueNetwork | None,
    belief: Float[np.ndarray, " m"],
    noise: Float[np.ndarray, "T N 4"],
    told: Told | None = None,
    observe: Observer | None = None,
    features: int = 0,
    chunk: int = 16,
) -> Followed:
    """Draw runs from one belief; call it with float64 enabled.

    **Arguments**

    - `case`, `ceiling`, `critic`: by which yields are counted; they set no control.
    - `noise`: uniform on [0, 1), for each round and run; the same for runs to be compared.
    - `told`: what controls are chosen for; None: the true belief and case.
    - `observe` (round from 0, memories (C, d), controls (C,), true beliefs (C, m), told ones) ->
      (C, `features`): expected amounts of the round, added up over a run.
    """
    runs = noise.shape[1]
    belief = np.asarray(belief, float) / np.sum(belief)
    true = np.tile(belief, (runs, 1))
    held = true if told is None else np.tile(np.asarray(told.belief, float), (runs, 1))
    memories = np.tile(np.asarray(process.start()), (runs, 1))
    gain, subtract, seen = np.zeros(runs), np.zeros(runs), np.zeros((runs, features))
    alive, first, going = np.arange(runs), 0, 0.0
    for t in range(process.horizon):
        order = np.lexsort(memories.T[::-1])
        true, held, memories, alive = true[order], held[order], memories[order], alive[order]
        forced = None if told is None else _choose(process, told, critic, held, memories, t, chunk)
        step = _round(
            process, case, ceiling, critic, true, memories, noise[t, alive], t, Play.GREEDY,
            chunk, 0.0, forced,
        )  # fmt: skip
        control = np.asarray(step.control)
        if t == 0:
            first, going = int(control[0]), float(step.going[0])
        gain[alive] += np.asarray(step.backup, float)[np.arange(len(alive)), control]
        gain[alive] -= subtract[alive]
        if observe is not None:
            seen[alive] += observe(t, memories, control, true, held)
        if t == process.horizon - 1:
            break
        on = noise[t, alive, 1] < step.going
        if not on.any():
            break
        if told is None:
            held = true = step.belief[on]
        else:
            count = int(on.sum())
            pad = np.flatnonzero(on)[np.minimum(np.arange(_padded(count)), count - 1)]
            here = (memories[pad], control[pad], step.symbol[pad], jnp.asarray(t))
            column = np.asarray(_columns(process, *here))[:count]
            held, true = _unit(held[on] * column), step.belief[on]
        alive, memories = alive[on], step.memory[on]
        subtract[alive] = step.value[on]
    return Followed(gain, seen, first, going)


def _choose(process, told: Told, critic, held, memories, t: int, chunk: int) -> np.ndarray:
    """Greedy controls for what is told; nothing where it is thought impossible."""
    which = min(t, len(told.cases) - 1)
    case, ceiling = told.cases[which], told.ceilings[which]
    control = np.full(len(held), process.controls - 1)
    live = held.any(axis=1)
    if live.any():
        noise = np.zeros((int(live.sum()), 4))
        here = (held[live], memories[live], noise, t, Play.GREEDY, chunk, 0.0)
        control[live] = _round(process, case, ceiling, critic, *here).control
    return control


@as_program
def _columns(process, memories, control, symbol, period):
    """Likelihood of going on with the symbol that came, (C, m)."""

    def one(memory, control, symbol):
        after = process.step(memory, control)
        law = process.symbols(after, control, period)
        return process.ends(after, control)[-1] * law[:, symbol]

    return jax.vmap(one)(jnp.asarray(memories), jnp.asarray(control), jnp.asarray(symbol))


def _padded(size: int) -> int:
    """The next power of two, so that few shapes are compiled."""
    return 1 << max(size - 1, 0).bit_length()


def _unit(beliefs: np.ndarray) -> np.ndarray:
    mass = beliefs.sum(axis=1, keepdims=True)
    return beliefs / np.where(mass > 0, mass, 1.0)
