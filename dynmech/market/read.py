"""A market as a folder of tables: products and tastes in CSV, everything else in TOML.

- `products.csv`: `name`, one column a characteristic, and `theta`, or `theta_1..K` with
  `chance_1..K`, money and probabilities.
- `tastes.csv`: `weight` and the same characteristics, in any order; or a section `[tastes]` of
  `market.toml` with `kind` "normal", "lognormal" or "mixed_logit" and that constructor's arguments.
- `market.toml`: `horizon` and sections `[behaviour]` (`rule`, its arguments, `choice` and its
  arguments, `query`: a chance, one for each product, or `{kind = "FallingQuery", ...}`;
  `trembling`: the chance of `Trembling`),
  `[signals]`, `[feedback]`, `[settlement]`, `[values]` (`kind`, and the constructor's arguments;
  `chance` and `given` of a settlement: a rating that need not come, as in `MissingRatings`),
  `[displays]` (`size`, `ordered`, `of`) and `[money]` (`unit`, `round_cost`, `exit_value`).

Classes are those of this package; a rule of one's own is code, and cannot be written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynmech import _checks as checks
from dynmech.errors import InvalidArgument, OutsideSupport, describe, require_probabilities
from dynmech.market import choices, feedback, rules, signals
from dynmech.market.cells import Blame, Settings, Table
from dynmech.market.displays import Displays
from dynmech.market.environment import RecommendationMDP
from dynmech.market.missing import MissingRatings, RatingLaw
from dynmech.market.tables import CHOOSE, DISPLAYS, KINDS, LAW, MONEY
from dynmech.market.tastes import TasteGrid
from dynmech.market.trembling import Trembling

_MONEY = r"(theta|chance)(_\d+)?$"
_FILES = ("products.csv", "tastes.csv", "market.toml")
_TASTES = {
    "normal": "from_normal",
    "lognormal": "from_lognormal",
    "mixed_logit": "from_mixed_logit",
}


def read_market(path: str | os.PathLike[str]) -> RecommendationMDP:
    """Read a market from a folder of `products.csv`, `tastes.csv` and `market.toml`.

    **Arguments:** `path`: the folder; the module's page lists what the files hold.

    **Returns:** the market, products in the order of `products.csv`.

    **Raises:** a `DynmechError` naming the file and the line, and the column or key at fault.
    """
    folder = checks.path("read_market(path=...)", path)
    if not folder.is_dir():
        must = f"be a folder with {', '.join(_FILES)}"
        raise InvalidArgument(describe("read_market(path=...)", must, repr(str(path))))
    settings = Settings(folder / "market.toml")
    products = Table(folder / "products.csv")
    support = _support(products)
    names, features = products.texts("name"), products.others("name", _MONEY)
    gamma = products.numbers(features)
    if (folder / "tastes.csv").exists():
        if "tastes" in settings.sections:
            must = "give tastes once: in tastes.csv, or in [tastes]"
            raise InvalidArgument(describe(settings.where("tastes"), must, "both"))
        tastes = _points(Table(folder / "tastes.csv"), features)
    else:
        tastes = _drawn(settings)
    with settings.blame("horizon"):
        horizon = settings.top("horizon")
    section = settings.section
    return settings.build(
        "market",
        RecommendationMDP,
        gamma=gamma,
        tastes=tastes,
        horizon=horizon,
        action_rule=_behaviour(settings),
        signals=signals.SignalStructure(
            _part(settings, "signals", section("signals"), signals.GaussianSignals)
            if section("signals")
            else signals.NoSignals(),
            _part(settings, "feedback", section("feedback"), feedback.RatingFeedback)
            if section("feedback")
            else feedback.NoFeedback(),
            _settlement(settings),
        ),
        values=_values(settings, products, support),
        names=names,
        displays=_displays(settings),
        **_money(settings),
    )


def _class(settings: Settings, section: str, key: str, part: str, name: object) -> type:
    found = {kind.__name__: kind for kind in KINDS[part]}
    if not isinstance(name, str) or name not in found:
        must = f"be one of {', '.join(found)}"
        do = "a class of your own is code: build the market in Python"
        raise OutsideSupport(describe(settings.where(section, key), must, repr(name), do))
    return found[name]


def _part(settings: Settings, section: str, given: dict[str, Any], default: type) -> Any:
    """One part from its section: `kind` and the constructor's arguments."""
    kind = _class(settings, section, "kind", section, given.pop("kind", default.__name__))
    inner = given.get("structures")
    if isinstance(inner, list) and all(isinstance(one, dict) for one in inner):
        parts = [_part(settings, section, dict(one), default) for one in given.pop("structures")]
        rest = _known(settings, section, given, KINDS[section][kind])
        return settings.build(section, kind, structures=parts, **rest)
    return settings.build(section, kind, **_known(settings, section, given, KINDS[section][kind]))


def _settlement(settings: Settings) -> signals.AbstractSettlementSignal:
    """The rating, and the chance that it comes where one is given."""
    given = settings.section("settlement")
    chance, how = given.pop("chance", None), given.pop("given", "constant")
    rating = _part(settings, "settlement", given, signals.RatingSettlement)
    if chance is None:
        return rating
    if isinstance(chance, dict):
        held = _known(settings, "settlement", chance, LAW)
        chance = settings.build("settlement", RatingLaw, **held)
    return settings.build("settlement", MissingRatings, rating=rating, chance=chance, given=how)


