"""Solve the shopping assistant: value, marginal economies and certified bounds at one profile.

Quadrature gives the value in use, with the change on doubling its nodes; bounds say how good it
is. Since V is convex in the posterior mean, replacing the mean by coarser
(`below`) or more spread (`above`) points gives lower and upper bounds that hold up to rounding.
And a platform that is told omega after k rounds earns at least W: as its later payoffs do not
depend on what it showed before, it earns W^(k) + (T - k) E max(theta + omega, 0), W^(k) being the
value of k rounds. Telling it later gives a smaller bound. A platform that learns in k - 1 rounds
and then commits to one product earns at most W.

**References**

Brown, Smith and Sun, "Information relaxations and duality in stochastic dynamic programs",
Operations Research 2010.
"""

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import checked, choice, whole
from dynmech._types import NONE
from dynmech.errors import InvalidArgument, describe, is_number, shown
from dynmech.static.assistant import (
    ASSISTANT,
    HISTORY,
    PROFILE,
    AssistantHistory,
    AssistantProfile,
    GaussianBelief,
    ShoppingAssistant,
)
from dynmech.static.assistant_tree import (
    Economy,
    Tree,
    action_values,
    build_tree,
    choose,
    evaluations,
    make_step,
    value,
)
from dynmech.static.gaussian import CLOSED_FORM_PRODUCTS, expected_maximum, product_rule

_BOUND_EVALUATIONS = 3e5
_LEAST_NODES, _MOST_NODES = 6, 100
_RULES = ("cells", "hermite")


class AssistantBracket(eqx.Module):
    """A value and how well it is known, money.

    `lower` <= truth <= `upper`, up to rounding. `quadrature`: by the rule asked for, `change` from
    half its nodes, which can understate its error: kinks of the maximum converge slowly. `value`:
    the quadrature, moved to the nearest bound where it lies outside.
    """

    quadrature: float = eqx.field(static=True)
    change: float = eqx.field(static=True)
    lower: float = eqx.field(static=True)
    upper: float = eqx.field(static=True)

    @property
    def value(self) -> float:
        """Return the quadrature, within the bounds."""
        return min(max(self.quadrature, self.lower), self.upper)


class AssistantSolution(eqx.Module):
    """The efficient policy at one profile and history; money, expected from there on.

    - `belief`: about omega. `worth`: `AssistantBracket` of W.
    - `action_values` (n+1,): W of each recommendation, none last, by quadrature; `recommendation`:
      the best, ties to the lowest index, -1 for none.
    - `marginal_value` (n,): W^{-i}, product i never shown. `displayable_marginal_value` (n,):
      Wd^{-i}, product i may be shown and neither its theta nor its utility counts. By quadrature.
    - `told_after` (T,): certified upper bounds, the platform learning omega after 0, 1, ..., T-1
      of the remaining rounds; decreasing.
    """

    belief: GaussianBelief
    worth: AssistantBracket
    action_values: Float[np.ndarray, " r"]
    marginal_value: Float[np.ndarray, " n"]
    displayable_marginal_value: Float[np.ndarray, " n"]
    told_after: Float[np.ndarray, " T"]
    recommendation: int = eqx.field(static=True)
    nodes: int = eqx.field(static=True)

    @property
    def value(self) -> float:
        """Return W."""
        return self.worth.value


