"""What users get wrong with a market in hand: solving, paying, talking, keeping files.

`python -m tests.helpers.mistakes_in_use` makes every mistake, also those of `mistakes`, and
prints a JSON object: for each name the names of the error's classes and its message; None where
nothing was raised.
"""

import functools
import json
import math
import sys
import tempfile
import warnings
from pathlib import Path

import jax
import numpy as np

import dynmech as dm
from tests.helpers.mistakes import MISTAKES, market, mistake, policy, solved
from tests.helpers.small import logit_market


@functools.cache
def mechanism():
    return dm.DynamicTeamMechanism(policy())


# Solving.
mistake("a solver's class", "InvalidArgument", "solver", "Exact")(
    lambda: solved(market(), dm.Exact)
)
mistake("tolerance below zero", "InvalidArgument", "tolerance", ">= 0")(
    lambda: solved(market(), tolerance=-1.0)
)
mistake("tolerance of NaN", "InvalidArgument", "tolerance")(
    lambda: solved(market(), tolerance=math.nan)
)
mistake("initial as a tuple", "InvalidArgument", "initial", "sample_profiles")(
    lambda: solved(market(), initial=((0, 0), (0, 0, 0)))
)
mistake("initial of no profile", "InvalidArgument", "initial", "at least one")(
    lambda: solved(market(), initial=dm.Profiles(np.zeros((0, 2), int), np.zeros((0, 3), int)))
)
mistake("initial without the platform", "InvalidArgument", "initial", "(B, 3)")(
    lambda: solved(market(), initial=dm.Profiles(np.zeros((1, 2), int), np.zeros((1, 2), int)))
)
mistake("initial in money", "InvalidArgument", "theta", "integer")(
    lambda: solved(market(), initial=dm.Profiles(np.zeros((1, 2)), np.zeros((1, 3), int)))
)
mistake("initial outside the support", "OutsideSupport", "initial", "0..1", "7")(
    lambda: solved(market(), initial=dm.Profiles(np.full((1, 2), 7), np.zeros((1, 3), int)))
)
mistake("initial below the support", "OutsideSupport", "initial", "-1")(
    lambda: solved(market(), initial=dm.Profiles(np.full((1, 2), -1), np.zeros((1, 3), int)))
)
mistake("initial outside the alphabet", "OutsideSupport", "initial", "signals", "5")(
    lambda: solved(market(), initial=dm.Profiles(np.zeros((1, 2), int), np.full((1, 3), 5)))
)
mistake("no draws", "InvalidArgument", "count")(
    lambda: market().sample_profiles(jax.random.key(0), 0)
)


def crowd():
    signals = dm.SignalStructure(
        initial=dm.GaussianSignals(platform=1.0, advertisers=1.0, symbols=4),
        feedback=dm.RatingFeedback(),
    )
    rng = np.random.default_rng(0)
    return market(
        gamma=rng.normal(size=(6, 2)), signals=signals, values=dm.ConstantValues(np.ones((6, 2)))
    )


mistake("too many profiles", "TooLarge", "initial", "1048576", "sample_profiles")(
    lambda: solved(crowd())
)
mistake("too large a tree", "TooLarge", "memory", "nodes", "reduce", "rounds")(
    lambda: solved(market(horizon=14), dm.Exact(memory=1e6))
)
mistake("too large a tree, unmerged", "TooLarge", "memory", "reduce")(
    lambda: solved(market(horizon=12), dm.Exact(merge=False))
)


def showroom(n, values):
    return dm.RecommendationMDP(
        np.ones((n, 1)), dm.TasteGrid([[1.0]], [1.0]), 2, dm.LastShownOnly(dm.Logit(1.0), 0.5),
        dm.SignalStructure(), values,
    )  # fmt: skip


