"""What a log can say about a market: each parameter, where it stands, and its free coordinates.

A part of a market (a choice, a query, a feedback, a rule of your own) declares what can be
estimated in it by a class attribute

    estimable: ClassVar = {"choice scale": (("scale", "positive"),)}

name of the parameter -> (field, domain) pairs; domains are "positive", "unit" and "real". Free
coordinates are log x, logit x and x. What moves the whole market (tastes, the outside option, the
rating scale) is built in here.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynmech._types import Numbers, Record
from dynmech.errors import InvalidArgument, OutsideSupport, describe, shown
from dynmech.market.environment import RecommendationMDP

Free = Float[Array, " q"]
TASTES = ("taste weights", "taste mean", "taste covariance")
SCALES = ("choice scale", "outside option", "query", "feedback noise", "settlement noise")
OTHERS = ("rating scale", "rating chance")
NAMES = (*SCALES, *OTHERS, *TASTES)

# Free coordinate of x, and x of a free coordinate.
DOMAINS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "positive": (np.log, jnp.exp),
    "unit": (lambda x: np.log(x / (1 - x)), jax.nn.sigmoid),
    "real": (lambda x: x, lambda x: x),
}


class Parameter(Record):
    """One parameter of a fit: `size` free coordinates.

    `labels`: of its entries, one each; `start`: free coordinates of the market given; `unit`: by
    how much each has to move to matter, 1 of logarithms and logits.
    """

    labels: tuple[str, ...] = eqx.field(static=True)
    start: Float[np.ndarray, " q"]
    unit: Float[np.ndarray, " q"]

    @abc.abstractmethod
    def place(self, env: Any, free: Free) -> Any:
        """The market with these coordinates in place; traced."""

    @abc.abstractmethod
    def entries(self, free: Free) -> Array:
        """The estimates that coordinates stand for, (size,); traced."""

    @property
    def size(self) -> int:
        return len(self.start)


class _Field(Parameter):
    """A numeric field of a part of the market, or the factor that all of it moves by."""

    path: tuple[str, ...] = eqx.field(static=True)
    domain: str = eqx.field(static=True)
    value: Float[np.ndarray, "..."]
    factor: bool = eqx.field(static=True)

    def place(self, env: Any, free: Free):
        if self.factor:
            return _put(env, self.path, jnp.exp(free[0]) * self.value)
        return _put(env, self.path, self.entries(free).reshape(self.value.shape))

    def entries(self, free: Free):
        return DOMAINS[self.domain][1](free)


class _Moved(Parameter):
    """A point by which all tastes move, `free` along the rows of `move`, from `start`."""

    move: Float[np.ndarray, "q k"]

    def place(self, env: Any, free: Free):
        return _points(env, env.tastes.points + (free - self.start) @ self.move)

    def entries(self, free: Free):
        return free


class _Covariance(Parameter):
    """Covariance of the taste by its Cholesky factor, the diagonal in logarithms."""

    standard: Float[np.ndarray, "m v"]
    factor: Float[np.ndarray, "v v"]
    move: Float[np.ndarray, "v k"]

    def lower(self, free: Free) -> Float[Array, "v v"]:
        row, col = np.tril_indices(len(self.factor))
        filled = jnp.where(row == col, jnp.exp(free), free)
        return jnp.zeros(self.factor.shape).at[row, col].set(filled)

    def place(self, env: Any, free: Free):
        moved = self.standard @ (self.lower(free) - self.factor).T
        return _points(env, env.tastes.points + moved @ self.move)

    def entries(self, free: Free):
        row, col = np.tril_indices(len(self.factor))
        return (self.lower(free) @ self.lower(free).T)[row, col]


def parameter(env: RecommendationMDP, name: str) -> list[Parameter]:
    """The parameter of that name in a market; several where it has several fields.

    **Raises:** `OutsideSupport` for an unknown name; `InvalidArgument` where the market has no
    such parameter.
    """
    if name == "round cost":
        must = "be identified by a log of what users do"
        got = "round cost: it does not move behaviour under a primitive rule"
        raise InvalidArgument(describe("fit(parameters=...)", must, got, "set round_cost= by hand"))
    if name not in NAMES:
        must = f"name parameters among {', '.join(NAMES)}"
        raise OutsideSupport(describe("fit(parameters=...)", must, shown(name)))
    if name in _BUILDERS:
        return [_BUILDERS[name](env)]
    found = [
        _field(env, path, field, domain, name)
        for path, part in parts(env)
        for field, domain in getattr(type(part), "estimable", {}).get(name, ())
    ]
    if not found:
        must = f"name parameters that the market has: nothing in it declares {name!r}"
        do = "leave it out, or use a rule, choice, query or feedback with that parameter"
        raise InvalidArgument(describe("fit(parameters=...)", must, shown(name), do))
    return found


def parts(tree: eqx.Module, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every module inside a module, with the names of the fields that lead to it."""
    yield path, tree
    for field in dataclasses.fields(tree):
        part = getattr(tree, field.name, None)
        if isinstance(part, eqx.Module):
            yield from parts(part, (*path, field.name))


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = getattr(tree, name)
    return tree


