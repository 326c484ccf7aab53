"""Lower bounds: an executable policy simulated on fresh runs, with the critic as control variate.

Runs are drawn from the predictive law of the beliefs, so that omega itself is never drawn. With
a critic V (V_{T+1} = 0) and Q_t(a) = <p, pay_a> + sum_z P(z) V_{t+1}(h_a, p_z), a run yields

    G = Q_1(a_1) + sum_{t >= 2} 1{still going} (Q_t(a_t) - V_t(h_t, p_t)),

whose expectation is the value of the policy whatever the critic: the sums over z are exact, so
each V_t that is subtracted was added in expectation a round before. If V solves Bellman's
equation G does not vary at all. Without a critic G is the sum of expected yields.

A policy is `Greedy` (for the critic), `Myopic`, `Told` (greedy for the told-omega value),
`PosteriorSampling` (greedy for one parameter drawn from the belief), or `KnowledgeGradient` (one
symbol is valued by what the best control yields after it, kept to the end: as if nothing more
were learned).

Run i of every rollout of the same generator and size meets the same uniform draws in the same
round, so that differences between policies, run by run, vary little.
"""

import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from solvers.chooser import AbstractChooser, chosen
from solvers.confidence.sample import AbstractSample
from solvers.neural.critic import AbstractCritic, case_scale, view
from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, Case, Laws, distinct, laws
from solvers.programs import as_program

_SMALL = 4  # runs that are handled together when few are left
# Of the ceiling before a round and after it; True where none are needed, None where none are known.
Plans = tuple[Numbers, Numbers] | bool | None
_ROUNDING = 1e-13  # of a plan's value: within it, two plans are as good


class Play(enum.Enum):
    """How controls are chosen; ties go to the lowest index."""

    GREEDY = "neural"
    MYOPIC = "myopic"
    TOLD = "greedy for told-omega"
    SAMPLING = "posterior sampling"
    GRADIENT = "knowledge gradient"


class States(eqx.Module):
    """Beliefs met, from the second round on, with what the network needs and its Bellman target.

    `belief` (N, m), mass 1; `fixed` (N, n+3 or n+4); `remaining`, `value`, `target` (N,): rounds
    left, the critic's value, and its one-round backup.
    """

    belief: Float[np.ndarray, "N m"]
    fixed: Float[np.ndarray, "N F"]
    remaining: Int[np.ndarray, " N"]
    value: Float[np.ndarray, " N"]
    target: Float[np.ndarray, " N"]


class Step(eqx.Module):
    """One round of C runs: Q (C, A), the control, the symbol, and where each run is next.

    `later` (C,): expected value of the critic after the control; `span` (C, 2): its least and its
    largest.
    """

    backup: Float[Array, "C A"]
    control: Int[Array, " C"]
    symbol: Int[Array, " C"]
    going: Float[Array, " C"]
    belief: Float[Numbers, "C m"]
    memory: Int[Array, "C d"]
    fixed: Float[Array, "C F"]
    value: Float[Array, " C"]
    later: Float[Array, " C"]
    span: Float[Array, "C 2"]


class Rollout(AbstractSample):
    """Runs: `gain` (N,), each unbiased for the policy's value; `states` if they were kept.

    `rounds`: mean length; `going`: chance, known exactly, that a run goes beyond its first round.
    """

    gain: Float[np.ndarray, " N"]
    rounds: float
    going: float
    states: States | None


