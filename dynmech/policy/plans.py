"""What a solver found, as a plan over pairs of root and values."""

from collections.abc import Sequence

import numpy as np

from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import MarkovValues, joint_kernel
from dynmech.problem.tasks import Assignment, Pairs
from dynmech.solve.outcome import Solved
from solvers.tree.plan import Plan


def plan_of(
    env: RecommendationMDP, pairs: Pairs, root: np.ndarray, assignment: Assignment, found: Solved
) -> tuple[Plan, tuple[np.ndarray, ...] | None]:
    """The plan at every pair and node, and its certified loss there, None where it is exact."""
    values = env.values
    markov = isinstance(values, MarkovValues)
    kind = np.int8 if len(env.controls) <= 128 else np.int16
    taken = [answer.actions for answer in found.answers]
    actions = _by_pair(assignment, len(pairs.root), taken, kind)
    size = len(pairs.root) // len(pairs.signals) if markov else 1
    regime = np.arange(len(pairs.root)) % size
    kernel = joint_kernel(values) if isinstance(values, MarkovValues) else None
    sibling = pairs.sibling(markov)
    gap = None if found.gap is None else _by_pair(assignment, len(pairs.root), found.gap, float)
    plan = Plan(found.tree, found.tables, root, pairs.root, actions, sibling, regime, kernel)
    return plan, gap


def _by_pair(
    assignment: Assignment, count: int, rounds: Sequence[tuple[np.ndarray, ...]], kind: type
) -> tuple[np.ndarray, ...]:
    """Lay per-group tables (N_t, R, keep) of every round out as (pairs, N_t)."""
    tables = tuple(np.zeros((count, len(part)), kind) for part in (rounds[0] if rounds else ()))
    for pair, parts in zip(assignment.group_pair, rounds, strict=True):
        for table, part in zip(tables, parts, strict=True):
            table[pair.ravel()] = np.moveaxis(part.astype(kind), 0, -1).reshape(-1, len(part))
    return tables
