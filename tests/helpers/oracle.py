"""Brute-force oracle: the whole mechanism of a small market, in plain NumPy.

Object: the finite tree of *ordered* recommendation histories times *all* paths of reported
signals times all value profiles; nothing is merged, nothing is pruned, no probability is divided
by before the end. A node is (history h, signal path s_1..s_t, values theta_t); its mechanism
belief is the unnormalised weight vector

    b(omega) = prior L(s_1) prod_{tau < t} y_q(h_tau) L(s_{tau+1} | h_tau).

Operator: W_t = max_r sum_omega b sum_j (theta_j + u_j) y_j + sum_z E_theta'[W_{t+1}] (model page,
section 3), with its tie rule, and none at zero belief. Per recommendation r and settlement we keep
the *taste-wise* payoff of an advertiser who now has the true values theta, sees r played and
reports truthfully afterwards,

    pay_r(omega) = sum_j (theta_j + q_j) y_j + sum_z y_q L(z) E[pay_{r'}(omega) | theta, r],

q_j being what the settlement charges for u_j. Up to the Groves term it is the same for every
advertiser, so any deviation is the inner product of a true belief with a pay_r of another node.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import product
from types import SimpleNamespace

import numpy as np

ESTIMATOR, MESSAGE = 0, 1
TIE = 1e-12
ARGUMENTS = (
    "gamma", "omega", "prior", "action", "feedback", "initial_signals",
    "theta_support", "theta_prior", "theta_kernel",
)  # fmt: skip


@dataclass(frozen=True)
class Node:
    """All nodes of one history: a = signal paths (last period's symbols fastest), t = values."""

    belief: np.ndarray  # (a, m) unnormalised
    choice: np.ndarray  # (a, t) recommendation, n for none
    value: np.ndarray  # (a, t) W, not divided by the mass of the belief
    earned: np.ndarray  # (a, t, n) expected theta earned by each product under truth
    utility: np.ndarray  # (a, t, n) expected user utility from each product under truth
    pay: np.ndarray  # (r, settlement, a, t, m) taste-wise payoff if r is recommended now
    symbols: tuple  # (Zp, Z1, ..., Zn) of the period's signals

    def truthful(self):
        """Taste-wise payoff under the plan, (settlement, a, t, m)."""
        return np.take_along_axis(self.pay, self.choice[None, None, :, :, None], 0)[0]


def unpack(case):
    """The arguments of `from_tables` with what the walk needs beside them."""
    g = SimpleNamespace(**{k: np.asarray(case[k], float) for k in ARGUMENTS})
    g.horizon, (g.n, g.K), g.m = int(case["horizon"]), g.theta_support.shape, len(g.prior)
    g.utility = g.gamma @ g.omega.T  # (n, m)
    g.histories = [h for T in range(g.horizon) for h in product(range(g.n + 1), repeat=T + 1)]
    g.row = {h: row for row, h in enumerate(g.histories)}
    estimator = case.get("estimator")  # its default is omega itself
    if estimator is None:
        estimator = np.broadcast_to(g.omega, (len(g.histories), g.n, *g.omega.shape))
    g.settled = np.einsum("jk,hjmk->hjm", g.gamma, estimator)  # E[<gamma_j, w> | omega, h, j]
    g.thetas = np.array(list(product(*g.theta_support)))  # (t, n), last advertiser fastest
    g.kernel = np.array([reduce(np.kron, kernel) for kernel in g.theta_kernel])  # (r, t, t')
    g.weight = reduce(np.multiply.outer, g.theta_prior).ravel()  # (t,)
    g.scale = np.abs(g.theta_support[:, :, None] + g.utility[:, None, :]).max()
    return g


def money_scale(case):
    """Largest |theta + u| of a case: tolerances are stated in it."""
    return unpack(case).scale


def apart(x, law):
    """The period's own signal split off the signal path: (a z, ...) -> (a, z, ...)."""
    return x.reshape(-1, len(law), *x.shape[1:])


def walk(g, history, belief, symbols, shown, counted, nodes):
    """Solve the subtree of `history`; record every node met; return the history's own.

    **Arguments**: `belief` (a, m); `shown`, the recommendations allowed; `counted` (n,), 1 for a
    product whose payoff and utility enter surplus. **Returns**: a `Node`.
    """
    options = []
    for r in range(g.n + 1):
        h = (*history, r)
        y = g.action[g.row[h]]
        mass, user = belief @ y[: g.n].T, belief @ (y[: g.n] * g.utility).T  # (a, n)
        earned = g.thetas * mass[:, None, :]
        utility = np.broadcast_to(user[:, None, :], earned.shape)
        value = (earned + utility) @ counted
        posterior = np.divide(user, mass, out=np.zeros_like(mass), where=mass > 0)
        charged = np.stack(
            [
                np.broadcast_to((y[: g.n] * g.settled[g.row[h]]).sum(0), belief.shape),
                posterior @ y[: g.n],
            ]
        )  # (settlement, a, m): sum_j q_j y_j
        pay = (g.thetas @ y[: g.n]) + charged[:, :, None, :]
        if len(h) < g.horizon:
            feedback = g.feedback[g.row[h]]
            law = y[g.n + 1] * feedback.reshape(g.m, -1).T  # (z, m)
            beliefs = (belief[:, None, :] * law).reshape(-1, g.m)
            child = walk(g, h, beliefs, feedback.shape[1:], shown, counted, nodes)
            value = value + apart(child.value, law).sum(1) @ g.kernel[r].T
            earned = earned + g.kernel[r] @ apart(child.earned, law).sum(1)
            utility = utility + g.kernel[r] @ apart(child.utility, law).sum(1)
            later = [np.einsum("zm,azpm->apm", law, apart(x, law)) for x in child.truthful()]
            pay = pay + g.kernel[r] @ np.stack(later)
        options.append((value, earned, utility, pay))
    values, earned, utility, pay = (np.stack(x) for x in zip(*options, strict=True))
    values[[r for r in range(g.n + 1) if r not in shown]] = -np.inf
    total = belief.sum(1)[:, None]
    choice = np.argmax(values >= values.max(0) - TIE * total * g.scale, axis=0)
    choice = np.where(total > 0, choice, g.n)

    def chosen(x):
        return np.take_along_axis(x, choice.reshape(1, *choice.shape, *[1] * (x.ndim - 3)), 0)[0]

    nodes[history] = Node(
        belief, choice, chosen(values), chosen(earned), chosen(utility), pay, symbols
    )
    return nodes[history]


def reached(g, nodes):
    """Which nodes lie on the path of truth, (a, t) per history; all values count in period 1."""
    on = {(): np.broadcast_to(nodes[()].belief.sum(1)[:, None] > 0, nodes[()].choice.shape)}
    for h in [h for h in g.histories if len(h) < g.horizon]:
        parent = on[h[:-1]] & (nodes[h[:-1]].choice == h[-1])
        heirs = parent.astype(float) @ (g.kernel[h[-1]] > 0) > 0  # (a, t')
        mass = nodes[h].belief.sum(1)
        on[h] = np.repeat(heirs, len(mass) // len(heirs), axis=0) & (mass > 0)[:, None]
    return on


def largest_gains(g, node, on):
    """Largest gain of a single misreport at the nodes of one history, (settlement, n).

    Letters: a = all that is public or others' signals, u = others' values; s, k = own true signal
    and value; x, v = own reported ones; r = recommendation, e = settlement, m = taste.
    """
    gains = np.zeros((2, g.n))
    paths = np.arange(len(node.belief)).reshape(-1, *node.symbols)
    profiles = np.arange(len(g.thetas)).reshape((g.K,) * g.n)
    for i in range(g.n):
        signal = np.moveaxis(paths, 2 + i, -1).reshape(-1, node.symbols[1 + i])  # (a, s)
        value = np.moveaxis(profiles, i, -1).reshape(-1, g.K)  # (u, k)
        at = signal[:, None, :, None], value[:, None, :]  # (a, u, s, k)
        belief = node.belief[signal]  # (a, s, m)
        payoffs = np.einsum("asm,reauxkm->reauskx", belief, node.pay[:, :, *at])[..., None]
        choice = node.choice[at][:, :, None, None]  # (a, u, 1, 1, x, v)
        mass = belief.sum(-1)[:, None, :, None]
        for settlement in (ESTIMATOR, MESSAGE):
            payoff = np.choose(choice, list(payoffs[:, settlement]))  # (a, u, s, k, x, v)
            truth = np.einsum("ausksk->ausk", payoff)
            gain = payoff.max((-2, -1)) - truth
            gain = gain[on[at]] / np.broadcast_to(mass, gain.shape)[on[at]]
            gains[settlement, i] = gain.max(initial=0.0)
    return gains


def solve_by_brute_force(case):
    """Every `expected_*` quantity of a case (cases/README), by a walk over the whole tree.

    **Arguments**: `case`, a mapping with the arguments of `RecommendationMDP.from_tables`; other
    keys are ignored. **Returns**: a dict without the `expected_` prefix. Exact up to rounding.
    """
    g = unpack(case)
    symbols = g.initial_signals.shape[1:]
    belief = (g.prior[:, None] * g.initial_signals.reshape(g.m, -1)).T  # (a, m)
    mass = belief.sum(1)
    everything, everyone = range(g.n + 1), np.ones(g.n)

    def profile(x):  # (a, t) unnormalised -> P, conditional on the profile
        x = np.divide(x, mass[:, None], out=np.full(x.shape, np.nan), where=mass[:, None] > 0)
        return x.T.reshape((g.K,) * g.n + symbols)

    def extreme(fold, x, values=True):  # over own signals (and values), constant along them
        out = np.empty_like(x)
        for i in range(g.n):  # fmax and fmin pass over NaN, unless there is nothing else
            own = ((i,) if values else ()) + (g.n + 1 + i,)
            out[i] = fold.reduce(x[i], axis=own, keepdims=True)
        return out

    def ex_ante(x):
        return np.einsum("at,t->", x, g.weight)

    nodes = {}
    root = walk(g, (), belief, symbols, everything, everyone, nodes)
    marginal = [
        walk(g, (), belief, symbols, [r for r in everything if r != i], everyone, {}).value
        for i in range(g.n)
    ]
    displayable = [
        walk(g, (), belief, symbols, everything, 1.0 - np.eye(g.n)[i], {}).value for i in range(g.n)
    ]
    on = reached(g, nodes)
    gains = {h: largest_gains(g, node, on[h]) for h, node in nodes.items()}
    overall = np.max(list(gains.values()), axis=0)
    payoff = profile(np.einsum("am,atm->at", belief, root.truthful()[ESTIMATOR]))
    out = {
        "W": profile(root.value),
        "W_marginal": np.stack([profile(x) for x in marginal]),
        "W_displayable": np.stack([profile(x) for x in displayable]),
        "advertiser_value": np.stack([profile(root.earned[..., i]) for i in range(g.n)]),
        "user_utility": np.stack([profile(root.utility[..., i]) for i in range(g.n)]),
        "agent_payoff": np.stack([payoff] * g.n),
        "ex_ante_W": ex_ante(root.value),
        "ex_ante_W_marginal": np.array([ex_ante(x) for x in marginal]),
        "gain_estimator": overall[ESTIMATOR],
        "gain_message": overall[MESSAGE],
        "gain_estimator_first": gains[()][ESTIMATOR],
        "gain_message_first": gains[()][MESSAGE],
    }
    for name, economy in (("", "W_marginal"), ("_displayable", "W_displayable")):
        out[f"phi_plus{name}"] = extreme(np.fmax, out[economy], values=False)
        out[f"phi_minus{name}"] = extreme(np.fmin, out[economy], values=False)
    deficit = out["agent_payoff"] - out["advertiser_value"] - out["user_utility"]
    out["window_floor"] = extreme(np.fmax, deficit)
    out["window_ceiling"] = extreme(np.fmin, out["agent_payoff"])
    return out
