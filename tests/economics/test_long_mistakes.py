"""Long horizons: settings and checkpoints that cannot be, each refused in one clear message."""

import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynmech as dm
from dynmech.policy.baselines import compare_policies
from dynmech.policy.relaxation import relax
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from dynmech.solve.running import our_errors
from solvers import Limits, Root
from solvers.checks import whole
from solvers.neural.checkpoint import NeuralCheckpoint
from solvers.neural.neural import begin
from solvers.testing import random_process
from tests.helpers.learning import learning_market

NEURAL = {"sweeps": 2, "runs": 2, "steps": 1, "batch": 2, "cases": 2, "chunk": 2}
TINY = dm.Neural(sweeps=2, runs=32, steps=1, batch=8, cases=2, chunk=32, learning_rate=1e-5)
NO_PROCESS = random_process(np.random.default_rng(0), rounds=2)
NAN, INF = float("nan"), float("inf")


def refused(make, *words):
    with pytest.raises(dm.InvalidArgument) as caught:
        make()
    message = str(caught.value)
    assert [word for word in (*words, "must", "got") if word not in message] == [], message
    assert len(message) < 600
    return message


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("name", "values"),
    {
        "runs": (NAN, 60.5, 60.0, "a", True, 29, None),
        "marginal_runs": (60.5, -1),
        "rounds": (1.5, True, -1),
        "seed": (-1, 0.5, None),
        "work": (NAN, "a", 0, True),
        "confidence": ("a", NAN, 0, 1, None),
    }.items(),
)
def test_a_certificate_that_cannot_be(name, values):
    for value in values:
        refused(lambda value=value: dm.Certificate(**{name: value}), f"Certificate({name}=...)")


@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")  # of equinox
def test_a_certificate_of_numpy_numbers():
    dm.Certificate(runs=np.int64(30), rounds=np.int32(0), seed=np.uint8(0), work=np.float64(INF))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("name", "values"),
    {
        **dict.fromkeys((*NEURAL, "width", "summary"), (1.5, 0, NAN, True)),
        "patience": (-1, 1.5, None),
        "seed": (-1, 0.5),
        "learning_rate": ("a", NAN, INF, 0.0, True),
        "clip": (None, -1.0),
        "explore": ("a", 2.0),
        "persistence": (NAN, -0.1),
    }.items(),
)
def test_a_network_that_cannot_be(name, values):
    for value in values:
        refused(lambda value=value: dm.Neural(**{name: value}), f"Neural({name}=...)")


@pytest.mark.usefixtures("untyped")
def test_other_arguments_that_cannot_be():
    refused(
        lambda: dm.solve_efficient_policy(None, dm.Neural()),
        "env=...",
        "RecommendationMDP",
        "NoneType",
    )
    usual = {"conversations": 30, "rounds": 2, "beam": 4, "profile": 0, "seed": 0}
    for name, value in {"conversations": NAN, "rounds": 1.5, "beam": 1.5, "seed": -1}.items():
        refused(lambda o={**usual, name: value}: relax(None, **o), f"relax({name}=...)")
    for count in (2.5, NAN, 1, "a"):
        refused(lambda k=count: compare_policies(None, (), k, 0, 0), "compare(conversations=...)")
    refused(lambda: compare_policies(None, (), 2, 0, -1), "compare(seed=...)")


def test_integers_of_numpy_are_integers():
    for number in (1, np.int64(1), np.uint8(1)):
        whole(1)("f(x=...)", number)
    for number in (np.bool_(True), True, 1.0, np.float64(1.0), np.ones(1, int)):
        refused(lambda number=number: whole(1)("f(x=...)", number), "f(x=...)", "integer")


def solved(path, process=NO_PROCESS, roots=(), solver=TINY):
    limits = Limits(checkpoint=path)
    with our_errors("Neural", limits):
        return solver.learn(process, list(roots), limits, False)


@pytest.fixture(scope="module")
def problem():
    env = learning_market(2, 3, 3)
    process = market_process(env)
    case = make_case(env, env.values.support[:, 0])
    with jax.enable_x64(True):
        ceiling = make_ceilings(env, process, [case])[0]
    return process, [Root(np.asarray(env.tastes.weights, np.float32), case, ceiling, True)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, problem):
    """The folder of a finished training, and the training."""
    path = tmp_path_factory.mktemp("trained") / "kept"
    return path, solved(path, *problem)


