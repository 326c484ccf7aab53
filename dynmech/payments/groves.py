"""Groves terms: what each advertiser is charged in total, whatever she reports herself.

total_i depends only on the others' initial reports and the platform's context, and is charged
in period 1: a split over later periods would have to add to the same total on every path, or
own reports would move it (paper C, section 5; a constant charged only if period 2 is reached is
manipulable). Tables run over each advertiser's *own* alternatives, axes (B, n, K, Z).
"""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech.errors import DynmechError, describe


class OwnTables(eqx.Module):
    """What a Groves term may use, along each advertiser's own values (K) and signals (Z).

    - `payoff` (B, n, K, Z): expected payoff under truth without Groves term.
    - `contribution` (B, n, K, Z): D_i, what the others and the user get from the other products.
    - `marginal`, `displayable` (B, n, Z): W^{-i} and Wd^{-i}.
    - `root` (R, m): unnormalised beliefs; `own_root` (B, n, Z): the root of each own signal, -1
      beyond the alphabet; `own_pair` (B, n, K, Z): identifies the others' reports; `signal`
      (B, n): the profile's own signal.
    - `ex_ante` (n,): E[W^{-i}], or None for a batch; `batch_mean` (n,): its mean over the batch.
    NaN where the signals have probability zero, or beyond the advertiser's alphabet.
    """

    payoff: Float[np.ndarray, "B n K Z"]
    contribution: Float[np.ndarray, "B n K Z"]
    marginal: Float[np.ndarray, "B n Z"]
    displayable: Float[np.ndarray, "B n Z"]
    ex_ante: Float[np.ndarray, " n"] | None
    batch_mean: Float[np.ndarray, " n"]
    root: Float[np.ndarray, "R m"]
    own_root: Int[np.ndarray, "B n Z"]
    own_pair: Int[np.ndarray, "B n K Z"]
    signal: Int[np.ndarray, "B n"]

    def posterior(self) -> Float[np.ndarray, "B n m"]:
        """Posterior over tastes at each profile, the same for every advertiser."""
        root = np.take_along_axis(self.own_root, self.signal[:, :, None], axis=2)[:, :, 0]
        belief = self.root[root]
        mass = belief.sum(axis=2, keepdims=True)
        return np.where(mass > 0, belief / np.where(mass > 0, mass, 1), np.nan)


class AbstractGroves(eqx.Module):
    """A Groves term."""

    @abc.abstractmethod
    def total(self, own: OwnTables) -> Float[np.ndarray, "B n"]:
        """Total charged to each advertiser at each profile, money."""


class Zero(AbstractGroves):
    """Charge nothing: total_i = 0."""

    def total(self, own):
        return np.zeros(own.marginal.shape[:2])


class ExAnte(AbstractGroves):
    """Charge total_i = E[W_1^{-i}] (paper C, Proposition 1).

    **Arguments:** `sampled`: with a batch of profiles drawn from the prior, take the mean over
    the batch instead of the expectation (its standard error: `EfficientPolicy` of the batch).
    """

    sampled: bool = eqx.field(static=True, default=False)

    def total(self, own):
        mean = own.batch_mean if own.ex_ante is None else own.ex_ante
        if own.ex_ante is None and not self.sampled:
            must, got = "have every initial profile", "a batch"
            do = "solve without `initial`, or pass ExAnte(sampled=True) for the batch's mean"
            raise DynmechError(describe("groves.ExAnte()", must, got, do))
        return np.broadcast_to(mean, own.marginal.shape[:2]).copy()


class NoSubsidy(AbstractGroves):
    """Charge phi_plus = sup over i's own initial signal of W^{-i} (paper C, Proposition 2).

    With `displayable`, of Wd^{-i}: that always gives no subsidy. With W^{-i} it does if showing
    i cannot raise the others' surplus.
    """

    displayable: bool = eqx.field(static=True, default=False)

    def total(self, own):
        return _reduce(np.fmax, own.displayable if self.displayable else own.marginal)


class Participation(AbstractGroves):
    """Charge phi_minus = inf over i's own initial signal of W^{-i} (paper C, Proposition 2).

    Always individually rational; with `displayable` (of Wd^{-i}) if theta_i + u_i >= 0 wherever
    i can be bought.
    """

    displayable: bool = eqx.field(static=True, default=False)

    def total(self, own):
        return _reduce(np.fmin, own.displayable if self.displayable else own.marginal)


class WindowFloor(AbstractGroves):
    """Charge the least total that gives no subsidy: max over own (theta_i, s_i) of D_i."""

    def total(self, own):
        return _reduce(np.fmax, own.contribution.reshape(*own.contribution.shape[:2], -1))


class WindowCeiling(AbstractGroves):
    """Charge the most that participation allows: min over own (theta_i, s_i) of the payoff."""

    def total(self, own):
        return _reduce(np.fmin, own.payoff.reshape(*own.payoff.shape[:2], -1))


def _reduce(best, table: np.ndarray) -> Float[np.ndarray, "B n"]:
    """Reduce over own alternatives of positive probability; NaN if there is none."""
    return best.reduce(table, axis=2)
