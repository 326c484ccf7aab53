"""Markets whose readings have one statistic: beliefs in proportion are merged, nothing changes."""

import dataclasses

import numpy as np
import pytest

import dynmech as dm
from solvers.tree.tree import build_tree
from tests.helpers.markets import random_market
from tests.helpers.oracle import money_scale, solve_by_brute_force
from tests.helpers.quantities import assert_same, market_of, quantities, solve


def exponential_market(seed, **options):
    """A random market in which every party reads the number of heads of two tosses of her coin.

    The chances of all coins have the same log odds up to a factor, so that heads of the platform
    and heads of an advertiser tell the same.
    """
    rng = np.random.default_rng(seed)
    case = random_market(rng, m=5, symbols=(3, 1, 3), horizon=3, recall="last", **options)
    odds = np.sort(rng.normal(size=5))

    def heads(factor):
        chance = 1 / (1 + np.exp(-factor * odds))
        return np.stack([(1 - chance) ** 2, 2 * chance * (1 - chance), chance**2], axis=1)

    law = np.einsum("ma,mb->mab", heads(1.0), heads(2.0))[:, :, None, :]
    case["feedback"] = np.broadcast_to(law, (len(case["feedback"]), *law.shape)).copy()
    return case


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_brute_force(seed, constant):
    case = exponential_market(seed, constant=constant)
    policy = solve(market_of(case))
    structure = policy.plan.tree.structure
    assert structure.offset is not None
    apart = dataclasses.replace(structure, digits=None, offset=None)
    assert policy.plan.tree.nodes < build_tree(apart).nodes
    assert_same(quantities(policy), solve_by_brute_force(case), money_scale(case))


@pytest.mark.parametrize("seed", range(2))
def test_whole_strategies_histories_and_moments(seed):
    """What follows paths or sums over nodes, with beliefs merged and with every history apart."""
    case = exponential_market(seed, constant=True)
    found = []
    for merge in (True, False):
        policy = solve(market_of(case), merge)
        mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Participation())
        message = dm.settlement.MessageDriven()
        moments = dm.payment_moments(mechanism)
        found.append(
            [
                mechanism.best_response().gain,
                mechanism.best_response(message).gain,
                mechanism.audit(message, histories="all").incentive_gain,
                mechanism.audit(message).incentive_gain,
                moments.mean,
                moments.variance,
                mechanism.audit().budget.payments,
            ]
        )
    scale = money_scale(case)
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9 * scale)
    assert found[0][1].max() > 1e-3
