"""A market whose values move, as a process: what follows is heard, a product at a value is sold.

With v in 0..V-1 a profile of values, G its law after each control, K values of each product:

- outcome j K + k is a purchase of product j at its k-th value;
- symbol z V + v' is that z is heard and v' follows, of chance law(z | omega) G(v' | v, control);
- a memory is the rule's, v, and the control after which v' is not known yet, C where it is.

Values are independent of the taste and of all that is heard, so that a belief about it is that of
the market. `MarketProcess` answers the same questions where values stay.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Numbers
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import MarkovValues, joint_kernel, profile_grid
from dynmech.problem.process import MOST_SYMBOLS, MarketProcess
from solvers import AbstractProcess, Case


class MovingProcess(AbstractProcess):
    """The rules of a market, its values besides; see the module.

    `rules`: the market's, values left out. `support` (n, K), money; `level` (V, n): which of them
    each profile is; `kernel` (C, V, V): the law of the next profile after each control.
    """

    horizon: int = eqx.field(static=True)
    controls: int = eqx.field(static=True)
    reward: Float[Numbers, "F m"]
    orderless: bool = eqx.field(static=True)
    tolls: int = eqx.field(static=True)
    rules: MarketProcess
    support: Float[np.ndarray, "n K"]
    level: Int[np.ndarray, "V n"]
    kernel: Float[np.ndarray, "C V V"]

    def start(self):
        return self.outset(self.support[:, 0])

    def step(self, memory: Int[Numbers, " d"], control: Numbers | int):
        memory = jnp.asarray(memory)
        after = jnp.asarray(self.rules.step(memory[:-2], control)).astype(memory.dtype)
        pending = jnp.asarray(control).astype(memory.dtype)
        return jnp.concatenate([after, memory[-2:-1], pending[None]])

    def ends(self, memory: Int[Numbers, " d"], control: Numbers | int):
        n, size = self.support.shape
        law = jnp.asarray(self.rules.ends(memory[:-2], control))
        sold = jnp.asarray(self.level)[memory[-2]][:, None] == jnp.arange(size)
        outcomes = law[:n, None] * sold[:, :, None]
        return jnp.concatenate([outcomes.reshape(n * size, -1), law[n:]])

    def symbols(self, memory: Int[Numbers, " d"], control: Numbers | int, period: Numbers | int):
        law = jnp.asarray(self.rules.symbols(memory[:-2], control, period))
        following = jnp.asarray(self.kernel)[control, memory[-2]]
        return (law[:, :, None] * following).reshape(len(law), -1)

    def hear(self, memories: Int[np.ndarray, "C d"], symbols: Int[np.ndarray, " C"]):
        known = np.array(memories)
        known[:, -2], known[:, -1] = self.moved(known[:, -2], symbols), self.controls
        return known

    @property
    def single(self) -> bool:
        """As of `rules`."""
        return self.rules.single

    @property
    def regimes(self) -> int:
        """V."""
        return len(self.level)

    def outset(self, money: Float[np.ndarray, " n"]) -> Int[np.ndarray, " d"]:
        """As `MarketProcess.outset`."""
        memory = self.rules.start()
        return np.concatenate([memory, [self.regime(money), self.controls]]).astype(memory.dtype)

    def of_rule(self, memories: np.ndarray) -> np.ndarray:
        """As `MarketProcess.of_rule`."""
        return memories[..., :-2]

    def values(
        self, memories: Int[np.ndarray, "C d"], money: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "C n"]:
        """As `MarketProcess.values`."""
        return self.money(memories[:, -2])

    def within(self, money: Float[np.ndarray, " n"]) -> Float[np.ndarray, "K n"]:
        """As `MarketProcess.within`."""
        return self.support.T

    def money(self, regimes: Int[np.ndarray, " C"]) -> Float[np.ndarray, "C n"]:
        """Profiles of values in money."""
        return self.support[np.arange(len(self.support)), self.level[regimes]]

    def moved(
        self, regimes: Int[np.ndarray, " C"], symbols: Int[np.ndarray, " C"]
    ) -> Int[np.ndarray, " C"]:
        """As `MarketProcess.moved`."""
        return np.asarray(symbols) % self.regimes

    def regime(self, money: Float[np.ndarray, " n"]) -> int:
        """As `MarketProcess.regime`."""
        near = np.abs(self.support - np.asarray(money, float)[:, None]).argmin(axis=1)
        return int(np.flatnonzero((self.level == near).all(axis=1))[0])

    def reported(self, case: Case, regime: int) -> Float[np.ndarray, " n"]:
        """As `MarketProcess.reported`."""
        return self.money(np.array([regime]))[0]

    def told(self, symbol: int, money: Float[np.ndarray, " n"]) -> int:
        """As `MarketProcess.told`."""
        return symbol * self.regimes + self.regime(money)

    def posed(self, case: Case) -> Case:
        """As `MarketProcess.posed`."""
        (n, size), counted = self.support.shape, np.asarray(case.counted)
        every = np.concatenate([np.repeat(counted[:n], size), counted[n:]])
        money = np.append(self.support, np.zeros(self.tolls))
        return Case(np.where(every, money, 0.0), every, case.allowed)

    def by_regime(self, case: Case) -> list[Case]:
        """A case of `posed` taken apart: one of `rules` for every profile of values."""
        n, size = self.support.shape
        table, rest = np.asarray(case.coefficient)[: n * size].reshape(n, size), n * size
        counted = np.asarray(case.counted)
        counted = np.concatenate([counted[:rest:size], counted[rest:]])
        tolls = np.asarray(case.coefficient)[rest:]
        money = table[np.arange(n), self.level]
        return [Case(np.concatenate([row, tolls]), counted, case.allowed) for row in money]


PlayedProcess = MarketProcess | MovingProcess


def played_process(env: RecommendationMDP, rules: MarketProcess) -> PlayedProcess:
    """A market's rules as they are simulated, with values that move where they do.

    **Raises:** `TooLarge` if what is heard and profiles of values are too many to sum over.
    """
    values = env.values
    if not isinstance(values, MarkovValues):
        return rules
    n, size = values.support.shape
    count = env.heard.count * size**n
    if count > MOST_SYMBOLS:
        must = f"have at most {MOST_SYMBOLS} joint symbols and profiles of values after a query"
        do = "use fewer values, or let fewer parties see the feedback"
        raise TooLarge(describe("RecommendationMDP(values=MarkovValues(...))", must, count, do))
    reward = np.asarray(rules.reward)
    return MovingProcess(
        horizon=rules.horizon,
        controls=rules.controls,
        reward=np.concatenate([np.repeat(reward[:n], size, axis=0), reward[n:]]),
        orderless=False,
        tolls=rules.tolls,
        rules=rules,
        support=np.asarray(values.support, float),
        level=profile_grid(n, size),
        kernel=joint_kernel(values),
    )
