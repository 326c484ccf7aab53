"""Upper bounds by information relaxation against exact values, charged and not."""

import dataclasses

import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers.neural.value_network import ValueNetwork
from solvers.told.lookahead import lookahead
from solvers.told.relaxation import relaxation
from tests.helpers.learning import learning_market


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def relaxed(env, critic, runs=80, rounds=3, seed=0, owner=None, **options):
    process, case = market_process(env), make_case(env, env.values.support[:, 0], owner)
    ceiling = make_ceilings(env, process, [case])[0]
    belief, rng = np.asarray(env.tastes.weights), np.random.default_rng(seed)
    told, _ = lookahead(process, [case], [ceiling], belief, rounds)
    found = relaxation(process, case, ceiling, critic, belief, runs, rng, rounds, **options)
    return found, told[0]


@pytest.fixture(scope="module")
def trained():
    env = learning_market(3, 6, 3)
    solver = dm.Neural(sweeps=3, runs=16, steps=40, batch=16, cases=4, chunk=4)
    certificate = dm.Certificate(runs=30, marginal_runs=30, rounds=1)
    solver = dataclasses.replace(solver, certificate=certificate)
    policy = dm.solve_efficient_policy(env, solver, progress=False)
    return env, policy.player.critic, dm.solve_efficient_policy(env, progress=False)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("none", "untrained")]


@pytest.mark.parametrize("critic", [*SLOW, "trained"])
def test_whatever_is_charged_the_mean_is_above_the_value(trained, critic):
    env, network, exact = trained
    networks = {"none": None, "untrained": ValueNetwork(jax.random.key(5)), "trained": network}
    for owner, value in ((None, exact.value.item()), (1, exact.marginal_value.ravel()[1])):
        found, told = relaxed(env, networks[critic], owner=owner, beam=10_000)
        assert found.cut == 0
        assert found.mean >= value - 4 * found.error
        # Three rounds are the whole horizon: lookahead is exact, and never above.
        np.testing.assert_allclose(told, value, rtol=1e-9)


def test_charging_by_a_better_value_is_tighter(trained):
    env, network, exact = trained
    free, charged = relaxed(env, None, 300, beam=10_000)[0], relaxed(env, network, beam=10_000)[0]
    assert free.mean - charged.mean > 3 * np.hypot(free.error, charged.error)
    assert charged.error < 0.3 * free.error
    assert charged.mean < 1.05 * exact.value.item()


@pytest.mark.slow
def test_a_window_shorter_than_the_horizon_is_above_lookahead_of_the_same_length(trained):
    env, network, _ = trained
    env = learning_market(3, 6, 5)
    exact = dm.solve_efficient_policy(env, progress=False).value.item()
    found, told = relaxed(env, network, beam=10_000, rounds=2)
    assert exact <= told <= found.mean + 4 * found.error


def test_what_the_beam_cuts_is_counted(trained):
    env, network, exact = trained
    whole, _ = relaxed(env, network, beam=10_000)
    narrow, _ = relaxed(env, network, beam=1)
    assert narrow.cut > 0
    assert (narrow.gain >= whole.gain - 1e-12).all()
    assert narrow.mean >= exact.value.item() - 4 * narrow.error
    cut = relaxed(env, None, beam=1)[0]
    assert cut.mean == cut.error == np.inf


def test_one_round_is_the_bound_of_one_round_without_error(trained):
    env, network, _ = trained
    found, told = relaxed(env, network, runs=5, rounds=1)
    np.testing.assert_allclose(found.gain, told, rtol=1e-12)


@pytest.mark.slow
def test_the_bound_holds_as_often_as_its_confidence_says(trained):
    """200 seeds, 80% one-sided: the mean is above W, so that misses are rarer than one in five."""
    env, network, exact = trained
    value, held = exact.value.item(), 0
    for seed in range(200):
        found, _ = relaxed(env, network, runs=30, seed=seed, beam=10_000)
        held += int(found.upper(0.2) >= value)
    assert held >= 160 - 3 * np.sqrt(200 * 0.8 * 0.2)