def rollout(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    critic: AbstractCritic | None,
    belief: Float[np.ndarray, " m"],
    runs: int,
    rng: np.random.Generator,
    play: Play = Play.GREEDY,
    memory: np.ndarray | None = None,
    period: int = 0,
    chunk: int = 16,
    persistence: float = 0.0,
    explore: float = 0.0,
    keep: bool = False,
    chooser: AbstractChooser | None = None,
) -> Rollout:
    """Simulate `runs` runs from one belief; gains are per unit of its mass.

    **Arguments:** `chunk`: runs handled at once; `persistence`: runs go on with at least this
    chance, `explore`: share of controls drawn at random. Both change which states are met; gains
    are unbiased only if both are zero. `keep`: return the states met. `chooser`: who chooses
    controls, whatever `play` is.
    """
    start = np.asarray(process.start() if memory is None else memory)
    belief = np.asarray(belief, float) / np.sum(belief)
    beliefs, memories = np.tile(belief, (runs, 1)), np.tile(start, (runs, 1))
    gain, subtract, fixed = np.zeros(runs), np.zeros(runs), None
    alive, kept, rounds, going = np.arange(runs), [], 0, 0.0
    for t in range(period, process.horizon):
        order = np.lexsort(memories.T[::-1])
        beliefs, memories, alive = beliefs[order], memories[order], alive[order]
        fixed = None if fixed is None else fixed[order]
        noise, forced = rng.random((runs, 4))[alive], None
        if chooser is not None:
            here = beliefs, memories, t, np.zeros(len(alive), np.int64), noise[:, 3]
            forced, _ = chosen(chooser, case, *here, process.controls)
        step = play_round(
            process, case, ceiling, critic, beliefs, memories, noise, t, play, chunk, explore,
            forced, guard=not keep,
        )  # fmt: skip
        backup = np.asarray(step.backup, float)
        taken = backup[np.arange(len(alive)), step.control]
        if keep and fixed is not None:
            remaining = np.full(len(alive), process.horizon - t)
            target = np.where(np.asarray(case.allowed), backup, -np.inf).max(axis=1)
            kept.append(States(beliefs, fixed, remaining, subtract[alive].copy(), target))
        gain[alive] += taken - subtract[alive]
        rounds += len(alive)
        going = float(step.going[0]) if t == period else going
        if t == process.horizon - 1:
            break
        on = noise[:, 1] < np.maximum(step.going, persistence) * (step.going > 0)
        alive = alive[on]
        if not len(alive):
            break
        subtract[alive] = step.value[on]
        beliefs, memories, fixed = step.belief[on], step.memory[on], step.fixed[on]
    states = jax.tree.map(lambda *parts: np.concatenate(parts), *kept) if kept else None
    return Rollout(gain, rounds / runs, going, states)


def decide(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    critic: AbstractCritic | None,
    beliefs: Float[np.ndarray, "C m"],
    memories: Int[np.ndarray, "C d"],
    period: int,
    chunk: int = 16,
) -> Int[np.ndarray, " C"]:
    """Choose the greedy control of each of C beliefs of mass 1: once for those that are alike."""
    parts = np.asarray(beliefs, float), np.asarray(memories, np.int64)
    words = np.concatenate([np.ascontiguousarray(x).view(np.uint8) for x in parts], axis=1)
    rows = np.ascontiguousarray(words).view(np.dtype((np.void, words.shape[1])))[:, 0]
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    noise = np.zeros((len(first), 4))
    step = play_round(
        process, case, ceiling, critic, beliefs[first], memories[first], noise, period,
        Play.GREEDY, 1 if len(first) == 1 else chunk, 0.0,
    )  # fmt: skip
    return np.asarray(step.control)[which]


def play_round(
    process: AbstractProcess, case: Case, ceiling: AbstractCeiling, critic: AbstractCritic | None,
    beliefs: np.ndarray, memories: np.ndarray, noise: np.ndarray, t: int, play: Play, chunk: int,
    explore: float, forced: np.ndarray | None = None, guard: bool = True,
):  # fmt: skip
    """One round of all runs, in chunks of runs with neighbouring memories.

    `forced` (C,): the controls, if they are given; `guard`: whether greedy controls fall back on
    a plan, see `guarded`.
    """
    parts = []
    last = t == process.horizon - 1
    guard = guard and play is Play.GREEDY and forced is None and not last
    for at in range(0, len(beliefs), chunk):
        part = slice(at, at + chunk)
        size = len(beliefs[part])
        pad = np.minimum(np.arange(chunk if size > _SMALL else min(_SMALL, chunk)), size - 1)
        unique, row = distinct(memories[part][pad])
        found = laws(process, case, unique, jnp.asarray(t), not last)
        told = np.zeros((*found.going.shape[:2], beliefs.shape[1]))
        if not last:
            after = np.asarray(found.memory)
            told = ceiling.value(t + 1, after.reshape(-1, after.shape[-1])).reshape(told.shape)
        plans = plans_around(process, ceiling, unique, found, t) if guard else None
        dtype = np.asarray(found.pay).dtype
        step = _step(
            process, case, critic, found, told.astype(dtype), beliefs[part][pad].astype(dtype),
            row, noise[part][pad].astype(dtype), jnp.asarray(t), play, last, explore,
            None if forced is None else forced[part][pad], plans,
        )  # fmt: skip
        parts.append(jax.tree.map(lambda x, size=size: np.asarray(x)[:size], step))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@as_program
