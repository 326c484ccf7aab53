"""The named instances of the performance page, as markets; shared with the tests.

H(m, T), `hidden_taste`: learning is the point. S(n, m, T), `scale`: many products and tastes.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import dynmech as dm
from dynmech.market.choices import Memory

HIDDEN_TASTE_VALUE = {(50, 6): 1.013424, (200, 6): 1.014660, (50, 8): 1.059513, (200, 8): 1.060638}
"""W_1 at the prior, to the six decimals published on the performance page."""


Numbers = Array | np.ndarray


class OnScreen(dm.AbstractActionRule):
    """Only the product on the screen can be bought, with tabulated probabilities.

    `buy` (n, m); `leave` (n, m), of leaving at once; the rest asks again. With none on the
    screen the user leaves.
    """

    buy: Float[Array | np.ndarray, "n m"]
    leave: Float[Array | np.ndarray, "n m"]

    def start(self, products: int, horizon: int | float):
        return np.zeros(1, np.int64)

    def step(self, memory: Memory, recommendation: Any, products: int):
        return memory

    def probabilities(self, memory: Memory, recommendation: Any, utilities: Float[Numbers, "n m"]):
        n, points = utilities.shape
        shown = jnp.minimum(recommendation, n - 1)
        here = recommendation < n
        bought = jnp.where(here, jnp.asarray(self.buy)[shown], 0.0)
        left = jnp.where(here, jnp.asarray(self.leave)[shown], 1.0)
        stop = jnp.zeros((n, points)).at[shown].set(bought)
        return jnp.concatenate([stop, left[None], (1.0 - bought - left)[None]])


class NoRepeats(dm.AbstractActionRule):
    """Behave as `rule`, but leave as soon as a product is shown for the second time."""

    rule: dm.PerfectRecall

    def start(self, products: int, horizon: int | float):
        return np.append(self.rule.start(products, horizon), 0)

    def step(self, memory: Memory, recommendation: Any, products: int):
        seen, spoilt = memory[:-1], memory[-1]
        again = jnp.any(seen == recommendation) & (recommendation < products)
        return jnp.append(self.rule.step(seen, recommendation, products), spoilt | again)

    def probabilities(self, memory: Memory, recommendation: Any, utilities: Float[Numbers, "n m"]):
        n = utilities.shape[0]
        usual = self.rule.probabilities(memory[:-1], recommendation, utilities)
        gone = jnp.zeros_like(usual).at[n].set(1.0)
        return jnp.where(memory[-1] > 0, gone, usual)


def hidden_taste(m: int, T: int):
    """Instance H(m, T): five products on a line, five symbols, a taste of one dimension.

    Purchases yield fixed surpluses, carried by theta; utilities are zero.
    """
    omega = np.linspace(0.0, 1.0, m)
    place, centre = np.linspace(0.1, 0.9, 5), np.linspace(0.0, 1.0, 5)
    buy = 0.05 + 0.6 * np.exp(-(((omega - place[:, None]) / 0.15) ** 2))
    mean = centre + 0.1 * (place[:, None, None] - 0.5)
    law = np.exp(-(((omega[:, None] - mean) / 0.35) ** 2))  # (product, omega, symbol)
    law = np.concatenate([law, np.ones((1, m, 5))])
    law /= law.sum(axis=2, keepdims=True)
    prior = np.exp(-(((omega - 0.5) / 0.4) ** 2))
    return dm.RecommendationMDP(
        gamma=np.zeros((5, 1)),
        tastes=dm.TasteGrid(omega[:, None], prior / prior.sum()),
        horizon=T,
        action_rule=OnScreen(buy, 0.05 * (1.0 - buy)),
        signals=dm.SignalStructure(
            feedback=dm.ChannelFeedback(law.reshape(6, m, 5, 1, 1, 1, 1, 1))
        ),
        values=dm.ConstantValues([1.0, 1.3, 0.9, 1.2, 1.1]),
    )


def scale(n: int, m: int, T: int):
    """Instance S(n, m, T): perfect recall, no repeats, ratings of the product shown."""
    rng = np.random.default_rng(0)
    gamma = rng.normal(size=(n, 4))
    omega = np.abs(rng.normal(size=(m, 4)))
    theta = rng.uniform(0.3, 1.5, size=n)
    query = dm.FallingQuery(level=1.2, low=0.02, high=0.95, nothing=0.6)
    return dm.RecommendationMDP(
        gamma=gamma,
        tastes=dm.TasteGrid(omega, np.full(m, 1.0 / m)),
        horizon=T,
        action_rule=NoRepeats(dm.PerfectRecall(dm.Threshold(), query)),
        signals=dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=5)),
        values=dm.ConstantValues(theta),
    )


def rated(going: float, products: int = 4, tastes: int = 6):
    """A user without a last round rates what is shown, in three grades, and goes on by chance.

    Whoever ends buys by logit or leaves: the more rounds there are, the less a poor one costs.
    """
    rng = np.random.default_rng(0)
    gamma, omega = rng.normal(size=(products, 2)), rng.normal(size=(tastes, 2))
    theta = rng.uniform(0.3, 1.5, products)
    rule = dm.LastShownOnly(dm.Logit(0.5), dm.ConstantQuery(going))
    signals = dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=3))
    grid = dm.TasteGrid(omega, np.full(tastes, 1 / tastes))
    return dm.RecommendationMDP(gamma, grid, np.inf, rule, signals, dm.ConstantValues(theta))


def generic(m: int, T: int):
    """Instance G(m, T): as H(m, T), with laws of which no statistic of few dimensions is left."""
    rng, omega = np.random.default_rng(0), np.linspace(0.0, 1.0, m)
    k = np.arange(1, 5)
    basis = np.concatenate([np.cos(np.pi * k[:, None] * omega), np.sin(np.pi * k[:, None] * omega)])
    order = np.concatenate([k, k])
    law = np.exp(rng.normal(size=(5, 5, 8)) / order @ basis)  # (product, symbol, omega)
    law = np.concatenate([law, np.ones((1, 5, m))]).transpose(0, 2, 1)
    law /= law.sum(axis=2, keepdims=True)
    part = rng.normal(size=(5, 8)) / order @ basis
    part = (part - part.min(axis=1, keepdims=True)) / np.ptp(part, axis=1, keepdims=True)
    buy = 0.05 + 0.6 * part**3
    feedback = dm.ChannelFeedback(law.reshape(6, m, 5, 1, 1, 1, 1, 1))
    env = hidden_taste(m, T)
    return dataclasses.replace(
        env,
        action_rule=OnScreen(buy, 0.05 * (1.0 - buy)),
        signals=dm.SignalStructure(feedback=feedback),
    )


def shop(products: int, tastes: int, rounds: int, recall: str):
    """Logit choice among what `recall` keeps, queries that fall in the best match, ratings."""
    rng = np.random.default_rng(0)
    gamma = rng.normal(size=(products, 4)) * 0.7
    omega = rng.normal([0.2, 0.1, 0.0, 0.0], size=(tastes, 4))
    theta = rng.uniform(0.3, 1.5, size=products)
    query = dm.FallingQuery(level=1.2, location=0.5, slope=0.5, low=0.05, high=0.9, nothing=0.6)
    choice = dm.Logit(0.4)
    rules = {
        "last": dm.LastShownOnly(choice, query),
        "perfect": dm.PerfectRecall(choice, query),
        "imperfect": dm.ImperfectRecall(choice, query, 0.7),
    }
    signals = dm.SignalStructure(
        feedback=dm.RatingFeedback(1.0, 5), settlement=dm.RatingSettlement(1.0)
    )
    prior = np.full(tastes, 1 / tastes)
    return dm.RecommendationMDP(
        gamma, dm.TasteGrid(omega, prior), rounds, rules[recall], signals,
        dm.ConstantValues(theta),
    )  # fmt: skip
