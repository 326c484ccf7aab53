"""Jobs that are killed and gone on with: each does its work in a folder and returns its answer."""

import hashlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import dynmech as dm
from experiments.benchmarks.instances import hidden_taste

Begin = Callable[[], None]
BEGUN = "begun"  # what a process says where its work begins


def market(rounds: int = 3) -> dm.RecommendationMDP:
    """Two products, six tastes, context, ratings: everything matters, and little is to be done."""
    rng = np.random.default_rng(0)
    return dm.RecommendationMDP(
        rng.normal(size=(2, 2)),
        dm.TasteGrid(rng.lognormal(0.0, 0.5, (6, 2)), rng.dirichlet(np.full(6, 4.0))),
        rounds,
        dm.LastShownOnly(dm.Logit(0.5), query=0.6),
        dm.SignalStructure(
            initial=dm.GaussianSignals(platform=2.0, advertisers=1.5, symbols=3),
            feedback=dm.RatingFeedback(noise=0.7, symbols=3),
        ),
        dm.ConstantValues(np.sort(rng.uniform(0.2, 1.2, (2, 2)), axis=1)),
    )


def solve(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Solve exactly, few roots at a time."""
    env = market()
    begin()
    policy = dm.solve_efficient_policy(
        env, dm.Exact(memory=60_000), checkpoint=folder / "parts", progress=False
    )
    return [policy.value, policy.marginal_value]


def _search(
    solver: dm.AbstractSolver, folder: Path, begin: Begin, rounds: int = 6
) -> list[np.ndarray]:
    """Solve by a search, whose state is kept between its passes."""
    env = hidden_taste(8, rounds)
    begin()
    policy = dm.solve_efficient_policy(env, solver, checkpoint=folder / "parts", progress=False)
    return [policy.value, policy.upper, policy.marginal_value, policy.marginal_upper]


def best_first(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Search best first."""
    return _search(dm.BestFirst(exact_after=math.inf), folder, begin)


def branch_and_bound(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Search by branch and bound."""
    return _search(dm.BranchAndBound(exact_after=math.inf), folder, begin)


def point_based(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Search from beliefs visited."""
    return _search(dm.PointBased(exact_after=math.inf), folder, begin)


def giving_way(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Search, and solve the whole tree once that is quicker."""
    return _search(dm.BestFirst(), folder, begin, rounds=14)


def train(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Train a network and certify it."""
    env, two = market(), dm.Profiles(np.array([[0, 1], [1, 0]]), np.array([[0, 0, 0], [1, 1, 0]]))
    certificate = dm.Certificate(runs=30, marginal_runs=30, walk=0, work=1e4)
    solver = dm.Neural(
        sweeps=12, runs=8, steps=4, batch=8, width=8, summary=2, cases=3, certificate=certificate
    )
    begin()
    policy = dm.solve_efficient_policy(
        env, solver, initial=two, checkpoint=folder / "parts", progress=False
    )
    return [policy.value, policy.marginal_value]


def audit(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Audit a settlement under which lies pay, and the mechanism under other markets."""
    mechanism = dm.DynamicTeamMechanism(_policy(folder))
    begin()
    others = [market() for _ in range(6)]
    audits = mechanism.audit(under=others, checkpoint=folder / "parts")
    found = mechanism.audit(dm.settlement.MessageDriven(), checkpoint=folder / "roots")
    return [audits.incentive_gain, found.incentive_gain, found.gain_by_period]


def simulate(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Take moments of three million conversations."""
    mechanism = dm.DynamicTeamMechanism(_policy(folder))
    begin()
    found = mechanism.simulate_summary(
        jax.random.key(0), 3_000_000, checkpoint=folder / "parts", progress=False
    )
    return [*found.mean("payment"), found.quantile("payment", 0.5)]


def cell(seed: int, noise: float) -> dict[str, float]:
    """A cell that takes a moment."""
    draws = np.random.default_rng(seed).normal(size=1_000_000)
    return {"mean": float((noise * draws).mean()), "most": float((noise * draws).max())}


def sweep(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Sweep 60 cells."""
    begin()
    grid = {"noise": [0.5, 1.0, 2.0]}
    return [dm.sweep(cell, grid, seeds=20, folder=folder / "cells", progress=False).numbers]


def save(folder: Path, begin: Begin) -> list[np.ndarray]:
    """Write one ledger over another, again and again; whichever is there must be whole."""
    path, known = folder / "ledger", [_ledger(0.0), _ledger(1.0)]
    begin()
    if path.exists():
        held = dm.Ledger.load(path)
        assert any(np.array_equal(held.core, one.core) for one in known)
    for k in range(60):
        known[k % 2].save(path)
    return [dm.Ledger.load(path).core]


def _ledger(paid: float) -> dm.Ledger:
    """A ledger of many turns, in all of which the same was paid."""
    turns = 50_000
    ones, money = np.ones(turns, int), np.full((turns, 2), paid)
    return dm.Ledger(("a", "b"), ones, ones, ones, ones, money[:, 0], money[:, 0], money, money)


def _policy(folder: Path) -> dm.EfficientPolicy:
    """The policy of the market, solved once and kept."""
    path = folder / "policy"
    if not path.exists():
        dm.solve_efficient_policy(market(), progress=False).save(path)
    return dm.EfficientPolicy.load(path)


JOBS = {
    one.__name__: one
    for one in (
        solve, best_first, branch_and_bound, point_based, giving_way, train, audit, simulate,
        sweep, save,
    )
}  # fmt: skip


def answer(job: str, folder: Path, begin: Begin) -> str:
    """The digest of a job's answer, to the last bit."""
    found = hashlib.sha256()
    for array in JOBS[job](folder, begin):
        found.update(np.ascontiguousarray(array, np.float64).tobytes())
    return found.hexdigest()


def run_job() -> None:
    """What the process of a job does, which is told its name, its folder and that of programs."""
    name, folder, compiled = sys.argv[1:]
    jax.config.update("jax_enable_x64", True)
    dm.enable_compilation_cache(compiled)
    print(answer(name, Path(folder), lambda: print(BEGUN, flush=True)))