def _field(
    env: RecommendationMDP, path: tuple[str, ...], field: str, domain: str, name: str
) -> Parameter:
    """One numeric field of one part; an array along tastes moves by a common factor."""
    value = np.asarray(_at(env, (*path, field)), float)
    m = env.tastes.size
    label = name if field in ("scale", "level", "deviation", "noise") else f"{name}: {field}"
    if m > 1 and value.ndim and value.shape[-1] == m:
        if domain != "positive":
            must = "be the same for every taste to be estimated"
            raise InvalidArgument(
                describe(f"{type(_at(env, path)).__name__}({field}=...)", must, value.shape)
            )
        one = np.zeros(1), np.ones(1)
        return _Field((f"{label} (factor)",), *one, (*path, field), domain, value, True)
    inside = np.clip(value, 1e-6, 1 - 1e-6) if domain == "unit" else value
    start = np.asarray(DOMAINS[domain][0](inside), float).ravel()
    unit = np.where((domain != "real") | (start == 0), 1.0, np.abs(start))
    labels = _entry_labels(label, value, env)
    return _Field(labels, start, unit, (*path, field), domain, value, False)


def _entry_labels(label: str, value: np.ndarray, env: RecommendationMDP) -> tuple[str, ...]:
    if value.size == 1:
        return (label,)
    by_product = len(value) == env.products
    heads = env.names if by_product else [f"round {t + 1}" for t in range(len(value))]
    rest = value.size // len(value)
    return tuple(
        f"{label}: {head}" if rest == 1 else f"{label}: {head}, {k}"
        for head in heads
        for k in range(rest)
    )


def _put(env: RecommendationMDP, path: tuple[str, ...], value: Numbers) -> RecommendationMDP:
    return eqx.tree_at(lambda e: _at(e, path), env, value)


def _points(env: RecommendationMDP, points: Numbers) -> RecommendationMDP:
    return eqx.tree_at(lambda e: e.tastes.points, env, points)


def constant_column(env: RecommendationMDP) -> int:
    """The characteristic that is the same, not 0, for all products; it carries the outside option.

    **Raises:** `InvalidArgument` where there is none.
    """
    gamma = np.asarray(env.gamma, float)
    same = (gamma == gamma[:1]).all(axis=0) & (gamma[0] != 0)
    if not same.any():
        must = (
            "have a characteristic that is the same for all products, to carry the outside option"
        )
        do = "add a column of ones to gamma and a taste for it"
        raise InvalidArgument(describe("RecommendationMDP(gamma=...)", must, "none", do))
    return int(np.argmax(same))


def spread(env: RecommendationMDP) -> float:
    """Standard deviation of utilities over products and tastes, money; 1 where there is none."""
    u, weights = np.asarray(env.utilities, float), np.asarray(env.tastes.weights, float)
    mean = (weights * u).sum() / len(u)
    found = float(np.sqrt((weights * (u - mean) ** 2).sum() / len(u)))
    return found if found > 0 else 1.0


def _outside(env: RecommendationMDP) -> Parameter:
    """Utility v of the outside option, money: every u_i falls by v, from today's."""
    column = constant_column(env)
    unit = np.eye(env.gamma.shape[1])[column] / float(env.gamma[0, column])
    return _Moved(("outside option",), np.zeros(1), np.full(1, spread(env)), -unit[None])


def _standard(env: RecommendationMDP) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean (k,), varying characteristics (v,), factor (v, v) and standardised points (m, v)."""
    points, weights = np.asarray(env.tastes.points, float), np.asarray(env.tastes.weights, float)
    mean = weights @ points
    spread = weights @ (points - mean) ** 2
    varying = np.flatnonzero(spread > 1e-12 * mean**2)
    centred = (points - mean)[:, varying]
    covariance = (weights[:, None] * centred).T @ centred
    if len(varying) == 0 or np.linalg.matrix_rank(covariance) < len(varying):
        must = "vary in as many directions as it has characteristics that vary"
        got = f"{np.linalg.matrix_rank(covariance)} of {len(varying)}"
        raise InvalidArgument(describe("RecommendationMDP(tastes=...)", must, got))
    factor = np.linalg.cholesky(covariance)
    return mean, varying, factor, np.linalg.solve(factor, centred.T).T


def _mean(env: RecommendationMDP) -> Parameter:
    """Mean of the taste, money per unit of each characteristic that varies."""
    mean, varying, factor, _ = _standard(env)
    labels = tuple(f"taste mean: {k}" for k in varying)
    unit = np.sqrt((factor**2).sum(axis=1))
    return _Moved(labels, mean[varying], unit, np.eye(env.gamma.shape[1])[varying])


def _covariance(env: RecommendationMDP) -> Parameter:
    """Covariance of the characteristics that vary."""
    _, varying, factor, standard = _standard(env)
    row, col = np.tril_indices(len(varying))
    diagonal = row == col
    entry = factor[row, col]
    start = np.where(diagonal, np.log(np.where(diagonal, entry, 1.0)), entry)
    labels = tuple(f"taste covariance: {varying[i]}, {varying[j]}" for i, j in zip(row, col))
    unit, move = np.where(diagonal, 1.0, np.diag(factor)[row]), np.eye(env.gamma.shape[1])[varying]
    return _Covariance(labels, start, unit, standard, factor, move)


_BUILDERS: dict[str, Callable[[RecommendationMDP], Parameter]] = {
    "outside option": _outside,
    "taste mean": _mean,
    "taste covariance": _covariance,
}
