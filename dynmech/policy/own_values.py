"""Own values of a declared interval that are not of the support: what a policy does there.

With constant values and a plan that is efficient, D_i and what each plan yields change with the own
value only where W does: W is convex and piecewise linear in it, and between two kinks the controls
that the plan comes to take do not change (`solvers.tree.parametric`). There D_i is constant, and
the payoff rises by the chance of a purchase. Hence the ends of the interval, the kinks and one
value between each two of them hold every value of D_i, and the least payoff.

A recommender of somebody's own is asked at the ends of the interval.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._beside import Beside
from dynmech._types import Record, precision
from dynmech.market.values import ConstantValues
from dynmech.policy.nodes import recommendations
from dynmech.policy.outcomes import expected_outcomes
from dynmech.policy.recommender import Numbered
from dynmech.problem.compile import compile_remembered
from dynmech.problem.settled import Settled
from dynmech.problem.tasks import Pairs
from solvers import Exact, Tasks
from solvers.tree.exact import solve_exact
from solvers.tree.parametric import sweep_coefficient
from solvers.tree.plan import Plan

if TYPE_CHECKING:
    from dynmech.market.environment import RecommendationMDP
    from dynmech.payments.groves import OwnTables

_MOST_CELLS = 60_000_000
_BETWEEN = Beside()


class Between(Record):
    """Pairs of reports in which one advertiser's value is off the support, and what is done there.

    - `money` (P, n): values of every pair. `pairs`: of these, theta of pair p is p; `own`
      (B, n, E, Z) says whose alternatives they are, -1 where there is none.
    - `back` (P,): by how much the own value is above the least at which the plan is the same.
    - `plan`: on the policy's tree, or on the one where it is followed; None where none was walked.
    - `short`: whether values in between are wanted and too many, so that D_i has to be bounded.
    """

    money: Float[np.ndarray, "P n"]
    pairs: Pairs
    back: Float[np.ndarray, " P"]
    plan: Plan | None
    short: bool = eqx.field(static=True, default=False)

    def widened(
        self, own: OwnTables, settled: Settled, most: Float[np.ndarray, "B n Z"]
    ) -> OwnTables:
        """Tables with these own values after those of the support.

        **Arguments:** `most`: what D_i is at most, whatever the own value.
        """
        assert self.plan is not None
        pairs, n = self.pairs, self.money.shape[1]
        every = np.arange(len(pairs.root))
        found = expected_outcomes(self.plan, self.money.T, pairs, every, settled)
        live, at = pairs.own >= 0, np.maximum(pairs.own, 0)
        mine = at, np.arange(n)[None, :, None, None]
        least = found.payoff[at] - found.purchase[mine] * self.back[at]
        left = found.payoff[at] - (found.earned + found.utility)[mine]
        if self.short:
            left = np.fmax(left, most[:, :, None, :])
        least, left = (np.where(live, x, np.nan) for x in (least, left))
        payoff = np.concatenate([own.payoff, least], axis=2)
        contribution = np.concatenate([own.contribution, left], axis=2)
        return dataclasses.replace(own, payoff=payoff, contribution=contribution)

    def priced(self, env: RecommendationMDP) -> RecommendationMDP:
        """The market in which theta of pair p is p."""
        values = ConstantValues(self.money.T)
        return eqx.tree_at(lambda market: market.values, env, values)


def declared(env: RecommendationMDP) -> Float[np.ndarray, "n 2"] | None:
    """The interval of own values, None where none is declared."""
    values = env.values
    return values.interval if isinstance(values, ConstantValues) else None


def with_values(env: RecommendationMDP, more: Float[np.ndarray, "n E"]) -> RecommendationMDP:
    """The market with more values of each advertiser's, money, that are never drawn."""
    values = env.values
    wider = [(0, more.shape[1])] * (len(more) if values.correlated else 2)
    if not values.correlated:
        wider[0] = (0, 0)
    support = np.column_stack([np.asarray(values.support, float), more])
    prior = np.pad(np.asarray(values.prior, float), wider)
    values = ConstantValues(support, prior, declared(env), values.names)
    return eqx.tree_at(lambda market: market.values, env, values)


