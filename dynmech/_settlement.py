"""What a purchase is settled with: the estimate's mean, a posterior mean, a price, nothing.

A settlement says what an advertiser is worth, net of what she pays and without the Groves term,
per purchase in each slot of a situation. The team transfer pays every advertiser the surplus of
whatever is bought,

    theta_i 1{a=i} - p_i = sum_j (theta_j + q_j) 1{a = j},

with q_j the estimate of u_j used, so that this payoff is the same for all advertisers.
"""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int


class Situation(eqx.Module):
    """k situations in which a purchase may be settled.

    - `product` (k, J): the product of each slot, -1 where empty. `stop` (k, J, m): its purchase
      probability. `utility` (k, J, m): its utility. `estimate` (k, J, m): conditional mean of
      the estimate of it. `belief` (k, m): what the mechanism believes (unnormalised).
    - `theta` (k, n): true values.
    """

    product: Int[np.ndarray, "k J"]
    stop: Float[np.ndarray, "k J m"]
    utility: Float[np.ndarray, "k J m"]
    estimate: Float[np.ndarray, "k J m"]
    belief: Float[np.ndarray, "k m"]
    theta: Float[np.ndarray, "k n"]


class AbstractSettlement(eqx.Module):
    """A way to settle purchases."""

    @abc.abstractmethod
    def payoff(self, at: Situation) -> Float[np.ndarray, "k C J M"]:
        """Payoff per purchase: C is 1 when it is everyone's, else n; M is 1 or m."""


class Estimator(AbstractSettlement):
    """Settle with the estimate after the purchase, by its conditional mean (paper C, Def. 4)."""

    def payoff(self, at):
        return (_earned(at)[:, :, None] + at.estimate)[:, None]


class MessageDriven(AbstractSettlement):
    """Settle with E[u_j | reports, history, purchase of j]: the best without data.

    Zero where the mechanism thinks the purchase impossible.
    """

    def payoff(self, at):
        weight = at.belief[:, None, :] * at.stop
        mass = weight.sum(axis=2)
        mean = (weight * at.utility).sum(axis=2) / np.where(mass > 0, mass, 1)
        return (_earned(at) + np.where(mass > 0, mean, 0))[:, None, :, None]


class PerPurchaseSecondPrice(AbstractSettlement):
    """Charge the advertiser bought the highest value among the others, nothing to the rest."""

    def payoff(self, at):
        n = at.theta.shape[1]
        others = np.where(np.eye(n, dtype=bool), -np.inf, at.theta[:, None, :]).max(axis=2)
        price = np.where(np.isfinite(others), others, 0.0)
        return _own(at, at.theta - price)


class NoTransfers(AbstractSettlement):
    """Charge nothing."""

    def payoff(self, at):
        return _own(at, at.theta)


def _earned(at: Situation) -> Float[np.ndarray, "k J"]:
    """Value earned by the product of each slot."""
    return np.take_along_axis(at.theta, np.maximum(at.product, 0), axis=1)


def _own(at: Situation, gain: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k n J 1"]:
    """Payoff `gain` to the advertiser whose product is bought."""
    mine = at.product[:, None, :] == np.arange(gain.shape[1])[:, None]
    return (mine * gain[:, :, None])[..., None]
