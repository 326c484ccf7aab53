"""What outlives a session: policies saved and loaded, checkpoints resumed, work over devices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
import solvers.tree.exact as exact
from tests.helpers.markets import random_market
from tests.helpers.quantities import assert_same, market_of, quantities, solve
from tests.helpers.small import logit_market


class Patient(dm.AbstractActionRule):
    """A user's own rule: buys what is on the screen, after some rounds of asking."""

    chance: np.ndarray
    rounds: int = eqx.field(static=True)

    def start(self, products, horizon):
        return np.zeros(1, np.int64)

    def step(self, memory, recommendation, products):
        return jnp.minimum(memory + 1, self.rounds)

    def probabilities(self, memory, recommendation, utilities):
        n, m = utilities.shape
        ready = memory[0] >= self.rounds
        shown = jnp.arange(n)[:, None] == recommendation
        bought = jnp.where(ready & shown, jnp.asarray(self.chance)[:, None], 0.0)
        bought = jnp.broadcast_to(bought, (n, m))
        again = jnp.where(ready, 0.2, 0.9) * jnp.ones((1, m)) * (1 - bought.sum(0))
        return jnp.concatenate([bought, 1 - bought.sum(0) - again, again])


def own_rule_market():
    return logit_market(horizon=3, seed=3, rule=Patient(np.array([0.4, 0.6]), 2))


def tables_market():
    return market_of(random_market(np.random.default_rng(0), zeros=0.3, biased=True))


MARKETS = {
    "rules": (lambda: logit_market(seed=1, names=("chair", "table"), markov=True), ()),
    "tables": (tables_market, ()),
    "own rule": (own_rule_market, (Patient,)),
}


@pytest.mark.parametrize("name", MARKETS)
def test_what_is_loaded_is_what_was_saved(name, tmp_path):
    build, types = MARKETS[name]
    policy = solve(build())
    policy.save(tmp_path / "new" / "folder")
    loaded = dm.EfficientPolicy.load(tmp_path / "new" / "folder", parts=types)
    assert jax.tree.structure(loaded) == jax.tree.structure(policy)
    for kept, found in zip(jax.tree.leaves(policy), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(found, kept)
        assert np.asarray(found).dtype == np.asarray(kept).dtype
    assert loaded.env.names == policy.env.names
    assert loaded.work == policy.work
    before, after = quantities(policy), quantities(loaded)
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])
    chat, same = (p.start((0, 0), (0, 0, 0)).step("exit") for p in (policy, loaded))
    np.testing.assert_array_equal(same.belief, chat.belief)
    np.testing.assert_allclose(
        np.asarray(loaded.revalue(theta_support=policy.env.values.support + 0.1)),
        np.asarray(policy.revalue(theta_support=policy.env.values.support + 0.1)),
        rtol=0,
        atol=1e-13,
    )


def test_a_second_save_replaces_the_first_and_nothing_else_is_left(tmp_path):
    first, second = solve(logit_market(seed=1)), solve(logit_market(seed=2))
    first.save(tmp_path / "policy")
    second.save(tmp_path / "policy")
    assert [f.name for f in tmp_path.iterdir()] == ["policy"]
    np.testing.assert_array_equal(dm.EfficientPolicy.load(tmp_path / "policy").value, second.value)


def test_own_classes_have_to_be_named(tmp_path):
    solve(own_rule_market()).save(tmp_path / "policy")
    with pytest.raises(dm.InvalidArgument, match=r"parts=\(MyRule,\)"):
        dm.EfficientPolicy.load(tmp_path / "policy")


class Interrupted(Exception):
    """The machine went away."""


def chunked():
    """A market of several chunks, and the solver that makes them."""
    env = logit_market(horizon=3, seed=1, symbols=3)
    return env, dm.Exact(memory=60_000)


def interrupted(env, solver, folder, after, monkeypatch):
    """Solve with a checkpoint until `after` chunks are finished; return how many were begun."""
    begun, usual = [], exact._solve_chunk

    def stop(*args):
        if after is not None and len(begun) == after:
            raise Interrupted
        begun.append(args)
        return usual(*args)

    with monkeypatch.context() as patch:
        patch.setattr(exact, "_solve_chunk", stop)
        policy = dm.solve_efficient_policy(env, solver, checkpoint=folder, progress=False)
    return len(begun), policy


def test_an_interrupted_solve_is_resumed(tmp_path, monkeypatch):
    env, solver = chunked()
    whole = solve(env)
    with pytest.raises(Interrupted):
        interrupted(env, solver, tmp_path, 2, monkeypatch)
    kept = sorted(tmp_path.glob("part-*"))
    assert len(kept) == 2
    stamps = [file.stat().st_mtime_ns for file in kept]
    begun, policy = interrupted(env, solver, tmp_path, None, monkeypatch)
    parts = len(list(tmp_path.glob("part-*")))
    assert parts > 3
    assert begun == parts - 2
    assert [file.stat().st_mtime_ns for file in kept] == stamps
    assert_same(quantities(policy), quantities(whole), env.money_scale)
    begun, again = interrupted(env, solver, tmp_path, 0, monkeypatch)  # all parts are there
    assert begun == 0
    np.testing.assert_array_equal(again.value, policy.value)
    kept[0].unlink()
    begun, again = interrupted(env, solver, tmp_path, 1, monkeypatch)
    assert begun == 1
    np.testing.assert_array_equal(again.value, policy.value)


