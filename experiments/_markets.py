"""Markets of the experiments: random ones, small ones built by hand, and small real ones.

Everything goes through the library's public constructors. Money has no unit in random and
constructed markets; in the others it is the market's own.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

import dynmech as dm

ABSTRACT = "units of money"
CHOICE_SCALE = 0.5
RATING_NOISE = 0.5
REAL_NOISE = {"cars": (5.0, 30.0, 60.0), "electricity": (0.5, 1.0, 2.0)}
Real = Literal["cars", "electricity"]


def random_market(
    seed: int,
    products: int = 2,
    rounds: int = 2,
    symbols: int = 2,
    *,
    tastes: int = 5,
    values: int = 2,
    constant: bool = False,
    separate: bool = False,
    keeps: bool = False,
) -> dm.RecommendationMDP:
    """Draw a market in which values, signals and feedback all turn the recommendation.

    Perfect recall, logit choice, query probabilities of each product and taste; every party has
    `symbols` symbols at the start and after each query, jointly distributed. Mean utilities are a
    little below the outside option, values about as large.

    **Arguments:** `constant`: values do not move; `separate`: showing a product cannot help the
    others: only what is on the screen is bought, and whether the user asks again and what is then
    learned do not depend on it; `keeps`: the user rarely asks again unless product 0 is shown.
    """
    rng = np.random.default_rng(seed)
    n, m, k = products, tastes, 2
    prior = rng.dirichlet(np.full(m, 3.0))
    omega = rng.lognormal(0.0, 0.6, (m, k))
    mean = prior @ omega
    gamma = rng.normal(size=(n, k))
    gamma += np.outer(rng.uniform(-0.4, 0.1, n) - gamma @ mean, mean) / (mean @ mean)
    support = np.sort(rng.uniform(0.1, 1.0, (n, values)), axis=1)
    parties = (symbols,) * (n + 1)
    feedback = rng.gamma(0.6, size=(1 if separate else n + 1, m, symbols ** (n + 1))) + 1e-3
    feedback = np.broadcast_to(feedback, (n + 1, *feedback.shape[1:])).copy()
    initial = rng.gamma(0.6, size=(m, symbols ** (n + 1))) + 1e-3
    kernel = rng.gamma(1.0, size=(n, values, values)) + 1e-3
    level, none = rng.uniform(0.25, 0.6, (n, m)), 0.5
    if keeps:
        level, none = np.concatenate([level[:1] + 0.4, level[1:] - 0.25]), 0.1
    choice, query = dm.Logit(CHOICE_SCALE), dm.ProductQuery(level, none)
    return dm.RecommendationMDP(
        gamma,
        dm.TasteGrid(omega, prior),
        horizon=rounds,
        action_rule=dm.LastShownOnly(choice, 0.5) if separate else dm.PerfectRecall(choice, query),
        signals=dm.SignalStructure(
            dm.JointSignals(_law(initial).reshape(m, *parties)),
            dm.ChannelFeedback(_law(feedback).reshape(n + 1, m, *parties)),
            dm.RatingSettlement(RATING_NOISE),
        ),
        values=dm.ConstantValues(support)
        if constant
        else dm.MarkovValues(support, None, _law(kernel)),
    )


def real_market(
    name: Real = "cars",
    products: int = 3,
    tastes: int = 24,
    rounds: int = 2,
    symbols: int = 2,
    *,
    initial_symbols: int = 2,
    advertisers: float = 1.0,
    own_readings: bool = True,
    query: float = 0.9,
    spread: tuple[float, ...] = (0.8, 1.2),
    size: int = 1,
) -> tuple[dm.RecommendationMDP, dm.applications.Market]:
    """Build a small car or electricity market, the user asking again with probability `query`.

    **Arguments:** `advertisers`: noise of their first signals, in multiples of the demo's;
    `own_readings`: after a query the advertiser shown has a noisier reading of her own; `size`:
    products that may be on the screen at once.
    """
    market = dm.applications.cars(products=products, tastes=tastes, selection="segments")
    if name == "electricity":
        market = dm.applications.electricity(products, tastes, outside=-6.5, price_floor=0.0)
    noise, platform, first = REAL_NOISE[name]
    env = dm.RecommendationMDP(
        market.gamma,
        market.tastes,
        horizon=rounds,
        action_rule=dm.LastShownOnly(dm.Logit(market.taste_scale), query),
        signals=dm.SignalStructure(
            dm.GaussianSignals(platform, first * advertisers, symbols=initial_symbols),
            dm.RatingFeedback(noise, symbols, 2 * noise if own_readings else None),
            dm.RatingSettlement(noise),
        ),
        values=dm.ConstantValues(np.asarray(market.theta)[:, None] * np.array(spread)),
        names=market.names,
        displays=dm.Displays(size) if size > 1 else None,
    )
    return env, market


def real_assumptions(market: dm.applications.Market, name: Real, query: float = 0.9) -> list[str]:
    """What the data of a real market do not say, in sentences."""
    noise, platform, first = REAL_NOISE[name]
    return [
        f"{market.name} ({market.source}).",
        (
            f"The user asks again with probability {query:g} whatever is shown; else she buys "
            "what is on the screen or leaves (logit; its shocks are behaviour, not surplus)."
        ),
        (
            f"Ratings after a query and after a purchase have noise {noise:g} {market.unit}; first "
            f"signals of platform and advertisers {platform:g} and {first:g}, unless varied."
        ),
        "Each advertiser's value is her markup times one of a few equally likely multiples.",
    ]


def sharp_market(seed: int, blur: float, symbols: int = 3) -> dm.RecommendationMDP:
    """A `separate` random market whose platform sees omega, but for a share `blur` of noise.

    With probability 1 - blur the platform's context is omega itself, else it is uniform: at 0 it
    is sufficient for omega (Corollary 1); the advertisers' own signals stay as they are.
    """
    base = random_market(seed, symbols=symbols, constant=True, separate=True)
    m, n = base.tastes.size, base.products
    rng = np.random.default_rng([seed, 1])
    context = (1 - blur) * np.eye(m) + blur / m
    own = [_law(rng.gamma(0.6, size=(m, symbols)) + 1e-3) for _ in range(n)]
    table = np.einsum("mp,ma,mb->mpab", context, *own)
    return dm.RecommendationMDP(
        base.gamma, base.tastes, base.horizon, base.action_rule,
        dm.SignalStructure(
            dm.JointSignals(table), base.signals.feedback, base.signals.settlement
        ),
        base.values,
    )  # fmt: skip


Rules = dict[tuple[int, ...], tuple[int, float, float]]


def two_products(
    omega: Sequence[list[float]] | np.ndarray,
    prior: npt.ArrayLike,
    support: npt.ArrayLike,
    rules: Rules,
    reveal: bool = False,
) -> dm.RecommendationMDP:
    """Two products i = 0 and j = 1, two rounds, u = omega, no private signals.

    `rules` maps what was shown so far to (product, probability that it is bought, that the user
    asks again); otherwise she leaves at once. `reveal`: after showing i, the platform learns omega.
    """
    m, values = len(omega), np.shape(support)[1]
    shown = [h for t in (1, 2) for h in product(range(3), repeat=t)]
    action = np.zeros((len(shown), 4, m))
    action[:, 2] = 1.0
    for history, (bought, buy, query) in rules.items():
        row = action[shown.index(history)]
        row[:] = 0.0
        row[bought], row[3], row[2] = buy, query, 1.0 - buy - query
    seen = m if reveal else 1
    feedback = np.full((len(shown), m, seen, 1, 1), 1.0 / seen)
    if reveal:
        feedback[shown.index((0,))] = np.eye(m)[:, :, None, None]
    return dm.RecommendationMDP.from_tables(
        gamma=np.eye(2),
        omega=omega,
        prior=prior,
        horizon=2,
        action=action,
        feedback=feedback,
        initial_signals=np.ones((m, 1, 1, 1)),
        theta_support=support,
        theta_prior=np.full((2, values), 1.0 / values),
        theta_kernel=np.broadcast_to(np.eye(values), (3, 2, values, values)).copy(),
        names=("i", "j"),
    )


def corollary_1_fails() -> dm.RecommendationMDP:
    """Showing j (or none) first loses the user; after i half of them stay, and then buy j.

    u_i = -1, u_j = 2, theta_j = 0, theta_i in {0, 2}: W^{-i} = 0 (without i nobody stays),
    D_i = 1/2 * (0 + 2) = 1, W_1 = 1/2 * (theta_i - 1) + 1 = 0.5 at theta_i = 0: the window
    [1, 0.5] is empty, though nobody has private signals (model page, section 7, item 5).
    """
    rules: Rules = {(0,): (0, 0.5, 0.5), (0, 1): (1, 1.0, 0.0)}
    return two_products([[-1.0, 2.0]], [1.0], [[0.0, 2.0], [0.0, 0.0]], rules)


def showing_i_reveals_j(utility_i: float) -> dm.RecommendationMDP:
    """Showing i sells i half the time, and otherwise tells the platform whether j is good.

    u_j is 2 or -2 evenly, theta = 0; whatever else is shown, j is bought when it is shown last.

        W^{-i} = max(E[u_j], 0) = 0             without i nothing is learned
        Wd^{-i} = 1/2 * E[max(u_j, 0)] = 0.5    show i at no cost, then j if it is good
        W_1 = max(1/2 * u_i + 0.5, 0)

    At u_i = 1: W_1 = 1, D_i = 0.5 > W^{-i} = phi_plus, a subsidy; Wd^{-i} is the remedy. At
    u_i = -3: W_1 = 0 and participation under Wd^{-i} has slack -0.5 (paper D, Prop. 9).
    """
    rules: Rules = {(0,): (0, 0.5, 0.5), (1,): (1, 1.0, 0.0), (0, 1): (1, 1.0, 0.0)}
    omega = [[utility_i, 2.0], [utility_i, -2.0]]
    return two_products(omega, [0.5, 0.5], np.zeros((2, 1)), rules, reveal=True)


def _law(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=-1, keepdims=True)
