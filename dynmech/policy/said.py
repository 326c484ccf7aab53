"""What users do and say in a round, and what advertisers report, as codes, symbols and indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import by_label, finite, indices
from dynmech._types import exit_code, query_code
from dynmech.errors import (
    InvalidArgument,
    NotFinite,
    OutsideSupport,
    closest,
    describe,
    is_number,
)
from dynmech.errors import shown as told
from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import MarkovValues

if TYPE_CHECKING:
    pass


def named_money(env: RecommendationMDP, theta: Any) -> Any:
    """Values reported: floats (n,), which are money, as a mapping from names; else as given."""
    given = by_label(theta)
    if isinstance(given, Mapping):
        return given
    try:
        array = np.asarray(given)
    except Exception:  # ragged lists and keys, which are no values either
        return given
    if array.dtype.kind != "f" or array.shape != (env.products,):
        return given
    return dict(zip(env.names, array.tolist(), strict=True))


def bid_of(env: RecommendationMDP, theta: Any) -> Float[np.ndarray, " n"] | None:
    """Values as money inside the declared interval where they are off the support, else None.

    **Raises:** `OutsideSupport` for money outside the interval.
    """
    interval, given = getattr(env.values, "interval", None), named_money(env, theta)
    if interval is None or not isinstance(given, Mapping) or set(given) != set(env.names):
        return None
    money = np.asarray(finite("theta=...", [given[name] for name in env.names]), float)
    support = np.asarray(env.values.support, float)
    near = np.abs(support - money[:, None]).min(axis=1)
    if (near <= 1e-9 * max(1.0, float(np.abs(support).max()))).all():
        return None
    out = (money < interval[:, 0]) | (money > interval[:, 1])
    if out.any():
        i = int(np.flatnonzero(out)[0])
        must = f"be money inside the declared interval {interval[i].tolist()}"
        raise OutsideSupport(describe("theta=...", must, f"{env.names[i]}: {money[i]}"))
    return money


def answer_of(env: RecommendationMDP, control: int, signals: Any) -> Int[np.ndarray, " n1"] | None:
    """Symbols of what was said about a display; None where nothing was, or none are."""
    alphabet = env.feedback_alphabet
    if signals is None:
        return np.zeros(len(alphabet), np.int64) if max(alphabet) == 1 else None
    given = by_label(signals)
    if isinstance(given, Mapping) and isinstance(given.get("platform"), float | np.floating):
        given = {**given, "platform": _symbol(env, control, given["platform"])}
    elif is_number(given):
        if max(alphabet[1:]) > 1:
            must = "name every party's symbol where advertisers read the answer too"
            raise InvalidArgument(describe("signals=...", must, told(signals)))
        given = {"platform": _symbol(env, control, float(np.asarray(given)))}
    return read_symbols(env, given, initial=False)


def _symbol(env: RecommendationMDP, control: int, rating: float) -> int:
    if not np.isfinite(rating):
        raise NotFinite(describe("signals=...", "be a finite rating", rating))
    return int(symbols_of(env, int(env.controls[control, 0]), np.array([rating]))[0])


def symbols_of(
    env: RecommendationMDP, product: int, ratings: Float[np.ndarray, " k"]
) -> Int[np.ndarray, " k"]:
    """The platform's symbols of ratings of one product, n for none.

    **Raises:** `InvalidArgument` where the market's answers are no numbers.
    """
    if product == env.products:
        return np.zeros(len(ratings), np.int64)
    found = env.signals.feedback.cut(product, ratings)
    if found is None:
        must, do = "be symbols: this market's feedback takes no numbers", "pass the symbol"
        raise InvalidArgument(describe("signals=...", must, float(ratings[0]), do))
    return found


def action_code(env: RecommendationMDP, action: int | str) -> int:
    n = env.products
    words = {
        "exit": exit_code(n),
        "query": query_code(n),
        **{x: i for i, x in enumerate(env.names)},
    }
    if isinstance(action, str):
        if action not in words:
            must = f"be one of {', '.join(words)}"
            do = closest(action, words)
            raise OutsideSupport(describe("Conversation.step(action=...)", must, action, do))
        return words[action]
    if not is_number(action, "iu") or not 0 <= int(action) < n + 2:
        must = f"be a code in 0..{n + 1}, or one of {', '.join(words)}"
        raise OutsideSupport(describe("Conversation.step(action=...)", must, told(action)))
    return int(action)


def read_symbols(env: RecommendationMDP, signals: Any, initial: bool) -> Int[np.ndarray, " n1"]:
    structure = env.signals.initial if initial else env.signals.feedback
    alphabet = env.initial_alphabet if initial else env.feedback_alphabet
    call = "signals"
    labels, signals = ("platform", *env.names), by_label(signals)
    if signals is None:
        if max(alphabet) > 1:
            must = "be given"
            do = f"pass symbols of {', '.join(labels)}, below {tuple(alphabet)}"
            raise InvalidArgument(describe(f"{call}=...", must, None, do))
        return np.zeros(len(alphabet), np.int64)
    if isinstance(signals, Mapping):
        unknown = set(signals) - set(labels)
        if unknown:
            must = f"name only {', '.join(labels)}"
            do = closest(sorted(map(str, unknown)), labels)
            raise OutsideSupport(describe(f"{call}=...", must, told(unknown), do))
        missing = [x for x, size in zip(labels, alphabet, strict=True) if size > 1]
        missing = [x for x in missing if x not in signals]
        if missing:
            raise InvalidArgument(describe(f"{call}=...", "name every party", f"no {missing}"))
        signals = [signals.get(label, 0) for label in labels]
    if isinstance(signals, Sequence) and any(isinstance(given, tuple) for given in signals):
        signals = structure.encode(signals)
    symbols = indices(None)(f"{call}=...", signals)
    if symbols.shape != (len(alphabet),):
        must = f"be {len(alphabet)} integers (platform first)"
        do = "name those who hear something, as in {'platform': 0}"
        raise InvalidArgument(describe(f"{call}=...", must, signals, do))
    if (symbols < 0).any() or (symbols >= np.array(alphabet)).any():
        do = "symbols count from 0, the platform's first, then each advertiser's"
        raise OutsideSupport(describe(f"{call}=...", f"be below {tuple(alphabet)}", signals, do))
    return symbols


def theta_index(env: RecommendationMDP, theta: Any) -> Int[np.ndarray, " n"]:
    support, theta = env.values.support, named_money(env, theta)
    n, size = support.shape
    if theta is None:
        if size > 1:
            do = "pass indices (n,), a mapping from names to money, or profile=0"
            raise InvalidArgument(describe("theta=...", "be given", None, do))
        return np.zeros(n, np.int64)
    if isinstance(theta, Mapping):
        if set(theta) != set(env.names):
            must = f"name each of {', '.join(env.names)}"
            do = closest(list(theta), env.names)
            raise OutsideSupport(describe("theta=...", must, told(list(theta)), do))
        money = np.asarray(finite("theta=...", [theta[name] for name in env.names]))
        gap = np.abs(support - money[:, None])
        index = gap.argmin(axis=1)
        off = gap[np.arange(n), index] > 1e-9 * max(1.0, float(np.abs(support).max()))
        if off.any():
            i = int(np.flatnonzero(off)[0])
            must = f"hold money values of the declared support, {support[i].tolist()}"
            do = "pass one of them, or declare ConstantValues(interval=...) to admit any between"
            got = f"{env.names[i]}: {theta[env.names[i]]}"
            raise OutsideSupport(describe("theta=...", must, got, do))
        return index
    index = indices(None)("theta=...", theta)
    if index.shape != (n,):
        must = f"be {n} integer indices, {n} floats of money, or a mapping from labels to money"
        do = "pass one for each advertiser"
        raise InvalidArgument(describe("theta=...", must, theta, do))
    if (index < 0).any() or (index >= size).any():
        raise OutsideSupport(describe("theta=...", f"be indices in 0..{size - 1}", theta))
    return index


def next_values(
    env: RecommendationMDP, held: np.ndarray, theta: Any, goes_on: bool
) -> Int[np.ndarray, " n"]:
    """Value indices of the next round: those in force where values are constant."""
    call = "Conversation.step(theta=...)"
    if not goes_on:
        if theta is not None:
            raise InvalidArgument(
                describe(call, "be given only when the conversation goes on", theta)
            )
        return held
    if not isinstance(env.values, MarkovValues):
        if theta is not None and (theta_index(env, theta) != held).any():
            raise InvalidArgument(describe(call, "stay the same: values are constant", theta))
        return held
    if theta is None and env.values.support.shape[1] > 1:
        must, do = "be given: values move between rounds", "pass the next values"
        raise InvalidArgument(describe(call, must, None, do))
    return theta_index(env, theta)
