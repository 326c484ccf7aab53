"""The small market whose page is looked at, and what stands on a page."""

import functools
import json
import re
from typing import Any

import numpy as np

import dynmech as dm

NAMES = ["</script><b>", "$x$ <!--data-->"]


def market(**changes: Any) -> dm.RecommendationMDP:
    """Two products, two rounds, two answers; two values each."""
    parts = {
        "gamma": [[1.0, -0.5], [-0.4, 0.9]],
        "tastes": dm.TasteGrid(np.eye(2), [0.4, 0.6]),
        "horizon": 2,
        "action_rule": dm.PerfectRecall(dm.Logit(0.5), query=0.7),
        "signals": dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2)),
        "values": dm.ConstantValues([[0.5, 0.9], [0.6, 0.2]]),
        "names": NAMES,
    }
    return dm.RecommendationMDP(**{**parts, **changes})


@functools.cache
def plain() -> dm.DynamicTeamMechanism:
    """That market, solved and priced."""
    return priced(market(), groves=dm.groves.WindowCeiling())


def priced(env: dm.RecommendationMDP, **settings: Any) -> dm.DynamicTeamMechanism:
    return dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False), **settings)


def data_of(page: str) -> dict[str, Any]:
    """The numbers of a page, given its text."""
    (text,) = re.findall(r'<script type="application/json" id="dynmech-data">(.*?)</script>', page)
    return json.loads(text)
