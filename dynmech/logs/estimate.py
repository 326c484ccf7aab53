"""Maximise the likelihood of one log under one market, and how sure the maximum is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dynmech._types import Record
from dynmech.errors import InvalidArgument, NotIdentified, describe
from dynmech.logs.blocks import Blocks, blocks
from dynmech.logs.chance import by_shares
from dynmech.logs.likelihood import Records, records
from dynmech.logs.log import Log
from dynmech.logs.mixture import mixture_weights
from dynmech.logs.parameters import Parameter, parameter, spread
from dynmech.logs.programs import Model, given_taste, joint, placed_in, ratios, slope_of
from dynmech.market.environment import RecommendationMDP
from dynmech.market.tastes import TasteGrid

_STEEP = 1e-7  # slope of a conversation's likelihood, per unit, at which the search ends
_FLAT = 1e-8  # information that the others leave of a coordinate's own, below which it is none
_SAME = 1e-10  # of the variance that the information says, below which nothing was sampled
_PADDED = 64
_MOST_RATING = 1e100
_MOST = 2.5e8  # likelihoods kept in float64; more are kept in float32


def asked(market: RecommendationMDP, names: Sequence[str]):
    """Parameters with coordinates in the market, and the names of the others."""
    others = ["rating scale", "taste weights"]
    if by_shares(market, names):
        others.append("rating chance")
    found = [p for name in names if name not in others for p in parameter(market, name)]
    return found, [name for name in names if name in others]


def rebuilt(
    market: RecommendationMDP, found: Sequence[Parameter], free: np.ndarray, weights: np.ndarray
) -> RecommendationMDP:
    """The market with estimates in place, through its constructor's checks."""
    with jax.enable_x64(True):
        placed = jax.tree.map(
            lambda x: np.asarray(x) if isinstance(x, jax.Array) else x,
            placed_in(market, found, jnp.asarray(free)),
        )
    return RecommendationMDP(
        placed.gamma,
        TasteGrid(np.asarray(placed.tastes.points, float), weights),
        market.horizon,
        placed.action_rule,
        placed.signals,
        placed.values,
        placed.names,
        market.displays,
        round_cost=market.round_cost,
        exit_value=market.exit_value,
    )


class Spread(Record):
    """Sampling covariance of free coordinates (q, q) and a factor of that of weights (m, r)."""

    free: Float[np.ndarray, "q q"]
    weights: Float[np.ndarray, "m r"] | None
    flat: Float[np.ndarray, "q f"]  # directions that the log says nothing about
    alike: Bool[np.ndarray, " q"]  # of which every cluster says the same


