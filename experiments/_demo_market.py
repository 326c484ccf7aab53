"""The demo's options, and the market that they describe."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import dynmech as dm

Name = Literal["cars", "electricity"]
MARKETS: tuple[Name, ...] = ("cars", "electricity")
INITIAL_SYMBOLS = 3
# Found by an earlier experiment: settings under which feedback is worth about 5% of W.
DEFAULTS: dict[str, dict[str, float]] = {
    "cars": {
        "outside": 2.43, "price_floor": 0.05, "noise": 5.0, "platform": 30.0, "advertisers": 60.0,
    },
    "electricity": {
        "outside": -6.5, "price_floor": 0.0, "noise": 0.5, "platform": 1.0, "advertisers": 2.0,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options left None take the market's own default, which the output states."""

    market: Literal["both", "cars", "electricity"] = "both"
    """New cars (United States, 1990), electricity contracts, or one after the other."""
    products: int = 8
    """Number of products, one advertiser each."""
    tastes: int = 200
    """Number of taste points."""
    rounds: int = 4
    """Rounds of recommendations, T."""
    profiles: int = 16
    """Initial profiles (values and signals) drawn from the prior and solved."""
    seed: int = 0
    """Seed of the profiles and of the sample conversation."""
    selection: Literal["segments", "best-sellers"] = "segments"
    """Cars only: one from each segment, or the best sellers."""
    outside: float | None = None
    """Value of leaving without a purchase: cars in utils (2.43), electricity in c/kWh (-6.5)."""
    price_floor: float | None = None
    """Quantile to which smaller price coefficients are raised: cars 0.05, electricity 0."""
    query: float = 0.9
    """Probability that the user asks again instead of deciding."""
    noise: float | None = None
    """Standard deviation of ratings, money: cars 5, electricity 0.5."""
    symbols: int = 5
    """Number of ratings that the platform tells apart while the conversation lasts."""
    platform: float | None = None
    """Noise of the platform's first signal, money: cars 30, electricity 1."""
    advertisers: float | None = None
    """Noise of each advertiser's own first signal, money: cars 60, electricity 2."""
    spread: tuple[float, ...] = (0.8, 1.0, 1.2)
    """Each advertiser's value is one of these multiples of her markup, equally likely."""
    groves: Literal[
        "DataDriven", "WindowCeiling", "WindowFloor", "Participation", "NoSubsidy", "Zero"
    ] = "DataDriven"
    """Groves term of the mechanism that is audited and settles the sample conversation."""
    profile: int | None = None
    """Profile shown in detail; by default the one whose tree shows the most products."""
    results: Path = Path("results")
    """Folder; each market writes in one of its name inside."""


@dataclass(frozen=True)
class Solved:
    """A market, its efficient policy, and the best fixed sequences of recommendations."""

    market: dm.applications.Market
    policy: dm.EfficientPolicy
    fixed: dm.EfficientPolicy

    @property
    def title(self) -> str:
        """A short name for pictures."""
        name = self.market.name.split(",")[0]
        return name[0].upper() + name[1:]


def resolve(options: Options, market: Name) -> Options:
    """Choose one market and fill in its own defaults."""
    missing = {k: v for k, v in DEFAULTS[market].items() if getattr(options, k) is None}
    return replace(options, market=market, **missing)


def build(options: Options) -> tuple[dm.applications.Market, dm.RecommendationMDP]:
    """The market of resolved options, and its decision problem."""
    market, noise = _market(options), _known(options.noise)
    return market, dm.RecommendationMDP(
        market.gamma,
        market.tastes,
        horizon=options.rounds,
        action_rule=dm.LastShownOnly(choice=dm.Logit(market.taste_scale), query=options.query),
        signals=dm.SignalStructure(
            initial=dm.GaussianSignals(
                options.platform, options.advertisers, symbols=INITIAL_SYMBOLS
            ),
            feedback=dm.RatingFeedback(noise=noise, symbols=options.symbols),
            settlement=dm.RatingSettlement(noise),
        ),
        values=dm.ConstantValues(np.asarray(market.theta)[:, None] * np.array(options.spread)),
        names=market.names,
    )


def solve(options: Options) -> Solved:
    """Solve the market of resolved options with and without feedback."""
    market, env = build(options)
    batch = env.sample_profiles(jax.random.key(options.seed), options.profiles)
    policy = dm.solve_efficient_policy(env, initial=batch)
    fixed = dm.solve_efficient_policy(env.without_feedback(), initial=batch)
    return Solved(market, policy, fixed)


def _market(options: Options) -> dm.applications.Market:
    outside, floor = _known(options.outside), _known(options.price_floor)
    if options.market == "cars":
        return dm.applications.cars(
            products=options.products,
            tastes=options.tastes,
            selection=options.selection,
            outside=outside,
            price_floor=floor,
        )
    return dm.applications.electricity(
        options.products, options.tastes, outside=outside, price_floor=floor
    )


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("`solve(options=...)` must be resolved; call resolve(options, market).")
    return value


def assumptions(options: Options, market: dm.applications.Market) -> list[str]:
    """Everything that the data do not say, in sentences."""
    unit, multiples = market.unit, ", ".join(f"{x:g}" for x in options.spread)
    asks = (
        f"The user asks again with probability {options.query:g} whatever is shown, for at most "
        f"{options.rounds} rounds; else she buys what is on the screen or leaves (logit). No "
        "open data hold follow-up queries with purchases."
    )
    ratings = (
        "Each follow-up reveals a rating of what was just shown, with noise of standard "
        f"deviation {options.noise:g} {unit}, cut into {options.symbols} symbols at quantiles of "
        "its utility."
    )
    settled = (
        f"After a purchase she rates the product with noise {options.noise:g} {unit}, as drawn: "
        "that settles payments."
    )
    signals = (
        "Before the conversation the platform reads the user's mean utility with noise "
        f"{options.platform:g}, each advertiser the utility of her own product with noise "
        f"{options.advertisers:g} {unit}, in {INITIAL_SYMBOLS} symbols each."
    )
    values = f"An advertiser's value is {multiples} times her markup, equally likely, independent."
    sample = (
        f"{options.profiles} profiles drawn with seed {options.seed} stand for all; each is "
        "solved together with every advertiser's own alternatives. Means are over these "
        "profiles, with their standard errors (s.e.)."
    )
    shocks = "The shocks of the logit choice are behaviour, not surplus."
    return [*market.assumptions, asks, ratings, settled, signals, values, sample, shocks]
