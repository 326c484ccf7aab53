"""Statements of sections 4.3, 5.3 and appendices B.1, B.2, B.5 of paper D: rivals, procurement."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

import dynmech as dm
from dynmech import DynmechError, TasteGrid, static
from experiments import procurement
from experiments._statements_core import games, mean_of, relative
from experiments._statements_rows import EXACT, Row, equal, large, refuted, small
from experiments._statements_settings import (
    RICH,
    SHARP,
    SILENT,
    auction,
    click_auction,
    random_environment,
)


def messages(markets: int) -> list[Row]:
    """Check Example 5 with Claim 1, and Example 6 with Claim 2."""
    error, least = 0.0, np.inf
    for game, theta, noise, s in itertools.islice(games(3 * markets), 0, None, 3):
        mean, told = mean_of(noise, s), game.message_lie(0, s)

        def payoff(
            report: Sequence[float] | np.ndarray,
            theta: np.ndarray = theta,
            noise: Any = noise,
            s: np.ndarray = s,
            mean: Any = mean,
        ):
            guess = mean_of(noise, np.append(report[1], s[1:]))
            x = (report[0] + theta[1:].sum()) / len(theta) + guess
            return -((x - theta[0] - mean) ** 2) - ((x - theta[1:] - guess) ** 2).sum()

        truth, lie = payoff([theta[0], s[0]]), payoff(np.array(told[:2], float))
        best = -minimize(lambda z: -payoff(z), [theta[0], s[0]], method="BFGS").fun
        gain = float(told[2])
        error = max(error, abs(lie - truth - gain), best - lie)
        least = min(least, gain)
    env = prediction_on_a_grid()
    any_transfers = static.least_message_epsilon(env)
    gained = any_transfers.mechanism.audit().epsilon
    rates, prior = np.array([0.1, 0.7]), np.array([0.6, 0.4])
    item = auction(rates, prior, [[1.9, 2.1], [2.0, 2.0]], [SHARP, SILENT])
    joint = SHARP * prior[:, None]
    low, high = np.sort(rates @ (joint / joint.sum(axis=0)))
    bound = static.least_message_epsilon(item).epsilon[0]
    kinds = (dm.groves.Zero(), "pivot", "informed")
    lies = min(static.message_vcg(click_auction(), kind).audit().epsilon for kind in kinds)
    return [
        small("Claim 1, Example 5", "generalised VCG on messages: gain of the best lie in "
              "closed form; no better one by optimisation", markets, error),
        large("Claim 1, Example 5", "the same: least gain", markets, least, 1e-6),
        large("Claim 1, Example 5", "any transfers on messages, values and signals on grids: least "
              "epsilon, by linear programs", 1, any_transfers.epsilon.max(), 0.01),
        equal("Claim 1, Example 5", "the transfers that attain it: gain found by the audit", 1,
              gained, float(any_transfers.epsilon.max())),
        equal("Claim 2, Example 6", "any transfers on messages: least epsilon, (1.9 E_high - 2.1 "
              "E_low) / 2", 1, bound, (1.9 * high - 2.1 * low) / 2),
        large("Claim 2, Example 6", "three generalised VCG mechanisms on messages: least gain", 3,
              lies, 0.1),
    ]  # fmt: skip


def prediction_on_a_grid() -> static.StaticEnvironment:
    """Put Example 5 on grids: three values, two signals, and every allocation that is efficient."""
    points, values = np.array([-1.0, 0.0, 1.0]), np.array([-0.5, 0.0, 0.5])
    channel = np.stack([[0.85, 0.15], [0.5, 0.5], [0.15, 0.85]])
    prior = np.array([0.25, 0.5, 0.25])
    means = set()
    for first, second in itertools.product(range(2), repeat=2):
        mass = prior * channel[:, first] * channel[:, second]
        means.add(float(mass @ points / mass.sum()))
    chosen = sorted({(a + b) / 2 + mean for a in values for b in values for mean in means})
    return static.StaticEnvironment(
        lambda i, x, omega, theta: -((x[0] - theta - omega[0]) ** 2),
        np.array(chosen)[:, None],
        TasteGrid(points[:, None], prior),
        [values, values],
        static.PrivateSignals.independent([channel, channel]),
    )


def lotteries(markets: int) -> list[Row]:
    """Check condition (11), (13) and Propositions 5 and 6."""
    gain = rent = lost = weak = 0.0
    count = 0
    for seed in range(markets):
        rng = np.random.default_rng(seed)
        rich, coarse = rng.dirichlet(np.ones(3), size=3), rng.dirichlet(np.ones(2), size=3)
        rates, prior = np.sort(rng.uniform(0, 1, 3)), rng.dirichlet(np.ones(3))
        many = auction(rates, prior, rng.uniform(1, 2, (2, 2)), [rich, coarse])
        known = auction(rates, prior, rng.uniform(1, 2, (2, 1)), [rich, coarse])
        try:
            lottery, extraction = static.lottery_mechanism(many), static.surplus_extraction(known)
        except DynmechError:
            continue  # condition (11) fails there
        count += 1
        audit = lottery.mechanism.audit()
        gain = max(gain, audit.epsilon - audit.tolerance)
        weak = max(weak, relative(static.message_vcg(many, dm.groves.Zero())))
        audit = extraction.mechanism.audit()
        gain = max(gain, audit.epsilon - audit.tolerance)
        rent = max(rent, float(np.nanmax(np.abs(audit.participation))) / known.money_scale)
        surplus = (known.expected_payoff(0) + known.expected_payoff(1)).max(axis=-1)
        lost = max(lost, float(np.abs(audit.revenue - surplus).max()) / known.money_scale)
    silent = np.tile([1.0, 0.0, 0.0], (3, 1))
    prior = np.array([0.3, 0.4, 0.3])
    channels = [np.stack([RICH, silent]), np.ones((3, 1))]
    flat = auction([0.1, 0.4, 0.8], prior, [[1.0, 2.0], [1.2, 1.9]], channels)
    found = next(r for r in static.check_relevance(flat) if r.agent == 0)
    at = int(np.abs(found.beliefs - prior).max(axis=1).argmin())
    weights = np.array([found.separation.combination[at][found.index[z]] for z in range(3)])
    bayes = np.abs(weights - prior @ RICH).max() + found.separation.margin[at]
    refused = 0
    try:
        static.lottery_mechanism(flat)
    except DynmechError:
        refused = 1
    return [
        small("Proposition 5", "largest gain under bets, less its tolerance", count, gain),
        large("Proposition 5", "the same auctions on messages without bets: largest gain / scale",
              count, weak, 0.01),
        small("(11), (13)", "prior a posterior: weights of the convex combination against Bayes' "
              "rule", 1, bayes),
        equal("(11), (13)", "the lottery mechanism is refused, with that combination", 1, refused,
              1),
        small("(11), (13)", "data-driven VCG there: largest gain", 1,
              static.data_driven_vcg(flat).audit().epsilon),
        small("Proposition 6", "rents left, (26) / money scale", count, rent),
        small("Proposition 6", "revenue less the efficient surplus / money scale", count,
              lost),
    ]  # fmt: skip


def two_stages(markets: int) -> list[Row]:
    """Check Mezzetti's mechanism, (10), with footnotes 12 and 13, and Example 7."""
    gain = apart = spread = 0.0
    for seed in range(markets):
        env = random_environment(seed, affine=False)
        first, ideal = static.mezzetti(env), static.data_driven_vcg(env)
        gain = max(gain, relative(first))
        pairs = zip(first.transfer, ideal.transfer, strict=True)
        apart = max(apart, *(float(np.abs(a - b).max()) for a, b in pairs))
    env = auction([0.1, 0.7], [0.6, 0.4], [[1.0, 2.0], [1.5, 1.6]], [SHARP, SHARP])
    spread = float(static.second_stage_spread(env).max())
    told = static.mezzetti(env, lambda u: 0 * u).audit().epsilon
    # phi_i(u'_-i) = sum_{j != i} u'_j cancels all transfers: the loser of value 1 against 1.5
    # claims 2 and wins theta E[omega | s] for nothing.
    nothing = static.DirectMechanism(env, env.efficient_allocation(), [np.zeros((1, 1, 1))] * 2)
    top = float((env.posterior(0) @ [0.1, 0.7]).max())
    wins = env.efficient_allocation() == 0
    idle = np.broadcast_to(env.payoff_by_type(1), (*env.shape, 2, 2))[wins][:, 0]
    price = static.data_driven_vcg(env, groves="pivot").transfer[0][wins]
    grid = np.linspace(0, 1, 6)
    tied = static.StaticEnvironment(
        lambda i, x, omega, t: (t[0] if i == 0 else t[1] - t[0]) * x[i] * omega[0],
        np.eye(2),
        TasteGrid([[0.2], [0.9]], [0.5, 0.5]),
        np.stack([grid, grid]),
        static.PrivateSignals.independent([SHARP, SHARP]),
        interdependent=True,
    )
    audit = static.data_driven_vcg(tied).audit()
    mean = tied.posterior(0) @ [0.2, 0.9]
    one, two = grid[tied.types[0].theta][:, None], grid[tied.types[1].theta][None]
    truth = np.where(2 * one >= two, one, two - one)
    expected = (np.maximum(np.where(two > 0, two, one), one) - truth) * mean
    return [
        small("(10)", "first stage, truth in the second: largest gain / scale", markets, gain),
        small("footnote 12", "its transfers against data-driven VCG with ideal data", markets,
              apart),
        small("(10)", "what an own second-stage report moves", 1, spread),
        large("(10)", "all others say 0 in the second stage, a best reply: gain in the first", 1,
              told, 0.1),
        refuted("(10)", "'arbitrary' h_i(u'_-i) = -sum of u'_j: gain, winning for nothing", 1,
                nothing.audit().incentive_gain[0], 1.0 * top),
        small("footnote 13", "others' payoffs where agent 1 wins", 1, float(np.abs(idle).max())),
        equal("footnote 13", "her pivot price moves with omega by 1.5 (0.7 - 0.1) or more", 1,
              float(np.ptp(price, axis=-1).min()), 1.5 * 0.6),
        small("Example 7", "gain of agent 1 at every profile against its formula", 1,
              float(np.abs(audit.profile_gain[0] - expected).max())),
        large("Example 7", "her largest gain, by claiming 0", 1, audit.incentive_gain[0], 0.3),
    ]  # fmt: skip


