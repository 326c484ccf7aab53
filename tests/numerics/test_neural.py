"""The network's symmetries, rollouts and lookahead against enumeration, training and resuming."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers import Case, Neural, Root
from solvers.neural.checkpoint import NeuralCheckpoint
from solvers.neural.neural import Diverged, begin, train
from solvers.neural.rollout import Play, rollout
from solvers.neural.value_network import ValueNetwork
from solvers.told.lookahead import lookahead
from tests.helpers.learning import learning_market

QUICK = Neural(sweeps=3, runs=8, steps=4, batch=8, cases=3, chunk=4)


small = learning_market


def parts(env, owner=None):
    process = market_process(env)
    case = make_case(env, env.values.support[:, 0], owner)
    return process, case, make_ceilings(env, process, [case])[0], np.asarray(env.tastes.weights)


def myopic_value(process, case, belief, memory, t):
    """The myopic policy's value by enumeration of every history."""
    if t == process.horizon or belief.sum() == 0:
        return 0.0
    worth = np.asarray(case.worth(process.reward))
    options = []
    for control in range(process.controls):
        after = np.asarray(process.step(memory, control))
        ends = np.asarray(process.ends(after, control))
        options.append((belief @ (ends[:-1] * worth).sum(0), control, after, ends[-1]))
    pay, control, after, going = max(options, key=lambda x: (x[0], -x[1]))
    law = np.asarray(process.symbols(after, control, t))
    later = [myopic_value(process, case, belief * going * column, after, t + 1) for column in law.T]
    return pay + sum(later)


@pytest.mark.parametrize("critic", [pytest.param(False, marks=pytest.mark.slow), True])
def test_any_critic_leaves_the_simulated_value_unbiased(critic):
    process, case, ceiling, belief = parts(small())
    network = ValueNetwork(jax.random.key(3)) if critic else None
    found = rollout(
        process, case, ceiling, network, belief, 1000, np.random.default_rng(0), Play.MYOPIC,
        chunk=100,
    )  # fmt: skip
    exact = myopic_value(process, case, belief, np.asarray(process.start()), 0)
    assert abs(found.mean - exact) < 4 * found.error
    assert found.error < 0.05 * abs(exact)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_lookahead_falls_with_every_round_to_the_exact_value(seed):
    env = small(seed=seed)
    exact = dm.solve_efficient_policy(env, progress=False)
    process, _, _, belief = parts(env)
    theta = env.values.support[:, 0]
    cases = [
        make_case(env, theta),
        *(make_case(env, theta, i, s) for s in (False, True) for i in range(3)),
    ]
    ceilings = make_ceilings(env, process, cases)
    bounds = np.stack([lookahead(process, cases, ceilings, belief, k)[0] for k in range(4)])
    assert (np.diff(bounds, axis=0) <= 1e-12).all()
    values = [exact.value.ravel(), exact.marginal_value.ravel(),
              exact.displayable_marginal_value.ravel()]  # fmt: skip
    np.testing.assert_allclose(bounds[-1], np.concatenate(values), rtol=0, atol=1e-10)
    assert (bounds[0] - bounds[-1]).max() > 1e-3
    deepest, rounds = lookahead(process, cases, ceilings, belief, None)
    assert rounds == 3
    np.testing.assert_array_equal(deepest, bounds[-1])


def test_the_work_allowed_ends_the_deepening():
    process, case, ceiling, belief = parts(small(horizon=4))
    told, rounds = lookahead(process, [case], [ceiling], belief, None, work=1.0)
    assert rounds == 0
    some, more = lookahead(process, [case], [ceiling], belief, None, work=3e6)
    assert 0 < more < 4
    assert some[0] <= told[0]


def applied(network, case, summary, fixed, remaining=3):
    return network(summary, fixed, remaining, case, jnp.asarray(1.5))


def test_relabelled_outcomes_have_the_same_value():
    network, rng = ValueNetwork(jax.random.key(0)), np.random.default_rng(0)
    n, order = 4, np.array([2, 0, 3, 1])
    summary, fixed = rng.normal(size=(n, 8)), rng.normal(size=n + 3)
    case = Case(rng.normal(size=n), np.array([1, 1, 0, 1], bool), np.array([1, 1, 0, 1, 1], bool))
    turned = Case(case.coefficient[order], case.counted[order], case.allowed[[*order, n]])
    one = applied(network, case, summary.ravel(), fixed)
    moved = np.concatenate([fixed[:n][order], fixed[n:]])
    two = applied(network, turned, summary[order].ravel(), moved)
    np.testing.assert_allclose(one, two, rtol=1e-12)
    other = Case(case.coefficient, np.ones(n, bool), np.ones(n + 1, bool))
    assert abs(one - applied(network, other, summary.ravel(), fixed)) > 1e-6
    assert one <= fixed[n + 2]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(2, 3), (5, 9)])
def test_one_network_serves_every_size(n, m):
    network = ValueNetwork(jax.random.key(0))
    process, case, ceiling, belief = parts(small(n, m, 2))
    rng = np.random.default_rng(0)
    assert np.isfinite(rollout(process, case, ceiling, network, belief, 8, rng).mean)