class Problem:
    """One log read by one market, and the likelihood of it."""

    def __init__(self, log: Log, market: RecommendationMDP, names: tuple[str, ...]):
        self.log, self.market, self.names = log, market, names
        _check_ratings(log)
        self.data: Records = records(log, market)
        self.found, rest = asked(market, names)
        self.scaled = "rating scale" in rest
        self.weighted = "taste weights" in rest
        self.weights = np.asarray(market.tastes.weights, float)
        if self.data.rated and log.scale is None and not self.scaled:
            must = "say what ratings mean in money"
            do = 'pass scale=(a, b) to Log.from_frame, or estimate "rating scale"'
            raise InvalidArgument(describe("fit(log=...)", must, "ratings without a scale", do))
        if self.scaled and not self.data.rated:
            must = "hold numeric ratings for their scale to be estimated"
            raise InvalidArgument(describe("fit(log=...)", must, "none that the market can read"))
        if self.scaled and np.ptp(log.rating[np.isfinite(log.rating)]) == 0:
            must, got = "hold ratings that differ for their scale to be estimated", "all alike"
            do = "pass scale=(a, b) to Log.from_frame, or leave the ratings out"
            raise NotIdentified(describe("fit(log=...)", must, got, do))
        unit = [np.asarray(p.unit, float) for p in self.found]
        unit += [np.array([self._rating_spread(), 1.0])] if self.scaled else []
        self.unit = np.concatenate(unit) if unit else np.zeros(0)
        self.parts: Blocks = blocks(self.data)
        self.labels = [x for p in self.found for x in p.labels]
        if self.scaled:
            self.labels += ["rating scale: a", "rating scale: b"]
        small = self.parts.weight.size * len(self.weights) < _MOST
        self.kind = np.float64 if small else np.float32
        self.model = Model(market, tuple(self.found), self.data.situations, self._known_scale())
        self._possible()

    def start(self) -> np.ndarray:
        """Free coordinates of the market given; ratings are matched in mean and spread."""
        pieces = [p.start for p in self.found]
        if self.scaled:
            sums = self.data.sums.sum(axis=(0, 1))
            u = np.asarray(self.market.utilities, float)
            mean = float((self.weights * u).sum() / len(u))
            ratio = self._rating_spread() / spread(self.market)
            pieces.append(np.array([sums[1] / sums[0] - ratio * mean, math.log(ratio)]))
        return np.concatenate(pieces) if pieces else np.zeros(0)

    def _rating_spread(self) -> float:
        """Standard deviation of the ratings, in their own unit; 1 where they are all the same."""
        sums = self.data.sums.sum(axis=(0, 1))
        mean = sums[1] / sums[0]
        variance = sums[2] / sums[0] - mean**2
        return math.sqrt(variance) if variance > 1e-12 * mean**2 else max(abs(mean), 1.0)

    def _known_scale(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.scaled:
            return None
        a, b = self.log.scale or (0.0, 1.0)
        return np.asarray(a, float), np.asarray(b, float)

    def carrying(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tastes with weight, padded with some without so that shapes are few; the weights."""
        order = np.argsort(-np.asarray(weights), kind="stable")
        size = min(-(-max(int((weights > 0).sum()), 1) // _PADDED) * _PADDED, len(weights))
        on = np.sort(order[:size])
        return np.asarray(weights, float)[on], on

    def each(self, free: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """log P of every record, (N,)."""
        found = joint(self.model, jnp.asarray(free), *self.carrying(weights), self.parts)
        return np.asarray(found, float).ravel()[: len(self.data.path)]

    def differences(
        self, function: Callable[[np.ndarray], np.ndarray], free: np.ndarray
    ) -> np.ndarray:
        """Central differences of a function of the free coordinates, along a last axis (q,)."""
        steps = 1e-4 * (self.unit + np.abs(free))
        columns = [
            (function(free + step) - function(free - step)) / (2 * size)
            for size, step in zip(steps, np.diag(steps))
        ]
        return np.stack(columns, axis=-1)

    def _possible(self) -> None:
        """Raise if some conversation has chance zero at every taste under the market given."""
        never = np.flatnonzero(self.each(self.start(), self.weights) < -500)
        if len(never) and not self.scaled:
            where = int(np.flatnonzero(self.data.of == never[0])[0])
            must = "be possible under the market"
            got = f"conversation {self.log.conversations[where]}, of chance zero at every taste"
            do = "let the rule tremble (Trembling(rule, chance)), or leave it out"
            raise InvalidArgument(describe("fit(log=...)", must, got, do))

    def maximise(self, free: np.ndarray, weights: np.ndarray, parts: Blocks | None, progress: bool):
        """Coordinates and weights at which the likelihood is stationary.

        At any coordinates the best weights solve a convex problem, for which the likelihood of
        every conversation under every taste is worked out once. What moves is the likelihood at
        its best weights; its slope is that with these weights held (Danskin).
        """
        parts = self.parts if parts is None else parts
        count, held = float(parts.weight.sum()), np.asarray(weights, float)
        free = np.asarray(free, float)

        def objective(moved: np.ndarray):
            nonlocal held
            at = self.unit * moved
            if self.weighted:
                held = self._best_weights(at, held, parts)
            value, slope = self._sloped(at, held, parts)
            return value / count, self.unit * slope / count

        if len(free):
            free = self.unit * self._climb(objective, free / self.unit, progress)
        if self.weighted:
            held = self._best_weights(free, held, parts)
        return free, held

    def _sloped(
        self, free: np.ndarray, weights: np.ndarray, parts: Blocks
    ) -> tuple[float, np.ndarray]:
        """Minus the log likelihood and its slope."""
        value, slope = slope_of(self.model, jnp.asarray(free), *self.carrying(weights), parts)
        return float(value), np.asarray(slope, float)

    def _best_weights(self, free: np.ndarray, weights: np.ndarray, parts: Blocks) -> np.ndarray:
        found = given_taste(self.model, self.kind, jnp.asarray(free), parts)
        found = np.asarray(found).reshape(-1, len(weights))
        live = parts.weight.ravel() > 0
        often = parts.weight.ravel()[live]
        return mixture_weights(found if live.all() else found[live], often, weights)

    def _climb(
        self,
        objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
        x: np.ndarray,
        progress: bool,
    ) -> np.ndarray:
        from scipy.optimize import minimize
        from tqdm import tqdm

        with tqdm(desc="fit", unit="step", disable=not progress, leave=False) as bar:
            found = minimize(
                objective,
                x,
                jac=True,
                method="BFGS",
                options={"maxiter": 2000, "gtol": _STEEP},
                callback=lambda _: bar.update(),
            )
        return np.asarray(found.x, float)

    def information(self, free: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> Spread:
        """Clustered sandwich; with weights, the outer product of scores of both."""
        count, q = len(self.data.path), len(free)
        active = np.flatnonzero(weights > 1e-6) if self.weighted else np.zeros(0, int)
        if not q and len(active) < 2:
            return Spread(np.zeros((0, 0)), None, np.zeros((0, 0)), np.zeros(0, bool))
        score = np.zeros((count, 0))
        if q:
            score = self.differences(lambda at: self.each(at, weights), free) * self.unit
        basis = np.zeros((len(weights), 0))
        if len(active) > 1:
            # weights move along directions that keep their sum
            basis = np.zeros((len(weights), len(active) - 1))
            basis[active] = np.linalg.svd(np.ones((1, len(active))))[2][1:].T
            some, on = self.carrying(weights)
            ratio = np.asarray(ratios(self.model, jnp.asarray(free), some, on, self.parts))
            ratio = ratio.reshape(-1, len(on))[:count]
            score = np.concatenate([score, ratio @ basis[on]], axis=1)
        of = self.data.of
        number = int(groups.max()) + 1
        total = np.zeros((number, score.shape[1]))
        np.add.at(total, groups, score[of])
        meat = total.T @ total
        if basis.shape[1]:
            bread = (score * self.data.weight[:, None]).T @ score
        else:
            bread = self.differences(
                lambda at: np.asarray(
                    slope_of(self.model, jnp.asarray(at), *self.carrying(weights), self.parts)[1],
                    float,
                ),
                free,
            )
            bread = self.unit[:, None] * bread * self.unit
        inverse, flat = _inverse(bread, q, len(self.log))
        covariance = inverse @ meat @ inverse
        factor = basis @ factor_of(covariance[q:, q:]) if basis.shape[1] else None
        sampled, known = np.diag(covariance)[:q], np.diag(inverse)[:q]
        unscaled = self.unit[:, None] * covariance[:q, :q] * self.unit
        return Spread(unscaled, factor, flat[:q], (sampled <= _SAME * known) & (known > 0))

    def resample(
        self,
        free: np.ndarray,
        weights: np.ndarray,
        groups: np.ndarray,
        number: int,
        key: jax.Array | None,
        progress: bool,
    ) -> Spread:
        """Refit on resampled clusters, from the estimates."""
        key = jax.random.key(0) if key is None else key
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
        of, size, clusters = self.data.of, len(self.data.path), int(groups.max()) + 1
        found = []
        for _ in range(number):
            times = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)[groups]
            again = np.bincount(of, times.astype(float), size)
            found.append(self.maximise(free, weights, blocks(self.data, again), progress))
        moves = np.stack([f for f, _ in found]) if len(free) else np.zeros((number, 0))
        covariance = (
            np.cov(moves.T).reshape(len(free), len(free))
            if number > 1
            else np.zeros((len(free),) * 2)
        )
        factor = None
        if self.weighted:
            shift = np.stack([w for _, w in found])
            factor = (shift - shift.mean(axis=0)).T / math.sqrt(max(number - 1, 1))
        return Spread(covariance, factor, np.zeros((len(free), 0)), np.zeros(len(free), bool))


def _check_ratings(log: Log) -> None:
    """Raise for ratings whose squares, as they are or in money, are no numbers."""
    a, b = log.scale or (0.0, 1.0)
    met = log.rating[np.isfinite(log.rating)]
    with np.errstate(over="ignore"):
        most = max(np.abs(met).max(initial=0.0), np.abs((met - a) / b).max(initial=0.0))
    if not most < _MOST_RATING:
        must = f"hold ratings of a size below {_MOST_RATING:g}, in money too"
        do = "look at the ratings, and at scale=(a, b) of Log.from_frame"
        raise InvalidArgument(describe("fit(log=...)", must, f"{most:.3g}", do))


def _inverse(matrix: np.ndarray, free: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse on the directions that carry information, and the directions that do not.

    Of the first `free` coordinates, in their units, a slope below that at which the search ends is
    none, `count` conversations together; the others are weights.
    """
    own = np.diag(matrix)
    least = np.where(np.arange(len(own)) < free, 2 * _STEEP * count, _FLAT * own.max(initial=0.0))
    held, dead = np.flatnonzero(own > least), np.flatnonzero(own <= least)
    scale = 1 / np.sqrt(own[held])
    shape = (matrix + matrix.T)[np.ix_(held, held)] / 2
    values, vectors = np.linalg.eigh(scale[:, None] * shape * scale)
    known, every = values > _FLAT, np.eye(len(own))
    inside = every[:, held] @ (scale[:, None] * vectors[:, known])
    flat = np.concatenate([every[:, dead], every[:, held] @ vectors[:, ~known]], axis=1)
    return inside @ np.diag(1 / values[known]) @ inside.T, flat


def factor_of(covariance: np.ndarray) -> np.ndarray:
    """A square root of a covariance matrix that may be singular."""
    if not len(covariance):
        return covariance
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def flat(labels: Sequence[str], direction: np.ndarray) -> str:
    """In words, a direction that a log says nothing about; labels of the free coordinates."""
    least = max(0.1 * np.abs(direction).max(initial=0.0), 1e-6)
    large = np.flatnonzero(np.abs(direction) > least).tolist()
    names = ", ".join(labels[k] for k in large) or "taste weights that the log cannot tell apart"
    return f"the likelihood does not move along {names}"