def spot_market(markets: int, replications: int) -> list[Row]:
    """Check (20) and Corollary 1."""
    residual = inverse = 0.0
    for seed in range(markets):
        rng = np.random.default_rng(seed)
        n, alpha = int(rng.integers(2, 6)), float(rng.uniform(0.1, 2))
        demand = static.LogitDemand(alpha, rng.normal(size=n) * 2, outside=bool(seed % 2))
        costs = rng.uniform(0.5, 3, n) / alpha
        found = static.spot_equilibrium(demand, costs)
        residual = max(residual, found.residual * alpha)
        back = static.recover_costs(found.prices, demand)
        inverse = max(inverse, np.abs(back - costs).max() * alpha)
    three = procurement.constructed()
    env = three.env
    exact = static.data_driven_vcg(env, groves="pivot")
    chosen = env.efficient_allocation()
    apart, costs = 0.0, three.costs()
    for cell in itertools.product(*(range(e) for e in env.shape)):
        values = tuple(int(own.theta[e]) for own, e in zip(env.types, cell, strict=True))
        paid = three.transfers(cell, costs[values])
        given = np.stack([exact.transfer[i][cell] for i in range(3)], axis=-1)
        given = given - np.where(np.arange(3) == chosen[cell], three.benefits, 0.0)
        apart = max(apart, float(np.abs(paid - given).max()))
    unpaid = [np.where((chosen == i)[..., None], exact.transfer[i], 0.0) for i in range(3)]
    silent = static.DirectMechanism(env, chosen, unpaid, exact.law).audit().epsilon
    options = procurement.Options(samples=(1_600, 102_400), replications=replications)
    given = procurement.setting(options, procurement.read_table())
    table = procurement.consistency(options, given)
    few, many = (table.iloc[k] for k in (0, 1))
    known, rms = "epsilon, demand known [price]", "rms error of c_hat [price]"
    epsilon, lemma1, seen = (
        table[f"{name} [price]"].to_numpy(float) for name in ("epsilon", "Lemma 1", "(22)")
    )
    above = max(float((epsilon - lemma1).max()), float((lemma1 - seen).max()))
    size = "1,600 to 102,400 consumers: "
    return [
        small("(20)", "first-order conditions at spot prices, times alpha", markets, residual),
        small("(20)", "costs recovered against true costs, times alpha", markets, inverse),
        small("Corollary 1", "b_i - b_j + c_hat_j and losers' transfers against (3), (4)", 1,
              apart),
        small("Corollary 1", "costs observed: largest gain", 1, exact.audit().epsilon),
        large("Corollary 1", "winner paid, losers not (all that the section prints), three "
              "sellers: gain", 1, silent, 0.1),
        small("Corollary 1", size + "ratio of rms errors of c_hat (1/8 at the root's rate)",
              2 * replications, many[rms] / few[rms], 0.25),
        small("Corollary 1", size + f"ratio of epsilon given demand, from {few[known]:.3g}",
              2 * replications, many[known] / few[known], 0.25),
        small("Corollary 1", "epsilon of Definition 6 at 102,400 consumers, from "
              f"{few['epsilon [price]']:.3g}", replications, many["epsilon [price]"], 1e-3),
        small("Corollary 1", "epsilon less Lemma 1's bound, and that less (22)",
              2 * replications, max(above, 0.0), EXACT),
    ]  # fmt: skip