@checked(env=ASSISTANT, profile=PROFILE, history=HISTORY)
def solve_assistant(
    env: ShoppingAssistant,
    profile: AssistantProfile,
    history: AssistantHistory | None = None,
    *,
    nodes: int = 16,
    rule: str = "cells",
) -> AssistantSolution:
    """Find the efficient recommendation and its value at a profile and history (section 5.2).

    V(m, h) = max_r theta_r + m_r + E[V(m', (h, r))], over posterior means m'.

    Exact up to rounding for T = 1, and for T = 2 with at most two products; otherwise
    quadrature with certified bounds, see `AssistantBracket`.

    **Arguments**

    - `history`: recommendations and reactions so far; none by default.
    - `nodes`: quadrature points a product and round, 6 to 100, even.
    - `rule`: "cells" or "hermite"; with a dozen nodes or more the first is more accurate.

    **Returns**

    `AssistantSolution`.

    **Raises**

    `InvalidArgument`; `TooLarge`, for which `bound_assistant` gives bounds.

    ```python
    >>> shown = [[9.0, 0.1], [0.1, 9.0], [0.1, 0.1]]
    >>> env = ShoppingAssistant([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], [4.0, 4.0], 4.0, shown, 2)
    >>> plan = solve_assistant(env, env.profile([0.2, 0.0], np.zeros((2, 2)), [0.0, 0.0]))
    >>> plan.recommendation, round(plan.value, 6), plan.displayable_marginal_value.round(6)
    (0, 0.618843, array([0.275936, 0.587392]))

    ```
    """
    require_nodes("solve_assistant", nodes, rule)
    belief, past = env.belief(profile, history), _past(history)
    level = (profile.theta + belief.mean)[None]
    tree = build_tree(env, belief.covariance, rule, nodes, past)
    coarse = build_tree(env, belief.covariance, rule, nodes // 2, past)
    left = env.rounds - len(past)
    fine = _affordable(env.products, left)
    low = build_tree(env, belief.covariance, "below", fine, past)
    upper = build_tree(env, belief.covariance, "above", fine, past)
    worth = action_values(tree, level, past)
    full = full_information(level[0], belief.covariance)
    told = [left * full]
    for k in range(1, left):
        shorter = build_tree(env, belief.covariance, "above", fine, past, len(past) + k)
        told.append(float(value(shorter, level, past)[0]) + (left - k) * full)
    found = float(worth.max())
    pick = int(choose(worth)[0])
    return AssistantSolution(
        belief=belief,
        worth=AssistantBracket(
            found,
            abs(found - float(value(coarse, level, past)[0])),
            float(value(low, level, past)[0]),
            min(float(value(upper, level, past)[0]), *told),
        ),
        action_values=worth[0],
        marginal_value=_marginal(tree, level, past, displayable=False),
        displayable_marginal_value=_marginal(tree, level, past, displayable=True),
        told_after=np.array(told),
        recommendation=NONE if pick == env.products else pick,
        nodes=nodes,
    )


@checked(env=ASSISTANT, profile=PROFILE, history=HISTORY, lookahead=whole(1))
def bound_assistant(
    env: ShoppingAssistant,
    profile: AssistantProfile,
    *,
    lookahead: int,
    history: AssistantHistory | None = None,
    nodes: int = 32,
) -> tuple[float, float]:
    """Bound W for problems too large to solve, from problems of `lookahead` rounds.

    Below: learn for lookahead - 1 rounds, then commit to one product for all that are left. Above:
    told omega after `lookahead` rounds. Both certified up to rounding.

    **Returns:** (lower, upper), money.

    **Raises:** `InvalidArgument`, `TooLarge`.
    """
    require_nodes("bound_assistant", nodes)
    belief, past = env.belief(profile, history), _past(history)
    left = env.rounds - len(past)
    if not 1 <= lookahead <= left:
        must = f"be in 1..{left}"
        raise InvalidArgument(describe("bound_assistant(lookahead=...)", must, lookahead))
    level, last = (profile.theta + belief.mean)[None], len(past) + lookahead
    repeats = left - lookahead + 1
    commit = build_tree(env, belief.covariance, "below", nodes, past, last, repeats)
    told = build_tree(env, belief.covariance, "above", nodes, past, last)
    rest = (left - lookahead) * full_information(level[0], belief.covariance)
    return float(value(commit, level, past)[0]), float(value(told, level, past)[0]) + rest


@checked(env=ASSISTANT)
def assistant_ex_ante(
    env: ShoppingAssistant, theta: npt.ArrayLike, *, nodes: int = 16, rule: str = "cells"
) -> AssistantBracket:
    """Compute E[W], the expectation over all signals and the context, given theta.

    Exact up to rounding for T = 1 with at most two products: the expected maximum of zero and
    normals with mean mu + theta and covariance Sigma - P.

    **Raises:** `InvalidArgument`, `TooLarge`.
    """
    require_nodes("assistant_ex_ante", nodes, rule)
    profile = env.profile(theta, np.zeros((env.products,) * 2), np.zeros(env.products))
    seen = np.linalg.inv(env.belief(profile).covariance) - np.linalg.inv(env.prior_covariance)
    step, after = make_step(env.prior_covariance, (seen + seen.T) / 2)
    level = (env.prior_mean + profile.theta)[None]
    if env.rounds == 1 and env.products <= CLOSED_FORM_PRODUCTS:
        exact = float(expected_maximum(level, step.news)[0])
        return AssistantBracket(exact, 0.0, exact, exact)
    fine = _affordable(env.products, env.rounds + 1)
    found = []
    for kind, count in (
        (rule, nodes),
        (rule, nodes // 2),
        ("below", fine),
        ("above", fine),
    ):
        tree = build_tree(env, after, kind, count)
        first = product_rule(kind, count, step.load.shape[1])
        worth = value(tree, level + first.nodes @ step.load.T, ()) @ first.weights
        slope = first.tail * np.abs(step.load).max(axis=0).sum() + (first.tail > 0) * step.dropped
        found.append(float(worth + env.rounds * slope))
    return AssistantBracket(found[0], abs(found[0] - found[1]), found[2], found[3])


def full_information(level: Float[np.ndarray, " n"], covariance: np.ndarray) -> float:
    """Compute E max(theta + omega, 0), or, for more than two products, a bound above it."""
    if len(level) <= CLOSED_FORM_PRODUCTS:
        return float(expected_maximum(level[None], covariance)[0])
    load = np.linalg.cholesky(covariance)
    rule = product_rule("above", max(8, int(1e6 ** (1 / len(level)))), len(level))
    best = np.maximum((level + rule.nodes @ load.T).max(axis=1), 0.0) @ rule.weights
    return float(best + rule.tail * np.abs(load).max(axis=0).sum())


def require_nodes(verb: str, nodes: int, rule: str = "cells") -> None:
    """Raise unless the number of quadrature points is sensible and the rule is known."""
    if not is_number(nodes, "iu") or nodes not in range(_LEAST_NODES, _MOST_NODES + 1, 2):
        must = f"be even, in {_LEAST_NODES}..{_MOST_NODES}"
        raise InvalidArgument(describe(f"{verb}(nodes=...)", must, shown(nodes)))
    choice(*_RULES)(f"{verb}(rule=...)", rule)


def _marginal(tree: Tree, level: np.ndarray, past: tuple[int, ...], displayable: bool):
    without = [Economy(i, displayable) for i in range(tree.products)]
    return np.array([float(value(tree, level, past, economy)[0]) for economy in without])


def _affordable(products: int, rounds: int) -> int:
    """Most nodes for which a bound takes no more than a second or two; at least 4."""
    for nodes in (256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6):
        if evaluations(products, rounds, nodes) <= _BOUND_EVALUATIONS:
            return nodes
    return 4


def _past(history: AssistantHistory | None) -> tuple[int, ...]:
    return () if history is None else history.recommendations
