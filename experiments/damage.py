"""Files damaged at random: whether a policy or a checkpoint ever passes for something else.

A saved policy has a bit flipped, its end cut off, a stretch overwritten or taken out; right is a
refusal. A file of a checkpoint is damaged likewise, or exchanged for another of its own; right is a
refusal, or the answer of an undisturbed solve, bit by bit.

    python -m experiments.damage --count 10000 --seed 0
"""

import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments._figures import RESULTS
from experiments._fuzz_parts import parts
from experiments._output import Output


@dataclass(frozen=True)
class Options:
    """How many damaged files of each kind, and where the table goes."""

    count: int = 10_000
    """Damaged policies, and damaged checkpoints."""
    seed: int = 0
    """Seed of the damage."""
    results: Path = RESULTS
    """Folder under which damage/ is written."""


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One bit is another."""
    found = bytearray(data)
    found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """A stretch holds something else."""
    first, size = rng.randrange(len(data)), rng.randrange(1, 64)
    return data[:first] + rng.randbytes(size)[: len(data) - first] + data[first + size :]


def shortened(data: bytes, rng: random.Random) -> bytes:
    """A stretch is missing."""
    first = rng.randrange(len(data))
    return data[:first] + data[first + rng.randrange(1, 64) :]


DAMAGE = (flipped, cut, overwritten, shortened)
KINDS = ("refused", "as it was", "something else")


def outcome(load: Callable[[], bool]) -> str:
    """Whether it was refused, what it should be, something else, or a raw error."""
    try:
        return "as it was" if load() else "something else"
    except dm.DynmechError:
        return "refused"
    except Exception as error:
        return f"raw {type(error).__name__}"


def policies(count: int, rng: random.Random, folder: Path) -> Counter[str]:
    """Damage a saved policy and read it; any that loads is something else."""
    path = folder / "policy"
    dm.solve_efficient_policy(dm.RecommendationMDP(**parts()), progress=False).save(path)
    whole, found = path.read_bytes(), Counter()
    for _ in range(count):
        data = rng.choice(DAMAGE)(whole, rng)
        path.write_bytes(data)

        def load(data: bytes = data) -> bool:
            dm.EfficientPolicy.load(path)
            return data == whole

        found[outcome(load)] += 1
    return found


def checkpoints(count: int, rng: random.Random, folder: Path) -> Counter[str]:
    """Damage a file of a checkpoint and solve on; tables must be those of before."""
    initial = dm.GaussianSignals(platform=1.0, advertisers=[1.0, 1.0])
    given: dict[str, Any] = {**parts(), "signals": dm.SignalStructure(initial)}
    env = dm.RecommendationMDP(**given)
    kept = folder / "kept"

    def solve() -> np.ndarray:
        policy = dm.solve_efficient_policy(env, dm.Exact(), checkpoint=kept, progress=False)
        return np.concatenate([policy.value[None], policy.marginal_value])

    first = solve()
    files = {path: path.read_bytes() for path in sorted(kept.iterdir())}
    found = Counter()
    for _ in range(count):
        for path, data in files.items():
            path.write_bytes(data)
        path = rng.choice(sorted(files))
        swap = rng.random() < 0.2
        spoiled = (
            rng.choice(sorted(files.values())) if swap else rng.choice(DAMAGE)(files[path], rng)
        )
        path.write_bytes(spoiled)
        found[outcome(lambda: bool(np.array_equal(solve(), first, equal_nan=True)))] += 1
    return found


def main(options: Options) -> None:
    """Run, print and write the table."""
    out = Output(options.results / "damage", "")
    rng, rows = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, damage in (("policies", policies), ("checkpoints", checkpoints)):
            found = damage(options.count, rng, Path(folder))
            counts = {f"{kind} [1]": found.pop(kind, 0) for kind in KINDS}
            raw = {"raw errors [1]": found.total()}
            rows.append({"damaged": name, "number [1]": options.count, **counts, **raw})
            out.bullets([f"{name}: {many} {kind}" for kind, many in found.items()])
    out.table("damage", pd.DataFrame(rows), "Damaged files, and what was made of them")
    out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options))
