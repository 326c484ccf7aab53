"""The conditional means of any estimator, at every situation and report where it matters.

A situation is what the user remembers after a recommendation, and that recommendation. An
estimator is a settlement signal, a table of tastes, or a function of the reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._types import Numbers, as_floats, precision
from dynmech.errors import InvalidArgument, TooLarge, describe, require_finite
from dynmech.market.displays import displays_named
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.roots import all_profiles, signal_likelihood
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.shown import alone
from dynmech.market.values import prior_probability
from dynmech.problem.compile import next_memories
from dynmech.problem.edges import Compiled
from solvers.programs import as_program

Reports = tuple[tuple[int, ...], tuple[int, ...]]
_CELLS = 4_000_000
_CALLS = 1_000_000
_SPAN = 1e-9


@as_program
def _signal_means(
    signal: AbstractSettlementSignal,
    memory: Numbers,
    recommendation: Numbers,
    gains: Numbers,
    prediction: Numbers,
):
    def one(memory: Numbers, recommendation: Numbers):
        mean = signal.mean(memory, recommendation, gains)
        follows = signal.moments(memory, recommendation, gains, jnp.zeros_like(gains))
        return mean if follows is None else mean + follows[0] * prediction

    return jax.vmap(one)(jnp.asarray(memory), jnp.asarray(recommendation))


def means_of(
    call: str, estimator: Any, env: RecommendationMDP, compiled: Compiled, end: int | None = None
):
    """Yield (first situation, means (s, n, m)) in pieces.

    **Arguments:** `end`: where the estimate follows what the mechanism predicts of each product,
    0 for the least that it can predict, 1 for the most.
    """
    n, m = env.products, env.tastes.size
    known = isinstance(estimator, AbstractSettlementSignal)
    table = None if known else _table(call, estimator, env)
    step = max(1, _CELLS // (n * m))
    prediction = np.zeros((n, 1))
    if end is not None:
        prediction = (np.minimum, np.maximum)[end].reduce(env.gains, axis=1, keepdims=True)
        prediction = (np.minimum, np.maximum)[end](prediction, 0.0)
    for first in range(0, len(compiled.situation), step):
        part = slice(first, first + step)
        memory, shown = compiled.situation[part], compiled.shown[part]
        if table is not None:
            yield first, np.broadcast_to(table, (len(memory), n, m))
            continue
        with precision(env.gamma):
            gains = jnp.asarray(env.gains)
            means = np.asarray(
                _signal_means(estimator, memory, alone(env.controls[shown]), gains, prediction)
            )
        yield first, _checked(call, means, (len(memory), n, m))


def reported_means(estimator: Any, env: RecommendationMDP, compiled: Compiled, reports: Reports):
    """Yield (first situation, means (1, n, m)) of a function of the reports."""
    theta, signals = (np.array(x) for x in reports)
    call = "check_assumption_3(estimator=...)"
    rows = env.controls[compiled.shown]
    one = rows.shape[1] == 1
    for s, (memory, row) in enumerate(zip(compiled.situation, rows, strict=True)):
        shown = int(row[0]) if one else row
        means = np.asarray(estimator(theta, signals, memory, shown), float)
        yield s, _checked(call, means[None], (1, env.products, env.tastes.size))


def _checked(call: str, means: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if means.shape != shape:
        must = f"have means of shape {shape[1:]}, the products and tastes of this market"
        raise InvalidArgument(describe(call, must, f"shape {means.shape[1:]}"))
    require_finite(call, means)
    return means


def _table(call: str, given: npt.ArrayLike, env: RecommendationMDP) -> Float[np.ndarray, "n m"]:
    """E[<gamma_j, omega_hat> - x | omega, j bought] from a table of tastes in the grid's span."""
    n = env.products
    points = np.asarray(env.tastes.points, float)
    if isinstance(given, str) or np.ndim(as_floats(given, call)) not in (2, 3):
        must = "be a settlement signal, a function of reports, or a table of tastes"
        raise InvalidArgument(describe(call, must, type(given).__name__))
    table = np.asarray(as_floats(given), float)
    if table.shape not in (points.shape, (n, *points.shape)):
        must = f"have shape {points.shape} or {(n, *points.shape)}"
        raise InvalidArgument(describe(call, must, f"shape {table.shape}"))
    require_finite(call, table)
    centre, scale = points.mean(axis=0), float(np.abs(points).max())
    _, singular, axes = np.linalg.svd(points - centre, full_matrices=False)
    axes = axes[singular > max(points.shape) * np.finfo(float).eps * max(scale, singular[0])]
    away = table - centre
    away = away - (away @ axes.T) @ axes
    distance = float(np.abs(away).max())
    if distance > _SPAN * max(scale, 1e-300):
        must = "stay in the affine span of the taste grid, where every average of tastes lies"
        where = tuple(int(i) for i in np.unravel_index(np.abs(away).argmax(), away.shape))
        got = f"a distance of {distance:.3g} at index {where}"
        do = "estimate coordinates that no taste varies as the constants they are"
        raise InvalidArgument(describe(call, must, got, do))
    settled = np.einsum("jk,jmk->jm", env.gamma, np.broadcast_to(table, (n, *points.shape)))
    return settled - np.asarray(env.exit_value)


def possible_reports(
    env: RecommendationMDP, profiles: Profiles | None, situations: int
) -> Iterator[Reports]:
    """Initial reports of positive probability: those of `profiles`, or all of them."""
    count = math.prod(env.profile_shape) if profiles is None else len(profiles)
    if count * situations > _CALLS:
        must = f"be called at most {_CALLS} times"
        got = f"{count} profiles of reports x {situations} situations"
        do = "pass a policy solved for fewer initial profiles"
        raise TooLarge(describe("check_assumption_3(estimator=...)", must, got, do))
    given = all_profiles(env) if profiles is None else profiles
    theta, signals = given.theta, given.signals
    chance = np.ones(count) if profiles is not None else prior_probability(env.values, theta)
    law = np.asarray(signal_likelihood(env, signals)) @ np.asarray(env.tastes.weights)
    possible = np.flatnonzero((law > 0) & (chance > 0))
    for k in possible:
        yield tuple(theta[k].tolist()), tuple(signals[k].tolist())


def shortest_histories(
    env: RecommendationMDP, compiled: Compiled, wanted: list[int]
) -> dict[int, tuple[Any, ...]]:
    """The first sequence of recommendations that leads to each situation wanted."""
    n, horizon = env.products, int(env.horizon)
    names = displays_named(env, np.arange(len(env.controls)))
    keys = {s: (*compiled.situation[s].tolist(), int(compiled.shown[s])) for s in wanted}
    missing, found = set(keys.values()), {}
    layer: dict[tuple[Any, ...], tuple[Any, ...]] = {tuple(env.unaware.tolist()): ()}
    for _ in range(horizon):
        if not missing:
            break
        with precision(env.gamma):
            here = np.array(list(layer))
            grown = np.asarray(next_memories(env.action_rule, here, env.controls, n)).tolist()
        following: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for path, row in zip(layer.values(), grown, strict=True):
            for r, after in enumerate(row):
                longer = (*path, names[r])
                following.setdefault(tuple(after), longer)
                if (*after, r) in missing:
                    missing.remove((*after, r))
                    found[(*after, r)] = longer
        layer = following
    return {s: found[key] for s, key in keys.items()}
