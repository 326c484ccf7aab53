"""A decision problem given by its rules instead of by an enumeration of its memories.

The problem is that of `solvers.problem`: a static hidden parameter omega on m grid points, an
end in an outcome or another round with a symbol. Here memories are integer vectors that a rule
steps, and laws are computed for the memories met and no others, so that a horizon of fifty
rounds or a memory of everything tried costs nothing until it is reached.

A *case* is one maximisation: coefficients x, outcomes that count, controls allowed. W and every
economy without one outcome are cases of one process.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.host import Record, with_default
from solvers.problem import Numbers, Structure, Tables
from solvers.programs import as_program


class AbstractProcess(Record):
    """The rules of a process. All but the attributes is traced, for one memory at a time.

    `horizon`: rounds; 1, which stands for all, where there is no last one. `orderless`: laws depend
    neither on the memory nor on the round; see `tabulate`. `tolls`: how many of the last outcomes
    are tolls, which end nothing (`solvers.problem`).
    """

    horizon: eqx.AbstractVar[int]
    controls: eqx.AbstractVar[int]
    reward: eqx.AbstractVar[Numbers]
    orderless: eqx.AbstractVar[bool]
    tolls: eqx.AbstractVar[int]

    @abc.abstractmethod
    def start(self) -> Int[np.ndarray, " d"]:
        """Memory before the first round."""

    @abc.abstractmethod
    def step(self, memory: Int[Numbers, " d"], control: Numbers | int) -> Int[Numbers, " d"]:
        """Memory after a control; the last control is "do nothing"."""

    @abc.abstractmethod
    def ends(self, memory: Int[Numbers, " d"], control: Numbers | int) -> Float[Numbers, "n1 m"]:
        """Chance of each outcome, and in the last row of going on; `memory` is after `control`.

        What is left ends the process and yields nothing. Rows of tolls hold rates.
        """

    @abc.abstractmethod
    def symbols(
        self, memory: Int[Numbers, " d"], control: Numbers | int, period: Numbers | int
    ) -> Float[Numbers, "m Z"]:
        """Law of the symbol given that the process goes on; `period` counts from 0."""

    @with_default
    def hear(
        self, memories: Int[np.ndarray, "C d"], symbols: Int[np.ndarray, " C"]
    ) -> Int[np.ndarray, "C d"]:
        """Memories after a control, once a symbol is known; a symbol changes none, by default.

        Host code. What is asked of a memory after a control before a symbol is known, a ceiling
        for one, is then an expectation over what may be heard.
        """
        return memories


class Listed(Record):
    """A problem with every memory listed; `depth`: rounds after which all have been met.

    Without a last round the structure is of one round, which stands for all. `bytes`: what making
    it took at most. `lasting`: whether plans without an end may be written out up to a round that
    stands for all that follow (`solvers.search.lasting`): no control moves classes for ever, and no
    outcome is a toll.
    """

    structure: Structure
    tables: Tables
    depth: int = eqx.field(static=True, default=1)
    bytes: float = eqx.field(static=True, default=0.0)
    lasting: bool = eqx.field(static=True, default=False)

    @property
    def size(self) -> float:
        """Bytes of it."""
        leaves = jax.tree.leaves((self.structure, self.tables))
        return float(sum(np.asarray(x).nbytes for x in leaves))


class Problem(Record):
    """What a solver is given: the rules, and a way to list them.

    Rewards (F, m) are first the chance of each outcome, then that chance times what the outcome
    yields, given omega; the weights of a task times these are what a round yields.

    - `rules()`: the process, traceable, and used as it is.
    - `lists(limit)`: the same with every memory listed in at most so many bytes.
    - `horizon`: number of rounds; `math.inf` where there is no last one.
    - `controls`: their number; the last is "do nothing".

    Both are made when they are first asked for; either raises `MemoryError` where it cannot be.
    """

    rules: Callable[[], AbstractProcess] = eqx.field(static=True)
    lists: Callable[[float], Listed] = eqx.field(static=True)
    horizon: int | float = eqx.field(static=True)
    controls: int = eqx.field(static=True)

    @property
    def process(self) -> AbstractProcess:
        """The rules."""
        return self.rules()

    @property
    def points(self) -> int:
        """Number of values that the hidden parameter can have."""
        return int(np.shape(self.process.reward)[1])

    def start(self) -> Int[np.ndarray, " d"]:
        """Memory before the first round."""
        return np.asarray(self.process.start())

    def step(self, memory: Int[Numbers, " d"], control: int) -> Int[np.ndarray, " d"]:
        """Memory after a control."""
        return self._look(memory, 0)[2][control]

    def reward(
        self, memory: Int[Numbers, " d"], control: int, period: int = 0
    ) -> Float[np.ndarray, "F m"]:
        """What a control yields this round given omega, before weights; `memory` is before it."""
        chance = self._look(memory, period)[0][control, :-1]
        return np.concatenate([chance, chance * np.asarray(self.process.reward)])

    def likelihood(
        self, memory: Int[Numbers, " d"], control: int, period: int = 0
    ) -> Float[np.ndarray, "Z m"]:
        """Chance of going on with each symbol given omega: what a belief is multiplied by."""
        ends, law, _ = self._look(memory, period)
        return ends[control, -1] * law[control].T

    def _look(self, memory: Int[Numbers, " d"], period: int) -> tuple[np.ndarray, ...]:
        with jax.enable_x64(True):
            found = ends_after(self.process, jnp.asarray(memory), jnp.asarray(period))
        return tuple(np.asarray(part) for part in found)


class Case(Record):
    """One maximisation: `coefficient` x (n,), `counted` (n,), `allowed` (A,), the last one True."""

    coefficient: Float[Numbers, " n"]
    counted: Bool[Numbers, " n"]
    allowed: Bool[Numbers, " A"]

    def worth(self, reward: Float[Numbers, "n m"]) -> Float[Numbers, "n m"]:
        """What each outcome yields at each parameter: x_j + reward_j where it counts, else 0."""
        x = jnp.asarray(self.coefficient)[:, None]
        return jnp.where(jnp.asarray(self.counted)[:, None], x + jnp.asarray(reward), 0.0)


class AbstractCeiling(Record):
    """Upper bound on the value of one case: what a controller gets who is told omega."""

    @abc.abstractmethod
    def value(self, period: int, memories: Int[np.ndarray, "_U d"]) -> Float[np.ndarray, "_U m"]:
        """U_t(memory, omega) >= W_t(memory, delta_omega) before round `period`, from 0.

        Zero at `period` = horizon. Host code, float64. It must be consistent: one exact round
        with U_{t+1} inside never exceeds U_t.
        """

    @abc.abstractmethod
    def plans(
        self, period: int, memories: Int[np.ndarray, "_U d"]
    ) -> Float[np.ndarray, "_U K m"] | None:
        """What K fixed plans are worth from a round on; a bound from below, as `value` is above.

        None where none is known. The rest of a plan must be among the plans of the round after
        its first control. Host code, float64; zero at `period` = horizon.
        """

    @abc.abstractmethod
    def gained(
        self, period: int, memories: Int[np.ndarray, "_U d"]
    ) -> Float[np.ndarray, "_U m"] | None:
        """`value` if terms below zero counted as nothing, of numbers rounded to single precision.

        What bounds are off by is in proportion to it (`solvers.told.rounded`). None where numbers
        are what they are.
        """


class Laws(Record):
    """What each control does after U memories, and what is remembered next.

    - `pay` (U, A, m): expected yield of ending now. `going` (U, A, m): chance of going on.
    - `law` (U, A, m, Z): law of the symbol. `memory` (U, A, d): the next memories.
    - `reserve` (U, A, n+2, m): at the next memory, if nothing were done from then on: chance of
      each outcome, of going on, expected yield. Empty, (U, A, 0, m), if not asked for.
    """

    pay: Float[Numbers, "U A m"]
    going: Float[Numbers, "U A m"]
    law: Float[Numbers, "U A m Z"]
    memory: Int[Numbers, "U A d"]
    reserve: Float[Numbers, "U A F m"]


@as_program
def laws(
    process: AbstractProcess,
    case: Case,
    memories: Int[Numbers, "U d"],
    period: Numbers | int,
    reserve: bool,
) -> Laws:
    """Compute the laws of every control after each memory."""
    nothing = process.controls - 1
    worth = case.worth(process.reward)

    def one(memory: Array, control: Numbers | int):
        after = process.step(memory, control)
        ends = process.ends(after, control)
        row = jnp.zeros((0, worth.shape[1]), worth.dtype)
        if reserve:
            idle = process.ends(process.step(after, nothing), nothing)
            row = jnp.concatenate([idle, (idle[:-1] * worth).sum(axis=0)[None]])
        pay = (ends[:-1] * worth).sum(axis=0)
        return pay, ends[-1], process.symbols(after, control, period), after, row

    every = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    return Laws(*every(jnp.asarray(memories), jnp.arange(process.controls)))


@as_program
def ends_after(process: AbstractProcess, memory: Int[Numbers, " d"], period: Numbers | int):
    """Chances (A, n+1, m) and symbol laws (A, m, Z) of every control, and the next memories."""

    def one(control: Numbers | int):
        after = process.step(jnp.asarray(memory), control)
        return process.ends(after, control), process.symbols(after, control, period), after

    return jax.vmap(one)(jnp.arange(process.controls))


@as_program
def follow_each(process: AbstractProcess, memories: Int[Numbers, "U d"]):
    """The memory after every control (U, A, d), in a tuple of its own."""
    each = jax.vmap(jax.vmap(process.step, in_axes=(None, 0)), in_axes=(0, None))
    return (each(jnp.asarray(memories), jnp.arange(process.controls)),)


def distinct(memories: Numbers) -> tuple[Int[np.ndarray, "_U d"], Int[np.ndarray, " _C"]]:
    """Distinct memories, and the row of each memory; one row, or padded to as many as given."""
    unique, index = np.unique(memories, axis=0, return_inverse=True)
    size = 1 if len(unique) == 1 else len(memories)
    padding = np.repeat(unique[-1:], size - len(unique), axis=0)
    return np.concatenate([unique, padding]), index.reshape(-1)
