"""Ex-ante rows of the static audit: means over types and signals, by brute force and by draws."""

import itertools

import numpy as np
import pytest

from dynmech import DynmechError, TasteGrid
from dynmech import static as st
from tests.theory.test_static_oracle import EXACT, Oracle, random_environment


@pytest.mark.parametrize("options", [{}, {"correlated": True}, {"priors": 2, "structures": 1}])
def test_ex_ante_rows_equal_brute_force(options):
    """E over theta, structures, the state and signals of payoff under truth, by loops."""
    env, plain = random_environment(3, **options)
    oracle, rng, n = Oracle(env, plain), np.random.default_rng(0), env.agents
    K, Q = env.theta.shape[1], env.signals.table.shape[1]
    theta_prior = rng.dirichlet(np.ones(K), size=n)
    structure_prior = rng.dirichlet(np.ones(Q), size=n)
    audit = st.data_driven_vcg(env, groves="pivot").audit(theta_prior, list(structure_prior))
    transfer = oracle.vcg(oracle.states, True)
    for i in range(n):
        kept = paid = mass = 0.0
        for cell in oracle.profiles:
            own = oracle.types(cell)
            drawn = np.prod(
                [
                    theta_prior[j][t] * structure_prior[j][q] / env.priors.shape[1]
                    for j, (t, _, q, _) in enumerate(own)
                ]
            )
            for w, state in enumerate(oracle.states):
                seen = env.signals.table[(w, *(t[2] for t in own), *(t[3] for t in own))]
                chance = drawn * env.priors[i][own[i][1]][w] * seen
                if chance == 0:
                    continue
                money = transfer(i, cell, w)
                kept += chance * (oracle.u(i, oracle.chosen[cell], state, oracle.theta(i, cell)))
                kept, paid, mass = kept + chance * money, paid - chance * money, mass + chance
        assert mass == pytest.approx(1, abs=EXACT)
        assert audit.ex_ante_participation[i] == pytest.approx(kept, abs=EXACT)
        assert audit.ex_ante_no_subsidy[i] == pytest.approx(paid, abs=EXACT)
        assert audit.probability[i].sum() == pytest.approx(1, abs=EXACT)


def item():
    """One item of quality 0.2 or 0.8, three bidders who each see a draw of it."""
    clue = np.array([[0.8, 0.2], [0.3, 0.7]])
    return st.StaticEnvironment(
        lambda i, x, omega, theta: theta * omega[0] * x[i],
        np.eye(3), TasteGrid([[0.2], [0.8]], [0.4, 0.6]),
        [[1.0, 2.0], [1.5, 2.5], [0.5, 3.0]], st.PrivateSignals.independent([clue] * 3),
    )  # fmt: skip


def test_ex_ante_second_price_in_closed_form():
    """The bidder pays the second value times quality: E over eight equally likely value profiles.

    Quality is independent of values, so payments are E[omega] = 0.56 times mean second values.
    """
    env = item()
    audit = st.data_driven_vcg(env, groves="pivot").audit()
    paid, kept = np.zeros(3), np.zeros(3)
    for bids in itertools.product(*np.asarray(env.theta)):
        winner, second = int(np.argmax(bids)), np.sort(bids)[-2]
        paid[winner] += second * 0.56 / 8
        kept[winner] += (bids[winner] - second) * 0.56 / 8
    np.testing.assert_allclose(audit.ex_ante_no_subsidy, paid, atol=EXACT)
    np.testing.assert_allclose(audit.ex_ante_participation, kept, atol=EXACT)
    frame = audit.to_frame()
    np.testing.assert_allclose(frame["ex_ante_no_subsidy"], paid, atol=EXACT)
    assert f"on average, worst agent {kept.min():.4g}" in audit.summary()


def test_ex_ante_can_hold_where_a_profile_fails():
    """A fee of E[pivot payoff] leaves nothing ex ante, and some profile below zero."""
    env = item()
    pivot = st.data_driven_vcg(env, groves="pivot")
    fee = pivot.audit().ex_ante_participation
    charged = [t + fee[i] for i, t in enumerate(pivot.transfer)]
    audit = st.DirectMechanism(env, pivot.allocation, charged, pivot.law).audit()
    np.testing.assert_allclose(audit.ex_ante_participation, 0, atol=EXACT)
    assert np.nanmin(audit.participation) < -0.05
    assert audit.epsilon <= audit.tolerance


MISTAKES = {
    r"theta_prior=.*\(3, 2\)": {"theta_prior": [0.5, 0.5]},
    "theta_prior=.*sum to 1": {"theta_prior": np.ones((3, 2))},
    "structure_prior=.*lengths": {"structure_prior": [[1.0]]},
    r"structure_prior\[1\].*sum": {"structure_prior": [[1.0], [0.5], [1.0]]},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    with pytest.raises(DynmechError, match=message):
        st.data_driven_vcg(item()).audit(**MISTAKES[message])