def _known(
    settings: Settings, section: str, given: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    for key in given:
        if key not in names:
            must = f"hold {', '.join(names) or 'nothing else'}"
            raise OutsideSupport(describe(settings.where(section, key), must, key))
    return {
        key: x if key == "labels" else settings.array(section, key, x) for key, x in given.items()
    }


def _behaviour(settings: Settings) -> rules.AbstractActionRule:
    given = settings.section("behaviour")
    if not given:
        must = "hold a section [behaviour] with rule, choice and query"
        raise InvalidArgument(describe(settings.name, must, "nothing"))
    rule = _class(settings, "behaviour", "rule", "rule", given.pop("rule", None))
    chance = given.pop("trembling", None)
    if chance is not None:
        return settings.build(
            "behaviour", Trembling, rule=_rule(settings, rule, given), chance=chance
        )
    return _rule(settings, rule, given)


def _rule(settings: Settings, rule: type, given: dict[str, Any]) -> rules.AbstractActionRule:
    """A rule of its own arguments, and of a choice and a query where it takes them."""
    if rule not in CHOOSE:
        rest = _known(settings, "behaviour", given, KINDS["rule"][rule])
        return settings.build("behaviour", rule, **rest)
    choice = _class(settings, "behaviour", "choice", "choice", given.pop("choice", "Logit"))
    mine = {key: given.pop(key) for key in KINDS["choice"][choice] if key in given}
    query = given.pop("query", None)
    names = KINDS["rule"][rule]
    rest = _known(settings, "behaviour", given, (*names, *KINDS["choice"][choice], "query"))
    mine = {key: settings.array("behaviour", key, x) for key, x in mine.items()}
    built = settings.build("behaviour", choice, **mine)
    asked = _query(settings, query)
    return settings.build("behaviour", rule, choice=built, query=asked, **rest)


def _query(settings: Settings, query: Any) -> Any:
    if isinstance(query, dict):
        given = dict(query)
        kind = _class(settings, "behaviour", "query", "query", given.pop("kind", "ConstantQuery"))
        names = KINDS["query"][kind]
        with settings.blame("behaviour", "query"):
            return kind(**_known(settings, "behaviour", given, names))
    with settings.blame("behaviour", "query"):
        if isinstance(query, list):
            return choices.ProductQuery(settings.array("behaviour", "query", query))
        return choices.ConstantQuery(query)


def _many(products: Table) -> list[str]:
    return sorted((x for x in products.head if re.match(r"theta_\d+$", x)), key=_number)


def _support(products: Table) -> np.ndarray:
    """Values that each advertiser may have, shape (n, K)."""
    many = _many(products)
    products.only([*(many or ["theta"]), *_chances(many)], _MONEY)
    return products.numbers(many or ["theta"])


def _chances(many: list[str]) -> list[str]:
    """The columns of chances beside those of values."""
    return [f"chance_{_number(x)}" for x in many]


def _values(settings: Settings, products: Table, support: np.ndarray) -> Any:
    chances, given = _chances(_many(products)), settings.section("values")
    if any(x in products.head for x in chances):
        if "prior" in given:
            must = f"give chances once: in {products.name}, or here"
            raise InvalidArgument(describe(settings.where("values", "prior"), must, "both"))
        given["prior"] = prior = products.numbers(chances, least=0.0)
        for line, row in zip(products.lines, prior, strict=True):
            place = products.where(line, f"{chances[0]} to {chances[-1]}")
            require_probabilities(place, row)
    kind = _class(settings, "values", "kind", "values", given.pop("kind", "ConstantValues"))
    rest = _known(settings, "values", given, KINDS["values"][kind])
    return settings.build("values", kind, support=support, **rest)


def _displays(settings: Settings) -> Displays | None:
    """What can be shown at once, where the file says so."""
    given = settings.section("displays")
    if not given:
        return None
    for key in given:
        if key not in DISPLAYS:
            must = f"hold {', '.join(DISPLAYS)}"
            raise OutsideSupport(describe(settings.where("displays", key), must, key))
    return settings.build("displays", Displays, **given)


def _money(settings: Settings) -> dict[str, Any]:
    """What queries cost and what leaving is worth, where the file says so."""
    given = _known(settings, "money", settings.section("money"), ("unit", *MONEY))
    return {name: given[name] for name in MONEY if name in given}


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[1])


def _points(table: Table, features: list[str]) -> TasteGrid:
    table.only(["weight", *features])
    points, weights = table.numbers(features), table.numbers(["weight"], least=0.0)[:, 0]
    with Blame(table.name):
        return TasteGrid(points, weights)


def _drawn(settings: Settings) -> TasteGrid:
    given = settings.section("tastes")
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in _TASTES:
        must = f"be one of {', '.join(_TASTES)} where there is no tastes.csv"
        raise OutsideSupport(describe(settings.where("tastes", "kind"), must, repr(kind)))
    with settings.blame("tastes"):
        arrays = {key: settings.array("tastes", key, x) for key, x in given.items()}
        return getattr(TasteGrid, _TASTES[kind])(**arrays)
