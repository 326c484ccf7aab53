"""What users get wrong when they describe a market, one function each.

A mistake is made as a user makes it, without run-time type checks: see `mistakes_in_use`.
"""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

import dynmech as dm
from tests.helpers.markets import random_market
from tests.helpers.small import logit_market


@dataclasses.dataclass(frozen=True)
class Mistake:
    """`make` raises `kind`, and the message holds every one of `words`."""

    make: Callable[[], object]
    kind: str
    words: tuple[str, ...]


MISTAKES: dict[str, Mistake] = {}


def mistake(name: str, kind: str, *words: str):
    def keep(make):
        MISTAKES[name] = Mistake(make, kind, words)
        return make

    return keep


def case(**options):
    return random_market(np.random.default_rng(0), **options)


def tables(drop=(), base=None, **changes):
    arguments = (case() if base is None else base) | changes
    return dm.RecommendationMDP.from_tables(**{k: v for k, v in arguments.items() if k not in drop})


def spoilt(key, index, value, **options):
    table = np.array(case(**options)[key], float)
    table[index] = value
    return {key: table}


def market(**changes):
    env = logit_market()
    arguments = {
        "gamma": env.gamma, "tastes": env.tastes, "horizon": 2, "action_rule": env.action_rule,
        "signals": dm.SignalStructure(feedback=dm.RatingFeedback()), "values": env.values,
    }  # fmt: skip
    return dm.RecommendationMDP(**(arguments | changes))


def policy(**changes):
    return solved(market(**changes))


def solved(env, solver=None, **options):
    return dm.solve_efficient_policy(env, solver, progress=False, **options)


# Shapes, one for each argument of from_tables and of the constructor.
for _key, _cut in {
    "gamma": (slice(None), slice(0, 1)),
    "prior": slice(0, 3),
    "action": slice(0, 5),
    "feedback": slice(0, 5),
    "initial_signals": slice(0, 2),
    "theta_prior": slice(0, 1),
    "theta_kernel": slice(0, 1),
    "estimator": slice(0, 2),
}.items():
    mistake(f"from_tables: short {_key}", "InvalidArgument", "(", "shape")(
        lambda key=_key, cut=_cut: tables(**{key: case()[key][cut]})
    )
mistake("from_tables: omega without columns", "InvalidArgument", "shape")(
    lambda: tables(omega=case()["omega"][:, 0])
)
mistake("from_tables: values of another market", "InvalidArgument", "shape")(
    lambda: tables(theta_support=np.ones((3, 2)), theta_prior=np.full((3, 2), 0.5))
)

# Probabilities. The name a user typed is the name she should read.
for _key, _index, _value in (
    ("prior", 0, 0.9),
    ("action", (0, 0, 0), 0.9),
    ("feedback", (0, 0, 0, 0, 0), 1.5),
    ("initial_signals", (0, 0, 0, 0), 1.5),
    ("theta_prior", (0, 0), 0.9),
    ("theta_kernel", (0, 0, 0, 0), 0.9),
):
    mistake(f"from_tables: {_key} does not sum to 1", "InvalidProbability", _key, "sum to 1")(
        lambda key=_key, index=_index, value=_value: tables(**spoilt(key, index, value))
    )
    mistake(f"from_tables: negative {_key}", "InvalidProbability", _key, "nonnegative", "-0.25")(
        lambda key=_key, index=_index: tables(**spoilt(key, index, -0.25))
    )
for _key in (
    "gamma", "omega", "prior", "action", "feedback", "initial_signals", "theta_support",
    "theta_prior", "theta_kernel", "estimator",
):  # fmt: skip
    for _bad in (math.nan, math.inf):
        mistake(f"from_tables: {_bad} in {_key}", "NotFinite", _key, str(_bad))(
            lambda key=_key, bad=_bad: tables(
                **spoilt(key, (0,) * np.ndim(case()[key]), bad, biased=True)
            )
        )


@mistake("from_tables: kernel negative though rows sum to 1", "InvalidProbability", "kernel")
def negative_kernel():
    return tables(**spoilt("theta_kernel", (0, 0, 0), [-0.5, 1.5]))


@mistake("from_tables: unseen purchase", "UnseenPurchase", "product 1", "shown")
def unseen_in_tables():
    table = case()["action"]
    table[0, 1], table[0, 2] = 0.1, table[0, 2] - 0.1
    table[0] = np.abs(table[0]) / np.abs(table[0]).sum(0)
    return solved(tables(action=table))


