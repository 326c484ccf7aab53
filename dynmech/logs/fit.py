"""Estimate a market's behaviour, noise and tastes from a log: maximum likelihood.

The object: free coordinates x of the parameters asked for, and weights w of the taste grid. The
likelihood of `dynmech.logs.likelihood` is maximised over both: over x by a quasi-Newton method with
its exact gradient, at the weights that are best for x, which a convex program finds
(`dynmech.logs.mixture`).

Standard errors are those of
the observed information, clustered by conversation or by a person given (White 1982):

    V = H^-1 ( sum over clusters g of s_g s_g' ) H^-1,   s_g the sum of scores of g.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._checks import checked, generator, key, number, whole
from dynmech._html import Card, as_html, portrait
from dynmech._types import Record
from dynmech.errors import (
    InvalidArgument,
    NotIdentified,
    describe,
    import_extra,
    shown,
)
from dynmech.logs.chance import Chance, by_shares, rating_chance
from dynmech.logs.estimate import Problem, Spread, asked, factor_of, flat, rebuilt
from dynmech.logs.likelihood import records, tables
from dynmech.logs.log import Log
from dynmech.market.environment import RecommendationMDP
from dynmech.market.shown import acts

_MOST_DRAWN = 10**6


class Fit(Record):
    """What a log says about a market.

    - `market`: the market with the estimates in place; solve it like any other.
    - `labels`, `values` (q,), `errors` (q,): estimates in their own units and standard errors.
    - `covariance` (q, q): of `values`. `weights_error` (m,): standard errors of the taste weights,
      NaN where not estimated.
    - `loglikelihood`: at the estimates; `scale`: (a, b) of ratings, None if unknown.
    - `conversations`, `censored`: how many were used, and how many have no end in the log.
    - `rating_chance`: shares of ratings that came, None if not asked for, or estimated as a law.
    - `notes`: what is not identified or lies on an edge, one sentence each.
    """

    market: RecommendationMDP
    labels: tuple[str, ...] = eqx.field(static=True)
    values: Float[np.ndarray, " q"]
    covariance: Float[np.ndarray, "q q"]
    weights_error: Float[np.ndarray, " m"]
    loglikelihood: float
    scale: tuple[float, float] | None = eqx.field(static=True)
    conversations: int = eqx.field(static=True)
    censored: int = eqx.field(static=True)
    rating_chance: Chance | None
    notes: tuple[str, ...] = eqx.field(static=True)
    log: Log
    base: RecommendationMDP
    parameters: tuple[str, ...] = eqx.field(static=True)
    free: Float[np.ndarray, " f"]
    free_covariance: Float[np.ndarray, "f f"]
    weights_factor: Float[np.ndarray, "m r"] | None

    def __repr__(self) -> str:
        return portrait(self, _card)

    def _repr_html_(self) -> str:
        return portrait(self, _card, as_html)

    @property
    def errors(self) -> Float[np.ndarray, " q"]:
        """Standard errors of `values`."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def estimates(self) -> dict[str, tuple[float, float]]:
        """Label -> (estimate, standard error)."""
        return {
            name: (float(value), float(error))
            for name, value, error in zip(self.labels, self.values, self.errors)
        }

    @checked(confidence=number(above=0, below=1))
    def to_frame(self, confidence: float = 0.95) -> Any:
        """Estimates as a pandas DataFrame: estimate, error, lower, upper; one row a parameter.

        **Arguments:** `confidence`: level of the interval, in (0, 1); normal approximation.
        """
        from scipy.special import ndtri

        pandas = import_extra("pandas", "logs", "Fit.to_frame")
        half = float(ndtri(0.5 + confidence / 2)) * self.errors
        table = {
            "estimate": self.values,
            "error": self.errors,
            "lower": self.values - half,
            "upper": self.values + half,
        }
        return pandas.DataFrame(table, index=pandas.Index(self.labels, name="parameter"))

    def summary(self) -> str:
        """Estimates, likelihood and notes, a few lines."""
        lines = [
            f"{self.conversations} conversations ({self.censored} without an end)",
            f"log likelihood {self.loglikelihood:.2f}",
        ]
        lines += [f"  {name}: {v:.6g} ({e:.2g})" for name, (v, e) in self.estimates.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    @checked(key=key, count=whole(1, _MOST_DRAWN))
    def draws(self, key: jax.Array, count: int) -> list[RecommendationMDP]:
        """Markets drawn from the estimates' sampling distribution (approximate).

        Free coordinates (logarithms of scales, logits of chances) are normal; weights are normal
        in the directions that the log tells apart, cut at 0.

        **Arguments:** `key`: consumed; `count`: how many, at least 1.
        """
        rng = generator("Fit.draws(key=...)", key)
        root = factor_of(self.free_covariance)
        moves = self.free + rng.standard_normal((count, root.shape[1])) @ root.T
        found = asked(self.base, self.parameters)[0]
        weights = np.asarray(self.market.tastes.weights, float)
        markets = []
        for move in moves:
            drawn = weights
            if self.weights_factor is not None:
                step = self.weights_factor @ rng.standard_normal(self.weights_factor.shape[1])
                drawn = np.maximum(weights + step, 0.0)
                drawn = drawn / drawn.sum()
            market = rebuilt(self.base, found, move, drawn)
            if self.rating_chance is not None:
                shares = self.rating_chance
                step = factor_of(shares.covariance) @ rng.standard_normal(len(shares.values))
                market = shares.place(market, shares.values + step)
            markets.append(market)
        return markets

    def check(self) -> Any:
        """Observed and expected shares by round: a pandas DataFrame, rows (round, action).

        Expected: the chance of each action given what the conversation did before, at the
        estimates. `z`: their difference in standard errors; far from 0 in many rows, the model
        does not fit.
        """
        pandas = import_extra("pandas", "logs", "Fit.check")
        observed, expected, spread, count = _by_round(self)
        rows = [
            {
                "round": t + 1,
                "action": word,
                "at_risk": int(count[t]),
                "observed": observed[t, k] / count[t],
                "expected": expected[t, k] / count[t],
                "z": (observed[t, k] - expected[t, k]) / math.sqrt(max(spread[t, k], 1e-300)),
            }
            for t in range(len(count))
            for k, word in enumerate(("bought", "left", "asked"))
        ]
        return pandas.DataFrame(rows).set_index(["round", "action"])


def _card(it: Fit) -> Card:
    """Estimates beside their standard errors, and what is not identified."""
    return Card(
        f"Fit of {it.conversations} conversations, {it.censored} without an end",
        (("log likelihood", f"{it.loglikelihood:.2f}"),),
        ("parameter", "estimate", "standard error"),
        tuple(zip(it.labels, it.values.tolist(), it.errors.tolist())),
        " ".join(it.notes),
    )


def fit(
    log: Log,
    market: RecommendationMDP,
    parameters: Sequence[str],
    *,
    throw: bool = True,
    cluster: Sequence[object] | None = None,
    bootstrap: int = 0,
    key: jax.Array | None = None,
    progress: bool = True,
) -> Fit:
    """Estimate parameters of a market from a log by maximum likelihood.

    Everything that is not named stays as the market has it. Recommendations are taken as given.

    **Arguments**

    - `log`: a `Log`, its products by the market's names.
    - `market`: the market to start from: products, a taste grid, a rule, signals, as many rounds
      as the longest conversation. Symbols in the log are read by its cut points, those found for it
      where none are given.
    - `parameters`: among "choice scale", "outside option", "query", "feedback noise",
      "settlement noise", "rating scale", "rating chance", "taste weights", "taste mean",
      "taste covariance".
    - `throw`: raise `NotIdentified` for what the log does not identify; else say it in `notes`.
    - `cluster`: (N,) the person behind each conversation; by conversation if left out.
    - `bootstrap`: that many resamples of clusters in place of the information matrix; `key`:
      consumed by them, a fixed one if left out.

    **Returns:** a `Fit`. **Guarantee:** a stationary point of the likelihood; standard errors are
    asymptotic in the number of clusters.

    **Raises:** a `DynmechError` naming the argument; `NotIdentified` with the sentence that says
    what moves the likelihood by nothing.

    **References:** White (1982), Econometrica 50; Dempster, Laird, Rubin (1977), JRSS B 39.
    """
    _check_inputs(log, market, parameters)
    whole(0)("fit(bootstrap=...)", bootstrap)
    with jax.enable_x64(True):
        problem = Problem(log, market, tuple(parameters))
        free, weights = problem.maximise(problem.start(), problem.weights, None, progress)
        groups = _clusters(cluster, log)
        if bootstrap:
            spread = problem.resample(free, weights, groups, bootstrap, key, progress)
        else:
            spread = problem.information(free, weights, groups)
        shares = rating_chance(log, market, groups) if by_shares(market, parameters) else None
        return _finish(problem, free, weights, spread, shares, throw)


def _check_inputs(log: object, market: object, parameters: Any) -> None:
    if not isinstance(log, Log):
        do = "read one with Log.from_frame"
        raise InvalidArgument(describe("fit(log=...)", "be a Log", type(log), do))
    if not isinstance(market, RecommendationMDP):
        must = "be a RecommendationMDP"
        raise InvalidArgument(describe("fit(market=...)", must, type(market)))
    try:
        names = [] if isinstance(parameters, str | bytes) else list(parameters)
    except TypeError:  # arrays of no axis say so when they are read
        names = []
    words = all(isinstance(name, str) for name in names)
    if not names or not words or len(set(names)) < len(names):
        must = "be a list of different parameters' names"
        raise InvalidArgument(describe("fit(parameters=...)", must, shown(parameters)))
    both = {"taste mean", "taste covariance"} <= set(names)
    anchored = log.scale is not None and np.isfinite(log.rating).any()
    if both and "choice scale" in names and not anchored:
        must = "leave one scale fixed in money"
        got = "choice scale with taste mean and taste covariance, and no ratings in money"
        do = "fix the choice scale, or give ratings with scale=(a, b)"
        raise NotIdentified(describe("fit(parameters=...)", must, got, do))
    if "taste weights" in names and {"taste mean", "taste covariance"} & set(names):
        must = "move the taste grid or its weights, not both"
        raise NotIdentified(describe("fit(parameters=...)", must, names, "leave one out"))
    if "rating chance" in names and not np.isfinite(log.rating).any():
        must = "hold ratings for their chance to be estimated"
        raise InvalidArgument(describe("fit(log=...)", must, "none"))


def _clusters(cluster: Sequence[object] | None, log: Log) -> Int[np.ndarray, " N"]:
    if cluster is None:
        return np.arange(len(log))
    try:
        given = np.asarray(cluster)
    except Exception:  # ragged lists, and keys of jax.random
        given = np.zeros(())
    if given.shape != (len(log),):
        must = f"have shape (N,) = ({len(log)},), one a conversation"
        raise InvalidArgument(describe("fit(cluster=...)", must, shown(cluster)))
    return np.unique(given, return_inverse=True)[1].reshape(-1)


def _finish(
    problem: Problem,
    free: np.ndarray,
    weights: np.ndarray,
    spread: Spread,
    shares: Chance | None,
    throw: bool,
) -> Fit:
    """Estimates in their own units, by the delta method, and what is not identified."""
    notes = [flat(problem.labels, direction) for direction in spread.flat.T]
    same = ", ".join(problem.labels[k] for k in np.flatnonzero(spread.alike))
    if same:
        notes.append(f"every cluster of conversations says the same of {same}: they are no sample")
    if notes and throw:
        must = "be identified by the log"
        do = "fix one of them, log more, or pass throw=False"
        raise NotIdentified(describe("fit(parameters=...)", must, "; ".join(notes), do))

    def entries(x: Array):
        at, out = 0, []
        for one in problem.found:
            out.append(one.entries(x[at : at + one.size]))
            at += one.size
        if problem.scaled:
            out += [x[-2:-1], jnp.exp(x[-1:])]
        return jnp.concatenate(out) if out else jnp.zeros(0)

    x = jnp.asarray(free)
    values = np.asarray(entries(x), float)
    jacobian = np.asarray(jax.jacfwd(entries)(x), float).reshape(len(values), len(free))
    covariance = jacobian @ spread.free @ jacobian.T
    labels = list(problem.labels)
    fitted = rebuilt(problem.market, problem.found, free, weights)
    if shares is not None:
        labels, q = [*labels, *shares.labels], len(values)
        values = np.append(values, shares.values)
        grown = np.zeros((len(values),) * 2)
        grown[:q, :q], grown[q:, q:] = covariance, shares.covariance
        covariance, fitted = grown, shares.place(fitted, shares.values)
    read, log = problem.market.signals, problem.log
    heard = ((log.signal >= 0).any(), read.feedback), (log.first is not None, read.initial)
    if any(logged and device.finds_cuts() for logged, device in heard):
        notes.append(
            "symbols are read by the cut points found in the market given: where another market's "
            "device wrote them, pass its cuts="
        )
    if problem.weighted:
        alive = int((weights > 1e-6).sum())
        notes.append(f"{alive} of {len(weights)} tastes carry weight")
    a, b = problem.model.scale_at(x)
    scale = (float(a), float(b)) if problem.scaled else problem.log.scale
    factor = spread.weights
    error = np.full(len(weights), np.nan) if factor is None else np.sqrt((factor**2).sum(axis=1))
    value = float(problem.data.weight @ problem.each(free, weights))
    return Fit(
        market=fitted,
        labels=tuple(labels),
        values=values,
        covariance=covariance,
        weights_error=error,
        loglikelihood=value,
        scale=scale,
        conversations=len(problem.log),
        censored=problem.log.censored,
        rating_chance=shares,
        notes=tuple(notes),
        log=problem.log,
        base=problem.market,
        parameters=problem.names,
        free=np.asarray(free, float),
        free_covariance=spread.free,
        weights_factor=factor,
    )


def _by_round(found: Fit):
    """Observed and expected numbers (T, 3) of purchases, exits and queries, variance, number."""
    env = found.market
    with jax.enable_x64(True):
        data = records(found.log, env)
        met = data.situations
        table = tables(env, met, found.scale or (0.0, 1.0))
        rule, utilities = env.action_rule, jnp.asarray(env.utilities)
        act = jax.vmap(lambda h, r: acts(rule, h, r, utilities))(
            jnp.asarray(met.memory), jnp.asarray(met.shown)
        )
    n, rounds = env.products, data.paths.shape[1]
    act = np.asarray(act, float)
    chance = np.stack([act[:, :n].sum(axis=1), act[:, n], act[:, n + 1]], axis=1)  # (E, 3, m)
    done, heard = np.asarray(table.done), np.asarray(table.heard)
    logs = np.asarray(table.opening)[data.opening[data.path]]
    logs = logs + np.log(np.maximum(np.asarray(env.tastes.weights, float), 1e-300))
    asked = met.kinds[:, 2] == 0
    when = np.where(asked, met.period[met.kinds[:, 0]], rounds)
    observed, expected, spread = (np.zeros((rounds, 3)) for _ in range(3))
    number = np.zeros(rounds)
    for t in range(rounds):
        cell = data.paths[data.path, t]
        here = np.flatnonzero(cell >= 0)
        edge, action = met.cell[cell[here]].T
        belief = np.exp(logs[here] - logs[here].max(axis=1, keepdims=True))
        belief /= belief.sum(axis=1, keepdims=True)
        share = np.einsum("cm,ckm->ck", belief, chance[edge])
        kind = np.where(action < n, 0, action - n + 1)
        weight = data.weight[here]
        observed[t] = np.bincount(kind, weight, 3)
        expected[t] = weight @ share
        spread[t] = weight @ (share * (1 - share))
        number[t] = weight.sum()
        logs[here] += done[cell[here]]
        said = data.said[data.path[here], t]
        logs[here[said >= 0]] += heard[said[said >= 0]]
        for k in np.flatnonzero(when == t):
            logs += data.sums[:, k] @ np.asarray(table.rated[k])
    return observed, expected, spread, number
