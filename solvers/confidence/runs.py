"""Runs whose mean is the value of the greedy policy, drawn where it is not known.

Let L(b) <= V(b) be the value of the best fixed plan, which the policy falls back on where it would
do worse (`solvers.neural.rollout.guarded`), and U(b) that of a controller who is told omega. At
each belief met, all symbols z are enumerated, so that

    delta(b) = pay(b) + sum_z L(b_z) - L(b) >= 0,    V(b_0) = L(b_0) + sum over histories delta,

with unnormalised beliefs. A run adds up deltas, weighs them by its chance, and goes on with z in
proportion to G(b_z) = U(b_z) - L(b_z): where there is something left to be gained, not where runs
go most often. A symbol that is rare and dear is met as often as it is worth.

A critic C, held between L and U, makes runs vary less. With S(b) = sum_z G(b_z), a weight w and
r_z = (C - L)(b_z) / G(b_z), each round also adds s w S (mean of r - r_z 1{goes on} / k), whose
mean is zero whatever s is, as long as that is set before z is drawn. k is the chance that a run
goes on, for runs of a length as in play. s is as large as it may be for no run to fall below

    floor = pay(b_0) + sum_z L(b_z) - beta S(b_0):

the one thing that `betting_lower` has to know. The network enters nothing else.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from solvers.confidence.betting import betting_lower
from solvers.confidence.sample import AbstractSample, repeated
from solvers.host import Record
from solvers.neural.critic import AbstractCritic
from solvers.neural.rollout import Plans, ahead, guarded, planned, plans_around
from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, Case, Laws, distinct, laws
from solvers.programs import as_program

_ROOM = 0.15  # beta
_LENGTH = 0.25  # k = (S(b) / G(b))^_LENGTH
_NEGLIGIBLE = 1e-9  # of the gap at the start: a run ends there
_ROUNDING = 2e-13
_SMALL = 4  # runs that are handled together when few are left


class Certified(AbstractSample):
    """Runs: `gain` (N,), each with the policy's value as its mean and none below `floor`.

    `sure`: a bound on the value from below that holds for certain. `slack`: most that rounding
    adds to the mean. `rounds`: mean length.
    """

    gain: Float[np.ndarray, " N"]
    floor: float
    sure: float
    slack: float
    rounds: float

    def lower(self, alpha: Float[np.ndarray, "*l"] | float) -> Float[np.ndarray, "*l"]:
        """Bound the policy's value from below, with confidence 1 - `alpha`, each by itself."""
        found = betting_lower(repeated(self.gain, alpha), self.floor, alpha)
        return np.asarray(np.maximum(found - self.slack, self.sure))

    def width(self, alpha: Float[np.ndarray, "*l"] | float) -> Float[np.ndarray, "*l"]:
        """How far the bound at that level is from the mean."""
        return np.asarray(self.mean - self.lower(alpha))


class _Spread(Record):
    """What C beliefs of mass 1 get in a round, and all that may follow the greedy control.

    `pay`, `plan` (C,): expected yield, and L. For each symbol: `mass`, and per unit of it L
    (`low`), G (`gap`), C - L (`rise`), (C, Z); `belief` (C, Z, m). `memory` (C, d).
    """

    pay: Float[Array, " C"]
    plan: Float[Array, " C"]
    mass: Float[Array, "C Z"]
    low: Float[Array, "C Z"]
    gap: Float[Array, "C Z"]
    rise: Float[Array, "C Z"]
    belief: Float[Numbers, "C Z m"]
    memory: Int[Array, "C d"]

    @property
    def follow(self) -> np.ndarray:
        """The control, then the best fixed plan, (C,)."""
        return np.asarray(self.pay + (self.mass * self.low).sum(axis=1))

    def repeat(self, count: int) -> "_Spread":
        return jax.tree.map(lambda x: np.repeat(x, count, axis=0), self)


def certified_runs(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    critic: AbstractCritic | None,
    belief: Float[np.ndarray, " m"],
    runs: int,
    rng: np.random.Generator,
    memory: np.ndarray | None = None,
    period: int = 0,
    chunk: int = 16,
) -> Certified:
    """Draw runs of the greedy policy from one belief, per unit of its mass.

    Call it with float64 enabled. `ceiling` has plans unless the process is orderless.
    """
    start = np.asarray(process.start() if memory is None else memory)
    belief = np.asarray(belief, float) / np.sum(belief)
    problem = (process, case, ceiling, critic)
    first = _spread(problem, belief[None], start[None], period, chunk)
    left = float((first.mass * first.gap).sum())
    sure, scale = float(first.follow[0]), float((np.abs(first.pay) + np.abs(first.plan))[0])
    slack = _ROUNDING * (scale + left) * (process.horizon - period - 1)
    total, room, weight = np.full(runs, sure), np.full(runs, _ROOM * left), np.ones(runs)
    alive, gap, rounds, spread = np.arange(runs), None, 1.0, first.repeat(runs)
    beliefs, memories = belief[None], start[None]
    for t in range(period, process.horizon):
        if gap is not None:
            spread = _spread(problem, beliefs, memories, t, chunk)
            # Rounding alone makes a delta negative; `slack` pays for it.
            delta = weight * np.maximum(spread.follow - spread.plan, 0.0)
            total[alive] += delta
            room = room + delta
        noise = rng.random((runs, 2))[alive]
        step, room, on, weight, symbol = _draw(spread, gap, weight, room, noise)
        total[alive] += step
        gap = spread.gap[np.arange(len(alive)), symbol]
        on &= weight * gap > _NEGLIGIBLE * left
        if not on.any():
            break
        beliefs, memories = spread.belief[on, symbol[on]], spread.memory[on]
        alive, room, weight, gap = alive[on], room[on], weight[on], gap[on]
        order = np.lexsort(memories.T[::-1])
        beliefs, memories, alive = beliefs[order], memories[order], alive[order]
        room, weight, gap = room[order], weight[order], gap[order]
        rounds += len(alive) / runs
    return Certified(total, sure - _ROOM * left - slack, sure - slack, slack, rounds)


