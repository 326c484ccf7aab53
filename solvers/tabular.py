"""Processes whose laws depend neither on the memory nor on the round: tables stand for rules.

There the order of what happened does not matter, and laws need not be computed twice.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, follow_each
from solvers.programs import as_program

_MOST_MEMORIES = 64  # beside one for every control
_MOST_ENTRIES = 2**25
_MANY = 2**24  # entries of laws of all memories: where more, what follows is looked at before


class Tabular(AbstractProcess):
    """One law for every memory and round. `chance` (A, n+1, m), `law` (A, m, Z); see `ends`.

    `met`: memories of the process it stands for, at `period` (row 0) and later (row 1).
    """

    horizon: int = eqx.field(static=True)
    controls: int = eqx.field(static=True)
    reward: Float[Numbers, "n m"]
    chance: Float[Numbers, "A n1 m"]
    law: Float[Numbers, "A m Z"]
    met: np.ndarray
    period: int = eqx.field(static=True)
    orderless: bool = eqx.field(static=True)
    tolls: int = eqx.field(static=True)

    def start(self):
        return np.zeros(1, np.int32)

    def step(self, memory: Int[Numbers, " d"], control: Numbers | int):
        return jnp.asarray(memory)

    def ends(self, memory: Int[Numbers, " d"], control: Numbers | int):
        return jnp.asarray(self.chance)[control]

    def symbols(self, memory: Int[Numbers, " d"], control: Numbers | int, period: Numbers | int):
        return jnp.asarray(self.law)[control]

    def ceiling(self, ceiling: AbstractCeiling) -> "TabularCeiling":
        """Tabulate a ceiling of the process it stands for, from `period` on."""
        rounds = range(self.period, self.horizon)
        at = [(t, self.met[[int(t > self.period)]]) for t in rounds]
        nothing = np.zeros((1, np.asarray(self.reward).shape[1]))
        table = np.concatenate([*(ceiling.value(*one) for one in at), nothing])
        gains = [rows for one in at if (rows := ceiling.gained(*one)) is not None]
        most = np.concatenate([*gains, nothing]) if gains else None
        return TabularCeiling(table, most, self.period)


class TabularCeiling(AbstractCeiling):
    """U_t(omega) where no memory matters; `table`, and `gains` as of `gained` (T+1-period, m)."""

    table: Float[np.ndarray, "T1 m"]
    gains: Float[np.ndarray, "T1 m"] | None
    period: int = eqx.field(static=True)

    def value(self, period: int, memories: Int[np.ndarray, "_U d"]):
        row = self.table[period - self.period]
        return np.broadcast_to(row, (len(memories), len(row)))

    def gained(self, period: int, memories: Int[np.ndarray, "_U d"]):
        if self.gains is None:
            return None
        row = self.gains[period - self.period]
        return np.broadcast_to(row, (len(memories), len(row)))

    def plans(self, period: int, memories: Int[np.ndarray, "_U d"]):
        return None


def tabulate(
    process: AbstractProcess, memory: np.ndarray | None = None, period: int = 0
) -> Tabular | None:
    """Find the one law of all memories within reach and all rounds left; None if there is none.

    With many memories, or large tables, the answer is None as well. Call it with float64 enabled.
    """
    start = np.asarray(process.start() if memory is None else memory)
    rounds = jnp.arange(period, process.horizon)
    queue, seen, first, many = [start], {start.tobytes()}, None, False
    while queue:
        memory = queue.pop()
        # Laws are those of the memory that follows a control: where that is the same, so are they.
        if many and first is not None:
            (follow,) = follow_each(process, memory[None])
            if (np.asarray(follow)[0] == first[2]).all():
                continue
        ends, laws, after = (np.asarray(x) for x in _laws(process, memory, rounds))
        if first is None:
            first = (ends, laws[0], after)
            if laws[0].size + ends.size > _MOST_ENTRIES:
                return None
            many = (laws.size + ends.size) * len(ends) > _MANY
            symbols = np.arange(laws.shape[-1])
            if (process.hear(np.tile(after[0], (len(symbols), 1)), symbols) != after[0]).any():
                return None
        if not (np.array_equal(ends, first[0]) and (laws == first[1]).all()):
            return None
        for row in after:
            if row.tobytes() not in seen:
                seen.add(row.tobytes())
                queue.append(row)
        if len(seen) > _MOST_MEMORIES + process.controls:
            return None
    if first is None:
        return None
    ends, law, after = first
    met = np.stack([start, after[0]])
    return Tabular(
        horizon=process.horizon,
        controls=process.controls,
        reward=np.asarray(process.reward),
        chance=ends,
        law=law,
        met=met,
        period=period,
        orderless=True,
        tolls=process.tolls,
    )


@as_program
def _laws(process: AbstractProcess, memory: Numbers, rounds: Numbers):
    """Chances (A, n+1, m), laws of symbols in every round (T, A, m, Z), and the next memories."""

    def one(control: Numbers):
        after = process.step(jnp.asarray(memory), control)
        law = jax.vmap(lambda t: process.symbols(after, control, t))(rounds)
        return process.ends(after, control), law, after

    ends, law, after = jax.vmap(one)(jnp.arange(process.controls))
    return ends, jnp.moveaxis(law, 1, 0), after
