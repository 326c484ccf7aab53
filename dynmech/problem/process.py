"""A market as a process: its rules are used as they are, and no memory is enumerated."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Numbers
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.feedback import AbstractFeedback
from dynmech.market.rewards import Toll
from dynmech.market.rules import AbstractActionRule
from dynmech.market.shown import acts, acts_for_ever, answers, stepped
from solvers import AbstractProcess, Case
from solvers.tabular import tabulate

MOST_SYMBOLS = 4096


class MarketProcess(AbstractProcess):
    """The market's rules; outcome j is buying product j, a control is a row of `shown` (A, K).

    `rounds`: of the market, `math.inf` where there is no last one, and one stands for all.
    `utilities`: what behaviour follows from; `reward`: relative to leaving, and of the toll, which
    is outcome n where queries cost something. `single`: whether numbers were rounded to single
    precision before they were worked on in double. Where the last round stands for all that follow
    (`AbstractActionRule.lasts`) memories are the rule's, and how many rounds are left.
    """

    horizon: int = eqx.field(static=True)
    rounds: int | float = eqx.field(static=True)
    controls: int = eqx.field(static=True)
    reward: Float[Numbers, "F m"]
    utilities: Float[Numbers, "n m"]
    shown: Int[Numbers, "A K"]
    toll: Toll | None
    rule: AbstractActionRule
    feedback: AbstractFeedback
    orderless: bool = eqx.field(static=True)
    tolls: int = eqx.field(static=True)
    single: bool = eqx.field(static=True, default=False)

    def start(self):
        size = self.shown.shape[1]
        memory = np.asarray(self.rule.begin(len(self.utilities), self.rounds, size))
        if self.rule.lasts() is None:
            return memory
        return np.append(memory, np.asarray(self.rounds, memory.dtype))

    def remembered(self, memory: Int[Numbers, "*b d"]) -> Int[Numbers, "*b _r"]:
        """The part of a memory that the action rule has."""
        return memory if self.rule.lasts() is None else memory[..., :-1]

    def step(self, memory: Int[Numbers, " d"], control: Numbers | int):
        shown, memory = jnp.asarray(self.shown)[control], jnp.asarray(memory)
        after = stepped(self.rule, self.remembered(memory), shown, len(self.utilities))
        if self.rule.lasts() is None:
            return after
        return jnp.append(jnp.asarray(after).astype(memory.dtype), memory[-1] - 1)

    def ends(self, memory: Int[Numbers, " d"], control: Numbers | int):
        given = jnp.asarray(self.shown)[control], jnp.asarray(self.utilities)
        law, times = acts(self.rule, self.remembered(memory), *given), self.rule.lasts()
        if times is not None:
            last = acts_for_ever(self.rule, self.remembered(memory), *given, times)
            law = jnp.where(jnp.asarray(memory)[-1] > 0, law, last)
        if self.toll is None:
            return jnp.concatenate([law[:-2], law[-1:]])
        running = law[-1:] * jnp.asarray(self.toll.rate)[control]
        return jnp.concatenate([law[:-2], running, law[-1:]])

    def leaves(self, ends: Float[np.ndarray, "F ..."]) -> Float[np.ndarray, "n2 ..."]:
        """Chances of every action, leaving among them, from those of `ends`."""
        n, going = len(self.utilities), ends[-1:]
        leave = 1 - ends[:n].sum(axis=0, keepdims=True) - going
        return np.concatenate([ends[:n], np.clip(leave, 0.0, 1.0), going])

    def symbols(self, memory: Int[Numbers, " d"], control: Numbers | int, period: Numbers | int):
        shown = jnp.asarray(self.shown)[control]
        own = self.remembered(memory)
        return answers(self.feedback, own, shown, period, jnp.asarray(self.utilities))

    @property
    def rules(self) -> "MarketProcess":
        """The rules alone, without how values move."""
        return self

    @property
    def regimes(self) -> int:
        """Number of profiles of values that one may follow another."""
        return 1

    def outset(self, money: Float[np.ndarray, " n"]) -> Int[np.ndarray, " d"]:
        """Memory before the first round, at values in money."""
        return self.start()

    def of_rule(self, memories: np.ndarray) -> np.ndarray:
        """The part of memories that the rule remembers."""
        return memories

    def values(
        self, memories: Int[np.ndarray, "C d"], money: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "C n"]:
        """Values in money at memories; `money`: those of the first round."""
        return np.tile(np.asarray(money, float), (len(memories), 1))

    def within(self, money: Float[np.ndarray, " n"]) -> Float[np.ndarray, "K n"]:
        """Each product's values that may come after those of the first round, in rows."""
        return np.asarray(money, float)[None]

    def moved(
        self, regimes: Int[np.ndarray, " C"], symbols: Int[np.ndarray, " C"]
    ) -> Int[np.ndarray, " C"]:
        """Numbers of the profiles of values after a symbol."""
        return regimes

    def regime(self, money: Float[np.ndarray, " n"]) -> int:
        """The number of the profile of these values."""
        return 0

    def reported(self, case: Case, regime: int) -> Float[np.ndarray, " n"]:
        """Values in money: those of a case, where they stay."""
        return np.asarray(case.coefficient, float)[: len(self.utilities)]

    def told(self, symbol: int, money: Float[np.ndarray, " n"]) -> int:
        """The symbol that is this one heard, and these values in the next round."""
        return symbol

    def posed(self, case: Case) -> Case:
        """The same maximisation over the outcomes there are."""
        return case


def market_process(env: RecommendationMDP, single: bool = False) -> MarketProcess:
    """Read a market's rules; `single` as of `MarketProcess`.

    **Raises:** `TooLarge` if the joint alphabet after a query is too large to sum over.
    """
    joint = env.heard.count
    if joint > MOST_SYMBOLS:
        call = "RecommendationMDP(signals=SignalStructure(feedback=...))"
        must = f"have at most {MOST_SYMBOLS} joint symbols after a query"
        do = "let fewer parties see the feedback"
        raise TooLarge(describe(call, must, joint, do))
    toll, reward = env.toll, env.gains
    if toll is not None:
        reward = np.concatenate([reward, -toll.unit[None]])
    process = MarketProcess(
        horizon=1 if env.horizon == math.inf else int(env.horizon),
        rounds=env.horizon,
        controls=len(env.controls),
        shown=env.controls,
        reward=reward,
        utilities=env.utilities,
        toll=toll,
        rule=env.action_rule,
        feedback=env.signals.feedback,
        orderless=False,
        tolls=int(toll is not None),
        single=single,
    )
    with jax.enable_x64(True):
        orderless = tabulate(process) is not None
    return dataclasses.replace(process, orderless=orderless)
