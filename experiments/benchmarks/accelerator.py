"""The main jobs on an accelerator and on some of the same machine's cores, in one run.

Every job is done on both, a first time with compilation and again without, and the answers are
compared. Where nearly all of a job is products of matrices, its rate stands beside that of a square
product on the same device. Seconds are by the clock.

    python -m experiments.benchmarks.accelerator --cores 2
"""

import dataclasses
import datetime as dt
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import dynmech as dm
from experiments._demo_market import Options as Demo
from experiments._demo_market import build, resolve
from experiments.benchmarks.__main__ import commit
from experiments.benchmarks.audits import audit_market
from experiments.benchmarks.instances import generic, hidden_taste, shop
from experiments.benchmarks.rows import timed
from experiments.benchmarks.scaling import market
from experiments.benchmarks.solving import product_rate

RECORD = Path(__file__).parent / "accelerated.json"
Job = Callable[[], np.ndarray]
_PROFILES = 10_000
_COPIED = 2**28  # bytes of a copy whose rate is measured
_SAME = 1e-9  # of the largest number: how far apart answers in float64 may be


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure."""

    cores: int = 2
    """Processor cores that this process may use, with the accelerator and without it."""
    conversations: int = 500_000
    """Conversations that are simulated, in moments alone."""
    network: tuple[int, int, int] = (8, 128, 10)
    """Products, tastes and rounds of the market that a network is trained for."""
    jobs: tuple[str, ...] = ()
    """Only jobs whose name holds one of these; none: all."""
    results: Path = Path("results/benchmarks")
    """Where what was measured goes."""
    record: bool = False
    """Keep it as `accelerated.json` beside this file too, which the book prints."""


def jobs(options: Options) -> dict[str, Callable[[], Job]]:
    """Makers of every job: what it needs is made first, then it is timed."""
    products, tastes, rounds = options.network
    long = market(products, tastes, 5, rounds)
    one = long.sample_profiles(jax.random.key(0), 1)
    certificate = dm.Certificate(runs=1024, marginal_runs=128, work=2e10)

    def train() -> dm.EfficientPolicy:
        solver = dm.Neural(sweeps=3, certificate=certificate)
        return dm.solve_efficient_policy(long, solver, initial=one, progress=False)

    trained = functools.cache(train)

    def served() -> Job:
        policy = trained()
        chats = policy.start_many(np.zeros(_PROFILES, int))
        return lambda: (
            chats.step(np.full(_PROFILES, products + 1), np.zeros(_PROFILES, int)).recommendation
        )

    def simulated() -> Job:
        policy = dm.solve_efficient_policy(shop(4, 64, 3, "last"), progress=False)
        mechanism = dm.DynamicTeamMechanism(policy)
        given = jax.random.key(0), options.conversations
        return lambda: mechanism.simulate_summary(*given, progress=False).mean("payment")[0]

    def audited() -> Job:
        mechanism = audit_market(11)
        return lambda: mechanism.audit().participation

    return {
        "the demo's cars, 16 profiles, exact": lambda: _cars(np.float64),
        "the demo's cars, 16 profiles, exact, float32": lambda: _cars(np.float32),
        "12 products, 1,024 tastes, 5 rounds, exact": lambda: _tree("float64"),
        "12 products, 1,024 tastes, 5 rounds, exact, float32": lambda: _tree("float32"),
        "G(50, 7), exact": _generic,
        f"H(50, 6), {_PROFILES:,} value profiles, W": _profiles,
        "audit, 585,640 misreports": audited,
        f"{options.conversations:,} conversations, their moments": simulated,
        f"a network trained, certified: {products} products, {tastes} tastes, {rounds} rounds": (
            lambda: lambda: np.asarray(train().upper)
        ),
        f"that network, a round of {_PROFILES:,} conversations": served,
    }


def _cars(kind: type[np.floating]) -> Job:
    options = resolve(Demo(market="cars"), "cars")
    _, env = build(options)
    batch = env.sample_profiles(jax.random.key(0), options.profiles)
    env = dataclasses.replace(env, gamma=np.asarray(env.gamma, kind))
    return lambda: dm.solve_efficient_policy(env, initial=batch, progress=False).value


def _tree(kind: str) -> Job:
    env = market(12, 1024, 5, 5, kind)
    return lambda: dm.solve_efficient_policy(env, dm.Exact(), progress=False).value


def _generic() -> Job:
    env = generic(50, 7)
    return lambda: dm.solve_efficient_policy(env, dm.Exact(), progress=False).value


def _profiles() -> Job:
    policy = dm.solve_efficient_policy(hidden_taste(50, 6), progress=False)
    rng = np.random.default_rng(0)
    theta = policy.env.values.support * rng.uniform(0.8, 1.2, (_PROFILES, 5, 1))
    solve = jax.jit(lambda t: policy.revalue(theta_support=t).value)

    def work() -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(solve(jnp.asarray(theta)))

    return work


def limits(kind: str) -> tuple[float, float]:
    """GFLOP/s of a square product, and GB/s read and written by a copy, on this device."""
    size = 4096 if jax.default_backend() != "cpu" else 1024
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        square = jnp.asarray(np.random.default_rng(0).random((size, size)).astype(kind))
        many = jnp.zeros(_COPIED // square.dtype.itemsize, kind)
        product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
        jax.block_until_ready((product(square), copy(many)))
        multiplied, _ = timed(lambda: jax.block_until_ready(product(square)), 10)
        copied, _ = timed(lambda: jax.block_until_ready(copy(many)), 10)
    return 2e-9 * size**3 / multiplied, 2e-9 * _COPIED / copied


def places() -> dict[str, Any]:
    """The accelerator and the cores, by their platforms."""
    found = {one.platform: one for one in (jax.devices()[0], jax.devices("cpu")[0])}
    if len(found) < 2:
        raise SystemExit("No accelerator: jax.devices() are processor cores alone.")
    return found


def rates(devices: dict[str, Any]) -> list[dict[str, Any]]:
    """What each device can do, and the rate of a solve that is products for the most part."""
    found = []
    for platform, device in devices.items():
        for kind in ("float64", "float32"):
            with jax.default_device(device):
                product, copy = limits(kind)
                one = product_rate(kind)
            found.append({
                "device": platform, "kind": kind, "what": one["what"], "product": product,
                "copy": copy, "rate": float(one["rate"].split()[0]),
            })  # fmt: skip
    return found


def compared(name: str, make: Callable[[], Job], devices: dict[str, Any]) -> dict[str, Any]:
    """One job on every device: seconds of the first time and of the next, and how answers differ.

    `apart`: of the largest number. Exact solves in float64 that differ end the program.
    """
    found: dict[str, Any] = {"what": name}
    answers: list[np.ndarray] = []
    for platform, device in devices.items():
        with jax.default_device(device):
            work = make()
            first, _ = timed(work)
            again, answer = timed(work)
        answers.append(np.asarray(answer, float))
        found |= {f"{platform} first": first, f"{platform} again": again}
    one, other = answers
    found["apart"] = float(np.nanmax(abs(one - other)) / max(np.nanmax(abs(other)), 1e-300))
    if name.endswith("exact") and found["apart"] > _SAME:
        raise SystemExit(f"{name}: answers are {found['apart']:.1g} apart")
    return found


def main(options: Options) -> None:
    """Measure, print, and write to results/benchmarks what there is after every job."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    console, devices = Console(width=160), places()
    device = jax.devices()[0].device_kind
    options.results.mkdir(parents=True, exist_ok=True)
    written: dict[str, Any] = {
        "machine": f"{device}, beside {options.cores} cores, jax {jax.__version__}",
        "commit": commit(),
        "date": dt.date.today().isoformat(),
        "limits": rates(devices),
        "rows": [],
    }
    for one in written["limits"]:
        share = f"{one['rate'] / one['product']:.0%} of a square product's {one['product']:,.0f}"
        console.print(f"{one['device']}: {one['what']}: {one['rate']:,.0f} GFLOP/s, {share}; "
                      f"copy {one['copy']:,.0f} GB/s")  # fmt: skip
    path = options.results / f"accelerator-{written['commit']}.json"
    for name, make in jobs(options).items():
        if options.jobs and not any(part in name for part in options.jobs):
            continue
        row = compared(name, make, devices)
        written["rows"].append(row)
        console.print(", ".join(f"{key} {x:.3g}" if isinstance(x, float) else str(x)
                                for key, x in row.items()))  # fmt: skip
        for where in (path, *([RECORD] if options.record else ())):
            where.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    console.print(f"Written to {path}.")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
