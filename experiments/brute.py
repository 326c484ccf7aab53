"""Values and bounds of every solver against brute force, on random tiny markets of every kind.

A market is solved with several settings, drawn anew for each; W and both marginal economies of
every advertiser are found by walking all histories. Right are bounds on both sides of the truth, a
status that the bounds bear out, a policy that gets what it says when it is followed through every
history that it leads to, Groves totals that are those of the truth, or, where W is only bounded, on
the safe side of it. A refusal counts where limits were set, or where there is no last round.
Anything else fails, and the command ends with exit code 1.

    python -m experiments.brute --count 2000
    python -m experiments.brute --kinds "perfect recall" --seed 17 --count 1

Single precision: rounding is allowed 3e-6 of the largest sum of money, else 1e-9.
"""

import dataclasses
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._brute_checks import faults, revalued
from experiments._brute_markets import KINDS, Kind, Market, draw
from experiments._brute_truth import Truth, solve
from experiments._figures import RESULTS
from experiments._output import Output

OUTCOMES = ("exact", "within tolerance", "ended by limits", "refused", "failed")


@dataclass(frozen=True)
class Options:
    """How many markets, which, and where the tables go."""

    count: int = 2000
    """Markets."""
    seed: int = 0
    """Seed of the first; the others follow."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Kinds of markets, taken in turn."""
    settings: int = 5
    """Settings of solvers that a market is solved with."""
    only: tuple[str, ...] = ()
    """Settings by name; all, where none is named."""
    single: float = 0.15
    """Share of markets in single precision."""
    x64: bool = False
    """Whether JAX's own 64 bits are on; as users find it, they are not."""
    minutes: float = 1e6
    """Stop after the market in which this time has passed."""
    results: Path = RESULTS
    """Folder under which brute/ is written."""


@dataclass(frozen=True)
class Setting:
    """A solver and what is asked of it; `tolerance` as a share of the market's money.

    `limited`: whether it may end early, or refuse. `horizons`: "finite", "endless" or both.
    `moving`: whether values may move.
    """

    solver: dm.AbstractSolver | None = None
    tolerance: float = 0.0
    asked: Mapping[str, float] = field(default_factory=dict)
    limited: bool = False
    horizons: str = "finite endless"
    moving: bool = True


def _settings() -> dict[str, Setting]:
    found = {
        "picked": Setting(horizons="finite"),
        "picked, exact without end": Setting(limited=True, horizons="endless"),
        "picked, tolerance": Setting(tolerance=0.02),
        "picked, share": Setting(asked={"relative": 0.02}, limited=False, horizons="finite"),
        "picked, little memory": Setting(None, 0.001, {"memory": 3e5}, limited=True),
        "picked, no time": Setting(None, 0.001, {"seconds": 1e-6}, limited=True),
        "Exact": Setting(dm.Exact(), horizons="finite"),
        "Exact, not merged": Setting(dm.Exact(merge=False), horizons="finite"),
        "Exact, last round apart": Setting(dm.Exact(listed=False), horizons="finite"),
        "BestFirst, exact without end": Setting(
            dm.BestFirst(), limited=True, horizons="endless", moving=False
        ),
        "BestFirst, in turns": Setting(
            dm.BestFirst(points_after=0.0), 0.001, horizons="endless", moving=False
        ),
        "Stationary": Setting(dm.Stationary(), 0.001, horizons="endless"),
        "Stationary, coarse": Setting(dm.Stationary(), 0.05, horizons="endless"),
        "BranchAndBound, beliefs merged": Setting(
            dm.BranchAndBound(merge_within=0.1, exact_after=math.inf),
            0.05,
            limited=True,
            horizons="finite",
        ),
        "PointBased, everywhere": Setting(
            dm.PointBased(beliefs=2, everywhere=True, exact_after=math.inf),
            0.02,
            limited=True,
            horizons="finite",
        ),
    }
    kinds: tuple[type[Any], ...] = (dm.BestFirst, dm.BranchAndBound, dm.PointBased)
    never: dict[str, Any] = {"exact_after": math.inf}
    for kind in kinds:
        best = kind is dm.BestFirst
        both = "finite" if kind is dm.BranchAndBound else "finite endless"
        asked = {
            "": Setting(kind(**never), horizons="finite"),
            ", giving way": Setting(kind(), 0.02, horizons="finite"),
            ", tolerance": Setting(kind(**never), 0.02, horizons=both),
            ", share": Setting(kind(**never), 0.0, {"relative": 0.05}, horizons="finite"),
            ", little memory": Setting(kind(memory=3e5, **never), limited=True, horizons="finite"),
            ", no time": Setting(kind(seconds=1e-6), 0.001, limited=True, horizons=both),
        }
        for words, setting in asked.items():
            found[f"{kind.__name__}{words}"] = dataclasses.replace(setting, moving=not best)
    return found


