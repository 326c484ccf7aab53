"""Random tiny markets of every kind, each as a market and as plain NumPy laws over histories."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from scipy.special import ndtr

import dynmech as dm
from experiments._brute_laws import Array, Behaviour, History

LEAVES = 0.3
"""Chance of a query, at most, where there is no last round."""


@dataclass(frozen=True)
class Kind:
    """What markets of a kind have in common: sizes, behaviour, signals, values, money."""

    products: int = 2
    tastes: int = 3
    rounds: float = 3
    values: int = 2
    markov: bool = False
    recall: str = "last"
    choice: str = "logit"
    query: str = "product"
    tremble: float = 0.0
    initial: tuple[int, ...] = (2, 2)
    structures: bool = False
    heard: str = "channel"
    symbols: tuple[int, ...] = (2,)
    displays: dm.Displays | None = None
    cost: str = ""
    leaving: str = ""
    correlated: bool = False
    zeros: float = 0.0
    ties: bool = False
    alike: bool = False


def _kinds() -> dict[str, Kind]:
    two, pair = dm.Displays(2), dm.Displays(2, ordered=True)
    return {
        "last shown": Kind(query="constant"),
        "last shown, four rounds": Kind(rounds=4, initial=(1,), choice="threshold"),
        "screen that stays": Kind(recall="stays", query="falling"),
        "imperfect recall": Kind(recall="imperfect", cost="number"),
        "imperfect recall, best": Kind(recall="imperfect", choice="threshold", leaving="taste"),
        "perfect recall": Kind(recall="perfect", query="falling"),
        "perfect recall, best": Kind(recall="perfect", choice="threshold", query="constant"),
        "no repeats": Kind(recall="once", cost="control"),
        "trembling": Kind(recall="perfect", tremble=0.1, query="constant"),
        "tables": Kind(recall="table", heard="table", symbols=(2, 2, 1), zeros=0.3),
        "one round": Kind(rounds=1, products=3, initial=(2, 2, 2), leaving="number"),
        "one product": Kind(products=1, rounds=4, initial=(1, 2), symbols=(2, 2)),
        "three products": Kind(products=3, initial=(2,)),
        "five tastes": Kind(tastes=5, recall="perfect", heard="rating"),
        "private readings": Kind(heard="read", symbols=(2, 2, 2)),
        "correlated signals": Kind(initial=(1, 2, 2), symbols=(2, 2, 2), rounds=2, correlated=True),
        "private structures": Kind(structures=True, initial=(2, 2, 2), heard="structures",
                                   symbols=(2, 2, 2), rounds=2),
        "values that move": Kind(markov=True),
        "values that move, recall": Kind(markov=True, recall="perfect", cost="taste", rounds=2),
        "values that move, displays": Kind(markov=True, displays=two, heard="rating", rounds=2),
        "costs and leaving": Kind(cost="taste", leaving="taste", recall="imperfect"),
        "zeros": Kind(zeros=0.4, recall="perfect", leaving="taste"),
        "zeros, values that move": Kind(zeros=0.4, markov=True, symbols=(2, 2, 1), rounds=2),
        "sure or never": Kind(query="sure", zeros=0.3),
        "ties": Kind(ties=True, recall="perfect"),
        "ties, values that move": Kind(ties=True, markov=True, zeros=0.3),
        "proportional columns": Kind(alike=True, query="constant", rounds=4, symbols=(3,)),
        "proportional columns, recall": Kind(alike=True, query="constant", recall="perfect"),
        "displays": Kind(products=3, displays=two, heard="rating", rounds=2),
        "displays, recall": Kind(displays=two, heard="rating", recall="perfect", cost="control"),
        "displays, imperfect recall": Kind(displays=two, heard="rating", recall="imperfect",
                                           choice="threshold"),
        "displays, listed": Kind(products=3, displays=dm.Displays(2, of=[(0, 1), (2,), (1, 2)]),
                                 heard="rating", cost="taste", leaving="taste"),
        "places": Kind(displays=pair, recall="places", heard="rating", query="constant"),
        "places, best": Kind(products=3, displays=pair, recall="places", choice="threshold",
                             heard="none", rounds=2, cost="control"),
        "no end": Kind(rounds=math.inf, heard="none"),
        "no end, heard": Kind(rounds=math.inf, initial=(1,), query="constant"),
        "no end, recall": Kind(rounds=math.inf, recall="perfect", heard="none"),
        "no end, imperfect recall": Kind(rounds=math.inf, recall="imperfect", heard="none",
                                         cost="number"),
        "no end, displays": Kind(rounds=math.inf, displays=two, heard="none",
                                 leaving="taste", cost="control"),
        "no end, values that move": Kind(rounds=math.inf, markov=True, heard="none",
                                         initial=(1,)),
        "sure end": Kind(rounds=math.inf, recall="once", query="constant", values=1),
    }  # fmt: skip


def _padded(sizes: tuple[int, ...], n: int) -> tuple[int, ...]:
    return (*sizes, *(1,) * n)[: n + 1]


KINDS = _kinds()


@dataclass(frozen=True)
class Market:
    """A market and its laws: `acts`, `hears` after a history of displays and a query.

    `gains` (n, m): u - x; `theta` (V, n), all value profiles, and their `kernel` (C, V, V);
    `cost` (C, m); `root` (Z, m): taste and initial signals; `weight` (V,): of value profiles.
    `alike`: what is the same for histories from which on all is. `rounds`: after which, where there
    is no last one, what is left is only bounded; `going`: the largest chance of a query there, else
    0. `scale`: of money.
    """

    env: dm.RecommendationMDP
    displays: tuple[tuple[int, ...], ...]
    gains: Array
    theta: Array
    weight: Array
    kernel: Array
    cost: Array
    root: Array
    acts: Callable[[History], Array]
    hears: Callable[[History], Array]
    alike: Callable[[History], History]
    rounds: int
    going: float
    scale: float


def draw(kind: Kind, seed: list[int], single: bool) -> Market:
    """A market of this kind; `single`: all of its numbers are of single precision."""
    rng = np.random.default_rng(seed)
    n, m, endless = kind.products, kind.tastes, kind.rounds == math.inf

    def real(x: Any) -> Array:
        return np.asarray(x, np.float32 if single else np.float64)

    gamma, points = real(rng.normal(size=(n, 2))), real(rng.normal(size=(m, 2)))
    if kind.ties:
        gamma[-1] = gamma[0]
    weights = rng.dirichlet(np.full(m, 2.0))
    if kind.zeros:
        weights[rng.integers(m)] = 0.0
    weights = real(weights / weights.sum())
    utilities = gamma.astype(float) @ points.astype(float).T
    shown = dm.Displays(1) if kind.displays is None else kind.displays
    table = shown.table(tuple(map(str, range(n)))).tolist()
    displays = tuple(tuple(j for j in row if j < n) for row in table)
    support, prior, kernel, values = _values(kind, rng, real, len(displays))
    cost = _money(kind.cost, rng, real, len(displays), m, 0.0, 0.3)
    leaving = _money(kind.leaving, rng, real, 1, m, -0.4, 0.4)
    rounds = 8 if endless else int(kind.rounds)
    user = _user(kind, rng, utilities, real)
    if kind.recall == "table":
        rule, acts, alike = _tabulated(kind, rng, real, utilities)
    else:
        rule, acts, alike = user.rule(), user.acts, user.alike
    feedback, hears = _feedback(kind, rng, real, utilities)
    initial, opening = _initial(kind, rng, real)
    env = dm.RecommendationMDP(
        gamma, dm.TasteGrid(points, weights), kind.rounds, rule,
        dm.SignalStructure(initial, feedback), values, displays=kind.displays,
        round_cost=cost, exit_value=leaving if leaving.ndim == 0 else leaving[0],
    )  # fmt: skip
    gains = utilities - np.asarray(leaving, float).reshape(-1)
    costs = np.asarray(cost, float)
    costs = np.broadcast_to(costs[:, None] if costs.ndim == 1 else costs, (len(displays), m))
    theta = np.array(list(itertools.product(*support.astype(float))))
    moves = np.array([reduce(np.kron, one) for one in kernel.astype(float)])
    root = (np.asarray(weights, float)[:, None] * opening.reshape(m, -1)).T
    likely = prior.reshape(-1).astype(float)
    if prior.shape == (n, kind.values):
        likely = reduce(np.multiply.outer, prior.astype(float)).reshape(-1)
    going = max(user.level.max(), user.falling[0] if user.falling else 0.0)
    scale = max(env.money_scale, float(costs.max()))
    return Market(
        env, displays, gains, theta, likely, moves, costs, root, acts, hears, alike, rounds,
        float(going) + kind.tremble if endless else 0.0, scale,
    )  # fmt: skip


def _values(kind: Kind, rng: np.random.Generator, real: Callable[[Any], Array], controls: int):
    """Support (n, K), prior, kernel by control (C, n, K, K), and the part of the market."""
    n, size = kind.products, kind.values
    support = real(np.sort(rng.uniform(0.0, 1.0, (n, size)), axis=1))
    kernel = rng.dirichlet(np.ones(size), (controls, n, size))
    if kind.zeros:
        kernel = np.where(kernel < 0.3, 0.0, kernel)
        kernel /= kernel.sum(axis=-1, keepdims=True)
    if kind.ties:
        support[-1] = support[0]
        kernel[:] = kernel[0, 0]
    prior = real(rng.dirichlet(np.ones(size**n)).reshape((size,) * n))
    if not kind.correlated:
        prior = real(rng.dirichlet(np.ones(size), n))
    if not kind.markov:
        still = np.broadcast_to(np.eye(size), (controls, n, size, size))
        return support, prior, still, dm.ConstantValues(support, prior)
    kernel = real(kernel)
    return support, prior, kernel, dm.MarkovValues(support, prior, kernel)


def _money(
    kind: str, rng: np.random.Generator, real: Callable[[Any], Array], controls: int, points: int,
    low: float, high: float,
) -> Array:  # fmt: skip
    shapes = {"": (), "number": (), "control": (controls,), "taste": (controls, points)}
    drawn = rng.uniform(low, high, shapes[kind])
    return real(drawn if kind else 0.0)


def _user(
    kind: Kind, rng: np.random.Generator, utilities: Array, real: Callable[[Any], Array]
) -> Behaviour:
    n, m = utilities.shape
    endless = kind.rounds == math.inf
    low, high = (0.02, rng.choice([LEAVES, LEAVES / 3])) if endless else (0.2, 0.8)
    level = rng.uniform(low, high, (n + 1, m))
    if kind.query == "sure":
        level = np.where(rng.random((n + 1, m)) < 0.3, 0.0, level)
        level = np.where(rng.random((n + 1, m)) < 0.3, 1.0, level)
    if kind.query in ("constant", "falling"):
        level[:] = level[0, 0]
    if kind.ties:
        level[n - 1] = level[0]
    level[-1] = level[-1, 0]  # after none: one chance whatever the taste
    falling = (0.9, 0.1, 0.5) if kind.query == "falling" else None
    looked = real([0.9, 0.5])
    return Behaviour(
        utilities, kind.recall, 0.5, looked.astype(float), 0.5 if kind.choice == "logit" else None,
        real(level).astype(float), falling, kind.tremble,
    )  # fmt: skip


def _law(kind: Kind, rng: np.random.Generator, *shape: int, axes: int) -> Array:
    """Laws over the last `axes` axes, some chances zero; `alike`: the same beside two columns."""
    size = math.prod(shape[len(shape) - axes :])
    rows = rng.gamma(0.7, size=(*shape[: len(shape) - axes], size)) + 1e-3
    dead = (rng.random(rows.shape) < kind.zeros) & (rows < rows.max(axis=-1, keepdims=True))
    rows = np.where(dead, 0.0, rows)
    if kind.zeros and size > 1 and rng.random() < 0.3:  # a symbol that nobody ever hears
        rows[..., -1] = 0.0
    rows[..., 0] += rows.sum(axis=-1) == 0
    if kind.alike and size > 2:
        rows[..., 1] = 0.5 * rows[..., 0]
    return (rows / rows.sum(axis=-1, keepdims=True)).reshape(shape)


def _initial(kind: Kind, rng: np.random.Generator, real: Callable[[Any], Array]):
    """The part of the market, and the joint law (m, Zp, Z1, ..., Zn)."""
    sizes, m = _padded(kind.initial, kind.products), kind.tastes
    if math.prod(sizes) == 1:
        return dm.NoSignals(), np.ones((m, *sizes))
    if not kind.structures:
        table = real(_law(kind, rng, m, *sizes, axes=len(sizes)))
        return dm.JointSignals(table), table.astype(float)
    parties, prior, joint = _structures(kind, rng, (m,), sizes)
    return dm.PrivateStructures([dm.JointSignals(x) for x in parties], prior), joint


def _structures(
    kind: Kind, rng: np.random.Generator, lead: tuple[int, ...], sizes: tuple[int, ...]
):
    """Two structures' joint laws (*lead, Zp, Z1, ...), their prior, and the law of the union."""
    prior = np.array([0.4, 0.6])
    first = _law(kind, rng, *lead, sizes[0], axes=1)
    own = [[_law(kind, rng, *lead, size, axes=1) for size in sizes[1:]] for _ in prior]

    def joint(laws: list[Array]) -> Array:
        total = np.ones((*lead, 1))
        for law in laws:
            total = (total[..., :, None] * law[..., None, :]).reshape(*lead, -1)
        return total.reshape(*lead, *(law.shape[-1] for law in laws))

    union = [
        np.concatenate([p * laws[i] for p, laws in zip(prior, own, strict=True)], axis=-1)
        for i in range(len(sizes) - 1)
    ]
    return [joint([first, *laws]) for laws in own], prior, joint([first, *union])


