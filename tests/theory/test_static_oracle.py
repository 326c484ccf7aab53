"""A brute-force oracle of the static theory, loops over everything, against the audit."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from dynmech import TasteGrid
from dynmech import static as st

EXACT = 1e-9


def feature_payoff(coefficients, affine, private=True):
    """u_i = c[i, a] . features(omega, theta); affine in omega, or not."""

    def features(lib, omega, theta):
        flat = [1.0, theta, omega[0], omega[1], theta * omega[0], theta * omega[1]]
        curved = [omega[0] ** 2, lib.sin(3 * omega[1]) * theta, omega[0] * omega[1]]
        return flat + ([] if affine else curved)

    def traced(agent, x, omega, theta):
        weights = jnp.asarray(coefficients)[agent, x[0].astype(int)]
        return sum(w * f for w, f in zip(weights, features(jnp, omega, theta), strict=False))

    def plain(agent, a, omega, theta):
        weights = coefficients[agent][a]
        return sum(w * f for w, f in zip(weights, features(np, omega, theta), strict=False))

    return traced, plain


def random_signals(rng, n, m, structures, symbols, correlated):
    if not correlated:
        return st.PrivateSignals.independent(
            [rng.dirichlet(np.ones(symbols), size=(structures, m)) for _ in range(n)]
        )
    residuals = 4
    maps = [rng.integers(0, symbols, (structures, m, residuals)) for _ in range(n)]
    for item in maps:
        item.flat[:symbols] = np.arange(symbols)
    return st.PrivateSignals.from_maps(maps, rng.dirichlet(np.ones(residuals)))


def random_environment(
    seed, n=2, m=3, A=3, K=2, structures=2, symbols=2, affine=False, correlated=False, priors=1
):
    """A random instance and the plain payoff function that its oracle uses."""
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(size=(n, A, 9))
    coefficients[..., 0] *= 0.1  # so that types matter for the allocation
    payoff, plain = feature_payoff(coefficients, affine)
    own = None if priors == 1 else rng.dirichlet(np.ones(m), size=(n, priors))
    env = st.StaticEnvironment(
        payoff,
        allocations=np.arange(A)[:, None],
        states=TasteGrid(rng.normal(size=(m, 2)), rng.dirichlet(np.ones(m))),
        theta=rng.normal(size=(n, K)),
        signals=random_signals(rng, n, m, structures, symbols, correlated),
        priors=own,
    )
    return env, plain


def random_unbiased(rng, env):
    """An unbiased estimator whose law depends on the allocation: omega plus or minus a shock."""
    states, A = np.asarray(env.states.points), len(env.allocations)
    shocks = rng.normal(size=(A, *states.shape))
    points = np.concatenate([states + sign * shocks[a] for a in range(A) for sign in (1, -1)])
    m, kernel = len(states), np.zeros((A, len(states), len(points)))
    for a, w, sign in itertools.product(range(A), range(m), range(2)):
        kernel[a, w, (2 * a + sign) * m + w] = 0.5
    return st.Estimator(points, kernel)


class Oracle:
    """Everything by loops over types, states and outcomes, from the definitions."""

    def __init__(self, env, plain):
        self.env, self.u, self.n = env, plain, env.agents
        self.states = [tuple(p) for p in np.asarray(env.states.points)]
        self.A = len(env.allocations)
        self.own = [
            list(zip(t.theta, t.prior, t.structure, t.signal, strict=True)) for t in env.types
        ]
        self.profiles = list(itertools.product(*(range(len(o)) for o in self.own)))
        self.beliefs, self.chosen = {}, {}
        for cell in self.profiles:
            for i in range(self.n):
                self.beliefs[cell, i] = self.posterior(cell, i)
            self.chosen[cell] = self.efficient(cell)

    def types(self, cell):
        return [self.own[i][e] for i, e in enumerate(cell)]

    def posterior(self, cell, i, without=None):
        info, table = self.types(cell), self.env.signals.table
        prior = self.env.priors[i][info[i][1]]
        mass = []
        for w in range(len(self.states)):
            total = 0.0
            for z in np.ndindex(*table.shape[1 + self.n :]):
                if all(z[j] == info[j][3] or j == without for j in range(self.n)):
                    total += table[(w, *(info[j][2] for j in range(self.n)), *z)]
            mass.append(prior[w] * total)
        total = sum(mass)
        return None if total == 0 else [x / total for x in mass]

    def theta(self, i, cell):
        return np.asarray(self.env.theta)[i, self.own[i][cell[i]][0]]

    def efficient(self, cell, without=None):
        values = []
        for a in range(self.A):
            total = 0.0
            for i in range(self.n):
                if i == without:
                    continue
                belief = self.posterior(cell, i, without)
                if belief is None:
                    return 0
                total += sum(
                    p * self.u(i, a, w, self.theta(i, cell))
                    for p, w in zip(belief, self.states, strict=True)
                )
            values.append(total)
        return int(np.argmax(values))

    def gain(self, transfer, law):
        """Largest gain of each agent when i is paid transfer(i, cell, r), r ~ law[a][w]."""
        best, transfer = np.zeros(self.n), functools.cache(transfer)
        for cell, i in itertools.product(self.profiles, range(self.n)):
            belief = self.beliefs[cell, i]
            if belief is None:
                continue
            totals = {}
            for e in range(len(self.own[i])):
                told = (*cell[:i], e, *cell[i + 1 :])
                a = self.chosen[told]
                paid = [transfer(i, told, r) for r in range(len(law[a][0]))]
                totals[e] = sum(
                    p * (self.u(i, a, w, self.theta(i, cell)) + np.dot(row, paid))
                    for p, w, row in zip(belief, self.states, law[a], strict=True)
                )
            best[i] = max(best[i], max(totals.values()) - totals[cell[i]])
        return best

    def vcg(self, points, pivot):
        """Transfers (3), with (4) if `pivot`, at estimates `points`."""
        alone = {}
        if pivot:
            for cell, i in itertools.product(self.profiles, range(self.n)):
                alone[cell, i] = self.efficient(cell, without=i)

        def transfer(i, cell, r):
            total = 0.0
            for j in range(self.n):
                if j != i:
                    total += self.u(j, self.chosen[cell], points[r], self.theta(j, cell))
                    if pivot:
                        total -= self.u(j, alone[cell, i], points[r], self.theta(j, cell))
            return total

        return transfer


CASES = {
    "structures": {},
    "correlated": {"correlated": True},
    "three agents": {"n": 3, "structures": 1, "K": 2, "A": 2},
    "priors": {"priors": 2, "structures": 1},
}


@pytest.mark.parametrize("pivot", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_definitions_1_4_5_6_and_7_audit_equals_brute_force(name, pivot):
    """Efficient rule (1), (15), expected transfer (2), VCG (3), pivot (4) and least epsilon."""
    env, plain = random_environment(7, **CASES[name])
    oracle = Oracle(env, plain)
    rng = np.random.default_rng(3)
    R, A, m = 4, len(env.allocations), env.states.size
    estimator = st.Estimator(rng.normal(size=(R, 2)), rng.dirichlet(np.ones(R), size=(A, m)))
    chosen = env.efficient_allocation()
    assert [chosen[c] for c in oracle.profiles] == [oracle.chosen[c] for c in oracle.profiles]
    groves = "pivot" if pivot else dm.groves.Zero()
    audit = st.data_driven_vcg(env, estimator, groves).audit()
    transfer = oracle.vcg(estimator.points, pivot)
    expected = oracle.gain(transfer, estimator.kernel)
    assert expected.max() > 0.01
    np.testing.assert_allclose(audit.incentive_gain, expected, rtol=0, atol=EXACT)
    if not pivot:
        bounds = st.epsilon_bounds(env, estimator)
        np.testing.assert_allclose(bounds.reports, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ["correlated", "three agents"])
def test_realised_transfers_equal_brute_force(name):
    """Transfers (3) and (4) at one estimate, and slack under truth."""
    env, plain = random_environment(11, **CASES[name])
    oracle = Oracle(env, plain)
    point = np.array([0.3, -0.7])
    for pivot in (False, True):
        transfer = oracle.vcg([point], pivot)
        for cell in oracle.profiles[:: len(oracle.profiles) // 5]:
            if oracle.beliefs[cell, 0] is None:
                continue
            expected = [-transfer(i, cell, 0) for i in range(env.agents)]
            found = st.realised_transfers(env, cell, point, pivot)
            np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


def test_slack_equals_brute_force():
    """Participation and no subsidy (Definitions 8 and 9), conditional and state by state."""
    env, plain = random_environment(5, correlated=True)
    oracle = Oracle(env, plain)
    audit = st.data_driven_vcg(env, groves="pivot").audit()
    transfer = oracle.vcg(oracle.states, True)
    for cell, i in itertools.product(oracle.profiles, range(env.agents)):
        belief = oracle.beliefs[cell, i]
        if belief is None:
            assert np.isnan(audit.participation[(i, *cell)])
            continue
        paid = np.array([transfer(i, cell, w) for w in range(len(belief))])
        worth = np.array(
            [oracle.u(i, oracle.chosen[cell], w, oracle.theta(i, cell)) for w in oracle.states]
        )
        live = np.array(belief) > 0
        for found, expected in (
            (audit.participation, np.dot(belief, worth + paid)),
            (audit.no_subsidy, -np.dot(belief, paid)),
            (audit.worst_state_participation, (worth + paid)[live].min()),
            (audit.worst_state_no_subsidy, -paid[live].max()),
        ):
            assert found[(i, *cell)] == pytest.approx(expected, abs=EXACT)
