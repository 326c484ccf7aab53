"""Good calls of the static theory: environments, mechanisms, clicks, procurement, prediction."""

from typing import Any

import jax
import numpy as np

import dynmech as dm

static = dm.static


def statics() -> dict[str, Any]:
    """Every public constructor and verb of the static theory but for the shopping assistant's."""
    states = dm.TasteGrid([[0.1], [0.5]], [0.5, 0.5])
    coin, theta = np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([[1.0, 3.0], [2.0, 4.0]])
    signals = static.PrivateSignals.independent([coin, coin])
    given: dict[str, Any] = {
        "payoff": lambda agent, x, omega, own: own * omega[0] * x[agent],
        "allocations": np.eye(2),
        "states": states,
        "theta": theta,
        "signals": signals,
        "priors": None,
        "interdependent": False,
        "names": ("a", "b"),
        "allocation_names": ("a wins", "b wins"),
    }
    single: dict[str, Any] = given | {"theta": theta[:, :1]}
    env = static.StaticEnvironment(**given)
    ideal, clicks = static.IdealData(), static.Estimator.frequency(states, 2)
    mechanism = static.data_driven_vcg(env, clicks, "pivot")
    return (
        {
            "StaticEnvironment": (static.StaticEnvironment, given),
            "payoff_table": (env.payoff_table, {"agent": 1, "points": np.array([[0.2]])}),
            "payoff_by_type": (env.payoff_by_type, {"agent": 1, "points": np.array([[0.2]])}),
            "posterior": (env.posterior, {"agent": 0, "without": 1}),
            "likelihood": (env.likelihood, {"agent": 0, "without": 1}),
            "expected_payoff": (env.expected_payoff, {"agent": 0, "without": 1}),
            "efficient_allocation": (env.efficient_allocation, {"without": 1}),
            "PrivateSignals": (static.PrivateSignals, {"table": signals.table}),
            "PrivateSignals.none": (static.PrivateSignals.none, {"states": 2, "agents": 2}),
            "independent": (static.PrivateSignals.independent, {"channels": [coin, coin]}),
            "from_maps": (
                static.PrivateSignals.from_maps,
                {"maps": [np.array([[0, 1], [1, 0]])] * 2, "weights": np.array([0.5, 0.5])},
            ),
            "Estimator": (static.Estimator, {"points": np.array([[0.0], [1.0]]), "kernel": coin}),
            "Estimator.frequency": (static.Estimator.frequency, {"rates": states, "samples": 2}),
            "Estimator.gaussian": (
                static.Estimator.gaussian,
                {"states": states, "deviation": 0.5, "nodes": 3},
            ),
            "Estimator.posterior_mean": (
                static.Estimator.posterior_mean,
                {"states": states, "channel": coin},
            ),
            "Estimator.average": (static.Estimator.average, {"estimators": [clicks, clicks]}),
            "Estimator.leave_one_out": (
                static.Estimator.leave_one_out,
                {"estimators": [clicks, clicks]},
            ),
            "BayesianData": (static.BayesianData, {"states": states, "channel": coin}),
            "Estimator.law": (clicks.law, {"env": env}),
            "Estimator.credit": (clicks.credit, {"env": env, "agent": 1}),
            "Estimator.bias": (clicks.bias, {"env": env}),
            "IdealData.distance": (ideal.distance, {"env": env}),
            "BayesianData.credit": (
                static.BayesianData(states, coin).credit,
                {"env": env, "agent": 0},
            ),
            "DirectMechanism": (
                static.DirectMechanism,
                {
                    "env": env,
                    "allocation": mechanism.allocation,
                    "transfer": list(mechanism.transfer),
                    "law": list(mechanism.law),
                    "name": "ours",
                },
            ),
            "expected_transfer": (mechanism.expected_transfer, {"agent": 1}),
            "static.audit": (
                mechanism.audit,
                {"theta_prior": np.full((2, 2), 0.5), "structure_prior": [np.ones(1), np.ones(1)]},
            ),
            "data_driven_vcg": (
                static.data_driven_vcg,
                {"env": env, "data": clicks, "groves": "pivot", "name": "ours"},
            ),
            "realised_transfers": (
                static.realised_transfers,
                {"env": env, "profile": (0, 1), "estimate": np.array([0.3]), "pivot": True},
            ),
            "epsilon_bounds": (static.epsilon_bounds, {"env": env, "data": clicks}),
            "message_vcg": (static.message_vcg, {"env": env, "groves": "informed"}),
            "least_message_epsilon": (static.least_message_epsilon, {"env": env}),
            "mezzetti": (static.mezzetti, {"env": env, "second_stage": None}),
            "mezzetti_transfers": (
                static.mezzetti_transfers,
                {"utilities": np.array([1.0, 2.0]), "groves": lambda agent, told: 0.5},
            ),
            "second_stage_spread": (
                static.second_stage_spread,
                {"env": env, "reports": np.array([0.2, 0.6])},
            ),
            "separate": (static.separate, {"beliefs": coin}),
            "check_relevance": (static.check_relevance, {"env": env, "data": ideal}),
            "lottery_mechanism": (static.lottery_mechanism, {"env": env, "data": ideal}),
            "surplus_extraction": (
                static.surplus_extraction,
                {
                    "env": static.StaticEnvironment(**single),
                    "data": ideal,
                },
            ),
        }
        | auctions(coin)
        | procured(states, signals)
        | predicted()
    )