SETTINGS = _settings()
NETWORK = Setting(
    dm.Neural(
        sweeps=1, runs=2, steps=1, batch=2, cases=2, chunk=64,
        certificate=dm.Certificate(runs=60, marginal_runs=60, confidence=1 - 1e-9),
    ),
    limited=True, horizons="finite",
)  # fmt: skip
"""A network hardly trained: its bounds hold all the same."""


def run(
    count: int, seed: int = 0, kinds: tuple[str, ...] = tuple(KINDS), settings: int = 5,
    single: float = 0.0, known: Mapping[str, Setting] = SETTINGS, minutes: float = 1e6,
    say: Callable[[str], None] = lambda words: None,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:  # fmt: skip
    """Draw markets, solve them, check every answer; `say` is told of every fault.

    **Returns:** a row for every answer (kind, setting, outcome), and a row for every fault.
    """
    began, rows, wrong = time.monotonic(), [], []
    for k in range(count):
        if time.monotonic() - began > 60 * minutes:
            break
        name, number = kinds[k % len(kinds)], seed + k
        rng = np.random.default_rng([number, 1])
        coarse = bool(rng.random() < single)
        market = draw(KINDS[name], [number], coarse)
        truth = solve(market)
        able = [label for label, setting in known.items() if _suits(setting, KINDS[name])]
        for label in rng.permutation(able)[:settings].tolist():
            outcome, found = _answer(market, truth, known[label], [number])
            row = {"kind": name, "seed": number, "setting": label, "single": coarse}
            rows.append({**row, "outcome": "failed" if found else outcome})
            for words in found:
                wrong.append({**row, "fault": words})
                say(f"{name}, seed {number}, {label}: {words}")
    return pd.DataFrame(rows), wrong


def _suits(setting: Setting, kind: Kind) -> bool:
    side = "finite" if kind.rounds < np.inf else "endless"
    return side in setting.horizons and (setting.moving or not kind.markov)


def _answer(
    market: Market, truth: Truth, setting: Setting, seed: list[int]
) -> tuple[str, list[str]]:
    asked: dict[str, Any] = {"tolerance": setting.tolerance * market.scale, **setting.asked}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dm.DynmechWarning)
            policy = dm.solve_efficient_policy(market.env, setting.solver, progress=False, **asked)
            found = faults(market, truth, policy, asked, setting.limited, seed)
            if seed[0] % 10 == 0 and market.env.horizon < np.inf and not found:
                found = revalued(market, truth, policy)
    except dm.DynmechError as error:
        return "refused", [] if setting.limited else [f"refused: {error}"]
    except Exception as error:
        return "failed", [f"raw {type(error).__name__}: {error}"]
    if policy.status is dm.Status.EXACT:
        return "exact", found
    return "within tolerance" if policy.status.met else "ended by limits", found


def table(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """How often each outcome came, by kind or by setting."""
    counts = {name: Counter(part["outcome"]) for name, part in rows.groupby(by, sort=False)}
    return pd.DataFrame(
        [
            {by: name, "answers [1]": found.total(), **{f"{k} [1]": found[k] for k in OUTCOMES}}
            for name, found in counts.items()
        ]
    )


def main(options: Options) -> int:
    """Run, print and write the tables; the exit code says whether anything failed."""
    unknown = {*options.kinds} - {*KINDS} | {*options.only} - {*SETTINGS, "Neural"}
    if unknown:
        raise SystemExit(f"no such kind or setting: {sorted(unknown)}")
    known = SETTINGS | {"Neural": NETWORK}
    known = {name: known[name] for name in options.only or SETTINGS}
    out = Output(options.results / "brute", "the market's own")
    with jax.enable_x64(options.x64):
        rows, wrong = run(
            options.count, options.seed, options.kinds, options.settings, options.single, known,
            options.minutes, out.say,
        )  # fmt: skip
    markets = len(rows.drop_duplicates(["kind", "seed"]))
    out.say(f"{markets} markets, {len(rows)} answers, {len(wrong)} faults")
    out.table("kinds", table(rows, "kind"), "Answers by kind of market")
    out.table("settings", table(rows, "setting"), "Answers by solver and what was asked of it")
    names = ["kind", "seed", "setting", "single", "fault"]
    out.table("faults", pd.DataFrame(wrong, columns=names).astype(str), "Faults")
    out.finish(options)
    return 1 if wrong else 0


if __name__ == "__main__":
    dm.enable_compilation_cache()
    sys.exit(main(tyro.cli(Options)))
