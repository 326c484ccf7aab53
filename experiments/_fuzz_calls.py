"""Good calls of the public constructors and verbs, for `experiments.fuzz` to spoil."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import dynmech as dm

Calls = dict[str, tuple[Callable, dict[str, Any]]]


def calls() -> Calls:
    """A name for each call, the function, and arguments that it accepts."""
    return constructors() | verbs() | statics()


def constructors() -> Calls:
    """The parts of a market, solvers and Groves terms."""
    half, points = np.array([0.5, 0.5]), np.array([[0.5, 1.0], [1.0, 0.2]])
    support = np.array([[0.5, 0.6], [0.6, 0.7]])
    rows, cov = np.array([[0.5, 0.5], [0.2, 0.8]]), np.eye(2)
    return {
        "TasteGrid": (dm.TasteGrid, {"points": points, "weights": half}),
        "from_normal": (dm.TasteGrid.from_normal, {"mean": half, "cov": cov, "size": 8, "seed": 0}),
        "from_lognormal": (
            dm.TasteGrid.from_lognormal,
            {"mean": half, "cov": cov, "size": 8, "signs": np.ones(2), "normal_coordinates": [0]},
        ),
        "from_samples": (
            dm.TasteGrid.from_samples,
            {"samples": points, "weights": half, "size": 2},
        ),
        "ConstantValues": (
            dm.ConstantValues,
            {"support": support, "prior": rows, "interval": np.array([0.0, 1.0])},
        ),
        "MarkovValues": (
            dm.MarkovValues,
            {"support": support, "prior": rows, "kernel": np.stack([rows, rows])},
        ),
        "Logit": (dm.Logit, {"scale": 0.5}),
        "ConstantQuery": (dm.ConstantQuery, {"level": 0.5}),
        "ProductQuery": (dm.ProductQuery, {"level": half, "none": 0.5}),
        "FallingQuery": (
            dm.FallingQuery,
            {"level": 1.0, "location": 0.0, "slope": 1.0, "low": 0.1, "high": 0.9, "nothing": 1.0},
        ),
        "PerfectRecall": (dm.PerfectRecall, {"choice": dm.Threshold(), "query": 0.5}),
        "ImperfectRecall": (
            dm.ImperfectRecall,
            {"choice": dm.Logit(1.0), "query": 0.5, "decay": 0.5},
        ),
        "LastShownOnly": (
            dm.LastShownOnly,
            {"choice": dm.Logit(1.0), "query": 0.5, "stays": False},
        ),
        "Tabulated": (dm.Tabulated, {"action": np.full((3, 4, 2), 0.25)}),
        "GaussianSignals": (
            dm.GaussianSignals,
            {"platform": 1.0, "advertisers": half, "symbols": 3, "correlation": 0.1, "nodes": 8},
        ),
        "RatingFeedback": (
            dm.RatingFeedback,
            {
                "noise": 1.0,
                "symbols": 3,
                "advertisers": 1.0,
                "correlation": 0.0,
                "by_product": False,
            },
        ),
        "JointSignals": (dm.JointSignals, {"table": np.full((2, 2, 1, 1), 0.5)}),
        "ChannelFeedback": (dm.ChannelFeedback, {"table": np.full((3, 2, 2, 1, 1), 0.5)}),
        "RatingSettlement": (
            dm.RatingSettlement,
            {"deviation": 1.0, "limits": (-2.0, 2.0), "outside": "cap"},
        ),
        "MissingRatings": (
            dm.MissingRatings,
            {"rating": dm.RatingSettlement(), "chance": 0.4, "given": "constant"},
        ),
        "RatingLaw": (dm.RatingLaw, {"intercept": 0.0, "slope": 1.0, "low": 0.1}),
        "InversePropensity": (
            dm.InversePropensity,
            {"chance": 0.4, "augment": True, "cap": 3.0},
        ),
        "TabulatedSettlement": (dm.TabulatedSettlement, {"utility": np.ones((3, 2, 2))}),
        "SignalStructure": (
            dm.SignalStructure,
            {
                "initial": dm.GaussianSignals(1.0),
                "feedback": dm.RatingFeedback(1.0),
                "settlement": dm.RatingSettlement(),
            },
        ),
        "PrivateStructures": (
            dm.PrivateStructures,
            {"structures": [dm.NoSignals(), dm.NoSignals()], "prior": half, "labels": ["a", "b"]},
        ),
        "Profiles": (
            dm.Profiles,
            {"theta": np.zeros((1, 2), int), "signals": np.zeros((1, 3), int)},
        ),
        "Displays": (dm.Displays, {"size": 2, "ordered": False, "of": [(0,), (0, 1)]}),
        "RecommendationMDP": (dm.RecommendationMDP, parts()),
        "Exact": (dm.Exact, {"memory": 1e9, "merge": True}),
        "BranchAndBound": (
            dm.BranchAndBound,
            {"memory": 1e9, "seconds": 9.0, "merge_within": 0.0},
        ),
        "PointBased": (dm.PointBased, {"memory": 1e9, "beliefs": 8, "everywhere": False}),
        "Stationary": (dm.Stationary, {"memory": 1e9, "merge": True}),
        "Neural": (dm.Neural, {"sweeps": 2, "learning_rate": 1e-3, "explore": 0.1, "seed": 0}),
        "Certificate": (dm.Certificate, {"runs": 64, "confidence": 0.9, "rounds": 2, "work": 1e6}),
    }


def parts() -> dict[str, Any]:
    """The parts of a small market."""
    return {
        "gamma": np.array([[0.4], [-0.2]]),
        "tastes": dm.TasteGrid([[0.5], [1.0], [2.0]], [0.25, 0.25, 0.5]),
        "horizon": 2,
        "action_rule": dm.LastShownOnly(dm.Logit(0.5), dm.ConstantQuery(0.6)),
        "signals": dm.SignalStructure(),
        "values": dm.ConstantValues(np.array([[0.5, 0.6], [0.6, 0.7]])),
        "names": ("a", "b"),
        "displays": dm.Displays(2),
        "round_cost": 0.05,
        "exit_value": np.array([0.0, 0.1, 0.2]),
    }


def verbs() -> Calls:
    """What is done with a market, a policy, a conversation and a mechanism."""
    env, key = dm.RecommendationMDP(**parts()), jax.random.key(0)
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    chat = policy.start(profile=0)
    bought, theta = chat.step("a"), np.array([0.5, 0.6])
    return {
        "sample_profiles": (env.sample_profiles, {"key": key, "count": 3}),
        "solve_efficient_policy": (
            lambda **given: dm.solve_efficient_policy(progress=False, **given),
            {"env": env, "solver": dm.Exact(), "tolerance": 0.0, "initial": None},
        ),
        "start": (policy.start, {"theta": np.array([0, 1]), "signals": np.zeros(3, int)}),
        "start(profile)": (policy.start, {"profile": 0}),
        "step": (chat.step, {"action": "query", "signals": np.zeros(3, int)}),
        "revalue": (
            policy.revalue,
            {"theta_support": env.values.support, "gamma": env.gamma, "prior": env.tastes.weights},
        ),
        "DynamicTeamMechanism": (
            dm.DynamicTeamMechanism,
            {
                "policy": policy,
                "groves": dm.groves.Zero(),
                "estimator": dm.RatingSettlement(),
                "reports": "incremental",
                "installments": (0.5, 0.5),
            },
        ),
        "payment": (mechanism.payment, {"theta": theta, "action": 1, "estimate": 0.4}),
        "settle": (mechanism.settle, {"conversation": bought, "estimate": 0.4}),
        "simulate": (
            mechanism.simulate,
            {"key": key, "conversations": 3, "strategies": None, "profile": 0},
        ),
        "audit": (
            mechanism.audit,
            {"settlement": dm.settlement.Estimator(), "histories": "on-path", "interval": False},
        ),
        "best_response": (mechanism.best_response, {"profiles": np.array([0])}),
    }


def statics() -> Calls:
    """A few of the static theory."""
    static, eye = dm.static, np.eye(2)
    env = static.ShoppingAssistant(np.array([1.0, 0.5]), eye, np.ones(2), 1.0, np.ones((3, 2)), 2)
    return {
        "ShoppingAssistant": (
            static.ShoppingAssistant,
            {
                "prior_mean": np.array([1.0, 0.5]),
                "prior_covariance": eye,
                "signal_noise": np.ones(2),
                "context_noise": 1.0,
                "feedback": np.ones((3, 2)),
                "rounds": 2,
            },
        ),
        "assistant.profile": (
            env.profile,
            {"theta": np.array([0.3, 0.4]), "signals": np.zeros((2, 2)), "context": np.zeros(2)},
        ),
        "JointPrediction": (
            static.JointPrediction,
            {"theta": np.ones(2), "noise": np.ones(2), "prior_variance": 1.0},
        ),
        "Estimator": (
            static.Estimator,
            {"points": np.array([[0.0], [1.0]]), "kernel": np.full((2, 2), 0.5)},
        ),
    }
