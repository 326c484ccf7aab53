"""A policy is saved where the disk (here: the size a file may have) runs out, or a link lies.

Right: a DynmechError, no litter, the old policy whole, the link's target untouched.
"""

import pathlib
import resource
import signal
import tempfile

import numpy as np

import dynmech as dm

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
place, victim = root / "policy", root / "victim.txt"
victim.write_text("somebody else's")
place.symlink_to(victim)
got = attempt(lambda: policy.save(place))
show("a link in the way", got, "refused by a DynmechError", str(got).startswith("refused"))
here = victim.read_bytes()
show("the file it points to", here, b"somebody else's", here == b"somebody else's")
place.unlink()
policy.save(place)
before = sorted(f.name for f in root.iterdir())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
got = attempt(lambda: policy.save(place))
show("no space left", got, "refused by a DynmechError", str(got).startswith("refused"))
litter = sorted({f.name for f in root.iterdir()} - set(before))
show("left besides the policy", litter, [], not litter)
whole = attempt(lambda: dm.EfficientPolicy.load(place).value)
same = np.array_equal(whole, policy.value, equal_nan=True)
show("the old policy is whole", same, True, same)
attempt(lambda: policy.save(root / "fresh" / "folder" / "policy"))
left = sorted(f.name for f in root.glob("fresh/**/*"))
show("left in new folders", left, [], not left)

raise SystemExit(bool(faults))