def test_a_checkpoint_interrupted_within_a_chunk_keeps_what_was_finished(tmp_path, monkeypatch):
    """Stopped in the middle of the work of the third chunk, as by a key press."""
    env, solver = chunked()
    done, usual = [], exact.sweep

    def stop(*args, tick, **options):
        def counted(nodes):
            done.append(nodes)
            if len(list(tmp_path.glob("part-*"))) == 2 and len(done) % 3 == 0:
                raise KeyboardInterrupt
            tick(nodes)

        return usual(*args, tick=counted, **options)

    with monkeypatch.context() as patch:
        patch.setattr(exact, "sweep", stop)
        with pytest.raises(KeyboardInterrupt):
            dm.solve_efficient_policy(env, solver, checkpoint=tmp_path, progress=False)
    assert len(list(tmp_path.glob("part-*"))) == 2
    assert not list(tmp_path.glob(".partial*"))
    policy = dm.solve_efficient_policy(env, solver, checkpoint=tmp_path, progress=False)
    np.testing.assert_allclose(policy.value, solve(env).value, rtol=0, atol=1e-12)


def other_behaviour():
    """The same numbers in the same shapes, but after the first round they are the other way."""
    return logit_market(horizon=3, seed=3, rule=Turned(0)), logit_market(
        horizon=3, seed=3, rule=Turned(1)
    )


class Turned(dm.AbstractActionRule):
    """Buys from the screen with one of two chances; which of them comes when is `way`."""

    way: int = eqx.field(static=True)

    def start(self, products, horizon):
        return np.full(1, 2)

    def step(self, memory, recommendation, products):
        first = (recommendation + self.way) % 2
        return jnp.where(memory == 2, first[None] if jnp.ndim(first) else first, memory)

    def probabilities(self, memory, recommendation, utilities):
        n, m = utilities.shape
        shown = jnp.arange(n)[:, None] == recommendation
        bought = jnp.where(shown, jnp.where(memory[0] == 0, 0.1, 0.5), 0.0)
        bought = jnp.broadcast_to(bought, (n, m))
        rest = 1 - bought.sum(0)
        return jnp.concatenate([bought, (0.3 * rest)[None], (0.7 * rest)[None]])


CHANGES = {
    "values": (lambda: logit_market(seed=1), lambda: logit_market(seed=1, unit=1.1), {}, {}),
    "seed": (lambda: logit_market(seed=1), lambda: logit_market(seed=2), {}, {}),
    "behaviour": (
        lambda: logit_market(seed=1),
        lambda: logit_market(seed=1, rule=dm.PerfectRecall(dm.Logit(0.5), 0.3)), {}, {},
    ),
    "law of the values": (
        lambda: logit_market(seed=1, markov=True), lambda: logit_market(seed=1), {}, {},
    ),
    "order of things": (lambda: other_behaviour()[0], lambda: other_behaviour()[1], {}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_problem_is_refused(name, tmp_path):
    first, second, *_ = CHANGES[name]
    dm.solve_efficient_policy(first(), checkpoint=tmp_path, progress=False)
    truth = solve(second())
    assert np.abs(truth.value - solve(first()).value).max() > 1e-6
    with pytest.raises(dm.InvalidArgument, match=r"checkpoint.*folder"):
        dm.solve_efficient_policy(second(), checkpoint=tmp_path, progress=False)


def resumed(env, solver, folder):
    """The policy, or None where the folder is refused as one of another problem."""
    try:
        return dm.solve_efficient_policy(env, solver, checkpoint=folder, progress=False)
    except dm.InvalidArgument as error:
        message = str(error)
    assert "checkpoint" in message
    return None


@pytest.mark.parametrize("solver", [dm.Exact(memory=100_000), dm.Exact(), dm.Exact(merge=False)])
def test_a_checkpoint_of_another_solver_is_never_mixed_up(solver, tmp_path):
    """Parts of other sizes: resumed, made anew or refused."""
    env, usual = chunked()
    dm.solve_efficient_policy(env, usual, checkpoint=tmp_path, progress=False)
    for part in sorted(tmp_path.glob("part-*"))[2:]:
        part.unlink()
    expected = quantities(solve(env))
    for again in (solver, usual):
        policy = resumed(env, again, tmp_path)
        if policy is not None:
            assert_same(quantities(policy), expected, env.money_scale)
