"""What a purchase is settled with: the estimate's mean, a posterior mean, a price, nothing.

A settlement says what an advertiser is worth, net of what she pays and without the Groves term,
per purchase in each slot of a situation. The team transfer pays every advertiser the surplus of
whatever is bought,

    theta_i 1{a=i} - p_i = sum_j (theta_j + q_j) 1{a = j} - c 1{a = query},

with q_j the estimate of u_j used, relative to leaving, and c what a query costs the user, so that
this payoff is the same for all advertisers.
"""

import abc
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import as_floats, check_fields, instance, shaped, whole
from dynmech._types import Record, with_default


class Situation(Record):
    """k situations of one period in which a purchase may be settled.

    - `product` (k, J): the product of each slot, -1 where empty. `stop` (k, J, m): its purchase
      probability. `utility` (k, J, m): its utility. `estimate` (k, J, m): conditional mean of
      the estimate of it. `belief` (k, m): what the mechanism believes (unnormalised).
    - `theta` (k, n): true values. `utilities` (n, m): of every product. `period`: from 1.
    - `asked` (k, m): chance of a query. `cost` (k, m): that chance times what the query costs.

    Utilities are relative to leaving.
    """

    product: Int[np.ndarray, "k J"]
    stop: Float[np.ndarray, "k J m"]
    utility: Float[np.ndarray, "k J m"]
    estimate: Float[np.ndarray, "k J m"]
    belief: Float[np.ndarray, "k m"]
    theta: Float[np.ndarray, "k n"]
    utilities: Float[np.ndarray, "n m"]
    asked: Float[np.ndarray, "k m"]
    cost: Float[np.ndarray, "k m"]
    period: int = eqx.field(static=True)


class AbstractSettlement(Record):
    """A way to settle.

    - `own`: whether it settles with the mechanism's own estimate, to which the bounds on gains
      apply. `team`: whether it pays everybody the surplus, so that a Groves term goes with it.
    - `sold_alone`: whether of a situation's `theta` it reads what the product of each slot earns,
      and nothing else: situations that agree in that, and in the rest, are then settled alike.
    """

    own: ClassVar[bool] = False
    team: ClassVar[bool] = False
    sold_alone: ClassVar[bool] = False

    @abc.abstractmethod
    def payoff(self, at: Situation) -> Float[np.ndarray, "k C J M"]:
        """Payoff per purchase: C is 1 when it is everyone's, else n; M is 1 or m."""

    @abc.abstractmethod
    def charge(self, at: Situation) -> Float[np.ndarray, "k C"]:
        """What is charged because the period is reached, whatever the user does."""

    @with_default
    def toll(self, at: Situation) -> Float[np.ndarray, "k C m"]:
        """What is charged for a query, times its chance: its cost where the surplus is paid."""
        return at.cost[:, None] * self.team


class Estimator(AbstractSettlement):
    """Settle with the estimate after the purchase, by its conditional mean (paper C, Def. 4)."""

    own: ClassVar[bool] = True
    team: ClassVar[bool] = True
    sold_alone: ClassVar[bool] = True

    def payoff(self, at: Situation):
        return (_earned(at)[:, :, None] + at.estimate)[:, None]

    def charge(self, at: Situation):
        return _nothing(at)


class MessageDriven(AbstractSettlement):
    """Settle with E[u_j | reports, history, purchase of j]: the best without data.

    What a query costs is settled alike. Zero where the mechanism thinks the purchase impossible.
    """

    team: ClassVar[bool] = True
    sold_alone: ClassVar[bool] = True

    def payoff(self, at: Situation):
        weight = at.belief[:, None, :] * at.stop
        mass = weight.sum(axis=2)
        mean = (weight * at.utility).sum(axis=2) / np.where(mass > 0, mass, 1)
        return (_earned(at) + np.where(mass > 0, mean, 0))[:, None, :, None]

    def charge(self, at: Situation):
        return _nothing(at)

    def toll(self, at: Situation):
        mass, cost = ((at.belief * x).sum(axis=1) for x in (at.asked, at.cost))
        mean = np.where(mass > 0, cost / np.where(mass > 0, mass, 1), 0)
        return (at.asked * mean[:, None])[:, None]


class PerPurchaseSecondPrice(AbstractSettlement):
    """Charge the advertiser bought the highest value among the others, nothing to the rest."""

    def payoff(self, at: Situation):
        n = at.theta.shape[1]
        others = np.where(np.eye(n, dtype=bool), -np.inf, at.theta[:, None, :]).max(axis=2)
        price = np.where(np.isfinite(others), others, 0.0)
        return _own(at, at.theta - price)

    def charge(self, at: Situation):
        return _nothing(at)


class GeneralizedSecondPrice(AbstractSettlement):
    """Charge the advertiser bought what keeps her first on expected surplus, others nothing.

        price_j = max(0, max_{k != j} (theta_k + E[u_k]) - E[u_j])

    with expectations under what the mechanism believes before the purchase.
    """

    def payoff(self, at: Situation):
        n = at.theta.shape[1]
        mass = at.belief.sum(axis=1, keepdims=True)
        mean = at.belief @ at.utilities.T / np.where(mass > 0, mass, 1)
        score = at.theta + mean
        rivals = np.where(np.eye(n, dtype=bool), -np.inf, score[:, None, :]).max(axis=2)
        return _own(at, at.theta - np.maximum(0.0, rivals - mean))

    def charge(self, at: Situation):
        return _nothing(at)


class NoTransfers(AbstractSettlement):
    """Charge nothing."""

    sold_alone: ClassVar[bool] = True

    def payoff(self, at: Situation):
        return _own(at, at.theta)

    def charge(self, at: Situation):
        return _nothing(at)


def _amounts(call: str, value: Any) -> Float[np.ndarray, " n"]:
    return np.asarray(shaped("n")(call, np.atleast_1d(np.asarray(as_floats(value, call)))), float)


class ChargeOnReach(AbstractSettlement):
    """Charge constants when a period is reached, on top of another settlement: do not do this.

    Own reports move the recommendation and so whether the period is reached: paper C lets Groves
    terms be arbitrary functions of the others' reports in every period, and this shows why that
    breaks Theorem 1 for periods after the first.

    **Arguments:** `amount` (n,), money; `period`, from 1; `base`: the settlement of purchases.
    """

    team: ClassVar[bool] = True

    amount: Float[np.ndarray, " n"] = eqx.field(
        converter=partial(_amounts, "ChargeOnReach(amount=...)")
    )
    period: int = eqx.field(static=True, default=2)
    base: AbstractSettlement = eqx.field(default_factory=Estimator)

    def __check_init__(self):
        check_fields(
            self, period=whole(1), base=instance(AbstractSettlement, "a settlement, as Estimator()")
        )

    def payoff(self, at: Situation):
        return self.base.payoff(at)

    def toll(self, at: Situation):
        return self.base.toll(at)

    def charge(self, at: Situation):
        return self.base.charge(at) + (at.period == self.period) * self.amount[None]


def _earned(at: Situation) -> Float[np.ndarray, "k J"]:
    """Value earned by the product of each slot."""
    return at.theta[np.arange(len(at.theta))[:, None], np.maximum(at.product, 0)]


def _own(at: Situation, gain: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k n J 1"]:
    """Payoff `gain` to the advertiser whose product is bought."""
    mine = at.product[:, None, :] == np.arange(gain.shape[1])[:, None]
    return (mine * gain[:, :, None])[..., None]


def _nothing(at: Situation) -> Float[np.ndarray, "k 1"]:
    return np.zeros((len(at.belief), 1))
