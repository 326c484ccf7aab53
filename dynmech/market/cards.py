"""What a market says of itself. `Any`: it is the market that asks, whose file this one serves."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np

from dynmech._html import Card, span


def part(thing: Any) -> str:
    """A part by its class and its numbers, `Logit(scale=20)`; arrays by their span."""
    if not isinstance(thing, eqx.Module):
        array = np.asarray(thing)
        if array.dtype.kind not in "biuf":
            return str(thing)
        return str(thing) if array.ndim == 0 and array.dtype.kind == "b" else span(array)
    fields = vars(thing).items()
    said = [f"{name}={part(x)}" for name, x in fields if x is not None and not callable(x)]
    return f"{type(thing).__name__}({', '.join(said)})"


def market(env: Any) -> Card:
    """Parts of a market, and what a shopper drawn from the prior thinks of its products."""
    utilities, weights = env.utilities, np.asarray(env.tastes.weights, float)
    support = np.asarray(env.values.support, float)
    signals = env.signals
    return Card(
        f"RecommendationMDP: {env.products} products, {env.tastes.size} tastes, {rounds_of(env)}",
        (
            ("behaviour", part(env.action_rule)),
            ("first signals", _channel(signals.initial, env.initial_alphabet)),
            ("feedback", _channel(signals.feedback, env.feedback_alphabet)),
            ("settlement", part(signals.settlement)),
            ("values", f"{type(env.values).__name__}, {support.shape[1]} a product"),
        ),
        ("product", "theta", "mean utility", "better than leaving [%]"),
        tuple(
            (name, span(support[i]), float(utilities[i] @ weights),
             100 * float((utilities[i] >= 0) @ weights))
            for i, name in enumerate(env.names)
        ),
    )  # fmt: skip


def rounds_of(env: Any) -> str:
    """How many rounds a market has, in words."""
    if env.horizon == np.inf:
        return "no last round"
    last = "" if env.action_rule.lasts() is None else ", the last for all that follow"
    return f"{env.horizon} rounds{last}"


def _channel(signal: Any, alphabet: tuple[int, ...]) -> str:
    platform, others = alphabet[0], alphabet[1:]
    counts = f"{platform} symbols to the platform, {span(others)} to an advertiser"
    return f"{type(signal).__name__}, {counts}"