def between(evaluator: eqx.Module, make: Callable[[], Between | None]) -> Between | None:
    """What an evaluator does at own values off the support; kept beside it.

    **Arguments:** `make`: how to find out, where it is not known.
    """
    return _BETWEEN(evaluator, make)


def swept(env: RecommendationMDP, pairs: Pairs, plan: Plan) -> Between | None:
    """The efficient plan at all own values of the interval, its ends alone where they are too many.

    **Arguments:** `pairs`, `plan`: of the support.
    """
    interval = declared(env)
    if interval is None:
        return None
    try:
        points = [_kinks(env, pairs, plan, i, interval[i]) for i in range(env.products)]
        short = sum(x.size for x, _ in points) * plan.tree.nodes > _MOST_CELLS
    except MemoryError:
        points, short = [], True
    if short:
        points = _ends(env, pairs)
    money, own, back = _laid_out(env, pairs, points)
    return Between(money, own, back, _efficient(env, plan, own, money), short)


def asked_at_ends(
    env: RecommendationMDP, pairs: Pairs, plan: Plan, laws_at: Callable[..., np.ndarray]
) -> Between | None:
    """What somebody recommends at the ends of the interval, on the plan's tree.

    **Arguments:** `laws_at`: see `Playable.laws_at`.
    """
    more = at_ends(env, pairs)
    if more is None:
        return None
    _, memories = compile_remembered(env, 2 * Exact().memory)
    asked = Numbered(lambda theta, *at: laws_at(more.money[theta[0]], *at))
    there = on_tree(plan, more.pairs)
    taken = recommendations(there, more.pairs, memories, asked)
    return dataclasses.replace(more, plan=on_tree(plan, more.pairs, taken, asked.table))


def at_ends(env: RecommendationMDP, pairs: Pairs) -> Between | None:
    """The ends of the interval, without a plan."""
    if declared(env) is None:
        return None
    return Between(*_laid_out(env, pairs, _ends(env, pairs)), None)


def _ends(env: RecommendationMDP, pairs: Pairs) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two ends of each advertiser's interval, for every group of the others' reports."""
    interval = np.asarray(declared(env), float)
    counts = [len(_groups(pairs, i)[0]) for i in range(env.products)]
    every = [np.tile(x, (count, 1)) for x, count in zip(interval, counts, strict=True)]
    return [(x, np.zeros_like(x)) for x in every]


def _groups(pairs: Pairs, i: int) -> tuple[Int[np.ndarray, "G n1"], Int[np.ndarray, "B Z"]]:
    """Roots and others' values of advertiser i's alternatives, and which are whose, -1 for none."""
    at = pairs.own[:, i, 0]
    live = at >= 0
    theta = pairs.theta[at[live]].copy()
    theta[:, i] = 0
    rows = np.concatenate([pairs.root[at[live]][:, None], theta], axis=1)
    unique, index = np.unique(rows, axis=0, return_inverse=True)
    place = np.full(at.shape, -1)
    place[live] = index.reshape(-1)
    return unique, place


def _kinks(
    env: RecommendationMDP, pairs: Pairs, plan: Plan, i: int, interval: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ends, kinks and what is between, (G, E), NaN in unused places; and how far above a kink."""
    unique, _ = _groups(pairs, i)
    width = plan.tree.structure.outcomes
    if len(unique) * plan.tree.nodes * plan.tree.structure.controls > _MOST_CELLS:
        raise MemoryError
    money = env.values.support[np.arange(env.products), unique[:, 1:]]
    money = np.pad(np.asarray(money, float), ((0, 0), (0, width - env.products)))
    low, high = (float(x) for x in interval)
    given = plan.tree, plan.tables, plan.root[unique[:, 0]], money, i, (low, high)
    kinks = sweep_coefficient(*given).kinks
    edges = np.full((len(unique), kinks.shape[1] + 2), low)
    edges[:, 1:-1], edges[:, -1] = np.where(np.isnan(kinks), high, kinks), high
    half = np.diff(edges, axis=1) / 2
    middle = np.where(half > 0, edges[:, :-1] + half, np.nan)
    edges[:, 1:-1] = kinks
    return np.concatenate([edges, middle], axis=1), np.concatenate([0 * edges, half], axis=1)


