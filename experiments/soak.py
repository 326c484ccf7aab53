"""Load: a million steps of conversations, and hours of random verbs, in memory that does not grow.

One process serves conversations in batches and one by one, and settles them; then it calls verbs at
random (solves, audits, simulations, revaluation, files, explanations) on markets of a few shapes,
whose numbers are new each time. What the process holds is read when everything has been done once,
and at the end.

    python -m experiments.soak --steps 1000000 --hours 2
"""

import gc
import json
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import RESULTS
from experiments._output import Output

_BATCH = 2000  # conversations served together
_ALONE = 20  # of which so many are served one by one
_SHAPES = ((2, 4, 1), (2, 6, 2))  # products, tastes, rounds


@dataclass(frozen=True)
class Options:
    """How many steps, and how long."""

    results: Path = RESULTS
    """Folder under which soak/ is written."""
    steps: int = 1_000_000
    """Steps of conversations."""
    hours: float = 2.0
    """Hours of random verbs."""
    seed: int = 0
    """Seed of everything drawn."""


def held() -> float:
    """Megabytes that this process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def market(shape: tuple[int, int, int], rng: np.random.Generator) -> dm.RecommendationMDP:
    """A market of a shape with new numbers."""
    n, m, rounds = shape
    return dm.RecommendationMDP(
        rng.normal(size=(n, 2)),
        dm.TasteGrid(rng.normal(size=(m, 2)), rng.dirichlet(np.full(m, 4.0))),
        rounds,
        dm.LastShownOnly(dm.Logit(0.5), query=0.8),
        dm.SignalStructure(
            initial=dm.GaussianSignals(platform=2.0, symbols=2),
            feedback=dm.RatingFeedback(noise=0.7, symbols=3),
        ),
        dm.ConstantValues(np.sort(rng.uniform(0.2, 1.2, (n, 2)), axis=1)),
    )


def serve(steps: int, seed: int) -> dict[str, Any]:
    """Serve and settle conversations until so many steps were taken.

    **Returns:** steps, seconds, and megabytes held after a tenth and at the end.
    """
    rng = np.random.default_rng(seed)
    policy = dm.solve_efficient_policy(market((3, 8, 3), rng), progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    taken, start, began = 0, None, time.monotonic()
    while taken < steps:
        profiles = rng.integers(len(policy.profiles), size=_BATCH)
        chats = policy.start_many(profiles)
        while not chats.ended.all():
            actions = _actions(policy.env, rng, len(chats))
            symbols = rng.integers(policy.env.feedback_alphabet[0], size=len(chats))
            taken += int((~chats.ended).sum())
            chats = chats.step(actions, symbols)
        ledger = mechanism.settle(
            chats, np.where(chats.bought >= 0, rng.normal(size=_BATCH), np.nan)
        )
        assert np.isfinite(ledger.transfer).all()
        for profile in profiles[:_ALONE].tolist():
            chat = policy.start(profile=profile)
            while not chat.ended:
                action = int(_actions(policy.env, rng, 1)[0])
                chat = chat.step(action, 0 if action > policy.env.products else None)
                taken += 1
        if start is None and taken >= steps / 10:
            start = held()
    seconds = time.monotonic() - began
    return {
        "what": "steps",
        "done": taken,
        "seconds": seconds,
        "at first": start,
        "at last": held(),
    }


def _actions(env: dm.RecommendationMDP, rng: np.random.Generator, count: int) -> np.ndarray:
    """Half of them query, some leave, the others buy something."""
    drawn = rng.integers(2 * env.products + 2, size=count)
    return np.minimum(drawn, env.products + 1)


class Verbs:
    """Verbs to call at random, and what they need."""

    def __init__(self, folder: Path, rng: np.random.Generator):
        self.folder, self.rng = folder, rng
        self.mechanisms = [self._mechanism(shape) for shape in _SHAPES]

    def _mechanism(self, shape: tuple[int, int, int]) -> dm.DynamicTeamMechanism:
        policy = dm.solve_efficient_policy(market(shape, self.rng), progress=False)
        return dm.DynamicTeamMechanism(policy)

    def solve(self, k: int) -> None:
        """Solve new numbers; they are what is worked with from here on."""
        self.mechanisms[k] = self._mechanism(_SHAPES[k])

    def audit(self, k: int) -> None:
        """Audit truth, and a settlement that lies pay under."""
        assert self.mechanisms[k].audit().incentive_gain.max() < 1e-9
        self.mechanisms[k].audit(dm.settlement.MessageDriven())

    def simulate(self, k: int) -> None:
        """Simulate, take moments, write a log."""
        key = jax.random.key(int(self.rng.integers(2**31)))
        simulation = self.mechanisms[k].simulate(key, 2000)
        self.mechanisms[k].simulate_summary(key, 2000, progress=False)
        assert len(simulation.to_log().shown) > 0

    def revalue(self, k: int) -> None:
        """Value other supports."""
        policy = self.mechanisms[k].policy
        policy.revalue(policy.env.values.support * self.rng.uniform(0.5, 1.5))

    def keep(self, k: int) -> None:
        """Write and read a mechanism."""
        self.mechanisms[k].save(self.folder / f"{k}")
        self.mechanisms[k] = dm.DynamicTeamMechanism.load(self.folder / f"{k}")

    def talk(self, k: int) -> None:
        """Hold a conversation, explain it, continue its record."""
        policy = self.mechanisms[k].policy
        chat = policy.start(profile=0)
        policy.explain(chat)
        chat = policy.resume(json.loads(json.dumps(chat.record())))
        chat.step("exit")

    def refuse(self, k: int) -> None:
        """Ask for what is refused."""
        try:
            self.mechanisms[k].simulate(jax.random.key(0), -1)
        except dm.DynmechError:
            return
        raise AssertionError


NAMES = ("solve", "audit", "simulate", "revalue", "keep", "talk", "refuse")


def call(seconds: float, seed: int) -> dict[str, Any]:
    """Call verbs at random for so long, after each was called twice on every market.

    **Returns:** calls, seconds, and megabytes held before and after.
    """
    rng, done = np.random.default_rng(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        verbs = Verbs(Path(folder), rng)
        for _ in range(2):
            for name in NAMES:
                for k in range(len(_SHAPES)):
                    getattr(verbs, name)(k)
        start, began = held(), time.monotonic()
        while time.monotonic() - began < seconds:
            name = NAMES[rng.integers(len(NAMES))]
            getattr(verbs, name)(int(rng.integers(len(_SHAPES))))
            done[name] += 1
        spent = time.monotonic() - began
        end = held()
    return {
        "what": "verbs",
        "done": done.total(),
        "seconds": spent,
        "at first": start,
        "at last": end,
    }


def main(options: Options) -> None:
    """Serve, call, print and write the table."""
    out = Output(options.results / "soak", "")
    out.heading("Memory under load")
    rows = [serve(options.steps, options.seed), call(3600 * options.hours, options.seed)]
    names = {"done": "done [1]", "seconds": "seconds [s]",
             "at first": "held at first [MB]", "at last": "held at last [MB]"}  # fmt: skip
    out.table("soak", pd.DataFrame(rows).rename(columns=names), "Megabytes held by one process")
    out.finish(options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
