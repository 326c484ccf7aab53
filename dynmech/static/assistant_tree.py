"""The tree over Gaussian beliefs: recommendations by history, posterior means by quadrature.

With a = theta + m, P the posterior covariance after a history h and L L' = P_h - P_hr,

    V(a, h) = max over r of  a_r + E[V(a + L_hr z, hr)],   z ~ N(0, I),   V = max(a, 0) in round T.

V is convex in a, and its gradient is the expected number of times each product is shown, so it
moves by at most (rounds left) max_j |d_j| when a moves by d. Where at most two products can be
shown with a payoff, the integral before the last round is a closed form, the expected maximum.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._types import NONE
from dynmech.errors import TooLarge, describe
from dynmech.static.assistant import ShoppingAssistant
from dynmech.static.gaussian import (
    CLOSED_FORM_PRODUCTS,
    Rule,
    expected_maximum,
    product_rule,
)

MOST_EVALUATIONS = 3e7
_ROWS = 1 << 17
_NEGLIGIBLE = 1e-10


class Step(eqx.Module):
    """One reaction: c = m + signal z, and the posterior mean becomes m + load z = m + gain (c - m).

    `load`, `signal`: (n, d), d the directions in which the mean moves by more than rounding;
    `dropped`: most that E|.| of the others moves any product's mean. `news`: (n, n), the covariance
    of the mean's move.
    """

    load: Float[np.ndarray, "n d"]
    signal: Float[np.ndarray, "n d"]
    gain: Float[np.ndarray, "n n"]
    news: Float[np.ndarray, "n n"]
    dropped: float = eqx.field(static=True)


class Economy(eqx.Module):
    """Who counts: everybody, or all but `without`, who may still be shown if `displayable`."""

    without: int | None = eqx.field(static=True, default=None)
    displayable: bool = eqx.field(static=True, default=False)

    def counted(self, n: int) -> list[int]:
        """Products whose recommendation has a payoff."""
        return [j for j in range(n) if j != self.without]

    def options(self, n: int) -> list[int]:
        """Products that may be shown, and none."""
        shown = range(n) if self.displayable else self.counted(n)
        return [*shown, NONE]


EVERYBODY = Economy()


class Tree(eqx.Module):
    """Filter steps of every history from a node on, and the rule that integrates over them.

    `past`: recommendations before the node; `rounds`: the last round; `rules`: by dimension;
    `repeats`: how often the last recommendation is made, at once and for good.
    """

    products: int = eqx.field(static=True)
    rounds: int = eqx.field(static=True)
    past: tuple[int, ...] = eqx.field(static=True)
    steps: dict[tuple[int, ...], Step]
    rules: tuple[Rule, ...]
    repeats: int = eqx.field(static=True, default=1)

    def left(self, history: tuple[int, ...]) -> int:
        """Return how many recommendations are still to be made."""
        return self.rounds - len(history)

    def rule(self, step: Step) -> Rule:
        """Return the rule for the directions in which a step moves the mean."""
        return self.rules[step.load.shape[1]]


def build_tree(
    env: ShoppingAssistant,
    covariance: np.ndarray,
    kind: str,
    nodes: int,
    past: tuple[int, ...] = (),
    rounds: int | None = None,
    repeats: int = 1,
) -> Tree:
    """Run the filter's covariances along every history, for a rule of `nodes` points a dimension.

    **Raises:** `TooLarge`.
    """
    n, last = env.products, env.rounds if rounds is None else rounds
    left = last - len(past)
    size = evaluations(n, left, nodes)
    if size > MOST_EVALUATIONS:
        raise TooLarge(
            describe(
                "solve_assistant(nodes=...)",
                f"need at most {MOST_EVALUATIONS:.0e} evaluations of the last round",
                f"{size:.1e} for {n} products, {left} rounds and {nodes} nodes a dimension",
                "reduce the rounds, the products or the nodes, or bound the value by "
                "bound_assistant(lookahead=2)",
            )
        )
    steps, frontier = {}, [(past, covariance)]
    for _ in range(left - 1):
        reached = []
        for history, before in frontier:
            for r in (*range(n), NONE):
                key = (*history, r)
                steps[key], after = make_step(before, env.precision(key))
                reached.append((key, after))
        frontier = reached
    rules = tuple(product_rule(kind, nodes, d) for d in range(n + 1)) if left > 1 else ()
    return Tree(n, last, past, steps, rules, repeats)


def evaluations(products: int, rounds: int, nodes: int) -> float:
    """Return how often the last round is evaluated, or its expectation where a closed form."""
    levels = max(rounds - 1 - (products <= CLOSED_FORM_PRODUCTS), 0)
    return float(products + 1) ** (rounds - 1) * float(nodes) ** (products * levels)


def make_step(before: np.ndarray, precision: np.ndarray) -> tuple[Step, np.ndarray]:
    """Update a covariance by a signal of this precision: the step and the covariance after it."""
    noise = np.linalg.inv(precision)
    gain = np.linalg.solve(before + noise, before).T
    news = gain @ before
    news = (news + news.T) / 2
    values, vectors = np.linalg.eigh(news)
    deviations = np.sqrt(np.maximum(values, 0))
    kept = deviations > _NEGLIGIBLE * np.sqrt(np.diagonal(before).max())
    load = vectors[:, kept] * deviations[kept]
    lost = (np.abs(vectors[:, ~kept]).max(axis=0) * deviations[~kept]).sum()
    signal = load + noise @ np.linalg.solve(before, load)
    left = np.eye(len(before)) - gain
    after = left @ before @ left.T + gain @ noise @ gain.T  # Joseph's form: symmetric, positive
    return Step(load, signal, gain, news, float(lost * np.sqrt(2 / np.pi))), after


def value(
    tree: Tree,
    level: Float[np.ndarray, "B n"],
    history: tuple[int, ...],
    economy: Economy = EVERYBODY,
) -> Float[np.ndarray, " B"]:
    """Compute V at a = `level`, one row a belief."""
    if len(level) > _ROWS:
        parts = np.array_split(level, -(-len(level) // _ROWS))
        return np.concatenate([value(tree, part, history, economy) for part in parts])
    left = tree.left(history)
    if left == 0:
        return np.zeros(len(level))
    if left == 1:
        counted = economy.counted(tree.products)
        return tree.repeats * np.maximum(level[:, counted].max(axis=1, initial=0.0), 0.0)
    return action_values(tree, level, history, economy).max(axis=1)


def action_values(
    tree: Tree,
    level: Float[np.ndarray, "B n"],
    history: tuple[int, ...],
    economy: Economy = EVERYBODY,
) -> Float[np.ndarray, "B r"]:
    """Compute the value of each recommendation, none last; -inf where it is not allowed.

    With `repeats`, not for the last round.
    """
    n = tree.products
    found = np.full((len(level), n + 1), -np.inf)
    counted = economy.counted(n)
    for r in economy.options(n):
        now = level[:, r] if r in counted else 0.0
        found[:, r] = now + continuation(tree, level, (*history, r), economy)
    return found


def choose(worth: Float[np.ndarray, "B r"]) -> np.ndarray:
    """Return the index of the best, lowest first, none last, among those tied within rounding."""
    best = worth.max(axis=1, keepdims=True)
    return np.argmax(worth >= best - 1e-12 * np.abs(best), axis=1)


def continuation(
    tree: Tree, level: np.ndarray, history: tuple[int, ...], economy: Economy
) -> np.ndarray:
    """Integrate V over the reaction to the last recommendation in `history`."""
    left = tree.left(history)
    if left == 0:
        return np.zeros(len(level))
    step = tree.steps[history]
    counted = economy.counted(tree.products)
    if left == 1 and len(counted) <= CLOSED_FORM_PRODUCTS:
        return tree.repeats * expected_maximum(
            level[:, counted], step.news[np.ix_(counted, counted)]
        )
    rule = tree.rule(step)
    moves = rule.nodes @ step.load.T
    found = np.zeros(len(level))
    # Few rows at a time, so that memory does not grow with the number of nodes.
    size = max(1, _ROWS // len(moves))
    for start in range(0, len(level), size):
        rows = level[start : start + size]
        reached = (rows[:, None] + moves).reshape(-1, tree.products)
        worth = value(tree, reached, history, economy).reshape(len(rows), -1)
        found[start : start + size] = worth @ rule.weights
    if rule.tail > 0:
        found += (left - 1 + tree.repeats) * (
            rule.tail * np.abs(step.load).max(axis=0).sum() + step.dropped
        )
    return found
