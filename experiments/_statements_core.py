"""Statements of sections 2 to 4 of paper D: examples, ideal and unbiased data, extensions."""

import itertools

import jax
import numpy as np
from scipy.optimize import linprog

import dynmech as dm
from dynmech import TasteGrid, static
from experiments._statements_rows import Row, equal, large, refuted, small
from experiments._statements_settings import (
    BLUNT,
    SHARP,
    VALUES,
    auction,
    click_auction,
    random_environment,
    random_unbiased,
)


def games(markets: int):
    """Draw joint-prediction games of two to four agents, with a profile of signals each."""
    for seed in range(markets):
        rng = np.random.default_rng(seed)
        n = 2 + seed % 3
        theta, noise, s = rng.normal(size=n), rng.uniform(0.5, 3, n), 1.5 * rng.normal(size=n)
        yield static.JointPrediction(theta, noise), theta, noise, s


def mean_of(noise: np.ndarray, s: np.ndarray) -> float:
    """E[omega | s] as printed in Example 1."""
    return float((s / noise).sum() / (1 + (1 / noise).sum()))


def prediction(markets: int, draws: int, seed: int) -> list[Row]:
    """Check Examples 1 and 3 and footnote 9."""
    wrong = dict.fromkeys(("x", "transfer", "pair", "ratio"), 0.0)
    printed = []
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    weights = weights / weights.sum()
    for game, theta, noise, s in games(markets):
        n, mean = len(s), mean_of(noise, s)
        x = theta.mean() + mean
        regressed = float(np.linalg.solve(np.diag(noise) + 1.0, np.ones(n)) @ s)
        wrong["x"] = max(wrong["x"], abs(float(game.allocation(s)) - x), abs(regressed - mean))
        omega = mean + nodes / np.sqrt(1 + (1 / noise).sum())
        found = -np.asarray(game.expected_pivot_transfers(s))
        ex_ante = -np.asarray(game.ex_ante_pivot_transfers())
        for i in range(n):
            rest = np.arange(n) != i
            alone = theta[rest].mean() + mean_of(noise[rest], s[rest])
            by_definition = sum(
                weights @ ((alone - t - omega) ** 2 - (x - t - omega) ** 2) for t in theta[rest]
            )
            wrong["transfer"] = max(wrong["transfer"], abs(found[i] - by_definition))
            news = (mean - mean_of(noise[rest], s[rest])) ** 2
            as_printed = news - ((theta[rest].mean() - theta[rest]) ** 2).sum()
            printed.append(abs(as_printed - by_definition))
            if n == 2:
                short = news - (theta[0] - theta[1]) ** 2 / 4
                wrong["pair"] = max(wrong["pair"], abs(short - by_definition))
            rest_sum = (1 / noise[rest]).sum()
            ratio = (1 / noise[i]) / ((1 + rest_sum) * (1 + rest_sum + 1 / noise[i]))
            steering = (theta.mean() - theta[rest].mean()) ** 2
            gap = abs(ex_ante[i] - (n - 1) * (ratio - steering))
            wrong["ratio"] = max(wrong["ratio"], gap)
    game = static.JointPrediction([1.5, -1.0, 2.0], [0.5, 1.0, 3.0])
    drawn = game.simulate(jax.random.key(seed), draws, 0.7)
    z = np.abs(drawn.value - np.asarray(game.ex_ante_pivot_transfers())) / drawn.error
    two = static.JointPrediction([0.0, 1.0], [1.0, 1.0])
    gap = abs(float(two.expected_pivot_transfers(np.zeros(2))[0]) - 0.0)
    return [
        small("Example 1", "x* against the formula printed, E[omega | s] by regression", markets,
              wrong["x"]),
        refuted(
            "Example 3",
            "expected transfer as printed, theta = (0, 1), s = 0: says 0, is -1/4",
            1,
            gap,
            0.25,
        ),
        large("Example 3", "the same on random games: the largest difference exists", markets,
              max(printed), 0.1),
        small("Example 3", "corrected transfer (n-1)[...] against (3), (4) integrated over omega",
              markets, wrong["transfer"]),
        small("Example 3", "payment for bias (theta_i - theta_j)^2 / 4 where n = 2",
              markets // 3 + (markets % 3 > 0), wrong["pair"]),
        small("Example 3", f"ex-ante transfers against {draws:,} draws, settled on a noisy "
              "estimate: largest |z|", 1, float(z.max()), 4.0),
        small("footnote 9", "ex-ante transfer: (n-1) [ratio printed - (steering)^2]",
              markets, wrong["ratio"]),
    ]  # fmt: skip


def slots(values: np.ndarray, seed: int) -> static.StaticEnvironment:
    """Build Example 2: three bidders, two slots, three states of their click rates."""
    rng = np.random.default_rng(seed)
    rates = np.sort(rng.uniform(0, 1, (3, 2)), axis=1)[:, ::-1]
    orders = np.array(list(itertools.permutations(range(3))))
    taken = np.stack([[order[:2] == i for i in range(3)] for order in orders]).astype(float)
    return static.StaticEnvironment(
        lambda i, x, omega, theta: theta * (x.reshape(3, 2)[i] @ omega),
        taken.reshape(6, 6),
        TasteGrid(rates, rng.dirichlet(np.ones(3))),
        values,
        static.PrivateSignals.independent(list(rng.dirichlet(np.ones(2), size=(3, 3)))),
    )


def auctions(markets: int) -> list[Row]:
    """Check Examples 2 and 4 and Remark 1."""
    wrong, gain = 0, 0.0
    for seed in range(markets):
        values = np.random.default_rng(seed + 1000).uniform(0, 3, (3, 2))
        env = slots(values, seed)
        chosen = env.efficient_allocation()
        orders = list(itertools.permutations(range(3)))
        for cell in itertools.product(*(range(e) for e in env.shape)):
            bids = [values[i][env.types[i].theta[e]] for i, e in enumerate(cell)]
            wrong += orders[chosen[cell]] != tuple(np.argsort(bids)[::-1])
        gain = max(gain, relative(static.data_driven_vcg(env, groves="pivot")))
    rows = [
        small("Example 2", "type profiles at which slots are not matched assortatively", markets,
              wrong, 0),
        small("Example 2", "its data-driven pivot: largest gain / money scale", markets, gain),
    ]  # fmt: skip
    env, rates, prior = click_auction(), np.array([0.1, 0.7]), np.array([0.6, 0.4])
    allocation = env.efficient_allocation()
    for label, own_guess in (("E[omega]", False), ("E[omega | s_-i]", True)):
        transfers, expected = [], np.zeros(2)
        for i in range(2):
            bids = [VALUES[j][env.types[j].theta] for j in range(2)]
            own, rival = (bids[0][:, None], bids[1][None])[:: 1 if i == 0 else -1]
            guess = env.posterior(1 - i, without=i) @ rates if own_guess else prior @ rates
            transfers.append(np.where(allocation == i, rival * guess, 0.0)[..., None])
            # Won at a loss, she would rather lose; lost at a profit, rather win; if she can.
            worth, wins = own * (env.posterior(i) @ rates) - rival * guess, allocation == i
            can = np.where(wins, VALUES[i].min() < rival, VALUES[i].max() > rival)
            expected[i] = (np.maximum(np.where(wins, -worth, worth), 0) * can).max()
        audit = static.DirectMechanism(env, allocation, transfers).audit()
        rows.append(
            equal("Example 4", f"second price at {label}: the winner's regret, by hand", 1,
                  audit.epsilon, expected.max())
        )  # fmt: skip
        rows.append(large("Example 4", f"second price at {label}: a gain", 1, audit.epsilon, 0.05))
    clicks = static.Estimator.frequency(env.states, 10)
    pivot = static.data_driven_vcg(env, clicks, "pivot")
    error = 0.0
    for cell in itertools.product(*(range(e) for e in env.shape)):
        bids = np.array([VALUES[i][env.types[i].theta[e]] for i, e in enumerate(cell)])
        due = np.where(np.arange(2) == bids.argmax(), bids.min(), 0.0)[:, None]
        paid = np.array([pivot.transfer[i][cell] for i in range(2)])
        error = max(error, np.abs(paid - due * clicks.points[:, 0]).max())
    fewer = static.data_driven_vcg(env, static.Estimator.frequency(env.states, 5), "pivot")
    same = max(
        np.abs(pivot.expected_transfer(i) - fewer.expected_transfer(i)).max() for i in range(2)
    )
    return [
        *rows,
        small("Example 4", "pivot: the winner pays max theta_j times click frequency, (5)", 1,
              error),
        small("Example 4", "pivot: largest gain", 1, pivot.audit().epsilon),
        small("Remark 1", "half the clicks ignored: change of E[t_i | omega]", 1, same),
        small("Remark 1", "half the clicks ignored: largest gain", 1, fewer.audit().epsilon),
    ]  # fmt: skip


def relative(mechanism: static.DirectMechanism) -> float:
    """Return the largest gain over the money scale."""
    return mechanism.audit().epsilon / mechanism.env.money_scale


def exact(markets: int) -> list[Row]:
    """Check Proposition 1 and Theorem 1."""
    ideal, drawn, unbiased, beyond, messages = 0.0, 0.0, 0.0, 0.0, np.inf
    for seed in range(markets):
        rng, env = np.random.default_rng(seed), random_environment(seed, affine=False)
        for groves in (dm.groves.Zero(), "pivot"):
            ideal = max(ideal, relative(static.data_driven_vcg(env, groves=groves)))
        shapes = [[1 if j == i else e for j, e in enumerate(env.shape)] for i in range(env.agents)]
        tables = [rng.normal(size=(*shape, env.states.size)) for shape in shapes]
        drawn = max(drawn, relative(static.data_driven_vcg(env, groves=tables)))
        messages = min(messages, relative(static.message_vcg(env, dm.groves.Zero())))
        data = random_unbiased(seed, env)
        beyond = max(beyond, relative(static.data_driven_vcg(env, data)))
        env = random_environment(seed, affine=True)
        for groves in (dm.groves.Zero(), "pivot"):
            unbiased = max(unbiased, relative(static.data_driven_vcg(env, data, groves)))
    size = " / money scale"
    return [
        small("Proposition 1", "ideal data, h = 0 and pivot: largest gain" + size, markets, ideal),
        small("Proposition 1", "ideal data, random h_i: largest gain" + size, markets, drawn),
        large("Proposition 1", "the same environments on messages: least of the largest gains"
              + size, markets, messages, 1e-4),
        small("Theorem 1", "affine payoffs, unbiased data, h = 0 and pivot: largest gain" + size,
              markets, unbiased),
        large("Theorem 1", "beyond affine payoffs (Jensen): largest gain" + size, markets,
              beyond, 1e-3),
        theorem_1_any_h(),
    ]  # fmt: skip


def theorem_1_any_h() -> Row:
    """Let noise depend on the allocation: an h that is not affine pays for choosing it."""
    env = static.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] * x[i],
        np.eye(2),
        TasteGrid([[0.25], [0.75]], [0.5, 0.5]),
        [[1.0, 3.0], [2.0, 2.0]],
    )
    points, law = np.array([[0.25], [0.75], [-0.75], [1.25], [1.75]]), np.zeros((2, 2, 5))
    law[0, [0, 1], [0, 1]] = 1.0
    law[1, 0, [2, 3]] = law[1, 1, [0, 3]] = 0.5
    steep = (100 * points[:, 0] ** 2).reshape(1, 1, -1)
    given = [steep, np.zeros((1, 1, 5))]
    audit = static.data_driven_vcg(env, static.Estimator(points, law), given).audit()
    variance, lost = np.mean([1.0, 0.25]), np.mean([0.25, 0.75]) * (3.0 - 2.0)
    return refuted("Theorem 1", "'arbitrary' h_i where noise depends on x: h = 100 omega_hat^2", 1,
                   audit.epsilon, float(100 * variance - lost))  # fmt: skip