# An empty market, and the horizon.
mistake("no products", "InvalidArgument", "gamma", "at least one product")(
    lambda: market(gamma=np.zeros((0, 2)))
)
mistake("no characteristics", "InvalidArgument", "gamma", "characteristic")(
    lambda: market(gamma=np.zeros((2, 0)))
)
mistake("no tastes", "InvalidArgument", "points", "m")(
    lambda: dm.TasteGrid(np.zeros((0, 2)), np.zeros(0))
)
mistake("no values", "InvalidArgument", "support")(lambda: dm.ConstantValues(np.zeros((2, 0))))
mistake("no products in tables", "InvalidArgument", "gamma")(lambda: tables(gamma=np.zeros((0, 2))))
for _horizon in (0, -1, 1.5, True, math.nan, None, "two", -math.inf):
    mistake(f"horizon {_horizon!r}", "InvalidArgument", "horizon", ">= 1", str(_horizon))(
        lambda horizon=_horizon: market(horizon=horizon)
    )
    mistake(f"from_tables: horizon {_horizon!r}", "InvalidArgument", "horizon")(
        lambda horizon=_horizon: tables(horizon=horizon)
    )
mistake("from_tables: endless", "InvalidArgument", "horizon", "inf")(
    lambda: tables(horizon=math.inf)
)
mistake("endless, exactly", "InvalidArgument", "horizon", "finite", "BestFirst")(
    lambda: solved(market(horizon=math.inf), dm.Exact())
)
mistake("endless, to no tolerance", "InvalidArgument", "tolerance", "positive", "money")(
    lambda: solved(market(horizon=math.inf))
)
mistake("endless, and nobody ever stops asking", "InvalidArgument", "action_rule", "taste point 0")(
    lambda: solved(
        market(horizon=math.inf, action_rule=dm.LastShownOnly(dm.Logit(1.0), 1.0)), tolerance=0.1
    )
)
mistake("endless, with a table of histories", "InvalidArgument", "action_rule", "Tabulated")(
    lambda: market(horizon=math.inf, action_rule=dm.Tabulated(np.full((3, 4, 5), 1 / 4)))
)
mistake("Stationary for two rounds", "InvalidArgument", "horizon", "inf", "Exact")(
    lambda: solved(market(), dm.Stationary())
)

# The parts of a market.
mistake("flat gamma", "InvalidArgument", "gamma", "(n, k)")(lambda: market(gamma=np.ones(2)))
mistake("ragged gamma", "InvalidArgument", "gamma")(lambda: market(gamma=[[1.0, 2.0], [1.0]]))
mistake("gamma of words", "InvalidArgument", "gamma")(
    lambda: market(gamma=[["a", "b"], ["c", "d"]])
)
mistake("tastes of another dimension", "InvalidArgument", "tastes", "(m, 2)")(
    lambda: market(tastes=dm.TasteGrid(np.ones((2, 3)), [0.5, 0.5]))
)
mistake("tastes as an array", "InvalidArgument", "tastes", "TasteGrid")(
    lambda: market(tastes=np.ones((3, 2)))
)
mistake("a rule's class, not a rule", "InvalidArgument", "action_rule")(
    lambda: market(action_rule=dm.PerfectRecall)
)
mistake("feedback as signals", "InvalidArgument", "signals", "SignalStructure")(
    lambda: market(signals=dm.RatingFeedback())
)
mistake("values as an array", "InvalidArgument", "values")(lambda: market(values=np.ones((2, 2))))
mistake("values of three for two", "InvalidArgument", "values", "2 products")(
    lambda: market(values=dm.ConstantValues(np.ones((3, 2))))
)
mistake("too few names", "InvalidArgument", "names", "2")(lambda: market(names=("a",)))
mistake("the same name twice", "InvalidArgument", "names")(lambda: market(names=("a", "a")))
for _word in ("exit", "query", "platform", "none"):
    mistake(f"a product called {_word}", "InvalidArgument", "names", _word)(
        lambda word=_word: market(names=("a", word))
    )
mistake("prior of three values for two", "InvalidArgument", "prior", "(n, K)")(
    lambda: dm.ConstantValues(np.ones((2, 2)), np.full((2, 3), 1 / 3))
)
mistake("kernel of another size", "InvalidArgument", "kernel", "(n+1, n, K, K)")(
    lambda: dm.MarkovValues(np.ones((2, 2)), np.full((2, 2), 0.5), np.ones((2, 3, 3)) / 3)
)

