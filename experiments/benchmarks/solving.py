"""Solving: both instances, marginal economies, many types, the rate of the heavy stage."""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import dynmech as dm
from experiments.benchmarks.instances import HIDDEN_TASTE_VALUE, hidden_taste, scale
from experiments.benchmarks.peers import numpy_recursion, quantecon_recursion
from experiments.benchmarks.rows import most_held, row, timed
from experiments.benchmarks.scaling import market

SARSOP = {(50, 6): (0.22, 0.41), (200, 6): (0.65, 1.13), (50, 8): (0.54, 2.39),
          (50, 10): (1.21, 14.6), (200, 10): (3.8, 51.9)}  # fmt: skip
"""Published seconds to a gap of 1e-3 and of 1e-5, on another machine."""
TYPES = 10_000


def rows(hidden: Sequence[tuple[int, int]], peer_rounds: int) -> list[dict[str, Any]]:
    """Time exact solves, compilation included and not, beside NumPy; check published values."""
    found = []
    for m, rounds in hidden:
        env = hidden_taste(m, rounds)
        jax.clear_caches()

        def solve(env: dm.RecommendationMDP = env):
            return dm.solve_efficient_policy(env, progress=False)

        cold, _ = timed(solve)
        warm, policy = timed(solve, repeat=3)
        value = float(policy.value.ravel()[0])
        if abs(value - HIDDEN_TASTE_VALUE.get((m, rounds), value)) > 1e-6:
            raise SystemExit(f"H({m}, {rounds}) is not worth {value}")
        size = f"{policy.work.nodes:,} nodes, 11 economies"
        name = f"H({m}, {rounds}), exact"
        sarsop = SARSOP.get((m, rounds))
        beside = f"SARSOP {sarsop[0]} s to 1e-3, {sarsop[1]} s to 1e-5" if sarsop else ""
        ratio = sarsop[1] / cold if sarsop else ""
        found.append(row(f"{name}, compilation included", cold, size, "", beside, ratio))
        rate = f"{policy.work.nodes / warm:,.0f} nodes/s"
        if rounds <= peer_rounds:
            seconds, other = numpy_recursion(env)
            if abs(other - value) > 1e-9:
                raise SystemExit(f"the NumPy recursion finds {other}, not {value}")
            beside = f"NumPy, W alone: {seconds:.3f} s"
            found.append(row(name, warm, size, rate, beside, seconds / warm))
            found += _quantecon(env, name, warm, value)
        else:
            found.append(row(name, warm, size, rate))
        found.append(_economies(policy, name, warm))
    kinds = "float64", "float32"
    rates = [product_rate(kind, roots) for roots in (1, 16, 244) for kind in kinds]
    return [*found, _types(*hidden[0]), *rates]


def _quantecon(
    env: dm.RecommendationMDP, name: str, warm: float, value: float
) -> list[dict[str, Any]]:
    """The same nodes as an explicit MDP, if QuantEcon is installed."""
    if not importlib.util.find_spec("quantecon"):
        return []
    built, seconds, other = quantecon_recursion(env)
    if abs(other - value) > 1e-9:
        raise SystemExit(f"QuantEcon finds {other}, not {value}")
    beside = f"QuantEcon, W alone: {seconds:.3f} s, after {built:.2f} s of building"
    return [row(f"{name}, beside an explicit MDP", warm, "", "", beside, seconds / warm)]


def real_rows() -> list[dict[str, Any]]:
    """The demo's two real markets: every profile's own alternatives and economies."""
    found = []
    for name, products in (("cars", 4), ("electricity", 4)):
        market = getattr(dm.applications, name)(products=products, tastes=60)
        env = dm.RecommendationMDP(
            market.gamma,
            market.tastes,
            4,
            dm.LastShownOnly(dm.Logit(market.taste_scale), query=0.9),
            dm.SignalStructure(
                dm.GaussianSignals(platform=30.0, advertisers=60.0), dm.RatingFeedback(noise=5.0)
            ),
            dm.ConstantValues(market.theta[:, None] * np.array([0.8, 1.0, 1.2])),
            market.names,
        )
        initial = env.sample_profiles(jax.random.key(0), 16)
        solve = partial(dm.solve_efficient_policy, env, initial=initial, progress=False)
        cold, _ = timed(solve)
        warm, policy = timed(solve, repeat=2)
        size = f"{policy.work.nodes:,} nodes, {len(policy.pairs.root):,} profiles with alternatives"
        what = f"{name}, {products} products, 60 tastes, 4 rounds, exact"
        found.append(row(what, warm, size, "", f"with compilation {cold:.2f} s"))
    return found