def extensions() -> list[Row]:
    """Check section 4.4: leave-one-out, heterogeneous priors, state-revealing signals."""
    env = auction(
        [0.2, 0.7], [0.5, 0.5], [[1.0, 2.0], [1.2, 1.8], [0.9, 2.2]], [SHARP, BLUNT, SHARP]
    )
    own = [static.Estimator.frequency(env.states, k) for k in (2, 3, 1)]
    rest = static.Estimator.leave_one_out(own)
    gain = max(
        static.data_driven_vcg(env, rest, g).audit().epsilon for g in (dm.groves.Zero(), "pivot")
    )

    def private(believed: float):
        return static.StaticEnvironment(
            lambda i, x, omega, theta: x[0] * (-theta if i == 0 else omega[0]),
            [[0.0], [1.0]],
            TasteGrid([[0.0], [1.0]], [0.5, 0.5]),
            [[0.3, 1.0], [0.0, 0.0]],
            priors=[[[1 - believed, believed]], [[0.2, 0.8]]],
        )

    apart = static.data_driven_vcg(private(0.2)).audit().epsilon
    together = static.data_driven_vcg(private(0.8)).audit().epsilon
    states = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    revealing = static.StaticEnvironment(
        lambda i, x, omega, theta: theta * (0.2 + omega[0] + omega[1]) * x[i],
        np.eye(2),
        TasteGrid(states, [0.1, 0.2, 0.3, 0.4]),
        [[1.0, 2.0], [1.5, 1.6]],
        static.PrivateSignals.from_maps([states[:, [i]].astype(int) for i in range(2)], [1.0]),
    )
    lies = min(
        static.message_vcg(revealing, g).audit().epsilon
        for g in (dm.groves.Zero(), "pivot", "informed")
    )
    kept = static.data_driven_vcg(revealing, random_unbiased(0, revealing), "pivot").audit()
    return [
        small("(14)", "leave-one-out estimators of three agents: largest gain", 1, gain),
        refuted("Definition 7", "private priors, ideal data: agent 1 weighs omega with her own", 1,
                apart, 0.3 - 0.2),
        small("Definition 7", "the same where both believe alike: largest gain", 1, together),
        large("section 4.4", "signals that reveal the state, on messages: least gain", 3, lies,
              0.1),
        small("section 4.4", "signals that reveal the state, noisy data: largest gain", 1,
              kept.epsilon),
    ]  # fmt: skip


