"""Solve a market whose memories are too many to list: only what a search meets is compiled."""

import dataclasses

import numpy as np
from jaxtyping import Int

from dynmech.errors import InvalidProbability, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import ConstantValues
from dynmech.problem.compile import Compiled, compile_edges, compile_market, next_memories, tables
from dynmech.problem.process import market_process
from dynmech.problem.tasks import Assignment
from dynmech.solve.running import Solved
from solvers import Answer, BranchAndBound, Estimate, Grown, Layer, Tree, deferred, search_process

_CALL = "solve_efficient_policy(solver=BranchAndBound(memory=...))"


def compile_or_search(
    env: RecommendationMDP, solver, tolerance: float, limit: float
) -> tuple[Compiled | None, str]:
    """Compile the whole market; None, and why, where it should be searched from its rules."""
    constant = isinstance(env.values, ConstantValues)
    asked = isinstance(solver, BranchAndBound)
    searchable = constant and (asked or (solver is None and tolerance > 0))
    if asked and solver.merge_within > 0:
        searchable = False  # merging needs the told-omega bounds of every memory
    if asked and searchable:
        limit = min(limit, solver.memory / 4)
    try:
        return compile_market(env, limit=limit), ""
    except TooLarge:
        if not searchable:
            raise
        begin = "as asked, " if asked else "picked and "
        return None, f"{begin}searched from the rules because the market's memories are too many"


@deferred()
def search_market(
    env: RecommendationMDP,
    assignment: Assignment,
    solver: BranchAndBound,
    *,
    tolerance: float,
    progress: bool,
    why: str,
) -> tuple[Compiled, Solved]:
    """Search from the rules, then compile what the plans kept can reach.

    The tree holds the recommendations of these plans alone; others have no edge.

    **Raises:** `TooLarge` if one plan for every profile does not fit; `InvalidProbability`.
    """
    try:
        found = search_process(
            market_process(env), assignment.groups, solver, tolerance=tolerance, progress=progress
        )
    except MemoryError as error:
        must, do = "fit one plan for every profile", "reduce profiles or rounds, or raise it"
        raise TooLarge(describe(_CALL, must, str(error), do)) from error
    except ArithmeticError as error:
        call = "RecommendationMDP(action_rule=..., signals=...)"
        raise InvalidProbability(describe(call, "be laws", str(error))) from error
    compiled, tree = _compile(env, found.rounds, solver.memory)
    answers, upper, gaps, at, kept = [], [], [], 0, 0
    for part in assignment.groups:
        roots, width = part.coefficient.shape[:2]
        value = found.lower[at : at + roots * width].reshape(roots, width)
        upper.append(found.upper[at : at + roots * width].reshape(roots, width))
        mine = slice(kept, kept + roots * part.keep)
        shape = (-1, roots, part.keep)
        actions = tuple(one.action[:, mine].reshape(shape) for one in found.rounds)
        gaps.append(tuple(one.gap[:, mine].reshape(shape) for one in found.rounds))
        answers.append(Answer(value, actions))
        at, kept = at + roots * width, kept + roots * part.keep
    nodes, seconds, gap = found.history[-1]
    note = (
        f"BranchAndBound, {why}: {found.status.value}; gap {gap:.3g}, {nodes} nodes met, "
        f"{tree.nodes} in use"
    )
    work = Estimate(nodes, 0.0, seconds)
    numbers = tables(env, compiled)
    return compiled, Solved(tree, numbers, answers, upper, gaps, work, note)


def _compile(env, rounds: tuple[Grown, ...], limit: float) -> tuple[Compiled, Tree]:
    """Edges of the recommendations in use, and the tree over them."""
    n, clock = env.products, env.signals.feedback.periodic()
    used, following, rows = [], [], []
    for t, one in enumerate(rounds):
        mask = np.zeros((len(one.memory), n + 1), bool)
        for task in range(one.action.shape[1]):
            mask[one.place, one.action[:, task]] = True
        after = np.asarray(next_memories(env.action_rule, one.memory, n))[mask]
        control = np.nonzero(mask)[1]
        period = np.full(len(control), t if clock else 0)
        rows.append(np.concatenate([after, control[:, None], period[:, None]], axis=1))
        used.append(mask)
        heir = np.zeros((len(one.memory), n + 1), np.int64)
        if t < len(rounds) - 1:
            child = one.child[:, :, 0]
            node, taken = np.nonzero(child >= 0)
            heir[one.place[node], taken] = rounds[t + 1].place[child[node, taken]]
        following.append(heir)
    keys, index = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    place = []
    for mask, part in zip(used, np.split(index.reshape(-1), _ends(rows)), strict=True):
        table = np.full(mask.shape, -1)
        table[mask] = part
        place.append(table)
    always, ever = _shown(used, following, place, len(keys), n)
    going = np.unique(np.concatenate([p[p >= 0] for p in place[:-1]] or [np.zeros(0, int)]))
    found = compile_edges(env, keys, always, ever, going, True, 2 * limit)
    missing = len(found.structure.columns)
    edge = tuple(np.where(p >= 0, found.edge_of[p], missing).astype(np.int32) for p in place)
    successor = tuple(x.astype(np.int32) for x in following)
    structure = dataclasses.replace(
        found.structure, edge=edge, successor=successor, digits=None, offset=None
    )
    layers = []
    for t, one in enumerate(rounds):
        column = np.full(len(one.place), -1, np.int32)
        if t:
            before = edge[t - 1][rounds[t - 1].place[one.parent], one.control]
            column = structure.columns[before, one.symbol].astype(np.int32)
        parent, memory = one.parent.astype(np.int32), one.place.astype(np.int32)
        rows_of = np.arange(len(memory), dtype=np.int32)
        layers.append(Layer(parent, column, rows_of, memory, one.child))
    return dataclasses.replace(found, structure=structure), Tree(tuple(layers), structure)


def _ends(rows: list[np.ndarray]) -> Int[np.ndarray, " _t"]:
    return np.cumsum([len(part) for part in rows])[:-1]


def _shown(used, following, place, count, n):
    """Products surely, and possibly, shown at each edge in use, over the ways that are in use."""
    always, ever = np.ones((count, n), bool), np.zeros((count, n), bool)
    sure, may = np.zeros((1, n), bool), np.zeros((1, n), bool)
    added = np.eye(n + 1, n, dtype=bool)
    for t, mask in enumerate(used):
        at, control = np.nonzero(mask)
        surely, maybe = sure[at] | added[control], may[at] | added[control]
        np.logical_and.at(always, place[t][mask], surely)
        np.logical_or.at(ever, place[t][mask], maybe)
        if t < len(used) - 1:
            size = len(used[t + 1])
            sure, may = np.ones((size, n), bool), np.zeros((size, n), bool)
            np.logical_and.at(sure, following[t][mask], surely)
            np.logical_or.at(may, following[t][mask], maybe)
    return always, ever
