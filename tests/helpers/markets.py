"""Small markets as `from_tables` arguments: random ones, and the papers' slips built by hand."""

from itertools import product

import numpy as np


def histories_of(n, horizon):
    """Ordered recommendation histories in the order of the tables' first axis."""
    return [h for t in range(horizon) for h in product(range(n + 1), repeat=t + 1)]


def random_market(
    rng,
    n=2,
    k=2,
    m=4,
    horizon=2,
    K=2,
    symbols=(2, 2, 2),
    *,
    initial_symbols=None,
    constant=False,
    ties=False,
    zeros=0.0,
    biased=False,
    private=True,
    recall="perfect",
    choice_scale=0.5,
    positive=False,
):
    """A random market in which the recommendation, the signals and the settlement all matter.

    Products are worth about the same ex ante, and theta + u straddles zero, so that signals turn
    the recommendation; signals are far apart across tastes. Assumption 1 holds by construction.

    **Arguments**: `symbols`, (Zp, Z1, ..., Zn) of the feedback; cut or padded with its last entry
    to 1 + n. `initial_symbols`, the same in period 1. `constant`: values do not move. `ties`:
    products 0 and 1 are the same product with the same values, so that every choice between them
    is a tie. `zeros`: share of signal likelihoods, kernel entries and (half as often) purchase
    probabilities that are exactly zero; some signal profiles are then impossible, and the last
    value of advertiser 0 has prior zero. `biased`: an estimator
    with a random bias. `private=False`: nobody but the platform sees a signal. `recall`:
    "perfect" (the set seen), "last", or "ordered" (its own choice noise for every history).
    `positive`: theta + u >= 0 everywhere. **Returns**: dict of the arguments.
    """

    def sizes(given):
        full = (*given, *[given[-1]] * (1 + n))[: 1 + n]
        return full if private else (full[0], *[1] * n)

    def law(*shape, spread, signal=False):
        """Rows over the last axis; some entries zero, of signals some for every taste alike."""
        weights = rng.gamma(spread, size=shape) + 1e-3
        if signal:
            never = rng.random((*shape[:-2], 1, shape[-1])) < zeros / 2
            never[..., 0] = False
            weights = np.where(never, 0.0, weights)
        dead = (rng.random(shape) < zeros) & (weights < weights.max(-1, keepdims=True))
        weights = np.where(dead, 0.0, weights)
        return weights / weights.sum(-1, keepdims=True)

    histories = histories_of(n, horizon)
    prior = rng.dirichlet(np.full(m, 3.0))
    omega = rng.lognormal(0.0, 0.6, (m, k))
    mean = prior @ omega
    gamma = rng.normal(size=(n, k))
    target = rng.uniform(-0.4, 0.1, n)  # expected utility of each product
    gamma += np.outer(target - gamma @ mean, mean) / (mean @ mean)
    support = np.sort(rng.uniform(0.1, 1.0, (n, K)), axis=1)
    if ties:
        gamma[1], support[1] = gamma[0], support[0]
    utility = gamma @ omega.T
    if positive:
        support += np.maximum(0.0, -(support[:, :1] + utility.min(1, keepdims=True)))

    noise = rng.normal(0.0, 0.3, (len(histories), n, m))
    query = rng.uniform(0.25, 0.6, (n + 1, m))
    action = np.zeros((len(histories), n + 2, m))
    for row, h in enumerate(histories):
        seen = set(h[-1:] if recall == "last" else h) - {n}
        for j in seen:
            shock = noise[row, j] if recall == "ordered" else 0.0
            action[row, j] = np.exp((utility[j] + shock) / choice_scale)
            action[row, j] *= rng.random(m) >= (0.0 if ties else zeros / 2)
        action[row, n] = 1.0
        asked = query[0 if ties and h[-1] == 1 else h[-1]]
        action[row, : n + 1] *= (1.0 - asked) / action[row, : n + 1].sum(0)
        action[row, n + 1] = asked

    after, before = sizes(symbols), sizes(initial_symbols or symbols)
    feedback = law(len(histories), m, int(np.prod(after)), spread=0.6, signal=True)
    if ties:  # what is learnt must not tell the twins apart
        for row, h in enumerate(histories):
            feedback[row] = feedback[histories.index(tuple(0 if r == 1 else r for r in h))]
    initial = law(m, int(np.prod(before)), spread=0.6, signal=True)
    kernel = law(n + 1, n, K, K, spread=1.0)
    if constant:
        kernel = np.broadcast_to(np.eye(K), kernel.shape).copy()
    if ties:
        kernel[:, 1], kernel[1] = kernel[:, 0], kernel[0]
        kernel[1, 1] = kernel[0, 0]
    theta_prior = rng.dirichlet(np.full(K, 2.0), n)
    if zeros and K > 1:
        theta_prior[0] = [*theta_prior[0, :-1] / theta_prior[0, :-1].sum(), 0.0]
    estimator = np.broadcast_to(omega, (len(histories), n, m, k)).copy()
    if biased:
        estimator += rng.normal(0.0, 0.4, estimator.shape)
    return {
        "gamma": gamma,
        "omega": omega,
        "prior": prior,
        "horizon": horizon,
        "action": action,
        "feedback": feedback.reshape(len(histories), m, *after),
        "initial_signals": initial.reshape(m, *before),
        "theta_support": support,
        "theta_prior": theta_prior,
        "theta_kernel": kernel,
        "estimator": estimator,
    }


