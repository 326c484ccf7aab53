"""Good calls of the static theory."""

from typing import Any

import numpy as np

import dynmech as dm


def statics() -> dict[str, Any]:
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
