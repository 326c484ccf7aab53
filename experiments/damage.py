"""Files that are damaged, torn, swapped or half-written: what is read all the same.

Saved policies and the parts of checkpoints are changed at random (bits, blocks, lengths, text of
the header, pieces of another market's file), and processes that save are killed at random
moments. A policy that loads as something else, a solve that resumes to another answer, or a file
that a killed writer leaves as a mixture is a silent fault; there must be none.
"""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from dynmech import files
from experiments._figures import RESULTS
from experiments._output import Output

MEMORY = 60_000  # bytes: so little that the solve is done in parts


@dataclass(frozen=True)
class Options:
    """How much is damaged."""

    policies: int = 10_000
    """Changed files of policies."""
    checkpoints: int = 10_000
    """Changed parts of checkpoints, several to a resumed solve."""
    kills: int = 200
    """Processes killed while they save."""
    seed: int = 0
    """Seed of the changes and of the moments."""
    results: Path = RESULTS
    """Folder for tables."""


def market(seed: int, names: tuple[str, str], rounds: int) -> dm.RecommendationMDP:
    """A small market with ratings; the seed draws its numbers."""
    rng = np.random.default_rng(seed)
    tastes = dm.TasteGrid(rng.lognormal(0, 0.5, (5, 2)), rng.dirichlet(np.full(5, 4.0)))
    first = dm.GaussianSignals(2.0, 1.5, symbols=2)
    signals = dm.SignalStructure(first, dm.RatingFeedback(0.7, 3), dm.RatingSettlement(seed))
    values = dm.ConstantValues(np.sort(rng.uniform(0.2, 1.2, (2, 2)), axis=1))
    rule = dm.PerfectRecall(dm.Logit(0.5), 0.6)
    return dm.RecommendationMDP(
        rng.normal(size=(2, 2)), tastes, rounds, rule, signals, values, names
    )


