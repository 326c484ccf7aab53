"""Auctions of one slot whose click rate depends on the advertiser (paper D, end of section 5.1).

The state holds omega_i for each agent, u_i = M theta_i omega_i x_i, and what agents know of the
rates now decides who should be shown. Clicks are seen only on the ad displayed. A second price per
click, scaled by reported rates, pays agents to inflate their own (footnote 20); the pivot (19)
needs the rates of those not shown. A lottery that shows each of them sometimes makes an unbiased
estimator of all rates, at a cost in efficiency (footnote 21).

**References**

Bergemann, Bojko, Duetting, Paes Leme, Xu and Zuo, "Data-driven mechanism design: jointly eliciting
preferences and information", 2025; Horvitz and Thompson, Journal of the American Statistical
Association 1952.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import checked, choice, distinct, instance, number, whole
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.tastes import TasteGrid
from dynmech.static.click_data import (
    binomial,
    inverse_propensity,
    require_rates,
)
from dynmech.static.clicks import expected_states, profile_values, require_values
from dynmech.static.environment import StaticEnvironment
from dynmech.static.mechanisms import DirectMechanism, data_driven_vcg
from dynmech.static.signals import SIGNALS, PrivateSignals

_CELLS = 20_000_000


class AgentClickAuction(eqx.Module):
    """Describe an auction of one slot with a click rate for each agent.

    **Arguments**

    - `rates`: `TasteGrid`: points (m, n), clicks per impression of each agent's ad, in [0, 1].
    - `theta`: (n, V): values per click each agent may have, money, nonnegative.
    - `impressions`: M.
    - `signals`: what agents know of the rates (`sampled_clicks`); None: nothing.
    - `names`: n labels.
    - `efficient_chance`: p in (0, 1]; below 1 the feasible allocations are lotteries that show one
      agent with chance p + (1 - p)/n and each other one with (1 - p)/n.

    `env` is the finite environment; its a-th allocation favours agent a.

    **Raises**

    `InvalidArgument`, `NotFinite`, `OutsideSupport` (a rate outside [0, 1]).

    ```python
    >>> rates = TasteGrid([[0.1, 0.4], [0.3, 0.2]], [0.5, 0.5])
    >>> auction = AgentClickAuction(rates, [[1.0, 2.0], [1.0, 2.0]], impressions=10)
    >>> auction.env.efficient_allocation().tolist()                     # E omega = (0.2, 0.3)
    [[1, 1], [0, 1]]

    ```
    """

    rates: TasteGrid
    impressions: int = eqx.field(static=True)
    efficient_chance: float = eqx.field(static=True)
    env: StaticEnvironment

    @checked(impressions=whole(1), signals=SIGNALS)
    def __init__(
        self,
        rates: TasteGrid,
        theta: npt.ArrayLike,
        impressions: int = 1,
        signals: PrivateSignals | None = None,
        names: Sequence[str] | None = None,
        efficient_chance: float = 1.0,
    ):
        points = require_rates("AgentClickAuction(rates=...)", rates)
        values = require_values("AgentClickAuction(theta=...)", theta)
        n = len(values)
        if points.shape[1] != n:
            must, got = f"have one coordinate for each of {n} agents", points.shape
            raise InvalidArgument(describe("AgentClickAuction(rates=...)", must, got))
        p = require_chance("AgentClickAuction(efficient_chance=...)", efficient_chance)
        self.rates, self.impressions, self.efficient_chance = rates, int(impressions), p
        count = float(impressions)
        labels = [f"agent {i}" for i in range(n)]
        if names is not None:
            labels = list(distinct("AgentClickAuction(names=...)", names, n))
        self.env = StaticEnvironment(
            lambda agent, x, omega, theta: count * theta * omega[agent] * x[agent],
            p * np.eye(n) + (1 - p) / n,
            rates,
            values,
            signals,
            names=labels,
            allocation_names=[f"{label} is shown" for label in labels],
        )

    def values(self) -> Float[np.ndarray, "..."]:
        """Return theta by type profile: shape (E_1, ..., E_n, n), money a click."""
        return profile_values(self.env)

    def expected_rates(self, without: int | None = None) -> Float[np.ndarray, "..."]:
        """Compute E[omega_i | S = s] by type profile: shape (E_1, ..., E_n, n).

        **Arguments:** `without`: given the others' signals only (that axis has length 1).
        """
        return expected_states(self.env, without)

    def lottery(self, efficient_chance: float) -> "AgentClickAuction":
        """Return the same auction over lotteries.

        **Raises:** `InvalidArgument` unless the chance is in (0, 1].
        """
        return AgentClickAuction(
            self.rates,
            self.env.theta,
            self.impressions,
            self.env.signals,
            self.env.names,
            efficient_chance,
        )

    def welfare(self) -> float:
        """Compute the expected surplus of the efficient rule, all value profiles equally likely."""
        env = self.env
        chosen = env.efficient_allocation()[..., None]
        total = sum((env.expected_payoff(i) for i in range(env.agents)), np.zeros(1))
        worth = np.take_along_axis(
            np.broadcast_to(total, (*env.shape, len(env.allocations))), chosen, -1
        )[..., 0]
        chance = self.signal_chance()
        return float((worth * chance).sum() / chance.sum())

    def signal_chance(self) -> Float[np.ndarray, "..."]:
        """Probability of the signals of each type profile, whatever the values: (E_1, ..., E_n).

        **Raises:** `InvalidArgument` if structures are private too: they have no prior.
        """
        table = self.env.signals.table
        n = self.env.agents
        if any(q > 1 for q in table.shape[1 : 1 + n]):
            must = "have one signal structure for each agent"
            raise InvalidArgument(describe("signal_chance(signals=...)", must, table.shape))
        seen = np.tensordot(np.asarray(self.rates.weights, np.float64), table, 1)
        seen = seen.reshape(table.shape[1 + n :])
        return seen[np.ix_(*(own.signal for own in self.env.types))]


AUCTION = instance(AgentClickAuction, "an `AgentClickAuction`")


@checked(auction=AUCTION)
def per_click_second_price(auction: AgentClickAuction) -> DirectMechanism:
    """Build the per-click second price with scores theta_i E[omega_i | reports] (footnote 20).

    The winner pays max_{j != i} theta_j E[omega_j | s'] / E[omega_i | s'] for each click. In
    expectation p_i = M times that price E[omega_i | S = s] x_i: not incentive compatible, for i may
    inflate her own rate, win, and pay for the few clicks that come.

    **Raises:** `InvalidArgument` for an auction over lotteries; `TooLarge`.
    """
    require_no_lottery("per_click_second_price(auction=...)", auction)
    env, count = auction.env, auction.impressions
    mean, allocation = auction.expected_rates(), env.efficient_allocation()
    if float(count + 1) * np.prod([float(e) for e in env.shape]) > _CELLS:
        must, do = f"have at most {_CELLS:.0e} profiles times click counts", "use fewer impressions"
        raise TooLarge(describe("per_click_second_price(auction=...)", must, count, do))
    score = auction.values() * mean
    law = binomial(np.asarray(auction.rates.points, np.float64), count).swapaxes(0, 1)
    transfers = []
    for i in range(env.agents):
        rest = np.delete(score, i, axis=-1).max(axis=-1, initial=0.0)
        wins = (allocation == i) & (mean[..., i] > 0)
        price = np.where(wins, rest / np.where(wins, mean[..., i], 1.0), 0.0)
        transfers.append(price[..., None] * np.arange(count + 1))
    laws = [law] * env.agents
    return DirectMechanism(env, allocation, transfers, laws, "per-click second price")


@checked(auction=AUCTION, rule=choice("pivot", "printed"))
def click_lottery(
    auction: AgentClickAuction, efficient_chance: float, rule: str = "pivot"
) -> DirectMechanism:
    """Build the lottery of footnote 21: show everybody sometimes, and settle on the clicks.

    The efficient agent is shown with chance p + (1 - p)/n, each other one with (1 - p)/n. The
    clicks of whoever is shown, divided by the chance of being shown, estimate every rate without
    bias. "pivot" is data-driven VCG among lotteries with that estimator, exact by Theorem 1: with
    two agents the winner pays 2 p theta_j / (1 - p) for each click on j's ad. "printed" charges
    the paper's 2 theta_j / (1 - p), which in expectation is theta_j omega_j, more than the
    p theta_j omega_j that winning takes from j: an agent with p theta_i omega_i < theta_j omega_j <
    theta_i omega_i does better to lose.

    **Arguments:** `efficient_chance`: p in (0, 1). `rule`: "pivot" or "printed".

    **Returns:** a `DirectMechanism` of `auction.lottery(efficient_chance)`.

    **Raises:** `InvalidArgument`, `TooLarge`.
    """
    p = require_chance("click_lottery(efficient_chance=...)", efficient_chance)
    if p == 1:
        must, do = "be below 1", "some chance must be left to the others for their rates to be seen"
        raise InvalidArgument(describe("click_lottery(efficient_chance=...)", must, p, do))
    chances = auction.lottery(p)
    env = chances.env
    data = inverse_propensity(chances.rates, np.asarray(env.allocations), chances.impressions)
    name = f"lottery, p = {p:g}, {rule}"
    pivot = data_driven_vcg(env, data, "pivot", name)
    if rule == "pivot":
        return pivot
    transfers = [table / p for table in pivot.transfer]
    return DirectMechanism(env, pivot.allocation, transfers, pivot.law, name)


def require_chance(call: str, chance: float) -> float:
    """Return p as a float, or raise `InvalidArgument` unless it is in (0, 1]."""
    return float(number(above=0, most=1)(call, chance))


def require_no_lottery(call: str, auction: AgentClickAuction) -> None:
    """Raise `InvalidArgument` for an auction over lotteries."""
    if auction.efficient_chance < 1:
        must, do = "allot the slot for sure", "pass the auction that the lottery was made from"
        got = f"efficient_chance={auction.efficient_chance:g}"
        raise InvalidArgument(describe(call, must, got, do))