def auctions(coin: np.ndarray) -> dict[str, Any]:
    """Click-through auctions, and what is known of clicks."""
    rates = dm.TasteGrid([[0.2, 0.1], [0.4, 0.3]], [0.5, 0.5])
    theta = np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 3.0]])
    signals = static.PrivateSignals.independent([coin, coin, coin])
    slots = static.ClickAuction(rates, theta, 10, signals)
    pivot = static.click_pivot(slots)
    own = static.AgentClickAuction(rates, theta[:2], 3)
    clicks = static.click_frequency(rates, 1)
    told = static.click_pivot(slots, clicks)
    paid = static.transfer_range(slots, 0, (0, 0, 0)).pivot
    given: dict[str, Any] = {
        "rates": rates,
        "theta": theta,
        "impressions": 10,
        "signals": signals,
        "names": None,
    }
    shown: dict[str, Any] = {
        "rates": rates,
        "theta": theta[:2],
        "impressions": 3,
        "signals": None,
        "names": None,
    }
    return {
        "ClickAuction": (static.ClickAuction, given),
        "ClickAuction.expected_rates": (slots.expected_rates, {"without": 1}),
        "AgentClickAuction": (static.AgentClickAuction, shown | {"efficient_chance": 0.9}),
        "AgentClickAuction.expected_rates": (own.expected_rates, {"without": 1}),
        "lottery": (own.lottery, {"efficient_chance": 0.5}),
        "click_prices": (
            static.click_prices,
            {"theta": np.array([10.0, 4.0, 2.0]), "slots": 2, "rule": "pivot"},
        ),
        "click_pivot": (static.click_pivot, {"auction": slots, "data": clicks}),
        "generalised_second_price": (
            static.generalised_second_price,
            {"auction": slots, "data": clicks},
        ),
        "per_impression_pivot": (
            static.per_impression_pivot,
            {"auction": slots, "information": "prior"},
        ),
        "per_click_second_price": (static.per_click_second_price, {"auction": own}),
        "click_lottery": (
            static.click_lottery,
            {"auction": own, "efficient_chance": 0.9, "rule": "pivot"},
        ),
        "realised_slack": (
            static.realised_slack,
            {"auction": slots, "mechanism": told, "clicks": clicks},
        ),
        "transfer_range": (
            static.transfer_range,
            {"auction": slots, "agent": 0, "others": (0, 0, 0), "informed": True},
        ),
        "replace_transfers": (
            static.replace_transfers,
            {"auction": slots, "agent": 0, "others": (0, 0, 0), "transfers": paid},
        ),
        "click_frequency": (static.click_frequency, {"rates": rates, "impressions": 2}),
        "inverse_propensity": (
            static.inverse_propensity,
            {"rates": rates, "allocations": np.full((2, 2), 0.5), "impressions": 1},
        ),
        "sampled_clicks": (
            static.sampled_clicks,
            {"rates": rates, "coordinates": (0, 1), "impressions": 2, "cuts": (1,)},
        ),
        "ClickAuction.audit": (pivot.audit, {"theta_prior": np.full((3, 2), 0.5)}),
    }


