"""Groves terms: what each advertiser is charged in total, whatever she reports herself.

total_i depends only on the others' initial reports and the platform's context, and is charged
in period 1: a split over later periods would have to add to the same total on every path, or
own reports would move it (paper C, section 5; a constant charged only if period 2 is reached is
manipulable). Tables run over each advertiser's *own* alternatives, axes (B, n, V, Z).
"""

import abc
import dataclasses
from functools import partial
from typing import Any, ClassVar, cast

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import choice
from dynmech._types import Record, with_default
from dynmech.errors import DynmechError, InvalidArgument, describe
from dynmech.market.beside import read_markets
from dynmech.market.environment import RecommendationMDP


class Spread(Record):
    """What totals of least variance need of every pair of reports, the truth of it.

    - `receipts` (n, P, m): E[core receipts of i; omega], unnormalised as beliefs are; money.
    - `weight` (P,): probability of the pair's values; its signals' is the mass of its root.
    """

    receipts: Float[np.ndarray, "n P m"]
    weight: Float[np.ndarray, " P"]


class OwnTables(Record):
    """What a Groves term may use, along each advertiser's own values (V) and signals (Z).

    Own values are the K of the support, and, where `ConstantValues(interval=...)` declares more,
    its ends, and under the efficient policy, solved exactly, the kinks in between and what lies
    between two of them, which tell every other; under bounds found by a search the support alone.

    - `payoff` (B, n, V, Z): expected payoff under truth without Groves term; between two kinks the
      least.
    - `contribution` (B, n, V, Z): D_i, what the others and the user get from the other products.
    - `marginal`, `displayable` (B, n, Z): W^{-i} and Wd^{-i}.
    - `root` (R, m): unnormalised beliefs; `own_root` (B, n, Z): the root of each own signal, -1
      beyond the alphabet; `own_pair` (B, n, K, Z): identifies the others' reports; `signal`
      (B, n): the profile's own signal.
    - `ex_ante` (n,): E[W^{-i}], or None for a batch; `batch_mean` (n,): its mean over the batch.
    - `spread`: for terms that ask for it (`reads_spread`), else None.
    Under a policy that is not exact they are bounds: `payoff` from below, `contribution` from
    above, `marginal` and `displayable` on the side that the term asked for. NaN where the signals
    have probability zero, or beyond the advertiser's alphabet.
    """

    payoff: Float[np.ndarray, "B n V Z"]
    contribution: Float[np.ndarray, "B n V Z"]
    marginal: Float[np.ndarray, "B n Z"]
    displayable: Float[np.ndarray, "B n Z"]
    root: Float[np.ndarray, "R m"]
    own_root: Int[np.ndarray, "B n Z"]
    own_pair: Int[np.ndarray, "B n K Z"]
    signal: Int[np.ndarray, "B n"]
    ex_ante: Float[np.ndarray, " n"] | None = None
    batch_mean: Float[np.ndarray, " n"] | None = None
    spread: Spread | None = None

    def at_own_signal(self, table: Float[np.ndarray, "B n Z"]) -> Float[np.ndarray, "B n"]:
        """Pick each profile's own signals."""
        return np.take_along_axis(table, self.signal[:, :, None], axis=2)[:, :, 0]

    def mixed(self, seed: int = 0) -> "OwnTables":
        """The same with each advertiser's own alternatives in another order.

        Those that exist change places among themselves: values together, and signals.
        """
        rng = np.random.default_rng(seed)
        tables = [self.payoff, self.contribution, self.marginal, self.displayable]
        mixed = [x.copy() for x in tables]
        for b, i in np.ndindex(self.own_root.shape[:2]):
            live = np.flatnonzero(self.own_root[b, i] >= 0)
            moved, values = np.roll(live, 1), rng.permutation(self.payoff.shape[2])
            for old, new in zip(tables[:2], mixed[:2], strict=True):
                new[b, i][:, live] = old[b, i][values][:, moved]
            for old, new in zip(tables[2:], mixed[2:], strict=True):
                new[b, i, live] = old[b, i, moved]
        names = ("payoff", "contribution", "marginal", "displayable")
        return dataclasses.replace(self, **dict(zip(names, mixed, strict=True)))

    def posterior(self) -> Float[np.ndarray, "B n m"]:
        """Posterior over tastes at each profile, the same for every advertiser."""
        root = np.take_along_axis(self.own_root, self.signal[:, :, None], axis=2)[:, :, 0]
        belief = self.root[root]
        mass = belief.sum(axis=2, keepdims=True)
        return np.where(mass > 0, belief / np.where(mass > 0, mass, 1), np.nan)