mistake("more profiles than can be listed", "TooLarge", "initial", "2000000")(
    lambda: solved(showroom(40, dm.ConstantValues(np.ones((40, 1)) * [1.0, 2.0])))
)
mistake("too many values that move", "TooLarge", "values")(  # a kernel of 24 TB
    lambda: solved(
        showroom(2, dm.MarkovValues(np.ones((2, 1000)), None, np.full((2, 1000, 1000), 1e-3))),
        initial=dm.Profiles(np.zeros((1, 2), int), np.zeros((1, 3), int)),
    )
)
mistake("twelve values that move", "TooLarge", "values", "2**12 = 4096")(
    lambda: solved(
        showroom(12, dm.MarkovValues(np.ones((12, 2)), None, np.full((12, 2, 2), 0.5))),
        initial=dm.Profiles(np.zeros((1, 12), int), np.zeros((1, 13), int)),
    )
)
mistake("memory of nothing", "DynmechError", "memory")(lambda: solved(market(), dm.Exact(memory=0)))
mistake("ex-ante value of a batch", "DynmechError", "ex_ante_value", "without `initial`")(
    lambda: solved(market(), initial=batch()).ex_ante_value
)
mistake("ex-ante marginal value of a batch", "DynmechError", "ex_ante_marginal_value", "batch")(
    lambda: solved(market(), initial=batch()).ex_ante_marginal_value
)
mistake("ex-ante Groves term of a batch", "DynmechError", "ExAnte", "sampled=True")(
    lambda: dm.DynamicTeamMechanism(solved(market(), initial=batch()), dm.groves.ExAnte())
)


def batch():
    return dm.Profiles(np.zeros((2, 2), int), np.zeros((2, 3), int))


# Other numbers on the same tree.
mistake("revalue: support of another shape", "InvalidArgument", "theta_support", "(n, K)")(
    lambda: mechanism().policy.revalue(theta_support=np.ones(2))
)
mistake("revalue: gamma of another shape", "InvalidArgument", "gamma", "shape")(
    lambda: mechanism().policy.revalue(gamma=np.ones((2, 3)))
)
mistake("revalue: gamma of more products", "InvalidArgument", "gamma", "shape")(
    lambda: mechanism().policy.revalue(gamma=np.ones((3, 2)))
)
mistake("revalue: prior of another grid", "InvalidArgument", "prior", "shape")(
    lambda: mechanism().policy.revalue(prior=np.ones(3) / 3)
)
mistake("revalue: prior of one number", "InvalidArgument", "prior", "shape")(
    lambda: mechanism().policy.revalue(prior=np.ones(1))
)

# Mechanisms.
mistake("mechanism of a market", "InvalidArgument", "policy", "solve_efficient_policy")(
    lambda: dm.DynamicTeamMechanism(market())
)
mistake("a Groves term's class", "InvalidArgument", "groves")(
    lambda: dm.DynamicTeamMechanism(mechanism().policy, groves=dm.groves.Zero)
)
mistake("an estimator that is none", "InvalidArgument", "estimator")(
    lambda: dm.DynamicTeamMechanism(mechanism().policy, estimator=0.5)
)
mistake("other reports", "InvalidArgument", "reports", "incremental")(
    lambda: dm.DynamicTeamMechanism(mechanism().policy, reports="whenever")
)
mistake("other histories", "InvalidArgument", "histories", "on-path")(
    lambda: mechanism().audit(histories="everywhere")
)
mistake("a settlement that is none", "InvalidArgument", "settlement")(
    lambda: mechanism().audit(settlement="second price")
)
mistake("payment: theta of three", "InvalidArgument", "theta", "(2,)")(
    lambda: mechanism().payment([1.0, 1.0, 1.0], 0, 0.5)
)
mistake("payment: estimate of three", "InvalidArgument", "estimate")(
    lambda: mechanism().payment([1.0, 1.0], 0, [0.5, 0.5, 0.5])
)
mistake("payment: no such action", "OutsideSupport", "action", "0..3")(
    lambda: mechanism().payment([1.0, 1.0], 4, 0.5)
)
mistake("payment: half an action", "DynmechError", "action", "0.5")(
    lambda: mechanism().payment([1.0, 1.0], 0.5, 0.5)
)
mistake("payment: NaN", "NotFinite", "estimate")(
    lambda: mechanism().payment([1.0, 1.0], 0, math.nan)
)


# Conversations.
@functools.cache
def chat():
    signals = dm.SignalStructure(
        initial=dm.GaussianSignals(platform=1.0, symbols=2), feedback=dm.RatingFeedback(symbols=3)
    )
    return policy(names=("chair", "table"), signals=signals)


