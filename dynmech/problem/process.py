"""A market as a process: its rules are used as they are, and no memory is enumerated."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dynmech._types import Numbers
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import AbstractFeedback
from dynmech.market.rules import AbstractActionRule
from solvers import AbstractProcess, tabulate

_MOST_SYMBOLS = 4096


class MarketProcess(AbstractProcess):
    """The market's rules; outcome j is buying product j, control n is recommending none.

    `rounds`: of the market, `math.inf` where there is no last one, and one stands for all.
    """

    horizon: int = eqx.field(static=True)
    rounds: int | float = eqx.field(static=True)
    controls: int = eqx.field(static=True)
    reward: Float[Numbers, "n m"]
    rule: AbstractActionRule
    feedback: AbstractFeedback
    orderless: bool = eqx.field(static=True)

    def start(self):
        return np.asarray(self.rule.start(self.controls - 1, self.rounds))

    def step(self, memory, control):
        return self.rule.step(jnp.asarray(memory), control, self.controls - 1)

    def ends(self, memory, control):
        law = self.rule.probabilities(memory, control, jnp.asarray(self.reward))
        return jnp.concatenate([law[:-2], law[-1:]])

    def symbols(self, memory, control, period):
        return self.feedback.likelihood(memory, control, period, jnp.asarray(self.reward))


def market_process(env: RecommendationMDP) -> MarketProcess:
    """Read a market's rules.

    **Raises:** `TooLarge` if the joint alphabet after a query is too large to sum over.
    """
    joint = int(np.prod(np.asarray(env.feedback_alphabet, float)))
    if joint > _MOST_SYMBOLS:
        call = "RecommendationMDP(signals=SignalStructure(feedback=...))"
        must = f"have at most {_MOST_SYMBOLS} joint symbols after a query"
        do = "let fewer parties see the feedback"
        raise TooLarge(describe(call, must, joint, do))
    process = MarketProcess(
        horizon=1 if env.horizon == math.inf else int(env.horizon),
        rounds=env.horizon,
        controls=env.products + 1,
        reward=env.utilities,
        rule=env.action_rule,
        feedback=env.signals.feedback,
        orderless=False,
    )
    with jax.enable_x64(True):
        orderless = tabulate(process) is not None
    return dataclasses.replace(process, orderless=orderless)
