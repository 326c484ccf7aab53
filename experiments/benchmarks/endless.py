"""Markets without a horizon: users who leave at the first dislike, and users who rate.

Instance R(n, m) of `churn`: a published problem whose own program was measured on another machine.
A best-first search of a page of NumPy, one economy after another, runs in the same process, so
that the ratios hold on any machine; seconds are of the processor, warm (the first call of the
process is shown apart). The published C++ seconds are of W alone: they are shown times n + 1, and
scaled by this machine's NumPy seconds over those measured beside them.

Users who rate what is shown (`instances.rated`): W, every W^{-i} and every Wd^{-i} to a share of
the upper bound, at chances of going on that rise, by bounds shared between beliefs, by what is
picked where no solver is named, and, beside them, by best-first search in as many seconds.
"""

import statistics
import time
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np

import dynmech as dm
from experiments.benchmarks.churn import draw, every_economy, market
from experiments.benchmarks.instances import rated
from experiments.benchmarks.rows import row

PUBLISHED = {(10, 10): (0.019, 0.018), (10, 20): (0.004, 0.023), (10, 100): (0.029, 0.034),
             (20, 20): (0.025, 0.116)}  # fmt: skip
"""Median C++ seconds of W alone to 1e-8, and NumPy seconds of all economies beside them."""


_AXES = 29  # with more products the only profile is named, rather than a table of it
TOLERANCE = 1e-6  # bounds closer than this, in likes


def rows(shapes: tuple[tuple[int, int, int], ...]) -> list[dict[str, Any]]:
    """Medians over draws: products, types, and how many; warm, NumPy's beside them."""
    found = []
    for products, types, draws in shapes:
        part = [measure(products, types, seed, TOLERANCE) for seed in range(draws)]
        one = summary(part, (products, types))
        told = "" if one["published"] is None else f", published C++ {one['published']:.2g} s"
        found.append(
            row(
                f"R({products}, {types}) to 1e-6: W and every W^-i, "
                f"{f'median of {draws} draws' if draws > 1 else 'one draw'}",
                one["ours"],
                f"first {one['first']:.3g} s, values within {one['off']:.1g}",
                f"most over NumPy {one['most over']:.3g} s",
                f"NumPy {one['numpy']:.3g} s{told}",
                one["ratio"],
            )
        )
    return found


class Noted(dm.AbstractSolver):
    """Another solver; what it found is kept in `found`."""

    solver: dm.AbstractSolver
    found: list[Any] = eqx.field(static=True)

    def solve(self, problem: Any, tasks: Any, limits: Any, progress: bool) -> Any:
        self.found.append(self.solver.solve(problem, tasks, limits, progress))
        return self.found[-1]


def rated_rows(
    wanted: tuple[tuple[float, float], ...], share: float = 1e-3
) -> list[dict[str, Any]]:
    """Chances of going on, and seconds that either solver has by the clock; seconds measured are
    of the processor, with what is compiled. A ratio is of the widest gaps, best-first over ours."""
    found = []
    for going, seconds in wanted:
        ours, theirs = (
            rated_gap(going, solver(seconds=seconds), share)
            for solver in (dm.PointBased, dm.BestFirst)
        )
        unnamed, policy = rated_solve(going, None, share)
        short = "" if policy.status.met else f", {policy.status.value}"
        found.append(
            row(
                f"rated, going on with {going:g}, every economy to {share:g} of it",
                ours["seconds"],
                f"widest gap {ours['gap']:.2g}, of W {ours['first']:.2g}, {ours['nodes']} beliefs",
                f"written out {ours['written']:.2g} of W, no solver named {unnamed:.3g} s{short}",
                f"best-first {theirs['seconds']:.3g} s, widest {theirs['gap']:.2g}",
                theirs["gap"] / ours["gap"],
            )
        )
    return found


def rated_gap(going: float, solver: dm.AbstractSolver, share: float) -> dict[str, Any]:
    """Solve one market: bounds of its economies as shares of the upper ones."""
    noted = Noted(solver, [])
    spent, _ = rated_solve(going, noted, share)
    last = noted.found[-1]
    gap, value = (last.upper - last.lower) / np.abs(last.upper), last.lower
    value = value if last.value is None else last.value
    return {
        "seconds": spent, "gap": float(gap.max()), "first": float(gap[0]), "nodes": last.nodes,
        "written": float(value[0] / last.upper[0]),
    }  # fmt: skip


def rated_solve(
    going: float, solver: dm.AbstractSolver | None, share: float
) -> tuple[float, dm.EfficientPolicy]:
    """Seconds of the processor, and the policy; None: no solver is named."""
    env = rated(going)
    one = env.sample_profiles(jax.random.key(0), 1)
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dm.DynmechWarning)  # few rounds are written out
        policy = dm.solve_efficient_policy(env, solver, initial=one, relative=share, progress=False)
    return time.process_time() - begin, policy


def measure(products: int, types: int, seed: int, tolerance: float) -> dict[str, Any]:
    """Solve one draw twice, and by NumPy; seconds, and the largest difference of values."""
    like, prior = draw(seed, products, types)
    env, spent = market(like, prior), []
    one = None if len(like) <= _AXES else env.sample_profiles(jax.random.key(0), 1)
    policy = None
    for _ in range(2):
        begin = time.process_time()
        policy = dm.solve_efficient_policy(env, initial=one, tolerance=tolerance, progress=False)
        spent.append(time.process_time() - begin)
    assert policy is not None
    begin = time.process_time()
    right = every_economy(like, prior, tolerance)
    numpy = time.process_time() - begin
    found = np.concatenate([policy.lower.ravel(), policy.marginal_value.ravel()])
    return {
        "shape": (products, types), "seed": seed, "kept": len(like), "first": spent[0],
        "ours": spent[1], "numpy": numpy, "gap": float((policy.upper - policy.lower).max()),
        "off": float(np.abs(found - right).max()),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]], shape: tuple[int, int]) -> dict[str, Any]:
    """Medians of one shape, the worst excess over NumPy, and the published seconds, scaled."""
    ours, numpy = ([one[name] for one in rows] for name in ("ours", "numpy"))
    found = {
        "first": rows[0]["first"], "ours": statistics.median(ours),
        "numpy": statistics.median(numpy),
        "ratio": statistics.median(numpy) / statistics.median(ours),
        "most over": max(a - b for a, b in zip(ours, numpy, strict=True)),
        "off": max(one["off"] for one in rows),
    }  # fmt: skip
    published, beside = PUBLISHED.get(shape, (None, None))
    scale = None if not published else (shape[0] + 1) * found["numpy"] / beside
    found["published"] = None if scale is None else published * scale
    return found
