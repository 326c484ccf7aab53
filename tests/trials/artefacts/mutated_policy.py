"""A saved policy is damaged on disk, comes from another version, or was edited by hand.

Right: refused at load, naming what is wrong; also where the hand sealed the file again.
"""

import pathlib
import struct
import tempfile

import numpy as np

import dynmech as dm
from solvers.files import seal, unseal

faults = []


def show(what, got, right, fine):
    mark = "" if fine else "    <-- fault"
    print(f"{what}\n  got   {got}\n  right {right}{mark}", flush=True)
    if not fine:
        faults.append(what)


def attempt(call):
    try:
        return call()
    except Exception as error:
        kind = "refused," if isinstance(error, dm.DynmechError) else "raw"
        return f"{kind} {type(error).__name__}: {' '.join(str(error).split())[:160]}"


def market(names=("Ann", "Bob"), seed=1, rating=1.0, rounds=2):
    rng = np.random.default_rng(seed)
    first = dm.GaussianSignals(2.0, 1.5, symbols=2)
    signals = dm.SignalStructure(first, dm.RatingFeedback(0.7, 3), dm.RatingSettlement(rating))
    tastes = dm.TasteGrid(rng.lognormal(0, 0.5, (5, 2)), rng.dirichlet(np.full(5, 4.0)))
    values = dm.ConstantValues(np.sort(rng.uniform(0.2, 1.2, (2, 2)), axis=1))
    rule, gamma = dm.PerfectRecall(dm.Logit(0.5), 0.6), rng.normal(size=(2, 2))
    return dm.RecommendationMDP(gamma, tastes, rounds, rule, signals, values, names)


policy = dm.solve_efficient_policy(market(), progress=False)
root = pathlib.Path(tempfile.mkdtemp())
policy.save(root / "whole")


def damaged(change):
    place = root / "damaged"
    place.write_bytes(change((root / "whole").read_bytes()))
    read = dm.EfficientPolicy.load(place)
    same = np.array_equal(read.value, policy.value, equal_nan=True)
    return "loaded" + ("" if same else ", with another W")


def fields(change):
    """Edit what the file says, and seal it again."""

    def write(data):
        arrays, document = unseal(data)
        arrays = {name: np.array(array) for name, array in arrays.items()}
        change(document["tree"]["fields"], arrays)
        return b"".join(seal(arrays, document))

    return write


def flip(data):
    data = bytearray(data)
    start = 8 + struct.unpack("<Q", data[:8])[0]  # the header of the format
    data[start + (len(data) - start) // 2] ^= 16
    return bytes(data)


def note(data):
    return data.replace(b"Exact, ", b"Other, ")


damages = {
    "one bit of the numbers": flip,
    "NaN in W": fields(lambda f, a: a[f["value"]["array"]].ravel().__setitem__(0, np.nan)),
    "a field is missing": fields(lambda f, a: f.pop("optimal")),
    "an unknown field": fields(lambda f, a: f.update(colour="red")),
    "another horizon than the plan's": fields(lambda f, a: f["env"]["fields"].update(horizon=3)),
    "two products of one name": fields(
        lambda f, a: f["env"]["fields"].update(names={"tuple": ["a", "a"]})
    ),
    "the note on the solver rewritten": note,
}
for name, change in damages.items():
    got = attempt(lambda change=change: damaged(change))
    show(name, got, "refused", got.startswith("refused"))

raise SystemExit(bool(faults))