KNOWN = {"theta": (0, 0), "signals": {"platform": 0}}
mistake("start: unknown label", "OutsideSupport", "signals", "platform, chair, table", "sofa")(
    lambda: chat().start(theta=(0, 0), signals={"platform": 0, "sofa": 1})
)
mistake("start: no signals", "InvalidArgument", "signals", "platform")(
    lambda: chat().start(theta=(0, 0))
)
mistake("start: no theta", "InvalidArgument", "theta")(
    lambda: chat().start(signals={"platform": 0})
)
mistake("start: theta of a stranger", "OutsideSupport", "theta", "chair, table")(
    lambda: chat().start(theta={"chair": 0.1, "sofa": 0.2}, signals={"platform": 0})
)
mistake("start: money outside the support", "OutsideSupport", "theta", "support", "99")(
    lambda: chat().start(theta={"chair": 99.0, "table": 0.2}, signals={"platform": 0})
)
mistake("start: index outside the support", "OutsideSupport", "theta", "0..1")(
    lambda: chat().start(theta=(0, 5), signals={"platform": 0})
)
mistake("start: money without names", "OutsideSupport", "theta", "0.3")(
    lambda: chat().start(theta=(0.3, 0.4), signals={"platform": 0})
)
mistake("start: symbol outside the alphabet", "OutsideSupport", "signals")(
    lambda: chat().start(theta=(0, 0), signals={"platform": 2})
)
mistake("start: profile and theta", "InvalidArgument", "start", "either")(
    lambda: chat().start(theta=(0, 0), profile=0)
)
mistake("start: no such profile", "OutsideSupport", "profile", "0..7")(
    lambda: chat().start(profile=8)
)
mistake("start: profile not solved", "OutsideSupport", "solved", "initial")(
    lambda: solved(logit_market(), initial=batch()).start(theta=(1, 1), signals=(1, 1, 1))
)
mistake("step: unknown label", "OutsideSupport", "action", "sofa", "chair")(
    lambda: chat().start(**KNOWN).step("sofa")
)
mistake("step: no such code", "OutsideSupport", "action", "0..3")(
    lambda: chat().start(**KNOWN).step(4)
)
mistake("step: half a code", "DynmechError", "action", "0.5")(
    lambda: chat().start(**KNOWN).step(0.5)
)
mistake("step: other values", "InvalidArgument", "theta", "constant")(
    lambda: chat().start(**KNOWN).step("query", {"platform": 0}, theta=(1, 0))
)
mistake("step: after the end", "InvalidArgument", "progress", "undo")(
    lambda: chat().start(**KNOWN).step("exit").step("exit")
)
mistake("recommendation after the end", "InvalidArgument", "progress")(
    lambda: chat().start(**KNOWN).step("exit").recommendation
)
mistake("undo: nothing", "InvalidArgument", "undo")(lambda: chat().start(**KNOWN).undo())
mistake("settle: in progress", "InvalidArgument", "conversation", "ended")(
    lambda: settle(chat(), lambda c: c)
)
mistake("settle: no estimate", "InvalidArgument", "estimate", "rating")(
    lambda: settle(chat(), lambda c: c.step(max(c.recommendation, 0)))
)
mistake("settle: another policy's conversation", "InvalidArgument", "conversation", "policy")(
    lambda: dm.DynamicTeamMechanism(policy(horizon=1)).settle(chat().start(**KNOWN).step("exit"))
)


def settle(solution, go):
    return dm.DynamicTeamMechanism(solution).settle(go(solution.start(**KNOWN)))


# Files.
def stored(spoil):
    """Load a policy whose file was spoiled."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy"
        mechanism().policy.save(path)
        spoil(path)
        return dm.EfficientPolicy.load(path)


def flip(path):
    """Change one byte in the middle."""
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(bytes(held))


mistake("save: over a folder", "InvalidArgument", "path", "folder")(
    lambda: mechanism().policy.save(tempfile.gettempdir())
)
mistake("load: no file", "InvalidArgument", "path", "nowhere")(
    lambda: dm.EfficientPolicy.load("nowhere")
)
mistake("load: cut short", "InvalidArgument", "path")(
    lambda: stored(lambda path: path.write_bytes(path.read_bytes()[:-40]))
)
mistake("load: one byte changed", "InvalidArgument", "path")(lambda: stored(flip))
mistake("load: something else", "InvalidArgument", "path")(
    lambda: stored(lambda path: path.write_text("a letter"))
)


def main() -> None:
    found = {}
    warnings.simplefilter("ignore", dm.MiscompilingJaxWarning)
    for name, one in MISTAKES.items():
        try:
            one.make()
            found[name] = None
        except Exception as error:
            classes = [c.__name__ for c in type(error).__mro__]
            found[name] = {"classes": classes, "message": str(error)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