def _economies(policy: dm.EfficientPolicy, name: str, whole: float) -> dict[str, Any]:
    """W alone, and W with both marginal economies of every product, on one tree.

    A `whole` solve, every economy, also forms the tree, once for all, in the time that these leave.
    """
    alone = jax.jit(lambda theta: policy.revalue(theta_support=theta).value)
    every = jax.jit(
        lambda theta: jax.tree.leaves(policy.revalue(theta_support=theta, marginals=True))
    )
    with jax.enable_x64(True):
        theta = jnp.asarray(policy.env.values.support)
        for work in (alone, every):
            jax.block_until_ready(work(theta))
        one, _ = timed(lambda: jax.block_until_ready(alone(theta)), repeat=5)
        all_, _ = timed(lambda: jax.block_until_ready(every(theta)), repeat=5)
    tree = max(whole - all_, 0.0)
    size = f"with the tree {(tree + all_) / (tree + one):.2f} times W alone"
    beside = f"W alone: {one:.4f} s"
    return row(f"{name}, W with all W^-i and Wd^-i", all_, size, "", beside, one / all_)


def _types(m: int, rounds: int) -> dict[str, Any]:
    """Many value profiles on one tree."""
    policy = dm.solve_efficient_policy(hidden_taste(m, rounds), progress=False)
    rng = np.random.default_rng(0)
    theta = policy.env.values.support * rng.uniform(0.8, 1.2, (TYPES, 5, 1))
    with jax.enable_x64(True):
        solve = jax.jit(lambda t: policy.revalue(theta_support=t).value)
        every, first = jnp.asarray(theta), jnp.asarray(theta[0])
        jax.block_until_ready((solve(first), solve(every)))
        single, _ = timed(lambda: jax.block_until_ready(solve(first)), repeat=20)
        seconds, _ = timed(lambda: jax.block_until_ready(solve(every)), repeat=2)
    return row(
        f"H({m}, {rounds}), {TYPES:,} value profiles, W", seconds, f"{TYPES:,} profiles",
        f"{TYPES / seconds:,.0f} profiles/s", f"one profile: {single:.4f} s", single / seconds,
    )  # fmt: skip


def product_rate(kind: str, roots: int = 1) -> dict[str, Any]:
    """W alone, in a market where beliefs by rewards are nearly all of the work.

    `roots`: beliefs at the start, one for every symbol that the platform may have read. Counted are
    the products of beliefs by what is multiplied for one task: a feature a recommendation and one.
    A pass that keeps chances and rewards apart multiplies twice as much. The seconds are of
    everything: forming the beliefs, adding up what follows, choosing.
    """
    products, tastes = 28, 1024
    env = market(products, tastes, symbols=5, rounds=3, kind=kind)
    signals = np.zeros((roots, products + 1), int)
    if roots > 1:
        read = dm.GaussianSignals(platform=1.0, symbols=roots)
        env = dataclasses.replace(env, signals=dataclasses.replace(env.signals, initial=read))
        signals[:, 0] = np.arange(roots)
    initial = dm.Profiles(np.zeros((roots, products), int), signals)
    policy = dm.solve_efficient_policy(env, initial=initial, progress=False)
    with jax.enable_x64(kind == "float64"):
        theta = jnp.asarray(env.values.support)
        solve = jax.jit(lambda t: policy.revalue(theta_support=t).value)
        square = jnp.asarray(np.random.default_rng(0).random((1024, 1024)).astype(kind))
        product = jax.jit(lambda a: a @ a)
        jax.block_until_ready((solve(theta), product(square)))
        # In turns: what else the machine does must not favour one of the two.
        turns = [
            (_spent(lambda: solve(theta)), _spent(lambda: product(square)))
            for _ in range(30 if roots == 1 else 6)
        ]
    (seconds, of_cores), limit = np.min(turns, axis=0)
    multiplied = 2.0 * policy.work.nodes * tastes * roots
    rate, apart = (multiplied * (kinds * (products + 1) + 1) / seconds / 1e9 for kinds in (1, 2))
    top, top_of_cores = 2.0 * 1024**3 / limit / 1e9
    share = rate * seconds / of_cores / top_of_cores
    name = f"{products} products, {tastes} tastes, 3 rounds, W alone, {kind}"
    return row(
        name + (f", {roots} roots" if roots > 1 else ""), seconds,
        f"{policy.work.nodes:,} nodes", f"{rate:.1f} GFLOP/s",
        f"matrix product: {top:.0f} GFLOP/s; as a pass with rewards apart: {apart:.1f}; "
        f"a second of the processor {share:.2f} of a product's", rate / top,
    )  # fmt: skip


