"""Artefacts: what is read is what was written, or it is refused with what is wrong."""

import json
import os
import socket
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import dynmech as dm
from dynmech import files
from dynmech.files.tree import decode, known_classes
from solvers.checkpoint import Checkpoint
from solvers.files import Damaged, seal, unseal
from tests.helpers.quantities import solve
from tests.helpers.small import logit_market
from tests.sweep_cells import draws


@pytest.fixture(scope="module")
def policy():
    return solve(logit_market(seed=1))


@pytest.fixture(scope="module")
def kept(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "policy"
    policy.save(path)
    return path.read_bytes()


def refused(path, data, *words):
    path.write_bytes(data)
    with pytest.raises(dm.InvalidArgument) as caught:
        dm.EfficientPolicy.load(path)
    for word in ("EfficientPolicy.load(", *words):
        assert word in str(caught.value)


def edited(data, change):
    """The file that a careful hand makes: another document or other arrays, sealed again."""
    arrays, document = unseal(data)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    change(arrays, document)
    return b"".join(seal(arrays, document))


def fields(document, *path):
    """Fields of the policy, or of a part of it."""
    found = document["tree"]["fields"]
    for name in path:
        found = found[name]["fields"]
    return found


def value_of(document):
    return fields(document, "figures", "value")["value"]


def market_of(document):
    return fields(document, "evaluator")["env"]


def test_torn_files_are_refused(kept, tmp_path):
    for size in (0, 7, 8, 100, len(kept) // 2, len(kept) - 1):
        refused(tmp_path / "policy", kept[:size])
    refused(tmp_path / "policy", kept + b"\0")
    refused(tmp_path / "policy", b"not of ours at all", "torn")


def test_any_changed_byte_is_refused(kept, tmp_path):
    rng = np.random.default_rng(0)
    for place in [0, 8, 9, *rng.integers(len(kept), size=60).tolist()]:
        data = bytearray(kept)
        data[place] ^= 1 << int(rng.integers(8))
        refused(tmp_path / "policy", bytes(data))


def test_the_array_that_was_changed_is_named(kept, tmp_path):
    refused(tmp_path / "policy", kept[:-1] + bytes([kept[-1] ^ 16]), "arrays is changed")


EDITS = {
    "a missing field": (lambda a, d: fields(d, "evaluator").pop("optimal"), "no field optimal"),
    "an unknown field": (lambda a, d: fields(d).update(colour="red"), "colour"),
    "an older format": (lambda a, d: d.update(format=2), "of format 2, this release reads"),
    "another market": (lambda a, d: d.update(market="0" * 64), "market is another"),
    "another horizon": (
        lambda a, d: fields(d, "evaluator", "env").update(horizon=5), "horizon of 5",
    ),
    "names that are one": (
        lambda a, d: fields(d, "evaluator", "env").update(names={"tuple": ["a", "a"]}), "different",
    ),
    "no number": (lambda a, d: a[value_of(d)["array"]].fill(np.nan), "NaN"),
    "crossed bounds": (
        lambda a, d: (a.update(z=a[value_of(d)["array"]] + 1),
                      fields(d, "figures")["lower"].update(array="z")), "at most upper",
    ),
    "another shape": (lambda a, d: value_of(d).update(array="a0"), "contradicts"),
    "weights of a half": (
        lambda a, d: a[fields(d, "evaluator", "env", "tastes")["weights"]["array"]].fill(
            0.05), "sum to 1",
    ),
    "another class": (
        lambda a, d: market_of(d).update({"class": "antigravity:Market"}), "parts=",
    ),
    "a status of another release": (
        lambda a, d: fields(d)["status"].update(member="DONE"), "is DONE, which is not known",
    ),
    "an array that is gone": (lambda a, d: value_of(d).update(array="b9"), "not there"),
    "an array of no field": (lambda a, d: a.update(more=np.ones(2)), "not known, as more"),
    "a list in place of fields": (
        lambda a, d: fields(d)["work"].update(fields=[1]), "cannot be read",
    ),
    "a number in place of a list": (
        lambda a, d: market_of(d)["fields"].update(names={"tuple": 7}), "cannot be read",
    ),
    "no class of ours": (
        lambda a, d: market_of(d).update({"class": "dynmech.nothing:Market"}), "not known",
    ),
    "a function of ours": (
        lambda a, d: market_of(d).update({"class": "dynmech.files.artefact:load"}), "known",
    ),
    "another class of ours": (
        lambda a, d: market_of(d).update({"class": "dynmech.market.tastes:TasteGrid"}),
        "no field",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_careful_edits_meet_the_constructors_checks(kept, tmp_path, name):
    change, word = EDITS[name]
    refused(tmp_path / "policy", edited(kept, change), word)


def test_nothing_is_imported_for_a_file(kept, tmp_path):
    data = edited(kept, lambda a, d: market_of(d).update({"class": "antigravity:Market"}))
    refused(tmp_path / "policy", data)
    assert "antigravity" not in sys.modules


def test_what_is_no_file_of_ours_is_refused(policy, tmp_path):
    with pytest.raises(dm.InvalidArgument, match=r"EfficientPolicy.load.*No such file"):
        dm.EfficientPolicy.load(tmp_path / "nothing")
    with pytest.raises(dm.InvalidArgument, match=r"EfficientPolicy.load.*folder"):
        dm.EfficientPolicy.load(tmp_path)
    with pytest.raises(dm.InvalidArgument, match=r"parts=\(MyRule,\)"):
        known_classes(("MyRule",), "load")
    dm.DynamicTeamMechanism(policy).audit().save(tmp_path / "audit")
    with pytest.raises(dm.InvalidArgument, match="hold a EfficientPolicy"):
        dm.EfficientPolicy.load(tmp_path / "audit")
    from safetensors.numpy import save

    (tmp_path / "other").write_bytes(save({"a": np.zeros(3)}))
    with pytest.raises(dm.InvalidArgument, match="header cannot be read"):
        dm.EfficientPolicy.load(tmp_path / "other")


def make_pipe(place):
    os.mkfifo(place)


def make_socket(place):
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(os.path.relpath(place))


def link_to_a_device(place):
    place.symlink_to("/dev/zero")


POSIX = pytest.mark.skipif(os.name != "posix", reason="no pipes, sockets or devices by name here")
SPECIAL = [
    *(pytest.param(make, marks=POSIX) for make in (make_pipe, make_socket, link_to_a_device)),
    Path.mkdir,
]


@pytest.mark.parametrize("make", SPECIAL)
def test_what_is_no_ordinary_file_is_refused_at_once(make, tmp_path, monkeypatch):
    """Reading a pipe that nobody writes to, or a device without an end, would not come back."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "policy")
    for kind in (dm.EfficientPolicy, dm.DynamicTeamMechanism, dm.Ledger, dm.Log):
        with pytest.raises(dm.InvalidArgument, match=rf"{kind.__name__}\.load.*(ordinary|folder)"):
            kind.load(tmp_path / "policy")
    make(tmp_path / "market.toml")
    with pytest.raises(dm.InvalidArgument, match=r"hold a file market.toml.*(ordinary|folder)"):
        dm.read_market(tmp_path)
    make(tmp_path / "sweep.json")
    with pytest.raises(dm.InvalidArgument, match=r"sweep\(folder"):
        dm.sweep(draws, {"noise": [1.0]}, folder=tmp_path, progress=False)
    made = Checkpoint(tmp_path / "kept", "mark")
    make(made.path / "part-root.safetensors")
    (made.path / "manifest.json").unlink()
    make(made.path / "manifest.json")
    assert Checkpoint(tmp_path / "kept", "mark").load(("root",)) is None
    assert sorted(x.name for x in made.path.glob("*/*"))[:2] == [
        "manifest.json", "part-root.safetensors",
    ]  # fmt: skip


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(x, y)
        assert np.asarray(x).dtype == np.asarray(y).dtype


def test_mechanisms_audits_ledgers_and_simulations_are_kept_too(policy, tmp_path):
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero(), installments=(0.5, 0.25))
    chat = policy.start(profile=0)
    ledger = mechanism.settle(chat.step("exit"))
    for name, thing in {
        "mechanism": mechanism, "audit": mechanism.audit(), "ledger": ledger,
        "simulation": mechanism.simulate(jax.random.key(0), 20),
    }.items():  # fmt: skip
        thing.save(tmp_path / name)
        again = type(thing).load(tmp_path / name)
        same(again, thing)
        same(type(thing).load(tmp_path / name), again)
    loaded = dm.DynamicTeamMechanism.load(tmp_path / "mechanism")
    same(loaded.audit(), mechanism.audit())


NETWORK = dm.Neural(
    sweeps=1, runs=4, steps=2, batch=4, width=4, summary=2, cases=2,
    certificate=dm.Certificate(runs=30, marginal_runs=30, walk=0, work=1e4),
)  # fmt: skip


def modules(tree):
    """Every class in a document with what it has there."""
    if isinstance(tree, dict):
        if "class" in tree and "member" not in tree:
            yield tree
        for below in tree.values():
            yield from modules(below)
    elif isinstance(tree, list):
        for below in tree:
            yield from modules(below)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("policy", "Layer"),
        ("audit", "Budget"),
        pytest.param("network", "Playable", marks=pytest.mark.slow),
    ],
)
def test_a_class_with_other_fields_is_refused_whichever_it_is(policy, tmp_path, kind, part):
    """As releases before and after write them: none is half read."""
    thing = policy
    if kind == "audit":
        thing = dm.DynamicTeamMechanism(policy).audit()
    elif kind == "network":
        one = dm.Profiles(np.array([[0, 1]]), np.array([[0, 0, 0]]))
        thing = dm.solve_efficient_policy(policy.env, NETWORK, initial=one, progress=False)
    thing.save(tmp_path / "artefact")
    arrays, document = unseal((tmp_path / "artefact").read_bytes())
    met = set()
    for node in modules(document["tree"]):
        name, (what, held) = node["class"].rpartition(":")[2], list(node.items())[1]
        for field in held.keys() if name not in met else ():
            other = {**node, what: {k: x for k, x in held.items() if k != field}}
            with pytest.raises(Damaged, match=f"{name}, has no field {field}: another release"):
                decode(other, arrays, {}, "load")
        met.add(name)
    assert part in met
    document["tree"]["fields"]["colour"] = "red"
    (tmp_path / "artefact").write_bytes(b"".join(seal(arrays, document)))
    with pytest.raises(dm.InvalidArgument, match="has a field colour that is not known: another"):
        type(thing).load(tmp_path / "artefact")


def test_a_second_save_is_the_same_file(policy, kept, tmp_path):
    policy.save(tmp_path / "policy")
    assert (tmp_path / "policy").read_bytes() == kept
    dm.EfficientPolicy.load(tmp_path / "policy").save(tmp_path / "again")
    assert len((tmp_path / "again").read_bytes()) == len(kept)


class Holder(eqx.Module):
    """Anything that a module may hold."""

    thing: object


def test_kinds_of_values_come_back_as_they_were(tmp_path):
    things = [
        None, True, 3, 10**30, 0.1, float("inf"), "é", (1, (2.0, "x")), [1, [2]], {"a": (1,)},
        np.float32(0.1), np.int8(3), np.bool_(True),
    ]  # fmt: skip
    for thing in things:
        files.save(Holder(thing), tmp_path / "held")
        found = files.load(tmp_path / "held", Holder, parts=(Holder,)).thing
        assert found == thing
        assert type(found) is type(thing)
    for wrong in (print, object(), 1j, {1: 2}, np.array([object()]), np.array([1j]), {1, 2}):
        with pytest.raises(dm.InvalidArgument, match="hold"):
            files.save(Holder(wrong), tmp_path / "wrong")
    with pytest.raises(dm.InvalidArgument, match="hold"):
        files.save(Holder(jax.random.key(0)), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_logs_come_back_as_they_were(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = {
        "id": ["x", "x", "é"], "turn": [1, 2, 1], "product": ["Ann", "Bob", "Ann"],
        "did": ["query", "buy", "exit"], "stars": [4.0, np.nan, np.nan],
    }  # fmt: skip
    log = dm.Log.from_frame(
        pandas.DataFrame(rows), "id", "turn", "product", "did", rating="stars", scale=(0.0, 1.0)
    )
    log.save(tmp_path / "log")
    again = dm.Log.load(tmp_path / "log")
    assert jax.tree.structure(again) == jax.tree.structure(log)
    assert again.conversations.dtype == log.conversations.dtype
    pandas.testing.assert_frame_equal(again.to_frame(), log.to_frame())


def test_the_fingerprint_is_that_of_the_market():
    one = files.fingerprint(logit_market(seed=1))
    assert files.fingerprint(logit_market(seed=1)) == one
    assert len(one) == 64
    others = [
        logit_market(seed=2), logit_market(seed=1, names=("a", "b")), logit_market(3, seed=1),
        logit_market(seed=1, rule=dm.LastShownOnly(dm.Logit(0.5), 0.6)),
        logit_market(seed=1, unit=1 + 1e-15),
    ]  # fmt: skip
    marks = {files.fingerprint(env) for env in others}
    assert len(marks | {one}) == len(others) + 1


def test_a_document_without_arrays_is_sealed_as_well():
    data = b"".join(seal({}, {"a": [1, None, "é"]}))
    assert unseal(data) == ({}, {"a": [1, None, "é"]})
    json.loads(data[8:].decode())
    with pytest.raises(Damaged, match="header is not what was written"):
        unseal(data.replace(b"[1,", b"[2,"))
