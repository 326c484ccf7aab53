"""Files sealed again by a careful hand: an array after another holds what no writer writes."""

import jax
import numpy as np
import pytest

import dynmech as dm
from solvers.files import seal, unseal
from tests.helpers.quantities import solve
from tests.helpers.small import logit_market

FLOATS, NONE = (np.inf, -np.inf, np.nan), (np.nan,)
# What is said with such a number: that nothing came, who spoke, or how places are numbered.
SAID = {
    "ledger": {".estimate": NONE},
    "simulation": {".estimate": NONE, ".rating": NONE, ".reported": NONE},
    "log": {".rating": NONE, ".reports": NONE, ".conversations": None},
    "policy": {
        ".evaluator.plan.tree.structure.digits": None,
        ".evaluator.compiled.situation": None,
    },
}


def places(tree, at=""):
    """Name of each array, and the first field that it is of."""
    if isinstance(tree, dict):
        if "array" in tree:
            yield tree["array"], at
        inside = ("fields", "items", "tuple", "list", "dict")
        for name, below in tree.items():
            yield from places(below, at if name in inside else f"{at}.{name}")
    elif isinstance(tree, list):
        for below in tree:
            yield from places(below, at)


def make(kind):
    policy = solve(logit_market(seed=1))
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    match kind:
        case "policy":
            return policy
        case "ledger":
            return mechanism.settle(policy.start(profile=0).step("exit"))
        case "simulation":
            return mechanism.simulate(jax.random.key(0), 20)
        case _:
            return mechanism.simulate(jax.random.key(0), 20).to_log()


def spoiled(array, rng):
    """The array with another number in one place, for every kind of number no writer writes."""
    if array.dtype.kind == "f":
        wrong = FLOATS
    else:
        ends = np.iinfo(array.dtype)
        wrong = (ends.min, -2, ends.max)
    for number in wrong:
        found = array.copy()
        found.reshape(-1)[rng.integers(array.size)] = number
        yield number, found


@pytest.mark.parametrize(
    "kind", ["ledger", "log", "simulation", pytest.param("policy", marks=pytest.mark.slow)]
)
def test_what_no_writer_writes_is_refused_in_every_array(kind, tmp_path):
    thing, path, rng = make(kind), tmp_path / "artefact", np.random.default_rng(0)
    thing.save(path)
    arrays, document = unseal(path.read_bytes())
    where = dict(places(document["tree"]))
    tried, passed = 0, []
    for name, array in arrays.items():
        if array.dtype.kind not in "fi" or not array.size:
            continue
        for number, wrong in spoiled(array, rng):
            path.write_bytes(b"".join(seal({**arrays, name: wrong}, document)))
            tried += 1
            try:
                type(thing).load(path)
            except dm.InvalidArgument:
                continue
            said = SAID[kind].get(where[name], ())
            if said is not None and not (said and np.isnan(number)):
                passed.append((where[name], number))
    assert tried > 20
    assert passed == []
