"""What must hold of a policy, whatever solver found it, held against brute force."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import dynmech as dm
from experiments._brute_laws import Array
from experiments._brute_markets import Market
from experiments._brute_truth import Truth, attained, best_from, elsewhere, followed

ROUNDING = {False: 1e-9, True: 3e-6}
"""Slack by whether the market is in single precision, as a share of its largest sum of money."""
WALKED = 2
"""Profiles from which a policy is followed through every history that it leads to."""


def faults(
    market: Market, truth: Truth, policy: dm.EfficientPolicy, asked: dict[str, float],
    limited: bool, seed: list[int],
) -> list[str]:  # fmt: skip
    """Everything that is wrong with a policy, in words; nothing, where it is right.

    **Arguments:** `asked`: tolerance and relative as they were given; `limited`: whether memory,
    time or another setting may have ended the solve early.
    """
    slack = ROUNDING[market.env.gamma.dtype == np.float32] * market.scale
    low, high, value, least = economies(policy)
    found = list(_bounds(truth, low, high, value, least, slack))
    if not found:
        found += _status(policy, low, high, value, asked, limited, slack)
        found += _parts(market, policy, slack)
        found += _played(market, truth, policy, slack, seed)
        found += _totals(truth, policy, high - low, slack)
    return found


def economies(policy: dm.EfficientPolicy) -> tuple[Array, Array, Array, Array]:
    """Bounds of W, of every W^{-i} and of every Wd^{-i}; what their plans attain, and at least."""
    low = [policy.lower], policy.marginal_lower, policy.displayable_marginal_lower
    high = [policy.upper], policy.marginal_upper, policy.displayable_marginal_upper
    value = [policy.value], policy.marginal_value, policy.displayable_marginal_value
    least = [policy.value_lower], policy.marginal_value_lower
    least = *least, policy.displayable_marginal_value_lower
    low, high, value, least = (np.concatenate(parts) for parts in (low, high, value, least))
    return low, high, value, least


def _bounds(
    truth: Truth, low: Array, high: Array, value: Array, least: Array, slack: float
) -> Iterator[str]:
    for table, words in ((low, "lower"), (high, "upper"), (value, "value")):
        if (np.isnan(table) != np.isnan(truth.low)).any():
            yield f"{words} is known of other profiles than those that are possible"
            return
    # Without a last round a plan's value may be that of the rounds written out.
    ends = bool((truth.low == truth.high)[~np.isnan(truth.low)].all())
    for off, words in (
        (low - truth.high, "lower bound is above the truth"),
        (truth.low - high, "upper bound is below the truth"),
        ((value if ends else least) - truth.high, "value is above the truth"),
        (least - value, "value is below its lower bound"),
    ):
        if np.nanmax(off) > slack:
            e = int(np.argmax(np.nanmax(off.reshape(len(off), -1), axis=1)))
            yield f"{words} by {np.nanmax(off):.3g} in economy {e}"


def _status(
    policy: dm.EfficientPolicy, low: Array, high: Array, value: Array, asked: dict[str, float],
    limited: bool, slack: float,
) -> Iterator[str]:  # fmt: skip
    gap = high - np.minimum(low, value)
    widest = float(np.nanmax(gap))
    if policy.exact and policy.status is not dm.Status.EXACT:
        yield f"exact, the status {policy.status.name}"
    if policy.status is dm.Status.EXACT and widest > (slack if slack < 1e-6 else 100 * slack):
        yield f"status EXACT, bounds {widest:.3g} apart"
    if policy.status is dm.Status.WITHIN_TOLERANCE:
        enough = np.maximum(asked.get("tolerance", 0.0), asked.get("relative", 0.0) * np.abs(high))
        if np.nanmax(gap - enough) > slack:
            yield f"status WITHIN_TOLERANCE, bounds {np.nanmax(gap - enough):.3g} too far apart"
    if not policy.status.met and not limited:
        yield f"status {policy.status.name}, though nothing was limited"


def _parts(market: Market, policy: dm.EfficientPolicy, slack: float) -> Iterator[str]:
    parts = (policy.advertiser_value + policy.user_utility).sum(axis=0) - policy.round_costs
    if not np.allclose(parts, policy.value, rtol=0, atol=slack, equal_nan=True):
        yield f"value is not the sum of its parts, by {np.nanmax(np.abs(parts - policy.value)):.3g}"
    bought = policy.purchase
    if np.nanmin(bought) < -1e-6 or np.nanmax(bought.sum(axis=0)) > 1 + 1e-6:
        yield "chances of a purchase are no chances"


def _played(
    market: Market, truth: Truth, policy: dm.EfficientPolicy, slack: float, seed: list[int]
) -> Iterator[str]:
    """Follow the policy from some profiles; what it gets is what it says, and at most W."""
    at, rng = policy.profiles, np.random.default_rng(seed)
    possible = np.flatnonzero(policy.possible)
    for profile in rng.choice(possible, min(WALKED, len(possible)), replace=False).tolist():
        low, high = attained(market, policy, profile)
        index = (*at.theta[profile], *at.signals[profile])
        below, above = policy.value_lower[index], policy.value_upper[index]
        if low > above + slack or high < below - slack:
            yield f"plays [{low:.9g}, {high:.9g}] where it says [{below:.9g}, {above:.9g}]"
        if low > truth.high[0][index] + slack:
            yield f"plays {low - truth.high[0][index]:.3g} more than the truth"
        if high < policy.value[index] - slack:
            yield f"plays {policy.value[index] - high:.3g} less than its value"
    yield from _elsewhere(market, policy, int(rng.choice(possible)), slack, rng)


def _elsewhere(
    market: Market, policy: dm.EfficientPolicy, profile: int, slack: float,
    rng: np.random.Generator,
) -> Iterator[str]:  # fmt: skip
    """Go on from where something else was shown: bounds found on demand, and what is played."""
    there = elsewhere(market, policy, profile, rng)
    if there is None or there[0].ended:
        return
    chat, history, belief, v = there
    found, best = chat.certify(), best_from(market, history, belief, v)
    gets = followed(market, chat, history, belief, v)
    low, high = float(found.lower[0]), float(found.upper[0])
    if low > best[1] + slack or high < best[0] - slack:
        yield f"elsewhere W is in [{best[0]:.9g}, {best[1]:.9g}], not in [{low:.9g}, {high:.9g}]"
    if low > gets[1] + slack or gets[0] > best[1] + slack:
        yield f"elsewhere it plays {gets} where it says {low:.9g} and W is {best}"


def _totals(truth: Truth, policy: dm.EfficientPolicy, gap: Array, slack: float) -> Iterator[str]:
    """Groves totals: phi_plus at least, phi_minus at most what it is; both, where W is exact."""
    n = len(policy.marginal_value)
    terms: list[tuple[str, Any, Any, int]] = [
        ("phi_plus", dm.groves.NoSubsidy, np.fmax, 1),
        ("phi_minus", dm.groves.Participation, np.fmin, -1),
    ]
    for words, term, fold, side in terms:
        for shown in (False, True):
            total = dm.DynamicTeamMechanism(policy, term(displayable=shown)).groves_total
            for i in range(n):
                e, own = 1 + i + n * shown, n + 1 + i
                low = fold.reduce(truth.low[e], axis=own, keepdims=True)
                high = fold.reduce(truth.high[e], axis=own, keepdims=True)
                short = low - total[i] if side > 0 else total[i] - high
                wide = np.fmax.reduce(gap[e], axis=own, keepdims=True)
                long_ = (total[i] - high if side > 0 else low - total[i]) - wide
                known = ~np.isnan(truth.low[e])
                if np.isnan(total[i][known]).any():
                    yield f"{words} of {i} is not known"
                elif np.max(short[known]) > slack:
                    yield f"{words} of {i} is {np.max(short[known]):.3g} on the wrong side"
                elif np.max(long_[known]) > slack:
                    yield f"{words} of {i} is {np.max(long_[known]):.3g} beyond its gap"


def revalued(market: Market, truth: Truth, policy: dm.EfficientPolicy) -> list[str]:
    """What is wrong with the same numbers solved again by `revalue`, where rounds end."""
    slack = ROUNDING[market.env.gamma.dtype == np.float32] * market.scale
    support = np.asarray(policy.env.values.support)
    again = policy.revalue(theta_support=support, marginals=True)
    tables = [again.value], again.marginal_value, again.displayable_marginal_value
    found = np.concatenate([np.asarray(x, float) for x in tables])
    off = np.nanmax(np.abs(found - truth.low))
    return [f"revalued is {off:.3g} off"] if off > slack else []