def _draw(
    spread: _Spread, gap: Numbers | None, weight: np.ndarray, room: np.ndarray, noise: np.ndarray
):
    """Draw whether and how runs go on; what the critic adds, and room, going, weights, symbols."""
    share = spread.mass * spread.gap
    whole = share.sum(axis=1)
    some = np.where(whole > 0, whole, 1.0)
    keep = np.ones(len(whole)) if gap is None else np.clip(whole / gap, 0.0, 1.0) ** _LENGTH
    ladder = np.cumsum(share, axis=1)
    symbol = (ladder <= noise[:, :1] * ladder[:, -1:]).sum(axis=1).clip(max=share.shape[1] - 1)
    here = np.arange(len(whole))
    symbol = np.where(share[here, symbol] > 0, symbol, share.argmax(axis=1))
    on = (noise[:, 1] < keep) & (whole > 0)
    rise = np.where(spread.gap > 0, spread.rise / np.where(spread.gap > 0, spread.gap, 1.0), 0.0)
    mean, scale = (spread.mass * spread.rise).sum(axis=1) / some, weight * whole
    worst = scale * np.maximum(rise.max(axis=1) / np.where(keep > 0, keep, 1.0) - mean, 0.0)
    scaled = np.clip(room / np.where(worst > 0, worst, 1.0), 0.0, 1.0)
    drawn = np.where(on, rise[here, symbol] / np.where(keep > 0, keep, 1.0), 0.0)
    step = scaled * scale * (mean - drawn)
    after = spread.gap[here, symbol] * keep
    weight = np.where(on, scale / np.where(after > 0, after, 1.0), 0.0)
    return step, np.maximum(room + step, 0.0), on, weight, symbol


def _spread(
    problem: tuple[AbstractProcess, Case, AbstractCeiling, AbstractCritic | None],
    beliefs: Numbers,
    memories: Numbers,
    t: int,
    chunk: int,
) -> _Spread:
    """Enumerate one round of all runs, in chunks of runs with neighbouring memories."""
    process, case, ceiling, critic = problem
    parts, last = [], t == process.horizon - 1
    for at in range(0, len(beliefs), chunk):
        part = slice(at, at + chunk)
        size = len(beliefs[part])
        pad = np.minimum(np.arange(chunk if size > _SMALL else min(_SMALL, chunk)), size - 1)
        unique, row = distinct(memories[part][pad])
        found = laws(process, case, unique, jnp.asarray(t), not last)
        after = np.asarray(found.memory)
        told = np.zeros((*found.going.shape[:2], beliefs.shape[1]))
        if not last:
            told = ceiling.value(t + 1, after.reshape(-1, after.shape[-1])).reshape(told.shape)
        plans = plans_around(process, ceiling, unique, found, t)
        one = _enumerate(
            process, case, critic, found, told, plans, beliefs[part][pad], row, jnp.asarray(t), last
        )
        parts.append(jax.tree.map(lambda x, size=size: np.asarray(x)[:size], one))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@as_program
def _enumerate(
    process: AbstractProcess,
    case: Case,
    critic: AbstractCritic | None,
    found: Laws,
    told: Numbers,
    plans: Plans,
    p: Numbers,
    row: Numbers,
    t: Numbers,
    last: bool,
) -> _Spread:
    allowed, here = jnp.asarray(case.allowed), jnp.arange(len(p))
    now = jnp.einsum("cm,cam->ca", p, found.pay[row])
    if last:
        control = jnp.argmax(jnp.where(allowed, now, -jnp.inf), axis=1)
        plan = now[here, control]
        if isinstance(plans, tuple):
            plan = jnp.einsum("cm,ckm->ck", p, jnp.asarray(plans[0])[row]).max(axis=1)
        zero = jnp.zeros((len(p), 1))
        memory = jnp.asarray(found.memory)[row, control]
        return _Spread(now[here, control], plan, zero, zero, zero, zero, p[:, None], memory)
    _, mass, posterior, fixed, value = ahead(process, case, critic, found, told, row, p, t)
    plan, low = planned(process, case, found, plans, row, p, posterior, fixed, t)
    backup = now + (mass * value).sum(axis=-1)
    score = jnp.where(allowed, backup, -jnp.inf)
    score = guarded(score, now + (mass * low).sum(axis=-1), plan, allowed)
    pick = (here, jnp.argmax(score, axis=1))
    low, value, posterior = low[pick], value[pick], posterior[pick]
    gap = jnp.maximum(fixed[pick][..., len(case.coefficient) + 2] - low, 0.0)
    if process.orderless:
        # In the last round the best single control is the policy.
        gap = jnp.where(t + 1 == process.horizon - 1, 0.0, gap)
    rise = jnp.clip(value - low, 0.0, gap)
    return _Spread(now[pick], plan, mass[pick], low, gap, rise, posterior, found.memory[row][pick])
