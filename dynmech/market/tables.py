"""Write a market as a folder of tables: products and tastes in CSV, everything else in TOML.

What the files hold is said in `dynmech.market.read`, which reads them back.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from typing import Any

import numpy as np

from dynmech import _checks as checks
from dynmech.errors import InvalidArgument, describe
from dynmech.files.writing import write
from dynmech.market import choices, feedback, rules, settlements, signals, structures, values
from dynmech.market.missing import RatingLaw
from dynmech.market.trembling import Trembling

_GAUSS = ("platform", "advertisers", "symbols", "correlation", "nodes", "cuts")
LAW = ("intercept", "slope", "low")  # of a chance by the rating
_RATING = ("noise", "symbols", "advertisers", "correlation", "by_product", "cuts")
MONEY = ("round_cost", "exit_value")
DISPLAYS = ("size", "ordered", "of")
_PRIVATE = ("structures", "prior", "labels")

# Section -> names that `kind` may have, with the arguments that the class takes.
KINDS: dict[str, dict[type, tuple[str, ...]]] = {
    "rule": {
        rules.PerfectRecall: (),
        rules.LastShownOnly: ("stays",),
        rules.ImperfectRecall: ("decay",),
        rules.Tabulated: ("action",),
    },
    "choice": {choices.Logit: ("scale",), choices.Threshold: ()},
    "query": {
        choices.ConstantQuery: ("level",),
        choices.ProductQuery: ("level", "none"),
        choices.FallingQuery: ("level", "location", "slope", "low", "high", "nothing"),
    },
    "signals": {
        signals.GaussianSignals: _GAUSS,
        signals.JointSignals: ("table",),
        signals.NoSignals: (),
        structures.PrivateStructures: _PRIVATE,
    },
    "feedback": {
        feedback.RatingFeedback: _RATING,
        feedback.ChannelFeedback: ("table",),
        feedback.TabulatedFeedback: ("table",),
        feedback.NoFeedback: (),
        structures.PrivateFeedback: _PRIVATE,
    },
    "settlement": {
        signals.RatingSettlement: ("deviation", "limits", "outside"),
        settlements.TabulatedSettlement: ("utility",),
    },
    "values": {
        values.ConstantValues: ("prior", "interval"),
        values.MarkovValues: ("prior", "kernel"),
    },
}

CHOOSE = (rules.PerfectRecall, rules.LastShownOnly, rules.ImperfectRecall)  # by choice and query


def write_market(env: Any, path: str | os.PathLike[str]) -> None:
    """Write a market of built-in parts to a folder that `read_market` reads back, digit by digit.

    **Arguments:** `path`: a folder, made if it is not there; files of a market in it are replaced.

    **Raises:** `InvalidArgument` for a part that is not built in (it is code, not a table), and for
    names with spaces at their ends.
    """
    padded = [name for name in env.names if name != name.strip()]
    if padded:
        must, do = "have names without spaces at their ends, which tables drop", "rename them"
        raise InvalidArgument(describe("write: names", must, padded, do))
    k = env.gamma.shape[1]
    features = [f"characteristic_{j + 1}" for j in range(k)]
    support, prior = np.asarray(env.values.support), np.asarray(env.values.prior)
    size = support.shape[1]
    heads = ["theta"] if size == 1 else [f"theta_{j + 1}" for j in range(size)]
    money = support
    if size > 1 and not env.values.correlated:
        heads += [f"chance_{j + 1}" for j in range(size)]
        money = np.concatenate([support, prior], axis=1)
    rows = np.concatenate([np.asarray(env.gamma, float), money], axis=1)
    products = [["name", *features, *heads]]
    products += [[name, *map(_digits, row)] for name, row in zip(env.names, rows.tolist())]
    points = np.column_stack([env.tastes.weights, np.asarray(env.tastes.points, float)])
    tastes = [["weight", *features], *([*map(_digits, row)] for row in points.tolist())]
    text = _settings(env, joint=env.values.correlated)
    folder = checks.path("write(path=...)", path)
    write(folder / "products.csv", _csv(products), call="write(path=...)")
    write(folder / "tastes.csv", _csv(tastes), call="write(path=...)")
    write(folder / "market.toml", text, call="write(path=...)")


def _settings(env: Any, joint: bool) -> str:
    """`market.toml` of a market of built-in parts."""
    rule, lines = env.action_rule, [f"horizon = {_value(env.horizon)}", "", "[behaviour]"]
    outer = type(rule)
    if outer in (Trembling,):  # not a class of one's own made of it
        lines += [f"trembling = {_value(rule.chance)}"]
        rule = rule.rule
    kind, own = _written("action_rule", "rule", rule)
    lines += [f'rule = "{kind}"', *(f"{key} = {value}" for key, value in own.items())]
    if isinstance(rule, CHOOSE):
        choice, scale = _written("action_rule.choice", "choice", rule.choice)
        lines += [f'choice = "{choice}"', *(f"{key} = {value}" for key, value in scale.items())]
        lines += [f"query = {_inline('action_rule.query', 'query', rule.query)}"]
    rating, chance = _rated(env.signals.settlement)
    parts = {
        "signals": env.signals.initial,
        "feedback": env.signals.feedback,
        "settlement": rating,
        "values": env.values,
    }
    for section, part in parts.items():
        kind, given = _written(section, section, part)
        if section == "values" and not joint:
            given.pop("prior", None)  # it stands beside the values it is of
        lines += ["", f"[{section}]", f'kind = "{kind}"']
        given |= chance if section == "settlement" else {}
        lines += [f"{key} = {value}" for key, value in given.items()]
    if env.displays is not None:
        held = {name: getattr(env.displays, name) for name in DISPLAYS}
        if held["of"] is None:
            del held["of"]
        lines += ["", "[displays]", *(f"{name} = {json.dumps(x)}" for name, x in held.items())]
    money = {name: np.asarray(getattr(env, name)) for name in MONEY}
    if any(x.any() for x in money.values()):
        lines += ["", "[money]", *(f"{name} = {_value(x)}" for name, x in money.items())]
    return "\n".join([*lines, ""])


def _rated(sent: Any) -> tuple[Any, dict[str, str]]:
    """The rating of a settlement, and its chance as TOML where it need not come."""
    if not sent.sends_missing():
        return sent, {}
    chance = sent.chance
    if isinstance(chance, RatingLaw):
        held = ((name, _value(getattr(chance, name))) for name in LAW)
        value = f"{{ {', '.join(f'{name} = {x}' for name, x in held)} }}"
    elif callable(chance):
        must = "be a number, an array or a RatingLaw to be written"
        do = "save the policy instead, or keep the market in Python"
        raise InvalidArgument(describe("write: MissingRatings(chance=...)", must, chance, do))
    else:
        value = _value(chance)
    return sent.rating, {"chance": value, "given": json.dumps(sent.given)}


def _written(place: str, section: str, part: object) -> tuple[str, dict[str, str]]:
    """Name of a built-in class and its arguments as TOML."""
    kind = type(part)
    if kind not in KINDS[section]:
        must = f"be one of {', '.join(x.__name__ for x in KINDS[section])} to be written"
        do = "save the policy instead, or keep the market in Python"
        raise InvalidArgument(describe(f"write: {place}", must, kind.__name__, do))
    given = {name: getattr(part, name) for name in KINDS[section][kind]}
    told = {key: _value(x) for key, x in given.items() if x is not None and key != "structures"}
    if "structures" in given:
        held = (_inline(place, section, one) for one in given["structures"])
        told["structures"] = f"[{', '.join(held)}]"
    return kind.__name__, told


def _inline(place: str, section: str, part: object) -> str:
    """A part as one TOML table."""
    kind, given = _written(place, section, part)
    return f"{{ {', '.join([f'kind = {json.dumps(kind)}', *map(' = '.join, given.items())])} }}"


def _value(value: Any) -> str:
    """A number, a flag or an array as TOML."""
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    return json.dumps(np.asarray(value).tolist())


def _digits(cell: float) -> str:
    return repr(float(cell))


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