# Rules.
mistake("scale of zero", "InvalidArgument", "scale", "positive")(lambda: dm.Logit(0.0))
mistake("scale of NaN", "NotFinite", "scale")(lambda: dm.Logit(math.nan))
mistake("scale for another grid", "InvalidArgument", "scale", "(m,)")(
    lambda: policy(action_rule=dm.PerfectRecall(dm.Logit(np.ones(3)), 0.5))
)
mistake("query above one", "InvalidArgument", "query", "[0, 1]")(
    lambda: dm.PerfectRecall(dm.Threshold(), 1.5)
)
mistake("query of NaN", "NotFinite", "query")(lambda: dm.LastShownOnly(dm.Threshold(), math.nan))
mistake("query for another market", "InvalidArgument", "level", "(n,")(
    lambda: policy(action_rule=dm.PerfectRecall(dm.Threshold(), dm.ProductQuery([0.5] * 3)))
)
mistake("falling query upside down", "InvalidArgument", "low", "high")(
    lambda: dm.FallingQuery(low=0.9, high=0.1)
)
mistake("falling query with no slope", "InvalidArgument", "slope", "positive")(
    lambda: dm.FallingQuery(slope=0.0)
)
mistake("decay above one", "InvalidArgument", "decay")(
    lambda: dm.ImperfectRecall(dm.Threshold(), 0.5, decay=1.2)
)
mistake("table of another horizon", "InvalidArgument", "action", "shape")(
    lambda: policy(action_rule=dm.Tabulated(case()["action"][:3, :, [0] * 5]))
)
mistake("table of another market", "InvalidArgument", "shape")(
    lambda: policy(action_rule=dm.Tabulated(np.full((12, 3, 5), 1 / 3)))
)
mistake("tabulated feedback without tabulated rule", "InvalidArgument", "Tabulated")(
    lambda: policy(
        signals=dm.SignalStructure(feedback=dm.TabulatedFeedback(np.ones((12, 5, 1, 1, 1))))
    )
)
mistake("tabulated settlement without tabulated rule", "InvalidArgument", "Tabulated")(
    lambda: policy(
        signals=dm.SignalStructure(settlement=dm.TabulatedSettlement(np.ones((12, 2, 5))))
    )
)

# Signals.
mistake("channel without probabilities", "InvalidProbability", "ChannelFeedback", "sum to 1")(
    lambda: dm.ChannelFeedback(np.ones((3, 5, 2, 1, 1)))
)
mistake("channel of another market", "InvalidArgument", "ChannelFeedback", "shape")(
    lambda: market(
        signals=dm.SignalStructure(feedback=dm.ChannelFeedback(np.ones((4, 5, 1, 1, 1))))
    )
)
mistake("joint table of another market", "InvalidArgument", "JointSignals", "shape")(
    lambda: market(signals=dm.SignalStructure(initial=dm.JointSignals(np.ones((5, 1, 1)))))
)
mistake("noise of zero", "InvalidArgument", "noise", "positive")(
    lambda: dm.RatingFeedback(noise=0.0)
)
mistake("noise for another market", "InvalidArgument", "noise", "(n,)")(
    lambda: market(
        signals=dm.SignalStructure(
            feedback=dm.RatingFeedback(noise=[1.0, 2.0, 3.0], by_product=True)
        )
    )
)
mistake("noise for fewer rounds", "InvalidArgument", "noise", "(T,)")(
    lambda: policy(
        horizon=4, signals=dm.SignalStructure(feedback=dm.RatingFeedback(noise=[1.0, 2.0]))
    )
)
mistake("one symbol", "InvalidArgument", "symbols", "at least 2")(
    lambda: dm.RatingFeedback(symbols=1)
)
mistake("correlation of one", "InvalidArgument", "correlation", "[0, 1)")(
    lambda: dm.GaussianSignals(platform=1.0, correlation=1.0)
)
mistake("cuts for another alphabet", "InvalidArgument", "cuts", "symbols - 1")(
    lambda: market(
        signals=dm.SignalStructure(
            feedback=dm.RatingFeedback(symbols=5, cuts=np.array([[0.0, 1.0]] * 2))
        )
    )
)
mistake("cuts out of order", "DynmechError", "cuts")(
    lambda: policy(
        signals=dm.SignalStructure(
            feedback=dm.RatingFeedback(symbols=3, cuts=np.array([[1.0, 0.0]] * 2))
        )
    )
)
mistake("advertisers of another market", "InvalidArgument", "advertisers", "(2,)")(
    lambda: market(
        signals=dm.SignalStructure(initial=dm.GaussianSignals(advertisers=[1.0, 2.0, 3.0]))
    )
)
mistake("deviation below zero", "InvalidArgument", "deviation")(lambda: dm.RatingSettlement(-1.0))

# Arrays of JAX are checked like any other.
mistake("joint table of JAX that does not sum to 1", "InvalidProbability", "JointSignals")(
    lambda: dm.JointSignals(jnp.ones((5, 2, 1, 1)))
)
mistake("scale of JAX below zero", "InvalidArgument", "scale", "positive")(
    lambda: dm.Logit(jnp.asarray(-1.0))
)
mistake("decay of JAX above one", "InvalidArgument", "decay")(
    lambda: dm.ImperfectRecall(dm.Threshold(), 0.5, decay=jnp.asarray(1.7))
)
mistake("query of JAX above one", "InvalidArgument", "level")(
    lambda: dm.ConstantQuery(jnp.asarray(1.5))
)
mistake("noise of JAX below zero", "InvalidArgument", "noise")(
    lambda: dm.RatingFeedback(noise=jnp.asarray(-1.0))
)