def _step(
    process: AbstractProcess, case: Case, critic: AbstractCritic | None, found: Laws,
    told: Numbers, p: Numbers, row: Numbers, noise: Numbers, t: Numbers, play: Play, last: bool,
    explore: float, forced: Numbers | None, plans: Plans,
) -> Step:  # fmt: skip
    """Back up, choose, and draw what comes next, for a chunk of runs."""
    count = len(p)
    dtype = p.dtype
    now = jnp.einsum("cm,cam->ca", p, found.pay[row])
    allowed = jnp.asarray(case.allowed)
    if last:
        backup = now
        control = jnp.argmax(jnp.where(allowed, backup, -jnp.inf), axis=1)
        control = control if forced is None else jnp.asarray(forced)
        nothing, none = jnp.zeros(count, dtype), jnp.zeros_like(control)
        width = found.reserve.shape[2] + 1 + process.orderless
        blank = jnp.zeros((count, width), dtype)
        memory, span = found.memory[row, control], jnp.zeros((count, 2), dtype)
        return Step(backup, control, none, nothing, p, memory, blank, nothing, nothing, span)
    joint, mass, posterior, fixed, value = ahead(process, case, critic, found, told, row, p, t)
    backup = now + (mass * value).sum(axis=-1)
    score = _score(process, case, play, found, told, row, p, now, backup, joint, noise, t)
    score = jnp.where(allowed, score, -jnp.inf)
    if plans is not None:
        now_, next_ = planned(process, case, found, plans, row, p, posterior, fixed, t)
        score = guarded(score, now + (mass * next_).sum(axis=-1), now_, allowed)
    control = jnp.argmax(score, axis=1)
    if explore:
        rank = jnp.cumsum(allowed) - 1
        drawn = jnp.floor(noise[:, 3:] * allowed.sum())
        random = jnp.argmax(allowed & (rank == drawn), axis=1)
        control = jnp.where(noise[:, 0] < explore, random, control)
    control = control if forced is None else jnp.asarray(forced)
    here = jnp.arange(count)
    weights = mass[here, control]
    ladder = jnp.cumsum(weights, axis=1)
    symbol = (ladder <= noise[:, 2:3] * ladder[:, -1:]).sum(axis=1).clip(max=weights.shape[1] - 1)
    symbol = jnp.where(weights[here, symbol] > 0, symbol, jnp.argmax(weights, axis=1))
    pick = (here, control, symbol)
    memory = found.memory[row, control]
    going = weights.sum(axis=1)
    after = value[here, control]
    low, high = (jnp.where(weights > 0, after, end) for end in (jnp.inf, -jnp.inf))
    span = jnp.stack([low.min(axis=1), high.max(axis=1)], axis=1)
    span = jnp.where(going[:, None] > 0, span, 0.0)
    later = (weights * after).sum(axis=1)
    return Step(
        backup, control, symbol, going, posterior[pick], memory, fixed[pick], value[pick], later,
        span,
    )  # fmt: skip


def plans_around(
    process: AbstractProcess, ceiling: AbstractCeiling, memories: np.ndarray, found: Laws, t: int
) -> Plans:
    """Values of the ceiling's fixed plans before a round (U, K, m) and after it (U, A, K, m).

    None where `planned` needs none (laws that depend on no memory), or where there are none.
    """
    if process.orderless:
        return True
    here = ceiling.plans(t, memories)
    if here is None:
        return None
    after = np.asarray(found.memory)
    there = ceiling.plans(t + 1, after.reshape(-1, after.shape[-1]))
    assert there is not None
    return here, there.reshape(*after.shape[:2], *there.shape[1:])


def planned(
    process: AbstractProcess, case: Case, found: Laws, plans: Plans, row: Numbers, p: Numbers,
    posterior: Numbers, fixed: Numbers, t: Numbers,
):  # fmt: skip
    """L, what the best fixed plan is worth: at C beliefs (C,), and at what may follow (C, A, Z).

    Traced. Where laws depend on no memory the plans are single controls kept to the end, of which
    `ahead` knows the values after the round.
    """
    if process.orderless:
        left = process.horizon - t
        here = jnp.where(jnp.asarray(case.allowed), p @ kept(found, left).T, -jnp.inf)
        return here.max(axis=-1), fixed[..., -1]
    assert isinstance(plans, tuple)
    here, there = plans
    best = jnp.einsum("cm,ckm->ck", p, jnp.asarray(here)[row]).max(axis=-1)
    return best, jnp.einsum("cazm,cakm->cazk", posterior, jnp.asarray(there)[row]).max(axis=-1)


def kept(found: Laws, left: Numbers) -> Float[Array, "A m"]:
    """What each control yields if it is kept for `left` rounds, where no memory matters."""
    leave = 1 - found.going[0]
    rounds = -jnp.expm1(left * jnp.log1p(-jnp.minimum(leave, 1 - 1e-12))) / leave
    return found.pay[0] * jnp.where(leave > 0, rounds, left)


