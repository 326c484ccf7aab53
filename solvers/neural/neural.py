"""Fitted value iteration on the beliefs that the current policy visits.

A sweep plays the greedy policy of the network as it stands (the target network) from every root,
for the case of everything and for some of the others; each belief met comes with its one-round
backup max_a Q. Before they are used, the fresh beliefs are a held-out test: the Bellman residual
is the mean |backup - V| on them, in units of the case's scale. Then the network is fitted to the
backups by gradient steps. Backups of the last round are exact, so errors travel backward by
period and shrink by the chance of going on.

Stopping: after `sweeps`, or when the residual has not improved for `patience` of them. The
network of the smallest residual is returned. Training is float32. A network is a guess about
values: only the certificates made with it (`rollout`, `lookahead`) say anything about them.
"""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from solvers.certify import Certificate
from solvers.checks import check_fields, instance, positive, probability, whole
from solvers.devices import spread
from solvers.neural.checkpoint import NeuralCheckpoint
from solvers.neural.critic import AbstractCritic, case_scale, view
from solvers.neural.learner import AbstractLearner, Learned, Root, learning_mark
from solvers.neural.rollout import Rollout, States, rollout
from solvers.neural.training import COLUMNS, Training
from solvers.neural.value_network import ValueNetwork
from solvers.process import AbstractProcess, Case
from solvers.programs import as_program
from solvers.progress import Bar
from solvers.solution import Limits

_EXPLODED = 10.0


class Neural(AbstractLearner):
    """Approximate values of long horizons by a network, trained on what its policy visits.

    **Arguments**

    - `sweeps`, `patience`: most sweeps, and how many without improvement end the training. A
      sweep plays the network it then fits, so that the first tells how good an untrained one is;
      the network of the smallest residual is kept: of one sweep the untrained one.
    - `runs`, `steps`, `batch`: a sweep's runs for each case, its gradient steps, and beliefs of
      each case in one step. `cases`: cases in one sweep; the first root is always among them.
    - `width`, `summary`: of the network. `learning_rate`, `clip`: peak of a warm-up and cosine
      schedule, and the largest norm of a gradient.
    - `persistence`, `explore`: as in `rollout`, while training.
    - `seed`: of everything drawn; runs repeat, on any number of devices of one kind.
    - `chunk`: runs handled at once; sets the memory needed.
    - `certificate`: how hard to work for bounds, `Certificate()` by default.
    """

    sweeps: int = eqx.field(static=True, default=30)
    patience: int = eqx.field(static=True, default=10)
    runs: int = eqx.field(static=True, default=64)
    steps: int = eqx.field(static=True, default=80)
    batch: int = eqx.field(static=True, default=32)
    cases: int = eqx.field(static=True, default=6)
    width: int = eqx.field(static=True, default=32)
    summary: int = eqx.field(static=True, default=8)
    learning_rate: float = eqx.field(static=True, default=3e-3)
    clip: float = eqx.field(static=True, default=1.0)
    persistence: float = eqx.field(static=True, default=0.8)
    explore: float = eqx.field(static=True, default=0.1)
    seed: int = eqx.field(static=True, default=0)
    chunk: int = eqx.field(static=True, default=16)
    certificate: Certificate | None = None

    def __check_init__(self):
        check_fields(self, sweeps=whole(1), patience=whole(1), runs=whole(1), steps=whole(1))
        check_fields(self, batch=whole(1), cases=whole(1), width=whole(1), summary=whole(1))
        check_fields(self, chunk=whole(1), seed=whole(0))
        check_fields(self, learning_rate=positive, clip=positive)
        check_fields(self, persistence=probability, explore=probability)
        check_fields(self, certificate=instance(Certificate | None, "Certificate(...)"))

    def learn(self, process: AbstractProcess, roots: list[Root], limits: Limits, progress: bool):
        """Train from the checkpoint, if there is one, in float32; see `AbstractLearner.learn`."""
        with jax.enable_x64(False):
            start, after = begin(self), lambda training: None
            if limits.checkpoint is not None:
                keep = NeuralCheckpoint(limits.checkpoint, learning_mark(process, roots, self))
                start, after = keep.load(start) or start, keep.save
            try:
                found = train(process, roots, self, start, after, progress, limits.mesh)
            except Diverged as error:
                return Learned(None, f"training diverged, no network is used: {error}")
        done, best = int(found.sweep), int(found.best_sweep)
        note = f"{done} sweeps, the best after {best}" if done else "untrained"
        return Learned(
            jax.tree.map(np.asarray, found.best), note, np.asarray(found.history, float)[:done]
        )