def _blocks(data: bytes, rng: np.random.Generator, count: int = 1) -> list[slice]:
    size = int(rng.integers(1, max(2, len(data) // 8)))
    starts = rng.integers(0, max(1, len(data) - size), count)
    return [slice(int(start), int(start) + size) for start in starts]


def _bit(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    found, place = bytearray(data), int(rng.integers(len(data)))
    found[place] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _digit(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Another digit in the text of the header."""
    stop = 8 + int.from_bytes(data[:8], "little")
    places = [k for k in range(8, min(stop, len(data))) if data[k : k + 1].isdigit()]
    found = bytearray(data)
    if places:
        found[places[int(rng.integers(len(places)))]] = ord("0") + int(rng.integers(10))
    return bytes(found)


def _cut(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _longer(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 64)))


def _zeros(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    (block,) = _blocks(data, rng)
    return data[: block.start] + bytes(len(data[block])) + data[block.stop :]


def _exchanged(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    found, (one, two) = bytearray(data), _blocks(data, rng, 2)
    found[one], found[two] = data[two], data[one]
    return bytes(found)


def _missing(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    (block,) = _blocks(data, rng)
    return data[: block.start] + data[block.stop :]


def _mixed(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The head of one file and the rest of the other, cut anywhere."""
    place = int(rng.integers(min(len(data), len(other))))
    return data[:place] + other[place:]


def _arrays_of_another(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    heads = [8 + int.from_bytes(x[:8], "little") for x in (data, other)]
    return data[: heads[0]] + other[heads[1] :]


CHANGES = (
    _bit, _bit, _digit, _cut, _longer, _zeros, _exchanged, _missing, _mixed, _arrays_of_another,
)  # fmt: skip


def changed(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A file that is not the one given, nor the other."""
    while True:
        found = CHANGES[int(rng.integers(len(CHANGES)))](data, other, rng)
        if found not in (data, other):
            return found


def outcome(work: Callable[[], str]) -> str:
    """What came of it: what `work` says, "refused", or the name of an error that is not ours."""
    try:
        return work()
    except dm.DynmechError:
        return "refused"
    except Exception as error:  # whatever it is, it is a finding
        return f"raw {type(error).__name__}"


def policies(options: Options, folder: Path) -> Counter[str]:
    """Load changed policies; also those of which the kind or the format is another."""
    one, two = (
        dm.solve_efficient_policy(market(seed, ("Ann", "Bob"), 2), progress=False)
        for seed in (1, 2)
    )
    kept = []
    for name, policy in (("one", one), ("two", two)):
        policy.save(folder / name)
        kept.append((folder / name).read_bytes())
    rng, found = np.random.default_rng([options.seed, 0]), Counter()

    def load() -> str:
        dm.EfficientPolicy.load(folder / "changed")
        return "loaded silently"

    for _ in range(options.policies):
        (folder / "changed").write_bytes(changed(kept[0], kept[1], rng))
        found[outcome(load)] += 1
    return found


def same(one: dm.EfficientPolicy, two: dm.EfficientPolicy) -> bool:
    """Whether two solves are the same, number by number, recommendation by recommendation."""
    pairs = [(getattr(one, name), getattr(two, name)) for name in ("value", "marginal_value")]
    pairs += list(zip(one.plan.actions, two.plan.actions, strict=True))
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def checkpoints(options: Options, folder: Path) -> Counter[str]:
    """Resume solves of which parts are changed, of another market, or out of place."""
    solver = dm.Exact(memory=MEMORY)
    envs = [market(seed, ("Ann", "Bob"), 3) for seed in (1, 2)]
    right, _ = (
        dm.solve_efficient_policy(env, solver, checkpoint=folder / str(k), progress=False)
        for k, env in enumerate(envs)
    )
    parts = [{x.name: x.read_bytes() for x in (folder / str(k)).iterdir()} for k in range(2)]
    rng, found, done = np.random.default_rng([options.seed, 1]), Counter(), 0
    place = folder / "changed"

    def resume() -> str:
        got = dm.solve_efficient_policy(envs[0], solver, checkpoint=place, progress=False)
        return "made again, and right" if same(got, right) else "another answer silently"

    while done < options.checkpoints:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        names = sorted(parts[0])
        turned = dict(zip(names, names[1:] + names[:1], strict=True))
        count = 0
        for name, data in parts[0].items():
            other = parts[1].get(name, data[::-1])
            kind = int(rng.integers(4)) if name != "manifest.json" else 2 + int(rng.integers(6))
            ways = {0: other, 1: parts[0][turned[name]], 2: changed(data, other, rng)}
            content = ways.get(kind, changed(data, other, rng) if kind == 3 else data)
            (place / name).write_bytes(content)
            count += content != data
        found[outcome(resume)] += count
        done += count
    return found


def kills(options: Options, folder: Path) -> Counter[str]:
    """Kill processes that save two policies in turn, and read what is there."""
    one, two = (
        dm.solve_efficient_policy(market(seed, names, 2), progress=False)
        for seed, names in ((1, ("Ann", "Bob")), (2, ("Bob", "Ann")))
    )
    place = folder / "policy"
    rng, found = np.random.default_rng([options.seed, 2]), Counter()

    def read() -> str:
        got = dm.EfficientPolicy.load(place)
        whole = [same(got, x) and got.env.names == x.env.names for x in (one, two)]
        return "whole" if any(whole) else "a mixture silently"

    for _ in range(options.kills):
        one.save(place)
        found["litter"] += len(list(folder.iterdir())) - 1
        writer = _forked(lambda: [x.save(place) for x in (two, one)])
        time.sleep(float(rng.uniform(0, 0.15)))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        found[outcome(read)] += 1
    one.save(place)
    found["litter"] += len(list(folder.iterdir())) - 1
    return found


def _forked(work: Callable[[], object]) -> int:
    """A process that repeats `work` until it is killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX, about fork: the child does nothing with it
        child = os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException):
        while True:
            work()
    os._exit(1)


def row(what: str, goal: str, found: Counter[str], silent: str, fine: Iterable[str]) -> dict:
    """One line of the table: how many, how many silent faults, how many raw errors."""
    count = sum(n for word, n in found.items() if word != "litter")
    raw = sum(n for word, n in found.items() if word.startswith("raw"))
    return {
        "what": what,
        "tried": count,
        "refused": found["refused"],
        "right all the same": sum(found[word] for word in fine),
        "raw errors": raw,
        "silent faults": found[silent],
        "left behind": found["litter"],
        "goal": goal,
    }


def main(options: Options) -> None:
    """Damage, read, count; tables and JSON."""
    out = Output(options.results / "damage", "money")
    with jax.enable_x64(True), tempfile.TemporaryDirectory() as name:
        rows = []
        for run, what, goal, silent, fine in (
            (policies, "changed policies", "0 silent", "loaded silently", ()),
            (
                checkpoints, "changed parts of checkpoints", "0 silent", "another answer silently",
                ("made again, and right",),
            ),
            (kills, "kills during a save", "0 mixtures", "a mixture silently", ("whole",)),
        ):  # fmt: skip
            folder = Path(name) / run.__name__
            folder.mkdir()
            rows.append(row(what, goal, run(options, folder), silent, fine))
    out.heading("Damaged files")
    out.table("damage", pd.DataFrame(rows), "What comes of them")
    settings = {k: v for k, v in asdict(options).items() if k != "results"}
    content = json.dumps({"options": settings, "rows": rows}, indent=1)
    files.write(out.folder / "damage.json", content)
    out.finish()
    faults = sum(x["silent faults"] + x["raw errors"] + x["left behind"] for x in rows)
    if faults:
        raise SystemExit(f"{faults} faults")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