class AbstractGroves(Record):
    """A Groves term; one of your own gives `total`, and `side` as a class attribute.

    - `side`: the bound that it charges where numbers are not exact: "upper" (it must not be too
      small: no subsidy), "lower" (not too large: participation) or "both"; None: it can be charged
      under exact policies only.
    - `decoded`: whether the total is a function of the taste, decoded from the estimate after the
      ending: then `function(own)` (B, n, m) gives it, and `total` its expectation.
    - `robust`: whether the tables it is given are the worst case over its `markets`.
    - `reads_own`: False where `total` is the same whatever the tables hold.
    - `reads_ex_ante`: whether it reads means over profiles.
    """

    side: ClassVar[str | None] = None
    decoded: ClassVar[bool] = False
    robust: ClassVar[bool] = False
    reads_own: ClassVar[bool] = True
    reads_ex_ante: ClassVar[bool] = False

    @with_default
    def reads_spread(self) -> bool:
        """Whether `own.spread` is read; it is worked out on the policy's tree."""
        return False

    @abc.abstractmethod
    def total(self, own: OwnTables) -> Float[np.ndarray, "B n"]:
        """Total charged to each advertiser at each profile, money."""


class Zero(AbstractGroves):
    """Charge nothing: total_i = 0."""

    side: ClassVar[str | None] = "both"
    reads_own: ClassVar[bool] = False

    def total(self, own: OwnTables):
        return np.zeros(own.marginal.shape[:2])


class ExAnte(AbstractGroves):
    """Charge total_i = E[W_1^{-i}] (paper C, Proposition 1).

    **Arguments:** `sampled`: with a batch of profiles drawn from the prior, take the mean over
    the batch instead of the expectation (its standard error: `EfficientPolicy` of the batch).
    """

    side: ClassVar[str | None] = "lower"
    reads_ex_ante: ClassVar[bool] = True

    sampled: bool = eqx.field(static=True, default=False)

    def total(self, own: OwnTables):
        mean = own.batch_mean if own.ex_ante is None else own.ex_ante
        if mean is None or (own.ex_ante is None and not self.sampled):
            must, got = "have every initial profile", "a batch"
            do = "solve without `initial`, or pass ExAnte(sampled=True) for the batch's mean"
            raise DynmechError(describe("groves.ExAnte()", must, got, do))
        return np.broadcast_to(mean, own.marginal.shape[:2]).copy()


class NoSubsidy(AbstractGroves):
    """Charge phi_plus = sup over i's own initial signal of W^{-i} (paper C, Proposition 2).

    With `displayable`, of Wd^{-i}: that always gives no subsidy. With W^{-i} it does if showing
    i cannot raise the others' surplus.
    """

    side: ClassVar[str | None] = "upper"

    displayable: bool = eqx.field(static=True, default=False)

    def total(self, own: OwnTables):
        return _reduce(np.fmax, own.displayable if self.displayable else own.marginal)


class Participation(AbstractGroves):
    """Charge phi_minus = inf over i's own initial signal of W^{-i} (paper C, Proposition 2).

    Always individually rational; with `displayable` (of Wd^{-i}) if theta_i + u_i >= 0 wherever
    i can be bought.
    """

    side: ClassVar[str | None] = "lower"

    displayable: bool = eqx.field(static=True, default=False)

    def total(self, own: OwnTables):
        return _reduce(np.fmin, own.displayable if self.displayable else own.marginal)


