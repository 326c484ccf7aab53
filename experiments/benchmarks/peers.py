"""What other tools need for the same job: run beside ours, in the same process.

mechaudit audits finite static mechanisms; it is given the very table of expected payments that our
one-round mechanism makes. The NumPy recursion is what one writes without this package: beliefs over
counts of (product, symbol), merged, vectorised over the nodes of a round.
"""

import importlib
import itertools
import time

import numpy as np

import dynmech as dm
from experiments.benchmarks.instances import OnScreen


def audit_with_mechaudit(mechanism: dm.DynamicTeamMechanism) -> tuple[float, int, float]:
    """Audit a one-round market without signals for dominant-strategy truth.

    **Returns:** seconds of the audit alone, misreports compared, largest gain found.
    """
    mechaudit = importlib.import_module("mechaudit")
    policy = mechanism.policy
    env, n = policy.env, policy.env.products
    support, utilities = env.values.support, env.utilities
    size = support.shape[1]
    weights = np.asarray(env.tastes.weights)
    bought = np.zeros((n + 1, n))
    worth = np.zeros((n + 1, n))
    for shown in range(n + 1):
        memory = env.action_rule.step(env.action_rule.start(n, 1), shown, n)
        law = np.asarray(env.action_rule.probabilities(memory, shown, utilities))[:n]
        bought[shown], worth[shown] = law @ weights, (law * utilities) @ weights
    reports = np.array(list(itertools.product(range(size), repeat=n)))
    shown = np.asarray(policy.plan.actions[0][policy.pairs.base, 0])
    allocation = np.eye(n + 1)[shown]
    surplus = support[np.arange(n), reports] * bought[shown] + worth[shown]
    own = surplus.sum(axis=1, keepdims=True) - support[np.arange(n), reports] * bought[shown]
    payments = -own  # the core transfer: minus everyone's surplus but her own value
    value = {
        (f"a{i}", str(k), str(r)): float(support[i, k] * bought[r, i])
        for i in range(n) for k in range(size) for r in range(n + 1)
    }  # fmt: skip
    market = mechaudit.FiniteEnvironment(
        agents={f"a{i}": [str(k) for k in range(size)] for i in range(n)},
        outcomes=[str(r) for r in range(n + 1)],
        values=mechaudit.PrivateValues(lambda i, mine, shown: value[str(i), str(mine), str(shown)]),
    )
    table = mechaudit.DirectMechanism.from_arrays(allocation, payments, environment=market)
    start = time.perf_counter()
    report = market.audit(table, (mechaudit.DSIC(),))
    seconds = time.perf_counter() - start
    told = [check for check in report.checks if "dsic" in check.family.lower()]
    slack = [check.slack for check in told if check.slack is not None]
    return seconds, len(slack), max(0.0, -min(slack))


def numpy_recursion(env: dm.RecommendationMDP) -> tuple[float, float]:
    """Solve W alone by a NumPy recursion over merged counts, for rules that remember nothing.

    **Returns:** seconds and W_1 at the prior.
    """
    rule, horizon, n = env.action_rule, int(env.horizon), env.products
    feedback = env.signals.feedback
    assert isinstance(rule, OnScreen)
    assert isinstance(feedback, dm.ChannelFeedback)
    law = np.asarray(feedback.table).reshape(n + 1, env.tastes.size, -1)[:n]
    buy, leave = np.asarray(rule.buy), np.asarray(rule.leave)
    start = time.perf_counter()
    reward = buy * (env.values.support + env.utilities)
    column = ((1.0 - buy - leave)[:, None] * law.transpose(0, 2, 1)).reshape(-1, env.tastes.size)
    belief = np.asarray(env.tastes.weights)[None]
    bags, rounds = np.zeros((1, len(column)), np.int8), []
    weight = np.random.default_rng(0).integers(1, 2**62, len(column))
    for t in range(horizon):
        child = None
        immediate = belief @ reward.T
        if t < horizon - 1:
            keys = ((bags @ weight)[:, None] + weight).ravel()
            _, first, index = np.unique(keys, return_index=True, return_inverse=True)
            child = index.reshape(len(bags), n, -1)
            node, picked = np.divmod(first, len(column))
            belief = belief[node] * column[picked]
            bags = bags[node]
            bags[np.arange(len(bags)), picked] += 1
        rounds.append((immediate, child))
    value = np.zeros(1)
    for immediate, child in reversed(rounds):
        total = immediate if child is None else immediate + value[child].sum(axis=2)
        value = np.maximum(total.max(axis=1), 0.0)
    return time.perf_counter() - start, float(value[0])
