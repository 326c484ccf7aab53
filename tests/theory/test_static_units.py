"""The unit of money does not matter, nor an allocation that nobody would take."""

import numpy as np
import pytest

from dynmech import TasteGrid
from dynmech import static as st

STATES = TasteGrid([[0.1], [0.5]], [0.5, 0.5])
UNITS = [1e-20, 1e20]


@pytest.mark.parametrize("big", [1e9, 1e13, 1e200])
def test_an_excluded_allocation_moves_neither_the_rule_nor_the_tolerance(big):
    """E omega = 0.3: the higher of theta wins, the third agent never."""
    env = st.StaticEnvironment(
        lambda i, x, omega, theta: x[i] * (theta * omega[0] if i < 2 else -big),
        np.eye(3),
        STATES,
        [[1.0, 3.0], [2.0, 4.0], [0.0, 1.0]],
    )
    allocation = env.efficient_allocation()
    assert allocation[..., 0].tolist() == [[1, 1], [0, 1]]
    free = st.DirectMechanism(env, allocation, [np.zeros((1, 1, 1, 1))] * 3).audit()
    assert free.epsilon == pytest.approx(0.6)  # 2 E omega, for agent 1 at (3, 2)
    assert free.tolerance < 1e-8
    pivot = st.data_driven_vcg(env, groves="pivot").audit()
    assert pivot.epsilon <= pivot.tolerance < 1e-8
    assert pivot.participation.min() >= -pivot.tolerance


@pytest.mark.parametrize("unit", UNITS)
def test_expected_maxima_are_in_the_unit_of_their_data(unit):
    mean, cov = np.array([0.1, -0.2]), np.array([[1.0, 0.3], [0.3, 2.0]])
    found = st.expected_maximum(mean * unit, cov * unit**2) / unit
    assert float(found) == pytest.approx(float(st.expected_maximum(mean, cov)), rel=1e-13)


def assistant(unit):
    shown = np.array([[4.0, 0.1], [0.1, 4.0], [0.1, 0.1]]) / unit**2
    cov = np.array([[1.0, 0.3], [0.3, 1.0]]) * unit**2
    env = st.ShoppingAssistant(
        np.array([0.0, 0.1]) * unit, cov, np.ones(2) * unit**2, unit**2, shown, 2
    )
    signals = np.array([[0.0, 0.0], [1.0, -1.0]]) * unit
    types = st.AssistantTypes(np.array([0.1, 0.2, 0.3, 0.5]) * unit, signals, np.eye(2) * unit**2)
    return env, st.AssistantMechanism(env, [types] * 2, nodes=6)


@pytest.mark.parametrize("unit", UNITS)
def test_the_assistant_and_its_audit_are_the_same_in_every_unit(unit):
    found = []
    for size in (1.0, unit):
        env, mechanism = assistant(size)
        profile = env.profile(np.array([0.2, 0.3]) * size, np.zeros((2, 2)), np.zeros(2))
        plan, audit = st.solve_assistant(env, profile, nodes=6), mechanism.audit(profile)
        assert audit.incentive_gain.max() <= audit.tolerance
        found.append([plan.recommendation, plan.value / size, *audit.message_gain / size])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
    assert max(found[0][2:]) > 0.01
