"""Random bad calls: what constructors and verbs make of arguments of the wrong kind.

Each call is a good one with one argument spoiled, or two swapped. Right is a `DynmechError` that
names the argument, or an answer that is sound: finite numbers, ordered bounds, W at least W^{-i},
probabilities that sum to one. Anything else is a failure: a raw error of Python, NumPy or JAX
("raw"), a refusal that names no argument ("unnamed"), an answer that is not sound ("unsound").

    python -m experiments.fuzz --count 4000 --seed 0
"""

import contextlib
import math
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from dynmech.estimators.decoders import Decoder
from dynmech.policy.conversations import Conversations
from experiments._figures import RESULTS
from experiments._fuzz_calls import calls
from experiments._output import Output

KINDS = ("refused", "answered", "unnamed", "raw", "unsound")


@dataclass(frozen=True)
class Options:
    """How many calls, and where the table goes."""

    count: int = 4000
    """Calls."""
    seed: int = 0
    """Seed of the calls."""
    results: Path = RESULTS
    """Folder under which fuzz/ is written."""


class Odd:
    """Something that is no number and has no good words for itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


ODDITIES: tuple[Any, ...] = (
    None, True, "a", "", b"x", -1, 0, 2.5, math.nan, math.inf, -math.inf, 1j, 10**30, Odd(),
    dm.Logit, dm.Exact, Odd, abs, [], {}, {"a": 1}, [[1, 2], [3]], [None], "exact",
    np.array(["a"]), np.array([1 + 1j]), np.array([None, 1], object),
    np.ma.masked_array([1.0, 2.0], [False, True]), np.zeros((0, 2)), np.full((2, 2), np.nan),
    pd.Series([1.0], index=["zz"]), jax.random.key(3), np.datetime64("2020-01-01"),
    dm.NoFeedback(), dm.Exact(),
)  # fmt: skip


def spoiled(value: Any, rng: random.Random) -> Any:
    """Another value for an argument: an oddity, or the good one with something wrong about it."""
    if rng.random() < 0.6 or not isinstance(value, np.ndarray):
        return rng.choice(ODDITIES)
    nan = np.array(value, float)
    nan.flat[rng.randrange(max(nan.size, 1))] = math.nan
    first = np.arange(value.size).reshape(value.shape) == 0
    rows = np.atleast_1d(value).reshape(len(np.atleast_1d(value)), -1)
    others = [
        nan,
        -1 * np.asarray(value),
        value + 1j,
        value.astype(str),
        value.astype(object),
        value.T,
        value[None],
        value[..., :-1],
        np.concatenate([value, value]),
        np.full(value.shape, math.inf),
        np.ma.masked_array(value, first),
        pd.DataFrame(rows).rename(columns=str, index=lambda i: f"x{i}"),
    ]
    return rng.choice(others)


def outcome(
    call: Callable[..., Any], arguments: dict[str, Any], named: list[str]
) -> tuple[str, str]:
    """What becomes of a call, and the words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = call(**arguments)
            faults = unsound(answer)
    except dm.DynmechError as error:
        words = str(error)
        return ("refused" if any(name in words for name in named) else "unnamed"), words
    except Exception as error:
        return "raw", f"{type(error).__name__}: {error}"
    return ("unsound", faults) if faults else ("answered", "")


def unsound(answer: Any) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if isinstance(answer, dm.EfficientPolicy):
        slack = 1e-9 * max(1.0, answer.env.money_scale)
        if not np.isfinite(answer.value).all():
            return "W is not finite"
        if (answer.lower > answer.upper + slack).any():
            return "bounds are crossed"
        if (answer.marginal_value > answer.upper + slack).any():
            return "W is less than a marginal economy"
        chance = answer.purchase.sum(axis=0)
        return "no probabilities" if chance.min() < 0 or chance.max() > 1 + 1e-9 else ""
    if isinstance(answer, dm.TasteGrid) and abs(np.sum(answer.weights) - 1) > 1e-6:
        return "weights do not sum to one"
    for leaf in jax.tree.leaves(answer):
        if isinstance(leaf, np.ndarray | float) and np.asarray(leaf).dtype.kind == "c":
            return "complex numbers"
        allowed = isinstance(
            answer[0] if isinstance(answer, tuple) and answer else answer,
            dm.Bounded
            | dm.Simulation
            | dm.Audit
            | dm.Ledger
            | dm.BestResponse
            | dm.Comparison
            | dm.Conversation
            | dm.DynamicTeamMechanism
            | dm.PaymentMoments
            | Conversations
            | Decoder
            | dm.static.Lottery
            | dm.static.Relevance
            | dm.static.Separation
            | dm.Log
            | dm.Fit,
        )  # NaN: there was none
        if not allowed and isinstance(leaf, np.ndarray | float) and np.isnan(leaf).any():
            return "NaN"
    return ""


def run(count: int, seed: int) -> dict[str, Any]:
    """Make `count` bad calls; count what became of them, and keep the failures."""
    # Some calls write where they are told to.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return _run(count, seed)


def _run(count: int, seed: int) -> dict[str, Any]:
    rng, table, failures = random.Random(seed), {}, []
    known = calls()
    for _ in range(count):
        name = rng.choice(sorted(known))
        call, good = known[name]
        arguments = dict(good)
        changed = [rng.choice(sorted(good))]
        if len(good) > 1 and rng.random() < 0.15:
            changed = rng.sample(sorted(good), 2)
            one, other = changed
            arguments[one], arguments[other] = good[other], good[one]
        else:
            arguments[changed[0]] = spoiled(good[changed[0]], rng)
        kind, words = outcome(call, arguments, sorted(good))
        table.setdefault(name, Counter())[kind] += 1
        if kind not in ("refused", "answered"):
            failures.append(
                {"call": name, "arguments": changed, "kind": kind, "words": words[:200]}
            )
    total = Counter()
    for counts in table.values():
        total.update(counts)
    return {
        "count": count,
        "seed": seed,
        "total": {kind: total[kind] for kind in KINDS},
        "calls": {name: dict(counts) for name, counts in sorted(table.items())},
        "failures": failures,
    }


def main(options: Options) -> dict[str, Any]:
    """Run, print the totals, write the tables."""
    out = Output(options.results / "fuzz", "")
    found = run(options.count, options.seed)
    total = {"calls [1]": found["count"], **{f"{k} [1]": n for k, n in found["total"].items()}}
    out.table("fuzz", pd.DataFrame([total]), "Bad calls, and what became of them")
    each = [{"call": name, **counts} for name, counts in found["calls"].items()]
    out.table("calls", pd.DataFrame(each).fillna(0), "By call", show=False)
    names = ["call", "arguments", "kind", "words"]
    failures = pd.DataFrame(found["failures"], columns=names).astype(str)
    first = failures.drop_duplicates(["call", "arguments"])
    out.table("failures", first, "Failures, each call and argument once")
    out.finish(options)
    return found


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options))
