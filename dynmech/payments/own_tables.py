"""What Groves terms are computed from, along each advertiser's own alternatives."""

import numpy as np
from jaxtyping import Float

from dynmech.market.signals import AbstractSettlementSignal
from dynmech.payments.groves import OwnTables
from dynmech.policy.efficient import EfficientPolicy
from dynmech.policy.outcomes import expected_outcomes
from dynmech.problem.compile import settlement_means


def own_tables(policy: EfficientPolicy, signal: AbstractSettlementSignal) -> OwnTables:
    """Expected payoffs along each advertiser's own alternatives, under truth."""
    env, pairs, n = policy.env, policy.pairs, policy.env.products
    every = np.arange(len(pairs.root))
    means = settlement_means(env, policy.compiled, signal)
    outcomes = expected_outcomes(policy.plan, env.values.support, pairs, every, means)
    payoff = (outcomes.earned + outcomes.estimated).sum(axis=1)
    live = pairs.own >= 0
    at = np.maximum(pairs.own, 0)
    own = np.where(live, payoff[at], np.nan)
    mine = (outcomes.earned + outcomes.utility)[at, np.arange(n)[None, :, None, None]]
    marginal = _at_signal(policy, policy.own_marginal)
    return OwnTables(
        payoff=own,
        contribution=np.where(live, own - mine, np.nan),
        marginal=policy.own_marginal,
        displayable=policy.own_displayable,
        ex_ante=None if policy.batch else policy.ex_ante_marginal_value,
        batch_mean=np.nanmean(marginal, axis=0),
        root=policy.plan.root,
        own_root=np.where(live[:, :, 0], pairs.root[at[:, :, 0]], -1),
        own_pair=pairs.own,
        signal=policy.profiles.signals[:, 1:],
    )


def _at_signal(policy: EfficientPolicy, table: np.ndarray) -> Float[np.ndarray, "B n"]:
    here = policy.profiles.signals[:, 1:][:, :, None]
    return np.take_along_axis(table, here, axis=2)[:, :, 0]


def at_base(policy: EfficientPolicy, table: np.ndarray) -> Float[np.ndarray, "B n"]:
    """Pick each profile's own (theta_i, s_i) from a table (B, n, K, Z)."""
    theta, signals = policy.profiles.theta, policy.profiles.signals[:, 1:]
    batch, n = theta.shape
    return table[np.arange(batch)[:, None], np.arange(n), theta, signals]
