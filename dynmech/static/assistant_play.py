"""What happens in the shopping assistant under any reports: expected play, and simulated play.

The mechanism plans with the reported theta and its own filter, started at the belief that the
reports imply; reactions follow the true belief. For each product j, expected from a node on:

- shown: E[sum_tau 1{x_tau = j}], utility: E[sum_tau omega_j 1{x_tau = j}];
- settled: E[sum_tau what_j 1{x_tau = j}], what = average of the reactions c_tau, ..., c_T;
- quoted: E[sum_tau mt_j 1{x_tau = j}], mt = the mechanism's own posterior mean before the
  recommendation: what message-driven transfers use.

`play` integrates on the same tree as the policy: exact where that is, so that no reports can do
better than truth by more than rounding. `simulate_assistant` draws whole conversations instead.
"""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import checked, shaped, whole
from dynmech._checks import key as one_key
from dynmech._types import NONE
from dynmech.static.assistant import ASSISTANT, PROFILE, AssistantProfile, ShoppingAssistant
from dynmech.static.assistant_policy import require_nodes
from dynmech.static.assistant_tree import (
    Step,
    Tree,
    action_values,
    build_tree,
    choose,
    make_step,
)
from dynmech.static.gaussian import CLOSED_FORM_PRODUCTS, select_largest

SHOWN, UTILITY, SETTLED, QUOTED = range(4)
_ROWS = 1 << 15