@pytest.fixture
def kept(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "kept")


def content(path):
    return {x: x.read_bytes() for x in sorted(path.rglob("*")) if x.is_file()}


def sweep(folder, number):
    return folder / f"part-sweep-{number}.safetensors"


def same(one, two):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def same_training(one, two):
    same(one.critic, two.critic)
    assert one.note == two.note
    np.testing.assert_array_equal(one.history[:, 1:], two.history[:, 1:])


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"fingerprint": ', "\0", None])
def test_sweeps_without_a_manifest_are_read(kept, trained, problem, text):
    """Every sweep bears the mark of its problem; the manifest is made again."""
    manifest = kept / "manifest.json"
    whole = manifest.read_bytes()
    manifest.unlink() if text is None else manifest.write_text(text)
    same(solved(kept, *problem), trained[1])
    assert manifest.read_bytes() == whole
    assert len(list(kept.glob("unreadable-*/manifest.json"))) == (text is not None)


def test_another_problem_is_refused(kept):
    before = content(kept)
    refused(lambda: solved(kept), "checkpoint=...", str(kept), "another problem", "delete")
    assert content(kept) == before


@pytest.mark.usefixtures("untyped")
def test_a_path_that_is_no_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    refused(lambda: solved(file), "checkpoint=...", str(file), "choose another")
    refused(lambda: solved(file / "below"), "checkpoint=...", str(file), "choose another")
    refused(lambda: solved("a\0b"), "checkpoint=...")
    assert file.read_text() == "x"
    for path in (123, True, b"a", 1.5, ""):
        refused(lambda path=path: solved(path), "checkpoint=...", "path of a folder", repr(path))


def flipped(data):
    data = bytearray(data)
    data[len(data) // 2] ^= 1
    return bytes(data)


HARMS = {"one bit": flipped, "empty": lambda data: b"", "cut": lambda data: data[:200]}


@pytest.mark.parametrize("how", HARMS)
def test_sweeps_that_cannot_be_read(kept, trained, problem, how):
    """The last sweep is made again from the one before; the broken one is put aside."""
    last = sweep(kept, 2)
    last.write_bytes(HARMS[how](last.read_bytes()))
    same_training(trained[1], solved(kept, *problem))
    assert len(list(kept.glob("unreadable-*/part-sweep-2*"))) == 1
    same_training(trained[1], solved(kept, *problem))  # and what was made again can be read
    for number in (1, 2):
        file = sweep(kept, number)
        file.write_bytes(HARMS[how](file.read_bytes()))
    same_training(trained[1], solved(kept, *problem))
    assert len(list(kept.glob("unreadable-*/part-sweep-*"))) == 3


def test_sweeps_in_each_others_place_are_made_again(kept, trained, problem):
    one, two = (sweep(kept, number).read_bytes() for number in (1, 2))
    sweep(kept, 1).write_bytes(two)
    sweep(kept, 2).write_bytes(one)
    same_training(trained[1], solved(kept, *problem))


def test_the_manifest_is_written_in_one_step(tmp_path, monkeypatch):
    def killed(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.link", killed)
        with pytest.raises(KeyboardInterrupt):
            NeuralCheckpoint(tmp_path / "kept", "mark")
    assert not (tmp_path / "kept").exists()
    NeuralCheckpoint(tmp_path / "kept", "mark")
    found = json.loads((tmp_path / "kept" / "manifest.json").read_text())
    assert found["fingerprint"] == "mark"


def test_the_last_two_sweeps_are_kept(tmp_path):
    with jax.enable_x64(False):
        state = begin(TINY)
        keep = NeuralCheckpoint(tmp_path, "mark")
        for step in (1, 2, 3):
            state = eqx.tree_at(lambda x: x.sweep, state, jnp.asarray(step))
            keep.save(state)
        found = NeuralCheckpoint(tmp_path, "mark").load(begin(TINY))
    assert sorted(x.name for x in tmp_path.glob("part-*")) == [
        sweep(tmp_path, k).name for k in (2, 3)
    ]
    assert found is not None
    assert int(found.sweep) == 3
