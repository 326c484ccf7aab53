"""Good calls of constructors and verbs, for `experiments.fuzz` to spoil."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import dynmech as dm
from experiments._fuzz_assistant import assistants, pictures
from experiments._fuzz_parts import constructors, parts
from experiments._fuzz_statics import statics

Calls = dict[str, tuple[Callable[..., Any], dict[str, Any]]]


def calls() -> Calls:
    """A name for each call, the function, and arguments that it accepts."""
    return constructors() | verbs() | statics() | assistants()


def verbs() -> Calls:
    """What is done with a market, a policy, a conversation and a mechanism."""
    env, key = dm.RecommendationMDP(**parts()), jax.random.key(0)
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    chat = policy.start(profile=0)
    policy.save("saved.dm")
    env.write("written")
    bought, theta, signals = chat.step("a"), np.array([0.5, 0.6]), np.zeros(3, int)
    return {
        "sample_profiles": (env.sample_profiles, {"key": key, "count": 3}),
        "env.write": (env.write, {"path": "market"}),
        "solve_efficient_policy": (
            lambda **given: dm.solve_efficient_policy(progress=False, **given),
            {
                "env": env,
                "solver": dm.Exact(),
                "tolerance": 0.0,
                "relative": 0.0,
                "memory": 1e9,
                "seconds": 60.0,
                "initial": None,
                "checkpoint": None,
                "mesh": None,
                "throw": False,
            },
        ),
        "start": (policy.start, {"theta": np.array([0, 1]), "signals": signals}),
        "start(profile)": (policy.start, {"profile": 0}),
        "start_many": (policy.start_many, {"profiles": np.array([0, 1])}),
        "recommend": (
            policy.recommend,
            {
                "belief": np.array(env.tastes.weights),
                "memory": chat.memory,
                "theta": theta,
                "period": 1,
            },
        ),
        "explain": (policy.explain, {"conversation": chat, "unit": "money"}),
        "resume": (policy.resume, {"record": chat.record()}),
        "estimate_ex_ante": (policy.estimate_ex_ante, {"key": key, "count": 4, "common": True}),
        "relax": (
            policy.relax,
            {"conversations": 30, "rounds": 2, "beam": 4, "profile": 0, "seed": 3},
        ),
        "baseline": (
            policy.baseline,
            {"name": "myopic", "conversations": 8, "profile": 0, "seed": 2},
        ),
        "policy.compare": (
            policy.compare,
            {"names": ("myopic",), "conversations": 8, "profile": 0, "seed": 2},
        ),
        "policy.save": (policy.save, {"path": "policy.dm"}),
        "step": (chat.step, {"action": "query", "signals": signals, "theta": None, "shown": None}),
        "considered": (chat.considered, {"recommendation": (0, 1)}),
        "worth": (chat.worth, {"recommendation": (0,)}),
        "certify": (chat.certify, {"certificate": dm.Certificate()}),
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
        "settle": (
            mechanism.settle,
            {"conversation": bought, "estimate": 0.4, "totals": None, "costs": None},
        ),
        "simulate": (
            mechanism.simulate,
            {"key": key, "conversations": 3, "strategies": None, "profile": 0, "under": env},
        ),
        "audit": (
            mechanism.audit,
            {
                "settlement": dm.settlement.Estimator(),
                "histories": "on-path",
                "interval": False,
                "under": None,
                "key": key,
                "conversations": 8,
                "nodes": 0,
                "confidence": 0.9,
                "tolerance": 1e-6,
            },
        ),
        "best_response": (
            mechanism.best_response,
            {"settlement": dm.settlement.NoTransfers(), "profiles": np.array([0]), "under": None},
        ),
        "compare": (
            dm.compare,
            {"mechanism": mechanism, "settlements": (dm.settlement.MessageDriven(),)},
        ),
        "payment_moments": (dm.payment_moments, {"mechanism": mechanism}),
        "payment_distribution": (
            dm.payment_distribution,
            {"source": mechanism, "key": key, "conversations": 50, "quantiles": (0.1, 0.5)},
        ),
        "check_assumption_3": (
            dm.check_assumption_3,
            {"market": env, "estimator": None, "tolerance": 1e-9},
        ),
        "purchase_support": (dm.purchase_support, {"market": env}),
        "undominated": (dm.undominated, {"env": env, "beliefs": "reachable"}),
        "report": (
            dm.report,
            {
                "mechanism": mechanism,
                "path": "page.html",
                "audit": None,
                "profile": 0,
                "unit": "money",
                "points": 10,
            },
        ),
        "load": (dm.EfficientPolicy.load, {"path": "saved.dm", "parts": ()}),
        "read_market": (dm.read_market, {"path": "written"}),
    } | logged(key)


def logged(key: jax.Array) -> Calls:
    """What is done with a log."""
    env = dm.RecommendationMDP(
        np.array([[0.4], [-0.2]]),
        dm.TasteGrid([[0.5], [2.0]], [0.5, 0.5]),
        2,
        dm.PerfectRecall(dm.Logit(0.5), dm.ConstantQuery(0.6)),
        dm.SignalStructure(feedback=dm.RatingFeedback(1.0)),
        dm.ConstantValues(np.array([[0.5], [0.6]])),
        names=("a", "b"),
    )
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy)
    log = mechanism.simulate(key, 60).to_log()
    fit = dm.fit(log, env, ["query"], progress=False)
    columns = ("conversation", "round", "shown", "action", "bought", "signal")
    return {
        "from_frame": (
            dm.Log.from_frame,
            {name: name for name in columns}
            | {
                "frame": log.to_frame(),
                "rating": "rating",
                "first": None,
                "reports": None,
                "scale": (0.0, 1.0),
            },
        ),
        "keep": (log.keep, {"which": np.arange(60) < 30}),
        "by_answer": (log.by_answer, {"groups": 5}),
        "fit": (
            lambda **given: dm.fit(progress=False, **given),
            {
                "log": log,
                "market": env,
                "parameters": ["query"],
                "throw": False,
                "cluster": None,
                "bootstrap": 0,
                "key": key,
            },
        ),
        "draws": (fit.draws, {"key": key, "count": 2}),
        "fit.to_frame": (fit.to_frame, {"confidence": 0.95}),
        "sweep": (
            lambda **given: dm.sweep(progress=False, **given),
            {
                "cell": lambda seed, side: {"area": side * side + seed},
                "grid": {"side": [1.0, 2.0]},
                "seeds": 2,
                "folder": None,
                "workers": 1,
                "executor": None,
            },
        ),
    } | pictures(mechanism, log)
