"""Good calls of the constructors of a market's parts, solvers, Groves terms and settlements."""

from typing import Any

import numpy as np

import dynmech as dm
from dynmech import groves, settlement


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


def constructors() -> dict[str, Any]:
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
        "AveragedSettlement": (dm.AveragedSettlement, {"deviation": half, "count": 3}),
        "StoppedAverageSettlement": (
            dm.StoppedAverageSettlement,
            {"deviation": 1.3, "threshold": 0.1},
        ),
        "QuantisedRatingSettlement": (
            dm.QuantisedRatingSettlement,
            {"deviation": half, "cuts": np.array([-0.5, 0.0, 1.0])},
        ),
        "PosteriorMeanSettlement": (
            dm.PosteriorMeanSettlement,
            {"deviation": half, "prior": half},
        ),
        "ChannelSettlement": (
            dm.ChannelSettlement,
            {"channel": rows, "decoder": points, "missing": False},
        ),
        "decode_tastes": (
            dm.decode_tastes,
            {
                "channel": rows,
                "tastes": points,
                "prior": half,
                "fallback": "minimax",
                "slack": 1e-3,
                "allow": 0.0,
            },
        ),
        "decode_utilities": (
            dm.decode_utilities,
            {"channel": rows, "utilities": points, "support": None, "prior": half},
        ),
        "from_mixed_logit": (
            dm.TasteGrid.from_mixed_logit,
            {
                "mean": half,
                "cov": cov,
                "kinds": ("normal", "lognormal"),
                "size": 8,
                "signs": np.ones(2),
                "seed": 0,
            },
        ),
        "PrivateFeedback": (
            dm.PrivateFeedback,
            {"structures": [dm.NoFeedback(), dm.NoFeedback()], "prior": half, "labels": None},
        ),
        "TabulatedFeedback": (dm.TabulatedFeedback, {"table": np.full((12, 2, 2, 1, 1), 0.5)}),
        "Trembling": (
            dm.Trembling,
            {"rule": dm.LastShownOnly(dm.Logit(1.0), 0.5), "chance": 0.01},
        ),
        "BestFirst": (dm.BestFirst, {"memory": 1e9, "seconds": 9.0}),
        "Bounded": (
            dm.Bounded,
            {"value": half, "lower": half - 1, "upper": half + 1, "error": 0.1, "confidence": 0.9},
        ),
        "DataDriven": (groves.DataDriven, {"objective": "slack", "functions": points}),
        "ExAnte": (groves.ExAnte, {"sampled": False}),
        "NoSubsidy": (groves.NoSubsidy, {"displayable": False}),
        "Participation": (groves.Participation, {"displayable": True}),
        "RobustWindow": (
            groves.RobustWindow,
            {"markets": [dm.RecommendationMDP(**parts())], "charge": "floor"},
        ),
        "ChargeOnReach": (
            settlement.ChargeOnReach,
            {"amount": half, "period": 2, "base": settlement.Estimator()},
        ),
        "GivenPolicy": (
            dm.GivenPolicy,
            {
                "env": dm.RecommendationMDP(**parts()),
                "recommend": lambda belief, memory, theta, period: 0,
                "memory": None,
                "batched": False,
                "name": "first",
                "initial": None,
            },
        ),
        "from_tables": (dm.RecommendationMDP.from_tables, tables()),
    }


def tables() -> dict[str, Any]:
    """A market of two products, two tastes, one round, by its tables."""
    return {
        "gamma": np.array([[0.4], [-0.2]]),
        "omega": np.array([[0.5], [2.0]]),
        "prior": np.array([0.5, 0.5]),
        "horizon": 1,
        "action": np.full((3, 4, 2), 0.25),
        "feedback": np.ones((3, 2, 1, 1, 1)),
        "initial_signals": np.ones((2, 1, 1, 1)),
        "theta_support": np.array([[0.5, 0.6], [0.6, 0.7]]),
        "theta_prior": np.array([[0.5, 0.5], [0.2, 0.8]]),
        "theta_kernel": np.broadcast_to(np.eye(2), (3, 2, 2, 2)),
        "names": ("a", "b"),
        "round_cost": 0.05,
        "exit_value": np.array([0.0, 0.1]),
    }
