"""What a log can say about a market: each parameter, where it stands, and its free coordinates.

A part of a market (a choice, a query, a feedback, a rule of your own) declares what can be
estimated in it by a class attribute

    estimable: ClassVar = {"choice scale": (("scale", "positive"),)}

name of the parameter -> (field, domain) pairs; domains are "positive", "unit" and "real". Free
coordinates are log x, logit x and x. What moves the whole market (tastes, the outside option, the
rating scale) is built in here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynmech._types import Numbers
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


class Parameter(eqx.Module):
    """One parameter of a fit: `size` free coordinates.

    - `labels`: of its entries, one each; `start`: free coordinates of the market given.
    - `place(env, free)`: the market with these coordinates in place; traced.
    - `entries(free)`: the estimates they stand for, (size,); traced.
    """

    name: str = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)
    start: Float[np.ndarray, " q"]
    place: Callable[[Any, Free], Any] = eqx.field(static=True)
    entries: Callable[[Free], Array] = eqx.field(static=True)

    @property
    def size(self) -> int:
        return len(self.start)


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
    into, out = DOMAINS[domain]
    m = env.tastes.size
    label = name if field in ("scale", "level", "deviation", "noise") else f"{name}: {field}"
    if m > 1 and value.ndim and value.shape[-1] == m:
        if domain != "positive":
            must = "be the same for every taste to be estimated"
            raise InvalidArgument(
                describe(f"{type(_at(env, path)).__name__}({field}=...)", must, value.shape)
            )
        return Parameter(
            name=name,
            labels=(f"{label} (factor)",),
            start=np.zeros(1),
            place=lambda e, free: _put(e, (*path, field), jnp.exp(free[0]) * value),
            entries=jnp.exp,
        )
    inside = np.clip(value, 1e-6, 1 - 1e-6) if domain == "unit" else value
    return Parameter(
        name=name,
        labels=_entry_labels(label, value, env),
        start=np.asarray(into(inside), float).ravel(),
        place=lambda e, free: _put(e, (*path, field), out(free).reshape(value.shape)),
        entries=out,
    )


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


def _outside(env: RecommendationMDP) -> Parameter:
    """Utility v of the outside option, money: every u_i falls by v, from today's."""
    column = constant_column(env)
    unit = np.eye(env.gamma.shape[1])[column] / float(env.gamma[0, column])
    return Parameter(
        name="outside option",
        labels=("outside option",),
        start=np.zeros(1),
        place=lambda e, free: _points(e, e.tastes.points - free[0] * unit),
        entries=lambda free: free,
    )


def _standard(env: RecommendationMDP) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean (k,), varying characteristics (v,), factor (v, v) and standardised points (m, v)."""
    points, weights = np.asarray(env.tastes.points, float), np.asarray(env.tastes.weights, float)
    mean = weights @ points
    spread = weights @ (points - mean) ** 2
    varying = np.flatnonzero(spread > 1e-12 * np.maximum(1, mean**2))
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
    mean, varying, _, _ = _standard(env)
    move = np.eye(env.gamma.shape[1])[varying]
    start = mean[varying]
    return Parameter(
        name="taste mean",
        labels=tuple(f"taste mean: {k}" for k in varying),
        start=start,
        place=lambda e, free: _points(e, e.tastes.points + (free - start) @ move),
        entries=lambda free: free,
    )


def _covariance(env: RecommendationMDP) -> Parameter:
    """Covariance of the taste by its Cholesky factor, the diagonal in logarithms."""
    _, varying, factor, standard = _standard(env)
    row, col = np.tril_indices(len(varying))
    diagonal = row == col
    move = np.eye(env.gamma.shape[1])[varying]
    entry = factor[row, col]
    start = np.where(diagonal, np.log(np.where(diagonal, entry, 1.0)), entry)

    def lower(free):
        filled = jnp.where(diagonal, jnp.exp(free), free)
        return jnp.zeros((len(varying),) * 2).at[row, col].set(filled)

    def entries(free):
        square = lower(free) @ lower(free).T
        return square[row, col]

    return Parameter(
        name="taste covariance",
        labels=tuple(f"taste covariance: {varying[i]}, {varying[j]}" for i, j in zip(row, col)),
        start=start,
        place=lambda e, free: _points(
            e, e.tastes.points + (standard @ (lower(free) - factor).T) @ move
        ),
        entries=entries,
    )


_BUILDERS: dict[str, Callable[[RecommendationMDP], Parameter]] = {
    "outside option": _outside,
    "taste mean": _mean,
    "taste covariance": _covariance,
}
