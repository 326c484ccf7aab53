"""Two equal jobs save the same policy to one file, or keep parts of one solve in one folder.

Right: both end without an error, and what is read is whole.
"""

import collections
import os
import pathlib
import tempfile
import time
import warnings

import numpy as np

import dynmech as dm
from solvers.checkpoint import Checkpoint  # a public solve uses it

faults = []


def show(what, got, right, fine):
    mark = "" if fine else "    <-- fault"
    print(f"{what}\n  got   {got}\n  right {right}{mark}", flush=True)
    if not fine:
        faults.append(what)


def market(names=("Ann", "Bob"), seed=1, rating=1.0, rounds=2):
    rng = np.random.default_rng(seed)
    first = dm.GaussianSignals(2.0, 1.5, symbols=2)
    signals = dm.SignalStructure(first, dm.RatingFeedback(0.7, 3), dm.RatingSettlement(rating))
    tastes = dm.TasteGrid(rng.lognormal(0, 0.5, (5, 2)), rng.dirichlet(np.full(5, 4.0)))
    values = dm.ConstantValues(np.sort(rng.uniform(0.2, 1.2, (2, 2)), axis=1))
    rule, gamma = dm.PerfectRecall(dm.Logit(0.5), 0.6), rng.normal(size=(2, 2))
    return dm.RecommendationMDP(gamma, tastes, rounds, rule, signals, values, names)


warnings.simplefilter("ignore")
policy = dm.solve_efficient_policy(market(), progress=False)
root = pathlib.Path(tempfile.mkdtemp())
policy.save(root / "policy")
dm.EfficientPolicy.load(root / "policy")
arrays = {"value": np.random.default_rng(0).normal(size=400_000)}


def save_policy():
    policy.save(root / "policy")
    read = dm.EfficientPolicy.load(root / "policy")
    assert np.array_equal(read.value, policy.value, equal_nan=True)


def save_part():
    part = (0, int(time.time() * 5) % 50, int(time.time() * 5) % 50 + 1)
    checkpoint = Checkpoint(root / "parts", "mark")
    checkpoint.save(part, arrays)
    read = checkpoint.load(part)
    assert read is None or np.array_equal(read["value"], arrays["value"])


for name, work in (("policies", save_policy), ("parts of a checkpoint", save_part)):
    writers = []
    for k in range(2):
        child = os.fork()
        if child == 0:
            count, end = collections.Counter(), time.time() + 6
            while time.time() < end:
                try:
                    work()
                    count["saved"] += 1
                except Exception as error:
                    count[type(error).__name__] += 1
            (root / f"{k}").write_text(repr(dict(count)))
            os._exit(0)
        writers.append(child)
    for child in writers:
        os.waitpid(child, 0)
    got = [eval((root / f"{k}").read_text()) for k in range(2)]
    fine = all(set(g) == {"saved"} for g in got)
    show(f"two writers of {name}", got, "only 'saved'", fine)

raise SystemExit(bool(faults))
