"""Random abstract decision problems for the solvers, and their brute force over all histories."""

import dataclasses

import numpy as np

from solvers import Limits, Listed, Structure, Tables, Tasks
from solvers import Problem as Posed
from solvers.problem import TaskList


@dataclasses.dataclass(frozen=True)
class Problem:
    """What `solvers.tree.backward.backward` takes."""

    structure: Structure
    tables: Tables
    tasks: Tasks


def random_problem(
    rng, rounds=3, classes=3, controls=3, symbols=2, slots=2, points=4, roots=3, variants=5,
    moving=False, shared=True, dead=False,
):  # fmt: skip
    """A problem with a few memory classes a round and edges that share columns.

    **Arguments:** `moving`: coefficients move by a kernel, tasks are (variants, V = 2) laid out;
    `shared`: columns are drawn with repetition, so that histories merge; `dead`: one of them is
    zero everywhere.
    """
    count = [1, *[classes] * (rounds - 1)]
    edges = 4 * controls
    edge = tuple(rng.integers(0, edges, (m, controls)).astype(np.int32) for m in count)
    successor = tuple(
        rng.integers(0, count[t + 1] if t < rounds - 1 else 1, (count[t], controls)).astype(
            np.int32
        )
        for t in range(rounds)
    )
    columns = rng.integers(0, 5, (edges, symbols)) if shared else None
    if columns is None:
        columns = np.arange(edges * symbols).reshape(edges, symbols)
    outcome = np.stack([rng.permutation(slots + 1)[:slots] for _ in range(edges)])
    outcome = np.where(outcome == slots, -1, outcome).astype(np.int32)
    total = int(columns.max()) + 1
    law = rng.dirichlet(np.ones(slots + 1), (edges, points)).transpose(0, 2, 1)
    stop = np.where(outcome[:, :, None] >= 0, 0.5 * law[:, :slots], 0.0)
    column = rng.uniform(0.0, 0.4, (total, points)) * (rng.random((total, points)) > 0.1)
    if dead:
        column[0] = 0.0
    reward = rng.normal(size=(slots, points))
    width = 2 * variants if moving else variants
    counted = (rng.random((roots, width, slots)) > 0.2).astype(float)
    coefficient = rng.normal(size=(roots, width, slots)) * counted
    allowed = rng.random((roots, width, controls)) > 0.3
    if moving:  # what counts and is allowed belongs to the variant, not to the coefficients
        counted = np.repeat(counted[:, ::2], 2, axis=1)
        coefficient = coefficient * counted
        allowed = np.repeat(allowed[:, ::2], 2, axis=1)
    allowed[..., -1] = True
    root = rng.dirichlet(np.ones(points), roots) * rng.uniform(0.1, 1.0, (roots, 1))
    kernel = rng.dirichlet(np.ones(2), (controls, 2)) if moving else None
    structure = Structure(
        edge, successor, columns.astype(np.int32), outcome, controls, slots, total,
        0 if dead else -1,
    )  # fmt: skip
    tables = Tables(stop, column, reward)
    return Problem(structure, tables, Tasks(root, coefficient, counted, allowed, width, kernel))


def options(problem, t, memory, belief, root, task):
    """Value of every control, unnormalised, by recursion over all that may follow."""
    s, numbers, tasks = problem.structure, problem.tables, problem.tasks
    first = task - task % 2
    out = []
    for control in range(s.controls):
        edge = s.edge[t][memory, control]
        total = 0
        for slot, j in enumerate(s.outcome[edge]):
            if j >= 0:
                weight = belief * numbers.stop[edge, slot]
                total += weight.sum() * tasks.coefficient[root, task, j]
                total += (weight * numbers.reward[j]).sum() * tasks.counted[root, task, j]
        if t < s.horizon - 1:
            heir = s.successor[t][memory, control]
            for column in s.columns[edge]:
                after = belief * numbers.column[column]
                if tasks.kernel is None:
                    total += value(problem, t + 1, heir, after, root, task)
                else:
                    law = tasks.kernel[control, task % 2]
                    for v in range(2):
                        later = value(problem, t + 1, heir, after, root, first + v)
                        total += law[v] * later
        out.append(total if tasks.allowed[root, task, control] else -np.inf)
    return np.array(out)


def value(problem, t, memory, belief, root, task):
    return options(problem, t, memory, belief, root, task).max()


def values(problem):
    """W of every root and task, (R, Q)."""
    tasks = problem.tasks
    roots, width = tasks.coefficient.shape[:2]
    return np.array(
        [[value(problem, 0, 0, tasks.root[r], r, q) for q in range(width)] for r in range(roots)]
    )


def solved(seed, solver, tolerance, **options):
    """Solve a random problem; `options` are those of its limits."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, rounds=3, symbols=3, roots=2, variants=2, shared=False)
    listed = Listed(problem.structure, problem.tables)
    posed = Posed(lambda: None, lambda limit: listed, 3, problem.structure.controls)
    tasks = TaskList([problem.tasks])
    return solver.solve(posed, tasks, Limits(tolerance, **options), False)
