"""Ten natural mistakes of economists, ten of engineers: each message teaches.

A message names the argument, says what was got, and has the words by which a newcomer goes on.
"""

import math

import jax
import numpy as np
import pandas as pd
import pytest

import dynmech as dm
from tests.helpers.explorer import NAMES, market, plain


def policy() -> dm.EfficientPolicy:
    return plain().policy


def chat() -> dm.Conversation:
    return policy().start(profile=0)


def from_rows(**cells):
    rows = {"id": [1], "turn": [1], "product": ["tent"], "did": ["buy"]}
    frame = pd.DataFrame({**rows, **cells})
    columns = {"conversation": "id", "round": "turn", "shown": "product"}
    return dm.Log.from_frame(frame, **columns, action="did")


ECONOMISTS = {
    "weights are counts": (
        lambda: dm.TasteGrid(np.eye(2), [4, 6]),
        "TasteGrid(weights=...)", "a sum of 10", "divide by the sum",
    ),
    "a chance in percent": (
        lambda: dm.PerfectRecall(dm.Logit(0.5), query=70),
        "PerfectRecall(query=...)", "got 70", "a probability in [0, 1]",
    ),
    "more advertisers than products": (
        lambda: market(values=dm.ConstantValues([0.5, 0.6, 0.7])),
        "RecommendationMDP(values=...)", "got (3, 1)", "for each of the 2 products",
    ),
    "characteristics by rows": (
        lambda: market(gamma=[[1.0, -0.4, 0.3], [-0.5, 0.9, 0.2]]),
        "RecommendationMDP(tastes=...)", "got (2, 2)", "gamma has 3 columns",
    ),
    "a prior in percent": (
        lambda: dm.ConstantValues([[0.5, 0.9]] * 2, prior=[[50, 50]] * 2),
        "ConstantValues(prior=...)", "a sum of 100", "divide by the sum",
    ),
    "the pivot by name": (
        lambda: dm.DynamicTeamMechanism(policy(), groves="pivot"),
        "DynamicTeamMechanism(groves=...)", "got 'pivot'", "groves.Participation()",
    ),
    "money as a list": (
        lambda: policy().start([0.5, 0.7], (0, 0, 0)),
        "theta=...", "declared support, [0.6", "pass one of them",
    ),
    "a value nobody has": (
        lambda: policy().start(dict(zip(NAMES, (0.55, 0.6))), (0, 0, 0)),
        "theta=...", "0.55", "[0.5, 0.9]",
    ),
    "a conversation without end": (
        lambda: dm.solve_efficient_policy(
            market(horizon=math.inf, action_rule=dm.LastShownOnly(dm.Logit(0.5), query=1.0)),
            progress=False,
        ),
        "RecommendationMDP(action_rule=...)", "query probability 1 for ever", "a finite horizon",
    ),
    "a purchase settled without a rating": (
        lambda: plain().settle(chat().step(0)),
        "settle(estimate=...)", "got None", "pass the rating drawn",
    ),
}  # fmt: skip

ENGINEERS = {
    "a market that is an array": (
        lambda: dm.solve_efficient_policy(np.eye(2)),
        "solve_efficient_policy(env=...)", "numpy.ndarray", "RecommendationMDP(gamma, ...)",
    ),
    "a mechanism of a market": (
        lambda: dm.DynamicTeamMechanism(market()),
        "DynamicTeamMechanism(policy=...)", "RecommendationMDP", "solve_efficient_policy(env)",
    ),
    "a class where an object belongs": (
        lambda: dm.solve_efficient_policy(market(), dm.Exact),
        "solve_efficient_policy(solver=...)", "Exact", "such as Exact()",
    ),
    "a seed for a key": (
        lambda: plain().simulate(0, 10),
        "simulate(key=...)", "got 0", "jax.random.key(0)",
    ),
    "a word of one's own": (
        lambda: chat().step("querry"),
        "Conversation.step(action=...)", "got querry", "did you mean 'query'",
    ),
    "symbols from 1": (
        lambda: chat().step("query", {"platform": 2}),
        "signals=...", "[2, 0, 0]", "count from 0",
    ),
    "ragged rows": (
        lambda: market(gamma=[[1.0], [1.0, 2.0]]),
        "RecommendationMDP(gamma=...)", "[[1.0], [1.0, 2.0]]", "every row as many",
    ),
    "a conversation that is over": (
        lambda: chat().step("exit").recommendation,
        "Conversation.recommendation", "got ended", ".undo()",
    ),
    "a column of another log": (
        lambda: dm.Log.from_frame(
            pd.DataFrame({"id": [1]}), conversation="id", round="turn", shown="id", action="id"
        ),
        "Log.from_frame(round=...)", "got 'turn'", "the columns are id",
    ),
    "an event of another log": (
        lambda: from_rows(did=["purchase"]),
        "Log.from_frame(action=...)", "'purchase' in conversation 1", "write buy, exit, query",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "argument", "got", "remedy"),
    [*ECONOMISTS.values(), *ENGINEERS.values()],
    ids=[*ECONOMISTS, *ENGINEERS],
)
def test_the_message_teaches(untyped, make, argument, got, remedy):
    with pytest.raises(dm.DynmechError) as refused:
        make()
    said = str(refused.value)
    assert said.startswith(f"`{argument}`")
    assert "got " in said
    assert got in said
    assert remedy in said
    assert len(said) < 450


def test_a_key_is_what_the_message_says():
    assert plain().simulate(jax.random.key(0), 10).payment.shape == (10, 2)