def _laid_out(
    env: RecommendationMDP, pairs: Pairs, points: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, Pairs, np.ndarray]:
    """Pairs of their own for every group and point; a group with fewer has its first again."""
    most = max(x.shape[1] for x, _ in points)
    batch, n, _, widest = pairs.own.shape
    own = np.full((batch, n, most, widest), -1)
    money, roots, backs, count = [], [], [], 0
    support = np.asarray(env.values.support, float)
    for i, (values, back) in enumerate(points):
        unique, place = _groups(pairs, i)
        group, column = np.nonzero(~np.isnan(values))
        number = np.full((len(unique) + 1, most), -1)
        number[group, column] = count + np.arange(len(group))
        number[:-1] = np.where(number[:-1] < 0, number[:-1, :1], number[:-1])  # none is left empty
        own[:, i] = np.moveaxis(number[place], 2, 1)
        each = support[np.arange(n), unique[group, 1:]]
        each[:, i] = values[group, column]
        money.append(each)
        roots.append(unique[group, 0])
        backs.append(back[group, column])
        count += len(group)
    theta = np.broadcast_to(np.arange(count)[:, None], (count, n))
    found = Pairs(pairs.signals, np.concatenate(roots), theta, np.full(batch, -1), own)
    return np.concatenate(money), found, np.nan_to_num(np.concatenate(backs))


def _efficient(env: RecommendationMDP, plan: Plan, pairs: Pairs, money: np.ndarray) -> Plan:
    """The efficient plan of the same tree at other values."""
    order = np.argsort(pairs.root, kind="stable")
    each = np.bincount(pairs.root, minlength=len(pairs.signals))
    column = np.empty(len(order), np.int64)
    column[order] = np.arange(len(order)) - (np.cumsum(each) - each)[pairs.root[order]]
    width = 1 << max(3, int(each.max() - 1).bit_length())
    outcomes, controls = plan.tree.structure.outcomes, plan.tree.structure.controls
    coefficient = np.zeros((len(each), width, outcomes))
    coefficient[pairs.root, column, : env.products] = money
    counted, allowed = np.ones_like(coefficient), np.ones((*coefficient.shape[:2], controls), bool)
    with precision(env.gamma):
        tasks = Tasks(plan.root, coefficient, counted, allowed, width)
        (answer,) = solve_exact(plan.tree, plan.tables, [tasks], Exact())
    taken = tuple(np.ascontiguousarray(x[:, pairs.root, column].T) for x in answer.actions)
    return on_tree(plan, pairs, taken)


def on_tree(
    plan: Plan,
    pairs: Pairs,
    taken: tuple[np.ndarray, ...] | None = None,
    laws: np.ndarray | None = None,
) -> Plan:
    """A plan of other pairs on a plan's tree, from the same roots; none is shown by default."""
    every = np.arange(len(pairs.root))
    if taken is None:
        none = plan.tree.structure.controls - 1
        taken = tuple(np.full((len(every), x.nodes), none) for x in plan.tree.layers)
    return Plan(
        plan.tree, plan.tables, plan.root, pairs.root, taken, every[:, None], 0 * every, None, laws
    )


def joined(plan: Plan, other: Plan) -> Plan:
    """The pairs of two plans of one tree and one set of roots, where values stay."""
    size = plan.tree.structure.controls
    laws = [x for x in (plan.laws, other.laws) if x is not None]
    offset = 0 if plan.laws is None else len(plan.laws)
    taken = tuple(
        np.concatenate([here, np.where(there < size, there, there + offset)])
        for here, there in zip(plan.actions, other.actions, strict=True)
    )
    roots = np.concatenate([plan.pair_root, other.pair_root])
    every = np.arange(len(roots))
    return Plan(
        plan.tree, plan.tables, plan.root, roots, taken, every[:, None], 0 * every, None,
        np.concatenate(laws) if laws else None,
    )  # fmt: skip
