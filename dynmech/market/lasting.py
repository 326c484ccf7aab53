"""A market without a last round, some rounds written out: the last stands for all that follow.

What is shown in that round is shown again for as long as she asks. With p_a the chance of action a
in a round and q that of a query, given the taste, she ends with a with chance p_a / (1 - q), and
nothing follows from what is heard on the way.
"""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Index, Numbers
from dynmech.market.choices import Memory
from dynmech.market.continued import changed
from dynmech.market.environment import RecommendationMDP
from dynmech.market.rules import AbstractActionRule
from dynmech.market.shown import acts, stepped


class Lasting(AbstractActionRule):
    """A rule where the last round stands for all that follow. `times`: see `lasts`.

    `probabilities` are those of one round, in which she may ask; whoever follows rounds to the last
    asks `lasts`, and there takes those of `dynmech.market.shown.acts_for_ever`.
    """

    inner: AbstractActionRule
    times: int = eqx.field(static=True)

    def check(self, products: int, points: int, horizon: int | float):
        self.inner.check(products, points, math.inf)

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return Lasting(self.inner.restrict(keep), self.times)

    def shown_before(self, products: int):
        return self.inner.shown_before(products)

    def possible(self, utilities: Float[np.ndarray, "n m"]):
        return self.inner.possible(utilities)

    def start(self, products: int, horizon: int | float):
        return self.inner.start(products, math.inf)

    def begin(self, products: int, horizon: int | float, size: int):
        return self.inner.begin(products, math.inf, size)

    def step(self, memory: Memory, shown: Index, products: int):
        return stepped(self.inner, memory, shown, products)

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        return acts(self.inner, memory, shown, utilities)

    def lasts(self):
        return self.times

    def endless(self):
        return self.inner


def lasting(env: RecommendationMDP, rounds: int, times: int) -> RecommendationMDP:
    """So many rounds of a market without a last one, the last of them standing for all that follow.

    **Arguments:** `times`: as of `AbstractActionRule.lasts`.
    """
    return changed(env, {"horizon": rounds, "action_rule": Lasting(env.action_rule, times)})


def endless(env: RecommendationMDP) -> RecommendationMDP:
    """The market without a last round, of which this one has some rounds."""
    return changed(env, {"horizon": math.inf, "action_rule": env.action_rule.endless()})