def test_the_last_round_is_exact_and_money_is_homogeneous():
    for unit in (1.0, 1000.0):
        process, case, ceiling, belief = parts(small(horizon=1, unit=unit))
        network = ValueNetwork(jax.random.key(0))
        found = rollout(process, case, ceiling, network, belief, 5, np.random.default_rng(0))
        exact = dm.solve_efficient_policy(small(horizon=1, unit=unit), progress=False).value.item()
        np.testing.assert_allclose(found.gain, exact, rtol=1e-12)
    values = []
    for unit in (1.0, 1000.0):
        process, case, ceiling, belief = parts(small(unit=unit))
        run = rollout(process, case, ceiling, network, belief, 20, np.random.default_rng(0))
        values.append(run.gain / unit)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)  # the critic is in float32


def test_no_gradient_looks_for_the_entry_that_equals_a_maximum():
    """An accelerator may work that entry out twice, rounded in two ways: 0 / 0 where none does."""
    network, n = ValueNetwork(jax.random.key(0)), 3
    case = Case(np.ones(n), np.ones(n, bool), np.ones(n + 1, bool))
    summary, fixed = np.ones(n * 8), np.ones(n + 3)
    params, static = eqx.partition(network, eqx.is_array)

    def value(params):
        return applied(eqx.combine(params, static), case, summary, fixed)

    program = jax.make_jaxpr(jax.grad(value))(params)
    assert "reduce_max" not in str(program)
    rise = jax.grad(value)(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(rise))
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(rise))


def test_an_impossible_or_zero_scale_never_makes_a_nan():
    process, case, ceiling, belief = parts(small())
    nothing = Case(0 * case.coefficient, np.zeros(3, bool), np.array([0, 0, 0, 1], bool))
    network = ValueNetwork(jax.random.key(0))
    run = rollout(process, nothing, ceiling, network, belief, 8, np.random.default_rng(0))
    assert np.isfinite(run.gain).all()


def roots_of(env):
    process = market_process(env)
    cases = [make_case(env, env.values.support[:, 0], i) for i in (None, *range(env.products))]
    ceilings = make_ceilings(env, process, cases)
    weights = np.asarray(env.tastes.weights)
    return process, [
        Root(weights.astype(np.float32), case, ceiling, k == 0)
        for k, (case, ceiling) in enumerate(zip(cases, ceilings, strict=True))
    ]


def same(one, two):
    for a, b in itertools.zip_longest(*(jax.tree.leaves(eqx.filter(x, eqx.is_array))
                                        for x in (one, two))):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def trained(solver=QUICK, **options):
    process, roots = roots_of(small())
    with jax.enable_x64(False):
        return train(process, roots, solver, **options)


@pytest.fixture(scope="module")
def whole():
    return trained()


@pytest.mark.slow
def test_seeds_repeat_a_training_also_over_devices(whole):
    again = trained(mesh=jax.sharding.Mesh(np.array(jax.devices()[:1] * 3), ("cases",)))
    np.testing.assert_array_equal(whole.history[:, 1:], again.history[:, 1:])
    same((whole.network, whole.best), (again.network, again.best))
    assert jax.tree.leaves(eqx.filter(whole, eqx.is_inexact_array))[0].dtype == np.float32


@pytest.mark.slow
def test_training_shrinks_the_residual_and_seeds_differ(whole):
    other = trained(Neural(sweeps=3, runs=8, steps=4, batch=8, cases=3, chunk=4, seed=1))
    assert (whole.column("loss") != other.column("loss")).all()
    longer = trained(Neural(sweeps=8, runs=16, steps=40, batch=16, cases=3))
    assert longer.column("residual")[-1] < 0.5 * longer.column("residual")[0]


class Killed(BaseException):
    pass


def test_a_killed_run_resumes_to_the_same_result(tmp_path, whole):
    keep = NeuralCheckpoint(tmp_path / "kept", "mark")

    def killed(training):
        keep.save(training)
        if int(training.sweep) == 1:
            raise Killed

    with pytest.raises(Killed):
        trained(after_sweep=killed)
    again = NeuralCheckpoint(tmp_path / "kept", "mark")
    with jax.enable_x64(False):
        state = again.load(begin(QUICK))
    assert state is not None
    assert int(state.sweep) == 1
    resumed = trained(training=state)
    same((whole.network, whole.best, whole.optimiser), (resumed.network, resumed.best,
                                                        resumed.optimiser))  # fmt: skip
    np.testing.assert_array_equal(whole.history[:, 1:], resumed.history[:, 1:])
    with pytest.raises(ValueError, match="another"):
        NeuralCheckpoint(tmp_path / "kept", "other mark")


def test_diverging_training_is_never_an_answer():
    wild = Neural(sweeps=8, runs=8, steps=4, batch=8, cases=3, chunk=4, learning_rate=1e4, clip=1e9)
    with pytest.raises(Diverged, match="residual"):
        trained(wild)


@pytest.mark.slow
def test_no_improvement_ends_the_training():
    stuck = Neural(
        sweeps=30, patience=1, runs=8, steps=1, batch=1, cases=1, chunk=4, learning_rate=1e-12
    )
    assert int(trained(stuck).sweep) < 30