def play(
    actual: Tree,
    planned: Tree,
    mean: Float[np.ndarray, "B n"],
    believed: Float[np.ndarray, "B n"],
    theta: Float[np.ndarray, "B n"],
    history: tuple[int, ...],
) -> tuple[Float[np.ndarray, "B 4 n"], Float[np.ndarray, "B n"]]:
    """Compute expected play from a node on, and the expected sum of the reactions to come.

    **Arguments:** `actual`, `planned`: trees of the true and of the reported structures; `mean`,
    `believed`: true and reported posterior means; `theta`: as reported. One row a case.
    """
    n, left = actual.products, actual.left(history)
    pick = choose(action_values(planned, believed + theta, history))
    out, ahead = np.zeros((len(mean), 4, n)), np.zeros((len(mean), n))
    for r in np.unique(pick):
        rows = np.flatnonzero(pick == r)
        key = (*history, int(r) if r < n else NONE)
        if left == 1:
            reactions = mean[rows]
        elif left == 2 and n <= CLOSED_FORM_PRODUCTS:
            now = mean[rows], believed[rows], theta[rows]
            out[rows] = _last_round(actual.steps[key], planned.steps[key].gain, *now)
            reactions = 2 * mean[rows]
        else:
            rule = actual.rule(actual.steps[key])
            reactions = np.zeros((len(rows), n))
            for part in np.array_split(
                np.arange(len(rows)), -(-len(rows) * len(rule.nodes) // _ROWS)
            ):
                at = rows[part]
                if len(at):
                    now = mean[at], believed[at], theta[at]
                    out[at], reactions[part] = _enumerate(actual, planned, *now, key)
        if r < n:
            out[rows, SHOWN, r] += 1
            out[rows, UTILITY, r] += mean[rows, r]
            out[rows, SETTLED, r] += reactions[:, r] / left
            out[rows, QUOTED, r] += believed[rows, r]
        ahead[rows] = reactions
    return out, ahead


def _enumerate(
    actual: Tree,
    planned: Tree,
    mean: np.ndarray,
    believed: np.ndarray,
    theta: np.ndarray,
    key: tuple[int, ...],
):
    """Average over the nodes of the next reaction: play after it, and the sum of reactions."""
    step, gain = actual.steps[key], planned.steps[key].gain
    rule, n = actual.rule(step), actual.products
    shape = (len(mean), len(rule.nodes), n)
    reaction = mean[:, None] + rule.nodes @ step.signal.T
    reached = mean[:, None] + rule.nodes @ step.load.T
    learned = believed[:, None] + (reaction - believed[:, None]) @ gain.T
    told = np.broadcast_to(theta[:, None], shape).reshape(-1, n)
    cases = reached.reshape(-1, n), learned.reshape(-1, n), told
    later, ahead = play(actual, planned, *cases, key)
    weights = rule.weights
    return (
        np.einsum("q,bqkn->bkn", weights, later.reshape(*shape[:2], 4, n)),
        np.einsum("q,bqn->bn", weights, reaction + ahead.reshape(shape)),
    )


def _last_round(
    step: Step, gain: np.ndarray, mean: np.ndarray, believed: np.ndarray, theta: np.ndarray
):
    """Expected play in round T, seen from before the reaction to round T - 1: a closed form."""
    n = mean.shape[1]
    learned = believed + (mean - believed) @ gain.T
    move = gain @ step.signal
    chosen = select_largest(learned + theta, move @ move.T)
    cross = np.zeros((2, n, n + 1))
    cross[0, :, :n], cross[1, :, :n] = step.load @ move.T, move @ move.T
    out = np.zeros((len(mean), 4, n))
    out[:, SHOWN] = chosen.probability[:, :n]
    out[:, UTILITY] = chosen.moments(mean, cross[0])
    out[:, SETTLED] = out[:, UTILITY]  # E[c_T | what came before] is the true posterior mean
    out[:, QUOTED] = chosen.moments(learned, cross[1])
    return out


class AssistantConversations(eqx.Module):
    """Simulated conversations, D of them.

    `omega` (D, n), money; `recommendation` (D, T), -1 for none; `reaction` (D, T, n), c_tau;
    `estimate` (D, T, n): the average of the reactions from tau on; `quote` (D, T, n): the
    mechanism's posterior mean before the recommendation.
    """

    omega: Float[np.ndarray, "D n"]
    recommendation: Int[np.ndarray, "D T"]
    reaction: Float[np.ndarray, "D T n"]
    estimate: Float[np.ndarray, "D T n"]
    quote: Float[np.ndarray, "D T n"]


@checked(env=ASSISTANT, truth=PROFILE, reported=PROFILE, key=one_key, draws=whole(2))
def simulate_assistant(
    env: ShoppingAssistant,
    truth: AssistantProfile,
    reported: AssistantProfile,
    key: jax.Array,
    draws: int,
    *,
    omega: Float[np.ndarray, " n"] | None = None,
    nodes: int = 16,
) -> AssistantConversations:
    """Draw conversations when `reported` is told and `truth` is true.

    **Arguments**

    - `key`: consumed. `draws`: at least 2. `nodes`: of the policy's quadrature.
    - `omega`: fixed, or drawn from the true belief.

    **Raises:** `InvalidArgument`, `TooLarge`.
    """
    require_nodes("simulate_assistant", nodes)
    n, rounds = env.products, env.rounds
    if omega is not None:
        omega = np.asarray(shaped(n)("simulate_assistant(omega=...)", omega), np.float64)
    belief, told = env.belief(truth), env.belief(reported)
    tree = build_tree(env, told.covariance, "cells", nodes)
    first, second = jax.random.split(key)
    with jax.enable_x64(True):
        state = np.asarray(jax.random.normal(first, (draws, n), "float64"))
        shocks = np.asarray(jax.random.normal(second, (draws, rounds, n), "float64"))
    drawn = belief.mean + state @ np.linalg.cholesky(belief.covariance).T
    values = drawn if omega is None else np.broadcast_to(omega, drawn.shape)
    shape = (draws, rounds, n)
    pick = np.zeros((draws, rounds), np.int64)
    reaction, quote = np.zeros(shape), np.zeros(shape)
    groups = {(): (np.arange(draws), np.tile(told.mean, (draws, 1)), told.covariance)}
    for t in range(rounds):
        ahead = {}
        for history, (rows, mean, covariance) in groups.items():
            quote[rows, t] = mean
            alike = mean[:1] if t == 0 else mean  # all conversations start from one belief
            chosen = choose(action_values(tree, alike + reported.theta, history))
            pick[rows, t] = np.where(chosen < n, chosen, NONE)
            for r in np.unique(pick[rows, t]):
                at, path = np.flatnonzero(pick[rows, t] == r), (*history, int(r))
                precision = env.precision(path)
                root = np.linalg.cholesky(np.linalg.inv(precision))
                heard = values[rows[at]] + shocks[rows[at], t] @ root.T
                step, after = make_step(covariance, precision)
                reaction[rows[at], t] = heard
                ahead[path] = rows[at], mean[at] + (heard - mean[at]) @ step.gain.T, after
        groups = ahead
    total = np.cumsum(reaction[:, ::-1], axis=1)[:, ::-1]
    estimate = total / np.arange(rounds, 0, -1)[:, None]
    return AssistantConversations(np.array(values), pick, reaction, estimate, quote)