class WindowFloor(AbstractGroves):
    """Charge the least total that gives no subsidy: max over own (theta_i, s_i) of D_i.

    Under the efficient policy over every value of a declared interval, under a recommender's over
    the support and the interval's ends.
    """

    side: ClassVar[str | None] = "upper"

    def total(self, own: OwnTables):
        return _reduce(np.fmax, own.contribution.reshape(*own.contribution.shape[:2], -1))


class WindowCeiling(AbstractGroves):
    """Charge the most that participation allows: min over own (theta_i, s_i) of the payoff."""

    side: ClassVar[str | None] = "lower"

    def total(self, own: OwnTables):
        return _reduce(np.fmin, own.payoff.reshape(*own.payoff.shape[:2], -1))


class RobustWindow(AbstractGroves):
    """Charge what does both in every market of a finite set, where one total can.

        max over M and own types of D_i^M(pi) <= total_i <= min over them of V_M(pi)

    with the policy's own recommendations pi, whichever market M is the truth. Own types that are
    impossible in M do not count there.

    **Arguments:** `markets`: as in `DynamicTeamMechanism.audit(under=...)`; `charge`: "floor", the
    least that gives no subsidy in any of them, or "ceiling", the most that everyone accepts in all.
    Where the floor is above the ceiling no total does both; `audit(under=...)` says by how much.

    **Raises:** `InvalidArgument`.
    """

    side: ClassVar[str | None] = "both"
    robust: ClassVar[bool] = True
    reads_own: ClassVar[bool] = False

    markets: tuple[RecommendationMDP, ...] = eqx.field(
        converter=partial(read_markets, "RobustWindow(markets=...)")
    )
    charge: str = eqx.field(static=True, default="floor")

    def __check_init__(self):
        choice("floor", "ceiling")("RobustWindow(charge=...)", self.charge)

    def total(self, own: OwnTables):
        floor = self.charge == "floor"
        table = own.contribution if floor else own.payoff
        return _reduce(np.fmax if floor else np.fmin, table.reshape(*table.shape[:2], -1))


def _reduce(best: np.ufunc, table: np.ndarray) -> Float[np.ndarray, "B n"]:
    """Reduce over own alternatives of positive probability; NaN if there is none."""
    return best.reduce(table, axis=2)


def total_by_taste(groves: AbstractGroves, own: OwnTables) -> Float[np.ndarray, "B n _m"] | None:
    """The total at each taste where it is decoded from the estimate; None where it is fixed."""
    return cast(Any, groves).function(own) if groves.decoded else None


def require_own(call: str, groves: AbstractGroves) -> None:
    """Raise unless a term reads nothing but W^{-i}, Wd^{-i}, W and D_i at own types."""
    beyond = groves.decoded or groves.robust or groves.reads_ex_ante or groves.reads_spread()
    if beyond:
        must = "be a function of W^{-i}, Wd^{-i}, W and D_i at own types"
        do = "take groves.Participation(displayable=True), or another such term"
        raise InvalidArgument(describe(call, must, groves, do))


def check_total(
    groves: AbstractGroves, own: OwnTables, verb: str = "DynamicTeamMechanism"
) -> Float[np.ndarray, "B n"]:
    """Evaluate a term; raise if it reads the own report.

    **Raises:** `InvalidArgument` for a wrong shape, and for a total that moves when own
    alternatives change places.
    """
    call, name = f"{verb}(groves=...)", type(groves).__name__
    total = np.asarray(groves.total(own), float)
    if total.shape != own.signal.shape:
        must = f"return totals of shape (profiles, advertisers) = {own.signal.shape}"
        raise InvalidArgument(describe(call, must, f"{total.shape} from {name}.total"))
    if groves.decoded:
        return total
    moved = np.abs(total - np.asarray(groves.total(own.mixed()), float))
    if np.nanmax(moved, initial=0.0) > 1e-9 * max(1.0, np.nanmax(np.abs(total), initial=0.0)):
        must = "not read the advertiser's own report"
        got = f"{name}.total, which moves by {np.nanmax(moved):.3g} with her own alternatives"
        do = "reduce over the own axes: a maximum, a minimum, a mean"
        raise InvalidArgument(describe(call, must, got, do))
    return total