def _feedback(
    kind: Kind, rng: np.random.Generator, real: Callable[[Any], Array], utilities: Array
) -> tuple[dm.AbstractFeedback, Callable[[History], Array]]:  # fmt: skip
    """The part of the market, and its joint law (m, Zp, Z1, ..., Zn) after a history."""
    n, m = kind.products, kind.tastes
    sizes = _padded(kind.symbols, n)
    if kind.heard == "none":
        return dm.NoFeedback(), lambda history: np.ones((m, *(1,) * (n + 1)))
    if kind.heard == "table":
        rows = {h: row for row, h in enumerate(_histories(n, int(kind.rounds)))}
        table = real(_law(kind, rng, len(rows), m, *sizes, axes=len(sizes)))
        return dm.TabulatedFeedback(table), lambda history: table[rows[history]].astype(float)
    if kind.heard in ("rating", "read"):
        noise, blur = 0.7, 1.1 if kind.heard == "read" else None
        cuts = real(rng.normal(size=(n, 1)) / 2)
        feedback = dm.RatingFeedback(noise, 2, blur, cuts=cuts)
        return feedback, lambda history: _rated(history[-1], utilities, cuts, noise, blur)
    if kind.heard == "structures":
        parts, prior, joint = _structures(kind, rng, (n + 1, m), sizes)
        feedback = dm.PrivateFeedback([dm.ChannelFeedback(x) for x in parts], prior)
        return feedback, lambda history: joint[history[-1][0] if history[-1] else n]
    table = _law(kind, rng, n + 1, m, *sizes, axes=len(sizes))
    if kind.alike:
        table[:] = table[0]
    if kind.ties:
        table[n - 1] = table[0]
    table = real(table)
    return dm.ChannelFeedback(table), lambda history: table[
        history[-1][0] if history[-1] else n
    ].astype(float)