def groves_form() -> list[Row]:
    """Check Lemma 4: on a grid of values, incentives leave spacing x clicks of freedom, then none.

    Linear programs over all transfers that implement the assortative match, information truthful:
    the range of t(top) - t(bottom), against the Groves difference, which lies inside it.
    """
    rates, others, clicks = np.array([0.6, 0.25]), np.array([1.3, 0.7]), 10.0
    wide, inside, error = [], 0.0, 0.0
    for size in (11, 101):
        grid = np.linspace(0, 2, size)
        rank = (others[None] > grid[:, None]).sum(axis=1)
        own = clicks * np.append(rates, 0.0)[rank]
        rest = clicks * np.array(
            [np.delete(np.append(rates, 0.0), k)[:2] @ np.sort(others)[::-1] for k in rank]
        )
        true, told = (index.ravel() for index in np.indices((size, size)))
        rows = np.zeros((size * size, size))
        np.add.at(rows, (np.arange(size * size), told), 1.0)
        np.add.at(rows, (np.arange(size * size), true), -1.0)
        slack = grid[true] * (own[true] - own[told])
        ends = []
        for sign in (1.0, -1.0):
            cost = np.zeros(size)
            cost[-1] = sign
            fixed = [(0, 0)] + [(None, None)] * (size - 1)
            done = linprog(cost, rows, slack, bounds=fixed, method="highs")
            ends.append(sign * done.fun)
        wide.append(ends[1] - ends[0])
        error = max(error, abs(wide[-1] - (grid[1] - grid[0]) * (own[-1] - own[0])))
        groves = rest[-1] - rest[0]
        inside = max(inside, ends[0] - groves, groves - ends[1])
    return [
        small("Lemma 4", "freedom that incentives leave in t_i(theta): spacing x clicks", 2, error),
        small("Lemma 4", "the Groves form outside that range, by", 2, max(inside, 0.0)),
        small("Lemma 4", "freedom at 101 values over that at 11", 2, wide[1] / wide[0], 0.1 + 1e-9),
    ]