def _spent(work: Callable[[], Any]) -> Float[np.ndarray, " two"]:
    """Seconds by the clock and of the processor."""
    start = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return np.subtract((time.perf_counter(), time.process_time()), start)


def bounded_rows(
    hidden: Sequence[tuple[int, int]], tolerances: Sequence[float] = (1e-3, 1e-5)
) -> list[dict[str, Any]]:
    """Both solvers that follow part of the tree, to a gap, compilation included and not.

    All economies, as every solve; SARSOP's published seconds are of W alone.
    """
    found: list[dict[str, Any]] = []
    if not hidden:
        return found
    m, rounds = max(hidden, key=lambda size: size[1])
    published = dict(zip((1e-3, 1e-5), SARSOP.get((m, rounds), ()), strict=False))
    env = hidden_taste(m, rounds)
    for solver in (dm.PointBased(), dm.BranchAndBound()):
        for tolerance in tolerances:
            jax.clear_caches()

            def solve(solver: dm.AbstractSolver = solver, tolerance: float = tolerance):
                return dm.solve_efficient_policy(env, solver, tolerance=tolerance, progress=False)

            cold, _ = timed(solve)
            warm, policy = timed(solve)
            gap = float((policy.upper - policy.lower).max())
            known = published.get(tolerance)
            name = f"H({m}, {rounds}), {type(solver).__name__} to {tolerance:g}"
            size = f"{policy.work.nodes:,} nodes, gap {gap:.1g}, {2 * env.products + 1} economies"
            beside = f"SARSOP, W alone: {known} s" if known else ""
            for label, seconds in (("compilation included", cold), ("warm", warm)):
                ratio = known / seconds if known else ""
                found.append(row(f"{name}, {label}", seconds, size, "", beside, ratio))
    return found


def scale_rows(instances: Sequence[tuple[int, int, int, float]]) -> list[dict[str, Any]]:
    """Branch and bound on the scale instances: `products, tastes, rounds, gap asked for / W`."""
    found = []
    for n, m, rounds, share in instances:
        env = scale(n, m, rounds)
        options: dict[str, Any] = {"progress": False}
        if share > 0:  # three rounds are worth no more than these
            rough = dm.solve_efficient_policy(
                scale(n, m, 3), dm.BranchAndBound(), initial=one_profile(env), **options
            )
            options["tolerance"] = share * float(rough.lower.min())
        seconds, policy = timed(
            lambda env=env, options=options: dm.solve_efficient_policy(
                env, dm.BranchAndBound(memory=8e9), initial=one_profile(env), **options
            )
        )
        low, high = float(policy.lower.max()), float(policy.upper.max())
        gap = max(
            high - low,
            float((policy.marginal_upper - policy.marginal_value).max()),
            float((policy.displayable_marginal_upper - policy.displayable_marginal_value).max()),
        )
        economies = f"{2 * n + 1} economies, largest gap {100 * gap / low:.2g}% of W"
        size = f"W in [{low:.6f}, {high:.6f}], {economies}, {policy.work.nodes:,} nodes"
        what = f"S({n}, {m}, {rounds}), branch and bound, compilation included"
        found.append(row(what, seconds, size, "", f"peak memory so far {most_held():.1f} GB"))
    return found


def candidate_row(models: int, sellers: int) -> dict[str, Any]:
    """Candidates that cannot matter, removed with proof: the same cars from many sellers."""
    cars = dm.applications.cars(year=1990, products=models, tastes=60)
    rng, n = np.random.default_rng(0), models * sellers
    support = np.repeat(cars.theta, sellers) * rng.uniform(0.998, 1.002, n)
    env = dm.RecommendationMDP(
        np.repeat(cars.gamma, sellers, axis=0),
        cars.tastes,
        3,
        dm.LastShownOnly(dm.Logit(cars.taste_scale), query=0.9),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=5.0, symbols=3)),
        dm.ConstantValues(support),
    )
    removing, found = timed(lambda: dm.undominated(env))
    small = found.reduce()
    seconds, policy = timed(
        lambda: dm.solve_efficient_policy(small, initial=one_profile(small), progress=False)
    )
    size = f"{len(found.kept)} kept, certified at every belief that can be reached"
    beside = f"then solved in {seconds:.1f} s, {policy.work.nodes:,} nodes"
    return row(f"{n:,} offers of {models} cars, undominated", removing, size, "", beside)


def one_profile(env: dm.RecommendationMDP) -> dm.Profiles:
    """Values are constant and nobody has initial signals: one profile is all."""
    return env.sample_profiles(jax.random.key(0), 1)