def _rated(now: tuple[int, ...], u: Array, cuts: Array, noise: float, blur: float | None) -> Array:
    """The law of a rating of the first product shown, and of her own reading of it."""
    n, m = u.shape
    found = np.zeros((m, 2, *(2 if blur else 1,) * n))
    if not now:
        found[(slice(None), *(0,) * (n + 1))] = 1.0
        return found
    below = ndtr((cuts[now[0]] - u[now[0]]) / noise)
    platform = np.stack([below, 1 - below], axis=1)
    if blur is None:
        return platform.reshape(found.shape)
    below = ndtr((cuts[now[0]] - u[now[0]]) / blur)
    for symbol, own in enumerate((below, 1 - below)):
        place = [0] * n
        place[now[0]] = symbol
        found[(slice(None), slice(None), *place)] = platform * own[:, None]
    return found


def _histories(n: int, rounds: int) -> list[History]:
    """Histories of single products in the order of tables, () for none."""
    shown = [*((j,) for j in range(n)), ()]
    return [h for t in range(rounds) for h in itertools.product(shown, repeat=t + 1)]


def _tabulated(
    kind: Kind, rng: np.random.Generator, real: Callable[[Any], Array], utilities: Array
):
    """A rule with any chances for every history, its law, and what tells histories apart."""
    n, m = utilities.shape
    histories = _histories(n, int(kind.rounds))
    law = rng.gamma(0.5, size=(len(histories), n + 2, m))
    law *= rng.random(law.shape) >= kind.zeros
    for row, history in enumerate(histories):
        law[row, [j for j in range(n) if (j,) not in history]] = 0.0
    law[:, n] += law.sum(axis=1) == 0
    law = real(law / law.sum(axis=1, keepdims=True))
    rows = {h: row for row, h in enumerate(histories)}
    return dm.Tabulated(law), (lambda h: law[rows[h]].astype(float)), (lambda h: h)