def procured(states: dm.TasteGrid, signals: static.PrivateSignals) -> dict[str, Any]:
    """Procurement, logit demand and the spot market."""
    given: dict[str, Any] = {
        "cost": lambda seller, theta, omega: theta + omega[0],
        "benefits": np.array([10.0, 9.0]),
        "states": states,
        "theta": np.array([[3.0, 5.0], [3.0, 4.0]]),
        "signals": signals,
        "names": ("a", "b"),
    }
    auction = static.Procurement(**given)
    demand, prices = static.LogitDemand(0.5, [2.0, 1.0]), np.array([4.0, 2.0])
    many = np.array([[4.0, 2.0], [3.0, 3.0], [2.0, 5.0]])
    shares = demand.shares(many)
    return {
        "Procurement": (static.Procurement, given),
        "Procurement.transfers": (
            auction.transfers,
            {"profile": (0, 1), "cost_estimates": np.array([4.1, 4.2])},
        ),
        "Procurement.epsilon_bounds": (auction.epsilon_bounds, {"errors": np.zeros((2, 2))}),
        "LogitDemand": (
            static.LogitDemand,
            {"alpha": 0.5, "quality": np.array([2.0, 1.0]), "outside": True},
        ),
        "LogitDemand.from_shares": (
            static.LogitDemand.from_shares,
            {"shares": shares[0], "prices": prices, "alpha": 0.5, "outside": True},
        ),
        "shares": (demand.shares, {"prices": prices}),
        "estimate_logit": (
            static.estimate_logit,
            {
                "prices": many,
                "choices": np.column_stack([1000 * shares, 1000 * (1 - shares.sum(axis=1))]),
                "characteristics": None,
                "outside": True,
            },
        ),
        "recover_costs": (
            static.recover_costs,
            {"prices": prices, "demand": demand, "shares": shares[0]},
        ),
        "spot_equilibrium": (static.spot_equilibrium, {"demand": demand, "costs": prices}),
    }


def predicted() -> dict[str, Any]:
    """Joint prediction."""
    game, seen = static.JointPrediction([0.0, 1.0], [1.0, 1.0]), np.array([0.3, 0.6])
    return {
        "JointPrediction": (
            static.JointPrediction,
            {"theta": np.ones(2), "noise": np.ones(2), "prior_variance": 1.0},
        ),
        "posterior_precision": (game.posterior_precision, {"without": 0}),
        "posterior_mean": (game.posterior_mean, {"signals": seen, "without": 0}),
        "allocation": (game.allocation, {"signals": seen, "without": 0}),
        "pivot_transfers": (game.pivot_transfers, {"signals": seen, "estimate": 0.4}),
        "expected_pivot_transfers": (game.expected_pivot_transfers, {"signals": seen}),
        "loss_from_lying": (game.loss_from_lying, {"signals": seen, "allocation": 0.4}),
        "bias_epsilon": (game.bias_epsilon, {"bias": 0.1}),
        "message_lie": (game.message_lie, {"agent": 1, "signals": seen}),
        "JointPrediction.simulate": (
            game.simulate,
            {"key": jax.random.key(0), "draws": 20, "deviation": 0.1},
        ),
        "expected_maximum": (
            static.expected_maximum,
            {"mean": np.zeros(2), "covariance": np.eye(2)},
        ),
    }
