"""What other tools need for the same job: run beside ours, in the same process.

mechaudit audits finite static mechanisms; it is given the very table of expected payments that our
one-round mechanism makes. The NumPy recursion is what one writes without this package: beliefs over
counts of (product, symbol), merged, vectorised over the nodes of a round. QuantEcon solves explicit
finite MDPs; it is given the same nodes as states.
"""

import importlib
import itertools
import time
import warnings

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
    start = time.perf_counter()
    value = np.zeros(1)
    for immediate, child, _ in reversed(_rounds(env)):
        total = immediate if child is None else immediate + value[child].sum(axis=2)
        value = np.maximum(total.max(axis=1), 0.0)
    return time.perf_counter() - start, float(value[0])


def quantecon_recursion(env: dm.RecommendationMDP) -> tuple[float, float, float]:
    """Solve W alone as an explicit finite MDP by QuantEcon's backward induction.

    States are the nodes of all rounds (time must be put into the state) and an end; what it is
    given are sparse transition probabilities, which need the beliefs.

    **Returns:** seconds of building the flat arrays, of solving, and W_1 at the prior.
    """
    sparse = importlib.import_module("scipy.sparse")
    markov = importlib.import_module("quantecon.markov")
    rounds = _rounds(env)
    start = time.perf_counter()
    first = np.cumsum([0, *(len(mass) for _, _, mass in rounds)])
    end, pairs = int(first[-1]), []
    for t, (immediate, child, mass) in enumerate(rounds):
        nodes, controls = immediate.shape
        state = np.repeat(np.arange(nodes), controls) + first[t]
        reward = (immediate / mass[:, None]).ravel()
        place = np.full((len(state), 1), end)
        chance = np.ones((len(state), 1))
        if child is not None:
            place = np.append(child.reshape(len(state), -1) + first[t + 1], place, axis=1)
            later = rounds[t + 1][2][child] / mass[:, None, None]
            later = later.reshape(len(state), -1)
            chance = np.append(later, 1 - later.sum(axis=1, keepdims=True), axis=1)
        control = np.tile(np.arange(controls), nodes)
        pairs.append((state, control, reward, place, chance))
    one = np.array([[end]]), np.ones((1, 1))
    pairs.append((np.array([end]), np.zeros(1, int), np.zeros(1), *one))
    state, control, reward = (np.concatenate([part[k] for part in pairs]) for k in range(3))
    count = np.concatenate([np.full(len(part[0]), part[3].shape[1]) for part in pairs])
    rows = np.repeat(np.arange(len(state)), count)
    columns, chance = (np.concatenate([part[k].ravel() for part in pairs]) for k in (3, 4))
    law = sparse.csr_matrix((chance, (rows, columns)), shape=(len(state), end + 1))
    with warnings.catch_warnings():  # no discount: it warns that only finite horizons are left
        warnings.simplefilter("ignore")
        problem = markov.DiscreteDP(reward, law, 1.0, state, control)
    built = time.perf_counter() - start
    markov.backward_induction(problem, 1)  # compiles
    start = time.perf_counter()
    values, _ = markov.backward_induction(problem, int(env.horizon))
    return built, time.perf_counter() - start, max(float(values[0][0]), 0.0)


def _rounds(env: dm.RecommendationMDP) -> list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
    """Yields at once, children and masses of the nodes of every round, for `OnScreen`."""
    rule, horizon, n = env.action_rule, int(env.horizon), env.products
    feedback = env.signals.feedback
    assert isinstance(rule, OnScreen)
    assert isinstance(feedback, dm.ChannelFeedback)
    law = np.asarray(feedback.table).reshape(n + 1, env.tastes.size, -1)[:n]
    buy, leave = np.asarray(rule.buy), np.asarray(rule.leave)
    reward = buy * (env.values.support + env.utilities)
    column = ((1.0 - buy - leave)[:, None] * law.transpose(0, 2, 1)).reshape(-1, env.tastes.size)
    belief = np.asarray(env.tastes.weights)[None]
    bags, rounds = np.zeros((1, len(column)), np.int8), []
    weight = np.random.default_rng(0).integers(1, 2**62, len(column))
    for t in range(horizon):
        child, immediate, mass = None, belief @ reward.T, belief.sum(axis=1)
        if t < horizon - 1:
            keys = ((bags @ weight)[:, None] + weight).ravel()
            _, first, index = np.unique(keys, return_index=True, return_inverse=True)
            child = index.reshape(len(bags), n, -1)
            node, picked = np.divmod(first, len(column))
            belief = belief[node] * column[picked]
            bags = bags[node]
            bags[np.arange(len(bags)), picked] += 1
        rounds.append((immediate, child, mass))
    return rounds