def relabelled(case, order):
    """The same market with product `order[j]` now called j."""
    order = np.asarray(order)
    n, horizon = len(order), int(case["horizon"])
    old = np.append(order, n)  # new recommendation -> old one
    row = {h: i for i, h in enumerate(histories_of(n, horizon))}
    rows = [row[tuple(old[r] for r in h)] for h in row]
    actions = np.append(order, [n, n + 1])
    signals = [0, 1, *(2 + order)]
    return case | {
        "gamma": case["gamma"][order],
        "action": case["action"][rows][:, actions],
        "feedback": case["feedback"][rows].transpose([0, *(1 + np.array(signals))]),
        "initial_signals": case["initial_signals"].transpose(signals),
        "theta_support": case["theta_support"][order],
        "theta_prior": case["theta_prior"][order],
        "theta_kernel": case["theta_kernel"][old][:, order],
        "estimator": case["estimator"][rows][:, order],
    }


def _two_products(omega, prior, support, rules, reveal=False):
    """Two products, two periods, gamma the identity; `rules` maps a history to (j, buy, query).

    Histories without a rule lose the user at once. `reveal`: showing product 0 tells omega.
    """
    omega, prior, support = (np.asarray(x, float) for x in (omega, prior, support))
    histories, m, K = histories_of(2, 2), len(omega), support.shape[1]
    action = np.zeros((len(histories), 4, m))
    action[:, 2] = 1.0
    for h, (j, buy, query) in rules.items():
        action[histories.index(h)] = 0.0
        action[histories.index(h), [j, 3, 2]] = np.array([[buy], [query], [1.0 - buy - query]])
    seen = m if reveal else 1
    feedback = np.full((len(histories), m, seen, 1, 1), 1.0 / seen)
    if reveal:
        feedback[histories.index((0,))] = np.eye(m)[:, :, None, None]
    return {
        "gamma": np.eye(2),
        "omega": omega,
        "prior": prior,
        "horizon": 2,
        "action": action,
        "feedback": feedback,
        "initial_signals": np.ones((m, 1, 1, 1)),
        "theta_support": support,
        "theta_prior": np.full((2, K), 1.0 / K),
        "theta_kernel": np.broadcast_to(np.eye(K), (3, 2, K, K)).copy(),
        "estimator": np.broadcast_to(omega, (len(histories), 2, m, 2)).copy(),
    }


def corollary_1_counterexample():
    """Paper C, Corollary 1 fails (model page, section 7, item 5). i = 0, j = 1.

    Nobody has private signals; u_i = -1, u_j = 2, theta_j = 0, theta_i in {0, 2}. Showing j (or
    none) first loses the user. Showing i: half the time i is bought, half the user queries, and
    then j, shown, is bought. Hence, with the values of i:

        W^{-i} = 0                    without i nobody stays, so phi_plus = phi_minus = 0
        D_i = 1/2 * (0 + 2) = 1       what the others and the user earn from j
        W_1 = 1/2 * (theta_i - 1) + 1 = 0.5 at theta_i = 0, 1.5 at theta_i = 2
        window = [max D_i, min W_1] = [1, 0.5], empty;  no subsidy asks total_i >= 1 > 0

    and Wd^{-i} = D_i = 1 restores no subsidy, but participation then fails at theta_i = 0, where
    theta_i + u_i < 0.
    """
    rules = {(0,): (0, 0.5, 0.5), (0, 1): (1, 1.0, 0.0)}
    return _two_products([[-1.0, 2.0]], [1.0], [[0.0, 2.0], [0.0, 0.0]], rules)


def proposition_9_counterexample():
    """Paper D, Prop. 9: with the displayable economy participation can fail. i = 0, j = 1.

    omega_i = -3 for certain, omega_j = 2 or -2 evenly, theta = 0, no private signals. Paper D pays
    per display; here showing i ends half the time in a purchase of i, and otherwise the user
    queries and the platform learns omega_j; whatever else is shown, j is bought when shown last.

        Wd^{-i} = 1/2 * E[max(omega_j, 0)] = 1/2 * 1 = 0.5    show i at no cost, then j if good
        W_1     = max(1/2 * (-3) + 0.5, E[omega_j], 0) = 0    i is never worth showing
        participation slack of phi_minus (displayable) = W_1 - 0.5 = -0.5
    """
    rules = {(0,): (0, 0.5, 0.5), (1,): (1, 1.0, 0.0), (0, 1): (1, 1.0, 0.0)}
    omega, support = [[-3.0, 2.0], [-3.0, -2.0]], np.zeros((2, 1))
    return _two_products(omega, [0.5, 0.5], support, rules, reveal=True)
