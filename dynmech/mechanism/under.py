"""A mechanism in a market other than its own: what its audit and its simulation are given there.

Totals computed in the market that was solved stay what they are. They keep incentives, as they do
not read the own report, and promise neither participation nor budget: those are the true
market's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from dynmech._checks import instance
from dynmech._types import Record
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.payments.groves import OwnTables
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.under import certify_under, check_totals, settling_signal, walk_under
from dynmech.problem.settled import Settled, settled
from solvers import Certificate

if TYPE_CHECKING:
    from dynmech.play.terms import AbstractTerms


class Scene(Record):
    """What an audit looks at: a policy in a market, what is charged and what settles there.

    - `policy`, `own`, `groves_total` (n, *P), `estimator`: as the mechanism's.
    """

    policy: AbstractPricedPolicy
    own: OwnTables
    groves_total: Float[np.ndarray, "n ..."]
    estimator: AbstractSettlementSignal

    def settlement_means(self) -> Settled:
        """Means and variances of the estimate in every situation, money."""
        policy = self.policy
        return settled(policy.env, policy.compiled, self.estimator, policy.pairs.signals)


def scene_of(terms: AbstractTerms) -> Scene:
    """A mechanism in the market of its own policy."""
    return Scene(terms.policy, terms.own, terms.groves_total, terms.estimator)


def priced_scene(terms: AbstractTerms, verb: str) -> Scene:
    """The scene of a mechanism that can settle every purchase.

    **Raises:** `InvalidArgument` where ratings need not come and nothing says what that counts.
    """
    if terms.estimator.sends_missing():
        must = "say what a rating that does not come counts"
        do = "pass estimator=InversePropensity()"
        call = f"DynamicTeamMechanism.{verb}: estimator"
        raise InvalidArgument(describe(call, must, type(terms.estimator).__name__, do))
    return scene_of(terms)


def stand_in(
    call: str,
    mechanism: AbstractTerms,
    truth: RecommendationMDP,
    settlement: AbstractSettlement,
    certificate: Certificate | None = None,
) -> Scene:
    """The mechanism where another market is the truth, its tree walked there.

    **Arguments:** `certificate`: how hard to work for bounds where the tree of both does not fit;
    None: it has to.

    **Raises:** `InvalidArgument` for what is not defined there; `TooLarge`.
    """
    check_totals(call, mechanism.groves)
    instance(RecommendationMDP, "one RecommendationMDP")(call, truth)
    if not settlement.own:
        must = "be settlement.Estimator(): under another market no belief of the platform is true"
        raise InvalidArgument(describe("audit(settlement=...)", must, type(settlement).__name__))
    held = mechanism.policy
    signal = settling_signal(held, truth, mechanism.estimator)
    try:
        policy = walk_under(call, held, truth, signal)
    except TooLarge:
        if certificate is None:
            raise
        policy = certify_under(call, held, truth, signal, certificate)
    estimator = policy.env.signals.settlement
    return Scene(
        policy,
        policy.own_tables(estimator, mechanism.groves.side, needed=False),
        fixed_totals(mechanism),
        estimator,
    )


def fixed_totals(mechanism: AbstractTerms) -> Float[np.ndarray, "n ..."]:
    """Totals as they were computed; nothing where the mechanism thinks the reports impossible."""
    return np.nan_to_num(mechanism.groves_total, nan=0.0)


def over_markets(
    policy: AbstractPricedPolicy,
    own: OwnTables,
    signal: AbstractSettlementSignal,
    truths: Sequence[RecommendationMDP],
) -> OwnTables:
    """The tables of a mechanism with the worst case over markets in place of what is expected.

    `payoff` is the least of V_M(pi), `contribution` the largest of D_i^M(pi), over the markets in
    which the own type is possible.
    """
    payoff, contribution = np.full_like(own.payoff, np.nan), np.full_like(own.payoff, np.nan)
    for truth in truths:
        settles = settling_signal(policy, truth, signal)
        there = walk_under("groves.RobustWindow(markets=...)", policy, truth, settles)
        found = there.own_tables(there.env.signals.settlement, "both", needed=False)
        payoff = np.fmin(payoff, found.payoff[policy.played])
        contribution = np.fmax(contribution, found.contribution[policy.played])
    return dataclasses.replace(own, payoff=payoff, contribution=contribution)