class Diverged(ArithmeticError):
    """Signal that training blew up; nothing is returned."""


def begin(solver: Neural) -> Training:
    """Make an untrained network and its optimiser."""
    network = ValueNetwork(jax.random.key(solver.seed), solver.width, solver.summary)
    state = _optimiser(solver).init(eqx.filter(network, eqx.is_array))
    history = jnp.full((solver.sweeps, len(COLUMNS)), jnp.nan)
    zero = jnp.asarray(0)
    return Training(network, network, state, zero, zero - 1, history)


def train(
    process: AbstractProcess,
    roots: list[Root],
    solver: Neural,
    training: Training | None = None,
    after_sweep: Callable[[Training], None] = lambda training: None,
    progress: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> Training:
    """Train until done, from `training` if given; call it with float64 disabled.

    **Arguments:** `after_sweep` is called with the state after every sweep; what it raises ends
    the training. `mesh`: devices over which the cases that a sweep plays are spread; the network
    is fitted on one, in every process on its own.

    **Raises:** `Diverged` when a loss or residual is not finite, or ten times that of the
    untrained network.
    """
    training = begin(solver) if training is None else training
    begun = time.monotonic()
    spent = 0.0 if training.sweep == 0 else float(training.column("seconds")[-1])
    bar = Bar("training", "sweep", progress, solver.sweeps)
    bar(int(training.sweep))
    while process.horizon > 1 and not _done(training, solver):
        sweep = int(training.sweep)
        rng = np.random.default_rng([solver.seed, sweep])
        chosen = _chosen(roots, solver, rng)
        plays = [(k, True) for k in chosen] + [(0, False)]
        streams = rng.spawn(len(plays))

        def play(
            at: int,
            network: Any = training.network,
            plays: list[tuple[int, bool]] = plays,
            streams: list[np.random.Generator] = streams,
        ) -> Rollout:
            case, learning = plays[at]
            return _play(process, roots[case], network, solver, streams[at], learning)

        *found, check = spread(mesh, play, range(len(plays)))
        met = [(k, run.states) for k, run in zip(chosen, found, strict=True) if run.states]
        if not met:
            break
        residual = _residual(process, roots, met)
        network, state, loss = _fit(process, roots, met, training, solver, rng)
        seconds = spent + time.monotonic() - begun
        row = jnp.asarray([seconds, residual, loss, check.mean, check.error])
        earlier = training.column("residual")
        first = earlier[0] if len(earlier) else residual
        if not np.isfinite([residual, loss]).all() or residual > _EXPLODED * first:
            got = f"a Bellman residual of {residual:.3g}, loss {loss:.3g}, in sweep {sweep}"
            raise Diverged(f"{got} (untrained: {first:.3g})")
        better = not len(earlier) or residual < np.nanmin(earlier)
        training = Training(
            network=network,
            best=training.network if better else training.best,
            optimiser=state,
            sweep=training.sweep + 1,
            best_sweep=training.sweep if better else training.best_sweep,
            history=training.history.at[sweep].set(row),
        )
        bar(1, f"loss {loss:.2g}, residual {residual:.2g}, value {check.mean:.4g}")
        after_sweep(training)
    bar.__exit__()
    return training


def _done(training: Training, solver: Neural) -> bool:
    sweep = int(training.sweep)
    return sweep >= solver.sweeps or sweep - int(training.best_sweep) > solver.patience


def _chosen(roots: list[Root], solver: Neural, rng: np.random.Generator) -> list[int]:
    """The cases of one sweep: those that come first, then others drawn at random."""
    first = [k for k, root in enumerate(roots) if root.first]
    other = [k for k, root in enumerate(roots) if not root.first]
    first = first[:1] + rng.permutation(first[1:])[: max(solver.cases // 2 - 1, 0)].tolist()
    more = rng.permutation(other)[: solver.cases - len(first)].tolist()
    return [int(k) for k in sorted(first) + more]


def _play(
    process: AbstractProcess,
    root: Root,
    network: AbstractCritic,
    solver: Neural,
    rng: np.random.Generator,
    learning: bool,
):
    return rollout(
        process,
        root.case,
        root.ceiling,
        network,
        root.belief,
        solver.runs,
        rng,
        chunk=solver.chunk,
        persistence=solver.persistence if learning else 0.0,
        explore=solver.explore if learning else 0.0,
        keep=learning,
    )


def _residual(process: AbstractProcess, roots: list[Root], met: list[tuple[int, States]]) -> float:
    """Mean |backup - V| over beliefs that the network has not been fitted to."""
    parts = [
        np.abs(states.target - states.value) / float(case_scale(roots[k].case, process.reward))
        for k, states in met
    ]
    return float(np.concatenate(parts).mean())


def _optimiser(solver: Neural) -> optax.GradientTransformation:
    total = max(solver.sweeps * solver.steps, 2)
    warm = min(50, total // 2)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, solver.learning_rate, warm, total, 0.02 * solver.learning_rate
    )
    return optax.chain(optax.clip_by_global_norm(solver.clip), optax.adam(rate))


def _fit(
    process: AbstractProcess,
    roots: list[Root],
    met: list[tuple[int, States]],
    training: Training,
    solver: Neural,
    rng: np.random.Generator,
) -> tuple[Any, optax.OptState, float]:
    """Gradient steps on the sweep's beliefs; each case gives equally many."""
    met = [met[i % len(met)] for i in range(max(len(met), min(solver.cases, len(roots))))]
    size = solver.batch * solver.steps
    cases = jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *(
        roots[k].case for k, _ in met
    ))  # fmt: skip
    most = max(len(states.value) for _, states in met)
    padded = 256
    while padded < most:
        padded *= 2
    data = [
        jax.tree.map(lambda x: np.resize(x, (padded, *x.shape[1:])), states) for _, states in met
    ]
    states = jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *data)
    pick = np.stack([rng.integers(len(s.value), size=size) for _, s in met])
    pick = jnp.asarray(pick.reshape(len(met), solver.steps, solver.batch).swapaxes(0, 1))
    network, state, losses = _steps(
        training.network, training.optimiser, process, cases, states, pick, solver
    )
    return network, state, float(losses.mean())


@as_program
def _steps(
    network: AbstractCritic,
    state: optax.OptState,
    process: AbstractProcess,
    cases: Case,
    states: States,
    pick: Array,
    solver: Neural,
):
    optimiser = _optimiser(solver)
    views = jax.vmap(lambda case: view(process, case))(cases)
    scales = jax.vmap(lambda case: case_scale(case, process.reward))(cases)
    fixed = (cases, views, scales)
    params, static = eqx.partition(network, eqx.is_array)

    def one(carry: tuple[optax.Params, optax.OptState], rows: Array):
        params, state = carry
        part = jax.tree.map(lambda x: jax.vmap(lambda y, r: y[r])(x, rows), states)
        loss, gradient = jax.value_and_grad(_loss)(params, static, fixed, part)
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, state), losses = jax.lax.scan(one, (params, state), pick)
    return eqx.combine(params, static), state, losses


def _loss(params: optax.Params, static: Any, fixed: tuple[Case, Array, Array], states: States):
    """Mean Huber loss of the network on backups, in units of each case's scale, times 100."""
    network: Any = eqx.combine(params, static)
    cases, views, scales = fixed

    def of_case(case: Case, seen: Array, scale: Array, states: States):
        summary = states.belief @ network.summaries(seen)
        value = jax.vmap(lambda s, f, r: network(s, f, r, case, scale))(
            summary, states.fixed, states.remaining
        )
        return optax.huber_loss(value / scale, states.target / scale, delta=0.1).mean()

    return jax.vmap(of_case)(cases, views, scales, states).mean() * 100.0
