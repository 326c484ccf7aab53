"""Waiting: imports, the first solves of a process, the next, and serving running conversations."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import dynmech as dm
from experiments._demo_market import Options as Demo
from experiments._demo_market import build, resolve
from experiments.benchmarks.instances import hidden_taste, shop
from experiments.benchmarks.rows import row, timed
from experiments.benchmarks.scaling import market

CONVERSATIONS = 10_000
FIRST = {
    "README's cars": Demo(market="cars", products=4, tastes=60, rounds=3, profiles=8),
    "the demo's cars": Demo(market="cars"),
}
"""Options of the markets that are solved in fresh processes."""


def rows() -> list[dict[str, Any]]:
    """Time what a user waits for, in a fresh process; and serving."""
    code = (
        "import time, jax; a = time.perf_counter(); import dynmech; b = time.perf_counter();"
        "from experiments.benchmarks.instances import hidden_taste as h;"
        "s = lambda: dynmech.solve_efficient_policy(h(8, 2), progress=False);"
        "s(); c = time.perf_counter(); w = [];\n"
        "for _ in range(20): d = time.perf_counter(); s(); w.append(time.perf_counter() - d)\n"
        "print(b - a, c - b, min(w))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    labels = (
        "import dynmech, after jax (names load on first use)",
        "first small solve, H(8, 2): loading and compilation included",
        "the same solve again, least of 20",
    )
    seconds = map(float, done.stdout.split())
    found = [row(label, one) for label, one in zip(labels, seconds, strict=True)]
    for label, options in FIRST.items():
        code = f"from experiments.benchmarks import waiting; waiting.first_solves({label!r})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        for one in json.loads(done.stdout):
            what = f"{label}, {options.profiles} profiles, {one['what']}"
            size = f"{one['programs']} programs compiled, {one['seconds']:.3g} s of the clock"
            whole = f"{size}; market built and profiles drawn in {one['before']:.2g} s of it all"
            found.append(row(what, one["processor"], whole))
            found.append(row(f"{what}, the solve alone", one["processor"] - one["before"]))
    found += [_served(), _recommended()]
    policy = dm.solve_efficient_policy(hidden_taste(50, 6), progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    mechanism.simulate(jax.random.key(1), 100)
    took, records = timed(lambda: mechanism.simulate(jax.random.key(0), CONVERSATIONS))
    periods = len(records.to_frame())
    found.append(
        row(
            f"{CONVERSATIONS:,} conversations of up to 6 rounds, with every transfer",
            took,
            f"{periods:,} records",
            f"{CONVERSATIONS / took:,.0f}/s",
        )
    )
    return found


def first_solves(label: str) -> None:
    """Print, as JSON, what a first solve takes, then another draw of profiles, and programs.

    The market is built anew and its profiles drawn each time: `before` of the processor's seconds.
    """
    compiled = [0]

    def count(event: str, duration_secs: float, **kwargs: str | int) -> None:
        compiled[0] += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(count)
    found = []
    for seed, what in enumerate(("first solve of a process", "then of another draw")):
        before, processor, clock = compiled[0], time.process_time(), time.perf_counter()
        options = resolve(FIRST[label], "cars")
        _, env = build(options)
        batch = env.sample_profiles(jax.random.key(seed), options.profiles)
        ready = time.process_time()
        dm.solve_efficient_policy(env, initial=batch, progress=False)
        found.append(
            {
                "what": what,
                "processor": time.process_time() - processor,
                "before": ready - processor,
                "seconds": time.perf_counter() - clock,
                "programs": compiled[0] - before,
            }
        )
    print(json.dumps(found))


def _recommended(rounds: int = 4) -> dict[str, Any]:
    """A round of many conversations under a network: beliefs, and what is shown next."""
    env = market(8, 64, 5, 8)
    solver = dm.Neural(
        sweeps=1, runs=8, steps=4, cases=2,
        certificate=dm.Certificate(runs=64, marginal_runs=32, work=1e8),
    )  # fmt: skip
    one = env.sample_profiles(jax.random.key(0), 1)
    policy = dm.solve_efficient_policy(env, solver, initial=one, progress=False)
    rng, chats = np.random.default_rng(0), policy.start_many(np.zeros(CONVERSATIONS, int))
    asked = np.full(CONVERSATIONS, env.products + 1)

    def step():
        answers = np.random.default_rng(rounds).integers(5, size=CONVERSATIONS)
        return chats.step(asked, answers).recommendation

    for _ in range(rounds - 1):
        chats = chats.step(asked, rng.integers(5, size=CONVERSATIONS))
    step()
    seconds, _ = timed(step, repeat=3)
    what = f"{CONVERSATIONS:,} conversations, round {rounds} by a network of 8 products"
    each = f"{1e6 * seconds / CONVERSATIONS:.0f} microseconds a conversation"
    return row(what, seconds, "64 tastes, begun alike", each)


def _served(rounds: int = 3) -> dict[str, Any]:
    """Given conversations, begun, stepped and settled, as by a platform that keeps them."""
    rng, env = np.random.default_rng(0), shop(4, 64, rounds, "last")
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    choices: Sequence[int] = (*range(4), 4, 5, 5, 5)  # bought, left, asked again thrice as often

    def serve():
        chats = policy.start_many(np.zeros(CONVERSATIONS, int))
        for _ in range(rounds):
            offered, action = chats.recommendation, rng.choice(choices, CONVERSATIONS)
            chats = chats.step(
                np.where(action < 4, offered, action), rng.integers(5, size=len(offered))
            )
        return mechanism.settle(chats, np.where(chats.bought >= 0, 0.3, np.nan))

    serve()
    seconds, ledger = timed(serve)
    size = f"{len(ledger.transfer):,} transfers of 4 advertisers"
    what = f"{CONVERSATIONS:,} given conversations begun, stepped {rounds} times, settled"
    return row(what, seconds, size, f"{CONVERSATIONS / seconds:,.0f}/s")
