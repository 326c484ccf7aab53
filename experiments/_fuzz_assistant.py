"""Good calls of the shopping assistant of the static theory, and of pictures."""

from typing import Any

import jax
import numpy as np

import dynmech as dm

static = dm.static


def assistants() -> dict[str, Any]:
    """Every public constructor and verb of the Gaussian shopping assistant."""
    eye, shown = np.eye(2), np.array([[4.0, 0.1], [0.1, 4.0], [0.1, 0.1]])
    given: dict[str, Any] = {
        "prior_mean": np.array([1.0, 0.5]),
        "prior_covariance": eye,
        "signal_noise": np.ones(2),
        "context_noise": 1.0,
        "feedback": shown,
        "rounds": 2,
        "names": ("a", "b"),
    }
    env = static.ShoppingAssistant(**given)
    reports: dict[str, Any] = {
        "theta": np.array([0.3, 0.4]),
        "signals": np.zeros((2, 2)),
        "context": np.zeros(2),
        "signal_noise": np.stack([eye, eye]),
    }
    profile = env.profile(**reports)
    past = env.history((0,), [[0.2, 0.1]])
    types = [static.AssistantTypes([0.3, 0.4], np.zeros((1, 2)), eye) for _ in range(2)]
    mechanism = static.AssistantMechanism(env, types, nodes=6)
    one: dict[str, Any] = given | {"rounds": 1}
    short = static.ShoppingAssistant(**one)
    return {
        "ShoppingAssistant": (static.ShoppingAssistant, given),
        "assistant.profile": (env.profile, reports),
        "assistant.precision": (env.precision, {"recommendations": (0, -1)}),
        "assistant.history": (
            env.history,
            {"recommendations": (0,), "feedback": np.array([[0.2, 0.1]])},
        ),
        "assistant.belief": (env.belief, {"profile": profile, "history": past}),
        "AssistantProfile": (static.AssistantProfile, reports),
        "AssistantProfile.replace": (
            profile.replace,
            {"agent": 0, "theta": 0.2, "signal": np.ones(2), "noise": eye},
        ),
        "AssistantHistory": (
            static.AssistantHistory,
            {"recommendations": (0,), "feedback": np.array([[0.2, 0.1]])},
        ),
        "AssistantTypes": (
            static.AssistantTypes,
            {"theta": np.array([0.3, 0.4]), "signals": np.zeros((1, 2)), "noise": eye},
        ),
        "AssistantTypes.box": (
            static.AssistantTypes.box,
            {"env": env, "agent": 0, "theta": np.array([0.3]), "radius": 1.0, "points": 3},
        ),
        "solve_assistant": (
            static.solve_assistant,
            {"env": env, "profile": profile, "history": past, "nodes": 6, "rule": "cells"},
        ),
        "bound_assistant": (
            static.bound_assistant,
            {"env": env, "profile": profile, "lookahead": 1, "history": past, "nodes": 6},
        ),
        "assistant_ex_ante": (
            static.assistant_ex_ante,
            {"env": short, "theta": np.array([0.3, 0.4]), "nodes": 6, "rule": "cells"},
        ),
        "simulate_assistant": (
            static.simulate_assistant,
            {
                "env": env,
                "truth": profile,
                "reported": profile,
                "key": jax.random.key(0),
                "draws": 4,
                "omega": np.zeros(2),
                "nodes": 6,
            },
        ),
        "AssistantMechanism": (
            static.AssistantMechanism,
            {
                "env": env,
                "types": types,
                "groves": dm.groves.Participation(displayable=True),
                "nodes": 6,
            },
        ),
        "groves_total": (mechanism.groves_total, {"profile": profile}),
        "AssistantMechanism.payment": (
            mechanism.payment,
            {"profile": profile, "recommendation": 0, "estimate": np.array([0.4, 0.2])},
        ),
        "AssistantMechanism.audit": (mechanism.audit, {"profile": profile, "history": past}),
        "misreport_gain": (
            mechanism.misreport_gain,
            {
                "profile": profile,
                "agent": 0,
                "theta": 0.2,
                "signal": np.ones(2),
                "noise": eye,
                "history": past,
            },
        ),
        "least_message_gain": (
            static.least_message_gain,
            {"env": short, "types": types[0], "profile": profile, "agent": 0},
        ),
    }


def pictures(mechanism: dm.DynamicTeamMechanism, log: dm.Log) -> dict[str, Any]:
    """Every function of `dynmech.plotting`."""
    draw, policy = dm.plotting, mechanism.policy
    root, titled = draw.policy_tree(policy), {"unit": "money", "title": "here"}
    return {
        "plot_conversation": (
            draw.plot_conversation,
            {"conversation": policy.start(profile=0).step("query", 0)} | titled,
        ),
        "plot_log": (draw.plot_log, {"log": log, "title": "here"}),
        "plot_payments": (draw.plot_payments, {"mechanisms": {"ours": mechanism}} | titled),
        "plot_incentives": (
            draw.plot_incentives,
            {"audits": {"ours": mechanism.audit()}} | titled,
        ),
        "plot_policy_tree": (
            draw.plot_policy_tree,
            {"policy": policy, "profile": 0, "least": 0.01, "title": "here"},
        ),
        "policy_tree": (draw.policy_tree, {"policy": policy, "profile": 0, "merge": True}),
        "branch_table": (draw.branch_table, {"policy": policy, "root": root, "unit": "money"}),
        "Branch.prune": (root.prune, {"least": 0.1}),
    }
