"""Runs whose controls are chosen by someone who holds another belief, or another case.

What happens is drawn from the true belief p; controls are greedy for what is *told*: a belief q
and a case. Both beliefs are updated by what happens. With the critic V of the true case and Q_t as
in `solvers.neural.rollout`,

    G = Q_1(a_1, p_1) + sum_{t >= 2} 1{still going} (Q_t(a_t, p_t) - V_t(h_t, p_t))

has the expected yield under the true belief and case as its expectation, whatever chooses the
controls. Runs that share their noise differ only where their controls do, so that differences
between what is told are estimated well.

That sum may be as long as a run. With `limits` on what one ending can be worth, each amount is
counted when a run ends, at most its limit R, and what G adds to that is a control variate of mean
zero, which is scaled down, before a round is drawn, so far that it never adds up to more than
R / 2: the amounts of every run are in [-1.5 R, 1.5 R], which a confidence bound has to know. What a
round yields whether or not it is the last one (tolls) is counted as it comes, on top of that.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from solvers.chooser import AbstractChooser, chosen
from solvers.host import Record
from solvers.neural.critic import AbstractCritic
from solvers.neural.rollout import Play, Step, play_round
from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, Case
from solvers.programs import as_program

_SHARE = 0.5  # of a limit: most that the control variate adds up to
REACH = 1 + _SHARE  # of a limit: most that a run adds up to

Observer = Callable[
    [int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
]


class Told(Record):
    """What controls are chosen for.

    `belief` (m,); `cases`, `ceilings`: of the rounds from the first on, the last one repeated.
    Where the told belief has no mass, nothing is done. `place`: where a chooser starts.
    """

    belief: Float[np.ndarray, " m"]
    cases: tuple[Case, ...]
    ceilings: tuple[AbstractCeiling, ...]
    place: int = eqx.field(static=True, default=0)


class Followed(Record):
    """Runs: `gain` (N,), each unbiased for the expected yield; `seen` (N, F): what was observed.

    `first`: the control of the first round, their number where it is drawn; `going`: the chance
    to go beyond it, 1 where it is drawn.
    """

    gain: Float[np.ndarray, " N"]
    seen: Float[np.ndarray, "N F"]
    first: int = eqx.field(static=True)
    going: float = eqx.field(static=True)


def follow(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    critic: AbstractCritic | None,
    belief: Float[np.ndarray, " m"],
    noise: Float[np.ndarray, "T N 4"],
    told: Told | None = None,
    observe: Observer | None = None,
    features: int = 0,
    chunk: int = 16,
    limits: Float[np.ndarray, " F1"] | None = None,
    chooser: AbstractChooser | None = None,
    memory: np.ndarray | None = None,
    period: int = 0,
) -> Followed:
    """Draw runs from one belief; call it with float64 enabled.

    **Arguments**

    - `case`, `ceiling`, `critic`: by which yields are counted; they set no control.
    - `noise`: uniform on [0, 1), for each round and run; the same for runs to be compared.
    - `told`: what controls are chosen for; None: the true belief and case.
    - `observe` (round from 0, memories (C, d), controls (C,), true beliefs (C, m), told ones) ->
      expected amounts of the round, added up over a run: (C, `features`) of its ending, and
      (C, 1 + `features`) that come in any case, the first column part of what is yielded.
    - `limits` of what one ending yields and of each of the features; none by default.
    - `chooser`: who chooses controls, told as `told` says; None: greedily for `critic`.
    - `memory`, `period`: where runs start, at the outset by default.
    """
    runs = noise.shape[1]
    belief = np.asarray(belief, float) / np.sum(belief)
    true = np.tile(belief, (runs, 1))
    held = true if told is None else np.tile(np.asarray(told.belief, float), (runs, 1))
    start = np.asarray(process.start() if memory is None else memory)
    memories, places = np.tile(start, (runs, 1)), np.full(runs, 0 if told is None else told.place)
    counted = _Counted(runs, np.full(1 + features, np.inf) if limits is None else limits)
    alive, first, going = np.arange(runs), 0, 0.0
    for t in range(period, process.horizon):
        order = np.lexsort(memories.T[::-1])
        true, held, memories, alive = true[order], held[order], memories[order], alive[order]
        places, uniform, drawn = places[order], noise[t - period, alive], False
        if chooser is not None:
            now = case if told is None else told.cases[min(t - period, len(told.cases) - 1)]
            given = now, held, memories, t, places, uniform[:, 3], process.controls
            forced, drawn = chosen(chooser, *given)
        else:
            at = held, memories, t, chunk
            forced = None if told is None else _choose(process, told, critic, *at, period)
        step = play_round(
            process, case, ceiling, critic, true, memories, uniform, t, Play.GREEDY, chunk, 0.0,
            forced,
        )  # fmt: skip
        control = np.asarray(step.control)
        if t == period:
            first, going = int(control[0]), float(step.going[0])
            first, going = (process.controls, 1.0) if drawn else (first, going)
        last = t == process.horizon - 1
        backup = np.asarray(step.backup, float)[np.arange(len(alive)), control]
        on = np.zeros(len(alive), bool) if last else uniform[:, 1] < step.going
        amounts, passing = np.zeros((len(alive), features)), np.zeros((len(alive), 1 + features))
        if observe is not None:
            amounts, passing = observe(t, memories, control, true, held)
        counted.add(alive, backup, amounts, passing, step, on)
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
        if chooser is not None:
            places = chooser.follow(places[on], t, control[on], np.asarray(step.symbol)[on])
        else:
            places = places[on]
        heard = np.asarray(step.memory)[on], np.asarray(step.symbol)[on]
        alive, memories = alive[on], process.hear(*heard)
    return Followed(counted.total[:, 0], counted.total[:, 1:], first, going)


class _Counted:
    """Amounts of N runs, (N, 1+F): what is yielded, and the features; see the module."""

    def __init__(self, runs: int, limits: np.ndarray):
        self.limits = _SHARE * np.asarray(limits, float)
        self.total = np.zeros((runs, len(self.limits)))
        self.variate = np.zeros((runs, len(self.limits)))

    def add(
        self,
        alive: np.ndarray,
        backup: np.ndarray,
        amounts: np.ndarray,
        passing: np.ndarray,
        step: Step,
        on: np.ndarray,
    ) -> None:
        """Count one round: `backup` (C,) is Q, `on` (C,) who goes on."""
        mass, count = np.asarray(step.going, float), len(alive)
        later, drawn = np.asarray(step.later, float), np.asarray(step.value, float)
        ended = backup - later - passing[:, 0]
        expected = np.concatenate([ended[:, None], amounts], axis=1)
        leave = np.where(1 - mass > 0, 1 - mass, 1.0)[:, None]
        ending = np.where(1 - mass[:, None] > 0, expected / leave, 0.0)
        critic = np.zeros((count, expected.shape[1], 4))
        critic[:, 0] = np.stack([later, later - step.span[:, 0], later - step.span[:, 1],
                                 later - drawn * on], axis=1)  # fmt: skip
        before = self.variate[alive]
        cases = [expected - ending + critic[..., 0], *(expected + critic[..., k] for k in (1, 2))]
        scaled = np.ones_like(expected)
        for value in cases:
            room = np.where(value > 0, self.limits - before, self.limits + before)
            size = np.abs(value)
            share = np.where(size > 0, room, np.inf) / np.where(size > 0, size, 1.0)
            scaled = np.minimum(scaled, np.maximum(share, 0.0))
        came = expected - np.where(on[:, None], 0.0, ending) + critic[..., 3]
        self.variate[alive] = before + scaled * came
        self.total[alive] += passing + np.where(on[:, None], 0.0, ending) + scaled * came


def _choose(
    process: AbstractProcess,
    told: Told,
    critic: AbstractCritic | None,
    held: np.ndarray,
    memories: np.ndarray,
    t: int,
    chunk: int,
    start: int,
):
    """Greedy controls for what is told; nothing where it is thought impossible."""
    which = min(t - start, len(told.cases) - 1)
    case, ceiling = told.cases[which], told.ceilings[which]
    control = np.full(len(held), process.controls - 1)
    live = held.any(axis=1)
    if live.any():
        noise = np.zeros((int(live.sum()), 4))
        here = (held[live], memories[live], noise, t, Play.GREEDY, chunk, 0.0)
        control[live] = play_round(process, case, ceiling, critic, *here).control
    return control


@as_program
def _columns(
    process: AbstractProcess, memories: Numbers, control: Numbers, symbol: Numbers, period: Numbers
):
    """Likelihood of going on with the symbol that came, (C, m)."""

    def one(memory: Numbers, control: Numbers, symbol: Numbers):
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
