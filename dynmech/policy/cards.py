"""What policies and conversations say of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynmech._html import Card, amount, some, span
from dynmech._types import NONE
from dynmech.market.displays import named


def policy(it: Any) -> Card:
    """What it is worth, for whom, and how sure that is; nothing is solved to say so."""
    env, tables = it.env, it.figures
    known = np.isfinite(tables.value.value)
    every = tables.value.value
    gap = np.nanmax(np.asarray(tables.upper) - tables.value.lower, initial=0.0, where=known)
    sure = "" if it.confidence == 1 else f", each simulated bound at {100 * it.confidence:g}%"
    best = "the same but for rounding" if it.exact else f"at most {amount(gap)} above it{sure}"
    means = [
        [_mean(table.value[i]) for table in (tables.earned, tables.utility, tables.purchase)]
        for i in range(env.products)
    ]
    return Card(
        f"{type(it).__name__}: {some(env.names)}",
        (
            ("solver", it.solver),
            ("profiles", f"{int(known.sum())} that can occur, of {known.size}"),
            (
                "value",
                f"{amount(_mean(every))} on average, {span(every)}",
            ),
            ("W", best),
        ),
        ("product", "earned", "utility", "purchases"),
        tuple((name, *mean) for name, mean in zip(env.names, means)),
        f"Means over profiles, money; solved in {it.seconds:.3g} s.",
    )


def conversation(it: Any) -> Card:
    """Where it is, what is shown now, and what happened."""
    env = it.policy.env
    words = {**dict(enumerate(env.names)), NONE: "none"}
    acts = {env.products: "left", env.products + 1: "asked again"}
    if it.ended:
        now = "ended"
    else:
        now = f"round {it.period}, {named(env.names, it.recommendation)} is recommended"
    where = "; something happened that the model excludes" if it.off_model else ""
    mean = env.utilities @ it.belief
    rows = tuple(
        (
            str(turn.period),
            named(env.names, turn.shown),
            acts.get(turn.action) or f"bought {words[turn.action]}",
            "nothing" if turn.signals is None else ", ".join(map(str, turn.signals.tolist())),
        )
        for turn in it.turns
    )
    liked = sorted(range(env.products), key=lambda i: -mean[i])
    expected = ", ".join(f"{env.names[i]} {amount(mean[i])}" for i in liked[:4])
    values = ", ".join(f"{env.names[i]} {amount(x)}" for i, x in enumerate(it.theta[:4]))
    return Card(
        f"Conversation: {now}{where}",
        (
            ("values", values),
            ("expected utility", expected),
            ("chance so far", amount(it.probability)),
        ),
        ("round", "shown", "the user", "signals heard") if rows else (),
        rows,
    )


def _mean(table: np.ndarray) -> float:
    known = table[np.isfinite(table)]
    return float(known.mean()) if known.size else np.nan