def guarded(score: Array, follow: Array, plan: Array, allowed: Array):
    """Rule out controls after which the best fixed plan is worth less than it is before them.

    score (C, A); `follow` (C, A): the control, then the best fixed plan; `plan` (C,): the best
    fixed plan at once. Its first control always stays, so that the policy is worth at least the
    plan wherever it is: L(b) <= pay(b) + sum_z L(b_z), whatever the critic.
    """
    follow = jnp.where(allowed, follow, -jnp.inf)
    most = follow.max(axis=1)
    least = jnp.minimum(plan, most)
    slack = _ROUNDING * (jnp.abs(plan) + jnp.abs(most))
    return jnp.where(follow >= (least - slack)[:, None], score, -jnp.inf)


def ahead(
    process: AbstractProcess, case: Case, critic: AbstractCritic | None, found: Laws,
    told: Numbers, row: Numbers, p: Numbers, t: Numbers,
):  # fmt: skip
    """What may follow each control and symbol, traced: for C beliefs of mass 1.

    **Returns:** joint weights (C, A, Z, m), their mass, posteriors, the network's fixed inputs
    (row n+2 is <posterior, U>), and the critic's value, 0 without one.
    """
    column = found.going[:, :, None] * jnp.moveaxis(found.law, -1, -2)
    joint = p[:, None, None] * (column if len(column) == 1 else column[row])
    mass = joint.sum(axis=-1)
    posterior = joint / jnp.where(mass > 0, mass, 1.0)[..., None]
    rows = jnp.concatenate([found.reserve, told[:, :, None]], axis=2)
    if len(rows) == 1:  # all runs have one memory: nothing is gathered
        fixed = jnp.einsum("cazm,afm->cazf", posterior, rows[0])
    else:
        fixed = jnp.einsum("cazm,cafm->cazf", posterior, rows[row])
    if process.orderless:
        rest = kept(found, process.horizon - 1 - t)
        each = jnp.where(jnp.asarray(case.allowed), posterior @ rest.T, -jnp.inf)
        fixed = jnp.concatenate([fixed, each.max(axis=-1, keepdims=True)], axis=-1)
    if critic is None:
        value = jnp.zeros_like(mass)
    else:
        asked, own = jax.tree.map(_single, (critic, case))
        kernel = asked.summaries(_single(view(process, case)))
        summary = (_single(posterior) @ kernel).reshape(-1, kernel.shape[-1])
        flat = _single(fixed).reshape(-1, fixed.shape[-1])
        scale = _single(case_scale(case, process.reward))
        left = process.horizon - 1 - t
        value = jax.vmap(lambda s, f: asked(s, f, left, own, scale))(summary, flat)
        value = value.reshape(mass.shape).astype(p.dtype)
    return joint, mass, posterior, fixed, value


def _single(x: Any):
    """In float32: whatever a critic says is a control variate, so that nothing else is rounded."""
    return x.astype(jnp.float32) if eqx.is_inexact_array(x) else x


def _score(
    process: AbstractProcess, case: Case, play: Play, found: Laws, told: Numbers, row: Numbers,
    p: Numbers, now: Numbers, backup: Numbers, joint: Numbers, noise: Numbers, t: Numbers,
):  # fmt: skip
    """What the policy maximises over controls, (C, A)."""
    if play is Play.GREEDY:
        return backup
    if play is Play.MYOPIC:
        return now
    open_ = (found.pay + found.going * told)[row]
    if play is Play.TOLD:
        return jnp.einsum("cm,cam->ca", p, open_)
    if play is Play.SAMPLING:
        ladder = jnp.cumsum(p, axis=1)
        drawn = (ladder <= noise[:, 3:] * ladder[:, -1:]).sum(axis=1).clip(max=p.shape[1] - 1)
        return open_[jnp.arange(len(p)), :, drawn]
    flat = found.memory.reshape(-1, found.memory.shape[-1])
    after = laws(process, case, flat, 0, False)
    left = process.horizon - 1 - t
    stays = jnp.minimum(after.going, 1 - 1e-6)
    rest = after.pay * (1 - stays**left) / (1 - stays)
    rest = rest.reshape(*found.going.shape[:2], -1, p.shape[1])
    later = jnp.einsum("cazm,cabm->cazb", joint, rest[row])
    later = jnp.where(jnp.asarray(case.allowed), later, -jnp.inf).max(axis=-1)
    return now + later.sum(axis=-1)
